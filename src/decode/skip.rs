//! Skips records on request: their changes are dropped, and they become dead letters with their bytes.
//!
//! A record may trigger a bug behind the decoders: a panic in an operator ends the run, and every later run that
//! reads the record. `run --skip` names such a record, and its dead letter keeps it skipped: whenever records are
//! decoded again, those that have such a dead letter ([`REASON`]) in their snapshot are skipped, so that restarts,
//! replays of Bronze and audits agree.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::decode::decoded::{Decoded, Reject};

/// The reason of their dead letters, by which these are recognised.
pub const REASON: &str = "skipped by run --skip";

/// Records of one partition, written as `INPUT.FEED:PARTITION:OFFSET` or `INPUT.FEED:PARTITION:FIRST-LAST`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The input's name.
    pub input: String,
    /// The feed's name.
    pub feed: String,
    /// The partition, as Bronze and dead letters name it.
    pub partition: String,
    /// The offsets, both ends included.
    pub offsets: RangeInclusive<u64>,
}

impl FromStr for Skip {
    type Err = String;

    fn from_str(text: &str) -> Result<Skip, String> {
        let form = "write INPUT.FEED:PARTITION:OFFSET or INPUT.FEED:PARTITION:FIRST-LAST, as a fault or a dead letter names them";
        let parts = || {
            // A partition's name may contain colons.
            let (place, rest) = text.split_once(':')?;
            let (partition, offsets) = rest.rsplit_once(':')?;
            let (input, feed) = place.split_once('.')?;
            let named = [input, feed, partition].iter().all(|name| !name.is_empty());
            named.then_some((input, feed, partition, offsets))
        };
        let (input, feed, partition, offsets) = parts().ok_or(form)?;
        let (first, last) = offsets.split_once('-').unwrap_or((offsets, offsets));
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("{offsets:?} is no offset: {form}"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("the range {offsets} is empty: its first offset comes first"));
        }
        Ok(Skip {
            input: input.to_string(),
            feed: feed.to_string(),
            partition: partition.to_string(),
            offsets: first..=last,
        })
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Skip {
            input,
            feed,
            partition,
            offsets,
        } = self;
        write!(f, "{input}.{feed}:{partition}:{}", offsets.start())?;
        match offsets.start() == offsets.end() {
            true => Ok(()),
            false => write!(f, "-{}", offsets.end()),
        }
    }
}

/// The records to skip, by feed (`input.feed`) and partition.
#[derive(Clone, Debug, Default)]
pub struct Skips(BTreeMap<String, BTreeMap<String, Vec<RangeInclusive<u64>>>>);

impl FromIterator<Skip> for Skips {
    fn from_iter<I: IntoIterator<Item = Skip>>(skips: I) -> Skips {
        let mut all = Skips::default();
        for Skip {
            input,
            feed,
            partition,
            offsets,
        } in skips
        {
            let of_feed = all.0.entry(format!("{input}.{feed}")).or_default();
            of_feed.entry(partition).or_default().push(offsets);
        }
        all
    }
}

