//! The command `backfill`: feeds files, or a part of history, to an input in addition to its feeds.

use std::process::ExitCode;

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDate, NaiveDateTime};

use super::ask::{RequestOptions, ask, report};
use super::{SourceAndLake, UsageError};
use crate::backfill::{Allowed, Forbidden, LOWEST_RATE, MOST_FILES, Request, Work};
use crate::definition::{Dataflow, EXTRA_FORMAT_NAMES, Input, files_location, nearest, pattern_of_file};
use crate::run;
use crate::shown::shown;
use crate::source::{list_files, open_regular};

/// Add files, or records that Bronze holds, to an input, in addition to its feeds
///
/// If a run is using the lake, it does the backfill while it reads its feeds; records of the feeds go first. If there is
/// no such run, this command computes until the backfill is committed, and reads no feed. The records go through the
/// same graph as all others, each exactly once, even after a crash: the next run continues a backfill that was
/// interrupted.
///
/// Files are read like those of one of the input's feeds of kind "files": in its format, with its columns, and with its
/// rank among the versions of a key. With --format they are read by the input's own columns instead, and have the rank
/// of its first feed. A file is recognised by its bytes: if it was backfilled before, even under another name, it changes
/// nothing, unless --again is given. Files in the folder of a feed are left to that feed. A folder stands for the files
/// directly in it.
///
/// With --from-bronze, records that Bronze holds go through the input again, with the versions that they had. So they do
/// not replace newer rows: in an input with a key, an older version never replaces a newer one; in an input with a
/// dedup_key, the first row stays. An input with neither would count rows twice, so only those of its records that are
/// dead letters are taken. Records that can be used now leave the dead letters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium backfill dataflows/retail order_lines archive/2024/*.csv.gz
  alluvium backfill dataflows/retail order_lines s3://bucket/2024/ --feed drops --rate 5000
  alluvium backfill dataflows/retail customers dump.parquet --format parquet
  alluvium backfill dataflows/retail order_lines --from-bronze --since 2026-01-01 --until 2026-02-01")]
pub struct BackfillArgs {
    #[command(flatten)]
    source: SourceAndLake,
    /// The input that the files or records belong to
    input: String,
    /// Files, folders and globs, on this machine or at a URL (s3://, abfss://, gs://)
    #[arg(
        value_name = "PATH",
        required_unless_present = "from_bronze",
        conflicts_with = "from_bronze"
    )]
    paths: Vec<String>,
    /// The feed of kind "files" whose format and columns the files have; required if the input has several such feeds
    #[arg(long, value_name = "NAME", conflicts_with = "from_bronze")]
    feed: Option<String>,
    /// Read the files in this format, by the input's own columns: csv, ndjson, json, parquet, avro or debezium-json
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["feed", "from_bronze"])]
    format: Option<String>,
    /// Read also files that were backfilled before
    #[arg(long, conflicts_with = "from_bronze")]
    again: bool,
    /// Take the records that Bronze holds for the input, instead of files
    #[arg(long)]
    from_bronze: bool,
    /// Take only records from this time on, in UTC, as in 2026-01-31 or 2026-01-31T12:00:00. The time of a record is that
    /// of its event if its source tells it, else that of its arrival
    #[arg(long, value_name = "TIME", value_parser = parse_moment, requires = "from_bronze")]
    since: Option<i64>,
    /// Take only records before this time, written as for --since
    #[arg(long, value_name = "TIME", value_parser = parse_moment, requires = "from_bronze")]
    until: Option<i64>,
    /// The most records per second; without it as fast as possible, but at most backfill_rate of dataflow.toml (10000)
    /// while records of feeds arrive
    #[arg(long, value_name = "ROWS", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Return at once, and leave the backfill to the run that is using the lake, or to the next run
    #[arg(long)]
    detach: bool,
    /// How many workers compute, each a thread, if no run is using the lake
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; an input or feed that does not exist; paths that name no file; a run that fails.
pub fn run(args: BackfillArgs) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    let input = find_input(&dataflow, &args.input)?;
    if !input.bronze {
        return Err(UsageError::new(
            format!(
                "input {} keeps no Bronze, and a restart could not make these rows again",
                input.name
            ),
            "set bronze = true; or drop the files where a feed reads them",
        )
        .into());
    }
    let work = match args.from_bronze {
        true => Work::Bronze {
            since: args.since,
            until: args.until,
        },
        false => Work::Files {
            feed: find_feed(input, args.feed.as_deref(), args.format.as_deref())?,
            files: find_files(&dataflow, &args.paths)?,
            again: args.again,
        },
    };
    let request = Request::new(&input.name, work, args.rate);
    let asking = RequestOptions {
        detach: args.detach,
        workers: usize::from(args.workers),
    };
    let outcomes = ask(dataflow, &[request], &asking)?;
    report(&outcomes)
}

pub(super) fn find_input<'a>(dataflow: &'a Dataflow, name: &str) -> Result<&'a Input> {
    if let Some(input) = dataflow.inputs.iter().find(|input| input.name == name) {
        return Ok(input);
    }
    let names: Vec<&str> = dataflow.inputs.iter().map(|input| input.name.as_str()).collect();
    let known = names.join(", ");
    let help = match nearest(name, names) {
        Some(near) => format!("did you mean {near}? inputs are {known}"),
        None => format!("inputs are {known}"),
    };
    Err(UsageError::new(format!("unknown input {name}"), help).into())
}

