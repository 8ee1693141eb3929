//! Which feeds share a keeper, and how it starts with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::kafka;
use super::super::outlet::Hand;
use super::super::readers::Starter;
use super::super::{Progress, SourceError};
use super::LIMITS;
use super::gate::{Gate, Reads, ReadsTopic};
use super::keeper::{Group, keep};
use super::line::{KeeperEnd, Line, line};
use super::marker::decoder;
use crate::definition::{Dataflow, FeedKind, Kafka, split_partition};

/// The feeds of a dataflow by the source whose transactions they are in.
#[derive(Default)]
pub(crate) struct Groups(Vec<Feeds>);

/// Feeds of one source, before they start.
struct Feeds {
    kafka: Kafka,
    members: Vec<(usize, usize)>,
    hands: Vec<Hand>,
    line: Line,
    end: KeeperEnd,
}

impl Groups {
    pub fn of(dataflow: &Dataflow) -> Groups {
        let mut groups: BTreeMap<(BTreeSet<&str>, &str), Feeds> = BTreeMap::new();
        for (i, input) in dataflow.inputs.iter().enumerate() {
            for (f, feed) in input.feeds.iter().enumerate() {
                let Some((kafka, transactions)) = feed.transactions() else {
                    continue;
                };
                // The same, in whichever order they are named.
                let source = (kafka.client.hosts().collect(), transactions.topic.as_str());
                let group = groups.entry(source).or_insert_with(|| {
                    let (line, end) = line();
                    Feeds {
                        kafka: kafka.clone(),
                        members: Vec::new(),
                        hands: Vec::new(),
                        line,
                        end,
                    }
                });
                group.members.push((i, f));
            }
        }
        Groups(groups.into_values().collect())
    }

    /// The way to the keeper of a feed, if it has one.
    pub fn line(&self, input: usize, feed: usize) -> Option<Line> {
        let group = self.0.iter().find(|group| group.members.contains(&(input, feed)))?;
        Some(group.line.clone())
    }

    /// A feed will be read by this hand.
    pub fn observe_hand(&mut self, hand: &Hand) {
        let of_hand = |group: &&mut Feeds| group.members.contains(&(hand.input, hand.feed));
        if let Some(group) = self.0.iter_mut().find(of_hand) {
            group.hands.push(hand.clone());
        }
    }

    /// Starts keepers, and the readers of their transaction topics.
    pub fn start(self, starter: &mut Starter, resume: &Progress) -> Result<(), SourceError> {
        for group in self.0 {
            group.start(starter, resume)?;
        }
        Ok(())
    }
}

impl Feeds {
    fn start(self, starter: &mut Starter, resume: &Progress) -> Result<(), SourceError> {
        let Feeds {
            kafka,
            hands,
            end,
            members,
            ..
        } = self;
        let transactions = kafka.transactions.clone().expect("its feeds name a topic");
        let topic = transactions.topic;
        let first = hands.first().expect("a group has a feed").clone();
        let of_feed = kafka::readers(first.outlets.len());
        let reads = |hand: &Hand| -> ReadsTopic {
            let (kafka, _) = hand.feed().transactions().expect("it is of the group");
            let topics = kafka::Topics::of(kafka);
            Box::new(move |topic| topics.read(topic))
        };
        // Feeds should say the same; where they do not, who wants to wait does.
        let waits = hands.iter().filter_map(|hand| hand.feed().transactions());
        let wait = waits.map(|(_, of)| of.wait).max().unwrap_or(transactions.wait);
        let prefix = topic.rsplit_once('.').map_or("", |(prefix, _)| prefix);
        let reads = Reads {
            prefix: prefix.to_string(),
            feeds: hands.iter().map(reads).collect(),
        };
        let group = Group {
            gate: Gate::new(reads, wait, LIMITS),
            topic: topic.clone(),
            feeds: hands.iter().map(|hand| (hand.input, hand.feed)).collect(),
            readers: hands.len() * of_feed + 1,
            gauges: hands.iter().map(|hand| (hand.gauges.clone(), of_feed)).collect(),
            stop_at_end: starter.options.stop_at_end,
            together: starter.options.together.clone(),
            open: starter.options.open_epoch.clone(),
        };
        let decoder = decoder(first.feed(), &starter.options.registries).map_err(|error| SourceError::Markers {
            feed: first.name(),
            source: Arc::new(error),
        })?;
        let known = known_markers(&first.dataflow, &members, &topic, resume);
        kafka::start_markers(starter, first.clone(), &kafka, &topic, decoder, known)?;
        // Without a way to itself: it ends when its readers do.
        let keeper = Hand { line: None, ..first };
        drop(hands);
        starter.spawn(&keeper, move |hand| keep(hand, group, end))
    }
}

