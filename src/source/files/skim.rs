//! Finds the end of a record that is too long to be held: piece by piece, with nothing kept but a state.

use memchr::{memchr, memchr2, memchr3};

use super::text::{MARK, end_of_json};
use crate::definition::TextDialect;

/// Where in a record the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the start of the record, behind so many bytes of a byte order mark: behind all of them its first field starts.
    Mark(usize),
    /// At the start of a field of CSV, where a quote opens it.
    FieldStart,
    /// Within text that no quote encloses.
    Plain,
    /// Within quotes.
    Quoted,
    /// Behind an escape within quotes: whatever comes is itself.
    Escaped,
    /// Behind a quote within quotes: a second one is a quote, anything else is outside of them.
    BehindQuote,
}

/// Looks for the end of one record.
#[derive(Debug)]
pub(super) struct Skim {
    csv: Option<TextDialect>,
    at: At,
}

impl Skim {
    /// At the start of a record of CSV, or of a line.
    pub fn new(csv: Option<TextDialect>) -> Self {
        Skim { csv, at: At::Mark(0) }
    }

    /// Whether the record would end within quotes, if it ended here.
    pub fn is_quoted(&self) -> bool {
        matches!(self.at, At::Quoted | At::Escaped)
    }

    /// Passes over the next piece. Says where in it the record ends, if it does: at the first byte of the line's end.
    pub fn find_end(&mut self, piece: &[u8]) -> Option<usize> {
        let Some(dialect) = self.csv else {
            return end_of_json(piece);
        };
        let Some(quote) = dialect.quote else {
            return memchr2(b'\n', b'\r', piece);
        };
        let delimiter = dialect.delimiter;
        let mut next = 0;
        loop {
            let byte = *piece.get(next)?;
            self.at = match (self.at, byte) {
                (At::Mark(passed), byte) if byte == MARK[passed] && passed + 1 == MARK.len() => At::FieldStart,
                (At::Mark(passed), byte) if byte == MARK[passed] => At::Mark(passed + 1),
                (At::Mark(passed), _) => {
                    self.at = if passed == 0 { At::FieldStart } else { At::Plain };
                    continue;
                }
                (At::Quoted, _) => {
                    next += match dialect.escape {
                        None => memchr(quote, &piece[next..])?,
                        Some(escape) => memchr2(quote, escape, &piece[next..])?,
                    };
                    if piece[next] == quote {
                        At::BehindQuote
                    } else {
                        At::Escaped
                    }
                }
                (At::Escaped, _) => At::Quoted,
                (At::FieldStart | At::BehindQuote, byte) if byte == quote => At::Quoted,
                (_, b'\n' | b'\r') => return Some(next),
                (_, byte) if byte == delimiter => At::FieldStart,
                (At::FieldStart, b' ' | b'\t') if dialect.trim => At::FieldStart,
                (At::FieldStart | At::BehindQuote, _) => At::Plain,
                // A quote within plain text is text.
                (At::Plain, _) => {
                    next += memchr3(delimiter, b'\n', b'\r', &piece[next..])?;
                    continue;
                }
            };
            next += 1;
        }
    }
}
