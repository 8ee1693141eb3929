//! A table of which this writer has few rows: they stay in memory, and each change rewrites the changed partitions, as
//! one file each. It has no index and no deletion vectors.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;

use super::error::WriterError;
use super::file::encode_rows;
use super::layout::TableLayout;
use super::table::{TableEdit, WriterContext, WrittenBatch};
use crate::repr::{Diff, Epoch, Row};
use crate::sink::{Relocation, TableBatch};

/// The rows in memory, by partition.
#[derive(Default)]
pub(super) struct SmallTable {
    parts: BTreeMap<Row, Part>,
    rows: u64,
    bytes: u64,
}

#[derive(Default)]
struct Part {
    rows: BTreeMap<Row, u64>,
    places: Vec<PublishedFile>,
}

/// Where the rows of a partition are published.
pub(super) enum PublishedFile {
    /// A file that holds only these rows.
    Whole(String),
    /// Positions in a file of which other writers own rows too.
    Shared(String, RoaringTreemap),
}

impl SmallTable {
    /// The number of rows, counted with their multiplicities, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.rows, self.bytes)
    }

    /// Adds a published row that was loaded.
    pub(super) fn insert(&mut self, partition: &Row, row: Row) {
        self.rows += 1;
        self.bytes += row.bytes().len() as u64;
        *self
            .parts
            .entry(partition.clone())
            .or_default()
            .rows
            .entry(row)
            .or_default() += 1;
    }

    /// Adds a file in which rows of a partition are published.
    pub(super) fn place(&mut self, partition: &Row, place: PublishedFile) {
        self.parts.entry(partition.clone()).or_default().places.push(place);
    }

    /// The changes that turn the published rows into the desired ones.
    pub(super) fn difference(&self, desired: Vec<(Row, Diff)>) -> Vec<(Row, Diff)> {
        let mut changes = desired;
        for part in self.parts.values() {
            changes.extend(part.rows.iter().map(|(row, count)| (row.clone(), -(*count as Diff))));
        }
        changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        super::mint::consolidate_sorted(&mut changes);
        changes
    }

    /// The size (rows, bytes) after these changes.
    pub(super) fn size_after(&self, changes: &[(Row, Diff)]) -> (u64, u64) {
        let (mut rows, mut bytes) = (self.rows as i64, self.bytes as i64);
        for (row, diff) in changes {
            rows += diff;
            bytes += diff * row.bytes().len() as i64;
        }
        (rows.max(0) as u64, bytes.max(0) as u64)
    }

    /// Applies changes to the rows in memory; returns the partitions that changed.
    fn update(&mut self, layout: &TableLayout, epoch: Epoch, changes: &[(Row, Diff)]) -> Result<Vec<Row>, WriterError> {
        let rows: Vec<&[u8]> = changes.iter().map(|(row, _)| row.bytes()).collect();
        let (mut touched, mut missing) = (Vec::new(), 0);
        let mut first: Option<&Row> = None;
        (self.rows, self.bytes) = self.size_after(changes);
        if changes.is_empty() {
            return Ok(touched);
        }
        for group in layout.group_rows(&rows)? {
            let part = self.parts.entry(group.key.clone()).or_default();
            for number in group.rows {
                let (row, diff) = &changes[number as usize];
                let count = part.rows.get(row).copied().unwrap_or(0) as Diff;
                match count + diff {
                    left if left < 0 => {
                        missing += left.unsigned_abs();
                        first = first.or(Some(row));
                    }
                    0 => drop(part.rows.remove(row)),
                    left => drop(part.rows.insert(row.clone(), left as u64)),
                }
            }
            touched.push(group.key);
        }
        if let Some(first) = first {
            return Err(WriterError::UnknownRow {
                table: layout.spec.name.clone(),
                epoch,
                missing,
                row: layout.shown(first),
            });
        }
        Ok(touched)
    }

    /// Publishes changes. With `rehome`, rows in files shared with other writers move to files of this writer.
    pub(super) fn apply(
        &mut self,
        layout: &TableLayout,
        context: &WriterContext,
        epoch: Epoch,
        changes: &[(Row, Diff)],
        rehome: bool,
    ) -> Result<WrittenBatch, WriterError> {
        let mut touched = self.update(layout, epoch, changes)?;
        if rehome {
            let shares = |part: &Part| {
                part.places
                    .iter()
                    .any(|place| matches!(place, PublishedFile::Shared(..)))
            };
            touched.extend(
                self.parts
                    .iter()
                    .filter(|(_, part)| shares(part))
                    .map(|(key, _)| key.clone()),
            );
            touched.sort_unstable();
            touched.dedup();
        }
        let data_change = !changes.is_empty();
        let mut written = WrittenBatch::new(data_change);
        for key in touched {
            let part = self.parts.get_mut(&key).expect("touched partitions exist");
            vacate(std::mem::take(&mut part.places), &mut written.batch);
            let rows: Vec<&[u8]> = part
                .rows
                .iter()
                .flat_map(|(row, n)| std::iter::repeat_n(row.bytes(), *n as usize))
                .collect();
            for (file, _) in encode_rows(
                layout,
                &rows,
                (&context.names, epoch),
                data_change,
                context.limits.file_rows,
            )? {
                part.places.push(PublishedFile::Whole(file.add.path.clone()));
                written.put(file);
            }
            if part.rows.is_empty() {
                self.parts.remove(&key);
            }
        }
        Ok(written)
    }

    /// Notes the new places of rows that another writer moved.
    pub(super) fn relocate(&mut self, relocation: &Relocation, writer: usize) {
        for part in self.parts.values_mut() {
            let mut moved: BTreeMap<u32, RoaringTreemap> = BTreeMap::new();
            part.places.retain(|place| {
                let (path, positions) = match place {
                    PublishedFile::Whole(path) => (path, None),
                    PublishedFile::Shared(path, positions) => (path, Some(positions)),
                };
                let Some(rows) = relocation.rows_of(path) else {
                    return true;
                };
                let mine = rows
                    .iter()
                    .filter(|row| row.owner as usize == writer)
                    .filter(|row| positions.is_none_or(|mine| mine.contains(u64::from(row.position))));
                for row in mine {
                    moved.entry(row.file).or_default().insert(u64::from(row.to));
                }
                false
            });
            for (file, positions) in moved {
                let path = relocation.came[file as usize].path.clone();
                part.places.push(PublishedFile::Shared(path, positions));
            }
        }
    }

    /// Gives up keeping rows in memory: applies changes, and returns all rows as rows to write, and a batch that
    /// removes them from their files.
    pub(super) fn dissolve(
        mut self,
        layout: &TableLayout,
        epoch: Epoch,
        changes: &[(Row, Diff)],
    ) -> Result<(TableEdit, TableBatch), WriterError> {
        self.update(layout, epoch, changes)?;
        let mut batch = TableBatch::default();
        let mut edit = TableEdit::default();
        for part in self.parts.into_values() {
            vacate(part.places, &mut batch);
            edit.moved.extend(part.rows);
        }
        Ok((edit, batch))
    }
}

fn vacate(places: Vec<PublishedFile>, batch: &mut TableBatch) {
    for place in places {
        match place {
            PublishedFile::Whole(path) => batch.removes.push(path),
            PublishedFile::Shared(path, positions) => batch.deletes.push((path, positions)),
        }
    }
}
