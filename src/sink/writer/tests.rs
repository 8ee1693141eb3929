//! Tests writers against a simple committer (a list of files with deletion bitmaps), with a multiset as oracle: at
//! every seal the files hold exactly the multiset.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use differential_dataflow::difference::Semigroup;
use object_store::memory::InMemory;
use object_store::path::Path;
use roaring::RoaringTreemap;
use url::Url;

use super::file::decode_file;
use super::layout::{TableLayout, from_log};
use super::*;
use crate::definition::Deletes;
use crate::lake::Lake;
use crate::repr::{Accumulators, Row, RowCodec, Update};
use crate::sink::{LiveFile, sums};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

fn schema() -> SchemaRef {
    let tags = DataType::List(Field::new("item", DataType::Decimal128(20, 2), true).into());
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("day", DataType::Date32, true),
        Field::new("price", DataType::Decimal128(18, 3), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("tags", tags, true),
        Field::new("raw", DataType::Binary, true),
        Field::new("region", DataType::Utf8, true),
        Field::new("x", DataType::Float64, true),
        Field::new("hour", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("flag", DataType::Boolean, true),
    ]))
}

/// Rows of every type; equal ids give equal rows.
fn rows_of(ids: &[i64]) -> Vec<Row> {
    let pick = |i: i64, n: i64| (i % n != 0).then_some(i);
    let regions = ["north", "a b/c=%é", "x"];
    let mut tags = ListBuilder::new(Decimal128Builder::new().with_data_type(DataType::Decimal128(20, 2)));
    for id in ids {
        for k in 0..id % 3 {
            tags.values().append_option((k > 0).then_some(i128::from(*id) * 1000));
        }
        tags.append(id % 7 != 0);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.to_vec())),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 5).map(|i| format!("näme {i}")))
                .collect::<StringArray>(),
        ),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 11).map(|i| (i % 3) as i32 - 1))
                .collect::<Date32Array>(),
        ),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 4).map(|i| i128::from(i) * -1001))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(18, 3)
                .unwrap(),
        ),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 6).map(|i| i * 1_000_001 - 5))
                .collect::<TimestampMicrosecondArray>(),
        ),
        Arc::new(tags.finish()),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 3).map(|i| i.to_le_bytes()))
                .collect::<BinaryArray>(),
        ),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 4).map(|i| regions[(i % 3) as usize]))
                .collect::<StringArray>(),
        ),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 9).map(|i| i as f64 / 8.0))
                .collect::<Float64Array>(),
        ),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 13).map(|i| (i % 2) * 3_600_000_001))
                .collect::<TimestampMicrosecondArray>(),
        ),
        Arc::new(
            ids.iter()
                .map(|i| pick(*i, 5).map(|i| i % 2 == 0))
                .collect::<BooleanArray>(),
        ),
    ];
    RowCodec::new(schema())
        .unwrap()
        .encode_rows(&columns, ids.len())
        .unwrap()
}

