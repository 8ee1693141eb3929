//! The `kafka` feed: topics read by offset, without a consumer group's rebalancing.
//!
//! ```text
//! librdkafka: fetches per partition -> its bounded queue -> reader thread: batch, decode -> worker
//! ```
//!
//! 1. A record's offset is Kafka's; `Position::next` is that of the next record to read. A partition is called as Kafka
//!    calls it on disk, `orders-0`. Only committed records are read (`read_committed`).
//! 2. Every partition is assigned by hand, to the reader thread of its worker: a worker that lags makes its own
//!    partitions wait and no others. While a thread waits, librdkafka stops fetching when a partition's queue is full
//!    ([`client::QUEUE_KIB`]): pausing it would drop what is fetched and fetch it again.
//! 3. Where a partition is read from is decided when it is found ([`place`]); what it has no more is never passed over in
//!    silence. A partition without records tells where it starts too: the next run goes on there, whatever `start` says.
//! 4. A position moves over what is no record (the marks of transactions) once everything before it was handed over;
//!    else a topic that retention empties would seem to lack them.
//! 5. Brokers that go away are waited for, as long as it takes. A partition without a leader waits by itself; until it is
//!    read, nothing is caught up. Brokers that were never reached, and a partition that lacks what is to be read, make the
//!    feed wait with its cause ([`trouble::TopicFault`]): the other partitions and feeds are read, and a run that ends once
//!    all is caught up does not wait for ever.
//! 6. A run until all is caught up reads what is there when a partition is found, however much is written meanwhile.
//!
//! When a record arrived: when its partition's queue was last empty and then was not. Latencies are never understated:
//! what librdkafka holds while a thread waits counts.

mod client;
mod group;
mod headers;
mod place;
mod reader;
mod topics;
mod trouble;
mod writer;

pub(crate) use client::{configure as configure_client, reason as describe_client_error};
pub use group::{OffsetPublisher, publish_offsets};
pub use headers::{RecordHeaders, headers_of_json};
pub(crate) use topics::Topics;
pub(crate) use writer::put;
pub use writer::{Queue as ProducerQueue, TopicError, TopicRecord, TopicWriter};

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outlet::Hand;
use super::readers::Starter;
use super::{Decode, Progress, SourceError};
use crate::decode::Decoder;
use crate::definition::{Kafka, Start, split_partition};

/// Threads of one feed, at most.
const READERS: usize = 4;

/// How many threads read a feed, with so many workers.
pub(crate) fn readers(workers: usize) -> usize {
    workers.min(READERS)
}

/// Starts the feed's threads. Fails at once for options that librdkafka does not take.
pub(crate) fn start(starter: &mut Starter, hand: Hand, kafka: &Kafka, resume: &Progress) -> Result<(), SourceError> {
    let markers = kafka
        .transactions
        .as_ref()
        .map(|transactions| transactions.topic.as_str());
    let known = known(&hand, resume, |topic| Some(topic) != markers);
    let readers = readers(hand.outlets.len());
    let first = Arc::default();
    for index in 0..readers {
        let setup = reader::Setup {
            kafka: kafka.clone(),
            known: known.clone(),
            markers: false,
            first: Arc::clone(&first),
            index,
            readers,
            slot: index,
            options: starter.options.clone(),
        };
        let consumer = client::consumer(&hand, kafka)?;
        let decoders = starter.decoders.clone();
        starter.spawn(&hand, move |hand| {
            let decode = decoders(hand.input, hand.feed);
            reader::Reader::new(hand, setup, consumer, decode).read()
        })?;
    }
    Ok(())
}

/// Starts the reader of the topic that tells of transactions, from where `known` says; `hand` is that of the feed under
/// whose name its progress is kept.
pub(crate) fn start_markers(
    starter: &mut Starter,
    hand: Hand,
    kafka: &Kafka,
    topic: &str,
    mut decoder: Decoder,
    known: BTreeMap<String, u64>,
) -> Result<(), SourceError> {
    let kafka = Kafka {
        topics: vec![topic.to_string()],
        // Offsets are those of the feed's own partitions.
        start: match &kafka.start {
            Start::Offsets(_) => Start::Earliest,
            other => other.clone(),
        },
        transactions: None,
        ..kafka.clone()
    };
    let consumer = client::consumer(&hand, &kafka)?;
    let setup = reader::Setup {
        known,
        markers: true,
        first: Arc::default(),
        kafka,
        index: 0,
        readers: 1,
        slot: READERS,
        options: starter.options.clone(),
    };
    starter.spawn(&hand, move |hand| {
        let decode: Decode = Box::new(move |raw| Ok(decoder.decode(raw)?));
        reader::Reader::new(hand, setup, consumer, decode).read()
    })
}

/// The next record to read, by partition, of those topics of a feed.
fn known(hand: &Hand, resume: &Progress, topics: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
    let positions = hand
        .positions(resume)
        .filter(|(partition, _)| split_partition(partition).is_some_and(|(topic, _)| topics(topic)));
    positions
        .map(|(partition, position)| (partition.to_string(), position.next))
        .collect()
}
