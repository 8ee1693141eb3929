//! The thread that reads a slot: connects, reads first rows where there are some to read, and takes the stream.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crossbeam_channel::SendTimeoutError;
use hashbrown::HashMap;

use super::EPOCH_ROWS;
use super::catalog::{self, Catalog, Misfit, Wanted, unidentified};
use super::client::{Client, POSTGRES_EPOCH, Streamed, TICK, Tick, Trouble, quoted};
use super::envelope::{Change, Origin, Table};
use super::lsn::{Lsn, Reached};
use super::output::{self, Message};
use super::types::Types;
use crate::definition::{FirstRows, Postgres, PostgresUrl};
use crate::repr::Epoch;
use crate::source::batch::{BatchBuilder, Record, nothing, payload_bytes};
use crate::source::outlet::{Ended, Hand};
use crate::source::readers::ReaderOptions;
use crate::source::transactions::OpenEpoch;
use crate::source::{Decode, Delivery, PartitionLag, Position, SourceError};

/// How often the server hears of us, at least.
const SIGN: Duration = Duration::from_secs(10);
/// How often it hears what it may forget, and is asked how far it has come, at most.
const CONFIRM: Duration = Duration::from_secs(1);
/// How long a server may say nothing, though it was asked.
const SILENCE: Duration = Duration::from_secs(60);
/// How much log that changes nothing here is passed before it is told, so that the server can forget it.
const PASSED: u64 = 16 << 20;
/// The same by time.
const PASSED_TIME: Duration = Duration::from_secs(60);
/// How often it is asked where the server's log ends.
const LAG: Duration = Duration::from_secs(5);
/// Between two looks whether workers take what feeds bring, and whether the next epoch is open.
const LIVE: Duration = Duration::from_millis(20);
const ROOM: Duration = Duration::from_millis(1);
/// The longest pause between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(10);

/// A feed of the slot.
pub struct Member {
    hand: Hand,
    postgres: Postgres,
    publication: String,
    decode: Decode,
    partition: Arc<str>,
    batch: BatchBuilder,
    /// The next record's number; and that of the first that was not handed on.
    next: u64,
    given: u64,
    /// What the newest snapshot says.
    known: Option<Reached>,
    /// Tables that are read: what identifies each, and its name.
    tables: Vec<(u32, String)>,
}

impl Member {
    /// `known`: its position in the newest snapshot.
    pub fn new(hand: Hand, postgres: Postgres, decode: Decode, known: Option<Position>) -> Member {
        let next = known.as_ref().map_or(0, |position| position.next);
        Member {
            publication: postgres.publication(&hand.dataflow.name),
            partition: postgres.slot(&hand.dataflow.name).into(),
            batch: BatchBuilder::new(hand.limits),
            next,
            given: next,
            known: known.as_ref().and_then(Reached::of),
            tables: Vec::new(),
            hand,
            postgres,
            decode,
        }
    }

    fn push(&mut self, value: &[u8], ms: Option<i64>) {
        self.batch.push(Record {
            offset: self.next,
            value: Some(value),
            ts_ms: ms,
            ..Record::default()
        });
        self.next += 1;
    }
}

/// A table of the stream, and whose it is.
struct Route {
    table: Table,
    /// Feeds that read it; and of each, what updates and deletes lack of its input's key.
    members: Vec<(usize, Option<String>)>,
}

/// A transaction that is being told.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    commit: Lsn,
    xid: u32,
    /// Unix milliseconds.
    ms: i64,
    /// Changes of ours so far.
    changes: u64,
}

/// A connection with a stream, and what the server was told.
struct Line {
    client: Client,
    committed: Arc<AtomicU64>,
    told: Lsn,
    at: Instant,
}

