//! Runs one dataflow four times concurrently: from the same logs, each into its own lake, with 1, 2 and 3 workers and
//! as several processes, stopped half-way and continued with other numbers of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alluvium::definition::Dataflow;
use alluvium::serve::verify::{self, VerifyReport};
use alluvium::serve::{LakeReader, PrintFormat};
use alluvium::sink::WriterLimits;

use crate::support::{Folder, Running, assert_exact, catch_up, chain, recompute, snapshots};

/// The processes of each lake, and workers in each, for each leg. Two legs are live and are stopped; the last one
/// catches up.
const SIZES: [[(usize, usize); 3]; 4] = [
    [(1, 1), (1, 2), (1, 3)],
    [(1, 2), (1, 3), (1, 1)],
    [(1, 3), (1, 1), (1, 2)],
    [(2, 1), (2, 2), (3, 1)],
];

/// Limits under which tables leave memory at a few rows, files hold few rows, and merging starts at once: a minute
/// shows what otherwise takes a day.
fn eager() -> WriterLimits {
    WriterLimits {
        small_rows: 16,
        small_bytes: 2048,
        file_rows: 64,
        rewrite_rows: 32,
        merge_files: 2,
        merge_rows: 128,
        merge_bytes: 1 << 20,
        fold_rows: 16,
        dead_share: 0.05,
    }
}

/// The limits of a seed: every second seed has eager ones.
fn limits(seed: u64) -> WriterLimits {
    if seed % 2 == 1 {
        eager()
    } else {
        WriterLimits::default()
    }
}

/// Runs the folder's dataflow into four lakes while `feed` appends; returns the lakes. `feed` gets the number of its
/// call; it is called `calls` times in each of the two live legs, and once before each of the three legs.
pub fn drive(folder: &Folder, seed: u64, calls: usize, mut feed: impl FnMut(&Folder, usize)) -> Vec<Arc<Dataflow>> {
    let lakes: Vec<Arc<Dataflow>> = (0..SIZES.len()).map(|n| folder.load(&format!("lake{n}"))).collect();
    let mut call = 0;
    let mut feed = || {
        feed(folder, call);
        call += 1;
    };
    for leg in 0..2 {
        feed();
        let before: Vec<usize> = lakes.iter().map(|lake| snapshots(lake)).collect();
        let runs: Vec<Running> = lakes
            .iter()
            .zip(SIZES)
            .map(|(lake, sizes)| Running::within(lake.clone(), sizes[leg], limits(seed)))
            .collect();
        for ((lake, run), before) in lakes.iter().zip(&runs).zip(before) {
            run.wait_until(|| snapshots(lake) > before);
        }
        for _ in 0..calls {
            feed();
            std::thread::sleep(Duration::from_millis(25));
        }
        runs.into_iter().for_each(|run| drop(run.stop()));
    }
    feed();
    for (lake, sizes) in lakes.iter().zip(SIZES) {
        catch_up(lake, sizes[2]);
    }
    // States that were loaded on the way must give the same tables as the records themselves.
    let outcome = recompute(&lakes[0], 2);
    assert_eq!(outcome.corrections, Some(vec![]), "made again from Bronze");
    lakes
}

/// Asserts that every table at every snapshot of every lake equals its SQL in batch over the input so far, and that
/// the last snapshots are equal, including dead letters. Returns the number of snapshots.
pub fn assert_exact_and_alike(lakes: &[Arc<Dataflow>]) -> usize {
    let mut checked = 0;
    for lake in lakes {
        checked += assert_every_snapshot_is_exact(lake);
    }
    let last: Vec<BTreeMap<String, u128>> = lakes.iter().map(|lake| fingerprints(lake)).collect();
    let letters: Vec<BTreeSet<String>> = lakes.iter().map(|lake| letters(lake)).collect();
    for (n, (tables, letters_of)) in last.iter().zip(&letters).enumerate().skip(1) {
        let differing: Vec<&String> = tables
            .iter()
            .filter(|(t, f)| last[0][*t] != **f)
            .map(|(t, _)| t)
            .collect();
        assert!(differing.is_empty(), "lakes 0 and {n} differ in {differing:?}");
        let difference: Vec<&String> = letters[0].symmetric_difference(letters_of).take(5).collect();
        assert!(
            difference.is_empty(),
            "lakes 0 and {n} have other dead letters: {difference:#?}"
        );
    }
    checked
}

/// Asserts that every table at every snapshot equals its SQL in batch over Bronze. Returns the number of snapshots.
pub fn assert_every_snapshot_is_exact(dataflow: &Dataflow) -> usize {
    let epochs = verify::snapshots(dataflow).unwrap_or_else(|e| panic!("no snapshots: {}", chain(&e)));
    assert!(!epochs.is_empty(), "nothing was committed");
    for (n, epoch) in epochs.iter().enumerate() {
        let report = verify::verify(dataflow, Some(*epoch)).unwrap_or_else(|e| panic!("verify: {}", chain(&e)));
        assert!(report.skipped.is_empty(), "not compared: {:?}", report.skipped);
        let what = format!("snapshot {} of {} ({epoch}) of {}", n + 1, epochs.len(), dataflow.lake);
        tell(dataflow, &report);
        assert_exact(&report, &what);
    }
    epochs.len()
}

/// Prints the SQL of the tables that differ.
fn tell(dataflow: &Dataflow, report: &VerifyReport) {
    let differing: BTreeSet<&String> = report.differences.iter().map(|d| &d.table).collect();
    for table in dataflow
        .tables
        .iter()
        .filter(|t| differing.contains(&t.qualified_name()))
    {
        eprintln!("{} differs:\n{}", table.qualified_name(), table.sql);
    }
}

fn fingerprints(dataflow: &Dataflow) -> BTreeMap<String, u128> {
    verify::fingerprints(dataflow).unwrap_or_else(|e| panic!("{}", chain(&e)))
}

/// The dead letters, without the times of their arrival.
fn letters(dataflow: &Dataflow) -> BTreeSet<String> {
    let sql = "SELECT kind, input, table_name, feed, \"partition\", \"offset\", reason, payload, COUNT(*) AS n
               FROM dead_letters GROUP BY kind, input, table_name, feed, \"partition\", \"offset\", reason, payload";
    let print = |reader: &LakeReader| reader.print(sql, PrintFormat::Json);
    let text = LakeReader::open(dataflow, None).and_then(|reader| print(&reader));
    let text = text.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let letters: Vec<serde_json::Value> = serde_json::from_str(&text).expect("query prints JSON");
    letters.iter().map(ToString::to_string).collect()
}
