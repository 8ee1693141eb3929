//! Joins the tables of FROM by the conditions of WHERE.
//!
//! The result is the product of all tables, filtered by all conditions. To compute it, each table is filtered by the
//! conditions on it alone. The tables are joined in an order in which, if possible, each is linked to earlier ones by
//! an equality, which then looks up its rows. Conditions with subqueries come last.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::arrow::ScalarRow;
use super::expr::{ComparisonOp, RowEnv, Term};
use super::from::{FromItem, key};
use super::query::Budget;
use super::trust::Unjudged;
use super::value::Scalar;

/// A table, query or join of FROM, and its columns' range in the joined row.
pub struct Item {
    from: FromItem,
    first: usize,
    width: usize,
    /// The rows that meet the conditions on this table alone, as joined rows in which the other columns are NULL.
    rows: RefCell<Option<Rc<Vec<ScalarRow>>>>,
    /// Indexes of its rows, by the conditions that look them up.
    indexes: RefCell<HashMap<Vec<usize>, Rc<Index>>>,
}

type Index = HashMap<Vec<u8>, Vec<usize>>;

/// FROM and WHERE of a query.
pub struct JoinedFrom {
    items: Vec<Item>,
    width: usize,
    conditions: Vec<Condition>,
    budget: Budget,
}

struct Condition {
    ex: Term,
    columns: BTreeSet<usize>,
    /// Whether the condition has no subquery.
    plain: bool,
    outer: bool,
    /// The two sides of an equality, each with its columns.
    equality: Option<[(Term, BTreeSet<usize>); 2]>,
}

impl Item {
    /// An item whose columns begin at `first`.
    pub fn new(from: FromItem, first: usize, width: usize) -> Item {
        Item {
            from,
            first,
            width,
            rows: RefCell::default(),
            indexes: RefCell::default(),
        }
    }

    fn has(&self, columns: &BTreeSet<usize>) -> bool {
        columns
            .iter()
            .all(|at| (self.first..self.first + self.width).contains(at))
    }
}

impl JoinedFrom {
    /// Prepares these tables under these conditions; `depth` is the depth of the query.
    pub fn new(items: Vec<Item>, width: usize, conditions: Vec<Term>, depth: usize, budget: Budget) -> JoinedFrom {
        let conditions = conditions.into_iter().map(|ex| {
            let mut columns = BTreeSet::new();
            let plain = ex.columns(depth, &mut columns);
            let equality = match &ex {
                Term::Compare(ComparisonOp::Equal, left, right) if plain => {
                    let side = |ex: &Term| {
                        let mut columns = BTreeSet::new();
                        ex.columns(depth, &mut columns);
                        (ex.clone(), columns)
                    };
                    Some([side(left), side(right)])
                }
                _ => None,
            };
            Condition {
                outer: ex.is_outer(),
                ex,
                columns,
                plain,
                equality,
            }
        });
        JoinedFrom {
            items,
            width,
            conditions: conditions.collect(),
            budget,
        }
    }

    /// The joined rows that meet all conditions.
    pub fn rows(&self, parent: Option<&RowEnv<'_>>) -> Result<Vec<ScalarRow>, Unjudged> {
        let mut rows = vec![vec![Scalar::Null; self.width]];
        let mut done = vec![false; self.conditions.len()];
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut left: Vec<usize> = (0..self.items.len()).collect();
        let in_order = self.items.iter().any(|item| matches!(item.from, FromItem::Lateral(_)));
        while !left.is_empty() {
            let meets = |n: &usize| !self.keys(*n, &seen, &done).is_empty();
            let next = if in_order { None } else { left.iter().position(meets) };
            let n = left.remove(next.unwrap_or(0));
            let keys = self.keys(n, &seen, &done);
            rows = self.joined(n, rows, &keys, parent)?;
            for (condition, _, _) in &keys {
                done[*condition] = true;
            }
            let item = &self.items[n];
            seen.extend(item.first..item.first + item.width);
            for (at, condition) in self.conditions.iter().enumerate() {
                // Conditions on this table alone have been applied, unless the table is computed for each row.
                let alone = item.has(&condition.columns)
                    && !condition.columns.is_empty()
                    && self.is_kept(n)
                    && !condition.outer;
                if !done[at] && condition.plain && condition.columns.is_subset(&seen) {
                    done[at] = true;
                    if !alone {
                        fit(&mut rows, &condition.ex, parent)?;
                    }
                }
            }
        }
        for (condition, done) in self.conditions.iter().zip(done) {
            if !done {
                fit(&mut rows, &condition.ex, parent)?;
            }
        }
        Ok(rows)
    }

    /// Whether a table's rows are the same for all rows of the enclosing queries.
    fn is_kept(&self, n: usize) -> bool {
        !self.items[n].from.is_correlated()
    }

