//! Coerces numbers to common types, before DataFusion coerces them to its own.
//!
//! Expressions are rewritten from the inside out, with the columns of the inputs as they are by then. Operands
//! of comparisons, CASE and similar expressions are converted. Arithmetic, negation and casts of numbers become
//! functions ([`super::functions`]). An expression that already has common types stays as it is, so a plan may
//! be rewritten again.

use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, Exists, InList, InSubquery, ScalarFunction, SetComparison, WindowFunction};
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Projection, Subquery, WindowFunctionDefinition,
    cast,
};
use datafusion_functions_json::udfs::{json_as_text_udf, json_get_float_udf};
use std::sync::Arc;

use super::super::times;
use super::compared_texts::read_literals;
use super::framed::framed;
use super::types::{CommonTypeUse, MOST, NumberArithmetic, common, is_number, meeting_of, shape};
use super::{convert, functions, nodes};

/// Functions that return one of their arguments.
const CHOOSING: [&str; 8] = [
    "coalesce", "nullif", "greatest", "least", "nvl", "ifnull", "nvl2", "nanvl",
];
/// Functions that support decimals.
const OF_DECIMALS: [&str; 14] = [
    "round",
    "abs",
    "ceil",
    "ceiling",
    "floor",
    "signum",
    "concat",
    "concat_ws",
    "as_type",
    "to_char",
    "isnan",
    "to_json",
    "json_key",
    "json_item",
];
/// Functions of doubles: a decimal argument is cast to the nearest double.
const OF_DOUBLES: [&str; 26] = [
    "sqrt", "cbrt", "exp", "ln", "log", "log2", "log10", "power", "pow", "sin", "cos", "tan", "asin", "acos", "atan",
    "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "cot", "degrees", "radians", "trunc",
];
/// Aggregates and window functions that support decimals.
const AGGREGATES: [&str; 13] = [
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "first_value",
    "last_value",
    "nth_value",
    "array_agg",
    "any_value",
    "lag",
    "lead",
    "mode",
];
/// Aggregates of doubles.
const OF_MANY_DOUBLES: [&str; 10] = [
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "var",
    "var_pop",
    "var_samp",
    "var_sample",
    "corr",
    "covar_pop",
    "covar_samp",
];

/// The expression with the types of its parts coerced; its columns are those of `schema`.
pub(super) fn agreed(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|e| agree(e, schema))
}

