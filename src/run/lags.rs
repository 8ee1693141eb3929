//! Reports on feeds as text: what each has read, and which of its partitions are behind.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use crate::latency::short;
use crate::source::{FeedStatus, PartitionLag};

/// How many partitions of a feed are named, those furthest behind first.
const SHOWN: usize = 10;

/// The status of one feed, summed over all processes.
#[derive(Default)]
struct Sum<'a> {
    records: u64,
    requests: u64,
    refused: u64,
    missing: u64,
    lag_files: u64,
    lag_bytes: u64,
    partitions: Vec<&'a PartitionLag>,
    last_error: Option<&'a str>,
    waits_for: Option<&'a str>,
}

/// One line for each feed and one for each of its partitions that lag most. `feeds` comes from all processes.
pub fn report(feeds: &[FeedStatus]) -> String {
    let mut sums: BTreeMap<(&str, &str), Sum<'_>> = BTreeMap::new();
    for feed in feeds {
        let sum = sums.entry((&feed.input, &feed.feed)).or_default();
        sum.records += feed.records;
        sum.requests += feed.requests;
        sum.refused += feed.refused;
        sum.missing += feed.missing;
        sum.lag_files += feed.lag_files;
        sum.lag_bytes += feed.lag_bytes;
        sum.partitions.extend(&feed.partitions);
        sum.last_error = sum.last_error.or(feed.last_error.as_deref());
        sum.waits_for = sum.waits_for.or(feed.waits_for.as_deref());
    }
    let mut text = String::from("feeds");
    for ((input, feed), sum) in sums {
        let _ = write!(text, "\nfeed {input}.{feed}: {}", sum.line());
        let _ = sum.write_partitions(&mut text);
    }
    text
}

/// The feeds that wait, each with its cause. A feed is listed once, even if it waits in several processes.
pub fn waiting(feeds: &[FeedStatus]) -> Vec<String> {
    let cause = |feed: &FeedStatus| {
        let cause = feed.waits_for.as_ref()?;
        Some(format!("feed {}.{}: {cause}", feed.input, feed.feed))
    };
    let mut waiting: Vec<String> = feeds.iter().filter_map(cause).collect();
    waiting.sort();
    waiting.dedup();
    waiting
}

impl Sum<'_> {
    fn line(&self) -> String {
        let counted = |count: u64, what: &str| (count > 0).then(|| format!("{} {what}", HumanCount(count)));
        let behind: u64 = self.partitions.iter().map(|partition| partition.records).sum();
        let records = format!("{} records", HumanCount(self.records));
        let bytes = (self.lag_bytes > 0).then(|| format!("{} to read", HumanBytes(self.lag_bytes)));
        let parts = [
            Some(records),
            counted(self.requests, "requests"),
            counted(self.refused, "refused"),
            counted(self.missing, "missing"),
            counted(self.lag_files, "files to read"),
            bytes,
            counted(behind, "records behind"),
            self.waits_for.map(|cause| format!("waits: {cause}")),
            self.last_error
                .filter(|_| self.waits_for.is_none())
                .map(|error| format!("last trouble: {error}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn write_partitions(&self, text: &mut String) -> std::fmt::Result {
        let mut behind: Vec<&&PartitionLag> = self
            .partitions
            .iter()
            .filter(|partition| partition.records > 0)
            .collect();
        behind.sort_by(|a, b| b.records.cmp(&a.records).then_with(|| a.partition.cmp(&b.partition)));
        let width = behind
            .iter()
            .take(SHOWN)
            .map(|p| p.partition.chars().count())
            .max()
            .unwrap_or(0);
        for partition in behind.iter().take(SHOWN) {
            let PartitionLag {
                partition,
                records,
                age_ms,
                ..
            } = partition;
            write!(
                text,
                "\n  {partition:width$} {:>13} records behind",
                HumanCount(*records).to_string()
            )?;
            if let Some(age) = age_ms {
                write!(
                    text,
                    ", the newest that was read is {} old",
                    short(Duration::from_millis(*age))
                )?;
            }
        }
        if let Some(more @ [_, ..]) = behind.get(SHOWN..) {
            let records: u64 = more.iter().map(|partition| partition.records).sum();
            write!(text, "\n  and {} more, {} records", more.len(), HumanCount(records))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(input: &str, name: &str, partitions: Vec<PartitionLag>) -> FeedStatus {
        FeedStatus {
            input: input.into(),
            feed: name.into(),
            records: 1200,
            bytes: 0,
            files_done: 0,
            lag_files: 0,
            lag_bytes: 0,
            partitions,
            missing: 0,
            requests: 0,
            refused: 0,
            exhausted: false,
            last_error: None,
            waits_for: None,
        }
    }

    fn lag(number: u64, records: u64, age_ms: Option<u64>) -> PartitionLag {
        PartitionLag {
            partition: format!("orders-{number}"),
            next: 7,
            records,
            age_ms,
        }
    }

    #[test]
    fn partitions_that_lag_are_named_largest_first_over_all_processes_and_few_of_many() {
        let here = feed(
            "orders",
            "live",
            vec![lag(0, 0, None), lag(1, 40, None), lag(2, 150_000, Some(4200))],
        );
        let there = feed("orders", "live", vec![lag(10, 40, Some(15))]);
        let posted = FeedStatus {
            requests: 120,
            refused: 3,
            lag_bytes: 2048,
            last_error: Some("the disk is full".into()),
            ..feed("events", "posted", vec![])
        };
        assert_eq!(
            report(&[here, posted, there]),
            "feeds\n\
             feed events.posted: 1,200 records, 120 requests, 3 refused, 2.00 KiB to read, last trouble: the disk is full\n\
             feed orders.live: 2,400 records, 150,080 records behind\n\
             \x20 orders-2        150,000 records behind, the newest that was read is 4.20 s old\n\
             \x20 orders-1             40 records behind\n\
             \x20 orders-10            40 records behind, the newest that was read is 15.0 ms old"
        );
        let many = feed("orders", "live", (0..25).map(|n| lag(n, n, None)).collect());
        let text = report(std::slice::from_ref(&many));
        assert_eq!(text.lines().count(), 2 + SHOWN + 1);
        assert!(
            text.lines().nth(2).is_some_and(|line| line.contains("orders-24")),
            "{text}"
        );
        assert!(text.ends_with("\n  and 14 more, 105 records"), "{text}");
    }

    #[test]
    fn a_feed_that_waits_tells_its_cause_once_for_all_processes() {
        let waits = FeedStatus {
            waits_for: Some("could not list /in: permission denied".into()),
            last_error: Some("an older trouble".into()),
            ..feed("orders", "drops", vec![])
        };
        let feeds = [waits.clone(), feed("events", "live", vec![]), waits];
        assert_eq!(
            waiting(&feeds),
            ["feed orders.drops: could not list /in: permission denied"]
        );
        assert!(report(&feeds).ends_with("2,400 records, waits: could not list /in: permission denied"));
    }
}
