//! Rewrites dates and times in a statement to what DataFusion's planner needs.
//!
//! 1. A TIMESTAMP without a precision has microseconds. DataFusion would make it one of nanoseconds, which end
//!    in the year 2262, so that `TIMESTAMP '9999-12-31 00:00:00'`, the usual end of what is valid for ever,
//!    could not be written.
//! 2. `t AT TIME ZONE zone` becomes the function `timezone(zone, t)`, as in PostgreSQL. DataFusion would make
//!    it a cast to a type with that zone, which ignores the zone if a column holds it.
//! 3. `- INTERVAL '...'` becomes `INTERVAL '...' * -1`. DataFusion would put the sign before the first number
//!    of the text only.
//! 4. `EXTRACT(field FROM t)` becomes `date_part('field', t)`, the function of `calendar`. DataFusion would
//!    call its own.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, DataType, Expr, Ident, Spanned, TypedString, UnaryOperator, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::syntax::{binary, call, null, number, text};

/// Applies these rewrites to a statement, query or expression.
pub fn microseconds(sql: &mut impl VisitMut) {
    struct Moments;
    impl VisitorMut for Moments {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
                    six_digits(data_type);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let span = expr.span();
            let take = |expr: &mut Expr| std::mem::replace(expr, null());
            match expr {
                Expr::AtTimeZone { timestamp, time_zone } => {
                    let args = [take(time_zone), take(timestamp)];
                    *expr = spelled("timezone", args, span);
                }
                Expr::Extract { field, expr: of, .. } => {
                    let args = [text(field.to_string()), take(of)];
                    *expr = spelled("date_part", args, span);
                }
                Expr::UnaryOp {
                    op: UnaryOperator::Minus,
                    expr: of,
                } if is_interval(of) => {
                    *expr = binary(take(of), BinaryOperator::Multiply, number(-1));
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql.visit(&mut Moments);
}

fn is_interval(expr: &Expr) -> bool {
    match expr {
        Expr::Interval(_) => true,
        Expr::Nested(inner) => is_interval(inner),
        _ => false,
    }
}

fn spelled(name: &str, args: [Expr; 2], span: Span) -> Expr {
    Expr::Function(call(Ident::with_span(span, name), args))
}

fn six_digits(of: &mut DataType) {
    match of {
        DataType::Timestamp(precision @ None, _) => *precision = Some(6),
        DataType::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::SquareBracket(item, _)) => {
            six_digits(item);
        }
        _ => {}
    }
}
