//! Tests changed definitions: a run does what `plan` announced, and recomputes no more than what depends on the
//! change.

use std::sync::Arc;

use alluvium::definition::Dataflow;
use alluvium::run::{self, Options, PartStanding, PlanReport, RunOutcome};

use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up, chain, recompute};

const COLUMNS: &str = "id = { type = \"BIGINT\", nullable = false }\ncustomer = \"VARCHAR\"\namount = \"BIGINT\"\n";

fn input(settings: &str, columns: &str) -> String {
    format!(
        "{settings}[columns]\n{columns}[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n"
    )
}

/// Keyed orders, and clicks, each with a Silver and a Gold table.
fn shop(name: &str) -> Folder {
    let folder = Folder::new(name, &[]);
    folder.write("inputs/orders.toml", &input("key = [\"id\"]\n", COLUMNS));
    folder.write(
        "inputs/clicks.toml",
        &input("", COLUMNS).replace("\"live\"\nformat", "\"clicked\"\nformat"),
    );
    folder.write("silver/orders.sql", "SELECT id, customer, amount FROM orders");
    folder.write(
        "silver/clicks.sql",
        "SELECT id, customer, amount FROM clicks WHERE amount > 0",
    );
    folder.write(
        "gold/spent.sql",
        "SELECT customer, SUM(amount) AS amount FROM silver.orders GROUP BY customer",
    );
    folder.write(
        "gold/clicked.sql",
        "SELECT customer, COUNT(*) AS n, SUM(amount) AS amount FROM silver.clicks GROUP BY customer",
    );
    append(&folder, 0..10);
    folder
}

/// Appends a version of each order, and as many clicks. The records have the field `note` from the start.
fn append(folder: &Folder, ids: std::ops::Range<i64>) {
    for id in ids {
        let value = format!(
            "{{\"id\": {id}, \"customer\": \"c{}\", \"amount\": {}, \"note\": \"n{}\"}}",
            id % 3,
            id - 1,
            id % 2
        );
        let line = format!("{{\"key\": {{\"id\": {id}}}, \"value\": {value}}}\n");
        folder.append("live/0.ndjson", &line);
        folder.append("clicked/0.ndjson", &line);
    }
}

/// Plans, and then runs; asserts that the run does what the plan says.
fn change(folder: &Folder, workers: usize) -> (PlanReport, RunOutcome, Arc<Dataflow>) {
    let dataflow = folder.load("lake");
    let plan = run::plan(dataflow.clone(), false).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let outcome = catch_up(&dataflow, workers);
    assert_eq!(plan.replayed, outcome.replayed, "{plan:#?}");
    assert_eq!(plan.loaded, outcome.loaded, "{plan:#?}");
    assert_newest_is_exact(&dataflow, "behind a change");
    assert_eq!(
        recompute(&dataflow, 1).corrections,
        Some(vec![]),
        "made again from Bronze"
    );
    (plan, outcome, dataflow)
}

fn standing(plan: &PlanReport, name: &str) -> PartStanding {
    let part = plan.parts.iter().find(|part| part.name == name && part.kind != "state");
    part.unwrap_or_else(|| panic!("{name} is not in {plan:#?}")).standing
}

fn does<'a>(plan: &'a PlanReport, name: &str) -> &'a str {
    let part = plan.parts.iter().find(|part| part.name == name && part.kind != "state");
    &part.unwrap_or_else(|| panic!("{name} is not in {plan:#?}")).does
}

