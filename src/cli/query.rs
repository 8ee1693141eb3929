//! `query`: SQL over a snapshot.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use super::{OutputFormat, SourceAndLake, UsageError};
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::serve::Reader;

/// Ask a question of the newest snapshot, or of an earlier one
///
/// Every table is read at the same snapshot, whatever is being committed meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium query dataflows/retail \"SELECT * FROM gold.revenue_by_country ORDER BY revenue DESC LIMIT 10\"
  alluvium query dataflows/retail \"SELECT count(*) FROM silver.order_lines\" --format csv")]
pub struct Query {
    #[command(flatten)]
    source: SourceAndLake,
    /// One SELECT over silver.<table>, gold.<table>, bronze.<input> and dead_letters
    sql: String,
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
/// A definition that does not load; SQL that fails; a snapshot that does not exist.
pub fn run(args: Query) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    if args.sql.trim().is_empty() {
        return Err(UsageError::new("the SQL is empty", "write one SELECT, in quotes").into());
    }
    query(&dataflow, &args.sql, args.snapshot, args.format)
}

/// Prints the rows of the SELECT at the snapshot, or at the newest.
fn query(dataflow: &Dataflow, sql: &str, snapshot: Option<Epoch>, format: OutputFormat) -> Result<ExitCode> {
    let rows = Reader::open(dataflow, snapshot)?.print(sql, format.into())?;
    io::stdout().lock().write_all(rows.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
