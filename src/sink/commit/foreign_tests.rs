//! Tests of commits that others put between ours: deltalake's own OPTIMIZE and writes, as a user would run them, and
//! hand-made entries where the effect depends on timing.

use super::*;
use crate::sink::commit::action::{Action, RemoveFile};

impl Place {
    /// Runs deltalake's OPTIMIZE on a table. Returns how many files it removed and added.
    fn optimize(&self, spec: &TableSpec) -> (u64, u64) {
        self.runtime.block_on(async {
            let mut handle = self.lake.delta_table(&spec.path);
            handle.load().await.unwrap();
            let (_, metrics) = handle.optimize().await.unwrap();
            (metrics.num_files_removed, metrics.num_files_added)
        })
    }

    /// Appends to a table with deltalake.
    fn append(&self, spec: &TableSpec, ids: std::ops::Range<i64>) {
        self.runtime.block_on(async {
            let mut handle = self.lake.delta_table(&spec.path);
            handle.load().await.unwrap();
            handle.write([rows(ids)]).await.unwrap();
        });
    }

    /// The ids of a table as any reader of its newest version sees them.
    fn newest(&self, spec: &TableSpec) -> Vec<i64> {
        self.runtime.block_on(async {
            let mut handle = self.lake.delta_table(&spec.path);
            handle.load().await.unwrap();
            let context = datafusion::prelude::SessionContext::new();
            handle.update_datafusion_session(&context.state()).unwrap();
            context
                .register_table("t", handle.table_provider().await.unwrap())
                .unwrap();
            let batches = context.sql("SELECT id FROM t ORDER BY id").await.unwrap();
            let batches = batches.collect().await.unwrap();
            let ids = batches.iter().map(|b| b.column(0).as_primitive::<Int64Type>());
            ids.flat_map(|ids| ids.values().to_vec()).collect()
        })
    }

    /// The actions of a rewrite of files `removed` to one file with these ids, whether it fits the table or not.
    fn rewrite(&self, spec: &TableSpec, removed: &[&AddFile], ids: std::ops::Range<i64>) -> Vec<Action> {
        let mut actions = vec![Action::commit_info(
            serde_json::json!({ "engineInfo": "other", "operation": "OPTIMIZE" }),
        )];
        actions.extend(removed.iter().map(|file| {
            Action::remove(RemoveFile {
                path: file.path.clone(),
                deletion_timestamp: Some(1),
                data_change: false,
                extended_file_metadata: Some(true),
                partition_values: Some(BTreeMap::new()),
                size: Some(file.size),
                deletion_vector: file.deletion_vector.clone(),
            })
        }));
        let add = AddFile {
            data_change: false,
            ..self.file(spec, ids)
        };
        actions.push(Action::add(add));
        actions
    }

    fn newest_version(&self, spec: &TableSpec) -> i64 {
        self.entries(spec).len() as i64 - 1
    }
}

fn removes(files: &[&str]) -> TableBatch {
    TableBatch {
        removes: files.iter().map(|f| f.to_string()).collect(),
        data_change: true,
        ..TableBatch::default()
    }
}

/// In an experiment, delta-rs's conflict checker re-added files with deletion vectors behind an OPTIMIZE: 19,999 of
/// 100,000 rows then existed twice.
#[test]
fn rows_that_another_writer_moved_go_from_where_they_are_now() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let files: Vec<AddFile> = (0..4).map(|n| place.file(&specs[0], n * 10..n * 10 + 10)).collect();
    let path = |n: usize| files[n].path.as_str();
    running.commit(1, vec![(0, adds(files.clone()))]);
    running.commit(2, vec![(0, deletes(path(0), [3, 4])), (0, deletes(path(1), [9]))]);
    assert_eq!(place.optimize(&specs[0]), (4, 1));
    // The writer does not know of the OPTIMIZE, and names the places where the rows were before.
    running.commit(
        3,
        vec![
            (0, deletes(path(0), [0])),
            (0, adds(vec![place.file(&specs[0], 100..103)])),
        ],
    );
    let mut expected: Vec<i64> = (0..40).chain(100..103).collect();
    expected.retain(|i| ![0, 3, 4, 19].contains(i));
    assert_eq!(place.newest(&specs[0]), expected);
    assert_eq!(place.ids("silver.x", None), expected);
    // The writer still does not know; and a second OPTIMIZE moves the rows again.
    running.commit(4, vec![(0, deletes(path(1), [0, 1])), (0, removes(&[path(3)]))]);
    expected.retain(|i| ![10, 11].contains(i) && !(30..40).contains(i));
    assert_eq!(place.newest(&specs[0]), expected);
    assert_eq!(place.optimize(&specs[0]).1, 1);
    running.commit(5, vec![(0, deletes(path(2), [5])), (0, deletes(path(0), [1]))]);
    expected.retain(|i| ![25, 1].contains(i));
    assert_eq!(place.newest(&specs[0]), expected);
    for (epoch, deleted_ids) in [(2, vec![3, 4, 19]), (1, vec![])] {
        let then: Vec<i64> = (0..40).filter(|i| !deleted_ids.contains(i)).collect();
        assert_eq!(place.ids("silver.x", Some(epoch)), then, "at epoch {epoch}");
    }
    // Now all remaining moved rows are removed, so their files go as a whole.
    let all = (0..3).map(|n| (0, removes(&[path(n)])));
    running.commit(6, all.collect());
    assert_eq!(place.newest(&specs[0]), [100, 101, 102]);
    running.stop();
}

