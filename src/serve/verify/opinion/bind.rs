//! Binds expressions of SQL to the columns that their names mean.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, Ident, UnaryOperator, VisitMut, VisitorMut};

use super::aggregate::AggregateEval;
use super::calls::arguments;
use super::convert::{comparable, conversion, converted, meet, pair};
use super::expr::{ComparisonOp, Term, TypedTerm};
use super::number::ArithmeticOp;
use super::operators;
use super::query::{Ctes, Planner};
use super::scope::Scope;
use super::trust::Unjudged;
use super::types;
use super::value::{Scalar, ScalarType};
use super::window::WindowCall;

/// The context in which an expression is bound: what names mean, and which calls are allowed.
#[derive(Clone, Copy)]
pub struct Binder<'a> {
    pub planner: &'a Planner<'a>,
    pub scope: &'a Scope<'a>,
    pub ctes: &'a Ctes,
    /// Set after a GROUP BY.
    pub groups: Option<&'a GroupScope<'a>>,
    /// Set where window functions are allowed.
    pub windows: Option<&'a Windows>,
}

/// The scope after a GROUP BY: a group's row has the values of the GROUP BY expressions, then its aggregates.
pub struct GroupScope<'a> {
    /// Each expression of GROUP BY, in the form of [`shape`], and its type.
    pub by: Vec<(String, ScalarType)>,
    /// The scope of the rows before grouping.
    pub rows: &'a Scope<'a>,
    /// The aggregates that have been bound so far.
    pub calls: RefCell<Vec<(String, AggregateEval, ScalarType)>>,
}

/// The window functions that have been bound so far; their columns come after the first `base` columns.
pub struct Windows {
    pub base: usize,
    pub calls: RefCell<Vec<WindowCall>>,
    pub named: Vec<ast::NamedWindowDefinition>,
}

/// The text of an expression in which column positions replace names: equal texts mean equal expressions.
pub fn shape(expr: &Expr, scope: &Scope<'_>) -> String {
    struct Names<'a>(&'a Scope<'a>);
    impl VisitorMut for Names<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            while let Expr::Nested(inner) = expr {
                *expr = inner.as_ref().clone();
            }
            let parts: Vec<String> = match expr {
                Expr::Identifier(name) => vec![super::scope::spelled(name)],
                Expr::CompoundIdentifier(parts) => parts.iter().map(super::scope::spelled).collect(),
                _ => return ControlFlow::Continue(()),
            };
            if let Ok(Some(at)) = self.0.position(&parts) {
                *expr = Expr::Identifier(Ident::new(format!("#{at}")));
            }
            ControlFlow::Continue(())
        }
    }
    let mut expr = expr.clone();
    let _ = VisitMut::visit(&mut expr, &mut Names(scope));
    expr.to_string()
}

