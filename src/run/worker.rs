//! One timely worker: takes deliveries, stamps them with the open epoch, steps the graph, and tells its writer
//! when everything up to an epoch has been handed over.
//!
//! (1) A delivery is stamped whole, with one epoch, by one worker: rows, Bronze rows, dead letters and progress alike.
//! (2) The worker's inputs advance only between deliveries; so once its probe has passed an epoch, everything
//! stamped with it has reached the writers. (3) `Seal` is sent only then, and only once per epoch. (4) What an epoch is given
//! is bounded, but for what belongs into it with something that it has already.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use differential_dataflow::AsCollection;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::Input as _;
use timely::dataflow::operators::core::input::Handle;
use timely::worker::Worker;

use super::RunError;
use super::past::{Loads, Past};
use super::shared::Shared;
use super::wiring::{Ends, Wiring};
use crate::backfill::Portion;
use crate::decode::Payloads;
use crate::definition::FeedKind;
use crate::input::{self, Arrived, Inputs};
use crate::latency::{Latency, Stamp};
use crate::render::{self, Kept};
use crate::repr::{Epoch, Row, RowCodec, Update, footprint};
use crate::sink::{Arrival, bronze, dead_letters};
use crate::source::{Delivery, PartitionId, payload_bytes};

/// Rows a worker takes between two steps of the graph: what one step may cost.
const STEP_ROWS: usize = 32 * 1024;
/// Rows a worker takes into one epoch before it asks for the next: bounds what the graph holds at once. Four times as
/// many cost a backfill a quarter more memory and made it no quicker.
const EPOCH_ROWS: usize = 64 * 1024;
/// Bytes of records that a worker takes between two steps, and into one epoch, but for the last delivery among them: likewise.
const STEP_BYTES: u64 = 16 << 20;
const EPOCH_BYTES: u64 = 32 << 20;
/// Rows of what the graph held before that a worker takes into one epoch: bounds what the graph holds at once.
pub const LOAD_ROWS: u64 = 256 * 1024;
/// Why what is behind the inputs can be fed.
const PAST: &str = "only a run over a lake with a past is handed one, up to its end";
/// The longest a worker sleeps without being woken.
const NAP: Duration = Duration::from_millis(200);

/// What one worker is given.
pub struct Parts {
    /// Which of this process's workers it is.
    pub index: usize,
    /// Live deliveries.
    pub deliveries: Receiver<Delivery>,
    /// Those of them that belong into one epoch with others.
    pub together: Receiver<Delivery>,
    /// The past, where there is one; its end comes before live deliveries begin.
    pub past: Receiver<Past>,
    /// What requests bring: taken when no live delivery waits.
    pub portions: Receiver<Portion>,
    /// Epochs to seal, ascending; every worker seals every one of them.
    pub seals: Receiver<Epoch>,
    /// To this worker's writer.
    pub writer: Sender<Arrival>,
}

/// How workers work.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// See [`super::Options::one_by_one`].
    pub one_by_one: bool,
    /// See [`super::Options::panic_on`].
    pub panic_on: Option<Vec<u8>>,
}

/// Runs a worker until the run stops. `woken` gets the thread to unpark.
pub fn work(
    worker: &mut Worker,
    (parts, ways): (Parts, &Ways),
    wiring: &Wiring,
    shared: &Arc<Shared>,
    latency: &Latency,
) -> Result<(), RunError> {
    let taker = Taker::new(worker, (parts, ways), wiring, shared.clone());
    // Nobody sends before everybody has built its dataflow.
    shared.built.wait();
    let mut taker = taker?;
    let mut stamps: Vec<Stamp> = Vec::new();
    while !shared.stop.load(Ordering::Acquire) {
        taker.advance(shared.open.load(Ordering::Acquire));
        let took = taker.take(&mut stamps)?;
        latency.observe_arrivals(&mut stamps);
        worker.step_or_park(Some(if took { Duration::ZERO } else { NAP }));
        taker.report()?;
    }
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
    Ok(())
}

