//! Tests requests to a running graph: files and history that are fed beside live feeds, and dead letters that are
//! replayed, with kills in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::backfill::{
    BackfillChannel, BackfillOutcome, FileState, Request, RequestBoard, Server, ServerContext, Work,
};
use alluvium::definition::Dataflow;
use alluvium::lake::Lake;
use alluvium::serve::verify;

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::restart::parquet_of;
use crate::support::{Folder, Process, Running, catch_up, chain, snapshots};

/// An input without a key, in which every line counts.
const EVENTS: &str = r#"
[columns]
id = { type = "BIGINT", nullable = false }
kind = "VARCHAR"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.csv*"
format = "csv"
columns.kind.from = "Kind"
[[feeds]]
name = "live"
kind = "log"
path = "live/events"
format = "json"
"#;

/// An input with the newest version of each order; deletions have no version.
const ORDERS: &str = r#"
key = ["id"]
order_by = ["version"]
[columns]
id = { type = "BIGINT", nullable = false }
version = "BIGINT"
state = "VARCHAR"
[[feeds]]
name = "live"
kind = "log"
path = "live/orders"
format = "json"
"#;

const FIRSTS: &str = r#"
dedup_key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
kind = "VARCHAR"
[[feeds]]
name = "live"
kind = "log"
path = "live/events"
format = "json"
"#;

fn folder(name: &str) -> Folder {
    let folder = Folder::new(
        name,
        &[
            ("inputs/events.toml", EVENTS),
            ("inputs/orders.toml", ORDERS),
            ("inputs/firsts.toml", FIRSTS),
            (
                "gold/kinds.sql",
                "SELECT kind, COUNT(*) AS n, SUM(id) AS ids FROM events GROUP BY kind",
            ),
            (
                "gold/states.sql",
                "SELECT state, COUNT(*) AS n FROM orders GROUP BY state",
            ),
            ("gold/firsts.sql", "SELECT id, kind FROM firsts"),
        ],
    );
    for made in ["drops", "live/events", "live/orders", "old"] {
        std::fs::create_dir_all(folder.path().join(made)).expect("a new folder");
    }
    folder
}

fn event(folder: &Folder, id: u32, kind: &str) {
    folder.append(
        "live/events/0.ndjson",
        &format!("{{\"value\": {{\"id\": {id}, \"kind\": \"{kind}\"}}}}\n"),
    );
}

fn csv(from: u32, to: u32) -> String {
    let rows: String = (from..to).map(|id| format!("{id},k{}\n", id % 5)).collect();
    format!("id,Kind\n{rows}")
}

fn at(folder: &Folder, path: &str) -> String {
    folder.path().join(path).display().to_string()
}

/// Puts a request into the lake, for whichever run serves it.
fn put(
    dataflow: &Dataflow,
    input: &str,
    work: Work,
    rate: Option<f64>,
) -> impl Fn() -> Option<BackfillOutcome> + use<> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lake = Lake::make(&dataflow.lake, &dataflow.store_options).expect("the lake");
    let requests = RequestBoard::new(lake);
    let request = Request::new(input, work, rate);
    runtime.block_on(requests.put(&request)).expect("the request is put");
    move || {
        runtime
            .block_on(requests.outcome(&request.id))
            .expect("the outcome can be read")
    }
}

fn files(paths: &[String], again: bool) -> Work {
    Work::Files {
        feed: "drops".into(),
        files: paths.to_vec(),
        again,
    }
}

/// Puts a request, and returns its outcome after the run has served it.
#[track_caller]
fn served(running: &Running, dataflow: &Dataflow, input: &str, work: Work) -> BackfillOutcome {
    let outcome = put(dataflow, input, work, None);
    running.wait_until(|| outcome().is_some());
    outcome().expect("the run has ended early")
}

fn states(outcome: &BackfillOutcome) -> Vec<FileState> {
    outcome.files.iter().map(|file| file.state.clone()).collect()
}

