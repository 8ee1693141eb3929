//! The current rows of an input, recomputed in batch from all its changes: what `verify` compares with, and
//! the oracle of the operator's tests. Shares nothing with the operator but what a change is.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};

use super::change::Arrival;
use super::ingest::{Arrived, arrivals};
use crate::decode::Op;
use crate::definition::Input;
use crate::repr::{CodecError, Epoch, Row, RowCodec};

/// Gathers the changes of an input, in any order, and resolves them to its rows.
pub struct Resolver<'a> {
    input: &'a Input,
    rows: RowCodec,
    changes: Vec<Recorded>,
}

struct Recorded {
    arrival: Arrival,
    op: Op,
    key: Row,
    /// The `order_by` columns; none: a deletion that has no value in any of them.
    order: Option<Row>,
    row: Row,
}

impl<'a> Resolver<'a> {
    /// A resolver for an input.
    pub fn new(input: &'a Input) -> Result<Self, CodecError> {
        Ok(Resolver {
            input,
            rows: RowCodec::new(input.schema())?,
            changes: vec![],
        })
    }

    /// Takes the changes of some records.
    pub fn add(&mut self, arrived: Arrived<'_>) -> Result<(), CodecError> {
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
        for (index, (arrival, row)) in arrivals(arrived).zip(rows).enumerate() {
            let op = arrived.decoded.ops[index];
            let unordered = !positions.is_empty() && positions.iter().all(|i| batch.column(*i).is_null(index));
            self.changes.push(Recorded {
                arrival,
                op,
                key: keys[index].clone(),
                order: (op == Op::Upsert || !unordered).then(|| orders[index].clone()),
                row,
            });
        }
        Ok(())
    }

    /// The rows as of all changes taken; with `now`, less those that the input's retention cuts off by then.
    pub fn finish(mut self, now: Option<Epoch>) -> Result<RecordBatch, CodecError> {
        self.changes.sort_by_key(|change| change.arrival);
        let changes = std::mem::take(&mut self.changes);
        let rows = if !self.input.key.is_empty() {
            newest(changes)
        } else if !self.input.dedup_key.is_empty() {
            first(changes)
        } else if super::retracts(self.input) {
            counted(changes)
        } else {
            let inserted = changes.into_iter().filter(|c| c.op == Op::Upsert);
            inserted.map(|change| change.row).collect()
        };
        let batch = self.rows.decode(rows.iter().map(Row::bytes))?;
        Ok(match (&self.input.retention, now) {
            (Some(retention), Some(now)) => {
                let column = self.input.positions(std::slice::from_ref(&retention.column))[0];
                let micros = cast(batch.column(column), &DataType::Timestamp(TimeUnit::Microsecond, None))
                    .expect("retention is by a DATE or TIMESTAMP column");
                let bound = (now as i64).saturating_mul(1000);
                let keep = retention.keep.as_micros() as i64;
                let kept = micros
                    .as_primitive::<TimestampMicrosecondType>()
                    .iter()
                    .map(|us| Some(us.is_none_or(|us| us.saturating_add(keep) > bound)))
                    .collect();
                filter_record_batch(&batch, &kept).expect("the mask was made from the batch")
            }
            _ => batch,
        })
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

/// `order_by` columns, feed, arrival.
type Version = (Row, u16, Arrival);

fn newest(changes: Vec<Recorded>) -> Vec<Row> {
    let mut current: HashMap<Row, (Version, Option<Row>)> = HashMap::new(); // a row that is gone is none
    for change in changes {
        if change.op == Op::Truncate {
            current.clear();
            continue;
        }
        let held = current.get(&change.key);
        let order = match (change.order, held) {
            (Some(order), _) => order,
            (None, Some(((order, _, _), _))) => {
                let version = (order.clone(), change.arrival.feed, change.arrival);
                current.insert(change.key, (version, None));
                continue;
            }
            (None, None) => continue, // nothing was there, and it is no newer than anything
        };
        let version = (order, change.arrival.feed, change.arrival);
        if held.is_none_or(|(newest, _)| *newest < version) {
            let row = (change.op == Op::Upsert).then_some(change.row);
            current.insert(change.key, (version, row));
        }
    }
    current.into_values().filter_map(|(_, row)| row).collect()
}

fn first(changes: Vec<Recorded>) -> Vec<Row> {
    let mut kept: HashMap<Row, Row> = HashMap::new();
    for change in changes {
        match change.op {
            Op::Upsert => {
                kept.entry(change.key).or_insert(change.row);
            }
            Op::Delete => {}
            Op::Truncate => kept.clear(),
        }
    }
    kept.into_values().collect()
}

fn counted(changes: Vec<Recorded>) -> Vec<Row> {
    let mut counts: HashMap<Row, usize> = HashMap::new();
    for change in changes {
        match change.op {
            Op::Upsert => *counts.entry(change.row).or_default() += 1,
            Op::Delete => {
                if let Some(count) = counts.get_mut(&change.row) {
                    *count = count.saturating_sub(1);
                }
            }
            Op::Truncate => counts.clear(),
        }
    }
    counts
        .into_iter()
        .flat_map(|(row, count)| std::iter::repeat_n(row, count))
        .collect()
}
