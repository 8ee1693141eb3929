//! A reader thread: the partitions of the workers that are its own.

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
use super::headers::to_json;
use super::place::{Found, Place, place};
use super::topics::{TopicPartition, Topics};
use super::trouble::{TopicFault, Trouble};
use crate::definition::{Format, Kafka, OnMissing, Start};
use crate::source::batch::{BatchBuilder, Record};
use crate::source::fault::FeedFault;
use crate::source::outlet::{Ended, Hand};
use crate::source::readers::ReaderOptions;
use crate::source::transactions::{Look, Opened};
use crate::source::{Decode, PartitionLag, Position, SourceError};

/// How long brokers are waited for when something is asked of them.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same when a partition's end is asked for, while others are to be read; and how long one that did not answer is not
/// asked again.
const GLANCE: Duration = Duration::from_secs(1);
const DEAF: Duration = Duration::from_secs(5);
/// The longest pause between two looks at what librdkafka says beside records.
const PAUSE: Duration = Duration::from_millis(500);
/// The same while a partition waits for others.
const SHORT: Duration = Duration::from_millis(5);
/// How often nothing must come before nothing more is asked for, between two turns.
const QUIET: usize = 3;

/// What a reader is made of.
pub struct Setup {
    pub kafka: Kafka,
    /// The next record to read, by partition, of all that a snapshot knows.
    pub known: BTreeMap<String, u64>,
    /// The partitions that the first of the feed's readers found. All others are new, and read from their first record,
    /// whatever `start` says.
    pub first: Arc<OnceLock<BTreeSet<TopicPartition>>>,
    /// Whether it reads a transaction topic, for its keeper.
    pub markers: bool,
    /// Which of the feed's readers it is.
    pub index: usize,
    pub readers: usize,
    /// Where its lags are told.
    pub slot: usize,
    pub options: ReaderOptions,
}

/// See the module's header.
pub struct Reader {
    hand: Hand,
    setup: Setup,
    topics: Topics,
    consumer: Arc<Consumer>,
    decode: Decode,
    partitions: BTreeMap<TopicPartition, Partition>,
    /// Absent topics that were named already.
    absent: Vec<String>,
    /// Partitions of ours that are not read yet, for nobody answers for them.
    leaderless: BTreeSet<TopicPartition>,
    /// Partitions of ours that are not read, for what is to be read of them is not there, as of the newest look.
    unreadable: BTreeMap<TopicPartition, TopicFault>,
    /// Partitions of ours that are not read on in this run.
    damaged: BTreeMap<TopicPartition, TopicFault>,
    /// Why the newest look found nothing out.
    unseen: Option<TopicFault>,
    fault: FeedFault,
    /// What a queue that is no longer empty says.
    wake: Sender<()>,
    woken: Receiver<()>,
    /// What times of [`Partition::filled`] count from.
    base: Instant,
    /// A partition is not read on, for others of its source's transactions are behind.
    waits_for_others: bool,
}

/// A partition that is read.
struct Partition {
    name: Arc<str>,
    queue: PartitionQueue<Context>,
    reading: Reading,
    /// When its queue was filled after being empty, in microseconds from [`Reader::base`]; 0: not since it was looked at.
    filled: Arc<AtomicU64>,
    /// When it was seen empty last.
    empty: Instant,
    /// The offset behind the last record there is, as far as is known.
    end: u64,
    /// The same when it was found; none: all that was there then is handed over.
    first_end: Option<u64>,
    looks: Looks,
}

/// What a keeper asked of a partition's end.
#[derive(Default)]
struct Looks {
    /// The newest question for which brokers were asked.
    asked: Option<Instant>,
    /// The oldest question that is not answered wholly, and the end that was seen then: all before it is to be read.
    until: Option<(Instant, u64)>,
    /// Not asked for again before this.
    deaf: Option<Instant>,
}

/// How far a partition is read.
struct Reading {
    batch: BatchBuilder,
    /// The offset of the next record to read.
    next: u64,
    /// All that exists was handed over.
    at_end: bool,
    /// The newest record's time, Unix milliseconds.
    newest_ms: Option<i64>,
    blank: BlankValues,
}

