//! Makes aggregates compute their own arguments if these may fail.
//!
//! A row for which an argument fails is a dead letter, and its group has no result, because a sum without the
//! row would be wrong. Only the aggregate knows the row's group, so an argument that may fail must not be
//! computed below it:
//!
//! ```text
//! Aggregate k, sum(y)                      =>   Aggregate k, sum(v * 2)
//!   Projection k, v * 2 AS y                      Projection k, v
//! ```
//! Joins and filters may stand between. A group column that may fail stays below, and so does a column that a
//! condition reads: if it fails, the row has no group, or it is unknown whether the row counts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Aggregate, Expr, Filter, Join, JoinType, LogicalPlan, Projection, SubqueryAlias};
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::plan::standard::{filtered, may_fail};

/// The prefix of the name of a column that is passed up to an aggregate.
pub(in crate::plan) const PASSED: &str = "$of ";

/// The optimizer rule.
#[derive(Debug)]
pub(super) struct FailingArguments;

impl OptimizerRule for FailingArguments {
    fn name(&self) -> &str {
        "arguments"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Aggregate(aggregate) => taken_in(aggregate),
            plan => Ok(Transformed::no(plan)),
        }
    }
}

/// DataFusion's rule for aggregates of distinct values, except for arguments that may fail: the rule would
/// compute these below the aggregate.
#[derive(Debug)]
pub(super) struct Distincts(pub SingleDistinctToGroupBy);

impl OptimizerRule for Distincts {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(has_failing_argument) => {
                Ok(Transformed::no(plan))
            }
            _ => self.0.rewrite(plan, config),
        }
    }
}

fn has_failing_argument(call: &Expr) -> bool {
    match call.clone().unalias_nested().data {
        Expr::AggregateFunction(call) => call.params.args.iter().any(may_fail),
        _ => false,
    }
}

