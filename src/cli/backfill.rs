//! `backfill`: files, or a part of history, fed to one input beside its feeds.

use std::process::ExitCode;

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDate, NaiveDateTime};

use super::ask::{Asking, ask, report};
use super::{SourceAndLake, UsageError};
use crate::backfill::{Allowed, Forbidden, LOWEST_RATE, MOST_FILES, Request, Work};
use crate::definition::{Dataflow, EXTRA_FORMAT_NAMES, FeedKind, Input, files_location, nearest, pattern_of_file};
use crate::run;
use crate::shown::shown;
use crate::source::{list_files, open_regular};

/// Feed files or history to an input, beside its live feeds
///
/// A run that is on the lake serves the request beside its feeds; without one, the graph is run here until the backfill is
/// committed, and no feed is read. What is fed goes through the same graph as everything else, exactly once also over
/// crashes: a backfill that was cut off goes on where it stood with the next run. Live records go first.
///
/// Files: they are read as those of one of the input's feeds of kind "files" are: by its format and columns, and with its
/// rank among versions of a key. `--format` reads them by the input's own columns instead, with the rank of its first
/// feed. A file is known by its bytes: one that was backfilled before changes nothing, whatever its name is now, unless
/// `--again` is given. A file in the folder of a feed is left to that feed. Folders mean the files directly in them.
///
/// History (`--from-bronze`): records that Bronze holds are fed again as what they were, with the version they had. So what is
/// in effect stays so: of an input with a key an older version never beats a newer one, of one with a dedup_key the
/// first row stays. An input with neither would count its rows twice; it is given only the records that are not in
/// effect, which are those among the dead letters. Records that pass now leave the dead letters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium backfill dataflows/retail order_lines archive/2024/*.csv.gz
  alluvium backfill dataflows/retail order_lines s3://bucket/2024/ --feed drops --rate 5000
  alluvium backfill dataflows/retail customers dump.parquet --format parquet
  alluvium backfill dataflows/retail order_lines --from-bronze --since 2026-01-01 --until 2026-02-01")]
pub struct Backfill {
    #[command(flatten)]
    source: SourceAndLake,
    /// The input to feed
    input: String,
    /// Files, folders and globs, here or at s3://, abfss://, gs://
    #[arg(
        value_name = "PATH",
        required_unless_present = "from_bronze",
        conflicts_with = "from_bronze"
    )]
    paths: Vec<String>,
    /// The feed of kind "files" whose format and columns the files have; needed where the input has several
    #[arg(long, value_name = "NAME", conflicts_with = "from_bronze")]
    feed: Option<String>,
    /// Read the files by the input's own columns: csv, ndjson, json, parquet, avro, debezium-json
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["feed", "from_bronze"])]
    format: Option<String>,
    /// Read files again that were backfilled before
    #[arg(long, conflicts_with = "from_bronze")]
    again: bool,
    /// Feed what Bronze holds, as what it was
    #[arg(long)]
    from_bronze: bool,
    /// Only history from this moment on (UTC), as in 2026-01-31 or 2026-01-31T12:00:00; by the event's time where its
    /// source says it, by arrival otherwise
    #[arg(long, value_name = "TIME", value_parser = parse_moment, requires = "from_bronze")]
    since: Option<i64>,
    /// Only history before this moment
    #[arg(long, value_name = "TIME", value_parser = parse_moment, requires = "from_bronze")]
    until: Option<i64>,
    /// Records a second, at most; without it as fast as possible, and backfill_rate of
    /// dataflow.toml (10000) while live records come
    #[arg(long, value_name = "ROWS", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Do not wait: the run on the lake, or the next one, does it
    #[arg(long)]
    detach: bool,
    /// How many worker threads compute, where no run is on the lake
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; an input or feed that does not exist; paths that name no file; a run that fails.
pub fn run(args: Backfill) -> Result<ExitCode> {
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
    let asking = Asking {
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

/// The name of the feed that says how files are read.
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
    let of_files = input
        .feeds
        .iter()
        .filter(|feed| matches!(feed.kind, FeedKind::Files { .. }));
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
        // What is there is meant, whatever it is called.
        let is_file = !path.contains("://") && std::path::Path::new(path).is_file();
        let pattern = match is_file {
            true => pattern_of_file(&glob::Pattern::escape(path)).0,
            false => path.clone(),
        };
        let location = files_location(&pattern, &here)
            .map_err(|error| UsageError::new(format!("bad path {path:?}: {error}"), error.help()))?;
        let mut found = list_files(dataflow, &location, runtime.handle())?;
        if found.is_empty() && !location.contains("://") && std::path::Path::new(path).is_dir() {
            found = list_files(dataflow, &format!("{location}/*"), runtime.handle())?;
        }
        if found.is_empty() {
            let help = "write a file, a folder or a glob (in quotes); names that start with . or _ are left out";
            return Err(UsageError::new(format!("no file is at {path}"), help).into());
        }
        found.retain(|file| !files.contains(file));
        files.extend(found);
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

/// Whether this user may read the files, and the definition allows it: the run that serves a request reads with its own
/// rights, and refuses the rest.
fn may_be_read(dataflow: &Dataflow, files: &[String]) -> Result<()> {
    let allowed = Allowed::of(dataflow);
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

/// Unix microseconds of a moment in UTC.
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
