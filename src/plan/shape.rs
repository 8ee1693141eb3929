//! Balances long chains of one operation before anything else walks the syntax tree.
//!
//! The parser makes `a OR b OR c OR ...` a tree as deep as the chain is long, and every pass over it recurses
//! once for each level. A chain of an associative operation becomes a balanced tree here: `((a OR b) OR c) OR
//! d` becomes `(a OR b) OR (c OR d)`. The same happens to UNION, UNION ALL, and to sums and products that would
//! be too deep otherwise (of doubles, the last digits of a sum depend on it). A tree that is then still deeper
//! than [`DEEPEST`] is refused.
//!
//! Chains are walked in loops; only parentheses, whose depth the parser bounds, are walked by recursion.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, ObjectName, Query, SetExpr, SetOperator, SetQuantifier, Spanned, Visit, VisitMut, Visitor,
    VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Span, TokenWithSpan};

use super::error::Refusal;
use super::syntax::{binary, nested, null};

/// The deepest that operations may be nested or chained, apart from chains that are balanced.
const DEEPEST: usize = 1000;

/// The most tokens of a query.
const LONGEST: usize = 1_000_000;

/// The most reads of tables in a query. In a chain of WITH queries that each name the one before twice, every
/// link doubles the number.
const MOST_READS: u64 = 10_000;

/// Shorter chains of conditions stay as they are, so that the plans of common queries do not change.
const LONG: usize = 64;

/// The parser's limit on nested parentheses; it counts some levels several times.
pub const PARSER_DEPTH: usize = 500;

/// Refuses SQL that is too long to be parsed.
pub(super) fn check_length(tokens: &[TokenWithSpan]) -> Result<(), Refusal> {
    if tokens.len() <= LONGEST {
        return Ok(());
    }
    Err(
        Refusal::new(format!("could not plan SQL of more than {LONGEST} words and signs"))
            .help("keep long lists of values in an input, and join it")
            .at(tokens.last().map(|token| token.span)),
    )
}

/// Balances long chains of a live query. An error has a message and its remedy.
pub fn flatten_asked(query: &mut Query) -> Result<(), (String, String)> {
    flatten(query).map_err(Refusal::into_texts)
}

/// Balances long chains. Refuses a query that reads too many tables once each WITH query is inlined wherever it
/// is named.
pub(super) fn flatten(query: &mut Query) -> Result<(), Refusal> {
    Refusal::of_visit(VisitMut::visit(query, &mut Flattening { depth: 0 }))?;
    let reads = count_reads(query);
    if reads <= MOST_READS {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "could not plan SQL that reads tables {reads} times, more than {MOST_READS}, once its WITH queries stand where they are named"
    ))
    .help("make a table of each WITH query that others name more than once")
    .near("WITH"))
}

/// The refusal of SQL that is nested too deep.
pub(super) fn too_deep(what: &str) -> Refusal {
    Refusal::new(format!("could not plan {what}"))
        .help("compute a part of it as a column of a subquery in FROM, or in a table of its own")
}

struct Flattening {
    depth: usize,
}

