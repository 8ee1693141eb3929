//! Rewrites `ARRAY(query)`: a list of the rows of a query with one column, in the query's order. Without rows
//! the list is empty.
//!
//! ```text
//! ARRAY(SELECT x FROM t ORDER BY y DESC LIMIT 3)
//! coalesce((SELECT array_agg("$item" ORDER BY "$order0" DESC)
//!           FROM (SELECT x AS "$item", y AS "$order0" FROM t ORDER BY y DESC LIMIT 3) AS "$array"), [])
//! ```

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArgumentClause, FunctionArguments, Ident, OrderByExpr, OrderByKind, Query,
    SelectItem, SetExpr, Value, ValueWithSpan,
};

use super::super::syntax::{self, derived, is_one_column};
use super::ident;

/// Rewrites a call; `None` if the query does not have one column, or its order is not supported.
pub(super) fn written_out(function: &Function, query: &Query) -> Option<Expr> {
    let quoted = |name: &str| Ident::with_quote('"', name);
    let item = || Expr::Identifier(quoted("$item"));
    let mut inner = query.clone();
    let order: Vec<OrderByExpr> = match &query.order_by {
        None => vec![],
        Some(order) => match &order.kind {
            OrderByKind::Expressions(order) => order.clone(),
            OrderByKind::All(_) => return None,
        },
    };
    let mut columns = vec![];
    let order: Vec<OrderByExpr> = match inner.body.as_mut() {
        SetExpr::Select(select) => {
            let [only] = select.projection.as_slice() else {
                return None;
            };
            if !is_one_column(only) {
                return None;
            }
            let (value, name) = match only {
                SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Some(alias.clone())),
                SelectItem::UnnamedExpr(expr) => (expr.clone(), None),
                _ => return None,
            };
            let is_distinct = matches!(select.distinct, Some(Distinct::Distinct));
            let is_item = |by: &Expr| match by {
                Expr::Identifier(by) => name.as_ref().is_some_and(|name| name.value == by.value),
                by => is_first(by),
            };
            let mut hidden = vec![];
            let mut outer = vec![];
            for by in &order {
                let expr = if is_item(&by.expr) || is_distinct || by.expr == value {
                    item()
                } else {
                    let name = quoted(&format!("$order{}", hidden.len()));
                    hidden.push(SelectItem::ExprWithAlias {
                        expr: by.expr.clone(),
                        alias: name.clone(),
                    });
                    Expr::Identifier(name)
                };
                outer.push(OrderByExpr { expr, ..by.clone() });
            }
            // The item has another name now, so references to its old name change.
            if let (Some(name), Some(order_by)) = (&name, inner.order_by.as_mut())
                && let OrderByKind::Expressions(order) = &mut order_by.kind
            {
                for by in order {
                    if matches!(&by.expr, Expr::Identifier(by) if by.value == name.value) {
                        by.expr = item();
                    }
                }
            }
            select.projection = vec![SelectItem::ExprWithAlias {
                expr: value,
                alias: quoted("$item"),
            }];
            select.projection.extend(hidden);
            outer
        }
        _ => {
            // A set operation can only be ordered by its columns, and it has just this one.
            columns.push(quoted("$item"));
            let by = |by: OrderByExpr| OrderByExpr { expr: item(), ..by };
            order.into_iter().map(by).collect()
        }
    };
    if inner.limit_clause.is_none() && inner.fetch.is_none() && !is_distinct_on(&inner) {
        inner.order_by = None;
    }
    let mut name = ident(function);
    name.value = "array_agg".to_string();
    let mut gathered = syntax::call(name.clone(), [item()]);
    if let (FunctionArguments::List(list), false) = (&mut gathered.args, order.is_empty()) {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    let rows = derived(Box::new(inner), false, quoted("$array"), columns);
    let all = syntax::select(vec![SelectItem::UnnamedExpr(Expr::Function(gathered))], vec![rows]);
    let call = |value: &str, args: Vec<Expr>| {
        let name = Ident {
            value: value.to_string(),
            ..name.clone()
        };
        Expr::Function(syntax::call(name, args))
    };
    let empty = call("make_array", vec![]);
    Some(call("coalesce", vec![Expr::Subquery(all), empty]))
}

/// Whether an expression of ORDER BY is the position `1`.
fn is_first(by: &Expr) -> bool {
    matches!(by, Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) if number == "1")
}

fn is_distinct_on(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if matches!(select.distinct, Some(Distinct::On(_))))
}
