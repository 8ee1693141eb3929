//! The functions that replace arithmetic of times in the plan: `a + b` and similar operations, and casts.
//!
//! They replace DataFusion's operators; the names of columns stay the same. A call with constant arguments is
//! computed when it is planned, so `check` refuses what would fail for every row.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNanoType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::schema_name_from_exprs;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator as LogicalOperator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::super::numbers::kernels::{KernelOperand, checked, for_each_column};
use super::arith::{TimeArithmetic, compute, fitting, outcome};
use super::convert::{CastTarget, convert, name_of};
use super::lengths::TimeLength;
use super::reach::{TimeShift, reached};

/// An operation on two values whose types [`outcome`] supports.
pub(super) fn arithmetic(arith: TimeArithmetic, left: Expr, right: Expr) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Arith(arith))).call(vec![left, right])
}

/// The negated INTERVAL.
pub(super) fn negated(of: Expr) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Negative)).call(vec![of])
}

/// A cast of an expression. With `safe` a value that cannot be cast becomes null.
pub(super) fn cast(of: Expr, to: CastTarget, safe: bool) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Cast { to, safe })).call(vec![of])
}

/// A TIMESTAMP moved by microseconds. It saturates rather than leave the calendar, as it is only compared and
/// never a row's value.
pub(in crate::plan) fn later(of: Expr, micros: i64) -> Expr {
    match micros {
        0 => of,
        micros => ScalarUDF::from(Operator::new(Kind::Later(micros))).call(vec![of]),
    }
}

/// The moment at which a moment that goes through these steps reaches the TIMESTAMP `bound`, or with
/// `is_beyond` exceeds it. It saturates, like [`later`].
pub(in crate::plan) fn when_reached(bound: Expr, steps: Vec<TimeShift>, is_beyond: bool) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Reached { steps, is_beyond })).call(vec![bound])
}

/// Whether a function is one of these. They report errors by row, so they need no guard.
pub(in crate::plan) fn is_time_function(function: &ScalarUDF) -> bool {
    function.inner().is::<Operator>()
}

/// The operation for which such a function stands.
pub(in crate::plan) enum TimeOperation<'a> {
    Plus(&'a Expr, &'a Expr),
    Minus(&'a Expr, &'a Expr),
    Cast(&'a Expr, &'a DataType),
}

/// The operation for which an expression stands, if it is a call of such a function.
pub(in crate::plan) fn operation_of(expr: &Expr) -> Option<TimeOperation<'_>> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let operator = call.func.inner().downcast_ref::<Operator>()?;
    Some(match (&operator.kind, call.args.as_slice()) {
        (Kind::Arith(TimeArithmetic::Add), [left, right]) => TimeOperation::Plus(left, right),
        (Kind::Arith(TimeArithmetic::Subtract), [left, right]) => TimeOperation::Minus(left, right),
        (Kind::Cast { to, .. }, [of]) => TimeOperation::Cast(of, &to.of),
        _ => return None,
    })
}

