//! Restores at a restart what each writer knows of its tables, from the tables' live files. Every file is read once,
//! whatever the number of writers; each row goes to the writer that owns it now.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, stream};
use roaring::RoaringBitmap;

use super::WriterConfig;
use super::error::WriterError;
use super::file_store::FileStore;
use super::files::{TableFiles, WriterFile};
use super::hash::{RowHash, owner};
use super::indexed::{IndexedTable, place_rows};
use super::layout::{TableLayout, from_log};
use super::small::SmallTable;
use super::table::RowTracking;
use crate::definition::Deletes;
use crate::repr::{Epoch, Row};
use crate::sink::LiveFile;

/// The number of files that are read concurrently.
const PARALLEL: usize = 4;

/// The state from which one writer starts.
#[derive(Default)]
pub struct LoadedWriter {
    pub(super) tables: HashMap<usize, RowTracking>,
    pub(super) audits: Vec<(usize, Epoch)>,
    pub(super) anew: Vec<usize>,
}

impl LoadedWriter {
    /// Announces that the next seal brings all rows of this table as additions, at epochs up to `upto`: the writer
    /// then writes only what differs from the published rows. (Append-only tables have no audit.)
    pub fn audit_next(&mut self, table: usize, upto: Epoch) {
        self.audits.push((table, upto));
    }

    /// Announces that nothing in this log's files counts any more: the next seal removes these files.
    pub fn start_anew(&mut self, table: usize) {
        self.anew.push(table);
    }
}

/// Reads the live files of tables (indices into the specs) for the writers `local` of `config.writers`, on the
/// runtime's threads. The answer has one entry for each of `local`, with the rows for which [`owner`] returns that
/// writer.
///
/// Files of append-only tables are not read. Each is assigned to one of the local writers, for compaction; so with
/// several processes, each process passes only its share of these files.
pub fn restore(
    config: &WriterConfig,
    local: Range<usize>,
    tables: Vec<(usize, Vec<LiveFile>)>,
) -> Result<Vec<LoadedWriter>, WriterError> {
    let store = config.file_store();
    let mut restored: Vec<LoadedWriter> = local.clone().map(|_| LoadedWriter::default()).collect();
    for (table, files) in tables {
        let layout = Arc::new(TableLayout::new(config.specs[table].clone())?);
        let trackings = if layout.spec.append_only {
            load_appended(&layout, local.len(), files)?
        } else {
            load_rows(config, &store, &layout, local.clone(), files)?
        };
        for (writer, tracking) in restored.iter_mut().zip(trackings) {
            writer.tables.insert(table, tracking);
        }
    }
    Ok(restored)
}

pub(super) fn state(layout: &TableLayout, file: LiveFile) -> Result<WriterFile, WriterError> {
    let physical = from_log(&file.path).ok_or_else(|| WriterError::Path {
        table: layout.spec.name.clone(),
        path: file.path.clone(),
    })?;
    Ok(WriterFile {
        physical: format!("{}/{physical}", layout.spec.path),
        path: file.path,
        values: Arc::new(file.partition_values),
        rows: file.rows as u32,
        bytes: file.size,
        excluded: file.deleted.iter().map(|p| p as u32).collect(),
        shared: false,
    })
}

fn load_appended(layout: &TableLayout, writers: usize, files: Vec<LiveFile>) -> Result<Vec<RowTracking>, WriterError> {
    let mut files_of: Vec<TableFiles> = (0..writers).map(|_| TableFiles::default()).collect();
    for (i, file) in files.into_iter().enumerate() {
        files_of[i % writers].insert(state(layout, file)?);
    }
    Ok(files_of.into_iter().map(RowTracking::Appended).collect())
}

/// One writer's rows of one file: positions and hashes, and also the rows themselves while they are few.
#[derive(Default)]
struct Share {
    hashes: Vec<(u32, RowHash)>,
    rows: Vec<Row>,
}

struct Gathered {
    files: TableFiles,
    shares: Vec<(u32, Share)>,
    rows: u64,
    bytes: u64,
    small: bool,
}

