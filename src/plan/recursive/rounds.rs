//! Computes a recursive query in batch, round by round, as the standard defines it.

use std::collections::HashMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};

use datafusion::logical_expr::LogicalPlan;

use super::{MOST_EQUAL, Recursion};

/// The rows of recursive queries, by the names of their relations.
pub type OwnRows = HashMap<String, (SchemaRef, Vec<RecordBatch>)>;

/// The rows of a table's recursive queries. Rows that are dead letters in the graph are left out: those of
/// rounds beyond the last, and those that are there too often. `run` runs a plan that may read the given
/// relations besides inputs and tables, and yields batches with the given schema.
///
/// # Errors
/// Those of `run`, and columns of a type that the row format does not support.
pub async fn own_rows<E: From<ArrowError>>(
    recursions: &[Recursion],
    mut run: impl AsyncFnMut(&LogicalPlan, &SchemaRef, &OwnRows) -> Result<Vec<RecordBatch>, E>,
) -> Result<OwnRows, E> {
    let mut own = OwnRows::new();
    for recursion in recursions {
        let schema = &recursion.schema;
        let most = if recursion.distinct { 1 } else { MOST_EQUAL + 1 };
        let mut tally = Tally::new(recursion, most)?;
        let mut all = vec![];
        let mut round = tally.admitted(run(&recursion.base, schema, &own).await?)?;
        let mut number = 0;
        while !round.is_empty() {
            all.extend(round.iter().cloned());
            if number == recursion.most_rounds {
                break;
            }
            number += 1;
            own.insert(recursion.before.clone(), (schema.clone(), round));
            round = tally.admitted(run(&recursion.step, schema, &own).await?)?;
        }
        if !recursion.distinct {
            all = tally.without_the_many(all)?;
        }
        own.insert(recursion.name.clone(), (schema.clone(), all));
    }
    Ok(own)
}

/// Counts how often each row has come.
struct Tally {
    converter: RowConverter,
    /// How often a row may come.
    most: i64,
    counts: HashMap<OwnedRow, i64>,
}

impl Tally {
    fn new(recursion: &Recursion, most: i64) -> Result<Tally, ArrowError> {
        let fields = recursion.schema.fields().iter();
        Ok(Tally {
            converter: RowConverter::new(fields.map(|f| SortField::new(f.data_type().clone())).collect())?,
            most,
            counts: HashMap::new(),
        })
    }

    /// The rows that have not yet come as often as they may. Counts them.
    fn admitted(&mut self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, ArrowError> {
        self.select_rows(batches, |count, most| {
            *count += 1;
            *count <= most
        })
    }

    /// The rows that have come fewer than `most` times in all.
    fn without_the_many(&mut self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, ArrowError> {
        self.select_rows(batches, |count, most| *count < most)
    }

    fn select_rows(
        &mut self,
        batches: Vec<RecordBatch>,
        keep: impl Fn(&mut i64, i64) -> bool,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut selected = vec![];
        for batch in batches {
            let rows = self.converter.convert_columns(batch.columns())?;
            let mut places: Vec<u32> = vec![];
            for (place, row) in (0..).zip(rows.iter()) {
                if keep(self.counts.entry(row.owned()).or_insert(0), self.most) {
                    places.push(place);
                }
            }
            if !places.is_empty() {
                selected.push(take_record_batch(&batch, &UInt32Array::from(places))?);
            }
        }
        Ok(selected)
    }
}
