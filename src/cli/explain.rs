//! The command `explain`: prints how tables are computed.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::{SourceAndLake, find_table, output};
use crate::definition::Dataflow;
use crate::lake::Lake;
use crate::plan::{self, Graph};
use crate::{evolve, run};

/// Print the plan of a table, or of all tables
///
/// A plan shows the operators that compute the table, one per line; below each operator, indented, are its inputs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium explain dataflows/retail
  alluvium explain dataflows/retail gold.sales_by_hour")]
pub struct ExplainArgs {
    #[command(flatten)]
    source: SourceAndLake,
    /// The table, named as in SQL (silver.order_lines); without it the plans of all tables are printed
    table: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a table that does not exist.
pub fn run(args: ExplainArgs) -> Result<ExitCode> {
    let (dataflow, graph) = with_evolved(args.source.load()?)?;
    let table = args.table.map(|name| find_table(&dataflow, &name)).transpose()?;
    explain(&dataflow, &graph, table)
}

/// Adds the columns that inputs have taken from schemas, if a run has written a lake; returns the dataflow with its
/// plan.
fn with_evolved(dataflow: Dataflow) -> Result<(Dataflow, Graph)> {
    let is_there = dataflow.lake.contains("://") || Path::new(&dataflow.lake).is_dir();
    if !evolve::is_wanted(&dataflow) || !is_there {
        let graph = plan::compile(&dataflow)?;
        return Ok((dataflow, graph));
    }
    let lake = Lake::open(&dataflow.lake, &dataflow.store_options)?;
    Ok(run::runtime()?.block_on(evolve::known(&dataflow, &lake))?)
}

/// Prints the plan of one table (an index into `Dataflow::tables`), or of all.
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
