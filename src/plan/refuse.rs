//! Refuses SQL by its syntax tree, before it is planned. All mistakes of a query are reported at once, each
//! with its place.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::Volatility;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    JoinOperator, LimitClause, ObjectName, ObjectNamePart, Query, Select, SetExpr, SetOperator, Spanned, Statement,
    TableFactor, TableWithJoins, TypedString, Value, ValueWithSpan, Visit, Visitor, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::error::Refusal;
use super::operators::is_of_code_points;
use super::{foreign, laterals, lower, row_queries, shorthands, ties, windows};
use crate::definition::{Dataflow, nearest};

/// The one query of a file.
pub(super) fn query(mut statements: Vec<Parsed>) -> Result<Box<Query>, Refusal> {
    let one = "write one SELECT; the file's name is the table's name";
    if statements.len() > 1 {
        return Err(Refusal::new(format!("could not plan {} statements as one table", statements.len())).help(one));
    }
    match statements.pop() {
        None => Err(Refusal::new("could not find a SELECT: the file is empty").help(one)),
        Some(Parsed::Statement(statement)) => match *statement {
            Statement::Query(query) => Ok(query),
            other => {
                let verb = other.to_string();
                let verb = verb.split_whitespace().next().unwrap_or_default().to_uppercase();
                Err(Refusal::new(format!("could not plan {verb} as a table"))
                    .help(one)
                    .near(verb))
            }
        },
        Some(other) => {
            let verb = other.to_string();
            let verb = verb.split_whitespace().next().unwrap_or_default().to_uppercase();
            Err(Refusal::new(format!("could not plan {verb} as a table"))
                .help(one)
                .near(verb))
        }
    }
}

/// The text of an argument that stands for all columns of a table, `t.*`.
fn rows_of(arg: &FunctionArg) -> Option<String> {
    match arg {
        FunctionArg::Unnamed(of @ FunctionArgExpr::QualifiedWildcard(..)) => Some(of.to_string()),
        _ => None,
    }
}

/// The text of a literal date or moment in the year 0, which PostgreSQL does not have either.
fn of_the_year_0(expr: &Expr) -> Option<&str> {
    let (value, to) = match expr {
        Expr::TypedString(TypedString { data_type, value, .. }) => (value, data_type),
        Expr::Cast { expr, data_type, .. } => match expr.as_ref() {
            Expr::Value(value) => (value, data_type),
            _ => return None,
        },
        _ => return None,
    };
    let (Value::SingleQuotedString(text), DataType::Date | DataType::Timestamp(..) | DataType::Datetime(_)) =
        (&value.value, to)
    else {
        return None;
    };
    text.trim_start().starts_with("0000-").then_some(text)
}

/// Whether MINUS is written for EXCEPT in a set operation, at any depth.
fn is_minus(body: &SetExpr) -> bool {
    match body {
        SetExpr::SetOperation { op, left, right, .. } => {
            matches!(op, SetOperator::Minus) || is_minus(left) || is_minus(right)
        }
        _ => false,
    }
}

