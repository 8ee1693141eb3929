//! Calls functions: some are implemented here, the others are the run's own.
//!
//! The value of a single-row function is tested separately (`docs/src/sql/functions.md`). A function that is not
//! implemented here gets its arguments by DataFusion's coercion rules, and the run's kernel computes it; the report
//! names it.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column, ToDFSchema};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{Expr, ScalarUDF, Volatility};
use datafusion::prelude::SessionContext;

use super::arrow::{arrow_type, scalar, type_of, values};
use super::convert::{comparable, converted, meet};
use super::expr::{ComparisonOp, ScalarKernel, Term, TypedTerm};
use super::number::{number, rescaled};
use super::time;
use super::trust::Unjudged;
use super::value::{Scalar, ScalarType};
use crate::contain::contain;

/// Functions that compute with doubles, whatever numbers they get.
const OF_DOUBLES: &[&str] = &[
    "sqrt", "cbrt", "exp", "ln", "log", "log2", "log10", "power", "pow", "sin", "cos", "tan", "asin", "acos", "atan",
    "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "cot", "degrees", "radians", "trunc",
];

/// Whether the values of a type are whole numbers or decimals.
fn is_exact(of: &ScalarType) -> bool {
    matches!(of, ScalarType::Int(_) | ScalarType::Number(_))
}

/// Binds and calls functions.
pub struct Functions {
    session: SessionContext,
    /// The run's functions that have been called.
    shared: RefCell<BTreeSet<String>>,
}

impl Functions {
    /// Uses a session that knows the run's functions.
    pub fn new(session: SessionContext) -> Functions {
        Functions {
            session,
            shared: RefCell::default(),
        }
    }

    /// The names of the run's functions that have been called.
    pub fn shared(&self) -> Vec<String> {
        self.shared.borrow().iter().cloned().collect()
    }

    /// Binds a call.
    pub fn call(&self, name: &str, of: Vec<TypedTerm>) -> Result<TypedTerm, Unjudged> {
        match (name, of.as_slice()) {
            ("coalesce", [_, ..]) => coalesce(of),
            ("nullif", [left, right]) => nullif(left, right),
            ("greatest", [_, ..]) => extreme(of, Ordering::Greater),
            ("least", [_, ..]) => extreme(of, Ordering::Less),
            ("abs", [arg]) if arg.of.is_number() => abs(arg),
            ("upper", [arg]) if arg.of == ScalarType::Text => {
                Ok(of_text(arg, ScalarType::Text, |t| Scalar::text(t.to_uppercase())))
            }
            ("lower", [arg]) if arg.of == ScalarType::Text => {
                Ok(of_text(arg, ScalarType::Text, |t| Scalar::text(t.to_lowercase())))
            }
            ("length" | "char_length" | "character_length", [arg]) if arg.of == ScalarType::Text => {
                Ok(of_text(arg, ScalarType::Int(32), |t| {
                    Scalar::Int(t.chars().count() as i64)
                }))
            }
            ("date_trunc", [unit, at]) if matches!(at.of, ScalarType::Date | ScalarType::Moment(false)) => {
                match date_trunc(unit, at)? {
                    Some(truncated) => Ok(truncated),
                    None => self.shared_call(name, of),
                }
            }
            ("round", [arg]) if arg.of == ScalarType::Double => Ok(round(arg)),
            ("round", [arg, digits]) if matches!(arg.of, ScalarType::Number(_)) => round_to(arg, digits),
            ("ceil" | "ceiling", [arg]) if matches!(arg.of, ScalarType::Number(_)) => Ok(whole(arg, true)),
            ("floor", [arg]) if matches!(arg.of, ScalarType::Number(_)) => Ok(whole(arg, false)),
            ("generate_series" | "generate_subscripts" | "string_to_table" | "regexp_split_to_table", _) => {
                Err(Unjudged::construct(format!("{name}() in SELECT")))
            }
            ("trunc", [arg]) if matches!(arg.of, ScalarType::Number(_)) => Ok(trunc(arg)),
            ("div", [left, right]) if is_exact(&left.of) && is_exact(&right.of) => Ok(div(left, right)),
            ("trunc", [arg, _]) if arg.of.is_number() => Err(Unjudged::construct("trunc() to some digits")),
            ("concat" | "concat_ws", _) => {
                let of = of.into_iter().map(shown).collect::<Result<_, Unjudged>>()?;
                self.shared_call(name, of)
            }
            (name, _) if OF_DOUBLES.contains(&name) => {
                let of = of.into_iter().map(as_double).collect::<Result<_, Unjudged>>()?;
                self.shared_call(name, of)
            }
            ("window_time", [at]) => {
                let of = ScalarType::Moment(false);
                Ok(TypedTerm::new(converted(at.clone(), &of)?, of))
            }
            _ => self.shared_call(name, of),
        }
    }

