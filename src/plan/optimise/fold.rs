//! Simplifies expressions without changing their results, NULL included, whatever their columns hold.
//!
//! 1. An expression of literals is computed. If that fails, it stays and the error is reported by its rows,
//!    except that a cast is refused at once.
//! 2. AND, OR, NOT, CASE and comparisons with a literal NULL follow three-valued logic. Whether a column may be
//!    null is not used, because the nullability of expressions is not reliable.
//! 3. NOT is pushed down to a comparison, test or list that can absorb it.
//! 4. BETWEEN becomes two comparisons. A list of one item becomes a comparison, and so does each item of a list
//!    that is computed. A literal moves to the right side.
//! 5. A comparison of a widened column with literals compares the column itself if the literals fit its type.
//! 6. Functions that DataFusion cannot evaluate become the expressions for which they stand: COALESCE becomes a
//!    CASE.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::{Case, InList};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, EmptyRelation, Expr, ExprSchemable, LogicalPlan, Operator, Volatility, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::planner::create_physical_expr;
use std::sync::Arc;

use super::super::numbers;
use super::super::rewrite::rewrite;
use crate::contain::contain;

/// Functions that stand for other expressions, see (6).
const STANDING_FOR_OTHERS: [&str; 9] = [
    "coalesce",
    "nvl",
    "ifnull",
    "nvl2",
    "arrow_cast",
    "arrow_try_cast",
    "cast_to_type",
    "try_cast_to_type",
    "window_time",
];

/// The optimizer rule that simplifies the expressions of a plan.
#[derive(Debug)]
pub(super) struct SimplifyExpressions;

impl OptimizerRule for SimplifyExpressions {
    fn name(&self) -> &str {
        "fold"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&scan.projected_schema);
        }
        let names = numbers::grouped_names(&plan);
        let mut folded = rewrite(plan, |expr| folded(expr, &schema))?;
        if folded.transformed {
            folded.data = numbers::with_grouped_names(folded.data, names)?;
        }
        folded.transform_data(|plan| Ok(read_by_none(plan)))
    }
}

/// A scan whose filter keeps no row becomes empty, because some providers do not respect a filter that is NULL.
fn read_by_none(plan: LogicalPlan) -> Transformed<LogicalPlan> {
    let keeps_none = |filter: &Expr| {
        matches!(
            filter,
            Expr::Literal(ScalarValue::Boolean(None | Some(false)) | ScalarValue::Null, _)
        )
    };
    match plan {
        LogicalPlan::TableScan(scan) if scan.filters.iter().any(keeps_none) => {
            Transformed::yes(LogicalPlan::EmptyRelation(EmptyRelation {
                produce_one_row: false,
                schema: scan.projected_schema,
            }))
        }
        plan => Transformed::no(plan),
    }
}

/// The simplified expression; its columns are those of `schema`.
pub(in crate::plan) fn folded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    // NOT is pushed down first, so that its operands are simplified afterwards.
    expr.transform_down(negated)?
        .transform_data(|expr| expr.transform_up(|e| step(e, schema)))
}

/// The value of an expression of literals. Other expressions, and those that fail, stay as they are.
pub(in crate::plan) fn constant(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform_up(|e| computed(e, schema)).data()
}

fn step(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let mut changed = false;
    let mut expr = expr;
    loop {
        let next = computed(expr, schema)?
            .transform_data(|e| stood_for(e, schema))?
            .transform_data(|e| Ok(connected(e)))?
            .transform_data(|e| chosen(e, schema))?
            .transform_data(|e| compared(e, schema))?;
        expr = next.data;
        if !next.transformed {
            return Ok(Transformed::new_transformed(expr, changed));
        }
        changed = true;
    }
}

/// Computes literals, see (1).
fn computed(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !is_of_literals(&expr) {
        return Ok(Transformed::no(expr));
    }
    Ok(match contain(|| value(&expr, schema)) {
        Ok(Ok(value)) => Transformed::yes(Expr::Literal(value, None)),
        Ok(Err(error)) if matches!(expr, Expr::Cast(_)) => return Err(error),
        _ => Transformed::no(expr),
    })
}

