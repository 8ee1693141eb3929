//! Gathers the processes: first every process connects to process 0, then each pair connects for timely's data.
//!
//! ```text
//! gathering: p -> 0 control; 0 sends beats         (for as long as it takes; a process may leave and come again)
//! roster:    0 -> p a new run id, once all are there linking:   p -> every q < p data, under that id  (within
//! LINKING, all are there)
//! ```
//! 1. A run id is made when all processes are there, so sockets of two gatherings are never mixed.
//! 2. A process with other terms or another secret is refused, and the others go on waiting for the right one.
//! 3. The listener stays open as long as the run. It tells late processes to try again, and its address keeps a second
//!    process with the same index from starting.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::handshake::{self, Claim, HandshakeError, HandshakeVerdict, Route, RunId, SocketKind};
use super::listener::ClusterListener;
use super::{BEAT, ClusterError, ClusterTerms, Loss, Member, SILENCE};

/// How long a handshake may take.
const PROVING: Duration = Duration::from_secs(5);
/// How long a connection attempt may take.
const CONNECTING: Duration = Duration::from_secs(3);
/// The pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(100);
/// How long connecting the data sockets may take once all processes are there.
const LINKING: Duration = Duration::from_secs(30);
/// How often a waiting process logs for whom it waits.
const REMINDER: Duration = Duration::from_secs(10);

/// What process 0 sends during gathering: `STILL` while it waits, and `ROSTER`, followed by the run id, once all
/// processes are there.
const STILL: u8 = 0;
const ROSTER: u8 = 1;

/// The sockets of a process to its peers.
pub struct ClusterConnections {
    /// Control sockets by process: in process 0 to every other one, in the others only to process 0.
    pub control: Vec<Option<TcpStream>>,
    /// Data sockets by process.
    pub data: Vec<Option<TcpStream>>,
    /// Keeps the address occupied.
    pub gate: ClusterListener,
}

/// What the listener's threads share.
struct GatheringState {
    member: Member,
    terms: ClusterTerms,
    state: Mutex<GatheringProgress>,
    arrived: Sender<(SocketKind, usize, TcpStream)>,
}

#[derive(Default)]
struct GatheringProgress {
    /// Whether process 0 is still gathering.
    gathering: bool,
    /// The run id, once all processes are there.
    run: Option<RunId>,
}

impl GatheringState {
    fn state(&self) -> MutexGuard<'_, GatheringProgress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, claim: &Claim) -> HandshakeVerdict {
        let Route { kind, from, to } = claim.route;
        let me = self.member.process;
        if claim.terms != self.terms {
            return HandshakeVerdict::Differs;
        }
        if to != me || from <= me || from >= self.member.hosts.len() {
            return HandshakeVerdict::OtherIndex;
        }
        let state = self.state();
        let fits = match kind {
            SocketKind::Control => me == 0 && state.gathering,
            SocketKind::Data => state.run == Some(claim.run),
        };
        if fits {
            HandshakeVerdict::Welcome
        } else {
            HandshakeVerdict::Busy
        }
    }

    fn admit(&self, stream: TcpStream) -> Result<(), String> {
        let (secret, terms) = (&self.member.secret, &self.terms);
        let accepted = handshake::accept(&stream, secret, terms, |claim| self.judge(claim), PROVING);
        let (claim, verdict) = accepted.map_err(|error| error.to_string())?;
        let from = claim.route.from;
        match verdict {
            HandshakeVerdict::Welcome => {
                let _ = self.arrived.send((claim.route.kind, from, stream));
                Ok(())
            }
            HandshakeVerdict::Busy => Ok(()), // the process tries again
            HandshakeVerdict::Differs => Err(format!(
                "process {from} runs {}, but process {} runs {terms}",
                claim.terms, self.member.process
            )),
            HandshakeVerdict::OtherIndex => Err(format!(
                "process {from} takes us for process {}, but we are process {}",
                claim.route.to, self.member.process
            )),
        }
    }
}

