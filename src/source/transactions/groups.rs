//! Which feeds share a keeper, and how it starts with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::kafka;
use super::super::outlet::Hand;
use super::super::readers::Starter;
use super::super::{Progress, SourceError};
use super::STASH;
use super::gate::{Gate, Reads};
use super::keeper::{Group, keep};
use super::line::{KeeperEnd, Line, line};
use super::marker::decoder;
use crate::definition::{Dataflow, Kafka};

/// The feeds of a dataflow by the source whose transactions they are in.
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
        let mut groups: BTreeMap<(String, String), Feeds> = BTreeMap::new();
        for (i, input) in dataflow.inputs.iter().enumerate() {
            for (f, feed) in input.feeds.iter().enumerate() {
                let Some((kafka, transactions)) = feed.transactions() else {
                    continue;
                };
                let source = (kafka.client.brokers.clone(), transactions.topic.clone());
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
        let Feeds { kafka, hands, end, .. } = self;
        let transactions = kafka.transactions.clone().expect("its feeds name a topic");
        let first = hands.first().expect("a group has a feed").clone();
        let of_feed = kafka::readers(first.outlets.len());
        let topics: Vec<kafka::Topics> = hands
            .iter()
            .filter_map(|hand| hand.feed().transactions())
            .map(|(kafka, _)| kafka::Topics::new(&kafka.topics))
            .collect();
        let prefix = transactions.topic.rsplit_once('.').map_or("", |(prefix, _)| prefix);
        let reads = Reads {
            prefix: prefix.to_string(),
            topic: Box::new(move |topic| topics.iter().any(|topics| topics.read(topic))),
        };
        let group = Group {
            gate: Gate::new(reads, transactions.wait, STASH),
            topic: transactions.topic.clone(),
            readers: hands.len() * of_feed + 1,
            gauges: hands.iter().map(|hand| (hand.gauges.clone(), of_feed)).collect(),
            together: starter.options.together.clone(),
            open: starter.options.open_epoch.clone(),
        };
        let decoder = decoder(first.feed(), &starter.options.registries).map_err(|error| SourceError::Markers {
            feed: first.name(),
            source: Arc::new(error),
        })?;
        kafka::start_markers(starter, first.clone(), &kafka, &transactions.topic, decoder, resume)?;
        // Without a way to itself: it ends when its readers do.
        let keeper = Hand { line: None, ..first };
        drop(hands);
        starter.spawn(&keeper, move |hand| keep(hand, group, end))
    }
}