/// Rows of another writer that an OPTIMIZE merges into files with ours stay until an audit removes them.
#[test]
fn rows_that_others_appended_stay_through_a_rewrite() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let file = place.file(&specs[0], 0..10);
    running.commit(1, vec![(0, adds(vec![file.clone()]))]);
    place.append(&specs[0], 50..53);
    // Another writer appends a copy of one of our rows; our removal takes one of the two.
    place.append(&specs[0], 2..3);
    assert_eq!(place.optimize(&specs[0]), (3, 1));
    running.commit(2, vec![(0, deletes(&file.path, [2, 4]))]);
    let mut expected: Vec<i64> = (0..10).chain(50..53).collect();
    expected.retain(|i| *i != 4);
    assert_eq!(place.newest(&specs[0]), expected);
    running.commit(3, vec![(0, removes(&[&file.path]))]);
    assert_eq!(place.newest(&specs[0]), [2, 50, 51, 52]);
    running.stop();
}

#[test]
fn a_redo_behind_a_rewrite_comes_to_the_same_table() {
    let place = Place::new();
    let specs = [spec("bronze.i"), spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let files: Vec<AddFile> = (0..3).map(|n| place.file(&specs[1], n * 10..n * 10 + 10)).collect();
    running.commit(1, vec![(1, adds(files.clone()))]);
    let compaction = TableBatch {
        data_change: false,
        removes: vec![files[0].path.clone(), files[1].path.clone()],
        ..adds(vec![AddFile {
            data_change: false,
            ..place.file(&specs[1], 0..20)
        }])
    };
    let merged = compaction.adds[0].path.clone();
    running.commit(
        2,
        vec![
            (1, compaction),
            (1, deletes(&merged, [0, 15])),
            (1, deletes(&files[2].path, [9])),
        ],
    );
    running.stop();
    // The process dies before or while it applies the last snapshot; the OPTIMIZE comes before or in between.
    let mut expected: Vec<i64> = (0..30).collect();
    expected.retain(|i| ![0, 15, 29].contains(i));
    for cut in [2, 3] {
        for version in cut..=place.newest_version(&specs[1]) {
            let path = log::entry_path("silver/x", version);
            place.runtime.block_on(place.lake.store.delete(&path)).unwrap();
        }
        place.optimize(&specs[1]);
        for _ in 0..2 {
            let (running, restored) = place.open(&specs, settings()).unwrap();
            running.stop();
            assert_eq!(restored.epoch, Some(2));
            assert_eq!(place.newest(&specs[1]), expected, "cut off at {cut}");
            assert_eq!(place.ids("silver.x", None), expected, "cut off at {cut}");
        }
    }
}

/// delta-rs commits an OPTIMIZE of files that a compaction of ours has already removed: their rows existed twice.
#[test]
fn a_rewrite_that_ran_beside_our_compaction_is_undone() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let files: Vec<AddFile> = (0..3).map(|n| place.file(&specs[0], n * 10..n * 10 + 10)).collect();
    running.commit(1, vec![(0, adds(files.clone()))]);
    let compacted = place.file(&specs[0], 0..20);
    let compaction = TableBatch {
        data_change: false,
        removes: vec![files[0].path.clone(), files[1].path.clone()],
        ..adds(vec![AddFile {
            data_change: false,
            ..compacted.clone()
        }])
    };
    running.commit(2, vec![(0, compaction)]);
    let theirs = place.rewrite(&specs[0], &[&files[0], &files[1], &files[2]], 0..30);
    place.put_entry(&specs[0], place.newest_version(&specs[0]) + 1, &theirs);
    assert_eq!(
        place.newest(&specs[0]).len(),
        50,
        "each row of the compacted files is there twice"
    );
    running.commit(
        3,
        vec![(0, deletes(&compacted.path, [7])), (0, deletes(&files[2].path, [0]))],
    );
    let mut expected: Vec<i64> = (0..30).filter(|i| ![7, 20].contains(i)).collect();
    assert_eq!(place.newest(&specs[0]), expected);
    // A rewrite that lost a row is undone as well, and so is a rewrite on top of it; rows appended in between stay.
    let late = place.file(&specs[0], 30..40);
    running.commit(4, vec![(0, adds(vec![late.clone()]))]);
    let lossy = place.rewrite(&specs[0], &[&late], 31..40);
    let lossy_file = lossy.last().unwrap().add.clone().unwrap();
    let version = place.newest_version(&specs[0]);
    place.put_entry(&specs[0], version + 1, &lossy);
    place.append(&specs[0], 70..72);
    let appended = place
        .entries(&specs[0])
        .last()
        .unwrap()
        .iter()
        .find_map(|a| a.add.clone())
        .unwrap();
    let both = place.rewrite(&specs[0], &[&lossy_file, &appended], 71..72);
    place.put_entry(&specs[0], version + 3, &both);
    running.commit(5, vec![(0, deletes(&late.path, [5]))]);
    expected.extend((30..40).filter(|i| *i != 35).chain(70..72));
    assert_eq!(place.newest(&specs[0]), expected);
    running.stop();
    // A rewrite that no commit of ours followed is found by the restart.
    let theirs = place.rewrite(&specs[0], &[&files[0], &files[1]], 0..20);
    place.put_entry(&specs[0], place.newest_version(&specs[0]) + 1, &theirs);
    assert_eq!(place.newest(&specs[0]).len(), expected.len() + 20);
    for _ in 0..2 {
        let (running, _) = place.open(&specs, settings()).unwrap();
        running.stop();
        assert_eq!(place.newest(&specs[0]), expected);
    }
}

