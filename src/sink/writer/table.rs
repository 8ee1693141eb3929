//! One table at one writer: the updates that wait, the places of its published rows, and what a seal does to them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::WriterLimits;
use super::compact::{CompactionJob, MergedFiles, pick, replace_appended};
use super::error::WriterError;
use super::file::{FileNames, NewFile, encode_changes, encode_groups, encode_rows};
use super::file_store::FileStore;
use super::files::{RowPositions, TableFiles, WriterFile};
use super::indexed::IndexedTable;
use super::layout::TableLayout;
use super::mint::{Mint, Minted, consolidate_sorted};
use super::small::SmallTable;
use super::stats::TableStats;
use crate::definition::Deletes;
use crate::repr::{Diff, Epoch, Row, Update};
use crate::sink::{Relocation, TableBatch, TableSpec};

/// What all tables of a writer share.
pub(super) struct WriterContext {
    pub(super) store: Arc<FileStore>,
    pub(super) names: FileNames,
    pub(super) limits: WriterLimits,
}

/// How a table keeps track of its published rows.
pub(super) enum RowTracking {
    /// An append-only table knows only its files.
    Appended(TableFiles),
    /// A table with few rows keeps them in memory.
    Small(SmallTable),
    /// A table with many rows has an index by hash.
    Indexed(Box<IndexedTable>),
}

/// A change of a table's rows that is to be published.
#[derive(Default)]
pub(super) struct TableEdit {
    /// Rows to add and to remove, by the sign of the difference.
    pub(super) changes: Vec<(Row, Diff)>,
    /// Rows to rewrite, with their counts.
    pub(super) moved: Vec<(Row, u64)>,
    /// Rows to remove that are already out of the index.
    pub(super) leftovers: Vec<(Row, Diff)>,
    /// Positions of rows to remove from their files.
    pub(super) vacated: RowPositions,
}

/// A batch, and the files that it names, which are still to be stored.
pub(super) struct WrittenBatch {
    pub(super) batch: TableBatch,
    pub(super) files: Vec<(String, Bytes)>,
    rows: u64,
}

impl WrittenBatch {
    pub(super) fn new(data_change: bool) -> Self {
        WrittenBatch {
            batch: TableBatch {
                data_change,
                ..TableBatch::default()
            },
            files: Vec::new(),
            rows: 0,
        }
    }

    /// Adds a data file.
    pub(super) fn put(&mut self, file: NewFile) {
        self.rows += u64::from(file.rows);
        self.batch.adds.push(file.add);
        self.files.push((file.physical, file.bytes));
    }
}

/// The end of a compaction.
pub(super) enum CompactionResult {
    /// The batch to commit.
    Done(TableBatch),
    /// The compaction came too late: no log will have its file.
    Void(MergedFiles),
}

/// A comparison of the published rows with the desired ones, by an audit.
struct Audit {
    /// The desired rows have times up to this epoch.
    upto: Epoch,
    /// Positions of published rows that have been confirmed as desired: these need not wait in memory for the rest.
    confirmed: RowPositions,
}

/// One table at one writer.
pub(super) struct TableWriter {
    layout: Arc<TableLayout>,
    mint: Mint,
    tracking: RowTracking,
    /// Set if the next seal carries the whole desired table.
    audit: Option<Audit>,
    /// Whether the next seal is the first since the table was loaded.
    restored: bool,
    /// `compacting`: whether a compaction is under way. `dirty`: whether one may be worth its cost.
    compacting: bool,
    dirty: bool,
    /// Files of a log that hold nothing that counts any more; the next seal removes them.
    void: Vec<String>,
    pub(super) stats: Arc<TableStats>,
}

impl TableWriter {
    /// A table; `tracking` tracks the rows of its live files, if it has any.
    pub(super) fn new(
        spec: TableSpec,
        tracking: Option<RowTracking>,
        stats: Arc<TableStats>,
    ) -> Result<Self, WriterError> {
        let restored = tracking.is_some();
        let tracking = tracking.unwrap_or_else(|| match spec.deletes {
            _ if spec.append_only => RowTracking::Appended(TableFiles::default()),
            Deletes::Vectors => RowTracking::Indexed(Box::new(IndexedTable::new(false))),
            Deletes::Auto | Deletes::Rewrite => RowTracking::Small(SmallTable::default()),
        });
        let layout = Arc::new(TableLayout::new(spec)?);
        let (mint, dirty) = (Mint::default(), restored);
        let table = TableWriter {
            layout,
            mint,
            tracking,
            audit: None,
            restored,
            compacting: false,
            dirty,
            void: vec![],
            stats,
        };
        table.publish_sizes();
        Ok(table)
    }

