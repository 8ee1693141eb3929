//! What Alluvium answers. Questions over any tables are asked in one dataflow, a Gold table each, in three ways:
//!
//! ```text
//! all rows at once  -> run until caught up ------------------------------> once
//! row by row, half deleted or updated, put back, in commits -> stop ---> changed -> run again -> restarted
//! ```
//!
//! Inputs have a key that the tables of a question have not, so that each row can be deleted. A statement sees a table
//! through `WITH`, which leaves the key out and lets questions call their tables as they like.

use std::sync::Arc;
use std::time::Duration;

use alluvium::definition::{self, Dataflow};
use alluvium::plan;
use alluvium::serve::verify::{self, Standing};
use alluvium::serve::{OutputFormat, Reader};

use super::compare::Answer;
use super::process;
use super::tables::{Change, Table, UPDATED};
use crate::support::{Folder, chain};

/// A statement over tables.
#[derive(Clone, Debug)]
pub struct Question {
    pub tables: Arc<Vec<Table>>,
    pub sql: String,
}

/// How rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// At once only: enough to see whether a smaller statement is still wrong.
    Once,
    /// In all three ways.
    All,
}

/// What became of a question.
#[derive(Clone, Debug)]
pub enum Told {
    /// `check` refuses the statement.
    Refused(String),
    /// Planning panicked, or a run ended, and why.
    Ended(String),
    /// The answers, by the name of the way.
    Answered(Vec<(&'static str, Answer)>),
}

/// An unoptimised build needs longer than the shortest epochs to close one over so many tables, and a run that is to end
/// waits until the graph has caught up with its epochs.
const DATAFLOW: &str = "name = \"judge\"\nepoch = \"20ms\"\ncommit = \"100ms\"\ndurability = \"none\"\n";
/// How long a run may take that has a few rows to read.
const PATIENCE: Duration = Duration::from_secs(60);
/// Questions of one dataflow.
const TOGETHER: usize = 40;
/// Rows that are added one by one; what is more comes with the last.
const STEPS: usize = 8;
/// The Gold table that counts the rows of all inputs: it tells which commits hold which changes.
const COUNTED: &str = "counted";

/// Asks, and answers in the order of the questions.
pub fn ask(questions: &[Question], ways: Ways) -> Vec<Told> {
    ask_within(questions, ways, PATIENCE)
}

/// The same, where anything that is waited for may take so long.
pub fn ask_within(questions: &[Question], ways: Ways, patience: Duration) -> Vec<Told> {
    let checked: Vec<Option<Told>> = questions.iter().map(check).collect();
    let accepted: Vec<usize> = (0..questions.len()).filter(|n| checked[*n].is_none()).collect();
    let mut told = checked;
    for part in accepted.chunks(TOGETHER) {
        run_part(questions, part, (ways, patience), &mut told);
    }
    let told = told.into_iter().map(|told| told.expect("what is accepted is run"));
    told.collect()
}

/// Runs these questions in one dataflow; where that fails, halves of them, until the one that ends runs stands alone.
fn run_part(questions: &[Question], part: &[usize], how: (Ways, Duration), told: &mut [Option<Told>]) {
    if part.is_empty() {
        return;
    }
    match run(questions, part, how) {
        Ok(answers) => {
            for (n, answers) in part.iter().zip(answers) {
                told[*n] = Some(Told::Answered(answers));
            }
        }
        Err(why) if part.len() == 1 => told[part[0]] = Some(Told::Ended(why)),
        Err(_) => {
            let (left, right) = part.split_at(part.len() / 2);
            run_part(questions, left, how, told);
            run_part(questions, right, how, told);
        }
    }
}

type Answers = Vec<(&'static str, Answer)>;

fn run(questions: &[Question], part: &[usize], (ways, patience): (Ways, Duration)) -> Result<Vec<Answers>, String> {
    let chosen: Vec<Question> = part.iter().map(|n| questions[*n].clone()).collect();
    let setting = Setting::new(&chosen);
    let mut answers: Vec<Answers> = vec![vec![]; chosen.len()];
    let mut add = |way: &'static str, dataflow: &Dataflow| -> Result<(), String> {
        for (answers, answer) in answers.iter_mut().zip(read(dataflow, chosen.len())?) {
            answers.push((way, answer));
        }
        Ok(())
    };

    let folder = setting.folder(&chosen);
    setting.each_row(|n, table, row| folder.append(&log(n), &table.record(row, Change::Add)));
    let dataflow = folder.load("lake");
    process::catch_up(&folder, patience)?;
    add("at once", &dataflow)?;
    if ways == Ways::Once {
        return Ok(answers);
    }

    let folder = setting.folder(&chosen);
    let dataflow = folder.load("lake");
    let mut running = process::Live::start(&folder, patience);
    for step in setting.steps() {
        step.records
            .iter()
            .for_each(|(path, record)| folder.append(path, record));
        running.wait_until(|| counted(&dataflow) == Some((step.rows, step.updated)))?;
    }
    running.stop()?;
    add("row by row, deleted and put back", &dataflow)?;
    process::catch_up(&folder, patience)?;
    add("after a restart", &dataflow)?;
    Ok(answers)
}

/// What `verify` says of a question's table.
pub enum Verified {
    /// It was refused, or could not be run.
    Not(String),
    /// What it was judged by, and what is said of it.
    Judged(Standing, String),
}

/// Runs the questions that are accepted, all rows at once, and verifies.
pub fn verified(questions: &[Question]) -> Vec<Verified> {
    let mut told: Vec<Verified> = vec![];
    let mut accepted = vec![];
    for question in questions {
        match check(question) {
            Some(refused) => told.push(Verified::Not(format!("{refused:?}"))),
            None => {
                accepted.push(told.len());
                told.push(Verified::Not("it was not run".to_string()));
            }
        }
    }
    for part in accepted.chunks(TOGETHER) {
        verify_part(questions, part, &mut told);
    }
    told
}

fn verify_part(questions: &[Question], part: &[usize], told: &mut [Verified]) {
    let chosen: Vec<Question> = part.iter().map(|n| questions[*n].clone()).collect();
    let setting = Setting::new(&chosen);
    let folder = setting.folder(&chosen);
    setting.each_row(|n, table, row| folder.append(&log(n), &table.record(row, Change::Add)));
    let report = process::catch_up(&folder, PATIENCE)
        .and_then(|()| verify::verify(&folder.load("lake"), None).map_err(|e| chain(&e)));
    match (report, part) {
        (Ok(report), part) => {
            for (at, n) in part.iter().enumerate() {
                let name = format!("gold.{}", gold(at));
                let differing = report.differences.iter().filter(|difference| difference.table == name);
                let differing: Vec<String> = differing.take(5).map(ToString::to_string).collect();
                told[*n] = match report.standings.get(&name) {
                    Some(standing) => Verified::Judged(standing.clone(), differing.join("\n  ")),
                    None => Verified::Not(format!("{:?} {:?}", report.failed, report.skipped)),
                };
            }
        }
        (Err(why), [n]) => told[*n] = Verified::Not(why),
        (Err(_), part) => {
            let (left, right) = part.split_at(part.len() / 2);
            verify_part(questions, left, told);
            verify_part(questions, right, told);
        }
    }
}

fn read(dataflow: &Dataflow, questions: usize) -> Result<Vec<Answer>, String> {
    let reader = Reader::open(dataflow, None).map_err(|e| chain(&e))?;
    let letters = "SELECT table_name, reason FROM dead_letters";
    let letters = reader.print(letters, OutputFormat::Json).map_err(|e| chain(&e))?;
    let letters: Vec<serde_json::Value> = serde_json::from_str(&letters).expect("query prints JSON");
    let of = |name: &str| -> Vec<String> {
        let letters = letters.iter().filter(|letter| letter["table_name"] == name);
        letters.map(|letter| letter["reason"].to_string()).collect()
    };
    (0..questions)
        .map(|n| {
            let name = format!("gold.{}", gold(n));
            let (schema, batches) = reader.rows(&name).map_err(|e| chain(&e))?;
            Ok(Answer::ours(&schema, &batches, of(&name)))
        })
        .collect()
}

/// The distinct sets of tables of some questions, and so the inputs.
struct Setting {
    inputs: Vec<(Arc<Vec<Table>>, usize)>,
    tables: usize,
}

impl Setting {
    fn new(questions: &[Question]) -> Setting {
        let mut setting = Setting {
            inputs: vec![],
            tables: 0,
        };
        for question in questions {
            if !setting
                .inputs
                .iter()
                .any(|(known, _)| Arc::ptr_eq(known, &question.tables))
            {
                setting.inputs.push((question.tables.clone(), setting.tables));
                setting.tables += question.tables.len();
            }
        }
        setting
    }

    fn each_table(&self) -> impl Iterator<Item = (usize, &Table)> {
        self.inputs.iter().flat_map(|(tables, _)| tables.iter()).enumerate()
    }

    fn each_row(&self, mut act: impl FnMut(usize, &Table, usize)) {
        for (n, table) in self.each_table() {
            (0..table.rows.len()).for_each(|row| act(n, table, row));
        }
    }

    /// A dataflow's folder with the inputs and, for each question, a Gold table.
    fn folder(&self, questions: &[Question]) -> Folder {
        let folder = Folder::new("judge", &[("dataflow.toml", DATAFLOW)]);
        for (n, table) in self.each_table() {
            folder.write(&format!("inputs/{}.toml", input(n)), &table.input(&input(n)));
            folder.write(&log(n), "");
        }
        for (n, question) in questions.iter().enumerate() {
            folder.write(&format!("gold/{}.sql", gold(n)), &self.sql(question));
        }
        let pulse = pulse();
        folder.write(&format!("inputs/{}.toml", pulse.name), &pulse.input(&pulse.name));
        folder.write(&format!("live/{}/0.ndjson", pulse.name), &pulse.record(0, Change::Add));
        let counted = (0..self.tables).map(input).chain([pulse.name]);
        let counts: Vec<String> = counted
            .map(|name| format!("SELECT count(*) AS n, sum({UPDATED}) AS updated FROM {name}"))
            .collect();
        folder.write(&format!("gold/{COUNTED}.sql"), &counts.join(" UNION ALL "));
        folder
    }

    /// The statement, with its tables in front of it.
    fn sql(&self, question: &Question) -> String {
        let first = self
            .inputs
            .iter()
            .find(|(known, _)| Arc::ptr_eq(known, &question.tables));
        let (tables, first) = first.expect("the setting is of the questions");
        let named = |table: &Table| {
            let name = regex::Regex::new(&format!(r"\b{}\b", table.name)).expect("a name is a pattern");
            name.is_match(&question.sql)
        };
        let views = tables.iter().enumerate().filter(|(_, table)| named(table));
        let views: Vec<String> = views
            .map(|(n, table)| format!("{} AS (SELECT {} FROM {})", table.name, table.names(), input(first + n)))
            .collect();
        let recursive = question.sql.strip_prefix("WITH RECURSIVE ");
        match question.sql.strip_prefix("WITH ") {
            _ if views.is_empty() => question.sql.clone(),
            Some(_) if let Some(more) = recursive => format!("WITH RECURSIVE {}, {more}", views.join(", ")),
            Some(more) => format!("WITH {}, {more}", views.join(", ")),
            None => format!("WITH {} {}", views.join(", "), question.sql),
        }
    }

    /// Changes that end with all rows in place, commit by commit.
    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = (0..STEPS + 4).map(|_| Step::default()).collect();
        self.each_row(|n, table, row| {
            steps[row.min(STEPS - 1)].change(n, table, row, Change::Add);
            // Every second row goes in two commits, and comes back in two, last one first; every fourth is another one
            // between two commits.
            match row % 4 {
                odd @ (1 | 3) => {
                    let late = usize::from(odd == 3);
                    steps[STEPS + late].change(n, table, row, Change::Delete);
                    steps[STEPS + 3 - late].change(n, table, row, Change::Add);
                }
                2 => {
                    steps[STEPS + 1].change(n, table, row, Change::Become(row - 1));
                    steps[STEPS + 2].change(n, table, row, Change::Restore);
                }
                _ => {}
            }
        });
        steps.retain(|step| !step.records.is_empty());
        let (mut rows, mut updated) = (pulse().rows.len() as i64, 0);
        for step in &mut steps {
            rows += step.rows;
            updated += step.updated;
            (step.rows, step.updated) = (rows, updated);
        }
        steps
    }
}

/// What is appended to which log for one commit, and how many rows all inputs have then, and how many of them are updated.
#[derive(Default)]
struct Step {
    records: Vec<(String, String)>,
    rows: i64,
    updated: i64,
}

impl Step {
    fn change(&mut self, input: usize, table: &Table, row: usize, change: Change) {
        self.records.push((log(input), table.record(row, change)));
        match change {
            Change::Add => self.rows += 1,
            Change::Delete => self.rows -= 1,
            Change::Become(_) => self.updated += 1,
            Change::Restore => self.updated -= 1,
        }
    }
}

/// How many rows all inputs had at the newest snapshot, and how many of them were updated, if there is one.
fn counted(dataflow: &Dataflow) -> Option<(i64, i64)> {
    let reader = Reader::open(dataflow, None).ok()?;
    let sql = format!("SELECT sum(n), coalesce(sum(updated), 0) FROM gold.{COUNTED}");
    let text = reader.print(&sql, OutputFormat::Csv).ok()?;
    let (rows, updated) = text.lines().nth(1)?.split_once(',')?;
    Some((rows.parse().ok()?, updated.parse().ok()?))
}

/// What `check` says to a question, if it does not accept it.
fn check(question: &Question) -> Option<Told> {
    let question = std::slice::from_ref(question);
    let folder = Setting::new(question).folder(question);
    let checked = std::panic::catch_unwind(|| {
        let dataflow = definition::load(folder.path(), &|_| None)?;
        plan::compile(&dataflow).map(drop)
    });
    match checked {
        Ok(Ok(())) => None,
        Ok(Err(diagnostics)) => Some(Told::Refused(diagnostics.to_string())),
        Err(_) => Some(Told::Ended("planning panicked".to_string())),
    }
}

/// An input with one row: a lake has a first snapshot where all tables of the questions are empty.
fn pulse() -> Table {
    Table::parse("pulse", "beat BIGINT", &serde_json::json!([[1]]))
}

fn input(n: usize) -> String {
    format!("in{n}")
}

fn log(n: usize) -> String {
    format!("live/{}/0.ndjson", input(n))
}

fn gold(n: usize) -> String {
    format!("q{n}")
}
