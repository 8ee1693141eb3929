//! Functions: some that are written here, and those that are the run's own.
//!
//! What a function of one row's values yields is its own matter, tested by itself (`docs/sql-functions.md`). Those that are not
//! written here are given their arguments by DataFusion's own rules, and computed by the run's kernels; the report names them.

use std::cell::RefCell;
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
use super::expr::{Bound, Comparison, Ex, Kernel};
use super::number::{number, rescaled};
use super::time;
use super::trust::Unjudged;
use super::value::{Type, Value};
use crate::contain::contain;

/// Functions that compute with doubles, whatever numbers they are given.
const OF_DOUBLES: &[&str] = &[
    "sqrt", "cbrt", "exp", "ln", "log", "log2", "log10", "power", "pow", "sin", "cos", "tan", "asin", "acos", "atan",
    "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "cot", "degrees", "radians", "trunc",
];

/// Calls functions.
pub struct Functions {
    session: SessionContext,
    /// The run's functions that were called.
    shared: RefCell<BTreeSet<String>>,
}

impl Functions {
    /// In a session that knows the run's functions.
    pub fn new(session: SessionContext) -> Functions {
        Functions {
            session,
            shared: RefCell::default(),
        }
    }

    /// The run's functions that were called.
    pub fn shared(&self) -> Vec<String> {
        self.shared.borrow().iter().cloned().collect()
    }

