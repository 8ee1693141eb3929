//! Functions that yield rows, in FROM and in a SELECT list.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, SelectItem, Spanned,
    TableAlias, TableFactor, Value, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::plan::error::Refusal;
use crate::plan::syntax::{binary, call, derived, number, select};

/// The table functions that FROM supports, apart from window table functions.
pub(in crate::plan) const NAMES: [&str; 6] = [
    "unnest",
    "generate_series",
    "generate_subscripts",
    "range",
    "string_to_table",
    "regexp_split_to_table",
];

fn plain_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|name| name.value.to_lowercase()),
        _ => None,
    }
}

/// A call of a table function in FROM.
pub(in crate::plan) struct TableFunction {
    function: Ident,
    lists: Vec<Expr>,
    alias: Option<TableAlias>,
    /// For a column that numbers the rows: its name, if it has one, and the first number.
    numbered_from: Option<(Option<Ident>, FirstNumber)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstNumber {
    /// WITH ORDINALITY, from 1.
    FromOne,
    /// WITH OFFSET, from 0.
    FromZero,
}

impl TableFunction {
    /// The call that an item of FROM is, if it is one.
    pub fn from_factor(table: &TableFactor) -> Option<TableFunction> {
        let ordinality = |with: bool| with.then_some((None, FirstNumber::FromOne));
        match table {
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias,
                with_ordinality,
            } => Some(TableFunction {
                function: Ident::with_span(array_exprs.first()?.span(), "unnest"),
                lists: array_exprs.clone(),
                alias: alias.clone(),
                numbered_from: match with_offset {
                    true => Some((with_offset_alias.clone(), FirstNumber::FromZero)),
                    false => ordinality(*with_ordinality),
                },
            }),
            TableFactor::Table {
                name,
                alias,
                args: Some(args),
                with_ordinality,
                ..
            } => TableFunction::called(name, &args.args, alias, ordinality(*with_ordinality)),
            TableFactor::Function {
                name,
                args,
                with_ordinality,
                alias,
                ..
            } => TableFunction::called(name, args, alias, ordinality(*with_ordinality)),
            TableFactor::TableFunction {
                expr: Expr::Function(function),
                alias,
            } => match &function.args {
                FunctionArguments::List(list) => TableFunction::called(&function.name, &list.args, alias, None),
                _ => None,
            },
            _ => None,
        }
    }

    fn called(
        name: &ObjectName,
        args: &[FunctionArg],
        alias: &Option<TableAlias>,
        numbered_from: Option<(Option<Ident>, FirstNumber)>,
    ) -> Option<TableFunction> {
        let plain = plain_name(name)?;
        let span = name.span();
        Some(TableFunction {
            lists: lists(&plain, &plain_arguments(args)?, span)?,
            function: Ident::with_span(span, plain),
            alias: alias.clone(),
            numbered_from,
        })
    }

    /// Whether it is `generate_series` or `range` with constant arguments.
    pub fn is_series(&self) -> bool {
        let name = self.function.value.to_lowercase();
        matches!(name.as_str(), "generate_series" | "range") && self.numbered_from.is_none() && self.is_constant()
    }

