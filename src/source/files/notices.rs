//! Decides what to report of listings: each condition once, and again if it has ended and recurs. Plain state, no
//! I/O.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::listing::{GlobLocation, ListedFile, Listing};
use super::walk::{LeftOut, WhyLeftOut};
use crate::shown::shown_path;
use crate::source::guard::ALLOW_LINKS;

/// How many paths are named for one listing.
const NAMED: usize = 10;
/// How long a file that is named as unfinished may be unchanged before it is reported.
const UNFINISHED_PATIENCE: Duration = Duration::from_secs(60);

/// What was reported already.
#[derive(Debug, Default)]
pub(crate) struct ListingNotices {
    /// What the newest listing left out.
    left_out: BTreeSet<LeftOut>,
    of_hidden: bool,
    of_case: bool,
    of_unfinished: bool,
    of_order: bool,
    of_nothing: bool,
}

/// The circumstances that decide which conditions of a listing are reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListingContext {
    pub now: SystemTime,
    /// Whether the order in which files are read decides which version of a row counts.
    pub order_decides: bool,
    /// Whether to warn if no file exists.
    pub nothing_is_odd: bool,
}

/// What is to be reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ListingMessages {
    /// Conditions that may need somebody's action.
    pub warnings: Vec<String>,
    /// Earlier warnings that no longer apply.
    pub passed: Vec<String>,
}

impl ListingNotices {
    /// Processes a listing of a location. `nothing` explains why no file exists, and is only called if that is
    /// reported.
    pub fn observe(
        &mut self,
        listing: &Listing,
        place: &GlobLocation,
        occasion: ListingContext,
        nothing: impl FnOnce() -> String,
    ) -> ListingMessages {
        let left_out: BTreeSet<LeftOut> = listing.left_out.iter().cloned().collect();
        let is_fault = |left: &&LeftOut| matches!(left.why, WhyLeftOut::Unreadable(_));
        let mut said = ListingMessages {
            warnings: left_out
                .difference(&self.left_out)
                .map(|left| text(left, place))
                .collect(),
            passed: self
                .left_out
                .difference(&left_out)
                .filter(is_fault)
                .map(|left| format!("{} can be read again", place.shown_below(&left.path)))
                .collect(),
        };
        let more = said.warnings.len().saturating_sub(NAMED);
        if more > 0 {
            said.warnings.truncate(NAMED);
            said.warnings.push(format!("{more} more are left out for such reasons"));
        }
        self.left_out = left_out;
        if let Some((count, first)) = &listing.hidden
            && !std::mem::replace(&mut self.of_hidden, true)
        {
            said.warnings.push(format!(
                "{count} of the names begin with _ or . and are left out, such as {}; rename what is to be read",
                place.shown_below(first)
            ));
        }
        if let Some((count, first)) = &listing.other_case
            && !std::mem::replace(&mut self.of_case, true)
        {
            said.warnings.push(format!(
                "{count} of the names differ from the feed's path in the case of letters alone and are left out, such as {}; rename \
                 what is to be read, or write both cases, as in *.[cC][sS][vV]",
                place.shown_below(first)
            ));
        }
        if let Some((modified, path)) = &listing.unfinished
            && occasion.now.duration_since(*modified).unwrap_or_default() >= UNFINISHED_PATIENCE
            && !std::mem::replace(&mut self.of_unfinished, true)
        {
            said.warnings.push(format!(
                "{} is called like a file that is still written, and is left out; nobody has written to it for a minute: \
                 rename it if it is whole",
                place.shown_below(path)
            ));
        }
        if occasion.order_decides
            && let Some((first, second)) = out_of_number(&listing.files)
            && !std::mem::replace(&mut self.of_order, true)
        {
            said.warnings.push(format!(
                "files are read in the order of their names, by which {} comes before {}, and that order decides which row \
                 of a key counts; write the numbers with leading zeros, or, where the input has a key, set order_by",
                place.shown(&first.partition),
                place.shown(&second.partition)
            ));
        }
        if listing.files.is_empty() && occasion.nothing_is_odd && !std::mem::replace(&mut self.of_nothing, true) {
            said.warnings.push(nothing());
        }
        said
    }
}

