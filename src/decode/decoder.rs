//! The decoder of a feed, which dispatches to its format.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{Field, Schema};

use crate::contain::contain;
use crate::decode::apart;
use crate::decode::batch::{Batch, in_utf8};
use crate::decode::changes::{DecodedBatch, InputShape, TypedRows};
use crate::decode::columns;
use crate::decode::columns::file::FileColumns;
use crate::decode::cut;
use crate::decode::decoded::{Decoded, Payloads, Raw, Reject, WaitingRecords};
use crate::decode::envelopes::binlog;
use crate::decode::envelopes::debezium;
use crate::decode::envelopes::debezium::Placeholder;
use crate::decode::error::DecodeError;
use crate::decode::formats::avro;
use crate::decode::formats::csv;
use crate::decode::formats::json;
use crate::decode::formats::keys::{KeyDecoder, RegisteredKeys};
use crate::decode::formats::protobuf;
use crate::decode::formats::raw;
use crate::decode::formats::records::RecordDecoder;
use crate::decode::schemas::plans::SchemaPlans;
use crate::decode::target::Target;
use crate::definition::{Column, Feed, Format, Input, KeyFormat, RegistrySettings};
use crate::registry::{Language, Registries, Registry, Unready};

/// Decodes the records of one feed. It caches what it learns of headers and schemas, but no state of records: the
/// same raw records always decode to the same changes.
#[derive(Debug)]
pub struct Decoder {
    shape: InputShape,
    kind: FormatDecoder,
    files: FileColumns,
}

#[derive(Debug)]
enum FormatDecoder {
    Csv(Box<csv::Csv>),
    Json(Box<json::Json>),
    Debezium(Box<debezium::DebeziumJson>),
    DebeziumAvro(Box<debezium::DebeziumAvro>),
    Avro(Box<RecordDecoder<avro::AvroPlan>>),
    Protobuf(Box<RecordDecoder<protobuf::ProtobufPlan>>),
    Binlog(Box<binlog::Binlog>),
    /// Records of Avro object container files.
    Container(Box<avro::ContainerRecords>),
    Raw,
    /// Formats whose records always arrive as Arrow columns.
    Columnar,
}

/// The registered schemas of a feed's records.
struct FeedSchemas<'a> {
    feed: &'a Feed,
    context: &'a str,
    /// None if the feed has no registry, or does not need one.
    registry: Option<(&'a RegistrySettings, Arc<Registry>)>,
}

impl<'a> FeedSchemas<'a> {
    fn new(feed: &'a Feed, registries: &Registries, context: &'a str) -> Result<Self, DecodeError> {
        // A dataflow's default registry also applies to feeds that do not need it.
        let settings = feed.wire.registry.as_ref().filter(|_| feed.needs_registry());
        let registry = settings.map(|settings| match registries.registry(settings) {
            Ok(registry) => Ok((settings, registry)),
            Err(source) => Err(DecodeError::Registry {
                context: context.to_string(),
                source,
            }),
        });
        Ok(FeedSchemas {
            feed,
            context,
            registry: registry.transpose()?,
        })
    }

    fn registry(&self) -> Result<(&'a RegistrySettings, Arc<Registry>), DecodeError> {
        self.registry.clone().ok_or_else(|| DecodeError::NoRegistry {
            context: self.context.to_string(),
        })
    }

    /// The schemas of keys.
    fn of_keys(&self) -> Option<RegisteredKeys> {
        let (_, registry) = self.registry.as_ref()?;
        match (self.feed.wire.key_format, self.feed.format) {
            (Some(KeyFormat::Protobuf), _) | (None, Format::Protobuf) => Some(RegisteredKeys::Protobuf(
                SchemaPlans::new(registry.clone(), Language::Protobuf),
            )),
            (Some(KeyFormat::Avro), _) | (None, Format::Avro | Format::DebeziumAvro) => {
                Some(RegisteredKeys::Avro(SchemaPlans::new(registry.clone(), Language::Avro)))
            }
            _ => None,
        }
    }

    /// The Avro schemas of values, with the defaults of a newer schema.
    fn avro<T>(&self) -> Result<SchemaPlans<T>, DecodeError> {
        let (settings, registry) = self.registry()?;
        let plans = SchemaPlans::new(registry, Language::Avro).with_defaults(settings);
        Ok(plans.of_topics(self.feed.kind.contract().topics()))
    }

    /// The Protobuf schemas of values.
    fn protobuf<T>(&self) -> Result<SchemaPlans<T>, DecodeError> {
        let (_, registry) = self.registry()?;
        let plans = SchemaPlans::new(registry, Language::Protobuf);
        Ok(plans.of_topics(self.feed.kind.contract().topics()))
    }
}

