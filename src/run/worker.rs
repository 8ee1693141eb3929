//! One timely worker: takes deliveries, puts them into the graph at the open epoch, steps the graph, and tells its
//! writer when everything up to an epoch has been handed over.
//!
//! 1. One worker takes all of a delivery at one epoch: rows, Bronze rows, dead letters and progress alike.
//! 2. The inputs advance only between deliveries. So once the worker's probe has passed an epoch, everything that was
//!    taken at it has reached the writers.
//! 3. `Seal` is sent only then, and once for each epoch to seal.
//! 4. What is taken into one epoch is bounded, except for deliveries that have to share an epoch with earlier ones.

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
use super::board::{Board, RoundsUnderWay};
use super::past::{LoadedParts, PastPiece};
use super::wiring::{GraphEnds, Wiring};
use crate::backfill::BackfillBatch;
use crate::decode::Payloads;
use crate::input::{self, ArrivedRecords, Inputs};
use crate::latency::{Latency, Stamp};
use crate::render::{self, RestartState};
use crate::repr::{Epoch, PartitionId, Round, Row, RowCodec, Update, footprint};
use crate::sink::{WriterMessage, bronze, dead_letters};
use crate::source::{Delivery, payload_bytes};

/// Rows that a worker takes between two steps of the graph; bounds how long one step takes.
const STEP_ROWS: usize = 32 * 1024;
/// Rows that a worker takes into one epoch before it asks for the next; bounds what the graph holds at once. With four
/// times as many, a backfill took a quarter more memory and was no faster.
const EPOCH_ROWS: usize = 64 * 1024;
/// Bytes of records that a worker takes between two steps, and into one epoch, for the same reasons. The last delivery
/// may exceed them.
const STEP_BYTES: u64 = 16 << 20;
const EPOCH_BYTES: u64 = 32 << 20;
/// Rows of restored state that a worker takes into one epoch; bounds what the graph holds at once.
pub const LOAD_ROWS: u64 = 256 * 1024;
/// Why [`GraphFeeder::loads`] is present when a piece of the past arrives.
const PAST: &str = "only a run over a lake with a past is handed one, up to its end";
/// The longest a worker sleeps without being woken.
const NAP: Duration = Duration::from_millis(200);

/// The channels of one worker.
pub struct WorkerParts {
    /// Which of this process's workers it is.
    pub index: usize,
    /// Live deliveries.
    pub deliveries: Receiver<Delivery>,
    /// Live deliveries that have to share an epoch with others.
    pub together: Receiver<Delivery>,
    /// Pieces of the past, over a lake that has one. Live deliveries are taken only after its last piece.
    pub past: Receiver<PastPiece>,
    /// Portions of requests; taken when no live delivery waits.
    pub portions: Receiver<BackfillBatch>,
    /// Epochs to seal, ascending; every worker seals every one of them.
    pub seals: Receiver<Epoch>,
    /// The channel to this worker's writer.
    pub writer: Sender<WriterMessage>,
}

/// Options of the workers.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// See [`super::Options::one_by_one`].
    pub one_by_one: bool,
    /// See [`super::Options::panic_on`].
    pub panic_on: Option<Vec<u8>>,
}

/// Runs a worker until the run stops.
pub fn work(
    worker: &mut Worker,
    (parts, options): (WorkerParts, &WorkerOptions),
    wiring: &Wiring,
    board: &Arc<Board>,
    latency: &Latency,
) -> Result<(), RunError> {
    let feeder = GraphFeeder::new(worker, (parts, options), wiring, board.clone());
    // Nobody sends before all workers have built their dataflows.
    board.workers.built.wait();
    let worked = feeder.and_then(|feeder| feeder.run(worker, latency));
    // After an error, too: timely steps a worker until its dataflows are complete, and a dataflow never completes here
    // once another worker has dropped its own.
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
    worked
}

