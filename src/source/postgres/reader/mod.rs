//! The thread that reads a slot: it connects, copies tables that were not read yet, and reads the stream.

mod first;
mod release;
mod setup;
mod stream;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::KnownProgress;
use super::catalog::{self, CatalogMisfit};
use super::client::{PostgresClient, quoted};
use super::envelope::TableEnvelope;
use super::error::PostgresError;
use super::lsn::{Lsn, SlotPosition};
use super::types::Types;
use crate::backoff::Backoff;
use crate::definition::{Postgres, PostgresUrl};
use crate::repr::Epoch;
use crate::source::batch::{BatchBuilder, SourceRecord};
use crate::source::error::ReaderExit;
use crate::source::fault::FeedFault;
use crate::source::feed_handle::FeedHandle;
use crate::source::options::ReaderOptions;
use crate::source::transactions::EpochShare;
use crate::source::{Decode, SourceError};

/// The longest pause between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(10);

/// A feed that reads from the slot.
pub struct SlotMember {
    handle: FeedHandle,
    postgres: Postgres,
    publication: String,
    decode: Decode,
    partition: Arc<str>,
    batch: BatchBuilder,
    /// The number of the next record; `given` is that of the first record that was not handed over.
    next: u64,
    handed_over: u64,
    /// Its position in the newest snapshot.
    known: Option<SlotPosition>,
    /// The tables that are read, by OID and name.
    tables: Vec<(u32, String)>,
    /// Tables that were read and are no longer named, by OID and name.
    left: Vec<(u32, String)>,
    /// Whether it starts with the initial copy again, so that its input is truncated first.
    copies_again: bool,
    fault: FeedFault,
}

impl SlotMember {
    /// A feed that will be read.
    pub fn new(handle: FeedHandle, postgres: Postgres, decode: Decode, known: KnownProgress) -> SlotMember {
        let KnownProgress {
            next,
            reached: known,
            had_other_slot,
        } = known;
        SlotMember {
            publication: postgres.publication(&handle.dataflow.name),
            partition: postgres.slot(&handle.dataflow.name).into(),
            batch: BatchBuilder::new(handle.limits),
            next,
            handed_over: next,
            copies_again: had_other_slot && known.is_none(),
            known,
            tables: Vec::new(),
            left: Vec::new(),
            fault: FeedFault::default(),
            handle,
            postgres,
            decode,
        }
    }

    fn push(&mut self, value: &[u8], ms: Option<i64>) {
        self.batch.push(SourceRecord {
            offset: self.next,
            value: Some(value),
            ts_ms: ms,
            ..SourceRecord::default()
        });
        self.next += 1;
    }
}

/// A table of the stream, and the feeds that read it.
struct TableRoute {
    table: TableEnvelope,
    readers: Vec<FeedRoute>,
}

/// How a feed reads a table.
struct FeedRoute {
    /// Index into [`PostgresReader::members`].
    member: usize,
    /// A column of its input's key that updates and deletes lack.
    lacking: Option<String>,
    /// The indices of the table's columns from which the key is taken.
    key: Vec<usize>,
    /// Whether the input has no key, so that a row is found by all of its values.
    by_row: bool,
}

/// The transaction that the server is sending.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    commit: Lsn,
    xid: u32,
    /// Unix milliseconds.
    ms: i64,
    /// The number of its changes so far that concern our feeds.
    changes: u64,
}

/// How to react to a session that ended with an error.
enum SessionEnd {
    /// The error may pass: try again.
    Passes(PostgresError),
    /// The fault may last until somebody repairs it.
    Waits(SourceError),
}

