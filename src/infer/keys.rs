//! Which columns together tell the rows apart, where none does alone.

use hashbrown::HashSet;

use super::clock::Clock;

/// Values that are remembered at most; no row is remembered behind them.
const CELLS: usize = 4_000_000;

/// With fewer rows than this almost any two columns tell them apart.
const FEWEST: usize = 20;

/// Columns that are tried with each other, and sets that are named.
const TRIED: usize = 14;
const NAMED: usize = 3;

/// The values of rows, as hashes.
#[derive(Debug, Default)]
pub(super) struct KeyRows {
    /// Column and value; of a row behind those of the row before.
    cells: Vec<(u32, u64)>,
    ends: Vec<usize>,
    is_full: bool,
}

/// How likely a column is part of a key; the least is the likeliest.
pub(super) type Rank = u8;

impl KeyRows {
    /// Takes a value of the row that is open.
    pub fn put(&mut self, column: usize, value: &[u8]) {
        if !self.is_full {
            self.cells.push((column as u32, twox_hash::XxHash3_64::oneshot(value)));
        }
    }

    /// Ends the row that is open; one that does not count is forgotten.
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

    /// How many rows are remembered.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Columns that alone tell the rows apart, among those that have a rank.
    pub fn single(&self, ranks: &[Option<Rank>]) -> Vec<usize> {
        let candidates = self.candidates(ranks);
        let alone = candidates
            .into_iter()
            .filter(|candidate| candidate.distinct == self.len());
        let mut alone: Vec<usize> = alone.map(|candidate| candidate.column).collect();
        alone.sort_unstable();
        alone
    }

    /// The likeliest sets of two columns that tell the rows apart, or else of three. Columns by their positions, each with its
    /// rank; one without is in no key.
    pub fn several(&self, ranks: &[Option<Rank>], clock: &Clock) -> Vec<Vec<usize>> {
        if self.len() < FEWEST {
            return Vec::new();
        }
        let mut candidates = self.candidates(ranks);
        candidates.retain(|candidate| candidate.distinct > 1 && candidate.distinct < self.len());
        // Of the likely ones, those with most values.
        candidates.sort_by_key(|candidate| (candidate.rank, std::cmp::Reverse(candidate.distinct)));
        candidates.truncate(TRIED);
        candidates.sort_by_key(|candidate| candidate.column);
        let pairs = sets_of(2, candidates.len());
        let found = self.telling(&candidates, pairs, clock);
        match found.is_empty() {
            true => self.telling(&candidates, sets_of(3, candidates.len()), clock),
            false => found,
        }
    }

    /// The columns that have a value in each row.
    fn candidates(&self, ranks: &[Option<Rank>]) -> Vec<Candidate> {
        let mut columns: Vec<Candidate> = ranks
            .iter()
            .enumerate()
            .filter_map(|(column, rank)| {
                rank.map(|rank| Candidate {
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
                // Of a key that comes twice the last value counts; a row that lacks one leaves the column short.
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

    /// Those sets of candidates that tell all rows apart, the likeliest first.
    fn telling(&self, candidates: &[Candidate], mut sets: Vec<Vec<usize>>, clock: &Clock) -> Vec<Vec<usize>> {
        let rank = |set: &Vec<usize>| set.iter().map(|n| u32::from(candidates[*n].rank)).sum::<u32>();
        sets.sort_by_key(rank);
        let mut found = Vec::new();
        for set in sets {
            if found.len() == NAMED || clock.is_over() {
                break;
            }
            let most = set
                .iter()
                .fold(1usize, |most, n| most.saturating_mul(candidates[*n].distinct));
            if most < self.len() {
                continue;
            }
            let mut seen = HashSet::with_capacity(1024);
            let is_telling = (0..self.len()).all(|row| {
                let together = set.iter().fold(0u64, |hash, n| {
                    (hash.rotate_left(23) ^ candidates[*n].values[row]).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                });
                seen.insert(together)
            });
            if is_telling {
                found.push(set.iter().map(|n| candidates[*n].column).collect());
            }
        }
        found
    }
}

struct Candidate {
    column: usize,
    rank: Rank,
    /// Of each row.
    values: Vec<u64>,
    distinct: usize,
}

/// All sets of so many among the first numbers.
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
        let clock = Clock::new(Duration::from_secs(60));
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
