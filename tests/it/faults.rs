//! Tests disks that fail during a run: the run ends with a message that names the place and the remedy, and after the
//! remedy the next run loses nothing. Root can write in spite of file modes, so a full or read-only disk is a small
//! tmpfs, and a missing permission is set by `chattr +i`; where these are not available, the tests report that they
//! were skipped. Also tests a clock that is set back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use alluvium::definition::Dataflow;
use alluvium::run::{self, Options, RunClock, RunError, RunOutcome};

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_all_are_exact, assert_newest_is_exact};
use crate::support::{Folder, catch_up, chain, snapshots};

const ROWS: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
name = "VARCHAR"
[[feeds]]
name = "live"
kind = "log"
path = "live/rows"
format = "json"
"#;

fn folder(name: &str) -> Folder {
    let folder = Folder::new(name, &[("inputs/rows.toml", ROWS)]);
    // The lake is synced, so that the test includes all operations on the disk.
    folder.write(
        "dataflow.toml",
        &format!("name = \"{name}\"\nepoch = \"1ms\"\ncommit = \"5ms\"\n"),
    );
    folder.write("silver/rows.sql", "SELECT id, name FROM rows");
    folder.write("silver/rows.toml", "deletes = \"vectors\"\n");
    folder.write(
        "gold/counts.sql",
        "SELECT id % 10 AS k, COUNT(*) AS n FROM silver.rows GROUP BY id % 10",
    );
    folder
}

/// Appends rows that hardly compress.
fn feed(folder: &Folder, ids: std::ops::Range<u64>, width: usize) {
    let mut text = String::new();
    for id in ids {
        let mut x = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let name: String = std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            format!("{x:016x}")
        })
        .take(width)
        .collect();
        text += &format!("{{\"key\": {{\"id\": {id}}}, \"value\": {{\"id\": {id}, \"name\": \"{name}\"}}}}\n");
    }
    folder.append("live/rows/0.ndjson", &text);
}

fn try_to_catch_up(dataflow: &Arc<Dataflow>) -> Result<RunOutcome, RunError> {
    let options = Options {
        workers: 2,
        until_caught_up: true,
        duration: Some(Duration::from_secs(120)),
        ..Options::default()
    };
    run::run(dataflow.clone(), &options)
}

fn refusal(dataflow: &Arc<Dataflow>) -> String {
    chain(&try_to_catch_up(dataflow).map(drop).expect_err("the run cannot go on"))
}

/// A mounted file system of a limited size.
struct Mount(PathBuf);

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let ran = Command::new(program).args(arguments).output();
    ran.is_ok_and(|output| output.status.success())
}

impl Mount {
    fn new(at: &Path, size: &str) -> Option<Mount> {
        std::fs::create_dir_all(at).expect("the folder is made");
        let path = at.display().to_string();
        if !succeeds("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &path]) {
            eprintln!("SKIPPED: no file system may be mounted here");
            return None;
        }
        Some(Mount(at.to_path_buf()))
    }

