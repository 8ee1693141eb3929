//! `query`: SQL over a snapshot.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::{OutputFormat, SourceAndLake, UsageError, output, parse_duration, parse_memory};
use crate::repr::Epoch;
use crate::serve::{QueryError, QuestionError, QuestionLimits, Reader};

/// Ask a question of the newest snapshot, or of an earlier one
///
/// Every table is read at the same snapshot, whatever is being committed meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium query dataflows/retail \"SELECT * FROM gold.revenue_by_country ORDER BY revenue DESC LIMIT 10\"
  alluvium query dataflows/retail \"SELECT count(*) FROM silver.order_lines\" --format csv
  alluvium query dataflows/retail \"SELECT country, sum(revenue) FROM gold.revenue GROUP BY country\" --timeout 10m --memory \"8 GiB\"")]
pub struct Query {
    #[command(flatten)]
    source: SourceAndLake,
    /// One SELECT over silver.<table>, gold.<table>, bronze.<input> and dead_letters; it only reads
    sql: String,
    /// Read the snapshot of this epoch, in Unix milliseconds; without it the newest
    #[arg(long, value_name = "EPOCH")]
    snapshot: Option<Epoch>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
    /// Give up after so long
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
    /// Memory for what it computes, and as much for the answer
    #[arg(long, value_name = "BYTES", default_value = "2 GiB", value_parser = parse_memory)]
    memory: u64,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; SQL that fails; a snapshot that does not exist.
pub fn run(args: Query) -> Result<ExitCode> {
    let dataflow = args.source.load_to_ask()?;
    if args.sql.trim().is_empty() {
        return Err(UsageError::new("the SQL is empty", "write one SELECT, in quotes").into());
    }
    let limits = QuestionLimits {
        time: Some(args.timeout),
        memory: Some(args.memory),
        max_value: dataflow.bounds.max_value,
    };
    let reader = Reader::open_within(&dataflow, args.snapshot, limits)?;
    let rows = reader
        .print(&args.sql, args.format.into())
        .map_err(|error| match error {
            QueryError::Question(QuestionError::TooDeep(what, help)) => UsageError::new(what, help).into(),
            QueryError::Question(refused) => {
                UsageError::new(refused.to_string(), "write one SELECT (or EXPLAIN, SHOW, DESCRIBE)").into()
            }
            error => anyhow::Error::from(error),
        })?;
    output::print_rows(&rows, args.format)?;
    Ok(ExitCode::SUCCESS)
}
