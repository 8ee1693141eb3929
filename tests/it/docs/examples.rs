//! Tries every example of the README and the book, except for those that give a reason why not.
//!
//! - `toml` is checked as files of a dataflow: a line `# inputs/orders.toml` says which file follows; a block with
//!   only `[[feeds]]` is added to an input. No server is contacted.
//! - `sql` is a table over [`INPUTS`] and [`SILVER`]: each is planned, and all of them are run together.
//! - `sh` is run, block by block of a page, in a folder in which `shop` is what `alluvium init` creates. A block
//!   `text,output` after it is its expected output, apart from figures; a line `...` stands for lines that are left
//!   out.
//!
//! A block that cannot be tried alone gives the reason: ```` ```toml,fragment=the reason ````.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use alluvium::definition::{self, Diagnostics};
use alluvium::plan;
use alluvium::serve::verify;
use regex::Regex;

use super::{Fence, Page, pages};
use crate::support::{Folder, assert_exact, catch_up};

const TRIED: [&str; 4] = ["toml", "sql", "sh", "bash"];
/// Languages of blocks that are shown only.
const SHOWN: [&str; 3] = ["text", "json", "python"];

#[test]
fn every_example_is_tried_or_says_why_not() {
    for fence in pages().iter().flat_map(Page::fences) {
        let Fence {
            place,
            language,
            mark,
            text,
        } = &fence;
        let is_tried = TRIED.contains(&language.as_str());
        assert!(
            is_tried || SHOWN.contains(&language.as_str()),
            "{place}: {language:?} is no language of examples; what is only shown is `text`"
        );
        match fence.reason() {
            Some(reason) => assert!(is_tried && reason.len() > 5, "{place}: {reason:?} is no reason"),
            None => assert!(
                mark.is_empty() || language == "text" && mark == "output",
                "{place}: unknown mark {mark:?}; fragment=REASON says why an example is not tried"
            ),
        }
        if language == "json" {
            for line in text.lines() {
                let read: Result<serde_json::Value, _> = serde_json::from_str(line);
                assert!(read.is_ok(), "{place}: {read:?}");
            }
        }
    }
}

/// A value for any environment variable of an example.
fn variable(_: &str) -> Option<String> {
    Some("a-secret-that-is-long-enough".to_string())
}

fn check(folder: &Path) -> Result<(), Diagnostics> {
    let dataflow = definition::load(folder, &variable)?;
    plan::compile(&dataflow).map(|_| ())
}

const COLUMNS: &str = "[columns]\norder_id = \"BIGINT\"\ncountry = \"VARCHAR\"\namount = \"DECIMAL(10,2)\"\n\n";

/// The files that a block of TOML contains.
fn shown_files(fence: &Fence) -> Vec<(String, String)> {
    let title = Regex::new(r"^# ((?:dataflow|(?:inputs|silver|gold)/\w+)\.toml)$").expect("a pattern");
    let mut shown: Vec<(String, String)> = Vec::new();
    for line in fence.text.lines() {
        if let Some(title) = title.captures(line) {
            shown.push((title[1].to_string(), String::new()));
            continue;
        }
        if shown.is_empty() {
            shown.push(("inputs/orders.toml".to_string(), String::new()));
        }
        let (_, text) = shown.last_mut().expect("one is there");
        *text += line;
        *text += "\n";
    }
    shown
}

