//! Tests the exact text of each refusal.

use std::path::PathBuf;

use super::fixture::{dataflow, golden, table};
use crate::definition::{Diagnostics, Expectation, Layer, OnViolation, Table};
use crate::plan::compile;
use crate::testing::checkout;

fn mistakes(tables: Vec<Table>) -> Diagnostics {
    match compile(&dataflow(tables)) {
        Ok(graph) => panic!("it was planned:\n{}", graph.explain(None)),
        Err(diagnostics) => diagnostics,
    }
}

#[test]
fn every_refusal_names_construct_place_and_remedy() {
    let cases = std::fs::read_to_string(checkout().join("src/plan/tests/refusals.txt")).unwrap();
    let mut seen = 0;
    let mut actual = String::new();
    for case in cases.split("\n\n").filter(|c| !c.trim().is_empty()) {
        let sql = case.split("\n--> ").next().unwrap().trim_end();
        let said = match compile(&dataflow(vec![table(Layer::Gold, "t", sql)])) {
            Ok(_) => "it is planned".to_string(),
            Err(diagnostics) => diagnostics.to_string(),
        };
        // Words that only code has, and that no message may have.
        for code in [
            "Span(",
            "Ident",
            "Some(",
            "__",
            "sqltorel",
            "infix",
            "UserDefined",
            "nternal error",
            "Overflow",
        ] {
            assert!(!said.contains(code), "{sql}\n{said}");
        }
        actual.push_str(&format!("{sql}\n--> {said}\n\n"));
        seen += 1;
    }
    golden("refusals.txt", &actual);
    assert!(!actual.contains("--> it is planned"), "{actual}");
    assert!(seen >= 25);
}

#[test]
fn mistakes_of_all_tables_show_in_one_run_but_echoes_do_not() {
    let said = mistakes(vec![
        table(Layer::Silver, "a", "SELECT idd FROM orders"),
        table(Layer::Silver, "b", "SELECT id FROM silver.a"),
        table(Layer::Gold, "c", "SELECT nothing FROM silver.b"),
        table(Layer::Gold, "d", "SELECT id\nFROM ordres"),
    ]);
    let files: Vec<String> = said
        .0
        .iter()
        .map(|d| format!("{}:{}:{}", d.file.display(), d.line, d.column))
        .collect();
    assert_eq!(files, vec!["silver/a.sql:1:8", "gold/d.sql:2:6"]);
}

#[test]
fn settings_that_name_no_column_point_to_the_settings_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("gold")).unwrap();
    let settings = "key = [\"idd\"]\npartition_by = [\"day\"]\n\n[expect.positive]\ncheck = \"quantty > 0\"\n\n[expect.text]\ncheck = \"customer\"\n";
    std::fs::write(folder.path().join("gold/t.toml"), settings).unwrap();
    let expectation = |name: &str, check: &str| Expectation {
        name: name.to_string(),
        check: check.to_string(),
        on_violation: OnViolation::Drop,
    };
    let mut t = table(Layer::Gold, "t", "SELECT id, customer, quantity FROM orders");
    t.settings_file = Some(PathBuf::from("gold/t.toml"));
    t.key = vec!["idd".to_string()];
    t.partition_by = vec!["day".to_string()];
    t.expectations = vec![
        expectation("positive", "quantty > 0"),
        expectation("text", "customer"),
        expectation("clock", "now() > TIMESTAMP '2025-01-01'"),
    ];
    let mut flow = dataflow(vec![t]);
    flow.folder = folder.path().to_path_buf();
    let Err(said) = compile(&flow) else {
        panic!("it was planned")
    };
    golden("settings.txt", &said.to_string());
}

/// Formerly a table partitioned by a list was planned, and its run ended at the first row.
#[test]
fn columns_that_cannot_partition_a_table_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("gold")).unwrap();
    let cases = [
        (
            "SELECT id, [customer] AS names FROM orders",
            vec!["names"],
            "the nested column \"names\"",
        ),
        (
            "SELECT id, CAST(customer AS BYTEA) AS raw FROM orders",
            vec!["raw"],
            "the binary column \"raw\"",
        ),
        (
            "SELECT id, customer FROM orders",
            vec!["id", "id"],
            "the column \"id\" twice",
        ),
        ("SELECT id, customer FROM orders", vec!["id", "customer"], "all columns"),
    ];
    for (sql, columns, words) in cases {
        std::fs::write(folder.path().join("gold/t.toml"), "key = []\npartition_by = []\n").unwrap();
        let mut t = table(Layer::Gold, "t", sql);
        t.settings_file = Some(PathBuf::from("gold/t.toml"));
        t.partition_by = columns.into_iter().map(String::from).collect();
        let mut dataflow = dataflow(vec![t]);
        dataflow.folder = folder.path().to_path_buf();
        let Err(said) = compile(&dataflow) else {
            panic!("{words}")
        };
        let said = said.to_string();
        assert!(
            said.starts_with(&format!("gold/t.toml:2: could not partition by {words}")),
            "{said}"
        );
    }
}
