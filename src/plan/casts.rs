//! Expressions that differ in casts alone.
//!
//! DataFusion names an expression without its casts: `count(x)` and `count(CAST(x AS BIGINT))` are both `count(x)`, and a
//! GROUP BY that holds both is refused for having one name twice. Where that happens, the query is planned again with
//! every cast of it inside `as_type(cast, 'BIGINT')`, a function that does nothing but have a name.

use super::written::call;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, Spanned, Value, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// The function's name.
const NAME: &str = "as_type";

/// Puts a name around every cast of a query. Says whether there was any.
pub(super) fn name_casts(query: &mut Query) -> bool {
    struct Casts(bool);
    impl VisitorMut for Casts {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Cast { data_type, .. } = expr {
                self.0 = true;
                let to = Expr::value(Value::SingleQuotedString(data_type.to_string()));
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

/// `as_type(x, 'T')` is x.
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
