//! The stream: messages become records of their feeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::{Member, Reader, Reading, Route, Transaction};
use crate::decode::TRUNCATES_OTHERS;
use crate::source::PartitionLag;
use crate::source::postgres::catalog::{self, Misfit, taken_by_key, unidentified};
use crate::source::postgres::client::{Client, POSTGRES_EPOCH, Streamed, TICK, Tick};
use crate::source::postgres::envelope::{Change, Origin, Table};
use crate::source::postgres::lsn::Lsn;
use crate::source::postgres::output::{self, Message, Old, Value};
use crate::source::postgres::trouble::Trouble;

/// How often the server hears of us, at least.
const SIGN: Duration = Duration::from_secs(10);
/// How often it hears what it may forget, and is asked how far it has come, at most.
const CONFIRM: Duration = Duration::from_secs(1);
/// Between two answers.
const ANSWER: Duration = Duration::from_millis(20);
/// How long a server may say nothing, though it was asked.
const SILENCE: Duration = Duration::from_secs(60);
/// How much log that changes nothing here is passed before it is told, so that the server can forget it.
const PASSED: u64 = 16 << 20;
/// The same by time.
const PASSED_TIME: Duration = Duration::from_secs(60);
/// How often it is asked where the server's log ends, and whether tables are published still.
const LAG: Duration = Duration::from_secs(5);

/// Why a change is refused that moves a row.
const MOVES: &str = "the update changes the row's key, and its long values are not told, for they are the same as before; ALTER \
                     TABLE ... REPLICA IDENTITY FULL, and repair the row";

/// Why a delete is refused that does not tell the row.
const NO_ROW: &str = "the delete does not tell the row, only its replica identity, and the input has no key to find it by; ALTER TABLE \
                      ... REPLICA IDENTITY FULL, or give the input a key";

/// Whether reading a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// It has come to where it should.
    There,
}

/// A connection with a stream, and what the server was told.
pub(super) struct Line {
    client: Client,
    committed: Arc<AtomicU64>,
    told: Lsn,
    at: Instant,
}

impl Line {
    /// Tells the server that we are here, if it is time to, by (7) of the module, and by (3) what it may forget. `asks`: it
    /// is to answer how far it has come.
    pub(super) fn tend(&mut self, taken: Lsn, asks: bool) -> Result<(), Trouble> {
        let since = self.at.elapsed();
        let committed = Lsn(self.committed.load(Ordering::Acquire));
        let due = since >= SIGN || (since >= CONFIRM && (asks || committed > self.told));
        match due {
            true => self.tell(taken, true),
            false => Ok(()),
        }
    }

    fn tell(&mut self, taken: Lsn, asks: bool) -> Result<(), Trouble> {
        let committed = Lsn(self.committed.load(Ordering::Acquire));
        self.client.confirm(taken, committed, asks)?;
        (self.told, self.at) = (committed, Instant::now());
        Ok(())
    }
}

impl Reader {
    /// Takes the stream, for ever or up to a place.
    pub(super) fn stream(&mut self, mut client: Client, until: Option<Lsn>, well: &mut bool) -> Result<(), Trouble> {
        let hand = self.first().clone();
        let mut tick = || hand.check();
        let publications = self.publications_read();
        self.routes.clear();
        let from = self.reached.unwrap_or_default();
        client.start_replication(&self.slot, from, &publications, &mut tick)?;
        *well = true;
        self.observe_well();
        self.members.iter().for_each(|member| member.hand.gauges.clear_error());
        tracing::debug!(feed = hand.name(), slot = self.slot, %from, "the stream runs");
        let mut line = Line {
            client,
            committed: self.committed.clone(),
            told: Lsn::default(),
            at: Instant::now(),
        };
        line.tell(from, true)?;
        loop {
            hand.check()?;
            if self.options.stop_at_end && self.at_end {
                // Only what is committed is still told.
                line.tend(self.taken, false)?;
                hand.sleep(TICK)?;
                continue;
            }
            let flow = match line.client.next_streamed()? {
                None => {
                    if line.client.silence() > SILENCE {
                        let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server says nothing");
                        return Err(silent.into());
                    }
                    self.observe_quiet(&mut line)?;
                    Flow::On
                }
                Some(Streamed::Alive { end, answer }) => {
                    let flow = self.observe_alive(end, answer, until, &mut line)?;
                    if answer {
                        // A server that shuts down asks again as soon as it has an answer.
                        hand.sleep(ANSWER.saturating_sub(line.at.elapsed()))?;
                        line.tell(self.taken, false)?;
                    }
                    flow
                }
                Some(Streamed::Data(bytes)) => {
                    let message = output::read(&bytes)
                        .map_err(|why| Trouble::Wrong(format!("a message of pgoutput cannot be read: {why}")))?;
                    self.observe(message, until, &mut line)?
                }
            };
            if flow == Flow::There {
                return Ok(());
            }
            let caught_up = self.at_end || until.is_some_and(|until| self.taken >= until);
            line.tend(self.taken, !caught_up)?;
            self.observe_lag()?;
        }
    }

