//! Lowers window functions, and turns filters on ranks into a top-k of groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr as Logical, Filter, LogicalPlan, Operator, Window as LogicalWindow, WindowFrame, WindowFrameBound,
};
use datafusion::physical_expr::expressions::Literal as PhysicalLiteral;
use datafusion::physical_plan::WindowExpr;
use datafusion::physical_planner::create_window_expr_with_name;

use super::aggregate::normal_dfschema;
use super::{Lowering, expr};
use crate::plan::encoding;
use crate::plan::error::{Planned, Refusal};
use crate::plan::guard::gathers;
use crate::plan::{Expr, NodeId, Op, Rank, TopK, Window};
use crate::repr::normalise_schema;

impl Lowering<'_> {
    pub(super) fn window(&mut self, window: &LogicalWindow) -> Planned<NodeId> {
        let input = self.lower(&window.input)?;
        let logical = normal_dfschema(window.input.schema())?;
        let actual = self.builder.schema(input).clone();
        let first = function(&window.window_expr[0])?;
        let partition = first
            .params
            .partition_by
            .iter()
            .map(|p| expr::physical(p, &logical, &actual))
            .collect::<Planned<Vec<_>>>()?;
        let mut order = expr::sort_keys(&first.params.order_by, &logical, &actual)?;
        expr::complete(&mut order, &partition, &actual);
        let mut functions: Vec<Arc<dyn WindowExpr>> = Vec::with_capacity(window.window_expr.len());
        let mut most = Vec::with_capacity(window.window_expr.len());
        for e in &window.window_expr {
            let function = function(e)?;
            if function.params.partition_by != first.params.partition_by
                || function.params.order_by != first.params.order_by
            {
                return Err(Refusal::new("could not plan window functions of different orders as one").into());
            }
            check_frame(&function.params.window_frame)?;
            most.push(gathers(function.fun.name()).then_some(self.max_value));
            functions.push(create_window_expr_with_name(
                &Logical::WindowFunction(Box::new(function.clone())),
                name(&function, &logical, &actual)?,
                &logical,
                &ExecutionProps::new(),
                &PhysicalPlanningContext::default(),
            )?);
        }
        let op = Op::Window(Window {
            partition,
            order,
            functions,
            most,
        });
        let schema = normalise_schema(window.schema.as_arrow());
        Ok(self.add(op, vec![input], schema, "window", false))
    }

    /// Lowers a filter on ROW_NUMBER, RANK or DENSE_RANK to a top-k. `used` are the expressions over the
    /// filter's columns that are read above. `None` if the filter has another form.
    pub(super) fn top_of_groups(&mut self, filter: &Filter, used: &[Logical]) -> Planned<Option<NodeId>> {
        match filter.input.as_ref() {
            LogicalPlan::Window(window) => self.top_of_window(window, &filter.predicate, used),
            // A projection that only chooses columns may stand between; the filter then moves below it.
            LogicalPlan::Projection(chosen) => {
                let LogicalPlan::Window(window) = chosen.input.as_ref() else {
                    return Ok(None);
                };
                let below: Vec<Logical> = chosen.expr.iter().map(|e| e.clone().unalias_nested().data).collect();
                if !below.iter().all(|e| matches!(e, Logical::Column(_))) {
                    return Ok(None);
                }
                let names = chosen.schema.columns();
                let substitute = |e: &Logical| {
                    e.clone().transform_up(|e| {
                        let at = match &e {
                            Logical::Column(column) => names.iter().position(|n| n == column),
                            _ => None,
                        };
                        Ok(at.map_or(Transformed::no(e), |n| Transformed::yes(below[n].clone())))
                    })
                };
                let predicate = substitute(&filter.predicate).data()?;
                let used = used
                    .iter()
                    .map(|e| substitute(e).data())
                    .collect::<Result<Vec<_>, _>>()?;
                let Some(node) = self.top_of_window(window, &predicate, &used)? else {
                    return Ok(None);
                };
                // The top-k does not yield a rank that nobody reads, so its column gets a constant.
                let actual = self.builder.schema(node).clone();
                let projection = below
                    .iter()
                    .map(|e| match window.schema.index_of_column(&column_of(e)?)? {
                        rank if rank == actual.fields().len() => {
                            let never_read: Expr = Arc::new(PhysicalLiteral::new(ScalarValue::UInt64(Some(0))));
                            Ok(never_read)
                        }
                        position => Ok(expr::column(&actual, position)),
                    })
                    .collect::<Planned<Vec<_>>>()?;
                let schema = normalise_schema(chosen.schema.as_arrow());
                Ok(Some(self.map(node, projection, schema)))
            }
            _ => Ok(None),
        }
    }

    /// Lowers a window whose rank is bounded above by a predicate.
    fn top_of_window(
        &mut self,
        window: &LogicalWindow,
        predicate: &Logical,
        used: &[Logical],
    ) -> Planned<Option<NodeId>> {
        let [ranked] = window.window_expr.as_slice() else {
            return Ok(None);
        };
        let ranked = function(ranked)?;
        let rank = match ranked.fun.name() {
            "row_number" => Rank::RowNumber,
            "rank" => Rank::Rank,
            "dense_rank" => Rank::DenseRank,
            _ => return Ok(None),
        };
        if ranked.params.order_by.is_empty() && rank != Rank::RowNumber {
            return Ok(None);
        }
        let position = window.input.schema().fields().len();
        let column = Logical::Column(window.schema.columns()[position].clone());
        let (mut low, mut high): (u64, Option<u64>) = (1, None);
        let mut rest: Vec<&Logical> = Vec::new();
        let mut has_bound = false;
        for condition in split_conjunction(predicate) {
            match rank_bounds(condition, &column) {
                Some((from, to)) => {
                    has_bound = true;
                    low = low.max(from);
                    high = match (high, to) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    };
                }
                None => rest.push(condition),
            }
        }
        if !has_bound || high.is_none() {
            return Ok(None);
        }
        let output_rank = used
            .iter()
            .chain(rest.iter().copied())
            .any(|e| e.column_refs().contains(&window.schema.columns()[position]));
        let input = self.lower(&window.input)?;
        let logical = window.input.schema();
        let actual = self.builder.schema(input).clone();
        let partition = ranked
            .params
            .partition_by
            .iter()
            .map(|p| expr::physical(p, logical, &actual))
            .collect::<Planned<Vec<_>>>()?;
        let mut order = expr::sort_keys(&ranked.params.order_by, logical, &actual)?;
        let written = order.len();
        expr::complete(&mut order, &partition, &actual);
        let offset = usize::try_from(low - 1).unwrap_or(usize::MAX);
        let top = TopK {
            ranked: if rank == Rank::RowNumber { order.len() } else { written },
            partition,
            order,
            offset,
            limit: high.map(|high| usize::try_from(high).unwrap_or(usize::MAX).saturating_sub(offset)),
            rank,
            output_rank,
        };
        let schema = if output_rank {
            normalise_schema(window.schema.as_arrow())
        } else {
            actual
        };
        let node = self.add(Op::TopK(top), vec![input], schema, "top", false);
        self.keep(node, &rest, &window.schema).map(Some)
    }
}

