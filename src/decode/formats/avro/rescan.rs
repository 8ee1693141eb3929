//! Buffers a file from the beginning of a block on, so that the block can be scanned again if it is damaged.

use std::io::{self, Read};

use memchr::memmem;

/// How many bytes are read at once in search of a marker.
const STEP: u64 = 64 << 10;

/// How much capacity is kept after a large block.
const KEPT: usize = 16 << 20;

pub(super) struct RescanBuffer<R> {
    source: R,
    buffered: Vec<u8>,
    /// The index of the next byte in `buffered`.
    at: usize,
    /// How many bytes of the file come before `buffered`.
    before: u64,
}

impl<R: Read> RescanBuffer<R> {
    /// For a file of which `before` bytes were read.
    pub fn new(source: R, before: u64) -> Self {
        RescanBuffer {
            source,
            buffered: Vec::new(),
            at: 0,
            before,
        }
    }

    /// The offset of the next byte in the file.
    pub fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    /// The last `length` bytes before the next one; they must still be buffered.
    pub fn passed(&self, length: usize) -> &[u8] {
        &self.buffered[self.at - length..self.at]
    }

    /// Advances over buffered bytes.
    pub fn go_past(&mut self, length: usize) {
        self.at += length;
    }

    /// Discards what comes before the next byte.
    pub fn forget(&mut self) {
        // The conditions ensure that each byte is moved only a few times.
        if self.at >= self.buffered.len() {
            self.buffered.clear();
        } else if self.at >= self.buffered.len() / 2 {
            self.buffered.drain(..self.at);
        } else {
            return;
        }
        self.before += self.at as u64;
        self.at = 0;
        if self.buffered.is_empty() && self.buffered.capacity() > KEPT {
            self.buffered = Vec::new();
        }
    }

    /// Buffers the next `length` bytes; returns whether there are as many.
    pub fn hold(&mut self, length: u64) -> io::Result<bool> {
        let available = (self.buffered.len() - self.at) as u64;
        if available >= length {
            return Ok(true);
        }
        let read = self
            .source
            .by_ref()
            .take(length - available)
            .read_to_end(&mut self.buffered)?;
        Ok(available + read as u64 >= length)
    }

    /// The buffered bytes from the next one on.
    pub fn buffered(&self) -> &[u8] {
        &self.buffered[self.at..]
    }

    /// Advances behind the next occurrence of these bytes; returns whether there is one.
    pub fn go_behind(&mut self, bytes: &[u8]) -> io::Result<bool> {
        loop {
            if let Some(found) = memmem::find(self.buffered(), bytes) {
                self.at += found + bytes.len();
                return Ok(true);
            }
            // An occurrence may begin at the end of the buffer.
            self.at = self.at.max((self.buffered.len() + 1).saturating_sub(bytes.len()));
            self.forget();
            if self.source.by_ref().take(STEP).read_to_end(&mut self.buffered)? == 0 {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    /// Returns a few bytes at a time.
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
            let mut buffer = RescanBuffer::new(Slowly(&file), 0);
            assert!(buffer.hold(40).unwrap());
            let wanted = [number.to_le_bytes(), (number + 1).to_le_bytes()].concat();
            assert_eq!(buffer.go_behind(&wanted).unwrap(), number < 199_999, "{number}");
            if number < 199_999 {
                assert_eq!(buffer.position(), u64::from(number + 2) * 4);
            }
        }
    }
}
