//! Tries random statements: generates them, asks Alluvium and PostgreSQL, compares, and counts by family.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::generate::{Family, Generator};
use super::server::{self, Verdict};
use super::subject::{self, Question, Told, Ways};

/// The number of statements over the same tables.
const OVER_ONE: usize = 40;

/// The outcome of a statement.
pub enum Outcome {
    Right,
    Refused(String),
    /// PostgreSQL does not support the statement.
    Unjudged(String),
    Wrong(Difference),
}

/// A difference between answers.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The way in which it was seen first.
    pub way: &'static str,
    pub ours: String,
    pub theirs: String,
}

/// A wrong answer.
#[derive(Clone, Debug)]
pub struct Found {
    pub family: &'static str,
    pub seed: u64,
    pub question: Question,
    pub difference: Difference,
}

/// Counts the outcomes of a family's statements.
#[derive(Default)]
pub struct Tally {
    right: usize,
    refused: usize,
    unjudged: usize,
    wrong: usize,
    /// The first reason of a refusal, or of a statement that is not judged.
    reason: Option<String>,
}

impl Tally {
    /// Whether there were right answers, and no wrong one.
    pub fn is_right(&self) -> bool {
        self.right > 0 && self.wrong == 0
    }
}

/// The outcomes of all statements.
#[derive(Default)]
pub struct Report {
    pub families: BTreeMap<&'static str, Tally>,
    pub found: Vec<Found>,
}

/// Tries this many statements of these families, in turn.
pub fn try_statements(url: &str, families: &[&'static Family], statements: usize, seed: u64) -> Report {
    let mut report = Report::default();
    let mut in_turn = families.iter().cycle();
    for (n, seed) in (0..statements.div_ceil(OVER_ONE)).zip(seed..) {
        let mut generator = Generator::new(seed);
        let count = OVER_ONE.min(statements - n * OVER_ONE);
        let (mut names, mut questions) = (vec![], vec![]);
        for (name, make) in in_turn.by_ref().take(count) {
            let sql = make(&mut generator);
            names.push(*name);
            questions.push(Question {
                tables: generator.tables.clone(),
                sql,
            });
        }
        let outcomes = judge(url, &questions, Ways::All);
        for ((family, question), outcome) in names.into_iter().zip(questions).zip(outcomes) {
            let tally = report.families.entry(family).or_default();
            match outcome {
                Outcome::Right => tally.right += 1,
                Outcome::Refused(why) => {
                    tally.refused += 1;
                    tally.reason.get_or_insert(format!("{}\n    {why}", question.sql));
                }
                Outcome::Unjudged(why) => {
                    tally.unjudged += 1;
                    tally.reason.get_or_insert(format!("{}\n    {why}", question.sql));
                }
                Outcome::Wrong(difference) => {
                    tally.wrong += 1;
                    report.found.push(Found {
                        family,
                        seed,
                        question,
                        difference,
                    });
                }
            }
        }
    }
    report
}

/// Asks Alluvium and PostgreSQL, and compares.
pub fn judge(url: &str, questions: &[Question], ways: Ways) -> Vec<Outcome> {
    let told = subject::ask(questions, ways);
    let verdicts = server::ask(url, questions);
    let all = questions.iter().zip(told).zip(verdicts);
    all.map(|((question, told), verdict)| outcome(question, told, &verdict))
        .collect()
}

fn outcome(question: &Question, told: Told, verdict: &Verdict) -> Outcome {
    let theirs = match verdict {
        Verdict::Answered(answer) => answer.to_string(),
        Verdict::Fails(why) => format!("fails: {why}"),
        Verdict::Unknown(why) => match told {
            Told::Refused(why) => return Outcome::Refused(why),
            _ => return Outcome::Unjudged(why.clone()),
        },
    };
    match told {
        Told::Refused(why) => Outcome::Refused(why),
        Told::Ended(ours) => Outcome::Wrong(Difference {
            way: "at once",
            ours,
            theirs,
        }),
        Told::Answered(answers) => {
            let wrong = answers.into_iter().find(|(_, ours)| match verdict {
                Verdict::Answered(answer) => !ours.agrees(answer, &question.sql),
                _ => ours.letters.is_empty(),
            });
            match wrong {
                Some((way, ours)) => Outcome::Wrong(Difference {
                    way,
                    ours: ours.to_string(),
                    theirs,
                }),
                None => Outcome::Right,
            }
        }
    }
}

impl Found {
    /// Converts it to a case of `found.json`.
    pub fn case(&self) -> Value {
        let table = |table: &super::tables::Table| {
            (
                table.name.clone(),
                json!({"columns": table.columns_in_sql(), "rows": table.rows}),
            )
        };
        let inputs: serde_json::Map<String, Value> = self.question.tables.iter().map(table).collect();
        json!({
            "name": self.family, "inputs": inputs, "sql": self.question.sql,
            "got": self.difference.ours, "right": self.difference.theirs, "may_refuse": false,
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} differs {} (ALLUVIUM_JUDGE_SEED={})",
            self.family, self.difference.way, self.seed
        )?;
        for table in self.question.tables.iter() {
            writeln!(f, "  {}({})", table.name, table.columns_in_sql())?;
            for row in &table.rows {
                writeln!(f, "    {}", Value::from(row.clone()))?;
            }
        }
        writeln!(f, "  {}", self.question.sql)?;
        writeln!(
            f,
            "  ours   {}\n  theirs {}",
            self.difference.ours, self.difference.theirs
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<34}{:>7}{:>9}{:>10}{:>7}",
            "family", "right", "refused", "unjudged", "wrong"
        )?;
        let mut all = Tally::default();
        for (family, tally) in &self.families {
            let Tally {
                right,
                refused,
                unjudged,
                wrong,
                reason,
            } = tally;
            writeln!(f, "{family:<34}{right:>7}{refused:>9}{unjudged:>10}{wrong:>7}")?;
            all.right += right;
            all.refused += refused;
            all.unjudged += unjudged;
            all.wrong += wrong;
            if let Some(reason) = reason {
                writeln!(f, "  not answered or not judged: {reason}")?;
            }
        }
        let Tally {
            right,
            refused,
            unjudged,
            wrong,
            ..
        } = all;
        writeln!(f, "{:<34}{right:>7}{refused:>9}{unjudged:>10}{wrong:>7}", "all")
    }
}

