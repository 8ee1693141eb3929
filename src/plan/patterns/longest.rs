//! Which match PostgreSQL takes of those that begin at one place, and what its groups capture.
//!
//! 1. A quantifier prefers many or few; a sequence what the first part of it that has a preference prefers; several branches
//!    prefer many. The whole pattern takes its longest or its shortest match accordingly.
//! 2. Of a sequence each part in turn takes the longest (or shortest) text that leaves the rest of them a match. Neighbours that
//!    capture nothing and prefer the same are one part.
//! 3. Of several branches the first one that fits exactly is taken.
//! 4. A repetition that is taken once at least is one of a round less, which captures nothing, and the last round behind it;
//!    another takes round after round, and captures what its last one found.
//!
//! Places are positions between characters. What a part can reach is computed for a set of places at once, so that a pattern
//! costs its length times that of the text for each match.

use regex::Regex;

use super::parse::Part;

/// Steps that one text may take.
const MOST_STEPS: usize = 20_000_000;

/// A part, ready to be followed.
pub(super) enum Step {
    One(Box<Regex>),
    Place(Box<Regex>),
    Sequence(Vec<Step>),
    Either(Vec<Step>),
    Group(Box<Step>, Option<usize>),
    Times {
        of: Box<Step>,
        least: u32,
        most: Option<u32>,
        greedy: Option<bool>,
    },
}

/// The part, ready to be followed.
pub(super) fn prepare(part: &Part, ignore_case: bool) -> Result<Step, regex::Error> {
    let all = |parts: &[Part]| -> Result<Vec<Step>, regex::Error> {
        parts.iter().map(|part| prepare(part, ignore_case)).collect()
    };
    let case = if ignore_case { "(?i)" } else { "" };
    Ok(match part {
        Part::One(one) => Step::One(Box::new(Regex::new(&format!("{case}\\A(?:{one})\\z"))?)),
        Part::Place(place) => Step::Place(Box::new(Regex::new(place)?)),
        Part::Sequence(parts) => Step::Sequence(neighbours(all(parts)?)),
        Part::Either(parts) => Step::Either(all(parts)?),
        Part::Group(part, number) => Step::Group(Box::new(prepare(part, ignore_case)?), *number),
        Part::Times {
            of,
            least: 1,
            most: Some(1),
            greedy: None,
        } => prepare(of, ignore_case)?,
        Part::Times {
            of,
            least,
            most,
            greedy,
        } => {
            let last = prepare(of, ignore_case)?;
            let splits = captures(&last) && *least > 0;
            let less = u32::from(splits);
            let rounds = Step::Times {
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
                true => Step::Sequence(vec![rounds, last]),
                false => rounds,
            }
        }
    })
}

/// The part, capturing nothing.
fn silent(part: &Part) -> Part {
    match part {
        Part::Sequence(parts) => Part::Sequence(parts.iter().map(silent).collect()),
        Part::Either(parts) => Part::Either(parts.iter().map(silent).collect()),
        Part::Group(part, _) => Part::Group(Box::new(silent(part)), None),
        Part::Times {
            of,
            least,
            most,
            greedy,
        } => Part::Times {
            of: Box::new(silent(of)),
            least: *least,
            most: *most,
            greedy: *greedy,
        },
        other => other.clone(),
    }
}

/// Steps with neighbours made one, see (2).
fn neighbours(steps: Vec<Step>) -> Vec<Step> {
    let mut made: Vec<Step> = vec![];
    let mut run: Vec<Step> = vec![];
    let mut held = Preferences::default();
    for step in steps {
        let mut with = held;
        preferences(&step, &mut with);
        if captures(&step) || with.many && with.few {
            if !run.is_empty() {
                made.push(Step::Sequence(std::mem::take(&mut run)));
            }
            made.push(step);
            held = Preferences::default();
        } else {
            run.push(step);
            held = with;
        }
    }
    if !run.is_empty() {
        made.push(Step::Sequence(run));
    }
    made
}

