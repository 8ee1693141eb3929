//! Binds expressions that are true, false or unknown by their form: comparisons, tests and their combinations.

use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, UnaryOperator};

use super::bind::{Binder, unknown};
use super::calls::arguments;
use super::convert::{comparable, conversion, meet, pair};
use super::expr::{ComparisonOp, Term};
use super::operators;
use super::trust::Unjudged;
use super::value::{Scalar, ScalarType};

impl Binder<'_> {
    /// Binds an expression of such a form; none for any other.
    pub(super) fn predicate(&self, expr: &Expr) -> Result<Option<Term>, Unjudged> {
        Ok(Some(match expr {
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => not(self.condition(expr)?),
            Expr::BinaryOp { left, op, right } => return self.binary_predicate(left, op, right),
            Expr::IsNull(of) => self.null(of, true)?,
            Expr::IsNotNull(of) => self.null(of, false)?,
            Expr::IsUnknown(of) => Term::IsNull(Box::new(self.condition(of)?)),
            Expr::IsNotUnknown(of) => not(Term::IsNull(Box::new(self.condition(of)?))),
            Expr::IsTrue(of) => Term::Is(Box::new(self.condition(of)?), true),
            Expr::IsFalse(of) => Term::Is(Box::new(self.condition(of)?), false),
            Expr::IsNotTrue(of) => not(Term::Is(Box::new(self.condition(of)?), true)),
            Expr::IsNotFalse(of) => not(Term::Is(Box::new(self.condition(of)?), false)),
            Expr::IsDistinctFrom(left, right) => self.distinct(left, right)?,
            Expr::IsNotDistinctFrom(left, right) => not(self.distinct(left, right)?),
            Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let above = self.compare(expr, ComparisonOp::GreaterEqual, low)?;
                let below = self.compare(expr, ComparisonOp::LessEqual, high)?;
                negate(Term::And(vec![above, below]), *negated)
            }
            Expr::InList { expr, list, negated } => negate(self.listed(expr, list)?, *negated),
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => negate(self.any(expr, ComparisonOp::Equal, subquery)?, *negated),
            Expr::Exists { subquery, negated } => negate(Term::Exists(self.subquery(subquery)?), *negated),
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => self.quantified(left, compare_op, right)?,
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => {
                let opposite = opposite(comparison(compare_op).ok_or_else(|| unknown(expr))?);
                not(self.quantified_by(left, opposite, right)?)
            }
            Expr::Like {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => {
                let like = operators::like(self.bind(expr)?, self.bind(pattern)?, escape_char.as_ref(), false)?;
                negate(like, *negated)
            }
            Expr::ILike {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => {
                let like = operators::like(self.bind(expr)?, self.bind(pattern)?, escape_char.as_ref(), true)?;
                negate(like, *negated)
            }
            _ => return Ok(None),
        }))
    }

    /// Binds a comparison, AND, OR, or a match with a regular expression; none for other operations.
    fn binary_predicate(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Option<Term>, Unjudged> {
        if let Some(comparison) = comparison(op) {
            return self.compare(left, comparison, right).map(Some);
        }
        let (ignores_case, negated) = match op {
            BinaryOperator::And => return Ok(Some(Term::And(vec![self.condition(left)?, self.condition(right)?]))),
            BinaryOperator::Or => return Ok(Some(Term::Or(vec![self.condition(left)?, self.condition(right)?]))),
            BinaryOperator::PGRegexMatch => (false, false),
            BinaryOperator::PGRegexIMatch => (true, false),
            BinaryOperator::PGRegexNotMatch => (false, true),
            BinaryOperator::PGRegexNotIMatch => (true, true),
            _ => return Ok(None),
        };
        let matches = operators::regex(self.bind(left)?, self.bind(right)?, ignores_case)?;
        Ok(Some(negate(matches, negated)))
    }

    /// Binds `expr IN (list)`.
    fn listed(&self, expr: &Expr, list: &[Expr]) -> Result<Term, Unjudged> {
        if items(expr).is_some() {
            let each = list.iter().map(|item| self.compare(expr, ComparisonOp::Equal, item));
            return Ok(Term::Or(each.collect::<Result<_, _>>()?));
        }
        // The value and all items of the list are converted to one common type.
        let (looked, listed) = (self.bind(expr)?, self.all(list)?);
        let of = meet(listed.iter().chain([&looked]))?;
        let looked = Box::new(comparable(looked, &of)?);
        let each = listed.into_iter().map(|item| {
            let item = Box::new(comparable(item, &of)?);
            Ok(Term::Compare(ComparisonOp::Equal, looked.clone(), item))
        });
        Ok(Term::Or(each.collect::<Result<_, Unjudged>>()?))
    }

    /// Binds a comparison of values, or of rows column by column.
    pub(super) fn compare(&self, left: &Expr, op: ComparisonOp, right: &Expr) -> Result<Term, Unjudged> {
        let (Some(left), Some(right)) = (items(left), items(right)) else {
            let (left, right) = (self.bind(left)?, self.bind(right)?);
            let of = meet([&left, &right])?;
            let (left, right) = (comparable(left, &of)?, comparable(right, &of)?);
            return Ok(Term::Compare(op, Box::new(left), Box::new(right)));
        };
        if left.len() != right.len() || left.is_empty() {
            return Err(Unjudged::construct("rows of different lengths"));
        }
        let each = |op| {
            let pairs = left.iter().zip(&right);
            pairs
                .map(|(left, right)| self.compare(left, op, right))
                .collect::<Result<Vec<_>, _>>()
        };
        let strict = match op {
            ComparisonOp::Equal => return Ok(Term::And(each(op)?)),
            ComparisonOp::NotEqual => return Ok(Term::Or(each(op)?)),
            ComparisonOp::Less | ComparisonOp::LessEqual => ComparisonOp::Less,
            ComparisonOp::Greater | ComparisonOp::GreaterEqual => ComparisonOp::Greater,
        };
        // The first column in which the rows differ decides.
        let (equal, decided, last) = (each(ComparisonOp::Equal)?, each(strict)?, each(op)?);
        let mut whole = last.into_iter().next_back().expect("a row has columns");
        for (equal, decided) in equal.into_iter().zip(decided).rev().skip(1) {
            whole = Term::Or(vec![decided, Term::And(vec![equal, whole])]);
        }
        Ok(whole)
    }

    fn distinct(&self, left: &Expr, right: &Expr) -> Result<Term, Unjudged> {
        if let (Some(left), Some(right)) = (items(left), items(right)) {
            let pairs = left.iter().zip(&right);
            return Ok(Term::Or(
                pairs.map(|(l, r)| self.distinct(l, r)).collect::<Result<_, _>>()?,
            ));
        }
        let (left, right) = (self.bind(left)?, self.bind(right)?);
        let of = meet([&left, &right])?;
        Ok(Term::Distinct(
            Box::new(comparable(left, &of)?),
            Box::new(comparable(right, &of)?),
        ))
    }

    /// Binds `IS NULL` or `IS NOT NULL`. A row is null if all of its columns are, and not null if none is.
    fn null(&self, of: &Expr, is: bool) -> Result<Term, Unjudged> {
        let each = match items(of) {
            Some(items) => items
                .iter()
                .map(|item| self.bind(item))
                .collect::<Result<Vec<_>, _>>()?,
            None => vec![self.bind(of)?],
        };
        let each = each
            .into_iter()
            .map(|bound| negate(Term::IsNull(Box::new(bound.ex)), !is));
        Ok(Term::And(each.collect()))
    }

    fn quantified(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Term, Unjudged> {
        let op = comparison(op).ok_or_else(|| Unjudged::construct(format!("the operator {op} ANY")))?;
        self.quantified_by(left, op, right)
    }

    fn quantified_by(&self, left: &Expr, op: ComparisonOp, right: &Expr) -> Result<Term, Unjudged> {
        match right {
            Expr::Nested(inner) => self.quantified_by(left, op, inner),
            Expr::Subquery(query) => self.any(left, op, query),
            Expr::Array(list) => {
                let each = list.elem.iter().map(|item| self.compare(left, op, item));
                Ok(Term::Or(each.collect::<Result<_, _>>()?))
            }
            other => Err(Unjudged::construct(format!("a comparison with the items of {other}"))),
        }
    }

    fn any(&self, left: &Expr, op: ComparisonOp, query: &ast::Query) -> Result<Term, Unjudged> {
        let (left, query) = (self.bind(left)?, self.subquery(query)?);
        let [column] = query.columns.as_slice() else {
            return Err(Unjudged::construct("a comparison with rows of several columns"));
        };
        let of = match left.quoted {
            true => column.of.clone(),
            false => pair(&left.of, &column.of)?,
        };
        let into = |from: &ScalarType| match (from, &of) {
            (ScalarType::Int(_) | ScalarType::Number(_), ScalarType::Int(_) | ScalarType::Number(_)) => {
                conversion(from, from)
            }
            (ScalarType::Null, _) => conversion(&ScalarType::Null, &ScalarType::Null),
            (from, to) => conversion(from, to).map(|kernel| -> super::expr::ScalarKernel {
                Rc::new(move |v: &[Scalar]| if v[0].is_null() { Ok(Scalar::Null) } else { kernel(v) })
            }),
        };
        let kernels = Rc::new([into(&left.of)?, into(&column.of)?]);
        Ok(Term::Any(op, Box::new(left.ex), query.clone(), kernels))
    }
}

/// The columns of a row constructor: `(a, b)` or `ROW(a, b)`.
fn items(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => items(inner),
        Expr::Tuple(items) => Some(items.clone()),
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("row") => arguments(call).ok(),
        _ => None,
    }
}

fn comparison(op: &BinaryOperator) -> Option<ComparisonOp> {
    Some(match op {
        BinaryOperator::Eq => ComparisonOp::Equal,
        BinaryOperator::NotEq => ComparisonOp::NotEqual,
        BinaryOperator::Lt => ComparisonOp::Less,
        BinaryOperator::LtEq => ComparisonOp::LessEqual,
        BinaryOperator::Gt => ComparisonOp::Greater,
        BinaryOperator::GtEq => ComparisonOp::GreaterEqual,
        _ => return None,
    })
}

fn opposite(op: ComparisonOp) -> ComparisonOp {
    match op {
        ComparisonOp::Equal => ComparisonOp::NotEqual,
        ComparisonOp::NotEqual => ComparisonOp::Equal,
        ComparisonOp::Less => ComparisonOp::GreaterEqual,
        ComparisonOp::LessEqual => ComparisonOp::Greater,
        ComparisonOp::Greater => ComparisonOp::LessEqual,
        ComparisonOp::GreaterEqual => ComparisonOp::Less,
    }
}

fn not(ex: Term) -> Term {
    Term::Not(Box::new(ex))
}

fn negate(ex: Term, negated: bool) -> Term {
    match negated {
        true => not(ex),
        false => ex,
    }
}
