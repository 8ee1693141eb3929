//! Aggregates: what each makes of the values of a group, all at once.
//!
//! Where SQL leaves their order open, the values of an aggregate are in their own order, as the run completes it.

use std::collections::HashSet;
use std::rc::Rc;

use arrow::array::Array;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, DuplicateTreatment, FunctionArgumentClause, FunctionArguments};

use super::arrow::{arrow_type, scalar};
use super::bind::Binder;
use super::calls::argument;
use super::expr::{Env, Ex};
use super::number::{fitting, halfway, number, to_double};
use super::order::{self, UPWARDS, Way};
use super::trust::Unjudged;
use super::value::{Type, Value, key_of};

/// The values of one row for an aggregate.
pub type Arguments = Vec<Value>;

type Fold = Rc<dyn Fn(&[&Arguments]) -> Result<Value, Unjudged>>;

/// A call of an aggregate.
#[derive(Clone)]
pub struct Call {
    arguments: Vec<Ex>,
    filter: Option<Ex>,
    distinct: bool,
    order: Vec<(Ex, Way)>,
    /// Whether rows whose first argument is NULL do not count.
    strict: bool,
    fold: Fold,
}

const NAMES: &[&str] = &[
    "count",
    "sum",
    "avg",
    "mean",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "every",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "var_pop",
    "var_samp",
    "variance",
    "var",
    "string_agg",
    "array_agg",
    "first_value",
    "last_value",
    "min_by",
    "max_by",
];

/// Whether a function is an aggregate that is known here.
pub fn is_one(name: &str) -> bool {
    NAMES.contains(&name)
}

/// A call, and the type of its value.
pub fn bind(binder: &Binder<'_>, name: &str, call: &ast::Function) -> Result<(Call, Type), Unjudged> {
    let unknown = || Unjudged::construct(format!("the aggregate {call}"));
    let FunctionArguments::List(list) = &call.args else {
        return Err(unknown());
    };
    if call.null_treatment.is_some() || !call.within_group.is_empty() {
        return Err(unknown());
    }
    let star = matches!(
        list.args.as_slice(),
        [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)] | []
    );
    let arguments = match star {
        true => vec![],
        false => {
            let all = list
                .args
                .iter()
                .map(|arg| binder.bind(argument(arg).ok_or_else(unknown)?));
            all.collect::<Result<Vec<_>, _>>()?
        }
    };
    let mut order = Vec::new();
    for clause in &list.clauses {
        let FunctionArgumentClause::OrderBy(by) = clause else {
            return Err(unknown());
        };
        for by in by {
            order.push((binder.bind(&by.expr)?.ex, Way::new(&by.options)));
        }
    }
    let filter = call
        .filter
        .as_ref()
        .map(|filter| binder.condition(filter))
        .transpose()?;
    let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    if star != arguments.is_empty() || star && (name != "count" || distinct) {
        return Err(unknown());
    }
    let first = arguments.first().map(|bound| bound.of.clone()).unwrap_or(Type::Null);
    let mut made: Vec<Ex> = arguments.iter().map(|bound| bound.ex.clone()).collect();
    let mut strict = !star;
    let (fold, of): (Fold, Type) = match (name, arguments.len()) {
        ("count", 0 | 1) => (Rc::new(|all| Ok(Value::Int(all.len() as i64))), Type::Int(64)),
        ("sum", 1) => sum(&first)?,
        ("avg" | "mean", 1) => mean(&first)?,
        ("min" | "max", 1) if !matches!(first, Type::Whole(_) | Type::Null) => {
            let wanted = Way {
                descending: name == "max",
                ..UPWARDS
            };
            let fold: Fold = Rc::new(move |all| {
                let all = all.iter().map(|values| &values[0]);
                Ok(all.min_by(|a, b| wanted.compare(a, b)).cloned().unwrap_or(Value::Null))
            });
            (fold, first)
        }
        ("bool_and" | "every" | "bool_or", 1) if first == Type::Bool => {
            let any = name == "bool_or";
            let fold: Fold = Rc::new(move |all| {
                let mut all = all.iter().map(|values| values[0].is_true()).peekable();
                let of_none = all.peek().is_none();
                let truth = if any { all.any(|b| b) } else { all.all(|b| b) };
                Ok(if of_none { Value::Null } else { Value::Bool(truth) })
            });
            (fold, Type::Bool)
        }
        ("stddev" | "stddev_samp" | "stddev_pop" | "var_pop" | "var_samp" | "variance" | "var", 1)
            if first.is_number() =>
        {
            (spread(name.ends_with("_pop"), name.starts_with("stddev")), Type::Double)
        }
        ("string_agg", 2) if first == Type::Text && matches!(arguments[1].of, Type::Text | Type::Null) => {
            order.push((made[0].clone(), UPWARDS));
            (Rc::new(joined), Type::Text)
        }
        ("array_agg", 1) => {
            order.push((made[0].clone(), UPWARDS));
            strict = false;
            let item = arrow_type(&first);
            let of = Type::Whole(ScalarValue::new_list_nullable(&[], &item).data_type().clone());
            let fold: Fold = Rc::new(move |all| {
                let items = all.iter().map(|values| scalar(&values[0], &item));
                let items = items.collect::<Result<Vec<_>, _>>()?;
                Ok(match items.is_empty() {
                    true => Value::Null,
                    false => Value::Whole(std::sync::Arc::new(ScalarValue::List(ScalarValue::new_list_nullable(
                        &items, &item,
                    )))),
                })
            });
            (fold, of)
        }
        ("first_value" | "last_value", 1) => {
            order.push((made[0].clone(), UPWARDS));
            strict = false;
            let last = name == "last_value";
            let fold: Fold = Rc::new(move |all| {
                let one = if last { all.last() } else { all.first() };
                Ok(one.map_or(Value::Null, |values| values[0].clone()))
            });
            (fold, first)
        }
        ("min_by" | "max_by", 2) if order.is_empty() && !distinct => {
            order.push((
                made[1].clone(),
                Way {
                    descending: name == "max_by",
                    ..UPWARDS
                },
            ));
            order.push((made[0].clone(), UPWARDS));
            made.swap(0, 1);
            let fold: Fold = Rc::new(|all| Ok(all.first().map_or(Value::Null, |values| values[1].clone())));
            (fold, first)
        }
        _ => return Err(unknown()),
    };
    let call = Call {
        arguments: made,
        filter,
        distinct,
        order,
        strict,
        fold,
    };
    Ok((call, of))
}

