//! Resolves names of columns before DataFusion does: USING and NATURAL become ON, and names in ORDER BY
//! ([`ordered`]) and of outer tables ([`outer`]) become unambiguous.
//!
//! USING or NATURAL merges a column of both sides into one column of the join, which `*` shows first. It is the
//! column of the left side, in a RIGHT JOIN that of the right side, and in a FULL JOIN the COALESCE of both.
//! DataFusion takes the left side's in all of them. So each such join gets its equalities as ON, and `k` and
//! `*` in the query are replaced by what they mean:
//!
//! ```text
//! SELECT *, k + 1 FROM a FULL JOIN b USING (k)
//! SELECT COALESCE(a.k, b.k) AS k, a.x, b.y, COALESCE(a.k, b.k) + 1 FROM a FULL JOIN b ON a.k = b.k
//! ```
//!
//! `a.k` stays as it is. [`Session`] finds out which columns a table has. If it cannot, or if a name is ambiguous,
//! the join stays as it is, and DataFusion reports the mistake.

mod ordered;
mod outer;
mod scope;
mod substitute;

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Ident, Join, JoinConstraint, JoinOperator, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr,
    Statement, TableFactor, TableWithJoins, VisitMut, Visitor, VisitorMut, With,
};
use datafusion::sql::sqlparser::parser::Parser;

use self::scope::UsingScope;
use self::substitute::Substitution;
use super::dialect::Standard;

/// Rewrites USING and NATURAL of a query as ON, and makes names in ORDER BY and of outer tables unambiguous.
/// Tables are looked up in the session.
pub fn without_using(query: &mut Query, state: &SessionState) {
    outer::rename(query, &mut Session { state, ctes: vec![] });
    if uses(query) || ordered::are_there(query) {
        in_query(query, &mut Session { state, ctes: vec![] });
    }
}

/// Whether a query has such a join, at any depth.
fn uses(query: &Query) -> bool {
    struct Joins;
    impl Visitor for Joins {
        type Break = ();

        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            match select.from.iter().any(joins_by_name) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    datafusion::sql::sqlparser::ast::Visit::visit(query, &mut Joins).is_break()
}

/// Whether a join in FROM, also within parentheses, has USING or NATURAL.
fn joins_by_name(from: &TableWithJoins) -> bool {
    let nested = |relation: &TableFactor| match relation {
        TableFactor::NestedJoin { table_with_joins, .. } => joins_by_name(table_with_joins),
        _ => false,
    };
    let by_name = |join: &Join| {
        matches!(
            constraint(&join.join_operator),
            Some(JoinConstraint::Using(_) | JoinConstraint::Natural)
        )
    };
    nested(&from.relation) || from.joins.iter().any(|join| by_name(join) || nested(&join.relation))
}

/// Tells which columns a table has.
struct Session<'a> {
    state: &'a SessionState,
    /// WITH queries that may be named, each after those that it names.
    ctes: Vec<Cte>,
}

impl Session<'_> {
    /// The columns of a table in FROM, in their order; `None` if they are not known.
    fn columns(&self, table: &TableFactor) -> Option<Vec<String>> {
        // A LATERAL subquery reads other tables of FROM, so it cannot be planned alone.
        if let TableFactor::Derived {
            lateral: true,
            alias: Some(alias),
            ..
        } = table
            && !alias.columns.is_empty()
        {
            return Some(alias.columns.iter().map(|column| name_of(&column.name)).collect());
        }
        let mut statements = Parser::parse_sql(&Standard, "SELECT * FROM t").ok()?;
        let Some(Statement::Query(mut query)) = statements.pop() else {
            return None;
        };
        let SetExpr::Select(select) = query.body.as_mut() else {
            return None;
        };
        select.from[0].relation = table.clone();
        if !self.ctes.is_empty() {
            query.with = Some(With {
                with_token: AttachedToken::empty(),
                recursive: false,
                cte_tables: self.ctes.clone(),
            });
        }
        let statement = Parsed::Statement(Box::new(Statement::Query(query)));
        // Planning reads nothing: the catalog is in memory, so its futures are ready at once.
        let plan = futures::executor::block_on(self.state.statement_to_plan(statement)).ok()?;
        let fields = plan.schema().fields().iter();
        Some(fields.map(|field| field.name().clone()).collect())
    }

    /// The columns of all tables in FROM, as far as they are known.
    fn names(&self, from: &[TableWithJoins]) -> HashSet<String> {
        let mut names = HashSet::new();
        let mut pending: Vec<&TableWithJoins> = from.iter().collect();
        while let Some(part) = pending.pop() {
            for table in std::iter::once(&part.relation).chain(part.joins.iter().map(|join| &join.relation)) {
                match table {
                    TableFactor::NestedJoin {
                        table_with_joins,
                        alias: None,
                    } => pending.push(table_with_joins),
                    table => names.extend(self.columns(table).into_iter().flatten()),
                }
            }
        }
        names
    }
}

