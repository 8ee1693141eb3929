//! Random upserts into a large table: Alluvium against MERGE of delta-rs on an equal table.
//!
//! `cargo bench --bench upserts [-- 1M]`. MERGE gets the upserted rows as a table in memory, and finds the old ones itself. Ours
//! is measured twice:
//!
//! - `alluvium`, `alluvium-synced`: the sink alone, a writer thread and the committer, as a run drives it. It is handed what
//!   the graph hands over: of each upserted row the removal of its old version and the new one. So it is spared what MERGE
//!   does first, finding the old rows. A commit is timed from the hand-over to the published snapshot.
//! - `alluvium-from-feed`: a whole run over a keyed input. The upserts are appended to its log as JSON, without old versions; the
//!   run reads and decodes them, finds the old rows, and commits. A commit is timed from the append to the entry in the
//!   table's log. This is the figure to hold against MERGE.
//!
//! Nine of ten upserts hit an existing row at random; the tenth is new. One process loads a table and another changes
//! it, so that the memory figure covers only the changes. Ours runs with compaction, and without pauses.

mod common;
#[path = "../tests/it/support.rs"]
#[allow(dead_code, reason = "a bench uses some of it")]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use alluvium::definition::Deletes;
use alluvium::lake::Lake;
use alluvium::repr::{RowCodec, Update};
use alluvium::sink::{
    CommitEvent, CommitSettings, Committer, TableSpec, WriterConfig, WriterLimits, WriterMessage, restore, spawn,
};
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use crossbeam_channel::{Receiver, Sender, bounded};
use datafusion::prelude::{SessionContext, col};
use deltalake::DeltaTable;
use deltalake::protocol::SaveMode;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;
use url::Url;

use common::Measured;

/// The number of rows in a step of the load, and so about that of a file: both tables have the same layout.
const STEP: usize = 1 << 18;

fn main() {
    if let Some(case) = common::case() {
        let words: Vec<&str> = case.iter().map(String::as_str).collect();
        let number = |word: &str| word.parse::<usize>().expect("a number");
        let measured = match words.as_slice() {
            ["load", "alluvium", rows, lake] => load_alluvium(number(rows), Path::new(lake)),
            ["load", "from-feed", rows, lake] => from_feed::load(number(rows), Path::new(lake)),
            ["load", "merge", rows, folder] => load_merge(number(rows), Path::new(folder)),
            ["upsert", "merge", rows, changes, commits, folder] => {
                upsert_merge(number(rows), number(changes), number(commits), Path::new(folder))
            }
            ["upsert", tool, rows, changes, commits, lake] => {
                let plan = Plan::new(number(rows), number(changes), number(commits));
                if *tool == "alluvium-from-feed" {
                    return common::tell(&from_feed::upsert(plan, Path::new(lake)));
                }
                upsert_alluvium(plan, *tool == "alluvium-synced", Path::new(lake))
            }
            _ => panic!("unknown case {words:?}"),
        };
        return common::tell(&measured);
    }
    println!("random upserts into a table of 4 columns\n{}\n", common::machine());
    let mut table = common::Table::new(&[
        "case",
        "commits",
        "p50",
        "p99",
        "max",
        "RSS before",
        "peak",
        "growth",
        "written/commit",
        "read/commit",
        "p50 of MERGE / this",
    ]);
    for (rows, size) in [(1_000_000, "1M"), (10_000_000, "10M")] {
        for (changes, name) in [(1_000, "1k"), (100_000, "100k")] {
            let case = format!("{name} into {size}");
            if common::wanted(&case) {
                compare(&case, rows, changes, &mut table);
            }
        }
    }
    table.print();
    println!("\nbudget of 1k into 10M: p99 15 ms, no table read, growth below 50 MiB");
}

