//! Bytes to changes of an input.
//!
//! A [`Raw`] batch of records of one feed becomes a [`Decoded`]: Arrow columns of the input's schema, one
//! operation per row, and a [`Reject`] for each record that does not decode. Decoding is vectorised; a
//! record that fails never takes its neighbours with it, even one that makes a decoder panic (`apart`). `verify` decodes Bronze through the same door.

//!
//! How it goes: a format (`csv`, `json`, `debezium`, `avro`, ...) takes records apart into columns of cells that borrow
//! the records' bytes; `coerce` gives each column its type; `changes` drops the rows of refused records. Columnar
//! files (`columns`) skip the first step. Since nothing looks at two records at once, decoding a batch equals
//! decoding each record alone.
//!
//! Records behind a schema id need their schemas first: [`Decoder::prepare`] has them asked for, and says so where the
//! registry does not answer. Nothing is decoded then, and nothing refused.

mod against;
mod apart;
pub(crate) mod avro;
mod binlog;
mod brought;
mod built_in;
mod cell;
mod changes;
mod coerce;
mod columns;
mod csv;
mod cut;
mod damage;
mod debezium;
mod fields;
mod file;
mod flat;
mod json;
mod keep;
mod keys;
mod loose;
mod names;
pub(crate) mod parquet;
mod part;
mod path;
mod protobuf;
mod raw;
mod records;
mod scan;
mod schemas;
pub mod skip;
mod split;
mod target;
mod watch;
mod wire;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, RecordBatch, StringArray, new_empty_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use encoding_rs::WINDOWS_1252;
use thiserror::Error;

use crate::contain::contain;
use crate::definition::{Charset, Column, Feed, FeedKind, Format, Input, KeyFormat};
use crate::registry::{Language, Registries, RegistryError, Unready};
use changes::{Outcome, Shape, Typed};
use debezium::Placeholder;
use file::FileColumns;
use keys::{BehindIds, Keys};
use records::Records;
use schemas::Schemas;
use target::Target;

pub use against::{Misfit, against};
pub(crate) use avro::{ContainerColumn, ContainerJson, container_bodies, container_columns, container_rows};
pub use brought::judge_columns;
pub use changes::TRUNCATES_OTHERS;
pub use coerce::{is_error as is_spreadsheet_error, lacks_digits};
pub use csv::{
    HeaderNotes, HeaderRepeat, RepeatedHeader, blank_rows, csv_fields, csv_names, csv_values, is_blank_csv_row,
    judge_header, repeated_header,
};
pub(crate) use cut::FIRST_BYTES;
pub use damage::Damage;
pub use debezium::Transaction;
pub use fields::{Newcomer, newcomers};
pub use file::FilePlace;
pub(crate) use file::{columnar_note, columnar_place, moment};
pub use loose::{FieldValue, iso_point, json_fields, json_items};
pub use watch::Watch;

/// What stands in front of a name in [`Decoded::ignored_fields`] where a column takes another field of that name.
pub const TWICE: &str = "(twice) ";

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
    /// Records that are longer than `max_record`, ascending: only their first bytes are here, and they are never decoded.
    pub cut: Vec<CutRecord>,
    /// What is known of the records' place in their file.
    pub place: FilePlace,
}

/// A record that is longer than `max_record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRecord {
    /// Index into [`Raw::offsets`].
    pub record: u32,
    /// How many bytes it has as a whole.
    pub length: u64,
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
        /// Which content of the file: its size, and entity tag or time of change. Empty: the only one.
        tag: Arc<str>,
    },
}

