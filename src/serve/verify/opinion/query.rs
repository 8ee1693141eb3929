//! Queries: their parts, and their rows for each row of the enclosing query.
//!
//! A subquery is evaluated for each row that needs it, as SQL defines it. Its rows are memoised by the values of the
//! outer columns that it uses, so it is evaluated once if it uses none.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, LimitClause, OrderByKind, SetExpr, SetOperator, SetQuantifier,
};

use super::arrow::ScalarRow;
use super::bind::Binder;
use super::convert::{conversion, meet};
use super::expr::{RowEnv, ScalarKernel, Term, TypedTerm};
use super::functions::Functions;
use super::order::{self, SortDirection};
use super::scope::{Scope, ScopeColumn, spelled};
use super::select::Select;
use super::trust::Unjudged;
use super::value::{Scalar, ScalarType, key_of};

/// The queries named in WITH.
pub type Ctes = HashMap<String, Rc<Query>>;

/// Rows and columns of an input or table.
pub struct SourceRows {
    pub columns: Vec<(String, ScalarType)>,
    pub rows: Rc<Vec<ScalarRow>>,
}

/// How many more rows may be computed.
#[derive(Clone)]
pub struct Budget(Rc<Cell<usize>>);

impl Budget {
    /// A budget of so many rows.
    pub fn new(rows: usize) -> Budget {
        Budget(Rc::new(Cell::new(rows)))
    }

    /// Takes rows from the budget; fails if too few are left.
    pub fn spend(&self, rows: usize) -> Result<(), Unjudged> {
        let left = self.0.get().checked_sub(rows).ok_or(Unjudged::Size)?;
        self.0.set(left);
        Ok(())
    }
}

/// Binds queries of SQL.
pub struct Planner<'a> {
    /// Returns an input or table by its name in SQL.
    pub source: &'a dyn Fn(&str) -> Result<Rc<SourceRows>, Unjudged>,
    pub functions: Functions,
    /// The value of `now()`, in Unix microseconds.
    pub now: i64,
    pub budget: Budget,
    pub trace: RefCell<Vec<(usize, usize)>>,
}

/// A bound query.
pub struct Query {
    pub columns: Vec<ScopeColumn>,
    body: Body,
    order: Vec<(usize, SortDirection)>,
    offset: usize,
    limit: Option<usize>,
    /// The number of enclosing queries.
    depth: usize,
    /// The columns of enclosing queries that it uses: the depth of the query, and the column's position.
    used: Vec<(usize, usize)>,
    memo: RefCell<HashMap<Vec<u8>, Rc<Vec<ScalarRow>>>>,
}

/// A source of rows without an order.
pub enum Body {
    Select(Box<Select>),
    Values(Vec<Vec<Term>>),
    Query(Rc<Query>),
    Set(SetOperator, bool, Box<[(Body, Vec<Option<ScalarKernel>>); 2]>),
}

/// The most combinations of outer values for which a query's rows are memoised.
const KEPT: usize = 4096;

