//! Rows that violate an expectation with `on_violation = "fail"`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::repr::{Diff, Epoch, Row};

/// By epoch: by how many the number of violating rows changes, and one of these rows.
#[derive(Default)]
pub struct Violations(Mutex<BTreeMap<Epoch, (i64, Row)>>);

impl Violations {
    /// From `epoch` on, `diff` more rows violate an expectation; `error` is one of them.
    pub fn observe(&self, error: &Row, epoch: Epoch, diff: Diff) {
        let mut violations = self.locked();
        let at = violations.entry(epoch).or_insert_with(|| (0, error.clone()));
        at.0 += diff;
        if diff > 0 {
            at.1 = error.clone();
        }
    }

    /// Takes all entries, to send them to process 0.
    pub fn drain(&self) -> Vec<(Epoch, i64, Vec<u8>)> {
        let taken = std::mem::take(&mut *self.locked()).into_iter();
        taken
            .map(|(epoch, (diff, row))| (epoch, diff, row.bytes().to_vec()))
            .collect()
    }

    /// How many rows violate an expectation as of a closed epoch, and one of them; `None` if there are none.
    pub fn as_of(&self, epoch: Epoch) -> Option<(i64, Row)> {
        let violations = self.locked();
        let upto = violations.range(..=epoch);
        let (count, example) = upto.fold((0, None), |(n, _), (_, (more, row))| (n + more, Some(row)));
        example.filter(|_| count > 0).map(|row| (count, row.clone()))
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Epoch, (i64, Row)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
