//! Rewrites pattern operators (`~` and its variants, SIMILAR TO, LIKE) as functions, and refuses patterns that
//! can never match.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, Like, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, cast, lit};

use super::super::error::{Planned, Refusal};
use super::lists::is_list;
use super::regexps;

/// The function for a pattern operator; other expressions stay as they are.
pub(in crate::plan) fn operators(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    static MATCHES: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(regexps::matches().udf()));
    static ANY_CASE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(regexps::matches_any_case().udf()));
    static SIMILAR: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(regexps::similar().udf()));
    let (call, negated) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (function, negated) = match op {
                Operator::RegexMatch => (&MATCHES, false),
                Operator::RegexIMatch => (&ANY_CASE, false),
                Operator::RegexNotMatch => (&MATCHES, true),
                Operator::RegexNotIMatch => (&ANY_CASE, true),
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            let sides = vec![as_text(*left, schema)?, as_text(*right, schema)?];
            (function.call(sides), negated)
        }
        Expr::SimilarTo(like) => {
            let escape = like.escape_char.unwrap_or('\\').to_string();
            let args = vec![
                as_text(*like.expr, schema)?,
                as_text(*like.pattern, schema)?,
                lit(escape),
            ];
            (SIMILAR.call(args), like.negated)
        }
        Expr::Like(like) => return Ok(escaped(like)),
        Expr::ScalarFunction(call) if call.func.name() == "to_hex" => return Ok(as_int(call)),
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(match negated {
        true => !call,
        false => call,
    }))
}

/// Makes the literal argument of `to_hex` an INT if it fits.
fn as_int(mut call: ScalarFunction) -> Transformed<Expr> {
    let int = match call.args.first() {
        Some(Expr::Literal(ScalarValue::Int64(Some(n)), _)) => i32::try_from(*n).ok(),
        _ => None,
    };
    match int {
        Some(int) => {
            call.args[0] = lit(int);
            Transformed::yes(Expr::ScalarFunction(call))
        }
        None => Transformed::no(Expr::ScalarFunction(call)),
    }
}

fn as_text(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match expr.get_type(schema)? {
        DataType::Utf8 => expr,
        _ => cast(expr, DataType::Utf8),
    })
}

/// Rewrites LIKE with another escape character, for a constant pattern, as LIKE with a backslash.
fn escaped(like: Like) -> Transformed<Expr> {
    let (Some(escape), Expr::Literal(ScalarValue::Utf8(Some(pattern)), _)) = (like.escape_char, like.pattern.as_ref())
    else {
        return Transformed::no(Expr::Like(like));
    };
    if escape == '\\' {
        return Transformed::no(Expr::Like(like));
    }
    let mut made = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == escape => {
                // An escape character at the end stays alone, so that it is refused.
                made.push('\\');
                made.extend(chars.next());
            }
            '\\' => made.push_str("\\\\"),
            c => made.push(c),
        }
    }
    Transformed::yes(Expr::Like(Like {
        pattern: Box::new(lit(made)),
        escape_char: None,
        ..like
    }))
}

/// An aggregate with a FILTER must evaluate its arguments only for the rows that pass it: the argument `100 /
/// v` of `sum(100 / v) FILTER (WHERE v <> 0)` becomes `CASE WHEN v <> 0 THEN 100 / v END`.
pub(in crate::plan) fn filtered(expr: Expr) -> Transformed<Expr> {
    let (args, filter) = match &expr {
        Expr::AggregateFunction(call) => (&call.params.args, &call.params.filter),
        Expr::WindowFunction(call) => (&call.params.args, &call.params.filter),
        _ => return Transformed::no(expr),
    };
    let Some(filter) = filter.as_deref().cloned() else {
        return Transformed::no(expr);
    };
    let is_behind = |arg: &Expr| match arg {
        Expr::Case(case) => case.expr.is_none() && case.when_then_expr.iter().any(|(when, _)| **when == filter),
        _ => false,
    };
    if !args.iter().any(|arg| may_fail(arg) && !is_behind(arg)) {
        return Transformed::no(expr);
    }
    let put = |args: &mut Vec<Expr>| {
        for arg in args.iter_mut().filter(|arg| may_fail(arg) && !is_behind(arg)) {
            let when = (Box::new(filter.clone()), Box::new(std::mem::take(arg)));
            *arg = Expr::Case(Case::new(None, vec![when], None));
        }
    };
    let mut expr = expr;
    match &mut expr {
        Expr::AggregateFunction(call) => put(&mut call.params.args),
        Expr::WindowFunction(call) => put(&mut call.params.args),
        _ => {}
    }
    Transformed::yes(expr)
}

