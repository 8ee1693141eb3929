//! Connection slots, and which connection is closed when all slots are taken.
//!
//! 1. The number of slots is bounded. When one more client connects, a connection is closed that is not yet proved:
//!    of these, the one that has sent nothing for the longest, so that a client in the middle of a request stays and
//!    one that only holds a slot goes. If all connections are proved, the one goes that is idle (no request in
//!    progress) and has sent nothing for the longest. If none is idle either, the new client waits.
//! 2. A connection is proved by a known token, as soon as the head of its request is read, because the body may take
//!    long. If there are no tokens, it is proved once an answer has been flushed: a client that does not read proves
//!    nothing.
//! 3. A client that reads nothing of what is sent to it for some time loses its connection, proved or not.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// All connection slots of a listener.
pub(super) struct ConnectionSlots {
    most: usize,
    taken: Mutex<TakenSlots>,
    /// Notified when a slot becomes free, or when a connection becomes idle.
    changed: Notify,
}

#[derive(Default)]
struct TakenSlots {
    next: u64,
    /// By number, in the order in which they were taken.
    slots: BTreeMap<u64, Arc<ConnectionSlot>>,
}

/// The state of one connection.
pub(super) struct ConnectionSlot {
    answered: AtomicBool,
    proved: AtomicBool,
    /// The number of requests in progress.
    requests: AtomicUsize,
    active: Mutex<Instant>,
    /// Notified when the connection has to close.
    gone: Notify,
}

impl ConnectionSlot {
    fn new() -> Self {
        ConnectionSlot {
            answered: AtomicBool::new(false),
            proved: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            active: Mutex::new(Instant::now()),
            gone: Notify::new(),
        }
    }

    fn active(&self) -> MutexGuard<'_, Instant> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a request had a known token, by (2).
    pub fn observe_token(&self) {
        self.proved.store(true, Ordering::Release);
    }

    /// Records that the client sent bytes.
    fn observe_sent(&self) {
        *self.active() = Instant::now();
    }

