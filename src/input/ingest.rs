//! Decoded records to graph updates, on the worker, column by column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::change::{Arrival, Flag, Parts, encode};
use crate::decode::{Decoded, Op, Reject};
use crate::definition::{Input, Retention};
use crate::render::arrange::hash;
use crate::render::leaving;
use crate::repr::{CodecError, Epoch, Row, RowCodec, Update};

/// A change on its way to the worker of its key: (where it goes, key, change).
pub type Routed = (u64, Row, Row);

/// Records of one delivery, and where they are from.
#[derive(Clone, Copy)]
pub struct Arrived<'a> {
    /// The epoch they are stamped with.
    pub epoch: Epoch,
    /// Index into `Input::feeds`.
    pub feed: usize,
    /// The partition's name.
    pub partition: &'a str,
    /// What they say.
    pub decoded: &'a Decoded,
}

/// Encodes the changes of one input.
pub struct Ingest {
    rows: RowCodec,
    key: Columns,
    order: Columns,
    /// Without a key and a dedup key: the whole row is the key.
    key_is_row: bool,
    /// The column that says how long a row stays, and how long that is.
    retention: Option<(usize, Retention)>,
    buffer: Vec<u8>,
}

/// By change, the first epoch at which its row is over.
enum Until {
    Never,
    At(Vec<Epoch>),
}

impl Until {
    fn of(&self, change: usize) -> Epoch {
        match self {
            Until::Never => Epoch::MAX,
            Until::At(epochs) => epochs[change],
        }
    }
}

struct Columns {
    positions: Vec<usize>,
    codec: RowCodec,
}

impl Columns {
    fn new(schema: &SchemaRef, positions: Vec<usize>) -> Result<Self, CodecError> {
        let fields: Vec<Field> = positions.iter().map(|i| schema.field(*i).clone()).collect();
        Ok(Columns {
            codec: RowCodec::new(Arc::new(Schema::new(fields)))?,
            positions,
        })
    }

    fn of(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.positions.iter().map(|i| batch.column(*i).clone()).collect()
    }

    fn encode(&self, batch: &RecordBatch) -> Result<Vec<Row>, CodecError> {
        self.codec.encode_rows(&self.of(batch), batch.num_rows())
    }
}

impl Ingest {
    /// An encoder for an input.
    pub fn new(input: &Input) -> Result<Self, CodecError> {
        let schema = input.schema();
        let key = if input.key.is_empty() {
            &input.dedup_key
        } else {
            &input.key
        };
        Ok(Ingest {
            rows: RowCodec::new(schema.clone())?,
            key_is_row: key.is_empty(),
            key: Columns::new(&schema, input.positions(key))?,
            order: Columns::new(&schema, input.positions(&input.order_by))?,
            retention: input.retention.clone().map(|retention| {
                let column = input.positions(std::slice::from_ref(&retention.column))[0];
                (column, retention)
            }),
            buffer: Vec::new(),
        })
    }

    /// When the rows of a delivery are over, and the records whose rows were over before they arrived: those are refused.
    fn until(&self, arrived: Arrived<'_>) -> (Until, Vec<Reject>) {
        let Some((column, retention)) = &self.retention else {
            return (Until::Never, vec![]);
        };
        let decoded = arrived.decoded;
        let until =
            leaving(decoded.rows.column(*column), retention.keep).expect("retention is by a DATE or TIMESTAMP column");
        let late = (0..decoded.ops.len()).filter(|i| decoded.ops[*i] == Op::Upsert && until[*i] <= arrived.epoch);
        let late = late.map(|i| Reject {
            record: Some(decoded.record[i]),
            reason: format!(
                "late: retention keeps {:?} for {}, this record's time had passed when it arrived",
                retention.column,
                humantime::format_duration(retention.keep)
            ),
        });
        let late = late.collect();
        (Until::At(until), late)
    }

