//! Gathers records into a [`Raw`] batch: one buffer of bytes and one of offsets, no allocation per record.

use std::sync::Arc;

use arrow::array::{BinaryArray, NullBufferBuilder, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, Schema};

use super::options::ReaderOptions;
use crate::decode::{CutRecord, Decoded, FIRST_BYTES, FilePlace, Payloads, Raw, Reject};
use crate::definition::{Feed, Input};
use crate::repr::batch_bytes;

/// The initial capacity of a column is at most this many bytes.
const MOST_ROOM: usize = 8 << 20;

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

    /// Takes the column out and starts an empty one with the same capacity, capped at [`MOST_ROOM`].
    fn take(&mut self, rows: usize) -> BinaryArray {
        let next = Bytes {
            bytes: Vec::with_capacity(self.bytes.len().min(MOST_ROOM)),
            ..Bytes::new(rows)
        };
        let mut full = std::mem::replace(self, next);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(full.ends));
        BinaryArray::new(offsets, Buffer::from_vec(full.bytes), full.present.finish())
    }
}

/// Limits at which a batch is handed over. A batch exceeds `bytes` by at most one record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub rows: usize,
    pub bytes: usize,
    /// The most bytes of a record, key and headers included. Of a longer record only the first bytes are kept,
    /// and it becomes a dead letter.
    pub record: usize,
}

impl BatchLimits {
    pub fn new(options: &ReaderOptions, feed: &Feed) -> BatchLimits {
        BatchLimits {
            rows: options.batch_rows.max(1),
            bytes: options.batch_bytes.max(1),
            record: usize::try_from(feed.max_record).unwrap_or(usize::MAX),
        }
    }
}

/// A record as its source has it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SourceRecord<'a> {
    /// Its position in the partition, which must grow from record to record.
    pub offset: u64,
    pub key: Option<&'a [u8]>,
    /// None is a tombstone.
    pub value: Option<&'a [u8]>,
    /// A JSON object.
    pub headers: Option<&'a str>,
    /// Unix milliseconds.
    pub ts_ms: Option<i64>,
    /// The record's full length in bytes, if `value` holds only its beginning.
    pub cut_from: Option<u64>,
    /// The line on which the record begins, from 1. Either all records of a batch have it or none.
    pub line: Option<u64>,
}

impl SourceRecord<'_> {
    /// The number of bytes held here, which is less than the record's length if it was cut.
    fn bytes(&self) -> usize {
        self.value.map_or(0, <[u8]>::len) + self.key.map_or(0, <[u8]>::len) + self.headers.map_or(0, str::len)
    }
}

/// A column that few sources fill. It is allocated with the first record that has a value for it.
struct Rare {
    bytes: Bytes,
    any: bool,
}

impl Rare {
    fn new() -> Self {
        Rare {
            bytes: Bytes::new(0),
            any: false,
        }
    }

    /// Adds the value of a record that comes after `before` others, which had none if this is the first value.
    fn push(&mut self, value: Option<&[u8]>, before: usize) {
        if value.is_some() && !self.any {
            self.any = true;
            (0..before).for_each(|_| self.bytes.push(None));
        }
        if self.any {
            self.bytes.push(value);
        }
    }

    fn take(&mut self) -> Option<BinaryArray> {
        std::mem::take(&mut self.any).then(|| self.bytes.take(0))
    }
}

/// Records on their way into one batch.
pub(crate) struct BatchBuilder {
    limits: BatchLimits,
    values: Bytes,
    keys: Rare,
    headers: Rare,
    ts_ms: Vec<Option<i64>>,
    offsets: Vec<u64>,
    cut: Vec<CutRecord>,
    lines: Vec<u64>,
}

