//! Tests requests, clients and faults that others cause.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::backfill::{BackfillOutcome, FileState, Request, RequestBoard, Work};
use alluvium::definition::Dataflow;
use alluvium::lake::Lake;
use alluvium::run::{self, Options};

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, Running, catch_up, chain, snapshots};

const EVENTS: &str = r#"
[columns]
id = { type = "BIGINT", nullable = false }
kind = "VARCHAR"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.csv"
format = "csv"
"#;

const REQUESTS: &str = "lakes/lake/_alluvium/requests";

fn folder(name: &str) -> Folder {
    let folder = Folder::new(name, &[("inputs/events.toml", EVENTS)]);
    folder.write(
        "gold/kinds.sql",
        "SELECT kind, COUNT(*) AS n, SUM(id) AS ids FROM events GROUP BY kind",
    );
    folder.write("drops/a.csv", "id,kind\n1,x\n2,y\n");
    folder
}

fn at(folder: &Folder, path: &str) -> String {
    folder.path().join(path).display().to_string()
}

/// Puts a request, as anybody who can write to the lake can, and waits for its outcome.
fn asked(running: &Running, dataflow: &Dataflow, work: Work) -> BackfillOutcome {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lake = Lake::make(&dataflow.lake, &dataflow.store_options).expect("the lake");
    let requests = RequestBoard::new(lake);
    let request = Request::new("events", work, None);
    runtime.block_on(requests.put(&request)).expect("the request is put");
    let mut outcome = None;
    running.wait_until(|| {
        outcome = runtime
            .block_on(requests.outcome(&request.id))
            .expect("an outcome can be read");
        outcome.is_some()
    });
    outcome.expect("the run serves requests")
}

fn files(paths: &[String]) -> Work {
    Work::Files {
        feed: "drops".into(),
        files: paths.to_vec(),
        again: false,
    }
}

fn fails(outcome: &BackfillOutcome) -> Vec<String> {
    let reasons = outcome.files.iter().filter_map(|file| match &file.state {
        FileState::Failed(reason) => Some(reason.clone()),
        _ => None,
    });
    reasons.collect()
}

/// A request could make the run read any local file, such as `/etc/passwd`; its lines then were in Bronze and the dead
/// letters.
#[test]
fn a_request_for_a_file_elsewhere_is_refused_and_the_run_goes_on() {
    let folder = folder("elsewhere");
    let secrets = tempfile::tempdir().expect("another folder");
    let secret = secrets.path().join("secret.csv");
    std::fs::write(&secret, "id,kind\n77,secret\n").expect("a secret");
    std::fs::create_dir_all(folder.path().join("old")).expect("a folder");
    symlink(&secret, folder.path().join("old/link.csv")).expect("a link");
    symlink(secrets.path(), folder.path().join("door")).expect("a link");
    assert!(
        Command::new("mkfifo")
            .arg(at(&folder, "old/fifo.csv"))
            .status()
            .is_ok_and(|s| s.success())
    );
    folder.write("old/b.csv", "id,kind\n3,x\n");
    let dataflow = folder.load("lake");
    let running = Running::start(Arc::clone(&dataflow), 1);
    running.wait_until(|| snapshots(&dataflow) > 0);
    let wanted = [
        "/etc/passwd".to_string(),
        secret.display().to_string(),
        at(&folder, "old/link.csv"),
        at(&folder, "door/secret.csv"),
        at(&folder, "old/../../secret.csv"),
        at(&folder, "old/fifo.csv"),
        "old/b.csv".to_string(),
        "s3://somebody/else.csv".to_string(),
        at(&folder, "old/b.csv"),
    ];
    let outcome = asked(&running, &dataflow, files(&wanted));
    let reasons = fails(&outcome);
    assert_eq!(reasons.len(), wanted.len() - 1, "{outcome:?}");
    for (reason, part) in reasons.iter().zip([
        "outside of the folders that may be backfilled",
        "to backfill_from in dataflow.toml",
        "it leads to",
        "it leads to",
        "no absolute path",
        "it is a FIFO, not a file",
        "no absolute path",
        "outside of the folders",
    ]) {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_eq!(outcome.files[8].state, FileState::Read);
    running.stop();
    assert_eq!(ask(&dataflow, "SELECT SUM(n) FROM gold.kinds"), "3");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM bronze.events"), "3");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
    assert_newest_is_exact(&dataflow, "after the requests");
}

/// A run as root read files for anybody who could write to the lake.
#[test]
fn a_request_reads_what_its_user_may_read() {
    let folder = folder("users");
    folder.write("old/own.csv", "id,kind\n3,x\n");
    folder.write("old/closed.csv", "id,kind\n77,secret\n");
    let mode = |mode: u32, path: &str| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path().join(path), permissions).expect("it is root's, or ours");
    };
    mode(0o755, ".");
    mode(0o600, "old/closed.csv");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let name = "1-asked";
    let paths = ["old/own.csv", "old/closed.csv"]
        .map(|path| format!("{:?}", at(&folder, path)))
        .join(",");
    let work = format!("{{\"kind\": \"files\", \"feed\": \"drops\", \"files\": [{paths}], \"again\": false}}");
    let request = format!("{{\"id\": \"{name}\", \"input\": \"events\", \"work\": {work}}}");
    folder.write(&format!("{REQUESTS}/{name}.json"), &request);
    // The status file of the request has a predictable name: a folder there does not show whose the run is.
    let told = format!("{REQUESTS}/status/{name}.json");
    std::fs::create_dir_all(folder.path().join(&told)).expect("a folder");
    let give = |path: &str| chown(folder.path().join(path), Some(12345), Some(12345));
    if give(&format!("{REQUESTS}/{name}.json")).and(give(&told)).is_err() {
        eprintln!("SKIPPED: files cannot be given away here");
        return;
    }
    catch_up(&dataflow, 1);
    let outcome =
        std::fs::read_to_string(folder.path().join(REQUESTS).join(format!("done/{name}.json"))).expect("done");
    let outcome: BackfillOutcome = serde_json::from_str(&outcome).expect("an outcome");
    assert_eq!(outcome.files[0].state, FileState::Read, "{outcome:?}");
    assert!(
        fails(&outcome)[0].contains("the user who asked (number 12345) may not read it"),
        "{outcome:?}"
    );
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM bronze.events"), "3");
}

