//! Tests `rebuild --into` and `verify --against`: a new lake from another's Bronze, and the differences between two
//! lakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alluvium::definition::Dataflow;
use alluvium::run::{self, Options, Rebuilt};
use alluvium::serve::against;

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::restart::parquet_of;
use crate::support::{Folder, Running, catch_up, chain};

const ORDERS: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
customer = "VARCHAR"
amount = "BIGINT"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.csv*"
format = "csv"
[[feeds]]
name = "live"
kind = "log"
path = "live"
format = "json"
"#;

const ROWS: &str = r#"
[columns]
id = "BIGINT"
x = "BIGINT"
[[feeds]]
name = "files"
kind = "files"
path = "rows/*.parquet"
format = "parquet"
"#;

/// A lake with files, a log with changes and deletions, and archived drops; with letters of records, of a file and of
/// rows.
fn lake(name: &str) -> Folder {
    let folder = Folder::new(
        name,
        &[
            ("inputs/orders.toml", ORDERS),
            ("inputs/rows.toml", ROWS),
            (
                "gold/by_customer.sql",
                "SELECT customer, SUM(amount) AS amount FROM orders GROUP BY customer",
            ),
            ("gold/ratio.sql", "SELECT id, 100 / amount AS ratio FROM orders"),
            (
                "silver/rows.sql",
                "SELECT r.id, r.x, o.customer FROM rows r JOIN orders o ON o.id = r.id",
            ),
        ],
    );
    let rows: String = (0..500).map(|id| format!("{id},c{},{}\n", id % 7, id % 50)).collect();
    folder.write("drops/a.csv", &format!("id,customer,amount\n{rows}none,c1,1\n"));
    folder.write("drops/b.csv.gz", "no,column\nof,these\n");
    for id in 0..50 {
        live(&folder, id, "c9");
    }
    folder.append("live/0.ndjson", "{\"key\": {\"id\": 499}, \"value\": null}\nnothing\n");
    std::fs::create_dir(folder.path().join("rows")).expect("a new folder");
    std::fs::write(folder.path().join("rows/a.parquet"), parquet_of(0, 3000)).expect("a written file");
    folder
}

fn live(folder: &Folder, id: u32, customer: &str) {
    folder.append(
        "live/0.ndjson",
        &format!("{{\"value\": {{\"id\": {id}, \"customer\": \"{customer}\", \"amount\": 1}}}}\n"),
    );
}

fn rebuild(from: &Dataflow, into: &Dataflow, workers: usize) -> Rebuilt {
    let options = Options {
        workers,
        ..Options::default()
    };
    run::rebuild(from, &into.lake, options, |_| ()).unwrap_or_else(|e| panic!("the rebuild failed: {}", chain(&e)))
}

/// Asserts that every table is equal in two lakes.
#[track_caller]
pub fn assert_alike(one: &Dataflow, two: &Dataflow) {
    for (ours, theirs) in [(one, two), (two, one)] {
        let compared = against::against(ours, &theirs.lake).unwrap_or_else(|e| panic!("{}", chain(&e)));
        let differing: Vec<_> = compared.tables.iter().filter(|table| !table.is_equal()).collect();
        assert!(differing.is_empty(), "{differing:#?}");
        assert_eq!(compared.tables.len(), ours.inputs.len() + 1 + ours.tables.len());
    }
}

#[test]
fn a_rebuilt_lake_equals_the_old_one_and_is_run_on_where_that_stood() {
    let folder = lake("rebuilt");
    let old = folder.load("old");
    catch_up(&old, 2);
    let letters = "SELECT kind, COUNT(*) FROM dead_letters GROUP BY kind ORDER BY kind";
    assert_eq!(ask(&old, letters), "file,1\nrecord,2\nrow,9");
    for (name, workers) in [("one", 1), ("two", 2)] {
        let new = folder.load(name);
        let rebuilt = rebuild(&old, &new, workers);
        assert_eq!(rebuilt.letters, 12);
        assert_eq!(rebuilt.outcome.records, 0, "no feed is read");
        assert_alike(&old, &new);
        assert_newest_is_exact(&new, name);
    }
    // Only records that come from here on are read by either of them.
    live(&folder, 3, "c1");
    live(&folder, 9000, "c2");
    folder.write("drops/c.csv", "id,customer,amount\n9001,c3,5\n");
    let new = folder.load("two");
    for dataflow in [&old, &new] {
        assert_eq!(catch_up(dataflow, 2).records, 3);
        assert_newest_is_exact(dataflow, "run on");
    }
    assert_alike(&old, &new);
}

