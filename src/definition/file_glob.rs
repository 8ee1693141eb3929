//! The glob of a `files` feed, split at slashes, so that a walk knows which names of a folder can lead to a match.
//!
//! A walk carries a [`GlobState`] along: the parts of the glob that may match the next name. So a folder that cannot
//! lead to a match is never entered, and a folder that is reached by several parts is entered once.

use glob::{MatchOptions, Pattern, PatternError};

/// Wildcards also match names that begin with a dot, because walks leave these out and count them.
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// The part of a glob behind its fixed part.
#[derive(Clone, Debug)]
pub struct FileGlob {
    parts: Vec<GlobPart>,
    any_case: bool,
}

#[derive(Clone, Debug)]
enum GlobPart {
    /// `**`: any number of folders; at the end, any files below.
    AnyDepth,
    /// A name without wildcards.
    Literal(String),
    /// A name with wildcards.
    Wild(Pattern),
}

/// The parts of a glob that may match the next name; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GlobState(Vec<usize>);

impl FileGlob {
    /// Splits a path into its fixed part, which is a folder, and the glob behind it: before the first part with a
    /// wildcard, or before the file's name if there is none. In the fixed part, escapes such as `[[]` are resolved.
    pub fn split(path: &str) -> (String, &str) {
        let (mut fixed, mut rest) = (Vec::new(), path);
        while let Some((part, behind)) = rest.split_once('/') {
            let Some(name) = literal(part) else { break };
            fixed.push(name);
            rest = behind;
        }
        (fixed.join("/"), rest)
    }

    /// The same glob, but case-insensitive.
    pub fn in_any_case(&self) -> FileGlob {
        FileGlob {
            any_case: true,
            ..self.clone()
        }
    }

    /// Parses the part behind the fixed part.
    ///
    /// # Errors
    /// A part is no valid pattern.
    pub fn new(rest: &str) -> Result<FileGlob, PatternError> {
        let part = |text: &str| {
            Ok(match (text, literal(text)) {
                ("**", _) => GlobPart::AnyDepth,
                (_, Some(name)) => GlobPart::Literal(name),
                (_, None) => GlobPart::Wild(Pattern::new(text)?),
            })
        };
        let named = rest.split('/').filter(|text| !text.is_empty()).map(part);
        let mut parts: Vec<GlobPart> = named.collect::<Result<_, _>>()?;
        if parts.is_empty() {
            parts.push(GlobPart::Literal(String::new())); // no file has an empty name
        }
        Ok(FileGlob { parts, any_case: false })
    }

    /// The only path that it can match, if no part has a wildcard.
    pub fn only_path(&self) -> Option<String> {
        let name = |part: &GlobPart| match part {
            GlobPart::Literal(name) => Some(name.clone()),
            _ => None,
        };
        let names: Option<Vec<String>> = self.parts.iter().map(name).collect();
        names.map(|names| names.join("/"))
    }

    /// The state in the folder that is the glob's fixed part.
    pub fn start(&self) -> GlobState {
        self.closed(vec![0])
    }

    /// The state in a subfolder with this name; none if nothing in it can match.
    pub fn enter(&self, state: &GlobState, name: &str) -> Option<GlobState> {
        let mut next = Vec::new();
        for &part in &state.0 {
            match &self.parts[part] {
                GlobPart::AnyDepth => next.push(part),
                one if part + 1 < self.parts.len() && one.matches(name, self.any_case) => next.push(part + 1),
                _ => {}
            }
        }
        (!next.is_empty()).then(|| self.closed(next))
    }

    /// Whether the glob matches a file with this name in a folder with that state.
    pub fn matches(&self, state: &GlobState, name: &str) -> bool {
        let last = self.parts.len() - 1;
        state.0.contains(&last) && self.parts[last].matches(name, self.any_case)
    }

    /// The names that can lead to a match from here, if only fixed names can.
    pub fn literals(&self, state: &GlobState) -> Option<Vec<&str>> {
        let literal = |part: &usize| match &self.parts[*part] {
            GlobPart::Literal(name) => Some(name.as_str()),
            _ => None,
        };
        state.0.iter().map(literal).collect()
    }

    /// Whether the glob matches a file with this path below the fixed part.
    pub fn names(&self, path: &[&str]) -> bool {
        let Some((file, folders)) = path.split_last() else {
            return false;
        };
        let mut state = self.start();
        for folder in folders {
            match self.enter(&state, folder) {
                Some(next) => state = next,
                None => return false,
            }
        }
        self.matches(&state, file)
    }

    /// Adds the parts behind each `**`, because that may stand for no folder at all.
    fn closed(&self, mut parts: Vec<usize>) -> GlobState {
        let mut at = 0;
        while let Some(&part) = parts.get(at) {
            let behind = part + 1;
            if matches!(self.parts.get(part), Some(GlobPart::AnyDepth))
                && behind < self.parts.len()
                && !parts.contains(&behind)
            {
                parts.push(behind);
            }
            at += 1;
        }
        parts.sort_unstable();
        parts.dedup();
        GlobState(parts)
    }
}

