//! The difference type of additive aggregates, a sparse vector of integers, and the layout of an arrangement with one
//! such vector for each group.
//!
//! [`Accumulators`] maps positions to non-zero `i64`s. The encoding lists the entries by position: the distance from
//! the previous position, then the value in zigzag, both as LEB128. So a group that only counts takes two bytes, equal
//! vectors have equal bytes, and the empty vector is zero. The aggregates define what the positions mean
//! (`render::aggregate::measure`).

use std::fmt;

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use differential_dataflow::trace::implementations::BatchContainer;
use differential_dataflow::trace::implementations::ord_neu::{OrdKeyBatch, OrdKeyBuilder};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::footprint::Heap;
use super::{Chunk, ChunkBuilder, Chunker, Row, RowArena, RowBatcher, RowLayout, RowRef, RowSpine};

/// A sparse vector of integers; see the module's header.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Accumulators(Row);

/// Accumulators that are borrowed from a batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccumulatorsRef<'a>(RowRef<'a>);

impl AccumulatorsRef<'_> {
    /// The encoded bytes, as from [`Accumulators::into_row`].
    pub fn to_row(self) -> Row {
        self.0.to_row()
    }
}

/// The accumulators of a batch, stored back to back.
pub struct AccumulatorArena(RowArena);

type Layout = RowLayout<Vec<()>, AccumulatorArena>;
/// A spine of groups with their accumulators.
pub type AccumulatorSpine = RowSpine<OrdKeyBatch<Layout>>;
/// Sorts and consolidates updates on their way into an [`AccumulatorSpine`].
pub type AccumulatorChunker = Chunker<(), Accumulators>;
/// Merges the chunks of an [`AccumulatorChunker`].
pub type AccumulatorBatcher = RowBatcher<Accumulators>;
/// Builds the batches of an [`AccumulatorSpine`].
pub type AccumulatorBuilder = ChunkBuilder<OrdKeyBuilder<Layout, Chunk<Accumulators>>>;

impl Accumulators {
    /// The vector of these entries; positions must ascend strictly, and values must not be zero.
    pub fn from_entries(entries: impl IntoIterator<Item = (u32, i64)>) -> Self {
        let mut writer = AccumulatorWriter::default();
        entries
            .into_iter()
            .for_each(|(position, value)| writer.push(position, value));
        writer.finish()
    }

    /// The entries, with ascending positions.
    pub fn entries(&self) -> impl Iterator<Item = (u32, i64)> + '_ {
        EntryReader::new(self.0.bytes())
    }

    /// The sum of several encoded vectors, each as from [`Accumulators::into_row`].
    pub fn sum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut sum = AccumulatorSum::default();
        parts.for_each(|part| sum.add_bytes(part));
        Accumulators::from_entries(sum.entries)
    }

    /// The encoded bytes, to be stored.
    pub fn into_row(self) -> Row {
        self.0
    }

    /// Takes the encoded bytes from [`Accumulators::into_row`].
    pub fn from_row(bytes: Row) -> Self {
        Accumulators(bytes)
    }

    fn add(&mut self, other: &[u8]) {
        if other.is_empty() {
            return;
        }
        if self.0.bytes().is_empty() {
            self.0 = Row::new(other);
            return;
        }
        let mut writer = AccumulatorWriter::default();
        let (mut left, mut right) = (EntryReader::new(self.0.bytes()), EntryReader::new(other));
        let (mut l, mut r) = (left.next(), right.next());
        loop {
            match (l, r) {
                (Some((p, x)), Some((q, y))) if p == q => {
                    writer.push(p, x.wrapping_add(y));
                    (l, r) = (left.next(), right.next());
                }
                (Some((p, x)), Some((q, _))) if p < q => {
                    writer.push(p, x);
                    l = left.next();
                }
                (Some((p, x)), None) => {
                    writer.push(p, x);
                    l = left.next();
                }
                (_, Some((q, y))) => {
                    writer.push(q, y);
                    r = right.next();
                }
                (None, None) => break,
            }
        }
        *self = writer.finish();
    }
}

impl fmt::Debug for Accumulators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries()).finish()
    }
}

impl IsZero for Accumulators {
    #[inline]
    fn is_zero(&self) -> bool {
        self.0.bytes().is_empty()
    }
}

impl Semigroup for Accumulators {
    #[inline]
    fn plus_equals(&mut self, other: &Self) {
        self.add(other.0.bytes());
    }
}

impl<'a> Semigroup<AccumulatorsRef<'a>> for Accumulators {
    #[inline]
    fn plus_equals(&mut self, other: &AccumulatorsRef<'a>) {
        self.add(other.0.bytes());
    }
}

impl Monoid for Accumulators {
    fn zero() -> Self {
        Accumulators::default()
    }
}

impl Abelian for Accumulators {
    fn negate(&mut self) {
        *self = Accumulators::from_entries(self.entries().map(|(position, value)| (position, value.wrapping_neg())));
    }
}

impl Heap for AccumulatorArena {
    fn heap(&self) -> usize {
        self.0.heap()
    }
}

impl BatchContainer for AccumulatorArena {
    type Owned = Accumulators;
    type ReadItem<'a> = AccumulatorsRef<'a>;

