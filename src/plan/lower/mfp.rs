//! Lowers filters and projections: consecutive ones become one Mfp, and predicates on now() become Temporal.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr as Logical, Filter, LogicalPlan, Projection};
use datafusion::physical_expr::expressions::{Column, Literal};

use super::{Lowering, expr};
use crate::plan::error::Planned;
use crate::plan::{Expr, Mfp, NodeId, Op, Temporal, TemporalBound, Unnest, now};
use crate::repr::normalise_schema;

impl Lowering<'_> {
    pub(super) fn projection(&mut self, projection: &Projection) -> Planned<NodeId> {
        // If only the filter below uses a rank, the top-k need not yield it.
        if let LogicalPlan::Filter(filter) = projection.input.as_ref()
            && let Some(node) = self.top_of_groups(filter, &projection.expr)?
        {
            return self.project(node, projection);
        }
        let node = self.lower(&projection.input)?;
        self.project(node, projection)
    }

    pub(super) fn project(&mut self, node: NodeId, projection: &Projection) -> Planned<NodeId> {
        let logical = projection.input.schema();
        let actual = self.builder.schema(node).clone();
        let exprs = projection
            .expr
            .iter()
            .map(|e| expr::physical(e, logical, &actual))
            .collect::<Planned<Vec<_>>>()?;
        Ok(self.map(node, exprs, normalise_schema(projection.schema.as_arrow())))
    }

    pub(super) fn filter(&mut self, filter: &Filter) -> Planned<NodeId> {
        let all: Vec<Logical> = filter
            .input
            .schema()
            .columns()
            .into_iter()
            .map(Logical::Column)
            .collect();
        if let Some(node) = self.top_of_groups(filter, &all)? {
            return Ok(node);
        }
        let node = self.lower(&filter.input)?;
        self.keep(node, &split_conjunction(&filter.predicate), filter.input.schema())
    }

    /// Keeps the rows of `node` for which all conditions are true.
    pub(super) fn keep(&mut self, node: NodeId, conditions: &[&Logical], logical: &DFSchema) -> Planned<NodeId> {
        let actual = self.builder.schema(node).clone();
        let (timed, plain): (Vec<&Logical>, Vec<&Logical>) = conditions.iter().partition(|c| now::mentions_now(c));
        let predicates = plain
            .into_iter()
            .map(|c| expr::physical_as(c, logical, &actual, &DataType::Boolean))
            .collect::<Planned<Vec<_>>>()?;
        let mut node = node;
        if !predicates.is_empty() {
            node = self.mfp(
                node,
                Mfp {
                    predicates,
                    projection: None,
                },
                actual.clone(),
            );
        }
        if !timed.is_empty() {
            node = self.temporal(node, &timed, logical)?;
        }
        Ok(node)
    }

    fn temporal(&mut self, node: NodeId, conditions: &[&Logical], logical: &DFSchema) -> Planned<NodeId> {
        let actual = self.builder.schema(node).clone();
        let mut moments = now::NowBounds::default();
        for condition in conditions {
            now::solve(condition, &mut moments)?;
        }
        let bounds = |moments: Vec<(Logical, bool)>| {
            moments
                .into_iter()
                .map(|(moment, inclusive)| {
                    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
                    Ok(TemporalBound {
                        expr: expr::physical_as(&moment, logical, &actual, &timestamp)?,
                        inclusive,
                    })
                })
                .collect::<Planned<Vec<_>>>()
        };
        let temporal = Temporal {
            lower: bounds(moments.lower)?,
            upper: bounds(moments.upper)?,
        };
        let mut node = node;
        if !temporal.lower.is_empty() || !temporal.upper.is_empty() {
            let append_only = self.builder.nodes[node].append_only && temporal.upper.is_empty();
            node = self.add(Op::Temporal(temporal), vec![node], actual, "temporal", append_only);
        }
        for (from, to) in moments.stretches {
            node = self.stretches(node, [&from, &to], logical)?;
        }
        Ok(node)
    }

    /// Keeps rows that come and go several times: unnests the lists of moments, and keeps a copy of the row for
    /// each stretch. Stretches do not overlap, so at most one copy exists at a time.
    fn stretches(&mut self, node: NodeId, ends: [&Logical; 2], logical: &DFSchema) -> Planned<NodeId> {
        let actual = self.builder.schema(node).clone();
        let moment = DataType::Timestamp(TimeUnit::Microsecond, None);
        let list = DataType::List(Arc::new(Field::new_list_field(moment.clone(), true)));
        let with = |of: &DataType| {
            let ends = ["comes", "has gone"].map(|name| Arc::new(Field::new(name, of.clone(), true)));
            let fields: Vec<FieldRef> = actual.fields().iter().cloned().chain(ends).collect();
            Arc::new(Schema::new(fields))
        };
        let own: Vec<Expr> = (0..actual.fields().len()).map(|n| expr::column(&actual, n)).collect();
        let mut columns = own.clone();
        for end in ends {
            columns.push(expr::physical_as(end, logical, &actual, &list)?);
        }
        let listed = self.map(node, columns, with(&list));
        let taken = |n: usize| (n, n >= actual.fields().len());
        let unnest = Unnest {
            columns: (0..actual.fields().len() + 2).map(taken).collect(),
            preserve_nulls: false,
        };
        let append_only = self.builder.nodes[listed].append_only;
        let schema = with(&moment);
        let each = self.add(Op::Unnest(unnest), vec![listed], schema.clone(), "unnest", append_only);
        let bound = |n: usize, inclusive| TemporalBound {
            expr: expr::column(&schema, actual.fields().len() + n),
            inclusive,
        };
        let temporal = Temporal {
            lower: vec![bound(0, true)],
            upper: vec![bound(1, false)],
        };
        let stays = self.add(Op::Temporal(temporal), vec![each], schema.clone(), "temporal", false);
        let own = (0..actual.fields().len()).map(|n| expr::column(&schema, n)).collect();
        Ok(self.map(stays, own, actual))
    }

    /// Computes the columns of `schema` from those of a node.
    pub(super) fn map(&mut self, input: NodeId, columns: Vec<Expr>, schema: SchemaRef) -> NodeId {
        let mfp = Mfp {
            predicates: vec![],
            projection: Some(columns),
        };
        self.mfp(input, mfp, schema)
    }

    /// Adds an Mfp, or fuses it with the Mfp that it reads.
    pub(super) fn mfp(&mut self, input: NodeId, mfp: Mfp, schema: SchemaRef) -> NodeId {
        let (input, mfp) = match &self.builder.nodes[input].op {
            Op::Mfp(inner) => match fuse(inner, &mfp) {
                Some(fused) => (self.builder.nodes[input].inputs[0], fused),
                None => (input, mfp),
            },
            _ => (input, mfp),
        };
        if mfp.predicates.is_empty() && is_identity(&mfp.projection, self.builder.schema(input), &schema) {
            return input;
        }
        let append_only = self.builder.nodes[input].append_only;
        let verb = match (&mfp.projection, mfp.predicates.is_empty()) {
            (None, _) => "filter",
            (Some(_), true) => "map",
            (Some(_), false) => "filter-map",
        };
        self.add(Op::Mfp(mfp), vec![input], schema, verb, append_only)
    }

    /// Casts a node's columns to the types of `schema` where they differ.
    pub(in crate::plan) fn conform(&mut self, node: NodeId, schema: &SchemaRef) -> Planned<NodeId> {
        let actual = self.builder.schema(node).clone();
        let same = actual
            .fields()
            .iter()
            .zip(schema.fields())
            .all(|(a, b)| a.data_type() == b.data_type());
        if same {
            return Ok(node);
        }
        let exprs = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(n, field)| expr::cast_to(expr::column(&actual, n), &actual, field.data_type()))
            .collect::<Planned<Vec<_>>>()?;
        Ok(self.map(node, exprs, schema.clone()))
    }
}

