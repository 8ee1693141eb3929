//! The command `generate`: writes sample data and load to where feeds read.
//!
//! Files are named by the day of their events and appear complete (they are written aside, then renamed). Log records
//! are distributed over partitions by their key. Entries of generate.toml without a rate are history and are written
//! first, one after another; those with a rate then run concurrently in real time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use chrono::DateTime;
use serde::Deserialize;
use twox_hash::XxHash3_64;

use super::{Source, UsageError};
use crate::definition::{self, Dataflow, Format, Unwritable, WriteTarget, nearest};
use crate::source::generate::{GeneratedEvent, Generator, Rendering, Timing};
use crate::source::{LogRecord, LogWriter, TopicError, TopicRecord, TopicWriter};

/// How long to wait for brokers to accept the last events.
const FLUSH: Duration = Duration::from_secs(60);
/// How many records are appended to a log in one write.
const BATCH: usize = 512;

/// Write generated events to the files, log or topic that a feed reads
///
/// Without INPUT.FEED all events are made that the file generate.toml in the dataflow's folder lists. The same seed makes
/// the same events. A feed of kind "generate" does not need this command: it makes its own events during a run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium generate dataflows/retail
  alluvium generate dataflows/retail order_lines.live --generator retail.order_lines --limit 100000
  alluvium generate dataflows/retail order_lines.live --generator retail.order_lines --rate 5800 --late 0.01")]
