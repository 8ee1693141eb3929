//! A transactional producer, and the epochs that its topics have.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::Offset;
use thiserror::Error;

use super::encode::Keyed;
use crate::definition::KafkaClient;
use crate::repr::Epoch;
use crate::source::{TopicRecord, configure_client, describe_client_error, put};

/// How long brokers may take for one step.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why records could not be produced.
#[derive(Debug, Error)]
pub enum ProduceError {
    /// A client that cannot be made of its settings.
    #[error("could not set up a Kafka producer for {brokers}: {reason}; correct brokers or options")]
    Options {
        /// Where.
        brokers: String,
        /// Why.
        reason: String,
    },
    /// Brokers that do not do what they are asked.
    #[error("could not {doing} at {brokers}: {reason}")]
    Brokers {
        /// Where.
        brokers: String,
        /// What was tried.
        doing: &'static str,
        /// Why.
        reason: String,
        /// Whether the same may succeed later.
        passes: bool,
    },
}

impl ProduceError {
    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, ProduceError::Brokers { passes: true, .. })
    }
}

/// A way to brokers.
pub struct Channel {
    brokers: String,
    producer: BaseProducer,
    /// The group that keeps epochs.
    group: BaseConsumer,
    ready: bool,
}

impl Channel {
    /// Nothing is asked of the brokers yet.
    pub fn open(dataflow: &str, client: &KafkaClient) -> Result<Channel, ProduceError> {
        let id = format!("alluvium-{dataflow}-snapshots");
        let options = |error: KafkaError| ProduceError::Options {
            brokers: client.brokers.clone(),
            reason: describe_client_error(error),
        };
        let mut config = ClientConfig::new();
        config.set("linger.ms", "5");
        configure_client(&mut config, client);
        let mut group = config.clone();
        config.set("transactional.id", &id).set("enable.idempotence", "true");
        group.remove("linger.ms");
        group.set("group.id", &id).set("enable.auto.commit", "false");
        Ok(Channel {
            producer: config.create().map_err(options)?,
            group: group.create().map_err(options)?,
            brokers: client.brokers.clone(),
            ready: false,
        })
    }

    /// Fences earlier producers, and answers the newest epoch of each topic; 0: none.
    pub fn find(&mut self, topics: &[&str]) -> Result<Vec<Epoch>, ProduceError> {
        if !self.ready {
            let begun = self.producer.init_transactions(PATIENCE);
            begun.map_err(|error| self.failed("start transactions", error))?;
            self.ready = true;
        }
        let mut wanted = TopicPartitionList::new();
        for topic in topics {
            wanted.add_partition(topic, 0);
        }
        let found = self.group.committed_offsets(wanted, PATIENCE);
        let found = found.map_err(|error| self.failed("read published epochs", error))?;
        let epoch = |topic: &&str| match found.find_partition(topic, 0).map(|found| found.offset()) {
            Some(Offset::Offset(epoch)) => epoch as Epoch,
            _ => 0,
        };
        Ok(topics.iter().map(epoch).collect())
    }

    /// Sends a snapshot's records in one transaction.
    pub fn transact(&mut self, epoch: Epoch, topics: &[(String, Vec<Keyed>)]) -> Result<(), ProduceError> {
        let sent = self.send(epoch, topics);
        if let Err(ProduceError::Brokers { passes: true, .. }) = &sent {
            let aborted = self.producer.abort_transaction(PATIENCE);
            aborted.map_err(|error| self.failed("abort a transaction", error))?;
        }
        sent
    }

    fn send(&self, epoch: Epoch, topics: &[(String, Vec<Keyed>)]) -> Result<(), ProduceError> {
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| self.failed("begin a transaction", error))?;
        let mut offsets = TopicPartitionList::new();
        for (topic, records) in topics {
            for record in records {
                let record = TopicRecord {
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: &record.headers,
                    ..TopicRecord::default()
                };
                put(&self.producer, topic, record).map_err(|error| self.failed("send a record", error))?;
            }
            let offset = offsets.add_partition_offset(topic, 0, Offset::Offset(epoch as i64));
            offset.map_err(|error| self.failed("tell an epoch", error))?;
        }
        let group = self.group.group_metadata();
        let group = group.ok_or_else(|| self.failed("tell an epoch", KafkaError::Canceled))?;
        let told = self.producer.send_offsets_to_transaction(&offsets, &group, PATIENCE);
        told.map_err(|error| self.failed("tell an epoch", error))?;
        let committed = self.producer.commit_transaction(PATIENCE);
        committed.map_err(|error| self.failed("commit a transaction", error))
    }

    fn failed(&self, doing: &'static str, error: KafkaError) -> ProduceError {
        // Fenced by another run, or refused for good.
        let ends = match &error {
            KafkaError::Transaction(error) => error.is_fatal(),
            other => matches!(
                other.rdkafka_error_code(),
                Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::Fenced)
            ),
        };
        ProduceError::Brokers {
            brokers: self.brokers.clone(),
            doing,
            reason: describe_client_error(error),
            passes: !ends,
        }
    }
}
