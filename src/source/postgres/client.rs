//! A connection to PostgreSQL, as its replication needs one: SQL by the simple protocol, rows that are taken as they come,
//! and the stream that follows START_REPLICATION.
//!
//! 1. Blocking, in the thread that uses it. Waiting for bytes ends every [`TICK`], so that a request to stop is seen and
//!    the server is answered; nothing spins.
//! 2. What is held is one message and what one read of the socket brought.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustls::{ClientConnection, StreamOwned};
use thiserror::Error;

use super::lsn::Lsn;
use super::scram::{self, Scram};
use super::tls;
use crate::definition::{PostgresUrl, SslMode};
use crate::source::outlet::Ended;

/// The longest wait for bytes without a look at what else there is to do.
pub const TICK: Duration = Duration::from_millis(200);
/// How long a server may take to accept a connection, and to take what is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are asked of the socket at once.
const CHUNK: usize = 128 * 1024;
/// The longest message; PostgreSQL makes none of more.
const MESSAGE: usize = 1 << 30;
/// The version of the protocol, and what asks for encryption in its place.
const PROTOCOL: u32 = 0x0003_0000;
const ENCRYPTION: u32 = 80_877_103;
/// Between Unix's beginning of time and PostgreSQL's, in microseconds.
pub const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Called while something is waited for; its error ends the wait.
pub type Tick<'a> = &'a mut dyn FnMut() -> Result<(), Ended>;

/// Why a server's answer is not to be had.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The connection broke, or none could be made.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server refuses.
    #[error("{0}")]
    Server(Box<Refusal>),
    /// It speaks otherwise than it should, or the connection cannot be made as it is defined.
    #[error("{0}")]
    Wrong(String),
    /// The wait was ended.
    #[error("stopped")]
    Ended(Ended),
}

impl From<Ended> for Trouble {
    fn from(ended: Ended) -> Self {
        Trouble::Ended(ended)
    }
}

/// An error that the server reports.
#[derive(Debug, Default, Error)]
#[error("{message}{} (SQLSTATE {code})", detail.as_ref().map(|detail| format!("; {detail}")).unwrap_or_default())]
pub struct Refusal {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
}

impl Trouble {
    /// Whether it may be over later without anybody's help: the server is away, starts, or is at its limits, or the slot is
    /// still held by a connection that has ended.
    pub fn passes(&self) -> bool {
        match self {
            Trouble::Io(_) => true,
            Trouble::Server(refusal) => {
                let class = refusal.code.get(..2).unwrap_or_default();
                matches!(class, "08" | "53" | "57" | "58") || refusal.code == "55006"
            }
            Trouble::Wrong(_) | Trouble::Ended(_) => false,
        }
    }

    /// Whether the server refuses for this reason.
    pub fn is(&self, code: &str) -> bool {
        matches!(self, Trouble::Server(refusal) if refusal.code == code)
    }
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(bytes),
            Stream::Encrypted(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Encrypted(stream) => stream.flush(),
        }
    }
}

/// A row of an answer: its values as texts.
pub type Texts = Vec<Option<String>>;

/// What the replication stream brings.
pub enum Streamed {
    /// What the output plugin says.
    Data(Bytes),
    /// Everything before this was sent; whether an answer is asked for.
    Alive { end: Lsn, answer: bool },
}

/// See the module's header.
pub struct Client {
    stream: Stream,
    inbox: BytesMut,
    out: BytesMut,
    /// When bytes came last.
    heard: Instant,
}

/// Ends the session, so that the server gives the slot free at once.
impl Drop for Client {
    fn drop(&mut self) {
        self.out.clear();
        self.say(b'X', |_| {});
        // A connection that broke has ended already.
        let _ = self.flush();
    }
}

