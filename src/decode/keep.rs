//! Removes changes from decoded records.

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;

use crate::decode::decoded::Decoded;

impl Decoded {
    /// Keeps only the changes that the mask selects; what is known of their records is kept.
    pub fn keep(&mut self, kept: &[bool]) {
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let mask: BooleanArray = kept.iter().map(|kept| Some(*kept)).collect();
        self.rows = filter_record_batch(&self.rows, &mask).expect("there is a verdict for each change");
        let mut place = 0;
        let places: Vec<Option<u32>> = kept
            .iter()
            .map(|kept| {
                place += u32::from(*kept);
                kept.then(|| place - 1)
            })
            .collect();
        let verdicts = || kept.iter().copied();
        let mut verdict = verdicts();
        self.ops.retain(|_| verdict.next().unwrap_or(false));
        let mut verdict = verdicts();
        self.record.retain(|_| verdict.next().unwrap_or(false));
        let moved = |(row, column): (u32, u32)| Some((places[row as usize]?, column));
        self.unchanged = std::mem::take(&mut self.unchanged)
            .into_iter()
            .filter_map(moved)
            .collect();
    }
}
