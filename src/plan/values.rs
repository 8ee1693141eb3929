//! Names for the values of subqueries.
//!
//! DataFusion joins a subquery to the rows around it and calls its column what the expression is called. In
//! `sum(x) / (SELECT sum(x) FROM t)` two columns are `sum(t.x)` then, and neither can be told from the other. So the value
//! of each subquery gets a name of its own.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, Value, VisitMut, VisitorMut};

/// Names the one column of each subquery that is a value, or a list to look into.
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
    // An ORDER BY may call the column by its own name or place.
    if query.order_by.is_some() {
        return;
    }
    match query.body.as_mut() {
        SetExpr::Select(select) => {
            if let [SelectItem::UnnamedExpr(value)] = select.projection.as_mut_slice()
                && !matches!(value, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
            {
                let expr = std::mem::replace(value, Expr::value(Value::Null));
                let alias = Ident::with_quote('"', format!("$value{number}"));
                select.projection = vec![SelectItem::ExprWithAlias { expr, alias }];
            }
        }
        SetExpr::Query(inner) => name(inner, number),
        _ => {}
    }
}
