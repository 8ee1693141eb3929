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
//!                -> (key, values) -> arrange -> reduce (general) --------+-> arrange -> reduce -> rows
//! ```
//! With additive aggregates alone, `finish` yields the rows and nothing below it is built. Frontiers: `front`
//! holds back a group's accumulators until the input's frontier moves; `distinct`, `first` and `finish` answer a
//! batch when it is complete; the reductions when their arrangement is.
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
mod errors;
mod eval;
mod first;
mod front;
mod general;
mod local;
mod measure;
mod number;
mod past;
#[cfg(test)]
mod tests;
mod total;

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::expressions::Literal;
use differential_dataflow::AsCollection;
use timely::dataflow::operators::Concatenate;

use self::collate::Source;
use self::front::{Encoder, Front, Fronted, Projection};
use self::general::General;
use self::measure::{Call, Measures, Numbers};
use super::Collections;
use crate::plan::{self, AggregateCall, AggregateKind, Expr};
use crate::repr::RowCodec;

/// Renders a GROUP BY: the group columns, then one column for each aggregate, of `output_schema`'s types.
///
/// `name` is the node's; operators are called after it. Errors of the input pass through; the rows and groups
/// that have no result join them.
pub fn aggregate<'s>(
    input: Collections<'s>,
    input_schema: SchemaRef,
    output_schema: SchemaRef,
    plan: &plan::Aggregate,
    name: &str,
) -> Collections<'s> {
    let mut layout = Layout::new(&input_schema, &output_schema, plan);
    let groups = plan.group.len();
    for (call, field) in plan.aggregates.iter().zip(&output_schema.fields()[groups..]) {
        layout.place(call, field.data_type());
    }
    let scope = input.oks.scope();
    let front = Front {
        input: codec(input_schema.clone()),
        key: codec(Arc::new(Schema::new(output_schema.fields()[..groups].to_vec()))),
        expressions: layout.expressions,
        measures: layout.measures.clone(),
        projections: layout.projections,
        global: groups == 0,
    };
    let Fronted {
        errs,
        accumulators,
        projections,
    } = front.render(input.oks, name);
    let mut errs = vec![input.errs, errs];

    let mut accumulators = vec![accumulators];
    let mut fragments = vec![];
    for (keyed, part) in projections.into_iter().zip(layout.parts) {
        let spread = matches!(part, Part::Distinct { .. });
        let arranged = total::arrange_rows(keyed, spread, &format!("{name}: arrange {}", part.label()));
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
    let arranged = total::arrange_accumulators(accumulators, &format!("{name}: arrange accumulators"));

    let apart = layout.sources.iter().any(|source| matches!(source, Source::Part(..)));
    let (oks, failed) = if apart {
        let results = layout.results.iter().map(|field| codec(one(field))).collect();
        fragments.push(additive::fragments(arranged, layout.finished, results, name));
        let fragments = scope.concatenate(fragments);
        let fragments = total::arrange_rows(fragments, false, &format!("{name}: arrange parts"));
        collate::rows(fragments, layout.sources, name)
    } else {
        additive::rows(
            arranged,
            layout.finished,
            codec(Arc::new(Schema::new(layout.results))),
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

/// An aggregate kept apart, or a set of distinct arguments: what becomes of a projection.
enum Part {
    Distinct {
        measures: Measures,
        values: RowCodec,
        label: String,
        key: (Vec<usize>, Option<usize>),
    },
    First {
        tag: u16,
        inverted: bool,
        label: String,
    },
    General {
        tag: u16,
        general: Box<General>,
        label: String,
    },
}

impl Part {
    fn label(&self) -> &str {
        match self {
            Part::Distinct { label, .. } | Part::First { label, .. } | Part::General { label, .. } => label,
        }
    }
}

/// Where everything goes: expressions to columns, calls to measures and parts.
struct Layout<'a> {
    input: &'a SchemaRef,
    expressions: Vec<(Expr, DataType)>,
    /// The measures over rows.
    measures: Measures,
    /// All additive calls, and all measures, of rows and of distinct sets.
    finished: Measures,
    projections: Vec<Projection>,
    /// One for each projection.
    parts: Vec<Part>,
    /// One for each aggregate.
    sources: Vec<Source>,
    /// The columns of `finished`.
    results: Vec<Field>,
}

impl<'a> Layout<'a> {
    fn new(input: &'a SchemaRef, output: &SchemaRef, plan: &plan::Aggregate) -> Self {
        let types = output.fields().iter().map(|field| field.data_type().clone());
        Layout {
            input,
            expressions: plan.group.iter().cloned().zip(types).collect(),
            measures: Measures::default(),
            finished: Measures::default(),
            projections: vec![],
            parts: vec![],
            sources: vec![],
            results: vec![],
        }
    }

    fn place(&mut self, call: &AggregateCall, output_type: &DataType) {
        let filter = call
            .filter
            .as_ref()
            .map(|filter| self.column(filter, &DataType::Boolean));
        let label = call.function.name().to_string();
        let field = Field::new(&label, output_type.clone(), true);
        let source = match (call.kind, self.additive(call)) {
            (AggregateKind::Min | AggregateKind::Max, _) if call.args.len() == 1 => {
                let inverted = call.kind == AggregateKind::Max;
                let value = codec(one(&field));
                let missing = null(&field);
                let encoder = if inverted {
                    Encoder::Inverted(value)
                } else {
                    Encoder::Codec(value)
                };
                let values = vec![(call.args[0].clone(), output_type.clone())];
                let part = |tag| Part::First { tag, inverted, label };
                Source::Part(self.project(values, filter, true, encoder, part), missing)
            }
            (_, Some((numbers, arg_type))) => {
                let squares = matches!(
                    call.kind,
                    AggregateKind::VarPop
                        | AggregateKind::VarSamp
                        | AggregateKind::StddevPop
                        | AggregateKind::StddevSamp
                );
                let measure = self.measure(call, filter, numbers, squares, &arg_type);
                self.finished.calls.push(Call {
                    kind: call.kind,
                    measure,
                    arg_type: arg_type.unwrap_or(DataType::Null),
                    result_type: call.function.field().data_type().clone(),
                    output_type: output_type.clone(),
                    name: label,
                });
                self.results.push(field);
                Source::Additive(self.results.len() - 1)
            }
            _ => {
                let (general, stored) = General::new(call, self.input, codec(one(&field)), output_type.clone());
                let missing = general.missing();
                let encoder = Encoder::Ordered(general.converter());
                let general = Box::new(general);
                let part = |tag| Part::General { tag, general, label };
                Source::Part(self.project(stored, filter, false, encoder, part), missing)
            }
        };
        self.sources.push(source);
    }

    /// The position of an expression's column, cast to this type.
    fn column(&mut self, expr: &Expr, data_type: &DataType) -> usize {
        let same = |(other, other_type): &(Expr, DataType)| other == expr && other_type == data_type;
        self.expressions.iter().position(same).unwrap_or_else(|| {
            self.expressions.push((expr.clone(), data_type.clone()));
            self.expressions.len() - 1
        })
    }

    /// What an additive aggregate adds up, and the type its argument is cast to; none: it is not one.
    fn additive(&self, call: &AggregateCall) -> Option<(Numbers, Option<DataType>)> {
        let arg_type = call.args.first().and_then(|arg| arg.data_type(self.input).ok())?;
        let result_type = call.function.field().data_type().clone();
        if call.kind != AggregateKind::Count && call.args.len() != 1 {
            return None;
        }
        Some(match (call.kind, &result_type, &arg_type) {
            (AggregateKind::Count, _, _) => (Numbers::None, None),
            (AggregateKind::Sum, DataType::Int64, _) => (Numbers::Int64, Some(result_type)),
            (AggregateKind::Sum, DataType::UInt64, _) => (Numbers::UInt64, Some(result_type)),
            (AggregateKind::Sum | AggregateKind::Avg, DataType::Float64, _) => (Numbers::Float, Some(result_type)),
            (
                AggregateKind::Sum | AggregateKind::Avg,
                DataType::Decimal128(_, result_scale),
                DataType::Decimal128(_, scale),
            ) if scale <= result_scale => (Numbers::Decimal, Some(arg_type)),
            (
                AggregateKind::VarPop | AggregateKind::VarSamp | AggregateKind::StddevPop | AggregateKind::StddevSamp,
                DataType::Float64,
                _,
            ) => (Numbers::Float, Some(result_type)),
            (AggregateKind::BoolAnd | AggregateKind::BoolOr, _, DataType::Boolean) => {
                (Numbers::Boolean, Some(arg_type))
            }
            _ => return None,
        })
    }

    /// The measure of an additive call; none: it counts the group's rows.
    fn measure(
        &mut self,
        call: &AggregateCall,
        filter: Option<usize>,
        numbers: Numbers,
        squares: bool,
        arg_type: &Option<DataType>,
    ) -> Option<usize> {
        let constant = |arg: &Expr| {
            let literal = (arg.as_ref() as &dyn std::any::Any).downcast_ref::<Literal>();
            literal.is_some_and(|literal| !literal.value().is_null())
        };
        // count(*) is count(1) here; a constant that is not null need not be looked at.
        let counted = call.kind == AggregateKind::Count && !call.distinct;
        let args: Vec<(Expr, DataType)> = call
            .args
            .iter()
            .filter(|arg| !(counted && constant(arg)))
            .map(|arg| {
                let data_type = arg_type.clone().or_else(|| arg.data_type(self.input).ok());
                (
                    arg.clone(),
                    data_type.expect("a planned expression has a type over its input"),
                )
            })
            .collect();
        if args.is_empty() && filter.is_none() {
            return None;
        }
        let columns: Vec<usize> = args
            .iter()
            .map(|(arg, data_type)| self.column(arg, data_type))
            .collect();
        if !call.distinct {
            let index = self.finished.measure(0, columns, filter, numbers, squares);
            self.measures = self.finished.of_stage(0);
            return Some(index);
        }
        // Calls over the same arguments share their distinct set.
        let key = (columns, filter);
        let known = self
            .parts
            .iter()
            .position(|part| matches!(part, Part::Distinct { key: k, .. } if *k == key));
        let part = known.unwrap_or_else(|| {
            let fields: Vec<Field> = args
                .iter()
                .map(|(_, data_type)| Field::new("value", data_type.clone(), true))
                .collect();
            let schema = Arc::new(Schema::new(fields));
            let part = |_| Part::Distinct {
                measures: Measures::default(),
                values: codec(schema.clone()),
                label: format!("distinct {}", call.function.name()),
                key,
            };
            self.project(args.clone(), filter, true, Encoder::Codec(codec(schema.clone())), part);
            self.parts.len() - 1
        });
        // The filter has been applied, and the arguments are columns of their own, by the distinct set.
        let stage = part + 1;
        let index = self
            .finished
            .measure(stage, (0..args.len()).collect(), None, numbers, squares);
        let of_stage = self.finished.of_stage(stage);
        if let Part::Distinct { measures, .. } = &mut self.parts[part] {
            *measures = of_stage;
        }
        Some(index)
    }

    /// Hands these expressions' values, encoded, to a part of its own, made for the part's tag.
    fn project(
        &mut self,
        expressions: Vec<(Expr, DataType)>,
        filter: Option<usize>,
        skip_nulls: bool,
        encoder: Encoder,
        part: impl FnOnce(u16) -> Part,
    ) -> u16 {
        let columns = expressions
            .iter()
            .map(|(expr, data_type)| self.column(expr, data_type))
            .collect();
        self.projections.push(Projection {
            columns,
            filter,
            skip_nulls,
            encoder,
        });
        let tag = self.projections.len() as u16;
        self.parts.push(part(tag));
        tag
    }
}

fn codec(schema: SchemaRef) -> RowCodec {
    RowCodec::new(schema).expect("a planned node has columns of types that rows can hold")
}

fn one(field: &Field) -> SchemaRef {
    Arc::new(Schema::new(vec![field.clone()]))
}

fn null(field: &Field) -> crate::repr::Row {
    let rows = codec(one(field)).encode_rows(&[new_null_array(field.data_type(), 1)], 1);
    rows.expect("every type has a null").pop().expect("one row was encoded")
}
