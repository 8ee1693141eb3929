//! Limits the time of an inference.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// The moment at which the time is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    end: Instant,
}

impl Deadline {
    /// A deadline that is `time` from now.
    pub fn new(time: Duration) -> Self {
        // A limit too far away for the clock is replaced by decades.
        let end = Instant::now().checked_add(time.min(Duration::from_secs(1 << 30)));
        Deadline {
            end: end.unwrap_or_else(Instant::now),
        }
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// A reader that fails once the time is over, even within a record that never ends.
pub(super) struct Timed<R> {
    pub source: R,
    pub clock: Deadline,
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.clock.is_over() {
            true => Err(io::Error::other("the time is over")),
            false => self.source.read(buffer),
        }
    }
}
