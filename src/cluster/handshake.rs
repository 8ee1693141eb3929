//! How two processes prove to each other that they know the secret, before they exchange anything else.
//!
//! ```text
//! connector                                   acceptor
//!   hello     kind, from, to, nonce     -->
//!             <--                         challenge   nonce
//!   claim     run, terms, proof         -->
//!             <--                         verdict     status, run, terms, proof
//! ```
//! 1. A proof is an HMAC-SHA256 under the secret over the prover's role, the hello, the challenge, and what the prover
//!    claims. It covers both nonces, so it is valid for one connection only; the role, so that it cannot be reflected
//!    to its maker; and kind and indices, so that a socket cannot pass for another. The secret itself is never sent.
//! 2. The connector proves first, so a stranger learns nothing but a nonce.
//! 3. Every length is checked before it is used, and the whole handshake has a deadline, however slowly bytes arrive.
//! 4. A refusal is proved as well, except for `unproved`, which tells a stranger nothing new.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Secret;

const MAGIC: &[u8; 8] = b"alluvium";
/// The version of this handshake and of the messages that follow it.
const PROTOCOL: u16 = 1;
const LABEL: &[u8] = b"alluvium cluster 1";
const NONCE: usize = 32;
const HELLO: usize = 8 + 2 + 1 + 4 + 4 + NONCE;
const CHALLENGE: usize = 8 + NONCE;
const PROOF: usize = 32;
/// The maximal length of the encoded terms, in bytes.
const TERMS: usize = 1024;

/// Identifies one gathering of all processes; process 0 chooses it.
pub(super) type RunId = [u8; 16];

/// The purpose of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketKind {
    /// Messages between a process and process 0.
    Control = 1,
    /// timely's data.
    Data = 2,
}

/// What all processes have to agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterTerms {
    /// The version of the program.
    pub version: String,
    /// The dataflow's name.
    pub dataflow: String,
    /// A hash of the definition and its plan.
    pub definition: String,
    /// Workers in each process.
    pub workers: usize,
    /// The number of processes.
    pub processes: usize,
}

impl fmt::Display for ClusterTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "dataflow {:?} (definition {}, version {}) with -w {} -n {}",
            self.dataflow, self.definition, self.version, self.workers, self.processes
        )
    }
}

/// What a socket is for, and which processes it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub kind: SocketKind,
    pub from: usize,
    pub to: usize,
}

/// The acceptor's answer to a claim that was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeVerdict {
    Welcome = 0,
    /// The terms differ, see [`ClusterTerms`].
    Differs = 1,
    /// Try again later: the place is taken, or the acceptor is not ready for this connection.
    Busy = 2,
    /// The acceptor has another index than the connector expects.
    OtherIndex = 3,
}

/// On the wire in place of a verdict: the proof is wrong.
const UNPROVED: u8 = 255;

/// A claim that was proved.
pub(super) struct Claim {
    pub route: Route,
    pub run: RunId,
    pub terms: ClusterTerms,
}

#[derive(Debug, Error)]
pub(super) enum HandshakeError {
    /// The connection was too slow, or broke off.
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a process of Alluvium's")]
    Stranger,
    #[error("another protocol ({0})")]
    Protocol(u16),
    #[error("wrong proof of the secret")]
    Unproved,
    #[error("busy")]
    Busy,
    #[error("another index")]
    OtherIndex,
    #[error("runs {0}")]
    Differs(Box<ClusterTerms>),
}

/// Proves the secret to an acceptor, and has it prove the secret in turn.
pub(super) fn connect(
    stream: &TcpStream,
    secret: &Secret,
    route: Route,
    run: RunId,
    terms: &ClusterTerms,
    within: Duration,
) -> Result<(), HandshakeError> {
    let mut timed = Timed::new(stream, within);
    let hello = hello(route)?;
    timed.write_all(&hello)?;
    let mut challenge = [0; CHALLENGE];
    timed.read_exact(&mut challenge)?;
    if challenge[..8] != *MAGIC {
        return Err(HandshakeError::Stranger);
    }
    let claim = body(None, run, terms);
    timed.write_all(&claim)?;
    timed.write_all(proof(secret, Role::Connector, &hello, &challenge, &claim).as_ref())?;

    let mut status = [0];
    timed.read_exact(&mut status)?;
    if status[0] == UNPROVED {
        return Err(HandshakeError::Unproved);
    }
    let (verdict, _, theirs) = read_body(&mut timed, Some(status[0]))?;
    check(&mut timed, secret, Role::Acceptor, &hello, &challenge, &verdict)?;
    match status[0] {
        s if s == HandshakeVerdict::Welcome as u8 => {}
        s if s == HandshakeVerdict::Differs as u8 => return Err(HandshakeError::Differs(Box::new(theirs))),
        s if s == HandshakeVerdict::Busy as u8 => return Err(HandshakeError::Busy),
        s if s == HandshakeVerdict::OtherIndex as u8 => return Err(HandshakeError::OtherIndex),
        _ => return Err(HandshakeError::Stranger),
    }
    timed.release()?;
    Ok(())
}

