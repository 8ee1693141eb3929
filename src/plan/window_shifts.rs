//! `lead` and `lag` that are right with IGNORE NULLS in every plan of DataFusion. They are DataFusion's own
//! functions but for two things:
//!
//! 1. Where nulls are ignored, the whole partition is computed at once. DataFusion also has a way row by row
//!    (`BoundedWindowAggExec`), which loses count of the rows ahead: over the values 10, 20, 30, 40, null, 70 it
//!    has null for the third row's `lead(v, 2) IGNORE NULLS`, which is 70.
//! 2. A LIMIT that is pushed below a shift keeps as many extra rows as the shift's distance, whichever its
//!    direction. DataFusion takes `lag` for a function that needs no rows ahead, but it does if its distance is
//!    negative, or if it is computed backwards over rows of the opposite order.
//!
//! The differential graph, which keeps the tables, always computes whole partitions, and needs neither.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_window::lead_lag::{lag_udwf, lead_udwf};
use datafusion::logical_expr::function::{ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::prelude::SessionContext;

/// Registers `lead` and `lag` in a session, in place of DataFusion's.
pub(super) fn register(context: &SessionContext) {
    for function in [lead_udwf(), lag_udwf()] {
        context.register_udwf(WindowUDF::from(Shift { function }));
    }
}

/// `lead` or `lag`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shift {
    /// DataFusion's.
    function: Arc<WindowUDF>,
}

impl WindowUDFImpl for Shift {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.function.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let ignores_nulls = args.ignore_nulls();
        let evaluator = self.function.partition_evaluator_factory(args)?;
        if ignores_nulls {
            return Ok(Box::new(WholePartition { evaluator }));
        }
        Ok(evaluator)
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        self.function.field(args)
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.function.sort_options()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    /// A function that is computed backwards remains the same function: its evaluator is told that it runs
    /// reversed, and negates the distance.
    fn reverse_expr(&self) -> ReversedUDWF {
        match self.function.reverse_expr() {
            ReversedUDWF::Reversed(function) => ReversedUDWF::Reversed(Arc::new(WindowUDF::from(Shift { function }))),
            other => other,
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    /// By (2). DataFusion calls this only for functions that run row by row, so never where nulls are ignored.
    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        let distance = match args {
            [_] => Some(1),
            [_, distance, ..] => match distance.downcast_ref::<Literal>().map(Literal::value) {
                // DataFusion adds distances without a check for overflow.
                Some(ScalarValue::Int64(Some(distance))) => u32::try_from(distance.unsigned_abs()).ok(),
                _ => None,
            },
            [] => None,
        };
        distance.map_or(LimitEffect::Unknown, |distance| {
            LimitEffect::Relative(distance as usize)
        })
    }
}

/// Computes a whole partition at once, by (1).
#[derive(Debug)]
struct WholePartition {
    evaluator: Box<dyn PartitionEvaluator>,
}

impl PartitionEvaluator for WholePartition {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        self.evaluator.evaluate_all(values, num_rows)
    }