    fn remount(&self, options: &str) {
        let path = self.0.display().to_string();
        let started = Instant::now();
        while !succeeds("mount", &["-o", &format!("remount,{options}"), &path]) {
            assert!(started.elapsed() < Duration::from_secs(30), "remounted with {options}");
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        succeeds("umount", &["-l", &self.0.display().to_string()]);
    }
}

fn assert_all(dataflow: &Dataflow, rows: u64, what: &str) {
    assert_eq!(
        ask(dataflow, "SELECT COUNT(*) FROM silver.rows"),
        rows.to_string(),
        "{what}"
    );
    assert_eq!(
        ask(dataflow, "SELECT SUM(n) FROM gold.counts"),
        rows.to_string(),
        "{what}"
    );
    assert_newest_is_exact(dataflow, what);
}

#[test]
fn a_disk_that_is_full_is_named_and_nothing_is_lost_once_there_is_room() {
    let folder = folder("full");
    let dataflow = folder.load("lake");
    let Some(mount) = Mount::new(&folder.lake("lake"), "4m") else {
        return;
    };
    feed(&folder, 0..100, 1);
    catch_up(&dataflow, 2);
    feed(&folder, 100..4000, 100);
    for _ in 0..2 {
        let told = refusal(&dataflow);
        assert!(
            told.contains("the disk is full; make room") && told.contains(&folder.lake("lake").display().to_string()),
            "{told}"
        );
    }
    mount.remount("size=200m");
    catch_up(&dataflow, 1);
    assert_all(&dataflow, 4000, "after there was room");
}

#[test]
fn a_lake_that_may_not_be_written_is_named_at_the_start_and_in_the_middle() {
    let folder = folder("readonly");
    let dataflow = folder.load("lake");
    let Some(mount) = Mount::new(&folder.lake("lake"), "100m") else {
        return;
    };
    feed(&folder, 0..100, 1);
    catch_up(&dataflow, 2);
    mount.remount("ro");
    let told = refusal(&dataflow);
    let place = folder.lake("lake").display().to_string();
    assert!(told.contains("may not be written") && told.contains(&place), "{told}");
    mount.remount("rw");

    // The fault occurs while a run goes on.
    let before = snapshots(&dataflow);
    let running = std::thread::spawn({
        let dataflow = dataflow.clone();
        move || {
            let options = Options {
                workers: 2,
                duration: Some(Duration::from_secs(60)),
                ..Options::default()
            };
            chain(
                &run::run(dataflow, &options)
                    .map(drop)
                    .expect_err("the disk is read-only"),
            )
        }
    });
    feed(&folder, 100..200, 1);
    while snapshots(&dataflow) <= before && !running.is_finished() {
        std::thread::sleep(Duration::from_millis(10));
    }
    mount.remount("ro");
    feed(&folder, 200..300, 1);
    let told = running.join().expect("the run does not panic");
    assert!(told.contains("may not be written") && told.contains(&place), "{told}");
    mount.remount("rw");
    catch_up(&dataflow, 3);
    assert_all(&dataflow, 300, "after it could be written again");
}

#[test]
fn a_permission_that_is_lost_is_named_and_nothing_is_lost_with_it() {
    let folder = folder("permission");
    let dataflow = folder.load("lake");
    feed(&folder, 0..100, 1);
    catch_up(&dataflow, 2);
    for (n, part) in ["_alluvium/ledger", "silver/rows", "gold/counts/_delta_log"]
        .into_iter()
        .enumerate()
    {
        let place = folder.lake("lake").join(part).display().to_string();
        if !succeeds("chattr", &["+i", &place]) {
            eprintln!("SKIPPED: chattr +i is not to be had here");
            return;
        }
        let first = 100 + 100 * n as u64;
        feed(&folder, first..first + 100, 1);
        let told = refusal(&dataflow);
        assert!(succeeds("chattr", &["-i", &place]), "the permission comes back");
        assert!(
            told.contains("may not be written") && told.contains(&place),
            "{part}: {told}"
        );
    }
    catch_up(&dataflow, 1);
    assert_all(&dataflow, 400, "after the permission came back");
}

fn first_file(folder: &Path, ending: &str) -> PathBuf {
    let found = std::fs::read_dir(folder).expect("the folder is there");
    let mut found: Vec<PathBuf> = found.map(|entry| entry.expect("it is listed").path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(ending));
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| panic!("no {ending} in {}", folder.display()))
}

#[test]
fn a_truncated_data_file_is_named_and_put_back_or_rebuilt() {
    let folder = folder("truncated");
    let dataflow = folder.load("lake");
    feed(&folder, 0..200, 4);
    catch_up(&dataflow, 2);
    let table = folder.lake("lake").join("silver/rows");
    for rebuild in [false, true] {
        let file = first_file(&table, ".parquet");
        let whole = std::fs::read(&file).expect("it is read");
        std::fs::write(&file, &whole[..whole.len() / 2]).expect("it is cut off");
        let told = refusal(&dataflow);
        let name = file
            .file_name()
            .expect("a file has a name")
            .to_string_lossy()
            .to_string();
        assert!(
            told.contains(&name) && told.contains("silver.rows") && told.contains("put it back from a copy"),
            "{told}"
        );
        match rebuild {
            false => std::fs::write(&file, &whole).expect("it is put back"),
            true => std::fs::remove_dir_all(&table).expect("the table is removed"),
        }
        let outcome = catch_up(&dataflow, 1);
        let corrections = outcome.corrections.expect("a restart is an audit");
        assert_eq!(!corrections.is_empty(), rebuild, "{corrections:?}");
        assert_all(&dataflow, 200, if rebuild { "rebuilt" } else { "put back" });
    }
}

