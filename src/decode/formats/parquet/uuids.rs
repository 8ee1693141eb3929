//! UUIDs in Parquet: columns of sixteen bytes with a logical type. The reader drops that type, so it is added here to
//! the field's metadata, in the form in which Arrow's own writers mark UUIDs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::LogicalType;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use crate::decode::columns::UUID;
use crate::decode::formats::parquet::{Damage, plain};

/// The file's metadata with such columns marked.
pub(super) fn marked(read: ArrowReaderMetadata) -> Result<ArrowReaderMetadata, Damage> {
    let file = read.parquet_schema();
    if !file.columns().iter().any(is_uuid) {
        return Ok(read);
    }
    let mut column = 0;
    let fields = read.schema().fields().iter();
    let fields: Vec<FieldRef> = fields.map(|field| mark(field, file, &mut column)).collect();
    let schema = Schema::new_with_metadata(fields, read.schema().metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(read.metadata().clone(), options).map_err(|error| Damage(plain(&error)))
}

fn is_uuid(column: &ColumnDescPtr) -> bool {
    column.logical_type_ref() == Some(&LogicalType::Uuid)
}

/// Marks a field. `column` is the index of its first leaf column in the file, and is advanced over its leaf columns.
fn mark(field: &FieldRef, file: &SchemaDescriptor, column: &mut usize) -> FieldRef {
    let mut inside = |field: &FieldRef| mark(field, file, column);
    let of = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inside).collect()),
        DataType::List(item) => DataType::List(inside(item)),
        DataType::LargeList(item) => DataType::LargeList(inside(item)),
        DataType::FixedSizeList(item, width) => DataType::FixedSizeList(inside(item), *width),
        DataType::Map(entries, sorted) => DataType::Map(inside(entries), *sorted),
        plain => {
            let is_marked = file.columns().get(*column).is_some_and(is_uuid);
            *column += 1;
            if !is_marked || *plain != DataType::FixedSizeBinary(16) {
                return field.clone();
            }
            let mut metadata = field.metadata().clone();
            metadata.insert(UUID.0.to_string(), UUID.1.to_string());
            return Arc::new(Field::clone(field).with_metadata(metadata));
        }
    };
    Arc::new(Field::clone(field).with_data_type(of))
}
