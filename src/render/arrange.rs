//! The heavy generics of differential dataflow over [`Row`]s, each instantiated once: arrange, join, reduce, threshold
//! and scan. Every operator of the graph uses them, so the representation of an arrangement can be changed in one
//! place, and all uses share one copy of machine code.
//!
//! Rows are exchanged by the hash of their key bytes ([`key_hash`]). Closures are boxed: a dynamic call per match or
//! group is cheap compared with the cursor work around it.

use differential_dataflow::AsCollection;
use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::cursor::{CursorList, cursor_list};
use differential_dataflow::trace::{BatchReader, Cursor, Navigable, TraceReader};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Antichain;

use crate::repr::{
    Diff, Epoch, Pairs, Row, RowKeyBatcher, RowKeyBuilder, RowKeyChunker, RowKeySpine, RowRef, RowValBatcher,
    RowValBuilder, RowValChunker, RowValSpine, Rows, Update, footprint, key_hash,
};

/// Values arranged by key.
pub type ByKey<'s> = Arranged<'s, TraceAgent<RowValSpine>>;
/// Rows arranged by themselves.
pub type ByRow<'s> = Arranged<'s, TraceAgent<RowKeySpine>>;

/// The logic of a [`reduce`]: takes a key and its values with their counts (in byte order), and appends to the output.
pub type Reduction = Box<dyn FnMut(RowRef<'_>, &[(RowRef<'_>, Diff)], &mut Vec<(Row, Diff)>)>;

/// The logic of a [`join`]: makes a row of the key, the left value and the right value.
pub type Match = Box<dyn FnMut(RowRef<'_>, RowRef<'_>, RowRef<'_>) -> Row>;

/// The logic of a [`scan`]: takes a key and its values in byte order, of which it should read no more than it needs,
/// and appends to the output. The output must depend on nothing else.
pub type KeyScan = Box<dyn FnMut(RowRef<'_>, &mut KeyValues<'_>, &mut Vec<(Row, Diff)>)>;

/// Arranges values by key, on the worker that owns the key.
pub fn arrange_by_key<'s>(pairs: Pairs<'s>, name: &str) -> ByKey<'s> {
    arrange_pairs(pairs, |(key, _)| key_hash(key.bytes()), name)
}

/// Arranges values by key, where the hash of (key, value) chooses the worker. For operators that do not need all
/// values of a key in one place.
pub fn arrange_spread<'s>(pairs: Pairs<'s>, name: &str) -> ByKey<'s> {
    let owner = |(key, value): &(Row, Row)| key_hash(key.bytes()) ^ key_hash(value.bytes()).rotate_left(17);
    arrange_pairs(pairs, owner, name)
}

fn arrange_pairs<'s>(pairs: Pairs<'s>, owner: fn(&(Row, Row)) -> u64, name: &str) -> ByKey<'s> {
    let exchange = Exchange::new(move |update: &((Row, Row), Epoch, Diff)| owner(&update.0));
    let arranged =
        arrange_core::<_, _, RowValChunker, RowValBatcher, RowValBuilder, RowValSpine>(pairs.inner, exchange, name);
    named(arranged, name)
}

/// Arranges rows by themselves.
pub fn arrange_rows<'s>(rows: Rows<'s>, name: &str) -> ByRow<'s> {
    let exchange = Exchange::new(|update: &((Row, ()), Epoch, Diff)| key_hash(update.0.0.bytes()));
    let arranged = arrange_core::<_, _, RowKeyChunker, RowKeyBatcher, RowKeyBuilder, RowKeySpine>(
        rows.map(|row| (row, ())).inner,
        exchange,
        name,
    );
    named(arranged, name)
}

/// Gives the arrangement a name for reports of footprints.
pub fn named<'s, Tr: TraceReader>(arranged: Arranged<'s, TraceAgent<Tr>>, name: &str) -> Arranged<'s, TraceAgent<Tr>> {
    footprint::name(arranged.trace.operator().global_id, name);
    arranged
}

/// All pairs of values with equal keys, as `emit` joins them; counts multiply.
pub fn join<'s>(left: ByKey<'s>, right: ByKey<'s>, mut emit: Match) -> Rows<'s> {
    left.join_core(right, move |key, left, right| Some(emit(key, left, right)))
}

