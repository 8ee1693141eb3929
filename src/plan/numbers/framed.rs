//! Sums, means and variances of doubles over frames that slide.
//!
//! DataFusion takes what leaves a frame away from a running sum: NaN and infinity never leave it, and what a great number has
//! swallowed does not come back. Here a frame's own values are added up, in their order. A frame of more than [`FEW`] values is
//! kept in two parts, so that a row costs the same however many there are: for each value of the older part, what it and those
//! behind it come to, and of the newer part one total. It is as if the sum were put in brackets.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature};

/// So many values are added up one after the other.
const FEW: usize = 64;

/// The function over frames that slide; none where it is none of these.
pub(super) fn framed(function: &Arc<AggregateUDF>) -> Option<AggregateUDF> {
    if function.inner().is::<Framed>() {
        return None;
    }
    let kind = match function.name() {
        "sum" => Kind::Sum,
        "avg" => Kind::Mean,
        "var" => Kind::Variance {
            sample: true,
            root: false,
        },
        "var_pop" => Kind::Variance {
            sample: false,
            root: false,
        },
        "stddev" => Kind::Variance {
            sample: true,
            root: true,
        },
        "stddev_pop" => Kind::Variance {
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
enum Kind {
    Sum,
    Mean,
    Variance { sample: bool, root: bool },
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Framed {
    function: Arc<AggregateUDF>,
    kind: Kind,
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

    /// The other way round it would be rounded otherwise.
    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }
}

/// What some values come to: their number, and their sum, or their mean and the sum of squares around it.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    count: u64,
    total: f64,
    squares: f64,
}

#[derive(Debug)]
struct Frame {
    kind: Kind,
    /// The older values, the oldest last, each with what it and those before it here come to.
    older: Vec<(f64, Part)>,
    /// The newer values, the newest last.
    newer: Vec<f64>,
    of_newer: Part,
}

impl Frame {
    fn new(kind: Kind) -> Frame {
        Frame {
            kind,
            older: vec![],
            newer: vec![],
            of_newer: Part::default(),
        }
    }

    fn with(&self, part: Part, value: f64) -> Part {
        let count = part.count + 1;
        match self.kind {
            Kind::Sum | Kind::Mean => Part {
                count,
                total: part.total + value,
                squares: 0.0,
            },
            Kind::Variance { .. } => {
                let off = value - part.total;
                let mean = part.total + off / count as f64;
                Part {
                    count,
                    total: mean,
                    squares: part.squares + off * (value - mean),
                }
            }
        }
    }

    fn joined(&self, one: Part, other: Part) -> Part {
        if one.count == 0 || other.count == 0 {
            return if one.count == 0 { other } else { one };
        }
        let count = one.count + other.count;
        match self.kind {
            Kind::Sum | Kind::Mean => Part {
                count,
                total: one.total + other.total,
                squares: 0.0,
            },
            Kind::Variance { .. } => {
                let off = other.total - one.total;
                let share = other.count as f64 / count as f64;
                Part {
                    count,
                    total: one.total + off * share,
                    squares: one.squares + other.squares + off * off * share * one.count as f64,
                }
            }
        }
    }

    fn whole(&self) -> Part {
        if self.older.len() + self.newer.len() > FEW {
            let older = self.older.last().map_or(Part::default(), |(_, part)| *part);
            return self.joined(older, self.of_newer);
        }
        let older = self.older.iter().rev().map(|(value, _)| *value);
        older
            .chain(self.newer.iter().copied())
            .fold(Part::default(), |part, value| self.with(part, value))
    }

    fn leave(&mut self) {
        if self.older.is_empty() {
            let mut part = Part::default();
            for value in std::mem::take(&mut self.newer).into_iter().rev() {
                part = self.with(part, value);
                self.older.push((value, part));
            }
            self.of_newer = Part::default();
        }
        self.older.pop();
    }
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.of_newer = self.with(self.of_newer, value);
            self.newer.push(value);
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // They leave in the order in which they came.
        for _ in 0..values[0].len() - values[0].null_count() {
            self.leave();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let whole = self.whole();
        let value = match self.kind {
            _ if whole.count == 0 => None,
            Kind::Sum => Some(whole.total),
            Kind::Mean => Some(whole.total / whole.count as f64),
            Kind::Variance { sample: true, .. } if whole.count == 1 => None,
            // One value is no distance from itself, even where it is none.
            Kind::Variance { sample: false, .. } if whole.count == 1 => Some(0.0),
            Kind::Variance { sample, root } => {
                let variance = whole.squares / (whole.count - u64::from(sample)) as f64;
                Some(if root { variance.sqrt() } else { variance })
            }
        };
        Ok(ScalarValue::Float64(value))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.older.capacity() * size_of::<(f64, Part)>() + self.newer.capacity() * size_of::<f64>()
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

    const VARIANCE: Kind = Kind::Variance {
        sample: true,
        root: false,
    };

    proptest! {
        /// What slides is what the frame alone comes to; with many values all but the last bits.
        #[test]
        fn a_frame_comes_to_what_its_own_values_come_to(
            values in prop::collection::vec(prop_oneof![-1e6..1e6f64, Just(1e300), Just(f64::NAN), Just(f64::INFINITY)], 1..400),
            width in 1usize..150,
        ) {
            for kind in [Kind::Sum, Kind::Mean, VARIANCE] {
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
