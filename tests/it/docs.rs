//! The pages in `docs/` promise what tests show.

use std::collections::BTreeSet;
use std::path::Path;

/// Every function below a folder of Rust files, by name.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let named = text.split("fn ").skip(1).map(|rest| {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                rest[..end.unwrap_or(rest.len())].to_string()
            });
            names.extend(named);
        }
    }
}

/// The last cell of each row of the tables of a page; their heads left out.
fn last_cells(page: &str) -> Vec<(&str, &str)> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| Some((row, row.trim_end().strip_suffix('|')?.rsplit('|').next()?.trim())));
    cells
        .filter(|(_, cell)| *cell != "test" && !cell.starts_with("---"))
        .collect()
}

#[test]
fn every_row_about_bad_input_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/bad-input.md")).expect("the page is there");
    let mut known = BTreeSet::new();
    functions(&root.join("src"), &mut known);
    functions(&root.join("tests"), &mut known);
    for (row, cell) in last_cells(&page) {
        let tests: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "this row names no test in backticks: {row}");
        for test in tests {
            let name = test.rsplit("::").next().unwrap_or(test);
            assert!(
                known.contains(name),
                "there is no test {test}, which this row names: {row}"
            );
        }
    }
}
