//! Decides which updates of a table belong to a snapshot. Nothing here touches files.
//!
//! 1. Sealing epoch `e` returns every update with a time up to `e` exactly once, consolidated by row: no row twice, no
//!    zero difference, in the order of row bytes.
//! 2. Later updates stay.
//! 3. The updates that wait take at most about twice their own consolidated size.
//! 3. What waits is at most about twice its own consolidated size.

use arrow::array::RecordBatch;

use crate::repr::sort::consolidate;
use crate::repr::{Diff, Epoch, Row, Update};

/// Updates of one table that are in no snapshot yet.
#[derive(Default)]
pub(super) struct Mint {
    updates: Vec<Update>,
    columns: Vec<(Epoch, RecordBatch)>,
    /// The length at which `updates` is consolidated again, by (3).
    consolidate_at: usize,
}

/// The changes of one table in one snapshot.
#[derive(Default)]
pub(super) struct Minted {
    /// Consolidated changes of rows, by (1).
    pub(super) rows: Vec<(Row, Diff)>,
    /// Appended columns, in order of arrival.
    pub(super) columns: Vec<RecordBatch>,
}

const CONSOLIDATE_FROM: usize = 1 << 14;

impl Mint {
    /// Takes updates at times that are not sealed yet.
    pub(super) fn observe_rows(&mut self, mut updates: Vec<Update>) {
        if self.updates.is_empty() {
            self.updates = updates;
        } else {
            self.updates.append(&mut updates);
        }
        if self.updates.len() >= self.consolidate_at.max(CONSOLIDATE_FROM) {
            consolidate(&mut self.updates);
            self.consolidate_at = self.updates.len() * 2;
        }
    }

    /// Takes columns appended at an epoch that is not sealed yet.
    pub(super) fn observe_columns(&mut self, epoch: Epoch, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.columns.push((epoch, batch));
        }
    }

    /// The waiting updates with times after `epoch` and up to `until`, consolidated by row.
    pub(super) fn behind(&self, epoch: Epoch, until: Epoch) -> Vec<(Row, Diff)> {
        let behind = self
            .updates
            .iter()
            .filter(|(_, time, _)| *time > epoch && *time <= until);
        consolidated(behind.cloned().collect())
    }

    /// Returns all updates with times up to `epoch`.
    pub(super) fn seal(&mut self, epoch: Epoch) -> Minted {
        let later = self.updates.extract_if(.., |(_, time, _)| *time > epoch).collect();
        let due = std::mem::replace(&mut self.updates, later);
        self.consolidate_at = 0;
        let rows = consolidated(due);
        let columns = self.columns.extract_if(.., |(time, _)| *time <= epoch);
        Minted {
            rows,
            columns: columns.map(|(_, batch)| batch).collect(),
        }
    }
}

/// Adds up the differences of adjacent equal rows, and drops rows whose sum is zero.
pub(super) fn consolidate_sorted(rows: &mut Vec<(Row, Diff)>) {
    rows.dedup_by(|next, previous| {
        let same = next.0 == previous.0;
        if same {
            previous.1 += next.1;
        }
        same
    });
    rows.retain(|(_, diff)| *diff != 0);
}

/// Consolidates updates by row, whatever their times.
fn consolidated(mut updates: Vec<Update>) -> Vec<(Row, Diff)> {
    updates.iter_mut().for_each(|(_, time, _)| *time = Epoch::MIN);
    consolidate(&mut updates);
    updates.into_iter().map(|(row, _, diff)| (row, diff)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn row(i: u8) -> Row {
        Row::new(&vec![i; 1 + usize::from(i) * 7])
    }

    proptest! {
        #[test]
        fn every_update_is_minted_once_at_the_first_seal_not_before_its_time(
            steps in prop::collection::vec((prop::collection::vec((0u8..6, 1u64..4, -2i64..3), 0..40), 0u64..3), 1..12)
        ) {
            let mut mint = Mint::default();
            let mut sealed = 0u64;
            let mut all: Vec<(u8, u64, i64)> = Vec::new();
            let mut minted_total: BTreeMap<Row, i64> = BTreeMap::new();
            for (updates, advance) in steps {
                let updates: Vec<(u8, u64, i64)> = updates.into_iter().map(|(r, t, d)| (r, sealed + t, d)).collect();
                all.extend(&updates);
                mint.observe_rows(updates.into_iter().map(|(r, t, d)| (row(r), t, d)).collect());
                sealed += advance;
                let minted = mint.seal(sealed);
                prop_assert!(minted.rows.windows(2).all(|w| w[0].0 < w[1].0));
                prop_assert!(minted.rows.iter().all(|(_, d)| *d != 0));
                for (row, diff) in minted.rows {
                    *minted_total.entry(row).or_default() += diff;
                }
                minted_total.retain(|_, d| *d != 0);
                let mut model: BTreeMap<Row, i64> = BTreeMap::new();
                for (r, _, d) in all.iter().filter(|(_, t, _)| *t <= sealed) {
                    *model.entry(row(*r)).or_default() += d;
                }
                model.retain(|_, d| *d != 0);
                prop_assert_eq!(&minted_total, &model);
            }
        }
    }

    #[test]
    fn waiting_updates_that_cancel_take_no_memory() {
        let mut mint = Mint::default();
        for _ in 0..100 {
            mint.observe_rows((0..1000u32).map(|i| (Row::new(&i.to_be_bytes()), 1, 1)).collect());
            mint.observe_rows((0..1000u32).map(|i| (Row::new(&i.to_be_bytes()), 1, -1)).collect());
        }
        assert!(mint.updates.len() < 2 * CONSOLIDATE_FROM, "{} wait", mint.updates.len());
        assert!(mint.seal(1).rows.is_empty());
    }
}
