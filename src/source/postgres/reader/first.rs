//! The initial copy: reads the present rows of tables, in one snapshot of the database.

use std::collections::HashSet;
use std::io;
use std::time::Instant;

use super::PostgresReader;
use crate::definition::FirstRows;
use crate::source::postgres::catalog::{self, Catalog, CatalogMisfit};
use crate::source::postgres::client::{PostgresClient, WaitCheck, quoted};
use crate::source::postgres::envelope::{ChangeOrigin, RowChange, TableEnvelope};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::lsn::Lsn;

impl PostgresReader {
    /// Locks the tables until the copy is done: a table that is rewritten meanwhile (by some forms of ALTER TABLE, or
    /// VACUUM FULL) would look empty in the snapshot, without an error. Anyone who wants to alter the tables waits.
    pub(super) fn lock_rows(
        &self,
        view: &mut PostgresClient,
        new: &[(usize, String)],
        catalog: &Catalog,
        tick: WaitCheck<'_>,
    ) -> Result<(), PostgresError> {
        let is_read = |m: &usize| self.members[*m].postgres.start == FirstRows::Snapshot;
        let tables = new.iter().filter(|(m, _)| is_read(m));
        let tables: Vec<&catalog::CatalogTable> = tables.filter_map(|(_, name)| catalog.table(name)).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = tables.iter().map(|table| table.quoted()).collect();
        view.query(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")), tick)?;
        let oids: Vec<String> = tables.iter().map(|table| table.oid.to_string()).collect();
        // Compares the file of each table in the snapshot with its present file, to find tables that were
        // rewritten in between.
        let rewritten = format!(
            "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relfilenode <> pg_relation_filenode(c.oid) AND c.oid IN \
             (SELECT t FROM unnest('{{{0}}}'::oid[]) t UNION SELECT p.relid FROM unnest('{{{0}}}'::oid[]) t, pg_partition_tree(t) p)",
            oids.join(",")
        );
        match view.query(&rewritten, tick)?.into_iter().flatten().flatten().next() {
            Some(name) => Err(io::Error::other(format!("table {name} was rewritten just now")).into()),
            None => Ok(()),
        }
    }

    /// Copies the rows in a snapshot of the database as of `at`.
    pub(super) fn first_rows(
        &mut self,
        mut view: PostgresClient,
        at: Lsn,
        new: Vec<(usize, String)>,
        catalog: &Catalog,
    ) -> Result<(), PostgresError> {
        let handle = self.first().clone();
        let mut tick = || handle.check();
        self.first_rows = true;
        let mut record = Vec::new();
        let mut read = Vec::new();
        let mut emptied = HashSet::new();
        for (m, name) in &new {
            if emptied.insert(*m) {
                self.empty(*m, name, at)?;
            }
            let table = catalog.table(name).expect("new tables are of the catalog");
            let rows_before = self.members[*m].next;
            if self.members[*m].postgres.start == FirstRows::Snapshot {
                self.read_rows(&mut view, table, *m, at, &mut record, &mut tick)?;
            }
            let rows = self.members[*m].next - rows_before;
            tracing::info!(feed = self.members[*m].handle.name(), table = name, rows, %at, "begins");
            read.push((*m, (table.oid, name.clone())));
        }
        drop(view);
        read.into_iter()
            .for_each(|(m, table)| self.members[m].tables.push(table));
        self.taken = at.max(self.taken);
        self.release(false, None)?;
        self.members.iter_mut().for_each(|member| member.copies_again = false);
        self.first_rows = false;
        Ok(())
    }

    /// By (4) of the module, truncates the input of a feed that starts again.
    fn empty(&mut self, m: usize, name: &str, at: Lsn) -> Result<(), PostgresError> {
        let member = &mut self.members[m];
        if !member.copies_again {
            return Ok(());
        }
        let text = format!("feed {} begins again, by slot {:?}", member.handle.name(), self.slot);
        if member.postgres.start == FirstRows::Now {
            tracing::warn!("{text}, with what changes from now on: what changed meanwhile is not read");
            return Ok(());
        }
        if member.handle.input().feeds.len() > 1 {
            return self.check_misfits([CatalogMisfit {
                message: format!("{text}, and its input has other feeds, whose rows cannot be told from its own"),
                help: "start with a new lake".into(),
                refuses: true,
            }]);
        }
        tracing::warn!("{text}: its input is made anew of its tables' rows");
        let (schema, table) = name.split_once('.').unwrap_or(("", name));
        let table = TableEnvelope::of_columns(&self.database, (schema, table), std::iter::empty());
        let origin = ChangeOrigin {
            lsn: at,
            transaction: None,
        };
        let mut record = Vec::new();
        table.write(&RowChange::Truncate, origin, None, &mut record);
        self.arrived.get_or_insert_with(Instant::now);
        self.members[m].push(&record, None);
        Ok(())
    }

    fn read_rows(
        &mut self,
        view: &mut PostgresClient,
        table: &catalog::CatalogTable,
        m: usize,
        at: Lsn,
        record: &mut Vec<u8>,
        tick: WaitCheck<'_>,
    ) -> Result<(), PostgresError> {
        let Some(published) = &table.published else {
            return Err(PostgresError::Wrong(format!("table {} is not published", table.name())));
        };
        let columns: Vec<String> = published.columns.iter().map(|column| quoted(column)).collect();
        // From a table that others inherit from, only its own rows are read; a partitioned table has none of its
        // own.
        let only = if table.kind == "p" { "" } else { "ONLY " };
        let filter = published.filter.as_ref();
        let filter = filter.map_or(String::new(), |filter| format!(" WHERE {filter}"));
        let sql = format!("SELECT {} FROM {only}{}{filter}", columns.join(", "), table.quoted());
        let mut written: Option<TableEnvelope> = None;
        view.query_each(&sql, tick, |columns, row| {
            let written = written.get_or_insert_with(|| {
                let columns = columns
                    .iter()
                    .map(|(name, oid)| (name.as_str(), self.types.kind(*oid), false));
                TableEnvelope::of_columns(&self.database, (&table.schema, &table.table), columns)
            });
            record.clear();
            written.write_row(row.values(), at, record);
            self.arrived.get_or_insert_with(Instant::now);
            self.members[m].push(record, None);
            match self.members[m].batch.is_full() {
                true => self.release(true, None),
                false => Ok(()),
            }
        })
    }
}

/// Opens a snapshot of the database on a connection of its own, by (4) of the module; returns its LSN.
pub(super) fn view_of(view: &mut PostgresClient, slot: &str, tick: WaitCheck<'_>) -> Result<Lsn, PostgresError> {
    let name: String = slot.chars().take(48).collect();
    let name = format!("{name}_{:08x}", rand::random::<u32>());
    view.query("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ", tick)?;
    let sql = format!(
        "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput USE_SNAPSHOT",
        quoted(&name)
    );
    let rows = view.query(&sql, tick)?;
    let at = rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok());
    at.ok_or_else(|| PostgresError::Wrong("the server does not say what place the new slot is at".into()))
}
