//! Maps each row of a table to its places: hash -> (file, position), as a multiset. It holds no row bytes.
//!
//! An entry has 20 bytes. The table is split into shards whose sizes form a geometric series over one doubling, so
//! they grow one after another: the whole is always about two thirds full (some 32 to 38 bytes per row), and no
//! insertion waits for more than a sixteenth of the table to move.

use std::collections::BTreeSet;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::hash::RowHash;

/// A row's place: the file's number, and the position in the file.
pub(super) type RowAddress = (u32, u32);

/// Marks an entry whose row has several places: `position` is then the entry's number in [`Index::many`].
const MANY: u32 = u32::MAX;
const SHARDS: usize = 16;

#[derive(Clone, Copy)]
struct Entry {
    hash: RowHash,
    file: u32,
    position: u32,
}

/// The places of the rows of one table that one writer owns.
pub(super) struct Index {
    shards: Vec<HashTable<Entry>>,
    /// Maps 8 bits of a hash to the shard.
    shard_of: Box<[u8; 256]>,
    /// The places of rows that occur more than once. They are sets, because a row may occur very often, and compaction
    /// moves single places.
    many: Vec<BTreeSet<RowAddress>>,
    /// Numbers of `many` that are free.
    free: Vec<u32>,
    len: u64,
    spilled: usize,
}

impl Index {
    /// An empty one.
    pub(super) fn new() -> Self {
        let weights: Vec<f64> = (0..SHARDS).map(|i| 2f64.powf(i as f64 / SHARDS as f64)).collect();
        let total: f64 = weights.iter().sum();
        let mut shard_of = Box::new([0u8; 256]);
        let (mut shard, mut upper) = (0, weights[0] / total);
        for (i, slot) in shard_of.iter_mut().enumerate() {
            while shard + 1 < SHARDS && (i as f64 + 0.5) / 256.0 > upper {
                shard += 1;
                upper += weights[shard] / total;
            }
            *slot = shard as u8;
        }
        let shards = (0..SHARDS).map(|_| HashTable::new()).collect();
        Index {
            shards,
            shard_of,
            many: Vec::new(),
            free: Vec::new(),
            len: 0,
            spilled: 0,
        }
    }

