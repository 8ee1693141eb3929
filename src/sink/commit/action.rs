//! The actions of a Delta log as types (protocol, "Actions"). Fields and actions of other writers that we do not know
//! are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sink::{AddFile, ChangeFile, DeletionVector};

/// One line of a log entry. In the lines that we write, exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// Who wrote the entry and why; the format is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<Value>,
    /// What a client must support to use the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Schema, partitioning, settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
    /// How far an application has come; makes our commits idempotent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    /// A file that the entry adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<AddFile>,
    /// A file that the entry removes.
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
    /// The least reader version.
    pub min_reader_version: i32,
    /// The least writer version.
    pub min_writer_version: i32,
    /// The features that readers must support; listed from reader version 3 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    /// The features that writers must support; listed from writer version 7 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

/// A table's identity and shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    /// A UUID.
    pub id: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A description for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Always Parquet.
    pub format: DataFormat,
    /// The schema, as JSON in a string.
    pub schema_string: String,
    /// Names of the partition columns, in order.
    pub partition_columns: Vec<String>,
    /// Table properties.
    pub configuration: BTreeMap<String, String>,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// The format of data files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataFormat {
    /// `parquet`.
    pub provider: String,
    /// The protocol defines no options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Default for DataFormat {
    fn default() -> Self {
        DataFormat {
            provider: "parquet".into(),
            options: BTreeMap::new(),
        }
    }
}

/// How far an application has come in this table: the protocol's means to make commits idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    /// The application.
    pub app_id: String,
    /// The application's own count; we put the epoch here.
    pub version: i64,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A removed file. It repeats the deletion vector of the file's `add`, because path and vector together identify a
/// file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveFile {
    /// The path as in the file's `add`.
    pub path: String,
    /// Unix milliseconds; the file's retention starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    /// False for compaction.
    #[serde(default = "yes")]
    pub data_change: bool,
    /// Whether partition values, size and deletion vector are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    /// The partition values as in the file's `add`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The deletion vector as in the file's `add`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

fn yes() -> bool {
    true
}

/// Our name in a table's history.
pub fn engine_info() -> String {
    format!("alluvium/{}", env!("CARGO_PKG_VERSION"))
}

impl RemoveFile {
    /// The `remove` that cancels this `add`. `at`: Unix milliseconds.
    pub fn of(file: AddFile, at: Option<i64>, data_change: bool) -> RemoveFile {
        RemoveFile {
            path: file.path,
            deletion_timestamp: at,
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(file.partition_values),
            size: Some(file.size),
            deletion_vector: file.deletion_vector,
        }
    }
}

impl Action {
    /// Whether rows of the table come or go with it, rather than move between files.
    pub fn changes_data(&self) -> bool {
        self.add.as_ref().is_some_and(|file| file.data_change)
            || self.remove.as_ref().is_some_and(|file| file.data_change)
    }

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

/// A log entry's bytes: one action per line.
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
