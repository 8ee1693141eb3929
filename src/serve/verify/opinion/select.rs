//! Evaluates SELECT: filters the rows of FROM, groups them, computes windows, and projects the result.
//!
//! ```text
//! FROM, WHERE (joined.rs) --> GROUP BY, HAVING (groups.rs) --> windows --> SELECT, DISTINCT --> ORDER BY, LIMIT
//! ```

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Distinct, Expr, GroupByExpr, OrderByExpr, SelectItem, SelectItemQualifiedWildcardKind,
};

use super::arrow::ScalarRow;
use super::bind::{Binder, GroupScope, Windows, shape};
use super::expr::{RowEnv, Term, TypedTerm};
use super::from::FromContext;
use super::groups::{Grouping, elements, has_aggregates};
use super::joined::{Item, JoinedFrom};
use super::order::{self, SortDirection};
use super::query::{Budget, Ctes, Planner, output};
use super::scope::{Scope, ScopeColumn, spelled};
use super::trust::Unjudged;
use super::types;
use super::value::{Scalar, ScalarType, key_of};
use super::window::WindowCall;

/// A SELECT.
pub struct Select {
    joined: JoinedFrom,
    grouping: Option<Grouping>,
    windows: Vec<WindowCall>,
    /// The projected terms, then the sort keys.
    outputs: Vec<Term>,
    /// The position of the output `unnest(...)`, which makes a row for each item of its list.
    unnested: Option<usize>,
    distinct: DistinctMode,
    visible: usize,
    budget: Budget,
}

/// Which rows DISTINCT keeps.
enum DistinctMode {
    All,
    Distinct,
    /// The first row, in this order, of all rows that agree in these outputs.
    First(Vec<usize>, Vec<(usize, SortDirection)>),
}

/// An item of the projection: a column of FROM, or an expression.
enum ProjectionItem {
    Column(usize),
    Expr(Box<Expr>),
}

type BoundSelect = (Select, Vec<(String, TypedTerm)>, Vec<(usize, SortDirection)>);

