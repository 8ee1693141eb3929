//! Measures the cost of a snapshot by the number of tables in the graph, and by how many of them it changes.
//!
//! `cargo bench --bench snapshots` (`-- 200`, `-- one`, `-- synced` for some cases only). There is one keyed input,
//! tables that map it row by row, and one worker. A round updates five keys. In `all`, each table has all 5,000 rows,
//! and changes; in `one`, each table has keys of its own: the table that changes has 5,000 of them, the others few. A
//! round lasts from the append to the log until the log of every changing table has its commit, so it includes the
//! reader's poll of the log and an epoch, a few milliseconds. The next round begins then. Besides the tables, each
//! commit includes the input's state and the ledger.

mod common;
#[path = "../tests/it/support.rs"]
#[allow(dead_code)]
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use alluvium::definition;
use alluvium::run::{self, Options};
use common::Measured;
use common::versions::Versions;

/// Rows of a table that changes (too many to rewrite it whole), and of one that does not.
const ROWS: usize = 5000;
const FEW: usize = 100;
/// The number of keys that a round updates.
const KEYS: usize = 5;
/// The number of rounds that are not measured, and of those that are.
const WARM_UP: usize = 20;
const ROUNDS: usize = 200;
/// The most time for a round.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    if let Some(case) = common::case() {
        let [folder, tables, what] = case.as_slice() else {
            panic!("a case is folder, tables, what changes");
        };
        let changing = match what.as_str() {
            "one" => 1,
            _ => tables.parse().expect("a number of tables"),
        };
        return common::tell(&rounds(Path::new(folder), changing));
    }
    println!("cost of a snapshot\n{}\n", common::machine());
    let mut table = common::Table::new(&[
        "tables",
        "p50",
        "p99",
        "max",
        "CPU a commit",
        "written a commit",
        "peak RSS",
    ]);
    for (durability, settings) in [("not synced", "durability = \"none\"\n"), ("synced", "")] {
        for tables in [10, 50, 200] {
            for changes in ["all", "one"] {
                let name = format!("{tables}, {changes} changed, {durability}");
                if !common::wanted(&name) {
                    continue;
                }
                let folder = tempfile::tempdir().expect("a temporary folder");
                define(folder.path(), tables, changes, settings);
                let path = folder.path().to_str().expect("a path in UTF-8");
                let told = common::child(&[path, &tables.to_string(), changes]);
                table.row(&[
                    name,
                    common::seconds(told["p50"]),
                    common::seconds(told["p99"]),
                    common::seconds(told["max"]),
                    common::seconds(told["cpu"]),
                    common::bytes(told["written"]),
                    common::bytes(told["peak_rss"]),
                ]);
            }
        }
    }
    table.print();
}

/// Defines the dataflow. If tables have keys of their own, a row names its table; ids below `ROWS` are in the first
/// table.
fn define(folder: &Path, tables: usize, changes: &str, settings: &str) {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, text).expect("a written file");
    };
    write(
        "dataflow.toml",
        &format!("name = \"snapshots\"\nlake = \"lake\"\nepoch = \"1ms\"\ncommit = \"1ms\"\n{settings}"),
    );
    write(
        "inputs/items.toml",
        "key = [\"id\"]\nbronze = false\n[columns]\nid = { type = \"BIGINT\", nullable = false }\nbucket = \"BIGINT\"\n\
         amount = \"BIGINT\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n",
    );
    let own = changes == "one";
    for table in 0..tables {
        let keys = if own {
            format!(" WHERE bucket = {table}")
        } else {
            String::new()
        };
        write(
            &format!("silver/t{table:03}.sql"),
            &format!("SELECT id, amount + {table} AS amount FROM items{keys}"),
        );
    }
    let others = if own { FEW * (tables - 1) } else { 0 };
    let first = (0..ROWS).map(|id| record(id, 0, 0));
    let others = (0..others).map(|other| record(ROWS + other, 1 + other / FEW, 0));
    let text: String = first.chain(others).collect();
    write("live/0.ndjson", &text);
}

fn record(id: usize, bucket: usize, amount: usize) -> String {
    format!("{{\"value\": {{\"id\": {id}, \"bucket\": {bucket}, \"amount\": {amount}}}}}\n")
}

/// Loads the input, then updates keys round by round.
fn rounds(folder: &Path, changing: usize) -> Measured {
    let dataflow = definition::load(folder, &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let dataflow = Arc::new(dataflow);
    support::catch_up(&dataflow, 1);
    let (stop, stopped) = crossbeam_channel::bounded(1);
    let options = Options {
        workers: 1,
        stop: Some(stopped),
        ..Options::default()
    };
    let run = thread::spawn(move || run::run(dataflow, &options));
    let mut log = fs::File::options()
        .append(true)
        .open(folder.join("live/0.ndjson"))
        .expect("the log is there");
    let mut tables: Vec<Versions> = (0..changing)
        .map(|table| Versions::of(folder.join(format!("lake/silver/t{table:03}/_delta_log"))))
        .collect();
    let mut times = Vec::new();
    let (mut cpu, mut written) = (0.0, 0);
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            (cpu, written) = (common::cpu_seconds("self"), common::written_and_read().0);
        }
        tables.iter_mut().for_each(Versions::skip);
        let keys = (0..KEYS).map(|n| (round * KEYS + n) * 7919 % ROWS);
        let lines: String = keys.map(|id| record(id, 0, round + 1)).collect();
        let started = Instant::now();
        log.write_all(lines.as_bytes()).expect("the log takes more");
        for table in &tables {
            table.wait(|| {
                assert!(
                    started.elapsed() < PATIENCE && !run.is_finished(),
                    "round {round} was not committed"
                )
            });
        }
        if round >= WARM_UP {
            times.push(started.elapsed());
        }
    }
    let cpu = (common::cpu_seconds("self") - cpu) / ROUNDS as f64;
    let written = (common::written_and_read().0 - written) as f64 / ROUNDS as f64;
    drop(stop);
    run.join()
        .expect("the run does not panic")
        .unwrap_or_else(|e| panic!("{e}"));
    let at = |quantile| common::quantile(&times, quantile).as_secs_f64();
    Measured::from([
        ("p50".into(), at(0.5)),
        ("p99".into(), at(0.99)),
        ("max".into(), at(1.0)),
        ("cpu".into(), cpu),
        ("written".into(), written),
        ("peak_rss".into(), common::peak_rss() as f64),
    ])
}
