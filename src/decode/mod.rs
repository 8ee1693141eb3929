//! Bytes to changes of an input.
//!
//! A [`Raw`] batch of records of one feed becomes a [`Decoded`]: Arrow columns of the input's schema, one
//! operation per row, and a [`Reject`] for each record that does not decode. Decoding is vectorised; a
//! record that fails never takes its neighbours with it. `verify` decodes Bronze through the same door.

//!
//! How it goes: a format (`csv`, `json`, `debezium`) takes records apart into columns of cells that borrow the
//! records' bytes; `coerce` gives each column its type; `changes` drops the rows of refused records. Columnar
//! files (`columns`) skip the first step. Since nothing looks at two records at once, decoding a batch equals
//! decoding each record alone.

pub mod avro;
mod cell;
mod changes;
mod coerce;
mod columns;
mod csv;
mod debezium;
mod json;
mod names;
pub mod parquet;
mod scan;
mod split;
mod target;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, RecordBatch, StringArray, new_empty_array};
use arrow::datatypes::{Field, Schema};
use thiserror::Error;

use crate::definition::{Column, Feed, Format, Input};
use changes::{Shape, Typed};
use target::Target;

/// Records as they came.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The records' bytes, or where they are archived.
    pub payloads: Payloads,
    /// Of each record: where it is in its partition (byte offset in a log, number of the record in a file,
    /// from 0). Strictly increasing.
    pub offsets: Vec<u64>,
    /// What is needed to read the records besides their bytes: the header line of a CSV file.
    pub header: Option<Arc<str>>,
}

/// The bytes of records.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one a batch, moved rarely")]
pub enum Payloads {
    /// One value per record; a null value is a tombstone.
    Records {
        /// Value bytes.
        values: BinaryArray,
        /// Key bytes, where the feed has keys.
        keys: Option<BinaryArray>,
        /// What came beside key and value, JSON objects, where the feed has headers.
        headers: Option<StringArray>,
        /// When the source wrote it, Unix milliseconds, where it says so.
        ts_ms: Vec<Option<i64>>,
    },
    /// Rows of a columnar file: Arrow columns as read; the file itself is archived, not its rows.
    Columns {
        /// As the file has them.
        batch: RecordBatch,
        /// The file.
        path: Arc<str>,
    },
}

impl Raw {
    /// How many records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }
}

/// What a row does to its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// With a key: this is the key's newest row. Without: one more row.
    Upsert,
    /// With a key: the key is gone (only key and `order_by` columns need hold values; the others may be
    /// null). Without: one row less.
    Delete,
    /// The input is emptied of everything that arrived before; all columns null.
    Truncate,
}

/// Decoded records.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The records it came from (Bronze keeps them, rejected ones too).
    pub raw: Raw,
    /// The input's columns, a row for each change, in record order. Nullability of required columns is
    /// already enforced for upserts; for deletes fields are nullable, so the schema here is the input's
    /// with every field nullable.
    pub rows: RecordBatch,
    /// What each row does.
    pub ops: Vec<Op>,
    /// Which record of `raw` each row came from (non-decreasing).
    pub record: Vec<u32>,
    /// When the source made each record's change, Unix milliseconds, where it says so (one per record of `raw`).
    pub source_ms: Vec<Option<i64>>,
    /// Records that did not decode.
    pub rejects: Vec<Reject>,
    /// Fields that no column takes, counted by name.
    pub ignored_fields: Vec<(String, u64)>,
    /// Of a keyed input, values that the source left out of a change because they have not changed: (index into
    /// `rows`, column), ascending. They are null in `rows`; the current row has them.
    pub unchanged: Vec<(u32, u32)>,
    /// Of records in a transaction of their source, their places in it, ascending by record; of rejected ones, too.
    pub transactions: Vec<Transaction>,
}

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
    /// The table, as the transaction's END counts it.
    pub collection: Arc<str>,
}

/// A record that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Index into `raw`; none: the file as a whole.
    pub record: Option<u32>,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// A feed that cannot be decoded at all: a definition that contradicts itself.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The feed's columns are not the input's.
    #[error("could not set up {context}: it has {feed} columns, its input {input}; give each feed the input's columns")]
    Columns {
        /// Input and feed.
        context: String,
        /// How many the feed has.
        feed: usize,
        /// How many the input has.
        input: usize,
    },
    /// A `format` that the column's type does not know.
    #[error("could not set up {context}: column {column:?} cannot take the format {format:?}; write {expected}")]
    Format {
        /// Input and feed.
        context: String,
        /// The column.
        column: String,
        /// What was written.
        format: String,
        /// What may be written.
        expected: &'static str,
    },
    /// A column that is named as key or order but does not exist.
    #[error("could not set up {context}: there is no column {column:?}; name one of the input's columns")]
    NoColumn {
        /// Input and feed.
        context: String,
        /// What was named.
        column: String,
    },
}