/// Compares one size of changes on one size of table, ours and theirs.
fn compare(case: &str, rows: usize, changes: usize, table: &mut common::Table) {
    let (ours, theirs) = if changes > 10_000 { (40, 3) } else { (500, 5) };
    let mut p50 = BTreeMap::new();
    for (tool, loader, commits) in [
        ("alluvium", "alluvium", ours),
        ("alluvium-synced", "alluvium", ours),
        ("alluvium-from-feed", "from-feed", ours),
        ("merge", "merge", theirs),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = folder.path().join("lake");
        let place = place.to_str().expect("a path in UTF-8");
        let [rows, changes, commits] = [rows, changes, commits].map(|n: usize| n.to_string());
        common::child(&["load", loader, &rows, place]);
        let told = common::child(&["upsert", tool, &rows, &changes, &commits, place]);
        p50.insert(tool, (told, commits));
    }
    let merge = p50["merge"].0["p50"];
    for (tool, (told, commits)) in &p50 {
        let each = |name: &str| common::bytes(told[name] / commits.parse::<f64>().expect("a number"));
        table.row(&[
            format!("{case}, {tool}"),
            commits.clone(),
            common::seconds(told["p50"]),
            common::seconds(told["p99"]),
            common::seconds(told["max"]),
            common::bytes(told["rss"]),
            common::bytes(told["peak_rss"]),
            common::bytes(told["peak_rss"] - told["rss"]),
            each("written"),
            each("read"),
            common::ratio(merge, told["p50"]),
        ]);
    }
}

/// Chooses the rows that change, commit by commit.
struct Plan {
    rows: usize,
    changes: usize,
    commits: usize,
    random: Xoshiro256PlusPlus,
    /// How often each key was written; keys from `rows` on do not exist while this is 0.
    versions: Vec<u8>,
}

impl Plan {
    fn new(rows: usize, changes: usize, commits: usize) -> Plan {
        // The vector is written now, so that its pages are allocated before anything is measured.
        let mut versions = vec![1; rows + changes * commits];
        versions[rows..].fill(0);
        Plan {
            rows,
            changes,
            commits,
            random: Xoshiro256PlusPlus::seed_from_u64(7),
            versions,
        }
    }

    /// The keys of the next commit, ascending and distinct, with their versions before it.
    fn next(&mut self) -> Vec<(i64, u8)> {
        let mut keys: Vec<usize> = (0..self.changes)
            .map(|_| match self.random.random_range(0..10u8) {
                0 => self.random.random_range(self.rows..self.versions.len()),
                _ => self.random.random_range(0..self.rows),
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let change = |key: usize| {
            let before = self.versions[key];
            self.versions[key] = before.wrapping_add(1).max(1);
            (key as i64, before)
        };
        keys.into_iter().map(change).collect()
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(18, 3), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

/// The columns of these versions of rows.
fn columns(rows: &[(i64, u8)]) -> Vec<ArrayRef> {
    let name = |(id, _): &(i64, u8)| Some(format!("customer number {id}"));
    let amount = |(id, version): &(i64, u8)| Some(i128::from(id * 17 + i64::from(*version)));
    let amounts: Decimal128Array = rows.iter().map(amount).collect();
    vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id))),
        Arc::new(rows.iter().map(name).collect::<StringArray>()),
        Arc::new(amounts.with_precision_and_scale(18, 3).expect("18 digits are enough")),
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            rows.iter().map(|(id, _)| id * 1_000_003),
        )),
    ]
}

fn batch(rows: &[(i64, u8)]) -> RecordBatch {
    RecordBatch::try_new(schema(), columns(rows)).expect("columns of the schema")
}

/// The first version of every row, in steps.
fn steps(rows: usize) -> impl Iterator<Item = Vec<(i64, u8)>> {
    let step = move |from: usize| (from..rows.min(from + STEP)).map(|id| (id as i64, 1)).collect();
    (0..rows).step_by(STEP).map(step)
}

fn runtime() -> Runtime {
    alluvium::run::runtime().expect("a runtime")
}

/// The sink of one worker, put together as in a run.
struct Sink {
    arrivals: Sender<WriterMessage>,
    events: Receiver<CommitEvent>,
    parts: Vec<thread::JoinHandle<()>>,
    epoch: u64,
}

