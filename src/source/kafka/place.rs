//! Where a partition is read from: decides, asks nobody.

use crate::definition::OnMissing;

/// What is known of a partition when it is found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The next record to read by the last snapshot.
    pub next: Option<u64>,
    /// The first offset that the topic still has.
    pub first: u64,
    /// The one behind its last.
    pub end: u64,
}

/// Where it is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// No snapshot knows it: wherever the definition says.
    Start,
    /// From here.
    At(u64),
    /// From here, and this many offsets before it are gone.
    Behind(u64, u64),
    /// Nowhere: this many offsets are gone.
    Missing(u64),
    /// Nowhere: the topic ends before the next record, so it is another topic than the one that was read.
    Ends,
}

/// Decides.
pub fn place(found: Found, on_missing: OnMissing) -> Place {
    let Some(next) = found.next else {
        return Place::Start;
    };
    if next > found.end {
        return Place::Ends;
    }
    match (found.first.checked_sub(next), on_missing) {
        (None | Some(0), _) => Place::At(next),
        (Some(missing), OnMissing::Stop) => Place::Missing(missing),
        (Some(missing), OnMissing::Earliest) => Place::Behind(found.first, missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_topic_has_no_more_is_never_passed_over_in_silence() {
        let of = |next, on_missing| {
            let found = Found {
                next,
                first: 10,
                end: 20,
            };
            place(found, on_missing)
        };
        assert_eq!(of(None, OnMissing::Stop), Place::Start);
        assert_eq!(of(Some(10), OnMissing::Stop), Place::At(10));
        assert_eq!(of(Some(20), OnMissing::Stop), Place::At(20), "all read");
        assert_eq!(of(Some(7), OnMissing::Stop), Place::Missing(3));
        assert_eq!(of(Some(7), OnMissing::Earliest), Place::Behind(10, 3));
        assert_eq!(of(Some(21), OnMissing::Earliest), Place::Ends);
    }
}
