//! From arranged accumulators to results: whenever a group's accumulators change, its old result goes and its
//! new one comes. State is the arrangement alone, one record for each group.

use arrow::row::Rows;
use differential_dataflow::difference::Semigroup;
use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::implementations::BatchContainer;
use differential_dataflow::trace::{Cursor, TraceReader};
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;

use super::accumulators::{
    AccumulatorArena, AccumulatorBatcher, AccumulatorBuilder, AccumulatorChunker, AccumulatorSpine, Accumulators,
};
use super::collate::{ADDITIVE, ERROR, columns_fragment, fragment};
use super::front::{Accumulated, Keyed, exists};
use super::measure::{Finished, Measures};
use crate::render::arrange::{answer, hash};
use crate::render::error::Errors;
use crate::repr::{Diff, Epoch, Row, RowCodec, Update};

type Batch = <AccumulatorSpine as TraceReader>::Batch;

/// Accumulators arranged by key.
pub(super) type ArrangedAccumulators<'s> = Arranged<'s, TraceAgent<AccumulatorSpine>>;

/// States of groups that are finished at once.
const BATCH: usize = 4096;

/// Arranges accumulators by key, on the worker that owns the key.
pub(super) fn arrange<'s>(stream: Stream<'s, Epoch, Vec<Accumulated>>, name: &str) -> ArrangedAccumulators<'s> {
    let pact = Exchange::new(|((key, ()), _, _): &Accumulated| hash(key.bytes()));
    arrange_core::<_, _, AccumulatorChunker, AccumulatorBatcher, AccumulatorBuilder, AccumulatorSpine>(
        stream, pact, name,
    )
}

/// The rows of a GROUP BY whose aggregates are all additive: key ++ results; and the groups without a result.
/// `keys` reads the groups' keys.
pub(super) fn rows<'s>(
    arranged: ArrangedAccumulators<'s>,
    measures: Measures,
    results: RowCodec,
    keys: RowCodec,
    name: &str,
) -> (VecCollection<'s, Epoch, Row, Diff>, VecCollection<'s, Epoch, Row, Diff>) {
    let errors = Errors::default();
    let render = move |states: &[Accumulators]| {
        let Finished { columns, errors } = measures.finish(states);
        let encode = || results.encode(&columns).expect("results are of the codec's types");
        (Bytes::Rows((!columns.is_empty()).then(encode)), errors)
    };
    let give =
        move |key: &[u8], result: Outcome, time, diff, ok: &mut dyn FnMut(Update), err: &mut dyn FnMut(Update)| {
            match result {
                Ok(row) => ok((Row::concat(key, row), time, diff)),
                Err(reason) => err((errors.encoded(reason, &keys, key), time, diff)),
            }
        };
    let (oks, errs) = changes(arranged, &format!("{name}: finish"), render, give);
    (oks.as_collection(), errs.as_collection())
}

/// The additive part of a GROUP BY that has others: a fragment for each group that exists.
pub(super) fn fragments<'s>(
    arranged: ArrangedAccumulators<'s>,
    measures: Measures,
    columns: Vec<RowCodec>,
    name: &str,
) -> Stream<'s, Epoch, Vec<Keyed>> {
    let render = move |states: &[Accumulators]| {
        let finished = measures.finish(states);
        let encoded: Vec<Rows> = columns
            .iter()
            .zip(&finished.columns)
            .map(|(codec, column)| {
                let rows = codec.encode(std::slice::from_ref(column));
                rows.expect("results are of the codec's types")
            })
            .collect();
        let fragments = (0..states.len())
            .map(|state| {
                fragment(
                    ADDITIVE,
                    &columns_fragment(encoded.iter().map(|rows| rows.row(state).data())),
                )
            })
            .collect();
        (Bytes::Owned(fragments), finished.errors)
    };
    let give = |key: &[u8], result: Outcome, time, diff, ok: &mut dyn FnMut(Keyed), _: &mut dyn FnMut(Update)| {
        let value = match result {
            Ok(fragment) => Row::new(fragment),
            Err(reason) => fragment(ERROR, reason.as_bytes()),
        };
        ok(((Row::new(key), value), time, diff));
    };
    changes(arranged, &format!("{name}: finish"), render, give).0
}

/// A state's bytes, or why it has none.
type Outcome<'a> = Result<&'a [u8], &'a str>;

