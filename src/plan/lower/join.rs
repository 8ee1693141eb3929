//! Lowers joins. Right semi-, anti- and mark joins are mirrored into left ones.

use arrow::datatypes::{DataType, Schema};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr as Logical, Join as LogicalJoin, LogicalPlan};

use super::{Lowering, expr, output};
use crate::plan::error::Planned;
use crate::plan::{Join, JoinKind, NodeId, Op, now};
use crate::repr::normalise_schema;

/// Both sides of a join. Of a semi-, anti- or mark join, `left` is the side whose rows are kept.
struct Sides<'a> {
    left: NodeId,
    right: NodeId,
    left_schema: &'a DFSchema,
    right_schema: &'a DFSchema,
}

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &LogicalJoin) -> Planned<NodeId> {
        let (kind, mirrored) = match join.join_type {
            JoinType::Inner => (JoinKind::Inner, false),
            JoinType::Left => (JoinKind::Left, false),
            JoinType::Right => (JoinKind::Right, false),
            JoinType::Full => (JoinKind::Full, false),
            JoinType::LeftSemi => (JoinKind::LeftSemi, false),
            JoinType::LeftAnti => (JoinKind::LeftAnti, false),
            JoinType::LeftMark => (JoinKind::LeftMark, false),
            JoinType::RightSemi => (JoinKind::LeftSemi, true),
            JoinType::RightAnti => (JoinKind::LeftAnti, true),
            JoinType::RightMark => (JoinKind::LeftMark, true),
        };
        let (near, far) = if mirrored {
            (&join.right, &join.left)
        } else {
            (&join.left, &join.right)
        };
        let only_kept = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let far = match far.as_ref() {
            // If only the existence of a row matters, a projection that drops its columns is superfluous.
            LogicalPlan::Projection(of_none) if only_kept && of_none.expr.is_empty() => &of_none.input,
            _ => far,
        };
        let sides = Sides {
            left: self.lower(near)?,
            right: self.lower(far)?,
            left_schema: near.schema(),
            right_schema: far.schema(),
        };
        let (mut left_keys, mut right_keys) = (vec![], vec![]);
        let left_actual = self.builder.schema(sides.left).clone();
        let right_actual = self.builder.schema(sides.right).clone();
        for (l, r) in &join.on {
            let (l, r) = if mirrored { (r, l) } else { (l, r) };
            let l = expr::physical(l, sides.left_schema, &left_actual)?;
            let to = l.data_type(&left_actual)?;
            right_keys.push(expr::physical_as(r, sides.right_schema, &right_actual, &to)?);
            left_keys.push(l);
        }
        let conditions: Vec<&Logical> = join.filter.iter().flat_map(|f| split_conjunction(f)).collect();
        let (timed, plain): (Vec<&Logical>, Vec<&Logical>) = conditions.into_iter().partition(|c| now::mentions_now(c));
        if !timed.is_empty() && kind != JoinKind::Inner {
            return Err(now::misplaced().into());
        }
        let both = sides.left_schema.join(sides.right_schema)?;
        let both_actual = concat(&left_actual, &right_actual);
        let residual = match plain.into_iter().cloned().reduce(Logical::and) {
            Some(condition) => Some(expr::physical_as(&condition, &both, &both_actual, &DataType::Boolean)?),
            None => None,
        };
        let planned = Join {
            kind,
            left_keys,
            right_keys,
            residual,
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
        };
        let schema = output(&LogicalPlan::Join(join.clone()));
        let node = self.add_join(sides.left, sides.right, planned, schema);
        if timed.is_empty() {
            Ok(node)
        } else {
            self.keep(node, &timed, &both)
        }
    }

    fn add_join(&mut self, left: NodeId, right: NodeId, join: Join, schema: arrow::datatypes::SchemaRef) -> NodeId {
        let verb = match join.kind {
            JoinKind::Inner if join.left_keys.is_empty() => "cross-join",
            JoinKind::Inner => "join",
            JoinKind::Left => "left-join",
            JoinKind::Right => "right-join",
            JoinKind::Full => "full-join",
            JoinKind::LeftSemi => "semi-join",
            JoinKind::LeftAnti => "anti-join",
            JoinKind::LeftMark => "mark-join",
        };
        let append_only = matches!(join.kind, JoinKind::Inner | JoinKind::LeftSemi)
            && self.builder.nodes[left].append_only
            && self.builder.nodes[right].append_only;
        self.add(Op::Join(join), vec![left, right], schema, verb, append_only)
    }
}

fn concat(left: &Schema, right: &Schema) -> Schema {
    let fields: Vec<_> = left.fields().iter().chain(right.fields()).cloned().collect();
    normalise_schema(&Schema::new(fields)).as_ref().clone()
}
