//! The rows of each kind of node, for all bindings at once: one dispatch.
//!
//! A part that uses no outer column stays as it is. What does, gets the bindings from below: by a cross join with them
//! where an expression asks for an outer column first, which the optimizer makes a join by the condition above it.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::{
    Distinct, EmptyRelation, Expr, LogicalPlan, Projection, Sort, SortExpr, SubqueryAlias, Union, Unnest, Values,
};

use super::super::error::{Planned, Refusal};
use super::Unnesting;
use super::names::{Scope, has_subquery, outer_columns, outer_columns_of};
use super::rows::{Bindings, Rows, project};

/// The rows below a node, and its expressions over them.
pub(super) struct Node {
    pub rows: Rows,
    pub exprs: Vec<Expr>,
}

impl Unnesting<'_> {
    /// The rows of a plan for each binding, without subqueries.
    pub fn rows(&mut self, plan: &LogicalPlan, outer: Option<&Bindings>) -> Planned<Rows> {
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
                Ok(Rows {
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
                    None => Ok(Rows::of(below.data()?)),
                }
            }
        }
    }

    /// The rows below a node with one input, and the node's expressions over them.
    pub fn node(&mut self, input: &LogicalPlan, exprs: Vec<Expr>, outer: Option<&Bindings>) -> Planned<Node> {
        let (mut rows, scope) = self.below(input, &exprs, outer)?;
        let exprs = exprs
            .into_iter()
            .map(|expr| {
                let expr = scope.over_rows(expr)?;
                self.value(&mut rows, &scope, expr, false)
            })
            .collect::<Planned<_>>()?;
        Ok(Node { rows, exprs })
    }

    /// The rows below a node, with the bindings if its expressions use them, and how these name the columns.
    pub fn below<'a>(
        &mut self,
        input: &LogicalPlan,
        exprs: impl IntoIterator<Item = &'a Expr>,
        outer: Option<&Bindings>,
    ) -> Planned<(Rows, Scope)> {
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
        let scope = Scope::new(own.clone(), named, rows.plan.clone());
        Ok((rows, scope))
    }

    fn projection(&mut self, projection: &Projection, outer: Option<&Bindings>) -> Planned<Rows> {
        let Node { rows, exprs } = self.node(&projection.input, projection.expr.clone(), outer)?;
        let mut exprs = named(exprs, &projection.schema, 0);
        exprs.extend(rows.bound().iter().cloned().map(Expr::Column));
        Ok(Rows {
            plan: project(exprs, rows.plan)?,
            bindings: rows.bindings,
        })
    }

    fn alias(&mut self, alias: &SubqueryAlias, outer: Option<&Bindings>) -> Planned<Rows> {
        let rows = self.rows(&alias.input, outer)?;
        if rows.bindings.is_none() {
            let plan = Arc::new(in_order(rows.plan, alias.input.schema())?);
            let alias = SubqueryAlias::try_new(plan, alias.alias.clone())?;
            return Ok(Rows::of(LogicalPlan::SubqueryAlias(alias)));
        }
        let columns = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
        let mut exprs = named(columns, &alias.schema, 0);
        exprs.extend(rows.bound().iter().cloned().map(Expr::Column));
        Ok(Rows {
            plan: project(exprs, rows.plan)?,
            bindings: rows.bindings,
        })
    }

    fn sort(&mut self, sort: &Sort, outer: Option<&Bindings>) -> Planned<Rows> {
        let exprs = sort.expr.iter().map(|e| e.expr.clone()).collect();
        let Node { rows, exprs } = self.node(&sort.input, exprs, outer)?;
        let order = sort.expr.iter().zip(exprs);
        let expr = order
            .map(|(e, expr)| SortExpr::new(expr, e.asc, e.nulls_first))
            .collect();
        let sorted = Rows {
            plan: LogicalPlan::Sort(Sort {
                expr,
                input: Arc::new(rows.plan),
                fetch: sort.fetch,
            }),
            bindings: rows.bindings,
        };
        sorted.only(sort.input.schema())
    }

    fn union(&mut self, union: &Union, outer: Option<&Bindings>) -> Planned<Rows> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        let mut columns = None;
        for input in &union.inputs {
            let mut rows = self.rows(input, outer)?;
            if let Some(bindings) = outer {
                rows = self.bound(rows, bindings)?;
            }
            let own = input.schema().columns().into_iter().map(Expr::Column).collect();
            let mut exprs = named(own, &union.schema, 0);
            // A union's columns have the names that its first input gives them.
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
            return Ok(Rows::of(LogicalPlan::Union(Union { inputs, schema })));
        }
        let made = LogicalPlan::Union(Union::try_new(inputs)?);
        // It leaves qualifiers out.
        let bound = columns.flatten().unwrap_or_default();
        let own: Vec<Expr> = made.schema().columns().into_iter().map(Expr::Column).collect();
        let mut exprs = named(own[..own.len() - bound.len()].to_vec(), &union.schema, 0);
        exprs.extend(bound.iter().cloned().map(Expr::Column));
        Ok(Rows {
            plan: project(exprs, made)?,
            bindings: Some(bound),
        })
    }

    fn unnest(&mut self, unnest: &Unnest, outer: Option<&Bindings>) -> Planned<Rows> {
        let rows = self.rows(&unnest.input, outer)?;
        let plan = match rows.bindings {
            None => in_order(rows.plan, unnest.input.schema())?,
            Some(_) => rows.plan,
        };
        let made = Unnest::try_new(Arc::new(plan), unnest.exec_columns.clone(), unnest.options.clone())?;
        Ok(Rows {
            plan: LogicalPlan::Unnest(made),
            bindings: rows.bindings,
        })
    }

    /// Rows that stand in the query; where their cells use outer columns, each is a projection of the bindings.
    fn values(&mut self, values: &Values, outer: Option<&Bindings>) -> Planned<Rows> {
        if outer.is_none() && !values.values.iter().flatten().any(has_subquery) {
            return Ok(Rows::of(LogicalPlan::Values(values.clone())));
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

/// A union's schema, with nulls where one of its inputs may have some by now: a subquery without rows is null.
fn nullable_as(schema: &DFSchema, inputs: &[Arc<LogicalPlan>]) -> datafusion::common::Result<DFSchema> {
    let fields = schema.iter().enumerate().map(|(n, (qualifier, field))| {
        let nullable = inputs.iter().any(|input| input.schema().field(n).is_nullable());
        let field = field.as_ref().clone().with_nullable(nullable);
        (qualifier.cloned(), Arc::new(field))
    });
    DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())
}

/// The expressions under the names of a schema's fields, beginning with this one.
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

/// The plan with a schema's columns, in its order.
pub(super) fn in_order(plan: LogicalPlan, schema: &DFSchema) -> datafusion::common::Result<LogicalPlan> {
    let columns = schema.columns();
    if plan.schema().columns() == columns {
        return Ok(plan);
    }
    let exprs: Vec<Expr> = columns.into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}