impl Line {
    /// Tells the server that we are here, if it is time to, by (7) of the module, and by (3) what it may forget. `asks`: it
    /// is to answer how far it has come.
    fn tend(&mut self, taken: Lsn, asks: bool) -> Result<(), Trouble> {
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

/// See the module's header.
pub struct Reader {
    url: PostgresUrl,
    slot: String,
    members: Vec<Member>,
    committed: Arc<AtomicU64>,
    options: ReaderOptions,
    system: String,
    database: String,
    types: Types,
    /// Types that were asked for and are of no use here.
    asked_types: HashSet<u32>,
    routes: HashMap<u32, Route>,
    /// Transactions that commit before it are handed on; none: not one, nor first rows.
    reached: Option<Lsn>,
    /// The same, and those that wait in batches.
    taken: Lsn,
    /// By (6), the transaction that goes on as it comes, and how many changes of it are handed on.
    begun: Option<(Lsn, u64)>,
    /// The transaction that is being told.
    open: Option<Transaction>,
    /// Its epoch, or that of first rows.
    held: Option<Epoch>,
    /// First rows are being handed on.
    first_rows: bool,
    /// The epoch that was given something last, and how many records.
    given: (Epoch, u64),
    /// What there was to read as the connection was made; once it is reached, all is read.
    target: Lsn,
    at_end: bool,
    /// When the oldest record arrived that waits in a batch.
    arrived: Option<Instant>,
    told_progress: Instant,
    /// A second connection, for questions beside the stream.
    beside: Option<Client>,
    asked_lag: Instant,
    /// The newest transaction's commit, Unix milliseconds.
    newest_ms: Option<i64>,
    renamed: HashSet<u32>,
    record: Vec<u8>,
}

/// Whether reading a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    /// It has come to where it should.
    There,
}

impl Reader {
    /// The feeds of a slot are not empty.
    pub fn new(
        url: PostgresUrl,
        slot: String,
        members: Vec<Member>,
        committed: Arc<AtomicU64>,
        options: ReaderOptions,
    ) -> Reader {
        // By (2) of the module they do not differ; a feed that is new knows nothing.
        let reached = members
            .iter()
            .filter_map(|member| Some(member.known.as_ref()?.lsn))
            .max();
        committed.store(reached.unwrap_or_default().0, Ordering::Release);
        Reader {
            url,
            slot,
            members,
            committed,
            options,
            system: String::new(),
            database: String::new(),
            types: Types::default(),
            asked_types: HashSet::new(),
            routes: HashMap::new(),
            reached,
            taken: reached.unwrap_or_default(),
            begun: None,
            open: None,
            held: None,
            first_rows: false,
            given: (0, 0),
            target: Lsn::default(),
            at_end: false,
            arrived: None,
            told_progress: Instant::now(),
            beside: None,
            asked_lag: Instant::now(),
            newest_ms: None,
            renamed: HashSet::new(),
            record: Vec::new(),
        }
    }

    fn first(&self) -> &Hand {
        &self.members[0].hand
    }

