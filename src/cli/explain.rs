//! `explain`: print how tables are computed.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use super::{Source, find_table};
use crate::definition::Dataflow;
use crate::plan;

/// Print the plan of a table, or of all tables
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium explain dataflows/retail
  alluvium explain dataflows/retail gold.sales_by_hour")]
pub struct Explain {
    #[command(flatten)]
    source: Source,
    /// A table as SQL names it: silver.order_lines
    table: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a table that does not exist.
pub fn run(args: Explain) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    let table = args.table.map(|name| find_table(&dataflow, &name)).transpose()?;
    explain(&dataflow, table)
}

/// Prints the plan of one table (a position in `Dataflow::tables`) or of all.
fn explain(dataflow: &Dataflow, table: Option<usize>) -> Result<ExitCode> {
    let graph = plan::compile(dataflow)?;
    let name = table.map(|table| dataflow.tables[table].qualified_name());
    write!(io::stdout().lock(), "{}", graph.explain(name.as_deref()))?;
    Ok(ExitCode::SUCCESS)
}
