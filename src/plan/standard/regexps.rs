//! Functions of regular expressions, with PostgreSQL's patterns.

use std::rc::Rc;

use super::super::patterns::{Captured, Flags, Pattern, cached_pattern, of_similar_to};
use super::row::{RowArgument, RowFunction, RowResult, RowType, RowValue};

/// The functions that have names in SQL, each with PostgreSQL's arguments.
pub(super) fn functions() -> Vec<RowFunction> {
    use RowType::{Text, Texts, Whole, Yes};
    vec![
        RowFunction::new("regexp_like", &[&[Text; 2], &[Text; 3]], Yes, like),
        RowFunction::new("regexp_match", &[&[Text; 2], &[Text; 3]], Texts, first),
        RowFunction::new(
            "regexp_replace",
            &[
                &[Text; 3],
                &[Text, Text, Text, Whole],
                &[Text; 4],
                &[Text, Text, Text, Whole, Whole],
                &[Text, Text, Text, Whole, Whole, Text],
            ],
            Text,
            replace,
        ),
        RowFunction::new(
            "regexp_count",
            &[&[Text; 2], &[Text, Text, Whole], &[Text, Text, Whole, Text]],
            Whole,
            count,
        ),
        RowFunction::new(
            "regexp_instr",
            &[
                &[Text; 2],
                &[Text, Text, Whole],
                &[Text, Text, Whole, Whole],
                &[Text, Text, Whole, Whole, Whole],
                &[Text, Text, Whole, Whole, Whole, Text],
                &[Text, Text, Whole, Whole, Whole, Text, Whole],
            ],
            Whole,
            place,
        ),
        RowFunction::new(
            "regexp_substr",
            &[
                &[Text; 2],
                &[Text, Text, Whole],
                &[Text, Text, Whole, Whole],
                &[Text, Text, Whole, Whole, Text],
                &[Text, Text, Whole, Whole, Text, Whole],
            ],
            Text,
            part,
        ),
        RowFunction::new("regexp_split_to_array", &[&[Text; 2], &[Text; 3]], Texts, split),
    ]
}

/// `a ~ b`.
pub(super) fn matches() -> RowFunction {
    RowFunction::new("~", &[&[RowType::Text; 2]], RowType::Yes, |args| {
        let pattern = cached_pattern(args[1].text(), Flags::default())?;
        Ok(RowValue::Yes(pattern.is_match(args[0].text())))
    })
}

/// `a ~* b`.
pub(super) fn matches_any_case() -> RowFunction {
    RowFunction::new("~*", &[&[RowType::Text; 2]], RowType::Yes, |args| {
        let pattern = cached_pattern(args[1].text(), any_case())?;
        Ok(RowValue::Yes(pattern.is_match(args[0].text())))
    })
}

/// `a SIMILAR TO b`, whose third argument is the escape character, or empty.
pub(super) fn similar() -> RowFunction {
    RowFunction::new("similar_to", &[&[RowType::Text; 3]], RowType::Yes, |args| {
        let pattern = known_similar(args[1].text(), args[2].text())?;
        Ok(RowValue::Yes(pattern.is_match(args[0].text())))
    })
}

/// The compiled pattern of SIMILAR TO.
fn known_similar(pattern: &str, escape: &str) -> Result<Rc<Pattern>, String> {
    cached_pattern(&of_similar_to(pattern, escape.chars().next()), Flags::default()).map_err(|why| {
        // The message names the pattern that the user wrote, not its translation.
        let why = why.rsplit_once("': ").map_or(why.as_str(), |(_, why)| why);
        format!("could not read the pattern '{pattern}': {why}")
    })
}

fn any_case() -> Flags {
    Flags {
        ignore_case: true,
        ..Flags::default()
    }
}

