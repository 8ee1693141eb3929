//! `dead-letters`: what could not be used, and why.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use super::{OutputFormat, SourceAndLake};
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::serve::{OutputFormat as ServeFormat, Reader};

/// Print the records and rows that could not be used, with place and reason
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium dead-letters dataflows/retail
  alluvium dead-letters dataflows/retail --limit 1000 --format json")]
pub struct DeadLetters {
    #[command(flatten)]
    source: SourceAndLake,
    /// Print at most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Read the snapshot of this epoch, in Unix milliseconds; without it the newest
    #[arg(long, value_name = "EPOCH")]
    snapshot: Option<Epoch>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; a lake that cannot be read.
pub fn run(args: DeadLetters) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    dead_letters(&dataflow, args.limit, args.snapshot, args.format)
}

/// Prints at most `limit` dead letters, newest first, and how many there are.
fn dead_letters(dataflow: &Dataflow, limit: usize, snapshot: Option<Epoch>, format: OutputFormat) -> Result<ExitCode> {
    let reader = Reader::open(dataflow, snapshot)?;
    let rows = reader.print(
        &format!(
            "SELECT kind, COALESCE(table_name, input) AS source, feed, \"partition\", \"offset\", reason, \
             CAST(payload AS VARCHAR) AS payload, epoch \
             FROM dead_letters ORDER BY epoch DESC NULLS LAST, source, \"partition\", \"offset\" LIMIT {limit}"
        ),
        format.into(),
    )?;
    io::stdout().lock().write_all(rows.as_bytes())?;
    let count = reader.print("SELECT COUNT(*) AS n FROM dead_letters", ServeFormat::Csv)?;
    eprintln!("{} dead letters in all", count.lines().nth(1).unwrap_or("0"));
    Ok(ExitCode::SUCCESS)
}
