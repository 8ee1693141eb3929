//! A second opinion on a table: evaluates its SQL as written, with code that the run does not use.
//!
//! ```text
//! SQL text --parser--> tree --bind.rs, select.rs, from.rs--> Query --query.rs, row by row--> rows, to compare
//!                                    \-- trust.rs: constructs that are not judged, with the reason
//! ```
//!
//! It follows the definition of SQL step by step, over single values with the types of `docs/src/sql/supported.md`: a
//! subquery is evaluated for each row that needs it, a condition in three-valued logic, a number digit by digit. There
//! is no rewriting, no optimiser, no type coercion by DataFusion, and no operator with state. It shares little with
//! the run:
//!
//! 1. the parser, except that operators which the parser's PostgreSQL dialect binds differently are not judged; and
//!    the names of TUMBLE, HOP and SESSION, which become plain SQL (`plan::written_query`);
//! 2. single-row functions that are not implemented in [`functions`]; the report names those that a table calls;
//! 3. the rows: those of an input as the run decoded them, and those of a table that is read as they were recomputed.
//!    So each table is judged by itself, and a fault is reported for the table that has it.
//!
//! The alternatives were:
//!
//! - DataFusion's planner with its own rules, over the SQL as written. It is wrong in just those places that the run
//!   rewrites (NOT IN beside OR, decimals beside literals, integer overflow), so its opinion would have to be ignored
//!   wherever the run's rewriting might be wrong.
//! - DataFusion's planner after the run's type coercion, with subqueries evaluated for each row. It supports more, for
//!   instance all windows and functions, but a decimal with a wrong type would be wrong in both.

mod aggregate;
mod arrow;
mod bind;
mod calls;
mod convert;
mod expr;
mod from;
mod functions;
mod groups;
mod joined;
mod number;
mod operators;
mod order;
mod predicates;
mod query;
mod scope;
mod select;
#[cfg(test)]
mod tests;
mod time;
mod trust;
mod types;
mod value;
mod window;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ::arrow::array::RecordBatch;
use ::arrow::datatypes::SchemaRef;

use self::bind::Binder;
use self::expr::{RowEnv, Term};
use self::functions::Functions;
use self::query::{Budget, Ctes, Planner, SourceRows};
use self::scope::{Scope, ScopeColumn};
pub use self::trust::Unjudged;
use self::value::ScalarType;
use super::Relation;
use crate::contain::contain;
use crate::definition::{OnViolation, Table};
use crate::plan;
use crate::repr::Epoch;

/// The most rows that are computed, one by one, for one table.
const STEPS: usize = 50_000_000;
/// Bytes of a value without the data that it refers to, including its share of a row.
const CELL: usize = 64;

/// The result of evaluating a table's SQL.
pub struct Opinion {
    /// The rows, in the table's types, without those that expectations drop.
    pub rows: RecordBatch,
    /// Columns whose type differs by the SQL: the column, and the type by the SQL.
    pub types: Vec<(String, String)>,
    /// The run's functions that were called.
    pub shared: Vec<String>,
}

/// SQL with more bytes is not judged: programs generate chains of operators that are too deep for recursion.
const LONGEST: usize = 16 << 10;

/// A table to evaluate.
pub struct Question<'a> {
    /// The table's definition.
    pub table: &'a Table,
    /// The table's columns, as the run keeps them.
    pub schema: &'a SchemaRef,
    /// The value of `now()`.
    pub epoch: Epoch,
    /// The most bytes that rows may take.
    pub memory: u64,
    /// Returns the rows of an input or table by its name.
    pub relation: &'a dyn Fn(&str) -> Option<&'a Relation>,
}