#[test]
fn a_file_is_fed_once_whatever_its_name_beside_live_records() {
    let folder = folder("once");
    let dataflow = folder.load("lake");
    folder.write("old/a.csv", &csv(0, 20_000));
    folder.write("old/b.csv", "id,Kind\n1,x\nnone,x\n2,x\n");
    folder.write("old/torn.csv.gz", "this is no gzip");
    folder.write("drops/own.csv", "id,Kind\n5,own\n");
    folder.write("other/a renamed.csv", &csv(0, 20_000));
    event(&folder, 1, "live");
    let running = Running::start(Arc::clone(&dataflow), 2);
    running.wait_until(|| snapshots(&dataflow) > 0);
    let count = || ask(&dataflow, "SELECT SUM(n) FROM gold.kinds");
    std::thread::scope(|scope| {
        let live = scope.spawn(|| {
            for id in 0..300 {
                event(&folder, id, "live");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let paths = [
            "old/a.csv",
            "old/b.csv",
            "old/torn.csv.gz",
            "old/gone.csv",
            "drops/own.csv",
        ];
        let paths: Vec<String> = paths.iter().map(|path| at(&folder, path)).collect();
        let outcome = served(&running, &dataflow, "events", files(&paths, false));
        let states = states(&outcome);
        assert_eq!(states[..2], [FileState::Read, FileState::Read], "{outcome:?}");
        assert!(
            matches!(&states[2], FileState::Failed(why) if why.contains("torn.csv.gz")),
            "{outcome:?}"
        );
        assert!(
            matches!(&states[3], FileState::Failed(why) if why == "it is not there"),
            "{outcome:?}"
        );
        assert_eq!(states[4], FileState::Feeds("drops".into()));
        assert_eq!(
            (outcome.records, outcome.rejected, outcome.rejected_files, outcome.error),
            (20_003, 1, 1, None)
        );
        live.join().expect("the records are appended");
    });
    // 20,000 and 2 rows come from files, one from the folder, and 301 from the live feed.
    running.wait_until(|| count() == "20304");
    let known = served(
        &running,
        &dataflow,
        "events",
        files(&[at(&folder, "other/a renamed.csv")], false),
    );
    assert_eq!(
        (states(&known), known.records, known.snapshot),
        (vec![FileState::Known], 0, 0)
    );
    assert_eq!(count(), "20304");
    let letters = "SELECT kind, COUNT(*) FROM dead_letters GROUP BY kind ORDER BY kind";
    assert_eq!(ask(&dataflow, letters), "file,1\nrecord,1");
    let again = served(&running, &dataflow, "events", files(&[at(&folder, "old/a.csv")], true));
    assert_eq!((states(&again), again.records), (vec![FileState::Read], 20_000));
    assert_eq!(count(), "40304");
    let refused = served(&running, &dataflow, "nothing", Work::Letters);
    assert!(refused.error.is_some_and(|error| error.contains("no input nothing")));
    running.stop();
    assert_newest_is_exact(&dataflow, "fed beside live records");
    // A restart has all rows from Bronze, and knows which files were read.
    for workers in [1, 3] {
        let outcome = catch_up(&dataflow, workers);
        assert_eq!(outcome.corrections, Some(vec![]));
        assert_eq!(count(), "40304");
    }
    let outcome = put(&dataflow, "events", files(&[at(&folder, "old/a.csv")], false), None);
    catch_up(&dataflow, 1);
    assert_eq!(outcome().map(|outcome| states(&outcome)), Some(vec![FileState::Known]));
}

#[test]
fn formats_that_no_feed_has_are_read_by_the_columns_of_the_input_and_replayed() {
    let folder = folder("formats");
    folder.write(
        "inputs/rows.toml",
        "key = [\"id\"]\n[columns]\nid = { type = \"BIGINT\", nullable = false }\nx = \"BIGINT\"\n\
         [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live/rows\"\nformat = \"json\"\n",
    );
    folder.write("gold/rows.sql", "SELECT COUNT(*) AS n, SUM(x) AS x FROM rows");
    std::fs::write(folder.path().join("old/a.parquet"), parquet_of(0, 5000)).expect("a written file");
    folder.write("old/b.ndjson", "{\"id\": 1, \"x\": 100}\n{\"id\": 9000, \"x\": 7}\n");
    let run = |arguments: &[&str]| alluvium(arguments, folder.path());
    let fed = run(&[
        "backfill",
        ".",
        "rows",
        "old/a.parquet",
        "--format",
        "parquet",
        "--lake",
        "lakes/lake",
    ]);
    exits(&fed, 0);
    assert!(text(&fed).contains("no run is on the lake"), "{}", text(&fed));
    exits(
        &run(&[
            "backfill",
            ".",
            "rows",
            "old/*.ndjson",
            "--format",
            "ndjson",
            "-w",
            "2",
            "--lake",
            "lakes/lake",
        ]),
        0,
    );
    // This is another file, under a name that is archived already.
    std::fs::write(folder.path().join("old/a.parquet"), parquet_of(5000, 10)).expect("a written file");
    exits(
        &run(&[
            "backfill",
            ".",
            "rows",
            "old/a.parquet",
            "--format",
            "parquet",
            "--lake",
            "lakes/lake",
        ]),
        0,
    );
    std::fs::remove_dir_all(folder.path().join("old")).expect("the files are there");
    let dataflow = folder.load("lake");
    let sum: i64 = (0..5010).map(|x| x * 3).sum();
    for workers in [1, 2] {
        assert_eq!(catch_up(&dataflow, workers).corrections, Some(vec![]));
        assert_eq!(
            ask(&dataflow, "SELECT n, x FROM gold.rows"),
            format!("5011,{}", sum - 3 + 100 + 7)
        );
        assert_newest_is_exact(&dataflow, "of files");
    }
}

/// Replayed history carries its first arrival, which was ignored: a deletion that removes the present row also removed
/// rows that had come later, and rows from before a truncation came back.
#[test]
fn history_that_is_fed_again_changes_nothing() {
    let folder = folder("history");
    folder.write(
        "inputs/changes.toml",
        "key = [\"id\"]\n[columns]\nid = { type = \"BIGINT\", nullable = false }\nx = \"BIGINT\"\n\
         [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live/changes\"\nformat = \"debezium-json\"\n",
    );
    folder.write("gold/changes.sql", "SELECT id, x FROM changes");
    let order = |line: &str| folder.append("live/orders/0.ndjson", &format!("{line}\n"));
    let change = |line: &str| folder.append("live/changes/0.ndjson", &format!("{{\"value\": {line}}}\n"));
    let dataflow = folder.load("lake");
    let running = Running::start(Arc::clone(&dataflow), 2);
    // Each step has epochs of its own.
    for step in 0..3 {
        for id in 0..20 {
            order(&format!(
                "{{\"value\": {{\"id\": {id}, \"version\": {step}, \"state\": \"s{step}\"}}}}"
            ));
            change(&format!(
                "{{\"op\": \"c\", \"after\": {{\"id\": {id}, \"x\": {step}}}}}"
            ));
            event(&folder, id, &format!("k{step}"));
        }
        order(&format!("{{\"key\": {{\"id\": {step}}}, \"value\": null}}"));
        order("{\"value\": {\"version\": 1}}");
        if step == 1 {
            change("{\"op\": \"t\"}");
        }
        let orders = format!("{}", 22 * (step + 1));
        running
            .wait_until(|| snapshots(&dataflow) > 0 && ask(&dataflow, "SELECT COUNT(*) FROM bronze.orders") == orders);
    }
    change("{\"op\": \"d\", \"before\": {\"id\": 3}}");
    running.wait_until(|| ask(&dataflow, "SELECT COUNT(*) FROM gold.changes") == "19");
    assert_newest_is_exact(&dataflow, "before");
    let before = verify::fingerprints(&dataflow).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let letters = "SELECT input, COUNT(*) FROM dead_letters GROUP BY input ORDER BY input";
    assert_eq!(ask(&dataflow, letters), "orders,3");
    for (input, records) in [("orders", 66), ("changes", 62), ("firsts", 60), ("events", 0)] {
        let work = Work::Bronze {
            since: None,
            until: None,
        };
        let outcome = served(&running, &dataflow, input, work);
        assert_eq!(
            (outcome.error.clone(), outcome.records),
            (None, records),
            "{input}: {outcome:?}"
        );
        assert_eq!(
            verify::fingerprints(&dataflow).expect("fingerprints"),
            before,
            "{input}"
        );
        assert_eq!(ask(&dataflow, letters), "orders,3", "refused again, each once");
    }
    let future = Work::Bronze {
        since: Some(i64::MAX / 2),
        until: None,
    };
    assert_eq!(served(&running, &dataflow, "orders", future).records, 0);
    running.stop();
    assert_newest_is_exact(&dataflow, "after");
    assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]));
}

