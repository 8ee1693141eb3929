//! Rows compared with the rows of a subquery, in terms of EXISTS, which is planned:
//!
//! | written | stands for |
//! |---|---|
//! | `WHERE (a, b) IN (S)` | `EXISTS (S that equals it)` |
//! | `WHERE (a, b) NOT IN (S)` | `NOT EXISTS (S that equals it) AND NOT EXISTS (S that may equal it, where a null is)` |
//! | the same as a value | `CASE WHEN EXISTS (equal) THEN TRUE WHEN EXISTS (unknown) THEN NULL ELSE FALSE END` |
//! | `(a, b) = (S)` of one row | `(SELECT (a, b) = (x, y) FROM (S) AS s(x, y))` |
//!
//! `op ANY` and `op ALL` are the same with another comparison: `op ALL` is NOT of ANY with the opposite of op. What may equal a
//! row of two columns is asked for once for each way in which nulls may stand, so that a join by the column that is equal finds
//! it; where no null can stand, nothing is left of that. For more columns the unknown ones are looked for among all rows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr,
    UnaryOperator, Value, VisitMut, VisitorMut,
};

use super::operators::{columns, opposite};
use super::written::{derived, is_one_column, select, selected};

/// The name of a subquery's rows.
const ROWS: &str = "__rows";

/// Writes these of a statement, query or expression anew.
pub(super) fn row_queries(sql: &mut impl VisitMut) {
    let _ = sql.visit(&mut RowQueries);
}

/// How many columns a row has and how many a subquery that it is compared with, where that can be told and is not the same.
pub(super) fn differ(expr: &Expr) -> Option<(usize, usize)> {
    let (row, query) = match (Asked::of(expr), expr) {
        (Some(asked), _) => (asked.row.len(), asked.query),
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
        conditions.into_iter().flatten().for_each(kept);
        for join in select.from.iter_mut().flat_map(|part| &mut part.joins) {
            if let JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) =
                &mut join.join_operator
            {
                kept(on);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(asked) = Asked::of(expr) {
            *expr = asked.value();
        } else if let Some(compared) = compared_with_one(expr) {
            *expr = compared;
        }
        ControlFlow::Continue(())
    }
}

/// A condition of which unknown is as good as false.
fn kept(condition: &mut Expr) {
    if let Some(asked) = Asked::of(condition) {
        *condition = asked.condition();
        return;
    }
    match condition {
        Expr::Nested(inner) => kept(inner),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And | BinaryOperator::Or,
            right,
        } => {
            kept(left);
            kept(right);
        }
        _ => {}
    }
}

/// `row op ANY (query)`, or NOT of it.
struct Asked<'a> {
    row: Vec<&'a Expr>,
    op: BinaryOperator,
    query: &'a Query,
    negated: bool,
}

