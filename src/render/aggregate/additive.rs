//! From arranged accumulators to results: whenever a group's accumulators change, its old result goes and its
//! new one comes. State is the arrangement alone, one record for each group.

use differential_dataflow::difference::Semigroup;
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::implementations::BatchContainer;
use differential_dataflow::trace::{Cursor, TraceReader};
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::Stream;

use super::accumulators::{AccumulatorArena, AccumulatorSpine, Accumulators};
use super::collate::{ADDITIVE, ERROR, columns_fragment, fragment};
use super::errors::ErrorCodec;
use super::front::{Keyed, exists};
use super::measure::Measures;
use super::total::{ArrangedAccumulators, answer};
use crate::repr::{Diff, Epoch, Row, RowCodec, Update};

type Batch = <AccumulatorSpine as TraceReader>::Batch;

/// States of groups that are finished at once.
const BATCH: usize = 4096;

/// The rows of a GROUP BY whose aggregates are all additive: key ++ results; and the groups without a result.
pub(super) fn rows<'s>(
    arranged: ArrangedAccumulators<'s>,
    measures: Measures,
    results: RowCodec,
    name: &str,
) -> (VecCollection<'s, Epoch, Row, Diff>, VecCollection<'s, Epoch, Row, Diff>) {
    let errors = ErrorCodec::new();
    let render = move |states: &[Accumulators]| {
        let finished = measures.finish(states);
        let rows = results
            .encode_rows(&finished.columns, states.len())
            .expect("results are of the codec's types");
        (rows, finished.errors)
    };
    let give =
        move |key: &Row, result: &Outcome, time, diff, ok: &mut dyn FnMut(Update), err: &mut dyn FnMut(Update)| {
            match result {
                Ok(row) => ok((Row::concat(key.bytes(), row.bytes()), time, diff)),
                Err(reason) => err((errors.row(reason, key.bytes()), time, diff)),
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
        let encoded: Vec<Vec<Row>> = columns
            .iter()
            .zip(&finished.columns)
            .map(|(codec, column)| {
                let rows = codec.encode_rows(std::slice::from_ref(column), states.len());
                rows.expect("results are of the codec's types")
            })
            .collect();
        let fragments = (0..states.len())
            .map(|state| {
                fragment(
                    ADDITIVE,
                    &columns_fragment(encoded.iter().map(|column| column[state].bytes())),
                )
            })
            .collect();
        (fragments, finished.errors)
    };
    let give = |key: &Row, result: &Outcome, time, diff, ok: &mut dyn FnMut(Keyed), _: &mut dyn FnMut(Update)| {
        let value = match result {
            Ok(fragment) => fragment.clone(),
            Err(reason) => fragment(ERROR, reason.as_bytes()),
        };
        ok(((key.clone(), value), time, diff));
    };
    changes(arranged, &format!("{name}: finish"), render, give).0
}

type Outcome = Result<Row, String>;

/// A change of a group: which of the states at hand it leaves and enters, if it existed and exists.
struct Change {
    key: Row,
    time: Epoch,
    before: Option<usize>,
    after: Option<usize>,
}

fn changes<'s, D: Clone + 'static>(
    arranged: ArrangedAccumulators<'s>,
    name: &str,
    render: impl Fn(&[Accumulators]) -> (Vec<Row>, Vec<Option<String>>) + 'static,
    give: impl Fn(&Row, &Outcome, Epoch, Diff, &mut dyn FnMut(D), &mut dyn FnMut(Update)) + 'static,
) -> (Stream<'s, Epoch, Vec<D>>, Stream<'s, Epoch, Vec<Update>>) {
    let logic = move |before: Vec<Batch>, batches: Vec<Batch>, ok: &mut dyn FnMut(D), err: &mut dyn FnMut(Update)| {
        let (mut old, old_storage) = cursor_list(before);
        let (mut new, new_storage) = cursor_list(batches);
        let mut updates: Vec<(Epoch, Accumulators)> = vec![];
        let (mut states, mut changes): (Vec<Accumulators>, Vec<Change>) = (vec![], vec![]);
        let mut finish = |states: &mut Vec<Accumulators>, changes: &mut Vec<Change>| {
            let (rows, errors) = render(states);
            let results: Vec<Outcome> = (rows.into_iter().zip(errors))
                .map(|(row, error)| error.map_or(Ok(row), Err))
                .collect();
            for Change {
                key,
                time,
                before,
                after,
            } in changes.drain(..)
            {
                let (before, after) = (before.map(|i| &results[i]), after.map(|i| &results[i]));
                if before == after {
                    continue;
                }
                if let Some(result) = before {
                    give(&key, result, time, -1, ok, err);
                }
                if let Some(result) = after {
                    give(&key, result, time, 1, ok, err);
                }
            }
            states.clear();
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
            let mut state = |sum: &Accumulators| {
                exists(sum.entries()).then(|| {
                    states.push(sum.clone());
                    states.len() - 1
                })
            };
            let mut before = state(&sum);
            let mut at = 0;
            while at < updates.len() {
                let time = updates[at].0;
                while at < updates.len() && updates[at].0 == time {
                    sum.plus_equals(&updates[at].1);
                    at += 1;
                }
                let after = state(&sum);
                if before.is_some() || after.is_some() {
                    let key = key.to_row();
                    changes.push(Change {
                        key,
                        time,
                        before,
                        after,
                    });
                }
                before = after;
            }
            if states.len() >= BATCH {
                finish(&mut states, &mut changes);
            }
            new.step_key(&new_storage);
        }
        if !changes.is_empty() {
            finish(&mut states, &mut changes);
        }
    };
    answer::<AccumulatorSpine, D, _>(arranged, name, logic)
}