#[test]
fn letters_of_files_leave_once_their_files_are_repaired() {
    let folder = folder("repaired");
    folder.write("drops/a.csv.gz", "this is no gzip");
    folder.write("drops/b.csv", "id,Kind\n1,x\nnone,x\n");
    let run = |arguments: &[&str]| alluvium(arguments, folder.path());
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    let letters = "SELECT kind, COUNT(*) FROM dead_letters GROUP BY kind ORDER BY kind";
    assert_eq!(ask(&dataflow, letters), "file,1\nrecord,1");
    // The definition is unchanged, so both letters stay, once each.
    let tried = run(&["dead-letters", ".", "--replay", "--lake", "lakes/lake"]);
    exits(&tried, 1);
    assert!(
        text(&tried).contains("events: 2 dead letters tried again, 2 there now"),
        "{}",
        text(&tried)
    );
    assert_eq!(ask(&dataflow, letters), "file,1\nrecord,1");

    let running = Running::start(Arc::clone(&dataflow), 2);
    running.wait_until(|| snapshots(&dataflow) > 1);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, csv(0, 5000).as_bytes()).expect("packed");
    std::fs::write(folder.path().join("drops/a.csv.gz"), packed.finish().expect("packed")).expect("a written file");
    // The feed reads the repaired file; the replay waits for that, and removes the letter.
    let served = run(&[
        "dead-letters",
        ".",
        "--replay",
        "--input",
        "events",
        "--lake",
        "lakes/lake",
    ]);
    exits(&served, 0);
    let told = text(&served);
    assert!(
        told.contains("a.csv.gz: 0 records\n") && told.contains("events: 2 dead letters tried again, 1 there now"),
        "{told}"
    );
    assert_eq!(ask(&dataflow, letters), "record,1");
    assert_eq!(ask(&dataflow, "SELECT SUM(n) FROM gold.kinds"), "5001");
    running.stop();
    assert_newest_is_exact(&dataflow, "repaired");
    for workers in [1, 2] {
        assert_eq!(catch_up(&dataflow, workers).corrections, Some(vec![]));
        assert_eq!(ask(&dataflow, letters), "record,1");
    }
}