/// How far markers are read, by (3) of the module: by partition the newest position that any feed of the group left, also
/// one that is gone or has another name now. Where no feed of the group was read before, the group is new.
fn known_markers(
    dataflow: &Dataflow,
    members: &[(usize, usize)],
    topic: &str,
    resume: &Progress,
) -> BTreeMap<String, u64> {
    let is_member = |input: &str, feed: &str| {
        let mut members = members.iter().map(|(i, f)| (&dataflow.inputs[*i], *f));
        members.any(|(i, f)| i.name == input && i.feeds[f].name == feed)
    };
    if !resume.keys().any(|id| is_member(&id.input, &id.feed)) {
        return BTreeMap::new();
    }
    // Who reads the topic as data has its own position.
    let reads_it = |input: &str, feed: &str| {
        let feeds = dataflow
            .inputs
            .iter()
            .filter(|i| i.name == input)
            .flat_map(|i| &i.feeds);
        let mut feeds = feeds.filter(|f| f.name == feed);
        feeds.any(|f| matches!(&f.kind, FeedKind::Kafka(kafka) if kafka::Topics::of(kafka).read(topic)))
    };
    let mut known = BTreeMap::new();
    for (id, position) in resume {
        let is_of_topic = split_partition(&id.partition).is_some_and(|(of, _)| of == topic);
        if is_of_topic && !reads_it(&id.input, &id.feed) {
            let next: &mut u64 = known.entry(id.partition.clone()).or_default();
            *next = position.next.max(*next);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{ClientOptions, Format, KafkaClient, OnMissing, Start, Transactions};
    use crate::source::tests::{dataflow, input};
    use crate::source::{PartitionId, Position};

    fn feed(brokers: &str, topic: &str, markers: Option<&str>) -> FeedKind {
        FeedKind::Kafka(Kafka {
            client: KafkaClient {
                brokers: brokers.into(),
                options: ClientOptions::default(),
            },
            topics: vec![topic.into()],
            start: Start::Latest,
            on_missing: OnMissing::Stop,
            group: None,
            transactions: markers.map(|topic| Transactions {
                topic: topic.into(),
                wait: std::time::Duration::from_secs(30),
            }),
        })
    }

    /// The first feed by its file's name kept the position. One that came before it began without, so that all ENDs since
    /// the snapshot were passed over and their transactions cut.
    #[test]
    fn the_position_of_markers_is_found_whichever_feed_left_it() {
        let kept = |name, topic| {
            let kind = feed("one:1, two:2", topic, Some("shop.transaction"));
            input(name, vec![("live", kind, Format::Json)])
        };
        let other = feed("two:2,one:1", "shop.orders", Some("shop.transaction"));
        let audit = feed("one:1,two:2", "^shop\\.", None);
        let dataflow = dataflow(vec![
            kept("accounts", "shop.accounts"),
            input("audit", vec![("all", audit, Format::Json)]),
            input("orders", vec![("live", other, Format::Json)]),
        ]);
        let groups = Groups::of(&dataflow).0;
        assert_eq!(groups.len(), 1, "brokers are the same in another order");
        let members = &groups[0].members;
        assert_eq!(members, &[(0, 0), (2, 0)]);
        let mut resume = Progress::new();
        let mut put = |input: &str, feed: &str, partition: &str, next| {
            let id = PartitionId {
                input: input.into(),
                feed: feed.into(),
                partition: partition.into(),
            };
            resume.insert(id, Position::at(next));
            resume.clone()
        };
        let known = |resume: &Progress| known_markers(&dataflow, members, "shop.transaction", resume);
        put("gone", "live", "shop.transaction-0", 90);
        let resume = put("audit", "all", "shop.transaction-0", 500);
        assert!(known(&resume).is_empty(), "the group is new");
        put("orders", "live", "shop.orders-0", 7);
        let resume = put("orders", "live", "shop.transaction-0", 80);
        assert_eq!(known(&resume), BTreeMap::from([("shop.transaction-0".into(), 90)]));
    }
}
