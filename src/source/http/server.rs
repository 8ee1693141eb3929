//! The HTTP API: rows are posted to an input, inputs are listed, and a health check answers.
//!
//! 1. Every answer is JSON. A refusal states the reason, under `error`, and what to do.
//! 2. Memory is bounded: as a body arrives, a request reserves twice the bytes received so far, more while a
//!    compressed body is decompressed, and as much again for its rows. A request for which there is no room is put
//!    off. The length that a client announces reserves nothing, so that a slow sender holds little.
//! 3. No request waits for a full queue: if the log is too far ahead of its readers, or too many requests wait for
//!    the disk, the answer is 429 with the time to try again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use crossbeam_channel::{Sender, TrySendError};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::body::{self, BodyError};
use super::connections::ConnectionSlot;
use super::frame::{Digest, IdempotencyRecord};
use super::segments::LogExtent;
use super::writer::{Submission, SubmissionOutcome};
use crate::definition::{Dataflow, Http};
use crate::source::feed_handle::Gauges;

/// The most requests of one input that may wait for the disk.
pub(super) const WAITING: usize = 1024;
/// The least memory budget, in bytes, for all bodies together.
const MEMORY: u64 = 256 << 20;
/// How many bytes of a refused body are read, and for how long: a client that is still sending would not see the
/// reason.
const REFUSED: (u64, Duration) = (1 << 20, Duration::from_secs(1));
/// The least reservation, in bytes, for a body that begins to arrive.
const RESERVED: u64 = 1 << 10;
/// The longest idempotency key, in bytes.
const KEY: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An input to which rows can be posted.
pub(super) struct HttpInput {
    pub submissions: Sender<Submission>,
    pub extent: Arc<LogExtent>,
    pub gauges: Arc<Gauges>,
    /// The description of the input that is shown to clients.
    pub description: Value,
    /// The most bytes of a row.
    pub max_record: u64,
}

/// The description of an input that is shown to clients.
pub(super) fn describe(dataflow: &Dataflow, input: usize) -> Value {
    let input = &dataflow.inputs[input];
    let columns = input
        .columns
        .iter()
        .map(|column| json!({"name": column.name, "type": column.sql_type.to_string(), "nullable": column.nullable}));
    let mut description = json!({"name": input.name, "columns": columns.collect::<Vec<_>>()});
    if !input.key.is_empty() {
        description["key"] = json!(input.key);
    }
    description
}

/// The shared state of all request handlers.
pub(super) struct RequestContext {
    inputs: BTreeMap<String, HttpInput>,
    /// SHA-256 of each token.
    tokens: Vec<[u8; 32]>,
    max_body: u64,
    max_waiting: u64,
    timeout: Duration,
    /// The memory for bodies, in KiB; by (2).
    memory: Arc<Semaphore>,
    closing: AtomicBool,
}

impl RequestContext {
    pub fn new(http: &Http, inputs: BTreeMap<String, HttpInput>) -> RequestContext {
        let memory = (4 * http.max_body).max(MEMORY) / 1024;
        RequestContext {
            inputs,
            tokens: http.tokens.iter().map(|token| sha256(token.as_bytes())).collect(),
            max_body: http.max_body,
            max_waiting: http.max_waiting,
            timeout: http.timeout,
            memory: Arc::new(Semaphore::new(memory as usize)),
            closing: AtomicBool::new(false),
        }
    }

    /// Makes all further requests be refused.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn names(&self) -> String {
        self.inputs.keys().cloned().collect::<Vec<_>>().join(", ")
    }
}

/// An extension that marks the answer to an admitted request.
#[derive(Clone, Copy)]
pub(super) struct Admitted;

