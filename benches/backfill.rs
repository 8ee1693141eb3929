//! A year of invoices into the retail dataflow's sixteen Delta tables, everything written and synced.
//!
//! `cargo bench --bench backfill`. Reads the 305 daily files of the Online Retail set where they are (see
//! `real_data`), else made-up files of the same shape.

mod common;
#[path = "../tests/it/support.rs"]
#[allow(dead_code)]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use alluvium::definition;

use common::Measured;
use common::testing::{checkout, real_data};

/// Lines of the real year, and so of the made-up one.
const LINES: &str = "541909";

fn main() {
    if let Some(case) = common::case() {
        let [workers, drops, lake] = case.as_slice() else {
            panic!("a case is workers, drops, lake");
        };
        let workers = workers.parse().expect("a number of workers");
        return common::tell(&run(workers, Path::new(drops), Path::new(lake)));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (drops, what) = match real_data("online_retail") {
        Some(data) => (data.join("by-day"), "the real year"),
        None => (make_drops(folder.path()), "A MADE-UP YEAR: the real one is not here"),
    };
    println!("backfill of the retail dataflow: {what}\n{}\n", common::machine());
    let mut table = common::Table::new(&[
        "workers",
        "records",
        "time",
        "records/s",
        "peak RSS",
        "CPU",
        "lake",
        "written",
    ]);
    for workers in ["1", "2"] {
        let lake = folder.path().join(format!("lake-{workers}"));
        let [drops, lake] = [&drops, &lake].map(|path| path.to_str().expect("a path in UTF-8"));
        let told = common::child(&[workers, drops, lake]);
        table.row(&[
            workers.to_string(),
            format!("{}", told["records"]),
            common::seconds(told["seconds"]),
            format!("{:.0}", told["records"] / told["seconds"]),
            common::bytes(told["peak_rss"]),
            common::seconds(told["cpu"]),
            common::bytes(told["lake"]),
            common::bytes(told["written"]),
        ]);
    }
    table.print();
    println!("\nbudget: 200000 records/s, peak RSS below 1 GiB");
}

/// One backfill into a new lake, in this process.
fn run(workers: usize, drops: &Path, lake: &Path) -> Measured {
    let settings = |name: &str| {
        let path = match name {
            "ALLUVIUM_RETAIL_LAKE" => lake.to_path_buf(),
            "ALLUVIUM_RETAIL_DROPS" => drops.to_path_buf(),
            "ALLUVIUM_RETAIL_LIVE" => lake.with_extension("live"),
            _ => return None,
        };
        Some(path.display().to_string())
    };
    let dataflow = definition::load(&retail(), &settings).unwrap_or_else(|e| panic!("{e}"));
    let outcome = support::catch_up(&Arc::new(dataflow), workers);
    let (written, _) = common::written_and_read();
    Measured::from([
        ("records".into(), outcome.records as f64),
        ("seconds".into(), outcome.elapsed.as_secs_f64()),
        ("peak_rss".into(), common::peak_rss() as f64),
        ("cpu".into(), common::cpu_seconds("self")),
        ("lake".into(), common::folder_bytes(lake) as f64),
        ("written".into(), written as f64),
    ])
}

fn retail() -> PathBuf {
    checkout().join("dataflows/retail")
}

/// As many made-up lines in as many files, as the generator spreads them.
fn make_drops(folder: &Path) -> PathBuf {
    let drops = folder.join("drops");
    let made = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .arg("generate")
        .arg(retail())
        .args([
            "order_lines.drops",
            "--generator",
            "retail.order_lines",
            "--limit",
            LINES,
        ])
        .env("ALLUVIUM_RETAIL_DROPS", &drops)
        .status()
        .expect("alluvium starts");
    assert!(made.success(), "no files were made: {made}");
    drops
}
