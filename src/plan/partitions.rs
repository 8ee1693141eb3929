//! Checks the columns by which a table is partitioned. Delta keeps a partition's value as text in the log.
//! Columns whose type has no such text are refused; a row whose value has no text that every engine reads back
//! as an equal value becomes a dead letter, so that readers never see other rows than were computed.

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr as Logical, ExprSchemable, LogicalPlan};

use super::PlannedExpectation;
use super::compile::Compiler;
use super::error::{Planned, Refusal};
use super::times;
use crate::definition::OnViolation;

/// The name of the expectation that a date or moment is in the calendar.
pub(super) const FOUR_DIGITS: &str = "is of the years 1 to 9999";

/// Functions that yield dates and moments in the calendar if they are given such.
const WITHIN: [&str; 13] = [
    "date_bin",
    "date_trunc",
    "coalesce",
    "to_date",
    "make_date",
    "make_timestamp",
    "to_timestamp",
    "to_timestamp_seconds",
    "to_timestamp_millis",
    "to_timestamp_micros",
    "to_timestamp_nanos",
    "from_unixtime",
    "nullif",
];

/// Whether a plan adds to dates or moments, or makes them of numbers, so that they may lie outside of the calendar.
pub(super) fn are_computed(plan: &LogicalPlan) -> Result<bool> {
    let mut computed = false;
    plan.apply_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_)) {
            return Ok(TreeNodeRecursion::Continue); // an expression that is only compared does not get into a table
        }
        let mut schema = DFSchema::empty();
        node.inputs().iter().for_each(|input| schema.merge(input.schema()));
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                let may_leave = match part {
                    Logical::BinaryExpr(_) | Logical::WindowFunction(_) => true,
                    part if matches!(times::operation_of(part), Some(times::TimeOperation::Cast(..))) => false,
                    Logical::ScalarFunction(call) => !WITHIN.contains(&call.name()),
                    Logical::Cast(cast) => !cast.expr.get_type(&schema).is_ok_and(|from| from.is_temporal()),
                    _ => false,
                };
                computed |= may_leave && part.get_type(&schema).is_ok_and(|of| is_moment(&of));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(computed)
}

fn is_moment(of: &DataType) -> bool {
    match of {
        DataType::Timestamp(..) | DataType::Date32 => true,
        DataType::List(item) => is_moment(item.data_type()),
        _ => false,
    }
}

/// Refusals of the columns by which a table is to be partitioned.
pub(super) fn mistakes(schema: &SchemaRef, partition_by: &[usize]) -> Vec<Refusal> {
    let mut mistakes = Vec::new();
    for (n, column) in partition_by.iter().enumerate() {
        let field = schema.field(*column);
        let name = field.name();
        if partition_by[..n].contains(column) {
            let twice = Refusal::new(format!("could not partition by the column {name:?} twice"));
            mistakes.push(twice.help("name it once in partition_by"));
        } else if field.data_type().is_nested() || matches!(field.data_type(), DataType::Binary) {
            let kind = if field.data_type().is_nested() {
                "nested"
            } else {
                "binary"
            };
            let untold = Refusal::new(format!("could not partition by the {kind} column {name:?}"));
            mistakes
                .push(untold.help("partition by a column of another type: Delta keeps a partition's value as text"));
        }
    }
    if mistakes.is_empty() && partition_by.len() == schema.fields().len() {
        let all = Refusal::new("could not partition by all columns of the table");
        mistakes.push(all.help("leave one out of partition_by: Delta's files need a column of their own"));
    }
    mistakes
}

/// The condition that a date or moment is in the calendar; other engines and languages end it with the year 9999.
fn in_calendar(field: &Field) -> Option<String> {
    let name = field.name();
    match field.data_type() {
        DataType::Date32 => Some(format!("\"{name}\" BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'")),
        // The date would not do: the farthest timestamps are beyond the range of dates.
        DataType::Timestamp(..) => Some(format!(
            "\"{name}\" BETWEEN arrow_cast('0001-01-01T00:00:00', 'Timestamp(Microsecond, None)') \
             AND arrow_cast('9999-12-31T23:59:59.999999', 'Timestamp(Microsecond, None)')"
        )),
        _ => None,
    }
}

impl Compiler<'_> {
    /// The expectation that a column of computed dates or moments is in the calendar. One value outside of it
    /// keeps some readers from opening the table at all.
    pub(super) fn computed(&self, schema: &SchemaRef, column: usize) -> Planned<Option<PlannedExpectation>> {
        let field = schema.field(column);
        let Some(check) = in_calendar(field) else {
            return Ok(None);
        };
        Ok(Some(PlannedExpectation {
            name: format!("{} {FOUR_DIGITS}", field.name()),
            check: self.check(&check, schema)?,
            on_violation: OnViolation::Drop,
        }))
    }

    /// The expectation that a row's partition value reads back as it is: Delta reads an empty text as null, and
    /// dates must have years of four digits.
    pub(super) fn readable(&self, schema: &SchemaRef, column: usize) -> Planned<Option<PlannedExpectation>> {
        let field = schema.field(column);
        let name = field.name();
        let (rule, check) = match field.data_type() {
            DataType::Utf8 => ("is not empty", format!("\"{name}\" <> ''")),
            _ => match in_calendar(field) {
                Some(check) => (FOUR_DIGITS, check),
                None => return Ok(None),
            },
        };
        Ok(Some(PlannedExpectation {
            name: format!("{name} partitions the table and {rule}"),
            check: self.check(&check, schema)?,
            on_violation: OnViolation::Drop,
        }))
    }
}
