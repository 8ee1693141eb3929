//! Tests the replay of records' dead letters: after the definition is repaired, records that now pass are in the
//! tables as if they had passed when they arrived. Letters of whole files are tested in [`crate::backfill`].

use std::sync::Arc;

use alluvium::definition::Dataflow;
use alluvium::lake::Lake;
use alluvium::run::is_running;

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, Running, catch_up, recompute};

/// The formats of a day, at first and after the definition is repaired.
const NARROW: &str = "\"%Y-%m-%d\"";
const WIDE: &str = "[\"%Y-%m-%d\", \"%d.%m.%Y\"]";

/// Defines three inputs: one without a key, one with versions, one that keeps the first line of an id; from a log and,
/// for events, from CSV files too.
fn define(folder: &Folder, days: &str, amount: &str) {
    let columns = |more: &str| {
        format!(
            "[columns]\nid = {{ type = \"BIGINT\", nullable = false }}\nday = {{ type = \"DATE\", format = {days} }}\n\
             {more}\n"
        )
    };
    let log =
        |name: &str| format!("[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live/{name}\"\nformat = \"json\"\n");
    let drops = "[[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n";
    let amount = columns(&format!("amount = \"{amount}\""));
    folder.write("inputs/events.toml", &format!("{amount}{drops}{}", log("events")));
    let orders = columns("version = \"BIGINT\"\nstate = \"VARCHAR\"");
    folder.write(
        "inputs/orders.toml",
        &format!("key = [\"id\"]\norder_by = [\"version\"]\n{orders}{}", log("orders")),
    );
    let firsts = columns("state = \"VARCHAR\"");
    folder.write(
        "inputs/firsts.toml",
        &format!("dedup_key = [\"id\"]\n{firsts}{}", log("firsts")),
    );
}

fn folder(name: &str) -> Folder {
    let folder = Folder::new(
        name,
        &[
            // The tables are one that stands as it is, sums that are kept, and tables from the inputs' state.
            ("silver/events.sql", "SELECT id, day, amount FROM events"),
            (
                "gold/days.sql",
                "SELECT day, COUNT(*) AS n, SUM(amount) AS amount FROM silver.events GROUP BY day",
            ),
            (
                "gold/last.sql",
                "SELECT id % 2 AS odd, MAX(day) AS day FROM silver.events GROUP BY id % 2",
            ),
            ("gold/orders.sql", "SELECT id, day, state FROM orders"),
            ("gold/firsts.sql", "SELECT id, day, state FROM firsts"),
        ],
    );
    define(&folder, NARROW, "BIGINT");
    folder
}

fn send(folder: &Folder, input: &str, values: &[&str]) {
    let lines: String = values
        .iter()
        .map(|value| format!("{{\"value\": {{{value}}}}}\n"))
        .collect();
    folder.append(&format!("live/{input}/0.ndjson"), &lines);
}

