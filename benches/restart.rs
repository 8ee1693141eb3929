//! Measures the time from a run's start to its first new snapshot, over a lake that already holds much.
//!
//! `cargo bench --bench restart` (`-- 1M` for the small sizes only). There are two shapes: a keyed input, whose rows
//! are all kept as state; and events that are summed, of which only the sums are kept. A run of its own creates the
//! lake; then one more record arrives, and a second run takes it.

mod common;
#[path = "../tests/it/support.rs"]
#[allow(dead_code)]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use alluvium::definition;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use common::Measured;
use parquet::arrow::ArrowWriter;

/// The number of rows in one dropped file.
const FILE: i64 = 500_000;
const SIZES: [(&str, i64); 2] = [("1M", 1_000_000), ("10M", 10_000_000)];

fn main() {
    if let Some(case) = common::case() {
        let [folder, workers] = case.as_slice() else {
            panic!("a case is folder, workers");
        };
        return common::tell(&run(Path::new(folder), workers.parse().expect("a number of workers")));
    }
    println!("restart to the first new snapshot\n{}\n", common::machine());
    let mut table = common::Table::new(&[
        "state",
        "workers",
        "first load",
        "restart",
        "open",
        "index",
        "load",
        "audit",
        "rows loaded",
        "peak RSS",
        "lake",
    ]);
    for shape in ["keyed", "events"] {
        for (size, rows) in SIZES {
            if !common::wanted(size) {
                continue;
            }
            let folder = tempfile::tempdir().expect("a temporary folder");
            define(folder.path(), shape == "keyed");
            drop_files(folder.path(), rows);
            let path = folder.path().to_str().expect("a path in UTF-8");
            let first = common::child(&[path, "2"]);
            for (n, workers) in ["1", "2"].into_iter().enumerate() {
                append(folder.path(), n as i64);
                let told = common::child(&[path, workers]);
                assert_eq!(
                    (told["records"], told["corrections"]),
                    (1.0, 0.0),
                    "a restart takes what is new"
                );
                let phase = |name: &str| common::seconds(told.get(name).copied().unwrap_or(0.0));
                table.row(&[
                    format!("{shape} {size}"),
                    workers.to_string(),
                    common::seconds(first["seconds"]),
                    common::seconds(told["seconds"]),
                    phase("open"),
                    phase("index"),
                    phase("load"),
                    phase("audit"),
                    format!("{}", told["loaded"]),
                    common::bytes(told["peak_rss"]),
                    common::bytes(common::folder_bytes(&folder.path().join("lake")) as f64),
                ]);
            }
        }
    }
    table.print();
    println!("\nbudget: reading resumes within 20 s with 10M rows of state, zero corrections");
}

/// Runs in this process until all input is taken.
fn run(folder: &Path, workers: usize) -> Measured {
    let dataflow = definition::load(folder, &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let outcome = support::catch_up(&Arc::new(dataflow), workers);
    let corrections = outcome.corrections.iter().flatten().map(|(_, rows)| *rows as f64).sum();
    let mut told = Measured::from([
        ("records".into(), outcome.records as f64),
        ("seconds".into(), outcome.elapsed.as_secs_f64()),
        ("loaded".into(), outcome.loaded as f64),
        ("corrections".into(), corrections),
        ("peak_rss".into(), common::peak_rss() as f64),
    ]);
    told.extend(
        outcome
            .phases
            .iter()
            .map(|(phase, took)| (phase.to_string(), took.as_secs_f64())),
    );
    told
}

fn define(folder: &Path, keyed: bool) {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, text).expect("a written file");
    };
    write("dataflow.toml", "name = \"restart\"\nlake = \"lake\"\n");
    let key = if keyed { "key = [\"id\"]\n" } else { "" };
    write(
        "inputs/items.toml",
        &format!(
            "{key}bronze = false\n[columns]\nid = {{ type = \"BIGINT\", nullable = false }}\ngroup_no = \"BIGINT\"\n\
             name = \"VARCHAR\"\namount = \"BIGINT\"\n\
             [[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*.parquet\"\nformat = \"parquet\"\n\
             [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n"
        ),
    );
    write("silver/items.sql", "SELECT id, group_no, name, amount FROM items");
    write(
        "gold/totals.sql",
        "SELECT group_no, COUNT(*) AS n, SUM(amount) AS amount FROM silver.items GROUP BY group_no",
    );
    fs::create_dir_all(folder.join("live")).expect("a folder");
    fs::create_dir_all(folder.join("drops")).expect("a folder");
}

fn drop_files(folder: &Path, rows: i64) {
    for from in (0..rows).step_by(FILE as usize) {
        let ids: Vec<i64> = (from..(from + FILE).min(rows)).collect();
        let numbers = |of: fn(i64) -> i64| Arc::new(ids.iter().map(|id| of(*id)).collect::<Int64Array>()) as ArrayRef;
        let names: StringArray = ids.iter().map(|id| Some(format!("item {:06}", id % 999_983))).collect();
        let columns = [
            ("id", numbers(|id| id)),
            ("group_no", numbers(|id| id % 100_000)),
            ("name", Arc::new(names) as ArrayRef),
            ("amount", numbers(|id| id * 7919 % 10_007)),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
        let file = fs::File::create(folder.join(format!("drops/{from:09}.parquet"))).expect("a new file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written rows");
        writer.close().expect("a whole file");
    }
}

fn append(folder: &Path, n: i64) {
    let line = format!(
        "{{\"value\": {{\"id\": {}, \"group_no\": 1, \"name\": \"new\", \"amount\": {n}}}}}\n",
        -1 - n
    );
    let log = folder.join("live/0.ndjson");
    let text = fs::read_to_string(&log).unwrap_or_default() + &line;
    fs::write(log, text).expect("a written log");
}
