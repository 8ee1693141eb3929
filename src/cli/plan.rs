//! The command `plan`: shows what a run would do before it reads feeds.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::SourceAndLake;
use super::output::{self, counted_are};
use crate::run::{self, PlanReport, PlannedChange};

/// Show what a run would do at its start, without doing it
///
/// Compares the definition with what the lake holds. Prints which inputs, tables and operators are new, changed,
/// unchanged or gone, what a run would load from the lake, and how many records it would read again from Bronze. Nothing
/// is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium plan dataflows/retail
  alluvium plan dataflows/retail --lake s3://bucket/retail")]
pub struct PlanArgs {
    #[command(flatten)]
    source: SourceAndLake,
    /// Show what a run with --recompute would do
    #[arg(long)]
    recompute: bool,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a lake that cannot be read.
pub fn run(args: PlanArgs) -> Result<ExitCode> {
    let dataflow = Arc::new(args.source.load()?);
    let lake = dataflow.lake.clone();
    let report = run::plan(dataflow, args.recompute)?;
    output::out().write_all(text(&lake, &report).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn text(lake: &str, report: &PlanReport) -> String {
    let mut text = match report.epoch {
        Some(epoch) => format!("lake {lake}, snapshot {epoch}\n\n"),
        None => format!("lake {lake}: new\n\n"),
    };
    if report.is_of_another_version {
        text += "the lake was written by a version of Alluvium that writes plans and states otherwise: what it keeps of the graph is \
                 not read, and all is computed again from Bronze, once\n\n";
    }
    let width = report
        .parts
        .iter()
        .map(|part| part.name.chars().count())
        .max()
        .unwrap_or(0);
    for PlannedChange {
        kind,
        name,
        standing,
        does,
    } in &report.parts
    {
        text += &format!("{kind:5}  {name:width$}  {standing:9}  {does}\n");
    }
    let (stay, come, go) = &report.operators;
    text += &format!("\noperators: {stay} unchanged, {} new, {} gone\n", come.len(), go.len());
    let names = |sign: char, names: &[String]| {
        names
            .iter()
            .map(|name| format!("  {sign} {name}\n"))
            .collect::<String>()
    };
    if report.epoch.is_some() {
        text += &names('+', come);
        text += &names('-', go);
        text += &format!(
            "in all: {} loaded, {} replayed{}\n",
            counted_are(report.loaded, "row"),
            counted_are(report.replayed, "record"),
            match report.reread.as_slice() {
                [] => String::new(),
                inputs => format!(", the feeds of {} are read again", inputs.join(", ")),
            }
        );
    }
    text
}