/// The secret of a cluster, tokens for posting rows, and the log of posted rows could become rows of Bronze.
#[test]
fn what_a_run_keeps_secret_is_no_data_whoever_asks() {
    let folder = folder("private");
    folder.write("cluster.secret", "id,kind\n78,secret\n");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    folder.write("lakes/lake/_alluvium/http/own.csv", "id,kind\n77,secret\n");
    std::fs::create_dir_all(folder.path().join("old")).expect("a folder");
    symlink(at(&folder, "cluster.secret"), folder.path().join("old/link.csv")).expect("a link");
    std::fs::hard_link(at(&folder, "dataflow.toml"), folder.path().join("old/hard.csv")).expect("a link");
    let private = [
        "cluster.secret",
        "dataflow.toml",
        "lakes/lake/_alluvium/http/own.csv",
        "old/link.csv",
        "old/hard.csv",
    ]
    .map(|path| at(&folder, path));
    let running = Running::start(Arc::clone(&dataflow), 1);
    let outcome = asked(&running, &dataflow, files(&private));
    running.stop();
    let reasons = fails(&outcome);
    assert_eq!(reasons.len(), private.len(), "{outcome:?}");
    for reason in &reasons {
        assert!(reason.contains("which is never backfilled"), "{reason}");
    }
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM bronze.events"), "2");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
    let refused = alluvium(&["backfill", ".", "events", &private[0]], folder.path());
    exits(&refused, 2);
    assert!(text(&refused).contains("never backfilled"), "{}", text(&refused));
}

/// A request at a rate of 1e-300 kept all others out, and kept the run from ending; deleting it did not help.
#[test]
fn a_slow_request_that_is_deleted_lets_the_next_one_go() {
    let folder = folder("slow");
    let rows: String = (0..20_000).map(|n| format!("{n},x\n")).collect();
    folder.write("old/large.csv", &format!("id,kind\n{rows}"));
    folder.write("old/small.csv", "id,kind\n3,x\n");
    let dataflow = folder.load("lake");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lake = Lake::make(&dataflow.lake, &dataflow.store_options).expect("the lake");
    let requests = RequestBoard::new(lake);
    let slow = |rate: f64| Request::new("events", files(&[at(&folder, "old/large.csv")]), Some(rate));
    assert!(runtime.block_on(requests.put(&slow(1e-300))).is_err());
    let slow = slow(1.0);
    runtime.block_on(requests.put(&slow)).expect("the request is put");
    let running = Running::start(Arc::clone(&dataflow), 1);
    let fed = || runtime.block_on(requests.status(&slow.id)).ok().flatten();
    running.wait_until(|| fed().is_some_and(|status| status.records > 0));
    let place = folder.path().join(REQUESTS).join(format!("{}.json", slow.id));
    std::fs::remove_file(place).expect("the request is there");
    let next = asked(&running, &dataflow, files(&[at(&folder, "old/small.csv")]));
    assert_eq!(next.files[0].state, FileState::Read, "{next:?}");
    let ended = runtime.block_on(requests.outcome(&slow.id)).expect("an outcome");
    let ended = ended.and_then(|outcome| outcome.error);
    assert!(
        ended.as_ref().is_some_and(|e| e.contains("was deleted before")),
        "{ended:?}"
    );
    running.stop();
    assert_newest_is_exact(&dataflow, "after the deletion");
}