/// The worker's hands: everything between channels and graph.
struct Taker<'a> {
    wiring: &'a Wiring,
    shared: Arc<Shared>,
    parts: Parts,
    inputs: Inputs,
    /// Where the past is fed behind the inputs; gone once it is.
    loads: Option<Loads>,
    probe: ProbeHandle<Epoch>,
    letters: RowCodec,
    letters_in: Handle<Epoch, CapacityContainerBuilder<Vec<Update>>>,
    index: usize,
    epoch: Epoch,
    rows_in_epoch: usize,
    bytes_in_epoch: u64,
    /// How many of those that come live there may be.
    epoch_rows: usize,
    /// Of them, those of portions; and how many those may be.
    backfilled_in_epoch: usize,
    share: usize,
    past_done: bool,
    /// Inputs and tables by name, to say which is behind.
    watched: Vec<(String, ProbeHandle<Epoch>)>,
    /// The next epoch to seal, once it has closed here.
    seal: Option<Epoch>,
    frontier: Epoch,
}

impl<'a> Taker<'a> {
    fn new(
        worker: &mut Worker,
        (parts, ways): (Parts, &Ways),
        wiring: &'a Wiring,
        shared: Arc<Shared>,
    ) -> Result<Self, RunError> {
        let epoch = shared.open.load(Ordering::Acquire);
        let probe = ProbeHandle::new();
        let writer = parts.writer.clone();
        let index = parts.index;
        let (inputs, letters_in, loads, watched) = worker.dataflow::<Epoch, _, _>(|scope| -> Result<_, RunError> {
            let pause = shared.epochs.pause();
            let input::Built {
                inputs,
                mut collections,
                states,
            } = input::build(scope, &wiring.dataflow, Some(pause), |input| wiring.loads_input(input))?;
            if let Some(bytes) = &ways.panic_on {
                for rows in &mut collections {
                    let bytes = bytes.clone();
                    let holds = move |row: &Row| row.bytes().windows(bytes.len().max(1)).any(|window| window == bytes);
                    let panic = move |(row, _, _): &Update| assert!(!holds(row), "a row holds what is panicked on");
                    rows.oks = rows.oks.clone().inspect(panic);
                }
            }
            let watch = |name: &str, rows: &render::Rows<'_>| {
                let probe = ProbeHandle::new();
                rows.clone().probe_with(&probe);
                (name.to_string(), probe)
            };
            let named = wiring.dataflow.inputs.iter().zip(&collections);
            let mut watched: Vec<_> = named.map(|(input, rows)| watch(&input.name, &rows.oks)).collect();
            let (loads, past) = Loads::build(scope, wiring.sources.as_ref(), pause);
            let kept = Kept {
                sums: wiring.first.sums.clone(),
                past,
            };
            let (dataflow, graph) = (&wiring.dataflow, &wiring.graph);
            let built = render::build(scope, dataflow, graph, collections, &wiring.counters, kept);
            let named = wiring.graph.tables.iter().zip(&built.tables);
            watched.extend(named.map(|(table, rows)| watch(&table.name, &rows.oks)));
            let (letters, stream) = scope.new_input::<Vec<Update>>();
            let letters_out = stream.as_collection();
            let ends = Ends {
                writer: &writer,
                shared: &shared,
                probe: &probe,
            };
            wiring.connect(scope, built, states, letters_out, &ends)?;
            Ok((inputs, letters, loads, watched))
        })?;
        let letters = RowCodec::new(dead_letters::schema())?;
        let past_done = shared.live.load(Ordering::Acquire);
        let mut taker = Taker {
            wiring,
            shared,
            parts,
            inputs,
            loads,
            probe,
            letters,
            letters_in,
            watched,
            index,
            epoch: 0,
            rows_in_epoch: 0,
            bytes_in_epoch: 0,
            epoch_rows: if ways.one_by_one { 1 } else { EPOCH_ROWS },
            backfilled_in_epoch: 0,
            share: crate::backfill::PORTION,
            past_done,
            seal: None,
            frontier: 0,
        };
        taker.advance(epoch);
        Ok(taker)
    }

    /// Moves the inputs to `epoch`, if it is later than where they are.
    fn advance(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            self.inputs.advance_to(epoch);
            if let Some(loads) = &mut self.loads {
                loads.advance_to(epoch);
            }
            self.letters_in.advance_to(epoch);
            self.epoch = epoch;
            self.rows_in_epoch = 0;
            self.bytes_in_epoch = 0;
            self.backfilled_in_epoch = 0;
        }
    }

    /// Takes what waits, up to what a step may cost. Says whether anything was taken.
    fn take(&mut self, stamps: &mut Vec<Stamp>) -> Result<bool, RunError> {
        let (mut rows, mut bytes) = (0, 0);
        while !self.past_done && rows < STEP_ROWS && self.may_take_past() {
            match self.parts.past.try_recv() {
                Ok(past) => rows += self.take_past(past)?,
                Err(_) => break, // broken off, or not there yet
            }
        }
        let held = self.is_held();
        let live = self.past_done && self.shared.live.load(Ordering::Acquire);
        while live && rows < STEP_ROWS && bytes < STEP_BYTES {
            let Some(mut delivery) = self.next_delivery(held) else {
                break;
            };
            if let Some(epoch) = delivery.epoch {
                self.advance(epoch);
            }
            self.skip(&mut delivery);
            let taken = delivery.decoded.raw.len().max(1);
            rows += taken;
            self.rows_in_epoch += taken;
            bytes += self.weigh(&delivery);
            let records = delivery.decoded.raw.len() as u64;
            let (rejected, rejected_files) = self.ingest(&delivery, self.epoch)?;
            let counters = &self.shared.inputs[delivery.input];
            counters.records.fetch_add(records, Ordering::Relaxed);
            counters.rejected.fetch_add(rejected, Ordering::Relaxed);
            counters.rejected_files.fetch_add(rejected_files, Ordering::Relaxed);
            self.keep(&delivery)?;
            let feed = &self.wiring.dataflow.inputs[delivery.input].feeds.get(delivery.feed);
            let is_topic = feed.is_some_and(|feed| matches!(feed.kind, FeedKind::Kafka(_)));
            stamps.push(stamp(&delivery, self.epoch, is_topic));
            if delivery.epoch.is_some() {
                self.shared.together.end_one();
            }
        }
        // One portion between two looks at what is live.
        if rows == 0 && self.backfilled_in_epoch < self.share && self.has_room() {
            rows = self.take_portion()?;
        }
        if rows > 0 {
            self.shared.taken.fetch_max(self.epoch, Ordering::AcqRel);
            let full = if live {
                self.epoch_rows
            } else {
                self.shared.load_rows as usize
            };
            if self.rows_in_epoch >= full
                || self.bytes_in_epoch >= EPOCH_BYTES
                || self.backfilled_in_epoch >= self.share
            {
                self.shared.full.store(true, Ordering::Release);
            }
            self.shared.poke();
        }
        Ok(rows > 0)
    }

    /// A live delivery that may go into the open epoch. (4) What belongs together is taken always, for that epoch waits for
    /// it; anything else only while there is room. So beside a transaction that goes on as it comes, which may hold an epoch
    /// open for long, that epoch has no more than its rows of other feeds.
    fn next_delivery(&self, held: bool) -> Option<Delivery> {
        if let Ok(delivery) = self.parts.together.try_recv() {
            return Some(delivery);
        }
        let may_take = !held && self.has_room();
        may_take.then(|| self.parts.deliveries.try_recv().ok()).flatten()
    }

    /// Whether the run takes nothing more for now: it is above its memory, or much waits for its commit.
    fn is_held(&self) -> bool {
        self.shared.held.load(Ordering::Acquire) || self.shared.weight.is_full()
    }

    /// Whether there is room in the open epoch, by (4).
    fn has_room(&self) -> bool {
        // One by one: not before what came earlier is through the graph.
        let is_through = self.epoch_rows > 1 || self.frontier >= self.epoch;
        self.rows_in_epoch < self.epoch_rows && is_through && self.bytes_in_epoch < EPOCH_BYTES
    }

    /// Counts the bytes of what goes into the open epoch, and says them.
    fn weigh(&mut self, delivery: &Delivery) -> u64 {
        let bytes = payload_bytes(&delivery.decoded.raw);
        self.bytes_in_epoch += bytes;
        self.shared.weight.observe_taken(self.epoch, bytes);
        bytes
    }

    /// Whether more of the past may go into the open epoch.
    fn may_take_past(&self) -> bool {
        let last = self.epoch >= self.shared.epochs.past_until;
        last || (self.rows_in_epoch as u64) < self.shared.load_rows || self.shared.holds_epoch()
    }

    /// A piece of the past goes into the graph. Says how many rows it has.
    fn take_past(&mut self, past: Past) -> Result<usize, RunError> {
        let rows = past.rows();
        self.rows_in_epoch += rows;
        if !matches!(past, Past::Delivery(..) | Past::Letters(_) | Past::End) {
            self.shared.loaded.fetch_add(rows as u64, Ordering::Relaxed);
        }
        match past {
            Past::Delivery(arrival, mut delivery) => {
                self.skip(&mut delivery);
                // Records come at one epoch: the one that is held, which may be newer than where this worker is.
                self.advance(self.shared.open.load(Ordering::Acquire));
                let replayed = &self.shared.inputs[delivery.input].replayed;
                replayed.fetch_add(delivery.decoded.raw.len() as u64, Ordering::Relaxed);
                self.ingest(&delivery, arrival)?;
            }
            Past::States(input, states) => {
                self.inputs.load(input, self.epoch, states);
            }
            Past::Letters(letters) => self.send_letters(letters),
            Past::Rows(place, rows) => self.loads.as_mut().expect(PAST).send_rows(place, rows),
            Past::Sums(aggregate, sums) => self.loads.as_mut().expect(PAST).send_sums(aggregate, sums),
            Past::End => {
                self.past_done = true;
                self.loads = None;
                self.shared.replayed[self.index].store(true, Ordering::Release);
                self.shared.poke();
            }
        }
        Ok(rows)
    }

    /// Takes what a request brings, if something waits. Says how much that was.
    fn take_portion(&mut self) -> Result<usize, RunError> {
        let takes = self.past_done && self.shared.live.load(Ordering::Acquire);
        if !takes || self.is_held() {
            return Ok(0);
        }
        let Ok(mut portion) = self.parts.portions.try_recv() else {
            return Ok(0);
        };
        self.skip(&mut portion.delivery);
        let delivery = &portion.delivery;
        let records = delivery.decoded.raw.len();
        self.share = portion.share;
        self.backfilled_in_epoch += records;
        self.rows_in_epoch += records;
        self.weigh(&portion.delivery);
        let counters = &self.shared.inputs[delivery.input];
        counters.backfilled.fetch_add(records as u64, Ordering::Relaxed);
        let rejected = self.ingest(delivery, portion.arrived.unwrap_or(self.epoch))?;
        let mut gone = portion
            .letters
            .into_iter()
            .map(|letter| (letter, self.epoch, -1))
            .collect();
        self.letters_in.send_batch(&mut gone);
        if portion.arrived.is_none() {
            self.archive(delivery)?;
        }
        if let Some(partition) = portion.progress {
            self.send(Arrival::Progress {
                epoch: self.epoch,
                partition,
                position: delivery.position.clone(),
            })?;
        }
        portion.receipt.take(self.epoch, rejected);
        Ok(records.max(1))
    }

    /// Leaves out the records that are to be skipped.
    fn skip(&self, delivery: &mut Delivery) {
        let input = &self.wiring.dataflow.inputs[delivery.input];
        let feed = (input.name.as_str(), input.feed_name(delivery.feed));
        let shared = &self.shared;
        let skipped = shared.skips.apply(feed, &delivery.partition, &mut delivery.decoded);
        shared.skipped.fetch_add(skipped, Ordering::Relaxed);
    }

    /// A delivery's changes and dead letters go into the graph. `arrival` orders versions of a key. Says how many dead letters
    /// its records became, and how many its file did.
    fn ingest(&mut self, delivery: &Delivery, arrival: Epoch) -> Result<(u64, u64), RunError> {
        let input = &self.wiring.dataflow.inputs[delivery.input];
        let decoded = &delivery.decoded;
        let arrived = Arrived {
            epoch: arrival,
            feed: input.feed_rank(delivery.feed),
            partition: &delivery.partition,
            decoded,
        };
        self.shared.suspects.observe_taken(self.index, self.epoch, delivery);
        let refused = self.inputs.put(delivery.input, self.epoch, arrived)?.late;
        let shared = self.shared.clone();
        let (mut rejected, mut rejected_files) = (0, 0);
        shared.observe_ignored(delivery.input, &decoded.ignored_fields);
        for rejects in [&decoded.rejects, &refused]
            .into_iter()
            .filter(|rejects| !rejects.is_empty())
        {
            let files = rejects.iter().filter(|reject| reject.record.is_none()).count() as u64;
            rejected_files += files;
            rejected += rejects.len() as u64 - files;
            let from = dead_letters::Origin {
                input: &input.name,
                feed: input.feed_name(delivery.feed),
                partition: &delivery.partition,
                epoch: arrival,
            };
            let letters = dead_letters::of_rejects(&self.letters, rejects, &decoded.raw, from)?;
            self.send_letters(letters);
        }
        self.shared.suspects.observe_in(self.index);
        Ok((rejected, rejected_files))
    }

    fn send_letters(&mut self, letters: Vec<Row>) {
        let mut updates = letters.into_iter().map(|letter| (letter, self.epoch, 1)).collect();
        self.letters_in.send_batch(&mut updates);
    }

    /// A live delivery's bytes go to Bronze, and its progress to the snapshot.
    fn keep(&mut self, delivery: &Delivery) -> Result<(), RunError> {
        self.archive(delivery)?;
        let input = &self.wiring.dataflow.inputs[delivery.input];
        let partition = PartitionId {
            input: input.name.clone(),
            feed: input.feed_name(delivery.feed).to_string(),
            partition: delivery.partition.to_string(),
        };
        self.send(Arrival::Progress {
            epoch: self.epoch,
            partition,
            position: delivery.position.clone(),
        })
    }

    /// A delivery's bytes go to Bronze.
    fn archive(&self, delivery: &Delivery) -> Result<(), RunError> {
        let input = &self.wiring.dataflow.inputs[delivery.input];
        if let Some(table) = self.wiring.bronze[delivery.input]
            && !delivery.decoded.raw.is_empty()
        {
            let micros = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |d| d.as_micros() as i64);
            let batch = bronze::rows(delivery, input.feed_name(delivery.feed), self.epoch, micros);
            self.send(Arrival::Columns {
                table,
                epoch: self.epoch,
                batch,
            })?;
        }
        Ok(())
    }

    /// Publishes how far the graph has closed here, and seals what is asked for (3).
    fn report(&mut self) -> Result<(), RunError> {
        let frontier = self
            .probe
            .with_frontier(|f| f.iter().next().copied().unwrap_or(Epoch::MAX));
        if frontier != self.frontier {
            self.frontier = frontier;
            self.shared.suspects.observe_closed(self.index, frontier);
            self.shared.frontiers[self.index].store(frontier, Ordering::Release);
            self.shared.poke();
        }
        self.shared.answer_footprints(self.index, footprint::held);
        if self.shared.asked[self.index].swap(false, Ordering::AcqRel) {
            let frontier = |probe: &ProbeHandle<Epoch>| probe.with_frontier(|f| f.iter().next().copied());
            let behind = self.watched.iter().filter_map(|(name, probe)| {
                let frontier = frontier(probe).filter(|frontier| *frontier < self.epoch)?;
                Some(format!("{name} at {frontier}"))
            });
            let behind: Vec<String> = behind.collect();
            tracing::warn!(
                worker = self.index,
                epoch = self.epoch,
                behind = %behind.join(", "),
                "behind the open epoch"
            );
        }
        loop {
            self.seal = self.seal.or_else(|| self.parts.seals.try_recv().ok());
            match self.seal {
                Some(epoch) if epoch < frontier => {
                    self.send(Arrival::Seal { epoch })?;
                    self.seal = None;
                }
                _ => return Ok(()),
            }
        }
    }

    fn send(&self, arrival: Arrival) -> Result<(), RunError> {
        self.parts.writer.send(arrival).map_err(|_| RunError::WriterGone)
    }
}

fn stamp(delivery: &Delivery, epoch: Epoch, is_topic: bool) -> Stamp {
    // Of topics alone: elsewhere a record's own time is its source's.
    let record_ms: &[Option<i64>] = match &delivery.decoded.raw.payloads {
        Payloads::Records { ts_ms, .. } if is_topic => ts_ms,
        _ => &[],
    };
    Stamp {
        input: delivery.input,
        epoch,
        arrived: delivery.arrived,
        records: delivery.decoded.raw.len() as u64,
        source_ms: shared_times(&delivery.decoded.source_ms),
        record_ms: shared_times(record_ms),
    }
}

/// Times, and how many records in a row share each.
fn shared_times(times: &[Option<i64>]) -> Vec<(i64, u64)> {
    let mut shared: Vec<(i64, u64)> = Vec::new();
    for ms in times.iter().flatten() {
        match shared.last_mut() {
            Some((last, records)) if last == ms => *records += 1,
            _ => shared.push((*ms, 1)),
        }
    }
    shared
}
