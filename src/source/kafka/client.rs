//! librdkafka as this feed uses it: its settings, and what it says while it runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use crate::definition::{Kafka, KafkaClient};
use crate::source::SourceError;
use crate::source::outlet::{Gauges, Hand};

/// What librdkafka may hold of one partition, in KiB, beside the response that filled it.
pub const QUEUE_KIB: u32 = 8 * 1024;

/// How often the same trouble is said again.
const REMIND: Duration = Duration::from_secs(60);

/// A consumer with what it says.
pub type Consumer = BaseConsumer<Context>;

/// What a client says while it runs.
pub struct Context {
    feed: String,
    gauges: Arc<Gauges>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    statistics: Option<Statistics>,
    /// The newest trouble, and when it was logged last.
    trouble: Option<(String, Instant)>,
    /// Why brokers cannot be reached, as far as the client knows.
    why: Option<String>,
    /// Since when no broker answers.
    down: Option<Instant>,
}

impl Context {
    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Statistics that were not taken yet.
    pub fn take_statistics(&self) -> Option<Statistics> {
        self.said().statistics.take()
    }

    /// Something went wrong that may pass.
    pub fn trouble(&self, text: String) {
        let mut said = self.said();
        self.gauges.set_error(text.clone());
        let now = Instant::now();
        let known = |(before, at): &(String, Instant)| *before == text && now.duration_since(*at) < REMIND;
        if !said.trouble.as_ref().is_some_and(known) {
            tracing::warn!(feed = self.feed, "{text}");
            said.trouble = Some((text, now));
        }
    }

    /// Why brokers cannot be reached, as far as the client knows.
    pub fn why(&self) -> Option<String> {
        self.said().why.clone()
    }

    /// Brokers answer.
    pub fn well(&self) {
        let mut said = self.said();
        (said.trouble, said.why) = (None, None);
        if let Some(since) = said.down.take() {
            let after = humantime::format_duration(Duration::from_secs(since.elapsed().as_secs()));
            tracing::info!(feed = self.feed, %after, "brokers answer again");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        // What matters comes as an error too; the rest is for those who ask.
        tracing::debug!(feed = self.feed, ?level, fac, "{message}");
    }

    fn stats(&self, statistics: Statistics) {
        self.said().statistics = Some(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let text = format!("{reason} ({})", describe(&error));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => return,
            // A consequence: why was said before.
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.said().down.get_or_insert_with(Instant::now);
            }
            _ => self.said().why = Some(text.clone()),
        }
        self.trouble(text);
    }
}

impl ConsumerContext for Context {}

/// What an error says, without the client's words around it.
pub fn describe(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

/// Sets what every client of these brokers has: the user's options, and the brokers.
pub fn configure(config: &mut ClientConfig, client: &KafkaClient) {
    config.set("client.id", "alluvium");
    for (name, value) in &client.options.0 {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &client.brokers);
}

/// The group that offsets are published to.
pub fn group(dataflow: &str, kafka: &Kafka) -> String {
    kafka.group.clone().unwrap_or_else(|| format!("alluvium-{dataflow}"))
}

/// A consumer without partitions.
pub fn consumer(hand: &Hand, kafka: &Kafka) -> Result<Consumer, SourceError> {
    let mut config = ClientConfig::new();
    // What a user may set otherwise.
    config
        .set("queued.max.messages.kbytes", QUEUE_KIB.to_string())
        .set("fetch.queue.backoff.ms", "5");
    configure(&mut config, &kafka.client);
    config
        .set("group.id", group(&hand.dataflow.name, kafka))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("statistics.interval.ms", "1000");
    let context = Context {
        feed: hand.name(),
        gauges: hand.gauges.clone(),
        said: Mutex::default(),
    };
    BaseConsumer::from_config_and_context(&config, context).map_err(|error| SourceError::KafkaOptions {
        feed: hand.name(),
        reason: reason(error),
    })
}

/// Why a client cannot be made. A value is not repeated: it may be a secret.
pub fn reason(error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, name, _) => format!("option {name:?}: {reason}"),
        other => other.to_string(),
    }
}
