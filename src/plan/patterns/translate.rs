//! Translates patterns for the regex crate, and decides whether it takes the same match as PostgreSQL.
//!
//! Among matches that begin at one place, PostgreSQL takes the longest or the shortest one of the whole
//! pattern; the regex crate takes the one that it tries first. These are the same for a sequence of single
//! characters that are repeated greedily.

use super::parse::{Parsed, PatternPart};

/// The pattern in the regex crate's syntax.
pub(super) fn translated(parsed: &Parsed) -> String {
    let mut made = String::from(if parsed.flags.ignore_case { "(?i)" } else { "" });
    write(&parsed.part, &mut made);
    made
}

fn write(part: &PatternPart, made: &mut String) {
    match part {
        PatternPart::One(one) => made.push_str(one),
        PatternPart::Place(place) => made.push_str(place),
        PatternPart::Sequence(parts) => parts.iter().for_each(|part| write(part, made)),
        PatternPart::Either(parts) => {
            made.push_str("(?:");
            for (n, part) in parts.iter().enumerate() {
                if n > 0 {
                    made.push('|');
                }
                write(part, made);
            }
            made.push(')');
        }
        PatternPart::Group(part, number) => {
            made.push_str(if number.is_some() { "(" } else { "(?:" });
            write(part, made);
            made.push(')');
        }
        PatternPart::Times {
            of,
            least,
            most,
            greedy,
        } => {
            made.push_str("(?:");
            write(of, made);
            made.push(')');
            match most {
                Some(most) => made.push_str(&format!("{{{least},{most}}}")),
                None => made.push_str(&format!("{{{least},}}")),
            }
            if greedy == &Some(false) {
                made.push('?');
            }
        }
    }
}

/// Whether the match that the regex crate takes is the one that PostgreSQL takes.
pub(super) fn is_plain(part: &PatternPart) -> bool {
    match part {
        PatternPart::One(_) | PatternPart::Place(_) => true,
        PatternPart::Sequence(parts) => parts.iter().all(is_plain),
        PatternPart::Either(_) => false,
        PatternPart::Group(part, _) => is_plain(part),
        PatternPart::Times {
            of,
            greedy,
            least,
            most,
        } => match of.as_ref() {
            PatternPart::One(_) => greedy != &Some(false) || most == &Some(*least),
            _ => false,
        },
    }
}