#[test]
fn a_lake_is_rebuilt_while_a_run_writes_to_it() {
    let folder = lake("busy");
    let (old, new) = (folder.load("old"), folder.load("new"));
    let running = Running::start(Arc::clone(&old), 2);
    let count = |dataflow: &Dataflow| ask(dataflow, "SELECT COUNT(*) FROM bronze.orders");
    running.wait_until(|| crate::support::snapshots(&old) > 0 && count(&old).parse::<u32>().is_ok_and(|n| n >= 553));
    let (built, mut written) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (1000..)
                .take_while(|_| !built.load(Ordering::Acquire))
                .inspect(|id| {
                    live(&folder, *id, "c4");
                    std::thread::sleep(Duration::from_millis(5));
                })
                .count()
        });
        rebuild(&old, &new, 1);
        built.store(true, Ordering::Release);
        written = writer.join().expect("the records are appended");
    });
    assert_newest_is_exact(&new, "rebuilt under load");
    let all = (553 + written).to_string();
    running.wait_until(|| count(&old) == all);
    running.stop();
    catch_up(&new, 2);
    assert_alike(&old, &new);
}

#[test]
fn the_commands_tell_what_differs_and_refuse_a_lake_that_holds_something() {
    let folder = lake("told");
    let at = folder.path();
    folder.write(
        "gold/ratio.sql",
        "SELECT id, 1.5 * amount AS ratio FROM orders WHERE id < 3",
    );
    let run = |arguments: &[&str]| alluvium(arguments, at);
    exits(&run(&["run", ".", "--until-caught-up"]), 0);
    let refused = run(&["verify", ".", "--against", "nowhere"]);
    exits(&refused, 2);
    assert!(
        text(&refused).contains("bad --against: there is no folder"),
        "{}",
        text(&refused)
    );
    exits(&run(&["rebuild", ".", "--into", "lake"]), 2);
    let built = run(&["rebuild", ".", "--into", "other", "-w", "2"]);
    exits(&built, 0);
    let told = text(&built);
    assert!(
        told.contains("gold.by_customer: 8 rows") && told.contains("rebuilt snapshot"),
        "{told}"
    );
    assert!(!told.contains("corrected"), "nothing was wrong: {told}");
    let again = run(&["rebuild", ".", "--into", "other"]);
    exits(&again, 2);
    assert!(
        text(&again).contains("it is not empty\n  help: name a folder"),
        "{}",
        text(&again)
    );

    let alike = run(&["verify", ".", "--against", "other"]);
    exits(&alike, 0);
    assert!(
        text(&alike).contains("bronze.orders: 553 rows, equal (without ingest_time, epoch)"),
        "{}",
        text(&alike)
    );
    live(&folder, 1, "c0");
    exits(&run(&["run", ".", "--until-caught-up", "--lake", "other"]), 0);
    let differs = run(&[
        "verify",
        ".",
        "--against",
        "other",
        "--table",
        "gold.by_customer",
        "--table",
        "gold.ratio",
    ]);
    exits(&differs, 1);
    let told = text(&differs);
    assert!(told.contains("gold.ratio: 3 rows, equal\n"), "{told}");
    assert!(
        told.contains("gold.by_customer: 8 rows, 8 in the other lake, 4 differ\n"),
        "{told}"
    );
    assert!(told.contains("  here 1, there 0: customer=c9 amount=50\n"), "{told}");
    assert!(!told.contains("bronze.orders"), "{told}");
}
