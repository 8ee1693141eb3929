//! The graph while it grows: equal subplans become one node.
//!
//! 1. A node's key is a text of its operator, its output types and its inputs' hashes; it holds no addresses,
//!    no aliases and no order of a hash map, so it is the same in every run.
//! 2. Its hash is the xxh3 of that key. Equal key, same node.
//!
//! Column names are not part of a node's identity: expressions see columns by position.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalSortExpr, ScalarFunctionExpr};
use twox_hash::XxHash3_64;

use super::guard::Guarded;
use super::{Expr, Node, NodeId, Op, SortKey};
use crate::definition::Bounds;

/// A node to be, but for its hash.
pub(super) struct Draft {
    pub op: Op,
    pub inputs: Vec<NodeId>,
    pub schema: SchemaRef,
    pub name: String,
    pub append_only: bool,
}

/// Nodes, each behind its inputs, and each only once.
#[derive(Default)]
pub(super) struct Builder {
    pub nodes: Vec<Node>,
    known: HashMap<String, NodeId>,
}

impl Builder {
    /// The node that computes this, new or known. `identity` names what an input or a table is.
    pub fn add(&mut self, draft: Draft, identity: &str) -> NodeId {
        let inputs: Vec<String> = draft
            .inputs
            .iter()
            .map(|&input| format!("{:016x}", self.nodes[input].hash))
            .collect();
        let types: Vec<String> = draft
            .schema
            .fields()
            .iter()
            .map(|f| format!("{:?}{}", f.data_type(), if f.is_nullable() { "?" } else { "" }))
            .collect();
        let key = format!(
            "{}{identity} ({}) <- [{}]",
            op_key(&draft.op),
            types.join(", "),
            inputs.join(", ")
        );
        if let Some(&node) = self.known.get(&key) {
            return node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            op: draft.op,
            inputs: draft.inputs,
            schema: draft.schema,
            name: draft.name,
            hash: XxHash3_64::oneshot(key.as_bytes()),
            append_only: draft.append_only,
        });
        self.known.insert(key, node);
        node
    }

    /// The output columns of a node.
    pub fn schema(&self, node: NodeId) -> &SchemaRef {
        &self.nodes[node].schema
    }
}

/// What an expression computes, as text: columns by position, literals with their types.
pub(super) fn expr_key(expr: &Expr) -> String {
    expr_key_by(expr, |column| Arc::new(Column::new("", column.index())))
}