fn agree(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(binary) => agree_binary(binary, schema),
        Expr::Between(Between {
            mut expr,
            negated,
            mut low,
            mut high,
        }) => {
            let changed = coerce_compared(vec![&mut expr, &mut low, &mut high], schema)?;
            Ok(marked_changed(
                Expr::Between(Between {
                    expr,
                    negated,
                    low,
                    high,
                }),
                changed,
            ))
        }
        Expr::InList(InList {
            mut expr,
            mut list,
            negated,
        }) => {
            let all = std::iter::once(expr.as_mut()).chain(&mut list).collect();
            let changed = coerce_compared(all, schema)?;
            Ok(marked_changed(Expr::InList(InList { expr, list, negated }), changed))
        }
        Expr::Case(case) => agree_case(case, schema),
        Expr::ScalarFunction(call) => Ok(agree_call(call, schema)),
        Expr::AggregateFunction(mut call) => {
            let changed = arguments(call.func.name(), &mut call.params.args, schema);
            Ok(marked_changed(Expr::AggregateFunction(call), changed))
        }
        Expr::WindowFunction(call) => Ok(agree_window(call, schema)),
        Expr::Negative(of) => Ok(agree_negative(of, schema)),
        Expr::Cast(to) if to.field.data_type().is_decimal() && is_of_json(&to.expr) => {
            Ok(Transformed::yes(of_json(*to.expr, to.field.data_type(), false)))
        }
        Expr::TryCast(to) if to.field.data_type().is_decimal() && is_of_json(&to.expr) => {
            Ok(Transformed::yes(of_json(*to.expr, to.field.data_type(), true)))
        }
        Expr::Cast(to) => Ok(match cast_as_ours(&to.expr, to.field.data_type(), false, schema) {
            Some(ours) => Transformed::yes(ours),
            None => Transformed::no(Expr::Cast(to)),
        }),
        Expr::TryCast(to) => Ok(match cast_as_ours(&to.expr, to.field.data_type(), true, schema) {
            Some(ours) => Transformed::yes(ours),
            None => Transformed::no(Expr::TryCast(to)),
        }),
        // The column's type may have changed since the subquery was planned.
        Expr::OuterReferenceColumn(field, column) => Ok(match schema.qualified_field_from_column(&column) {
            Ok((_, now)) if now.data_type() != field.data_type() => {
                let field = field.as_ref().clone().with_data_type(now.data_type().clone());
                Transformed::yes(Expr::OuterReferenceColumn(Arc::new(field), column))
            }
            _ => Transformed::no(Expr::OuterReferenceColumn(field, column)),
        }),
        Expr::ScalarSubquery(subquery) => Ok(Transformed::yes(Expr::ScalarSubquery(within(subquery, schema)?))),
        Expr::Exists(Exists { subquery, negated }) => {
            let subquery = within(subquery, schema)?;
            Ok(Transformed::yes(Expr::Exists(Exists { subquery, negated })))
        }
        Expr::InSubquery(InSubquery {
            mut expr,
            subquery,
            negated,
        }) => {
            let subquery = compared(&mut expr, within(subquery, schema)?, schema)?;
            Ok(Transformed::yes(Expr::InSubquery(InSubquery {
                expr,
                subquery,
                negated,
            })))
        }
        Expr::SetComparison(SetComparison {
            mut expr,
            subquery,
            op,
            quantifier,
        }) => {
            let subquery = compared(&mut expr, within(subquery, schema)?, schema)?;
            Ok(Transformed::yes(Expr::SetComparison(SetComparison {
                expr,
                subquery,
                op,
                quantifier,
            })))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn agree_binary(BinaryExpr { left, op, right }: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if let Some(arith) = arithmetic_of(op) {
        return Ok(arithmetic(arith, op, *left, *right, schema));
    }
    let (mut left, mut right) = (left, right);
    if matches!(op, Operator::BitwiseShiftLeft | Operator::BitwiseShiftRight)
        && let (Ok(of), Ok(by)) = (left.get_type(schema), right.get_type(schema))
        && of.is_integer()
        && by.is_integer()
        && of != by
    {
        // A shift has the type of the number that is shifted.
        right = Box::new(converted(*right, &by, &of));
        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })));
    }
    let operands = vec![left.as_mut(), right.as_mut()];
    let changed = match op.supports_propagation() {
        true if is_pattern_match(op) => coerce_to_common(operands, CommonTypeUse::Compared, schema),
        true => coerce_compared(operands, schema)?,
        false => doubles_beside(operands, schema),
    };
    Ok(marked_changed(
        Expr::BinaryExpr(BinaryExpr { left, op, right }),
        changed,
    ))
}

fn agree_case(mut case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let compared: Vec<&mut Expr> = match case.expr.as_deref_mut() {
        Some(expr) => {
            let whens = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
            std::iter::once(expr).chain(whens).collect()
        }
        None => vec![],
    };
    let mut changed = coerce_compared(compared, schema)?;
    let thens = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
    let branches = thens.chain(case.else_expr.as_deref_mut()).collect();
    changed |= coerce_to_common(branches, CommonTypeUse::Kept, schema);
    Ok(marked_changed(Expr::Case(case), changed))
}

/// A call whose function is another one for numbers, or else with its arguments coerced.
fn agree_call(call: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    let is_ours = functions::is_number_function(&call.func);
    if call.func.name() == "mod" && call.args.len() == 2 {
        let [left, right] = <[Expr; 2]>::try_from(call.args).expect("there are two");
        return arithmetic(NumberArithmetic::Remainder, Operator::Modulo, left, right, schema);
    }
    if call.func.name() == "div"
        && let [left, right] = call.args.as_slice()
        && let Some(quotient) = quotient(left, right, schema)
    {
        return Transformed::yes(quotient);
    }
    if !is_ours && let Some(rounded) = rounded(&call, schema) {
        return Transformed::yes(rounded);
    }
    match is_ours {
        true => Transformed::no(Expr::ScalarFunction(call)),
        false => agree_arguments(call, schema),
    }
}

