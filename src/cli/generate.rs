//! `generate`: sample data and load, written where a feed reads.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::{Source, UsageError};
use crate::definition::{self, Dataflow, FeedKind, nearest};

/// Write made-up events to where a files or log feed reads
///
/// Two runs with one seed make the same events. A feed of kind "generate" needs no such help: it makes its
/// own events while the dataflow runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium generate dataflows/retail order_lines.live --generator retail.order_lines --limit 100000
  alluvium generate dataflows/retail order_lines.live --generator retail.order_lines --rate 5800 --late 0.01")]
pub struct Generate {
    #[command(flatten)]
    source: Source,
    /// The feed to write for
    #[arg(value_name = "INPUT.FEED")]
    feed: String,
    /// Which events
    #[arg(long, value_name = "NAME")]
    generator: String,
    /// Events per second; without it as fast as possible
    #[arg(long, value_name = "EVENTS", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How many events; without it until Ctrl-C
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Equal seeds make equal events
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many files or log partitions they are spread over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    partitions: u32,
    /// Share of updates of earlier keys, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    updates: f64,
    /// Share of deletes of earlier keys, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    deletes: f64,
    /// Share of repeated events, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    duplicates: f64,
    /// Share of events with an event time in the past, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    late: f64,
    /// Share of events that do not decode, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    broken: f64,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; a feed that does not exist or makes its own events; writing that fails.
pub fn run(args: Generate) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    let (input, feed) = find_feed(&dataflow, &args.feed)?;
    if let FeedKind::Generate(_) = dataflow.inputs[input].feeds[feed].kind {
        return Err(UsageError::new(
            format!("feed {} makes its own events", args.feed),
            "name a feed of kind \"files\" or \"log\"; this one is served by `alluvium run`",
        )
        .into());
    }
    let settings = definition::Generate {
        generator: args.generator,
        rate: args.rate,
        limit: args.limit,
        seed: args.seed,
        partitions: args.partitions,
        updates: args.updates,
        deletes: args.deletes,
        duplicates: args.duplicates,
        late: args.late,
        broken: args.broken,
    };
    generate(&dataflow, input, feed, &settings)
}

/// Writes the events to where the feed reads (positions in `Dataflow::inputs` and `Input::feeds`).
fn generate(_dataflow: &Dataflow, _input: usize, _feed: usize, _settings: &definition::Generate) -> Result<ExitCode> {
    bail!("generate is not wired to the generators")
}

fn find_feed(dataflow: &Dataflow, name: &str) -> Result<(usize, usize), UsageError> {
    let mut known = Vec::new();
    for (i, input) in dataflow.inputs.iter().enumerate() {
        for (f, feed) in input.feeds.iter().enumerate() {
            let candidate = format!("{}.{}", input.name, feed.name);
            if candidate == name {
                return Ok((i, f));
            }
            known.push(candidate);
        }
    }
    Err(UsageError::new(
        format!("unknown feed {name}"),
        match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}? feeds are {}", known.join(", ")),
            None => format!("feeds are {}", known.join(", ")),
        },
    ))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("a rate is a number above 0, in events per second".to_string()),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is from 0 to 1, as in 0.01".to_string()),
    }
}
