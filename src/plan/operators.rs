//! Rewrites operators that DataFusion lacks, or to which it gives another meaning, in terms of those that it has.
//!
//! `a ^ b` is the power of two doubles. Rows are compared column by column, in three-valued logic: `(a, b) <
//! (c, d)` is `a < c OR a = c AND b < d`, so it is unknown if a null decides, and known if an earlier column
//! does. `x < ANY(list)` is `x < a OR x < b` over the items, which is unknown if no item is true and one is
//! null; ALL is the negation of ANY with the opposite comparison. Comparisons of rows with subqueries are in
//! `row_queries`.
//!
//! `(a, b) OVERLAPS (c, d)` compares two periods; the lesser end of each counts as its first. `a[2:]` and
//! `a[:2]` reach to the end and the start of the list. `COLLATE "C"` is dropped, as all texts are compared that
//! way. `LIKE ANY` becomes one LIKE for each pattern, and RLIKE is `~`. `s ^@ t` is `starts_with(s, t)`; for
//! lists `a && b` is `array_has_any(a, b)`, and `a @> b` and `b <@ a` are `array_has_all(a, b)`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, DataType, ExactNumberInfo, Expr, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, ObjectName, Spanned, Subscript, VisitMut, VisitorMut,
};

use super::row_queries::row_queries;
use super::syntax::{call, chained, nested, nested_binary, not, null, number, truth};

/// Rewrites the operators of a statement, query or expression.
pub fn operators(sql: &mut impl VisitMut) {
    struct Operators;
    impl VisitorMut for Operators {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            with_ends(expr);
            let made = power(expr)
                .or_else(|| row_condition(expr))
                .or_else(|| list_comparison(expr))
                .or_else(|| overlaps(expr))
                .or_else(|| patterned(expr))
                .or_else(|| collated(expr))
                .or_else(|| named(expr));
            if let Some(made) = made {
                *expr = made;
            }
            ControlFlow::Continue(())
        }
    }
    struct Lists;
    impl VisitorMut for Lists {
        type Break = ();

        /// DataFusion does not resolve columns of an outer query in an array literal, but does in a call of
        /// make_array.
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Array(list) = expr
                && list.elem.iter().any(|item| !matches!(item, Expr::Value(_)))
            {
                let name = Ident::with_span(expr.span(), "make_array");
                if let Expr::Array(list) = expr {
                    *expr = Expr::Function(call(name, std::mem::take(&mut list.elem)));
                }
            }
            ControlFlow::Continue(())
        }
    }
    row_queries(sql);
    let _ = sql.visit(&mut Operators);
    let _ = sql.visit(&mut Lists);
}

fn power(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryOp {
        left,
        op: BinaryOperator::PGExp,
        right,
    } = expr
    else {
        return None;
    };
    let double = |operand: &Expr| Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(operand.clone()),
        data_type: DataType::Double(ExactNumberInfo::None),
        array: false,
        format: None,
    };
    let name = Ident::with_span(expr.span(), "power");
    Some(Expr::Function(call(name, [double(left), double(right)])))
}

/// The function for which an operator stands.
fn named(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryOp { left, op, right } = expr else {
        return None;
    };
    let (name, is_turned) = match op {
        BinaryOperator::PGStartsWith => ("starts_with", false),
        BinaryOperator::PGOverlap => ("array_has_any", false),
        BinaryOperator::AtArrow => ("array_has_all", false),
        BinaryOperator::ArrowAt => ("array_has_all", true),
        _ => return None,
    };
    let (left, right) = (left.as_ref().clone(), right.as_ref().clone());
    let args = if is_turned { [right, left] } else { [left, right] };
    Some(Expr::Function(call(Ident::with_span(expr.span(), name), args)))
}

