//! A dataflow as its user wrote it: the folder of TOML and SQL files, as types.
//!
//! [`load`] reads a folder and reports every mistake it can find, each as a [`Diagnostic`] with file, line
//! and remedy. What it returns is complete and consistent in itself: names are unique, columns that are
//! named exist, `${ENV}` is expanded, relative paths are joined to the folder. It does not plan SQL
//! (that is `plan`) and touches no data.

mod bounds;
mod cases;
mod columns;
mod diagnostic;
mod dialect;
mod environment;
mod evolved;
mod extra;
mod feed;
mod file;
mod file_glob;
mod files;
mod http;
mod input;
mod kafka;
mod load;
mod location;
mod moment;
mod number;
mod order;
mod output;
mod overlap;
mod postgres;
mod references;
mod root;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub use bounds::{Bounds, parse_bytes};
pub use cases::{Case, Expected, Given, Step, cases};
pub use diagnostic::{Diagnostic, Diagnostics, nearest};
pub use dialect::{BlankRows, Charset, TextDialect};
pub use evolved::Evolved;
pub use extra::EXTRA_FORMAT_NAMES;
pub use feed::GENERATORS;
pub use file_glob::{FileGlob, GlobState};
pub use files::{Changed, Duplicates, FileField, FileRules, LogRules};
pub use http::{Http, NEEDS_FOLDER, Tls};
pub use kafka::{ClientOptions, Kafka, KafkaClient, OnMissing, Start, Transactions, split_partition};
pub use load::{DATAFLOW_FILE, Survey, load, survey};
pub use location::{LocationError, files_location, lake_location, pattern_of_file};
pub use moment::{MomentFault, MomentPattern};
pub use number::{NumberPattern, PlainNumber, parse_flags};
pub use output::{Output, OutputFormat};
pub use overlap::{LAKE_FOLDERS, feeds_on_lake};
pub use postgres::{FirstRows, Postgres, PostgresUrl, SslMode};
pub use wire::{Credentials, KeyFormat, Registry, Wire};

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::repr::SqlType;

/// One dataflow: inputs, tables and how they run. `Debug` hides the values of `store_options`.
#[derive(Clone)]
pub struct Dataflow {
    /// `name` of dataflow.toml; also the application id of its transactions.
    pub name: String,
    /// The folder it was loaded from.
    pub folder: PathBuf,
    /// Where its tables live: an absolute folder or a URL.
    pub lake: String,
    /// How long an epoch stays open at low load.
    pub epoch: Duration,
    /// How often a snapshot is committed.
    pub commit: Duration,
    /// Options of the object store (credentials, endpoints); never printed.
    pub store_options: BTreeMap<String, String>,
    /// False with `durability = "none"`: files are not synced before a commit names them.
    pub durable: bool,
    /// Whether a writer feature keeps other writers out of the tables.
    pub guard: bool,
    /// How long past snapshots can be read: what only they need is deleted then.
    pub history: Duration,
    /// The topic that dead letters go to as well.
    pub dead_letters: Option<Output>,
    /// Where feeds of kind `http` are listened for.
    pub http: Option<Http>,
    /// What a run may take of its machine.
    pub bounds: Bounds,
    /// Logical inputs, by name.
    pub inputs: Vec<Input>,
    /// Tables, every table behind the tables it reads.
    pub tables: Vec<Table>,
}

impl fmt::Debug for Dataflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden: BTreeMap<&str, &str> = self.store_options.keys().map(|key| (key.as_str(), "***")).collect();
        f.debug_struct("Dataflow")
            .field("name", &self.name)
            .field("folder", &self.folder)
            .field("lake", &self.lake)
            .field("epoch", &self.epoch)
            .field("commit", &self.commit)
            .field("store_options", &hidden)
            .field("durable", &self.durable)
            .field("guard", &self.guard)
            .field("history", &self.history)
            .field("dead_letters", &self.dead_letters)
            .field("http", &self.http)
            .field("bounds", &self.bounds)
            .field("inputs", &self.inputs)
            .field("tables", &self.tables)
            .finish()
    }
}

