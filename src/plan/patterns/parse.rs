//! Advanced regular expressions as PostgreSQL reads them, parsed into a tree.
//!
//! What can never match as PostgreSQL would have it matched is refused with the reason: back-references and look-around
//! inside of a pattern, which need more than one pass over the text.

use super::Flags;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// A single character of this class, in the words of the regex crate.
    One(String),
    /// A place between characters, in the words of the regex crate.
    Place(&'static str),
    /// Parts behind one another.
    Sequence(Vec<Part>),
    /// One of several.
    Either(Vec<Part>),
    /// In parentheses, with its number where it captures.
    Group(Box<Part>, Option<usize>),
    /// So many times: as many as possible or as few as possible, or, where one count is written, as `of` prefers.
    Times {
        of: Box<Part>,
        least: u32,
        most: Option<u32>,
        greedy: Option<bool>,
    },
}

/// A pattern, and how many groups it captures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parsed {
    pub part: Part,
    pub groups: usize,
    pub flags: Flags,
}

/// PostgreSQL's greatest count of repetitions.
const MOST_TIMES: u32 = 255;
/// How deep parentheses may be nested.
const DEEPEST: usize = 100;

/// Reads a pattern.
///
/// # Errors
/// What is wrong with it, for a user.
pub(super) fn parse(pattern: &str, flags: Flags) -> Result<Parsed, String> {
    let mut flags = flags;
    let mut text = pattern;
    if let Some(rest) = text.strip_prefix("***=") {
        (text, flags.literal) = (rest, true);
    } else if let Some(rest) = text.strip_prefix("***:") {
        text = rest;
    }
    if !flags.literal
        && let Some((options, rest)) = text.strip_prefix("(?").and_then(|text| text.split_once(')'))
        && !options.is_empty()
        && options.bytes().all(|b| b.is_ascii_lowercase())
    {
        for option in options.chars() {
            flags.set(option)?;
        }
        text = rest;
    }
    if flags.literal {
        let one = |c: char| Part::One(regex::escape(&c.to_string()));
        return Ok(Parsed {
            part: Part::Sequence(text.chars().map(one).collect()),
            groups: 0,
            flags,
        });
    }
    let mut parser = Parser {
        text: text.chars().collect(),
        at: 0,
        groups: 0,
        depth: 0,
        flags,
    };
    let part = parser.either()?;
    if parser.at < parser.text.len() {
        return Err("a ) closes nothing".to_string());
    }
    Ok(Parsed {
        part,
        groups: parser.groups,
        flags,
    })
}

