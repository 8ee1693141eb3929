//! A control socket in use: carries messages both ways, and beats that show that the peer is alive.
//!
//! 1. A message is a `u32` length and that many bytes. Length 0 is a beat, and `u32::MAX` the good-bye, the last thing
//!    sent.
//! 2. Messages are delivered in order on the link's own thread, so their handler must not block.
//! 3. A peer that sends nothing for [`SILENCE`], or closes without a good-bye, is reported as lost, once, as the last
//!    event.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{BEAT, Loss, SILENCE};

const BYE: u32 = u32::MAX;
/// The longest message in bytes. The start of a large lake sends long lists of files; anything longer must be an
/// error.
const LONGEST: u32 = 1 << 30;
/// How many bytes are allocated for a message before they have arrived.
const STEP: usize = 1 << 20;

/// An event of a link.
pub enum LinkEvent {
    /// A message.
    Message(Vec<u8>),
    /// The peer is lost.
    Lost(Loss),
}

/// See the module's header.
pub struct Link {
    messages: Option<Sender<Vec<u8>>>,
    stream: TcpStream,
    writer: Option<JoinHandle<()>>,
    /// Hangs up when the reading thread has ended.
    ended: Receiver<()>,
}

impl Link {
    /// Starts the link's threads. `hear` is called with each event (2).
    pub fn start(stream: TcpStream, name: &str, hear: impl FnMut(LinkEvent) + Send + 'static) -> io::Result<Link> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        // Unbounded, so that nobody blocks on a peer that hangs; the run bounds how much is under way.
        let (messages, outgoing) = unbounded::<Vec<u8>>();
        let (alive, ended) = unbounded::<()>();
        let writing = stream.try_clone()?;
        let writer = std::thread::Builder::new().name(format!("{name} out")).spawn(move || {
            if write(&writing, &outgoing).is_err() {
                // Closing the socket has the reading thread report the loss.
                let _ = writing.shutdown(Shutdown::Both);
            }
        })?;
        let reading = stream.try_clone()?;
        std::thread::Builder::new().name(format!("{name} in")).spawn(move || {
            let mut hear = hear;
            let _alive = alive;
            if let Err(loss) = read(&reading, &mut hear) {
                // Closing the socket ends a write that waits for the peer.
                let _ = reading.shutdown(Shutdown::Both);
                hear(LinkEvent::Lost(loss));
            }
        })?;
        Ok(Link {
            messages: Some(messages),
            stream,
            writer: Some(writer),
            ended,
        })
    }

    /// Queues a message, without blocking. Messages to a lost peer are dropped.
    pub fn send(&self, message: Vec<u8>) {
        if let Some(messages) = &self.messages {
            let _ = messages.send(message);
        }
    }

    /// Sends all queued messages, followed by the good-bye.
    pub fn finish(&mut self) {
        self.messages = None;
        if let Some(writer) = self.writer.take() {
            // The thread does not panic, and the reading thread has reported a failure to write.
            let _ = writer.join();
        }
    }

    /// Waits for the peer's good-bye, at most for `patience`.
    pub fn wait(&self, patience: Duration) {
        let _ = self.ended.recv_timeout(patience);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.messages = None;
        if self.writer.is_some() {
            // The link was dropped in the middle of a run.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

fn write(mut stream: &TcpStream, outgoing: &Receiver<Vec<u8>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match outgoing.recv_timeout(BEAT) {
            Ok(message) => put(&mut bytes, &message),
            Err(RecvTimeoutError::Timeout) => bytes.extend_from_slice(&0u32.to_be_bytes()),
            Err(RecvTimeoutError::Disconnected) => {
                stream.write_all(&BYE.to_be_bytes())?;
                return stream.flush();
            }
        }
        // Further messages that wait are written along, up to a bound.
        while bytes.len() < STEP
            && let Ok(message) = outgoing.try_recv()
        {
            put(&mut bytes, &message);
        }
        stream.write_all(&bytes)?;
        if bytes.capacity() > STEP {
            bytes = Vec::new();
        }
    }
}

fn put(bytes: &mut Vec<u8>, message: &[u8]) {
    debug_assert!(!message.is_empty() && message.len() <= LONGEST as usize);
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
}

fn read(stream: &TcpStream, hear: &mut impl FnMut(LinkEvent)) -> Result<(), Loss> {
    let mut stream = io::BufReader::with_capacity(1 << 16, stream);
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        match u32::from_be_bytes(length) {
            0 => {}
            BYE => return Ok(()),
            length if length > LONGEST => return Err(Loss::TooLong(u64::from(length))),
            length => {
                let mut message = Vec::new();
                while message.len() < length as usize {
                    let at = message.len();
                    message.resize((at + STEP).min(length as usize), 0);
                    // The read timeout applies to each piece, so that a long message may take longer.
                    stream.read_exact(&mut message[at..])?;
                }
                hear(LinkEvent::Message(message));
            }
        }
    }
}
