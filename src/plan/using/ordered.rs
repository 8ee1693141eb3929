//! ORDER BY expressions that read a column whose name the list gives to something else.
//!
//! A name that stands alone in ORDER BY is one of the list's; within an expression it is a column of FROM. DataFusion takes it
//! for the list's there, too. So the expression is computed in the list, under a name of its own, and left out again:
//!
//! ```text
//! SELECT id, -x AS x FROM t ORDER BY x + 0 LIMIT 2
//! SELECT * EXCLUDE ("$order0") FROM (SELECT id, -x AS x, x + 0 AS "$order0" FROM t ORDER BY "$order0" LIMIT 2) AS "$ordered"
//! ```

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, TableFactor, Visit,
    Visitor,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::{Session, name_of, output};
use crate::plan::dialect::Standard;

/// Whether a query at any depth may have such an expression.
pub(super) fn are_there(query: &Query) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            match is_ordered(query) {
                Some((select, order)) if exprs(order).any(|by| reads(by, &renamed(select))) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    query.visit(&mut Queries).is_break()
}

/// Computes such expressions of a query in its list.
pub(super) fn write_out(query: &mut Query, session: &Session<'_>) {
    let Some((select, order)) = is_ordered(query) else {
        return;
    };
    let mut names = renamed(select);
    if !exprs(order).any(|by| reads(by, &names)) {
        return;
    }
    let columns = session.names(&select.from);
    names.retain(|name| columns.contains(name));
    let hidden: Vec<usize> = (exprs(order).enumerate())
        .filter_map(|(index, by)| reads(by, &names).then_some(index))
        .collect();
    let (false, Some(mut around)) = (hidden.is_empty(), around(hidden.len())) else {
        return;
    };
    let name = |index: usize| Ident::with_quote('"', format!("$order{index}"));
    let inner = Query {
        with: None,
        ..query.clone()
    };
    let SetExpr::Select(outer) = around.as_mut() else {
        return;
    };
    let TableFactor::Derived { subquery, .. } = &mut outer.from[0].relation else {
        return;
    };
    **subquery = inner;
    if let (SetExpr::Select(select), Some(OrderByKind::Expressions(order))) = (
        subquery.body.as_mut(),
        subquery.order_by.as_mut().map(|order| &mut order.kind),
    ) {
        for (index, position) in hidden.into_iter().enumerate() {
            let expr = std::mem::replace(&mut order[position].expr, Expr::Identifier(name(index)));
            let alias = name(index);
            select.projection.push(SelectItem::ExprWithAlias { expr, alias });
        }
    }
    query.body = around;
    (query.order_by, query.limit_clause, query.fetch) = (None, None, None);
}

/// The SELECT of a query that has one and an ORDER BY. Of SELECT DISTINCT the order is one of what the list has.
fn is_ordered(query: &Query) -> Option<(&Select, &OrderBy)> {
    match (query.body.as_ref(), &query.order_by) {
        (SetExpr::Select(select), Some(order))
            if !matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))) =>
        {
            Some((select, order))
        }
        _ => None,
    }
}

fn exprs(order: &OrderBy) -> impl Iterator<Item = &Expr> {
    let all = match &order.kind {
        OrderByKind::Expressions(all) => all.as_slice(),
        OrderByKind::All(_) => &[],
    };
    all.iter().map(|by| &by.expr)
}

/// The names that a list gives to something else than a column of that name.
fn renamed(select: &Select) -> HashSet<String> {
    let names = select.projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            let is_column = output(&SelectItem::UnnamedExpr(expr.clone())) == Some(name_of(alias));
            (!is_column).then(|| name_of(alias))
        }
        _ => None,
    });
    names.collect()
}

/// Whether an expression, more than a name alone, reads one of these.
fn reads(expr: &Expr, names: &HashSet<String>) -> bool {
    struct Names<'a>(&'a HashSet<String>);
    impl Visitor for Names<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(name) if self.0.contains(&name_of(name)) => ControlFlow::Break(()),
                Expr::CompoundIdentifier(parts) if parts.last().is_some_and(|name| self.0.contains(&name_of(name))) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    !matches!(expr, Expr::Identifier(_)) && expr.visit(&mut Names(names)).is_break()
}

/// A SELECT of all columns of a subquery but so many.
fn around(hidden: usize) -> Option<Box<SetExpr>> {
    let names: Vec<String> = (0..hidden).map(|index| format!("\"$order{index}\"")).collect();
    let sql = format!(
        "SELECT * EXCLUDE ({}) FROM (SELECT 1) AS \"$ordered\"",
        names.join(", ")
    );
    match Parser::parse_sql(&Standard, &sql).ok()?.pop()? {
        Statement::Query(query) => Some(query.body),
        _ => None,
    }
}
