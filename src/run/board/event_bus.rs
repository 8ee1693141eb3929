//! The channel of events to the conductor.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use crate::evolve::NewSchemaFields;
use crate::repr::Epoch;
use crate::run::RunError;
use crate::sink::CommitEvent;

/// An event for the conductor.
pub enum RunEvent {
    /// A worker took something, or a frontier moved: the conductor looks at the board.
    Progress,
    /// The committer reports.
    Commit(CommitEvent),
    /// A part of the run has failed, so the run ends.
    Failed(RunError),
    /// Ctrl-C or SIGTERM: drain, commit, report.
    Stop,
    /// SIGUSR1: print the latency and memory reports.
    Report,
    /// In other processes than 0: a snapshot is committed, as process 0 reports.
    Committed(Epoch),
    /// In other processes than 0: process 0 asks to read no more.
    Drain,
    /// A feed holds back records behind a schema with new fields.
    Evolves(NewSchemaFields),
    /// In other processes than 0: everything is committed, and process 0 ends the run. `true`: it begins anew.
    End(bool),
}

/// Sends events to the conductor.
pub struct EventBus {
    /// Whether a [`RunEvent::Progress`] is under way, so that the queue never holds a second one.
    poked: AtomicBool,
    sender: Sender<RunEvent>,
}

impl EventBus {
    /// Sends to the receiver of `sender`.
    pub fn new(sender: Sender<RunEvent>) -> EventBus {
        EventBus {
            poked: AtomicBool::new(false),
            sender,
        }
    }

    /// Sends an event. Does nothing if the conductor is gone.
    pub fn tell(&self, event: RunEvent) {
        let _ = self.sender.send(event);
    }

    /// Has the conductor look at the board.
    pub fn poke(&self) {
        if !self.poked.swap(true, Ordering::AcqRel) {
            self.tell(RunEvent::Progress);
        }
    }

    /// The conductor is about to look at the board: the next poke sends an event again.
    pub fn observe_look(&self) {
        self.poked.store(false, Ordering::Release);
    }
}
