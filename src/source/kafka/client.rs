//! Configures librdkafka clients, and receives their logs, errors and statistics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use crate::definition::{Kafka, KafkaClient};
use crate::source::SourceError;
use crate::source::feed_handle::{FeedHandle, Gauges};

/// How much librdkafka may queue per partition, in KiB, not counting the response that filled the queue.
pub const QUEUE_KIB: u32 = 8 * 1024;

/// The least interval between two logs of the same error.
const REMIND: Duration = Duration::from_secs(60);

/// A consumer with our context.
pub type Consumer = BaseConsumer<Context>;

/// Receives the events of a consumer.
pub struct Context {
    feed: String,
    gauges: Arc<Gauges>,
    state: Mutex<ConsumerState>,
}

#[derive(Default)]
struct ConsumerState {
    statistics: Option<Statistics>,
    /// The newest error, and when it was logged last.
    trouble: Option<(String, Instant)>,
    /// The newest known reason why brokers cannot be reached.
    unreachable: Option<String>,
    /// Since when no broker has answered.
    down: Option<Instant>,
}

impl Context {
    fn state(&self) -> std::sync::MutexGuard<'_, ConsumerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest statistics, unless they were taken already.
    pub fn take_statistics(&self) -> Option<Statistics> {
        self.state().statistics.take()
    }

    /// Records an error that may pass.
    pub fn report_trouble(&self, text: String) {
        let mut state = self.state();
        self.gauges.set_error(text.clone());
        let now = Instant::now();
        let known = |(before, at): &(String, Instant)| *before == text && now.duration_since(*at) < REMIND;
        if !state.trouble.as_ref().is_some_and(known) {
            tracing::warn!(feed = self.feed, "{text}");
            state.trouble = Some((text, now));
        }
    }

    /// The newest known reason why brokers cannot be reached.
    pub fn unreachable_reason(&self) -> Option<String> {
        self.state().unreachable.clone()
    }

    /// Records that brokers answer.
    pub fn observe_answer(&self) {
        let mut state = self.state();
        (state.trouble, state.unreachable) = (None, None);
        if let Some(since) = state.down.take() {
            let after = humantime::format_duration(Duration::from_secs(since.elapsed().as_secs()));
            tracing::info!(feed = self.feed, %after, "brokers answer again");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        // Important messages also arrive as errors; the rest is for debugging.
        tracing::debug!(feed = self.feed, ?level, fac, "{message}");
    }

    fn stats(&self, statistics: Statistics) {
        self.state().statistics = Some(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let text = format!("{reason} ({})", describe(&error));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => return,
            // This only follows from errors that were reported before with the actual reason.
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.state().down.get_or_insert_with(Instant::now);
            }
            _ => self.state().unreachable = Some(text.clone()),
        }
        self.report_trouble(text);
    }
}

impl ConsumerContext for Context {}

/// The text of an error, without the wrapping that rdkafka adds.
pub fn describe(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

/// Sets what every client of these brokers needs: the user's options, and the brokers.
pub fn configure(config: &mut ClientConfig, client: &KafkaClient) {
    config.set("client.id", "alluvium");
    for (name, value) in &client.options.0 {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &client.brokers);
}

/// The consumer group to which offsets are published.
pub fn group(dataflow: &str, kafka: &Kafka) -> String {
    kafka.group.clone().unwrap_or_else(|| format!("alluvium-{dataflow}"))
}

/// A consumer that has no partitions assigned yet.
pub fn consumer(handle: &FeedHandle, kafka: &Kafka) -> Result<Consumer, SourceError> {
    let mut config = ClientConfig::new();
    // Defaults that the user's options may override.
    config
        .set("queued.max.messages.kbytes", QUEUE_KIB.to_string())
        .set("fetch.queue.backoff.ms", "5");
    configure(&mut config, &kafka.client);
    config
        .set("group.id", group(&handle.dataflow.name, kafka))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("statistics.interval.ms", "1000");
    let context = Context {
        feed: handle.name(),
        gauges: handle.gauges.clone(),
        state: Mutex::default(),
    };
    BaseConsumer::from_config_and_context(&config, context).map_err(|error| SourceError::KafkaOptions {
        feed: handle.name(),
        reason: reason(error),
    })
}

/// Why a client could not be created. The value of an option is not repeated, because it may be a secret.
pub fn reason(error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, name, _) => format!("option {name:?}: {reason}"),
        other => other.to_string(),
    }
}