    fn supports_bounded_execution(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use arrow::util::display::array_value_to_string;
    use datafusion::physical_plan::displayable;

    use super::super::batch_context;

    const ROWS: &str = "(VALUES (1, 10), (2, 20), (3, 30), (4, 40), (5, NULL), (6, NULL), (7, 70), (8, 80), (9, NULL)) \
                        AS t(id, v)";
    const TO_CURRENT: &str = "ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW";

    /// The physical plan of a call over [`ROWS`], and its value for each row by `id`.
    async fn answer(call: &str, limit: &str) -> (String, String) {
        let sql = format!("SELECT {call} AS n FROM {ROWS} ORDER BY id {limit}");
        let frame = batch_context().sql(&sql).await.expect(&sql);
        let plan = frame.clone().create_physical_plan().await.expect(&sql);
        let mut values = Vec::new();
        for batch in frame.collect().await.expect(&sql) {
            let column = batch.column(0);
            values.extend((0..column.len()).map(|row| {
                if column.is_null(row) {
                    return "null".to_string();
                }
                array_value_to_string(column, row).unwrap()
            }));
        }
        (displayable(plan.as_ref()).indent(false).to_string(), values.join(", "))
    }

    /// `lead(v, 2) IGNORE NULLS` was null in queries and in `verify` where the value after next came after nulls.
    #[tokio::test]
    async fn a_shift_over_nulls_counts_the_values_alone() {
        for (call, limit, expected) in [
            (
                "lead(v, 2) IGNORE NULLS OVER (ORDER BY id)",
                "",
                "30, 40, 70, 80, 80, 80, null, null, null",
            ),
            (
                "lag(v, -2) IGNORE NULLS OVER (ORDER BY id)",
                "",
                "30, 40, 70, 80, 80, 80, null, null, null",
            ),
            (
                "lag(v, 2) IGNORE NULLS OVER (ORDER BY id DESC)",
                "",
                "30, 40, 70, 80, 80, 80, null, null, null",
            ),
            (
                "lead(v, 2, 0) IGNORE NULLS OVER (ORDER BY id)",
                "",
                "30, 40, 70, 80, 80, 80, 0, 0, 0",
            ),
            (
                "lead(v) IGNORE NULLS OVER (ORDER BY id)",
                "",
                "20, 30, 40, 70, 70, 70, 80, null, null",
            ),
            (
                "lag(v, 2) IGNORE NULLS OVER (ORDER BY id)",
                "",
                "null, null, 10, 20, 30, 30, 30, 40, 70",
            ),
            (
                "lead(v, -2) IGNORE NULLS OVER (ORDER BY id)",
                "",
                "null, null, 10, 20, 30, 30, 30, 40, 70",
            ),
            (
                format!("lead(v, 2) IGNORE NULLS OVER ({TO_CURRENT})").as_str(),
                "",
                "30, 40, 70, 80, 80, 80, null, null, null",
            ),
            (
                format!("lead(v, 5) IGNORE NULLS OVER ({TO_CURRENT})").as_str(),
                "LIMIT 1",
                "80",
            ),
            (
                format!("lag(v, -5) IGNORE NULLS OVER ({TO_CURRENT})").as_str(),
                "LIMIT 1",
                "80",
            ),
        ] {
            let (plan, values) = answer(call, limit).await;
            assert_eq!(values, expected, "{call} {limit}");
            assert!(!plan.contains("BoundedWindowAggExec"), "{call} {limit}: {plan}");
        }
    }

    /// `lag(v, -2)` over a frame that ends at the current row was null under a LIMIT.
    #[tokio::test]
    async fn a_shift_over_all_rows_is_computed_row_by_row_and_reaches_past_a_limit() {
        for (call, limit, expected) in [
            (
                "lead(v, 2) OVER (ORDER BY id)",
                "",
                "30, 40, null, null, 70, 80, null, null, null",
            ),
            (
                "lag(v) OVER (ORDER BY id)",
                "",
                "null, 10, 20, 30, 40, null, null, 70, 80",
            ),
            (
                "lag(v, -2, 0) RESPECT NULLS OVER (ORDER BY id)",
                "",
                "30, 40, null, null, 70, 80, null, 0, 0",
            ),
            (format!("lead(v, 2) OVER ({TO_CURRENT})").as_str(), "LIMIT 1", "30"),
            (format!("lag(v, -2) OVER ({TO_CURRENT})").as_str(), "LIMIT 2", "30, 40"),
            (format!("lag(v) OVER ({TO_CURRENT})").as_str(), "LIMIT 2", "null, 10"),
        ] {
            let (plan, values) = answer(call, limit).await;
            assert_eq!(values, expected, "{call} {limit}");
            assert!(plan.contains("BoundedWindowAggExec"), "{call} {limit}: {plan}");
        }
    }

    /// One of the two is computed backwards over the other's order.
    #[tokio::test]
    async fn a_shift_over_nulls_is_the_same_backwards() {
        for other in [
            "row_number() OVER (ORDER BY id)",
            "row_number() OVER (ORDER BY id DESC)",
        ] {
            for call in [
                "lead(v, 2) IGNORE NULLS OVER (ORDER BY id)",
                "lag(v, 2) IGNORE NULLS OVER (ORDER BY id DESC)",
            ] {
                let (_, values) = answer(&format!("{call} AS m, {other}"), "").await;
                assert_eq!(values, "30, 40, 70, 80, 80, 80, null, null, null", "{call} {other}");
            }
        }
    }
}
