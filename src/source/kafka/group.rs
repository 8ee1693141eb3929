//! Tells a consumer group how far its topics are read, so that other tools can show a lag.
//!
//! Nothing is ever read back: offsets are part of snapshots. What is told is what a snapshot holds, at most once a second,
//! by one process for all; what brokers do not take is dropped, for newer offsets follow. Nobody waits for it.
//!
//! A thread for each feed, which waits for the brokers' answer: librdkafka tells nobody how a commit ended that was not
//! waited for, unless a callback is set in a way that rdkafka does not offer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use super::client::{configure, describe, group, reason};
use crate::definition::{Dataflow, FeedKind, split_partition};
use crate::source::{PartitionId, Position, SourceError};

/// How often offsets are told, at most.
const PERIOD: Duration = Duration::from_secs(1);
/// How long all brokers may take to answer the last of them.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a group's coordinator is waited for.
const COORDINATOR: Duration = Duration::from_secs(6);

/// The offsets that a feed's group is still to be told.
type Pending = Arc<Mutex<BTreeMap<String, u64>>>;

/// Tells groups how far feeds are read.
pub struct OffsetPublisher {
    feeds: Vec<Told>,
    /// Dropped to stop.
    stop: Option<Sender<Infallible>>,
}

/// A feed whose offsets are told.
struct Told {
    input: String,
    feed: String,
    pending: Pending,
    thread: JoinHandle<()>,
}

/// What tells them.
struct Teller {
    input: String,
    feed: String,
    consumer: BaseConsumer<Quiet>,
    pending: Pending,
    stopped: Receiver<Infallible>,
}

/// Starts to publish, if the dataflow reads topics.
pub fn publish_offsets(dataflow: &Dataflow) -> Result<Option<OffsetPublisher>, SourceError> {
    let (stop, stopped) = bounded(0);
    let mut feeds = Vec::new();
    for input in &dataflow.inputs {
        for feed in &input.feeds {
            let FeedKind::Kafka(kafka) = &feed.kind else { continue };
            let name = format!("{}.{}", input.name, feed.name);
            let mut config = ClientConfig::new();
            configure(&mut config, &kafka.client);
            config
                .set("group.id", group(&dataflow.name, kafka))
                .set("enable.auto.commit", "false")
                .set("session.timeout.ms", COORDINATOR.as_millis().to_string());
            let consumer = config
                .create_with_context(Quiet)
                .map_err(|error| SourceError::KafkaOptions {
                    feed: name.clone(),
                    reason: reason(error),
                })?;
            let pending = Pending::default();
            let teller = Teller {
                input: input.name.clone(),
                feed: feed.name.clone(),
                consumer,
                pending: pending.clone(),
                stopped: stopped.clone(),
            };
            let thread = std::thread::Builder::new()
                .name("offsets".into())
                .spawn(move || teller.tell())
                .map_err(|error| SourceError::Spawn {
                    feed: name,
                    source: Arc::new(error),
                })?;
            feeds.push(Told {
                input: input.name.clone(),
                feed: feed.name.clone(),
                pending,
                thread,
            });
        }
    }
    let publisher = OffsetPublisher {
        feeds,
        stop: Some(stop),
    };
    Ok(Some(publisher).filter(|publisher| !publisher.feeds.is_empty()))
}

impl OffsetPublisher {
    /// A snapshot holds this progress.
    pub fn publish(&self, progress: &[(PartitionId, Position)]) {
        for told in &self.feeds {
            let of_feed = progress
                .iter()
                .filter(|(id, _)| id.input == told.input && id.feed == told.feed)
                .map(|(id, position)| (id.partition.clone(), position.next));
            let mut pending = told.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.extend(of_feed);
        }
    }
}

/// Tells what is pending, and ends.
impl Drop for OffsetPublisher {
    fn drop(&mut self) {
        drop(self.stop.take());
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE && self.feeds.iter().any(|told| !told.thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for told in self.feeds.drain(..) {
            // One that still waits for brokers ends by itself.
            if told.thread.is_finished() && told.thread.join().is_err() {
                tracing::warn!("a thread that publishes offsets panicked; no offset that counts was lost");
            }
        }
    }
}

impl Teller {
    fn tell(self) {
        // Whether brokers did not take the last.
        let mut refused = false;
        loop {
            let stop = !matches!(self.stopped.recv_timeout(PERIOD), Err(RecvTimeoutError::Timeout));
            let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
            let mut offsets = TopicPartitionList::new();
            for (partition, next) in &pending {
                if let Some((topic, number)) = split_partition(partition) {
                    // Fails for no offset that was read.
                    let _ = offsets.add_partition_offset(topic, number, Offset::Offset(*next as i64));
                }
            }
            if offsets.count() > 0 {
                let answer = self.consumer.commit(&offsets, CommitMode::Sync);
                if let Err(error) = &answer
                    && !refused
                {
                    let (input, feed) = (&self.input, &self.feed);
                    let error = describe(error);
                    tracing::warn!(input, feed, error, "offsets could not be published to the group");
                }
                refused = answer.is_err();
            }
            // What librdkafka says beside it; nothing is read.
            drop(self.consumer.poll(Duration::ZERO));
            if stop {
                return;
            }
        }
    }
}

/// Says what it has to say to those who ask.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = describe(&error), "{reason}");
    }
}

impl ConsumerContext for Quiet {}
