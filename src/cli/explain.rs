//! `explain`: print how tables are computed.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::{SourceAndLake, find_table, output};
use crate::definition::Dataflow;
use crate::plan::{self, Graph};
use crate::sink::Lake;
use crate::{evolve, run};

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
    let (dataflow, graph) = with_evolved(args.source.load()?)?;
    let table = args.table.map(|name| find_table(&dataflow, &name)).transpose()?;
    explain(&dataflow, &graph, table)
}

/// With the columns that its inputs take from schemas, where a run has written a lake; and its plan.
fn with_evolved(dataflow: Dataflow) -> Result<(Dataflow, Graph)> {
    let is_there = dataflow.lake.contains("://") || Path::new(&dataflow.lake).is_dir();
    if !evolve::is_wanted(&dataflow) || !is_there {
        let graph = plan::compile(&dataflow)?;
        return Ok((dataflow, graph));
    }
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    Ok(run::runtime()?.block_on(evolve::known(&dataflow, &lake))?)
}

/// Prints the plan of one table (a position in `Dataflow::tables`) or of all.
fn explain(dataflow: &Dataflow, graph: &Graph, table: Option<usize>) -> Result<ExitCode> {
    let name = table.map(|table| dataflow.tables[table].qualified_name());
    let mut out = output::out();
    for input in &dataflow.inputs {
        for evolved in &input.evolved {
            writeln!(out, "input {} has column {evolved}", input.name)?;
        }
    }
    write!(out, "{}", graph.explain(name.as_deref()))?;
    Ok(ExitCode::SUCCESS)
}
