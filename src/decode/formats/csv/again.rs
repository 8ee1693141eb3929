//! Recognises a record that is a header within its file, as in files that were concatenated.
//!
//! The names are compared as the header is parsed: without a byte order mark and quotes, with the feed's `trim` and
//! `ignore_case`. A record is a header in either of two cases:
//!
//! 1. It has the names of the file's header. In another order these are a header, too: the rows behind it would have
//!    their values in wrong columns.
//! 2. It has at least two fields, no two of them alike, and each is a name of the file's header or one that a column
//!    lists in `from`, at least one of these. If its fields fill the columns as those of the file's header do, it
//!    repeats that; otherwise the rows behind it would have their values in wrong columns.
//!
//! The length, the first or the last byte of nearly every record shows that it is no header, and nothing is allocated
//! for it.

use std::slice;

use hashbrown::HashSet;

use crate::decode::coerce::shown;
use crate::decode::formats::csv::by_name::FieldsByName;
use crate::decode::formats::csv::header::{HeaderColumn, place};
use crate::decode::formats::csv::split::{fields, trimmed};
use crate::definition::TextDialect;

/// Whether a record is a header within its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRepeat {
    /// It is an ordinary record.
    None,
    /// Its fields fill the columns as those of the file's header do.
    Same,
    /// It has the names of the file's header in another order.
    Reordered,
    /// It has other names, and its fields fill the columns otherwise.
    OtherFields,
}

impl HeaderRepeat {
    /// Why no record may follow this one in its file; none for an ordinary record and for the same header.
    pub fn fault(self, record: &str) -> Option<String> {
        let what = match self {
            HeaderRepeat::None | HeaderRepeat::Same => return None,
            HeaderRepeat::Reordered => "it is the header again, with its names in another order",
            HeaderRepeat::OtherFields => {
                "it is a header of names that the columns have in `from`, and its fields are not where the file's header has them"
            }
        };
        Some(format!(
            "{what}: {}; values behind it would come into wrong columns: write what follows as a file of its own",
            shown(trimmed(record))
        ))
    }
}

/// Recognises repetitions of a header.
#[derive(Debug)]
pub struct RepeatedHeader {
    dialect: TextDialect,
    /// The names, in lower case if case is ignored, as in the next two.
    names: Vec<String>,
    sorted: Vec<String>,
    /// These names, and those that columns list.
    known: HashSet<String>,
    /// For each column, the names that its field may have, and the field of the header that fills it.
    columns: Vec<(Vec<String>, Option<usize>)>,
    /// For each byte, whether a known name begins with it; an empty name begins with the delimiter.
    starts: [bool; 256],
    /// For each byte, whether a known name ends with it; an empty name ends with the delimiter.
    ends: [bool; 256],
    /// The least and the greatest length that a record of known names may have.
    shortest: usize,
    longest: usize,
}

