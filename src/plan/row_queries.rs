//! Rewrites comparisons of rows with the rows of a subquery in terms of EXISTS, which can be planned:
//!
//! | written | stands for |
//! |---|---|
//! | `WHERE (a, b) IN (S)` | `EXISTS (S that equals it)` |
//! | `WHERE (a, b) NOT IN (S)` | `NOT EXISTS (S that equals it) AND NOT EXISTS (S that may equal it, where a null is)` |
//! | the same as a value | `CASE WHEN EXISTS (equal) THEN TRUE WHEN EXISTS (unknown) THEN NULL ELSE FALSE END` |
//! | `(a, b) = (S)` of one row | `(SELECT (a, b) = (x, y) FROM (S) AS s(x, y))` |
//!
//! `op ANY` and `op ALL` work likewise with another comparison; `op ALL` is NOT of ANY with the opposite of
//! `op`. For a row of two columns, the second EXISTS of NOT IN is split into one for each way in which nulls
//! may be placed, so that a join by the column without a null finds the rows; where a column cannot be null,
//! the optimiser removes its part. For more columns all rows are searched.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr,
    UnaryOperator, VisitMut, VisitorMut,
};

use super::operators::{columns, opposite};
use super::syntax::{
    chained, derived, is_one_column, nested, nested_binary, not, null, number, select, selected, truth,
};

/// The alias of the subquery's rows.
const ROWS: &str = "__rows";

/// Rewrites these comparisons in a statement, query or expression.
pub(super) fn row_queries(sql: &mut impl VisitMut) {
    let _ = sql.visit(&mut RowQueries);
}

/// The number of columns of a row, and of the subquery with which it is compared, if both are known and they differ.
pub(super) fn mismatched_widths(expr: &Expr) -> Option<(usize, usize)> {
    let (row, query) = match (RowAnyQuery::parse(expr), expr) {
        (Some(comparison), _) => (comparison.row.len(), comparison.query),
        (None, Expr::BinaryOp { left, right, .. }) => sides(left, right).map(|(row, query, _)| (row.len(), query))?,
        _ => return None,
    };
    let has = match query.body.as_ref() {
        SetExpr::Select(select) => {
            let items = &select.projection;
            items.iter().all(is_one_column).then_some(items.len())?
        }
        SetExpr::Values(values) => values.rows.first()?.content.len(),
        _ => return None,
    };
    (has != row).then_some((row, has))
}

struct RowQueries;

impl VisitorMut for RowQueries {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let conditions = [&mut select.selection, &mut select.having, &mut select.qualify];
        conditions.into_iter().flatten().for_each(rewrite_condition);
        for join in select.from.iter_mut().flat_map(|part| &mut part.joins) {
            if let JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) =
                &mut join.join_operator
            {
                rewrite_condition(on);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(comparison) = RowAnyQuery::parse(expr) {
            *expr = comparison.value();
        } else if let Some(compared) = one_row_comparison(expr) {
            *expr = compared;
        }
        ControlFlow::Continue(())
    }
}

/// Rewrites a condition where unknown has the effect of false, as in WHERE.
fn rewrite_condition(condition: &mut Expr) {
    if let Some(comparison) = RowAnyQuery::parse(condition) {
        *condition = comparison.condition();
        return;
    }
    match condition {
        Expr::Nested(inner) => rewrite_condition(inner),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And | BinaryOperator::Or,
            right,
        } => {
            rewrite_condition(left);
            rewrite_condition(right);
        }
        _ => {}
    }
}

/// `row op ANY (query)`, possibly negated.
struct RowAnyQuery<'a> {
    row: Vec<&'a Expr>,
    op: BinaryOperator,
    query: &'a Query,
    negated: bool,
}