/// What stands in FROM but is not a table here, and what to write instead.
fn not_a_table(factor: &TableFactor) -> Option<(String, String)> {
    let functions = || {
        let names = laterals::TABLE_FUNCTIONS.join(", ");
        format!("table functions are TUMBLE, HOP, SESSION, {names}")
    };
    let of_function = |name: String| match name.to_lowercase().as_str() {
        "flatten" | "explode" | "posexplode" | "table" => {
            "write unnest: FROM t CROSS JOIN unnest(t.list) AS u(item)".to_string()
        }
        name if laterals::TABLE_FUNCTIONS.contains(&name) => "give it plain arguments, one at least".to_string(),
        name if name.contains("json") => "read the fields one by one: payload ->> 'a'".to_string(),
        name if name.starts_with("read_") || name.ends_with("_scan") => {
            "define an input in inputs/ that reads it".to_string()
        }
        name => windows::usage_of(name).map_or_else(functions, str::to_string),
    };
    let (what, help) = match factor {
        TableFactor::Table {
            args: Some(_), name, ..
        }
        | TableFactor::Function { name, .. } => (format!("the table function {name}"), of_function(name.to_string())),
        TableFactor::TableFunction { expr, .. } => match expr {
            Expr::Function(function) => (
                format!("the table function {}", function.name),
                of_function(function.name.to_string()),
            ),
            _ => ("this table function".to_string(), functions()),
        },
        TableFactor::Table { sample: Some(_), .. } => (
            "TABLESAMPLE, which is not deterministic".to_string(),
            "keep a share of the rows by a column: WHERE id % 10 = 0".to_string(),
        ),
        TableFactor::Table { version: Some(_), .. } => (
            "a table as of a version: a table is kept up to date with those it reads".to_string(),
            "remove the version".to_string(),
        ),
        TableFactor::Pivot { .. } => (
            "PIVOT".to_string(),
            "write a column for each value: sum(x) FILTER (WHERE k = 'a') AS a, with GROUP BY".to_string(),
        ),
        TableFactor::Unpivot { .. } => (
            "UNPIVOT".to_string(),
            "write CROSS JOIN LATERAL (VALUES ('a', t.a), ('b', t.b)) AS u(name, value)".to_string(),
        ),
        TableFactor::MatchRecognize { .. } => (
            "MATCH_RECOGNIZE".to_string(),
            "compare a row with those before it: lag(x) OVER (PARTITION BY k ORDER BY ts)".to_string(),
        ),
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } | TableFactor::XmlTable { .. } => (
            "a table made from a document".to_string(),
            "read the fields one by one: payload ->> 'a'".to_string(),
        ),
        _ => return None,
    };
    Some((what, help))
}

/// A table that FROM names twice by one name, with the place of the second one.
fn named_twice(from: &[TableWithJoins]) -> Option<(String, Span)> {
    let factors = from
        .iter()
        .flat_map(|part| std::iter::once(&part.relation).chain(part.joins.iter().map(|join| &join.relation)));
    let mut names = BTreeSet::new();
    for factor in factors {
        let name = match factor {
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                folded(&alias.name)
            }
            TableFactor::Table { name, args: None, .. } => name_parts(name).join("."),
            _ => continue,
        };
        if !names.insert(name.clone()) {
            return Some((name, factor.span()));
        }
    }
    None
}

/// The parts of a name, as SQL understands them.
fn name_parts(name: &ObjectName) -> Vec<String> {
    let identifiers = name.0.iter().filter_map(ObjectNamePart::as_ident);
    identifiers.map(folded).collect()
}

/// An identifier in lower case, unless it is quoted.
fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// What a query reads, and its mistakes.
#[derive(Default)]
pub(super) struct Inspection {
    /// Names in SQL of the inputs and tables.
    pub reads: BTreeSet<String>,
    pub refusals: Vec<Refusal>,
    /// The place of the first subquery that is used as a value.
    pub subquery: Option<Span>,
}

/// Inspects a query.
pub(super) fn inspect(query: &Query, context: &SessionContext, known: &[String]) -> Inspection {
    let mut names = NameCollector::default();
    let _ = Visit::visit(query, &mut names);
    let mut inspector = Inspector {
        context,
        known,
        ctes: names.ctes,
        functions: names.functions,
        inspection: Inspection::default(),
    };
    let _ = Visit::visit(query, &mut inspector);
    inspector.inspection
}

/// The names of all inputs and tables.
pub(super) fn relation_names(dataflow: &Dataflow) -> Vec<String> {
    let inputs = dataflow.inputs.iter().map(|i| i.name.clone());
    inputs
        .chain(dataflow.tables.iter().map(|t| t.qualified_name()))
        .collect()
}

#[derive(Default)]
struct NameCollector {
    ctes: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Visitor for NameCollector {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|w| &w.cte_tables) {
            self.ctes.insert(cte.alias.name.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            args: Some(_), name, ..
        } = factor
        {
            self.functions.insert(name.to_string());
        }
        ControlFlow::Continue(())
    }
}

struct Inspector<'a> {
    context: &'a SessionContext,
    known: &'a [String],
    ctes: BTreeSet<String>,
    /// Names of table functions, which have a refusal of their own.
    functions: BTreeSet<String>,
    inspection: Inspection,
}

