//! Rewrites shorthands of SQL as what they stand for, before anything is planned:
//!
//! | written | stands for |
//! |---|---|
//! | `json_agg(x ORDER BY y)` | `'[' || ltrim(string_agg(coalesce(json_item(x), 'null'), ', ' ORDER BY y), E'\\n ') || ']'` |
//! | `json_object_agg(k, x)` | `'{ ' || string_agg(json_key(k) || ' : ' || coalesce(to_json(x), 'null'), ', ') || ' }'` |
//! | `json_build_object(k, x, ...)` | `'{' || json_key(k) || ' : ' || coalesce(to_json(x), 'null') || ... || '}'` |
//! | `json_build_array(x, ...)` | `'[' || coalesce(to_json(x), 'null') || ... || ']'` |
//! | `jsonb_agg(x)`, `to_jsonb(x)` and so on | `as_jsonb(json_agg(x))`, `as_jsonb(to_json(x))` |
//! | `min_by(x, y)`, `max_by(x, y)` | `first_value(x ORDER BY y)` of the rows where y is not null |
//! | `every(b)`, `variance(x)` | `bool_and(b)`, `var_samp(x)` |
//! | `ARRAY(SELECT x FROM t ORDER BY y)` | `coalesce((SELECT array_agg(x ORDER BY y) FROM ...), [])` ([`array_query`]) |
//! | `array_upper(a, 1)` | `array_length(a, 1)` |
//! | `format('%s: %s', a, b)` | `concat(a, ': ', b)` ([`formats`]) |
//! | `make_interval(days => n)` | `n * INTERVAL '1 day'` ([`lengths`]) |
//! | `date_bin('1 hour', t, '2001-01-01')` | `date_bin(INTERVAL '1 hour', t, TIMESTAMP '2001-01-01')` |
//! | `lag(x, 1, d) OVER w` of a d that is computed | `CASE WHEN lag(TRUE, 1) OVER w IS NULL THEN d ELSE lag(x, 1) OVER w END` |
//! | `x::json -> 'a' ->> 'b'`, `x::jsonb ->> 'a'` | `as_json(x) -> 'a' ->> 'b'`, `as_jsonb(x) ->> 'a'` |
//! | `x #>> '{a,b}'` | `x -> 'a' ->> 'b'` |
//! | `ROLLUP ((a, b), c)`, `CUBE ((a, b), c)` | `GROUPING SETS ((a, b, c), (a, b), ())` and so on, within GROUPING SETS, too |
//! | `GROUP BY ()` | `GROUP BY GROUPING SETS (())` |
//! | `ORDER BY (2)`, `GROUP BY (1)` | `ORDER BY 2`, `GROUP BY 1`, which are places in the SELECT list |
//! | `SELECT DISTINCT a + 1 AS b ... ORDER BY a + 1` | `SELECT DISTINCT a + 1 AS b ... ORDER BY b` |
//!
//! A shorthand's DISTINCT, FILTER, ORDER BY and OVER are kept. JSON is a text here, so only the name of a
//! function shows that its result is JSON. The result of such a function, or of `CAST(x AS JSON)`, is used as
//! it is within another one.

mod array_query;
mod formats;
mod grouping;
mod json;
mod json_fields;
mod lengths;

pub use json_fields::paths_asked;
pub(in crate::plan) use json_fields::unread_path;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, DataType, Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, GroupByExpr, Ident, ObjectName, OrderByExpr, OrderByKind, OrderByOptions, Query, Select,
    SelectItem, SetExpr, TimezoneInfo, TypedString, Value, VisitMut, VisitorMut,
};

use super::syntax;

/// Rewrites the shorthands of a statement.
pub fn write_out(statement: &mut impl VisitMut) {
    let _ = VisitMut::visit(statement, &mut WritingOut);
}

struct WritingOut;

impl VisitorMut for WritingOut {
    type Break = ();

