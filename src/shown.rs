//! Names and bytes that come from outside, as people may be shown them.
//!
//! A file's name may hold a line break, an escape sequence of terminals, or bytes that are not UTF-8. Written into a log
//! or onto a terminal as it is, it could feign lines of its own or change what the terminal shows. So what is shown is
//! text on one line: control characters, characters that turn the direction of text, and bytes that are not UTF-8 are
//! written as escapes (`\n`, `\u{1b}`, `\xff`). What is plain text already stays as it is.

use std::fmt::{self, Display, Formatter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that display as text on one line; see the module's header.
#[derive(Clone, Copy)]
pub struct Shown<'a>(&'a [u8]);

/// A text as people are shown it.
pub fn shown(text: &str) -> Shown<'_> {
    Shown(text.as_bytes())
}

/// Bytes as people are shown them.
pub fn shown_bytes(bytes: &[u8]) -> Shown<'_> {
    Shown(bytes)
}

/// A path as people are shown it.
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

/// Control characters, separators of lines, and characters that change the direction of what follows.
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
        assert_eq!(shown_path(Path::new("/in/a\nb")).to_string(), "/in/a\\nb");
    }
}
