//! Binds calls: of window functions, aggregates, and functions of a single row's values.

use datafusion::sql::sqlparser::ast::{self, Expr, Ident};

use super::bind::{Binder, shape};
use super::expr::{Term, TypedTerm};
use super::trust::Unjudged;
use super::{aggregate, operators, window};

impl Binder<'_> {
    /// Binds a call, by the kind of its function.
    pub fn function(&self, call: &ast::Function) -> Result<TypedTerm, Unjudged> {
        let name = call.name.to_string().to_lowercase();
        if call.over.is_some() {
            let Some(windows) = self.windows else {
                return Err(Unjudged::construct("a window function where there is no window"));
            };
            let inner = Binder { windows: None, ..*self };
            let (window, of) = window::bind(&inner, windows, &name, call)?;
            let mut calls = windows.calls.borrow_mut();
            calls.push(window);
            return Ok(TypedTerm::new(Term::Column(windows.base + calls.len() - 1), of));
        }
        if aggregate::is_one(&name) {
            let Some(groups) = self.groups else {
                return Err(Unjudged::construct(format!("{name}() where there are no groups")));
            };
            let shape = shape(&Expr::Function(call.clone()), groups.rows);
            let known = groups.calls.borrow().iter().position(|(known, _, _)| *known == shape);
            if let Some(at) = known {
                let of = groups.calls.borrow()[at].2.clone();
                return Ok(TypedTerm::new(Term::Column(groups.by.len() + at), of));
            }
            let inner = Binder {
                groups: None,
                windows: None,
                scope: groups.rows,
                ..*self
            };
            let (made, of) = aggregate::bind(&inner, &name, call)?;
            let mut calls = groups.calls.borrow_mut();
            calls.push((shape, made, of.clone()));
            return Ok(TypedTerm::new(Term::Column(groups.by.len() + calls.len() - 1), of));
        }
        let of = arguments(call)?;
        match (name.as_str(), of.as_slice()) {
            ("now" | "current_timestamp" | "current_date", []) => {
                let name = Ident::new(name.as_str());
                self.planner
                    .moment(&name)
                    .ok_or_else(|| Unjudged::construct(format!("{name}()")))
            }
            ("date_part", [Expr::Value(field), of]) => {
                let ast::Value::SingleQuotedString(field) = &field.value else {
                    return Err(Unjudged::construct("date_part() of a field that is computed"));
                };
                operators::extract(field, self.bind(of)?)
            }
            ("row", _) => Err(Unjudged::construct("a row as a value")),
            (name, of) => self.planner.call(name, self.all(of)?),
        }
    }
}

/// The arguments of a call without further clauses.
pub fn arguments(call: &ast::Function) -> Result<Vec<Expr>, Unjudged> {
    let unknown = || Unjudged::construct(format!("the call {call}"));
    if call.filter.is_some() || !call.within_group.is_empty() || call.null_treatment.is_some() {
        return Err(unknown());
    }
    match &call.args {
        ast::FunctionArguments::None => Ok(vec![]),
        ast::FunctionArguments::List(list) if list.clauses.is_empty() && list.duplicate_treatment.is_none() => list
            .args
            .iter()
            .map(|arg| argument(arg).cloned().ok_or_else(unknown))
            .collect(),
        _ => Err(unknown()),
    }
}

/// The expression of an argument, if it is a plain one.
pub fn argument(arg: &ast::FunctionArg) -> Option<&Expr> {
    match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}