    /// Expressions are rewritten before their parts: a JSON call must still see the names of the calls within it.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // The result of a rewrite may be a shorthand itself.
        while let Some(written) = written_out(expr) {
            *expr = written;
        }
        json_fields::written_out(expr);
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(OrderByKind::Expressions(order)) = query.order_by.as_mut().map(|order| &mut order.kind) {
            order.iter_mut().for_each(|by| without_parentheses(&mut by.expr));
        }
        if let SetExpr::Select(select) = query.body.as_ref()
            && matches!(select.distinct, Some(Distinct::Distinct))
            && let Some(OrderByKind::Expressions(order)) = query.order_by.as_mut().map(|order| &mut order.kind)
        {
            order
                .iter_mut()
                .for_each(|by| named_in(&mut by.expr, &select.projection));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
            groups.iter_mut().for_each(without_parentheses);
            // Beside other groups, an empty group changes nothing.
            let is_all = |group: &Expr| matches!(group, Expr::Tuple(columns) if columns.is_empty());
            match !groups.is_empty() && groups.iter().all(is_all) {
                true => *groups = vec![Expr::GroupingSets(vec![vec![]])],
                false => groups.retain(|group| !is_all(group)),
            }
        }
        ControlFlow::Continue(())
    }
}

/// Removes parentheses around a constant, which hide from DataFusion that it is a position. PostgreSQL's parser
/// drops them.
fn without_parentheses(expr: &mut Expr) {
    if let Some(constant) = syntax::constant(expr) {
        *expr = Expr::Value(constant.clone());
    }
}

/// Replaces an expression in ORDER BY that SELECT DISTINCT lists under an alias by that alias.
fn named_in(by: &mut Expr, items: &[SelectItem]) {
    let name = items.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if expr == by => Some(alias.clone()),
        _ => None,
    });
    if let Some(name) = name {
        *by = Expr::Identifier(name);
    }
}

fn written_out(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Function(function) => call(function),
        other => grouping::written_out(other),
    }
}

/// The name of a call in lower case, if it is not qualified.
fn name_of(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [part] => part.as_ident().map(|name| name.value.to_lowercase()),
        _ => None,
    }
}

fn call(function: &Function) -> Option<Expr> {
    let name = name_of(function)?;
    match (name.as_str(), &function.args) {
        ("array", FunctionArguments::Subquery(query)) => return array_query::written_out(function, query),
        ("make_interval", FunctionArguments::List(list)) => return lengths::written_out(&list.args),
        _ => {}
    }
    let arguments = arguments(function)?;
    if let Some(written) = json::written_out(function, &name, &arguments) {
        return Some(written);
    }
    Some(match (name.as_str(), arguments.as_slice()) {
        ("min_by" | "arg_min", [of, by]) => first_by(function, of, by, true),
        ("max_by" | "arg_max", [of, by]) => first_by(function, of, by, false),
        ("every", [_]) => renamed(function, "bool_and"),
        ("lag" | "lead", [of, by, default])
            if function.over.is_some() && function.null_treatment.is_none() && is_computed(default) =>
        {
            or_default(function, of, by, default)
        }
        ("variance", [_]) => renamed(function, "var_samp"),
        ("array_upper", [_, Expr::Value(of)]) if of.value == Value::Number("1".to_string(), false) => {
            renamed(function, "array_length")
        }
        ("format", [Expr::Value(format), args @ ..]) => match &format.value {
            Value::SingleQuotedString(format) => formats::written_out(function, format, args)?,
            _ => return None,
        },
        ("date_bin", [stride, rest @ ..]) => {
            let mut made = vec![as_interval(stride)];
            made.extend(rest.iter().take(1).cloned());
            made.extend(rest.iter().skip(1).map(as_moment));
            if made == arguments {
                return None;
            }
            Expr::Function(syntax::call(ident(function), made))
        }
        _ => return None,
    })
}

/// The arguments of a call; `None` if one is named or a wildcard.
fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(of)) => Some(of.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

/// Whether a default is more than a constant; `lag` and `lead` support constants themselves.
fn is_computed(default: &Expr) -> bool {
    match default {
        Expr::Value(_) => false,
        Expr::UnaryOp { expr, .. } | Expr::Nested(expr) => is_computed(expr),
        _ => true,
    }
}

/// The value of a row at a distance, or the default of this row if there is no such row. The other row's value
/// may be null itself, so TRUE tells whether the row exists.
fn or_default(function: &Function, of: &Expr, by: &Expr, default: &Expr) -> Expr {
    let away = |of: Expr| {
        let mut call = syntax::call(ident(function), [of, by.clone()]);
        call.over.clone_from(&function.over);
        Expr::Function(call)
    };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen {
            condition: Expr::IsNull(Box::new(away(syntax::truth(true)))),
            result: default.clone(),
        }],
        else_result: Some(Box::new(away(of.clone()))),
    }
}