#[test]
fn nothing_is_made_again_for_nothing() {
    let folder = shop("unchanged");
    let dataflow = folder.load("lake");
    let new = run::plan(dataflow.clone(), false).expect("a plan of a new lake");
    assert!(new.epoch.is_none() && new.parts.iter().all(|part| part.standing == PartStanding::New));
    assert_eq!((catch_up(&dataflow, 2).records, new.replayed), (20, 0));
    let (plan, outcome, _) = change(&folder, 3);
    // It loads ten orders, and the sums of three customers.
    assert_eq!(
        (outcome.loaded, outcome.replayed, outcome.corrections),
        (13, 0, Some(vec![]))
    );
    assert!(
        plan.parts.iter().all(|part| part.standing == PartStanding::Unchanged),
        "{plan:#?}"
    );
    assert_eq!((plan.operators.1.len(), plan.operators.2.len()), (0, 0), "{plan:#?}");
    assert_eq!(does(&plan, "silver.clicks"), "its 8 rows stand as they are");
    // With as many workers as before nothing changes, so there is no new snapshot to report.
    assert_eq!(catch_up(&folder.load("lake"), 1).snapshot, 0);
    // The run continues from there.
    append(&folder, 5..12);
    let (_, outcome, dataflow) = change(&folder, 1);
    assert_eq!((outcome.records, outcome.corrections), (14, Some(vec![])));
    assert_eq!(ask(&dataflow, "SELECT SUM(n), SUM(amount) FROM gold.clicked"), "15,85");
}

/// While an input is out of the definition, its Bronze table is in no snapshot, and its feeds' positions stay. When it
/// came back, its past was lost.
#[test]
fn an_input_that_comes_back_has_its_past() {
    let folder = shop("returned");
    catch_up(&folder.load("lake"), 2);
    let files = ["inputs/clicks.toml", "silver/clicks.sql", "gold/clicked.sql"];
    let contents = files.map(|file| {
        let path = folder.path().join(file);
        let content = std::fs::read_to_string(&path).expect("it was written");
        std::fs::remove_file(path).expect("it is there");
        content
    });
    append(&folder, 10..12);
    let without = folder.load("lake");
    assert_eq!(catch_up(&without, 1).records, 2);
    assert_newest_is_exact(&without, "without the input");
    for (file, content) in files.iter().zip(&contents) {
        folder.write(file, content);
    }
    let (_, outcome, dataflow) = change(&folder, 2);
    assert_eq!(outcome.replayed, 10);
    assert_eq!(ask(&dataflow, "SELECT SUM(n), SUM(amount) FROM gold.clicked"), "10,55");
}

/// A table that comes back with the rows that it has to have was in no snapshot until something changed.
#[test]
fn a_table_that_comes_back_unchanged_is_in_a_snapshot() {
    let folder = shop("renamed");
    catch_up(&folder.load("lake"), 2);
    let rename = |from: &str, to: &str| {
        let path = |name: &str| folder.path().join(format!("gold/{name}.sql"));
        std::fs::rename(path(from), path(to)).expect("the table's file");
    };
    let sql = |table: &str| format!("SELECT SUM(amount) FROM gold.{table}");
    rename("spent", "paid");
    let (_, _, dataflow) = change(&folder, 1);
    assert_eq!(ask(&dataflow, &sql("paid")), "35");
    rename("paid", "spent");
    let (_, _, dataflow) = change(&folder, 2);
    assert_eq!(ask(&dataflow, &sql("spent")), "35");
}

/// Every row was there twice.
#[test]
fn a_lake_whose_ledger_is_gone_is_refused() {
    let folder = shop("reset");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    std::fs::remove_dir_all(folder.lake("lake").join("_alluvium")).expect("the ledger's folder");
    let refused = run::run(dataflow, &Options::default()).expect_err("a run over tables without a ledger");
    let refused = chain(&refused);
    assert!(
        refused.contains("_alluvium, are gone") && refused.contains("new lake"),
        "{refused}"
    );
}