/// Adds the missing bounds of a slice.
fn with_ends(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { access_chain, .. } = expr else {
        return;
    };
    for access in access_chain {
        if let AccessExpr::Subscript(Subscript::Slice {
            lower_bound,
            upper_bound,
            ..
        }) = access
        {
            lower_bound.get_or_insert_with(|| number(1));
            upper_bound.get_or_insert_with(|| number(i64::MAX));
        }
    }
}

/// Whether a collation orders by code points, as all texts are ordered here.
pub(super) fn is_of_code_points(collation: &ObjectName) -> bool {
    let name = collation.0.last().and_then(|part| part.as_ident());
    name.is_some_and(|name| {
        let name = name.value.to_lowercase();
        matches!(
            name.as_str(),
            "c" | "posix" | "ucs_basic" | "c.utf8" | "c.utf-8" | "binary" | "default"
        )
    })
}

/// `a LIKE ANY (b, c)` as `a LIKE b OR a LIKE c`, and `a RLIKE b` as `a ~ b`.
fn patterned(expr: &Expr) -> Option<Expr> {
    let patterns = |pattern: &Expr| match pattern {
        Expr::Tuple(patterns) => Some(patterns.clone()),
        Expr::Array(array) => Some(array.elem.clone()),
        Expr::Nested(inner) => match inner.as_ref() {
            Expr::Array(array) => Some(array.elem.clone()),
            one => Some(vec![one.clone()]),
        },
        _ => None,
    };
    let alone = |pattern: Expr| {
        let mut one = expr.clone();
        if let Expr::Like { any, pattern: of, .. } | Expr::ILike { any, pattern: of, .. } = &mut one {
            *any = false;
            **of = pattern;
        }
        nested(one)
    };
    match expr {
        Expr::Like { any: true, pattern, .. } | Expr::ILike { any: true, pattern, .. } => {
            chained(patterns(pattern)?.into_iter().map(alone), BinaryOperator::Or)
        }
        Expr::RLike {
            negated, expr, pattern, ..
        } => {
            let matched = nested_binary(
                expr.as_ref().clone(),
                BinaryOperator::PGRegexMatch,
                pattern.as_ref().clone(),
            );
            Some(if *negated { not(matched) } else { matched })
        }
        _ => None,
    }
}

fn collated(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Collate { expr, collation } if is_of_code_points(collation) => Some(expr.as_ref().clone()),
        _ => None,
    }
}

/// Whether two periods overlap. Each is given by two moments, or by a moment and a length.
fn overlaps(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryOp {
        left,
        op: BinaryOperator::Overlaps,
        right,
    } = expr
    else {
        return None;
    };
    let ends = |time: &Expr| -> Option<(Expr, Expr)> {
        let columns = columns(time)?;
        let [one, other] = columns.as_slice() else {
            return None;
        };
        let (one, other) = (nested((*one).clone()), nested((*other).clone()));
        let other = match is_length(&other) {
            true => nested_binary(one.clone(), BinaryOperator::Plus, other),
            false => other,
        };
        let first = Expr::Function(call(Ident::new("least"), [one.clone(), other.clone()]));
        // Null if either end is null.
        let last = case(vec![
            (
                nested_binary(one.clone(), BinaryOperator::Lt, other.clone()),
                other.clone(),
            ),
            (nested_binary(one.clone(), BinaryOperator::GtEq, other), one),
        ]);
        Some((first, last))
    };
    let ((first, last), (their_first, their_last)) = (ends(left)?, ends(right)?);
    let is_null = |of: &Expr| nested(Expr::IsNull(Box::new(of.clone())));
    let either_null = |a: &Expr, b: &Expr| nested_binary(is_null(a), BinaryOperator::Or, is_null(b));
    let open = either_null(&last, &their_last);
    // Of two periods, the one that begins later must begin before the other one ends.
    let begins_within = |later: &Expr, end: &Expr| {
        case(vec![
            (
                nested_binary(later.clone(), BinaryOperator::Lt, end.clone()),
                truth(true),
            ),
            (open.clone(), null()),
            (truth(true), truth(false)),
        ])
    };
    let compared = |op: BinaryOperator| nested_binary(first.clone(), op, their_first.clone());
    Some(case(vec![
        (either_null(&first, &their_first), null()),
        (compared(BinaryOperator::Gt), begins_within(&first, &their_last)),
        (compared(BinaryOperator::Lt), begins_within(&their_first, &last)),
        (open.clone(), null()),
        (truth(true), truth(true)),
    ]))
}

