//! Warns of differences between a file's header and the input's columns.

use std::fmt::Write;

use hashbrown::HashMap;

use crate::decode::HeaderNotes;
use crate::definition::BlankRows;
use crate::shown::shown;
use crate::source::feed_handle::FeedHandle;

/// How many files with the same warning are named; a folder of a million files must not give a million warnings.
const NAMED: usize = 20;

/// The warnings that one reader has issued.
#[derive(Default)]
pub(super) struct HeaderNotices {
    /// For each text of a warning, the number of files.
    notes: HashMap<String, usize>,
    /// The number of files that were reported to have blank rows.
    blank_rows: usize,
    /// The number of files that were reported as empty.
    empty: usize,
}

impl HeaderNotices {
    /// Warns of a file's differences, if there are any.
    pub fn warn(&mut self, feed: &str, path: &str, notes: HeaderNotes) {
        if notes.is_empty() {
            return;
        }
        let text = describe(&notes);
        // The shortened text is the key, because a header may have hundreds of thousands of names.
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

impl HeaderNotices {
    /// Warns of a file that is completely empty, without even a header: a failed export leaves such a file.
    pub fn warn_empty(&mut self, feed: &str, file: &str) {
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

    /// Reports how many rows of a file are blank, if any, and what was done with them.
    pub fn report_blank_rows(&mut self, handle: &FeedHandle, path: &str, rows: u64) {
        if rows == 0 || self.blank_rows > NAMED {
            return;
        }
        let (feed, file) = (handle.name(), path);
        self.blank_rows += 1;
        if self.blank_rows > NAMED {
            tracing::warn!(
                feed,
                file,
                "rows that hold nothing are not told of more files; the run's summary counts them"
            );
            return;
        }
        match handle.feed().wire.blank_rows {
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

fn describe(notes: &HeaderNotes) -> String {
    let mut text = String::new();
    for (names, what) in [
        (&notes.absent, "it has no field for these columns, which are null"),
        (&notes.ignored, "no column takes these fields, which are ignored"),
        (&notes.twice, "several fields have these names, and the first is taken"),
    ] {
        if names.is_empty() {
            continue;
        }
        let separator = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{separator}{what}: ");
        for (n, name) in names.iter().take(NAMED).enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{}", name_shown(name));
        }
        if names.len() > NAMED {
            let _ = write!(text, " and {} more", names.len() - NAMED);
        }
    }
    if let Some(data) = &notes.data {
        let separator = if text.is_empty() { "" } else { "; " };
        let data = shown(data);
        let _ = write!(
            text,
            "{separator}its first line is taken for the header, and looks like data: {data}; if it is, set `header = false`"
        );
    }
    text
}

/// Makes invisible parts of a name visible: unusual blanks, zero-width characters, blanks at its ends.
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
        let text = describe(&notes);
        assert!(text.contains("which are null: x; no column takes"), "{text}");
        assert!(text.contains("f19\\u{1b}[2J and 3 more; several fields"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