/// A logical relation that changes from outside.
#[derive(Clone, Debug)]
pub struct Input {
    /// The file's name; its name in SQL.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// In the order of the file; behind them, those of `evolved`.
    pub columns: Vec<Column>,
    /// Columns that are not the file's: what was taken from feeds' schemas, in that order.
    pub evolved: Vec<Evolved>,
    /// Columns that identify a row; empty for append-only events.
    pub key: Vec<String>,
    /// Which version of a key wins: the greatest by these columns (nulls first), then by feed order in
    /// the file (later wins), then by arrival.
    pub order_by: Vec<String>,
    /// Of an input without `key`: the first row per these columns is kept. Empty: every row counts.
    pub dedup_key: Vec<String>,
    /// Whether payloads are kept in `<lake>/bronze/<input>`.
    pub bronze: bool,
    /// Bounds the input's state.
    pub retention: Option<Retention>,
    /// The ways its changes arrive.
    pub feeds: Vec<Feed>,
    /// The TOML file, relative to the dataflow's folder, as diagnostics name it.
    pub file: PathBuf,
}

impl Input {
    /// The columns as an Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns
            .iter()
            .map(|c| Field::new(&c.name, c.sql_type.arrow(), c.nullable))
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// Positions of the named columns.
    pub fn positions(&self, names: &[String]) -> Vec<usize> {
        names
            .iter()
            .map(|name| {
                self.columns
                    .iter()
                    .position(|c| &c.name == name)
                    .expect("a loaded definition names columns that exist")
            })
            .collect()
    }
}

/// A column of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name in SQL.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether a row may lack it.
    pub nullable: bool,
    /// The names it may have in a payload, the first present wins; a path into nested records by dots; `#3` is the third
    /// field of a CSV record where no field is called so. A feed may override it. Never empty: by default the column's own
    /// name.
    pub from: Vec<String>,
    /// How text becomes this column's type: [`MomentPattern`]s for DATE and TIMESTAMP, [`NumberPattern`]s for numbers,
    /// `Y|N` for BOOLEAN; several are tried in order. Empty: ISO 8601, plain numbers, the usual words.
    pub format: Vec<String>,
    /// Texts that stand for null, besides the empty CSV field (`NA`).
    pub null: Vec<String>,
}

/// Rows whose `column` is older than `keep` before the epoch's time are cut off.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// A DATE or TIMESTAMP column.
    pub column: String,
    /// How long a row stays.
    pub keep: Duration,
}

/// One way the changes of an input arrive.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Unique in its input.
    pub name: String,
    /// Where bytes come from.
    pub kind: FeedKind,
    /// What the bytes mean.
    pub format: Format,
    /// Where schemas are, and what keys are.
    pub wire: Wire,
    /// The input's columns as this feed names and writes them (same order as [`Input::columns`]).
    pub columns: Vec<Column>,
    /// Bytes of the longest record that is taken, its key and headers counted; a longer one is a dead letter.
    pub max_record: u64,
}

impl Feed {
    /// How its source's transactions are kept whole, if they are.
    pub fn transactions(&self) -> Option<(&Kafka, &Transactions)> {
        let FeedKind::Kafka(kafka) = &self.kind else {
            return None;
        };
        kafka.transactions.as_ref().map(|transactions| (kafka, transactions))
    }

    /// Whether its source's transactions stay whole, over all feeds of that source.
    pub fn keeps_transactions(&self) -> bool {
        matches!(self.kind, FeedKind::Postgres(_)) || self.transactions().is_some()
    }

    /// Whether its records cannot be read without their schemas.
    pub fn needs_registry(&self) -> bool {
        let of_keys = matches!(self.wire.key_format, Some(KeyFormat::Avro | KeyFormat::Protobuf));
        of_keys || matches!(self.format, Format::Avro | Format::DebeziumAvro | Format::Protobuf)
    }
}

/// Where the bytes of a feed come from.
#[derive(Clone, Debug)]
pub enum FeedKind {
    /// A drop folder: a glob on a folder or object store.
    Files {
        /// Absolute glob or URL with a glob in its path.
        path: String,
        /// How it treats what it finds.
        rules: FileRules,
    },
    /// The embedded change log: a folder with one append-only NDJSON file per partition.
    Log {
        /// The folder.
        path: PathBuf,
        /// How it treats what it finds.
        rules: LogRules,
    },
    /// Topics of a Kafka cluster, or of what speaks its protocol.
    Kafka(Kafka),
    /// Requests that are listened for, as [`Dataflow::http`] says.
    Http,
    /// Tables of a PostgreSQL database, by logical replication.
    Postgres(Postgres),
    /// A built-in generator.
    Generate(Generate),
}

