//! The live files of one table, as one writer knows them.

use std::collections::BTreeMap;

use roaring::{RoaringBitmap, RoaringTreemap};

use super::error::WriterError;
use super::file::{NewFile, decode_file};
use super::file_store::FileStore;
use super::layout::{SharedPartitionValues, TableLayout};
use crate::sink::TableBatch;

/// Row positions, by the file's number.
pub(super) type RowPositions = BTreeMap<u32, RoaringBitmap>;

/// A live file.
#[derive(Clone)]
pub(super) struct WriterFile {
    /// The path as in the log.
    pub(super) path: String,
    /// The file's place in the lake.
    pub(super) physical: String,
    pub(super) values: SharedPartitionValues,
    /// Physical rows, removed or not.
    pub(super) rows: u32,
    pub(super) bytes: u64,
    /// Positions that are removed, or belong to other writers.
    pub(super) excluded: RoaringBitmap,
    /// Whether other writers own rows of the file: then this writer never removes it as a whole; the committer notices
    /// when no row is left.
    pub(super) shared: bool,
}

impl WriterFile {
    /// A file that this writer has just written.
    pub(super) fn of_new(file: &NewFile) -> Self {
        WriterFile {
            path: file.add.path.clone(),
            physical: file.physical.clone(),
            values: file.values.clone(),
            rows: file.rows,
            bytes: file.add.size,
            excluded: RoaringBitmap::new(),
            shared: false,
        }
    }

    /// The number of this writer's live rows.
    pub(super) fn live(&self) -> u32 {
        self.rows.saturating_sub(self.excluded.len() as u32)
    }

    /// Reads rows back: calls `tell` with the position and bytes of every row that `wanted` picks.
    pub(super) fn read(
        &self,
        layout: &TableLayout,
        store: &FileStore,
        wanted: impl Fn(u32) -> bool,
        mut tell: impl FnMut(u32, &[u8]),
    ) -> Result<(), WriterError> {
        let mut position = 0;
        for batch in decode_file(layout, &self.physical, store.get(&self.physical)?)? {
            let batch = batch?;
            let slice = position..position + batch.num_rows() as u32;
            position = slice.end;
            let rows: Vec<u32> = slice.clone().filter(|p| wanted(*p)).collect();
            let numbers: Vec<u32> = rows.iter().map(|p| p - slice.start).collect();
            let picked = layout.to_table(&layout.pick(&batch, &numbers)?, &self.values)?;
            for (position, row) in rows.into_iter().zip(layout.encode(&picked)?.iter()) {
                tell(position, row.as_ref());
            }
        }
        Ok(())
    }
}

/// Files by number. Numbers are not reused, because a compaction in the background refers to them.
#[derive(Default)]
pub(super) struct TableFiles {
    by_id: BTreeMap<u32, WriterFile>,
    next: u32,
}

impl TableFiles {
    /// Adds a file, and returns its number.
    pub(super) fn insert(&mut self, file: WriterFile) -> u32 {
        let id = self.reserve();
        self.put(id, file);
        id
    }

    /// Reserves a number for a file that will be added later.
    pub(super) fn reserve(&mut self) -> u32 {
        let id = self.next;
        self.next = self
            .next
            .checked_add(1)
            .expect("a writer restarts before it has written four billion files");
        id
    }

    /// Adds the file of a reserved number.
    pub(super) fn put(&mut self, id: u32, file: WriterFile) {
        self.by_id.insert(id, file);
    }

    pub(super) fn get(&self, id: u32) -> Option<&WriterFile> {
        self.by_id.get(&id)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<WriterFile> {
        self.by_id.remove(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &WriterFile)> {
        self.by_id.iter().map(|(id, file)| (*id, file))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Marks rows as removed, and records that in `batch`; drops a file without live rows.
    pub(super) fn vacate(&mut self, positions: RowPositions, batch: &mut TableBatch) {
        for (id, vacated) in positions.into_iter().filter(|(_, vacated)| !vacated.is_empty()) {
            let file = self.by_id.get_mut(&id).expect("rows are in files that are known");
            file.excluded |= &vacated;
            let empty = file.live() == 0;
            if empty && !file.shared {
                batch.removes.push(file.path.clone());
            } else {
                let vacated = RoaringTreemap::from_bitmaps([(0, vacated)]);
                batch.deletes.push((file.path.clone(), vacated));
            }
            if empty {
                self.by_id.remove(&id);
            }
        }
    }
}
