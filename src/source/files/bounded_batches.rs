//! Splits rows of a columnar file into batches of bounded size, with each row above `max_record` in a batch of its
//! own.
//!
//! A row's size is what the values of the columns that are read take in memory. It does not depend on its neighbours.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::columnar::FileBatches;
use super::open::ReadBreak;
use crate::decode::CutRecord;
use crate::repr::{batch_bytes, rows_bytes};
use crate::source::batch::BatchLimits;

/// Batches of a file, with small ones concatenated: where rows may be large, a file is decoded only a few rows at a
/// time.
pub(super) struct CoalescedBatches {
    batches: FileBatches,
    limits: BatchLimits,
    /// The batch or error that follows the newest returned batch.
    behind: Option<Result<RecordBatch, ReadBreak>>,
}

impl CoalescedBatches {
    pub fn new(batches: FileBatches, limits: BatchLimits) -> Self {
        CoalescedBatches {
            batches,
            limits,
            behind: None,
        }
    }
}

impl Iterator for CoalescedBatches {
    type Item = Result<RecordBatch, ReadBreak>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = match self.behind.take().or_else(|| self.batches.next())? {
            Ok(first) => first,
            Err(broken) => return Some(Err(broken)),
        };
        let (mut rows, mut bytes) = (first.num_rows(), batch_bytes(&first));
        let mut gathered = vec![first];
        while rows < self.limits.rows && bytes < self.limits.bytes as u64 {
            let next = self.batches.next();
            if let Some(Ok(next)) = &next {
                (rows, bytes) = (rows + next.num_rows(), bytes + batch_bytes(next));
            }
            match next {
                Some(Ok(next)) if rows <= self.limits.rows && bytes <= 2 * self.limits.bytes as u64 => {
                    gathered.push(next);
                }
                behind => {
                    self.behind = behind;
                    break;
                }
            }
        }
        let schema = gathered[0].schema();
        let whole = match gathered.len() {
            1 => gathered.remove(0),
            _ => concat_batches(&schema, &gathered).expect("batches of one file have one schema"),
        };
        Some(Ok(whole))
    }
}

/// Splits a batch. A row above the limit gets a batch of its own, and is marked as cut.
pub(super) fn split_batch(batch: &RecordBatch, limits: BatchLimits) -> Vec<(RecordBatch, Option<CutRecord>)> {
    let most = limits.bytes.min(limits.record) as u64;
    if batch_bytes(batch) <= most {
        return vec![(batch.clone(), None)];
    }
    let mut slices = Vec::new();
    let (mut start, mut taken) = (0, 0);
    let mut hand_over = |start: usize, end: usize, cut: Option<CutRecord>| {
        if end > start {
            slices.push((batch.slice(start, end - start), cut));
        }
    };
    for row in 0..batch.num_rows() {
        let bytes = rows_bytes(batch.columns(), row..row + 1);
        if bytes > limits.record as u64 {
            hand_over(start, row, None);
            let cut = CutRecord {
                record: 0,
                length: bytes,
            };
            hand_over(row, row + 1, Some(cut));
            (start, taken) = (row + 1, 0);
            continue;
        }
        taken += bytes;
        if taken >= limits.bytes as u64 {
            hand_over(start, row + 1, None);
            (start, taken) = (row + 1, 0);
        }
    }
    hand_over(start, batch.num_rows(), None);
    slices
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn rows_are_handed_over_by_their_bytes_and_one_above_the_limit_alone() {
        let limits = BatchLimits {
            rows: 100,
            bytes: 1000,
            record: 3000,
        };
        let sizes = [10, 400, 700, 3500, 20, 999, 1, 2900, 5000];
        let texts: StringArray = sizes.iter().map(|n| Some("x".repeat(*n))).collect();
        let numbers = Int64Array::from_iter_values(0..sizes.len() as i64);
        let batch = RecordBatch::try_from_iter([
            ("n", Arc::new(numbers) as ArrayRef),
            ("text", Arc::new(texts) as ArrayRef),
        ])
        .unwrap();
        let slices: Vec<(usize, bool)> = split_batch(&batch, limits)
            .iter()
            .map(|(rows, cut)| (rows.num_rows(), cut.is_some()))
            .collect();
        assert_eq!(slices, [(3, false), (1, true), (2, false), (2, false), (1, true)]);
        let small = batch.slice(0, 2);
        assert_eq!(
            split_batch(&small, limits).len(),
            1,
            "what the others take does not count"
        );
    }
}
