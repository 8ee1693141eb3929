//! Finds columns that together distinguish the rows, if no single column does.

use hashbrown::HashSet;

use super::deadline::Deadline;

/// The most values that are remembered; after that, no further rows are.
const CELLS: usize = 4_000_000;

/// In fewer rows than this, almost any two columns distinguish them.
const FEWEST: usize = 20;

/// The most columns that are combined, and the most sets that are suggested.
const TRIED: usize = 14;
const NAMED: usize = 3;

/// Hashes of the values of rows.
#[derive(Debug, Default)]
pub(super) struct KeyRows {
    /// Column and value hash, row after row.
    cells: Vec<(u32, u64)>,
    ends: Vec<usize>,
    is_full: bool,
}

/// How likely a column is part of a key; the least rank is the likeliest.
pub(super) type KeyRank = u8;

impl KeyRows {
    /// Adds a value to the current row.
    pub fn put(&mut self, column: usize, value: &[u8]) {
        if !self.is_full {
            self.cells.push((column as u32, twox_hash::XxHash3_64::oneshot(value)));
        }
    }

    /// Ends the current row, and forgets it if it does not count.
    pub fn end_row(&mut self, counts: bool) {
        if self.is_full {
            return;
        }
        let end = self.ends.last().copied().unwrap_or(0);
        match counts {
            true => self.ends.push(self.cells.len()),
            false => self.cells.truncate(end),
        }
        self.is_full = self.cells.len() >= CELLS;
    }

    /// The number of remembered rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The columns with a rank that alone distinguish the rows.
    pub fn single(&self, ranks: &[Option<KeyRank>]) -> Vec<usize> {
        let candidates = self.candidates(ranks);
        let alone = candidates
            .into_iter()
            .filter(|candidate| candidate.distinct == self.len());
        let mut alone: Vec<usize> = alone.map(|candidate| candidate.column).collect();
        alone.sort_unstable();
        alone
    }

    /// The likeliest sets of two columns that distinguish the rows, or otherwise of three. `ranks` has the rank of
    /// each column by position; a column without one is in no key.
    pub fn several(&self, ranks: &[Option<KeyRank>], clock: &Deadline) -> Vec<Vec<usize>> {
        if self.len() < FEWEST {
            return Vec::new();
        }
        let mut candidates = self.candidates(ranks);
        candidates.retain(|candidate| candidate.distinct > 1 && candidate.distinct < self.len());
        // Among equally likely columns, those with the most values come first.
        candidates.sort_by_key(|candidate| (candidate.rank, std::cmp::Reverse(candidate.distinct)));
        candidates.truncate(TRIED);
        candidates.sort_by_key(|candidate| candidate.column);
        let pairs = sets_of(2, candidates.len());
        let keys = self.distinguishing(&candidates, pairs, clock);
        match keys.is_empty() {
            true => self.distinguishing(&candidates, sets_of(3, candidates.len()), clock),
            false => keys,
        }
    }

    /// The columns that have a value in each row.
    fn candidates(&self, ranks: &[Option<KeyRank>]) -> Vec<KeyCandidate> {
        let mut columns: Vec<KeyCandidate> = ranks
            .iter()
            .enumerate()
            .filter_map(|(column, rank)| {
                rank.map(|rank| KeyCandidate {
                    column,
                    rank,
                    values: Vec::new(),
                    distinct: 0,
                })
            })
            .collect();
        let mut places = vec![None; ranks.len()];
        for (place, candidate) in columns.iter().enumerate() {
            places[candidate.column] = Some(place);
        }
        let mut start = 0;
        for (row, end) in self.ends.iter().enumerate() {
            for (column, value) in &self.cells[start..*end] {
                let Some(Some(place)) = places.get(*column as usize) else {
                    continue;
                };
                let values = &mut columns[*place].values;
                // If a JSON key is repeated, its last value counts; if a row lacks a value, the column has too few and
                // is dropped.
                match values.len() {
                    known if known == row => values.push(*value),
                    known if known == row + 1 => values[row] = *value,
                    _ => (),
                }
            }
            start = *end;
        }
        columns.retain(|candidate| candidate.values.len() == self.len());
        for candidate in &mut columns {
            candidate.distinct = candidate.values.iter().collect::<HashSet<_>>().len();
        }
        columns
    }

    /// The sets of candidates that distinguish all rows, the likeliest first.
    fn distinguishing(
        &self,
        candidates: &[KeyCandidate],
        mut sets: Vec<Vec<usize>>,
        clock: &Deadline,
    ) -> Vec<Vec<usize>> {
        let rank = |set: &Vec<usize>| set.iter().map(|n| u32::from(candidates[*n].rank)).sum::<u32>();
        sets.sort_by_key(rank);
        let mut keys = Vec::new();
        for set in sets {
            if keys.len() == NAMED || clock.is_over() {
                break;
            }
            let most = set
                .iter()
                .fold(1usize, |most, n| most.saturating_mul(candidates[*n].distinct));
            if most < self.len() {
                continue;
            }
            let mut seen = HashSet::with_capacity(1024);
            let is_distinguishing = (0..self.len()).all(|row| {
                let together = set.iter().fold(0u64, |hash, n| {
                    (hash.rotate_left(23) ^ candidates[*n].values[row]).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                });
                seen.insert(together)
            });
            if is_distinguishing {
                keys.push(set.iter().map(|n| candidates[*n].column).collect());
            }
        }
        keys
    }
}

struct KeyCandidate {
    column: usize,
    rank: KeyRank,
    /// The value's hash in each row.
    values: Vec<u64>,
    distinct: usize,
}

/// All subsets of size `size` of the numbers below `among`.
fn sets_of(size: usize, among: usize) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..size {
        sets = sets
            .into_iter()
            .flat_map(|set| {
                let next = set.last().map_or(0, |last| last + 1);
                (next..among).map(move |n| [&set[..], &[n]].concat())
            })
            .collect();
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rows(count: u32, columns: &[&dyn Fn(u32) -> Option<u32>]) -> KeyRows {
        let mut rows = KeyRows::default();
        for row in 0..count {
            for (column, value) in columns.iter().enumerate() {
                if let Some(value) = value(row) {
                    rows.put(column, &value.to_le_bytes());
                }
            }
            rows.end_row(true);
        }
        rows
    }

    #[test]
    fn the_fewest_columns_that_tell_all_rows_apart_are_found() {
        let clock = Deadline::new(Duration::from_secs(60));
        let order = |row: u32| Some(row / 7);
        let line = |row: u32| Some(row % 7);
        let price = |row: u32| Some(row * 31 % 5);
        let some = |row: u32| (row != 3).then_some(row);
        let all: [&dyn Fn(u32) -> Option<u32>; 4] = [&order, &line, &price, &some];
        let many = rows(700, &all);
        assert_eq!(many.several(&[Some(1); 4], &clock), [vec![0, 1]]);
        assert_eq!(many.single(&[Some(1); 4]), Vec::<usize>::new());
        assert_eq!(
            many.several(&[Some(1), None, None, None], &clock),
            Vec::<Vec<usize>>::new()
        );
        assert_eq!(rows(10, &all).several(&[Some(1); 4], &clock), Vec::<Vec<usize>>::new());
        let digit = |place: u32| move |row: u32| Some(row / 8u32.pow(place) % 8);
        let (a, b, c) = (digit(0), digit(1), digit(2));
        assert_eq!(rows(512, &[&a, &b, &c]).several(&[Some(1); 3], &clock), [vec![0, 1, 2]]);
        assert_eq!(rows(512, &[&|row| Some(row), &a]).single(&[Some(1); 2]), [0]);
    }
}
