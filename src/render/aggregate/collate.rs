//! Puts the parts of a group's row together, where an aggregate kept apart (min, max, general) is among them.
//!
//! Each part is a fragment (key, tag ++ bytes); whenever they change, a group's fragments make its row anew.
//! The additive fragment decides whether the group exists; a part that is missing has its value over no rows.

use std::collections::BTreeMap;

use differential_dataflow::trace::Cursor;
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::{AsCollection, VecCollection};

use super::past::{Batch, Past};
use crate::render::arrange::{ByKey, answer};
use crate::render::error::Errors;
use crate::repr::{Diff, Epoch, Row, RowCodec, RowRef, RowValSpine, Update};

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

/// The rows (key ++ columns) that the fragments make, and the groups that have an error among them;
/// `keys` reads the groups' keys.
pub(super) fn rows<'s>(
    fragments: ByKey<'s>,
    sources: Vec<Source>,
    keys: RowCodec,
    name: &str,
) -> (VecCollection<'s, Epoch, Row, Diff>, VecCollection<'s, Epoch, Row, Diff>) {
    let errors = Errors::default();
    let logic =
        move |before: Vec<Batch>, batches: Vec<Batch>, ok: &mut dyn FnMut(Update), err: &mut dyn FnMut(Update)| {
            let mut old = Past::new(&before);
            let (mut new, new_storage) = cursor_list(batches);
            let mut updates: Vec<(Epoch, RowRef<'_>, Diff)> = vec![];
            let mut fragments: BTreeMap<RowRef<'_>, Diff> = BTreeMap::new();
            while let Some(key) = new.get_key(&new_storage) {
                updates.clear();
                while let Some(value) = new.get_val(&new_storage) {
                    new.map_times(&new_storage, |time, diff| updates.push((*time, value, *diff)));
                    new.step_val(&new_storage);
                }
                updates.sort_unstable();
                fragments.clear();
                old.seek_key(key);
                while let Some((value, count)) = old.next() {
                    fragments.insert(value, count);
                }
                let mut current = assemble(&sources, &fragments);
                for updates in updates.chunk_by(|(time, _, _), (other, _, _)| time == other) {
                    for (_, value, diff) in updates {
                        *fragments.entry(*value).or_default() += diff;
                    }
                    let next = assemble(&sources, &fragments);
                    if next != current {
                        let mut give = |row: &Row, diff| match split(RowRef::new(row.bytes())) {
                            (ERROR, reason) => {
                                let reason = String::from_utf8_lossy(reason);
                                err((errors.encoded(&reason, &keys, key.bytes()), updates[0].0, diff));
                            }
                            (_, columns) => ok((Row::concat(key.bytes(), columns), updates[0].0, diff)),
                        };
                        current.iter().for_each(|row| give(row, -1));
                        next.iter().for_each(|row| give(row, 1));
                        current = next;
                    }
                }
                new.step_key(&new_storage);
            }
        };
    let (oks, errs) = answer::<RowValSpine, Update, _>(fragments, &format!("{name}: collate"), logic);
    (oks.as_collection(), errs.as_collection())
}

fn split<'a>(value: RowRef<'a>) -> (u16, &'a [u8]) {
    let (tag, bytes) = value
        .bytes()
        .split_first_chunk::<2>()
        .expect("a fragment starts with its tag");
    (u16::from_be_bytes(*tag), bytes)
}

/// The bytes of a row's columns; under [`ERROR`], why there are none. None: there is no group.
fn assemble(sources: &[Source], fragments: &BTreeMap<RowRef<'_>, Diff>) -> Option<Row> {
    let present = fragments.iter().filter(|(_, count)| **count > 0);
    let parts: Vec<(u16, &[u8])> = present.map(|(value, _)| split(*value)).collect();
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
