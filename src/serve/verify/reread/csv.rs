//! Reads CSV records with arrow-csv.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema};

use crate::definition::TextDialect;

/// The fields of records as texts, named as in the header, or `#1`, `#2` without one. None if arrow-csv fails, or
/// finds another number of records.
pub fn fields(dialect: &TextDialect, header: Option<&str>, records: &[&[u8]]) -> Option<RecordBatch> {
    let mut format = Format::default()
        .with_header(header.is_some())
        .with_delimiter(dialect.delimiter)
        .with_quote(dialect.quote?)
        .with_truncated_rows(true);
    if let Some(escape) = dialect.escape {
        format = format.with_escape(escape);
    }
    let mut text = Vec::with_capacity(records.iter().map(|record| record.len() + 1).sum());
    if let Some(header) = header {
        line(&mut text, header.as_bytes());
    }
    for record in records {
        line(&mut text, record);
    }
    let (named, _) = format
        .infer_schema(&text[..], Some(usize::from(header.is_none())))
        .ok()?;
    let names = named.fields().iter().enumerate().map(|(n, field)| match header {
        Some(_) => field.name().clone(),
        None => format!("#{}", n + 1),
    });
    let texts: Vec<Field> = names.map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let reader = ReaderBuilder::new(Arc::new(Schema::new(texts)))
        .with_format(format)
        .with_batch_size(records.len() + 1);
    let mut batches = reader.build(&text[..]).ok()?;
    let batch = batches.next()?.ok()?;
    (batch.num_rows() == records.len() && batches.next().is_none()).then_some(batch)
}

/// Writes a record as one line. A byte order mark before a record is not part of its text.
fn line(text: &mut Vec<u8>, record: &[u8]) {
    let record = record.strip_prefix("\u{feff}".as_bytes()).unwrap_or(record);
    let ends = record.iter().rev().take_while(|byte| b"\r\n".contains(byte)).count();
    text.extend_from_slice(&record[..record.len() - ends]);
    text.push(b'\n');
}