/// Settings of a built-in generator.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// Which generator (`retail.order_lines`, ...).
    pub generator: String,
    /// Events per second; none: as fast as possible.
    pub rate: Option<f64>,
    /// How many events in all; none: without end.
    pub limit: Option<u64>,
    /// Two runs with one seed make the same events.
    pub seed: u64,
    /// How many partitions it is spread over.
    pub partitions: u32,
    /// Shares of all events, 0 to 1.
    pub updates: f64,
    /// Deletes of earlier keys.
    pub deletes: f64,
    /// Repeated events.
    pub duplicates: f64,
    /// Events with an event time in the past.
    pub late: f64,
    /// Events that do not decode.
    pub broken: f64,
}

/// What the bytes of a feed mean. Compression is told by a file's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated text with a header line.
    Csv,
    /// JSON objects of a file: one a line, an array of them, or over several lines.
    Ndjson,
    /// The same of files; else one JSON object a record.
    Json,
    /// Parquet files.
    Parquet,
    /// Files: Avro object containers; Event Hubs Capture's `Body` is unpacked as JSON. Records: Avro behind a schema id.
    Avro,
    /// Debezium's change envelope in JSON, with or without the schema part.
    DebeziumJson,
    /// Debezium's change envelope in Avro behind a schema id.
    DebeziumAvro,
    /// JSON behind a schema id.
    JsonSchema,
    /// Protobuf behind a schema id.
    Protobuf,
    /// Canal's changes of MySQL tables, in JSON.
    CanalJson,
    /// Maxwell's changes of MySQL tables, in JSON.
    MaxwellJson,
    /// The record itself: columns take its bytes, its key, its place and its time.
    Raw,
}

impl Format {
    /// Whether its records say what changes: they may take back rows of an input without a key.
    pub fn carries_changes(self) -> bool {
        matches!(
            self,
            Format::DebeziumJson | Format::DebeziumAvro | Format::CanalJson | Format::MaxwellJson
        )
    }

    /// Whether a record's bytes may be no text, so that what is kept as text holds them in base64.
    pub fn is_binary(self) -> bool {
        matches!(
            self,
            Format::Avro | Format::DebeziumAvro | Format::JsonSchema | Format::Protobuf | Format::Raw
        )
    }

    /// How the transaction topic of a source is written whose records are written so.
    pub fn of_markers(self) -> Format {
        match self {
            Format::DebeziumJson => Format::Json,
            Format::DebeziumAvro => Format::Avro,
            other => other,
        }
    }
}

/// A table's layer, the folder its SQL file is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Cleaned inputs.
    Silver,
    /// Answers.
    Gold,
}

impl Layer {
    /// Both, in the order data takes.
    pub const ALL: [Layer; 2] = [Layer::Silver, Layer::Gold];

    /// The schema's name in SQL and the folder in the lake.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Silver => "silver",
            Layer::Gold => "gold",
        }
    }
}

/// A table: one SELECT, kept up to date.
#[derive(Clone, Debug)]
pub struct Table {
    /// Which folder it is in.
    pub layer: Layer,
    /// The file's name without its ending.
    pub name: String,
    /// The SELECT, as written.
    pub sql: String,
    /// The SQL file, relative to the dataflow's folder, as diagnostics name it.
    pub file: PathBuf,
    /// The optional TOML file beside it, relative as well.
    pub settings_file: Option<PathBuf>,
    /// For people.
    pub description: Option<String>,
    /// Columns that identify a row: checked, two rows with one key are dead letters.
    pub key: Vec<String>,
    /// Delta partition columns.
    pub partition_by: Vec<String>,
    /// Conditions on its rows.
    pub expectations: Vec<Expectation>,
    /// How removed rows are written.
    pub deletes: Deletes,
    /// Whether Delta's change data feed is written.
    pub change_data_feed: bool,
    /// Bounds the table.
    pub retention: Option<Retention>,
    /// The topic that its rows go to as well.
    pub output: Option<Output>,
}

impl Table {
    /// Its name in SQL: `silver.order_lines`.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.layer.name(), self.name)
    }
}

/// A condition on every row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// Unique in its table.
    pub name: String,
    /// A boolean SQL expression over the table's columns; null counts as kept.
    pub check: String,
    /// What happens to a row that breaks it.
    pub on_violation: OnViolation,
}

/// What a broken expectation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// Count it.
    Warn,
    /// To the dead letters, and back once repaired.
    Drop,
    /// No snapshot holds it: the run stops.
    Fail,
}

/// How the rows that a table loses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// Deletion vectors, or rewriting where the table is small.
    Auto,
    /// Always deletion vectors.
    Vectors,
    /// Never: the files that lose rows are written again, for readers that know no deletion vectors.
    Rewrite,
}
