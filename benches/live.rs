//! Measures live latency: a paced generator writes a change log, and `alluvium run` follows it, in separate processes.
//! Also measures latency while a backfill runs, and the cost of a run without input.
//!
//! `cargo bench --bench live`. The latencies are those that `run --latency` logs each second: from a record's arrival
//! in the log (and from the moment when the generator was due to write it) to the close of its epoch, and to the
//! commit of all Gold tables. The first seconds are left out. No correction for coordinated omission is needed: a
//! record's time counts from its arrival, however long the reader was held up, and the generator keeps its pace
//! whatever the reader does.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use common::testing::checkout;

/// Events per second: ten times fifty million a day.
const RATE: u64 = 5800;
/// Live events per second while a backfill runs.
const BESIDE: u64 = 1000;
/// The number of files in a backfill, and of lines in each.
const FILES: u32 = 40;
const FILE_ROWS: u32 = 100_000;
const WARM_UP: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_secs(60);
/// The time from the run's start to the generator's, and from the generator's end to the run's.
const MARGIN: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(20);

fn main() {
    println!("{}\n", common::machine());
    if common::wanted("live") {
        live();
    }
    if common::wanted("backfill") {
        backfill();
    }
    if common::wanted("idle") {
        idle();
    }
}

fn live() {
    println!(
        "live: {RATE} events/s (5 % late, 5 % updates) into the retail dataflow, commit = \"25ms\", durability = \"none\", {} s after {} s",
        MEASURED.as_secs(),
        WARM_UP.as_secs(),
    );
    let mut table = common::Table::new(&[
        "order_lines",
        "records",
        "p50",
        "p99",
        "p99.9",
        "max",
        "CPU",
        "peak RSS",
    ]);
    for workers in [1, 2] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dataflow = Retail::copy(folder.path());
        let latency = folder.path().join("latency");
        let mut run = dataflow.run(workers, WARM_UP + MEASURED + 2 * MARGIN, Some(&latency));
        sleep(MARGIN);
        let started = Instant::now();
        let mut generator = dataflow.generate((WARM_UP + MEASURED).as_secs() * RATE);
        sleep(WARM_UP);
        let before = common::cpu_seconds(&run.id().to_string());
        sleep((WARM_UP + MEASURED).saturating_sub(started.elapsed()));
        let id = run.id().to_string();
        let cpu = (common::cpu_seconds(&id) - before) / MEASURED.as_secs_f64();
        let peak = common::peak_rss_of(&id);
        expect_success(&mut generator, "alluvium generate");
        expect_success(&mut run, "alluvium run");
        for (stage, micros) in read_log(&latency.join("latency.hlog"), MARGIN + WARM_UP) {
            let at = |quantile| common::seconds(micros.value_at_quantile(quantile) as f64 / 1e6);
            table.row(&[
                format!("{stage}, {workers} workers"),
                micros.len().to_string(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0),
                format!("{:.0} %", cpu * 100.0),
                common::bytes(peak as f64),
            ]);
        }
    }
    table.print();
    println!("budget of arrival-to-committed: p50 45 ms, p99 87 ms, p99.9 340 ms\n");
}

/// Measures live latency without a backfill, and with one at the default rate and at full speed.
fn backfill() {
    println!(
        "backfill: {BESIDE} events/s into the retail dataflow, commit = \"25ms\", durability = \"none\", 1 worker, {} s after {} s; \
         beside it files of {FILES} x {FILE_ROWS} lines",
        MEASURED.as_secs(),
        WARM_UP.as_secs(),
    );
    let mut table = common::Table::new(&["order_lines", "records", "p50", "p99", "p99.9", "max", "backfilled/s"]);
    for (what, rate) in [
        ("alone", None),
        ("default rate", Some(None)),
        ("100,000 rows/s", Some(Some("100000"))),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dataflow = Retail::copy(folder.path());
        let files = dataflow.files(folder.path());
        let latency = folder.path().join("latency");
        let mut run = dataflow.run(1, WARM_UP + MEASURED + 2 * MARGIN, Some(&latency));
        sleep(MARGIN);
        let mut generator = dataflow.generate_at(BESIDE, (WARM_UP + MEASURED).as_secs() * BESIDE);
        sleep(WARM_UP);
        if let Some(rate) = rate {
            let mut ask = dataflow.alluvium("backfill");
            ask.args(["order_lines", "--detach"]).arg(&files);
            ask.args(rate.into_iter().flat_map(|rate| ["--rate", rate]));
            assert!(
                ask.status().expect("alluvium starts").success(),
                "alluvium backfill failed"
            );
        }
        sleep(MEASURED - MARGIN);
        let fed = dataflow.backfilled();
        expect_success(&mut generator, "alluvium generate");
        expect_success(&mut run, "alluvium run");
        for (stage, micros) in read_log(&latency.join("latency.hlog"), MARGIN + WARM_UP) {
            let at = |quantile| common::seconds(micros.value_at_quantile(quantile) as f64 / 1e6);
            table.row(&[
                format!("{stage}, {what}"),
                micros.len().to_string(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0),
                fed.map_or("-".to_string(), |fed| {
                    format!("{:.0}", fed as f64 / (MEASURED - MARGIN).as_secs_f64())
                }),
            ]);
        }
    }
    table.print();
}

