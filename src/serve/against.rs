//! Compares every table of a lake with the same table of another lake, each at its newest snapshot.
//!
//! Tables are compared as multisets of rows. Both sides are streamed. Memory holds one count for each row that
//! occurred on one side and not yet on the other, for a slice of the rows at a time ([`SLICE`]), so it does not grow
//! with the table. Doubles that agree to nine digits count as equal, as in `verify`. Columns that say when Alluvium
//! took a record are left out, because two lakes fed by the same feeds differ in them: the epochs of Bronze and of
//! dead letters, and Bronze's `ingest_time`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use twox_hash::XxHash3_128;

use super::query::{LakeSnapshot, QueryError};
use super::verify::{Difference, VerifyError, differences, nullable, rounded, runtime};
use crate::definition::Dataflow;
use crate::lake::{Lake, LakeLayer, bronze_input, bronze_table, schema_and_name};
use crate::repr::{Epoch, RowCodec, normalise_batch, normalise_schema};

/// About the number of rows that are compared in one pass: at some 40 bytes each, 160 MB if no two of them match.
const SLICE: u64 = 4 << 20;
/// The most differing rows of a table that are fetched for examples.
const SHOWN: usize = 10_000;

/// The differences between two lakes.
#[derive(Debug)]
pub struct LakeComparison {
    /// The snapshot of the dataflow's lake.
    pub epoch: Epoch,
    /// The snapshot of the other lake.
    pub other: Epoch,
    /// The tables, in the order of commits.
    pub tables: Vec<Compared>,
}

/// The differences between two tables.
#[derive(Debug)]
pub struct Compared {
    /// The name: `bronze.orders`, `dead_letters`, `gold.sums`.
    pub table: String,
    /// The number of rows in the dataflow's lake, and in the other; none if the lake lacks the table.
    pub rows: [Option<u64>; 2],
    /// Columns that only one of the two has.
    pub columns: Vec<String>,
    /// Columns that were not compared.
    pub left_out: &'static [&'static str],
    /// The number of distinct rows that differ.
    pub differing: u64,
    /// Some of these rows; `expected` is how often the other lake has the row.
    pub examples: Vec<Difference>,
}

impl Compared {
    /// Whether the tables are equal. A table that neither lake has counts as equal.
    pub fn is_equal(&self) -> bool {
        let [ours, theirs] = self.rows;
        // A missing table counts as empty, because no reader can tell the two apart.
        self.differing == 0 && self.columns.is_empty() && ours.unwrap_or(0) == theirs.unwrap_or(0)
    }
}

/// Compares the tables of a dataflow's lake with those of another lake.
pub fn against(dataflow: &Dataflow, other: &str) -> Result<LakeComparison, VerifyError> {
    let ours = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let theirs = Lake::open(other, &dataflow.store_options)?;
    runtime()?.block_on(async {
        let sides = [
            LakeSnapshot::open(&ours, None).await?,
            LakeSnapshot::open(&theirs, None).await?,
        ];
        let bronze = dataflow.inputs.iter().filter(|input| input.bronze);
        let names = bronze
            .map(|input| bronze_table(&input.name))
            .chain(["dead_letters".to_string()])
            .chain(dataflow.tables.iter().map(|table| table.qualified_name()));
        let mut tables = Vec::new();
        for name in names {
            tables.push(compare(&sides, name, SLICE).await?);
        }
        let [ours, theirs] = sides;
        Ok(LakeComparison {
            epoch: ours.epoch(),
            other: theirs.epoch(),
            tables,
        })
    })
}

fn left_out(table: &str) -> &'static [&'static str] {
    match LakeLayer::of_table(table) {
        LakeLayer::Base if bronze_input(table).is_some() => &["ingest_time", "epoch"],
        LakeLayer::Base => &["epoch"],
        LakeLayer::Silver | LakeLayer::Gold => &[],
    }
}

async fn has_values(side: &LakeSnapshot, table: &str, column: &str) -> Result<bool, VerifyError> {
    let sql = format!("SELECT 1 FROM {} WHERE \"{column}\" IS NOT NULL LIMIT 1", quoted(table));
    let batches = side.query(&sql).await?.1;
    Ok(batches.iter().any(|batch| batch.num_rows() > 0))
}

/// One table on two sides.
struct Pair<'a> {
    sides: &'a [LakeSnapshot; 2],
    /// The query that each side runs.
    sql: String,
    schema: SchemaRef,
    codec: RowCodec,
}

