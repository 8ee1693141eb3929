//! Kills processes at random moments, and restarts a different number of them each time: nothing may be lost or
//! counted twice, and readers must always see tables that agree.
//!
//! The dataflow is the retail example over its year of daily files, which are dropped bit by bit, while generated
//! products, customers and stock change. `ALLUVIUM_KILLS=300` makes more kills than by default,
//! `ALLUVIUM_KILLS_SEED=7` other moments.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use alluvium::definition::{self, Dataflow};
use alluvium::serve::{LakeReader, PrintFormat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::Processes;
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{chain, number, snapshots};
use crate::testing::{checkout, real_data};

/// The number of processes, and of workers in each; the sizes change from life to life.
const SIZES: [(usize, usize); 5] = [(1, 2), (2, 2), (1, 1), (2, 1), (1, 3)];
/// The longest life before a kill: for every second life from its start, for the others from its first commit.
const LIFE: Duration = Duration::from_millis(3000);
/// The most time in which the others must end after a process is lost.
const LOST: Duration = Duration::from_secs(5);

/// A sum that spans tables: at every snapshot all three must agree.
const AGREE: [(&str, &str); 3] = [
    ("silver.order_lines", "SELECT SUM(amount) AS x FROM t"),
    ("gold.sales_by_hour", "SELECT SUM(revenue) AS x FROM t"),
    ("gold.revenue_by_country", "SELECT SUM(revenue) AS x FROM t"),
];

struct Shop {
    folder: tempfile::TempDir,
    days: Vec<PathBuf>,
}

impl Shop {
    fn environment(&self) -> Vec<(&'static str, String)> {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            ("ALLUVIUM_RETAIL_LAKE", at("lake")),
            ("ALLUVIUM_RETAIL_DROPS", at("drops")),
            ("ALLUVIUM_RETAIL_LIVE", at("live")),
            ("ALLUVIUM_SECRET", "the secret of who is killed".into()),
        ]
    }

    fn example() -> PathBuf {
        checkout().join("dataflows/retail")
    }

    fn load(&self) -> Arc<Dataflow> {
        let environment = self.environment();
        let of = |name: &str| {
            environment
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.clone())
        };
        Arc::new(definition::load(&Self::example(), &of).unwrap_or_else(|e| panic!("{e}")))
    }

    /// Drops a part of the year's files.
    fn drop_days(&self, part: usize, parts: usize) {
        let (from, to) = (self.days.len() * part / parts, self.days.len() * (part + 1) / parts);
        for day in &self.days[from..to] {
            let name = day.file_name().expect("a name");
            let target = self.folder.path().join("drops").join(name);
            // A hard link is an old file, which is read at once; a copy would be checked twice.
            if std::fs::hard_link(day, &target).is_err() {
                let hidden = target.with_file_name(format!(".{}", name.to_string_lossy()));
                std::fs::copy(day, &hidden).expect("copied");
                std::fs::rename(&hidden, &target).expect("dropped");
            }
        }
    }

    /// Appends changes to the logs.
    fn change(&self, round: usize) {
        let makes = [
            ("products.live", "retail.products", "150"),
            ("customers.live", "retail.customers", "150"),
            ("stock_movements.live", "retail.stock_movements", "150"),
            ("order_lines.live", "retail.order_lines", "100"),
        ];
        let (feed, generator, limit) = makes[round % makes.len()];
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        command
            .arg("generate")
            .arg(Self::example())
            .args([feed, "--generator", generator, "--limit", limit]);
        command.args(["--seed", &(round + 10).to_string(), "--partitions", "4"]);
        if generator != "retail.order_lines" {
            command.args(["--updates", "0.4", "--deletes", "0.1"]);
        }
        let output = command.envs(self.environment()).output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The number of lines in the logs of a feed.
    fn logged(&self, input: &str) -> usize {
        let folder = self.folder.path().join("live").join(input);
        let entries = std::fs::read_dir(folder)
            .expect("logs")
            .map(|entry| entry.expect("an entry").path());
        let lines = |path: PathBuf| std::fs::read_to_string(path).expect("a log").lines().count();
        entries.map(lines).sum()
    }
}

/// Asserts that our own reader sees tables that agree; returns the snapshot's epoch, or none if there is no snapshot
/// yet.
fn assert_agreed(dataflow: &Dataflow) -> Option<u64> {
    let reader = LakeReader::open(dataflow, None).ok()?;
    let answers: Vec<String> = AGREE
        .iter()
        .map(|(table, sql)| {
            let printed = reader.print(&sql.replace("FROM t", &format!("FROM {table}")), PrintFormat::Csv);
            printed.unwrap_or_else(|e| panic!("{table}: {}", chain(&e)))
        })
        .collect();
    let epoch = reader.snapshot().epoch();
    assert!(
        answers.windows(2).all(|w| w[0] == w[1]),
        "snapshot {epoch}: {answers:?}"
    );
    Some(epoch)
}

