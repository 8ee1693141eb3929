//! One table at one writer: what waits, where its published rows are, and what a seal does to it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::Limits;
use super::compact::{Job, Merged, pick, settle_appended};
use super::error::WriterError;
use super::file::{Names, NewFile, encode_changes, encode_groups, encode_rows};
use super::files::{FileState, Files, Positions};
use super::indexed::Indexed;
use super::lake::Lake;
use super::layout::Layout;
use super::mint::{Mint, Minted, consolidate_sorted};
use super::small::Small;
use super::stats::TableStats;
use crate::definition::Deletes;
use crate::repr::{Diff, Epoch, Row, Update};
use crate::sink::{Batch, Relocation, TableSpec};

/// What every table of a writer writes with.
pub(super) struct Desk {
    pub(super) lake: Arc<Lake>,
    pub(super) names: Names,
    pub(super) limits: Limits,
}

/// How published rows are kept track of.
pub(super) enum Kept {
    /// Append-only: files alone.
    Appended(Files),
    /// Few rows: in memory.
    Small(Small),
    /// Many: by hash.
    Indexed(Box<Indexed>),
}

/// What is to become of a table's rows.
#[derive(Default)]
pub(super) struct Edit {
    /// Rows to add and to take out.
    pub(super) changes: Vec<(Row, Diff)>,
    /// Rows to write anew.
    pub(super) moved: Vec<(Row, u64)>,
    /// Rows that go and are out of the index already.
    pub(super) leftovers: Vec<(Row, Diff)>,
    /// Positions that go.
    pub(super) vacated: Positions,
}

/// A batch, and the files it names, to be stored.
pub(super) struct Written {
    pub(super) batch: Batch,
    pub(super) files: Vec<(String, Bytes)>,
    rows: u64,
}

impl Written {
    pub(super) fn new(data_change: bool) -> Self {
        Written {
            batch: Batch {
                data_change,
                ..Batch::default()
            },
            files: Vec::new(),
            rows: 0,
        }
    }

    /// One more data file.
    pub(super) fn put(&mut self, file: NewFile) {
        self.rows += u64::from(file.rows);
        self.batch.adds.push(file.add);
        self.files.push((file.physical, file.bytes));
    }
}

/// How a compaction ended.
pub(super) enum Settled {
    /// What the committer is told.
    Done(Batch),
    /// It came too late: its file is nobody's.
    Void(Merged),
}

/// A comparison of the published rows with those that are desired.
struct Audit {
    /// Desired rows have times up to this.
    upto: Epoch,
    /// Published rows that have come already: they need not wait in memory for the rest.
    kept: Positions,
}

/// One table at one writer.
pub(super) struct Table {
    layout: Arc<Layout>,
    mint: Mint,
    kept: Kept,
    /// The next seal carries the whole desired table.
    audit: Option<Audit>,
    /// The next seal is the first since the table was loaded.
    restored: bool,
    /// Whether a compaction is under way; whether one may be worth it.
    compacting: bool,
    dirty: bool,
    /// Files of a log that hold nothing that counts: the next seal takes them out.
    void: Vec<String>,
    pub(super) stats: Arc<TableStats>,
}

