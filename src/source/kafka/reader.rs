//! A reader thread, which reads the partitions of some of the process's workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::Offset;

use super::client::{Consumer, Context, describe};
use super::error::{BrokerError, TopicFault};
use super::headers::to_json;
use super::start_offset::{PartitionOffsets, StartOffset, place};
use super::topics::{TopicPartition, Topics};
use crate::backoff::Backoff;
use crate::definition::{Format, Kafka, KafkaStart, OnMissing};
use crate::repr::Position;
use crate::source::batch::{BatchBuilder, SourceRecord};
use crate::source::error::ReaderExit;
use crate::source::fault::FeedFault;
use crate::source::feed_handle::FeedHandle;
use crate::source::options::ReaderOptions;
use crate::source::transactions::{EndObservation, OpenedPartition};
use crate::source::{Decode, PartitionLag, SourceError};

/// How long to wait for an answer of the brokers.
const PATIENCE: Duration = Duration::from_secs(5);
/// `END_PATIENCE` is how long to wait for a partition's end offset while other partitions are to be read. A partition
/// that did not answer is not asked again for `RETRY_PAUSE`.
const END_PATIENCE: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between two polls of librdkafka's events other than records.
const PAUSE: Duration = Duration::from_millis(500);
/// The same while a partition waits for others.
const SHORT_PAUSE: Duration = Duration::from_millis(5);
/// Between two turns, polling ends after this number of polls in a row that returned nothing.
const QUIET: usize = 3;

/// The arguments of [`KafkaReader::new`].
pub struct KafkaReaderSetup {
    pub kafka: Kafka,
    /// The next record to read of every partition that the newest snapshot knows.
    pub known: BTreeMap<String, u64>,
    /// The partitions that the feed's first discovery found. Later ones are new, and read from their first record
    /// whatever `start` says.
    pub first: Arc<OnceLock<BTreeSet<TopicPartition>>>,
    /// Whether it reads a transaction topic for a coordinator.
    pub markers: bool,
    /// The number of this reader within the feed.
    pub index: usize,
    pub readers: usize,
    /// The index under which its lags are reported in the gauges.
    pub slot: usize,
    pub options: ReaderOptions,
}

/// See the module's header.
pub struct KafkaReader {
    handle: FeedHandle,
    setup: KafkaReaderSetup,
    topics: Topics,
    consumer: Arc<Consumer>,
    decode: Decode,
    partitions: BTreeMap<TopicPartition, Partition>,
    /// Missing topics that were reported already.
    absent: Vec<String>,
    /// Partitions of this reader that are not read yet because they have no leader.
    leaderless: BTreeSet<TopicPartition>,
    /// Partitions of this reader that the newest discovery found to lack the records that are to be read next.
    unreadable: BTreeMap<TopicPartition, TopicFault>,
    /// Partitions of this reader that are not read any more in this run.
    damaged: BTreeMap<TopicPartition, TopicFault>,
    /// Why the newest discovery failed.
    discovery_fault: Option<TopicFault>,
    fault: FeedFault,
    /// Sends a message when a partition's queue becomes non-empty.
    wake: Sender<()>,
    woken: Receiver<()>,
    /// The origin of the times in [`Partition::filled`].
    base: Instant,
    /// Whether a partition waits because other partitions of its source's transactions are behind.
    waits_for_others: bool,
}

/// A partition being read.
struct Partition {
    name: Arc<str>,
    queue: PartitionQueue<Context>,
    reading: ReadState,
    /// When its queue last became non-empty, in microseconds from [`KafkaReader::base`]; 0 if not since the last
    /// look.
    filled: Arc<AtomicU64>,
    /// When its queue was last seen empty.
    empty: Instant,
    /// The newest known end offset, which is behind the last record.
    end: u64,
    /// The end offset at discovery; none once everything before it was handed over.
    first_end: Option<u64>,
    end_questions: EndQuestions,
}

/// The state of a coordinator's questions for a partition's end offset.
#[derive(Default)]
struct EndQuestions {
    /// The newest question for which brokers were asked.
    asked: Option<Instant>,
    /// The oldest question that is still open, and the end offset as of then, up to which the partition must be read.
    open: Option<(Instant, u64)>,
    /// The brokers are not asked again before this time.
    not_before: Option<Instant>,
}

