//! Kills runs while poison is in their input: every good row must exist once, every bad record or file must be one
//! dead letter, and all readers must agree. Sometimes a second run takes the lake over from one that still runs.
//!
//! `ALLUVIUM_POISONED_KILLS=100` for more kills than by default, `ALLUVIUM_KILLS_SEED=7` for other moments.

use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::poison::{self, ALL, Hand};
use crate::readers;
use crate::support::{Folder, Process, catch_up, number, snapshots};

/// Starts another run over the lake of a running one. The later one takes the lake over; the other one stops for good
/// when it tries to commit again. Returns the one that is left.
fn rival(first: Process, folder: &Folder, mut put: impl FnMut()) -> Process {
    let mut both = [first, Process::start(folder, 2)];
    put();
    let started = Instant::now();
    loop {
        for (index, process) in both.iter_mut().enumerate() {
            if let Some(ended) = process.0.try_wait().expect("it can be asked") {
                assert_eq!(ended.code(), Some(1), "a run that was taken over says so");
                let [first, second] = both;
                return if index == 0 { second } else { first };
            }
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "two runs go on over one lake"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn runs_killed_over_poison_keep_every_good_row_once_and_every_bad_one_as_one_letter() {
    let (kills, seed) = (number("ALLUVIUM_POISONED_KILLS", 12), number("ALLUVIUM_KILLS_SEED", 1));
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = Folder::new("poisoned", &[]);
    poison::dataflow(&folder);
    let dataflow = folder.load("lake");
    let mut hand = Hand::new(&folder, folder.lake("lake"));
    let mut committing = 0;
    for kill in 0..kills {
        let before = snapshots(&dataflow);
        let mut process = Process::start(&folder, 1 + (kill % 3) as u32);
        // Every second run lives until its first commit, and all of them a moment longer.
        let started = Instant::now();
        hand.put(&ALL);
        while kill.is_multiple_of(2) && snapshots(&dataflow) == before {
            assert!(started.elapsed() < Duration::from_secs(60), "no snapshot, seed {seed}");
            assert_eq!(
                process.0.try_wait().expect("it can be asked"),
                None,
                "the run ended by itself, seed {seed}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        if kill % 4 == 3 {
            process = rival(process, &folder, || hand.put(&ALL));
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(5..1500)));
        assert_eq!(
            process.0.try_wait().expect("it can be asked"),
            None,
            "the run ended by itself, seed {seed}"
        );
        drop(process);
        committing += u64::from(snapshots(&dataflow) > before);
    }
    assert!(
        committing * 3 > kills,
        "only {committing} of {kills} lives committed anything"
    );
    let last = Command::new("timeout")
        .args([
            "120",
            env!("CARGO_BIN_EXE_alluvium"),
            "run",
            ".",
            "--until-caught-up",
            "--lake",
            "lakes/lake",
        ])
        .current_dir(folder.path())
        .output()
        .expect("the binary runs");
    exits(&last, 0);
    let expected = hand.expected;
    let right = |what: &str| {
        let all = format!("{0},{1},{0}", expected.rows, expected.ids);
        let counted = "SELECT COUNT(*), SUM(id), COUNT(DISTINCT id) FROM silver.events";
        assert_eq!(ask(&dataflow, counted), all, "{what}, seed {seed}: {}", text(&last));
        assert_eq!(
            ask(&dataflow, "SELECT COUNT(*) FROM silver.parted"),
            expected.rows.to_string(),
            "{what}"
        );
        assert_eq!(
            ask(&dataflow, "SELECT SUM(n) FROM gold.kinds"),
            expected.rows.to_string(),
            "{what}"
        );
        let letters = "SELECT kind, COUNT(*) FROM dead_letters GROUP BY kind ORDER BY kind";
        let wanted = format!("file,{}\nrecord,{}", expected.files, expected.records);
        assert_eq!(ask(&dataflow, letters), wanted, "{what}, seed {seed}: {}", text(&last));
        let places = "SELECT COUNT(*) FROM (SELECT DISTINCT feed, \"partition\", \"offset\" FROM dead_letters)";
        assert_eq!(
            ask(&dataflow, places),
            (expected.files + expected.records).to_string(),
            "{what}"
        );
        assert_newest_is_exact(&dataflow, what);
    };
    right("after the kills");
    assert_eq!(catch_up(&dataflow, 2).corrections, Some(vec![]));
    right("after another start");
    let requests = folder.lake("lake").join("_alluvium/requests");
    let left: Vec<_> = std::fs::read_dir(requests)
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().ends_with(".json")),
        "{left:?}"
    );
    exits(
        &alluvium(&["dead-letters", ".", "--lake", "lakes/lake"], folder.path()),
        0,
    );
    // Polars cannot read a table with partition folders named by a hash: see docs/src/reading/engines.md.
    if let Some(python) = readers::python() {
        let questions = [
            ("silver.events", "SELECT COUNT(*) AS n, SUM(id) AS ids FROM t"),
            ("gold.kinds", "SELECT SUM(n) AS n, SUM(ids) AS ids FROM t"),
            ("dead_letters", "SELECT COUNT(*) AS n FROM t"),
        ];
        readers::assert_agreed(&python, &dataflow, &questions);
    }
}
