//! Finds the end of a record that is too long to be buffered: it sees the record in pieces and keeps only a small
//! state.

use memchr::{memchr, memchr2, memchr3};

use super::text::{MARK, end_of_json};
use crate::definition::TextDialect;

/// The lexical state before the next byte of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LexicalState {
    /// At the start of the record, behind this many bytes of a byte order mark, after which the first field starts.
    Mark(usize),
    /// At the start of a CSV field, where a quote would open it.
    FieldStart,
    /// In a field without quotes.
    Plain,
    /// Inside quotes.
    Quoted,
    /// Behind an escape inside quotes: the next byte is literal.
    Escaped,
    /// Behind a quote inside quotes: a second quote makes it a literal one, anything else means that it closed them.
    BehindQuote,
}

/// Looks for the end of one record.
#[derive(Debug)]
pub(super) struct RecordEndScan {
    csv: Option<TextDialect>,
    state: LexicalState,
}

impl RecordEndScan {
    /// A scan at the start of a CSV record, or, without `csv`, of a line.
    pub fn new(csv: Option<TextDialect>) -> Self {
        RecordEndScan {
            csv,
            state: LexicalState::Mark(0),
        }
    }

    /// Whether the record would end within quotes, if it ended here.
    pub fn is_quoted(&self) -> bool {
        matches!(self.state, LexicalState::Quoted | LexicalState::Escaped)
    }

    /// Scans the next piece. Returns where in it the record ends, as the index of the first byte of the line end.
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
            self.state = match (self.state, byte) {
                (LexicalState::Mark(passed), byte) if byte == MARK[passed] && passed + 1 == MARK.len() => {
                    LexicalState::FieldStart
                }
                (LexicalState::Mark(passed), byte) if byte == MARK[passed] => LexicalState::Mark(passed + 1),
                (LexicalState::Mark(passed), _) => {
                    self.state = if passed == 0 {
                        LexicalState::FieldStart
                    } else {
                        LexicalState::Plain
                    };
                    continue;
                }
                (LexicalState::Quoted, _) => {
                    next += match dialect.escape {
                        None => memchr(quote, &piece[next..])?,
                        Some(escape) => memchr2(quote, escape, &piece[next..])?,
                    };
                    if piece[next] == quote {
                        LexicalState::BehindQuote
                    } else {
                        LexicalState::Escaped
                    }
                }
                (LexicalState::Escaped, _) => LexicalState::Quoted,
                (LexicalState::FieldStart | LexicalState::BehindQuote, byte) if byte == quote => LexicalState::Quoted,
                (_, b'\n' | b'\r') => return Some(next),
                (_, byte) if byte == delimiter => LexicalState::FieldStart,
                (LexicalState::FieldStart, b' ' | b'\t') if dialect.trim => LexicalState::FieldStart,
                (LexicalState::FieldStart | LexicalState::BehindQuote, _) => LexicalState::Plain,
                // A quote in a field without quotes is literal.
                (LexicalState::Plain, _) => {
                    next += memchr3(delimiter, b'\n', b'\r', &piece[next..])?;
                    continue;
                }
            };
            next += 1;
        }
    }
}
