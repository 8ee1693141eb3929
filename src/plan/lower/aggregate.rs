//! Lowers GROUP BY. GROUPING SETS, ROLLUP and CUBE become a union of several.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::{AggregateFunction, GroupingSet};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate as LogicalAggregate, Expr as Logical};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::expressions::Literal;

use super::{Lowering, expr};
use crate::plan::error::{Planned, Refusal};
use crate::plan::guard::gathers;
use crate::plan::{Aggregate, AggregateCall, AggregateKind, Expr, NodeId, Op};
use crate::repr::{normalise_schema, normalise_type};

/// The most columns of a CUBE, which then becomes 64 aggregates over one input.
const MAX_CUBE: usize = 6;

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &LogicalAggregate) -> Planned<NodeId> {
        let input = self.lower(&aggregate.input)?;
        let logical = normal_dfschema(aggregate.input.schema())?;
        let schema = normalise_schema(aggregate.schema.as_arrow());
        match aggregate.group_expr.as_slice() {
            [Logical::GroupingSet(GroupingSet::GroupingSets(sets))] => {
                self.grouping_sets(input, &logical, sets, &aggregate.aggr_expr, schema)
            }
            [Logical::GroupingSet(GroupingSet::Rollup(columns))] => {
                let sets: Vec<Vec<Logical>> = (0..=columns.len()).rev().map(|n| columns[..n].to_vec()).collect();
                self.grouping_sets(input, &logical, &sets, &aggregate.aggr_expr, schema)
            }
            [Logical::GroupingSet(GroupingSet::Cube(columns))] if columns.len() <= MAX_CUBE => {
                let columns_of = |mask: usize| {
                    let chosen = columns.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0);
                    chosen.map(|(_, column)| column.clone()).collect()
                };
                // The set of all columns comes first, so that the columns keep their order.
                let sets: Vec<Vec<Logical>> = (0..1usize << columns.len()).rev().map(columns_of).collect();
                self.grouping_sets(input, &logical, &sets, &aggregate.aggr_expr, schema)
            }
            groups if groups.iter().any(|g| matches!(g, Logical::GroupingSet(_))) => Err(Refusal::new(
                "could not plan this ROLLUP or CUBE: it has too many groups",
            )
            .help("write out the grouping sets you need: GROUP BY GROUPING SETS ((a, b), (a), ())")
            .near("GROUP")
            .into()),
            groups => self.group(input, &logical, groups, &aggregate.aggr_expr, schema),
        }
    }

    fn group(
        &mut self,
        input: NodeId,
        logical: &DFSchema,
        groups: &[Logical],
        calls: &[Logical],
        schema: SchemaRef,
    ) -> Planned<NodeId> {
        let actual = self.builder.schema(input).clone();
        let group = groups
            .iter()
            .map(|g| expr::physical(g, logical, &actual))
            .collect::<Planned<Vec<_>>>()?;
        if calls.is_empty() {
            let rows = self.map(input, group, schema);
            return Ok(self.distinct(rows));
        }
        let aggregates = calls
            .iter()
            .map(|c| aggregate_call(c, logical, &actual, self.max_value))
            .collect::<Planned<Vec<_>>>()?;
        Ok(self.add(
            Op::Aggregate(Aggregate { group, aggregates }),
            vec![input],
            schema,
            "aggregate",
            false,
        ))
    }

    /// Makes one aggregate for each grouping set. The columns that a set lacks are null. `__grouping_id`
    /// identifies the set: a bit is set for each column that the set lacks, the last column's being the lowest;
    /// above these bits stands how many equal sets came before.
    fn grouping_sets(
        &mut self,
        input: NodeId,
        logical: &DFSchema,
        sets: &[Vec<Logical>],
        calls: &[Logical],
        schema: SchemaRef,
    ) -> Planned<NodeId> {
        let mut all: Vec<&Logical> = Vec::new();
        for e in sets.iter().flatten() {
            if !all.contains(&e) {
                all.push(e);
            }
        }
        let mut seen: HashMap<u64, u64> = HashMap::new();
        let mut inputs = Vec::with_capacity(sets.len());
        for set in sets {
            let in_set: Vec<&Logical> = all.iter().copied().filter(|e| set.contains(e)).collect();
            let mask = all
                .iter()
                .fold(0u64, |mask, e| (mask << 1) | u64::from(!set.contains(e)));
            let ordinal = seen.entry(mask).or_insert(0);
            let id = mask | (*ordinal << all.len());
            *ordinal += 1;

            // The group columns of the set, then the aggregates.
            let positions: Vec<usize> = (0..all.len())
                .filter(|&n| set.contains(all[n]))
                .chain(all.len() + 1..schema.fields().len())
                .collect();
            let fields: Vec<Field> = positions.iter().map(|&p| schema.field(p).clone()).collect();
            let own = Arc::new(Schema::new(fields));
            let groups: Vec<Logical> = in_set.into_iter().cloned().collect();
            let node = if groups.is_empty() && calls.is_empty() {
                // The group of the empty set exists even without rows.
                self.constant(rows_without_columns(1)?, crate::plan::share::no_columns())
            } else {
                self.group(input, logical, &groups, calls, own.clone())?
            };

            let grouped = self.builder.schema(node).clone();
            let mut next = 0;
            let mut projection: Vec<Expr> = Vec::with_capacity(schema.fields().len());
            for (n, field) in schema.fields().iter().enumerate() {
                if n == all.len() {
                    let id = ScalarValue::UInt64(Some(id)).cast_to(field.data_type())?;
                    projection.push(Arc::new(Literal::new(id)));
                } else if positions.contains(&n) {
                    let column = expr::column(&grouped, next);
                    projection.push(expr::cast_to(column, &grouped, field.data_type())?);
                    next += 1;
                } else {
                    let null = ScalarValue::try_from(field.data_type())?;
                    projection.push(Arc::new(Literal::new(null)));
                }
            }
            inputs.push(self.map(node, projection, schema.clone()));
        }
        Ok(self.union_of(inputs, schema))
    }
}