#[test]
fn records_that_pass_now_go_with_their_letters_and_as_of_their_arrival() {
    let folder = folder("passing");
    folder.write("drops/a.csv", "id,Kind\n1,x\nnone,y\n2,z\nno,y\n");
    let broken = folder.load("lake");
    catch_up(&broken, 1);
    assert_eq!(ask(&broken, "SELECT COUNT(*) FROM dead_letters"), "2");
    folder.write(
        "inputs/events.toml",
        &EVENTS.replace("\"BIGINT\", nullable = false", "\"VARCHAR\""),
    );
    let definition = alluvium::definition::load(folder.path(), &|_| None);
    let repaired = Arc::new(Dataflow {
        lake: broken.lake.clone(),
        ..definition.unwrap_or_else(|e| panic!("{e}"))
    });
    let (portions_in, portions) = crossbeam_channel::bounded(1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = Server::start(ServerContext {
        dataflow: repaired.clone(),
        lake: Lake::open(&broken.lake, &broken.store_options).expect("the lake"),
        runtime: runtime.handle().clone(),
        workers: vec![BackfillChannel {
            portions: portions_in,
            wake: Arc::new(|| ()),
        }],
        live: Arc::new(|| 0),
        committed: Arc::new(|| 50),
        ready: Arc::new(|| true),
        feeds: false,
        failed: Box::new(|reason| panic!("{reason}")),
        rate: 1.0,
    });
    let server = server.expect("a server");
    let outcome = put(&broken, "events", Work::Letters, None);
    let portion = portions.recv_timeout(Duration::from_secs(60)).expect("a portion");
    let decoded = &portion.delivery.decoded;
    assert_eq!(
        (decoded.rows.num_rows(), decoded.rejects.len(), portion.letters.len()),
        (2, 0, 2)
    );
    assert_eq!(decoded.raw.offsets, [1, 3]);
    let epoch = ask(&broken, "SELECT DISTINCT epoch FROM dead_letters");
    assert_eq!(portion.arrived.map(|epoch| epoch.to_string()), Some(epoch));
    assert!(outcome().is_none(), "nothing is committed");
    portion.receipt.record(50, (0, 0));
    let started = Instant::now();
    while outcome().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "no outcome");
        std::thread::sleep(Duration::from_millis(10));
    }
    let outcome = outcome().expect("it is there");
    assert_eq!(
        (outcome.letters, outcome.records, outcome.snapshot, outcome.error),
        (2, 2, 50, None)
    );
    drop(server);
}

