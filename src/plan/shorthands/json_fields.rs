//! Rewrites reads of fields of a text that is cast to JSON or JSONB: `x::json -> 'a' ->> 'b'` becomes
//! `as_json(x) -> 'a' ->> 'b'`, and `x #>> '{a,b}'` becomes `x -> 'a' ->> 'b'`. The cast checks that the text
//! is JSON ([`documents`]).
//!
//! [`documents`]: super::super::json_text::documents

use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, DataType, Expr, Ident, Spanned};

use super::text_of;
use crate::plan::syntax;

/// Rewrites a path as a chain of fields, and the cast at the beginning of a chain as a call.
pub(super) fn written_out(expr: &mut Expr) {
    if let Some(chain) = by_path(expr) {
        *expr = chain;
    }
    let Expr::BinaryOp { left, op, .. } = expr else {
        return;
    };
    // A JSONB value is compared as such, and not by its text.
    let is_text = match op {
        BinaryOperator::LongArrow => true,
        BinaryOperator::Arrow => false,
        _ => return,
    };
    let mut of = left.as_mut();
    loop {
        of = match of {
            Expr::Nested(of) => of,
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Arrow,
                ..
            } => left,
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                ..
            } => {
                let name = match data_type {
                    DataType::JSON => "as_json",
                    DataType::JSONB if is_text => "as_jsonb",
                    _ => return,
                };
                let name = Ident::with_span(expr.span(), name);
                let text = std::mem::replace(expr.as_mut(), syntax::null());
                *of = Expr::Function(syntax::call(name, [text]));
                return;
            }
            _ => return,
        };
    }
}

/// `x #>> '{a,b}'` as a chain. Numbers are left out, as they might be positions in lists or names.
fn by_path(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryOp { left, op, right } = expr else {
        return None;
    };
    let last = match op {
        BinaryOperator::HashLongArrow => BinaryOperator::LongArrow,
        BinaryOperator::HashArrow => BinaryOperator::Arrow,
        _ => return None,
    };
    let path = text_of(right)?.strip_prefix('{')?.strip_suffix('}')?;
    let names: Vec<&str> = path.split(',').map(str::trim).collect();
    let is_name = |name: &&str| {
        !name.is_empty()
            && name.parse::<i64>().is_err()
            && !name.eq_ignore_ascii_case("null")
            && !name.contains(['"', '\\', '{', '}'])
    };
    let count = names.iter().filter(|name| is_name(name)).count();
    (count == names.len()).then(|| {
        let steps = names.iter().enumerate();
        steps.fold(left.as_ref().clone(), |of, (n, name)| {
            let op = match n + 1 == count {
                true => last.clone(),
                false => BinaryOperator::Arrow,
            };
            syntax::binary(of, op, syntax::text(*name))
        })
    })
}