    /// Binds a call of the run's function, evaluated row by row.
    fn shared_call(&self, name: &str, of: Vec<TypedTerm>) -> Result<TypedTerm, Unjudged> {
        let unknown = |why: &str| Unjudged::construct(format!("{name}(), {why}"));
        let function = self.session.udf(name).map_err(|_| unknown("which is not known here"))?;
        if function.signature().volatility != Volatility::Immutable {
            return Err(unknown("whose value changes"));
        }
        let columns: Vec<Field> = of
            .iter()
            .enumerate()
            .map(|(n, bound)| Field::new(format!("a{n}"), arrow_type(&bound.of), true))
            .collect();
        let schema = Arc::new(Schema::new(columns));
        let (returns, compute) = self.computed(&function, &of, &schema).map_err(|why| unknown(&why))?;
        self.shared.borrow_mut().insert(format!("{name}()"));
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let kernel: ScalarKernel = Rc::new(move |v| {
            let columns = v
                .iter()
                .zip(&types)
                .map(|(value, of)| scalar(value, of)?.to_array().map_err(Unjudged::row));
            let columns = columns.collect::<Result<Vec<ArrayRef>, Unjudged>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(1));
            let row = RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(Unjudged::row)?;
            let computed = contain(|| compute.evaluate(&row).and_then(|value| value.into_array(1)));
            let column = computed.map_err(Unjudged::row)?.map_err(Unjudged::row)?;
            Ok(values(&column)?.pop().expect("one row makes one value"))
        });
        let all = of.into_iter().map(|bound| bound.ex).collect();
        Ok(TypedTerm::new(Term::Call(kernel, all), returns))
    }

    /// The type that a function returns, and the expression that computes it.
    fn computed(
        &self,
        function: &Arc<ScalarUDF>,
        of: &[TypedTerm],
        schema: &Arc<Schema>,
    ) -> Result<(ScalarType, Arc<dyn datafusion::physical_expr::PhysicalExpr>), String> {
        let known = schema.clone().to_dfschema().map_err(|e| e.to_string())?;
        let arguments = of.iter().zip(schema.fields()).map(|(bound, field)| match &bound.ex {
            // A function may require constants, and derive its type from them.
            Term::Const(value) => {
                let scalar = scalar(value, field.data_type()).map_err(|e| e.to_string())?;
                Ok(Expr::Literal(scalar, None))
            }
            _ => Ok(Expr::Column(Column::from_name(field.name()))),
        });
        let arguments = arguments.collect::<Result<Vec<_>, String>>()?;
        let call = function.call(arguments);
        let made = contain(|| self.session.create_physical_expr(call, &known))?.map_err(|e| e.to_string())?;
        let returns = type_of(&made.data_type(schema).map_err(|e| e.to_string())?);
        Ok((returns, made))
    }
}

/// A call of a kernel; null if an argument is null.
fn strict(
    kernel: impl Fn(&[Scalar]) -> Result<Scalar, Unjudged> + 'static,
    of: Vec<Term>,
    returns: ScalarType,
) -> TypedTerm {
    TypedTerm::new(Term::Strict(Rc::new(kernel), of), returns)
}

