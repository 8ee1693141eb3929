//! ASOF JOIN joins to each row the one row of another table that is nearest to it.
//!
//! ```text
//! t ASOF JOIN u ON t.k = u.k AND t.ts >= u.ts
//! t CROSS JOIN LATERAL (SELECT * FROM u WHERE t.k = u.k AND t.ts >= u.ts ORDER BY u.ts DESC LIMIT 1) AS u
//! ```
//!
//! ASOF LEFT JOIN becomes LEFT JOIN LATERAL, and so does Snowflake's `ASOF JOIN u MATCH_CONDITION (t.ts >=
//! u.ts) ON t.k = u.k`. Where several rows are equally near, their other columns decide, as for every LIMIT.
//!
//! The parser knows only Snowflake's form. In the form above the tokens `ASOF JOIN u ON` become `JOIN u ON
//! asof_join AND`, where the first name is one that no column has.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, LimitClause, OrderBy, OrderByExpr, OrderByKind,
    OrderByOptions, SelectItem, Spanned, TableFactor, Visit, Visitor, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use std::ops::ControlFlow;

use crate::plan::error::Refusal;
use crate::plan::syntax::{binary, derived, nested, number, select, selected, truth};

/// The name with which the ON of an ASOF JOIN begins after the rewrite of tokens.
const MARK: &str = "$asof_join";

/// Rewrites the tokens `ASOF JOIN u ON` so that the parser can read them.
pub(in crate::plan) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |token: &TokenWithSpan, keyword: Keyword| matches!(&token.token, Token::Word(w) if w.keyword == keyword);
    let mut made: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // ASOFs whose ON is still to come: the span, and the depth of parentheses.
    let mut pending: Vec<(Span, usize)> = vec![];
    let mut depth = 0usize;
    for (n, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        if is(token, Keyword::ASOF) && begins(&tokens[n + 1..]) {
            pending.push((token.span, depth));
            continue;
        }
        made.push(token.clone());
        if is(token, Keyword::ON)
            && let Some((span, _)) = pending.pop_if(|(_, at)| *at == depth)
        {
            let word = |value: &str, quote_style, keyword| TokenWithSpan {
                token: Token::Word(Word {
                    value: value.to_string(),
                    quote_style,
                    keyword,
                }),
                span,
            };
            made.push(word(MARK, Some('"'), Keyword::NoKeyword));
            made.push(word("AND", None, Keyword::AND));
        }
    }
    made
}

/// Whether `[LEFT | INNER] JOIN table ON` follows, without a MATCH_CONDITION.
fn begins(tokens: &[TokenWithSpan]) -> bool {
    let mut depth = 0usize;
    let mut joined = false;
    for token in tokens {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return false,
            Token::RParen => depth -= 1,
            Token::Word(word) if depth == 0 => match word.keyword {
                Keyword::JOIN if joined => return false,
                Keyword::JOIN => joined = true,
                Keyword::LEFT | Keyword::INNER | Keyword::OUTER if !joined => {}
                _ if !joined => return false,
                Keyword::ON => return true,
                Keyword::MATCH_CONDITION | Keyword::USING | Keyword::WHERE => return false,
                _ => {}
            },
            _ => {}
        }
    }
    false
}