/// A call with its arguments as the function needs them.
fn agree_arguments(mut call: ScalarFunction, schema: &DFSchema) -> Transformed<Expr> {
    let args = call.args.iter_mut();
    let changed = match call.func.name() {
        "nvl2" => coerce_to_common(args.skip(1).collect(), CommonTypeUse::Kept, schema),
        name if CHOOSING.contains(&name) => coerce_to_common(args.collect(), CommonTypeUse::Kept, schema),
        "make_array" => coerce_times(&mut args.collect::<Vec<_>>(), schema),
        name if OF_DECIMALS.contains(&name) => false,
        name if OF_DOUBLES.contains(&name) => args.fold(false, |c, arg| as_double(arg, schema) | c),
        _ => doubles_beside(args.collect(), schema),
    };
    marked_changed(Expr::ScalarFunction(call), changed)
}

fn agree_window(mut call: Box<WindowFunction>, schema: &DFSchema) -> Transformed<Expr> {
    let mut changed = arguments(call.fun.name(), &mut call.params.args, schema);
    if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun
        && !call.params.distinct
        && !call.params.window_frame.start_bound.is_unbounded()
        && let Some(of) = call.params.args.first()
        && of.get_type(schema).is_ok_and(|of| of == DataType::Float64)
        && let Some(framed) = framed(function)
    {
        call.fun = WindowFunctionDefinition::AggregateUDF(Arc::new(framed));
        changed = true;
    }
    marked_changed(Expr::WindowFunction(call), changed)
}

fn agree_negative(of: Box<Expr>, schema: &DFSchema) -> Transformed<Expr> {
    match of.get_type(schema) {
        Ok(from) if is_number(&from) => {
            let to = signed_type(&from);
            Transformed::yes(functions::negated(converted(*of, &from, &to)))
        }
        Ok(from) if times::is_length(&from) => Transformed::yes(times::negated(*of, &from)),
        _ => Transformed::no(Expr::Negative(of)),
    }
}

/// A cast of numbers or times as a function of ours; `None` if DataFusion's cast is right.
fn cast_as_ours(of: &Expr, to: &DataType, safe: bool, schema: &DFSchema) -> Option<Expr> {
    let from = of.get_type(schema).ok()?;
    match convert::is_number_cast(&from, to) {
        true => Some(functions::cast(of.clone(), to.clone(), safe)),
        false => times::cast(of, &from, to, safe),
    }
}

fn marked_changed(expr: Expr, changed: bool) -> Transformed<Expr> {
    match changed {
        true => Transformed::yes(expr),
        false => Transformed::no(expr),
    }
}

fn arithmetic_of(op: Operator) -> Option<NumberArithmetic> {
    Some(match op {
        Operator::Plus => NumberArithmetic::Add,
        Operator::Minus => NumberArithmetic::Subtract,
        Operator::Multiply => NumberArithmetic::Multiply,
        Operator::Divide => NumberArithmetic::Divide,
        Operator::Modulo => NumberArithmetic::Remainder,
        _ => return None,
    })
}

