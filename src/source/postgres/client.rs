//! A connection to PostgreSQL as replication needs it: SQL by the simple query protocol, rows processed as they
//! arrive, and the stream that follows START_REPLICATION.
//!
//! 1. The client blocks, in the thread that uses it. A wait for bytes ends after at most [`TICK`], so that a request
//!    to stop is noticed and the server's keepalives are answered; nothing spins.
//! 2. It buffers at most one message and the bytes of one read.
//! 3. `postgres-protocol` parses messages and does logins. It does not know CopyBothResponse, nor the messages within
//!    that stream, which are parsed here.

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

use super::error::PostgresError;
use super::lsn::Lsn;
use super::tls;
use crate::definition::{PostgresUrl, SslMode};
use crate::source::error::ReaderExit;

/// The longest wait for bytes before other duties are checked.
pub const TICK: Duration = Duration::from_millis(200);
/// How long a server may take to accept a connection, and to receive what is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Detects a host that has vanished, on a connection on which only the host would send.
const KEEP_ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10));
/// How many bytes one read of the socket asks for.
const CHUNK: usize = 128 * 1024;
/// The longest message; PostgreSQL never sends a longer one.
const MESSAGE: i32 = 1 << 30;
/// The tag of CopyBothResponse, which opens a stream in both directions.
const COPY_BOTH: u8 = b'W';
/// From the Unix epoch to PostgreSQL's, in microseconds.
pub const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Called while the client waits; an error ends the wait.
pub type WaitCheck<'a> = &'a mut dyn FnMut() -> Result<(), ReaderExit>;

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

/// A row of a result, with its values as text.
pub type TextRow = Vec<Option<String>>;

/// A message of the replication stream.
pub enum Streamed {
    /// A message of the output plugin.
    Data(Bytes),
    /// A keepalive: everything before `end` was sent. `answer` tells whether the server wants a reply.
    Alive { end: Lsn, answer: bool },
}

/// See the module's header.
pub struct PostgresClient {
    stream: Stream,
    inbox: BytesMut,
    out: BytesMut,
    /// When bytes last arrived.
    heard: Instant,
}

/// Ends the session, so that the server releases the slot at once.
impl Drop for PostgresClient {
    fn drop(&mut self) {
        self.out.clear();
        frontend::terminate(&mut self.out);
        // If the connection is broken, the session has ended anyway.
        let _ = self.flush();
    }
}

