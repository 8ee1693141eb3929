//! GROUP BY with GROUPING SETS, ROLLUP and CUBE, and HAVING.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Visit, Visitor};

use super::aggregate::{self, AggregateEval, Arguments};
use super::arrow::ScalarRow;
use super::bind::shape;
use super::expr::{RowEnv, Term};
use super::scope::Scope;
use super::trust::Unjudged;
use super::value::{Scalar, key_of};

/// How rows are grouped.
pub struct Grouping {
    pub by: Vec<Term>,
    /// For each grouping set, which of the expressions it contains.
    pub sets: Vec<Vec<bool>>,
    pub calls: Vec<AggregateEval>,
    pub having: Option<Term>,
}

/// Whether an expression has an aggregate that belongs to its own query.
pub fn has_aggregates(expr: &Expr) -> bool {
    struct Aggregates(usize);
    impl Visitor for Aggregates {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(call) if self.0 == 0 && call.over.is_none() => {
                    match aggregate::is_one(&call.name.to_string().to_lowercase()) {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Aggregates(0)).is_break()
}

/// The expressions of GROUP BY, and for each grouping set which of them it contains.
pub fn elements(
    by: &[Expr],
    meant: &dyn Fn(&Expr) -> Expr,
    scope: &Scope<'_>,
) -> Result<(Vec<Expr>, Vec<Vec<bool>>), Unjudged> {
    let mut exprs: Vec<Expr> = vec![];
    let mut place = |expr: &Expr| {
        let expr = meant(expr);
        let known = exprs
            .iter()
            .position(|known| shape(known, scope) == shape(&expr, scope));
        known.unwrap_or_else(|| {
            exprs.push(expr);
            exprs.len() - 1
        })
    };
    let mut sets: Vec<Vec<usize>> = vec![vec![]];
    for element in by {
        let each: Vec<Vec<Vec<usize>>> = match element {
            Expr::Rollup(parts) => {
                let parts: Vec<Vec<usize>> = parts.iter().map(|part| flat(part, &mut place)).collect();
                vec![(0..=parts.len()).rev().map(|n| parts[..n].concat()).collect()]
            }
            Expr::Cube(parts) => {
                let parts: Vec<Vec<usize>> = parts.iter().map(|part| flat(part, &mut place)).collect();
                if parts.len() > 12 {
                    return Err(Unjudged::construct("a CUBE of many columns"));
                }
                let of = |set: usize| (0..parts.len()).filter(move |n| set >> n & 1 == 1);
                vec![
                    (0..1usize << parts.len())
                        .map(|set| of(set).flat_map(|n| parts[n].clone()).collect())
                        .collect(),
                ]
            }
            Expr::GroupingSets(all) => vec![all.iter().map(|set| flat(set, &mut place)).collect()],
            plain => vec![vec![flat(std::slice::from_ref(plain), &mut place)]],
        };
        for each in each {
            let pairs = sets
                .iter()
                .flat_map(|set| each.iter().map(move |more| [set.as_slice(), more].concat()));
            sets = pairs.collect();
        }
    }
    let sets = sets
        .into_iter()
        .map(|set| (0..exprs.len()).map(|at| set.contains(&at)).collect());
    let sets = sets.collect();
    Ok((exprs, sets))
}

fn flat(all: &[Expr], place: &mut dyn FnMut(&Expr) -> usize) -> Vec<usize> {
    let mut places = vec![];
    for expr in all {
        match expr {
            Expr::Tuple(parts) => places.extend(flat(parts, place)),
            Expr::Nested(inner) => places.extend(flat(std::slice::from_ref(inner), place)),
            expr => places.push(place(expr)),
        }
    }
    places
}

impl Grouping {
    /// Computes a row for each group: the values that it is grouped by, then its aggregates.
    pub fn rows(&self, rows: &[ScalarRow], parent: Option<&RowEnv<'_>>) -> Result<Vec<ScalarRow>, Unjudged> {
        let mut keys: Vec<ScalarRow> = Vec::with_capacity(rows.len());
        let mut given: Vec<Vec<Option<Arguments>>> =
            self.calls.iter().map(|_| Vec::with_capacity(rows.len())).collect();
        for row in rows {
            let env = RowEnv { row, parent };
            keys.push(self.by.iter().map(|ex| ex.eval(&env)).collect::<Result<_, _>>()?);
            for (call, given) in self.calls.iter().zip(&mut given) {
                given.push(call.arguments(&env)?);
            }
        }
        let mut made = vec![];
        for set in &self.sets {
            let masked = |key: &ScalarRow| -> ScalarRow {
                let parts = key.iter().zip(set);
                parts
                    .map(|(value, is_in)| if *is_in { value.clone() } else { Scalar::Null })
                    .collect()
            };
            let mut groups: HashMap<Vec<u8>, usize> = HashMap::new();
            let mut members: Vec<(ScalarRow, Vec<usize>)> = vec![];
            // The group of all rows exists even without rows.
            if !set.contains(&true) {
                groups.insert(key_of(&masked(&vec![Scalar::Null; set.len()])), 0);
                members.push((vec![Scalar::Null; set.len()], vec![]));
            }
            for (at, key) in keys.iter().enumerate() {
                let key = masked(key);
                let group = *groups.entry(key_of(&key)).or_insert_with(|| {
                    members.push((key, vec![]));
                    members.len() - 1
                });
                members[group].1.push(at);
            }
            for (mut row, members) in members {
                for (call, given) in self.calls.iter().zip(&given) {
                    row.push(call.fold(members.iter().filter_map(|at| given[*at].as_ref()).collect())?);
                }
                let fits = match &self.having {
                    Some(having) => having.eval(&RowEnv { row: &row, parent })?.is_true(),
                    None => true,
                };
                if fits {
                    made.push(row);
                }
            }
        }
        Ok(made)
    }
}