impl<'a> Binder<'a> {
    /// Binds an expression.
    pub fn bind(&self, expr: &Expr) -> Result<TypedTerm, Unjudged> {
        if let Some(groups) = self.groups {
            let shape = shape(expr, groups.rows);
            if let Some(at) = groups.by.iter().position(|(known, _)| *known == shape) {
                return Ok(TypedTerm::new(Term::Column(at), groups.by[at].1.clone()));
            }
        }
        let boolean = |ex| Ok(TypedTerm::new(ex, ScalarType::Bool));
        match expr {
            Expr::Nested(inner) => self.bind(inner),
            Expr::Identifier(name) => self.column(std::slice::from_ref(name)),
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::Value(value) => types::literal(&value.value),
            Expr::TypedString(text) => {
                let to = types::cast_type(&text.data_type)?.of;
                let ast::Value::SingleQuotedString(value) = &text.value.value else {
                    return Err(Unjudged::construct(format!("the literal {expr}")));
                };
                Ok(TypedTerm::new(
                    Term::Const(conversion(&ScalarType::Text, &to)?(&[Scalar::text(value.as_str())])?),
                    to,
                ))
            }
            Expr::Interval(interval) => {
                let length = types::interval(interval)?;
                Ok(TypedTerm::new(Term::Const(Scalar::Length(length)), ScalarType::Length))
            }
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => boolean(Term::Not(Box::new(self.condition(expr)?))),
            Expr::UnaryOp {
                op: UnaryOperator::Plus,
                expr,
            } => self.bind(expr),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => operators::negated(self.bind(expr)?),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::IsNull(of) => self.null(of, true),
            Expr::IsNotNull(of) => self.null(of, false),
            Expr::IsUnknown(of) => boolean(Term::IsNull(Box::new(self.condition(of)?))),
            Expr::IsNotUnknown(of) => boolean(not(Term::IsNull(Box::new(self.condition(of)?)))),
            Expr::IsTrue(of) => boolean(Term::Is(Box::new(self.condition(of)?), true)),
            Expr::IsFalse(of) => boolean(Term::Is(Box::new(self.condition(of)?), false)),
            Expr::IsNotTrue(of) => boolean(not(Term::Is(Box::new(self.condition(of)?), true))),
            Expr::IsNotFalse(of) => boolean(not(Term::Is(Box::new(self.condition(of)?), false))),
            Expr::IsDistinctFrom(left, right) => boolean(self.distinct(left, right)?),
            Expr::IsNotDistinctFrom(left, right) => boolean(not(self.distinct(left, right)?)),
            Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let above = self.compare(expr, ComparisonOp::GreaterEqual, low)?;
                let below = self.compare(expr, ComparisonOp::LessEqual, high)?;
                boolean(negate(Term::And(vec![above, below]), *negated))
            }
            Expr::InList { expr, list, negated } => {
                let all: Result<Vec<Term>, Unjudged> = match items(expr) {
                    Some(_) => list
                        .iter()
                        .map(|item| self.compare(expr, ComparisonOp::Equal, item))
                        .collect(),
                    // The value and all items of the list are converted to one common type.
                    None => {
                        let (looked, listed) = (self.bind(expr)?, self.all(list)?);
                        let of = meet(listed.iter().chain([&looked]))?;
                        let looked = Box::new(comparable(looked, &of)?);
                        let each = listed.into_iter().map(|item| {
                            let item = Box::new(comparable(item, &of)?);
                            Ok(Term::Compare(ComparisonOp::Equal, looked.clone(), item))
                        });
                        each.collect()
                    }
                };
                boolean(negate(Term::Or(all?), *negated))
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => boolean(negate(self.any(expr, ComparisonOp::Equal, subquery)?, *negated)),
            Expr::Exists { subquery, negated } => boolean(negate(Term::Exists(self.subquery(subquery)?), *negated)),
            Expr::Subquery(subquery) => {
                let query = self.subquery(subquery)?;
                match query.columns.as_slice() {
                    [column] => Ok(TypedTerm::new(Term::Scalar(query.clone()), column.of.clone())),
                    _ => Err(Unjudged::construct("a subquery of several columns as a value")),
                }
            }
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => boolean(self.quantified(left, compare_op, right)?),
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => {
                let opposite = opposite(comparison(compare_op).ok_or_else(|| unknown(expr))?);
                boolean(not(self.quantified_by(left, opposite, right)?))
            }
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                let mut whens = Vec::new();
                for when in conditions {
                    whens.push(match operand {
                        Some(operand) => self.compare(operand, ComparisonOp::Equal, &when.condition)?,
                        None => self.condition(&when.condition)?,
                    });
                }
                let values = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
                let values = values.map(|value| self.bind(value)).collect::<Result<Vec<_>, _>>()?;
                let of = meet(&values)?;
                let mut values = values
                    .into_iter()
                    .map(|value| converted(value, &of))
                    .collect::<Result<Vec<_>, _>>()?;
                let otherwise = match else_result {
                    Some(_) => values.pop().expect("there is an ELSE"),
                    None => Term::Const(Scalar::Null),
                };
                let branches = whens.into_iter().zip(values).collect();
                Ok(TypedTerm::new(Term::Case(branches, Box::new(otherwise)), of))
            }
            Expr::Cast {
                expr, data_type, kind, ..
            } if *kind != ast::CastKind::TryCast && *kind != ast::CastKind::SafeCast => {
                types::cast(self.bind(expr)?, &types::cast_type(data_type)?)
            }
            Expr::Like {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => {
                let like = operators::like(self.bind(expr)?, self.bind(pattern)?, escape_char.as_ref(), false)?;
                boolean(negate(like, *negated))
            }
            Expr::ILike {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => {
                let like = operators::like(self.bind(expr)?, self.bind(pattern)?, escape_char.as_ref(), true)?;
                boolean(negate(like, *negated))
            }
            Expr::Extract { field, expr, .. } => operators::extract(&field.to_string(), self.bind(expr)?),
            Expr::Function(call) => self.function(call),
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                let parts = [Some(expr), substring_from.as_ref(), substring_for.as_ref()];
                self.named("substr", parts.into_iter().flatten().map(|part| part.as_ref()))
            }
            Expr::Trim {
                trim_where,
                trim_what,
                expr,
                trim_characters: None,
            } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                self.named(
                    name,
                    [Some(expr), trim_what.as_ref()]
                        .into_iter()
                        .flatten()
                        .map(|part| part.as_ref()),
                )
            }
            Expr::Ceil { expr, .. } => self.named("ceil", [expr.as_ref()]),
            Expr::Floor { expr, .. } => self.named("floor", [expr.as_ref()]),
            Expr::Position { expr, r#in } => self.named("strpos", [r#in.as_ref(), expr.as_ref()]),
            Expr::AtTimeZone { timestamp, time_zone } => {
                self.named("timezone", [time_zone.as_ref(), timestamp.as_ref()])
            }
            other => Err(unknown(other)),
        }
    }

