//! Builds the graph, in which equal subplans become one node.
//!
//! 1. A node's key is a form ([`encoding`]) of its operator, its output types and the hashes of its inputs. The
//!    key has no addresses, no aliases and no order of a hash map, so it is the same in every run.
//! 2. Nodes with equal keys are one node; its hash is that of the key.
//!
//! Column names are not part of a node's identity: expressions see columns by position.

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;

use super::encoding::{self, PlanHash, meaning_of};
use super::{AggregateCall, Expr, Node, NodeId, Op, SortKey, TemporalBound};

/// A node without its hash.
pub(super) struct Draft {
    pub op: Op,
    pub inputs: Vec<NodeId>,
    pub schema: SchemaRef,
    pub name: String,
    pub append_only: bool,
}

/// The nodes so far: each comes after its inputs, and no two are equal.
#[derive(Default)]
pub(super) struct Builder {
    pub nodes: Vec<Node>,
    known: HashMap<String, NodeId>,
}

impl Builder {
    /// Adds a node, or finds an equal one. `identity` identifies an input or a table; other nodes have none.
    pub fn add(&mut self, draft: Draft, identity: &str) -> NodeId {
        let own = format!("{} {}", op_form(&draft.op), encoding::quoted(identity));
        let inputs: Vec<PlanHash> = draft.inputs.iter().map(|&input| self.nodes[input].hash).collect();
        let key = encoding::node(&own, draft.schema.fields(), &inputs);
        if let Some(&node) = self.known.get(&key) {
            return node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            op: draft.op,
            inputs: draft.inputs,
            schema: draft.schema,
            name: draft.name,
            hash: meaning_of(&key),
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

fn forms(exprs: &[Expr]) -> String {
    let forms: Vec<String> = exprs.iter().map(encoding::positioned).collect();
    format!("({})", forms.join(" "))
}

fn optional(expr: &Option<Expr>) -> String {
    expr.as_ref().map_or("none".to_string(), encoding::positioned)
}

fn order_form(order: &[SortKey]) -> String {
    let keys = order
        .iter()
        .map(|key| encoding::sort_key(&key.expr, key.descending, key.nulls_first));
    format!("(order{})", keys.collect::<String>())
}

fn call_form(call: &AggregateCall) -> String {
    format!(
        " ({} {} {} {} {} {} {}{})",
        encoding::aggregate_kind(call.kind),
        encoding::quoted(call.function.fun().name()),
        forms(&call.args),
        optional(&call.filter),
        if call.distinct { "distinct" } else { "all" },
        if call.function.ignore_nulls() {
            "ignore-nulls"
        } else {
            "respect-nulls"
        },
        encoding::order(call.function.order_bys()),
        encoding::bound(call.most),
    )
}

/// The form (see [`encoding`]) of an operator.
pub(super) fn op_form(op: &Op) -> String {
    match op {
        Op::Input(_) => "input".to_string(),
        Op::Table(_) => "table".to_string(),
        Op::Mfp(mfp) => {
            let projection = mfp.projection.as_ref().map_or("all".to_string(), |p| forms(p));
            format!("(mfp {} {projection})", forms(&mfp.predicates))
        }
        Op::Join(join) => format!(
            "(join {} {} {} {} {})",
            encoding::join_kind(join.kind),
            forms(&join.left_keys),
            forms(&join.right_keys),
            optional(&join.residual),
            if join.null_equals_null {
                "null-equals-null"
            } else {
                "null-matches-nothing"
            },
        ),
        Op::Aggregate(aggregate) => {
            let calls = aggregate.aggregates.iter().map(call_form);
            format!("(aggregate {}{})", forms(&aggregate.group), calls.collect::<String>())
        }
        Op::Distinct => "distinct".to_string(),
        Op::TopK(top) => format!(
            "(top {} {} {} {} {} {} {})",
            forms(&top.partition),
            order_form(&top.order),
            top.ranked,
            top.offset,
            top.limit.map_or("all".to_string(), |limit| limit.to_string()),
            encoding::rank(top.rank),
            if top.output_rank { "ranked" } else { "unranked" },
        ),
        Op::Window(window) => {
            let functions = window.functions.iter().zip(&window.most).map(|(function, most)| {
                format!(
                    // The name says what the function computes, see `lower::window`.
                    " ({} {} {}{})",
                    encoding::quoted(function.name()),
                    encoding::order(function.order_by()),
                    encoding::frame(function.get_window_frame()),
                    encoding::bound(*most),
                )
            });
            format!(
                "(window {} {}{})",
                forms(&window.partition),
                order_form(&window.order),
                functions.collect::<String>()
            )
        }
        Op::Union => "union".to_string(),
        Op::Counted(kind) => format!("({}-all)", kind.word()),
        Op::Unnest(unnest) => {
            let columns = unnest.columns.iter().map(|(column, is_list)| match is_list {
                true => format!(" (items #{column})"),
                false => format!(" #{column}"),
            });
            let nulls = if unnest.preserve_nulls {
                "preserve-nulls"
            } else {
                "drop-nulls"
            };
            format!("(unnest {nulls}{})", columns.collect::<String>())
        }
        Op::Temporal(temporal) => {
            let bounds = |bounds: &[TemporalBound]| {
                let bounds = bounds.iter().map(|bound| {
                    let how = if bound.inclusive { "at" } else { "behind" };
                    format!(" ({how} {})", encoding::positioned(&bound.expr))
                });
                bounds.collect::<String>()
            };
            format!(
                "(temporal (lower{}) (upper{}))",
                bounds(&temporal.lower),
                bounds(&temporal.upper)
            )
        }
        Op::Recursive(recursive) => {
            let rows = if recursive.distinct { "distinct" } else { "all" };
            format!("(recursive {rows} {})", recursive.most_rounds)
        }
        Op::SoFar => "so-far".to_string(),
        Op::Constant(batch) => {
            let rows = (0..batch.num_rows()).map(|row| {
                let values = batch
                    .columns()
                    .iter()
                    .map(|column| encoding::item(column.as_ref(), row));
                format!(" ({})", values.collect::<Vec<_>>().join(" "))
            });
            format!("(constant{})", rows.collect::<String>())
        }
    }
}

/// The schema of rows without columns.
pub(super) fn no_columns() -> SchemaRef {
    SchemaRef::new(arrow::datatypes::Schema::empty())
}