fn is_length(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_length(inner),
        Expr::Interval(_) => true,
        Expr::Cast { data_type, .. } => matches!(data_type, DataType::Interval { .. }),
        Expr::BinaryOp { left, right, .. } => is_length(left) && is_length(right),
        _ => false,
    }
}

fn case(conditions: Vec<(Expr, Expr)>) -> Expr {
    let when = |(condition, result)| CaseWhen { condition, result };
    nested(Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: conditions.into_iter().map(when).collect(),
        else_result: None,
    })
}

/// A comparison with the items of a list. Comparisons with the rows of a subquery are in `row_queries`.
fn list_comparison(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::AnyOp {
            left,
            compare_op,
            right,
            ..
        } => matches_any(left, compare_op, right),
        Expr::AllOp {
            left,
            compare_op,
            right,
        } => matches_any(left, &opposite(compare_op)?, right).map(not),
        _ => None,
    }
}

pub(super) fn opposite(op: &BinaryOperator) -> Option<BinaryOperator> {
    Some(match op {
        BinaryOperator::Eq => BinaryOperator::NotEq,
        BinaryOperator::NotEq => BinaryOperator::Eq,
        BinaryOperator::Lt => BinaryOperator::GtEq,
        BinaryOperator::LtEq => BinaryOperator::Gt,
        BinaryOperator::Gt => BinaryOperator::LtEq,
        BinaryOperator::GtEq => BinaryOperator::Lt,
        _ => return None,
    })
}

fn matches_any(left: &Expr, op: &BinaryOperator, list: &Expr) -> Option<Expr> {
    opposite(op)?;
    let compared = |right: Expr| nested_binary(nested(left.clone()), op.clone(), right);
    let list = match list {
        Expr::Nested(list) => list.as_ref(),
        list => list,
    };
    match list {
        Expr::Subquery(_) => None,
        Expr::Array(items) if !items.elem.is_empty() => {
            let each = items.elem.iter().map(|item| compared(nested(item.clone())));
            chained(each, BinaryOperator::Or).map(nested)
        }
        list => {
            let function = |name: &str, args: Vec<Expr>| Expr::Function(call(Ident::new(name), args));
            let of_list = |name: &str| function(name, vec![list.clone()]);
            let is_there = match op {
                BinaryOperator::Eq => function("array_has", vec![list.clone(), left.clone()]),
                BinaryOperator::NotEq => {
                    let ends = ["array_min", "array_max"].map(|end| compared(of_list(end)));
                    chained(ends, BinaryOperator::Or)?
                }
                BinaryOperator::Lt | BinaryOperator::LtEq => compared(of_list("array_max")),
                _ => compared(of_list("array_min")),
            };
            let is_empty = nested_binary(of_list("cardinality"), BinaryOperator::Eq, number(0));
            let holds_null = Expr::IsNotNull(Box::new(function("array_position", vec![list.clone(), null()])));
            let when = |condition, result| CaseWhen { condition, result };
            Some(Expr::Case {
                case_token: AttachedToken::empty(),
                end_token: AttachedToken::empty(),
                operand: None,
                conditions: vec![
                    when(Expr::IsNull(Box::new(list.clone())), null()),
                    when(is_empty, truth(false)),
                    when(Expr::IsNull(Box::new(left.clone())), null()),
                    when(is_there, truth(true)),
                    when(holds_null, null()),
                ],
                else_result: Some(Box::new(truth(false))),
            })
        }
    }
}

