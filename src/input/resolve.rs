//! Recomputes the current rows of an input in batch from all its changes, an epoch at a time: for `verify`, and as the
//! oracle of the operator's tests. It shares nothing with the operator but the definition of a change.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};

use super::change::Arrival;
use super::ingest::{ArrivedRecords, arrivals};
use crate::decode::ChangeOp;
use crate::definition::{Input, Retention};
use crate::repr::{CodecError, Epoch, Row, RowCodec};

/// Resolves the changes of an input to its rows. Epochs must ascend; within an epoch, changes may come in any order.
/// It holds the rows, and the changes of one epoch.
pub struct Resolver<'a> {
    input: &'a Input,
    rows: RowCodec,
    /// The epoch whose changes are being gathered.
    epoch: Epoch,
    changes: Vec<ArrivedChange>,
    resolved: Resolved,
}

/// The result of the changes of all earlier epochs.
enum Resolved {
    /// The newest version of each key.
    Newest(HashMap<Row, KeyVersion>),
    /// The first row of each `dedup_key`.
    First(HashMap<Row, (Row, Option<i64>)>),
    /// The multiplicity of each row.
    Counted(HashMap<Row, usize>),
    /// All rows: in full batches, and the last ones not yet in a batch.
    All(Vec<RecordBatch>, Vec<Row>),
}

/// The most rows of a batch that is returned, and about its most bytes.
const BATCH: usize = 8192;
const BATCH_BYTES: usize = 16 << 20;

struct ArrivedChange {
    arrival: Arrival,
    op: ChangeOp,
    key: Row,
    /// The `order_by` columns; none for a deletion without a value in any of them.
    order: Option<Row>,
    /// The value of the retention's column, in Unix microseconds.
    moment: Option<i64>,
    /// Columns whose values the source left out.
    unchanged: Vec<usize>,
    row: Row,
}

impl<'a> Resolver<'a> {
    /// A resolver for an input.
    pub fn new(input: &'a Input) -> Result<Self, CodecError> {
        let resolved = if !input.key.is_empty() {
            Resolved::Newest(HashMap::new())
        } else if !input.dedup_key.is_empty() {
            Resolved::First(HashMap::new())
        } else if super::retracts(input) {
            Resolved::Counted(HashMap::new())
        } else {
            Resolved::All(vec![], vec![])
        };
        Ok(Resolver {
            input,
            rows: RowCodec::new(input.schema())?,
            epoch: Epoch::MIN,
            changes: vec![],
            resolved,
        })
    }

    /// Takes the changes of some records.
    pub fn add(&mut self, arrived: ArrivedRecords<'_>) -> Result<(), CodecError> {
        debug_assert!(arrived.epoch >= self.epoch, "epochs ascend");
        if arrived.epoch > self.epoch {
            self.resolve()?;
            self.epoch = arrived.epoch;
        }
        let batch = &arrived.decoded.rows;
        let key = if self.input.key.is_empty() {
            &self.input.dedup_key
        } else {
            &self.input.key
        };
        let rows = self.rows.encode_rows(batch.columns(), batch.num_rows())?;
        let keys = self.select(batch, key)?;
        let orders = self.select(batch, &self.input.order_by)?;
        let positions = self.input.positions(&self.input.order_by);
        let moments = match &self.input.retention {
            Some(retention) => moments(self.input, retention, batch),
            None => vec![None; rows.len()],
        };
        for (index, (arrival, row)) in arrivals(arrived).zip(rows).enumerate() {
            let op = arrived.decoded.ops[index];
            let moment = moments[index];
            if op == ChangeOp::Upsert && !self.term().keeps(moment, arrival.epoch) {
                continue; // The record came too late, and was refused.
            }
            let unordered = !positions.is_empty() && positions.iter().all(|i| batch.column(*i).is_null(index));
            self.changes.push(ArrivedChange {
                arrival,
                op,
                key: keys[index].clone(),
                order: (op == ChangeOp::Upsert || !unordered).then(|| orders[index].clone()),
                moment,
                unchanged: arrived
                    .decoded
                    .unchanged
                    .iter()
                    .filter(|(row, _)| *row as usize == index)
                    .map(|(_, column)| *column as usize)
                    .collect(),
                row,
            });
        }
        Ok(())
    }