impl<'a> Asked<'a> {
    fn of(expr: &'a Expr) -> Option<Asked<'a>> {
        match expr {
            Expr::Nested(inner) => Asked::of(inner),
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => Asked::of(expr).map(|asked| Asked {
                negated: !asked.negated,
                ..asked
            }),
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => Some(Asked {
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
                Some(Asked {
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
            } => Some(Asked {
                row: columns(left)?,
                op: opposite(compare_op)?,
                query: subquery(right)?,
                negated: true,
            }),
            _ => None,
        }
    }

    /// Whether it is true.
    fn condition(&self) -> Expr {
        if !self.negated {
            return self.exists(self.compared());
        }
        let unknown = self.unknown().into_iter().map(|condition| not(self.exists(condition)));
        chained(
            std::iter::once(not(self.exists(self.compared()))).chain(unknown),
            BinaryOperator::And,
        )
    }

    /// Whether it is true, false or unknown.
    fn value(&self) -> Expr {
        let truth = |truth| Expr::value(Value::Boolean(truth));
        let unknown = self.unknown().into_iter().map(|condition| self.exists(condition));
        let when = |condition, result| CaseWhen { condition, result };
        nested(Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![
                when(self.exists(self.compared()), truth(!self.negated)),
                when(chained(unknown, BinaryOperator::Or), Expr::value(Value::Null)),
            ],
            else_result: Some(Box::new(truth(self.negated))),
        })
    }

    /// The columns of the subquery's rows.
    fn theirs(&self) -> Vec<Expr> {
        named(self.row.len()).into_iter().map(column).collect()
    }

    fn compared(&self) -> Expr {
        binary(tuple(&self.row), self.op.clone(), Expr::Tuple(self.theirs()))
    }

    /// The conditions of which one is true of a row with which the comparison is unknown, and not false.
    fn unknown(&self) -> Vec<Expr> {
        let theirs = self.theirs();
        let ([a, b], [x, y], BinaryOperator::Eq) = (self.row.as_slice(), theirs.as_slice(), &self.op) else {
            return vec![Expr::IsNull(Box::new(self.compared()))];
        };
        let ways = |own: &Expr, their: &Expr| {
            [
                binary(nested(own.clone()), BinaryOperator::Eq, their.clone()),
                nested(Expr::IsNull(Box::new(their.clone()))),
                nested(Expr::IsNull(Box::new(nested(own.clone())))),
            ]
        };
        let (first, second) = (ways(a, x), ways(b, y));
        let both = first
            .iter()
            .flat_map(|one| second.iter().map(move |other| (one, other)));
        // The first one of all has no null.
        both.skip(1)
            .map(|(one, other)| binary(one.clone(), BinaryOperator::And, other.clone()))
            .collect()
    }

    fn exists(&self, condition: Expr) -> Expr {
        let one = SelectItem::UnnamedExpr(Expr::value(Value::Number("1".to_string(), false)));
        let mut query = of_rows(vec![one], self.query, self.row.len());
        selected(&mut query).selection = Some(condition);
        nested(Expr::Exists {
            subquery: query,
            negated: false,
        })
    }
}

/// `SELECT items FROM (query) AS rows (columns)`.
fn of_rows(items: Vec<SelectItem>, query: &Query, columns: usize) -> Box<Query> {
    let mut query = query.clone();
    named_apart(&mut query);
    let rows = derived(Box::new(query), false, Ident::new(ROWS), named(columns));
    select(items, vec![rows])
}

/// Gives columns that are selected twice names of their own: a table of FROM must not have two of one name.
fn named_apart(query: &mut Query) {
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

fn named(columns: usize) -> Vec<Ident> {
    (1..=columns).map(|n| Ident::new(format!("__column_{n}"))).collect()
}

fn column(name: Ident) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::new(ROWS), name])
}

/// A comparison of a row with a subquery of one row.
fn compared_with_one(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryOp { left, op, right } = expr else {
        return None;
    };
    opposite(op)?;
    let (row, query, swapped) = sides(left, right)?;
    let theirs = Expr::Tuple(named(row.len()).into_iter().map(column).collect());
    let compared = match swapped {
        false => binary(tuple(&row), op.clone(), theirs),
        true => binary(theirs, op.clone(), tuple(&row)),
    };
    let item = SelectItem::ExprWithAlias {
        expr: compared,
        alias: Ident::new("__compared"),
    };
    Some(Expr::Subquery(of_rows(vec![item], query, row.len())))
}

/// A row that is written out and a subquery, and whether the subquery stands first.
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

fn chained(all: impl IntoIterator<Item = Expr>, op: BinaryOperator) -> Expr {
    let all = all.into_iter().reduce(|left, right| binary(left, op.clone(), right));
    all.expect("there is one at least")
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    nested(Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    })
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn not(expr: Expr) -> Expr {
    nested(Expr::UnaryOp {
        op: UnaryOperator::Not,
        expr: Box::new(expr),
    })
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
            assert_eq!(differ(&expr), columns, "{sql}");
        }
    }
}
