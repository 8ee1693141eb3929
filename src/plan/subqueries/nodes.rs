//! Unnests each kind of node for all bindings at once: one dispatch.
//!
//! A plan that uses no outer column stays as it is. Other plans get the bindings at the lowest node whose
//! expressions use an outer column, by a cross join. The optimizer makes it an equi-join if a condition above
//! allows it.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::{
    Distinct, EmptyRelation, Expr, LogicalPlan, Projection, Sort, SortExpr, SubqueryAlias, Union, Unnest, Values,
};

use super::super::error::{Planned, Refusal};
use super::Unnesting;
use super::names::{NameScope, has_subquery, outer_columns, outer_columns_of};
use super::rows::{Bindings, NodeRows, project};

/// A node's input for all bindings, and the node's expressions over it.
pub(super) struct NodeInput {
    pub rows: NodeRows,
    pub exprs: Vec<Expr>,
}

impl Unnesting<'_> {
    /// The rows of a plan for each binding, without subqueries.
    pub fn rows(&mut self, plan: &LogicalPlan, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let used = outer_columns(plan);
        let outer = outer.filter(|bindings| used.iter().any(|name| bindings.names.contains(name)));
        match plan {
            LogicalPlan::Subquery(subquery) => self.rows(&subquery.subquery, outer),
            LogicalPlan::Filter(filter) => self.filter(filter, outer),
            LogicalPlan::Projection(projection) => self.projection(projection, outer),
            LogicalPlan::SubqueryAlias(alias) => self.alias(alias, outer),
            LogicalPlan::Join(join) => self.join(join, outer),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, outer),
            LogicalPlan::Window(window) => self.window(window, outer),
            LogicalPlan::Sort(sort) => self.sort(sort, outer),
            LogicalPlan::Limit(limit) => self.limit(limit, outer),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let rows = self.rows(input, outer)?.only(input.schema())?;
                Ok(NodeRows {
                    plan: LogicalPlan::Distinct(Distinct::All(Arc::new(rows.plan))),
                    ..rows
                })
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on, outer),
            LogicalPlan::Union(union) => self.union(union, outer),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest, outer),
            LogicalPlan::Values(values) => self.values(values, outer),
            other if outer.is_some() => Err(Refusal::new(format!(
                "could not evaluate this part of a subquery for each row of the outer query: {}",
                other.display()
            ))
            .help("move it into a query of FROM or WITH that uses no column of the outer query")
            .into()),
            other => {
                let mut failed = None;
                let below = other.clone().map_children(|child| match self.rows(&child, None) {
                    Ok(rows) => Ok(Transformed::yes(in_order(rows.plan, child.schema())?)),
                    Err(error) => {
                        failed = Some(error);
                        Ok(Transformed::no(child))
                    }
                });
                match failed {
                    Some(error) => Err(error),
                    None => Ok(NodeRows::from_plan(below.data()?)),
                }
            }
        }
    }

    /// The input of a node with one input, and the node's expressions over it.
    pub fn node(&mut self, input: &LogicalPlan, exprs: Vec<Expr>, outer: Option<&Bindings>) -> Planned<NodeInput> {
        let (mut rows, scope) = self.below(input, &exprs, outer)?;
        let exprs = exprs
            .into_iter()
            .map(|expr| {
                let expr = scope.over_rows(expr)?;
                self.value(&mut rows, &scope, expr, false)
            })
            .collect::<Planned<_>>()?;
        Ok(NodeInput { rows, exprs })
    }

    /// A node's input, with the bindings if the expressions use them, and the scope that resolves their names.
    pub fn below<'a>(
        &mut self,
        input: &LogicalPlan,
        exprs: impl IntoIterator<Item = &'a Expr>,
        outer: Option<&Bindings>,
    ) -> Planned<(NodeRows, NameScope)> {
        let own = input.schema();
        let mut rows = self.rows(input, outer)?;
        let mut named = vec![];
        if let Some(bindings) = outer {
            if !outer_columns_of(exprs, own).is_empty() {
                rows = self.bound(rows, bindings)?;
            }
            let columns = rows.bound().iter().cloned();
            named = bindings.names.iter().cloned().zip(columns).collect();
        }
        let scope = NameScope::new(own.clone(), named, rows.plan.clone());
        Ok((rows, scope))
    }

    fn projection(&mut self, projection: &Projection, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let NodeInput { rows, exprs } = self.node(&projection.input, projection.expr.clone(), outer)?;
        let mut exprs = named(exprs, &projection.schema, 0);
        exprs.extend(rows.bound().iter().cloned().map(Expr::Column));
        Ok(NodeRows {
            plan: project(exprs, rows.plan)?,
            bindings: rows.bindings,
        })
    }

    fn alias(&mut self, alias: &SubqueryAlias, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let rows = self.rows(&alias.input, outer)?;
        if rows.bindings.is_none() {
            let plan = Arc::new(in_order(rows.plan, alias.input.schema())?);
            let alias = SubqueryAlias::try_new(plan, alias.alias.clone())?;
            return Ok(NodeRows::from_plan(LogicalPlan::SubqueryAlias(alias)));
        }
        let columns = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
        let mut exprs = named(columns, &alias.schema, 0);
        exprs.extend(rows.bound().iter().cloned().map(Expr::Column));
        Ok(NodeRows {
            plan: project(exprs, rows.plan)?,
            bindings: rows.bindings,
        })
    }

    fn sort(&mut self, sort: &Sort, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let exprs = sort.expr.iter().map(|e| e.expr.clone()).collect();
        let NodeInput { rows, exprs } = self.node(&sort.input, exprs, outer)?;
        let order = sort.expr.iter().zip(exprs);
        let expr = order
            .map(|(e, expr)| SortExpr::new(expr, e.asc, e.nulls_first))
            .collect();
        let sorted = NodeRows {
            plan: LogicalPlan::Sort(Sort {
                expr,
                input: Arc::new(rows.plan),
                fetch: sort.fetch,
            }),
            bindings: rows.bindings,
        };
        sorted.only(sort.input.schema())
    }

    fn union(&mut self, union: &Union, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        let mut columns = None;
        for input in &union.inputs {
            let mut rows = self.rows(input, outer)?;
            if let Some(bindings) = outer {
                rows = self.bound(rows, bindings)?;
            }
            let own = input.schema().columns().into_iter().map(Expr::Column).collect();
            let mut exprs = named(own, &union.schema, 0);
            // A union takes the names of its columns from its first input.
            let first = columns.get_or_insert_with(|| rows.bindings.clone());
            let bound = rows.bound().iter().zip(first.as_deref().unwrap_or_default());
            exprs.extend(bound.map(|(column, first)| Expr::Column(column.clone()).alias(&first.name)));
            inputs.push(Arc::new(match outer {
                Some(_) => project(exprs, rows.plan)?,
                None => in_order(rows.plan, input.schema())?,
            }));
        }
        if outer.is_none() {
            let schema = Arc::new(nullable_as(&union.schema, &inputs)?);
            return Ok(NodeRows::from_plan(LogicalPlan::Union(Union { inputs, schema })));
        }
        let made = LogicalPlan::Union(Union::try_new(inputs)?);
        // DataFusion's union drops qualifiers.
        let bound = columns.flatten().unwrap_or_default();
        let own: Vec<Expr> = made.schema().columns().into_iter().map(Expr::Column).collect();
        let mut exprs = named(own[..own.len() - bound.len()].to_vec(), &union.schema, 0);
        exprs.extend(bound.iter().cloned().map(Expr::Column));
        Ok(NodeRows {
            plan: project(exprs, made)?,
            bindings: Some(bound),
        })
    }

    fn unnest(&mut self, unnest: &Unnest, outer: Option<&Bindings>) -> Planned<NodeRows> {
        let rows = self.rows(&unnest.input, outer)?;
        let plan = match rows.bindings {
            None => in_order(rows.plan, unnest.input.schema())?,
            Some(_) => rows.plan,
        };
        let made = Unnest::try_new(Arc::new(plan), unnest.exec_columns.clone(), unnest.options.clone())?;
        Ok(NodeRows {
            plan: LogicalPlan::Unnest(made),
            bindings: rows.bindings,
        })
    }

    /// VALUES. If cells use outer columns, each row becomes a projection of the bindings.
    fn values(&mut self, values: &Values, outer: Option<&Bindings>) -> Planned<NodeRows> {
        if outer.is_none() && !values.values.iter().flatten().any(has_subquery) {
            return Ok(NodeRows::from_plan(LogicalPlan::Values(values.clone())));
        }
        let one = LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: true,
            schema: Arc::new(DFSchema::empty()),
        });
        let rows = values.values.iter().map(|row| {
            let exprs = named(row.clone(), &values.schema, 0);
            project(exprs, one.clone()).map(Arc::new)
        });
        let inputs = rows.collect::<Planned<Vec<_>>>()?;
        match <[_; 1]>::try_from(inputs) {
            Ok([only]) => self.rows(&only, outer),
            Err(inputs) => {
                let schema = values.schema.clone();
                self.union(&Union { inputs, schema }, outer)
            }
        }
    }
}

