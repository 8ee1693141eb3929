//! Tests of the committer on real tables: hand-made parts, real Parquet files, and deltalake as the reader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use crossbeam_channel::{Receiver, Sender, unbounded};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::definition::Deletes;
use crate::repr::{PartitionId, Position};
use crate::serve::LakeSnapshot;
use crate::sink::{CommitEvent, TableBatch};

#[path = "foreign_tests.rs"]
mod foreign;

/// A lake, and a runtime to access it.
struct Place {
    _folder: TempDir,
    lake: Lake,
    runtime: Runtime,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Place {
            _folder: folder,
            lake,
            runtime,
        }
    }

    fn open(&self, specs: &[TableSpec], settings: CommitSettings) -> Result<(Running, Restored), CommitError> {
        self.open_over(self.lake.clone(), specs, settings)
    }

    fn open_over(
        &self,
        lake: Lake,
        specs: &[TableSpec],
        settings: CommitSettings,
    ) -> Result<(Running, Restored), CommitError> {
        let (committer, restored) = Committer::open(lake, specs.to_vec(), settings, self.runtime.handle().clone())?;
        let (parts, inbox) = unbounded();
        let (outbox, events) = unbounded();
        let thread = std::thread::spawn(move || committer.run(inbox, outbox));
        Ok((Running { parts, events, thread }, restored))
    }

    /// Writes a data file with these ids into the table.
    fn file(&self, spec: &TableSpec, ids: std::ops::Range<i64>) -> AddFile {
        self.file_in(spec, ids, None)
    }

    fn file_in(&self, spec: &TableSpec, ids: std::ops::Range<i64>, day: Option<&str>) -> AddFile {
        let batch = rows(ids.clone());
        let schema = batch.schema();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let size = bytes.len() as u64;
        // The folder is escaped as Hive does it, and the path in the log once more, as a URL.
        let folder = day
            .map(|d| format!("day={}/", d.replace(' ', "%2520")))
            .unwrap_or_default();
        let path = format!("{folder}part-{}.parquet", Uuid::new_v4());
        let location = crate::lake::file_location(&spec.path, &path).unwrap();
        self.runtime
            .block_on(self.lake.put_new(&location, bytes.into()))
            .unwrap();
        let stats = format!(
            "{{\"numRecords\":{},\"minValues\":{{\"id\":{}}},\"maxValues\":{{\"id\":{}}},\"nullCount\":{{\"id\":0}},\"tightBounds\":true}}",
            ids.end - ids.start,
            ids.start,
            ids.end - 1
        );
        AddFile {
            path,
            partition_values: day
                .map(|d| ("day".to_string(), Some(d.to_string())))
                .into_iter()
                .collect(),
            size,
            modification_time: 1,
            data_change: true,
            stats: Some(stats),
            deletion_vector: None,
        }
    }

    /// The ids of a table in the newest snapshot, or in the snapshot of an epoch.
    fn ids(&self, table: &str, epoch: Option<Epoch>) -> Vec<i64> {
        self.runtime.block_on(async {
            let view = LakeSnapshot::open(&self.lake, epoch).await.unwrap();
            ids(&view, table).await
        })
    }

    fn entries(&self, spec: &TableSpec) -> Vec<Vec<action::Action>> {
        self.runtime.block_on(async {
            let mut all = Vec::new();
            while let Some(actions) = log::read(&self.lake, &spec.path, all.len() as i64).await.unwrap() {
                all.push(actions);
            }
            all
        })
    }

    fn put_entry(&self, spec: &TableSpec, version: i64, actions: &[action::Action]) {
        let bytes = action::to_lines(actions).into();
        let path = log::entry_path(&spec.path, version);
        let put = self.lake.put_new(&path, bytes);
        assert_eq!(self.runtime.block_on(put).unwrap(), crate::lake::Put::Written);
    }
}