    /// Announces that the next seal carries the whole desired table, at times up to `upto`.
    pub(super) fn audit_next(&mut self, upto: Epoch) {
        let confirmed = RowPositions::new();
        self.audit = Some(Audit { upto, confirmed });
    }

    /// Announces that the rows in this log's files do not count any more: the next seal removes the files.
    pub(super) fn start_anew(&mut self) {
        if let RowTracking::Appended(files) = &mut self.tracking {
            let files = std::mem::take(files);
            self.void.extend(files.iter().map(|(_, file)| file.path.clone()));
        }
    }

    /// Whether the next seal carries the whole desired table.
    pub(super) fn is_audited(&self) -> bool {
        self.audit.is_some()
    }

    /// Takes updates.
    pub(super) fn observe_rows(&mut self, mut updates: Vec<Update>) {
        if let (Some(Audit { upto, confirmed }), RowTracking::Indexed(indexed)) = (&mut self.audit, &self.tracking) {
            updates.retain(|(row, time, diff)| !(*diff == 1 && time <= upto && indexed.confirm(row, confirmed)));
        }
        self.mint.observe_rows(updates);
    }

    /// Takes appended columns.
    pub(super) fn observe_columns(&mut self, epoch: Epoch, batch: RecordBatch) -> Result<(), WriterError> {
        if matches!(self.tracking, RowTracking::Appended(_)) {
            self.mint.observe_columns(epoch, batch);
        } else {
            let rows = self.layout.encode(&batch)?;
            self.mint
                .observe_rows(rows.iter().map(|row| (Row::new(row.as_ref()), epoch, 1)).collect());
        }
        Ok(())
    }

    /// Turns all updates up to `epoch` into files (returned, not yet stored) and a batch.
    pub(super) fn seal(&mut self, context: &WriterContext, epoch: Epoch) -> Result<Option<WrittenBatch>, WriterError> {
        let audit = match self.audit.take() {
            Some(audit) => {
                let behind = self.layout.canonical(self.mint.behind(audit.upto, epoch))?;
                Some((audit, behind))
            }
            None => None,
        };
        let minted = self.mint.seal(epoch);
        let restored = std::mem::take(&mut self.restored);
        let written = match &mut self.tracking {
            RowTracking::Appended(files) => {
                let mut written = append(&self.layout, files, context, epoch, minted)?;
                written.batch.removes.append(&mut self.void);
                written
            }
            _ => {
                let rows = self.layout.canonical(minted.rows)?;
                if rows.is_empty() && !restored && audit.is_none() {
                    return Ok(None);
                }
                self.seal_rows(context, epoch, rows, audit, restored)?
            }
        };
        if written.batch.is_empty() {
            return Ok(None);
        }
        self.dirty = true;
        self.stats.files.fetch_add(written.files.len() as u64, Relaxed);
        self.stats
            .bytes
            .fetch_add(written.files.iter().map(|(_, bytes)| bytes.len() as u64).sum(), Relaxed);
        self.stats.rows.fetch_add(written.rows, Relaxed);
        self.publish_sizes();
        Ok(Some(written))
    }

