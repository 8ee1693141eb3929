//! Rewrites expressions in ORDER BY that read a column of FROM whose name the SELECT list gives to another value.
//!
//! A name that stands alone in ORDER BY means the list's value; within an expression it means the column of
//! FROM. DataFusion takes it for the list's there too. So the list gets the expression under a name of its own,
//! and a query around it leaves that column out:
//!
//! ```text
//! SELECT id, -x AS x FROM t ORDER BY x + 0 LIMIT 2
//! SELECT * EXCLUDE ("$order0") FROM (SELECT id, -x AS x, x + 0 AS "$order0" FROM t ORDER BY "$order0" LIMIT 2) AS "$ordered"
//! ```

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, ExcludeSelectItem, Expr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Visit, Visitor,
    WildcardAdditionalOptions,
};

use super::{Session, name_of, output};
use crate::plan::syntax::{self, derived};

/// Whether a query may have such an expression, at any depth.
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

/// Moves such expressions of a query to its SELECT list.
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
    if hidden.is_empty() {
        return;
    }
    let with = query.with.take();
    let mut inner = query.clone();
    let name = |index: usize| Ident::with_quote('"', format!("$order{index}"));
    let names: Vec<Ident> = (0..hidden.len()).map(name).collect();
    if let (SetExpr::Select(select), Some(OrderByKind::Expressions(order))) = (
        inner.body.as_mut(),
        inner.order_by.as_mut().map(|order| &mut order.kind),
    ) {
        for (name, position) in names.iter().zip(hidden) {
            let expr = std::mem::replace(&mut order[position].expr, Expr::Identifier(name.clone()));
            let alias = name.clone();
            select.projection.push(SelectItem::ExprWithAlias { expr, alias });
        }
    }
    let shown = SelectItem::Wildcard(WildcardAdditionalOptions {
        opt_exclude: Some(ExcludeSelectItem::Multiple(
            names.into_iter().map(|name| vec![name].into()).collect(),
        )),
        ..WildcardAdditionalOptions::default()
    });
    let ordered = derived(Box::new(inner), false, Ident::with_quote('"', "$ordered"), vec![]);
    *query = Query {
        with,
        ..*syntax::select(vec![shown], vec![ordered])
    };
}

/// The SELECT of a query and its ORDER BY, if it has both. SELECT DISTINCT is left out, as it only orders by
/// what it lists.
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

/// The names that a SELECT list gives to something other than a column of that name.
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

/// Whether an expression reads one of these names, but is not just that name.
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
