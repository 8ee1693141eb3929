//! Puts the parts of a group's row together, where an aggregate kept apart (min, max, general) is among them.
//!
//! Each part is a fragment (key, tag ++ bytes); one reduction per key turns a group's fragments into its row.
//! The additive fragment decides whether the group exists; a part that is missing has its value over no rows.

use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::Stream;

use super::errors::ErrorCodec;
use super::total::ArrangedRows;
use crate::repr::{Diff, Epoch, Row, RowArena, RowRef, RowValBuilder, RowValSpine};

/// Tag of the additive part: the columns' lengths, then their bytes.
pub(super) const ADDITIVE: u16 = 0;
/// Tag of a part that has no value; its bytes are the reason.
pub(super) const ERROR: u16 = u16::MAX;

/// Where a column of the row comes from.
pub(super) enum Source {
    /// The additive part's column at this position.
    Additive(usize),
    /// The part with this tag; these bytes if it is missing.
    Part(u16, Row),
}

/// A fragment's value.
pub(super) fn fragment(tag: u16, bytes: &[u8]) -> Row {
    Row::concat(&tag.to_be_bytes(), bytes)
}

/// The bytes of an additive part.
pub(super) fn columns_fragment<'a>(columns: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = vec![];
    for column in columns {
        bytes.extend_from_slice(&(column.len() as u32).to_be_bytes());
        bytes.extend_from_slice(column);
    }
    bytes
}

/// The rows (key ++ columns) that the fragments make, and the groups that have an error among them.
pub(super) fn rows<'s>(
    fragments: ArrangedRows<'s>,
    sources: Vec<Source>,
    name: &str,
) -> (VecCollection<'s, Epoch, Row, Diff>, VecCollection<'s, Epoch, Row, Diff>) {
    let logic: Logic = Box::new(move |_, fragments, results| {
        results.extend(assemble(&sources, fragments).map(|row| (row, 1)));
    });
    let collated = reduce(fragments, &format!("{name}: collate"), logic);
    let errors = ErrorCodec::new();
    let oks = flatten(&collated, move |key, tag, bytes| {
        (tag != ERROR).then(|| Row::concat(key.bytes(), bytes))
    });
    let errs = flatten(&collated, move |key, tag, bytes| {
        (tag == ERROR).then(|| errors.row(&String::from_utf8_lossy(bytes), key.bytes()))
    });
    (oks, errs)
}

/// What a reduction makes of a key and its values.
pub(super) type Logic = Box<dyn FnMut(RowRef<'_>, &[(RowRef<'_>, Diff)], &mut Vec<(Row, Diff)>)>;

/// The one instance of differential's reduce that aggregates use.
pub(super) fn reduce<'s>(rows: ArrangedRows<'s>, name: &str, mut logic: Logic) -> ArrangedRows<'s> {
    rows.reduce_abelian::<_, RowValBuilder, RowValSpine, RowArena, _>(
        name,
        move |key, values, results| logic(key, values, results),
        |buffer, key, updates| {
            buffer.clear();
            buffer.extend(
                updates
                    .drain(..)
                    .map(|(value, time, diff)| ((key.to_row(), value), time, diff)),
            );
        },
    )
}

/// The (key, value) of an arrangement as a stream.
pub(super) fn stream<'s>(rows: ArrangedRows<'s>) -> Stream<'s, Epoch, Vec<super::front::Keyed>> {
    rows.as_collection(|key, value| (key.to_row(), value.to_row())).inner
}

fn flatten<'s>(
    rows: &Arranged<'s, TraceAgent<RowValSpine>>,
    mut logic: impl FnMut(RowRef<'_>, u16, &[u8]) -> Option<Row> + 'static,
) -> VecCollection<'s, Epoch, Row, Diff> {
    let rows = rows.clone().flat_map_ref(move |key, value| {
        let (tag, bytes) = split(value);
        logic(key, tag, bytes)
    });
    rows.inner.as_collection()
}

fn split<'a>(value: RowRef<'a>) -> (u16, &'a [u8]) {
    let (tag, bytes) = value
        .bytes()
        .split_first_chunk::<2>()
        .expect("a fragment starts with its tag");
    (u16::from_be_bytes(*tag), bytes)
}

/// The bytes of a row's columns; under [`ERROR`], why there are none. None: there is no group.
fn assemble(sources: &[Source], fragments: &[(RowRef<'_>, Diff)]) -> Option<Row> {
    let parts: Vec<(u16, &[u8])> = fragments.iter().map(|(value, _)| split(*value)).collect();
    if let Some((_, reason)) = parts.iter().find(|(tag, _)| *tag == ERROR) {
        return Some(fragment(ERROR, reason));
    }
    let part = |wanted: u16| parts.iter().find(|(tag, _)| *tag == wanted).map(|(_, bytes)| *bytes);
    let mut additive = vec![];
    let mut rest = part(ADDITIVE)?;
    while let Some((length, bytes)) = rest.split_first_chunk::<4>() {
        let (column, after) = bytes.split_at(u32::from_be_bytes(*length) as usize);
        additive.push(column);
        rest = after;
    }
    let mut row = vec![];
    for source in sources {
        row.extend_from_slice(match source {
            Source::Additive(column) => additive[*column],
            Source::Part(tag, missing) => part(*tag).unwrap_or(missing.bytes()),
        });
    }
    Some(fragment(ADDITIVE, &row))
}
