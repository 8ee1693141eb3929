//! `explain`: print how tables are computed.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::{SourceAndLake, find_table};
use crate::definition::Dataflow;
use crate::sink::Lake;
use crate::{evolve, plan, run};

/// Print the plan of a table, or of all tables
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium explain dataflows/retail
  alluvium explain dataflows/retail gold.sales_by_hour")]
pub struct Explain {
    #[command(flatten)]
    source: SourceAndLake,
    /// A table as SQL names it: silver.order_lines
    table: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a table that does not exist.
pub fn run(args: Explain) -> Result<ExitCode> {
    let dataflow = with_evolved(args.source.load()?)?;
    let table = args.table.map(|name| find_table(&dataflow, &name)).transpose()?;
    explain(&dataflow, table)
}

/// With the columns that its inputs take from schemas, where a run has written a lake.
fn with_evolved(dataflow: Dataflow) -> Result<Dataflow> {
    let is_there = dataflow.lake.contains("://") || Path::new(&dataflow.lake).is_dir();
    if !evolve::is_wanted(&dataflow) || !is_there {
        return Ok(dataflow);
    }
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    let runtime = run::runtime()?;
    Ok(runtime.block_on(evolve::known(&dataflow, &lake))?)
}

/// Prints the plan of one table (a position in `Dataflow::tables`) or of all.
fn explain(dataflow: &Dataflow, table: Option<usize>) -> Result<ExitCode> {
    let graph = plan::compile(dataflow)?;
    let name = table.map(|table| dataflow.tables[table].qualified_name());
    let mut out = io::stdout().lock();
    for input in &dataflow.inputs {
        for evolved in &input.evolved {
            writeln!(out, "input {} has column {evolved}", input.name)?;
        }
    }
    write!(out, "{}", graph.explain(name.as_deref()))?;
    Ok(ExitCode::SUCCESS)
}