fn load_rows(
    config: &WriterConfig,
    store: &Arc<FileStore>,
    layout: &Arc<TableLayout>,
    local: Range<usize>,
    files: Vec<LiveFile>,
) -> Result<Vec<RowTracking>, WriterError> {
    let limits = &config.limits;
    let vectors = layout.spec.deletes == Deletes::Vectors;
    let rewrite = layout.spec.deletes == Deletes::Rewrite;
    let mut gathered: Vec<(IndexedTable, Gathered)> = local
        .clone()
        .map(|_| {
            let gathered = Gathered {
                files: TableFiles::default(),
                shares: Vec::new(),
                rows: 0,
                bytes: 0,
                small: !vectors,
            };
            (IndexedTable::new(rewrite), gathered)
        })
        .collect();
    let few = if vectors { 0 } else { limits.small_rows as usize };
    let mut reads = stream::iter(files)
        .map(|file| {
            let (store, layout, writers) = (store.clone(), layout.clone(), config.writers);
            let task = tokio::task::spawn_blocking(move || read_file(&store, &layout, writers, few, file));
            async {
                task.await.map_err(|_| WriterError::Task {
                    task: "reading live files",
                })?
            }
        })
        .buffered(PARALLEL);
    let _runtime = config.runtime.enter();
    while let Some(read) = config.runtime.block_on(reads.next()) {
        let (file, live, mut shares) = read?;
        for ((indexed, all), writer) in gathered.iter_mut().zip(local.clone()) {
            let mut share = std::mem::take(&mut shares[writer]);
            if share.hashes.is_empty() {
                continue;
            }
            let mut mine = file.clone();
            let own: RoaringBitmap = share.hashes.iter().map(|(position, _)| *position).collect();
            mine.shared = share.hashes.len() as u64 != live;
            mine.excluded = (0..file.rows).filter(|p| !own.contains(*p)).collect();
            let id = all.files.insert(mine);
            share
                .hashes
                .iter()
                .for_each(|(position, hash)| indexed.index.insert(*hash, (id, *position)));
            all.rows += share.hashes.len() as u64;
            all.bytes += share.rows.iter().map(|row| row.bytes().len() as u64).sum::<u64>();
            all.small &= all.rows <= limits.small_rows && all.bytes <= limits.small_bytes;
            if all.small {
                share.hashes = Vec::new();
                all.shares.push((id, share));
            } else {
                all.shares = Vec::new();
            }
        }
    }
    gathered
        .into_iter()
        .map(|(indexed, all)| keep(layout, indexed, all))
        .collect()
}

fn keep(layout: &TableLayout, mut indexed: IndexedTable, all: Gathered) -> Result<RowTracking, WriterError> {
    if !all.small {
        indexed.files = all.files;
        return Ok(RowTracking::Indexed(Box::new(indexed)));
    }
    let mut small = SmallTable::default();
    for (id, share) in all.shares {
        let file = all.files.get(id).expect("a share is of a file");
        let positions = (0..file.rows).filter(|p| !file.excluded.contains(*p)).collect();
        place_rows(&mut small, layout, file, share.rows, positions)?;
    }
    Ok(RowTracking::Small(small))
}

/// Reads one file: returns the file, its number of live rows, and each writer's share.
fn read_file(
    store: &FileStore,
    layout: &TableLayout,
    writers: usize,
    few: usize,
    file: LiveFile,
) -> Result<(WriterFile, u64, Vec<Share>), WriterError> {
    let mut file = state(layout, file)?;
    let mut shares: Vec<Share> = (0..writers).map(|_| Share::default()).collect();
    let mut live = 0;
    let excluded = &file.excluded;
    // The reader asks for every position, so the highest one gives the number of rows.
    let highest = std::cell::Cell::new(0u32);
    let wanted = |position: u32| {
        highest.set(highest.get().max(position + 1));
        !excluded.contains(position)
    };
    file.read(layout, store, wanted, |position, row| {
        live += 1;
        let share = &mut shares[owner(row, writers)];
        share.hashes.push((position, RowHash::of_row(row)));
        if share.hashes.len() <= few {
            share.rows.push(Row::new(row));
        }
    })?;
    file.rows = highest.get();
    Ok((file, live, shares))
}
