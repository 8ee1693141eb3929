//! Splits text into records: lines of NDJSON, or records of CSV whose quoted fields may hold line breaks.
//!
//! CSV follows `csv_core`: a quote opens a field only as its first byte (with `trim`, also behind blanks), a doubled
//! quote in a quoted field is a quote, the byte behind an escape in it is literal, and CR, LF and CRLF end a record.
//! Blank lines and comments are skipped. A record is returned as a slice of the bytes without the line end; only a
//! record that spans two reads is copied.
//!
//! A record above the limit is never buffered as a whole: its first bytes are kept, and the rest is skipped.
//!
//! A record's number is its line in the file, whatever the line ends are: see [`LineNumber`].

use std::io::{self, Read};

use memchr::{memchr, memchr2, memchr3};

use super::line_number::LineNumber;
use super::record_end::RecordEndScan;
use crate::decode::FIRST_BYTES;
use crate::definition::TextDialect;

/// How many bytes are read at once.
const READ_BYTES: usize = 256 << 10;

/// What ends the splitting of a text early.
#[derive(Debug)]
pub(crate) enum SplitError {
    /// The source failed; a record that it cut off is not returned.
    Io(io::Error),
    /// A quoted field was still open at the end of the text, in the record that begins on this line.
    OpenQuote(u64),
    /// More than [`MOST_BLANK`] bytes of blank lines in a row.
    Blank,
    /// A record or line of more than [`MOST_RECORD`] bytes without an end.
    Endless,
}

/// The most bytes of blank lines in a row. A small compressed file may hold gigabytes of them, which would be read
/// for minutes without a result.
pub(crate) const MOST_BLANK: u64 = 256 << 20;

/// The most bytes of a record that is skipped, for the same reason: a sparse file may have terabytes of zeros.
pub(crate) const MOST_RECORD: u64 = 4 << 30;

/// The byte order mark of UTF-8. It may stand before any record, where files were concatenated, and is not part of
/// it.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";

/// Ends a JSON record besides a line end: RFC 7464 puts it between JSON texts, and no valid JSON contains it.
pub(crate) const RECORD_SEPARATOR: u8 = 0x1e;

/// A record of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextRecord<'a> {
    /// The record, or only its first bytes if it is cut.
    pub bytes: &'a [u8],
    /// The full length in bytes, if the record is above the limit.
    pub cut_from: Option<u64>,
    /// The line on which it begins, from 1.
    pub number: u64,
    /// Whether the text ends without a line end behind this record, so that more of it may follow later.
    pub is_open: bool,
}

impl TextRecord<'_> {
    /// Its full length in bytes.
    pub fn length(&self) -> u64 {
        self.cut_from.unwrap_or(self.bytes.len() as u64)
    }
}

/// Records of a text.
pub(crate) struct TextRecords<R> {
    source: R,
    /// The dialect of CSV; none if each line is a record.
    csv: Option<TextDialect>,
    limit: usize,
    /// See [`MOST_RECORD`].
    most: u64,
    buffer: Vec<u8>,
    /// The unread part of the buffer.
    start: usize,
    end: usize,
    at_end: bool,
    /// The first bytes of the newest record that was skipped.
    first: Vec<u8>,
    /// Offsets in the text: `at` is that of the unread part, `last` that of the newest returned record.
    at: u64,
    last: u64,
    /// The line of the unread part.
    line: LineNumber,
    /// The length of the newest returned record, if the text ended without a line end behind it.
    open_end: Option<u64>,
    /// Bytes of blank lines since the last record.
    blank: u64,
    /// An error of the source that occurred behind the unread bytes.
    failure: Option<io::Error>,
}

impl<R: Read> TextRecords<R> {
    /// Splits a text into CSV records of this dialect, or else into lines; records of more than `limit` bytes are
    /// cut.
    pub fn new(source: R, csv: Option<TextDialect>, limit: usize) -> Self {
        TextRecords {
            source,
            csv,
            limit,
            most: MOST_RECORD,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            at_end: false,
            first: Vec::new(),
            at: 0,
            last: 0,
            line: LineNumber::default(),
            open_end: None,
            blank: 0,
            failure: None,
        }
    }

