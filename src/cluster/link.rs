//! A control socket in use: messages both ways, and a beat that shows that the peer is there.
//!
//! 1. A message is `u32` length, bytes. Length 0 is a beat, `u32::MAX` the good-bye behind which nothing comes.
//! 2. Messages arrive in order, on the link's own thread, which does nothing else: what they do there must not wait.
//! 3. A peer that says nothing for [`SILENCE`], or goes without a good-bye, is told as lost, once, and last.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{BEAT, Loss, SILENCE};

const BYE: u32 = u32::MAX;
/// The longest message. What is known of a lake's files at a start may be long; a mistake is longer.
const LONGEST: u32 = 1 << 30;
/// Room that a message gets before its bytes are there.
const STEP: usize = 1 << 20;

/// What a link tells.
pub enum Heard {
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
    /// Starts its threads. `hear` gets what the peer says, by (2).
    pub fn start(stream: TcpStream, name: &str, hear: impl FnMut(Heard) + Send + 'static) -> io::Result<Link> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        // Few wait: the run bounds what is under way. Unbounded, so that nobody waits for a peer that hangs.
        let (messages, outgoing) = unbounded::<Vec<u8>>();
        let (alive, ended) = unbounded::<()>();
        let writing = stream.try_clone()?;
        let writer = std::thread::Builder::new().name(format!("{name} out")).spawn(move || {
            if write(&writing, &outgoing).is_err() {
                // The reading thread sees it and says so.
                let _ = writing.shutdown(Shutdown::Both);
            }
        })?;
        let reading = stream.try_clone()?;
        std::thread::Builder::new().name(format!("{name} in")).spawn(move || {
            let mut hear = hear;
            let _alive = alive;
            if let Err(loss) = read(&reading, &mut hear) {
                // A write that waits for the peer ends.
                let _ = reading.shutdown(Shutdown::Both);
                hear(Heard::Lost(loss));
            }
        })?;
        Ok(Link {
            messages: Some(messages),
            stream,
            writer: Some(writer),
            ended,
        })
    }

    /// Sends a message, without waiting. One to a lost peer goes nowhere.
    pub fn send(&self, message: Vec<u8>) {
        if let Some(messages) = &self.messages {
            let _ = messages.send(message);
        }
    }

    /// Says good-bye behind the last message.
    pub fn finish(&mut self) {
        self.messages = None;
        if let Some(writer) = self.writer.take() {
            // It panics nowhere, and a failure to write has been told.
            let _ = writer.join();
        }
    }

    /// Waits for the peer's own good-bye, at most so long.
    pub fn wait(&self, patience: Duration) {
        let _ = self.ended.recv_timeout(patience);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.messages = None;
        if self.writer.is_some() {
            // Cut off in the middle of a run.
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
        // What waits goes along, within bounds.
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

fn read(stream: &TcpStream, hear: &mut impl FnMut(Heard)) -> Result<(), Loss> {
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
                    // Each piece in time: the whole may take longer.
                    stream.read_exact(&mut message[at..])?;
                }
                hear(Heard::Message(message));
            }
        }
    }
}