impl Planner<'_> {
    /// Binds a query in the scope of the enclosing ones.
    pub fn query(&self, ast: &ast::Query, parent: Option<&Scope<'_>>, ctes: &Ctes) -> Result<Rc<Query>, Unjudged> {
        let depth = parent.map_or(0, |parent| parent.depth + 1);
        let unknown = |what: &str| Err(Unjudged::construct(what));
        if ast.for_clause.is_some()
            || ast.settings.is_some()
            || ast.format_clause.is_some()
            || !ast.pipe_operators.is_empty()
        {
            return unknown("a clause behind the query");
        }
        let start = self.trace.borrow().len();
        let mut ctes = ctes.clone();
        if let Some(with) = &ast.with {
            if with.recursive {
                return unknown("WITH RECURSIVE");
            }
            for cte in &with.cte_tables {
                let query = self.query(&cte.query, parent, &ctes)?;
                let mut query = Rc::into_inner(query).expect("a query that was just made is nobody else's");
                for (column, named) in query.columns.iter_mut().zip(&cte.alias.columns) {
                    column.name = spelled(&named.name);
                }
                let query = Rc::new(query);
                ctes.insert(spelled(&cte.alias.name), query);
            }
        }
        let order_by: &[ast::OrderByExpr] = match ast.order_by.as_ref().map(|order| &order.kind) {
            None => &[],
            Some(OrderByKind::Expressions(by)) => by,
            Some(OrderByKind::All(_)) => return unknown("ORDER BY ALL"),
        };
        let (offset, limit) = bounds(ast)?;
        let (body, columns, order) = match ast.body.as_ref() {
            SetExpr::Select(select) => {
                let (select, columns, order) = self.select(select, order_by, parent, &ctes, depth)?;
                (Body::Select(Box::new(select)), columns, order)
            }
            other => {
                let (body, columns) = self.body(other, parent, &ctes, depth)?;
                // Without a LIMIT, an order does not change a set of rows.
                let order = match limit.is_some() || offset > 0 {
                    true => order_by
                        .iter()
                        .map(|by| place(by, &columns))
                        .collect::<Result<_, _>>()?,
                    false => vec![],
                };
                (body, columns, order)
            }
        };
        let used: BTreeSet<(usize, usize)> = self.trace.borrow()[start..]
            .iter()
            .copied()
            .filter(|(of, _)| *of < depth)
            .collect();
        let columns = columns.into_iter().map(|(name, bound)| ScopeColumn {
            table: None,
            name,
            of: bound.of,
            open: true,
        });
        Ok(Rc::new(Query {
            columns: columns.collect(),
            body,
            order,
            offset,
            limit,
            depth,
            used: used.into_iter().collect(),
            memo: RefCell::default(),
        }))
    }

    /// Binds a SELECT, VALUES or set operation; returns its columns with names and types.
    fn body(
        &self,
        ast: &SetExpr,
        parent: Option<&Scope<'_>>,
        ctes: &Ctes,
        depth: usize,
    ) -> Result<(Body, Vec<(String, TypedTerm)>), Unjudged> {
        let columns_of = |query: &Query| {
            let column = |(at, column): (usize, &ScopeColumn)| {
                (column.name.clone(), TypedTerm::new(Term::Column(at), column.of.clone()))
            };
            query.columns.iter().enumerate().map(column).collect()
        };
        match ast {
            SetExpr::Select(select) => {
                let (select, columns, _) = self.select(select, &[], parent, ctes, depth)?;
                Ok((Body::Select(Box::new(select)), columns))
            }
            SetExpr::Query(query) => {
                let query = self.query(query, parent, ctes)?;
                let columns = columns_of(&query);
                Ok((Body::Query(query), columns))
            }
            SetExpr::Values(values) => {
                let scope = Scope {
                    columns: vec![],
                    grouped: None,
                    parent,
                    depth,
                    trace: &self.trace,
                };
                let binder = Binder {
                    planner: self,
                    scope: &scope,
                    ctes,
                    groups: None,
                    windows: None,
                };
                let rows = values
                    .rows
                    .iter()
                    .map(|row| binder.all(&row.content))
                    .collect::<Result<Vec<_>, _>>()?;
                let width = rows.first().map_or(0, Vec::len);
                if rows.iter().any(|row| row.len() != width) {
                    return Err(Unjudged::construct("VALUES of rows of different lengths"));
                }
                let types = (0..width)
                    .map(|at| meet(rows.iter().map(|row| &row[at])))
                    .collect::<Result<Vec<_>, _>>()?;
                let rows = rows.into_iter().map(|row| {
                    let cells = row.into_iter().zip(&types);
                    cells
                        .map(|(bound, of)| super::convert::converted(bound, of))
                        .collect::<Result<Vec<_>, _>>()
                });
                let rows = rows.collect::<Result<Vec<_>, _>>()?;
                let column =
                    |(at, of): (usize, ScalarType)| (format!("column{}", at + 1), TypedTerm::new(Term::Column(at), of));
                Ok((Body::Values(rows), types.into_iter().enumerate().map(column).collect()))
            }
            SetExpr::SetOperation {
                op,
                set_quantifier,
                left,
                right,
            } => {
                let all = match set_quantifier {
                    SetQuantifier::All => true,
                    SetQuantifier::Distinct | SetQuantifier::None => false,
                    _ => return Err(Unjudged::construct("a set operation by name")),
                };
                if !matches!(op, SetOperator::Union | SetOperator::Except | SetOperator::Intersect) {
                    return Err(Unjudged::construct(format!("the operator {op}")));
                }
                let (left, left_columns) = self.body(left, parent, ctes, depth)?;
                let (right, right_columns) = self.body(right, parent, ctes, depth)?;
                if left_columns.len() != right_columns.len() {
                    return Err(Unjudged::construct("a set operation of different numbers of columns"));
                }
                let (mut columns, mut of_left, mut of_right) = (vec![], vec![], vec![]);
                for (at, ((name, left), (_, right))) in left_columns.into_iter().zip(right_columns).enumerate() {
                    let of = meet([&left, &right])?;
                    let kernel = |bound: &TypedTerm| match bound.of == of {
                        true => Ok(None),
                        false => conversion(&bound.of, &of).map(Some),
                    };
                    of_left.push(kernel(&left)?);
                    of_right.push(kernel(&right)?);
                    columns.push((name, TypedTerm::new(Term::Column(at), of)));
                }
                Ok((
                    Body::Set(*op, all, Box::new([(left, of_left), (right, of_right)])),
                    columns,
                ))
            }
            other => Err(Unjudged::construct(format!("the query {other}"))),
        }
    }

    /// The value of `current_date` and similar keywords.
    pub fn moment(&self, name: &Ident) -> Option<TypedTerm> {
        let (value, of) = match spelled(name).as_str() {
            "current_date" => (
                Scalar::Date(self.now.div_euclid(super::time::DAY) as i32),
                ScalarType::Date,
            ),
            "current_timestamp" | "now" => (Scalar::Moment(self.now), ScalarType::Moment(false)),
            _ => return None,
        };
        name.quote_style
            .is_none()
            .then(|| TypedTerm::new(Term::Const(value), of))
    }

    /// Binds a call of a function.
    pub fn call(&self, name: &str, of: Vec<TypedTerm>) -> Result<TypedTerm, Unjudged> {
        self.functions.call(name, of)
    }
}

