//! Shorthands of SQL, written out as what they stand for before anything is planned:
//!
//! | written | stands for |
//! |---|---|
//! | `json_agg(x ORDER BY y)` | `'[' || string_agg(coalesce(to_json(x), 'null'), ', ' ORDER BY y) || ']'` |
//! | `json_object_agg(k, x)` | `'{ ' || string_agg(json_key(k) || ' : ' || coalesce(to_json(x), 'null'), ', ') || ' }'` |
//! | `json_build_object(k, x, ...)` | `'{' || json_key(k) || ' : ' || coalesce(to_json(x), 'null') || ... || '}'` |
//! | `json_build_array(x, ...)` | `'[' || coalesce(to_json(x), 'null') || ... || ']'` |
//! | `min_by(x, y)`, `max_by(x, y)` | `first_value(x ORDER BY y)` of the rows where y is not null |
//! | `every(b)` | `bool_and(b)` |
//! | `ROLLUP ((a, b), c)`, `CUBE ((a, b), c)` | `GROUPING SETS ((a, b, c), (a, b), ())` and so on |
//!
//! DISTINCT, FILTER, ORDER BY and OVER of a shorthand go with it. JSON is text here, so that what makes JSON can only be told
//! by its name: the value of such a call within another one is taken as it is, and so is `CAST(x AS JSON)`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, Ident, ObjectName, OrderByExpr, OrderByOptions, Value, VisitMut, VisitorMut,
};

use super::written;

/// The most sets that a CUBE is written out to.
const MOST_SETS: usize = 64;

/// Writes out the shorthands of a statement.
pub fn write_out(statement: &mut impl VisitMut) {
    let _ = VisitMut::visit(statement, &mut WritingOut);
}

struct WritingOut;

impl VisitorMut for WritingOut {
    type Break = ();

    /// From the outside inwards: the calls within a JSON call tell by their names that they make JSON.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(written) = written_out(expr) {
            *expr = written;
        }
        ControlFlow::Continue(())
    }
}

fn written_out(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Function(function) => call(function),
        Expr::Rollup(elements) if elements.iter().any(|element| element.len() != 1) => {
            let sets = (0..=elements.len()).rev().map(|count| elements[..count].concat());
            Some(Expr::GroupingSets(sets.collect()))
        }
        Expr::Cube(elements)
            if elements.iter().any(|element| element.len() != 1) && 1 << elements.len().min(32) <= MOST_SETS =>
        {
            let set = |mask: usize| {
                let held = elements.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0);
                held.flat_map(|(_, element)| element.clone()).collect()
            };
            Some(Expr::GroupingSets((0..1 << elements.len()).rev().map(set).collect()))
        }
        _ => None,
    }
}

/// A call's name, where it is a plain one.
fn name_of(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [part] => part.as_ident().map(|name| name.value.to_lowercase()),
        _ => None,
    }
}

fn call(function: &Function) -> Option<Expr> {
    let name = name_of(function)?;
    let arguments = arguments(function)?;
    Some(match (name.as_str(), arguments.as_slice()) {
        ("json_agg" | "jsonb_agg", [of]) => {
            let texts = gathered(function, json(of));
            Expr::Nested(Box::new(joined(vec![text("["), texts, text("]")])))
        }
        ("json_object_agg", [key, of]) => {
            let pairs = gathered(function, joined(vec![key_of(key), text(" : "), json(of)]));
            Expr::Nested(Box::new(joined(vec![text("{ "), pairs, text(" }")])))
        }
        ("json_build_object", pairs) if pairs.len().is_multiple_of(2) => {
            let mut parts = vec![text("{")];
            for (n, pair) in pairs.chunks(2).enumerate() {
                parts.extend((n > 0).then(|| text(", ")));
                parts.extend([key_of(&pair[0]), text(" : "), json(&pair[1])]);
            }
            parts.push(text("}"));
            Expr::Nested(Box::new(joined(parts)))
        }
        ("json_build_array" | "jsonb_build_array", items) => {
            let mut parts = vec![text("[")];
            for (n, item) in items.iter().enumerate() {
                parts.extend((n > 0).then(|| text(", ")));
                parts.push(json(item));
            }
            parts.push(text("]"));
            Expr::Nested(Box::new(joined(parts)))
        }
        ("to_json" | "to_jsonb", [of]) if makes_json(of) => of.clone(),
        ("min_by" | "arg_min", [of, by]) => first_by(function, of, by, true),
        ("max_by" | "arg_max", [of, by]) => first_by(function, of, by, false),
        ("every", [_]) => Expr::Function(Function {
            name: named("bool_and"),
            ..function.clone()
        }),
        _ => return None,
    })
}

