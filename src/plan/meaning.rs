//! What nodes and columns mean, as hashes that stay equal over restarts and over edits elsewhere in the dataflow.
//!
//! [`super::Node::hash`] identifies subplans within one graph, and depends on column positions. A meaning also
//! stays equal when an input gets a new column: columns of an input are identified by name, and a node that
//! reads an input as it is counts as reading each of its columns. Nodes with equal meanings yield equal rows
//! for equal inputs; how an input makes rows of records is not part of a meaning.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Fields;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::Column;

use super::compile::{input_identity, table_identity};
use super::encoding::{self, PlanHash, meaning_of};
use super::share::op_form;
use super::{Expr, Graph, Node, Op};
use crate::definition::Dataflow;

/// The meaning of each node, by its position.
pub fn meanings(dataflow: &Dataflow, graph: &Graph) -> Vec<PlanHash> {
    let mut meanings: Vec<PlanHash> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let picked = picked(graph, node);
        let own = match &node.op {
            Op::Input(input) => input_identity(&dataflow.inputs[*input]),
            Op::Table(table) => table_identity(&dataflow.tables[graph.tables[*table].table]),
            op => picked.clone().unwrap_or_else(|| op_form(op)),
        };
        let inputs = node.inputs.iter().map(|input| match (&graph.nodes[*input], &picked) {
            (read, None) if matches!(read.op, Op::Input(_)) => {
                hash(&pick(&[], &all(read), read), read, &[meanings[*input]])
            }
            _ => meanings[*input],
        });
        let inputs: Vec<PlanHash> = inputs.collect();
        meanings.push(hash(&own, node, &inputs));
    }
    meanings
}

fn hash(own: &str, node: &Node, inputs: &[PlanHash]) -> PlanHash {
    let no_fields = Fields::empty();
    let fields = match &node.op {
        Op::Input(_) if inputs.is_empty() => &no_fields, // the input may get more columns
        _ => node.schema.fields(),
    };
    meaning_of(&encoding::node(own, fields, inputs))
}

/// The columns of an input that the graph looks at, by position.
pub fn used_columns(graph: &Graph, input: usize) -> BTreeSet<usize> {
    let mut used = BTreeSet::new();
    for (position, node) in graph.nodes.iter().enumerate() {
        let Op::Input(of) = node.op else { continue };
        if of != input {
            continue;
        }
        let all = 0..node.schema.fields().len();
        if graph.tables.iter().any(|table| table.node == position) {
            return all.collect();
        }
        for reader in graph.nodes.iter().filter(|reader| reader.inputs.contains(&position)) {
            match looked_at(reader) {
                Some(exprs) => exprs.iter().for_each(|expr| columns(expr, &mut used)),
                None => return all.collect(),
            }
        }
    }
    used
}

/// The expressions over its input that a node evaluates; `None` if it reads the whole row.
fn looked_at(node: &Node) -> Option<Vec<Expr>> {
    match &node.op {
        Op::Mfp(mfp) => {
            let projection = mfp.projection.as_ref()?;
            Some(mfp.predicates.iter().chain(projection).cloned().collect())
        }
        Op::Aggregate(aggregate) => {
            let calls = aggregate.aggregates.iter().flat_map(|call| {
                let order = call.function.order_bys().iter().map(|key| key.expr.clone());
                call.args
                    .iter()
                    .chain(&call.filter)
                    .cloned()
                    .chain(call.function.expressions())
                    .chain(order)
            });
            Some(aggregate.group.iter().cloned().chain(calls).collect())
        }
        _ => None,
    }
}

fn columns(expr: &Expr, used: &mut BTreeSet<usize>) {
    let looked = expr.apply(|e| {
        used.extend(e.downcast_ref::<Column>().map(Column::index));
        Ok(TreeNodeRecursion::Continue)
    });
    looked.expect("looking does not fail");
}

/// The form of a filter and projection right above an input; `None` for other nodes.
fn picked(graph: &Graph, node: &Node) -> Option<String> {
    let Op::Mfp(mfp) = &node.op else { return None };
    let input = &graph.nodes[node.inputs[0]];
    let projection = mfp.projection.clone().unwrap_or_else(|| all(input));
    matches!(input.op, Op::Input(_)).then(|| pick(&mfp.predicates, &projection, input))
}

/// All columns of a node.
fn all(node: &Node) -> Vec<Expr> {
    let fields = node.schema.fields().iter().enumerate();
    fields
        .map(|(index, field)| Arc::new(Column::new(field.name(), index)) as Expr)
        .collect()
}

fn pick(predicates: &[Expr], projection: &[Expr], input: &Node) -> String {
    let name = |column: &Column| {
        let field = input.schema.field(column.index());
        format!(
            "(field {} {})",
            encoding::quoted(field.name()),
            encoding::field_type(field)
        )
    };
    let forms = |exprs: &[Expr]| {
        let forms = exprs.iter().map(|expr| encoding::expression(expr, &name));
        forms.collect::<Vec<_>>().join(" ")
    };
    format!("(pick ({}) ({}))", forms(predicates), forms(projection))
}
