//! Functions of doubles that fail where PostgreSQL's do: where the result is undefined or outside the range of
//! a double.

use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::row::{RowArgument, RowFunction, RowResult, RowType, RowValue};
use crate::words::sql_types;

const ONE: &[&[RowType]] = &[&[RowType::Double]];

/// The functions that are computed row by row.
pub(super) fn functions() -> Vec<RowFunction> {
    const TWO: &[&[RowType]] = &[&[RowType::Double; 2]];
    let one = |name, compute| RowFunction::new(name, ONE, RowType::Double, compute);
    vec![
        one("exp", |args| {
            let x = args[0].double();
            within(x.exp(), x.is_infinite())
        }),
        one("ln", |args| logarithm(args[0].double(), f64::ln)),
        one("log10", |args| logarithm(args[0].double(), f64::log10)),
        RowFunction::new(
            "log",
            &[&[RowType::Double], &[RowType::Double; 2]],
            RowType::Double,
            |args| match args {
                [x] => logarithm(x.double(), f64::log10),
                [base, x] if base.double() == 1.0 => {
                    logarithm(x.double(), f64::ln)?;
                    Err("there is no logarithm to the base of 1".to_string())
                }
                _ => {
                    logarithm(args[0].double(), f64::ln)?;
                    let base = args[0].double();
                    logarithm(args[1].double(), |x| {
                        if base == 10.0 { x.log10() } else { x.ln() / base.ln() }
                    })
                }
            },
        ),
        RowFunction::new("power", TWO, RowType::Double, power).also(&["pow"]),
        one("sin", |args| turned(args, f64::sin)),
        one("cos", |args| turned(args, f64::cos)),
        one("tan", |args| turned(args, f64::tan)),
        one("cot", |args| {
            let x = args[0].double();
            turned(args, |_| 1.0 / x.tan())
        }),
        one("asin", |args| inside(args, -1.0, 1.0, f64::asin)),
        one("acos", |args| inside(args, -1.0, 1.0, f64::acos)),
        one("acosh", |args| inside(args, 1.0, f64::INFINITY, f64::acosh)),
        one("atanh", |args| inside(args, -1.0, 1.0, f64::atanh)),
    ]
}

/// `mod(a, b)` and `div(a, b)`. Before anything is computed they become `a % b`, and the truncated quotient.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Whole {
    name: &'static str,
    signature: Signature,
}

impl Whole {
    pub fn both() -> [Whole; 2] {
        ["mod", "div"].map(|name| Whole {
            name,
            signature: Signature::user_defined(Volatility::Immutable),
        })
    }
}

impl ScalarUDFImpl for Whole {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let fits = |of: &DataType| of.is_null() || of.is_numeric() && !(self.name == "div" && of.is_floating());
        match types {
            [a, b] if fits(a) && fits(b) => Ok(types.to_vec()),
            _ if self.name == "div" => {
                let given: Vec<String> = types.iter().map(ToString::to_string).collect();
                let given = sql_types(&given.join(", "));
                plan_err!(
                    "could not plan div({given}): it is of whole numbers and DECIMALs; of DOUBLEs write trunc(a / b)"
                )
            }
            _ => plan_err!("could not plan mod(): it takes two numbers"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("could not compute {}() of these arguments", self.name)
    }
}

/// `sign(x)`, which is -1, 0 or 1.
pub(super) fn sign() -> ScalarUDF {
    RowFunction::new("sign", ONE, RowType::Double, |args| {
        let x = args[0].double();
        Ok(RowValue::Double(f64::from(i8::from(x > 0.0) - i8::from(x < 0.0))))
    })
    .udf()
}

/// The value, or an error if it is infinite or 0. With `infinite` both are allowed.
fn within(value: f64, infinite: bool) -> RowResult {
    if value.is_infinite() && !infinite {
        return Err("the value is too large for a DOUBLE".to_string());
    }
    if value == 0.0 && !infinite {
        return Err("the value is too near to 0 for a DOUBLE".to_string());
    }
    Ok(RowValue::Double(value))
}

fn logarithm(x: f64, of: impl Fn(f64) -> f64) -> RowResult {
    match x {
        0.0 => Err("there is no logarithm of 0".to_string()),
        x if x < 0.0 => Err("there is no logarithm of a negative number".to_string()),
        x => Ok(RowValue::Double(of(x))),
    }
}

fn power(args: &[RowArgument<'_>]) -> RowResult {
    let (base, exponent) = (args[0].double(), args[1].double());
    if base == 0.0 && exponent < 0.0 {
        return Err("0 has no power of a negative number".to_string());
    }
    if base < 0.0 && exponent.is_finite() && exponent.fract() != 0.0 {
        return Err("a negative number has no power of a number that is not whole".to_string());
    }
    let value = base.powf(exponent);
    within(value, base.is_infinite() || exponent.is_infinite() || base == 0.0)
}

fn turned(args: &[RowArgument<'_>], of: impl Fn(f64) -> f64) -> RowResult {
    match args[0].double() {
        x if x.is_infinite() => Err("an infinite angle has none".to_string()),
        x => Ok(RowValue::Double(of(x))),
    }
}

fn inside(args: &[RowArgument<'_>], least: f64, most: f64, of: impl Fn(f64) -> f64) -> RowResult {
    match args[0].double() {
        x if x < least || x > most => Err(format!("{x} is not between {least} and {most}")),
        x => Ok(RowValue::Double(of(x))),
    }
}
