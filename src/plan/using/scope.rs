//! The columns that can be named without their table, of the joins of a FROM.

use super::super::written::call;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, SelectItem,
    TableFactor, TableWithJoins, Value, VisitMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::substitute::{Substitution, placed};
use super::{Session, constraint, name_of};

/// A column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    /// What it is: a column of a table, or a COALESCE of several.
    pub value: Expr,
    /// Whether USING or NATURAL names it.
    pub merged: bool,
}

/// Columns in the order in which `*` shows them.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope(pub Vec<Column>);

/// Writes the joins by name of one part of a FROM as joins on equalities. None: a table or a name cannot be told.
pub(super) fn of_from(from: &mut TableWithJoins, session: &Session<'_>) -> Option<Scope> {
    let mut scope = of_table(&mut from.relation, session)?;
    for join in &mut from.joins {
        let right = of_table(&mut join.relation, session)?;
        scope = joined(scope, right, join, session)?;
    }
    Some(scope)
}

fn of_table(table: &mut TableFactor, session: &Session<'_>) -> Option<Scope> {
    let qualifier: Vec<Ident> = match table {
        TableFactor::NestedJoin {
            table_with_joins,
            alias: None,
        } => return of_from(table_with_joins, session),
        TableFactor::Table { alias: None, name, .. } => {
            let parts = name.0.iter().map(|part| part.as_ident().cloned());
            parts.collect::<Option<_>>()?
        }
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. } => vec![alias.as_ref()?.name.clone()],
        _ => return None,
    };
    let column = |name: String| {
        let parts = qualifier.iter().cloned().chain([Ident::with_quote('"', &name)]);
        Column {
            value: Expr::CompoundIdentifier(parts.collect()),
            name,
            merged: false,
        }
    };
    Some(Scope(session.columns(table)?.into_iter().map(column).collect()))
}

/// The columns of a join, which is written anew.
fn joined(left: Scope, right: Scope, join: &mut Join, session: &Session<'_>) -> Option<Scope> {
    let Some(on) = constraint(&join.join_operator) else {
        return Some(left.beside(right)); // CROSS JOIN
    };
    let names: Vec<String> = match on {
        JoinConstraint::Using(names) => names.iter().map(last).collect::<Option<_>>()?,
        JoinConstraint::Natural => {
            let shared = left.0.iter().filter(|column| right.has(&column.name));
            shared.map(|column| column.name.clone()).collect()
        }
        JoinConstraint::On(_) => {
            let both = left.clone().beside(right.clone());
            let on = constraint_mut(&mut join.join_operator)?;
            let _ = on.visit(&mut Substitution::new(&both, session));
            return Some(kept(left, right, vec![], &join.join_operator));
        }
        JoinConstraint::None => return Some(left.beside(right)),
    };
    let mut merged = Vec::with_capacity(names.len());
    let mut equal: Option<Expr> = None;
    for name in &names {
        let (l, r) = (left.only(name)?.value.clone(), right.only(name)?.value.clone());
        let one = binary(l.clone(), BinaryOperator::Eq, r.clone());
        equal = Some(match equal {
            Some(others) => binary(others, BinaryOperator::And, one),
            None => one,
        });
        let value = match &join.join_operator {
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => r,
            JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => r,
            JoinOperator::FullOuter(_) => coalesce(l, r),
            _ => l,
        };
        merged.push(Column {
            name: name.clone(),
            value,
            merged: true,
        });
    }
    let on = constraint_mut(&mut join.join_operator)?;
    *on = JoinConstraint::On(equal.unwrap_or_else(|| Expr::value(Value::Boolean(true))));
    Some(kept(left, right, merged, &join.join_operator))
}

/// The columns of the sides that a join shows, in place of some of them those that are merged.
fn kept(left: Scope, right: Scope, merged: Vec<Column>, operator: &JoinOperator) -> Scope {
    let without = |scope: Scope| {
        let rest = scope.0.into_iter();
        rest.filter(|column| !merged.iter().any(|m| m.name == column.name))
            .collect::<Vec<_>>()
    };
    let (left, right) = (without(left), without(right));
    let rest = match operator {
        JoinOperator::Semi(_) | JoinOperator::LeftSemi(_) | JoinOperator::Anti(_) | JoinOperator::LeftAnti(_) => left,
        JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => right,
        _ => left.into_iter().chain(right).collect(),
    };
    Scope(merged.into_iter().chain(rest).collect())
}

impl Scope {
    pub fn beside(mut self, other: Scope) -> Scope {
        self.0.extend(other.0);
        self
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|column| column.name == name)
    }

    /// The column of a name, where there is one alone.
    pub fn only(&self, name: &str) -> Option<&Column> {
        let mut named = self.0.iter().filter(|column| column.name == name);
        let first = named.next()?;
        named.next().is_none().then_some(first)
    }

    /// The items of a SELECT list, the columns in the place of `*`. None: where it says more of them than is known here.
    pub fn shown(&self, items: &[SelectItem]) -> Option<Vec<SelectItem>> {
        let mut shown = Vec::with_capacity(items.len());
        for item in items {
            match item {
                SelectItem::Wildcard(options) => {
                    let left_out = left_out(options)?;
                    let columns = self.0.iter().filter(|column| !left_out.contains(&column.name));
                    shown.extend(columns.map(|column| column.item(options.wildcard_token.0.span)));
                }
                item => shown.push(item.clone()),
            }
        }
        Some(shown)
    }
}

impl Column {
    /// As an item of a SELECT list.
    pub fn item(&self, at: Span) -> SelectItem {
        match placed(&self.value, at) {
            value @ Expr::CompoundIdentifier(_) => SelectItem::UnnamedExpr(value),
            expr => SelectItem::ExprWithAlias {
                expr,
                alias: Ident::with_quote_and_span('"', at, &self.name),
            },
        }
    }
}

/// The names that `*` leaves out.
fn left_out(options: &WildcardAdditionalOptions) -> Option<Vec<String>> {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike: None,
        opt_exclude,
        opt_except,
        opt_replace: None,
        opt_rename: None,
        opt_alias: None,
    } = options
    else {
        return None;
    };
    let mut names: Vec<String> = match opt_exclude {
        Some(ExcludeSelectItem::Single(name)) => vec![last(name)?],
        Some(ExcludeSelectItem::Multiple(names)) => names.iter().map(last).collect::<Option<_>>()?,
        None => vec![],
    };
    if let Some(except) = opt_except {
        names.push(name_of(&except.first_element));
        names.extend(except.additional_elements.iter().map(name_of));
    }
    Some(names)
}

fn last(name: &ObjectName) -> Option<String> {
    name.0.last()?.as_ident().map(name_of)
}

fn constraint_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(on)
        | JoinOperator::Inner(on)
        | JoinOperator::Left(on)
        | JoinOperator::LeftOuter(on)
        | JoinOperator::Right(on)
        | JoinOperator::RightOuter(on)
        | JoinOperator::FullOuter(on)
        | JoinOperator::Semi(on)
        | JoinOperator::LeftSemi(on)
        | JoinOperator::RightSemi(on)
        | JoinOperator::Anti(on)
        | JoinOperator::LeftAnti(on)
        | JoinOperator::RightAnti(on) => Some(on),
        _ => None,
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

fn coalesce(left: Expr, right: Expr) -> Expr {
    Expr::Function(call(Ident::new("COALESCE"), [left, right]))
}