/// Whether an expression consists of literals, and is not itself a literal.
fn is_of_literals(expr: &Expr) -> bool {
    let foldable = match expr {
        Expr::BinaryExpr(_)
        | Expr::Like(_)
        | Expr::SimilarTo(_)
        | Expr::Not(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::Case(_)
        | Expr::Cast(_)
        | Expr::TryCast(_)
        | Expr::InList(_) => true,
        Expr::ScalarFunction(call) => {
            call.func.signature().volatility == Volatility::Immutable
                && !STANDING_FOR_OTHERS.contains(&call.func.name())
        }
        _ => false,
    };
    let mut literals = foldable;
    let _ = foldable.then(|| {
        expr.apply_children(|child| {
            literals &= matches!(child, Expr::Literal(..));
            Ok(TreeNodeRecursion::Continue)
        })
    });
    literals
}

fn value(expr: &Expr, schema: &DFSchema) -> Result<ScalarValue> {
    let of = expr.get_type(schema)?;
    let nothing = DFSchema::empty();
    let planned = create_physical_expr(
        expr,
        &nothing,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )?;
    let one = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one)?;
    let value = match planned.evaluate(&row)? {
        ColumnarValue::Scalar(value) => value,
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0)?,
    };
    match value.data_type() == of {
        true => Ok(value),
        false => value.cast_to(&of),
    }
}

/// Replaces functions, see (6).
fn stood_for(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(mut call) = expr else {
        return Ok(Transformed::no(expr));
    };
    if !STANDING_FOR_OTHERS.contains(&call.func.name()) {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    let info = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    Ok(match call.func.simplify(call.args, &info)? {
        ExprSimplifyResult::Simplified(expr) => Transformed::yes(expr),
        ExprSimplifyResult::Original(args) => {
            call.args = args;
            Transformed::no(Expr::ScalarFunction(call))
        }
    })
}

/// Simplifies AND and OR with a literal, see (2).
fn connected(expr: Expr) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return Transformed::no(expr);
    };
    // The value that decides the operation alone; the opposite one changes nothing.
    let decisive = match op {
        Operator::And => false,
        Operator::Or => true,
        _ => return Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
    };
    match (truth(&left), truth(&right)) {
        (Some(value), _) | (_, Some(value)) if value == decisive => Transformed::yes(lit(decisive)),
        (Some(_), _) => Transformed::yes(*right),
        (_, Some(_)) => Transformed::yes(*left),
        _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
    }
}

/// The value of a boolean literal that is not null.
fn truth(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Literal(ScalarValue::Boolean(truth), _) => *truth,
        _ => None,
    }
}

/// Removes known conditions from a CASE, see (2).
fn chosen(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_known = |when: &Expr| matches!(when, Expr::Literal(ScalarValue::Boolean(_), _));
    let of = match &expr {
        Expr::Case(case) if case.expr.is_none() && case.when_then_expr.iter().any(|(when, _)| is_known(when)) => {
            expr.get_type(schema)?
        }
        _ => return Ok(Transformed::no(expr)),
    };
    let Expr::Case(Case {
        when_then_expr,
        else_expr,
        ..
    }) = expr
    else {
        unreachable!("see above");
    };
    let (mut left, mut otherwise) = (vec![], else_expr);
    for (when, then) in when_then_expr {
        match (is_known(&when), truth(&when)) {
            (false, _) => left.push((when, then)),
            (true, Some(true)) => {
                otherwise = Some(then);
                break;
            }
            (true, _) => {}
        }
    }
    Ok(Transformed::yes(match otherwise {
        Some(otherwise) if left.is_empty() => *otherwise,
        None if left.is_empty() => lit(ScalarValue::try_from(&of)?),
        else_expr => Expr::Case(Case {
            expr: None,
            when_then_expr: left,
            else_expr,
        }),
    }))
}