/// Values without any text, which are no rows.
#[derive(Default)]
struct BlankValues {
    /// How many the batch has.
    count: u64,
    /// The offset of the first of them.
    first: u64,
    /// That there are any was told.
    told: bool,
}

impl Reader {
    pub fn new(hand: Hand, setup: Setup, mut consumer: Consumer, decode: Decode) -> Self {
        let (wake, woken) = bounded(1);
        let waker = wake.clone();
        // A full channel says it already.
        consumer.set_nonempty_callback(move || {
            let _ = waker.try_send(());
        });
        Reader {
            topics: Topics::of(&setup.kafka),
            consumer: Arc::new(consumer),
            hand,
            decode,
            partitions: BTreeMap::new(),
            absent: Vec::new(),
            leaderless: BTreeSet::new(),
            unreadable: BTreeMap::new(),
            damaged: BTreeMap::new(),
            unseen: None,
            fault: FeedFault::of_reader(setup.slot),
            wake,
            woken,
            base: Instant::now(),
            waits_for_others: false,
            setup,
        }
    }

    /// Reads until readers are to stop, or everything is read and that is wanted.
    pub fn read(mut self) -> Result<(), Ended> {
        if !self.reach()? {
            return Ok(());
        }
        if let Some(line) = &self.hand.line {
            line.found(&self.hand)?;
        }
        let mut looked = Instant::now();
        loop {
            self.serve(QUIET)?;
            let mut took = 0;
            self.waits_for_others = false;
            let names: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
            for name in &names {
                took += self.turn(name)?;
            }
            self.observe_statistics()?;
            self.look_at_ends()?;
            if looked.elapsed() >= self.setup.options.topics_poll {
                looked = Instant::now();
                self.look()?;
            }
            self.observe_caught()?;
            // A keeper says when all is caught up.
            let is_kept = self.hand.line.is_some();
            self.observe_fault();
            let is_whole = self.leaderless.is_empty() && self.is_at_rest();
            let mut partitions = self.partitions.values();
            if self.setup.options.stop_at_end
                && !is_kept
                && is_whole
                && partitions.all(|partition| partition.first_end.is_none())
            {
                self.hand.gauges.set_reader_exhausted(self.setup.index, true);
                return Ok(());
            }
            if took > 0 {
                self.hand.check()?;
                continue;
            }
            if !is_kept {
                let exhausted = is_whole && self.partitions.values().all(|partition| partition.reading.at_end);
                self.hand.gauges.set_reader_exhausted(self.setup.index, exhausted);
            }
            // Who is full is not told when it is no more.
            let pause = if self.waits_for_others { SHORT } else { PAUSE };
            self.wait(self.setup.options.topics_poll.min(pause))?;
        }
    }

    /// Waits for something to do.
    fn wait(&self, pause: Duration) -> Result<(), Ended> {
        select! {
            recv(self.hand.stop) -> _ => Err(Ended::Stopped),
            recv(self.woken) -> _ => Ok(()),
            default(pause) => Ok(()),
        }
    }

    fn trouble(&self, error: &KafkaError) {
        let brokers = &self.setup.kafka.client.brokers;
        self.consumer
            .context()
            .trouble(format!("could not ask brokers {brokers}: {}", describe(error)));
    }