struct Parser {
    text: Vec<char>,
    at: usize,
    groups: usize,
    depth: usize,
    flags: Flags,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, c: char) -> bool {
        let taken = self.peek() == Some(c);
        self.at += usize::from(taken);
        taken
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(n, c)| self.text.get(self.at + n) == Some(&c))
    }

    /// Passes over comments, and over white space where that is only for readers.
    fn skip(&mut self) -> Result<(), String> {
        loop {
            if self.starts_with("(?#") {
                while self.peek().is_some_and(|c| c != ')') {
                    self.at += 1;
                }
                if !self.take(')') {
                    return Err("a comment is not closed".to_string());
                }
            } else if self.flags.expanded && self.peek().is_some_and(char::is_whitespace) {
                self.at += 1;
            } else if self.flags.expanded && self.peek() == Some('#') {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else {
                return Ok(());
            }
        }
    }

    fn either(&mut self) -> Result<Part, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("parentheses are nested more than {DEEPEST} deep"));
        }
        let mut branches = vec![self.sequence()?];
        while self.take('|') {
            branches.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(match branches.len() {
            1 => branches.swap_remove(0),
            _ => Part::Either(branches),
        })
    }

    fn sequence(&mut self) -> Result<Part, String> {
        let mut parts = vec![];
        loop {
            self.skip()?;
            match self.peek() {
                None | Some('|' | ')') => break,
                Some(_) => {
                    let atom = self.atom()?;
                    parts.push(self.times(atom)?);
                }
            }
        }
        Ok(match parts.len() {
            1 => parts.swap_remove(0),
            _ => Part::Sequence(parts),
        })
    }

    /// An atom with the quantifier behind it, if there is one.
    fn times(&mut self, of: Part) -> Result<Part, String> {
        self.skip()?;
        let (least, most, prefers) = match self.peek() {
            Some('*') => (0, None, true),
            Some('+') => (1, None, true),
            Some('?') => (0, Some(1), true),
            Some('{') if self.text.get(self.at + 1).is_some_and(char::is_ascii_digit) => {
                self.at += 1;
                let least = self.count()?;
                let comma = self.take(',');
                let most = match comma {
                    true if self.peek() == Some('}') => None,
                    true => Some(self.count()?),
                    false => Some(least),
                };
                if self.peek() != Some('}') || most.is_some_and(|most| most < least) {
                    return Err("the counts in { } are none".to_string());
                }
                (least, most, comma)
            }
            _ => return Ok(of),
        };
        if matches!(of, Part::Place(_)) {
            return Err("a quantifier stands behind a place, which cannot be repeated".to_string());
        }
        self.at += 1;
        let greedy = !self.take('?');
        let greedy = prefers.then_some(greedy);
        self.skip()?;
        let again = match self.peek() {
            Some('*' | '+' | '?') => true,
            Some('{') => self.text.get(self.at + 1).is_some_and(char::is_ascii_digit),
            _ => false,
        };
        if again {
            return Err("a quantifier stands behind a quantifier".to_string());
        }
        Ok(Part::Times {
            of: Box::new(of),
            least,
            most,
            greedy,
        })
    }

    fn count(&mut self) -> Result<u32, String> {
        let mut count = 0u32;
        let start = self.at;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            count = count.saturating_mul(10).saturating_add(digit);
            self.at += 1;
        }
        match self.at > start && count <= MOST_TIMES {
            true => Ok(count),
            false => Err(format!("a count in {{ }} is at most {MOST_TIMES}")),
        }
    }

    fn atom(&mut self) -> Result<Part, String> {
        let c = self.text[self.at];
        self.at += 1;
        Ok(match c {
            '(' => return self.group(),
            '[' => return self.bracket(),
            '\\' => return self.escape(),
            '.' if self.flags.lines_end => Part::One("[^\\n]".to_string()),
            '.' => Part::One("(?s:.)".to_string()),
            '^' if self.flags.anchors_at_lines => Part::Place("(?m:^)"),
            '^' => Part::Place("\\A"),
            '$' if self.flags.anchors_at_lines => Part::Place("(?m:$)"),
            '$' => Part::Place("\\z"),
            '*' | '+' | '?' => return Err("a quantifier stands behind nothing".to_string()),
            '{' if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                return Err("a quantifier stands behind nothing".to_string());
            }
            c => Part::One(literal(c)),
        })
    }

    fn group(&mut self) -> Result<Part, String> {
        let number = if self.starts_with("?:") {
            self.at += 2;
            None
        } else if self.starts_with("?=") || self.starts_with("?!") || self.starts_with("?<") {
            return Err(
                "it looks ahead or behind, (?=...), (?!...), (?<=...) or (?<!...), which is not known here".to_string(),
            );
        } else if self.starts_with("?") {
            return Err("(? is followed by nothing that is known".to_string());
        } else {
            self.groups += 1;
            Some(self.groups)
        };
        let inner = self.either()?;
        if !self.take(')') {
            return Err("a ( is not closed".to_string());
        }
        Ok(Part::Group(Box::new(inner), number))
    }

    fn bracket(&mut self) -> Result<Part, String> {
        let unclosed = || "a [ is not closed".to_string();
        for (word, place) in [("[:<:]]", "\\b{start}"), ("[:>:]]", "\\b{end}")] {
            if self.starts_with(word) {
                self.at += word.len();
                return Ok(Part::Place(place));
            }
        }
        let negated = self.take('^');
        let mut class = String::from(if negated { "[^" } else { "[" });
        if negated && self.flags.lines_end {
            class.push_str("\\n");
        }
        let first = self.at;
        loop {
            let start = self.at;
            let c = self.peek().ok_or_else(unclosed)?;
            self.at += 1;
            if c == ']' && start > first {
                break;
            }
            if c == '[' && self.peek() == Some(':') {
                let name = self.named(':').ok_or_else(unclosed)?;
                class.push_str(posix(&name).ok_or_else(|| format!("[:{name}:] is no class of characters"))?);
                continue;
            }
            let from = match self.element(c)? {
                Element::Class(words) => {
                    class.push_str(&words);
                    continue;
                }
                Element::One(from) => from,
            };
            let is_range = self.peek() == Some('-') && self.text.get(self.at + 1).is_some_and(|c| *c != ']');
            if !is_range {
                class.push_str(&literal(from));
                continue;
            }
            self.at += 1;
            let c = self.peek().ok_or_else(unclosed)?;
            self.at += 1;
            let Element::One(to) = self.element(c)? else {
                return Err("a range of characters ends with a class".to_string());
            };
            if from > to {
                return Err(format!("the range {from}-{to} has no characters"));
            }
            class.push_str(&format!("{}-{}", literal(from), literal(to)));
        }
        class.push(']');
        Ok(Part::One(class))
    }

    /// What stands between `[:` and `:]`, or `[.` and `.]`; the sign behind the bracket comes next.
    fn named(&mut self, sign: char) -> Option<String> {
        self.at += 1;
        let mut name = String::new();
        loop {
            let c = self.peek()?;
            self.at += 1;
            if c == sign && self.take(']') {
                return Some(name);
            }
            name.push(c);
        }
    }

    /// An element of a bracket that begins with `c`.
    fn element(&mut self, c: char) -> Result<Element, String> {
        match (c, self.peek()) {
            ('[', Some(sign @ ('.' | '='))) => {
                let name = self.named(sign).ok_or("a [ is not closed")?;
                let mut chars = name.chars();
                match (chars.next(), chars.next()) {
                    (Some(one), None) => Ok(Element::One(one)),
                    _ => Err(format!("[{sign}{name}{sign}] is no single character")),
                }
            }
            ('\\', _) => match self.escape()? {
                Part::One(class) if class.starts_with('[') => Ok(Element::Class(class)),
                Part::One(one) => Ok(Element::One(unescaped(&one))),
                _ => Err("a bracket holds a place".to_string()),
            },
            _ => Ok(Element::One(c)),
        }
    }

    /// What a backslash and the letters behind it stand for.
    fn escape(&mut self) -> Result<Part, String> {
        let c = self.peek().ok_or("it ends with a backslash")?;
        self.at += 1;
        let one = |c: char| Ok(Part::One(literal(c)));
        let class = |words: &str| Ok(Part::One(words.to_string()));
        match c {
            'd' => class("[0-9]"),
            'D' => class("[^0-9]"),
            's' => class(SPACE),
            'S' => class(&format!("[^{SPACE}]")),
            'w' => class("[\\p{Alphabetic}\\p{Nd}_]"),
            'W' => class("[^\\p{Alphabetic}\\p{Nd}_]"),
            'A' => Ok(Part::Place("\\A")),
            'Z' => Ok(Part::Place("\\z")),
            'm' => Ok(Part::Place("\\b{start}")),
            'M' => Ok(Part::Place("\\b{end}")),
            'y' => Ok(Part::Place("\\b")),
            'Y' => Ok(Part::Place("\\B")),
            'a' => one('\u{7}'),
            'b' => one('\u{8}'),
            'B' => one('\\'),
            'e' => one('\u{1b}'),
            'f' => one('\u{c}'),
            'n' => one('\n'),
            'r' => one('\r'),
            't' => one('\t'),
            'v' => one('\u{b}'),
            'c' => {
                let c = self.peek().ok_or("it ends with \\c")?;
                self.at += 1;
                one(char::from_u32(c as u32 & 31).unwrap_or(c))
            }
            'u' => self.coded(4, 16),
            'U' => self.coded(8, 16),
            'x' => self.coded(255, 16),
            '0' => {
                self.at -= 1;
                self.coded(3, 8)
            }
            '1'..='9' => Err(format!(
                "it refers back to what ( ) has found, \\{c}, which is not known inside of a pattern here"
            )),
            c if c.is_alphanumeric() => Err(format!("\\{c} stands for nothing")),
            c => one(c),
        }
    }

    /// A character by its number, of at most so many digits.
    fn coded(&mut self, most: usize, radix: u32) -> Result<Part, String> {
        let (mut code, mut digits) = (0u32, 0);
        while digits < most
            && let Some(digit) = self.peek().and_then(|c| c.to_digit(radix))
        {
            code = code.saturating_mul(radix).saturating_add(digit);
            (self.at, digits) = (self.at + 1, digits + 1);
        }
        let exact = most == 4 || most == 8;
        match char::from_u32(code) {
            Some(c) if digits > 0 && (!exact || digits == most) => Ok(Part::One(literal(c))),
            _ => Err("a character's number is none".to_string()),
        }
    }
}

