//! Changes as records: the envelope that Debezium writes, so that Bronze, rebuilds and decoding are the same for both.
//!
//! ```text
//! {"op":"u","before":{"id":1},"after":{"id":2,"name":"x"},
//!  "source":{"connector":"postgresql","db":"shop","schema":"public","table":"orders","txId":745,"lsn":26498416,"ts_ms":...},
//!  "transaction":{"id":"745:26498416","total_order":3}}
//! ```
//!
//! 1. `source.lsn` is where the transaction's commit is, the same for all of its changes: it grows from transaction to
//!    transaction, which the places of single changes do not. Of first rows it is the place that they are read at.
//! 2. Of a row before, only columns are written that PostgreSQL tells: with the default replica identity those of the key.
//! 3. A change that cannot be applied says so in `refused`, and its record becomes a dead letter.

use std::io::Write as _;

use super::lsn::Lsn;
use super::output::{Old, Relation, Tuple, Value};
use super::types::{Kind, Types, write, write_text};

/// What a value reads that an update has not changed and PostgreSQL does not tell.
const UNAVAILABLE: &[u8] = b"\"__debezium_unavailable_value\"";

/// A table whose changes are written.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    /// The part of `source` that is the same for all of its changes.
    source: Vec<u8>,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// Its name as a JSON key, with the colon.
    key: Vec<u8>,
    kind: Kind,
    identifies: bool,
}

/// Where a change comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// See (1).
    pub lsn: Lsn,
    /// The transaction, when it was committed in Unix milliseconds, and the change's number in it; none: it is a first row.
    pub transaction: Option<(u32, i64, u64)>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    Insert(Tuple<'a>),
    Update(Option<Old<'a>>, Tuple<'a>),
    Delete(Old<'a>),
    Truncate,
}

impl Table {
    /// Of a database, as a message tells it.
    pub fn new(database: &str, relation: &Relation<'_>, types: &Types) -> Table {
        let columns = relation.columns.iter();
        let columns = columns.map(|column| (column.name, types.kind(column.kind), column.identifies));
        Table::of_columns(database, (relation.schema, relation.table), columns)
    }

    /// Of columns by name and kind, and whether they identify a row.
    pub fn of_columns<'c>(
        database: &str,
        (schema, table): (&str, &str),
        columns: impl Iterator<Item = (&'c str, Kind, bool)>,
    ) -> Table {
        let mut source = b",\"source\":{\"connector\":\"postgresql\",\"db\":".to_vec();
        for (text, then) in [(database, ",\"schema\":"), (schema, ",\"table\":"), (table, "")] {
            write_text(text.as_bytes(), &mut source);
            source.extend_from_slice(then.as_bytes());
        }
        let column = |(name, kind, identifies): (&str, Kind, bool)| {
            let mut key = Vec::new();
            write_text(name.as_bytes(), &mut key);
            key.push(b':');
            Column {
                name: name.to_string(),
                key,
                kind,
                identifies,
            }
        };
        Table {
            columns: columns.map(column).collect(),
            source,
        }
    }

    /// Whether updates and deletes tell the value before of a column.
    pub fn identifies(&self, column: &str) -> bool {
        self.columns.iter().any(|own| own.identifies && own.name == column)
    }

    /// Whether it has a column.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|own| own.name == column)
    }

    /// Writes a change. `refused`: why it cannot be applied.
    pub fn write(&self, change: &Change<'_>, origin: Origin, refused: Option<&str>, out: &mut Vec<u8>) {
        let op = match change {
            Change::Insert(_) if origin.transaction.is_none() => "r",
            Change::Insert(_) => "c",
            Change::Update(..) => "u",
            Change::Delete(_) => "d",
            Change::Truncate => "t",
        };
        self.begin(op, refused, out);
        match change {
            Change::Insert(new) => self.write_after(new, out),
            Change::Update(old, new) => {
                if let Some(old) = old {
                    self.write_before(old, out);
                }
                self.write_after(new, out);
            }
            Change::Delete(old) => self.write_before(old, out),
            Change::Truncate => {}
        }
        self.end(origin, out);
    }

    /// Writes a first row, whose values come in the order of the columns.
    pub fn write_row<'v>(&self, values: impl Iterator<Item = Option<&'v [u8]>>, at: Lsn, out: &mut Vec<u8>) {
        self.begin("r", None, out);
        out.extend_from_slice(b",\"after\":{");
        let values = values.map(|value| value.map_or(Value::Null, Value::Text));
        self.write_values(values, false, out);
        let origin = Origin {
            lsn: at,
            transaction: None,
        };
        self.end(origin, out);
    }

    fn begin(&self, op: &str, refused: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"op\":\"");
        out.extend_from_slice(op.as_bytes());
        out.push(b'"');
        if let Some(reason) = refused {
            out.extend_from_slice(b",\"refused\":");
            write_text(reason.as_bytes(), out);
        }
    }

    fn end(&self, origin: Origin, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.source);
        let lsn = origin.lsn.0;
        let written = match origin.transaction {
            Some((xid, ms, order)) => write!(
                out,
                ",\"txId\":{xid},\"lsn\":{lsn},\"ts_ms\":{ms}}},\"transaction\":{{\"id\":\"{xid}:{lsn}\",\"total_order\":{order}}}}}"
            ),
            None => write!(out, ",\"lsn\":{lsn},\"snapshot\":\"true\"}}}}"),
        };
        written.expect("memory takes what is written");
    }

    fn write_before(&self, old: &Old<'_>, out: &mut Vec<u8>) {
        let (tuple, key_alone) = match old {
            Old::Key(tuple) => (tuple, true),
            Old::Row(tuple) => (tuple, false),
        };
        out.extend_from_slice(b",\"before\":{");
        self.write_values(tuple.values(), key_alone, out);
    }

    fn write_after(&self, new: &Tuple<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"after\":{");
        self.write_values(new.values(), false, out);
    }

    /// Writes values and the brace behind them.
    fn write_values<'v>(&self, values: impl Iterator<Item = Value<'v>>, key_alone: bool, out: &mut Vec<u8>) {
        let mut first = true;
        for (column, value) in self.columns.iter().zip(values) {
            if key_alone && !column.identifies {
                continue; // by (2)
            }
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(&column.key);
            match value {
                Value::Null => out.extend_from_slice(b"null"),
                Value::Unchanged => out.extend_from_slice(UNAVAILABLE),
                Value::Text(text) => write(&column.kind, text, out),
            }
        }
        out.push(b'}');
    }
}
