//! Prepares the stream: creates missing publications and the slot, and checks that everything fits.

use super::{PostgresReader, SlotMember};
use crate::source::SourceError;
use crate::source::postgres::catalog::{self, Catalog, CatalogMisfit, CatalogRequest};
use crate::source::postgres::client::{PostgresClient, WaitCheck, quoted};
use crate::source::postgres::error::PostgresError;

impl PostgresReader {
    /// The publications of all feeds' tables.
    pub(super) fn publications(&self) -> Vec<String> {
        publications(self.members.iter())
    }

    /// The publications of feeds whose initial copy was read. Other publications may be newer than the changes still
    /// to be sent, and the server does not know a publication that did not exist at the time of a change.
    pub(super) fn publications_read(&self) -> Vec<String> {
        publications(self.members.iter().filter(|member| !member.tables.is_empty()))
    }

    /// Creates missing publications and the slot, and checks that everything fits.
    pub(super) fn prepare(
        &mut self,
        client: &mut PostgresClient,
        tick: WaitCheck<'_>,
    ) -> Result<Catalog, PostgresError> {
        let known: Vec<u32> = self
            .members
            .iter()
            .flat_map(|member| {
                member
                    .known
                    .iter()
                    .flat_map(|known| &known.tables)
                    .chain(&member.tables)
            })
            .map(|(oid, _)| *oid)
            .collect();
        let wanted = CatalogRequest {
            slot: self.slot.clone(),
            publications: self.publications(),
            tables: self
                .members
                .iter()
                .flat_map(|member| member.postgres.tables.clone())
                .collect(),
            oids: known,
        };
        let failed = |error: SourceError| PostgresError::Ended(error.into());
        let mut catalog = catalog::survey(client, &wanted, tick)?;
        let mut misfits = catalog.misfits(&self.url, &wanted);
        for member in &self.members {
            misfits.extend(catalog.misfits_of_feed(member.handle.input(), member.handle.feed, &member.postgres));
        }
        // A renamed table is reported with its new name, before a misfit says that it does not exist.
        self.resolve(&catalog)?;
        self.check_misfits(misfits)?;
        let mut made = false;
        for publication in &wanted.publications {
            let tables = self.tables_of(publication);
            self.check_misfits(catalog.misfits_of_identity(&tables))?;
            // Tables that a publication merely lacks are added below.
            let misfits = catalog.misfits_of_publication(publication, &tables);
            self.check_misfits(misfits.into_iter().filter(|misfit| !misfit.refuses))?;
            made |= self.publish(client, &catalog, publication, &tables, tick)?;
        }
        if catalog.slot.is_none() && self.reached.is_none() {
            self.report_waiting();
            let sql = format!(
                "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT",
                quoted(&self.slot)
            );
            client.query(&sql, tick)?;
            tracing::info!(feed = self.first().name(), slot = self.slot, "slot made");
            made = true;
        }
        if made {
            catalog = catalog::survey(client, &wanted, tick)?;
        }
        // A slot just created is valid; one that existed may have been invalidated.
        if let Some(lost) = catalog.slot.as_ref().and_then(|slot| slot.lost.as_deref()) {
            let reason = format!("the server gave it up: {lost}");
            return Err(failed(self.lost(&reason)));
        }
        if let Some(reached) = self.reached {
            let systems = self.members.iter().filter_map(|member| member.known.as_ref());
            let other = systems
                .map(|known| &known.system)
                .find(|system| **system != catalog.system);
            let lost = match &catalog.slot {
                _ if other.is_some() => Some("the server is another one, by its system identifier".to_string()),
                None => Some("it does not exist".to_string()),
                Some(slot) if slot.confirmed.is_some_and(|confirmed| confirmed > reached) => {
                    let confirmed = slot.confirmed.unwrap_or_default();
                    Some(format!("it was moved to {confirmed} by another program"))
                }
                Some(_) if catalog.end < reached => {
                    Some(format!("the server's log ends at {}, so it was set back", catalog.end))
                }
                Some(_) => None,
            };
            if let Some(reason) = lost {
                return Err(failed(self.lost(&reason)));
            }
        }
        self.system = catalog.system.clone();
        self.database = catalog.database.clone();
        self.target = catalog.end;
        Ok(catalog)
    }

    /// Reports that the server creates the slot only once all running transactions have ended.
    pub(super) fn report_waiting(&self) {
        let text = "waits until the server has made a slot: transactions that run there must end first";
        self.members
            .iter()
            .for_each(|member| member.handle.gauges.set_error(text.into()));
    }

    /// Fails for a misfit that prevents reading, and reports the others.
    pub(super) fn check_misfits(
        &mut self,
        misfits: impl IntoIterator<Item = CatalogMisfit>,
    ) -> Result<(), PostgresError> {
        for misfit in misfits {
            if misfit.refuses {
                return Err(PostgresError::Ended(self.misfit(misfit).into()));
            }
            if self.reported_misfits.insert(misfit.message.clone()) {
                tracing::warn!(feed = self.first().name(), "{}; {}", misfit.message, misfit.help);
            }
        }
        Ok(())
    }

    /// The tables that feeds expect in a publication.
    fn tables_of(&self, publication: &str) -> Vec<String> {
        let members = self.members.iter().filter(|member| member.publication == publication);
        let mut tables: Vec<String> = members.flat_map(|member| member.postgres.tables.clone()).collect();
        tables.sort();
        tables.dedup();
        tables
    }

