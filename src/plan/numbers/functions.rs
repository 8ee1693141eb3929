//! The functions that replace arithmetic in the plan: `a + b` and similar operations, `-a`, casts of numbers,
//! and the quotient of an average.
//!
//! They replace DataFusion's operators; the names of columns stay the same. The type that they return follows
//! from the types of their arguments only, so folding constants does not change it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::schema_name_from_exprs;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator as LogicalOperator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, NegativeExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::decimal::power;
use super::kernels::for_each_column;
use super::types::{MOST, NumberArithmetic, outcome, shape};
use super::{convert, decimal, whole};

/// An operation on two numbers whose types have been coerced.
pub(super) fn arithmetic(arith: NumberArithmetic, left: Expr, right: Expr) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Arith(arith))).call(vec![left, right])
}

/// The negated number.
pub(super) fn negated(of: Expr) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Negative)).call(vec![of])
}

/// Casts an expression to a type. With `safe` a value that the type cannot hold becomes null; without it that is
/// an error.
pub(super) fn cast(of: Expr, to: DataType, safe: bool) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Cast { to, safe })).call(vec![of])
}

/// A double rounded to a whole number, half to even.
pub(super) fn to_even(of: Expr) -> Expr {
    ScalarUDF::from(Operator::new(Kind::ToEven)).call(vec![of])
}

/// A decimal truncated to `behind` digits after the point.
pub(super) fn cut(of: Expr, behind: i8) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Cut(behind))).call(vec![of])
}

/// `ceil(d)` or `floor(d)` of a decimal.
pub(super) fn whole(of: Expr, up: bool) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Whole { up })).call(vec![of])
}

/// An average: a sum divided by its count, as a decimal of this precision and scale.
pub(super) fn mean(sum: Expr, count: Expr, to: (u8, i8)) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Mean(to))).call(vec![sum, count])
}

/// An average of integers: their sum, a decimal, divided by their count, as the nearest double.
pub(super) fn ratio(sum: Expr, count: Expr) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Ratio)).call(vec![sum, count])
}

/// Whether a function is one of these. They report errors by row, so they need no guard.
pub(in crate::plan) fn is_number_function(function: &ScalarUDF) -> bool {
    function.inner().is::<Operator>()
}