    /// A call.
    pub fn call(&self, name: &str, of: Vec<Bound>) -> Result<Bound, Unjudged> {
        let text = |kernel: fn(&str) -> Value, returns: Type, arg: &Bound| {
            let kernel = move |v: &[Value]| match &v[0] {
                Value::Text(text) => Ok(kernel(text)),
                _ => Ok(Value::Null),
            };
            Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![arg.ex.clone()]), returns))
        };
        match (name, of.as_slice()) {
            ("coalesce", [_, ..]) => {
                let met = meet(&of)?;
                let all = of
                    .into_iter()
                    .map(|bound| converted(bound, &met))
                    .collect::<Result<_, _>>()?;
                Ok(Bound::new(Ex::Coalesce(all), met))
            }
            ("nullif", [left, right]) => {
                let met = meet([left, right])?;
                let compared = |bound: &Bound| Ok(Box::new(comparable(bound.clone(), &met)?));
                let equal = Ex::Compare(Comparison::Equal, compared(left)?, compared(right)?);
                // PostgreSQL keeps the type of the first, which the run does not.
                if !left.quoted && left.of != met && met.is_number() {
                    return Err(Unjudged::construct("NULLIF of numbers of two types"));
                }
                let value = converted(left.clone(), &met)?;
                Ok(Bound::new(
                    Ex::Case(vec![(equal, Ex::Const(Value::Null))], Box::new(value)),
                    met,
                ))
            }
            ("greatest" | "least", [_, ..]) => {
                let met = meet(&of)?;
                let all = of
                    .into_iter()
                    .map(|bound| converted(bound, &met))
                    .collect::<Result<_, _>>()?;
                let wanted = match name {
                    "greatest" => std::cmp::Ordering::Greater,
                    _ => std::cmp::Ordering::Less,
                };
                let kernel: Kernel = Rc::new(move |v| {
                    let there = v.iter().filter(|value| !value.is_null());
                    let best = there.reduce(|best, value| match value.compare(best) == Some(wanted) {
                        true => value,
                        false => best,
                    });
                    Ok(best.cloned().unwrap_or(Value::Null))
                });
                Ok(Bound::new(Ex::Call(kernel, all), met))
            }
            ("abs", [arg]) if arg.of.is_number() => {
                let of = arg.of.clone();
                let kernel = |v: &[Value]| match &v[0] {
                    Value::Int(n) => n
                        .checked_abs()
                        .map(Value::Int)
                        .ok_or_else(|| Unjudged::row("abs() does not fit")),
                    Value::Number(n, scale) => Ok(Value::Number(n.abs(), *scale)),
                    Value::Double(x) => Ok(Value::Double(x.abs())),
                    other => Ok(other.clone()),
                };
                match of {
                    Type::Int(bits) if bits < 64 => Err(Unjudged::construct("abs() of an INT")),
                    _ => Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![arg.ex.clone()]), of)),
                }
            }
            ("upper", [arg]) if arg.of == Type::Text => text(|t| Value::text(t.to_uppercase()), Type::Text, arg),
            ("lower", [arg]) if arg.of == Type::Text => text(|t| Value::text(t.to_lowercase()), Type::Text, arg),
            ("length" | "char_length" | "character_length", [arg]) if arg.of == Type::Text => {
                text(|t| Value::Int(t.chars().count() as i64), Type::Int(32), arg)
            }
            ("date_trunc", [unit, at]) if matches!(at.of, Type::Date | Type::Moment(false)) => {
                let Ex::Const(Value::Text(unit)) = &unit.ex else {
                    return self.shared_call(name, of);
                };
                let unit = unit.to_string();
                if time::truncated(&unit, 0).is_none() {
                    return self.shared_call(name, of);
                }
                let at = converted(at.clone(), &Type::Moment(false))?;
                let kernel = move |v: &[Value]| {
                    let cut = time::moment(&v[0]).and_then(|at| time::truncated(&unit, at));
                    time::within(cut.map_or(Value::Null, Value::Moment))
                };
                Ok(Bound::new(Ex::Strict(Rc::new(kernel), vec![at]), Type::Moment(false)))
            }
            ("round", [arg]) if arg.of == Type::Double => {
                let kernel = |v: &[Value]| match &v[0] {
                    Value::Double(x) => Ok(Value::Double(x.round_ties_even() + 0.0)),
                    other => Ok(other.clone()),
                };
                Ok(Bound::new(
                    Ex::Strict(Rc::new(kernel), vec![arg.ex.clone()]),
                    Type::Double,
                ))
            }
            ("round", [arg, digits]) if matches!(arg.of, Type::Number(_)) => {
                let (Type::Number(scale), Ex::Const(Value::Int(digits))) = (&arg.of, &digits.ex) else {
                    return Err(Unjudged::construct("round() to digits that are computed"));
                };
                let scale = u8::try_from(*digits).ok().filter(|digits| digits <= scale);
                let scale = scale.ok_or_else(|| Unjudged::construct("round() to digits that there are not"))?;
                let kernel = move |v: &[Value]| match v[0].as_number() {
                    Some(n) => number(rescaled(n, scale).ok_or(Unjudged::Digits)?, scale),
                    None => Ok(Value::Null),
                };
                Ok(Bound::new(
                    Ex::Strict(Rc::new(kernel), vec![arg.ex.clone()]),
                    Type::Number(scale),
                ))
            }
            ("ceil" | "ceiling" | "floor", [arg]) if matches!(arg.of, Type::Number(_)) => {
                let up = name != "floor";
                let kernel = move |v: &[Value]| match &v[0] {
                    Value::Number(n, scale) => {
                        let unit = 10i128.pow(u32::from(*scale));
                        number(n.div_euclid(unit) + i128::from(up && n.rem_euclid(unit) != 0), 0)
                    }
                    other => Ok(other.clone()),
                };
                Ok(Bound::new(
                    Ex::Strict(Rc::new(kernel), vec![arg.ex.clone()]),
                    Type::Number(0),
                ))
            }
            ("generate_series" | "generate_subscripts" | "string_to_table" | "regexp_split_to_table", _) => {
                Err(Unjudged::construct(format!("{name}() in SELECT")))
            }
            ("trunc", [arg]) if matches!(arg.of, Type::Number(_)) => {
                let kernel = |v: &[Value]| match &v[0] {
                    Value::Number(n, scale) => Ok(Value::Number(n / 10i128.pow(u32::from(*scale)), 0)),
                    other => Ok(other.clone()),
                };
                Ok(Bound::new(
                    Ex::Strict(Rc::new(kernel), vec![arg.ex.clone()]),
                    Type::Number(0),
                ))
            }
            ("trunc", [arg, _]) if arg.of.is_number() => Err(Unjudged::construct("trunc() to some digits")),
            ("concat" | "concat_ws", _) => {
                let text = |bound: Bound| match bound.of {
                    Type::Text | Type::Null => Ok(bound),
                    Type::Bool => Err(Unjudged::construct("a BOOLEAN in concat()")),
                    _ => Ok(Bound::new(converted(bound, &Type::Text)?, Type::Text)),
                };
                let of = of.into_iter().map(text).collect::<Result<_, Unjudged>>()?;
                self.shared_call(name, of)
            }
            (name, _) if OF_DOUBLES.contains(&name) => {
                let double = |bound: Bound| match bound.of.is_number() {
                    true => Ok(Bound::new(converted(bound, &Type::Double)?, Type::Double)),
                    false => Ok(bound),
                };
                let of = of.into_iter().map(double).collect::<Result<_, Unjudged>>()?;
                self.shared_call(name, of)
            }
            ("window_time", [at]) => {
                let of = Type::Moment(false);
                Ok(Bound::new(converted(at.clone(), &of)?, of))
            }
            _ => self.shared_call(name, of),
        }
    }

    /// A call of the run's function, row by row.
    fn shared_call(&self, name: &str, of: Vec<Bound>) -> Result<Bound, Unjudged> {
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
        let kernel: Kernel = Rc::new(move |v| {
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
        Ok(Bound::new(Ex::Call(kernel, all), returns))
    }

    /// The type that a function returns, and what computes it.
    fn computed(
        &self,
        function: &Arc<ScalarUDF>,
        of: &[Bound],
        schema: &Arc<Schema>,
    ) -> Result<(Type, Arc<dyn datafusion::physical_expr::PhysicalExpr>), String> {
        let known = schema.clone().to_dfschema().map_err(|e| e.to_string())?;
        let arguments = of.iter().zip(schema.fields()).map(|(bound, field)| match &bound.ex {
            // A function may ask for constants, and return a type by them.
            Ex::Const(value) => {
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