/// The progress of reading a partition.
struct ReadState {
    batch: BatchBuilder,
    /// The offset of the next record to read.
    next: u64,
    /// Whether all existing records were handed over.
    at_end: bool,
    /// The timestamp of the newest record, in Unix milliseconds.
    newest_ms: Option<i64>,
    blank: BlankValues,
}

/// Values that are empty or white space, which are no rows.
#[derive(Default)]
struct BlankValues {
    /// Their number in the current batch.
    count: u64,
    /// The offset of the first of them.
    first: u64,
    /// Whether they were reported.
    reported: bool,
}

impl KafkaReader {
    pub fn new(handle: FeedHandle, setup: KafkaReaderSetup, mut consumer: Consumer, decode: Decode) -> Self {
        let (wake, woken) = bounded(1);
        let waker = wake.clone();
        // If the channel is full, a wake-up is pending already.
        consumer.set_nonempty_callback(move || {
            let _ = waker.try_send(());
        });
        KafkaReader {
            topics: Topics::of_feed(&setup.kafka),
            consumer: Arc::new(consumer),
            handle,
            decode,
            partitions: BTreeMap::new(),
            absent: Vec::new(),
            leaderless: BTreeSet::new(),
            unreadable: BTreeMap::new(),
            damaged: BTreeMap::new(),
            discovery_fault: None,
            fault: FeedFault::of_reader(setup.slot),
            wake,
            woken,
            base: Instant::now(),
            waits_for_others: false,
            setup,
        }
    }

    /// Reads until readers are to stop, or, if the run ends at the end of its data, until everything is read.
    pub fn read(mut self) -> Result<(), ReaderExit> {
        if !self.discover_first()? {
            return Ok(());
        }
        if let Some(coordinator) = &self.handle.coordinator {
            coordinator.partitions_found(&self.handle)?;
        }
        let mut looked = Instant::now();
        loop {
            self.poll_events(QUIET)?;
            let mut took = 0;
            self.waits_for_others = false;
            let names: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
            for name in &names {
                took += self.hand_over_batch(name)?;
            }
            self.observe_statistics()?;
            self.answer_end_questions()?;
            if looked.elapsed() >= self.setup.options.topics_poll {
                looked = Instant::now();
                self.discover_again()?;
            }
            self.observe_caught()?;
            // With a coordinator, the coordinator decides when all is caught up.
            let is_kept = self.handle.coordinator.is_some();
            self.observe_fault();
            let is_whole = self.leaderless.is_empty() && self.is_at_rest();
            let mut partitions = self.partitions.values();
            if self.setup.options.stop_at_end
                && !is_kept
                && is_whole
                && partitions.all(|partition| partition.first_end.is_none())
            {
                self.handle.gauges.set_reader_exhausted(self.setup.index, true);
                return Ok(());
            }
            if took > 0 {
                self.handle.check()?;
                continue;
            }
            if !is_kept {
                let exhausted = is_whole && self.partitions.values().all(|partition| partition.reading.at_end);
                self.handle.gauges.set_reader_exhausted(self.setup.index, exhausted);
            }
            // The coordinator does not notify a reader when there is room again, so the reader polls.
            let pause = if self.waits_for_others { SHORT_PAUSE } else { PAUSE };
            self.wait(self.setup.options.topics_poll.min(pause))?;
        }
    }

    /// Waits until there may be something to do.
    fn wait(&self, pause: Duration) -> Result<(), ReaderExit> {
        select! {
            recv(self.handle.stop) -> _ => Err(ReaderExit::Stopped),
            recv(self.woken) -> _ => Ok(()),
            default(pause) => Ok(()),
        }
    }

    fn report_unanswered(&self, error: &KafkaError) {
        let brokers = &self.setup.kafka.client.brokers;
        self.consumer
            .context()
            .report_trouble(format!("could not ask brokers {brokers}: {}", describe(error)));
    }