/// Why a constant pattern of a call can never work; `None` if it can, or if it is not constant. `constants` has
/// an entry for each argument: its text if it is a constant.
pub(in crate::plan) fn mistake(function: &str, constants: &[Option<&str>]) -> Option<String> {
    let pattern = (*constants.get(1)?)?;
    let flags_at = match (function, constants.len()) {
        ("~", _) => return cached_pattern(pattern, Flags::default()).err(),
        ("~*", _) => return cached_pattern(pattern, any_case()).err(),
        ("similar_to", _) => {
            let escape = (*constants.get(2)?)?;
            return known_similar(pattern, escape).err();
        }
        ("regexp_like" | "regexp_match" | "regexp_split_to_array", _) => 2,
        ("regexp_replace", 6) => 5,
        ("regexp_replace" | "regexp_count", _) => 3,
        ("regexp_instr", _) => 5,
        ("regexp_substr", _) => 4,
        _ => return None,
    };
    let flags = match constants.get(flags_at) {
        Some(flags) => flags.unwrap_or_default(),
        None => "",
    };
    let global = function == "regexp_replace";
    read_flags(function, flags, global)
        .and_then(|flags| cached_pattern(pattern, flags))
        .err()
}

fn read_flags(function: &str, flags: &str, global: bool) -> Result<Flags, String> {
    let flags = Flags::read(flags)?;
    match flags.global && !global {
        true => Err(format!("{function}() does not know the flag g")),
        false => Ok(Flags { global: false, ..flags }),
    }
}

fn flags(function: &str, args: &[RowArgument<'_>], at: usize) -> Result<Flags, String> {
    read_flags(function, args.get(at).map_or("", RowArgument::text), false)
}

fn like(args: &[RowArgument<'_>]) -> RowResult {
    let pattern = cached_pattern(args[1].text(), flags("regexp_like", args, 2)?)?;
    Ok(RowValue::Yes(pattern.is_match(args[0].text())))
}

fn of<'a>(text: &'a str, captured: &Captured, group: usize) -> Option<&'a str> {
    let (from, to) = (*captured.get(group)?)?;
    Some(&text[from..to])
}

