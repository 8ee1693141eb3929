//! Converts the stored states of an input whose definition has new columns: rows get the new schema, with null in the
//! new columns.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::SchemaRef;

use super::change::{Change, ChangeParts, Flag, encode};
use crate::repr::{CodecError, Row, RowCodec};

/// Converts rows from one schema to another. Keys stay unchanged.
pub struct Reform {
    then: RowCodec,
    now: RowCodec,
    /// For each column of the new schema, the column of the old one.
    sources: Vec<Option<usize>>,
    schema: SchemaRef,
}

impl Reform {
    /// Columns are matched by name; those in both schemas must have the same type.
    pub fn new(then: SchemaRef, now: SchemaRef) -> Result<Self, CodecError> {
        let sources = now.fields().iter().map(|field| then.index_of(field.name()).ok());
        Ok(Reform {
            sources: sources.collect(),
            then: RowCodec::new(then)?,
            now: RowCodec::new(now.clone())?,
            schema: now,
        })
    }

    /// Converts the states of an input that folds changes by key.
    pub fn apply(&self, states: Vec<(Row, Row)>) -> Vec<(Row, Row)> {
        let live: Vec<Change<'_>> = states.iter().map(|(_, state)| Change::read(state.bytes())).collect();
        let rows = live.iter().filter(|change| change.flag() == Flag::Live);
        let rows: Vec<&[u8]> = rows.map(Change::row).collect();
        let count = rows.len();
        let batch = self
            .then
            .decode(rows)
            .expect("an input's rows were encoded by its codec");
        let column = |(source, field): (&Option<usize>, &arrow::datatypes::FieldRef)| -> ArrayRef {
            match source {
                Some(source) => batch.column(*source).clone(),
                None => new_null_array(field.data_type(), count),
            }
        };
        let columns: Vec<ArrayRef> = self.sources.iter().zip(self.schema.fields()).map(column).collect();
        let rows = self
            .now
            .encode_rows(&columns, count)
            .expect("columns of both forms are of one type");
        let (mut rows, mut buffer) = (rows.into_iter(), Vec::new());
        let reformed = live.iter().map(|change| match change.flag() {
            Flag::Live => {
                let row = rows.next().expect("there is a row for each live state");
                let parts = ChangeParts {
                    order: change.order(),
                    arrival: change.arrival(),
                    flag: Flag::Live,
                    until: change.until(),
                    unchanged: &[],
                    row: row.bytes(),
                };
                Some(encode(&mut buffer, &parts))
            }
            _ => None,
        });
        let reformed: Vec<Option<Row>> = reformed.collect();
        let states = states.into_iter().zip(reformed);
        states
            .map(|((key, state), reformed)| (key, reformed.unwrap_or(state)))
            .collect()
    }
}
