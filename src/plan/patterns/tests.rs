//! Tests of patterns alone; `src/render/tests/functions.rs` compares them with PostgreSQL.

use proptest::prelude::*;

use super::parse::{Parsed, PatternPart, parse};
use super::*;

fn refused(pattern: &str) -> String {
    match Pattern::new(pattern, Flags::default()) {
        Ok(_) => panic!("{pattern} is read"),
        Err(why) => why,
    }
}

#[test]
fn what_can_never_match_as_postgresql_matches_is_refused_with_the_reason() {
    assert_eq!(
        refused("(a)\\1"),
        "could not read the pattern '(a)\\1': it refers back to what ( ) has found, \\1, which is not known inside of a pattern here"
    );
    for look in ["a(?=b)", "a(?!b)", "(?<=a)b", "(?<!a)b"] {
        assert!(refused(look).contains("looks ahead or behind"), "{look}");
    }
    for wrong in [
        "(", ")", "a)", "[a", "*a", "a**", "a{2}{3}", "^*", "a{3,2}", "a{256}", "\\", "[z-a]", "[[:no:]]", "(?q", "\\i",
    ] {
        assert!(refused(wrong).starts_with("could not read the pattern '"), "{wrong}");
    }
}

fn part() -> impl Strategy<Value = PatternPart> {
    let one =
        prop_oneof![Just("a"), Just("b"), Just("[ab]"), Just("[bc]")].prop_map(|one| PatternPart::One(one.to_string()));
    one.prop_recursive(4, 12, 3, |inner| {
        let times = (inner.clone(), 0u32..3, 0u32..3, any::<bool>(), any::<bool>());
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(PatternPart::Sequence),
            prop::collection::vec(inner.clone(), 2..3).prop_map(PatternPart::Either),
            inner.clone().prop_map(|part| PatternPart::Group(Box::new(part), None)),
            times.prop_map(|(of, least, more, open, greedy)| PatternPart::Times {
                of: Box::new(PatternPart::Group(Box::new(of), None)),
                least,
                most: (!open).then_some(least + more),
                greedy: Some(greedy),
            }),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![Just('a'), Just('b'), Just('c')], 0..8)
        .prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    /// For every pattern, `longest` finds a match where the regex crate finds the first, and ends it at the
    /// nearest or the farthest place at which the pattern can end.
    #[test]
    fn what_is_followed_reaches_what_the_regex_crate_reaches(part in part(), text in text()) {
        let parsed = Parsed { part, groups: 0, flags: Flags::default() };
        let written = translate::translated(&parsed);
        let step = longest::prepare(&parsed.part, false).unwrap();
        let found = Regex::new(&written).unwrap().find(&text).map(|found| found.start());
        let followed = found.map(|start| longest::match_at(&step, &text, start, 0).unwrap().expect("it matches"));
        if let (Some(start), Some(followed)) = (found, followed) {
            let (from, to) = followed[0].unwrap();
            prop_assert_eq!(from, start);
            let exactly = Regex::new(&format!("\\A(?:{written})\\z")).unwrap();
            prop_assert!(exactly.is_match(&text[from..to]), "{}", written);
            let ends: Vec<usize> = (from..=text.len()).filter(|end| exactly.is_match(&text[from..*end])).collect();
            prop_assert!(to == ends[0] || to == ends[ends.len() - 1], "{} to {} of {:?}", written, to, ends);
        }
    }

    /// For patterns that are plain, where the regex crate's match is used, `longest` finds the same match.
    #[test]
    fn plain_patterns_are_matched_alike(
        parts in prop::collection::vec(("[abc]|\\[ab\\]|\\[bc\\]", 0u32..3, 0u32..3, any::<bool>(), any::<bool>()), 1..6),
        text in text(),
    ) {
        let times = |(one, least, more, open, captured): (String, u32, u32, bool, bool)| {
            let times = PatternPart::Times {
                of: Box::new(PatternPart::One(one)),
                least,
                most: (!open).then_some(least + more),
                greedy: Some(true),
            };
            (times, captured)
        };
        let mut groups = 0;
        let parts: Vec<PatternPart> = parts
            .into_iter()
            .map(times)
            .map(|(part, captured)| match captured {
                true => {
                    groups += 1;
                    PatternPart::Group(Box::new(part), Some(groups))
                }
                false => part,
            })
            .collect();
        let parsed = Parsed { part: PatternPart::Sequence(parts), groups, flags: Flags::default() };
        prop_assert!(translate::is_plain(&parsed.part));
        let regex = Regex::new(&translate::translated(&parsed)).unwrap();
        let step = longest::prepare(&parsed.part, false).unwrap();
        let plain = Pattern { regex: regex.clone(), followed: None, groups };
        let followed = Pattern { regex, followed: Some(step), groups };
        prop_assert_eq!(plain.find_at(&text, 0).unwrap(), followed.find_at(&text, 0).unwrap());
    }

    /// Every pattern is either read or refused, and matching ends.
    #[test]
    fn any_pattern_is_read_or_refused(pattern in "[ab()|*+?{},0-9\\[\\]\\\\^$.:wsd-]{0,12}", text in text()) {
        if let Ok(pattern) = Pattern::new(&pattern, Flags::default()) {
            let _ = pattern.find_all(&text, 0, 100);
        }
        let _ = parse(&pattern, Flags::default());
    }
}

#[test]
fn a_pattern_that_takes_too_many_steps_is_an_error_of_its_text() {
    let pattern = Pattern::new("(a*)*(b*)*(c|ca)*x?", Flags::default()).unwrap();
    let text = "a".repeat(20_000);
    let message = pattern.find_at(&text, 0).unwrap_err();
    assert_eq!(message, "it takes too many steps over this text");
}
