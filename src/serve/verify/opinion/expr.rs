//! Expressions, bound to columns and evaluated row by row.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::query::Query;
use super::trust::Unjudged;
use super::value::{Type, Value};

/// What computes a value from others.
pub type Kernel = Rc<dyn Fn(&[Value]) -> Result<Value, Unjudged>>;

/// An expression.
#[derive(Clone)]
pub enum Ex {
    Const(Value),
    /// A column of the row at hand.
    Column(usize),
    /// A column of a row of a query around: so many queries outwards.
    Outer(usize, usize),
    And(Vec<Ex>),
    Or(Vec<Ex>),
    Not(Box<Ex>),
    Compare(Comparison, Box<Ex>, Box<Ex>),
    /// Whether two values are distinct, NULL equal to itself.
    Distinct(Box<Ex>, Box<Ex>),
    IsNull(Box<Ex>),
    /// Whether a condition is this; never unknown.
    Is(Box<Ex>, bool),
    /// The first whose condition is true.
    Case(Vec<(Ex, Ex)>, Box<Ex>),
    Coalesce(Vec<Ex>),
    /// NULL where an argument is; else what the kernel makes of them.
    Strict(Kernel, Vec<Ex>),
    /// What the kernel makes of the arguments, NULLs too.
    Call(Kernel, Vec<Ex>),
    Exists(Rc<Query>),
    /// The value of a subquery, converted.
    Scalar(Rc<Query>),
    /// Whether a value compares so with any row of a subquery; both converted.
    Any(Comparison, Box<Ex>, Rc<Query>, Rc<[Kernel; 2]>),
}

/// `=` and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Comparison {
    /// True, false or unknown.
    pub fn holds(self, left: &Value, right: &Value) -> Value {
        let Some(order) = left.compare(right) else {
            return Value::Null;
        };
        Value::Bool(match self {
            Comparison::Equal => order == Ordering::Equal,
            Comparison::NotEqual => order != Ordering::Equal,
            Comparison::Less => order == Ordering::Less,
            Comparison::LessEqual => order != Ordering::Greater,
            Comparison::Greater => order == Ordering::Greater,
            Comparison::GreaterEqual => order != Ordering::Less,
        })
    }
}

/// An expression with its type.
#[derive(Clone)]
pub struct Bound {
    pub ex: Ex,
    pub of: Type,
    /// Whether it is a text that stands in the query: it is of the type of what it stands beside.
    pub quoted: bool,
}

impl Bound {
    /// Of a type of its own.
    pub fn new(ex: Ex, of: Type) -> Bound {
        Bound { ex, of, quoted: false }
    }
}

/// The row at hand, and those of the queries around.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    pub row: &'a [Value],
    pub parent: Option<&'a Env<'a>>,
}

impl Env<'_> {
    /// A column of a row so many queries outwards.
    pub fn outer(&self, level: usize, position: usize) -> Value {
        let mut env = self;
        for _ in 0..level {
            env = env.parent.expect("a column was found in a query around");
        }
        env.row[position].clone()
    }
}

