//! Starts the threads that read topics: those of a feed, and the one that reads a transaction topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::client;
use super::reader::{KafkaReader, KafkaReaderSetup};
use crate::decode::Decoder;
use crate::definition::{Kafka, KafkaStart, split_partition};
use crate::repr::FeedPositions;
use crate::source::error::SourceError;
use crate::source::feed_handle::FeedHandle;
use crate::source::options::Decode;
use crate::source::starter::Starter;

/// The most reader threads of one feed.
const READERS: usize = 4;

/// How many threads read a feed, with this number of workers.
pub(super) fn readers(workers: usize) -> usize {
    workers.min(READERS)
}

/// Starts the feed's threads. Fails at once for options that librdkafka refuses.
pub(super) fn start_topics(
    starter: &mut Starter,
    handle: FeedHandle,
    kafka: &Kafka,
    resume: &FeedPositions,
) -> Result<(), SourceError> {
    let markers = kafka
        .transactions
        .as_ref()
        .map(|transactions| transactions.topic.as_str());
    let known = known(&handle, resume, |topic| Some(topic) != markers);
    let readers = readers(handle.channels.len());
    let first = Arc::default();
    for index in 0..readers {
        let setup = KafkaReaderSetup {
            kafka: kafka.clone(),
            known: known.clone(),
            markers: false,
            first: Arc::clone(&first),
            index,
            readers,
            slot: index,
            options: starter.options.clone(),
        };
        let consumer = client::consumer(&handle, kafka)?;
        let decoders = starter.decoders.clone();
        starter.spawn(&handle, move |handle| {
            let decode = decoders(handle.input, handle.feed);
            KafkaReader::new(handle, setup, consumer, decode).read()
        })?;
    }
    Ok(())
}

/// Starts the reader of a transaction topic, at the offsets in `known`. Its progress is stored under the feed of
/// `handle`.
pub(super) fn start_markers(
    starter: &mut Starter,
    handle: FeedHandle,
    kafka: &Kafka,
    topic: &str,
    mut decoder: Decoder,
    known: BTreeMap<String, u64>,
) -> Result<(), SourceError> {
    let kafka = Kafka {
        topics: vec![topic.to_string()],
        // These offsets name partitions of the feed's own topics, not of the transaction topic.
        start: match &kafka.start {
            KafkaStart::Offsets(_) => KafkaStart::Earliest,
            other => other.clone(),
        },
        transactions: None,
        ..kafka.clone()
    };
    let consumer = client::consumer(&handle, &kafka)?;
    let setup = KafkaReaderSetup {
        known,
        markers: true,
        first: Arc::default(),
        kafka,
        index: 0,
        readers: 1,
        slot: READERS,
        options: starter.options.clone(),
    };
    starter.spawn(&handle, move |handle| {
        let decode: Decode = Box::new(move |raw| Ok(decoder.decode(raw)?));
        KafkaReader::new(handle, setup, consumer, decode).read()
    })
}

/// The next record to read of each partition, for the feed's topics that `topics` accepts.
fn known(handle: &FeedHandle, resume: &FeedPositions, topics: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
    let positions = handle
        .positions(resume)
        .filter(|(partition, _)| split_partition(partition).is_some_and(|(topic, _)| topics(topic)));
    positions
        .map(|(partition, position)| (partition.to_string(), position.next))
        .collect()
}
