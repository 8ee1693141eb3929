//! Finds the outer columns that a plan uses, and resolves them to columns of the current rows.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, Result};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

use super::super::error::{Planned, Refusal};

/// The outer columns that a plan uses, each once, including those of nested subqueries.
pub(super) fn outer_columns(plan: &LogicalPlan) -> Vec<Column> {
    let mut used = OuterColumns::of_plan(plan);
    let lateral = std::mem::take(&mut used.lateral);
    add(&mut used.other, lateral);
    used.other
}

/// Those of the outer columns that a lateral subquery within the plan uses. Some of these may be columns of
/// tables beside it.
pub(super) fn lateral_columns(plan: &LogicalPlan) -> Vec<Column> {
    OuterColumns::of_plan(plan).lateral
}

/// The outer columns that a node's expressions use. `own` has the columns of the node's input.
pub(super) fn outer_columns_of<'a>(exprs: impl IntoIterator<Item = &'a Expr>, own: &DFSchemaRef) -> Vec<Column> {
    let mut columns = Vec::new();
    for expr in exprs {
        visit(expr, &mut |e| match e {
            Expr::OuterReferenceColumn(_, column) => add(&mut columns, vec![column.clone()]),
            e => {
                if let Some(subquery) = subquery_of(e) {
                    let mut used = outer_columns(&subquery.subquery);
                    used.retain(|column| !own.has_column(column));
                    add(&mut columns, used);
                }
            }
        });
    }
    columns
}

/// The subquery of an expression, if the expression is of a kind that has one.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(within) => Some(&within.subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        Expr::ScalarSubquery(subquery) => Some(subquery),
        _ => None,
    }
}

/// Whether an expression contains a subquery.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    let mut has = false;
    visit(expr, &mut |e| has |= subquery_of(e).is_some());
    has
}

/// Whether an expression names a column of an outer query; its subqueries do not count.
pub(super) fn names_outer(expr: &Expr) -> bool {
    let mut names = false;
    visit(expr, &mut |e| names |= matches!(e, Expr::OuterReferenceColumn(..)));
    names
}