/// Computes a group from all its values whenever it changes, and keeps its previous output. A change costs O(group).
/// The logic is not called for a group without values.
pub fn reduce<'s>(input: ByKey<'s>, name: &str, mut logic: Reduction) -> ByKey<'s> {
    let reduced = input.reduce_abelian::<_, RowValBuilder, RowValSpine, _, _>(
        name,
        move |key, values, output| logic(key, values, output),
        |container, key, updates| {
            container.clear();
            updates
                .drain(..)
                .for_each(|(value, time, diff)| container.push(key.bytes(), value.bytes(), time, diff));
        },
    );
    named(reduced, name)
}

type Batch = <RowValSpine as TraceReader>::Batch;
type BatchCursor = <Batch as Navigable>::Cursor;

/// The values of one key just before one time, in byte order, with counts above zero.
pub struct KeyValues<'a> {
    cursor: &'a mut CursorList<BatchCursor>,
    storage: &'a Vec<Batch>,
    /// Updates at this time and later are ignored.
    until: Epoch,
}

impl<'a> Iterator for KeyValues<'a> {
    type Item = (RowRef<'a>, Diff);

    fn next(&mut self) -> Option<(RowRef<'a>, Diff)> {
        while let Some(value) = self.cursor.get_val(self.storage) {
            let mut count = 0;
            let until = self.until;
            self.cursor.map_times(self.storage, |time, diff| {
                if *time < until {
                    count += *diff;
                }
            });
            self.cursor.step_val(self.storage);
            if count > 0 {
                return Some((value, count));
            }
        }
        None
    }
}

/// Computes a function of each key's values that usually reads only the first few of them, as in top-k, presence and
/// uniqueness.
///
/// Unlike [`reduce`] it keeps no output: the previous output of a key is computed again from the arrangement, so a
/// change runs `logic` twice. Values that are deleted but not yet compacted are skipped.
pub fn scan<'s>(input: ByKey<'s>, name: &str, mut logic: KeyScan) -> Rows<'s> {
    let mut times: Vec<Epoch> = Vec::new();
    let mut changes: Vec<(Row, Diff)> = Vec::new();
    let (rows, _) = answer::<RowValSpine, Update, _>(input, name, move |before, fresh, give, _| {
        let mut all = before;
        all.extend(fresh.iter().cloned());
        let (mut changed, changed_storage) = cursor_list(fresh);
        let (mut cursor, storage) = cursor_list(all);
        while let Some(key) = changed.get_key(&changed_storage) {
            times.clear();
            while changed.get_val(&changed_storage).is_some() {
                changed.map_times(&changed_storage, |time, _| times.push(*time));
                changed.step_val(&changed_storage);
            }
            times.sort_unstable();
            times.dedup();
            cursor.seek_key(&storage, key);
            let mut run = |cursor: &mut CursorList<BatchCursor>, until, out: &mut Vec<(Row, Diff)>| {
                cursor.rewind_vals(&storage);
                let mut values = KeyValues {
                    cursor,
                    storage: &storage,
                    until,
                };
                logic(key, &mut values, out);
            };
            if let Some(first) = times.first() {
                run(&mut cursor, *first, &mut changes);
            }
            for time in &times {
                // The output before this time is retracted, and the output at this time is added.
                changes.iter_mut().for_each(|(_, diff)| *diff = -*diff);
                let entering = changes.len();
                run(&mut cursor, time.saturating_add(1), &mut changes);
                let current = changes[entering..].to_vec();
                differential_dataflow::consolidation::consolidate(&mut changes);
                changes.drain(..).for_each(|(row, diff)| give((row, *time, diff)));
                changes = current;
            }
            changes.clear();
            changed.step_key(&changed_storage);
        }
    });
    rows.as_collection()
}

/// Each row whose count is above zero, once.
pub fn distinct<'s>(input: ByRow<'s>, name: &str) -> Rows<'s> {
    counted(input, name, |count| Diff::from(count > 0))
}

