//! Expressions, bound to columns and evaluated row by row.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::query::Query;
use super::trust::Unjudged;
use super::value::{Scalar, ScalarType};

/// Computes a value from argument values.
pub type ScalarKernel = Rc<dyn Fn(&[Scalar]) -> Result<Scalar, Unjudged>>;

/// An expression.
#[derive(Clone)]
pub enum Term {
    Const(Scalar),
    /// A column of the current row.
    Column(usize),
    /// A column of a row of an enclosing query: how many queries outwards, and its position.
    Outer(usize, usize),
    And(Vec<Term>),
    Or(Vec<Term>),
    Not(Box<Term>),
    Compare(ComparisonOp, Box<Term>, Box<Term>),
    /// IS DISTINCT FROM, where NULL equals itself.
    Distinct(Box<Term>, Box<Term>),
    IsNull(Box<Term>),
    /// IS TRUE or IS FALSE of a condition; never unknown.
    Is(Box<Term>, bool),
    /// The value of the first branch whose condition is true, else the last term.
    Case(Vec<(Term, Term)>, Box<Term>),
    Coalesce(Vec<Term>),
    /// NULL if an argument is NULL; otherwise the kernel's value.
    Strict(ScalarKernel, Vec<Term>),
    /// The kernel's value, with NULL arguments passed too.
    Call(ScalarKernel, Vec<Term>),
    Exists(Rc<Query>),
    /// The single value of a subquery, converted.
    Scalar(Rc<Query>),
    /// Whether the comparison holds between a value and any row of a subquery; the kernels convert both sides.
    Any(ComparisonOp, Box<Term>, Rc<Query>, Rc<[ScalarKernel; 2]>),
}

/// Comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOp {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl ComparisonOp {
    /// Compares two values: true, false or unknown (NULL).
    pub fn holds(self, left: &Scalar, right: &Scalar) -> Scalar {
        let Some(order) = left.compare(right) else {
            return Scalar::Null;
        };
        Scalar::Bool(match self {
            ComparisonOp::Equal => order == Ordering::Equal,
            ComparisonOp::NotEqual => order != Ordering::Equal,
            ComparisonOp::Less => order == Ordering::Less,
            ComparisonOp::LessEqual => order != Ordering::Greater,
            ComparisonOp::Greater => order == Ordering::Greater,
            ComparisonOp::GreaterEqual => order != Ordering::Less,
        })
    }
}

/// An expression with its type.
#[derive(Clone)]
pub struct TypedTerm {
    pub ex: Term,
    pub of: ScalarType,
    /// Whether it is a quoted text in the query, which takes the type of the value beside it.
    pub quoted: bool,
}

impl TypedTerm {
    /// An expression that is not a quoted text.
    pub fn new(ex: Term, of: ScalarType) -> TypedTerm {
        TypedTerm { ex, of, quoted: false }
    }
}

/// The current row, and the rows of the enclosing queries.
#[derive(Clone, Copy)]
pub struct RowEnv<'a> {
    pub row: &'a [Scalar],
    pub parent: Option<&'a RowEnv<'a>>,
}

impl RowEnv<'_> {
    /// A column of the row of an enclosing query, `level` queries outwards.
    pub fn outer(&self, level: usize, position: usize) -> Scalar {
        let mut env = self;
        for _ in 0..level {
            env = env.parent.expect("a column was found in a query around");
        }
        env.row[position].clone()
    }
}

