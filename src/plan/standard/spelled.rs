//! What DataFusion passes over in the spelling of SQL.
//!
//! `CAST(s AS VARCHAR(3))` has three characters at most; DataFusion knows no lengths.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CharacterLength, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, ObjectName, Spanned, Value, VisitMut, VisitorMut,
};

/// Writes the lengths of casts of a statement, query or expression out as calls.
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
                let length = Expr::value(Value::Number(length.to_string(), false));
                let args = [std::mem::replace(expr, length.clone()), length];
                let args = args.map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)));
                *expr = Expr::Function(Function {
                    name: ObjectName::from(vec![name]),
                    uses_odbc_syntax: false,
                    parameters: FunctionArguments::None,
                    args: FunctionArguments::List(FunctionArgumentList {
                        duplicate_treatment: None,
                        args: args.to_vec(),
                        clauses: vec![],
                    }),
                    filter: None,
                    null_treatment: None,
                    over: None,
                    within_group: vec![],
                });
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sql.visit(&mut Lengths);
}

/// The most characters of a text's type, where it says how many.
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
