//! Cases as data: small inputs, a statement, and the right answer. Some are beside the checkout
//! (`shared/cases/sql.json`, whose README describes the format; `ALLUVIUM_CASES` sets another folder), and some were
//! found by random statements (`found.json`, in the same format).
//!
//! `known.toml` lists the cases that are wrong at present. A wrong case that is not listed fails the test, and so does
//! a listed case that has become right: so the list can only shrink.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::compare::{Answer, loose};
use super::subject::{Question, Told};
use super::tables::Table;
use crate::testing::{Prerequisite, checkout, skip};

/// A case.
pub struct Case {
    pub name: String,
    pub question: Question,
    right: String,
    may_refuse: bool,
}

/// What is wrong at present, by name, with the kind of mistake.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    pub cases: BTreeMap<String, String>,
    pub families: BTreeMap<String, String>,
    /// Queries of public suites: `nexmark q10`.
    pub suites: BTreeMap<String, String>,
}

/// The verdict on an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    Right,
    /// The statement was refused, as the case allows.
    Refused,
    Wrong(String),
}

/// Reads the list of what is wrong at present.
pub fn known() -> Known {
    toml::from_str(include_str!("known.toml")).unwrap_or_else(|e| panic!("known.toml: {e}"))
}

/// The cases in `found.json`.
pub fn found() -> Vec<Case> {
    read(include_str!("found.json"))
}

/// The cases beside the checkout, if they exist.
pub fn shared() -> Option<Vec<Case>> {
    let named = std::env::var_os("ALLUVIUM_CASES").map(PathBuf::from);
    let checkout = checkout();
    let beside = checkout.ancestors().skip(1).map(|a| a.join("shared/cases"));
    let file = named
        .into_iter()
        .chain(beside)
        .map(|folder| folder.join("sql.json"))
        .find(|file| file.exists());
    let Some(file) = file else {
        skip(
            Prerequisite::Data,
            "no cases: set ALLUVIUM_CASES, or put shared/cases beside the checkout",
        );
        return None;
    };
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    Some(read(&text))
}

fn read(text: &str) -> Vec<Case> {
    let cases: Vec<Value> = serde_json::from_str(text).expect("cases are a list");
    // Cases over equal tables share one copy of them.
    let mut settings: Vec<Arc<Vec<Table>>> = vec![];
    let mut case = |case: &Value| {
        let text = |key: &str| {
            case[key]
                .as_str()
                .unwrap_or_else(|| panic!("no {key:?} in {case}"))
                .to_string()
        };
        assert!(
            case.get("silver").is_none(),
            "a case with Silver tables is not understood yet: {case}"
        );
        let inputs = case["inputs"].as_object().expect("inputs are tables");
        let table = |(name, table): (&String, &Value)| {
            let columns = table["columns"].as_str().expect("columns are SQL");
            Table::parse(name, columns, &table["rows"])
        };
        let tables: Vec<Table> = inputs.iter().map(table).collect();
        let shared = settings.iter().find(|known| ***known == tables).cloned();
        let tables = shared.unwrap_or_else(|| Arc::new(tables));
        settings.push(tables.clone());
        Case {
            name: text("name"),
            question: Question {
                tables,
                sql: text("sql"),
            },
            right: text("right"),
            may_refuse: case["may_refuse"]
                .as_bool()
                .expect("it is said whether a refusal is right"),
        }
    };
    cases.iter().map(&mut case).collect()
}

impl Case {
    /// Judges the answers of all ways.
    pub fn judge(&self, told: &Told) -> Judged {
        match told {
            Told::Refused(_) if self.may_refuse => Judged::Refused,
            Told::Refused(why) => Judged::Wrong(format!("refused: {why}")),
            Told::Ended(why) => Judged::Wrong(format!("ended: {why}")),
            Told::Answered(answers) => {
                let right = rows(&self.right);
                match answers.iter().find(|(_, answer)| as_text(answer) != right) {
                    Some((way, answer)) => Judged::Wrong(format!("{way}: {answer}")),
                    None => Judged::Right,
                }
            }
        }
    }

    /// The right answer, for a report.
    pub fn right(&self) -> &str {
        &self.right
    }
}

/// Parses `(1,a) (2,b)`, or `none`, to sorted rows.
fn rows(text: &str) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = match text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        Some(inner) => inner
            .split(") (")
            .map(|row| row.split(',').map(loose).collect())
            .collect(),
        None => {
            assert_eq!(text, "none", "rows stand in parentheses");
            vec![]
        }
    };
    rows.sort();
    rows
}

/// The rows of an answer as in a case, where a comma in a text separates cells too.
fn as_text(answer: &Answer) -> Vec<Vec<String>> {
    let cells = |row: &Vec<String>| row.join(",").split(',').map(loose).collect();
    let mut rows: Vec<Vec<String>> = answer.rows.iter().map(cells).collect();
    rows.sort();
    rows
}

#[test]
fn a_case_is_right_in_each_way_or_wrong() {
    let case = |may_refuse| Case {
        name: "case".to_string(),
        question: Question {
            tables: Arc::new(vec![]),
            sql: String::new(),
        },
        right: "(1,t) (2,\u{2205})".to_string(),
        may_refuse,
    };
    let answer = |rows: &[[&str; 2]]| {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.map(str::to_string).to_vec()).collect();
        Answer::theirs(&["bigint".to_string(), "boolean".to_string()], &rows)
    };
    let right = answer(&[["2", "\u{2205}"], ["1", "true"]]);
    let wrong = answer(&[["2", "f"], ["1", "true"]]);
    let told = |last: &Answer| Told::Answered(vec![("at once", right.clone()), ("later", last.clone())]);
    assert_eq!(case(false).judge(&told(&right)), Judged::Right);
    assert!(matches!(case(false).judge(&told(&wrong)), Judged::Wrong(why) if why.starts_with("later: ")));
    let refused = Told::Refused("no".to_string());
    assert_eq!(case(true).judge(&refused), Judged::Refused);
    assert!(matches!(case(false).judge(&refused), Judged::Wrong(_)));
}