pub struct GenerateArgs {
    #[command(flatten)]
    source: Source,
    /// The feed that will read the events, as INPUT.FEED
    #[arg(value_name = "INPUT.FEED", requires = "generator")]
    feed: Option<String>,
    /// The generator that makes the events, as in retail.order_lines; required with INPUT.FEED
    #[arg(long, value_name = "NAME", requires = "feed")]
    generator: Option<String>,
    /// Events per second; without it as fast as possible (files are always made as fast as possible)
    #[arg(long, value_name = "EVENTS", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How many events to make; without it events are made until Ctrl-C (for files it is needed, as they are written at the
    /// end)
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// The start of the random numbers: equal seeds make equal events
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many partitions of a log the events are spread over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    partitions: u32,
    /// The share of events that update an earlier key, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    updates: f64,
    /// The share of events that delete an earlier key, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    deletes: f64,
    /// The share of events that repeat an earlier event, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    duplicates: f64,
    /// The share of events whose event time lies in the past, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    late: f64,
    /// The share of events that cannot be decoded, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    broken: f64,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; a feed that does not exist or makes its own events; writing that fails.
pub fn run(args: GenerateArgs) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    let jobs = match (args.feed, args.generator) {
        (Some(feed), Some(generator)) => vec![GeneratorJob {
            feed: find_feed(&dataflow, &feed)?,
            settings: definition::Generate {
                generator,
                rate: args.rate,
                limit: args.limit,
                seed: args.seed,
                partitions: args.partitions,
                updates: args.updates,
                deletes: args.deletes,
                duplicates: args.duplicates,
                late: args.late,
                broken: args.broken,
            },
        }],
        _ => read_jobs(&dataflow)?,
    };
    let (history, live): (Vec<GeneratorJob>, Vec<GeneratorJob>) =
        jobs.into_iter().partition(|job| job.settings.rate.is_none());
    for job in &history {
        job.make(&dataflow)?;
    }
    thread::scope(|scope| {
        let makers: Vec<_> = live.iter().map(|job| scope.spawn(|| job.make(&dataflow))).collect();
        makers.into_iter().try_for_each(|maker| match maker.join() {
            Ok(made) => made,
            Err(_) => Err(anyhow!("a generator panicked; this is a bug")),
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The content of generate.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Orders {
    make: Vec<Entry>,
}

/// An entry of generate.toml: a feed, and the settings of its generator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    input: String,
    feed: String,
    generator: String,
    rate: Option<f64>,
    limit: Option<u64>,
    #[serde(default)]
    seed: u64,
    partitions: Option<u32>,
    #[serde(default)]
    updates: f64,
    #[serde(default)]
    deletes: f64,
    #[serde(default)]
    duplicates: f64,
    #[serde(default)]
    late: f64,
    #[serde(default)]
    broken: f64,
}

fn read_jobs(dataflow: &Dataflow) -> Result<Vec<GeneratorJob>> {
    let path = dataflow.folder.join("generate.toml");
    let wrong = |message: String| {
        UsageError::new(
            message,
            "list what to make as [[make]] entries, or name INPUT.FEED and --generator",
        )
    };
    let text =
        fs::read_to_string(&path).map_err(|error| wrong(format!("could not read {}: {error}", path.display())))?;
    let listed: Orders = toml::from_str(&text).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let job = |entry: Entry| {
        let shares = [entry.updates, entry.deletes, entry.duplicates, entry.late, entry.broken];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || entry.rate.is_some_and(|rate| rate <= 0.0) {
            return Err(wrong(format!(
                "{}: shares are from 0 to 1, rates above 0",
                path.display()
            )));
        }
        Ok(GeneratorJob {
            feed: find_feed(dataflow, &format!("{}.{}", entry.input, entry.feed))?,
            settings: definition::Generate {
                generator: entry.generator,
                rate: entry.rate,
                limit: entry.limit,
                seed: entry.seed,
                partitions: entry.partitions.unwrap_or(1).max(1),
                updates: entry.updates,
                deletes: entry.deletes,
                duplicates: entry.duplicates,
                late: entry.late,
                broken: entry.broken,
            },
        })
    };
    Ok(listed.make.into_iter().map(job).collect::<Result<_, UsageError>>()?)
}

/// What to generate, and for which feed (indices into `Dataflow::inputs` and `Input::feeds`).
struct GeneratorJob {
    feed: (usize, usize),
    settings: definition::Generate,
}

impl GeneratorJob {
    fn make(&self, dataflow: &Dataflow) -> Result<()> {
        let input = &dataflow.inputs[self.feed.0];
        let feed = &input.feeds[self.feed.1];
        let name = format!("{}.{}", input.name, feed.name);
        let rendering = if feed.format == Format::Csv {
            Rendering::Csv
        } else {
            Rendering::Json
        };
        let generator = match self.settings.rate {
            Some(rate) => Generator::timed(&self.settings, rendering, Timing::paced(SystemTime::now(), rate)),
            None => Generator::new(&self.settings, rendering),
        };
        let generator = generator.map_err(|error| UsageError::new(error.to_string(), "check the generator's name"))?;
        let made = match feed.kind.contract().written_to() {
            Ok(WriteTarget::Log(path)) => self
                .fill_log(generator, path)
                .with_context(|| format!("could not write {}", path.display()))?,
            Ok(WriteTarget::Files(_)) if self.settings.limit.is_none() => {
                let reason = format!("feed {name} reads files, which are written once all of their events are made");
                return Err(UsageError::new(
                    reason,
                    "say how many events to make: --limit, or limit in generate.toml",
                )
                .into());
            }
            Ok(WriteTarget::Files(path)) => self.fill_folder(generator, path, rendering)?,
            Ok(WriteTarget::Topics { client, topics }) => {
                let [topic] = topics else {
                    let help = "name a feed that reads one topic";
                    return Err(UsageError::new(format!("feed {name} reads several topics"), help).into());
                };
                self.fill_topic(generator, &TopicWriter::open(client, topic)?)?
            }
            Err(Unwritable { reason, help }) => {
                return Err(UsageError::new(format!("feed {name} {reason}"), help).into());
            }
        };
        println!("{name}: {made} events of {}", self.settings.generator);
        Ok(())
    }

    fn fill_log(&self, generator: Generator, folder: &Path) -> std::io::Result<u64> {
        let mut log = LogWriter::open(folder, false)?;
        self.send(generator, |events| {
            let mut parts: BTreeMap<u64, Vec<LogRecord<'_>>> = BTreeMap::new();
            for event in events {
                let record = LogRecord {
                    key: Some(&event.key),
                    value: (!event.value.is_empty()).then_some(&event.value),
                    headers: None,
                    ts_ms: self.settings.rate.map(|_| event.ts_ms),
                };
                let partition = XxHash3_64::oneshot(&event.key) % u64::from(self.settings.partitions);
                parts.entry(partition).or_default().push(record);
            }
            for (partition, records) in parts {
                log.append(&partition.to_string(), records)?;
            }
            Ok(())
        })
    }

    /// Sends events to a topic; librdkafka's partitioner distributes them over its partitions.
    fn fill_topic(&self, generator: Generator, topic: &TopicWriter) -> Result<u64> {
        let made = self.send(generator, |events| -> Result<(), TopicError> {
            events.iter().try_for_each(|event| {
                let record = TopicRecord {
                    partition: None,
                    key: Some(&event.key),
                    value: (!event.value.is_empty()).then_some(&event.value),
                    ts_ms: self.settings.rate.map(|_| event.ts_ms),
                    headers: &[],
                };
                topic.send(record)
            })
        })?;
        topic.flush(FLUSH)?;
        Ok(made)
    }

    /// Generates events at their rate, and passes them to `write` in batches.
    fn send<E>(
        &self,
        mut generator: Generator,
        mut write: impl FnMut(&[GeneratedEvent]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let started = Instant::now();
        let mut made = 0;
        loop {
            let due = match self.settings.rate {
                Some(rate) => ((started.elapsed().as_secs_f64() * rate) as u64).saturating_sub(made) as usize,
                None => BATCH,
            };
            let events: Vec<GeneratedEvent> = generator.by_ref().take(due.min(BATCH)).collect();
            let ended = events.is_empty() && due > 0;
            made += events.len() as u64;
            write(&events)?;
            if ended || self.settings.limit.is_some_and(|limit| made >= limit) {
                return Ok(made);
            }
            if self.settings.rate.is_some() && due <= BATCH {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn fill_folder(&self, generator: Generator, glob: &str, rendering: Rendering) -> Result<u64> {
        let pattern = PathBuf::from(glob);
        let fixed = |folder: &&Path| !folder.to_string_lossy().contains(['*', '?', '[', ':']);
        let folder = pattern.parent().filter(fixed).ok_or_else(|| {
            let help = "only a glob in the file's name, on a local folder, can be filled";
            UsageError::new(format!("cannot write files for {glob}"), help)
        })?;
        let (ending, header) = match rendering {
            Rendering::Csv => ("csv", generator.csv_header() + "\n"),
            Rendering::Json => ("ndjson", String::new()),
        };
        let mut days: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut made = 0;
        for event in generator {
            let day = DateTime::from_timestamp_millis(event.ts_ms)
                .unwrap_or_default()
                .format("%Y-%m-%d")
                .to_string();
            let text = days.entry(day).or_insert_with(|| header.clone().into_bytes());
            text.extend_from_slice(&event.value);
            text.push(b'\n');
            made += 1;
        }
        fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        for (day, text) in days {
            let name = format!("{day}-{:02}.{ending}", self.settings.seed);
            let aside = folder.join(format!(".{name}.tmp"));
            let whole = fs::File::create(&aside).and_then(|mut file| file.write_all(&text));
            let named = whole.and_then(|()| fs::rename(&aside, folder.join(&name)));
            named.with_context(|| format!("could not write {}", folder.join(&name).display()))?;
        }
        Ok(made)
    }
}

pub(super) fn find_feed(dataflow: &Dataflow, name: &str) -> Result<(usize, usize), UsageError> {
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

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
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
