//! Whether a record is its file's header again, as files have it that were appended to each other.
//!
//! What counts is the names as the header is read: without a byte order mark, quotes off, `trim` and `ignore_case` as the
//! feed says. The same names in another order are a header, too: rows behind it would have their values in wrong columns.
//!
//! Nearly every record is told from a header by its length or its first byte, and nothing is allocated for it.

use hashbrown::HashSet;

use super::split::{fields, trimmed};
use crate::definition::TextDialect;

/// What a record is to its file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRepeat {
    /// Another record.
    None,
    Same,
    /// The names in another order.
    Reordered,
}

/// Knows a header when it comes again.
#[derive(Debug)]
pub struct RepeatedHeader {
    dialect: TextDialect,
    /// In the lower case where case is ignored, as the two below.
    names: Vec<String>,
    sorted: Vec<String>,
    distinct: HashSet<String>,
    /// Whether a name begins with this byte, an empty one with the delimiter.
    starts: [bool; 256],
    /// How long a record with these names may be.
    shortest: usize,
    longest: usize,
}

impl RepeatedHeader {
    /// Of a header with these names; none: nobody could tell a single name from a value.
    pub fn new(names: &[String], dialect: &TextDialect) -> Option<Self> {
        if names.len() < 2 {
            return None;
        }
        let names: Vec<String> = names.iter().map(|name| folded(name, dialect)).collect();
        let mut starts = [false; 256];
        for name in &names {
            match name.bytes().next() {
                None => starts[usize::from(dialect.delimiter)] = true,
                // The lower case of a letter beyond ASCII may begin with any byte.
                Some(0x80..) if dialect.ignore_case => starts[0x80..].fill(true),
                Some(first) => {
                    starts[usize::from(first)] = true;
                    if dialect.ignore_case {
                        starts[usize::from(first.to_ascii_uppercase())] = true;
                        // Such a letter may have one of ASCII for its lower case.
                        starts[0x80..].fill(true);
                    }
                }
            }
            // Quotes or escapes may stand in front of any name.
            [dialect.quote, dialect.escape]
                .into_iter()
                .flatten()
                .for_each(|byte| starts[usize::from(byte)] = true);
        }
        let bytes: usize = names.iter().map(String::len).sum();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        Some(RepeatedHeader {
            dialect: *dialect,
            distinct: names.iter().cloned().collect(),
            starts,
            // Characters in another case may have other lengths: at most three times as many bytes.
            shortest: (if dialect.ignore_case { bytes / 3 } else { bytes }) + names.len() - 1,
            longest: match dialect.trim {
                true => usize::MAX,
                // Quotes around each, quotes and escapes in front of each character.
                false => (if dialect.ignore_case { bytes * 6 } else { bytes * 2 }) + names.len() * 3,
            },
            names,
            sorted,
        })
    }

    /// Whether a record may be the header, by its length and its first byte: whether to look at it at all.
    pub fn may_be(&self, record: &[u8]) -> bool {
        let record = record.strip_prefix("\u{feff}".as_bytes()).unwrap_or(record);
        self.shortest <= record.len()
            && record.len() <= self.longest.saturating_add(2)
            && self.starts[usize::from(self.first_byte(record))]
    }

    /// The first byte that is no blank where these are trimmed.
    fn first_byte(&self, record: &[u8]) -> u8 {
        let is_blank = |byte: &u8| self.dialect.trim && matches!(byte, b' ' | b'\t') && *byte != self.dialect.delimiter;
        let first = record.iter().find(|byte| !is_blank(byte));
        first.copied().unwrap_or(self.dialect.delimiter)
    }