/// See the module's header.
pub struct PostgresReader {
    url: PostgresUrl,
    slot: String,
    members: Vec<SlotMember>,
    committed: Arc<AtomicU64>,
    options: ReaderOptions,
    system: String,
    database: String,
    types: Types,
    /// Types that were looked up but turned out to be of no use here.
    asked_types: HashSet<u32>,
    routes: HashMap<u32, TableRoute>,
    /// Transactions that commit before this were handed over; none if nothing was, not even an initial copy.
    reached: Option<Lsn>,
    /// The same, including transactions that wait in batches.
    taken: Lsn,
    /// By (6), the transaction that is handed over while it arrives, and how many of its changes were handed over.
    begun: Option<(Lsn, u64)>,
    /// The transaction that the server is sending.
    open: Option<Transaction>,
    /// The epoch of that transaction, or of the initial copy.
    held_epoch: Option<Epoch>,
    /// Whether an initial copy is being handed over.
    first_rows: bool,
    /// What the newest epoch was given so far.
    epoch_share: EpochShare,
    /// The end of the log when the connection was made; once it is reached, the feed is caught up.
    target: Lsn,
    at_end: bool,
    /// When the oldest record in a batch arrived.
    arrived: Option<Instant>,
    handed_progress: Instant,
    /// A second connection, for queries during the stream.
    beside: Option<PostgresClient>,
    asked_lag: Instant,
    /// The commit time of the newest transaction, in Unix milliseconds.
    newest_ms: Option<i64>,
    renamed: HashSet<u32>,
    /// The misfits that were reported already.
    reported_misfits: HashSet<String>,
    record: Vec<u8>,
}

impl PostgresReader {
    /// A reader for the feeds of a slot, of which there is at least one.
    pub fn new(
        url: PostgresUrl,
        slot: String,
        mut members: Vec<SlotMember>,
        committed: Arc<AtomicU64>,
        options: ReaderOptions,
    ) -> PostgresReader {
        let known = members.iter().filter_map(|member| Some(member.known.as_ref()?.lsn));
        let reached = known.max();
        // By (2) of the module their LSNs are equal; a feed with another LSN was not read for a while.
        for member in &mut members {
            if member.known.as_ref().is_some_and(|known| Some(known.lsn) != reached) {
                (member.known, member.copies_again) = (None, true);
            }
        }
        committed.store(reached.unwrap_or_default().0, Ordering::Release);
        PostgresReader {
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
            held_epoch: None,
            first_rows: false,
            epoch_share: EpochShare::default(),
            target: Lsn::default(),
            at_end: false,
            arrived: None,
            handed_progress: Instant::now(),
            beside: None,
            asked_lag: Instant::now(),
            newest_ms: None,
            renamed: HashSet::new(),
            reported_misfits: HashSet::new(),
            record: Vec::new(),
        }
    }

    fn first(&self) -> &FeedHandle {
        &self.members[0].handle
    }

    /// Reads until readers are to stop. A fault makes the feeds of the slot wait. But while an epoch is held open for
    /// them it ends the run, because no feed's records could be committed meanwhile.
    pub fn read(mut self) -> Result<(), ReaderExit> {
        let mut backoff = Backoff::new(self.options.back_off, PAUSE);
        let (mut attempts, mut answered) = (0, false);
        loop {
            let mut well = false;
            let trouble = match self.session(&mut well) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            self.beside = None;
            if well {
                backoff.reset();
                attempts = 0;
            }
            attempts += 1;
            // A server that has answered before is waited for as long as it takes.
            answered |= well || matches!(trouble, PostgresError::Server(_));
            let is_away = attempts > self.options.retries && (!answered || self.held_epoch.is_some());
            let judged = self.judge_trouble(trouble, is_away)?;
            self.rewind();
            match judged {
                SessionEnd::Waits(fault) => self.observe_fault(&fault.to_string()),
                SessionEnd::Passes(trouble) => {
                    let text = format!(
                        "{} does not answer as it should: {trouble}; it is tried again",
                        self.url
                    );
                    tracing::warn!(feed = self.first().name(), "{text}");
                    self.members
                        .iter()
                        .for_each(|member| member.handle.gauges.set_error(text.clone()));
                }
            }
            if self.members.iter().all(|member| member.fault.lasts()) {
                self.members
                    .iter()
                    .for_each(|member| member.handle.gauges.set_exhausted(true));
                if self.options.stop_at_end {
                    return Ok(());
                }
            }
            match self.first().sleep(backoff.pause()) {
                Err(ReaderExit::Stopped) if self.held_epoch.is_some() => return Err(self.cut()),
                slept => slept?,
            }
        }
    }