/// Whether a part captures anything.
fn captures(step: &Step) -> bool {
    match step {
        Step::One(_) | Step::Place(_) => false,
        Step::Sequence(steps) | Step::Either(steps) => steps.iter().any(captures),
        Step::Group(step, number) => number.is_some() || captures(step),
        Step::Times { of, .. } => captures(of),
    }
}

/// Which preferences there are in a part.
#[derive(Clone, Copy, Default)]
struct Preferences {
    many: bool,
    few: bool,
}

fn preferences(step: &Step, held: &mut Preferences) {
    match step {
        Step::One(_) | Step::Place(_) => {}
        Step::Sequence(steps) => steps.iter().for_each(|step| preferences(step, held)),
        Step::Either(steps) => {
            held.many = true;
            steps.iter().for_each(|step| preferences(step, held));
        }
        Step::Group(step, _) => preferences(step, held),
        Step::Times { of, greedy, .. } => {
            held.many |= greedy == &Some(true);
            held.few |= greedy == &Some(false);
            preferences(of, held);
        }
    }
}

/// What a part prefers, see (1): many, few, or nothing.
fn prefers(step: &Step) -> Option<bool> {
    match step {
        Step::One(_) | Step::Place(_) => None,
        Step::Sequence(steps) => steps.iter().find_map(prefers),
        Step::Either(_) => Some(true),
        Step::Group(step, _) => prefers(step),
        Step::Times { of, greedy, .. } => greedy.or_else(|| prefers(of)),
    }
}

/// The bytes from and to which each group has matched; the first one is the whole.
pub(in crate::plan) type Captured = Vec<Option<(usize, usize)>>;

/// The match that begins at a byte of the text, where there is one; none as well where it takes too many steps.
///
/// # Errors
/// It takes too many steps.
pub(super) fn from(step: &Step, text: &str, start: usize, groups: usize) -> Result<Option<Captured>, String> {
    let mut follower = Follower {
        text,
        places: text[start..].char_indices().map(|(at, _)| start + at).collect(),
        steps: 0,
        captured: vec![None; groups + 1],
    };
    follower.places.push(text.len());
    let most = follower.places.len() - 1;
    let ends = follower.reach(step, &Places::of(0, most + 1))?;
    let end = match prefers(step) {
        Some(false) => ends.first(),
        _ => ends.last(),
    };
    let Some(end) = end else { return Ok(None) };
    follower.captured[0] = Some((start, follower.places[end]));
    if groups > 0 {
        follower.dissect(step, 0, end)?;
    }
    Ok(Some(follower.captured))
}

/// A set of places.
#[derive(Clone, PartialEq)]
struct Places(Vec<bool>);

impl Places {
    fn none(length: usize) -> Places {
        Places(vec![false; length])
    }

    fn of(place: usize, length: usize) -> Places {
        let mut places = Places::none(length);
        places.0[place] = true;
        places
    }

    fn each(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.0.iter().enumerate().filter(|(_, is)| **is).map(|(place, _)| place)
    }

    fn first(&self) -> Option<usize> {
        self.each().next()
    }

    fn last(&self) -> Option<usize> {
        self.each().next_back()
    }

    /// Adds those of another; says whether there were new ones.
    fn add(&mut self, other: &Places) -> bool {
        let mut new = false;
        for (mine, other) in self.0.iter_mut().zip(&other.0) {
            new |= *other && !*mine;
            *mine |= *other;
        }
        new
    }
}

struct Follower<'a> {
    text: &'a str,
    /// The byte at which each character begins, and the end.
    places: Vec<usize>,
    steps: usize,
    captured: Captured,
}

