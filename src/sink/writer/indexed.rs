//! A table with an index: new rows go to new files, and rows that go are found by their hash.
//!
//! How they go: by their position (deletion vectors), or, for readers without those, by writing the
//! rest of their file anew; files are bounded, so that this stays bounded too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::compact::Merged;
use super::error::WriterError;
use super::file::encode_rows;
use super::files::{FileState, Files, Positions};
use super::hash::RowHash;
use super::index::Index;
use super::layout::{Layout, from_log};
use super::settle::Settling;
use super::small::{Place, Small};
use super::table::{Desk, Edit, Written};
use crate::repr::{Diff, Epoch, Row};
use crate::sink::{Batch, Relocation};

/// Where the rows of a table are.
pub(super) struct Indexed {
    pub(super) index: Index,
    pub(super) files: Files,
    /// Whether files that lose rows are written anew.
    pub(super) rewrite: bool,
    /// A compaction whose entries are moving.
    settling: Option<Box<Settling>>,
}

impl Indexed {
    /// Without rows.
    pub(super) fn new(rewrite: bool) -> Self {
        Indexed {
            index: Index::new(),
            files: Files::default(),
            rewrite,
            settling: None,
        }
    }

    /// Takes a compaction's file, to be settled by [`Indexed::settle`]. Where files are rewritten that happens at once,
    /// because a file half taken over could not be emptied; unless the work is void, because one was meanwhile.
    pub(super) fn begin_settling(&mut self, merged: Merged) -> Option<(Option<Batch>, Merged)> {
        debug_assert!(self.settling.is_none(), "one compaction at a time");
        if self.rewrite && merged.inputs.iter().any(|id| self.files.get(*id).is_none()) {
            return Some((None, merged));
        }
        self.settling = Some(Box::new(Settling::new(&mut self.files, merged)));
        self.rewrite.then(|| self.settle(usize::MAX)).flatten()
    }

    /// Moves up to `moves` entries; once none is left, what that changes.
    pub(super) fn settle(&mut self, moves: usize) -> Option<(Option<Batch>, Merged)> {
        if !self.settling.as_mut()?.advance(&mut self.index, moves) {
            return None;
        }
        Some(self.settling.take()?.finish(&mut self.files))
    }

    /// The compaction that is not settled, given up: for a writer that ends.
    pub(super) fn give_up(&mut self) -> Option<Merged> {
        self.settling.take().map(|settling| settling.into_merged())
    }

    /// Moves the entries of rows that others moved. Says how many of the rows kept here were not found.
    pub(super) fn relocate(
        &mut self,
        relocation: &Relocation,
        writer: usize,
        folder: &str,
    ) -> Result<u64, WriterError> {
        debug_assert!(self.settling.is_none(), "a compaction is settled first");
        let by_path: HashMap<&str, usize> = (relocation.gone.iter().enumerate())
            .map(|(number, path)| (path.as_str(), number))
            .collect();
        let gone: Vec<(u32, usize, u64)> = (self.files.iter())
            .filter_map(|(id, file)| Some((id, *by_path.get(file.path.as_str())?, u64::from(file.live()))))
            .collect();
        let expected: u64 = gone.iter().map(|(_, _, live)| live).sum();
        let mut found = 0;
        let mut came: BTreeMap<u32, (u32, RoaringBitmap)> = BTreeMap::new();
        for (id, number, _) in gone {
            for row in relocation.moved[number]
                .iter()
                .filter(|row| row.owner as usize == writer)
            {
                let new = came
                    .entry(row.file)
                    .or_insert_with(|| (self.files.reserve(), RoaringBitmap::new()));
                // One that is not there went meanwhile, and the committer is told so in the place it had.
                if self.index.relocate(row.hash, (id, row.position), (new.0, row.to)) {
                    new.1.insert(row.to);
                    found += 1;
                }
            }
            self.files.remove(id);
        }
        for (number, (id, mine)) in came {
            let file = &relocation.came[number as usize];
            if mine.is_empty() {
                continue;
            }
            let physical = from_log(&file.path).expect("the committer has read it");
            let rows = file.rows as u32;
            let state = FileState {
                path: file.path.clone(),
                physical: format!("{folder}/{physical}"),
                values: Arc::new(file.partition_values.clone()),
                rows,
                bytes: file.size,
                gone: (0..rows).filter(|p| !mine.contains(*p)).collect(),
                shared: mine.len() + file.deleted.len() != file.rows,
            };
            self.files.put(id, state);
        }
        Ok(expected - found)
    }