/// An operation on numbers or times as a function of ours; on other types as DataFusion's operator.
fn arithmetic(arith: NumberArithmetic, op: Operator, left: Expr, right: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let (mut left, mut right) = (left, right);
    let types = (left.get_type(schema), right.get_type(schema));
    let (l, r) = match types {
        (Ok(l), Ok(r)) if is_number(&l) && is_number(&r) => (l, r),
        (Ok(l), Ok(r)) if times::is_time(&l) || times::is_time(&r) => {
            return match times::arithmetic(op, left, right, (&l, &r)) {
                Ok(made) => Transformed::yes(made),
                Err((left, right)) => {
                    Transformed::no(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
                }
            };
        }
        _ => {
            let changed = doubles_beside(vec![&mut left, &mut right], schema);
            let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
            return marked_changed(expr, changed);
        }
    };
    let to = if l.is_floating() || r.is_floating() {
        let to = match l == DataType::Float32 && r == DataType::Float32 {
            true => DataType::Float32,
            false => DataType::Float64,
        };
        (to.clone(), to)
    } else if l.is_decimal() || r.is_decimal() {
        (
            decimal_type(&literal_digits_type(&left, l.clone())),
            decimal_type(&literal_digits_type(&right, r.clone())),
        )
    } else {
        let (a, b) = (signed_type(&l), signed_type(&r));
        let wide = match a.primitive_width() >= b.primitive_width() {
            true => a,
            false => b,
        };
        (wide.clone(), wide)
    };
    let (left, right) = (converted(left, &l, &to.0), converted(right, &r, &to.1));
    Transformed::yes(functions::arithmetic(arith, left, right))
}

/// `div(a, b)`. Without its remainder, `a` is a multiple of `b`, so the division does not round.
fn quotient(a: &Expr, b: &Expr, schema: &DFSchema) -> Option<Expr> {
    let decimal = |of: &Expr| {
        let from = of.get_type(schema).ok()?;
        let to = decimal_type(&literal_digits_type(of, from.clone()));
        ((is_number(&from) && !from.is_floating()) || from.is_null()).then(|| converted(of.clone(), &from, &to))
    };
    let (a, b) = (decimal(a)?, decimal(b)?);
    let remainder = functions::arithmetic(NumberArithmetic::Remainder, a.clone(), b.clone());
    let multiple = functions::arithmetic(NumberArithmetic::Subtract, a, remainder);
    Some(functions::cut(
        functions::arithmetic(NumberArithmetic::Divide, multiple, b),
        0,
    ))
}

/// The signed type for arithmetic on a type. Numbers of BIGINT UNSIGNED that are too large for BIGINT do not fit.
fn signed_type(of: &DataType) -> DataType {
    match of {
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal256(..) => decimal_type(of),
        other => other.clone(),
    }
}

/// The decimal type in which numbers of a type are computed.
fn decimal_type(of: &DataType) -> DataType {
    let (p, s) = shape(of).unwrap_or((MOST, 0));
    let (p, s) = (i16::from(p) - i16::from(s.min(0)), s.max(0));
    DataType::Decimal128(p.clamp(1, MOST.into()) as u8, s.min(MOST as i8))
}

/// The type of an expression for arithmetic with decimals: an integer literal counts as a decimal with the
/// literal's number of digits.
fn literal_digits_type(expr: &Expr, of: DataType) -> DataType {
    let Expr::Literal(value, _) = expr else { return of };
    if !of.is_integer() {
        return of;
    }
    match value.cast_to(&DataType::Decimal128(20, 0)) {
        Ok(ScalarValue::Decimal128(Some(number), ..)) => {
            let digits = number.unsigned_abs().checked_ilog10().map_or(1, |n| n + 1);
            DataType::Decimal128(digits as u8, 0)
        }
        _ => of,
    }
}

fn is_pattern_match(op: Operator) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
}

/// Converts operands that are compared to their common type. Returns whether any operand changed.
fn coerce_compared(mut operands: Vec<&mut Expr>, schema: &DFSchema) -> Result<bool> {
    let read = read_literals(&mut operands, schema)?;
    Ok(coerce_to_common(operands, CommonTypeUse::Compared, schema) || read)
}