    /// Nothing comes.
    fn observe_quiet(&mut self, line: &mut Line) -> Result<(), Trouble> {
        // By (6) of the module, an epoch may be held for a transaction that is about to be told again.
        match (self.open, self.held) {
            (None, None) if self.arrived.is_some() => self.release(false, Some(line)),
            _ => Ok(()),
        }
    }

    /// The server has told everything before `end`. `asks`: it waits for an answer, as it does to shut down until all that it
    /// told is said to be kept.
    fn observe_alive(&mut self, end: Lsn, asks: bool, until: Option<Lsn>, line: &mut Line) -> Result<Flow, Trouble> {
        if self.open.is_some() || self.held.is_some() {
            return Ok(Flow::On);
        }
        self.taken = self.taken.max(end);
        let there = until.is_some_and(|until| self.taken >= until);
        if let Some(until) = until.filter(|_| there) {
            self.taken = until; // what is behind it is told again
        }
        let reached = self.reached.unwrap_or_default();
        let passed = self.taken.0 - reached.0.min(self.taken.0);
        let ends = !self.at_end && until.is_none() && self.taken >= self.target;
        let tells = passed >= PASSED || (passed > 0 && (asks || self.told_progress.elapsed() >= PASSED_TIME));
        if self.arrived.is_some() || there || tells || (ends && passed > 0 && self.options.stop_at_end) {
            self.release(false, Some(line))?;
        }
        if ends {
            self.at_end = true;
            self.members
                .iter()
                .for_each(|member| member.hand.gauges.set_exhausted(true));
        }
        Ok(if there { Flow::There } else { Flow::On })
    }

    fn observe(&mut self, message: Message<'_>, until: Option<Lsn>, line: &mut Line) -> Result<Flow, Trouble> {
        match message {
            Message::Begin { commit, micros, xid } => {
                if let Some(until) = until.filter(|until| commit >= *until) {
                    self.taken = until;
                    self.release(false, Some(line))?;
                    return Ok(Flow::There);
                }
                self.open = Some(Transaction {
                    commit,
                    xid,
                    ms: micros.saturating_add(POSTGRES_EPOCH) / 1000,
                    changes: 0,
                });
            }
            Message::Commit { end, .. } => {
                let done = self.open.take();
                self.newest_ms = done.map(|transaction| transaction.ms).or(self.newest_ms);
                self.taken = self.taken.max(end);
                let commit = done.map(|transaction| transaction.commit);
                if self.begun.is_some_and(|(begun, _)| Some(begun) != commit) {
                    return Ok(Flow::On); // one without changes, before the one that is told again
                }
                self.begun = None;
                let waits = self.arrived.is_some() || self.held.is_some();
                let full = self.members.iter().any(|member| member.batch.is_full());
                if waits && (full || self.held.is_some() || !line.client.has_more()) {
                    self.release(false, Some(line))?;
                }
            }
            Message::Relation(relation) => self.observe_relation(&relation)?,
            Message::Insert { relation, new } => self.change(relation, &Change::Insert(new), line)?,
            Message::Update { relation, old, new } => self.change(relation, &Change::Update(old, new), line)?,
            Message::Delete { relation, old } => self.change(relation, &Change::Delete(old), line)?,
            Message::Truncate { relations } => self.truncate(&relations, line)?,
            Message::Other => {}
        }
        Ok(Flow::On)
    }

