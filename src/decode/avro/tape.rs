//! A file's bytes on their way: they are held from where a block begins, so that they can be looked at again if it is damaged.

use std::io::{self, Read};

use memchr::memmem;

/// Bytes that are asked for at a time where an end is looked for.
const STEP: u64 = 64 << 10;

/// What is kept of memory that a large block took.
const KEPT: usize = 16 << 20;

pub(super) struct Tape<R> {
    source: R,
    held: Vec<u8>,
    /// Where the next byte is in what is held.
    at: usize,
    /// How many bytes of the file are before what is held.
    before: u64,
}

impl<R: Read> Tape<R> {
    /// Of a file that was read so far.
    pub fn new(source: R, before: u64) -> Self {
        Tape {
            source,
            held: Vec::new(),
            at: 0,
            before,
        }
    }

    /// Where the next byte is in the file.
    pub fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    /// So many bytes in front of the next one, which are still held.
    pub fn passed(&self, length: usize) -> &[u8] {
        &self.held[self.at - length..self.at]
    }

    /// Goes past bytes that are held.
    pub fn go_past(&mut self, length: usize) {
        self.at += length;
    }

    /// Lets go of what is before the next byte.
    pub fn forget(&mut self) {
        // Each byte is moved a few times at most.
        if self.at >= self.held.len() {
            self.held.clear();
        } else if self.at >= self.held.len() / 2 {
            self.held.drain(..self.at);
        } else {
            return;
        }
        self.before += self.at as u64;
        self.at = 0;
        if self.held.is_empty() && self.held.capacity() > KEPT {
            self.held = Vec::new();
        }
    }

    /// Holds so many of the next bytes, and says whether there are as many.
    pub fn hold(&mut self, length: u64) -> io::Result<bool> {
        let there = (self.held.len() - self.at) as u64;
        if there >= length {
            return Ok(true);
        }
        let read = self.source.by_ref().take(length - there).read_to_end(&mut self.held)?;
        Ok(there + read as u64 >= length)
    }

    /// The next bytes that are held.
    pub fn held(&self) -> &[u8] {
        &self.held[self.at..]
    }

    /// Goes behind these bytes, wherever they come next, and says whether they come.
    pub fn go_behind(&mut self, bytes: &[u8]) -> io::Result<bool> {
        loop {
            if let Some(found) = memmem::find(self.held(), bytes) {
                self.at += found + bytes.len();
                return Ok(true);
            }
            // They may begin at the end of what is held.
            self.at = self.at.max((self.held.len() + 1).saturating_sub(bytes.len()));
            self.forget();
            if self.source.by_ref().take(STEP).read_to_end(&mut self.held)? == 0 {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(7);
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn bytes_are_found_wherever_pieces_end() {
        let file: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        for number in [0u32, 1, 16_383, 16_384, 100_001, 199_999] {
            let mut tape = Tape::new(Slowly(&file), 0);
            assert!(tape.hold(40).unwrap());
            let wanted = [number.to_le_bytes(), (number + 1).to_le_bytes()].concat();
            assert_eq!(tape.go_behind(&wanted).unwrap(), number < 199_999, "{number}");
            if number < 199_999 {
                assert_eq!(tape.position(), u64::from(number + 2) * 4);
            }
        }
    }
}
