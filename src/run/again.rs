//! Restarts a run within its process when a feed encounters a schema with new fields. The graph of the old definition
//! ends in order, with everything that it read committed; then a graph with the new columns starts from that snapshot.
//!
//! ```text
//! reader holds a record back -> conductor: drain, commit, end -> evolve::accept -> start over the same lake -> record
//! ```
//! This is the same restart that any changed definition takes, and no table is readable halfway between two
//! definitions. It costs what that change costs ([`super::past`]): inputs with a new column that is used are computed
//! again from Bronze, and audited. With two inputs of a million rows each, the record's row is committed after 25 s,
//! where a restart without a change takes 9 s (`cargo bench --bench evolve`, on two cores that also did other work).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use tokio::runtime::Runtime;

use super::start::{self, RunDefinition, spawn_thread};
use super::{Options, RunError, RunOutcome};
use crate::definition::Dataflow;
use crate::evolve;
use crate::plan::Graph;

/// Runs the dataflow, and runs it again each time a feed needs new columns.
pub fn until_over(
    dataflow: Arc<Dataflow>,
    graph: Arc<Graph>,
    options: &Options,
    runtime: &Runtime,
) -> Result<RunOutcome, RunError> {
    let started = Instant::now();
    let mut request = EndRequest::new(options)?;
    let mut options = Options {
        stop: request.stop.clone(),
        ..options.clone()
    };
    let (limit, mut met) = (options.duration, vec![]);
    let (mut latency, mut files) = (None, None);
    let mut so_far: Option<RunOutcome> = None;
    loop {
        let definition = RunDefinition {
            dataflow: dataflow.clone(),
            graph: graph.clone(),
            met: &met,
            latency,
        };
        let engine = start::start(definition, &options, runtime)?;
        if options.signals && evolve::is_wanted(&dataflow) {
            request.observe_started()?;
        }
        let (outcome, again) = engine.run(&options, files)?;
        let outcome = match so_far {
            Some(before) => before.followed_by(outcome),
            None => outcome,
        };
        let Some(again) = again else { return Ok(outcome) };
        if request.observe_ended() {
            return Ok(outcome);
        }
        so_far = Some(outcome);
        met.extend(again.met);
        (latency, files) = (Some(again.latency), again.files);
        options.recompute = false; // the first graph has done it
        options.duration = limit.map(|limit| limit.saturating_sub(started.elapsed()));
    }
}

/// Remembers whether somebody asked the run to end while no graph is there to hear it. A start is aborted at once,
/// which is safe at any moment: everything that was read is committed.
struct EndRequest {
    starting: Arc<AtomicBool>,
    by_signal: Arc<AtomicBool>,
    is_heard: bool,
    /// Hangs up once [`Options::stop`] has a message or hangs up; every graph of the run listens to it.
    stop: Option<Receiver<()>>,
}

impl EndRequest {
    fn new(options: &Options) -> Result<EndRequest, RunError> {
        if options.signals {
            // By default SIGUSR1, which asks for a report, ends a process. It must not do so before there is a report
            // to print.
            signal_hook::flag::register(SIGUSR1, Arc::default()).map_err(no_handler)?;
        }
        Ok(EndRequest {
            starting: Arc::default(),
            by_signal: Arc::default(),
            is_heard: false,
            stop: options.stop.clone().map(relay).transpose()?,
        })
    }

    /// The first graph runs: from now on signals are forwarded to the graph. Before that they had their default
    /// effect.
    fn observe_started(&mut self) -> Result<(), RunError> {
        self.starting.store(false, Ordering::Release);
        if !std::mem::replace(&mut self.is_heard, true) {
            for signal in [SIGINT, SIGTERM] {
                signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, self.starting.clone())
                    .map_err(no_handler)?;
                signal_hook::flag::register(signal, self.by_signal.clone()).map_err(no_handler)?;
            }
        }
        Ok(())
    }

    /// The graph has ended. Returns whether the run ends with it.
    fn observe_ended(&self) -> bool {
        self.starting.store(true, Ordering::Release);
        let hung_up = |stop: &Receiver<()>| stop.try_recv() == Err(TryRecvError::Disconnected);
        self.by_signal.load(Ordering::Acquire) || self.stop.as_ref().is_some_and(hung_up)
    }
}

fn no_handler(source: std::io::Error) -> RunError {
    RunError::Thread {
        what: "the signal handler",
        source,
    }
}

/// Returns a receiver that hangs up for all of its listeners at the first message on `stop`; a message itself would
/// reach only one of them.
fn relay(stop: Receiver<()>) -> Result<Receiver<()>, RunError> {
    let (open, hung_up) = bounded(0);
    let wait = move || {
        let _ = stop.recv(); // a sender that hangs up is a stop, too
        drop(open);
    };
    spawn_thread("stop", "the stop listener", wait)?;
    Ok(hung_up)
}

impl RunOutcome {
    /// Adds up the outcomes of this graph and of the one that followed it.
    fn followed_by(mut self, next: RunOutcome) -> RunOutcome {
        for (field, records) in next.ignored {
            *self.ignored.entry(field).or_default() += records;
        }
        let corrections = match (self.corrections, next.corrections) {
            (Some(mut all), Some(more)) => {
                for (table, rows) in more {
                    match all.iter_mut().find(|(name, _)| *name == table) {
                        Some((_, count)) => *count += rows,
                        None => all.push((table, rows)),
                    }
                }
                Some(all)
            }
            (all, more) => all.or(more),
        };
        self.phases.extend(next.phases);
        let mut warnings: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (table, expectation, rows) in self.warnings.into_iter().chain(next.warnings) {
            *warnings.entry((table, expectation)).or_default() += rows;
        }
        RunOutcome {
            snapshot: self.snapshot.max(next.snapshot),
            records: self.records + next.records,
            replayed: self.replayed + next.replayed,
            loaded: self.loaded + next.loaded,
            phases: self.phases,
            backfilled: self.backfilled + next.backfilled,
            rejected: self.rejected + next.rejected,
            rejected_files: self.rejected_files + next.rejected_files,
            skipped: self.skipped + next.skipped,
            ignored: self.ignored,
            warnings: warnings
                .into_iter()
                .map(|((table, name), rows)| (table, name, rows))
                .collect(),
            corrections,
            unread: next.unread,
            elapsed: self.elapsed + next.elapsed,
            evolved: next.evolved,
            figures: next.figures,
        }
    }
}
