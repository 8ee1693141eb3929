//! Writes changes as Debezium envelopes, so that Bronze, rebuilds and decoding are the same as for Debezium's
//! records.
//!
//! ```text
//! {"op":"u","before":{"id":1},"after":{"id":2,"name":"x"},
//!  "source":{"connector":"postgresql","db":"shop","schema":"public","table":"orders","txId":745,"lsn":26498416,"ts_ms":...},
//!  "transaction":{"id":"745:26498416","total_order":3}}
//! ```
//!
//! 1. `source.lsn` is the LSN of the transaction's commit, the same for all of its changes: it grows from transaction
//!    to transaction, whereas the LSNs of single changes do not. For rows of the initial copy it is the LSN of the
//!    copy's snapshot.
//! 2. The old row is written with the columns that PostgreSQL sends: with the default replica identity, those of the
//!    key.
//! 3. A change that cannot be applied has the reason in `refused`, and its record becomes a dead letter.

use std::io::Write as _;

use super::lsn::Lsn;
use super::output::{OldTuple, Relation, Tuple, TupleValue};
use super::types::{TextKind, Types, write, write_text};

/// Debezium's placeholder for a value that an update did not change and that PostgreSQL did not send.
const UNAVAILABLE: &[u8] = b"\"__debezium_unavailable_value\"";

/// Writes the changes of one table.
#[derive(Debug)]
pub struct TableEnvelope {
    columns: Vec<Column>,
    /// The part of `source` that is the same for all changes of the table.
    source: Vec<u8>,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// Its name as a JSON key, with the colon.
    key: Vec<u8>,
    kind: TextKind,
    identifies: bool,
}

/// Where a change comes from.
#[derive(Clone, Copy, Debug)]
pub struct ChangeOrigin {
    /// See (1).
    pub lsn: Lsn,
    /// The transaction's id, its commit time in Unix milliseconds, and the change's number in it; none for a row of
    /// the initial copy.
    pub transaction: Option<(u32, i64, u64)>,
}

/// A change to pass on.
#[derive(Clone, Debug)]
pub enum RowChange<'a> {
    Insert(Tuple<'a>),
    Update(Option<OldTuple<'a>>, Tuple<'a>),
    Delete(OldTuple<'a>),
    Truncate,
}

impl TableEnvelope {
    /// For a table as a Relation message describes it.
    pub fn new(database: &str, relation: &Relation<'_>, types: &Types) -> TableEnvelope {
        let columns = relation.columns.iter();
        let columns = columns.map(|column| (column.name, types.kind(column.kind), column.identifies));
        TableEnvelope::of_columns(database, (relation.schema, relation.table), columns)
    }

    /// For columns given by name, kind, and whether they belong to the replica identity.
    pub fn of_columns<'c>(
        database: &str,
        (schema, table): (&str, &str),
        columns: impl Iterator<Item = (&'c str, TextKind, bool)>,
    ) -> TableEnvelope {
        let mut source = b",\"source\":{\"connector\":\"postgresql\",\"db\":".to_vec();
        for (text, then) in [(database, ",\"schema\":"), (schema, ",\"table\":"), (table, "")] {
            write_text(text.as_bytes(), &mut source);
            source.extend_from_slice(then.as_bytes());
        }
        let column = |(name, kind, identifies): (&str, TextKind, bool)| {
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
        TableEnvelope {
            columns: columns.map(column).collect(),
            source,
        }
    }

    /// Whether a column belongs to the replica identity.
    pub fn identifies(&self, column: &str) -> bool {
        self.columns.iter().any(|own| own.identifies && own.name == column)
    }

    /// Whether it has a column.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|own| own.name == column)
    }

    /// Writes a change. `refused` is the reason why it cannot be applied.
    pub fn write(&self, change: &RowChange<'_>, origin: ChangeOrigin, refused: Option<&str>, out: &mut Vec<u8>) {
        let op = match change {
            RowChange::Insert(_) if origin.transaction.is_none() => "r",
            RowChange::Insert(_) => "c",
            RowChange::Update(..) => "u",
            RowChange::Delete(_) => "d",
            RowChange::Truncate => "t",
        };
        self.begin(op, refused, out);
        match change {
            RowChange::Insert(new) => self.write_after(new, out),
            RowChange::Update(old, new) => {
                if let Some(old) = old {
                    self.write_before(old, out);
                }
                self.write_after(new, out);
            }
            RowChange::Delete(old) => self.write_before(old, out),
            RowChange::Truncate => {}
        }
        self.end(origin, out);
    }

    /// Writes a row of the initial copy, whose values are in the order of the columns.
    pub fn write_row<'v>(&self, values: impl Iterator<Item = Option<&'v [u8]>>, at: Lsn, out: &mut Vec<u8>) {
        self.begin("r", None, out);
        out.extend_from_slice(b",\"after\":{");
        let values = values.map(|value| value.map_or(TupleValue::Null, TupleValue::Text));
        self.write_values(values, false, out);
        let origin = ChangeOrigin {
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

    fn end(&self, origin: ChangeOrigin, out: &mut Vec<u8>) {
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

    fn write_before(&self, old: &OldTuple<'_>, out: &mut Vec<u8>) {
        let (tuple, key_alone) = match old {
            OldTuple::Key(tuple) => (tuple, true),
            OldTuple::Row(tuple) => (tuple, false),
        };
        out.extend_from_slice(b",\"before\":{");
        self.write_values(tuple.values(), key_alone, out);
    }

    fn write_after(&self, new: &Tuple<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"after\":{");
        self.write_values(new.values(), false, out);
    }

    /// Writes values and the closing brace.
    fn write_values<'v>(&self, values: impl Iterator<Item = TupleValue<'v>>, key_alone: bool, out: &mut Vec<u8>) {
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
                TupleValue::Null => out.extend_from_slice(b"null"),
                TupleValue::Unchanged => out.extend_from_slice(UNAVAILABLE),
                TupleValue::Text(text) => write(&column.kind, text, out),
            }
        }
        out.push(b'}');
    }
}
