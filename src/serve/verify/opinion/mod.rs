//! A second opinion on a table: its SQL, worked out as it is written by other code than the run's.
//!
//! ```text
//! SQL text --parser--> tree --bind.rs, select.rs, from.rs--> Query --query.rs, row by row--> rows     compared with the table
//!                                    \-- trust.rs: what is not judged, with its reason
//! ```
//!
//! It follows the definition of SQL step by step, over single values with the types of `docs/sql.md`: a subquery is
//! evaluated for each row that asks it, a condition in three-valued logic, a number digit by digit. There is no rewriting, no
//! optimiser, no agreement on types by DataFusion, and no operator that keeps anything. What it shares with the run is little:
//!
//! 1. the parser, but for operators that PostgreSQL's dialect of it binds otherwise, which are not judged; and the names of
//!    TUMBLE, HOP and SESSION, which become plain SQL (`plan::written_query`);
//! 2. functions of one row's values that are not written in [`functions`]; the report names those that a table calls;
//! 3. the rows: an input's as the run decoded them, and those of a table that is read as they were recomputed. So a table is
//!    judged by itself, and a fault is told of the table that has it.
//!
//! Other ways would have been:
//!
//! - DataFusion's planner with its own rules, over the SQL as it is written. It is wrong by itself in the very places that the
//!   run rewrites (NOT IN beside OR, decimals beside literals, whole numbers that run over), so that its opinion would have to be
//!   passed over wherever the run's rewriting might be wrong.
//! - DataFusion's planner behind the run's agreement on types, with subqueries evaluated for each row. It answers more,
//!   windows and all functions, but a decimal that is typed wrongly would be wrong in both.

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
use self::expr::{Env, Ex};
use self::functions::Functions;
use self::query::{Budget, Ctes, Planner, Source};
use self::scope::{Column, Scope};
pub use self::trust::Unjudged;
use self::value::Type;
use super::Relation;
use crate::contain::contain;
use crate::definition::{OnViolation, Table};
use crate::plan;
use crate::repr::Epoch;

/// Rows are computed one by one, up to so many in all.
const STEPS: usize = 50_000_000;
/// Bytes that a value takes beside what it refers to, with its share of a row.
const CELL: usize = 64;

/// What a table's SQL yields.
pub struct Opinion {
    /// The rows, in the table's types, less those that expectations drop.
    pub rows: RecordBatch,
    /// Columns whose type is another one by the SQL: the column, and that type.
    pub types: Vec<(String, String)>,
    /// The run's functions that were called.
    pub shared: Vec<String>,
}

/// Bytes of SQL above which a statement is not judged: programs write chains of operators that are too deep to be walked.
const LONGEST: usize = 16 << 10;

/// Works a table out.
pub struct Question<'a> {
    /// The table.
    pub table: &'a Table,
    /// Its columns, as the run keeps them.
    pub schema: &'a SchemaRef,
    /// The time of `now()`.
    pub epoch: Epoch,
    /// How many bytes its rows may take.
    pub memory: u64,
    /// The rows of inputs and tables.
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
        let source = |name: &str| -> Result<Rc<Source>, Unjudged> {
            let relation = (self.relation)(name).ok_or_else(|| Unjudged::Name(name.to_string()))?;
            let fields = relation.schema.fields().iter();
            let columns: Vec<(String, Type)> = fields
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
            Ok(Rc::new(Source { columns, rows }))
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
            let kept = arrow::type_of(field.data_type());
            if column.of != kept
                && column.of != Type::Null
                // How wide a whole number is kept, SQL leaves open.
                && !matches!(
                    (&column.of, &kept),
                    (Type::Whole(_), Type::Whole(_)) | (Type::Int(_), Type::Int(_))
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
            let mut kept = Vec::with_capacity(rows.len());
            for row in rows {
                let env = Env {
                    row: &row,
                    parent: None,
                };
                if !matches!(condition.eval(&env)?, value::Value::Bool(false)) {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        Ok(Opinion {
            rows: arrow::batch(&rows, self.schema)?,
            types,
            shared: planner.functions.shared(),
        })
    }

    /// The conditions that drop rows, over the table's columns.
    fn expectations(&self, planner: &Planner<'_>) -> Result<Vec<Ex>, Unjudged> {
        let column = |field: &Arc<::arrow::datatypes::Field>| Column {
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
