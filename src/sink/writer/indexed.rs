//! A table with an index: new rows go to new files, and rows to remove are found by their hash.
//!
//! A row is removed by its position (deletion vectors), or, for readers without those, by a rewrite of its file. The
//! size of files is bounded, so the cost of a rewrite is bounded too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::compact::MergedFiles;
use super::error::WriterError;
use super::file::encode_rows;
use super::files::{RowPositions, TableFiles, WriterFile};
use super::hash::RowHash;
use super::index::Index;
use super::index_move::IndexMove;
use super::layout::{TableLayout, from_log};
use super::small::{PublishedFile, SmallTable};
use super::table::{TableEdit, WriterContext, WrittenBatch};
use crate::repr::{Diff, Epoch, Row};
use crate::sink::{Relocation, TableBatch};

/// A table whose rows are tracked by an index.
pub(super) struct IndexedTable {
    pub(super) index: Index,
    pub(super) files: TableFiles,
    /// Whether a file that loses rows is rewritten.
    pub(super) rewrite: bool,
    /// A compaction whose index entries are moving.
    index_move: Option<Box<IndexMove>>,
}

impl IndexedTable {
    /// A table without rows.
    pub(super) fn new(rewrite: bool) -> Self {
        IndexedTable {
            index: Index::new(),
            files: TableFiles::default(),
            rewrite,
            index_move: None,
        }
    }

    /// Takes over a compaction's file, whose entries [`IndexedTable::move_entries`] moves. In a table that rewrites
    /// files all entries move at once, because such a table could not rewrite a file that is only half taken over. The
    /// compaction is void if one of its inputs has been rewritten in the meantime.
    pub(super) fn begin_move(&mut self, merged: MergedFiles) -> Option<(Option<TableBatch>, MergedFiles)> {
        debug_assert!(self.index_move.is_none(), "one compaction at a time");
        if self.rewrite && merged.inputs.iter().any(|id| self.files.get(*id).is_none()) {
            return Some((None, merged));
        }
        self.index_move = Some(Box::new(IndexMove::new(&mut self.files, merged)));
        self.rewrite.then(|| self.move_entries(usize::MAX)).flatten()
    }

    /// Moves up to `moves` entries; returns the compaction's batch after the last one.
    pub(super) fn move_entries(&mut self, moves: usize) -> Option<(Option<TableBatch>, MergedFiles)> {
        if !self.index_move.as_mut()?.advance(&mut self.index, moves) {
            return None;
        }
        Some(self.index_move.take()?.finish(&mut self.files))
    }

    /// Gives up the compaction whose entries are moving, because the writer ends.
    pub(super) fn give_up(&mut self) -> Option<MergedFiles> {
        self.index_move.take().map(|index_move| index_move.into_merged())
    }

