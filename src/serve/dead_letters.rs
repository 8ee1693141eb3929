//! Reads the dead letters of a snapshot in the sink's columns, for components that keep, copy or replay them; and
//! counts them by what is wrong.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::error::DataFusionError;
use futures::stream::{BoxStream, StreamExt, empty};

use super::{LakeSnapshot, QueryError};
use crate::definition::Dataflow;
use crate::lake::{Lake, LakeError};
use crate::repr::{CodecError, Row, RowCodec, normalise_batch};
use crate::runtime::query_runtime;
use crate::sink::dead_letters;

/// A batch of dead letters.
pub struct DeadLetterRows {
    /// The letters as columns of [`dead_letters::schema`].
    pub batch: RecordBatch,
    /// The same letters as encoded rows.
    pub rows: Vec<Row>,
}

impl DeadLetterRows {
    /// Converts a batch with the table's columns.
    fn from_batch(batch: &RecordBatch) -> Result<DeadLetterRows, CodecError> {
        let schema = dead_letters::schema();
        let batch = normalise_batch(&schema, batch)?;
        let rows = RowCodec::new(schema)?.encode_rows(batch.columns(), batch.num_rows())?;
        Ok(DeadLetterRows { batch, rows })
    }
}

/// A text as an SQL literal in conditions on dead letters.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl LakeSnapshot {
    /// Streams the dead letters that meet a condition on their columns: there may be millions. The stream is empty if
    /// the snapshot lacks the table.
    ///
    /// # Errors
    /// The table cannot be read, or has other columns; the stream's items fail for the same reasons.
    pub async fn letters(
        &self,
        condition: &str,
    ) -> Result<BoxStream<'static, Result<DeadLetterRows, QueryError>>, QueryError> {
        if !self.has("dead_letters") {
            return Ok(empty().boxed());
        }
        let schema = dead_letters::schema();
        let existing = self.context().table_provider("dead_letters").await?.schema();
        let column = |name: &String| match existing.column_with_name(name) {
            Some(_) => format!("{name:?}"),
            None => format!("NULL AS {name:?}"), // tables of earlier versions lack the last
        };
        let columns: Vec<String> = schema.fields().iter().map(|f| column(f.name())).collect();
        let sql = format!("SELECT {} FROM dead_letters WHERE {condition}", columns.join(", "));
        let batches = self.context().sql(&sql).await?.execute_stream().await?;
        let letters = batches.map(|batch: Result<_, DataFusionError>| Ok(DeadLetterRows::from_batch(&batch?)?));
        Ok(letters.boxed())
    }
}

/// Dead letters of one source with the same kind of reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterClass {
    /// `record`, `file` or `row`.
    pub kind: String,
    /// The input of records and files; for rows, the table.
    pub source: String,
    /// The reason of one of them. Reasons that differ only in numbers and quoted values belong to one class, unless
    /// the quoted value is the name of a column or an expectation.
    pub reason: String,
    /// The number of letters.
    pub letters: u64,
}

/// The number of dead letters of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterCounts {
    /// Records that could not be decoded to rows.
    pub records: u64,
    /// Files that could not be read, as a whole or from some record on.
    pub files: u64,
    /// Rows that a table refused, or that failed to evaluate.
    pub rows: u64,
}

impl DeadLetterCounts {
    /// Counts the dead letters of the newest snapshot. A lake without a snapshot has none.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub fn read(dataflow: &Dataflow) -> Result<DeadLetterCounts, QueryError> {
        let sql = "SELECT arrow_cast(kind, 'Utf8'), COUNT(*) FROM dead_letters GROUP BY kind";
        let mut counts = DeadLetterCounts::default();
        let batches = match ask_letters(dataflow, sql) {
            Err(QueryError::Empty(_) | QueryError::Lake(LakeError::Absent { .. })) => vec![],
            batches => batches?,
        };
        for batch in batches {
            let kinds = batch.column(0).as_string::<i32>();
            let letters = batch.column(1).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let count = match kinds.value(row) {
                    "record" => &mut counts.records,
                    "file" => &mut counts.files,
                    _ => &mut counts.rows,
                };
                *count += letters.value(row) as u64;
            }
        }
        Ok(counts)
    }

    /// Sums up classes.
    pub fn of_classes(classes: &[DeadLetterClass]) -> DeadLetterCounts {
        let of_kind = |kind: &str| {
            let of_kind = classes.iter().filter(|class| class.kind == kind);
            of_kind.map(|class| class.letters).sum()
        };
        DeadLetterCounts {
            records: of_kind("record"),
            files: of_kind("file"),
            rows: of_kind("row"),
        }
    }

    /// The greater number of each kind.
    pub fn at_least(self, other: DeadLetterCounts) -> DeadLetterCounts {
        DeadLetterCounts {
            records: self.records.max(other.records),
            files: self.files.max(other.files),
            rows: self.rows.max(other.rows),
        }
    }

    /// The increase of each kind since `before`.
    pub fn since(self, before: DeadLetterCounts) -> DeadLetterCounts {
        DeadLetterCounts {
            records: self.records.saturating_sub(before.records),
            files: self.files.saturating_sub(before.files),
            rows: self.rows.saturating_sub(before.rows),
        }
    }
}

/// Runs a query on the dead letters of the newest snapshot.
fn ask_letters(dataflow: &Dataflow, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let runtime = query_runtime().map_err(QueryError::Runtime)?;
    runtime.block_on(async {
        let snapshot = LakeSnapshot::open_tables(&lake, None, |table| table == "dead_letters").await?;
        match snapshot.has("dead_letters") {
            true => Ok(snapshot.query(sql).await?.1),
            false => Ok(vec![]),
        }
    })
}

/// Counts the dead letters of the newest snapshot, the most frequent class first.
///
/// # Errors
/// The lake cannot be read.
pub fn letter_classes(dataflow: &Dataflow) -> Result<Vec<DeadLetterClass>, QueryError> {
    let sql = r#"
        SELECT arrow_cast(kind, 'Utf8'), arrow_cast(source, 'Utf8'), arrow_cast(MIN(reason), 'Utf8'), COUNT(*) AS n
        FROM (
          SELECT kind, COALESCE(table_name, input, '') AS source, reason,
                 regexp_replace(reason, '((?:column|expectation) "[^"]*")|"[^"]*"|''[^'']*''|[0-9]+', '\1#', 'g') AS class
          FROM dead_letters
        )
        GROUP BY kind, source, class
        ORDER BY n DESC, kind, source, class"#;
    let mut classes = Vec::new();
    for batch in ask_letters(dataflow, sql)? {
        let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_string();
        let letters = batch.column(3).as_primitive::<Int64Type>();
        classes.extend((0..batch.num_rows()).map(|row| DeadLetterClass {
            kind: text(0, row),
            source: text(1, row),
            reason: text(2, row),
            letters: letters.value(row) as u64,
        }));
    }
    Ok(classes)
}
