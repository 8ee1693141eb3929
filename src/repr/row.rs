//! One tuple as its arrow-row bytes, stored inline if short.
//!
//! A row takes 32 bytes, of which 30 hold data. A vector of the same size with inline storage (`SmallVec<[u8; 23]>`)
//! would hold 23: a text of 17 characters, a usual key, takes 28 bytes in arrow's encoding, and would be allocated
//! each time it is copied.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::footprint::Heap;

/// The greatest length in bytes of a row that needs no allocation.
const INLINE: usize = 30;

/// The arrow-row encoding of one tuple.
///
/// Rows compare, hash and concatenate as bytes; only the [`RowCodec`](super::RowCodec) of their schema knows their
/// meaning. The empty row is the only tuple of the empty schema (the key of a global aggregate).
#[derive(Clone)]
pub struct Row(Bytes);

#[derive(Clone)]
enum Bytes {
    /// The first `length` of these bytes; the others have no meaning.
    Inline { length: u8, bytes: [u8; INLINE] },
    /// A row that is too long to be stored inline, or was before it was cut.
    Heap(Vec<u8>),
}

const _: () = assert!(size_of::<Row>() == 32);

impl Heap for Row {
    fn heap(&self) -> usize {
        match &self.0 {
            Bytes::Inline { .. } => 0,
            Bytes::Heap(bytes) => bytes.heap(),
        }
    }
}

impl Row {
    /// The row with these bytes.
    #[inline]
    pub fn new(bytes: &[u8]) -> Self {
        Row::concat(bytes, &[])
    }

    /// `left ++ right`: the concatenation of two tuples.
    #[inline]
    pub fn concat(left: &[u8], right: &[u8]) -> Self {
        let length = left.len() + right.len();
        if length <= INLINE {
            let mut bytes = [0; INLINE];
            bytes[..left.len()].copy_from_slice(left);
            bytes[left.len()..length].copy_from_slice(right);
            let length = length as u8;
            return Row(Bytes::Inline { length, bytes });
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(left);
        bytes.extend_from_slice(right);
        Row(Bytes::Heap(bytes))
    }

    /// The concatenation of several tuples.
    #[inline]
    pub fn concat_all(parts: &[&[u8]]) -> Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length <= INLINE {
            let mut bytes = [0; INLINE];
            let mut end = 0;
            for part in parts {
                bytes[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
            let length = length as u8;
            return Row(Bytes::Inline { length, bytes });
        }
        let mut bytes = Vec::with_capacity(length);
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Row(Bytes::Heap(bytes))
    }

    /// Keeps only these ranges of the bytes, which must ascend.
    #[inline]
    pub fn keep(&mut self, ranges: &[Range<usize>]) {
        let bytes = match &mut self.0 {
            Bytes::Inline { bytes, .. } => bytes.as_mut_slice(),
            Bytes::Heap(bytes) => bytes,
        };
        let mut end = 0;
        for range in ranges {
            if range.start > end {
                bytes.copy_within(range.clone(), end);
            }
            end += range.len();
        }
        match &mut self.0 {
            Bytes::Inline { length, .. } => *length = end as u8,
            Bytes::Heap(bytes) => bytes.truncate(end),
        }
    }

    /// The encoded bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Bytes::Heap(bytes) => bytes,
        }
    }
}

impl Default for Row {
    #[inline]
    fn default() -> Self {
        Row::new(&[])
    }
}

impl PartialEq for Row {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl Hash for Row {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// Rows are serialized as one sequence of bytes, to be sent between processes.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.bytes())
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a row")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Row, E> {
                Ok(Row::new(bytes))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// A row is equal, ordered and hashed as its bytes are.
impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl AsRef<[u8]> for Row {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row(")?;
        for byte in self.bytes() {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The bytes of rows that are stored inline or on the heap.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..2 * INLINE)
    }

    proptest! {
        #[test]
        fn a_row_is_its_bytes_however_it_holds_them(left in bytes(), right in bytes(), cut in 0..2 * INLINE) {
            let both = [left.clone(), right.clone()].concat();
            let row = Row::concat(&left, &right);
            prop_assert_eq!(row.bytes(), both.as_slice());
            prop_assert_eq!(&row, &Row::concat_all(&[&left, &right]));
            prop_assert_eq!(row.cmp(&Row::new(&left)), both.cmp(&left));
            let cut = cut.min(both.len());
            let mut shortened = row.clone();
            shortened.keep(&[0..cut / 2, cut..both.len()]);
            let expected = [&both[..cut / 2], &both[cut..]].concat();
            prop_assert_eq!(shortened.bytes(), expected.as_slice());
            prop_assert_eq!(&shortened, &Row::new(&expected));
            // This is how timely sends a row to another process.
            let written = bincode::serialize(&row).unwrap();
            prop_assert_eq!(bincode::deserialize::<Row>(&written).unwrap(), row);
        }
    }
}
