//! Several processes as one engine: sockets between processes that have proved one secret to each other.
//!
//! ```text
//! process 1 --control--> process 0      process 1 --data--> process 0
//! process 2 --control--> process 0      process 2 --data--> process 0, process 1
//! ```
//! [`join`] gathers the processes, [`Link`] carries messages over a control socket and notices a peer that is gone or
//! hangs, [`network`] makes timely's allocators of the data sockets. What the messages say is not known here.
//!
//! 1. Nothing that a peer sends is used before it has proved the secret, for this very connection ([`handshake`]).
//! 2. A connection that has not proved itself costs a bounded time and a bounded memory, and keeps nobody else
//!    waiting ([`gate`]).
//! 3. A peer that is lost or silent is told once, to the run; nothing here ends the process.
//!
//! timely connects processes by itself, too; not used, because it believes whoever connects, waits for a
//! dribbling connection for ever, and panics where a peer is lost. Bytes are not encrypted: the secret keeps strangers
//! out, not eyes on the wire.

mod gate;
mod handshake;
mod join;
mod link;
mod network;
mod secret;
#[cfg(test)]
mod tests;

pub use handshake::Terms;
pub use join::{Joined, join};
pub use link::{Heard, Link};
pub use network::{Network, network};
pub use secret::{Secret, SecretError};

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

/// How often a peer says that it is there.
pub const BEAT: Duration = Duration::from_millis(500);
/// A peer that said nothing for so long is lost. With [`BEAT`] and what ending takes, below five seconds.
pub const SILENCE: Duration = Duration::from_secs(3);

/// A process of a cluster: which one it is, and where all are.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its index; 0 leads.
    pub process: usize,
    /// By index, `host:port` of every process.
    pub hosts: Vec<String>,
    /// Where to listen, if not at the own line of `hosts`.
    pub listen: Option<String>,
    /// What all processes share.
    pub secret: Secret,
}

impl Member {
    /// A process, for messages.
    pub fn peer(&self, process: usize) -> Peer {
        Peer {
            process,
            host: self.hosts[process].clone(),
        }
    }
}

/// A process of the cluster, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its index.
    pub process: usize,
    /// Where it is, as `hosts` says.
    pub host: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} at {}", self.process, self.host)
    }
}

/// How a peer was lost.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Loss {
    /// It ended, or its machine or the network did.
    #[error("its connection closed")]
    Closed,
    /// It is there and does nothing, or the network swallows what it says.
    #[error("it said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// It sent what no process of ours sends.
    #[error("it sent a message of {0} bytes")]
    TooLong(u64),
    /// The system says why.
    #[error("{0}")]
    Io(String),
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Loss::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Loss::Silent(SILENCE),
            _ => Loss::Io(error.to_string()),
        }
    }
}

/// Why a process could not join its cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The own address cannot be listened at.
    #[error("could not listen at {address}, the address of process {process}")]
    Listen {
        /// Ours.
        process: usize,
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A peer knows another secret, or is none of ours.
    #[error("{0} refused our proof, or could not prove the secret to us: give every process the same secret")]
    Unproved(Peer),
    /// A peer runs something else.
    #[error(
        "process {process} runs {ours}, but {peer} runs {theirs}: give every process the same definition, -w, -n and version"
    )]
    Differs {
        /// Ours.
        process: usize,
        /// What we run.
        ours: Box<Terms>,
        /// Who differs.
        peer: Peer,
        /// What it runs.
        theirs: Box<Terms>,
    },
    /// A host file in another order.
    #[error(
        "{0} takes itself for another process: give every process the same hosts, in the same order, and its own -p"
    )]
    OtherIndex(Peer),
    /// All were there, then some were not.
    #[error("processes {missing:?} did not connect to process {process} within {} s; a restart tries again", .within.as_secs())]
    Missing {
        /// Ours.
        process: usize,
        /// Theirs.
        missing: Vec<usize>,
        /// How long was waited.
        within: Duration,
    },
    /// A peer went away before the run began.
    #[error("lost {peer} before the run began: {loss}; a restart tries again")]
    Lost {
        /// Who.
        peer: Peer,
        /// How.
        #[source]
        loss: Loss,
    },
    /// Threads, sockets.
    #[error("could not {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}