/// Has a connector prove the secret, and proves it in turn. `judge` is called only with a claim that was proved.
/// Returns the claim and its verdict.
pub(super) fn accept(
    stream: &TcpStream,
    secret: &Secret,
    terms: &ClusterTerms,
    judge: impl FnOnce(&Claim) -> HandshakeVerdict,
    within: Duration,
) -> Result<(Claim, HandshakeVerdict), HandshakeError> {
    let mut timed = Timed::new(stream, within);
    let mut hello = [0; HELLO];
    // The first bytes show whether this is a hello, so that the rest need not be awaited.
    timed.read_exact(&mut hello[..8])?;
    if hello[..8] != *MAGIC {
        return Err(HandshakeError::Stranger);
    }
    timed.read_exact(&mut hello[8..])?;
    let route = read_hello(&hello)?;
    let mut challenge = [0; CHALLENGE];
    challenge[..8].copy_from_slice(MAGIC);
    challenge[8..].copy_from_slice(&nonce()?);
    timed.write_all(&challenge)?;
    let (claim, run, theirs) = read_body(&mut timed, None)?;
    if let Err(error) = check(&mut timed, secret, Role::Connector, &hello, &challenge, &claim) {
        // Best effort: the other end may be gone.
        let _ = timed.write_all(&[UNPROVED]);
        return Err(error);
    }
    let claim = Claim {
        route,
        run,
        terms: theirs,
    };
    let verdict = judge(&claim);
    let answer = body(Some(verdict as u8), run, terms);
    timed.write_all(&answer)?;
    timed.write_all(proof(secret, Role::Acceptor, &hello, &challenge, &answer).as_ref())?;
    timed.release()?;
    Ok((claim, verdict))
}

#[derive(Clone, Copy)]
enum Role {
    Connector = 1,
    Acceptor = 2,
}

fn transcript(role: Role, hello: &[u8; HELLO], challenge: &[u8; CHALLENGE], body: &[u8]) -> Vec<u8> {
    // Only the last part varies in length, so two different transcripts cannot have the same bytes.
    [LABEL, &[role as u8], hello, challenge, body].concat()
}

fn proof(secret: &Secret, role: Role, hello: &[u8; HELLO], challenge: &[u8; CHALLENGE], body: &[u8]) -> hmac::Tag {
    hmac::sign(secret.key(), &transcript(role, hello, challenge, body))
}

/// Reads a proof, and compares it in constant time.
fn check(
    timed: &mut Timed<'_>,
    secret: &Secret,
    role: Role,
    hello: &[u8; HELLO],
    challenge: &[u8; CHALLENGE],
    body: &[u8],
) -> Result<(), HandshakeError> {
    let mut proof = [0; PROOF];
    timed.read_exact(&mut proof)?;
    hmac::verify(secret.key(), &transcript(role, hello, challenge, body), &proof).map_err(|_| HandshakeError::Unproved)
}

/// Random bytes from the system's cryptographic generator.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system has no random bytes"))?;
    Ok(bytes)
}

fn nonce() -> io::Result<[u8; NONCE]> {
    random()
}

fn hello(route: Route) -> io::Result<[u8; HELLO]> {
    let mut hello = [0; HELLO];
    hello[..8].copy_from_slice(MAGIC);
    hello[8..10].copy_from_slice(&PROTOCOL.to_be_bytes());
    hello[10] = route.kind as u8;
    hello[11..15].copy_from_slice(&(route.from as u32).to_be_bytes());
    hello[15..19].copy_from_slice(&(route.to as u32).to_be_bytes());
    hello[19..].copy_from_slice(&nonce()?);
    Ok(hello)
}

fn read_hello(hello: &[u8; HELLO]) -> Result<Route, HandshakeError> {
    let protocol = u16::from_be_bytes([hello[8], hello[9]]);
    if protocol != PROTOCOL {
        return Err(HandshakeError::Protocol(protocol));
    }
    let index = |at: usize| u32::from_be_bytes([hello[at], hello[at + 1], hello[at + 2], hello[at + 3]]) as usize;
    Ok(Route {
        kind: match hello[10] {
            1 => SocketKind::Control,
            2 => SocketKind::Data,
            _ => return Err(HandshakeError::Stranger),
        },
        from: index(11),
        to: index(15),
    })
}

/// The part that a proof covers besides hello and challenge: status (in a verdict), run, length of the terms, terms.
fn body(status: Option<u8>, run: RunId, terms: &ClusterTerms) -> Vec<u8> {
    let mut terms = serde_json::to_vec(terms).expect("terms are plain text and numbers");
    terms.truncate(TERMS); // terms that were cut off, because of a very long name, fail to parse at the other end
    let mut body: Vec<u8> = status.into_iter().collect();
    body.extend_from_slice(&run);
    body.extend_from_slice(&(terms.len() as u16).to_be_bytes());
    body.extend_from_slice(&terms);
    body
}

/// Reads what [`body`] encodes, except for the status, which the caller has read.
fn read_body(timed: &mut Timed<'_>, status: Option<u8>) -> Result<(Vec<u8>, RunId, ClusterTerms), HandshakeError> {
    let mut body: Vec<u8> = status.into_iter().collect();
    let mut run = [0; 16];
    let mut length = [0; 2];
    timed.read_exact(&mut run)?;
    timed.read_exact(&mut length)?;
    body.extend_from_slice(&run);
    body.extend_from_slice(&length);
    let length = usize::from(u16::from_be_bytes(length));
    if length > TERMS {
        return Err(HandshakeError::Stranger);
    }
    let mut terms = vec![0; length];
    timed.read_exact(&mut terms)?;
    body.extend_from_slice(&terms);
    let terms = serde_json::from_slice(&terms).map_err(|_| HandshakeError::Stranger)?;
    Ok((body, run, terms))
}

/// A stream whose reads and writes have to be done by a deadline.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl<'a> Timed<'a> {
    fn new(stream: &'a TcpStream, within: Duration) -> Self {
        Timed {
            stream,
            deadline: Instant::now() + within,
        }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "too slow"));
        }
        Ok(Some(left))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            self.stream.set_read_timeout(self.left()?)?;
            match self.stream.read(&mut bytes[at..]) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "broken off")),
                Ok(n) => at += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "too slow"));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write_all(bytes)
    }

    /// Removes the deadline.
    fn release(self) -> io::Result<()> {
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)
    }
}
