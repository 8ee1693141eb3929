//! Discovers the partitions of a feed's topics, which are given by name or pattern.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use regex::Regex;

use super::client::Consumer;
use crate::definition::Kafka;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub number: i32,
}

impl TopicPartition {
    /// The partition's name; see [`split_partition`](crate::definition::split_partition).
    pub fn name(&self) -> String {
        format!("{}-{}", self.topic, self.number)
    }
}

/// The topics that a feed reads.
pub struct Topics {
    names: BTreeSet<String>,
    patterns: Vec<Regex>,
    /// The transaction topic, which a pattern may match although it is no data.
    markers: Option<String>,
}

/// The result of a discovery.
#[derive(Debug, Default, PartialEq)]
pub struct TopicDiscovery {
    pub partitions: BTreeSet<TopicPartition>,
    /// Those of them that have no leader now, so that they cannot be read.
    pub leaderless: BTreeSet<TopicPartition>,
    /// Topics that are named and do not exist.
    pub absent: Vec<String>,
}

impl Topics {
    /// The topics of a feed; its definition has checked that the patterns are valid.
    pub fn of_feed(kafka: &Kafka) -> Self {
        let topics = kafka.topics.iter();
        let (patterns, names): (Vec<&String>, Vec<&String>) = topics.partition(|topic| topic.starts_with('^'));
        Topics {
            names: names.into_iter().cloned().collect(),
            patterns: patterns
                .into_iter()
                .filter_map(|pattern| Regex::new(pattern).ok())
                .collect(),
            markers: kafka
                .transactions
                .as_ref()
                .map(|transactions| transactions.topic.clone()),
        }
    }

    /// Whether the feed reads a topic.
    pub fn reads(&self, topic: &str) -> bool {
        // Kafka's internal topics are no data, unless they are configured by name.
        let matches = || !topic.starts_with("__") && self.patterns.iter().any(|pattern| pattern.is_match(topic));
        self.markers.as_deref() != Some(topic) && (self.names.contains(topic) || matches())
    }

    /// Asks the brokers for partitions.
    pub fn discover(&self, consumer: &Consumer, patience: Duration) -> KafkaResult<TopicDiscovery> {
        if !self.patterns.is_empty() {
            let metadata = consumer.fetch_metadata(None, patience)?;
            return self.select(&describe_topics(&metadata));
        }
        let mut topics = Vec::new();
        for name in &self.names {
            topics.extend(describe_topics(&consumer.fetch_metadata(Some(name), patience)?));
        }
        self.select(&topics)
    }

    /// Selects the topics that the feed reads.
    fn select(&self, topics: &[DescribedTopic]) -> KafkaResult<TopicDiscovery> {
        let mut discovery = TopicDiscovery::default();
        for name in &self.names {
            if !topics.iter().any(|topic| topic.name == *name && topic.error.is_none()) {
                discovery.absent.push(name.clone());
            }
        }
        for topic in topics {
            if self.reads(&topic.name) {
                match &topic.error {
                    Some(error) if !is_absent(error) => return Err(error.clone()),
                    _ => {}
                }
                let name: Arc<str> = topic.name.as_str().into();
                for (number, has_leader) in &topic.partitions {
                    let partition = TopicPartition {
                        topic: name.clone(),
                        number: *number,
                    };
                    if !has_leader {
                        discovery.leaderless.insert(partition.clone());
                    }
                    discovery.partitions.insert(partition);
                }
            }
        }
        Ok(discovery)
    }
}

/// A topic as brokers describe it.
struct DescribedTopic {
    name: String,
    /// The partitions' numbers, each with whether it has a leader.
    partitions: Vec<(i32, bool)>,
    error: Option<KafkaError>,
}

fn describe_topics(metadata: &Metadata) -> Vec<DescribedTopic> {
    let topics = metadata.topics().iter().map(|topic| DescribedTopic {
        name: topic.name().to_string(),
        partitions: topic.partitions().iter().map(|p| (p.id(), p.leader() >= 0)).collect(),
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
    use crate::definition::{ClientOptions, KafkaClient, KafkaStart, OnMissing, TransactionSettings};
    use rdkafka::types::RDKafkaErrorCode as Code;

    fn kafka(topics: &[&str], markers: Option<&str>) -> Kafka {
        Kafka {
            client: KafkaClient {
                brokers: "one:9092".into(),
                options: ClientOptions::default(),
            },
            topics: topics.iter().map(|topic| topic.to_string()).collect(),
            start: KafkaStart::Earliest,
            on_missing: OnMissing::Stop,
            group: None,
            transactions: markers.map(|topic| TransactionSettings {
                topic: topic.into(),
                wait: Duration::ZERO,
            }),
        }
    }

    fn topic(name: &str, partitions: i32, error: Option<Code>) -> DescribedTopic {
        DescribedTopic {
            name: name.into(),
            partitions: (0..partitions).map(|number| (number, number != 7)).collect(),
            error: error.map(KafkaError::MetadataFetch),
        }
    }

    #[test]
    fn topics_are_taken_by_name_and_pattern_and_kafkas_own_only_by_name() {
        let topics = Topics::of_feed(&kafka(&["orders", "later", "^shop\\.", "^_"], Some("shop.transaction")));
        let topic_list = [
            topic("orders", 2, None),
            topic("orders2", 1, None),
            topic("shop.lines", 1, None),
            topic("shop.transaction", 1, None),
            topic("__consumer_offsets", 50, None),
            topic("later", 0, Some(Code::UnknownTopicOrPartition)),
        ];
        let found = topics.select(&topic_list).expect("brokers answered");
        let names: Vec<String> = found.partitions.iter().map(TopicPartition::name).collect();
        assert_eq!(names, ["orders-0", "orders-1", "shop.lines-0"]);
        assert_eq!(found.absent, ["later"]);
        let own = Topics::of_feed(&kafka(&["__consumer_offsets"], None));
        let own = own.select(&topic_list).expect("brokers answered");
        assert_eq!((own.partitions.len(), own.leaderless.len()), (50, 1));
        let refused = [topic("orders", 0, Some(Code::TopicAuthorizationFailed))];
        assert!(topics.select(&refused).is_err());
    }
}