impl Ex {
    /// Its value for a row.
    pub fn eval(&self, env: &Env<'_>) -> Result<Value, Unjudged> {
        Ok(match self {
            Ex::Const(value) => value.clone(),
            Ex::Column(at) => env.row[*at].clone(),
            Ex::Outer(level, at) => env.outer(*level, *at),
            // Both sides are always evaluated: where one fails, SQL leaves open whether the other decides.
            Ex::And(all) => decided(all, env, false)?,
            Ex::Or(all) => decided(all, env, true)?,
            Ex::Not(of) => match of.eval(env)? {
                Value::Bool(b) => Value::Bool(!b),
                _ => Value::Null,
            },
            Ex::Compare(op, left, right) => op.holds(&left.eval(env)?, &right.eval(env)?),
            Ex::Distinct(left, right) => {
                let (left, right) = (left.eval(env)?, right.eval(env)?);
                Value::Bool(match (left.is_null(), right.is_null()) {
                    (false, false) => left.compare(&right) != Some(Ordering::Equal),
                    (one, other) => one != other,
                })
            }
            Ex::IsNull(of) => Value::Bool(of.eval(env)?.is_null()),
            Ex::Is(of, wanted) => Value::Bool(matches!(of.eval(env)?, Value::Bool(b) if b == *wanted)),
            Ex::Case(branches, otherwise) => {
                for (condition, value) in branches {
                    if condition.eval(env)?.is_true() {
                        return value.eval(env);
                    }
                }
                otherwise.eval(env)?
            }
            Ex::Coalesce(all) => {
                for of in all {
                    let value = of.eval(env)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Value::Null
            }
            Ex::Strict(kernel, of) => {
                let values = values(of, env)?;
                match values.iter().any(Value::is_null) {
                    true => Value::Null,
                    false => kernel(&values)?,
                }
            }
            Ex::Call(kernel, of) => kernel(&values(of, env)?)?,
            Ex::Exists(query) => Value::Bool(!query.rows(Some(env))?.is_empty()),
            Ex::Scalar(query) => match query.rows(Some(env))?.as_slice() {
                [] => Value::Null,
                [row] => row[0].clone(),
                _ => return Err(Unjudged::row("a subquery that is a value has several rows")),
            },
            Ex::Any(op, left, query, kernels) => {
                let [of_left, of_row] = kernels.as_ref();
                let left = of_left(&[left.eval(env)?])?;
                let mut outcome = Value::Bool(false);
                for row in query.rows(Some(env))?.iter() {
                    match op.holds(&left, &of_row(&row[..1])?) {
                        Value::Bool(true) => return Ok(Value::Bool(true)),
                        Value::Bool(false) => {}
                        _ => outcome = Value::Null,
                    }
                }
                outcome
            }
        })
    }

    /// The columns of the row at hand that it uses; `depth` is that of the query it stands in. False where there are subqueries.
    pub fn columns(&self, depth: usize, found: &mut BTreeSet<usize>) -> bool {
        match self {
            Ex::Const(_) | Ex::Outer(..) => true,
            Ex::Column(at) => {
                found.insert(*at);
                true
            }
            Ex::Exists(query) | Ex::Scalar(query) => {
                query.columns(depth, found);
                false
            }
            Ex::Any(_, left, query, _) => {
                left.columns(depth, found);
                query.columns(depth, found);
                false
            }
            other => {
                let mut plain = true;
                for part in other.parts() {
                    plain &= part.columns(depth, found);
                }
                plain
            }
        }
    }

    /// The same over rows that lack so many columns in front; it has no subqueries.
    pub fn shifted(&self, by: usize) -> Ex {
        let all = |of: &[Ex]| of.iter().map(|ex| ex.shifted(by)).collect::<Vec<_>>();
        let one = |of: &Ex| Box::new(of.shifted(by));
        match self {
            Ex::Column(at) => Ex::Column(at - by),
            Ex::And(of) => Ex::And(all(of)),
            Ex::Or(of) => Ex::Or(all(of)),
            Ex::Coalesce(of) => Ex::Coalesce(all(of)),
            Ex::Strict(kernel, of) => Ex::Strict(kernel.clone(), all(of)),
            Ex::Call(kernel, of) => Ex::Call(kernel.clone(), all(of)),
            Ex::Not(of) => Ex::Not(one(of)),
            Ex::IsNull(of) => Ex::IsNull(one(of)),
            Ex::Is(of, truth) => Ex::Is(one(of), *truth),
            Ex::Compare(op, left, right) => Ex::Compare(*op, one(left), one(right)),
            Ex::Distinct(left, right) => Ex::Distinct(one(left), one(right)),
            Ex::Case(branches, otherwise) => {
                let branches = branches.iter().map(|(when, then)| (when.shifted(by), then.shifted(by)));
                Ex::Case(branches.collect(), one(otherwise))
            }
            Ex::Const(_) | Ex::Outer(..) | Ex::Exists(_) | Ex::Scalar(_) | Ex::Any(..) => self.clone(),
        }
    }

    /// Whether it uses a row of a query around.
    pub fn is_outer(&self) -> bool {
        match self {
            Ex::Outer(..) => true,
            Ex::Exists(query) | Ex::Scalar(query) => query.is_correlated(),
            Ex::Any(_, left, query, _) => left.is_outer() || query.is_correlated(),
            other => other.parts().into_iter().any(Ex::is_outer),
        }
    }

    fn parts(&self) -> Vec<&Ex> {
        match self {
            Ex::Const(_) | Ex::Column(_) | Ex::Outer(..) | Ex::Exists(_) | Ex::Scalar(_) => vec![],
            Ex::And(of) | Ex::Or(of) | Ex::Coalesce(of) | Ex::Strict(_, of) | Ex::Call(_, of) => of.iter().collect(),
            Ex::Not(of) | Ex::IsNull(of) | Ex::Is(of, _) | Ex::Any(_, of, _, _) => vec![of],
            Ex::Compare(_, left, right) | Ex::Distinct(left, right) => vec![left, right],
            Ex::Case(branches, otherwise) => {
                let branches = branches.iter().flat_map(|(condition, value)| [condition, value]);
                branches.chain([otherwise.as_ref()]).collect()
            }
        }
    }
}

fn values(of: &[Ex], env: &Env<'_>) -> Result<Vec<Value>, Unjudged> {
    of.iter().map(|ex| ex.eval(env)).collect()
}

/// AND (`decides` false) and OR (true).
fn decided(all: &[Ex], env: &Env<'_>, decides: bool) -> Result<Value, Unjudged> {
    let mut outcome = Value::Bool(!decides);
    for ex in all {
        match (ex.eval(env)?, &outcome) {
            (Value::Bool(b), _) if b == decides => outcome = Value::Bool(b),
            (Value::Null, Value::Bool(b)) if *b != decides => outcome = Value::Null,
            _ => {}
        }
    }
    Ok(outcome)
}