    /// Moves the entries of rows that another writer moved. Returns how many of this writer's rows were not found.
    pub(super) fn relocate(
        &mut self,
        relocation: &Relocation,
        writer: usize,
        folder: &str,
    ) -> Result<u64, WriterError> {
        debug_assert!(self.index_move.is_none(), "a compaction's entries have moved before");
        let by_path: HashMap<&str, usize> = (relocation.gone.iter().enumerate())
            .map(|(number, path)| (path.as_str(), number))
            .collect();
        let removed_files: Vec<(u32, usize, u64)> = (self.files.iter())
            .filter_map(|(id, file)| Some((id, *by_path.get(file.path.as_str())?, u64::from(file.live()))))
            .collect();
        let expected: u64 = removed_files.iter().map(|(_, _, live)| live).sum();
        let mut moved = 0;
        let mut came: BTreeMap<u32, (u32, RoaringBitmap)> = BTreeMap::new();
        for (id, number, _) in removed_files {
            for row in relocation.moved[number]
                .iter()
                .filter(|row| row.owner as usize == writer)
            {
                let new = came
                    .entry(row.file)
                    .or_insert_with(|| (self.files.reserve(), RoaringBitmap::new()));
                // A row that is not there was removed in the meantime; the committer gets its removal under the old
                // place.
                if self.index.relocate(row.hash, (id, row.position), (new.0, row.to)) {
                    new.1.insert(row.to);
                    moved += 1;
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
            let state = WriterFile {
                path: file.path.clone(),
                physical: format!("{folder}/{physical}"),
                values: Arc::new(file.partition_values.clone()),
                rows,
                bytes: file.size,
                excluded: (0..rows).filter(|p| !mine.contains(*p)).collect(),
                shared: mine.len() + file.deleted.len() != file.rows,
            };
            self.files.put(id, state);
        }
        Ok(expected - moved)
    }

    /// Notes that a published row is desired, if no other row has its hash and it was not noted before: such a row
    /// need not wait for [`IndexedTable::difference`].
    pub(super) fn confirm(&self, row: &Row, confirmed: &mut RowPositions) -> bool {
        let place = self.index.only_place(RowHash::of_row(row.bytes()));
        place.is_some_and(|(file, position)| confirmed.entry(file).or_default().insert(position))
    }

    /// Computes the edit that turns the published rows into the desired ones; those at the positions in `kept` are
    /// confirmed already. The rows to remove are already out of the index, and were read back from their files.
    pub(super) fn difference(
        &mut self,
        layout: &TableLayout,
        context: &WriterContext,
        desired: Vec<(Row, Diff)>,
        mut kept: RowPositions,
    ) -> Result<TableEdit, WriterError> {
        debug_assert!(self.index_move.is_none(), "audits come before any compaction");
        let mut edit = TableEdit::default();
        for (row, mut count) in desired {
            let only = self.index.only_place(RowHash::of_row(row.bytes()));
            let confirmed = only.and_then(|(file, position)| Some(kept.get_mut(&file)?.remove(position)));
            count += Diff::from(confirmed == Some(true));
            let wanted = usize::try_from(count.max(0)).expect("counts of rows fit the address space");
            let placed = self
                .index
                .places(RowHash::of_row(row.bytes()), wanted, |(file, position)| {
                    kept.entry(file).or_default().insert(position);
                });
            let missing = count - placed as Diff;
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
            let wanted = |p| !file.excluded.contains(p) && !kept.contains(p);
            file.read(layout, &context.store, wanted, |position, row| {
                let known = self.index.remove_at(RowHash::of_row(row), (id, position));
                debug_assert!(known, "a live row is in the index");
                vacated.insert(position);
                edit.leftovers.push((Row::new(row), -1));
            })?;
            edit.vacated.insert(id, vacated);
        }
        Ok(edit)
    }

    /// Publishes an edit. With `rehome`, a table that rewrites files also moves its rows out of files shared with
    /// other writers.
    pub(super) fn apply(
        &mut self,
        layout: &TableLayout,
        context: &WriterContext,
        epoch: Epoch,
        mut edit: TableEdit,
        (data_change, rehome): (bool, bool),
    ) -> Result<WrittenBatch, WriterError> {
        self.take_out(layout, epoch, &mut edit)?;
        if self.rewrite {
            self.empty_files(layout, context, &mut edit, rehome)?;
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
            context.limits.rewrite_rows
        } else {
            context.limits.file_rows
        };
        let mut written = WrittenBatch::new(data_change);
        for (file, numbers) in encode_rows(layout, &rows, (&context.names, epoch), data_change, limit)? {
            let id = self.files.insert(WriterFile::of_new(&file));
            for (position, number) in numbers.into_iter().enumerate() {
                self.index
                    .insert(RowHash::of_row(rows[number as usize]), (id, position as u32));
            }
            written.put(file);
        }
        self.files.vacate(edit.vacated, &mut written.batch);
        Ok(written)
    }

    /// Removes the rows with negative differences from the index.
    fn take_out(&mut self, layout: &TableLayout, epoch: Epoch, edit: &mut TableEdit) -> Result<(), WriterError> {
        let mut missing = 0;
        let mut first = None;
        for (row, diff) in edit.changes.iter().filter(|(_, diff)| *diff < 0) {
            let hash = RowHash::of_row(row.bytes());
            for removed in 0..diff.unsigned_abs() {
                let Some(mut place) = self.index.remove(hash) else {
                    missing += diff.unsigned_abs() - removed;
                    first = first.or(Some(row));
                    break;
                };
                if let Some(index_move) = &mut self.index_move {
                    place = index_move.published(place);
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

    /// Moves the remaining rows out of files that lose rows.
    fn empty_files(
        &mut self,
        layout: &TableLayout,
        context: &WriterContext,
        edit: &mut TableEdit,
        rehome: bool,
    ) -> Result<(), WriterError> {
        let losing: Vec<u32> = self
            .files
            .iter()
            .filter(|(id, file)| {
                edit.vacated.contains_key(id) || (rehome && (file.shared || !file.excluded.is_empty()))
            })
            .map(|(id, _)| id)
            .collect();
        for id in losing {
            let vacated = edit.vacated.entry(id).or_default();
            let file = self.files.get(id).expect("a file just listed");
            let wanted: RoaringBitmap = (0..file.rows)
                .filter(|p| !file.excluded.contains(*p) && !vacated.contains(*p))
                .collect();
            file.read(
                layout,
                &context.store,
                |p| wanted.contains(p),
                |position, row| {
                    let known = self.index.remove_at(RowHash::of_row(row), (id, position));
                    debug_assert!(known, "a live row is in the index");
                    edit.moved.push((Row::new(row), 1));
                },
            )?;
            *vacated |= wanted;
        }
        Ok(())
    }

    /// The table with its rows in memory instead of an index, for a table that has become small.
    pub(super) fn shrink(&self, layout: &TableLayout, context: &WriterContext) -> Result<SmallTable, WriterError> {
        let mut small = SmallTable::default();
        for (_, file) in self.files.iter() {
            let (mut rows, mut positions) = (Vec::new(), RoaringBitmap::new());
            file.read(
                layout,
                &context.store,
                |p| !file.excluded.contains(p),
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

/// Adds the live rows of a file to a small table.
pub(super) fn place_rows(
    small: &mut SmallTable,
    layout: &TableLayout,
    file: &WriterFile,
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
            PublishedFile::Shared(
                file.path.clone(),
                roaring::RoaringTreemap::from_bitmaps([(0, positions)]),
            )
        } else {
            PublishedFile::Whole(file.path.clone())
        },
    );
    Ok(())
}