    /// Discovers partitions for the first time, by (5) of the module. Returns false if the run does not wait for that
    /// any longer.
    fn discover_first(&mut self) -> Result<bool, ReaderExit> {
        let mut backoff = Backoff::new(self.setup.options.back_off, Duration::from_secs(10));
        loop {
            let fault = match self.discover() {
                Ok(()) => {
                    self.handle.gauges.set_reader_exhausted(self.setup.index, false);
                    return Ok(true);
                }
                Err(BrokerError::Ends(ended)) => return Err(ended),
                Err(BrokerError::Waits(fault)) => fault,
                Err(BrokerError::Passes(error)) => {
                    // Statistics may have piled up before the message that is wanted.
                    self.poll_events(64)?;
                    TopicFault::Unreached {
                        brokers: self.setup.kafka.client.brokers.clone(),
                        // librdkafka's connection error says more than that no broker answered.
                        reason: self
                            .consumer
                            .context()
                            .unreachable_reason()
                            .unwrap_or_else(|| describe(&error)),
                    }
                }
            };
            self.discovery_fault = Some(fault);
            self.observe_fault();
            // With a coordinator, the coordinator decides when all is caught up.
            if self.handle.coordinator.is_none() {
                let rests = self.is_at_rest();
                self.handle.gauges.set_reader_exhausted(self.setup.index, rests);
                if rests && self.setup.options.stop_at_end {
                    return Ok(false);
                }
            }
            self.handle.sleep(backoff.pause())?;
        }
    }

    /// Records the fault that keeps this reader from reading all of its partitions.
    fn observe_fault(&mut self) {
        let partitions = self.damaged.values().chain(self.unreadable.values());
        match self.discovery_fault.iter().chain(partitions).next() {
            Some(fault @ TopicFault::Unreached { .. }) => {
                let cause = Some(fault.to_string());
                self.fault.observe(&self.handle, &self.setup.options, cause);
            }
            Some(fault) => self.fault.observe_lasting(&self.handle, fault.to_string()),
            None => self.fault.observe(&self.handle, &self.setup.options, None),
        }
    }

    /// Whether the reader has no fault, or one that counts as lasting.
    fn is_at_rest(&self) -> bool {
        !self.fault.is_there() || self.fault.lasts()
    }

    /// Whether a partition belongs to this reader.
    fn is_assigned_here(&self, name: &str) -> bool {
        self.handle.reads(name) && self.handle.worker(name) % self.setup.readers == self.setup.index
    }

    /// Discovers new partitions; if brokers do not answer, a later look tries again.
    fn discover_again(&mut self) -> Result<(), ReaderExit> {
        match self.discover() {
            Ok(()) => Ok(()),
            Err(BrokerError::Passes(error)) => {
                self.report_unanswered(&error);
                Ok(())
            }
            Err(BrokerError::Waits(fault)) => {
                self.discovery_fault = Some(fault);
                Ok(())
            }
            Err(BrokerError::Ends(ended)) => Err(ended),
        }
    }

    /// Discovers new partitions, and starts to read them.
    fn discover(&mut self) -> Result<(), BrokerError> {
        let discovery = self.topics.discover(&self.consumer, PATIENCE)?;
        self.consumer.context().observe_answer();
        self.setup.first.get_or_init(|| discovery.partitions.clone());
        for topic in &discovery.absent {
            if !self.absent.contains(topic) && self.setup.index == 0 {
                let text = format!("topic {topic:?} does not exist (yet); it is looked for again");
                self.consumer.context().report_trouble(text);
            }
        }
        self.absent = discovery.absent;
        if self.setup.markers && discovery.partitions.len() > 1 {
            let several = TopicFault::SeveralOfMarkers {
                topic: self.setup.kafka.topics.concat(),
                partitions: discovery.partitions.len(),
            };
            return Err(several.into());
        }
        self.discovery_fault = None;
        let new: Vec<TopicPartition> = discovery
            .partitions
            .into_iter()
            .filter(|partition| !self.partitions.contains_key(partition) && !self.damaged.contains_key(partition))
            .filter(|partition| self.is_assigned_here(&partition.name()))
            .collect();
        // Partitions are announced before the brokers are asked anything: announcing blocks on nothing, and
        // transactions must wait for all partitions.
        if let Some(coordinator) = &self.handle.coordinator {
            new.iter()
                .try_for_each(|partition| coordinator.announce(&self.handle, &partition.name().into()))?;
        }
        let (leaderless, new): (Vec<_>, Vec<_>) = new.into_iter().partition(|p| discovery.leaderless.contains(p));
        for partition in leaderless
            .iter()
            .filter(|partition| !self.leaderless.contains(partition))
        {
            let text = format!("partition {} has no leader; it is looked for again", partition.name());
            self.consumer.context().report_trouble(text);
        }
        self.leaderless = leaderless.into_iter().collect();
        let mut starts = Vec::with_capacity(new.len());
        let mut unreadable = BTreeMap::new();
        for partition in new {
            let (at, end) = match self.start_of(&partition) {
                Ok(start) => start,
                // This partition waits, while the others are read.
                Err(BrokerError::Waits(fault)) => {
                    unreadable.insert(partition, fault);
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            if let Some(coordinator) = &self.handle.coordinator {
                let name = partition.name();
                let opened = OpenedPartition {
                    from: at,
                    end,
                    known: self.setup.known.contains_key(&name),
                };
                coordinator.open(&self.handle, &name.into(), opened)?;
            }
            starts.push((partition, at, end));
        }
        self.unreadable = unreadable;
        if starts.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (partition, at, _) in &starts {
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*at as i64))?;
        }
        self.consumer.incremental_assign(&list)?;
        for (partition, at, end) in starts {
            let opened = self.open(&partition, at, end);
            self.partitions.insert(partition, opened);
        }
        Ok(())
    }

