//! Finds the smallest question that is still answered wrongly. In each round, all smaller variants are asked together,
//! and the smallest one that differs is kept.

use std::ops::ControlFlow;
use std::sync::Arc;

use alluvium::plan::Standard;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Query, Select, SetExpr, Statement, UnaryOperator, visit_expressions_mut,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::random::{Found, Outcome, judge};
use super::subject::{Question, Ways};
use super::tables::Table;

const ROUNDS: usize = 12;
/// The most variants of one question that are asked in a round.
const AT_ONCE: usize = 12;

/// Shrinks each question as far as possible.
pub fn shrink(url: &str, mut found: Vec<Found>) -> Vec<Found> {
    let mut going: Vec<usize> = (0..found.len()).collect();
    for _ in 0..ROUNDS {
        let mut asked: Vec<(usize, Question)> = vec![];
        for &n in &going {
            asked.extend(smaller(&found[n].question).into_iter().map(|question| (n, question)));
        }
        let at_once = |n: usize| found[n].difference.way == "at once";
        let ways = if asked.iter().all(|(n, _)| at_once(*n)) {
            Ways::Once
        } else {
            Ways::All
        };
        let questions: Vec<Question> = asked.iter().map(|(_, question)| question.clone()).collect();
        let outcomes = judge(url, &questions, ways);
        let mut shrunk = vec![];
        for ((n, question), outcome) in asked.into_iter().zip(outcomes) {
            let Outcome::Wrong(difference) = outcome else { continue };
            if question.size() < found[n].question.size() && difference.way == found[n].difference.way {
                found[n].question = question;
                found[n].difference = difference;
                shrunk.push(n);
            }
        }
        going.retain(|n| shrunk.contains(n));
        if going.is_empty() {
            break;
        }
    }
    found
}

/// Smaller variants of a question, the smallest first.
fn smaller(question: &Question) -> Vec<Question> {
    let mut all: Vec<Question> = fewer_columns(question).into_iter().collect();
    let with = |tables: Vec<Table>| Question {
        tables: Arc::new(tables),
        sql: question.sql.clone(),
    };
    all.extend(fewer_rows(&question.tables).into_iter().map(with));
    let with = |sql: String| Question {
        tables: question.tables.clone(),
        sql,
    };
    all.extend(shorter(&question.sql).into_iter().map(with));
    all.retain(|one| one.size() < question.size());
    all.sort_by_key(Question::size);
    // The smallest variants are mostly right, so variants of all sizes are tried.
    let step = all.len().div_ceil(AT_ONCE).max(1);
    all.into_iter().step_by(step).collect()
}

/// Removes tables and columns that the statement does not name; if it means them by `*`, the answer may become right.
fn fewer_columns(question: &Question) -> Option<Question> {
    let named = |name: &str| {
        let name = regex::Regex::new(&format!(r"\b{name}\b")).expect("a name is a pattern");
        name.is_match(&question.sql)
    };
    let mut tables: Vec<Table> = question
        .tables
        .iter()
        .filter(|table| named(&table.name))
        .cloned()
        .collect();
    for table in &mut tables {
        let mut kept: Vec<bool> = table.columns.iter().map(|column| named(&column.name)).collect();
        if !kept.contains(&true) {
            kept[0] = true; // A table must have a column.
        }
        table.rows.iter_mut().for_each(|row| keep(row, &kept));
        keep(&mut table.columns, &kept);
    }
    let changed = tables != *question.tables;
    changed.then(|| Question {
        tables: Arc::new(tables),
        sql: question.sql.clone(),
    })
}

fn keep<T>(of: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    of.retain(|_| *kept.next().expect("there are as many"));
}

/// Half of a table's rows, or if there are few, all but one.
fn fewer_rows(tables: &[Table]) -> Vec<Vec<Table>> {
    let mut all = vec![];
    for (n, table) in tables.iter().enumerate() {
        let count = table.rows.len();
        let mut with = |rows: Vec<Vec<serde_json::Value>>| {
            let mut fewer = tables.to_vec();
            fewer[n].rows = rows;
            all.push(fewer);
        };
        if count > 1 {
            with(vec![]);
            with(table.rows[..count / 2].to_vec());
            with(table.rows[count / 2..].to_vec());
        }
        if count <= 6 {
            for out in 0..count {
                let rows = table.rows.iter().enumerate().filter(|(n, _)| *n != out);
                with(rows.map(|(_, row)| row.clone()).collect());
            }
        }
    }
    all
}

