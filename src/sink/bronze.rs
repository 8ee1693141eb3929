//! Bronze keeps every record as it arrived: one append-only table for each input, one row for each record.
//!
//! | column | meaning |
//! |---|---|
//! | feed, partition, offset | where the record was; the offset counts bytes in a log and records in a file |
//! | records | 1; for a columnar file the number of the file's rows that this row stands for |
//! | key, payload | the record's bytes; a null payload without `reference` is a tombstone |
//! | header | what a reader needs besides the bytes: the header line of a CSV file |
//! | reference | for columnar files: the path of the archived file, relative to the lake |
//! | event_time | when the source made the change, if the source says so |
//! | ingest_time, epoch | the wall clock and the epoch at which Alluvium took the record |
//! | headers | all that comes beside key and payload, as a JSON object; for a columnar file, its metadata |
//! | whole_length | the length in bytes of a record longer than `max_record`; `payload` then holds its first bytes |
//!
//! Bronze and the definition suffice to rebuild everything: [`runs`] returns the batches as the decoder saw them, with
//! the epochs at which they arrived.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};

use super::TableSpec;
use crate::decode::{CutRecord, FilePlace, Payloads, Raw, columnar_note, columnar_place};
use crate::definition::{Deletes, Input};
use crate::lake::{bronze_table, table_folder};
use crate::repr::Epoch;
use crate::source::Delivery;

/// Positions of the columns of [`schema`].
mod column {
    pub const FEED: usize = 0;
    pub const PARTITION: usize = 1;
    pub const OFFSET: usize = 2;
    pub const RECORDS: usize = 3;
    pub const KEY: usize = 4;
    pub const PAYLOAD: usize = 5;
    pub const HEADER: usize = 6;
    pub const REFERENCE: usize = 7;
    pub const EVENT_TIME: usize = 8;
    pub const EPOCH: usize = 10;
    pub const HEADERS: usize = 11;
    pub const WHOLE_LENGTH: usize = 12;
}

/// The columns of every Bronze table.
pub fn schema() -> SchemaRef {
    let moment = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("feed", DataType::Utf8, false),
        Field::new("partition", DataType::Utf8, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("records", DataType::Int64, false),
        Field::new("key", DataType::Binary, true),
        Field::new("payload", DataType::Binary, true),
        Field::new("header", DataType::Utf8, true),
        Field::new("reference", DataType::Utf8, true),
        Field::new("event_time", moment.clone(), true),
        Field::new("ingest_time", moment, false),
        Field::new("epoch", DataType::Int64, false),
        // The last two columns came in later versions, one after the other: older tables lack one or both.
        Field::new("headers", DataType::Utf8, true),
        Field::new("whole_length", DataType::Int64, true),
    ]))
}

/// The Bronze table of an input.
pub fn spec(input: &Input) -> TableSpec {
    let name = bronze_table(&input.name);
    TableSpec {
        path: table_folder(&name),
        name,
        schema: schema(),
        partition_by: vec![],
        append_only: true,
        summation: None,
        deletes: Deletes::Auto,
        change_data_feed: false,
        description: Some(format!("Records of input {} as they arrived", input.name)),
    }
}

