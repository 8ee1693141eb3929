//! The command `produce`: writes records to the topic or the embedded log that a feed reads.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::generate::{find_feed, parse_rate};
use super::{Source, UsageError};
use crate::definition::WriteTarget;
use crate::source::{LogRecord, LogWriter, TopicRecord, TopicWriter, headers_of_json, parse_record};

/// How long to wait for brokers to accept the last records.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many records are sent between two checks of the clock, or appended to the log at once.
const BATCH: usize = 1024;

/// Write records to the topic or the embedded log that a feed reads
///
/// Each line is one record, written as in the embedded log: {"key": ..., "value": ..., "ts_ms": ..., "headers": {...}}.
/// The key, ts_ms and headers may be left out, and "value": null makes a tombstone. With --values each line is only a
/// value. Keys and values are written as JSON text, as they stand in the line; only a key that is a string is written to
/// a topic without its quotes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium produce dataflows/retail order_lines.kafka orders.ndjson
  echo '{\"invoice_no\": \"1\"}' | alluvium produce dataflows/retail order_lines.live --values
  alluvium produce dataflows/retail order_lines.kafka orders.ndjson --rate 5800")]
pub struct ProduceArgs {
    #[command(flatten)]
    source: Source,
    /// The feed whose topic or log is written to, as INPUT.FEED; its kind must be kafka or log
    #[arg(value_name = "FEED")]
    feed: String,
    /// Files with one record per line; without them standard input is read
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take each line as a value without a key
    #[arg(long)]
    values: bool,
    /// The topic to write to; required if the feed reads several
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Write to this partition; without it the key decides the partition of a topic, and partition 0 of a log is taken
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Records per second; without it as fast as possible
    #[arg(long, value_name = "ROWS", value_parser = parse_rate)]
    rate: Option<f64>,
}

pub fn run(args: ProduceArgs) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    let (input, feed) = find_feed(&dataflow, &args.feed)?;
    let mut target = match dataflow.inputs[input].feeds[feed].kind.contract().written_to() {
        Ok(WriteTarget::Topics { client, topics }) => {
            RecordTarget::Topic(TopicWriter::open(client, topic_of(topics, &args)?)?)
        }
        Ok(WriteTarget::Log(path)) => {
            let log = LogWriter::open(path, true).with_context(|| format!("could not open {}", path.display()))?;
            RecordTarget::Log(log, args.partition.unwrap_or(0).to_string())
        }
        Ok(WriteTarget::Files(_)) | Err(_) => {
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
        args.send(&mut target, "standard input", io::stdin().lock(), started, &mut sent)?;
    }
    for path in &args.files {
        let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
        let name = path.display().to_string();
        args.send(&mut target, &name, BufReader::new(file), started, &mut sent)?;
    }
    if let RecordTarget::Topic(topic) = &target {
        topic.flush(PATIENCE)?;
    }
    println!("{}: {sent} records", args.feed);
    Ok(ExitCode::SUCCESS)
}

/// The target of records.
enum RecordTarget {
    Topic(TopicWriter),
    /// A partition of the log.
    Log(LogWriter, String),
}

/// The topic that records are written to.
fn topic_of<'a>(topics: &'a [String], args: &'a ProduceArgs) -> Result<&'a str, UsageError> {
    if let Some(topic) = &args.topic {
        return Ok(topic);
    }
    match topics {
        [topic] if !topic.starts_with('^') => Ok(topic),
        several => Err(UsageError::new(
            format!("feed {} reads several topics: {}", args.feed, several.join(", ")),
            "name one with --topic",
        )),
    }
}

impl ProduceArgs {
    fn send(
        &self,
        target: &mut RecordTarget,
        name: &str,
        lines: impl BufRead,
        started: Instant,
        sent: &mut u64,
    ) -> Result<()> {
        let mut batch: Vec<(usize, String)> = Vec::with_capacity(BATCH);
        for (number, line) in lines.lines().enumerate() {
            let line = line.with_context(|| format!("could not read {name}"))?;
            if !line.trim().is_empty() {
                batch.push((number + 1, line));
            }
            if batch.len() == BATCH || self.rate.is_some() {
                self.write(target, name, &mut batch, started, sent)?;
            }
        }
        self.write(target, name, &mut batch, started, sent)
    }

    fn write(
        &self,
        target: &mut RecordTarget,
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
        match target {
            RecordTarget::Log(log, partition) => {
                log.append(partition, records.iter().copied())
                    .with_context(|| format!("could not write {}", log.path(partition).display()))?;
            }
            RecordTarget::Topic(topic) => {
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

/// The inside of a JSON string, if it has no escapes; any other text is returned unchanged.
fn unquoted(key: &[u8]) -> &[u8] {
    match key {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => inner,
        other => other,
    }
}
