//! Checks the form of recursive queries. Allowed is what PostgreSQL allows, except for steps that are not
//! linear in the rows of the round before.
//!
//! 1. The form is `base UNION [ALL] step`: the base does not name the query, and the step names it once.
//! 2. The step does not name it in a subquery of an expression, on the side of an outer join that may become
//!    nulls, or in EXCEPT or INTERSECT: there the effect of a row would depend on the other rows of its round.
//! 3. For the same reason a step neither groups, ranks nor limits rows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, Distinct, Expr, GroupByExpr, Ident, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SetExpr,
    SetOperator, SetQuantifier, Spanned, TableFactor, TableWithJoins, Visit, Visitor, With,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use crate::plan::error::Refusal;

/// The parts of a recursive query.
pub(super) struct RecursiveParts {
    /// The rows of the first round.
    pub base: Query,
    /// The rows that a round yields from those of the round before.
    pub step: Query,
    /// Whether each row is kept once: UNION without ALL.
    pub distinct: bool,
}

/// A name as SQL compares names: unquoted ones are in lower case.
pub(super) fn named(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The places at which a query, or a part of one, names a relation.
pub(super) fn references(sql: &impl Visit, name: &str) -> Vec<Span> {
    struct References<'a> {
        name: &'a str,
        /// For each enclosing query, whether its own WITH hides the name.
        hidden: Vec<bool>,
        spans: Vec<Span>,
    }
    impl Visitor for References<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.hidden.push(defines(query, self.name));
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.hidden.pop();
            ControlFlow::Continue(())
        }

        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            if !self.hidden.contains(&true) && is_of(relation, self.name) {
                self.spans.push(relation.span());
            }
            ControlFlow::Continue(())
        }
    }
    let mut references = References {
        name,
        hidden: vec![],
        spans: vec![],
    };
    let _ = sql.visit(&mut references);
    references.spans
}

fn is_of(relation: &ObjectName, name: &str) -> bool {
    matches!(relation.0.as_slice(), [ObjectNamePart::Identifier(ident)] if named(ident) == name)
}

fn defines(query: &Query, name: &str) -> bool {
    let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
    ctes.into_iter().any(|cte| named(&cte.alias.name) == name)
}

/// Sorts the queries of a WITH RECURSIVE, where they may stand in any order, so that each comes after those
/// that it reads.
pub(super) fn sort(with: &mut With) -> Result<(), Refusal> {
    let names: Vec<String> = with.cte_tables.iter().map(|cte| named(&cte.alias.name)).collect();
    let reads = |cte: &Cte| {
        let others = names.iter().filter(|name| **name != named(&cte.alias.name));
        others
            .filter(|name| !references(cte.query.as_ref(), name).is_empty())
            .cloned()
            .collect::<Vec<_>>()
    };
    let mut pending: Vec<(Cte, Vec<String>)> = with.cte_tables.drain(..).map(|cte| (cte, vec![])).collect();
    pending.iter_mut().for_each(|(cte, others)| *others = reads(cte));
    let mut done = BTreeSet::new();
    while !pending.is_empty() {
        let next = pending
            .iter()
            .position(|(_, others)| others.iter().all(|name| done.contains(name)));
        let Some(next) = next else {
            let stuck = |name: &&String| !done.contains(*name);
            let (first, others) = &pending[0];
            let other = others.iter().find(stuck).cloned().unwrap_or_default();
            let name = &first.alias.name;
            return Err(Refusal::new(format!(
                "could not plan {:?} and {other:?}: they read each other",
                named(name)
            ))
            .help("make one recursive query of both, with a column that tells which of them a row is of")
            .at(Some(name.span)));
        };
        let (cte, _) = pending.remove(next);
        done.insert(named(&cte.alias.name));
        with.cte_tables.push(cte);
    }
    Ok(())
}

