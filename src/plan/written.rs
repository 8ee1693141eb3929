//! Calls of functions and subqueries as the parser writes them, for what is written out as one.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query,
    Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// `name(args, ...)`, without any clause. An error of the call is told where the name stands.
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

/// `SELECT items FROM from`, to which more may be added.
pub(super) fn select(items: Vec<SelectItem>, from: Vec<TableFactor>) -> Box<Query> {
    let mut statements = Parser::parse_sql(&GenericDialect, "SELECT 1").expect("it is SQL");
    let Some(Statement::Query(mut query)) = statements.pop() else {
        unreachable!("it is a query");
    };
    let select = selected(&mut query);
    // Nothing of it stands anywhere in what the user wrote.
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

/// Whether an item of a SELECT list is one column, written out.
pub(super) fn is_one_column(item: &SelectItem) -> bool {
    matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
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