impl Sink {
    fn open(folder: &Path, durable: bool, runtime: &Runtime) -> Sink {
        let spec = TableSpec {
            name: "silver.customers".into(),
            path: "silver/customers".into(),
            schema: schema(),
            partition_by: vec![],
            append_only: false,
            summation: None,
            deletes: Deletes::Auto,
            change_data_feed: false,
            description: None,
        };
        let lake = Lake::make(&folder.display().to_string(), &BTreeMap::new())
            .expect("a lake")
            .with_durability(durable);
        let settings = CommitSettings::new("upserts", 1);
        let handle = runtime.handle().clone();
        let (committer, restored) =
            Committer::open(lake.clone(), vec![spec.clone()], settings, handle.clone()).expect("an open lake");
        let config = WriterConfig {
            relocations: Default::default(),
            writer: 0,
            writers: 1,
            generation: restored.generation,
            specs: Arc::new(vec![spec]),
            lake: lake.clone(),
            runtime: handle,
            limits: WriterLimits::default(),
        };
        let tables = restored.tables.into_iter().enumerate().collect();
        let mut loaded = restore(&config, 0..1, tables).expect("a table that reads");
        let (arrivals, arrived) = bounded(64);
        let (prepared_in, prepared) = bounded(2);
        let (events_in, events) = bounded(4);
        let failed = |e| panic!("the writer stopped: {e}");
        let writer = spawn(config, loaded.swap_remove(0), arrived, prepared_in, failed).expect("a writer");
        let writer = writer.handle;
        let committer = thread::spawn(move || {
            let ended = committer.run(prepared, events_in);
            ended.unwrap_or_else(|e| panic!("the committer stopped: {e}"));
        });
        Sink {
            arrivals,
            events,
            parts: vec![writer, committer],
            epoch: restored.epoch.unwrap_or(0),
        }
    }

    /// Sends a snapshot's updates, and waits until it is published.
    fn commit(&mut self, updates: impl FnOnce(u64) -> Vec<Update>) -> Duration {
        self.epoch += 1;
        let updates = updates(self.epoch);
        let started = Instant::now();
        let sent = self.arrivals.send(WriterMessage::Rows { table: 0, updates });
        sent.expect("a writer that listens");
        let sent = self.arrivals.send(WriterMessage::Seal { epoch: self.epoch });
        sent.expect("a writer that listens");
        let CommitEvent::Committed { epoch, .. } = self.events.recv().expect("a committer that answers");
        assert_eq!(epoch, self.epoch);
        started.elapsed()
    }

    fn close(self) {
        drop(self.arrivals);
        self.parts
            .into_iter()
            .for_each(|part| part.join().expect("a thread that does not panic"));
    }
}

fn load_alluvium(rows: usize, lake: &Path) -> Measured {
    let (runtime, codec) = (runtime(), RowCodec::new(schema()).expect("a codec"));
    let mut sink = Sink::open(lake, false, &runtime);
    for step in steps(rows) {
        sink.commit(|epoch| {
            let rows = codec.encode_rows(&columns(&step), step.len()).expect("rows");
            rows.into_iter().map(|row| (row, epoch, 1)).collect()
        });
    }
    sink.close();
    Measured::from([("lake".into(), common::folder_bytes(lake) as f64)])
}

fn upsert_alluvium(mut plan: Plan, durable: bool, lake: &Path) -> Measured {
    let (runtime, codec) = (runtime(), RowCodec::new(schema()).expect("a codec"));
    let mut sink = Sink::open(lake, durable, &runtime);
    let mut meter = Meter::start(lake);
    for _ in 0..plan.commits {
        let change = plan.next();
        let old: Vec<(i64, u8)> = change.iter().copied().filter(|(_, version)| *version > 0).collect();
        let new: Vec<(i64, u8)> = change
            .iter()
            .map(|(id, version)| (*id, version.wrapping_add(1).max(1)))
            .collect();
        let encode = |rows: &[(i64, u8)]| codec.encode_rows(&columns(rows), rows.len()).expect("rows");
        let (old, new) = (encode(&old), encode(&new));
        meter.observe(sink.commit(|epoch| {
            let removals = old.into_iter().map(|row| (row, epoch, -1));
            removals.chain(new.into_iter().map(|row| (row, epoch, 1))).collect()
        }));
    }
    let measured = meter.finish();
    sink.close();
    measured
}

