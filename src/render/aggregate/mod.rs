//! GROUP BY.
//!
//! Three kinds of aggregates, kept in three ways:
//!
//! - **additive** (count, sum, avg, variance, boolean): in the difference. State is one record for each group;
//!   sums are exact, of floats too, so a row that comes and goes leaves no residue.
//! - **min and max**: values arranged in order, once for both ends; the extremes of a group are found by seeking.
//! - **general** (median, array_agg, ...): values arranged; DataFusion's accumulator over the changed groups.
//!
//! DISTINCT arguments of additive aggregates pass a threshold first, and then are additive.
//!
//! ```text
//! input -> front -> accumulators ------------------------------+-> arrange -> finish -> rows
//!                -> (key, args) -> arrange -> distinct -> sum -+                |
//!                -> (key, value) -> arrange (min, max) -------------------------+
//!                -> (key, values) -> arrange -> reduce (general) ---------------+
//! ```
//! Frontiers: `front` holds back a group's accumulators until the input's frontier moves (or its table is full);
//! `distinct` answers a batch in the activation that receives it and `finish` what all of its inputs have reached, and
//! they hold nothing back; `reduce` is differential's own.
//!
//! Invariants:
//! 1. A row that an expression refuses is an error row and counts in no aggregate: `front` evaluates all of
//!    them before any row goes on. Its group, if that can be told, counts it among its failed rows.
//! 2. A group exists while it has rows, failed ones too (the global group always); the additive part alone decides that.
//! 3. A group with failed rows, or whose result has no value of its type (a sum that overflows), is an error row, (reason,
//!    key), and no row, until its rows change.
//!
//! Where DataFusion's answer depends on the order of rows or on wrapping around, ours does not: float sums are
//! the nearest double to the exact sum, integer and decimal sums that do not fit are errors, NaN is the
//! greatest float for min and max, and the variance of an infinity or NaN is NaN.

mod accumulators;
mod distinct;
mod extremes;
mod finish;
mod front;
mod general;
mod history;
mod layout;
mod local;
mod measure;
mod meet;
mod number;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use differential_dataflow::AsCollection;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::core::Map;

pub use self::accumulators::Accumulators;
use self::finish::{Finish, FinishedGroups};
use self::front::{Front, Fronted};
use self::layout::{Layout, Part, codec};
use self::reader::Reader;
use super::Collections;
use super::arrange::{Pairs, Rows, arrange_by_key, arrange_spread};
use super::expr::relaxed;
use super::face::Face;
use crate::plan;
use crate::repr::Epoch;

/// Whether all that a GROUP BY holds are accumulators: then a restart can hand them in again ([`SumStates`]).
pub fn holds_sums_alone(input_schema: &SchemaRef, output_schema: &SchemaRef, plan: &plan::Aggregate) -> bool {
    Layout::new(input_schema, output_schema, plan).parts.is_empty()
}

/// What a GROUP BY that [`holds_sums_alone`] holds, and the errors of the rows it was made from.
#[derive(Clone)]
pub struct SumStates<'s> {
    /// (key, accumulators): by what groups grow, never taken back.
    pub sums: Pairs<'s>,
    /// Error rows.
    pub errs: Rows<'s>,
}

/// What is to be told of accumulators.
pub struct Telling<'s> {
    /// Handed in from where they are kept, all at one epoch; what comes up to it is not told.
    pub loaded: Option<(Epoch, SumStates<'s>)>,
}

/// Renders a GROUP BY: the group columns, then one column for each aggregate, of `output_schema`'s types.
///
/// `name` is the node's; operators are called after it. Errors of the input pass through; the rows and groups
/// that have no result join them. What it holds is told where that is wanted.
pub fn aggregate<'s>(
    input: Face<'s>,
    input_errs: Rows<'s>,
    [input_schema, output_schema]: [SchemaRef; 2],
    plan: &plan::Aggregate,
    telling: Option<Telling<'s>>,
    name: &str,
) -> (Collections<'s>, Option<SumStates<'s>>) {
    let from = |telling: &Telling<'s>| telling.loaded.as_ref().map_or(Epoch::MIN, |(epoch, _)| epoch + 1);
    let told_from = telling.as_ref().map(from);
    let loaded = telling.and_then(|telling| telling.loaded);
    let layout = Layout::new(&input_schema, &output_schema, plan);
    let groups = plan.group.len();
    let scope = input_errs.inner.scope();
    let encoded = matches!(input, Face::Rows(_));
    let key = Arc::new(Schema::new(named(&plan.group, &output_schema.fields()[..groups])));
    let key_codec = || codec(relaxed(&key));
    let looked_at = layout.looked_at();
    let front = Front {
        input: codec(relaxed(&input_schema)),
        reader: Reader::new(&input_schema, encoded, key_codec(), layout.expressions, |column| {
            looked_at.contains(&column)
        }),
        measures: layout.measures.clone(),
        projections: layout.projections,
        global: groups == 0 && loaded.is_none(),
    };
    let Fronted {
        errs: refused,
        accumulators,
        projections,
    } = front.render(input, name);
    let mut told = input_errs.concat(refused);
    let mut accumulators = vec![accumulators];
    if let Some((_, loaded)) = loaded {
        told = told.concat(loaded.errs);
        let sums = loaded.sums.inner;
        accumulators.push(sums.map(|((key, sum), time, _)| ((key, ()), time, Accumulators::from_row(sum))));
    }
    let mut kept = vec![];
    let mut errs = vec![told.clone()];
    for (keyed, part) in projections.into_iter().zip(layout.parts) {
        let arrange = match part {
            Part::Distinct { .. } => arrange_spread,
            Part::Values { .. } | Part::General { .. } => arrange_by_key,
        };
        let arranged = arrange(keyed.as_collection(), &format!("{name}: arrange {}", part.label()));
        match part {
            Part::Distinct { measures, values, .. } => {
                accumulators.push(distinct::accumulators(arranged, values, measures, name));
            }
            Part::Values { .. } => kept.push(arranged),
            Part::General { general, label } => kept.push(general.results(arranged, &format!("{name}: {label}"))),
        }
    }
    let accumulators = scope.concatenate(accumulators);
    let accumulators = accumulators::arrange(accumulators, &format!("{name}: arrange accumulators"));
    let finish = Finish {
        measures: layout.finished,
        results: layout.results,
        sources: layout.sources,
        keys: key_codec(),
        told_from,
    };
    let FinishedGroups { rows, failed, growth } = finish.render(accumulators, kept, name);
    errs.push(failed);
    let errs = scope.concatenate(errs.into_iter().map(|errs| errs.inner));
    let made = Collections {
        oks: rows,
        errs: errs.as_collection(),
    };
    let states = told_from.map(|_| SumStates {
        sums: growth,
        errs: told,
    });
    (made, states)
}

/// The fields of a group's key, named as the query does: of a group without a result, its error row tells them.
fn named(group: &[plan::Expr], fields: &[FieldRef]) -> Vec<Field> {
    let names: Vec<String> = group.iter().map(plan::readable).collect();
    let is_one = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let fields = fields.iter().zip(&names).map(|(field, name)| match is_one(name) {
        true => field.as_ref().clone().with_name(name),
        false => field.as_ref().clone(),
    });
    fields.collect()
}
