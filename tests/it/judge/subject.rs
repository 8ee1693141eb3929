//! Asks Alluvium. Questions over any tables are asked in one dataflow, with a Gold table for each, in three ways:
//!
//! ```text
//! all rows at once  -> run until caught up ------------------------------> once
//! row by row, half deleted or updated, put back, in commits -> stop ---> changed -> run again -> restarted
//! ```
//!
//! Inputs have a key in addition to the columns of a question's tables, so that each row can be deleted. A statement
//! sees a table through `WITH`, which hides the key and lets each question name its tables freely.

use std::sync::Arc;
use std::time::Duration;

use alluvium::definition::{self, Dataflow};
use alluvium::plan;
use alluvium::serve::verify::{self, Judgement};
use alluvium::serve::{LakeReader, PrintFormat};

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

/// How the rows are fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// All at once only: enough to see whether a smaller statement is still wrong.
    Once,
    /// In all three ways.
    All,
}

/// The outcome of a question.
#[derive(Clone, Debug)]
pub enum Told {
    /// `check` refuses the statement.
    Refused(String),
    /// Planning panicked, or a run ended, for this reason.
    Ended(String),
    /// The answers, each with the name of its way.
    Answered(Vec<(&'static str, Answer)>),
}

/// An unoptimised build needs more time than the shortest epochs to close one over so many tables, and a run that is
/// to end waits until the graph has caught up with its epochs.
const DATAFLOW: &str = "name = \"judge\"\nepoch = \"20ms\"\ncommit = \"100ms\"\ndurability = \"none\"\n";
/// The most time for a run with a few rows.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most questions of one dataflow.
const TOGETHER: usize = 40;
/// The number of rows that are added one by one; the others come with the last of these.
const STEPS: usize = 8;
/// The Gold table that counts the rows of all inputs: it shows which commits hold which changes.
const COUNTED: &str = "counted";

/// Asks the questions; returns the outcomes in their order.
pub fn ask(questions: &[Question], ways: Ways) -> Vec<Told> {
    ask_within(questions, ways, PATIENCE)
}

/// Like [`ask`], with this limit for anything that is waited for.
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

/// Runs these questions in one dataflow; if that fails, runs each half, until the question that ends runs is alone.
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

/// The result of `verify` for a question's table.
pub enum Verified {
    /// The question was refused, or could not be run.
    Not(String),
    /// The table's judgement, and the report on it.
    Judged(Judgement, String),
}

/// Runs the accepted questions, with all rows at once, and verifies.
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
    let reader = LakeReader::open(dataflow, None).map_err(|e| chain(&e))?;
    let letters = "SELECT table_name, reason FROM dead_letters";
    let letters = reader.print(letters, PrintFormat::Json).map_err(|e| chain(&e))?;
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

/// The distinct sets of tables of some questions, from which the inputs are made.
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

    /// A dataflow's folder with the inputs, and a Gold table for each question.
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

    /// The statement, preceded by its tables in WITH.
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

    /// The changes, commit by commit; in the end all rows exist.
    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = (0..STEPS + 4).map(|_| Step::default()).collect();
        self.each_row(|n, table, row| {
            steps[row.min(STEPS - 1)].change(n, table, row, Change::Add);
            // Every second row is deleted in one of two commits, and added again in one of two, in reverse order.
            // Every fourth row has another row's values between two commits.
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

/// The records to append to each log for one commit, and the number of rows in all inputs after it, with the number of
/// updated ones.
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

/// The number of rows in all inputs at the newest snapshot, and of updated ones; none if there is no snapshot.
fn counted(dataflow: &Dataflow) -> Option<(i64, i64)> {
    let reader = LakeReader::open(dataflow, None).ok()?;
    let sql = format!("SELECT sum(n), coalesce(sum(updated), 0) FROM gold.{COUNTED}");
    let text = reader.print(&sql, PrintFormat::Csv).ok()?;
    let (rows, updated) = text.lines().nth(1)?.split_once(',')?;
    Some((rows.parse().ok()?, updated.parse().ok()?))
}

/// The refusal by `check`, if it does not accept the question.
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

/// An input with one row, so that a lake has a first snapshot even if all tables of the questions are empty.
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
