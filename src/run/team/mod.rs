//! The processes of a run: which one this is, its role, and how a run ends that has lost one.
//!
//! A run of one process leads itself and has no sockets. In a run of several, process 0 leads ([`Peers`]): it has the
//! conductor, the pacer and the committer. The others follow ([`Leader`]).

mod control;
mod leader;
mod loss;
mod peers;
mod reported;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use timely::communication::WorkerGuards;
use timely::communication::allocator::AllocatorBuilder;
use twox_hash::XxHash3_128;

use self::loss::{PARTING, lost};
use super::board::RunEvent;
use super::{Options, RunError};
use crate::causes;
use crate::cluster::{self, ClusterConnections, ClusterTerms, Member, Network};
use crate::definition::Dataflow;
use crate::plan::Graph;
use crate::source::Share;

pub use self::control::{ProcessProgress, ProcessReport, StartCommand};
pub use self::leader::{FollowerHandles, Leader};
pub use self::peers::{Peers, share};
pub use self::reported::ReportedState;

/// See the module's header.
pub struct Team {
    /// Which of all processes this is.
    pub share: Share,
    /// Its role.
    pub role: Role,
    member: Option<Arc<Member>>,
    data: Vec<Option<TcpStream>>,
    /// Keeps the listening socket open as long as the run.
    _gate: Option<Box<dyn Send>>,
    events: Sender<RunEvent>,
    ours: bool,
}

/// The role of a process in its run.
pub enum Role {
    /// Process 0, possibly the only process.
    Leads(Peers),
    /// Any other process.
    Follows(Leader),
}

impl Team {
    /// Waits until all processes have connected.
    pub fn join(
        dataflow: &Dataflow,
        graph: &Graph,
        options: &Options,
        events: &Sender<RunEvent>,
    ) -> Result<Team, RunError> {
        let Some(member) = options.cluster.clone() else {
            return Ok(Team {
                share: Share::default(),
                role: Role::Leads(Peers::default()),
                member: None,
                data: vec![],
                _gate: None,
                events: events.clone(),
                ours: options.signals,
            });
        };
        let share = Share {
            process: member.process,
            processes: member.hosts.len(),
        };
        let terms = ClusterTerms {
            version: env!("CARGO_PKG_VERSION").to_string(),
            dataflow: dataflow.name.clone(),
            definition: fingerprint(dataflow, graph),
            workers: options.workers.max(1),
            processes: share.processes,
        };
        let ClusterConnections {
            mut control,
            data,
            gate,
        } = cluster::join(&member, &terms)?;
        let role = match control[0].take() {
            None => Role::Leads(Peers::start(&member, control, events, options.signals)?),
            Some(socket) => Role::Follows(Leader::start(&member, socket, events, options.signals)?),
        };
        Ok(Team {
            share,
            role,
            member: Some(member),
            data,
            _gate: Some(Box::new(gate)),
            events: events.clone(),
            ours: options.signals,
        })
    }

    /// Makes timely's allocators for the workers of this process, and starts the network threads behind them.
    pub fn allocators(&mut self, workers: usize) -> Result<(Vec<AllocatorBuilder>, Option<Network>), RunError> {
        let Some(member) = self.member.clone() else {
            let config = timely::CommunicationConfig::Process(workers);
            let (builders, _) = config.try_build().map_err(RunError::Workers)?;
            return Ok((builders, None));
        };
        let (events, ours) = (self.events.clone(), self.ours);
        let sockets = std::mem::take(&mut self.data);
        let process = member.process;
        let on_loss = Arc::new(move |process, loss| lost(&events, member.peer(process), loss, ours));
        let network = cluster::network(sockets, process, workers, on_loss);
        let (builders, network) = network.map_err(|source| RunError::Thread {
            what: "the network between workers",
            source,
        })?;
        Ok((builders, Some(network)))
    }

    /// Reports to the other processes that the run failed here.
    pub fn tell(&self, error: &RunError) {
        match &self.role {
            Role::Leads(peers) => peers.fail(&causes::chain(error)),
            Role::Follows(leader) => leader.fail(error),
        }
    }

    /// Closes the links to the other processes with a good-bye.
    pub fn say_good_bye(self) {
        match self.role {
            Role::Leads(mut peers) => peers.say_good_bye(),
            Role::Follows(leader) => leader.say_good_bye(PARTING),
        }
    }

    /// Reports a failure, then closes the links.
    pub fn fail(self, error: &RunError) {
        self.tell(error);
        self.say_good_bye();
    }

    /// The other processes, in process 0.
    pub fn peers(&self) -> Option<&Peers> {
        match &self.role {
            Role::Leads(peers) => Some(peers),
            Role::Follows(_) => None,
        }
    }
}

/// A hash of what all processes have to agree on: the plan and the definition, except for the definition's folder and
/// the credentials.
fn fingerprint(dataflow: &Dataflow, graph: &Graph) -> String {
    let definition = Dataflow {
        folder: Default::default(),
        store_options: Default::default(),
        ..dataflow.clone()
    };
    let mut hash = XxHash3_128::new();
    hash.write(format!("{definition:?}").as_bytes());
    hash.write(graph.explain(None).as_bytes());
    format!("{:032x}", hash.finish_128())
}

/// The threads of a process that end by themselves once its workers have ended.
pub struct RunThreads {
    pub workers: WorkerGuards<()>,
    pub network: Option<Network>,
    pub writers: Vec<JoinHandle<()>>,
}

/// How the threads of a process ended.
pub struct EndedThreads {
    /// The message of a worker that panicked.
    pub workers: Option<String>,
    pub writers: Vec<std::thread::Result<()>>,
}

impl RunThreads {
    /// Joins all threads, after a run that ended in order.
    pub fn join(self) -> EndedThreads {
        let workers = self.workers.join().into_iter().find_map(Result::err);
        if let Some(network) = self.network {
            network.close();
        }
        EndedThreads {
            workers,
            writers: self.writers.into_iter().map(JoinHandle::join).collect(),
        }
    }

    /// Joins all threads, after a run that failed. It waits only [`PARTING`] in a cluster, whatever the peers do, and
    /// where workers are `busy` with a step whose rows nobody waits for. Returns `None` if that was too short.
    pub fn join_after_failure(mut self, busy: bool) -> Option<EndedThreads> {
        let network = self.network.take();
        if network.is_none() && !busy {
            return Some(self.join());
        }
        let (sender, ended) = channel();
        let parting = move || {
            let workers = self.workers.join().into_iter().find_map(Result::err);
            if let Some(network) = network {
                network.cut();
                network.close();
            }
            let writers = self.writers.into_iter().map(JoinHandle::join).collect();
            let _ = sender.send(EndedThreads { workers, writers });
        };
        std::thread::Builder::new().name("parting".into()).spawn(parting).ok()?;
        ended.recv_timeout(PARTING).ok()
    }
}