#[test]
fn a_changed_table_is_made_of_what_it_reads() {
    let folder = shop("changed");
    catch_up(&folder.load("lake"), 2);
    // An aggregate that cannot be summed up reads the rows of the unchanged table.
    folder.write(
        "gold/clicked.sql",
        "SELECT customer, COUNT(*) AS n, MAX(amount) AS amount FROM silver.clicks GROUP BY customer",
    );
    let (plan, outcome, dataflow) = change(&folder, 2);
    assert_eq!(standing(&plan, "gold.clicked"), PartStanding::Changed);
    assert_eq!(standing(&plan, "gold.spent"), PartStanding::Unchanged);
    assert_eq!((outcome.loaded, outcome.replayed), (10 + 8, 0), "{plan:#?}");
    assert_eq!(ask(&dataflow, "SELECT SUM(n), SUM(amount) FROM gold.clicked"), "8,21");
    assert_eq!(plan.operators.2.len(), 1, "{plan:#?}");
    // A changed Silver table over events is recomputed from Bronze; what depends only on orders is not.
    folder.write(
        "silver/clicks.sql",
        "SELECT id, customer, amount FROM clicks WHERE amount > 1",
    );
    let (plan, outcome, _) = change(&folder, 1);
    assert_eq!(standing(&plan, "silver.clicks"), PartStanding::Changed);
    assert_eq!((outcome.loaded, outcome.replayed), (10, 10), "{plan:#?}");
    // One table is added, and another is removed.
    folder.write(
        "gold/spent_twice.sql",
        "SELECT customer, amount * 2 AS amount FROM gold.spent",
    );
    std::fs::remove_file(folder.path().join("gold/clicked.sql")).expect("the table is defined");
    let (plan, outcome, dataflow) = change(&folder, 2);
    assert_eq!(standing(&plan, "gold.spent_twice"), PartStanding::New);
    assert_eq!(standing(&plan, "gold.clicked"), PartStanding::Gone);
    assert_eq!(does(&plan, "gold.clicked"), "is left in the lake, as gold/clicked");
    assert_eq!((outcome.loaded, outcome.replayed), (10, 0), "{plan:#?}");
    assert!(folder.lake("lake").join("gold/clicked/_delta_log").is_dir());
    assert_eq!(ask(&dataflow, "SELECT SUM(amount) FROM gold.spent_twice"), "70");
    // The removed table comes back, with the content that it would have had all along.
    append(&folder, 20..23);
    catch_up(&dataflow, 1);
    folder.write(
        "gold/clicked.sql",
        "SELECT customer, COUNT(*) AS n, SUM(amount) AS amount FROM silver.clicks GROUP BY customer",
    );
    let (_, outcome, dataflow) = change(&folder, 3);
    assert_eq!(outcome.replayed, 0);
    assert_eq!(ask(&dataflow, "SELECT SUM(n) FROM gold.clicked"), "10");
}

#[test]
fn a_nullable_column_replays_nothing_that_does_not_use_it() {
    let folder = shop("columns");
    catch_up(&folder.load("lake"), 2);
    let with_note = COLUMNS.replace("customer =", "note = \"VARCHAR\"\ncustomer =");
    folder.write("inputs/orders.toml", &input("key = [\"id\"]\n", &with_note));
    folder.write(
        "inputs/clicks.toml",
        &input("", &with_note).replace("\"live\"\nformat", "\"clicked\"\nformat"),
    );
    let (plan, outcome, _) = change(&folder, 2);
    assert_eq!(
        (outcome.loaded, outcome.replayed, outcome.corrections),
        (13, 0, Some(vec![]))
    );
    assert!(
        plan.parts.iter().all(|part| part.standing == PartStanding::Unchanged),
        "{plan:#?}"
    );
    assert!(does(&plan, "orders").contains("new form"), "{plan:#?}");
    // Orders change in the new form, and are loaded in it.
    append(&folder, 8..12);
    let dataflow = folder.load("lake");
    assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]));
    let (plan, outcome, _) = change(&folder, 3);
    assert_eq!((outcome.loaded, outcome.replayed), (12 + 6, 0), "{plan:#?}");
    // `change` has recomputed everything, so every order has its note by now, and a table that uses it replays
    // nothing.
    folder.write("silver/orders.sql", "SELECT id, note, customer, amount FROM orders");
    let (plan, outcome, dataflow) = change(&folder, 2);
    assert_eq!(outcome.replayed, 0, "{plan:#?}");
    assert!(
        does(&plan, "silver.orders").contains("column note is added"),
        "{plan:#?}"
    );
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(note), COUNT(DISTINCT note) FROM silver.orders"),
        "12,2"
    );
}