    /// Finds the partitions for the first time, by (5) of the module. Says whether they are to be read: a run that ends once
    /// all is caught up does not wait for ever.
    fn reach(&mut self) -> Result<bool, Ended> {
        let mut pause = self.setup.options.back_off;
        loop {
            let fault = match self.find() {
                Ok(()) => {
                    self.hand.gauges.set_reader_exhausted(self.setup.index, false);
                    return Ok(true);
                }
                Err(Trouble::Ends(ended)) => return Err(ended),
                Err(Trouble::Waits(fault)) => fault,
                Err(Trouble::Passes(error)) => {
                    // With statistics of all the while before what was said.
                    self.serve(64)?;
                    TopicFault::Unreached {
                        brokers: self.setup.kafka.client.brokers.clone(),
                        // What librdkafka said of its connections tells more than that nobody answered.
                        reason: self.consumer.context().why().unwrap_or_else(|| describe(&error)),
                    }
                }
            };
            self.unseen = Some(fault);
            self.observe_fault();
            // A keeper says when all is caught up.
            if self.hand.line.is_none() {
                let rests = self.is_at_rest();
                self.hand.gauges.set_reader_exhausted(self.setup.index, rests);
                if rests && self.setup.options.stop_at_end {
                    return Ok(false);
                }
            }
            self.hand.sleep(pause)?;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    /// Takes in what keeps the feed from reading all that is its own.
    fn observe_fault(&mut self) {
        let partitions = self.damaged.values().chain(self.unreadable.values());
        match self.unseen.iter().chain(partitions).next() {
            Some(fault @ TopicFault::Unreached { .. }) => {
                let cause = Some(fault.to_string());
                self.fault.observe(&self.hand, &self.setup.options, cause);
            }
            Some(fault) => self.fault.observe_lasting(&self.hand, fault.to_string()),
            None => self.fault.observe(&self.hand, &self.setup.options, None),
        }
    }

    /// Whether nothing keeps the feed from reading, or what does will last.
    fn is_at_rest(&self) -> bool {
        !self.fault.is_there() || self.fault.lasts()
    }

    /// Whether a partition is this reader's.
    fn is_ours(&self, name: &str) -> bool {
        self.hand.reads(name) && self.hand.worker(name) % self.setup.readers == self.setup.index
    }

    /// Finds what is new; brokers that do not answer are asked again later.
    fn look(&mut self) -> Result<(), Ended> {
        match self.find() {
            Ok(()) => Ok(()),
            Err(Trouble::Passes(error)) => {
                self.trouble(&error);
                Ok(())
            }
            Err(Trouble::Waits(fault)) => {
                self.unseen = Some(fault);
                Ok(())
            }
            Err(Trouble::Ends(ended)) => Err(ended),
        }
    }

    /// Looks for partitions that are new, and starts to read them.
    fn find(&mut self) -> Result<(), Trouble> {
        let found = self.topics.find(&self.consumer, PATIENCE)?;
        self.consumer.context().well();
        self.setup.first.get_or_init(|| found.partitions.clone());
        for topic in &found.absent {
            if !self.absent.contains(topic) && self.setup.index == 0 {
                let text = format!("topic {topic:?} does not exist (yet); it is looked for again");
                self.consumer.context().trouble(text);
            }
        }
        self.absent = found.absent;
        if self.setup.markers && found.partitions.len() > 1 {
            let several = TopicFault::SeveralOfMarkers {
                topic: self.setup.kafka.topics.concat(),
                partitions: found.partitions.len(),
            };
            return Err(several.into());
        }
        self.unseen = None;
        let new: Vec<TopicPartition> = found
            .partitions
            .into_iter()
            .filter(|partition| !self.partitions.contains_key(partition) && !self.damaged.contains_key(partition))
            .filter(|partition| self.is_ours(&partition.name()))
            .collect();
        // Told of before anything is asked: it waits for nobody, and what is kept waits for all of them.
        if let Some(line) = &self.hand.line {
            new.iter()
                .try_for_each(|partition| line.announce(&self.hand, &partition.name().into()))?;
        }
        let (leaderless, new): (Vec<_>, Vec<_>) = new.into_iter().partition(|p| found.leaderless.contains(p));
        for partition in leaderless
            .iter()
            .filter(|partition| !self.leaderless.contains(partition))
        {
            let text = format!("partition {} has no leader; it is looked for again", partition.name());
            self.consumer.context().trouble(text);
        }
        self.leaderless = leaderless.into_iter().collect();
        let mut starts = Vec::with_capacity(new.len());
        let mut unreadable = BTreeMap::new();
        for partition in new {
            let (at, end) = match self.start_of(&partition) {
                Ok(start) => start,
                // The others are read.
                Err(Trouble::Waits(fault)) => {
                    unreadable.insert(partition, fault);
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            if let Some(line) = &self.hand.line {
                let name = partition.name();
                let opened = Opened {
                    from: at,
                    end,
                    known: self.setup.known.contains_key(&name),
                };
                line.open(&self.hand, &name.into(), opened)?;
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
        // What came before the queue had its callback.
        let _ = self.wake.try_send(());
        Partition {
            name: partition.name().into(),
            queue,
            reading: Reading {
                batch: BatchBuilder::new(self.hand.limits),
                next,
                at_end: false,
                newest_ms: None,
                blank: BlankValues::default(),
            },
            filled,
            empty: Instant::now(),
            end,
            first_end: Some(end),
            looks: Looks::default(),
        }
    }

    /// Where a partition is read from, and where it ends as of now.
    fn start_of(&self, partition: &TopicPartition) -> Result<(u64, u64), Trouble> {
        let name = partition.name();
        let next = self.setup.known.get(&name).copied();
        let (first, end) = self
            .consumer
            .fetch_watermarks(&partition.topic, partition.number, PATIENCE)?;
        let found = Found {
            next,
            first: first as u64,
            end: end as u64,
        };
        let at = match place(found, self.setup.kafka.on_missing) {
            Place::At(next) => next,
            Place::Start => {
                let young =
                    self.setup.known.is_empty() && self.setup.first.get().is_some_and(|f| f.contains(partition));
                let at = if young {
                    self.first_start(partition, found)?
                } else {
                    found.first
                };
                self.tell(&name.into(), at, None)?;
                at
            }
            Place::Behind(at, missing) => {
                self.hand.gauges.missing.fetch_add(missing, Ordering::Relaxed);
                let (from, to) = (at - missing, at - 1);
                let reason = format!(
                    "records {from} to {to} of partition {name} are gone from the topic: retention removed them before \
                     they were read; bring them back from elsewhere with backfill"
                );
                self.tell(&name.into(), at, Some(reason))?;
                at
            }
            Place::Missing(_) => {
                let missing = TopicFault::Missing {
                    partition: name,
                    next: next.unwrap_or_default(),
                    first: found.first,
                };
                return Err(missing.into());
            }
            Place::Ends => {
                let ends = TopicFault::Ends {
                    partition: name,
                    next: next.unwrap_or_default(),
                    end: found.end,
                };
                return Err(ends.into());
            }
        };
        Ok((at, found.end))
    }

    /// Where a partition of a feed that was never read starts.
    fn first_start(&self, partition: &TopicPartition, found: Found) -> Result<u64, Trouble> {
        let at = match &self.setup.kafka.start {
            Start::Earliest => found.first,
            Start::Latest => found.end,
            Start::Offsets(offsets) => match offsets.get(&partition.name()).copied() {
                None => found.first,
                // What is asked for by number is missed like what a snapshot asks for.
                Some(at) if at < found.first && self.setup.kafka.on_missing == OnMissing::Stop => {
                    return Err(TopicFault::Missing {
                        partition: partition.name(),
                        next: at,
                        first: found.first,
                    }
                    .into());
                }
                Some(at) => at.clamp(found.first, found.end),
            },
            Start::Time(ms) => {
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
                    _ => found.end,
                }
            }
        };
        Ok(at)
    }

    /// Tells where a partition starts, and what it has no more.
    fn tell(&self, name: &Arc<str>, next: u64, lost: Option<String>) -> Result<(), Ended> {
        self.hand.conclude(name, Position::at(next), lost, Instant::now())
    }

    /// What comes outside the partitions' queues: errors, statistics, and the first records of a partition, fetched between
    /// its assignment and the making of its queue. Those are before all that its queue holds.
    /// Ends when nothing came for so many times: an event for the context alone, of statistics say, is nothing here.
    fn serve(&mut self, times: usize) -> Result<(), Ended> {
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
                        self.turn(&name)?;
                    }
                }
                // Of which topic it does not say; statistics will.
                Err(KafkaError::PartitionEOF(_)) => {}
                Err(error) => self.observe_error(error)?,
            }
        }
        Ok(())
    }

    /// Notes which partitions have handed over what was there when they were found. That a partition's end is reached is
    /// not enough: of one that is written to it is told only where nothing comes for a moment.
    fn observe_caught(&mut self) -> Result<(), Ended> {
        for partition in self.partitions.values_mut() {
            let reading = &partition.reading;
            let is_caught = |end| reading.batch.is_empty() && (reading.at_end || reading.next >= end);
            if partition.first_end.is_some_and(is_caught) {
                partition.first_end = None;
                if let Some(line) = &self.hand.line {
                    line.caught(&self.hand, &partition.name)?;
                }
            }
        }
        Ok(())
    }

    /// Answers a keeper that asks where partitions end. Brokers are asked, for what was fetched last may be old.
    fn look_at_ends(&mut self) -> Result<(), Ended> {
        let Some(line) = self.hand.line.clone() else {
            return Ok(());
        };
        let asked = line.asked();
        for (of, partition) in &mut self.partitions {
            let looks = &mut partition.looks;
            let is_deaf = looks.deaf.is_some_and(|until| Instant::now() < until);
            // Where there is more to read, as far as is known, there is nothing to say; unless that is not read.
            let is_behind = partition.reading.next < partition.end && !line.is_full(&self.hand, &partition.name);
            if let Some(asked) = asked.filter(|asked| Some(*asked) > looks.asked && !is_deaf && !is_behind) {
                match self.consumer.fetch_watermarks(&of.topic, of.number, GLANCE) {
                    Ok((_, end)) => {
                        let end = end as u64;
                        looks.asked = Some(asked);
                        looks.until.get_or_insert((asked, end));
                        let read = false;
                        line.look(&self.hand, &partition.name, Look { asked, end, read })?;
                    }
                    Err(error) => {
                        looks.deaf = Some(Instant::now() + DEAF);
                        let name = &partition.name;
                        let text = format!("could not ask where partition {name} ends: {}", describe(&error));
                        self.consumer.context().trouble(text);
                    }
                }
            }
            // What follows the last record, and is none, was passed by what statistics say.
            if let Some((asked, end)) = looks.until
                && partition.reading.next >= end
                && partition.reading.batch.is_empty()
            {
                looks.until = None;
                let read = true;
                line.look(&self.hand, &partition.name, Look { asked, end, read })?;
            }
        }
        Ok(())
    }

    fn observe_error(&self, error: KafkaError) -> Result<(), Ended> {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            return Err(SourceError::KafkaFatal {
                feed: self.hand.name(),
                reason: code.to_string(),
            }
            .into());
        }
        self.consumer.context().trouble(describe(&error));
        Ok(())
    }

