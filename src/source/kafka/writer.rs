//! Writes records to a topic, for `generate`, `produce` and others.
//!
//! librdkafka batches the records and keeps their order (an idempotent producer). [`TopicWriter::flush`] reports
//! whether brokers accepted them all.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use thiserror::Error;

use super::client::{configure, describe, reason};
use crate::definition::KafkaClient;

/// How long to wait between two attempts while the queue is full.
const PAUSE: Duration = Duration::from_millis(10);

/// Why records could not be written.
#[derive(Debug, Error)]
pub enum TopicError {
    /// The settings do not give a valid client.
    #[error("could not set up a Kafka producer for {brokers}: {reason}; correct brokers or options")]
    Options {
        /// The brokers' addresses.
        brokers: String,
        /// librdkafka's message.
        reason: String,
    },
    /// Brokers refused a record.
    #[error("could not write to topic {topic:?}: {reason}; what came before it is written")]
    Refused {
        /// The topic.
        topic: String,
        /// The reason for the refusal.
        reason: String,
    },
    /// Brokers do not answer.
    #[error(
        "brokers {brokers} did not take all records of topic {topic:?} within {waited:?}: {waiting} wait still{trouble}"
    )]
    Silent {
        /// The brokers' addresses.
        brokers: String,
        /// The topic.
        topic: String,
        /// The time waited.
        waited: Duration,
        /// The number of records that brokers have not accepted yet.
        waiting: i32,
        /// The client's newest error.
        trouble: String,
    },
}

/// A record to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopicRecord<'a> {
    /// The partition; if none, the key decides.
    pub partition: Option<i32>,
    /// The key's bytes, if it has a key.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Unix milliseconds; if none, the time of sending.
    pub ts_ms: Option<i64>,
    /// In their order.
    pub headers: &'a [(String, Option<Vec<u8>>)],
}

/// Adds a record to a producer's queue. While that is full it waits, as long as the queue shrinks within `patience`.
pub fn put<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    topic: &str,
    record: TopicRecord<'_>,
    patience: Duration,
) -> KafkaResult<()> {
    let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
    message.partition = record.partition;
    message.key = record.key;
    message.payload = record.value;
    message.timestamp = record.ts_ms;
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in record.headers {
            let value = value.as_ref();
            headers = headers.insert(Header { key, value });
        }
        message.headers = Some(headers);
    }
    let mut queue = ProducerQueue::default();
    loop {
        message = match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((error @ KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(PAUSE);
                if queue.stands_still(producer.in_flight_count(), patience) {
                    return Err(error);
                }
                back
            }
            Err((error, _)) => return Err(error),
        };
    }
}

/// Tracks the least number of records waiting for brokers, and since when it has not decreased.
pub struct ProducerQueue {
    least: i32,
    since: Instant,
}

impl Default for ProducerQueue {
    fn default() -> Self {
        ProducerQueue {
            least: i32::MAX,
            since: Instant::now(),
        }
    }
}

impl ProducerQueue {
    /// Records the current number; returns whether it has not decreased for longer than `patience`.
    pub fn stands_still(&mut self, waiting: i32, patience: Duration) -> bool {
        if waiting < self.least {
            (self.least, self.since) = (waiting, Instant::now());
        }
        self.since.elapsed() > patience
    }
}

/// Writes to one topic.
pub struct TopicWriter {
    brokers: String,
    topic: String,
    producer: BaseProducer<DeliveryErrors>,
}

#[derive(Default)]
struct DeliveryErrors {
    /// Why the first refused record was refused.
    refused: Mutex<Option<String>>,
    trouble: Mutex<Option<String>>,
}

impl ClientContext for DeliveryErrors {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let text = format!("{reason} ({})", describe(&error));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

impl ProducerContext for DeliveryErrors {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = delivery {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert_with(|| describe(error));
        }
    }
}

impl TopicWriter {
    /// Creates a writer; nothing is sent yet.
    pub fn open(client: &KafkaClient, topic: &str) -> Result<Self, TopicError> {
        let mut config = ClientConfig::new();
        config.set("linger.ms", "5").set("enable.idempotence", "true");
        configure(&mut config, client);
        let producer = config.create_with_context(DeliveryErrors::default());
        Ok(TopicWriter {
            brokers: client.brokers.clone(),
            topic: topic.to_string(),
            producer: producer.map_err(|error| TopicError::Options {
                brokers: client.brokers.clone(),
                reason: reason(error),
            })?,
        })
    }

    /// Adds a record to the queue; waits while that is full.
    pub fn send(&self, record: TopicRecord<'_>) -> Result<(), TopicError> {
        put(&self.producer, &self.topic, record, Duration::MAX).map_err(|error| self.refused(describe(&error)))?;
        self.producer.poll(Duration::ZERO);
        self.check_delivery()
    }

    /// Waits until brokers have accepted every record.
    pub fn flush(&self, patience: Duration) -> Result<(), TopicError> {
        let started = Instant::now();
        // Errors are recorded in the outcome, and a queue that is not empty shows the rest.
        let _ = self.producer.flush(patience);
        self.check_delivery()?;
        let waiting = self.producer.in_flight_count();
        if waiting == 0 {
            return Ok(());
        }
        let trouble = self
            .producer
            .context()
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Err(TopicError::Silent {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            waited: started.elapsed(),
            waiting,
            trouble: trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default(),
        })
    }

    fn check_delivery(&self) -> Result<(), TopicError> {
        let refused = self
            .producer
            .context()
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        refused.map_or(Ok(()), |reason| Err(self.refused(reason)))
    }

    fn refused(&self, reason: String) -> TopicError {
        TopicError::Refused {
            topic: self.topic.clone(),
            reason,
        }
    }
}