/// The bytes of several states.
enum Bytes {
    /// None: of no columns.
    Rows(Option<Rows>),
    Owned(Vec<Row>),
}

impl Bytes {
    fn of(&self, state: usize) -> &[u8] {
        match self {
            Bytes::Rows(rows) => rows.as_ref().map_or(&[], |rows| rows.row(state).data()),
            Bytes::Owned(rows) => rows[state].bytes(),
        }
    }
}

/// Changes of groups that wait to be finished together.
#[derive(Default)]
struct Pending {
    /// Of groups that exist.
    states: Vec<Accumulators>,
    changes: Vec<Change>,
    /// The changes' keys, back to back.
    keys: Vec<u8>,
}

/// A change of a group: which states it leaves and enters, if it existed and exists.
struct Change {
    key: std::ops::Range<usize>,
    time: Epoch,
    before: Option<usize>,
    after: Option<usize>,
}

impl Pending {
    /// The state's position; none: the group does not exist.
    fn state(&mut self, sum: &Accumulators) -> Option<usize> {
        exists(sum.entries()).then(|| {
            self.states.push(sum.clone());
            self.states.len() - 1
        })
    }

    /// Finishes the states and hands (key, outcome, time, difference) to `give`.
    fn finish(
        &mut self,
        render: impl Fn(&[Accumulators]) -> (Bytes, Vec<Option<String>>),
        mut give: impl FnMut(&[u8], Outcome, Epoch, Diff),
    ) {
        let (bytes, errors) = render(&self.states);
        let outcome = |state: usize| errors[state].as_deref().map_or_else(|| Ok(bytes.of(state)), Err);
        for change in self.changes.drain(..) {
            let key = &self.keys[change.key];
            let (before, after) = (change.before.map(outcome), change.after.map(outcome));
            if before != after {
                before.into_iter().for_each(|result| give(key, result, change.time, -1));
                after.into_iter().for_each(|result| give(key, result, change.time, 1));
            }
        }
        self.states.clear();
        self.keys.clear();
    }
}

fn changes<'s, D: Clone + 'static>(
    arranged: ArrangedAccumulators<'s>,
    name: &str,
    render: impl Fn(&[Accumulators]) -> (Bytes, Vec<Option<String>>) + 'static,
    give: impl Fn(&[u8], Outcome, Epoch, Diff, &mut dyn FnMut(D), &mut dyn FnMut(Update)) + 'static,
) -> (Stream<'s, Epoch, Vec<D>>, Stream<'s, Epoch, Vec<Update>>) {
    let mut pending = Pending::default();
    let logic = move |before: Vec<Batch>, batches: Vec<Batch>, ok: &mut dyn FnMut(D), err: &mut dyn FnMut(Update)| {
        let (mut old, old_storage) = cursor_list(before);
        let (mut new, new_storage) = cursor_list(batches);
        let mut updates: Vec<(Epoch, Accumulators)> = vec![];
        let mut finish = |pending: &mut Pending| {
            pending.finish(&render, |key, result, time, diff| {
                give(key, result, time, diff, ok, err)
            });
        };
        while let Some(key) = new.get_key(&new_storage) {
            updates.clear();
            new.map_times(&new_storage, |time, diff| {
                updates.push((*time, AccumulatorArena::into_owned(diff)));
            });
            updates.sort_by_key(|(time, _)| *time);
            let mut sum = Accumulators::default();
            old.seek_key(&old_storage, key);
            if old.get_key(&old_storage) == Some(key) {
                old.map_times(&old_storage, |_, diff| sum.plus_equals(&diff));
            }
            let start = pending.keys.len();
            pending.keys.extend_from_slice(key.bytes());
            let mut before = pending.state(&sum);
            for updates in updates.chunk_by(|(time, _), (other, _)| time == other) {
                updates.iter().for_each(|(_, diff)| sum.plus_equals(diff));
                let after = pending.state(&sum);
                if before.is_some() || after.is_some() {
                    pending.changes.push(Change {
                        key: start..pending.keys.len(),
                        time: updates[0].0,
                        before,
                        after,
                    });
                }
                before = after;
            }
            if pending.states.len() >= BATCH {
                finish(&mut pending);
            }
            new.step_key(&new_storage);
        }
        if !pending.changes.is_empty() {
            finish(&mut pending);
        }
    };
    answer::<AccumulatorSpine, D, _>(arranged, name, logic)
}
