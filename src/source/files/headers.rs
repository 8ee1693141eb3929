//! Tells what of a file's header is not as the columns have it.

use std::fmt::Write;

use hashbrown::HashMap;

use crate::decode::HeaderNotes;
use crate::definition::BlankRows;
use crate::shown::shown;
use crate::source::outlet::Hand;

/// Files with one and the same thing to tell that are named; a folder of a million files tells it no million times.
const NAMED: usize = 20;

/// What was told by one reader.
#[derive(Default)]
pub(super) struct HeadersTold {
    /// By what was told: of how many files.
    notes: HashMap<String, usize>,
    /// Of how many files was said that they have rows that hold nothing.
    blank_rows: usize,
    /// Of how many files was said that nothing is in them.
    empty: usize,
}

impl HeadersTold {
    /// Warns of a file, if there is something to warn of.
    pub fn tell(&mut self, feed: &str, path: &str, notes: HeaderNotes) {
        if notes.is_empty() {
            return;
        }
        let text = told(&notes);
        // As it is told, with few of its names: a header may have hundreds of thousands.
        let files = self.notes.entry_ref(text.as_str()).or_default();
        *files += 1;
        match *files {
            ..=NAMED => tracing::warn!(feed, file = path, "the file is not as the columns are: {text}"),
            files if files == NAMED + 1 => tracing::warn!(
                feed,
                file = path,
                "the file is not as the columns are, like {NAMED} files before; more of them are not told: {text}"
            ),
            _ => (),
        }
    }
}

impl HeadersTold {
    /// Warns of a file that nothing is in, not even a header: an export that failed leaves such a one.
    pub fn tell_empty(&mut self, feed: &str, file: &str) {
        self.empty += 1;
        match self.empty {
            ..=NAMED => tracing::warn!(
                feed,
                file,
                "the file holds nothing, not even a header; if its export failed, drop it again: it is read once it holds something"
            ),
            files if files == NAMED + 1 => {
                tracing::warn!(feed, file, "the file holds nothing; more such files are not told");
            }
            _ => (),
        }
    }

    /// Says of a file how many rows of it hold nothing, if there are some, and what became of them.
    pub fn tell_blank_rows(&mut self, hand: &Hand, path: &str, rows: u64) {
        if rows == 0 || self.blank_rows > NAMED {
            return;
        }
        let (feed, file) = (hand.name(), path);
        self.blank_rows += 1;
        if self.blank_rows > NAMED {
            tracing::warn!(
                feed,
                file,
                "rows that hold nothing are not told of more files; the run's summary counts them"
            );
            return;
        }
        match hand.feed().wire.blank_rows {
            BlankRows::Keep => tracing::warn!(
                feed,
                file,
                rows,
                "rows that hold nothing but delimiters are rows of nulls; set `blank_rows = \"skip\"` to leave them out"
            ),
            BlankRows::Skip => tracing::info!(feed, file, rows, "rows that hold nothing but delimiters are left out"),
        }
    }
}

fn told(notes: &HeaderNotes) -> String {
    let mut told = String::new();
    for (names, what) in [
        (&notes.absent, "it has no field for these columns, which are null"),
        (&notes.ignored, "no column takes these fields, which are ignored"),
        (&notes.twice, "several fields have these names, and the first is taken"),
    ] {
        if names.is_empty() {
            continue;
        }
        let separator = if told.is_empty() { "" } else { "; " };
        let _ = write!(told, "{separator}{what}: ");
        for (n, name) in names.iter().take(NAMED).enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            let _ = write!(told, "{comma}{}", name_shown(name));
        }
        if names.len() > NAMED {
            let _ = write!(told, " and {} more", names.len() - NAMED);
        }
    }
    if let Some(data) = &notes.data {
        let separator = if told.is_empty() { "" } else { "; " };
        let data = shown(data);
        let _ = write!(
            told,
            "{separator}its first line is taken for the header, and looks like data: {data}; if it is, set `header = false`"
        );
    }
    told
}

/// A name with what nobody would see in it: blanks that are none, characters without a width, blanks at its ends.
fn name_shown(name: &str) -> String {
    let escaped = name
        .escape_debug()
        .to_string()
        .replace("\\\"", "\"")
        .replace("\\'", "'");
    match name.starts_with(' ') || name.ends_with(' ') {
        true => format!("\"{escaped}\""),
        false => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_would_see_in_a_name_is_shown() {
        for (name, seen) in [
            ("stra\u{df}e \"x\" 'y'", "stra\u{df}e \"x\" 'y'"),
            ("a\u{a0}", "a\\u{a0}"),
            ("a\u{200b}b", "a\\u{200b}b"),
            ("\u{feff}a", "\\u{feff}a"),
            ("a ", "\"a \""),
            ("a\u{1b}[2J", "a\\u{1b}[2J"),
        ] {
            assert_eq!(name_shown(name), seen);
        }
    }

    #[test]
    fn all_that_differs_is_told_on_one_line() {
        let notes = HeaderNotes {
            absent: vec!["x".to_string()],
            ignored: (0..23).map(|n| format!("f{n}\u{1b}[2J")).collect(),
            twice: vec!["k".to_string()],
            data: None,
        };
        let text = told(&notes);
        assert!(text.contains("which are null: x; no column takes"), "{text}");
        assert!(text.contains("f19\\u{1b}[2J and 3 more; several fields"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