    /// Records that an admitted request was answered; by (2) that proves the connection once the answer is flushed.
    pub fn observe_answer(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// Records that all output was flushed.
    fn observe_flushed(&self) {
        if self.answered.load(Ordering::Acquire) {
            self.proved.store(true, Ordering::Release);
        }
    }

    /// Completes when the connection has to close.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }
}

impl ConnectionSlots {
    /// Creates this number of slots.
    pub fn new(most: usize) -> Arc<ConnectionSlots> {
        Arc::new(ConnectionSlots {
            most,
            taken: Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, TakenSlots> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot; by (1) it may close another connection for that, or wait.
    pub async fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        loop {
            let changed = self.changed.notified();
            {
                let mut taken = self.taken();
                if taken.slots.len() < self.most || taken.free_one() {
                    taken.next += 1;
                    let (number, slot) = (taken.next, Arc::new(ConnectionSlot::new()));
                    taken.slots.insert(number, slot.clone());
                    return ConnectionPermit {
                        slots: self.clone(),
                        number,
                        slot,
                    };
                }
            }
            changed.await;
        }
    }

    /// Closes a connection although slots are free, because the process can open no more files.
    pub fn free_one(&self) {
        self.taken().free_one();
    }
}

impl TakenSlots {
    /// Tells one connection to close, by (1). Returns false if all have requests in progress.
    fn free_one(&mut self) -> bool {
        let is_proved = |slot: &ConnectionSlot| slot.proved.load(Ordering::Acquire);
        let is_idle = |slot: &ConnectionSlot| slot.requests.load(Ordering::Acquire) == 0;
        let may_go = self.slots.iter().filter(|(_, slot)| !is_proved(slot) || is_idle(slot));
        let chosen = may_go.min_by_key(|(_, slot)| (is_proved(slot), *slot.active()));
        let chosen = chosen.map(|(number, _)| *number);
        let slot = chosen.and_then(|number| self.slots.remove(&number));
        slot.is_some_and(|slot| {
            slot.gone.notify_one();
            true
        })
    }
}

/// Occupies a slot until it is dropped.
pub(super) struct ConnectionPermit {
    slots: Arc<ConnectionSlots>,
    number: u64,
    pub slot: Arc<ConnectionSlot>,
}

impl ConnectionPermit {
    /// Marks a request as in progress until the returned guard is dropped.
    pub fn begin_request(&self) -> RequestInProgress {
        self.slot.requests.fetch_add(1, Ordering::AcqRel);
        RequestInProgress {
            slots: self.slots.clone(),
            slot: self.slot.clone(),
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.slots.taken().slots.remove(&self.number);
        self.slots.changed.notify_one();
    }
}

/// Counts a request as in progress until it is dropped.
pub(super) struct RequestInProgress {
    slots: Arc<ConnectionSlots>,
    slot: Arc<ConnectionSlot>,
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        *self.slot.active() = Instant::now();
        self.slot.requests.fetch_sub(1, Ordering::AcqRel);
        self.slots.changed.notify_one();
    }
}

/// The byte stream of a connection, which implements (2) and (3).
pub(super) struct TimedStream<S> {
    stream: S,
    slot: Arc<ConnectionSlot>,
    /// How long the client may read nothing.
    patience: Duration,
    /// Whether the client currently reads nothing; then `deadline` is when the connection fails.
    stalled: bool,
    deadline: Pin<Box<Sleep>>,
}

impl<S> TimedStream<S> {
    pub fn new(stream: S, slot: Arc<ConnectionSlot>, patience: Duration) -> Self {
        TimedStream {
            stream,
            slot,
            patience,
            stalled: false,
            deadline: Box::pin(tokio::time::sleep(patience)),
        }
    }

    /// Passes on the result of a write, or fails if the write has been pending for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = false;
            return written;
        }
        if !self.stalled {
            self.stalled = true;
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client reads nothing of its answers",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.slot.observe_sent();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.slot.observe_flushed();
        }
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_told(place: &ConnectionPermit) -> bool {
        let notified = tokio::time::timeout(Duration::from_millis(1), place.slot.gone());
        notified.await.is_ok()
    }

    fn prove(place: &ConnectionPermit) {
        drop(place.begin_request());
        place.slot.observe_answer();
        place.slot.observe_flushed();
    }

    /// Clients in the middle of sending a body lost their connections to strangers that only opened some.
    #[tokio::test]
    async fn who_has_a_known_token_or_sends_stays_before_who_only_holds_a_place() {
        let slots = ConnectionSlots::new(3);
        let (known, sends, holds) = (slots.acquire().await, slots.acquire().await, slots.acquire().await);
        let _under_way = (known.begin_request(), sends.begin_request());
        known.slot.observe_token();
        let mut strangers = vec![];
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut stream = TimedStream::new(&b"body"[..], sends.slot.clone(), Duration::from_secs(1));
            let mut buffer = [0; 4];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = std::future::poll_fn(|context| Pin::new(&mut stream).poll_read(context, &mut buffer));
            read.await.expect("a body is there");
            strangers.push(slots.acquire().await);
        }
        assert!(is_told(&holds).await && !is_told(&known).await && !is_told(&sends).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (one, two) = (slots.acquire().await, slots.acquire().await);
        assert!(is_told(&sends).await, "it has proved nothing and stopped sending");
        drop((one, two, strangers));
        assert!(!is_told(&known).await);
    }

    #[tokio::test]
    async fn the_oldest_that_proved_nothing_goes_first_then_who_asked_nothing_for_the_longest() {
        let slots = ConnectionSlots::new(3);
        let (one, two, three) = (slots.acquire().await, slots.acquire().await, slots.acquire().await);
        prove(&one);
        let four = slots.acquire().await;
        assert!(!is_told(&one).await && is_told(&two).await && !is_told(&three).await);
        three.slot.observe_answer();
        prove(&four);
        let five = slots.acquire().await;
        assert!(is_told(&three).await, "an answer that did not leave proves nothing");
        prove(&five);
        prove(&one);
        let busy = four.begin_request();
        let six = slots.acquire().await;
        assert!(is_told(&five).await, "it asked before the first did");
        prove(&six);
        let (also, too) = (one.begin_request(), six.begin_request());
        let waits = tokio::time::timeout(Duration::from_millis(5), slots.acquire()).await;
        assert!(waits.is_err(), "all are being answered");
        drop((also, too));
        let seven = slots.acquire().await;
        assert!(is_told(&one).await && !is_told(&four).await);
        drop((busy, two, three));
        assert_eq!(slots.taken().slots.len(), 3);
        drop((four, six, seven));
        assert_eq!(slots.taken().slots.len(), 0);
    }
}
