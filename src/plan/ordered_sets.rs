//! Ordered-set aggregates that DataFusion lacks. `mode() WITHIN GROUP (ORDER BY x)` is the most frequent value;
//! if several are equally frequent, the first of them by the order. `percentile_disc(p) WITHIN GROUP (ORDER BY
//! x)` is the first value such that at least the share `p` of the values are at or before it. Nulls do not
//! count; without values the result is null. Values may be of any type that can be ordered.
//!
//! The accumulator keeps all values of a group, as for an interpolated percentile.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, new_empty_array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{SortOptions, concat, filter, is_not_null, partition, sort};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;
use datafusion::prelude::SessionContext;

/// Registers the aggregates in a session.
pub(super) fn register(context: &SessionContext) {
    for which in [OrderedSetKind::Mode, OrderedSetKind::PercentileDisc] {
        context.register_udaf(AggregateUDF::from(OrderedSet::new(which)));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum OrderedSetKind {
    Mode,
    PercentileDisc,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderedSet {
    which: OrderedSetKind,
    signature: Signature,
}

impl OrderedSet {
    fn new(which: OrderedSetKind) -> Self {
        let arguments = match which {
            OrderedSetKind::Mode => 1,
            OrderedSetKind::PercentileDisc => 2,
        };
        OrderedSet {
            which,
            signature: Signature::any(arguments, Volatility::Immutable),
        }
    }

    /// The share with which a percentile is called.
    fn share(&self, args: &AccumulatorArgs<'_>) -> Result<Option<f64>> {
        let Some(share) = args.exprs.get(1) else {
            return Ok(None);
        };
        let share = share
            .downcast_ref::<Literal>()
            .map(|literal| literal.value().cast_to(&DataType::Float64));
        match share.transpose()? {
            Some(ScalarValue::Float64(Some(share))) if (0.0..=1.0).contains(&share) => Ok(Some(share)),
            _ => plan_err!(
                "{}() takes a literal from 0 to 1: percentile_disc(0.5) WITHIN GROUP (ORDER BY x)",
                self.name()
            ),
        }
    }
}

impl AggregateUDFImpl for OrderedSet {
    fn name(&self) -> &str {
        match self.which {
            OrderedSetKind::Mode => "mode",
            OrderedSetKind::PercentileDisc => "percentile_disc",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            of if of.is_nested() => plan_err!("{}() needs values that can be ordered, not a {of}", self.name()),
            of => Ok(of.clone()),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let item = Field::new_list_field(args.input_fields[0].data_type().clone(), true);
        let name = format_state_name(args.name, "values");
        Ok(vec![Arc::new(Field::new(name, DataType::List(Arc::new(item)), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        Ok(Box::new(CollectedValues {
            share: self.share(&args)?,
            distinct: args.is_distinct,
            options: SortOptions {
                descending,
                nulls_first: false,
            },
            of: args.expr_fields[0].data_type().clone(),
            values: vec![],
        }))
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// The values of a group.
#[derive(Debug)]
struct CollectedValues {
    /// The share of a percentile; `None` for the mode.
    share: Option<f64>,
    distinct: bool,
    options: SortOptions,
    of: DataType,
    values: Vec<ArrayRef>,
}

impl CollectedValues {
    fn concatenated(&self) -> Result<ArrayRef> {
        let values: Vec<&dyn Array> = self.values.iter().map(AsRef::as_ref).collect();
        match values.is_empty() {
            true => Ok(new_empty_array(&self.of)),
            false => Ok(concat(&values)?),
        }
    }

    fn append(&mut self, values: &ArrayRef) -> Result<()> {
        let not_null = match values.logical_null_count() {
            0 => Arc::clone(values),
            _ => filter(values, &is_not_null(values)?)?,
        };
        if !not_null.is_empty() {
            self.values.push(not_null);
        }
        Ok(())
    }
}

impl Accumulator for CollectedValues {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.append(&values[0])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        (0..lists.len())
            .filter(|list| lists.is_valid(*list))
            .try_for_each(|list| self.append(&lists.value(list)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.concatenated()?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![
            0,
            i32::try_from(values.len()).unwrap_or(i32::MAX),
        ]));
        let item = Arc::new(Field::new_list_field(self.of.clone(), true));
        let list = ListArray::try_new(item, offsets, values, None)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sorted = sort(&self.concatenated()?, Some(self.options))?;
        if sorted.is_empty() {
            return ScalarValue::try_from(&self.of);
        }
        let runs = partition(std::slice::from_ref(&sorted))?.ranges();
        let at = match (self.share, self.distinct) {
            // Takes the first of the longest runs.
            (None, _) => runs.iter().rev().max_by_key(|run| run.len()).map_or(0, |run| run.start),
            (Some(share), false) => nth(share, sorted.len()),
            (Some(share), true) => runs[nth(share, runs.len())].start,
        };
        ScalarValue::try_from_array(&sorted, at)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self
                .values
                .iter()
                .map(|values| values.get_array_memory_size())
                .sum::<usize>()
    }
}

/// The position, from 0, of the first of `count` values such that at least that share of them is at or before it.
fn nth(share: f64, count: usize) -> usize {
    ((share * count as f64).ceil() as usize).clamp(1, count) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    fn gathered(share: Option<f64>, descending: bool, batches: &[&[Option<i64>]]) -> CollectedValues {
        let options = SortOptions {
            descending,
            nulls_first: false,
        };
        let mut gathered = CollectedValues {
            share,
            distinct: false,
            options,
            of: DataType::Int64,
            values: vec![],
        };
        for batch in batches {
            let values: ArrayRef = Arc::new(Int64Array::from(batch.to_vec()));
            gathered.update_batch(&[values]).unwrap();
        }
        gathered
    }

    fn value(mut gathered: CollectedValues) -> Option<i64> {
        match gathered.evaluate().unwrap() {
            ScalarValue::Int64(value) => value,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_percentile_is_a_value_and_the_mode_the_first_of_the_commonest() {
        let batches: &[&[Option<i64>]] = &[&[Some(5), None, Some(1)], &[Some(5), Some(1), Some(9)]];
        for (share, descending, expected) in [
            (Some(0.0), false, 1),
            (Some(0.4), false, 1),
            (Some(0.41), false, 5),
            (Some(1.0), false, 9),
            (Some(0.2), true, 9),
            (Some(0.3), true, 5),
            (None, false, 1),
            (None, true, 5),
        ] {
            let expected = Some(expected);
            assert_eq!(
                value(gathered(share, descending, batches)),
                expected,
                "{share:?} {descending}"
            );
            // In parts, as a batch plan may compute it.
            let mut merged = gathered(share, descending, &[]);
            for batch in batches {
                let state = gathered(share, descending, &[*batch]).state().unwrap();
                merged.merge_batch(&[state[0].to_array().unwrap()]).unwrap();
            }
            assert_eq!(value(merged), expected, "{share:?} {descending}, merged");
        }
        assert_eq!(value(gathered(None, false, &[&[None]])), None);
        assert_eq!(value(gathered(Some(0.5), false, &[])), None);
    }
}
