//! Encodes columns into rows, and decodes them.
//!
//! Rows are arrow-row encodings of normalised columns: views, large variants and dictionaries become plain types,
//! `-0.0` becomes `0.0`, and every NaN becomes the same NaN, so that equal values have equal bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, RowParser, Rows, SortField};
use thiserror::Error;

use super::Row;

/// Why columns could not be encoded, or rows decoded.
#[derive(Debug, Error)]
pub enum CodecError {
    /// arrow refused the types or the bytes.
    #[error("could not encode or decode rows of ({schema})")]
    Arrow {
        /// The columns and their types.
        schema: String,
        /// The error of arrow.
        #[source]
        source: ArrowError,
    },
}

/// Encodes and decodes the rows of one schema.
///
/// Cheap to share by `Arc`; holds no state between calls.
pub struct RowCodec {
    schema: SchemaRef,
    converter: RowConverter,
    has_floats: bool,
}

impl RowCodec {
    /// A codec for this schema, whose types must be normalised ([`normalise_schema`]).
    pub fn new(schema: SchemaRef) -> Result<Self, CodecError> {
        let fields = schema
            .fields()
            .iter()
            .map(|f| SortField::new(f.data_type().clone()))
            .collect();
        let converter = RowConverter::new(fields).map_err(|source| failed(&schema, source))?;
        let has_floats = schema.fields().iter().any(|f| holds_floats(f.data_type()));
        Ok(RowCodec {
            schema,
            converter,
            has_floats,
        })
    }

    /// The schema of the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Encodes columns of this codec's types; `row(i)` of the result has the bytes of row i.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows, CodecError> {
        let canonical: Vec<ArrayRef>;
        let columns = if self.has_floats {
            canonical = columns.iter().map(canonical_floats).collect();
            &canonical
        } else {
            columns
        };
        self.converter
            .convert_columns(columns)
            .map_err(|source| failed(&self.schema, source))
    }

    /// Encodes `count` rows into owned rows.
    pub fn encode_rows(&self, columns: &[ArrayRef], count: usize) -> Result<Vec<Row>, CodecError> {
        if columns.is_empty() {
            return Ok(vec![Row::default(); count]);
        }
        let rows = self.encode(columns)?;
        Ok(rows.iter().map(|row| Row::new(row.as_ref())).collect())
    }

    /// Decodes rows, in order, into a batch of this codec's schema.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch, CodecError> {
        if self.schema.fields().is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(rows.into_iter().count()));
            return RecordBatch::try_new_with_options(self.schema.clone(), vec![], &options)
                .map_err(|source| failed(&self.schema, source));
        }
        let parser: RowParser = self.converter.parser();
        let columns = self
            .converter
            .convert_rows(rows.into_iter().map(|bytes| parser.parse(bytes)))
            .map_err(|source| failed(&self.schema, source))?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|source| failed(&self.schema, source))
    }
}

fn failed(schema: &Schema, source: ArrowError) -> CodecError {
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), f.data_type()))
        .collect();
    CodecError::Arrow {
        schema: columns.join(", "),
        source,
    }
}

fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            holds_floats(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|f| holds_floats(f.data_type())),
        _ => false,
    }
}

/// Makes zeros and NaNs uniform in a top-level column. Nested floats keep their bits, because only top-level columns
/// can be keys of a join or group.
pub fn canonical_floats(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        // `x + 0.0` turns -0.0 into 0.0 and does not change any other number.
        DataType::Float64 => Arc::new(
            column
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|x| if x.is_nan() { f64::NAN } else { x + 0.0 }),
        ),
        DataType::Float32 => Arc::new(
            column
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|x| if x.is_nan() { f32::NAN } else { x + 0.0 }),
        ),
        _ => column.clone(),
    }
}

/// The normalised type: no views, large variants or dictionaries; timestamps in microseconds, which is Delta's unit,
/// and with UTC in place of any other time zone.
pub fn normalise_type(data_type: &DataType) -> DataType {
    let field = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(normalise_type(f.data_type())));
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => normalise_type(value),
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _) => DataType::List(field(f)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        other => other.clone(),
    }
}

/// The schema with every type normalised; names and nullability do not change.
pub fn normalise_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_data_type(normalise_type(f.data_type())))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Casts a batch to a normalised schema, by position.
pub fn normalise_batch(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, CodecError> {
    let columns: Result<Vec<ArrayRef>, ArrowError> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(column.clone())
            } else {
                cast(column, field.data_type())
            }
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(schema.clone(), columns, &options))
        .map_err(|source| failed(schema, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray};

    fn codec(fields: Vec<(&str, DataType)>) -> RowCodec {
        let fields: Vec<Field> = fields.into_iter().map(|(n, t)| Field::new(n, t, true)).collect();
        RowCodec::new(Arc::new(Schema::new(fields))).expect("types that rows can hold")
    }

    #[test]
    fn a_row_of_two_tuples_is_their_concatenation() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(-7)]));
        let (left, right) = (codec(vec![("t", DataType::Utf8)]), codec(vec![("n", DataType::Int64)]));
        let both = codec(vec![("t", DataType::Utf8), ("n", DataType::Int64)]);
        let l = left.encode_rows(std::slice::from_ref(&text), 2).unwrap();
        let r = right.encode_rows(std::slice::from_ref(&number), 2).unwrap();
        let joined: Vec<Row> = l
            .iter()
            .zip(&r)
            .map(|(l, r)| Row::concat(l.bytes(), r.bytes()))
            .collect();
        assert_eq!(joined, both.encode_rows(&[text.clone(), number.clone()], 2).unwrap());
        let decoded = both.decode(joined.iter().map(Row::bytes)).unwrap();
        assert_eq!(decoded.columns(), &[text, number]);
    }

    #[test]
    fn equal_floats_are_equal_rows() {
        let codec = codec(vec![("x", DataType::Float64)]);
        let rows = codec
            .encode_rows(&[Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]))], 4)
            .unwrap();
        assert_eq!(rows[0], rows[1]);
        assert_eq!(rows[2], rows[3]);
    }
}
