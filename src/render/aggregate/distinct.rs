//! The distinct arguments of a group: a (key, value) is added when its count rises above zero, and removed when it
//! falls back. The results are accumulated by group, and join the other accumulators.

use arrow::array::ArrayRef;
use differential_dataflow::trace::Cursor;
use differential_dataflow::trace::cursor::cursor_list;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use super::front::{Accumulated, KeyedRowUpdate};
use super::history::{RowBatch, ValueHistory};
use super::local::LocalGroups;
use super::measure::Measures;
use crate::render::arrange::{ByKey, answer};
use crate::render::expr::pieces;
use crate::repr::{Diff, Epoch, RowCodec, RowValSpine};

/// The accumulators of `measures` over the distinct (key, value) pairs of `arranged`. `values` decodes the values into
/// the columns that `measures` refer to.
pub(super) fn accumulators<'s>(
    arranged: ByKey<'s>,
    values: RowCodec,
    measures: Measures,
    name: &str,
) -> Stream<'s, Epoch, Vec<Accumulated>> {
    let (distinct, _) =
        answer::<RowValSpine, KeyedRowUpdate, _>(arranged, &format!("{name}: distinct"), |old, new, ok, _| {
            threshold(old, new, ok)
        });
    type Builder = CapacityContainerBuilder<Vec<Accumulated>>;
    distinct.unary::<Builder, _, _, _>(Pipeline, &format!("{name}: accumulate distinct"), move |_, _| {
        let mut local = LocalGroups::new(measures, false);
        move |input, output| {
            input.for_each(|capability, rows| {
                for rows in pieces(rows, |((_, value), ..)| value.bytes().len()) {
                    let batch = values.decode(rows.iter().map(|((_, value), _, _)| value.bytes()));
                    let columns: &[ArrayRef] = batch.as_ref().expect("values were encoded by this codec").columns();
                    let diffs: Vec<Diff> = rows.iter().map(|(_, _, diff)| *diff).collect();
                    let keys = rows.iter().map(|((key, _), _, _)| key.bytes());
                    local.add(keys, rows.iter().map(|(_, time, _)| *time), &diffs, columns);
                }
                let mut session = output.session(&capability);
                local.flush(|key, time, sum| session.give(((key, ()), time, sum)));
                rows.clear();
            });
        }
    })
}

fn threshold(before: Vec<RowBatch>, batches: Vec<RowBatch>, give: &mut dyn FnMut(KeyedRowUpdate)) {
    let mut old = ValueHistory::new(&before, before.len());
    let (mut new, new_storage) = cursor_list(batches);
    let mut updates: Vec<(Epoch, Diff)> = vec![];
    while let Some(key) = new.get_key(&new_storage) {
        old.seek_key(key);
        while let Some(value) = new.get_val(&new_storage) {
            let mut count = old.count(value, Epoch::MAX);
            updates.clear();
            new.map_times(&new_storage, |time, diff| updates.push((*time, *diff)));
            differential_dataflow::consolidation::consolidate(&mut updates);
            for (time, diff) in &updates {
                let after = count + diff;
                let change = (after > 0) as Diff - (count > 0) as Diff;
                if change != 0 {
                    give(((key.to_row(), value.to_row()), *time, change));
                }
                count = after;
            }
            new.step_val(&new_storage);
        }
        new.step_key(&new_storage);
    }
}