/// The name of the feed that determines how files are read.
fn find_feed(input: &Input, feed: Option<&str>, format: Option<&str>) -> Result<String> {
    if let Some(format) = format {
        let known = EXTRA_FORMAT_NAMES;
        return match input.extra_feed(format) {
            Some(index) => Ok(input.feed_name(index).to_string()),
            None => Err(UsageError::new(
                format!("unknown format {format:?}"),
                match nearest(format, known) {
                    Some(near) => format!("did you mean {near}? formats are {}", known.join(", ")),
                    None => format!("formats are {}", known.join(", ")),
                },
            )
            .into()),
        };
    }
    let of_files = input.feeds.iter().filter(|feed| feed.kind.contract().files().is_some());
    let names: Vec<&str> = of_files.map(|feed| feed.name.as_str()).collect();
    let several = names.join(", ");
    match (feed, names.as_slice()) {
        (Some(feed), names) if names.contains(&feed) => Ok(feed.to_string()),
        (Some(feed), [_, ..]) => Err(UsageError::new(
            format!("input {} has no feed {feed} of kind \"files\"", input.name),
            format!("name one of {several}, or a --format"),
        )
        .into()),
        (None, [one]) => Ok(one.to_string()),
        (None, [_, _, ..]) => Err(UsageError::new(
            format!("input {} has several feeds of kind \"files\"", input.name),
            format!("say whose format the files have: --feed with one of {several}"),
        )
        .into()),
        (_, []) => Err(UsageError::new(
            format!(
                "input {} has no feed of kind \"files\" that says how files are read",
                input.name
            ),
            format!(
                "name their format, as in --format csv; formats are {}",
                EXTRA_FORMAT_NAMES.join(", ")
            ),
        )
        .into()),
    }
}

/// All files that the paths name, each once, in their order.
fn find_files(dataflow: &Dataflow, paths: &[String]) -> Result<Vec<String>> {
    let here = std::env::current_dir()?;
    let runtime = run::runtime()?;
    let mut files: Vec<String> = Vec::new();
    for path in paths {
        // An existing file is meant literally, even if its name contains wildcard characters.
        let is_file = !path.contains("://") && std::path::Path::new(path).is_file();
        let pattern = match is_file {
            true => pattern_of_file(&glob::Pattern::escape(path)).0,
            false => path.clone(),
        };
        let location = files_location(&pattern, &here)
            .map_err(|error| UsageError::new(format!("bad path {path:?}: {error}"), error.help()))?;
        let mut matched = list_files(dataflow, &location, runtime.handle())?;
        if matched.is_empty() && !location.contains("://") && std::path::Path::new(path).is_dir() {
            matched = list_files(dataflow, &format!("{location}/*"), runtime.handle())?;
        }
        if matched.is_empty() {
            let help = "write a file, a folder or a glob (in quotes); names that start with . or _ are left out";
            return Err(UsageError::new(format!("no file is at {path}"), help).into());
        }
        matched.retain(|file| !files.contains(file));
        files.extend(matched);
    }
    if files.len() > MOST_FILES {
        return Err(UsageError::new(
            format!(
                "these are {} files, and a request names {MOST_FILES} at most",
                files.len()
            ),
            "ask for fewer at once, by folders or narrower globs",
        )
        .into());
    }
    may_be_read(dataflow, &files)?;
    Ok(files)
}

/// Checks whether this user and the definition allow the files to be read. The run that serves the request reads with
/// its own rights, and refuses the others.
fn may_be_read(dataflow: &Dataflow, files: &[String]) -> Result<()> {
    let allowed = Allowed::from_dataflow(dataflow);
    for file in files {
        let shown = shown(file);
        match allowed.check(file) {
            Ok(None) => {}
            Ok(Some((root, path))) => {
                open_regular(&path, Some(&*root)).with_context(|| format!("could not read {shown}"))?;
            }
            Err(forbidden @ (Forbidden::Outside | Forbidden::LeadsOutside(_))) => {
                return Err(UsageError::new(
                    format!("{shown} may not be backfilled: {forbidden}: {}", allowed.names()),
                    allowed.remedy(file),
                )
                .into());
            }
            Err(unseen) => {
                return Err(UsageError::new(
                    format!("{shown} cannot be backfilled: {unseen}"),
                    "name a file that is there, by its path or URL",
                )
                .into());
            }
        }
    }
    Ok(())
}

/// Parses a point in time in UTC to Unix microseconds.
fn parse_moment(text: &str) -> Result<i64, String> {
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    let plain = || {
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
            .iter()
            .find_map(|f| NaiveDateTime::parse_from_str(text, f).ok())
    };
    let zoned = || DateTime::parse_from_rfc3339(text).ok().map(|moment| moment.naive_utc());
    let moment = day().or_else(plain).or_else(zoned);
    moment
        .map(|moment| moment.and_utc().timestamp_micros())
        .ok_or_else(|| "write a day or a moment in UTC, as in 2026-01-31 or 2026-01-31T12:00:00".to_string())
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate >= LOWEST_RATE && rate.is_finite() => Ok(rate),
        _ => Err(format!("write records a second, {LOWEST_RATE} at least, as in 20000")),
    }
}
