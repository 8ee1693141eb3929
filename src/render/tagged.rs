//! Rows and error rows in one collection, told apart by their first byte: what a keyed operator that can fail
//! yields, since its output is one collection.

use super::arrange::Rows;
use crate::repr::Row;

/// A row that is fine, from its parts.
pub fn ok(parts: &[&[u8]]) -> Row {
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    bytes.push(0);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Row::new(&bytes)
}

/// An error row.
pub fn err(row: &[u8]) -> Row {
    Row::concat(&[1], row)
}

/// What a tagged row holds: a row that is fine, or else an error row.
pub fn part(tagged: &[u8]) -> Result<&[u8], &[u8]> {
    match tagged[0] {
        0 => Ok(&tagged[1..]),
        _ => Err(&tagged[1..]),
    }
}

/// Rows that are fine, and error rows.
pub fn split<'s>(tagged: Rows<'s>) -> (Rows<'s>, Rows<'s>) {
    let of = |tag: u8| {
        tagged
            .clone()
            .filter(move |row| row.bytes()[0] == tag)
            .map(|row| Row::new(&row.bytes()[1..]))
    };
    (of(0), of(1))
}