/// The schema of a union, with columns nullable where its inputs' now are: a subquery without rows has become null.
fn nullable_as(schema: &DFSchema, inputs: &[Arc<LogicalPlan>]) -> datafusion::common::Result<DFSchema> {
    let fields = schema.iter().enumerate().map(|(n, (qualifier, field))| {
        let nullable = inputs.iter().any(|input| input.schema().field(n).is_nullable());
        let field = field.as_ref().clone().with_nullable(nullable);
        (qualifier.cloned(), Arc::new(field))
    });
    DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())
}

/// The expressions, aliased to the names of the schema's fields from `from` on.
pub(super) fn named(exprs: Vec<Expr>, schema: &DFSchema, from: usize) -> Vec<Expr> {
    let exprs = exprs.into_iter().enumerate();
    exprs
        .map(|(n, expr)| {
            let (qualifier, field) = schema.qualified_field(from + n);
            let (own_qualifier, name) = expr.qualified_name();
            match own_qualifier.as_ref() == qualifier && &name == field.name() {
                true => expr,
                false => expr.alias_qualified(qualifier.cloned(), field.name()),
            }
        })
        .collect()
}

/// The plan with exactly the schema's columns, in the schema's order.
pub(super) fn in_order(plan: LogicalPlan, schema: &DFSchema) -> datafusion::common::Result<LogicalPlan> {
    let columns = schema.columns();
    if plan.schema().columns() == columns {
        return Ok(plan);
    }
    let exprs: Vec<Expr> = columns.into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}
