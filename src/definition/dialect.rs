//! How the text of files is written: `delimiter`, `quote`, `encoding` and their like, of a feed of kind `files`.

use serde::{Deserialize, Serialize};

use super::Format;
use super::settings::{Settings, Value};

/// How the text of a feed's files is written. All but `charset` is of CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextDialect {
    /// What stands between fields.
    pub delimiter: u8,
    /// What a field with delimiters or line ends stands in; none: a quote is a character as any.
    pub quote: Option<u8>,
    /// Inside quotes, what takes the meaning from the character behind it; a doubled quote is a quote with it, too.
    pub escape: Option<u8>,
    /// Whether the first record names the fields.
    pub header: bool,
    /// Lines to pass over before anything is read.
    pub skip_lines: u64,
    /// What a line begins with that is no record.
    pub comment: Option<u8>,
    /// Whether blanks around fields that are not quoted are no part of them.
    pub trim: bool,
    /// Whether a name in the header is a column's in any case of its letters.
    pub ignore_case: bool,
    /// What the bytes stand for.
    pub charset: Charset,
}

impl Default for TextDialect {
    fn default() -> Self {
        TextDialect {
            delimiter: b',',
            quote: Some(b'"'),
            escape: None,
            header: true,
            skip_lines: 0,
            comment: None,
            trim: false,
            ignore_case: false,
            charset: Charset::Utf8,
        }
    }
}

/// What the bytes of a text stand for. A byte order mark at its start says more than this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Charset {
    /// UTF-8.
    #[default]
    Utf8,
    /// UTF-16 of the order that its first character shows: one of the ASCII ones.
    Utf16,
    /// UTF-16, the low byte first.
    Utf16Le,
    /// UTF-16, the high byte first.
    Utf16Be,
    /// ISO 8859-1: each byte is the character of its number.
    Latin1,
    /// As Latin-1, with letters and signs (the euro's) from 0x80 to 0x9f.
    Windows1252,
}

/// What becomes of rows that hold nothing but delimiters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlankRows {
    /// They are rows of nulls, as in other databases; how many there are is warned of.
    #[default]
    Keep,
    /// They are no rows, and counted.
    Skip,
}

/// The charsets by what they may be called; the first name is what they are told by.
const CHARSETS: [(Charset, &[&str]); 6] = [
    (Charset::Utf8, &["utf-8", "utf8"]),
    (Charset::Utf16, &["utf-16", "utf16"]),
    (Charset::Utf16Le, &["utf-16le", "utf16le"]),
    (Charset::Utf16Be, &["utf-16be", "utf16be"]),
    (Charset::Latin1, &["latin-1", "latin1", "iso-8859-1"]),
    (Charset::Windows1252, &["windows-1252", "cp1252"]),
];

impl Charset {
    /// As a definition writes it.
    pub fn name(self) -> &'static str {
        let known = CHARSETS.iter().find(|(charset, _)| *charset == self);
        known.map_or("utf-8", |(_, names)| names[0])
    }

    /// Whether each byte is a character.
    pub fn is_single_byte(self) -> bool {
        matches!(self, Charset::Latin1 | Charset::Windows1252)
    }
}

/// Settings of CSV files alone.
const OF_CSV: [&str; 9] = [
    "delimiter",
    "quote",
    "escape",
    "header",
    "skip_lines",
    "comment",
    "trim",
    "ignore_case",
    "blank_rows",
];