impl Term {
    /// Evaluates the expression for a row.
    pub fn eval(&self, env: &RowEnv<'_>) -> Result<Scalar, Unjudged> {
        Ok(match self {
            Term::Const(value) => value.clone(),
            Term::Column(at) => env.row[*at].clone(),
            Term::Outer(level, at) => env.outer(*level, *at),
            // All operands are always evaluated: if one fails, SQL leaves open whether another one decides.
            Term::And(all) => decided(all, env, false)?,
            Term::Or(all) => decided(all, env, true)?,
            Term::Not(of) => match of.eval(env)? {
                Scalar::Bool(b) => Scalar::Bool(!b),
                _ => Scalar::Null,
            },
            Term::Compare(op, left, right) => op.holds(&left.eval(env)?, &right.eval(env)?),
            Term::Distinct(left, right) => {
                let (left, right) = (left.eval(env)?, right.eval(env)?);
                Scalar::Bool(match (left.is_null(), right.is_null()) {
                    (false, false) => left.compare(&right) != Some(Ordering::Equal),
                    (one, other) => one != other,
                })
            }
            Term::IsNull(of) => Scalar::Bool(of.eval(env)?.is_null()),
            Term::Is(of, wanted) => Scalar::Bool(matches!(of.eval(env)?, Scalar::Bool(b) if b == *wanted)),
            Term::Case(branches, otherwise) => {
                for (condition, value) in branches {
                    if condition.eval(env)?.is_true() {
                        return value.eval(env);
                    }
                }
                otherwise.eval(env)?
            }
            Term::Coalesce(all) => {
                for of in all {
                    let value = of.eval(env)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Scalar::Null
            }
            Term::Strict(kernel, of) => {
                let values = values(of, env)?;
                match values.iter().any(Scalar::is_null) {
                    true => Scalar::Null,
                    false => kernel(&values)?,
                }
            }
            Term::Call(kernel, of) => kernel(&values(of, env)?)?,
            Term::Exists(query) => Scalar::Bool(!query.rows(Some(env))?.is_empty()),
            Term::Scalar(query) => match query.rows(Some(env))?.as_slice() {
                [] => Scalar::Null,
                [row] => row[0].clone(),
                _ => return Err(Unjudged::row("a subquery that is a value has several rows")),
            },
            Term::Any(op, left, query, kernels) => {
                let [of_left, of_row] = kernels.as_ref();
                let left = of_left(&[left.eval(env)?])?;
                let mut outcome = Scalar::Bool(false);
                for row in query.rows(Some(env))?.iter() {
                    match op.holds(&left, &of_row(&row[..1])?) {
                        Scalar::Bool(true) => return Ok(Scalar::Bool(true)),
                        Scalar::Bool(false) => {}
                        _ => outcome = Scalar::Null,
                    }
                }
                outcome
            }
        })
    }

    /// Adds the columns of the current row that the expression uses; `depth` is the depth of its query. Returns false
    /// if it has subqueries.
    pub fn columns(&self, depth: usize, found: &mut BTreeSet<usize>) -> bool {
        match self {
            Term::Const(_) | Term::Outer(..) => true,
            Term::Column(at) => {
                found.insert(*at);
                true
            }
            Term::Exists(query) | Term::Scalar(query) => {
                query.columns(depth, found);
                false
            }
            Term::Any(_, left, query, _) => {
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

    /// The same expression over rows without the first `by` columns. It must have no subqueries.
    pub fn shifted(&self, by: usize) -> Term {
        let all = |of: &[Term]| of.iter().map(|ex| ex.shifted(by)).collect::<Vec<_>>();
        let one = |of: &Term| Box::new(of.shifted(by));
        match self {
            Term::Column(at) => Term::Column(at - by),
            Term::And(of) => Term::And(all(of)),
            Term::Or(of) => Term::Or(all(of)),
            Term::Coalesce(of) => Term::Coalesce(all(of)),
            Term::Strict(kernel, of) => Term::Strict(kernel.clone(), all(of)),
            Term::Call(kernel, of) => Term::Call(kernel.clone(), all(of)),
            Term::Not(of) => Term::Not(one(of)),
            Term::IsNull(of) => Term::IsNull(one(of)),
            Term::Is(of, truth) => Term::Is(one(of), *truth),
            Term::Compare(op, left, right) => Term::Compare(*op, one(left), one(right)),
            Term::Distinct(left, right) => Term::Distinct(one(left), one(right)),
            Term::Case(branches, otherwise) => {
                let branches = branches.iter().map(|(when, then)| (when.shifted(by), then.shifted(by)));
                Term::Case(branches.collect(), one(otherwise))
            }
            Term::Const(_) | Term::Outer(..) | Term::Exists(_) | Term::Scalar(_) | Term::Any(..) => self.clone(),
        }
    }

    /// Whether the expression uses a row of an enclosing query.
    pub fn is_outer(&self) -> bool {
        match self {
            Term::Outer(..) => true,
            Term::Exists(query) | Term::Scalar(query) => query.is_correlated(),
            Term::Any(_, left, query, _) => left.is_outer() || query.is_correlated(),
            other => other.parts().into_iter().any(Term::is_outer),
        }
    }

    fn parts(&self) -> Vec<&Term> {
        match self {
            Term::Const(_) | Term::Column(_) | Term::Outer(..) | Term::Exists(_) | Term::Scalar(_) => vec![],
            Term::And(of) | Term::Or(of) | Term::Coalesce(of) | Term::Strict(_, of) | Term::Call(_, of) => {
                of.iter().collect()
            }
            Term::Not(of) | Term::IsNull(of) | Term::Is(of, _) | Term::Any(_, of, _, _) => {
                vec![of]
            }
            Term::Compare(_, left, right) | Term::Distinct(left, right) => vec![left, right],
            Term::Case(branches, otherwise) => {
                let branches = branches.iter().flat_map(|(condition, value)| [condition, value]);
                branches.chain([otherwise.as_ref()]).collect()
            }
        }
    }
}

fn values(of: &[Term], env: &RowEnv<'_>) -> Result<Vec<Scalar>, Unjudged> {
    of.iter().map(|ex| ex.eval(env)).collect()
}

/// Evaluates AND (`decides` false) or OR (`decides` true).
fn decided(all: &[Term], env: &RowEnv<'_>, decides: bool) -> Result<Scalar, Unjudged> {
    let mut outcome = Scalar::Bool(!decides);
    for ex in all {
        match (ex.eval(env)?, &outcome) {
            (Scalar::Bool(b), _) if b == decides => outcome = Scalar::Bool(b),
            (Scalar::Null, Scalar::Bool(b)) if *b != decides => outcome = Scalar::Null,
            _ => {}
        }
    }
    Ok(outcome)
}
