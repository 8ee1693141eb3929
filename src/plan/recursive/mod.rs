//! Recursive queries (WITH RECURSIVE).
//!
//! ```text
//! WITH RECURSIVE r AS (base UNION ALL step) SELECT ... FROM r
//!   base: is planned alone; its columns are those of r
//!   step: is planned alone, over a relation that holds the rows of the round before
//!   the SELECT: is planned over a relation that holds all rows of r
//! ```
//!
//! The standard defines the result as the rows of all rounds, where the step of each round reads the rows of
//! the round before. Every step that [`form`] allows is linear: applied to all rows so far, it yields the sum
//! of what it yields for each round's rows. So the result is the least `r = base + step(r)`, or with UNION `r =
//! distinct(base + step(r))`. The graph keeps that up to date incrementally; in batch it is computed round by
//! round ([`rounds`]).
//!
//! The columns have the base's types, as in PostgreSQL. The columns of the step are cast to them if no value is
//! lost, and refused otherwise.

mod form;
mod names;
mod rounds;

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{Expr as Logical, LogicalPlan, Projection, cast};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{Cte, Ident, Query, Visit, VisitMut, Visitor, VisitorMut};

use super::compile::Compiler;
use super::error::{Planned, Refusal};
use super::mistakes::Mistakes;
use super::numbers::NumberCoercion;
use super::{numbers, session};
use names::{all_of, name_items, within};

pub(super) use form::search_or_cycle;
pub use rounds::{OwnRows, own_rows};

/// The most equal rows of a recursive query. More than that are an error; paths through cycles make equal rows
/// without end.
pub const MOST_EQUAL: i64 = 1_000_000;

/// A recursive query in a table's SELECT.
pub struct Recursion {
    /// The relation of its rows, which the plans of the table and of later recursions scan.
    pub name: String,
    /// The relation of the rows of the round before, which `step` scans.
    pub before: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// The plan of the first round's rows.
    pub base: LogicalPlan,
    /// The plan of the rows that a round yields from those of the round before.
    pub step: LogicalPlan,
    /// Whether each row is kept once (UNION without ALL).
    pub distinct: bool,
    /// How many rounds may follow the first.
    pub most_rounds: u64,
}

impl Compiler<'_> {
    /// Plans the recursive queries of a table's SELECT, each after those that it reads. In `query` they are
    /// replaced by queries that read the relations of their rows.
    pub(super) fn recursions(&self, table: &str, query: &mut Query) -> Result<Vec<Recursion>, Mistakes> {
        if !is_recursive(query) {
            return Ok(vec![]);
        }
        let mut expansion = Expansion {
            compiler: self,
            table,
            visible: vec![],
            around: vec![],
            made: vec![],
        };
        match VisitMut::visit(query, &mut expansion) {
            ControlFlow::Continue(()) => Ok(expansion.made),
            ControlFlow::Break(mistakes) => Err(*mistakes),
        }
    }

    /// The step's plan with its columns cast to the base's types.
    fn step_as(&self, plan: LogicalPlan, schema: &SchemaRef, name: &Ident) -> Planned<LogicalPlan> {
        let refused = |reason: String, help: String| {
            let what = format!("could not plan the recursive query {:?}: {reason}", form::named(name));
            Refusal::new(what).help(help).at(Some(name.span))
        };
        let (made, wanted) = (plan.schema().fields().len(), schema.fields().len());
        if made != wanted {
            let reason = format!("its first part has {wanted} columns, its recursive part {made}");
            return Err(refused(reason, "select as many columns in both".to_string()).into());
        }
        let mut columns = Vec::with_capacity(wanted);
        for ((qualifier, field), to) in plan.schema().iter().zip(schema.fields()) {
            let column = Logical::Column(datafusion::common::Column::from((qualifier, field)));
            let (of, to_type) = (field.data_type(), to.data_type());
            if !becomes(of, to_type) {
                let (of, to_type) = (numbers::name_of(of), numbers::name_of(to_type));
                let reason = format!(
                    "its column {:?} is {to_type} in its first part and {of} in its recursive part",
                    to.name()
                );
                let help = format!("cast it to one type in both parts: CAST(... AS {of})");
                return Err(refused(reason, help).into());
            }
            let column = if of == to_type {
                column
            } else {
                cast(column, to_type.clone())
            };
            columns.push(column.alias(to.name()));
        }
        let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?);
        Ok(NumberCoercion.analyze(plan, self.context.state().config_options())?)
    }
}

/// Whether values of the step's type can be cast to the base's; a value that does not fit is an error of its row.
fn becomes(of: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Float32, Float64, Null, Timestamp};
    match (of, to) {
        (of, to) if of == to => true,
        (Null, _) => true,
        (of, to) if of.is_integer() && to.is_integer() => true,
        (of, Decimal128(..)) if of.is_integer() => true,
        (Decimal128(_, of), Decimal128(_, to)) => of <= to,
        (of, Float64) if of.is_integer() => true,
        (Decimal128(..) | Float32, Float64) => true,
        (Date32, Timestamp(_, None)) => true,
        _ => false,
    }
}

