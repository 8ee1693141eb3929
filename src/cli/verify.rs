//! `verify`: work every table out from Bronze anew, twice, and compare; or compare with another lake.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::{FAILED, SourceAndLake, existing_lake, find_table, output};
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::serve::against::{self, Compared};
use crate::serve::verify::{self, Standing};
use crate::shown::shown;

/// Recompute tables from Bronze in batch, and print the rows that differ
///
/// Each table is judged twice: by the run's own plan, in batch, and by an independent opinion, which works its SQL out as it
/// is written and shares neither plan nor types with the run. Where the opinion does not know the SQL, the line says why.
///
/// With --against every table, Bronze and dead letters too, is compared with the same table of another lake instead, each
/// lake at its newest snapshot. Left out is what tells when a record was taken: the epochs of Bronze and dead letters, and
/// Bronze's ingest_time. Tables that depend on now() differ where the snapshots' times do.
///
/// Exits with 1 if any row differs, or a table's SQL fails in batch.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium verify dataflows/retail
  alluvium verify dataflows/retail --table gold.sales_by_hour
  alluvium verify dataflows/retail --against /data/rebuilt")]
pub struct Verify {
    #[command(flatten)]
    source: SourceAndLake,
    /// Only this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Compare at the snapshot of this epoch, in Unix milliseconds; without it the newest
    #[arg(long, value_name = "EPOCH")]
    snapshot: Option<Epoch>,
    /// Compare with the tables of this lake instead of recomputing: a folder, or s3://, abfss://, gs://
    #[arg(long, value_name = "LAKE", conflicts_with = "snapshot")]
    against: Option<String>,
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
    if let Some(other) = &args.against {
        return compare(&dataflow, &existing_lake("--against", other)?, &args);
    }
    let report = verify::verify_tables(&dataflow, args.snapshot, &args.table)?;
    let mut out = output::out();
    writeln!(out, "snapshot {}", report.epoch)?;
    let mut differs = false; // or is not known
    for (table, rows) in &report.tables {
        let differences: Vec<_> = report.differences.iter().filter(|d| d.table == *table).collect();
        differs |= !differences.is_empty();
        let how = judged_by(&report.standings[table]);
        match differences.len() {
            0 => writeln!(out, "{table}: {rows} rows, equal{}", shown(&how))?,
            n => writeln!(out, "{table}: {rows} rows, {n} differ{how}")?,
        }
        for difference in differences.iter().take(args.limit) {
            writeln!(out, "  {}", shown(&difference.to_string()))?;
        }
    }
    for (table, why) in &report.skipped {
        writeln!(out, "{table}: not verified: {why}")?;
    }
    for (table, why) in &report.failed {
        differs = true;
        writeln!(out, "{table}: not verified: its SQL failed in batch: {}", shown(why))?;
    }
    Ok(if differs {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// What a table was judged by, behind what came of it.
fn judged_by(standing: &Standing) -> String {
    match standing {
        Standing::Independent(shared) if shared.is_empty() => ", independently".to_string(),
        Standing::Independent(shared) => format!(", independently but for {}", shared.join(", ")),
        Standing::AgainstBatch(_) => {
            ", independently; DataFusion answers the run's plan otherwise in batch".to_string()
        }
        Standing::OwnPlan(why) => format!(", by the run's plan only: {why}"),
        Standing::DiffersFromPlan => String::new(),
        Standing::DiffersFromOpinion => {
            " from the SQL as it is written, though they are what the run's plan yields in batch".to_string()
        }
    }
}

/// Compares the lake's tables with another's, and prints the rows that differ.
fn compare(dataflow: &Dataflow, other: &str, args: &Verify) -> Result<ExitCode> {
    let comparison = against::against(dataflow, other)?;
    let wanted = |table: &str| args.table.is_empty() || args.table.iter().any(|name| name == table);
    let mut out = output::out();
    writeln!(
        out,
        "snapshot {} against {} of {other}",
        comparison.epoch, comparison.other
    )?;
    let mut equal = true;
    for compared in comparison.tables.iter().filter(|compared| wanted(&compared.table)) {
        equal &= compared.is_equal();
        writeln!(out, "{}: {}", compared.table, verdict(compared))?;
        for example in compared.examples.iter().take(args.limit) {
            let (here, there) = (example.found, example.expected);
            writeln!(out, "  here {here}, there {there}: {}", shown(&example.row))?;
        }
    }
    Ok(if equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn verdict(compared: &Compared) -> String {
    let without = match compared.left_out {
        [] => String::new(),
        columns => format!(" (without {})", columns.join(", ")),
    };
    match compared.rows {
        [None, None] => "in neither lake".to_string(),
        [Some(rows), None] => format!("{rows} rows, not in the other lake"),
        [None, Some(rows)] => format!("not in this lake, {rows} rows in the other"),
        _ if !compared.columns.is_empty() => format!("columns differ: {}", compared.columns.join(", ")),
        [Some(rows), _] if compared.is_equal() => format!("{rows} rows, equal{without}"),
        [Some(ours), Some(theirs)] => {
            format!(
                "{ours} rows, {theirs} in the other lake, {} differ{without}",
                compared.differing
            )
        }
    }
}