    /// What a record is, without a byte order mark in front of it.
    pub fn find(&self, record: &str) -> HeaderRepeat {
        if !self.may_be(record.as_bytes()) {
            return HeaderRepeat::None;
        }
        let record = trimmed(record);
        let start = match self.dialect.trim {
            true => {
                let blank = |c: char| matches!(c, ' ' | '\t') && c != char::from(self.dialect.delimiter);
                record.trim_start_matches(blank)
            }
            false => record,
        };
        let first = self.first_byte(record.as_bytes());
        let is_plain = ![self.dialect.quote, self.dialect.escape].contains(&Some(first));
        if is_plain && !self.has_first_field_of(start) {
            return HeaderRepeat::None;
        }
        let Ok(mut found) = fields(record, &self.dialect) else {
            return HeaderRepeat::None;
        };
        if found.len() != self.names.len() {
            return HeaderRepeat::None;
        }
        found.iter_mut().for_each(|name| *name = folded(name, &self.dialect));
        if found == self.names {
            return HeaderRepeat::Same;
        }
        found.sort_unstable();
        match found == self.sorted {
            true => HeaderRepeat::Reordered,
            false => HeaderRepeat::None,
        }
    }

    /// Whether a record's first field, which is not quoted, is one of the names.
    fn has_first_field_of(&self, record: &str) -> bool {
        let end = memchr::memchr(self.dialect.delimiter, record.as_bytes()).unwrap_or(record.len());
        let field = &record[..end];
        if self
            .dialect
            .escape
            .is_some_and(|escape| field.as_bytes().contains(&escape))
        {
            return true;
        }
        let field = match self.dialect.trim {
            true => field.trim_end_matches([' ', '\t']),
            false => field,
        };
        match self.dialect.ignore_case {
            true => self.distinct.contains(&field.to_lowercase()),
            false => self.distinct.contains(field),
        }
    }

    /// What to say of a record that is the header in another order.
    pub fn reordered(&self, record: &str) -> String {
        format!(
            "it is the header again, with its names in another order: {}; values behind it would come into wrong columns: write what \
             follows as a file of its own",
            crate::decode::coerce::shown(trimmed(record))
        )
    }
}

/// A record without a byte order mark: behind a file's beginning it is there where another file was appended.
pub(super) fn without_mark(record: &str) -> &str {
    record.strip_prefix('\u{feff}').unwrap_or(record)
}

fn folded(name: &str, dialect: &TextDialect) -> String {
    match dialect.ignore_case {
        true => name.to_lowercase(),
        false => name.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_header_is_read() {
        let usual = TextDialect::default();
        let trim = TextDialect { trim: true, ..usual };
        let loose = TextDialect {
            ignore_case: true,
            ..usual
        };
        let same = HeaderRepeat::Same;
        for (header, record, dialect, expected) in [
            ("id,n", "id,n", usual, same),
            ("id,n", "id,n\r", usual, same),
            ("id,n", "\"id\",\"n\"", usual, same),
            ("\"id\",\"n\"", "id,n", usual, same),
            ("\"a \"\"b\",n", "\"a \"\"b\",\"n\"", usual, same),
            ("id,n", "id , n", usual, HeaderRepeat::None),
            ("id , n", " \t\"id\",n", trim, same),
            ("id,n", "ID,N", usual, HeaderRepeat::None),
            ("\u{e9}t\u{e9},\u{130}d", "\u{c9}T\u{c9},\u{130}D", loose, same),
            ("kelvin,k", "\u{212a}elvin,K", loose, same),
            ("ID,N", "n,\"id\"", loose, HeaderRepeat::Reordered),
            (",a,b", ",a,b", usual, same),
            (",a,b", "b,,a", usual, HeaderRepeat::Reordered),
            ("id,n", "n,id", usual, HeaderRepeat::Reordered),
            ("id,n", "id,id", usual, HeaderRepeat::None),
            ("id,n", "id,n,x", usual, HeaderRepeat::None),
            ("id,n", "id,\"n", usual, HeaderRepeat::None),
            ("id,n", "1,7", usual, HeaderRepeat::None),
        ] {
            let names = fields(header, &dialect).unwrap();
            let header = RepeatedHeader::new(&names, &dialect).unwrap();
            assert_eq!(header.find(record), expected, "{record:?}");
        }
        assert!(RepeatedHeader::new(&["id".to_string()], &usual).is_none());
    }
}
