//! EXCEPT and INTERSECT, with ALL and without.
//!
//! DataFusion makes a semi- or anti-join of each: that loses the counts of rows with ALL, and the columns keep the types of
//! the left side, where they are those that both sides have in common. So [`marked`] turns these joins into a node of our own
//! before types are agreed on, which [`agreed`] then sees to. Without ALL it becomes a join of distinct rows again
//! ([`settled`]); with ALL the graph subtracts counts (`lower`), and a batch numbers the copies of each row and joins by row
//! and number ([`expanded`]). Nulls equal each other.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinConstraint, JoinType, NullEquality, Result};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Distinct, EmptyRelation, Expr, ExprFunctionExt, Extension, Join, LogicalPlan, Projection, Union,
    UserDefinedLogicalNodeCore, Window, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use super::numbers;

/// What becomes of the rows of the left side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// A row stays as often as it is there more often than on the right side.
    Except,
    /// A row stays as often as it is on both sides.
    Intersect,
}

impl SetKind {
    /// `except` or `intersect`.
    pub(super) fn word(self) -> &'static str {
        match self {
            SetKind::Except => "except",
            SetKind::Intersect => "intersect",
        }
    }
}

/// A set operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SetOperation {
    pub kind: SetKind,
    /// Whether rows count; else each is there once.
    pub all: bool,
    pub left: LogicalPlan,
    /// With `all` its columns have the names of the left side's.
    pub right: LogicalPlan,
    schema: DFSchemaRef,
}

impl PartialOrd for SetOperation {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let of = |set: &SetOperation| (set.kind, set.all);
        match of(self).partial_cmp(&of(other)) {
            Some(Ordering::Equal) => match self.left.partial_cmp(&other.left) {
                Some(Ordering::Equal) => self.right.partial_cmp(&other.right),
                decided => decided,
            },
            decided => decided,
        }
    }
}

impl SetOperation {
    fn new(kind: SetKind, all: bool, left: LogicalPlan, right: LogicalPlan) -> Result<SetOperation> {
        let fields = left.schema().iter().enumerate().map(|(n, (qualifier, field))| {
            let other = right.schema().field(n);
            let nullable = match kind {
                SetKind::Except => field.is_nullable(),
                SetKind::Intersect => field.is_nullable() && other.is_nullable(),
            };
            // What is NULL alone on one side is of the other's type.
            let of = match field.data_type() {
                DataType::Null => other.data_type(),
                of => of,
            };
            let field = Field::new(field.name(), of.clone(), nullable);
            (qualifier.cloned(), Arc::new(field))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), left.schema().metadata().clone())?;
        Ok(SetOperation {
            kind,
            all,
            left,
            right,
            schema: Arc::new(schema),
        })
    }

    fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The set operation that a node is.
    pub fn of(extension: &Extension) -> Option<&SetOperation> {
        extension.node.as_any().downcast_ref()
    }
}

impl UserDefinedLogicalNodeCore for SetOperation {
    fn name(&self) -> &str {
        match self.kind {
            SetKind::Except => "Except",
            SetKind::Intersect => "Intersect",
        }
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    /// Which rows stay depends on no other rows than their equals, so that a filter may go below, to both sides.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn fmt_for_explain(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}{}", self.name(), if self.all { " All" } else { "" })
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let sides: [LogicalPlan; 2] = inputs
            .try_into()
            .map_err(|_| datafusion::common::internal_datafusion_err!("a set operation has two sides"))?;
        let [left, right] = sides;
        SetOperation::new(self.kind, self.all, left, right)
    }
}

/// The plan that SQL was read as, with nodes of our own for EXCEPT and INTERSECT. Nothing else is a join in which nulls
/// equal each other there.
pub fn marked(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(join) = &node else {
            return Ok(Transformed::no(node));
        };
        let kind = match join.join_type {
            JoinType::LeftAnti => SetKind::Except,
            JoinType::LeftSemi => SetKind::Intersect,
            _ => return Ok(Transformed::no(node)),
        };
        if join.null_equality != NullEquality::NullEqualsNull {
            return Ok(Transformed::no(node));
        }
        // With ALL over rows that are distinct anyway it is the same.
        let (all, left) = match join.left.as_ref() {
            LogicalPlan::Distinct(Distinct::All(rows)) => (false, rows.as_ref().clone()),
            rows => (true, rows.clone()),
        };
        let right = match all {
            true => called(&join.right, left.schema())?,
            false => join.right.as_ref().clone(),
        };
        Ok(Transformed::yes(SetOperation::new(kind, all, left, right)?.into_plan()))
    })
    .data()
}

