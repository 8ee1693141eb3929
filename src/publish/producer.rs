//! A transactional producer, which also stores the epochs of its topics.
//!
//! 1. A transaction commits records together with the epoch of every topic of the channel: as a group's offset for the
//!    topic's first partition.
//! 2. A producer with any error is given up. librdkafka can resume after some errors and not after others, and an
//!    abort waits for reports that nobody serves meanwhile. A new producer with the same id needs no knowledge of the
//!    old one: brokers settle its open transaction before the new one may begin, and the epochs show the outcome.
//! 3. Brokers decide which records are too large, but refuse whole batches. So a refused batch is sent again in
//!    smaller ones, until a refused record was alone in its batch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::Offset;

use super::channel::Brokers;
use super::encode::EncodedRecord;
use super::error::ProduceError;
use super::refusal::{RefusedRecord, text_of};
use crate::definition::KafkaClient;
use crate::repr::Epoch;
use crate::source::{ProducerQueue, TopicRecord, configure_client, describe_client_error, put};

/// How long brokers may take for one step, or may go without taking a record.
const PATIENCE: Duration = Duration::from_secs(20);
/// The default for the length of a transaction: the brokers' own default limit.
const LONGEST: Duration = Duration::from_secs(900);
/// How long brokers may take for a response. It is librdkafka's own default, which librdkafka would otherwise raise to
/// the length of a transaction.
const ANSWER: Duration = Duration::from_secs(60);
/// librdkafka's default of `batch.size`.
const BATCH: usize = 1_000_000;

/// The brokers of each channel by cluster id, to detect two channels to one cluster.
pub type Clusters = Arc<Mutex<BTreeMap<String, String>>>;

/// A channel's brokers, with one producer at a time.
pub struct KafkaProducer {
    id: String,
    client: KafkaClient,
    /// None if there is only one channel.
    clusters: Option<Clusters>,
    timeout: Duration,
    /// The most bytes of a batch; by (3) it shrinks.
    batch: usize,
    batch_is_ours: bool,
    patience: Duration,
    clients: Option<Clients>,
    /// Whether the clients have been used.
    used: bool,
    /// When the open transaction began.
    begun: Option<Instant>,
}

struct Clients {
    producer: BaseProducer<ClientErrors>,
    /// The consumer group that stores epochs.
    group: BaseConsumer<ClientErrors>,
}

impl KafkaProducer {
    /// A producer that has not contacted its brokers yet.
    pub fn new(
        dataflow: &str,
        client: &KafkaClient,
        clusters: Option<Clusters>,
    ) -> Result<KafkaProducer, ProduceError> {
        let number = |name: &str| client.options.0.get(name).and_then(|text| text.parse().ok());
        let mut kafka = KafkaProducer {
            id: format!("alluvium-{dataflow}-snapshots"),
            client: client.clone(),
            clusters,
            timeout: number("transaction.timeout.ms").map_or(LONGEST, Duration::from_millis),
            batch: number("batch.size").map_or(BATCH, |bytes| bytes as usize),
            batch_is_ours: false,
            patience: PATIENCE,
            clients: None,
            used: false,
            begun: None,
        };
        kafka.clients = Some(kafka.connect()?);
        Ok(kafka)
    }

    /// Shortens the patience with brokers.
    #[cfg(test)]
    pub fn within(self, patience: Duration) -> KafkaProducer {
        KafkaProducer { patience, ..self }
    }

    fn connect(&self) -> Result<Clients, ProduceError> {
        let options = |error: KafkaError| ProduceError::Options {
            brokers: self.client.brokers.clone(),
            reason: describe_client_error(error),
        };
        let mut group = ClientConfig::new();
        configure_client(&mut group, &self.client);
        let mut config = ClientConfig::new();
        config
            .set("linger.ms", "5")
            .set("message.max.bytes", (128 << 20).to_string())
            // Limits the records that are encoded and not yet sent.
            .set("queue.buffering.max.kbytes", (256 << 10).to_string())
            .set("transaction.timeout.ms", self.timeout.as_millis().to_string())
            .set("socket.timeout.ms", answer(self.timeout).as_millis().to_string());
        configure_client(&mut config, &self.client);
        config
            .set("transactional.id", &self.id)
            .set("enable.idempotence", "true");
        if self.batch_is_ours {
            config.set("batch.size", self.batch.to_string());
        }
        for producers in ["transaction.timeout.ms", "batch.size", "linger.ms"] {
            group.remove(producers);
        }
        group.set("group.id", &self.id).set("enable.auto.commit", "false");
        Ok(Clients {
            producer: config.create_with_context(ClientErrors::default()).map_err(options)?,
            group: group.create_with_context(ClientErrors::default()).map_err(options)?,
        })
    }