/// The operator for which such a function stands, for readable plans.
pub(in crate::plan) fn as_operator(call: &ScalarFunctionExpr) -> Option<Arc<dyn PhysicalExpr>> {
    let function = call.fun().inner().downcast_ref::<Operator>()?;
    Some(match (&function.kind, call.args()) {
        (Kind::Arith(arith), [left, right]) => {
            let op = match arith {
                TimeArithmetic::Add => LogicalOperator::Plus,
                TimeArithmetic::Subtract => LogicalOperator::Minus,
                TimeArithmetic::Multiply => LogicalOperator::Multiply,
                TimeArithmetic::Divide => LogicalOperator::Divide,
            };
            Arc::new(BinaryExpr::new(left.clone(), op, right.clone()))
        }
        (Kind::Cast { to, safe: false }, [of]) => Arc::new(CastExpr::new(of.clone(), to.of.clone(), None)),
        (Kind::Later(micros), [of]) => {
            let length = TimeLength::of_micros(*micros).interval()?;
            let length = Arc::new(datafusion::physical_expr::expressions::Literal::new(
                ScalarValue::IntervalMonthDayNano(Some(length)),
            ));
            Arc::new(BinaryExpr::new(of.clone(), LogicalOperator::Plus, length))
        }
        _ => return None,
    })
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Arith(TimeArithmetic),
    Negative,
    Cast { to: CastTarget, safe: bool },
    Later(i64),
    Reached { steps: Vec<TimeShift>, is_beyond: bool },
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
            Kind::Arith(TimeArithmetic::Add) => ("add".to_string(), 2),
            Kind::Arith(TimeArithmetic::Subtract) => ("subtract".to_string(), 2),
            Kind::Arith(TimeArithmetic::Multiply) => ("multiply".to_string(), 2),
            Kind::Arith(TimeArithmetic::Divide) => ("divide".to_string(), 2),
            Kind::Negative => ("negative".to_string(), 1),
            Kind::Cast { to, safe: false } => (format!("as {}", name_of(to)), 1),
            Kind::Cast { to, safe: true } => (format!("try as {}", name_of(to)), 1),
            Kind::Later(micros) => (format!("later by {}", TimeLength::of_micros(*micros)), 1),
            Kind::Reached { steps, is_beyond } => {
                let what = if *is_beyond { "behind" } else { "at" };
                (format!("first {what} by {steps:?} of"), 1)
            }
        };
        Operator {
            kind,
            name,
            signature: Signature::any(arguments, Volatility::Immutable),
        }
    }

    fn invoke(&self, args: &[ColumnarValue]) -> Result<ColumnarValue> {
        match &self.kind {
            Kind::Arith(arith) => compute(*arith, &args[0], &args[1]),
            Kind::Negative => {
                let length = KernelOperand::<IntervalMonthDayNanoType>::new(&args[0])?;
                let one = KernelOperand::<IntervalMonthDayNanoType>::Value(Some(Default::default()));
                let negated = checked::<_, _, IntervalMonthDayNanoType>(&length, &one, |length, _| {
                    fitting(Some(TimeLength::from_interval(length).negated()))
                });
                negated?.into_column(&args[0].data_type())
            }
            Kind::Cast { to, safe } => for_each_column(&args[0], |values| convert(values, to, *safe)),
            Kind::Later(micros) => points(&args[0], |point| point.saturating_add(*micros)),
            Kind::Reached { steps, is_beyond } => points(&args[0], |bound| {
                reached(bound.saturating_add(i64::from(*is_beyond)), steps)
            }),
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
            Kind::Arith(arith) => match outcome(*arith, &of[0], &of[1]) {
                Some(of) => of,
                None => return exec_err!("could not compute {} {} {}", of[0], arith.sign(), of[1]),
            },
            Kind::Negative | Kind::Later(_) | Kind::Reached { .. } => of[0].clone(),
            Kind::Cast { to, .. } => to.of.clone(),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let constants: Option<Vec<&ScalarValue>> = args.scalar_arguments.iter().copied().collect();
        if let Some(constants) = constants
            && !matches!(self.kind, Kind::Cast { safe: true, .. })
        {
            let constants: Vec<ColumnarValue> = constants.into_iter().cloned().map(ColumnarValue::Scalar).collect();
            if let Err(why) = self.invoke(&constants) {
                return plan_err!("{}", message_of(&why));
            }
        }
        let nullable = matches!(self.kind, Kind::Cast { safe: true, .. })
            || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.invoke(&args.args)
    }
}

/// The message of an error without its kind.
fn message_of(why: &DataFusionError) -> String {
    match why.find_root() {
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::ComputeError(why) => why.clone(),
            other => other.to_string(),
        },
        other => other.strip_backtrace(),
    }
}

fn points(value: &ColumnarValue, f: impl Fn(i64) -> i64) -> Result<ColumnarValue> {
    for_each_column(value, |values| {
        let made = values
            .as_primitive::<TimestampMicrosecondType>()
            .unary::<_, TimestampMicrosecondType>(&f);
        Ok(Arc::new(made.with_data_type(values.data_type().clone())))
    })
}
