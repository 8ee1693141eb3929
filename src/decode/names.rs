//! Determines which field of a record fills which column: the columns' `from` names and dotted paths form a tree,
//! which is traversed along with a JSON object. Fields that no column takes are counted by their path.

use std::borrow::Cow;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::decode::cell::{Cell, CellKind};
use crate::decode::path;
use crate::decode::scan;
use crate::decode::scan::JsonError;
use crate::decode::target::Target;

/// How many different ignored fields are counted by name; the rest are counted together, so that records with
/// endlessly many new names do not use up memory.
const NAMED: usize = 1000;
/// How many bytes of an ignored name are kept; a name may be as long as a record.
const NAME_BYTES: usize = 120;

/// The tree of names. Counts of ignored fields accumulate until [`FieldTree::take_ignored`].
#[derive(Debug)]
pub(super) struct FieldTree {
    nodes: Vec<NameNode>,
    unnamed: u64,
    ignored: usize,
}

#[derive(Debug, Default)]
struct NameNode {
    path: String,
    fields: HashMap<Box<str>, NameEntry>,
}

#[derive(Debug, Default)]
struct NameEntry {
    /// The columns that take the value, each with a rank: the lower one wins (0 is the column's first choice).
    takes: SmallVec<[(u32, u32); 1]>,
    /// The node of the names inside the value, if columns take values there.
    child: Option<usize>,
    /// How often it was seen, if no column takes it.
    ignored: u64,
}

/// The columns that take a value, with their ranks, and the node of the names inside it.
pub(super) type WantedColumns<'n> = (&'n [(u32, u32)], Option<usize>);

/// The cells of one record, by column.
pub(super) struct RecordCells<'a> {
    pub cells: Vec<Cell<'a>>,
    ranks: Vec<u32>,
}

impl<'a> RecordCells<'a> {
    /// Cells for a record of this number of columns.
    pub fn new(columns: usize) -> Self {
        RecordCells {
            cells: vec![Cell::ABSENT; columns],
            ranks: vec![u32::MAX; columns],
        }
    }

    /// Clears the cells for the next record.
    pub fn clear(&mut self) {
        self.cells.fill(Cell::ABSENT);
        self.ranks.fill(u32::MAX);
    }

    /// Whether none of the first `columns` columns has a value.
    pub fn is_empty(&self, columns: usize) -> bool {
        self.ranks[..columns].iter().all(|rank| *rank == u32::MAX)
    }

    /// Takes those cells of `other` whose names have precedence.
    pub fn merge(&mut self, other: &RecordCells<'a>) {
        for column in 0..self.cells.len() {
            if other.ranks[column] / 2 < self.ranks[column] / 2 {
                self.ranks[column] = other.ranks[column];
                self.cells[column] = other.cells[column];
            }
        }
    }

    /// A column's cell, and the index of the name from which it was taken; 0 if it has no value.
    pub fn taken(&mut self, column: usize) -> (&mut Cell<'a>, usize) {
        let choice = match self.ranks[column] {
            u32::MAX => 0,
            rank => rank as usize / 2,
        };
        (&mut self.cells[column], choice)
    }

    pub fn fill(&mut self, column: u32, rank: u32, cell: Cell<'a>) {
        let column = column as usize;
        // If a key occurs twice, the last one counts.
        if rank <= self.ranks[column] {
            self.ranks[column] = rank;
            self.cells[column] = cell;
        }
    }
}

/// A name for messages, cut if it is long.
pub(super) fn shortened(name: &str) -> Cow<'_, str> {
    match name.len() > NAME_BYTES {
        true => Cow::Owned(format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES)])),
        false => Cow::Borrowed(name),
    }
}

