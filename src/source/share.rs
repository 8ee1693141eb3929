//! Assigns partitions to processes: with several processes, exactly one reads each partition.
//!
//! 1. A hash of the partition's name decides, the same in every process. The assignment changes with the number of
//!    processes.
//! 2. Feeds whose source transactions are kept whole are read by process 0, which opens epochs.
//! 3. HTTP requests come to process 0, and are read there.
//! 4. Files of an input for which the order of arrival matters (a key without `order_by`, or a `dedup_key`) are read
//!    by one process, one after another.

use crate::definition::{Division, Input};

/// A process among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The process's index.
    pub process: usize,
    /// The number of processes.
    pub processes: usize,
}

/// The only process of a run.
impl Default for Share {
    fn default() -> Self {
        Share {
            process: 0,
            processes: 1,
        }
    }
}

impl Share {
    /// Whether this process reads a partition of a feed.
    pub fn holds(&self, input: &Input, feed: usize, partition: &str) -> bool {
        self.processes == 1 || self.place(input, feed, partition).0 == self.process
    }

    /// The process that reads a partition, and a number by which that process spreads partitions over its workers.
    pub fn place(&self, input: &Input, feed: usize, partition: &str) -> (usize, u64) {
        let name = &input.feeds[feed].name;
        let hash = hash(&[&input.name, name, partition]);
        let processes = self.processes as u64;
        let process = match input.feeds[feed].kind.contract().division(input) {
            Division::First => return (0, hash),
            Division::OneOfInput => self::hash(&[&input.name]) % processes,
            Division::Partitions => hash % processes,
        };
        (process as usize, hash / processes)
    }
}

fn hash(parts: &[&str]) -> u64 {
    use std::hash::Hasher;
    let mut hasher = twox_hash::XxHash64::with_seed(0);
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff); // 0xff is not in UTF-8, so ("a", "bc") and ("ab", "c") differ
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Feed, FeedKind, FileFeed, Format, LogFeed};

    fn input(order_by: &[&str]) -> Input {
        let feed = |name: &str, kind| Feed {
            name: name.into(),
            kind,
            format: Format::Json,
            wire: Default::default(),
            columns: vec![],
            max_record: 16 << 20,
        };
        Input {
            name: "accounts".into(),
            description: None,
            columns: vec![],
            key: vec!["id".into()],
            order_by: order_by.iter().map(|c| c.to_string()).collect(),
            dedup_key: vec![],
            bronze: true,
            retention: None,
            evolved: vec![],
            feeds: vec![
                feed(
                    "drops",
                    FeedKind::Files(FileFeed {
                        path: "drops/*".into(),
                        rules: Default::default(),
                    }),
                ),
                feed(
                    "live",
                    FeedKind::Log(LogFeed {
                        path: "live".into(),
                        rules: Default::default(),
                    }),
                ),
            ],
            file: "accounts.toml".into(),
        }
    }

    fn holders(input: &Input, feed: usize, partition: &str, processes: usize) -> Vec<usize> {
        (0..processes)
            .filter(|process| {
                let share = Share {
                    process: *process,
                    processes,
                };
                share.holds(input, feed, partition)
            })
            .collect()
    }

    #[test]
    fn each_partition_has_one_process_and_each_process_some_partitions() {
        let input = input(&["version"]);
        for processes in 1..6 {
            let mut counts = vec![0; processes];
            for n in 0..100 {
                for feed in [0, 1] {
                    let holders = holders(&input, feed, &format!("part-{n}"), processes);
                    assert_eq!(holders.len(), 1, "part-{n} of {processes} processes");
                    counts[holders[0]] += 1;
                }
            }
            assert!(counts.iter().all(|n| *n > 100 / processes), "{counts:?}");
        }
    }

    #[test]
    fn files_whose_order_decides_have_one_process_and_its_workers_share_them() {
        let ordered = input(&[]);
        let share = Share {
            process: 0,
            processes: 3,
        };
        let of = |feed: usize| (0..50).map(move |n| (feed, format!("{n}.csv")));
        let processes = |feed| {
            let mut found: Vec<usize> = of(feed)
                .map(|(feed, name)| share.place(&ordered, feed, &name).0)
                .collect();
            found.sort_unstable();
            found.dedup();
            found.len()
        };
        assert_eq!(processes(0), 1, "files");
        assert_eq!(processes(1), 3, "a log's partitions are in order by themselves");
        let workers: std::collections::BTreeSet<u64> = of(0)
            .map(|(feed, name)| share.place(&ordered, feed, &name).1 % 2)
            .collect();
        assert_eq!(workers.len(), 2);
    }
}
