//! Finds the match that PostgreSQL takes among those that begin at one place, and what its groups capture.
//!
//! 1. A quantifier prefers many repetitions or few. A sequence prefers what its first part with a preference
//!    does. Alternatives prefer many. The whole pattern takes its longest or its shortest match accordingly.
//! 2. In a sequence each part in turn takes the longest (or shortest) text with which the parts after it still
//!    match. Neighbouring parts that capture nothing and have the same preference count as one part.
//! 3. Of several alternatives the first one that fits exactly is taken.
//! 4. A repetition that is taken at least once splits into a repetition with one round less, which captures
//!    nothing, and the last round after it. Any other repetition is taken round by round, and captures what its
//!    last round found.
//!
//! A place is a position between characters. The ends that a part can reach are computed for a set of starts at
//! once, so a match costs at most the pattern's length times the text's.

use regex::Regex;

use super::parse::PatternPart;

/// The most steps that matching one text may take.
const MOST_STEPS: usize = 20_000_000;

/// A part of a pattern, compiled for matching.
pub(super) enum MatchStep {
    One(Box<Regex>),
    Place(Box<Regex>),
    Sequence(Vec<MatchStep>),
    Either(Vec<MatchStep>),
    Group(Box<MatchStep>, Option<usize>),
    Times {
        of: Box<MatchStep>,
        least: u32,
        most: Option<u32>,
        greedy: Option<bool>,
    },
}

/// Compiles a part.
pub(super) fn prepare(part: &PatternPart, ignore_case: bool) -> Result<MatchStep, regex::Error> {
    let all = |parts: &[PatternPart]| -> Result<Vec<MatchStep>, regex::Error> {
        parts.iter().map(|part| prepare(part, ignore_case)).collect()
    };
    let case = if ignore_case { "(?i)" } else { "" };
    Ok(match part {
        PatternPart::One(one) => MatchStep::One(Box::new(Regex::new(&format!("{case}\\A(?:{one})\\z"))?)),
        PatternPart::Place(place) => MatchStep::Place(Box::new(Regex::new(place)?)),
        PatternPart::Sequence(parts) => MatchStep::Sequence(neighbours(all(parts)?)),
        PatternPart::Either(parts) => MatchStep::Either(all(parts)?),
        PatternPart::Group(part, number) => MatchStep::Group(Box::new(prepare(part, ignore_case)?), *number),
        PatternPart::Times {
            of,
            least: 1,
            most: Some(1),
            greedy: None,
        } => prepare(of, ignore_case)?,
        PatternPart::Times {
            of,
            least,
            most,
            greedy,
        } => {
            let last = prepare(of, ignore_case)?;
            let splits = captures(&last) && *least > 0;
            let less = u32::from(splits);
            let rounds = MatchStep::Times {
                of: Box::new(if splits {
                    prepare(&silent(of), ignore_case)?
                } else {
                    prepare(of, ignore_case)?
                }),
                least: least - less,
                most: most.map(|most| most - less),
                greedy: *greedy,
            };
            match splits {
                true => MatchStep::Sequence(vec![rounds, last]),
                false => rounds,
            }
        }
    })
}

/// The part without captures.
fn silent(part: &PatternPart) -> PatternPart {
    match part {
        PatternPart::Sequence(parts) => PatternPart::Sequence(parts.iter().map(silent).collect()),
        PatternPart::Either(parts) => PatternPart::Either(parts.iter().map(silent).collect()),
        PatternPart::Group(part, _) => PatternPart::Group(Box::new(silent(part)), None),
        PatternPart::Times {
            of,
            least,
            most,
            greedy,
        } => PatternPart::Times {
            of: Box::new(silent(of)),
            least: *least,
            most: *most,
            greedy: *greedy,
        },
        other => other.clone(),
    }
}

/// Merges neighbouring steps as (2) demands.
fn neighbours(steps: Vec<MatchStep>) -> Vec<MatchStep> {
    let mut made: Vec<MatchStep> = vec![];
    let mut run: Vec<MatchStep> = vec![];
    let mut gathered = Preferences::default();
    for step in steps {
        let mut with = gathered;
        preferences(&step, &mut with);
        if captures(&step) || with.many && with.few {
            if !run.is_empty() {
                made.push(MatchStep::Sequence(std::mem::take(&mut run)));
            }
            made.push(step);
            gathered = Preferences::default();
        } else {
            run.push(step);
            gathered = with;
        }
    }
    if !run.is_empty() {
        made.push(MatchStep::Sequence(run));
    }
    made
}