/// The parts of a query that names itself. `is_aggregate` tells whether a function is an aggregate, by its name.
pub(super) fn parts(cte: &Cte, is_aggregate: &dyn Fn(&str) -> bool) -> Result<RecursiveParts, Refusal> {
    let name = named(&cte.alias.name);
    let refused = |reason: &str| Refusal::new(format!("could not plan the recursive query {name:?}: {reason}"));
    let query = cte.query.as_ref();
    let form = || {
        refused("it is no UNION of a part that does not read it and one that does")
            .help(format!(
                "write WITH RECURSIVE {name} AS (SELECT ... UNION ALL SELECT ... FROM {name} ...)"
            ))
            .at(Some(cte.alias.name.span))
    };
    let SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier,
        ..
    } = query.body.as_ref()
    else {
        return Err(form());
    };
    let distinct = match set_quantifier {
        SetQuantifier::All => false,
        SetQuantifier::None | SetQuantifier::Distinct => true,
        _ => return Err(form()),
    };
    if let Some(what) = ends(query) {
        return Err(refused(&format!("{what} would be of the rows of every round"))
            .help(format!("write it where {name} is read"))
            .near(what));
    }
    let mut operands = vec![];
    chain(&query.body, *set_quantifier, &mut operands);
    let step = operands.pop().expect("a UNION has two sides");
    for operand in &operands {
        if let Some(place) = references(*operand, &name).first() {
            let help = match references(step, &name).is_empty() {
                true => "put the part that reads it last",
                false => {
                    "join it once, with a UNION ALL of what the recursive parts join: FROM r JOIN (SELECT ... UNION ALL SELECT ...) AS t ON ..."
                }
            };
            return Err(refused("a part before the last one reads it")
                .help(help)
                .at(Some(*place)));
        }
    }
    let mut walker = StepWalker {
        name: &name,
        distinct,
        is_aggregate,
        references: vec![],
        refused: &refused,
    };
    walker.set(step, ReferencePlace::Plain)?;
    if let Some((place, _)) = walker.references.get(1) {
        return Err(refused("its recursive part reads it more than once")
            .help("read it once; what is to be joined with itself can be joined where the query is read")
            .at(Some(*place)));
    }
    let base = operands
        .into_iter()
        .cloned()
        .reduce(|left, right| SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier: *set_quantifier,
            left: Box::new(left),
            right: Box::new(right),
        });
    let mut step = step.clone();
    if distinct {
        without_distinct(&mut step);
    }
    let part = |body: SetExpr| Query {
        body: Box::new(body),
        ..query.clone()
    };
    Ok(RecursiveParts {
        base: part(base.expect("a UNION has two sides")),
        step: part(step),
        distinct,
    })
}

/// Removes the DISTINCT of a step if UNION removes duplicates anyway. A step with DISTINCT would be planned as
/// a test for existence; without it, it is a join.
fn without_distinct(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) if matches!(select.distinct, Some(Distinct::Distinct)) => select.distinct = None,
        SetExpr::Query(query) => without_distinct(&mut query.body),
        SetExpr::SetOperation {
            op: SetOperator::Union,
            left,
            right,
            ..
        } => {
            without_distinct(left);
            without_distinct(right);
        }
        _ => {}
    }
}

/// The operands of a chain of UNIONs of one kind.
fn chain<'a>(body: &'a SetExpr, of: SetQuantifier, operands: &mut Vec<&'a SetExpr>) {
    match body {
        SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier,
            left,
            right,
        } if *set_quantifier == of => {
            chain(left, of, operands);
            chain(right, of, operands);
        }
        body => operands.push(body),
    }
}

/// The clause after a query's body that keeps it from being linear: ORDER BY, FETCH or LIMIT.
fn ends(query: &Query) -> Option<&'static str> {
    if query.order_by.is_some() {
        return Some("ORDER BY");
    }
    if query.fetch.is_some() {
        return Some("FETCH");
    }
    query.limit_clause.is_some().then_some("LIMIT")
}

/// The kind of place at which a recursive query is named.
#[derive(Clone, Copy, PartialEq)]
enum ReferencePlace {
    Plain,
    /// Where an outer join may replace its rows by nulls.
    Outer,
}