    /// The dialect by which CSV records are split.
    pub fn dialect(&self) -> Option<&TextDialect> {
        self.csv.as_ref()
    }

    /// Sets the delimiter for all that follows.
    pub fn split_by(&mut self, delimiter: u8) {
        self.csv.iter_mut().for_each(|dialect| dialect.delimiter = delimiter);
    }

    /// The next record, or none at the end.
    pub fn next(&mut self) -> Result<Option<TextRecord<'_>>, SplitError> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if self.csv.as_ref().is_some_and(|dialect| is_comment(unread, dialect)) {
                self.skip_line()?;
                continue;
            }
            let end = match &self.csv {
                Some(dialect) => end_of_csv(unread, dialect),
                None => end_of_json(unread).ok_or(false),
            };
            let length = match end {
                Ok(length) => length,
                Err(_) if !self.at_end && unread.len() > self.limit => return self.pass_over().map(Some),
                Err(_) if !self.at_end => {
                    self.fill()?;
                    continue;
                }
                Err(_) if unread.is_empty() => return Ok(None),
                Err(true) => return Err(SplitError::OpenQuote(self.line.next())),
                Err(false) => unread.len(),
            };
            let from = self.start;
            self.start = (from + length + 1).min(self.end);
            self.last = self.at;
            self.at += (self.start - from) as u64;
            let is_open = from + length == self.end;
            let number = self.line.observe(&self.buffer[from..self.start], !is_open);
            // Cut as in `pass_over`, so that the result does not depend on how much was read at once.
            if length > self.limit {
                self.open_end = is_open.then_some(length as u64);
                return Ok(Some(TextRecord {
                    bytes: &self.buffer[from..from + length.min(FIRST_BYTES)],
                    cut_from: Some(length as u64),
                    number,
                    is_open,
                }));
            }
            let is_csv = self.csv.is_some();
            let blank = match is_csv {
                true => length == 0,
                false => self.buffer[from..from + length].trim_ascii().is_empty(),
            };
            if blank {
                self.blank += length as u64 + 1;
                if self.blank > MOST_BLANK {
                    return Err(SplitError::Blank);
                }
            } else {
                self.blank = 0;
                let record = &self.buffer[from..from + length];
                let bytes = if is_csv { record } else { record.trim_ascii() };
                self.open_end = is_open.then_some(bytes.len() as u64);
                return Ok(Some(TextRecord {
                    bytes,
                    cut_from: None,
                    number,
                    is_open,
                }));
            }
        }
    }

    /// The next bytes, up to `count`, which stay unread. If the source fails after some bytes, the error is returned
    /// once these have been read.
    pub fn peek(&mut self, count: usize) -> Result<&[u8], SplitError> {
        while self.end - self.start < count && !self.at_end && self.failure.is_none() {
            match self.fill() {
                Err(SplitError::Io(failure)) if self.end > self.start => self.failure = Some(failure),
                filled => filled?,
            }
        }
        Ok(&self.buffer[self.start..self.end.min(self.start + count)])
    }

    /// The offset of the unread part in the text.
    pub fn passed(&self) -> u64 {
        self.at
    }

    /// The offset at which a later reader should continue: behind the newest record, or at its start if it has no end
    /// yet.
    pub fn reached(&self) -> u64 {
        match self.open_end {
            Some(_) => self.last,
            None => self.at,
        }
    }

    /// Skips the text up to an offset that an earlier reader reached, unless it is behind that already.
    pub fn skip_to(&mut self, place: u64) -> Result<(), SplitError> {
        while self.at < place {
            let left = usize::try_from(place - self.at).unwrap_or(usize::MAX);
            let passed = left.min(self.end - self.start);
            if passed == 0 {
                if self.at_end {
                    break;
                }
                self.fill()?;
                continue;
            }
            self.line
                .observe(&self.buffer[self.start..self.start + passed], passed == left);
            self.start += passed;
            self.at += passed as u64;
        }
        Ok(())
    }

    /// The length of the newest record if the text ended without a line end behind it, so that more of it may follow.
    pub fn open_end(&self) -> Option<u64> {
        self.open_end
    }

    /// Skips a line without parsing it, however long it is.
    pub fn skip_line(&mut self) -> Result<(), SplitError> {
        let from = self.at;
        loop {
            if self.at - from > self.most {
                return Err(SplitError::Endless);
            }
            let unread = &self.buffer[self.start..self.end];
            let passed = match memchr2(b'\n', b'\r', unread) {
                // A CR at the end of the buffer may be half of a CRLF.
                Some(at) if unread[at] == b'\r' && at + 1 == unread.len() && !self.at_end => at,
                Some(at) => at + if unread[at..].starts_with(b"\r\n") { 2 } else { 1 },
                None => unread.len(),
            };
            self.line.observe(&unread[..passed], true);
            let is_over = unread[..passed]
                .last()
                .is_some_and(|byte| matches!(byte, b'\n' | b'\r'));
            self.start += passed;
            self.at += passed as u64;
            if is_over || self.at_end {
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Skips the record that starts here, which is above the limit, and keeps its first bytes.
    fn pass_over(&mut self) -> Result<TextRecord<'_>, SplitError> {
        let mut scan = RecordEndScan::new(self.csv);
        let unread = &self.buffer[self.start..self.end];
        self.first.clear();
        self.first.extend_from_slice(&unread[..unread.len().min(FIRST_BYTES)]);
        let mut at = self.at;
        let (mut length, mut number) = (0, None);
        loop {
            let piece = &self.buffer[self.start..self.end];
            let end = scan.find_end(piece);
            let passed = end.map_or(piece.len(), |end| end + 1);
            let line = self.line.observe(&piece[..passed], end.is_some());
            number.get_or_insert(line);
            length += end.unwrap_or(piece.len()) as u64;
            self.start += passed;
            at += passed as u64;
            self.open_end = end.is_none().then_some(length);
            if end.is_some() {
                break;
            }
            if self.at_end {
                if scan.is_quoted() {
                    return Err(SplitError::OpenQuote(number.unwrap_or_default()));
                }
                break;
            }
            if length > self.most {
                return Err(SplitError::Endless);
            }
            // The buffer grew for one long record; it would be wasteful to keep that size for all that follow.
            self.buffer.truncate(READ_BYTES);
            self.buffer.shrink_to_fit();
            (self.start, self.end) = (0, 0);
            self.read()?;
        }
        (self.last, self.at) = (self.at, at);
        Ok(TextRecord {
            bytes: &self.first,
            cut_from: Some(length),
            number: number.unwrap_or_default(),
            is_open: self.open_end.is_some(),
        })
    }

    /// Reads more bytes behind the unread ones.
    fn fill(&mut self) -> Result<(), SplitError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end * 2 > self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        self.read()
    }

    /// Reads into the free end of the buffer.
    fn read(&mut self) -> Result<(), SplitError> {
        if let Some(failure) = self.failure.take() {
            return Err(SplitError::Io(failure));
        }
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(read) => self.end += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(SplitError::Io(e)),
            }
            return Ok(());
        }
    }
}

