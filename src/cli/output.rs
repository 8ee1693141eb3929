//! Standard output for people: in names and values from outside, everything that a terminal would interpret is
//! escaped.

use std::io::{self, IsTerminal, StdoutLock, Write};

use super::FormatArg;
use crate::serve::DeadLetterCounts;
use crate::shown::shown_lines;

/// The standard output of a command, with escaping.
pub(super) fn out() -> EscapingWriter<StdoutLock<'static>> {
    EscapingWriter(io::stdout().lock())
}

/// Prints rows. Formats for programs (csv, json) are printed exactly, unless the output is a terminal.
pub(super) fn print_rows(rows: &str, format: FormatArg) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format != FormatArg::Table && out.is_terminal() {
        true => out.write_all(shown_lines(rows).as_bytes()),
        false => out.write_all(rows.as_bytes()),
    }
}

/// A number with its noun: `1 record`, `2 records`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// A number with its noun and verb: `1 record is`, `2 records are`.
pub(super) fn counted_are(count: u64, noun: &str) -> String {
    format!("{} {}", counted(count, noun), if count == 1 { "is" } else { "are" })
}

/// Describes new dead letters.
pub(super) fn new_letters(new: DeadLetterCounts) -> String {
    let kinds = [(new.records, "record"), (new.files, "file"), (new.rows, "row")];
    let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = kinds.map(|(count, noun)| counted(count, noun)).collect();
    match kinds.is_empty() {
        true => "no new dead letters".to_string(),
        false => format!("new dead letters: {}", kinds.join(", ")),
    }
}

/// Escapes text by [`shown_lines`] and writes it to the inner writer.
pub(super) struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(shown_lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One record and two broken files were printed as "took 1 records, 3 of them dead letters".
    #[test]
    fn dead_letters_are_counted_by_what_they_are() {
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(0, "record"), "0 records");
        assert_eq!(counted_are(1, "row"), "1 row is");
        assert_eq!(counted_are(2, "row"), "2 rows are");
        let line = |records, files, rows| new_letters(DeadLetterCounts { records, files, rows });
        assert_eq!(line(0, 0, 0), "no new dead letters");
        assert_eq!(line(1, 2, 0), "new dead letters: 1 record, 2 files");
        assert_eq!(line(0, 1, 3), "new dead letters: 1 file, 3 rows");
    }

    #[test]
    fn lines_stay_and_what_a_terminal_would_obey_is_escaped() {
        let mut out = EscapingWriter(Vec::new());
        writeln!(out, "a.csv\u{1b}]0;x\u{7}: {} records", 3).unwrap();
        writeln!(out, "\u{fc}\r").unwrap();
        let text = String::from_utf8(out.0).unwrap();
        assert_eq!(text, "a.csv\\u{1b}]0;x\\u{7}: 3 records\n\u{fc}\\r\n");
    }
}
