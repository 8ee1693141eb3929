//! Coerces nodes of a plan whose inputs have numbers or times in common: joins, unions and VALUES. Also
//! rewrites averages.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, Projection, Union, Values, Window,
    WindowFunctionDefinition, cast,
};

use super::super::rewrite::rewrite;
use super::super::{sets, times};
use super::agree::{agreed, coerce_to_common, converted};
use super::functions;
use super::types::{CommonTypeUse, is_number, mean, meeting_of, shape};

/// The plan with its types coerced. For a subquery, `outer` has the columns of the outer query.
pub(super) fn agreed_within(plan: LogicalPlan, outer: &DFSchema) -> Result<LogicalPlan> {
    plan.transform_down_up(
        |node| agreed_beside(node, outer),
        |node| agreed_node(node, outer).map(Transformed::yes),
    )
    .data()
}

/// Coerces both sides of a LATERAL join, the left one first: the right one reads columns of the left, and needs
/// their final types.
fn agreed_beside(node: LogicalPlan, outer: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(mut join) = node else {
        return Ok(Transformed::no(node));
    };
    if !join.right.exists(|n| Ok(matches!(n, LogicalPlan::Subquery(_))))? {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    join.left = Arc::new(agreed_within(Arc::unwrap_or_clone(join.left), outer)?);
    let mut beside = join.left.schema().as_ref().clone();
    beside.merge(outer);
    join.right = Arc::new(agreed_within(Arc::unwrap_or_clone(join.right), &beside)?);
    let node = LogicalPlan::Join(join);
    Ok(Transformed::new(node, true, TreeNodeRecursion::Jump))
}

fn agreed_node(node: LogicalPlan, outer: &DFSchema) -> Result<LogicalPlan> {
    let mut schema = merge_schema(&node.inputs());
    if let LogicalPlan::TableScan(scan) = &node {
        schema.merge(&scan.projected_schema);
    }
    schema.merge(outer);
    let names = grouped_names(&node);
    let node = rewrite(node, |expr| agreed(expr, &schema))?.data;
    match with_grouped_names(node, names)? {
        LogicalPlan::Union(union) => agreed_union(union),
        LogicalPlan::Values(values) => agreed_values(values),
        LogicalPlan::Join(mut join) => {
            for (left, right) in &mut join.on {
                meet_across(left, join.left.schema(), right, join.right.schema());
            }
            LogicalPlan::Join(join).recompute_schema()
        }
        LogicalPlan::Aggregate(aggregate) => match means_of_groups(&aggregate)? {
            Some(plan) => Ok(plan),
            None => LogicalPlan::Aggregate(aggregate).recompute_schema(),
        },
        LogicalPlan::Window(window) => match means_of_windows(&window)? {
            Some(plan) => Ok(plan),
            None => LogicalPlan::Window(window).recompute_schema(),
        },
        node @ LogicalPlan::Extension(_) => sets::coerce_sides(node.recompute_schema()?),
        node => node.recompute_schema(),
    }
}

/// The names of the expressions in grouping sets.
pub(in crate::plan) fn grouped_names(node: &LogicalPlan) -> Vec<String> {
    let grouped = grouped(node).into_iter();
    grouped.map(|expr| expr.schema_name().to_string()).collect()
}

/// The node, whose grouping sets have been rewritten, with their expressions renamed to `names`.
pub(in crate::plan) fn with_grouped_names(mut node: LogicalPlan, names: Vec<String>) -> Result<LogicalPlan> {
    if names.is_empty() {
        return Ok(node);
    }
    rename(&mut node, names);
    node.recompute_schema()
}

/// The expressions in grouping sets. Their names are names of columns, but [`rewrite`] only keeps the names of
/// whole expressions.
fn grouped(node: &LogicalPlan) -> Vec<&Expr> {
    let LogicalPlan::Aggregate(aggregate) = node else {
        return vec![];
    };
    match aggregate.group_expr.as_slice() {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.iter().flatten().collect(),
        [Expr::GroupingSet(GroupingSet::Rollup(exprs) | GroupingSet::Cube(exprs))] => exprs.iter().collect(),
        _ => vec![],
    }
}

/// Gives the expressions in grouping sets these names.
fn rename(node: &mut LogicalPlan, names: Vec<String>) {
    let LogicalPlan::Aggregate(aggregate) = node else {
        return;
    };
    // [`rewrite`] has given the grouping set as a whole its name back, which no column has.
    for expr in &mut aggregate.group_expr {
        if matches!(expr, Expr::Alias(alias) if matches!(alias.expr.as_ref(), Expr::GroupingSet(_))) {
            *expr = std::mem::take(expr).unalias();
        }
    }
    let exprs: Vec<&mut Expr> = match aggregate.group_expr.as_mut_slice() {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.iter_mut().flatten().collect(),
        [Expr::GroupingSet(GroupingSet::Rollup(exprs) | GroupingSet::Cube(exprs))] => exprs.iter_mut().collect(),
        _ => vec![],
    };
    for (expr, name) in exprs.into_iter().zip(names) {
        if expr.schema_name().to_string() != name {
            *expr = std::mem::take(expr).alias(name);
        }
    }
}

/// Converts the two keys of a join to a common type.
fn meet_across(left: &mut Expr, left_schema: &DFSchema, right: &mut Expr, right_schema: &DFSchema) {
    let (Ok(l), Ok(r)) = (left.get_type(left_schema), right.get_type(right_schema)) else {
        return;
    };
    if let Some(to) = meeting_of(&[l.clone(), r.clone()], CommonTypeUse::Compared) {
        *left = converted(std::mem::take(left), &l, &to);
        *right = converted(std::mem::take(right), &r, &to);
    }
}

/// A UNION whose inputs have the common types of their columns.
fn agreed_union(union: Union) -> Result<LogicalPlan> {
    let columns = union.schema.fields().len();
    if union
        .inputs
        .iter()
        .any(|input| input.schema().fields().len() != columns)
    {
        return Ok(LogicalPlan::Union(union)); // a UNION BY NAME
    }
    let of = |n: usize| -> Vec<DataType> {
        let types = union
            .inputs
            .iter()
            .map(|input| input.schema().field(n).data_type().clone());
        types.collect()
    };
    let to: Vec<Option<DataType>> = (0..columns)
        .map(|n| meeting_of(&of(n), CommonTypeUse::Kept).filter(|to| !to.is_null()))
        .collect();
    // If no common type is found here, DataFusion finds one from the inputs' types, beginning with the schema's.
    let fields = union.schema.iter().enumerate().map(|(n, (qualifier, field))| {
        let common = to[n].clone().unwrap_or_else(|| of(n)[0].clone());
        let field: Field = field.as_ref().clone().with_data_type(common);
        (qualifier.cloned(), Arc::new(field))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), union.schema.metadata().clone())?;
    let mut inputs = Vec::with_capacity(union.inputs.len());
    for input in &union.inputs {
        inputs.push(with_types(input, &to)?);
    }
    Ok(LogicalPlan::Union(Union {
        inputs,
        schema: Arc::new(schema),
    }))
}

/// The rows with their columns cast to these types; `None` leaves a column as it is.
pub(in crate::plan) fn with_types(input: &Arc<LogicalPlan>, to: &[Option<DataType>]) -> Result<Arc<LogicalPlan>> {
    let is_so = |n: usize| {
        to[n]
            .as_ref()
            .is_none_or(|to| to == input.schema().field(n).data_type())
    };
    if (0..to.len()).all(is_so) {
        return Ok(input.clone());
    }
    let (exprs, below) = match input.as_ref() {
        LogicalPlan::Projection(projection) => (projection.expr.clone(), projection.input.clone()),
        _ => (input.schema().iter().map(Expr::from).collect(), input.clone()),
    };
    let mut made = Vec::with_capacity(exprs.len());
    for (n, expr) in exprs.into_iter().enumerate() {
        let (qualifier, field) = input.schema().qualified_field(n);
        made.push(match &to[n] {
            Some(to) if to != field.data_type() => {
                converted(expr.unalias(), field.data_type(), to).alias_qualified(qualifier.cloned(), field.name())
            }
            _ => expr,
        });
    }
    Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(made, below)?)))
}