impl Inspector<'_> {
    fn refuse(&mut self, refusal: Refusal) {
        self.inspection.refusals.push(refusal);
    }

    /// The name of an aggregate in the WHERE of a query; WHEREs of subqueries do not count.
    fn aggregate_in_where(&self, body: &SetExpr) -> Option<Ident> {
        struct Aggregates<'a> {
            context: &'a SessionContext,
            depth: usize,
        }
        impl Visitor for Aggregates<'_> {
            type Break = Ident;

            fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Ident> {
                self.depth += 1;
                ControlFlow::Continue(())
            }

            fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Ident> {
                self.depth -= 1;
                ControlFlow::Continue(())
            }

            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Ident> {
                match expr {
                    Expr::Function(call) if self.depth == 0 && call.over.is_none() => match call.name.0.as_slice() {
                        [ObjectNamePart::Identifier(name)] if self.context.udaf(&name.value.to_lowercase()).is_ok() => {
                            ControlFlow::Break(name.clone())
                        }
                        _ => ControlFlow::Continue(()),
                    },
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        match body {
            SetExpr::Select(select) => {
                let mut aggregates = Aggregates {
                    context: self.context,
                    depth: 0,
                };
                select.selection.visit(&mut aggregates).break_value()
            }
            SetExpr::Query(query) => self.aggregate_in_where(&query.body),
            SetExpr::SetOperation { left, right, .. } => {
                self.aggregate_in_where(left).or_else(|| self.aggregate_in_where(right))
            }
            _ => None,
        }
    }
}

/// What to write instead of a window function whose distance or number is a column.
fn computed_distance(function: &Function, name: &str) -> Option<&'static str> {
    let place = match name {
        "lag" | "lead" | "nth_value" => 1,
        "ntile" => 0,
        _ => return None,
    };
    let (Some(_), FunctionArguments::List(list)) = (&function.over, &function.args) else {
        return None;
    };
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(number)) = list.args.get(place)? else {
        return None;
    };
    let column = |expr: &Expr| match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    visit_expressions(number, column).is_break().then_some(match name {
        "lag" | "lead" => {
            "write a number itself, lag(x, 1); or number the rows in a subquery of FROM, row_number() OVER (ORDER BY k) AS n, and join \
             it with itself: LEFT JOIN r AS b ON b.n = a.n - a.distance"
        }
        "ntile" => "write a number itself: ntile(4)",
        _ => "write a number itself: nth_value(x, 2)",
    })
}

