//! Tests another engine that writes to tables of a running dataflow: deltalake's own OPTIMIZE and append, as a user
//! would run them. Whatever the two do to each other, every table must end up right, as deltalake reads it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::definition::Dataflow;
use alluvium::lake::Lake;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use tokio::runtime::Runtime;

use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, Running, catch_up, snapshots};

const ROWS: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
v = "BIGINT"
[[feeds]]
name = "live"
kind = "log"
path = "live/rows"
format = "json"
"#;

const TABLES: [&str; 5] = [
    "bronze/rows",
    "silver/rows",
    "silver/parts",
    "gold/sums",
    "gold/rewritten",
];

fn folder(name: &str) -> Folder {
    let folder = Folder::new(name, &[("inputs/rows.toml", ROWS)]);
    folder.write("silver/rows.sql", "SELECT id, v FROM rows");
    folder.write("silver/rows.toml", "deletes = \"vectors\"\n");
    folder.write("silver/parts.sql", "SELECT id % 3 AS part, id, v FROM rows");
    folder.write("silver/parts.toml", "partition_by = [\"part\"]\n");
    folder.write(
        "gold/sums.sql",
        "SELECT id % 7 AS k, SUM(v) AS v, COUNT(*) AS n FROM silver.rows GROUP BY id % 7",
    );
    folder.write("gold/rewritten.sql", "SELECT id, v FROM silver.rows WHERE id % 5 = 0");
    folder.write("gold/rewritten.toml", "deletes = \"rewrite\"\n");
    folder
}

fn feed(folder: &Folder, round: u64) {
    let mut text = String::new();
    for id in 0..600u64 {
        if round == 0 || (id * 7 + round * 13).is_multiple_of(11) {
            let v = (id + round) % 20;
            text += &format!("{{\"key\": {{\"id\": {id}}}, \"value\": {{\"id\": {id}, \"v\": {v}}}}}\n");
        } else if (id + round * 5).is_multiple_of(43) {
            text += &format!("{{\"key\": {{\"id\": {id}}}, \"value\": null}}\n");
        }
    }
    folder.append("live/rows/0.ndjson", &text);
}

struct Other {
    lake: Lake,
    runtime: Runtime,
}

impl Other {
    fn new(dataflow: &Dataflow) -> Other {
        Other {
            lake: Lake::open(&dataflow.lake, &dataflow.store_options).expect("the lake is there"),
            runtime: Runtime::new().expect("threads start"),
        }
    }

    fn table(&self, table: &str) -> DeltaTable {
        let mut handle = self.lake.delta_table(table);
        self.runtime.block_on(handle.load()).expect("deltalake opens it");
        handle
    }

    /// Runs OPTIMIZE; returns how many files it removed, or none if it met a conflict.
    fn optimize(&self, table: &str) -> Option<u64> {
        let handle = self.table(table);
        let done = self.runtime.block_on(handle.optimize().into_future());
        Some(done.ok()?.1.num_files_removed)
    }