/// The Bronze rows of a delivery. `feed` is the feed's name, `ingest_micros` the wall clock in Unix microseconds.
pub fn rows(delivery: &Delivery, feed: &str, epoch: Epoch, ingest_micros: i64) -> RecordBatch {
    let raw = &delivery.decoded.raw;
    let micros = |ms: &Option<i64>| ms.map(|ms| ms.saturating_mul(1000));
    let (keys, payloads, beside, references, offsets, records, events): (
        ArrayRef,
        ArrayRef,
        ArrayRef,
        ArrayRef,
        Vec<i64>,
        Vec<i64>,
        Vec<_>,
    ) = match &raw.payloads {
        Payloads::Records {
            values, keys, headers, ..
        } => {
            let n = values.len();
            let keys = keys.clone().unwrap_or_else(|| BinaryArray::new_null(n));
            let headers = headers.clone().unwrap_or_else(|| StringArray::new_null(n));
            (
                Arc::new(keys),
                Arc::new(values.clone()),
                Arc::new(headers),
                Arc::new(StringArray::new_null(n)),
                raw.offsets.iter().map(|&o| o as i64).collect(),
                vec![1; n],
                delivery.decoded.source_ms.iter().map(micros).collect(),
            )
        }
        Payloads::Columns { batch, path, .. } => (
            Arc::new(BinaryArray::new_null(1)),
            Arc::new(BinaryArray::new_null(1)),
            Arc::new(StringArray::from_iter([columnar_note(&raw.place)])),
            Arc::new(StringArray::from(vec![Some(path.as_ref())])),
            vec![raw.offsets.first().map_or(0, |&o| o as i64)],
            vec![batch.num_rows() as i64],
            vec![delivery.decoded.source_ms.first().and_then(micros)],
        ),
    };
    let n = offsets.len();
    let repeated = |text: &str| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, n))) as ArrayRef;
    let headers: ArrayRef = match &raw.header {
        Some(header) => repeated(header),
        None => Arc::new(StringArray::new_null(n)),
    };
    let mut lengths = vec![None; n];
    for cut in &raw.cut {
        // A columnar row that was cut is delivered alone, so the only Bronze row (`n - 1`) is its row.
        lengths[(cut.record as usize).min(n - 1)] = i64::try_from(cut.length).ok();
    }
    let columns: Vec<ArrayRef> = vec![
        repeated(feed),
        repeated(&delivery.partition),
        Arc::new(Int64Array::from(offsets)),
        Arc::new(Int64Array::from(records)),
        keys,
        payloads,
        headers,
        references,
        Arc::new(TimestampMicrosecondArray::from(events)),
        Arc::new(TimestampMicrosecondArray::from_value(ingest_micros, n)),
        Arc::new(Int64Array::from_value(epoch as i64, n)),
        beside,
        Arc::new(Int64Array::from(lengths)),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns are made of the schema's types and one length")
}

/// Adds the columns of [`schema`] that `batch` lacks, as nulls: tables written by earlier versions lack the last ones.
pub fn completed(batch: RecordBatch) -> RecordBatch {
    let schema = schema();
    let added = &schema.fields()[column::HEADERS..];
    let missing: Vec<&Arc<Field>> = added
        .iter()
        .filter(|field| batch.column_by_name(field.name()).is_none())
        .collect();
    if missing.is_empty() {
        return batch;
    }
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().to_vec();
    let mut columns = batch.columns().to_vec();
    for field in missing {
        fields.push(field.clone());
        columns.push(new_null_array(field.data_type(), batch.num_rows()));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of nulls fit any batch")
}

/// Consecutive Bronze rows of one feed, partition, header and epoch.
#[derive(Debug)]
pub struct BronzeRun {
    /// The feed's name.
    pub feed: String,
    /// The partition.
    pub partition: Arc<str>,
    /// The epoch at which the records arrived.
    pub epoch: Epoch,
    /// The records themselves.
    pub content: BronzeContent,
}

/// The content of a [`BronzeRun`].
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a run is taken apart where it is made, never stored"
)]
pub enum BronzeContent {
    /// Records, as the decoder takes them.
    Records(Raw),
    /// Rows of an archived columnar file, from number `first` on.
    Archived {
        /// The path of the archived file, relative to the lake.
        reference: String,
        /// Number of the first row; `place` says which number the file's own first row has.
        first: u64,
        /// How many rows.
        records: u64,
        /// The full length in bytes of a row longer than `max_record`, which then is the only row.
        cut_from: Option<u64>,
        /// The file's metadata.
        place: FilePlace,
    },
}

