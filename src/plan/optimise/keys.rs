//! Extracts the keys of joins from their conditions.
//!
//! `a.k = b.k` in a condition becomes a key. If there is no equality but `a.k IS NOT DISTINCT FROM b.k`, that
//! becomes a key of a join in which nulls equal each other. An equality that is added to such a join later also
//! becomes a key, and stays in the condition, where it excludes nulls.

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::utils::{can_hash, conjunction, find_valid_equijoin_key_pair, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Operator};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

type Key = (Expr, Expr);

/// The optimizer rule that extracts keys.
#[derive(Debug)]
pub(super) struct EquiKeys;

impl OptimizerRule for EquiKeys {
    fn name(&self) -> &str {
        "equi_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(mut join) = plan else {
            return Ok(Transformed::no(plan));
        };
        let Some(condition) = join.filter.take() else {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        };
        let null_safe = join.null_equality == NullEquality::NullEqualsNull;
        let mut conditions = split_conjunction_owned(condition);
        let mut keys = taken(&mut conditions, Operator::Eq, null_safe, &join)?;
        keys.retain(|key| !join.on.contains(key));
        if keys.is_empty() && (null_safe || join.on.is_empty()) {
            keys = taken(&mut conditions, Operator::IsNotDistinctFrom, false, &join)?;
            if !keys.is_empty() {
                join.null_equality = NullEquality::NullEqualsNull;
            }
        }
        join.filter = conjunction(conditions);
        let changed = !keys.is_empty();
        join.on.extend(keys);
        Ok(Transformed::new_transformed(LogicalPlan::Join(join), changed))
    }
}

/// The keys among conditions with this operator. These conditions are removed unless they `stay`.
fn taken(conditions: &mut Vec<Expr>, op: Operator, stay: bool, join: &Join) -> Result<Vec<Key>> {
    let mut keys = vec![];
    let mut remaining = Vec::with_capacity(conditions.len());
    for condition in conditions.drain(..) {
        let key = match &condition {
            Expr::BinaryExpr(BinaryExpr { left, op: of, right }) if *of == op => key(left, right, join)?,
            _ => None,
        };
        if key.is_none() || stay {
            remaining.push(condition);
        }
        keys.extend(key);
    }
    *conditions = remaining;
    Ok(keys)
}

fn key(left: &Expr, right: &Expr, join: &Join) -> Result<Option<Key>> {
    let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
    let Some((left, right)) = find_valid_equijoin_key_pair(left, right, left_schema, right_schema)? else {
        return Ok(None);
    };
    let hashes = can_hash(&left.get_type(left_schema)?) && can_hash(&right.get_type(right_schema)?);
    Ok(hashes.then_some((left, right)))
}

/// DataFusion's rule that reorders the tables of a FROM so that each is joined by keys. The rule merges joins
/// without regard to whether nulls equal each other in them, so joins in which they do give up their keys
/// first.
#[derive(Debug)]
pub(super) struct CrossJoins(pub EliminateCrossJoin);

impl OptimizerRule for CrossJoins {
    fn name(&self) -> &str {
        "cross_joins"
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        self.0.rewrite(without_null_safe_keys(plan)?, config)
    }
}

fn without_null_safe_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(mut join) = node else {
            return Ok(Transformed::no(node));
        };
        if join.join_type != JoinType::Inner || join.null_equality != NullEquality::NullEqualsNull {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        }
        let keys = join.on.drain(..).map(|(left, right)| {
            Expr::BinaryExpr(BinaryExpr::new(
                Box::new(left),
                Operator::IsNotDistinctFrom,
                Box::new(right),
            ))
        });
        let conditions = keys.chain(join.filter.take().into_iter().flat_map(split_conjunction_owned));
        join.filter = conjunction(conditions.collect::<Vec<_>>());
        join.null_equality = NullEquality::NullEqualsNothing;
        Ok(Transformed::yes(LogicalPlan::Join(join)))
    })
    .data()
}