/// Pushes a NOT down into an expression that can absorb it, see (3).
fn negated(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::Not(inner) = expr else {
        return Ok(Transformed::no(expr));
    };
    let not = |expr: Box<Expr>| Box::new(Expr::Not(expr));
    Ok(Transformed::yes(match *inner {
        // The operand of an inner NOT is boolean too, so both can be removed.
        Expr::Not(inner) => return negated(*inner).map(|inner| Transformed::yes(inner.data)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (op, op.negate()) {
            (Operator::And, _) => Expr::BinaryExpr(BinaryExpr::new(not(left), Operator::Or, not(right))),
            (Operator::Or, _) => Expr::BinaryExpr(BinaryExpr::new(not(left), Operator::And, not(right))),
            (_, Some(opposite)) => Expr::BinaryExpr(BinaryExpr::new(left, opposite, right)),
            _ => {
                let whole = Expr::BinaryExpr(BinaryExpr { left, op, right });
                return Ok(Transformed::no(Expr::Not(Box::new(whole))));
            }
        },
        Expr::InList(mut list) => {
            list.negated = !list.negated;
            Expr::InList(list)
        }
        Expr::Between(mut between) => {
            between.negated = !between.negated;
            Expr::Between(between)
        }
        Expr::Like(mut like) => {
            like.negated = !like.negated;
            Expr::Like(like)
        }
        Expr::InSubquery(mut within) => {
            within.negated = !within.negated;
            Expr::InSubquery(within)
        }
        Expr::Exists(mut exists) => {
            exists.negated = !exists.negated;
            Expr::Exists(exists)
        }
        Expr::IsNull(of) => Expr::IsNotNull(of),
        Expr::IsNotNull(of) => Expr::IsNull(of),
        Expr::IsTrue(of) => Expr::IsNotTrue(of),
        Expr::IsNotTrue(of) => Expr::IsTrue(of),
        Expr::IsFalse(of) => Expr::IsNotFalse(of),
        Expr::IsNotFalse(of) => Expr::IsFalse(of),
        Expr::IsUnknown(of) => Expr::IsNotUnknown(of),
        Expr::IsNotUnknown(of) => Expr::IsUnknown(of),
        other => return Ok(Transformed::no(Expr::Not(Box::new(other)))),
    }))
}

/// Simplifies comparisons, see (2), (4) and (5).
fn compared(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Between(between) => {
            let (first, second, both) = match between.negated {
                false => (Operator::GtEq, Operator::LtEq, Operator::And),
                true => (Operator::Lt, Operator::Gt, Operator::Or),
            };
            let low = BinaryExpr::new(between.expr.clone(), first, between.low);
            let high = BinaryExpr::new(between.expr, second, between.high);
            let side = |side: BinaryExpr| step(Expr::BinaryExpr(side), schema).map(|side| Box::new(side.data));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(side(low)?, both, side(high)?)))
        }
        Expr::InList(InList {
            expr,
            mut list,
            negated,
        }) if list.len() == 1 => {
            let op = if negated { Operator::NotEq } else { Operator::Eq };
            let only = Box::new(list.remove(0));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(expr, op, only)))
        }
        Expr::InList(list) if !list.list.iter().all(is_plain) => Transformed::yes(in_computed_list(list, schema)?),
        Expr::InList(list) => in_narrow_list(list, schema)?,
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let is_literal = |expr: &Expr| matches!(expr, Expr::Literal(..));
            let is_null = |expr: &Expr| matches!(expr, Expr::Literal(value, _) if value.is_null());
            if op.returns_null_on_null() && (is_null(&left) || is_null(&right)) {
                return Ok(Transformed::yes(Expr::Literal(ScalarValue::Boolean(None), None)));
            }
            match op.swap() {
                Some(swapped) if is_literal(&left) && !is_literal(&right) => {
                    Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(right, swapped, left)))
                }
                _ => narrow(*left, op, *right, schema)?,
            }
        }
        other => Transformed::no(other),
    })
}

/// Narrows a comparison of a widened expression with a literal, see (5).
fn narrow(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if let Some((inner, from)) = widened(&left, schema)?
        && let Expr::Literal(value, _) = &right
        && let Some(value) = narrowed(value, &from)
    {
        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(
            Box::new(inner.clone()),
            op,
            Box::new(lit(value)),
        ))));
    }
    Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(
        Box::new(left),
        op,
        Box::new(right),
    ))))
}

