//! Finds the end of a record that is too long to be held: piece by piece, with nothing kept but a state.

use memchr::{memchr, memchr3};

/// Where in a record the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the start of a field of CSV, where a quote opens it.
    FieldStart,
    /// Within text that no quote encloses.
    Plain,
    /// Within quotes.
    Quoted,
    /// Behind a quote within quotes: a second one is a quote, anything else is outside of them.
    BehindQuote,
}

/// Looks for the end of one record.
#[derive(Debug)]
pub(super) struct Skim {
    csv: bool,
    at: At,
}

impl Skim {
    /// At the start of a record of CSV, or of a line.
    pub fn new(csv: bool) -> Self {
        Skim {
            csv,
            at: At::FieldStart,
        }
    }

    /// Whether the record would end within quotes, if it ended here.
    pub fn is_quoted(&self) -> bool {
        self.at == At::Quoted
    }

    /// Passes over the next piece. Says where in it the record ends, if it does: at the first byte of the line's end.
    pub fn find_end(&mut self, piece: &[u8]) -> Option<usize> {
        if !self.csv {
            return memchr(b'\n', piece);
        }
        let mut next = 0;
        loop {
            let byte = *piece.get(next)?;
            match (self.at, byte) {
                (At::Quoted, _) => match memchr(b'"', &piece[next..]) {
                    None => return None,
                    Some(quote) => {
                        next += quote;
                        self.at = At::BehindQuote;
                    }
                },
                (At::FieldStart | At::BehindQuote, b'"') => self.at = At::Quoted,
                (_, b'\n' | b'\r') => return Some(next),
                (_, b',') => self.at = At::FieldStart,
                (At::Plain, b'"') | (At::FieldStart | At::BehindQuote, _) => self.at = At::Plain,
                (At::Plain, _) => {
                    // A quote within plain text is text.
                    let Some(found) = memchr3(b',', b'\n', b'\r', &piece[next..]) else {
                        return None;
                    };
                    next += found;
                    continue;
                }
            }
            next += 1;
        }
    }
}