impl Client {
    /// Connects for replication: SQL is taken too.
    pub fn connect(url: &PostgresUrl, tick: Tick<'_>) -> Result<Client, Trouble> {
        let mut client = Client::open(url, tick)?;
        let parameters = [
            ("user", url.user.as_str()),
            ("database", &url.database),
            ("replication", "database"),
            ("application_name", "alluvium"),
            ("client_encoding", "UTF8"),
            // What values look like does not depend on how the server is set up.
            (
                "options",
                "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=1 -c timezone=UTC -c bytea_output=hex \
                 -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0",
            ),
        ];
        client.framed(|out| {
            out.put_u32(PROTOCOL);
            parameters.iter().for_each(|(name, value)| {
                put_text(name, out);
                put_text(value, out);
            });
            out.put_u8(0);
        });
        client.flush()?;
        client.authenticate(url, tick)?;
        Ok(client)
    }

    fn open(url: &PostgresUrl, tick: Tick<'_>) -> Result<Client, Trouble> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name stands for no address");
        for address in (url.host.as_str(), url.port).to_socket_addrs()? {
            tick()?;
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return Client::secured(stream, url),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    fn secured(mut stream: TcpStream, url: &PostgresUrl) -> Result<Client, Trouble> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut encrypted = false;
        if url.tls != SslMode::Disable {
            let mut request = BytesMut::with_capacity(8);
            request.put_u32(8);
            request.put_u32(ENCRYPTION);
            stream.write_all(&request)?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            encrypted = answer[0] == b'S';
            if !encrypted && url.tls != SslMode::Prefer {
                return Err(Trouble::Wrong(
                    "the server offers no TLS, and sslmode asks for it".into(),
                ));
            }
        }
        let stream = match encrypted {
            false => {
                stream.set_read_timeout(Some(TICK))?;
                Stream::Plain(stream)
            }
            true => {
                let mut connection = tls::connection(url).map_err(Trouble::Wrong)?;
                while connection.is_handshaking() {
                    // Certificates do not get better by trying again.
                    connection
                        .complete_io(&mut stream)
                        .map_err(|error| match error.kind() {
                            io::ErrorKind::InvalidData => Trouble::Wrong(format!("TLS: {error}")),
                            _ => error.into(),
                        })?;
                }
                stream.set_read_timeout(Some(TICK))?;
                Stream::Encrypted(Box::new(StreamOwned::new(connection, stream)))
            }
        };
        Ok(Client {
            stream,
            inbox: BytesMut::new(),
            out: BytesMut::new(),
            heard: Instant::now(),
        })
    }

    fn authenticate(&mut self, url: &PostgresUrl, tick: Tick<'_>) -> Result<(), Trouble> {
        let password = || {
            let password = url.password.as_deref();
            password.ok_or_else(|| Trouble::Wrong("the server asks for a password, and the address has none".into()))
        };
        let mut scram: Option<Scram> = None;
        let started = Instant::now();
        let mut in_time = || match started.elapsed() < PATIENCE {
            true => tick(),
            false => Err(Ended::Stopped),
        };
        loop {
            let (tag, body) = match self.message(&mut in_time) {
                Err(Trouble::Ended(_)) if started.elapsed() >= PATIENCE => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the server lets nobody in").into());
                }
                other => other?,
            };
            match tag {
                b'R' => {}
                b'E' => return Err(refusal(&body)),
                b'Z' => return Ok(()),
                _ => continue, // the server's parameters, notices
            }
            let Some((way, said)) = body.split_first_chunk() else {
                return Err(out_of_turn());
            };
            match u32::from_be_bytes(*way) {
                0 => {}
                3 if matches!(self.stream, Stream::Plain(_)) => {
                    let what = "the server asks for the password itself over a connection that is not encrypted; set sslmode=require";
                    return Err(Trouble::Wrong(what.into()));
                }
                3 => {
                    let password = password()?;
                    self.say(b'p', |out| put_text(password, out));
                }
                10 => {
                    if !said.split(|byte| *byte == 0).any(|name| name == scram::NAME.as_bytes()) {
                        return Err(unknown_login());
                    }
                    let nonce: [u8; 18] = rand::random();
                    let first = scram.insert(Scram::new(STANDARD.encode(nonce))).first();
                    self.say(b'p', |out| {
                        put_text(scram::NAME, out);
                        out.put_u32(first.len() as u32);
                        out.put_slice(first.as_bytes());
                    });
                }
                11 => {
                    let answer = scram.as_mut().ok_or_else(out_of_turn)?.answer(said, password()?);
                    let answer = answer.map_err(|why| Trouble::Wrong(why.into()))?;
                    self.say(b'p', |out| out.put_slice(answer.as_bytes()));
                }
                12 => {
                    if !scram.as_ref().is_some_and(|scram| scram.is_proven(said)) {
                        return Err(Trouble::Wrong("the server does not know the password itself".into()));
                    }
                }
                _ => return Err(unknown_login()),
            }
            self.flush()?;
        }
    }