/// Whether a plan contains a subquery or an outer column.
pub(super) fn has_subqueries(plan: &LogicalPlan) -> bool {
    plan.exists(|node| {
        let mut found = matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            found |= has_subquery(expr) || names_outer(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    })
    .expect("looking does not fail")
}

fn visit(expr: &Expr, with: &mut dyn FnMut(&Expr)) {
    expr.apply(|e| {
        with(e);
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("looking does not fail");
}

fn add(to: &mut Vec<Column>, columns: Vec<Column>) {
    for column in columns {
        if !to.contains(&column) {
            to.push(column);
        }
    }
}

#[derive(Default)]
struct OuterColumns {
    lateral: Vec<Column>,
    other: Vec<Column>,
}

impl OuterColumns {
    fn of_plan(plan: &LogicalPlan) -> OuterColumns {
        let mut used = OuterColumns::default();
        match plan {
            LogicalPlan::Subquery(subquery) => {
                used.lateral = outer_columns(&subquery.subquery);
                return used;
            }
            LogicalPlan::Join(join) => {
                used = OuterColumns::of_plan(&join.left);
                let mut right = OuterColumns::of_plan(&join.right);
                right.lateral.retain(|column| !join.left.schema().has_column(column));
                add(&mut used.lateral, right.lateral);
                add(&mut used.other, right.other);
            }
            other => {
                for input in other.inputs() {
                    let below = OuterColumns::of_plan(input);
                    add(&mut used.lateral, below.lateral);
                    add(&mut used.other, below.other);
                }
            }
        }
        let own: DFSchemaRef = merge_schema(&plan.inputs()).into();
        plan.apply_expressions(|expr| {
            add(&mut used.other, outer_columns_of([expr], &own));
            Ok(TreeNodeRecursion::Continue)
        })
        .expect("looking does not fail");
        used
    }
}

/// Resolves the names in the expressions of a node, and in their subqueries, to the current rows.
#[derive(Clone)]
pub(super) struct NameScope {
    /// The columns of the node's input, by whose names its expressions refer to them.
    own: DFSchemaRef,
    /// For each of these, its expression over the current rows.
    columns: Vec<Expr>,
    /// The outer columns, each with the column of the current rows that holds it.
    outer: Vec<(Column, Column)>,
    /// The current rows, before subqueries are joined to them.
    pub base: LogicalPlan,
}

impl NameScope {
    /// A scope for rows that have the input's columns under their own names.
    pub fn new(own: DFSchemaRef, outer: Vec<(Column, Column)>, base: LogicalPlan) -> NameScope {
        let columns = own.columns().into_iter().map(Expr::Column).collect();
        NameScope {
            own,
            columns,
            outer,
            base,
        }
    }

    /// A scope in which the input's columns are expressions over the rows, and which has no outer columns.
    pub fn shown(own: DFSchemaRef, columns: Vec<Expr>, base: LogicalPlan) -> NameScope {
        NameScope {
            own,
            columns,
            outer: vec![],
            base,
        }
    }

    /// The scope over other rows that have the same columns.
    pub fn on(mut self, base: LogicalPlan) -> NameScope {
        self.base = base;
        self
    }

    /// The outer columns, each with the column of the current rows that holds it.
    pub fn outer(&self) -> &[(Column, Column)] {
        &self.outer
    }

    /// The column of the current rows to which a name in a subquery refers.
    pub fn resolve(&self, name: &Column) -> Planned<Column> {
        let own = self.own.maybe_index_of_column(name).map(|n| &self.columns[n]);
        match own {
            Some(Expr::Column(column)) => Ok(column.clone()),
            Some(_) => Err(unknown(name).into()),
            None => self.resolve_outer(name),
        }
    }

    /// An expression of a subquery with the columns of the current rows for its outer columns. Its other columns and
    /// its subqueries stay as they are.
    pub fn resolve_all(&self, expr: Expr) -> Planned<Expr> {
        let mut failed = None;
        let expr = replaced(expr, &mut |e| match e {
            Expr::OuterReferenceColumn(_, name) => match self.resolve(name) {
                Ok(column) => Some(Expr::Column(column)),
                Err(error) => {
                    failed = Some(error);
                    None
                }
            },
            _ => None,
        })?;
        failed.map_or(Ok(expr), Err)
    }

    fn resolve_outer(&self, name: &Column) -> Planned<Column> {
        let pair = self.outer.iter().find(|(outer, _)| outer == name);
        pair.map(|(_, column)| column.clone())
            .ok_or_else(|| unknown(name).into())
    }

    /// Whether all these names can be resolved.
    pub fn knows(&self, names: &[Column]) -> bool {
        names.iter().all(|name| self.resolve(name).is_ok())
    }

    /// A node's expression over the current rows. Its subqueries stay as they are.
    pub fn over_rows(&self, expr: Expr) -> Planned<Expr> {
        let mut missing = None;
        let expr = replaced(expr, &mut |e| match e {
            Expr::OuterReferenceColumn(_, name) => match self.resolve_outer(name) {
                Ok(column) => Some(Expr::Column(column)),
                Err(error) => {
                    missing = Some(error);
                    None
                }
            },
            Expr::Column(column) => self.own.maybe_index_of_column(column).map(|n| self.columns[n].clone()),
            _ => None,
        })?;
        match missing {
            Some(error) => Err(error),
            None => Ok(expr),
        }
    }
}

/// The expression with some of its parts replaced, from the inside out. Subqueries stay as they are.
pub(super) fn replaced(expr: Expr, with: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Result<Expr> {
    expr.transform_up(|e| {
        Ok(match with(&e) {
            Some(new) => Transformed::yes(new),
            None => Transformed::no(e),
        })
    })
    .data()
}

fn unknown(name: &Column) -> Refusal {
    Refusal::new(format!(
        "could not use the outer query's column {:?} in this subquery",
        name.name
    ))
    .help("give it a name in a subquery of FROM, and use that one's column")
    .near(&name.name)
}
