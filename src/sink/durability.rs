//! Tests that a commit on a local disk survives a power cut: the order in which files and folders are synced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use crossbeam_channel::unbounded;
use tokio::runtime::Runtime;

use crate::definition::Deletes;
use crate::lake::Lake;
use crate::lake::disk::{SyncStep, steps_below};
use crate::repr::RowCodec;
use crate::sink::ledger::{self, Intent, LedgerEntry};
use crate::sink::writer::RowHash;
use crate::sink::{
    CommitSettings, Committer, LoadedWriter, SinkWriter, TableSpec, WriterConfig, WriterLimits, WriterMessage,
};

fn specs() -> Vec<TableSpec> {
    let of = |name: &str, partition_by: Vec<usize>| TableSpec {
        name: name.into(),
        path: name.replace('.', "/"),
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("part", DataType::Int64, false),
        ])),
        partition_by,
        append_only: false,
        summation: None,
        deletes: Deletes::Vectors,
        change_data_feed: true,
        description: None,
    };
    vec![of("silver.x", vec![]), of("gold.parts", vec![1])]
}

/// Two writers and a committer put two snapshots into a new lake, the second one with vectors. Returns the intents.
fn commit(folder: &Path, durable: bool) -> Vec<Intent> {
    let runtime = Runtime::new().unwrap();
    let lake = Lake::make(folder.to_str().unwrap(), &BTreeMap::new())
        .unwrap()
        .with_durability(durable);
    let settings = CommitSettings::new("flow", 2);
    let (committer, restored) = Committer::open(lake.clone(), specs(), settings, runtime.handle().clone()).unwrap();
    let mut writers: Vec<SinkWriter> = (0..2)
        .map(|writer| {
            let config = WriterConfig {
                writer,
                writers: 2,
                generation: restored.generation,
                specs: Arc::new(specs()),
                lake: lake.clone(),
                runtime: runtime.handle().clone(),
                limits: WriterLimits::default(),
                relocations: committer.relocations(),
            };
            SinkWriter::new(config, LoadedWriter::default()).unwrap()
        })
        .collect();
    let (parts, prepared) = unbounded();
    let (events, committed) = unbounded();
    let thread = std::thread::spawn(move || committer.run(prepared, events));
    let codec = RowCodec::new(specs()[0].schema.clone()).unwrap();
    let rows: Vec<_> = (0..40i64)
        .map(|id| {
            let column = |n: i64| -> arrow::array::ArrayRef { Arc::new(arrow::array::Int64Array::from(vec![n])) };
            codec.encode_rows(&[column(id), column(id % 3)], 1).unwrap().remove(0)
        })
        .collect();
    for (epoch, diff) in [(10, 1), (20, -1)] {
        for (n, row) in rows.iter().enumerate().filter(|(n, _)| diff > 0 || n % 4 == 0) {
            let writer = &mut writers[crate::sink::owner(row.bytes(), 2)];
            for table in 0..2 {
                let updates = vec![(row.clone(), epoch, diff)];
                writer.observe(WriterMessage::Rows { table, updates }).unwrap();
            }
            assert_eq!(RowHash::of_row(row.bytes()), RowHash::of_row(rows[n].bytes()));
        }
        for writer in &mut writers {
            parts
                .send(writer.observe(WriterMessage::Seal { epoch }).unwrap().unwrap())
                .unwrap();
        }
        committed.recv().unwrap();
    }
    drop(parts);
    thread.join().unwrap().unwrap();
    runtime.block_on(async {
        let mut intents = Vec::new();
        for seq in ledger::list(&lake).await.unwrap() {
            if let Some(LedgerEntry::Intent(intent)) = ledger::read(&lake, seq).await.unwrap() {
                intents.push(intent);
            }
        }
        intents
    })
}

#[test]
fn whatever_is_named_is_on_the_disk_with_the_folders_that_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap().join("new/lake");
    let intents = commit(&root, true);
    assert_eq!(intents.len(), 2);
    let seen = steps_below(folder.path());
    let at = |step: SyncStep, path: &Path| {
        let found = seen.iter().position(|(s, p)| *s == step && p == path);
        found.unwrap_or_else(|| panic!("{step:?} of {} is not seen", path.display()))
    };
    // A new name is durable once every folder above it was synced; checks this for syncs from `since` to `moment`.
    let folders_before = |path: &Path, since: usize, moment: usize| {
        let named = path.parent().unwrap();
        let synced = seen[since..moment]
            .iter()
            .any(|(s, p)| *s == SyncStep::Folder && p == named);
        assert!(synced, "{} is not synced between naming and commit", named.display());
        for above in named.ancestors().skip(1).take_while(|a| a.starts_with(&root)) {
            let synced = seen[..moment].iter().any(|(s, p)| *s == SyncStep::Folder && p == above);
            assert!(synced, "{} is not synced before the commit", above.display());
        }
    };
    let mut vectors = 0;
    for intent in &intents {
        let entry = root.join(format!("_alluvium/ledger/{:020}.json", intent.seq));
        let decided = at(SyncStep::Named, &entry);
        assert!(at(SyncStep::File, &entry) < decided, "a part of an entry could be seen");
        let mut files: Vec<PathBuf> = Vec::new();
        for table in &intent.tables {
            for actions in table.commits.iter().map(|c| &c.actions) {
                for add in actions.iter().filter_map(|a| a.add.as_ref()) {
                    files.push(root.join(crate::lake::file_location(&table.path, &add.path).unwrap().as_ref()));
                    if let Some(vector) = &add.deletion_vector {
                        let name = crate::sink::commit::vector_file(vector);
                        files.push(root.join(&table.path).join(name));
                        vectors += 1;
                    }
                }
                for change in actions.iter().filter_map(|a| a.cdc.as_ref()) {
                    let place = crate::lake::file_location(&table.path, &change.path).unwrap();
                    files.push(root.join(place.as_ref()));
                }
            }
            // The ledger entry must be durable before any table shows the snapshot.
            let version = intent.versions[&table.table] + 1;
            let log = root.join(&table.path).join(format!("_delta_log/{version:020}.json"));
            folders_before(&entry, decided, at(SyncStep::Named, &log));
            assert!(at(SyncStep::File, &log) < at(SyncStep::Named, &log));
            folders_before(&log, at(SyncStep::Named, &log), seen.len());
        }
        for file in &files {
            assert!(
                at(SyncStep::File, file) < decided,
                "{} is synced before it is named",
                file.display()
            );
            folders_before(file, at(SyncStep::Named, file), decided);
        }
    }
    assert!(vectors > 0);
    // The lake's own folder was created, and its parent synced.
    assert!(at(SyncStep::Folder, root.parent().unwrap().parent().unwrap()) < at(SyncStep::Folder, &root));
}

#[test]
fn without_durability_nothing_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    commit(folder.path(), false);
    let seen = steps_below(folder.path());
    assert!(seen.iter().all(|(step, _)| *step == SyncStep::Named), "{seen:?}");
}
