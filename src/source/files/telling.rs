//! What is said of listings: each thing once, and again when it has passed and comes anew. Plain state, no I/O.

use std::collections::BTreeSet;

use super::listing::{Listing, Place};
use super::walk::{LeftOut, WhyLeftOut};
use crate::shown::shown_path;
use crate::source::guard::ALLOW_LINKS;

/// How many things of one listing are named.
const NAMED: usize = 10;

/// What was said already.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// Left out by the last listing.
    left_out: BTreeSet<LeftOut>,
    of_hidden: bool,
    of_nothing: bool,
}

/// What is to be said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sayings {
    /// Somebody may have to do something.
    pub warnings: Vec<String>,
    /// What was warned of has passed.
    pub passed: Vec<String>,
}

impl Telling {
    /// Takes in a listing of a place; `nothing` says why nothing is there, and is asked only where that is to be said.
    pub fn observe(&mut self, listing: &Listing, place: &Place, nothing: impl FnOnce() -> String) -> Sayings {
        let left_out: BTreeSet<LeftOut> = listing.left_out.iter().cloned().collect();
        let is_fault = |left: &&LeftOut| matches!(left.why, WhyLeftOut::Unreadable(_));
        let mut said = Sayings {
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
        if listing.files.is_empty() && !std::mem::replace(&mut self.of_nothing, true) {
            said.warnings.push(nothing());
        }
        said
    }
}

fn text(left: &LeftOut, place: &Place) -> String {
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
        WhyLeftOut::Special(kind) => format!("{path} is {kind}, not a file, and is left out"),
        WhyLeftOut::Lake => {
            format!("{path} holds the lake's own files, which are left out; narrow the feed's path, or move the lake")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::FileGlob;

    fn place() -> Place {
        Place::Local {
            folder: "/in".into(),
            glob: FileGlob::new("**/*.csv").expect("a glob"),
            follow_links: false,
            lake: None,
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
        let (mut telling, place) = (Telling::default(), place());
        let mut observe = |listing: &Listing| telling.observe(listing, &place, || "nothing is there".into());
        let first = observe(&listing(&["a\nb"]));
        assert!(first.warnings[0].starts_with("/in/a\\nb cannot be read: permission denied"));
        assert_eq!(first.warnings[1..], ["nothing is there"]);
        assert_eq!(observe(&listing(&["a\nb"])), Sayings::default());
        assert_eq!(observe(&listing(&[])).passed, ["/in/a\\nb can be read again"]);
        assert_eq!(observe(&listing(&["a\nb"])).warnings.len(), 1);
    }

    #[test]
    fn many_things_at_once_are_counted() {
        let names: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let said = Telling::default().observe(&listing(&names), &place(), String::new);
        assert_eq!(said.warnings.len(), NAMED + 2);
        assert_eq!(said.warnings[NAMED], "40 more are left out for such reasons");
    }
}
