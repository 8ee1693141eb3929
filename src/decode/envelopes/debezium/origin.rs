//! The origin of a change: its time, its table, and its transaction at the source.

use std::sync::Arc;

use crate::decode::cell::{Cell, Datum};
use crate::decode::decoded::RecordTransaction;
use crate::decode::envelopes::flat::time;

/// The fields of `source` and `transaction` of a change.
#[derive(Clone, Copy)]
pub(super) struct SourceBlock<'a> {
    pub ts_ms: Cell<'a>,
    pub connector: Cell<'a>,
    pub db: Cell<'a>,
    pub schema: Cell<'a>,
    pub table: Cell<'a>,
    pub collection: Cell<'a>,
    pub id: Cell<'a>,
    pub total_order: Cell<'a>,
    pub collection_order: Cell<'a>,
}

impl<'a> SourceBlock<'a> {
    /// An unknown origin.
    pub const NONE: SourceBlock<'static> = SourceBlock {
        ts_ms: Cell::ABSENT,
        connector: Cell::ABSENT,
        db: Cell::ABSENT,
        schema: Cell::ABSENT,
        table: Cell::ABSENT,
        collection: Cell::ABSENT,
        id: Cell::ABSENT,
        total_order: Cell::ABSENT,
        collection_order: Cell::ABSENT,
    };

    /// When the source made the change, in Unix milliseconds; some connectors write 0 for "unknown".
    pub fn source_ms(&self) -> Option<i64> {
        time(&self.ts_ms)
    }

    /// Takes a field of `source`.
    pub fn of_source(&mut self, field: &str, value: Cell<'a>) {
        match field {
            "ts_ms" => self.ts_ms = value,
            "connector" => self.connector = value,
            "db" => self.db = value,
            "schema" => self.schema = value,
            "table" => self.table = value,
            "collection" => self.collection = value,
            _ => (),
        }
    }

    /// Takes a field of `transaction`.
    pub fn of_transaction(&mut self, field: &str, value: Cell<'a>) {
        match field {
            "id" => self.id = value,
            "total_order" => self.total_order = value,
            "data_collection_order" => self.collection_order = value,
            _ => (),
        }
    }
}

/// Builds [`RecordTransaction`]s, sharing strings that repeat from record to record.
#[derive(Debug, Default)]
pub(super) struct TransactionBuilder {
    id: Option<Arc<str>>,
    /// The most recently used last.
    collections: Vec<Arc<str>>,
    name: String,
}

/// How many names of tables are cached.
const KEPT: usize = 64;

impl TransactionBuilder {
    /// The place of a record in its transaction, if that will have an END. For a TRUNCATE that is a statement of its
    /// own, outside of a transaction, some connectors report a transaction that never gets an END.
    pub fn place(&mut self, record: usize, op: &str, origin: &SourceBlock<'_>) -> Option<RecordTransaction> {
        let alone = op == "t" && matches!(origin.connector.text(), "mysql" | "mariadb" | "oracle");
        if alone || !origin.id.is_value() {
            return None;
        }
        let id = origin.id.resolved()?;
        let id = match &self.id {
            Some(known) if **known == *id => known.clone(),
            _ => self.id.insert(id.as_ref().into()).clone(),
        };
        let number = |cell: &Cell<'_>| {
            let n = match cell.datum {
                Datum::Int(n) => Some(n),
                _ => cell.text().parse().ok(),
            };
            n.and_then(|n: i64| u64::try_from(n).ok()).unwrap_or(0)
        };
        Some(RecordTransaction {
            record: record as u32,
            id,
            total_order: number(&origin.total_order),
            collection_order: number(&origin.collection_order),
            collection: self.collection(origin),
        })
    }

    fn collection(&mut self, origin: &SourceBlock<'_>) -> Arc<str> {
        let SourceBlock { db, schema, table, .. } = origin;
        let parts = match origin.connector.text() {
            "sqlserver" | "oracle" => [db, schema, table],
            "mongodb" => [db, &origin.collection, &Cell::ABSENT],
            "mysql" | "mariadb" => [db, table, &Cell::ABSENT],
            // The other connectors leave out the database if they have a schema.
            _ if schema.is_value() => [schema, table, &Cell::ABSENT],
            _ => [db, table, &Cell::ABSENT],
        };
        self.name.clear();
        for part in parts.into_iter().filter(|part| part.is_value()) {
            if !self.name.is_empty() {
                self.name.push('.');
            }
            self.name.push_str(&part.resolved().unwrap_or_default());
        }
        if let Some(known) = self.collections.iter().find(|known| ***known == *self.name) {
            return known.clone();
        }
        if self.collections.len() == KEPT {
            self.collections.remove(0);
        }
        let name: Arc<str> = self.name.as_str().into();
        self.collections.push(name.clone());
        name
    }
}
