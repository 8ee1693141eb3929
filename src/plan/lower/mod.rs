//! Lowers an optimised logical plan to nodes: one dispatch, and one file for each kind of operator.
//!
//! Every node has exactly the columns of its logical plan, in the same order, with normalised types.
//! Expressions find columns by the logical plan's names, and refer to them by position.

mod aggregate;
mod constant;
mod expr;
mod join;
mod limit;
mod mfp;
mod recursive;
mod unnest;
mod window;

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{Distinct, LogicalPlan, TableScan, UserDefinedLogicalNodeCore};

use super::error::{Planned, Refusal};
use super::sets::SetOperation;
use super::share::{Builder, Draft};
use super::{NodeId, Op, session};
use crate::repr::normalise_schema;

pub(super) use expr::physical;
pub(super) use limit::unordered;

/// Lowers plans into one graph that grows with each plan.
pub(super) struct Lowering<'a> {
    pub builder: &'a mut Builder,
    /// The nodes of inputs and tables, by their names in SQL.
    pub sources: &'a HashMap<String, NodeId>,
    /// The nodes of the recursive queries of the table that is being lowered, by their relations.
    pub own: HashMap<String, NodeId>,
    /// The most bytes that a computed value may take.
    pub max_value: u64,
}

impl Lowering<'_> {
    /// The node that computes `plan`.
    pub fn lower(&mut self, plan: &LogicalPlan) -> Planned<NodeId> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Extension(extension) if let Some(set) = SetOperation::from_extension(extension) => {
                self.counted(set)
            }
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::EmptyRelation(empty) => self.empty(empty),
            LogicalPlan::Values(values) => self.values(values),
            // A table has no order, so a sort has no effect.
            LogicalPlan::Sort(sort) => self.lower(&sort.input),
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let node = self.lower(input)?;
                Ok(self.distinct(node))
            }
            other => Err(Refusal::new(format!(
                "could not keep this part of the query up to date: {}",
                other.display()
            ))
            .into()),
        }
    }

    fn scan(&mut self, scan: &TableScan) -> Planned<NodeId> {
        let name = session::source_name(&scan.table_name);
        let source = *self
            .own
            .get(&name)
            .or_else(|| self.sources.get(&name))
            .ok_or_else(|| Refusal::new(format!("could not find {name:?}")).near(scan.table_name.table()))?;
        let Some(columns) = &scan.projection else {
            return Ok(source);
        };
        let schema = self.builder.schema(source).clone();
        let projection = columns.iter().map(|&c| expr::column(&schema, c)).collect();
        let output = output(&LogicalPlan::TableScan(scan.clone()));
        Ok(self.map(source, projection, output))
    }

    fn union(&mut self, union: &datafusion::logical_expr::Union) -> Planned<NodeId> {
        let schema = normalise_schema(union.schema.as_arrow());
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let node = self.lower(input)?;
            inputs.push(self.conform(node, &schema)?);
        }
        Ok(self.union_of(inputs, schema))
    }

    /// Lowers EXCEPT ALL and INTERSECT ALL. Without ALL they have become joins.
    fn counted(&mut self, set: &SetOperation) -> Planned<NodeId> {
        let schema = normalise_schema(set.schema().as_arrow());
        let sides = [&set.left, &set.right].map(|side| {
            let node = self.lower(side)?;
            self.conform(node, &schema)
        });
        let [left, right] = sides;
        let verb = format!("{}-all", set.kind.word());
        Ok(self.add(Op::Counted(set.kind), vec![left?, right?], schema, &verb, false))
    }

    fn union_of(&mut self, inputs: Vec<NodeId>, schema: SchemaRef) -> NodeId {
        let append_only = inputs.iter().all(|&i| self.builder.nodes[i].append_only);
        self.add(Op::Union, inputs, schema, "union", append_only)
    }

    fn distinct(&mut self, input: NodeId) -> NodeId {
        let schema = self.builder.schema(input).clone();
        let append_only = self.builder.nodes[input].append_only;
        self.add(Op::Distinct, vec![input], schema, "distinct", append_only)
    }

    /// Adds a node, and names it after its verb and its sources.
    fn add(&mut self, op: Op, inputs: Vec<NodeId>, schema: SchemaRef, verb: &str, append_only: bool) -> NodeId {
        let sources: Vec<String> = inputs.iter().map(|&i| self.source_names(i)).collect();
        let mut sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        if !matches!(op, Op::Join(_) | Op::Counted(_)) {
            sources.dedup();
        }
        let name = match sources.as_slice() {
            [] => verb.to_string(),
            names => format!("{verb} {}", names.join(" x ")),
        };
        let draft = Draft {
            op,
            inputs,
            schema,
            name,
            append_only,
        };
        self.builder.add(draft, "")
    }

    /// The inputs and tables that a node reads, as they stand in names: `order_lines`, `order_lines x products`.
    fn source_names(&self, node: NodeId) -> String {
        let node = &self.builder.nodes[node];
        match node.op {
            Op::Input(_) | Op::Table(_) => node.name.clone(),
            _ => node
                .name
                .split_once(' ')
                .map_or(String::new(), |(_, sources)| sources.to_string()),
        }
    }
}

/// The columns of the node for a plan.
fn output(plan: &LogicalPlan) -> SchemaRef {
    normalise_schema(plan.schema().as_arrow())
}
