//! The tables of FROM, joined by the conditions of WHERE.
//!
//! What they yield is what the product of all tables yields that fits all conditions. To get there, a table is filtered by
//! the conditions on it alone; tables come in such an order that one meets those before it by an equality, where there is
//! one; and its rows are looked up by that. Conditions with subqueries come last.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::arrow::Row;
use super::expr::{Comparison, Env, Ex};
use super::from::{From, key};
use super::query::Budget;
use super::trust::Unjudged;
use super::value::Value;

/// A table, query or join of FROM, and which columns of the rows at hand are its own.
pub struct Item {
    from: From,
    first: usize,
    width: usize,
    /// Its rows that fit the conditions on it alone, with all columns of the rows at hand.
    rows: RefCell<Option<Rc<Vec<Row>>>>,
    /// Where its rows are, by the conditions that look them up.
    found: RefCell<HashMap<Vec<usize>, Rc<Index>>>,
}

type Index = HashMap<Vec<u8>, Vec<usize>>;

/// All of FROM and WHERE.
pub struct Joined {
    items: Vec<Item>,
    width: usize,
    conditions: Vec<Condition>,
    budget: Budget,
}

struct Condition {
    ex: Ex,
    columns: BTreeSet<usize>,
    /// Whether it has no subquery.
    plain: bool,
    outer: bool,
    /// Both sides of an equality, with their columns.
    equality: Option<[(Ex, BTreeSet<usize>); 2]>,
}

impl Item {
    /// One whose columns begin there.
    pub fn new(from: From, first: usize, width: usize) -> Item {
        Item {
            from,
            first,
            width,
            rows: RefCell::default(),
            found: RefCell::default(),
        }
    }

    fn has(&self, columns: &BTreeSet<usize>) -> bool {
        columns
            .iter()
            .all(|at| (self.first..self.first + self.width).contains(at))
    }
}

impl Joined {
    /// These tables under these conditions; `depth` is that of the query.
    pub fn new(items: Vec<Item>, width: usize, conditions: Vec<Ex>, depth: usize, budget: Budget) -> Joined {
        let conditions = conditions.into_iter().map(|ex| {
            let mut columns = BTreeSet::new();
            let plain = ex.columns(depth, &mut columns);
            let equality = match &ex {
                Ex::Compare(Comparison::Equal, left, right) if plain => {
                    let side = |ex: &Ex| {
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
        Joined {
            items,
            width,
            conditions: conditions.collect(),
            budget,
        }
    }

    /// The rows that fit.
    pub fn rows(&self, parent: Option<&Env<'_>>) -> Result<Vec<Row>, Unjudged> {
        let mut rows = vec![vec![Value::Null; self.width]];
        let mut done = vec![false; self.conditions.len()];
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut left: Vec<usize> = (0..self.items.len()).collect();
        let in_order = self.items.iter().any(|item| matches!(item.from, From::Lateral(_)));
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
                // Those on one table alone were seen to, unless that is made for each row.
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

    /// Whether a table's rows are the same for all rows of the queries around.
    fn is_kept(&self, n: usize) -> bool {
        !self.items[n].from.is_correlated()
    }

    /// The equalities that join table `n` to the columns that are known so far, or to constants. Of each: which condition it is,
    /// its side over what is known, and its side over the table.
    fn keys(&self, n: usize, seen: &BTreeSet<usize>, done: &[bool]) -> Vec<(usize, &Ex, &Ex)> {
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

    /// The rows beside those of one more table.
    fn joined(
        &self,
        n: usize,
        rows: Vec<Row>,
        keys: &[(usize, &Ex, &Ex)],
        parent: Option<&Env<'_>>,
    ) -> Result<Vec<Row>, Unjudged> {
        let item = &self.items[n];
        let place = |row: &Row, own: &[Value]| {
            let mut row = row.clone();
            row[item.first..item.first + item.width].clone_from_slice(own);
            row
        };
        let mut made = vec![];
        if let From::Lateral(query) = &item.from {
            for row in &rows {
                let beside = query.rows(Some(&Env { row, parent }))?;
                self.budget.spend(beside.len() + 1)?;
                made.extend(beside.iter().map(|own| place(row, own)));
            }
            // Its equalities are conditions of the rows then.
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
        let known: Vec<&Ex> = keys.iter().map(|(_, known, _)| *known).collect();
        for row in &rows {
            let own = |at: usize| &all[at][item.first..item.first + item.width];
            match &index {
                None => {
                    self.budget.spend(all.len())?;
                    made.extend((0..all.len()).map(|at| place(row, own(at))));
                }
                Some(index) => {
                    let Some(key) = key(&known, &Env { row, parent })? else {
                        continue;
                    };
                    let found = index.get(&key).map(Vec::as_slice).unwrap_or_default();
                    self.budget.spend(found.len() + 1)?;
                    made.extend(found.iter().map(|at| place(row, own(*at))));
                }
            }
        }
        Ok(made)
    }

    /// A table's rows that fit the conditions on it alone.
    fn all(&self, n: usize, parent: Option<&Env<'_>>) -> Result<Rc<Vec<Row>>, Unjudged> {
        let item = &self.items[n];
        if let Some(known) = item.rows.borrow().as_ref() {
            return Ok(known.clone());
        }
        let own = item.from.rows(parent)?;
        self.budget.spend(own.len())?;
        let wide = |own: &Row| {
            let mut row = vec![Value::Null; self.width];
            row[item.first..item.first + item.width].clone_from_slice(own);
            row
        };
        let mut rows: Vec<Row> = own.iter().map(wide).collect();
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
        all: &[Row],
        keys: &[(usize, &Ex, &Ex)],
        parent: Option<&Env<'_>>,
    ) -> Result<Rc<Index>, Unjudged> {
        let by: Vec<usize> = keys.iter().map(|(condition, _, _)| *condition).collect();
        if let Some(known) = self.items[n].found.borrow().get(&by) {
            return Ok(known.clone());
        }
        let own: Vec<&Ex> = keys.iter().map(|(_, _, own)| *own).collect();
        let mut index = Index::new();
        for (at, row) in all.iter().enumerate() {
            if let Some(key) = key(&own, &Env { row, parent })? {
                index.entry(key).or_default().push(at);
            }
        }
        let index = Rc::new(index);
        if self.is_kept(n) {
            self.items[n].found.borrow_mut().insert(by, index.clone());
        }
        Ok(index)
    }
}

/// Keeps the rows for which a condition is true.
fn fit(rows: &mut Vec<Row>, condition: &Ex, parent: Option<&Env<'_>>) -> Result<(), Unjudged> {
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows.drain(..) {
        if condition.eval(&Env { row: &row, parent })?.is_true() {
            kept.push(row);
        }
    }
    *rows = kept;
    Ok(())
}
