//! Dead letters keep input that could not be used, with its bytes, its place and the reason.
//!
//! One table serves the whole dataflow. A letter is a record that failed to decode (`kind` = `record`), a file that
//! could not be read (`file`), or a row that a table's SQL, key or expectation refuses (`row`). The payload of such a
//! row is JSON, as is that of a refused row of a columnar file. A row's letter leaves the table when the row is
//! repaired or removed.
//!
//! Reason and payload are adjacent, in the order of the graph's error rows, so that constant bytes before and after
//! turn an error row into a letter.

use std::sync::Arc;

use arrow::array::{ArrayAccessor, ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::TableSpec;
use crate::decode::{ContainerJson, Payloads, Raw, Reject};
use crate::definition::Deletes;
use crate::repr::{CodecError, Epoch, Row, RowCodec, row_json};

/// The columns before reason and payload.
fn place() -> Vec<Field> {
    vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("input", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, true),
        Field::new("feed", DataType::Utf8, true),
        Field::new("partition", DataType::Utf8, true),
        Field::new("offset", DataType::Int64, true),
    ]
}

/// The columns after reason and payload.
fn arrival() -> Vec<Field> {
    vec![
        Field::new("epoch", DataType::Int64, true),
        Field::new("key", DataType::Binary, true),
        Field::new("headers", DataType::Utf8, true),
    ]
}

/// The columns of the dead letters. `epoch` is set for records and files, and says when they arrived; `key` and
/// `headers` are set for records that had them.
pub fn schema() -> SchemaRef {
    let mut fields = place();
    fields.push(Field::new("reason", DataType::Utf8, false));
    fields.push(Field::new("payload", DataType::Binary, true));
    fields.extend(arrival());
    Arc::new(Schema::new(fields))
}

/// The dead-letter table.
pub fn spec() -> TableSpec {
    TableSpec {
        name: "dead_letters".into(),
        path: "dead_letters".into(),
        schema: schema(),
        partition_by: vec![],
        append_only: false,
        summation: None,
        deletes: Deletes::Auto,
        change_data_feed: false,
        description: Some("Input that could not be used: its bytes, its place and the reason".into()),
    }
}

/// Turns the error rows of one table into letters.
pub struct DeadLetterBuilder {
    before: Row,
    after: Row,
}

impl DeadLetterBuilder {
    /// A builder for the errors of this table.
    pub fn of_table(table: &str) -> Result<Self, CodecError> {
        let text = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let number = || Arc::new(Int64Array::from(vec![None::<i64>])) as ArrayRef;
        let columns = [
            text(Some("row")),
            text(None),
            text(Some(table)),
            text(None),
            text(None),
            number(),
        ];
        let one = |fields: Vec<Field>, columns: &[ArrayRef]| -> Result<Row, CodecError> {
            let mut rows = RowCodec::new(Arc::new(Schema::new(fields)))?.encode_rows(columns, 1)?;
            Ok(rows.pop().expect("one row was encoded"))
        };
        Ok(DeadLetterBuilder {
            before: one(place(), &columns)?,
            after: one(
                arrival(),
                &[
                    number(),
                    Arc::new(BinaryArray::new_null(1)),
                    Arc::new(StringArray::new_null(1)),
                ],
            )?,
        })
    }

    /// The letter of an error row (reason, payload).
    pub fn seal(&self, error: &Row) -> Row {
        let letter = Row::concat(self.before.bytes(), error.bytes());
        Row::concat(letter.bytes(), self.after.bytes())
    }
}

/// The source of refused records, and when they arrived.
#[derive(Clone, Copy)]
pub struct DeadLetterOrigin<'a> {
    /// The input's name.
    pub input: &'a str,
    /// The feed's name.
    pub feed: &'a str,
    /// The partition.
    pub partition: &'a str,
    /// The epoch at which they arrived.
    pub epoch: Epoch,
}

/// The letters for refused records of a delivery, or for a file as a whole.
pub fn of_rejects(
    codec: &RowCodec,
    rejects: &[Reject],
    raw: &Raw,
    from: DeadLetterOrigin<'_>,
) -> Result<Vec<Row>, CodecError> {
    let n = rejects.len();
    let offset = |record: u32| raw.offsets[record as usize] as i64;
    let (values, keys, headers) = match &raw.payloads {
        Payloads::Records {
            values, keys, headers, ..
        } => (Some(values), keys.as_ref(), headers.as_ref()),
        Payloads::Columns { .. } => (None, None, None),
    };
    let repeated = |text: &str| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, n))) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            rejects
                .iter()
                .map(|r| if r.record.is_some() { "record" } else { "file" }),
        )),
        repeated(from.input),
        Arc::new(StringArray::new_null(n)),
        repeated(from.feed),
        repeated(from.partition),
        Arc::new(Int64Array::from_iter(rejects.iter().map(|r| r.record.map(offset)))),
        Arc::new(StringArray::from_iter_values(rejects.iter().map(|r| r.reason.as_str()))),
        match &raw.payloads {
            Payloads::Columns { batch, .. } => Arc::new(rows_shown(rejects, raw, batch)) as ArrayRef,
            Payloads::Records { .. } => Arc::new(BinaryArray::from_iter(refused(rejects, values))),
        },
        Arc::new(Int64Array::from_value(from.epoch as i64, n)),
        Arc::new(BinaryArray::from_iter(refused(rejects, keys))),
        Arc::new(StringArray::from_iter(refused(rejects, headers))),
    ];
    codec.encode_rows(&columns, n)
}

/// The refused rows of a columnar file as JSON. A row longer than `max_record` is left out, because its length is
/// unbounded.
fn rows_shown(rejects: &[Reject], raw: &Raw, batch: &RecordBatch) -> BinaryArray {
    let container = ContainerJson::new(batch);
    BinaryArray::from_iter(rejects.iter().map(|reject| {
        let row = reject
            .record
            .filter(|row| raw.cut.iter().all(|cut| cut.record != *row))? as usize;
        match &container {
            Some(container) => container.json(row),
            None => Some(row_json(&batch.slice(row, 1))),
        }
    }))
}

/// The values of a column of records at the refused records, in their order.
fn refused<A: ArrayAccessor + Copy>(rejects: &[Reject], column: Option<A>) -> impl Iterator<Item = Option<A::Item>> {
    rejects.iter().map(move |reject| {
        let (column, record) = (column?, reject.record? as usize);
        column.is_valid(record).then(|| column.value(record))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;

    #[test]
    fn an_error_row_between_constant_bytes_is_a_letter() {
        let error = RowCodec::new(Arc::new(Schema::new(vec![
            Field::new("reason", DataType::Utf8, false),
            Field::new("payload", DataType::Binary, true),
        ])))
        .expect("text and bytes make rows");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["division by zero"])),
            Arc::new(BinaryArray::from(vec![&b"{\"n\":0}"[..]])),
        ];
        let row = error.encode_rows(&columns, 1).expect("one error").remove(0);
        let letter = DeadLetterBuilder::of_table("gold.ratio")
            .expect("constant columns")
            .seal(&row);
        let batch = RowCodec::new(schema())
            .expect("the letters' schema")
            .decode([letter.bytes()])
            .expect("a letter");
        assert_eq!(batch.column(2).as_string::<i32>().value(0), "gold.ratio");
        assert_eq!(batch.column(6).as_string::<i32>().value(0), "division by zero");
        assert_eq!(batch.column(7).as_binary::<i32>().value(0), b"{\"n\":0}");
        assert!(batch.column(8).is_null(0));
    }
}