    /// The rows of an append-only input, each once, at the epoch `at`. Answers how many changes were no insertions (an
    /// input none of whose feeds carries changes has no use for them), and the records that came too late.
    pub fn events(
        &mut self,
        at: Epoch,
        arrived: Arrived<'_>,
        output: &mut Vec<Update>,
    ) -> Result<(usize, Vec<Reject>), CodecError> {
        let decoded = arrived.decoded;
        let rows = self.rows.encode_rows(decoded.rows.columns(), decoded.rows.num_rows())?;
        let (until, late) = self.until(arrived);
        let mut unusable = 0;
        for (index, row) in rows.into_iter().enumerate() {
            if decoded.ops[index] != Op::Upsert {
                unusable += 1;
            } else if until.of(index) > arrived.epoch {
                output.push((row, at, 1));
            }
        }
        Ok((unusable, late))
    }

    /// Changes by key. A truncation goes to each of `peers` workers. Answers the records that came too late.
    pub fn changes(
        &mut self,
        arrived: Arrived<'_>,
        peers: usize,
        output: &mut Vec<Routed>,
    ) -> Result<Vec<Reject>, CodecError> {
        let decoded = arrived.decoded;
        let batch = &decoded.rows;
        let rows = self.rows.encode_rows(batch.columns(), batch.num_rows())?;
        let keys = (!self.key_is_row).then(|| self.key.encode(batch)).transpose()?;
        let orders = self.order.encode(batch)?;
        let order_columns = self.order.of(batch);
        let (until, late) = self.until(arrived);
        let mut unchanged = decoded.unchanged.iter().peekable();
        let mut left_out = Vec::new();
        for (index, (arrival, row)) in arrivals(arrived).zip(rows).enumerate() {
            let op = decoded.ops[index];
            left_out.clear();
            while let Some((_, column)) = unchanged.next_if(|(row, _)| *row as usize == index) {
                left_out.push(*column as u16);
            }
            if op == Op::Truncate {
                let truncation = Parts {
                    order: &[],
                    arrival,
                    flag: Flag::Truncate,
                    until: Epoch::MAX,
                    unchanged: &[],
                    row: &[],
                };
                let change = encode(&mut self.buffer, &truncation);
                output.extend((0..peers as u64).map(|worker| (worker, Row::default(), change.clone())));
                continue;
            }
            let until = match op {
                Op::Upsert => until.of(index),
                _ => Epoch::MAX,
            };
            if until <= arrived.epoch {
                continue; // late
            }
            let unordered = !order_columns.is_empty() && order_columns.iter().all(|c| c.is_null(index));
            let (flag, stored): (Flag, &[u8]) = match op {
                // The row of a counted input is its key.
                Op::Upsert if self.key_is_row => (Flag::Live, &[]),
                Op::Upsert => (Flag::Live, row.bytes()),
                _ if unordered => (Flag::GoneUnordered, &[]),
                _ => (Flag::Gone, &[]),
            };
            let parts = Parts {
                order: orders[index].bytes(),
                arrival,
                flag,
                until,
                unchanged: &left_out,
                row: stored,
            };
            let change = encode(&mut self.buffer, &parts);
            let key = keys.as_ref().map_or(row, |keys| keys[index].clone());
            output.push((hash(key.bytes()), key, change));
        }
        Ok(late)
    }
}

/// Where and when each change of a delivery arrived.
pub fn arrivals(arrived: Arrived<'_>) -> impl Iterator<Item = Arrival> {
    let partition = hash(arrived.partition.as_bytes()) as u32;
    let mut sub: u16 = 0;
    let mut last = None;
    arrived.decoded.record.iter().map(move |record| {
        sub = if last == Some(*record) {
            sub.saturating_add(1)
        } else {
            0
        };
        last = Some(*record);
        Arrival {
            epoch: arrived.epoch,
            feed: arrived.feed as u16,
            partition,
            offset: arrived.decoded.raw.offsets[*record as usize],
            sub,
        }
    })
}
