//! Starts the timely workers, in one process or as part of a cluster.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};

use crossbeam_channel::unbounded;
use differential_dataflow::trace::ExertionLogic;

use crate::contain;
use crate::deep::deep;
use crate::latency::Latency;
use crate::run::board::{Board, RunEvent};
use crate::run::team::{RunThreads, Team};
use crate::run::worker::{self, WorkerOptions, WorkerParts};
use crate::run::{RunError, Wiring};

/// What all workers of a process share.
pub struct WorkerContext {
    pub options: WorkerOptions,
    pub wiring: Arc<Wiring>,
    pub board: Arc<Board>,
    pub latency: Arc<Latency>,
}

/// Starts one worker for each of `parts`. Returns handles, and the workers' threads in order.
pub fn start_workers(
    team: &mut Team,
    parts: Vec<WorkerParts>,
    common: WorkerContext,
) -> Result<(RunThreads, Vec<Thread>), RunError> {
    let workers = parts.len();
    let parts: Vec<Mutex<Option<WorkerParts>>> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
    let (threads_in, threads_out) = unbounded();
    let mut config = timely::WorkerConfig::default();
    // An idle worker continues merges that are under way, and starts none. Differential's own `idle_merge_effort`
    // would merge everything into one batch, so that under a live load each epoch would pay for all of the state.
    let exert: ExertionLogic = Arc::new(|layers| layers.iter().any(|(_, batches, _)| *batches > 1).then_some(1000));
    config.set("differential/default_exert_logic".to_string(), exert);
    let (builders, network) = team.allocators(workers)?;
    let first = team.share.process * workers;
    let guards = timely::execute::execute_from(builders, Box::new(()), config, move |worker| {
        let WorkerContext {
            options,
            wiring,
            board,
            latency,
        } = &common;
        let _alarm = Alarm(board.clone());
        let index = worker.index() - first;
        let _ = threads_in.send((index, thread::current()));
        let part = parts[index].lock().ok().and_then(|mut part| part.take());
        let part = part.expect("each worker takes its part once");
        let worked = catch_unwind(AssertUnwindSafe(|| {
            // Deep expressions are evaluated on this thread and need its large stack.
            deep(|| worker::work(worker, (part, options), wiring, board, latency))
        }));
        match worked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => board.events.tell(RunEvent::Failed(error)),
            Err(panic) => {
                board.events.tell(RunEvent::Failed(RunError::Worker {
                    message: contain::message(&*panic),
                    named: board.workers.suspects.named(index, &wiring.dataflow),
                }));
                // The panic left the dataflow inconsistent, so timely must not run it any further.
                resume_unwind(panic);
            }
        }
    })
    .map_err(RunError::Workers)?;
    let mut threads: Vec<(usize, Thread)> = threads_out.iter().take(workers).collect();
    threads.sort_by_key(|(index, _)| *index);
    let running = RunThreads {
        workers: guards,
        network,
        writers: vec![],
    };
    Ok((running, threads.into_iter().map(|(_, thread)| thread).collect()))
}

/// Reports to the conductor if a worker's thread panics outside of [`worker::work`].
struct Alarm(Arc<Board>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.events.tell(RunEvent::Failed(RunError::Panicked(
                "a worker",
                "see the message above".into(),
            )));
        }
    }
}