    fn open(&self, partition: &TopicPartition, next: u64, end: u64) -> Partition {
        let mut queue = self
            .consumer
            .split_partition_queue(&partition.topic, partition.number)
            .expect("the partition was assigned just now");
        let filled = Arc::new(AtomicU64::new(0));
        let (wake, base, mark) = (self.wake.clone(), self.base, filled.clone());
        queue.set_nonempty_callback(move || {
            let micros = base.elapsed().as_micros() as u64;
            let _ = mark.compare_exchange(0, micros.max(1), Ordering::AcqRel, Ordering::Acquire);
            let _ = wake.try_send(());
        });
        // Records may have arrived before the queue had its callback.
        let _ = self.wake.try_send(());
        Partition {
            name: partition.name().into(),
            queue,
            reading: ReadState {
                batch: BatchBuilder::new(self.handle.limits),
                next,
                at_end: false,
                newest_ms: None,
                blank: BlankValues::default(),
            },
            filled,
            empty: Instant::now(),
            end,
            first_end: Some(end),
            end_questions: EndQuestions::default(),
        }
    }

    /// The start offset of a partition, and its end offset as of now.
    fn start_of(&self, partition: &TopicPartition) -> Result<(u64, u64), BrokerError> {
        let name = partition.name();
        let next = self.setup.known.get(&name).copied();
        let (first, end) = self
            .consumer
            .fetch_watermarks(&partition.topic, partition.number, PATIENCE)?;
        let offsets = PartitionOffsets {
            next,
            first: first as u64,
            end: end as u64,
        };
        let at = match place(offsets, self.setup.kafka.on_missing) {
            StartOffset::At(next) => next,
            StartOffset::Start => {
                let is_first_found =
                    self.setup.known.is_empty() && self.setup.first.get().is_some_and(|f| f.contains(partition));
                let at = if is_first_found {
                    self.first_start(partition, offsets)?
                } else {
                    offsets.first
                };
                self.hand_over_position(&name.into(), at, None)?;
                at
            }
            StartOffset::Behind(at, missing) => {
                self.handle.gauges.missing.fetch_add(missing, Ordering::Relaxed);
                let (from, to) = (at - missing, at - 1);
                let reason = format!(
                    "records {from} to {to} of partition {name} are gone from the topic: retention removed them before \
                     they were read; bring them back from elsewhere with backfill"
                );
                self.hand_over_position(&name.into(), at, Some(reason))?;
                at
            }
            StartOffset::Missing(_) => {
                let missing = TopicFault::Missing {
                    partition: name,
                    next: next.unwrap_or_default(),
                    first: offsets.first,
                };
                return Err(missing.into());
            }
            StartOffset::Ends => {
                let ends = TopicFault::Ends {
                    partition: name,
                    next: next.unwrap_or_default(),
                    end: offsets.end,
                };
                return Err(ends.into());
            }
        };
        Ok((at, offsets.end))
    }