/// Rewrites a condition on rows as one on their columns.
fn row_condition(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::BinaryOp { left, op, right } => compare_rows(&RowPair::new(left, right)?, op),
        Expr::IsDistinctFrom(left, right) => Some(rows_differ(&RowPair::new(left, right)?)),
        Expr::IsNotDistinctFrom(left, right) => Some(not(rows_differ(&RowPair::new(left, right)?))),
        Expr::InList { expr, list, negated } => {
            let pairs = list
                .iter()
                .map(|row| RowPair::new(expr, row))
                .collect::<Option<Vec<_>>>()?;
            let equal = pairs.iter().map(|pair| compare_rows(pair, &BinaryOperator::Eq));
            let any = chained(equal.collect::<Option<Vec<_>>>()?, BinaryOperator::Or)?;
            Some(if *negated { not(any) } else { any })
        }
        Expr::Between {
            expr,
            negated,
            low,
            high,
        } => {
            let above = compare_rows(&RowPair::new(expr, low)?, &BinaryOperator::GtEq)?;
            let below = compare_rows(&RowPair::new(expr, high)?, &BinaryOperator::LtEq)?;
            let within = nested_binary(above, BinaryOperator::And, below);
            Some(if *negated { not(within) } else { within })
        }
        // IS NULL is true of a row if all columns are null, and IS NOT NULL if none is.
        Expr::IsNull(row) => every_column_is(row, Expr::IsNull),
        Expr::IsNotNull(row) => every_column_is(row, Expr::IsNotNull),
        _ => None,
    }
}

/// The columns of a row constructor: `(a, b)` or `ROW(a, b)`.
pub(super) fn columns(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Nested(inner) => columns(inner),
        Expr::Tuple(columns) => Some(columns.iter().collect()),
        Expr::Function(call) if call.over.is_none() && call.name.to_string().eq_ignore_ascii_case("row") => {
            let FunctionArguments::List(list) = &call.args else {
                return None;
            };
            let column = |arg| match arg {
                &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref column)) => Some(column),
                _ => None,
            };
            list.args.iter().map(column).collect()
        }
        _ => None,
    }
}

/// Two rows with equally many columns, at least one.
struct RowPair<'a>(Vec<(&'a Expr, &'a Expr)>);

impl<'a> RowPair<'a> {
    fn new(left: &'a Expr, right: &'a Expr) -> Option<RowPair<'a>> {
        let (left, right) = (columns(left)?, columns(right)?);
        (left.len() == right.len() && !left.is_empty()).then(|| RowPair(left.into_iter().zip(right).collect()))
    }

    fn compare_each(&self, op: &BinaryOperator) -> Vec<Expr> {
        let each = self.0.iter();
        each.map(|(left, right)| nested_binary((*left).clone(), op.clone(), (*right).clone()))
            .collect()
    }
}

fn compare_rows(pair: &RowPair<'_>, op: &BinaryOperator) -> Option<Expr> {
    let strict = match op {
        BinaryOperator::Eq => return chained(pair.compare_each(op), BinaryOperator::And),
        BinaryOperator::NotEq => return chained(pair.compare_each(op), BinaryOperator::Or),
        BinaryOperator::Lt | BinaryOperator::LtEq => BinaryOperator::Lt,
        BinaryOperator::Gt | BinaryOperator::GtEq => BinaryOperator::Gt,
        _ => return None,
    };
    let mut columns = pair.0.iter().rev();
    let (left, right) = columns.next()?;
    let mut whole = nested_binary((*left).clone(), op.clone(), (*right).clone());
    for (left, right) in columns {
        let decided = nested_binary((*left).clone(), strict.clone(), (*right).clone());
        let equal = nested_binary((*left).clone(), BinaryOperator::Eq, (*right).clone());
        let undecided = nested_binary(equal, BinaryOperator::And, whole);
        whole = nested_binary(decided, BinaryOperator::Or, undecided);
    }
    Some(whole)
}

