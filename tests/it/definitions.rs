//! Changed definitions: what `plan` says before is what a run then does, and no more is made again than depends on the
//! change.

use std::sync::Arc;

use alluvium::definition::Dataflow;
use alluvium::run::{self, Outcome, PlanReport, Standing};

use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up, chain, recompute};

const COLUMNS: &str = "id = { type = \"BIGINT\", nullable = false }\ncustomer = \"VARCHAR\"\namount = \"BIGINT\"\n";

fn input(settings: &str, columns: &str) -> String {
    format!(
        "{settings}[columns]\n{columns}[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n"
    )
}

/// Keyed orders and clicks, a Silver and a Gold table of each.
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

/// A version of each order, and as many clicks. The field `note` is there from the start.
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

/// What `plan` says, and then a run that does it.
fn change(folder: &Folder, workers: usize) -> (PlanReport, Outcome, Arc<Dataflow>) {
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

fn standing(plan: &PlanReport, name: &str) -> Standing {
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
    assert!(new.epoch.is_none() && new.parts.iter().all(|part| part.standing == Standing::New));
    assert_eq!((catch_up(&dataflow, 2).records, new.replayed), (20, 0));
    let (plan, outcome, _) = change(&folder, 3);
    // Ten orders and the sums of three customers.
    assert_eq!(
        (outcome.loaded, outcome.replayed, outcome.corrections),
        (13, 0, Some(vec![]))
    );
    assert!(
        plan.parts.iter().all(|part| part.standing == Standing::Unchanged),
        "{plan:#?}"
    );
    assert_eq!((plan.operators.1.len(), plan.operators.2.len()), (0, 0), "{plan:#?}");
    assert_eq!(does(&plan, "silver.clicks"), "its 8 rows stand as they are");
    // Nothing changes with as many workers as before: there is no new snapshot, and none is told.
    assert_eq!(catch_up(&folder.load("lake"), 1).snapshot, 0);
    // And on from there.
    append(&folder, 5..12);
    let (_, outcome, dataflow) = change(&folder, 1);
    assert_eq!((outcome.records, outcome.corrections), (14, Some(vec![])));
    assert_eq!(ask(&dataflow, "SELECT SUM(n), SUM(amount) FROM gold.clicked"), "15,85");
}

#[test]
fn a_changed_table_is_made_of_what_it_reads() {
    let folder = shop("changed");
    catch_up(&folder.load("lake"), 2);
    // An aggregate that does not add up reads the rows of the table that stands.
    folder.write(
        "gold/clicked.sql",
        "SELECT customer, COUNT(*) AS n, MAX(amount) AS amount FROM silver.clicks GROUP BY customer",
    );
    let (plan, outcome, dataflow) = change(&folder, 2);
    assert_eq!(standing(&plan, "gold.clicked"), Standing::Changed);
    assert_eq!(standing(&plan, "gold.spent"), Standing::Unchanged);
    assert_eq!((outcome.loaded, outcome.replayed), (10 + 8, 0), "{plan:#?}");
    assert_eq!(ask(&dataflow, "SELECT SUM(n), SUM(amount) FROM gold.clicked"), "8,21");
    assert_eq!(plan.operators.2.len(), 1, "{plan:#?}");
    // A changed Silver table over events is made of Bronze; what only orders make is not.
    folder.write(
        "silver/clicks.sql",
        "SELECT id, customer, amount FROM clicks WHERE amount > 1",
    );
    let (plan, outcome, _) = change(&folder, 1);
    assert_eq!(standing(&plan, "silver.clicks"), Standing::Changed);
    assert_eq!((outcome.loaded, outcome.replayed), (10, 10), "{plan:#?}");
    // A new table beside, a table that goes.
    folder.write(
        "gold/spent_twice.sql",
        "SELECT customer, amount * 2 AS amount FROM gold.spent",
    );
    std::fs::remove_file(folder.path().join("gold/clicked.sql")).expect("the table is defined");
    let (plan, outcome, dataflow) = change(&folder, 2);
    assert_eq!(standing(&plan, "gold.spent_twice"), Standing::New);
    assert_eq!(standing(&plan, "gold.clicked"), Standing::Gone);
    assert_eq!(does(&plan, "gold.clicked"), "is left in the lake, as gold/clicked");
    assert_eq!((outcome.loaded, outcome.replayed), (10, 0), "{plan:#?}");
    assert!(folder.lake("lake").join("gold/clicked/_delta_log").is_dir());
    assert_eq!(ask(&dataflow, "SELECT SUM(amount) FROM gold.spent_twice"), "70");
    // It comes back, and is what it would be had it never been away.
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
        plan.parts.iter().all(|part| part.standing == Standing::Unchanged),
        "{plan:#?}"
    );
    assert!(does(&plan, "orders").contains("new form"), "{plan:#?}");
    // Orders change in the new form, and are loaded in it.
    append(&folder, 8..12);
    let dataflow = folder.load("lake");
    assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]));
    let (plan, outcome, _) = change(&folder, 3);
    assert_eq!((outcome.loaded, outcome.replayed), (12 + 6, 0), "{plan:#?}");
    // `change` has made all again, so every order has its note by now: who asks for it replays nothing.
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
    // A column that may not be null asks for its values as well; so does another reading of a column.
    let required = format!("{with_note}extra = {{ type = \"VARCHAR\", nullable = false, from = \"note\" }}\n");
    folder.write("inputs/orders.toml", &input("key = [\"id\"]\n", &required));
    assert_eq!(change(&folder, 1).1.replayed, 14);
    let otherwise = required.replace("amount = \"BIGINT\"", "amount = { type = \"BIGINT\", from = \"id\" }");
    folder.write("inputs/orders.toml", &input("key = [\"id\"]\n", &otherwise));
    let (plan, outcome, _) = change(&folder, 2);
    assert_eq!((standing(&plan, "orders"), outcome.replayed), (Standing::Changed, 14));
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
    // An error in front of sums: a cast.
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
    // Two records, two rows that break an expectation, one that does not evaluate, and its group.
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