/// Converts operands to their common type. Returns whether any operand changed.
pub(super) fn coerce_to_common(mut operands: Vec<&mut Expr>, meeting: CommonTypeUse, schema: &DFSchema) -> bool {
    let Ok(types) = operands.iter().map(|e| e.get_type(schema)).collect::<Result<Vec<_>>>() else {
        return false;
    };
    if types.iter().any(times::is_time) && times::coerce_to_common(&mut operands, &types, meeting) {
        return true;
    }
    if !types.iter().all(|of| of.is_null() || is_number(of)) {
        return doubles_beside(operands, schema);
    }
    let is_of_decimals = types.iter().any(DataType::is_decimal);
    let as_seen: Vec<DataType> = match is_of_decimals {
        true => operands
            .iter()
            .zip(&types)
            .map(|(e, of)| literal_digits_type(e, of.clone()))
            .collect(),
        false => types.clone(),
    };
    let Some(to) = common(&as_seen, meeting) else {
        return false;
    };
    let mut changed = false;
    for (operand, from) in operands.iter_mut().zip(&types) {
        if from != &to {
            **operand = converted(std::mem::take(*operand), from, &to);
            changed = true;
        }
    }
    changed
}

/// Converts operands to their common type if some are times. Returns whether any operand changed.
fn coerce_times(operands: &mut [&mut Expr], schema: &DFSchema) -> bool {
    let types: Result<Vec<DataType>> = operands.iter().map(|e| e.get_type(schema)).collect();
    types.is_ok_and(|types| {
        types.iter().any(times::is_time) && times::coerce_to_common(operands, &types, CommonTypeUse::Kept)
    })
}

/// Where no other operand is a decimal, converts decimal literals to doubles, as the function or operator has
/// no form for decimals.
fn doubles_beside(mut operands: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let is_literal = |e: &Expr| {
        matches!(
            e,
            Expr::Literal(ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..), _)
        )
    };
    let knows_decimals = |e: &&mut Expr| !is_literal(e) && e.get_type(schema).is_ok_and(|of| has_decimals(&of));
    if operands.iter().any(knows_decimals) {
        return false;
    }
    let mut changed = false;
    for operand in operands.iter_mut().filter(|e| is_literal(e)) {
        changed |= as_double(operand, schema);
    }
    changed
}

fn has_decimals(of: &DataType) -> bool {
    match of {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_decimals(item.data_type())
        }
        of => of.is_decimal(),
    }
}

/// Converts a decimal operand to the nearest double; returns whether it was a decimal.
fn as_double(operand: &mut Expr, schema: &DFSchema) -> bool {
    match operand.get_type(schema) {
        Ok(from) if from.is_decimal() => {
            *operand = converted(std::mem::take(operand), &from, &DataType::Float64);
            true
        }
        _ => false,
    }
}

/// Converts the arguments of an aggregate or window function; returns whether any changed.
fn arguments(name: &str, args: &mut [Expr], schema: &DFSchema) -> bool {
    match name {
        name if AGGREGATES.contains(&name) => false,
        name if OF_MANY_DOUBLES.contains(&name) || name.starts_with("regr_") => args
            .iter_mut()
            .fold(false, |changed, arg| as_double(arg, schema) | changed),
        // Only constants, such as the share of a percentile, become doubles here.
        _ => args
            .iter_mut()
            .filter(|arg| matches!(arg, Expr::Literal(..)))
            .fold(false, |changed, arg| as_double(arg, schema) | changed),
    }
}

/// Our own functions for `round(f)` of a double, and for `ceil(d)`, `floor(d)`, `trunc(d)` and `trunc(d, 2)` of
/// a decimal.
fn rounded(call: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    let of = call.args.first()?;
    match (call.func.name(), of.get_type(schema).ok()?, &call.args[1..]) {
        ("round", DataType::Float64, []) => Some(functions::to_even(of.clone())),
        (name @ ("ceil" | "ceiling" | "floor"), from, []) if from.is_decimal() => {
            let of = converted(of.clone(), &from, &decimal_type(&from));
            Some(functions::whole(of, name != "floor"))
        }
        ("trunc", from, rest) if from.is_decimal() => {
            let behind = match rest {
                [] => 0,
                [Expr::Literal(ScalarValue::Int64(Some(behind)), _)] => i8::try_from(*behind).ok()?,
                _ => return None,
            };
            Some(functions::cut(
                converted(of.clone(), &from, &decimal_type(&from)),
                behind,
            ))
        }
        _ => None,
    }
}

