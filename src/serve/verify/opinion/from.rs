//! Computes the rows of FROM: tables, queries, and their joins.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{
    Expr, JoinConstraint, JoinOperator, ObjectName, TableAlias, TableFactor, TableWithJoins,
};

use super::arrow::ScalarRow;
use super::bind::Binder;
use super::convert::{comparable, converted, meet};
use super::expr::{ComparisonOp, RowEnv, Term, TypedTerm};
use super::query::{Budget, Ctes, Planner, Query};
use super::scope::{Scope, ScopeColumn, spelled};
use super::select::conjuncts;
use super::trust::Unjudged;
use super::value::{Scalar, ScalarType, key_of};

/// A source of rows in FROM.
pub enum FromItem {
    Rows(Rc<Vec<ScalarRow>>),
    /// A query, and the number of queries between it and the one that it is bound in.
    Query(Rc<Query>, usize),
    /// A query that is evaluated for each row to its left.
    Lateral(Rc<Query>),
    Join(Box<FromJoin>),
}

/// A join of two sides.
pub struct FromJoin {
    left: FromItem,
    right: FromItem,
    widths: [usize; 2],
    keeps: [bool; 2],
    /// Pairs of terms that must be equal: one over rows of the left side, one over rows of the right.
    keys: Vec<(Term, Term)>,
    /// The other conditions, over the joined row.
    on: Vec<Term>,
    /// Columns that USING merges, over the joined row; they come first in the result.
    merged: Vec<Term>,
    budget: Budget,
    memo: RefCell<Option<Rc<Vec<ScalarRow>>>>,
}

/// The context in which FROM is bound.
pub struct FromContext<'a> {
    pub parent: Option<&'a Scope<'a>>,
    pub ctes: &'a Ctes,
    pub depth: usize,
    /// The columns to the left, which LATERAL can use.
    pub left: &'a [ScopeColumn],
}

type FactorAndColumns = (FromItem, Vec<ScopeColumn>);

