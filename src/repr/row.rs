//! One tuple in flight: its arrow-row bytes, inline when short.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The arrow-row encoding of one tuple.
///
/// Rows compare, hash and concatenate as bytes; their meaning is known only to the
/// [`RowCodec`](super::RowCodec) of their schema. Up to 23 bytes are held inline; the empty row is the
/// only tuple of the empty schema (the key of a global aggregate).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Row(SmallVec<[u8; 23]>);

impl Row {
    /// The row with these bytes.
    #[inline]
    pub fn new(bytes: &[u8]) -> Self {
        Row(SmallVec::from_slice(bytes))
    }

    /// `left ++ right`: the row of both tuples side by side.
    #[inline]
    pub fn concat(left: &[u8], right: &[u8]) -> Self {
        let mut bytes = SmallVec::with_capacity(left.len() + right.len());
        bytes.extend_from_slice(left);
        bytes.extend_from_slice(right);
        Row(bytes)
    }

    /// The row of several tuples side by side.
    #[inline]
    pub fn concat_all(parts: &[&[u8]]) -> Self {
        let mut bytes = SmallVec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Row(bytes)
    }

    /// Keeps these ranges of the bytes, which ascend.
    #[inline]
    pub fn keep(&mut self, ranges: &[Range<usize>]) {
        let mut end = 0;
        for range in ranges {
            let length = range.len();
            if range.start > end {
                self.0.copy_within(range.clone(), end);
            }
            end += length;
        }
        self.0.truncate(end);
    }

    /// The encoded bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Row {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row(")?;
        for byte in self.0.iter() {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ")")
    }
}