    /// Puts a message into what is sent next: its length, then what `body` writes.
    fn framed(&mut self, body: impl FnOnce(&mut BytesMut)) {
        let start = self.out.len();
        self.out.put_u32(0);
        body(&mut self.out);
        let length = (self.out.len() - start) as u32;
        self.out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// The same behind a tag.
    fn say(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut)) {
        self.out.put_u8(tag);
        self.framed(body);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        self.stream.flush()
    }

    /// Takes what the socket has; false: nothing for now, by (1).
    fn fill(&mut self) -> io::Result<bool> {
        self.inbox.reserve(CHUNK);
        let before = self.inbox.len();
        self.inbox.resize(before + CHUNK, 0);
        let read = self.stream.read(&mut self.inbox[before..]);
        self.inbox.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server ended the connection",
            )),
            Ok(_) => {
                self.heard = Instant::now();
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// When bytes came last.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// How long nothing has come.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// The next message's tag, if all of the message is here.
    fn whole(&self) -> Result<Option<u8>, Trouble> {
        let [tag, a, b, c, d, ..] = self.inbox[..] else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=MESSAGE).contains(&length) {
            return Err(Trouble::Wrong(format!("the server sent a message of {length} bytes")));
        }
        Ok((self.inbox.len() > length).then_some(tag))
    }

    /// The next message, if all of it is here: its tag, and what it says.
    fn take(&mut self) -> Result<Option<(u8, Bytes)>, Trouble> {
        let Some(tag) = self.whole()? else { return Ok(None) };
        let length = (&self.inbox[1..5]).get_u32() as usize;
        let mut message = self.inbox.split_to(1 + length).freeze();
        message.advance(5);
        Ok(Some((tag, message)))
    }

    /// The next message, waited for.
    fn message(&mut self, tick: Tick<'_>) -> Result<(u8, Bytes), Trouble> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if !self.fill()? {
                tick()?;
            }
        }
    }

    /// Runs SQL, each row of whose answers is taken as it comes, behind its columns' names and types.
    pub fn query_each(
        &mut self,
        sql: &str,
        tick: Tick<'_>,
        mut row: impl FnMut(&[(String, u32)], &Row) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.say(b'Q', |out| put_text(sql, out));
        self.flush()?;
        let (mut refused, mut columns) = (None, Vec::new());
        loop {
            let (tag, body) = self.message(tick)?;
            match tag {
                b'T' => columns = described(&body).ok_or_else(out_of_turn)?,
                b'D' => row(&columns, &Row(body))?,
                b'E' => refused = Some(refusal(&body)),
                b'Z' => return refused.map_or(Ok(()), Err),
                _ => {}
            }
        }
    }

    /// Runs SQL; the rows of its answers.
    pub fn query(&mut self, sql: &str, tick: Tick<'_>) -> Result<Vec<Texts>, Trouble> {
        let mut rows = Vec::new();
        self.query_each(sql, tick, |_, row| {
            let values = row.values().ok_or_else(out_of_turn)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            rows.push(values.into_iter().map(|value| value.map(text)).collect());
            Ok(())
        })?;
        Ok(rows)
    }

    /// Starts the stream of a slot, at the first transaction that commits at `from` or later.
    pub fn start_replication(
        &mut self,
        slot: &str,
        from: Lsn,
        publications: &[String],
        tick: Tick<'_>,
    ) -> Result<(), Trouble> {
        let names: Vec<String> = publications.iter().map(|name| quoted(name)).collect();
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {})",
            quoted(slot),
            literal(&names.join(","))
        );
        self.say(b'Q', |out| put_text(&sql, out));
        self.flush()?;
        loop {
            match self.message(tick)? {
                (b'W', _) => return Ok(()),
                (b'E', body) => return Err(refusal(&body)),
                _ => {}
            }
        }
    }

    /// What the stream brings next; none: nothing within [`TICK`].
    pub fn next_streamed(&mut self) -> Result<Option<Streamed>, Trouble> {
        loop {
            let Some((tag, body)) = self.take()? else {
                match self.fill()? {
                    true => continue,
                    false => return Ok(None),
                }
            };
            match tag {
                b'd' => return streamed(body).map(Some),
                b'E' => return Err(refusal(&body)),
                b'c' | b'Z' => {
                    let ended = io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the stream");
                    return Err(ended.into());
                }
                _ => {}
            }
        }
    }

    /// Whether something of the stream is here already.
    pub fn has_more(&self) -> bool {
        matches!(self.whole(), Ok(Some(_)) | Err(_))
    }

    /// Tells the server how far the stream is taken, and how far it is never asked for again.
    pub fn confirm(&mut self, taken: Lsn, kept: Lsn, answer: bool) -> Result<(), Trouble> {
        let micros = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as i64);
        self.say(b'd', |out| {
            out.put_u8(b'r');
            out.put_u64(taken.0.max(kept.0));
            out.put_u64(kept.0);
            out.put_u64(kept.0);
            out.put_i64(micros - POSTGRES_EPOCH);
            out.put_u8(u8::from(answer));
        });
        Ok(self.flush()?)
    }
}