#[test]
fn every_example_of_toml_is_a_definition_that_loads() {
    let pages = pages();
    let fences = pages.iter().flat_map(Page::fences);
    for fence in fences.filter(|fence| fence.is_tried(&["toml"])) {
        let feed = "[[feeds]]\nname = \"only\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n";
        let folder = Folder::new("shop", &[("inputs/orders.toml", &format!("{COLUMNS}{feed}"))]);
        for (path, mut text) in shown_files(&fence) {
            if path.starts_with("inputs/") && !text.contains("[columns]") {
                text.insert_str(0, COLUMNS);
            }
            if path == "dataflow.toml" && !text.contains("name =") {
                text.insert_str(0, "name = \"shop\"\n");
            }
            let is_table = path.starts_with("silver/") || path.starts_with("gold/");
            if let Some(table) = path.strip_suffix(".toml").filter(|_| is_table) {
                folder.write(
                    &format!("{table}.sql"),
                    "SELECT order_id, country, amount FROM orders\n",
                );
            }
            folder.write(&path, &text);
        }
        if !folder.path().join("silver").exists() && !folder.path().join("gold").exists() {
            let mut inputs = std::fs::read_dir(folder.path().join("inputs")).expect("there are inputs");
            let input = inputs.next().expect("one is there").expect("an entry").path();
            let name = input.file_stem().expect("a name").to_string_lossy().into_owned();
            folder.write("silver/all.sql", &format!("SELECT * FROM {name}\n"));
        }
        if let Err(mistakes) = check(folder.path()) {
            panic!("{}:\n{mistakes}", fence.place);
        }
    }
}

/// The inputs of SQL examples: name, definition, and rows.
const INPUTS: [(&str, &str, &str); 6] = [
    (
        "orders",
        "key = [\"order_id\"]\n[columns]\norder_id = \"BIGINT\"\nordered_at = \"TIMESTAMP\"\ncustomer = \"VARCHAR\"\n\
         country = \"VARCHAR\"\nstatus = \"VARCHAR\"\namount = \"DECIMAL(10,2)\"\n",
        "{\"order_id\":1,\"ordered_at\":\"2026-01-05T09:00:00\",\"customer\":\"Ada\",\"country\":\"IT\",\"status\":\"paid\",\"amount\":20.00}\n\
         {\"order_id\":2,\"ordered_at\":\"2026-01-05T10:30:00\",\"customer\":\"Grace\",\"country\":\"NL\",\"status\":\"cancelled\",\"amount\":12.50}\n\
         {\"order_id\":3,\"ordered_at\":\"2026-01-06T18:15:00\",\"customer\":\"Ada\",\"country\":\"IT\",\"status\":\"open\",\"amount\":7.90}\n",
    ),
    (
        "clicks",
        "[columns]\nuser_id = \"BIGINT\"\nat = \"TIMESTAMP\"\n",
        "{\"user_id\":1,\"at\":\"2026-01-05T09:00:00\"}\n{\"user_id\":1,\"at\":\"2026-01-05T09:03:00\"}\n{\"user_id\":1,\"at\":\"2026-01-05T10:00:00\"}\n",
    ),
    (
        "prices",
        "[columns]\ncountry = \"VARCHAR\"\nvalid_from = \"TIMESTAMP\"\nprice = \"DECIMAL(10,2)\"\n",
        "{\"country\":\"IT\",\"valid_from\":\"2026-01-01T00:00:00\",\"price\":1.00}\n{\"country\":\"IT\",\"valid_from\":\"2026-01-06T00:00:00\",\"price\":2.00}\n",
    ),
    (
        "payments",
        "[columns]\npayer = \"VARCHAR\"\npayee = \"VARCHAR\"\n",
        "{\"payer\":\"a\",\"payee\":\"b\"}\n{\"payer\":\"b\",\"payee\":\"c\"}\n{\"payer\":\"c\",\"payee\":\"a\"}\n",
    ),
    (
        "parts",
        "[columns]\nproduct = \"VARCHAR\"\npart = \"VARCHAR\"\nquantity = \"BIGINT\"\n",
        "{\"product\":\"car\",\"part\":\"wheel\",\"quantity\":4}\n{\"product\":\"wheel\",\"part\":\"bolt\",\"quantity\":5}\n",
    ),
    (
        "products",
        "key = [\"product_id\"]\n[columns]\nproduct_id = \"BIGINT\"\nname = \"VARCHAR\"\n",
        "{\"product_id\":1,\"name\":\"car\"}\n",
    ),
];

/// The table that some SQL examples read.
const SILVER: &str =
    "SELECT order_id, CAST(ordered_at AS DATE) AS day, country, amount FROM orders WHERE status <> 'cancelled'\n";