/// Rewrites an ASOF join as a join with a LATERAL subquery.
pub(super) fn in_join(join: &mut Join) -> Result<(), Refusal> {
    let (conditions, near, optional) = match &join.join_operator {
        JoinOperator::AsOf {
            match_condition,
            constraint,
        } => {
            let near = near(match_condition)?;
            let equal = match constraint {
                JoinConstraint::None => None,
                JoinConstraint::On(on) => Some(on.clone()),
                _ => {
                    return Err(unclear(
                        "it names its columns by USING or NATURAL",
                        match_condition.span(),
                    ));
                }
            };
            let conditions = equal.into_iter().chain([match_condition.clone()]);
            (conditions.collect::<Vec<_>>(), near, true)
        }
        JoinOperator::Join(JoinConstraint::On(on))
        | JoinOperator::Inner(JoinConstraint::On(on))
        | JoinOperator::Left(JoinConstraint::On(on))
        | JoinOperator::LeftOuter(JoinConstraint::On(on))
            if mark(on).is_some() =>
        {
            let span = mark(on).unwrap_or_else(Span::empty);
            let mut conditions = vec![];
            split(on, &mut conditions);
            let before = conditions.len();
            conditions.retain(|condition| !is_mark(condition));
            if conditions.len() == before {
                return Err(unclear("its ON is no list of conditions joined by AND", span));
            }
            let mut nears = conditions.iter().filter_map(|condition| near(condition).ok());
            let (Some(near), None) = (nears.next(), nears.next()) else {
                return Err(unclear("its ON has not one comparison by >=, >, <= or <", span));
            };
            let optional = matches!(join.join_operator, JoinOperator::Left(_) | JoinOperator::LeftOuter(_));
            (conditions, near, optional)
        }
        _ => return Ok(()),
    };
    let span = conditions[0].span();
    let Some(name) = name_of(&join.relation) else {
        return Err(unclear("the table that it joins has no name", span));
    };
    let (by, descending) = near.order_key(&name);
    let everything = SelectItem::Wildcard(WildcardAdditionalOptions::default());
    let mut query = select(vec![everything], vec![join.relation.clone()]);
    let conditions = conditions.into_iter().map(nested);
    selected(&mut query).selection = conditions.reduce(|left, right| binary(left, BinaryOperator::And, right));
    query.order_by = Some(OrderBy {
        kind: OrderByKind::Expressions(vec![OrderByExpr {
            expr: by,
            options: OrderByOptions {
                asc: Some(!descending),
                nulls_first: None,
            },
            with_fill: None,
        }]),
        interpolate: None,
    });
    query.limit_clause = Some(LimitClause::LimitOffset {
        limit: Some(number(1)),
        offset: None,
        limit_by: vec![],
    });
    join.relation = derived(query, true, name, vec![]);
    join.join_operator = match optional {
        true => JoinOperator::LeftOuter(JoinConstraint::On(truth(true))),
        false => JoinOperator::CrossJoin(JoinConstraint::None),
    };
    Ok(())
}

fn unclear(why: &str, span: Span) -> Refusal {
    Refusal::new(format!("could not plan this ASOF JOIN: {why}"))
        .help("write ASOF JOIN u ON t.k = u.k AND t.ts >= u.ts: equalities, and one comparison that says which row is near")
        .at(Some(span))
}

/// The comparison that decides which row is nearest.
struct NearestComparison {
    left: Expr,
    op: BinaryOperator,
    right: Expr,
}

fn near(condition: &Expr) -> Result<NearestComparison, Refusal> {
    match condition {
        Expr::Nested(inner) => near(inner),
        Expr::BinaryOp { left, op, right }
            if matches!(
                op,
                BinaryOperator::GtEq | BinaryOperator::Gt | BinaryOperator::LtEq | BinaryOperator::Lt
            ) =>
        {
            Ok(NearestComparison {
                left: left.as_ref().clone(),
                op: op.clone(),
                right: right.as_ref().clone(),
            })
        }
        other => Err(unclear(
            "its MATCH_CONDITION is no comparison by >=, >, <= or <",
            other.span(),
        )),
    }
}

impl NearestComparison {
    /// The expression that orders the rows of the joined table, and whether the greatest comes first. It is the
    /// side of the comparison that names the table, or else the right side.
    fn order_key(self, table: &Ident) -> (Expr, bool) {
        let greatest_below = matches!(self.op, BinaryOperator::GtEq | BinaryOperator::Gt);
        match names(&self.left, table) && !names(&self.right, table) {
            true => (self.left, !greatest_below),
            false => (self.right, greatest_below),
        }
    }
}

/// Whether an expression has a column that is qualified by this table, as in `t.ts`.
fn names(expr: &Expr, table: &Ident) -> bool {
    struct Columns<'a>(&'a Ident);
    impl Visitor for Columns<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::CompoundIdentifier(parts)
                    if parts.len() > 1 && parts[parts.len() - 2].value.eq_ignore_ascii_case(&self.0.value) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Columns(table)).is_break()
}

/// The name or alias of a table in FROM.
fn name_of(table: &TableFactor) -> Option<Ident> {
    match table {
        TableFactor::Table { alias: None, name, .. } => name.0.last()?.as_ident().cloned(),
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => Some(alias.as_ref()?.name.clone()),
        _ => None,
    }
}

fn split(condition: &Expr, into: &mut Vec<Expr>) {
    match condition {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            split(left, into);
            split(right, into);
        }
        Expr::Nested(inner)
            if matches!(
                inner.as_ref(),
                Expr::BinaryOp {
                    op: BinaryOperator::And,
                    ..
                }
            ) =>
        {
            split(inner, into)
        }
        other => into.push(other.clone()),
    }
}

fn is_mark(condition: &Expr) -> bool {
    matches!(condition, Expr::Identifier(name) if name.value == MARK)
}

/// The span of the first name of a condition, if that name is the mark.
fn mark(condition: &Expr) -> Option<Span> {
    match condition {
        Expr::BinaryOp { left, .. } => mark(left),
        Expr::Identifier(name) if name.value == MARK => Some(name.span),
        _ => None,
    }
}
