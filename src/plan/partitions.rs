//! What may partition a table. Delta keeps a partition's values as text in the log: columns without such a text are refused,
//! and rows whose value has none that every engine reads back equal are dead letters, rather than other rows than those that
//! were computed.

use arrow::datatypes::{DataType, SchemaRef};

use super::PlannedExpectation;
use super::compile::Compiler;
use super::error::{Planned, Refusal};
use crate::definition::OnViolation;

const FOUR_DIGITS: &str = "is of the years 1 to 9999";

/// What is wrong with the columns that a table is to be partitioned by.
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

impl Compiler<'_> {
    /// What a row must keep so that its partition reads back as it is: Delta takes an empty text for null, and dates have years
    /// of four digits.
    pub(super) fn readable(&self, schema: &SchemaRef, column: usize) -> Planned<Option<PlannedExpectation>> {
        let field = schema.field(column);
        let name = field.name();
        let (rule, check) = match field.data_type() {
            DataType::Utf8 => ("is not empty", format!("\"{name}\" <> ''")),
            DataType::Date32 => (
                FOUR_DIGITS,
                format!("\"{name}\" BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"),
            ),
            // Not by its date, which the farthest timestamps do not have.
            DataType::Timestamp(..) => (
                FOUR_DIGITS,
                format!(
                    "\"{name}\" BETWEEN arrow_cast('0001-01-01T00:00:00', 'Timestamp(Microsecond, None)') \
                     AND arrow_cast('9999-12-31T23:59:59.999999', 'Timestamp(Microsecond, None)')"
                ),
            ),
            _ => return Ok(None),
        };
        Ok(Some(PlannedExpectation {
            name: format!("{name} partitions the table and {rule}"),
            check: self.check(&check, schema)?,
            on_violation: OnViolation::Drop,
        }))
    }
}
