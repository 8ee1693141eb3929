//! Bounds how many bytes of records are on their way from readers to workers, over all feeds of a process.
//!
//! 1. A reader reserves room for a batch before it decodes it, and waits while there is none. The reservation is
//!    released once the worker has taken the batch.
//! 2. Reservations are granted in the order of requests, so that small batches cannot starve a large one. A batch
//!    larger than the whole budget is granted when nothing else is in flight.
//! 3. A request to stop ends the wait.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};

use super::error::ReaderExit;

/// The budget in bytes of a process without `memory_limit`.
const USUAL: u64 = 64 << 20;
/// The budget is at most this fraction of `memory_limit`, because decoding a batch takes several times its bytes.
const SHARE: u64 = 16;
/// The least budget in bytes: two batches of ordinary records.
const LEAST: u64 = 8 << 20;
/// How often a waiting reader checks whether it has to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The budget, shared by all readers.
#[derive(Debug)]
pub(crate) struct InFlightBudget {
    most: u64,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    /// The numbers of the waiting readers; the first is served next.
    waiting: VecDeque<u64>,
    numbers: u64,
}

/// A reservation, which is released when it is dropped.
#[derive(Debug)]
pub struct InFlightReservation {
    room: Arc<InFlightBudget>,
    bytes: u64,
}

impl InFlightBudget {
    /// The budget of a process with this `memory_limit`.
    pub fn of_limit(memory_limit: Option<u64>) -> Arc<InFlightBudget> {
        InFlightBudget::new(memory_limit.map_or(USUAL, |limit| (limit / SHARE).clamp(LEAST, USUAL)))
    }

    /// A budget of this number of bytes.
    pub fn new(most: u64) -> Arc<InFlightBudget> {
        Arc::new(InFlightBudget {
            most,
            state: Mutex::default(),
            freed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch could be reserved without waiting.
    pub fn is_free(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.taken < self.most
    }

    /// Reserves room, and waits for it if need be. `stop` is disconnected when readers have to stop.
    pub fn reserve(
        self: &Arc<Self>,
        bytes: u64,
        stop: &Receiver<Infallible>,
    ) -> Result<InFlightReservation, ReaderExit> {
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        state.waiting.push_back(number);
        // By (2).
        while state.waiting.front() != Some(&number) || (state.taken > 0 && state.taken + bytes > self.most) {
            (state, _) = self
                .freed
                .wait_timeout(state, LOOK)
                .unwrap_or_else(PoisonError::into_inner);
            if stop.try_recv() == Err(TryRecvError::Disconnected) {
                state.waiting.retain(|waiting| *waiting != number);
                self.freed.notify_all();
                return Err(ReaderExit::Stopped);
            }
        }
        state.waiting.pop_front();
        state.taken += bytes;
        // The next waiting reader's batch may fit as well.
        self.freed.notify_all();
        Ok(InFlightReservation {
            room: self.clone(),
            bytes,
        })
    }
}

impl Drop for InFlightReservation {
    fn drop(&mut self) {
        self.room.state().taken -= self.bytes;
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn batches_on_their_way_never_hold_more_than_the_room_but_for_one_that_is_larger() {
        let (_stop, stopped) = crossbeam_channel::bounded(0);
        let room = InFlightBudget::new(100);
        let (reserved_bytes, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for reader in 0..4u64 {
                let (room, stopped, reserved_bytes, most) = (&room, &stopped, &reserved_bytes, &most);
                scope.spawn(move || {
                    for n in 0..200 {
                        let bytes = [10, 35, 90, 250][((reader + n) % 4) as usize];
                        let reserved = room.reserve(bytes, stopped).unwrap();
                        let all = reserved_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        assert!(all <= 100 || all == bytes, "{all}");
                        most.fetch_max(all, Ordering::SeqCst);
                        reserved_bytes.fetch_sub(bytes, Ordering::SeqCst);
                        drop(reserved);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 250);
        assert!(room.is_free());
    }

    #[test]
    fn who_waits_for_room_is_told_to_stop() {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let room = InFlightBudget::new(100);
        let first = room.reserve(100, &stopped).unwrap();
        let waiting = thread::spawn({
            let room = room.clone();
            move || room.reserve(1, &stopped).map(drop)
        });
        thread::sleep(Duration::from_millis(10));
        drop(stop);
        assert!(matches!(waiting.join().unwrap(), Err(ReaderExit::Stopped)));
        drop(first);
        assert!(room.is_free());
    }
}
