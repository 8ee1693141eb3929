//! Bounds aggregates whose value grows with their group.
//!
//! If a value takes more than `max_value` bytes, its group (or, for a window function, its row) becomes a dead
//! letter. The graph checks values after computing them; batch plans get filters that drop the same groups and
//! rows.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::sizes;

/// Whether the aggregate of this name gathers its arguments.
pub fn gathers(function: &str) -> bool {
    matches!(function, "array_agg" | "string_agg")
}

/// The bytes of the only value in an array, if they are more than `most`.
pub fn value_above(value: &dyn Array, most: u64) -> Option<u64> {
    sizes::above(value, most).map(|(_, bytes)| bytes)
}

/// The message for a value of at least `bytes` bytes.
pub fn too_long(function: &str, bytes: u64, most: u64) -> String {
    let call = match function {
        super::joined::NAME => function.to_string(),
        _ => format!("{function}()"),
    };
    format!(
        "could not compute {call}: the value may take {}, and max_value is {}; ask for less, or raise max_value in dataflow.toml",
        sizes::shown(bytes),
        sizes::shown(most)
    )
}

/// The plan without the groups and window rows that have a gathered value above `most` bytes.
///
/// # Errors
/// None occur for an analysed plan.
pub fn without_large_values(plan: LogicalPlan, most: u64) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let calls: &[Expr] = match &node {
            LogicalPlan::Aggregate(aggregate) => &aggregate.aggr_expr,
            LogicalPlan::Window(window) => &window.window_expr,
            _ => return Ok(Transformed::no(node)),
        };
        let first = node.schema().fields().len() - calls.len();
        let gathered: Vec<Expr> = (calls.iter().enumerate())
            .filter(|(_, call)| is_gathering(call))
            .map(|(n, _)| Expr::Column(Column::from(node.schema().qualified_field(first + n))))
            .collect();
        let fits = Arc::new(ScalarUDF::from(Fits::new(most)));
        let conditions = gathered.into_iter().map(|column| fits.call(vec![column]));
        match conditions.reduce(Expr::and) {
            Some(condition) => Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(
                condition,
                Arc::new(node),
            )?))),
            None => Ok(Transformed::no(node)),
        }
    })
    .data()
}

fn is_gathering(call: &Expr) -> bool {
    match call.clone().unalias_nested().data {
        Expr::AggregateFunction(call) => gathers(call.func.name()),
        Expr::WindowFunction(call) => gathers(call.fun.name()),
        _ => false,
    }
}

/// A function that tells whether a value takes at most so many bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fits {
    most: u64,
    signature: Signature,
}

impl Fits {
    fn new(most: u64) -> Fits {
        Fits {
            most,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Fits {
    fn name(&self) -> &str {
        "fits"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.args[0].to_array(args.number_rows)?;
        let fits = |row| sizes::bytes(&values, row, row + 1) <= self.most;
        let fits: BooleanArray = (0..values.len()).map(|row| Some(fits(row))).collect();
        Ok(ColumnarValue::Array(Arc::new(fits)))
    }
}