/// Waits until every process is there, and connects to all of them.
pub fn join(member: &Member, terms: &ClusterTerms) -> Result<ClusterConnections, ClusterError> {
    let me = member.process;
    let address = member.listen.clone().unwrap_or_else(|| member.hosts[me].clone());
    let listen = |source| ClusterError::Listen {
        process: me,
        address: address.clone(),
        source,
    };
    let listener = TcpListener::bind(&address).map_err(listen)?;
    let (arrived, arrivals) = unbounded();
    let shared = Arc::new(GatheringState {
        member: member.clone(),
        terms: terms.clone(),
        state: Mutex::new(GatheringProgress {
            gathering: me == 0,
            run: None,
        }),
        arrived,
    });
    let admit = {
        let shared = shared.clone();
        Arc::new(move |stream| shared.admit(stream))
    };
    let gate = ClusterListener::open(listener, admit).map_err(listen)?;
    tracing::info!(
        process = me,
        of = member.hosts.len(),
        address,
        "waiting for the cluster"
    );
    let mut joining = Joiner {
        shared: &shared,
        arrivals,
        data: member.hosts.iter().map(|_| None).collect(),
    };
    let control = match me {
        0 => joining.gather()?,
        _ => joining.find()?,
    };
    let data = joining.link()?;
    Ok(ClusterConnections { control, data, gate })
}

struct Joiner<'a> {
    shared: &'a GatheringState,
    arrivals: Receiver<(SocketKind, usize, TcpStream)>,
    data: Vec<Option<TcpStream>>,
}