fn text(left: &LeftOut, place: &GlobLocation) -> String {
    let path = place.shown_below(&left.path);
    match &left.why {
        WhyLeftOut::Unreadable(reason) => {
            format!("{path} cannot be read: {reason}; what is in it waits until that is mended, and the rest is read")
        }
        WhyLeftOut::LeadsOut(target) => format!(
            "link {path} leads out of the feed's folder, to {}, and is left out; {ALLOW_LINKS}",
            shown_path(target)
        ),
        WhyLeftOut::LeadsUp(target) => {
            format!(
                "link {path} leads up to {}, which holds it, and is left out",
                shown_path(target)
            )
        }
        WhyLeftOut::LeadsNowhere(reason) => format!("link {path} leads nowhere and is left out: {reason}"),
        WhyLeftOut::TooLong => format!(
            "{} has a path of more than {} bytes, which the system does not open, and is left out with what is in it; move it up, or \
             shorten the names of its folders",
            shortened(&path),
            libc::PATH_MAX - 1
        ),
        WhyLeftOut::Special(kind) => format!("{path} is {kind}, not a file, and is left out"),
        WhyLeftOut::Lake => {
            format!("{path} holds the lake's own files, which are left out; narrow the feed's path, or move the lake")
        }
    }
}

/// A path shortened to its beginning and end.
fn shortened(path: &str) -> String {
    const SHOWN: usize = 120;
    let from_end = path.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
    match path.char_indices().nth(SHOWN) {
        Some((end, _)) if end < from_end => format!("{}...{}", &path[..end], &path[from_end..]),
        _ => path.to_string(),
    }
}

/// The first two neighbours in the order of names whose numbers are in the opposite order, such as `export_10.csv`
/// before `export_9.csv`.
fn out_of_number(files: &[ListedFile]) -> Option<(&ListedFile, &ListedFile)> {
    let pairs = files.windows(2).map(|pair| (&pair[0], &pair[1]));
    let mut out = pairs.filter(|(first, second)| {
        let (first, second) = (first.partition.as_bytes(), second.partition.as_bytes());
        let same = first.iter().zip(second).take_while(|(a, b)| a == b).count();
        let digits = first[..same]
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        match (number_at(first, same - digits), number_at(second, same - digits)) {
            (Some(first), Some(second)) => (first.len(), first) > (second.len(), second),
            _ => false,
        }
    });
    out.next()
}