impl<'a> RowAnyQuery<'a> {
    fn parse(expr: &'a Expr) -> Option<RowAnyQuery<'a>> {
        match expr {
            Expr::Nested(inner) => RowAnyQuery::parse(inner),
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => RowAnyQuery::parse(expr).map(|comparison| RowAnyQuery {
                negated: !comparison.negated,
                ..comparison
            }),
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => Some(RowAnyQuery {
                row: columns(expr)?,
                op: BinaryOperator::Eq,
                query: subquery,
                negated: *negated,
            }),
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => {
                opposite(compare_op)?;
                Some(RowAnyQuery {
                    row: columns(left)?,
                    op: compare_op.clone(),
                    query: subquery(right)?,
                    negated: false,
                })
            }
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => Some(RowAnyQuery {
                row: columns(left)?,
                op: opposite(compare_op)?,
                query: subquery(right)?,
                negated: true,
            }),
            _ => None,
        }
    }

    /// A condition that is true where the comparison is true.
    fn condition(&self) -> Expr {
        if !self.negated {
            return self.exists(self.comparison());
        }
        // NOT ANY is true if no row makes the comparison true or unknown.
        let excluded = std::iter::once(self.comparison()).chain(self.unknown_cases());
        let each = excluded.map(|condition| nested(not(self.exists(condition))));
        chained(each, BinaryOperator::And).expect("the comparison itself is excluded")
    }

    /// The comparison as a value: true, false or unknown.
    fn value(&self) -> Expr {
        let unknown = self.unknown_cases().into_iter().map(|condition| self.exists(condition));
        let unknown = chained(unknown, BinaryOperator::Or).expect("a comparison may be unknown");
        let when = |condition, result| CaseWhen { condition, result };
        nested(Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![
                when(self.exists(self.comparison()), truth(!self.negated)),
                when(unknown, null()),
            ],
            else_result: Some(Box::new(truth(self.negated))),
        })
    }

    /// The columns of the subquery's rows.
    fn query_columns(&self) -> Vec<Expr> {
        column_names(self.row.len()).into_iter().map(column).collect()
    }

    fn comparison(&self) -> Expr {
        nested_binary(tuple(&self.row), self.op.clone(), Expr::Tuple(self.query_columns()))
    }

    /// Conditions of which at least one is true of a row for which the comparison is unknown.
    fn unknown_cases(&self) -> Vec<Expr> {
        let theirs = self.query_columns();
        let ([a, b], [x, y], BinaryOperator::Eq) = (self.row.as_slice(), theirs.as_slice(), &self.op) else {
            return vec![Expr::IsNull(Box::new(self.comparison()))];
        };
        let ways = |own: &Expr, their: &Expr| {
            [
                nested_binary(nested(own.clone()), BinaryOperator::Eq, their.clone()),
                nested(Expr::IsNull(Box::new(their.clone()))),
                nested(Expr::IsNull(Box::new(nested(own.clone())))),
            ]
        };
        let (first, second) = (ways(a, x), ways(b, y));
        let both = first
            .iter()
            .flat_map(|one| second.iter().map(move |other| (one, other)));
        // The first combination has no null: both columns are equal.
        both.skip(1)
            .map(|(one, other)| nested_binary(one.clone(), BinaryOperator::And, other.clone()))
            .collect()
    }

    fn exists(&self, condition: Expr) -> Expr {
        let one = SelectItem::UnnamedExpr(number(1));
        let mut query = select_from_query(vec![one], self.query, self.row.len());
        selected(&mut query).selection = Some(condition);
        nested(Expr::Exists {
            subquery: query,
            negated: false,
        })
    }
}

/// `SELECT items FROM (query) AS rows (columns)`.
fn select_from_query(items: Vec<SelectItem>, query: &Query, columns: usize) -> Box<Query> {
    let mut query = query.clone();
    rename_duplicates(&mut query);
    let rows = derived(Box::new(query), false, Ident::new(ROWS), column_names(columns));
    select(items, vec![rows])
}

/// Gives a column that is selected twice a name of its own, as a table in FROM cannot have two columns of one name.
fn rename_duplicates(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (n, item) in select.projection.iter_mut().enumerate() {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.value.to_lowercase(),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => match parts.last() {
                Some(name) => name.value.to_lowercase(),
                None => continue,
            },
            SelectItem::UnnamedExpr(expr) => expr.to_string().to_lowercase(),
            _ => continue,
        };
        if !seen.insert(name)
            && let SelectItem::UnnamedExpr(expr) = item
        {
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::new(format!("__again_{n}")),
            };
        }
    }
}

fn column_names(columns: usize) -> Vec<Ident> {
    (1..=columns).map(|n| Ident::new(format!("__column_{n}"))).collect()
}

fn column(name: Ident) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::new(ROWS), name])
}