/// Shorter statements of the same kind.
fn shorter(sql: &str) -> Vec<String> {
    let Ok(mut statements) = Parser::parse_sql(&Standard, sql) else {
        return vec![];
    };
    let Some(Statement::Query(query)) = statements.pop() else {
        return vec![];
    };
    let mut all = vec![];
    let mut with = |change: &dyn Fn(&mut Query)| {
        let mut changed = query.clone();
        change(&mut changed);
        if changed != query {
            all.push(changed.to_string());
        }
    };
    with(&|query| query.order_by = None);
    with(&|query| query.limit_clause = None);
    let select = |query: &mut Query, change: &dyn Fn(&mut Select)| {
        if let SetExpr::Select(select) = query.body.as_mut() {
            change(select);
        }
    };
    with(&|query| select(query, &|s| s.selection = None));
    with(&|query| select(query, &|s| s.having = None));
    with(&|query| select(query, &|s| s.group_by = GroupByExpr::Expressions(vec![], vec![])));
    for n in 0..8 {
        with(&|query| {
            select(query, &|s| {
                if s.projection.len() > 1 && n < s.projection.len() {
                    s.projection.remove(n);
                }
            });
        });
    }
    for n in 0..24 {
        for part in 0..2 {
            with(&|query| {
                let mut seen = 0;
                let _ = visit_expressions_mut(query, |expr| {
                    if let Some(smaller) = part_of(expr, part) {
                        if seen == n {
                            *expr = smaller;
                            return ControlFlow::Break(());
                        }
                        seen += 1;
                    }
                    ControlFlow::Continue(())
                });
            });
        }
    }
    all.sort();
    all.dedup();
    all
}

/// A part of an expression that can replace it.
fn part_of(expr: &Expr, part: usize) -> Option<Expr> {
    match (expr, part) {
        (
            Expr::BinaryOp {
                left,
                op: BinaryOperator::And | BinaryOperator::Or,
                right,
            },
            _,
        ) => Some(if part == 0 { left } else { right }.as_ref().clone()),
        (
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            },
            0,
        ) => Some(expr.as_ref().clone()),
        (Expr::Nested(expr), 0) => Some(expr.as_ref().clone()),
        (Expr::InList { expr, list, negated }, _) if list.len() > 1 => {
            let at = if part == 0 { 0 } else { list.len() - 1 };
            Some(Expr::InList {
                expr: expr.clone(),
                list: vec![list[at].clone()],
                negated: *negated,
            })
        }
        _ => None,
    }
}

#[test]
fn a_statement_is_shortened_clause_by_clause() {
    let sql = "SELECT k, (v IN (1, 2)) AS c FROM t WHERE NOT (k = 1 AND v = 2) ORDER BY k LIMIT 3";
    let shorter = shorter(sql);
    for wanted in [
        "SELECT k FROM t WHERE NOT (k = 1 AND v = 2) ORDER BY k LIMIT 3",
        "SELECT k, (v IN (1, 2)) AS c FROM t ORDER BY k LIMIT 3",
        "SELECT k, (v IN (2)) AS c FROM t WHERE NOT (k = 1 AND v = 2) ORDER BY k LIMIT 3",
        "SELECT k, (v IN (1, 2)) AS c FROM t WHERE NOT (v = 2) ORDER BY k LIMIT 3",
    ] {
        assert!(shorter.iter().any(|one| one == wanted), "{wanted} of {shorter:#?}");
    }
}

#[test]
fn columns_that_are_not_named_go() {
    let table = |name: &str| Table::parse(name, "a BIGINT, k BIGINT, v BIGINT", &serde_json::json!([[1, 2, 3]]));
    let sql = "SELECT x.k FROM t AS x WHERE x.v = 1".to_string();
    let question = Question {
        tables: Arc::new(vec![table("t"), table("u")]),
        sql,
    };
    let fewer = fewer_columns(&question).expect("there is less");
    assert_eq!(fewer.tables.len(), 1);
    assert_eq!(fewer.tables[0].columns_in_sql(), "k BIGINT, v BIGINT");
    assert_eq!(fewer.tables[0].rows, [[2, 3]]);
}
