//! What the rows of a data file are, whoever wrote it: for the committer, which finds them again by content.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::WriterError;
use super::file::decode_file;
use super::hash::{RowHash, owner};
use super::index::Index;
use super::layout::Layout;
use crate::sink::TableSpec;

/// Tells the rows of a table's files.
pub struct Identify {
    layout: Layout,
}

/// Rows by content, as a multiset of places.
pub struct Whereabouts(Index);

impl Identify {
    /// Of this table.
    pub fn new(spec: TableSpec) -> Result<Self, WriterError> {
        Ok(Identify {
            layout: Layout::new(spec)?,
        })
    }

    /// Tells every row of a file (its name, content, partition) in its order: what it is, and which of `writers` writers keeps it.
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
                tell(RowHash::of(row.as_ref()), owner(row.as_ref(), writers));
            }
        }
        Ok(())
    }
}

impl Whereabouts {
    /// Of no rows.
    pub fn new() -> Self {
        Whereabouts(Index::new())
    }

    /// One more row.
    pub fn insert(&mut self, hash: RowHash, place: (u32, u32)) {
        self.0.insert(hash, place);
    }

    /// Takes out one of the rows like this; which one depends on their places alone.
    pub fn take(&mut self, hash: RowHash) -> Option<(u32, u32)> {
        self.0.remove(hash)
    }
}
