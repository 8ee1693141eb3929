//! Restricts queries: one statement that only reads, within limits of memory and time.
//!
//! 1. A statement is checked before it is planned: it must be one SELECT, VALUES, WITH, EXPLAIN, SHOW or DESCRIBE,
//!    with no other kind inside. Statements that write, set or open files are refused by name. The session has no
//!    table functions that read files, and does not treat a path as a table.
//! 2. The type TIMESTAMP has microseconds, like the lake's columns: with DataFusion's nanoseconds, a condition could
//!    not name a moment after the year 2262.
//! 3. A query runs on threads of its own. When its time is over it is given up, whether or not one of its kernels ever
//!    returns; such a thread ends with the process.

use std::ops::ControlFlow;
use std::time::Duration;

use chrono::Utc;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, Statement as Parsed};
use datafusion::sql::sqlparser::ast::{Query, Select, SetExpr, Statement, Visit, Visitor};
use thiserror::Error;

use crate::definition::Bounds;
use crate::plan::{
    PARSER_DEPTH, Standard, asked_at, decimals, fetch_as_limit, flatten_asked, laterals_asked, lengths, marked,
    microseconds, operators, paths_asked, places_asked, tokens_asked, windows_asked, without_using, write_out,
};

/// The limits of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionLimits {
    /// The most time; none: no limit.
    pub time: Option<Duration>,
    /// The most bytes of memory for the computation, and the same again for the answer; none: no limit.
    pub memory: Option<u64>,
    /// The most bytes of one computed value.
    pub max_value: u64,
}

impl Default for QuestionLimits {
    fn default() -> Self {
        QuestionLimits {
            time: None,
            memory: None,
            max_value: Bounds::default().max_value,
        }
    }
}

/// Why a statement is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QuestionError {
    /// It would do something other than read.
    #[error("could not run {0}: a query only reads; tables change by the dataflow's SQL and its feeds alone")]
    NotRead(String),
    /// There is no statement, or there are several.
    #[error("could not run {0} statements at once")]
    NotOne(usize),
    /// Its operations are nested or chained too deep: the problem, and the remedy.
    #[error("{0}; {1}")]
    TooDeep(String, String),
    /// A constant of DISTINCT ON does not name a column of the SELECT list, or a path into JSON cannot be read: the
    /// problem, and the remedy.
    #[error("{0}; {1}")]
    Place(String, String),
    /// A window table function is called wrongly, or a named window does not exist or repeats a clause of the window
    /// that it builds on: the problem, and the remedy.
    #[error("{0}; {1}")]
    Window(String, String),
    /// The result columns of a function in FROM, or of an ASOF JOIN, cannot be determined: the problem, and the
    /// remedy.
    #[error("{0}; {1}")]
    Lateral(String, String),
}

/// Plans a statement that only reads.
///
/// # Errors
/// The SQL is wrong, or does something other than read.
pub(super) async fn plan(context: &SessionContext, sql: &str) -> Result<LogicalPlan, DataFusionError> {
    let statement = statement(context, sql)?;
    let plan = marked(context.state().statement_to_plan(statement).await?)?;
    let plan = asked_at(plan, u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default())?;
    // The plan is checked too: it would reveal kinds of statements that the first check does not know.
    let reads = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    reads.verify_plan(&plan)?;
    Ok(plan)
}

/// Parses the statement, checks that it only reads, and returns it in the form that is planned.
fn statement(context: &SessionContext, sql: &str) -> Result<Parsed, DataFusionError> {
    let refused = |refused: QuestionError| DataFusionError::External(Box::new(refused));
    let tokens = tokens_asked(sql).map_err(|(what, help)| refused(QuestionError::Window(what, help)))?;
    let builder = match tokens {
        Some(tokens) => DFParserBuilder::new(tokens),
        None => DFParserBuilder::new(sql),
    };
    let mut parser = builder
        .with_dialect(&Standard)
        .with_recursion_limit(PARSER_DEPTH)
        .build()?;
    let mut statements = parser.parse_statements()?;
    let count = statements.len();
    let (Some(mut statement), 1) = (statements.pop_front(), count) else {
        return Err(refused(QuestionError::NotOne(count)));
    };
    only_reads(&statement).map_err(refused)?;
    let mut inner = &mut statement;
    while let Parsed::Explain(explain) = inner {
        inner = &mut explain.statement;
    }
    if let Parsed::Statement(statement) = inner {
        if let Statement::Query(query) = statement.as_mut() {
            flatten_asked(query).map_err(|(what, help)| refused(QuestionError::TooDeep(what, help)))?;
            windows_asked(query.as_mut()).map_err(|(what, help)| refused(QuestionError::Window(what, help)))?;
        }
        paths_asked(statement.as_ref()).map_err(|(what, help)| refused(QuestionError::Place(what, help)))?;
        places_asked(statement.as_mut()).map_err(|(what, help)| refused(QuestionError::Place(what, help)))?;
        laterals_asked(statement.as_mut()).map_err(|(what, help)| refused(QuestionError::Lateral(what, help)))?;
        fetch_as_limit(statement.as_mut());
        write_out(statement.as_mut());
        microseconds(statement.as_mut());
        decimals(statement.as_mut());
        operators(statement.as_mut());
        if let Statement::Query(query) = statement.as_mut() {
            without_using(query, &context.state());
        }
        lengths(statement.as_mut());
    }
    Ok(statement)
}