#[test]
fn every_example_of_sql_is_a_table_that_is_kept() {
    let folder = Folder::new("shop", &[("silver/orders.sql", SILVER)]);
    for (name, text, rows) in INPUTS {
        let feed = format!(
            "[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"drops/{name}/*.ndjson\"\nformat = \"ndjson\"\n"
        );
        folder.write(&format!("inputs/{name}.toml"), &format!("{text}\n{feed}"));
        folder.write(&format!("drops/{name}/1.ndjson"), rows);
    }
    let pages = pages();
    let fences: Vec<Fence> = pages.iter().flat_map(Page::fences).collect();
    let mut tables = 0;
    for fence in fences.iter().filter(|fence| fence.is_tried(&["sql"])) {
        tables += 1;
        folder.write(&format!("gold/example_{tables}.sql"), &fence.text);
        if let Err(mistakes) = check(folder.path()) {
            panic!("{}:\n{mistakes}", fence.place);
        }
    }
    assert!(tables > 5, "there are examples");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let report = verify::verify(&Arc::clone(&dataflow), None).unwrap_or_else(|e| panic!("{e}"));
    assert_exact(&report, "the examples");
    assert_eq!(
        report.tables.len(),
        1 + tables,
        "the examples, and the table that they read"
    );
}

/// Masks the parts of an output line that may differ: figures, times, widths.
fn figures_aside(line: &str) -> String {
    let time = Regex::new(r"\b\d[\d.,]*\s?(?:ns|us|µs|ms|s|min|h)\b").expect("a pattern");
    let number = Regex::new(r"\d[\d.,:]*").expect("a pattern");
    let rule = Regex::new("-{2,}").expect("a pattern");
    let blank = Regex::new(r"\s+").expect("a pattern");
    let line = time.replace_all(line.trim(), "T");
    let line = number.replace_all(&line, "N");
    let line = rule.replace_all(&line, "--");
    blank.replace_all(&line, " ").into_owned()
}

/// A folder in which a page's commands are run one after another.
struct Session {
    folder: tempfile::TempDir,
    path: String,
}

impl Session {
    fn new() -> Session {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bin = folder.path().join(".bin");
        std::fs::create_dir(&bin).expect("the folder is made");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_alluvium"), bin.join("alluvium")).expect("a link");
        let path = std::env::var("PATH").unwrap_or_default();
        Session {
            path: format!("{}:{path}", bin.display()),
            folder,
        }
    }

    /// Runs a script, and returns what it printed.
    fn run(&self, script: &str, place: &str) -> String {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            .env("ALLUVIUM_LOG", "warn")
            .output()
            .expect("bash is there");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{place} fails with {}:\n{printed}{said}",
            output.status
        );
        let home = self.folder.path().canonicalize().expect("it is there");
        printed.replace(&home.display().to_string(), "/home/ada")
    }
}

#[test]
fn every_example_of_a_shell_runs_and_prints_what_the_page_shows() {
    for page in pages() {
        let fences = page.fences();
        let tried = fences.iter().filter(|fence| fence.is_tried(&["sh", "bash"]));
        if tried.clone().count() == 0 {
            continue;
        }
        let session = Session::new();
        if !tried.clone().any(|fence| fence.text.contains("alluvium init")) {
            session.run(
                "alluvium init shop && alluvium run shop --until-caught-up",
                "the dataflow of examples",
            );
        }
        let mut printed = String::new();
        for fence in &fences {
            if fence.is_tried(&["sh", "bash"]) {
                printed = session.run(&fence.text, &fence.place);
            } else if fence.language == "text" && fence.mark == "output" {
                let mut lines = printed.lines().map(figures_aside);
                for line in fence.text.lines().filter(|line| line.trim() != "...") {
                    let wanted = figures_aside(line);
                    assert!(
                        lines.any(|line| line == wanted),
                        "{}: {line:?} is not printed, or not in this order, of:\n{printed}",
                        fence.place
                    );
                }
            }
        }
    }
}
