//! Reads SQL as the user wrote it, for the opinion of `verify`, which works out a query by other means than the
//! plan. Only window table functions are rewritten, because no parser knows them.

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Expr, Query, Statement as SqlStatement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::dialect::Standard;
use super::{refuse, shape, windows};

/// A query as the user wrote it.
pub struct WrittenQuery {
    /// The query as the run's dialect reads it.
    pub query: Box<Query>,
    /// Whether sqlparser's dialect of PostgreSQL reads the SQL as another tree. False also where that dialect
    /// cannot read the SQL.
    pub otherwise: bool,
}

/// Reads the query of a table; `None` if it cannot be parsed.
pub fn written_query(sql: &str) -> Option<WrittenQuery> {
    let tokens = windows::tokenize(sql).ok()?;
    let as_written = tokens.len();
    let tokens = windows::rewrite(tokens).ok()?;
    let is_plain = tokens.len() == as_written;
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(&Standard)
        .with_recursion_limit(shape::PARSER_DEPTH)
        .build()
        .ok()?;
    let statements: Vec<Statement> = parser.parse_statements().ok()?.into();
    let query = refuse::query(statements).ok()?;
    let other = is_plain.then(|| postgresql(sql)).flatten();
    let otherwise = other.is_some_and(|other| other != query && !compares_distinct(&query));
    Some(WrittenQuery { query, otherwise })
}

/// Whether a query has IS DISTINCT FROM. sqlparser's PostgreSQL dialect takes all that follows for the right
/// side, which PostgreSQL itself does not, so such queries are not compared.
fn compares_distinct(query: &Query) -> bool {
    struct Distinct;
    impl Visitor for Distinct {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    query.visit(&mut Distinct).is_break()
}

fn postgresql(sql: &str) -> Option<Box<Query>> {
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(shape::PARSER_DEPTH);
    let mut statements = parser.try_with_sql(sql).ok()?.parse_statements().ok()?;
    match statements.pop() {
        Some(SqlStatement::Query(query)) if statements.is_empty() => Some(query),
        _ => None,
    }
}

/// Reads a condition; `None` if it cannot be parsed.
pub fn written_condition(sql: &str) -> Option<Expr> {
    let parser = DFParserBuilder::new(sql)
        .with_dialect(&Standard)
        .with_recursion_limit(shape::PARSER_DEPTH)
        .build();
    Some(parser.ok()?.parse_into_expr().ok()?.expr)
}
