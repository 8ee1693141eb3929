//! Decides how the parts of a GROUP BY are computed: expressions become columns that are evaluated once, and calls
//! become measures, sets of distinct arguments, or separately arranged values. Builds no operator.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::expressions::Literal;

use super::finish::{ArrangedValue, ColumnSource};
use super::front::{Projection, ValueEncoder};
use super::general::GeneralAggregate;
use super::history::Extremum;
use super::measure::{MeasureCall, Measures, NumberKind};
use crate::plan::{self, AggregateCall, AggregateKind, Expr};
use crate::repr::{Row, RowCodec};

/// What a projection feeds: a set of distinct arguments, or values that are arranged separately.
pub(super) enum AggregatePart {
    Distinct {
        measures: Measures,
        values: RowCodec,
        label: String,
        of: PartKey,
    },
    Values {
        label: String,
        of: PartKey,
    },
    General {
        general: Box<GeneralAggregate>,
        label: String,
    },
}

/// The columns of a part's values, and its filter. Aggregates with equal ones share a part.
type PartKey = (Vec<usize>, Option<usize>);

impl AggregatePart {
    /// The base of the names of the part's operators.
    pub fn label(&self) -> &str {
        match self {
            AggregatePart::Distinct { label, .. }
            | AggregatePart::Values { label, .. }
            | AggregatePart::General { label, .. } => label,
        }
    }
}

/// How an aggregate is accumulated.
struct Additive {
    squares: bool,
    numbers: NumberKind,
    /// The type that its argument is cast to; `None` if the argument is only checked for null.
    arg_type: Option<DataType>,
}

/// The layout of a GROUP BY.
pub(super) struct AggregateLayout<'a> {
    input: &'a SchemaRef,
    pub expressions: Vec<(Expr, DataType)>,
    /// The measures over rows.
    pub measures: Measures,
    /// All additive calls, with all measures over rows and over distinct sets.
    pub finished: Measures,
    pub projections: Vec<Projection>,
    /// One part for each projection.
    pub parts: Vec<AggregatePart>,
    /// One source for each aggregate.
    pub sources: Vec<ColumnSource>,
    /// The fields of the columns that `finished` computes.
    pub results: Vec<Field>,
}

impl<'a> AggregateLayout<'a> {
    /// The layout of a GROUP BY over rows of `input`, with output rows of `output`.
    pub fn new(input: &'a SchemaRef, output: &SchemaRef, plan: &plan::Aggregate) -> Self {
        let types = output.fields().iter().map(|field| field.data_type().clone());
        let mut layout = AggregateLayout {
            input,
            expressions: plan.group.iter().cloned().zip(types).collect(),
            measures: Measures::default(),
            finished: Measures::default(),
            projections: vec![],
            parts: vec![],
            sources: vec![],
            results: vec![],
        };
        layout.measure_all(&plan.aggregates);
        for (call, field) in plan.aggregates.iter().zip(&output.fields()[plan.group.len()..]) {
            layout.place(call, field.data_type());
        }
        layout
    }

    /// The positions of the expressions that measures and projections use.
    pub fn looked_at(&self) -> Vec<usize> {
        let measures = self.measures.measures.iter();
        let measured = measures.flat_map(|measure| measure.args.iter().chain(&measure.filter));
        let projected = self.projections.iter().flat_map(|p| p.columns.iter().chain(&p.filter));
        measured.chain(projected).copied().collect()
    }

