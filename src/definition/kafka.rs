//! The settings of a feed of kind `kafka`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::DateTime;

use super::diagnostic::nearest;
use super::settings::{Settings, Value};

/// Where and how a topic is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Kafka {
    /// Where it reads.
    pub client: KafkaClient,
    /// Which topics; a text that starts with `^` is a regular expression.
    pub topics: Vec<String>,
    /// Where a partition that no snapshot knows is read from.
    pub start: Start,
    /// What happens where the next record is gone from the topic.
    pub on_missing: OnMissing,
    /// The consumer group that offsets are published to; none: `alluvium-<dataflow>`.
    pub group: Option<String>,
    /// Source transactions that are kept whole.
    pub transactions: Option<Transactions>,
}

/// Where brokers are and how they are spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaClient {
    /// `host:port`, several by commas: where a client starts to ask for the others.
    pub brokers: String,
    /// librdkafka's own settings.
    pub options: ClientOptions,
}

impl KafkaClient {
    /// Its brokers one by one.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.brokers.split(',').map(str::trim)
    }
}

/// How records of one source's transactions are kept together, over all feeds that name the same topic of the same
/// brokers.
#[derive(Clone, Debug, PartialEq)]
pub struct Transactions {
    /// Debezium's transaction topic (`provide.transaction.metadata`): `<topic.prefix>.transaction`.
    pub topic: String,
    /// How long a transaction may lack events before it goes on without them.
    pub wait: Duration,
}

/// Where reading starts, of partitions that no snapshot knows. A partition that is found while others of its feed are
/// known is always read from its first record: it is new.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// The first record there is.
    Earliest,
    /// Behind the last record there is.
    Latest,
    /// The first record of this time or later, Unix milliseconds.
    Time(i64),
    /// By partition (`orders-0`), the offset of the first record to read; partitions not named are read from their
    /// first record.
    Offsets(BTreeMap<String, u64>),
}

/// What a feed does whose next record its source has no more: retention removed it before it was read, or a log was begun anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// That partition waits, and says what is missing.
    #[default]
    Stop,
    /// Reading goes on at the first record there is; what is missing is counted, and told among the dead letters.
    Earliest,
}

/// Settings of librdkafka, by its own names. They may be secrets: what is printed are the names alone.
#[derive(Clone, Default, PartialEq)]
pub struct ClientOptions(pub BTreeMap<String, String>);

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a feed decides itself, and why it cannot be set.
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

/// The settings of this kind alone; `start` and `on_missing` are of several.
pub(super) const SETTINGS: [&str; 5] = ["brokers", "topics", "group", "transactions", "options"];

const TOPICS: &str = "[\"shop.public.orders\"]";
const START: &str = "\"earliest\"";

/// Reads `on_missing` alone; none: mistakes were reported.
pub(super) fn read_on_missing(settings: &mut Settings<'_>) -> Option<OnMissing> {
    match settings.take("on_missing", "\"stop\"") {
        None => Some(OnMissing::Stop),
        Some(value) => value.choice(&[("stop", OnMissing::Stop), ("earliest", OnMissing::Earliest)]),
    }
}

/// Reads the settings; none: mistakes were reported.
pub(super) fn read_kafka(settings: &mut Settings<'_>) -> Option<Kafka> {
    let client = read_client(settings);
    let named = settings.require("topics", TOPICS);
    let topics = named.as_ref().and_then(read_topics);
    let start = match settings.take("start", START) {
        None => Some(Start::Earliest),
        Some(value) => read_start(&value),
    };
    let on_missing = read_on_missing(settings);
    let group = match settings.take("group", "\"alluvium-retail\"") {
        None => Some(None),
        Some(value) => value.text().map(|text| Some(text.value)),
    };
    let transactions = match settings.take("transactions", "{ topic = \"shop.transaction\" }") {
        None => Some(None),
        Some(value) => value.settings().and_then(read_transactions).map(Some),
    };
    if let (Some(value), Some(topics), Some(Some(transactions))) = (&named, &topics, &transactions)
        && topics.contains(&transactions.topic)
    {
        value.say(
            format!(
                "topic {:?} tells of the feed's transactions, and is no data of it",
                transactions.topic
            ),
            "remove it from topics; a feed without transactions may read it",
        );
        return None;
    }
    Some(Kafka {
        client: client?,
        topics: topics?,
        start: start?,
        on_missing: on_missing?,
        group: group?,
        transactions: transactions?,
    })
}

