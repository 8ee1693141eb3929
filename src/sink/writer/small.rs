//! A table of which this writer has few rows: they stay in memory, and each change writes the
//! changed partitions anew as one file each. No index, no deletion vectors.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;

use super::error::WriterError;
use super::file::encode_rows;
use super::layout::Layout;
use super::table::{Desk, Edit, Written};
use crate::repr::{Diff, Epoch, Row};
use crate::sink::{Batch, Relocation};

/// The rows, by partition.
#[derive(Default)]
pub(super) struct Small {
    parts: BTreeMap<Row, Part>,
    rows: u64,
    bytes: u64,
}

#[derive(Default)]
struct Part {
    rows: BTreeMap<Row, u64>,
    places: Vec<Place>,
}

/// Where a part's rows are published.
pub(super) enum Place {
    /// A file that holds nothing else.
    Whole(String),
    /// Rows of a file that other writers own rows of.
    Shared(String, RoaringTreemap),
}

impl Small {
    /// Rows, duplicates counted, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.rows, self.bytes)
    }

    /// A published row, as loaded.
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

    /// Where rows of a partition are published, as loaded.
    pub(super) fn place(&mut self, partition: &Row, place: Place) {
        self.parts.entry(partition.clone()).or_default().places.push(place);
    }

    /// What turns the published rows into the desired ones.
    pub(super) fn difference(&self, desired: Vec<(Row, Diff)>) -> Vec<(Row, Diff)> {
        let mut changes = desired;
        for part in self.parts.values() {
            changes.extend(part.rows.iter().map(|(row, count)| (row.clone(), -(*count as Diff))));
        }
        changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        super::mint::consolidate_sorted(&mut changes);
        changes
    }

    /// The size after these changes.
    pub(super) fn size_after(&self, changes: &[(Row, Diff)]) -> (u64, u64) {
        let (mut rows, mut bytes) = (self.rows as i64, self.bytes as i64);
        for (row, diff) in changes {
            rows += diff;
            bytes += diff * row.bytes().len() as i64;
        }
        (rows.max(0) as u64, bytes.max(0) as u64)
    }

    /// Applies changes to the rows in memory; the partitions that changed.
    fn update(&mut self, layout: &Layout, epoch: Epoch, changes: &[(Row, Diff)]) -> Result<Vec<Row>, WriterError> {
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
                let held = part.rows.get(row).copied().unwrap_or(0) as Diff;
                match held + diff {
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

    /// Publishes changes. With `rehome`, also what lies in files of other writers moves to own ones.
    pub(super) fn apply(
        &mut self,
        layout: &Layout,
        desk: &Desk,
        epoch: Epoch,
        changes: &[(Row, Diff)],
        rehome: bool,
    ) -> Result<Written, WriterError> {
        let mut touched = self.update(layout, epoch, changes)?;
        if rehome {
            let shares = |part: &Part| part.places.iter().any(|place| matches!(place, Place::Shared(..)));
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
        let mut written = Written::new(data_change);
        for key in touched {
            let part = self.parts.get_mut(&key).expect("touched partitions exist");
            vacate(std::mem::take(&mut part.places), &mut written.batch);
            let rows: Vec<&[u8]> = part
                .rows
                .iter()
                .flat_map(|(row, n)| std::iter::repeat_n(row.bytes(), *n as usize))
                .collect();
            for (file, _) in encode_rows(layout, &rows, (&desk.names, epoch), data_change, desk.limits.file_rows)? {
                part.places.push(Place::Whole(file.add.path.clone()));
                written.put(file);
            }
            if part.rows.is_empty() {
                self.parts.remove(&key);
            }
        }
        Ok(written)
    }

    /// Rows that others moved are published where they are now.
    pub(super) fn relocate(&mut self, relocation: &Relocation, writer: usize) {
        for part in self.parts.values_mut() {
            let mut moved: BTreeMap<u32, RoaringTreemap> = BTreeMap::new();
            part.places.retain(|place| {
                let (path, positions) = match place {
                    Place::Whole(path) => (path, None),
                    Place::Shared(path, positions) => (path, Some(positions)),
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
                part.places.push(Place::Shared(path, positions));
            }
        }
    }

    /// Gives up: applies changes in memory, and hands out all rows, to be written, and what is to be vacated.
    pub(super) fn dissolve(
        mut self,
        layout: &Layout,
        epoch: Epoch,
        changes: &[(Row, Diff)],
    ) -> Result<(Edit, Batch), WriterError> {
        self.update(layout, epoch, changes)?;
        let mut batch = Batch::default();
        let mut edit = Edit::default();
        for part in self.parts.into_values() {
            vacate(part.places, &mut batch);
            edit.moved.extend(part.rows);
        }
        Ok((edit, batch))
    }
}

fn vacate(places: Vec<Place>, batch: &mut Batch) {
    for place in places {
        match place {
            Place::Whole(path) => batch.removes.push(path),
            Place::Shared(path, positions) => batch.deletes.push((path, positions)),
        }
    }
}