/// The digits at an index, without leading zeros; none if a letter follows them, because they may be part of a hash.
fn number_at(name: &[u8], from: usize) -> Option<&[u8]> {
    let digits = name[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, behind) = name[from..].split_at(digits);
    let is_number = digits > 0 && !behind.first().is_some_and(u8::is_ascii_alphabetic);
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    is_number.then_some(&number[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::FileGlob;

    const OCCASION: ListingContext = ListingContext {
        now: SystemTime::UNIX_EPOCH,
        order_decides: true,
        nothing_is_odd: true,
    };

    fn place() -> GlobLocation {
        GlobLocation::Local {
            folder: "/in".into(),
            glob: FileGlob::new("**/*.csv").expect("a glob"),
            follow_links: false,
            lake: None,
            vetting: None,
        }
    }

    fn listing(unreadable: &[&str]) -> Listing {
        let left_out = |path: &&str| LeftOut {
            path: path.into(),
            why: WhyLeftOut::Unreadable("permission denied".into()),
        };
        Listing {
            is_there: true,
            left_out: unreadable.iter().map(left_out).collect(),
            ..Listing::default()
        }
    }

    #[test]
    fn each_thing_is_said_once_and_again_when_it_comes_anew() {
        let (mut telling, place) = (ListingNotices::default(), place());
        let mut observe = |listing: &Listing| telling.observe(listing, &place, OCCASION, || "nothing is there".into());
        let first = observe(&listing(&["a\nb"]));
        assert!(first.warnings[0].starts_with("/in/a\\nb cannot be read: permission denied"));
        assert_eq!(first.warnings[1..], ["nothing is there"]);
        assert_eq!(observe(&listing(&["a\nb"])), ListingMessages::default());
        assert_eq!(observe(&listing(&[])).passed, ["/in/a\\nb can be read again"]);
        assert_eq!(observe(&listing(&["a\nb"])).warnings.len(), 1);
    }

    #[test]
    fn names_in_another_case_are_said_once_with_their_number_and_the_first() {
        let (mut telling, place) = (ListingNotices::default(), place());
        let mut listing = listing(&[]);
        listing.other_case = Some((3, "X.CSV".into()));
        let mut observe = || {
            telling
                .observe(&listing, &place, OCCASION, || "nothing".into())
                .warnings
        };
        let said = observe();
        assert!(
            said[0].starts_with("3 of the names differ from the feed's path in the case of letters alone"),
            "{said:?}"
        );
        assert!(said[0].contains("such as /in/X.CSV;"), "{said:?}");
        assert_eq!(observe(), [""; 0]);
    }

    #[test]
    fn many_things_at_once_are_counted() {
        let names: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let said = ListingNotices::default().observe(&listing(&names), &place(), OCCASION, String::new);
        assert_eq!(said.warnings.len(), NAMED + 2);
        assert_eq!(said.warnings[NAMED], "40 more are left out for such reasons");
    }

    #[test]
    fn an_unfinished_file_that_is_left_alone_is_said_once() {
        let (mut telling, place) = (ListingNotices::default(), place());
        let mut listing = listing(&[]);
        listing.unfinished = Some((SystemTime::UNIX_EPOCH, "a.csv.tmp".into()));
        let mut observe = |seconds: u64| {
            let occasion = ListingContext {
                now: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
                ..OCCASION
            };
            telling
                .observe(&listing, &place, occasion, || "nothing".into())
                .warnings
        };
        assert_eq!(observe(59), ["nothing"]);
        assert!(observe(60)[0].starts_with("/in/a.csv.tmp is called like a file that is still written"));
        assert_eq!(observe(61), [""; 0]);
    }

    #[test]
    fn numbers_whose_order_is_not_that_of_their_names_are_said_where_order_decides() {
        let found = |name: &str| ListedFile {
            partition: name.into(),
            size: 1,
            tag: "1".into(),
            modified: SystemTime::UNIX_EPOCH,
        };
        let said = |names: &[&str], order_decides: bool| {
            let listing = Listing {
                files: names.iter().map(|name| found(name)).collect(),
                ..listing(&[])
            };
            let occasion = ListingContext {
                order_decides,
                ..OCCASION
            };
            ListingNotices::default()
                .observe(&listing, &place(), occasion, String::new)
                .warnings
        };
        let exports = ["export_1.csv", "export_10.csv", "export_11.csv", "export_9.csv"];
        assert!(said(&exports, true)[0].contains("/in/export_11.csv comes before /in/export_9.csv"));
        assert_eq!(said(&exports, false), [""; 0]);
        assert_eq!(said(&["2024-10-01/a", "2024-9-01/a"], true).len(), 1);
        for in_order in [
            ["export_009.csv", "export_010.csv"],
            ["export_9.csv", "part_10.csv"],
            ["part-0-12ab.csv", "part-0-1c2b.csv"],
            ["a.csv", "a1.csv"],
            ["a07.csv", "a7.csv"],
        ] {
            assert_eq!(said(&in_order, true), [""; 0], "{in_order:?}");
        }
    }
}
