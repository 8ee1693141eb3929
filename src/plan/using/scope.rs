//! The columns that a FROM offers without their table's name.

use super::super::syntax::{binary, call, truth};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, SelectItem,
    TableFactor, TableWithJoins, VisitMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::substitute::{Substitution, placed};
use super::{Session, constraint, constraint_mut, name_of};

/// A column that can be named without its table.
#[derive(Clone, Debug)]
pub(super) struct UsingColumn {
    pub name: String,
    /// The value for which the name stands: a column of a table, or a COALESCE of several.
    pub value: Expr,
    /// Whether USING or NATURAL has merged it.
    pub merged: bool,
}

/// Columns in the order in which `*` shows them.
#[derive(Clone, Debug, Default)]
pub(super) struct UsingScope(pub Vec<UsingColumn>);

/// Rewrites the joins with USING or NATURAL in an item of FROM as joins with ON. `None` if a table's columns
/// are not known or a name is ambiguous.
pub(super) fn of_from(from: &mut TableWithJoins, session: &Session<'_>) -> Option<UsingScope> {
    let mut scope = of_table(&mut from.relation, session)?;
    for join in &mut from.joins {
        let right = of_table(&mut join.relation, session)?;
        scope = joined(scope, right, join, session)?;
    }
    Some(scope)
}

fn of_table(table: &mut TableFactor, session: &Session<'_>) -> Option<UsingScope> {
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
        UsingColumn {
            value: Expr::CompoundIdentifier(parts.collect()),
            name,
            merged: false,
        }
    };
    Some(UsingScope(session.columns(table)?.into_iter().map(column).collect()))
}

/// The columns of a join, which is rewritten.
fn joined(left: UsingScope, right: UsingScope, join: &mut Join, session: &Session<'_>) -> Option<UsingScope> {
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
            return Some(shown_columns(left, right, vec![], &join.join_operator));
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
        merged.push(UsingColumn {
            name: name.clone(),
            value,
            merged: true,
        });
    }
    let on = constraint_mut(&mut join.join_operator)?;
    *on = JoinConstraint::On(equal.unwrap_or_else(|| truth(true)));
    Some(shown_columns(left, right, merged, &join.join_operator))
}

/// The columns that a join shows: merged ones first, then the others of the sides that it shows.
fn shown_columns(left: UsingScope, right: UsingScope, merged: Vec<UsingColumn>, operator: &JoinOperator) -> UsingScope {
    let without = |scope: UsingScope| {
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
    UsingScope(merged.into_iter().chain(rest).collect())
}

impl UsingScope {
    pub fn beside(mut self, other: UsingScope) -> UsingScope {
        self.0.extend(other.0);
        self
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|column| column.name == name)
    }

    /// The column of this name, if there is exactly one.
    pub fn only(&self, name: &str) -> Option<&UsingColumn> {
        let mut named = self.0.iter().filter(|column| column.name == name);
        let first = named.next()?;
        named.next().is_none().then_some(first)
    }

    /// The items of a SELECT list with `*` expanded. `None` if `*` has options that are not supported here.
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

impl UsingColumn {
    /// The column as an item of a SELECT list.
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

fn coalesce(left: Expr, right: Expr) -> Expr {
    Expr::Function(call(Ident::new("COALESCE"), [left, right]))
}