impl Raw {
    /// No records.
    pub(crate) fn none() -> Self {
        Raw {
            payloads: Payloads::Records {
                values: BinaryArray::new_null(0),
                keys: None,
                headers: None,
                ts_ms: Vec::new(),
            },
            offsets: Vec::new(),
            header: None,
            cut: Vec::new(),
            place: FilePlace::default(),
        }
    }

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

/// Records whose schemas are not known yet, for the registry does not answer.
#[derive(Debug, Error)]
#[error("{unready}")]
pub struct Waiting {
    /// The records, untouched.
    pub raw: Raw,
    /// Why.
    pub unready: Unready,
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
#[derive(Debug, Error)]
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
    /// A schema registry that cannot be asked as it is defined.
    #[error("could not set up {context}")]
    Registry {
        /// Input and feed.
        context: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// A format whose records are behind schema ids.
    #[error("could not set up {context}: its format needs a schema registry; add registry = {{ url = \"...\" }} to it")]
    NoRegistry {
        /// Input and feed.
        context: String,
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
    files: FileColumns,
}

#[derive(Debug)]
enum Kind {
    Csv(Box<csv::Csv>),
    Json(Box<json::Json>),
    Debezium(Box<debezium::DebeziumJson>),
    DebeziumAvro(Box<debezium::DebeziumAvro>),
    Avro(Box<Records<avro::Plan>>),
    Protobuf(Box<Records<protobuf::Plan>>),
    Binlog(Box<binlog::Binlog>),
    /// Records of object container files.
    Container(Box<avro::ContainerRecords>),
    Raw,
    /// Formats whose records only come as columns.
    Columnar,
}

/// Whether a truncation of a feed's table may empty the input: no other table's changes come into it. Files beside the
/// changes are the same table's past.
fn truncates(input: &Input, feed: &Feed) -> bool {
    let changes = |feed: &&Feed| {
        matches!(
            feed.format,
            Format::DebeziumJson | Format::DebeziumAvro | Format::CanalJson | Format::MaxwellJson
        )
    };
    let is_one = match (&feed.kind, feed.format) {
        (_, Format::CanalJson | Format::MaxwellJson) => feed.wire.tables.len() == 1,
        (FeedKind::Kafka(kafka), _) => matches!(&kafka.topics[..], [topic] if !topic.starts_with('^')),
        _ => true,
    };
    is_one && input.feeds.iter().filter(changes).count() < 2
}

impl Decoder {
    /// A decoder for a feed of an input. Nothing is asked of a registry yet.
    ///
    /// Besides what is documented at [`crate::definition::Column::format`], DATE and TIMESTAMP know the formats
    /// `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns` and `epoch_days` for numbers, BINARY `base64` (the default), `hex` and
    /// `utf8`, and DECIMAL `base64` (unscaled big-endian bytes, as Connect writes them) and `digits`. A bare integer in a
    /// TIMESTAMP is refused, but Debezium without its schema part means microseconds where its source is PostgreSQL (and
    /// days for DATE).
    ///
    /// # Errors
    /// Where feed and input do not fit together, or a format is not one.
    pub fn new(input: &Input, feed: &Feed, registries: &Registries) -> Result<Self, DecodeError> {
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
        let mut key = input.key.iter().map(position).collect::<Result<Vec<_>, _>>()?;
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
            targets.push(Target::new(&column, &context)?);
        }
        let files = match feed.kind {
            FeedKind::Files { .. } => FileColumns::of(&mut targets, &mut key),
            _ => FileColumns::default(),
        };
        for target in &mut targets {
            target.of_csv = feed.format == Format::Csv;
        }
        let fields: Vec<Field> = targets
            .iter()
            .map(|t| Field::new(&t.name, t.arrow.clone(), true))
            .collect();
        let shape = Shape {
            identifies: (0..targets.len())
                .map(|c| key.contains(&c) || order.contains(&c))
                .collect(),
            times: debezium::times(&targets),
            charset: matches!(feed.kind, FeedKind::Files { .. }).then_some(feed.wire.text.charset),
            targets,
            schema: Arc::new(Schema::new(fields)),
            key,
            truncates: truncates(input, feed),
            placeholder: feed
                .wire
                .unavailable
                .as_deref()
                .map(Placeholder::new)
                .unwrap_or_default(),
        };
        // A default registry is there for feeds that have no use for it, too.
        let registry = match &feed.wire.registry {
            None => None,
            Some(_) if !feed.needs_registry() => None,
            Some(settings) => Some((
                settings,
                registries.of(settings).map_err(|source| DecodeError::Registry {
                    context: context.clone(),
                    source,
                })?,
            )),
        };
        let behind_ids = |key_format: Option<KeyFormat>| -> Option<BehindIds> {
            let (_, registry) = registry.as_ref()?;
            match (key_format, feed.format) {
                (Some(KeyFormat::Protobuf), _) | (None, Format::Protobuf) => {
                    Some(BehindIds::Protobuf(Schemas::new(registry.clone(), Language::Protobuf)))
                }
                (Some(KeyFormat::Avro), _) | (None, Format::Avro | Format::DebeziumAvro) => {
                    Some(BehindIds::Avro(Schemas::new(registry.clone(), Language::Avro)))
                }
                _ => None,
            }
        };
        let keys = Keys::new(&shape, feed.wire.key_format, behind_ids(feed.wire.key_format));
        let topics: &[String] = match &feed.kind {
            FeedKind::Kafka(kafka) => &kafka.topics,
            _ => &[],
        };
        let registered = || {
            registry.clone().ok_or_else(|| DecodeError::NoRegistry {
                context: context.clone(),
            })
        };
        let kind = match feed.format {
            Format::Csv => Kind::Csv(Box::new(csv::Csv::new(feed.wire.text, feed.wire.blank_rows))),
            Format::Ndjson | Format::Json => {
                let of_log = matches!(feed.kind, FeedKind::Log { .. });
                let json = json::Json::new(&shape, keys).refusing_strangers(&shape);
                Kind::Json(Box::new(json.of_log(of_log)))
            }
            Format::JsonSchema => Kind::Json(Box::new(json::Json::new(&shape, keys))),
            Format::DebeziumJson => {
                let told = matches!(feed.kind, FeedKind::Postgres(_));
                Kind::Debezium(Box::new(debezium::DebeziumJson::new(&shape, keys, told)))
            }
            Format::Avro if matches!(feed.kind, FeedKind::Files { .. }) => {
                Kind::Container(Box::new(avro::ContainerRecords::new(&shape)))
            }
            Format::Avro => {
                let (settings, registry) = registered()?;
                let schemas = Schemas::new(registry, Language::Avro)
                    .with_defaults(settings)
                    .of_topics(topics);
                Kind::Avro(Box::new(Records::new(&shape, schemas, keys)))
            }
            Format::DebeziumAvro => {
                let (settings, registry) = registered()?;
                let schemas = Schemas::new(registry, Language::Avro)
                    .with_defaults(settings)
                    .of_topics(topics);
                Kind::DebeziumAvro(Box::new(debezium::DebeziumAvro::new(&shape, schemas, keys)))
            }
            Format::Protobuf => {
                let (_, registry) = registered()?;
                let schemas = Schemas::new(registry, Language::Protobuf).of_topics(topics);
                Kind::Protobuf(Box::new(Records::new(&shape, schemas, keys)))
            }
            Format::CanalJson => Kind::Binlog(Box::new(binlog::Binlog::new(
                &shape,
                binlog::Dialect::Canal,
                &feed.wire.tables,
            ))),
            Format::MaxwellJson => Kind::Binlog(Box::new(binlog::Binlog::new(
                &shape,
                binlog::Dialect::Maxwell,
                &feed.wire.tables,
            ))),
            Format::Raw => Kind::Raw,
            Format::Parquet => Kind::Columnar,
        };
        Ok(Decoder { shape, kind, files })
    }

    /// Makes the schemas of records known that are behind schema ids. Blocks while the registry is asked.
    ///
    /// # Errors
    /// The registry does not answer: wait, and call again.
    pub fn prepare(&mut self, raw: &Raw) -> Result<(), Unready> {
        let Payloads::Records { values, keys, .. } = &raw.payloads else {
            return Ok(());
        };
        let (shape, keys) = (&self.shape, keys.as_ref());
        match &mut self.kind {
            Kind::Avro(records) => records.prepare(shape, values, keys),
            Kind::Protobuf(records) => records.prepare(shape, values, keys),
            Kind::DebeziumAvro(debezium) => debezium.prepare(shape, values, keys),
            Kind::Debezium(debezium) => debezium.prepare(shape, keys),
            Kind::Json(json) => json.prepare(shape, keys),
            Kind::Csv(_) | Kind::Binlog(_) | Kind::Container(_) | Kind::Raw | Kind::Columnar => Ok(()),
        }
    }

    /// Decodes records. What does not decode is among the rejects.
    ///
    /// # Errors
    /// Schemas are needed that the registry does not tell; see [`Decoder::prepare`].
    pub fn decode(&mut self, raw: Raw) -> Result<Decoded, Box<Waiting>> {
        let mut decoded = if raw.cut.is_empty() {
            match self.prepare(&raw) {
                Ok(()) => self.decode_prepared(raw),
                Err(unready) => return Err(Box::new(Waiting { raw, unready })),
            }
        } else {
            let whole = cut::whole_records(&raw);
            match self.prepare(&whole) {
                Ok(()) => cut::with_cut_records(self.decode_prepared(whole), raw),
                Err(unready) => return Err(Box::new(Waiting { raw, unready })),
            }
        };
        self.files.keep(&mut decoded);
        Ok(decoded)
    }

    fn decode_prepared(&mut self, raw: Raw) -> Decoded {
        let decoded = contain(|| self.decode_batch(&raw)).unwrap_or_else(|_| {
            let rows = self.shape.schema.clone();
            apart::decode_apart(&raw, &rows, |part| self.decode_batch(part))
        });
        Decoded { raw, ..decoded }
    }

    /// Decodes records of one batch; the answer's `raw` is for the caller to fill.
    fn decode_batch(&mut self, raw: &Raw) -> Decoded {
        let Decoder { shape, kind, files } = self;
        let mut outcome = match &raw.payloads {
            Payloads::Columns { batch, .. } => match kind {
                Kind::Container(records) => records.decode(shape, batch),
                _ => columns::decode(shape, batch),
            },
            Payloads::Records {
                values,
                keys,
                headers,
                ts_ms,
            } => {
                let read = in_utf8(values, shape.charset.unwrap_or_default());
                let batch = Batch {
                    values: read.as_ref().unwrap_or(values),
                    keys: keys.as_ref(),
                    headers: headers.as_ref(),
                    ts_ms,
                };
                match kind {
                    Kind::Csv(csv) => csv.decode(shape, &batch, raw.header.as_deref()),
                    Kind::Json(json) => json.decode(shape, &batch),
                    Kind::Avro(records) => records.decode(shape, &batch),
                    Kind::Protobuf(records) => records.decode(shape, &batch),
                    Kind::Binlog(binlog) => binlog.decode(shape, &batch),
                    Kind::Debezium(debezium) => debezium.decode(shape, &batch),
                    Kind::DebeziumAvro(debezium) => debezium.decode(shape, &batch),
                    Kind::Raw => raw::decode(shape, &batch, &raw.offsets),
                    Kind::Columnar | Kind::Container(_) => {
                        let mut typed = Typed::empty(shape);
                        typed.rejects.extend((0..values.len()).map(|record| Reject {
                            record: Some(record as u32),
                            reason:
                                "a columnar file was handed over as single records; hand over its batches".to_string(),
                        }));
                        Outcome::new(typed, batch.times(), Vec::new())
                    }
                }
            }
        };
        if !files.is_empty() {
            files.fill(&mut outcome.typed, raw);
        }
        outcome.finish(shape, raw.len())
    }
}

impl Decoded {
    /// What no records come to; `rows` is the schema of decoded rows.
    pub(crate) fn none(rows: SchemaRef) -> Self {
        Decoded {
            raw: Raw::none(),
            rows: RecordBatch::new_empty(rows),
            ops: Vec::new(),
            record: Vec::new(),
            source_ms: Vec::new(),
            rejects: Vec::new(),
            ignored_fields: Vec::new(),
            unchanged: Vec::new(),
            transactions: Vec::new(),
        }
    }
}

/// Records to take apart.
#[derive(Clone, Copy)]
struct Batch<'a> {
    values: &'a BinaryArray,
    keys: Option<&'a BinaryArray>,
    headers: Option<&'a StringArray>,
    ts_ms: &'a [Option<i64>],
}

impl Batch<'_> {
    /// When each record was written, where that is known.
    fn times(&self) -> Vec<Option<i64>> {
        let mut times = self.ts_ms.to_vec();
        times.resize(self.values.len(), None);
        times
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
    utf8_or(bytes, "write it in UTF-8")
}

/// The same of a record of a file.
fn utf8_of_file(bytes: &[u8], charset: Charset) -> Result<&str, String> {
    utf8_or(
        bytes,
        match charset {
            Charset::Utf8 => "set the feed's `encoding`, perhaps to \"windows-1252\", or write the file in UTF-8",
            _ => "the file holds bytes there that are no character in the feed's `encoding`; repair it",
        },
    )
}

fn utf8_or<'a>(bytes: &'a [u8], remedy: &str) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|e| {
        format!(
            "the record is not UTF-8 from byte {}: {}; {remedy}",
            e.valid_up_to(),
            coerce::shown(&String::from_utf8_lossy(bytes))
        )
    })
}

/// Records that came before their feed's `encoding` was set, as it has them: what is UTF-8 is what it is, for all of it is
/// since then. None: nothing is to be changed.
fn in_utf8(values: &BinaryArray, charset: Charset) -> Option<BinaryArray> {
    if !charset.is_single_byte() || values.iter().flatten().all(|value| std::str::from_utf8(value).is_ok()) {
        return None;
    }
    let text = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(_) => value.to_vec(),
        Err(_) if charset == Charset::Latin1 => value.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
        Err(_) => WINDOWS_1252
            .decode_without_bom_handling(value)
            .0
            .into_owned()
            .into_bytes(),
    };
    Some(values.iter().map(|value| value.map(text)).collect())
}
