//! Renames tables of outer queries where a subquery's own tables have a column with the table's name.
//!
//! `a.id` means the column `id` of the nearest table `a`. DataFusion first looks for a column `a` of the
//! innermost tables, and takes `id` for a field of it. So the outer table gets another name:
//!
//! ```text
//! SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.id = a.id)            -- b has a column a
//! SELECT a$1.id FROM a AS a$1 WHERE EXISTS (SELECT 1 FROM b WHERE b.id = a$1.id)
//! ```

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias,
    TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use super::{Session, name_of};

/// Gives such tables other names.
pub(super) fn rename(query: &mut Query, session: &mut Session<'_>) {
    // The first pass only searches, since most queries have no such table.
    let mut search = Renaming {
        session,
        scopes: vec![],
        is_own: vec![],
        known: vec![],
        seen: 0,
        new_names: HashMap::new(),
        is_writing: false,
    };
    let _ = query.visit(&mut search);
    if search.new_names.is_empty() {
        return;
    }
    let text = query.to_string();
    for (n, name) in search.new_names.values_mut().enumerate() {
        let free = (n + 1..).find(|n| !text.contains(&format!("{name}${n}")));
        *name = format!("{name}${}", free.unwrap_or_default());
    }
    (search.is_writing, search.seen) = (true, 0);
    let _ = query.visit(&mut search);
}

/// A SELECT that is being visited.
struct Scope {
    number: usize,
    tables: HashSet<String>,
    from: Vec<TableWithJoins>,
    columns: Option<HashSet<String>>,
}

struct Renaming<'a, 'b> {
    session: &'a mut Session<'b>,
    scopes: Vec<Scope>,
    /// For each enclosing SELECT, whether `pre_visit_query` opened its scope, which the ORDER BY of its query
    /// then shares; for each enclosing query, whether its own SELECT is still to be visited.
    is_own: Vec<bool>,
    /// For each enclosing query, how many WITH queries were known outside of it.
    known: Vec<usize>,
    /// How many SELECTs have been seen.
    seen: usize,
    /// The new names, by the number of the SELECT and the name of its table.
    new_names: HashMap<(usize, String), String>,
    is_writing: bool,
}

impl Renaming<'_, '_> {
    fn enter(&mut self, select: &mut Select) {
        let number = self.seen;
        self.seen += 1;
        let mut tables = HashSet::new();
        for from in &mut select.from {
            each_table(from, &mut |table| {
                if let Some(name) = table_name(table) {
                    if let Some(other) = self.new_names.get(&(number, name.clone())).filter(|_| self.is_writing) {
                        call(table, other);
                    }
                    tables.insert(name);
                }
            });
        }
        if self.is_writing {
            for item in &mut select.projection {
                if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
                    && let [ObjectNamePart::Identifier(name)] = name.0.as_mut_slice()
                    && let Some(other) = self.new_names.get(&(number, name_of(name)))
                {
                    name.value.clone_from(other);
                }
            }
        }
        self.scopes.push(Scope {
            number,
            tables,
            from: select.from.clone(),
            columns: None,
        });
    }

    /// The index of the nearest scope that has a table of this name.
    fn scope_of(&self, table: &str) -> Option<usize> {
        self.scopes.iter().rposition(|scope| scope.tables.contains(table))
    }

    /// Whether the tables of a scope have a column of this name.
    fn has_column(&mut self, scope: usize, name: &str) -> bool {
        let scope = &mut self.scopes[scope];
        let columns = scope.columns.get_or_insert_with(|| self.session.names(&scope.from));
        columns.contains(name)
    }
}

impl VisitorMut for Renaming<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.known.push(self.session.ctes.len());
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.session.ctes.extend(ctes.cloned());
        let select = match query.body.as_mut() {
            SetExpr::Select(select) => Some(select),
            _ => None,
        };
        self.is_own.push(select.is_some());
        if let Some(select) = select {
            self.enter(select);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if matches!(query.body.as_ref(), SetExpr::Select(_)) {
            self.scopes.pop();
        }
        self.is_own.pop();
        self.session.ctes.truncate(self.known.pop().unwrap_or_default());
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let is_own = self.is_own.last_mut().is_some_and(std::mem::take);
        self.is_own.push(is_own);
        if !is_own {
            self.enter(select);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        if self.is_own.pop() == Some(false) {
            self.scopes.pop();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::CompoundIdentifier(parts) = expr else {
            return ControlFlow::Continue(());
        };
        let Some(table) = parts.first_mut() else {
            return ControlFlow::Continue(());
        };
        let name = name_of(table);
        let Some(at) = self.scope_of(&name) else {
            return ControlFlow::Continue(());
        };
        let place = (self.scopes[at].number, name.clone());
        if self.is_writing {
            if let Some(other) = self.new_names.get(&place) {
                table.value.clone_from(other);
            }
        } else if (at + 1..self.scopes.len()).any(|inner| self.has_column(inner, &name)) {
            self.new_names.insert(place, name);
        }
        ControlFlow::Continue(())
    }
}

fn each_table(from: &mut TableWithJoins, act: &mut impl FnMut(&mut TableFactor)) {
    let joined = from.joins.iter_mut().map(|join| &mut join.relation);
    for table in std::iter::once(&mut from.relation).chain(joined) {
        match table {
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => each_table(table_with_joins, act),
            table => act(table),
        }
    }
}

/// The name that qualifies the columns of a table.
fn table_name(table: &TableFactor) -> Option<String> {
    match table {
        TableFactor::Table { alias: None, name, .. } => match name.0.last() {
            Some(ObjectNamePart::Identifier(name)) => Some(name_of(name)),
            _ => None,
        },
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_ref().map(|alias| name_of(&alias.name)),
        _ => None,
    }
}

/// Gives a table another name.
fn call(table: &mut TableFactor, name: &str) {
    let alias = match table {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias,
        _ => return,
    };
    let named = |name: Ident| TableAlias {
        explicit: true,
        name,
        columns: vec![],
        at: None,
    };
    let alias = alias.get_or_insert_with(|| named(Ident::new(name)));
    alias.name.value = name.to_string();
}
