//! Recognises a record that repeats its file's header, as in files that were concatenated.
//!
//! The names are compared as the header is parsed: without a byte order mark and quotes, with the feed's `trim` and
//! `ignore_case`. The same names in another order are a header, too: the rows behind it would have their values in
//! wrong columns.
//!
//! The length or the first byte of nearly every record shows that it is no header, and nothing is allocated for it.

use hashbrown::HashSet;

use crate::decode::formats::csv::split::{fields, trimmed};
use crate::definition::TextDialect;

/// Whether a record repeats its file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRepeat {
    /// It is an ordinary record.
    None,
    Same,
    /// It has the same names in another order.
    Reordered,
}

/// Recognises repetitions of a header.
#[derive(Debug)]
pub struct RepeatedHeader {
    dialect: TextDialect,
    /// The names, in lower case if case is ignored, as in the next two.
    names: Vec<String>,
    sorted: Vec<String>,
    distinct: HashSet<String>,
    /// For each byte, whether a name begins with it; an empty name begins with the delimiter.
    starts: [bool; 256],
    /// The least and the greatest length that a record with these names may have.
    shortest: usize,
    longest: usize,
}

impl RepeatedHeader {
    /// For a header with these names; none if there is only one, which might as well be a value.
    pub fn new(names: &[String], dialect: &TextDialect) -> Option<Self> {
        if names.len() < 2 {
            return None;
        }
        let names: Vec<String> = names.iter().map(|name| folded(name, dialect)).collect();
        let mut starts = [false; 256];
        for name in &names {
            match name.bytes().next() {
                None => starts[usize::from(dialect.delimiter)] = true,
                // A non-ASCII letter may have an upper case that begins with any other non-ASCII byte.
                Some(0x80..) if dialect.ignore_case => starts[0x80..].fill(true),
                Some(first) => {
                    starts[usize::from(first)] = true;
                    if dialect.ignore_case {
                        starts[usize::from(first.to_ascii_uppercase())] = true;
                        // A non-ASCII letter may have an ASCII letter as its lower case.
                        starts[0x80..].fill(true);
                    }
                }
            }
            // A name may be preceded by a quote or an escape.
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
            // In another case, a character may have up to three times as many bytes.
            shortest: (if dialect.ignore_case { bytes / 3 } else { bytes }) + names.len() - 1,
            longest: match dialect.trim {
                true => usize::MAX,
                // Each name may be quoted, and each of its characters may be preceded by a quote or an escape.
                false => (if dialect.ignore_case { bytes * 6 } else { bytes * 2 }) + names.len() * 3,
            },
            names,
            sorted,
        })
    }

    /// Whether a record may be the header by its length and its first byte, so that it must be parsed.
    pub fn may_be(&self, record: &[u8]) -> bool {
        let record = record.strip_prefix("\u{feff}".as_bytes()).unwrap_or(record);
        self.shortest <= record.len()
            && record.len() <= self.longest.saturating_add(2)
            && self.starts[usize::from(self.first_byte(record))]
    }

    /// The first byte, after blanks if these are trimmed.
    fn first_byte(&self, record: &[u8]) -> u8 {
        let is_blank = |byte: &u8| self.dialect.trim && matches!(byte, b' ' | b'\t') && *byte != self.dialect.delimiter;
        let first = record.iter().find(|byte| !is_blank(byte));
        first.copied().unwrap_or(self.dialect.delimiter)
    }

    /// Compares a record, which must have no byte order mark, with the header.
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

    /// The message for a record that has the header's names in another order.
    pub fn reordered(&self, record: &str) -> String {
        format!(
            "it is the header again, with its names in another order: {}; values behind it would come into wrong columns: write what \
             follows as a file of its own",
            crate::decode::coerce::shown(trimmed(record))
        )
    }
}

/// A record without a byte order mark, which is there if a file was appended to another.
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