impl Planner<'_> {
    /// Binds a table with the joins that follow it.
    pub fn from(&self, ast: &TableWithJoins, around: &FromContext<'_>) -> Result<FactorAndColumns, Unjudged> {
        let (mut from, mut columns) = self.factor(&ast.relation, around)?;
        if matches!(from, FromItem::Lateral(_)) && !ast.joins.is_empty() {
            return Err(Unjudged::construct("LATERAL to the left of a join"));
        }
        for join in &ast.joins {
            let (keeps, constraint) = match &join.join_operator {
                JoinOperator::Join(on) | JoinOperator::Inner(on) => ([false, false], Some(on)),
                JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => ([true, false], Some(on)),
                JoinOperator::Right(on) | JoinOperator::RightOuter(on) => ([false, true], Some(on)),
                JoinOperator::FullOuter(on) => ([true, true], Some(on)),
                JoinOperator::CrossJoin(JoinConstraint::None) => ([false, false], None),
                other => {
                    return Err(Unjudged::construct(match other {
                        JoinOperator::AsOf { .. } => "ASOF JOIN",
                        JoinOperator::CrossApply | JoinOperator::OuterApply => "APPLY",
                        _ => "a join of another kind",
                    }));
                }
            };
            let seen: Vec<ScopeColumn> = around.left.iter().chain(&columns).cloned().collect();
            let lateral = FromContext {
                left: if around.left.is_empty() { &columns } else { &seen },
                ..*around
            };
            let (right, right_columns) = self.factor(&join.relation, &lateral)?;
            if matches!(right, FromItem::Lateral(_)) && (keeps[1] || !around.left.is_empty()) {
                return Err(Unjudged::construct("LATERAL in such a join"));
            }
            (from, columns) = self.join((from, columns), (right, right_columns), keeps, constraint, around)?;
        }
        Ok((from, columns))
    }

    fn factor(&self, ast: &TableFactor, around: &FromContext<'_>) -> Result<FactorAndColumns, Unjudged> {
        match ast {
            TableFactor::Table {
                name,
                alias,
                args: None,
                with_ordinality: false,
                sample: None,
                ..
            } => {
                let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(spelled).collect();
                let known = parts.join(".");
                let table = parts.last().cloned().unwrap_or_default();
                let (from, columns) = match around.ctes.get(&known) {
                    Some(query) => {
                        self.trace.borrow_mut().extend(query.uses());
                        let columns = query
                            .columns
                            .iter()
                            .map(|column| (column.name.clone(), column.of.clone()));
                        (
                            FromItem::Query(query.clone(), around.depth - query.depth()),
                            columns.collect(),
                        )
                    }
                    None => {
                        let source = (self.source)(&known)?;
                        (FromItem::Rows(source.rows.clone()), source.columns.clone())
                    }
                };
                let columns: Vec<ScopeColumn> = columns
                    .into_iter()
                    .map(|(name, of): (String, ScalarType)| ScopeColumn {
                        table: Some(table.clone()),
                        name,
                        of,
                        open: true,
                    })
                    .collect();
                Ok((from, renamed(columns, alias.as_ref())?))
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample: None,
            } => {
                let beside = Scope {
                    columns: around.left.to_vec(),
                    grouped: None,
                    parent: around.parent,
                    depth: around.depth,
                    trace: &self.trace,
                };
                let parent = if *lateral { Some(&beside) } else { around.parent };
                let query = self.query(subquery, parent, around.ctes)?;
                let columns = renamed(query.columns.clone(), alias.as_ref())?;
                let mut beside = BTreeSet::new();
                query.columns(around.depth, &mut beside);
                Ok(match (*lateral, beside.is_empty()) {
                    // A LATERAL query is one query deeper, and is evaluated within the row to its left, whatever that
                    // row is.
                    (true, _) => (FromItem::Lateral(query), columns),
                    (false, _) => (FromItem::Query(query, 0), columns),
                })
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                let (from, columns) = self.from(table_with_joins, &FromContext { left: &[], ..*around })?;
                match alias {
                    None => Ok((from, columns)),
                    Some(_) => Err(Unjudged::construct("a name for joined tables")),
                }
            }
            other => {
                let text: String = other.to_string().chars().take(40).collect();
                Err(Unjudged::construct(format!("{text} in FROM")))
            }
        }
    }

    fn join(
        &self,
        (left, left_columns): FactorAndColumns,
        (right, right_columns): FactorAndColumns,
        keeps: [bool; 2],
        constraint: Option<&JoinConstraint>,
        around: &FromContext<'_>,
    ) -> Result<FactorAndColumns, Unjudged> {
        let widths = [left_columns.len(), right_columns.len()];
        let names: Vec<String> = match constraint {
            Some(JoinConstraint::Using(names)) => names.iter().map(last_part).collect(),
            Some(JoinConstraint::Natural) => {
                let is_right_column =
                    |name: &str| right_columns.iter().any(|column| column.open && column.name == name);
                let shared = left_columns
                    .iter()
                    .filter(|column| column.open && is_right_column(&column.name));
                shared.map(|column| column.name.clone()).collect()
            }
            _ => vec![],
        };
        let mut columns: Vec<ScopeColumn> = left_columns.iter().chain(&right_columns).cloned().collect();
        let (mut keys, mut on, mut merged, mut merged_columns) = (vec![], vec![], vec![], vec![]);
        for name in names {
            let find = |columns: &[ScopeColumn]| {
                let mut found = (0..columns.len()).filter(|at| columns[*at].open && columns[*at].name == name);
                let first = found.next().filter(|_| found.next().is_none());
                first.ok_or_else(|| Unjudged::Name(name.clone()))
            };
            let (at_left, at_right) = (find(&left_columns)?, find(&right_columns)?);
            let of_left = TypedTerm::new(Term::Column(at_left), left_columns[at_left].of.clone());
            let of_right = TypedTerm::new(Term::Column(at_right), right_columns[at_right].of.clone());
            let of = meet([&of_left, &of_right])?;
            let key_type = |bound: TypedTerm| comparable(bound, &of);
            keys.push((key_type(of_left.clone())?, key_type(of_right.clone())?));
            let behind = TypedTerm::new(Term::Column(widths[0] + at_right), of_right.of);
            let (value, of) = match keeps {
                [true, true] => {
                    let both = vec![converted(of_left, &of)?, converted(behind, &of)?];
                    (Term::Coalesce(both), of)
                }
                [false, true] => (behind.ex, behind.of),
                _ => (of_left.ex, of_left.of),
            };
            merged.push(value);
            merged_columns.push(ScopeColumn {
                table: None,
                name,
                of,
                open: true,
            });
            columns[at_left].open = false;
            columns[widths[0] + at_right].open = false;
        }
        if let Some(JoinConstraint::On(condition)) = constraint {
            let scope = Scope {
                columns: columns.clone(),
                grouped: None,
                parent: around.parent,
                depth: around.depth,
                trace: &self.trace,
            };
            let binder = Binder {
                planner: self,
                scope: &scope,
                ctes: around.ctes,
                groups: None,
                windows: None,
            };
            let mut all: Vec<&Expr> = vec![];
            conjuncts(condition, &mut all);
            for condition in all {
                let ex = binder.condition(condition)?;
                match halves(ex, around.depth, widths[0]) {
                    Ok(key) => keys.push(key),
                    Err(ex) => on.push(ex),
                }
            }
        }
        let columns = merged_columns.into_iter().chain(columns).collect();
        let budget = self.budget.clone();
        let join = FromJoin {
            left,
            right,
            widths,
            keeps,
            keys,
            on,
            merged,
            budget,
            memo: RefCell::default(),
        };
        Ok((FromItem::Join(Box::new(join)), columns))
    }
}

