//! Handing on: what waits in batches goes to workers, into one epoch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::SendTimeoutError;

use super::Reader;
use super::stream::Line;
use crate::source::batch::{nothing, payload_bytes};
use crate::source::postgres::client::TICK;
use crate::source::postgres::lsn::{Lsn, Reached};
use crate::source::postgres::trouble::Trouble;
use crate::source::transactions::OpenEpoch;
use crate::source::{Delivery, Position, SourceError};

/// Between two looks whether workers take what feeds bring, and whether the next epoch is open.
const LIVE: Duration = Duration::from_millis(20);
const ROOM: Duration = Duration::from_millis(1);

impl Reader {
    /// Hands on what waits; with it goes progress for all feeds, unless more of the same transaction or of first rows
    /// follows.
    pub(super) fn release(&mut self, continues: bool, line: Option<&mut Line>) -> Result<(), Trouble> {
        let arrived = self.arrived.take().unwrap_or_else(Instant::now);
        let mut deliveries = Vec::with_capacity(self.members.len());
        for member in &mut self.members {
            if continues && member.batch.is_empty() {
                continue;
            }
            // A position here would say that it was read on. Without one, a run that ends before the first rows are there
            // is followed by one that begins with them again.
            if member.again && !self.first_rows {
                continue;
            }
            // Within a transaction it counts for nothing: no snapshot is of an epoch that is open.
            let reached = Reached {
                lsn: self.taken,
                system: self.system.clone(),
                tables: member.tables.clone(),
                left: member.left.clone(),
            };
            let decoded = match member.batch.is_empty() {
                true => nothing(member.hand.input(), None),
                false => {
                    let raw = member.batch.take(None);
                    let gauges = &member.hand.gauges;
                    gauges.records.fetch_add(raw.len() as u64, Ordering::Relaxed);
                    gauges.bytes.fetch_add(payload_bytes(&raw), Ordering::Relaxed);
                    (member.decode)(raw).expect("records of debezium-json wait for no schema")
                }
            };
            deliveries.push(Delivery {
                input: member.hand.input,
                feed: member.hand.feed,
                partition: member.partition.clone(),
                decoded,
                position: Position {
                    next: member.next,
                    done: false,
                    tag: Some(reached.tag()),
                    ..Position::default()
                },
                arrived,
                epoch: None,
                room: None,
            });
        }
        self.hand_on(deliveries, continues, line)?;
        self.members.iter_mut().for_each(|member| member.given = member.next);
        match continues {
            true => {
                self.begun = self.open.map(|transaction| (transaction.commit, transaction.changes));
                // Whole transactions before it went along: they are not to be told again.
                if self.begun.is_some() {
                    self.reached = Some(self.taken);
                }
            }
            false => {
                self.reached = Some(self.taken);
                self.told_progress = Instant::now();
                self.at_end_is(true);
            }
        }
        Ok(())
    }

    /// Hands deliveries on, into one epoch.
    fn hand_on(
        &mut self,
        deliveries: Vec<Delivery>,
        continues: bool,
        mut line: Option<&mut Line>,
    ) -> Result<(), Trouble> {
        let hand = self.first().clone();
        let mut wait = |pause: Option<Duration>, taken: Lsn| -> Result<(), Trouble> {
            if let Some(line) = &mut line {
                line.tend(taken, false)?;
            }
            pause.map_or(Ok(()), |pause| hand.sleep(pause)).map_err(Trouble::Ended)
        };
        let together = self.options.together.clone();
        let records: u64 = deliveries
            .iter()
            .map(|delivery| delivery.decoded.raw.len() as u64)
            .sum();
        let epoch = match self.held {
            Some(epoch) => {
                // It is open still: the one that holds it is among those that are waited for.
                let still: OpenEpoch = Arc::new(move || Some(epoch));
                together.begin(deliveries.len(), &still);
                epoch
            }
            None => {
                let held = usize::from(continues);
                let open = self.options.open_epoch.clone();
                // By (7) of the module.
                let roomy = self.given.roomy(&open);
                loop {
                    match together.begin(deliveries.len() + held, &roomy) {
                        Some(epoch) => break epoch,
                        None if open().is_none() => wait(Some(LIVE), self.taken)?,
                        None => wait(Some(ROOM), self.taken)?,
                    }
                }
            }
        };
        self.given.observe(epoch, records);
        let mut broken = false;
        for delivery in deliveries {
            let worker = self.worker_of(&delivery);
            let outlet = &self.first().outlets[worker];
            let mut delivery = Delivery {
                epoch: Some(epoch),
                ..delivery
            };
            // What has begun is handed over to its end, even if readers are to stop, or the connection breaks.
            loop {
                match outlet.together.send_timeout(delivery, TICK) {
                    Ok(()) => break,
                    Err(SendTimeoutError::Timeout(back)) => delivery = back,
                    Err(SendTimeoutError::Disconnected(_)) => {
                        return Err(Trouble::Ended(
                            SourceError::Disconnected {
                                feed: self.first().name(),
                                worker,
                            }
                            .into(),
                        ));
                    }
                }
                broken = broken || wait(None, self.taken).is_err();
            }
            (outlet.wake)();
        }
        if continues {
            self.held = Some(epoch);
        } else if self.held.take().is_some() {
            together.end_one();
        }
        // A connection that broke meanwhile tells so itself, once the state is as it was handed on.
        Ok(())
    }

    fn worker_of(&self, delivery: &Delivery) -> usize {
        let member = self
            .members
            .iter()
            .find(|m| (m.hand.input, m.hand.feed) == (delivery.input, delivery.feed));
        member.map_or(0, |member| member.hand.worker(&delivery.partition))
    }
}