/// A whole run over a keyed input, whose upserts come by its log.
mod from_feed {
    use std::fs;
    use std::io::Write as _;

    use alluvium::definition::{self, Dataflow};
    use alluvium::run::{self, Options};
    use parquet::arrow::ArrowWriter;

    use super::common::versions::Versions;
    use super::*;

    /// The longest that a commit may take.
    const PATIENCE: Duration = Duration::from_secs(300);

    /// The dataflow, and its table from dropped Parquet files.
    pub fn load(rows: usize, folder: &Path) -> Measured {
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
            fs::write(path, text).expect("a written file");
        };
        write(
            "dataflow.toml",
            "name = \"upserts\"\nlake = \"lake\"\nepoch = \"1ms\"\ncommit = \"1ms\"\ndurability = \"none\"\n",
        );
        write(
            "inputs/customers.toml",
            "key = [\"id\"]\nbronze = false\n[columns]\nid = { type = \"BIGINT\", nullable = false }\nname = \"VARCHAR\"\n\
             amount = \"DECIMAL(18,3)\"\nat = \"TIMESTAMP\"\n\
             [[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*.parquet\"\nformat = \"parquet\"\n\
             [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n",
        );
        write("silver/customers.sql", "SELECT id, name, amount, at FROM customers");
        write("live/0.ndjson", "");
        fs::create_dir_all(folder.join("drops")).expect("a folder");
        for (n, step) in steps(rows).enumerate() {
            let file = fs::File::create(folder.join(format!("drops/{n:04}.parquet"))).expect("a new file");
            let mut writer = ArrowWriter::try_new(file, schema(), None).expect("a writer");
            writer.write(&batch(&step)).expect("written rows");
            writer.close().expect("a whole file");
        }
        let outcome = support::catch_up(&dataflow(folder), 1);
        assert_eq!(outcome.records, rows as u64, "every row is taken");
        Measured::from([("lake".into(), common::folder_bytes(&folder.join("lake")) as f64)])
    }

    /// Upserts, each round appended at once and waited for in the table's log.
    pub fn upsert(mut plan: Plan, folder: &Path) -> Measured {
        let (stop, stopped) = bounded(1);
        let options = Options {
            workers: 1,
            stop: Some(stopped),
            ..Options::default()
        };
        let dataflow = dataflow(folder);
        let run = thread::spawn(move || run::run(dataflow, &options));
        let log = fs::File::options().append(true).open(folder.join("live/0.ndjson"));
        let mut log = log.expect("the log is there");
        let mut table = Versions::of(folder.join("lake/silver/customers/_delta_log"));
        let mut round = |change: Vec<(i64, u8)>| {
            let lines: String = change.into_iter().map(line).collect();
            table.skip();
            let started = Instant::now();
            log.write_all(lines.as_bytes()).expect("the log takes more");
            table.wait(|| {
                assert!(
                    started.elapsed() < PATIENCE && !run.is_finished(),
                    "a round was not committed"
                );
            });
            started.elapsed()
        };
        // The first row waits for the run to stand.
        round(vec![(-1, 1)]);
        let lake = folder.join("lake");
        let mut meter = Meter::start(&lake);
        for _ in 0..plan.commits {
            let change = plan.next();
            meter.observe(round(change));
        }
        let measured = meter.finish();
        drop(stop);
        let ended = run.join().expect("the run does not panic");
        ended.unwrap_or_else(|e| panic!("{e}"));
        measured
    }

    fn dataflow(folder: &Path) -> Arc<Dataflow> {
        let dataflow = definition::load(folder, &|_| None).unwrap_or_else(|e| panic!("{e}"));
        Arc::new(dataflow)
    }

    /// The version of a row that follows `before`, with the values that [`columns`] gives it.
    fn line((id, before): (i64, u8)) -> String {
        let thousandths = id * 17 + i64::from(before.wrapping_add(1).max(1));
        let at = chrono::DateTime::from_timestamp_micros(id * 1_000_003).expect("a time of the calendar");
        format!(
            "{{\"value\": {{\"id\": {id}, \"name\": \"customer number {id}\", \"amount\": \"{:.3}\", \"at\": \"{}\"}}}}\n",
            thousandths as f64 / 1000.0,
            at.format("%Y-%m-%d %H:%M:%S%.6f"),
        )
    }
}

