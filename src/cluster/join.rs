//! How processes come together: first every process finds process 0, then each pair connects for timely.
//!
//! ```text
//! gathering: p -> 0 control; 0 sends beats         (for as long as it takes; who goes may come again)
//! roster:    0 -> p a new run id, once all are there
//! linking:   p -> every q < p data, under that id  (within LINKING, all are there)
//! ```
//! 1. A run id is made when all are there, so sockets of two gatherings never meet.
//! 2. A process that differs, or does not know the secret, is refused, and the others wait on for the right one.
//! 3. The gate stays open as long as the run: who comes late is told to come again, and a second process with the same
//!    place cannot start.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::gate::Gate;
use super::handshake::{self, Claim, HandshakeError, Kind, Route, RunId, Verdict};
use super::{BEAT, ClusterError, Loss, Member, SILENCE, Terms};

/// How long a connection has to prove itself.
const PROVING: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(3);
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);
/// How long the data sockets may take once all are there.
const LINKING: Duration = Duration::from_secs(30);
/// How often somebody who waits says for whom.
const REMINDER: Duration = Duration::from_secs(10);

/// What process 0 says before the run: still waiting; or all are there, and the run's id follows.
const STILL: u8 = 0;
const ROSTER: u8 = 1;

/// A process among its peers.
pub struct Joined {
    /// By process: of process 0 to every other one, of the others to process 0.
    pub control: Vec<Option<TcpStream>>,
    /// By process.
    pub data: Vec<Option<TcpStream>>,
    /// Keeps the address.
    pub gate: Gate,
}

/// What the gate's threads must know.
struct Door {
    member: Member,
    terms: Terms,
    state: Mutex<State>,
    arrived: Sender<(Kind, usize, TcpStream)>,
}

#[derive(Default)]
struct State {
    /// Whether process 0 still gathers.
    gathering: bool,
    /// Once all are there.
    run: Option<RunId>,
}

impl Door {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, claim: &Claim) -> Verdict {
        let Route { kind, from, to } = claim.route;
        let me = self.member.process;
        if claim.terms != self.terms {
            return Verdict::Differs;
        }
        if to != me || from <= me || from >= self.member.hosts.len() {
            return Verdict::OtherIndex;
        }
        let state = self.state();
        let fits = match kind {
            Kind::Control => me == 0 && state.gathering,
            Kind::Data => state.run == Some(claim.run),
        };
        if fits { Verdict::Welcome } else { Verdict::Busy }
    }

    fn admit(&self, stream: TcpStream) -> Result<(), String> {
        let (secret, terms) = (&self.member.secret, &self.terms);
        let accepted = handshake::accept(&stream, secret, terms, |claim| self.judge(claim), PROVING);
        let (claim, verdict) = accepted.map_err(|error| error.to_string())?;
        let from = claim.route.from;
        match verdict {
            Verdict::Welcome => {
                let _ = self.arrived.send((claim.route.kind, from, stream));
                Ok(())
            }
            Verdict::Busy => Ok(()), // it will come again
            Verdict::Differs => Err(format!(
                "process {from} runs {}, but process {} runs {terms}",
                claim.terms, self.member.process
            )),
            Verdict::OtherIndex => Err(format!(
                "process {from} takes us for process {}, but we are process {}",
                claim.route.to, self.member.process
            )),
        }
    }
}

/// Waits until every process is there, and connects to all of them.
pub fn join(member: &Member, terms: &Terms) -> Result<Joined, ClusterError> {
    let me = member.process;
    let address = member.listen.clone().unwrap_or_else(|| member.hosts[me].clone());
    let listen = |source| ClusterError::Listen {
        process: me,
        address: address.clone(),
        source,
    };
    let listener = TcpListener::bind(&address).map_err(listen)?;
    let (arrived, arrivals) = unbounded();
    let door = Arc::new(Door {
        member: member.clone(),
        terms: terms.clone(),
        state: Mutex::new(State {
            gathering: me == 0,
            run: None,
        }),
        arrived,
    });
    let admit = {
        let door = door.clone();
        Arc::new(move |stream| door.admit(stream))
    };
    let gate = Gate::open(listener, admit).map_err(listen)?;
    tracing::info!(
        process = me,
        of = member.hosts.len(),
        address,
        "waiting for the cluster"
    );
    let mut joining = Joining {
        door: &door,
        arrivals,
        data: member.hosts.iter().map(|_| None).collect(),
    };
    let control = match me {
        0 => joining.gather()?,
        _ => joining.find()?,
    };
    let data = joining.link()?;
    Ok(Joined { control, data, gate })
}