/// For each input, sends records that are refused: some because of a day that the wider format reads, one for good. Of
/// those that pass later, some change the result, and some do not.
fn records(folder: &Folder) {
    folder.write(
        "drops/a.csv",
        "id,day,amount\n1,2026-02-01,10\n2,02.02.2026,20\n3,soon,30\n4,2026-02-02,1.5\n",
    );
    send(
        folder,
        "events",
        &[
            "\"id\": 5, \"day\": \"03.02.2026\", \"amount\": 50",
            "\"id\": 6, \"day\": \"2026-02-02\", \"amount\": 60",
            "\"day\": \"2026-02-02\", \"amount\": 70",
            "\"id\": 7, \"day\": \"2026-02-02\", \"amount\": 2.25",
        ],
    );
    send(
        folder,
        "orders",
        &[
            // This is the newest version, refused before an older one comes.
            "\"id\": 1, \"day\": \"05.02.2026\", \"version\": 5, \"state\": \"newest\"",
            "\"id\": 1, \"day\": \"2026-02-03\", \"version\": 3, \"state\": \"older\"",
            // This older version would change nothing.
            "\"id\": 2, \"day\": \"01.02.2026\", \"version\": 1, \"state\": \"older\"",
            "\"id\": 2, \"day\": \"2026-02-02\", \"version\": 2, \"state\": \"newest\"",
            // Of two records with the same version, the later one stays.
            "\"id\": 3, \"day\": \"01.02.2026\", \"version\": 7, \"state\": \"earlier\"",
            "\"id\": 3, \"day\": \"2026-02-02\", \"version\": 7, \"state\": \"later\"",
            "\"id\": 4, \"day\": \"soon\", \"version\": 1, \"state\": \"never\"",
        ],
    );
    send(
        folder,
        "firsts",
        &[
            "\"id\": 1, \"day\": \"01.02.2026\", \"state\": \"first\"",
            "\"id\": 1, \"day\": \"2026-02-02\", \"state\": \"second\"",
            "\"id\": 2, \"day\": \"soon\", \"state\": \"never\"",
            "\"id\": 2, \"day\": \"2026-02-02\", \"state\": \"first\"",
            "\"id\": 2, \"day\": \"03.02.2026\", \"state\": \"second\"",
        ],
    );
}

const LETTERS: &str = "SELECT input, feed, \"offset\", reason, epoch FROM dead_letters ORDER BY 1, 2, 3";
const BY_INPUT: &str = "SELECT input, COUNT(*) FROM dead_letters GROUP BY input ORDER BY input";

/// Asserts that `alluvium verify` exits with this code.
#[track_caller]
fn verifies(folder: &Folder, code: i32) {
    exits(&alluvium(&["verify", ".", "--lake", "lakes/lake"], folder.path()), code);
}

/// Runs `alluvium dead-letters --replay`, which must succeed; returns its output.
#[track_caller]
fn replay(folder: &Folder, more: &[&str]) -> String {
    let arguments = [&["dead-letters", ".", "--replay", "--lake", "lakes/lake"], more].concat();
    let output = alluvium(&arguments, folder.path());
    exits(&output, 0);
    text(&output)
}

/// A wider type makes another column: the restart itself recomputes the input from Bronze, so nothing is left to
/// replay. Letters of records that still fail stay, once each.
#[test]
fn letters_go_with_the_restart_that_makes_their_input_again() {
    let folder = folder("retyped");
    records(&folder);
    let dataflow = folder.load("lake");
    assert_eq!(catch_up(&dataflow, 2).rejected, 13);
    assert_eq!(ask(&dataflow, BY_INPUT), "events,6\nfirsts,3\norders,4");
    define(&folder, NARROW, "DOUBLE");
    let dataflow = folder.load("lake");
    let outcome = catch_up(&dataflow, 1);
    assert_eq!(outcome.replayed, 8, "events alone");
    assert_eq!(ask(&dataflow, BY_INPUT), "events,4\nfirsts,3\norders,4");
    assert_eq!(
        ask(
            &dataflow,
            "SELECT n, amount FROM gold.days WHERE day = DATE '2026-02-02'"
        ),
        "3,63.75"
    );
    verifies(&folder, 0);
    let before = ask(&dataflow, LETTERS);
    for more in [&["--input", "events"][..], &["--table", "gold.orders"]] {
        let told = replay(&folder, more);
        assert!(told.contains("4 dead letters tried again, 4 there now"), "{told}");
        assert_eq!(ask(&dataflow, LETTERS), before);
    }
    verifies(&folder, 0);
    define(&folder, WIDE, "DOUBLE");
    let dataflow = folder.load("lake");
    // Here the request itself starts the run.
    let told = replay(&folder, &[]);
    assert!(
        told.contains("events: 2 dead letters tried again, 2 there now"),
        "{told}"
    );
    assert_eq!(ask(&dataflow, BY_INPUT), "events,2\nfirsts,1\norders,1");
    assert_repaired(&dataflow);
    verifies(&folder, 0);
}

