//! How feeds and outputs reach a Kafka cluster, `brokers` and `options`, and which names a topic may have.

use std::collections::BTreeMap;
use std::fmt;

use super::settings::{SettingValue, Settings};

/// The address of a Kafka cluster, and the client's options.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaClient {
    /// `host:port`, several separated by commas; a client asks them for the cluster's other brokers.
    pub brokers: String,
    /// librdkafka's own settings.
    pub options: ClientOptions,
}

impl KafkaClient {
    /// The brokers one by one.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.brokers.split(',').map(str::trim)
    }
}

/// Options of librdkafka, by its own names. Their values may be secrets, so only the names are printed.
#[derive(Clone, Default, PartialEq)]
pub struct ClientOptions(pub BTreeMap<String, String>);

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Options that a feed sets itself, with the reason why users cannot set them.
const OWN_OPTIONS: [(&str, &str); 9] = [
    ("bootstrap.servers", "it is the feed's setting brokers"),
    ("metadata.broker.list", "it is the feed's setting brokers"),
    ("group.id", "it is the feed's setting group"),
    ("auto.offset.reset", "where to start is the feed's setting start"),
    ("enable.auto.commit", "offsets are part of every snapshot"),
    ("enable.auto.offset.store", "offsets are part of every snapshot"),
    ("enable.partition.eof", "it tells when a feed is caught up"),
    ("statistics.interval.ms", "it tells how far a feed lags"),
    ("isolation.level", "only committed records are read"),
];

/// Reads `brokers` and `options`.
pub(super) fn read_client(settings: &mut Settings<'_>) -> Option<KafkaClient> {
    let brokers = settings
        .require("brokers", "\"localhost:9092\"")
        .and_then(|value| read_brokers(&value));
    let options = match settings.setting("options", "{ \"security.protocol\" = \"SASL_SSL\" }") {
        None => Some(ClientOptions::default()),
        Some(value) => value.settings().and_then(read_options),
    };
    Some(KafkaClient {
        brokers: brokers?,
        options: options?,
    })
}

fn read_brokers(value: &SettingValue<'_>) -> Option<String> {
    let text = value.text()?;
    let is_host = |broker: &str| {
        let broker = broker.trim();
        !broker.is_empty() && !broker.contains(char::is_whitespace) && !broker.contains("://")
    };
    if text.value.split(',').all(is_host) {
        return Some(text.value);
    }
    value.say(
        format!("bad brokers {:?}", text.written),
        "write hosts and ports, several by commas: \"one:9092,two:9092\"; how they are spoken to is options.\"security.protocol\"",
    );
    None
}

/// Reads the name of one topic.
pub(super) fn read_topic(value: &SettingValue<'_>) -> Option<String> {
    let text = value.text()?;
    match name_fault(&text.value) {
        None => Some(text.value),
        Some(wrong) => {
            value.say(format!("bad topic {:?}: {wrong}", text.written), "name one topic");
            None
        }
    }
}

/// What is wrong with a topic's name; none if it is valid.
pub(super) fn name_fault(topic: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let bad = topic.is_empty() || topic.len() > 249 || !topic.chars().all(plain);
    bad.then(|| "a topic's name is made of up to 249 letters, digits, dots, _ and -".to_string())
}

fn read_options(mut settings: Settings<'_>) -> Option<ClientOptions> {
    let file = settings.file();
    let mut options = Some(BTreeMap::new());
    for value in settings.take_all("\"SASL_SSL\"") {
        if let Some((name, why)) = OWN_OPTIONS.iter().find(|(name, _)| *name == value.key) {
            file.say(
                &value.key_at,
                format!("option {name:?} cannot be set"),
                format!("remove it: {why}"),
            );
            options = None;
        }
        options = match (options, value.scalar()) {
            (Some(mut options), Some(text)) => {
                options.insert(value.key.to_string(), text);
                Some(options)
            }
            _ => None,
        };
    }
    options.map(ClientOptions)
}