    /// Seals a table with rows. An audit comes with the changes since the epoch that it compares, because these are no
    /// corrections.
    fn seal_rows(
        &mut self,
        context: &WriterContext,
        epoch: Epoch,
        rows: Vec<(Row, Diff)>,
        audit: Option<(Audit, Vec<(Row, Diff)>)>,
        restored: bool,
    ) -> Result<WrittenBatch, WriterError> {
        if audit.is_none() {
            self.shrink(context)?;
        }
        let (audit, behind) = audit.unzip();
        let edit = match (&mut self.tracking, audit) {
            (RowTracking::Small(small), Some(_)) => TableEdit {
                changes: small.difference(rows),
                ..TableEdit::default()
            },
            (RowTracking::Indexed(indexed), Some(audit)) => {
                indexed.difference(&self.layout, context, rows, audit.confirmed)?
            }
            _ => TableEdit {
                changes: rows,
                ..TableEdit::default()
            },
        };
        let changed: u64 = edit
            .changes
            .iter()
            .chain(&edit.leftovers)
            .map(|(_, diff)| diff.unsigned_abs())
            .sum();
        if let Some(behind) = behind {
            let corrected = match behind.is_empty() {
                true => changed,
                false => apart(edit.changes.iter().chain(&edit.leftovers), behind),
            };
            self.stats.corrections.fetch_add(corrected, Relaxed);
        }
        let feed: Vec<(Row, Diff)> = if self.layout.spec.change_data_feed {
            edit.changes.iter().chain(&edit.leftovers).cloned().collect()
        } else {
            Vec::new()
        };
        let data_change = changed > 0;
        let outgrown = matches!(&self.tracking, RowTracking::Small(small) if {
            let (rows, bytes) = small.size_after(&edit.changes);
            rows > context.limits.small_rows || bytes > context.limits.small_bytes
        });
        let mut written = match &mut self.tracking {
            RowTracking::Small(small) if outgrown => {
                let (moved, vacated) = std::mem::take(small).dissolve(&self.layout, epoch, &edit.changes)?;
                let mut indexed = IndexedTable::new(self.layout.spec.deletes == Deletes::Rewrite);
                let mut written = indexed.apply(&self.layout, context, epoch, moved, (data_change, false))?;
                written.batch.removes = vacated.removes;
                written.batch.deletes = vacated.deletes;
                self.tracking = RowTracking::Indexed(Box::new(indexed));
                written
            }
            RowTracking::Small(small) => small.apply(&self.layout, context, epoch, &edit.changes, restored)?,
            RowTracking::Indexed(indexed) => {
                indexed.apply(&self.layout, context, epoch, edit, (data_change, restored))?
            }
            RowTracking::Appended(_) => unreachable!("append-only tables are sealed by `append`"),
        };
        // This is needed also if rows are only added: once any writer has change files, readers of the version use
        // only those.
        if !feed.is_empty() {
            for (change, physical, bytes) in encode_changes(&self.layout, &feed, (&context.names, epoch))? {
                written.batch.changes.push(change);
                written.files.push((physical, bytes));
            }
        }
        Ok(written)
    }

    /// Returns to rows in memory, once the table is far below the threshold and compaction has left little to read.
    fn shrink(&mut self, context: &WriterContext) -> Result<(), WriterError> {
        let RowTracking::Indexed(indexed) = &self.tracking else {
            return Ok(());
        };
        let limits = &context.limits;
        if self.layout.spec.deletes == Deletes::Vectors
            || self.compacting
            || indexed.index.len() > limits.small_rows / 4
        {
            return Ok(());
        }
        let physical: u64 = indexed.files.iter().map(|(_, file)| u64::from(file.rows)).sum();
        if indexed.files.len() > 4 * limits.merge_files || physical > 4 * limits.small_rows {
            return Ok(());
        }
        let small = indexed.shrink(&self.layout, context)?;
        if small.size().1 <= limits.small_bytes / 4 {
            self.tracking = RowTracking::Small(small);
        }
        Ok(())
    }

    /// A compaction, if one is worth its cost.
    pub(super) fn compaction(&mut self, table: usize, context: &WriterContext, epoch: Epoch) -> Option<CompactionJob> {
        if self.restored || !std::mem::take(&mut self.dirty) {
            return None;
        }
        let (files, indexed) = match &self.tracking {
            RowTracking::Appended(files) => (files, false),
            RowTracking::Indexed(indexed) => (&indexed.files, true),
            RowTracking::Small(_) => return None,
        };
        let inputs = pick(files, &context.limits, self.layout.spec.summation.is_some())?;
        let inputs = inputs
            .into_iter()
            .map(|id| (id, files.get(id).expect("picked files are live").clone()))
            .collect();
        self.compacting = true;
        let (layout, store, names) = (self.layout.clone(), context.store.clone(), context.names.clone());
        Some(CompactionJob {
            table,
            epoch,
            layout,
            store,
            names,
            inputs,
            indexed,
            fold_rows: context.limits.fold_rows,
        })
    }

    /// Takes over a compaction's outcome; index entries may still have to move.
    pub(super) fn begin_move(&mut self, merged: MergedFiles) -> Option<CompactionResult> {
        let ended = match &mut self.tracking {
            RowTracking::Appended(files) => Some((Some(replace_appended(files, &merged)), merged)),
            RowTracking::Indexed(indexed) => indexed.begin_move(merged),
            RowTracking::Small(_) => Some((None, merged)),
        };
        ended.map(|ended| self.end_compaction(ended))
    }

