//! Lowers ORDER BY ... LIMIT to a top-k of one partition.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as Logical, Limit, LogicalPlan, Sort};

use super::{Lowering, expr};
use crate::plan::error::{Planned, Refusal};
use crate::plan::{NodeId, Op, Rank, TopK};

impl Lowering<'_> {
    pub(super) fn limit(&mut self, limit: &Limit) -> Planned<NodeId> {
        let offset = count(limit.skip.as_deref())?.unwrap_or(0);
        let rows = count(limit.fetch.as_deref())?;
        self.first_rows(&limit.input, offset, rows)
    }

    /// Takes the first rows of a plan. Projections and aliases keep each row, so the limit is taken below them.
    fn first_rows(&mut self, plan: &LogicalPlan, offset: usize, limit: Option<usize>) -> Planned<NodeId> {
        match plan {
            LogicalPlan::Sort(sort) => self.top(sort, offset, limit),
            LogicalPlan::SubqueryAlias(alias) => self.first_rows(&alias.input, offset, limit),
            LogicalPlan::Projection(projection) => {
                let node = self.first_rows(&projection.input, offset, limit)?;
                self.project(node, projection)
            }
            other if other.max_rows().is_some_and(|rows| rows <= 1) && offset == 0 && limit != Some(0) => {
                self.lower(other)
            }
            _ => Err(unordered().into()),
        }
    }

    fn top(&mut self, sort: &Sort, offset: usize, limit: Option<usize>) -> Planned<NodeId> {
        let input = self.lower(&sort.input)?;
        let schema = self.builder.schema(input).clone();
        let mut order = expr::sort_keys(&sort.expr, sort.input.schema(), &schema)?;
        expr::complete(&mut order, &[], &schema);
        let top = TopK {
            partition: vec![],
            ranked: order.len(),
            order,
            offset,
            limit,
            rank: Rank::RowNumber,
            output_rank: false,
        };
        Ok(self.add(Op::TopK(top), vec![input], schema, "top", false))
    }
}

/// The refusal of a LIMIT without an ORDER BY that decides which rows it keeps.
pub(in crate::plan) fn unordered() -> Refusal {
    Refusal::new("could not decide which rows LIMIT keeps: there is no ORDER BY beside it")
        .help("add ORDER BY before LIMIT or OFFSET")
        .near("LIMIT")
}

fn count(expr: Option<&Logical>) -> Planned<Option<usize>> {
    let refused = || {
        Refusal::new("could not plan a LIMIT or OFFSET that is not a whole number")
            .help("write the number itself")
            .near("LIMIT")
    };
    match expr {
        None => Ok(None),
        Some(Logical::Literal(value, _)) if value.is_null() => Ok(None),
        Some(Logical::Literal(value, _)) => match value.cast_to(&arrow::datatypes::DataType::UInt64)? {
            ScalarValue::UInt64(Some(n)) => Ok(Some(usize::try_from(n).map_err(|_| refused())?)),
            _ => Err(refused().into()),
        },
        Some(_) => Err(refused().into()),
    }
}