/// The only name that a part of a glob can match: it has no wildcards, or only characters in brackets (`[[]`, `[*]`).
/// None if it may match several names, or is no valid pattern.
pub(super) fn literal(part: &str) -> Option<String> {
    let mut name = String::with_capacity(part.len());
    let mut rest = part.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' | '?' => return None,
            '[' => {
                let (one, end) = (rest.next()?, rest.next()?);
                if one == '!' || end != ']' {
                    return None;
                }
                name.push(one);
            }
            c => name.push(c),
        }
    }
    // In brackets these would have to be names of real entries, but no folder lists `.` or `..`.
    let is_folders_own = part.starts_with('[') && matches!(name.as_str(), "." | "..");
    (!is_folders_own).then_some(name)
}

impl GlobPart {
    fn matches(&self, name: &str, any_case: bool) -> bool {
        match self {
            GlobPart::AnyDepth => true,
            GlobPart::Literal(literal) if any_case => literal.to_lowercase() == name.to_lowercase(),
            GlobPart::Literal(literal) => literal == name,
            GlobPart::Wild(pattern) => pattern.matches_with(
                name,
                MatchOptions {
                    case_sensitive: !any_case,
                    ..MATCHING
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(glob: &str, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        FileGlob::new(glob).expect("a glob").names(&path)
    }

    #[test]
    fn the_fixed_part_ends_before_the_first_wildcard() {
        for (path, fixed, rest) in [
            ("/a/b/*.csv", "/a/b", "*.csv"),
            ("/a/b-[0-9]/c/*.csv", "/a", "b-[0-9]/c/*.csv"),
            ("/a/b.csv", "/a", "b.csv"),
            ("/*.csv", "", "*.csv"),
            ("*.csv", "", "*.csv"),
            ("s3://bucket/in/**/x?.csv", "s3://bucket/in", "**/x?.csv"),
            // Escaped characters are no wildcards.
            ("/a/[[]x[]]/*.csv", "/a/[x]", "*.csv"),
            ("/a/q[?]/b[*]/c.csv", "/a/q?/b*", "c.csv"),
            ("/a/x]/{b}/*", "/a/x]/{b}", "*"),
            ("/a/[!x]/b.csv", "/a", "[!x]/b.csv"),
            ("/a/[ab]/b.csv", "/a", "[ab]/b.csv"),
            ("/a/[.][.]/b.csv", "/a", "[.][.]/b.csv"),
        ] {
            let split = FileGlob::split(path);
            assert_eq!((split.0.as_str(), split.1), (fixed, rest), "{path}");
        }
    }

    /// A folder whose name was written with brackets counted as a wildcard: links could lead out of it to its
    /// neighbours, and a missing file was reported by its pattern. `x[/]y` passed `check` and failed in the run.
    #[test]
    fn odd_but_legal_globs_name_what_they_say() {
        for (glob, path, named) in [
            ("a[[]x[]].csv", "a[x].csv", true),
            ("a[[]x[]].csv", "ax.csv", false),
            ("a[[]x].csv", "a[x].csv", true),
            ("a[]]b.csv", "a]b.csv", true),
            ("[[]*[]].csv", "[any].csv", true),
            ("[[]*[]].csv", "any.csv", false),
            ("[*].csv", "*.csv", true),
            ("[*].csv", "a.csv", false),
            ("[?]?.csv", "?x.csv", true),
            ("[!]a].csv", "b.csv", true),
            ("[!]a].csv", "].csv", false),
            ("[]-].csv", "-.csv", true),
            ("[a-c-]*.csv", "-1.csv", true),
            ("{a,b}.csv", "{a,b}.csv", true),
            ("{a,b}.csv", "a.csv", false),
            ("a\\*.csv", "a\\1.csv", true),
            ("**/[[]x[]]/*", "1/2/[x]/a", true),
        ] {
            assert_eq!(names(glob, path), named, "{glob} {path}");
        }
        let only = |glob: &str| FileGlob::new(glob).expect("a glob").only_path();
        assert_eq!(only("b/a[[]x[]].csv").as_deref(), Some("b/a[x].csv"));
        assert_eq!(only("a[xy].csv"), None);
        for glob in ["a[.csv", "a[]", "[!]", "a**.csv", "***", "x[/]y"] {
            assert!(FileGlob::new(glob).is_err(), "{glob}");
        }
    }

    #[test]
    fn two_stars_are_any_folders_or_none_and_at_the_end_any_files() {
        for (glob, path, named) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "sub/a.csv", false),
            ("**/*.csv", "a.csv", true),
            ("**/*.csv", "x/y/a.csv", true),
            ("**/*.csv", "x/y/a.txt", false),
            ("**", "a", true),
            ("**", "x/y/a", true),
            ("x/**/y/*", "x/y/a", true),
            ("x/**/y/*", "x/1/2/y/a", true),
            ("x/**/y/*", "x/1/2/a", false),
            ("**/**/a?", "q/ab", true),
            ("d=*/*.csv", "d=1/a.csv", true),
            ("one.csv", "one.csv", true),
            ("one.csv", "two.csv", false),
        ] {
            assert_eq!(names(glob, path), named, "{glob} {path}");
        }
    }

    #[test]
    fn a_folder_that_cannot_lead_to_a_match_is_not_entered() {
        let glob = FileGlob::new("d=*/in/*.csv").expect("a glob");
        let start = glob.start();
        assert!(glob.enter(&start, "e=1").is_none());
        let below = glob.enter(&start, "d=1").expect("it matches");
        assert_eq!(glob.literals(&below), Some(vec!["in"]));
        assert!(glob.enter(&below, "out").is_none());
        assert!(
            glob.enter(&glob.enter(&below, "in").expect("it matches"), "a.csv")
                .is_none()
        );
    }
}