impl Visitor for Inspector<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if query.order_by.is_none() {
            let span = match (&query.limit_clause, &query.fetch) {
                (Some(LimitClause::LimitOffset { limit, offset, .. }), _) => limit
                    .as_ref()
                    .map(|l| l.span())
                    .or_else(|| offset.as_ref().map(|o| o.value.span())),
                (Some(LimitClause::OffsetCommaLimit { limit, .. }), _) => Some(limit.span()),
                (None, Some(fetch)) => fetch.quantity.as_ref().map(|q| q.span()),
                (None, None) => None,
            };
            if query.limit_clause.is_some() || query.fetch.is_some() {
                self.refuse(lower::unordered().at(span));
            }
        }
        if let Some(LimitClause::LimitOffset { limit_by, .. }) = &query.limit_clause
            && let Some(by) = limit_by.first()
        {
            let refusal = Refusal::new("could not plan LIMIT BY")
                .help("filter on ROW_NUMBER() OVER (PARTITION BY ... ORDER BY ...) in an outer query")
                .at(Some(by.span()));
            self.refuse(refusal);
        }
        if let Some(fetch) = &query.fetch
            && ties::is_left(query)
        {
            let (what, help) = match fetch.percent {
                true => (
                    "a FETCH of PERCENT",
                    "compare PERCENT_RANK() OVER (ORDER BY ...) or NTILE(100) OVER (ORDER BY ...) in QUALIFY",
                ),
                false => (
                    "this FETCH WITH TIES",
                    "compare RANK() OVER (ORDER BY ...) in QUALIFY: QUALIFY RANK() OVER (ORDER BY n DESC) <= 3",
                ),
            };
            self.refuse(Refusal::new(format!("could not plan {what}")).help(help).near("FETCH"));
        }
        if is_minus(&query.body) {
            let refusal = Refusal::new("could not plan MINUS").help("write EXCEPT").near("MINUS");
            self.refuse(refusal);
        }
        if !query.locks.is_empty() || query.for_clause.is_some() {
            let refusal = Refusal::new("could not plan a FOR clause: a table locks nothing")
                .help("remove it")
                .near("FOR");
            self.refuse(refusal);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.into.is_some() {
            let refusal = Refusal::new("could not plan SELECT INTO")
                .help("remove INTO; the file's name is the table's name")
                .near("INTO");
            self.refuse(refusal);
        }
        if let Some((name, span)) = named_twice(&select.from) {
            let refusal = Refusal::new(format!(
                "could not tell two tables of FROM apart: both are called {name:?}"
            ))
            .help("give each an alias of its own: FROM orders AS a, orders AS b")
            .at(Some(span));
            self.refuse(refusal);
        }
        if let GroupByExpr::Expressions(groups, _) = &select.group_by {
            for group in groups {
                if let Expr::Function(function) = group
                    && self.context.udaf(&function.name.to_string().to_lowercase()).is_ok()
                {
                    let refusal = Refusal::new(format!(
                        "could not group by {}(): it is computed of groups",
                        function.name
                    ))
                    .help("compute it in a subquery of FROM, and group by its column")
                    .at(Some(function.name.span()));
                    self.refuse(refusal);
                }
            }
        }
        let clauses = [
            (
                !select.lateral_views.is_empty(),
                "LATERAL VIEW",
                "LATERAL",
                "write CROSS JOIN unnest(t.list) AS u(item)",
            ),
            (
                !select.connect_by.is_empty(),
                "CONNECT BY",
                "CONNECT",
                "write a self-join for each level",
            ),
            (select.prewhere.is_some(), "PREWHERE", "PREWHERE", "write WHERE"),
        ];
        for (_, clause, word, help) in clauses.into_iter().filter(|(is_used, ..)| *is_used) {
            let refusal = Refusal::new(format!("could not plan {clause}")).help(help).near(word);
            self.refuse(refusal);
        }
        for join in select.from.iter().flat_map(|part| &part.joins) {
            if matches!(
                join.join_operator,
                JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin
            ) {
                let refusal = Refusal::new("could not plan ARRAY JOIN")
                    .help("write CROSS JOIN unnest(t.list) AS u(item), or LEFT JOIN unnest(t.list) AS u(item) ON TRUE")
                    .at(Some(join.relation.span()));
                self.refuse(refusal);
            }
        }
        if select.top.is_some() {
            let refusal = Refusal::new("could not plan SELECT TOP")
                .help("write ORDER BY ... LIMIT")
                .near("TOP");
            self.refuse(refusal);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if laterals::TableFunction::from_factor(factor).is_some() {
            return ControlFlow::Continue(());
        }
        if let Some((what, help)) = not_a_table(factor) {
            let refusal = Refusal::new(format!("could not plan {what}"))
                .help(help)
                .at(Some(factor.span()));
            self.refuse(refusal);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let parts = name_parts(relation);
        let name = parts.join(".");
        if self.functions.contains(&relation.to_string()) {
            return ControlFlow::Continue(());
        }
        if parts.len() == 1 && self.ctes.contains(&name.to_lowercase()) {
            return ControlFlow::Continue(());
        }
        if self.known.contains(&name) {
            self.inspection.reads.insert(name);
            return ControlFlow::Continue(());
        }
        let candidates = self
            .known
            .iter()
            .map(String::as_str)
            .chain(self.ctes.iter().map(String::as_str));
        // The likeliest slip is to leave out the layer: `orders` for `silver.orders`.
        let unqualified = self
            .known
            .iter()
            .find(|k| k.rsplit('.').next() == name.rsplit('.').next());
        let help = match unqualified.map(String::as_str).or_else(|| nearest(&name, candidates)) {
            Some(near) => format!("did you mean {near:?}?"),
            None if self.known.is_empty() => "define an input in inputs/".to_string(),
            None => format!("known are {}", self.known.join(", ")),
        };
        let refusal = Refusal::new(format!("could not find a table or input {name:?}"))
            .help(help)
            .at(Some(relation.span()));
        self.refuse(refusal);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Subquery(query) = expr {
            self.inspection.subquery.get_or_insert(query.span());
        }
        if let Some(refusal) = shorthands::unread_path(expr) {
            self.refuse(refusal);
        }
        if let Some(text) = of_the_year_0(expr) {
            let refusal = Refusal::new(format!("could not read {text:?} as a date: there is no year 0"))
                .help("write one of the years 1 to 9999")
                .at(Some(expr.span()));
            self.refuse(refusal);
        }
        if let Some((row, query)) = row_queries::mismatched_widths(expr) {
            let refusal = Refusal::new(format!(
                "could not compare a row of {row} columns with a subquery of {query}"
            ))
            .help("select as many columns as the row has")
            .at(Some(expr.span()));
            self.refuse(refusal);
        }
        if let Expr::Exists { subquery, .. } | Expr::InSubquery { subquery, .. } | Expr::Subquery(subquery) = expr
            && let Some(name) = self.aggregate_in_where(&subquery.body)
        {
            let refusal = Refusal::new(format!(
                "could not plan {name}() in WHERE: groups are computed behind it, and those of the query around are not known in it"
            ))
            .help(
                "move the condition into HAVING; or compute it first, in a subquery of FROM: FROM (SELECT k, max(x) AS m FROM t \
                 GROUP BY k) AS g WHERE EXISTS (SELECT 1 FROM u WHERE u.id = g.m)",
            )
            .at(Some(name.span));
            self.refuse(refusal);
        }
        if let Expr::BinaryOp {
            left,
            op: op @ (BinaryOperator::DuckIntegerDivide | BinaryOperator::MyIntegerDivide),
            ..
        } = expr
        {
            let refusal = Refusal::new(format!("could not plan {op}"))
                .help("write a / b, which is whole for whole numbers")
                .at(Some(left.span()));
            self.refuse(refusal);
        }
        if let Expr::BinaryOp {
            left,
            op: BinaryOperator::Xor,
            ..
        } = expr
        {
            let refusal = Refusal::new("could not plan XOR")
                .help("write (a <> b) of conditions, or a # b of whole numbers")
                .at(Some(left.span()));
            self.refuse(refusal);
        }
        if let Expr::Collate { collation, .. } = expr
            && !is_of_code_points(collation)
        {
            let refusal = Refusal::new(format!(
                "could not compare texts by the collation {collation}: their code points order them"
            ))
            .help("remove it, or write COLLATE \"C\"; to pass over capitals, compare lower(...)")
            .at(Some(collation.span()));
            self.refuse(refusal);
        }
        let Expr::Function(function) = expr else {
            return ControlFlow::Continue(());
        };
        let name = function.name.to_string().to_lowercase();
        if foreign::takes_functions(&name) && function.args.to_string().contains("->") {
            let refusal = Refusal::new(format!("could not plan {name}(): it is given a function of items"))
                .help(foreign::instead(&name).unwrap_or_default())
                .at(Some(function.name.span()));
            self.refuse(refusal);
        }
        if let Some(help) = computed_distance(function, &name) {
            let refusal = Refusal::new(format!("could not plan {name}() with a number that is computed"))
                .help(help)
                .at(Some(function.name.span()));
            self.refuse(refusal);
        }
        let volatility = match self.context.udf(&name) {
            Ok(scalar) => Some(scalar.signature().volatility),
            Err(_) => self.context.udaf(&name).map(|a| a.signature().volatility).ok(),
        };
        if volatility == Some(Volatility::Volatile) {
            let refusal = Refusal::new(format!(
                "could not plan {name}(): it yields something else each time, so the table could not be recomputed"
            ))
            .help("take the value from an input's column")
            .at(Some(function.name.span()));
            self.refuse(refusal);
        }
        if let FunctionArguments::List(list) = &function.args
            && let Some(rows) = list.args.iter().find_map(rows_of)
        {
            let refusal = Refusal::new(format!("could not plan {name}({rows}): a row as a whole is no value here"))
                .help("count rows with count(*), and those that an outer join found by a column that is never NULL, as in count(t.id)")
                .at(Some(function.name.span()));
            self.refuse(refusal);
        }
        let instead = match name.as_str() {
            "current_time" => Some((
                "the time of day moves on with every epoch",
                "use now() in a condition of WHERE",
            )),
            "approx_percentile_cont_with_weight" => Some((
                "its answer depends on the order of rows",
                "use percentile_cont or approx_percentile_cont",
            )),
            _ => None,
        };
        if let Some((reason, help)) = instead {
            let refusal = Refusal::new(format!("could not plan {name}: {reason}"))
                .help(help)
                .at(Some(function.name.span()));
            self.refuse(refusal);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        if let Value::Placeholder(name) = &value.value {
            let refusal = Refusal::new(format!("could not plan the parameter {name}"))
                .help("write the value itself")
                .at(Some(value.span));
            self.refuse(refusal);
        }
        ControlFlow::Continue(())
    }
}
