//! The past of an input without Bronze: its feeds are read again from their start, up to where the snapshot says
//! they were read.
//!
//! That gives the same rows as long as the feeds still hold them: a log does, a drop folder whose files were not
//! cleared away does, a generator without a rate does, a topic does that retention has removed nothing from. Where they do
//! not the run stops and says what is missing.
//! When each record first arrived is not kept: all count as arrived at the snapshot, in the order of feed, partition
//! and offset. Where versions of a key tie, or a `dedup_key` meets rows of two partitions, that may choose otherwise
//! than the first time; the audit then corrects the tables, and reports it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::{Bringing, Hands, InputSource, Past, Sources};
use crate::decode::Decoded;
use crate::definition::{Dataflow, Feed, FeedKind, OnMissing, Start, split_partition};
use crate::registry::Registries;
use crate::run::start::DELIVERIES;
use crate::run::{RunError, archive, lags};
use crate::source::{self, Delivery, Outlet, PartitionId, Position, Progress, ReaderOptions};

/// How long a pause in deliveries may be before it is asked whether more will come.
const ASK: Duration = Duration::from_millis(20);

/// How long feeds must have had nothing more before what is missing is missed.
const GRACE: Duration = Duration::from_secs(3);

/// Hands the past of inputs without Bronze to the workers. Says how many records there were.
pub(super) fn read(past: &Bringing<'_>, sources: &Sources, hands: &mut Hands<'_>) -> Result<u64, RunError> {
    let dataflow = &past.wiring.dataflow;
    let read_before = |input: &str| past.progress.keys().any(|id| id.input == input);
    // By input of the part of the dataflow that is read: its place in the whole.
    let places: Vec<usize> = (0..dataflow.inputs.len())
        .filter(|i| sources.inputs[*i] == InputSource::Feeds && read_before(&dataflow.inputs[*i].name))
        .collect();
    if places.is_empty() {
        return Ok(0);
    }
    let mut part = (**dataflow).clone();
    part.inputs = places.iter().map(|i| dataflow.inputs[*i].clone()).collect();
    part.tables.clear();
    let mut missing = wanted(past.progress, &part)?;
    // A topic's first record is the first that it ever had, or else some are gone, and would be gone from the tables.
    for feed in part.inputs.iter_mut().flat_map(|input| &mut input.feeds) {
        if let FeedKind::Kafka(kafka) = &mut feed.kind {
            kafka.on_missing = OnMissing::Stop;
        }
    }
    let part = Arc::new(part);
    let is_topic = |id: &&PartitionId| feed_of(&part, id).is_some_and(|feed| matches!(feed.kind, FeedKind::Kafka(_)));
    let topics = missing.keys().filter(is_topic);
    let start: Progress = topics.map(|id| (id.clone(), Position::default())).collect();

    let (sender, deliveries) = bounded(DELIVERIES);
    let outlet = Outlet {
        together: sender.clone(),
        sender,
        wake: Arc::new(|| {}),
    };
    let registries = Arc::new(Registries::new(Some(past.lake.clone())));
    let decoders = archive::decoders(&part, &registries, past.lake, past.runtime, past.shared, false);
    // All of the past comes at one epoch.
    let options = ReaderOptions {
        keeps_transactions: false,
        ..ReaderOptions::default()
    };
    let readers = source::start(part.clone(), &start, decoders, vec![outlet], options)?;
    let mut records = 0;
    let mut exhausted_since = None;
    while !missing.is_empty() {
        // Asked in this order: readers that are exhausted have nothing left to send.
        let exhausted = readers.exhausted();
        if let Some(failure) = readers.failure() {
            return Err(failure.into());
        }
        let Ok(mut delivery) = deliveries.recv_timeout(ASK) else {
            // A topic's reader tells a little later that marks alone are left.
            let since = exhausted.then(|| *exhausted_since.get_or_insert_with(Instant::now));
            if since.is_some_and(|since| since.elapsed() > GRACE) {
                break;
            }
            continue;
        };
        exhausted_since = None;
        let id = partition(&part, &delivery);
        let Some(position) = past.progress.get(&id) else {
            continue; // newer than the snapshot
        };
        if delivery.position.next >= position.next && reads_alike(position, &delivery.position) {
            missing.remove(&id);
        }
        cut(&mut delivery.decoded, position.next);
        records += delivery.decoded.raw.len() as u64;
        delivery.input = places[delivery.input];
        hands.give(Past::Delivery(past.epoch, Box::new(delivery)));
    }
    let causes = lags::waiting(&readers.statuses());
    readers.stop()?;
    match missing.pop_first() {
        Some((id, position)) => Err(no_bronze(&id, &position, &causes)),
        None => Ok(records),
    }
}