impl Follower<'_> {
    fn count(&mut self, steps: usize) -> Result<(), String> {
        self.steps += steps;
        match self.steps <= MOST_STEPS {
            true => Ok(()),
            false => Err("it takes too many steps over this text".to_string()),
        }
    }

    /// Where a part can end that begins at one of these places.
    fn reach(&mut self, step: &Step, starts: &Places) -> Result<Places, String> {
        let length = self.places.len();
        self.count(length)?;
        let mut ends = Places::none(length);
        match step {
            Step::One(class) => {
                for at in starts.each().filter(|at| at + 1 < length) {
                    ends.0[at + 1] = class.is_match(&self.text[self.places[at]..self.places[at + 1]]);
                }
            }
            Step::Place(place) => {
                for at in starts.each() {
                    let byte = self.places[at];
                    ends.0[at] = place
                        .find_at(self.text, byte)
                        .is_some_and(|found| found.start() == byte);
                }
            }
            Step::Sequence(steps) => {
                ends = starts.clone();
                for step in steps {
                    ends = self.reach(step, &ends)?;
                }
            }
            Step::Either(steps) => {
                for step in steps {
                    ends.add(&self.reach(step, starts)?);
                }
            }
            Step::Group(step, _) => ends = self.reach(step, starts)?,
            Step::Times { of, least, most, .. } => {
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

    /// Finds what the groups of a part capture that matches from a place to a place.
    fn dissect(&mut self, step: &Step, start: usize, end: usize) -> Result<bool, String> {
        self.count(1)?;
        if !captures(step) {
            return self.fits(step, start, end);
        }
        match step {
            Step::One(_) | Step::Place(_) => Ok(true),
            Step::Sequence(steps) => self.sequence(steps, start, end),
            Step::Either(steps) => {
                for step in steps {
                    if self.fits(step, start, end)? && self.dissect(step, start, end)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Step::Group(step, number) => {
                if let Some(number) = number {
                    self.captured[*number] = Some((self.places[start], self.places[end]));
                }
                self.dissect(step, start, end)
            }
            Step::Times {
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

    /// A new round captures anew.
    fn forget(&mut self, step: &Step) {
        match step {
            Step::One(_) | Step::Place(_) => {}
            Step::Sequence(steps) | Step::Either(steps) => steps.iter().for_each(|step| self.forget(step)),
            Step::Group(step, number) => {
                if let Some(number) = number {
                    self.captured[*number] = None;
                }
                self.forget(step);
            }
            Step::Times { of, .. } => self.forget(of),
        }
    }

    fn fits(&mut self, step: &Step, start: usize, end: usize) -> Result<bool, String> {
        let length = self.places.len();
        Ok(self.reach(step, &Places::of(start, length))?.0[end])
    }

    /// The places in the order in which a part tries them.
    fn tried(&mut self, step: &Step, start: usize, end: usize) -> Result<Vec<usize>, String> {
        let length = self.places.len();
        let ends = self.reach(step, &Places::of(start, length))?;
        let within = ends.each().filter(|at| *at <= end);
        Ok(match prefers(step) {
            Some(false) => within.collect(),
            _ => within.rev().collect(),
        })
    }

    fn sequence(&mut self, steps: &[Step], start: usize, end: usize) -> Result<bool, String> {
        let Some((first, rest)) = steps.split_first() else {
            return Ok(start == end);
        };
        if rest.is_empty() {
            return Ok(self.fits(first, start, end)? && self.dissect(first, start, end)?);
        }
        for middle in self.tried(first, start, end)? {
            let mut ends = Places::of(middle, self.places.len());
            for step in rest {
                ends = self.reach(step, &ends)?;
            }
            if ends.0[end] && self.dissect(first, start, middle)? && self.sequence(rest, middle, end)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// So many rounds from a place to a place. An empty round is only taken where the least count asks for it.
    fn rounds(&mut self, of: &Step, least: u32, most: Option<u32>, start: usize, end: usize) -> Result<bool, String> {
        if most == Some(0) {
            return Ok(start == end);
        }
        let before = self.captured.clone();
        for middle in self.tried(of, start, end)? {
            if middle == start && (start < end || least > 1) {
                continue;
            }
            self.captured.clone_from(&before);
            self.forget(of);
            if !self.dissect(of, start, middle)? {
                continue;
            }
            if middle == end {
                if least <= 1 || self.fits(of, end, end)? {
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
