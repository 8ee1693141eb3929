//! Restores an input without Bronze: reads its feeds again from their start, up to where they were read as of the
//! snapshot.
//!
//! That gives the same rows as long as the feeds still hold them. This is so for a log, a folder whose files were not
//! removed, a generator without a rate, and a topic from which retention has removed nothing. In other cases the run
//! stops and names what is missing.
//!
//! It is not known when each record first arrived, so all of them count as arrived at the snapshot, in the order of
//! feed, partition and offset. Where versions of a key tie, or a `dedup_key` finds equal rows in two partitions,
//! another row may win than the first time; the audit then corrects the tables, and reports it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::{InputSource, PastPiece, PastReplay, PastSources, WorkerTurns};
use crate::decode::Decoded;
use crate::definition::{Dataflow, Feed};
use crate::registry::Registries;
use crate::repr::{FeedPositions, PartitionId, Position};
use crate::run::lines::DELIVERIES;
use crate::run::{RunError, archive, lags};
use crate::source::{self, Delivery, ReaderOptions, WorkerChannel};

/// How long to wait for a delivery before checking whether the feeds are exhausted.
const ASK: Duration = Duration::from_millis(20);

/// How long the feeds must have been exhausted before records count as missing.
const GRACE: Duration = Duration::from_secs(3);

/// Sends the past of inputs without Bronze to the workers. Returns how many records there were.
pub(super) fn read(
    past: &PastReplay<'_>,
    sources: &PastSources,
    worker_turns: &mut WorkerTurns<'_>,
) -> Result<u64, RunError> {
    let dataflow = &past.wiring.dataflow;
    let read_before = |input: &str| past.progress.keys().any(|id| id.input == input);
    // For each input of `part`, its index in the whole dataflow.
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
    let part = Arc::new(part);
    let forgets = |id: &&PartitionId| feed_of(&part, id).is_some_and(|feed| feed.kind.contract().forgets());
    let forgotten = missing.keys().filter(forgets);
    let start: FeedPositions = forgotten.map(|id| (id.clone(), Position::default())).collect();

    let (sender, deliveries) = bounded(DELIVERIES);
    let outlet = WorkerChannel {
        together: sender.clone(),
        sender,
        wake: Arc::new(|| {}),
    };
    let registries = Arc::new(Registries::new(Some(past.lake.clone())));
    let decoders = archive::decoders(&part, &registries, past.lake, past.runtime, past.board, false);
    let options = ReaderOptions {
        // All of the past is fed at one epoch, so transactions need not be kept together.
        keeps_transactions: false,
        // A topic must still hold its first record. Otherwise retention has removed records, whose rows would be lost
        // from the tables.
        demands_all: true,
        ..ReaderOptions::default()
    };
    let readers = source::start(part.clone(), &start, decoders, vec![outlet], options)?;
    let mut records = 0;
    let mut exhausted_since = None;
    while !missing.is_empty() {
        // The order matters: once readers are exhausted, they send nothing more.
        let exhausted = readers.exhausted();
        if let Some(failure) = readers.failure() {
            return Err(failure.into());
        }
        let Ok(mut delivery) = deliveries.recv_timeout(ASK) else {
            // A topic's reader may report a little late that only transaction markers are left.
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
        worker_turns.send(PastPiece::Delivery(past.epoch, Box::new(delivery)));
    }
    let causes = lags::waiting(&readers.statuses());
    readers.stop()?;
    match missing.pop_first() {
        Some((id, position)) => Err(no_bronze(&id, &position, &causes)),
        None => Ok(records),
    }
}

/// The positions up to which partitions must be read again. Fails if one of them cannot be.
fn wanted(progress: &FeedPositions, part: &Dataflow) -> Result<BTreeMap<PartitionId, Position>, RunError> {
    let mut wanted = BTreeMap::new();
    for (id, position) in progress.iter().filter(|(_, position)| position.next > 0) {
        if !part.inputs.iter().any(|input| input.name == id.input) {
            continue;
        }
        let kind = feed_of(part, id).map(|feed| feed.kind.contract());
        if kind.is_some_and(|kind| !kind.holds_records(&id.partition)) {
            continue;
        }
        let repeats = kind.is_some_and(|kind| kind.repeats(position));
        if !repeats {
            return Err(no_bronze(id, position, &[]));
        }
        wanted.insert(id.clone(), position.clone());
    }
    Ok(wanted)
}

/// The feed of a partition, if the definition still has it.
fn feed_of<'d>(part: &'d Dataflow, id: &PartitionId) -> Option<&'d Feed> {
    let input = part.inputs.iter().find(|input| input.name == id.input)?;
    input.feeds.iter().find(|feed| feed.name == id.feed)
}

/// `causes` says why feeds could not be read.
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

/// Whether a file is still the one that was read. A partition without a tag is a log, whose reader checks that itself.
fn reads_alike(then: &Position, now: &Position) -> bool {
    then.tag.is_none() || then.tag == now.tag
}

/// Keeps only the records before offset `next`. Dead letters of a whole file are removed, because they are carried
/// over.
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