/// All routes.
pub(super) fn router(context: Arc<RequestContext>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/v1/inputs", get(inputs))
        .route("/v1/inputs/{name}", post(take))
        .fallback(unknown)
        .method_not_allowed_fallback(not_so)
        .with_state(context)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

fn refuse(status: StatusCode, reason: impl Into<String>) -> Response {
    answer(status, &json!({"error": reason.into()}))
}

fn no_room() -> Box<Response> {
    put_off(StatusCode::TOO_MANY_REQUESTS, "too many large requests at once").into()
}

/// A refusal that asks the client to try again.
fn put_off(status: StatusCode, reason: &str) -> Response {
    let mut response = refuse(status, reason);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn health(State(context): State<Arc<RequestContext>>) -> Response {
    match context.closing.load(Ordering::Acquire) {
        false => answer(StatusCode::OK, &json!({"status": "ok"})),
        true => put_off(StatusCode::SERVICE_UNAVAILABLE, "the run ends"),
    }
}

async fn inputs(State(context): State<Arc<RequestContext>>, request: Request) -> Response {
    if let Err(refused) = admit(&context, &request.into_parts().0) {
        return *refused;
    }
    let descriptions: Vec<&Value> = context.inputs.values().map(|entry| &entry.description).collect();
    admitted(answer(StatusCode::OK, &json!({"inputs": descriptions})))
}

fn admitted(mut answer: Response) -> Response {
    answer.extensions_mut().insert(Admitted);
    answer
}

async fn unknown(State(context): State<Arc<RequestContext>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let response = match admit(&context, &parts) {
        Err(refused) => *refused,
        Ok(()) => refuse(
            StatusCode::NOT_FOUND,
            format!(
                "there is no {}; rows are posted to /v1/inputs/<name>, inputs are {}",
                parts.uri.path(),
                context.names()
            ),
        ),
    };
    pass_over(body).await;
    response
}

async fn not_so(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    pass_over(body).await;
    refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} takes no {}; rows come by POST", parts.uri.path(), parts.method),
    )
}

