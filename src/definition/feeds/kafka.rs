//! Kind `kafka`: topics of a Kafka cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::DateTime;

use super::contract::{Division, FeedContract, FeedSurroundings, Unwritable, WriteTarget};
use super::kind::KindOfFeed;
use super::shared::{OnMissing, read_on_missing};
use crate::definition::Input;
use crate::definition::diagnostic::nearest;
use crate::definition::kafka_client::{KafkaClient, name_fault, read_client, read_topic};
use crate::definition::settings::{SettingValue, Settings};
use crate::repr::Position;

/// The kind's properties.
pub(super) const KIND: KindOfFeed = KindOfFeed {
    name: "kafka",
    settings: &[
        "brokers",
        "topics",
        "start",
        "on_missing",
        "group",
        "transactions",
        "options",
    ],
    ..KindOfFeed::OF_RECORDS
};

/// Settings of a `kafka` feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Kafka {
    /// How to reach the brokers.
    pub client: KafkaClient,
    /// The topics; a text that starts with `^` is a regular expression.
    pub topics: Vec<String>,
    /// Where to start reading a partition that no snapshot knows.
    pub start: KafkaStart,
    /// What to do if the next record was removed from the topic.
    pub on_missing: OnMissing,
    /// The consumer group to which offsets are published; none: `alluvium-<dataflow>`.
    pub group: Option<String>,
    /// How source transactions are kept whole, if they are.
    pub transactions: Option<TransactionSettings>,
}

/// How the transactions of one source are kept whole, over all feeds that name the same topic of the same brokers.
#[derive(Clone, Debug, PartialEq)]
pub struct TransactionSettings {
    /// Debezium's transaction topic (`provide.transaction.metadata`): `<topic.prefix>.transaction`.
    pub topic: String,
    /// How long a transaction may lack events before it is released without them.
    pub wait: Duration,
}

/// Where to start reading partitions that no snapshot knows. A partition that is found while others of its feed are
/// known is new, and always read from its first record.
#[derive(Clone, Debug, PartialEq)]
pub enum KafkaStart {
    /// At the first existing record.
    Earliest,
    /// Behind the last existing record.
    Latest,
    /// At the first record with this timestamp or a later one, in Unix milliseconds.
    Time(i64),
    /// At these offsets by partition (`orders-0`); partitions that are not named are read from their first record.
    Offsets(BTreeMap<String, u64>),
}

impl FeedContract for Kafka {
    fn describe(&self, _: &FeedSurroundings<'_>) -> String {
        format!("kafka {} at {}", self.topics.join(", "), self.client.brokers)
    }

    fn topics(&self) -> &[String] {
        &self.topics
    }

    fn stamps_records(&self) -> bool {
        true
    }

    fn division(&self, _: &Input) -> Division {
        match self.transactions {
            Some(_) => Division::First,
            None => Division::Partitions,
        }
    }

    fn forgets(&self) -> bool {
        true
    }

    fn repeats(&self, _: &Position) -> bool {
        // With any other start, the first offset that was read depended on the topic's state at that time.
        self.start == KafkaStart::Earliest
    }

    fn holds_records(&self, partition: &str) -> bool {
        let topic = split_partition(partition).map(|(topic, _)| topic);
        let markers = self.transactions.as_ref();
        markers.is_none_or(|markers| topic != Some(&markers.topic))
    }

    fn written_to(&self) -> Result<WriteTarget<'_>, Unwritable> {
        Ok(WriteTarget::Topics {
            client: &self.client,
            topics: &self.topics,
        })
    }
}

const TOPICS: &str = "[\"shop.public.orders\"]";
const START: &str = "\"earliest\"";

/// Reads the settings; none if mistakes were reported.
pub(super) fn read(settings: &mut Settings<'_>) -> Option<Kafka> {
    let client = read_client(settings);
    let named = settings.require("topics", TOPICS);
    let topics = named.as_ref().and_then(read_topics);
    let start = match settings.setting("start", START) {
        None => Some(KafkaStart::Earliest),
        Some(value) => read_start(&value),
    };
    let on_missing = read_on_missing(settings);
    let group = match settings.setting("group", "\"alluvium-retail\"") {
        None => Some(None),
        Some(value) => value.text().map(|text| Some(text.value)),
    };
    let transactions = match settings.setting("transactions", "{ topic = \"shop.transaction\" }") {
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

fn read_topics(value: &SettingValue<'_>) -> Option<Vec<String>> {
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

/// Splits a partition's name into topic and number; it has the name that Kafka uses on disk, such as `orders-0`.
pub fn split_partition(partition: &str) -> Option<(&str, i32)> {
    let (topic, number) = partition.rsplit_once('-')?;
    Some((topic, number.parse().ok()?))
}

fn read_start(value: &SettingValue<'_>) -> Option<KafkaStart> {
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
        return offsets.map(KafkaStart::Offsets);
    }
    let text = value.text()?;
    match text.value.as_str() {
        "earliest" => return Some(KafkaStart::Earliest),
        "latest" => return Some(KafkaStart::Latest),
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
    time.map(|time| KafkaStart::Time(time.timestamp_millis()))
}

fn read_transactions(mut settings: Settings<'_>) -> Option<TransactionSettings> {
    let topic = settings
        .require("topic", "\"shop.transaction\"")
        .and_then(|value| read_topic(&value));
    let wait = match settings.setting("wait", "\"30s\"") {
        None => Some(Duration::from_secs(30)),
        Some(value) => value.duration(),
    };
    settings.finish();
    Some(TransactionSettings {
        topic: topic?,
        wait: wait?,
    })
}
