//! A type TIMESTAMP without a precision has microseconds.
//!
//! Columns of a lake have microseconds, which reach far beyond the year 9999. DataFusion takes TIMESTAMP for one of
//! nanoseconds, which end in the year 2262: `TIMESTAMP '9999-12-31 00:00:00'`, the usual end of what is valid for ever,
//! could not be written.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType, Expr, TypedString, VisitMut, VisitorMut};

/// Gives each TIMESTAMP of a statement or query that has no precision six digits.
pub fn microseconds(sql: &mut impl VisitMut) {
    struct Types;
    impl VisitorMut for Types {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
                    six_digits(data_type)
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql.visit(&mut Types);
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
