//! Rows of a columnar file in portions that are bounded by their bytes, with rows above `max_record` apart.
//!
//! What a row takes is what its values take in memory, by the columns that are read: the same whatever rows stand beside it.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::columnar::Batches;
use super::open::Break;
use crate::decode::CutRecord;
use crate::repr::{batch_bytes, rows_bytes};
use crate::source::batch::BatchLimits;

/// Batches of a file, with small ones put together: files are decoded a few rows at a time where rows may be large.
pub(super) struct Gathered {
    batches: Batches,
    limits: BatchLimits,
    /// What comes behind the batches that were given last.
    behind: Option<Result<RecordBatch, Break>>,
}

impl Gathered {
    pub fn new(batches: Batches, limits: BatchLimits) -> Self {
        Gathered {
            batches,
            limits,
            behind: None,
        }
    }
}

impl Iterator for Gathered {
    type Item = Result<RecordBatch, Break>;

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

/// Cuts a batch. A row above the limit stands alone, and is marked as cut.
pub(super) fn portions(batch: &RecordBatch, limits: BatchLimits) -> Vec<(RecordBatch, Option<CutRecord>)> {
    let most = limits.bytes.min(limits.record) as u64;
    if batch_bytes(batch) <= most {
        return vec![(batch.clone(), None)];
    }
    let mut portions = Vec::new();
    let (mut start, mut taken) = (0, 0);
    let mut hand_over = |start: usize, end: usize, cut: Option<CutRecord>| {
        if end > start {
            portions.push((batch.slice(start, end - start), cut));
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
    portions
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
        let found: Vec<(usize, bool)> = portions(&batch, limits)
            .iter()
            .map(|(rows, cut)| (rows.num_rows(), cut.is_some()))
            .collect();
        assert_eq!(found, [(3, false), (1, true), (2, false), (2, false), (1, true)]);
        let small = batch.slice(0, 2);
        assert_eq!(portions(&small, limits).len(), 1, "what the others take does not count");
    }
}