impl VisitorMut for Flattening {
    type Break = Box<Refusal>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Refusal>> {
        match flatten_sets(&mut query.body) {
            depth if depth > DEEPEST => {
                let what = format!("a chain of more than {DEEPEST} EXCEPTs and INTERSECTs");
                ControlFlow::Break(Box::new(too_deep(&what).near("EXCEPT")))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Refusal>> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let what = format!("operations that are nested or chained more than {DEEPEST} deep");
            return ControlFlow::Break(Box::new(too_deep(&what).at(last_span(expr))));
        }
        if let Some((kind, length)) = chain(expr)
            && length >= kind.balance_length()
        {
            let whole = std::mem::replace(expr, null());
            let mut operands = operands(whole, kind);
            *expr = balanced(&mut operands, kind);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<Box<Refusal>> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// How many tables a query reads if each WITH query is inlined wherever it is named.
fn count_reads(query: &Query) -> u64 {
    let mut reads = ReadCounter::default();
    let _ = Visit::visit(query, &mut reads);
    reads.total
}

/// Counts reads from the innermost query outwards.
#[derive(Default)]
struct ReadCounter {
    /// Reads of the queries that are being visited, innermost last.
    open: Vec<u64>,
    total: u64,
    /// Reads of WITH queries, by name.
    named: HashMap<String, u64>,
    names: HashMap<*const Query, String>,
}

impl Visitor for ReadCounter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = cte.alias.name.value.to_lowercase();
            self.names.insert(std::ptr::from_ref::<Query>(&cte.query), name);
        }
        self.open.push(0);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.to_string().to_lowercase();
        let reads = self.named.get(name.trim_matches('"')).copied().unwrap_or(1);
        if let Some(open) = self.open.last_mut() {
            *open = open.saturating_add(reads);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let reads = self.open.pop().unwrap_or_default();
        match (self.names.get(&std::ptr::from_ref(query)), self.open.last_mut()) {
            (Some(name), _) => {
                self.named.insert(name.clone(), reads);
            }
            (None, Some(outer)) => *outer = outer.saturating_add(reads),
            (None, None) => self.total = reads,
        }
        ControlFlow::Continue(())
    }
}

/// The span of the last operand. The span of the whole would recurse all the way down.
fn last_span(expr: &Expr) -> Option<Span> {
    match expr {
        Expr::BinaryOp { right, .. } => Some(right.span()),
        _ => None,
    }
}

/// Operations that form chains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChainKind {
    And,
    Or,
    Concat,
    /// The operators `+` and `-`.
    Sum,
    Product,
}

impl ChainKind {
    fn from_operator(operator: &BinaryOperator) -> Option<ChainKind> {
        Some(match operator {
            BinaryOperator::And => ChainKind::And,
            BinaryOperator::Or => ChainKind::Or,
            BinaryOperator::StringConcat => ChainKind::Concat,
            BinaryOperator::Plus | BinaryOperator::Minus => ChainKind::Sum,
            BinaryOperator::Multiply => ChainKind::Product,
            _ => return None,
        })
    }

    /// The length from which on a chain is balanced.
    fn balance_length(self) -> usize {
        match self {
            ChainKind::And | ChainKind::Or | ChainKind::Concat => LONG,
            // The type and the last digits of sums and products may depend on it.
            ChainKind::Sum | ChainKind::Product => DEEPEST / 2,
        }
    }
}

/// An operand of a chain, and whether it is subtracted.
type Operand = (Expr, bool);

/// The kind and the length of the chain that an expression is.
fn chain(expr: &Expr) -> Option<(ChainKind, usize)> {
    let Expr::BinaryOp { op, .. } = expr else { return None };
    let kind = ChainKind::from_operator(op)?;
    let (mut pending, mut length) = (vec![expr], 0);
    while let Some(expr) = pending.pop() {
        match inner(expr, kind) {
            Some(Expr::BinaryOp { left, right, .. }) => pending.extend([right.as_ref(), left.as_ref()]),
            _ => length += 1,
        }
    }
    Some((kind, length))
}

/// The operation of that kind that an expression is, also within parentheses that do not matter.
fn inner(expr: &Expr, kind: ChainKind) -> Option<&Expr> {
    let mut expr = expr;
    loop {
        match expr {
            Expr::BinaryOp { op, .. } => return (ChainKind::from_operator(op) == Some(kind)).then_some(expr),
            // In a sum, parentheses decide whether it overflows, so they stay.
            Expr::Nested(nested) if matches!(kind, ChainKind::And | ChainKind::Or | ChainKind::Concat) => expr = nested,
            _ => return None,
        }
    }
}

/// The operands of a chain, in their order.
fn operands(whole: Expr, kind: ChainKind) -> Vec<Operand> {
    let (mut pending, mut operands) = (vec![(whole, false)], Vec::new());
    while let Some((mut expr, negative)) = pending.pop() {
        if inner(&expr, kind).is_none() {
            operands.push((expr, negative));
            continue;
        }
        while let Expr::Nested(nested) = expr {
            expr = *nested;
        }
        if let Expr::BinaryOp { left, op, right } = expr {
            pending.push((*right, negative != (op == BinaryOperator::Minus)));
            pending.push((*left, negative));
        }
    }
    operands
}

/// The operands, in their order, as a tree of the least depth. `a - b - c + d` becomes `(a - b) - (c - d)`.
fn balanced(operands: &mut [Operand], kind: ChainKind) -> Expr {
    if let [(only, _)] = operands {
        return std::mem::replace(only, null());
    }
    let (left, right) = operands.split_at_mut(operands.len() / 2);
    let subtracted = right[0].1;
    if subtracted {
        right.iter_mut().for_each(|(_, negative)| *negative = !*negative);
    }
    let op = match kind {
        ChainKind::And => BinaryOperator::And,
        ChainKind::Or => BinaryOperator::Or,
        ChainKind::Concat => BinaryOperator::StringConcat,
        ChainKind::Sum if subtracted => BinaryOperator::Minus,
        ChainKind::Sum => BinaryOperator::Plus,
        ChainKind::Product => BinaryOperator::Multiply,
    };
    binary(closed(balanced(left, kind)), op, closed(balanced(right, kind)))
}

/// The expression with parentheses around an operation, so that the visitor does not take it for a chain again.
fn closed(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryOp { .. } => nested(expr),
        other => other,
    }
}