/// Whether a part has a group that captures.
fn captures(step: &MatchStep) -> bool {
    match step {
        MatchStep::One(_) | MatchStep::Place(_) => false,
        MatchStep::Sequence(steps) | MatchStep::Either(steps) => steps.iter().any(captures),
        MatchStep::Group(step, number) => number.is_some() || captures(step),
        MatchStep::Times { of, .. } => captures(of),
    }
}

/// The preferences that occur in a part.
#[derive(Clone, Copy, Default)]
struct Preferences {
    many: bool,
    few: bool,
}

fn preferences(step: &MatchStep, preferred: &mut Preferences) {
    match step {
        MatchStep::One(_) | MatchStep::Place(_) => {}
        MatchStep::Sequence(steps) => steps.iter().for_each(|step| preferences(step, preferred)),
        MatchStep::Either(steps) => {
            preferred.many = true;
            steps.iter().for_each(|step| preferences(step, preferred));
        }
        MatchStep::Group(step, _) => preferences(step, preferred),
        MatchStep::Times { of, greedy, .. } => {
            preferred.many |= greedy == &Some(true);
            preferred.few |= greedy == &Some(false);
            preferences(of, preferred);
        }
    }
}

/// What a part prefers, see (1): many (true), few (false), or nothing.
fn prefers(step: &MatchStep) -> Option<bool> {
    match step {
        MatchStep::One(_) | MatchStep::Place(_) => None,
        MatchStep::Sequence(steps) => steps.iter().find_map(prefers),
        MatchStep::Either(_) => Some(true),
        MatchStep::Group(step, _) => prefers(step),
        MatchStep::Times { of, greedy, .. } => greedy.or_else(|| prefers(of)),
    }
}

/// The bytes from which to which each group matched. The first entry is the whole match.
pub(in crate::plan) type Captured = Vec<Option<(usize, usize)>>;

/// The match that begins at the byte `start` of the text; `None` if there is none.
///
/// # Errors
/// Matching takes too many steps.
pub(super) fn match_at(step: &MatchStep, text: &str, start: usize, groups: usize) -> Result<Option<Captured>, String> {
    let mut matcher = Matcher {
        text,
        places: text[start..].char_indices().map(|(at, _)| start + at).collect(),
        steps: 0,
        captured: vec![None; groups + 1],
    };
    matcher.places.push(text.len());
    let most = matcher.places.len() - 1;
    let ends = matcher.reach(step, &PlaceSet::single(0, most + 1))?;
    let end = match prefers(step) {
        Some(false) => ends.first(),
        _ => ends.last(),
    };
    let Some(end) = end else { return Ok(None) };
    matcher.captured[0] = Some((start, matcher.places[end]));
    if groups > 0 {
        matcher.dissect(step, 0, end)?;
    }
    Ok(Some(matcher.captured))
}

/// A set of places, as a flag for each place.
#[derive(Clone, PartialEq)]
struct PlaceSet(Vec<bool>);

impl PlaceSet {
    fn empty(length: usize) -> PlaceSet {
        PlaceSet(vec![false; length])
    }

    fn single(place: usize, length: usize) -> PlaceSet {
        let mut places = PlaceSet::empty(length);
        places.0[place] = true;
        places
    }

    fn places(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.0.iter().enumerate().filter(|(_, is)| **is).map(|(place, _)| place)
    }

    fn first(&self) -> Option<usize> {
        self.places().next()
    }

    fn last(&self) -> Option<usize> {
        self.places().next_back()
    }

    /// Adds the places of another set; returns whether any of them was new.
    fn add(&mut self, other: &PlaceSet) -> bool {
        let mut new = false;
        for (mine, other) in self.0.iter_mut().zip(&other.0) {
            new |= *other && !*mine;
            *mine |= *other;
        }
        new
    }
}

struct Matcher<'a> {
    text: &'a str,
    /// The byte at which each character begins, and the length of the text.
    places: Vec<usize>,
    steps: usize,
    captured: Captured,
}

