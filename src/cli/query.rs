//! The command `query`: runs SQL over a snapshot.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::{FormatArg, SourceAndLake, UsageError, output, parse_duration, parse_memory};
use crate::repr::Epoch;
use crate::serve::{LakeReader, QueryError, QuestionError, QuestionLimits};

/// Run an SQL query over the newest snapshot, or over an earlier one
///
/// All tables are read as of the same snapshot, even if a run commits a newer one meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium query dataflows/retail \"SELECT * FROM gold.revenue_by_country ORDER BY revenue DESC LIMIT 10\"
  alluvium query dataflows/retail \"SELECT count(*) FROM silver.order_lines\" --format csv
  alluvium query dataflows/retail \"SELECT country, sum(revenue) FROM gold.revenue GROUP BY country\" --timeout 10m --memory \"8 GiB\"")]
pub struct QueryArgs {
    #[command(flatten)]
    source: SourceAndLake,
    /// One statement that only reads, such as a SELECT, over silver.<table>, gold.<table>, bronze.<input> and dead_letters
    sql: String,
    /// Read the snapshot of this epoch (Unix time in milliseconds); without it the newest snapshot
    #[arg(long, value_name = "EPOCH")]
    snapshot: Option<Epoch>,
    /// Print the rows in this format
    #[arg(long, value_enum, default_value_t)]
    format: FormatArg,
    /// Give up after this time
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
    /// The most memory that the computation may use; the answer may use as much again
    #[arg(long, value_name = "BYTES", default_value = "2 GiB", value_parser = parse_memory)]
    memory: u64,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; SQL that fails; a snapshot that does not exist.
pub fn run(args: QueryArgs) -> Result<ExitCode> {
    let dataflow = args.source.load_to_ask()?;
    if args.sql.trim().is_empty() {
        return Err(UsageError::new("the SQL is empty", "write one SELECT, in quotes").into());
    }
    let limits = QuestionLimits {
        time: Some(args.timeout),
        memory: Some(args.memory),
        max_value: dataflow.bounds.max_value,
    };
    let reader = LakeReader::open_within(&dataflow, args.snapshot, limits)?;
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