/// Moves records and rows from the channels into the graph.
struct GraphFeeder<'a> {
    wiring: &'a Wiring,
    board: Arc<Board>,
    parts: WorkerParts,
    inputs: Inputs,
    /// Where state is loaded behind the inputs; `None` once the past is over.
    loads: Option<LoadedParts>,
    probe: ProbeHandle<Epoch>,
    letters: RowCodec,
    letters_in: Handle<Epoch, CapacityContainerBuilder<Vec<Update>>>,
    index: usize,
    epoch: Epoch,
    rows_in_epoch: usize,
    bytes_in_epoch: u64,
    /// At how many rows the open epoch takes nothing more from live feeds.
    epoch_rows: usize,
    /// Records of portions in the open epoch, and, in `share`, how many it may take.
    backfilled_in_epoch: usize,
    share: usize,
    past_done: bool,
    /// Probes of inputs and tables by name, to report which of them are behind.
    watched: Vec<(String, ProbeHandle<Epoch>)>,
    /// Probes of recursive queries by name, to report which of them is in its rounds.
    recursive: Vec<(Arc<str>, ProbeHandle<Round>)>,
    /// The next epoch to seal, which has not closed here yet.
    seal: Option<Epoch>,
    frontier: Epoch,
}

impl<'a> GraphFeeder<'a> {
    fn new(
        worker: &mut Worker,
        (parts, options): (WorkerParts, &WorkerOptions),
        wiring: &'a Wiring,
        board: Arc<Board>,
    ) -> Result<Self, RunError> {
        let epoch = board.epochs.open.load(Ordering::Acquire);
        let probe = ProbeHandle::new();
        let writer = parts.writer.clone();
        let index = parts.index;
        let (inputs, letters_in, loads, watched, recursive) =
            worker.dataflow::<Epoch, _, _>(|scope| -> Result<_, RunError> {
                let pause = board.epochs.plan.pause();
                let input::BuiltInputs {
                    inputs,
                    mut collections,
                    states,
                } = input::build(scope, &wiring.dataflow, Some(pause), |input| wiring.loads_input(input))?;
                if let Some(bytes) = &options.panic_on {
                    for rows in &mut collections {
                        let bytes = bytes.clone();
                        let holds =
                            move |row: &Row| row.bytes().windows(bytes.len().max(1)).any(|window| window == bytes);
                        let panic = move |(row, _, _): &Update| assert!(!holds(row), "a row holds what is panicked on");
                        rows.oks = rows.oks.clone().inspect(panic);
                    }
                }
                let watch = |name: &str, rows: &crate::repr::Rows<'_>| {
                    let probe = ProbeHandle::new();
                    rows.clone().probe_with(&probe);
                    (name.to_string(), probe)
                };
                let named = wiring.dataflow.inputs.iter().zip(&collections);
                let mut watched: Vec<_> = named.map(|(input, rows)| watch(&input.name, &rows.oks)).collect();
                let (loads, past) = LoadedParts::build(scope, wiring.sources.as_ref(), pause);
                let restart = RestartState {
                    sums: wiring.first.sums.clone(),
                    past,
                };
                let (dataflow, graph) = (&wiring.dataflow, &wiring.graph);
                let mut built = render::build(scope, dataflow, graph, collections, &wiring.counters, restart);
                let recursive = std::mem::take(&mut built.rounds).into_iter();
                let recursive = recursive.map(|(name, rounds)| (Arc::from(name), rounds)).collect();
                let named = wiring.graph.tables.iter().zip(&built.tables);
                watched.extend(named.map(|(table, rows)| watch(&table.name, &rows.oks)));
                let (letters, stream) = scope.new_input::<Vec<Update>>();
                let letters_out = stream.as_collection();
                let ends = GraphEnds {
                    writer: &writer,
                    board: &board,
                    probe: &probe,
                };
                wiring.connect(scope, built, states, letters_out, &ends)?;
                Ok((inputs, letters, loads, watched, recursive))
            })?;
        let letters = RowCodec::new(dead_letters::schema())?;
        let past_done = board.epochs.live.load(Ordering::Acquire);
        let mut feeder = GraphFeeder {
            wiring,
            board,
            parts,
            inputs,
            loads,
            probe,
            letters,
            letters_in,
            watched,
            recursive,
            index,
            epoch: 0,
            rows_in_epoch: 0,
            bytes_in_epoch: 0,
            epoch_rows: if options.one_by_one { 1 } else { EPOCH_ROWS },
            backfilled_in_epoch: 0,
            share: crate::backfill::PORTION,
            past_done,
            seal: None,
            frontier: 0,
        };
        feeder.advance(epoch);
        Ok(feeder)
    }

    /// Takes and steps until the run stops.
    fn run(mut self, worker: &mut Worker, latency: &Latency) -> Result<(), RunError> {
        let mut stamps: Vec<Stamp> = Vec::new();
        while !self.board.workers.stop.load(Ordering::Acquire) {
            self.advance(self.board.epochs.open.load(Ordering::Acquire));
            let took = self.take_waiting(&mut stamps)?;
            latency.observe_arrivals(&mut stamps);
            worker.step_or_park(Some(if took { Duration::ZERO } else { NAP }));
            self.report()?;
        }
        Ok(())
    }

    /// Advances the inputs to `epoch`, if it is later than their epoch.
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

    /// Takes what waits in the channels, within the bounds of one step. Returns whether it took anything.
    fn take_waiting(&mut self, stamps: &mut Vec<Stamp>) -> Result<bool, RunError> {
        let (mut rows, mut bytes) = (0, 0);
        while !self.past_done && rows < STEP_ROWS && self.may_take_past() {
            match self.parts.past.try_recv() {
                Ok(past) => rows += self.take_past(past)?,
                Err(_) => break, // the feeder of the past broke off, or has nothing ready yet
            }
        }
        let held = self.is_held();
        let live = self.past_done && self.board.epochs.live.load(Ordering::Acquire);
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
            bytes += self.count_bytes(&delivery);
            let records = delivery.decoded.raw.len() as u64;
            let (rejected, rejected_files) = self.ingest(&delivery, self.epoch)?;
            let counters = &self.board.counters.inputs[delivery.input];
            counters.records.fetch_add(records, Ordering::Relaxed);
            counters.rejected.fetch_add(rejected, Ordering::Relaxed);
            counters.rejected_files.fetch_add(rejected_files, Ordering::Relaxed);
            self.send_to_writer(&delivery)?;
            let feed = &self.wiring.dataflow.inputs[delivery.input].feeds.get(delivery.feed);
            let stamped = feed.is_some_and(|feed| feed.kind.contract().stamps_records());
            stamps.push(stamp(&delivery, self.epoch, stamped));
            if delivery.epoch.is_some() {
                self.board.epochs.together.end_one();
            }
        }
        // Only one portion is taken before live deliveries are looked at again.
        if rows == 0 && self.backfilled_in_epoch < self.share && self.has_room() {
            rows = self.take_portion()?;
        }
        if rows > 0 {
            self.board.epochs.taken.fetch_max(self.epoch, Ordering::AcqRel);
            let full = if live {
                self.epoch_rows
            } else {
                self.board.epochs.load_rows as usize
            };
            if self.rows_in_epoch >= full
                || self.bytes_in_epoch >= EPOCH_BYTES
                || self.backfilled_in_epoch >= self.share
            {
                self.board.epochs.full.store(true, Ordering::Release);
            }
            self.board.events.poke();
        }
        Ok(rows > 0)
    }

    /// Returns a live delivery that may go into the open epoch. Deliveries that share an epoch are always taken,
    /// because the epoch cannot close without them; others only while there is room (4). So a source's transaction
    /// that arrives slowly, and holds an epoch open, does not let that epoch grow with the rows of other feeds.
    fn next_delivery(&self, held: bool) -> Option<Delivery> {
        if let Ok(delivery) = self.parts.together.try_recv() {
            return Some(delivery);
        }
        let may_take = !held && self.has_room();
        may_take.then(|| self.parts.deliveries.try_recv().ok()).flatten()
    }

    /// Whether the run takes nothing more for now, because it is above its memory limit or too much waits for its
    /// commit.
    fn is_held(&self) -> bool {
        self.board.epochs.paused.load(Ordering::Acquire) || self.board.weight.is_full()
    }

    /// Whether there is room in the open epoch, by (4).
    fn has_room(&self) -> bool {
        // In one-by-one mode, nothing is taken before all earlier records are through the graph.
        let is_through = self.epoch_rows > 1 || self.frontier >= self.epoch;
        self.rows_in_epoch < self.epoch_rows && is_through && self.bytes_in_epoch < EPOCH_BYTES
    }

    /// Counts and returns the bytes of a delivery that goes into the open epoch.
    fn count_bytes(&mut self, delivery: &Delivery) -> u64 {
        let bytes = payload_bytes(&delivery.decoded.raw);
        self.bytes_in_epoch += bytes;
        self.board.weight.observe_taken(self.epoch, bytes);
        bytes
    }

    /// Whether more of the past may go into the open epoch.
    fn may_take_past(&self) -> bool {
        let last = self.epoch >= self.board.epochs.plan.past_until;
        last || (self.rows_in_epoch as u64) < self.board.epochs.load_rows || self.board.epochs.is_held()
    }

    /// Puts a piece of the past into the graph. Returns its number of rows.
    fn take_past(&mut self, past: PastPiece) -> Result<usize, RunError> {
        let rows = past.rows();
        self.rows_in_epoch += rows;
        if !matches!(past, PastPiece::Delivery(..) | PastPiece::Letters(_) | PastPiece::End) {
            self.board.counters.loaded.fetch_add(rows as u64, Ordering::Relaxed);
        }
        match past {
            PastPiece::Delivery(arrival, mut delivery) => {
                self.skip(&mut delivery);
                // All records of the past go in at one epoch, the held one, which may be newer than this worker's.
                self.advance(self.board.epochs.open.load(Ordering::Acquire));
                let replayed = &self.board.counters.inputs[delivery.input].replayed;
                replayed.fetch_add(delivery.decoded.raw.len() as u64, Ordering::Relaxed);
                self.ingest(&delivery, arrival)?;
            }
            PastPiece::States(input, states) => {
                self.inputs.load(input, self.epoch, states);
            }
            PastPiece::Letters(letters) => self.send_letters(letters),
            PastPiece::Rows(place, rows) => self.loads.as_mut().expect(PAST).send_rows(place, rows),
            PastPiece::Sums(aggregate, sums) => self.loads.as_mut().expect(PAST).send_sums(aggregate, sums),
            PastPiece::End => {
                self.past_done = true;
                self.loads = None;
                self.board.epochs.replayed[self.index].store(true, Ordering::Release);
                self.board.events.poke();
            }
        }
        Ok(rows)
    }

    /// Takes a portion of a request, if one waits. Returns how many records it counts for, at least 1 if one was
    /// taken.
    fn take_portion(&mut self) -> Result<usize, RunError> {
        let takes = self.past_done && self.board.epochs.live.load(Ordering::Acquire);
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
        self.count_bytes(&portion.delivery);
        let counters = &self.board.counters.inputs[delivery.input];
        counters.backfilled.fetch_add(records as u64, Ordering::Relaxed);
        let rejected = self.ingest(delivery, portion.arrived.unwrap_or(self.epoch))?;
        let mut retractions = portion
            .letters
            .into_iter()
            .map(|letter| (letter, self.epoch, -1))
            .collect();
        self.letters_in.send_batch(&mut retractions);
        if portion.arrived.is_none() {
            self.archive(delivery)?;
        }
        if let Some(partition) = portion.progress {
            self.send(WriterMessage::Progress {
                epoch: self.epoch,
                partition,
                position: delivery.position.clone(),
            })?;
        }
        portion.receipt.record(self.epoch, rejected);
        Ok(records.max(1))
    }

    /// Removes records that are to be skipped.
    fn skip(&self, delivery: &mut Delivery) {
        let input = &self.wiring.dataflow.inputs[delivery.input];
        let feed = (input.name.as_str(), input.feed_name(delivery.feed));
        let board = &self.board;
        let skipped = board.skips.apply(feed, &delivery.partition, &mut delivery.decoded);
        board.counters.skipped.fetch_add(skipped, Ordering::Relaxed);
    }

    /// Puts the changes and dead letters of a delivery into the graph. `arrival` orders the versions of a key. Returns
    /// how many of its records became dead letters, and how many of its files.
    fn ingest(&mut self, delivery: &Delivery, arrival: Epoch) -> Result<(u64, u64), RunError> {
        let input = &self.wiring.dataflow.inputs[delivery.input];
        let decoded = &delivery.decoded;
        let arrived = ArrivedRecords {
            epoch: arrival,
            feed: input.feed_rank(delivery.feed),
            partition: &delivery.partition,
            decoded,
        };
        self.board
            .workers
            .suspects
            .observe_taken(self.index, self.epoch, delivery);
        let refused = self.inputs.put(delivery.input, self.epoch, arrived)?.late;
        let board = self.board.clone();
        let (mut rejected, mut rejected_files) = (0, 0);
        board.counters.observe_ignored(delivery.input, &decoded.ignored_fields);
        for rejects in [&decoded.rejects, &refused]
            .into_iter()
            .filter(|rejects| !rejects.is_empty())
        {
            let files = rejects.iter().filter(|reject| reject.record.is_none()).count() as u64;
            rejected_files += files;
            rejected += rejects.len() as u64 - files;
            let from = dead_letters::DeadLetterOrigin {
                input: &input.name,
                feed: input.feed_name(delivery.feed),
                partition: &delivery.partition,
                epoch: arrival,
            };
            let letters = dead_letters::of_rejects(&self.letters, rejects, &decoded.raw, from)?;
            self.send_letters(letters);
        }
        self.board.workers.suspects.observe_in(self.index);
        Ok((rejected, rejected_files))
    }

    fn send_letters(&mut self, letters: Vec<Row>) {
        let mut updates = letters.into_iter().map(|letter| (letter, self.epoch, 1)).collect();
        self.letters_in.send_batch(&mut updates);
    }

    /// Sends the bytes of a live delivery to Bronze, and its progress to the writer.
    fn send_to_writer(&mut self, delivery: &Delivery) -> Result<(), RunError> {
        self.archive(delivery)?;
        let input = &self.wiring.dataflow.inputs[delivery.input];
        let partition = PartitionId {
            input: input.name.clone(),
            feed: input.feed_name(delivery.feed).to_string(),
            partition: delivery.partition.to_string(),
        };
        self.send(WriterMessage::Progress {
            epoch: self.epoch,
            partition,
            position: delivery.position.clone(),
        })
    }

    /// Sends the bytes of a delivery to Bronze.
    fn archive(&self, delivery: &Delivery) -> Result<(), RunError> {
        let input = &self.wiring.dataflow.inputs[delivery.input];
        if let Some(table) = self.wiring.bronze[delivery.input]
            && !delivery.decoded.raw.is_empty()
        {
            let micros = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |d| d.as_micros() as i64);
            let batch = bronze::rows(delivery, input.feed_name(delivery.feed), self.epoch, micros);
            self.send(WriterMessage::Columns {
                table,
                epoch: self.epoch,
                batch,
            })?;
        }
        Ok(())
    }

    /// Publishes this worker's frontier, and sends seals for epochs that have closed (3).
    fn report(&mut self) -> Result<(), RunError> {
        let frontier = self
            .probe
            .with_frontier(|f| f.iter().next().copied().unwrap_or(Epoch::MAX));
        if frontier != self.frontier {
            self.frontier = frontier;
            self.board.workers.suspects.observe_closed(self.index, frontier);
            self.board.epochs.frontiers[self.index].store(frontier, Ordering::Release);
            self.board.events.poke();
        }
        if self.index == 0 && !self.recursive.is_empty() {
            self.board.workers.observe_rounds(self.rounds());
        }
        if self.board.workers.answer_footprints(self.index, footprint::held) {
            self.board.events.poke();
        }
        if self.board.workers.asked[self.index].swap(false, Ordering::AcqRel) {
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
                    self.send(WriterMessage::Seal { epoch })?;
                    self.seal = None;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Of the recursive queries that are in their rounds, the one of the oldest epoch.
    fn rounds(&self) -> Option<RoundsUnderWay> {
        let under_way = self.recursive.iter().filter_map(|(query, rounds)| {
            // An epoch that the query has not begun with stands in the frontier with round 0.
            let oldest = rounds.with_frontier(|f| f.iter().filter(|time| time.inner > 0).min().copied())?;
            Some(RoundsUnderWay {
                query: query.clone(),
                epoch: oldest.outer,
                round: oldest.inner,
            })
        });
        under_way.min_by_key(|rounds| rounds.epoch)
    }

    fn send(&self, arrival: WriterMessage) -> Result<(), RunError> {
        self.parts.writer.send(arrival).map_err(|_| RunError::WriterGone)
    }
}

fn stamp(delivery: &Delivery, epoch: Epoch, stamped: bool) -> Stamp {
    // `stamped`: the feed gives records a time of their own, as topics do. Elsewhere it is the same as the source's time.
    let record_ms: &[Option<i64>] = match &delivery.decoded.raw.payloads {
        Payloads::Records { ts_ms, .. } if stamped => ts_ms,
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

/// Run-length encodes times: each time with the number of consecutive records that have it.
fn shared_times(times: &[Option<i64>]) -> Vec<(i64, u64)> {
    let mut board: Vec<(i64, u64)> = Vec::new();
    for ms in times.iter().flatten() {
        match board.last_mut() {
            Some((last, records)) if last == ms => *records += 1,
            _ => board.push((*ms, 1)),
        }
    }
    board
}
