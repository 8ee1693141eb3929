//! Ends a run that has lost one of its processes.

use std::time::Duration;

use crossbeam_channel::Sender;

use crate::cluster::{Loss, Peer};
use crate::run::RunError;
use crate::run::board::RunEvent;
use crate::shown::shown;

/// How long the threads of a failed run may take to end in order. After half of this time in addition, a process that
/// has lost a peer exits anyway. Together with [`crate::cluster::SILENCE`] this stays below five seconds.
pub const PARTING: Duration = Duration::from_secs(1);

/// Fails the run because a peer is lost. If this process is `ours` to end, it exits after a while even if some thread
/// is stuck waiting for the peer. Exiting is safe at any moment, because only the ledger decides what is committed.
pub fn lost(events: &Sender<RunEvent>, peer: Peer, loss: Loss, ours: bool) {
    let error = RunError::Lost { peer, loss };
    let text = error.to_string();
    let _ = events.send(RunEvent::Failed(error));
    if !ours {
        return;
    }
    let end = move || {
        std::thread::sleep(PARTING + PARTING / 2);
        eprintln!("error: {}", shown(&text));
        std::process::exit(1);
    };
    // If the thread cannot be started, the run ends as soon as its threads do.
    let _ = std::thread::Builder::new().name("parting".into()).spawn(end);
}
