//! Replaces a compaction's inputs by its file in a table with an index: moves the rows' entries a slice at a time, so
//! that no seal waits for all of them.
//!
//! 1. Until the last entry has moved, the log does not have the new file. A row that is removed in the meantime is
//!    removed where it is published ([`IndexMove::published`]), whether its entry has moved or not, and is
//!    also deleted in the new file from the start.
//! 2. The same holds for a row that was removed before its entry's turn.

use roaring::RoaringBitmap;

use super::compact::MergedFiles;
use super::files::{RowPositions, TableFiles, WriterFile};
use super::index::{Index, RowAddress};
use crate::sink::TableBatch;

/// A compaction whose index entries are moving.
pub(super) struct IndexMove {
    merged: MergedFiles,
    /// The new file's number.
    new: u32,
    /// How many entries have had their turn.
    moved: usize,
    /// Positions in the new file that are deleted from the start, by (1) and (2).
    unborn: RoaringBitmap,
    /// Old positions of the rows that the new file takes over.
    vacated: RowPositions,
}

impl IndexMove {
    /// Starts a move, with no entry moved.
    pub(super) fn new(files: &mut TableFiles, merged: MergedFiles) -> Self {
        IndexMove {
            merged,
            new: files.reserve(),
            moved: 0,
            unborn: RoaringBitmap::new(),
            vacated: RowPositions::new(),
        }
    }

    /// Moves up to `moves` more entries; returns whether all have had their turn.
    pub(super) fn advance(&mut self, index: &mut Index, moves: usize) -> bool {
        let end = self.merged.moves.len().min(self.moved.saturating_add(moves));
        for number in self.moved..end {
            let (hash, from) = self.merged.moves[number];
            let position = number as u32;
            if index.relocate(hash, from, (self.new, position)) {
                self.vacated.entry(from.0).or_default().insert(from.1);
            } else {
                self.unborn.insert(position);
            }
        }
        self.moved = end;
        end == self.merged.moves.len()
    }

    /// Where the row is published that was just removed from the index at `place`.
    pub(super) fn published(&mut self, place: RowAddress) -> RowAddress {
        if place.0 != self.new {
            return place;
        }
        let from = self.merged.moves[place.1 as usize].1;
        let taken_over = self.vacated.get_mut(&from.0).is_some_and(|file| file.remove(from.1));
        debug_assert!(taken_over, "an entry of the new file has moved there");
        self.unborn.insert(place.1);
        from
    }

    /// Replaces the inputs by the new file; returns no batch if none of its rows is left.
    pub(super) fn finish(mut self, files: &mut TableFiles) -> (Option<TableBatch>, MergedFiles) {
        let [file] = self.merged.files.as_slice() else {
            unreachable!("files of a table with an index are merged into one")
        };
        if self.unborn.len() == u64::from(file.rows) {
            return (None, self.merged);
        }
        files.put(self.new, WriterFile::of_new(file));
        let mut batch = TableBatch {
            adds: vec![file.add.clone()],
            ..TableBatch::default()
        };
        self.vacated.insert(self.new, self.unborn);
        files.vacate(self.vacated, &mut batch);
        (Some(batch), self.merged)
    }

    /// Gives up; returns the compaction's outcome.
    pub(super) fn into_merged(self) -> MergedFiles {
        self.merged
    }
}
