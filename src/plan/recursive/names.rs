//! Composes queries: names their columns, and puts them below the WITH queries that they may name.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{Cte, Ident, Query, SelectItem, SetExpr, Statement, TableFactor, With};
use datafusion::sql::sqlparser::parser::Parser;

use super::form::named;
use crate::plan::dialect::Standard;
use crate::plan::error::Refusal;
use crate::plan::syntax::is_one_column;

/// `SELECT * FROM "name"`.
pub(super) fn all_of(name: &str) -> Query {
    query(&format!("SELECT * FROM {}", Ident::with_quote('"', name)))
}

fn query(sql: &str) -> Query {
    let mut statements = Parser::parse_sql(&Standard, sql).expect("a SELECT that is written here is one");
    match statements.pop() {
        Some(Statement::Query(query)) => *query,
        _ => unreachable!("one SELECT was written"),
    }
}

/// The names in the FROM of a query, without those of its subqueries.
pub(super) fn of_from(body: &SetExpr) -> Vec<String> {
    let of_factor = |factor: &TableFactor| match factor {
        TableFactor::Table { alias: None, name, .. } => name.0.last().and_then(|part| part.as_ident()).map(named),
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => alias.as_ref().map(|a| named(&a.name)),
        _ => None,
    };
    match body {
        SetExpr::Select(select) => {
            let factors = select.from.iter().flat_map(|part| {
                let joined = part.joins.iter().map(|join| &join.relation);
                std::iter::once(&part.relation).chain(joined)
            });
            factors.filter_map(of_factor).collect()
        }
        SetExpr::SetOperation { left, right, .. } => [of_from(left), of_from(right)].concat(),
        SetExpr::Query(query) => of_from(&query.body),
        _ => vec![],
    }
}

/// The query below the WITH queries of `visible`, of which the last are the innermost.
pub(super) fn within(visible: &[Vec<Cte>], query: Query) -> Query {
    let levels = visible.iter().rev().filter(|level| !level.is_empty());
    levels.fold(query, |inner, level| {
        let mut outer = all_of("");
        outer.with = Some(With {
            with_token: AttachedToken::empty(),
            recursive: false,
            cte_tables: level.clone(),
        });
        outer.body = Box::new(SetExpr::Query(Box::new(inner)));
        outer
    })
}

/// The query with its first columns renamed.
pub(super) fn name_items(mut query: Query, names: &[Ident], of: &Ident) -> Result<Query, Refusal> {
    if names.is_empty() {
        return Ok(query);
    }
    if let Some(items) = items(&mut query.body) {
        if items.len() < names.len() {
            let (has, wanted) = (items.len(), names.len());
            return Err(Refusal::new(format!(
                "could not name {wanted} columns of the recursive query {:?}: it has {has}",
                of.value
            ))
            .help("name as many as its SELECT has")
            .at(Some(of.span)));
        }
        name(items, names);
        return Ok(query);
    }
    let mut renamed = self::query(&format!("SELECT * FROM (SELECT 1) AS {}({})", "renamed", list(names)));
    if let SetExpr::Select(select) = renamed.body.as_mut()
        && let Some(part) = select.from.first_mut()
        && let TableFactor::Derived { subquery, .. } = &mut part.relation
    {
        **subquery = query;
    }
    Ok(renamed)
}

/// The query with its columns renamed, if that is possible without a query around it.
pub(super) fn name_plain_items(mut query: Query, names: &[Ident]) -> Query {
    if let Some(items) = items(&mut query.body)
        && items.len() == names.len()
    {
        name(items, names);
    }
    query
}

fn list(names: &[Ident]) -> String {
    names.iter().map(Ident::to_string).collect::<Vec<_>>().join(", ")
}

/// The items of the SELECT that names the columns of the whole query, if none is a wildcard.
fn items(body: &mut SetExpr) -> Option<&mut Vec<SelectItem>> {
    match body {
        SetExpr::Select(select) => {
            let items = &mut select.projection;
            items.iter().all(is_one_column).then_some(items)
        }
        SetExpr::Query(query) if query.order_by.is_none() => items(&mut query.body),
        SetExpr::SetOperation { left, .. } => items(left),
        _ => None,
    }
}

fn name(items: &mut [SelectItem], names: &[Ident]) {
    for (item, alias) in items.iter_mut().zip(names) {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: alias.clone(),
            };
        }
    }
}
