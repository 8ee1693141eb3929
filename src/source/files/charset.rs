//! Transcodes a text to UTF-8.
//!
//! A byte order mark decides the encoding, against any setting, and is removed. A code unit that is no character
//! (half of a surrogate pair in UTF-16) becomes a byte that is invalid in UTF-8, so that its record is refused and
//! the neighbours are not.

use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::repr::Charset;

/// Replaces what is no character; it never occurs in UTF-8.
const NO_CHARACTER: u8 = 0xff;

/// How many bytes are decoded at once.
const PIECE: usize = 16 << 10;

/// The text of a stream as UTF-8, without a byte order mark.
pub(crate) fn to_utf8(source: Box<dyn Read>, charset: Charset) -> Box<dyn Read> {
    let mut source = Peeked::new(source, 3);
    let (charset, mark) = match source.head.as_slice() {
        [0xef, 0xbb, 0xbf, ..] => (Charset::Utf8, 3),
        [0xff, 0xfe, ..] => (Charset::Utf16Le, 2),
        [0xfe, 0xff, ..] => (Charset::Utf16Be, 2),
        // A file of data begins with an ASCII character, so a NUL first means big-endian.
        [0, ..] if charset == Charset::Utf16 => (Charset::Utf16Be, 0),
        _ => (charset, 0),
    };
    source.given = mark;
    let decoder = match charset {
        Charset::Utf8 => return Box::new(source),
        Charset::Utf16 | Charset::Utf16Le => Some(UTF_16LE.new_decoder_without_bom_handling()),
        Charset::Utf16Be => Some(UTF_16BE.new_decoder_without_bom_handling()),
        Charset::Windows1252 => Some(WINDOWS_1252.new_decoder_without_bom_handling()),
        Charset::Latin1 => None,
    };
    Box::new(Transcoder {
        source,
        decoder,
        bytes: vec![0; PIECE],
        read: 0,
        text: Vec::with_capacity(PIECE * 3),
        given: 0,
        at_end: false,
        done: false,
    })
}

/// The beginning of a text if it is valid UTF-8 with multi-byte characters: then another encoding is hardly ever
/// meant.
pub(crate) fn as_utf8(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character is cut off at the end of `head`.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    (!text.is_ascii()).then_some(text)
}

/// A stream whose first bytes were read ahead. An error of that read is returned after those bytes.
pub(crate) struct Peeked<R> {
    pub head: Vec<u8>,
    given: usize,
    pub failure: Option<io::Error>,
    source: R,
}

impl<R: Read> Peeked<R> {
    /// Reads up to `count` bytes ahead.
    pub fn new(mut source: R, count: usize) -> Self {
        let mut head = Vec::with_capacity(count);
        let failure = source.by_ref().take(count as u64).read_to_end(&mut head).err();
        Peeked {
            head,
            given: 0,
            failure,
            source,
        }
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let known = &self.head[self.given..];
        if known.is_empty() {
            return match self.failure.take() {
                Some(failure) => Err(failure),
                None => self.source.read(buffer),
            };
        }
        let n = known.len().min(buffer.len());
        buffer[..n].copy_from_slice(&known[..n]);
        self.given += n;
        Ok(n)
    }
}

struct Transcoder<R> {
    source: R,
    /// None for Latin-1, whose bytes equal Unicode code points.
    decoder: Option<Decoder>,
    bytes: Vec<u8>,
    /// How many of `bytes` were read and still have to be decoded.
    read: usize,
    text: Vec<u8>,
    /// How much of `text` was returned to the caller.
    given: usize,
    at_end: bool,
    /// Whether everything up to the end was decoded.
    done: bool,
}

impl<R: Read> Transcoder<R> {
    /// Decodes the next piece, once everything decoded before has been returned.
    fn advance(&mut self) -> io::Result<()> {
        self.text.clear();
        self.given = 0;
        if !self.at_end && self.read < self.bytes.len() {
            match self.source.read(&mut self.bytes[self.read..])? {
                0 => self.at_end = true,
                more => self.read += more,
            }
        }
        let waiting = &self.bytes[..self.read];
        let Some(decoder) = &mut self.decoder else {
            let mut pair = [0; 2];
            for byte in waiting {
                self.text
                    .extend_from_slice(char::from(*byte).encode_utf8(&mut pair).as_bytes());
            }
            self.read = 0;
            self.done = self.at_end;
            return Ok(());
        };
        // In both encodings a byte becomes at most three bytes of UTF-8; a decoder may hold back a few more.
        self.text.resize(waiting.len() * 3 + 16, 0);
        let (result, taken, made) = decoder.decode_to_utf8_without_replacement(waiting, &mut self.text, self.at_end);
        self.text.truncate(made);
        match result {
            DecoderResult::Malformed(..) => self.text.push(NO_CHARACTER),
            DecoderResult::InputEmpty => self.done = self.at_end,
            DecoderResult::OutputFull => {}
        }
        self.bytes.copy_within(taken..self.read, 0);
        self.read -= taken;
        Ok(())
    }
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let ready = &self.text[self.given..];
            if !ready.is_empty() || buffer.is_empty() {
                let n = ready.len().min(buffer.len());
                buffer[..n].copy_from_slice(&ready[..n]);
                self.given += n;
                return Ok(n);
            }
            if self.done {
                return Ok(0);
            }
            self.advance()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], charset: Charset) -> Vec<u8> {
        let mut text = Vec::new();
        let source = Box::new(io::Cursor::new(bytes.to_vec()));
        to_utf8(source, charset)
            .read_to_end(&mut text)
            .expect("memory is readable");
        text
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn every_charset_becomes_utf_8_and_a_mark_says_more_than_a_setting() {
        let text = "k,x\nMüller,€ 😀\n".repeat(9000);
        let little = utf16(&text, u16::to_le_bytes);
        let big = utf16(&text, u16::to_be_bytes);
        for (bytes, charset) in [
            (text.as_bytes().to_vec(), Charset::Utf8),
            (little.clone(), Charset::Utf16Le),
            (little.clone(), Charset::Utf16),
            (big.clone(), Charset::Utf16),
            (big.clone(), Charset::Utf16Be),
            ([b"\xff\xfe".to_vec(), little].concat(), Charset::Utf8),
            ([b"\xfe\xff".to_vec(), big].concat(), Charset::Windows1252),
            ([b"\xef\xbb\xbf", text.as_bytes()].concat(), Charset::Latin1),
        ] {
            assert!(read(&bytes, charset) == text.as_bytes(), "{charset:?}");
        }
        assert_eq!(read(b"M\xfcller \x80", Charset::Windows1252), "Müller €".as_bytes());
        assert_eq!(read(b"M\xfcller \x80", Charset::Latin1), "Müller \u{80}".as_bytes());
    }

    #[test]
    fn half_of_a_pair_is_no_utf_8_and_its_neighbours_are() {
        let mut bytes = utf16("a\n", u16::to_le_bytes);
        bytes.extend([0x3d, 0xd8]);
        bytes.extend(utf16("\nb", u16::to_le_bytes));
        assert_eq!(read(&bytes, Charset::Utf16), b"a\n\xff\nb");
        assert_eq!(read(b"a\0b", Charset::Utf16), b"a\xff");
    }
}