    /// The rows after all changes; with `now`, without those that retention has expired by then.
    pub fn finish(mut self, now: Option<Epoch>) -> Result<Vec<RecordBatch>, CodecError> {
        self.resolve()?;
        let term = self.term();
        let (mut batches, rows): (_, Box<dyn Iterator<Item = Row>>) = match self.resolved {
            Resolved::Newest(current) => {
                let rows = current.into_values().filter_map(|(_, row)| row);
                (vec![], Box::new(rows.map(|(row, _)| row)))
            }
            Resolved::First(rows) => (vec![], Box::new(rows.into_values().map(|(row, _)| row))),
            Resolved::Counted(counts) => {
                let rows = counts.into_iter();
                (
                    vec![],
                    Box::new(rows.flat_map(|(row, count)| std::iter::repeat_n(row, count))),
                )
            }
            Resolved::All(batches, rows) => (batches, Box::new(rows.into_iter())),
        };
        // The rows are taken one by one, so that each is freed when its batch is built.
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            let (mut some, mut bytes) = (vec![], 0);
            while let Some(row) = rows.next_if(|_| some.len() < BATCH && bytes < BATCH_BYTES) {
                bytes += row.bytes().len();
                some.push(row);
            }
            batches.push(self.rows.decode(some.iter().map(Row::bytes))?);
        }
        if let (Some(retention), Some(now)) = (&self.input.retention, now) {
            for batch in &mut batches {
                let moments = moments(self.input, retention, batch).into_iter();
                let mask = moments.map(|moment| Some(term.keeps(moment, now))).collect();
                *batch = filter_record_batch(batch, &mask).expect("the mask was made from the batch");
            }
        }
        Ok(batches)
    }

    /// Resolves the gathered changes of the epoch.
    fn resolve(&mut self) -> Result<(), CodecError> {
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort_by_key(|change| change.arrival);
        let term = self.term();
        let mut resolved = std::mem::replace(&mut self.resolved, Resolved::All(vec![], vec![]));
        match &mut resolved {
            Resolved::Newest(current) => self.newest(current, changes, term)?,
            Resolved::First(rows) => keep_first(rows, changes, term),
            Resolved::Counted(counts) => count_rows(counts, changes),
            Resolved::All(batches, rows) => {
                let mut bytes: usize = rows.iter().map(|row| row.bytes().len()).sum();
                for change in changes.into_iter().filter(|change| change.op == ChangeOp::Upsert) {
                    bytes += change.row.bytes().len();
                    rows.push(change.row);
                    if rows.len() == BATCH || bytes > BATCH_BYTES {
                        batches.push(self.rows.decode(rows.iter().map(Row::bytes))?);
                        rows.clear();
                        bytes = 0;
                    }
                }
            }
        }
        self.resolved = resolved;
        Ok(())
    }

    fn newest(
        &self,
        current: &mut HashMap<Row, KeyVersion>,
        changes: Vec<ArrivedChange>,
        term: RetentionTime,
    ) -> Result<(), CodecError> {
        // Rows to whose key an update has moved another row, by key. The next deletion there is of such a row, and a
        // transaction that ends has deleted them all.
        let mut covered: HashMap<Row, usize> = HashMap::new();
        for change in changes {
            if change.op == ChangeOp::Truncate {
                current.clear();
                continue;
            }
            let moves = self.input.feeds[usize::from(change.arrival.feed)]
                .kind
                .contract()
                .moves_rows();
            if change.op == ChangeOp::Delete
                && moves
                && let Some(rows) = covered.get_mut(&change.key).filter(|rows| **rows > 0)
            {
                *rows -= 1;
                continue;
            }
            let now = change.arrival.epoch;
            let existing = current.get(&change.key).filter(|((_, _, arrival), row)| match row {
                Some((_, moment)) => term.keeps(*moment, now),
                None => term.remembers(arrival.epoch, now),
            });
            let order = match (change.order, existing) {
                (Some(order), _) => order,
                (None, Some(((order, _, _), _))) => {
                    let version = (order.clone(), change.arrival.feed, change.arrival);
                    current.insert(change.key, (version, None));
                    continue;
                }
                (None, None) => continue, // The key has no state, and this deletion has no version of its own.
            };
            let version = (order, change.arrival.feed, change.arrival);
            if existing.is_none_or(|(newest, _)| *newest < version) {
                let before = existing.and_then(|(_, row)| row.clone());
                if moves && change.op == ChangeOp::Upsert && change.arrival.sub > 0 && before.is_some() {
                    *covered.entry(change.key.clone()).or_default() += 1;
                }
                let row = match change.op {
                    ChangeOp::Upsert => Some(self.complete(change.row, change.moment, &change.unchanged, before)?),
                    _ => None,
                };
                current.insert(change.key, (version, row));
            }
        }
        Ok(())
    }

    /// Completes a row with the values that its change left out, from the row before it.
    fn complete(
        &self,
        row: Row,
        moment: Option<i64>,
        unchanged: &[usize],
        before: Option<(Row, Option<i64>)>,
    ) -> Result<(Row, Option<i64>), CodecError> {
        let (Some((old, old_moment)), false) = (before, unchanged.is_empty()) else {
            return Ok((row, moment));
        };
        let (old, new) = (self.rows.decode([old.bytes()])?, self.rows.decode([row.bytes()])?);
        let mut columns = new.columns().to_vec();
        for column in unchanged {
            columns[*column] = old.column(*column).clone();
        }
        let retained = self.input.retention.as_ref().is_some_and(|retention| {
            unchanged.contains(&self.input.positions(std::slice::from_ref(&retention.column))[0])
        });
        let mut complete = self.rows.encode_rows(&columns, 1)?;
        let complete = complete.pop().expect("one row was encoded");
        Ok((complete, if retained { old_moment } else { moment }))
    }

    fn term(&self) -> RetentionTime {
        let retention = self.input.retention.as_ref();
        RetentionTime(retention.map(|retention| retention.keep.as_micros() as i64))
    }

    fn select(&self, batch: &RecordBatch, names: &[String]) -> Result<Vec<Row>, CodecError> {
        let positions = self.input.positions(names);
        let schema = self
            .input
            .schema()
            .project(&positions)
            .expect("positions are of the schema");
        let columns: Vec<_> = positions.iter().map(|i| batch.column(*i).clone()).collect();
        RowCodec::new(schema.into())?.encode_rows(&columns, batch.num_rows())
    }
}