    /// Binds several expressions.
    pub fn all(&self, all: &[Expr]) -> Result<Vec<TypedTerm>, Unjudged> {
        all.iter().map(|expr| self.bind(expr)).collect()
    }

    /// Binds a condition.
    pub fn condition(&self, expr: &Expr) -> Result<Term, Unjudged> {
        let bound = self.bind(expr)?;
        match bound.of {
            ScalarType::Bool | ScalarType::Null => Ok(bound.ex),
            of => Err(Unjudged::Types(format!("a {} as a condition", of.name()))),
        }
    }

    fn named<'e>(&self, name: &str, of: impl IntoIterator<Item = &'e Expr>) -> Result<TypedTerm, Unjudged> {
        let of = of
            .into_iter()
            .map(|expr| self.bind(expr))
            .collect::<Result<Vec<_>, _>>()?;
        self.planner.call(name, of)
    }

    fn column(&self, name: &[Ident]) -> Result<TypedTerm, Unjudged> {
        if let [name] = name
            && let Some(value) = self.planner.moment(name)
            && self.scope.position(&[super::scope::spelled(name)])?.is_none()
        {
            return Ok(value);
        }
        let found = self.scope.find(name)?;
        let ex = match found.level {
            0 => Term::Column(found.position),
            level => Term::Outer(level, found.position),
        };
        Ok(TypedTerm::new(ex, found.of))
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<TypedTerm, Unjudged> {
        if let Some(comparison) = comparison(op) {
            return Ok(TypedTerm::new(self.compare(left, comparison, right)?, ScalarType::Bool));
        }
        let both = |op: fn(Vec<Term>) -> Term| -> Result<TypedTerm, Unjudged> {
            let ex = op(vec![self.condition(left)?, self.condition(right)?]);
            Ok(TypedTerm::new(ex, ScalarType::Bool))
        };
        let arith = match op {
            BinaryOperator::And => return both(Term::And),
            BinaryOperator::Or => return both(Term::Or),
            BinaryOperator::Plus => ArithmeticOp::Add,
            BinaryOperator::Minus => ArithmeticOp::Subtract,
            BinaryOperator::Multiply => ArithmeticOp::Multiply,
            BinaryOperator::Divide => ArithmeticOp::Divide,
            BinaryOperator::Modulo => ArithmeticOp::Remainder,
            BinaryOperator::StringConcat => return operators::joined(self.bind(left)?, self.bind(right)?),
            BinaryOperator::PGExp => return operators::power(self.bind(left)?, self.bind(right)?),
            BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch => {
                let ignores = matches!(op, BinaryOperator::PGRegexIMatch | BinaryOperator::PGRegexNotIMatch);
                let negated = matches!(op, BinaryOperator::PGRegexNotMatch | BinaryOperator::PGRegexNotIMatch);
                let matches = operators::regex(self.bind(left)?, self.bind(right)?, ignores)?;
                return Ok(TypedTerm::new(negate(matches, negated), ScalarType::Bool));
            }
            other => return Err(Unjudged::construct(format!("the operator {other}"))),
        };
        operators::arith(arith, self.bind(left)?, self.bind(right)?)
    }

    /// Binds a comparison of values, or of rows column by column.
    fn compare(&self, left: &Expr, op: ComparisonOp, right: &Expr) -> Result<Term, Unjudged> {
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
    fn null(&self, of: &Expr, is: bool) -> Result<TypedTerm, Unjudged> {
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
        Ok(TypedTerm::new(Term::And(each.collect()), ScalarType::Bool))
    }

    fn subquery(&self, query: &ast::Query) -> Result<Rc<super::query::Query>, Unjudged> {
        self.planner.query(query, Some(self.scope), self.ctes)
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

fn unknown(expr: &Expr) -> Unjudged {
    let text: String = expr.to_string().chars().take(60).collect();
    Unjudged::construct(format!("the expression {text}"))
}