fn is_recursive(query: &Query) -> bool {
    struct Recursive;
    impl Visitor for Recursive {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            match &query.with {
                Some(with) if with.recursive => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(query, &mut Recursive).is_break()
}

/// Replaces the recursive queries of a SELECT.
struct Expansion<'a, 'c> {
    compiler: &'a Compiler<'c>,
    table: &'a str,
    /// For each enclosing query, its WITH queries that may be named here; recursive ones are already replaced.
    visible: Vec<Vec<Cte>>,
    /// For each enclosing query, the names in its FROM.
    around: Vec<Vec<String>>,
    made: Vec<Recursion>,
}

impl VisitorMut for Expansion<'_, '_> {
    type Break = Box<Mistakes>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Mistakes>> {
        self.visible.push(vec![]);
        self.around.push(names::of_from(&query.body));
        let Some(with) = &mut query.with else {
            return ControlFlow::Continue(());
        };
        let recursive = std::mem::replace(&mut with.recursive, false);
        if recursive && let Err(refusal) = form::sort(with) {
            return ControlFlow::Break(Box::new(refusal.into()));
        }
        for cte in &mut with.cte_tables {
            let name = form::named(&cte.alias.name);
            // Without RECURSIVE, a query that names itself means another relation further out.
            if !recursive || form::references(cte.query.as_ref(), &name).is_empty() {
                VisitMut::visit(&mut cte.query, self)?;
            } else if let Err(mistakes) = self.recursive(cte) {
                return ControlFlow::Break(Box::new(mistakes));
            }
            let innermost = self.visible.last_mut().expect("the query's own were pushed above");
            innermost.push(cte.clone());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Box<Mistakes>> {
        self.visible.pop();
        self.around.pop();
        ControlFlow::Continue(())
    }
}

impl Expansion<'_, '_> {
    /// Replaces the error if a part of a recursive query names a column of an enclosing query.
    fn outer_column_refused(&self, mistakes: Mistakes, name: &Ident) -> Mistakes {
        let Some(column) = mistakes.of_a_column() else {
            return mistakes;
        };
        let outer = |table: &str| self.around.iter().flatten().any(|known| known == table);
        if !column.relation.as_ref().is_some_and(|table| outer(table.table())) {
            return mistakes;
        }
        let what = format!(
            "could not use {:?} of an outer query in the recursive query {:?}: it would be another one for each outer row",
            column.flat_name(),
            form::named(name)
        );
        let help = "have it begin with the rows of that table, keep the column, and join its rows on it";
        Refusal::new(what).help(help).at(Some(name.span)).into()
    }

    /// Plans a recursive query, and replaces it by one that reads the relation of its rows.
    fn recursive(&mut self, cte: &mut Cte) -> Result<(), Mistakes> {
        let compiler = self.compiler;
        let is_aggregate = |name: &str| compiler.context.udaf(name).is_ok();
        let form::RecursiveParts {
            mut base,
            mut step,
            distinct,
        } = form::parts(cte, &is_aggregate)?;
        for part in [&mut base, &mut step] {
            if let ControlFlow::Break(mistakes) = VisitMut::visit(part, self) {
                return Err(*mistakes);
            }
        }
        let alias = cte.alias.clone();
        let columns: Vec<Ident> = alias.columns.iter().map(|column| column.name.clone()).collect();
        let base = name_items(base, &columns, &alias.name)?;
        let base = compiler.planned(Box::new(within(&self.visible, base)), None, &|plan| {
            compiler.named(plan, &[])
        });
        let (base, schema) = base.map_err(|mistakes| self.outer_column_refused(mistakes, &alias.name))?;
        let schema = nullable(&schema);

        let number = self.made.len() + 1;
        let relation = |what: &str| format!("{what} of {} {number} of {}", form::named(&alias.name), self.table);
        let (name, before) = (relation("rows"), relation("rows before"));
        let known = |name: &str| session::register(&compiler.context, None, name, schema.clone());
        known(&name).map_err(|error| Mistakes::Plan(error.into()))?;
        known(&before).map_err(|error| Mistakes::Plan(error.into()))?;

        let mut so_far = cte.clone();
        so_far.query = Box::new(all_of(&before));
        so_far.alias.columns.clear();
        let mut visible = self.visible.clone();
        visible.push(vec![so_far]);
        let names: Vec<Ident> = schema
            .fields()
            .iter()
            .map(|f| Ident::with_quote('"', f.name()))
            .collect();
        let step = names::name_plain_items(step, &names);
        let finish = |plan| Ok(compiler.finish(compiler.step_as(plan, &schema, &alias.name)?)?);
        let step = compiler.planned(Box::new(within(&visible, step)), None, &finish);
        let (step, _) = step.map_err(|mistakes| self.outer_column_refused(mistakes, &alias.name))?;

        *cte.query = all_of(&name);
        cte.alias.columns.clear();
        self.made.push(Recursion {
            name,
            before,
            schema,
            base,
            step,
            distinct,
            most_rounds: compiler.dataflow.bounds.max_rounds,
        });
        Ok(())
    }
}

/// Columns that have no nulls in the first round may have some in later rounds.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields: Vec<Field> = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}