    /// The start offset of a partition in a feed that was never read.
    fn first_start(&self, partition: &TopicPartition, range: PartitionOffsets) -> Result<u64, BrokerError> {
        let at = match &self.setup.kafka.start {
            KafkaStart::Earliest => range.first,
            KafkaStart::Latest => range.end,
            KafkaStart::Offsets(offsets) => match offsets.get(&partition.name()).copied() {
                None => range.first,
                // Records that the user asked for by offset are missed like those after a snapshot's position.
                Some(at) if at < range.first && self.setup.kafka.on_missing == OnMissing::Stop => {
                    return Err(TopicFault::Missing {
                        partition: partition.name(),
                        next: at,
                        first: range.first,
                    }
                    .into());
                }
                Some(at) => at.clamp(range.first, range.end),
            },
            KafkaStart::Time(ms) => {
                let mut wanted = TopicPartitionList::new();
                wanted.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*ms))?;
                let offsets = self.consumer.offsets_for_times(wanted, PATIENCE)?;
                let offset = offsets
                    .elements()
                    .first()
                    .map(|element| (element.offset(), element.error()));
                match offset {
                    Some((Offset::Offset(at), Ok(()))) => at as u64,
                    Some((_, Err(error))) => return Err(error.into()),
                    _ => range.end,
                }
            }
        };
        Ok(at)
    }

    /// Hands over a partition's position, with a rejection for records that are lost.
    fn hand_over_position(&self, name: &Arc<str>, next: u64, lost: Option<String>) -> Result<(), ReaderExit> {
        self.handle.conclude(name, Position::at(next), lost, Instant::now())
    }

    /// Processes what arrives outside the partitions' queues: errors, statistics, and the first records of a
    /// partition, which were fetched between its assignment and the creation of its queue, and precede all records in
    /// the queue.
    ///
    /// It ends after this number of polls in a row that returned nothing. Events that only the context handles, such
    /// as statistics, also count as nothing.
    fn poll_events(&mut self, times: usize) -> Result<(), ReaderExit> {
        let consumer = self.consumer.clone();
        let mut quiet = 0;
        while quiet < times {
            let Some(event) = consumer.poll(Duration::ZERO) else {
                quiet += 1;
                continue;
            };
            quiet = 0;
            match event {
                Ok(message) => {
                    let name = TopicPartition {
                        topic: message.topic().into(),
                        number: message.partition(),
                    };
                    let partition = self
                        .partitions
                        .get_mut(&name)
                        .expect("only what was assigned is fetched");
                    partition.reading.push(&message);
                    if partition.reading.batch.is_full() {
                        self.hand_over_batch(&name)?;
                    }
                }
                // The event does not name the topic; the next statistics will show it.
                Err(KafkaError::PartitionEOF(_)) => {}
                Err(error) => self.observe_error(error)?,
            }
        }
        Ok(())
    }

    /// Marks the partitions that have handed over what existed at discovery. The end-of-partition event is not
    /// enough, because a partition that is being written to raises it only in pauses.
    fn observe_caught(&mut self) -> Result<(), ReaderExit> {
        for partition in self.partitions.values_mut() {
            let reading = &partition.reading;
            let is_caught = |end| reading.batch.is_empty() && (reading.at_end || reading.next >= end);
            if partition.first_end.is_some_and(is_caught) {
                partition.first_end = None;
                if let Some(coordinator) = &self.handle.coordinator {
                    coordinator.caught(&self.handle, &partition.name)?;
                }
            }
        }
        Ok(())
    }

    /// Answers a coordinator that asks for the partitions' end offsets. It asks the brokers, because the known ends
    /// may be old.
    fn answer_end_questions(&mut self) -> Result<(), ReaderExit> {
        let Some(coordinator) = self.handle.coordinator.clone() else {
            return Ok(());
        };
        let asked = coordinator.asked();
        for (of, partition) in &mut self.partitions {
            let end_questions = &mut partition.end_questions;
            let is_silent = end_questions.not_before.is_some_and(|until| Instant::now() < until);
            // A partition known to have unread records needs no answer yet, unless it is not read because it is
            // full.
            let is_behind =
                partition.reading.next < partition.end && !coordinator.is_full(&self.handle, &partition.name);
            if let Some(asked) = asked.filter(|asked| Some(*asked) > end_questions.asked && !is_silent && !is_behind) {
                match self.consumer.fetch_watermarks(&of.topic, of.number, END_PATIENCE) {
                    Ok((_, end)) => {
                        let end = end as u64;
                        end_questions.asked = Some(asked);
                        end_questions.open.get_or_insert((asked, end));
                        let read = false;
                        coordinator.observe_end(&self.handle, &partition.name, EndObservation { asked, end, read })?;
                    }
                    Err(error) => {
                        end_questions.not_before = Some(Instant::now() + RETRY_PAUSE);
                        let name = &partition.name;
                        let text = format!("could not ask where partition {name} ends: {}", describe(&error));
                        self.consumer.context().report_trouble(text);
                    }
                }
            }
            // Transaction markers behind the last record are passed when statistics show them.
            if let Some((asked, end)) = end_questions.open
                && partition.reading.next >= end
                && partition.reading.batch.is_empty()
            {
                end_questions.open = None;
                let read = true;
                coordinator.observe_end(&self.handle, &partition.name, EndObservation { asked, end, read })?;
            }
        }
        Ok(())
    }

    fn observe_error(&self, error: KafkaError) -> Result<(), ReaderExit> {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            return Err(SourceError::KafkaFatal {
                feed: self.handle.name(),
                reason: code.to_string(),
            }
            .into());
        }
        self.consumer.context().report_trouble(describe(&error));
        Ok(())
    }

    /// Hands over one batch of a partition; returns its number of records.
    fn hand_over_batch(&mut self, name: &TopicPartition) -> Result<usize, ReaderExit> {
        let mut partition = self.partitions.remove(name).expect("named from the map's own keys");
        if let Some(coordinator) = &self.handle.coordinator
            && coordinator.is_full(&self.handle, &partition.name)
        {
            self.waits_for_others = true;
            self.partitions.insert(name.clone(), partition);
            return Ok(0);
        }
        let was_at_end = partition.reading.at_end;
        let taken = partition.take(self.base);
        if taken.records > 0 {
            if self.handle.coordinator.is_none() {
                self.handle.gauges.set_reader_exhausted(self.setup.index, false);
            }
            let raw = partition.reading.batch.finish(None);
            let (of, position) = (partition.name.clone(), Position::at(partition.reading.next));
            if !self.handle.has_room(&of) {
                // While delivery waits, nobody processes statistics, so the lags are reported first.
                self.partitions.insert(name.clone(), partition);
                self.report_lags();
                partition = self.partitions.remove(name).expect("it was put there just now");
            }
            self.handle
                .deliver(&mut self.decode, &of, raw, position, taken.arrived)?;
            self.report_blank_values(&mut partition);
        }
        if let Some(coordinator) = &self.handle.coordinator
            && partition.reading.at_end
            && (!was_at_end || taken.records > 0)
        {
            coordinator.at_end(&self.handle, &partition.name)?;
        }
        match taken.error {
            None => {}
            Some(error) if is_out_of_range(&error) => {
                // Discovery decides anew where to start, by what the topic holds now.
                self.setup.known.insert(name.name(), partition.reading.next);
                self.give_back(name, partition);
                self.discover_again()?;
                return Ok(taken.records);
            }
            // librdkafka would continue behind the damaged batch, which would then be missing silently.
            Some(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::BadMessage) => {
                let damaged = TopicFault::Damaged {
                    partition: partition.name.to_string(),
                    next: partition.reading.next,
                };
                self.damaged.insert(name.clone(), damaged);
                self.give_back(name, partition);
                return Ok(taken.records);
            }
            Some(error) => self.observe_error(error)?,
        }
        self.partitions.insert(name.clone(), partition);
        Ok(taken.records)
    }

    /// Reports once per partition that it has blank values, if the format skips these.
    fn report_blank_values(&self, partition: &mut Partition) {
        let blank = &mut partition.reading.blank;
        let count = std::mem::take(&mut blank.count);
        let format = self.handle.feed().format;
        let is_passed_over = matches!(format, Format::Json | Format::Ndjson | Format::JsonSchema | Format::Csv);
        if count == 0 || !is_passed_over || std::mem::replace(&mut blank.reported, true) {
            return;
        }
        let text = format!(
            "partition {} has values that are empty or blank, {count} in a batch, the first at offset {}: they are no rows, \
             and are counted; a record that deletes its key's row has the value null",
            partition.name, blank.first
        );
        tracing::warn!(feed = self.handle.name(), "{text}");
        self.handle.gauges.set_error(text);
    }

    /// Stops reading a partition; discovery may find it again.
    fn give_back(&self, name: &TopicPartition, partition: Partition) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&name.topic, name.number);
        drop(partition);
        // If this fails, the partition is not read either, because its queue is gone.
        let _ = self.consumer.incremental_unassign(&list);
    }

    /// Processes librdkafka's statistics: lags, and by (4) of the module positions behind transaction markers.
    fn observe_statistics(&mut self) -> Result<(), ReaderExit> {
        let Some(statistics) = self.consumer.context().take_statistics() else {
            return Ok(());
        };
        let (mut moved, mut ended) = (Vec::new(), Vec::new());
        for (name, partition) in &mut self.partitions {
            if let Some(reported) = partition_statistics(&statistics, name) {
                partition.end = reported.end.unwrap_or(partition.end).max(partition.reading.next);
                if let Some(next) = reported.taken.filter(|taken| *taken > partition.reading.next) {
                    partition.reading.next = next;
                    moved.push((partition.name.clone(), next));
                }
                if reported.reached == Some(partition.reading.next)
                    && !partition.reading.at_end
                    && partition.reading.batch.is_empty()
                {
                    partition.reading.at_end = true;
                    ended.push(partition.name.clone());
                }
            }
        }
        for (name, next) in moved {
            self.hand_over_position(&name, next, None)?;
        }
        if let Some(coordinator) = &self.handle.coordinator {
            ended
                .iter()
                .try_for_each(|name| coordinator.at_end(&self.handle, name))?;
        }
        self.report_lags();
        Ok(())
    }

    /// Reports the partitions' lags, as far as they are known.
    fn report_lags(&self) {
        let now = (self.setup.options.clock)();
        let now = now
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as i64;
        let lags = self.partitions.values().map(|partition| PartitionLag {
            partition: partition.name.to_string(),
            next: partition.reading.next,
            records: partition.end.saturating_sub(partition.reading.next),
            age_ms: partition
                .reading
                .newest_ms
                .filter(|_| partition.end > partition.reading.next)
                .map(|newest| now.saturating_sub(newest).max(0) as u64),
        });
        self.handle.gauges.set_partitions(self.setup.slot, lags.collect());
    }
}