impl FormatDecoder {
    /// The decoder for the format of a feed.
    fn new(feed: &Feed, shape: &InputShape, schemas: &FeedSchemas<'_>) -> Result<FormatDecoder, DecodeError> {
        let contract = feed.kind.contract();
        let keys = KeyDecoder::new(shape, feed.wire.key_format, schemas.of_keys());
        let binlog = |dialect| FormatDecoder::Binlog(Box::new(binlog::Binlog::new(shape, dialect, &feed.wire.tables)));
        Ok(match feed.format {
            Format::Csv => FormatDecoder::Csv(Box::new(csv::Csv::new(feed.wire.text, feed.wire.blank_rows))),
            Format::Ndjson | Format::Json => {
                let json = json::Json::new(shape, keys).refusing_strangers(shape);
                FormatDecoder::Json(Box::new(json.of_log(contract.wraps_records())))
            }
            Format::JsonSchema => FormatDecoder::Json(Box::new(json::Json::new(shape, keys))),
            Format::DebeziumJson => {
                let is_unambiguous = contract.tells_meanings();
                FormatDecoder::Debezium(Box::new(debezium::DebeziumJson::new(shape, keys, is_unambiguous)))
            }
            Format::Avro if contract.files().is_some() => {
                FormatDecoder::Container(Box::new(avro::ContainerRecords::new(shape)))
            }
            Format::Avro => FormatDecoder::Avro(Box::new(RecordDecoder::new(shape, schemas.avro()?, keys))),
            Format::DebeziumAvro => {
                let schemas = schemas.avro()?;
                FormatDecoder::DebeziumAvro(Box::new(debezium::DebeziumAvro::new(shape, schemas, keys)))
            }
            Format::Protobuf => FormatDecoder::Protobuf(Box::new(RecordDecoder::new(shape, schemas.protobuf()?, keys))),
            Format::CanalJson => binlog(binlog::Dialect::Canal),
            Format::MaxwellJson => binlog(binlog::Dialect::Maxwell),
            Format::Raw => FormatDecoder::Raw,
            Format::Parquet => FormatDecoder::Columnar,
        })
    }
}

/// The indices of the input's columns with these names.
fn positions(input: &Input, names: &[String], context: &str) -> Result<Vec<usize>, DecodeError> {
    let position = |name: &String| {
        let position = input.columns.iter().position(|column| column.name == *name);
        position.ok_or_else(|| DecodeError::NoColumn {
            context: context.to_string(),
            column: name.clone(),
        })
    };
    names.iter().map(position).collect()
}

/// The input's columns as the feed fills them.
fn targets(input: &Input, feed: &Feed, context: &str) -> Result<Vec<Target>, DecodeError> {
    let target = |(ours, theirs): (&Column, &Column)| {
        // Name, type and nullability come from the input; a feed only overrides how values are written.
        let column = Column {
            from: theirs.from.clone(),
            format: theirs.format.clone(),
            null: theirs.null.clone(),
            ..ours.clone()
        };
        Target::new(&column, context)
    };
    input.columns.iter().zip(&feed.columns).map(target).collect()
}

fn shape(input: &Input, feed: &Feed, targets: Vec<Target>, (key, order): (Vec<usize>, &[usize])) -> InputShape {
    let fields = targets.iter().map(|t| Field::new(&t.name, t.arrow.clone(), true));
    let fields: Vec<Field> = fields.collect();
    let is_file = feed.kind.contract().files().is_some();
    let placeholder = feed.wire.unavailable.as_deref().map(Placeholder::new);
    InputShape {
        identifies: (0..targets.len())
            .map(|c| key.contains(&c) || order.contains(&c))
            .collect(),
        times: debezium::times(&targets),
        charset: is_file.then_some(feed.wire.text.charset),
        targets,
        schema: Arc::new(Schema::new(fields)),
        key,
        truncates: truncates(input, feed),
        placeholder: placeholder.unwrap_or_default(),
    }
}

/// Whether a truncation of a feed's table may empty the input, because it takes changes of no other table. Feeds of
/// files beside the changes count as the same table's past.
fn truncates(input: &Input, feed: &Feed) -> bool {
    let changes = |feed: &&Feed| {
        matches!(
            feed.format,
            Format::DebeziumJson | Format::DebeziumAvro | Format::CanalJson | Format::MaxwellJson
        )
    };
    let kind = feed.kind.contract();
    let is_one = match feed.format {
        Format::CanalJson | Format::MaxwellJson => feed.wire.tables.len() == 1,
        _ => kind.topics().is_empty() || kind.topic().is_some(),
    };
    is_one && input.feeds.iter().filter(changes).count() < 2
}

