//! Where the parts of a GROUP BY go: expressions to columns that are evaluated once, calls to measures, to sets
//! of distinct arguments and to aggregates kept apart. Decides; builds no operator.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::expressions::Literal;

use super::finish::{Kept, Source};
use super::front::{Encoder, Projection};
use super::general::General;
use super::history::End;
use super::measure::{Call, Measures, Numbers};
use crate::plan::{self, AggregateCall, AggregateKind, Expr};
use crate::repr::{Row, RowCodec};

/// An aggregate kept apart, or a set of distinct arguments: what becomes of a projection.
pub(super) enum Part {
    Distinct {
        measures: Measures,
        values: RowCodec,
        label: String,
        of: Of,
    },
    Values {
        label: String,
        of: Of,
    },
    General {
        general: Box<General>,
        label: String,
    },
}

/// What a part is made of: columns, and the filter. Aggregates of the same share a part.
type Of = (Vec<usize>, Option<usize>);

impl Part {
    /// What operators are called after.
    pub fn label(&self) -> &str {
        match self {
            Part::Distinct { label, .. } | Part::Values { label, .. } | Part::General { label, .. } => label,
        }
    }
}

/// How an aggregate adds up.
struct Additive {
    squares: bool,
    numbers: Numbers,
    /// What its argument is cast to; none: it is only looked at for nulls.
    arg_type: Option<DataType>,
}

/// Where everything goes: expressions to columns, calls to measures and parts.
pub(super) struct Layout<'a> {
    input: &'a SchemaRef,
    pub expressions: Vec<(Expr, DataType)>,
    /// The measures over rows.
    pub measures: Measures,
    /// All additive calls, and all measures, of rows and of distinct sets.
    pub finished: Measures,
    pub projections: Vec<Projection>,
    /// One for each projection.
    pub parts: Vec<Part>,
    /// One for each aggregate.
    pub sources: Vec<Source>,
    /// The columns of `finished`.
    pub results: Vec<Field>,
}