/// Decodes the records of one feed. Keeps what it learns of headers and schemas, but nothing of records: the
/// same raw records always decode to the same changes.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Csv(csv::Csv),
    Json(json::Json),
    Debezium(Box<debezium::Debezium>),
    /// Formats whose records only come as columns.
    Columnar,
}

impl Decoder {
    /// A decoder for a feed of an input.
    ///
    /// Besides what is documented at [`crate::definition::Column::format`], DATE and TIMESTAMP know the formats
    /// `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns` and `epoch_days` for numbers, BINARY `base64` (the default), `hex` and
    /// `utf8`, and DECIMAL `base64` (unscaled big-endian bytes, as Connect writes them). A bare integer in a
    /// TIMESTAMP is refused, but Debezium without its schema part means microseconds (days for DATE).
    ///
    /// # Errors
    /// Where feed and input do not fit together, or a format is not one.
    pub fn new(input: &Input, feed: &Feed) -> Result<Self, DecodeError> {
        let context = format!("feed {:?} of input {:?}", feed.name, input.name);
        if input.columns.len() != feed.columns.len() {
            return Err(DecodeError::Columns {
                context,
                feed: feed.columns.len(),
                input: input.columns.len(),
            });
        }
        let position = |name: &String| {
            input
                .columns
                .iter()
                .position(|c| &c.name == name)
                .ok_or_else(|| DecodeError::NoColumn {
                    context: context.clone(),
                    column: name.clone(),
                })
        };
        let key = input.key.iter().map(position).collect::<Result<Vec<_>, _>>()?;
        let order = input.order_by.iter().map(position).collect::<Result<Vec<_>, _>>()?;
        let mut targets = Vec::with_capacity(input.columns.len());
        for (ours, theirs) in input.columns.iter().zip(&feed.columns) {
            // Name, type and nullability are the input's; a feed only says how it writes them.
            let column = Column {
                from: theirs.from.clone(),
                format: theirs.format.clone(),
                null: theirs.null.clone(),
                ..ours.clone()
            };
            targets.push(Target::new(&column, feed.format, &context)?);
        }
        let fields: Vec<Field> = targets
            .iter()
            .map(|t| Field::new(&t.name, t.arrow.clone(), true))
            .collect();
        let shape = Shape {
            identifies: (0..targets.len())
                .map(|c| key.contains(&c) || order.contains(&c))
                .collect(),
            targets,
            schema: Arc::new(Schema::new(fields)),
            key,
        };
        let kind = match feed.format {
            Format::Csv => Kind::Csv(csv::Csv::default()),
            Format::Ndjson | Format::Json => Kind::Json(json::Json::new(&shape)),
            Format::DebeziumJson => Kind::Debezium(Box::new(debezium::Debezium::new(&shape))),
            Format::Avro => Kind::Json(json::Json::new(&shape)),
            Format::Parquet => Kind::Columnar,
        };
        Ok(Decoder { shape, kind })
    }

    /// Decodes records. Never fails as a whole: what does not decode is among the rejects.
    pub fn decode(&mut self, raw: Raw) -> Decoded {
        let Decoder { shape, kind } = self;
        let (typed, source_ms, ignored) = match (&raw.payloads, kind) {
            (Payloads::Columns { batch, .. }, kind) => columns::decode(shape, kind, batch),
            (Payloads::Records { values, ts_ms, .. }, Kind::Csv(csv)) => {
                let (typed, ignored) = csv.decode(shape, values, raw.header.as_deref());
                (typed, ts_ms.clone(), ignored)
            }
            (
                Payloads::Records {
                    values, keys, ts_ms, ..
                },
                Kind::Json(json),
            ) => {
                let (typed, ignored) = json.decode(shape, values, keys.as_ref());
                (typed, ts_ms.clone(), ignored)
            }
            (
                Payloads::Records {
                    values, keys, ts_ms, ..
                },
                Kind::Debezium(debezium),
            ) => debezium.decode(shape, values, keys.as_ref(), ts_ms),
            (Payloads::Records { values, ts_ms, .. }, Kind::Columnar) => {
                let mut typed = Typed::empty(shape);
                typed.rejects.extend((0..values.len()).map(|record| Reject {
                    record: Some(record as u32),
                    reason: "a Parquet file was handed over as single records; hand over its columns".to_string(),
                }));
                (typed, ts_ms.clone(), Vec::new())
            }
        };
        typed.finish(shape, raw, source_ms, ignored)
    }
}

impl Typed {
    /// No rows.
    fn empty(shape: &Shape) -> Self {
        Typed {
            arrays: shape.targets.iter().map(|t| new_empty_array(&t.arrow)).collect(),
            ops: Vec::new(),
            record: Vec::new(),
            rejects: Vec::new(),
            counted: Vec::new(),
            unchanged: Vec::new(),
        }
    }
}

/// The text of a record, or why it has none.
fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|e| {
        format!(
            "the record is not UTF-8 from byte {}: {}; write it in UTF-8",
            e.valid_up_to(),
            coerce::shown(&String::from_utf8_lossy(bytes))
        )
    })
}
