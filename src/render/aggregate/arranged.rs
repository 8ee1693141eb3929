//! Arranges the accumulators of groups.

use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;

use super::front::Accumulated;
use crate::render::arrange::named;
use crate::repr::{AccumulatorBatcher, AccumulatorBuilder, AccumulatorChunker, AccumulatorSpine, Epoch, key_hash};

/// Accumulators arranged by key.
pub type ArrangedAccumulators<'s> = Arranged<'s, TraceAgent<AccumulatorSpine>>;

/// Arranges accumulators by key, on the worker that owns the key.
pub fn arrange_accumulators<'s>(stream: Stream<'s, Epoch, Vec<Accumulated>>, name: &str) -> ArrangedAccumulators<'s> {
    let pact = Exchange::new(|((key, ()), _, _): &Accumulated| key_hash(key.bytes()));
    let arranged = arrange_core::<_, _, AccumulatorChunker, AccumulatorBatcher, AccumulatorBuilder, AccumulatorSpine>(
        stream, pact, name,
    );
    named(arranged, name)
}