/// The schema with normalised types, which nodes have.
pub(super) fn normal_dfschema(schema: &DFSchema) -> Planned<DFSchema> {
    let fields = schema
        .iter()
        .map(|(qualifier, field)| {
            let normal = field.as_ref().clone().with_data_type(normalise_type(field.data_type()));
            (qualifier.cloned(), Arc::new(normal))
        })
        .collect();
    Ok(DFSchema::new_with_metadata(fields, schema.metadata().clone())?)
}

fn aggregate_call(call: &Logical, logical: &DFSchema, actual: &Schema, max_value: u64) -> Planned<AggregateCall> {
    let Logical::AggregateFunction(AggregateFunction { func, params }) = call.clone().unalias_nested().data else {
        return Err(Refusal::new(format!("could not plan the aggregate {call}")).into());
    };
    let mut params = params;
    let distinct_matters = !matches!(func.name(), "min" | "max" | "bool_and" | "bool_or");
    params.distinct &= distinct_matters;
    let kind = kind(func.name(), params.distinct, params.order_by.is_empty());
    let args = params
        .args
        .iter()
        .map(|a| expr::physical(a, logical, actual))
        .collect::<Planned<Vec<_>>>()?;
    let filter = match &params.filter {
        Some(filter) => Some(expr::physical_as(filter, logical, actual, &DataType::Boolean)?),
        None => None,
    };
    let distinct = params.distinct;
    let most = gathers(func.name()).then_some(max_value);
    let bare = Logical::AggregateFunction(AggregateFunction { func, params });
    let lowered = LoweredAggregateBuilder::new(
        &bare,
        logical,
        actual,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .build()?;
    // Fails here, when the plan is made, if a function cannot be evaluated over these types.
    lowered.aggregate.create_accumulator()?;
    Ok(AggregateCall {
        kind,
        args,
        filter,
        distinct,
        function: lowered.aggregate,
        most,
    })
}

fn kind(name: &str, distinct: bool, unordered: bool) -> AggregateKind {
    if !unordered {
        return AggregateKind::General;
    }
    match name {
        "count" => AggregateKind::Count,
        "sum" => AggregateKind::Sum,
        "avg" => AggregateKind::Avg,
        "min" => AggregateKind::Min,
        "max" => AggregateKind::Max,
        "bool_and" => AggregateKind::BoolAnd,
        "bool_or" => AggregateKind::BoolOr,
        _ if distinct => AggregateKind::General,
        "var_pop" => AggregateKind::VarPop,
        "var" | "var_samp" => AggregateKind::VarSamp,
        "stddev_pop" => AggregateKind::StddevPop,
        "stddev" | "stddev_samp" => AggregateKind::StddevSamp,
        _ => AggregateKind::General,
    }
}

/// A batch of `count` rows without columns.
pub(super) fn rows_without_columns(count: usize) -> Planned<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(
        crate::plan::share::no_columns(),
        vec![],
        &options,
    )?)
}