    fn clients(&self) -> &Clients {
        self.clients.as_ref().expect("it is opened before it is used")
    }

    /// Fails if two channels go to one cluster, because they would share a transactional id.
    fn check_cluster(&self) -> Result<(), ProduceError> {
        let Some(clusters) = &self.clusters else {
            return Ok(());
        };
        let Some(cluster) = self.clients().group.client().fetch_cluster_id(self.patience) else {
            return Ok(()); // The next request reports brokers that do not answer.
        };
        let mut clusters = clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clusters.entry(cluster).or_insert_with(|| self.client.brokers.clone());
        match *known == self.client.brokers {
            true => Ok(()),
            false => Err(ProduceError::SameCluster {
                brokers: self.client.brokers.clone(),
                others: known.clone(),
            }),
        }
    }

    /// Waits until brokers have taken every record, as long as they make progress.
    fn drain(&mut self) -> Result<(), ProduceError> {
        let mut queue = ProducerQueue::default();
        loop {
            let producer = &self.clients().producer;
            let waiting = producer.in_flight_count();
            if waiting == 0 {
                return self.check_refused();
            }
            if queue.stands_still(waiting, self.patience) {
                let silent = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
                return Err(self.failed("send records", silent));
            }
            producer.poll(Duration::from_millis(1));
            self.check_refused()?;
        }
    }

    fn check_refused(&mut self) -> Result<(), ProduceError> {
        match self.clients().producer.context().take_refusal() {
            Some(refusal) => Err(self.refused(refusal)),
            None => Ok(()),
        }
    }

    fn refused(&mut self, refusal: RefusedRecord) -> ProduceError {
        let brokers = self.client.brokers.clone();
        if !refusal.is_too_large() || refusal.size >= self.batch {
            return ProduceError::Refused { brokers, refusal };
        }
        // By (3), a batch of this size holds this record alone.
        self.batch = refusal.size.max(1);
        self.batch_is_ours = true;
        ProduceError::Brokers {
            brokers,
            doing: "send a batch",
            reason: format!(
                "topic {} takes none so large; it goes in batches of {} bytes",
                refusal.topic, self.batch
            ),
            passes: true,
        }
    }

    fn failed(&mut self, doing: &'static str, error: KafkaError) -> ProduceError {
        if let Err(refused) = self.check_refused() {
            return refused;
        }
        let brokers = self.client.brokers.clone();
        let code = match &error {
            KafkaError::Transaction(error) => Some(error.code()),
            other => other.rdkafka_error_code(),
        };
        let fatal = match &error {
            KafkaError::Transaction(error) => error.is_fatal(),
            _ => code == Some(RDKafkaErrorCode::Fatal),
        };
        let fenced = matches!(
            code,
            Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
        );
        let mut reason = describe_client_error(error);
        if let Some(trouble) = self.clients().producer.context().trouble() {
            reason = format!("{reason} ({trouble})");
        }
        match code {
            Some(RDKafkaErrorCode::InvalidTransactionTimeout) => ProduceError::TooLong {
                brokers,
                timeout: self.timeout,
            },
            // Brokers end a transaction that takes too long by fencing it, as another producer would.
            _ if self.begun.is_some_and(|begun| begun.elapsed() >= self.timeout) => ProduceError::Slow {
                brokers,
                timeout: self.timeout,
                reason,
            },
            _ if fenced => ProduceError::Fenced { brokers, doing },
            _ => ProduceError::Brokers {
                brokers,
                doing,
                reason,
                passes: !fatal,
            },
        }
    }
}