fn streamed(mut bytes: Bytes) -> Result<Streamed, Trouble> {
    match bytes.first() {
        Some(b'w') if bytes.len() >= 25 => {
            bytes.advance(25); // where this is in the log, where that ends, and when it was sent
            Ok(Streamed::Data(bytes))
        }
        Some(b'k') if bytes.len() >= 18 => {
            bytes.advance(1);
            let end = Lsn(bytes.get_u64());
            bytes.advance(8);
            let answer = bytes[0] == 1;
            Ok(Streamed::Alive { end, answer })
        }
        _ => Err(Trouble::Wrong(
            "the stream brought something that is neither data nor a sign of life".into(),
        )),
    }
}

/// A row of an answer.
pub struct Row(Bytes);

impl Row {
    /// Its values, as PostgreSQL prints them; the outer none: it is none.
    pub fn values(&self) -> Option<Vec<Option<&[u8]>>> {
        let (count, mut rest) = self.0.split_first_chunk()?;
        let mut values = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, behind) = rest.split_first_chunk()?;
            rest = behind;
            values.push(match i32::from_be_bytes(*length) {
                -1 => None,
                length => {
                    let (value, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                    rest = behind;
                    Some(value)
                }
            });
        }
        Some(values)
    }
}

/// The names and types of an answer's columns.
fn described(body: &[u8]) -> Option<Vec<(String, u32)>> {
    let (count, mut rest) = body.split_first_chunk()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let end = memchr::memchr(0, rest)?;
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        // Behind the name: its table and number there, then the type, its length and modifier, and the format.
        let (told, behind) = rest[end + 1..].split_at_checked(18)?;
        columns.push((name, u32::from_be_bytes(*told[6..].first_chunk()?)));
        rest = behind;
    }
    Some(columns)
}

fn refusal(body: &[u8]) -> Trouble {
    let mut refusal = Refusal::default();
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else { break };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => refusal.code = text,
            b'M' => refusal.message = text,
            b'D' => refusal.detail = Some(text),
            _ => {}
        }
    }
    Trouble::Server(Box::new(refusal))
}

fn unknown_login() -> Trouble {
    let what =
        "the server asks for a way to log in that is not known here; known are SCRAM-SHA-256, and passwords over TLS";
    Trouble::Wrong(what.into())
}

fn put_text(text: &str, out: &mut BytesMut) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn out_of_turn() -> Trouble {
    Trouble::Wrong("the server answered out of turn".into())
}

/// A name in SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL.
pub fn literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}