/// A request of 60 MB aborted the run, at each start.
#[test]
fn a_request_of_millions_of_names_is_refused_and_the_run_goes_on() {
    let folder = folder("millions");
    let dataflow = folder.load("lake");
    let names = vec!["\"/etc/x\""; 5_000_000].join(",");
    let work = format!("{{\"kind\": \"files\", \"feed\": \"drops\", \"files\": [{names}], \"again\": false}}");
    folder.write(
        &format!("{REQUESTS}/1-many.json"),
        &format!("{{\"id\": \"1-many\", \"input\": \"events\", \"work\": {work}}}"),
    );
    let running = Running::start(Arc::clone(&dataflow), 1);
    let elsewhere: Vec<String> = (0..5_000).map(|n| format!("/etc/{n}.csv")).collect();
    let outcome = asked(&running, &dataflow, files(&elsewhere));
    assert_eq!((outcome.files.len(), outcome.unlisted.failed), (1_000, 4_000));
    // A request file must be unchanged for a while before it counts as broken.
    let done = folder.path().join(REQUESTS).join("done/1-many.json");
    running.wait_until(|| done.exists());
    running.wait_until(|| snapshots(&dataflow) > 0);
    running.stop();
    let refused = std::fs::read_to_string(done).expect("done");
    assert!(refused.contains("more than 100000 files"), "{refused}");
    assert_eq!(ask(&dataflow, "SELECT SUM(n) FROM gold.kinds"), "2");
}

#[test]
fn a_file_elsewhere_is_backfilled_once_the_definition_says_so() {
    let folder = folder("allowed");
    let old = tempfile::tempdir().expect("another folder");
    let file = old.path().join("b.csv").display().to_string();
    std::fs::write(&file, "id,kind\n3,x\n").expect("a file");
    let backfill = || alluvium(&["backfill", ".", "events", &file], folder.path());
    let refused = backfill();
    exits(&refused, 2);
    let remedy = format!("\"{}\"]", old.path().display());
    let told = text(&refused);
    assert!(
        told.contains("may not be backfilled") && told.contains("set backfill_from = ["),
        "{told}"
    );
    assert!(told.contains(&remedy), "{told}");
    folder.append("dataflow.toml", &format!("backfill_from = [\".\", {remedy}\n"));
    let fed = backfill();
    exits(&fed, 0);
    assert!(text(&fed).contains("b.csv: 1 record\n"), "{}", text(&fed));
    folder.append("dataflow.toml", "commit_every = \"1s\"\n");
    exits(&backfill(), 2);
}