fn in_query(query: &mut Query, session: &mut Session<'_>) {
    let known = session.ctes.len();
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        in_query(&mut cte.query, session);
        session.ctes.push(cte.clone());
    }
    in_body(&mut query.body, query.order_by.as_mut(), session);
    ordered::write_out(query, session);
    session.ctes.truncate(known);
}

fn in_body(body: &mut SetExpr, order_by: Option<&mut OrderBy>, session: &mut Session<'_>) {
    match body {
        SetExpr::Select(select) => in_select(select, order_by, session),
        SetExpr::Query(query) => in_query(query, session),
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left, None, session);
            in_body(right, None, session);
        }
        _ => {}
    }
}

fn in_select(select: &mut Select, mut order_by: Option<&mut OrderBy>, session: &mut Session<'_>) {
    for from in &mut select.from {
        in_from(from, session);
    }
    let subqueries = &mut Subqueries(session);
    let _ = select.projection.visit(subqueries);
    if let Some(order_by) = order_by.as_deref_mut() {
        let _ = order_by.visit(subqueries);
    }
    visit_conditions(select, subqueries);
    for from in &mut select.from {
        visit_joins(from, subqueries);
    }
    if !select.from.iter().any(joins_by_name) {
        return;
    }
    let mut from = select.from.clone();
    let scopes = from.iter_mut().map(|from| scope::of_from(from, session));
    let Some(scopes) = scopes.collect::<Option<Vec<UsingScope>>>() else {
        return;
    };
    let scope = scopes.into_iter().fold(UsingScope::default(), UsingScope::beside);
    let Some(projection) = scope.shown(&select.projection) else {
        return;
    };
    (select.from, select.projection) = (from, projection);

    let mut substitution = Substitution::new(&scope, session);
    substitution.in_items(&mut select.projection);
    visit_conditions(select, &mut substitution);
    // In ORDER BY, columns of the SELECT list take precedence over those of tables.
    let outputs: HashSet<String> = select.projection.iter().filter_map(output).collect();
    if let Some(OrderByKind::Expressions(order)) = order_by.map(|order_by| &mut order_by.kind) {
        for by in order {
            match &by.expr {
                Expr::Identifier(name) if outputs.contains(&name_of(name)) => {}
                _ => drop(by.expr.visit(&mut substitution)),
            }
        }
    }
}

fn in_from(from: &mut TableWithJoins, session: &mut Session<'_>) {
    let joined = from.joins.iter_mut().map(|join| &mut join.relation);
    for relation in std::iter::once(&mut from.relation).chain(joined) {
        match relation {
            TableFactor::Derived { subquery, .. } => in_query(subquery, session),
            TableFactor::NestedJoin { table_with_joins, .. } => in_from(table_with_joins, session),
            _ => {}
        }
    }
}

/// Visits the expressions of a SELECT outside of its list, its FROM and its ORDER BY.
fn visit_conditions(select: &mut Select, visitor: &mut impl VisitorMut) {
    let _ = select.distinct.visit(visitor);
    let _ = select.selection.visit(visitor);
    let _ = select.group_by.visit(visitor);
    let _ = select.having.visit(visitor);
    let _ = select.qualify.visit(visitor);
    let _ = select.named_window.visit(visitor);
    let _ = select.sort_by.visit(visitor);
}

/// Visits the conditions of joins.
fn visit_joins(from: &mut TableWithJoins, visitor: &mut impl VisitorMut) {
    if let TableFactor::NestedJoin { table_with_joins, .. } = &mut from.relation {
        visit_joins(table_with_joins, visitor);
    }
    for join in &mut from.joins {
        let _ = join.join_operator.visit(visitor);
        if let TableFactor::NestedJoin { table_with_joins, .. } = &mut join.relation {
            visit_joins(table_with_joins, visitor);
        }
    }
}

/// Rewrites queries within expressions.
struct Subqueries<'a, 'b>(&'a mut Session<'b>);