/// Refuses a frame with a negative distance.
fn check_frame(frame: &WindowFrame) -> Planned<()> {
    for bound in [&frame.start_bound, &frame.end_bound] {
        let (value, word) = match bound {
            WindowFrameBound::Preceding(value) => (value, "PRECEDING"),
            WindowFrameBound::Following(value) => (value, "FOLLOWING"),
            WindowFrameBound::CurrentRow => continue,
        };
        if is_negative(value) {
            let other = if word == "PRECEDING" { "FOLLOWING" } else { "PRECEDING" };
            return Err(Refusal::new(format!(
                "could not plan a frame of a negative distance in front of {word}"
            ))
            .help(format!(
                "write a distance that is not negative, and {other} for the other direction"
            ))
            .near(word)
            .into());
        }
    }
    Ok(())
}

fn is_negative(value: &ScalarValue) -> bool {
    const DAY: i128 = 86_400_000_000_000;
    match value {
        ScalarValue::Utf8(Some(text)) => text.trim_start().starts_with('-'),
        ScalarValue::IntervalMonthDayNano(Some(span)) => {
            let days = i128::from(span.months) * 30 + i128::from(span.days);
            days * DAY + i128::from(span.nanoseconds) < 0
        }
        ScalarValue::IntervalYearMonth(Some(months)) => *months < 0,
        ScalarValue::IntervalDayTime(Some(span)) => {
            i64::from(span.days) * 86_400_000 + i64::from(span.milliseconds) < 0
        }
        value if value.is_null() => false,
        value => ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| value < &zero),
    }
}

