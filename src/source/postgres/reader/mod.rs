//! The thread that reads a slot: connects, reads first rows where there are some to read, and takes the stream.

mod first;
mod release;
mod setup;
mod stream;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::Known;
use super::catalog::{self, Misfit};
use super::client::{Client, quoted};
use super::envelope::Table;
use super::lsn::{Lsn, Reached};
use super::trouble::Trouble;
use super::types::Types;
use crate::definition::{Postgres, PostgresUrl};
use crate::repr::Epoch;
use crate::source::batch::{BatchBuilder, Record};
use crate::source::fault::FeedFault;
use crate::source::outlet::{Ended, Hand};
use crate::source::readers::ReaderOptions;
use crate::source::transactions::Given;
use crate::source::{Decode, SourceError};

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
    /// Tables that were read, and are not named any more, likewise.
    left: Vec<(u32, String)>,
    /// What it was read before does not reach to where it begins: its input is emptied first.
    again: bool,
    fault: FeedFault,
}

impl Member {
    /// What will read a feed.
    pub fn new(hand: Hand, postgres: Postgres, decode: Decode, known: Known) -> Member {
        let Known {
            next,
            reached: known,
            otherwise,
        } = known;
        Member {
            publication: postgres.publication(&hand.dataflow.name),
            partition: postgres.slot(&hand.dataflow.name).into(),
            batch: BatchBuilder::new(hand.limits),
            next,
            given: next,
            again: otherwise && known.is_none(),
            known,
            tables: Vec::new(),
            left: Vec::new(),
            fault: FeedFault::default(),
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

/// A table of the stream, and who reads it.
struct Route {
    table: Table,
    readers: Vec<Reading>,
}

/// How a feed reads a table.
struct Reading {
    /// Index into [`Reader::members`].
    member: usize,
    /// What updates and deletes lack of its input's key.
    lacking: Option<String>,
    /// Where the table has the columns that the key takes.
    key: Vec<usize>,
    /// Rows of its input are found by all they hold.
    by_row: bool,
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

/// What a session broke off by.
enum Judged {
    /// Perhaps for a moment.
    Passes(Trouble),
    /// Until somebody mends it, perhaps.
    Waits(SourceError),
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
    /// What the newest epoch was given.
    given: Given,
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
    /// What was told of already.
    told_misfits: HashSet<String>,
    record: Vec<u8>,
}

impl Reader {
    /// The feeds of a slot are not empty.
    pub fn new(
        url: PostgresUrl,
        slot: String,
        mut members: Vec<Member>,
        committed: Arc<AtomicU64>,
        options: ReaderOptions,
    ) -> Reader {
        let known = members.iter().filter_map(|member| Some(member.known.as_ref()?.lsn));
        let reached = known.max();
        // By (2) of the module they do not differ: one that does was not read for a while.
        for member in &mut members {
            if member.known.as_ref().is_some_and(|known| Some(known.lsn) != reached) {
                (member.known, member.again) = (None, true);
            }
        }
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
            given: Given::default(),
            target: Lsn::default(),
            at_end: false,
            arrived: None,
            told_progress: Instant::now(),
            beside: None,
            asked_lag: Instant::now(),
            newest_ms: None,
            renamed: HashSet::new(),
            told_misfits: HashSet::new(),
            record: Vec::new(),
        }
    }

    fn first(&self) -> &Hand {
        &self.members[0].hand
    }

    /// Reads until readers are to stop. What keeps its feeds from being read makes them wait, unless an epoch is held for
    /// them: nobody's records would be committed meanwhile.
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
            if well {
                (pause, attempts) = (self.options.back_off, 0);
            }
            attempts += 1;
            // One that has answered is waited for as long as it takes.
            answered |= well || matches!(trouble, Trouble::Server(_));
            let is_away = attempts > self.options.retries && (!answered || self.held.is_some());
            let judged = self.judge_trouble(trouble, is_away)?;
            self.rewind();
            match judged {
                Judged::Waits(fault) => self.observe_fault(&fault.to_string()),
                Judged::Passes(trouble) => {
                    let text = format!(
                        "{} does not answer as it should: {trouble}; it is tried again",
                        self.url
                    );
                    tracing::warn!(feed = self.first().name(), "{text}");
                    self.members
                        .iter()
                        .for_each(|member| member.hand.gauges.set_error(text.clone()));
                }
            }
            if self.members.iter().all(|member| member.fault.lasts()) {
                self.members
                    .iter()
                    .for_each(|member| member.hand.gauges.set_exhausted(true));
                if self.options.stop_at_end {
                    return Ok(());
                }
            }
            match self.first().sleep(pause) {
                Err(Ended::Stopped) if self.held.is_some() => return Err(self.cut()),
                slept => slept?,
            }
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// What is to be done about a session that broke off. The error: what ends the run, or that readers are to stop.
    fn judge_trouble(&mut self, trouble: Trouble, is_away: bool) -> Result<Judged, Ended> {
        let is_held = self.held.is_some();
        let fault = match trouble {
            Trouble::Ended(Ended::Failed(error)) => match error {
                SourceError::PostgresMisfit { .. } | SourceError::PostgresLost { .. } if !is_held => error,
                error => return Err(error.into()),
            },
            trouble if self.first_rows && is_held => {
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
            // By (6) of the module.
            Trouble::Ended(_) if is_held => return Err(self.cut()),
            Trouble::Ended(ended) => return Err(ended),
            trouble if !trouble.passes() => self.refused(&trouble),
            trouble if is_away => SourceError::PostgresAway {
                url: self.url.to_string(),
                reason: trouble.to_string(),
            },
            trouble => return Ok(Judged::Passes(trouble)),
        };
        match is_held {
            true => Err(fault.into()),
            false => Ok(Judged::Waits(fault)),
        }
    }

    fn cut(&self) -> Ended {
        let topic = format!("slot {:?}", self.slot);
        SourceError::TransactionCut { topic }.into()
    }

    /// Takes in what keeps the feeds of the slot from being read.
    fn observe_fault(&mut self, cause: &str) {
        for member in &mut self.members {
            member.fault.observe_lasting(&member.hand, cause.to_string());
        }
    }

    /// The slot is read.
    fn observe_well(&mut self) {
        if self.members.iter().any(|member| member.fault.is_there()) {
            let at_end = self.at_end;
            self.members
                .iter()
                .for_each(|member| member.hand.gauges.set_exhausted(at_end));
        }
        for member in &mut self.members {
            member.fault.observe(&member.hand, &self.options, None);
        }
    }

    /// Why it is of no use to try again as things are.
    fn refused(&self, trouble: &Trouble) -> SourceError {
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
                url: self.url.to_string(),
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
            url: self.url.to_string(),
            reason: misfit.message,
            help: misfit.help,
        }
    }

    fn lost(&self, reason: &str) -> SourceError {
        SourceError::PostgresLost {
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
        self.tell_waiting();
        let mut view = Client::connect(&self.url, &mut tick)?;
        let at = first::view_of(&mut view, &self.slot, &mut tick)?;
        self.members.iter().for_each(|member| member.hand.gauges.clear_error());
        self.lock_rows(&mut view, &new, &catalog, &mut tick)?;
        if self.members.iter().any(|member| !member.tables.is_empty()) {
            self.stream(client, Some(at), well)?;
        } else {
            drop(client);
        }
        *well = true;
        self.observe_well();
        self.first_rows(view, at, new, &catalog)?;
        let mut client = Client::connect(&self.url, &mut tick)?;
        self.target = catalog::end(&mut client, &mut tick)?;
        self.stream(client, None, well)
    }
}