/// Whether an expression reads a number from a JSON text, as a double.
fn is_of_json(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_of_json(&alias.expr),
        Expr::ScalarFunction(call) => matches!(call.func.name(), "json_get" | "json_get_float"),
        _ => false,
    }
}

/// A number from a JSON text as a decimal, exactly as its digits say; null if the field is not a number.
fn of_json(expr: Expr, to: &DataType, safe: bool) -> Expr {
    let Expr::ScalarFunction(call) = expr.unalias() else {
        unreachable!("is_of_json has seen to it");
    };
    let number = json_get_float_udf().call(call.args.clone());
    let digits = functions::cast(json_as_text_udf().call(call.args), to.clone(), safe);
    Expr::Case(Case::new(
        None,
        vec![(Box::new(number.is_not_null()), Box::new(digits))],
        None,
    ))
}

/// The expression converted to another type. Constants are computed here, and a conversion that loses nothing
/// is a plain cast.
pub(in crate::plan) fn converted(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to {
        return expr;
    }
    if times::is_time(to) {
        return times::converted(expr, from, to);
    }
    if let Expr::Literal(value, metadata) = &expr
        && let Some(value) = constant(value, to)
    {
        return Expr::Literal(value, metadata.clone());
    }
    match convert::is_lossless(from, to) {
        true => cast(expr, to.clone()),
        false => functions::cast(expr, to.clone(), false),
    }
}

fn constant(value: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
    let double = |text: String| text.parse().ok().map(|v| ScalarValue::Float64(Some(v)));
    match (value, to) {
        // A literal may have more digits than a value in a row, so it is read from its text.
        (ScalarValue::Decimal256(Some(v), p, s), DataType::Float64) => {
            double(Decimal256Type::format_decimal(*v, *p, *s))
        }
        (ScalarValue::Decimal128(Some(v), p, s), DataType::Float64) => {
            double(Decimal128Type::format_decimal(*v, *p, *s))
        }
        _ => {
            let made = convert::convert(&value.to_array().ok()?, to, false).ok()?;
            ScalarValue::try_from_array(&made, 0).ok()
        }
    }
}

/// A subquery with its types coerced; `schema` has the columns of the outer query.
fn within(subquery: Subquery, schema: &DFSchema) -> Result<Subquery> {
    let plan = nodes::agreed_within(Arc::unwrap_or_clone(subquery.subquery), schema)?;
    let outer = subquery.outer_ref_columns.into_iter().map(|e| agreed(e, schema).data());
    Ok(Subquery {
        outer_ref_columns: outer.collect::<Result<_>>()?,
        subquery: Arc::new(plan),
        spans: subquery.spans,
    })
}

/// Converts an expression and the one column of the subquery with which it is compared to a common type.
fn compared(expr: &mut Expr, subquery: Subquery, schema: &DFSchema) -> Result<Subquery> {
    let (Ok(left), right) = (
        expr.get_type(schema),
        subquery.subquery.schema().field(0).data_type().clone(),
    ) else {
        return Ok(subquery);
    };
    let Some(to) = meeting_of(
        &[literal_digits_type(expr, left.clone()), right.clone()],
        CommonTypeUse::Compared,
    ) else {
        return Ok(subquery);
    };
    *expr = converted(std::mem::take(expr), &left, &to);
    if right == to {
        return Ok(subquery);
    }
    // A projection is changed in place. Another one above it would hide its references to the outer query,
    // because DataFusion looks for these in the topmost node.
    let (column, input) = match Arc::unwrap_or_clone(subquery.subquery) {
        LogicalPlan::Projection(projection) => (projection.expr[0].clone(), projection.input),
        plan => (Expr::from(plan.schema().qualified_field(0)), Arc::new(plan)),
    };
    let name = column.schema_name().to_string();
    let column = converted(column.unalias_nested().data, &right, &to).alias(name);
    let plan = LogicalPlan::Projection(Projection::try_new(vec![column], input)?);
    Ok(Subquery {
        subquery: Arc::new(plan),
        ..subquery
    })
}