#[test]
fn a_damaged_log_entry_is_named_and_put_back_or_its_table_rebuilt() {
    let folder = folder("damaged");
    let dataflow = folder.load("lake");
    feed(&folder, 0..200, 1);
    catch_up(&dataflow, 2);
    for (part, remedy, rebuild) in [
        ("silver/rows/_delta_log", "restore the file", false),
        ("gold/counts/_delta_log", "remove the table's folder", true),
        ("_alluvium/ledger", "restore _alluvium/ledger", false),
    ] {
        let at = folder.lake("lake").join(part);
        let file = first_file(&at, ".json");
        let whole = std::fs::read(&file).expect("it is read");
        std::fs::write(&file, &whole[..whole.len() - whole.len() / 3]).expect("it is cut off");
        let told = refusal(&dataflow);
        let name = file
            .file_name()
            .expect("a file has a name")
            .to_string_lossy()
            .to_string();
        assert!(told.contains(&name) && told.contains(remedy), "{told}");
        match rebuild {
            false => std::fs::write(&file, &whole).expect("it is put back"),
            true => std::fs::remove_dir_all(at.parent().expect("a log is in its table")).expect("it is removed"),
        }
        catch_up(&dataflow, 1);
        assert_all(&dataflow, 200, part);
    }
}

/// Appends a version of each row with this name, to a log and as a file.
fn name_all(folder: &Folder, ids: std::ops::Range<u64>, name: &str) {
    let lines: String = ids
        .clone()
        .map(|id| format!("{{\"value\": {{\"id\": {id}, \"name\": \"{name}\"}}}}\n"))
        .collect();
    folder.append("live/rows/0.ndjson", &lines);
    let rows: String = ids.map(|id| format!("{id},{name}\n")).collect();
    folder.write(&format!("drops/{name}.csv"), &format!("id,name\n{rows}"));
}

/// The snapshots in the ledger, in order: epoch, and commit time.
fn times(folder: &Folder) -> Vec<(u64, i64)> {
    let ledger = folder.lake("lake").join("_alluvium/ledger").read_dir();
    let mut entries: Vec<PathBuf> = ledger
        .expect("there is a ledger")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    let read = |path: &PathBuf| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).expect("an entry")).expect("an entry is JSON")
    };
    let intents = entries.iter().map(read).filter(|entry| entry["kind"] == "intent");
    let time = |intent: serde_json::Value| (intent["epoch"].as_u64(), intent["at"].as_i64());
    let times = intents.map(time).map(|(epoch, at)| epoch.zip(at));
    times.map(|time| time.expect("an intent has both")).collect()
}

/// After a panic of the conductor's thread, a process was left that did not react to signals.
#[test]
fn a_run_whose_conductor_panics_ends_and_names_it() {
    let folder = folder("conductor");
    folder.write(
        "inputs/rows.toml",
        &format!("{ROWS}[[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n"),
    );
    // This table makes the run read the clock again and again.
    folder.write(
        "gold/past.sql",
        "SELECT id FROM silver.rows WHERE to_timestamp(id) < now()",
    );
    name_all(&folder, 0..300, "first");
    let dataflow = folder.load("lake");
    let main = std::thread::current().id();
    let begun = Instant::now();
    let options = Options {
        duration: Some(Duration::from_secs(60)),
        clock: RunClock::new(move || {
            let is_conductor = std::thread::current().id() == main;
            assert!(
                !is_conductor || begun.elapsed() < Duration::from_secs(5),
                "the clock stopped"
            );
            SystemTime::now()
        }),
        ..Options::default()
    };
    let error = run::run(dataflow, &options).expect_err("the conductor panics");
    assert!(begun.elapsed() < Duration::from_secs(50));
    assert!(chain(&error).contains("the clock stopped"), "{}", chain(&error));
}