enum Element {
    One(char),
    Class(String),
}

/// White space that may break lines, as the C library has it.
const SPACE: &str = "[\\s--[\\u{85}\\u{a0}\\u{2007}\\u{202f}]]";

/// A class in double brackets.
fn posix(name: &str) -> Option<&'static str> {
    Some(match name {
        "alnum" => "\\p{Alphabetic}\\p{Nd}",
        "alpha" => "\\p{Alphabetic}",
        "blank" => " \\t",
        "cntrl" => "\\p{Cc}",
        "digit" => "0-9",
        "graph" => "[^\\s\\p{Cc}\\p{Cs}\\p{Cn}]",
        "lower" => "\\p{Lowercase}",
        "print" => "[^\\p{Cc}\\p{Cs}\\p{Cn}]",
        "punct" => "\\p{P}\\p{S}",
        "space" => SPACE,
        "upper" => "\\p{Uppercase}",
        "xdigit" => "0-9a-fA-F",
        "word" => "\\p{Alphabetic}\\p{Nd}_",
        _ => return None,
    })
}

/// A character as the regex crate reads it, in a class or outside of one.
pub(super) fn literal(c: char) -> String {
    match c.is_ascii_punctuation() {
        true => format!("\\{c}"),
        false => c.to_string(),
    }
}

/// The character that [`literal`] wrote.
fn unescaped(written: &str) -> char {
    written.chars().last().expect("a literal is a character")
}