    /// Number of rows, counted with their multiplicities.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        let tables: usize = self.shards.iter().map(HashTable::allocation_size).sum();
        tables + self.spilled * 12 + self.many.capacity() * size_of::<BTreeSet<RowAddress>>()
    }

    fn shard(&self, hash: RowHash) -> usize {
        usize::from(self.shard_of[(hash.0[2] >> 24) as usize])
    }

    /// Adds a row with this hash at this place.
    pub(super) fn insert(&mut self, hash: RowHash, place: RowAddress) {
        self.len += 1;
        let shard = self.shard(hash);
        let slot = self.shards[shard].entry(hash.bucket(), |e| e.hash == hash, |e| e.hash.bucket());
        match slot {
            Slot::Vacant(slot) => {
                slot.insert(Entry {
                    hash,
                    file: place.0,
                    position: place.1,
                });
            }
            Slot::Occupied(mut slot) => {
                let entry = slot.get_mut();
                if entry.file == MANY {
                    self.spilled += 1;
                    self.many[entry.position as usize].insert(place);
                } else {
                    self.spilled += 2;
                    let places = BTreeSet::from([(entry.file, entry.position), place]);
                    entry.file = MANY;
                    entry.position = match self.free.pop() {
                        Some(number) => {
                            self.many[number as usize] = places;
                            number
                        }
                        None => {
                            self.many.push(places);
                            self.many.len() as u32 - 1
                        }
                    };
                }
            }
        }
    }

    /// Removes one row with this hash, from the newest file that has it.
    pub(super) fn remove(&mut self, hash: RowHash) -> Option<RowAddress> {
        self.take(hash, None)
    }

    /// Removes the row with this hash at this place; returns false if it is not there.
    pub(super) fn remove_at(&mut self, hash: RowHash, place: RowAddress) -> bool {
        self.take(hash, Some(place)).is_some()
    }

    fn take(&mut self, hash: RowHash, wanted: Option<RowAddress>) -> Option<RowAddress> {
        let shard = self.shard(hash);
        let slot = self.shards[shard].entry(hash.bucket(), |e| e.hash == hash, |e| e.hash.bucket());
        let Slot::Occupied(mut slot) = slot else { return None };
        let entry = *slot.get();
        if entry.file != MANY {
            let place = (entry.file, entry.position);
            if wanted.is_some_and(|wanted| wanted != place) {
                return None;
            }
            slot.remove();
            self.len -= 1;
            return Some(place);
        }
        let places = &mut self.many[entry.position as usize];
        let place = match wanted {
            Some(wanted) => places.take(&wanted)?,
            None => places.pop_last().expect("a spilled entry has at least two places"),
        };
        self.len -= 1;
        self.spilled -= 1;
        if places.len() == 1 {
            let last = places.pop_last().expect("one place is left");
            self.spilled -= 1;
            self.free.push(entry.position);
            let entry = slot.get_mut();
            (entry.file, entry.position) = last;
        }
        Some(place)
    }

    /// Calls `tell` with up to `limit` places of rows with this hash, and returns their number.
    pub(super) fn places(&self, hash: RowHash, limit: usize, mut tell: impl FnMut(RowAddress)) -> usize {
        let shard = self.shard(hash);
        match self.shards[shard].find(hash.bucket(), |e| e.hash == hash) {
            None => 0,
            Some(_) if limit == 0 => 0,
            Some(e) if e.file == MANY => {
                let places = &self.many[e.position as usize];
                places.iter().take(limit).for_each(|place| tell(*place));
                places.len().min(limit)
            }
            Some(e) => {
                tell((e.file, e.position));
                1
            }
        }
    }

    /// The place of the row with this hash, if there is exactly one.
    pub(super) fn only_place(&self, hash: RowHash) -> Option<RowAddress> {
        let shard = self.shard(hash);
        let entry = self.shards[shard].find(hash.bucket(), |e| e.hash == hash)?;
        (entry.file != MANY).then_some((entry.file, entry.position))
    }

    /// Moves one row; returns false if it is not at `from` (any more).
    pub(super) fn relocate(&mut self, hash: RowHash, from: RowAddress, to: RowAddress) -> bool {
        let shard = self.shard(hash);
        match self.shards[shard].find_mut(hash.bucket(), |e| e.hash == hash) {
            None => false,
            Some(e) if e.file == MANY => {
                let places = &mut self.many[e.position as usize];
                places.remove(&from) && places.insert(to)
            }
            Some(e) if (e.file, e.position) == from => {
                (e.file, e.position) = to;
                true
            }
            Some(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn hash(i: u8) -> RowHash {
        RowHash::of_row(&[i])
    }

    proptest! {
        #[test]
        fn an_index_is_a_multiset_of_places(steps in prop::collection::vec((0u8..8, 0u8..4), 1..300)) {
            let mut index = Index::new();
            let mut model: BTreeMap<u8, BTreeSet<RowAddress>> = BTreeMap::new();
            for (i, (key, action)) in steps.into_iter().enumerate() {
                let places = model.entry(key).or_default();
                let fresh = (i as u32, i as u32 * 3);
                match action {
                    0 | 1 => {
                        index.insert(hash(key), fresh);
                        places.insert(fresh);
                    }
                    2 => {
                        let taken = index.remove(hash(key));
                        prop_assert_eq!(taken.is_some(), !places.is_empty());
                        if let Some(place) = taken {
                            prop_assert!(places.remove(&place));
                        }
                    }
                    _ => {
                        let from = places.pop_first();
                        prop_assert!(!index.relocate(hash(key), (9999, 1), fresh));
                        if let Some(from) = from {
                            prop_assert!(index.relocate(hash(key), from, fresh));
                            prop_assert!(!index.remove_at(hash(key), from));
                            places.insert(fresh);
                        }
                    }
                }
                prop_assert_eq!(index.len(), model.values().map(|p| p.len() as u64).sum::<u64>());
                for (key, places) in &model {
                    let mut visited = BTreeSet::new();
                    index.places(hash(*key), usize::MAX, |place| { visited.insert(place); });
                    prop_assert_eq!(&visited, places);
                }
            }
        }
    }

    #[test]
    fn a_row_costs_at_most_42_bytes_at_any_size() {
        let mut index = Index::new();
        for i in 0..600_000u32 {
            index.insert(RowHash::of_row(&i.to_be_bytes()), (i >> 10, i & 1023));
            if i > 50_000 && i % 10_000 == 0 {
                let each = index.memory() as f64 / f64::from(i);
                assert!(each < 42.0, "{each} bytes a row at {i} rows");
            }
        }
    }

    #[test]
    fn half_a_million_equal_rows_are_quick() {
        let start = std::time::Instant::now();
        let mut index = Index::new();
        (0..500_000).for_each(|i| index.insert(hash(1), (0, i)));
        (0..500_000).for_each(|i| assert!(index.relocate(hash(1), (0, i), (1, i))));
        (0..500_000).for_each(|_| assert!(index.remove(hash(1)).is_some()));
        assert_eq!((index.len(), index.remove(hash(1))), (0, None));
        // With quadratic behaviour this would take minutes.
        assert!(start.elapsed().as_secs() < 20);
    }
}