fn spec(deletes: Deletes, partition_by: Vec<usize>, change_data_feed: bool) -> TableSpec {
    TableSpec {
        name: "silver.things".into(),
        path: "silver/things".into(),
        schema: schema(),
        partition_by,
        append_only: false,
        summation: None,
        deletes,
        change_data_feed,
        description: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
}

fn tight() -> WriterLimits {
    WriterLimits {
        small_rows: 40,
        small_bytes: 1 << 20,
        file_rows: 64,
        rewrite_rows: 32,
        merge_files: 3,
        merge_rows: 200,
        merge_bytes: 1 << 20,
        fold_rows: 16,
        dead_share: 0.4,
    }
}

fn config(folder: &FilePath, spec: TableSpec, runtime: &tokio::runtime::Runtime) -> WriterConfig {
    WriterConfig {
        writer: 0,
        writers: 1,
        generation: 1,
        specs: Arc::new(vec![spec]),
        lake: Lake::open(folder.to_str().unwrap(), &BTreeMap::new())
            .unwrap()
            .with_durability(true),
        runtime: runtime.handle().clone(),
        limits: tight(),
        relocations: Relocations::default(),
    }
}

/// Stands for the committer, which applies batches, and for a reader of the files.
struct Log {
    live: BTreeMap<String, LiveFile>,
    layout: TableLayout,
    config: WriterConfig,
    changes: BTreeMap<Row, i64>,
    /// Whether the next writers are told that existing files do not count any more.
    anew: bool,
}

impl Log {
    fn new(config: WriterConfig) -> Self {
        let layout = TableLayout::new(config.specs[0].clone()).unwrap();
        Log {
            live: BTreeMap::new(),
            layout,
            config,
            changes: BTreeMap::new(),
            anew: false,
        }
    }

    fn bytes(&self, path: &str) -> Bytes {
        self.config
            .file_store()
            .get(&format!("silver/things/{}", from_log(path).unwrap()))
            .expect("a named file is there")
    }

    fn apply(&mut self, batch: TableBatch) {
        for add in batch.adds {
            assert_eq!(add.data_change, batch.data_change);
            assert_eq!(self.bytes(&add.path).len() as u64, add.size);
            let stats: serde_json::Value = serde_json::from_str(add.stats.as_deref().unwrap()).unwrap();
            let file = LiveFile {
                path: add.path.clone(),
                partition_values: add.partition_values,
                size: add.size,
                rows: stats["numRecords"].as_u64().unwrap(),
                deleted: RoaringTreemap::new(),
            };
            assert!(self.live.insert(add.path, file).is_none(), "a name was used twice");
        }
        for (path, positions) in batch.deletes {
            let file = self.live.get_mut(&path).expect("rows go from live files");
            assert!(
                positions.iter().all(|p| p < file.rows && file.deleted.insert(p)),
                "a row went twice"
            );
            assert!(!positions.is_empty());
        }
        for path in batch.removes {
            self.live.remove(&path).expect("a live file goes");
        }
        self.live.retain(|_, file| file.deleted.len() < file.rows);
        for change in batch.changes {
            for file in decode_file(&self.layout, &change.path, self.bytes(&change.path)).unwrap() {
                let file = file.unwrap();
                let kinds = file.column_by_name("_change_type").unwrap().as_string::<i32>().clone();
                let rows = self
                    .layout
                    .encode(&self.layout.to_table(&file, &change.partition_values).unwrap())
                    .unwrap();
                for (row, kind) in rows.iter().zip(kinds.iter()) {
                    let diff = if kind == Some("insert") { 1 } else { -1 };
                    *self.changes.entry(Row::new(row.as_ref())).or_default() += diff;
                }
            }
        }
        self.changes.retain(|_, n| *n != 0);
    }

    fn read(&self) -> BTreeMap<Row, i64> {
        let mut rows = BTreeMap::new();
        for file in self.live.values() {
            let mut position = 0;
            for batch in decode_file(&self.layout, &file.path, self.bytes(&file.path)).unwrap() {
                let batch = self.layout.to_table(&batch.unwrap(), &file.partition_values).unwrap();
                for row in self.layout.encode(&batch).unwrap().iter() {
                    if !file.deleted.contains(position) {
                        *rows.entry(Row::new(row.as_ref())).or_default() += 1;
                    }
                    position += 1;
                }
            }
            assert_eq!(position, file.rows, "numRecords is exact");
        }
        rows
    }

    /// Restores writers from the live files; `audit`: they audit against the rows up to this epoch.
    fn writers(&self, writers: usize, generation: u64, audit: Option<Epoch>) -> Vec<SinkWriter> {
        let config = WriterConfig {
            writers,
            generation,
            ..self.config.clone()
        };
        let files = self.live.values().cloned().collect();
        let restored = restore(&config, 0..writers, vec![(0, files)]).unwrap();
        restored
            .into_iter()
            .enumerate()
            .map(|(writer, mut restored)| {
                if let Some(upto) = audit {
                    restored.audit_next(0, upto);
                }
                if self.anew {
                    restored.start_anew(0);
                }
                SinkWriter::new(
                    WriterConfig {
                        writer,
                        ..config.clone()
                    },
                    restored,
                )
                .unwrap()
            })
            .collect()
    }
}

fn send(writers: &mut [SinkWriter], updates: Vec<Update>) {
    let count = writers.len();
    let mut shares: Vec<Vec<Update>> = vec![Vec::new(); count];
    updates
        .into_iter()
        .for_each(|update| shares[owner(update.0.bytes(), count)].push(update));
    for (writer, updates) in writers.iter_mut().zip(shares) {
        assert!(
            writer
                .observe(WriterMessage::Rows { table: 0, updates })
                .unwrap()
                .is_none()
        );
    }
}

fn seal(writers: &mut [SinkWriter], log: &mut Log, epoch: Epoch) {
    let prepared: Vec<Prepared> = writers
        .iter_mut()
        .map(|w| w.observe(WriterMessage::Seal { epoch }).unwrap().unwrap())
        .collect();
    // Two writers may name rows of one file: the log applies the whole snapshot before it drops anything.
    for prepared in prepared {
        assert_eq!(prepared.epoch, epoch);
        prepared.tables.into_iter().for_each(|(_, batch)| log.apply(batch));
    }
}

fn corrections(writers: &[SinkWriter]) -> u64 {
    writers
        .iter()
        .map(|w| w.stats().tables[0].corrections.load(Relaxed))
        .sum()
}

/// Sends random updates, over restarts with other numbers of writers, with compactions between and across seals.
fn drive(deletes: Deletes, partition_by: Vec<usize>, seed: u64) {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let feed = seed.is_multiple_of(2);
    let config = config(folder.path(), spec(deletes, partition_by, feed), &runtime);
    let mut log = Log::new(WriterConfig {
        lake: config.lake.with_durability(seed == 1),
        ..config
    });
    let mut random = Random(seed * 7919 + 1);
    let rows = rows_of(&(0..400).collect::<Vec<_>>());
    let mut model: BTreeMap<Row, i64> = BTreeMap::new();
    let (mut epoch, mut compactions, mut half_moved) = (1, 0, 0);
    for (phase, count) in [2, 2, 3, 1, 2].into_iter().enumerate() {
        let mut writers = log.writers(count, phase as u64, (phase > 0).then_some(epoch));
        if phase > 0 {
            // The rows that the graph recomputed are the same or, as after a changed definition, different.
            let before = model.clone();
            if phase % 2 == 0 {
                for row in rows.iter().take(30) {
                    model.remove(row);
                    *model.entry(rows[random.below(400) as usize].clone()).or_default() += 1;
                }
            }
            let differs: u64 = before
                .keys()
                .chain(model.keys().filter(|r| !before.contains_key(*r)))
                .map(|r| (before.get(r).unwrap_or(&0) - model.get(r).unwrap_or(&0)).unsigned_abs())
                .sum();
            send(
                &mut writers,
                model.iter().map(|(row, n)| (row.clone(), epoch, *n)).collect(),
            );
            // Changes since the audited epoch do not count as corrections.
            let mut since: Vec<(Row, i64)> = model.iter().take(phase * 3).map(|(row, n)| (row.clone(), -n)).collect();
            since.extend((0..phase * 2).map(|_| (rows[random.below(400) as usize].clone(), 1)));
            epoch += 1;
            for (row, n) in &since {
                *model.entry(row.clone()).or_default() += n;
            }
            model.retain(|_, n| *n != 0);
            send(
                &mut writers,
                since.into_iter().map(|(row, n)| (row, epoch, n)).collect(),
            );
            seal(&mut writers, &mut log, epoch);
            assert_eq!(log.read(), model, "after a restart, phase {phase}");
            assert_eq!(corrections(&writers), differs);
        }
        for step in 0..14 {
            // First a bulk load, then churn, then nearly nothing, so that the table goes through every way of tracking
            // rows.
            let (adds, removes) = match step {
                0 => (60, 0),
                5 if phase % 2 == 1 => (200, 10),
                11 if phase < 4 => (0, 1000),
                _ => (random.below(20), random.below(20)),
            };
            epoch += 1 + random.below(3);
            let mut updates = Vec::new();
            for _ in 0..adds {
                let row = rows[random.below(400) as usize].clone();
                let n = if random.below(8) == 0 { 5 } else { 1 };
                *model.entry(row.clone()).or_default() += n;
                updates.push((row, epoch - random.below(2), n));
            }
            for _ in 0..removes {
                let Some((row, n)) = model.iter().nth(random.below(model.len().max(1) as u64) as usize) else {
                    break;
                };
                let (row, n) = (row.clone(), 1 + random.below(*n as u64) as i64);
                let left = model.get_mut(&row).unwrap();
                *left -= n;
                updates.push((row, epoch, -n));
                model.retain(|_, n| *n > 0);
            }
            let running: Vec<_> = writers
                .iter_mut()
                .map(|w| match w.is_moving_entries() {
                    true => None,
                    false => w.compaction().map(|job| job.run().unwrap()),
                })
                .collect();
            // Updates of a later epoch that cancel.
            updates.push((rows[0].clone(), epoch + 1, 3));
            updates.push((rows[0].clone(), epoch + 1, -3));
            send(&mut writers, updates);
            seal(&mut writers, &mut log, epoch);
            for (writer, merged) in writers.iter_mut().zip(running) {
                let begun = merged.and_then(|merged| writer.begin_move(merged).unwrap());
                // Sometimes a seal comes before the first entry has moved.
                let moves = random.below(4) * random.below(30);
                let compaction = begun.or_else(|| writer.move_entries(moves as usize).unwrap());
                if let Some(compaction) = compaction {
                    assert!(!compaction.batch.data_change);
                    log.apply(compaction.batch);
                    compactions += 1;
                } else if writer.is_moving_entries() {
                    half_moved += 1;
                }
            }
            let live_rows: u64 = writers
                .iter()
                .map(|w| w.stats().tables[0].live_rows.load(Relaxed))
                .sum();
            assert_eq!(live_rows as i64, model.values().sum::<i64>());
            assert_eq!(
                log.read(),
                model,
                "{deletes:?}, seed {seed}, phase {phase}, step {step}, {count} writers"
            );
            if feed {
                assert_eq!(log.changes, model, "the change data feed adds up to the table");
            }
            if deletes == Deletes::Rewrite {
                assert!(
                    log.live.values().all(|f| f.deleted.is_empty()),
                    "a deletion vector where none may be"
                );
            }
            while random.below(3) == 0 {
                for writer in writers.iter_mut().filter(|writer| !writer.is_moving_entries()) {
                    if let Some(compaction) = writer.compact_now().unwrap() {
                        log.apply(compaction.batch);
                        compactions += 1;
                    }
                }
                assert_eq!(log.read(), model);
            }
        }
    }
    assert!(compactions > 5, "compaction went along: {compactions}");
    assert_eq!(
        half_moved > 5,
        deletes != Deletes::Rewrite,
        "seals met compactions half moved: {half_moved}"
    );
    let files = std::fs::read_dir(folder.path().join("silver/things")).unwrap().count();
    assert!(files > 0);
}

#[test]
fn with_automatic_deletes_files_hold_the_multiset_at_every_seal() {
    (1..=4).for_each(|seed| drive(Deletes::Auto, vec![], seed));
}

#[test]
fn with_deletion_vectors_files_hold_the_multiset_at_every_seal() {
    (1..=4).for_each(|seed| drive(Deletes::Vectors, vec![], seed));
}

#[test]
fn with_rewriting_files_hold_the_multiset_at_every_seal() {
    (1..=4).for_each(|seed| drive(Deletes::Rewrite, vec![], seed));
}

#[test]
fn partitioned_tables_hold_the_multiset_at_every_seal() {
    for (i, deletes) in [Deletes::Auto, Deletes::Vectors, Deletes::Rewrite]
        .into_iter()
        .enumerate()
    {
        drive(deletes, vec![2], 10 + i as u64);
        drive(deletes, vec![7, 9], 20 + i as u64);
    }
}

#[test]
fn a_row_that_is_not_there_is_a_fault_that_names_table_and_epoch() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), runtime());
    for deletes in [Deletes::Auto, Deletes::Vectors] {
        let mut writer = SinkWriter::new(
            config(folder.path(), spec(deletes, vec![], false), &runtime),
            LoadedWriter::default(),
        )
        .unwrap();
        let row = rows_of(&[1]).remove(0);
        writer
            .observe(WriterMessage::Rows {
                table: 0,
                updates: vec![(row, 5, -2)],
            })
            .unwrap();
        let fault = writer.observe(WriterMessage::Seal { epoch: 7 }).unwrap_err();
        assert!(
            matches!(&fault, WriterError::UnknownRow { table, epoch: 7, missing: 2, row } if table == "silver.things" && row.contains(':')),
            "{fault}"
        );
        assert!(fault.to_string().contains("the first of them {\""), "{fault}");
    }
}

