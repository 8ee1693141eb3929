//! Error rows: (reason, payload), encoded.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use crate::repr::{Row, RowCodec};

/// Encodes error rows.
pub(super) struct ErrorCodec(RowCodec);

impl ErrorCodec {
    /// The codec that all error rows share.
    pub fn new() -> Self {
        let fields = vec![
            Field::new("reason", DataType::Utf8, false),
            Field::new("payload", DataType::Binary, true),
        ];
        ErrorCodec(RowCodec::new(Arc::new(Schema::new(fields))).expect("text and bytes can be encoded"))
    }

    /// The error row for this reason and payload.
    pub fn row(&self, reason: &str, payload: &[u8]) -> Row {
        let columns: [ArrayRef; 2] = [
            Arc::new(StringArray::from(vec![reason])),
            Arc::new(BinaryArray::from_vec(vec![payload])),
        ];
        let mut rows = self.0.encode_rows(&columns, 1).expect("columns of the codec's types");
        rows.pop().expect("one row was encoded")
    }
}
