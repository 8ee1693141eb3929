//! Converts decoded records to updates of the graph, on the worker, column by column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::change::{Arrival, ChangeParts, Flag, encode};
use crate::decode::{ChangeOp, Decoded, Reject};
use crate::definition::{Input, Retention};
use crate::render::leaving;
use crate::repr::{CodecError, Epoch, Row, RowCodec, Update, key_hash};

/// A change to be exchanged: the hash that chooses the key's worker, the key, and the change.
pub type RoutedChange = (u64, Row, Row);

/// Records of one delivery, with their source.
#[derive(Clone, Copy)]
pub struct ArrivedRecords<'a> {
    /// The epoch at which they arrived.
    pub epoch: Epoch,
    /// Index into `Input::feeds`.
    pub feed: usize,
    /// The partition's name.
    pub partition: &'a str,
    /// The decoded records.
    pub decoded: &'a Decoded,
}

/// Encodes the changes of one input.
pub struct Ingest {
    rows: RowCodec,
    key: EncodedColumns,
    order: EncodedColumns,
    /// Whether the whole row is the key, because the input has neither a key nor a dedup key.
    key_is_row: bool,
    /// The column by which retention expires rows, and the retention.
    retention: Option<(usize, Retention)>,
    buffer: Vec<u8>,
}

/// For each change, the first epoch at which its row has expired.
enum RowExpiries {
    Never,
    At(Vec<Epoch>),
}

impl RowExpiries {
    fn of_change(&self, change: usize) -> Epoch {
        match self {
            RowExpiries::Never => Epoch::MAX,
            RowExpiries::At(epochs) => epochs[change],
        }
    }
}

struct EncodedColumns {
    positions: Vec<usize>,
    codec: RowCodec,
}

impl EncodedColumns {
    fn new(schema: &SchemaRef, positions: Vec<usize>) -> Result<Self, CodecError> {
        let fields: Vec<Field> = positions.iter().map(|i| schema.field(*i).clone()).collect();
        Ok(EncodedColumns {
            codec: RowCodec::new(Arc::new(Schema::new(fields)))?,
            positions,
        })
    }

    fn project(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.positions.iter().map(|i| batch.column(*i).clone()).collect()
    }

    fn encode(&self, batch: &RecordBatch) -> Result<Vec<Row>, CodecError> {
        self.codec.encode_rows(&self.project(batch), batch.num_rows())
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
            key: EncodedColumns::new(&schema, input.positions(key))?,
            order: EncodedColumns::new(&schema, input.positions(&input.order_by))?,
            retention: input.retention.clone().map(|retention| {
                let column = input.positions(std::slice::from_ref(&retention.column))[0];
                (column, retention)
            }),
            buffer: Vec::new(),
        })
    }

    /// The epochs at which the rows of a delivery expire, and rejects for the records whose rows had expired before
    /// they arrived.
    fn expiries(&self, arrived: ArrivedRecords<'_>) -> (RowExpiries, Vec<Reject>) {
        let Some((column, retention)) = &self.retention else {
            return (RowExpiries::Never, vec![]);
        };
        let decoded = arrived.decoded;
        let until =
            leaving(decoded.rows.column(*column), retention.keep).expect("retention is by a DATE or TIMESTAMP column");
        let late = (0..decoded.ops.len()).filter(|i| decoded.ops[*i] == ChangeOp::Upsert && until[*i] <= arrived.epoch);
        let late = late.map(|i| Reject {
            record: Some(decoded.record[i]),
            reason: format!(
                "late: retention keeps {:?} for {}, this record's time had passed when it arrived",
                retention.column,
                humantime::format_duration(retention.keep)
            ),
        });
        let late = late.collect();
        (RowExpiries::At(until), late)
    }

    /// Encodes the rows of an append-only input, each once, at the epoch `at`. Returns how many changes were not
    /// insertions (if no feed carries changes, the input cannot use them), and rejects for the records that came too
    /// late.
    pub fn events(
        &mut self,
        at: Epoch,
        arrived: ArrivedRecords<'_>,
        output: &mut Vec<Update>,
    ) -> Result<(usize, Vec<Reject>), CodecError> {
        let decoded = arrived.decoded;
        let rows = self.rows.encode_rows(decoded.rows.columns(), decoded.rows.num_rows())?;
        let (until, late) = self.expiries(arrived);
        let mut unusable = 0;
        for (index, row) in rows.into_iter().enumerate() {
            if decoded.ops[index] != ChangeOp::Upsert {
                unusable += 1;
            } else if until.of_change(index) > arrived.epoch {
                output.push((row, at, 1));
            }
        }
        Ok((unusable, late))
    }

    /// Encodes changes by key. A truncation goes to each of `peers` workers. Returns rejects for the records that came
    /// too late.
    pub fn changes(
        &mut self,
        arrived: ArrivedRecords<'_>,
        peers: usize,
        output: &mut Vec<RoutedChange>,
    ) -> Result<Vec<Reject>, CodecError> {
        let decoded = arrived.decoded;
        let batch = &decoded.rows;
        let rows = self.rows.encode_rows(batch.columns(), batch.num_rows())?;
        let keys = (!self.key_is_row).then(|| self.key.encode(batch)).transpose()?;
        let orders = self.order.encode(batch)?;
        let order_columns = self.order.project(batch);
        let (until, late) = self.expiries(arrived);
        let mut unchanged = decoded.unchanged.iter().peekable();
        let mut left_out = Vec::new();
        for (index, (arrival, row)) in arrivals(arrived).zip(rows).enumerate() {
            let op = decoded.ops[index];
            left_out.clear();
            while let Some((_, column)) = unchanged.next_if(|(row, _)| *row as usize == index) {
                left_out.push(*column as u16);
            }
            if op == ChangeOp::Truncate {
                let truncation = ChangeParts {
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
                ChangeOp::Upsert => until.of_change(index),
                _ => Epoch::MAX,
            };
            if until <= arrived.epoch {
                continue; // The row expired before it arrived.
            }
            let unordered = !order_columns.is_empty() && order_columns.iter().all(|c| c.is_null(index));
            let (flag, stored): (Flag, &[u8]) = match op {
                // The row of a counted input is its key, so it is not stored again.
                ChangeOp::Upsert if self.key_is_row => (Flag::Live, &[]),
                ChangeOp::Upsert => (Flag::Live, row.bytes()),
                _ if unordered => (Flag::GoneUnordered, &[]),
                _ => (Flag::Gone, &[]),
            };
            let parts = ChangeParts {
                order: orders[index].bytes(),
                arrival,
                flag,
                until,
                unchanged: &left_out,
                row: stored,
            };
            let change = encode(&mut self.buffer, &parts);
            let key = keys.as_ref().map_or(row, |keys| keys[index].clone());
            output.push((key_hash(key.bytes()), key, change));
        }
        Ok(late)
    }
}

/// Where and when each change of a delivery arrived.
pub fn arrivals(arrived: ArrivedRecords<'_>) -> impl Iterator<Item = Arrival> {
    let partition = key_hash(arrived.partition.as_bytes()) as u32;
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