/// OFFSET and LIMIT, which must be constants.
fn bounds(ast: &ast::Query) -> Result<(usize, Option<usize>), Unjudged> {
    let number = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            ast::Value::Number(text, _) => text.parse::<usize>().ok().map(Some),
            ast::Value::Null => Some(None),
            _ => None,
        },
        _ => None,
    };
    let constant = |expr: &Expr| number(expr).ok_or_else(|| Unjudged::construct(format!("LIMIT {expr}")));
    let (mut offset, mut limit) = (0, None);
    match &ast.limit_clause {
        None => {}
        Some(LimitClause::LimitOffset {
            limit: most,
            offset: from,
            limit_by,
        }) if limit_by.is_empty() => {
            limit = most.as_ref().map(constant).transpose()?.flatten();
            offset = from
                .as_ref()
                .map(|from| constant(&from.value))
                .transpose()?
                .flatten()
                .unwrap_or(0);
        }
        Some(other) => return Err(Unjudged::construct(format!("{other}"))),
    }
    if let Some(fetch) = &ast.fetch {
        if fetch.with_ties || fetch.percent {
            return Err(Unjudged::construct(format!("{fetch}")));
        }
        limit = Some(
            fetch
                .quantity
                .as_ref()
                .map(constant)
                .transpose()?
                .flatten()
                .unwrap_or(1),
        );
    }
    Ok((offset, limit))
}

/// The output column that an ORDER BY item after a set operation names.
fn place(by: &ast::OrderByExpr, columns: &[(String, TypedTerm)]) -> Result<(usize, SortDirection), Unjudged> {
    let at = output(&by.expr, columns);
    let at = at.ok_or_else(|| Unjudged::construct(format!("ORDER BY {} behind a set operation", by.expr)))?;
    Ok((at, SortDirection::new(&by.options)))
}

/// The output column with this name or number.
pub fn output(expr: &Expr, columns: &[(String, TypedTerm)]) -> Option<usize> {
    match expr {
        Expr::Nested(expr) => output(expr, columns),
        Expr::Identifier(name) => {
            let mut found = (0..columns.len()).filter(|at| columns[*at].0 == spelled(name));
            let first = found.next();
            first.filter(|_| found.next().is_none())
        }
        Expr::Value(value) => match &value.value {
            ast::Value::Number(text, _) => text
                .parse::<usize>()
                .ok()?
                .checked_sub(1)
                .filter(|at| *at < columns.len()),
            _ => None,
        },
        _ => None,
    }
}

impl Query {
    /// Whether its rows depend on a row of an enclosing query.
    pub fn is_correlated(&self) -> bool {
        !self.used.is_empty()
    }

    /// Adds the columns that it uses of the query at this depth.
    pub fn columns(&self, depth: usize, found: &mut BTreeSet<usize>) {
        found.extend(self.used.iter().filter(|(of, _)| *of == depth).map(|(_, at)| *at));
    }

    /// The columns of enclosing queries that it uses: depth of the query, and position.
    pub fn uses(&self) -> &[(usize, usize)] {
        &self.used
    }

