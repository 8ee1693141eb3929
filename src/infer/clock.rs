//! The time that a look may take.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Says when the time is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    end: Instant,
}

impl Clock {
    /// From now on.
    pub fn new(time: Duration) -> Self {
        // A time that no clock can tell is long enough.
        let end = Instant::now().checked_add(time.min(Duration::from_secs(1 << 30)));
        Clock {
            end: end.unwrap_or_else(Instant::now),
        }
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// Bytes that end with an error once the time is over: of a record that has no end, too.
pub(super) struct Timed<R> {
    pub source: R,
    pub clock: Clock,
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.clock.is_over() {
            true => Err(io::Error::other("the time is over")),
            false => self.source.read(buffer),
        }
    }
}
