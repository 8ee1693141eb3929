//! Makes names and bytes from outside safe to show to people.
//!
//! A file's name may contain a line break, a terminal's escape sequence, or bytes that are not UTF-8. Written to a log
//! or a terminal unchanged, it could fake log lines or change what the terminal shows. So it is shown as text on one
//! line: control characters, characters that change the direction of text, and bytes that are not UTF-8 become escapes
//! (`\n`, `\u{1b}`, `\xff`). All other text stays unchanged.

use std::fmt::{self, Display, Formatter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Displays bytes as safe text on one line; see the module's header.
#[derive(Clone, Copy)]
pub struct Shown<'a>(&'a [u8]);

/// A text in a form that is safe to show.
pub fn shown(text: &str) -> Shown<'_> {
    Shown(text.as_bytes())
}

/// Bytes in a form that is safe to show.
pub fn shown_bytes(bytes: &[u8]) -> Shown<'_> {
    Shown(bytes)
}

/// A path in a form that is safe to show.
pub fn shown_path(path: &Path) -> Shown<'_> {
    Shown(path.as_os_str().as_bytes())
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    hidden if is_unsafe(hidden) => write!(f, "\\u{{{:x}}}", hidden as u32)?,
                    plain => f.write_char(plain)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Makes a text of several lines safe that we wrote ourselves with names and values from outside in it: its line
/// breaks and tabs stay.
pub fn shown_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive(['\n', '\t']) {
        let end = line.strip_suffix(['\n', '\t']).map_or(line.len(), str::len);
        let _ = write!(out, "{}{}", shown(&line[..end]), &line[end..]); // writing to a string does not fail
    }
    out
}

/// Control characters, line separators, and characters that change the direction of the text after them.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_and_what_a_terminal_would_obey_is_escaped() {
        assert_eq!(shown("straße/añb 1.csv").to_string(), "straße/añb 1.csv");
        assert_eq!(
            shown("a\nb\r\t\x1b[31m\u{9b}").to_string(),
            "a\\nb\\r\\t\\u{1b}[31m\\u{9b}"
        );
        assert_eq!(shown("a\u{202e}vsc").to_string(), "a\\u{202e}vsc");
        assert_eq!(shown_bytes(b"caf\xe9 \xff\xfe").to_string(), "caf\\xe9 \\xff\\xfe");
        assert_eq!(
            shown_lines("error: \x1b[2J\n\thelp: x\r"),
            "error: \\u{1b}[2J\n\thelp: x\\r"
        );
        assert_eq!(shown_lines("\n\na\n"), "\n\na\n");
        assert_eq!(shown_path(Path::new("/in/a\nb")).to_string(), "/in/a\\nb");
    }
}
