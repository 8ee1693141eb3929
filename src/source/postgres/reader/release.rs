//! Hands over what waits in batches to the workers, all into one epoch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::SendTimeoutError;

use super::PostgresReader;
use super::stream::ReplicationConnection;
use crate::repr::Position;
use crate::source::batch::{nothing, payload_bytes};
use crate::source::postgres::client::TICK;
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::lsn::{Lsn, SlotPosition};
use crate::source::transactions::OpenEpoch;
use crate::source::{Delivery, SourceError};

/// How often to check whether an epoch is open at all (`LIVE`), and whether there is room for more records (`ROOM`).
const LIVE: Duration = Duration::from_millis(20);
const ROOM: Duration = Duration::from_millis(1);

impl PostgresReader {
    /// Hands over all batches, with progress for all feeds. With `continues`, more of the same transaction or initial
    /// copy follows, and the epoch is held.
    pub(super) fn release(
        &mut self,
        continues: bool,
        connection: Option<&mut ReplicationConnection>,
    ) -> Result<(), PostgresError> {
        let arrived = self.arrived.take().unwrap_or_else(Instant::now);
        let mut deliveries = Vec::with_capacity(self.members.len());
        for member in &mut self.members {
            if continues && member.batch.is_empty() {
                continue;
            }
            // A position here would claim that the feed was read on. Without one, a run that ends before the copy
            // is complete is followed by one that starts the copy again.
            if member.copies_again && !self.first_rows {
                continue;
            }
            // Within a transaction this position has no effect, because no snapshot is taken of an epoch that is
            // still open.
            let reached = SlotPosition {
                lsn: self.taken,
                system: self.system.clone(),
                tables: member.tables.clone(),
                left: member.left.clone(),
            };
            let decoded = match member.batch.is_empty() {
                true => nothing(member.handle.input(), None),
                false => {
                    let raw = member.batch.finish(None);
                    let gauges = &member.handle.gauges;
                    gauges.records.fetch_add(raw.len() as u64, Ordering::Relaxed);
                    gauges.bytes.fetch_add(payload_bytes(&raw), Ordering::Relaxed);
                    (member.decode)(raw).expect("records of debezium-json wait for no schema")
                }
            };
            deliveries.push(Delivery {
                input: member.handle.input,
                feed: member.handle.feed,
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
        self.hand_on(deliveries, continues, connection)?;
        self.members
            .iter_mut()
            .for_each(|member| member.handed_over = member.next);
        match continues {
            true => {
                self.begun = self.open.map(|transaction| (transaction.commit, transaction.changes));
                // Complete transactions before it were handed over as well, and must not be sent again.
                if self.begun.is_some() {
                    self.reached = Some(self.taken);
                }
            }
            false => {
                self.reached = Some(self.taken);
                self.handed_progress = Instant::now();
                self.at_end_is(true);
            }
        }
        Ok(())
    }

    /// Hands over deliveries, all into one epoch.
    fn hand_on(
        &mut self,
        deliveries: Vec<Delivery>,
        continues: bool,
        mut connection: Option<&mut ReplicationConnection>,
    ) -> Result<(), PostgresError> {
        let handle = self.first().clone();
        let mut wait = |pause: Option<Duration>, taken: Lsn| -> Result<(), PostgresError> {
            if let Some(connection) = &mut connection {
                connection.confirm_if_due(taken, false)?;
            }
            pause
                .map_or(Ok(()), |pause| handle.sleep(pause))
                .map_err(PostgresError::Ended)
        };
        let together = self.options.together.clone();
        let records: u64 = deliveries
            .iter()
            .map(|delivery| delivery.decoded.raw.len() as u64)
            .sum();
        let epoch = match self.held_epoch {
            Some(epoch) => {
                // The held epoch is still open: the hold counts as one of the deliveries for which it waits.
                let still: OpenEpoch = Arc::new(move || Some(epoch));
                together.begin(deliveries.len(), &still);
                epoch
            }
            None => {
                let own_hold = usize::from(continues);
                let open = self.options.open_epoch.clone();
                // By (7) of the module.
                let roomy = self.epoch_share.roomy(&open);
                loop {
                    match together.begin(deliveries.len() + own_hold, &roomy) {
                        Some(epoch) => break epoch,
                        None if open().is_none() => wait(Some(LIVE), self.taken)?,
                        None => wait(Some(ROOM), self.taken)?,
                    }
                }
            }
        };
        self.epoch_share.observe(epoch, records);
        let mut broken = false;
        for delivery in deliveries {
            let worker = self.worker_of(&delivery);
            let channel = &self.first().channels[worker];
            let mut delivery = Delivery {
                epoch: Some(epoch),
                ..delivery
            };
            // A delivery that was begun is completed even if readers are to stop or the connection breaks.
            loop {
                match channel.together.send_timeout(delivery, TICK) {
                    Ok(()) => break,
                    Err(SendTimeoutError::Timeout(back)) => delivery = back,
                    Err(SendTimeoutError::Disconnected(_)) => {
                        return Err(PostgresError::Ended(
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
            (channel.wake)();
        }
        if continues {
            self.held_epoch = Some(epoch);
        } else if self.held_epoch.take().is_some() {
            together.end_one();
        }
        // If the connection broke meanwhile, its next use returns the error; by then the state agrees
        // with what was handed over.
        Ok(())
    }

    fn worker_of(&self, delivery: &Delivery) -> usize {
        let member = self
            .members
            .iter()
            .find(|m| (m.handle.input, m.handle.feed) == (delivery.input, delivery.feed));
        member.map_or(0, |member| member.handle.worker(&delivery.partition))
    }
}
