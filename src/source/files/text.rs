//! Splits text into records: lines of NDJSON, or records of CSV whose quoted fields may hold line breaks.
//!
//! CSV follows `csv_core`, which decodes the records later: a quote opens a field only as its first byte, a doubled
//! quote within a quoted field is a quote, CR, LF and CRLF end a record. Blank lines are no records. The bytes of a
//! record are given as they are, without the line's end; nothing is copied but what lies across two reads.

use std::io::{self, Read};

use memchr::{memchr, memchr3};

/// Bytes asked for at a time.
const READ_BYTES: usize = 256 << 10;

/// What ends the splitting of a text early.
#[derive(Debug)]
pub(crate) enum SplitError {
    /// The bytes ended with an error; a record they tore is not given.
    Io(io::Error),
    /// A record that does not end within the limit.
    TooLong { limit: usize },
    /// A quoted field that is open at the end of the text.
    OpenQuote,
}

/// Records of a text.
pub(crate) struct Records<R> {
    source: R,
    csv: bool,
    limit: usize,
    buffer: Vec<u8>,
    /// The unread part of the buffer.
    start: usize,
    end: usize,
    at_end: bool,
}

impl<R: Read> Records<R> {
    /// Records of at most about `limit` bytes.
    pub fn new(source: R, csv: bool, limit: usize) -> Self {
        Records {
            source,
            csv,
            limit,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            at_end: false,
        }
    }

    /// The next record; none at the end.
    pub fn next(&mut self) -> Result<Option<&[u8]>, SplitError> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            let found = if self.csv {
                end_of_csv(unread)
            } else {
                memchr(b'\n', unread).ok_or(false)
            };
            let length = match found {
                Ok(length) => length,
                Err(_) if !self.at_end => {
                    self.fill()?;
                    continue;
                }
                Err(_) if unread.is_empty() => return Ok(None),
                Err(true) => return Err(SplitError::OpenQuote),
                Err(false) => unread.len(),
            };
            let from = self.start;
            self.start = (from + length + 1).min(self.end);
            let blank = match self.csv {
                true => length == 0,
                false => self.buffer[from..from + length].trim_ascii().is_empty(),
            };
            if !blank {
                let record = &self.buffer[from..from + length];
                return Ok(Some(if self.csv { record } else { record.trim_ascii() }));
            }
        }
    }

    /// Reads more behind what is unread.
    fn fill(&mut self) -> Result<(), SplitError> {
        if self.end - self.start > self.limit {
            return Err(SplitError::TooLong { limit: self.limit });
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end * 2 > self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
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

/// The length of the CSV record that starts here; or, where it does not end here, whether it ends within quotes.
fn end_of_csv(text: &[u8]) -> Result<usize, bool> {
    let mut at = 0;
    loop {
        at += memchr3(b'"', b'\n', b'\r', &text[at..]).ok_or(false)?;
        if text[at] != b'"' {
            return Ok(at);
        }
        let opens = at == 0 || text[at - 1] == b',';
        at += 1;
        if !opens {
            continue;
        }
        loop {
            at += memchr(b'"', &text[at..]).ok_or(true)? + 1;
            match text.get(at) {
                Some(b'"') => at += 1,
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, so that every record lies across reads.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn split(text: &str, csv: bool, step: usize) -> Vec<String> {
        let mut records = Records::new(Slowly(text.as_bytes(), step), csv, 1 << 20);
        let mut split = Vec::new();
        while let Some(record) = records.next().unwrap() {
            split.push(String::from_utf8(record.to_vec()).unwrap());
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

    #[test]
    fn splits_as_csv_core_counts_records() {
        // Every text of up to six bytes over the bytes that matter, against the parser that decodes the records.
        let alphabet = b"a,\"\n\r";
        for length in 0..=6u32 {
            for n in 0..alphabet.len().pow(length) {
                let text: Vec<u8> = (0..length)
                    .map(|i| alphabet[n / alphabet.len().pow(i) % alphabet.len()])
                    .collect();
                let mut records = Records::new(&text[..], true, 1 << 20);
                let mut ours = Vec::new();
                let open = loop {
                    match records.next() {
                        Ok(Some(record)) => ours.push(fields(record).remove(0)),
                        Ok(None) => break false,
                        Err(SplitError::OpenQuote) => break true,
                        Err(e) => panic!("{e:?}"),
                    }
                };
                let mut theirs = fields(&text);
                if open {
                    theirs.pop();
                }
                assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(&text));
            }
        }
    }

    /// The fields of every record, as arrow-csv's parser sees them.
    fn fields(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut reader = csv_core::Reader::new();
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
    fn what_never_ends_is_refused_and_what_came_before_is_given() {
        let mut records = Records::new(&b"a,b\n1,\"open\n2,x\n"[..], true, 1 << 20);
        assert_eq!(records.next().unwrap(), Some(&b"a,b"[..]));
        assert!(matches!(records.next(), Err(SplitError::OpenQuote)));
        let long = [b"a\n\"".to_vec(), vec![b'x'; 3 << 20]].concat();
        let mut records = Records::new(&long[..], true, 1 << 20);
        assert_eq!(records.next().unwrap(), Some(&b"a"[..]));
        assert!(matches!(records.next(), Err(SplitError::TooLong { .. })));
    }
}
