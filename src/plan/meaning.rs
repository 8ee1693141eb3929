//! What nodes and columns mean, as hashes that outlive a restart and an edit elsewhere.
//!
//! [`super::Node::hash`] tells subplans of one graph apart, column positions included. A meaning also survives a column
//! that comes to an input: what is picked out of an input is named, not numbered, and who reads an input as it is picks all
//! of it. Equal meaning, equal rows for equal input; what an input's records mean is the input's own matter.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use twox_hash::XxHash3_64;

use super::compile::{input_identity, table_identity};
use super::share::{expr_key_by, op_key};
use super::{Expr, Graph, Node, Op};
use crate::definition::Dataflow;

/// By node: what it computes.
pub fn meanings(dataflow: &Dataflow, graph: &Graph) -> Vec<u64> {
    let mut meanings: Vec<u64> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let picked = picked(graph, node);
        let own = match &node.op {
            Op::Input(input) => input_identity(&dataflow.inputs[*input]),
            Op::Table(table) => table_identity(&dataflow.tables[graph.tables[*table].table]),
            op => picked.clone().unwrap_or_else(|| op_key(op)),
        };
        let inputs = node.inputs.iter().map(|input| match (&graph.nodes[*input], &picked) {
            (read, None) if matches!(read.op, Op::Input(_)) => {
                hash(&pick(&[], &all(read), read), read, &[meanings[*input]])
            }
            _ => meanings[*input],
        });
        let inputs: Vec<u64> = inputs.collect();
        meanings.push(hash(&own, node, &inputs));
    }
    meanings
}

fn hash(own: &str, node: &Node, inputs: &[u64]) -> u64 {
    let types = node.schema.fields().iter();
    let types: Vec<String> = match &node.op {
        Op::Input(_) if inputs.is_empty() => vec![], // columns may come to it
        _ => types
            .map(|f| format!("{:?} {}", f.data_type(), f.is_nullable()))
            .collect(),
    };
    let inputs: Vec<String> = inputs.iter().map(|input| format!("{input:016x}")).collect();
    XxHash3_64::oneshot(format!("{own} ({}) <- [{}]", types.join(", "), inputs.join(", ")).as_bytes())
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

/// What a node looks at of its input, where that is less than the whole row.
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

/// What a node picks of an input.
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
        let name = format!("{} {:?} {}", field.name(), field.data_type(), field.is_nullable());
        Arc::new(Column::new(&name, 0)) as Arc<dyn PhysicalExpr>
    };
    let key = |exprs: &[Expr]| {
        exprs
            .iter()
            .map(|expr| expr_key_by(expr, name))
            .collect::<Vec<_>>()
            .join("; ")
    };
    format!("pick [{}] [{}]", key(predicates), key(projection))
}