impl RepeatedHeader {
    /// For a header with these names, of a feed with these columns; none if there is only one name, which might as well
    /// be a value.
    pub(super) fn new(names: &[String], dialect: &TextDialect, wanted: &[HeaderColumn<'_>]) -> Option<Self> {
        if names.len() < 2 {
            return None;
        }
        let columns = {
            let by_name = FieldsByName::new(names, dialect.ignore_case);
            let with_field = |column: &HeaderColumn<'_>| (column.from.to_vec(), by_name.field(column.from));
            wanted.iter().map(with_field).collect()
        };
        let names: Vec<String> = names.iter().map(|name| folded(name, dialect)).collect();
        let listed = wanted.iter().filter(|column| !column.is_of_file());
        let listed = listed
            .flat_map(|column| column.from)
            .filter(|from| place(from).is_none());
        let mut known: HashSet<String> = names.iter().cloned().collect();
        known.extend(listed.map(|name| folded(name, dialect)));
        let (mut starts, mut ends) = ([false; 256], [false; 256]);
        for name in &known {
            mark(&mut starts, name.bytes().next(), dialect);
            mark(&mut ends, name.bytes().next_back(), dialect);
        }
        // A name may be preceded by a quote or an escape, and followed by a quote.
        for byte in [dialect.quote, dialect.escape].into_iter().flatten() {
            starts[usize::from(byte)] = true;
            ends[usize::from(byte)] = true;
        }
        let mut lengths: Vec<usize> = known.iter().map(String::len).collect();
        lengths.sort_unstable();
        // The header itself may have a name several times.
        let own: usize = names.iter().map(String::len).sum();
        let least = own.min(lengths.iter().take(2).sum());
        let greatest = own.max(lengths.iter().sum());
        let most_fields = names.len().max(known.len());
        // In another case, a character may have up to three times as many bytes.
        let resized = if dialect.ignore_case { 3 } else { 1 };
        let mut sorted = names.clone();
        sorted.sort_unstable();
        Some(RepeatedHeader {
            dialect: *dialect,
            known,
            columns,
            starts,
            ends,
            shortest: least / resized + 1,
            longest: match dialect.trim {
                true => usize::MAX,
                // Each name may be quoted, and each of its characters may be preceded by a quote or an escape.
                false => greatest * 2 * resized + most_fields * 3,
            },
            names,
            sorted,
        })
    }

    /// Whether a record may be a header by its length, its first and its last byte, so that it must be parsed.
    pub fn may_be(&self, record: &[u8]) -> bool {
        let record = record.strip_prefix("\u{feff}".as_bytes()).unwrap_or(record);
        self.shortest <= record.len()
            && record.len() <= self.longest.saturating_add(2)
            && self.starts[usize::from(self.first_byte(record))]
            && self.ends[usize::from(self.last_byte(record))]
    }

    /// The first byte, after blanks if these are trimmed.
    fn first_byte(&self, record: &[u8]) -> u8 {
        let first = record.iter().find(|byte| !self.is_trimmed(**byte));
        first.copied().unwrap_or(self.dialect.delimiter)
    }

    /// The last byte before the line's end, and before blanks if these are trimmed.
    fn last_byte(&self, record: &[u8]) -> u8 {
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        let last = record.iter().rfind(|byte| !self.is_trimmed(**byte));
        last.copied().unwrap_or(self.dialect.delimiter)
    }

    /// Whether a byte is a blank that is removed at the ends of fields.
    fn is_trimmed(&self, byte: u8) -> bool {
        self.dialect.trim && matches!(byte, b' ' | b'\t') && byte != self.dialect.delimiter
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
        let Ok(found) = fields(record, &self.dialect) else {
            return HeaderRepeat::None;
        };
        let names: Vec<String> = found.iter().map(|name| folded(name, &self.dialect)).collect();
        if names == self.names {
            return HeaderRepeat::Same;
        }
        if names.len() == self.names.len() {
            let mut sorted = names.clone();
            sorted.sort_unstable();
            if sorted == self.sorted {
                return HeaderRepeat::Reordered;
            }
        }
        match self.consists_of_known(&names) {
            true => self.compare_columns(&found),
            false => HeaderRepeat::None,
        }
    }

    /// Whether a record has several fields, no two of them alike, and each is a known name.
    fn consists_of_known(&self, names: &[String]) -> bool {
        let distinct: HashSet<&str> = names.iter().map(String::as_str).collect();
        names.len() > 1 && distinct.len() == names.len() && names.iter().all(|name| self.known.contains(name))
    }

    /// Compares a record of known names with the header by the columns that its fields fill.
    fn compare_columns(&self, found: &[String]) -> HeaderRepeat {
        let by_name = FieldsByName::new(found, self.dialect.ignore_case);
        let is_there = |from: &String| place(from).is_none() && by_name.field(slice::from_ref(from)).is_some();
        if !self.columns.iter().any(|(from, _)| from.iter().any(is_there)) {
            return HeaderRepeat::None;
        }
        let is_alike = |(from, field): &(Vec<String>, Option<usize>)| by_name.field(from) == *field;
        match found.len() == self.names.len() && self.columns.iter().all(is_alike) {
            true => HeaderRepeat::Same,
            false => HeaderRepeat::OtherFields,
        }
    }

    /// Whether a record's first field, which is not quoted, is a known name.
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
            true => self.known.contains(&field.to_lowercase()),
            false => self.known.contains(field),
        }
    }
}