/// Balances chains of one set operation; returns the depth afterwards.
fn flatten_sets(body: &mut Box<SetExpr>) -> usize {
    // The links (operation, right side), from the last to the first.
    let mut links = Vec::new();
    let mut first = std::mem::replace(body, Box::new(SetExpr::Values(no_rows())));
    while let SetExpr::SetOperation {
        op,
        set_quantifier,
        left,
        right,
    } = *first
    {
        links.push((op, set_quantifier, right));
        first = left;
    }
    let (mut whole, mut depth) = (first, 0);
    while let Some((op, quantifier, right)) = links.pop() {
        let mut run = vec![whole, right];
        let flat = op == SetOperator::Union
            && matches!(
                quantifier,
                SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
            );
        while flat && links.last().is_some_and(|(o, q, _)| *o == op && *q == quantifier) {
            run.extend(links.pop().map(|(_, _, right)| right));
        }
        depth += 1;
        whole = union_of(run, op, quantifier);
    }
    *body = whole;
    depth
}

#[expect(clippy::vec_box, reason = "the parser's tree holds its sides boxed")]
fn union_of(mut run: Vec<Box<SetExpr>>, op: SetOperator, set_quantifier: SetQuantifier) -> Box<SetExpr> {
    while run.len() > 1 {
        let mut pairs = run.into_iter();
        let mut joined = Vec::new();
        while let Some(left) = pairs.next() {
            joined.push(match pairs.next() {
                Some(right) => Box::new(SetExpr::SetOperation {
                    op,
                    set_quantifier,
                    left,
                    right,
                }),
                None => left,
            });
        }
        run = joined;
    }
    run.pop().expect("a set operation has two sides")
}