/// The retention time of rows and tombstones, in microseconds; none: for ever.
#[derive(Clone, Copy)]
struct RetentionTime(Option<i64>);

impl RetentionTime {
    /// Whether a row with this moment still exists at an epoch; a row without a moment always does.
    fn keeps(self, moment: Option<i64>, epoch: Epoch) -> bool {
        let (Some(keep), Some(moment)) = (self.0, moment) else {
            return true;
        };
        moment.saturating_add(keep) > (epoch as i64).saturating_mul(1000)
    }

    /// Whether a tombstone that arrived at `deleted_at` is still remembered at an epoch.
    fn remembers(self, deleted_at: Epoch, epoch: Epoch) -> bool {
        self.0
            .is_none_or(|keep| deleted_at.saturating_add(keep as u64 / 1000) >= epoch)
    }
}

/// The values of the retention's column, in Unix microseconds.
fn moments(input: &Input, retention: &Retention, rows: &RecordBatch) -> Vec<Option<i64>> {
    let column = input.positions(std::slice::from_ref(&retention.column))[0];
    let micros = cast(rows.column(column), &DataType::Timestamp(TimeUnit::Microsecond, None))
        .expect("retention is by a DATE or TIMESTAMP column");
    micros.as_primitive::<TimestampMicrosecondType>().iter().collect()
}

/// The `order_by` columns, the feed, and the arrival.
type Version = (Row, u16, Arrival);

/// A key's version, and its row with the row's moment; the row is none if the key is deleted.
type KeyVersion = (Version, Option<(Row, Option<i64>)>);

fn keep_first(rows: &mut HashMap<Row, (Row, Option<i64>)>, changes: Vec<ArrivedChange>, term: RetentionTime) {
    for change in changes {
        match change.op {
            ChangeOp::Upsert => {
                let now = change.arrival.epoch;
                if rows
                    .get(&change.key)
                    .is_none_or(|(_, moment)| !term.keeps(*moment, now))
                {
                    rows.insert(change.key, (change.row, change.moment));
                }
            }
            ChangeOp::Delete => {}
            ChangeOp::Truncate => rows.clear(),
        }
    }
}

fn count_rows(counts: &mut HashMap<Row, usize>, changes: Vec<ArrivedChange>) {
    for change in changes {
        match change.op {
            ChangeOp::Upsert => *counts.entry(change.row).or_default() += 1,
            ChangeOp::Delete => {
                if let Some(count) = counts.get_mut(&change.row) {
                    *count = count.saturating_sub(1);
                }
            }
            ChangeOp::Truncate => counts.clear(),
        }
    }
}
