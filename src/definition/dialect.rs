//! The dialect of text files of a `files` feed: `delimiter`, `quote`, `encoding` and related settings.

use super::Format;
use super::settings::{SettingValue, Settings};
use crate::repr::Charset;

/// The dialect of a feed's text files. All but `charset` applies only to CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextDialect {
    /// Separates fields.
    pub delimiter: u8,
    /// Encloses a field that contains delimiters or line ends; none: a quote is an ordinary character.
    pub quote: Option<u8>,
    /// Inside quotes, makes the next character literal; a doubled quote still means a quote.
    pub escape: Option<u8>,
    /// Whether the first record names the fields.
    pub header: bool,
    /// How many lines to skip at the beginning of a file.
    pub skip_lines: u64,
    /// The first character of a comment line.
    pub comment: Option<u8>,
    /// Whether blanks around unquoted fields are removed.
    pub trim: bool,
    /// Whether names in the header match columns case-insensitively.
    pub ignore_case: bool,
    /// The encoding of the text.
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

/// What to do with rows that consist only of delimiters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlankRows {
    /// They become rows of nulls, as in other databases, and a warning states their number.
    #[default]
    Keep,
    /// They are skipped, and counted.
    Skip,
}

/// The settings that apply only to CSV files.
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

/// Reads the settings; `is_files` if the feed is of kind `files`. None if mistakes were reported.
pub(super) fn read_dialect(settings: &mut Settings<'_>, is_files: bool, format: Option<Format>) -> Option<TextDialect> {
    let Some(format) = format else {
        // Without a format their meaning is unknown, so they are accepted unread.
        for name in OF_CSV.into_iter().chain(["encoding"]) {
            settings.setting(name, "1");
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
        .setting("encoding", "\"windows-1252\"")
        .map_or(Some(usual.charset), |value| read_charset(&value));
    if !is_csv {
        return Some(TextDialect {
            charset: charset?,
            ..usual
        });
    }
    let delimiter = settings
        .setting("delimiter", "\";\"")
        .map_or(Some(Some(usual.delimiter)), |value| read_byte(&value, false));
    let quote = settings
        .setting("quote", "\"'\"")
        .map_or(Some(usual.quote), |value| read_byte(&value, true));
    let escape = settings
        .setting("escape", "\"\\\\\"")
        .map_or(Some(usual.escape), |value| read_byte(&value, true));
    let comment = settings
        .setting("comment", "\"#\"")
        .map_or(Some(usual.comment), |value| read_byte(&value, true));
    let skip_lines = settings
        .setting("skip_lines", "2")
        .map_or(Some(usual.skip_lines), |value| value.whole());
    let mut flag = |name, example, usual| {
        let value = settings.setting(name, example);
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

/// Reads `blank_rows`; if the format is not CSV, [`read_dialect`] refuses it. None if mistakes were reported.
pub(super) fn read_blank_rows(
    settings: &mut Settings<'_>,
    is_files: bool,
    format: Option<Format>,
) -> Option<BlankRows> {
    if !is_files || format != Some(Format::Csv) {
        return Some(BlankRows::Keep);
    }
    let value = settings.setting("blank_rows", "\"skip\"");
    value.map_or(Some(BlankRows::Keep), |value| {
        value.choice(&[("keep", BlankRows::Keep), ("skip", BlankRows::Skip)])
    })
}

/// Reads one ASCII character; an empty text gives an inner none if `may_be_none`.
fn read_byte(value: &SettingValue<'_>, may_be_none: bool) -> Option<Option<u8>> {
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

fn read_charset(value: &SettingValue<'_>) -> Option<Charset> {
    let text = value.text()?;
    let written = text.value.to_ascii_lowercase();
    let known = Charset::by_name(&written);
    if known.is_none() {
        let names = Charset::ALL.map(Charset::name);
        value.say(
            format!("unknown encoding {:?}", text.written),
            format!("it is one of {}; convert other files to UTF-8 before", names.join(", ")),
        );
    }
    known
}