impl Brokers for KafkaProducer {
    fn open(&mut self, topics: &[String]) -> Result<Vec<Epoch>, ProduceError> {
        if std::mem::replace(&mut self.used, true) {
            self.clients = None; // The old clients must be closed before the new ones start.
            self.clients = Some(self.connect()?);
        }
        self.begun = None;
        self.check_cluster()?;
        let begun = self.clients().producer.init_transactions(self.patience);
        begun.map_err(|error| self.failed("start transactions", error))?;
        let mut wanted = TopicPartitionList::new();
        for topic in topics {
            wanted.add_partition(topic, 0);
        }
        let committed = self.clients().group.committed_offsets(wanted, self.patience);
        let committed = committed.map_err(|error| self.failed("read published epochs", error))?;
        let mut epochs = Vec::with_capacity(topics.len());
        for topic in topics {
            let committed = committed.find_partition(topic, 0);
            let committed = committed.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition));
            // An unknown epoch must not count as none, because a topic without an epoch gets all rows.
            let offset = committed.and_then(|committed| committed.error().map(|()| committed.offset()));
            epochs.push(match offset {
                Ok(Offset::Offset(epoch)) => epoch as Epoch,
                Ok(_) => 0,
                Err(error) => return Err(self.failed("read published epochs", error)),
            });
        }
        Ok(epochs)
    }

    fn begin(&mut self) -> Result<(), ProduceError> {
        self.begun = Some(Instant::now());
        let begun = self.clients().producer.begin_transaction();
        begun.map_err(|error| self.failed("begin a transaction", error))
    }

    fn put(&mut self, topic: &str, record: &EncodedRecord) -> Result<(), ProduceError> {
        let producer = &self.clients().producer;
        let sent = TopicRecord {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            ..TopicRecord::default()
        };
        let sent = put(producer, topic, sent, self.patience);
        producer.poll(Duration::ZERO);
        match sent {
            Ok(()) => self.check_refused(),
            // The client itself refuses records of this size.
            Err(KafkaError::MessageProduction(code @ RDKafkaErrorCode::MessageSizeTooLarge)) => {
                Err(ProduceError::Refused {
                    brokers: self.client.brokers.clone(),
                    refusal: RefusedRecord {
                        topic: topic.to_string(),
                        key: text_of(record.key.as_deref()),
                        size: record.size(),
                        code,
                        reason: code.to_string(),
                    },
                })
            }
            Err(error) => Err(self.failed("send a record", error)),
        }
    }

    fn commit(&mut self, epoch: Epoch, topics: &[String]) -> Result<(), ProduceError> {
        // After this, refused records are known, which explain more than a failed commit would.
        self.drain()?;
        let mut offsets = TopicPartitionList::new();
        for topic in topics {
            let offset = offsets.add_partition_offset(topic, 0, Offset::Offset(epoch as i64));
            offset.map_err(|error| self.failed("tell an epoch", error))?;
        }
        let group = self.clients().group.group_metadata();
        let group = group.ok_or_else(|| self.failed("tell an epoch", KafkaError::Canceled))?;
        let stored = self
            .clients()
            .producer
            .send_offsets_to_transaction(&offsets, &group, self.patience);
        stored.map_err(|error| self.failed("tell an epoch", error))?;
        let committed = self.clients().producer.commit_transaction(self.patience);
        committed.map_err(|error| self.failed("commit a transaction", error))?;
        self.begun = None;
        Ok(())
    }
}

/// The most time for a response: librdkafka requires it to be shorter than a transaction.
fn answer(transaction: Duration) -> Duration {
    let most = transaction.saturating_sub(Duration::from_millis(100));
    ANSWER.min(most.max(Duration::from_millis(900)))
}

/// Errors that a client has reported since it was created.
#[derive(Default)]
struct ClientErrors {
    refusal: Mutex<Option<RefusedRecord>>,
    trouble: Mutex<Option<String>>,
}

impl ClientErrors {
    fn take_refusal(&self) -> Option<RefusedRecord> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for ClientErrors {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // This error is only a consequence: the cause was reported before.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
        }
    }
}

impl ConsumerContext for ClientErrors {}

impl ProducerContext for ClientErrors {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let Err((error, message)) = delivery else { return };
        match RefusedRecord::from_error(error, message) {
            Some(refusal) => {
                let mut first = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
                *first = Some(refusal.or_graver(first.take()));
            }
            // Purged records are a consequence of an earlier error.
            None => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) | None => {}
                Some(code) => *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(code.to_string()),
            },
        }
    }
}