/// The smallest wrong answer of each family.
pub fn first_of_each(found: Vec<Found>) -> Vec<Found> {
    let mut smallest: BTreeMap<&'static str, Found> = BTreeMap::new();
    for one in found {
        match smallest.get(one.family) {
            Some(known) if known.question.size() <= one.question.size() => {}
            _ => drop(smallest.insert(one.family, one)),
        }
    }
    smallest.into_values().collect()
}

impl Question {
    /// The amount that a person has to read: the statement, and the rows.
    pub fn size(&self) -> usize {
        let cells = |table: &super::tables::Table| table.rows.len() * table.columns.len() + table.columns.len();
        self.sql.len() + 4 * self.tables.iter().map(cells).sum::<usize>()
    }
}

#[test]
fn a_wrong_answer_in_any_way_is_wrong_and_a_failure_wants_a_dead_letter() {
    use std::sync::Arc;

    use super::compare::Answer;
    let answer = |cell: &str, letters: &[&str]| Answer {
        letters: letters.iter().map(|l| l.to_string()).collect(),
        ..Answer::theirs(&["bigint".to_string()], &[vec![cell.to_string()]])
    };
    let question = Question {
        tables: Arc::new(vec![]),
        sql: "SELECT 1".to_string(),
    };
    let come = |first: Answer, last: Answer, verdict: Verdict| {
        outcome(
            &question,
            Told::Answered(vec![("at once", first), ("later", last)]),
            &verdict,
        )
    };
    let says = || Verdict::Answered(answer("1", &[]));
    let fails = || Verdict::Fails("overflow".to_string());
    assert!(matches!(
        come(answer("1", &[]), answer("1", &[]), says()),
        Outcome::Right
    ));
    assert!(matches!(come(answer("1", &[]), answer("2", &[]), says()), Outcome::Wrong(d) if d.way == "later"));
    assert!(matches!(
        come(answer("1", &[]), answer("1", &["lost"]), says()),
        Outcome::Wrong(_)
    ));
    assert!(matches!(
        come(answer("1", &[]), answer("1", &[]), fails()),
        Outcome::Wrong(_)
    ));
    assert!(matches!(
        come(answer("1", &["a"]), answer("1", &["a"]), fails()),
        Outcome::Right
    ));
}