    /// Hands over one batch of a partition; answers how many records that were.
    fn turn(&mut self, name: &TopicPartition) -> Result<usize, Ended> {
        let mut partition = self.partitions.remove(name).expect("named from the map's own keys");
        if let Some(line) = &self.hand.line
            && line.is_full(&self.hand, &partition.name)
        {
            self.waits_for_others = true;
            self.partitions.insert(name.clone(), partition);
            return Ok(0);
        }
        let was_at_end = partition.reading.at_end;
        let taken = partition.take(self.base);
        if taken.records > 0 {
            if self.hand.line.is_none() {
                self.hand.gauges.set_reader_exhausted(self.setup.index, false);
            }
            let raw = partition.reading.batch.take(None);
            let (of, position) = (partition.name.clone(), Position::at(partition.reading.next));
            if !self.hand.has_room(&of) {
                // Nobody looks at statistics while this waits.
                self.partitions.insert(name.clone(), partition);
                self.tell_lags();
                partition = self.partitions.remove(name).expect("it was put there just now");
            }
            self.hand.deliver(&mut self.decode, &of, raw, position, taken.arrived)?;
            self.tell_blank(&mut partition);
        }
        if let Some(line) = &self.hand.line
            && partition.reading.at_end
            && (!was_at_end || taken.records > 0)
        {
            line.at_end(&self.hand, &partition.name)?;
        }
        match taken.error {
            None => {}
            Some(error) if is_out_of_range(&error) => {
                // Judged anew, by what the topic has now.
                self.setup.known.insert(name.name(), partition.reading.next);
                self.give_back(name, partition);
                self.look()?;
                return Ok(taken.records);
            }
            // The client goes on behind it: what it holds would be missing in silence.
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

    /// Says of a partition once that it has values without any text, where those are passed over.
    fn tell_blank(&self, partition: &mut Partition) {
        let blank = &mut partition.reading.blank;
        let count = std::mem::take(&mut blank.count);
        let format = self.hand.feed().format;
        let is_passed_over = matches!(format, Format::Json | Format::Ndjson | Format::JsonSchema | Format::Csv);
        if count == 0 || !is_passed_over || std::mem::replace(&mut blank.told, true) {
            return;
        }
        let text = format!(
            "partition {} has values that are empty or blank, {count} in a batch, the first at offset {}: they are no rows, \
             and are counted; a record that deletes its key's row has the value null",
            partition.name, blank.first
        );
        tracing::warn!(feed = self.hand.name(), "{text}");
        self.hand.gauges.set_error(text);
    }

    /// Reads a partition no more, which may be found again.
    fn give_back(&self, name: &TopicPartition, partition: Partition) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&name.topic, name.number);
        drop(partition);
        // One that cannot be given back is not read either.
        let _ = self.consumer.incremental_unassign(&list);
    }