async fn take(
    State(context): State<Arc<RequestContext>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let name = name.map_or_else(|_| String::new(), |Path(name)| name); // a name that is not UTF-8 names no input
    let (parts, body) = request.into_parts();
    let Some(entry) = context.inputs.get(&name).filter(|_| admit(&context, &parts).is_ok()) else {
        let refused = admit(&context, &parts).err().map(|refused| *refused);
        pass_over(body).await;
        return refused.unwrap_or_else(|| {
            let names = context.names();
            refuse(
                StatusCode::NOT_FOUND,
                format!("no input {name:?} takes requests; those that do are {names}"),
            )
        });
    };
    let mut body = Some(body);
    let taken = context.take(entry, &parts.headers, &mut body).await;
    let counter = match &taken {
        Ok(_) => &entry.gauges.requests,
        Err(_) => &entry.gauges.refused,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    if let Some(body) = body {
        pass_over(body).await;
    }
    admitted(taken.unwrap_or_else(|refused| *refused))
}

/// Checks the request's token, if tokens are configured. A known token also proves the connection.
fn admit(context: &RequestContext, head: &Parts) -> Result<(), Box<Response>> {
    if context.tokens.is_empty() {
        return Ok(());
    }
    let said = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = said.and_then(|said| {
        let (scheme, token) = said.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let digest = sha256(token.unwrap_or_default().as_bytes());
    let known = |known: &[u8; 32]| verify_slices_are_equal(known, &digest).is_ok();
    // All tokens are compared, so that the time does not depend on which one matches.
    if context.tokens.iter().filter(|token| known(token)).count() > 0 && token.is_some() {
        if let Some(slot) = head.extensions.get::<Arc<ConnectionSlot>>() {
            slot.observe_token();
        }
        return Ok(());
    }
    let mut refused = refuse(
        StatusCode::UNAUTHORIZED,
        "a request needs its token: Authorization: Bearer <token>",
    );
    refused
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(Box::new(refused))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

impl RequestContext {
    /// Accepts the rows of a request. `body` is taken out once it is read.
    async fn take(
        &self,
        entry: &HttpInput,
        headers: &HeaderMap,
        body: &mut Option<Body>,
    ) -> Result<Response, Box<Response>> {
        if self.closing.load(Ordering::Acquire) {
            return Err(put_off(StatusCode::SERVICE_UNAVAILABLE, "the run ends; ask the next one").into());
        }
        let (shape, coding) = body::kind(headers).map_err(refusal)?;
        let key = key(headers)?;
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_body) {
            return Err(self.too_large());
        }
        if entry.extent.unread() > self.max_waiting {
            return Err(put_off(
                StatusCode::TOO_MANY_REQUESTS,
                "more rows wait to be read than [http] max_waiting allows",
            )
            .into());
        }
        let Some(mut reserved) = self.reserve(0) else {
            return Err(no_room());
        };
        let mut reserve = |bytes| match self.reserve(bytes) {
            Some(more) => {
                reserved.merge(more);
                true
            }
            None => false,
        };
        let body = body.take().expect("a body is read once");
        let gathered = gather(body, announced, self.max_body, &mut reserve);
        let sent = match tokio::time::timeout(self.timeout, gathered).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(UnreadBody::Broken(error))) => {
                let reason = format!("the body broke off: {error}");
                return Err(refuse(StatusCode::BAD_REQUEST, reason).into());
            }
            Ok(Err(UnreadBody::TooLarge)) => return Err(self.too_large()),
            Ok(Err(UnreadBody::NoRoom)) => return Err(no_room()),
            Err(_) => {
                let timeout = humantime::format_duration(self.timeout);
                let reason = format!("the request did not come within {timeout}");
                return Err(refuse(StatusCode::REQUEST_TIMEOUT, reason).into());
            }
        };
        let rows = body::uncompressed(sent, coding, self.max_body, &mut reserve).and_then(|plain| {
            if !reserve(plain.len() as u64) {
                return Err(BodyError::NoRoom);
            }
            let (lines, rows) = body::rows(&plain, shape, entry.max_record)?;
            let keyed = key.map(|key| IdempotencyRecord {
                key: Digest::half_sha256(key.as_bytes()),
                body: Digest::half_sha256(&plain),
            });
            Ok((lines, rows, keyed))
        });
        let (lines, rows, keyed) = rows.map_err(|refused| match refused {
            BodyError::TooLarge => self.too_large(),
            BodyError::NoRoom => no_room(),
            other => refusal(other),
        })?;
        let (sender, answered) = oneshot::channel();
        let submission = Submission {
            lines,
            rows,
            keyed,
            answer: sender,
        };
        match entry.submissions.try_send(submission) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(put_off(StatusCode::TOO_MANY_REQUESTS, "too many requests wait for the disk").into());
            }
            Err(TrySendError::Disconnected(_)) => return Err(self.ended()),
        }
        match answered.await {
            Ok(SubmissionOutcome::Taken { rows, again }) => {
                let mut response = answer(StatusCode::OK, &json!({"accepted": rows}));
                if again {
                    response
                        .headers_mut()
                        .insert(REPLAYED, HeaderValue::from_static("true"));
                }
                Ok(response)
            }
            Ok(SubmissionOutcome::OtherBody) => Err(refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this Idempotency-Key came with another body before; nothing was taken: use a new key for new rows",
            )
            .into()),
            Ok(SubmissionOutcome::Unwritten(reason)) => {
                let reason = format!("the rows could not be written, and none was taken: {reason}");
                Err(put_off(StatusCode::SERVICE_UNAVAILABLE, &reason).into())
            }
            Err(_) => Err(self.ended()),
        }
    }

    fn reserve(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        self.memory.try_acquire_many((bytes / 1024 + 1) as u32).ok()
    }

    fn too_large(&self) -> Box<Response> {
        let most = self.max_body;
        refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body has {most} bytes at most, compressed or not ([http] max_body): send several requests"),
        )
        .into()
    }

    /// The answer if the writer has ended, so that it is unknown whether the rows are on the disk.
    fn ended(&self) -> Box<Response> {
        put_off(
            StatusCode::SERVICE_UNAVAILABLE,
            "the run ends; with an Idempotency-Key the request can be repeated",
        )
        .into()
    }
}