    /// Creates a publication, or adds missing tables to it. Returns whether it changed anything.
    fn publish(
        &self,
        client: &mut PostgresClient,
        catalog: &Catalog,
        publication: &str,
        tables: &[String],
        tick: WaitCheck<'_>,
    ) -> Result<bool, PostgresError> {
        let of = |names: &mut dyn Iterator<Item = &String>| -> Vec<String> {
            names
                .filter_map(|name| catalog.table(name))
                .map(catalog::CatalogTable::quoted)
                .collect()
        };
        let exists = catalog.publications.contains_key(publication);
        let lacks = |name: &&String| !exists || catalog.table(name).is_some_and(|table| table.published.is_none());
        let lacking: Vec<&String> = tables.iter().filter(lacks).collect();
        // If a table that was read is no longer published, its changes since then are lost.
        let read = |member: &SlotMember, name: &str| {
            member.publication == publication && member.tables.iter().any(|(_, own)| own == name)
        };
        let lost = lacking
            .iter()
            .find(|name| self.members.iter().any(|member| read(member, name)));
        if let Some(name) = lost {
            let reason = match exists {
                true => format!("table {name} was taken out of publication {publication:?}"),
                false => format!("publication {publication:?} does not exist"),
            };
            return Err(PostgresError::Ended(self.lost(&reason).into()));
        }
        let sql = match exists {
            false => catalog::create_publication(publication, &of(&mut tables.iter())),
            true => {
                if lacking.is_empty() {
                    return Ok(false);
                }
                let lacking = of(&mut lacking.into_iter());
                format!(
                    "ALTER PUBLICATION {} ADD TABLE {}",
                    quoted(publication),
                    lacking.join(", ")
                )
            }
        };
        match client.query(&sql, tick) {
            Ok(_) => {
                tracing::info!(feed = self.first().name(), publication, "{sql}");
                Ok(true)
            }
            // Another of our runs created it first.
            Err(trouble) if trouble.is("42710") => Ok(true),
            Err(PostgresError::Server(refusal)) => Err(PostgresError::Ended(
                self.misfit(CatalogMisfit {
                    message: format!("publication {publication:?} lacks tables and could not be made right: {refusal}"),
                    help: format!("as the tables' owner: {sql}"),
                    refuses: true,
                })
                .into(),
            )),
            Err(trouble) => Err(trouble),
        }
    }

    /// Determines which of their tables the feeds have read already.
    fn resolve(&mut self, catalog: &Catalog) -> Result<(), PostgresError> {
        let mut wrong = None;
        for member in &mut self.members {
            let known = member.known.take();
            if let Some(known) = &known {
                let names = &member.postgres.tables;
                // A table that was removed and named again was not read meanwhile, so its input is rebuilt from
                // all tables' rows.
                let named = |oid: u32| {
                    catalog
                        .tables
                        .iter()
                        .any(|table| table.oid == oid && names.contains(&table.name()))
                };
                if known.left.iter().any(|(oid, name)| names.contains(name) || named(*oid)) {
                    member.copies_again = true;
                    continue;
                }
                member.left.clone_from(&known.left);
                for (oid, name) in &known.tables {
                    let now = catalog
                        .tables
                        .iter()
                        .find(|table| table.oid == *oid)
                        .map(catalog::CatalogTable::name);
                    let anew = catalog.table(name).is_some_and(|table| table.oid != *oid);
                    match now {
                        // The table's present name is in the definition.
                        Some(now) if names.contains(&now) => member.tables.push((*oid, now)),
                        Some(now) if names.contains(name) => {
                            wrong.get_or_insert((
                                format!("table {name} is called {now} now"),
                                format!("write that in `tables`, or give {now} its name back"),
                            ));
                        }
                        None if names.contains(name) && anew => {
                            wrong.get_or_insert((
                                format!("table {name} was dropped and made anew since the newest snapshot"),
                                "give the feed another `slot` to begin with its tables' rows again".to_string(),
                            ));
                        }
                        // The table was removed from the definition.
                        _ => member.left.push((*oid, name.clone())),
                    }
                }
            }
            member.known = known;
            for tables in [&mut member.tables, &mut member.left] {
                tables.sort();
                tables.dedup();
            }
        }
        match wrong {
            None => Ok(()),
            Some((message, help)) => self.check_misfits([CatalogMisfit {
                message,
                help,
                refuses: true,
            }]),
        }
    }

    /// The tables whose initial copy is still to be read, each with the index of its feed.
    pub(super) fn new_tables(&self, catalog: &Catalog) -> Vec<(usize, String)> {
        let mut new = Vec::new();
        for (m, member) in self.members.iter().enumerate() {
            for name in &member.postgres.tables {
                let oid = catalog.table(name).map(|table| table.oid);
                if !member.tables.iter().any(|(own, _)| Some(*own) == oid) {
                    new.push((m, name.clone()));
                }
            }
        }
        new
    }
}

fn publications<'m>(members: impl Iterator<Item = &'m SlotMember>) -> Vec<String> {
    let mut names: Vec<String> = members.map(|member| member.publication.clone()).collect();
    names.sort();
    names.dedup();
    names
}