impl Planner<'_> {
    /// Binds a SELECT; returns it with its columns and its order.
    pub fn select(
        &self,
        ast: &ast::Select,
        order_by: &[OrderByExpr],
        parent: Option<&Scope<'_>>,
        ctes: &Ctes,
        depth: usize,
    ) -> Result<BoundSelect, Unjudged> {
        if ast.qualify.is_some() || ast.top.is_some() || !ast.lateral_views.is_empty() || ast.exclude.is_some() {
            return Err(Unjudged::construct("QUALIFY, TOP or LATERAL VIEW"));
        }
        let (mut items, mut columns) = (vec![], vec![]);
        for from in &ast.from {
            let around = FromContext {
                parent,
                ctes,
                depth,
                left: &columns,
            };
            let (from, found) = self.from(from, &around)?;
            items.push(Item::new(from, columns.len(), found.len()));
            columns.extend(found);
        }
        let scope = Scope {
            columns,
            grouped: None,
            parent,
            depth,
            trace: &self.trace,
        };
        let rows = Binder {
            planner: self,
            scope: &scope,
            ctes,
            groups: None,
            windows: None,
        };
        let mut conditions = vec![];
        if let Some(condition) = &ast.selection {
            conjuncts(condition, &mut conditions);
        }
        let conditions = conditions
            .into_iter()
            .map(|condition| rows.condition(condition))
            .collect::<Result<Vec<_>, _>>()?;
        let joined = JoinedFrom::new(items, scope.columns.len(), conditions, depth, self.budget.clone());

        let (names, shown) = expand_projection(&ast.projection, &scope)?;
        let mut exprs: Vec<&Expr> = vec![];
        exprs.extend(shown.iter().filter_map(|item| match item {
            ProjectionItem::Expr(expr) => Some(expr.as_ref()),
            ProjectionItem::Column(_) => None,
        }));
        exprs.extend(order_by.iter().map(|by| &by.expr));
        exprs.extend(&ast.having);
        let by = match &ast.group_by {
            GroupByExpr::Expressions(by, modifiers) if modifiers.is_empty() => by.as_slice(),
            _ => return Err(Unjudged::construct("GROUP BY ALL")),
        };
        let is_grouped = !by.is_empty() || ast.having.is_some() || exprs.iter().any(|expr| has_aggregates(expr));
        let output = Output {
            names: &names,
            shown: &shown,
            order_by,
            distinct: ast.distinct.as_ref(),
        };
        if !is_grouped {
            let windows = Windows {
                base: scope.columns.len(),
                calls: RefCell::default(),
                named: ast.named_window.clone(),
            };
            let binder = Binder {
                windows: Some(&windows),
                ..rows
            };
            let (outputs, unnested, distinct, columns, order) = output.bind(&binder)?;
            let select = Select {
                joined,
                grouping: None,
                windows: windows.calls.into_inner(),
                outputs,
                unnested,
                distinct,
                visible: columns.len(),
                budget: self.budget.clone(),
            };
            return Ok((select, columns, order));
        }
        // A bare name means a column of FROM if there is one, otherwise a column of the projection.
        let meant = |expr: &Expr| -> Expr {
            let at = match expr {
                Expr::Identifier(name) if scope.position(&[spelled(name)]).ok().flatten().is_some() => None,
                Expr::Identifier(name) => names.iter().position(|known| *known == spelled(name)),
                Expr::Value(value) => match &value.value {
                    ast::Value::Number(text, _) => text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)),
                    _ => None,
                },
                _ => None,
            };
            match at.and_then(|at| shown.get(at)) {
                Some(ProjectionItem::Expr(shown)) => shown.as_ref().clone(),
                _ => expr.clone(),
            }
        };
        let (by, sets) = elements(by, &meant, &scope)?;
        let mut grouped = vec![None; scope.columns.len()];
        let (mut group_exprs, mut group_shapes) = (vec![], vec![]);
        for (at, expr) in by.iter().enumerate() {
            let bound = rows.bind(expr)?;
            if let Term::Column(column) = bound.ex {
                grouped[column].get_or_insert(at);
            }
            group_exprs.push(bound.ex);
            group_shapes.push((shape(expr, &scope), bound.of));
        }
        let group_scope = Scope {
            columns: scope.columns.clone(),
            grouped: Some(grouped),
            parent,
            depth,
            trace: &self.trace,
        };
        let groups = GroupScope {
            by: group_shapes,
            rows: &scope,
            calls: RefCell::default(),
        };
        // The windows' columns come after the aggregates', whose number is known only when everything is bound: so
        // binding repeats until it is stable.
        loop {
            let before = groups.calls.borrow().len();
            let windows = Windows {
                base: groups.by.len() + before,
                calls: RefCell::default(),
                named: ast.named_window.clone(),
            };
            let plain = Binder {
                planner: self,
                scope: &group_scope,
                ctes,
                groups: Some(&groups),
                windows: None,
            };
            let having = ast.having.as_ref().map(|having| plain.condition(having)).transpose()?;
            let binder = Binder {
                windows: Some(&windows),
                ..plain
            };
            let (outputs, unnested, distinct, columns, order) = output.bind(&binder)?;
            if groups.calls.borrow().len() > before {
                continue;
            }
            let calls = groups.calls.into_inner().into_iter().map(|(_, call, _)| call).collect();
            let select = Select {
                joined,
                grouping: Some(Grouping {
                    by: group_exprs,
                    sets,
                    calls,
                    having,
                }),
                windows: windows.calls.into_inner(),
                outputs,
                unnested,
                distinct,
                visible: columns.len(),
                budget: self.budget.clone(),
            };
            return Ok((select, columns, order));
        }
    }
}

/// The projection of a SELECT, and the clauses that refer to it.
struct Output<'a> {
    names: &'a [String],
    shown: &'a [ProjectionItem],
    order_by: &'a [OrderByExpr],
    distinct: Option<&'a Distinct>,
}

type BoundOutput = (
    Vec<Term>,
    Option<usize>,
    DistinctMode,
    Vec<(String, TypedTerm)>,
    Vec<(usize, SortDirection)>,
);

