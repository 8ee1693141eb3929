//! Recursive queries (WITH RECURSIVE).
//!
//! ```text
//! WITH RECURSIVE r AS (base UNION ALL step) SELECT ... FROM r
//!   base: planned by itself, it says what columns r has
//!   step: planned by itself, over a relation that holds the rows of r before
//!   the rest: planned over a relation that holds all rows of r
//! ```
//!
//! The standard has it that a round's step sees the rows of the round before, and that the answer is the rows of all
//! rounds. A step that may be written ([`form`]) is linear in them: what it makes of all rows so far is what it makes of
//! each round's. So the answer is the least `r = base + step(r)`, with UNION `r = distinct(base + step(r))`, which is
//! what is kept incrementally; in batch it is computed round by round ([`rounds`]).
//!
//! The columns are of the base's types, as in PostgreSQL: what the step yields is converted where nothing is lost by it,
//! and refused otherwise.

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
use super::numbers::Agreed;
use super::{numbers, session};
use names::{all_of, name_items, within};

pub(super) use form::search_or_cycle;
pub use rounds::{OwnRows, own_rows};

/// How many equal rows a recursive query may have; more, which paths through cycles make without end, are an error.
pub const MOST_EQUAL: i64 = 1_000_000;

/// A recursive query of a table's SELECT.
pub struct Recursion {
    /// The relation that holds its rows, as plans of the table and of recursions behind this one scan it.
    pub name: String,
    /// The relation that holds the rows of the round before, as `step` scans it.
    pub before: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// What it begins with.
    pub base: LogicalPlan,
    /// What a round adds.
    pub step: LogicalPlan,
    /// Whether each row is kept once.
    pub distinct: bool,
    /// After how many rounds it ends.
    pub most_rounds: u64,
}

impl Compiler<'_> {
    /// Plans the recursive queries of a table's SELECT, each behind those that it reads; in the SELECT they become
    /// queries that read the relations which hold their rows.
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

    /// A step's plan, which yields columns as the base has them.
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
        Ok(Agreed.analyze(plan, self.context.state().config_options())?)
    }
}

/// Whether a value of the step's type is one of the base's, or an error of the row.
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

/// Takes recursive queries out of a SELECT.
struct Expansion<'a, 'c> {
    compiler: &'a Compiler<'c>,
    table: &'a str,
    /// The WITH queries that can be named, by the queries that have them, without recursive ones.
    visible: Vec<Vec<Cte>>,
    /// What the FROMs of the same queries name.
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
            // Without RECURSIVE a query's own name is that of another one, further out.
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
    /// Says so where a part of a recursive query names a column of a query around it.
    fn told(&self, mistakes: Mistakes, name: &Ident) -> Mistakes {
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

    /// Plans a recursive query and reads its rows in its place.
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
        let (base, schema) = base.map_err(|mistakes| self.told(mistakes, &alias.name))?;
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
        let (step, _) = step.map_err(|mistakes| self.told(mistakes, &alias.name))?;

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

/// Rows of any round may have nulls where those of the first have none.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields: Vec<Field> = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}