struct StepWalker<'a> {
    name: &'a str,
    distinct: bool,
    is_aggregate: &'a dyn Fn(&str) -> bool,
    references: Vec<(Span, ReferencePlace)>,
    refused: &'a dyn Fn(&str) -> Refusal,
}

impl StepWalker<'_> {
    fn query(&mut self, query: &Query, place: ReferencePlace) -> Result<(), Refusal> {
        if defines(query, self.name) {
            return Ok(());
        }
        if let (Some(what), Some(at)) = (ends(query), references(query, self.name).first()) {
            return Err((self.refused)(&format!("its recursive part has {what}"))
                .help(format!("write {what} where {} is read", self.name))
                .at(Some(*at)));
        }
        let recursive = query.with.iter().filter(|with| with.recursive);
        for cte in recursive.flat_map(|with| &with.cte_tables) {
            if let Some(at) = references(cte.query.as_ref(), self.name).first() {
                return Err(
                    (self.refused)("its recursive part reads it in a WITH RECURSIVE of its own")
                        .help("put that query in front of this one, over the tables themselves, and join it")
                        .at(Some(*at)),
                );
            }
        }
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.query(&cte.query, place)?;
        }
        self.set(&query.body, place)
    }

    fn set(&mut self, body: &SetExpr, place: ReferencePlace) -> Result<(), Refusal> {
        match body {
            SetExpr::Select(select) => self.select(select, place),
            SetExpr::Query(query) => self.query(query, place),
            SetExpr::SetOperation {
                op: SetOperator::Union,
                set_quantifier,
                left,
                right,
            } if self.distinct || *set_quantifier == SetQuantifier::All => {
                self.set(left, place)?;
                self.set(right, place)
            }
            body @ SetExpr::SetOperation { op, .. } => match references(body, self.name).first() {
                None => Ok(()),
                Some(at) => {
                    let help = match op {
                        SetOperator::Except => "filter with NOT EXISTS (SELECT ...)",
                        SetOperator::Intersect => "filter with EXISTS (SELECT ...)",
                        _ => "write UNION ALL there, or UNION in front of the recursive part",
                    };
                    Err((self.refused)(&format!("its recursive part reads it within {op}"))
                        .help(help)
                        .at(Some(*at)))
                }
            },
            _ => Ok(()),
        }
    }

    fn select(&mut self, select: &Select, place: ReferencePlace) -> Result<(), Refusal> {
        let before = self.references.len();
        for part in &select.from {
            self.joined(part, place)?;
        }
        let here: Vec<Span> = self.references[before..].iter().map(|(span, _)| *span).collect();
        if let Some(at) = references(select, self.name).iter().find(|at| !here.contains(at)) {
            return Err((self.refused)("its recursive part reads it in a subquery")
                .help(format!("join {}: FROM {} JOIN ... ON ...", self.name, self.name))
                .at(Some(*at)));
        }
        if here.is_empty() {
            return Ok(());
        }
        self.row_by_row(select)
    }

    /// Refuses a SELECT that violates (3).
    fn row_by_row(&self, select: &Select) -> Result<(), Refusal> {
        let grouped = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(groups, _) => !groups.is_empty(),
        };
        let later = format!(
            "do so where {} is read, or in a table that its recursive part joins",
            self.name
        );
        if grouped || select.having.is_some() {
            return Err((self.refused)("its recursive part groups rows")
                .help(later)
                .near("GROUP"));
        }
        match &select.distinct {
            Some(Distinct::On(_)) => {
                return Err((self.refused)("its recursive part has DISTINCT ON")
                    .help(later)
                    .near("DISTINCT"));
            }
            Some(Distinct::Distinct) if !self.distinct => {
                return Err((self.refused)("its recursive part has DISTINCT")
                    .help("write UNION in the place of UNION ALL, which keeps each row once")
                    .near("DISTINCT"));
            }
            _ => {}
        }
        let mut calls = Calls {
            is_aggregate: self.is_aggregate,
            deep: 0,
            call: None,
        };
        let _ = select.projection.visit(&mut calls);
        let _ = select.qualify.visit(&mut calls);
        match calls.call {
            None => Ok(()),
            Some((call, at)) => Err((self.refused)(&format!("its recursive part has {call}"))
                .help(later)
                .at(Some(at))),
        }
    }

    fn joined(&mut self, part: &TableWithJoins, place: ReferencePlace) -> Result<(), Refusal> {
        let nulls_left = |operator: &JoinOperator| {
            matches!(
                operator,
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
            )
        };
        let nulls_right = |operator: &JoinOperator| {
            matches!(
                operator,
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) | JoinOperator::FullOuter(_)
            )
        };
        let within = |outer: bool| if outer { ReferencePlace::Outer } else { place };
        let operators: Vec<&JoinOperator> = part.joins.iter().map(|join| &join.join_operator).collect();
        let any_left = |from: usize| operators[from..].iter().any(|operator| nulls_left(operator));
        self.factor(&part.relation, within(any_left(0)))?;
        for (index, join) in part.joins.iter().enumerate() {
            let outer = nulls_right(&join.join_operator) || any_left(index + 1);
            self.factor(&join.relation, within(outer))?;
        }
        Ok(())
    }

    fn factor(&mut self, factor: &TableFactor, place: ReferencePlace) -> Result<(), Refusal> {
        match factor {
            TableFactor::Table { name, .. } if is_of(name, self.name) => {
                if place == ReferencePlace::Outer {
                    return Err(
                        (self.refused)("its recursive part reads it where an outer join may put nulls")
                            .help(format!("have it on the other side: FROM {} LEFT JOIN ...", self.name))
                            .at(Some(name.span())),
                    );
                }
                self.references.push((name.span(), place));
                Ok(())
            }
            TableFactor::Derived { subquery, .. } => self.query(subquery, place),
            TableFactor::NestedJoin { table_with_joins, .. } => self.joined(table_with_joins, place),
            _ => Ok(()),
        }
    }
}

