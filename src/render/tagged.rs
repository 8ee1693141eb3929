//! Puts rows and error rows into one collection, tagged by their first byte, because a keyed operator that can fail
//! has only one output.

use crate::repr::{Row, Rows};

/// Makes a tagged row of its parts.
pub fn ok(parts: &[&[u8]]) -> Row {
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    bytes.push(0);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Row::new(&bytes)
}

/// Makes a tagged error row.
pub fn err(row: &[u8]) -> Row {
    Row::concat(&[1], row)
}

/// The content of a tagged row: `Ok` for a row, `Err` for an error row.
pub fn part(tagged: &[u8]) -> Result<&[u8], &[u8]> {
    match tagged[0] {
        0 => Ok(&tagged[1..]),
        _ => Err(&tagged[1..]),
    }
}

/// Splits a collection into rows and error rows.
pub fn split<'s>(tagged: Rows<'s>) -> (Rows<'s>, Rows<'s>) {
    let of = |tag: u8| {
        tagged
            .clone()
            .filter(move |row| row.bytes()[0] == tag)
            .map(|row| Row::new(&row.bytes()[1..]))
    };
    (of(0), of(1))
}