impl BatchBuilder {
    pub fn new(limits: BatchLimits) -> Self {
        BatchBuilder {
            limits,
            values: Bytes::new(limits.rows),
            keys: Rare::new(),
            headers: Rare::new(),
            ts_ms: Vec::new(),
            offsets: Vec::new(),
            cut: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Adds a record. If the record is longer than the limit, only its first bytes are kept, and its key and
    /// headers only if they are short.
    pub fn push(&mut self, mut record: SourceRecord<'_>) {
        let before = self.offsets.len();
        let too_long = record.bytes() > self.limits.record;
        if let Some(length) = record.cut_from.or(too_long.then(|| record.bytes() as u64)) {
            let short = |length: usize| length <= FIRST_BYTES;
            record.value = record.value.map(|value| &value[..value.len().min(FIRST_BYTES)]);
            record.key = record.key.filter(|key| short(key.len()));
            record.headers = record.headers.filter(|headers| short(headers.len()));
            self.cut.push(CutRecord {
                record: before as u32,
                length,
            });
        }
        self.values.push(record.value);
        self.keys.push(record.key, before);
        self.headers.push(record.headers.map(str::as_bytes), before);
        self.ts_ms.push(record.ts_ms);
        self.offsets.push(record.offset);
        self.lines.extend(record.line);
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub fn is_full(&self) -> bool {
        let rare = self.keys.bytes.bytes.len() + self.headers.bytes.bytes.len();
        self.offsets.len() >= self.limits.rows || self.values.bytes.len() + rare >= self.limits.bytes
    }

    /// The records so far, as a batch.
    pub fn finish(&mut self, header: Option<Arc<str>>) -> Raw {
        let rows = self.limits.rows;
        let headers = self.headers.take().map(|headers| {
            let (offsets, bytes, nulls) = headers.into_parts();
            StringArray::new(offsets, bytes, nulls) // each value is a whole `str`
        });
        Raw {
            payloads: Payloads::Records {
                values: self.values.take(rows),
                keys: self.keys.take(),
                headers,
                ts_ms: std::mem::take(&mut self.ts_ms),
            },
            offsets: std::mem::take(&mut self.offsets),
            header,
            cut: std::mem::take(&mut self.cut),
            place: FilePlace {
                lines: std::mem::take(&mut self.lines),
                ..FilePlace::default()
            },
        }
    }
}

/// The payload of a batch in bytes: keys, values and headers.
pub(crate) fn payload_bytes(raw: &Raw) -> u64 {
    match &raw.payloads {
        Payloads::Records {
            values, keys, headers, ..
        } => {
            let keys = keys.as_ref().map_or(0, |keys| keys.value_data().len());
            let headers = headers.as_ref().map_or(0, |headers| headers.value_data().len());
            (values.value_data().len() + keys + headers) as u64
        }
        Payloads::Columns { batch, .. } => batch_bytes(batch),
    }
}

/// A delivery without records: progress alone, or the rejection of a whole file. No decoder is called for it.
pub(crate) fn nothing(input: &Input, rejection: Option<String>) -> Decoded {
    let fields = input
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect::<Vec<Field>>();
    Decoded {
        rejects: rejection
            .map(|reason| Reject { record: None, reason })
            .into_iter()
            .collect(),
        ..Decoded::none(Arc::new(Schema::new(fields)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;

    #[test]
    fn keys_headers_and_tombstones_keep_their_places() {
        let record = |offset, key: Option<&'static [u8]>, value: Option<&'static [u8]>| SourceRecord {
            offset,
            key,
            value,
            ..SourceRecord::default()
        };
        let mut batch = BatchBuilder::new(BatchLimits {
            rows: 3,
            bytes: 1 << 20,
            record: 1 << 20,
        });
        batch.push(record(0, None, Some(b"a")));
        batch.push(SourceRecord {
            ts_ms: Some(7),
            headers: Some("{}"),
            ..record(5, Some(b"k"), None)
        });
        assert!(!batch.is_full());
        batch.push(record(9, None, Some(b"")));
        assert!(batch.is_full());
        let raw = batch.finish(None);
        let Payloads::Records {
            values,
            keys: Some(keys),
            headers: Some(headers),
            ts_ms,
        } = &raw.payloads
        else {
            panic!("{raw:?}")
        };
        assert_eq!(values.iter().collect::<Vec<_>>(), [Some(&b"a"[..]), None, Some(b"")]);
        assert_eq!(keys.iter().collect::<Vec<_>>(), [None, Some(&b"k"[..]), None]);
        assert_eq!(headers.iter().collect::<Vec<_>>(), [None, Some("{}"), None]);
        assert_eq!(ts_ms, &[None, Some(7), None]);
        assert_eq!(raw.offsets, [0, 5, 9]);
        assert!(batch.is_empty());
        batch.push(record(10, None, Some(b"b")));
        let Payloads::Records {
            values, keys, headers, ..
        } = batch.finish(None).payloads
        else {
            unreachable!()
        };
        assert_eq!((values.len(), values.value(0)), (1, &b"b"[..]));
        assert!(keys.is_none() && headers.is_none());
    }
}
