//! Rewrites `make_interval(years, months, weeks, days, hours, mins, secs)`, with positional or named arguments,
//! as the sum of its parts.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, Interval, Value, ValueWithSpan,
};

use crate::plan::syntax::{self, binary, nested};

const PARTS: [(&str, &str); 7] = [
    ("years", "year"),
    ("months", "month"),
    ("weeks", "week"),
    ("days", "day"),
    ("hours", "hour"),
    ("mins", "minute"),
    ("secs", "second"),
];

/// Rewrites a call; `None` if its arguments are not of that form.
pub(super) fn written_out(args: &[FunctionArg]) -> Option<Expr> {
    let mut parts = Vec::with_capacity(args.len());
    for (n, arg) in args.iter().enumerate() {
        let (unit, of) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(of)) => (PARTS.get(n)?.1, of),
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(of),
                ..
            } => {
                let named = PARTS.iter().find(|(part, _)| name.value.eq_ignore_ascii_case(part))?;
                (named.1, of)
            }
            _ => return None,
        };
        parts.push(match of {
            Expr::Value(ValueWithSpan {
                value: Value::Number(number, _),
                ..
            }) => interval(&format!("{number} {unit}")),
            of => {
                let unit = interval(&format!("1 {unit}"));
                binary(nested(of.clone()), BinaryOperator::Multiply, unit)
            }
        });
    }
    let sum = parts
        .into_iter()
        .reduce(|left, right| binary(left, BinaryOperator::Plus, right));
    Some(nested(sum.unwrap_or_else(|| interval("0 second"))))
}

/// `INTERVAL 'text'`.
pub(super) fn interval(text: &str) -> Expr {
    Expr::Interval(Interval {
        value: Box::new(syntax::text(text)),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    })
}
