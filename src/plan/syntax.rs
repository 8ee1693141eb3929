//! Makes constants, operations, calls and subqueries as sqlparser would parse them, for rewrites of the syntax tree.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Query, Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef, TableFactor,
    TableWithJoins, UnaryOperator, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// `NULL`.
pub(super) fn null() -> Expr {
    Expr::value(Value::Null)
}

/// `TRUE` or `FALSE`.
pub(super) fn truth(truth: bool) -> Expr {
    Expr::value(Value::Boolean(truth))
}

/// A number as it is written.
pub(super) fn number(number: impl ToString) -> Expr {
    Expr::value(Value::Number(number.to_string(), false))
}

/// `'text'`.
pub(super) fn text(text: impl Into<String>) -> Expr {
    Expr::value(Value::SingleQuotedString(text.into()))
}

/// `(expr)`.
pub(super) fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

/// `NOT expr`.
pub(super) fn not(expr: Expr) -> Expr {
    Expr::UnaryOp {
        op: UnaryOperator::Not,
        expr: Box::new(expr),
    }
}

/// `left op right`. An operand that binds more loosely needs parentheses, see [`nested`].
pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

/// `(left op right)`, which may stand anywhere.
pub(super) fn nested_binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    nested(binary(left, op, right))
}

/// `((a op b) op c)`; `None` without any operand.
pub(super) fn chained(operands: impl IntoIterator<Item = Expr>, op: BinaryOperator) -> Option<Expr> {
    operands
        .into_iter()
        .reduce(|left, right| nested_binary(left, op.clone(), right))
}

/// `name(args, ...)` without any clause. Errors of the call are reported at the span of `name`.
pub(super) fn call(name: Ident, args: impl IntoIterator<Item = Expr>) -> Function {
    let unnamed = |arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg));
    Function {
        name: ObjectName::from(vec![name]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(unnamed).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    }
}

/// `SELECT items FROM from`; callers may add further clauses.
pub(super) fn select(items: Vec<SelectItem>, from: Vec<TableFactor>) -> Box<Query> {
    let mut statements = Parser::parse_sql(&GenericDialect, "SELECT 1").expect("it is SQL");
    let Some(Statement::Query(mut query)) = statements.pop() else {
        unreachable!("it is a query");
    };
    let select = selected(&mut query);
    // No token of this SELECT stands in the user's SQL, so it must not carry a span.
    select.select_token = AttachedToken::empty();
    select.projection = items;
    let alone = |relation| TableWithJoins {
        relation,
        joins: vec![],
    };
    select.from = from.into_iter().map(alone).collect();
    query
}

/// The SELECT of a query made by [`select`].
pub(super) fn selected(query: &mut Query) -> &mut Select {
    match query.body.as_mut() {
        SetExpr::Select(select) => select,
        _ => unreachable!("it is a SELECT"),
    }
}

/// Whether an item of a SELECT list is one column, rather than a wildcard.
pub(super) fn is_one_column(item: &SelectItem) -> bool {
    matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
}

/// A constant, which may be in parentheses. PostgreSQL's parser drops these, so that `(1)` names a place as `1` does.
pub(super) fn constant(of: &Expr) -> Option<&ValueWithSpan> {
    match of {
        Expr::Nested(of) => constant(of),
        Expr::Value(value) => Some(value),
        _ => None,
    }
}

/// `(query) AS name (columns)`.
pub(super) fn derived(query: Box<Query>, lateral: bool, name: Ident, columns: Vec<Ident>) -> TableFactor {
    let column = |name| TableAliasColumnDef { name, data_type: None };
    TableFactor::Derived {
        lateral,
        subquery: query,
        alias: Some(TableAlias {
            explicit: true,
            name,
            columns: columns.into_iter().map(column).collect(),
            at: None,
        }),
        sample: None,
    }
}