impl VisitorMut for Subqueries<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        in_query(query, self.0);
        ControlFlow::Continue(())
    }
}

/// The name of an item of a SELECT list, if it has one.
fn output(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(name_of(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name_of(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(name_of),
        _ => None,
    }
}

/// A name as SQL compares names: unquoted ones are in lower case.
fn name_of(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The constraint of a join, borrowed as the operator is.
macro_rules! constraint_of {
    ($operator:expr) => {
        match $operator {
            JoinOperator::Join(on)
            | JoinOperator::Inner(on)
            | JoinOperator::Left(on)
            | JoinOperator::LeftOuter(on)
            | JoinOperator::Right(on)
            | JoinOperator::RightOuter(on)
            | JoinOperator::FullOuter(on)
            | JoinOperator::Semi(on)
            | JoinOperator::LeftSemi(on)
            | JoinOperator::RightSemi(on)
            | JoinOperator::Anti(on)
            | JoinOperator::LeftAnti(on)
            | JoinOperator::RightAnti(on) => Some(on),
            _ => None,
        }
    };
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    constraint_of!(operator)
}

fn constraint_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    constraint_of!(operator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::datasource::empty::EmptyTable;
    use datafusion::prelude::SessionContext;

    fn made(sql: &str) -> String {
        let context = SessionContext::new();
        for (name, columns) in [("a", "x k j"), ("b", "k y j"), ("c", "k z"), ("d", "u")] {
            let fields = columns.split(' ').map(|c| Field::new(c, DataType::Int64, true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            context.register_table(name, Arc::new(EmptyTable::new(schema))).unwrap();
        }
        let mut statements = Parser::parse_sql(&Standard, sql).unwrap();
        let Some(Statement::Query(mut query)) = statements.pop() else {
            panic!("{sql}")
        };
        without_using(&mut query, &context.state());
        query.to_string().replace('"', "")
    }

    #[test]
    fn joins_by_name_become_joins_on_equalities() {
        for (sql, other) in [
            (
                "SELECT k, y FROM a JOIN b USING (k)",
                "SELECT a.k, y FROM a JOIN b ON a.k = b.k",
            ),
            // Table b has a column y, but no column x.
            (
                "SELECT y.* FROM a AS y JOIN c AS x USING (k) WHERE EXISTS (SELECT 1 FROM b WHERE k = y.x AND j = x.z) ORDER BY y.j",
                "SELECT y$1.* FROM a AS y$1 JOIN c AS x ON y$1.k = x.k WHERE EXISTS (SELECT 1 FROM b WHERE k = y$1.x AND j = x.z) \
                 ORDER BY y$1.j",
            ),
            (
                "SELECT 1 FROM d AS j, LATERAL (SELECT * FROM c AS y WHERE y.k = j.u AND EXISTS (SELECT 1 FROM b WHERE y.z = k AND j = 1)) AS q",
                "SELECT 1 FROM d AS j, LATERAL (SELECT * FROM c AS y$1 WHERE y$1.k = j.u AND EXISTS (SELECT 1 FROM b WHERE y$1.z = k AND j = 1)) AS q",
            ),
            (
                "SELECT 1 FROM a AS y WHERE EXISTS (SELECT y.k FROM b AS y WHERE y.j = 1)",
                "SELECT 1 FROM a AS y WHERE EXISTS (SELECT y.k FROM b AS y WHERE y.j = 1)",
            ),
            (
                "SELECT K, y FROM a RIGHT JOIN b USING (k)",
                "SELECT b.k, y FROM a RIGHT JOIN b ON a.k = b.k",
            ),
            (
                "SELECT k + 1 AS n, a.k AS m FROM a FULL JOIN b USING (k) WHERE k > 1 ORDER BY k",
                "SELECT COALESCE(a.k, b.k) + 1 AS n, a.k AS m FROM a FULL JOIN b ON a.k = b.k \
                 WHERE COALESCE(a.k, b.k) > 1 ORDER BY COALESCE(a.k, b.k)",
            ),
            (
                "SELECT k, count(*) AS n FROM a FULL JOIN b USING (k) GROUP BY k HAVING k > 1 ORDER BY k",
                "SELECT COALESCE(a.k, b.k) AS k, count(*) AS n FROM a FULL JOIN b ON a.k = b.k \
                 GROUP BY COALESCE(a.k, b.k) HAVING COALESCE(a.k, b.k) > 1 ORDER BY k",
            ),
            (
                "SELECT * FROM a FULL JOIN b USING (k)",
                "SELECT COALESCE(a.k, b.k) AS k, a.x, a.j, b.y, b.j FROM a FULL JOIN b ON a.k = b.k",
            ),
            (
                "SELECT * FROM a NATURAL JOIN b",
                "SELECT a.k, a.j, a.x, b.y FROM a JOIN b ON a.k = b.k AND a.j = b.j",
            ),
            (
                "SELECT * EXCLUDE (x) FROM a NATURAL LEFT JOIN c",
                "SELECT a.k, a.j, c.z FROM a LEFT JOIN c ON a.k = c.k",
            ),
            (
                "SELECT * FROM c NATURAL JOIN d",
                "SELECT c.k, c.z, d.u FROM c JOIN d ON true",
            ),
            (
                "SELECT k, z FROM a FULL JOIN b USING (k) LEFT JOIN c USING (k)",
                "SELECT COALESCE(a.k, b.k) AS k, z FROM a FULL JOIN b ON a.k = b.k LEFT JOIN c ON COALESCE(a.k, b.k) = c.k",
            ),
            (
                "SELECT k FROM a JOIN (b FULL JOIN c USING (k)) USING (k)",
                "SELECT a.k FROM a JOIN (b FULL JOIN c ON b.k = c.k) ON a.k = COALESCE(b.k, c.k)",
            ),
            (
                "SELECT k FROM a AS t RIGHT JOIN (SELECT * FROM a JOIN c USING (k)) AS q USING (k)",
                "SELECT q.k FROM a AS t RIGHT JOIN (SELECT a.k, a.x, a.j, c.z FROM a JOIN c ON a.k = c.k) AS q ON t.k = q.k",
            ),
            (
                "WITH q AS (SELECT * FROM a RIGHT JOIN c USING (k)) SELECT * FROM q RIGHT JOIN b USING (k)",
                "WITH q AS (SELECT c.k, a.x, a.j, c.z FROM a RIGHT JOIN c ON a.k = c.k) \
                 SELECT b.k, q.x, q.j, q.z, b.y, b.j FROM q RIGHT JOIN b ON q.k = b.k",
            ),
            (
                "SELECT k FROM a LEFT SEMI JOIN b USING (k)",
                "SELECT a.k FROM a LEFT SEMI JOIN b ON a.k = b.k",
            ),
            (
                "SELECT a.* FROM a FULL JOIN b USING (k), d WHERE EXISTS (SELECT 1 FROM d WHERE u = k) \
                 AND EXISTS (SELECT 1 FROM c WHERE k = 1)",
                "SELECT a.* FROM a FULL JOIN b ON a.k = b.k, d WHERE EXISTS (SELECT 1 FROM d WHERE u = COALESCE(a.k, b.k)) \
                 AND EXISTS (SELECT 1 FROM c WHERE k = 1)",
            ),
            (
                "SELECT x, z FROM a FULL JOIN b USING (k) JOIN c ON x = z",
                "SELECT x, z FROM a FULL JOIN b ON a.k = b.k JOIN c ON x = z",
            ),
        ] {
            let other = other.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(made(sql), other, "{sql}");
        }
    }

    /// The joins stay as they are, so that planning reports their mistakes.
    #[test]
    fn joins_with_a_mistake_stay_as_they_are() {
        for sql in [
            "SELECT k FROM a JOIN b USING(nothing)",
            "SELECT k FROM a JOIN nothing USING(k)",
            "SELECT 1 FROM a CROSS JOIN b JOIN c USING(k)",
        ] {
            assert_eq!(made(sql), sql);
        }
    }

    #[test]
    fn names_in_order_expressions_are_those_of_from() {
        assert_eq!(
            made("SELECT -x AS x FROM a ORDER BY x + 0, j LIMIT 2"),
            "SELECT * EXCLUDE ($order0) FROM (SELECT -x AS x, x + 0 AS $order0 FROM a ORDER BY $order0, j LIMIT 2) AS $ordered"
        );
        for same in [
            "SELECT -x AS x FROM a ORDER BY x LIMIT 2",
            "SELECT -x AS y FROM a ORDER BY y + 1 LIMIT 2",
            "SELECT x AS x FROM a ORDER BY x + 1 LIMIT 2",
            "SELECT DISTINCT -x AS x FROM a ORDER BY -x LIMIT 2",
        ] {
            assert_eq!(made(same), same);
        }
    }
}