/// The length of the JSON record at the start of `text`, if its end is in `text`.
pub(super) fn end_of_json(text: &[u8]) -> Option<usize> {
    memchr2(b'\n', RECORD_SEPARATOR, text)
}

fn is_comment(record: &[u8], dialect: &TextDialect) -> bool {
    dialect.comment.is_some() && record.strip_prefix(MARK).unwrap_or(record).first() == dialect.comment.as_ref()
}

/// The length of the CSV record at the start of `text`; or, if its end is not in `text`, whether that ends inside
/// quotes.
fn end_of_csv(text: &[u8], dialect: &TextDialect) -> Result<usize, bool> {
    let Some(quote) = dialect.quote else {
        return memchr2(b'\n', b'\r', text).ok_or(false);
    };
    let mut at = 0;
    loop {
        at += memchr3(quote, b'\n', b'\r', &text[at..]).ok_or(false)?;
        if text[at] != quote {
            return Ok(at);
        }
        let opens = opens_field(&text[..at], dialect);
        at += 1;
        if !opens {
            continue;
        }
        at += end_of_quoted(&text[at..], quote, dialect.escape).ok_or(true)?;
    }
}

/// Whether a quote behind these bytes of a record would be the first byte of its field.
fn opens_field(before: &[u8], dialect: &TextDialect) -> bool {
    let blank = |byte: &u8| dialect.trim && matches!(byte, b' ' | b'\t') && *byte != dialect.delimiter;
    let last = before.iter().rposition(|byte| !blank(byte));
    last.is_none_or(|last| before[last] == dialect.delimiter || before[..=last] == *MARK)
}

