//! Regular expressions as PostgreSQL reads and matches them, and the patterns of SIMILAR TO.
//!
//! A pattern is parsed ([`parse`]), translated for the regex crate ([`translate`]), and matched by that. Where
//! the regex crate may take another match than PostgreSQL, it only finds where the first match begins, and
//! [`longest`] matches the pattern from there.

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

/// The most patterns that a thread caches.
const MOST_KEPT: usize = 64;

/// How a pattern is read and matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Flags {
    /// `g`: all matches count, rather than the first one only.
    pub global: bool,
    /// `i`: case does not matter.
    pub ignore_case: bool,
    /// `n` and `p`: `.` and `[^...]` do not match a newline.
    pub lines_end: bool,
    /// `n` and `w`: `^` and `$` match at the start and the end of each line.
    pub anchors_at_lines: bool,
    /// `x`: white space and comments in the pattern are ignored.
    pub expanded: bool,
    /// `q`: the pattern is a plain text.
    pub literal: bool,
}

impl Flags {
    /// Reads the flags that a function is given.
    ///
    /// # Errors
    /// A character is not a flag, or not one that is supported.
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

/// A compiled pattern.
pub(super) struct Pattern {
    regex: Regex,
    /// The steps for [`longest`], if the regex crate may take another match than PostgreSQL.
    followed: Option<longest::MatchStep>,
    groups: usize,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with the pattern, in a user's words.
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

    /// How many groups the pattern captures.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Whether a text contains a match.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The first match that begins at or after a byte of a text.
    ///
    /// # Errors
    /// The search takes too many steps.
    pub fn find_at(&self, text: &str, from: usize) -> Result<Option<Captured>, String> {
        if let Some(step) = &self.followed {
            return match self.regex.find_at(text, from) {
                Some(first) => longest::match_at(step, text, first.start(), self.groups),
                None => Ok(None),
            };
        }
        if self.groups == 0 {
            let first = self.regex.find_at(text, from);
            return Ok(first.map(|first| vec![Some((first.start(), first.end()))]));
        }
        Ok(self.regex.captures_at(text, from).map(|captures| {
            let group = |n| captures.get(n).map(|group| (group.start(), group.end()));
            (0..=self.groups).map(group).collect()
        }))
    }

    /// Up to `most` matches from a byte on, none of which overlap. An empty match may stand where another match
    /// ends.
    ///
    /// # Errors
    /// The search takes too many steps.
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
                // After an empty match the search goes on after the next character.
                false => end + text[end..].chars().next().map_or(1, char::len_utf8),
            };
        }
        Ok(found)
    }
}

/// The compiled pattern, from this thread's cache where it is there.
///
/// # Errors
/// What is wrong with the pattern, in a user's words.
pub(super) fn cached_pattern(pattern: &str, flags: Flags) -> Result<Rc<Pattern>, String> {
    type PatternCache = HashMap<(String, Flags), Result<Rc<Pattern>, String>>;
    thread_local! {
        static CACHE: RefCell<PatternCache> = RefCell::default();
    }
    CACHE.with_borrow_mut(|known| {
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

/// The beginning of a pattern, for messages.
fn shortened(pattern: &str) -> String {
    match pattern.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &pattern[..at]),
        None => pattern.to_string(),
    }
}
