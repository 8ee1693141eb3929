//! Before the stream: publications and the slot are made where they are absent, and all is looked at whether it fits.

use super::{Member, Reader};
use crate::source::SourceError;
use crate::source::postgres::catalog::{self, Catalog, Misfit, Wanted};
use crate::source::postgres::client::{Client, Tick, quoted};
use crate::source::postgres::trouble::Trouble;

impl Reader {
    /// What the feeds' tables are published by.
    pub(super) fn publications(&self) -> Vec<String> {
        publications(self.members.iter())
    }

    /// The same of feeds that have read their tables' first rows: other publications may be younger than what is still to
    /// be told, and the server knows none that was not there then.
    pub(super) fn publications_read(&self) -> Vec<String> {
        publications(self.members.iter().filter(|member| !member.tables.is_empty()))
    }

    /// Makes publications and the slot where they are absent, and looks whether all fits.
    pub(super) fn prepare(&mut self, client: &mut Client, tick: Tick<'_>) -> Result<Catalog, Trouble> {
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
        let wanted = Wanted {
            slot: self.slot.clone(),
            publications: self.publications(),
            tables: self
                .members
                .iter()
                .flat_map(|member| member.postgres.tables.clone())
                .collect(),
            oids: known,
        };
        let failed = |error: SourceError| Trouble::Ended(error.into());
        let mut catalog = catalog::survey(client, &wanted, tick)?;
        let mut misfits = catalog.misfits(&self.url, &wanted);
        for member in &self.members {
            misfits.extend(catalog.misfits_of_feed(member.hand.input(), member.hand.feed, &member.postgres));
        }
        // A table that has another name now says so itself.
        self.resolve(&catalog)?;
        self.judge(misfits)?;
        let mut made = false;
        for publication in &wanted.publications {
            let tables = self.tables_of(publication);
            self.judge(catalog.misfits_of_identity(&tables))?;
            // What is only missing is added below.
            let misfits = catalog.misfits_of_publication(publication, &tables);
            self.judge(misfits.into_iter().filter(|misfit| !misfit.refuses))?;
            made |= self.publish(client, &catalog, publication, &tables, tick)?;
        }
        if catalog.slot.is_none() && self.reached.is_none() {
            self.tell_waiting();
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
        // A new slot is sound; one that was there may not be.
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

    /// A slot is made once all transactions have ended that were running.
    pub(super) fn tell_waiting(&self) {
        let text = "waits until the server has made a slot: transactions that run there must end first";
        self.members
            .iter()
            .for_each(|member| member.hand.gauges.set_error(text.into()));
    }

    /// Fails for what refuses a feed, and tells of the rest.
    pub(super) fn judge(&mut self, misfits: impl IntoIterator<Item = Misfit>) -> Result<(), Trouble> {
        for misfit in misfits {
            if misfit.refuses {
                return Err(Trouble::Ended(self.misfit(misfit).into()));
            }
            if self.told_misfits.insert(misfit.message.clone()) {
                tracing::warn!(feed = self.first().name(), "{}; {}", misfit.message, misfit.help);
            }
        }
        Ok(())
    }

    /// The tables that feeds want of a publication.
    fn tables_of(&self, publication: &str) -> Vec<String> {
        let members = self.members.iter().filter(|member| member.publication == publication);
        let mut tables: Vec<String> = members.flat_map(|member| member.postgres.tables.clone()).collect();
        tables.sort();
        tables.dedup();
        tables
    }

    /// Makes a publication, or adds to it what it lacks. Says whether anything was done.
    fn publish(
        &self,
        client: &mut Client,
        catalog: &Catalog,
        publication: &str,
        tables: &[String],
        tick: Tick<'_>,
    ) -> Result<bool, Trouble> {
        let of = |names: &mut dyn Iterator<Item = &String>| -> Vec<String> {
            names
                .filter_map(|name| catalog.table(name))
                .map(catalog::Table::quoted)
                .collect()
        };
        let exists = catalog.publications.contains_key(publication);
        let lacks = |name: &&String| !exists || catalog.table(name).is_some_and(|table| table.published.is_none());
        let lacking: Vec<&String> = tables.iter().filter(lacks).collect();
        // What was read and is no longer published has changes that nobody was told of.
        let read = |member: &Member, name: &str| {
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
            return Err(Trouble::Ended(self.lost(&reason).into()));
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
            // Another run of ours was quicker.
            Err(trouble) if trouble.is("42710") => Ok(true),
            Err(Trouble::Server(refusal)) => Err(Trouble::Ended(
                self.misfit(Misfit {
                    message: format!("publication {publication:?} lacks tables and could not be made right: {refusal}"),
                    help: format!("as the tables' owner: {sql}"),
                    refuses: true,
                })
                .into(),
            )),
            Err(trouble) => Err(trouble),
        }
    }

    /// Which of their tables feeds have read already.
    fn resolve(&mut self, catalog: &Catalog) -> Result<(), Trouble> {
        let mut wrong = None;
        for member in &mut self.members {
            let known = member.known.take();
            if let Some(known) = &known {
                let names = &member.postgres.tables;
                // What is named again was not read meanwhile: its input is made anew of all tables' rows.
                let named = |oid: u32| {
                    catalog
                        .tables
                        .iter()
                        .any(|table| table.oid == oid && names.contains(&table.name()))
                };
                if known.left.iter().any(|(oid, name)| names.contains(name) || named(*oid)) {
                    member.again = true;
                    continue;
                }
                member.left.clone_from(&known.left);
                for (oid, name) in &known.tables {
                    let now = catalog
                        .tables
                        .iter()
                        .find(|table| table.oid == *oid)
                        .map(catalog::Table::name);
                    let anew = catalog.table(name).is_some_and(|table| table.oid != *oid);
                    match now {
                        // Called as it is now.
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
                        // Its name was taken out.
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
            Some((message, help)) => self.judge([Misfit {
                message,
                help,
                refuses: true,
            }]),
        }
    }

    /// Tables that no feed has read yet, by feed.
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

fn publications<'m>(members: impl Iterator<Item = &'m Member>) -> Vec<String> {
    let mut names: Vec<String> = members.map(|member| member.publication.clone()).collect();
    names.sort();
    names.dedup();
    names
}
