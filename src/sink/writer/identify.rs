//! Identifies the rows of a data file, whoever wrote it: the committer finds rows by content in files that other
//! writers rewrote.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::WriterError;
use super::file::decode_file;
use super::hash::{RowHash, owner};
use super::index::Index;
use super::layout::TableLayout;
use crate::sink::TableSpec;

/// Computes the identities of rows in a table's files.
pub struct RowIdentifier {
    layout: TableLayout,
}

/// The places of rows, by content; equal rows have several places.
pub struct RowLocations(Index);

impl RowIdentifier {
    /// An identifier for rows of this table.
    pub fn new(spec: TableSpec) -> Result<Self, WriterError> {
        Ok(RowIdentifier {
            layout: TableLayout::new(spec)?,
        })
    }

    /// Calls `tell` with every row of a file (given by name, content and partition values), in file order: its hash,
    /// and which of `writers` writers owns it.
    pub fn rows(
        &self,
        (name, bytes): (&str, Bytes),
        values: &BTreeMap<String, Option<String>>,
        writers: usize,
        mut tell: impl FnMut(RowHash, usize),
    ) -> Result<(), WriterError> {
        for batch in decode_file(&self.layout, name, bytes)? {
            let batch = self.layout.to_table(&batch?, values)?;
            for row in self.layout.encode(&batch)?.iter() {
                tell(RowHash::of_row(row.as_ref()), owner(row.as_ref(), writers));
            }
        }
        Ok(())
    }
}

impl RowLocations {
    /// An empty map.
    pub fn new() -> Self {
        RowLocations(Index::new())
    }

    /// Adds a row at a place.
    pub fn insert(&mut self, hash: RowHash, place: (u32, u32)) {
        self.0.insert(hash, place);
    }

    /// Removes one of the rows with this hash, and returns its place. Which one depends on their places alone.
    pub fn remove(&mut self, hash: RowHash) -> Option<(u32, u32)> {
        self.0.remove(hash)
    }
}