/// The call with another function's name.
fn renamed(function: &Function, name: &str) -> Expr {
    let mut name = Ident::new(name);
    name.span = ident(function).span;
    Expr::Function(Function {
        name: ObjectName::from(vec![name]),
        ..function.clone()
    })
}

/// The name of a call, with its span.
fn ident(function: &Function) -> Ident {
    let part = function.name.0.last().and_then(|part| part.as_ident());
    part.cloned().unwrap_or_else(|| Ident::new(function.name.to_string()))
}

/// Makes a literal text an INTERVAL.
fn as_interval(of: &Expr) -> Expr {
    match text_of(of) {
        Some(length) => lengths::interval(length),
        None => of.clone(),
    }
}

/// Makes a literal text a TIMESTAMP.
fn as_moment(of: &Expr) -> Expr {
    match of {
        Expr::Value(value) if text_of(of).is_some() => Expr::TypedString(TypedString {
            data_type: DataType::Timestamp(None, TimezoneInfo::None),
            value: value.clone(),
            uses_odbc_syntax: false,
        }),
        _ => of.clone(),
    }
}

fn text_of(of: &Expr) -> Option<&str> {
    match of {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn function(name: &str, arguments: Vec<Expr>) -> Function {
    syntax::call(Ident::new(name), arguments)
}

/// `a || b || c`.
fn joined(parts: Vec<Expr>) -> Expr {
    let concat = |left, right| syntax::binary(left, BinaryOperator::StringConcat, right);
    parts.into_iter().reduce(concat).unwrap_or_else(|| syntax::text(""))
}

/// `first_value(of ORDER BY by) FILTER (WHERE by IS NOT NULL)`.
fn first_by(with: &Function, of: &Expr, by: &Expr, least: bool) -> Expr {
    let mut call = function("first_value", vec![of.clone()]);
    if let FunctionArguments::List(own) = &mut call.args {
        own.clauses.push(FunctionArgumentClause::OrderBy(vec![OrderByExpr {
            expr: by.clone(),
            options: OrderByOptions {
                asc: Some(least),
                nulls_first: Some(false),
            },
            with_fill: None,
        }]));
    }
    let there = Expr::IsNotNull(Box::new(syntax::nested(by.clone())));
    call.filter = Some(Box::new(match &with.filter {
        None => there,
        Some(filter) => syntax::binary(Expr::Nested(filter.clone()), BinaryOperator::And, there),
    }));
    call.over.clone_from(&with.over);
    Expr::Function(call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn shorthands_are_written_out_with_their_clauses() {
        for (sql, written) in [
            (
                "SELECT json_agg(v ORDER BY k DESC) FILTER (WHERE b) FROM t",
                "SELECT ('[' || ltrim(string_agg(coalesce(json_item(v), 'null'), ', ' ORDER BY k DESC) FILTER (WHERE b), '\n ') || ']') FROM t",
            ),
            (
                "SELECT json_build_object('a', v, 'b', json_agg(w)) FROM t",
                "SELECT ('{' || json_key('a') || ' : ' || coalesce(to_json(v), 'null') || ', ' || json_key('b') || ' : ' || \
                 coalesce(('[' || ltrim(string_agg(coalesce(json_item(w), 'null'), ', '), '\n ') || ']'), 'null') || '}') FROM t",
            ),
            (
                "SELECT json_build_array(CAST(j AS JSON), 1) FROM t",
                "SELECT ('[' || coalesce(j, 'null') || ', ' || coalesce(to_json(1), 'null') || ']') FROM t",
            ),
            (
                "SELECT max_by(s, v) FILTER (WHERE b OR c) FROM t",
                "SELECT first_value(s ORDER BY v DESC NULLS LAST) FILTER (WHERE (b OR c) AND (v) IS NOT NULL) FROM t",
            ),
            (
                "SELECT a FROM t GROUP BY ROLLUP ((a, b), c)",
                "SELECT a FROM t GROUP BY GROUPING SETS ((a, b, c), (a, b), ())",
            ),
            (
                "SELECT a FROM t GROUP BY CUBE ((a, b), c)",
                "SELECT a FROM t GROUP BY GROUPING SETS ((a, b, c), (c), (a, b), ())",
            ),
            (
                "SELECT a FROM t GROUP BY ROLLUP (a, b)",
                "SELECT a FROM t GROUP BY ROLLUP (a, b)",
            ),
            (
                "SELECT a FROM t GROUP BY GROUPING SETS (a, (), ROLLUP (a, (b, c)))",
                "SELECT a FROM t GROUP BY GROUPING SETS ((a), (), (a, b, c), (a), ())",
            ),
            (
                "SELECT variance(x) FILTER (WHERE b) FROM t GROUP BY ()",
                "SELECT var_samp(x) FILTER (WHERE b) FROM t GROUP BY GROUPING SETS (())",
            ),
            (
                "SELECT DISTINCT a % 2 AS m FROM t ORDER BY a % 2 DESC LIMIT 1",
                "SELECT DISTINCT a % 2 AS m FROM t ORDER BY m DESC LIMIT 1",
            ),
            (
                "SELECT jsonb_build_array(x, json_agg(j::json)) FROM t",
                "SELECT as_jsonb(('[' || coalesce(to_json(x), 'null') || ', ' || \
                 coalesce(('[' || string_agg(coalesce(j, 'null'), ', ') || ']'), 'null') || ']')) FROM t",
            ),
            (
                "SELECT to_json(json_build_array(j::jsonb)) FROM t",
                "SELECT ('[' || coalesce(as_jsonb(j), 'null') || ']') FROM t",
            ),
            ("SELECT a FROM t GROUP BY (), a", "SELECT a FROM t GROUP BY a"),
            (
                "SELECT a, b FROM t GROUP BY (1), ((2)) ORDER BY (2) DESC, (a + 1)",
                "SELECT a, b FROM t GROUP BY 1, 2 ORDER BY 2 DESC, (a + 1)",
            ),
            (
                "SELECT j::json -> 'a' ->> 'b', (CAST(j AS JSONB)) ->> 'a', j::json -> 'a', j::jsonb -> 'a', j #>> '{a, b}' FROM t",
                "SELECT as_json(j) -> 'a' ->> 'b', (as_jsonb(j)) ->> 'a', as_json(j) -> 'a', j::JSONB -> 'a', j -> 'a' ->> 'b' FROM t",
            ),
            (
                "SELECT lag(x, 2, y) OVER w, lead(x, 1, 0) OVER w FROM t",
                "SELECT CASE WHEN lag(true, 2) OVER w IS NULL THEN y ELSE lag(x, 2) OVER w END, lead(x, 1, 0) OVER w FROM t",
            ),
            (
                "SELECT j #>> '{a,0}', j #> '{a,0}' FROM t",
                "SELECT coalesce(j -> 'a' ->> 0, j -> 'a' ->> '0'), j #> '{a,0}' FROM t",
            ),
            (
                "SELECT date_bin('15 minutes', ts, '2001-01-01') FROM t",
                "SELECT date_bin(INTERVAL '15 minutes', ts, TIMESTAMP '2001-01-01') FROM t",
            ),
            (
                "SELECT ts + make_interval(0, 1, days => 3, secs => x) FROM t",
                "SELECT ts + (INTERVAL '0 year' + INTERVAL '1 month' + INTERVAL '3 day' + (x) * INTERVAL '1 second') FROM t",
            ),
            (
                "SELECT format('%s is %2$s, 100 %%', a, b), format('x') FROM t",
                "SELECT concat(a, ' is ', b, ', 100 %'), 'x' FROM t",
            ),
            (
                "SELECT format('%I', a), format('%s') FROM t",
                "SELECT format('%I', a), format('%s') FROM t",
            ),
            (
                "SELECT ARRAY(SELECT x FROM u WHERE k = t.k ORDER BY y DESC, 1 LIMIT 3) AS l FROM t",
                "SELECT coalesce((SELECT array_agg(\"$item\" ORDER BY \"$order0\" DESC, \"$item\") FROM \
                 (SELECT x AS \"$item\", y AS \"$order0\" FROM u WHERE k = t.k ORDER BY y DESC, 1 LIMIT 3) AS \"$array\"), \
                 make_array()) AS l FROM t",
            ),
        ] {
            let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
            write_out(&mut statements[0]);
            assert_eq!(statements[0].to_string(), written);
        }
    }
}
