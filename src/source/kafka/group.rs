//! Tells a consumer group how far its topics are read, so that other tools can show a lag.
//!
//! Nothing is ever read back: offsets are part of snapshots. What is told is what a snapshot holds, at most once a second,
//! by one process for all; what brokers do not take is dropped, for newer offsets follow. Nobody waits for it.

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
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::Offset;

use super::client::{configure, describe, group, reason};
use crate::definition::{Dataflow, FeedKind, split_partition};
use crate::source::{PartitionId, Position, SourceError};

/// How often offsets are told, at most.
const PERIOD: Duration = Duration::from_secs(1);
/// How long all brokers may take to answer the last of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells groups how far feeds are read, in a thread of its own.
pub struct OffsetPublisher {
    newest: Arc<Mutex<BTreeMap<PartitionId, u64>>>,
    /// Dropped to stop.
    stop: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// A feed's client.
struct Teller {
    input: String,
    feed: String,
    consumer: BaseConsumer<Answers>,
    /// Whether brokers did not take the last.
    refused: bool,
}

/// Starts to publish, if the dataflow reads topics.
pub fn publish_offsets(dataflow: &Dataflow) -> Result<Option<OffsetPublisher>, SourceError> {
    let mut tellers = Vec::new();
    for input in &dataflow.inputs {
        for feed in &input.feeds {
            let FeedKind::Kafka(kafka) = &feed.kind else { continue };
            let mut config = ClientConfig::new();
            configure(&mut config, &kafka.client);
            config
                .set("group.id", group(&dataflow.name, kafka))
                .set("enable.auto.commit", "false");
            let consumer = config.create_with_context(Answers::default());
            tellers.push(Teller {
                input: input.name.clone(),
                feed: feed.name.clone(),
                consumer: consumer.map_err(|error| SourceError::KafkaOptions {
                    feed: format!("{}.{}", input.name, feed.name),
                    reason: reason(error),
                })?,
                refused: false,
            });
        }
    }
    if tellers.is_empty() {
        return Ok(None);
    }
    let newest: Arc<Mutex<BTreeMap<PartitionId, u64>>> = Arc::default();
    let (stop, stopped) = bounded(0);
    let pending = newest.clone();
    let thread = std::thread::Builder::new()
        .name("offsets".into())
        .spawn(move || tell(tellers, &pending, &stopped))
        .map_err(|error| SourceError::Spawn {
            feed: "offsets".into(),
            source: Arc::new(error),
        })?;
    Ok(Some(OffsetPublisher {
        newest,
        stop: Some(stop),
        thread: Some(thread),
    }))
}

impl OffsetPublisher {
    /// A snapshot holds this progress.
    pub fn publish(&self, progress: &[(PartitionId, Position)]) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.extend(progress.iter().map(|(id, position)| (id.clone(), position.next)));
    }
}

/// Tells what is pending, and ends.
impl Drop for OffsetPublisher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that publishes offsets panicked; no offset that counts was lost");
        }
    }
}

fn tell(mut tellers: Vec<Teller>, newest: &Mutex<BTreeMap<PartitionId, u64>>, stopped: &Receiver<Infallible>) {
    loop {
        let stop = !matches!(stopped.recv_timeout(PERIOD), Err(RecvTimeoutError::Timeout));
        let pending = std::mem::take(&mut *newest.lock().unwrap_or_else(PoisonError::into_inner));
        for teller in &mut tellers {
            teller.tell(&pending);
        }
        let told = Instant::now();
        while stop && tellers.iter().any(Teller::waits) && told.elapsed() < PATIENCE {
            tellers.iter_mut().for_each(Teller::listen);
            std::thread::sleep(Duration::from_millis(5));
        }
        if stop {
            return;
        }
    }
}

impl Teller {
    fn tell(&mut self, pending: &BTreeMap<PartitionId, u64>) {
        let mut offsets = TopicPartitionList::new();
        let mine = |id: &PartitionId| id.input == self.input && id.feed == self.feed;
        for (id, next) in pending.iter().filter(|(id, _)| mine(id)) {
            let Some((topic, number)) = split_partition(&id.partition) else {
                continue;
            };
            // Fails for no offset that was read.
            let _ = offsets.add_partition_offset(topic, number, Offset::Offset(*next as i64));
        }
        if offsets.count() > 0 {
            match self.consumer.commit(&offsets, CommitMode::Async) {
                Ok(()) => self.consumer.context().ask(),
                Err(error) => self.observe(Err(error)),
            }
        }
        self.listen();
    }

    /// Takes what brokers answered.
    fn listen(&mut self) {
        // One event at a time; few come between two calls.
        for _ in 0..8 {
            drop(self.consumer.poll(Duration::ZERO));
        }
        if let Some(answer) = self.consumer.context().take() {
            self.observe(answer);
        }
    }

    fn waits(&self) -> bool {
        self.consumer.context().waits()
    }

    fn observe(&mut self, answer: KafkaResult<()>) {
        if let Err(error) = &answer
            && !self.refused
        {
            let (input, feed) = (&self.input, &self.feed);
            let error = describe(error);
            tracing::warn!(input, feed, error, "offsets could not be published to the group");
        }
        self.refused = answer.is_err();
    }
}

/// What brokers answered.
#[derive(Default)]
struct Answers(Mutex<(u64, Option<KafkaResult<()>>)>);

impl Answers {
    fn state(&self) -> std::sync::MutexGuard<'_, (u64, Option<KafkaResult<()>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) {
        self.state().0 += 1;
    }

    fn waits(&self) -> bool {
        self.state().0 > 0
    }

    fn take(&self) -> Option<KafkaResult<()>> {
        self.state().1.take()
    }
}

impl ClientContext for Answers {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = describe(&error), "{reason}");
    }
}

impl ConsumerContext for Answers {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        let mut state = self.state();
        state.0 = state.0.saturating_sub(1);
        state.1 = Some(result);
    }
}
