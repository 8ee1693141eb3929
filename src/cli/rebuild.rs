//! The command `rebuild`: makes another lake from the Bronze of this one.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::{Source, UsageError, environment, existing_lake, output};
use crate::definition::{lake_of_dataflow, load};
use crate::run::{self, Options, RebuildError};

/// Compute every table again from Bronze, in a new lake
///
/// Copies Bronze, the archived files that it refers to, the dead letters and the positions of the feeds from the newest
/// snapshot of the old lake. Then all records of Bronze go through the same graph as in a run, which computes the
/// tables. The new lake is complete: `run --lake` continues with it, each feed from its position in the old lake, and no
/// record is read twice. The old lake is only read, so a run may continue to write to it. No feed is read, except those
/// of inputs with bronze = false, whose past is read again from the feeds. Earlier versions of the old tables are not
/// copied.
///
/// The new lake must be empty. `verify --against` compares the two lakes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium rebuild dataflows/retail --into /data/rebuilt
  alluvium rebuild dataflows/retail --from s3://bucket/retail --into s3://bucket/retail-2 -w 4
  alluvium verify dataflows/retail --against /data/rebuilt")]
pub struct RebuildArgs {
    #[command(flatten)]
    source: Source,
    /// The new lake: a folder that does not exist or is empty, or a URL (s3://, abfss://, gs://)
    #[arg(long, value_name = "LAKE")]
    into: String,
    /// The old lake: a folder or a URL; without it the `lake` of dataflow.toml
    #[arg(long, value_name = "LAKE")]
    from: Option<String>,
    /// How many workers compute, each a thread
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a new lake that is not empty; an old one that holds no snapshot.
pub fn run(args: RebuildArgs) -> Result<ExitCode> {
    let mut dataflow = load(&args.source.folder, &environment)?;
    if let Some(from) = &args.from {
        dataflow.lake = existing_lake("--from", from)?;
    }
    let into = lake_of_dataflow(&args.into, &std::env::current_dir()?, &dataflow.folder)
        .map_err(|error| UsageError::new(format!("bad --into: {error}"), error.help()))?;
    if into.trim_end_matches('/') == dataflow.lake.trim_end_matches('/') {
        let help = "name another lake: the old one is not touched";
        return Err(UsageError::new("bad --into: that is the lake to rebuild", help).into());
    }
    let options = Options {
        workers: usize::from(args.workers),
        signals: true,
        live: true,
        ..Options::default()
    };
    let mut out = output::out();
    let rebuilt = run::rebuild(&dataflow, &into, options, |line| {
        // If the reader has closed the pipe, the work goes on.
        let _ = writeln!(out, "{line}");
    });
    let rebuilt = match rebuilt {
        Err(RebuildError::NotEmpty { lake }) => {
            let help = "name a folder that is not there yet, or delete what is there";
            return Err(UsageError::new(format!("could not rebuild into {lake}: it is not empty"), help).into());
        }
        rebuilt => rebuilt?,
    };
    for (table, rows) in rebuilt.outcome.corrections.unwrap_or_default() {
        if table != "dead_letters" {
            writeln!(out, "{table}: {rows} rows")?;
        }
    }
    writeln!(
        out,
        "rebuilt snapshot {} in {into}: {} records through the graph in {:.1} s; newest snapshot {}",
        rebuilt.from,
        rebuilt.outcome.replayed,
        rebuilt.outcome.elapsed.as_secs_f64(),
        rebuilt.outcome.snapshot,
    )?;
    Ok(ExitCode::SUCCESS)
}