#[test]
fn the_commands_say_what_they_cannot_do() {
    let folder = folder("asked");
    folder.write("inputs/unkept.toml", &format!("bronze = false\n{EVENTS}"));
    folder.write("old/a.csv", "id,Kind\n1,x\n");
    let refused = |arguments: &[&str], told: &str| {
        let output = alluvium(arguments, folder.path());
        exits(&output, 2);
        assert!(text(&output).contains(told), "{arguments:?}: {}", text(&output));
    };
    refused(
        &["backfill", ".", "evens", "old/a.csv"],
        "unknown input evens\n  help: did you mean events?",
    );
    refused(&["backfill", ".", "unkept", "old/a.csv"], "keeps no Bronze");
    refused(&["backfill", ".", "events", "old/b.csv"], "no file is at old/b.csv");
    refused(
        &["backfill", ".", "events", "old/a.csv", "--feed", "live"],
        "no feed live of kind \"files\"\n  help: name one of drops",
    );
    refused(
        &["backfill", ".", "orders", "old/a.csv"],
        "name their format, as in --format csv",
    );
    refused(
        &["backfill", ".", "orders", "old/a.csv", "--format", "cvs"],
        "unknown format \"cvs\"\n  help: did you mean csv?",
    );
    refused(
        &["dead-letters", ".", "--replay", "--table", "gold.kind"],
        "did you mean gold.kinds?",
    );
    let run = |arguments: &[&str]| alluvium(arguments, folder.path());
    let put = run(&["backfill", ".", "events", "old", "--detach"]);
    exits(&put, 0);
    assert!(
        text(&put).contains("the next run on the lake serves it"),
        "{}",
        text(&put)
    );
    exits(&run(&["run", ".", "--until-caught-up"]), 0);
    let known = run(&["backfill", ".", "events", "old/a.csv"]);
    exits(&known, 0);
    assert!(
        text(&known).contains("a.csv: known, nothing was read\nfed 0 records; no new dead letters; nothing changed")
    );
    let none = run(&["dead-letters", ".", "--replay"]);
    exits(&none, 0);
    assert!(
        text(&none).contains("no record or file to try again"),
        "{}",
        text(&none)
    );
    exits(&run(&["verify", "."]), 0);
}

/// How long a run may serve a request before it is killed.
const SERVED: Duration = Duration::from_millis(700);

#[test]
fn a_backfill_is_fed_exactly_once_over_kills_beside_live_records() {
    let folder = folder("killed");
    let dataflow = folder.load("lake");
    folder.write("old/a.csv", &csv(0, 30_000));
    folder.write("old/b.csv", &csv(30_000, 45_000));
    folder.write("old/c.csv", "id,Kind\nnone,x\n");
    event(&folder, 0, "live");
    catch_up(&dataflow, 1);
    let outcome = put(
        &dataflow,
        "events",
        files(
            &["old/a.csv", "old/b.csv", "old/c.csv"].map(|path| at(&folder, path)),
            false,
        ),
        Some(3000.0),
    );
    let history = Work::Bronze {
        since: None,
        until: None,
    };
    let history = put(&dataflow, "firsts", history, Some(500.0));
    let taken = || {
        ask(&dataflow, "SELECT COUNT(*) FROM bronze.events")
            .parse::<u64>()
            .expect("a number")
    };
    let (mut kills, mut cut, mut id) = (0, 0, 0);
    let started = Instant::now();
    while history().is_none() {
        assert!(
            started.elapsed() < Duration::from_secs(600),
            "{} records after {kills} kills",
            taken()
        );
        let status = dataflow.lake.clone() + "/_alluvium/requests/status";
        // Removes the status that a killed run wrote.
        let _ = std::fs::remove_dir_all(&status);
        let _process = Process::start(&folder, 1 + kills % 3);
        let (begun, mut serving) = (Instant::now(), None);
        // The process is killed shortly after it takes up a request; the last one may finish the work.
        while history().is_none() && (kills >= 8 || serving.is_none_or(|since: Instant| since.elapsed() < SERVED)) {
            id += 1;
            event(&folder, id, "live");
            std::thread::sleep(Duration::from_millis(20));
            if serving.is_none() && std::fs::read_dir(&status).is_ok_and(|mut told| told.next().is_some()) {
                serving = Some(Instant::now());
            }
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "{} records after {kills} kills",
                taken()
            );
        }
        cut += u32::from(outcome().is_none());
        kills += 1;
    }
    assert!(cut >= 1, "{kills} kills, {cut} of them in the middle of the files");
    let outcome = outcome().expect("the requests are served in their turn");
    assert_eq!(
        states(&outcome),
        [FileState::Read, FileState::Read, FileState::Read],
        "{outcome:?}"
    );
    catch_up(&dataflow, 2);
    let expected = 45_000 + id as u64 + 1;
    assert_eq!(ask(&dataflow, "SELECT SUM(n) FROM gold.kinds"), expected.to_string());
    assert_eq!(taken(), expected + 1);
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "1");
    assert_newest_is_exact(&dataflow, "after the kills");
}