async fn compare(sides: &[LakeSnapshot; 2], table: String, slice: u64) -> Result<Compared, VerifyError> {
    let left_out = left_out(&table);
    let mut compared = Compared {
        rows: [None, None],
        columns: vec![],
        left_out,
        differing: 0,
        examples: vec![],
        table,
    };
    let mut columns: [Vec<String>; 2] = Default::default();
    for (side, snapshot) in sides.iter().enumerate() {
        if snapshot.has(&compared.table) {
            compared.rows[side] = Some(count(snapshot, &compared.table).await?);
            let fields = shape(snapshot, &compared.table).await?;
            columns[side] = fields.fields().iter().map(|f| f.name().clone()).collect();
            columns[side].retain(|name| !left_out.contains(&name.as_str()));
        }
    }
    let [Some(ours), Some(theirs)] = compared.rows else {
        return Ok(compared);
    };
    let [mut mine, others] = columns;
    let alone = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|name| !others.contains(name)).cloned().collect()
    };
    for (side, names) in [alone(&mine, &others), alone(&others, &mine)].into_iter().enumerate() {
        for name in names {
            // A new column comes with the first rows that change, so the other lake may lack it only because it has no
            // values yet.
            if has_values(&sides[side], &compared.table, &name).await? {
                compared.columns.push(name);
            }
        }
    }
    mine.retain(|name| others.contains(name));
    if !compared.columns.is_empty() {
        return Ok(compared);
    }
    let selected: Vec<String> = mine.iter().map(|name| format!("\"{name}\"")).collect();
    let sql = format!("SELECT {} FROM {}", selected.join(", "), quoted(&compared.table));
    let shape = normalise_schema(
        sides[0]
            .context()
            .sql(&sql)
            .await
            .map_err(QueryError::from)?
            .schema()
            .as_arrow(),
    );
    let schema = nullable(&shape);
    let pair = Pair {
        sides,
        sql,
        codec: RowCodec::new(schema.clone())?,
        schema,
    };
    let passes = ours.max(theirs).div_ceil(slice).max(1);
    let mut differing: HashMap<u128, i64> = HashMap::new();
    for pass in 0..passes {
        let surplus = pair.surplus(pass, passes).await?;
        compared.differing += surplus.len() as u64;
        let room = SHOWN.saturating_sub(differing.len());
        differing.extend(surplus.into_iter().take(room));
    }
    if compared.differing > 0 {
        let [ours, theirs] = [pair.rows(0, &differing).await?, pair.rows(1, &differing).await?];
        let shown = differing.len() as u64;
        let examples = differences(&compared.table, &pair.schema, &theirs, &ours)?;
        // Rows that differ only in the last digits of a double are equal.
        if compared.differing == shown {
            compared.differing = examples.len() as u64;
        }
        compared.examples = examples;
    }
    Ok(compared)
}

impl Pair<'_> {
    /// For each hash, how many more rows of a slice the first side has than the second, where they differ.
    async fn surplus(&self, pass: u64, passes: u64) -> Result<HashMap<u128, i64>, VerifyError> {
        let mut surplus: HashMap<u128, i64> = HashMap::new();
        let mut streams = [(self.stream(0).await?, 1), (self.stream(1).await?, -1)];
        // The streams are read in turns, so that equal rows at similar places match soon.
        let mut open = 2;
        while open > 0 {
            open = 0;
            for (stream, sign) in &mut streams {
                let Some(batch) = stream.next().await else { continue };
                open += 1;
                let batch = self.normal(batch.map_err(QueryError::from)?)?;
                for hash in self.hashes(&batch)?.into_iter().filter(|h| *h as u64 % passes == pass) {
                    match surplus.entry(hash) {
                        Entry::Occupied(mut at) => {
                            *at.get_mut() += *sign;
                            if *at.get() == 0 {
                                at.remove();
                            }
                        }
                        Entry::Vacant(at) => drop(at.insert(*sign)),
                    }
                }
            }
        }
        Ok(surplus)
    }

    /// The rows of one side with these hashes.
    async fn rows(&self, side: usize, wanted: &HashMap<u128, i64>) -> Result<RecordBatch, VerifyError> {
        let mut stream = self.stream(side).await?;
        let mut matching = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = self.normal(batch.map_err(QueryError::from)?)?;
            let hashes = self.hashes(&batch)?;
            let mask: BooleanArray = hashes.iter().map(|hash| Some(wanted.contains_key(hash))).collect();
            if mask.true_count() > 0 {
                matching.push(filter_record_batch(&batch, &mask).expect("the mask was made from the batch"));
            }
        }
        Ok(concat_batches(&self.schema, &matching).expect("all are of one schema"))
    }

    async fn stream(&self, side: usize) -> Result<SendableRecordBatchStream, VerifyError> {
        let frame = self.sides[side]
            .context()
            .sql(&self.sql)
            .await
            .map_err(QueryError::from)?;
        Ok(frame.execute_stream().await.map_err(QueryError::from)?)
    }

    fn normal(&self, batch: RecordBatch) -> Result<RecordBatch, VerifyError> {
        Ok(normalise_batch(&self.schema, &batch)?)
    }

    fn hashes(&self, batch: &RecordBatch) -> Result<Vec<u128>, VerifyError> {
        let columns: Vec<_> = batch.columns().iter().map(rounded).collect();
        let rows = self.codec.encode(&columns)?;
        Ok(rows.iter().map(|row| XxHash3_128::oneshot(row.as_ref())).collect())
    }
}

