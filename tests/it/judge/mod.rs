//! The judge tests that SQL means what PostgreSQL and the standard say.
//!
//! ```text
//! cases.rs: rows, a statement, the right answer ------------------------------------+
//!                                                                                   v
//! generate/: random tables and statements --> subject.rs: Alluvium, three ways --> compare.rs, accepted.rs
//!                    |                                                              ^        |
//!                    +------> translate.rs --> server.rs: PostgreSQL ---------------+        v
//!                                                                            shrink.rs: the smallest that differs
//! ```
//!
//! `known.toml` lists what is wrong at present: cases, and families of random statements, which only the ignored test
//! tries. `ALLUVIUM_JUDGE_STATEMENTS=20000` tries more statements (every night, say), `ALLUVIUM_JUDGE_SEED=7` other
//! ones, `ALLUVIUM_JUDGE_FAMILIES=top,case` those of some families. `ALLUVIUM_JUDGE_FOUND=file` writes the smallest
//! wrong statement of each family to a file, in the format of `found.json`.
//!
//! `suites/` runs the queries of TPC-H and Nexmark, whose answers are stored.
//!
//! PostgreSQL is started by `scripts/services start postgres; eval "$(scripts/services env)"`; without it the random
//! tests skip.

mod accepted;
mod cases;
mod compare;
mod generate;
mod opinions;
mod process;
mod random;
mod server;
mod shrink;
mod subject;
mod suites;
mod tables;
mod translate;

use self::cases::{Case, Judged};
use self::generate::{Family, families};
use self::random::Report;
use self::subject::{Question, Ways};
use crate::kafka::service;
use crate::support::number;

#[test]
fn cases_are_right_but_for_those_known_to_be_wrong() {
    let known = cases::known().cases;
    let shared = cases::shared();
    let all_here = shared.is_some();
    let cases: Vec<Case> = cases::found().into_iter().chain(shared.into_iter().flatten()).collect();
    let questions: Vec<Question> = cases.iter().map(|case| case.question.clone()).collect();
    let told = subject::ask(&questions, Ways::All);
    let (mut right, mut refused, mut wrong) = (0, 0, vec![]);
    let mut complaints = vec![];
    for (case, told) in cases.iter().zip(&told) {
        let judged = case.judge(told);
        match (&judged, known.get(&case.name)) {
            (Judged::Wrong(got), None) => complaints.push(format!(
                "{} is wrong\n  {}\n  got   {got}\n  right {}",
                case.name,
                case.question.sql,
                case.right()
            )),
            (Judged::Right | Judged::Refused, Some(_)) => {
                complaints.push(format!("{} has become right: strike it from known.toml", case.name));
            }
            _ => {}
        }
        match judged {
            Judged::Right => right += 1,
            Judged::Refused => refused += 1,
            Judged::Wrong(_) => wrong.push(case.name.as_str()),
        }
    }
    eprintln!(
        "cases: {right} right, {refused} rightly refused, {} wrong of {}",
        wrong.len(),
        cases.len()
    );
    for name in known.keys().filter(|_| all_here) {
        if !cases.iter().any(|case| case.name == *name) {
            complaints.push(format!("known.toml names {name}, which is no case"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn random_statements_agree_with_postgresql() {
    let Some(url) = service("ALLUVIUM_POSTGRES") else {
        return;
    };
    let known = cases::known().families;
    let right: Vec<&Family> = families().filter(|(name, _)| !known.contains_key(*name)).collect();
    let report = try_families(&url, &right);
    assert_right(&url, report);
}

#[test]
#[ignore = "families in known.toml are wrong today"]
fn random_statements_of_all_families_agree_with_postgresql() {
    let Some(url) = service("ALLUVIUM_POSTGRES") else {
        return;
    };
    let all: Vec<&Family> = families().collect();
    let report = try_families(&url, &all);
    for name in cases::known().families.keys() {
        if report.families.get(name.as_str()).is_some_and(|tally| tally.is_right()) {
            eprintln!("{name} was right in all statements: strike it from known.toml");
        }
    }
    assert_right(&url, report);
}

#[test]
fn known_families_exist() {
    let names: Vec<&str> = families().map(|(name, _)| *name).collect();
    for known in cases::known().families.keys() {
        assert!(
            names.contains(&known.as_str()),
            "known.toml names {known}, which is no family"
        );
    }
}

fn try_families(url: &str, families: &[&'static Family]) -> Report {
    let seed = number("ALLUVIUM_JUDGE_SEED", 1);
    let statements = number("ALLUVIUM_JUDGE_STATEMENTS", 1000) as usize;
    let wanted = std::env::var("ALLUVIUM_JUDGE_FAMILIES").ok();
    let wanted = |name: &str| {
        wanted
            .as_ref()
            .is_none_or(|wanted| wanted.split(',').any(|one| one == name))
    };
    let families: Vec<&Family> = families.iter().copied().filter(|(name, _)| wanted(name)).collect();
    eprintln!(
        "{statements} statements of {} families, ALLUVIUM_JUDGE_SEED={seed}",
        families.len()
    );
    let report = random::try_statements(url, &families, statements, seed);
    eprintln!("{report}");
    report
}

/// Asserts that nothing differs; otherwise reports the smallest difference of each family.
fn assert_right(url: &str, report: Report) {
    let count = report.found.len();
    let found = shrink::shrink(url, random::first_of_each(report.found));
    if let Some(path) = std::env::var_os("ALLUVIUM_JUDGE_FOUND") {
        let cases: Vec<String> = found.iter().map(|one| one.case().to_string()).collect();
        let text = format!("[\n{}\n]\n", cases.join(",\n"));
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        count == 0,
        "{count} statements differ, of which the smallest:\n{}",
        told.join("\n")
    );
}
