//! Compiles the tables of a dataflow into a graph, one after the other: parse, inspect, plan, optimise,
//! complete, lower.
//!
//! All tables are tried, so that one run reports all mistakes. A table that reads a table which could not be
//! planned is skipped, as its mistakes would only repeat those of the other.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, ToDFSchema};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr as Logical, LogicalPlan, Projection, cast};
use datafusion::optimizer::AnalyzerRule;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Query, SelectItem, SetExpr, Spanned, Statement as SqlStatement,
};
use datafusion::sql::sqlparser::tokenizer::{Span, TokenWithSpan};

use super::diagnose::{diagnose, not_a_condition, refused};
use super::dialect::Standard;
use super::encoding::{quoted, retention, texts};
use super::error::{PlanError, Planned, Refusal};
use super::guard::{FunctionWrapper, wrap_functions};
use super::lower::{Lowering, physical};
use super::mistakes::Mistakes;
use super::moments::microseconds;
use super::operators::operators;
use super::recursive::search_or_cycle;
use super::share::{Builder, Draft};
use super::using::without_using;
use super::{Graph, NodeId, Op, PlannedExpectation, PlannedTable};
use super::{
    casts, change_feed, complete, laterals, limits, named_windows, normalise, now, numbers, optimise, partitions,
    positions, refuse, session, sets, shape, shorthands, standard, subqueries, ties, unread, values, widen_windows,
    windows,
};
use crate::contain::contain;
use crate::deep::deep;
use crate::definition::{Dataflow, Diagnostic, Diagnostics, Input, OnViolation, Table, nearest};
use crate::repr::normalise_schema;

/// Plans every table of a dataflow into one graph.
///
/// # Errors
/// All mistakes in the tables' SQL and in the columns that their settings name.
pub fn compile(dataflow: &Dataflow) -> Result<Graph, Diagnostics> {
    compile_part(dataflow, &[])
}

/// As [`compile`], for a dataflow of which only a part could be read. `broken` are the SQL names of the inputs
/// and tables that could not be; tables that read them are skipped without a message.
///
/// # Errors
/// All mistakes in the other tables.
pub fn compile_part(dataflow: &Dataflow, broken: &[String]) -> Result<Graph, Diagnostics> {
    deep(|| compile_tables(dataflow, broken))
}

fn compile_tables(dataflow: &Dataflow, broken: &[String]) -> Result<Graph, Diagnostics> {
    let mut known = refuse::relation_names(dataflow);
    known.extend(broken.iter().cloned());
    let mut compiler = Compiler {
        dataflow,
        context: session::planning_context(dataflow.bounds.max_value),
        builder: Builder::default(),
        sources: HashMap::new(),
        known,
        broken: broken.iter().cloned().collect(),
        diagnostics: Vec::new(),
        tables: Vec::new(),
    };
    for (position, input) in dataflow.inputs.iter().enumerate() {
        compiler.input(position, input);
    }
    for (position, table) in dataflow.tables.iter().enumerate() {
        if !broken.contains(&table.qualified_name()) {
            compiler.table(position, table);
        }
    }
    if compiler.diagnostics.is_empty() {
        Ok(Graph {
            nodes: compiler.builder.nodes,
            tables: compiler.tables,
        })
    } else {
        Err(Diagnostics(compiler.diagnostics))
    }
}

pub(super) struct Compiler<'a> {
    pub(super) dataflow: &'a Dataflow,
    pub(super) context: SessionContext,
    builder: Builder,
    /// Nodes of inputs and tables, by their names in SQL.
    sources: HashMap<String, NodeId>,
    known: Vec<String>,
    broken: BTreeSet<String>,
    diagnostics: Vec<Diagnostic>,
    tables: Vec<PlannedTable>,
}

/// The parts of an input's settings that decide what its rows mean, besides its columns.
pub(super) fn input_identity(input: &Input) -> String {
    format!(
        "(input {} (key {}) (order {}) (dedup {}) {})",
        quoted(&input.name),
        texts(&input.key),
        texts(&input.order_by),
        texts(&input.dedup_key),
        retention(&input.retention)
    )
}