    /// Notes that a published row is desired, where it is the only one of its kind and was not noted before: then it
    /// need not wait for [`Indexed::difference`].
    pub(super) fn confirm(&self, row: &Row, kept: &mut Positions) -> bool {
        let place = self.index.only_place(RowHash::of(row.bytes()));
        place.is_some_and(|(file, position)| kept.entry(file).or_default().insert(position))
    }

    /// What turns the published rows into the desired ones, of which those in `kept` are confirmed: rows to add, and rows
    /// (already out of the index, read back from their files) to vacate.
    pub(super) fn difference(
        &mut self,
        layout: &Layout,
        desk: &Desk,
        desired: Vec<(Row, Diff)>,
        mut kept: Positions,
    ) -> Result<Edit, WriterError> {
        debug_assert!(self.settling.is_none(), "audits come before any compaction");
        let mut edit = Edit::default();
        for (row, mut count) in desired {
            let only = self.index.only_place(RowHash::of(row.bytes()));
            let confirmed = only.and_then(|(file, position)| Some(kept.get_mut(&file)?.remove(position)));
            count += Diff::from(confirmed == Some(true));
            let wanted = usize::try_from(count.max(0)).expect("counts of rows fit the address space");
            let found = self.index.places(RowHash::of(row.bytes()), wanted, |(file, position)| {
                kept.entry(file).or_default().insert(position);
            });
            let missing = count - found as Diff;
            if missing != 0 {
                edit.changes.push((row, missing));
            }
        }
        for (id, file) in self.files.iter() {
            let kept = kept.remove(&id).unwrap_or_default();
            if kept.len() == u64::from(file.live()) {
                continue;
            }
            let mut vacated = RoaringBitmap::new();
            let wanted = |p| !file.gone.contains(p) && !kept.contains(p);
            file.read(layout, &desk.lake, wanted, |position, row| {
                let known = self.index.remove_at(RowHash::of(row), (id, position));
                debug_assert!(known, "a live row is in the index");
                vacated.insert(position);
                edit.leftovers.push((Row::new(row), -1));
            })?;
            edit.vacated.insert(id, vacated);
        }
        Ok(edit)
    }

    /// Publishes an edit. With `rehome`, rewriting tables also move what lies in files of other writers.
    pub(super) fn apply(
        &mut self,
        layout: &Layout,
        desk: &Desk,
        epoch: Epoch,
        mut edit: Edit,
        (data_change, rehome): (bool, bool),
    ) -> Result<Written, WriterError> {
        self.take_out(layout, epoch, &mut edit)?;
        if self.rewrite {
            self.empty_files(layout, desk, &mut edit, rehome)?;
        }
        let added = edit
            .changes
            .iter()
            .filter(|(_, diff)| *diff > 0)
            .map(|(row, diff)| (row, *diff as u64));
        let moved = edit.moved.iter().map(|(row, count)| (row, *count));
        let rows: Vec<&[u8]> = added
            .chain(moved)
            .flat_map(|(row, n)| std::iter::repeat_n(row.bytes(), n as usize))
            .collect();
        let limit = if self.rewrite {
            desk.limits.rewrite_rows
        } else {
            desk.limits.file_rows
        };
        let mut written = Written::new(data_change);
        for (file, numbers) in encode_rows(layout, &rows, (&desk.names, epoch), data_change, limit)? {
            let id = self.files.insert(FileState::of(&file));
            for (position, number) in numbers.into_iter().enumerate() {
                self.index
                    .insert(RowHash::of(rows[number as usize]), (id, position as u32));
            }
            written.put(file);
        }
        self.files.vacate(edit.vacated, &mut written.batch);
        Ok(written)
    }