fn refusal(refusal: BodyError) -> Box<Response> {
    let response = match refusal {
        BodyError::Unsupported(reason) => refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason),
        BodyError::Malformed(Some(line), reason) => answer(
            StatusCode::BAD_REQUEST,
            &json!({"error": format!("line {line} is not JSON: {reason}; nothing was taken"), "line": line, "reason": reason}),
        ),
        BodyError::Malformed(None, reason) => refuse(StatusCode::BAD_REQUEST, format!("{reason}; nothing was taken")),
        BodyError::RowTooLong(row, bytes) => refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("row {row} has {bytes} bytes, more than max_record allows; nothing was taken: send smaller rows"),
        ),
        BodyError::NoRoom => *no_room(),
        BodyError::TooLarge => refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
    };
    response.into()
}

/// The request's idempotency key.
fn key(headers: &HeaderMap) -> Result<Option<&str>, Box<Response>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=KEY).contains(&key.len()) => Ok(Some(key)),
        _ => {
            let reason = format!("an Idempotency-Key has 1 to {KEY} letters, digits and signs, as a UUID does");
            Err(refuse(StatusCode::BAD_REQUEST, reason).into())
        }
    }
}

/// Why a body could not be read.
enum UnreadBody {
    Broken(axum::Error),
    TooLarge,
    NoRoom,
}

/// Reads a body of at most `most` bytes. `announced` is the length that the client says, if any. `reserve` claims
/// memory as bytes arrive.
async fn gather(
    body: Body,
    announced: Option<u64>,
    most: u64,
    reserve: &mut impl FnMut(u64) -> bool,
) -> Result<Vec<u8>, UnreadBody> {
    let mut chunks = body.into_data_stream();
    // The buffer grows as bytes arrive, not by the announced length, and in steps that make copies rare.
    let (mut bytes, mut reserved) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(UnreadBody::Broken)?;
        let length = (bytes.len() + chunk.len()) as u64;
        let wanted = (2 * length).max(RESERVED).min(announced.unwrap_or(most)).max(length);
        let refused = if length > most {
            Some(UnreadBody::TooLarge)
        } else if length > reserved && !reserve(wanted - reserved) {
            Some(UnreadBody::NoRoom)
        } else {
            None
        };
        if let Some(refused) = refused {
            pass_over(Body::from_stream(chunks)).await;
            return Err(refused);
        }
        if length > reserved {
            bytes.reserve_exact(wanted as usize - bytes.len());
            reserved = wanted;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads some of a body that was refused; see [`REFUSED`].
async fn pass_over(body: Body) {
    let mut left = REFUSED.0;
    let mut chunks = body.into_data_stream();
    let read = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(REFUSED.1, read).await;
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Some hundred connections that announced 16 MB and sent one byte used up a limited address space.
    #[tokio::test]
    async fn a_length_that_is_only_said_takes_no_room() {
        let mut reserved = 0_u64;
        let mut reserve = |bytes: u64| {
            reserved += bytes;
            true
        };
        let sent = gather(Body::from("{}"), Some(16 << 20), 16 << 20, &mut reserve).await;
        let Ok(bytes) = sent else { panic!("two bytes are taken") };
        assert_eq!(bytes, b"{}");
        assert!(bytes.capacity() <= RESERVED as usize, "{}", bytes.capacity());
        assert_eq!(reserved, RESERVED, "a thousand of them kept everybody else out");
    }

    #[tokio::test]
    async fn room_is_taken_as_a_body_comes_and_at_most_twice_as_much() {
        for announced in [None, Some(1_000_000)] {
            let chunks = (0..1000).map(|_| Ok::<_, io::Error>(vec![b' '; 1000]));
            let (mut reserved, mut times) = (0_u64, 0);
            let mut reserve = |bytes: u64| {
                reserved += bytes;
                times += 1;
                true
            };
            let body = Body::from_stream(futures::stream::iter(chunks));
            let sent = gather(body, announced, 16 << 20, &mut reserve).await;
            assert!(sent.is_ok_and(|bytes| bytes.len() == 1_000_000));
            assert!(
                (1_000_000..=announced.unwrap_or(2_000_000)).contains(&reserved),
                "{reserved}"
            );
            assert!(times < 12, "{times}");
        }
        let most = gather(Body::from(vec![b' '; 2000]), None, 1999, &mut |_| true).await;
        assert!(matches!(most, Err(UnreadBody::TooLarge)));
    }
}
