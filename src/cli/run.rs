//! `run`: keep the tables up to date.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::cluster::Cluster;
use super::{SourceAndLake, parse_duration};
use crate::definition::Dataflow;
use crate::run::{self, Options};

/// Keep the tables of a dataflow up to date
///
/// Runs until it is stopped: Ctrl-C and SIGTERM read no more, commit what was read, and print how long
/// records took.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  alluvium run dataflows/retail
  alluvium run dataflows/retail -w 4 --until-caught-up
  alluvium run dataflows/retail --for 60s --lake s3://bucket/retail
  alluvium run dataflows/retail -w 2 -n 2 -p 0 -h hosts.txt --secret-file cluster.secret"
)]
pub struct Run {
    #[command(flatten)]
    source: SourceAndLake,
    /// How many worker threads compute
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Stop when every feed is exhausted and all of it is committed; what cannot be read is named, with exit code 1
    #[arg(long)]
    until_caught_up: bool,
    /// Stop after this long, as in 60s or 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    limit: Option<Duration>,
    /// Over a lake with a past, make all of it again from Bronze and the feeds, whatever the lake keeps of the graph
    #[arg(long)]
    recompute: bool,
    /// Write latency files for HdrHistogram's tools into this folder
    #[arg(long, value_name = "FOLDER")]
    latency: Option<PathBuf>,
    #[command(flatten)]
    cluster: Cluster,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a run that fails.
pub fn run(args: Run) -> Result<ExitCode> {
    let cluster = args.cluster.member(&args.source.folder)?;
    let dataflow = args.source.load()?;
    let options = Options {
        cluster,
        workers: usize::from(args.workers),
        until_caught_up: args.until_caught_up,
        duration: args.limit,
        recompute: args.recompute,
        latency_folder: args.latency,
        signals: true,
        live: true,
        ..Options::default()
    };
    keep_up_to_date(dataflow, &options)
}

/// Runs the dataflow, and prints what the run leaves to say.
fn keep_up_to_date(dataflow: Dataflow, options: &Options) -> Result<ExitCode> {
    let dataflow = Arc::new(dataflow);
    let outcome = run::run(dataflow.clone(), options)?;
    let mut out = io::stdout().lock();
    if outcome.loaded > 0 {
        write!(out, "loaded {} rows of state, ", outcome.loaded)?;
    }
    if outcome.replayed > 0 {
        write!(out, "replayed {} records of the past, ", outcome.replayed)?;
    }
    if outcome.backfilled > 0 {
        write!(out, "fed {} records of requests, ", outcome.backfilled)?;
    }
    writeln!(
        out,
        "took {} records in {:.1} s, {} of them dead letters; {}",
        outcome.records,
        outcome.elapsed.as_secs_f64(),
        outcome.rejected,
        match outcome.snapshot {
            0 => "nothing changed".to_string(),
            epoch => format!("newest snapshot {epoch}"),
        }
    )?;
    for (input, evolved) in &outcome.evolved {
        writeln!(out, "{input}: column {evolved}")?;
    }
    for ((input, field), records) in &outcome.ignored {
        let input = &dataflow.inputs[*input].name;
        match field.starts_with('(') {
            true => writeln!(out, "{input}: {field} {records} times")?,
            false => writeln!(out, "{input}: no column takes field {field:?} of {records} records")?,
        }
    }
    if let Some(corrections) = outcome.corrections.filter(|c| !c.is_empty()) {
        for (table, rows) in corrections {
            writeln!(out, "audit: corrected {rows} rows of {table}")?;
        }
    }
    if !outcome.figures.lines.is_empty() {
        write!(out, "\n{}", outcome.figures)?;
    }
    if outcome.unread.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    out.flush()?;
    for unread in &outcome.unread {
        eprintln!(
            "error: not caught up: {unread}; the rest is committed, and the next run goes on once that is mended"
        );
    }
    Ok(ExitCode::FAILURE)
}
