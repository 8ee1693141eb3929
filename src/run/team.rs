//! The processes of a run: which one this is, what it is to the others, and how a run ends that lost one.
//!
//! A run of one process leads itself and has no sockets. In a run of several, process 0 leads ([`Peers`]): it has the
//! conductor, the pacer and the committer. The others follow ([`Leader`]).

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use timely::communication::WorkerGuards;
use timely::communication::allocator::AllocatorBuilder;
use twox_hash::XxHash3_128;

use super::follower::Leader;
use super::peers::Peers;
use super::shared::Event;
use super::{Options, RunError};
use crate::causes;
use crate::cluster::{self, Joined, Loss, Member, Network, Peer, Terms};
use crate::definition::Dataflow;
use crate::plan::Graph;
use crate::shown::shown;
use crate::source::Share;

/// What the threads of a failed run may take to end in order. Half of it more, and a process that has lost a peer ends
/// anyway: with [`cluster::SILENCE`] before it, below five seconds.
const PARTING: Duration = Duration::from_secs(1);

/// See the module's header.
pub struct Team {
    /// Which of all processes this is.
    pub share: Share,
    /// What it is to the others.
    pub role: Role,
    member: Option<Arc<Member>>,
    data: Vec<Option<TcpStream>>,
    /// Keeps the address as long as the run.
    _gate: Option<Box<dyn Send>>,
    events: Sender<Event>,
    ours: bool,
}

/// What a process is to the others.
pub enum Role {
    /// Process 0, perhaps the only one.
    Leads(Peers),
    /// Every other one.
    Follows(Leader),
}

impl Team {
    /// Waits for the others, if there are any.
    pub fn join(
        dataflow: &Dataflow,
        graph: &Graph,
        options: &Options,
        events: &Sender<Event>,
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
        let terms = Terms {
            version: env!("CARGO_PKG_VERSION").to_string(),
            dataflow: dataflow.name.clone(),
            definition: fingerprint(dataflow, graph),
            workers: options.workers.max(1),
            processes: share.processes,
        };
        let Joined {
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

    /// timely's allocators for this process's workers, and the threads behind them.
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

    /// Tells the others that the run failed here.
    pub fn tell(&self, error: &RunError) {
        match &self.role {
            Role::Leads(peers) => peers.fail(&causes::chain(error)),
            Role::Follows(leader) => leader.fail(error),
        }
    }

    /// Says good-bye to them.
    pub fn part(self) {
        match self.role {
            Role::Leads(mut peers) => peers.part(),
            Role::Follows(leader) => leader.part(PARTING),
        }
    }

    /// Both.
    pub fn fail(self, error: &RunError) {
        self.tell(error);
        self.part();
    }

    /// The other processes, where this one leads.
    pub fn peers(&self) -> Option<&Peers> {
        match &self.role {
            Role::Leads(peers) => Some(peers),
            Role::Follows(_) => None,
        }
    }
}

/// A hash of what every process must run alike: the definition but for where its folder is and which credentials are
/// used, and its plan.
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

/// A peer is lost: the run fails. Where the process is ours to end (`ours`), it ends even if something
/// here waits for what does not come; that is safe at any moment, for the ledger makes it so.
pub fn lost(events: &Sender<Event>, peer: Peer, loss: Loss, ours: bool) {
    let error = RunError::Lost { peer, loss };
    let text = error.to_string();
    let _ = events.send(Event::Failed(error));
    if !ours {
        return;
    }
    let end = move || {
        std::thread::sleep(PARTING + PARTING / 2);
        eprintln!("error: {}", shown(&text));
        std::process::exit(1);
    };
    // Without a thread the run ends as soon as it can.
    let _ = std::thread::Builder::new().name("parting".into()).spawn(end);
}

/// Everything of a process that ends by itself once its workers do.
pub struct Threads {
    pub workers: WorkerGuards<()>,
    pub network: Option<Network>,
    pub writers: Vec<JoinHandle<()>>,
}

/// How they ended.
pub struct Ended {
    /// A worker that panicked.
    pub workers: Option<String>,
    pub writers: Vec<std::thread::Result<()>>,
}

impl Threads {
    /// Joins them all, of a run that ended in order.
    pub fn join(self) -> Ended {
        let workers = self.workers.join().into_iter().find_map(Result::err);
        if let Some(network) = self.network {
            network.close();
        }
        Ended {
            workers,
            writers: self.writers.into_iter().map(JoinHandle::join).collect(),
        }
    }

    /// Joins them, of a run that failed. In a cluster not for long, and whatever the peers do.
    pub fn part(mut self) -> Option<Ended> {
        let Some(network) = self.network.take() else {
            return Some(self.join());
        };
        let (sender, ended) = channel();
        let parting = move || {
            let workers = self.workers.join().into_iter().find_map(Result::err);
            network.cut();
            network.close();
            let writers = self.writers.into_iter().map(JoinHandle::join).collect();
            let _ = sender.send(Ended { workers, writers });
        };
        std::thread::Builder::new().name("parting".into()).spawn(parting).ok()?;
        ended.recv_timeout(PARTING).ok()
    }
}
