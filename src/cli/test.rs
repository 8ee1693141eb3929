//! The command `test`: runs the dataflow's own tests.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::output::{self, counted};
use super::{FAILED, Source, UsageError};
use crate::cases::run_case;
use crate::definition::{Case, Dataflow, cases, nearest};
use crate::shown::shown;

/// Run the dataflow's own tests, which are the folders in its folder tests
///
/// In the folder of a test, inputs/INPUT.csv or inputs/INPUT.ndjson has rows of that input, under the names of its columns
/// or of the fields that they are taken from. expect/LAYER.TABLE.csv has all rows that the table must hold then, in any
/// order, with the columns that its header names. A test of several steps has folders 1, 2 and so on, each with its own
/// inputs and expect; the rows of a step are added to those of the steps before. Rows that become dead letters are
/// printed, and alone do not fail a test. Exits with 1 if any table differs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium test dataflows/retail
  alluvium test dataflows/retail late_cancellation -w 2")]
pub struct TestArgs {
    #[command(flatten)]
    source: Source,
    /// Run only these tests; without names all of them
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How many workers compute, each a thread
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a test that does not exist.
pub fn run(args: TestArgs) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    let cases = chosen(cases(&args.source.folder)?, &args.names)?;
    test(&dataflow, &cases, usize::from(args.workers))
}

/// The tests with these names, or all if no name is given.
fn chosen(cases: Vec<Case>, names: &[String]) -> Result<Vec<Case>> {
    for name in names {
        if !cases.iter().any(|case| case.name == *name) {
            let known: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
            return Err(UsageError::new(
                format!("unknown test {name:?}"),
                match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}? tests are {}", known.join(", ")),
                    None => format!("tests are {}", known.join(", ")),
                },
            )
            .into());
        }
    }
    Ok(cases
        .into_iter()
        .filter(|case| names.is_empty() || names.contains(&case.name))
        .collect())
}

/// How many dead letters of a test are printed.
const NAMED: usize = 20;

/// Runs the tests and prints differences; the exit code is 1 if there are any.
fn test(dataflow: &Dataflow, cases: &[Case], workers: usize) -> Result<ExitCode> {
    let mut out = output::out();
    let (mut passed, mut failed) = (0, 0);
    for case in cases {
        let outcomes = run_case(dataflow, case, workers)?;
        match outcomes.iter().all(|outcome| outcome.differences.is_empty()) {
            true => passed += 1,
            false => failed += 1,
        }
        for outcome in outcomes {
            let verdict = if outcome.differences.is_empty() { "ok" } else { "FAILED" };
            writeln!(out, "test {} ... {verdict}", outcome.name)?;
            if !outcome.refused.is_empty() {
                let refused = counted(outcome.refused.len() as u64, "dead letter");
                writeln!(out, "  {refused} by its rows:")?;
                for refused in outcome.refused.iter().take(NAMED) {
                    writeln!(out, "    {}", shown(refused))?;
                }
                if let Some(more @ 1..) = outcome.refused.len().checked_sub(NAMED) {
                    writeln!(out, "    and {more} more")?;
                }
            }
            for (table, mismatches) in outcome.differences {
                writeln!(out, "  {table} (- expected, + found)")?;
                for mismatch in mismatches {
                    writeln!(out, "    {}", shown(&mismatch.to_string()))?;
                }
            }
        }
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}