/// What must be read again; fails for what cannot be.
fn wanted(progress: &Progress, part: &Dataflow) -> Result<BTreeMap<PartitionId, Position>, RunError> {
    let mut wanted = BTreeMap::new();
    for (id, position) in progress.iter().filter(|(_, position)| position.next > 0) {
        if !part.inputs.iter().any(|input| input.name == id.input) {
            continue;
        }
        let feed = feed_of(part, id);
        let transactions = feed.and_then(|feed| feed.transactions());
        let topic = split_partition(&id.partition).map(|(topic, _)| topic);
        if transactions.is_some_and(|(_, of)| topic == Some(&of.topic)) {
            continue; // holds no records of the input
        }
        let repeats = match feed.map(|feed| &feed.kind) {
            Some(FeedKind::Generate(settings)) => settings.rate.is_none(),
            // From anywhere else, what was read begins at an offset that only the topic knew then.
            Some(FeedKind::Kafka(kafka)) => kafka.start == Start::Earliest,
            // What a slot has given is gone from it.
            Some(FeedKind::Postgres(_)) => false,
            // What was before the file was read anew is not in it.
            Some(_) => position.base == 0,
            None => false,
        };
        if !repeats {
            return Err(no_bronze(id, position, &[]));
        }
        wanted.insert(id.clone(), position.clone());
    }
    Ok(wanted)
}

/// The feed that a partition is of, if it is there still.
fn feed_of<'d>(part: &'d Dataflow, id: &PartitionId) -> Option<&'d Feed> {
    let input = part.inputs.iter().find(|input| input.name == id.input)?;
    input.feeds.iter().find(|feed| feed.name == id.feed)
}

/// `causes`: why feeds could not be read.
fn no_bronze(id: &PartitionId, position: &Position, causes: &[String]) -> RunError {
    RunError::NoBronze {
        input: id.input.clone(),
        feed: id.feed.clone(),
        partition: id.partition.clone(),
        next: position.next,
        causes: match causes {
            [] => String::new(),
            causes => format!(" ({})", causes.join("; ")),
        },
    }
}

fn partition(dataflow: &Dataflow, delivery: &Delivery) -> PartitionId {
    let input = &dataflow.inputs[delivery.input];
    PartitionId {
        input: input.name.clone(),
        feed: input.feeds[delivery.feed].name.clone(),
        partition: delivery.partition.to_string(),
    }
}

/// Whether a file is the one that was read; what has no tag is a log, which tells by itself.
fn reads_alike(then: &Position, now: &Position) -> bool {
    then.tag.is_none() || then.tag == now.tag
}

/// Leaves only what lies before `next`. A file's letter, which belongs to no record, is kept by the dead letters.
fn cut(decoded: &mut Decoded, next: u64) {
    let records = decoded.raw.offsets.partition_point(|offset| *offset < next);
    let changes = decoded.record.partition_point(|record| (*record as usize) < records);
    decoded.rows = decoded.rows.slice(0, changes);
    decoded.ops.truncate(changes);
    decoded.unchanged.retain(|(row, _)| (*row as usize) < changes);
    decoded.record.truncate(changes);
    decoded.raw.offsets.truncate(records);
    decoded.raw.cut.retain(|cut| (cut.record as usize) < records);
    decoded.source_ms.truncate(records);
    decoded
        .rejects
        .retain(|reject| reject.record.is_some_and(|record| (record as usize) < records));
}
