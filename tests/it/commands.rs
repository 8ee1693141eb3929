//! Tests the binary as a user or a script experiences it: exit codes, messages, and the first hour with a new
//! dataflow.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::Folder;
use crate::testing::checkout;

pub fn alluvium(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the binary runs")
}

pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
pub fn exits(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
}

#[test]
fn a_new_dataflow_runs_answers_and_passes_its_own_test() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    exits(&alluvium(&["init", "shop"], at), 0);
    exits(&alluvium(&["check", "shop"], at), 0);
    exits(&alluvium(&["query", "shop", "SELECT 1"], at), 1);
    exits(&alluvium(&["run", "shop", "--until-caught-up"], at), 0);
    exits(&alluvium(&["verify", "shop"], at), 0);
    exits(&alluvium(&["test", "shop"], at), 0);
    exits(&alluvium(&["explain", "shop"], at), 0);
    exits(&alluvium(&["dead-letters", "shop"], at), 0);
    exits(&alluvium(&["init", "shop"], at), 2);
    exits(&alluvium(&["fly", "shop"], at), 2);

    // Then one Gold file is edited, and the next run recomputes it from Bronze.
    let gold = std::fs::read_dir(at.join("shop/gold"))
        .expect("a Gold folder")
        .flatten()
        .map(|entry| entry.path());
    let sql = gold
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .min()
        .expect("init writes a Gold table");
    let name = format!("gold.{}", sql.file_stem().expect("a name").to_string_lossy());
    let before = alluvium(
        &[
            "query",
            "shop",
            &format!("SELECT COUNT(*) AS n FROM {name}"),
            "--format",
            "csv",
        ],
        at,
    );
    let filtered = format!(
        "SELECT * FROM ({}) WHERE FALSE",
        std::fs::read_to_string(&sql).expect("readable SQL")
    );
    std::fs::write(&sql, filtered).expect("writable SQL");
    exits(&alluvium(&["verify", "shop"], at), 1);
    exits(&alluvium(&["run", "shop", "--until-caught-up", "-w", "2"], at), 0);
    exits(&alluvium(&["verify", "shop"], at), 0);
    let after = alluvium(
        &[
            "query",
            "shop",
            &format!("SELECT COUNT(*) AS n FROM {name}"),
            "--format",
            "csv",
        ],
        at,
    );
    assert_ne!(text(&before), "n\n0\n");
    assert_eq!(String::from_utf8_lossy(&after.stdout), "n\n0\n");
}

/// `query`, `verify` and `dead-letters` created the folder of a lake that no run had made, so a misspelt lake looked
/// empty.
#[test]
fn who_only_reads_makes_no_lake_and_says_what_makes_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    exits(&alluvium(&["init", "shop"], at), 0);
    let untouched = || assert!(!at.join("shop/lake").exists() && !at.join("elsewhere").exists());
    for arguments in [
        &["query", "shop", "SELECT 1"][..],
        &["query", "shop", "SELECT 1", "--lake", "elsewhere/lake"],
        &["verify", "shop"],
        &["dead-letters", "shop"],
        &["dead-letters", "shop", "--replay"],
        &["rebuild", "shop", "--into", "elsewhere/new"],
    ] {
        let asked = alluvium(arguments, at);
        exits(&asked, 1);
        let told = text(&asked);
        assert!(
            told.contains("there is no lake in ") && told.contains("`alluvium run` makes it"),
            "{arguments:?}: {told}"
        );
        untouched();
    }
    for arguments in [&["plan", "shop"][..], &["explain", "shop"], &["check", "shop"]] {
        exits(&alluvium(arguments, at), 0);
        untouched();
    }
}