/// The operator for which such a function stands, for readable plans.
pub(in crate::plan) fn as_operator(call: &ScalarFunctionExpr) -> Option<Arc<dyn PhysicalExpr>> {
    let function = call.fun().inner().downcast_ref::<Operator>()?;
    Some(match (&function.kind, call.args()) {
        (Kind::Arith(arith), [left, right]) => {
            let op = match arith {
                NumberArithmetic::Add => LogicalOperator::Plus,
                NumberArithmetic::Subtract => LogicalOperator::Minus,
                NumberArithmetic::Multiply => LogicalOperator::Multiply,
                NumberArithmetic::Divide => LogicalOperator::Divide,
                NumberArithmetic::Remainder => LogicalOperator::Modulo,
            };
            Arc::new(BinaryExpr::new(left.clone(), op, right.clone()))
        }
        (Kind::Negative, [of]) => Arc::new(NegativeExpr::new(of.clone())),
        (Kind::Cast { to, safe: false }, [of]) => Arc::new(CastExpr::new(of.clone(), to.clone(), None)),
        _ => return None,
    })
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Arith(NumberArithmetic),
    Negative,
    Cast {
        to: DataType,
        safe: bool,
    },
    Mean((u8, i8)),
    Ratio,
    ToEven,
    Cut(i8),
    /// Rounds up or down to a whole number.
    Whole {
        up: bool,
    },
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Operator {
    kind: Kind,
    /// The name includes the type, so that nodes with casts to different types have different hashes.
    name: String,
    signature: Signature,
}

impl Operator {
    fn new(kind: Kind) -> Operator {
        let (name, arguments) = match &kind {
            Kind::Arith(NumberArithmetic::Add) => ("add".to_string(), 2),
            Kind::Arith(NumberArithmetic::Subtract) => ("subtract".to_string(), 2),
            Kind::Arith(NumberArithmetic::Multiply) => ("multiply".to_string(), 2),
            Kind::Arith(NumberArithmetic::Divide) => ("divide".to_string(), 2),
            Kind::Arith(NumberArithmetic::Remainder) => ("remainder".to_string(), 2),
            Kind::Negative => ("negative".to_string(), 1),
            Kind::Cast { to, safe: false } => (format!("as {}", convert::name_of(to)), 1),
            Kind::Cast { to, safe: true } => (format!("try as {}", convert::name_of(to)), 1),
            Kind::Mean((p, s)) => (format!("mean as DECIMAL({p},{s})"), 2),
            Kind::Ratio => ("mean as DOUBLE".to_string(), 2),
            Kind::ToEven => ("round".to_string(), 1),
            Kind::Cut(behind) => (format!("trunc to {behind}"), 1),
            Kind::Whole { up: true } => ("ceil".to_string(), 1),
            Kind::Whole { up: false } => ("floor".to_string(), 1),
        };
        Operator {
            kind,
            name,
            signature: Signature::any(arguments, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Operator {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    // The name of a cast differs from DataFusion's, which omits casts: as the key of a join, the cast would
    // have the name of the column itself.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let name = |arg: &Expr| schema_name_from_exprs(std::slice::from_ref(arg));
        Ok(match (&self.kind, args) {
            (Kind::Arith(arith), [left, right]) => format!("{} {} {}", name(left)?, arith.sign(), name(right)?),
            (Kind::Negative, [of]) => format!("(- {})", name(of)?),
            _ => format!("{}({})", self.name, schema_name_from_exprs(args)?),
        })
    }

    fn return_type(&self, of: &[DataType]) -> Result<DataType> {
        Ok(match &self.kind {
            Kind::Arith(arith) => match (shape(&of[0]), shape(&of[1])) {
                (Some(left), Some(right)) if of[0].is_decimal() && of[1].is_decimal() => {
                    let (p, s) = outcome(*arith, left, right);
                    DataType::Decimal128(p, s)
                }
                _ => of[0].clone(),
            },
            Kind::Negative | Kind::ToEven => of[0].clone(),
            Kind::Cut(behind) => match shape(&of[0]) {
                Some((p, s)) if s > *behind => {
                    DataType::Decimal128((p - (s - (*behind).max(0)) as u8).max(1), (*behind).max(0))
                }
                _ => of[0].clone(),
            },
            Kind::Whole { .. } => match shape(&of[0]) {
                // Rounding up may add a digit before the point: 9.9 becomes 10.
                Some((p, s)) if s > 0 => DataType::Decimal128(p - s as u8 + 1, 0),
                _ => of[0].clone(),
            },
            Kind::Cast { to, .. } => to.clone(),
            Kind::Mean((p, s)) => DataType::Decimal128(*p, *s),
            Kind::Ratio => DataType::Float64,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = matches!(self.kind, Kind::Cast { safe: true, .. })
            || matches!(self.kind, Kind::Mean(_) | Kind::Ratio)
            || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        match &self.kind {
            Kind::Arith(arith) => match (&types[0], &types[1]) {
                (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => decimal::compute(
                    *arith,
                    (&args.args[0], (*p, *s)),
                    (&args.args[1], (*q, *t)),
                    outcome(*arith, (*p, *s), (*q, *t)),
                ),
                (left, right) if left == right => whole::compute(*arith, &args.args[0], &args.args[1], left),
                (left, right) => exec_err!("could not compute {left} {} {right}", arith.sign()),
            },
            Kind::Negative => for_each_column(&args.args[0], negative),
            Kind::ToEven => for_each_column(&args.args[0], |values| {
                let doubles = values.as_primitive::<Float64Type>();
                Ok(Arc::new(doubles.unary::<_, Float64Type>(|v| v.round_ties_even() + 0.0)))
            }),
            Kind::Cut(behind) => {
                let to = self.return_type(&types)?;
                let dropped = shape(&types[0])
                    .map_or(0, |(_, s)| i32::from(s) - i32::from(*behind))
                    .max(0) as u32;
                let factor = power((*behind).min(0).unsigned_abs().min(MOST).into());
                for_each_column(&args.args[0], |values| {
                    let decimals = values.as_primitive::<Decimal128Type>();
                    let cut = match dropped > MOST.into() {
                        true => decimals.unary::<_, Decimal128Type>(|_| 0),
                        false => decimals.unary(|v: i128| (v / power(dropped)).wrapping_mul(factor)),
                    };
                    Ok(Arc::new(cut.with_data_type(to.clone())))
                })
            }
            Kind::Whole { up } => {
                let to = self.return_type(&types)?;
                let one = power(shape(&types[0]).map_or(0, |(_, s)| s.max(0)) as u32);
                for_each_column(&args.args[0], |values| {
                    let decimals = values.as_primitive::<Decimal128Type>();
                    let whole = decimals.unary::<_, Decimal128Type>(|v: i128| {
                        v.div_euclid(one) + i128::from(*up && v.rem_euclid(one) != 0)
                    });
                    Ok(Arc::new(whole.with_data_type(to.clone())))
                })
            }
            Kind::Cast { to, safe } => for_each_column(&args.args[0], |values| convert::convert(values, to, *safe)),
            Kind::Mean(to) => {
                let sum = shape(&types[0]).unwrap_or((1, 0));
                let count = for_each_column(&args.args[1], |counts| {
                    convert::convert(counts, &DataType::Decimal128(19, 0), false)
                })?;
                // A group without values has no average.
                let count = for_each_column(&count, |counts| {
                    let counts = counts.as_primitive::<Decimal128Type>();
                    let some = counts.unary_opt::<_, Decimal128Type>(|n| (n != 0).then_some(n));
                    Ok(Arc::new(some.with_data_type(DataType::Decimal128(19, 0))))
                })?;
                decimal::compute(NumberArithmetic::Divide, (&args.args[0], sum), (&count, (19, 0)), *to)
            }
            Kind::Ratio => {
                let rows = args.number_rows;
                let (sums, counts) = (args.args[0].to_array(rows)?, args.args[1].to_array(rows)?);
                let (sums, counts) = (
                    sums.as_primitive::<Decimal128Type>(),
                    counts.as_primitive::<Int64Type>(),
                );
                let means = sums.iter().zip(counts).map(|(sum, count)| match (sum, count) {
                    (Some(sum), Some(count)) if count > 0 => Some(whole::ratio(sum, count as u64)),
                    _ => None,
                });
                Ok(ColumnarValue::Array(Arc::new(means.collect::<Float64Array>())))
            }
        }
    }
}

fn negative(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        // `0.0 - v` never yields -0.0.
        DataType::Float64 => Arc::new(
            values
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| 0.0 - v),
        ),
        DataType::Float32 => Arc::new(
            values
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| 0.0 - v),
        ),
        of @ DataType::Decimal128(..) => {
            let negated = values
                .as_primitive::<Decimal128Type>()
                .unary::<_, Decimal128Type>(|v: i128| v.wrapping_neg());
            Arc::new(negated.with_data_type(of.clone()))
        }
        of => {
            let zero = ColumnarValue::Scalar(ScalarValue::new_zero(of)?);
            let value = ColumnarValue::Array(values.clone());
            whole::compute(NumberArithmetic::Subtract, &zero, &value, of)?.into_array(values.len())?
        }
    })
}