    /// The equalities that link table `n` to the columns known so far, or to constants. For each: the condition's
    /// index, its side over known columns, and its side over the table.
    fn keys(&self, n: usize, seen: &BTreeSet<usize>, done: &[bool]) -> Vec<(usize, &Term, &Term)> {
        let item = &self.items[n];
        let mut keys = vec![];
        for (at, condition) in self.conditions.iter().enumerate().filter(|(at, _)| !done[*at]) {
            let Some([a, b]) = &condition.equality else {
                continue;
            };
            for (known, own) in [(a, b), (b, a)] {
                let is_own = !own.1.is_empty() && item.has(&own.1) && !own.0.is_outer();
                let is_known = known.1.is_subset(seen) && (!known.1.is_empty() || known.0.is_outer());
                if is_own && is_known {
                    keys.push((at, &known.0, &own.0));
                    break;
                }
            }
        }
        keys
    }

    /// Joins the rows with one more table.
    fn joined(
        &self,
        n: usize,
        rows: Vec<ScalarRow>,
        keys: &[(usize, &Term, &Term)],
        parent: Option<&RowEnv<'_>>,
    ) -> Result<Vec<ScalarRow>, Unjudged> {
        let item = &self.items[n];
        let place = |row: &ScalarRow, own: &[Scalar]| {
            let mut row = row.clone();
            row[item.first..item.first + item.width].clone_from_slice(own);
            row
        };
        let mut made = vec![];
        if let FromItem::Lateral(query) = &item.from {
            for row in &rows {
                let beside = query.rows(Some(&RowEnv { row, parent }))?;
                self.budget.spend(beside.len() + 1)?;
                made.extend(beside.iter().map(|own| place(row, own)));
            }
            // Without an index, these equalities are checked as conditions.
            for (condition, _, _) in keys {
                fit(&mut made, &self.conditions[*condition].ex, parent)?;
            }
            return Ok(made);
        }
        let all = self.all(n, parent)?;
        let index = match keys {
            [] => None,
            keys => Some(self.index(n, &all, keys, parent)?),
        };
        let known: Vec<&Term> = keys.iter().map(|(_, known, _)| *known).collect();
        for row in &rows {
            let own = |at: usize| &all[at][item.first..item.first + item.width];
            match &index {
                None => {
                    self.budget.spend(all.len())?;
                    made.extend((0..all.len()).map(|at| place(row, own(at))));
                }
                Some(index) => {
                    let Some(key) = key(&known, &RowEnv { row, parent })? else {
                        continue;
                    };
                    let matches = index.get(&key).map(Vec::as_slice).unwrap_or_default();
                    self.budget.spend(matches.len() + 1)?;
                    made.extend(matches.iter().map(|at| place(row, own(*at))));
                }
            }
        }
        Ok(made)
    }

    /// The table's rows that meet the conditions on it alone.
    fn all(&self, n: usize, parent: Option<&RowEnv<'_>>) -> Result<Rc<Vec<ScalarRow>>, Unjudged> {
        let item = &self.items[n];
        if let Some(known) = item.rows.borrow().as_ref() {
            return Ok(known.clone());
        }
        let own = item.from.rows(parent)?;
        self.budget.spend(own.len())?;
        let wide = |own: &ScalarRow| {
            let mut row = vec![Scalar::Null; self.width];
            row[item.first..item.first + item.width].clone_from_slice(own);
            row
        };
        let mut rows: Vec<ScalarRow> = own.iter().map(wide).collect();
        if !self.is_kept(n) {
            return Ok(Rc::new(rows));
        }
        for condition in &self.conditions {
            if condition.plain && !condition.outer && !condition.columns.is_empty() && item.has(&condition.columns) {
                fit(&mut rows, &condition.ex, parent)?;
            }
        }
        let rows = Rc::new(rows);
        *item.rows.borrow_mut() = Some(rows.clone());
        Ok(rows)
    }

    fn index(
        &self,
        n: usize,
        all: &[ScalarRow],
        keys: &[(usize, &Term, &Term)],
        parent: Option<&RowEnv<'_>>,
    ) -> Result<Rc<Index>, Unjudged> {
        let by: Vec<usize> = keys.iter().map(|(condition, _, _)| *condition).collect();
        if let Some(known) = self.items[n].indexes.borrow().get(&by) {
            return Ok(known.clone());
        }
        let own: Vec<&Term> = keys.iter().map(|(_, _, own)| *own).collect();
        let mut index = Index::new();
        for (at, row) in all.iter().enumerate() {
            if let Some(key) = key(&own, &RowEnv { row, parent })? {
                index.entry(key).or_default().push(at);
            }
        }
        let index = Rc::new(index);
        if self.is_kept(n) {
            self.items[n].indexes.borrow_mut().insert(by, index.clone());
        }
        Ok(index)
    }
}

/// Keeps the rows for which a condition is true.
fn fit(rows: &mut Vec<ScalarRow>, condition: &Term, parent: Option<&RowEnv<'_>>) -> Result<(), Unjudged> {
    let mut matching = Vec::with_capacity(rows.len());
    for row in rows.drain(..) {
        if condition.eval(&RowEnv { row: &row, parent })?.is_true() {
            matching.push(row);
        }
    }
    *rows = matching;
    Ok(())
}