/// Rewrites a comparison of a row with a subquery of one row.
fn one_row_comparison(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryOp { left, op, right } = expr else {
        return None;
    };
    opposite(op)?;
    let (row, query, swapped) = sides(left, right)?;
    let theirs = Expr::Tuple(column_names(row.len()).into_iter().map(column).collect());
    let compared = match swapped {
        false => nested_binary(tuple(&row), op.clone(), theirs),
        true => nested_binary(theirs, op.clone(), tuple(&row)),
    };
    let item = SelectItem::ExprWithAlias {
        expr: compared,
        alias: Ident::new("__compared"),
    };
    Some(Expr::Subquery(select_from_query(vec![item], query, row.len())))
}

/// A row constructor and a subquery, and whether the subquery is the left side.
fn sides<'a>(left: &'a Expr, right: &'a Expr) -> Option<(Vec<&'a Expr>, &'a Query, bool)> {
    match (columns(left), subquery(right)) {
        (Some(row), Some(query)) => Some((row, query, false)),
        _ => Some((columns(right)?, subquery(left)?, true)),
    }
}

fn subquery(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::Nested(inner) => subquery(inner),
        Expr::Subquery(query) => Some(query),
        _ => None,
    }
}

fn tuple(row: &[&Expr]) -> Expr {
    Expr::Tuple(row.iter().map(|column| (*column).clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::dialect::Standard;
    use datafusion::sql::sqlparser::parser::Parser;

    fn made(sql: &str) -> String {
        let mut query = Parser::new(&Standard).try_with_sql(sql).unwrap().parse_query().unwrap();
        row_queries(query.as_mut());
        let text = query.to_string().replace("__rows.__column_", "c");
        text.replace(" AS __rows (__column_1, __column_2)", "")
    }

    #[test]
    fn a_row_is_looked_for_by_exists() {
        for (sql, written) in [
            (
                "SELECT 1 FROM t WHERE (a, b) IN (SELECT x, y FROM u) AND a > 1",
                "SELECT 1 FROM t WHERE (EXISTS (SELECT 1 FROM (SELECT x, y FROM u) WHERE ((a, b) = (c1, c2)))) AND a > 1",
            ),
            (
                "SELECT (a, b) >= ALL (SELECT x, y FROM u) AS c FROM t",
                "SELECT (CASE WHEN (EXISTS (SELECT 1 FROM (SELECT x, y FROM u) WHERE ((a, b) < (c1, c2)))) THEN false \
                 WHEN (EXISTS (SELECT 1 FROM (SELECT x, y FROM u) WHERE ((a, b) < (c1, c2)) IS NULL)) THEN NULL ELSE true END) \
                 AS c FROM t",
            ),
            (
                "SELECT 1 FROM t WHERE (SELECT x, y FROM u LIMIT 1) < ROW(a, b)",
                "SELECT 1 FROM t WHERE (SELECT ((c1, c2) < (a, b)) AS __compared FROM (SELECT x, y FROM u LIMIT 1))",
            ),
            (
                "SELECT 1 FROM t WHERE a IN (SELECT x FROM u)",
                "SELECT 1 FROM t WHERE a IN (SELECT x FROM u)",
            ),
        ] {
            assert_eq!(made(sql), written, "{sql}");
        }
        let not_in = made("SELECT 1 FROM t WHERE NOT (a, b) IN (SELECT x, y FROM u)");
        assert_eq!(not_in.matches("NOT (EXISTS").count(), 9, "{not_in}");
        assert!(not_in.contains("WHERE ((c1 IS NULL) AND ((b) = c2))"), "{not_in}");
    }

    #[test]
    fn rows_and_subqueries_of_other_lengths_are_found() {
        for (sql, columns) in [
            ("(a, b) IN (SELECT x FROM u)", Some((2, 1))),
            ("(a, b) = (SELECT x, y, z FROM u)", Some((2, 3))),
            ("(a, b) IN (SELECT x, y FROM u)", None),
            ("(a, b) IN (SELECT * FROM u)", None),
            ("a IN (SELECT x, y FROM u)", None),
        ] {
            let expr = Parser::new(&Standard).try_with_sql(sql).unwrap().parse_expr().unwrap();
            assert_eq!(mismatched_widths(&expr), columns, "{sql}");
        }
    }
}