async fn ids(view: &LakeSnapshot, table: &str) -> Vec<i64> {
    let (_, batches) = view
        .query(&format!("SELECT id FROM {table} ORDER BY id"))
        .await
        .unwrap();
    batches
        .iter()
        .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

/// A running committer.
struct Running {
    parts: Sender<Prepared>,
    events: Receiver<CommitEvent>,
    thread: JoinHandle<Result<(), CommitError>>,
}

impl Running {
    fn commit(&self, epoch: Epoch, tables: Vec<(usize, TableBatch)>) -> Arc<[i64]> {
        self.commit_with(epoch, tables, vec![])
    }

    fn commit_with(
        &self,
        epoch: Epoch,
        tables: Vec<(usize, TableBatch)>,
        progress: Vec<(PartitionId, Position)>,
    ) -> Arc<[i64]> {
        self.parts
            .send(Prepared {
                writer: 0,
                epoch,
                tables,
                progress,
                learned: 0,
            })
            .unwrap();
        let CommitEvent::Committed {
            epoch: committed,
            versions,
            ..
        } = self.events.recv().expect("the committer goes on");
        assert_eq!(committed, epoch);
        versions
    }

    fn fail(self, epoch: Epoch, tables: Vec<(usize, TableBatch)>) -> CommitError {
        self.parts
            .send(Prepared {
                writer: 0,
                epoch,
                tables,
                progress: vec![],
                learned: 0,
            })
            .unwrap();
        assert!(self.events.recv().is_err(), "epoch {epoch} was committed");
        self.thread.join().unwrap().unwrap_err()
    }

    fn stop(self) {
        drop(self.parts);
        self.thread.join().unwrap().unwrap();
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    let ids: Vec<i64> = ids.collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(StringArray::from_iter_values(ids.iter().map(|i| format!("name {i}")))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            ids.iter().map(|i| i * 1_000_000),
        )),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn spec(name: &str) -> TableSpec {
    TableSpec {
        name: name.into(),
        path: name.replace('.', "/"),
        schema: schema(),
        partition_by: vec![],
        append_only: false,
        summation: None,
        deletes: Deletes::Vectors,
        change_data_feed: false,
        description: Some("a test".into()),
    }
}

fn settings() -> CommitSettings {
    let mut settings = CommitSettings::new("flow", 1);
    settings.policy.maintenance_tick = Duration::from_millis(20);
    settings
}

fn adds(files: Vec<AddFile>) -> TableBatch {
    TableBatch {
        adds: files,
        data_change: true,
        ..TableBatch::default()
    }
}

fn deletes(file: &str, rows: impl IntoIterator<Item = u64>) -> TableBatch {
    TableBatch {
        deletes: vec![(file.to_string(), rows.into_iter().collect())],
        data_change: true,
        ..TableBatch::default()
    }
}

fn position(partition: &str, next: u64) -> (PartitionId, Position) {
    let id = PartitionId {
        input: "i".into(),
        feed: "f".into(),
        partition: partition.into(),
    };
    (
        id,
        Position {
            next,
            done: false,
            tag: None,
            ..Position::default()
        },
    )
}

#[test]
fn every_snapshot_reads_right_with_vectors_that_grow_and_files_that_die() {
    let place = Place::new();
    let spec = spec("silver.x");
    let (running, restored) = place.open(std::slice::from_ref(&spec), settings()).unwrap();
    assert_eq!((restored.epoch, restored.generation), (None, 1));
    let (a, b) = (place.file(&spec, 0..10), place.file(&spec, 10..15));
    let (a_path, b_path) = (a.path.clone(), b.path.clone());
    running.commit(10, vec![(0, adds(vec![a, b]))]);
    running.commit(20, vec![(0, deletes(&a_path, [0, 3]))]);
    running.commit(30, vec![(0, deletes(&a_path, [9])), (0, deletes(&b_path, [1]))]);
    running.commit(
        40,
        vec![
            (0, deletes(&b_path, [0, 2, 3, 4])),
            (0, adds(vec![place.file(&spec, 100..102)])),
        ],
    );
    for (epoch, expected) in [
        (10, (0..15).collect::<Vec<_>>()),
        (20, (0..15).filter(|i| ![0, 3].contains(i)).collect()),
        (30, (0..15).filter(|i| ![0, 3, 9, 11].contains(i)).collect()),
        (40, (0..10).filter(|i| ![0, 3, 9].contains(i)).chain(100..102).collect()),
    ] {
        assert_eq!(place.ids("silver.x", Some(epoch)), expected, "at epoch {epoch}");
    }
    assert_eq!(place.ids("silver.x", Some(35)), place.ids("silver.x", Some(30)));
    assert_eq!(place.ids("silver.x", None), place.ids("silver.x", Some(40)));
    running.stop();
}

#[test]
fn partitions_with_odd_values_read_right() {
    let place = Place::new();
    let mut fields = schema().fields().to_vec();
    fields.push(Arc::new(Field::new("day", DataType::Utf8, true)));
    let spec = TableSpec {
        schema: Arc::new(Schema::new(fields)),
        partition_by: vec![3],
        ..spec("silver.x")
    };
    let (running, _) = place.open(std::slice::from_ref(&spec), settings()).unwrap();
    let files = vec![
        place.file_in(&spec, 0..3, Some("a b")),
        place.file_in(&spec, 3..5, Some("b")),
    ];
    let first = files[0].path.clone();
    running.commit(1, vec![(0, adds(files))]);
    running.commit(2, vec![(0, deletes(&first, [1]))]);
    running.stop();
    assert_eq!(place.ids("silver.x", None), [0, 2, 3, 4]);
    assert_eq!(place.ids("(SELECT * FROM silver.x WHERE day = 'a b')", None), [0, 2]);
}

#[test]
fn a_restart_goes_on_with_vectors_progress_and_history() {
    let place = Place::new();
    let specs = [spec("bronze.i"), spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let file = place.file(&specs[1], 0..10);
    let path = file.path.clone();
    running.commit_with(5, vec![(1, adds(vec![file]))], vec![position("0", 7), position("1", 1)]);
    running.commit_with(6, vec![(1, deletes(&path, [4]))], vec![position("0", 9)]);
    running.commit_with(7, vec![], vec![position("1", 2)]);
    running.stop();
    let (running, restored) = place.open(&specs, settings()).unwrap();
    assert_eq!((restored.epoch, restored.generation), (Some(7), 2));
    assert_eq!(restored.progress.values().map(|p| p.next).collect::<Vec<_>>(), [9, 2]);
    assert_eq!(restored.tables[1][0].path, path);
    assert_eq!(restored.tables[1][0].deleted.iter().collect::<Vec<_>>(), [4]);
    running.commit(8, vec![(1, deletes(&path, [5]))]);
    running.stop();
    assert_eq!(place.ids("silver.x", None), [0, 1, 2, 3, 6, 7, 8, 9]);
    let epochs = place.runtime.block_on(async {
        let handle = {
            let mut h = place.lake.delta_table(history::PATH);
            h.load().await.unwrap();
            h
        };
        let context = datafusion::prelude::SessionContext::new();
        handle.update_datafusion_session(&context.state()).unwrap();
        context
            .register_table("s", handle.table_provider().await.unwrap())
            .unwrap();
        let sql = "SELECT epoch * 100 + version AS id FROM s WHERE table_name = 'silver.x' ORDER BY 1";
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        batches
            .iter()
            .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect::<Vec<_>>()
    });
    assert_eq!(epochs, [501, 602, 702, 803]);
}

#[test]
fn a_commit_cut_off_behind_its_intent_is_redone_once() {
    let place = Place::new();
    let specs = [spec("bronze.i"), spec("silver.x"), spec("gold.y")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let batches = |place: &Place, ids: std::ops::Range<i64>| {
        (0..3)
            .map(|t| (t, adds(vec![place.file(&specs[t], ids.clone())])))
            .collect::<Vec<_>>()
    };
    running.commit(1, batches(&place, 0..5));
    // The process dies after bronze has its entry, and before silver and gold have theirs.
    let seq = place
        .runtime
        .block_on(ledger::list(&place.lake))
        .unwrap()
        .last()
        .unwrap()
        + 1;
    running.commit(2, batches(&place, 5..8));
    running.stop();
    for spec in &specs[1..] {
        place
            .runtime
            .block_on(place.lake.store.delete(&log::entry_path(&spec.path, 2)))
            .unwrap();
    }
    let entry = place.runtime.block_on(ledger::read(&place.lake, seq)).unwrap().unwrap();
    assert!(matches!(entry, LedgerEntry::Intent(Intent { epoch: 2, .. })));
    assert_eq!(
        place.ids("silver.x", None),
        (0..5).collect::<Vec<_>>(),
        "half a snapshot was shown"
    );
    for _ in 0..2 {
        let (running, restored) = place.open(&specs, settings()).unwrap();
        assert_eq!(restored.epoch, Some(2));
        assert_eq!(restored.versions, [2, 2, 2]);
        running.stop();
        for spec in &specs {
            assert_eq!(place.ids(&spec.name, None), (0..8).collect::<Vec<_>>());
            assert_eq!(place.entries(spec).len(), 3);
        }
    }
}

#[test]
fn a_zombie_stops_when_it_commits_again() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let (zombie, _) = place.open(&specs, settings()).unwrap();
    zombie.commit(1, vec![(0, adds(vec![place.file(&specs[0], 0..5)]))]);
    let (running, restored) = place.open(&specs, settings()).unwrap();
    assert_eq!(restored.generation, 2);
    let error = zombie.fail(2, vec![(0, adds(vec![place.file(&specs[0], 50..55)]))]);
    assert!(
        matches!(
            error,
            CommitError::Ledger(LedgerError::Zombie { theirs: 2, ours: 1, .. })
        ),
        "{error}"
    );
    running.commit(2, vec![(0, adds(vec![place.file(&specs[0], 5..6)]))]);
    running.stop();
    assert_eq!(place.ids("silver.x", None), (0..6).collect::<Vec<_>>());
}

/// A lake that was copied while a run wrote to it went on from an older snapshot, and read input from feeds a second
/// time.
#[test]
fn a_ledger_that_lost_its_newest_entry_is_refused() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    running.commit(1, vec![(0, adds(vec![place.file(&specs[0], 0..5)]))]);
    running.commit(2, vec![(0, adds(vec![place.file(&specs[0], 5..9)]))]);
    running.stop();
    let newest = Path::from("_alluvium/ledger/00000000000000000002.json");
    let bytes = place.runtime.block_on(place.lake.get(&newest)).unwrap().unwrap();
    place.runtime.block_on(place.lake.store.delete(&newest)).unwrap();
    let Err(error) = place.open(&specs, settings()) else {
        panic!("it went on from the snapshot before")
    };
    let refused = matches!(
        &error,
        CommitError::Ledger(LedgerError::Behind {
            epoch: 2,
            newest: 1,
            ..
        })
    );
    assert!(refused, "{error}");
    // The refused start has put its own entry in place of the lost one.
    place
        .runtime
        .block_on(place.lake.store.put(&newest, bytes.into()))
        .unwrap();
    let (running, restored) = place.open(&specs, settings()).unwrap();
    assert_eq!(restored.epoch, Some(2));
    running.stop();
}

#[test]
fn an_append_of_another_writer_is_passed_by_and_a_removal_of_rows_stops_naming_it() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let file = place.file(&specs[0], 0..5);
    let path = file.path.clone();
    running.commit(1, vec![(0, adds(vec![file]))]);
    place.put_entry(&specs[0], 2, &[action::Action::add(place.file(&specs[0], 90..91))]);
    let versions = running.commit(2, vec![(0, deletes(&path, [0]))]);
    assert_eq!(versions[0], 3);
    assert_eq!(place.ids("silver.x", None), [1, 2, 3, 4, 90]);
    let info = serde_json::json!({ "engineInfo": "Spark", "operation": "DELETE" });
    let remove = action::RemoveFile {
        path: path.clone(),
        deletion_timestamp: Some(1),
        data_change: true,
        extended_file_metadata: None,
        partition_values: None,
        size: None,
        deletion_vector: place.entries(&specs[0])[3]
            .iter()
            .find_map(|a| a.add.clone()?.deletion_vector),
    };
    place.put_entry(
        &specs[0],
        4,
        &[action::Action::commit_info(info), action::Action::remove(remove)],
    );
    let error = running.fail(3, vec![(0, deletes(&path, [1]))]).to_string();
    for part in ["silver/x", "version 4", "Spark", "DELETE", &path] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    // The restart takes the table as it is now, and corrects it.
    let (running, restored) = place.open(&specs, settings()).unwrap();
    assert_eq!((restored.epoch, restored.tables[0].len()), (Some(3), 1));
    running.stop();
    assert_eq!(place.ids("silver.x", None), [90]);
}

#[test]
fn checkpoints_are_made_read_back_and_let_old_logs_and_files_go() {
    let place = Place::new();
    let specs = [
        spec("silver.x"),
        TableSpec {
            deletes: Deletes::Rewrite,
            ..spec("gold.small")
        },
    ];
    let mut quick = settings();
    quick.policy = LakePolicy {
        checkpoint_every: 5,
        checkpoint_pause: Duration::ZERO,
        retention: Duration::ZERO,
        ledger_keep: 5,
        ..quick.policy
    };
    let (running, _) = place.open(&specs, quick.clone()).unwrap();
    let mut small = None;
    let mut files: Vec<String> = Vec::new();
    for epoch in 1..=24i64 {
        let file = place.file(&specs[0], epoch * 10..epoch * 10 + 3);
        let next = place.file(&specs[1], epoch..epoch + 2);
        let rewrite = TableBatch {
            removes: small.replace(next.path.clone()).into_iter().collect(),
            ..adds(vec![next])
        };
        let mut tables = vec![(0, adds(vec![file.clone()])), (1, rewrite)];
        if let Some(old) = files.last() {
            tables.push((0, deletes(old, [1])));
        }
        files.push(file.path);
        running.commit(epoch as u64, tables);
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    running.stop();
    let expected: Vec<i64> = (1..=24)
        .flat_map(|e| [e * 10, e * 10 + 1, e * 10 + 2])
        .filter(|i| i % 10 != 1 || *i == 241)
        .collect();
    assert_eq!(place.ids("silver.x", None), expected);
    assert_eq!(place.ids("gold.small", None), [24, 25]);
    let folder = place.lake.local.clone().unwrap();
    let count = |path: &str, ending: &str| {
        let names = std::fs::read_dir(folder.join(path)).unwrap();
        names
            .filter(|n| n.as_ref().unwrap().file_name().to_str().unwrap().ends_with(ending))
            .count()
    };
    assert!(count("silver/x/_delta_log", ".checkpoint.parquet") >= 1);
    assert!(
        count("silver/x/_delta_log", ".json") < 20,
        "{}",
        count("silver/x/_delta_log", ".json")
    );
    assert!(
        count("gold/small", ".parquet") < 10,
        "{}",
        count("gold/small", ".parquet")
    );
    assert!(count("silver/x", ".bin") < 24, "{}", count("silver/x", ".bin"));
    assert!(count("_alluvium/ledger", ".json") <= 25);
    let (running, restored) = place.open(&specs, quick).unwrap();
    assert_eq!(restored.tables[0].len(), 24);
    assert_eq!(restored.tables[0].iter().map(|f| f.deleted.len()).sum::<u64>(), 23);
    let path = files.last().unwrap().clone();
    running.commit(30, vec![(0, deletes(&path, [0]))]);
    running.stop();
    assert!(!place.ids("silver.x", None).contains(&240));
}

#[test]
fn a_store_that_fails_stops_the_committer_and_a_restart_repairs() {
    use object_store::memory::InMemory;
    let place = Place::new();
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let root = url::Url::parse("memory:///").unwrap();
    let healthy = Lake::over(inner.clone(), Path::default(), root.clone());
    let specs = [spec("bronze.i"), spec("silver.x"), spec("gold.y")];
    for allowed in 0..6 {
        let flaky = Arc::new(failing::FailingStore::new(inner.clone()));
        let lake = Lake::over(flaky.clone(), Path::default(), root.clone());
        let at = Place {
            _folder: tempfile::tempdir().unwrap(),
            lake: healthy.clone(),
            runtime: Place::new().runtime,
        };
        let (running, restored) = at.open_over(lake, &specs, settings()).unwrap();
        let epoch = restored.epoch.unwrap_or(0) + 1;
        let ids = allowed * 10..allowed * 10 + 3;
        let tables = (0..3)
            .map(|t| (t, adds(vec![at.file(&specs[t], ids.clone())])))
            .collect();
        flaky.allow_puts(allowed as usize, "_alluvium/snapshots");
        // Intent, bronze, silver, gold: four puts; with fewer the committer stops.
        if allowed < 4 {
            running.fail(epoch, tables);
        } else {
            running.commit(epoch, tables);
            running.stop();
        }
        let (running, restored) = at.open(&specs, settings()).unwrap();
        running.stop();
        let decided = allowed > 0;
        assert_eq!(restored.epoch, decided.then_some(epoch), "with {allowed} puts");
        if decided {
            let expected: Vec<i64> = (1..=allowed).flat_map(|a| a * 10..a * 10 + 3).collect();
            for spec in &specs {
                assert_eq!(at.ids(&spec.name, None), expected, "with {allowed} puts");
            }
        }
    }
    drop(place);
}

/// A store that answered 503 for a minute ended the run.
#[test]
fn a_store_that_is_out_of_order_for_a_while_is_waited_for() {
    use crate::store::{RetryPolicy, RetryingStore};
    use object_store::memory::InMemory;
    let place = Place::new();
    let flaky = Arc::new(failing::FailingStore::new(Arc::new(InMemory::new())));
    let patience = RetryPolicy {
        budget: Duration::from_secs(60),
        first: Duration::from_millis(1),
        longest: Duration::from_millis(20),
    };
    let root = url::Url::parse("memory:///").unwrap();
    let lake = Lake::over(
        Arc::new(RetryingStore::new(flaky.clone(), patience)),
        Path::default(),
        root,
    );
    let at = Place {
        _folder: tempfile::tempdir().unwrap(),
        lake: lake.clone(),
        runtime: Place::new().runtime,
    };
    let specs = [spec("silver.x"), spec("gold.y")];
    let (running, _) = at.open(&specs, settings()).unwrap();
    for (epoch, allowed) in [(1, 0), (2, 1), (3, 2)] {
        let ids = epoch * 10..epoch * 10 + 3;
        let tables = (0..2)
            .map(|t| (t, adds(vec![at.file(&specs[t], ids.clone())])))
            .collect();
        flaky.allow_puts(allowed, "_alluvium/snapshots");
        let healing = std::thread::spawn({
            let flaky = flaky.clone();
            move || {
                std::thread::sleep(Duration::from_millis(300));
                flaky.heal();
            }
        });
        running.commit(epoch as u64, tables);
        healing.join().unwrap();
    }
    running.stop();
    let expected: Vec<i64> = (1..4).flat_map(|e| e * 10..e * 10 + 3).collect();
    for spec in &specs {
        assert_eq!(at.ids(&spec.name, None), expected);
    }
    drop(place);
}

/// Retired files waited in memory for as long as the whole history: gibibytes a day at a commit every 25 ms. A restart
/// even read them all back.
#[test]
fn what_was_retired_before_a_restart_is_deleted_when_it_is_due_and_what_came_back_is_not() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let mut keeping = settings();
    keeping.policy.retention = Duration::from_secs(3600);
    let (running, _) = place.open(&specs, keeping.clone()).unwrap();
    let files: Vec<AddFile> = (0..3).map(|n| place.file(&specs[0], n * 10..n * 10 + 10)).collect();
    running.commit(1, vec![(0, adds(files.clone()))]);
    running.commit(
        2,
        vec![(0, deletes(&files[0].path, [1])), (0, deletes(&files[2].path, [3]))],
    );
    running.commit(
        3,
        vec![(0, deletes(&files[0].path, [2])), (0, deletes(&files[2].path, [4]))],
    );
    let removal = TableBatch {
        removes: vec![files[0].path.clone(), files[1].path.clone()],
        data_change: true,
        ..TableBatch::default()
    };
    running.commit(4, vec![(0, removal)]);
    running.stop();
    let folder = place.lake.local.clone().unwrap().join("silver/x");
    let exists = |name: &str| folder.join(name).exists();
    let vectors = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|n| n.to_string_lossy().ends_with(".bin")).count()
    };
    assert!(files.iter().all(|file| exists(&file.path)));
    assert_eq!(vectors(), 2, "one for each snapshot that removed rows");
    // Somebody restores a removed file (RESTORE).
    let back = action::Action::add(files[1].clone());
    place.put_entry(&specs[0], 5, &[back]);
    let mut due = keeping;
    due.policy.retention = Duration::ZERO;
    let (running, _) = place.open(&specs, due).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    running.stop();
    assert_eq!(
        files.iter().map(|file| exists(&file.path)).collect::<Vec<_>>(),
        [false, true, true]
    );
    assert_eq!(vectors(), 1, "the one that a live file has");
    let expected: Vec<i64> = (10..30).filter(|id| ![23, 24].contains(id)).collect();
    assert_eq!(
        place.ids("(SELECT id FROM silver.x)", None),
        place.ids("silver.x", None)
    );
    let (running, restored) = place.open(&specs, settings()).unwrap();
    assert_eq!(
        restored.tables[0].iter().map(|f| f.rows - f.deleted.len()).sum::<u64>(),
        expected.len() as u64
    );
    running.stop();
}

