//! The keywords of PostgreSQL's template patterns for dates and times, and how a pattern is taken apart into them.

/// What a keyword stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// AM or PM, with points or without.
    Meridiem {
        points: bool,
    },
    /// BC or AD, with points or without.
    Era {
        points: bool,
    },
    Century,
    DayName,
    DayShort,
    DayOfYear,
    IsoDayOfYear,
    Day,
    /// 1 is Sunday.
    WeekDay,
    /// 1 is Monday.
    IsoWeekDay,
    /// So many digits of a second.
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
    /// The last digits of a year, four being all of it.
    Year(u32),
    IsoYear(u32),
    /// `Y,YYY`.
    YearWithComma,
    ZoneName,
    ZoneHour,
    ZoneMinute,
    ZoneOffset,
    /// `FX`: what is read has exactly the form of the pattern.
    Exact,
}

/// How a keyword is written, and so the letters of what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Letters {
    Upper,
    Capital,
    Lower,
}

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Field(Field),
    /// A blank or a sign that is no letter and no digit.
    Separator(char),
    /// Any other character, and one in quotes.
    Text(char),
}

/// A keyword with what is written around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub key: Key,
    pub letters: Letters,
    /// The keyword's length.
    pub width: usize,
    /// `FM`, or `TM` of names: without blanks and zeros.
    pub fills: bool,
    /// `TH` or `th` behind it.
    pub ordinal: Option<Letters>,
}

/// Longer ones in front of those that they begin with.
const KEYS: &[(&str, Key)] = &[
    ("A.D.", Key::Era { points: true }),
    ("A.M.", Key::Meridiem { points: true }),
    ("AD", Key::Era { points: false }),
    ("AM", Key::Meridiem { points: false }),
    ("B.C.", Key::Era { points: true }),
    ("BC", Key::Era { points: false }),
    ("CC", Key::Century),
    ("DAY", Key::DayName),
    ("DDD", Key::DayOfYear),
    ("DD", Key::Day),
    ("DY", Key::DayShort),
    ("D", Key::WeekDay),
    ("FF1", Key::Fraction(1)),
    ("FF2", Key::Fraction(2)),
    ("FF3", Key::Fraction(3)),
    ("FF4", Key::Fraction(4)),
    ("FF5", Key::Fraction(5)),
    ("FF6", Key::Fraction(6)),
    ("FX", Key::Exact),
    ("HH24", Key::Hour24),
    ("HH12", Key::Hour12),
    ("HH", Key::Hour12),
    ("IDDD", Key::IsoDayOfYear),
    ("ID", Key::IsoWeekDay),
    ("IW", Key::IsoWeek),
    ("IYYY", Key::IsoYear(4)),
    ("IYY", Key::IsoYear(3)),
    ("IY", Key::IsoYear(2)),
    ("I", Key::IsoYear(1)),
    ("J", Key::Julian),
    ("MI", Key::Minute),
    ("MM", Key::Month),
    ("MONTH", Key::MonthName),
    ("MON", Key::MonthShort),
    ("MS", Key::Millis),
    ("OF", Key::ZoneOffset),
    ("P.M.", Key::Meridiem { points: true }),
    ("PM", Key::Meridiem { points: false }),
    ("Q", Key::Quarter),
    ("RM", Key::MonthRoman),
    ("SSSSS", Key::SecondOfDay),
    ("SSSS", Key::SecondOfDay),
    ("SS", Key::Second),
    ("TZH", Key::ZoneHour),
    ("TZM", Key::ZoneMinute),
    ("TZ", Key::ZoneName),
    ("US", Key::Micros),
    ("WW", Key::Week),
    ("W", Key::WeekOfMonth),
    ("Y,YYY", Key::YearWithComma),
    ("YYYY", Key::Year(4)),
    ("YYY", Key::Year(3)),
    ("YY", Key::Year(2)),
    ("Y", Key::Year(1)),
];

impl Key {
    /// Whether it is a number.
    pub fn is_number(self) -> bool {
        !matches!(
            self,
            Key::Meridiem { .. }
                | Key::Era { .. }
                | Key::DayName
                | Key::DayShort
                | Key::MonthName
                | Key::MonthShort
                | Key::MonthRoman
                | Key::ZoneName
                | Key::ZoneHour
                | Key::ZoneOffset
                | Key::Exact
        )
    }

    fn is_name(self) -> bool {
        matches!(self, Key::DayName | Key::DayShort | Key::MonthName | Key::MonthShort)
    }
}

/// The pieces of a pattern.
pub fn nodes(pattern: &str) -> Vec<Node> {
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
            for (suffix, is) in [("TH", Some(Letters::Upper)), ("th", Some(Letters::Lower)), ("SP", None)] {
                if let Some(behind) = rest.strip_prefix(suffix) {
                    (rest, ordinal) = (behind, is);
                    break;
                }
            }
            let fills = prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("FM") || key.is_name());
            nodes.push(Node::Field(Field {
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
            nodes.push(Node::Separator('"'));
            rest = &rest[2..];
            continue;
        }
        rest = &rest[first.len_utf8()..];
        nodes.push(match is_separator(first) || first.is_ascii_whitespace() {
            true => Node::Separator(first),
            false => Node::Text(first),
        });
    }
    nodes
}

/// Takes what stands in quotes; a backslash quotes the character behind it.
fn quoted<'a>(rest: &'a str, nodes: &mut Vec<Node>) -> &'a str {
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return &rest[at + 1..],
            '\\' => nodes.push(Node::Text(chars.next().map_or('\\', |(_, c)| c))),
            c => nodes.push(Node::Text(c)),
        }
    }
    ""
}

/// Whether a character is a sign of ASCII, and no letter, digit or blank.
pub fn is_separator(c: char) -> bool {
    c.is_ascii_graphic() && !c.is_ascii_alphanumeric()
}

fn keyword(text: &str) -> Option<(Key, Letters, usize)> {
    KEYS.iter().find_map(|(name, key)| {
        let start = text.get(..name.len())?;
        let letters = match start {
            _ if start == *name => Letters::Upper,
            _ if start == name.to_ascii_lowercase() => Letters::Lower,
            _ if key.is_name() && is_capital(start, name) => Letters::Capital,
            _ => return None,
        };
        Some((*key, letters, name.len()))
    })
}

/// Whether a text is a name in capital letters, but for all behind the first.
fn is_capital(text: &str, name: &str) -> bool {
    text.is_char_boundary(1) && text[..1] == name[..1] && text[1..] == name[1..].to_ascii_lowercase()
}