#[test]
fn an_empty_text_in_a_partition_column_is_null_from_the_start() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("p", DataType::Utf8, true),
    ];
    let spec = TableSpec {
        schema: Arc::new(Schema::new(fields)),
        ..spec(Deletes::Vectors, vec![1], false)
    };
    let codec = RowCodec::new(spec.schema.clone()).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 1, 2])),
        Arc::new(StringArray::from(vec![Some(""), None, Some("")])),
    ];
    let rows = codec.encode_rows(&columns, 3).unwrap();
    let mut log = Log::new(config(folder.path(), spec, &runtime));
    let mut writers = log.writers(1, 1, None);
    send(&mut writers, rows.iter().map(|row| (row.clone(), 1, 1)).collect());
    seal(&mut writers, &mut log, 1);
    assert_eq!(log.read()[&rows[1]], 2);
    assert!(
        log.live
            .values()
            .all(|f| f.path.starts_with("p=__HIVE_DEFAULT_PARTITION__/"))
    );
    let mut writers = log.writers(1, 2, Some(Epoch::MAX));
    send(&mut writers, rows.iter().map(|row| (row.clone(), 2, 1)).collect());
    seal(&mut writers, &mut log, 2);
    assert_eq!(corrections(&writers), 0);
    send(&mut writers, rows.iter().map(|row| (row.clone(), 3, -1)).collect());
    seal(&mut writers, &mut log, 3);
    assert!(log.read().is_empty());
}