#[test]
fn an_empty_lake_and_an_unknown_table_are_named() {
    let place = Place::new();
    let error = place
        .runtime
        .block_on(LakeSnapshot::open(&place.lake, None))
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("no snapshot yet"), "{error}");
    let specs = [spec("silver.x"), spec("dead_letters")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    running.commit(1, vec![(0, adds(vec![place.file(&specs[0], 0..2)]))]);
    running.stop();
    place.runtime.block_on(async {
        let view = LakeSnapshot::open(&place.lake, None).await.unwrap();
        assert!(ids(&view, "dead_letters").await.is_empty());
        let error = view.query("SELECT * FROM silver.z").await.unwrap_err().to_string();
        assert!(
            error.contains("silver.z") && error.contains("dead_letters, silver.x"),
            "{error}"
        );
        let (schema, batches) = view.query("SELECT id, name FROM silver.x ORDER BY id").await.unwrap();
        let csv = crate::serve::render(&schema, &batches, crate::serve::PrintFormat::Csv).unwrap();
        assert_eq!(csv, "id,name\n0,name 0\n1,name 1\n");
        let json = crate::serve::render(&schema, &batches[..0], crate::serve::PrintFormat::Json).unwrap();
        assert_eq!(json, "[]\n");
    });
}

#[test]
fn a_changed_definition_is_taken_with_rows_that_change_or_with_the_first_snapshot() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    running.commit(1, vec![(0, adds(vec![place.file(&specs[0], 0..2)]))]);
    running.stop();
    let mut fields = schema().fields().to_vec();
    fields.push(Arc::new(Field::new("note", DataType::Utf8, true)));
    let more = TableSpec {
        schema: Arc::new(Schema::new(fields)),
        change_data_feed: true,
        ..spec("silver.x")
    };
    let (running, restored) = place.open(std::slice::from_ref(&more), settings()).unwrap();
    assert_eq!(restored.versions, [1], "columns come with rows");
    running.commit(2, vec![(0, adds(vec![place.file(&specs[0], 2..3)]))]);
    running.stop();
    assert_eq!(
        place.ids("(SELECT id FROM silver.x WHERE note IS NULL)", None),
        [0, 1, 2]
    );
    // With one column less, the first snapshot replaces all rows together with the schema.
    let (running, restored) = place.open(&specs, settings()).unwrap();
    assert_eq!((restored.versions[0], restored.tables[0].len()), (2, 0));
    assert_eq!(place.ids("silver.x", None), [0, 1, 2], "until then it is as it was");
    running.commit(3, vec![(0, adds(vec![place.file(&specs[0], 7..9)]))]);
    running.stop();
    assert_eq!(place.ids("silver.x", None), [7, 8]);
    assert_eq!(
        place.ids("(SELECT id FROM silver.x WHERE note IS NULL)", Some(2)),
        [0, 1, 2],
        "readers of the past have the schema of then"
    );
}

