//! `produce`: writes records to the topic or the embedded log that a feed reads.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::generate::{find_feed, parse_rate};
use super::{Source, UsageError};
use crate::definition::{FeedKind, Kafka};
use crate::source::{LogRecord, LogWriter, TopicRecord, TopicWriter, headers_of_json, parse_record};

/// How long brokers may take to answer for the last records.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records between two looks at the clock, and appended to the log at once.
const BATCH: usize = 1024;

/// Write records to the topic or the embedded log that a feed reads
///
/// Each line is a record as the embedded log has it: {"key": ..., "value": ..., "ts_ms": ..., "headers": {...}}, of which
/// key, ts_ms and headers may be left out, and "value": null is a tombstone; with --values each line is a value alone. Key and value are
/// written as the JSON text they are; a key that is a string is written without its quotes to a topic.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium produce dataflows/retail order_lines.kafka orders.ndjson
  echo '{\"invoice_no\": \"1\"}' | alluvium produce dataflows/retail order_lines.live --values
  alluvium produce dataflows/retail order_lines.kafka orders.ndjson --rate 5800")]
pub struct Produce {
    #[command(flatten)]
    source: Source,
    /// The feed, as INPUT.FEED; of kind kafka or log
    #[arg(value_name = "FEED")]
    feed: String,
    /// Files of lines; none: standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Each line is a value, without key
    #[arg(long)]
    values: bool,
    /// The topic, of a feed that reads several
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// The partition; without it the one of the key, and 0 of a log
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Records a second; without it as fast as possible
    #[arg(long, value_name = "ROWS", value_parser = parse_rate)]
    rate: Option<f64>,
}

pub fn run(args: Produce) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    let (input, feed) = find_feed(&dataflow, &args.feed)?;
    let mut way = match &dataflow.inputs[input].feeds[feed].kind {
        FeedKind::Kafka(kafka) => Way::Topic(TopicWriter::open(kafka, topic_of(kafka, &args)?)?),
        FeedKind::Log { path, .. } => {
            let log = LogWriter::open(path, true).with_context(|| format!("could not open {}", path.display()))?;
            Way::Log(log, args.partition.unwrap_or(0).to_string())
        }
        FeedKind::Files { .. } | FeedKind::Http | FeedKind::Postgres(_) | FeedKind::Generate(_) => {
            let help = "name a feed of kind \"kafka\" or \"log\"; files are put into their folder, and rows posted to one of kind \"http\"";
            return Err(UsageError::new(format!("feed {} takes no records", args.feed), help).into());
        }
    };
    let started = Instant::now();
    let mut sent = 0;
    if args.files.is_empty() {
        if io::stdin().is_terminal() {
            eprintln!("reading records from the terminal, one a line; end with Ctrl-D");
        }
        args.send(&mut way, "standard input", io::stdin().lock(), started, &mut sent)?;
    }
    for path in &args.files {
        let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
        let name = path.display().to_string();
        args.send(&mut way, &name, BufReader::new(file), started, &mut sent)?;
    }
    if let Way::Topic(topic) = &way {
        topic.flush(PATIENCE)?;
    }
    println!("{}: {sent} records", args.feed);
    Ok(ExitCode::SUCCESS)
}

/// Where records go.
enum Way {
    Topic(TopicWriter),
    /// A partition of it.
    Log(LogWriter, String),
}

/// The topic that is meant.
fn topic_of<'a>(kafka: &'a Kafka, args: &'a Produce) -> Result<&'a str, UsageError> {
    if let Some(topic) = &args.topic {
        return Ok(topic);
    }
    match &kafka.topics[..] {
        [topic] if !topic.starts_with('^') => Ok(topic),
        several => Err(UsageError::new(
            format!("feed {} reads several topics: {}", args.feed, several.join(", ")),
            "name one with --topic",
        )),
    }
}

impl Produce {
    fn send(&self, way: &mut Way, name: &str, lines: impl BufRead, started: Instant, sent: &mut u64) -> Result<()> {
        let mut batch: Vec<(usize, String)> = Vec::with_capacity(BATCH);
        for (number, line) in lines.lines().enumerate() {
            let line = line.with_context(|| format!("could not read {name}"))?;
            if !line.trim().is_empty() {
                batch.push((number + 1, line));
            }
            if batch.len() == BATCH || self.rate.is_some() {
                self.write(way, name, &mut batch, started, sent)?;
            }
        }
        self.write(way, name, &mut batch, started, sent)
    }

    fn write(
        &self,
        way: &mut Way,
        name: &str,
        batch: &mut Vec<(usize, String)>,
        started: Instant,
        sent: &mut u64,
    ) -> Result<()> {
        let mut records = Vec::with_capacity(batch.len());
        for (number, line) in batch.iter() {
            let line = line.trim().as_bytes();
            records.push(match self.values {
                true => LogRecord {
                    value: Some(line),
                    ..LogRecord::default()
                },
                false => parse_record(line).ok_or_else(|| {
                    let help = "write {\"key\": ..., \"value\": ...} with no fields but key, value, ts_ms and headers, or add --values where a line is a value";
                    UsageError::new(format!("{name}:{number}: the line is no record"), help)
                })?,
            });
        }
        match way {
            Way::Log(log, partition) => {
                log.append(partition, records.iter().copied())
                    .with_context(|| format!("could not write {}", log.path(partition).display()))?;
            }
            Way::Topic(topic) => {
                for record in &records {
                    let headers = record.headers.map(headers_of_json).unwrap_or_default();
                    let record = TopicRecord {
                        partition: self.partition.map(|partition| partition as i32),
                        key: record.key.map(unquoted),
                        value: record.value,
                        ts_ms: record.ts_ms,
                        headers: &headers,
                    };
                    topic.send(record)?;
                }
            }
        }
        *sent += records.len() as u64;
        if let Some(rate) = self.rate {
            let due = started + Duration::from_secs_f64(*sent as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        batch.clear();
        Ok(())
    }
}

/// A JSON string without quotes, where nothing in it is escaped; any other text as it is.
fn unquoted(key: &[u8]) -> &[u8] {
    match key {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => inner,
        other => other,
    }
}