    /// Takes removed rows out of the index.
    fn take_out(&mut self, layout: &Layout, epoch: Epoch, edit: &mut Edit) -> Result<(), WriterError> {
        let mut missing = 0;
        let mut first = None;
        for (row, diff) in edit.changes.iter().filter(|(_, diff)| *diff < 0) {
            let hash = RowHash::of(row.bytes());
            for gone in 0..diff.unsigned_abs() {
                let Some(mut place) = self.index.remove(hash) else {
                    missing += diff.unsigned_abs() - gone;
                    first = first.or(Some(row));
                    break;
                };
                if let Some(settling) = &mut self.settling {
                    place = settling.published(place);
                }
                let (file, position) = place;
                edit.vacated.entry(file).or_default().insert(position);
            }
        }
        if let Some(first) = first {
            return Err(WriterError::UnknownRow {
                table: layout.spec.name.clone(),
                epoch,
                missing,
                row: layout.shown(first),
            });
        }
        Ok(())
    }

    /// Takes what is left out of files that lose rows.
    fn empty_files(&mut self, layout: &Layout, desk: &Desk, edit: &mut Edit, rehome: bool) -> Result<(), WriterError> {
        let losing: Vec<u32> = self
            .files
            .iter()
            .filter(|(id, file)| edit.vacated.contains_key(id) || (rehome && (file.shared || !file.gone.is_empty())))
            .map(|(id, _)| id)
            .collect();
        for id in losing {
            let vacated = edit.vacated.entry(id).or_default();
            let file = self.files.get(id).expect("a file just listed");
            let wanted: RoaringBitmap = (0..file.rows)
                .filter(|p| !file.gone.contains(*p) && !vacated.contains(*p))
                .collect();
            file.read(
                layout,
                &desk.lake,
                |p| wanted.contains(p),
                |position, row| {
                    let known = self.index.remove_at(RowHash::of(row), (id, position));
                    debug_assert!(known, "a live row is in the index");
                    edit.moved.push((Row::new(row), 1));
                },
            )?;
            *vacated |= wanted;
        }
        Ok(())
    }

    /// The rows in memory instead of the index, where the table has become small.
    pub(super) fn shrink(&self, layout: &Layout, desk: &Desk) -> Result<Small, WriterError> {
        let mut small = Small::default();
        for (_, file) in self.files.iter() {
            let (mut rows, mut positions) = (Vec::new(), RoaringBitmap::new());
            file.read(
                layout,
                &desk.lake,
                |p| !file.gone.contains(p),
                |position, row| {
                    rows.push(Row::new(row));
                    positions.insert(position);
                },
            )?;
            place_rows(&mut small, layout, file, rows, positions)?;
        }
        Ok(small)
    }
}

/// Puts the live rows of a file into a small table.
pub(super) fn place_rows(
    small: &mut Small,
    layout: &Layout,
    file: &FileState,
    rows: Vec<Row>,
    positions: RoaringBitmap,
) -> Result<(), WriterError> {
    let Some(first) = rows.first() else { return Ok(()) };
    let key = layout.group_rows(&[first.bytes()])?.swap_remove(0).key;
    for row in rows {
        small.insert(&key, row);
    }
    small.place(
        &key,
        if file.shared {
            Place::Shared(
                file.path.clone(),
                roaring::RoaringTreemap::from_bitmaps([(0, positions)]),
            )
        } else {
            Place::Whole(file.path.clone())
        },
    );
    Ok(())
}
