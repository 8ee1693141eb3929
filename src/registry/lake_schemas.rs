//! Schemas that have been used, kept in the lake: `_alluvium/schemas/<registry>/<id>.json`; and which schema of a
//! subject gives defaults: `_alluvium/schemas/<registry>/readers/<subject>.json`. Each file is written once and never
//! changed.

use std::hash::Hasher;

use bytes::Bytes;
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;
use url::Url;

use super::{RegisteredSchema, Unready};
use crate::lake::{Lake, Put};

/// The schemas of one registry in a lake.
pub(super) struct LakeSchemas {
    lake: Lake,
    folder: String,
}

/// The id of the schema that gives a subject's defaults.
#[derive(Serialize, Deserialize)]
struct DefaultsSchema {
    id: u32,
}

impl LakeSchemas {
    /// The folder is named after the registry's first address.
    pub fn new(lake: Lake, url: &Url) -> Self {
        let address = url.as_str().trim_start_matches(url.scheme()).trim_start_matches("://");
        LakeSchemas {
            // These files are needed to decode Bronze, so they are synced whatever the dataflow's durability.
            lake: lake.with_durability(true),
            folder: format!("_alluvium/schemas/{}", plain(address.trim_end_matches('/'))),
        }
    }

    pub async fn schema(&self, id: u32) -> Result<Option<RegisteredSchema>, Unready> {
        self.read(&self.schema_path(id)).await
    }

    pub async fn keep(&self, schema: &RegisteredSchema) -> Result<(), Unready> {
        self.write(&self.schema_path(schema.id), schema).await.map(drop)
    }

    pub async fn reader(&self, subject: &str, version: Option<u32>) -> Result<Option<u32>, Unready> {
        let reader: Option<DefaultsSchema> = self.read(&self.reader_path(subject, version)).await?;
        Ok(reader.map(|reader| reader.id))
    }

    /// Returns the id that was chosen: if several processes choose, the first one decides.
    pub async fn choose_reader(&self, subject: &str, version: Option<u32>, id: u32) -> Result<u32, Unready> {
        let path = self.reader_path(subject, version);
        match self.write(&path, &DefaultsSchema { id }).await? {
            Put::Written => Ok(id),
            Put::Taken => Ok(self.read(&path).await?.map_or(id, |reader: DefaultsSchema| reader.id)),
        }
    }

    fn schema_path(&self, id: u32) -> Path {
        Path::from(format!("{}/{id}.json", self.folder))
    }

    fn reader_path(&self, subject: &str, version: Option<u32>) -> Path {
        let version = version.map_or(String::new(), |version| format!("@{version}"));
        Path::from(format!("{}/readers/{}{version}.json", self.folder, named(subject)))
    }

    async fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, Unready> {
        let bytes = self.lake.get(path).await.map_err(|error| self.unready(path, &error))?;
        let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        parsed.map_err(|error| self.unready(path, &error))
    }

    async fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<Put, Unready> {
        let bytes = serde_json::to_vec_pretty(value).expect("text and numbers are JSON");
        let put = self.lake.put_new(path, Bytes::from(bytes)).await;
        put.map_err(|error| self.unready(path, &error))
    }

    fn unready(&self, path: &Path, error: &dyn std::error::Error) -> Unready {
        Unready {
            url: self.lake.root.to_string(),
            what: path.to_string(),
            reason: crate::causes::chain(error),
        }
    }
}

/// The text with every character but letters, digits, `.` and `-` replaced by `_`.
fn plain(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || ".-".contains(c) {
            c
        } else {
            '_'
        }
    };
    text.chars().map(plain).collect()
}

/// A file name for any text: texts that differ have different names.
fn named(text: &str) -> String {
    let name = plain(text);
    if name == text {
        return name;
    }
    let mut hash = XxHash3_64::new();
    hash.write(text.as_bytes());
    format!("{name}-{:016x}", hash.finish())
}
