//! UUIDs in columnar files. A BINARY column takes their sixteen bytes; any other column takes their text,
//! `01234567-89ab-cdef-0123-456789abcdef`, because the bytes as text would be nonsense even where they happen to be
//! UTF-8.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use uuid::Uuid;

use crate::decode::path;
use crate::repr::SqlType;

/// The metadata that marks a field as UUIDs.
pub(in crate::decode) const UUID: (&str, &str) = ("ARROW:extension:name", "arrow.uuid");

/// Whether a field is marked as one of UUIDs.
pub(super) fn is_uuid(field: &Field) -> bool {
    *field.data_type() == DataType::FixedSizeBinary(16)
        && field.metadata().get(UUID.0).is_some_and(|name| name == UUID.1)
}

/// Converts the values of a field for a column of this type.
pub(super) fn taken(array: ArrayRef, field: Option<&Field>, sql_type: &SqlType) -> ArrayRef {
    match field {
        Some(field) if is_uuid(field) && *sql_type != SqlType::Binary => {
            let values = array.as_fixed_size_binary();
            let texts = (0..values.len()).map(|row| values.is_valid(row).then(|| text(values, row)));
            Arc::new(StringArray::from_iter(texts))
        }
        _ => array,
    }
}

/// A value's text.
pub(super) fn text(values: &FixedSizeBinaryArray, row: usize) -> String {
    let bytes = values.value(row).try_into().expect("such values have sixteen bytes");
    Uuid::from_bytes(bytes).to_string()
}

/// The field with a name, or with a path into structs.
pub(super) fn field_of(batch: &RecordBatch, name: &str) -> Option<FieldRef> {
    let fields = batch.schema_ref().fields();
    if let Some((_, field)) = fields.find(name) {
        return Some(field.clone());
    }
    let steps = path::steps(name);
    let (first, inner) = steps.split_first()?;
    let mut field = fields.find(first)?.1;
    for step in inner {
        let DataType::Struct(fields) = field.data_type() else {
            return None;
        };
        field = fields.find(step)?.1;
    }
    Some(field.clone())
}
