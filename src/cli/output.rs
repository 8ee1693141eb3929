//! Standard output for people: what a terminal would obey of names and values from outside is written as escapes.

use std::io::{self, IsTerminal, StdoutLock, Write};

use super::OutputFormat;
use crate::shown::shown_lines;

/// Standard output of a command that tells people something.
pub(super) fn out() -> Harmless<StdoutLock<'static>> {
    Harmless(io::stdout().lock())
}

/// Prints rows. What programs read (csv, json) is exact, but for a terminal.
pub(super) fn print_rows(rows: &str, format: OutputFormat) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format != OutputFormat::Table && out.is_terminal() {
        true => out.write_all(shown_lines(rows).as_bytes()),
        false => out.write_all(rows.as_bytes()),
    }
}

/// Writes text on as [`shown_lines`] shows it.
pub(super) struct Harmless<W>(W);

impl<W: Write> Write for Harmless<W> {
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

    #[test]
    fn lines_stay_and_what_a_terminal_would_obey_is_escaped() {
        let mut out = Harmless(Vec::new());
        writeln!(out, "a.csv\u{1b}]0;x\u{7}: {} records", 3).unwrap();
        writeln!(out, "\u{fc}\r").unwrap();
        let text = String::from_utf8(out.0).unwrap();
        assert_eq!(text, "a.csv\\u{1b}]0;x\\u{7}: 3 records\n\u{fc}\\r\n");
    }
}