struct Joining<'a> {
    door: &'a Door,
    arrivals: Receiver<(Kind, usize, TcpStream)>,
    data: Vec<Option<TcpStream>>,
}

impl Joining<'_> {
    fn member(&self) -> &Member {
        &self.door.member
    }

    /// Process 0: takes everybody in, then says that all are there.
    fn gather(&mut self) -> Result<Vec<Option<TcpStream>>, ClusterError> {
        let processes = self.member().hosts.len();
        let mut control: Vec<Option<TcpStream>> = (0..processes).map(|_| None).collect();
        let mut reminded = Instant::now();
        loop {
            match self.arrivals.recv_timeout(BEAT) {
                // Who comes again went before, whatever its old socket says.
                Ok((Kind::Control, from, stream)) => control[from] = Some(stream),
                Ok((Kind::Data, from, stream)) => self.data[from] = Some(stream),
                Err(_) => {
                    for slot in &mut control {
                        let gone = slot.as_mut().is_some_and(|stream| stream.write_all(&[STILL]).is_err());
                        if gone {
                            *slot = None;
                        }
                    }
                }
            }
            // One that went before all were there may come again; without it the others would wait in vain.
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
            let mut state = self.door.state();
            state.gathering = false;
            state.run = Some(run);
        }
        let roster = [&[ROSTER], &run[..]].concat();
        for (process, stream) in control.iter_mut().enumerate() {
            if let Some(stream) = stream {
                stream.write_all(&roster).map_err(|error| ClusterError::Lost {
                    peer: self.door.member.peer(process),
                    loss: error.into(),
                })?;
            }
        }
        Ok(control)
    }

    /// Another process: finds process 0, and waits until it says that all are there.
    fn find(&mut self) -> Result<Vec<Option<TcpStream>>, ClusterError> {
        let mut waiting = Waiting::new();
        loop {
            let stream = self.connect(Kind::Control, 0, [0; 16], None, &mut waiting)?;
            match await_roster(&stream) {
                Ok(run) => {
                    self.door.state().run = Some(run);
                    let mut control: Vec<Option<TcpStream>> = self.data.iter().map(|_| None).collect();
                    control[0] = Some(stream);
                    return Ok(control);
                }
                // It went while it gathered; another one of its kind may gather again.
                Err(error) => waiting.remind(&self.member().peer(0), &Loss::from(error).to_string()),
            }
        }
    }

    /// All are there: data sockets to those before us, from those behind us.
    fn link(mut self) -> Result<Vec<Option<TcpStream>>, ClusterError> {
        let (me, processes) = (self.member().process, self.member().hosts.len());
        let run = self.door.state().run.expect("all are there");
        let deadline = Instant::now() + LINKING;
        for peer in 0..me {
            let stream = self.connect(Kind::Data, peer, run, Some(deadline), &mut Waiting::new())?;
            self.data[peer] = Some(stream);
        }
        loop {
            let missing: Vec<usize> = (me + 1..processes).filter(|p| self.data[*p].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.arrivals.recv_timeout(left) {
                Ok((Kind::Data, from, stream)) => self.data[from] = Some(stream),
                Ok((Kind::Control, ..)) => {} // came as the gathering ended; it comes again
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

    /// Connects until it is welcome. What cannot get better ends it.
    fn connect(
        &self,
        kind: Kind,
        to: usize,
        run: RunId,
        deadline: Option<Instant>,
        waiting: &mut Waiting,
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
                handshake::connect(&stream, &member.secret, route, run, &self.door.terms, PROVING).map(|()| stream)
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
                        ours: Box::new(self.door.terms.clone()),
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

/// Says now and then whom a process waits for.
struct Waiting(Instant);

impl Waiting {
    fn new() -> Self {
        Waiting(Instant::now())
    }

    fn remind(&mut self, peer: &super::Peer, reason: &str) {
        if self.0.elapsed() >= REMINDER {
            self.0 = Instant::now();
            tracing::warn!(%peer, reason, "still waiting");
        }
    }
}

/// Connects to the first of a name's addresses that answers.
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

/// Whether the other end of a socket, which has said nothing yet, is closed.
fn is_gone(stream: &TcpStream) -> bool {
    let looked = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]))
        .map_err(|error| error.kind());
    stream.set_nonblocking(false).is_err() || !matches!(looked, Ok(1..) | Err(io::ErrorKind::WouldBlock))
}

/// Waits for process 0 to say that all are there.
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
