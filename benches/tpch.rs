//! Measures TPC-H: all of its queries in one dataflow, from files to tables, and a restart over the resulting lake.
//!
//! `cargo bench --bench tpch` (`-- 0.01` for the small scale only). Each table is a file, read by an input without a
//! key; the queries are those of the tests. Before the restart, one more order arrives.

mod common;
#[path = "../tests/it/judge/suites/tpch/data.rs"]
mod data;
#[path = "../tests/it/support.rs"]
#[allow(dead_code)]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use alluvium::definition;
use common::Measured;

const SCALES: [&str; 2] = ["0.01", "0.1"];
const QUERIES: usize = 22;
/// The record that arrives before the restart: one more order of an existing customer.
const ORDER: &str = "o_orderkey|o_custkey|o_orderstatus|o_totalprice|o_orderdate|o_orderpriority|o_clerk|o_shippriority|o_comment\n\
                     8|1|O|1000.00|1997-06-01|1-URGENT|Clerk#000000001|0|one more\n";

fn main() {
    if let Some(case) = common::case() {
        let [folder, workers] = case.as_slice() else {
            panic!("a case is folder, workers");
        };
        return common::tell(&run(Path::new(folder), workers.parse().expect("a number of workers")));
    }
    println!("TPC-H, {QUERIES} queries in one dataflow\n{}\n", common::machine());
    let mut table = common::Table::new(&[
        "scale",
        "workers",
        "rows",
        "load",
        "peak RSS",
        "processor",
        "restart",
        "its peak RSS",
        "lake",
    ]);
    for scale in SCALES.into_iter().filter(|scale| common::wanted(scale)) {
        for workers in ["1", "2"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            define(folder.path(), scale.parse().expect("a scale is a number"));
            let path = folder.path().to_str().expect("a path in UTF-8");
            let load = common::child(&[path, workers]);
            fs::write(folder.path().join("drops/orders/later.csv"), ORDER).expect("a written file");
            let restart = common::child(&[path, workers]);
            assert_eq!(
                (restart["records"], restart["corrections"]),
                (1.0, 0.0),
                "a restart takes what is new"
            );
            table.row(&[
                scale.to_string(),
                workers.to_string(),
                format!("{}", load["records"]),
                common::seconds(load["seconds"]),
                common::bytes(load["peak_rss"]),
                common::seconds(load["cpu"]),
                common::seconds(restart["seconds"]),
                common::bytes(restart["peak_rss"]),
                common::bytes(common::folder_bytes(&folder.path().join("lake")) as f64),
            ]);
        }
    }
    table.print();
}

/// Runs in this process until all input is taken.
fn run(folder: &Path, workers: usize) -> Measured {
    let dataflow = definition::load(folder, &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let outcome = support::catch_up(&Arc::new(dataflow), workers);
    let corrections = outcome.corrections.iter().flatten().map(|(_, rows)| *rows as f64).sum();
    Measured::from([
        ("records".into(), outcome.records as f64),
        ("seconds".into(), outcome.elapsed.as_secs_f64()),
        ("cpu".into(), common::cpu_seconds("self")),
        ("corrections".into(), corrections),
        ("peak_rss".into(), common::peak_rss() as f64),
    ])
}

/// Writes the dataflow, and the files of its inputs.
fn define(folder: &Path, scale: f64) {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, text).expect("a written file");
    };
    write("dataflow.toml", "name = \"tpch\"\nlake = \"lake\"\n");
    for (name, columns, rows) in data::tables(scale) {
        // Columns are separated by a comma and a blank; inside DECIMAL(15,2), the comma stands alone.
        let columns: Vec<(&str, &str)> = columns
            .split(", ")
            .map(|column| column.split_once(' ').expect("a name and a type"))
            .collect();
        let mut input = "[columns]\n".to_string();
        for (column, of) in &columns {
            let nullable = !of.ends_with(" NOT NULL");
            let of = of.trim_end_matches(" NOT NULL");
            input += &format!("{column} = {{ type = \"{of}\", nullable = {nullable} }}\n");
        }
        input += &format!(
            "[[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/{name}/*.csv\"\nformat = \"csv\"\ndelimiter = \"|\"\n"
        );
        write(&format!("inputs/{name}.toml"), &input);
        let header: Vec<&str> = columns.iter().map(|(column, _)| *column).collect();
        let mut file = header.join("|");
        for row in rows {
            file.push('\n');
            file.push_str(&row);
        }
        file.push('\n');
        write(&format!("drops/{name}/all.csv"), &file);
    }
    let queries = common::testing::checkout().join("tests/it/judge/suites/tpch/queries");
    for query in 1..=QUERIES {
        let sql = fs::read_to_string(queries.join(format!("q{query}.sql"))).expect("a query of the suite");
        write(&format!("gold/q{query}.sql"), &sql);
    }
}
