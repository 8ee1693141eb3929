//! The command `verify`: computes every table from Bronze again, in two ways, and compares; or compares with another
//! lake.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::{FAILED, SourceAndLake, existing_lake, find_table, output};
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::serve::against::{self, Compared};
use crate::serve::verify::{self, Judgement, Reread};
use crate::shown::shown;

/// Compute tables again from Bronze, and print the rows that differ
///
/// Each table is computed twice: in batch (over all rows at once) by the plan that a run uses, and by the opinion, an
/// independent second evaluation of its SQL, which shares neither plan nor types with the run. If the opinion does not
/// know the SQL of a table, the line about the table says why. Records of CSV, JSON, Parquet and Avro are also decoded a
/// second time, by the readers of the arrow libraries.
///
/// With --against nothing is computed. Every table, also Bronze and dead letters, is compared with the same table of
/// another lake, each lake at its newest snapshot. The columns that say when a record was read are left out: the epochs
/// of Bronze and of dead letters, and ingest_time of Bronze. Tables that use now() differ if the two snapshots were taken
/// at different times.
///
/// Exits with 1 if any row or value differs, or if the SQL of a table fails in batch and the opinion does not know it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium verify dataflows/retail
  alluvium verify dataflows/retail --table gold.sales_by_hour
  alluvium verify dataflows/retail --against /data/rebuilt")]
pub struct VerifyArgs {
    #[command(flatten)]
    source: SourceAndLake,
    /// Verify only this table; without it all tables. The option may be given several times
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// Verify the snapshot of this epoch (Unix time in milliseconds); without it the newest snapshot
    #[arg(long, value_name = "EPOCH")]
    snapshot: Option<Epoch>,
    /// Compare with the tables of this lake, a folder or a URL (s3://, abfss://, gs://), instead of computing them again
    #[arg(long, value_name = "LAKE", conflicts_with = "snapshot")]
    against: Option<String>,
    /// Print at most this many of the rows that differ, for each table
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a table that does not exist; a lake that cannot be read.
pub fn run(args: VerifyArgs) -> Result<ExitCode> {
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
    let mut differs = false; // true also if the comparison was impossible
    for (input, reread) in &report.inputs {
        differs |= reread.differing > 0;
        writeln!(out, "bronze.{input}: {}", reread_as(reread))?;
        for value in reread.misread.iter().take(args.limit) {
            writeln!(out, "  {}", shown(&value.to_string()))?;
        }
    }
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

/// The result of reading an input's records again with arrow's readers.
fn reread_as(reread: &Reread) -> String {
    let Reread {
        equal,
        not_compared,
        differing,
        unread,
        ..
    } = reread;
    let unread: Vec<String> = unread.iter().map(|(feed, why)| format!("feed {feed}: {why}")).collect();
    let unread = unread.join("; ");
    if equal + not_compared + differing == 0 {
        return match unread.is_empty() {
            true => "nothing to read again by arrow's readers".to_string(),
            false => format!("not read again by arrow's readers: {unread}"),
        };
    }
    let mut summary = match differing {
        0 => format!("{equal} values read again by arrow's readers, equal"),
        _ => format!("{differing} of {} values differ by arrow's readers", equal + differing),
    };
    if *not_compared > 0 {
        summary.push_str(&format!("; {not_compared} not compared"));
    }
    if !unread.is_empty() {
        summary.push_str(&format!("; not read again: {unread}"));
    }
    summary
}

/// By what a table was judged, as the end of a line about it.
fn judged_by(standing: &Judgement) -> String {
    match standing {
        Judgement::Independent(shared) if shared.is_empty() => ", independently".to_string(),
        Judgement::Independent(shared) => format!(", independently but for {}", shared.join(", ")),
        Judgement::AgainstBatch(_) => {
            ", independently; DataFusion answers the run's plan otherwise in batch".to_string()
        }
        Judgement::OwnPlan(why) => format!(", by the run's plan only: {why}"),
        Judgement::DiffersFromPlan => String::new(),
        Judgement::DiffersFromOpinion => {
            " from the SQL as it is written, though they are what the run's plan yields in batch".to_string()
        }
    }
}

/// Compares the lake's tables with those of another lake, and prints the rows that differ.
fn compare(dataflow: &Dataflow, other: &str, args: &VerifyArgs) -> Result<ExitCode> {
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
