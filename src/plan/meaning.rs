//! What nodes and columns mean, as hashes that outlive a restart and an edit elsewhere.
//!
//! [`super::Node::hash`] tells subplans of one graph apart, column positions included. A meaning also survives a column
//! that comes to an input: what is picked out of an input is named, not numbered. Equal meaning, equal rows for equal
//! input; what an input's records mean is the input's own matter.

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
        let types = node
            .schema
            .fields()
            .iter()
            .map(|f| format!("{:?} {}", f.data_type(), f.is_nullable()));
        let types = types.collect::<Vec<_>>().join(", ");
        let own = match &node.op {
            Op::Input(input) => input_identity(&dataflow.inputs[*input]),
            Op::Table(table) => table_identity(&dataflow.tables[graph.tables[*table].table]),
            op => named(graph, node).unwrap_or_else(|| {
                // Positions are those of an input's columns: all of them count.
                let inputs = node.inputs.iter().map(|input| &graph.nodes[*input]);
                let inputs = inputs.filter(|input| matches!(input.op, Op::Input(_)));
                let columns: Vec<String> = inputs.map(|input| format!("{:?}", input.schema.fields())).collect();
                format!("{} over {columns:?}", op_key(op))
            }),
        };
        let types = match &node.op {
            Op::Input(_) => String::new(),
            _ => types,
        };
        let inputs: Vec<String> = node
            .inputs
            .iter()
            .map(|input| format!("{:016x}", meanings[*input]))
            .collect();
        let key = format!("{own} ({types}) <- [{}]", inputs.join(", "));
        meanings.push(XxHash3_64::oneshot(key.as_bytes()));
    }
    meanings
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

/// A projection of an input's columns, which are named.
fn named(graph: &Graph, node: &Node) -> Option<String> {
    let Op::Mfp(mfp) = &node.op else { return None };
    let input = &graph.nodes[node.inputs[0]];
    let projection = mfp.projection.as_ref().filter(|_| matches!(input.op, Op::Input(_)))?;
    let key = |exprs: &[Expr]| {
        let name = |column: &Column| {
            let field = input.schema.field(column.index());
            let name = format!("{} {:?} {}", field.name(), field.data_type(), field.is_nullable());
            Arc::new(Column::new(&name, 0)) as Arc<dyn PhysicalExpr>
        };
        let keys: Vec<String> = exprs.iter().map(|expr| expr_key_by(expr, name)).collect();
        keys.join("; ")
    };
    Some(format!("mfp [{}] [{}]", key(&mfp.predicates), key(projection)))
}
