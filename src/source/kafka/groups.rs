//! Decides which feeds share a transaction coordinator, and starts the coordinator with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::threads::{readers, start_markers};
use super::topics::Topics;
use crate::definition::{Dataflow, Feed, Kafka, TransactionSettings, split_partition};
use crate::repr::FeedPositions;
use crate::source::error::SourceError;
use crate::source::feed_handle::FeedHandle;
use crate::source::starter::{FeedGroup, RunningFeeds, Starter};
use crate::source::transactions::{
    CoordinatorHandle, CoordinatorInbox, LIMITS, ReadsTopic, SourceFeeds, SourceTopics, TransactionQueue,
    coordinator_channel, marker_decoder, run_coordinator,
};

/// The feeds of a dataflow, grouped by the source whose transactions they take part in.
#[derive(Default)]
pub(crate) struct TransactionGroups(Vec<GroupedFeeds>);

/// The feeds of one source, before they start.
struct GroupedFeeds {
    kafka: Kafka,
    members: Vec<(usize, usize)>,
    handles: Vec<FeedHandle>,
    coordinator: CoordinatorHandle,
    end: CoordinatorInbox,
}

impl TransactionGroups {
    pub fn from_dataflow(dataflow: &Dataflow) -> TransactionGroups {
        let mut groups: BTreeMap<(BTreeSet<&str>, &str), GroupedFeeds> = BTreeMap::new();
        for (i, input) in dataflow.inputs.iter().enumerate() {
            for (f, feed) in input.feeds.iter().enumerate() {
                let Some((kafka, transactions)) = transactions(feed) else {
                    continue;
                };
                // The same brokers count as the same source, in whatever order they are listed.
                let source = (kafka.client.hosts().collect(), transactions.topic.as_str());
                let group = groups.entry(source).or_insert_with(|| {
                    let (coordinator, end) = coordinator_channel();
                    GroupedFeeds {
                        kafka: kafka.clone(),
                        members: Vec::new(),
                        handles: Vec::new(),
                        coordinator,
                        end,
                    }
                });
                group.members.push((i, f));
            }
        }
        TransactionGroups(groups.into_values().collect())
    }

    /// The coordinator of a feed, if it has one.
    pub fn coordinator(&self, input: usize, feed: usize) -> Option<CoordinatorHandle> {
        let group = self.0.iter().find(|group| group.members.contains(&(input, feed)))?;
        Some(group.coordinator.clone())
    }

    /// Adds the handle through which a feed will be read.
    pub fn observe_feed(&mut self, handle: &FeedHandle) {
        let has_handle = |group: &&mut GroupedFeeds| group.members.contains(&(handle.input, handle.feed));
        if let Some(group) = self.0.iter_mut().find(has_handle) {
            group.handles.push(handle.clone());
        }
    }
}

impl FeedGroup for TransactionGroups {
    /// Starts the coordinators, and the readers of their transaction topics.
    fn start(
        self: Box<Self>,
        starter: &mut Starter,
        resume: &FeedPositions,
    ) -> Result<Option<Box<dyn RunningFeeds>>, SourceError> {
        for group in self.0 {
            group.start(starter, resume)?;
        }
        Ok(None)
    }
}

/// The settings by which the transactions of a feed's source are kept whole, if they are.
fn transactions(feed: &Feed) -> Option<(&Kafka, &TransactionSettings)> {
    let kafka: &Kafka = feed.kind.settings_of()?;
    kafka.transactions.as_ref().map(|transactions| (kafka, transactions))
}

impl GroupedFeeds {
    fn start(self, starter: &mut Starter, resume: &FeedPositions) -> Result<(), SourceError> {
        let GroupedFeeds {
            kafka,
            handles,
            end,
            members,
            ..
        } = self;
        let of_source = kafka.transactions.clone().expect("its feeds name a topic");
        let topic = of_source.topic;
        let first = handles.first().expect("a group has a feed").clone();
        let of_feed = readers(first.channels.len());
        let reads = |handle: &FeedHandle| -> ReadsTopic {
            let (kafka, _) = transactions(handle.feed()).expect("it is of the group");
            let topics = Topics::of_feed(kafka);
            Box::new(move |topic| topics.reads(topic))
        };
        // Feeds of one source should have the same `wait`; if they differ, the longest one counts.
        let waits = handles.iter().filter_map(|handle| transactions(handle.feed()));
        let wait = waits.map(|(_, of)| of.wait).max().unwrap_or(of_source.wait);
        let prefix = topic.rsplit_once('.').map_or("", |(prefix, _)| prefix);
        let reads = SourceTopics {
            prefix: prefix.to_string(),
            feeds: handles.iter().map(reads).collect(),
        };
        let group = SourceFeeds {
            queue: TransactionQueue::new(reads, wait, LIMITS),
            topic: topic.clone(),
            feeds: handles.iter().map(|handle| (handle.input, handle.feed)).collect(),
            readers: handles.len() * of_feed + 1,
            gauges: handles.iter().map(|handle| (handle.gauges.clone(), of_feed)).collect(),
            stop_at_end: starter.options.stop_at_end,
            together: starter.options.together.clone(),
            open: starter.options.open_epoch.clone(),
        };
        let decoder =
            marker_decoder(first.feed(), &starter.options.registries).map_err(|error| SourceError::Markers {
                feed: first.name(),
                source: Arc::new(error),
            })?;
        let known = known_markers(&first.dataflow, &members, &topic, resume);
        start_markers(starter, first.clone(), &kafka, &topic, decoder, known)?;
        // Without a sender to itself, the coordinator ends when its readers have.
        let coordinator = FeedHandle {
            coordinator: None,
            ..first
        };
        drop(handles);
        starter.spawn(&coordinator, move |handle| run_coordinator(handle, group, end))
    }
}