/// Asserts the tables after all repairable records have passed.
#[track_caller]
fn assert_repaired(dataflow: &Dataflow) {
    assert_eq!(
        ask(dataflow, "SELECT id, state FROM gold.orders ORDER BY id"),
        "1,newest\n2,newest\n3,later"
    );
    assert_eq!(
        ask(dataflow, "SELECT id, state FROM gold.firsts ORDER BY id"),
        "1,first\n2,first"
    );
    assert_eq!(
        ask(dataflow, "SELECT odd, day FROM gold.last ORDER BY odd"),
        "0,2026-02-02\n1,2026-02-03"
    );
}

/// Makes the lake claim that it was computed by the present definition, as if a new version of Alluvium read more
/// under the same definition. Then states and tables stand, and letters with them.
fn take_for_its_own(folder: &Folder) {
    let twin = folder.load("twin");
    catch_up(&twin, 1);
    let plan = |lake: &str| {
        let plans = folder.lake(lake).join("_alluvium/plans");
        let mut plans = plans.read_dir().expect("plans are kept");
        let plan = plans.next().expect("there is a plan").expect("a plan").path();
        assert!(plans.next().is_none(), "there is one plan");
        plan
    };
    std::fs::copy(plan("twin"), plan("lake")).expect("the plan is replaced");
}

fn repaired_on_request(name: &str, live: bool) {
    let folder = folder(name);
    records(&folder);
    let dataflow = folder.load("lake");
    assert_eq!(catch_up(&dataflow, 2).rejected, 13);
    define(&folder, WIDE, "BIGINT");
    take_for_its_own(&folder);
    let dataflow = folder.load("lake");
    let before = ask(&dataflow, LETTERS);
    let outcome = catch_up(&dataflow, 1);
    assert_eq!((outcome.replayed, outcome.corrections), (0, Some(vec![])));
    assert_eq!(
        ask(&dataflow, LETTERS),
        before,
        "a restart that replays nothing tries nothing again"
    );
    verifies(&folder, 1);
    let left = "events,4\nfirsts,1\norders,1";
    if live {
        let lake = Lake::open(&dataflow.lake, &dataflow.store_options).expect("the lake");
        let running = Running::start(Arc::clone(&dataflow), 2);
        running.wait_until(|| is_running(&lake) == Some(true));
        let told = replay(&folder, &["--table", "gold.days"]);
        assert!(
            told.contains("events: 6 dead letters tried again, 4 there now"),
            "{told}"
        );
        assert_eq!(ask(&dataflow, BY_INPUT), "events,4\nfirsts,3\norders,4");
        send(
            &folder,
            "events",
            &["\"id\": 8, \"day\": \"2026-02-01\", \"amount\": 80"],
        );
        let told = replay(&folder, &[]);
        for line in ["events: 4", "firsts: 3", "orders: 4"] {
            assert!(told.contains(&format!("{line} dead letters tried again")), "{told}");
        }
        send(
            &folder,
            "events",
            &["\"id\": 9, \"day\": \"01.02.2026\", \"amount\": 90"],
        );
        running.wait_until(|| ask(&dataflow, "SELECT COUNT(*) FROM silver.events WHERE id > 7") == "2");
        running.stop();
    } else {
        let told = replay(&folder, &["-w", "2"]);
        assert!(told.contains("no run is on the lake"), "{told}");
        assert!(
            told.contains("events: 6 dead letters tried again, 4 there now"),
            "{told}"
        );
        assert!(
            told.contains("orders: 4 dead letters tried again, 1 there now"),
            "{told}"
        );
    }
    verifies(&folder, 0);
    assert_newest_is_exact(&dataflow, "tried again");
    assert_repaired(&dataflow);
    let after = ask(&dataflow, LETTERS);
    assert!(
        after.lines().all(|letter| before.contains(letter)),
        "{after}\n\nof\n\n{before}"
    );
    assert_eq!(ask(&dataflow, BY_INPUT), left);
    // Another replay changes nothing, and neither do restarts.
    replay(&folder, &[]);
    assert_eq!(ask(&dataflow, LETTERS), after);
    for workers in [1, 3] {
        let outcome = catch_up(&dataflow, workers);
        assert_eq!((outcome.replayed, outcome.corrections), (0, Some(vec![])));
        assert_eq!(ask(&dataflow, LETTERS), after);
    }
    assert_eq!(recompute(&dataflow, 2).corrections, Some(vec![]));
    assert_eq!(ask(&dataflow, LETTERS), after);
}