/// The rows under the names of other columns.
fn called(rows: &Arc<LogicalPlan>, names: &DFSchema) -> Result<LogicalPlan> {
    let columns = rows.schema().columns().into_iter().zip(names.iter());
    let columns = columns.map(|(column, (qualifier, field))| {
        let named = Column::new(qualifier.cloned(), field.name());
        match column == named {
            true => Expr::Column(column),
            false => Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()),
        }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(
        columns.collect::<Vec<_>>(),
        rows.clone(),
    )?))
}

/// A node whose sides have the types that they have in common; every other node as it is.
pub(super) fn agreed(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Extension(extension) = &node else {
        return Ok(node);
    };
    let Some(set) = SetOperation::of(extension) else {
        return Ok(node);
    };
    let types = |side: &LogicalPlan| {
        side.schema()
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect::<Vec<_>>()
    };
    if types(&set.left) == types(&set.right) {
        return Ok(node);
    }
    // The types of a UNION of both.
    let rows = |side: &LogicalPlan| {
        Arc::new(LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: false,
            schema: side.schema().clone(),
        }))
    };
    let union = LogicalPlan::Union(Union {
        inputs: vec![rows(&set.left), rows(&set.right)],
        schema: set.left.schema().clone(),
    });
    let union = numbers::agreed_plan(union)?;
    let union = TypeCoercion::new().analyze(union, &ConfigOptions::default())?;
    let to: Vec<Option<DataType>> = types(&union)
        .into_iter()
        .map(|of| (!of.is_null()).then_some(of))
        .collect();
    let side = |side: &LogicalPlan| numbers::with_types(&Arc::new(side.clone()), &to).map(Arc::unwrap_or_clone);
    let (left, right) = (side(&set.left)?, side(&set.right)?);
    Ok(SetOperation::new(set.kind, set.all, left, right)?.into_plan())
}

/// The plan with joins in the place of set operations without ALL.
pub(super) fn settled(plan: LogicalPlan) -> Result<LogicalPlan> {
    with_each(plan, |set| match set.all {
        true => Ok(None),
        false => {
            let left = LogicalPlan::Distinct(Distinct::All(Arc::new(set.left.clone())));
            joined(set.kind, left, set.right.clone()).map(Some)
        }
    })
}

/// The plan with joins in the place of all set operations, for batch.
pub(super) fn expanded(plan: LogicalPlan) -> Result<LogicalPlan> {
    with_each(settled(plan)?, |set| {
        let joined = joined(set.kind, numbered(&set.left)?, numbered(&set.right)?)?;
        let columns: Vec<Expr> = set.schema.columns().into_iter().map(Expr::Column).collect();
        let kept = Projection::try_new(columns, Arc::new(joined))?;
        Ok(Some(LogicalPlan::Projection(kept)))
    })
}

fn with_each(
    plan: LogicalPlan,
    mut make: impl FnMut(&SetOperation) -> Result<Option<LogicalPlan>>,
) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Extension(extension) = &node else {
            return Ok(Transformed::no(node));
        };
        let made = SetOperation::of(extension).map(&mut make).transpose()?.flatten();
        Ok(made.map_or_else(|| Transformed::no(node), Transformed::yes))
    })
    .data()
}

/// The rows, each with its number among its equals.
fn numbered(rows: &LogicalPlan) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = rows.schema().columns().into_iter().map(Expr::Column).collect();
    let number = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), vec![]);
    let number = Expr::from(number).partition_by(columns).build()?.alias("$copy");
    Ok(LogicalPlan::Window(Window::try_new(
        vec![number],
        Arc::new(rows.clone()),
    )?))
}

/// The left rows that have an equal on the right side, or those that have none.
fn joined(kind: SetKind, left: LogicalPlan, right: LogicalPlan) -> Result<LogicalPlan> {
    let right = renamed(right, left.schema())?;
    let keys = left.schema().columns().into_iter().zip(right.schema().columns());
    let on = keys
        .map(|(left, right)| (Expr::Column(left), Expr::Column(right)))
        .collect();
    let join_type = match kind {
        SetKind::Except => JoinType::LeftAnti,
        SetKind::Intersect => JoinType::LeftSemi,
    };
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?))
}

/// The rows under other names, where they have names of these columns.
fn renamed(rows: LogicalPlan, taken: &DFSchema) -> Result<LogicalPlan> {
    if !rows.schema().columns().iter().any(|column| taken.has_column(column)) {
        return Ok(rows);
    }
    let columns = rows.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(n, column)| Expr::Column(column).alias(format!("$right{n}")));
    Ok(LogicalPlan::Projection(Projection::try_new(
        columns.collect::<Vec<_>>(),
        Arc::new(rows),
    )?))
}

/// What makes set operations of questions that are asked joins, once types are agreed on.
#[derive(Debug)]
pub struct SetsExpanded;

impl AnalyzerRule for SetsExpanded {
    fn name(&self) -> &str {
        "sets_expanded"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        expanded(plan)
    }
}
