//! Expressions of SQL, bound to the columns that their names mean.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, Ident, UnaryOperator, VisitMut, VisitorMut};

use super::aggregate::Call;
use super::calls::arguments;
use super::convert::{comparable, conversion, converted, meet, pair};
use super::expr::{Bound, Comparison, Ex};
use super::number::Arith;
use super::operators;
use super::query::{Ctes, Planner};
use super::scope::Scope;
use super::trust::Unjudged;
use super::types;
use super::value::{Type, Value};
use super::window::WindowCall;

/// What the names of an expression mean, and which calls it may have.
#[derive(Clone, Copy)]
pub struct Binder<'a> {
    pub planner: &'a Planner<'a>,
    pub scope: &'a Scope<'a>,
    pub ctes: &'a Ctes,
    /// Behind a GROUP BY.
    pub groups: Option<&'a Groups<'a>>,
    /// Where windows are allowed.
    pub windows: Option<&'a Windows>,
}

/// The groups of a query: their rows are the group's expressions, then its aggregates.
pub struct Groups<'a> {
    /// Each expression of GROUP BY, as [`shape`] writes it, and its type.
    pub by: Vec<(String, Type)>,
    /// The scope of the rows that are grouped.
    pub rows: &'a Scope<'a>,
    /// The aggregates that were met.
    pub calls: RefCell<Vec<(String, Call, Type)>>,
}

/// The window functions that were met; their columns stand behind the first `base` ones.
pub struct Windows {
    pub base: usize,
    pub calls: RefCell<Vec<WindowCall>>,
    pub named: Vec<ast::NamedWindowDefinition>,
}

