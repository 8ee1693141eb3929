//! Patterns in the words of the regex crate, and whether they say the same there.
//!
//! Of matches that begin at one place PostgreSQL takes the longest, or the shortest, of the whole pattern; the regex crate takes
//! the one that it comes to first. For single characters that are repeated greedily, one behind the other, that is the same.

use super::parse::{Parsed, Part};

/// The pattern as the regex crate reads it.
pub(super) fn translated(parsed: &Parsed) -> String {
    let mut made = String::from(if parsed.flags.ignore_case { "(?i)" } else { "" });
    write(&parsed.part, &mut made);
    made
}

fn write(part: &Part, made: &mut String) {
    match part {
        Part::One(one) => made.push_str(one),
        Part::Place(place) => made.push_str(place),
        Part::Sequence(parts) => parts.iter().for_each(|part| write(part, made)),
        Part::Either(parts) => {
            made.push_str("(?:");
            for (n, part) in parts.iter().enumerate() {
                if n > 0 {
                    made.push('|');
                }
                write(part, made);
            }
            made.push(')');
        }
        Part::Group(part, number) => {
            made.push_str(if number.is_some() { "(" } else { "(?:" });
            write(part, made);
            made.push(')');
        }
        Part::Times {
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

/// Whether the first match that the regex crate comes to is the one that PostgreSQL takes.
pub(super) fn is_plain(part: &Part) -> bool {
    match part {
        Part::One(_) | Part::Place(_) => true,
        Part::Sequence(parts) => parts.iter().all(is_plain),
        Part::Either(_) => false,
        Part::Group(part, _) => is_plain(part),
        Part::Times {
            of,
            greedy,
            least,
            most,
        } => match of.as_ref() {
            Part::One(_) => greedy != &Some(false) || most == &Some(*least),
            _ => false,
        },
    }
}
