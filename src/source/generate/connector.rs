//! The `generate` feed: a generator on a thread, at a rate or as fast as workers take it.
//!
//! 1. A key's events go to one partition, in order. An event's offset is its number in the whole generator.
//! 2. At a rate, events are due at absolute times, and `arrived` is when an event was due, not when there was room
//!    for it: a slow consumer shows as latency, without coordinated omission.
//! 3. To reach its earlier state, a restart generates the events before its positions again and drops them. It must
//!    run with the same settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{GeneratedEvent, Generator, Rendering, Timing};
use crate::definition::{Format, Generate};
use crate::repr::{FeedPositions, Position};
use crate::source::batch::{BatchBuilder, SourceRecord};
use crate::source::connector::Connector;
use crate::source::error::ReaderExit;
use crate::source::error::SourceError;
use crate::source::feed_handle::FeedHandle;
use crate::source::options::Decode;
use crate::source::starter::Starter;

/// All events of a batch are due within this time, so that one `arrived` serves for all of them.
const BATCH_SPAN: Duration = Duration::from_millis(5);
/// While earlier events are generated again, the thread checks for a stop after this number of them.
const STRIDE: u64 = 1 << 16;

impl Connector for Generate {
    /// Starts the feed's thread.
    fn start(&self, starter: &mut Starter, handle: FeedHandle, resume: &FeedPositions) -> Result<(), SourceError> {
        let partitions = self.partitions.max(1) as usize;
        let mut next = vec![0; partitions];
        for (name, position) in handle.positions(resume) {
            if let Some(slot) = name.parse::<usize>().ok().and_then(|n| next.get_mut(n)) {
                *slot = position.next;
            }
        }
        let reached = next.iter().copied().max().unwrap_or(0);
        let rendering = if handle.feed().format == Format::Csv {
            Rendering::Csv
        } else {
            Rendering::Json
        };
        let generator = match self.rate {
            None => Generator::new(self, rendering)?,
            // The first new event is due now, so the start lies as far back as the events before it take.
            Some(rate) => {
                let mut timing = Timing::paced((starter.options.clock)(), rate);
                timing.start_us -= (reached as f64 * timing.step_us) as i64;
                Generator::timed(self, rendering, timing)?
            }
        };
        let header = (rendering == Rendering::Csv).then(|| Arc::from(generator.csv_header()));
        let (rate, decoders, stop_at_end) = (self.rate, starter.decoders.clone(), starter.options.stop_at_end);
        if stop_at_end && self.limit.is_none() {
            tracing::warn!(
                feed = handle.name(),
                "a generator without a limit never ends: set `limit` to run until caught up"
            );
        }
        starter.spawn(&handle, move |handle| {
            let decode = decoders(handle.input, handle.feed);
            let partitions: Vec<Arc<str>> = (0..partitions).map(|n| n.to_string().into()).collect();
            let ours: Vec<bool> = partitions.iter().map(|name| handle.reads(name)).collect();
            if !ours.contains(&true) {
                handle.gauges.set_exhausted(true);
                return Ok(());
            }
            GeneratorReader {
                ours,
                handle,
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
}

struct GeneratorReader {
    handle: FeedHandle,
    decode: Decode,
    generator: Generator,
    header: Option<Arc<str>>,
    partitions: Vec<Arc<str>>,
    /// For each partition, whether this process reads it; events of other partitions are generated and dropped.
    ours: Vec<bool>,
    /// For each partition, the number of its first new event.
    next: Vec<u64>,
    rate: Option<f64>,
    /// The number from which events are new in every partition.
    reached: u64,
}

impl GeneratorReader {
    fn run(mut self) -> Result<(), ReaderExit> {
        let start = Instant::now();
        let mut batches: Vec<BatchBuilder> = self
            .partitions
            .iter()
            .map(|_| BatchBuilder::new(self.handle.limits))
            .collect();
        let mut event = GeneratedEvent::default();
        let mut more = true;
        while more {
            let first = self.generator.index();
            // The number of events to generate at once, and when the first of them was due.
            let (mut count, arrived) = match self.rate {
                None => (self.handle.limits.rows as u64, Instant::now()),
                Some(_) if first < self.reached => (STRIDE.min(self.reached - first), start),
                Some(rate) => {
                    let due = |index: u64| start + Duration::from_secs_f64((index - self.reached) as f64 / rate);
                    let arrived = due(first);
                    let now = Instant::now();
                    if let Some(early) = arrived.checked_duration_since(now).filter(|early| !early.is_zero()) {
                        self.handle.sleep(early)?;
                    }
                    let until = Instant::now().min(arrived + BATCH_SPAN);
                    let due = (until.saturating_duration_since(start).as_secs_f64() * rate) as u64;
                    (
                        (self.reached + due + 1)
                            .saturating_sub(first)
                            .clamp(1, self.handle.limits.rows as u64),
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
                    // Event times of an unpaced generator are artificial. As source times they would show a
                    // latency of years.
                    let ts_ms = self.rate.map(|_| event.ts_ms);
                    batches[partition].push(SourceRecord {
                        offset: index,
                        key: Some(&event.key),
                        value: Some(&event.value),
                        headers: None,
                        ts_ms,
                        ..SourceRecord::default()
                    });
                }
            }
            let next = self.generator.index();
            for (partition, batch) in batches.iter_mut().enumerate() {
                if batch.is_empty() {
                    continue;
                }
                let raw = batch.finish(self.header.clone());
                let position = Position {
                    next,
                    done: false,
                    tag: None,
                    ..Position::default()
                };
                self.handle
                    .deliver(&mut self.decode, &self.partitions[partition], raw, position, arrived)?;
            }
            self.handle.check()?;
        }
        self.handle.gauges.set_exhausted(true);
        Ok(())
    }

    fn partition_of(&self, event: &GeneratedEvent) -> usize {
        match self.partitions.len() {
            1 => 0,
            n => (twox_hash::XxHash64::oneshot(0, &event.key) % n as u64) as usize,
        }
    }
}