/// Reads the settings; `is_files` where the feed is of kind `files`. None: mistakes were reported.
pub(super) fn read_dialect(settings: &mut Settings<'_>, is_files: bool, format: Option<Format>) -> Option<TextDialect> {
    let Some(format) = format else {
        // What they mean is not known, so they are not looked at.
        for name in OF_CSV.into_iter().chain(["encoding"]) {
            settings.take(name, "1");
        }
        return None;
    };
    let is_csv = is_files && format == Format::Csv;
    let is_text = is_csv || is_files && matches!(format, Format::Ndjson | Format::Json | Format::DebeziumJson);
    let help = |of: &str| format!("it is for {of} of a feed of kind \"files\"; remove it");
    if !is_csv {
        for name in OF_CSV {
            settings.misplaced(name, || {
                (format!("setting {name:?} does not fit here"), help("format \"csv\""))
            });
        }
    }
    if !is_text {
        settings.misplaced("encoding", || {
            ("setting \"encoding\" does not fit here".to_string(), help("text"))
        });
        return Some(TextDialect::default());
    }
    let usual = TextDialect::default();
    let charset = settings
        .take("encoding", "\"windows-1252\"")
        .map_or(Some(usual.charset), |value| read_charset(&value));
    if !is_csv {
        return Some(TextDialect {
            charset: charset?,
            ..usual
        });
    }
    let delimiter = settings
        .take("delimiter", "\";\"")
        .map_or(Some(Some(usual.delimiter)), |value| read_byte(&value, false));
    let quote = settings
        .take("quote", "\"'\"")
        .map_or(Some(usual.quote), |value| read_byte(&value, true));
    let escape = settings
        .take("escape", "\"\\\\\"")
        .map_or(Some(usual.escape), |value| read_byte(&value, true));
    let comment = settings
        .take("comment", "\"#\"")
        .map_or(Some(usual.comment), |value| read_byte(&value, true));
    let skip_lines = settings
        .take("skip_lines", "2")
        .map_or(Some(usual.skip_lines), |value| value.whole());
    let mut flag = |name, example, usual| {
        let value = settings.take(name, example);
        value.map_or(Some(usual), |value| value.boolean())
    };
    let (header, trim) = (flag("header", "false", usual.header), flag("trim", "true", usual.trim));
    let ignore_case = flag("ignore_case", "true", usual.ignore_case);
    let dialect = TextDialect {
        delimiter: delimiter??,
        quote: quote?,
        escape: escape?,
        header: header?,
        skip_lines: skip_lines?,
        comment: comment?,
        trim: trim?,
        ignore_case: ignore_case?,
        charset: charset?,
    };
    if dialect.quote.is_none() && dialect.escape.is_some() {
        settings.conflicting(
            "escape",
            "escape holds inside quotes alone, and quote = \"\" says that there are none",
            "remove escape, or have fields written in quotes (FIELDS ENCLOSED BY '\"' of MySQL, FORMAT csv of PostgreSQL) and remove quote",
        );
        return None;
    }
    let roles = [
        ("delimiter", Some(dialect.delimiter)),
        ("quote", dialect.quote),
        ("escape", dialect.escape),
        ("comment", dialect.comment),
    ];
    for (n, (name, byte)) in roles.iter().enumerate().filter(|(_, (_, byte))| byte.is_some()) {
        let Some((other, _)) = roles[..n].iter().find(|(_, taken)| taken == byte) else {
            continue;
        };
        let help = match (*name, *other) {
            ("escape", "quote") => "leave escape out: a doubled quote is one quote anyway",
            _ => "give each a character of its own",
        };
        settings.conflicting(name, &format!("{name} and {other} are the same character"), help);
        return None;
    }
    Some(dialect)
}

/// `blank_rows`; of what is no CSV, [`read_dialect`] refuses it. None: mistakes were reported.
pub(super) fn read_blank_rows(
    settings: &mut Settings<'_>,
    is_files: bool,
    format: Option<Format>,
) -> Option<BlankRows> {
    if !is_files || format != Some(Format::Csv) {
        return Some(BlankRows::Keep);
    }
    let value = settings.take("blank_rows", "\"skip\"");
    value.map_or(Some(BlankRows::Keep), |value| {
        value.choice(&[("keep", BlankRows::Keep), ("skip", BlankRows::Skip)])
    })
}

/// One ASCII character; or, where `may_be_none`, none for an empty text.
fn read_byte(value: &Value<'_>, may_be_none: bool) -> Option<Option<u8>> {
    let text = value.text()?;
    match text.value.as_bytes() {
        [] if may_be_none => Some(None),
        [b'\r' | b'\n' | 0] => {
            value.say(
                format!("setting {:?} cannot be a line's end", value.key),
                "line ends stand between records; name another character",
            );
            None
        }
        [byte] if byte.is_ascii() => Some(Some(*byte)),
        _ => {
            value.say(
                format!(
                    "setting {:?} must be one ASCII character, and is {:?}",
                    value.key, text.written
                ),
                match may_be_none {
                    true => "write one character, or \"\" for none",
                    false => "write one character, as in \";\" or \"\\t\"",
                },
            );
            None
        }
    }
}

fn read_charset(value: &Value<'_>) -> Option<Charset> {
    let text = value.text()?;
    let written = text.value.to_ascii_lowercase();
    let known = CHARSETS.iter().find(|(_, names)| names.contains(&written.as_str()));
    if known.is_none() {
        let names: Vec<&str> = CHARSETS.iter().map(|(_, names)| names[0]).collect();
        value.say(
            format!("unknown encoding {:?}", text.written),
            format!("it is one of {}; convert other files to UTF-8 before", names.join(", ")),
        );
    }
    known.map(|(charset, _)| *charset)
}
