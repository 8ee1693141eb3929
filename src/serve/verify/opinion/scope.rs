//! Resolves names to columns: first of the current rows, then of the enclosing queries.

use std::cell::RefCell;

use datafusion::sql::sqlparser::ast::Ident;

use super::trust::Unjudged;
use super::value::ScalarType;

/// A column that FROM yields.
#[derive(Clone, Debug)]
pub struct ScopeColumn {
    /// The name or alias of its table.
    pub table: Option<String>,
    pub name: String,
    pub of: ScalarType,
    /// Whether the bare name resolves to it, and `*` includes it. A column that USING merges needs its table's name.
    pub open: bool,
}

/// The columns that names resolve to in one query.
pub struct Scope<'a> {
    pub columns: Vec<ScopeColumn>,
    /// After a GROUP BY: for each column of the groups' rows, the column of FROM that it is.
    pub grouped: Option<Vec<Option<usize>>>,
    /// The enclosing query's scope.
    pub parent: Option<&'a Scope<'a>>,
    /// The number of enclosing queries.
    pub depth: usize,
    /// All columns that were resolved, each with the depth of its query; it shows which outer columns a subquery uses.
    pub trace: &'a RefCell<Vec<(usize, usize)>>,
}

/// A resolved column.
#[derive(Clone, Debug)]
pub struct ResolvedColumn {
    /// How many queries outwards its query is.
    pub level: usize,
    pub position: usize,
    pub of: ScalarType,
}

impl Scope<'_> {
    /// Resolves a name, with or without its table's.
    pub fn find(&self, name: &[Ident]) -> Result<ResolvedColumn, Unjudged> {
        let parts: Vec<String> = name.iter().map(spelled).collect();
        let shown = parts.join(".");
        let mut scope = Some(self);
        let mut level = 0;
        while let Some(at) = scope {
            if let Some(position) = at.position(&parts)? {
                let of = at.columns[position].of.clone();
                let position = match &at.grouped {
                    Some(grouped) => grouped[position].ok_or_else(|| {
                        Unjudged::construct(format!(
                            "the column {shown}, which is not grouped by, in a subquery of groups"
                        ))
                    })?,
                    None => position,
                };
                at.trace.borrow_mut().push((at.depth, position));
                return Ok(ResolvedColumn { level, position, of });
            }
            (scope, level) = (at.parent, level + 1);
        }
        Err(Unjudged::Name(shown))
    }

    /// The position of a column in the current rows.
    pub fn position(&self, parts: &[String]) -> Result<Option<usize>, Unjudged> {
        let (table, name) = match parts {
            [name] => (None, name),
            [table, name] | [_, table, name] => (Some(table), name),
            _ => return Err(Unjudged::Name(parts.join("."))),
        };
        let is = |column: &ScopeColumn| {
            column.name == *name
                && match table {
                    Some(table) => column.table.as_ref() == Some(table),
                    None => column.open,
                }
        };
        let mut matching = (0..self.columns.len()).filter(|at| is(&self.columns[*at]));
        match (matching.next(), matching.next()) {
            (Some(_), Some(_)) => Err(Unjudged::Name(parts.join("."))),
            (matching, _) => Ok(matching),
        }
    }
}

/// The name as SQL resolves it: in lower case unless it is quoted.
pub fn spelled(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}
