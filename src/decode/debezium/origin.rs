//! Where a change comes from: when it was made, in which table, and in which transaction of its source.

use std::sync::Arc;

use super::super::cell::{Cell, Datum};
use super::super::flat::time;

/// The place of a record in a transaction of its source (`provide.transaction.metadata`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Index of the record into `raw`.
    pub record: u32,
    /// The transaction's id, as in its BEGIN and END.
    pub id: Arc<str>,
    /// The change's number among all of the transaction, from 1; 0: not told.
    pub total_order: u64,
    /// Its number among those of the same table, from 1; 0: not told.
    pub collection_order: u64,
    /// The table, as the transaction's END counts it: `schema.table`, `database.table` or `database.schema.table`, by
    /// the connector.
    pub collection: Arc<str>,
}

/// What `source` and `transaction` say of a change.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
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

impl<'a> Origin<'a> {
    /// Nothing is known.
    pub const NONE: Origin<'static> = Origin {
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

    /// When the source made the change, Unix milliseconds; some connectors write 0 for "unknown".
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

/// Makes [`Transaction`]s. What repeats from record to record is kept once.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    id: Option<Arc<str>>,
    /// The newest last.
    collections: Vec<Arc<str>>,
    name: String,
}

/// How many tables' names are kept.
const KEPT: usize = 64;

impl Transactions {
    /// The place of a record, if it is in a transaction that ends. Where a TRUNCATE is a statement of its own, outside of
    /// transactions, connectors tell a transaction of it that never has an END.
    pub fn place(&mut self, record: usize, op: &str, origin: &Origin<'_>) -> Option<Transaction> {
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
        Some(Transaction {
            record: record as u32,
            id,
            total_order: number(&origin.total_order),
            collection_order: number(&origin.collection_order),
            collection: self.collection(origin),
        })
    }

    fn collection(&mut self, origin: &Origin<'_>) -> Arc<str> {
        let Origin { db, schema, table, .. } = origin;
        let parts = match origin.connector.text() {
            "sqlserver" | "oracle" => [db, schema, table],
            "mongodb" => [db, &origin.collection, &Cell::ABSENT],
            "mysql" | "mariadb" => [db, table, &Cell::ABSENT],
            // The others leave the database out where they have a schema.
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