    /// Whether its arguments have no columns.
    pub fn is_constant(&self) -> bool {
        struct Columns;
        impl Visitor for Columns {
            type Break = ();

            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                match expr {
                    Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        self.lists.iter().all(|list| list.visit(&mut Columns).is_continue())
    }

    /// The subquery for which the call stands. With `optional`, lists without items yield one row of nulls.
    pub fn into_subquery(self, lateral: bool, optional: bool) -> Result<TableFactor, Refusal> {
        let span = self.function.span;
        let columns = self.columns()?;
        let own = |name: &str, args: &[Expr]| Expr::Function(call(Ident::with_span(span, name), args.to_vec()));
        let mut values = self.lists.clone();
        if let Some((_, numbered_from)) = &self.numbered_from {
            let positions = match optional {
                true => own("list_positions_or_null", &self.lists),
                false => own("list_positions", &self.lists),
            };
            values.push(own("unnest", &[positions]));
            if *numbered_from == FirstNumber::FromZero {
                let last = values.pop().expect("it was pushed");
                values.push(binary(last, BinaryOperator::Minus, number(1)));
            }
        } else if optional {
            // With `list_or_null` the first list has an item where all lists are empty, so that there is a row.
            values[0] = own("list_or_null", &self.lists);
        }
        for value in values.iter_mut().take(self.lists.len()) {
            *value = own("unnest", std::slice::from_ref(value));
        }
        let item = |(expr, alias): (Expr, &Ident)| SelectItem::ExprWithAlias {
            expr,
            alias: alias.clone(),
        };
        let items = values.into_iter().zip(&columns).map(item).collect();
        let name = self.alias.map_or(self.function, |alias| alias.name);
        Ok(derived(select(items, vec![]), lateral, name, columns))
    }

    /// The names of the call's columns.
    fn columns(&self) -> Result<Vec<Ident>, Refusal> {
        let count = self.lists.len() + usize::from(self.numbered_from.is_some());
        let given: Vec<Ident> = self
            .alias
            .iter()
            .flat_map(|alias| alias.columns.iter().map(|c| c.name.clone()))
            .collect();
        let at = Some(given.get(count).map_or(self.function.span, |name| name.span));
        if given.len() > count {
            return Err(Refusal::new(format!(
                "could not name {} columns of {}(): it has {count}",
                given.len(),
                self.function.value
            ))
            .help("give it as many names as it has columns, one for each list, and one more WITH ORDINALITY")
            .at(at));
        }
        let own = match &self.alias {
            Some(alias) if self.lists.len() == 1 => alias.name.clone(),
            _ => self.function.clone(),
        };
        let counter = match &self.numbered_from {
            Some((Some(name), _)) => name.clone(),
            Some((None, FirstNumber::FromZero)) => Ident::new("offset"),
            _ => Ident::new("ordinality"),
        };
        let default = |n: usize| {
            if n < self.lists.len() {
                own.clone()
            } else {
                counter.clone()
            }
        };
        let unnamed = self.lists.len().saturating_sub(given.len());
        if unnamed > 1 {
            return Err(Refusal::new(format!(
                "could not name {unnamed} columns {:?}: {}() has one for each list",
                own.value, self.function.value
            ))
            .help("name them: unnest(a, b) AS u(x, y)")
            .at(Some(self.function.span)));
        }
        Ok((0..count)
            .map(|n| given.get(n).cloned().unwrap_or_else(|| default(n)))
            .collect())
    }
}

/// The arguments of a call; `None` if one of them is named or a wildcard.
fn plain_arguments(args: &[FunctionArg]) -> Option<Vec<Expr>> {
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(of)) => Some(of.clone()),
        _ => None,
    };
    args.iter().map(plain).collect()
}

/// The lists whose items a function yields.
fn lists(name: &str, args: &[Expr], span: Span) -> Option<Vec<Expr>> {
    let list = |name: &str, args: &[Expr]| vec![Expr::Function(call(Ident::with_span(span, name), args.to_vec()))];
    Some(match (name, args) {
        (_, []) => return None,
        ("unnest", lists) => lists.to_vec(),
        ("generate_series" | "range", args) => list(name, args),
        ("string_to_table", args) => list("string_to_array", args),
        ("regexp_split_to_table", args) => list("regexp_split_to_array", args),
        ("generate_subscripts", [of, dimension]) if is_one(dimension) => {
            list("list_positions", std::slice::from_ref(of))
        }
        _ => return None,
    })
}

fn is_one(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(&value.value, Value::Number(n, _) if n == "1"))
}

/// Rewrites such functions in a SELECT list as `unnest` of their lists. `range` is a list there, and arguments
/// of other functions stay as they are.
pub(super) fn in_select(expr: &mut Expr) {
    match expr {
        Expr::Function(function) => {
            let Some(name) = plain_name(&function.name) else { return };
            let FunctionArguments::List(args) = &function.args else {
                return;
            };
            if function.over.is_some() || !NAMES.contains(&name.as_str()) || matches!(name.as_str(), "unnest" | "range")
            {
                return;
            }
            let span = function.name.span();
            if let Some(list) = plain_arguments(&args.args).and_then(|args| lists(&name, &args, span)) {
                *expr = Expr::Function(call(Ident::with_span(span, "unnest"), list));
            }
        }
        Expr::BinaryOp { left, right, .. } => {
            in_select(left);
            in_select(right);
        }
        Expr::UnaryOp { expr, .. } | Expr::Nested(expr) | Expr::Cast { expr, .. } => in_select(expr),
        _ => {}
    }
}
