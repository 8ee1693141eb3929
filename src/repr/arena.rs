//! The rows of a batch: one allocation for all of their bytes, and one for where each row ends.

use std::cmp::Ordering;

use differential_dataflow::trace::implementations::BatchContainer;
use timely::container::PushInto;

use super::footprint::Heap;
use super::{Offsets, Row};

/// The rows of a batch, stored back to back.
pub struct RowArena {
    /// Row `i` is `ends.get(i)..ends.get(i + 1)`; the first entry is zero.
    ends: Offsets,
    bytes: Vec<u8>,
}

/// A row borrowed from an arena.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RowRef<'a>(&'a [u8]);

impl<'a> RowRef<'a> {
    /// A borrowed row over these bytes.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        RowRef(bytes)
    }

    /// The encoded bytes.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// An owned copy.
    #[inline]
    pub fn to_row(self) -> Row {
        Row::new(self.0)
    }
}

impl<'a> PartialEq<&'a Row> for RowRef<'a> {
    #[inline]
    fn eq(&self, other: &&'a Row) -> bool {
        self.0 == other.bytes()
    }
}

impl<'a> PartialOrd<&'a Row> for RowRef<'a> {
    #[inline]
    fn partial_cmp(&self, other: &&'a Row) -> Option<Ordering> {
        Some(self.0.cmp(other.bytes()))
    }
}

impl RowArena {
    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    /// The capacity in bytes.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reserves exactly this many more bytes.
    pub fn reserve_bytes(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes);
    }
}

impl Heap for RowArena {
    fn heap(&self) -> usize {
        self.bytes.heap() + self.ends.heap()
    }
}

impl PushInto<RowRef<'_>> for RowArena {
    #[inline]
    fn push_into(&mut self, item: RowRef<'_>) {
        self.append(item.0);
    }
}

impl PushInto<Row> for RowArena {
    #[inline]
    fn push_into(&mut self, item: Row) {
        self.append(item.bytes());
    }
}

impl BatchContainer for RowArena {
    type Owned = Row;
    type ReadItem<'a> = RowRef<'a>;

    #[inline]
    fn into_owned<'a>(item: RowRef<'a>) -> Row {
        item.to_row()
    }
    #[inline]
    fn reborrow<'b, 'a: 'b>(item: RowRef<'a>) -> RowRef<'b> {
        item
    }
    #[inline]
    fn push_ref(&mut self, item: RowRef<'_>) {
        self.append(item.0);
    }
    #[inline]
    fn push_own(&mut self, item: &Row) {
        self.append(item.bytes());
    }
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.ends.push(0);
    }
    fn with_capacity(size: usize) -> Self {
        let mut ends = Offsets::with_capacity(size + 1);
        ends.push(0);
        // Bytes grow by doubling, because the length of rows is not known here.
        RowArena {
            ends,
            bytes: Vec::new(),
        }
    }
    fn merge_capacity(left: &Self, right: &Self) -> Self {
        let mut arena = Self::with_capacity(left.len() + right.len());
        arena.reserve_bytes(left.bytes.len() + right.bytes.len());
        arena
    }
    #[inline]
    fn index(&self, index: usize) -> RowRef<'_> {
        RowRef(&self.bytes[self.ends.get(index)..self.ends.get(index + 1)])
    }
    #[inline]
    fn len(&self) -> usize {
        self.ends.len() - 1
    }
}