impl Call {
    /// The arguments of a row, then what orders it; none if the row does not count.
    pub fn arguments(&self, env: &Env<'_>) -> Result<Option<Arguments>, Unjudged> {
        if let Some(filter) = &self.filter
            && !filter.eval(env)?.is_true()
        {
            return Ok(None);
        }
        let all = self.arguments.iter().chain(self.order.iter().map(|(ex, _)| ex));
        let values = all.map(|ex| ex.eval(env)).collect::<Result<Arguments, _>>()?;
        Ok(Some(values).filter(|values| !self.strict || !values[0].is_null()))
    }

    /// The value of the rows with these arguments.
    pub fn fold(&self, mut rows: Vec<&Arguments>) -> Result<Value, Unjudged> {
        let behind = self.arguments.len();
        if !self.order.is_empty() {
            let ways: Vec<Way> = self.order.iter().map(|(_, way)| *way).collect();
            rows.sort_by(|a, b| order::compare(&ways, &a[behind..], &b[behind..]));
        }
        if self.distinct {
            let mut seen = HashSet::new();
            rows.retain(|values| seen.insert(key_of(&values[..behind])));
        }
        (self.fold)(&rows)
    }
}

fn sum(of: &Type) -> Result<(Fold, Type), Unjudged> {
    let whole = |all: &[&Arguments]| -> Result<i128, Unjudged> {
        let digits = all
            .iter()
            .map(|values| values[0].as_number().map_or(0, |(digits, _)| digits));
        digits
            .into_iter()
            .try_fold(0i128, |sum, n| sum.checked_add(n))
            .ok_or(Unjudged::Digits)
    };
    let fold: (Fold, Type) = match of.clone() {
        Type::Int(_) => {
            let fold: Fold = Rc::new(move |all| {
                if all.is_empty() {
                    Ok(Value::Null)
                } else {
                    fitting(whole(all)?, 64)
                }
            });
            (fold, Type::Int(64))
        }
        Type::Number(scale) => {
            let fold: Fold = Rc::new(move |all| {
                if all.is_empty() {
                    Ok(Value::Null)
                } else {
                    number(whole(all)?, scale)
                }
            });
            (fold, Type::Number(scale))
        }
        Type::Double => {
            let fold: Fold = Rc::new(|all| match all {
                [] => Ok(Value::Null),
                all => Ok(Value::Double(exact(&doubles(all)?)?)),
            });
            (fold, Type::Double)
        }
        of => return Err(Unjudged::Types(format!("the sum of a {}", of.name()))),
    };
    Ok(fold)
}

