//! The conductor's counterpart in every process but process 0. It reports changes of its workers, readers and writers
//! to process 0, and ends when process 0 says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::memory::MemoryWatch;
use super::{ASK, Conducted};
use crate::latency::Latency;
use crate::run::board::{Board, RunEvent};
use crate::run::lines::WorkerLines;
use crate::run::team::{Leader, ProcessProgress, ProcessReport, ReportedState};
use crate::run::{RunError, lags};
use crate::source::Readers;

/// How often figures for people are sent.
const FIGURES: Duration = Duration::from_secs(1);

/// Reports to process 0 until process 0 ends the run.
pub struct Follower<'a> {
    pub leader: &'a Leader,
    pub board: Arc<Board>,
    pub events: Receiver<RunEvent>,
    pub latency: Arc<Latency>,
    pub lines: &'a WorkerLines,
    pub readers: Option<Readers>,
    /// The memory of this process; above its limit, workers take nothing.
    pub memory: MemoryWatch,
    pub until_caught_up: bool,
    pub reported: ReportedState,
}

impl Follower<'_> {
    /// Follows until the end. Also returns what was reported, which the last figures need.
    pub fn follow(mut self) -> Result<(Conducted, ReportedState), RunError> {
        let mut draining = false;
        let mut figures = Instant::now();
        loop {
            let asks = (self.until_caught_up || draining) && !self.reported.drained;
            match self.events.recv_timeout(if asks { ASK } else { FIGURES }) {
                Ok(RunEvent::Progress) => self.board.events.observe_look(),
                Ok(RunEvent::Failed(error)) => return Err(error),
                Ok(RunEvent::Report) => {
                    tracing::info!("{}", self.latency.figures());
                    let feeds = self.readers.as_ref().map(Readers::statuses).unwrap_or_default();
                    tracing::info!("{}", lags::report(&feeds));
                    self.memory.ask(&self.board, Instant::now());
                }
                Ok(RunEvent::Stop) => self.leader.report(&ProcessReport::Stop),
                Ok(RunEvent::Evolves(new_schema)) => self.leader.report(&ProcessReport::Evolves(new_schema)),
                Ok(RunEvent::Committed(epoch)) => self.reported.snapshot = epoch,
                Ok(RunEvent::Drain) => {
                    draining = true;
                    if let Some(readers) = self.readers.take() {
                        readers.stop()?;
                    }
                    // A run that is ending has to take what is in its queues, whatever the memory.
                    self.board.epochs.paused.store(false, Ordering::Release);
                }
                Ok(RunEvent::End(again)) => {
                    let snapshot = self.reported.snapshot;
                    let conducted = Conducted {
                        snapshot,
                        corrections: None,
                        unread: vec![],
                        again: again.then(Vec::new),
                        files: None,
                    };
                    return Ok((conducted, self.reported));
                }
                Ok(RunEvent::Commit(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::WorkersGone),
            }
            if let Some(error) = self.readers.as_ref().and_then(Readers::failure) {
                return Err(error.into());
            }
            if let Some(report) = self.memory.report(&self.board, Instant::now()) {
                tracing::info!("{report}");
            }
            if let Some((above, say)) = self.memory.look(Instant::now()) {
                self.board.epochs.paused.store(above && !draining, Ordering::Release);
                say.inspect(|say| tracing::warn!("{say}"));
            }
            self.tell_progress();
            self.tell_end(draining);
            if figures.elapsed() >= FIGURES {
                figures = Instant::now();
                self.tell_figures();
            }
        }
    }

    fn tell_progress(&mut self) {
        // The frontier is read first, so that the other values include everything that epochs before it hold.
        let frontier = self.board.epochs.frontier();
        self.latency.observe_closed(frontier, Instant::now(), SystemTime::now());
        let progress = ProcessProgress {
            frontier,
            taken: self.board.epochs.taken.swap(0, Ordering::AcqRel),
            full: self.board.epochs.full.swap(false, Ordering::AcqRel),
            heavy: self.board.weight.is_due(),
            replayed: self.board.epochs.is_past_over(),
            violations: self.board.violations.drain(),
        };
        if progress != self.reported.progress || progress.taken > 0 || progress.full || progress.heavy {
            let report = ProcessReport::Progress(progress);
            self.leader.report(&report);
            if let ProcessReport::Progress(progress) = report {
                // These values are events, each reported once; only the lasting ones are compared next time.
                self.reported.progress = ProcessProgress {
                    taken: 0,
                    full: false,
                    heavy: false,
                    violations: vec![],
                    ..progress
                };
            }
        }
    }

    fn tell_end(&mut self, draining: bool) {
        // The order matters: once readers are exhausted, nothing is added to the queues.
        let exhausted = self.readers.as_ref().is_none_or(Readers::exhausted);
        let empty = self.lines.are_empty();
        if draining && empty && !self.reported.drained {
            self.reported.drained = true;
            self.leader.report(&ProcessReport::Drained);
        }
        let caught_up = exhausted && empty;
        if self.until_caught_up && caught_up != self.reported.caught_up {
            self.reported.caught_up = caught_up;
            self.tell_figures(); // process 0 needs to know what feeds wait for
            self.leader.report(&ProcessReport::CaughtUp(caught_up));
        }
    }

    fn tell_figures(&mut self) {
        let mut figures = self.reported.figures(&self.board);
        figures.feeds = self.readers.as_ref().map(Readers::statuses).unwrap_or_default();
        self.leader.send_figures(figures, &self.latency);
    }
}