/// Splits an equality into a term over the left side's rows and one over the right side's, whose columns begin at
/// `width`. Returns any other condition unchanged, as the error.
fn halves(ex: Term, depth: usize, width: usize) -> Result<(Term, Term), Term> {
    let Term::Compare(ComparisonOp::Equal, a, b) = &ex else {
        return Err(ex);
    };
    let side = |ex: &Term| {
        let mut columns = BTreeSet::new();
        let plain = ex.columns(depth, &mut columns) && !ex.is_outer() && !columns.is_empty();
        match plain {
            true if columns.iter().all(|at| *at < width) => Some(false),
            true if columns.iter().all(|at| *at >= width) => Some(true),
            _ => None,
        }
    };
    match (side(a), side(b)) {
        (Some(false), Some(true)) => Ok((a.as_ref().clone(), b.shifted(width))),
        (Some(true), Some(false)) => Ok((b.as_ref().clone(), a.shifted(width))),
        _ => Err(ex),
    }
}

fn last_part(name: &ObjectName) -> String {
    name.0
        .last()
        .and_then(|part| part.as_ident())
        .map(spelled)
        .unwrap_or_default()
}

/// The columns under the names that an alias in FROM gives them.
fn renamed(mut columns: Vec<ScopeColumn>, alias: Option<&TableAlias>) -> Result<Vec<ScopeColumn>, Unjudged> {
    let Some(alias) = alias else {
        return Ok(columns);
    };
    if alias.columns.len() > columns.len() {
        return Err(Unjudged::construct("more names of columns than columns"));
    }
    let mut names = alias.columns.iter();
    for column in &mut columns {
        column.table = Some(spelled(&alias.name));
        if let Some(named) = names.next() {
            column.name = spelled(&named.name);
        }
    }
    Ok(columns)
}

impl FromItem {
    /// Whether its rows depend on a row of an enclosing query.
    pub fn is_correlated(&self) -> bool {
        match self {
            FromItem::Rows(_) => false,
            FromItem::Query(query, _) | FromItem::Lateral(query) => query.is_correlated(),
            FromItem::Join(join) => {
                let beside = |from: &FromItem| !matches!(from, FromItem::Lateral(_)) && from.is_correlated();
                let lateral = match &join.right {
                    // It always depends on the left side's rows, which does not count.
                    FromItem::Lateral(query) => query.uses().iter().any(|(of, _)| *of + 1 < query.depth()),
                    _ => false,
                };
                lateral || beside(&join.left) || beside(&join.right) || join.on.iter().any(Term::is_outer)
            }
        }
    }