    fn place(&mut self, call: &AggregateCall, output_type: &DataType) {
        let filter = self.filter(call);
        let label = plan::readable_call(call);
        let field = Field::new(&label, output_type.clone(), true);
        let source = match (call.kind, self.additive(call)) {
            (AggregateKind::Min | AggregateKind::Max, _) if call.args.len() == 1 => {
                let end = match call.kind {
                    AggregateKind::Min => Extremum::Least,
                    _ => Extremum::Greatest,
                };
                ColumnSource::Arranged(ArrangedValue {
                    input: self.values(call.args[0].clone(), filter, &field),
                    end,
                    tagged: false,
                    missing: null(&field),
                })
            }
            (_, Some(additive)) => {
                let measure = self.measure(call, &additive);
                self.finished.calls.push(MeasureCall {
                    kind: call.kind,
                    measure,
                    arg_type: additive.arg_type.unwrap_or(DataType::Null),
                    result_type: call.function.field().data_type().clone(),
                    output_type: output_type.clone(),
                    name: label,
                });
                self.results.push(field);
                ColumnSource::Accumulators
            }
            _ => {
                let (general, stored) =
                    GeneralAggregate::new(call, self.input, codec(one(&field)), output_type.clone());
                let missing = general.missing().unwrap_or_else(|| null(&field));
                let encoder = ValueEncoder::Ordered(general.converter());
                let general = Box::new(general);
                let input = self.arranged_parts().count();
                self.project(
                    stored,
                    filter,
                    false,
                    encoder,
                    AggregatePart::General { general, label },
                );
                ColumnSource::Arranged(ArrangedValue {
                    input,
                    end: Extremum::Least, // there is only one
                    tagged: true,
                    missing,
                })
            }
        };
        self.sources.push(source);
    }

    /// The parts whose values are arranged, and read when rows are made.
    fn arranged_parts(&self) -> impl Iterator<Item = &AggregatePart> {
        let parts = self.parts.iter();
        parts.filter(|part| !matches!(part, AggregatePart::Distinct { .. }))
    }

    /// The index, among the arranged parts, of an expression's values; adds the part if there is none yet.
    fn values(&mut self, arg: Expr, filter: Option<usize>, field: &Field) -> usize {
        let column = self.column(&arg, field.data_type());
        let known = (self.arranged_parts())
            .position(|part| matches!(part, AggregatePart::Values { of, .. } if *of == (vec![column], filter)));
        known.unwrap_or_else(|| {
            let input = self.arranged_parts().count();
            let part = AggregatePart::Values {
                label: format!("values of {arg}"),
                of: (vec![column], filter),
            };
            let values = vec![(arg, field.data_type().clone())];
            self.project(values, filter, true, ValueEncoder::Codec(codec(one(field))), part);
            input
        })
    }

    fn filter(&mut self, call: &AggregateCall) -> Option<usize> {
        let filter = call.filter.as_ref();
        filter.map(|filter| self.column(filter, &DataType::Boolean))
    }

    /// The position of an expression's column, cast to this type; adds the column if there is none yet.
    fn column(&mut self, expr: &Expr, data_type: &DataType) -> usize {
        let same = |(other, other_type): &(Expr, DataType)| other == expr && other_type == data_type;
        self.expressions.iter().position(same).unwrap_or_else(|| {
            self.expressions.push((expr.clone(), data_type.clone()));
            self.expressions.len() - 1
        })
    }

    /// How an aggregate is accumulated; `None` if it is not additive.
    fn additive(&self, call: &AggregateCall) -> Option<Additive> {
        use AggregateKind as Kind;
        let arg_type = call.args.first().and_then(|arg| arg.data_type(self.input).ok())?;
        let result_type = call.function.field().data_type().clone();
        if call.kind != Kind::Count && call.args.len() != 1 {
            return None;
        }
        let (numbers, squares, arg_type) = match (call.kind, &result_type, &arg_type) {
            (Kind::Count, _, _) => (NumberKind::None, false, None),
            (Kind::Sum, DataType::Int64, _) => (NumberKind::Int64, false, Some(result_type)),
            (Kind::Sum, DataType::UInt64, _) => (NumberKind::UInt64, false, Some(result_type)),
            (Kind::Sum | Kind::Avg, DataType::Float64, _) => (NumberKind::Float, false, Some(result_type)),
            (Kind::Sum | Kind::Avg, DataType::Decimal128(_, result), DataType::Decimal128(_, scale))
                if scale <= result =>
            {
                (NumberKind::Decimal, false, Some(arg_type))
            }
            (Kind::VarPop | Kind::VarSamp | Kind::StddevPop | Kind::StddevSamp, DataType::Float64, _) => {
                (NumberKind::Float, true, Some(result_type))
            }
            (Kind::BoolAnd | Kind::BoolOr, _, DataType::Boolean) => (NumberKind::Boolean, false, Some(arg_type)),
            _ => return None,
        };
        Some(Additive {
            squares,
            numbers,
            arg_type,
        })
    }

