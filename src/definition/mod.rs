//! A dataflow as its user wrote it: a folder of TOML and SQL files, as types.
//!
//! [`load`] reads a folder and reports every mistake it can find, each as a [`Diagnostic`] with file, line and
//! remedy. Its result is complete and consistent in itself: names are unique, referenced columns exist, `${ENV}` is
//! expanded, relative paths are joined to the folder. It does not plan SQL (that is `plan`) and reads no data.

mod bounds;
mod cases;
mod columns;
mod diagnostic;
mod dialect;
mod environment;
mod evolved;
mod extra;
pub mod feeds;
mod file;
mod file_field;
mod file_glob;
mod http;
mod input;
mod kafka_client;
mod load;
mod location;
mod moment;
mod number;
mod order;
mod output;
mod overlap;
mod references;
mod root;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub use crate::repr::Charset;
pub use bounds::{Bounds, parse_bytes};
pub use cases::{Case, CaseInput, CaseStep, ExpectedTable, cases};
pub use diagnostic::{Diagnostic, Diagnostics, nearest};
pub use dialect::{BlankRows, TextDialect};
pub use evolved::Evolved;
pub use extra::EXTRA_FORMAT_NAMES;
pub use feeds::{
    Changed, Division, DropFolder, Duplicates, FeedContract, FeedKind, FeedSurroundings, FileFeed, FileRules,
    FirstRows, GENERATORS, Generate, HttpFeed, Kafka, KafkaStart, LogFeed, LogRules, OnMissing, Postgres, PostgresUrl,
    SslMode, TransactionSettings, Unwritable, WriteTarget, split_partition,
};
pub use file_field::FileField;
pub use file_glob::{FileGlob, GlobState};
pub use http::{Http, NEEDS_FOLDER, Tls};
pub use kafka_client::{ClientOptions, KafkaClient};
pub use load::{DefinitionSurvey, load, survey};
pub use location::{LocationError, files_location, lake_location, lake_of_dataflow, pattern_of_file};
pub use moment::{MomentFault, MomentPattern};
pub use number::{NumberPattern, PlainNumber, parse_flags};
pub use output::{Output, TopicFormat};
pub use overlap::{LAKE_FOLDERS, feeds_on_lake};
pub use root::DATAFLOW_FILE;
pub use wire::{Credentials, KeyFormat, RegistrySettings, Wire};

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
    /// `name` in dataflow.toml; also the application id of its Delta transactions.
    pub name: String,
    /// The folder it was loaded from.
    pub folder: PathBuf,
    /// Where its tables are stored: an absolute folder or a URL.
    pub lake: String,
    /// How long an epoch stays open at low load.
    pub epoch: Duration,
    /// How often a snapshot is committed.
    pub commit: Duration,
    /// Options of the object store (credentials, endpoints); never printed.
    pub store_options: BTreeMap<String, String>,
    /// False with `durability = "none"`: files are not synced before a commit refers to them.
    pub durable: bool,
    /// Whether a table feature prevents other programs from writing to the tables.
    pub guard: bool,
    /// How long past snapshots can be read; files that only older ones need are deleted.
    pub history: Duration,
    /// The topic to which dead letters are also written.
    pub dead_letters: Option<Output>,
    /// The settings for feeds of kind `http`.
    pub http: Option<Http>,
    /// Limits on what a run may use of its machine.
    pub bounds: Bounds,
    /// Logical inputs, by name.
    pub inputs: Vec<Input>,
    /// Tables, each after all tables that it reads.
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
    /// The file's name without its suffix; the input's name in SQL.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// In the order of the file; those of `evolved` follow.
    pub columns: Vec<Column>,
    /// Columns that were taken from feeds' schemas and are not in the file, in the order in which they were taken.
    pub evolved: Vec<Evolved>,
    /// Columns that identify a row; empty for append-only events.
    pub key: Vec<String>,
    /// Which version of a key wins: the greatest by these columns (nulls first), then by feed order in
    /// the file (later wins), then by arrival.
    pub order_by: Vec<String>,
    /// For an input without `key`: only the first row for each value of these columns is kept. Empty: every row is
    /// kept.
    pub dedup_key: Vec<String>,
    /// Whether payloads are stored in `<lake>/bronze/<input>`.
    pub bronze: bool,
    /// Bounds the input's state.
    pub retention: Option<Retention>,
    /// The feeds by which its changes arrive.
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

    /// Whether the order of arrival decides which rows exist: then files are read one after another.
    pub fn goes_by_arrival(&self) -> bool {
        (!self.key.is_empty() && self.order_by.is_empty()) || !self.dedup_key.is_empty()
    }

    /// The indices of the named columns.
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
    /// Whether the value may be missing.
    pub nullable: bool,
    /// The names that it may have in a payload, of which the first present one is used. Dots form a path into nested
    /// records; `#3` is the third field of a CSV record, unless a field has that name. A feed may override this.
    /// Never empty: the default is the column's own name.
    pub from: Vec<String>,
    /// How text is converted to the column's type: [`MomentPattern`]s for DATE and TIMESTAMP, [`NumberPattern`]s for
    /// numbers, `Y|N` for BOOLEAN; several are tried in order. Empty: ISO 8601, plain numbers, the usual words for
    /// booleans.
    pub format: Vec<String>,
    /// Texts that stand for null, besides the empty CSV field (`NA`).
    pub null: Vec<String>,
}