/// Finds a call of an aggregate or window function outside of subqueries.
struct Calls<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
    deep: usize,
    call: Option<(String, Span)>,
}

impl Visitor for Calls<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.deep += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.deep -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else {
            return ControlFlow::Continue(());
        };
        let name = function.name.to_string().to_lowercase();
        let what = match (&function.over, (self.is_aggregate)(&name)) {
            (Some(_), _) => format!("the window function {name}()"),
            (None, true) => format!("the aggregate {name}()"),
            (None, false) => return ControlFlow::Continue(()),
        };
        if self.deep > 0 {
            return ControlFlow::Continue(());
        }
        self.call = Some((what, function.name.span()));
        ControlFlow::Break(())
    }
}

/// Refuses the clauses SEARCH and CYCLE, which the parser does not know.
pub(in crate::plan) fn search_or_cycle(tokens: &[TokenWithSpan]) -> Result<(), Refusal> {
    let mut tokens = tokens
        .iter()
        .filter(|t| !matches!(t.token, Token::Whitespace(_)))
        .peekable();
    let word = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        _ => String::new(),
    };
    let mut recursive = false;
    while let Some(token) = tokens.next() {
        recursive |= word(token) == "RECURSIVE";
        let Some(next) = tokens.peek() else { break };
        if !recursive {
            continue;
        }
        if token.token == Token::RParen && word(next) == "CYCLE" {
            return Err(Refusal::new("could not plan CYCLE")
                .help("write UNION, with which cycles end, or a column that holds the path: WHERE path NOT LIKE '%/' || t.id || '/%'")
                .at(Some(next.span)));
        }
        if word(token) == "SEARCH" && matches!(word(next).as_str(), "DEPTH" | "BREADTH") {
            return Err(Refusal::new("could not plan SEARCH: a table has no order")
                .help("make a column of it: the depth as 0 and depth + 1, or the path as text")
                .at(Some(token.span)));
        }
    }
    Ok(())
}
