//! The keywords of PostgreSQL's template patterns for dates and times, and the parser that splits a pattern
//! into them.

/// What a keyword stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatternKey {
    /// AM or PM, written with or without points.
    Meridiem {
        points: bool,
    },
    /// BC or AD, written with or without points.
    Era {
        points: bool,
    },
    Century,
    DayName,
    DayShort,
    DayOfYear,
    IsoDayOfYear,
    Day,
    /// The day of the week, where 1 is Sunday.
    WeekDay,
    /// The day of the week, where 1 is Monday.
    IsoWeekDay,
    /// A fraction of a second with so many digits.
    Fraction(u32),
    Millis,
    Micros,
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    MonthName,
    MonthShort,
    Month,
    MonthRoman,
    Quarter,
    Week,
    IsoWeek,
    WeekOfMonth,
    Julian,
    /// The last digits of a year; four digits are the whole year.
    Year(u32),
    IsoYear(u32),
    /// A year with a comma, `Y,YYY`.
    YearWithComma,
    ZoneName,
    ZoneHour,
    ZoneMinute,
    ZoneOffset,
    /// `FX`: texts must match the form of the pattern exactly.
    Exact,
}

/// The case in which a keyword is written, which is also the case of the names that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LetterCase {
    Upper,
    Capital,
    Lower,
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternNode {
    Field(PatternField),
    /// A blank, or an ASCII character that is neither a letter nor a digit.
    Separator(char),
    /// Any other character, or a character in quotes.
    Text(char),
}

/// A keyword with its prefix and suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternField {
    pub key: PatternKey,
    pub letters: LetterCase,
    /// The keyword's length.
    pub width: usize,
    /// `FM`, or `TM` before a name: writes no padding of blanks or zeros.
    pub fills: bool,
    /// The suffix `TH` or `th`.
    pub ordinal: Option<LetterCase>,
}

/// A keyword that begins with another one stands before it.
const KEYS: &[(&str, PatternKey)] = &[
    ("A.D.", PatternKey::Era { points: true }),
    ("A.M.", PatternKey::Meridiem { points: true }),
    ("AD", PatternKey::Era { points: false }),
    ("AM", PatternKey::Meridiem { points: false }),
    ("B.C.", PatternKey::Era { points: true }),
    ("BC", PatternKey::Era { points: false }),
    ("CC", PatternKey::Century),
    ("DAY", PatternKey::DayName),
    ("DDD", PatternKey::DayOfYear),
    ("DD", PatternKey::Day),
    ("DY", PatternKey::DayShort),
    ("D", PatternKey::WeekDay),
    ("FF1", PatternKey::Fraction(1)),
    ("FF2", PatternKey::Fraction(2)),
    ("FF3", PatternKey::Fraction(3)),
    ("FF4", PatternKey::Fraction(4)),
    ("FF5", PatternKey::Fraction(5)),
    ("FF6", PatternKey::Fraction(6)),
    ("FX", PatternKey::Exact),
    ("HH24", PatternKey::Hour24),
    ("HH12", PatternKey::Hour12),
    ("HH", PatternKey::Hour12),
    ("IDDD", PatternKey::IsoDayOfYear),
    ("ID", PatternKey::IsoWeekDay),
    ("IW", PatternKey::IsoWeek),
    ("IYYY", PatternKey::IsoYear(4)),
    ("IYY", PatternKey::IsoYear(3)),
    ("IY", PatternKey::IsoYear(2)),
    ("I", PatternKey::IsoYear(1)),
    ("J", PatternKey::Julian),
    ("MI", PatternKey::Minute),
    ("MM", PatternKey::Month),
    ("MONTH", PatternKey::MonthName),
    ("MON", PatternKey::MonthShort),
    ("MS", PatternKey::Millis),
    ("OF", PatternKey::ZoneOffset),
    ("P.M.", PatternKey::Meridiem { points: true }),
    ("PM", PatternKey::Meridiem { points: false }),
    ("Q", PatternKey::Quarter),
    ("RM", PatternKey::MonthRoman),
    ("SSSSS", PatternKey::SecondOfDay),
    ("SSSS", PatternKey::SecondOfDay),
    ("SS", PatternKey::Second),
    ("TZH", PatternKey::ZoneHour),
    ("TZM", PatternKey::ZoneMinute),
    ("TZ", PatternKey::ZoneName),
    ("US", PatternKey::Micros),
    ("WW", PatternKey::Week),
    ("W", PatternKey::WeekOfMonth),
    ("Y,YYY", PatternKey::YearWithComma),
    ("YYYY", PatternKey::Year(4)),
    ("YYY", PatternKey::Year(3)),
    ("YY", PatternKey::Year(2)),
    ("Y", PatternKey::Year(1)),
];

