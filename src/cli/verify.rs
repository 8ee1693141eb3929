//! `verify`: recompute every table from Bronze in batch, and compare.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use super::{FAILED, SourceAndLake, find_table};
use crate::repr::Epoch;
use crate::serve::verify;

/// Recompute tables from Bronze in batch, and print the rows that differ
///
/// Exits with 1 if any row differs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium verify dataflows/retail
  alluvium verify dataflows/retail --table gold.sales_by_hour")]
pub struct Verify {
    #[command(flatten)]
    source: SourceAndLake,
    /// Only this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Compare at the snapshot of this epoch, in Unix milliseconds; without it the newest
    #[arg(long, value_name = "EPOCH")]
    snapshot: Option<Epoch>,
    /// Print at most so many differing rows of a table
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a table that does not exist; a lake that cannot be read.
pub fn run(args: Verify) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    for name in &args.table {
        find_table(&dataflow, name)?;
    }
    let report = verify::verify(&dataflow, args.snapshot)?;
    let wanted = |table: &str| args.table.is_empty() || args.table.iter().any(|name| name == table);
    let mut out = io::stdout().lock();
    writeln!(out, "snapshot {}", report.epoch)?;
    let mut differs = false;
    for (table, rows) in report.tables.iter().filter(|(table, _)| wanted(table)) {
        let differences: Vec<_> = report.differences.iter().filter(|d| d.table == *table).collect();
        differs |= !differences.is_empty();
        match differences.len() {
            0 => writeln!(out, "{table}: {rows} rows, equal")?,
            n => writeln!(out, "{table}: {rows} rows, {n} differ")?,
        }
        for difference in differences.iter().take(args.limit) {
            writeln!(out, "  {difference}")?;
        }
    }
    for (table, why) in report.skipped.iter().filter(|(table, _)| wanted(table)) {
        writeln!(out, "{table}: not verified: {why}")?;
    }
    Ok(if differs {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}