fn url(folder: &Path) -> Url {
    std::fs::create_dir_all(folder).expect("a folder");
    Url::from_directory_path(folder).expect("an absolute path")
}

fn load_merge(rows: usize, folder: &Path) -> Measured {
    runtime().block_on(async {
        let mut table = DeltaTable::try_from_url(url(folder)).await.expect("a table");
        for step in steps(rows) {
            let write = table.write([batch(&step)]).with_save_mode(SaveMode::Append);
            table = write.await.expect("a written step");
        }
    });
    Measured::from([("lake".into(), common::folder_bytes(folder) as f64)])
}

fn upsert_merge(rows: usize, changes: usize, commits: usize, folder: &Path) -> Measured {
    let mut plan = Plan::new(rows, changes, commits);
    let runtime = runtime();
    let mut table = runtime.block_on(deltalake::open_table(url(folder))).expect("a table");
    let mut meter = Meter::start(folder);
    for _ in 0..commits {
        let change = plan.next();
        let new: Vec<(i64, u8)> = change
            .iter()
            .map(|(id, version)| (*id, version.wrapping_add(1).max(1)))
            .collect();
        let source = SessionContext::new().read_batch(batch(&new)).expect("a source");
        let started = Instant::now();
        let merged = runtime.block_on(async {
            let names: Vec<String> = schema().fields().iter().map(|f| f.name().clone()).collect();
            let from = |name: &str| col(format!("source.{name}"));
            table
                .merge(source, col("target.id").eq(col("source.id")))
                .with_source_alias("source")
                .with_target_alias("target")
                .when_matched_update(|row| {
                    names
                        .iter()
                        .fold(row, |row, name| row.update(name.as_str(), from(name)))
                })?
                .when_not_matched_insert(|row| names.iter().fold(row, |row, name| row.set(name.as_str(), from(name))))?
                .await
        });
        let (merged, metrics) = merged.expect("a merge");
        meter.observe(started.elapsed());
        assert_eq!(
            metrics.num_target_rows_inserted + metrics.num_target_rows_updated,
            new.len()
        );
        table = merged;
    }
    meter.finish()
}

/// Measures the resources that changing a table uses, from `start` to `finish`.
struct Meter<'a> {
    folder: &'a Path,
    rss: u64,
    stored: u64,
    read: u64,
    times: Vec<Duration>,
}

impl<'a> Meter<'a> {
    fn start(folder: &'a Path) -> Meter<'a> {
        assert!(common::reset_peak_rss(), "this kernel cannot forget a peak");
        Meter {
            folder,
            rss: common::rss(),
            stored: common::folder_bytes(folder),
            read: common::written_and_read().1,
            times: Vec::new(),
        }
    }

    fn observe(&mut self, time: Duration) {
        self.times.push(time);
    }

    fn finish(self) -> Measured {
        let at = |quantile| common::quantile(&self.times, quantile).as_secs_f64();
        let stored = common::folder_bytes(self.folder).saturating_sub(self.stored);
        Measured::from([
            ("p50".into(), at(0.5)),
            ("p99".into(), at(0.99)),
            ("max".into(), at(1.0)),
            ("rss".into(), self.rss as f64),
            ("peak_rss".into(), common::peak_rss() as f64),
            ("written".into(), stored as f64),
            ("read".into(), (common::written_and_read().1 - self.read) as f64),
        ])
    }
}
