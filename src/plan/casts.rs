//! Tells apart expressions that differ only in their casts.
//!
//! DataFusion names an expression without its casts: `count(x)` and `count(CAST(x AS BIGINT))` are both
//! `count(x)`, and it refuses a GROUP BY that holds both for two expressions with one name. Where that happens,
//! the query is planned again with every cast inside `as_type(cast, 'BIGINT')`, a function that returns its
//! argument but gives the expression a name of its own.

use super::syntax::{call, text};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, Spanned, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// The name of the function that wraps casts.
const NAME: &str = "as_type";

/// Wraps every cast of a query in `as_type`. Returns whether there was any cast.
pub(super) fn name_casts(query: &mut Query) -> bool {
    struct Casts(bool);
    impl VisitorMut for Casts {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Cast { data_type, .. } = expr {
                self.0 = true;
                let to = text(data_type.to_string());
                let span = expr.span();
                let cast = std::mem::replace(expr, to.clone());
                let args = [cast, to];
                *expr = Expr::Function(call(Ident::with_span(span, NAME), args));
            }
            ControlFlow::Continue(())
        }
    }
    let mut casts = Casts(false);
    let _ = VisitMut::visit(query, &mut casts);
    casts.0
}

/// The function `as_type(x, 'T')`, which returns x.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AsType {
    signature: Signature,
}

impl AsType {
    pub fn new() -> Self {
        AsType {
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for AsType {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}