impl FieldTree {
    /// The names of these columns that begin with `prefix`, without the prefix.
    pub fn new<'t>(targets: impl IntoIterator<Item = (usize, &'t Target)>, prefix: &str) -> Self {
        let mut names = FieldTree {
            nodes: vec![NameNode::default()],
            unnamed: 0,
            ignored: 0,
        };
        for (column, target) in targets {
            for (choice, name) in target.from.iter().enumerate() {
                if let Some(name) = name.strip_prefix(prefix) {
                    names.add(column as u32, choice as u32 * 2, name);
                }
            }
        }
        names
    }

    /// Also fills a slot that belongs to no column from a field.
    pub fn watch(&mut self, slot: usize, field: &str) {
        let root = &mut self.nodes[0].fields;
        root.entry(field.into()).or_default().takes.push((slot as u32, 0));
    }

    /// The columns that take a field of a node (0 is the record), and the node of the names inside the field.
    pub fn wanted(&self, node: usize, field: &str) -> Option<WantedColumns<'_>> {
        let entry = self.nodes[node].fields.get(field)?;
        let wanted = !entry.takes.is_empty() || entry.child.is_some();
        wanted.then_some((&entry.takes, entry.child))
    }

    /// The fields of a node that columns take, or that were seen.
    pub fn fields(&self, node: usize) -> impl Iterator<Item = &str> {
        self.nodes[node].fields.keys().map(|field| &**field)
    }

    /// The path of a node's field from the record on.
    pub fn path(&self, node: usize, field: &str) -> String {
        format!("{}{field}", self.nodes[node].path)
    }

    /// Whether no column takes anything.
    pub fn is_empty(&self) -> bool {
        self.nodes[0].fields.is_empty()
    }

    /// Adds a name, as it is and, if it has dots or quotes, also as a path; the former has precedence.
    fn add(&mut self, column: u32, rank: u32, name: &str) {
        let root = &mut self.nodes[0].fields;
        root.entry(name.into()).or_default().takes.push((column, rank));
        let steps = path::steps(name);
        let Some((last, inner)) = steps.split_last().filter(|_| steps != [name]) else {
            return;
        };
        let mut node = 0;
        for step in inner {
            let next = self.nodes.len();
            let path = format!("{}{step}.", self.nodes[node].path);
            let entry = self.nodes[node].fields.entry((&**step).into()).or_default();
            let child = *entry.child.get_or_insert(next);
            if child == next {
                self.nodes.push(NameNode {
                    path,
                    fields: HashMap::new(),
                });
            }
            node = child;
        }
        let entry = self.nodes[node].fields.entry((&**last).into()).or_default();
        entry.takes.push((column, rank + 1));
    }

    /// Fills the slots from a JSON object. `dress` may change a top-level value, and gets its key.
    pub fn walk<'a>(
        &mut self,
        text: &'a str,
        slots: &mut RecordCells<'a>,
        dress: &mut impl FnMut(&str, Cell<'a>) -> Cell<'a>,
    ) -> Result<(), JsonError> {
        self.walk_node(0, text, slots, dress)
    }

    fn walk_node<'a>(
        &mut self,
        node: usize,
        text: &'a str,
        slots: &mut RecordCells<'a>,
        dress: &mut impl FnMut(&str, Cell<'a>) -> Cell<'a>,
    ) -> Result<(), JsonError> {
        let mut scratch = String::new();
        // A nested value was checked when it was scanned as a whole, so an error can only come from this level.
        scan::object(text, |key, value| {
            let key = key.resolve(&mut scratch).unwrap_or(key.text());
            let Some(entry) = self.nodes[node].fields.get_mut(key) else {
                self.ignore(node, key);
                return;
            };
            let child = entry
                .child
                .filter(|_| value.kind == CellKind::Nested && value.text().starts_with('{'));
            if entry.takes.is_empty() && child.is_none() {
                entry.ignored += u64::from(entry.child.is_none());
                return;
            }
            if !entry.takes.is_empty() {
                let dressed = if node == 0 { dress(key, value) } else { value };
                for (column, rank) in &entry.takes {
                    slots.fill(*column, *rank, dressed);
                }
            }
            if let Some(child) = child {
                self.walk_node(child, value.text(), slots, dress)
                    .expect("the whole value was scanned before");
            }
        })
    }

    /// Counts a field that no column takes.
    pub fn ignore(&mut self, node: usize, key: &str) {
        let key = &*shortened(key);
        if let Some(entry) = self.nodes[node].fields.get_mut(key) {
            entry.ignored += 1;
            return;
        }
        if self.ignored == NAMED {
            self.unnamed += 1;
            return;
        }
        self.ignored += 1;
        self.nodes[node].fields.entry(key.into()).or_default().ignored = 1;
    }

    /// The fields ignored since the last call with their paths and counts, sorted.
    pub fn take_ignored(&mut self) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        // If the set of names is full, it is cleared, so that new names can be counted.
        let full = self.ignored == NAMED;
        for node in &mut self.nodes {
            let path = &node.path;
            node.fields.retain(|name, entry| {
                if entry.ignored > 0 {
                    counts.push((format!("{path}{name}"), std::mem::take(&mut entry.ignored)));
                }
                !entry.takes.is_empty() || entry.child.is_some() || !full
            });
        }
        if full {
            self.ignored = 0;
        }
        if self.unnamed > 0 {
            counts.push(("(other fields)".to_string(), std::mem::take(&mut self.unnamed)));
        }
        counts.sort();
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with names as long as records took as much memory as it had bytes, for the whole run.
    #[test]
    fn of_a_long_name_that_nobody_takes_the_beginning_is_kept() {
        let mut names = FieldTree::new([], "");
        let long = format!("né{}", "x".repeat(10_000_000));
        let other = format!("né{}y", "x".repeat(9_000_000));
        for name in [long.as_str(), other.as_str(), "short"] {
            names.ignore(0, name);
        }
        let ignored = names.take_ignored();
        assert_eq!(ignored.len(), 2);
        assert!(ignored[0].0.starts_with("néxxx") && ignored[0].0.ends_with('…') && ignored[0].0.len() < 130);
        assert_eq!((ignored[0].1, ignored[1].clone()), (2, ("short".to_string(), 1)));
    }
}