    /// What librdkafka says of its partitions: lags, and by (4) of the module positions behind what is no record.
    fn observe_statistics(&mut self) -> Result<(), Ended> {
        let Some(statistics) = self.consumer.context().take_statistics() else {
            return Ok(());
        };
        let (mut moved, mut ended) = (Vec::new(), Vec::new());
        for (name, partition) in &mut self.partitions {
            if let Some(told) = of_partition(&statistics, name) {
                partition.end = told.end.unwrap_or(partition.end).max(partition.reading.next);
                if let Some(next) = told.taken.filter(|taken| *taken > partition.reading.next) {
                    partition.reading.next = next;
                    moved.push((partition.name.clone(), next));
                }
                if told.reached == Some(partition.reading.next)
                    && !partition.reading.at_end
                    && partition.reading.batch.is_empty()
                {
                    partition.reading.at_end = true;
                    ended.push(partition.name.clone());
                }
            }
        }
        for (name, next) in moved {
            self.tell(&name, next, None)?;
        }
        if let Some(line) = &self.hand.line {
            ended.iter().try_for_each(|name| line.at_end(&self.hand, name))?;
        }
        self.tell_lags();
        Ok(())
    }

    /// Tells how far partitions lag, by what is known.
    fn tell_lags(&self) {
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
        self.hand.gauges.set_partitions(self.setup.slot, lags.collect());
    }
}