    /// Computes the rows; `parent` is the row of the query around the one that this FROM belongs to.
    pub fn rows(&self, parent: Option<&RowEnv<'_>>) -> Result<Rc<Vec<ScalarRow>>, Unjudged> {
        match self {
            FromItem::Rows(rows) => Ok(rows.clone()),
            FromItem::Query(query, up) => {
                let mut env = parent;
                for _ in 0..*up {
                    env = env.and_then(|env| env.parent);
                }
                query.rows(env)
            }
            FromItem::Lateral(query) => query.rows(Some(&RowEnv { row: &[], parent })),
            FromItem::Join(join) => {
                if let Some(known) = join.memo.borrow().as_ref() {
                    return Ok(known.clone());
                }
                let rows = Rc::new(join.rows(parent)?);
                if !self.is_correlated() {
                    *join.memo.borrow_mut() = Some(rows.clone());
                }
                Ok(rows)
            }
        }
    }
}

impl FromJoin {
    fn rows(&self, parent: Option<&RowEnv<'_>>) -> Result<Vec<ScalarRow>, Unjudged> {
        let left = self.left.rows(parent)?;
        let all = match &self.right {
            FromItem::Lateral(_) => Rc::new(vec![]),
            right => right.rows(parent)?,
        };
        let (of_left, of_right): (Vec<&Term>, Vec<&Term>) = self.keys.iter().map(|(l, r)| (l, r)).unzip();
        let mut index: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, row) in all.iter().enumerate() {
            if let Some(key) = key(&of_right, &RowEnv { row, parent })? {
                index.entry(key).or_default().push(at);
            }
        }
        let nulls = |width: usize| std::iter::repeat_n(Scalar::Null, width);
        let mut matched = vec![false; all.len()];
        let mut rows = Vec::new();
        for row in left.iter() {
            let env = RowEnv { row, parent };
            let lateral = match &self.right {
                FromItem::Lateral(query) => Some(query.rows(Some(&env))?),
                _ => None,
            };
            let candidates: Vec<usize> = match (&lateral, key(&of_left, &env)?) {
                (Some(rows), _) => (0..rows.len()).collect(),
                (None, Some(key)) => index.get(&key).cloned().unwrap_or_default(),
                (None, None) => vec![],
            };
            self.budget.spend(candidates.len() + 1)?;
            let mut is_matched = false;
            for at in candidates {
                let right = &lateral.as_ref().unwrap_or(&all)[at];
                let both: ScalarRow = row.iter().chain(right).cloned().collect();
                let env = RowEnv { row: &both, parent };
                let mut fits = true;
                for condition in &self.on {
                    fits = fits && condition.eval(&env)?.is_true();
                }
                if let (true, true) = (lateral.is_some(), !self.keys.is_empty()) {
                    let of_both = (key(&of_left, &env)?, key(&of_right, &RowEnv { row: right, parent })?);
                    fits = fits && matches!(of_both, (Some(a), Some(b)) if a == b);
                }
                if fits {
                    is_matched = true;
                    if lateral.is_none() {
                        matched[at] = true;
                    }
                    rows.push(both);
                }
            }
            if self.keeps[0] && !is_matched {
                rows.push(row.iter().cloned().chain(nulls(self.widths[1])).collect());
            }
        }
        if self.keeps[1] {
            let alone = all.iter().zip(&matched).filter(|(_, matched)| !**matched);
            rows.extend(alone.map(|(row, _)| nulls(self.widths[0]).chain(row.iter().cloned()).collect::<ScalarRow>()));
        }
        if self.merged.is_empty() {
            return Ok(rows);
        }
        let with_merged = |both: ScalarRow| {
            let env = RowEnv { row: &both, parent };
            let merged = self
                .merged
                .iter()
                .map(|ex| ex.eval(&env))
                .collect::<Result<ScalarRow, _>>()?;
            Ok(merged.into_iter().chain(both).collect())
        };
        rows.into_iter().map(with_merged).collect()
    }
}

/// The key bytes of the values that must be equal; none if one is NULL.
pub fn key(all: &[&Term], env: &RowEnv<'_>) -> Result<Option<Vec<u8>>, Unjudged> {
    let values = all.iter().map(|ex| ex.eval(env)).collect::<Result<Vec<_>, _>>()?;
    Ok((!values.iter().any(Scalar::is_null)).then(|| key_of(&values)))
}
