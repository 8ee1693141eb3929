//! Character encodings of texts.

use serde::{Deserialize, Serialize};

/// A character encoding. A byte order mark at the start of a text takes precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Charset {
    /// UTF-8.
    #[default]
    Utf8,
    /// UTF-16 whose byte order is determined by the first character, which must be an ASCII one.
    Utf16,
    /// UTF-16, little-endian.
    Utf16Le,
    /// UTF-16, big-endian.
    Utf16Be,
    /// ISO 8859-1: each byte is the character with that number.
    Latin1,
    /// Like Latin-1, but with letters and signs such as the euro sign from 0x80 to 0x9f.
    Windows1252,
}

/// The accepted names of each charset; messages use the first one.
const CHARSETS: [(Charset, &[&str]); 6] = [
    (Charset::Utf8, &["utf-8", "utf8"]),
    (Charset::Utf16, &["utf-16", "utf16"]),
    (Charset::Utf16Le, &["utf-16le", "utf16le"]),
    (Charset::Utf16Be, &["utf-16be", "utf16be"]),
    (Charset::Latin1, &["latin-1", "latin1", "iso-8859-1"]),
    (Charset::Windows1252, &["windows-1252", "cp1252"]),
];

impl Charset {
    /// All charsets.
    pub const ALL: [Charset; 6] = [
        Charset::Utf8,
        Charset::Utf16,
        Charset::Utf16Le,
        Charset::Utf16Be,
        Charset::Latin1,
        Charset::Windows1252,
    ];

    /// The name as definitions write it.
    pub fn name(self) -> &'static str {
        let known = CHARSETS.iter().find(|(charset, _)| *charset == self);
        known.map_or("utf-8", |(_, names)| names[0])
    }

    /// The charset with this name, which must be in lower case.
    pub fn by_name(name: &str) -> Option<Charset> {
        let known = CHARSETS.iter().find(|(_, names)| names.contains(&name));
        known.map(|(charset, _)| *charset)
    }

    /// Whether each byte is one character.
    pub fn is_single_byte(self) -> bool {
        matches!(self, Charset::Latin1 | Charset::Windows1252)
    }
}
