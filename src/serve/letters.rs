//! The dead letters of a snapshot: as the sink writes them, for whoever carries them on, copies them or feeds them again; and
//! counted by what is wrong with them.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::error::DataFusionError;
use futures::stream::{BoxStream, StreamExt, empty};

use super::{QueryError, Snapshot};
use crate::definition::Dataflow;
use crate::repr::{CodecError, Row, RowCodec, normalise_batch};
use crate::sink::{Lake, LakeError, dead_letters};

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

/// A text as conditions on columns of dead letters write it.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Snapshot {
    /// The dead letters of which a condition on their columns holds, as they are read: there may be millions. None in a
    /// snapshot without the table.
    ///
    /// # Errors
    /// A table that cannot be read, or has other columns; so for the stream's items.
    pub async fn letters(
        &self,
        condition: &str,
    ) -> Result<BoxStream<'static, Result<Letters, QueryError>>, QueryError> {
        if !self.has("dead_letters") {
            return Ok(empty().boxed());
        }
        let schema = dead_letters::schema();
        let there = self.context().table_provider("dead_letters").await?.schema();
        let column = |name: &String| match there.column_with_name(name) {
            Some(_) => format!("{name:?}"),
            None => format!("NULL AS {name:?}"), // tables of earlier versions lack the last
        };
        let columns: Vec<String> = schema.fields().iter().map(|f| column(f.name())).collect();
        let sql = format!("SELECT {} FROM dead_letters WHERE {condition}", columns.join(", "));
        let batches = self.context().sql(&sql).await?.execute_stream().await?;
        let letters = batches.map(|batch: Result<_, DataFusionError>| Ok(Letters::of(&batch?)?));
        Ok(letters.boxed())
    }
}

/// Dead letters of one source that are wrong in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterClass {
    /// `record`, `file` or `row`.
    pub kind: String,
    /// The input of records and files, the table of rows.
    pub source: String,
    /// The reason of one of them. Reasons that differ in numbers and quoted values alone, but for names of columns and
    /// expectations, are one class.
    pub reason: String,
    /// How many.
    pub letters: u64,
}

/// How many dead letters of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetterCounts {
    /// Records that no row could be made of.
    pub records: u64,
    /// Files, as a whole or from some record on.
    pub files: u64,
    /// Rows that a table refused, or that could not be computed.
    pub rows: u64,
}

impl LetterCounts {
    /// Counts the dead letters of the newest snapshot; of a lake without one there are none.
    ///
    /// # Errors
    /// A lake that cannot be read.
    pub fn read(dataflow: &Dataflow) -> Result<LetterCounts, QueryError> {
        let sql = "SELECT arrow_cast(kind, 'Utf8'), COUNT(*) FROM dead_letters GROUP BY kind";
        let mut counts = LetterCounts::default();
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

    /// Of all classes.
    pub fn of(classes: &[LetterClass]) -> LetterCounts {
        let of_kind = |kind: &str| {
            let of_kind = classes.iter().filter(|class| class.kind == kind);
            of_kind.map(|class| class.letters).sum()
        };
        LetterCounts {
            records: of_kind("record"),
            files: of_kind("file"),
            rows: of_kind("row"),
        }
    }

    /// The greater number of each kind.
    pub fn at_least(self, other: LetterCounts) -> LetterCounts {
        LetterCounts {
            records: self.records.max(other.records),
            files: self.files.max(other.files),
            rows: self.rows.max(other.rows),
        }
    }

    /// How many more there are than before, by kind.
    pub fn since(self, before: LetterCounts) -> LetterCounts {
        LetterCounts {
            records: self.records.saturating_sub(before.records),
            files: self.files.saturating_sub(before.files),
            rows: self.rows.saturating_sub(before.rows),
        }
    }
}

/// What the dead letters of the newest snapshot answer.
fn ask_letters(dataflow: &Dataflow, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(QueryError::Runtime)?;
    runtime.block_on(async {
        let snapshot = Snapshot::open_tables(&lake, None, |table| table == "dead_letters").await?;
        match snapshot.has("dead_letters") {
            true => Ok(snapshot.query(sql).await?.1),
            false => Ok(vec![]),
        }
    })
}

/// Counts the dead letters of the newest snapshot, the most frequent class first.
///
/// # Errors
/// A lake that cannot be read.
pub fn letter_classes(dataflow: &Dataflow) -> Result<Vec<LetterClass>, QueryError> {
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
        classes.extend((0..batch.num_rows()).map(|row| LetterClass {
            kind: text(0, row),
            source: text(1, row),
            reason: text(2, row),
            letters: letters.value(row) as u64,
        }));
    }
    Ok(classes)
}