fn first(args: &[RowArgument<'_>]) -> RowResult {
    let (text, pattern) = (
        args[0].text(),
        cached_pattern(args[1].text(), flags("regexp_match", args, 2)?)?,
    );
    let Some(found) = pattern.find_at(text, 0)? else {
        return Ok(RowValue::Null);
    };
    let groups = match pattern.groups() {
        0 => 0..=0,
        groups => 1..=groups,
    };
    Ok(RowValue::Texts(
        groups.map(|n| of(text, &found, n).map(str::to_string)).collect(),
    ))
}

fn replace(args: &[RowArgument<'_>]) -> RowResult {
    let (text, to) = (args[0].text(), args[2].text());
    let (start, nth, flags) = match args.get(3) {
        None => (1, Some(1), Flags::default()),
        Some(RowArgument::Text(flags)) => {
            let flags = Flags::read(flags)?;
            (1, (!flags.global).then_some(1), flags)
        }
        Some(start) => {
            let nth = args
                .get(4)
                .map_or(Ok(1), |nth| at_least(0, nth, "the number of the match"))?;
            let flags = Flags::read(args.get(5).map_or("", RowArgument::text))?;
            let given = args.len() > 4;
            let all = nth == 0 || (!given && flags.global);
            (at_least(1, start, "the start")?, (!all).then_some(nth), flags)
        }
    };
    let pattern = cached_pattern(args[1].text(), Flags { global: false, ..flags })?;
    let Some(from) = byte_of(text, start) else {
        return Ok(RowValue::Text(text.to_string()));
    };
    let most = nth.unwrap_or(usize::MAX);
    let (mut made, mut at) = (String::with_capacity(text.len()), 0);
    for (n, found) in pattern.find_all(text, from, most)?.iter().enumerate() {
        if nth.is_some_and(|nth| n + 1 < nth) {
            continue;
        }
        let (from, to_byte) = found[0].expect("a match is somewhere");
        made.push_str(&text[at..from]);
        write(to, text, found, &mut made);
        at = to_byte;
    }
    made.push_str(&text[at..]);
    Ok(RowValue::Text(made))
}

/// Writes the replacement of a match: `\1` to `\9` and `\&` stand for what was matched, and `\\` for a backslash.
fn write(to: &str, text: &str, found: &Captured, made: &mut String) {
    let mut chars = to.chars().peekable();
    while let Some(c) = chars.next() {
        let group = match (c, chars.peek()) {
            ('\\', Some('&')) => Some(0),
            ('\\', Some('\\')) => {
                chars.next();
                made.push('\\');
                continue;
            }
            ('\\', Some(digit)) => digit.to_digit(10).filter(|digit| *digit > 0),
            _ => None,
        };
        match group {
            Some(group) => {
                chars.next();
                made.push_str(of(text, found, group as usize).unwrap_or_default());
            }
            None => made.push(c),
        }
    }
}

fn at_least(least: i64, given: &RowArgument<'_>, what: &str) -> Result<usize, String> {
    match given.whole() {
        n if n < least => Err(format!("{what} is {n}, and is at least {least}")),
        n => Ok(usize::try_from(n).unwrap_or(usize::MAX)),
    }
}

/// The byte at which a character begins, where characters count from 1; `None` after the end of the text.
fn byte_of(text: &str, character: usize) -> Option<usize> {
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.into_iter().nth(character - 1)
}

fn count(args: &[RowArgument<'_>]) -> RowResult {
    let text = args[0].text();
    let start = args.get(2).map_or(Ok(1), |start| at_least(1, start, "the start"))?;
    let pattern = cached_pattern(args[1].text(), flags("regexp_count", args, 3)?)?;
    let count = match byte_of(text, start) {
        Some(from) => pattern.find_all(text, from, usize::MAX)?.len(),
        None => 0,
    };
    Ok(RowValue::Whole(count as i64))
}

/// The match with the number of the fourth argument, from the start of the third.
fn nth(args: &[RowArgument<'_>], flags: Flags) -> Result<(Rc<Pattern>, Option<Captured>), String> {
    let text = args[0].text();
    let start = args.get(2).map_or(Ok(1), |start| at_least(1, start, "the start"))?;
    let nth = args
        .get(3)
        .map_or(Ok(1), |nth| at_least(1, nth, "the number of the match"))?;
    let pattern = cached_pattern(args[1].text(), flags)?;
    let found = match byte_of(text, start) {
        Some(from) => pattern.find_all(text, from, nth)?.into_iter().nth(nth - 1),
        None => None,
    };
    Ok((pattern, found))
}

fn place(args: &[RowArgument<'_>]) -> RowResult {
    let text = args[0].text();
    let end = match args.get(4).map_or(0, RowArgument::whole) {
        end @ 0..=1 => end,
        end => {
            return Err(format!(
                "where a match is told by its start (0) or its end (1), not by {end}"
            ));
        }
    };
    let group = args
        .get(6)
        .map_or(Ok(0), |group| at_least(0, group, "the number of the group"))?;
    let (pattern, found) = nth(args, flags("regexp_instr", args, 5)?)?;
    let place = match found
        .filter(|_| group <= pattern.groups())
        .and_then(|found| found[group])
    {
        Some((from, to)) => text[..if end == 0 { from } else { to }].chars().count() as i64 + 1,
        None => 0,
    };
    Ok(RowValue::Whole(place))
}

fn part(args: &[RowArgument<'_>]) -> RowResult {
    let group = args
        .get(5)
        .map_or(Ok(0), |group| at_least(0, group, "the number of the group"))?;
    let (pattern, found) = nth(args, flags("regexp_substr", args, 4)?)?;
    let part = found.filter(|_| group <= pattern.groups());
    let part = part.and_then(|found| of(args[0].text(), &found, group).map(str::to_string));
    Ok(part.map_or(RowValue::Null, RowValue::Text))
}

fn split(args: &[RowArgument<'_>]) -> RowResult {
    let text = args[0].text();
    let pattern = cached_pattern(args[1].text(), flags("regexp_split_to_array", args, 2)?)?;
    let (mut parts, mut at) = (vec![], 0);
    for separator in pattern.find_all(text, 0, usize::MAX)? {
        let (from, to) = separator[0].expect("a match is somewhere");
        // An empty match at the beginning, at the end, or right after another match does not split the text.
        if from == to && (from == at || from == text.len()) {
            continue;
        }
        parts.push(Some(text[at..from].to_string()));
        at = to;
    }
    parts.push(Some(text[at..].to_string()));
    Ok(RowValue::Texts(parts))
}