    /// Makes the measures of all additive calls. Measures that keep most come first, because they also serve calls
    /// that need less, for example a count of the same argument.
    fn measure_all(&mut self, calls: &[AggregateCall]) {
        let mut additive: Vec<(&AggregateCall, Additive)> = calls
            .iter()
            .filter_map(|call| Some((call, self.additive(call)?)))
            .collect();
        additive.sort_by_key(|(_, additive)| std::cmp::Reverse((additive.squares, additive.numbers)));
        for (call, additive) in &additive {
            self.measure(call, additive);
        }
    }

    /// The measure of an additive call; `None` if the call counts the group's rows.
    fn measure(&mut self, call: &AggregateCall, additive: &Additive) -> Option<usize> {
        let filter = self.filter(call);
        let (numbers, squares) = (additive.numbers, additive.squares);
        let constant = |arg: &Expr| {
            let literal = (arg.as_ref() as &dyn std::any::Any).downcast_ref::<Literal>();
            literal.is_some_and(|literal| !literal.value().is_null())
        };
        // count(*) is count(1) here, and a constant that is not null need not be evaluated.
        let counted = call.kind == AggregateKind::Count && !call.distinct;
        let args: Vec<(Expr, DataType)> = call
            .args
            .iter()
            .filter(|arg| !(counted && constant(arg)))
            .map(|arg| {
                let data_type = additive.arg_type.clone().or_else(|| arg.data_type(self.input).ok());
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
        // Calls with the same arguments share their distinct set.
        let of = (columns, filter);
        let known = self
            .parts
            .iter()
            .position(|part| matches!(part, AggregatePart::Distinct { of: o, .. } if *o == of));
        let part = known.unwrap_or_else(|| {
            let fields: Vec<Field> = args
                .iter()
                .map(|(_, data_type)| Field::new("value", data_type.clone(), true))
                .collect();
            let schema = Arc::new(Schema::new(fields));
            let part = AggregatePart::Distinct {
                measures: Measures::default(),
                values: codec(schema.clone()),
                label: plan::readable_call(call),
                of,
            };
            self.project(
                args.clone(),
                filter,
                true,
                ValueEncoder::Codec(codec(schema.clone())),
                part,
            );
            self.parts.len() - 1
        });
        // The distinct set has already applied the filter, and its columns are the arguments.
        let stage = part + 1;
        let index = self
            .finished
            .measure(stage, (0..args.len()).collect(), None, numbers, squares);
        let of_stage = self.finished.of_stage(stage);
        if let AggregatePart::Distinct { measures, .. } = &mut self.parts[part] {
            *measures = of_stage;
        }
        Some(index)
    }

    /// Adds a projection of these expressions, and the part that it feeds.
    fn project(
        &mut self,
        expressions: Vec<(Expr, DataType)>,
        filter: Option<usize>,
        skip_nulls: bool,
        encoder: ValueEncoder,
        part: AggregatePart,
    ) {
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
        self.parts.push(part);
    }
}

/// The codec of a planned schema.
pub(super) fn codec(schema: SchemaRef) -> RowCodec {
    RowCodec::new(schema).expect("a planned node has columns of types that rows can hold")
}

/// The schema of a single column.
pub(super) fn one(field: &Field) -> SchemaRef {
    Arc::new(Schema::new(vec![field.clone()]))
}

/// The encoded null of a column.
fn null(field: &Field) -> Row {
    let rows = codec(one(field)).encode_rows(&[new_null_array(field.data_type(), 1)], 1);
    rows.expect("every type has a null").pop().expect("one row was encoded")
}