/// How far the transaction topic was read, by (3) of the module: for each partition, the newest position that any
/// feed of the group left, even one that was removed or renamed since. If no feed of the group was ever read, the
/// group is new.
fn known_markers(
    dataflow: &Dataflow,
    members: &[(usize, usize)],
    topic: &str,
    resume: &FeedPositions,
) -> BTreeMap<String, u64> {
    let is_member = |input: &str, feed: &str| {
        let mut members = members.iter().map(|(i, f)| (&dataflow.inputs[*i], *f));
        members.any(|(i, f)| i.name == input && i.feeds[f].name == feed)
    };
    if !resume.keys().any(|id| is_member(&id.input, &id.feed)) {
        return BTreeMap::new();
    }
    // A feed that reads the topic as data has a position of its own, which does not count.
    let reads_it = |input: &str, feed: &str| {
        let feeds = dataflow
            .inputs
            .iter()
            .filter(|i| i.name == input)
            .flat_map(|i| &i.feeds);
        let mut feeds = feeds.filter(|f| f.name == feed);
        feeds.any(|f| {
            let kafka = f.kind.settings_of::<Kafka>();
            kafka.is_some_and(|kafka| Topics::of_feed(kafka).reads(topic))
        })
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
    use crate::definition::{ClientOptions, FeedKind, Format, KafkaClient, KafkaStart, OnMissing, TransactionSettings};
    use crate::repr::{PartitionId, Position};
    use crate::source::tests::{dataflow, input};

    fn feed(brokers: &str, topic: &str, markers: Option<&str>) -> FeedKind {
        FeedKind::Kafka(Kafka {
            client: KafkaClient {
                brokers: brokers.into(),
                options: ClientOptions::default(),
            },
            topics: vec![topic.into()],
            start: KafkaStart::Latest,
            on_missing: OnMissing::Stop,
            group: None,
            transactions: markers.map(|topic| TransactionSettings {
                topic: topic.into(),
                wait: std::time::Duration::from_secs(30),
            }),
        })
    }

    /// The position was stored under the feed whose file comes first. A feed added before it began without a
    /// position, so that all ENDs since the snapshot were skipped, and their transactions were cut.
    #[test]
    fn the_position_of_markers_is_found_whichever_feed_left_it() {
        let one_feed = |name, topic| {
            let kind = feed("one:1, two:2", topic, Some("shop.transaction"));
            input(name, vec![("live", kind, Format::Json)])
        };
        let other = feed("two:2,one:1", "shop.orders", Some("shop.transaction"));
        let audit = feed("one:1,two:2", "^shop\\.", None);
        let dataflow = dataflow(vec![
            one_feed("accounts", "shop.accounts"),
            input("audit", vec![("all", audit, Format::Json)]),
            input("orders", vec![("live", other, Format::Json)]),
        ]);
        let groups = TransactionGroups::from_dataflow(&dataflow).0;
        assert_eq!(groups.len(), 1, "brokers are the same in another order");
        let members = &groups[0].members;
        assert_eq!(members, &[(0, 0), (2, 0)]);
        let mut resume = FeedPositions::new();
        let mut put = |input: &str, feed: &str, partition: &str, next| {
            let id = PartitionId {
                input: input.into(),
                feed: feed.into(),
                partition: partition.into(),
            };
            resume.insert(id, Position::at(next));
            resume.clone()
        };
        let known = |resume: &FeedPositions| known_markers(&dataflow, members, "shop.transaction", resume);
        put("gone", "live", "shop.transaction-0", 90);
        let resume = put("audit", "all", "shop.transaction-0", 500);
        assert!(known(&resume).is_empty(), "the group is new");
        put("orders", "live", "shop.orders-0", 7);
        let resume = put("orders", "live", "shop.transaction-0", 80);
        assert_eq!(known(&resume), BTreeMap::from([("shop.transaction-0".into(), 90)]));
    }
}