/// Cuts a batch of [`schema`] into runs, in the order of its rows.
pub fn runs(batch: &RecordBatch) -> Vec<BronzeRun> {
    let text = |c: usize| batch.column(c).as_string::<i32>();
    let number = |c: usize| batch.column(c).as_primitive::<Int64Type>();
    let (feed, partition, header, reference) = (
        text(column::FEED),
        text(column::PARTITION),
        text(column::HEADER),
        text(column::REFERENCE),
    );
    let (offset, records, epoch) = (number(column::OFFSET), number(column::RECORDS), number(column::EPOCH));
    let events = batch
        .column(column::EVENT_TIME)
        .as_primitive::<TimestampMicrosecondType>();
    let (keys, values) = (
        batch.column(column::KEY).as_binary::<i32>(),
        batch.column(column::PAYLOAD).as_binary::<i32>(),
    );
    let headers = text(column::HEADERS);
    let lengths = number(column::WHOLE_LENGTH);
    let cut_from = |row: usize| lengths.is_valid(row).then(|| lengths.value(row) as u64);
    let optional = |array: &StringArray, row: usize| array.is_valid(row).then(|| array.value(row).to_string());
    let same = |a: usize, b: usize| {
        feed.value(a) == feed.value(b)
            && epoch.value(a) == epoch.value(b)
            && partition.value(a) == partition.value(b)
            && reference.is_null(a)
            && reference.is_null(b)
            && optional(header, a) == optional(header, b)
    };
    let mut runs = Vec::new();
    let mut start = 0;
    while start < batch.num_rows() {
        let mut end = start + 1;
        while end < batch.num_rows() && same(start, end) {
            end += 1;
        }
        let length = end - start;
        let content = match optional(reference, start) {
            Some(reference) => BronzeContent::Archived {
                reference,
                first: offset.value(start) as u64,
                records: records.value(start) as u64,
                cut_from: cut_from(start),
                place: columnar_place(partition.value(start), optional(headers, start).as_deref()),
            },
            None => BronzeContent::Records(Raw {
                payloads: Payloads::Records {
                    values: values.slice(start, length),
                    keys: (keys.slice(start, length).null_count() < length).then(|| keys.slice(start, length)),
                    headers: (headers.slice(start, length).null_count() < length).then(|| headers.slice(start, length)),
                    ts_ms: events
                        .slice(start, length)
                        .iter()
                        .map(|micros| micros.map(|m| m / 1000))
                        .collect(),
                },
                offsets: offset.values()[start..end].iter().map(|&o| o as u64).collect(),
                header: optional(header, start).map(Into::into),
                cut: (start..end)
                    .filter_map(|row| {
                        Some(CutRecord {
                            record: (row - start) as u32,
                            length: cut_from(row)?,
                        })
                    })
                    .collect(),
                place: FilePlace {
                    partition: Some(partition.value(start).into()),
                    ..FilePlace::default()
                },
            }),
        };
        runs.push(BronzeRun {
            feed: feed.value(start).to_string(),
            partition: partition.value(start).into(),
            epoch: epoch.value(start) as Epoch,
            content,
        });
        start = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;
    use crate::repr::Position;
    use std::time::Instant;

    #[test]
    fn what_arrived_comes_back_record_for_record() {
        let raw = Raw {
            payloads: Payloads::Records {
                values: BinaryArray::from_opt_vec(vec![Some(b"a,1"), None, Some(b"\xff\x00")]),
                keys: Some(BinaryArray::from_opt_vec(vec![Some(b"k"), Some(b"k"), None])),
                headers: Some(StringArray::from(vec![None, None, Some("{\"trace\":\"1\"}")])),
                ts_ms: vec![Some(5), None, Some(7)],
            },
            offsets: vec![0, 40, 99],
            header: Some("name,number".into()),
            cut: vec![CutRecord {
                record: 2,
                length: 1 << 40,
            }],
            place: FilePlace {
                partition: Some("p0".into()),
                ..FilePlace::default()
            },
        };
        let empty = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let delivery = Delivery {
            input: 0,
            feed: 0,
            partition: "p0".into(),
            decoded: Decoded {
                raw: raw.clone(),
                rows: empty,
                ops: vec![],
                record: vec![],
                source_ms: vec![Some(5), None, Some(7)],
                rejects: vec![],
                ignored_fields: vec![],
                unchanged: vec![],
                transactions: vec![],
            },
            position: Position {
                next: 120,
                done: false,
                tag: None,
                ..Position::default()
            },
            arrived: Instant::now(),
            epoch: None,
            room: None,
        };
        let runs = runs(&rows(&delivery, "live", 77, 1_000_000));
        assert_eq!(runs.len(), 1);
        assert_eq!(
            (runs[0].feed.as_str(), runs[0].partition.as_ref(), runs[0].epoch),
            ("live", "p0", 77)
        );
        let BronzeContent::Records(back) = &runs[0].content else {
            panic!("records came back as {:?}", runs[0].content)
        };
        assert_eq!(format!("{back:?}"), format!("{raw:?}"));
    }
}