async fn count(snapshot: &LakeSnapshot, table: &str) -> Result<u64, VerifyError> {
    let (_, batches) = snapshot
        .query(&format!("SELECT COUNT(*) FROM {}", quoted(table)))
        .await?;
    let counts = batches.iter().filter(|batch| batch.num_rows() > 0);
    let count = counts
        .map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0))
        .sum::<i64>();
    Ok(count as u64)
}

async fn shape(snapshot: &LakeSnapshot, table: &str) -> Result<SchemaRef, VerifyError> {
    let frame = snapshot
        .context()
        .sql(&format!("SELECT * FROM {}", quoted(table)))
        .await;
    Ok(frame.map_err(QueryError::from)?.schema().inner().clone())
}

fn quoted(table: &str) -> String {
    let (schema, name) = schema_and_name(table);
    format!("\"{schema}\".\"{name}\"")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::definition::load;
    use crate::run::{self, Options};

    /// A lake with these lines (id, amount, share) as input.
    fn lake(folder: &Path, name: &str, lines: &str) -> Dataflow {
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "dataflow.toml",
            "name = \"x\"\nepoch = \"1ms\"\ncommit = \"1ms\"\ndurability = \"none\"\n",
        );
        let input = "[columns]\nid = \"BIGINT\"\namount = \"BIGINT\"\nshare = \"DOUBLE\"\n[[feeds]]\nname = \"drops\"\n\
                     kind = \"files\"\nformat = \"csv\"\n";
        write("inputs/rows.toml", &format!("{input}path = \"{name}/*.csv\"\n"));
        write("silver/rows.sql", "SELECT * FROM rows");
        write(&format!("{name}/a.csv"), &format!("id,amount,share\n{lines}"));
        let mut dataflow = load(folder, &|_| None).unwrap();
        dataflow.lake = folder.join("lakes").join(name).display().to_string();
        let options = Options {
            until_caught_up: true,
            ..Options::default()
        };
        run::run(Arc::new(dataflow.clone()), &options).unwrap();
        dataflow
    }

    #[test]
    fn rows_are_multisets_whatever_the_slices_and_doubles_count_to_nine_digits() {
        let folder = tempfile::tempdir().unwrap();
        let rows = |from: u32, to: u32| -> String { (from..to).map(|id| format!("{id},{},0.5\n", id % 3)).collect() };
        let one = lake(
            folder.path(),
            "one",
            &(rows(0, 50) + "50,1,1.0000000000001\n50,1,1\n7,7,\n"),
        );
        let two = lake(
            folder.path(),
            "two",
            &("7,7,\n7,7,\n50,1,1\n50,1,1\n".to_string() + &rows(1, 50)),
        );
        let [one, two] = [&one, &two].map(|flow| Lake::open(&flow.lake, &flow.store_options).unwrap());
        runtime().unwrap().block_on(async {
            let sides = [
                LakeSnapshot::open(&one, None).await.unwrap(),
                LakeSnapshot::open(&two, None).await.unwrap(),
            ];
            for slice in [1, 7, SLICE] {
                let compared = compare(&sides, "silver.rows".into(), slice).await.unwrap();
                assert_eq!(compared.rows, [Some(53), Some(53)]);
                assert!(!compared.is_equal());
                let mut examples: Vec<_> = compared
                    .examples
                    .iter()
                    .map(|d| (d.row.as_str(), d.found, d.expected))
                    .collect();
                examples.sort();
                let expected = [("id=0 amount=0 share=0.5", 1, 0), ("id=7 amount=7 share=null", 1, 2)];
                assert_eq!(examples, expected, "in slices of {slice}");
                assert_eq!(compared.differing, 2);
            }
            let bronze = compare(&sides, "bronze.rows".into(), SLICE).await.unwrap();
            assert_eq!(
                (bronze.left_out, bronze.is_equal()),
                (&["ingest_time", "epoch"][..], false)
            );
            let none = compare(&sides, "gold.none".into(), SLICE).await.unwrap();
            assert!(none.is_equal());
        });
    }
}
