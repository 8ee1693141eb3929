//! Accepts connections, each of which is handled on a thread of its own until it has proved the secret.
//!
//! 1. At most [`PENDING`] connections are unproved at once. One more closes the oldest: a peer proves itself within
//!    milliseconds, so idle connections cannot keep it out.
//! 2. The accepting loop ends when it is asked to, whatever state connections are in.
//! 3. Refusals are logged with the address, at most [`LINES`] times in a [`WINDOW`].

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many connections may be unproved at once.
const PENDING: usize = 128;
/// How many refusals are logged in a window.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
/// The pause after the system has failed to accept a connection, for example because no more files can be opened.
const PAUSE: Duration = Duration::from_millis(50);

/// An open listener, which closes when dropped.
pub struct ClusterListener {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Handles a connection on a thread of its own. Returns the reason for a refusal.
pub(super) type Admit = Arc<dyn Fn(TcpStream) -> Result<(), String> + Send + Sync>;

#[derive(Default)]
struct OpenHandshakes {
    /// The oldest connection comes first.
    unproved: VecDeque<(u64, TcpStream)>,
    threads: usize,
    next: u64,
}

#[derive(Default)]
struct Handshakes {
    waiting: Mutex<OpenHandshakes>,
    left: Condvar,
}

impl Handshakes {
    fn waiting(&self) -> MutexGuard<'_, OpenHandshakes> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection. If there is no room, closes the oldest one and waits for its thread.
    fn enter(&self, stream: TcpStream) -> u64 {
        let mut waiting = self.waiting();
        while waiting.threads >= PENDING {
            if let Some((_, oldest)) = waiting.unproved.pop_front() {
                // Its thread notices that, and leaves.
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

impl ClusterListener {
    /// Opens a listener, which calls `admit` with each connection.
    pub(super) fn open(listener: TcpListener, admit: Admit) -> io::Result<ClusterListener> {
        let address = listener.local_addr()?;
        let closing = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("cluster gate".into()).spawn({
            let closing = closing.clone();
            move || watch(&listener, &closing, &admit)
        })?;
        Ok(ClusterListener {
            address,
            closing,
            thread: Some(thread),
        })
    }
}

impl Drop for ClusterListener {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Only a connection wakes `accept`.
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
    let pending = Arc::new(Handshakes::default());
    let log = Arc::new(RefusalLog::default());
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
        let Ok(clone) = stream.try_clone() else {
            log.refused(Some(from), "no more files can be opened");
            continue;
        };
        let id = pending.enter(clone);
        let (leaving, log_of, admit) = (pending.clone(), log.clone(), admit.clone());
        let spawned = std::thread::Builder::new()
            .name("cluster handshake".into())
            .spawn(move || {
                // The guard frees the place, even if `admit` panics.
                let _place = HandshakeSlot { pending: leaving, id };
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

struct HandshakeSlot {
    pending: Arc<Handshakes>,
    id: u64,
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.pending.leave(self.id);
    }
}

/// Logs refusals by (3): when the window began, and how many refusals it had.
#[derive(Default)]
struct RefusalLog(Mutex<Option<(Instant, u32)>>);

impl RefusalLog {
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