/// The parts of a table's settings that decide what its rows mean, besides its SELECT.
pub(super) fn table_identity(table: &Table) -> String {
    let expectations = table.expectations.iter().map(|expectation| {
        let then = match expectation.on_violation {
            OnViolation::Drop => "drop",
            OnViolation::Fail => "fail",
            OnViolation::Warn => "warn",
        };
        format!(" ({} {} {then})", quoted(&expectation.name), quoted(&expectation.check))
    });
    format!(
        "(table {} (key {}) (expect{}) {} (partitions {}))",
        quoted(&table.qualified_name()),
        texts(&table.key),
        expectations.collect::<String>(),
        retention(&table.retention),
        texts(&table.partition_by)
    )
}

impl Compiler<'_> {
    fn input(&mut self, position: usize, input: &Input) {
        let schema = normalise_schema(&input.schema());
        let changes = input
            .feeds
            .iter()
            .any(|feed| feed.format.carries_changes() || feed.kind.contract().changes_rows());
        let identity = input_identity(input);
        let draft = Draft {
            op: Op::Input(position),
            inputs: vec![],
            schema: schema.clone(),
            name: input.name.clone(),
            append_only: input.key.is_empty() && input.retention.is_none() && !changes,
        };
        let node = self.builder.add(draft, &identity);
        self.sources.insert(input.name.clone(), node);
        if let Err(error) = session::register(&self.context, None, &input.name, schema) {
            let error = PlanError::from(error);
            self.diagnostics.extend(diagnose(error, &input.file, &[]));
        }
    }

    fn table(&mut self, position: usize, table: &Table) {
        let before = self.diagnostics.len();
        // A panic may leave the compiler's state half made. That is harmless: with a mistake no graph is returned.
        let planned = contain(|| self.plan(position, table)).unwrap_or_else(|panic| {
            let refusal = Refusal::new(format!("could not compute a constant of the query: {panic}"));
            let refusal = refusal.help("look for a literal that is out of range: a date, an interval, a length");
            Err(vec![refused(refusal, &table.file, &[])])
        });
        match planned {
            Ok(Some(planned)) if self.diagnostics.len() == before => self.accept(table, planned),
            Ok(_) => {
                self.broken.insert(table.qualified_name());
            }
            Err(diagnostics) => {
                self.broken.insert(table.qualified_name());
                self.diagnostics.extend(diagnostics);
            }
        }
    }

    /// Makes a planned table known to the tables after it.
    fn accept(&mut self, table: &Table, planned: PlannedTable) {
        let name = table.qualified_name();
        let identity = table_identity(table);
        let draft = Draft {
            op: Op::Table(self.tables.len()),
            inputs: vec![planned.node],
            schema: planned.schema.clone(),
            name: name.clone(),
            append_only: planned.append_only,
        };
        let node = self.builder.add(draft, &identity);
        self.sources.insert(name, node);
        session::register(&self.context, Some(table.layer), &table.name, planned.schema.clone())
            .expect("names of tables are unique in a layer");
        self.tables.push(planned);
    }

    /// Plans a table; `None` if it reads a broken one.
    fn plan(&mut self, position: usize, table: &Table) -> Result<Option<PlannedTable>, Vec<Diagnostic>> {
        let tokens = windows::tokenize(&table.sql).map_err(|r| vec![refused(r, &table.file, &[])])?;
        let wrong = |error: PlanError| diagnose(error, &table.file, &tokens);
        shape::check_length(&tokens).map_err(|r| wrong(r.into()))?;
        search_or_cycle(&tokens).map_err(|r| wrong(r.into()))?;
        let statements = parse(tokens.clone()).map_err(wrong)?;
        let mut query = refuse::query(statements).map_err(|r| wrong(r.into()))?;
        shape::flatten(&mut query).map_err(|r| wrong(r.into()))?;
        positions::replace_positions(&mut query).map_err(|r| wrong(r.into()))?;
        limits::remove_needless(&mut query, &self.context);
        let inspection = refuse::inspect(&query, &self.context, &self.known);
        if !inspection.refusals.is_empty() {
            return Err(inspection
                .refusals
                .into_iter()
                .map(|r| refused(r, &table.file, &tokens))
                .collect());
        }
        if inspection.reads.iter().any(|read| self.broken.contains(read)) {
            return Ok(None);
        }
        let twice = match query.body.as_ref() {
            SetExpr::Select(select) => named_twice(&select.projection),
            _ => Vec::new(),
        };
        if !twice.is_empty() {
            return Err(twice.into_iter().map(|r| refused(r, &table.file, &tokens)).collect());
        }
        #[cfg(test)]
        super::faults::mistake(&self.dataflow.name, &mut query);
        let name = table.qualified_name();
        let recursions = self.recursions(&name, &mut query);
        let recursions = recursions.map_err(|mistakes| mistakes.diagnose(&table.file, &tokens))?;
        let items: Vec<_> = match query.body.as_ref() {
            SetExpr::Select(select) => select.projection.iter().collect(),
            _ => Vec::new(),
        };
        let wildcard = items
            .iter()
            .any(|i| matches!(i, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
        let spans: Vec<_> = if wildcard {
            Vec::new()
        } else {
            items.iter().map(|i| i.span()).collect()
        };

        let planned = self.planned(query, inspection.subquery, &|plan| self.named(plan, &spans));
        let (logical, schema) = planned.map_err(|mistakes| mistakes.diagnose(&table.file, &tokens))?;
        let mut lowering = Lowering {
            builder: &mut self.builder,
            sources: &self.sources,
            own: HashMap::new(),
            max_value: self.dataflow.bounds.max_value,
        };
        let node = (recursions.iter())
            .try_for_each(|recursion| lowering.recursion(recursion))
            .and_then(|()| lowering.lower(&logical))
            .and_then(|node| lowering.conform(node, &schema))
            .map_err(wrong)?;

        let (mut expectations, mut mistakes) = self.expectations(table, &schema);
        let key = self.columns(table, "key", &table.key, &schema, &mut mistakes);
        let partition_by = self.columns(table, "partition_by", &table.partition_by, &schema, &mut mistakes);
        let partitions = partitions::mistakes(&schema, &partition_by);
        let partitions = partitions.into_iter().map(|mistake| ("partition_by", mistake));
        let feed = match table.change_data_feed {
            true => change_feed::mistakes(&schema),
            false => Vec::new(),
        };
        let feed = feed.into_iter().map(|mistake| ("change_data_feed", mistake));
        mistakes.extend(partitions.chain(feed).map(|(setting, mistake)| {
            let file = settings_file(table);
            Diagnostic {
                line: self.setting_line(&file, "", setting),
                file,
                column: 0,
                message: mistake.message,
                help: mistake.help,
            }
        }));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        for &column in &partition_by {
            expectations.extend(self.readable(&schema, column).map_err(wrong)?);
        }
        if partitions::are_computed(&logical).map_err(|error| wrong(error.into()))? {
            for column in (0..schema.fields().len()).filter(|column| !partition_by.contains(column)) {
                expectations.extend(self.computed(&schema, column).map_err(wrong)?);
            }
        }
        let append_only = self.builder.nodes[node].append_only && table.key.is_empty() && table.retention.is_none();
        Ok(Some(PlannedTable {
            table: position,
            name: table.qualified_name(),
            node,
            schema,
            expectations,
            key,
            partition_by,
            append_only,
            logical,
            recursions,
        }))
    }

    /// Plans a query. `finish` makes the final plan and its columns of the analysed plan. `subquery` is the
    /// place of the first subquery that is used as a value.
    pub(super) fn planned(
        &self,
        mut query: Box<Query>,
        subquery: Option<Span>,
        finish: &PlanFinisher<'_>,
    ) -> Result<(LogicalPlan, SchemaRef), Mistakes> {
        ties::fetch_as_limit(query.as_mut());
        laterals::rewrite_laterals(query.as_mut())?;
        shorthands::write_out(query.as_mut());
        named_windows::inline_windows(&mut query)?;
        microseconds(query.as_mut());
        numbers::decimals(query.as_mut());
        operators(query.as_mut());
        without_using(&mut query, &self.context.state());
        standard::lengths(query.as_mut());
        let analysed = |query| finish(self.logical(SqlStatement::Query(query), subquery)?);
        let mut planned = analysed(query.clone());
        if planned.as_ref().is_err_and(Mistakes::are_of_a_value) {
            values::name_values(&mut query);
            planned = analysed(query.clone());
        }
        if planned.as_ref().is_err_and(Mistakes::are_of_one_name) && casts::name_casts(&mut query) {
            // If casts were not the reason, the first error is the better one: it is in the user's words.
            planned = analysed(query).or(planned);
        }
        planned
    }

    /// The optimised, completed plan, and the table's columns. Refuses names that a table's column cannot have;
    /// `spans` are the places of the columns.
    pub(super) fn named(&self, logical: LogicalPlan, spans: &[Span]) -> Result<(LogicalPlan, SchemaRef), Mistakes> {
        let columns = check_columns(&logical);
        if !columns.is_empty() {
            let at_their_places = columns
                .into_iter()
                .map(|(n, refusal)| refusal.at(spans.get(n).copied()));
            return Err(Mistakes::Columns(at_their_places.collect()));
        }
        Ok(self.finish(logical)?)
    }

    /// The analysed plan of a query: names are resolved, types agree, now() is a placeholder, and subqueries
    /// are joins.
    fn logical(&self, statement: SqlStatement, subquery: Option<Span>) -> Planned<LogicalPlan> {
        let state = self.context.state();
        let statement = Statement::Statement(Box::new(statement));
        // Planning reads nothing: the catalog is in memory, so its futures are ready at once.
        let plan = futures::executor::block_on(state.statement_to_plan(statement))?;
        let plan = now::hold_now(plan)?;
        let plan = sets::marked(normalise::distinct_on(plan)?)?;
        let options = state.config_options();
        let plan = session::analysed(&state, plan)?;
        let plan = normalise::types(
            widen_windows::widen_windows(normalise::exact_aggregates(plan)?)?,
            options,
        )?;
        // The rewrites above may have changed the types of functions' arguments.
        let plan = FunctionWrapper::new(self.dataflow.bounds.max_value).analyze(plan, options)?;
        standard::refuse(&plan)?;
        // EXCEPT ALL and INTERSECT ALL number the copies of a row when they are expanded. Where there are
        // subqueries this must happen before they become joins, so that copies are numbered for each row of the
        // outer query.
        let plan = match subqueries::has_subqueries(&plan) {
            true => sets::join_all_sets(plan)?,
            false => sets::join_distinct_sets(plan)?,
        };
        subqueries::unnest(plan, &|name| self.key(name), subquery)
    }

    /// The key columns of an input or table, which is given by its name in SQL; empty if it has none.
    fn key(&self, name: &str) -> Vec<String> {
        let inputs = self.dataflow.inputs.iter().filter(|input| input.name == name);
        let tables = self.dataflow.tables.iter().filter(|t| t.qualified_name() == name);
        let mut keys = inputs.map(|i| &i.key).chain(tables.map(|t| &t.key));
        keys.next().cloned().unwrap_or_default()
    }

    /// The optimised, completed plan, and the table's columns.
    pub(super) fn finish(&self, plan: LogicalPlan) -> Planned<(LogicalPlan, SchemaRef)> {
        let state = self.context.state();
        let mut columns = Vec::with_capacity(plan.schema().fields().len());
        for (qualifier, field) in plan.schema().iter() {
            let column = Logical::Column(datafusion::common::Column::from((qualifier, field)));
            let to = normalise::table_type(field.name(), field.data_type())?;
            let column = if &to == field.data_type() {
                column
            } else {
                cast(column, to)
            };
            columns.push(column.alias(field.name()));
        }
        let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?);
        let optimizer = session::optimizer(&plan)?;
        let optimise = |plan| optimizer.optimize(plan, &state, |_, _| {});
        let plan = complete::complete(optimise(plan)?)?;
        let plan = optimise(plan)?;
        let fields: Vec<Field> = plan
            .schema()
            .fields()
            .iter()
            .map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable()))
            .collect();
        Ok((plan, normalise_schema(&Schema::new(fields))))
    }

    fn expectations(&self, table: &Table, schema: &SchemaRef) -> (Vec<PlannedExpectation>, Vec<Diagnostic>) {
        let (mut planned, mut mistakes) = (Vec::new(), Vec::new());
        for expectation in &table.expectations {
            match self.check(&expectation.check, schema) {
                Ok(check) => planned.push(PlannedExpectation {
                    name: expectation.name.clone(),
                    check,
                    on_violation: expectation.on_violation,
                }),
                Err(error) => {
                    let file = settings_file(table);
                    let line = self.setting_line(&file, &format!("[expect.{}]", expectation.name), "check");
                    for mut mistake in diagnose(error, &file, &[]) {
                        mistake.message = format!("expectation {:?}: {}", expectation.name, mistake.message);
                        (mistake.line, mistake.column) = (line, 0);
                        mistakes.push(mistake);
                    }
                }
            }
        }
        (planned, mistakes)
    }

    /// Plans a condition as a boolean expression over a table's columns.
    pub(super) fn check(&self, sql: &str, schema: &SchemaRef) -> Planned<super::Expr> {
        let named: DFSchema = schema.clone().to_dfschema()?;
        let state = self.context.state();
        let mut written = DFParserBuilder::new(sql)
            .with_dialect(&Standard)
            .with_recursion_limit(shape::PARSER_DEPTH)
            .build()?
            .parse_into_expr()?;
        shorthands::write_out(&mut written.expr);
        microseconds(&mut written.expr);
        numbers::decimals(&mut written.expr);
        operators(&mut written.expr);
        standard::lengths(&mut written.expr);
        let expr = state.create_logical_expr_from_sql_expr(written, &named)?;
        let mut refusal = None;
        datafusion::common::tree_node::TreeNode::apply(&expr, |e| {
            if let Logical::AggregateFunction(AggregateFunction { func, .. }) = e {
                refusal = Some(
                    Refusal::new(format!(
                        "could not plan {}() here: a row is judged by itself",
                        func.name()
                    ))
                    .help("compare the row's own columns; a condition on many rows can be checked in a Gold table"),
                );
            }
            if matches!(
                e,
                Logical::Exists(_) | Logical::InSubquery(_) | Logical::ScalarSubquery(_) | Logical::SetComparison(_)
            ) {
                refusal = Some(
                    Refusal::new("could not plan a subquery here: a row is judged by itself").help(
                        "compare the row's own columns; what it is to be compared with can be joined in the table's SELECT",
                    ),
                );
            }
            if let Logical::ScalarFunction(call) = e
                && (call.func.signature().volatility == datafusion::logical_expr::Volatility::Volatile
                    || matches!(call.name(), "now" | "current_date" | "current_time"))
            {
                refusal = Some(
                    Refusal::new(format!(
                        "could not plan {}() here: a row would be judged anew each time",
                        call.name()
                    ))
                    .help("compare the row's own columns"),
                );
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
        let info = datafusion::logical_expr::simplify::SimplifyContext::builder()
            .with_schema(Arc::new(named.clone()))
            .with_config_options(Arc::clone(state.config_options()))
            .build();
        let simplifier = datafusion::optimizer::simplify_expressions::ExprSimplifier::new(info);
        let agreed = |expr| numbers::agreed(simplifier.coerce(numbers::agreed(expr, &named)?, &named)?, &named);
        let expr = wrap_functions(agreed(expr)?, &named, self.dataflow.bounds.max_value)?;
        let expr = optimise::folded(agreed(expr)?, &named)?.data;
        let planned = physical(&expr, &named, schema)?;
        match planned.data_type(schema)? {
            DataType::Boolean | DataType::Null => Ok(planned),
            other => Err(not_a_condition(&format!("a {other}")).into()),
        }
    }

    fn columns(
        &self,
        table: &Table,
        setting: &str,
        names: &[String],
        schema: &SchemaRef,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Vec<usize> {
        let mut positions = Vec::with_capacity(names.len());
        for name in names {
            match schema.index_of(name) {
                Ok(position) => positions.push(position),
                Err(_) => {
                    let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                    let file = settings_file(table);
                    mistakes.push(Diagnostic {
                        line: self.setting_line(&file, "", setting),
                        file,
                        column: 0,
                        message: format!("could not find the column {name:?} that {setting} names"),
                        help: Some(match nearest(name, columns.iter().copied()) {
                            Some(near) => format!("did you mean {near:?}?"),
                            None => format!("known are {}", columns.join(", ")),
                        }),
                    });
                }
            }
        }
        positions
    }

    /// The line of a setting in a file, below a header such as `[expect.name]`; 0 if it is not found.
    fn setting_line(&self, file: &Path, header: &str, setting: &str) -> usize {
        let Ok(text) = std::fs::read_to_string(self.dataflow.folder.join(file)) else {
            return 0;
        };
        let compact = |line: &str| {
            line.chars()
                .filter(|c| !c.is_whitespace() && *c != '"')
                .collect::<String>()
        };
        let lines: Vec<String> = text.lines().map(compact).collect();
        let from = if header.is_empty() {
            0
        } else {
            lines.iter().position(|l| l == &compact(header)).unwrap_or(0)
        };
        let position = lines
            .iter()
            .skip(from)
            .position(|l| l.starts_with(&format!("{setting}=")));
        position.map_or(0, |n| from + n + 1)
    }
}

/// Makes the final plan and its columns of an analysed plan.
pub(super) type PlanFinisher<'a> = dyn Fn(LogicalPlan) -> Result<(LogicalPlan, SchemaRef), Mistakes> + 'a;

fn settings_file(table: &Table) -> PathBuf {
    table.settings_file.clone().unwrap_or_else(|| table.file.clone())
}

/// Parses the statements of a file, whose window table functions and ASOF joins are rewritten first.
fn parse(tokens: Vec<TokenWithSpan>) -> Planned<Vec<Statement>> {
    let tokens = laterals::rewrite_asof(windows::rewrite(unread::remove_needless(tokens)?)?);
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(&Standard)
        .with_recursion_limit(shape::PARSER_DEPTH)
        .build()?;
    Ok(parser.parse_statements()?.into())
}

/// Refusals of columns of a SELECT whose name an earlier column has.
fn named_twice(items: &[SelectItem]) -> Vec<Refusal> {
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.to_lowercase()),
        SelectItem::UnnamedExpr(SqlExpr::Identifier(name)) => Some(name.value.to_lowercase()),
        SelectItem::UnnamedExpr(SqlExpr::CompoundIdentifier(parts)) => parts.last().map(|p| p.value.to_lowercase()),
        _ => None,
    };
    let mut seen = BTreeSet::new();
    let mut refusals = Vec::new();
    for item in items {
        if let Some(name) = name(item)
            && !seen.insert(name.clone())
        {
            refusals.push(two_columns(&name).at(Some(item.span())));
        }
    }
    refusals
}

/// The refusal of two columns with one name.
pub(super) fn two_columns(name: &str) -> Refusal {
    // DataFusion names an expression after its text, even if the user gives it an alias.
    let help = if name.contains('(') {
        "compute one of them in a subquery of FROM, under another name"
    } else {
        "name one of them anew: AS ..."
    };
    Refusal::new(format!("could not name two columns {name:?}")).help(help)
}

/// Columns whose names a Delta table cannot have or that repeat an earlier name, each with its position.
fn check_columns(plan: &LogicalPlan) -> Vec<(usize, Refusal)> {
    let mut refusals = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (n, field) in plan.schema().fields().iter().enumerate() {
        let name = field.name();
        if name.is_empty() || name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
            refusals.push((
                n,
                Refusal::new(format!("could not use {name:?} as a column's name"))
                    .help("give it a name: AS ..., without blanks and ,;{}()=, which Delta tables do not take"),
            ));
        } else if seen.insert(name.to_lowercase(), n).is_some() {
            refusals.push((n, two_columns(name).near(name)));
        }
    }
    refusals
}
