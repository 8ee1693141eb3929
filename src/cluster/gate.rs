//! The listener: lets connections in one by one, each on a thread of its own until it has proved itself.
//!
//! 1. At most [`PENDING`] connections are unproved at once. One more makes the oldest go: a peer proves itself within
//!    milliseconds, so that whoever holds connections open without a word keeps nobody out.
//! 2. The loop that accepts ends when it is told to, whatever happens to connections.
//! 3. What is refused is logged with its address, at most [`LINES`] times in [`WINDOW`].

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that may be unproved at once.
const PENDING: usize = 128;
/// Refusals logged in a window.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
/// How long the system's own trouble (no more files) is left alone.
const PAUSE: Duration = Duration::from_millis(50);

/// An open listener. Dropped, it closes.
pub struct Gate {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What is done with a connection: on a thread of its own; says why it was refused.
pub(super) type Admit = Arc<dyn Fn(TcpStream) -> Result<(), String> + Send + Sync>;

#[derive(Default)]
struct Waiting {
    /// Oldest first.
    unproved: VecDeque<(u64, TcpStream)>,
    threads: usize,
    next: u64,
}

#[derive(Default)]
struct Pending {
    waiting: Mutex<Waiting>,
    left: Condvar,
}

impl Pending {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, if need be that of the oldest.
    fn enter(&self, stream: TcpStream) -> u64 {
        let mut waiting = self.waiting();
        while waiting.threads >= PENDING {
            if let Some((_, oldest)) = waiting.unproved.pop_front() {
                // Its thread notices, and makes room.
                let _ = oldest.shutdown(Shutdown::Both);
            }
            waiting = self.left.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.threads += 1;
        waiting.next += 1;
        let id = waiting.next;
        waiting.unproved.push_back((id, stream));
        id
    }

    fn leave(&self, id: u64) {
        let mut waiting = self.waiting();
        waiting.threads -= 1;
        waiting.unproved.retain(|(other, _)| *other != id);
        self.left.notify_all();
    }
}

impl Gate {
    /// Opens a listener; `admit` gets what connects.
    pub(super) fn open(listener: TcpListener, admit: Admit) -> io::Result<Gate> {
        let address = listener.local_addr()?;
        let closing = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("cluster gate".into()).spawn({
            let closing = closing.clone();
            move || watch(&listener, &closing, &admit)
        })?;
        Ok(Gate {
            address,
            closing,
            thread: Some(thread),
        })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Nothing wakes `accept` but a connection.
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let woken = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn watch(listener: &TcpListener, closing: &AtomicBool, admit: &Admit) {
    let pending = Arc::new(Pending::default());
    let log = Arc::new(Log::default());
    loop {
        let accepted = listener.accept();
        if closing.load(Ordering::Acquire) {
            return;
        }
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                log.refused(None, &error.to_string());
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        let Ok(held) = stream.try_clone() else {
            log.refused(Some(from), "no more files can be opened");
            continue;
        };
        let id = pending.enter(held);
        let (leaving, log_of, admit) = (pending.clone(), log.clone(), admit.clone());
        let spawned = std::thread::Builder::new()
            .name("cluster handshake".into())
            .spawn(move || {
                // Whatever becomes of it, its place is free again.
                let _place = Place { pending: leaving, id };
                if let Err(reason) = admit(stream) {
                    log_of.refused(Some(from), &reason);
                }
            });
        if let Err(error) = spawned {
            pending.leave(id);
            log.refused(Some(from), &error.to_string());
        }
    }
}

struct Place {
    pending: Arc<Pending>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.leave(self.id);
    }
}

/// By (3).
#[derive(Default)]
struct Log(Mutex<Option<(Instant, u32)>>);

impl Log {
    fn refused(&self, from: Option<SocketAddr>, reason: &str) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (since, lines) = window.get_or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            if *lines > LINES {
                tracing::warn!(more = *lines - LINES, "refused connections, not logged one by one");
            }
            (*since, *lines) = (now, 0);
        }
        *lines += 1;
        if *lines <= LINES {
            let from = from.map_or("nobody".to_string(), |from| from.to_string());
            tracing::warn!(peer = from, reason, "refused a connection");
        }
    }
}