fn column_of(expr: &Logical) -> Planned<Column> {
    match expr {
        Logical::Column(column) => Ok(column.clone()),
        other => Err(Refusal::new(format!("could not read {other} as a column")).into()),
    }
}

fn function(expr: &Logical) -> Planned<WindowFunction> {
    match expr.clone().unalias_nested().data {
        Logical::WindowFunction(function) => Ok(*function),
        other => Err(Refusal::new(format!("could not plan the window function {other}")).into()),
    }
}

/// What a window function computes, with columns by position. It identifies the function in its node's key.
fn name(function: &WindowFunction, logical: &datafusion::common::DFSchema, actual: &Schema) -> Planned<String> {
    let key = |e: &Logical| expr::physical(e, logical, actual).map(|e: Expr| encoding::positioned(&e));
    let args = function.params.args.iter().map(key).collect::<Planned<Vec<_>>>()?;
    let mut name = format!("{}({})", function.fun.name(), args.join(", "));
    if function.params.distinct {
        name.push_str(" DISTINCT");
    }
    if let Some(filter) = &function.params.filter {
        name.push_str(&format!(" FILTER {}", key(filter)?));
    }
    if let Some(nulls) = &function.params.null_treatment {
        name.push_str(&format!(" {nulls}"));
    }
    Ok(name)
}

/// The least and the greatest rank that a condition lets through, if the condition is on the rank alone.
fn rank_bounds(condition: &Logical, rank: &Logical) -> Option<(u64, Option<u64>)> {
    match condition {
        Logical::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, bound) = if bare(left) == rank {
                (*op, number(right)?)
            } else if bare(right) == rank {
                (op.swap()?, number(left)?)
            } else {
                return None;
            };
            // For a constant between two ranks, the greater one is the first rank above it, and the lesser one
            // the last below it.
            let (floor, ceiling) = bound;
            match op {
                Operator::LtEq => Some((1, Some(floor))),
                Operator::Lt => Some((1, Some(ceiling.saturating_sub(1)))),
                Operator::Eq if floor == ceiling => Some((floor.max(1), Some(floor))),
                Operator::Eq => Some((1, Some(0))),
                Operator::GtEq => Some((ceiling.max(1), None)),
                Operator::Gt => Some((floor.checked_add(1)?, None)),
                _ => None,
            }
        }
        Logical::InList(list) if !list.negated && bare(&list.expr) == rank => {
            let whole = |expr: &Logical| number(expr).filter(|(floor, ceiling)| floor == ceiling);
            let ranks: BTreeSet<u64> = list.list.iter().map(|e| Some(whole(e)?.0)).collect::<Option<_>>()?;
            let (first, last) = (*ranks.first()?, *ranks.last()?);
            (last - first + 1 == ranks.len() as u64).then_some((first, Some(last)))
        }
        _ => None,
    }
}

/// The expression without casts to other numeric types.
fn bare(expr: &Logical) -> &Logical {
    match expr {
        Logical::Cast(cast) if cast.field.data_type().is_numeric() => bare(&cast.expr),
        other => other,
    }
}

/// The greatest whole number that is not above a constant, and the least that is not below it. Ranks begin at
/// 1, so 0 stands for everything below.
fn number(expr: &Logical) -> Option<(u64, u64)> {
    let Logical::Literal(value, _) = expr else { return None };
    let scale = match value.data_type() {
        DataType::Decimal128(_, scale) if scale > 0 => 10i128.pow(scale as u32),
        of if of.is_integer() || of.is_decimal() => 1,
        DataType::Float64 => {
            let ScalarValue::Float64(Some(n)) = value else {
                return None;
            };
            let within = |n: f64| (n < 9e15).then_some(n.max(0.0) as u64);
            return Some((within(n.floor())?, within(n.ceil())?));
        }
        _ => return None,
    };
    let units = match value {
        ScalarValue::Decimal128(units, ..) => (*units)?,
        other => match other.cast_to(&DataType::Decimal128(38, 0)).ok()? {
            ScalarValue::Decimal128(units, ..) => units?,
            _ => return None,
        },
    };
    let floor = units.div_euclid(scale);
    let ceiling = floor + i128::from(units.rem_euclid(scale) != 0);
    let rank = |n: i128| u64::try_from(n.max(0)).ok();
    Some((rank(floor)?, rank(ceiling)?))
}