impl Matcher<'_> {
    fn count_steps(&mut self, steps: usize) -> Result<(), String> {
        self.steps += steps;
        match self.steps <= MOST_STEPS {
            true => Ok(()),
            false => Err("it takes too many steps over this text".to_string()),
        }
    }

    /// The places at which a part can end that begins at one of `starts`.
    fn reach(&mut self, step: &MatchStep, starts: &PlaceSet) -> Result<PlaceSet, String> {
        let length = self.places.len();
        self.count_steps(length)?;
        let mut ends = PlaceSet::empty(length);
        match step {
            MatchStep::One(class) => {
                for at in starts.places().filter(|at| at + 1 < length) {
                    ends.0[at + 1] = class.is_match(&self.text[self.places[at]..self.places[at + 1]]);
                }
            }
            MatchStep::Place(place) => {
                for at in starts.places() {
                    let byte = self.places[at];
                    ends.0[at] = place
                        .find_at(self.text, byte)
                        .is_some_and(|found| found.start() == byte);
                }
            }
            MatchStep::Sequence(steps) => {
                ends = starts.clone();
                for step in steps {
                    ends = self.reach(step, &ends)?;
                }
            }
            MatchStep::Either(steps) => {
                for step in steps {
                    ends.add(&self.reach(step, starts)?);
                }
            }
            MatchStep::Group(step, _) => ends = self.reach(step, starts)?,
            MatchStep::Times { of, least, most, .. } => {
                let mut now = starts.clone();
                for _ in 0..*least {
                    now = self.reach(of, &now)?;
                }
                ends = now.clone();
                let mut rounds = *least;
                while most.is_none_or(|most| rounds < most) {
                    now = self.reach(of, &now)?;
                    rounds += 1;
                    if !ends.add(&now) {
                        break;
                    }
                }
            }
        }
        Ok(ends)
    }

    /// Sets the captures of a part that matches from one place to another; false if it does not match.
    fn dissect(&mut self, step: &MatchStep, start: usize, end: usize) -> Result<bool, String> {
        self.count_steps(1)?;
        if !captures(step) {
            return self.matches(step, start, end);
        }
        match step {
            MatchStep::One(_) | MatchStep::Place(_) => Ok(true),
            MatchStep::Sequence(steps) => self.sequence(steps, start, end),
            MatchStep::Either(steps) => {
                for step in steps {
                    if self.matches(step, start, end)? && self.dissect(step, start, end)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            MatchStep::Group(step, number) => {
                if let Some(number) = number {
                    self.captured[*number] = Some((self.places[start], self.places[end]));
                }
                self.dissect(step, start, end)
            }
            MatchStep::Times {
                of,
                least,
                most,
                greedy: _,
            } => {
                if *least == 0 && start == end {
                    return Ok(true);
                }
                self.rounds(of, *least, *most, start, end)
            }
        }
    }

    /// Clears the captures of a part, because a new round captures anew.
    fn forget(&mut self, step: &MatchStep) {
        match step {
            MatchStep::One(_) | MatchStep::Place(_) => {}
            MatchStep::Sequence(steps) | MatchStep::Either(steps) => steps.iter().for_each(|step| self.forget(step)),
            MatchStep::Group(step, number) => {
                if let Some(number) = number {
                    self.captured[*number] = None;
                }
                self.forget(step);
            }
            MatchStep::Times { of, .. } => self.forget(of),
        }
    }

    fn matches(&mut self, step: &MatchStep, start: usize, end: usize) -> Result<bool, String> {
        let length = self.places.len();
        Ok(self.reach(step, &PlaceSet::single(start, length))?.0[end])
    }

    /// The places at which a part may end, in the order in which it tries them.
    fn possible_ends(&mut self, step: &MatchStep, start: usize, end: usize) -> Result<Vec<usize>, String> {
        let length = self.places.len();
        let ends = self.reach(step, &PlaceSet::single(start, length))?;
        let within = ends.places().filter(|at| *at <= end);
        Ok(match prefers(step) {
            Some(false) => within.collect(),
            _ => within.rev().collect(),
        })
    }

    fn sequence(&mut self, steps: &[MatchStep], start: usize, end: usize) -> Result<bool, String> {
        let Some((first, rest)) = steps.split_first() else {
            return Ok(start == end);
        };
        if rest.is_empty() {
            return Ok(self.matches(first, start, end)? && self.dissect(first, start, end)?);
        }
        for middle in self.possible_ends(first, start, end)? {
            let mut ends = PlaceSet::single(middle, self.places.len());
            for step in rest {
                ends = self.reach(step, &ends)?;
            }
            if ends.0[end] && self.dissect(first, start, middle)? && self.sequence(rest, middle, end)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Matches rounds of a repetition from one place to another. An empty round is only taken where the least
    /// count needs it.
    fn rounds(
        &mut self,
        of: &MatchStep,
        least: u32,
        most: Option<u32>,
        start: usize,
        end: usize,
    ) -> Result<bool, String> {
        if most == Some(0) {
            return Ok(start == end);
        }
        let before = self.captured.clone();
        for middle in self.possible_ends(of, start, end)? {
            if middle == start && (start < end || least > 1) {
                continue;
            }
            self.captured.clone_from(&before);
            self.forget(of);
            if !self.dissect(of, start, middle)? {
                continue;
            }
            if middle == end {
                if least <= 1 || self.matches(of, end, end)? {
                    return Ok(true);
                }
                continue;
            }
            if self.rounds(of, least.saturating_sub(1), most.map(|most| most - 1), middle, end)? {
                return Ok(true);
            }
        }
        self.captured = before;
        Ok(false)
    }
}