impl<'a> Layout<'a> {
    /// Of a GROUP BY over rows of `input`, with rows of `output`.
    pub fn new(input: &'a SchemaRef, output: &SchemaRef, plan: &plan::Aggregate) -> Self {
        let types = output.fields().iter().map(|field| field.data_type().clone());
        let mut layout = Layout {
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

    /// Positions of the expressions that measures and projections look at.
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
                    AggregateKind::Min => End::Least,
                    _ => End::Greatest,
                };
                Source::Kept(Kept {
                    input: self.values(call.args[0].clone(), filter, &field),
                    end,
                    tagged: false,
                    missing: null(&field),
                })
            }
            (_, Some(additive)) => {
                let measure = self.measure(call, &additive);
                self.finished.calls.push(Call {
                    kind: call.kind,
                    measure,
                    arg_type: additive.arg_type.unwrap_or(DataType::Null),
                    result_type: call.function.field().data_type().clone(),
                    output_type: output_type.clone(),
                    name: label,
                });
                self.results.push(field);
                Source::Accumulators
            }
            _ => {
                let (general, stored) = General::new(call, self.input, codec(one(&field)), output_type.clone());
                let missing = general.missing().unwrap_or_else(|| null(&field));
                let encoder = Encoder::Ordered(general.converter());
                let general = Box::new(general);
                let input = self.kept().count();
                self.project(stored, filter, false, encoder, Part::General { general, label });
                Source::Kept(Kept {
                    input,
                    end: End::Least, // the only one
                    tagged: true,
                    missing,
                })
            }
        };
        self.sources.push(source);
    }

    /// The parts whose values are looked up when rows are made.
    fn kept(&self) -> impl Iterator<Item = &Part> {
        let parts = self.parts.iter();
        parts.filter(|part| !matches!(part, Part::Distinct { .. }))
    }

    /// The values of an expression among the parts that are kept, made if they are not there yet.
    fn values(&mut self, arg: Expr, filter: Option<usize>, field: &Field) -> usize {
        let column = self.column(&arg, field.data_type());
        let known =
            (self.kept()).position(|part| matches!(part, Part::Values { of, .. } if *of == (vec![column], filter)));
        known.unwrap_or_else(|| {
            let input = self.kept().count();
            let part = Part::Values {
                label: format!("values of {arg}"),
                of: (vec![column], filter),
            };
            let values = vec![(arg, field.data_type().clone())];
            self.project(values, filter, true, Encoder::Codec(codec(one(field))), part);
            input
        })
    }

    fn filter(&mut self, call: &AggregateCall) -> Option<usize> {
        let filter = call.filter.as_ref();
        filter.map(|filter| self.column(filter, &DataType::Boolean))
    }

    /// The position of an expression's column, cast to this type.
    fn column(&mut self, expr: &Expr, data_type: &DataType) -> usize {
        let same = |(other, other_type): &(Expr, DataType)| other == expr && other_type == data_type;
        self.expressions.iter().position(same).unwrap_or_else(|| {
            self.expressions.push((expr.clone(), data_type.clone()));
            self.expressions.len() - 1
        })
    }

    /// How an aggregate adds up; none: it does not.
    fn additive(&self, call: &AggregateCall) -> Option<Additive> {
        use AggregateKind as Kind;
        let arg_type = call.args.first().and_then(|arg| arg.data_type(self.input).ok())?;
        let result_type = call.function.field().data_type().clone();
        if call.kind != Kind::Count && call.args.len() != 1 {
            return None;
        }
        let (numbers, squares, arg_type) = match (call.kind, &result_type, &arg_type) {
            (Kind::Count, _, _) => (Numbers::None, false, None),
            (Kind::Sum, DataType::Int64, _) => (Numbers::Int64, false, Some(result_type)),
            (Kind::Sum, DataType::UInt64, _) => (Numbers::UInt64, false, Some(result_type)),
            (Kind::Sum | Kind::Avg, DataType::Float64, _) => (Numbers::Float, false, Some(result_type)),
            (Kind::Sum | Kind::Avg, DataType::Decimal128(_, result), DataType::Decimal128(_, scale))
                if scale <= result =>
            {
                (Numbers::Decimal, false, Some(arg_type))
            }
            (Kind::VarPop | Kind::VarSamp | Kind::StddevPop | Kind::StddevSamp, DataType::Float64, _) => {
                (Numbers::Float, true, Some(result_type))
            }
            (Kind::BoolAnd | Kind::BoolOr, _, DataType::Boolean) => (Numbers::Boolean, false, Some(arg_type)),
            _ => return None,
        };
        Some(Additive {
            squares,
            numbers,
            arg_type,
        })
    }

    /// Makes the measures of all additive calls, those that keep most first: they also serve calls that keep
    /// less, a count of the same argument for one.
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

    /// The measure of an additive call; none: it counts the group's rows.
    fn measure(&mut self, call: &AggregateCall, additive: &Additive) -> Option<usize> {
        let filter = self.filter(call);
        let (numbers, squares) = (additive.numbers, additive.squares);
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
        // Calls over the same arguments share their distinct set.
        let of = (columns, filter);
        let known = self
            .parts
            .iter()
            .position(|part| matches!(part, Part::Distinct { of: o, .. } if *o == of));
        let part = known.unwrap_or_else(|| {
            let fields: Vec<Field> = args
                .iter()
                .map(|(_, data_type)| Field::new("value", data_type.clone(), true))
                .collect();
            let schema = Arc::new(Schema::new(fields));
            let part = Part::Distinct {
                measures: Measures::default(),
                values: codec(schema.clone()),
                label: plan::readable_call(call),
                of,
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

    /// Hands these expressions' values, encoded, to a part of its own.
    fn project(
        &mut self,
        expressions: Vec<(Expr, DataType)>,
        filter: Option<usize>,
        skip_nulls: bool,
        encoder: Encoder,
        part: Part,
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

/// The schema of one column.
pub(super) fn one(field: &Field) -> SchemaRef {
    Arc::new(Schema::new(vec![field.clone()]))
}

/// The encoded null of a column.
fn null(field: &Field) -> Row {
    let rows = codec(one(field)).encode_rows(&[new_null_array(field.data_type(), 1)], 1);
    rows.expect("every type has a null").pop().expect("one row was encoded")
}
