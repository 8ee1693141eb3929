//! A dataflow's own tests.

use super::*;

fn with_cases() -> Folder {
    Folder::good()
        .with("tests/one/inputs/orders.csv", "id,at\n1,2026-01-01T00:00:00\n")
        .with("tests/one/expect/silver.orders.csv", "id,at\n1,2026-01-01T00:00:00\n")
        .with("tests/steps/1/inputs/orders.ndjson", "")
        .with("tests/steps/2/expect/silver.orders.csv", "id,at\n")
        .with("tests/steps/10/inputs/orders.csv", "id,at\n")
}

#[test]
fn own_tests_are_found_with_their_steps_and_files() {
    let mut folder = with_cases();
    let last = folder.0.remove("tests/steps/10/inputs/orders.csv").expect("a step");
    let scratch = folder.with("tests/steps/3/inputs/orders.csv", &last).write();
    let cases = cases(scratch.path()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(
        cases.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["one", "steps"]
    );
    assert_eq!(
        cases[0].steps,
        [CaseStep {
            number: 1,
            inputs: vec![CaseInput {
                path: scratch.path().join("tests/one/inputs/orders.csv"),
                input: "orders".to_string(),
                format: Format::Csv,
            }],
            expect: vec![ExpectedTable {
                path: scratch.path().join("tests/one/expect/silver.orders.csv"),
                layer: Layer::Silver,
                table: "orders".to_string(),
            }],
        }]
    );
    let counts: Vec<(usize, usize, usize)> = cases[1]
        .steps
        .iter()
        .map(|step| (step.number, step.inputs.len(), step.expect.len()))
        .collect();
    assert_eq!(counts, [(1, 1, 0), (2, 0, 1), (3, 1, 0)]);
    assert_eq!(cases[1].steps[0].inputs[0].format, Format::Ndjson);
    assert_eq!(Folder::good().cases(), Ok(Vec::new()));
}

#[test]
fn mistakes_in_own_tests_are_all_named() {
    let folder = with_cases()
        .with("tests/a/inputs/order.csv", "")
        .with("tests/a/inputs/orders.parquet", "")
        .with("tests/a/expect/silver.ordres.csv", "")
        .with("tests/a/expect/bronze.orders.csv", "")
        .with("tests/b/inputs/orders.csv", "")
        .with("tests/c/input/orders.csv", "")
        .with("tests/d/inputs/orders.csv", "")
        .with("tests/d/1/expect/silver.orders.csv", "");
    let found = folder.cases().expect_err("tests with mistakes");
    let lines: Vec<String> = found
        .0
        .iter()
        .map(|d| format!("{}: {}", d.file.display(), d.message))
        .collect();
    assert_eq!(
        lines,
        [
            "tests/a/expect/bronze.orders.csv: expected rows are in a file called <layer>.<table>.csv",
            "tests/a/expect/silver.ordres.csv: unknown table silver.ordres",
            "tests/a/inputs/order.csv: unknown input \"order\"",
            "tests/a/inputs/orders.parquet: rows of a test are in .csv or .ndjson files",
            "tests/b: the test expects nothing",
            "tests/c/input: a test has no folder \"input\"",
            "tests/d: a test has inputs/ and expect/, or steps 1/, 2/, ..., not both",
            "tests/steps: step 3 is missing",
        ]
    );
}
