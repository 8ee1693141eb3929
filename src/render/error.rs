//! Error rows: a row that could not be used, with the reason, as a row of its own.
//!
//! An error row has the columns reason (Utf8) and payload (Binary); the payload is the failing row as JSON. Equal rows
//! that fail for the same reason have equal error rows, so an error is retracted when its row is.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::repr::{CodecError, Row, RowCodec, row_json};

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("reason", DataType::Utf8, false),
        Field::new("payload", DataType::Binary, false),
    ]))
});

/// The schema of error rows.
pub fn error_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Makes error rows.
pub struct Errors {
    codec: RowCodec,
}

impl Default for Errors {
    fn default() -> Self {
        Errors { codec: error_codec() }
    }
}

/// A codec for error rows.
pub fn error_codec() -> RowCodec {
    RowCodec::new(error_schema()).expect("text and bytes have row encodings")
}

impl Errors {
    /// The error row of row `index` of `batch`.
    pub fn row(&self, reason: &str, batch: &RecordBatch, index: usize) -> Row {
        self.encode(reason, &row_json(&batch.slice(index, 1)))
    }

    /// The error row of an encoded row.
    pub fn encoded(&self, reason: &str, codec: &RowCodec, row: &[u8]) -> Row {
        match codec.decode([row]) {
            Ok(batch) => self.row(reason, &batch, 0),
            // This happens only with bytes that our codec did not write; the payload then has them unchanged.
            Err(_) => self.encode(reason, row),
        }
    }

    fn encode(&self, reason: &str, payload: &[u8]) -> Row {
        let reason = StringArray::from_iter_values([reason]);
        let payload = BinaryArray::from_iter_values([payload]);
        self.codec
            .encode_rows(&[Arc::new(reason), Arc::new(payload)], 1)
            .expect("the arrays have the codec's types")
            .swap_remove(0)
    }
}

/// Decodes the reason and the payload of an error row.
pub fn read_error(codec: &RowCodec, row: &Row) -> Result<(String, Vec<u8>), CodecError> {
    let batch = codec.decode([row.bytes()])?;
    let reason = batch.column(0).as_string::<i32>().value(0).to_string();
    let payload = batch.column(1).as_binary::<i32>().value(0).to_vec();
    Ok((reason, payload))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    /// Regression: the payload of a dead letter contained `ERROR: ...` in place of a date beyond the calendar.
    #[test]
    fn a_row_is_told_as_it_is_whatever_it_holds() {
        for column in crate::repr::extremes() {
            let rows = RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap();
            for row in 0..rows.num_rows() {
                let text = String::from_utf8(row_json(&rows.slice(row, 1))).unwrap();
                assert!(text.starts_with("{\"x\":") && !text.contains("ERROR"), "{text}");
            }
        }
    }
}
