//! The command `run`: keeps the tables up to date.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::backfill::find_input;
use super::cluster::ClusterArgs;
use super::output::{self, counted, new_letters};
use super::{SourceAndLake, UsageError, parse_duration};
use crate::causes;
use crate::decode::TWICE;
use crate::decode::skip::Skip;
use crate::definition::Dataflow;
use crate::run::{self, Options};
use crate::serve::{DeadLetterClass, DeadLetterCounts, QueryError, letter_classes};
use crate::shown::shown;

/// Keep the tables of a dataflow up to date
///
/// Reads the feeds and commits what changes in the tables, until it is stopped. On Ctrl-C or SIGTERM it stops reading,
/// commits what it has read, prints how long records took to be committed, and ends.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  alluvium run dataflows/retail
  alluvium run dataflows/retail -w 4 --until-caught-up
  alluvium run dataflows/retail --skip order_lines.drops:2026-01.csv:4711
  alluvium run dataflows/retail --for 60s --lake s3://bucket/retail
  alluvium run dataflows/retail -w 2 -n 2 -p 0 -h hosts.txt --secret-file cluster.secret"
)]
pub struct RunArgs {
    #[command(flatten)]
    source: SourceAndLake,
    /// How many workers compute in this process, each a thread; if there are several processes, each has as many
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Stop once all that the feeds hold is read and committed; if a feed cannot be read to its end, the run names it and
    /// exits with 1
    #[arg(long)]
    until_caught_up: bool,
    /// Stop after this time, as in 60s or 2h; without it the run has no time limit
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    limit: Option<Duration>,
    /// Compute all tables again from Bronze and the feeds, instead of loading the state tables that the last run left in
    /// the lake
    #[arg(long)]
    recompute: bool,
    /// Write the measured latencies into this folder, as files for HdrHistogram's tools (latency.hlog and .hgrm)
    #[arg(long, value_name = "FOLDER")]
    latency: Option<PathBuf>,
    /// Make these records dead letters instead of processing them: INPUT.FEED:PARTITION:OFFSET or
    /// INPUT.FEED:PARTITION:FIRST-LAST, as errors and dead letters name them. The option may be given several times; later
    /// runs skip the records without it
    #[arg(long, value_name = "RECORDS")]
    skip: Vec<Skip>,
    /// Take records from the feeds one at a time, so that an error of a worker names the record that caused it; slow
    #[arg(long)]
    one_by_one: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load or plan; a run that fails.
pub fn run(args: RunArgs) -> Result<ExitCode> {
    let cluster = args.cluster.member(&args.source.folder)?;
    let dataflow = args.source.load()?;
    for skip in &args.skip {
        let input = find_input(&dataflow, &skip.input)?;
        if input.feed_index(&skip.feed).is_none() {
            let feeds: Vec<&str> = input.feeds.iter().map(|feed| feed.name.as_str()).collect();
            return Err(UsageError::new(
                format!("input {} has no feed {}, which --skip names", skip.input, skip.feed),
                format!("feeds are {}", feeds.join(", ")),
            )
            .into());
        }
    }
    let options = Options {
        skip: args.skip,
        one_by_one: args.one_by_one,
        cluster,
        workers: usize::from(args.workers),
        until_caught_up: args.until_caught_up,
        duration: args.limit,
        recompute: args.recompute,
        latency_folder: args.latency,
        signals: true,
        live: true,
        ..Options::default()
    };
    keep_up_to_date(dataflow, &options)
}

/// Runs the dataflow, and prints a report of the run.
fn keep_up_to_date(dataflow: Dataflow, options: &Options) -> Result<ExitCode> {
    let dataflow = Arc::new(dataflow);
    let before = DeadLetterCounts::read(&dataflow).ok();
    let outcome = run::run(dataflow.clone(), options)?;
    let letters = letter_classes(&dataflow);
    let taken = DeadLetterCounts {
        records: outcome.rejected,
        files: outcome.rejected_files,
        rows: 0,
    };
    // Only the lake knows of rows that became dead letters, and of past records that a new definition refuses.
    let new = match (before, &letters) {
        (Some(before), Ok(letters)) => DeadLetterCounts::of_classes(letters).since(before).at_least(taken),
        _ => taken,
    };
    let mut out = output::out();
    if outcome.loaded > 0 {
        write!(out, "loaded {} of state, ", counted(outcome.loaded, "row"))?;
    }
    if outcome.replayed > 0 {
        write!(out, "replayed {} of the past, ", counted(outcome.replayed, "record"))?;
    }
    if outcome.backfilled > 0 {
        write!(out, "fed {} of requests, ", counted(outcome.backfilled, "record"))?;
    }
    writeln!(
        out,
        "took {} in {:.1} s; {}; {}",
        counted(outcome.records, "record"),
        outcome.elapsed.as_secs_f64(),
        new_letters(new),
        match outcome.snapshot {
            0 => "nothing changed".to_string(),
            epoch => format!("newest snapshot {epoch}"),
        }
    )?;
    match outcome.skipped {
        _ if options.skip.is_empty() => {}
        0 => writeln!(out, "no record came that --skip names")?,
        1 => writeln!(out, "skipped 1 record, which is a dead letter")?,
        records => writeln!(out, "skipped {records} records, which are dead letters")?,
    }
    tell_letters(&mut out, letters)?;
    for (table, expectation, rows) in &outcome.warnings {
        writeln!(
            out,
            "{table}: {} of this run violate expectation {expectation:?}, and are in the table: on_violation is \"warn\"",
            counted(*rows, "row")
        )?;
    }
    for (input, evolved) in &outcome.evolved {
        writeln!(out, "{input}: column {evolved}")?;
    }
    let mut fields_of: BTreeMap<&str, usize> = BTreeMap::new();
    for ((input, field), records) in &outcome.ignored {
        let input = dataflow.inputs[*input].name.as_str();
        if let Some(name) = field.strip_prefix(TWICE) {
            let records = counted(*records, "record");
            writeln!(
                out,
                "{input}: name {name:?} comes twice in the header of {records}, and the column takes the first of these fields"
            )?;
            continue;
        }
        if field.starts_with('(') {
            writeln!(out, "{input}: {field} {}", counted(*records, "time"))?;
            continue;
        }
        let fields = fields_of.entry(input).or_default();
        *fields += 1;
        if *fields <= IGNORED {
            let records = counted(*records, "record");
            writeln!(out, "{input}: no column takes field {field:?} of {records}")?;
        }
    }
    for (input, fields) in fields_of.into_iter().filter(|(_, fields)| *fields > IGNORED) {
        writeln!(out, "{input}: no column takes {} more fields", fields - IGNORED)?;
    }
    if let Some(corrections) = outcome.corrections.filter(|c| !c.is_empty()) {
        for (table, rows) in corrections {
            writeln!(out, "audit: corrected {} of {table}", counted(rows, "row"))?;
        }
    }
    if !outcome.figures.lines.is_empty() {
        write!(out, "\n{}", outcome.figures)?;
    }
    if outcome.unread.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    out.flush()?;
    for unread in &outcome.unread {
        eprintln!(
            "error: not caught up: {unread}; the rest is committed, and the next run goes on once that is mended"
        );
    }
    Ok(ExitCode::FAILURE)
}

/// How many ignored fields of an input are named; a header may have thousands.
const IGNORED: usize = 20;

/// How many classes of dead letters are printed.
const CLASSES: usize = 8;
/// How many characters of a reason are printed: from its start, and from its end, where the remedy is.
const REASON: (usize, usize) = (250, 150);

/// A long reason without its middle.
fn shortened(reason: &str) -> String {
    let (start, end) = REASON;
    let length = reason.chars().count();
    if length <= start + end {
        return reason.to_string();
    }
    let begins: String = reason.chars().take(start).collect();
    let ends: String = reason.chars().skip(length - end).collect();
    format!("{begins} ... {ends}")
}

/// Prints how many dead letters the lake has, and their reasons.
fn tell_letters(out: &mut impl Write, classes: Result<Vec<DeadLetterClass>, QueryError>) -> io::Result<()> {
    let classes = match classes {
        Ok(classes) => classes,
        // The report of the run was printed already, so a missing lake is no error here.
        Err(QueryError::Empty(_)) => return Ok(()),
        Err(error) => return writeln!(out, "could not count the dead letters: {}", causes::chain(&error)),
    };
    let DeadLetterCounts { records, files, rows } = DeadLetterCounts::of_classes(&classes);
    if records + files + rows == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "dead letters in the lake: {}, {}, {}",
        counted(records, "record"),
        counted(files, "file"),
        counted(rows, "row"),
    )?;
    for class in classes.iter().take(CLASSES) {
        let reason = shortened(&class.reason);
        let letters = counted(class.letters, &class.kind);
        writeln!(out, "  {}: {letters}: {}", class.source, shown(&reason))?;
    }
    if classes.len() > CLASSES {
        let others: u64 = classes[CLASSES..].iter().map(|class| class.letters).sum();
        writeln!(out, "  {others} more for other reasons: see `alluvium dead-letters`")?;
    }
    Ok(())
}
