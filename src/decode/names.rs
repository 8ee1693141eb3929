//! Which field of a record fills which column: the columns' `from` names and dotted paths as a tree, walked
//! along with a JSON object. What nobody takes is counted by its path.

use std::borrow::Cow;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::cell::{Cell, Kind};
use super::path;
use super::scan::{self, Broken};
use super::target::Target;

/// How many different ignored fields are counted by name; the rest is counted together, so that records
/// with endless new names cost no memory.
const NAMED: usize = 1000;
/// The bytes of such a name that are kept: a name may be as long as a record.
const NAME_BYTES: usize = 120;

/// The tree. Counts accumulate until [`Names::take_ignored`].
#[derive(Debug)]
pub(super) struct Names {
    nodes: Vec<Node>,
    unnamed: u64,
    ignored: usize,
}

#[derive(Debug, Default)]
struct Node {
    path: String,
    fields: HashMap<Box<str>, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Columns that want the value, and how little (0: their first choice).
    takes: SmallVec<[(u32, u32); 1]>,
    /// Columns want values inside it.
    child: Option<usize>,
    /// How often it was seen, where nobody takes it.
    ignored: u64,
}

/// The columns that want a value, and how little; and the node of what is wanted inside it.
pub(super) type Wanted<'n> = (&'n [(u32, u32)], Option<usize>);

/// One record's cells, by column.
pub(super) struct Slots<'a> {
    pub cells: Vec<Cell<'a>>,
    ranks: Vec<u32>,
}

impl<'a> Slots<'a> {
    /// Room for a record of so many columns.
    pub fn new(columns: usize) -> Self {
        Slots {
            cells: vec![Cell::ABSENT; columns],
            ranks: vec![u32::MAX; columns],
        }
    }

    /// Forgets the record.
    pub fn clear(&mut self) {
        self.cells.fill(Cell::ABSENT);
        self.ranks.fill(u32::MAX);
    }

    /// Whether nothing was taken for the first columns.
    pub fn is_empty(&self, columns: usize) -> bool {
        self.ranks[..columns].iter().all(|rank| *rank == u32::MAX)
    }

    /// Takes from `other` what comes from a more wanted name.
    pub fn merge(&mut self, other: &Slots<'a>) {
        for column in 0..self.cells.len() {
            if other.ranks[column] / 2 < self.ranks[column] / 2 {
                self.ranks[column] = other.ranks[column];
                self.cells[column] = other.cells[column];
            }
        }
    }

    /// A column's cell, and which of its names it was taken by; of a column that nothing was taken for, its first.
    pub fn taken(&mut self, column: usize) -> (&mut Cell<'a>, usize) {
        let choice = match self.ranks[column] {
            u32::MAX => 0,
            rank => rank as usize / 2,
        };
        (&mut self.cells[column], choice)
    }

    pub fn fill(&mut self, column: u32, rank: u32, cell: Cell<'a>) {
        let column = column as usize;
        // Of duplicate keys the last one counts.
        if rank <= self.ranks[column] {
            self.ranks[column] = rank;
            self.cells[column] = cell;
        }
    }
}

/// A name that is only told, not looked for: its beginning, where it is long.
pub(super) fn shortened(name: &str) -> Cow<'_, str> {
    match name.len() > NAME_BYTES {
        true => Cow::Owned(format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES)])),
        false => Cow::Borrowed(name),
    }
}

impl Names {
    /// The names of these columns that begin with `prefix`, without it.
    pub fn new<'t>(targets: impl IntoIterator<Item = (usize, &'t Target)>, prefix: &str) -> Self {
        let mut names = Names {
            nodes: vec![Node::default()],
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

    /// Fills the slot of no column from a field, too.
    pub fn watch(&mut self, slot: usize, field: &str) {
        let root = &mut self.nodes[0].fields;
        root.entry(field.into()).or_default().takes.push((slot as u32, 0));
    }

    /// Who wants a field of a node (0: of the record), and the node of what is wanted inside it.
    pub fn wanted(&self, node: usize, field: &str) -> Option<Wanted<'_>> {
        let entry = self.nodes[node].fields.get(field)?;
        let wanted = !entry.takes.is_empty() || entry.child.is_some();
        wanted.then_some((&entry.takes, entry.child))
    }

    /// The fields of a node that somebody wants, or that were seen.
    pub fn fields(&self, node: usize) -> impl Iterator<Item = &str> {
        self.nodes[node].fields.keys().map(|field| &**field)
    }

    /// A field of a node by its path from the record.
    pub fn path(&self, node: usize, field: &str) -> String {
        format!("{}{field}", self.nodes[node].path)
    }

    /// Whether nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.nodes[0].fields.is_empty()
    }

    /// A name is taken as it is first, and as a path where it has dots or quotes.
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
                self.nodes.push(Node {
                    path,
                    fields: HashMap::new(),
                });
            }
            node = child;
        }
        let entry = self.nodes[node].fields.entry((&**last).into()).or_default();
        entry.takes.push((column, rank + 1));
    }

    /// Fills the slots from a JSON object. `dress` may change a top-level value, given its key.
    pub fn walk<'a>(
        &mut self,
        text: &'a str,
        slots: &mut Slots<'a>,
        dress: &mut impl FnMut(&str, Cell<'a>) -> Cell<'a>,
    ) -> Result<(), Broken> {
        self.walk_node(0, text, slots, dress)
    }

    fn walk_node<'a>(
        &mut self,
        node: usize,
        text: &'a str,
        slots: &mut Slots<'a>,
        dress: &mut impl FnMut(&str, Cell<'a>) -> Cell<'a>,
    ) -> Result<(), Broken> {
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
                .filter(|_| value.kind == Kind::Nested && value.text().starts_with('{'));
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

    /// Counts a field that nobody takes.
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

    /// What was ignored since the last call, with its path, sorted.
    pub fn take_ignored(&mut self) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        // A full set of names is forgotten, so that new ones have a chance.
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

    /// A file of names as long as records took as much memory as it had bytes, for as long as the run.
    #[test]
    fn of_a_long_name_that_nobody_takes_the_beginning_is_kept() {
        let mut names = Names::new([], "");
        let long = format!("né{}", "x".repeat(10_000_000));
        let other = format!("né{}y", "x".repeat(9_000_000));
        for name in [long.as_str(), other.as_str(), "short"] {
            names.ignore(0, name);
        }
        let told = names.take_ignored();
        assert_eq!(told.len(), 2);
        assert!(told[0].0.starts_with("néxxx") && told[0].0.ends_with('…') && told[0].0.len() < 130);
        assert_eq!((told[0].1, told[1].clone()), (2, ("short".to_string(), 1)));
    }
}
