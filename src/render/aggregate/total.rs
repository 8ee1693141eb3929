//! Stateful operators over totally ordered time: each batch of changes is met with what was there before it,
//! and everything it causes is computed at once.
//!
//! The frontier of the output is the frontier of the arrangement: a batch that is complete is answered in the
//! same activation, so no capability is ever kept.

use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::{BatchReader, TraceReader};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Antichain;
use twox_hash::XxHash3_64;

use super::accumulators::{AccumulatorBatcher, AccumulatorBuilder, AccumulatorSpine, Accumulators};
use super::chunker::Chunker;
use super::front::{Accumulated, Keyed};
use crate::repr::{Diff, Epoch, Row, RowValBatcher, RowValBuilder, RowValSpine, Update};

/// Rows arranged by key.
pub(super) type ArrangedRows<'s> = Arranged<'s, TraceAgent<RowValSpine>>;
/// Accumulators arranged by key.
pub(super) type ArrangedAccumulators<'s> = Arranged<'s, TraceAgent<AccumulatorSpine>>;

/// Arranges rows by key, on the worker that owns the key; `spread`: that owns key and value, for what does not
/// need a whole group in one place.
pub(super) fn arrange_rows<'s>(stream: Stream<'s, Epoch, Vec<Keyed>>, spread: bool, name: &str) -> ArrangedRows<'s> {
    let pact = Exchange::new(move |((key, value), _, _): &Keyed| {
        let hash = route(key);
        if spread {
            hash ^ route(value).rotate_left(17)
        } else {
            hash
        }
    });
    arrange_core::<_, _, Chunker<(Row, Row), Diff>, RowValBatcher, RowValBuilder, RowValSpine>(stream, pact, name)
}

/// Arranges accumulators by key, on the worker that owns the key.
pub(super) fn arrange_accumulators<'s>(
    stream: Stream<'s, Epoch, Vec<Accumulated>>,
    name: &str,
) -> ArrangedAccumulators<'s> {
    let pact = Exchange::new(|((key, ()), _, _): &Accumulated| route(key));
    arrange_core::<_, _, Chunker<(Row, ()), Accumulators>, AccumulatorBatcher, AccumulatorBuilder, AccumulatorSpine>(
        stream, pact, name,
    )
}

/// The same on every machine: workers must agree.
fn route(row: &Row) -> u64 {
    XxHash3_64::oneshot(row.bytes())
}

/// Runs `logic` on every run of new batches and the batches before them; it hands updates to its last two
/// arguments: results, and errors.
pub(super) fn answer<'s, Tr, D, L>(
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
                // Batches come in the order of their bounds, so the first capability is good for all.
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
                    .expect("the trace is not compacted beyond `lower`");
                let (mut oks, mut errs) = (oks.activate(), errs.activate());
                let (mut oks, mut errs) = (oks.session(&for_oks), errs.session(&for_errs));
                logic(before, batches, &mut |update| oks.give(update), &mut |update| {
                    errs.give(update)
                });
            }
            trace.advance_upper(&mut upper);
            trace.set_logical_compaction(upper.borrow());
            trace.set_physical_compaction(upper.borrow());
        }
    });
    (oks_stream, errs_stream)
}
