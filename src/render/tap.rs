//! The place where updates of a table leave the graph. Updates are consolidated, then exchanged to the worker that
//! owns the row, and handed over there.

use differential_dataflow::AsCollection;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, ParallelizationContract};
use timely::dataflow::operators::generic::OutputBuilderSession;
use timely::dataflow::operators::generic::operator::Operator;

use crate::repr::{Epoch, Rows, Update, sort};

/// Calls `send` with every update of a collection, on the worker `owner(row, workers)`.
///
/// Returns a stream without data, to be probed: its frontier passes an epoch once all of the epoch's updates have been
/// handed over on every worker. `send` may be called several times for an epoch.
pub fn tap<'s>(
    rows: Rows<'s>,
    name: &str,
    owner: impl Fn(&[u8], usize) -> usize + 'static,
    send: impl FnMut(Vec<Update>) + 'static,
) -> Stream<'s, Epoch, Vec<()>> {
    let peers = rows.inner.scope().peers();
    let exchange = Exchange::new(move |update: &Update| owner(update.0.bytes(), peers) as u64);
    end(consolidate(rows, name).inner, exchange, name, send)
}

/// Calls `send` with all data, on the worker that `pact` chooses. Returns a stream as [`tap`] does.
pub fn end<'s, D: 'static>(
    stream: Stream<'s, Epoch, Vec<D>>,
    pact: impl ParallelizationContract<Epoch, Vec<D>>,
    name: &str,
    mut send: impl FnMut(Vec<D>) + 'static,
) -> Stream<'s, Epoch, Vec<()>> {
    stream.unary(pact, name, move |_, _| {
        move |input, _output: &mut OutputBuilderSession<'_, Epoch, CapacityContainerBuilder<Vec<()>>>| {
            input.for_each_time(|_capability, containers| {
                let mut updates = Vec::new();
                for container in containers {
                    updates.append(container);
                }
                if !updates.is_empty() {
                    send(updates);
                }
            });
        }
    })
}

/// Consolidates the updates of an epoch that are there, without waiting for the rest of the epoch.
fn consolidate<'s>(rows: Rows<'s>, name: &str) -> Rows<'s> {
    rows.inner
        .unary(
            timely::dataflow::channels::pact::Pipeline,
            &format!("{name}: consolidate"),
            move |_, _| {
                let mut gathered: Vec<Update> = Vec::new();
                move |input, output| {
                    input.for_each_time(|capability, containers| {
                        for container in containers {
                            gathered.append(container);
                        }
                        sort::consolidate(&mut gathered);
                        output.session(&capability).give_iterator(gathered.drain(..));
                    });
                }
            },
        )
        .as_collection()
}
