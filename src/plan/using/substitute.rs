//! Replaces the names of merged columns by their values.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Select, SelectItem, VisitMut, VisitorMut, visit_expressions_mut};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::scope::{UsingColumn, UsingScope};
use super::{Session, name_of};

/// Replaces names by values. In subqueries it does so only if the subquery's own tables have no column of that name.
pub(super) struct Substitution<'a, 'b> {
    columns: HashMap<&'a str, &'a UsingColumn>,
    session: &'a Session<'b>,
    /// For each subquery that is being visited, the columns of its tables.
    hidden: Vec<HashSet<String>>,
}

impl<'a, 'b> Substitution<'a, 'b> {
    pub fn new(scope: &'a UsingScope, session: &'a Session<'b>) -> Substitution<'a, 'b> {
        let merged = scope.0.iter().filter(|column| column.merged);
        // An ambiguous name stays, so that planning reports it.
        let merged = merged.filter(|column| scope.only(&column.name).is_some());
        Substitution {
            columns: merged.map(|column| (column.name.as_str(), column)).collect(),
            session,
            hidden: vec![],
        }
    }

    /// Replaces names in a SELECT list, whose columns keep their names.
    pub fn in_items(&mut self, items: &mut [SelectItem]) {
        for item in items {
            match item {
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                    if let Some(column) = self.column(name) {
                        *item = column.item(name.span);
                    }
                }
                item => drop(item.visit(self)),
            }
        }
    }

    fn column(&self, name: &Ident) -> Option<&'a UsingColumn> {
        let sought = name_of(name);
        let column = self.columns.get(sought.as_str())?;
        (!self.hidden.iter().any(|names| names.contains(&sought))).then_some(column)
    }
}

impl VisitorMut for Substitution<'_, '_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.hidden.push(self.session.names(&select.from));
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && let Some(column) = self.column(name)
        {
            *expr = placed(&column.value, name.span);
        }
        ControlFlow::Continue(())
    }
}

/// The value with its spans set to those of the name that it replaces.
pub(super) fn placed(value: &Expr, at: Span) -> Expr {
    let mut value = value.clone();
    let _ = visit_expressions_mut(&mut value, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr {
            parts.iter_mut().for_each(|part| part.span = at);
        }
        ControlFlow::<()>::Continue(())
    });
    value
}