impl Output<'_> {
    fn bind(&self, binder: &Binder<'_>) -> Result<BoundOutput, Unjudged> {
        let mut unnested = None;
        let mut columns: Vec<(String, TypedTerm)> = vec![];
        for (name, shown) in self.names.iter().zip(self.shown) {
            let bound = match shown {
                ProjectionItem::Column(at) => {
                    let column = &binder.scope.columns[*at];
                    let place = match &binder.scope.grouped {
                        Some(grouped) => grouped[*at].ok_or_else(|| Unjudged::Name(column.name.clone()))?,
                        None => *at,
                    };
                    TypedTerm::new(Term::Column(place), column.of.clone())
                }
                ProjectionItem::Expr(expr) => match unnest(expr) {
                    Some(list) if unnested.is_none() => {
                        unnested = Some(columns.len());
                        let list = binder.bind(list)?;
                        let ScalarType::Arrow(arrow::datatypes::DataType::List(item)) = &list.of else {
                            return Err(Unjudged::construct("unnest() of what is no list"));
                        };
                        let of = super::arrow::type_of(item.data_type());
                        TypedTerm::new(list.ex, of)
                    }
                    Some(_) => return Err(Unjudged::construct("several unnest()")),
                    None => binder.bind(expr)?,
                },
            };
            columns.push((name.clone(), bound));
        }
        let mut outputs: Vec<Term> = columns.iter().map(|(_, bound)| bound.ex.clone()).collect();
        let mut place = |expr: &Expr| -> Result<usize, Unjudged> {
            if let Some(at) = output(expr, &columns) {
                return Ok(at);
            }
            if let Some(at) = self
                .shown
                .iter()
                .position(|shown| matches!(shown, ProjectionItem::Expr(known) if known.as_ref() == expr))
            {
                return Ok(at);
            }
            outputs.push(binder.bind(expr)?.ex);
            Ok(outputs.len() - 1)
        };
        let mut order = vec![];
        for by in self.order_by {
            order.push((place(&by.expr)?, SortDirection::new(&by.options)));
        }
        let distinct = match self.distinct {
            None | Some(Distinct::All) => DistinctMode::All,
            Some(Distinct::Distinct) if order.iter().all(|(at, _)| *at < columns.len()) => DistinctMode::Distinct,
            Some(Distinct::Distinct) => return Err(Unjudged::construct("DISTINCT by an order that is not shown")),
            Some(Distinct::On(all)) => {
                let on = all.iter().map(&mut place).collect::<Result<_, _>>()?;
                DistinctMode::First(on, order.clone())
            }
        };
        Ok((outputs, unnested, distinct, columns, order))
    }
}

/// The conditions that AND connects.
pub fn conjuncts<'e>(expr: &'e Expr, found: &mut Vec<&'e Expr>) {
    match expr {
        Expr::Nested(inner) => conjuncts(inner, found),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            conjuncts(left, found);
            conjuncts(right, found);
        }
        other => found.push(other),
    }
}

fn unnest(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Function(call) if call.over.is_none() && call.name.to_string().eq_ignore_ascii_case("unnest") => {
            match &call.args {
                ast::FunctionArguments::List(list) if list.args.len() == 1 => super::calls::argument(&list.args[0]),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The projection, with the names of its columns; `*` is expanded.
fn expand_projection(
    projection: &[SelectItem],
    scope: &Scope<'_>,
) -> Result<(Vec<String>, Vec<ProjectionItem>), Unjudged> {
    let (mut names, mut all) = (vec![], vec![]);
    for item in projection {
        let mut star = |is: &dyn Fn(&ScopeColumn) -> bool| {
            for (at, column) in scope.columns.iter().enumerate().filter(|(_, column)| is(column)) {
                names.push(column.name.clone());
                all.push(ProjectionItem::Column(at));
            }
        };
        match item {
            SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)
                if *options != ast::WildcardAdditionalOptions::default() =>
            {
                return Err(Unjudged::construct("* with EXCEPT, REPLACE or RENAME"));
            }
            SelectItem::Wildcard(_) => star(&|column| column.open),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(table), _) => {
                let table = table.0.last().and_then(|part| part.as_ident()).map(spelled);
                star(&|column| column.table == table);
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                names.push(spelled(alias));
                all.push(ProjectionItem::Expr(Box::new(expr.clone())));
            }
            SelectItem::UnnamedExpr(expr) => {
                names.push(name_of(expr));
                all.push(ProjectionItem::Expr(Box::new(expr.clone())));
            }
            other => return Err(Unjudged::construct(format!("{other} in SELECT"))),
        }
    }
    Ok((names, all))
}

/// The column name of an expression without an alias.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => spelled(name),
        Expr::CompoundIdentifier(parts) => parts.last().map(spelled).unwrap_or_default(),
        Expr::Nested(inner) => name_of(inner),
        Expr::Function(call) => call.name.to_string().to_lowercase(),
        _ => types::NAMELESS.to_string(),
    }
}