#[test]
fn appended_columns_go_to_files_in_order_of_epochs_and_are_merged() {
    for partition_by in [vec![], vec![2]] {
        let (folder, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let spec = TableSpec {
            append_only: true,
            ..spec(Deletes::Auto, partition_by, false)
        };
        let mut log = Log::new(config(folder.path(), spec, &runtime));
        let mut writers = log.writers(1, 1, None);
        let mut model: BTreeMap<Row, i64> = BTreeMap::new();
        let mut most = 0;
        for epoch in 1..60 {
            let rows = rows_of(&(epoch..epoch + 5).collect::<Vec<_>>());
            let batch = log.layout.decode(rows.iter().map(Row::bytes)).unwrap();
            rows.iter().for_each(|row| *model.entry(row.clone()).or_default() += 1);
            // Columns of the next epoch wait for its seal.
            let ahead = batch.clone();
            writers[0]
                .observe(WriterMessage::Columns {
                    table: 0,
                    epoch: 2 * epoch as u64,
                    batch,
                })
                .unwrap();
            writers[0]
                .observe(WriterMessage::Columns {
                    table: 0,
                    epoch: 2 * epoch as u64 + 1,
                    batch: ahead,
                })
                .unwrap();
            seal(&mut writers, &mut log, 2 * epoch as u64);
            assert_eq!(log.read(), model);
            rows.iter().for_each(|row| *model.get_mut(row).unwrap() += 1);
            seal(&mut writers, &mut log, 2 * epoch as u64 + 1);
            assert_eq!(log.read(), model);
            while let Some(compaction) = writers[0].compact_now().unwrap() {
                log.apply(compaction.batch);
            }
            assert_eq!(log.read(), model);
            most = most.max(log.live.len());
        }
        assert!(most < 60, "{most} files");
        // A restart reads nothing, and merging goes on.
        let mut writers = log.writers(2, 2, Some(Epoch::MAX));
        seal(&mut writers, &mut log, 500);
        assert_eq!(log.read(), model);
    }
}

/// The sums that the log stands for, by aggregate and group.
fn summed(log: &Log) -> BTreeMap<(i64, Row), Accumulators> {
    let mut sums: BTreeMap<(i64, Row), Accumulators> = BTreeMap::new();
    for (row, count) in log.read() {
        let batch = log.layout.decode(vec![row.bytes(); count as usize]).unwrap();
        for (sum, key, grew) in sums::rows(&batch) {
            let total = sums.entry((sum, key)).or_default();
            total.plus_equals(&Accumulators::from_row(grew));
        }
    }
    sums
}

#[test]
fn a_log_says_the_same_however_it_is_folded_and_drops_what_counts_no_more() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let spec = |live: [i64; 2]| TableSpec {
        path: "silver/things".into(),
        ..sums::spec(live.into_iter().collect())
    };
    let mut log = Log::new(config(folder.path(), spec([1, 2]), &runtime));
    let mut model: BTreeMap<(i64, Row), Accumulators> = BTreeMap::new();
    let mut random = Random(77);
    let mut epoch = 1;
    // The last but one run drops one of the aggregates, and the last run has only new ones.
    for (generation, (live, anew, count)) in [
        ([1, 2], false, 2),
        ([1, 2], false, 1),
        ([2, 3], false, 3),
        ([4, 5], true, 2),
    ]
    .into_iter()
    .enumerate()
    {
        log.config.specs = Arc::new(vec![spec(live)]);
        log.anew = anew;
        let mut writers = log.writers(count, generation as u64, None);
        for step in 0..60 {
            for writer in &mut writers {
                // Several batches of a commit may have rows of one group.
                for _ in 0..2 {
                    let mut rows = sums::SumRows::default();
                    for _ in 0..random.below(12) {
                        let sum = live[random.below(2) as usize];
                        let key = Row::new(&random.below(200).to_be_bytes());
                        let grew = Accumulators::from_entries([(0, 1), (7, 1 + random.below(1000) as i64)]);
                        rows.push(sum, key.bytes(), grew.clone().into_row().bytes());
                        model.entry((sum, key)).or_default().plus_equals(&grew);
                    }
                    let (table, batch) = (0, rows.finish());
                    writer.observe(WriterMessage::Columns { table, epoch, batch }).unwrap();
                }
            }
            seal(&mut writers, &mut log, epoch);
            epoch += 1;
            if step % 3 == 0 {
                for writer in &mut writers {
                    while let Some(compaction) = writer.compact_now().unwrap() {
                        assert!(!compaction.batch.data_change);
                        log.apply(compaction.batch);
                    }
                }
            }
            let mut found = summed(&log);
            found.retain(|(sum, _), _| live.contains(sum));
            model.retain(|(sum, _), _| live.contains(sum));
            assert!(found == model, "generation {generation}, step {step}");
        }
        let buckets: std::collections::BTreeSet<&Option<String>> = log
            .live
            .values()
            .flat_map(|file| file.partition_values.values())
            .collect();
        assert!(
            buckets.len() > 8,
            "{buckets:?}: 16 rows a bucket are not enough for 200 groups"
        );
        let rows: u64 = log.live.values().map(|file| file.rows).sum();
        let groups = model.len() as u64 * count as u64;
        assert!(rows < 4 * groups, "{rows} rows say what {groups} could");
        if anew {
            assert!(
                summed(&log).keys().all(|(sum, _)| live.contains(sum)),
                "void files stayed"
            );
        }
    }
}