impl Skips {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops the changes of records that are to be skipped; returns the number of these records. Applying it again
    /// has no further effect.
    pub fn apply(&self, (input, feed): (&str, &str), partition: &str, decoded: &mut Decoded) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let of_feed = self.0.get(&format!("{input}.{feed}"));
        let Some(ranges) = of_feed.and_then(|of_feed| of_feed.get(partition)) else {
            return 0;
        };
        let offsets = &decoded.raw.offsets;
        let skipped: Vec<bool> = offsets
            .iter()
            .map(|offset| ranges.iter().any(|range| range.contains(offset)))
            .collect();
        let count = skipped.iter().filter(|skipped| **skipped).count() as u64;
        if count == 0 {
            return 0;
        }
        let mask: Vec<bool> = decoded.record.iter().map(|record| !skipped[*record as usize]).collect();
        decoded.keep(&mask);
        decoded
            .rejects
            .retain(|reject| reject.record.is_none_or(|record| !skipped[record as usize]));
        let skipped = (0..).zip(&skipped).filter(|(_, skipped)| **skipped);
        decoded.rejects.extend(skipped.map(|(record, _)| Reject {
            record: Some(record),
            reason: REASON.to_string(),
        }));
        count
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};

    use super::*;
    use crate::decode::decoded::{ChangeOp, FilePlace, Payloads, Raw};

    #[test]
    fn a_skip_is_read_as_it_is_written() {
        for (text, offsets) in [
            ("orders.drops:a.csv:17", 17..=17),
            ("orders.a.b:backfill:00ff-12/a:b.csv:0-99", 0..=99),
            ("orders.live:topic/3:5-5", 5..=5),
        ] {
            let skip: Skip = text.parse().unwrap();
            assert_eq!(skip.offsets, offsets);
            let canonical = if text.ends_with(":5-5") {
                "orders.live:topic/3:5"
            } else {
                text
            };
            assert_eq!(skip.to_string(), canonical);
        }
        let skip: Skip = "orders.a.b:backfill:00ff-12/a:b.csv:0-99".parse().unwrap();
        assert_eq!(
            (skip.feed.as_str(), skip.partition.as_str()),
            ("a.b", "backfill:00ff-12/a:b.csv")
        );
        for wrong in [
            "",
            "orders",
            "orders.drops",
            "orders.drops:17",
            "orders:a.csv:17",
            ".drops:a:1",
            "o.d::1",
            "o.d:a:x",
            "o.d:a:-1",
            "o.d:a:9-1",
            "o.d:a:1-99999999999999999999",
        ] {
            assert!(wrong.parse::<Skip>().is_err(), "{wrong}");
        }
    }

    /// Records at offsets 10, 20, 30, 40; the second is refused, the third has two changes.
    fn decoded() -> Decoded {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 3, 33, 4]));
        Decoded {
            raw: Raw {
                payloads: Payloads::Records {
                    values: BinaryArray::from_vec(vec![b"one", b"no", b"three", b"four"]),
                    keys: None,
                    headers: None,
                    ts_ms: vec![None; 4],
                },
                offsets: vec![10, 20, 30, 40],
                header: None,
                cut: vec![],
                place: FilePlace::default(),
            },
            rows: RecordBatch::try_from_iter([("id", ids)]).unwrap(),
            ops: vec![ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Upsert, ChangeOp::Upsert],
            record: vec![0, 2, 2, 3],
            source_ms: vec![None; 4],
            rejects: vec![Reject {
                record: Some(1),
                reason: "it is no number".to_string(),
            }],
            ignored_fields: vec![],
            unchanged: vec![(0, 0), (2, 0), (3, 0)],
            transactions: vec![],
        }
    }

    #[test]
    fn skipped_records_change_nothing_and_are_refused_however_often() {
        let skips: Skips = ["i.f:p:15-30", "i.f:q:10", "j.f:p:10"]
            .map(|text| text.parse().unwrap())
            .into_iter()
            .collect();
        let mut records = decoded();
        for _ in 0..2 {
            assert_eq!(skips.apply(("i", "f"), "p", &mut records), 2);
            assert_eq!(records.record, [0, 3]);
            assert_eq!(records.rows.num_rows(), 2);
            assert_eq!(records.ops, [ChangeOp::Upsert, ChangeOp::Upsert]);
            assert_eq!(records.unchanged, [(0, 0), (1, 0)]);
            let rejects: Vec<_> = records.rejects.iter().map(|r| (r.record, r.reason.as_str())).collect();
            assert_eq!(rejects, [(Some(1), REASON), (Some(2), REASON)]);
            assert_eq!(records.raw.offsets.len(), 4, "Bronze keeps them all");
        }
        let mut others = decoded();
        for (feed, partition) in [(("i", "g"), "p"), (("i", "f"), "r"), (("k", "f"), "p")] {
            assert_eq!(skips.apply(feed, partition, &mut others), 0);
        }
        assert_eq!(others.record.len(), 4);
    }
}
