//! Writes records to a topic: for `generate`, `produce` and whoever else fills one.
//!
//! Records are batched by librdkafka and kept in order (an idempotent producer); [`TopicWriter::flush`] says whether brokers
//! took them all.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use thiserror::Error;

use super::client::{configure, describe, reason};
use crate::definition::Kafka;

/// How long a full queue is waited for at once.
const PAUSE: Duration = Duration::from_millis(10);

/// Why records could not be written.
#[derive(Debug, Error)]
pub enum TopicError {
    /// A client that cannot be made of its settings.
    #[error("could not set up a Kafka producer for {brokers}: {reason}; correct brokers or options")]
    Options {
        /// Where.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// A record that brokers did not take.
    #[error("could not write to topic {topic:?}: {reason}; what came before it is written")]
    Refused {
        /// The topic.
        topic: String,
        /// What they say.
        reason: String,
    },
    /// Brokers that do not answer.
    #[error(
        "brokers {brokers} did not take all records of topic {topic:?} within {waited:?}: {waiting} wait still{trouble}"
    )]
    Silent {
        /// Where.
        brokers: String,
        /// The topic.
        topic: String,
        /// How long.
        waited: Duration,
        /// How many.
        waiting: i32,
        /// What the client said last.
        trouble: String,
    },
}

/// A record to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopicRecord<'a> {
    /// None: the one of its key.
    pub partition: Option<i32>,
    /// Bytes; none: no key.
    pub key: Option<&'a [u8]>,
    /// Bytes; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Unix milliseconds; none: now.
    pub ts_ms: Option<i64>,
    /// In their order.
    pub headers: &'a [(String, Option<Vec<u8>>)],
}

/// Puts a record into a producer's queue; waits while that is full, as long as it gets shorter within `patience`.
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
    let mut queue = Queue::default();
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

/// How many records wait for brokers, and since when that has not become less.
pub struct Queue {
    least: i32,
    since: Instant,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            least: i32::MAX,
            since: Instant::now(),
        }
    }
}

impl Queue {
    /// So many wait now: whether there were no fewer for longer than `patience`.
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
    producer: BaseProducer<Outcome>,
}

#[derive(Default)]
struct Outcome {
    /// Why the first record that was refused was.
    refused: Mutex<Option<String>>,
    trouble: Mutex<Option<String>>,
}

impl ClientContext for Outcome {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let text = format!("{reason} ({})", describe(&error));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

impl ProducerContext for Outcome {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = delivery {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert_with(|| describe(error));
        }
    }
}

impl TopicWriter {
    /// Nothing is sent yet.
    pub fn open(kafka: &Kafka, topic: &str) -> Result<Self, TopicError> {
        let mut config = ClientConfig::new();
        config.set("linger.ms", "5").set("enable.idempotence", "true");
        configure(&mut config, &kafka.client);
        let producer = config.create_with_context(Outcome::default());
        Ok(TopicWriter {
            brokers: kafka.client.brokers.clone(),
            topic: topic.to_string(),
            producer: producer.map_err(|error| TopicError::Options {
                brokers: kafka.client.brokers.clone(),
                reason: reason(error),
            })?,
        })
    }

    /// Puts a record into the queue; waits while that is full.
    pub fn send(&self, record: TopicRecord<'_>) -> Result<(), TopicError> {
        put(&self.producer, &self.topic, record, Duration::MAX).map_err(|error| self.refused(describe(&error)))?;
        self.producer.poll(Duration::ZERO);
        self.outcome()
    }

    /// Waits until brokers have taken every record.
    pub fn flush(&self, patience: Duration) -> Result<(), TopicError> {
        let started = Instant::now();
        // Errors are in the outcome, and a queue that is not empty says the rest.
        let _ = self.producer.flush(patience);
        self.outcome()?;
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

    fn outcome(&self) -> Result<(), TopicError> {
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
