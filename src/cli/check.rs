//! `check`: load, print every mistake or a summary; no data is touched.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use super::Source;
use crate::definition::{Case, Dataflow, Diagnostics, FeedKind, cases};
use crate::plan;

/// Find every mistake in a dataflow; no data is touched
///
/// Prints each mistake with its file, line and what to do, or a summary of the dataflow.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alluvium check dataflows/retail")]
pub struct Check {
    #[command(flatten)]
    source: Source,
}

/// Runs the command.
///
/// # Errors
/// `Diagnostics`: the mistakes.
pub fn run(args: Check) -> Result<ExitCode> {
    let loaded = args.source.load();
    let cases = cases(&args.source.folder);
    let (dataflow, cases) = match (loaded, cases) {
        (Ok(dataflow), Ok(cases)) => (dataflow, cases),
        (Err(error), Err(more)) => return Err(joined(error, more)),
        (Err(error), _) => return Err(error),
        (_, Err(error)) => return Err(error.into()),
    };
    plan::compile(&dataflow)?;
    let mut out = io::stdout().lock();
    write!(out, "{}", summary(&dataflow, &cases))?;
    Ok(ExitCode::SUCCESS)
}

/// Mistakes of the definition, then those of its tests.
fn joined(error: anyhow::Error, more: Diagnostics) -> anyhow::Error {
    match error.downcast::<Diagnostics>() {
        Ok(mut first) => {
            first.0.extend(more.0);
            first.into()
        }
        Err(other) => other,
    }
}

fn summary(dataflow: &Dataflow, cases: &[Case]) -> String {
    let mut out = format!("dataflow {}\nlake {}\n", dataflow.name, dataflow.lake);
    for input in &dataflow.inputs {
        let kind = match (input.key.is_empty(), input.dedup_key.is_empty()) {
            (false, _) => format!("key {}", input.key.join(", ")),
            (true, false) => format!("events, first per {}", input.dedup_key.join(", ")),
            (true, true) => "events".to_string(),
        };
        out += &format!("input {} ({} columns, {kind})\n", input.name, input.columns.len());
        for feed in &input.feeds {
            let place = match &feed.kind {
                FeedKind::Files { path } => format!("files {path}"),
                FeedKind::Log { path } => format!("log {}", path.display()),
                FeedKind::Generate(generate) => format!("generate {}", generate.generator),
            };
            out += &format!("  feed {}: {place}\n", feed.name);
        }
    }
    for table in &dataflow.tables {
        out += &format!("table {}", table.qualified_name());
        if !table.key.is_empty() {
            out += &format!(" (key {})", table.key.join(", "));
        }
        out += "\n";
    }
    out += &format!(
        "ok: {}, {}, {}\n",
        counted(dataflow.inputs.len(), "input"),
        counted(dataflow.tables.len(), "table"),
        counted(cases.len(), "test")
    );
    out
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}