impl Table {
    /// A table; `kept` from its live files where it has any.
    pub(super) fn new(spec: TableSpec, kept: Option<Kept>, stats: Arc<TableStats>) -> Result<Self, WriterError> {
        let restored = kept.is_some();
        let kept = kept.unwrap_or_else(|| match spec.deletes {
            _ if spec.append_only => Kept::Appended(Files::default()),
            Deletes::Vectors => Kept::Indexed(Box::new(Indexed::new(false))),
            Deletes::Auto | Deletes::Rewrite => Kept::Small(Small::default()),
        });
        let layout = Arc::new(Layout::new(spec)?);
        let (mint, dirty) = (Mint::default(), restored);
        let table = Table {
            layout,
            mint,
            kept,
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

    /// The next seal carries the whole desired table, at times up to this.
    pub(super) fn audit_next(&mut self, upto: Epoch) {
        let kept = Positions::new();
        self.audit = Some(Audit { upto, kept });
    }

    /// What the files of this log hold counts no more: the next seal takes them out.
    pub(super) fn start_anew(&mut self) {
        if let Kept::Appended(files) = &mut self.kept {
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
        if let (Some(Audit { upto, kept }), Kept::Indexed(indexed)) = (&mut self.audit, &self.kept) {
            updates.retain(|(row, time, diff)| !(*diff == 1 && time <= upto && indexed.confirm(row, kept)));
        }
        self.mint.observe_rows(updates);
    }

    /// Takes appended columns.
    pub(super) fn observe_columns(&mut self, epoch: Epoch, batch: RecordBatch) -> Result<(), WriterError> {
        if matches!(self.kept, Kept::Appended(_)) {
            self.mint.observe_columns(epoch, batch);
        } else {
            let rows = self.layout.encode(&batch)?;
            self.mint
                .observe_rows(rows.iter().map(|row| (Row::new(row.as_ref()), epoch, 1)).collect());
        }
        Ok(())
    }

    /// Everything up to `epoch` becomes files (returned, not yet stored) and a batch.
    pub(super) fn seal(&mut self, desk: &Desk, epoch: Epoch) -> Result<Option<Written>, WriterError> {
        let audit = match self.audit.take() {
            Some(audit) => {
                let behind = self.layout.canonical(self.mint.behind(audit.upto, epoch))?;
                Some((audit, behind))
            }
            None => None,
        };
        let minted = self.mint.seal(epoch);
        let restored = std::mem::take(&mut self.restored);
        let written = match &mut self.kept {
            Kept::Appended(files) => {
                let mut written = append(&self.layout, files, desk, epoch, minted)?;
                written.batch.removes.append(&mut self.void);
                written
            }
            _ => {
                let rows = self.layout.canonical(minted.rows)?;
                if rows.is_empty() && !restored && audit.is_none() {
                    return Ok(None);
                }
                self.seal_rows(desk, epoch, rows, audit, restored)?
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

    /// An audit comes with what has changed since the epoch that it compares: rows that have come or left are no corrections.
    fn seal_rows(
        &mut self,
        desk: &Desk,
        epoch: Epoch,
        rows: Vec<(Row, Diff)>,
        audit: Option<(Audit, Vec<(Row, Diff)>)>,
        restored: bool,
    ) -> Result<Written, WriterError> {
        if audit.is_none() {
            self.shrink(desk)?;
        }
        let (audit, behind) = audit.unzip();
        let edit = match (&mut self.kept, audit) {
            (Kept::Small(small), Some(_)) => Edit {
                changes: small.difference(rows),
                ..Edit::default()
            },
            (Kept::Indexed(indexed), Some(audit)) => indexed.difference(&self.layout, desk, rows, audit.kept)?,
            _ => Edit {
                changes: rows,
                ..Edit::default()
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
        let outgrown = matches!(&self.kept, Kept::Small(small) if {
            let (rows, bytes) = small.size_after(&edit.changes);
            rows > desk.limits.small_rows || bytes > desk.limits.small_bytes
        });
        let mut written = match &mut self.kept {
            Kept::Small(small) if outgrown => {
                let (moved, vacated) = std::mem::take(small).dissolve(&self.layout, epoch, &edit.changes)?;
                let mut indexed = Indexed::new(self.layout.spec.deletes == Deletes::Rewrite);
                let mut written = indexed.apply(&self.layout, desk, epoch, moved, (data_change, false))?;
                written.batch.removes = vacated.removes;
                written.batch.deletes = vacated.deletes;
                self.kept = Kept::Indexed(Box::new(indexed));
                written
            }
            Kept::Small(small) => small.apply(&self.layout, desk, epoch, &edit.changes, restored)?,
            Kept::Indexed(indexed) => indexed.apply(&self.layout, desk, epoch, edit, (data_change, restored))?,
            Kept::Appended(_) => unreachable!("append-only tables are sealed by `append`"),
        };
        // Also where rows are only added: once any writer tells changes, readers of the version see those alone.
        if !feed.is_empty() {
            for (change, physical, bytes) in encode_changes(&self.layout, &feed, (&desk.names, epoch))? {
                written.batch.changes.push(change);
                written.files.push((physical, bytes));
            }
        }
        Ok(written)
    }

    /// Back to rows in memory, once far below the threshold and once compaction has left little to read.
    fn shrink(&mut self, desk: &Desk) -> Result<(), WriterError> {
        let Kept::Indexed(indexed) = &self.kept else {
            return Ok(());
        };
        let limits = &desk.limits;
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
        let small = indexed.shrink(&self.layout, desk)?;
        if small.size().1 <= limits.small_bytes / 4 {
            self.kept = Kept::Small(small);
        }
        Ok(())
    }

    /// A compaction worth doing.
    pub(super) fn compaction(&mut self, table: usize, desk: &Desk, epoch: Epoch) -> Option<Job> {
        if self.restored || !std::mem::take(&mut self.dirty) {
            return None;
        }
        let (files, indexed) = match &self.kept {
            Kept::Appended(files) => (files, false),
            Kept::Indexed(indexed) => (&indexed.files, true),
            Kept::Small(_) => return None,
        };
        let inputs = pick(files, &desk.limits, self.layout.spec.fold.is_some())?;
        let inputs = inputs
            .into_iter()
            .map(|id| (id, files.get(id).expect("picked files are live").clone()))
            .collect();
        self.compacting = true;
        let (layout, lake, names) = (self.layout.clone(), desk.lake.clone(), desk.names.clone());
        Some(Job {
            table,
            epoch,
            layout,
            lake,
            names,
            inputs,
            indexed,
            fold_rows: desk.limits.fold_rows,
        })
    }

    /// Takes a compaction's result, to be settled.
    pub(super) fn begin_settling(&mut self, merged: Merged) -> Option<Settled> {
        let settled = match &mut self.kept {
            Kept::Appended(files) => Some((Some(settle_appended(files, &merged)), merged)),
            Kept::Indexed(indexed) => indexed.begin_settling(merged),
            Kept::Small(_) => Some((None, merged)),
        };
        settled.map(|settled| self.settled(settled))
    }

    /// Moves up to `moves` index entries to a compaction's file; its end, once all have.
    pub(super) fn settle(&mut self, moves: usize) -> Option<Settled> {
        let Kept::Indexed(indexed) = &mut self.kept else {
            return None;
        };
        let settled = indexed.settle(moves)?;
        Some(self.settled(settled))
    }

    fn settled(&mut self, (batch, merged): (Option<Batch>, Merged)) -> Settled {
        (self.compacting, self.dirty) = (false, true);
        if batch.is_some() {
            self.stats.compactions.fetch_add(1, Relaxed);
        }
        self.publish_sizes();
        batch.map_or(Settled::Void(merged), Settled::Done)
    }

    /// Takes rows that others moved for where they are now.
    pub(super) fn relocate(&mut self, relocation: &Relocation, writer: usize) -> Result<(), WriterError> {
        match &mut self.kept {
            // Rewrites of tables without vectors are undone: nothing has moved.
            Kept::Appended(_) => {}
            Kept::Small(small) => small.relocate(relocation, writer),
            Kept::Indexed(indexed) => {
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

    /// The compaction that is not settled, given up.
    pub(super) fn give_up(&mut self) -> Option<Merged> {
        match &mut self.kept {
            Kept::Indexed(indexed) => indexed.give_up(),
            _ => None,
        }
    }

    fn publish_sizes(&self) {
        let (live, files, memory) = match &self.kept {
            Kept::Appended(files) => (files.iter().map(|(_, f)| u64::from(f.live())).sum(), files.len(), 0),
            Kept::Small(small) => (
                small.size().0,
                0,
                small.size().1 as usize + small.size().0 as usize * 48,
            ),
            Kept::Indexed(indexed) => (indexed.index.len(), indexed.files.len(), indexed.index.memory()),
        };
        self.stats.live_rows.store(live, Relaxed);
        self.stats.live_files.store(files as u64, Relaxed);
        self.stats.index_bytes.store(memory as u64, Relaxed);
    }
}

/// By how many rows these changes are others than those `behind`.
fn apart<'a>(changes: impl Iterator<Item = &'a (Row, Diff)>, behind: Vec<(Row, Diff)>) -> u64 {
    let mut rows: Vec<(Row, Diff)> = changes.cloned().collect();
    rows.extend(behind.into_iter().map(|(row, diff)| (row, -diff)));
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    consolidate_sorted(&mut rows);
    rows.iter().map(|(_, diff)| diff.unsigned_abs()).sum()
}

/// New files of an append-only table.
fn append(
    layout: &Layout,
    files: &mut Files,
    desk: &Desk,
    epoch: Epoch,
    minted: Minted,
) -> Result<Written, WriterError> {
    if minted.rows.iter().any(|(_, diff)| *diff < 0) {
        return Err(WriterError::Removal {
            table: layout.spec.name.clone(),
            epoch,
        });
    }
    let names = (&desk.names, epoch);
    let mut written = Written::new(true);
    let rows: Vec<&[u8]> = minted
        .rows
        .iter()
        .flat_map(|(row, n)| std::iter::repeat_n(row.bytes(), *n as usize))
        .collect();
    let mut new: Vec<NewFile> = encode_rows(layout, &rows, names, true, desk.limits.file_rows)?
        .into_iter()
        .map(|(file, _)| file)
        .collect();
    let columns = match &layout.spec.fold {
        Some(fold) if !minted.columns.is_empty() => fold.fold(&minted.columns, desk.limits.fold_rows),
        _ => minted.columns,
    };
    new.append(&mut encode_groups(layout, columns, desk.limits.file_rows, names, true)?);
    for file in new {
        files.insert(FileState::of(&file));
        written.put(file);
    }
    Ok(written)
}
