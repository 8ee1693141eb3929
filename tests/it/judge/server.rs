//! Asks PostgreSQL, the judge. All questions go to one `psql`; each set of tables has a schema of its own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::compare::{Answer, NULL};
use super::subject::Question;
use super::tables::Table;
use super::translate;

/// The separators of cells and of rows: control characters that no text contains.
const CELL: &str = "\u{1f}";
const ROW: &str = "\u{1e}";

/// The number of rows from which PostgreSQL needs statistics of a table to plan well.
const MANY: usize = 1000;

/// The judge's answer.
#[derive(Clone, Debug)]
pub enum Verdict {
    Answered(Answer),
    /// The statement fails on these rows (an overflow, a division by zero): we must have a dead letter.
    Fails(String),
    /// PostgreSQL does not support the statement, so it is not judged.
    Unknown(String),
}

/// Asks the questions to the server at this URL.
pub fn ask(url: &str, questions: &[Question]) -> Vec<Verdict> {
    let schema = format!("judge_{:x}", rand::random::<u64>());
    let script = script(&schema, questions);
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(script.as_bytes()).expect("the script is written");
    let said = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-F", CELL, "-R", ROW, "-f"])
        .arg(file.path())
        .arg(url)
        .output()
        .expect("psql, where there is a server");
    let errors = String::from_utf8_lossy(&said.stderr);
    let said = String::from_utf8(said.stdout).expect("PostgreSQL writes UTF-8");
    let (loaded, answers) = said
        .split_once("==loaded 00000\n")
        .unwrap_or_else(|| panic!("not loaded: {said}{errors}"));
    assert_eq!(loaded, "", "loading says nothing: {errors}");
    let verdicts: Vec<Verdict> = answers.split_terminator("==next\n").map(verdict).collect();
    assert_eq!(
        verdicts.len(),
        questions.len(),
        "each statement has a verdict: {errors}"
    );
    verdicts
}

fn script(schema: &str, questions: &[Question]) -> String {
    let tables = questions.iter().flat_map(|question| question.tables.iter());
    let is_large = tables.map(|table| table.rows.len()).max() > Some(MANY);
    let mut script = format!(
        "\\set ON_ERROR_STOP 1\n\\pset null {NULL}\nSET client_min_messages = error; SET statement_timeout = '{}s'; SET timezone = 'UTC';\n\
         CREATE SCHEMA {schema}; SET search_path = {schema};\n{}",
        if is_large { 900 } else { 20 },
        translate::FUNCTIONS
    );
    let mut known: Vec<Arc<Vec<Table>>> = vec![];
    for question in questions {
        if !known.iter().any(|tables| Arc::ptr_eq(tables, &question.tables)) {
            let _ = writeln!(
                script,
                "CREATE SCHEMA {schema}_{}; SET search_path = {schema}_{};",
                known.len(),
                known.len()
            );
            question
                .tables
                .iter()
                .for_each(|table| script.push_str(&loading(table)));
            known.push(question.tables.clone());
        }
    }
    script.push_str("\\set ON_ERROR_STOP 0\n\\echo ==loaded :SQLSTATE\n");
    for question in questions {
        let of = known.iter().position(|tables| Arc::ptr_eq(tables, &question.tables));
        let sql = translate::to_postgres(&question.sql);
        let _ = write!(
            script,
            "SET search_path = {schema}_{}, {schema};\n{sql} \\gdesc\n\\echo ==rows\n{sql};\n\
             \\echo ==end :SQLSTATE :LAST_ERROR_MESSAGE\n\\echo ==next\n",
            of.expect("its tables were loaded")
        );
    }
    let schemas = (0..known.len()).map(|n| format!(", {schema}_{n}"));
    let _ = writeln!(script, "DROP SCHEMA {schema}{} CASCADE;", schemas.collect::<String>());
    script
}

fn loading(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(translate::column).collect();
    let mut sql = format!("CREATE TABLE {}({});\n", table.name, columns.join(", "));
    let value = |value: &Value| match value {
        Value::Null => "NULL".to_string(),
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| item.as_str().map_or(item.to_string(), str::to_string))
                .collect();
            format!("'{{{}}}'", items.join(","))
        }
        other => format!("'{other}'"), // quoted, so that PostgreSQL reads it with the column's type
    };
    for row in &table.rows {
        let row: Vec<String> = row.iter().map(value).collect();
        let _ = writeln!(sql, "INSERT INTO {} VALUES ({});", table.name, row.join(", "));
    }
    if table.rows.len() > MANY {
        let _ = writeln!(sql, "ANALYZE {};", table.name);
    }
    sql
}

/// Parses the output of `psql` for one statement.
fn verdict(said: &str) -> Verdict {
    let (types, said) = said.split_once("==rows\n").unwrap_or(("", said));
    let (rows, end) = said.rsplit_once("==end ").expect("the end is always said");
    let (state, message) = end.trim_end().split_once(' ').unwrap_or((end.trim_end(), ""));
    match state {
        "00000" => {}
        // Class 22 has errors of data; 21000 is a subquery with two rows.
        state if state.starts_with("22") || state == "21000" => return Verdict::Fails(message.to_string()),
        _ => return Verdict::Unknown(format!("{state} {message}")),
    }
    // The output ends with a line break; without rows there is no output.
    let lines = |text: &str| -> Vec<Vec<String>> {
        let lines = text.strip_suffix('\n').map(|text| text.split(ROW));
        let cells = |line: &str| line.split(CELL).map(str::to_string).collect();
        lines.into_iter().flatten().map(cells).collect()
    };
    let types: Vec<String> = lines(types).into_iter().filter_map(|mut line| line.pop()).collect();
    Verdict::Answered(Answer::theirs(&types, &lines(rows)))
}
