//! The `generate` feed: a generator on a thread, at a rate or as fast as workers take it.
//!
//! 1. A key's events go to one partition, in order. An event's offset is its number in the whole generator.
//! 2. At a rate, events are due by absolute time, and `arrived` is when an event was due, not when there was room for
//!    it: a slow consumer shows as latency, free of coordinated omission.
//! 3. A restart makes the events before its positions again, to be in the same state, and drops them. It must run with
//!    the same settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Event, Generator, Rendering, Timing};
use crate::definition::{Format, Generate};
use crate::source::batch::{BatchBuilder, Record};
use crate::source::outlet::{Ended, Hand};
use crate::source::readers::Starter;
use crate::source::{Decode, Position, Progress, SourceError};

/// Events of one batch are due within this time, so that one moment stands for all of them.
const BATCH_SPAN: Duration = Duration::from_millis(5);
/// Events made between looks at whether to stop, while made again.
const STRIDE: u64 = 1 << 16;

/// Starts the feed's thread.
pub(crate) fn start(
    starter: &mut Starter,
    hand: Hand,
    settings: &Generate,
    resume: &Progress,
) -> Result<(), SourceError> {
    let partitions = settings.partitions.max(1) as usize;
    let mut next = vec![0; partitions];
    for (name, position) in hand.positions(resume) {
        if let Some(slot) = name.parse::<usize>().ok().and_then(|n| next.get_mut(n)) {
            *slot = position.next;
        }
    }
    let reached = next.iter().copied().max().unwrap_or(0);
    let rendering = if hand.feed().format == Format::Csv {
        Rendering::Csv
    } else {
        Rendering::Json
    };
    let generator = match settings.rate {
        None => Generator::new(settings, rendering)?,
        // The first event that is new is due now; those before it lie in the past.
        Some(rate) => {
            let mut timing = Timing::paced((starter.options.clock)(), rate);
            timing.start_us -= (reached as f64 * timing.step_us) as i64;
            Generator::timed(settings, rendering, timing)?
        }
    };
    let header = (rendering == Rendering::Csv).then(|| Arc::from(generator.csv_header()));
    let (rate, decoders, stop_at_end) = (settings.rate, starter.decoders.clone(), starter.options.stop_at_end);
    if stop_at_end && settings.limit.is_none() {
        tracing::warn!(
            feed = hand.name(),
            "a generator without a limit never ends: set `limit` to run until caught up"
        );
    }
    starter.spawn(&hand, move |hand| {
        let decode = decoders(hand.input, hand.feed);
        let partitions: Vec<Arc<str>> = (0..partitions).map(|n| n.to_string().into()).collect();
        let ours: Vec<bool> = partitions.iter().map(|name| hand.reads(name)).collect();
        if !ours.contains(&true) {
            hand.gauges.set_exhausted(true);
            return Ok(());
        }
        Pump {
            ours,
            hand,
            decode,
            generator,
            header,
            partitions,
            next,
            rate,
            reached,
        }
        .run()
    })
}

struct Pump {
    hand: Hand,
    decode: Decode,
    generator: Generator,
    header: Option<Arc<str>>,
    partitions: Vec<Arc<str>>,
    /// Of each partition, whether this process reads it; the events of the others are made and dropped.
    ours: Vec<bool>,
    /// Of each partition, the first event that is new.
    next: Vec<u64>,
    rate: Option<f64>,
    /// The first event that is new in every partition.
    reached: u64,
}

impl Pump {
    fn run(mut self) -> Result<(), Ended> {
        let start = Instant::now();
        let mut batches: Vec<BatchBuilder> = self
            .partitions
            .iter()
            .map(|_| BatchBuilder::new(self.hand.limits))
            .collect();
        let mut event = Event::default();
        let mut more = true;
        while more {
            let first = self.generator.index();
            // Events to make at once, and when the first of them was due.
            let (mut count, arrived) = match self.rate {
                None => (self.hand.limits.rows as u64, Instant::now()),
                Some(_) if first < self.reached => (STRIDE.min(self.reached - first), start),
                Some(rate) => {
                    let due = |index: u64| start + Duration::from_secs_f64((index - self.reached) as f64 / rate);
                    let arrived = due(first);
                    let now = Instant::now();
                    if let Some(early) = arrived.checked_duration_since(now).filter(|early| !early.is_zero()) {
                        self.hand.sleep(early)?;
                    }
                    let until = Instant::now().min(arrived + BATCH_SPAN);
                    let due = (until.saturating_duration_since(start).as_secs_f64() * rate) as u64;
                    (
                        (self.reached + due + 1)
                            .saturating_sub(first)
                            .clamp(1, self.hand.limits.rows as u64),
                        arrived,
                    )
                }
            };
            while count > 0 {
                let index = self.generator.index();
                more = self.generator.next_into(&mut event);
                if !more {
                    break;
                }
                count -= 1;
                let partition = self.partition_of(&event);
                if index >= self.next[partition] && self.ours[partition] {
                    // Unpaced event times are made up: told as source times they would make a latency of years.
                    let ts_ms = self.rate.map(|_| event.ts_ms);
                    batches[partition].push(Record {
                        offset: index,
                        key: Some(&event.key),
                        value: Some(&event.value),
                        headers: None,
                        ts_ms,
                        ..Record::default()
                    });
                }
            }
            let next = self.generator.index();
            for (partition, batch) in batches.iter_mut().enumerate() {
                if batch.is_empty() {
                    continue;
                }
                let raw = batch.take(self.header.clone());
                let position = Position {
                    next,
                    done: false,
                    tag: None,
                    ..Position::default()
                };
                self.hand
                    .deliver(&mut self.decode, &self.partitions[partition], raw, position, arrived)?;
            }
            self.hand.check()?;
        }
        self.hand.gauges.set_exhausted(true);
        Ok(())
    }

    fn partition_of(&self, event: &Event) -> usize {
        match self.partitions.len() {
            1 => 0,
            n => (twox_hash::XxHash64::oneshot(0, &event.key) % n as u64) as usize,
        }
    }
}