fn is_identity(projection: &Option<Vec<Expr>>, input: &SchemaRef, output: &SchemaRef) -> bool {
    let same_types = || {
        input
            .fields()
            .iter()
            .zip(output.fields())
            .all(|(a, b)| a.data_type() == b.data_type())
    };
    match projection {
        None => true,
        Some(exprs) => {
            exprs.len() == input.fields().len()
                && exprs
                    .iter()
                    .enumerate()
                    .all(|(n, e)| e.downcast_ref::<Column>().is_some_and(|c| c.index() == n))
                && same_types()
        }
    }
}

/// `outer` over the input of `inner`; `None` if the fused node would compute an expression twice.
fn fuse(inner: &Mfp, outer: &Mfp) -> Option<Mfp> {
    let mut predicates = inner.predicates.clone();
    let Some(columns) = &inner.projection else {
        predicates.extend(outer.predicates.iter().cloned());
        return Some(Mfp {
            predicates,
            projection: outer.projection.clone(),
        });
    };
    let mut uses = vec![0usize; columns.len()];
    for e in outer.predicates.iter().chain(outer.projection.iter().flatten()) {
        e.apply(|e| {
            if let Some(column) = e.downcast_ref::<Column>() {
                uses[column.index()] += 1;
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .expect("looking does not fail");
    }
    let simple = |e: &Expr| e.downcast_ref::<Column>().is_some() || e.downcast_ref::<Literal>().is_some();
    if columns.iter().zip(&uses).any(|(e, &uses)| uses > 1 && !simple(e)) {
        return None;
    }
    // A condition on a computed column is not fused: conditions in front may guard the computation.
    if !outer.predicates.is_empty() && columns.iter().any(|e| !simple(e)) {
        return None;
    }
    let substitute = |e: &Expr| {
        e.clone()
            .transform_up(|e| {
                Ok(match e.downcast_ref::<Column>() {
                    Some(column) => Transformed::yes(Arc::clone(&columns[column.index()])),
                    None => Transformed::no(e),
                })
            })
            .data()
            .expect("substituting a column does not fail")
    };
    predicates.extend(outer.predicates.iter().map(substitute));
    let projection = match &outer.projection {
        Some(exprs) => exprs.iter().map(substitute).collect(),
        None => columns.clone(),
    };
    Some(Mfp {
        predicates,
        projection: Some(projection),
    })
}
