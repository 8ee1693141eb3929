//! Publishes how far topics are read to a consumer group, so that other tools can show a lag.
//!
//! The offsets are never read back, because snapshots contain them. Published is the progress of the newest snapshot,
//! at most once a second, by one process for all. A commit that brokers refuse is dropped, because newer offsets
//! follow. Nothing waits for it.
//!
//! Each feed has a thread that commits synchronously: for an asynchronous commit librdkafka reports the result only
//! to a callback, which rdkafka offers no way to set.

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
use crate::definition::{Dataflow, Kafka, split_partition};
use crate::repr::{PartitionId, Position};
use crate::source::SourceError;

/// The least interval between two commits of offsets.
const PERIOD: Duration = Duration::from_secs(1);
/// How long to wait at the end for the brokers' answers to the last commits.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait for a group's coordinator.
const COORDINATOR: Duration = Duration::from_secs(6);

/// The offsets that are still to be published for a feed, by partition.
type PendingOffsets = Arc<Mutex<BTreeMap<String, u64>>>;

/// Publishes the offsets of all feeds.
pub struct OffsetPublisher {
    feeds: Vec<PublishedFeed>,
    /// Dropped to stop.
    stop: Option<Sender<Infallible>>,
}

/// A feed whose offsets are published.
struct PublishedFeed {
    input: String,
    feed: String,
    pending: PendingOffsets,
    thread: JoinHandle<()>,
}

/// The state of a feed's publishing thread.
struct PublishingThread {
    input: String,
    feed: String,
    consumer: BaseConsumer<DebugLogContext>,
    pending: PendingOffsets,
    stopped: Receiver<Infallible>,
}

/// Starts to publish offsets, if the dataflow reads topics.
pub fn publish_offsets(dataflow: &Dataflow) -> Result<Option<OffsetPublisher>, SourceError> {
    let (stop, stopped) = bounded(0);
    let mut feeds = Vec::new();
    for input in &dataflow.inputs {
        for feed in &input.feeds {
            let Some(kafka) = feed.kind.settings_of::<Kafka>() else {
                continue;
            };
            let name = format!("{}.{}", input.name, feed.name);
            let mut config = ClientConfig::new();
            configure(&mut config, &kafka.client);
            config
                .set("group.id", group(&dataflow.name, kafka))
                .set("enable.auto.commit", "false")
                .set("session.timeout.ms", COORDINATOR.as_millis().to_string());
            let consumer = config
                .create_with_context(DebugLogContext)
                .map_err(|error| SourceError::KafkaOptions {
                    feed: name.clone(),
                    reason: reason(error),
                })?;
            let pending = PendingOffsets::default();
            let publishing = PublishingThread {
                input: input.name.clone(),
                feed: feed.name.clone(),
                consumer,
                pending: pending.clone(),
                stopped: stopped.clone(),
            };
            let thread = std::thread::Builder::new()
                .name("offsets".into())
                .spawn(move || publishing.publish_until_stopped())
                .map_err(|error| SourceError::Spawn {
                    feed: name,
                    source: Arc::new(error),
                })?;
            feeds.push(PublishedFeed {
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
    /// Publishes the progress that a snapshot holds.
    pub fn publish(&self, progress: &[(PartitionId, Position)]) {
        for published in &self.feeds {
            let of_feed = progress
                .iter()
                .filter(|(id, _)| id.input == published.input && id.feed == published.feed)
                .map(|(id, position)| (id.partition.clone(), position.next));
            let mut pending = published.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.extend(of_feed);
        }
    }
}

/// Publishes what is pending, and ends the threads.
impl Drop for OffsetPublisher {
    fn drop(&mut self) {
        drop(self.stop.take());
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE && self.feeds.iter().any(|published| !published.thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for published in self.feeds.drain(..) {
            // A thread that still waits for brokers ends by itself.
            if published.thread.is_finished() && published.thread.join().is_err() {
                tracing::warn!("a thread that publishes offsets panicked; no offset that counts was lost");
            }
        }
    }
}

impl PublishingThread {
    fn publish_until_stopped(self) {
        // Whether brokers refused the previous commit.
        let mut refused = false;
        loop {
            let stop = !matches!(self.stopped.recv_timeout(PERIOD), Err(RecvTimeoutError::Timeout));
            let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
            let mut offsets = TopicPartitionList::new();
            for (partition, next) in &pending {
                if let Some((topic, number)) = split_partition(partition) {
                    // An offset that was read is always valid here.
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
            // Polling serves librdkafka's other events; there is nothing to read.
            drop(self.consumer.poll(Duration::ZERO));
            if stop {
                return;
            }
        }
    }
}

/// Logs librdkafka's messages at debug level only.
struct DebugLogContext;

impl ClientContext for DebugLogContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = describe(&error), "{reason}");
    }
}

impl ConsumerContext for DebugLogContext {}
