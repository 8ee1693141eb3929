//! Rewrites functions that make JSON as concatenations of texts.
//!
//! JSON is a text here, so only the name of a function shows that its result is JSON. The result of such a
//! function, or of `CAST(x AS JSON)`, is used as it is within another one. JSONB is the same document, written
//! in PostgreSQL's form (`as_jsonb`).

use datafusion::sql::sqlparser::ast::{CastKind, DataType, Expr, Function, FunctionArguments};

use super::{function, ident, joined, name_of, renamed};
use crate::plan::syntax::{self, nested, text};

/// All functions that make JSON: those of JSONB, and beside each the one of JSON whose result `as_jsonb` rewrites.
const JSONB: [(&str, &str); 5] = [
    ("jsonb_agg", "json_agg"),
    ("jsonb_object_agg", "json_object_agg"),
    ("jsonb_build_object", "json_build_object"),
    ("jsonb_build_array", "json_build_array"),
    ("to_jsonb", "to_json"),
];

/// Rewrites a call that makes JSON; `None` for other calls. `name` is its name in lower case.
pub(super) fn written_out(function: &Function, name: &str, arguments: &[Expr]) -> Option<Expr> {
    let of_json = JSONB.iter().find(|(jsonb, _)| *jsonb == name);
    if let Some((_, json)) = of_json {
        let mut name = ident(function);
        name.value = "as_jsonb".to_string();
        return Some(Expr::Function(syntax::call(name, [renamed(function, json)])));
    }
    Some(match (name, arguments) {
        ("json_agg", [of]) => {
            let texts = match makes_json(of) {
                true => gathered(function, json(of)),
                // Each list stands on a line of its own, except for the first.
                false => {
                    let item = Expr::Function(self::function("json_item", vec![of.clone()]));
                    let item = Expr::Function(self::function("coalesce", vec![item, text("null")]));
                    Expr::Function(self::function("ltrim", vec![gathered(function, item), text("\n ")]))
                }
            };
            nested(joined(vec![text("["), texts, text("]")]))
        }
        ("json_object_agg", [key, of]) => {
            let pairs = gathered(function, joined(vec![key_of(key), text(" : "), json(of)]));
            nested(joined(vec![text("{ "), pairs, text(" }")]))
        }
        ("json_build_object", pairs) if pairs.len().is_multiple_of(2) => {
            let mut parts = vec![text("{")];
            for (n, pair) in pairs.chunks(2).enumerate() {
                parts.extend((n > 0).then(|| text(", ")));
                parts.extend([key_of(&pair[0]), text(" : "), json(&pair[1])]);
            }
            parts.push(text("}"));
            nested(joined(parts))
        }
        ("json_build_array", items) => {
            let mut parts = vec![text("[")];
            for (n, item) in items.iter().enumerate() {
                parts.extend((n > 0).then(|| text(", ")));
                parts.push(json(item));
            }
            parts.push(text("]"));
            nested(joined(parts))
        }
        ("to_json", [of]) if makes_json(of) => of.clone(),
        _ => return None,
    })
}

fn key_of(key: &Expr) -> Expr {
    Expr::Function(function("json_key", vec![key.clone()]))
}

/// The JSON of a value; null becomes `null`.
fn json(of: &Expr) -> Expr {
    let is_json = makes_json(of);
    let json = match of {
        Expr::Cast { expr, data_type, .. } if is_json => match data_type {
            DataType::JSONB => Expr::Function(function("as_jsonb", vec![expr.as_ref().clone()])),
            _ => expr.as_ref().clone(),
        },
        of if is_json => of.clone(),
        of => Expr::Function(function("to_json", vec![of.clone()])),
    };
    Expr::Function(function("coalesce", vec![json, text("null")]))
}

/// Whether the value of an expression is JSON.
fn makes_json(of: &Expr) -> bool {
    match of {
        Expr::Nested(of) => makes_json(of),
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            data_type: DataType::JSON | DataType::JSONB,
            ..
        } => true,
        Expr::Function(function) => {
            name_of(function).is_some_and(|name| JSONB.iter().any(|(jsonb, json)| name == *jsonb || name == *json))
        }
        _ => false,
    }
}

/// `string_agg(of, ', ')` with the clauses of the aggregate `with`.
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
