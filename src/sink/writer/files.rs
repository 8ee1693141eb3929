//! The live files of one table as one writer sees them.

use std::collections::BTreeMap;

use roaring::{RoaringBitmap, RoaringTreemap};

use super::error::WriterError;
use super::file::{NewFile, decode_file};
use super::lake::Lake;
use super::layout::{Layout, PartitionValues};
use crate::sink::Batch;

/// Positions by file.
pub(super) type Positions = BTreeMap<u32, RoaringBitmap>;

/// A live file.
#[derive(Clone)]
pub(super) struct FileState {
    /// As the log has it.
    pub(super) path: String,
    /// Its place in the lake.
    pub(super) physical: String,
    pub(super) values: PartitionValues,
    /// Rows in it, gone or not.
    pub(super) rows: u32,
    pub(super) bytes: u64,
    /// Positions that are gone, or not this writer's.
    pub(super) gone: RoaringBitmap,
    /// Other writers own rows of it: it is never removed as a whole, the committer sees when nothing is left.
    pub(super) shared: bool,
}

impl FileState {
    /// A file just written.
    pub(super) fn of(file: &NewFile) -> Self {
        FileState {
            path: file.add.path.clone(),
            physical: file.physical.clone(),
            values: file.values.clone(),
            rows: file.rows,
            bytes: file.add.size,
            gone: RoaringBitmap::new(),
            shared: false,
        }
    }

    /// This writer's rows that are not gone.
    pub(super) fn live(&self) -> u32 {
        self.rows.saturating_sub(self.gone.len() as u32)
    }

    /// Reads rows back: tells position and bytes of every row that `wanted` picks.
    pub(super) fn read(
        &self,
        layout: &Layout,
        lake: &Lake,
        wanted: impl Fn(u32) -> bool,
        mut tell: impl FnMut(u32, &[u8]),
    ) -> Result<(), WriterError> {
        let mut position = 0;
        for batch in decode_file(layout, &self.physical, lake.get(&self.physical)?)? {
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

/// Files by number. Numbers are not used twice: a compaction in the background refers to them.
#[derive(Default)]
pub(super) struct Files {
    by_id: BTreeMap<u32, FileState>,
    next: u32,
}

impl Files {
    /// One more; its number.
    pub(super) fn insert(&mut self, file: FileState) -> u32 {
        let id = self.reserve();
        self.put(id, file);
        id
    }

    /// A number for a file that comes later.
    pub(super) fn reserve(&mut self) -> u32 {
        let id = self.next;
        self.next = self
            .next
            .checked_add(1)
            .expect("a writer restarts before it has written four billion files");
        id
    }

    /// The file with a reserved number.
    pub(super) fn put(&mut self, id: u32, file: FileState) {
        self.by_id.insert(id, file);
    }

    pub(super) fn get(&self, id: u32) -> Option<&FileState> {
        self.by_id.get(&id)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<FileState> {
        self.by_id.remove(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &FileState)> {
        self.by_id.iter().map(|(id, file)| (*id, file))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Marks rows as gone and says so to the committer; a file without live rows is dropped.
    pub(super) fn vacate(&mut self, positions: Positions, batch: &mut Batch) {
        for (id, gone) in positions.into_iter().filter(|(_, gone)| !gone.is_empty()) {
            let file = self.by_id.get_mut(&id).expect("rows are in files that are known");
            file.gone |= &gone;
            let empty = file.live() == 0;
            if empty && !file.shared {
                batch.removes.push(file.path.clone());
            } else {
                let gone = RoaringTreemap::from_bitmaps([(0, gone)]);
                batch.deletes.push((file.path.clone(), gone));
            }
            if empty {
                self.by_id.remove(&id);
            }
        }
    }
}
