//! Binds expressions of SQL to the columns that their names mean.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, Ident, UnaryOperator, VisitMut, VisitorMut};

use super::aggregate::AggregateEval;
use super::convert::{conversion, converted, meet};
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
        if let Some(truth) = self.predicate(expr)? {
            return Ok(TypedTerm::new(truth, ScalarType::Bool));
        }
        match expr {
            Expr::Nested(inner) => self.bind(inner),
            Expr::Identifier(name) => self.column(std::slice::from_ref(name)),
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::Value(value) => types::literal(&value.value),
            Expr::TypedString(text) => typed_literal(text),
            Expr::Interval(interval) => {
                let length = types::interval(interval)?;
                Ok(TypedTerm::new(Term::Const(Scalar::Length(length)), ScalarType::Length))
            }
            Expr::UnaryOp {
                op: UnaryOperator::Plus,
                expr,
            } => self.bind(expr),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => operators::negated(self.bind(expr)?),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::Subquery(subquery) => self.scalar(subquery),
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => self.case(operand.as_deref(), conditions, else_result.as_deref()),
            Expr::Cast {
                expr, data_type, kind, ..
            } if *kind != ast::CastKind::TryCast && *kind != ast::CastKind::SafeCast => {
                types::cast(self.bind(expr)?, &types::cast_type(data_type)?)
            }
            Expr::Function(call) => self.function(call),
            other => self.keyword_call(other),
        }
    }

    /// Binds a subquery of one column as a value.
    fn scalar(&self, subquery: &ast::Query) -> Result<TypedTerm, Unjudged> {
        let query = self.subquery(subquery)?;
        match query.columns.as_slice() {
            [column] => Ok(TypedTerm::new(Term::Scalar(query.clone()), column.of.clone())),
            _ => Err(Unjudged::construct("a subquery of several columns as a value")),
        }
    }

    /// Binds CASE; all of its values get one type.
    fn case(
        &self,
        operand: Option<&Expr>,
        branches: &[ast::CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Result<TypedTerm, Unjudged> {
        let mut whens = Vec::new();
        for branch in branches {
            whens.push(match operand {
                Some(operand) => self.compare(operand, ComparisonOp::Equal, &branch.condition)?,
                None => self.condition(&branch.condition)?,
            });
        }
        let values = branches.iter().map(|branch| &branch.result).chain(otherwise);
        let values = values.map(|value| self.bind(value)).collect::<Result<Vec<_>, _>>()?;
        let of = meet(&values)?;
        let mut values = values
            .into_iter()
            .map(|value| converted(value, &of))
            .collect::<Result<Vec<_>, _>>()?;
        let otherwise = match otherwise {
            Some(_) => values.pop().expect("there is an ELSE"),
            None => Term::Const(Scalar::Null),
        };
        let branches = whens.into_iter().zip(values).collect();
        Ok(TypedTerm::new(Term::Case(branches, Box::new(otherwise)), of))
    }

    /// Binds a call that SQL writes with keywords, as in `EXTRACT(year FROM t)`.
    fn keyword_call(&self, expr: &Expr) -> Result<TypedTerm, Unjudged> {
        match expr {
            Expr::Extract { field, expr, .. } => operators::extract(&field.to_string(), self.bind(expr)?),
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
                let parts = [Some(expr), trim_what.as_ref()];
                self.named(name, parts.into_iter().flatten().map(|part| part.as_ref()))
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

    /// Binds an operation that is no predicate.
    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<TypedTerm, Unjudged> {
        let arith = match op {
            BinaryOperator::Plus => ArithmeticOp::Add,
            BinaryOperator::Minus => ArithmeticOp::Subtract,
            BinaryOperator::Multiply => ArithmeticOp::Multiply,
            BinaryOperator::Divide => ArithmeticOp::Divide,
            BinaryOperator::Modulo => ArithmeticOp::Remainder,
            BinaryOperator::StringConcat => return operators::joined(self.bind(left)?, self.bind(right)?),
            BinaryOperator::PGExp => return operators::power(self.bind(left)?, self.bind(right)?),
            other => return Err(Unjudged::construct(format!("the operator {other}"))),
        };
        operators::arith(arith, self.bind(left)?, self.bind(right)?)
    }

    pub(super) fn subquery(&self, query: &ast::Query) -> Result<Rc<super::query::Query>, Unjudged> {
        self.planner.query(query, Some(self.scope), self.ctes)
    }
}

/// The reason why an expression of an unknown form is not judged.
pub(super) fn unknown(expr: &Expr) -> Unjudged {
    let text: String = expr.to_string().chars().take(60).collect();
    Unjudged::construct(format!("the expression {text}"))
}

/// Binds a literal with its type, as in `DATE '2024-01-31'`.
fn typed_literal(literal: &ast::TypedString) -> Result<TypedTerm, Unjudged> {
    let to = types::cast_type(&literal.data_type)?.of;
    let ast::Value::SingleQuotedString(text) = &literal.value.value else {
        return Err(Unjudged::construct(format!("the literal {literal}")));
    };
    let value = conversion(&ScalarType::Text, &to)?(&[Scalar::text(text.as_str())])?;
    Ok(TypedTerm::new(Term::Const(value), to))
}
