//! Rows of a part of a subquery, for all rows of the outer query at once.
//!
//! A subquery that uses columns of an outer query yields other rows for each combination of their values. The
//! *bindings* are the distinct combinations. A plan that is evaluated for all of them has their columns beside
//! its own, so that each row tells to which binding it belongs.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, JoinType, NullEquality, ScalarValue, TableReference};
use datafusion::logical_expr::{
    Distinct, EmptyRelation, Expr, ExprSchemable, Join, JoinConstraint, LogicalPlan, Projection, lit, when,
};

use super::super::error::{Planned, Refusal};
use super::Unnesting;

/// A plan that has a node's columns under their names, in any order, and possibly the columns of the bindings.
pub(super) struct NodeRows {
    pub plan: LogicalPlan,
    /// The columns of the bindings, in their order. `None` if the rows are the same for each binding.
    pub bindings: Option<Vec<Column>>,
}

impl NodeRows {
    /// Rows that do not depend on the bindings.
    pub fn from_plan(plan: LogicalPlan) -> NodeRows {
        NodeRows { plan, bindings: None }
    }

    /// The columns of the bindings, if there are any.
    pub fn bound(&self) -> &[Column] {
        self.bindings.as_deref().unwrap_or_default()
    }

    /// The rows with these columns and the bindings', and no others.
    pub fn only(self, schema: &DFSchema) -> Planned<NodeRows> {
        let mut columns = schema.columns();
        columns.extend(self.bound().iter().cloned());
        if self.plan.schema().fields().len() == columns.len() {
            return Ok(self);
        }
        Ok(NodeRows {
            plan: project(columns.into_iter().map(Expr::Column).collect(), self.plan)?,
            bindings: self.bindings,
        })
    }
}

/// The values of a subquery's outer columns: each combination once.
pub(super) struct Bindings {
    /// The columns by which the subquery refers to the values.
    pub names: Vec<Column>,
    rows: Arc<LogicalPlan>,
}

impl Bindings {
    /// Bindings that are the rows themselves, without removing duplicates.
    pub fn all(names: Vec<Column>, rows: LogicalPlan, columns: &[Column]) -> Planned<Bindings> {
        let exprs = columns.iter().cloned().map(Expr::Column).collect();
        let rows = Arc::new(project(exprs, rows)?);
        Ok(Bindings { names, rows })
    }
}

impl Unnesting<'_> {
    /// The distinct values of columns of `base`, to which a subquery refers by `names`.
    pub fn bindings(&mut self, base: &LogicalPlan, names: Vec<Column>, columns: &[Column]) -> Planned<Bindings> {
        let exprs = columns.iter().cloned().map(Expr::Column).collect();
        let rows = LogicalPlan::Distinct(Distinct::All(Arc::new(project(exprs, base.clone())?)));
        Ok(Bindings {
            names,
            rows: Arc::new(rows),
        })
    }

    /// The bindings, under column names that nothing else has.
    pub fn instance(&mut self, bindings: &Bindings) -> Planned<(LogicalPlan, Vec<Column>)> {
        let number = self.number();
        let columns = bindings.rows.schema().columns();
        let name = |n: usize| format!("__binding_{number}_{n}");
        let exprs = columns.into_iter().enumerate();
        let exprs: Vec<Expr> = exprs.map(|(n, column)| Expr::Column(column).alias(name(n))).collect();
        let named = (0..exprs.len()).map(|n| Column::new_unqualified(name(n))).collect();
        Ok((project(exprs, bindings.rows.as_ref().clone())?, named))
    }

    /// The rows for each binding; rows without bindings are crossed with them.
    pub fn bound(&mut self, rows: NodeRows, bindings: &Bindings) -> Planned<NodeRows> {
        if rows.bindings.is_some() {
            return Ok(rows);
        }
        let (instance, columns) = self.instance(bindings)?;
        let plan = match rows.plan {
            LogicalPlan::EmptyRelation(EmptyRelation {
                produce_one_row: true, ..
            }) => instance,
            plan => join(plan, instance, JoinType::Inner, vec![], None)?,
        };
        Ok(NodeRows {
            plan,
            bindings: Some(columns),
        })
    }
}

/// A projection of a plan.
pub(super) fn project(exprs: Vec<Expr>, input: LogicalPlan) -> Planned<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}

/// A join in which nulls equal nothing.
pub(super) fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
) -> Planned<LogicalPlan> {
    let (left, right) = (Arc::new(left), Arc::new(right));
    let nothing = NullEquality::NullEqualsNothing;
    let join = Join::try_new(left, right, on, filter, kind, JoinConstraint::On, nothing, false)?;
    Ok(LogicalPlan::Join(join))
}

/// The plan with all of its columns under a new qualifier.
pub(super) fn requalified(plan: LogicalPlan, qualifier: &str) -> Planned<(LogicalPlan, Vec<Column>)> {
    let qualifier = TableReference::bare(qualifier);
    let columns = plan.schema().columns();
    let exprs = columns.into_iter().enumerate().map(|(n, column)| {
        let name = format!("c{n}");
        (
            Expr::Column(column).alias_qualified(Some(qualifier.clone()), name.clone()),
            Column::new(Some(qualifier.clone()), name),
        )
    });
    let (exprs, columns) = exprs.unzip();
    Ok((project(exprs, plan)?, columns))
}

/// Join keys that are equal if two columns are equal or both null.
///
/// The keys compare values that are never null. A join in which nulls equal each other would not do: it would
/// do so for the other equalities of its condition too.
pub(super) fn null_safe_key_pair(
    left: (&Column, &DFSchema),
    right: (&Column, &DFSchema),
) -> Planned<Vec<(Expr, Expr)>> {
    let (l, r) = (Expr::Column(left.0.clone()), Expr::Column(right.0.clone()));
    if !l.nullable(left.1)? || !r.nullable(right.1)? {
        return Ok(vec![(l, r)]);
    }
    let of = l.get_type(left.1)?;
    if of.is_null() {
        return Ok(vec![(l.is_null(), r.is_null())]);
    }
    let instead = ScalarValue::new_default(&of).map_err(|_| {
        Refusal::new(format!(
            "could not use {:?} in this subquery: values of its type are not compared",
            left.0.name
        ))
        .help("use the part of it that the subquery needs, under a name of its own in a subquery of FROM")
        .near(&left.0.name)
    })?;
    let or = |e: &Expr| when(e.clone().is_null(), lit(instead.clone())).otherwise(e.clone());
    Ok(vec![(l.clone().is_null(), r.clone().is_null()), (or(&l)?, or(&r)?)])
}

/// Join keys as of [`null_safe_key_pair`], for several columns.
pub(super) fn null_safe_keys(
    left: (&[Column], &DFSchema),
    right: (&[Column], &DFSchema),
) -> Planned<Vec<(Expr, Expr)>> {
    let mut keys = Vec::new();
    for (l, r) in left.0.iter().zip(right.0) {
        keys.extend(null_safe_key_pair((l, left.1), (r, right.1))?);
    }
    Ok(keys)
}
