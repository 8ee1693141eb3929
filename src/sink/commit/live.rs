//! A table's live data files: what a snapshot's commits are planned from.

use std::collections::{BTreeSet, HashMap};

use roaring::RoaringTreemap;

use super::vector;
use crate::sink::AddFile;

/// A live data file in its present state.
#[derive(Clone, Debug)]
pub struct Live {
    /// The file's `add` action, with its deletion vector.
    pub add: AddFile,
    /// The positions in its deletion vector.
    pub deleted: RoaringTreemap,
    /// Physical rows; none if the statistics lack the count.
    rows: Option<u64>,
}

impl Live {
    /// A file and the positions in its deletion vector.
    pub fn new(add: AddFile, deleted: RoaringTreemap) -> Live {
        let rows = add.stats.as_deref().and_then(physical_rows);
        Live { add, deleted, rows }
    }

    /// Physical rows; none if they are not known.
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Like [`Live::new`], for a file whose physical rows were counted.
    pub fn counted(add: AddFile, deleted: RoaringTreemap, rows: u64) -> Live {
        let rows = Some(rows);
        Live { add, deleted, rows }
    }

    /// Replaces the set of deleted positions.
    pub fn lose(&mut self, deleted: RoaringTreemap) {
        self.deleted = deleted;
        self.add.stats = self.add.stats.as_deref().map(loosen_bounds);
    }
}

/// The live files of one table.
#[derive(Default)]
pub struct LiveTable {
    files: HashMap<String, Live>,
    /// How many live files have their vector in a file, by the file's name.
    vector_files: HashMap<String, usize>,
}

impl LiveTable {
    /// The file at this path.
    pub fn get(&self, path: &str) -> Option<&Live> {
        self.files.get(path)
    }

    /// The paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    /// Adds a file.
    pub fn insert(&mut self, live: Live) {
        if let Some(file) = vector_file(&live.add) {
            *self.vector_files.entry(file).or_default() += 1;
        }
        self.files.insert(live.add.path.clone(), live);
    }

    /// Takes a file out. Adds to `retired` its path, and its vector's file where no other live file uses that.
    pub fn take(&mut self, path: &str, retired: &mut Vec<String>) -> Option<Live> {
        let live = self.files.remove(path)?;
        retired.push(path.to_string());
        if let Some(file) = vector_file(&live.add) {
            let uses = self
                .vector_files
                .get_mut(&file)
                .expect("a live file's vector is counted");
            *uses -= 1;
            if *uses == 0 {
                self.vector_files.remove(&file);
                retired.push(file);
            }
        }
        Some(live)
    }

    /// Data files and vector files that live files name.
    pub fn referenced(&self) -> BTreeSet<String> {
        self.files.keys().chain(self.vector_files.keys()).cloned().collect()
    }
}

fn vector_file(add: &AddFile) -> Option<String> {
    add.deletion_vector
        .as_ref()
        .and_then(|v| vector::file_of(v).ok().flatten())
}

/// How many rows a file has, deleted ones included, by its statistics.
pub fn physical_rows(stats: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Count {
        num_records: u64,
    }
    serde_json::from_str::<Count>(stats).ok().map(|c| c.num_records)
}

/// Sets `tightBounds` in statistics to false: minima and maxima may belong to rows that are gone. The text is edited
/// in place, because parsing it would round long decimals.
pub fn loosen_bounds(stats: &str) -> String {
    const KEY: &str = "\"tightBounds\"";
    let mut depth = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (i, byte) in stats.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => {
                if !quoted && depth == 1 && stats[i..].starts_with(KEY) {
                    let value = &stats[i + KEY.len()..];
                    let end = value.find([',', '}']).unwrap_or(value.len());
                    return format!("{}{KEY}:false{}", &stats[..i], &value[end..]);
                }
                quoted = !quoted;
            }
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => depth -= 1,
            _ => {}
        }
    }
    stats.replacen('{', &format!("{{{KEY}:false,"), 1)
}
