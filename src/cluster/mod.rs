//! Connects several processes to one engine, by sockets between processes that have proved to each other that they
//! know the same secret.
//!
//! ```text
//! process 1 --control--> process 0      process 1 --data--> process 0
//! process 2 --control--> process 0      process 2 --data--> process 0, process 1
//! ```
//! [`join`] gathers the processes. A [`Link`] carries messages over a control socket, and notices a peer that is gone
//! or hangs. [`network`] makes timely's allocators of the data sockets. This module does not know what the messages
//! mean.
//!
//! 1. Nothing that a peer sends is used before the peer has proved the secret for this very connection
//!    ([`handshake`]).
//! 2. A connection without a proof costs bounded time and memory, and delays no other connection ([`listener`]).
//! 3. A peer that is lost or silent is reported once, to the run; nothing here ends the process.
//!
//! timely could connect processes by itself, but it trusts whoever connects, waits forever for a connection that sends
//! its bytes too slowly, and panics when a peer is lost. Bytes are not encrypted: the secret keeps strangers from
//! joining, and does not protect against eavesdropping.

mod handshake;
mod join;
mod link;
mod listener;
mod network;
mod secret;
#[cfg(test)]
mod tests;

pub use handshake::ClusterTerms;
pub use join::{ClusterConnections, join};
pub use link::{Link, LinkEvent};
pub use network::{Network, network};
pub use secret::{Secret, SecretError};

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

/// How often a peer sends a beat.
pub const BEAT: Duration = Duration::from_millis(500);
/// After how long without a byte a peer counts as lost. Together with [`BEAT`] and the time to end, this stays below
/// five seconds.
pub const SILENCE: Duration = Duration::from_secs(3);

/// A process of a cluster, with the addresses of all processes.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its index; process 0 leads.
    pub process: usize,
    /// The `host:port` of every process, by index.
    pub hosts: Vec<String>,
    /// The address to listen at, if it differs from this process's own in `hosts`.
    pub listen: Option<String>,
    /// The secret that all processes share.
    pub secret: Secret,
}

impl Member {
    /// Names a process for messages.
    pub fn peer(&self, process: usize) -> Peer {
        Peer {
            process,
            host: self.hosts[process].clone(),
        }
    }
}

/// A process of the cluster, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its index.
    pub process: usize,
    /// Its address, as in `hosts`.
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
    /// The process ended, its machine stopped, or the network failed.
    #[error("its connection closed")]
    Closed,
    /// The process hangs, or the network drops what it sends.
    #[error("it said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// It sent a message of an impossible length.
    #[error("it sent a message of {0} bytes")]
    TooLong(u64),
    /// Another error of the socket.
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
    /// The process cannot listen at its own address.
    #[error("could not listen at {address}, the address of process {process}")]
    Listen {
        /// This process.
        process: usize,
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A peer has another secret, or is not a process of this cluster.
    #[error("{0} refused our proof, or could not prove the secret to us: give every process the same secret")]
    Unproved(Peer),
    /// A peer runs another definition, version, or number of workers or processes.
    #[error(
        "process {process} runs {ours}, but {peer} runs {theirs}: give every process the same definition, -w, -n and version"
    )]
    Differs {
        /// This process.
        process: usize,
        /// What this process runs.
        ours: Box<ClusterTerms>,
        /// The peer that differs.
        peer: Peer,
        /// What the peer runs.
        theirs: Box<ClusterTerms>,
    },
    /// A peer has its hosts in another order.
    #[error(
        "{0} takes itself for another process: give every process the same hosts, in the same order, and its own -p"
    )]
    OtherIndex(Peer),
    /// After all processes had been there, some did not connect for data.
    #[error("processes {missing:?} did not connect to process {process} within {} s; a restart tries again", .within.as_secs())]
    Missing {
        /// This process.
        process: usize,
        /// The processes that did not connect.
        missing: Vec<usize>,
        /// How long this process waited.
        within: Duration,
    },
    /// A peer was lost before the run began.
    #[error("lost {peer} before the run began: {loss}; a restart tries again")]
    Lost {
        /// Which peer.
        peer: Peer,
        /// How it was lost.
        #[source]
        loss: Loss,
    },
    /// The system provided no random bytes for the run's id.
    #[error("could not {what}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}
