//! The glob of a files feed, taken apart at its slashes: which names of a folder can lead to a file that it names.
//!
//! A walk through folders carries a [`GlobState`] along: the parts that may match the next name. So a folder that cannot
//! lead to a match is never entered, and one that several parts lead to is entered once.

use glob::{MatchOptions, Pattern, PatternError};

/// Names that begin with a dot are left out by whoever walks, and counted; so wildcards match them.
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// What stands behind a glob's fixed part.
#[derive(Clone, Debug)]
pub struct FileGlob {
    parts: Vec<GlobPart>,
}

#[derive(Clone, Debug)]
enum GlobPart {
    /// `**`: any folders, or none; at the end any files below.
    AnyDepth,
    /// A name without wildcards.
    Literal(String),
    /// A name with some.
    Wild(Pattern),
}

/// Which parts of a glob may match the next name; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GlobState(Vec<usize>);

impl FileGlob {
    /// Splits a path before the first part that holds a wildcard; without one, before the file's name.
    pub fn split(path: &str) -> (&str, &str) {
        let wild = path.find(['*', '?', '[']).unwrap_or(path.len());
        match path[..wild].rfind('/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => ("", path),
        }
    }

    /// Takes apart what stands behind the fixed part.
    ///
    /// # Errors
    /// A part that is no pattern.
    pub fn new(rest: &str) -> Result<FileGlob, PatternError> {
        let part = |text: &str| {
            Ok(match text {
                "**" => GlobPart::AnyDepth,
                text if text.contains(['*', '?', '[']) => GlobPart::Wild(Pattern::new(text)?),
                text => GlobPart::Literal(text.to_string()),
            })
        };
        let named = rest.split('/').filter(|text| !text.is_empty()).map(part);
        let mut parts: Vec<GlobPart> = named.collect::<Result<_, _>>()?;
        if parts.is_empty() {
            parts.push(GlobPart::Literal(String::new())); // which no file is called
        }
        Ok(FileGlob { parts })
    }

    /// Whether no part holds a wildcard.
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, GlobPart::Literal(_)))
    }

    /// At the folder that is the glob's fixed part.
    pub fn start(&self) -> GlobState {
        self.closed(vec![0])
    }

    /// In a folder of this name within one of that state; none: nothing in it can match.
    pub fn enter(&self, state: &GlobState, name: &str) -> Option<GlobState> {
        let mut next = Vec::new();
        for &part in &state.0 {
            match &self.parts[part] {
                GlobPart::AnyDepth => next.push(part),
                one if part + 1 < self.parts.len() && one.matches(name) => next.push(part + 1),
                _ => {}
            }
        }
        (!next.is_empty()).then(|| self.closed(next))
    }

    /// Whether a file of this name in a folder of that state is one that the glob names.
    pub fn matches(&self, state: &GlobState, name: &str) -> bool {
        let last = self.parts.len() - 1;
        state.0.contains(&last) && self.parts[last].matches(name)
    }

    /// The names that can lead to a match from here, where none but these can.
    pub fn literals(&self, state: &GlobState) -> Option<Vec<&str>> {
        let literal = |part: &usize| match &self.parts[*part] {
            GlobPart::Literal(name) => Some(name.as_str()),
            _ => None,
        };
        state.0.iter().map(literal).collect()
    }

    /// Whether a file of this path below the fixed part is one that the glob names.
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

    /// With the parts behind each `**`, which may stand for no folder at all.
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

impl GlobPart {
    fn matches(&self, name: &str) -> bool {
        match self {
            GlobPart::AnyDepth => true,
            GlobPart::Literal(literal) => literal == name,
            GlobPart::Wild(pattern) => pattern.matches_with(name, MATCHING),
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
        assert_eq!(FileGlob::split("/a/b/*.csv"), ("/a/b", "*.csv"));
        assert_eq!(FileGlob::split("/a/b-[0-9]/c/*.csv"), ("/a", "b-[0-9]/c/*.csv"));
        assert_eq!(FileGlob::split("/a/b.csv"), ("/a", "b.csv"));
        assert_eq!(
            FileGlob::split("s3://bucket/in/**/x?.csv"),
            ("s3://bucket/in", "**/x?.csv")
        );
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