#[test]
fn a_rewrite_of_a_table_without_vectors_is_undone_while_a_run_goes_on_and_kept_by_a_restart() {
    let place = Place::new();
    let rewrite = TableSpec {
        deletes: Deletes::Rewrite,
        ..spec("gold.small")
    };
    let appended = TableSpec {
        append_only: true,
        ..spec("bronze.i")
    };
    let specs = [appended, rewrite];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let files: Vec<Vec<AddFile>> = (specs.iter())
        .map(|spec| (0..3).map(|n| place.file(spec, n * 10..n * 10 + 10)).collect())
        .collect();
    running.commit(1, vec![(0, adds(files[0].clone())), (1, adds(files[1].clone()))]);
    for spec in &specs {
        assert_eq!(place.optimize(spec), (3, 1));
    }
    // The next commits are a compaction of ours that includes rewritten files, and a change of rows.
    let compaction = TableBatch {
        data_change: false,
        removes: vec![files[0][0].path.clone(), files[0][1].path.clone()],
        ..adds(vec![AddFile {
            data_change: false,
            ..place.file(&specs[0], 0..20)
        }])
    };
    let more = adds(vec![place.file(&specs[0], 30..31)]);
    let changed = TableBatch {
        removes: vec![files[1][1].path.clone()],
        ..adds(vec![place.file(&specs[1], 10..19)])
    };
    running.commit(2, vec![(0, compaction), (0, more), (1, changed)]);
    assert_eq!(place.newest(&specs[0]), (0..31).collect::<Vec<_>>());
    let expected: Vec<i64> = (0..30).filter(|i| *i != 19).collect();
    assert_eq!(place.newest(&specs[1]), expected);
    running.stop();
    for spec in &specs {
        place.optimize(spec);
    }
    let (running, restored) = place.open(&specs, settings()).unwrap();
    assert_eq!(restored.tables.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    running.stop();
}

/// Undoing brings back files from before a rewrite: if they have been deleted, the table could not be read any more.
#[test]
fn what_cannot_be_undone_stops_with_the_remedy() {
    let place = Place::new();
    let specs = [TableSpec {
        append_only: true,
        ..spec("bronze.i")
    }];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let files = vec![place.file(&specs[0], 0..10), place.file(&specs[0], 10..20)];
    running.commit(1, vec![(0, adds(files.clone()))]);
    place.optimize(&specs[0]);
    let deleted_file = Path::from(format!("bronze/i/{}", files[0].path));
    place.runtime.block_on(place.lake.store.delete(&deleted_file)).unwrap();
    let error = running.fail(2, vec![(0, adds(vec![place.file(&specs[0], 20..21)]))]);
    let message = error.to_string();
    assert!(
        message.contains("bronze/i") && message.contains(&files[0].path) && message.contains("guard"),
        "{message}"
    );
    // Its redo by a restart finds the same: the old files are gone, so the rewrite is kept, which holds the same rows.
    let (running, _) = place.open(&specs, settings()).unwrap();
    running.stop();
    assert_eq!(place.newest(&specs[0]), (0..21).collect::<Vec<_>>());
}

#[test]
fn a_changed_schema_stops_naming_the_commit_and_a_restart_brings_the_definition_back() {
    let place = Place::new();
    let specs = [spec("silver.x")];
    let (running, _) = place.open(&specs, settings()).unwrap();
    let file = place.file(&specs[0], 0..5);
    running.commit(1, vec![(0, adds(vec![file.clone()]))]);
    let first = place.entries(&specs[0]).swap_remove(0);
    let mut meta_data = first.into_iter().find_map(|a| a.meta_data).unwrap();
    meta_data.configuration.insert("delta.appendOnly".into(), "true".into());
    let info = serde_json::json!({ "engineInfo": "Spark", "operation": "SET TBLPROPERTIES" });
    place.put_entry(&specs[0], 2, &[Action::commit_info(info), Action::meta_data(meta_data)]);
    let error = running.fail(2, vec![(0, deletes(&file.path, [1]))]).to_string();
    for part in ["silver/x", "version 2", "Spark", "SET TBLPROPERTIES", "settings"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    let (running, restored) = place.open(&specs, settings()).unwrap();
    assert_eq!(restored.epoch, Some(2));
    running.commit(3, vec![(0, deletes(&file.path, [0]))]);
    running.stop();
    assert_eq!(place.newest(&specs[0]), [2, 3, 4]);
}

/// The errors that deltalake gives to a writer and to an OPTIMIZE.
fn refusals(place: &Place, spec: &TableSpec) -> Vec<String> {
    let refused = place.runtime.block_on(async {
        let handle = async || {
            let mut handle = place.lake.delta_table(&spec.path);
            handle.load().await.unwrap();
            handle
        };
        let written = handle().await.write([rows(9000..9001)]).await.map(drop);
        [written, handle().await.optimize().await.map(drop)]
    });
    refused.into_iter().filter_map(|r| Some(r.err()?.to_string())).collect()
}

#[test]
fn a_guard_keeps_writers_out_and_readers_in_and_may_be_changed_at_any_restart() {
    let place = Place::new();
    let appended = TableSpec {
        append_only: true,
        ..spec("bronze.i")
    };
    let timeless = TableSpec {
        schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
        deletes: Deletes::Rewrite,
        ..spec("gold.ids")
    };
    let specs = [appended, spec("silver.x"), timeless];
    let mut epoch = 0;
    for guard in [true, false, false, true, true] {
        let mut settings = settings();
        settings.policy = LakePolicy {
            guard,
            checkpoint_every: 2,
            checkpoint_pause: Duration::ZERO,
            ..settings.policy
        };
        let (running, _) = place.open(&specs, settings).unwrap();
        for _ in 0..4 {
            let ids = epoch as i64 * 10..epoch as i64 * 10 + 5;
            epoch += 1;
            let files: Vec<AddFile> = (0..2).map(|t| place.file(&specs[t], ids.clone())).collect();
            let deletion = deletes(&files[1].path, [4]);
            let both = files
                .into_iter()
                .enumerate()
                .map(|(table, file)| (table, adds(vec![file])));
            running.commit(epoch * 2, both.collect());
            running.commit(epoch * 2 + 1, vec![(1, deletion)]);
        }
        let loaded = || {
            let loaded = place.runtime.block_on(log::load(&place.lake, "silver/x", None));
            loaded.unwrap().unwrap()
        };
        let started = Instant::now();
        while loaded().checkpoint.is_none_or(|c| c + 2 < loaded().version) {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "guarded tables get checkpoints"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        running.stop();
        for spec in &specs {
            let first = refusals(&place, spec);
            match guard {
                true => assert!(
                    first.len() == 2 && first.iter().all(|message| message.contains("alluvium.guard")),
                    "{}: {first:?}",
                    spec.name
                ),
                false => assert!(
                    first.iter().all(|message| !message.contains("guard")),
                    "{}: {first:?}",
                    spec.name
                ),
            }
        }
        let expected: Vec<i64> = (0..epoch as i64).flat_map(|e| e * 10..e * 10 + 4).collect();
        let newest = place.newest(&specs[1]);
        assert_eq!(
            newest.into_iter().filter(|id| *id != 9000).collect::<Vec<_>>(),
            expected,
            "guard {guard}"
        );
        let features = loaded().protocol.writer_features.unwrap_or_default();
        assert_eq!(features.contains(&"alluvium.guard".to_string()), guard);
    }
}