/// Each row, as often as `shown` returns for its count.
pub fn counted<'s>(input: ByRow<'s>, name: &str, shown: fn(Diff) -> Diff) -> Rows<'s> {
    let mut updates: Vec<(Epoch, Diff)> = Vec::new();
    let (rows, _) = answer::<RowKeySpine, Update, _>(input, name, move |before, fresh, give, _| {
        let (mut changed, changed_storage) = cursor_list(fresh);
        let (mut cursor, storage) = cursor_list(before);
        while let Some(row) = changed.get_key(&changed_storage) {
            let mut count: Diff = 0;
            cursor.seek_key(&storage, row);
            if cursor.get_key(&storage) == Some(row) {
                cursor.map_times(&storage, |_, diff| count += *diff);
            }
            updates.clear();
            changed.map_times(&changed_storage, |time, diff| updates.push((*time, *diff)));
            updates.sort_unstable();
            for (time, diff) in &updates {
                let before = shown(count);
                count += diff;
                let change = shown(count) - before;
                if change != 0 {
                    give((row.to_row(), *time, change));
                }
            }
            changed.step_key(&changed_storage);
        }
    });
    rows.as_collection()
}

/// Calls `logic` with every run of new batches and the batches before it; `logic` passes its updates to its last two
/// arguments, for results and for errors.
///
/// The output's frontier is the arrangement's: a complete batch is processed in the same activation, so the operator
/// holds no capability. All times in the batches before are less than all times in the new ones.
pub fn answer<'s, Tr, D, L>(
    arranged: Arranged<'s, TraceAgent<Tr>>,
    name: &str,
    mut logic: L,
) -> (Stream<'s, Epoch, Vec<D>>, Stream<'s, Epoch, Vec<Update>>)
where
    Tr: TraceReader<Time = Epoch> + differential_dataflow::trace::Trace + 'static,
    D: Clone + 'static,
    L: FnMut(Vec<Tr::Batch>, Vec<Tr::Batch>, &mut dyn FnMut(D), &mut dyn FnMut(Update)) + 'static,
{
    let mut trace = arranged.trace;
    let scope = arranged.stream.scope();
    let mut builder = OperatorBuilder::new(name.to_string(), scope);
    let mut input = builder.new_input(arranged.stream, Pipeline);
    let (oks, oks_stream) = builder.new_output();
    let mut oks = OutputBuilder::<_, CapacityContainerBuilder<Vec<D>>>::from(oks);
    let (errs, errs_stream) = builder.new_output();
    let mut errs = OutputBuilder::<_, CapacityContainerBuilder<Vec<Update>>>::from(errs);
    builder.build(move |_capabilities| {
        let mut lower = Antichain::from_elem(Epoch::MIN);
        let mut upper = Antichain::from_elem(Epoch::MIN);
        move |_frontiers| {
            lower.clone_from(&upper);
            let mut earliest = None;
            let mut batches = vec![];
            input.for_each(|capability, data| {
                // Batches arrive in the order of their bounds, so the first capability is valid for all of them.
                if earliest.is_none() {
                    earliest = Some((capability.retain(0), capability.retain(1)));
                }
                for batch in data.drain(..) {
                    upper.clone_from(batch.upper());
                    batches.push(batch);
                }
            });
            if let Some((for_oks, for_errs)) = earliest {
                let before = trace
                    .batches_through(lower.borrow())
                    .expect("the trace is held uncompacted at the last batch's upper");
                let (mut oks, mut errs) = (oks.activate(), errs.activate());
                let (mut oks, mut errs) = (oks.session(&for_oks), errs.session(&for_errs));
                logic(before, batches, &mut |update| oks.give(update), &mut |update| {
                    errs.give(update)
                });
            }
            trace.advance_upper(&mut upper);
            // Times before the next batch must stay distinguishable from times in it. So compaction may advance them
            // to the last moment before `upper`, but not to `upper` itself.
            let before: Antichain<Epoch> = upper.iter().map(|time| time.saturating_sub(1)).collect();
            trace.set_logical_compaction(before.borrow());
            trace.set_physical_compaction(upper.borrow());
        }
    });
    (oks_stream, errs_stream)
}