/// The outcome of taking records from a partition's queue.
struct TakenRecords {
    records: usize,
    arrived: Instant,
    error: Option<KafkaError>,
}

impl Partition {
    /// Takes waiting records into the batch, up to its limits.
    fn take(&mut self, base: Instant) -> TakenRecords {
        let mut taken = TakenRecords {
            records: self.reading.batch.len(),
            arrived: self.empty,
            error: None,
        };
        while !self.reading.batch.is_full() {
            match self.queue.poll(Duration::ZERO) {
                None => {
                    self.empty = Instant::now();
                    self.filled.store(0, Ordering::Release);
                    break;
                }
                Some(Ok(message)) => {
                    if taken.records == 0 {
                        match self.filled.load(Ordering::Acquire) {
                            0 => {}
                            micros => taken.arrived = base + Duration::from_micros(micros),
                        }
                    }
                    taken.records += 1;
                    self.reading.push(&message);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.reading.at_end = true,
                Some(Err(error)) => {
                    taken.error = Some(error);
                    break;
                }
            }
        }
        taken
    }
}

impl ReadState {
    fn push(&mut self, message: &BorrowedMessage<'_>) {
        let headers = to_json(message.headers());
        self.at_end = false;
        self.next = message.offset() as u64 + 1;
        self.newest_ms = message.timestamp().to_millis().or(self.newest_ms);
        if message.payload().is_some_and(|value| value.trim_ascii().is_empty()) {
            if self.blank.count == 0 {
                self.blank.first = message.offset() as u64;
            }
            self.blank.count += 1;
        }
        self.batch.push(SourceRecord {
            offset: message.offset() as u64,
            key: message.key(),
            value: message.payload(),
            headers: headers.as_deref(),
            ts_ms: message.timestamp().to_millis(),
            ..SourceRecord::default()
        });
    }
}

/// Whether the requested offset does not exist in the topic.
fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}

/// What statistics report about a partition.
#[derive(Clone, Copy, Debug, Default)]
struct PartitionStatistics {
    /// The offset behind the last committed record.
    end: Option<u64>,
    /// The offset up to which this thread had consumed the queue when the statistics were made: behind the last
    /// record, or, if the partition's end was reached, behind the markers that follow it.
    taken: Option<u64>,
    /// The offset at which the partition's end was last reached.
    reached: Option<u64>,
}

fn partition_statistics(statistics: &Statistics, name: &TopicPartition) -> Option<PartitionStatistics> {
    let partition = statistics.topics.get(&*name.topic)?.partitions.get(&name.number)?;
    let known = |offset: i64| u64::try_from(offset).ok();
    Some(PartitionStatistics {
        end: known(partition.ls_offset).or(known(partition.hi_offset)),
        taken: known(partition.app_offset),
        reached: known(partition.eof_offset),
    })
}
