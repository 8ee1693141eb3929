//! Reads JSON records with arrow-json.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::ReaderBuilder;

use super::PlainColumn;

/// The fields of records as texts. A column with several possible names gets no field here, because the name that
/// counts depends on the record. None if arrow-json does not read each record as one object.
pub fn fields(columns: &[PlainColumn<'_>], records: &[&[u8]]) -> Option<RecordBatch> {
    let names = columns.iter().filter_map(|column| match column.from {
        [name] => Some(name),
        _ => None,
    });
    let mut names: Vec<&String> = names.collect();
    names.sort_unstable();
    names.dedup();
    let fields: Vec<Field> = names
        .iter()
        .map(|name| Field::new(*name, DataType::Utf8, true))
        .collect();
    let mut decoder = ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_batch_size(records.len())
        .with_coerce_primitive(true)
        .with_ignore_type_conflicts(true)
        .build_decoder()
        .ok()?;
    for (n, record) in records.iter().enumerate() {
        let record = record.strip_prefix("\u{feff}".as_bytes()).unwrap_or(record);
        // A row beside its schema, as Kafka Connect's converter writes it, is not an object of fields.
        if record.trim_ascii_start().starts_with(b"{\"schema\"") {
            return None;
        }
        decoder.decode(record).ok()?;
        if decoder.has_partial_record() || decoder.len() != n + 1 {
            return None;
        }
    }
    let batch = decoder.flush().ok()??;
    (batch.num_rows() == records.len()).then_some(batch)
}
