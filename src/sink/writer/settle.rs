//! Taking a compaction's file for its inputs in a table with an index: the entries of the rows move, a slice at a time,
//! so that no seal waits for all of them.
//!
//! 1. Until the last entry has moved the new file is unknown to the log. A row that goes meanwhile goes from where it
//!    is published ([`Settling::published`]), whether its entry has moved or not, and is gone from the new file at birth.
//! 2. So is a row that went before its entry's turn came.

use roaring::RoaringBitmap;

use super::compact::Merged;
use super::files::{FileState, Files, Positions};
use super::index::{Index, Place};
use crate::sink::Batch;

/// A compaction whose index entries are moving.
pub(super) struct Settling {
    merged: Merged,
    /// The new file's number.
    new: u32,
    /// How many entries have had their turn.
    moved: usize,
    /// By (1) and (2).
    unborn: RoaringBitmap,
    /// What the new file takes over.
    vacated: Positions,
}

impl Settling {
    /// Nothing has moved yet.
    pub(super) fn new(files: &mut Files, merged: Merged) -> Self {
        Settling {
            merged,
            new: files.reserve(),
            moved: 0,
            unborn: RoaringBitmap::new(),
            vacated: Positions::new(),
        }
    }

    /// Moves up to `moves` more entries; says whether all have had their turn.
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

    /// Where a row is published that was just taken out of the index at `place`.
    pub(super) fn published(&mut self, place: Place) -> Place {
        if place.0 != self.new {
            return place;
        }
        let from = self.merged.moves[place.1 as usize].1;
        let taken_over = self.vacated.get_mut(&from.0).is_some_and(|file| file.remove(from.1));
        debug_assert!(taken_over, "an entry of the new file has moved there");
        self.unborn.insert(place.1);
        from
    }

    /// The new file takes the place of its inputs; without a batch if none of its rows is left.
    pub(super) fn finish(mut self, files: &mut Files) -> (Option<Batch>, Merged) {
        let [file] = self.merged.files.as_slice() else {
            unreachable!("files of a table with an index are merged into one")
        };
        if self.unborn.len() == u64::from(file.rows) {
            return (None, self.merged);
        }
        files.put(self.new, FileState::of(file));
        let mut batch = Batch {
            adds: vec![file.add.clone()],
            ..Batch::default()
        };
        self.vacated.insert(self.new, self.unborn);
        files.vacate(self.vacated, &mut batch);
        (Some(batch), self.merged)
    }

    /// What is given up.
    pub(super) fn into_merged(self) -> Merged {
        self.merged
    }
}
