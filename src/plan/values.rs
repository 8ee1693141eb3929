//! Gives names to the values of subqueries.
//!
//! When DataFusion joins a subquery to the outer rows, it names the subquery's column after its expression. In
//! `sum(x) / (SELECT sum(x) FROM t)` two columns are then called `sum(t.x)`, and references to them are
//! ambiguous. A query that fails for this reason is planned again, with a name of its own for the value of each
//! subquery.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, VisitMut, VisitorMut};

use super::syntax::null;

/// Names the column of each subquery that is used as a value or as the list of an IN.
pub(super) fn name_values(query: &mut Query) {
    struct Values(usize);
    impl VisitorMut for Values {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Subquery(query) | Expr::InSubquery { subquery: query, .. } = expr {
                self.0 += 1;
                name(query, self.0);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(query, &mut Values(0));
}

fn name(query: &mut Query, number: usize) {
    // An ORDER BY of the subquery may refer to the column by its own name or position.
    if query.order_by.is_some() {
        return;
    }
    match query.body.as_mut() {
        SetExpr::Select(select) => {
            if let [SelectItem::UnnamedExpr(value)] = select.projection.as_mut_slice()
                && !matches!(value, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
            {
                let expr = std::mem::replace(value, null());
                let alias = Ident::with_quote('"', format!("$value{number}"));
                select.projection = vec![SelectItem::ExprWithAlias { expr, alias }];
            }
        }
        SetExpr::Query(inner) => name(inner, number),
        _ => {}
    }
}
