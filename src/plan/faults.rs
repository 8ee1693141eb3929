//! Deliberate faults in the planner, for tests that must notice them. A dataflow with one of these names is
//! planned with that fault, in the run and in batch.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Ident, Query, SetExpr, SetQuantifier, Value, VisitMut, VisitorMut,
};

use super::syntax::{call, not, truth};

/// The names of dataflows that are planned with a fault.
pub(crate) const FAULTS: [&str; 3] = ["two_valued", "double_literals", "uncounted"];

/// Applies the fault that a dataflow is named after.
///
/// - `two_valued`: NOT IN (SELECT ...) is true where it should be unknown.
/// - `double_literals`: a literal with a decimal point is a DOUBLE.
/// - `uncounted`: EXCEPT ALL removes all copies of a row.
pub(super) fn mistake(name: &str, query: &mut Query) {
    if FAULTS.contains(&name) {
        let _ = query.visit(&mut Mistake(name));
    }
}

struct Mistake<'a>(&'a str);

impl VisitorMut for Mistake<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let ("uncounted", SetExpr::SetOperation { set_quantifier, .. }) = (self.0, query.body.as_mut()) {
            *set_quantifier = SetQuantifier::None;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match (self.0, &mut *expr) {
            ("two_valued", Expr::InSubquery { negated, .. }) if *negated => {
                *negated = false;
                let known = [expr.clone(), truth(false)];
                *expr = not(Expr::Function(call(Ident::new("coalesce"), known)));
            }
            ("double_literals", Expr::Value(value)) if matches!(&value.value, Value::Number(text, _) if text.contains('.')) =>
            {
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(expr.clone()),
                    data_type: DataType::Double(ExactNumberInfo::None),
                    array: false,
                    format: None,
                };
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
