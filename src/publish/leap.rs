//! All tables of a channel from the snapshots that their topics have to one snapshot, whatever lies between.
//!
//! A table whose version is the same in both has nothing to tell, and is not read. One that its topic has nothing of is sent as
//! it is read; of any other what the topic has is taken in first, see [`Before`].

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::changes::{Changes, PartitionValues, key_schema, project};
use super::difference::Before;
use super::{PublishError, Table};
use crate::repr::Epoch;
use crate::serve::{QueryError, Snapshot};
use crate::sink::{Lake, TableSpec};

/// A snapshot, and what its tables come from.
pub struct Leap {
    now: Snapshot,
    steps: Vec<Step>,
}

/// A table that has changed.
pub struct Step {
    /// Which of the channel's.
    pub table: usize,
    /// What its topic has; none: nothing.
    before: Option<Before>,
}

impl Leap {
    /// To a snapshot, of tables whose topics have these; 0: nothing.
    pub async fn prepare(lake: &Lake, tables: &[Table], bases: &[Epoch], to: Epoch) -> Result<Leap, PublishError> {
        let now = open(lake, tables, to).await.map_err(|source| unready(to, source))?;
        let mut befores: BTreeMap<Epoch, Snapshot> = BTreeMap::new();
        for base in bases.iter().filter(|base| **base > 0) {
            if !befores.contains_key(base) {
                let before = open(lake, tables, *base).await;
                befores.insert(*base, before.map_err(|source| lost(*base, source))?);
            }
        }
        let mut changed: Vec<(usize, Option<&Snapshot>)> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let name = &table.spec.name;
            let before = befores.get(&bases[index]).filter(|before| before.has(name));
            if before.is_some_and(|before| before.versions().get(name) == now.versions().get(name)) {
                continue;
            }
            if now.has(name) {
                // Before anything is read: a table that is rebuilt may take a while.
                let schema = now.schema(name).await.map_err(|source| unready(to, source))?;
                project(&table.spec, &RecordBatch::new_empty(schema), &PartitionValues::new())?;
            }
            changed.push((index, before));
        }
        let mut steps = Vec::with_capacity(changed.len());
        for (table, before) in changed {
            let before = match before {
                Some(before) => Some(taken(&tables[table], before).await?),
                None => None,
            };
            steps.push(Step { table, before });
        }
        Ok(Leap { now, steps })
    }

    /// Its tables.
    pub fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// What is to be told of a table.
    pub async fn told(&self, step: Step, table: &Table) -> Result<Told, PublishError> {
        let rows = match self.now.has(&table.spec.name) {
            true => Some(self.now.stream(&table.spec.name).await),
            false => None,
        };
        Ok(Told {
            epoch: self.now.epoch(),
            rows: rows.transpose().map_err(|source| unready(self.now.epoch(), source))?,
            before: step.before,
            spec: table.spec.clone(),
            key: table.key.clone(),
        })
    }
}

/// What is to be told of a table, as it is read.
pub struct Told {
    epoch: Epoch,
    rows: Option<SendableRecordBatchStream>,
    before: Option<Before>,
    spec: TableSpec,
    key: Vec<usize>,
}

impl Told {
    /// The next part of it: rows that are there, at last keys that are gone.
    pub async fn next(&mut self) -> Result<Option<Changes>, PublishError> {
        if let Some(rows) = &mut self.rows
            && let Some(batch) = rows.next().await
        {
            let batch = batch.map_err(|error| unready(self.epoch, error.into()))?;
            let new = match &mut self.before {
                Some(before) => before.next_new(&batch)?,
                None => project(&self.spec, &batch, &PartitionValues::new())?,
            };
            return Ok(Some(Changes::of_rows(&key_schema(&self.spec, &self.key), new)));
        }
        self.rows = None;
        let gone = self.before.take().map(Before::gone).transpose()?;
        Ok(gone.map(|gone| Changes::of_gone(&self.spec, gone)))
    }
}

/// Exactly this snapshot, with the tables that go to topics.
async fn open(lake: &Lake, tables: &[Table], epoch: Epoch) -> Result<Snapshot, QueryError> {
    let wanted = |name: &str| tables.iter().any(|table| table.spec.name == name);
    let found = Snapshot::open_tables(lake, Some(epoch), wanted).await?;
    match found.epoch() == epoch {
        true => Ok(found),
        false => Err(QueryError::NoSuchSnapshot {
            wanted: epoch,
            oldest: found.epoch(),
            newest: found.epoch(),
        }),
    }
}

/// A table as its topic has it.
async fn taken(table: &Table, before: &Snapshot) -> Result<Before, PublishError> {
    let mut taken = Before::new(&table.spec, &table.key)?;
    let lost = |source| lost(before.epoch(), source);
    let mut rows = before.stream(&table.spec.name).await.map_err(lost)?;
    while let Some(batch) = rows.next().await {
        taken.observe(&batch.map_err(|error| lost(error.into()))?)?;
    }
    Ok(taken)
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