impl Question<'_> {
    /// The opinion, or why there is none.
    pub fn answer(&self) -> Result<Opinion, Unjudged> {
        contain(|| self.work_out())
            .unwrap_or_else(|panic| Err(Unjudged::construct(format!("what is not foreseen: {panic}"))))
    }

    fn work_out(&self) -> Result<Opinion, Unjudged> {
        if self.table.sql.len() > LONGEST {
            return Err(Unjudged::Size);
        }
        let written = plan::written_query(&self.table.sql).ok_or(Unjudged::Reading)?;
        if written.otherwise {
            return Err(Unjudged::Reading);
        }
        let memory = Budget::new(usize::try_from(self.memory).unwrap_or(usize::MAX));
        let source = |name: &str| -> Result<Rc<SourceRows>, Unjudged> {
            let relation = (self.relation)(name).ok_or_else(|| Unjudged::Name(name.to_string()))?;
            let fields = relation.schema.fields().iter();
            let columns: Vec<(String, ScalarType)> = fields
                .map(|f| (f.name().clone(), arrow::type_of(f.data_type())))
                .collect();
            let cells: usize = relation
                .rows
                .iter()
                .map(|rows| rows.num_rows() * rows.num_columns())
                .sum();
            let bytes: usize = relation.rows.iter().map(RecordBatch::get_array_memory_size).sum();
            memory.spend(cells.saturating_mul(CELL).saturating_add(bytes))?;
            let rows = Rc::new(arrow::rows(&relation.rows)?);
            Ok(Rc::new(SourceRows { columns, rows }))
        };
        let planner = Planner {
            source: &source,
            functions: Functions::new(plan::batch_context()),
            now: i64::try_from(self.epoch).unwrap_or(i64::MAX).saturating_mul(1000),
            budget: Budget::new(STEPS),
            trace: RefCell::default(),
        };
        let query = planner.query(&written.query, None, &Ctes::new())?;
        let fields = self.schema.fields();
        if query.columns.len() != fields.len() {
            return Err(Unjudged::construct("a number of columns that is not the table's"));
        }
        let mut types = vec![];
        for (column, field) in query.columns.iter().zip(fields) {
            let stored = arrow::type_of(field.data_type());
            if column.of != stored
                && column.of != ScalarType::Null
                // SQL leaves open how wide a whole number is stored.
                && !matches!(
                    (&column.of, &stored),
                    (ScalarType::Arrow(_), ScalarType::Arrow(_)) | (ScalarType::Int(_), ScalarType::Int(_))
                )
            {
                types.push((field.name().clone(), column.of.name()));
            }
        }
        if !types.is_empty() {
            let rows = RecordBatch::new_empty(self.schema.clone());
            let shared = planner.functions.shared();
            return Ok(Opinion { rows, types, shared });
        }
        let mut rows = query.rows(None)?.to_vec();
        for row in &rows {
            for cell in row {
                time::within(cell.clone())?;
            }
        }
        for condition in self.expectations(&planner)? {
            let mut passing = Vec::with_capacity(rows.len());
            for row in rows {
                let env = RowEnv {
                    row: &row,
                    parent: None,
                };
                if !matches!(condition.eval(&env)?, value::Scalar::Bool(false)) {
                    passing.push(row);
                }
            }
            rows = passing;
        }
        Ok(Opinion {
            rows: arrow::batch(&rows, self.schema)?,
            types,
            shared: planner.functions.shared(),
        })
    }

    /// The conditions that drop rows, over the table's columns.
    fn expectations(&self, planner: &Planner<'_>) -> Result<Vec<Term>, Unjudged> {
        let column = |field: &Arc<::arrow::datatypes::Field>| ScopeColumn {
            table: None,
            name: field.name().clone(),
            of: arrow::type_of(field.data_type()),
            open: true,
        };
        let scope = Scope {
            columns: self.schema.fields().iter().map(column).collect(),
            grouped: None,
            parent: None,
            depth: 0,
            trace: &planner.trace,
        };
        let ctes = Ctes::new();
        let binder = Binder {
            planner,
            scope: &scope,
            ctes: &ctes,
            groups: None,
            windows: None,
        };
        let dropping = self
            .table
            .expectations
            .iter()
            .filter(|e| e.on_violation == OnViolation::Drop);
        let conditions = dropping.map(|expectation| {
            let written = plan::written_condition(&expectation.check).ok_or(Unjudged::Reading)?;
            binder.condition(&written)
        });
        conditions.collect()
    }
}
