//! Cuts an input's past into ranges of epochs that are read and sorted together, so that a sort has a bounded size
//! however large the past has grown.
//!
//! Each file of Bronze holds the records of a few snapshots, and its statistics give their first and last epoch. The
//! files are taken in that order; a range ends when it is large enough and no file reaches past its end, or when it
//! would become much too large. The memory limit of the session bounds whatever a range holds in spite of that: sorts
//! spill to disk above it.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;
use serde::Deserialize;

use crate::lake::Lake;
use crate::sink::{AddFile, LogError, log};

/// Bytes that sorting may take before it spills to disk.
const SORTING: usize = 256 << 20;
/// About the number of bytes of rows that are decoded at once.
const AT_ONCE: u64 = 8 << 20;
/// About how many times larger a row is in memory than in its file.
const PACKED: u64 = 8;

/// The sizes of ranges, in bytes of files; their rows take several times as much memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct EpochRangeLimits {
    /// Bytes of files after which a range ends as soon as no file reaches past its end.
    pub enough: u64,
    /// Bytes of files after which a range ends in any case; files that reach past its end are read again.
    pub most: u64,
}

impl Default for EpochRangeLimits {
    fn default() -> Self {
        EpochRangeLimits {
            enough: 16 << 20,
            most: 64 << 20,
        }
    }
}

/// The epochs from `from` up to, but without, `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EpochRange {
    pub from: i64,
    pub until: i64,
}

/// How a table's past is read.
pub(super) struct EpochRanges {
    /// The ranges in order; together they cover all epochs.
    pub ranges: Vec<EpochRange>,
    /// The number of rows that are decoded at once.
    pub batch_rows: usize,
}

/// The parts of a file's statistics that are needed here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    num_records: u64,
    min_values: Epochs,
    max_values: Epochs,
}

#[derive(Deserialize)]
struct Epochs {
    epoch: i64,
}

/// A file's first epoch, last epoch, and bytes.
type Extent = (i64, i64, u64);

impl EpochRanges {
    /// Computes the ranges of a Bronze table at a version.
    ///
    /// # Errors
    /// The table's log cannot be read.
    pub async fn read(
        lake: &Lake,
        table: &str,
        version: i64,
        limits: EpochRangeLimits,
    ) -> Result<EpochRanges, LogError> {
        let loaded = log::load(lake, table, Some(version)).await?;
        let files: Vec<AddFile> = loaded.map_or(vec![], |loaded| loaded.files.into_values().collect());
        let known = |file: &AddFile| -> Option<(Extent, u64)> {
            let stats: Stats = serde_json::from_str(file.stats.as_deref()?).ok()?;
            let extent = (stats.min_values.epoch, stats.max_values.epoch, file.size);
            Some((extent, stats.num_records))
        };
        let extents: Option<Vec<(Extent, u64)>> = files.iter().map(known).collect();
        let bytes: u64 = files.iter().map(|file| file.size).sum();
        let rows: u64 = extents.iter().flatten().map(|(_, rows)| rows).sum();
        let of_row = (bytes * PACKED).checked_div(rows).unwrap_or(1).max(1);
        Ok(EpochRanges {
            ranges: match extents {
                Some(extents) => cut(extents.into_iter().map(|(extent, _)| extent).collect(), limits),
                // Of a file without statistics nothing is known: it may hold any epoch.
                None => cut(vec![], limits),
            },
            batch_rows: (AT_ONCE / of_row).clamp(16, 8192) as usize,
        })
    }

    /// A session with the tables of `whole`, in which sorts stay within a memory limit.
    ///
    /// # Errors
    /// The runtime cannot be created.
    pub fn session(&self, whole: &SessionContext) -> Result<SessionContext, DataFusionError> {
        let runtime = RuntimeEnvBuilder::from_runtime_env(&whole.runtime_env())
            .with_memory_pool(Arc::new(FairSpillPool::new(SORTING)))
            .build_arc()?;
        // The existing catalog has the tables; a new one would replace it.
        let config = whole
            .copied_config()
            .with_batch_size(self.batch_rows)
            .with_create_default_catalog_and_schema(false);
        let state = SessionStateBuilder::new_from_existing(whole.state())
            .with_config(config)
            .with_runtime_env(runtime)
            .build();
        Ok(SessionContext::new_with_state(state))
    }
}

fn cut(mut files: Vec<Extent>, limits: EpochRangeLimits) -> Vec<EpochRange> {
    files.sort_unstable();
    let mut ranges = vec![EpochRange {
        from: i64::MIN,
        until: i64::MAX,
    }];
    let (mut bytes, mut newest) = (0, i64::MIN);
    let mut oldest = files.first().map_or(0, |(first, ..)| *first);
    for (first, last, size) in files {
        let open = ranges.last_mut().expect("there is one from the beginning");
        let is_clean = newest < first;
        if first > oldest && (bytes >= limits.enough && is_clean || bytes + size > limits.most) {
            open.until = first;
            ranges.push(EpochRange {
                from: first,
                until: i64::MAX,
            });
            (bytes, oldest) = (0, first);
        }
        bytes += size;
        newest = newest.max(last);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u64 = 10 << 20;

    fn bounds(files: Vec<Extent>) -> Vec<i64> {
        let ranges = cut(files, EpochRangeLimits::default());
        assert_eq!(ranges[0].from, i64::MIN);
        assert_eq!(ranges.last().map(|range| range.until), Some(i64::MAX));
        assert!(ranges.windows(2).all(|pair| pair[0].until == pair[1].from));
        ranges[1..].iter().map(|range| range.from).collect()
    }

    #[test]
    fn a_range_ends_where_no_file_reaches_over_its_end() {
        assert_eq!(bounds(vec![]), [0; 0]);
        let files = (0..6).map(|n| (10 * n, 10 * n + 9, SMALL)).collect();
        assert_eq!(bounds(files), [20, 40]);
        // These are files of two workers in each snapshot.
        let files = (0..8)
            .map(|n| (10 * (n / 2), 10 * (n / 2) + 9 - n % 2, SMALL))
            .collect();
        assert_eq!(bounds(files), [10, 20, 30]);
    }

    #[test]
    fn a_range_ends_amid_a_file_where_it_would_be_too_large() {
        // Each file reaches into the next.
        let files = (0..20).map(|n| (10 * n, 10 * n + 15, SMALL)).collect();
        assert_eq!(bounds(files), [60, 120, 180]);
        // A single epoch is never cut.
        let files = (0..20).map(|_| (5, 5, SMALL)).collect();
        assert_eq!(bounds(files), [0; 0]);
    }
}