/// A run did not notice that it should end before it had looked at all files.
#[test]
fn a_request_of_many_files_that_were_read_keeps_no_run_from_its_end() {
    let folder = folder("many");
    let dataflow = folder.load("lake");
    let first = at(&folder, "old/0.csv");
    folder.write("old/0.csv", "id,kind\n3,x\n");
    let others = (1..20_000).map(|n| {
        let link = at(&folder, &format!("old/{n}.csv"));
        std::fs::hard_link(&first, &link).expect("a link");
        link
    });
    let mut paths: Vec<String> = others.collect();
    paths.push(first.clone());
    let running = Running::start(dataflow.clone(), 1);
    // A repeated path counts as one file.
    let outcome = asked(&running, &dataflow, files(&[first.clone(), first.clone()]));
    assert_eq!(outcome.files.len(), 1, "{outcome:?}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options).expect("the lake");
    let requests = RequestBoard::new(lake);
    let request = Request::new("events", files(&paths), None);
    runtime.block_on(requests.put(&request)).expect("the request is put");
    let status = folder.path().join("lakes/lake/_alluvium/requests/status");
    running.wait_until(|| std::fs::read_dir(&status).is_ok_and(|mut told| told.next().is_some()));
    let started = Instant::now();
    running.stop();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let outcome = runtime.block_on(requests.outcome(&request.id));
    assert!(
        outcome.expect("it can be asked").is_none(),
        "it was served before the run was to end"
    );
}

/// A file's letter names the file, which was read wherever a link led.
#[test]
fn a_dead_letter_is_not_replayed_through_a_link_that_leads_elsewhere() {
    let folder = folder("letters");
    let secrets = tempfile::tempdir().expect("another folder");
    let secret = secrets.path().join("secret.csv");
    std::fs::write(&secret, "id,kind\n77,secret\n").expect("a secret");
    folder.write("inputs/events.toml", &EVENTS.replace("*.csv", "*.csv*"));
    folder.write("drops/b.csv.gz", "no gzip");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    assert_eq!(
        ask(&dataflow, "SELECT kind, COUNT(*) FROM dead_letters GROUP BY kind"),
        "file,1"
    );
    std::fs::remove_file(folder.path().join("drops/b.csv.gz")).expect("it goes");
    symlink(&secret, folder.path().join("drops/b.csv.gz")).expect("a link");
    let replayed = alluvium(
        &["dead-letters", ".", "--replay", "--lake", "lakes/lake"],
        folder.path(),
    );
    exits(&replayed, 1);
    assert!(
        text(&replayed).contains("b.csv.gz: failed: it leads to"),
        "{}",
        text(&replayed)
    );
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM bronze.events"), "2");
    assert_eq!(
        ask(&dataflow, "SELECT kind, COUNT(*) FROM dead_letters GROUP BY kind"),
        "file,1"
    );
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

/// A request with `..` in its name kept a run from ending, and one that was not JSON ended it.
#[test]
fn broken_requests_are_moved_aside_told_once_and_neither_hang_nor_end_a_run() {
    let folder = folder("broken");
    let requests = folder.path().join(REQUESTS);
    std::fs::create_dir_all(requests.join("done/8-dir.json")).expect("a folder");
    let good = |id: &str, work: &str| format!("{{\"id\": \"{id}\", \"input\": \"events\", \"work\": {work}}}");
    let letters = "{\"kind\": \"letters\"}";
    for (name, content) in [
        ("..%2f..%2fx.json", good("x", letters)),
        ("....json", good("..", letters)),
        ("a..b.json", good("a..b", letters)),
        ("1-none.json", "none".to_string()),
        ("2-cut.json", good("2-cut", letters)[..30].to_string()),
        ("3-later.json", "{\"version\": 7, \"id\": \"3-later\"}".to_string()),
        ("4-other.json", good("1", letters)),
        ("5-work.json", good("5-work", "{\"kind\": \"shell\"}")),
        // These are valid requests that fail.
        ("6-input.json", good("6-input", letters).replace("events", "../events")),
        (
            "7-file.json",
            good(
                "7-file",
                "{\"kind\": \"files\", \"feed\": \"..\", \"files\": [\"/etc/passwd\"], \"again\": false}",
            ),
        ),
        ("8-dir.json", good("8-dir", letters)),
    ] {
        folder.write(&format!("{REQUESTS}/{name}"), &content);
    }
    std::fs::write(requests.join(std::ffi::OsStr::from_bytes(b"\xff\x1b[2J.json")), "{}").expect("a file");
    std::fs::create_dir_all(requests.join("a-folder.json")).expect("a folder");
    symlink("/etc/passwd", requests.join("a-link.json")).expect("a link");
    assert!(
        Command::new("mkfifo")
            .arg(requests.join("a-fifo.json"))
            .status()
            .is_ok_and(|s| s.success())
    );
    let huge = std::fs::File::create(requests.join("a-huge.json")).expect("a file");
    huge.set_len(100 << 20).expect("a sparse file");
    let run = || {
        let program = env!("CARGO_BIN_EXE_alluvium");
        let mut command = Command::new("timeout");
        command.args(["60", program, "run", ".", "--until-caught-up", "--lake", "lakes/lake"]);
        command.current_dir(folder.path()).output().expect("it runs")
    };
    let ran = run();
    exits(&ran, 0);
    let told = text(&ran);
    assert_eq!(told.matches("a broken request was moved to").count(), 13, "{told}");
    assert!(
        !told.contains('\u{1b}') && told.contains("\\xff\\u{1b}[2J.json"),
        "{told}"
    );
    let left = names(&requests);
    assert!(
        left.iter()
            .all(|name| ["broken", "done", "status"].contains(&name.as_str())),
        "{left:?}"
    );
    assert_eq!(names(&requests.join("broken")).len(), 13);
    let outcome = |id: &str| std::fs::read_to_string(requests.join(format!("done/{id}.json"))).expect(id);
    assert!(outcome("6-input").contains("has no input ../events"));
    assert!(outcome("7-file").contains("has no feed events..."));
    assert!(outcome("3-later").contains("of version 7"));
    let again = text(&run());
    assert!(!again.contains("broken request"), "{again}");
    assert_eq!(ask(&folder.load("lake"), "SELECT SUM(n) FROM gold.kinds"), "2");
}

/// The output of `dead-letters` in a format.
fn dead_letters(folder: &Folder, format: &str) -> String {
    let printed = alluvium(
        &["dead-letters", ".", "--lake", "lakes/lake", "--format", format],
        folder.path(),
    );
    exits(&printed, 0);
    String::from_utf8(printed.stdout).expect("UTF-8")
}

/// `dead-letters` failed for a record that is not UTF-8 ("Invalid UTF-8 data").
#[test]
fn dead_letters_show_bytes_that_are_no_text() {
    let folder = folder("latin");
    std::fs::write(
        folder.path().join("drops/l.csv"),
        b"id,kind\n3,M\xfcller\n4,ok\nx,\x1b[2J\n",
    )
    .expect("a file");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let print = |format: &str| dead_letters(&folder, format);
    let table = print("table");
    assert!(
        table.contains("3,M\\xfcller") && table.contains("x,\\u{1b}[2J"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "{table}");
    let csv = print("csv");
    assert!(
        csv.lines()
            .next()
            .is_some_and(|header| header.contains("payload,payload_base64")),
        "{csv}"
    );
    // This is the base64 of the Latin-1 line.
    assert!(csv.contains(",,MyxN/GxsZXI=,"), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&print("json")).expect("JSON");
    let of = |wanted: &str| {
        let letters = json.as_array().expect("an array").iter();
        letters
            .filter(|letter| letter["payload_base64"] == wanted && letter["payload"].is_null())
            .count()
    };
    assert_eq!(of("MyxN/GxsZXI="), 1, "{json}");
    assert!(
        json.as_array()
            .expect("an array")
            .iter()
            .any(|letter| letter["payload"] == "x,\u{1b}[2J"),
        "{json}"
    );
}

/// The letter of a refused tombstone showed only a reason and an empty payload, so nobody could tell which record it
/// was.
#[test]
fn letters_are_shown_with_the_keys_of_their_records() {
    let input = "key = [\"id\"]\n[columns]\nid = \"BIGINT\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n";
    let folder = Folder::new(
        "keys",
        &[("inputs/rows.toml", input), ("silver/rows.sql", "SELECT id FROM rows")],
    );
    folder.write(
        "live/p.ndjson",
        "{\"key\":{\"id\":\"x17\"},\"value\":null}\n{\"value\":{\"id\":\"y\"}}\n",
    );
    catch_up(&folder.load("lake"), 1);
    let print = |format: &str| dead_letters(&folder, format);
    assert!(print("table").contains("| {\"id\":\"x17\"} |"), "{}", print("table"));
    let json: serde_json::Value = serde_json::from_str(&print("json")).expect("JSON");
    assert_eq!(json[0]["key"], "{\"id\":\"x17\"}", "{json}");
    assert!(json[0]["payload"].is_null() && json[1]["key"].is_null(), "{json}");
}

/// Names of files, payloads and values were written to the terminal unchanged, with their escape sequences.
#[test]
fn no_command_passes_terminal_escapes_on() {
    let folder = folder("escapes");
    let nasty = "\u{1b}]0;owned\u{7}\u{9b}31m\r";
    folder.write(
        &format!("drops/n{nasty}.csv"),
        &format!("id,kind\n5,v{nasty}\nx{nasty},z\n"),
    );
    folder.write(&format!("drops/m{nasty}.csv"), "id,kind\n\"6,never closed\n");
    folder.write(&format!("old/o{nasty}.csv"), "id,kind\n7,x\nx,x\n");
    folder.write("silver/texts.sql", "SELECT id, kind FROM events");
    let run = |arguments: &[&str]| {
        let ran = alluvium(arguments, folder.path());
        let told = text(&ran);
        let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!told.contains(acts), "{arguments:?}: {:?}", told);
        (ran.status.code(), told)
    };
    let (code, told) = run(&["run", ".", "--until-caught-up"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("\\u{1b}]0;owned\\u{7}"), "{told}");
    let old = at(&folder, &format!("old/o{nasty}.csv"));
    let (code, told) = run(&["backfill", ".", "events", &old]);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("o\\u{1b}]0;owned\\u{7}\\u{9b}31m\\r.csv: 2 records"),
        "{told}"
    );
    for (arguments, exit) in [
        (&["dead-letters", "."][..], 0),
        (&["query", ".", "SELECT * FROM silver.texts"], 0),
        (&["query", ".", "SELECT kind, \"partition\" FROM dead_letters"], 0),
        (&["query", ".", &format!("SELECT * FROM \"{nasty}\"")], 1),
        (&["query", ".", &format!("SELECT 1 AS \"{nasty}\"")], 0),
        (&["dead-letters", ".", "--replay"], 1),
        (&["check", "."], 0),
        (&["plan", "."], 0),
        (&["verify", "."], 0),
    ] {
        let (code, told) = run(arguments);
        assert_eq!(code, Some(exit), "{arguments:?}: {told}");
    }
    // `verify` prints rows that differ, with their values.
    folder.write("silver/texts.sql", "SELECT id, kind FROM events WHERE id < 5");
    let (code, told) = run(&["verify", "."]);
    assert!(code == Some(1) && told.contains("kind=v\\u{1b}]0;owned"), "{told}");
}

/// The summary reported refused records, but not rows that a table's SQL refused.
#[test]
fn the_summary_of_a_run_counts_dead_letters_of_every_kind() {
    let folder = folder("summary");
    folder.write("inputs/events.toml", &EVENTS.replace("*.csv", "*.csv*"));
    folder.write("drops/b.csv", "id,kind\n3,0\n4,0\n5,2\nno,1\n");
    folder.write("drops/c.csv.gz", "no gzip");
    folder.write(
        "silver/ratio.sql",
        "SELECT id, id / CAST(kind AS BIGINT) AS r FROM events WHERE kind < 'a'",
    );
    folder.write("silver/checked.sql", "SELECT id, kind FROM events");
    folder.write(
        "silver/checked.toml",
        "[expect.few]\ncheck = \"id <> 3\"\non_violation = \"drop\"\n[expect.kinds]\ncheck = \"id <> 4\"\non_violation = \"drop\"\n",
    );
    let ran = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    exits(&ran, 0);
    let told = text(&ran);
    assert!(
        told.contains("; new dead letters: 1 record, 1 file, 4 rows; newest snapshot")
            && told.contains("dead letters in the lake: 1 record, 1 file, 4 rows\n"),
        "{told}"
    );
    assert!(told.contains("  silver.ratio: 2 rows: "), "{told}");
    // Of two expectations, one was reported for the rows of both.
    for name in ["few", "kinds"] {
        let line = format!("  silver.checked: 1 row: expectation \"{name}\"");
        assert!(told.contains(&line), "{told}");
    }
    assert!(
        told.contains("  events: 1 record: ") && told.contains("  events: 1 file: "),
        "{told}"
    );
}

const LIVE: &str = r#"
[columns]
id = { type = "BIGINT", nullable = false }
kind = "VARCHAR"
[[feeds]]
name = "live"
kind = "log"
path = "live/events"
format = "json"
"#;

/// A dataflow with rows on one of which an operator panics; returns that row's offset too.
fn folder_with_poison(name: &str, input: &str) -> (Folder, u64) {
    let folder = Folder::new(name, &[("inputs/events.toml", input)]);
    folder.write("silver/events.sql", "SELECT id, kind FROM events");
    folder.write(
        "gold/kinds.sql",
        "SELECT kind, COUNT(*) AS n, SUM(id) AS ids FROM events GROUP BY kind",
    );
    let mut text = String::new();
    let mut offset = 0;
    for id in 0..100 {
        let kind = if id == 57 { "poison" } else { "k" };
        if id == 57 {
            offset = text.len() as u64;
        }
        text += &format!("{{\"value\": {{\"id\": {id}, \"kind\": \"{kind}\"}}}}\n");
    }
    folder.append("live/events/0.ndjson", &text);
    (folder, offset)
}

/// Runs to the end of the feeds; the operators have a bug that the poison triggers.
fn run_with_bug(dataflow: &Arc<Dataflow>, options: Options) -> Result<run::RunOutcome, String> {
    let options = Options {
        workers: 2,
        until_caught_up: true,
        duration: Some(Duration::from_secs(120)),
        panic_on: Some(b"poison".to_vec()),
        ..options
    };
    run::run(dataflow.clone(), &options).map_err(|error| chain(&error))
}

fn skip(text: &str) -> Options {
    Options {
        skip: vec![text.parse().expect("a skip")],
        ..Options::default()
    }
}

/// A panic in an operator ended the run and every later one: no message named the record, and nothing could get past
/// it.
#[test]
fn a_fault_of_a_worker_names_its_record_and_a_skip_gets_past_it_for_good() {
    let (folder, offset) = folder_with_poison("fault", LIVE);
    let dataflow = folder.load("lake");
    let told = run_with_bug(&dataflow, Options::default()).expect_err("an operator panics");
    assert!(
        told.contains("a worker panicked (a row holds what is panicked on)"),
        "{told}"
    );
    assert!(
        told.contains("on one of the records events.live:0:0-") && told.contains("--one-by-one"),
        "{told}"
    );
    let one_by_one = Options {
        one_by_one: true,
        ..Options::default()
    };
    let told = run_with_bug(&dataflow, one_by_one).expect_err("it panics again");
    let place = format!("events.live:0:{offset}");
    assert!(
        told.contains(&format!("on record {place}")) && told.contains(&format!("--skip {place}")),
        "{told}"
    );

    let outcome = run_with_bug(&dataflow, skip(&place)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((outcome.skipped, outcome.rejected), (1, 1));
    let letters = "SELECT kind, feed, \"offset\", reason, CAST(payload AS VARCHAR) FROM dead_letters";
    let letter =
        format!("record,live,{offset},skipped by run --skip,\"{{\"\"id\"\": 57, \"\"kind\"\": \"\"poison\"\"}}\"");
    let right = |what: &str| {
        assert_eq!(ask(&dataflow, letters), letter, "{what}");
        assert_eq!(
            ask(&dataflow, "SELECT kind, n, ids FROM gold.kinds"),
            "k,99,4893",
            "{what}"
        );
        assert_newest_is_exact(&dataflow, what);
    };
    right("after the skip");
    // From here on no option names the record, and the bug is still there.
    folder.append("live/events/0.ndjson", "{\"value\": {\"id\": 0, \"kind\": \"k\"}}\n");
    let letter_count = "SELECT COUNT(*) FROM dead_letters";
    for recompute in [false, true] {
        let options = Options {
            recompute,
            ..Options::default()
        };
        let outcome = run_with_bug(&dataflow, options).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outcome.corrections, Some(vec![]), "recompute: {recompute}");
        assert_eq!(ask(&dataflow, letter_count), "1");
        assert_eq!(ask(&dataflow, "SELECT n FROM gold.kinds"), "100");
        assert_newest_is_exact(&dataflow, "a restart");
    }
    // When dead letters are replayed, this one stays, once.
    let replayed = alluvium(
        &["dead-letters", ".", "--replay", "--lake", "lakes/lake"],
        folder.path(),
    );
    exits(&replayed, 0);
    assert!(
        text(&replayed).contains("1 dead letter tried again, 1 there now"),
        "{}",
        text(&replayed)
    );
    assert_eq!(ask(&dataflow, letter_count), "1");
    // Another lake is rebuilt from this one's Bronze.
    let into = folder.lake("rebuilt").display().to_string();
    let with_bug = Options {
        panic_on: Some(b"poison".to_vec()),
        ..Options::default()
    };
    run::rebuild(&dataflow, &into, with_bug, |_| ()).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let rebuilt = folder.load("rebuilt");
    assert_eq!(ask(&rebuilt, letter_count), "1");
    assert_newest_is_exact(&rebuilt, "rebuilt");
    let outcome = run_with_bug(&rebuilt, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(outcome.corrections, Some(vec![]));
}

/// A bug may come with a new version, and affect records that are already in the lake.
#[test]
fn a_record_that_was_taken_is_skipped_by_making_its_past_again() {
    for bronze in [true, false] {
        let input = format!("bronze = {bronze}\n{LIVE}");
        let (folder, offset) = folder_with_poison("taken", &input);
        let dataflow = folder.load("lake");
        catch_up(&dataflow, 1);
        assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.events"), "100");
        let again = Options {
            recompute: true,
            ..Options::default()
        };
        let told = run_with_bug(&dataflow, again).expect_err("an operator panics");
        assert!(told.contains("events.live:0:0-"), "{told}");
        let outcome =
            run_with_bug(&dataflow, skip(&format!("events.live:0:{offset}"))).unwrap_or_else(|e| panic!("{e}"));
        assert!(outcome.corrections.is_some_and(|corrected| !corrected.is_empty()));
        for recompute in [false, true] {
            assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.events"), "99");
            assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "1");
            if bronze {
                assert_newest_is_exact(&dataflow, "skipped");
            }
            let options = Options {
                recompute,
                ..Options::default()
            };
            let outcome = run_with_bug(&dataflow, options).unwrap_or_else(|e| panic!("{e}"));
            let corrections = outcome.corrections.expect("a restart is an audit");
            // Without Bronze, the time at which a record arrived is not known, so its letter gets another epoch.
            let wrong = corrections
                .iter()
                .filter(|(table, _)| bronze || table != "dead_letters");
            assert_eq!(
                wrong.count(),
                0,
                "bronze: {bronze}, recompute: {recompute}: {corrections:?}"
            );
        }
    }
}

#[test]
fn a_skip_that_names_nothing_is_refused_or_told() {
    let folder = folder("skips");
    let run = |what: &str| alluvium(&["run", ".", "--until-caught-up", "--skip", what], folder.path());
    for (what, part) in [
        ("events", "write INPUT.FEED:PARTITION:OFFSET"),
        ("event.drops:a.csv:1", "did you mean events?"),
        ("events.drop:a.csv:1", "feeds are drops"),
    ] {
        let refused = run(what);
        exits(&refused, 2);
        assert!(text(&refused).contains(part), "{what}: {}", text(&refused));
    }
    let ran = run("events.drops:b.csv:1-5");
    exits(&ran, 0);
    assert!(
        text(&ran).contains("no record came that --skip names"),
        "{}",
        text(&ran)
    );
    folder.write("drops/b.csv", "id,kind\n3,x\n4,y\n5,z\n");
    let ran = run("events.drops:b.csv:1-5");
    exits(&ran, 0);
    assert!(
        text(&ran).contains("skipped 2 records, which are dead letters"),
        "{}",
        text(&ran)
    );
    let counted = alluvium(
        &["query", ".", "SELECT SUM(n) FROM gold.kinds", "--format", "csv"],
        folder.path(),
    );
    assert!(text(&counted).ends_with("\n3\n"), "{}", text(&counted));
}

/// The commands that only read a lake, and whether they need a snapshot.
const LOOKS: [(&[&str], bool); 5] = [
    (&["query", ".", "SELECT * FROM gold.kinds"], true),
    (&["verify", "."], true),
    (&["dead-letters", "."], true),
    (&["dead-letters", ".", "--replay"], true),
    (&["plan", "."], false),
];

#[test]
fn commands_over_a_lake_without_a_snapshot_say_what_to_do() {
    let folder = folder("empty");
    let look = |state: &str, says: &str| {
        for (arguments, needs_snapshot) in LOOKS {
            let ran = alluvium(arguments, folder.path());
            exits(&ran, i32::from(needs_snapshot));
            let told = text(&ran);
            assert_eq!(told.contains(says), needs_snapshot, "{state}: {told}");
        }
    };
    look("no folder", "yet; `alluvium run` makes it");
    assert!(!folder.path().join("lake").exists(), "who only looks makes nothing");
    let empty = "holds no snapshot yet; start the dataflow";
    std::fs::create_dir_all(folder.path().join("lake/_alluvium/ledger")).expect("a folder");
    look("an empty lake", empty);
    // This is the state after a run was killed before its first snapshot.
    let fence = r#"{"kind":"fence","seq":0,"owner":"somebody","generation":1,"at":0}"#;
    folder.write("lake/_alluvium/ledger/00000000000000000000.json", fence);
    look("half made", empty);
    exits(&alluvium(&["run", ".", "--until-caught-up"], folder.path()), 0);
    exits(&alluvium(LOOKS[0].0, folder.path()), 0);
}

#[test]
fn commands_over_a_lake_that_cannot_be_read_name_the_place_and_the_remedy() {
    let folder = folder("unreadable");
    folder.write("file", "");
    let ran = alluvium(&["query", ".", "SELECT 1", "--lake", "file"], folder.path());
    exits(&ran, 1);
    assert!(text(&ran).contains(&at(&folder, "file")), "{}", text(&ran));
    exits(&alluvium(&["run", ".", "--until-caught-up"], folder.path()), 0);

    // Root can read in spite of file modes, unless it gives up that capability.
    let without_rights = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set=-dac_override,-dac_read_search",
            env!("CARGO_BIN_EXE_alluvium"),
        ]);
        command.args(arguments).current_dir(folder.path()).output()
    };
    let chmod = |mode: &str, path: &str| {
        Command::new("chmod")
            .args([mode, &at(&folder, path)])
            .status()
            .is_ok_and(|s| s.success())
    };
    if without_rights(&["check", "."]).is_ok_and(|ran| ran.status.success()) {
        for place in [
            "lake/_alluvium/ledger",
            "lake/dead_letters/_delta_log",
            "lake/gold/kinds/_delta_log",
        ] {
            assert!(chmod("000", place));
            let told: Vec<(Option<i32>, String)> = LOOKS[..3]
                .iter()
                .map(|(arguments, _)| {
                    without_rights(arguments)
                        .map(|ran| (ran.status.code(), text(&ran)))
                        .expect("it runs")
                })
                .collect();
            assert!(chmod("755", place));
            for (code, told) in told {
                assert_eq!(code, Some(1), "{place}: {told}");
                assert!(
                    told.contains("ermission denied") && !told.contains("panicked"),
                    "{place}: {told}"
                );
            }
        }
    } else {
        eprintln!("SKIPPED: setpriv is not to be had here");
    }

    let ledger = folder.path().join("lake/_alluvium/ledger");
    let newest = names(&ledger).into_iter().next_back().expect("an entry");
    let entry = std::fs::read_to_string(ledger.join(&newest)).expect("it is read");
    std::fs::write(
        ledger.join(&newest),
        entry.replacen('{', "{\"version\":2,\"news\":[],", 1),
    )
    .expect("it is written");
    let run = (&["run", ".", "--until-caught-up"][..], true);
    for (arguments, _) in LOOKS.into_iter().chain([run]) {
        let ran = alluvium(arguments, folder.path());
        exits(&ran, 1);
        assert!(
            text(&ran).contains("a newer version of alluvium wrote it"),
            "{arguments:?}: {}",
            text(&ran)
        );
    }
}