    fn append(&self, table: &str, id: i64) {
        let columns: [(&str, ArrayRef); 2] = [
            ("id", Arc::new(Int64Array::from(vec![id]))),
            ("v", Arc::new(Int64Array::from(vec![1]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("two columns");
        let handle = self.table(table);
        self.runtime
            .block_on(handle.write([batch]).into_future())
            .expect("deltalake appends");
    }

    /// The answer of deltalake for a table's newest version.
    fn ask(&self, table: &str, sql: &str) -> String {
        let handle = self.table(table);
        self.runtime.block_on(async {
            let context = SessionContext::new();
            handle.update_datafusion_session(&context.state()).expect("a session");
            let provider = handle.table_provider().await.expect("a provider");
            context.register_table("t", provider).expect("it is registered");
            let batches = context
                .sql(sql)
                .await
                .expect("it plans")
                .collect()
                .await
                .expect("it reads");
            let rows = batches.iter().flat_map(|batch| {
                (0..batch.num_rows()).map(|row| {
                    let cells = batch.columns().iter();
                    let cells = cells.map(|c| arrow::util::display::array_value_to_string(c, row).expect("it prints"));
                    cells.collect::<Vec<_>>().join(",")
                })
            });
            rows.collect::<Vec<_>>().join("\n")
        })
    }
}

#[test]
fn tables_that_others_optimize_during_a_run_end_as_they_are_to_be() {
    let folder = folder("optimized");
    let dataflow = folder.load("lake");
    feed(&folder, 0);
    let running = Running::start(dataflow.clone(), 2);
    running.wait_until(|| snapshots(&dataflow) > 0);
    let other = Other::new(&dataflow);
    let (mut done, mut conflicts, mut round) = (0, 0, 0);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(12) {
        std::thread::scope(|scope| {
            let feeding = scope.spawn(|| {
                for _ in 0..20 {
                    round += 1;
                    feed(&folder, round);
                    std::thread::sleep(Duration::from_millis(15));
                }
            });
            for table in TABLES {
                match other.optimize(table) {
                    Some(files) => done += files,
                    None => conflicts += 1,
                }
            }
            feeding.join().expect("the feeder does not panic");
        });
    }
    // Further changes without the other engine use what was undone or moved.
    for _ in 0..20 {
        round += 1;
        feed(&folder, round);
        std::thread::sleep(Duration::from_millis(15));
    }
    running.stop();
    assert!(
        done > 20,
        "{done} files were rewritten by the other engine, {conflicts} conflicts"
    );
    assert_newest_is_exact(&dataflow, "after a run with another engine beside it");
    for (table, sql) in [
        ("silver/rows", "SELECT COUNT(*), SUM(id), SUM(v) FROM t"),
        ("gold/sums", "SELECT COUNT(*), SUM(n), SUM(v) FROM t"),
        ("silver/parts", "SELECT COUNT(*), SUM(id), SUM(part) FROM t"),
        ("gold/rewritten", "SELECT COUNT(*), SUM(id), SUM(v) FROM t"),
    ] {
        let ours = ask(
            &dataflow,
            &sql.replace("FROM t", &format!("FROM {}", table.replace('/', "."))),
        );
        assert_eq!(other.ask(table, sql), ours, "{table}");
    }
    // A restart finds nothing to correct, even after an OPTIMIZE while no run was active.
    for table in TABLES {
        other.optimize(table).expect("there is nobody to be in conflict with");
    }
    assert_eq!(catch_up(&dataflow, 3).corrections, Some(vec![]));
    assert_newest_is_exact(&dataflow, "after a restart behind an OPTIMIZE");
    feed(&folder, round + 1);
    catch_up(&dataflow, 1);
    assert_newest_is_exact(&dataflow, "after changes of what was optimized");
}

/// Rows that the graph does not know stay while it runs; the next audit reports and removes them.
#[test]
fn rows_that_others_append_are_removed_by_the_next_audit_which_says_so() {
    let folder = folder("appended");
    let dataflow = folder.load("lake");
    feed(&folder, 0);
    let running = Running::start(dataflow.clone(), 2);
    running.wait_until(|| snapshots(&dataflow) > 0);
    let other = Other::new(&dataflow);
    // One of the rows is unknown to the graph, the other one exists already: each row must exist once in the end.
    let known: i64 = 21; // Its v is 1 from the start.
    other.append("silver/rows", 1_000_000);
    other.append("silver/rows", known);
    feed(&folder, 1);
    let before = snapshots(&dataflow);
    running.wait_until(|| snapshots(&dataflow) > before);
    running.stop();
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*) FROM silver.rows WHERE id = 1000000"),
        "1"
    );
    let outcome = catch_up(&dataflow, 1);
    assert_eq!(outcome.corrections, Some(vec![("silver.rows".to_string(), 2)]));
    assert_newest_is_exact(&dataflow, "behind the audit");
}
