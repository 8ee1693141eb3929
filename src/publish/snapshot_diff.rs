//! Computes the difference of all tables of a channel, from the snapshots that their topics have to one snapshot.
//!
//! A table with the same version in both snapshots is not read. A table of which its topic has nothing is sent as it
//! is read; for any other, the rows that the topic has are read first, see [`TableBefore`].

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::changes::{PartitionValues, PublishedChanges, key_schema, project};
use super::difference::TableBefore;
use super::{ChannelTable, PublishError};
use crate::lake::Lake;
use crate::repr::Epoch;
use crate::serve::{LakeSnapshot, QueryError};
use crate::sink::TableSpec;

/// The difference to a snapshot.
pub struct SnapshotDiff {
    now: LakeSnapshot,
    steps: Vec<ChangedTable>,
}

/// A table that has changed between the snapshots.
pub struct ChangedTable {
    /// The table's index in the channel.
    pub table: usize,
    /// The rows that its topic has; none if it has nothing.
    before: Option<TableBefore>,
}

impl SnapshotDiff {
    /// Prepares the difference to snapshot `to`, for tables whose topics have the snapshots `bases` (0: none).
    pub async fn prepare(
        lake: &Lake,
        tables: &[ChannelTable],
        bases: &[Epoch],
        to: Epoch,
    ) -> Result<SnapshotDiff, PublishError> {
        let now = open(lake, tables, to).await.map_err(|source| unready(to, source))?;
        let mut befores: BTreeMap<Epoch, LakeSnapshot> = BTreeMap::new();
        for base in bases.iter().filter(|base| **base > 0) {
            if !befores.contains_key(base) {
                let before = open(lake, tables, *base).await;
                befores.insert(*base, before.map_err(|source| lost(*base, source))?);
            }
        }
        let mut changed: Vec<(usize, Option<&LakeSnapshot>)> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let name = &table.spec.name;
            let before = befores.get(&bases[index]).filter(|before| before.has(name));
            if before.is_some_and(|before| before.versions().get(name) == now.versions().get(name)) {
                continue;
            }
            if now.has(name) {
                // This is checked before any rows are read, because a table that is being rebuilt may stay unfit for a
                // while.
                let schema = now.schema(name).await.map_err(|source| unready(to, source))?;
                project(&table.spec, &RecordBatch::new_empty(schema), &PartitionValues::new())?;
            }
            changed.push((index, before));
        }
        let mut steps = Vec::with_capacity(changed.len());
        for (table, before) in changed {
            let before = match before {
                Some(before) => Some(read_before(&tables[table], before).await?),
                None => None,
            };
            steps.push(ChangedTable { table, before });
        }
        Ok(SnapshotDiff { now, steps })
    }

    /// Takes the changed tables out.
    pub fn take_steps(&mut self) -> Vec<ChangedTable> {
        std::mem::take(&mut self.steps)
    }

    /// Opens the changes of one table.
    pub async fn rows_of(&self, step: ChangedTable, table: &ChannelTable) -> Result<ChangedTableRows, PublishError> {
        let rows = match self.now.has(&table.spec.name) {
            true => Some(self.now.stream(&table.spec.name).await),
            false => None,
        };
        Ok(ChangedTableRows {
            epoch: self.now.epoch(),
            rows: rows.transpose().map_err(|source| unready(self.now.epoch(), source))?,
            before: step.before,
            spec: table.spec.clone(),
            key: table.key.clone(),
        })
    }
}

/// The changes of a table, computed while it is read.
pub struct ChangedTableRows {
    epoch: Epoch,
    rows: Option<SendableRecordBatchStream>,
    before: Option<TableBefore>,
    spec: TableSpec,
    key: Vec<usize>,
}

impl ChangedTableRows {
    /// The next part of the changes: first rows that exist now, at the end keys that are gone.
    pub async fn next(&mut self) -> Result<Option<PublishedChanges>, PublishError> {
        if let Some(rows) = &mut self.rows
            && let Some(batch) = rows.next().await
        {
            let batch = batch.map_err(|error| unready(self.epoch, error.into()))?;
            let new = match &mut self.before {
                Some(before) => before.next_new(&batch)?,
                None => project(&self.spec, &batch, &PartitionValues::new())?,
            };
            return Ok(Some(PublishedChanges::of_rows(&key_schema(&self.spec, &self.key), new)));
        }
        self.rows = None;
        let removed_keys = self.before.take().map(TableBefore::gone).transpose()?;
        Ok(removed_keys.map(|removed_keys| PublishedChanges::of_gone(&self.spec, removed_keys)))
    }
}

/// Opens exactly this snapshot, with the published tables.
async fn open(lake: &Lake, tables: &[ChannelTable], epoch: Epoch) -> Result<LakeSnapshot, QueryError> {
    let wanted = |name: &str| tables.iter().any(|table| table.spec.name == name);
    let snapshot = LakeSnapshot::open_tables(lake, Some(epoch), wanted).await?;
    match snapshot.epoch() == epoch {
        true => Ok(snapshot),
        false => Err(QueryError::NoSuchSnapshot {
            wanted: epoch,
            oldest: snapshot.epoch(),
            newest: snapshot.epoch(),
        }),
    }
}

/// Reads the rows of a table that its topic has.
async fn read_before(table: &ChannelTable, before: &LakeSnapshot) -> Result<TableBefore, PublishError> {
    let mut before_rows = TableBefore::new(&table.spec, &table.key)?;
    let lost = |source| lost(before.epoch(), source);
    let mut rows = before.stream(&table.spec.name).await.map_err(lost)?;
    while let Some(batch) = rows.next().await {
        before_rows.observe(&batch.map_err(|error| lost(error.into()))?)?;
    }
    Ok(before_rows)
}

fn lost(epoch: Epoch, source: QueryError) -> PublishError {
    PublishError::Lost {
        epoch,
        source: Box::new(source),
    }
}

fn unready(epoch: Epoch, source: QueryError) -> PublishError {
    PublishError::Newest {
        epoch,
        source: Box::new(source),
    }
}
