//! Which partitions there are: the topics of a feed, by name and by pattern.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use regex::Regex;

use super::client::Consumer;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub number: i32,
}

impl TopicPartition {
    /// See [`split_partition`](crate::definition::split_partition).
    pub fn name(&self) -> String {
        format!("{}-{}", self.topic, self.number)
    }
}

/// The topics of a feed.
pub struct Topics {
    names: BTreeSet<String>,
    patterns: Vec<Regex>,
}

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub partitions: BTreeSet<TopicPartition>,
    /// Topics that are named and do not exist.
    pub absent: Vec<String>,
}

impl Topics {
    /// Of a definition, which checked that patterns parse.
    pub fn new(topics: &[String]) -> Self {
        let (patterns, names): (Vec<&String>, Vec<&String>) = topics.iter().partition(|topic| topic.starts_with('^'));
        Topics {
            names: names.into_iter().cloned().collect(),
            patterns: patterns
                .into_iter()
                .filter_map(|pattern| Regex::new(pattern).ok())
                .collect(),
        }
    }

    /// Whether a topic is one of them.
    pub fn read(&self, topic: &str) -> bool {
        // Kafka's own topics are no data, unless they are asked for by name.
        let matches = || !topic.starts_with("__") && self.patterns.iter().any(|pattern| pattern.is_match(topic));
        self.names.contains(topic) || matches()
    }

    /// Asks the brokers.
    pub fn find(&self, consumer: &Consumer, patience: Duration) -> KafkaResult<Found> {
        if !self.patterns.is_empty() {
            let metadata = consumer.fetch_metadata(None, patience)?;
            return self.select(&described(&metadata));
        }
        let mut topics = Vec::new();
        for name in &self.names {
            topics.extend(described(&consumer.fetch_metadata(Some(name), patience)?));
        }
        self.select(&topics)
    }

    /// Those of the topics there are that the feed reads.
    fn select(&self, there: &[Described]) -> KafkaResult<Found> {
        let mut found = Found::default();
        for name in &self.names {
            if !there.iter().any(|topic| topic.name == *name && topic.error.is_none()) {
                found.absent.push(name.clone());
            }
        }
        for topic in there {
            if self.read(&topic.name) {
                match &topic.error {
                    Some(error) if !is_absent(error) => return Err(error.clone()),
                    _ => {}
                }
                let name: Arc<str> = topic.name.as_str().into();
                let partition = |number: &i32| TopicPartition {
                    topic: name.clone(),
                    number: *number,
                };
                found.partitions.extend(topic.partitions.iter().map(partition));
            }
        }
        Ok(found)
    }
}

/// A topic as brokers describe it.
struct Described {
    name: String,
    partitions: Vec<i32>,
    error: Option<KafkaError>,
}

fn described(metadata: &Metadata) -> Vec<Described> {
    let topics = metadata.topics().iter().map(|topic| Described {
        name: topic.name().to_string(),
        partitions: topic.partitions().iter().map(|partition| partition.id()).collect(),
        error: topic.error().map(|error| KafkaError::MetadataFetch(error.into())),
    });
    topics.collect()
}

fn is_absent(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaErrorCode as Code;

    fn topic(name: &str, partitions: i32, error: Option<Code>) -> Described {
        Described {
            name: name.into(),
            partitions: (0..partitions).collect(),
            error: error.map(KafkaError::MetadataFetch),
        }
    }

    #[test]
    fn topics_are_taken_by_name_and_pattern_and_kafkas_own_only_by_name() {
        let topics = Topics::new(&["orders".into(), "later".into(), "^shop\\.".into(), "^_".into()]);
        let there = [
            topic("orders", 2, None),
            topic("orders2", 1, None),
            topic("shop.lines", 1, None),
            topic("__consumer_offsets", 50, None),
            topic("later", 0, Some(Code::UnknownTopicOrPartition)),
        ];
        let found = topics.select(&there).expect("brokers answered");
        let names: Vec<String> = found.partitions.iter().map(TopicPartition::name).collect();
        assert_eq!(names, ["orders-0", "orders-1", "shop.lines-0"]);
        assert_eq!(found.absent, ["later"]);
        let own = Topics::new(&["__consumer_offsets".into()]);
        assert_eq!(own.select(&there).expect("brokers answered").partitions.len(), 50);
        let refused = [topic("orders", 0, Some(Code::TopicAuthorizationFailed))];
        assert!(topics.select(&refused).is_err());
    }
}
