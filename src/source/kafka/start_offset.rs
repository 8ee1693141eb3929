//! Decides where reading of a partition starts; pure, without I/O.

use crate::definition::OnMissing;

/// What is known of a partition when it is discovered.
#[derive(Clone, Copy, Debug)]
pub struct PartitionOffsets {
    /// The next record to read according to the newest snapshot, if that knows the partition.
    pub next: Option<u64>,
    /// The first offset that the topic still has.
    pub first: u64,
    /// The end offset, behind the last record.
    pub end: u64,
}

/// The decision where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOffset {
    /// No snapshot knows the partition: start where the definition says.
    Start,
    /// Start at this offset.
    At(u64),
    /// Start at the first offset; the second number of offsets before it is lost.
    Behind(u64, u64),
    /// Do not start: this number of offsets is lost.
    Missing(u64),
    /// Do not start: the topic ends before the next record, so it is not the topic that was read.
    Ends,
}

/// Decides where to start.
pub fn place(offsets: PartitionOffsets, on_missing: OnMissing) -> StartOffset {
    let Some(next) = offsets.next else {
        return StartOffset::Start;
    };
    if next > offsets.end {
        return StartOffset::Ends;
    }
    match (offsets.first.checked_sub(next), on_missing) {
        (None | Some(0), _) => StartOffset::At(next),
        (Some(missing), OnMissing::Stop) => StartOffset::Missing(missing),
        (Some(missing), OnMissing::Earliest) => StartOffset::Behind(offsets.first, missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_topic_has_no_more_is_never_passed_over_in_silence() {
        let of = |next, on_missing| {
            let offsets = PartitionOffsets {
                next,
                first: 10,
                end: 20,
            };
            place(offsets, on_missing)
        };
        assert_eq!(of(None, OnMissing::Stop), StartOffset::Start);
        assert_eq!(of(Some(10), OnMissing::Stop), StartOffset::At(10));
        assert_eq!(of(Some(20), OnMissing::Stop), StartOffset::At(20), "all read");
        assert_eq!(of(Some(7), OnMissing::Stop), StartOffset::Missing(3));
        assert_eq!(of(Some(7), OnMissing::Earliest), StartOffset::Behind(10, 3));
        assert_eq!(of(Some(21), OnMissing::Earliest), StartOffset::Ends);
    }
}
