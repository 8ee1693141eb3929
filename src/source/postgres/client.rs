//! A connection to PostgreSQL, as its replication needs one: SQL by the simple protocol, rows that are taken as they come,
//! and the stream that follows START_REPLICATION.
//!
//! 1. Blocking, in the thread that uses it. Waiting for bytes ends every [`TICK`], so that a request to stop is seen and
//!    the server is answered; nothing spins.
//! 2. What is held is one message and what one read of the socket brought.
//! 3. Messages and logins are `postgres-protocol`'s, but for the one that opens a stream in both directions and what goes
//!    over it, which it does not know.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::message::backend::{self, DataRowBody, Header, Message};
use postgres_protocol::message::frontend;
use rustls::{ClientConnection, StreamOwned};
use socket2::{SockRef, TcpKeepalive};

use super::lsn::Lsn;
use super::tls;
use super::trouble::Trouble;
use crate::definition::{PostgresUrl, SslMode};
use crate::source::outlet::Ended;

/// The longest wait for bytes without a look at what else there is to do.
pub const TICK: Duration = Duration::from_millis(200);
/// How long a server may take to accept a connection, and to take what is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// By which a host that vanished is noticed where only it would speak.
const KEEP_ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10));
/// Bytes that are asked of the socket at once.
const CHUNK: usize = 128 * 1024;
/// The longest message; PostgreSQL makes none of more.
const MESSAGE: i32 = 1 << 30;
/// The tag of the message that opens a stream in both directions.
const COPY_BOTH: u8 = b'W';
/// Between Unix's beginning of time and PostgreSQL's, in microseconds.
pub const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Called while something is waited for; its error ends the wait.
pub type Tick<'a> = &'a mut dyn FnMut() -> Result<(), Ended>;

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
        frontend::terminate(&mut self.out);
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
            // What values look like, and how long things may take, does not depend on how the server is set up. Rows that a
            // policy hides are an error, not absent.
            (
                "options",
                "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c timezone=UTC -c bytea_output=hex \
                 -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c wal_sender_timeout=60s \
                 -c row_security=off",
            ),
        ];
        frontend::startup_message(parameters, &mut client.out)?;
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
        SockRef::from(&stream).set_tcp_keepalive(&KEEP_ALIVE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut encrypted = false;
        if url.tls != SslMode::Disable {
            let mut request = BytesMut::with_capacity(8);
            frontend::ssl_request(&mut request);
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
        let mut scram: Option<ScramSha256> = None;
        let failed = |error: io::Error| Trouble::Wrong(format!("the login failed: {error}"));
        let started = Instant::now();
        let mut in_time = || match started.elapsed() < PATIENCE {
            true => tick(),
            false => Err(Ended::Stopped),
        };
        loop {
            let message = match self.message(&mut in_time) {
                Err(Trouble::Ended(_)) if started.elapsed() >= PATIENCE => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the server lets nobody in").into());
                }
                other => other?,
            };
            match message {
                Message::ErrorResponse(body) => return Err((&body).into()),
                Message::ReadyForQuery(_) => return Ok(()),
                Message::AuthenticationCleartextPassword if matches!(self.stream, Stream::Plain(_)) => {
                    let what = "the server asks for the password itself over a connection that is not encrypted; set sslmode=require";
                    return Err(Trouble::Wrong(what.into()));
                }
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?.as_bytes(), &mut self.out)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(url.user.as_bytes(), password()?.as_bytes(), body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.out)?;
                }
                Message::AuthenticationSasl(body) => {
                    if !body
                        .mechanisms()
                        .any(|name| Ok(name == SCRAM_SHA_256))
                        .map_err(failed)?
                    {
                        return Err(unknown_login());
                    }
                    let begun = ScramSha256::new(password()?.as_bytes(), ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), &mut self.out)?;
                    scram = Some(begun);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram = scram.as_mut().ok_or_else(out_of_turn)?;
                    scram.update(body.data()).map_err(failed)?;
                    frontend::sasl_response(scram.message(), &mut self.out)?;
                }
                // It proves that the server knows the password too.
                Message::AuthenticationSaslFinal(body) => {
                    let scram = scram.as_mut().ok_or_else(out_of_turn)?;
                    scram.finish(body.data()).map_err(failed)?;
                }
                Message::AuthenticationKerberosV5
                | Message::AuthenticationGss
                | Message::AuthenticationSspi
                | Message::AuthenticationScmCredential => return Err(unknown_login()),
                _ => continue, // that we are let in, the server's parameters, notices
            }
            self.flush()?;
        }
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

    /// What the next message is, if all of it is here.
    fn whole(&self) -> Result<Option<Header>, Trouble> {
        let Some(header) = Header::parse(&self.inbox).map_err(Trouble::unread)? else {
            return Ok(None);
        };
        match header.len() {
            length if length > MESSAGE => Err(Trouble::Wrong(format!("the server sent a message of {length} bytes"))),
            length => Ok((self.inbox.len() > length as usize).then_some(header)),
        }
    }

    /// The next message, if all of it is here.
    fn take(&mut self) -> Result<Option<Message>, Trouble> {
        match self.whole()? {
            None => Ok(None),
            Some(_) => Message::parse(&mut self.inbox).map_err(Trouble::unread),
        }
    }

    /// The next message, waited for.
    fn message(&mut self, tick: Tick<'_>) -> Result<Message, Trouble> {
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
        frontend::query(sql, &mut self.out)?;
        self.flush()?;
        let (mut refused, mut columns) = (None, Vec::new());
        loop {
            match self.message(tick)? {
                Message::RowDescription(body) => {
                    let named = |field: backend::Field<'_>| Ok((field.name().to_string(), field.type_oid()));
                    columns = body.fields().map(named).collect().map_err(Trouble::unread)?;
                }
                Message::DataRow(body) => row(&columns, &Row::new(body).map_err(Trouble::unread)?)?,
                Message::ErrorResponse(body) => refused = Some((&body).into()),
                Message::ReadyForQuery(_) => return refused.map_or(Ok(()), Err),
                _ => {}
            }
        }
    }

    /// Runs SQL; the rows of its answers.
    pub fn query(&mut self, sql: &str, tick: Tick<'_>) -> Result<Vec<Texts>, Trouble> {
        let mut rows = Vec::new();
        self.query_each(sql, tick, |_, row| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            rows.push(row.values().map(|value| value.map(text)).collect());
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
        frontend::query(&sql, &mut self.out)?;
        self.flush()?;
        loop {
            match self.whole()? {
                None => {
                    if !self.fill()? {
                        tick()?;
                    }
                }
                Some(header) if header.tag() == COPY_BOTH => {
                    self.inbox.advance(1 + header.len() as usize);
                    return Ok(());
                }
                Some(_) => {
                    if let Some(Message::ErrorResponse(body)) = self.take()? {
                        return Err((&body).into());
                    }
                }
            }
        }
    }

    /// What the stream brings next; none: nothing within [`TICK`].
    pub fn next_streamed(&mut self) -> Result<Option<Streamed>, Trouble> {
        loop {
            let Some(message) = self.take()? else {
                match self.fill()? {
                    true => continue,
                    false => return Ok(None),
                }
            };
            match message {
                Message::CopyData(body) => return streamed(body.into_bytes()).map(Some),
                Message::ErrorResponse(body) => return Err((&body).into()),
                Message::CopyDone | Message::ReadyForQuery(_) => {
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
        let mut status = BytesMut::with_capacity(34);
        status.put_u8(b'r');
        status.put_u64(taken.0.max(kept.0));
        status.put_u64(kept.0);
        status.put_u64(kept.0);
        status.put_i64(micros - POSTGRES_EPOCH);
        status.put_u8(u8::from(answer));
        frontend::CopyData::new(status)?.write(&mut self.out);
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

/// A row of an answer, which was looked through when it was read.
pub struct Row(DataRowBody);

impl Row {
    fn new(body: DataRowBody) -> io::Result<Row> {
        body.ranges().for_each(|_| Ok(()))?;
        Ok(Row(body))
    }

    /// Its values, as PostgreSQL prints them.
    pub fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let ranges = self.0.ranges().iterator();
        ranges.map(|range| Some(&self.0.buffer()[range.expect("it was looked through when it was read")?]))
    }
}

fn unknown_login() -> Trouble {
    let what = "the server asks for a way to log in that is not known here; known are SCRAM-SHA-256, md5, and passwords over TLS";
    Trouble::Wrong(what.into())
}

fn out_of_turn() -> Trouble {
    Trouble::Wrong("the server answered out of turn".into())
}

/// A name in SQL.
pub fn quoted(name: &str) -> String {
    escape_identifier(name)
}

/// A text in SQL.
pub fn literal(text: &str) -> String {
    escape_literal(text)
}
