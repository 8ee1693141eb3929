//! Rows at rest: one allocation for the bytes of a whole batch, one for where each row ends.

use std::cmp::Ordering;

use differential_dataflow::trace::implementations::{BatchContainer, OffsetList};
use timely::container::PushInto;

use super::Row;

/// The rows of a batch, back to back.
pub struct RowArena {
    /// `ends.index(i)..ends.index(i + 1)` is row `i`; starts with a zero.
    ends: OffsetList,
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
        let mut ends = OffsetList::with_capacity(size + 1);
        ends.push(0);
        // Bytes grow by doubling: how long rows are is not known here.
        RowArena {
            ends,
            bytes: Vec::new(),
        }
    }
    fn merge_capacity(left: &Self, right: &Self) -> Self {
        let mut arena = Self::with_capacity(left.len() + right.len());
        arena.bytes.reserve_exact(left.bytes.len() + right.bytes.len());
        arena
    }
    #[inline]
    fn index(&self, index: usize) -> RowRef<'_> {
        RowRef(&self.bytes[self.ends.index(index)..self.ends.index(index + 1)])
    }
    #[inline]
    fn len(&self) -> usize {
        self.ends.len() - 1
    }
}
