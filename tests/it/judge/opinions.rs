//! Tests `verify` on correct runs: its independent opinion must call no correct table wrong, and must judge most
//! tables.
//!
//! `ALLUVIUM_JUDGE_OPINIONS=file` writes the outcome of each statement to a file, one per line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use alluvium::serve::verify::Judgement;

use super::cases::{self, Case};
use super::generate::{Generator, families};
use super::subject::{self, Question, Verified};
use crate::support::number;

/// Counts the opinion's outcomes.
#[derive(Default)]
struct Tally {
    independent: usize,
    alone: usize,
    /// How often each reason for not judging occurred.
    reasons: BTreeMap<String, usize>,
    told: String,
}

impl Tally {
    /// Counts a statement; returns the difference, if there is one.
    fn count(&mut self, name: &str, question: &Question, verified: &Verified) -> Option<String> {
        let (standing, told) = match verified {
            Verified::Not(why) => {
                writeln!(self.told, "{name}\tnot run: {why}").expect("a String takes all");
                return None;
            }
            Verified::Judged(standing, told) => (standing, told),
        };
        let line = format!("{name}\t{standing:?}\t{}", question.sql.replace('\n', " "));
        writeln!(self.told, "{line}").expect("a String takes all");
        match standing {
            Judgement::Independent(_) | Judgement::AgainstBatch(_) => self.independent += 1,
            Judgement::OwnPlan(why) => {
                self.alone += 1;
                let kind = why.split([':', '"']).next().unwrap_or_default().to_string();
                *self.reasons.entry(kind).or_default() += 1;
            }
            Judgement::DiffersFromPlan | Judgement::DiffersFromOpinion => return Some(format!("{line}\n  {told}")),
        }
        None
    }

    fn share(&self) -> f64 {
        self.independent as f64 / (self.independent + self.alone).max(1) as f64
    }

    /// Prints the shares, and writes the outcome of each statement if that is asked for.
    fn report(&self, what: &str) {
        let all = self.independent + self.alone;
        eprintln!(
            "{what}: {} of {all} judged independently ({:.0} %)",
            self.independent,
            100.0 * self.share()
        );
        let mut reasons: Vec<(&String, &usize)> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons {
            eprintln!("  {count} {reason}");
        }
        if let Some(path) = std::env::var_os("ALLUVIUM_JUDGE_OPINIONS") {
            std::fs::write(&path, &self.told).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

#[test]
fn no_case_that_is_right_is_called_wrong() {
    let known = cases::known().cases;
    let cases: Vec<Case> = cases::found()
        .into_iter()
        .chain(cases::shared().into_iter().flatten())
        .collect();
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| !known.contains_key(&case.name))
        .collect();
    let questions: Vec<Question> = cases.iter().map(|case| case.question.clone()).collect();
    let mut tally = Tally::default();
    let verified = subject::verified(&questions);
    let all = cases.iter().zip(&verified);
    let alarms: Vec<String> = all
        .filter_map(|(case, told)| tally.count(&case.name, &case.question, told))
        .collect();
    tally.report("cases");
    assert!(alarms.is_empty(), "{}", alarms.join("\n"));
    assert!(tally.share() > 0.6, "the opinion says nothing of most cases");
}

/// `ALLUVIUM_JUDGE_STATEMENTS` sets how many statements are tried, `ALLUVIUM_JUDGE_SEED` which.
#[test]
fn random_statements_are_called_equal() {
    let statements = number("ALLUVIUM_JUDGE_STATEMENTS", 200) as usize;
    let seed = number("ALLUVIUM_JUDGE_SEED", 1);
    let known = cases::known().families;
    let mut in_turn = families()
        .filter(|(name, _)| !known.contains_key(*name))
        .collect::<Vec<_>>()
        .into_iter()
        .cycle();
    let mut tally = Tally::default();
    let mut alarms = vec![];
    for seed in (seed..).take(statements.div_ceil(40)) {
        let mut generator = Generator::new(seed);
        let made: Vec<(&str, Question)> = in_turn
            .by_ref()
            .take(40)
            .map(|(name, make)| {
                let sql = make(&mut generator);
                let tables = generator.tables.clone();
                (*name, Question { tables, sql })
            })
            .collect();
        let questions: Vec<Question> = made.iter().map(|(_, question)| question.clone()).collect();
        let verified = subject::verified(&questions);
        let all = made.iter().zip(&verified);
        alarms.extend(all.filter_map(|((name, question), told)| tally.count(name, question, told)));
    }
    tally.report("random statements");
    assert!(alarms.is_empty(), "{}", alarms.join("\n"));
    assert!(tally.share() > 0.4, "the opinion says nothing of most statements");
}
