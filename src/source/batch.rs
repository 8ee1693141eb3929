//! Gathers records into a [`Raw`] batch: one buffer of bytes and one of offsets, no allocation per record.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, NullBufferBuilder, RecordBatch};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, Schema};

use crate::decode::{Decoded, Payloads, Raw, Reject};
use crate::definition::Input;

/// A growing column of bytes.
struct Bytes {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    present: NullBufferBuilder,
}

impl Bytes {
    fn new(rows: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Bytes {
            bytes: Vec::new(),
            ends,
            present: NullBufferBuilder::new(rows),
        }
    }

    fn push(&mut self, value: Option<&[u8]>) {
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.ends
            .push(i32::try_from(self.bytes.len()).expect("a batch is handed over long before 2 GiB"));
        self.present.append(value.is_some());
    }

    /// The column so far; what follows starts anew, with room for as much again.
    fn take(&mut self, rows: usize) -> BinaryArray {
        let next = Bytes {
            bytes: Vec::with_capacity(self.bytes.len()),
            ..Bytes::new(rows)
        };
        let mut full = std::mem::replace(self, next);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(full.ends));
        BinaryArray::new(offsets, Buffer::from_vec(full.bytes), full.present.finish())
    }
}

/// How large a batch may grow before it is handed over. Records are at most this much longer than a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub rows: usize,
    pub bytes: usize,
}

/// Records on their way into one batch.
pub(crate) struct BatchBuilder {
    limits: BatchLimits,
    values: Bytes,
    keys: Bytes,
    any_key: bool,
    ts_ms: Vec<Option<i64>>,
    offsets: Vec<u64>,
}

impl BatchBuilder {
    pub fn new(limits: BatchLimits) -> Self {
        BatchBuilder {
            limits,
            values: Bytes::new(limits.rows),
            keys: Bytes::new(0),
            any_key: false,
            ts_ms: Vec::new(),
            offsets: Vec::new(),
        }
    }

    /// Adds a record. Offsets must grow.
    pub fn push(&mut self, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>, ts_ms: Option<i64>) {
        self.values.push(value);
        if key.is_some() && !self.any_key {
            self.any_key = true;
            self.offsets.iter().for_each(|_| self.keys.push(None));
        }
        if self.any_key {
            self.keys.push(key);
        }
        self.ts_ms.push(ts_ms);
        self.offsets.push(offset);
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.offsets.len() >= self.limits.rows || self.values.bytes.len() + self.keys.bytes.len() >= self.limits.bytes
    }

    /// The records so far, as a batch.
    pub fn take(&mut self, header: Option<Arc<str>>) -> Raw {
        let rows = self.limits.rows;
        let keys = std::mem::take(&mut self.any_key).then(|| self.keys.take(0));
        Raw {
            payloads: Payloads::Records {
                values: self.values.take(rows),
                keys,
                ts_ms: std::mem::take(&mut self.ts_ms),
            },
            offsets: std::mem::take(&mut self.offsets),
            header,
        }
    }
}

/// How many bytes a batch brings.
pub(crate) fn payload_bytes(raw: &Raw) -> u64 {
    match &raw.payloads {
        Payloads::Records { values, keys, .. } => {
            let keys = keys.as_ref().map_or(0, |keys| keys.value_data().len());
            (values.value_data().len() + keys) as u64
        }
        Payloads::Columns { batch, .. } => batch.columns().iter().map(|c| c.get_array_memory_size() as u64).sum(),
    }
}

/// What no records decode to: progress alone, or the rejection of a file as a whole. Decoders are not asked.
pub(crate) fn nothing(input: &Input, rejection: Option<String>) -> Decoded {
    let fields = input
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect::<Vec<Field>>();
    let none = BinaryArray::from_vec(Vec::new());
    Decoded {
        raw: Raw {
            payloads: Payloads::Records {
                values: none,
                keys: None,
                ts_ms: Vec::new(),
            },
            offsets: Vec::new(),
            header: None,
        },
        rows: RecordBatch::new_empty(Arc::new(Schema::new(fields))),
        ops: Vec::new(),
        record: Vec::new(),
        source_ms: Vec::new(),
        rejects: rejection
            .map(|reason| Reject { record: None, reason })
            .into_iter()
            .collect(),
        ignored_fields: Vec::new(),
        unchanged: Vec::new(),
        transactions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tombstones_keep_their_places() {
        let mut batch = BatchBuilder::new(BatchLimits {
            rows: 3,
            bytes: 1 << 20,
        });
        batch.push(0, None, Some(b"a"), None);
        batch.push(5, Some(b"k"), None, Some(7));
        assert!(!batch.is_full());
        batch.push(9, None, Some(b""), None);
        assert!(batch.is_full());
        let raw = batch.take(None);
        let Payloads::Records {
            values,
            keys: Some(keys),
            ts_ms,
        } = &raw.payloads
        else {
            panic!("{raw:?}")
        };
        assert_eq!(values.iter().collect::<Vec<_>>(), [Some(&b"a"[..]), None, Some(b"")]);
        assert_eq!(keys.iter().collect::<Vec<_>>(), [None, Some(&b"k"[..]), None]);
        assert_eq!(ts_ms, &[None, Some(7), None]);
        assert_eq!(raw.offsets, [0, 5, 9]);
        assert!(batch.is_empty());
        batch.push(10, None, Some(b"b"), None);
        let Payloads::Records { values, keys, .. } = batch.take(None).payloads else {
            unreachable!()
        };
        assert_eq!((values.len(), values.value(0), keys.is_none()), (1, &b"b"[..], true));
    }
}