#[test]
fn a_column_that_rows_in_the_lake_lack_is_replayed_for_who_asks_for_it() {
    let folder = shop("noted");
    catch_up(&folder.load("lake"), 2);
    let with_note = format!("{COLUMNS}note = \"VARCHAR\"\n");
    folder.write("inputs/orders.toml", &input("key = [\"id\"]\n", &with_note));
    let dataflow = folder.load("lake");
    assert_eq!(catch_up(&dataflow, 1).replayed, 0);
    append(&folder, 8..12);
    assert_eq!(catch_up(&dataflow, 2).replayed, 0);
    folder.write("gold/noted.sql", "SELECT note, COUNT(*) AS n FROM orders GROUP BY note");
    let (plan, outcome, dataflow) = change(&folder, 2);
    assert_eq!(outcome.replayed, 14, "the orders, not the clicks: {plan:#?}");
    assert_eq!(
        ask(&dataflow, "SELECT note, n FROM gold.noted ORDER BY note"),
        "n0,6\nn1,6"
    );
    // A column that must not be null needs values too; so does a column with another source field.
    let required = format!("{with_note}extra = {{ type = \"VARCHAR\", nullable = false, from = \"note\" }}\n");
    folder.write("inputs/orders.toml", &input("key = [\"id\"]\n", &required));
    assert_eq!(change(&folder, 1).1.replayed, 14);
    let otherwise = required.replace("amount = \"BIGINT\"", "amount = { type = \"BIGINT\", from = \"id\" }");
    folder.write("inputs/orders.toml", &input("key = [\"id\"]\n", &otherwise));
    let (plan, outcome, _) = change(&folder, 2);
    assert_eq!(
        (standing(&plan, "orders"), outcome.replayed),
        (PartStanding::Changed, 14)
    );
}

#[test]
fn letters_of_what_is_not_made_again_stay() {
    let folder = shop("lettered");
    folder.write(
        "silver/clicks.toml",
        "[expect.small]\ncheck = \"amount < 7\"\non_violation = \"drop\"\n",
    );
    folder.append("clicked/0.ndjson", "{\"value\": {\"id\": \"no number\"}}\n");
    folder.append("live/0.ndjson", "{\"value\": {\"id\": \"no number\"}}\n");
    // This cast fails before the sums.
    folder.write(
        "gold/numbers.sql",
        "SELECT COUNT(*) AS n, SUM(CAST(substr(customer, 2) AS BIGINT)) AS s FROM clicks",
    );
    folder.append(
        "clicked/0.ndjson",
        "{\"value\": {\"id\": 1, \"customer\": \"cx\", \"amount\": 1}}\n",
    );
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    let letters =
        "SELECT kind, input, table_name, \"offset\", reason, payload, epoch FROM dead_letters ORDER BY 1, 2, 3, 6";
    let before = ask(&dataflow, letters);
    // The letters are two records, two rows that break an expectation, one row that does not evaluate, and its group.
    assert_eq!(before.lines().count(), 6, "{before}");
    for workers in [1, 3] {
        let outcome = catch_up(&dataflow, workers);
        assert_eq!((outcome.replayed, outcome.corrections), (0, Some(vec![])));
        assert_eq!(ask(&dataflow, letters), before);
    }
    assert_eq!(recompute(&dataflow, 2).corrections, Some(vec![]));
    assert_eq!(ask(&dataflow, letters), before);
    assert_newest_is_exact(&dataflow, "with letters");
}