/// The number of bytes up to the end of a quoted field, closing quote included; none if it is not closed.
fn end_of_quoted(text: &[u8], quote: u8, escape: Option<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        at += match escape {
            None => memchr(quote, &text[at..])?,
            Some(escape) => memchr2(quote, escape, &text[at..])?,
        };
        if text[at] != quote {
            // The byte behind an escape is literal, even if it is a line end.
            at += 2;
            if at > text.len() {
                return None;
            }
            continue;
        }
        match text.get(at + 1) {
            Some(next) if *next == quote => at += 2,
            _ => return Some(at + 1),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a few bytes at a time, so that every record spans several reads.
    pub struct SlowReader<'a>(pub &'a [u8], pub usize);

    impl Read for SlowReader<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn split(text: &str, csv: bool, step: usize) -> Vec<String> {
        let mut records = TextRecords::new(
            SlowReader(text.as_bytes(), step),
            csv.then(TextDialect::default),
            1 << 20,
        );
        let mut split = Vec::new();
        while let Some(record) = records.next().unwrap() {
            split.push(String::from_utf8(record.bytes.to_vec()).unwrap());
        }
        split
    }

    #[test]
    fn csv_records_end_outside_quotes_whatever_the_line_ends() {
        let text = "a,b\r\n1,\"x\ny\"\n\n2,\"say \"\"hi\"\"\r\nthere\"\r\n3,6\" plate\r4,\"\"\n5,\"a\"b\"c\n6,end";
        let expected = [
            "a,b",
            "1,\"x\ny\"",
            "2,\"say \"\"hi\"\"\r\nthere\"",
            "3,6\" plate",
            "4,\"\"",
            "5,\"a\"b\"c",
            "6,end",
        ];
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(split(text, true, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn ndjson_records_are_trimmed_lines_and_blank_ones_are_none() {
        for step in [1, 1000] {
            assert_eq!(
                split(" {\"a\":1} \r\n\n \t\r\n{\"b\":\"\\n\"}", false, step),
                ["{\"a\":1}", "{\"b\":\"\\n\"}"]
            );
        }
        assert_eq!(split("", true, 1), Vec::<String>::new());
    }

    /// Four sparse files used to keep all readers of a feed busy for hours.
    #[test]
    fn a_record_without_end_is_given_up_and_what_came_before_is_given() {
        for csv in [None, Some(TextDialect::default())] {
            let text = b"1\n".chain(io::repeat(0));
            let mut records = TextRecords::new(text, csv, 1000);
            records.most = 1 << 22;
            assert_eq!(records.next().unwrap().map(|line| line.bytes), Some(&b"1"[..]));
            assert!(matches!(records.next(), Err(SplitError::Endless)));
            let mut lines = TextRecords::new(io::repeat(0), csv, 1000);
            lines.most = 1 << 22;
            assert!(matches!(lines.skip_line(), Err(SplitError::Endless)));
        }
    }

    #[test]
    fn splits_as_csv_core_counts_records() {
        let usual = TextDialect::default();
        let quoted_by = |quote, escape| TextDialect { quote, escape, ..usual };
        // Each dialect with the bytes that have a meaning in it.
        for (dialect, alphabet) in [
            (usual, &b"a,\"\n\r"[..]),
            (
                TextDialect {
                    delimiter: b';',
                    ..quoted_by(Some(b'\''), None)
                },
                b"a;'\n\r",
            ),
            (quoted_by(None, None), b"a,\"\n\r"),
            (quoted_by(Some(b'"'), Some(b'\\')), b"a,\"\\\n"),
            (
                // In `csv_core` a CR does not end a comment.
                TextDialect {
                    comment: Some(b'#'),
                    ..usual
                },
                b"a,\"#\n",
            ),
        ] {
            agrees_on_every_text(dialect, alphabet);
        }
    }

    /// Compares the splitting of every short text over these bytes with that of `csv_core`.
    fn agrees_on_every_text(dialect: TextDialect, alphabet: &[u8]) {
        let longest = if dialect == TextDialect::default() { 6 } else { 5 };
        for length in 0..=longest {
            for n in 0..alphabet.len().pow(length) {
                let mut text: Vec<u8> = (0..length)
                    .map(|i| alphabet[n / alphabet.len().pow(i) % alphabet.len()])
                    .collect();
                if dialect.comment.is_some() {
                    text.push(b'\n'); // `csv_core` makes a record of an unfinished comment
                }
                let mut records = TextRecords::new(&text[..], Some(dialect), 1 << 20);
                let mut ours = Vec::new();
                let open = loop {
                    match records.next() {
                        Ok(Some(record)) => ours.push(fields(record.bytes, &dialect).remove(0)),
                        Ok(None) => break false,
                        Err(SplitError::OpenQuote(_)) => break true,
                        Err(e) => panic!("{e:?}"),
                    }
                };
                let mut theirs = fields(&text, &dialect);
                if open {
                    theirs.pop();
                }
                assert_eq!(ours, theirs, "{:?} of {dialect:?}", String::from_utf8_lossy(&text));
            }
        }
    }

    /// The fields of every record, as `csv_core` sees them.
    fn fields(text: &[u8], dialect: &TextDialect) -> Vec<Vec<Vec<u8>>> {
        let mut reader = csv_core::ReaderBuilder::new()
            .delimiter(dialect.delimiter)
            .quote(dialect.quote.unwrap_or(b'"'))
            .quoting(dialect.quote.is_some())
            .escape(dialect.escape)
            .comment(dialect.comment)
            .build();
        let (mut records, mut bytes, mut ends, mut input) = (Vec::new(), Vec::new(), Vec::new(), text);
        loop {
            let (mut output, mut new_ends) = ([0; 64], [0; 32]);
            let (result, read, written, fields) = reader.read_record(input, &mut output, &mut new_ends);
            input = &input[read..];
            bytes.extend_from_slice(&output[..written]);
            ends.extend_from_slice(&new_ends[..fields]);
            match result {
                csv_core::ReadRecordResult::Record => {
                    let starts = std::iter::once(0).chain(ends.iter().copied());
                    records.push(
                        starts
                            .zip(&ends)
                            .map(|(from, to): (usize, &usize)| bytes[from..*to].to_vec())
                            .collect(),
                    );
                    bytes.clear();
                    ends.clear();
                }
                csv_core::ReadRecordResult::InputEmpty => continue,
                csv_core::ReadRecordResult::End => return records,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_quote_behind_blanks_opens_a_field_where_blanks_are_trimmed() {
        let trim = TextDialect {
            trim: true,
            ..TextDialect::default()
        };
        let mut records = TextRecords::new(&b"a, \"b\n\", c\n \"d\n\" \ne"[..], Some(trim), 1 << 20);
        for expected in ["a, \"b\n\", c", " \"d\n\" ", "e"] {
            assert_eq!(
                records.next().unwrap().map(|line| line.bytes),
                Some(expected.as_bytes())
            );
        }
    }

    #[test]
    fn lines_are_passed_over_whatever_ends_them() {
        for step in [1, 1000] {
            let text = b"one \"\r\n\r\ntwo\rthree\nk,x\n1,2\n";
            let mut records = TextRecords::new(SlowReader(text, step), Some(TextDialect::default()), 1 << 20);
            assert_eq!(records.peek(3).unwrap(), b"one");
            (0..4).for_each(|_| records.skip_line().unwrap());
            let line = records.next().unwrap().unwrap();
            assert_eq!((line.bytes, line.number), (&b"k,x"[..], 5), "in steps of {step}");
        }
    }

    #[test]
    fn what_never_ends_is_refused_and_what_came_before_is_given() {
        for limit in [1 << 20, 2] {
            for end in ["\n", "\r\n", "\r"] {
                let text = "ab\n\n\"open\n2,x\n".replace('\n', end);
                let mut records = TextRecords::new(text.as_bytes(), Some(TextDialect::default()), limit);
                assert_eq!(records.next().unwrap().map(|line| line.bytes), Some(&b"ab"[..]));
                let open = records.next();
                assert!(matches!(open, Err(SplitError::OpenQuote(3))), "{open:?} of {end:?}");
            }
        }
    }

    /// A record of 60 MiB in a small file took several times as much memory, and one above the limit ended the file.
    #[test]
    fn a_record_above_the_limit_is_cut_and_those_behind_it_are_given() {
        let long = "x".repeat(3 << 20);
        let csv = format!("a,b\n1,\"{long}\n\"\"{long}\",7\r\n2,y\n{long}");
        let ndjson = format!("{{}}\n[\"{long}\"] \r\n\n[2]\n{long}{long}\n");
        for step in [1000, 300 << 10, 5 << 20] {
            for (text, is_csv) in [(&csv, true), (&ndjson, false)] {
                let mut records = TextRecords::new(
                    SlowReader(text.as_bytes(), step),
                    is_csv.then(TextDialect::default),
                    1 << 20,
                );
                let mut lines = Vec::new();
                while let Some(line) = records.next().unwrap() {
                    let start = String::from_utf8(line.bytes[..line.bytes.len().min(4)].to_vec()).unwrap();
                    assert!(line.cut_from.is_none() || line.bytes.len() == FIRST_BYTES);
                    lines.push((start, line.cut_from));
                }
                let n = long.len() as u64;
                let expected = match is_csv {
                    true => [
                        ("a,b", None),
                        ("1,\"x", Some(2 * n + 9)),
                        ("2,y", None),
                        ("xxxx", Some(n)),
                    ],
                    false => [
                        ("{}", None),
                        ("[\"xx", Some(n + 6)),
                        ("[2]", None),
                        ("xxxx", Some(2 * n)),
                    ],
                };
                assert_eq!(
                    lines,
                    expected.map(|(start, length)| (start.to_string(), length)),
                    "steps of {step}"
                );
                assert!(records.buffer.len() <= 8 << 20, "{}", records.buffer.len());
            }
        }
    }

    #[test]
    fn records_tell_the_lines_that_they_begin_on() {
        let long = "y".repeat(100);
        let text = format!("a,b\r\n1,\"x\ny\"\n\n2,\"{long}\n\n{long}\"\n3,z\n{long}{long}{long}\n4,w");
        for step in [1, 7, 1000] {
            let mut records = TextRecords::new(SlowReader(text.as_bytes(), step), Some(TextDialect::default()), 250);
            let mut lines = Vec::new();
            while let Some(line) = records.next().unwrap() {
                lines.push(line.number);
            }
            assert_eq!(lines, [1, 2, 5, 8, 9, 10], "in steps of {step}");
        }
    }

    /// If lines ended with CR alone, every record was on line 1: a key of file and line kept only one row.
    #[test]
    fn records_of_every_line_end_tell_their_lines() {
        let text = "a,b\n1,\"x\ny\"\n\n2,z\n3,w";
        let long = "l".repeat(300);
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("{}{end}4,{long}{end}5,v", text.replace('\n', end));
            for step in [1, 2, 7, 1000] {
                let mut records =
                    TextRecords::new(SlowReader(text.as_bytes(), step), Some(TextDialect::default()), 250);
                let mut lines = Vec::new();
                while let Some(line) = records.next().unwrap() {
                    lines.push(line.number);
                }
                assert_eq!(lines, [1, 2, 5, 6, 7, 8], "{end:?} in steps of {step}");
                let mut records =
                    TextRecords::new(SlowReader(text.as_bytes(), step), Some(TextDialect::default()), 250);
                records.skip_line().unwrap();
                assert_eq!(records.next().unwrap().map(|line| line.number), Some(2));
            }
        }
        // Records have different numbers whatever ends them. A CR inside quotes ends no line if other lines end
        // with LF.
        let mixed = b"a\n\"1\r1\"\n2\r3\r\n4";
        let mut records = TextRecords::new(&mixed[..], Some(TextDialect::default()), 250);
        let mut lines = Vec::new();
        while let Some(line) = records.next().unwrap() {
            lines.push(line.number);
        }
        assert_eq!(lines, [1, 2, 3, 4, 5]);
    }

    /// After a change of settings that split records, a restart skipped records that had been counted by the old
    /// settings.
    #[test]
    fn reading_goes_on_where_it_was_whatever_records_are_split_by() {
        let usual = TextDialect::default();
        let quote = None;
        let comment = Some(b'#');
        let text = "h\n#1\n\"2\n3\"\n4\n";
        for (dialect, rest) in [
            (usual, vec!["5", "6"]),
            (TextDialect { comment, ..usual }, vec!["5", "6"]),
            (TextDialect { quote, ..usual }, vec!["5", "6"]),
        ] {
            let mut before = TextRecords::new(text.as_bytes(), Some(usual), 250);
            while before.next().unwrap().is_some() {}
            let longer = format!("{text}5\n6\n");
            let mut records = TextRecords::new(SlowReader(longer.as_bytes(), 3), Some(dialect), 250);
            assert!(records.next().unwrap().is_some(), "the header");
            records.skip_to(before.reached()).unwrap();
            let mut lines = Vec::new();
            while let Some(line) = records.next().unwrap() {
                lines.push((String::from_utf8_lossy(line.bytes).into_owned(), line.number));
            }
            let expected = rest.into_iter().map(str::to_string).zip(6..);
            assert_eq!(lines, expected.collect::<Vec<_>>());
        }
        let mut open = TextRecords::new(&b"h\n1\n2"[..], Some(usual), 250);
        while open.next().unwrap().is_some() {}
        assert_eq!(open.reached(), 4, "the last record may go on");
    }

    /// A small file whose reading failed yielded no records, because its beginning was peeked at first.
    #[test]
    fn what_is_looked_at_before_a_failure_is_given() {
        struct Failing<'a>(&'a [u8]);
        impl Read for Failing<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    return Err(io::Error::other("torn"));
                }
                let n = self.0.len().min(buffer.len());
                buffer[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        let mut records = TextRecords::new(Failing(b"h\n1\n2"), Some(TextDialect::default()), 250);
        assert_eq!(records.peek(100).unwrap(), b"h\n1\n2");
        for expected in [&b"h"[..], b"1"] {
            assert_eq!(records.next().unwrap().map(|line| line.bytes), Some(expected));
        }
        assert!(matches!(records.next(), Err(SplitError::Io(_))));
    }

    #[test]
    fn a_text_that_ends_amid_a_line_says_how_long_its_last_record_is() {
        for (text, open) in [
            ("a\n12\n", None),
            ("a\n12", Some(2)),
            ("a\r12\r", None),
            ("a\n\"1\n2\"", Some(5)),
        ] {
            let mut records = TextRecords::new(text.as_bytes(), Some(TextDialect::default()), 250);
            while records.next().unwrap().is_some() {}
            assert_eq!(records.open_end(), open, "{text:?}");
        }
    }

    #[test]
    fn what_passes_over_a_record_ends_where_the_splitter_does() {
        let usual = TextDialect::default();
        let escape = Some(b'\\');
        let trim = true;
        for (dialect, alphabet) in [
            (usual, &b"a,\"\n\r"[..]),
            (TextDialect { escape, ..usual }, b"a,\"\\\n"),
            (TextDialect { trim, ..usual }, b"a,\" \n"),
            (TextDialect { quote: None, ..usual }, b"a,\"\n\r"),
        ] {
            for length in 0..=6u32 {
                for n in 0..alphabet.len().pow(length) {
                    let letter = |i| alphabet[n / alphabet.len().pow(i) % alphabet.len()];
                    let text: Vec<u8> = (0..length).map(letter).collect();
                    let marked = [MARK, &text].concat();
                    for (text, piece) in [(&text, 1), (&text, 2), (&text, 6), (&marked, 1), (&marked, 4)] {
                        let mut scan = RecordEndScan::new(Some(dialect));
                        let mut at = 0;
                        let found = text.chunks(piece).find_map(|piece| {
                            let end = scan.find_end(piece).map(|end| at + end);
                            at += piece.len();
                            end
                        });
                        let scanned = found.ok_or(scan.is_quoted());
                        let shown = String::from_utf8_lossy(text);
                        assert_eq!(scanned, end_of_csv(text, &dialect), "{shown:?} of {dialect:?}");
                    }
                }
            }
        }
    }
}
