//! Evaluates aggregates: each one's value from all values of a group at once.
//!
//! If SQL leaves their order open, the values are taken in the order of the values themselves, as the run completes an
//! order.

use std::collections::HashSet;
use std::rc::Rc;

use arrow::array::Array;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, DuplicateTreatment, FunctionArgumentClause, FunctionArguments};

use super::arrow::{arrow_type, scalar};
use super::bind::Binder;
use super::calls::argument;
use super::expr::{RowEnv, Term};
use super::number::{fitting, halfway, number, to_double};
use super::order::{self, SortDirection, UPWARDS};
use super::trust::Unjudged;
use super::value::{Scalar, ScalarType, key_of};

/// The values that one row passes to an aggregate.
pub type Arguments = Vec<Scalar>;

type FoldFn = Rc<dyn Fn(&[&Arguments]) -> Result<Scalar, Unjudged>>;

/// A call of an aggregate function.
#[derive(Clone)]
pub struct AggregateEval {
    arguments: Vec<Term>,
    filter: Option<Term>,
    distinct: bool,
    order: Vec<(Term, SortDirection)>,
    /// Whether rows whose first argument is NULL are ignored.
    strict: bool,
    fold: FoldFn,
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

/// Whether a function is an aggregate that is supported here.
pub fn is_one(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Binds a call, and returns it with the type of its value.
pub fn bind(binder: &Binder<'_>, name: &str, call: &ast::Function) -> Result<(AggregateEval, ScalarType), Unjudged> {
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
            order.push((binder.bind(&by.expr)?.ex, SortDirection::new(&by.options)));
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
    let first = arguments
        .first()
        .map(|bound| bound.of.clone())
        .unwrap_or(ScalarType::Null);
    let mut made: Vec<Term> = arguments.iter().map(|bound| bound.ex.clone()).collect();
    let mut strict = !star;
    let (fold, of): (FoldFn, ScalarType) = match (name, arguments.len()) {
        ("count", 0 | 1) => (Rc::new(|all| Ok(Scalar::Int(all.len() as i64))), ScalarType::Int(64)),
        ("sum", 1) => sum(&first)?,
        ("avg" | "mean", 1) => mean(&first)?,
        ("min" | "max", 1) if !matches!(first, ScalarType::Arrow(_) | ScalarType::Null) => {
            let wanted = SortDirection {
                descending: name == "max",
                ..UPWARDS
            };
            let fold: FoldFn = Rc::new(move |all| {
                let all = all.iter().map(|values| &values[0]);
                Ok(all.min_by(|a, b| wanted.compare(a, b)).cloned().unwrap_or(Scalar::Null))
            });
            (fold, first)
        }
        ("bool_and" | "every" | "bool_or", 1) if first == ScalarType::Bool => {
            let any = name == "bool_or";
            let fold: FoldFn = Rc::new(move |all| {
                let mut all = all.iter().map(|values| values[0].is_true()).peekable();
                let of_none = all.peek().is_none();
                let truth = if any { all.any(|b| b) } else { all.all(|b| b) };
                Ok(if of_none { Scalar::Null } else { Scalar::Bool(truth) })
            });
            (fold, ScalarType::Bool)
        }
        ("stddev" | "stddev_samp" | "stddev_pop" | "var_pop" | "var_samp" | "variance" | "var", 1)
            if first.is_number() =>
        {
            (
                spread(name.ends_with("_pop"), name.starts_with("stddev")),
                ScalarType::Double,
            )
        }
        ("string_agg", 2)
            if first == ScalarType::Text && matches!(arguments[1].of, ScalarType::Text | ScalarType::Null) =>
        {
            order.push((made[0].clone(), UPWARDS));
            (Rc::new(joined), ScalarType::Text)
        }
        ("array_agg", 1) => {
            order.push((made[0].clone(), UPWARDS));
            strict = false;
            let item = arrow_type(&first);
            let of = ScalarType::Arrow(ScalarValue::new_list_nullable(&[], &item).data_type().clone());
            let fold: FoldFn = Rc::new(move |all| {
                let items = all.iter().map(|values| scalar(&values[0], &item));
                let items = items.collect::<Result<Vec<_>, _>>()?;
                Ok(match items.is_empty() {
                    true => Scalar::Null,
                    false => Scalar::Arrow(std::sync::Arc::new(ScalarValue::List(ScalarValue::new_list_nullable(
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
            let fold: FoldFn = Rc::new(move |all| {
                let one = if last { all.last() } else { all.first() };
                Ok(one.map_or(Scalar::Null, |values| values[0].clone()))
            });
            (fold, first)
        }
        ("min_by" | "max_by", 2) if order.is_empty() && !distinct => {
            order.push((
                made[1].clone(),
                SortDirection {
                    descending: name == "max_by",
                    ..UPWARDS
                },
            ));
            order.push((made[0].clone(), UPWARDS));
            made.swap(0, 1);
            let fold: FoldFn = Rc::new(|all| Ok(all.first().map_or(Scalar::Null, |values| values[1].clone())));
            (fold, first)
        }
        _ => return Err(unknown()),
    };
    let call = AggregateEval {
        arguments: made,
        filter,
        distinct,
        order,
        strict,
        fold,
    };
    Ok((call, of))
}

impl AggregateEval {
    /// The arguments of a row, followed by its sort keys; none if the row does not count.
    pub fn arguments(&self, env: &RowEnv<'_>) -> Result<Option<Arguments>, Unjudged> {
        if let Some(filter) = &self.filter
            && !filter.eval(env)?.is_true()
        {
            return Ok(None);
        }
        let all = self.arguments.iter().chain(self.order.iter().map(|(ex, _)| ex));
        let values = all.map(|ex| ex.eval(env)).collect::<Result<Arguments, _>>()?;
        Ok(Some(values).filter(|values| !self.strict || !values[0].is_null()))
    }

    /// The aggregate's value over rows with these arguments.
    pub fn fold(&self, mut rows: Vec<&Arguments>) -> Result<Scalar, Unjudged> {
        let behind = self.arguments.len();
        if !self.order.is_empty() {
            let ways: Vec<SortDirection> = self.order.iter().map(|(_, way)| *way).collect();
            rows.sort_by(|a, b| order::compare(&ways, &a[behind..], &b[behind..]));
        }
        if self.distinct {
            let mut seen = HashSet::new();
            rows.retain(|values| seen.insert(key_of(&values[..behind])));
        }
        (self.fold)(&rows)
    }
}

fn sum(of: &ScalarType) -> Result<(FoldFn, ScalarType), Unjudged> {
    let whole = |all: &[&Arguments]| -> Result<i128, Unjudged> {
        let digits = all
            .iter()
            .map(|values| values[0].as_number().map_or(0, |(digits, _)| digits));
        digits
            .into_iter()
            .try_fold(0i128, |sum, n| sum.checked_add(n))
            .ok_or(Unjudged::Digits)
    };
    let fold: (FoldFn, ScalarType) = match of.clone() {
        ScalarType::Int(_) => {
            let fold: FoldFn = Rc::new(move |all| {
                if all.is_empty() {
                    Ok(Scalar::Null)
                } else {
                    fitting(whole(all)?, 64)
                }
            });
            (fold, ScalarType::Int(64))
        }
        ScalarType::Number(scale) => {
            let fold: FoldFn = Rc::new(move |all| {
                if all.is_empty() {
                    Ok(Scalar::Null)
                } else {
                    number(whole(all)?, scale)
                }
            });
            (fold, ScalarType::Number(scale))
        }
        ScalarType::Double => {
            let fold: FoldFn = Rc::new(|all| match all {
                [] => Ok(Scalar::Null),
                all => Ok(Scalar::Double(exact(&doubles(all)?)?)),
            });
            (fold, ScalarType::Double)
        }
        of => return Err(Unjudged::Types(format!("the sum of a {}", of.name()))),
    };
    Ok(fold)
}

fn mean(of: &ScalarType) -> Result<(FoldFn, ScalarType), Unjudged> {
    Ok(match of.clone() {
        ScalarType::Int(_) | ScalarType::Double => {
            let is_exact = |values: &&Arguments| !matches!(values[0], Scalar::Int(n) if n.unsigned_abs() > 1 << f64::MANTISSA_DIGITS);
            let fold: FoldFn = Rc::new(move |all| match all {
                [] => Ok(Scalar::Null),
                // In groups the run computes this exactly, but in windows from the doubles that the numbers are
                // converted to.
                all if !all.iter().all(is_exact) => Err(Unjudged::Digits),
                all => Ok(Scalar::Double(exact(&doubles(all)?)? / all.len() as f64)),
            });
            (fold, ScalarType::Double)
        }
        ScalarType::Number(scale) if scale <= 16 => {
            let (sum, _) = sum(of)?;
            let fold: FoldFn = Rc::new(move |all| match sum(all)? {
                Scalar::Number(digits, scale) => {
                    let digits = digits
                        .checked_mul(10i128.pow(16 - u32::from(scale)))
                        .ok_or(Unjudged::Digits)?;
                    number(halfway(digits, all.len() as i128), 16)
                }
                other => Ok(other),
            });
            (fold, ScalarType::Number(16))
        }
        ScalarType::Number(_) => return Err(Unjudged::Digits),
        of => return Err(Unjudged::Types(format!("the mean of a {}", of.name()))),
    })
}

fn doubles(all: &[&Arguments]) -> Result<Vec<f64>, Unjudged> {
    all.iter().map(|values| to_double(&values[0])).collect()
}

/// The sum of doubles, independent of their order: the rounding error of each addition is kept and added too
/// (Shewchuk, "Adaptive precision floating-point arithmetic", 1997).
fn exact(all: &[f64]) -> Result<f64, Unjudged> {
    if all.iter().any(|x| !x.is_finite()) {
        return Ok(all.iter().sum());
    }
    let mut parts: Vec<f64> = Vec::new();
    for &x in all {
        let mut x = x;
        let mut count = 0;
        for at in 0..parts.len() {
            let mut y = parts[at];
            if x.abs() < y.abs() {
                std::mem::swap(&mut x, &mut y);
            }
            let high = x + y;
            let low = y - (high - x);
            if low != 0.0 {
                parts[count] = low;
                count += 1;
            }
            x = high;
        }
        parts.truncate(count);
        parts.push(x);
    }
    let sum: f64 = parts.iter().sum();
    match sum.is_finite() {
        true => Ok(sum + 0.0),
        false => Err(Unjudged::row("a sum beyond the doubles")),
    }
}

fn spread(population: bool, root: bool) -> FoldFn {
    Rc::new(move |all| {
        let values = doubles(all)?;
        let n = values.len() as f64;
        let over = if population { n } else { n - 1.0 };
        if over <= 0.0 {
            return Ok(Scalar::Null);
        }
        let mean = exact(&values)? / n;
        let squares: Vec<f64> = values.iter().map(|x| (x - mean) * (x - mean)).collect();
        let variance = exact(&squares)? / over;
        Ok(Scalar::Double(if root { variance.sqrt() } else { variance }))
    })
}

fn joined(all: &[&Arguments]) -> Result<Scalar, Unjudged> {
    let mut whole = String::new();
    for (n, values) in all.iter().enumerate() {
        let [Scalar::Text(text), separator, ..] = values.as_slice() else {
            return Ok(Scalar::Null);
        };
        if let (true, Scalar::Text(separator)) = (n > 0, separator) {
            whole.push_str(separator);
        }
        whole.push_str(text);
    }
    Ok(if all.is_empty() {
        Scalar::Null
    } else {
        Scalar::text(whole)
    })
}
