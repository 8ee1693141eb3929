//! Replaces positions in DISTINCT ON, ROLLUP, CUBE and GROUPING SETS by the columns that stand there: `SELECT DISTINCT
//! ON (1) a, b FROM t` becomes `SELECT DISTINCT ON (a) a, b FROM t`.
//!
//! As in PostgreSQL, a whole number is a position in the SELECT list, and any other constant is an error. DataFusion
//! knows positions in a plain GROUP BY alone. Elsewhere it takes a constant for a value that is equal in all rows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, GroupByExpr, Select, SelectItem, Spanned, Value, VisitMut, VisitorMut,
};

use super::error::Refusal;
use super::syntax;

/// Replaces the positions in a statement of a live query. An error has a message and its remedy.
///
/// # Errors
/// A constant is not the position of a column.
pub fn places_asked(sql: &mut impl VisitMut) -> Result<(), (String, String)> {
    replace_positions(sql).map_err(Refusal::into_texts)
}

/// Replaces the positions. Refuses a constant that is not the position of a column.
pub(super) fn replace_positions(sql: &mut impl VisitMut) -> Result<(), Refusal> {
    Refusal::of_visit(sql.visit(&mut Selects))
}

struct Selects;

impl VisitorMut for Selects {
    type Break = Box<Refusal>;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Refusal>> {
        if let Some(Distinct::On(columns)) = &mut select.distinct {
            replace(columns.iter_mut(), &select.projection, |column| {
                no_place(column, &format!("DISTINCT ON ({column})"), "DISTINCT ON (a) a, b")
            })?;
        }
        if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
            for group in groups {
                let columns = match group {
                    Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => sets.iter_mut().flatten(),
                    _ => continue,
                };
                replace(columns, &select.projection, |column| {
                    no_place(
                        column,
                        &format!("position {column} of GROUP BY"),
                        "GROUP BY ROLLUP (a, b)",
                    )
                })?;
            }
        }
        ControlFlow::Continue(())
    }
}

fn replace<'a>(
    columns: impl Iterator<Item = &'a mut Expr>,
    items: &[SelectItem],
    refusal: impl Fn(&Expr) -> Refusal,
) -> ControlFlow<Box<Refusal>> {
    for column in columns {
        let Some(constant) = syntax::constant(column) else {
            continue;
        };
        match at_place(&constant.value, items) {
            Some(of) => *column = of.clone(),
            None => return ControlFlow::Break(Box::new(refusal(column))),
        }
    }
    ControlFlow::Continue(())
}

/// The column at a position. `None` if a `*` stands at or before it, as the number of its columns depends on
/// the tables.
fn at_place<'a>(place: &Value, items: &'a [SelectItem]) -> Option<&'a Expr> {
    let Value::Number(place, _) = place else { return None };
    let place = place.parse::<usize>().ok()?.checked_sub(1)?;
    if !items.iter().take(place + 1).all(syntax::is_one_column) {
        return None;
    }
    match items.get(place)? {
        SelectItem::UnnamedExpr(of) | SelectItem::ExprWithAlias { expr: of, .. } => Some(of),
        _ => None,
    }
}

fn no_place(column: &Expr, what: &str, instead: &str) -> Refusal {
    Refusal::new(format!("could not plan {what}: no column is written at that place"))
        .help(format!("write the column itself: {instead}"))
        .at(Some(column.span()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn places_are_columns_and_other_constants_are_refused() {
        let written = |sql: &str| {
            let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
            replace_positions(&mut statements[0]).map(|()| statements[0].to_string())
        };
        for (sql, other) in [
            (
                "SELECT a, b, count(*) AS n FROM t GROUP BY ROLLUP (2, (1, b))",
                "SELECT a, b, count(*) AS n FROM t GROUP BY ROLLUP (b, (a, b))",
            ),
            (
                "SELECT DISTINCT ON (2, (1), b) a, a + 1 AS b FROM t",
                "SELECT DISTINCT ON (a + 1, a, b) a, a + 1 AS b FROM t",
            ),
            (
                "SELECT x FROM (SELECT DISTINCT ON (1) x, * FROM t) AS u",
                "SELECT x FROM (SELECT DISTINCT ON (x) x, * FROM t) AS u",
            ),
        ] {
            assert_eq!(written(sql).unwrap(), other);
        }
        for sql in [
            "SELECT DISTINCT ON (1) * FROM t",
            "SELECT DISTINCT ON (2) *, a FROM t",
            "SELECT DISTINCT ON (0) a FROM t",
            "SELECT DISTINCT ON (2) a FROM t",
            "SELECT DISTINCT ON ('a') a FROM t",
            "SELECT DISTINCT ON (1.5) a FROM t",
            "SELECT DISTINCT ON (NULL) a FROM t",
        ] {
            assert!(written(sql).is_err(), "{sql}");
        }
    }
}