impl Joiner<'_> {
    fn member(&self) -> &Member {
        &self.shared.member
    }

    /// In process 0: accepts control sockets until all processes are there, and then announces that.
    fn gather(&mut self) -> Result<Vec<Option<TcpStream>>, ClusterError> {
        let processes = self.member().hosts.len();
        let mut control: Vec<Option<TcpStream>> = (0..processes).map(|_| None).collect();
        let mut reminded = Instant::now();
        loop {
            match self.arrivals.recv_timeout(BEAT) {
                // A process that connects again has closed its old socket, whether that shows yet or not.
                Ok((SocketKind::Control, from, stream)) => control[from] = Some(stream),
                Ok((SocketKind::Data, from, stream)) => self.data[from] = Some(stream),
                Err(_) => {
                    for slot in &mut control {
                        let has_left = slot.as_mut().is_some_and(|stream| stream.write_all(&[STILL]).is_err());
                        if has_left {
                            *slot = None;
                        }
                    }
                }
            }
            // A process may leave during gathering and come again. If its old socket counted, the others would wait in
            // vain.
            for slot in &mut control {
                slot.take_if(|stream| is_gone(stream));
            }
            let missing: Vec<usize> = (1..processes).filter(|p| control[*p].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            if reminded.elapsed() >= REMINDER {
                reminded = Instant::now();
                let missing: Vec<String> = missing.iter().map(usize::to_string).collect();
                tracing::warn!(missing = %missing.join(", "), "still waiting for processes of the cluster");
            }
        }
        let run = handshake::random().map_err(|source| ClusterError::System {
            what: "name the run",
            source,
        })?;
        {
            let mut state = self.shared.state();
            state.gathering = false;
            state.run = Some(run);
        }
        let roster = [&[ROSTER], &run[..]].concat();
        for (process, stream) in control.iter_mut().enumerate() {
            if let Some(stream) = stream {
                stream.write_all(&roster).map_err(|error| ClusterError::Lost {
                    peer: self.shared.member.peer(process),
                    loss: error.into(),
                })?;
            }
        }
        Ok(control)
    }

    /// In other processes: connects to process 0, and waits until it announces that all processes are there.
    fn find(&mut self) -> Result<Vec<Option<TcpStream>>, ClusterError> {
        let mut waiting = Reminder::new();
        loop {
            let stream = self.connect(SocketKind::Control, 0, [0; 16], None, &mut waiting)?;
            match await_roster(&stream) {
                Ok(run) => {
                    self.shared.state().run = Some(run);
                    let mut control: Vec<Option<TcpStream>> = self.data.iter().map(|_| None).collect();
                    control[0] = Some(stream);
                    return Ok(control);
                }
                // Process 0 ended during gathering; another one may be started.
                Err(error) => waiting.remind(&self.member().peer(0), &Loss::from(error).to_string()),
            }
        }
    }

    /// Connects data sockets to all processes with a smaller index, and accepts those of the others.
    fn link(mut self) -> Result<Vec<Option<TcpStream>>, ClusterError> {
        let (me, processes) = (self.member().process, self.member().hosts.len());
        let run = self.shared.state().run.expect("all are there");
        let deadline = Instant::now() + LINKING;
        for peer in 0..me {
            let stream = self.connect(SocketKind::Data, peer, run, Some(deadline), &mut Reminder::new())?;
            self.data[peer] = Some(stream);
        }
        loop {
            let missing: Vec<usize> = (me + 1..processes).filter(|p| self.data[*p].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.arrivals.recv_timeout(left) {
                Ok((SocketKind::Data, from, stream)) => self.data[from] = Some(stream),
                Ok((SocketKind::Control, ..)) => {} // its process connected when the gathering ended, and tries again
                Err(_) => {
                    return Err(ClusterError::Missing {
                        process: me,
                        missing,
                        within: LINKING,
                    });
                }
            }
        }
        Ok(self.data)
    }

    /// Connects until the peer accepts. Fails at once if trying again cannot help.
    fn connect(
        &self,
        kind: SocketKind,
        to: usize,
        run: RunId,
        deadline: Option<Instant>,
        waiting: &mut Reminder,
    ) -> Result<TcpStream, ClusterError> {
        let member = self.member();
        let peer = member.peer(to);
        let route = Route {
            kind,
            from: member.process,
            to,
        };
        loop {
            let tried = dial(&member.hosts[to]).map_err(HandshakeError::Io).and_then(|stream| {
                handshake::connect(&stream, &member.secret, route, run, &self.shared.terms, PROVING).map(|()| stream)
            });
            let error = match tried {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            match error {
                HandshakeError::Unproved => return Err(ClusterError::Unproved(peer)),
                HandshakeError::OtherIndex => return Err(ClusterError::OtherIndex(peer)),
                HandshakeError::Differs(theirs) => {
                    return Err(ClusterError::Differs {
                        process: member.process,
                        ours: Box::new(self.shared.terms.clone()),
                        peer,
                        theirs,
                    });
                }
                passing => waiting.remind(&peer, &passing.to_string()),
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(ClusterError::Missing {
                    process: member.process,
                    missing: vec![to],
                    within: LINKING,
                });
            }
            std::thread::sleep(RETRY);
        }
    }
}

/// Logs now and then for whom a process waits.
struct Reminder(Instant);

impl Reminder {
    fn new() -> Self {
        Reminder(Instant::now())
    }

    fn remind(&mut self, peer: &super::Peer, reason: &str) {
        if self.0.elapsed() >= REMINDER {
            self.0 = Instant::now();
            tracing::warn!(%peer, reason, "still waiting");
        }
    }
}

/// Connects to the first address of a host name that answers.
fn dial(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECTING) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the other end of a socket, which has sent nothing yet, is closed.
fn is_gone(stream: &TcpStream) -> bool {
    let looked = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]))
        .map_err(|error| error.kind());
    stream.set_nonblocking(false).is_err() || !matches!(looked, Ok(1..) | Err(io::ErrorKind::WouldBlock))
}

/// Waits for process 0 to announce that all processes are there. Returns the run id.
fn await_roster(mut stream: &TcpStream) -> io::Result<RunId> {
    stream.set_read_timeout(Some(SILENCE))?;
    loop {
        let mut said = [0];
        stream.read_exact(&mut said)?;
        match said[0] {
            STILL => {}
            ROSTER => {
                let mut run = RunId::default();
                stream.read_exact(&mut run)?;
                return Ok(run);
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a roster")),
        }
    }
}
