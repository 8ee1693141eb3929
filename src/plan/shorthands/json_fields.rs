//! Rewrites reads of fields of a text that is cast to JSON or JSONB: `x::json -> 'a' ->> 'b'` becomes
//! `as_json(x) -> 'a' ->> 'b'`, and `x #>> '{a,b}'` becomes `x -> 'a' ->> 'b'`. The cast checks that the text
//! is JSON ([`documents`]).
//!
//! [`documents`]: super::super::json_text::documents

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Ident, Spanned, Visit, visit_expressions,
};

use super::text_of;
use crate::plan::error::Refusal;
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

/// The most numbers of a path. Each may be a position in a list or a name, and all combinations are written out.
const MOST_NUMBERS: usize = 3;

/// A step of a path.
#[derive(Clone, Copy)]
enum PathStep<'a> {
    Name(&'a str),
    Number(u32),
}

impl<'a> PathStep<'a> {
    fn read(step: &'a str) -> Option<PathStep<'a>> {
        let is_plain = !step.is_empty()
            && !step.starts_with('-')
            && !step.eq_ignore_ascii_case("null")
            && !step.contains(['"', '\\', '{', '}']);
        is_plain.then(|| match step.parse() {
            Ok(number) => PathStep::Number(number),
            Err(_) => PathStep::Name(step),
        })
    }
}

/// `x #>> '{a,0}'` as a chain; where the path has numbers, as the first that is not null of several chains.
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
    let steps: Vec<PathStep<'_>> = path
        .split(',')
        .map(|step| PathStep::read(step.trim()))
        .collect::<Option<_>>()?;
    let numbers = steps.iter().filter(|step| matches!(step, PathStep::Number(_))).count();
    if numbers > MOST_NUMBERS || (numbers > 0 && last == BinaryOperator::Arrow) {
        return None;
    }
    // In each choice, bit n says whether the nth number is a name.
    let mut chains = (0..1u32 << numbers).map(|choice| chain(left, &steps, &last, choice));
    match numbers {
        0 => chains.next(),
        _ => Some(Expr::Function(syntax::call(Ident::new("coalesce"), chains))),
    }
}

fn chain(of: &Expr, steps: &[PathStep<'_>], last: &BinaryOperator, mut choice: u32) -> Expr {
    let (mut chain, mut left) = (of.clone(), steps.len());
    for step in steps {
        let step = match step {
            PathStep::Name(name) => syntax::text(*name),
            PathStep::Number(number) => {
                let is_name = choice & 1 == 1;
                choice >>= 1;
                match is_name {
                    true => syntax::text(number.to_string()),
                    false => syntax::number(*number),
                }
            }
        };
        left -= 1;
        let op = match left {
            0 => last.clone(),
            _ => BinaryOperator::Arrow,
        };
        chain = syntax::binary(chain, op, step);
    }
    chain
}

/// The refusal of a path that is not rewritten: the function that would read it takes it for a name.
pub(in crate::plan) fn unread_path(expr: &Expr) -> Option<Refusal> {
    let Expr::BinaryOp {
        op: BinaryOperator::HashArrow | BinaryOperator::HashLongArrow,
        right,
        ..
    } = expr
    else {
        return None;
    };
    by_path(expr).is_none().then(|| {
        Refusal::new(format!("could not read the path {right}"))
            .help("write its steps: payload -> 'items' ->> 0 for an item of a list, payload -> 'items' ->> '0' for a field")
            .at(Some(expr.span()))
    })
}

/// Checks the paths of a live query.
///
/// # Errors
/// A path cannot be read: the problem, and the remedy.
pub fn paths_asked(sql: &impl Visit) -> Result<(), (String, String)> {
    let visited = visit_expressions(sql, |expr| match unread_path(expr) {
        Some(refusal) => ControlFlow::Break(Box::new(refusal)),
        None => ControlFlow::Continue(()),
    });
    Refusal::of_visit(visited).map_err(Refusal::into_texts)
}