/// A function of one text.
fn of_text(arg: &TypedTerm, returns: ScalarType, kernel: fn(&str) -> Scalar) -> TypedTerm {
    let kernel = move |v: &[Scalar]| match &v[0] {
        Scalar::Text(text) => Ok(kernel(text)),
        _ => Ok(Scalar::Null),
    };
    strict(kernel, vec![arg.ex.clone()], returns)
}

/// The values as those of their common type, and that type.
fn met(of: Vec<TypedTerm>) -> Result<(Vec<Term>, ScalarType), Unjudged> {
    let met = meet(&of)?;
    let all = of
        .into_iter()
        .map(|bound| converted(bound, &met))
        .collect::<Result<_, _>>()?;
    Ok((all, met))
}

fn coalesce(of: Vec<TypedTerm>) -> Result<TypedTerm, Unjudged> {
    let (all, met) = met(of)?;
    Ok(TypedTerm::new(Term::Coalesce(all), met))
}

fn nullif(left: &TypedTerm, right: &TypedTerm) -> Result<TypedTerm, Unjudged> {
    let met = meet([left, right])?;
    let compared = |bound: &TypedTerm| Ok(Box::new(comparable(bound.clone(), &met)?));
    let equal = Term::Compare(ComparisonOp::Equal, compared(left)?, compared(right)?);
    // PostgreSQL returns the type of the first argument, but the run does not.
    if !left.quoted && left.of != met && met.is_number() {
        return Err(Unjudged::construct("NULLIF of numbers of two types"));
    }
    let value = converted(left.clone(), &met)?;
    Ok(TypedTerm::new(
        Term::Case(vec![(equal, Term::Const(Scalar::Null))], Box::new(value)),
        met,
    ))
}

/// The greatest or the least value. Nulls do not count.
fn extreme(of: Vec<TypedTerm>, wanted: Ordering) -> Result<TypedTerm, Unjudged> {
    let (all, met) = met(of)?;
    let kernel: ScalarKernel = Rc::new(move |v| {
        let there = v.iter().filter(|value| !value.is_null());
        let best = there.reduce(|best, value| match value.compare(best) == Some(wanted) {
            true => value,
            false => best,
        });
        Ok(best.cloned().unwrap_or(Scalar::Null))
    });
    Ok(TypedTerm::new(Term::Call(kernel, all), met))
}

fn abs(arg: &TypedTerm) -> Result<TypedTerm, Unjudged> {
    if matches!(arg.of, ScalarType::Int(bits) if bits < 64) {
        return Err(Unjudged::construct("abs() of an INT"));
    }
    let kernel = |v: &[Scalar]| match &v[0] {
        Scalar::Int(n) => n
            .checked_abs()
            .map(Scalar::Int)
            .ok_or_else(|| Unjudged::row("abs() does not fit")),
        Scalar::Number(n, scale) => Ok(Scalar::Number(n.abs(), *scale)),
        Scalar::Double(x) => Ok(Scalar::Double(x.abs())),
        other => Ok(other.clone()),
    };
    Ok(strict(kernel, vec![arg.ex.clone()], arg.of.clone()))
}

/// `date_trunc(unit, at)`; none if the unit is not a constant that is known here.
fn date_trunc(unit: &TypedTerm, at: &TypedTerm) -> Result<Option<TypedTerm>, Unjudged> {
    let Term::Const(Scalar::Text(unit)) = &unit.ex else {
        return Ok(None);
    };
    let unit = unit.to_string();
    if time::truncated(&unit, 0).is_none() {
        return Ok(None);
    }
    let at = converted(at.clone(), &ScalarType::Moment(false))?;
    let kernel = move |v: &[Scalar]| {
        let cut = time::moment(&v[0]).and_then(|at| time::truncated(&unit, at));
        time::within(cut.map_or(Scalar::Null, Scalar::Moment))
    };
    Ok(Some(strict(kernel, vec![at], ScalarType::Moment(false))))
}

