//! Parses PostgreSQL's advanced regular expressions into a tree.
//!
//! Back-references and look-around within a pattern are refused with the reason, because they need more than
//! one pass over the text.

use super::Flags;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PatternPart {
    /// A single character of this class, in the regex crate's syntax.
    One(String),
    /// A place between characters (an assertion), in the regex crate's syntax.
    Place(&'static str),
    /// Parts one after another.
    Sequence(Vec<PatternPart>),
    /// Alternatives.
    Either(Vec<PatternPart>),
    /// A part in parentheses, with its number if it captures.
    Group(Box<PatternPart>, Option<usize>),
    /// A repetition: greedy or not, or, where the pattern has one exact count (`greedy` is `None`), with the
    /// preference of `of`.
    Times {
        of: Box<PatternPart>,
        least: u32,
        most: Option<u32>,
        greedy: Option<bool>,
    },
}

/// A parsed pattern, and how many groups it captures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parsed {
    pub part: PatternPart,
    pub groups: usize,
    pub flags: Flags,
}

/// PostgreSQL's greatest count in a quantifier.
const MOST_TIMES: u32 = 255;
/// The deepest that parentheses may be nested.
const DEEPEST: usize = 100;

/// Parses a pattern.
///
/// # Errors
/// What is wrong with the pattern, in a user's words.
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
        let one = |c: char| PatternPart::One(regex::escape(&c.to_string()));
        return Ok(Parsed {
            part: PatternPart::Sequence(text.chars().map(one).collect()),
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

    /// Skips comments, and white space if the pattern is expanded.
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

    fn either(&mut self) -> Result<PatternPart, String> {
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
            _ => PatternPart::Either(branches),
        })
    }

    fn sequence(&mut self) -> Result<PatternPart, String> {
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
            _ => PatternPart::Sequence(parts),
        })
    }

    /// The atom `of`, repeated by the quantifier that follows, if there is one.
    fn times(&mut self, of: PatternPart) -> Result<PatternPart, String> {
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
        if matches!(of, PatternPart::Place(_)) {
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
        Ok(PatternPart::Times {
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

    fn atom(&mut self) -> Result<PatternPart, String> {
        let c = self.text[self.at];
        self.at += 1;
        Ok(match c {
            '(' => return self.group(),
            '[' => return self.bracket(),
            '\\' => return self.escape(),
            '.' if self.flags.lines_end => PatternPart::One("[^\\n]".to_string()),
            '.' => PatternPart::One("(?s:.)".to_string()),
            '^' if self.flags.anchors_at_lines => PatternPart::Place("(?m:^)"),
            '^' => PatternPart::Place("\\A"),
            '$' if self.flags.anchors_at_lines => PatternPart::Place("(?m:$)"),
            '$' => PatternPart::Place("\\z"),
            '*' | '+' | '?' => return Err("a quantifier stands behind nothing".to_string()),
            '{' if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                return Err("a quantifier stands behind nothing".to_string());
            }
            c => PatternPart::One(literal(c)),
        })
    }

    fn group(&mut self) -> Result<PatternPart, String> {
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
        Ok(PatternPart::Group(Box::new(inner), number))
    }

    fn bracket(&mut self) -> Result<PatternPart, String> {
        let unclosed = || "a [ is not closed".to_string();
        for (word, place) in [("[:<:]]", "\\b{start}"), ("[:>:]]", "\\b{end}")] {
            if self.starts_with(word) {
                self.at += word.len();
                return Ok(PatternPart::Place(place));
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
        Ok(PatternPart::One(class))
    }

    /// The name between `[:` and `:]`, or `[.` and `.]`. The parser stands at the sign after the bracket;
    /// `None` if it is not closed.
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

    /// The element of a bracket that begins with `c`.
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
                PatternPart::One(class) if class.starts_with('[') => Ok(Element::Class(class)),
                PatternPart::One(one) => Ok(Element::One(unescaped(&one))),
                _ => Err("a bracket holds a place".to_string()),
            },
            _ => Ok(Element::One(c)),
        }
    }

    /// What an escape stands for: a character, a class or a place.
    fn escape(&mut self) -> Result<PatternPart, String> {
        let c = self.peek().ok_or("it ends with a backslash")?;
        self.at += 1;
        let one = |c: char| Ok(PatternPart::One(literal(c)));
        let class = |words: &str| Ok(PatternPart::One(words.to_string()));
        match c {
            'd' => class("[0-9]"),
            'D' => class("[^0-9]"),
            's' => class(SPACE),
            'S' => class(&format!("[^{SPACE}]")),
            'w' => class("[\\p{Alphabetic}\\p{Nd}_]"),
            'W' => class("[^\\p{Alphabetic}\\p{Nd}_]"),
            'A' => Ok(PatternPart::Place("\\A")),
            'Z' => Ok(PatternPart::Place("\\z")),
            'm' => Ok(PatternPart::Place("\\b{start}")),
            'M' => Ok(PatternPart::Place("\\b{end}")),
            'y' => Ok(PatternPart::Place("\\b")),
            'Y' => Ok(PatternPart::Place("\\B")),
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

    /// The character with a code of at most `most` digits. Codes of 4 and 8 digits must have exactly as many.
    fn coded(&mut self, most: usize, radix: u32) -> Result<PatternPart, String> {
        let (mut code, mut digits) = (0u32, 0);
        while digits < most
            && let Some(digit) = self.peek().and_then(|c| c.to_digit(radix))
        {
            code = code.saturating_mul(radix).saturating_add(digit);
            (self.at, digits) = (self.at + 1, digits + 1);
        }
        let exact = most == 4 || most == 8;
        match char::from_u32(code) {
            Some(c) if digits > 0 && (!exact || digits == most) => Ok(PatternPart::One(literal(c))),
            _ => Err("a character's number is none".to_string()),
        }
    }
}

enum Element {
    One(char),
    Class(String),
}

/// White space as PostgreSQL has it from the C library, which leaves out spaces that do not break lines.
const SPACE: &str = "[\\s--[\\u{85}\\u{a0}\\u{2007}\\u{202f}]]";

/// The class of a name in double brackets, such as `[[:alpha:]]`.
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

/// A character as the regex crate reads it, inside or outside of a class.
pub(super) fn literal(c: char) -> String {
    match c.is_ascii_punctuation() {
        true => format!("\\{c}"),
        false => c.to_string(),
    }
}

/// The character for which a text of [`literal`] stands.
fn unescaped(written: &str) -> char {
    written.chars().last().expect("a literal is a character")
}