    /// Reads until readers are to stop.
    pub fn read(mut self) -> Result<(), Ended> {
        let mut pause = self.options.back_off;
        let (mut attempts, mut answered) = (0, false);
        loop {
            let mut well = false;
            let trouble = match self.session(&mut well) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            self.beside = None;
            if let Trouble::Ended(Ended::Failed(error)) = trouble {
                return Err(error.into());
            }
            if self.first_rows && self.held.is_some() {
                let reason = match trouble {
                    Trouble::Ended(_) => "the run was to end".to_string(),
                    trouble => trouble.to_string(),
                };
                return Err(SourceError::PostgresFirstRows {
                    feed: self.first().name(),
                    reason,
                }
                .into());
            }
            if let Trouble::Ended(ended) = trouble {
                return Err(match self.held {
                    // By (6) of the module.
                    Some(_) => SourceError::TransactionCut {
                        topic: format!("slot {:?}", self.slot),
                    }
                    .into(),
                    None => ended,
                });
            }
            self.rewind();
            if !trouble.passes() {
                return Err(self.refused(&trouble).into());
            }
            answered |= well;
            if well {
                (pause, attempts) = (self.options.back_off, 0);
            }
            attempts += 1;
            if !answered && attempts > self.options.retries {
                return Err(SourceError::PostgresAway {
                    feed: self.first().name(),
                    url: self.url.to_string(),
                    attempts,
                    reason: trouble.to_string(),
                }
                .into());
            }
            let text = format!(
                "{} does not answer as it should: {trouble}; it is tried again",
                self.url
            );
            tracing::warn!(feed = self.first().name(), "{text}");
            self.members
                .iter()
                .for_each(|member| member.hand.gauges.set_error(text.clone()));
            match self.first().sleep(pause) {
                Err(Ended::Stopped) if self.held.is_some() => {
                    let topic = format!("slot {:?}", self.slot);
                    return Err(SourceError::TransactionCut { topic }.into());
                }
                slept => slept?,
            }
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// Why it is of no use to try again.
    fn refused(&self, trouble: &Trouble) -> SourceError {
        let feed = self.first().name();
        match trouble {
            // The slot was invalidated, or is gone.
            Trouble::Server(refusal)
                if matches!(refusal.code.as_str(), "55000" | "42704") && self.reached.is_some() =>
            {
                self.lost(&refusal.to_string())
            }
            Trouble::Server(refusal) if refusal.code == "42501" => self.misfit(Misfit {
                message: refusal.to_string(),
                help: format!("as a superuser: ALTER ROLE {} REPLICATION", quoted(&self.url.user)),
                refuses: true,
            }),
            Trouble::Wrong(reason) if self.open.is_some() => SourceError::PostgresStream {
                feed,
                reason: reason.clone(),
            },
            trouble => self.misfit(Misfit {
                message: trouble.to_string(),
                help: "correct that at the server, or in the feed's settings".into(),
                refuses: true,
            }),
        }
    }

    fn misfit(&self, misfit: Misfit) -> SourceError {
        SourceError::PostgresMisfit {
            feed: self.first().name(),
            url: self.url.to_string(),
            reason: misfit.message,
            help: misfit.help,
        }
    }

    fn lost(&self, reason: &str) -> SourceError {
        SourceError::PostgresLost {
            feed: self.first().name(),
            slot: self.slot.clone(),
            reached: self.reached.unwrap_or_default().to_string(),
            reason: reason.to_string(),
        }
    }

    /// Forgets what was read and not handed on: it is told again.
    fn rewind(&mut self) {
        for member in &mut self.members {
            drop(member.batch.take(None));
            member.next = member.given;
        }
        self.taken = self.reached.unwrap_or_default();
        (self.open, self.arrived, self.first_rows) = (None, None, false);
    }

    /// A connection, from its beginning to its end. `well` is set once the stream runs.
    fn session(&mut self, well: &mut bool) -> Result<(), Trouble> {
        let hand = self.first().clone();
        let mut tick = || hand.check();
        let mut client = Client::connect(&self.url, &mut tick)?;
        let catalog = self.prepare(&mut client, &mut tick)?;
        self.types = catalog::types(&mut client, &mut tick)?;
        let new = self.new_tables(&catalog);
        if new.is_empty() {
            return self.stream(client, None, well);
        }
        let mut view = Client::connect(&self.url, &mut tick)?;
        let at = view_of(&mut view, &self.slot, &mut tick)?;
        if self.reached.is_some() {
            self.stream(client, Some(at), well)?;
        } else {
            drop(client);
        }
        *well = true;
        self.first_rows(view, at, new, &catalog)?;
        let mut client = Client::connect(&self.url, &mut tick)?;
        self.target = catalog::end(&mut client, &mut tick)?;
        self.stream(client, None, well)
    }

    /// Makes publications and the slot where they are absent, and looks whether all fits.
    fn prepare(&mut self, client: &mut Client, tick: Tick<'_>) -> Result<Catalog, Trouble> {
        let known: Vec<u32> = self
            .members
            .iter()
            .flat_map(|member| {
                member
                    .known
                    .iter()
                    .flat_map(|known| &known.tables)
                    .chain(&member.tables)
            })
            .map(|(oid, _)| *oid)
            .collect();
        let mut publications: Vec<String> = self.members.iter().map(|member| member.publication.clone()).collect();
        publications.sort();
        publications.dedup();
        let wanted = Wanted {
            slot: self.slot.clone(),
            publications,
            tables: self
                .members
                .iter()
                .flat_map(|member| member.postgres.tables.clone())
                .collect(),
            oids: known,
        };
        let failed = |error: SourceError| Trouble::Ended(error.into());
        let mut catalog = catalog::survey(client, &wanted, tick)?;
        let mut misfits = catalog.misfits(&self.url, &wanted);
        for member in &self.members {
            misfits.extend(catalog.misfits_of_feed(member.hand.input(), member.hand.feed, &member.postgres));
        }
        // A table that has another name now says so itself.
        self.resolve(&catalog)?;
        self.judge(misfits)?;
        let mut made = false;
        for publication in &wanted.publications {
            let tables = self.tables_of(publication);
            self.judge(
                catalog
                    .misfits_of_publication(publication, &tables)
                    .into_iter()
                    .filter(|misfit| {
                        // What is only missing is added below.
                        !catalog.publications.contains_key(publication) || !misfit.refuses
                    }),
            )?;
            made |= self.publish(client, &catalog, publication, &tables, tick)?;
        }
        if catalog.slot.is_none() && self.reached.is_none() {
            let sql = format!(
                "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT",
                quoted(&self.slot)
            );
            client.query(&sql, tick)?;
            tracing::info!(feed = self.first().name(), slot = self.slot, "slot made");
            made = true;
        }
        if made {
            catalog = catalog::survey(client, &wanted, tick)?;
        }
        if let Some(reached) = self.reached {
            let systems = self.members.iter().filter_map(|member| member.known.as_ref());
            let other = systems
                .map(|known| &known.system)
                .find(|system| **system != catalog.system);
            let lost = match &catalog.slot {
                _ if other.is_some() => Some("the server is another one, by its system identifier".to_string()),
                None => Some("it does not exist".to_string()),
                Some(slot) if slot.lost.is_some() => Some(format!(
                    "the server gave it up: {}",
                    slot.lost.as_deref().unwrap_or_default()
                )),
                Some(slot) if slot.confirmed.is_some_and(|confirmed| confirmed > reached) => {
                    let confirmed = slot.confirmed.unwrap_or_default();
                    Some(format!("it was moved to {confirmed} by another program"))
                }
                Some(_) if catalog.end < reached => {
                    Some(format!("the server's log ends at {}, so it was set back", catalog.end))
                }
                Some(_) => None,
            };
            if let Some(reason) = lost {
                return Err(failed(self.lost(&reason)));
            }
        }
        self.system = catalog.system.clone();
        self.database = catalog.database.clone();
        self.target = catalog.end;
        Ok(catalog)
    }

    /// Fails for what refuses a feed, and tells of the rest.
    fn judge(&self, misfits: impl IntoIterator<Item = Misfit>) -> Result<(), Trouble> {
        for misfit in misfits {
            if misfit.refuses {
                return Err(Trouble::Ended(self.misfit(misfit).into()));
            }
            tracing::warn!(feed = self.first().name(), "{}; {}", misfit.message, misfit.help);
        }
        Ok(())
    }

    /// The tables that feeds want of a publication.
    fn tables_of(&self, publication: &str) -> Vec<String> {
        let members = self.members.iter().filter(|member| member.publication == publication);
        let mut tables: Vec<String> = members.flat_map(|member| member.postgres.tables.clone()).collect();
        tables.sort();
        tables.dedup();
        tables
    }

    /// Makes a publication, or adds to it what it lacks. Says whether anything was done.
    fn publish(
        &self,
        client: &mut Client,
        catalog: &Catalog,
        publication: &str,
        tables: &[String],
        tick: Tick<'_>,
    ) -> Result<bool, Trouble> {
        let of = |names: &mut dyn Iterator<Item = &String>| -> Vec<String> {
            names
                .filter_map(|name| catalog.table(name))
                .map(catalog::Table::quoted)
                .collect()
        };
        let exists = catalog.publications.contains_key(publication);
        let sql = match exists {
            false => catalog::create_publication(publication, &of(&mut tables.iter())),
            true => {
                let lacks = |name: &&String| catalog.table(name).is_some_and(|table| table.published.is_none());
                let lacking: Vec<&String> = tables.iter().filter(lacks).collect();
                if lacking.is_empty() {
                    return Ok(false);
                }
                // What was read and is no longer published has changes that nobody was told of.
                let read = |member: &Member, name: &str| member.tables.iter().any(|(_, own)| own == name);
                let lost = lacking
                    .iter()
                    .find(|name| self.members.iter().any(|member| read(member, name)));
                if let Some(name) = lost {
                    let reason = format!("table {name} was taken out of publication {publication:?}");
                    return Err(Trouble::Ended(self.lost(&reason).into()));
                }
                let lacking = of(&mut lacking.into_iter());
                format!(
                    "ALTER PUBLICATION {} ADD TABLE {}",
                    quoted(publication),
                    lacking.join(", ")
                )
            }
        };
        match client.query(&sql, tick) {
            Ok(_) => {
                tracing::info!(feed = self.first().name(), publication, "{sql}");
                Ok(true)
            }
            // Another run of ours was quicker.
            Err(trouble) if trouble.is("42710") => Ok(true),
            Err(Trouble::Server(refusal)) => Err(Trouble::Ended(
                self.misfit(Misfit {
                    message: format!("publication {publication:?} lacks tables and could not be made right: {refusal}"),
                    help: format!("as the tables' owner: {sql}"),
                    refuses: true,
                })
                .into(),
            )),
            Err(trouble) => Err(trouble),
        }
    }

    /// Which of their tables feeds have read already.
    fn resolve(&mut self, catalog: &Catalog) -> Result<(), Trouble> {
        let mut wrong = None;
        for member in &mut self.members {
            let known = member.known.take();
            if let Some(known) = &known {
                let names = &member.postgres.tables;
                for (oid, name) in &known.tables {
                    let now = catalog
                        .tables
                        .iter()
                        .find(|table| table.oid == *oid)
                        .map(catalog::Table::name);
                    let anew = catalog.table(name).is_some_and(|table| table.oid != *oid);
                    match now {
                        // Called as it is now.
                        Some(now) if names.contains(&now) => member.tables.push((*oid, now)),
                        Some(now) if names.contains(name) => {
                            wrong.get_or_insert((
                                format!("table {name} is called {now} now"),
                                format!("write that in `tables`, or give {now} its name back"),
                            ));
                        }
                        None if names.contains(name) && anew => {
                            wrong.get_or_insert((
                                format!("table {name} was dropped and made anew since the newest snapshot"),
                                "give the feed another name to begin with the table's rows again".to_string(),
                            ));
                        }
                        _ => {}
                    }
                }
            }
            member.known = known;
            member.tables.sort();
            member.tables.dedup();
        }
        match wrong {
            None => Ok(()),
            Some((message, help)) => self.judge([Misfit {
                message,
                help,
                refuses: true,
            }]),
        }
    }

    /// Tables that no feed has read yet, by feed.
    fn new_tables(&self, catalog: &Catalog) -> Vec<(usize, String)> {
        let mut new = Vec::new();
        for (m, member) in self.members.iter().enumerate() {
            for name in &member.postgres.tables {
                let oid = catalog.table(name).map(|table| table.oid);
                if !member.tables.iter().any(|(own, _)| Some(*own) == oid) {
                    new.push((m, name.clone()));
                }
            }
        }
        new
    }

    /// Reads first rows by a view of the database, which is as of `at`.
    fn first_rows(
        &mut self,
        mut view: Client,
        at: Lsn,
        new: Vec<(usize, String)>,
        catalog: &Catalog,
    ) -> Result<(), Trouble> {
        let hand = self.first().clone();
        let mut tick = || hand.check();
        self.first_rows = true;
        let mut record = Vec::new();
        let mut read = Vec::new();
        for (m, name) in &new {
            let table = catalog.table(name).expect("new tables are of the catalog");
            let rows_before = self.members[*m].next;
            if self.members[*m].postgres.start == FirstRows::Snapshot {
                self.read_rows(&mut view, table, *m, at, &mut record, &mut tick)?;
            }
            let rows = self.members[*m].next - rows_before;
            tracing::info!(feed = self.members[*m].hand.name(), table = name, rows, %at, "begins");
            read.push((*m, (table.oid, name.clone())));
        }
        drop(view);
        read.into_iter()
            .for_each(|(m, table)| self.members[m].tables.push(table));
        self.taken = at.max(self.taken);
        self.release(false, None)?;
        self.first_rows = false;
        Ok(())
    }

    fn read_rows(
        &mut self,
        view: &mut Client,
        table: &catalog::Table,
        m: usize,
        at: Lsn,
        record: &mut Vec<u8>,
        tick: Tick<'_>,
    ) -> Result<(), Trouble> {
        let Some(published) = &table.published else {
            return Err(Trouble::Wrong(format!("table {} is not published", table.name())));
        };
        let columns: Vec<String> = published.columns.iter().map(|column| quoted(column)).collect();
        // A table that others inherit from has its own rows alone; a partitioned one has none of its own.
        let only = if table.kind == "p" { "" } else { "ONLY " };
        let filter = published.filter.as_ref();
        let filter = filter.map_or(String::new(), |filter| format!(" WHERE {filter}"));
        let sql = format!("SELECT {} FROM {only}{}{filter}", columns.join(", "), table.quoted());
        let mut written: Option<Table> = None;
        view.query_each(&sql, tick, |columns, row| {
            let written = written.get_or_insert_with(|| {
                let columns = columns
                    .iter()
                    .map(|(name, oid)| (name.as_str(), self.types.kind(*oid), false));
                Table::of_columns(&self.database, (&table.schema, &table.table), columns)
            });
            let values = row
                .values()
                .ok_or_else(|| Trouble::Wrong("the server sent a row that is none".into()))?;
            record.clear();
            written.write_row(values.into_iter(), at, record);
            self.arrived.get_or_insert_with(Instant::now);
            self.members[m].push(record, None);
            match self.members[m].batch.is_full() {
                true => self.release(true, None),
                false => Ok(()),
            }
        })
    }

    /// Takes the stream, for ever or up to a place.
    fn stream(&mut self, mut client: Client, until: Option<Lsn>, well: &mut bool) -> Result<(), Trouble> {
        let hand = self.first().clone();
        let mut tick = || hand.check();
        let mut publications: Vec<String> = self.members.iter().map(|member| member.publication.clone()).collect();
        publications.sort();
        publications.dedup();
        self.routes.clear();
        let from = self.reached.unwrap_or_default();
        client.start_replication(&self.slot, from, &publications, &mut tick)?;
        *well = true;
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
                    let flow = self.observe_alive(end, until, &mut line)?;
                    if answer {
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
        match self.open {
            None if self.arrived.is_some() => self.release(false, Some(line)),
            _ => Ok(()),
        }
    }

    /// The server has told everything before `end`.
    fn observe_alive(&mut self, end: Lsn, until: Option<Lsn>, line: &mut Line) -> Result<Flow, Trouble> {
        if self.open.is_some() {
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
        let tells = passed >= PASSED || (passed > 0 && self.told_progress.elapsed() >= PASSED_TIME);
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
            let help =
                "give the feed another name to begin with the table's rows again, or give the old table its name back";
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
        if ours
            && !self
                .members
                .iter()
                .any(|m| m.tables.iter().any(|t| *t == (relation.oid, name.clone())))
        {
            if self.renamed.insert(relation.oid) {
                let text = format!("a table is called {name} now; it is read on, and `tables` should name it so");
                tracing::warn!(feed = self.first().name(), "{text}");
                self.members
                    .iter()
                    .for_each(|member| member.hand.gauges.set_error(text.clone()));
            }
        }
        let members = self.members.iter().enumerate().filter(|(_, member)| reads(member));
        let members = members.map(|(m, member)| {
            let (input, feed) = (member.hand.input(), member.hand.feed);
            let lacking = unidentified(input, feed, &|column| table.has(column).then(|| table.identifies(column)));
            let reason = lacking.map(|column| {
                format!(
                    "updates and deletes of table {name} do not tell column {column:?}, which the key of input {} takes, so this \
                     change cannot be applied; ALTER TABLE {name} REPLICA IDENTITY FULL, and repair the row",
                    input.name
                )
            });
            (m, reason)
        });
        let members = members.collect();
        self.routes.insert(relation.oid, Route { table, members });
        Ok(())
    }

    /// The second connection.
    fn beside(&mut self, tick: Tick<'_>) -> Result<&mut Client, Trouble> {
        if self.beside.is_none() {
            self.beside = Some(Client::connect(&self.url, tick)?);
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
        for (m, lacking) in &route.members {
            let refused = lacking.as_deref().filter(|_| !matches!(change, Change::Insert(_)));
            result = self.put(*m, &route.table, change, refused, line);
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
            let refused = (ours.len() < self.members[m].tables.len()).then(|| {
                let others = "TRUNCATE of one of several tables of a feed cannot be applied: it would empty the input; delete \
                              its rows instead, or give each table an input of its own";
                others.to_string()
            });
            let Some(route) = self.routes.remove(first) else {
                return Err(Trouble::Wrong(format!(
                    "relation {first} is emptied, which was not told of"
                )));
            };
            let result = self.put(m, &route.table, &Change::Truncate, refused.as_deref(), line);
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
    fn at_end_is(&self, at_end: bool) {
        if self.at_end {
            self.members
                .iter()
                .for_each(|member| member.hand.gauges.set_exhausted(at_end));
        }
    }

    /// Hands on what waits; with it goes progress for all feeds, unless more of the same transaction or of first rows
    /// follows.
    fn release(&mut self, continues: bool, line: Option<&mut Line>) -> Result<(), Trouble> {
        let arrived = self.arrived.take().unwrap_or_else(Instant::now);
        let mut deliveries = Vec::with_capacity(self.members.len());
        for member in &mut self.members {
            if continues && member.batch.is_empty() {
                continue;
            }
            // Within a transaction it counts for nothing: no snapshot is of an epoch that is open.
            let reached = Reached {
                lsn: self.taken,
                system: self.system.clone(),
                tables: member.tables.clone(),
            };
            let decoded = match member.batch.is_empty() {
                true => nothing(member.hand.input(), None),
                false => {
                    let raw = member.batch.take(None);
                    let gauges = &member.hand.gauges;
                    gauges.records.fetch_add(raw.len() as u64, Ordering::Relaxed);
                    gauges.bytes.fetch_add(payload_bytes(&raw), Ordering::Relaxed);
                    (member.decode)(raw).map_err(|waiting| Trouble::Wrong(waiting.to_string()))?
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
                    tag: Some(reached.to_string()),
                },
                arrived,
                epoch: None,
            });
        }
        self.hand_on(deliveries, continues, line)?;
        self.members.iter_mut().for_each(|member| member.given = member.next);
        match continues {
            true => self.begun = self.open.map(|transaction| (transaction.commit, transaction.changes)),
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
                let last = self.given;
                let roomy: OpenEpoch = {
                    let open = open.clone();
                    // By (7) of the module.
                    Arc::new(move || open().filter(|epoch| *epoch != last.0 || last.1 < EPOCH_ROWS))
                };
                loop {
                    match together.begin(deliveries.len() + held, &roomy) {
                        Some(epoch) => break epoch,
                        None if open().is_none() => wait(Some(LIVE), self.taken)?,
                        None => wait(Some(ROOM), self.taken)?,
                    }
                }
            }
        };
        if self.given.0 != epoch {
            self.given = (epoch, 0);
        }
        self.given.1 += records;
        let mut broken = None;
        for delivery in deliveries {
            let worker = self.worker_of(&delivery);
            let outlet = &self.first().outlets[worker];
            let mut delivery = Delivery {
                epoch: Some(epoch),
                ..delivery
            };
            // What has begun is handed over to its end, even if readers are to stop, or the connection breaks.
            loop {
                match outlet.sender.send_timeout(delivery, TICK) {
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
                broken = broken.or(wait(None, self.taken).err());
            }
            (outlet.wake)();
        }
        if continues {
            self.held = Some(epoch);
        } else if self.held.take().is_some() {
            together.end_one();
        }
        match broken {
            // Told once the state is as it was handed on.
            Some(Trouble::Ended(ended)) => Err(Trouble::Ended(ended)),
            _ => Ok(()),
        }
    }

    fn worker_of(&self, delivery: &Delivery) -> usize {
        let member = self
            .members
            .iter()
            .find(|m| (m.hand.input, m.hand.feed) == (delivery.input, delivery.feed));
        member.map_or(0, |member| member.hand.worker(&delivery.partition))
    }

    /// Tells how far the feeds lag, now and then.
    fn observe_lag(&mut self) -> Result<(), Trouble> {
        if self.asked_lag.elapsed() < LAG {
            return Ok(());
        }
        self.asked_lag = Instant::now();
        let hand = self.first().clone();
        let mut tick = || hand.check();
        let end = match self
            .beside(&mut tick)
            .and_then(|client| catalog::end(client, &mut tick))
        {
            Ok(end) => end,
            Err(Trouble::Ended(ended)) => return Err(Trouble::Ended(ended)),
            Err(trouble) => {
                // The stream will tell if it matters.
                tracing::debug!(feed = hand.name(), %trouble, "the lag is not known");
                self.beside = None;
                return Ok(());
            }
        };
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

/// Makes a view of the database on a connection of its own, by (4) of the module; answers the place that it is as of.
fn view_of(view: &mut Client, slot: &str, tick: Tick<'_>) -> Result<Lsn, Trouble> {
    let name: String = slot.chars().take(48).collect();
    let name = format!("{name}_{:08x}", rand::random::<u32>());
    view.query("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ", tick)?;
    let sql = format!(
        "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput USE_SNAPSHOT",
        quoted(&name)
    );
    let rows = view.query(&sql, tick)?;
    let at = rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok());
    at.ok_or_else(|| Trouble::Wrong("the server does not say what place the new slot is at".into()))
}