/// The aggregate with failing arguments computed in it, over a plan without them.
fn taken_in(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let read = |exprs: &[Expr]| -> HashSet<Column> { exprs.iter().flat_map(Expr::column_refs).cloned().collect() };
    let wanted: Vec<Column> = read(&aggregate.aggr_expr)
        .difference(&read(&aggregate.group_expr))
        .cloned()
        .collect();
    let Some(lifted) = Lifting::new(&aggregate.input)?.lift(&aggregate.input, wanted)? else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let calls = aggregate.aggr_expr.iter().enumerate().map(|(index, call)| {
        let computed = call.clone().unalias_nested().data.transform(|e| {
            let of = match &e {
                Expr::Column(column) => lifted.computed.get(column).cloned(),
                _ => None,
            };
            Ok(of.map_or_else(|| Transformed::no(e), Transformed::yes))
        });
        let (_, field) = aggregate.schema.qualified_field(groups + index);
        Ok(filtered(computed.data()?).data.alias(field.name()))
    });
    let calls = calls.collect::<Result<Vec<_>>>()?;
    let aggregate = Aggregate::try_new(Arc::new(lifted.plan), aggregate.group_expr, calls)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// A plan without some of its columns, and those columns as expressions over the others.
struct Lifted {
    plan: LogicalPlan,
    computed: HashMap<Column, Expr>,
}

/// Takes columns that may fail out of a plan. The columns that they need are passed up under names of their own.
struct Lifting {
    /// The names of all columns of the plan, so that new names are unique.
    names: HashSet<String>,
}

impl Lifting {
    /// Prepares to take columns out of a plan.
    fn new(plan: &LogicalPlan) -> Result<Lifting> {
        let mut names = HashSet::new();
        plan.apply(|node| {
            names.extend(node.schema().fields().iter().map(|field| field.name().clone()));
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(Lifting { names })
    }

    /// Takes those of the wanted columns out that may fail; only the reader of `plan` may read them. `None` if
    /// there are none.
    fn lift(&mut self, plan: &LogicalPlan, mut wanted: Vec<Column>) -> Result<Option<Lifted>> {
        let own = plan.expressions();
        let own: HashSet<&Column> = own.iter().flat_map(Expr::column_refs).collect();
        if !matches!(plan, LogicalPlan::Projection(_)) {
            wanted.retain(|column| !own.contains(column));
        }
        match plan {
            _ if wanted.is_empty() => Ok(None),
            LogicalPlan::Projection(projection) => self.out_of_projection(projection, &wanted),
            LogicalPlan::SubqueryAlias(alias) => self.out_of_alias(alias, &wanted),
            LogicalPlan::Filter(filter) => {
                let lifted = self.lift(&filter.input, wanted)?;
                lifted
                    .map(|lifted| {
                        let plan = Filter::try_new(filter.predicate.clone(), Arc::new(lifted.plan))?;
                        Ok(Lifted {
                            plan: LogicalPlan::Filter(plan),
                            ..lifted
                        })
                    })
                    .transpose()
            }
            LogicalPlan::Join(join) => self.out_of_join(join, &wanted),
            _ => Ok(None),
        }
    }

    fn out_of_projection(&mut self, projection: &Projection, wanted: &[Column]) -> Result<Option<Lifted>> {
        let exprs: Vec<Expr> = projection
            .expr
            .iter()
            .map(|expr| expr.clone().unalias_nested().data)
            .collect();
        let mut uses: HashMap<&Column, usize> = HashMap::new();
        for column in exprs.iter().flat_map(Expr::column_refs) {
            *uses.entry(column).or_default() += 1;
        }
        let position = |column: &Column| projection.schema.maybe_index_of_column(column);
        let wanted: HashMap<usize, &Column> = wanted
            .iter()
            .filter_map(|column| Some((position(column)?, column)))
            .collect();
        let passed = wanted.keys().filter_map(|index| match &exprs[*index] {
            Expr::Column(column) if uses[column] == 1 => Some(column.clone()),
            _ => None,
        });
        let below = self.lift(&projection.input, passed.collect())?;
        let (input, computed) = match below {
            Some(below) => (Arc::new(below.plan), below.computed),
            None => (projection.input.clone(), HashMap::new()),
        };
        let mut taken: HashMap<Column, Expr> = HashMap::new();
        let (mut columns, mut passed) = (vec![], vec![]);
        for (index, expr) in exprs.into_iter().enumerate() {
            let below = match &expr {
                Expr::Column(column) => computed.get(column).cloned(),
                _ => None,
            };
            let out = below.or_else(|| (wanted.contains_key(&index) && may_fail(&expr)).then(|| expr.clone()));
            match out {
                Some(out) => {
                    taken.insert(wanted[&index].clone(), self.renamed(out, &mut passed)?);
                }
                None => {
                    let (qualifier, field) = projection.schema.qualified_field(index);
                    columns.push(expr.alias_qualified(qualifier.cloned(), field.name()));
                }
            }
        }
        if taken.is_empty() {
            return Ok(None);
        }
        columns.extend(
            passed
                .into_iter()
                .map(|(column, name)| Expr::Column(column).alias(name)),
        );
        Ok(Some(Lifted {
            plan: LogicalPlan::Projection(Projection::try_new(columns, input)?),
            computed: taken,
        }))
    }

    /// An expression with its columns renamed to those that are passed up, which are added to `passed`.
    fn renamed(&mut self, expr: Expr, passed: &mut Vec<(Column, String)>) -> Result<Expr> {
        let renamed = expr.transform(|e| {
            let Expr::Column(column) = e else {
                return Ok(Transformed::no(e));
            };
            let known = passed
                .iter()
                .find(|(passed, _)| *passed == column)
                .map(|(_, name)| name.clone());
            let name = known.unwrap_or_else(|| {
                let mut name = format!("{PASSED}{}", column.name);
                while !self.names.insert(name.clone()) {
                    name.push('\'');
                }
                passed.push((column, name.clone()));
                name
            });
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
        });
        renamed.data()
    }

    fn out_of_alias(&mut self, alias: &SubqueryAlias, wanted: &[Column]) -> Result<Option<Lifted>> {
        let below = |column: &Column| {
            let index = alias.schema.maybe_index_of_column(column)?;
            Some(Column::from(alias.input.schema().qualified_field(index)))
        };
        let wanted: Vec<(Column, Column)> = wanted
            .iter()
            .filter_map(|column| Some((column.clone(), below(column)?)))
            .collect();
        let lifted = self.lift(&alias.input, wanted.iter().map(|(_, below)| below.clone()).collect())?;
        let Some(lifted) = lifted else { return Ok(None) };
        let schema = lifted.plan.schema().clone();
        let plan = SubqueryAlias::try_new(Arc::new(lifted.plan), alias.alias.clone())?;
        let mut computed = HashMap::new();
        for (above, below) in wanted {
            let Some(expr) = lifted.computed.get(&below) else {
                continue;
            };
            let expr = expr.clone().transform(|e| match e {
                Expr::Column(column) => {
                    let index = schema.index_of_column(&column)?;
                    Ok(Transformed::yes(Expr::Column(Column::from(
                        plan.schema.qualified_field(index),
                    ))))
                }
                e => Ok(Transformed::no(e)),
            });
            computed.insert(above, expr.data()?);
        }
        Ok(Some(Lifted {
            plan: LogicalPlan::SubqueryAlias(plan),
            computed,
        }))
    }

    /// Takes columns out of those sides of a join that are not filled up with nulls: over nulls, an expression
    /// need not be NULL.
    fn out_of_join(&mut self, join: &Join, wanted: &[Column]) -> Result<Option<Lifted>> {
        use JoinType::{Inner, Left, LeftAnti, LeftSemi, Right};
        let mut lifted = Lifted {
            plan: LogicalPlan::Join(join.clone()),
            computed: HashMap::new(),
        };
        let mut join = join.clone();
        let sides = [
            (
                matches!(join.join_type, Inner | Left | LeftSemi | LeftAnti),
                &mut join.left,
            ),
            (matches!(join.join_type, Inner | Right), &mut join.right),
        ];
        for (is_whole, side) in sides {
            let of_side = wanted
                .iter()
                .filter(|column| is_whole && side.schema().has_column(column));
            if let Some(below) = self.lift(side, of_side.cloned().collect())? {
                *side = Arc::new(below.plan);
                lifted.computed.extend(below.computed);
            }
        }
        if lifted.computed.is_empty() {
            return Ok(None);
        }
        lifted.plan = LogicalPlan::Join(join).recompute_schema()?;
        Ok(Some(lifted))
    }
}
