//! The dead letters of a snapshot as the sink writes them: for whoever carries them on, copies them or feeds them again.

use arrow::array::RecordBatch;

use super::{QueryError, Snapshot};
use crate::repr::{CodecError, Row, RowCodec, normalise_batch};
use crate::sink::dead_letters;

/// Some dead letters.
pub struct Letters {
    /// As columns of [`dead_letters::schema`].
    pub batch: RecordBatch,
    /// As rows.
    pub rows: Vec<Row>,
}

impl Letters {
    /// Of a batch of the table's columns.
    fn of(batch: &RecordBatch) -> Result<Letters, CodecError> {
        let schema = dead_letters::schema();
        let batch = normalise_batch(&schema, batch)?;
        let rows = RowCodec::new(schema)?.encode_rows(batch.columns(), batch.num_rows())?;
        Ok(Letters { batch, rows })
    }
}

impl Snapshot {
    /// The dead letters of which a condition on their columns holds. None in a snapshot without the table.
    ///
    /// # Errors
    /// A table that cannot be read, or has other columns.
    pub async fn letters(&self, condition: &str) -> Result<Vec<Letters>, QueryError> {
        if !self.has("dead_letters") {
            return Ok(vec![]);
        }
        let schema = dead_letters::schema();
        let there = self.context().table_provider("dead_letters").await?.schema();
        let column = |name: &String| match there.column_with_name(name) {
            Some(_) => format!("{name:?}"),
            None => format!("NULL AS {name:?}"), // tables of earlier versions lack the last
        };
        let columns: Vec<String> = schema.fields().iter().map(|f| column(f.name())).collect();
        let sql = format!("SELECT {} FROM dead_letters WHERE {condition}", columns.join(", "));
        let batches = self.query(&sql).await?.1;
        Ok(batches.iter().map(Letters::of).collect::<Result<_, _>>()?)
    }
}
