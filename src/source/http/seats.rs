//! The places that connections take, and who loses one when all are taken.
//!
//! 1. At most so many are taken at once. When one more client comes, a connection goes that has proved nothing: of those the
//!    one that has sent nothing for the longest, so that who is amid a request stays before who only holds a place. Where all
//!    have proved something, the one goes that has sent and asked nothing for the longest. A client that has, and is being
//!    answered, keeps its place, and who comes then waits.
//! 2. A token that is known proves a connection when the head of its request is read: its body may take long. Where there
//!    are no tokens, an answer does once it has left: a client that does not read proves nothing.
//! 3. A client that takes nothing of what is sent to it for a while loses its connection, whatever it has proved.

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

/// All places.
pub(super) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
    /// A place is free, or a connection is idle that was not.
    changed: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// In the order in which they came.
    seats: BTreeMap<u64, Arc<Seat>>,
}

/// A connection's place.
pub(super) struct Seat {
    answered: AtomicBool,
    proved: AtomicBool,
    /// Requests that are being answered.
    requests: AtomicUsize,
    active: Mutex<Instant>,
    /// Told to go.
    gone: Notify,
}

impl Seat {
    fn new() -> Self {
        Seat {
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

    /// A request of it has a token that is known, by (2).
    pub fn observe_token(&self) {
        self.proved.store(true, Ordering::Release);
    }

    /// It sent something.
    fn observe_sent(&self) {
        *self.active() = Instant::now();
    }

    /// A request that it may make is answered; by (2) that proves it once the answer has left.
    pub fn observe_answer(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// What was sent has left.
    fn observe_flushed(&self) {
        if self.answered.load(Ordering::Acquire) {
            self.proved.store(true, Ordering::Release);
        }
    }

    /// Until it has to go.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }
}

impl Seats {
    /// So many places.
    pub fn new(most: usize) -> Arc<Seats> {
        Arc::new(Seats {
            most,
            taken: Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, if need be that of another; by (1).
    pub async fn take(self: &Arc<Self>) -> Place {
        loop {
            let changed = self.changed.notified();
            {
                let mut taken = self.taken();
                if taken.seats.len() < self.most || taken.free_one() {
                    taken.next += 1;
                    let (number, seat) = (taken.next, Arc::new(Seat::new()));
                    taken.seats.insert(number, seat.clone());
                    return Place {
                        seats: self.clone(),
                        number,
                        seat,
                    };
                }
            }
            changed.await;
        }
    }

    /// Frees a place although not all are taken: no more files can be opened.
    pub fn free_one(&self) {
        self.taken().free_one();
    }
}

impl Taken {
    /// Tells one to go, by (1); false: all are being answered.
    fn free_one(&mut self) -> bool {
        let is_proved = |seat: &Seat| seat.proved.load(Ordering::Acquire);
        let is_idle = |seat: &Seat| seat.requests.load(Ordering::Acquire) == 0;
        let may_go = self.seats.iter().filter(|(_, seat)| !is_proved(seat) || is_idle(seat));
        let found = may_go.min_by_key(|(_, seat)| (is_proved(seat), *seat.active()));
        let found = found.map(|(number, _)| *number);
        let seat = found.and_then(|number| self.seats.remove(&number));
        seat.is_some_and(|seat| {
            seat.gone.notify_one();
            true
        })
    }
}

/// A place that is taken, until it is dropped.
pub(super) struct Place {
    seats: Arc<Seats>,
    number: u64,
    pub seat: Arc<Seat>,
}

impl Place {
    /// A request is being answered, until the answer is dropped.
    pub fn begin_request(&self) -> UnderWay {
        self.seat.requests.fetch_add(1, Ordering::AcqRel);
        UnderWay {
            seats: self.seats.clone(),
            seat: self.seat.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seats.taken().seats.remove(&self.number);
        self.seats.changed.notify_one();
    }
}

/// A request that is being answered.
pub(super) struct UnderWay {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.seat.active() = Instant::now();
        self.seat.requests.fetch_sub(1, Ordering::AcqRel);
        self.seats.changed.notify_one();
    }
}

/// A connection's bytes, by (2) and (3).
pub(super) struct Watched<S> {
    stream: S,
    seat: Arc<Seat>,
    /// How long the other end may take nothing.
    patience: Duration,
    /// While it takes nothing: until then.
    stalled: bool,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, seat: Arc<Seat>, patience: Duration) -> Self {
        Watched {
            stream,
            seat,
            patience,
            stalled: false,
            deadline: Box::pin(tokio::time::sleep(patience)),
        }
    }

    /// An outcome of writing, or that it took too long.
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

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.seat.observe_sent();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
            self.seat.observe_flushed();
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

    async fn is_told(place: &Place) -> bool {
        let told = tokio::time::timeout(Duration::from_millis(1), place.seat.gone());
        told.await.is_ok()
    }

    fn prove(place: &Place) {
        drop(place.begin_request());
        place.seat.observe_answer();
        place.seat.observe_flushed();
    }

    /// Clients that were sending the body of a request lost their connections to strangers who only opened some.
    #[tokio::test]
    async fn who_has_a_known_token_or_sends_stays_before_who_only_holds_a_place() {
        let seats = Seats::new(3);
        let (known, sends, holds) = (seats.take().await, seats.take().await, seats.take().await);
        let _under_way = (known.begin_request(), sends.begin_request());
        known.seat.observe_token();
        let mut strangers = vec![];
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut stream = Watched::new(&b"body"[..], sends.seat.clone(), Duration::from_secs(1));
            let mut buffer = [0; 4];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = std::future::poll_fn(|context| Pin::new(&mut stream).poll_read(context, &mut buffer));
            read.await.expect("a body is there");
            strangers.push(seats.take().await);
        }
        assert!(is_told(&holds).await && !is_told(&known).await && !is_told(&sends).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (one, two) = (seats.take().await, seats.take().await);
        assert!(is_told(&sends).await, "it has proved nothing and stopped sending");
        drop((one, two, strangers));
        assert!(!is_told(&known).await);
    }

    #[tokio::test]
    async fn the_oldest_that_proved_nothing_goes_first_then_who_asked_nothing_for_the_longest() {
        let seats = Seats::new(3);
        let (one, two, three) = (seats.take().await, seats.take().await, seats.take().await);
        prove(&one);
        let four = seats.take().await;
        assert!(!is_told(&one).await && is_told(&two).await && !is_told(&three).await);
        three.seat.observe_answer();
        prove(&four);
        let five = seats.take().await;
        assert!(is_told(&three).await, "an answer that did not leave proves nothing");
        prove(&five);
        prove(&one);
        let busy = four.begin_request();
        let six = seats.take().await;
        assert!(is_told(&five).await, "it asked before the first did");
        prove(&six);
        let (also, too) = (one.begin_request(), six.begin_request());
        let waits = tokio::time::timeout(Duration::from_millis(5), seats.take()).await;
        assert!(waits.is_err(), "all are being answered");
        drop((also, too));
        let seven = seats.take().await;
        assert!(is_told(&one).await && !is_told(&four).await);
        drop((busy, two, three));
        assert_eq!(seats.taken().seats.len(), 3);
        drop((four, six, seven));
        assert_eq!(seats.taken().seats.len(), 0);
    }
}