/// VALUES with common types of its columns. DataFusion has already cast the cells; those casts are undone first.
fn agreed_values(values: Values) -> Result<LogicalPlan> {
    let nothing = DFSchema::empty();
    let Values {
        schema,
        values: mut rows,
    } = values;
    let mut fields = Vec::with_capacity(schema.fields().len());
    for (n, (qualifier, field)) in schema.iter().enumerate() {
        let mut common = field.data_type().clone();
        let is_known = |of: &DataType| is_number(of) || times::is_time(of);
        if is_known(&common) {
            for row in &mut rows {
                if let Expr::Cast(given) = &row[n]
                    && given.field.data_type() == &common
                    && given
                        .expr
                        .get_type(&nothing)
                        .is_ok_and(|of| of.is_null() || is_known(&of))
                {
                    row[n] = given.expr.as_ref().clone();
                }
            }
            coerce_to_common(
                rows.iter_mut().map(|row| &mut row[n]).collect(),
                CommonTypeUse::Kept,
                &nothing,
            );
            let types = rows
                .iter()
                .map(|row| row[n].get_type(&nothing))
                .collect::<Result<Vec<_>>>()?;
            let mut some = types.iter().filter(|of| !of.is_null());
            if let Some(first) = some.next()
                && some.all(|of| of == first)
            {
                common = first.clone();
            }
            for (row, from) in rows.iter_mut().zip(&types) {
                row[n] = converted(std::mem::take(&mut row[n]), from, &common);
            }
        }
        fields.push((
            qualifier.cloned(),
            Arc::new(field.as_ref().clone().with_data_type(common)),
        ));
    }
    let schema = DFSchema::new_with_metadata(fields, schema.metadata().clone())?;
    Ok(LogicalPlan::Values(Values {
        schema: Arc::new(schema),
        values: rows,
    }))
}

