//! GROUP BY.
//!
//! There are three kinds of aggregates, with three kinds of state:
//!
//! - **additive** (count, sum, avg, variance, boolean): the difference itself is the accumulator. The state is one
//!   record for each group. Sums are exact, for floats too, so a row that is added and removed leaves no residue.
//! - **min and max**: values are arranged in order, once for both ends; the extremes of a group are found by seeking.
//! - **general** (median, array_agg, ...): values are arranged; DataFusion's accumulators run over the changed groups.
//!
//! DISTINCT arguments of additive aggregates first pass a threshold operator.
//!
//! ```text
//! input -> front -> accumulators ------------------------------+-> arrange -> finish -> rows
//!                -> (key, args) -> arrange -> distinct -> sum -+                |
//!                -> (key, value) -> arrange (min, max) -------------------------+
//!                -> (key, values) -> arrange -> reduce (general) ---------------+
//! ```
//! Frontiers: `front` holds back a group's accumulators until the input's frontier moves, or its table is full.
//! `distinct` processes a batch in the activation that receives it, and `finish` processes what all of its inputs have
//! reached; they hold nothing back. `reduce` is differential's own.
//!
//! Invariants:
//! 1. A row for which an expression fails is an error row and counts in no aggregate: `front` evaluates all
//!    expressions before it passes any row on. If the row's group is known, the group counts it among its failed rows.
//! 2. A group exists while it has rows, including failed ones; the global group always exists. The additive part alone
//!    decides that.
//! 3. A group with failed rows, or whose result has no value of its type (a sum that overflows), has no row. It has an
//!    error row (reason, key) until its rows change.
//!
//! Where DataFusion's result depends on the order of rows or wraps around, ours does not: float sums are the nearest
//! double to the exact sum, integer and decimal sums that do not fit are errors, NaN is the greatest float for min and
//! max, and the variance of infinity or NaN is NaN.

mod arranged;
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

use self::finish::{FinishedGroups, GroupFinisher};
use self::front::{AggregateFront, FrontOutput};
use self::layout::{AggregateLayout, AggregatePart, codec};
use self::reader::RowReader;
use super::Collections;
use super::arrange::{arrange_by_key, arrange_spread};
use super::expr::relaxed;
use super::face::OutputRows;
use crate::plan;
use crate::repr::{Accumulators, Epoch, Pairs, Rows};

/// Whether a GROUP BY has no state besides its accumulators, so that a restart can load them ([`SumStates`]).
pub fn holds_sums_alone(input_schema: &SchemaRef, output_schema: &SchemaRef, plan: &plan::Aggregate) -> bool {
    AggregateLayout::new(input_schema, output_schema, plan).parts.is_empty()
}

/// The state of a GROUP BY that [`holds_sums_alone`], and the errors of the rows it was computed from.
#[derive(Clone)]
pub struct SumStates<'s> {
    /// (key, accumulators): the increments of the groups' accumulators. They are never retracted.
    pub sums: Pairs<'s>,
    /// Error rows.
    pub errs: Rows<'s>,
}

/// Asks a GROUP BY to output its increments.
pub struct SumReporting<'s> {
    /// Increments that are loaded from the lake, all at this epoch. What happens up to the epoch is not output.
    pub loaded: Option<(Epoch, SumStates<'s>)>,
}

/// Renders a GROUP BY, whose rows are the group columns and one column for each aggregate, of `output_schema`'s types.
///
/// `name` is the node's, and the operators' names are derived from it. The errors are those of the input, of rows, and
/// of groups without a result. With `reporting`, the second result has the state for the lake.
pub fn aggregate<'s>(
    input: OutputRows<'s>,
    input_errs: Rows<'s>,
    [input_schema, output_schema]: [SchemaRef; 2],
    plan: &plan::Aggregate,
    reporting: Option<SumReporting<'s>>,
    name: &str,
) -> (Collections<'s>, Option<SumStates<'s>>) {
    let from = |reporting: &SumReporting<'s>| reporting.loaded.as_ref().map_or(Epoch::MIN, |(epoch, _)| epoch + 1);
    let growth_from = reporting.as_ref().map(from);
    let loaded = reporting.and_then(|reporting| reporting.loaded);
    let layout = AggregateLayout::new(&input_schema, &output_schema, plan);
    let groups = plan.group.len();
    let scope = input_errs.inner.scope();
    let encoded = matches!(input, OutputRows::Rows(_));
    let key = Arc::new(Schema::new(named(&plan.group, &output_schema.fields()[..groups])));
    let key_codec = || codec(relaxed(&key));
    let looked_at = layout.looked_at();
    let front = AggregateFront {
        input: codec(relaxed(&input_schema)),
        reader: RowReader::new(&input_schema, encoded, key_codec(), layout.expressions, |column| {
            looked_at.contains(&column)
        }),
        measures: layout.measures.clone(),
        projections: layout.projections,
        global: groups == 0 && loaded.is_none(),
    };
    let FrontOutput {
        errs: refused,
        accumulators,
        projections,
    } = front.render(input, name);
    let mut input_errors = input_errs.concat(refused);
    let mut accumulators = vec![accumulators];
    if let Some((_, loaded)) = loaded {
        input_errors = input_errors.concat(loaded.errs);
        let sums = loaded.sums.inner;
        accumulators.push(sums.map(|((key, sum), time, _)| ((key, ()), time, Accumulators::from_row(sum))));
    }
    let mut arranged_values = vec![];
    let mut errs = vec![input_errors.clone()];
    for (keyed, part) in projections.into_iter().zip(layout.parts) {
        let arrange = match part {
            AggregatePart::Distinct { .. } => arrange_spread,
            AggregatePart::Values { .. } | AggregatePart::General { .. } => arrange_by_key,
        };
        let arranged = arrange(keyed.as_collection(), &format!("{name}: arrange {}", part.label()));
        match part {
            AggregatePart::Distinct { measures, values, .. } => {
                accumulators.push(distinct::accumulators(arranged, values, measures, name));
            }
            AggregatePart::Values { .. } => arranged_values.push(arranged),
            AggregatePart::General { general, label } => {
                arranged_values.push(general.results(arranged, &format!("{name}: {label}")))
            }
        }
    }
    let accumulators = scope.concatenate(accumulators);
    let accumulators = arranged::arrange_accumulators(accumulators, &format!("{name}: arrange accumulators"));
    let finish = GroupFinisher {
        measures: layout.finished,
        results: layout.results,
        sources: layout.sources,
        keys: key_codec(),
        growth_from,
    };
    let FinishedGroups { rows, failed, growth } = finish.render(accumulators, arranged_values, name);
    errs.push(failed);
    let errs = scope.concatenate(errs.into_iter().map(|errs| errs.inner));
    let made = Collections {
        oks: rows,
        errs: errs.as_collection(),
    };
    let states = growth_from.map(|_| SumStates {
        sums: growth,
        errs: input_errors,
    });
    (made, states)
}

/// The fields of a group's key, with the names that the query uses, for the error rows of groups.
fn named(group: &[plan::Expr], fields: &[FieldRef]) -> Vec<Field> {
    let names: Vec<String> = group.iter().map(plan::readable).collect();
    let is_one = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let fields = fields.iter().zip(&names).map(|(field, name)| match is_one(name) {
        true => field.as_ref().clone().with_name(name),
        false => field.as_ref().clone(),
    });
    fields.collect()
}