fn rows_differ(pair: &RowPair<'_>) -> Expr {
    let each = pair.0.iter().map(|(left, right)| {
        nested(Expr::IsDistinctFrom(
            Box::new((*left).clone()),
            Box::new((*right).clone()),
        ))
    });
    chained(each, BinaryOperator::Or).expect("a pair of rows has columns")
}

fn every_column_is(row: &Expr, is: fn(Box<Expr>) -> Expr) -> Option<Expr> {
    let each = columns(row)?.into_iter();
    let each = each.map(|column| nested(is(Box::new(column.clone()))));
    chained(each, BinaryOperator::And)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::dialect::Standard;
    use datafusion::sql::sqlparser::parser::Parser;

    fn made(sql: &str) -> String {
        let mut expr = Parser::new(&Standard).try_with_sql(sql).unwrap().parse_expr().unwrap();
        operators(&mut expr);
        expr.to_string()
    }

    #[test]
    fn operators_are_written_in_terms_of_others() {
        for (sql, other) in [
            ("a ^ 2", "power(CAST(a AS DOUBLE), CAST(2 AS DOUBLE))"),
            ("(a, b) = (1, 2)", "((a = 1) AND (b = 2))"),
            ("ROW(a, b) <> ROW(1, 2)", "((a <> 1) OR (b <> 2))"),
            ("(a, b) < (1, 2)", "((a < 1) OR ((a = 1) AND (b < 2)))"),
            ("(a, b) >= (1, 2)", "((a > 1) OR ((a = 1) AND (b >= 2)))"),
            (
                "(a, b, c) <= (1, 2, 3)",
                "((a < 1) OR ((a = 1) AND ((b < 2) OR ((b = 2) AND (c <= 3)))))",
            ),
            (
                "(a, b) NOT IN ((1, 2), (3, 4))",
                "NOT (((a = 1) AND (b = 2)) OR ((a = 3) AND (b = 4)))",
            ),
            (
                "(a, b) BETWEEN (1, 2) AND (3, 4)",
                "(((a > 1) OR ((a = 1) AND (b >= 2))) AND ((a < 3) OR ((a = 3) AND (b <= 4))))",
            ),
            (
                "(a, b) IS NOT DISTINCT FROM (1, 2)",
                "NOT ((a IS DISTINCT FROM 1) OR (b IS DISTINCT FROM 2))",
            ),
            ("(a, b) IS NULL", "((a IS NULL) AND (b IS NULL))"),
            ("(a, b) IS NOT NULL", "((a IS NOT NULL) AND (b IS NOT NULL))"),
            (
                "a[2:] || a[:2] || a[1:2]",
                "a[2:9223372036854775807] || a[1:2] || a[1:2]",
            ),
            ("a COLLATE \"C\" < b COLLATE pg_catalog.\"POSIX\"", "a < b"),
            ("a COLLATE \"de_DE\"", "a COLLATE \"de_DE\""),
            ("[1, 2] || [a, 2]", "[1, 2] || make_array(a, 2)"),
            ("a LIKE ANY ('x%', b)", "((a LIKE 'x%') OR (a LIKE b))"),
            (
                "a NOT ILIKE ANY (ARRAY['x', 'y'])",
                "((a NOT ILIKE 'x') OR (a NOT ILIKE 'y'))",
            ),
            ("a NOT RLIKE 'x'", "NOT (a ~ 'x')"),
            ("a ^@ 'x' || b", "starts_with(a, 'x') || b"),
            ("a && b OR a @> b", "array_has_any(a, b) OR array_has_all(a, b)"),
            ("a <@ b", "array_has_all(b, a)"),
            ("(a) = (1)", "(a) = (1)"),
            ("(a, b) = (1, 2, 3)", "(a, b) = (1, 2, 3)"),
        ] {
            assert_eq!(made(sql), other, "{sql}");
        }
    }
}
