//! A run that begins anew in its process when a feed meets a schema with new fields: the graph of one definition ends in
//! order, all it read committed, and the graph with the new columns goes on from that snapshot.
//!
//! ```text
//! reader holds a record back -> conductor: drain, commit, end -> evolve::take -> start over the same lake -> the record
//! ```
//! A restart is what a changed definition always takes, and nobody reads a table between two definitions. It costs what the
//! definition's change costs ([`super::past`]): inputs whose column is used are made again from Bronze, and audited. Two of a
//! million rows each: the row is there after 25 s, where a restart without a change takes 9 s (`what_a_new_column_costs`, two
//! cores that others kept busy, too).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use tokio::runtime::Runtime;

use super::start::{self, Definition};
use super::{Options, Outcome, RunError};
use crate::definition::Dataflow;
use crate::evolve;
use crate::plan::Graph;

/// Runs until no feed wants another definition.
pub fn until_over(
    dataflow: Arc<Dataflow>,
    graph: Arc<Graph>,
    options: &Options,
    runtime: &Runtime,
) -> Result<Outcome, RunError> {
    let started = Instant::now();
    let mut asked = Asked::new(options)?;
    let mut options = Options {
        stop: asked.stop.clone(),
        ..options.clone()
    };
    let (limit, mut met) = (options.duration, vec![]);
    let (mut latency, mut files) = (None, None);
    let mut so_far: Option<Outcome> = None;
    loop {
        let definition = Definition {
            dataflow: dataflow.clone(),
            graph: graph.clone(),
            met: &met,
            latency,
        };
        let engine = start::start(definition, &options, runtime)?;
        if options.signals && evolve::is_wanted(&dataflow) {
            asked.observe_started()?;
        }
        let (outcome, again) = engine.run(&options, files)?;
        let outcome = match so_far {
            Some(before) => before.then(outcome),
            None => outcome,
        };
        let Some(again) = again else { return Ok(outcome) };
        if asked.observe_ended() {
            return Ok(outcome);
        }
        so_far = Some(outcome);
        met.extend(again.met);
        (latency, files) = (Some(again.latency), again.files);
        options.recompute = false; // that was done
        options.duration = limit.map(|limit| limit.saturating_sub(started.elapsed()));
    }
}

/// Whether somebody wants the run to end while no graph is there to be told. A start is ended at once, which is safe at any
/// moment: what was read is committed.
struct Asked {
    starting: Arc<AtomicBool>,
    by_signal: Arc<AtomicBool>,
    is_heard: bool,
    /// Hangs up once [`Options::stop`] says so, whichever graph listens.
    stop: Option<Receiver<()>>,
}

impl Asked {
    fn new(options: &Options) -> Result<Asked, RunError> {
        if options.signals {
            // Asked for a report before there is one, a process must not end: that is what the signal does by itself.
            signal_hook::flag::register(SIGUSR1, Arc::default()).map_err(no_handler)?;
        }
        Ok(Asked {
            starting: Arc::default(),
            by_signal: Arc::default(),
            is_heard: false,
            stop: options.stop.clone().map(relay).transpose()?,
        })
    }

    /// From now on the graph is told of signals; before its first start a signal did what it does by itself.
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

    /// The graph has ended; says whether the run is to end with it.
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

/// What hangs up for all who listen as soon as one of them would be told.
fn relay(stop: Receiver<()>) -> Result<Receiver<()>, RunError> {
    let (open, hung_up) = bounded(0);
    let wait = move || {
        let _ = stop.recv(); // hanging up is a stop too
        drop(open);
    };
    thread::Builder::new()
        .name("stop".into())
        .spawn(wait)
        .map_err(|source| RunError::Thread {
            what: "the stop listener",
            source,
        })?;
    Ok(hung_up)
}

impl Outcome {
    /// Of this run and the one that it began anew as.
    fn then(mut self, next: Outcome) -> Outcome {
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
        Outcome {
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
            corrections,
            unread: next.unread,
            elapsed: self.elapsed + next.elapsed,
            evolved: next.evolved,
            figures: next.figures,
        }
    }
}
