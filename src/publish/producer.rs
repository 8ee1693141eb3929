//! A transactional producer, and the epochs that its topics have.
//!
//! 1. A transaction commits records together with the epoch of every topic of the channel: as offsets of a group, each of
//!    its topic's first partition.
//! 2. A producer that failed in anything is given up. librdkafka can resume some calls and not others, and an abort waits
//!    for reports that nobody serves meanwhile; a new one of the same id needs to know nothing of it: brokers settle what
//!    was left open before they let it begin, and the epochs say which way.
//! 3. Brokers decide which records are too large. They refuse whole batches: one that is refused is sent again in smaller
//!    ones, until a record that is refused was alone.

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
use super::encode::Keyed;
use super::error::ProduceError;
use super::refusal::{Refusal, text_of};
use crate::definition::KafkaClient;
use crate::repr::Epoch;
use crate::source::{ProducerQueue, TopicRecord, configure_client, describe_client_error, put};

/// How long brokers may take for one step, or may not take a record for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a transaction may take, unless told otherwise: the longest that brokers allow unless told otherwise.
const LONGEST: Duration = Duration::from_secs(900);
/// How long an answer may take. librdkafka's own default, which is else raised to a transaction's length.
const ANSWER: Duration = Duration::from_secs(60);
/// librdkafka's default of `batch.size`.
const BATCH: usize = 1_000_000;

/// Which cluster each channel's brokers turned out to be.
pub type Clusters = Arc<Mutex<BTreeMap<String, String>>>;

/// Brokers, with one producer at a time.
pub struct Kafka {
    id: String,
    client: KafkaClient,
    /// None: there is one channel.
    clusters: Option<Clusters>,
    timeout: Duration,
    /// Bytes of a batch, at most; by (3) it shrinks.
    batch: usize,
    batch_is_ours: bool,
    patience: Duration,
    clients: Option<Clients>,
    /// Whether the clients were in use.
    used: bool,
    /// Since when a transaction is open.
    begun: Option<Instant>,
}

struct Clients {
    producer: BaseProducer<Said>,
    /// The group that keeps epochs.
    group: BaseConsumer<Said>,
}

impl Kafka {
    /// Nothing is asked of the brokers yet.
    pub fn new(dataflow: &str, client: &KafkaClient, clusters: Option<Clusters>) -> Result<Kafka, ProduceError> {
        let number = |name: &str| client.options.0.get(name).and_then(|text| text.parse().ok());
        let mut kafka = Kafka {
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

    /// Brokers that are given up sooner.
    #[cfg(test)]
    pub fn within(self, patience: Duration) -> Kafka {
        Kafka { patience, ..self }
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
            // What is encoded and not yet taken.
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
            producer: config.create_with_context(Said::default()).map_err(options)?,
            group: group.create_with_context(Said::default()).map_err(options)?,
        })
    }

    fn clients(&self) -> &Clients {
        self.clients.as_ref().expect("it is opened before it is used")
    }

    /// Two channels to one cluster would share a transactional id.
    fn check_cluster(&self) -> Result<(), ProduceError> {
        let Some(clusters) = &self.clusters else {
            return Ok(());
        };
        let Some(cluster) = self.clients().group.client().fetch_cluster_id(self.patience) else {
            return Ok(()); // who does not answer is asked again by what follows
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

    /// Waits until brokers have taken every record, as long as they take any.
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

    fn refused(&mut self, refusal: Refusal) -> ProduceError {
        let brokers = self.client.brokers.clone();
        if !refusal.is_too_large() || refusal.size >= self.batch {
            return ProduceError::Refused { brokers, refusal };
        }
        // By (3): none of the batches to come holds this record and another.
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
            // Brokers end what takes too long by fencing it, as another producer would.
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

impl Brokers for Kafka {
    fn open(&mut self, topics: &[String]) -> Result<Vec<Epoch>, ProduceError> {
        if std::mem::replace(&mut self.used, true) {
            self.clients = None; // it is closed before the next begins
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
        let found = self.clients().group.committed_offsets(wanted, self.patience);
        let found = found.map_err(|error| self.failed("read published epochs", error))?;
        let mut epochs = Vec::with_capacity(topics.len());
        for topic in topics {
            let found = found.find_partition(topic, 0);
            let found = found.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition));
            // Not to know is not to have none: whoever has none gets all rows.
            let offset = found.and_then(|found| found.error().map(|()| found.offset()));
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

    fn put(&mut self, topic: &str, record: &Keyed) -> Result<(), ProduceError> {
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
            // By the client itself, which sends none so large.
            Err(KafkaError::MessageProduction(code @ RDKafkaErrorCode::MessageSizeTooLarge)) => {
                Err(ProduceError::Refused {
                    brokers: self.client.brokers.clone(),
                    refusal: Refusal {
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
        // What was refused is known by then, and says more than a commit that fails.
        self.drain()?;
        let mut offsets = TopicPartitionList::new();
        for topic in topics {
            let offset = offsets.add_partition_offset(topic, 0, Offset::Offset(epoch as i64));
            offset.map_err(|error| self.failed("tell an epoch", error))?;
        }
        let group = self.clients().group.group_metadata();
        let group = group.ok_or_else(|| self.failed("tell an epoch", KafkaError::Canceled))?;
        let told = self
            .clients()
            .producer
            .send_offsets_to_transaction(&offsets, &group, self.patience);
        told.map_err(|error| self.failed("tell an epoch", error))?;
        let committed = self.clients().producer.commit_transaction(self.patience);
        committed.map_err(|error| self.failed("commit a transaction", error))?;
        self.begun = None;
        Ok(())
    }
}

/// How long an answer may take, by librdkafka's rule that it is shorter than a transaction.
fn answer(transaction: Duration) -> Duration {
    let most = transaction.saturating_sub(Duration::from_millis(100));
    ANSWER.min(most.max(Duration::from_millis(900)))
}

/// What a client said since it was made.
#[derive(Default)]
struct Said {
    refusal: Mutex<Option<Refusal>>,
    trouble: Mutex<Option<String>>,
}

impl Said {
    fn take_refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Said {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all are down is a consequence: why was said before.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
        }
    }
}

impl ConsumerContext for Said {}

impl ProducerContext for Said {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let Err((error, message)) = delivery else { return };
        match Refusal::of(error, message) {
            Some(refusal) => {
                let mut first = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
                *first = Some(refusal.or_graver(first.take()));
            }
            // What is purged was left behind by what went wrong before.
            None => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) | None => {}
                Some(code) => *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(code.to_string()),
            },
        }
    }
}
