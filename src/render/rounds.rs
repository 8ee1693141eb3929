//! The heavy generics of differential dataflow once more, for the scope of a recursive query, whose times include a
//! round: arrange, join with an arrangement from outside, reduce, and kernels. They correspond to those in `arrange`
//! and `expr`.

use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::wrappers::enter::TraceEnter;
use differential_dataflow::{AsCollection, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::arrange::{Match, Reduction, named};
use super::error::Errors;
use super::expr::{ApplyOutput, Outputs, RowKernel, gather, isolate, relaxed};
use crate::repr::{
    Diff, Epoch, Round, RoundValBatcher, RoundValBuilder, RoundValChunker, RoundValSpine, Row, RowCodec, RowValSpine,
    Update, key_hash,
};
use arrow::datatypes::SchemaRef;

/// Updates of rows, with rounds.
pub type RoundRows<'i> = VecCollection<'i, Round, Row, Diff>;
/// Updates of (key, value) pairs, with rounds.
pub type RoundPairs<'i> = VecCollection<'i, Round, (Row, Row), Diff>;
/// Values arranged by key, with rounds.
pub type RoundByKey<'i> = Arranged<'i, TraceAgent<RoundValSpine>>;
/// An arrangement from outside, brought into the scope.
pub type OuterByKey<'i> = Arranged<'i, TraceEnter<TraceAgent<RowValSpine>, Round>>;

/// Arranges values by key, on the worker that owns the key.
pub fn arrange_by_key<'i>(pairs: RoundPairs<'i>, name: &str) -> RoundByKey<'i> {
    let exchange = Exchange::new(|update: &((Row, Row), Round, Diff)| key_hash(update.0.0.bytes()));
    let arranged = arrange_core::<_, _, RoundValChunker, RoundValBatcher, RoundValBuilder, RoundValSpine>(
        pairs.inner,
        exchange,
        name,
    );
    named(arranged, name)
}

/// All pairs of values with equal keys, as `emit` joins key, inner value and outer value.
pub fn join<'i>(inside: RoundByKey<'i>, outside: OuterByKey<'i>, mut emit: Match) -> RoundRows<'i> {
    inside.join_core(outside, move |key, inside, outside| Some(emit(key, inside, outside)))
}

/// Computes a function of each key's values. The logic is not called for a group without values.
pub fn reduce<'i>(input: RoundByKey<'i>, name: &str, mut logic: Reduction) -> RoundByKey<'i> {
    let reduced = input.reduce_abelian::<_, RoundValBuilder, RoundValSpine, _, _>(
        name,
        move |key, values, output| logic(key, values, output),
        |container, key, updates| {
            container.clear();
            let key = key.to_row();
            container.extend(
                updates
                    .drain(..)
                    .map(|(value, time, diff)| ((key.clone(), value), time, diff)),
            );
        },
    );
    named(reduced, name)
}

/// Runs a kernel over all updates of a collection.
///
/// A kernel passes the times of its updates on without looking at them. So it gets, in place of a time with a round,
/// the position of that time in a list.
pub fn apply<'i, D: Clone + 'static>(
    input: RoundRows<'i>,
    schema: &SchemaRef,
    name: &str,
    mut kernel: RowKernel<D>,
) -> ApplyOutput<'i, D, Round> {
    let codec = RowCodec::new(relaxed(schema)).expect("a planned schema has a row encoding");
    let errors = Errors::default();
    let mut builder = OperatorBuilder::new(name.to_string(), input.inner.scope());
    let mut updates = builder.new_input(input.inner, Pipeline);
    let (main, main_stream) = builder.new_output::<Vec<(D, Round, Diff)>>();
    let (rest, rest_stream) = builder.new_output::<Vec<(Row, Round, Diff)>>();
    let (errs, errs_stream) = builder.new_output::<Vec<(Row, Round, Diff)>>();
    builder.build(move |_| {
        let mut main = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(main);
        let mut rest = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(rest);
        let mut errs = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(errs);
        let mut gathered: Vec<Update> = Vec::new();
        let mut outputs = Outputs {
            main: Vec::new(),
            rest: Vec::new(),
            errs: Vec::new(),
        };
        move |_frontiers| {
            let (mut main, mut rest, mut errs) = (main.activate(), rest.activate(), errs.activate());
            updates.for_each_time(|capability, containers| {
                let (to_main, to_rest, to_errs) = (capability.retain(0), capability.retain(1), capability.retain(2));
                let mut times: Vec<Round> = Vec::new();
                let mut placed: Vec<Vec<Update>> = containers
                    .map(|container| {
                        let place = |(row, time, diff)| {
                            times.push(time);
                            (row, times.len() as Epoch - 1, diff)
                        };
                        container.drain(..).map(place).collect()
                    })
                    .collect();
                gather(placed.iter_mut(), &mut gathered, &mut |gathered| {
                    let batch = codec
                        .decode(gathered.iter().map(|(row, _, _)| row.bytes()))
                        .expect("a row was encoded with the schema of its node");
                    isolate(&batch, gathered, &mut outputs, &mut kernel, &errors);
                    let real = |(row, place, diff)| (row, times[place as usize], diff);
                    main.session(&to_main).give_iterator(
                        outputs
                            .main
                            .drain(..)
                            .map(|(made, place, diff)| (made, times[place as usize], diff)),
                    );
                    rest.session(&to_rest).give_iterator(outputs.rest.drain(..).map(real));
                    errs.session(&to_errs).give_iterator(outputs.errs.drain(..).map(real));
                });
            });
        }
    });
    ApplyOutput {
        main: main_stream.as_collection(),
        rest: rest_stream.as_collection(),
        errs: errs_stream.as_collection(),
    }
}
