//! First rows, by a view of the database.

use std::collections::HashSet;
use std::io;
use std::time::Instant;

use super::Reader;
use crate::definition::FirstRows;
use crate::source::postgres::catalog::{self, Catalog, Misfit};
use crate::source::postgres::client::{Client, Tick, quoted};
use crate::source::postgres::envelope::{Change, Origin, Table};
use crate::source::postgres::lsn::Lsn;
use crate::source::postgres::trouble::Trouble;

impl Reader {
    /// Holds the tables as they are for the view: one that is rewritten (by some forms of ALTER TABLE, or VACUUM FULL) would
    /// look empty in it, without an error. Whoever wants to change them waits until their first rows are read.
    pub(super) fn lock_rows(
        &self,
        view: &mut Client,
        new: &[(usize, String)],
        catalog: &Catalog,
        tick: Tick<'_>,
    ) -> Result<(), Trouble> {
        let is_read = |m: &usize| self.members[*m].postgres.start == FirstRows::Snapshot;
        let tables = new.iter().filter(|(m, _)| is_read(m));
        let tables: Vec<&catalog::Table> = tables.filter_map(|(_, name)| catalog.table(name)).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = tables.iter().map(|table| table.quoted()).collect();
        view.query(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")), tick)?;
        let oids: Vec<String> = tables.iter().map(|table| table.oid.to_string()).collect();
        // As the view has it, and as it is.
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

    /// Reads first rows by a view of the database, which is as of `at`.
    pub(super) fn first_rows(
        &mut self,
        mut view: Client,
        at: Lsn,
        new: Vec<(usize, String)>,
        catalog: &Catalog,
    ) -> Result<(), Trouble> {
        let hand = self.first().clone();
        let mut tick = || hand.check();
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
            tracing::info!(feed = self.members[*m].hand.name(), table = name, rows, %at, "begins");
            read.push((*m, (table.oid, name.clone())));
        }
        drop(view);
        read.into_iter()
            .for_each(|(m, table)| self.members[m].tables.push(table));
        self.taken = at.max(self.taken);
        self.release(false, None)?;
        self.members.iter_mut().for_each(|member| member.again = false);
        self.first_rows = false;
        Ok(())
    }

    /// By (4) of the module, a feed that begins again empties its input first.
    fn empty(&mut self, m: usize, name: &str, at: Lsn) -> Result<(), Trouble> {
        let member = &mut self.members[m];
        if !member.again {
            return Ok(());
        }
        let text = format!("feed {} begins again, by slot {:?}", member.hand.name(), self.slot);
        if member.postgres.start == FirstRows::Now {
            tracing::warn!("{text}, with what changes from now on: what changed meanwhile is not read");
            return Ok(());
        }
        if member.hand.input().feeds.len() > 1 {
            return self.judge([Misfit {
                message: format!("{text}, and its input has other feeds, whose rows cannot be told from its own"),
                help: "start with a new lake".into(),
                refuses: true,
            }]);
        }
        tracing::warn!("{text}: its input is made anew of its tables' rows");
        let (schema, table) = name.split_once('.').unwrap_or(("", name));
        let table = Table::of_columns(&self.database, (schema, table), std::iter::empty());
        let origin = Origin {
            lsn: at,
            transaction: None,
        };
        let mut record = Vec::new();
        table.write(&Change::Truncate, origin, None, &mut record);
        self.arrived.get_or_insert_with(Instant::now);
        self.members[m].push(&record, None);
        Ok(())
    }

    fn read_rows(
        &mut self,
        view: &mut Client,
        table: &catalog::Table,
        m: usize,
        at: Lsn,
        record: &mut Vec<u8>,
        tick: Tick<'_>,
    ) -> Result<(), Trouble> {
        let Some(published) = &table.published else {
            return Err(Trouble::Wrong(format!("table {} is not published", table.name())));
        };
        let columns: Vec<String> = published.columns.iter().map(|column| quoted(column)).collect();
        // A table that others inherit from has its own rows alone; a partitioned one has none of its own.
        let only = if table.kind == "p" { "" } else { "ONLY " };
        let filter = published.filter.as_ref();
        let filter = filter.map_or(String::new(), |filter| format!(" WHERE {filter}"));
        let sql = format!("SELECT {} FROM {only}{}{filter}", columns.join(", "), table.quoted());
        let mut written: Option<Table> = None;
        view.query_each(&sql, tick, |columns, row| {
            let written = written.get_or_insert_with(|| {
                let columns = columns
                    .iter()
                    .map(|(name, oid)| (name.as_str(), self.types.kind(*oid), false));
                Table::of_columns(&self.database, (&table.schema, &table.table), columns)
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

/// Makes a view of the database on a connection of its own, by (4) of the module; answers the place that it is as of.
pub(super) fn view_of(view: &mut Client, slot: &str, tick: Tick<'_>) -> Result<Lsn, Trouble> {
    let name: String = slot.chars().take(48).collect();
    let name = format!("{name}_{:08x}", rand::random::<u32>());
    view.query("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ", tick)?;
    let sql = format!(
        "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput USE_SNAPSHOT",
        quoted(&name)
    );
    let rows = view.query(&sql, tick)?;
    let at = rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok());
    at.ok_or_else(|| Trouble::Wrong("the server does not say what place the new slot is at".into()))
}