/// Creates the lake that `scripts/read_with_others.py` is tested on: every type, inline and stored vectors,
/// partitions, a checkpoint. `ALLUVIUM_TEST_LAKE=<folder> cargo test --lib other_engines -- --ignored`.
#[test]
#[ignore = "makes a lake for a script"]
fn a_lake_for_other_engines() {
    let address = std::env::var("ALLUVIUM_TEST_LAKE").expect("ALLUVIUM_TEST_LAKE names a folder");
    let mut place = Place::new();
    place.lake = Lake::open(&address, &BTreeMap::new()).unwrap().with_durability(true);
    let specs = [
        spec("silver.x"),
        every_type("gold.types"),
        TableSpec {
            append_only: true,
            ..spec("bronze.i")
        },
    ];
    let mut quick = settings();
    quick.policy.checkpoint_every = 5;
    quick.policy.checkpoint_pause = Duration::ZERO;
    let (running, _) = place.open(&specs, quick).unwrap();
    let types = place.types_file(&specs[1]);
    let mut files = vec![place.file(&specs[0], 0..1000)];
    let first = files[0].path.clone();
    running.commit(1, vec![(0, adds(files.clone())), (1, adds(vec![types.clone()]))]);
    for epoch in 2..=12u64 {
        let more = place.file(&specs[0], epoch as i64 * 1000..epoch as i64 * 1000 + 10);
        let appended = place.file(&specs[2], epoch as i64..epoch as i64 + 1);
        let whole = deletes(&files.last().unwrap().path, 0..if epoch == 2 { 1 } else { 10 });
        files.push(more.clone());
        let some = deletes(&first, epoch * 10..epoch * 10 + 5);
        let mut tables = vec![(0, some), (0, adds(vec![more])), (2, adds(vec![appended]))];
        if epoch.is_multiple_of(3) {
            tables.push((0, whole));
        }
        if epoch == 7 {
            tables.push((1, deletes(&types.path, [2])));
        }
        running.commit(epoch, tables);
        std::thread::sleep(Duration::from_millis(40));
    }
    running.stop();
    assert_eq!(place.ids("gold.types", None), [0, 1, 3]);
}

