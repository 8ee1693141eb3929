//! Names of columns that joins merge, in the place of which their values are put.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Select, SelectItem, VisitMut, VisitorMut, visit_expressions_mut};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::scope::{Column, Scope};
use super::{Session, name_of};

/// Puts values in the place of names, also in subqueries whose own tables have no such column.
pub(super) struct Substitution<'a, 'b> {
    columns: HashMap<&'a str, &'a Column>,
    session: &'a Session<'b>,
    /// Of the subqueries that are being visited: the columns of their tables.
    hidden: Vec<HashSet<String>>,
}

impl<'a, 'b> Substitution<'a, 'b> {
    pub fn new(scope: &'a Scope, session: &'a Session<'b>) -> Substitution<'a, 'b> {
        let merged = scope.0.iter().filter(|column| column.merged);
        // What is ambiguous stays, and is told.
        let merged = merged.filter(|column| scope.only(&column.name).is_some());
        Substitution {
            columns: merged.map(|column| (column.name.as_str(), column)).collect(),
            session,
            hidden: vec![],
        }
    }

    /// In a SELECT list, whose columns keep their names.
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

    fn column(&self, name: &Ident) -> Option<&'a Column> {
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

/// A value that stands where a name was written.
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