/// Checks (1).
fn only_reads(statement: &Parsed) -> Result<(), QuestionError> {
    match statement {
        Parsed::Statement(statement) => check_reads_only(statement),
        Parsed::Explain(explain) => only_reads(&explain.statement),
        Parsed::CreateExternalTable(_) => Err(QuestionError::NotRead("CREATE EXTERNAL TABLE".to_string())),
        Parsed::CopyTo(_) => Err(QuestionError::NotRead("COPY".to_string())),
        other => Err(not_read(other)),
    }
}

fn check_reads_only(statement: &Statement) -> Result<(), QuestionError> {
    match statement {
        Statement::Query(query) => match Visit::visit(query.as_ref(), &mut WriteFinder) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(what) => Err(QuestionError::NotRead(what)),
        },
        Statement::Explain { statement, .. } => check_reads_only(statement),
        Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowFunctions { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowCreate { .. }
        | Statement::ShowViews { .. }
        | Statement::ShowSchemas { .. }
        | Statement::ShowDatabases { .. } => Ok(()),
        other => Err(not_read(other)),
    }
}

fn not_read(statement: &impl ToString) -> QuestionError {
    let text = statement.to_string();
    QuestionError::NotRead(text.split_whitespace().next().unwrap_or_default().to_uppercase())
}

/// Finds statements inside a query that do something other than read.
struct WriteFinder;

impl Visitor for WriteFinder {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let mut pending = vec![query.body.as_ref()];
        while let Some(body) = pending.pop() {
            match body {
                SetExpr::SetOperation { left, right, .. } => pending.extend([left.as_ref(), right.as_ref()]),
                SetExpr::Insert(_) => return ControlFlow::Break("INSERT".to_string()),
                SetExpr::Update(_) => return ControlFlow::Break("UPDATE".to_string()),
                SetExpr::Delete(_) => return ControlFlow::Break("DELETE".to_string()),
                SetExpr::Merge(_) => return ControlFlow::Break("MERGE".to_string()),
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        match select.into {
            Some(_) => ControlFlow::Break("SELECT INTO".to_string()),
            None => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(sql: &str) -> Option<QuestionError> {
        let mut parser = DFParserBuilder::new(sql).with_dialect(&Standard).build().unwrap();
        only_reads(&parser.parse_statements().unwrap()[0]).err()
    }

    #[test]
    fn what_reads_is_run_and_all_else_is_refused_by_its_name() {
        for sql in [
            "SELECT 1",
            "VALUES (1), (2)",
            "WITH a AS (SELECT 1 AS x) SELECT x FROM a UNION ALL SELECT 2",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "SHOW ALL",
            "DESCRIBE silver.t",
            "(SELECT 1)",
        ] {
            assert_eq!(refusal(sql), None, "{sql}");
        }
        for (sql, verb) in [
            ("INSERT INTO silver.t SELECT 1", "INSERT"),
            ("INSERT OVERWRITE silver.t SELECT 1", "INSERT"),
            ("WITH a AS (SELECT 1) INSERT INTO silver.t SELECT * FROM a", "INSERT"),
            ("UPDATE silver.t SET x = 1", "UPDATE"),
            ("DELETE FROM silver.t", "DELETE"),
            (
                "MERGE INTO silver.t USING silver.u ON t.x = u.x WHEN MATCHED THEN DELETE",
                "MERGE",
            ),
            ("TRUNCATE TABLE silver.t", "TRUNCATE"),
            ("COPY silver.t TO 'x.parquet'", "COPY"),
            ("COPY (SELECT 1) TO 'x.csv'", "COPY"),
            (
                "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
                "CREATE EXTERNAL TABLE",
            ),
            ("CREATE TABLE x AS SELECT 1", "CREATE"),
            ("CREATE VIEW x AS SELECT 1", "CREATE"),
            ("DROP TABLE silver.t", "DROP"),
            ("ALTER TABLE silver.t ADD COLUMN x INT", "ALTER"),
            ("SET datafusion.execution.batch_size = 1", "SET"),
            ("RESET datafusion.execution.batch_size", "RESET"),
            ("EXPLAIN INSERT INTO silver.t SELECT 1", "INSERT"),
            ("EXPLAIN ANALYZE INSERT INTO silver.t SELECT 1", "INSERT"),
            ("EXPLAIN COPY silver.t TO 'x.parquet'", "COPY"),
            ("SELECT 1 INTO x", "SELECT INTO"),
            ("BEGIN", "BEGIN"),
            ("COMMIT", "COMMIT"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("EXECUTE p", "EXECUTE"),
            ("USE x", "USE"),
        ] {
            assert_eq!(refusal(sql), Some(QuestionError::NotRead(verb.to_string())), "{sql}");
        }
    }
}