    /// Decides how to react to the error that ended a session. The error ends the run, or says that readers are to
    /// stop.
    fn judge_trouble(&mut self, trouble: PostgresError, is_away: bool) -> Result<SessionEnd, ReaderExit> {
        let is_held = self.held_epoch.is_some();
        let fault = match trouble {
            PostgresError::Ended(ReaderExit::Failed(error)) => match error {
                SourceError::PostgresMisfit { .. } | SourceError::PostgresLost { .. } if !is_held => error,
                error => return Err(error.into()),
            },
            trouble if self.first_rows && is_held => {
                let reason = match trouble {
                    PostgresError::Ended(_) => "the run was to end".to_string(),
                    trouble => trouble.to_string(),
                };
                return Err(SourceError::PostgresFirstRows {
                    feed: self.first().name(),
                    reason,
                }
                .into());
            }
            // By (6) of the module, half a transaction cannot be left.
            PostgresError::Ended(_) if is_held => return Err(self.cut()),
            PostgresError::Ended(ended) => return Err(ended),
            trouble if !trouble.passes() => self.refused(&trouble),
            trouble if is_away => SourceError::PostgresAway {
                url: self.url.to_string(),
                reason: trouble.to_string(),
            },
            trouble => return Ok(SessionEnd::Passes(trouble)),
        };
        match is_held {
            true => Err(fault.into()),
            false => Ok(SessionEnd::Waits(fault)),
        }
    }

    fn cut(&self) -> ReaderExit {
        let topic = format!("slot {:?}", self.slot);
        SourceError::TransactionCut { topic }.into()
    }

    /// Records the fault that keeps the feeds of the slot from being read.
    fn observe_fault(&mut self, cause: &str) {
        for member in &mut self.members {
            member.fault.observe_lasting(&member.handle, cause.to_string());
        }
    }

    /// Records that the slot is being read.
    fn observe_well(&mut self) {
        if self.members.iter().any(|member| member.fault.is_there()) {
            let at_end = self.at_end;
            self.members
                .iter()
                .for_each(|member| member.handle.gauges.set_exhausted(at_end));
        }
        for member in &mut self.members {
            member.fault.observe(&member.handle, &self.options, None);
        }
    }

    /// The fault for an error that does not pass with retries.
    fn refused(&self, trouble: &PostgresError) -> SourceError {
        match trouble {
            // The slot was invalidated or dropped.
            PostgresError::Server(refusal)
                if matches!(refusal.code.as_str(), "55000" | "42704") && self.reached.is_some() =>
            {
                self.lost(&refusal.to_string())
            }
            PostgresError::Server(refusal) if refusal.code == "42501" => self.misfit(CatalogMisfit {
                message: refusal.to_string(),
                help: format!("as a superuser: ALTER ROLE {} REPLICATION", quoted(&self.url.user)),
                refuses: true,
            }),
            PostgresError::Wrong(reason) if self.open.is_some() => SourceError::PostgresStream {
                url: self.url.to_string(),
                reason: reason.clone(),
            },
            trouble => self.misfit(CatalogMisfit {
                message: trouble.to_string(),
                help: "correct that at the server, or in the feed's settings".into(),
                refuses: true,
            }),
        }
    }

    fn misfit(&self, misfit: CatalogMisfit) -> SourceError {
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

    /// Discards what was read and not handed over; the server will send it again.
    fn rewind(&mut self) {
        for member in &mut self.members {
            drop(member.batch.finish(None));
            member.next = member.handed_over;
        }
        self.taken = self.reached.unwrap_or_default();
        (self.open, self.arrived, self.first_rows) = (None, None, false);
    }

    /// Runs one connection from its beginning to its end. Sets `well` once the stream runs.
    fn session(&mut self, well: &mut bool) -> Result<(), PostgresError> {
        let handle = self.first().clone();
        let mut tick = || handle.check();
        let mut client = PostgresClient::connect(&self.url, &mut tick)?;
        let catalog = self.prepare(&mut client, &mut tick)?;
        self.types = catalog::types(&mut client, &mut tick)?;
        let new = self.new_tables(&catalog);
        if new.is_empty() {
            return self.stream(client, None, well);
        }
        self.report_waiting();
        let mut view = PostgresClient::connect(&self.url, &mut tick)?;
        let at = first::view_of(&mut view, &self.slot, &mut tick)?;
        self.members
            .iter()
            .for_each(|member| member.handle.gauges.clear_error());
        self.lock_rows(&mut view, &new, &catalog, &mut tick)?;
        if self.members.iter().any(|member| !member.tables.is_empty()) {
            self.stream(client, Some(at), well)?;
        } else {
            drop(client);
        }
        *well = true;
        self.observe_well();
        self.first_rows(view, at, new, &catalog)?;
        let mut client = PostgresClient::connect(&self.url, &mut tick)?;
        self.target = catalog::end(&mut client, &mut tick)?;
        self.stream(client, None, well)
    }
}