#[test]
fn an_object_store_holds_what_a_local_disk_would() {
    let runtime = runtime();
    let config = config(FilePath::new("/"), spec(Deletes::Vectors, vec![7], false), &runtime);
    let mut log = Log::new(WriterConfig {
        lake: Lake::over(
            Arc::new(InMemory::new()),
            Path::from("lake/here"),
            Url::parse("memory:///lake/here/").unwrap(),
        ),
        ..config
    });
    let rows = rows_of(&(0..200).collect::<Vec<_>>());
    let mut writers = log.writers(2, 1, None);
    send(&mut writers, rows.iter().map(|row| (row.clone(), 1, 1)).collect());
    seal(&mut writers, &mut log, 1);
    send(
        &mut writers,
        rows[..50].iter().map(|row| (row.clone(), 2, -1)).collect(),
    );
    seal(&mut writers, &mut log, 2);
    for writer in &mut writers {
        while let Some(compaction) = writer.compact_now().unwrap() {
            log.apply(compaction.batch);
        }
    }
    assert_eq!(log.read().into_keys().collect::<Vec<_>>(), {
        let mut left = rows[50..].to_vec();
        left.sort();
        left
    });
}

#[test]
fn a_thread_answers_every_seal_in_order_and_merges_between() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let mut log = Log::new(config(folder.path(), spec(Deletes::Vectors, vec![], false), &runtime));
    let (arrivals, inbox) = crossbeam_channel::bounded(4);
    let (outbox, parts) = crossbeam_channel::bounded(4);
    let thread = spawn(log.config.clone(), LoadedWriter::default(), inbox, outbox, |e| {
        panic!("{e}")
    })
    .unwrap();
    let rows = rows_of(&(0..300).collect::<Vec<_>>());
    let partition = PartitionId {
        input: "i".into(),
        feed: "f".into(),
        partition: "0".into(),
    };
    let feeder = std::thread::spawn({
        let rows = rows.clone();
        let partition = partition.clone();
        move || {
            for (i, slice) in rows.chunks(3).enumerate() {
                let epoch = 10 + i as u64;
                let mut updates: Vec<Update> = slice.iter().map(|row| (row.clone(), epoch, 2)).collect();
                if i > 0 {
                    updates.extend(rows[3 * i - 3..3 * i].iter().map(|row| (row.clone(), epoch, -1)));
                }
                arrivals.send(WriterMessage::Rows { table: 0, updates }).unwrap();
                let position = Position {
                    next: epoch * 100,
                    done: false,
                    tag: None,
                    ..Position::default()
                };
                arrivals
                    .send(WriterMessage::Progress {
                        epoch,
                        partition: partition.clone(),
                        position,
                    })
                    .unwrap();
                arrivals.send(WriterMessage::Seal { epoch }).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    });
    let (mut expected, mut compactions) = (10, 0);
    for part in parts {
        assert_eq!(part.epoch, expected);
        assert_eq!(
            (part.progress[0].0.clone(), part.progress[0].1.next),
            (partition.clone(), expected * 100)
        );
        expected += 1;
        for (_, batch) in part.tables {
            compactions += usize::from(!batch.data_change);
            log.apply(batch);
        }
    }
    feeder.join().unwrap();
    thread.handle.join().unwrap();
    assert_eq!(expected, 110);
    assert!(compactions > 0);
    let model: BTreeMap<Row, i64> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| (row.clone(), if i < 297 { 1 } else { 2 }))
        .collect();
    assert_eq!(log.read(), model);
    // Files of compactions that came too late are deleted: every file on disk was named once.
    assert!(log.live.len() < 60, "{} files", log.live.len());
}