/// Whether an item may stay in a list. DataFusion evaluates a list in advance, over no rows, if its items yield
/// constants then; a CASE does so although it depends on the row.
fn is_plain(item: &Expr) -> bool {
    matches!(item, Expr::Literal(..) | Expr::Column(_))
}

/// A list with its computed items as comparisons, beside the list of the others.
fn in_computed_list(list: InList, schema: &DFSchema) -> Result<Expr> {
    let InList { expr, list, negated } = list;
    let (op, and_or) = match negated {
        false => (Operator::Eq, Operator::Or),
        true => (Operator::NotEq, Operator::And),
    };
    let (plain, computed): (Vec<Expr>, Vec<Expr>) = list.into_iter().partition(is_plain);
    let rest = (!plain.is_empty()).then(|| Expr::InList(InList::new(expr.clone(), plain, negated)));
    let comparisons = computed
        .into_iter()
        .map(|item| Expr::BinaryExpr(BinaryExpr::new(expr.clone(), op, Box::new(item))));
    let mut whole: Option<Expr> = None;
    for one in rest.into_iter().chain(comparisons) {
        let one = step(one, schema)?.data;
        whole = Some(match whole {
            Some(before) => Expr::BinaryExpr(BinaryExpr::new(Box::new(before), and_or, Box::new(one))),
            None => one,
        });
    }
    Ok(whole.expect("a list has an item"))
}

fn in_narrow_list(list: InList, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if let Some((inner, from)) = widened(&list.expr, schema)? {
        let values = list.list.iter().map(|item| match item {
            Expr::Literal(value, _) if value.is_null() => ScalarValue::try_from(&from).ok(),
            Expr::Literal(value, _) => narrowed(value, &from),
            _ => None,
        });
        if let Some(values) = values.collect::<Option<Vec<ScalarValue>>>() {
            return Ok(Transformed::yes(Expr::InList(InList {
                expr: Box::new(inner.clone()),
                list: values.into_iter().map(lit).collect(),
                negated: list.negated,
            })));
        }
    }
    Ok(Transformed::no(Expr::InList(list)))
}

/// The operand of a widening cast and its type. Such a cast changes neither values nor their order.
fn widened<'a>(expr: &'a Expr, schema: &DFSchema) -> Result<Option<(&'a Expr, DataType)>> {
    let Expr::Cast(cast) = expr else { return Ok(None) };
    let (from, to) = (cast.expr.get_type(schema)?, cast.field.data_type());
    let widens = match (&from, to) {
        (DataType::Decimal128(p, s), DataType::Decimal128(wide, scale)) => {
            scale >= s && i16::from(*wide) - i16::from(*scale) >= i16::from(*p) - i16::from(*s)
        }
        (from, DataType::Decimal128(wide, scale)) if from.is_integer() => {
            let digits = match from.primitive_width() {
                Some(1) => 3,
                Some(2) => 5,
                Some(4) => 10,
                _ => 20,
            };
            *scale >= 0 && i16::from(*wide) - i16::from(*scale) >= digits
        }
        // A UInt64 is a count of rows, which always fits BIGINT.
        (DataType::UInt64, DataType::Int64) => true,
        (from, to) if from.is_integer() && to.is_integer() => {
            let bytes = |of: &DataType| of.primitive_width().unwrap_or_default();
            match (from.is_signed_integer(), to.is_signed_integer()) {
                (a, b) if a == b => bytes(from) <= bytes(to),
                (false, true) => bytes(from) < bytes(to),
                _ => false,
            }
        }
        _ => false,
    };
    Ok(widens.then_some((cast.expr.as_ref(), from)))
}

/// A literal in a narrower type, if it fits.
fn narrowed(value: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
    if value.is_null() {
        return None;
    }
    let narrow = value.cast_to(to).ok().filter(|narrow| !narrow.is_null())?;
    let back = narrow.cast_to(&value.data_type()).ok()?;
    (&back == value).then_some(narrow)
}
