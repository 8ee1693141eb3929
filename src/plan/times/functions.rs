//! The functions that the plan's arithmetic of times becomes: `a + b` and its kin, and casts.
//!
//! They stand in the places of DataFusion's operators; columns are called as before. One whose arguments are constants is
//! computed when it is planned: what can never work is refused by `check`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
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

use super::super::numbers::kernels::{Side, checked};
use super::arith::{Arith, compute, fitting, outcome};
use super::convert::{To, convert, name_of};
use super::lengths::Length;
use super::reach::{Step, reached};

/// The operation, of two values whose types [`outcome`] knows.
pub(super) fn arithmetic(arith: Arith, left: Expr, right: Expr) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Arith(arith))).call(vec![left, right])
}

/// The INTERVAL with the other sign.
pub(super) fn negated(of: Expr) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Negative)).call(vec![of])
}

/// The expression, cast.
pub(super) fn cast(of: Expr, to: To, safe: bool) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Cast { to, safe })).call(vec![of])
}

/// The TIMESTAMP so many microseconds later, without an end of the calendar: a bound that is compared, and no value of a row.
pub(in crate::plan) fn later(of: Expr, micros: i64) -> Expr {
    match micros {
        0 => of,
        micros => ScalarUDF::from(Operator::new(Kind::Later(micros))).call(vec![of]),
    }
}

/// The moment from which on one that these steps are done to has reached the TIMESTAMP, or with `is_beyond` is behind it; like
/// [`later`] without an end of the calendar.
pub(in crate::plan) fn when_reached(bound: Expr, steps: Vec<Step>, is_beyond: bool) -> Expr {
    ScalarUDF::from(Operator::new(Kind::Reached { steps, is_beyond })).call(vec![bound])
}

/// Whether a function is one of these: they fail by row, and need no guard.
pub(in crate::plan) fn is_ours(function: &ScalarUDF) -> bool {
    function.inner().is::<Operator>()
}

/// One of these as what it stands for.
pub(in crate::plan) enum Part<'a> {
    Plus(&'a Expr, &'a Expr),
    Minus(&'a Expr, &'a Expr),
    Cast(&'a Expr, &'a DataType),
}

/// What an expression is, if it is one of these.
pub(in crate::plan) fn part(expr: &Expr) -> Option<Part<'_>> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let operator = call.func.inner().downcast_ref::<Operator>()?;
    Some(match (&operator.kind, call.args.as_slice()) {
        (Kind::Arith(Arith::Add), [left, right]) => Part::Plus(left, right),
        (Kind::Arith(Arith::Subtract), [left, right]) => Part::Minus(left, right),
        (Kind::Cast { to, .. }, [of]) => Part::Cast(of, &to.of),
        _ => return None,
    })
}

/// One of these as the operator that it stands for, for people to read.
pub(in crate::plan) fn as_operator(call: &ScalarFunctionExpr) -> Option<Arc<dyn PhysicalExpr>> {
    let function = call.fun().inner().downcast_ref::<Operator>()?;
    Some(match (&function.kind, call.args()) {
        (Kind::Arith(arith), [left, right]) => {
            let op = match arith {
                Arith::Add => LogicalOperator::Plus,
                Arith::Subtract => LogicalOperator::Minus,
                Arith::Multiply => LogicalOperator::Multiply,
                Arith::Divide => LogicalOperator::Divide,
            };
            Arc::new(BinaryExpr::new(left.clone(), op, right.clone()))
        }
        (Kind::Cast { to, safe: false }, [of]) => Arc::new(CastExpr::new(of.clone(), to.of.clone(), None)),
        (Kind::Later(micros), [of]) => {
            let length = Length::of_micros(*micros).interval()?;
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
    Arith(Arith),
    Negative,
    Cast { to: To, safe: bool },
    Later(i64),
    Reached { steps: Vec<Step>, is_beyond: bool },
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Operator {
    kind: Kind,
    /// It tells functions of two types apart, in a node's identity too.
    name: String,
    signature: Signature,
}

impl Operator {
    fn new(kind: Kind) -> Operator {
        let (name, arguments) = match &kind {
            Kind::Arith(Arith::Add) => ("add".to_string(), 2),
            Kind::Arith(Arith::Subtract) => ("subtract".to_string(), 2),
            Kind::Arith(Arith::Multiply) => ("multiply".to_string(), 2),
            Kind::Arith(Arith::Divide) => ("divide".to_string(), 2),
            Kind::Negative => ("negative".to_string(), 1),
            Kind::Cast { to, safe: false } => (format!("as {}", name_of(to)), 1),
            Kind::Cast { to, safe: true } => (format!("try as {}", name_of(to)), 1),
            Kind::Later(micros) => (format!("later by {}", Length::of_micros(*micros)), 1),
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
                let length = Side::<IntervalMonthDayNanoType>::new(&args[0])?;
                let one = Side::<IntervalMonthDayNanoType>::Value(Some(Default::default()));
                let negated = checked::<_, _, IntervalMonthDayNanoType>(&length, &one, |length, _| {
                    fitting(Some(Length::of(length).negated()))
                });
                negated?.of(&args[0].data_type())
            }
            Kind::Cast { to, safe } => each(&args[0], |values| convert(values, to, *safe)),
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

    // A cast has a name of its own, other than DataFusion's: beside its column, as the key of a join, it would be that column.
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
                return plan_err!("{}", told(&why));
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

/// The reason of an error, without what kind of error it is.
fn told(why: &DataFusionError) -> String {
    match why.find_root() {
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::ComputeError(why) => why.clone(),
            other => other.to_string(),
        },
        other => other.strip_backtrace(),
    }
}

/// A function of one column, for a constant once.
fn each(value: &ColumnarValue, f: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<ColumnarValue> {
    Ok(match value {
        ColumnarValue::Array(values) => ColumnarValue::Array(f(values)?),
        ColumnarValue::Scalar(value) => ColumnarValue::Scalar(ScalarValue::try_from_array(&f(&value.to_array()?)?, 0)?),
    })
}

fn points(value: &ColumnarValue, f: impl Fn(i64) -> i64) -> Result<ColumnarValue> {
    each(value, |values| {
        let made = values
            .as_primitive::<TimestampMicrosecondType>()
            .unary::<_, TimestampMicrosecondType>(&f);
        Ok(Arc::new(made.with_data_type(values.data_type().clone())))
    })
}
