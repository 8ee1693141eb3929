//! `plan`: what a run would do before it reads on.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::{SourceAndLake, output};
use crate::run::{self, Part, PlanReport};

/// Show what a run would do with what the lake holds; nothing is touched
///
/// After a change of the definition: which inputs, tables and operators are new, changed, unchanged or gone, what is
/// loaded from the lake, and how much is replayed from Bronze.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium plan dataflows/retail
  alluvium plan dataflows/retail --lake s3://bucket/retail")]
pub struct Plan {
    #[command(flatten)]
    source: SourceAndLake,
    /// Of a run with --recompute
    #[arg(long)]
    recompute: bool,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a lake that cannot be read.
pub fn run(args: Plan) -> Result<ExitCode> {
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
    let width = report
        .parts
        .iter()
        .map(|part| part.name.chars().count())
        .max()
        .unwrap_or(0);
    for Part {
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
            "in all: {} rows are loaded, {} records are replayed{}\n",
            report.loaded,
            report.replayed,
            match report.reread.as_slice() {
                [] => String::new(),
                inputs => format!(", the feeds of {} are read again", inputs.join(", ")),
            }
        );
    }
    text
}
