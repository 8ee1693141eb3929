//! Which columns of outer queries a plan uses, and which columns of the rows at hand these are.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, Result};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

use super::super::error::{Planned, Refusal};

/// The columns of outer queries that a plan uses, nested subqueries included, each once.
pub(super) fn outer_columns(plan: &LogicalPlan) -> Vec<Column> {
    let mut used = Used::of(plan);
    let lateral = std::mem::take(&mut used.lateral);
    add(&mut used.other, lateral);
    used.other
}

/// Of these, the ones that a lateral subquery below uses: columns of the tables beside it may be among them.
pub(super) fn lateral_columns(plan: &LogicalPlan) -> Vec<Column> {
    Used::of(plan).lateral
}

/// The columns of outer queries that a node's expressions use, where `own` has the columns of its input.
pub(super) fn outer_columns_of<'a>(exprs: impl IntoIterator<Item = &'a Expr>, own: &DFSchemaRef) -> Vec<Column> {
    let mut found = Vec::new();
    for expr in exprs {
        visit(expr, &mut |e| match e {
            Expr::OuterReferenceColumn(_, column) => add(&mut found, vec![column.clone()]),
            e => {
                if let Some(subquery) = subquery_of(e) {
                    let mut used = outer_columns(&subquery.subquery);
                    used.retain(|column| !own.has_column(column));
                    add(&mut found, used);
                }
            }
        });
    }
    found
}

/// The subquery that an expression is about.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(within) => Some(&within.subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        Expr::ScalarSubquery(subquery) => Some(subquery),
        _ => None,
    }
}

/// Whether an expression holds a subquery.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    let mut found = false;
    visit(expr, &mut |e| found |= subquery_of(e).is_some());
    found
}

/// Whether an expression itself, its subqueries aside, names a column of an outer query.
pub(super) fn names_outer(expr: &Expr) -> bool {
    let mut found = false;
    visit(expr, &mut |e| found |= matches!(e, Expr::OuterReferenceColumn(..)));
    found
}

/// Whether anything in a plan is about subqueries.
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
struct Used {
    lateral: Vec<Column>,
    other: Vec<Column>,
}

impl Used {
    fn of(plan: &LogicalPlan) -> Used {
        let mut used = Used::default();
        match plan {
            LogicalPlan::Subquery(subquery) => {
                used.lateral = outer_columns(&subquery.subquery);
                return used;
            }
            LogicalPlan::Join(join) => {
                used = Used::of(&join.left);
                let mut right = Used::of(&join.right);
                right.lateral.retain(|column| !join.left.schema().has_column(column));
                add(&mut used.lateral, right.lateral);
                add(&mut used.other, right.other);
            }
            other => {
                for input in other.inputs() {
                    let below = Used::of(input);
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

/// How the expressions of a node, and the subqueries in them, name the columns of the rows below it.
#[derive(Clone)]
pub(super) struct Scope {
    /// The columns of the node's input, by which its expressions name them.
    own: DFSchemaRef,
    /// What each of these is over the rows at hand.
    columns: Vec<Expr>,
    /// Columns of outer queries, and what each is over the rows at hand.
    outer: Vec<(Column, Column)>,
    /// The rows at hand, before subqueries are joined to them.
    pub base: LogicalPlan,
}

impl Scope {
    /// Where the rows at hand have the input's columns under their own names.
    pub fn new(own: DFSchemaRef, outer: Vec<(Column, Column)>, base: LogicalPlan) -> Scope {
        let columns = own.columns().into_iter().map(Expr::Column).collect();
        Scope {
            own,
            columns,
            outer,
            base,
        }
    }

    /// Where the input's columns are expressions over the rows at hand, which know no outer query.
    pub fn shown(own: DFSchemaRef, columns: Vec<Expr>, base: LogicalPlan) -> Scope {
        Scope {
            own,
            columns,
            outer: vec![],
            base,
        }
    }

    /// With other rows at hand, which have the same columns.
    pub fn on(mut self, base: LogicalPlan) -> Scope {
        self.base = base;
        self
    }

    /// Columns of outer queries, and what each is over the rows at hand.
    pub fn outer(&self) -> &[(Column, Column)] {
        &self.outer
    }

    /// The column over the rows at hand that a subquery of a node's expression names so.
    pub fn resolve(&self, name: &Column) -> Planned<Column> {
        let own = self.own.maybe_index_of_column(name).map(|n| &self.columns[n]);
        match own {
            Some(Expr::Column(column)) => Ok(column.clone()),
            Some(_) => Err(unknown(name).into()),
            None => self.resolve_outer(name),
        }
    }

    fn resolve_outer(&self, name: &Column) -> Planned<Column> {
        let found = self.outer.iter().find(|(outer, _)| outer == name);
        found
            .map(|(_, column)| column.clone())
            .ok_or_else(|| unknown(name).into())
    }

    /// Whether all these can be resolved.
    pub fn knows(&self, names: &[Column]) -> bool {
        names.iter().all(|name| self.resolve(name).is_ok())
    }

    /// A node's expression over the rows at hand; its subqueries are left alone.
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

/// The expression with some of its parts replaced, from the inside out; subqueries are left alone.
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
