//! Reads the stream and turns its messages into records of the feeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::{FeedRoute, PostgresReader, SlotMember, TableRoute, Transaction};
use crate::decode::TRUNCATES_OTHERS;
use crate::source::PartitionLag;
use crate::source::postgres::catalog::{self, CatalogMisfit, taken_by_key, unidentified};
use crate::source::postgres::client::{POSTGRES_EPOCH, PostgresClient, Streamed, TICK, WaitCheck};
use crate::source::postgres::envelope::{ChangeOrigin, RowChange, TableEnvelope};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::lsn::Lsn;
use crate::source::postgres::output::{self, OldTuple, ReplicationMessage, TupleValue};

/// The longest interval between two status messages to the server.
const SIGN: Duration = Duration::from_secs(10);
/// The least interval between status messages that confirm a new snapshot's LSN or ask for the server's position.
const CONFIRM: Duration = Duration::from_secs(1);
/// The least interval between two replies to keepalives.
const ANSWER: Duration = Duration::from_millis(20);
/// How long a server may send nothing although it was asked to.
const SILENCE: Duration = Duration::from_secs(60);
/// After how many bytes of log without a change for us progress is handed over, so that the server can forget that
/// log.
const PASSED: u64 = 16 << 20;
/// The same as a time.
const PASSED_TIME: Duration = Duration::from_secs(60);
/// How often the server is asked for the end of its log, and whether the tables are still published.
const LAG: Duration = Duration::from_secs(5);

/// The reason for refusing an update that moves a row to another key without its unchanged long values.
const MOVES: &str = "the update changes the row's key, and its long values are not told, for they are the same as before; ALTER \
                     TABLE ... REPLICA IDENTITY FULL, and repair the row";

/// The reason for refusing a delete that does not contain the row.
const NO_ROW: &str = "the delete does not tell the row, only its replica identity, and the input has no key to find it by; ALTER TABLE \
                      ... REPLICA IDENTITY FULL, or give the input a key";

/// Whether the stream is read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// The stream has reached the requested LSN.
    There,
}

/// A connection with a stream, and what was last confirmed to the server.
pub(super) struct ReplicationConnection {
    client: PostgresClient,
    committed: Arc<AtomicU64>,
    confirmed: Lsn,
    at: Instant,
}

impl ReplicationConnection {
    /// Sends a status message if one is due, by (7) of the module, with the LSN up to which the server may forget its
    /// log, by (3). `asks` requests a reply with the server's position.
    pub(super) fn confirm_if_due(&mut self, taken: Lsn, asks: bool) -> Result<(), PostgresError> {
        let since = self.at.elapsed();
        let committed = Lsn(self.committed.load(Ordering::Acquire));
        let due = since >= SIGN || (since >= CONFIRM && (asks || committed > self.confirmed));
        match due {
            true => self.confirm(taken, true),
            false => Ok(()),
        }
    }

    fn confirm(&mut self, taken: Lsn, asks: bool) -> Result<(), PostgresError> {
        let committed = Lsn(self.committed.load(Ordering::Acquire));
        self.client.confirm(taken, committed, asks)?;
        (self.confirmed, self.at) = (committed, Instant::now());
        Ok(())
    }
}

impl PostgresReader {
    /// Reads the stream, endlessly or up to an LSN.
    pub(super) fn stream(
        &mut self,
        mut client: PostgresClient,
        until: Option<Lsn>,
        well: &mut bool,
    ) -> Result<(), PostgresError> {
        let handle = self.first().clone();
        let mut tick = || handle.check();
        let publications = self.publications_read();
        self.routes.clear();
        let from = self.reached.unwrap_or_default();
        client.start_replication(&self.slot, from, &publications, &mut tick)?;
        *well = true;
        self.observe_well();
        self.members
            .iter()
            .for_each(|member| member.handle.gauges.clear_error());
        tracing::debug!(feed = handle.name(), slot = self.slot, %from, "the stream runs");
        let mut connection = ReplicationConnection {
            client,
            committed: self.committed.clone(),
            confirmed: Lsn::default(),
            at: Instant::now(),
        };
        connection.confirm(from, true)?;
        loop {
            handle.check()?;
            if self.options.stop_at_end && self.at_end {
                // Nothing is read any more; only confirmations are still sent.
                connection.confirm_if_due(self.taken, false)?;
                handle.sleep(TICK)?;
                continue;
            }
            let flow = match connection.client.next_streamed()? {
                None => {
                    if connection.client.silence() > SILENCE {
                        let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server says nothing");
                        return Err(silent.into());
                    }
                    self.observe_quiet(&mut connection)?;
                    Flow::On
                }
                Some(Streamed::Alive { end, answer }) => {
                    let flow = self.observe_alive(end, answer, until, &mut connection)?;
                    if answer {
                        // A server that is shutting down asks again as soon as it gets a reply, so replies are
                        // limited.
                        handle.sleep(ANSWER.saturating_sub(connection.at.elapsed()))?;
                        connection.confirm(self.taken, false)?;
                    }
                    flow
                }
                Some(Streamed::Data(bytes)) => {
                    let message = output::read(&bytes)
                        .map_err(|why| PostgresError::Wrong(format!("a message of pgoutput cannot be read: {why}")))?;
                    self.observe(message, until, &mut connection)?
                }
            };
            if flow == Flow::There {
                return Ok(());
            }
            let caught_up = self.at_end || until.is_some_and(|until| self.taken >= until);
            connection.confirm_if_due(self.taken, !caught_up)?;
            self.observe_lag()?;
        }
    }

