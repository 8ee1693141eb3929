//! Sums, averages and variances of doubles over sliding frames.
//!
//! DataFusion subtracts values that leave the frame from a running sum. But NaN and infinity cannot be
//! subtracted, and digits that were lost beside a large number do not come back. Here the values of each frame
//! are added up in their order. A frame of more than [`FEW`] values is kept in two parts, so that the cost of a
//! row does not depend on the size of the frame: the older part has a running total for each value, from that
//! value up to the end of the part, and the newer part has one total. The result is that of a sum with
//! parentheses around both parts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature};

/// Up to this many values are added up one by one.
const FEW: usize = 64;

/// The function for sliding frames; `None` if `function` needs no replacement.
pub(super) fn framed(function: &Arc<AggregateUDF>) -> Option<AggregateUDF> {
    if function.inner().is::<Framed>() {
        return None;
    }
    let kind = match function.name() {
        "sum" => FrameAggregate::Sum,
        "avg" => FrameAggregate::Mean,
        "var" => FrameAggregate::Variance {
            sample: true,
            root: false,
        },
        "var_pop" => FrameAggregate::Variance {
            sample: false,
            root: false,
        },
        "stddev" => FrameAggregate::Variance {
            sample: true,
            root: true,
        },
        "stddev_pop" => FrameAggregate::Variance {
            sample: false,
            root: true,
        },
        _ => return None,
    };
    Some(AggregateUDF::from(Framed {
        function: function.clone(),
        kind,
    }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FrameAggregate {
    Sum,
    Mean,
    Variance { sample: bool, root: bool },
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Framed {
    function: Arc<AggregateUDF>,
    kind: FrameAggregate,
}

impl AggregateUDFImpl for Framed {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.function.schema_name(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.function.window_function_schema_name(params)
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn is_nullable(&self) -> bool {
        self.function.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.function.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.function.state_fields(args)
    }

    fn create_sliding_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Frame::new(self.kind)))
    }

    /// Values that are added in reverse would be rounded differently.
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }
}

/// The state of some values: their count, and their sum, or their mean and the sum of squared distances from it.
#[derive(Clone, Copy, Debug, Default)]
struct FrameState {
    count: u64,
    total: f64,
    squares: f64,
}

#[derive(Debug)]
struct Frame {
    kind: FrameAggregate,
    /// The older values, of which the oldest is last. Each has the state of itself and all values before it in
    /// this list.
    older: Vec<(f64, FrameState)>,
    /// The newer values, the newest last.
    newer: Vec<f64>,
    of_newer: FrameState,
}

impl Frame {
    fn new(kind: FrameAggregate) -> Frame {
        Frame {
            kind,
            older: vec![],
            newer: vec![],
            of_newer: FrameState::default(),
        }
    }

    fn add_value(&self, part: FrameState, value: f64) -> FrameState {
        let count = part.count + 1;
        match self.kind {
            FrameAggregate::Sum | FrameAggregate::Mean => FrameState {
                count,
                total: part.total + value,
                squares: 0.0,
            },
            FrameAggregate::Variance { .. } => {
                let off = value - part.total;
                let mean = part.total + off / count as f64;
                FrameState {
                    count,
                    total: mean,
                    squares: part.squares + off * (value - mean),
                }
            }
        }
    }

    fn combine(&self, one: FrameState, other: FrameState) -> FrameState {
        if one.count == 0 || other.count == 0 {
            return if one.count == 0 { other } else { one };
        }
        let count = one.count + other.count;
        match self.kind {
            FrameAggregate::Sum | FrameAggregate::Mean => FrameState {
                count,
                total: one.total + other.total,
                squares: 0.0,
            },
            FrameAggregate::Variance { .. } => {
                let off = other.total - one.total;
                let share = other.count as f64 / count as f64;
                FrameState {
                    count,
                    total: one.total + off * share,
                    squares: one.squares + other.squares + off * off * share * one.count as f64,
                }
            }
        }
    }

    fn combined(&self) -> FrameState {
        if self.older.len() + self.newer.len() > FEW {
            let older = self.older.last().map_or(FrameState::default(), |(_, part)| *part);
            return self.combine(older, self.of_newer);
        }
        let older = self.older.iter().rev().map(|(value, _)| *value);
        older
            .chain(self.newer.iter().copied())
            .fold(FrameState::default(), |part, value| self.add_value(part, value))
    }

    fn leave(&mut self) {
        if self.older.is_empty() {
            let mut part = FrameState::default();
            for value in std::mem::take(&mut self.newer).into_iter().rev() {
                part = self.add_value(part, value);
                self.older.push((value, part));
            }
            self.of_newer = FrameState::default();
        }
        self.older.pop();
    }
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.of_newer = self.add_value(self.of_newer, value);
            self.newer.push(value);
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // Values leave a frame in the order in which they entered it.
        for _ in 0..values[0].len() - values[0].null_count() {
            self.leave();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let whole = self.combined();
        let value = match self.kind {
            _ if whole.count == 0 => None,
            FrameAggregate::Sum => Some(whole.total),
            FrameAggregate::Mean => Some(whole.total / whole.count as f64),
            FrameAggregate::Variance { sample: true, .. } if whole.count == 1 => None,
            // The distance of one value from itself is 0, even for NaN.
            FrameAggregate::Variance { sample: false, .. } if whole.count == 1 => Some(0.0),
            FrameAggregate::Variance { sample, root } => {
                let variance = whole.squares / (whole.count - u64::from(sample)) as f64;
                Some(if root { variance.sqrt() } else { variance })
            }
        };
        Ok(ScalarValue::Float64(value))
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.older.capacity() * size_of::<(f64, FrameState)>()
            + self.newer.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        exec_err!("a frame is kept in one place")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        exec_err!("a frame is kept in one place")
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;
    use proptest::prelude::*;

    use super::*;

    fn column(values: &[f64]) -> Vec<ArrayRef> {
        vec![Arc::new(Float64Array::from(values.to_vec()))]
    }

    fn double(frame: &mut Frame) -> Option<f64> {
        match frame.evaluate().unwrap() {
            ScalarValue::Float64(value) => value,
            other => panic!("{other} is no double"),
        }
    }

    const VARIANCE: FrameAggregate = FrameAggregate::Variance {
        sample: true,
        root: false,
    };

    proptest! {
        /// A sliding frame has the result of its values alone; with many values, up to the last bits.
        #[test]
        fn a_frame_comes_to_what_its_own_values_come_to(
            values in prop::collection::vec(prop_oneof![-1e6..1e6f64, Just(1e300), Just(f64::NAN), Just(f64::INFINITY)], 1..400),
            width in 1usize..150,
        ) {
            for kind in [FrameAggregate::Sum, FrameAggregate::Mean, VARIANCE] {
                let mut frame = Frame::new(kind);
                for end in 0..values.len() {
                    frame.update_batch(&column(&values[end..=end])).unwrap();
                    if end >= width {
                        frame.retract_batch(&column(&values[end - width..=end - width])).unwrap();
                    }
                    let own = &values[(end + 1).saturating_sub(width)..=end];
                    let mut alone = Frame::new(kind);
                    alone.update_batch(&column(own)).unwrap();
                    match (double(&mut frame), double(&mut alone)) {
                        (Some(a), Some(b)) if own.len() <= FEW => prop_assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())),
                        (Some(a), Some(b)) if a.is_finite() || b.is_finite() => {
                            let scale = own.iter().fold(0f64, |most, value| most.max(value.abs()));
                            let scale = if kind == VARIANCE { scale * scale } else { scale * own.len() as f64 };
                            prop_assert!((a - b).abs() <= scale * 1e-9, "{a} is not {b}");
                        }
                        (Some(a), Some(b)) => prop_assert!(a == b || !a.is_finite() && !b.is_finite()),
                        (a, b) => prop_assert_eq!(a, b),
                    }
                }
            }
        }
    }
}