/// Marks the first or the last byte of a name, with every byte that may stand for it if case is ignored. An empty
/// name is beside a delimiter.
fn mark(marks: &mut [bool; 256], byte: Option<u8>, dialect: &TextDialect) {
    let byte = byte.unwrap_or(dialect.delimiter);
    marks[usize::from(byte)] = true;
    if dialect.ignore_case {
        marks[usize::from(byte.to_ascii_uppercase())] = true;
        // A non-ASCII letter may have an ASCII letter, or another non-ASCII one, as its lower case.
        marks[0x80..].fill(true);
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
            let header = RepeatedHeader::new(&names, &dialect, &[]).unwrap();
            assert_eq!(header.find(record), expected, "{record:?}");
        }
        assert!(RepeatedHeader::new(&["id".to_string()], &usual, &[]).is_none());
    }

    /// A second header of other names that the columns list was a row, and the values behind it came into wrong
    /// columns.
    #[test]
    fn a_header_of_other_names_is_compared_by_the_columns_that_it_fills() {
        let usual = TextDialect::default();
        let trim = TextDialect { trim: true, ..usual };
        let loose = TextDialect {
            ignore_case: true,
            ..usual
        };
        let from = [
            vec!["OrderNo", "order_no"],
            vec!["Customer", "customer_id"],
            vec!["Tier", "customer_tier"],
            vec!["note"],
            vec!["#2"],
            vec!["file.name"],
        ]
        .map(|names| names.into_iter().map(str::to_string).collect::<Vec<String>>());
        let wanted = from.each_ref().map(|from| HeaderColumn {
            name: "",
            from,
            required: false,
            is_key: false,
        });
        let (none, same, other) = (HeaderRepeat::None, HeaderRepeat::Same, HeaderRepeat::OtherFields);
        let header = "OrderNo,Customer,Tier";
        for (header, record, dialect, expected) in [
            (header, "order_no,customer_id,customer_tier", usual, same),
            (header, "OrderNo,customer_id,Tier\r\n", usual, same),
            (header, "\"order_no\",customer_id,\"customer_tier\"", usual, same),
            (header, " order_no , customer_id , customer_tier ", trim, same),
            (header, "ORDER_NO,CUSTOMER_ID,CUSTOMER_TIER", loose, same),
            (header, "ORDER_NO,CUSTOMER_ID,CUSTOMER_TIER", usual, none),
            (header, "order_no,customer_tier,customer_id", usual, other),
            (header, "ORDER_NO,CUSTOMER_TIER,CUSTOMER_ID", loose, other),
            (header, "order_no,customer_id", usual, other),
            (header, "order_no,customer_id,note", usual, other),
            (header, "order_no,customer_id,customer_tier,note", usual, other),
            (header, "Tier,Customer,OrderNo", usual, HeaderRepeat::Reordered),
            (header, "order_no", usual, none),
            (header, "order_no,order_no,order_no", usual, none),
            (header, "order_no,customer_id,gold", usual, none),
            (header, "1,customer_id,customer_tier", usual, none),
            (header, "#2,file.name,note", usual, none),
            // Fields that no column takes are known from the header alone.
            ("OrderNo,a,b", "order_no,a,b", usual, same),
            ("OrderNo,a,b", "a,b", usual, none),
            (",OrderNo,Tier", ",order_no,customer_tier", usual, same),
        ] {
            let names = fields(header, &dialect).unwrap();
            let header = RepeatedHeader::new(&names, &dialect, &wanted).unwrap();
            assert_eq!(header.find(record), expected, "{record:?}");
        }
        let fault = other.fault("order_no,customer_id\n").unwrap();
        assert!(fault.contains("\"order_no,customer_id\"; values behind"), "{fault}");
        assert_eq!((none.fault("1,2"), same.fault(header)), (None, None));
    }
}