    #[inline]
    fn into_owned<'a>(item: AccumulatorsRef<'a>) -> Accumulators {
        Accumulators(item.0.to_row())
    }
    #[inline]
    fn reborrow<'b, 'a: 'b>(item: AccumulatorsRef<'a>) -> AccumulatorsRef<'b> {
        item
    }
    #[inline]
    fn push_ref(&mut self, item: AccumulatorsRef<'_>) {
        self.0.push_ref(item.0);
    }
    #[inline]
    fn push_own(&mut self, item: &Accumulators) {
        self.0.push_own(&item.0);
    }
    fn clear(&mut self) {
        self.0.clear();
    }
    fn with_capacity(size: usize) -> Self {
        AccumulatorArena(RowArena::with_capacity(size))
    }
    fn merge_capacity(left: &Self, right: &Self) -> Self {
        AccumulatorArena(RowArena::merge_capacity(&left.0, &right.0))
    }
    #[inline]
    fn index(&self, index: usize) -> AccumulatorsRef<'_> {
        AccumulatorsRef(self.0.index(index))
    }
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// A sum of accumulators while it is computed: decoded, so that additions are made in place.
#[derive(Clone, Default, Debug)]
pub struct AccumulatorSum {
    /// Positions ascend strictly, and values are not zero.
    entries: Vec<(u32, i64)>,
}

impl AccumulatorSum {
    /// The entries, with ascending positions.
    pub fn entries(&self) -> &[(u32, i64)] {
        &self.entries
    }

    /// Adds accumulators.
    #[inline]
    pub fn add(&mut self, accumulators: AccumulatorsRef<'_>) {
        self.add_bytes(accumulators.0.bytes());
    }

    #[inline]
    fn add_bytes(&mut self, accumulators: &[u8]) {
        let mut at = 0;
        for (position, value) in EntryReader::new(accumulators) {
            while self.entries.get(at).is_some_and(|(other, _)| *other < position) {
                at += 1;
            }
            match self.entries.get_mut(at) {
                Some((other, sum)) if *other == position => {
                    *sum = sum.wrapping_add(value);
                    if *sum == 0 {
                        self.entries.remove(at);
                    }
                }
                _ => self.entries.insert(at, (position, value)),
            }
        }
    }

    /// Resets the sum to zero.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

struct EntryReader<'a> {
    bytes: &'a [u8],
    position: u64,
}

impl<'a> EntryReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        EntryReader { bytes, position: 0 }
    }

    #[inline]
    fn number(&mut self) -> u64 {
        match self.bytes {
            // Most numbers take one byte.
            [byte @ ..0x80, rest @ ..] => {
                self.bytes = rest;
                u64::from(*byte)
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        for (index, byte) in self.bytes.iter().enumerate() {
            value |= ((byte & 0x7f) as u64) << shift;
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[index + 1..];
                break;
            }
            shift += 7;
        }
        value
    }
}

impl Iterator for EntryReader<'_> {
    type Item = (u32, i64);

    #[inline]
    fn next(&mut self) -> Option<(u32, i64)> {
        if self.bytes.is_empty() {
            return None;
        }
        self.position += self.number();
        let zigzag = self.number();
        Some((self.position as u32, (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)))
    }
}

/// Encodes entries with ascending positions; zeros are left out.
#[derive(Default)]
pub struct AccumulatorWriter {
    bytes: SmallVec<[u8; 128]>,
    position: u32,
}

impl AccumulatorWriter {
    /// Appends an entry.
    #[inline]
    pub fn push(&mut self, position: u32, value: i64) {
        if value != 0 {
            self.number((position - self.position) as u64);
            self.number((value << 1 ^ value >> 63) as u64);
            self.position = position;
        }
    }

    /// Returns the vector, and resets the writer.
    #[inline]
    pub fn finish(&mut self) -> Accumulators {
        let accumulators = Accumulators(Row::new(&self.bytes));
        self.bytes.clear();
        self.position = 0;
        accumulators
    }

    #[inline]
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Entries = BTreeMap<u32, i64>;

    fn entries() -> impl Strategy<Value = Entries> {
        let value = prop_oneof![-3i64..3, any::<i64>().prop_map(|x| x / 4)];
        prop::collection::btree_map(prop_oneof![0u32..6, 0u32..5000], value, 0..12)
    }

    fn vector(entries: &Entries) -> Accumulators {
        Accumulators::from_entries(entries.iter().map(|(p, x)| (*p, *x)))
    }

    proptest! {
        #[test]
        fn addition_is_by_position((a, b) in (entries(), entries())) {
            let mut expected = a.clone();
            for (position, value) in &b {
                *expected.entry(*position).or_default() += value;
            }
            expected.retain(|_, value| *value != 0);
            let (mut sum, other) = (vector(&a), vector(&b));
            sum.plus_equals(&other);
            prop_assert_eq!(sum.entries().collect::<Entries>(), expected);
            let mut swapped = other.clone();
            swapped.plus_equals(&vector(&a));
            prop_assert_eq!(&sum, &swapped);
            let mut arena = AccumulatorArena::with_capacity(1);
            arena.push_own(&other);
            let mut by_ref = vector(&a);
            by_ref.plus_equals(&arena.index(0));
            prop_assert_eq!(&by_ref, &sum);
            let mut decoded = AccumulatorSum::default();
            for vector in [vector(&a), other] {
                arena.clear();
                arena.push_own(&vector);
                decoded.add(arena.index(0));
            }
            prop_assert_eq!(decoded.entries(), sum.entries().collect::<Vec<_>>());
        }

        #[test]
        fn a_vector_and_its_negation_are_zero(a in entries()) {
            let mut sum = vector(&a);
            let mut negated = sum.clone();
            negated.negate();
            sum.plus_equals(&negated);
            prop_assert!(sum.is_zero());
            prop_assert_eq!(sum, Accumulators::zero());
        }
    }

    #[test]
    fn the_extremes_of_a_position_survive() {
        for value in [i64::MAX, i64::MIN, -1, 1] {
            let vector = Accumulators::from_entries([(7, value), (u32::MAX, value)]);
            assert_eq!(vector.entries().collect::<Vec<_>>(), [(7, value), (u32::MAX, value)]);
        }
    }
}