impl PostgresClient {
    /// Connects for replication; such a connection also accepts SQL.
    pub fn connect(url: &PostgresUrl, tick: WaitCheck<'_>) -> Result<PostgresClient, PostgresError> {
        let mut client = PostgresClient::open(url, tick)?;
        let parameters = [
            ("user", url.user.as_str()),
            ("database", &url.database),
            ("replication", "database"),
            ("application_name", "alluvium"),
            ("client_encoding", "UTF8"),
            // These make the format of values and the timeouts independent of the server's configuration, and make
            // it an error if a policy hides rows.
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

    fn open(url: &PostgresUrl, tick: WaitCheck<'_>) -> Result<PostgresClient, PostgresError> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name stands for no address");
        for address in (url.host.as_str(), url.port).to_socket_addrs()? {
            tick()?;
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return PostgresClient::secured(stream, url),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    fn secured(mut stream: TcpStream, url: &PostgresUrl) -> Result<PostgresClient, PostgresError> {
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
                return Err(PostgresError::Wrong(
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
                let mut connection = tls::connection(url).map_err(PostgresError::Wrong)?;
                while connection.is_handshaking() {
                    // A certificate error does not pass with retries.
                    connection
                        .complete_io(&mut stream)
                        .map_err(|error| match error.kind() {
                            io::ErrorKind::InvalidData => PostgresError::Wrong(format!("TLS: {error}")),
                            _ => error.into(),
                        })?;
                }
                stream.set_read_timeout(Some(TICK))?;
                Stream::Encrypted(Box::new(StreamOwned::new(connection, stream)))
            }
        };
        Ok(PostgresClient {
            stream,
            inbox: BytesMut::new(),
            out: BytesMut::new(),
            heard: Instant::now(),
        })
    }

    fn authenticate(&mut self, url: &PostgresUrl, tick: WaitCheck<'_>) -> Result<(), PostgresError> {
        let password = || {
            let password = url.password.as_deref();
            password
                .ok_or_else(|| PostgresError::Wrong("the server asks for a password, and the address has none".into()))
        };
        let mut scram: Option<ScramSha256> = None;
        let failed = |error: io::Error| PostgresError::Wrong(format!("the login failed: {error}"));
        let started = Instant::now();
        let mut in_time = || match started.elapsed() < PATIENCE {
            true => tick(),
            false => Err(ReaderExit::Stopped),
        };
        loop {
            let message = match self.message(&mut in_time) {
                Err(PostgresError::Ended(_)) if started.elapsed() >= PATIENCE => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the server lets nobody in").into());
                }
                other => other?,
            };
            match message {
                Message::ErrorResponse(body) => return Err((&body).into()),
                Message::ReadyForQuery(_) => return Ok(()),
                Message::AuthenticationCleartextPassword if matches!(self.stream, Stream::Plain(_)) => {
                    let what = "the server asks for the password itself over a connection that is not encrypted; set sslmode=require";
                    return Err(PostgresError::Wrong(what.into()));
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
                // The server's signature proves that it knows the password, too.
                Message::AuthenticationSaslFinal(body) => {
                    let scram = scram.as_mut().ok_or_else(out_of_turn)?;
                    scram.finish(body.data()).map_err(failed)?;
                }
                Message::AuthenticationKerberosV5
                | Message::AuthenticationGss
                | Message::AuthenticationSspi
                | Message::AuthenticationScmCredential => return Err(unknown_login()),
                _ => continue, // AuthenticationOk, server parameters, notices
            }
            self.flush()?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        self.stream.flush()
    }

    /// Reads what the socket has; false if there is nothing now, by (1).
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

    /// When bytes last arrived.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// How long no bytes have arrived.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// The header of the next message, if the message has arrived completely.
    fn whole(&self) -> Result<Option<Header>, PostgresError> {
        let Some(header) = Header::parse(&self.inbox).map_err(PostgresError::unread)? else {
            return Ok(None);
        };
        match header.len() {
            length if length > MESSAGE => Err(PostgresError::Wrong(format!(
                "the server sent a message of {length} bytes"
            ))),
            length => Ok((self.inbox.len() > length as usize).then_some(header)),
        }
    }

    /// The next message, if it has arrived completely.
    fn take(&mut self) -> Result<Option<Message>, PostgresError> {
        match self.whole()? {
            None => Ok(None),
            Some(_) => Message::parse(&mut self.inbox).map_err(PostgresError::unread),
        }
    }

    /// Waits for the next message.
    fn message(&mut self, tick: WaitCheck<'_>) -> Result<Message, PostgresError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if !self.fill()? {
                tick()?;
            }
        }
    }

    /// Runs SQL, and calls `row` for each row as it arrives, with the columns' names and type OIDs.
    pub fn query_each(
        &mut self,
        sql: &str,
        tick: WaitCheck<'_>,
        mut row: impl FnMut(&[(String, u32)], &QueryRow) -> Result<(), PostgresError>,
    ) -> Result<(), PostgresError> {
        frontend::query(sql, &mut self.out)?;
        self.flush()?;
        let (mut refused, mut columns) = (None, Vec::new());
        loop {
            match self.message(tick)? {
                Message::RowDescription(body) => {
                    let named = |field: backend::Field<'_>| Ok((field.name().to_string(), field.type_oid()));
                    columns = body.fields().map(named).collect().map_err(PostgresError::unread)?;
                }
                Message::DataRow(body) => row(&columns, &QueryRow::new(body).map_err(PostgresError::unread)?)?,
                Message::ErrorResponse(body) => refused = Some((&body).into()),
                Message::ReadyForQuery(_) => return refused.map_or(Ok(()), Err),
                _ => {}
            }
        }
    }

    /// Runs SQL, and returns the rows of its results.
    pub fn query(&mut self, sql: &str, tick: WaitCheck<'_>) -> Result<Vec<TextRow>, PostgresError> {
        let mut rows = Vec::new();
        self.query_each(sql, tick, |_, row| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            rows.push(row.values().map(|value| value.map(text)).collect());
            Ok(())
        })?;
        Ok(rows)
    }

    /// Starts to stream a slot, with the first transaction that commits at `from` or later.
    pub fn start_replication(
        &mut self,
        slot: &str,
        from: Lsn,
        publications: &[String],
        tick: WaitCheck<'_>,
    ) -> Result<(), PostgresError> {
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

    /// The next message of the stream; none if none arrives within [`TICK`].
    pub fn next_streamed(&mut self) -> Result<Option<Streamed>, PostgresError> {
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

    /// Whether a message of the stream has already arrived.
    pub fn has_more(&self) -> bool {
        matches!(self.whole(), Ok(Some(_)) | Err(_))
    }

    /// Reports to the server how far the stream was received, and up to where the slot may forget it.
    pub fn confirm(&mut self, taken: Lsn, committed: Lsn, answer: bool) -> Result<(), PostgresError> {
        let micros = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as i64);
        let mut status = BytesMut::with_capacity(34);
        status.put_u8(b'r');
        status.put_u64(taken.0.max(committed.0));
        status.put_u64(committed.0);
        status.put_u64(committed.0);
        status.put_i64(micros - POSTGRES_EPOCH);
        status.put_u8(u8::from(answer));
        frontend::CopyData::new(status)?.write(&mut self.out);
        Ok(self.flush()?)
    }
}

fn streamed(mut bytes: Bytes) -> Result<Streamed, PostgresError> {
    match bytes.first() {
        Some(b'w') if bytes.len() >= 25 => {
            bytes.advance(25); // the message's LSN, the log's end, and the time of sending
            Ok(Streamed::Data(bytes))
        }
        Some(b'k') if bytes.len() >= 18 => {
            bytes.advance(1);
            let end = Lsn(bytes.get_u64());
            bytes.advance(8);
            let answer = bytes[0] == 1;
            Ok(Streamed::Alive { end, answer })
        }
        _ => Err(PostgresError::Wrong(
            "the stream brought something that is neither data nor a sign of life".into(),
        )),
    }
}

/// A row of a result, whose structure was validated when it was received.
pub struct QueryRow(DataRowBody);

impl QueryRow {
    fn new(body: DataRowBody) -> io::Result<QueryRow> {
        body.ranges().for_each(|_| Ok(()))?;
        Ok(QueryRow(body))
    }

    /// Its values, in PostgreSQL's text format.
    pub fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let ranges = self.0.ranges().iterator();
        ranges.map(|range| Some(&self.0.buffer()[range.expect("it was looked through when it was read")?]))
    }
}

fn unknown_login() -> PostgresError {
    let what = "the server asks for a way to log in that is not known here; known are SCRAM-SHA-256, md5, and passwords over TLS";
    PostgresError::Wrong(what.into())
}

fn out_of_turn() -> PostgresError {
    PostgresError::Wrong("the server answered out of turn".into())
}

/// Quotes an identifier for SQL.
pub fn quoted(name: &str) -> String {
    escape_identifier(name)
}

/// Quotes a string literal for SQL.
pub fn literal(text: &str) -> String {
    escape_literal(text)
}
