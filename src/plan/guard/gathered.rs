//! Aggregates whose value grows with their group.
//!
//! A value above `max_value` makes its group (or, of a window, its row) a dead letter. The graph looks at what it has
//! computed; a plan that runs in batch is given filters that leave the same groups and rows out.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::sizes;

/// Whether an aggregate of this name gathers what it is given.
pub fn gathers(function: &str) -> bool {
    matches!(function, "array_agg" | "string_agg")
}

/// The bytes of the value in an array of one, where they are more than `most`.
pub fn value_above(value: &dyn Array, most: u64) -> Option<u64> {
    sizes::above(value, most).map(|(_, bytes)| bytes)
}

/// Why a value of so many bytes, at least, is refused.
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

/// The plan without the groups, and without the rows of windows, that have a gathered value above `most`.
///
/// # Errors
/// Never, for plans that were analyzed.
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

/// Whether a value takes no more than so many bytes.
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
