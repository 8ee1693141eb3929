//! Handles parts of SQL that DataFusion ignores.
//!
//! `CAST(s AS VARCHAR(3))` has at most three characters, but DataFusion ignores the length.

use std::ops::ControlFlow;

use super::super::syntax::{call, number};
use datafusion::sql::sqlparser::ast::{CharacterLength, DataType, Expr, Ident, Spanned, VisitMut, VisitorMut};

/// Rewrites the lengths of casts in a statement, query or expression as calls of `left`.
pub fn lengths(sql: &mut impl VisitMut) {
    struct Lengths;
    impl VisitorMut for Lengths {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let length = match expr {
                Expr::Cast { data_type, .. } => length_of(data_type),
                _ => None,
            };
            if let Some(length) = length {
                let name = Ident::with_span(expr.span(), "left");
                let length = number(length);
                let args = [std::mem::replace(expr, length.clone()), length];
                *expr = Expr::Function(call(name, args));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql.visit(&mut Lengths);
}

/// Takes the length out of a text type, if it has one.
fn length_of(of: &mut DataType) -> Option<u64> {
    let length = match of {
        DataType::Varchar(length)
        | DataType::Nvarchar(length)
        | DataType::CharVarying(length)
        | DataType::CharacterVarying(length) => length.take(),
        _ => None,
    };
    match length {
        Some(CharacterLength::IntegerLength { length, .. }) => Some(length),
        _ => None,
    }
}
