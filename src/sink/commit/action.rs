//! Lines of a Delta log as types (protocol, "Actions"). What others write and we do not know is ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sink::{AddFile, ChangeFile, DeletionVector};

/// One line of a log entry: exactly one field is set in what we write.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// Who wrote it and why; free form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<Value>,
    /// What a client must understand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Schema, partitioning, settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
    /// What makes our commits idempotent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    /// A file comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<AddFile>,
    /// A file goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<RemoveFile>,
    /// A file of the change data feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdc: Option<ChangeFile>,
}

/// Versions and features that a table's clients must support.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// At least this to read.
    pub min_reader_version: i32,
    /// At least this to write.
    pub min_writer_version: i32,
    /// Named from reader version 3 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    /// Named from writer version 7 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

/// A table's identity and shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    /// A UUID.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Always Parquet.
    pub format: Format,
    /// The schema, as JSON in a string.
    pub schema_string: String,
    /// In order.
    pub partition_columns: Vec<String>,
    /// Table properties.
    pub configuration: BTreeMap<String, String>,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// The format of data files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Format {
    /// `parquet`.
    pub provider: String,
    /// None are defined.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Default for Format {
    fn default() -> Self {
        Format {
            provider: "parquet".into(),
            options: BTreeMap::new(),
        }
    }
}

/// How far an application has come in this table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    /// The application.
    pub app_id: String,
    /// Its own count; ours is the epoch.
    pub version: i64,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A file that goes. It repeats the deletion vector its `add` had: path and vector together name a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveFile {
    /// As in its `add`.
    pub path: String,
    /// Unix milliseconds; from then on its retention counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    /// False for compaction.
    #[serde(default = "yes")]
    pub data_change: bool,
    /// Whether the fields below are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    /// As in its `add`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// As in its `add`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

fn yes() -> bool {
    true
}

impl Action {
    /// An `add` line.
    pub fn add(file: AddFile) -> Action {
        Action {
            add: Some(file),
            ..Action::default()
        }
    }

    /// A `remove` line.
    pub fn remove(file: RemoveFile) -> Action {
        Action {
            remove: Some(file),
            ..Action::default()
        }
    }

    /// A `cdc` line.
    pub fn cdc(file: ChangeFile) -> Action {
        Action {
            cdc: Some(file),
            ..Action::default()
        }
    }

    /// A `protocol` line.
    pub fn protocol(protocol: Protocol) -> Action {
        Action {
            protocol: Some(protocol),
            ..Action::default()
        }
    }

    /// A `metaData` line.
    pub fn meta_data(meta_data: MetaData) -> Action {
        Action {
            meta_data: Some(meta_data),
            ..Action::default()
        }
    }

    /// A `txn` line.
    pub fn txn(app_id: &str, version: i64, now: i64) -> Action {
        let txn = Txn {
            app_id: app_id.to_string(),
            version,
            last_updated: Some(now),
        };
        Action {
            txn: Some(txn),
            ..Action::default()
        }
    }

    /// A `commitInfo` line.
    pub fn commit_info(info: Value) -> Action {
        Action {
            commit_info: Some(info),
            ..Action::default()
        }
    }
}

/// A log entry's bytes: one action a line.
pub fn to_lines(actions: &[Action]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(actions.len() * 256);
    for action in actions {
        serde_json::to_writer(&mut bytes, action).expect("actions are plain data, and a Vec takes all");
        bytes.push(b'\n');
    }
    bytes
}

/// The actions of a log entry.
pub fn from_lines(bytes: &[u8]) -> Result<Vec<Action>, serde_json::Error> {
    bytes
        .split(|b| *b == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(serde_json::from_slice)
        .collect()
}