impl Decoder {
    /// A decoder for a feed of an input. It does not query the registry yet.
    ///
    /// In addition to what [`crate::definition::Column::format`] documents, DATE and TIMESTAMP have the formats
    /// `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns` and `epoch_days` for numbers, BINARY has `base64` (the default),
    /// `hex` and `utf8`, and DECIMAL has `base64` (unscaled big-endian bytes, as Connect writes them) and `digits`. A
    /// bare integer in a TIMESTAMP is refused, except in Debezium's JSON without its schema part: if the source is
    /// PostgreSQL, it counts microseconds (and days in a DATE).
    ///
    /// # Errors
    /// Feed and input do not fit together, or a format is invalid.
    pub fn new(input: &Input, feed: &Feed, registries: &Registries) -> Result<Self, DecodeError> {
        let context = format!("feed {:?} of input {:?}", feed.name, input.name);
        if input.columns.len() != feed.columns.len() {
            return Err(DecodeError::Columns {
                context,
                feed: feed.columns.len(),
                input: input.columns.len(),
            });
        }
        let mut key = positions(input, &input.key, &context)?;
        let order = positions(input, &input.order_by, &context)?;
        let mut targets = targets(input, feed, &context)?;
        let files = match feed.kind.contract().files() {
            Some(_) => FileColumns::from_targets(&mut targets, &mut key),
            None => FileColumns::default(),
        };
        for (column, target) in targets.iter_mut().enumerate() {
            target.of_csv = feed.format == Format::Csv;
            target.nullable &= !key.contains(&column);
        }
        let shape = shape(input, feed, targets, (key, &order));
        let schemas = FeedSchemas::new(feed, registries, &context)?;
        let kind = FormatDecoder::new(feed, &shape, &schemas)?;
        Ok(Decoder { shape, kind, files })
    }

    /// Loads the registered schemas of records. Blocks while the registry is queried.
    ///
    /// # Errors
    /// The registry does not answer: wait, and call again.
    pub fn prepare(&mut self, raw: &Raw) -> Result<(), Unready> {
        let Payloads::Records { values, keys, .. } = &raw.payloads else {
            return Ok(());
        };
        let (shape, keys) = (&self.shape, keys.as_ref());
        match &mut self.kind {
            FormatDecoder::Avro(records) => records.prepare(shape, values, keys),
            FormatDecoder::Protobuf(records) => records.prepare(shape, values, keys),
            FormatDecoder::DebeziumAvro(debezium) => debezium.prepare(shape, values, keys),
            FormatDecoder::Debezium(debezium) => debezium.prepare(shape, keys),
            FormatDecoder::Json(json) => json.prepare(shape, keys),
            FormatDecoder::Csv(_)
            | FormatDecoder::Binlog(_)
            | FormatDecoder::Container(_)
            | FormatDecoder::Raw
            | FormatDecoder::Columnar => Ok(()),
        }
    }

    /// Decodes records. Records that cannot be decoded are among the rejects.
    ///
    /// # Errors
    /// The registry does not deliver schemas that are needed; see [`Decoder::prepare`].
    pub fn decode(&mut self, raw: Raw) -> Result<Decoded, Box<WaitingRecords>> {
        let mut decoded = if raw.cut.is_empty() {
            match self.prepare(&raw) {
                Ok(()) => self.decode_prepared(raw),
                Err(unready) => return Err(Box::new(WaitingRecords { raw, unready })),
            }
        } else {
            let whole = cut::whole_records(&raw);
            match self.prepare(&whole) {
                Ok(()) => cut::with_cut_records(self.decode_prepared(whole), raw),
                Err(unready) => return Err(Box::new(WaitingRecords { raw, unready })),
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

    /// Decodes the records of one batch; the caller must fill `raw` in the result.
    fn decode_batch(&mut self, raw: &Raw) -> Decoded {
        let Decoder { shape, kind, files } = self;
        let mut outcome = match &raw.payloads {
            Payloads::Columns { batch, .. } => match kind {
                FormatDecoder::Container(records) => records.decode(shape, batch),
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
                    FormatDecoder::Csv(csv) => csv.decode(shape, &batch, raw.header.as_deref()),
                    FormatDecoder::Json(json) => json.decode(shape, &batch),
                    FormatDecoder::Avro(records) => records.decode(shape, &batch),
                    FormatDecoder::Protobuf(records) => records.decode(shape, &batch),
                    FormatDecoder::Binlog(binlog) => binlog.decode(shape, &batch),
                    FormatDecoder::Debezium(debezium) => debezium.decode(shape, &batch),
                    FormatDecoder::DebeziumAvro(debezium) => debezium.decode(shape, &batch),
                    FormatDecoder::Raw => raw::decode(shape, &batch, &raw.offsets),
                    FormatDecoder::Columnar | FormatDecoder::Container(_) => {
                        let mut typed = TypedRows::empty(shape);
                        typed.rejects.extend((0..values.len()).map(|record| Reject {
                            record: Some(record as u32),
                            reason:
                                "a columnar file was handed over as single records; hand over its batches".to_string(),
                        }));
                        DecodedBatch::new(typed, batch.times(), Vec::new())
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