fn mean(of: &Type) -> Result<(Fold, Type), Unjudged> {
    Ok(match of.clone() {
        Type::Int(_) | Type::Double => {
            let is_exact = |values: &&Arguments| !matches!(values[0], Value::Int(n) if n.unsigned_abs() > 1 << f64::MANTISSA_DIGITS);
            let fold: Fold = Rc::new(move |all| match all {
                [] => Ok(Value::Null),
                // In groups the run takes it exactly, in windows of the doubles that the numbers become.
                all if !all.iter().all(is_exact) => Err(Unjudged::Digits),
                all => Ok(Value::Double(exact(&doubles(all)?)? / all.len() as f64)),
            });
            (fold, Type::Double)
        }
        Type::Number(scale) if scale <= 16 => {
            let (sum, _) = sum(of)?;
            let fold: Fold = Rc::new(move |all| match sum(all)? {
                Value::Number(digits, scale) => {
                    let digits = digits
                        .checked_mul(10i128.pow(16 - u32::from(scale)))
                        .ok_or(Unjudged::Digits)?;
                    number(halfway(digits, all.len() as i128), 16)
                }
                other => Ok(other),
            });
            (fold, Type::Number(16))
        }
        Type::Number(_) => return Err(Unjudged::Digits),
        of => return Err(Unjudged::Types(format!("the mean of a {}", of.name()))),
    })
}

fn doubles(all: &[&Arguments]) -> Result<Vec<f64>, Unjudged> {
    all.iter().map(|values| to_double(&values[0])).collect()
}

/// The sum of doubles, whatever their order: what is lost in one addition is kept and added, too (Shewchuk, "Adaptive
/// precision floating-point arithmetic", 1997).
fn exact(all: &[f64]) -> Result<f64, Unjudged> {
    if all.iter().any(|x| !x.is_finite()) {
        return Ok(all.iter().sum());
    }
    let mut parts: Vec<f64> = Vec::new();
    for &x in all {
        let mut x = x;
        let mut kept = 0;
        for at in 0..parts.len() {
            let mut y = parts[at];
            if x.abs() < y.abs() {
                std::mem::swap(&mut x, &mut y);
            }
            let high = x + y;
            let low = y - (high - x);
            if low != 0.0 {
                parts[kept] = low;
                kept += 1;
            }
            x = high;
        }
        parts.truncate(kept);
        parts.push(x);
    }
    let sum: f64 = parts.iter().sum();
    match sum.is_finite() {
        true => Ok(sum + 0.0),
        false => Err(Unjudged::row("a sum beyond the doubles")),
    }
}

fn spread(population: bool, root: bool) -> Fold {
    Rc::new(move |all| {
        let values = doubles(all)?;
        let n = values.len() as f64;
        let over = if population { n } else { n - 1.0 };
        if over <= 0.0 {
            return Ok(Value::Null);
        }
        let mean = exact(&values)? / n;
        let squares: Vec<f64> = values.iter().map(|x| (x - mean) * (x - mean)).collect();
        let variance = exact(&squares)? / over;
        Ok(Value::Double(if root { variance.sqrt() } else { variance }))
    })
}

fn joined(all: &[&Arguments]) -> Result<Value, Unjudged> {
    let mut whole = String::new();
    for (n, values) in all.iter().enumerate() {
        let [Value::Text(text), separator, ..] = values.as_slice() else {
            return Ok(Value::Null);
        };
        if let (true, Value::Text(separator)) = (n > 0, separator) {
            whole.push_str(separator);
        }
        whole.push_str(text);
    }
    Ok(if all.is_empty() {
        Value::Null
    } else {
        Value::text(whole)
    })
}