/// Epochs are milliseconds of the clock. If the clock is set back, between runs or during one, snapshots must not go
/// back, and no version of a key must lose to an earlier one.
#[test]
fn a_clock_that_is_set_back_takes_no_snapshot_back_and_loses_nothing() {
    let folder = folder("clock");
    folder.write(
        "inputs/rows.toml",
        &format!("{ROWS}[[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n"),
    );
    folder.write(
        "gold/named.sql",
        "SELECT name, COUNT(*) AS n FROM silver.rows GROUP BY name",
    );
    let dataflow = folder.load("lake");
    // By how many seconds the clock is ahead of this machine's.
    let ahead = Arc::new(AtomicU64::new(3600));
    let (of_clock, (stop, stopped)) = (ahead.clone(), crossbeam_channel::bounded(1));
    let options = Options {
        workers: 2,
        clock: RunClock::new(move || SystemTime::now() + Duration::from_secs(of_clock.load(Ordering::Acquire))),
        ..Options::default()
    };
    let named = |name: &str| ask(&dataflow, &format!("SELECT n FROM gold.named WHERE name = '{name}'"));
    name_all(&folder, 0..300, "first");
    let caught_up = Options {
        until_caught_up: true,
        ..options.clone()
    };
    run::run(dataflow.clone(), &caught_up).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(named("first"), "300");

    // For the next run, the clock is an hour back.
    name_all(&folder, 100..300, "second");
    let run = ["run", ".", "--until-caught-up", "--lake", "lakes/lake"];
    let behind = alluvium(&run, folder.path());
    exits(&behind, 0);
    let told = text(&behind);
    assert!(
        told.contains("the clock is 59m ") && told.contains(" behind the newest snapshot"),
        "{told}"
    );
    assert!(told.contains("audited: every table is as recomputed"), "{told}");
    assert_eq!((named("first"), named("second")), ("100".into(), "200".into()));

    // While this run goes on, the clock is set back two hours.
    ahead.store(2 * 3600, Ordering::Release);
    let running = std::thread::spawn({
        let (dataflow, options) = (dataflow.clone(), options.clone());
        move || {
            let options = Options {
                stop: Some(stopped),
                duration: Some(Duration::from_secs(120)),
                ..options
            };
            run::run(dataflow, &options)
        }
    });
    let wait_for = |name: &str, rows: &str| {
        let started = Instant::now();
        while named(name) != rows {
            assert!(started.elapsed() < Duration::from_secs(60), "no {name}");
            assert!(!running.is_finished(), "the run has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    name_all(&folder, 150..300, "third");
    wait_for("third", "150");
    ahead.store(0, Ordering::Release);
    name_all(&folder, 200..300, "fourth");
    wait_for("fourth", "100");
    ahead.store(3 * 3600, Ordering::Release);
    name_all(&folder, 250..300, "fifth");
    wait_for("fifth", "50");
    drop(stop);
    let ended = running.join().expect("the run does not panic");
    assert_eq!(ended.map(|_| ()).map_err(|e| chain(&e)), Ok(()));

    let times = times(&folder);
    let goes_on = times
        .windows(2)
        .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    assert!(goes_on && times.len() > 4, "{times:?}");
    let range = times[times.len() - 1].0 - times[0].0;
    assert!(
        range > 7_000_000,
        "two hours lie between the first and the last: {times:?}"
    );
    assert!(assert_all_are_exact(&dataflow) > 4);
    for (name, rows) in [
        ("first", "100"),
        ("second", "50"),
        ("third", "50"),
        ("fourth", "50"),
        ("fifth", "50"),
    ] {
        assert_eq!(named(name), rows, "{name}");
    }
    assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]));
}