/// A column of the old node: a column of the new node, or an average of two of its columns.
enum OutputColumn {
    Column(usize),
    Mean { sum: usize, of: MeanKind },
}

/// The kind of an average.
#[derive(Clone, Copy)]
enum MeanKind {
    /// Of decimals, with the precision and scale of the result.
    Decimals((u8, i8)),
    /// Of integers that doubles may not hold: they are added up exactly, and the result is the nearest double.
    Wholes,
}

/// Replaces averages of a GROUP BY by sums and counts, with a projection above that divides them.
fn means_of_groups(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let Some((calls, shown)) = without_means(&aggregate.aggr_expr, groups, aggregate.input.schema()) else {
        return Ok(None);
    };
    let node = Aggregate::try_new(aggregate.input.clone(), aggregate.group_expr.clone(), calls)?;
    show(LogicalPlan::Aggregate(node), &aggregate.schema, &shown).map(Some)
}

/// Replaces averages of window functions in the same way.
fn means_of_windows(window: &Window) -> Result<Option<LogicalPlan>> {
    let own = window.input.schema().fields().len();
    let Some((calls, shown)) = without_means(&window.window_expr, own, window.input.schema()) else {
        return Ok(None);
    };
    let node = Window::try_new(calls, window.input.clone())?;
    show(LogicalPlan::Window(node), &window.schema, &shown).map(Some)
}

/// The calls of a node with a sum and a count in place of each [`MeanKind`], and how the old columns follow: `own`
/// columns before the calls, then one for each call. `None` if no call is such an average.
fn without_means(calls: &[Expr], own: usize, input: &DFSchema) -> Option<(Vec<Expr>, Vec<OutputColumn>)> {
    let mut made: Vec<Expr> = Vec::with_capacity(calls.len());
    let mut shown: Vec<OutputColumn> = (0..own).map(OutputColumn::Column).collect();
    for (n, call) in calls.iter().enumerate() {
        let at = own + made.len();
        let bare = call.clone().unalias_nested().data;
        match mean_of(&bare, input) {
            Some(of) => {
                made.push(with_function(&exact(&bare, of), sum_udaf()).alias(format!("$sum{n}")));
                made.push(with_function(&bare, count_udaf()).alias(format!("$count{n}")));
                shown.push(OutputColumn::Mean { sum: at, of });
            }
            None => {
                made.push(call.clone());
                shown.push(OutputColumn::Column(at));
            }
        }
    }
    (made.len() > calls.len()).then_some((made, shown))
}

/// The kind of average that a call is; `None` if the call is another aggregate or needs no rewrite.
fn mean_of(call: &Expr, input: &DFSchema) -> Option<MeanKind> {
    let args = match call {
        Expr::AggregateFunction(call) if call.func.name() == "avg" => &call.params.args,
        Expr::WindowFunction(call) if call.fun.name() == "avg" => &call.params.args,
        _ => return None,
    };
    match args.first()?.get_type(input).ok()? {
        // Over a frame, integers are averaged as doubles.
        DataType::Int64 | DataType::UInt64 if matches!(call, Expr::AggregateFunction(_)) => Some(MeanKind::Wholes),
        of if of.is_decimal() => shape(&of).map(|of| MeanKind::Decimals(mean(of))),
        _ => None,
    }
}

/// The call with its argument cast to a type in which a sum of integers is exact.
fn exact(call: &Expr, of: MeanKind) -> Expr {
    let mut call = call.clone();
    if let (Expr::AggregateFunction(call), MeanKind::Wholes) = (&mut call, of) {
        let argument = &mut call.params.args[0];
        *argument = cast(std::mem::take(argument), DataType::Decimal128(38, 0));
    }
    call
}

/// The call of another aggregate with the same arguments, filter and frame.
fn with_function(call: &Expr, func: Arc<AggregateUDF>) -> Expr {
    let mut call = call.clone();
    match &mut call {
        Expr::AggregateFunction(call) => call.func = func,
        Expr::WindowFunction(call) => call.fun = WindowFunctionDefinition::AggregateUDF(func),
        _ => {}
    }
    call
}

fn show(node: LogicalPlan, before: &DFSchema, shown: &[OutputColumn]) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = node.schema().columns().into_iter().map(Expr::Column).collect();
    let exprs = shown.iter().enumerate().map(|(n, shown)| match shown {
        OutputColumn::Column(at) => columns[*at].clone(),
        OutputColumn::Mean { sum, of } => {
            let (qualifier, field) = before.qualified_field(n);
            let name = Column::from((qualifier, field));
            let (sum, count) = (columns[*sum].clone(), columns[sum + 1].clone());
            let mean = match of {
                MeanKind::Decimals(to) => functions::mean(sum, count, *to),
                MeanKind::Wholes => functions::ratio(sum, count),
            };
            mean.alias_qualified(name.relation, name.name)
        }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(
        exprs.collect::<Vec<_>>(),
        Arc::new(node),
    )?))
}
