//! Regular expressions as PostgreSQL reads and matches them, and the patterns of SIMILAR TO.
//!
//! A pattern is parsed ([`parse`]), written in the words of the regex crate ([`translate`]), and matched by that. Where the match
//! that this takes may not be the one that PostgreSQL takes, it only says where the first one begins, and [`longest`] follows
//! the pattern from there.

mod longest;
mod parse;
mod similar;
#[cfg(test)]
mod tests;
mod translate;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use regex::Regex;

pub(super) use longest::Captured;
pub(super) use similar::of_similar_to;

/// How many patterns a thread keeps.
const MOST_KEPT: usize = 64;

/// How a pattern is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Flags {
    /// All matches, and not the first one alone.
    pub global: bool,
    /// `i`.
    pub ignore_case: bool,
    /// `n` and `p`: `.` and `[^...]` match no end of a line.
    pub lines_end: bool,
    /// `n` and `w`: `^` and `$` match at each line.
    pub anchors_at_lines: bool,
    /// `x`: white space and comments are for readers.
    pub expanded: bool,
    /// `q`: a text, and no pattern.
    pub literal: bool,
}

impl Flags {
    /// Those that a function is given.
    ///
    /// # Errors
    /// One of them is none, or is not known here.
    pub fn read(text: &str) -> Result<Flags, String> {
        let mut flags = Flags::default();
        for flag in text.chars() {
            match flag {
                'g' => flags.global = true,
                flag => flags.set(flag)?,
            }
        }
        Ok(flags)
    }

    fn set(&mut self, flag: char) -> Result<(), String> {
        match flag {
            'c' => self.ignore_case = false,
            'i' => self.ignore_case = true,
            'm' | 'n' => (self.lines_end, self.anchors_at_lines) = (true, true),
            'p' => (self.lines_end, self.anchors_at_lines) = (true, false),
            'w' => (self.lines_end, self.anchors_at_lines) = (false, true),
            's' => (self.lines_end, self.anchors_at_lines) = (false, false),
            't' => self.expanded = false,
            'x' => self.expanded = true,
            'q' => self.literal = true,
            'b' | 'e' => {
                return Err(format!(
                    "the flag {flag}, of another kind of patterns, is not known here"
                ));
            }
            flag => return Err(format!("the flag {flag} is none of c, g, i, m, n, p, q, s, t, w, x")),
        }
        Ok(())
    }
}

/// A pattern that texts are matched with.
pub(super) struct Pattern {
    regex: Regex,
    /// Where the match of the regex crate may not be PostgreSQL's.
    followed: Option<longest::Step>,
    groups: usize,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for a user.
    pub fn new(pattern: &str, flags: Flags) -> Result<Pattern, String> {
        let unread = |why: String| format!("could not read the pattern '{}': {why}", shortened(pattern));
        let parsed = parse::parse(pattern, flags).map_err(unread)?;
        let too_large = |error: regex::Error| {
            unread(match error {
                regex::Error::CompiledTooBig(_) => "it is too large".to_string(),
                _ => "it has a character or a class that is not known here".to_string(),
            })
        };
        let regex = Regex::new(&translate::translated(&parsed)).map_err(too_large)?;
        let followed = match translate::is_plain(&parsed.part) {
            true => None,
            false => Some(longest::prepare(&parsed.part, parsed.flags.ignore_case).map_err(too_large)?),
        };
        Ok(Pattern {
            regex,
            followed,
            groups: parsed.groups,
        })
    }

    /// How many groups it captures.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Whether a text holds a match.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The first match that begins at a byte of a text or behind it.
    ///
    /// # Errors
    /// It takes too long to find.
    pub fn find_at(&self, text: &str, from: usize) -> Result<Option<Captured>, String> {
        if let Some(step) = &self.followed {
            return match self.regex.find_at(text, from) {
                Some(found) => longest::from(step, text, found.start(), self.groups),
                None => Ok(None),
            };
        }
        if self.groups == 0 {
            let found = self.regex.find_at(text, from);
            return Ok(found.map(|found| vec![Some((found.start(), found.end()))]));
        }
        Ok(self.regex.captures_at(text, from).map(|found| {
            let group = |n| found.get(n).map(|group| (group.start(), group.end()));
            (0..=self.groups).map(group).collect()
        }))
    }

    /// All matches from a byte on, each one behind the one before it; a match of nothing may stand where another one ends.
    ///
    /// # Errors
    /// It takes too long to find them.
    pub fn find_all(&self, text: &str, from: usize, most: usize) -> Result<Vec<Captured>, String> {
        let (mut found, mut at) = (vec![], from);
        while found.len() < most
            && at <= text.len()
            && let Some(captured) = self.find_at(text, at)?
        {
            let (start, end) = captured[0].expect("a match is somewhere");
            found.push(captured);
            at = match end > start {
                true => end,
                // What matches nothing is looked for behind the next character.
                false => end + text[end..].chars().next().map_or(1, char::len_utf8),
            };
        }
        Ok(found)
    }
}

/// A pattern as this thread knows it.
///
/// # Errors
/// What is wrong with it, for a user.
pub(super) fn known(pattern: &str, flags: Flags) -> Result<Rc<Pattern>, String> {
    type Known = HashMap<(String, Flags), Result<Rc<Pattern>, String>>;
    thread_local! {
        static KNOWN: RefCell<Known> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        let key = (pattern.to_string(), flags);
        if let Some(pattern) = known.get(&key) {
            return pattern.clone();
        }
        if known.len() >= MOST_KEPT {
            known.clear();
        }
        let made = Pattern::new(pattern, flags).map(Rc::new);
        known.insert(key, made.clone());
        made
    })
}

/// The beginning of a pattern, for a message.
fn shortened(pattern: &str) -> String {
    match pattern.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &pattern[..at]),
        None => pattern.to_string(),
    }
}