    /// Handles a pause in which nothing arrives.
    fn observe_quiet(&mut self, connection: &mut ReplicationConnection) -> Result<(), PostgresError> {
        // By (6) of the module, an epoch may be held for a transaction that the server is about to send again.
        match (self.open, self.held_epoch) {
            (None, None) if self.arrived.is_some() => self.release(false, Some(connection)),
            _ => Ok(()),
        }
    }

    /// Processes a keepalive: the server has sent everything before `end`. With `asks` it expects a reply; a server
    /// that shuts down waits until everything it sent is confirmed.
    fn observe_alive(
        &mut self,
        end: Lsn,
        asks: bool,
        until: Option<Lsn>,
        connection: &mut ReplicationConnection,
    ) -> Result<Flow, PostgresError> {
        if self.open.is_some() || self.held_epoch.is_some() {
            return Ok(Flow::On);
        }
        self.taken = self.taken.max(end);
        let is_reached = until.is_some_and(|until| self.taken >= until);
        if let Some(until) = until.filter(|_| is_reached) {
            self.taken = until; // the server will send the rest again
        }
        let reached = self.reached.unwrap_or_default();
        let passed = self.taken.0 - reached.0.min(self.taken.0);
        let ends = !self.at_end && until.is_none() && self.taken >= self.target;
        let is_due = passed >= PASSED || (passed > 0 && (asks || self.handed_progress.elapsed() >= PASSED_TIME));
        if self.arrived.is_some() || is_reached || is_due || (ends && passed > 0 && self.options.stop_at_end) {
            self.release(false, Some(connection))?;
        }
        if ends {
            self.at_end = true;
            self.members
                .iter()
                .for_each(|member| member.handle.gauges.set_exhausted(true));
        }
        Ok(if is_reached { Flow::There } else { Flow::On })
    }

    fn observe(
        &mut self,
        message: ReplicationMessage<'_>,
        until: Option<Lsn>,
        connection: &mut ReplicationConnection,
    ) -> Result<Flow, PostgresError> {
        match message {
            ReplicationMessage::Begin { commit, micros, xid } => {
                if let Some(until) = until.filter(|until| commit >= *until) {
                    self.taken = until;
                    self.release(false, Some(connection))?;
                    return Ok(Flow::There);
                }
                self.open = Some(Transaction {
                    commit,
                    xid,
                    ms: micros.saturating_add(POSTGRES_EPOCH) / 1000,
                    changes: 0,
                });
            }
            ReplicationMessage::Commit { end, .. } => {
                let done = self.open.take();
                self.newest_ms = done.map(|transaction| transaction.ms).or(self.newest_ms);
                self.taken = self.taken.max(end);
                let commit = done.map(|transaction| transaction.commit);
                if self.begun.is_some_and(|(begun, _)| Some(begun) != commit) {
                    return Ok(Flow::On); // it has no changes, and precedes the one that is sent again
                }
                self.begun = None;
                let waits = self.arrived.is_some() || self.held_epoch.is_some();
                let full = self.members.iter().any(|member| member.batch.is_full());
                if waits && (full || self.held_epoch.is_some() || !connection.client.has_more()) {
                    self.release(false, Some(connection))?;
                }
            }
            ReplicationMessage::Relation(relation) => self.observe_relation(&relation)?,
            ReplicationMessage::Insert { relation, new } => {
                self.change(relation, &RowChange::Insert(new), connection)?
            }
            ReplicationMessage::Update { relation, old, new } => {
                self.change(relation, &RowChange::Update(old, new), connection)?
            }
            ReplicationMessage::Delete { relation, old } => {
                self.change(relation, &RowChange::Delete(old), connection)?
            }
            ReplicationMessage::Truncate { relations } => self.truncate(&relations, connection)?,
            ReplicationMessage::Other => {}
        }
        Ok(Flow::On)
    }