/// The arguments of a call, where they are plain ones.
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

fn named(name: &str) -> ObjectName {
    ObjectName::from(vec![Ident::new(name)])
}

fn text(of: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(of.to_string()))
}

fn function(name: &str, arguments: Vec<Expr>) -> Function {
    written::call(Ident::new(name), arguments)
}

/// `a || b || c`.
fn joined(parts: Vec<Expr>) -> Expr {
    let concat = |left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::StringConcat,
        right: Box::new(right),
    };
    parts.into_iter().reduce(concat).unwrap_or_else(|| text(""))
}

fn key_of(key: &Expr) -> Expr {
    Expr::Function(function("json_key", vec![key.clone()]))
}

/// A value's JSON; that of null is `null`.
fn json(of: &Expr) -> Expr {
    let is_json = makes_json(of);
    let of = match of {
        Expr::Cast { expr, .. } if is_json => expr.as_ref().clone(),
        of => of.clone(),
    };
    let json = match is_json {
        true => of,
        false => Expr::Function(function("to_json", vec![of])),
    };
    Expr::Function(function("coalesce", vec![json, text("null")]))
}

/// Whether the value of an expression is the text of JSON.
fn makes_json(of: &Expr) -> bool {
    match of {
        Expr::Nested(of) => makes_json(of),
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            data_type: DataType::JSON | DataType::JSONB,
            ..
        } => true,
        Expr::Function(function) => matches!(
            name_of(function).as_deref(),
            Some(
                "json_agg"
                    | "jsonb_agg"
                    | "json_object_agg"
                    | "json_build_object"
                    | "json_build_array"
                    | "jsonb_build_array"
                    | "to_json"
                    | "to_jsonb"
            )
        ),
        _ => false,
    }
}

/// `string_agg(of, ', ')` with the clauses of another aggregate.
fn gathered(with: &Function, of: Expr) -> Expr {
    let mut call = function("string_agg", vec![of, text(", ")]);
    if let (FunctionArguments::List(own), FunctionArguments::List(given)) = (&mut call.args, &with.args) {
        own.duplicate_treatment = given.duplicate_treatment;
        own.clauses = given.clauses.clone();
    }
    call.filter.clone_from(&with.filter);
    call.over.clone_from(&with.over);
    Expr::Function(call)
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
    let there = Expr::IsNotNull(Box::new(Expr::Nested(Box::new(by.clone()))));
    call.filter = Some(Box::new(match &with.filter {
        None => there,
        Some(filter) => Expr::BinaryOp {
            left: Box::new(Expr::Nested(filter.clone())),
            op: BinaryOperator::And,
            right: Box::new(there),
        },
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
                "SELECT ('[' || string_agg(coalesce(to_json(v), 'null'), ', ' ORDER BY k DESC) FILTER (WHERE b) || ']') FROM t",
            ),
            (
                "SELECT json_build_object('a', v, 'b', json_agg(w)) FROM t",
                "SELECT ('{' || json_key('a') || ' : ' || coalesce(to_json(v), 'null') || ', ' || json_key('b') || ' : ' || \
                 coalesce(('[' || string_agg(coalesce(to_json(w), 'null'), ', ') || ']'), 'null') || '}') FROM t",
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
        ] {
            let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
            write_out(&mut statements[0]);
            assert_eq!(statements[0].to_string(), written);
        }
    }
}