impl Select {
    /// The rows, for a row of the enclosing query: the projected values, then the sort keys.
    pub fn rows(&self, parent: Option<&RowEnv<'_>>) -> Result<Vec<ScalarRow>, Unjudged> {
        let mut rows = self.joined.rows(parent)?;
        if let Some(grouping) = &self.grouping {
            rows = grouping.rows(&rows, parent)?;
        }
        let windows = self
            .windows
            .iter()
            .map(|window| window.values(&rows, parent, &self.budget));
        let windows = windows.collect::<Result<Vec<_>, _>>()?;
        for values in windows {
            rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
        }
        let mut shown = Vec::with_capacity(rows.len());
        for row in &rows {
            let env = RowEnv { row, parent };
            let row = self
                .outputs
                .iter()
                .map(|ex| ex.eval(&env))
                .collect::<Result<ScalarRow, _>>()?;
            match self.unnested {
                None => shown.push(row),
                Some(at) => {
                    for item in items(&row[at])? {
                        let mut row = row.clone();
                        row[at] = item;
                        shown.push(row);
                    }
                }
            }
        }
        self.budget.spend(shown.len())?;
        match &self.distinct {
            DistinctMode::All => Ok(shown),
            DistinctMode::Distinct => {
                let mut seen = HashSet::new();
                shown.retain(|row| seen.insert(key_of(row)));
                Ok(shown)
            }
            DistinctMode::First(on, by) => first(shown, on, by, self.visible),
        }
    }
}

/// The first row of each set of rows that agree in `on`; if several rows are first, they must be equal.
fn first(
    mut rows: Vec<ScalarRow>,
    on: &[usize],
    by: &[(usize, SortDirection)],
    visible: usize,
) -> Result<Vec<ScalarRow>, Unjudged> {
    let ways: Vec<SortDirection> = by.iter().map(|(_, way)| *way).collect();
    let place = |row: &ScalarRow| -> Vec<Scalar> { by.iter().map(|(at, _)| row[*at].clone()).collect() };
    rows.sort_by(|a, b| order::compare(&ways, &place(a), &place(b)));
    let mut firsts: std::collections::HashMap<Vec<u8>, ScalarRow> = std::collections::HashMap::new();
    let mut all = vec![];
    for row in rows {
        let key = key_of(on.iter().map(|at| &row[*at]));
        match firsts.get(&key) {
            None => {
                firsts.insert(key, row.clone());
                all.push(row);
            }
            Some(first) => {
                let tied = order::compare(&ways, &place(first), &place(&row)) == Ordering::Equal;
                if tied && key_of(&first[..visible]) != key_of(&row[..visible]) {
                    return Err(Unjudged::Ties("DISTINCT ON"));
                }
            }
        }
    }
    Ok(all)
}

/// The items of a list.
fn items(list: &Scalar) -> Result<Vec<Scalar>, Unjudged> {
    match list {
        Scalar::Null => Ok(vec![]),
        Scalar::Arrow(scalar) => match scalar.as_ref() {
            datafusion::common::ScalarValue::List(list) => super::arrow::values(&list.value(0)),
            other => Err(Unjudged::construct(format!("unnest() of a {}", other.data_type()))),
        },
        _ => Err(Unjudged::construct("unnest() of what is no list")),
    }
}