fn no_rows() -> datafusion::sql::sqlparser::ast::Values {
    datafusion::sql::sqlparser::ast::Values {
        explicit_row: false,
        value_keyword: false,
        rows: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::dialect::Standard;
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::parser::Parser;

    fn flat(sql: &str) -> Result<String, String> {
        let parser = Parser::new(&Standard).with_recursion_limit(PARSER_DEPTH);
        let mut statements = parser.try_with_sql(sql).unwrap().parse_statements().unwrap();
        let Some(Statement::Query(mut query)) = statements.pop() else {
            panic!("{sql}")
        };
        flatten(&mut query).map_err(|refusal| refusal.message)?;
        Ok(query.to_string())
    }

    fn depth(sql: &str) -> usize {
        let (mut open, mut deepest) = (0usize, 0);
        for c in sql.chars() {
            match c {
                '(' => open += 1,
                ')' => open -= 1,
                _ => {}
            }
            deepest = deepest.max(open);
        }
        deepest
    }

    #[test]
    fn chains_become_flat_and_keep_their_operands_in_order() {
        crate::deep::deep(|| {
            for (between, count) in [
                (" OR ", 20_000),
                (" AND ", 20_000),
                (" || ", 1000),
                (" + ", 20_000),
                (" * ", 2000),
            ] {
                let operands: Vec<String> = (0..count).map(|n| format!("x{n}")).collect();
                let made = flat(&format!("SELECT {}", operands.join(between))).unwrap();
                assert!(depth(&made) < 20, "{between}: {}", depth(&made));
                let plain: String = made.chars().filter(|c| !"()".contains(*c)).collect();
                assert_eq!(plain, format!("SELECT {}", operands.join(between)));
            }
            let unions = vec!["SELECT 1"; 3001].join(" UNION ALL ");
            assert_eq!(flat(&unions).unwrap(), unions);
            let nested = format!("SELECT {}a{}", "(".repeat(300), " OR b)".repeat(300));
            assert!(depth(&flat(&nested).unwrap_or_default()) < 20);
        });
    }

    #[test]
    fn what_is_subtracted_in_a_long_sum_stays_subtracted() {
        crate::deep::deep(|| {
            let terms: Vec<i64> = (0..1500i64).map(|n| if n % 3 == 1 { -n } else { n }).collect();
            let sql: String = terms[1..]
                .iter()
                .map(|n| format!(" {} {}", if *n < 0 { '-' } else { '+' }, n.abs()))
                .collect();
            let made = flat(&format!("SELECT 0{sql}")).unwrap();
            assert!(depth(&made) < 20);
            assert_eq!(value(made.trim_start_matches("SELECT ")), terms.iter().sum::<i64>());
        });
    }

    /// The value of a sum with parentheses.
    fn value(sum: &str) -> i64 {
        let (mut signs, mut sign, mut total) = (vec![1], 1, 0);
        for word in sum.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
            match word {
                "(" => {
                    signs.push(signs.last().unwrap() * sign);
                    sign = 1;
                }
                ")" => drop(signs.pop()),
                "+" => sign = 1,
                "-" => sign = -1,
                number => total += signs.last().unwrap() * sign * number.parse::<i64>().unwrap(),
            }
        }
        total
    }

    /// Without the limit, planning a chain of WITH queries that name the one before twice would not end.
    #[test]
    fn with_queries_that_name_each_other_too_often_are_refused() {
        let chain = |length: usize| {
            let queries: Vec<String> = (1..=length)
                .map(|n| format!("e{n} AS (SELECT * FROM E{0} UNION SELECT * FROM e{0})", n - 1))
                .collect();
            format!(
                "WITH e0 AS (SELECT * FROM t), {} SELECT * FROM e{length}",
                queries.join(", ")
            )
        };
        crate::deep::deep(move || {
            assert!(flat(&chain(13)).is_ok());
            assert!(flat(&chain(14)).unwrap_err().contains("reads tables 16384 times"));
            assert!(flat(&chain(90)).is_err());
            let once = "WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b WHERE x IN (SELECT y FROM b)";
            assert!(flat(once).is_ok());
        });
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        crate::deep::deep(|| {
            let chain = format!("SELECT 1{}", " / 2".repeat(5000));
            let refusal = flat(&chain).unwrap_err();
            assert_eq!(
                refusal,
                "could not plan operations that are nested or chained more than 1000 deep"
            );
            let sets = vec!["SELECT 1"; 2000].join(" EXCEPT ");
            assert!(flat(&sets).unwrap_err().contains("1000 EXCEPTs"));
            assert!(flat(&format!("SELECT 1{}", " / 2".repeat(900))).is_ok());
        });
    }
}