    /// Moves up to `moves` index entries to a compaction's file; returns the compaction's end after the last one.
    pub(super) fn move_entries(&mut self, moves: usize) -> Option<CompactionResult> {
        let RowTracking::Indexed(indexed) = &mut self.tracking else {
            return None;
        };
        let ended = indexed.move_entries(moves)?;
        Some(self.end_compaction(ended))
    }

    fn end_compaction(&mut self, (batch, merged): (Option<TableBatch>, MergedFiles)) -> CompactionResult {
        (self.compacting, self.dirty) = (false, true);
        if batch.is_some() {
            self.stats.compactions.fetch_add(1, Relaxed);
        }
        self.publish_sizes();
        batch.map_or(CompactionResult::Void(merged), CompactionResult::Done)
    }

    /// Notes the new places of rows that another writer moved.
    pub(super) fn relocate(&mut self, relocation: &Relocation, writer: usize) -> Result<(), WriterError> {
        match &mut self.tracking {
            // Rewrites of tables without vectors are undone, so nothing has moved.
            RowTracking::Appended(_) => {}
            RowTracking::Small(small) => small.relocate(relocation, writer),
            RowTracking::Indexed(indexed) => {
                let lost = indexed.relocate(relocation, writer, &self.layout.spec.path)?;
                if lost > 0 {
                    return Err(WriterError::Relocated {
                        table: self.layout.spec.name.clone(),
                        lost,
                    });
                }
            }
        }
        self.dirty = true;
        Ok(())
    }

    /// Gives up the compaction whose entries are moving.
    pub(super) fn give_up(&mut self) -> Option<MergedFiles> {
        match &mut self.tracking {
            RowTracking::Indexed(indexed) => indexed.give_up(),
            _ => None,
        }
    }

    fn publish_sizes(&self) {
        let (live, files, memory) = match &self.tracking {
            RowTracking::Appended(files) => (files.iter().map(|(_, f)| u64::from(f.live())).sum(), files.len(), 0),
            RowTracking::Small(small) => (
                small.size().0,
                0,
                small.size().1 as usize + small.size().0 as usize * 48,
            ),
            RowTracking::Indexed(indexed) => (indexed.index.len(), indexed.files.len(), indexed.index.memory()),
        };
        self.stats.live_rows.store(live, Relaxed);
        self.stats.live_files.store(files as u64, Relaxed);
        self.stats.index_bytes.store(memory as u64, Relaxed);
    }
}

/// The number of rows by which these changes differ from those in `behind`.
fn apart<'a>(changes: impl Iterator<Item = &'a (Row, Diff)>, behind: Vec<(Row, Diff)>) -> u64 {
    let mut rows: Vec<(Row, Diff)> = changes.cloned().collect();
    rows.extend(behind.into_iter().map(|(row, diff)| (row, -diff)));
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    consolidate_sorted(&mut rows);
    rows.iter().map(|(_, diff)| diff.unsigned_abs()).sum()
}

/// Encodes updates of an append-only table as new files.
fn append(
    layout: &TableLayout,
    files: &mut TableFiles,
    context: &WriterContext,
    epoch: Epoch,
    minted: Minted,
) -> Result<WrittenBatch, WriterError> {
    if minted.rows.iter().any(|(_, diff)| *diff < 0) {
        return Err(WriterError::Removal {
            table: layout.spec.name.clone(),
            epoch,
        });
    }
    let names = (&context.names, epoch);
    let mut written = WrittenBatch::new(true);
    let rows: Vec<&[u8]> = minted
        .rows
        .iter()
        .flat_map(|(row, n)| std::iter::repeat_n(row.bytes(), *n as usize))
        .collect();
    let mut new: Vec<NewFile> = encode_rows(layout, &rows, names, true, context.limits.file_rows)?
        .into_iter()
        .map(|(file, _)| file)
        .collect();
    let columns = match &layout.spec.summation {
        Some(summation) if !minted.columns.is_empty() => summation.add_up(&minted.columns, context.limits.fold_rows),
        _ => minted.columns,
    };
    new.append(&mut encode_groups(
        layout,
        columns,
        context.limits.file_rows,
        names,
        true,
    )?);
    for file in new {
        files.insert(WriterFile::of_new(&file));
        written.put(file);
    }
    Ok(written)
}