/// Asserts that DuckDB, Polars and deltalake see tables that agree, at one snapshot that they find.
fn assert_agreed_elsewhere(python: &str, dataflow: &Dataflow) -> Option<u64> {
    let output = Command::new(python)
        .arg(checkout().join("tests/it/readers.py"))
        .arg(&dataflow.lake)
        .args(AGREE.map(|(table, sql)| format!("{table}={sql}")))
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let (first, answers) = said.split_once('\n').expect("a snapshot and answers");
    let answers: Vec<&str> = answers
        .lines()
        .map(|line| line.splitn(3, ' ').nth(2).expect("an answer"))
        .collect();
    assert_eq!(answers.len(), 3 * AGREE.len(), "three engines, every table");
    assert!(answers.windows(2).all(|w| w[0] == w[1]), "{said}");
    first.trim_start_matches("snapshot ").parse().ok()
}

struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the moments were those of ALLUVIUM_KILLS_SEED={}", self.0);
        }
    }
}

#[test]
fn processes_killed_at_random_moments_lose_nothing_and_no_reader_sees_tables_that_differ() {
    let Some(data) = real_data("online_retail") else { return };
    let (kills, seed) = (number("ALLUVIUM_KILLS", 30) as usize, number("ALLUVIUM_KILLS_SEED", 1));
    let _replay = Replay(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut days: Vec<PathBuf> = std::fs::read_dir(data.join("by-day"))
        .expect("daily files")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "gz"))
        .collect();
    days.sort();
    std::fs::create_dir_all(folder.path().join("drops")).expect("a folder");
    let shop = Shop { folder, days };
    let dataflow = shop.load();
    let (stop, read) = (AtomicBool::new(false), AtomicUsize::new(0));

    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    std::thread::scope(|scope| {
        let stopping = Stop(&stop); // This also stops the threads if an assertion fails.
        let feeding = scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Acquire) {
                shop.change(round);
                round += 1;
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        let reading = scope.spawn(|| {
            let python = std::env::var("ALLUVIUM_PYTHON").ok();
            // Both our reader and the others read; the others find snapshots where they are recorded, which is after
            // their commits.
            let mut newest = [0, 0];
            while !stop.load(Ordering::Acquire) {
                let others = newest[0] > 0 && read.load(Ordering::Acquire) % 4 == 3;
                let (who, seen) = match &python {
                    Some(python) if others => (1, assert_agreed_elsewhere(python, &dataflow)),
                    _ => (0, assert_agreed(&dataflow)),
                };
                if let Some(seen) = seen {
                    assert!(seen >= newest[who], "snapshot {seen} after {newest:?}");
                    newest[who] = seen;
                    read.fetch_add(1, Ordering::AcqRel);
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let mut committing = 0;
        for kill in 0..kills {
            shop.drop_days(kill, kills);
            committing += usize::from(live_and_kill(&shop, &dataflow, kill, &mut rng));
            assert!(
                !reading.is_finished() && !feeding.is_finished(),
                "reading or feeding failed"
            );
        }
        drop(stopping);
        feeding.join().expect("the feeder does not panic");
        reading.join().expect("the readers agree");
        assert!(
            committing * 3 > kills,
            "only {committing} of {kills} lives committed anything"
        );
    });
    let mut last = Processes::over(shop.folder.path(), &Shop::example(), 2, 2).with(shop.environment());
    last.start_all(&["--until-caught-up"]);
    for process in [0, 1] {
        last.assert_ends(process, Duration::from_secs(240), 0, &["took "]);
    }
    assert!(read.load(Ordering::Acquire) > kills / 3, "hardly anybody read");
    assert_agreed(&dataflow).expect("a snapshot");
    assert_newest_is_exact(&dataflow, &format!("after {kills} kills"));
    let lines = 541_909 + shop.logged("order_lines");
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*) FROM bronze.order_lines"),
        lines.to_string()
    );
    for input in ["products", "customers", "stock_movements"] {
        let count = ask(&dataflow, &format!("SELECT COUNT(*) FROM bronze.{input}"));
        assert_eq!(count, shop.logged(input).to_string(), "{input}");
    }
}

/// Starts processes, kills one of them at a random moment, and waits until all have ended. Returns whether they
/// committed anything.
fn live_and_kill(shop: &Shop, dataflow: &Dataflow, kill: usize, rng: &mut StdRng) -> bool {
    let (processes, workers) = SIZES[(kill + usize::from(kill % 7 == 3)) % SIZES.len()];
    let before = snapshots(dataflow);
    let mut life = Processes::over(shop.folder.path(), &Shop::example(), processes, workers).with(shop.environment());
    life.start_all(&[]);
    if kill.is_multiple_of(2) {
        life.wait_until("a snapshot", |_| snapshots(dataflow) > before);
    }
    let until = Instant::now() + LIFE.mul_f64(rng.random_range(0.01..1.0));
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5).min(until.saturating_duration_since(Instant::now())));
    }
    let victim = rng.random_range(0..processes);
    life.signal(victim, "-KILL");
    assert_eq!(life.end(victim, LOST).code(), None, "it ran: {}", life.said(victim));
    for process in (0..processes).filter(|p| *p != victim) {
        // Until all have connected, the others wait for a lost process to come again.
        if joined(&life, processes) {
            life.assert_ends(process, LOST, 1, &["lost process"]);
        } else {
            life.signal(process, "-KILL");
            life.end(process, LOST);
        }
    }
    snapshots(dataflow) > before
}

/// Whether all processes had connected.
fn joined(life: &Processes, processes: usize) -> bool {
    (0..processes).any(|process| life.said(process).contains("started"))
}
