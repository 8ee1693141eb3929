//! Bounds how many bytes of records are on their way from readers to workers, over all feeds of a process.
//!
//! 1. A reader reserves room for a batch before it decodes it, and waits while there is none. What it reserved is free again
//!    once the worker has taken the batch.
//! 2. Who came first has room first, so that a large batch is not passed over by small ones for ever. A batch that is larger
//!    than all the room goes alone.
//! 3. A request to stop ends the wait.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};

use super::outlet::Ended;

/// The room of a process without `memory_limit`.
const USUAL: u64 = 64 << 20;
/// Of `memory_limit`, what the room may be: decoding a batch takes several times its bytes.
const SHARE: u64 = 16;
/// The least room: two batches of usual records.
const LEAST: u64 = 8 << 20;
/// How often a reader that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Room for batches, shared by readers.
#[derive(Debug)]
pub(crate) struct Passage {
    most: u64,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    /// Who waits, by number; the first is next.
    waiting: VecDeque<u64>,
    numbers: u64,
}

/// Room that a batch has taken, until it is dropped.
#[derive(Debug)]
pub struct Reserved {
    room: Arc<Passage>,
    bytes: u64,
}

impl Passage {
    /// The room of a process with this `memory_limit`.
    pub fn of_limit(memory_limit: Option<u64>) -> Arc<Passage> {
        Passage::new(memory_limit.map_or(USUAL, |limit| (limit / SHARE).clamp(LEAST, USUAL)))
    }

    /// Room for so many bytes.
    pub fn new(most: u64) -> Arc<Passage> {
        Arc::new(Passage {
            most,
            state: Mutex::default(),
            freed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch would not have to wait.
    pub fn is_free(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.taken < self.most
    }

    /// Reserves room, once there is any. `stop` disconnects when readers are to stop.
    pub fn reserve(self: &Arc<Self>, bytes: u64, stop: &Receiver<Infallible>) -> Result<Reserved, Ended> {
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
                return Err(Ended::Stopped);
            }
        }
        state.waiting.pop_front();
        state.taken += bytes;
        // The next one may fit beside it.
        self.freed.notify_all();
        Ok(Reserved {
            room: self.clone(),
            bytes,
        })
    }
}

impl Drop for Reserved {
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
        let room = Passage::new(100);
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for reader in 0..4u64 {
                let (room, stopped, held, most) = (&room, &stopped, &held, &most);
                scope.spawn(move || {
                    for n in 0..200 {
                        let bytes = [10, 35, 90, 250][((reader + n) % 4) as usize];
                        let reserved = room.reserve(bytes, stopped).unwrap();
                        let all = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        assert!(all <= 100 || all == bytes, "{all}");
                        most.fetch_max(all, Ordering::SeqCst);
                        held.fetch_sub(bytes, Ordering::SeqCst);
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
        let room = Passage::new(100);
        let first = room.reserve(100, &stopped).unwrap();
        let waiting = thread::spawn({
            let room = room.clone();
            move || room.reserve(1, &stopped).map(drop)
        });
        thread::sleep(Duration::from_millis(10));
        drop(stop);
        assert!(matches!(waiting.join().unwrap(), Err(Ended::Stopped)));
        drop(first);
        assert!(room.is_free());
    }
}
