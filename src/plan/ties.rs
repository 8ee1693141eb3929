//! Rewrites FETCH FIRST n ROWS as LIMIT n, which DataFusion supports, and WITH TIES as a condition on the rank:
//!
//! ```text
//! SELECT a FROM t ORDER BY b OFFSET 2 FETCH FIRST 3 ROWS WITH TIES
//! SELECT a FROM t QUALIFY rank() OVER (ORDER BY b) <= 2 + 3 AND row_number() OVER (ORDER BY b) > 2
//! ```

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Fetch, Function, Ident, LimitClause, OrderByExpr, OrderByKind, Query, Select, SelectItem,
    SetExpr, Value, VisitMut, VisitorMut, WindowSpec, WindowType,
};

use super::syntax::{self, binary, call, is_one_column, nested};

/// Rewrites each FETCH of a statement, at any depth. A FETCH that cannot be rewritten stays, and `refuse`
/// refuses it.
pub fn fetch_as_limit(sql: &mut impl VisitMut) {
    struct Fetches;
    impl VisitorMut for Fetches {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            in_query(query);
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(sql, &mut Fetches);
}

/// Whether a query has a FETCH that cannot be planned.
pub(super) fn is_left(query: &Query) -> bool {
    let mut tried = query.clone();
    in_query(&mut tried);
    tried.fetch.is_some()
}

fn in_query(query: &mut Query) {
    let one = || syntax::number(1);
    match query.fetch.take() {
        None => {}
        Some(fetch) if fetch.percent => query.fetch = Some(fetch),
        Some(fetch) if fetch.with_ties && by_rank(query, &fetch).is_some() => {}
        Some(fetch) if fetch.with_ties => query.fetch = Some(fetch),
        Some(fetch) => match &mut query.limit_clause {
            clause @ None => {
                *clause = Some(LimitClause::LimitOffset {
                    limit: Some(fetch.quantity.unwrap_or_else(one)),
                    offset: None,
                    limit_by: vec![],
                });
            }
            Some(LimitClause::LimitOffset {
                limit: limit @ None, ..
            }) => *limit = Some(fetch.quantity.unwrap_or_else(one)),
            _ => query.fetch = Some(fetch),
        },
    }
}

/// Rewrites FETCH ... WITH TIES as a condition on the rank in QUALIFY. `None` if that is not possible.
fn by_rank(query: &mut Query, fetch: &Fetch) -> Option<()> {
    let count = match &fetch.quantity {
        None => 1,
        Some(quantity) => number(quantity)?,
    };
    let skipped = match &query.limit_clause {
        None => 0,
        Some(LimitClause::LimitOffset {
            limit: None,
            offset: Some(offset),
            limit_by,
        }) if limit_by.is_empty() => number(&offset.value)?,
        _ => return None,
    };
    let OrderByKind::Expressions(order) = query.order_by.as_ref()?.kind.clone() else {
        return None;
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return None;
    };
    if select.distinct.is_some() {
        return None;
    }
    let order: Vec<OrderByExpr> = order
        .into_iter()
        .map(|by| resolved(by, select))
        .collect::<Option<_>>()?;
    let at_most = compared("rank", &order, BinaryOperator::LtEq, skipped.checked_add(count)?);
    let mut condition = at_most;
    if skipped > 0 {
        let passed = compared("row_number", &order, BinaryOperator::Gt, skipped);
        condition = binary(condition, BinaryOperator::And, passed);
    }
    select.qualify = Some(match select.qualify.take() {
        Some(other) => binary(nested(other), BinaryOperator::And, condition),
        None => condition,
    });
    query.order_by = None;
    query.limit_clause = None;
    Some(())
}

fn number(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Nested(inner) => number(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// An item of ORDER BY as an expression over the rows that the SELECT reads: window functions see neither
/// aliases nor positions of the SELECT list.
fn resolved(mut by: OrderByExpr, select: &Select) -> Option<OrderByExpr> {
    if by.with_fill.is_some() {
        return None;
    }
    let named = |name: &Ident| {
        select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.value.eq_ignore_ascii_case(&name.value) => {
                Some(expr.clone())
            }
            _ => None,
        })
    };
    by.expr = match &by.expr {
        Expr::Identifier(name) => named(name).unwrap_or(by.expr),
        Expr::Value(_) => {
            let n = usize::try_from(number(&by.expr)?).ok()?.checked_sub(1)?;
            if !select.projection.iter().take(n + 1).all(is_one_column) {
                return None;
            }
            match select.projection.get(n)? {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
                _ => return None,
            }
        }
        _ => by.expr,
    };
    Some(by)
}

fn compared(function: &str, order: &[OrderByExpr], op: BinaryOperator, with: u64) -> Expr {
    let over = WindowType::WindowSpec(WindowSpec {
        window_name: None,
        partition_by: vec![],
        order_by: order.to_vec(),
        window_frame: None,
    });
    let function = Function {
        over: Some(over),
        ..call(Ident::new(function), [])
    };
    binary(Expr::Function(function), op, syntax::number(with))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::dialect::Standard;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn fetch_is_written_as_what_is_planned() {
        for (sql, written) in [
            (
                "SELECT a FROM t ORDER BY a FETCH FIRST ROW ONLY",
                "SELECT a FROM t ORDER BY a LIMIT 1",
            ),
            (
                "SELECT a FROM t ORDER BY a OFFSET 2 ROWS FETCH NEXT 3 ROWS ONLY",
                "SELECT a FROM t ORDER BY a LIMIT 3 OFFSET 2 ROWS",
            ),
            (
                "SELECT a, b AS c FROM t QUALIFY d OR e ORDER BY c DESC, 1, f FETCH FIRST 3 ROWS WITH TIES",
                "SELECT a, b AS c FROM t QUALIFY (d OR e) AND rank() OVER (ORDER BY b DESC, a, f) <= 3",
            ),
            (
                "SELECT a FROM t ORDER BY b OFFSET 2 FETCH FIRST ROW WITH TIES",
                "SELECT a FROM t QUALIFY rank() OVER (ORDER BY b) <= 3 AND row_number() OVER (ORDER BY b) > 2",
            ),
            (
                "SELECT DISTINCT a FROM t ORDER BY a FETCH FIRST 2 ROWS WITH TIES",
                "SELECT DISTINCT a FROM t ORDER BY a FETCH FIRST 2 ROWS WITH TIES",
            ),
            (
                "SELECT a FROM t ORDER BY a FETCH FIRST 2 PERCENT ROWS ONLY",
                "SELECT a FROM t ORDER BY a FETCH FIRST 2 PERCENT ROWS ONLY",
            ),
        ] {
            let mut query = Parser::new(&Standard).try_with_sql(sql).unwrap().parse_query().unwrap();
            assert_eq!(is_left(&query), sql == written, "{sql}");
            fetch_as_limit(query.as_mut());
            assert_eq!(query.to_string(), written);
        }
    }
}