/// What was taken of a partition's queue.
struct Taken {
    records: usize,
    arrived: Instant,
    error: Option<KafkaError>,
}

impl Partition {
    /// Takes what waits into the batch, up to its limits.
    fn take(&mut self, base: Instant) -> Taken {
        let mut taken = Taken {
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

impl Reading {
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
        self.batch.push(Record {
            offset: message.offset() as u64,
            key: message.key(),
            value: message.payload(),
            headers: headers.as_deref(),
            ts_ms: message.timestamp().to_millis(),
            ..Record::default()
        });
    }
}

/// Whether what was asked for is not in the topic.
fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}

/// What statistics say of a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The offset behind the last committed record.
    end: Option<u64>,
    /// Where this thread, which alone takes from its queue, was when they were made: behind the last record, or behind the
    /// marks that follow it where the partition's end was reached.
    taken: Option<u64>,
    /// Where the partition's end was reached last.
    reached: Option<u64>,
}

fn of_partition(statistics: &Statistics, name: &TopicPartition) -> Option<Told> {
    let partition = statistics.topics.get(&*name.topic)?.partitions.get(&name.number)?;
    let known = |offset: i64| u64::try_from(offset).ok();
    Some(Told {
        end: known(partition.ls_offset).or(known(partition.hi_offset)),
        taken: known(partition.app_offset),
        reached: known(partition.eof_offset),
    })
}
