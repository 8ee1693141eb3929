//! timely's allocators over data sockets, and what keeps a lost peer from tearing the process down.
//!
//! timely's network threads panic where a socket fails, and poison the workers. So they get a [`Guarded`] socket:
//! 1. A failure is told to the run, once for each peer, and hidden from timely: writes vanish, a read waits.
//! 2. Once no worker is left ([`Network::cut`]) a waiting read ends as if the peer had shut down in order: what is
//!    missing of a message is filled up, for nobody to see, and timely's last header follows. So the threads end, too.
//! 3. In order, a process's sockets close after all its peers have said their last ([`Network::close`]).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use timely::communication::allocator::zero_copy::initialize::{CommsGuard, initialize_networking_from_sockets};
use timely::communication::allocator::zero_copy::stream::Stream;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::initialize::Hooks;

use super::Loss;

/// Bytes of timely's message header (`networking::MessageHeader`): six big-endian `u64`.
const HEADER: usize = 48;
/// Where in it the length of what follows is; 0 in the last one.
const LENGTH: usize = 32;

/// The network threads of a process.
pub struct Network {
    guard: Option<CommsGuard>,
    cut: Arc<Cut>,
    sockets: Vec<TcpStream>,
}

/// What is done about a lost peer: given its index.
type OnLoss = Arc<dyn Fn(usize, Loss) + Send + Sync>;

/// Builds the allocators of this process's workers. `sockets` are by process; none for our own.
pub fn network(
    sockets: Vec<Option<TcpStream>>,
    process: usize,
    workers: usize,
    on_loss: OnLoss,
) -> io::Result<(Vec<AllocatorBuilder>, Network)> {
    let cut = Arc::new(Cut::default());
    let mut held = Vec::new();
    let mut guarded = Vec::new();
    for (peer, socket) in sockets.into_iter().enumerate() {
        let Some(socket) = socket else {
            guarded.push(None);
            continue;
        };
        socket.set_nodelay(true)?;
        held.push(socket.try_clone()?);
        guarded.push(Some(Guarded {
            socket,
            peer,
            watch: Arc::new(Watch {
                told: AtomicBool::new(false),
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
        sockets: held,
    };
    Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), network))
}

impl Network {
    /// Cuts the sockets off, once no worker of this process is left; by (2).
    pub fn cut(&self) {
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        *self.cut.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.cut.changed.notify_all();
    }

    /// Waits until the network's threads have ended: every peer's workers have, or [`Network::cut`] was called.
    pub fn close(mut self) {
        if let Some(guard) = self.guard.take() {
            // A worker that panicked has poisoned them; that has been told.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(guard)));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            // Abandoned: joining could wait for ever.
            self.cut();
            std::mem::forget(guard);
        }
    }
}

#[derive(Default)]
struct Cut {
    done: Mutex<bool>,
    changed: Condvar,
}

struct Watch {
    told: AtomicBool,
    on_loss: OnLoss,
    cut: Arc<Cut>,
}

/// A socket as timely gets it.
struct Guarded {
    socket: TcpStream,
    peer: usize,
    watch: Arc<Watch>,
    frames: Frames,
    /// Nothing more is read from the socket.
    lost: bool,
}

impl Guarded {
    fn tell(&self, loss: Loss) {
        if !self.watch.told.swap(true, Ordering::AcqRel) {
            (self.watch.on_loss)(self.peer, loss);
        }
    }

    fn wait_for_cut(&self) {
        let done = self.watch.cut.done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.watch.cut.changed.wait_while(done, |done| !*done);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Read for Guarded {
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
            self.tell(loss);
            self.wait_for_cut();
            self.lost = true;
        }
        let n = self.frames.missing().min(bytes.len());
        bytes[..n].fill(0);
        self.frames.observe(&bytes[..n]);
        Ok(n)
    }
}

impl Write for Guarded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.write(bytes) {
                Ok(0) if !bytes.is_empty() => self.tell(Loss::Closed),
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => self.tell(error.into()),
            }
            return Ok(bytes.len());
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Guarded {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Guarded {
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
        // A peer that is gone already has been told of.
        let _ = self.socket.shutdown(how);
        Ok(())
    }
}

/// Where in timely's messages a stream is.
pub(super) struct Frames {
    header: [u8; HEADER],
    filled: usize,
    /// Bytes of the message that are still to come.
    rest: u64,
    /// The last header has come.
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
    /// These bytes came.
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

    /// Bytes up to the end of the message or header that is under way; 0 behind the last header.
    pub fn missing(&self) -> usize {
        match self.rest {
            _ if self.ended => 0,
            0 => HEADER - self.filled,
            rest => usize::try_from(rest).unwrap_or(usize::MAX),
        }
    }
}