/// What an expression computes, as text: columns as they are renamed, literals with their types.
pub(super) fn expr_key_by(expr: &Expr, rename: impl Fn(&Column) -> Expr) -> String {
    let mut literals = Vec::new();
    let bare = expr
        .clone()
        .transform_up(|e| {
            Ok(match e.downcast_ref::<Column>() {
                Some(column) => Transformed::yes(rename(column)),
                None => Transformed::no(e),
            })
        })
        .data()
        .expect("renaming columns does not fail");
    bare.apply(|e| {
        if let Some(literal) = e.downcast_ref::<Literal>() {
            literals.push(format!("{:?}", literal.value()));
        }
        let limit = e
            .downcast_ref::<ScalarFunctionExpr>()
            .and_then(|call| Guarded::limit_of(call.fun()));
        if let Some(limit) = unusual(limit) {
            literals.push(format!("{limit} bytes"));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("looking does not fail");
    if literals.is_empty() {
        bare.to_string()
    } else {
        format!("{bare} with {}", literals.join(" "))
    }
}

/// A limit that is not the usual one: with that a node keeps the hash that it had before there was one.
fn unusual(limit: Option<u64>) -> Option<u64> {
    limit.filter(|limit| *limit != Bounds::default().max_value)
}

fn limit_key(limit: Option<u64>) -> String {
    unusual(limit).map_or(String::new(), |limit| format!(" {limit} bytes"))
}

fn keys(exprs: &[Expr]) -> String {
    exprs.iter().map(expr_key).collect::<Vec<_>>().join("; ")
}

fn optional(expr: &Option<Expr>) -> String {
    expr.as_ref().map(expr_key).unwrap_or_default()
}

fn order_key(order: &[SortKey]) -> String {
    let keys: Vec<String> = order
        .iter()
        .map(|k| format!("{} {} {}", expr_key(&k.expr), k.descending, k.nulls_first))
        .collect();
    keys.join("; ")
}

fn sort_key(order: &[PhysicalSortExpr]) -> String {
    let keys: Vec<String> = order
        .iter()
        .map(|k| {
            format!(
                "{} {} {}",
                expr_key(&k.expr),
                k.options.descending,
                k.options.nulls_first
            )
        })
        .collect();
    keys.join("; ")
}

/// What an operator does, as text.
pub(super) fn op_key(op: &Op) -> String {
    match op {
        Op::Input(_) => "input ".to_string(),
        Op::Table(_) => "table ".to_string(),
        Op::Mfp(mfp) => format!(
            "mfp [{}] [{}]",
            keys(&mfp.predicates),
            mfp.projection.as_ref().map_or("*".to_string(), |p| keys(p)),
        ),
        Op::Join(join) => format!(
            "join {:?} [{}] [{}] [{}] {}",
            join.kind,
            keys(&join.left_keys),
            keys(&join.right_keys),
            optional(&join.residual),
            join.null_equals_null,
        ),
        Op::Aggregate(aggregate) => {
            let calls: Vec<String> = aggregate
                .aggregates
                .iter()
                .map(|call| {
                    format!(
                        "{:?} {}[{}] [{}] {} {} [{}]{}",
                        call.kind,
                        call.function.fun().name(),
                        keys(&call.args),
                        optional(&call.filter),
                        call.distinct,
                        call.function.ignore_nulls(),
                        sort_key(call.function.order_bys()),
                        limit_key(call.most),
                    )
                })
                .collect();
            format!("aggregate [{}] [{}]", keys(&aggregate.group), calls.join("; "))
        }
        Op::Distinct => "distinct".to_string(),
        Op::TopK(top) => format!(
            "top [{}] [{}] {} {} {:?} {:?} {}",
            keys(&top.partition),
            order_key(&top.order),
            top.ranked,
            top.offset,
            top.limit,
            top.rank,
            top.output_rank,
        ),
        Op::Window(window) => {
            let functions: Vec<String> = window
                .functions
                .iter()
                .zip(&window.most)
                .map(|(f, most)| {
                    format!(
                        // Its name is what it computes, see `lower::window`.
                        "{} [{}] {}{}",
                        f.name(),
                        sort_key(f.order_by()),
                        f.get_window_frame(),
                        limit_key(*most),
                    )
                })
                .collect();
            format!(
                "window [{}] [{}] [{}]",
                keys(&window.partition),
                order_key(&window.order),
                functions.join("; ")
            )
        }
        Op::Union => "union".to_string(),
        Op::Counted(kind) => format!("{} all", kind.word()),
        Op::Unnest(unnest) => format!("unnest {:?} {}", unnest.columns, unnest.preserve_nulls),
        Op::Temporal(temporal) => {
            let bounds = |bounds: &[super::Bound]| {
                let keys: Vec<String> = bounds
                    .iter()
                    .map(|b| format!("{} {}", expr_key(&b.expr), b.inclusive))
                    .collect();
                keys.join("; ")
            };
            format!("temporal [{}] [{}]", bounds(&temporal.lower), bounds(&temporal.upper))
        }
        Op::Recursive(recursive) => format!("recursive {} {}", recursive.distinct, recursive.most_rounds),
        Op::SoFar => "so far".to_string(),
        Op::Constant(batch) => format!("constant {} {:?}", batch.num_rows(), batch.columns()),
    }
}

/// The schema of rows without columns.
pub(super) fn no_columns() -> SchemaRef {
    Arc::new(arrow::datatypes::Schema::empty())
}