impl PatternKey {
    /// Whether the keyword stands for a number.
    pub fn is_number(self) -> bool {
        !matches!(
            self,
            PatternKey::Meridiem { .. }
                | PatternKey::Era { .. }
                | PatternKey::DayName
                | PatternKey::DayShort
                | PatternKey::MonthName
                | PatternKey::MonthShort
                | PatternKey::MonthRoman
                | PatternKey::ZoneName
                | PatternKey::ZoneHour
                | PatternKey::ZoneOffset
                | PatternKey::Exact
        )
    }

    fn is_name(self) -> bool {
        matches!(
            self,
            PatternKey::DayName | PatternKey::DayShort | PatternKey::MonthName | PatternKey::MonthShort
        )
    }
}

/// The parts of a pattern.
pub fn nodes(pattern: &str) -> Vec<PatternNode> {
    let mut nodes = Vec::new();
    let mut rest = pattern;
    while !rest.is_empty() {
        let prefix = ["FM", "fm", "TM", "tm"]
            .into_iter()
            .find(|prefix| rest.starts_with(prefix));
        rest = &rest[prefix.map_or(0, str::len)..];
        if let Some((key, letters, width)) = keyword(rest) {
            rest = &rest[width..];
            let mut ordinal = None;
            for (suffix, is) in [
                ("TH", Some(LetterCase::Upper)),
                ("th", Some(LetterCase::Lower)),
                ("SP", None),
            ] {
                if let Some(behind) = rest.strip_prefix(suffix) {
                    (rest, ordinal) = (behind, is);
                    break;
                }
            }
            let fills = prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("FM") || key.is_name());
            nodes.push(PatternNode::Field(PatternField {
                key,
                letters,
                width,
                fills,
                ordinal,
            }));
            continue;
        }
        let Some(first) = rest.chars().next() else { break };
        if first == '"' {
            rest = quoted(&rest[1..], &mut nodes);
            continue;
        }
        if rest.starts_with("\\\"") {
            nodes.push(PatternNode::Separator('"'));
            rest = &rest[2..];
            continue;
        }
        rest = &rest[first.len_utf8()..];
        nodes.push(match is_separator(first) || first.is_ascii_whitespace() {
            true => PatternNode::Separator(first),
            false => PatternNode::Text(first),
        });
    }
    nodes
}

/// Takes the text up to the closing quote, in which a backslash quotes the character after it. Returns the rest
/// of the pattern.
fn quoted<'a>(rest: &'a str, nodes: &mut Vec<PatternNode>) -> &'a str {
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return &rest[at + 1..],
            '\\' => nodes.push(PatternNode::Text(chars.next().map_or('\\', |(_, c)| c))),
            c => nodes.push(PatternNode::Text(c)),
        }
    }
    ""
}

/// Whether a character is ASCII punctuation.
pub fn is_separator(c: char) -> bool {
    c.is_ascii_graphic() && !c.is_ascii_alphanumeric()
}

fn keyword(text: &str) -> Option<(PatternKey, LetterCase, usize)> {
    KEYS.iter().find_map(|(name, key)| {
        let start = text.get(..name.len())?;
        let letters = match start {
            _ if start == *name => LetterCase::Upper,
            _ if start == name.to_ascii_lowercase() => LetterCase::Lower,
            _ if key.is_name() && is_capital(start, name) => LetterCase::Capital,
            _ => return None,
        };
        Some((*key, letters, name.len()))
    })
}

/// Whether a text is a name whose first letter is upper case and the others lower case.
fn is_capital(text: &str, name: &str) -> bool {
    text.is_char_boundary(1) && text[..1] == name[..1] && text[1..] == name[1..].to_ascii_lowercase()
}
