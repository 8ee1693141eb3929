//! GROUP BY.
//!
//! Three kinds of aggregates, kept in three ways:
//!
//! - **additive** (count, sum, avg, variance, boolean): in the difference. State is one record for each group;
//!   sums are exact, of floats too, so a row that comes and goes leaves no residue.
//! - **min and max**: values arranged in order; the first of a group is found by seeking.
//! - **general** (median, array_agg, ...): values arranged; DataFusion's accumulator over the changed groups.
//!
//! DISTINCT arguments of additive aggregates pass a threshold first, and then are additive.
//!
//! ```text
//! input -> front -> accumulators ------------------------------+-> arrange -> finish -> rows
//!                -> (key, args) -> arrange -> distinct -> sum -+             |
//!                -> (key, value) -> arrange -> first (min, max) ---------+   | fragments
//!                -> (key, values) -> arrange -> reduce (general) --------+-> arrange -> collate -> rows
//! ```
//! With additive aggregates alone, `finish` yields the rows and nothing below it is built. Frontiers: `front`
//! holds back a group's accumulators until the input's frontier moves (or its table is full); `distinct`, `first`,
//! `finish` and `collate` answer a batch in the activation that receives it and hold nothing back; `reduce` is
//! differential's own.
//!
//! Invariants:
//! 1. A row that an expression refuses is an error row and counts in no aggregate: `front` evaluates all of
//!    them before any row goes on.
//! 2. A group exists while it has rows (the global group always); the additive part alone decides that.
//! 3. A group whose result has no value of its type (a sum that overflows) is an error row, (reason, key), and
//!    no row, until its rows change.
//!
//! Where DataFusion's answer depends on the order of rows or on wrapping around, ours does not: float sums are
//! the nearest double to the exact sum, integer and decimal sums that do not fit are errors, NaN is the
//! greatest float for min and max, and the variance of an infinity or NaN is NaN.

mod accumulators;
mod additive;
mod collate;
mod distinct;
mod first;
mod front;
mod general;
mod layout;
mod local;
mod measure;
mod number;
mod past;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use differential_dataflow::AsCollection;
use timely::dataflow::operators::Concatenate;

use self::collate::Source;
use self::front::{Front, Fronted};
use self::layout::{Layout, Part, codec, one};
use self::reader::Reader;
use super::Collections;
use super::arrange::{Rows, arrange_by_key, arrange_spread};
use super::expr::relaxed;
use super::face::Face;
use crate::plan;

/// Renders a GROUP BY: the group columns, then one column for each aggregate, of `output_schema`'s types.
///
/// `name` is the node's; operators are called after it. Errors of the input pass through; the rows and groups
/// that have no result join them.
pub fn aggregate<'s>(
    input: Face<'s>,
    input_errs: Rows<'s>,
    input_schema: SchemaRef,
    output_schema: SchemaRef,
    plan: &plan::Aggregate,
    name: &str,
) -> Collections<'s> {
    let layout = Layout::new(&input_schema, &output_schema, plan);
    let groups = plan.group.len();
    let scope = input_errs.inner.scope();
    let encoded = matches!(input, Face::Rows(_));
    let key = Arc::new(Schema::new(output_schema.fields()[..groups].to_vec()));
    let key_codec = || codec(relaxed(&key));
    let looked_at = layout.looked_at();
    let front = Front {
        input: codec(relaxed(&input_schema)),
        reader: Reader::new(&input_schema, encoded, key_codec(), layout.expressions, |column| {
            looked_at.contains(&column)
        }),
        measures: layout.measures.clone(),
        projections: layout.projections,
        global: groups == 0,
    };
    let Fronted {
        errs,
        accumulators,
        projections,
    } = front.render(input, name);
    let mut errs = vec![input_errs, errs];

    let mut accumulators = vec![accumulators];
    let mut fragments = vec![];
    for (keyed, part) in projections.into_iter().zip(layout.parts) {
        let arrange = match part {
            Part::Distinct { .. } => arrange_spread,
            Part::First { .. } | Part::General { .. } => arrange_by_key,
        };
        let arranged = arrange(keyed.as_collection(), &format!("{name}: arrange {}", part.label()));
        match part {
            Part::Distinct { measures, values, .. } => {
                accumulators.push(distinct::accumulators(arranged, values, measures, name));
            }
            Part::First { tag, inverted, label } => {
                fragments.push(first::fragments(arranged, tag, inverted, &format!("{name}: {label}")));
            }
            Part::General { tag, general, label } => {
                fragments.push(general.fragments(arranged, tag, &format!("{name}: {label}")));
            }
        }
    }
    let accumulators = scope.concatenate(accumulators);
    let arranged = additive::arrange(accumulators, &format!("{name}: arrange accumulators"));

    let apart = layout.sources.iter().any(|source| matches!(source, Source::Part(..)));
    let (oks, failed) = if apart {
        let results = layout.results.iter().map(|field| codec(one(field))).collect();
        fragments.push(additive::fragments(arranged, layout.finished, results, name));
        let fragments = scope.concatenate(fragments);
        let fragments = arrange_by_key(fragments.as_collection(), &format!("{name}: arrange parts"));
        collate::rows(fragments, layout.sources, key_codec(), name)
    } else {
        additive::rows(
            arranged,
            layout.finished,
            codec(Arc::new(Schema::new(layout.results))),
            key_codec(),
            name,
        )
    };
    errs.push(failed);
    let errs = scope.concatenate(errs.into_iter().map(|errs| errs.inner));
    Collections {
        oks,
        errs: errs.as_collection(),
    }
}