    /// The number of enclosing queries.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The query's rows, for a row of the enclosing query.
    pub fn rows(&self, parent: Option<&RowEnv<'_>>) -> Result<Rc<Vec<ScalarRow>>, Unjudged> {
        let mut key = Vec::new();
        for (of, at) in &self.used {
            let parent = parent.expect("a query that uses others is within them");
            parent.outer(self.depth - 1 - of, *at).key(&mut key);
        }
        if let Some(known) = self.memo.borrow().get(&key) {
            return Ok(known.clone());
        }
        let rows = Rc::new(self.compute(parent)?);
        let mut memo = self.memo.borrow_mut();
        if memo.len() >= KEPT {
            memo.clear();
        }
        memo.insert(key, rows.clone());
        Ok(rows)
    }

    fn compute(&self, parent: Option<&RowEnv<'_>>) -> Result<Vec<ScalarRow>, Unjudged> {
        let mut rows = self.body.rows(parent)?;
        let width = self.columns.len();
        if self.limit.is_some() || self.offset > 0 {
            let ways: Vec<SortDirection> = self.order.iter().map(|(_, way)| *way).collect();
            let key = |row: &ScalarRow| -> Vec<Scalar> { self.order.iter().map(|(at, _)| row[*at].clone()).collect() };
            let mut keyed: Vec<(Vec<Scalar>, ScalarRow)> = rows.into_iter().map(|row| (key(&row), row)).collect();
            keyed.sort_by(|a, b| order::compare(&ways, &a.0, &b.0));
            let end = self
                .limit
                .map_or(keyed.len(), |limit| self.offset.saturating_add(limit).min(keyed.len()));
            for edge in [self.offset, end] {
                if edge > 0 && edge < keyed.len() {
                    let same = |row: &&(Vec<Scalar>, ScalarRow)| {
                        order::compare(&ways, &row.0, &keyed[edge].0) == Ordering::Equal
                    };
                    let mut tied = keyed.iter().filter(same).map(|(_, row)| key_of(&row[..width]));
                    let first = tied.next();
                    if same(&&keyed[edge - 1]) && tied.any(|key| Some(key) != first) {
                        return Err(Unjudged::Ties("ORDER BY ... LIMIT"));
                    }
                }
            }
            let range = self.offset.min(end)..end;
            rows = keyed.drain(range).map(|(_, row)| row).collect();
        }
        rows.iter_mut().for_each(|row| row.truncate(width));
        Ok(rows)
    }
}

impl Body {
    fn rows(&self, parent: Option<&RowEnv<'_>>) -> Result<Vec<ScalarRow>, Unjudged> {
        match self {
            Body::Select(select) => select.rows(parent),
            Body::Query(query) => Ok(query.rows(parent)?.to_vec()),
            Body::Values(rows) => {
                let env = RowEnv { row: &[], parent };
                rows.iter()
                    .map(|row| row.iter().map(|ex| ex.eval(&env)).collect())
                    .collect()
            }
            Body::Set(op, all, sides) => {
                let [left, right] = sides.as_ref();
                let (left, right) = (side(left, parent)?, side(right, parent)?);
                Ok(combined(*op, *all, left, right))
            }
        }
    }
}

/// The rows of one side of a set operation, converted to the common types.
fn side(
    (body, kernels): &(Body, Vec<Option<ScalarKernel>>),
    parent: Option<&RowEnv<'_>>,
) -> Result<Vec<ScalarRow>, Unjudged> {
    let mut rows = body.rows(parent)?;
    for row in &mut rows {
        row.truncate(kernels.len());
        for (cell, kernel) in row.iter_mut().zip(kernels) {
            if let (Some(kernel), false) = (kernel, cell.is_null()) {
                *cell = kernel(std::slice::from_ref(cell))?;
            }
        }
    }
    Ok(rows)
}

/// Combines the sides of a set operation: with ALL multiplicities count, without it each row occurs once.
fn combined(op: SetOperator, all: bool, left: Vec<ScalarRow>, right: Vec<ScalarRow>) -> Vec<ScalarRow> {
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    let (first, second) = match op {
        SetOperator::Union => (left.into_iter().chain(right).collect(), vec![]),
        _ => (left, right),
    };
    for row in &second {
        *counts.entry(key_of(row)).or_default() += 1;
    }
    let mut shown: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut rows = Vec::new();
    for row in first {
        let key = key_of(&row);
        let count = counts.get(&key).copied().unwrap_or(0);
        let before = shown.entry(key).or_default();
        *before += 1;
        let passes = match (op, all) {
            (SetOperator::Union, true) => true,
            (SetOperator::Union, false) => *before == 1,
            (SetOperator::Except, true) => *before > count,
            (SetOperator::Except, false) => *before == 1 && count == 0,
            (_, true) => *before <= count,
            (_, false) => *before == 1 && count > 0,
        };
        if passes {
            rows.push(row);
        }
    }
    rows
}