/// To query a lake, users had to set the passwords of all feeds, and could not query while a table's SQL had a
/// mistake.
#[test]
fn who_only_asks_needs_no_variables_of_feeds_and_no_right_sql() {
    let folder = Folder::new(
        "ask-only",
        &[
            (
                "inputs/n.toml",
                "[columns]\nid = \"BIGINT\"\n[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"${DROPS_OF_FEED:-drops}/*.csv\"\nformat = \"csv\"\n",
            ),
            ("gold/n.sql", "SELECT COUNT(*) AS n FROM n"),
        ],
    );
    folder.write("drops/a.csv", "id\n1\nx\n");
    let at = folder.path();
    exits(
        &alluvium(&["run", ".", "--until-caught-up", "--lake", "lakes/lake"], at),
        0,
    );
    let path = "inputs/n.toml";
    let input = std::fs::read_to_string(at.join(path)).expect("the input's file");
    folder.write(path, &input.replace(":-drops", ""));
    folder.write("gold/n.sql", "SELECT COUNT( AS n FROM n");
    for (arguments, expected) in [
        (&["query", ".", "SELECT n FROM gold.n", "--format", "csv"][..], "n\n1\n"),
        (&["dead-letters", ".", "--format", "csv"], "column \"\"id\"\""),
    ] {
        let asked = alluvium(&[arguments, &["--lake", "lakes/lake"]].concat(), at);
        exits(&asked, 0);
        assert!(text(&asked).contains(expected), "{}", text(&asked));
    }
    let checked = alluvium(&["check", "."], at);
    exits(&checked, 2);
    assert!(
        text(&checked).contains("DROPS_OF_FEED is not set"),
        "{}",
        text(&checked)
    );
    folder.write("dataflow.toml", "name = \"${NAME_OF_DATAFLOW}\"\n");
    let asked = alluvium(&["query", ".", "SELECT 1", "--lake", "lakes/lake"], at);
    exits(&asked, 2);
    assert!(text(&asked).contains("NAME_OF_DATAFLOW is not set"), "{}", text(&asked));
}

/// Asserts that `check` fails, and that its output contains all of `expected`.
#[track_caller]
fn tells(folder: &Folder, expected: &[&str]) {
    let told = alluvium(&["check", "."], folder.path());
    exits(&told, 2);
    let told = text(&told);
    for expected in expected {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }
}

const ORDERS: &str = "[columns]\norder_id = \"BIGINT\"\ncustomer = \"VARCHAR\"\namount = \"DOUBLE\"\nat = \"TIMESTAMP\"\n\
    [[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n";

#[test]
fn mistakes_in_settings_are_told_in_one_run_with_file_line_and_remedy() {
    let folder = Folder::new("mistakes", &[]);
    folder.write(
        "dataflow.toml",
        "name = \"mistakes\"\nlake = \"s4://lake\"\nepok = \"10ms\"\ncommit = \"soon\"\n",
    );
    folder.write(
        "inputs/orders.toml",
        "key = [\"ordr_id\"]\n[columns]\norder_id = \"BIGINTEGER\"\ncustomer = \"VARCHAR\"\namount = \"DOUBLE\"\n\
         [[feeds]]\nname = \"drops\"\nkind = \"flies\"\npath = \"drops/*.csv\"\nformat = \"csv\"\n",
    );
    folder.write(
        "inputs/made.toml",
        "[columns]\na = \"INT\"\n[[feeds]]\nname = \"g\"\nkind = \"generate\"\ngenerator = \"devices.telemtry\"\n\
         [[feeds]]\nname = \"h\"\nkind = \"generate\"\ngenerator = \"retail.products\"\nformat = \"csv\"\nlate = 1.5\n",
    );
    folder.write("gold/a.sql", "SELECT * FROM gold.b");
    folder.write("gold/b.sql", "SELECT * FROM gold.a");
    tells(
        &folder,
        &[
            "dataflow.toml:2:8: bad lake \"s4://lake\": unknown URL scheme \"s4\"\n  help: did you mean \"s3://\"?",
            "dataflow.toml:3:1: unknown setting \"epok\"\n  help: did you mean \"epoch\"?",
            "dataflow.toml:4:10: setting \"commit\" is no duration",
            "inputs/made.toml:6:13: unknown generator \"devices.telemtry\"\n  help: did you mean \"devices.telemetry\"?",
            "inputs/made.toml:12:8: setting \"late\" is a share",
            "inputs/orders.toml:1:8: key names column \"ordr_id\", which does not exist\n  help: did you mean \"order_id\"?",
            "inputs/orders.toml:3:12: unknown type \"BIGINTEGER\"",
            "inputs/orders.toml:8:8: unknown kind of feed \"flies\"\n  help: did you mean \"files\"?",
            "gold/a.sql:1:15: tables read each other in a circle: gold.a -> gold.b -> gold.a",
        ],
    );
}

#[test]
fn mistakes_in_sql_are_told_with_the_word_that_is_wrong_and_what_to_write() {
    let folder = Folder::new("sql", &[("inputs/orders.toml", ORDERS)]);
    for (table, sql) in [
        ("column", "SELECT\n  order_id,\n  amout\nFROM orders"),
        ("table", "SELECT order_id\nFROM ordres"),
        ("chance", "SELECT order_id, random() AS r FROM orders"),
        ("some", "SELECT order_id FROM orders LIMIT 10"),
        ("types", "SELECT order_id\nFROM orders\nWHERE at > 5"),
        ("condition", "SELECT order_id FROM orders WHERE amount"),
        ("call", "SELECT sum(customer) AS s FROM orders"),
        ("syntax", "SELCT order_id FROM orders"),
        ("parenthesis", "SELECT sum(amount FROM orders"),
        ("quotes", "SELECT order_id FROM orders WHERE customer = \"somebody\""),
        ("twice", "SELECT order_id, customer AS order_id FROM orders"),
        ("value", "SELECT order_id FROM orders WHERE at > DATE '2026-13-01'"),
        ("cast", "SELECT CAST(amount AS MONEY) AS m FROM orders"),
        (
            "window",
            "SELECT window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(customer), INTERVAL '1' HOUR)) GROUP BY window_start",
        ),
        (
            "nothing",
            "SELECT window_start, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(at), INTERVAL '0' HOUR)) GROUP BY window_start",
        ),
        ("expected", "SELECT order_id, amount FROM orders"),
    ] {
        folder.write(&format!("gold/{table}.sql"), sql);
    }
    folder.write(
        "gold/expected.toml",
        "[expect.sum]\ncheck = \"sum(amount) > 0\"\non_violation = \"drop\"\n",
    );
    tells(
        &folder,
        &[
            "gold/column.sql:3:3: could not find a column \"amout\"\n  help: did you mean \"amount\"?",
            "gold/table.sql:2:6: could not find a table or input \"ordres\"\n  help: did you mean \"orders\"?",
            "gold/chance.sql:1:18: could not plan random()",
            "gold/some.sql:1:",
            "gold/types.sql:3:10: could not apply > to TIMESTAMP and BIGINT\n  help: cast one side",
            "gold/condition.sql:1:35: could not use amount, a DOUBLE, as a condition\n  help: compare it with something",
            "gold/call.sql:1:8: could not call sum(VARCHAR)\n  help: it takes sum(",
            "gold/syntax.sql:1:1: expected: an SQL statement, found: SELCT\n  help: did you mean SELECT?",
            "gold/parenthesis.sql:1:19: expected: ), found: FROM\n  help: a parenthesis before this place is not closed",
            "gold/quotes.sql:1:46: could not find a column \"somebody\"\n  help: text stands in single quotes: 'somebody'",
            "gold/twice.sql:1:18: could not name two columns \"order_id\"",
            "gold/value.sql:1:45: could not read '2026-13-01' as a DATE",
            "gold/cast.sql:1:23: unsupported SQL type MONEY\n  help: types are BOOLEAN",
            "gold/window.sql:1:68: could not window by a VARCHAR\n  help: name a DATE or TIMESTAMP column",
            "gold/nothing.sql:1:47: could not read the window function: a length must be longer than nothing",
            "gold/expected.toml:2: expectation \"sum\": could not plan sum() here",
        ],
    );
}

/// `check` accepted a change data feed with two columns of one name, and the run wrote a table that no engine reads.
#[test]
fn columns_that_a_change_data_feed_adds_itself_are_refused() {
    let folder = Folder::new("feed", &[("inputs/orders.toml", ORDERS)]);
    for name in ["_change_type", "_commit_version", "_COMMIT_timestamp"] {
        folder.write(
            "silver/t.sql",
            &format!("SELECT order_id, amount AS \"{name}\" FROM orders"),
        );
        folder.write("silver/t.toml", "deletes = \"auto\"\nchange_data_feed = true\n");
        let told = format!("could not write a change data feed of a table with the column {name:?}");
        tells(&folder, &[&format!("silver/t.toml:2: {told}")]);
        folder.write("silver/t.toml", "change_data_feed = false\n");
        exits(&alluvium(&["check", "."], folder.path()), 0);
    }
}

#[test]
fn a_mistake_in_one_file_hides_none_in_another() {
    let folder = Folder::new("all", &[("inputs/orders.toml", ORDERS)]);
    folder.write("dataflow.toml", "name = \"all\"\ncomit = \"1s\"\n");
    folder.write("inputs/broken.toml", &ORDERS.replace("\"DOUBLE\"", "\"DUBLE\""));
    folder.write("silver/lines.sql", "SELECT amount, nothing FROM broken");
    folder.write("silver/orders.sql", "SELECT order_id, customr FROM orders");
    folder.write("gold/echo.sql", "SELECT nothing FROM silver.orders");
    folder.write("gold/sums.sql", "SELECT SUM(amount) AS amount FROM orders");
    folder.write("tests/first/inputs/orders.csv", "order_id\n1\n");
    folder.write("tests/first/expect/gold.other.csv", "amount\n1\n");
    let told = text(&alluvium(&["check", "."], folder.path()));
    let files: Vec<&str> = told.lines().filter(|line| !line.starts_with(' ')).collect();
    let starts = |n: usize, expected: &str| assert!(files[n].starts_with(expected), "{expected}: {told}");
    starts(0, "dataflow.toml:2:1: unknown setting \"comit\"");
    starts(1, "inputs/broken.toml:4:10: unknown type \"DUBLE\"");
    starts(2, "silver/orders.sql:1:18: could not find a column \"customr\"");
    starts(3, "tests/first/expect/gold.other.csv: unknown table gold.other");
    assert_eq!(
        files[4..],
        ["4 mistakes"],
        "what reads something broken is not told as well: {told}"
    );

    folder.write("dataflow.toml", "name = \"all\"\n");
    folder.write("inputs/broken.toml", ORDERS);
    folder.write("silver/lines.sql", "SELECT amount FROM broken");
    folder.write("silver/orders.sql", "SELECT order_id, customer FROM orders");
    folder.write("gold/echo.sql", "SELECT customer FROM silver.orders");
    std::fs::remove_file(folder.path().join("tests/first/expect/gold.other.csv")).expect("it is there");
    folder.write("tests/first/expect/gold.sums.csv", "amont\n1\n");
    tells(
        &folder,
        &["gold.sums.csv:1: gold.sums has no column \"amont\"\n  help: did you mean \"amount\"? columns are amount"],
    );
}

#[test]
fn the_examples_pass_their_own_tests() {
    let root = &checkout();
    for example in ["retail", "devices", "logistics"] {
        let tested = alluvium(&["test", &format!("dataflows/{example}")], root);
        exits(&tested, 0);
        assert!(text(&tested).contains("0 failed"), "{}", text(&tested));
    }
}

#[test]
fn the_devices_example_shows_something_within_seconds_and_goes_on_where_it_was() {
    let root = &checkout();
    let lake = tempfile::tempdir().expect("a temporary folder");
    let lake = lake.path().display().to_string();
    let devices = |arguments: &[&str]| {
        let done = alluvium(
            &[
                &[arguments[0], "dataflows/devices"],
                &arguments[1..],
                &["--lake", &lake],
            ]
            .concat(),
            root,
        );
        exits(&done, 0);
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let readings = || {
        let counted = devices(&[
            "query",
            "SELECT SUM(readings) FROM gold.device_minute",
            "--format",
            "csv",
        ]);
        let count = counted.lines().nth(1).and_then(|line| line.parse::<u64>().ok());
        count.unwrap_or_else(|| panic!("no count: {counted}"))
    };
    devices(&["run", "--for", "4s"]);
    let first = readings();
    assert!(first > 200, "{first} readings in some seconds at 500 a second");
    devices(&["run", "--for", "4s", "-w", "2"]);
    assert!(readings() > first, "the generator goes on where it was");
    devices(&["verify"]);
    let alerts = devices(&["query", "SELECT COUNT(*) AS n FROM gold.alerts", "--format", "csv"]);
    assert_ne!(alerts, "n\n0\n");
}