/// Whether an expression may fail for a row: one that calls a function, or casts to a date, time or similar type.
pub(in crate::plan) fn may_fail(expr: &Expr) -> bool {
    expr.exists(|e| {
        Ok(match e {
            Expr::ScalarFunction(_) => true,
            Expr::Cast(cast) => cast.field.data_type().is_temporal(),
            _ => false,
        })
    })
    .unwrap_or(true)
}

/// Refuses expressions that can never work, such as constant patterns with mistakes, or that differ from
/// PostgreSQL, such as an order of lists, in which a NULL would not come after all values.
pub(in crate::plan) fn refuse(plan: &LogicalPlan) -> Planned<()> {
    let mut refusal = None;
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if refusal.is_none() {
                    refusal = mistake_of(e).map(of_pattern);
                    refusal = refusal
                        .take()
                        .or_else(|| order_of_lists(e, &schema))
                        .or_else(|| cast_of_lists(e, &schema));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match refusal {
        Some(refusal) => Err(refusal.into()),
        None => Ok(()),
    }
}

fn of_pattern(mistake: String) -> Refusal {
    Refusal::new(mistake).help(
        "write it with what PostgreSQL's advanced regular expressions know, without look-around and back-references",
    )
}

/// Refuses a cast between a list and a text, which PostgreSQL writes as `{a,b}`.
fn cast_of_lists(expr: &Expr, schema: &DFSchema) -> Option<Refusal> {
    let (of, to) = match expr {
        Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
        _ => return None,
    };
    let of = of.get_type(schema).ok()?;
    if is_list(&of) && to.is_string() {
        let refusal = Refusal::new("could not cast a list to VARCHAR: engines write lists in several ways");
        return Some(refusal.help("write its items with something between them: array_to_string(a, ',')"));
    }
    (of.is_string() && is_list(to)).then(|| {
        Refusal::new("could not cast VARCHAR to a list: engines write lists in several ways")
            .help("take the text apart, string_to_array(s, ','), or write the items, ARRAY['a', 'b']")
    })
}

fn order_of_lists(expr: &Expr, schema: &DFSchema) -> Option<Refusal> {
    let (what, of) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, .. })
            if matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq) =>
        {
            (op.to_string(), left.as_ref())
        }
        Expr::AggregateFunction(call) if matches!(call.func.name(), "min" | "max") => {
            (format!("{}()", call.func.name()), call.params.args.first()?)
        }
        Expr::WindowFunction(call) if matches!(call.fun.name(), "min" | "max") => {
            (format!("{}()", call.fun.name()), call.params.args.first()?)
        }
        Expr::ScalarFunction(call) if matches!(call.func.name(), "greatest" | "least") => {
            (format!("{}()", call.func.name()), call.args.first()?)
        }
        _ => return None,
    };
    let of = of.get_type(schema).ok()?;
    is_list(&of).then(|| {
        Refusal::new(format!("could not plan {what} of lists: they have no order here"))
            .help("compare an item, a[1], or a text, array_to_string(a, ',')")
    })
}

fn mistake_of(expr: &Expr) -> Option<String> {
    let text = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text.clone()),
        _ => None,
    };
    match expr {
        Expr::ScalarFunction(call) => {
            let constants: Vec<Option<String>> = call.args.iter().map(text).collect();
            let constants: Vec<Option<&str>> = constants.iter().map(Option::as_deref).collect();
            regexps::mistake(call.func.name(), &constants)
        }
        Expr::Like(like) => {
            let pattern = text(&like.pattern)?;
            let ending = pattern.chars().rev().take_while(|c| *c == '\\').count();
            (ending % 2 == 1)
                .then(|| format!("could not read the pattern '{pattern}': nothing stands behind its last escape"))
        }
        _ => None,
    }
}
