//! Which columns names mean: those of the rows at hand, then those of the queries around.

use std::cell::RefCell;

use datafusion::sql::sqlparser::ast::Ident;

use super::trust::Unjudged;
use super::value::Type;

/// A column of what a FROM yields.
#[derive(Clone, Debug)]
pub struct Column {
    /// The name of its table there.
    pub table: Option<String>,
    pub name: String,
    pub of: Type,
    /// Whether its name alone means it, and `*` shows it: what USING merges has only its table's name in front.
    pub open: bool,
}

/// What names mean in one query.
pub struct Scope<'a> {
    pub columns: Vec<Column>,
    /// Behind a GROUP BY: which column of the groups' rows is a column of FROM.
    pub grouped: Option<Vec<Option<usize>>>,
    /// The query around.
    pub parent: Option<&'a Scope<'a>>,
    /// How many queries are around.
    pub depth: usize,
    /// Columns that were found, each with the depth of its query: what a subquery uses is told by it.
    pub trace: &'a RefCell<Vec<(usize, usize)>>,
}

/// A column that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// How many queries outwards.
    pub level: usize,
    pub position: usize,
    pub of: Type,
}

impl Scope<'_> {
    /// The column of a name, with or without its table's.
    pub fn find(&self, name: &[Ident]) -> Result<Found, Unjudged> {
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
                return Ok(Found { level, position, of });
            }
            (scope, level) = (at.parent, level + 1);
        }
        Err(Unjudged::Name(shown))
    }

    /// Where a column is in the rows at hand.
    pub fn position(&self, parts: &[String]) -> Result<Option<usize>, Unjudged> {
        let (table, name) = match parts {
            [name] => (None, name),
            [table, name] | [_, table, name] => (Some(table), name),
            _ => return Err(Unjudged::Name(parts.join("."))),
        };
        let is = |column: &Column| {
            column.name == *name
                && match table {
                    Some(table) => column.table.as_ref() == Some(table),
                    None => column.open,
                }
        };
        let mut found = (0..self.columns.len()).filter(|at| is(&self.columns[*at]));
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Unjudged::Name(parts.join("."))),
            (found, _) => Ok(found),
        }
    }
}

/// A name as SQL means it: in small letters where it has no quotes.
pub fn spelled(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}
