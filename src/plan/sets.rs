//! EXCEPT and INTERSECT, with ALL and without.
//!
//! DataFusion plans each as a semi- or anti-join. That loses the counts of rows with ALL, and gives the columns
//! the types of the left side instead of the common types of both. So [`marked`] turns these joins into a node
//! of our own before types are coerced, and [`coerce_sides`] coerces the types of that node. Without ALL it then
//! becomes a join of distinct rows again ([`join_distinct_sets`]). With ALL the graph subtracts counts (`lower`), and a
//! batch plan numbers the copies of each row and joins by row and number ([`join_all_sets`]). Nulls equal each
//! other.

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

/// Which rows of the left side remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// A row remains as many times as the left side has it more often than the right side.
    Except,
    /// A row remains as many times as both sides have it.
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

/// A set operation as a node of the logical plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SetOperation {
    pub kind: SetKind,
    /// Whether copies of a row count (ALL); otherwise each row comes out once.
    pub all: bool,
    pub left: LogicalPlan,
    /// With `all`, its columns have the names of the left side's.
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
            // A column that is only NULL on one side takes the type of the other.
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

    /// The set operation that an extension node holds, if it is one.
    pub fn from_extension(extension: &Extension) -> Option<&SetOperation> {
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

    /// Whether a row remains depends only on rows equal to it, so a filter may be pushed down to both sides.
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

/// Replaces the joins for EXCEPT and INTERSECT by nodes of our own, in a plan fresh from SQL. At that point no
/// other join has nulls that equal each other.
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
        // For ALL over a DISTINCT the node without ALL means the same.
        let (all, left) = match join.left.as_ref() {
            LogicalPlan::Distinct(Distinct::All(rows)) => (false, rows.as_ref().clone()),
            rows => (true, rows.clone()),
        };
        let right = match all {
            true => with_names(&join.right, left.schema())?,
            false => join.right.as_ref().clone(),
        };
        Ok(Transformed::yes(SetOperation::new(kind, all, left, right)?.into_plan()))
    })
    .data()
}

/// The rows with their columns renamed to these names.
fn with_names(rows: &Arc<LogicalPlan>, names: &DFSchema) -> Result<LogicalPlan> {
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

/// Coerces both sides of a set operation to their common types; returns any other node as it is.
pub(super) fn coerce_sides(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Extension(extension) = &node else {
        return Ok(node);
    };
    let Some(set) = SetOperation::from_extension(extension) else {
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
    // The common types are those of a UNION of both sides.
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

/// Replaces set operations without ALL by joins.
pub(super) fn join_distinct_sets(plan: LogicalPlan) -> Result<LogicalPlan> {
    with_each(plan, |set| match set.all {
        true => Ok(None),
        false => {
            let left = LogicalPlan::Distinct(Distinct::All(Arc::new(set.left.clone())));
            joined(set.kind, left, set.right.clone()).map(Some)
        }
    })
}

/// Replaces all set operations by joins, for batch plans.
pub(super) fn join_all_sets(plan: LogicalPlan) -> Result<LogicalPlan> {
    with_each(join_distinct_sets(plan)?, |set| {
        let joined = joined(set.kind, numbered(&set.left)?, numbered(&set.right)?)?;
        let columns: Vec<Expr> = set.schema.columns().into_iter().map(Expr::Column).collect();
        let projection = Projection::try_new(columns, Arc::new(joined))?;
        Ok(Some(LogicalPlan::Projection(projection)))
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
        let made = SetOperation::from_extension(extension)
            .map(&mut make)
            .transpose()?
            .flatten();
        Ok(made.map_or_else(|| Transformed::no(node), Transformed::yes))
    })
    .data()
}

/// The rows, each numbered among its copies.
fn numbered(rows: &LogicalPlan) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = rows.schema().columns().into_iter().map(Expr::Column).collect();
    let number = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), vec![]);
    let number = Expr::from(number).partition_by(columns).build()?.alias("$copy");
    Ok(LogicalPlan::Window(Window::try_new(
        vec![number],
        Arc::new(rows.clone()),
    )?))
}

/// The left rows that have an equal row on the right side (INTERSECT), or that have none (EXCEPT).
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

/// Renames the columns of these rows where their names clash with those of `taken`.
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

/// An analyzer rule for live queries that replaces set operations by joins after types are coerced.
#[derive(Debug)]
pub struct SetsExpanded;

impl AnalyzerRule for SetsExpanded {
    fn name(&self) -> &str {
        "sets_expanded"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        join_all_sets(plan)
    }
}