/// `brokers` and `options`.
pub(super) fn read_client(settings: &mut Settings<'_>) -> Option<KafkaClient> {
    let brokers = settings
        .require("brokers", "\"localhost:9092\"")
        .and_then(|value| read_brokers(&value));
    let options = match settings.take("options", "{ \"security.protocol\" = \"SASL_SSL\" }") {
        None => Some(ClientOptions::default()),
        Some(value) => value.settings().and_then(read_options),
    };
    Some(KafkaClient {
        brokers: brokers?,
        options: options?,
    })
}

fn read_brokers(value: &Value<'_>) -> Option<String> {
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

fn read_topics(value: &Value<'_>) -> Option<Vec<String>> {
    let mut topics = Vec::new();
    let texts = value.texts()?;
    if texts.is_empty() {
        value.say("the feed names no topic", format!("write topics = {TOPICS}"));
        return None;
    }
    for text in texts {
        let topic = &text.value;
        let wrong = match topic.strip_prefix('^') {
            Some(_) => regex::Regex::new(topic).err().map(|error| {
                let error = error.to_string();
                error.lines().last().unwrap_or_default().to_string()
            }),
            None => name_fault(topic),
        };
        if let Some(wrong) = wrong {
            value.say(
                format!("bad topic {:?}: {wrong}", text.written),
                "name a topic, or write a regular expression that starts with ^: \"^shop\\\\.public\\\\..*\"",
            );
            return None;
        }
        topics.push(text.value);
    }
    Some(topics)
}

/// The topic and the number of a partition, which is called as Kafka calls it on disk: `orders-0`.
pub fn split_partition(partition: &str) -> Option<(&str, i32)> {
    let (topic, number) = partition.rsplit_once('-')?;
    Some((topic, number.parse().ok()?))
}

fn read_start(value: &Value<'_>) -> Option<Start> {
    if !value.is_text() {
        let mut offsets = Some(BTreeMap::new());
        for offset in value.settings()?.take_all("120") {
            let partition = offset.key;
            if split_partition(partition).is_none() {
                offset.say(
                    format!("{partition:?} names no partition"),
                    "write the topic, a dash and the partition's number, as in start = { \"orders-0\" = 120 }",
                );
                offsets = None;
                continue;
            }
            offsets = match (offsets, offset.whole()) {
                (Some(mut offsets), Some(whole)) => {
                    offsets.insert(partition.to_string(), whole);
                    Some(offsets)
                }
                _ => None,
            };
        }
        return offsets.map(Start::Offsets);
    }
    let text = value.text()?;
    match text.value.as_str() {
        "earliest" => return Some(Start::Earliest),
        "latest" => return Some(Start::Latest),
        _ => {}
    }
    let time = DateTime::parse_from_rfc3339(&text.value).ok();
    if time.is_none() {
        value.say(
            format!("setting \"start\" cannot be {:?}", text.written),
            match nearest(&text.value, ["earliest", "latest"]) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "it is earliest, latest, a time such as 2026-11-01T00:00:00Z, or offsets by partition as in \
                         { \"orders-0\" = 120 }"
                    .to_string(),
            },
        );
    }
    time.map(|time| Start::Time(time.timestamp_millis()))
}

fn read_transactions(mut settings: Settings<'_>) -> Option<Transactions> {
    let topic = settings
        .require("topic", "\"shop.transaction\"")
        .and_then(|value| read_topic(&value));
    let wait = match settings.take("wait", "\"30s\"") {
        None => Some(Duration::from_secs(30)),
        Some(value) => value.duration(),
    };
    settings.finish();
    Some(Transactions {
        topic: topic?,
        wait: wait?,
    })
}

/// One topic's name.
pub(super) fn read_topic(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match name_fault(&text.value) {
        None => Some(text.value),
        Some(wrong) => {
            value.say(format!("bad topic {:?}: {wrong}", text.written), "name one topic");
            None
        }
    }
}

/// What is wrong with a topic's name.
fn name_fault(topic: &str) -> Option<String> {
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