/// A double rounded to a whole number, half to even.
fn round(arg: &TypedTerm) -> TypedTerm {
    let kernel = |v: &[Scalar]| match &v[0] {
        Scalar::Double(x) => Ok(Scalar::Double(x.round_ties_even() + 0.0)),
        other => Ok(other.clone()),
    };
    strict(kernel, vec![arg.ex.clone()], ScalarType::Double)
}

/// A decimal rounded to some digits behind the point.
fn round_to(arg: &TypedTerm, digits: &TypedTerm) -> Result<TypedTerm, Unjudged> {
    let (ScalarType::Number(scale), Term::Const(Scalar::Int(digits))) = (&arg.of, &digits.ex) else {
        return Err(Unjudged::construct("round() to digits that are computed"));
    };
    let scale = u8::try_from(*digits).ok().filter(|digits| digits <= scale);
    let scale = scale.ok_or_else(|| Unjudged::construct("round() to digits that there are not"))?;
    let kernel = move |v: &[Scalar]| match v[0].as_number() {
        Some(n) => number(rescaled(n, scale).ok_or(Unjudged::Digits)?, scale),
        None => Ok(Scalar::Null),
    };
    Ok(strict(kernel, vec![arg.ex.clone()], ScalarType::Number(scale)))
}

/// A decimal rounded up or down to a whole number.
fn whole(arg: &TypedTerm, up: bool) -> TypedTerm {
    let kernel = move |v: &[Scalar]| match &v[0] {
        Scalar::Number(n, scale) => {
            let unit = 10i128.pow(u32::from(*scale));
            number(n.div_euclid(unit) + i128::from(up && n.rem_euclid(unit) != 0), 0)
        }
        other => Ok(other.clone()),
    };
    strict(kernel, vec![arg.ex.clone()], ScalarType::Number(0))
}

/// A decimal without the digits behind the point.
fn trunc(arg: &TypedTerm) -> TypedTerm {
    let kernel = |v: &[Scalar]| match &v[0] {
        Scalar::Number(n, scale) => Ok(Scalar::Number(n / 10i128.pow(u32::from(*scale)), 0)),
        other => Ok(other.clone()),
    };
    strict(kernel, vec![arg.ex.clone()], ScalarType::Number(0))
}

/// The quotient of two exact numbers without the digits behind the point.
fn div(left: &TypedTerm, right: &TypedTerm) -> TypedTerm {
    let kernel = |v: &[Scalar]| match (v[0].as_number(), v[1].as_number()) {
        (Some(_), Some((0, _))) => Err(Unjudged::row("div() by 0")),
        (Some((n, of)), Some((by, scale))) => {
            let shifted = |n: i128, digits: u8| n.checked_mul(10i128.checked_pow(u32::from(digits))?);
            let (n, by) = (shifted(n, scale), shifted(by, of));
            let quotient = n.zip(by).and_then(|(n, by)| n.checked_div(by));
            number(quotient.ok_or(Unjudged::Digits)?, 0)
        }
        _ => Ok(Scalar::Null),
    };
    strict(kernel, vec![left.ex.clone(), right.ex.clone()], ScalarType::Number(0))
}

/// An argument of concat() as a text.
fn shown(bound: TypedTerm) -> Result<TypedTerm, Unjudged> {
    match bound.of {
        ScalarType::Text | ScalarType::Null => Ok(bound),
        ScalarType::Bool => Err(Unjudged::construct("a BOOLEAN in concat()")),
        _ => Ok(TypedTerm::new(converted(bound, &ScalarType::Text)?, ScalarType::Text)),
    }
}

/// A number as a double; any other value as it is.
fn as_double(bound: TypedTerm) -> Result<TypedTerm, Unjudged> {
    match bound.of.is_number() {
        true => Ok(TypedTerm::new(
            converted(bound, &ScalarType::Double)?,
            ScalarType::Double,
        )),
        false => Ok(bound),
    }
}