/// An expression with the columns of the rows at hand in the places of their names: equal texts, equal meaning.
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
    /// The expression.
    pub fn bind(&self, expr: &Expr) -> Result<Bound, Unjudged> {
        if let Some(groups) = self.groups {
            let shape = shape(expr, groups.rows);
            if let Some(at) = groups.by.iter().position(|(known, _)| *known == shape) {
                return Ok(Bound::new(Ex::Column(at), groups.by[at].1.clone()));
            }
        }
        let boolean = |ex| Ok(Bound::new(ex, Type::Bool));
        match expr {
            Expr::Nested(inner) => self.bind(inner),
            Expr::Identifier(name) => self.column(std::slice::from_ref(name)),
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::Value(value) => types::literal(&value.value),
            Expr::TypedString(text) => {
                let to = types::of(&text.data_type)?.of;
                let ast::Value::SingleQuotedString(value) = &text.value.value else {
                    return Err(Unjudged::construct(format!("the literal {expr}")));
                };
                Ok(Bound::new(
                    Ex::Const(conversion(&Type::Text, &to)?(&[Value::text(value.as_str())])?),
                    to,
                ))
            }
            Expr::Interval(interval) => {
                let length = types::interval(interval)?;
                Ok(Bound::new(Ex::Const(Value::Length(length)), Type::Length))
            }
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => boolean(Ex::Not(Box::new(self.condition(expr)?))),
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
            Expr::IsUnknown(of) => boolean(Ex::IsNull(Box::new(self.condition(of)?))),
            Expr::IsNotUnknown(of) => boolean(not(Ex::IsNull(Box::new(self.condition(of)?)))),
            Expr::IsTrue(of) => boolean(Ex::Is(Box::new(self.condition(of)?), true)),
            Expr::IsFalse(of) => boolean(Ex::Is(Box::new(self.condition(of)?), false)),
            Expr::IsNotTrue(of) => boolean(not(Ex::Is(Box::new(self.condition(of)?), true))),
            Expr::IsNotFalse(of) => boolean(not(Ex::Is(Box::new(self.condition(of)?), false))),
            Expr::IsDistinctFrom(left, right) => boolean(self.distinct(left, right)?),
            Expr::IsNotDistinctFrom(left, right) => boolean(not(self.distinct(left, right)?)),
            Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let above = self.compare(expr, Comparison::GreaterEqual, low)?;
                let below = self.compare(expr, Comparison::LessEqual, high)?;
                boolean(negate(Ex::And(vec![above, below]), *negated))
            }
            Expr::InList { expr, list, negated } => {
                let all: Result<Vec<Ex>, Unjudged> = match items(expr) {
                    Some(_) => list
                        .iter()
                        .map(|item| self.compare(expr, Comparison::Equal, item))
                        .collect(),
                    // All items are of one type with what is looked for.
                    None => {
                        let (looked, listed) = (self.bind(expr)?, self.all(list)?);
                        let of = meet(listed.iter().chain([&looked]))?;
                        let looked = Box::new(comparable(looked, &of)?);
                        let each = listed.into_iter().map(|item| {
                            let item = Box::new(comparable(item, &of)?);
                            Ok(Ex::Compare(Comparison::Equal, looked.clone(), item))
                        });
                        each.collect()
                    }
                };
                boolean(negate(Ex::Or(all?), *negated))
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => boolean(negate(self.any(expr, Comparison::Equal, subquery)?, *negated)),
            Expr::Exists { subquery, negated } => boolean(negate(Ex::Exists(self.subquery(subquery)?), *negated)),
            Expr::Subquery(subquery) => {
                let query = self.subquery(subquery)?;
                match query.columns.as_slice() {
                    [column] => Ok(Bound::new(Ex::Scalar(query.clone()), column.of.clone())),
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
                        Some(operand) => self.compare(operand, Comparison::Equal, &when.condition)?,
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
                    None => Ex::Const(Value::Null),
                };
                let branches = whens.into_iter().zip(values).collect();
                Ok(Bound::new(Ex::Case(branches, Box::new(otherwise)), of))
            }
            Expr::Cast {
                expr, data_type, kind, ..
            } if *kind != ast::CastKind::TryCast && *kind != ast::CastKind::SafeCast => {
                types::cast(self.bind(expr)?, &types::of(data_type)?)
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

    /// Expressions.
    pub fn all(&self, all: &[Expr]) -> Result<Vec<Bound>, Unjudged> {
        all.iter().map(|expr| self.bind(expr)).collect()
    }

    /// A condition.
    pub fn condition(&self, expr: &Expr) -> Result<Ex, Unjudged> {
        let bound = self.bind(expr)?;
        match bound.of {
            Type::Bool | Type::Null => Ok(bound.ex),
            of => Err(Unjudged::Types(format!("a {} as a condition", of.name()))),
        }
    }

    fn named<'e>(&self, name: &str, of: impl IntoIterator<Item = &'e Expr>) -> Result<Bound, Unjudged> {
        let of = of
            .into_iter()
            .map(|expr| self.bind(expr))
            .collect::<Result<Vec<_>, _>>()?;
        self.planner.call(name, of)
    }

    fn column(&self, name: &[Ident]) -> Result<Bound, Unjudged> {
        if let [name] = name
            && let Some(value) = self.planner.moment(name)
            && self.scope.position(&[super::scope::spelled(name)])?.is_none()
        {
            return Ok(value);
        }
        let found = self.scope.find(name)?;
        let ex = match found.level {
            0 => Ex::Column(found.position),
            level => Ex::Outer(level, found.position),
        };
        Ok(Bound::new(ex, found.of))
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Bound, Unjudged> {
        if let Some(comparison) = comparison(op) {
            return Ok(Bound::new(self.compare(left, comparison, right)?, Type::Bool));
        }
        let both = |op: fn(Vec<Ex>) -> Ex| -> Result<Bound, Unjudged> {
            let ex = op(vec![self.condition(left)?, self.condition(right)?]);
            Ok(Bound::new(ex, Type::Bool))
        };
        let arith = match op {
            BinaryOperator::And => return both(Ex::And),
            BinaryOperator::Or => return both(Ex::Or),
            BinaryOperator::Plus => Arith::Add,
            BinaryOperator::Minus => Arith::Subtract,
            BinaryOperator::Multiply => Arith::Multiply,
            BinaryOperator::Divide => Arith::Divide,
            BinaryOperator::Modulo => Arith::Remainder,
            BinaryOperator::StringConcat => return operators::joined(self.bind(left)?, self.bind(right)?),
            BinaryOperator::PGExp => return operators::power(self.bind(left)?, self.bind(right)?),
            BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch => {
                let ignores = matches!(op, BinaryOperator::PGRegexIMatch | BinaryOperator::PGRegexNotIMatch);
                let negated = matches!(op, BinaryOperator::PGRegexNotMatch | BinaryOperator::PGRegexNotIMatch);
                let matches = operators::regex(self.bind(left)?, self.bind(right)?, ignores)?;
                return Ok(Bound::new(negate(matches, negated), Type::Bool));
            }
            other => return Err(Unjudged::construct(format!("the operator {other}"))),
        };
        operators::arith(arith, self.bind(left)?, self.bind(right)?)
    }

    /// A comparison of values, or of rows column by column.
    fn compare(&self, left: &Expr, op: Comparison, right: &Expr) -> Result<Ex, Unjudged> {
        let (Some(left), Some(right)) = (items(left), items(right)) else {
            let (left, right) = (self.bind(left)?, self.bind(right)?);
            let of = meet([&left, &right])?;
            let (left, right) = (comparable(left, &of)?, comparable(right, &of)?);
            return Ok(Ex::Compare(op, Box::new(left), Box::new(right)));
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
            Comparison::Equal => return Ok(Ex::And(each(op)?)),
            Comparison::NotEqual => return Ok(Ex::Or(each(op)?)),
            Comparison::Less | Comparison::LessEqual => Comparison::Less,
            Comparison::Greater | Comparison::GreaterEqual => Comparison::Greater,
        };
        // The first column in which they are not equal decides.
        let (equal, decided, last) = (each(Comparison::Equal)?, each(strict)?, each(op)?);
        let mut whole = last.into_iter().next_back().expect("a row has columns");
        for (equal, decided) in equal.into_iter().zip(decided).rev().skip(1) {
            whole = Ex::Or(vec![decided, Ex::And(vec![equal, whole])]);
        }
        Ok(whole)
    }

    fn distinct(&self, left: &Expr, right: &Expr) -> Result<Ex, Unjudged> {
        if let (Some(left), Some(right)) = (items(left), items(right)) {
            let pairs = left.iter().zip(&right);
            return Ok(Ex::Or(
                pairs.map(|(l, r)| self.distinct(l, r)).collect::<Result<_, _>>()?,
            ));
        }
        let (left, right) = (self.bind(left)?, self.bind(right)?);
        let of = meet([&left, &right])?;
        Ok(Ex::Distinct(
            Box::new(comparable(left, &of)?),
            Box::new(comparable(right, &of)?),
        ))
    }

    /// A row is null where all of its columns are, and not null where none is.
    fn null(&self, of: &Expr, is: bool) -> Result<Bound, Unjudged> {
        let each = match items(of) {
            Some(items) => items
                .iter()
                .map(|item| self.bind(item))
                .collect::<Result<Vec<_>, _>>()?,
            None => vec![self.bind(of)?],
        };
        let each = each
            .into_iter()
            .map(|bound| negate(Ex::IsNull(Box::new(bound.ex)), !is));
        Ok(Bound::new(Ex::And(each.collect()), Type::Bool))
    }

    fn subquery(&self, query: &ast::Query) -> Result<Rc<super::query::Query>, Unjudged> {
        self.planner.query(query, Some(self.scope), self.ctes)
    }

    fn quantified(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Ex, Unjudged> {
        let op = comparison(op).ok_or_else(|| Unjudged::construct(format!("the operator {op} ANY")))?;
        self.quantified_by(left, op, right)
    }

    fn quantified_by(&self, left: &Expr, op: Comparison, right: &Expr) -> Result<Ex, Unjudged> {
        match right {
            Expr::Nested(inner) => self.quantified_by(left, op, inner),
            Expr::Subquery(query) => self.any(left, op, query),
            Expr::Array(list) => {
                let each = list.elem.iter().map(|item| self.compare(left, op, item));
                Ok(Ex::Or(each.collect::<Result<_, _>>()?))
            }
            other => Err(Unjudged::construct(format!("a comparison with the items of {other}"))),
        }
    }

    fn any(&self, left: &Expr, op: Comparison, query: &ast::Query) -> Result<Ex, Unjudged> {
        let (left, query) = (self.bind(left)?, self.subquery(query)?);
        let [column] = query.columns.as_slice() else {
            return Err(Unjudged::construct("a comparison with rows of several columns"));
        };
        let of = match left.quoted {
            true => column.of.clone(),
            false => pair(&left.of, &column.of)?,
        };
        let into = |from: &Type| match (from, &of) {
            (Type::Int(_) | Type::Number(_), Type::Int(_) | Type::Number(_)) => conversion(from, from),
            (Type::Null, _) => conversion(&Type::Null, &Type::Null),
            (from, to) => conversion(from, to).map(|kernel| -> super::expr::Kernel {
                Rc::new(move |v: &[Value]| if v[0].is_null() { Ok(Value::Null) } else { kernel(v) })
            }),
        };
        let kernels = Rc::new([into(&left.of)?, into(&column.of)?]);
        Ok(Ex::Any(op, Box::new(left.ex), query.clone(), kernels))
    }
}

/// The columns of a row that is written out: `(a, b)` or `ROW(a, b)`.
fn items(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => items(inner),
        Expr::Tuple(items) => Some(items.clone()),
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("row") => arguments(call).ok(),
        _ => None,
    }
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterEqual,
        _ => return None,
    })
}

fn opposite(op: Comparison) -> Comparison {
    match op {
        Comparison::Equal => Comparison::NotEqual,
        Comparison::NotEqual => Comparison::Equal,
        Comparison::Less => Comparison::GreaterEqual,
        Comparison::LessEqual => Comparison::Greater,
        Comparison::Greater => Comparison::LessEqual,
        Comparison::GreaterEqual => Comparison::Less,
    }
}

fn not(ex: Ex) -> Ex {
    Ex::Not(Box::new(ex))
}

fn negate(ex: Ex, negated: bool) -> Ex {
    match negated {
        true => not(ex),
        false => ex,
    }
}

fn unknown(expr: &Expr) -> Unjudged {
    let text: String = expr.to_string().chars().take(60).collect();
    Unjudged::construct(format!("the expression {text}"))
}