/// Rows are removed once their `column` is more than `keep` before the epoch's time.
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
    /// Unique within its input.
    pub name: String,
    /// Where bytes come from.
    pub kind: FeedKind,
    /// The format of its records.
    pub format: Format,
    /// The settings of schemas, keys and text.
    pub wire: Wire,
    /// The input's columns with this feed's overrides (in the order of [`Input::columns`]).
    pub columns: Vec<Column>,
    /// The most bytes of a record, key and headers included; a longer one becomes a dead letter.
    pub max_record: u64,
}

impl Feed {
    /// Whether its records cannot be decoded without registered schemas.
    pub fn needs_registry(&self) -> bool {
        let of_keys = matches!(self.wire.key_format, Some(KeyFormat::Avro | KeyFormat::Protobuf));
        of_keys || matches!(self.format, Format::Avro | Format::DebeziumAvro | Format::Protobuf)
    }
}

/// The format of a feed's records. Compression is not part of it: a file's first bytes show that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated text with a header line.
    Csv,
    /// A file of JSON objects: one per line, in an array, or over several lines.
    Ndjson,
    /// For files the same as `Ndjson`; otherwise each record is one JSON object.
    Json,
    /// Parquet files.
    Parquet,
    /// For files: Avro object containers, in which the `Body` of Event Hubs Capture is decoded as JSON. For records:
    /// Avro behind a schema id.
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
    /// Undecoded records: columns take a record's bytes, key, position and time.
    Raw,
}

impl Format {
    /// Whether its records are changes, which may retract rows even of an input without a key.
    pub fn carries_changes(self) -> bool {
        matches!(
            self,
            Format::DebeziumJson | Format::DebeziumAvro | Format::CanalJson | Format::MaxwellJson
        )
    }

    /// Whether a record may be no valid text, so that it is stored as base64 where text is stored.
    pub fn is_binary(self) -> bool {
        matches!(
            self,
            Format::Avro | Format::DebeziumAvro | Format::JsonSchema | Format::Protobuf | Format::Raw
        )
    }

    /// The format of a source's transaction markers, given that of its records.
    pub fn of_markers(self) -> Format {
        match self {
            Format::DebeziumJson => Format::Json,
            Format::DebeziumAvro => Format::Avro,
            other => other,
        }
    }
}

/// A table's layer, which is the folder of its SQL file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Cleaned inputs.
    Silver,
    /// Answers.
    Gold,
}

impl Layer {
    /// Both, in the order of the data flow.
    pub const ALL: [Layer; 2] = [Layer::Silver, Layer::Gold];

    /// The name of the schema in SQL and of the folder in the lake.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Silver => "silver",
            Layer::Gold => "gold",
        }
    }
}

/// A table: one SELECT whose result is kept up to date.
#[derive(Clone, Debug)]
pub struct Table {
    /// The table's layer.
    pub layer: Layer,
    /// The file's name without its suffix.
    pub name: String,
    /// The SELECT, as written.
    pub sql: String,
    /// The SQL file, relative to the dataflow's folder, as diagnostics name it.
    pub file: PathBuf,
    /// The TOML file beside it, if there is one, relative as well.
    pub settings_file: Option<PathBuf>,
    /// For people.
    pub description: Option<String>,
    /// Columns that identify a row. This is checked: several rows with one key become dead letters.
    pub key: Vec<String>,
    /// Delta partition columns.
    pub partition_by: Vec<String>,
    /// Conditions on its rows.
    pub expectations: Vec<Expectation>,
    /// How removed rows are written.
    pub deletes: Deletes,
    /// Whether Delta's change data feed is written.
    pub change_data_feed: bool,
    /// Limits the table's rows by age.
    pub retention: Option<Retention>,
    /// The topic to which its rows are also written.
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
    /// Unique within its table.
    pub name: String,
    /// A boolean SQL expression over the table's columns; null counts as satisfied.
    pub check: String,
    /// What happens to a row that violates it.
    pub on_violation: OnViolation,
}

/// What happens when a row violates an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// The violation is counted.
    Warn,
    /// The row becomes a dead letter, which is retracted once the row is repaired.
    Drop,
    /// The run stops, so that no snapshot holds the row.
    Fail,
}

/// How removed rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// By deletion vectors, or by rewriting files if the table is small.
    Auto,
    /// Always by deletion vectors.
    Vectors,
    /// Always by rewriting the files that lose rows, for readers that do not support deletion vectors.
    Rewrite,
}
