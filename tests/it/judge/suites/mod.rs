//! Runs public suites of queries, whose answers are stored. PostgreSQL computed them.
//!
//! A suite's folder has `queries/` and `answers/`: an answer has the columns' types on the first line, then one row
//! per line as CSV, sorted. If PostgreSQL cannot express a query, `postgres/` has an equivalent one.
//! `ALLUVIUM_SUITES_WRITE=1` rewrites the answers, which needs PostgreSQL.

mod nexmark;
mod tpch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cases;
use super::compare::{Answer, Column};
use super::server::{self, Verdict};
use super::subject::{self, Question, Told, Ways};
use super::tables::Table;
use crate::kafka::service;
use crate::testing::checkout;

/// Queries over tables.
struct Suite {
    /// The suite's folder beside this file.
    name: &'static str,
    /// The names of the queries' files.
    queries: &'static [&'static str],
    tables: fn() -> Vec<Table>,
    /// The most time that a run is waited for.
    patience: Duration,
}

impl Suite {
    /// Asserts that all queries, in one dataflow, have the stored answers, except for those known to be wrong: at
    /// once, under inserts, updates and deletes, and after a restart.
    #[track_caller]
    fn check(&self) {
        let tables = Arc::new((self.tables)());
        let question = |query: &&str| Question {
            tables: Arc::clone(&tables),
            sql: self.sql("queries", query).expect("a suite has its queries"),
        };
        let questions: Vec<Question> = self.queries.iter().map(question).collect();
        if std::env::var_os("ALLUVIUM_SUITES_WRITE").is_some() {
            self.write_answers(&questions);
        }
        let told = subject::ask_within(&questions, Ways::All, self.patience);
        let known = cases::known().suites;
        let mut complaints = String::new();
        for (query, (question, told)) in self.queries.iter().zip(questions.iter().zip(&told)) {
            let name = format!("{} {query}", self.name);
            match (self.wrong(query, question, told), known.contains_key(&name)) {
                (Some(wrong), false) => complaints.push_str(&format!("{name}: {wrong}\n")),
                (None, true) => complaints.push_str(&format!("{name} has become right: strike it from known.toml\n")),
                _ => {}
            }
        }
        assert!(complaints.is_empty(), "{complaints}");
    }

    /// The difference between an outcome and the stored answer.
    fn wrong(&self, query: &str, question: &Question, told: &Told) -> Option<String> {
        let right = self.written(query);
        match told {
            Told::Answered(answers) => {
                let mut differing = answers
                    .iter()
                    .filter(|(_, answer)| !answer.agrees(&right, &question.sql));
                differing
                    .next()
                    .map(|(way, answer)| format!("{way}:\n  got   {answer}\n  right {right}"))
            }
            Told::Refused(why) | Told::Ended(why) => Some(why.clone()),
        }
    }

    fn folder(&self) -> PathBuf {
        checkout().join("tests/it/judge/suites").join(self.name)
    }

    fn sql(&self, of: &str, query: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.folder().join(of).join(format!("{query}.sql"))).ok()?;
        Some(text.trim_end().to_string())
    }

    fn answer(&self, query: &str) -> PathBuf {
        self.folder().join(format!("answers/{query}.csv"))
    }

    fn written(&self, query: &str) -> Answer {
        let text = read(&self.answer(query));
        let mut lines = text.lines().map(cells);
        let types = lines.next().expect("the first line has the columns' types");
        Answer::theirs(&types, &lines.collect::<Vec<_>>())
    }

    fn write_answers(&self, questions: &[Question]) {
        let url = service("ALLUVIUM_POSTGRES").expect("PostgreSQL, which writes the answers");
        let in_their_words = |(query, question): (&&str, &Question)| Question {
            tables: question.tables.clone(),
            sql: self.sql("postgres", query).unwrap_or_else(|| question.sql.clone()),
        };
        let theirs: Vec<Question> = self.queries.iter().zip(questions).map(in_their_words).collect();
        for (query, verdict) in self.queries.iter().zip(server::ask(&url, &theirs)) {
            let Verdict::Answered(answer) = verdict else {
                panic!("{query}: {verdict:?}")
            };
            assert!(
                !answer.to_string().contains(['"', '\n']),
                "{query}: a cell that CSV would have to escape"
            );
            let types = answer
                .columns
                .iter()
                .map(|column| type_name(*column).to_string())
                .collect();
            let text: String = std::iter::once(types).chain(answer.rows).map(line).collect();
            let path = self.answer(query);
            std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A line of CSV.
fn line(cells: Vec<String>) -> String {
    let quoted = cells.iter().map(|cell| match cell.contains(',') {
        true => format!("\"{cell}\""),
        false => cell.clone(),
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}

/// The cells of a line, of which none has a quote.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut is_quoted) = (vec![], String::new(), false);
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}

/// A PostgreSQL type whose values are compared like those of the column.
fn type_name(column: Column) -> &'static str {
    match column {
        Column::Exact { scale: 0 } => "bigint",
        Column::Exact { .. } => "numeric",
        Column::Double => "double precision",
        Column::Text => "text",
        Column::Other => "date",
    }
}