/// A table with a column of every type.
fn every_type(name: &str) -> TableSpec {
    let item = |t| DataType::List(Arc::new(Field::new("item", t, true)));
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("bool", DataType::Boolean, true),
        Field::new("int", DataType::Int32, true),
        Field::new("double", DataType::Float64, true),
        Field::new("decimal", DataType::Decimal128(20, 4), true),
        Field::new("text", DataType::Utf8, true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("date", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("texts", item(DataType::Utf8), true),
        Field::new("ints", item(DataType::Int64), true),
    ];
    TableSpec {
        schema: Arc::new(Schema::new(fields)),
        change_data_feed: true,
        ..spec(name)
    }
}

impl Place {
    fn types_file(&self, spec: &TableSpec) -> AddFile {
        let json = concat!(
            r#"{"id":0,"bool":true,"int":-1,"double":1.5,"decimal":"1234567890123456.7891","text":"a,\"b","bytes":"00ff","#,
            r#""date":"2011-12-09","at":"2011-12-09T12:50:00.123456","texts":["x",null],"ints":[1,2]}"#,
            "\n{\"id\":1}\n{\"id\":2,\"text\":\"gone\"}\n",
            r#"{"id":3,"bool":false,"double":-0.1,"decimal":"-0.5","text":"","texts":[],"date":"1969-01-01","at":"1960-01-01T00:00:00"}"#,
        );
        let reader = arrow::json::ReaderBuilder::new(spec.schema.clone())
            .build(json.as_bytes())
            .unwrap();
        let batches: Vec<RecordBatch> = reader.map(|b| b.unwrap()).collect();
        let mut writer = ArrowWriter::try_new(Vec::new(), spec.schema.clone(), None).unwrap();
        batches.iter().for_each(|b| writer.write(b).unwrap());
        let bytes = writer.into_inner().unwrap();
        let path = format!("part-{}.parquet", Uuid::new_v4());
        let (size, location) = (bytes.len() as u64, Path::from(format!("{}/{path}", spec.path)));
        self.runtime
            .block_on(self.lake.put_new(&location, bytes.into()))
            .unwrap();
        let stats = Some("{\"numRecords\":4,\"tightBounds\":true}".to_string());
        AddFile {
            path,
            partition_values: BTreeMap::new(),
            size,
            modification_time: 1,
            data_change: true,
            stats,
            deletion_vector: None,
        }
    }
}

mod failing {
    use std::fmt;
    use std::sync::Mutex;

    use futures::stream::BoxStream;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutOptions,
        PutPayload, PutResult, Result,
    };

    use super::*;

    /// A store whose puts fail after a number of successes.
    #[derive(Debug)]
    pub struct FailingStore {
        inner: Arc<dyn ObjectStore>,
        left: Mutex<Option<(usize, String)>>,
    }

    impl FailingStore {
        pub fn new(inner: Arc<dyn ObjectStore>) -> FailingStore {
            FailingStore {
                inner,
                left: Mutex::new(None),
            }
        }

        /// Lets every put succeed from now on.
        pub fn heal(&self) {
            *self.left.lock().unwrap() = None;
        }

        /// Lets `count` more puts succeed; puts below `free` do not count.
        pub fn allow_puts(&self, count: usize, free: &str) {
            *self.left.lock().unwrap() = Some((count, free.to_string()));
        }
    }

    impl fmt::Display for FailingStore {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "FailingStore({})", self.inner)
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for FailingStore {
        async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
            if let Some((left, free)) = self.left.lock().unwrap().as_mut()
                && !location.as_ref().starts_with(free.as_str())
            {
                if *left == 0 {
                    return Err(object_store::Error::Generic {
                        store: "failing",
                        source: "no more puts".into(),
                    });
                }
                *left -= 1;
            }
            self.inner.put_opts(location, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(location, options).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            self.inner.get_opts(location, options).await
        }

        fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(paths)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }
}
