//! Makes timely's allocators over data sockets, in such a way that a lost peer does not tear the process down.
//!
//! timely's network threads panic when a socket fails, which poisons the workers. So they get a [`GuardedSocket`]:
//! 1. A failure is reported to the run, once for each peer, and hidden from timely: writes are dropped, and a read
//!    blocks.
//! 2. Once no worker is left ([`Network::cut`]), a blocked read ends as if the peer had shut down in order. The rest
//!    of the current message is filled with zeros, which nobody reads, and timely's last header follows. So the
//!    threads end.
//! 3. In a run that ends in order, the sockets close once all peers have sent their last header ([`Network::close`]).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use timely::communication::allocator::zero_copy::initialize::{CommsGuard, initialize_networking_from_sockets};
use timely::communication::allocator::zero_copy::stream::Stream;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::initialize::Hooks;

use super::Loss;

/// The length in bytes of timely's message header (`networking::MessageHeader`): six big-endian `u64`.
const HEADER: usize = 48;
/// The offset in the header of the length of the message body, which is 0 in the last header.
const LENGTH: usize = 32;

/// The network threads of a process.
pub struct Network {
    guard: Option<CommsGuard>,
    cut: Arc<CutSignal>,
    sockets: Vec<TcpStream>,
}

/// Called with the index of a peer that is lost.
type OnLoss = Arc<dyn Fn(usize, Loss) + Send + Sync>;

/// Builds the allocators of this process's workers. `sockets` is indexed by process, with `None` for this one.
pub fn network(
    sockets: Vec<Option<TcpStream>>,
    process: usize,
    workers: usize,
    on_loss: OnLoss,
) -> io::Result<(Vec<AllocatorBuilder>, Network)> {
    let cut = Arc::new(CutSignal::default());
    let mut clones = Vec::new();
    let mut guarded = Vec::new();
    for (peer, socket) in sockets.into_iter().enumerate() {
        let Some(socket) = socket else {
            guarded.push(None);
            continue;
        };
        socket.set_nodelay(true)?;
        clones.push(socket.try_clone()?);
        guarded.push(Some(GuardedSocket {
            socket,
            peer,
            watch: Arc::new(LossWatch {
                reported: AtomicBool::new(false),
                on_loss: on_loss.clone(),
                cut: cut.clone(),
            }),
            frames: Frames::default(),
            lost: false,
        }));
    }
    let hooks = Hooks::default();
    let local = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
    let (builders, guard) = initialize_networking_from_sockets(local, guarded, process, workers, hooks)?;
    let network = Network {
        guard: Some(guard),
        cut,
        sockets: clones,
    };
    Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), network))
}

impl Network {
    /// Closes the sockets, once no worker of this process is left (2).
    pub fn cut(&self) {
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        *self.cut.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.cut.changed.notify_all();
    }

    /// Waits until the network threads have ended, because every peer's workers have ended or [`Network::cut`] was
    /// called.
    pub fn close(mut self) {
        if let Some(guard) = self.guard.take() {
            // A worker that panicked has poisoned these threads; the panic has been reported.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(guard)));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            // The network was not closed in order; joining its threads could block forever.
            self.cut();
            std::mem::forget(guard);
        }
    }
}

#[derive(Default)]
struct CutSignal {
    done: Mutex<bool>,
    changed: Condvar,
}

struct LossWatch {
    reported: AtomicBool,
    on_loss: OnLoss,
    cut: Arc<CutSignal>,
}

/// The socket that timely gets.
struct GuardedSocket {
    socket: TcpStream,
    peer: usize,
    watch: Arc<LossWatch>,
    frames: Frames,
    /// Whether reading has failed; nothing more is read from the socket.
    lost: bool,
}

impl GuardedSocket {
    fn report_loss(&self, loss: Loss) {
        if !self.watch.reported.swap(true, Ordering::AcqRel) {
            (self.watch.on_loss)(self.peer, loss);
        }
    }

    fn wait_for_cut(&self) {
        let done = self.watch.cut.done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.watch.cut.changed.wait_while(done, |done| !*done);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Read for GuardedSocket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while !self.lost {
            let loss = match self.socket.read(bytes) {
                Ok(0) if self.frames.ended || bytes.is_empty() => return Ok(0),
                Ok(0) => Loss::Closed,
                Ok(n) => {
                    self.frames.observe(&bytes[..n]);
                    return Ok(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) if self.frames.ended => return Ok(0),
                Err(error) => error.into(),
            };
            self.report_loss(loss);
            self.wait_for_cut();
            self.lost = true;
        }
        let n = self.frames.missing().min(bytes.len());
        bytes[..n].fill(0);
        self.frames.observe(&bytes[..n]);
        Ok(n)
    }
}

impl Write for GuardedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.write(bytes) {
                Ok(0) if !bytes.is_empty() => self.report_loss(Loss::Closed),
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => self.report_loss(error.into()),
            }
            return Ok(bytes.len());
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for GuardedSocket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(GuardedSocket {
            socket: self.socket.try_clone()?,
            peer: self.peer,
            watch: self.watch.clone(),
            frames: Frames::default(),
            lost: false,
        })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // The loss of a peer that is gone has already been reported.
        let _ = self.socket.shutdown(how);
        Ok(())
    }
}

/// Tracks where a stream is within timely's messages.
pub(super) struct Frames {
    header: [u8; HEADER],
    filled: usize,
    /// How many bytes of the current message body are missing.
    rest: u64,
    /// Whether the last header has been received.
    pub ended: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Frames {
            header: [0; HEADER],
            filled: 0,
            rest: 0,
            ended: false,
        }
    }
}

impl Frames {
    /// Takes note of received bytes.
    pub fn observe(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let n = (self.rest).min(bytes.len() as u64);
                self.rest -= n;
                bytes = &bytes[n as usize..];
                continue;
            }
            let n = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + n].copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
            if self.filled == HEADER {
                self.filled = 0;
                let length = &self.header[LENGTH..LENGTH + 8];
                self.rest = u64::from_be_bytes(length.try_into().expect("eight bytes"));
                self.ended |= self.rest == 0;
            }
        }
    }

    /// How many bytes are missing to the end of the current message or header; 0 after the last header.
    pub fn missing(&self) -> usize {
        match self.rest {
            _ if self.ended => 0,
            0 => HEADER - self.filled,
            rest => usize::try_from(rest).unwrap_or(usize::MAX),
        }
    }
}