    fn observe_relation(&mut self, relation: &output::Relation<'_>) -> Result<(), Trouble> {
        let unknown =
            |kind: u32| kind >= 16_384 && !self.types.0.contains_key(&kind) && !self.asked_types.contains(&kind);
        let kinds: Vec<u32> = relation
            .columns
            .iter()
            .map(|column| column.kind)
            .filter(|kind| unknown(*kind))
            .collect();
        let name = format!("{}.{}", relation.schema, relation.table);
        let reads = |member: &Member| member.tables.iter().any(|(oid, _)| *oid == relation.oid);
        let anew = |member: &Member| {
            member
                .tables
                .iter()
                .any(|(oid, own)| *oid != relation.oid && *own == name)
        };
        let ours = self.members.iter().any(reads);
        if !ours && let Some(member) = self.members.iter().find(|member| anew(member)) {
            // Unless it was only renamed, and the old one is about to come under its new name.
            let feed = member.hand.name();
            let message = format!("table {name} of feed {feed} was made anew, or another one has its name now");
            let help = "give the feed another `slot` to begin with its tables' rows again, or give the old table its name back";
            self.judge([Misfit {
                message,
                help: help.into(),
                refuses: true,
            }])?;
        }
        if ours && !kinds.is_empty() {
            self.asked_types.extend(kinds);
            let hand = self.first().clone();
            let mut tick = || hand.check();
            self.types = catalog::types(self.beside(&mut tick)?, &mut tick)?;
        }
        let table = Table::new(&self.database, relation, &self.types);
        let mut known = self.members.iter().flat_map(|member| &member.tables);
        let is_renamed = ours && !known.any(|(oid, called)| (*oid, called) == (relation.oid, &name));
        if is_renamed && self.renamed.insert(relation.oid) {
            let text =
                format!("a table is called {name} now: `tables` must name it so before the next start or connection");
            tracing::warn!(feed = self.first().name(), "{text}");
            self.members
                .iter()
                .for_each(|member| member.hand.gauges.set_error(text.clone()));
        }
        let members = self.members.iter().enumerate().filter(|(_, member)| reads(member));
        let readers = members.map(|(m, member)| {
            let (input, feed) = (member.hand.input(), member.hand.feed);
            let lacking = unidentified(input, feed, &|column| table.has(column).then(|| table.identifies(column)));
            let reason = lacking.map(|column| {
                format!(
                    "updates and deletes of table {name} do not tell column {column:?}, which the key of input {} takes, so this \
                     change cannot be applied; ALTER TABLE {name} REPLICA IDENTITY FULL, and repair the row",
                    input.name
                )
            });
            let taken = taken_by_key(input, feed, &|column| table.has(column));
            let is_taken = |(_, column): &(usize, &output::Column<'_>)| taken.contains(&column.name);
            let columns = relation.columns.iter().enumerate().filter(is_taken);
            Reading {
                member: m,
                lacking: reason,
                key: columns.map(|(at, _)| at).collect(),
                by_row: input.key.is_empty() && input.dedup_key.is_empty(),
            }
        });
        let readers = readers.collect();
        self.routes.insert(relation.oid, Route { table, readers });
        Ok(())
    }

    /// The second connection.
    fn beside(&mut self, tick: Tick<'_>) -> Result<&mut Client, Trouble> {
        if self.beside.is_none() {
            let mut client = Client::connect(&self.url, tick)?;
            // The stream waits meanwhile, also where others hold a lock on what is asked for.
            client.query("SET statement_timeout = '2s'", tick)?;
            self.beside = Some(client);
        }
        Ok(self.beside.as_mut().expect("it was made if there was none"))
    }

    fn change(&mut self, relation: u32, change: &Change<'_>, line: &mut Line) -> Result<(), Trouble> {
        let Some(route) = self.routes.remove(&relation) else {
            return Err(Trouble::Wrong(format!(
                "a change is of relation {relation}, which was not told of"
            )));
        };
        let mut result = Ok(());
        for reads in &route.readers {
            let refused = match &reads.lacking {
                Some(lacking) if !matches!(change, Change::Insert(_)) => Some(lacking.as_str()),
                _ if moves(change, &reads.key) => Some(MOVES),
                _ if reads.by_row && matches!(change, Change::Delete(Old::Key(_))) => Some(NO_ROW),
                _ => None,
            };
            result = self.put(reads.member, &route.table, change, refused, line);
            if result.is_err() {
                break;
            }
        }
        self.routes.insert(relation, route);
        result
    }

    /// A TRUNCATE empties an input: of a feed of several tables it must be of all of them.
    fn truncate(&mut self, relations: &[u32], line: &mut Line) -> Result<(), Trouble> {
        for m in 0..self.members.len() {
            let of = |oid: &u32| self.members[m].tables.iter().any(|(own, _)| own == oid);
            let ours: Vec<u32> = relations.iter().copied().filter(of).collect();
            let Some(first) = ours.first() else { continue };
            let feeds = self.members[m].hand.input().feeds.len();
            let refused = (ours.len() < self.members[m].tables.len() || feeds > 1).then_some(TRUNCATES_OTHERS);
            let Some(route) = self.routes.remove(first) else {
                return Err(Trouble::Wrong(format!(
                    "relation {first} is emptied, which was not told of"
                )));
            };
            let result = self.put(m, &route.table, &Change::Truncate, refused, line);
            self.routes.insert(*first, route);
            result?;
        }
        Ok(())
    }

    /// A change goes into a feed's batch.
    fn put(
        &mut self,
        m: usize,
        table: &Table,
        change: &Change<'_>,
        refused: Option<&str>,
        line: &mut Line,
    ) -> Result<(), Trouble> {
        let Some(transaction) = &mut self.open else {
            return Err(Trouble::Wrong("a change is of no transaction".into()));
        };
        transaction.changes += 1;
        let transaction = *transaction;
        // By (6): these are handed on already.
        if self
            .begun
            .is_some_and(|(commit, changes)| commit == transaction.commit && transaction.changes <= changes)
        {
            return Ok(());
        }
        let origin = Origin {
            lsn: transaction.commit,
            transaction: Some((transaction.xid, transaction.ms, transaction.changes)),
        };
        self.record.clear();
        table.write(change, origin, refused, &mut self.record);
        if self.arrived.is_none() {
            self.arrived = Some(line.client.heard());
            self.at_end_is(false);
        }
        let member = &mut self.members[m];
        member.push(&self.record, Some(transaction.ms));
        match member.batch.is_full() {
            true => self.release(true, Some(line)),
            false => Ok(()),
        }
    }

    /// Of what is read beyond the first end.
    pub(super) fn at_end_is(&self, at_end: bool) {
        if self.at_end {
            self.members
                .iter()
                .for_each(|member| member.hand.gauges.set_exhausted(at_end));
        }
    }

    /// Tells how far the feeds lag, now and then.
    fn observe_lag(&mut self) -> Result<(), Trouble> {
        if self.asked_lag.elapsed() < LAG {
            return Ok(());
        }
        self.asked_lag = Instant::now();
        let hand = self.first().clone();
        let mut tick = || hand.check();
        let publications = self.publications();
        let tables: Vec<(u32, String)> = self.members.iter().flat_map(|member| member.tables.clone()).collect();
        let oids: Vec<u32> = tables.iter().map(|(oid, _)| *oid).collect();
        let asked = self.beside(&mut tick).and_then(|client| {
            let published = catalog::published(client, &publications, &oids, &mut tick)?;
            Ok((catalog::end(client, &mut tick)?, published))
        });
        let (end, published) = match asked {
            Ok(asked) => asked,
            Err(Trouble::Ended(ended)) => return Err(Trouble::Ended(ended)),
            Err(trouble) => {
                // The stream will tell if it matters.
                tracing::debug!(feed = hand.name(), %trouble, "the lag is not known");
                self.beside = None;
                return Ok(());
            }
        };
        if let Some((_, name)) = tables.iter().find(|(oid, _)| !published.contains(oid)) {
            let reason = format!("table {name} was dropped, or taken out of its publication");
            return Err(Trouble::Ended(self.lost(&reason).into()));
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
            member.hand.gauges.set_lag(0, bytes);
            let lag = PartitionLag {
                partition: member.partition.to_string(),
                next: member.next,
                records: 0,
                age_ms: age,
            };
            member.hand.gauges.set_partitions(0, vec![lag]);
        }
        Ok(())
    }
}

/// Whether an update moves a row to another key of an input, whose long values it does not tell: they would be filled from
/// the current row of the new key. `key`: where the columns of the input's key are.
fn moves(change: &Change<'_>, key: &[usize]) -> bool {
    let Change::Update(Some(Old::Key(old)), new) = change else {
        return false;
    };
    let differs = |at: &usize| old.values().nth(*at) != new.values().nth(*at);
    new.values().any(|value| value == Value::Unchanged) && key.iter().any(differs)
}
