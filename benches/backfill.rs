//! Measures loading a year of invoices into the retail dataflow's sixteen Delta tables, everything written and synced.
//!
//! `cargo bench --bench backfill` (`-- 2x1` for two processes of one worker only). Several processes behave as on
//! machines of their own: they connect by sockets, share the files, and each writes its part of every table. Reads the
//! 305 daily files of the Online Retail set if they are there (see `real_data`), otherwise generated files of the same
//! shape.

mod common;
#[path = "../tests/it/support.rs"]
#[allow(dead_code)]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use alluvium::cluster::{Member, Secret};
use alluvium::definition;
use alluvium::run::{self, Options};

use common::Measured;
use common::testing::{checkout, real_data};

/// The number of lines in the real year, and in the generated one.
const LINES: &str = "541909";

fn main() {
    if let Some(case) = common::case() {
        let [workers, drops, lake, process, hosts @ ..] = case.as_slice() else {
            panic!("a case is workers, drops, lake, process, hosts");
        };
        let workers = workers.parse().expect("a number of workers");
        let process = process.parse().expect("a number of a process");
        let options = Options {
            workers,
            until_caught_up: true,
            cluster: (!hosts.is_empty()).then(|| Arc::new(member(process, hosts))),
            ..Options::default()
        };
        return common::tell(&run(&options, Path::new(drops), Path::new(lake)));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (drops, what) = match real_data("online_retail") {
        Some(data) => (data.join("by-day"), "the real year"),
        None => (make_drops(folder.path()), "A MADE-UP YEAR: the real one is not here"),
    };
    println!("backfill of the retail dataflow: {what}\n{}\n", common::machine());
    let mut table = common::Table::new(&[
        "processes x workers",
        "records",
        "time",
        "records/s",
        "peak RSS",
        "CPU",
        "lake",
        "written",
    ]);
    for (size, processes, workers) in [("1x1", 1, "1"), ("1x2", 1, "2"), ("2x1", 2, "1")] {
        if !common::wanted(size) {
            continue;
        }
        let lake = folder.path().join(format!("lake-{size}"));
        let told = together(processes, workers, &drops, &lake);
        table.row(&[
            size.to_string(),
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

/// Runs processes that backfill one lake together. Returns the figures of process 0, and the sums of the resources
/// that each process used.
fn together(processes: usize, workers: &str, drops: &Path, lake: &Path) -> Measured {
    let [drops, lake] = [drops, lake].map(|path| path.to_str().expect("a path in UTF-8"));
    let hosts = support::free_hosts(if processes > 1 { processes } else { 0 });
    let one = |process: usize| {
        let process = process.to_string();
        let mut case = vec![workers, drops, lake, &process];
        case.extend(hosts.iter().map(String::as_str));
        common::child(&case)
    };
    std::thread::scope(|scope| {
        let one = &one;
        let started: Vec<_> = (0..processes)
            .map(|process| scope.spawn(move || one(process)))
            .collect();
        let told = started
            .into_iter()
            .map(|child| child.join().expect("a case that succeeds"));
        let sum = |mut all: Measured, of: Measured| {
            for name in ["peak_rss", "cpu", "written"] {
                *all.get_mut(name).expect("each process tells it") += of[name];
            }
            all
        };
        told.reduce(sum).expect("there is a process 0")
    })
}

fn member(process: usize, hosts: &[String]) -> Member {
    Member {
        process,
        hosts: hosts.to_vec(),
        listen: None,
        secret: Secret::new(b"the secret of this benchmark").expect("a long secret"),
    }
}

/// Runs one process's part of a backfill into a new lake.
fn run(options: &Options, drops: &Path, lake: &Path) -> Measured {
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
    let outcome = run::run(Arc::new(dataflow), options).unwrap_or_else(|e| panic!("{}", support::chain(&e)));
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

/// Generates as many lines in as many files, spread as the generator does.
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