fn idle() {
    println!("idle: the retail dataflow without input for {} s", IDLE.as_secs());
    let mut table = common::Table::new(&["workers", "CPU", "of a core"]);
    for workers in [1, 2] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dataflow = Retail::copy(folder.path());
        let mut run = dataflow.run(workers, IDLE + 2 * MARGIN, None);
        let id = run.id().to_string();
        sleep(MARGIN);
        let before = common::cpu_seconds(&id);
        sleep(IDLE);
        let cpu = common::cpu_seconds(&id) - before;
        expect_success(&mut run, "alluvium run");
        table.row(&[
            workers.to_string(),
            common::seconds(cpu),
            format!("{:.2} %", cpu / IDLE.as_secs_f64() * 100.0),
        ]);
    }
    table.print();
    println!("budget: below 1 %");
}

/// A copy of the retail dataflow that commits often and does not sync.
struct Retail {
    folder: PathBuf,
}

impl Retail {
    fn copy(folder: &Path) -> Retail {
        let from = checkout().join("dataflows/retail");
        let to = folder.join("retail");
        for part in ["inputs", "silver", "gold"] {
            fs::create_dir_all(to.join(part)).expect("a folder");
            for entry in fs::read_dir(from.join(part)).expect("the dataflow's folder") {
                let entry = entry.expect("a readable entry");
                fs::copy(entry.path(), to.join(part).join(entry.file_name())).expect("a copy");
            }
        }
        let settings = "name = \"retail\"\nepoch = \"10ms\"\ncommit = \"25ms\"\ndurability = \"none\"\n";
        fs::write(to.join("dataflow.toml"), settings).expect("settings");
        Retail { folder: to }
    }

    fn run(&self, workers: usize, duration: Duration, latency: Option<&Path>) -> Child {
        let mut command = self.alluvium("run");
        command.args(["-w", &workers.to_string(), "--for", &format!("{}s", duration.as_secs())]);
        if let Some(folder) = latency {
            command.arg("--latency").arg(folder);
        }
        command.spawn().expect("alluvium starts")
    }

    /// Writes a folder of files whose lines are in no other file.
    fn files(&self, folder: &Path) -> PathBuf {
        let files = folder.join("history");
        fs::create_dir(&files).expect("a folder");
        for file in 0..FILES {
            let lines = (0..FILE_ROWS).map(|line| {
                let (invoice, day) = (600_000 + file * FILE_ROWS / 10 + line / 10, 1 + line % 28);
                format!(
                    "{invoice},8{:04},a thing,{},2010-{:02}-{day:02} 08:00:00,1.5,{},France\n",
                    line % 4000,
                    1 + line % 9,
                    1 + file % 12,
                    12_000 + line % 4000
                )
            });
            let header = "invoice_no,stock_code,description,quantity,invoiced_at,unit_price,customer_id,country\n";
            let text: String = std::iter::once(header.to_string()).chain(lines).collect();
            fs::write(files.join(format!("{file:03}.csv")), text).expect("a file");
        }
        files
    }

    /// The number of records that a backfill reports to have fed so far; none if there is no report.
    fn backfilled(&self) -> Option<u64> {
        let told = ["status", "done"].map(|part| self.folder.join("lake/_alluvium/requests").join(part));
        let found = told
            .iter()
            .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        let texts = found.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        let records = texts.filter_map(|text| {
            text.split_once("\"records\":")?
                .1
                .split([',', '}'])
                .next()?
                .parse()
                .ok()
        });
        records.max()
    }

    fn generate(&self, events: u64) -> Child {
        self.generate_at(RATE, events)
    }

    fn generate_at(&self, rate: u64, events: u64) -> Child {
        self.alluvium("generate")
            .args(["order_lines.live", "--generator", "retail.order_lines"])
            .args(["--rate", &rate.to_string(), "--limit", &events.to_string()])
            .args(["--late", "0.05", "--updates", "0.05", "--partitions", "2"])
            .spawn()
            .expect("alluvium starts")
    }

    fn alluvium(&self, command: &str) -> Command {
        let mut alluvium = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        alluvium.arg(command).arg(&self.folder).stdout(Stdio::null());
        alluvium
    }
}

fn expect_success(child: &mut Child, what: &str) {
    let status = child.wait().expect("a child that can be waited for");
    assert!(status.success(), "{what} failed: {status}");
}

/// Reads an interval log: a histogram (microseconds) for each stage, of the intervals from `since` its start on.
fn read_log(path: &Path, since: Duration) -> Vec<(String, Histogram<u64>)> {
    let log = fs::read(path).expect("a latency log");
    let mut stages: Vec<(String, Histogram<u64>)> = Vec::new();
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(interval) = entry.expect("a log that reads") else {
            continue;
        };
        let stage = interval.tag().and_then(|tag| tag.as_str().strip_prefix("order_lines."));
        let Some(stage) = stage.filter(|_| interval.start_timestamp() >= since) else {
            continue;
        };
        let bytes = STANDARD.decode(interval.encoded_histogram()).expect("base64");
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .expect("a histogram");
        match stages.iter_mut().find(|(known, _)| known == stage) {
            Some((_, sum)) => sum.add(&histogram).expect("equal bounds"),
            None => stages.push((stage.to_string(), histogram)),
        }
    }
    assert!(
        !stages.is_empty(),
        "{} holds nothing of the time measured",
        path.display()
    );
    stages
}