#[test]
fn letters_that_pass_now_go_beside_a_run() {
    repaired_on_request("beside", true);
}

#[test]
fn letters_that_pass_now_go_without_a_run() {
    repaired_on_request("without", false);
}

/// Rows that break an expectation, and records of the past that a new definition refuses, were reported as "no new
/// dead letters".
#[test]
fn a_runs_summary_counts_letters_of_rows_and_of_the_past() {
    let folder = Folder::new("summary", &[]);
    let define = |columns: &str| {
        let feed = "[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n";
        folder.write("inputs/m.toml", &format!("[columns]\na = \"INT\"\n{columns}\n{feed}"));
    };
    define("b = \"VARCHAR\"");
    folder.write("silver/t.sql", "SELECT a FROM m");
    let expected = "[expect.small]\ncheck = \"a < 5\"\non_violation = \"drop\"\n";
    folder.write("silver/t.toml", expected);
    let run = || text(&alluvium(&["run", ".", "--until-caught-up"], folder.path()));
    folder.write("drops/1.csv", "a,b\n1,x\n2,7\n8,7\n9,7\n");
    let told = run();
    assert!(told.contains("new dead letters: 2 rows;"), "{told}");
    folder.write("drops/2.csv", "a,b\n7,9\nx,9\n");
    let told = run();
    assert!(told.contains("new dead letters: 1 record, 1 row;"), "{told}");
    define("b = \"INT\"");
    let told = run();
    assert!(told.contains("new dead letters: 1 record;"), "{told}");
    let told = run();
    assert!(told.contains("no new dead letters;"), "{told}");
}

/// The error told only how many rows break the expectation.
#[test]
fn an_expectation_that_must_hold_names_a_row_that_breaks_it() {
    let folder = Folder::new("must-hold", &[]);
    let feed = "[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n";
    folder.write(
        "inputs/m.toml",
        &format!("[columns]\na = \"INT\"\nb = \"VARCHAR\"\n{feed}"),
    );
    folder.write("silver/t.sql", "SELECT a, b FROM m");
    folder.write(
        "silver/t.toml",
        "[expect.small]\ncheck = \"a < 5\"\non_violation = \"fail\"\n",
    );
    folder.write("drops/1.csv", "a,b\n1,x\n9,seven\n");
    let output = alluvium(&["run", ".", "--until-caught-up"], folder.path());
    exits(&output, 1);
    let told = text(&output);
    let row = r#"expectation "small" of silver.t violated, which must hold, by 1 row(s), such as {"a":9,"b":"seven"}"#;
    assert!(told.contains(row), "{told}");
}

/// Nothing told how many rows violate an expectation that only warns, though the documentation says they are counted.
#[test]
fn an_expectation_that_warns_is_in_the_summary() {
    let folder = Folder::new("warned", &[]);
    let feed = "[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n";
    folder.write("inputs/m.toml", &format!("[columns]\na = \"INT\"\n{feed}"));
    folder.write("silver/t.sql", "SELECT a FROM m");
    folder.write(
        "silver/t.toml",
        "[expect.small]\ncheck = \"a < 5\"\n[expect.positive]\ncheck = \"a > 0\"\n",
    );
    folder.write("drops/1.csv", "a\n1\n2\n8\n9\n");
    let told = text(&alluvium(&["run", ".", "--until-caught-up"], folder.path()));
    assert!(
        told.contains(r#"silver.t: 2 rows of this run violate expectation "small""#),
        "{told}"
    );
    assert!(!told.contains("positive"), "{told}");
}