    fn observe_relation(&mut self, relation: &output::Relation<'_>) -> Result<(), PostgresError> {
        let unknown =
            |kind: u32| kind >= 16_384 && !self.types.0.contains_key(&kind) && !self.asked_types.contains(&kind);
        let kinds: Vec<u32> = relation
            .columns
            .iter()
            .map(|column| column.kind)
            .filter(|kind| unknown(*kind))
            .collect();
        let name = format!("{}.{}", relation.schema, relation.table);
        let reads = |member: &SlotMember| member.tables.iter().any(|(oid, _)| *oid == relation.oid);
        let anew = |member: &SlotMember| {
            member
                .tables
                .iter()
                .any(|(oid, own)| *oid != relation.oid && *own == name)
        };
        let ours = self.members.iter().any(reads);
        if !ours && let Some(member) = self.members.iter().find(|member| anew(member)) {
            // It may only have been renamed, and another Relation message with its new name may follow.
            let feed = member.handle.name();
            let message = format!("table {name} of feed {feed} was made anew, or another one has its name now");
            let help = "give the feed another `slot` to begin with its tables' rows again, or give the old table its name back";
            self.check_misfits([CatalogMisfit {
                message,
                help: help.into(),
                refuses: true,
            }])?;
        }
        if ours && !kinds.is_empty() {
            self.asked_types.extend(kinds);
            let handle = self.first().clone();
            let mut tick = || handle.check();
            self.types = catalog::types(self.beside(&mut tick)?, &mut tick)?;
        }
        let table = TableEnvelope::new(&self.database, relation, &self.types);
        let mut known = self.members.iter().flat_map(|member| &member.tables);
        let is_renamed = ours && !known.any(|(oid, called)| (*oid, called) == (relation.oid, &name));
        if is_renamed && self.renamed.insert(relation.oid) {
            let text =
                format!("a table is called {name} now: `tables` must name it so before the next start or connection");
            tracing::warn!(feed = self.first().name(), "{text}");
            self.members
                .iter()
                .for_each(|member| member.handle.gauges.set_error(text.clone()));
        }
        let members = self.members.iter().enumerate().filter(|(_, member)| reads(member));
        let readers = members.map(|(m, member)| {
            let (input, feed) = (member.handle.input(), member.handle.feed);
            let lacking = unidentified(input, feed, &|column| table.has(column).then(|| table.identifies(column)));
            let reason = lacking.map(|column| {
                format!(
                    "updates and deletes of table {name} do not tell column {column:?}, which the key of input {} takes, so this \
                     change cannot be applied; ALTER TABLE {name} REPLICA IDENTITY FULL, and repair the row",
                    input.name
                )
            });
            let taken = taken_by_key(input, feed, &|column| table.has(column));
            let is_taken = |(_, column): &(usize, &output::RelationColumn<'_>)| taken.contains(&column.name);
            let columns = relation.columns.iter().enumerate().filter(is_taken);
            FeedRoute {
                member: m,
                lacking: reason,
                key: columns.map(|(at, _)| at).collect(),
                by_row: input.key.is_empty() && input.dedup_key.is_empty(),
            }
        });
        let readers = readers.collect();
        self.routes.insert(relation.oid, TableRoute { table, readers });
        Ok(())
    }

    /// The second connection, which is opened on first use.
    fn beside(&mut self, tick: WaitCheck<'_>) -> Result<&mut PostgresClient, PostgresError> {
        if self.beside.is_none() {
            let mut client = PostgresClient::connect(&self.url, tick)?;
            // The stream waits during these queries, which may be blocked by another session's lock.
            client.query("SET statement_timeout = '2s'", tick)?;
            self.beside = Some(client);
        }
        Ok(self.beside.as_mut().expect("it was made if there was none"))
    }

    fn change(
        &mut self,
        relation: u32,
        change: &RowChange<'_>,
        connection: &mut ReplicationConnection,
    ) -> Result<(), PostgresError> {
        let Some(route) = self.routes.remove(&relation) else {
            return Err(PostgresError::Wrong(format!(
                "a change is of relation {relation}, which was not told of"
            )));
        };
        let mut result = Ok(());
        for reads in &route.readers {
            let refused = match &reads.lacking {
                Some(lacking) if !matches!(change, RowChange::Insert(_)) => Some(lacking.as_str()),
                _ if moves(change, &reads.key) => Some(MOVES),
                _ if reads.by_row && matches!(change, RowChange::Delete(OldTuple::Key(_))) => Some(NO_ROW),
                _ => None,
            };
            result = self.put(reads.member, &route.table, change, refused, connection);
            if result.is_err() {
                break;
            }
        }
        self.routes.insert(relation, route);
        result
    }

    /// Applies a TRUNCATE, which empties an input; if its feed reads several tables, all must be truncated together.
    fn truncate(&mut self, relations: &[u32], connection: &mut ReplicationConnection) -> Result<(), PostgresError> {
        for m in 0..self.members.len() {
            let of = |oid: &u32| self.members[m].tables.iter().any(|(own, _)| own == oid);
            let ours: Vec<u32> = relations.iter().copied().filter(of).collect();
            let Some(first) = ours.first() else { continue };
            let feeds = self.members[m].handle.input().feeds.len();
            let refused = (ours.len() < self.members[m].tables.len() || feeds > 1).then_some(TRUNCATES_OTHERS);
            let Some(route) = self.routes.remove(first) else {
                return Err(PostgresError::Wrong(format!(
                    "relation {first} is emptied, which was not told of"
                )));
            };
            let result = self.put(m, &route.table, &RowChange::Truncate, refused, connection);
            self.routes.insert(*first, route);
            result?;
        }
        Ok(())
    }

    /// Puts a change into a feed's batch.
    fn put(
        &mut self,
        m: usize,
        table: &TableEnvelope,
        change: &RowChange<'_>,
        refused: Option<&str>,
        connection: &mut ReplicationConnection,
    ) -> Result<(), PostgresError> {
        let Some(transaction) = &mut self.open else {
            return Err(PostgresError::Wrong("a change is of no transaction".into()));
        };
        transaction.changes += 1;
        let transaction = *transaction;
        // By (6) of the module, these changes were handed over before the connection broke.
        if self
            .begun
            .is_some_and(|(commit, changes)| commit == transaction.commit && transaction.changes <= changes)
        {
            return Ok(());
        }
        let origin = ChangeOrigin {
            lsn: transaction.commit,
            transaction: Some((transaction.xid, transaction.ms, transaction.changes)),
        };
        self.record.clear();
        table.write(change, origin, refused, &mut self.record);
        if self.arrived.is_none() {
            self.arrived = Some(connection.client.heard());
            self.at_end_is(false);
        }
        let member = &mut self.members[m];
        member.push(&self.record, Some(transaction.ms));
        match member.batch.is_full() {
            true => self.release(true, Some(connection)),
            false => Ok(()),
        }
    }

    /// Updates whether the feeds are exhausted, once the stream has reached its first target.
    pub(super) fn at_end_is(&self, at_end: bool) {
        if self.at_end {
            self.members
                .iter()
                .for_each(|member| member.handle.gauges.set_exhausted(at_end));
        }
    }

    /// Reports the feeds' lag from time to time, and whether their tables are still published.
    fn observe_lag(&mut self) -> Result<(), PostgresError> {
        if self.asked_lag.elapsed() < LAG {
            return Ok(());
        }
        self.asked_lag = Instant::now();
        let handle = self.first().clone();
        let mut tick = || handle.check();
        let publications = self.publications();
        let tables: Vec<(u32, String)> = self.members.iter().flat_map(|member| member.tables.clone()).collect();
        let oids: Vec<u32> = tables.iter().map(|(oid, _)| *oid).collect();
        let asked = self.beside(&mut tick).and_then(|client| {
            let published = catalog::published(client, &publications, &oids, &mut tick)?;
            Ok((catalog::end(client, &mut tick)?, published))
        });
        let (end, published) = match asked {
            Ok(asked) => asked,
            Err(PostgresError::Ended(ended)) => return Err(PostgresError::Ended(ended)),
            Err(trouble) => {
                // If the server is unreachable, the stream will fail as well.
                tracing::debug!(feed = handle.name(), %trouble, "the lag is not known");
                self.beside = None;
                return Ok(());
            }
        };
        if let Some((_, name)) = tables.iter().find(|(oid, _)| !published.contains(oid)) {
            let reason = format!("table {name} was dropped, or taken out of its publication");
            return Err(PostgresError::Ended(self.lost(&reason).into()));
        }
        let bytes = end.0.saturating_sub(self.taken.0);
        let now = (self.options.clock)();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let behind = !self.at_end || self.open.is_some() || self.arrived.is_some();
        let age = self
            .newest_ms
            .filter(|_| behind)
            .map(|newest| now.saturating_sub(newest).max(0) as u64);
        for member in &self.members {
            member.handle.gauges.set_lag(0, bytes);
            let lag = PartitionLag {
                partition: member.partition.to_string(),
                next: member.next,
                records: 0,
                age_ms: age,
            };
            member.handle.gauges.set_partitions(0, vec![lag]);
        }
        Ok(())
    }
}

/// Whether an update changes the row's key without sending its unchanged long values, which would then be filled from
/// the current row of the new key. `key` has the indices of the key's columns.
fn moves(change: &RowChange<'_>, key: &[usize]) -> bool {
    let RowChange::Update(Some(OldTuple::Key(old)), new) = change else {
        return false;
    };
    let differs = |at: &usize| old.values().nth(*at) != new.values().nth(*at);
    new.values().any(|value| value == TupleValue::Unchanged) && key.iter().any(differs)
}
