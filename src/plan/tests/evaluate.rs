//! A naive evaluation of the graph over the fixture's rows, which defines what `render` must yield.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array};
use arrow::compute::{
    SortColumn, SortOptions, cast, concat, concat_batches, filter_record_batch, lexsort_to_indices, take,
    take_record_batch,
};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::row::{OwnedRow, RowConverter, SortField};

use super::fixture::rows;
use crate::plan::{
    Aggregate, Expr, Graph, Join, JoinKind, NodeId, Op, Rank, SetKind, SortKey, Temporal, TemporalBound, TopK, Unnest,
    Window,
};

/// The rows of a node as of an epoch, in milliseconds.
pub fn evaluate(graph: &Graph, node: NodeId, epoch_ms: u64) -> RecordBatch {
    evaluate_over(graph, node, epoch_ms, None)
}

/// As [`evaluate`]; within the step of a recursive query, `before` has the rows of the round before.
fn evaluate_over(graph: &Graph, node: NodeId, epoch_ms: u64, before: Option<&RecordBatch>) -> RecordBatch {
    let node = &graph.nodes[node];
    let inputs: Vec<RecordBatch> = match node.op {
        Op::Table(_) | Op::SoFar | Op::Recursive(_) => vec![],
        _ => (node.inputs.iter())
            .map(|&i| evaluate_over(graph, i, epoch_ms, before))
            .collect(),
    };
    let schema = &node.schema;
    let batch = match &node.op {
        Op::Input(_) => rows(&node.name),
        Op::Table(table) => evaluate(graph, graph.tables[*table].node, epoch_ms),
        Op::Constant(batch) => batch.clone(),
        Op::SoFar => before.expect("only a step reads the rows before").clone(),
        Op::Recursive(plan) => {
            let mut seen = BTreeSet::new();
            let mut fresh = |rows: RecordBatch| {
                let all = keys(rows.columns(), rows.num_rows());
                let positions = (0..all.len()).filter(|&n| seen.insert(all[n].clone()) || !plan.distinct);
                pick(&rows, &positions.map(|n| n as u32).collect::<Vec<_>>())
            };
            let mut round = fresh(evaluate_over(graph, node.inputs[0], epoch_ms, before));
            let mut all = vec![];
            for _ in 0..=plan.most_rounds {
                all.push(of(schema, round.columns().to_vec(), round.num_rows()));
                round = fresh(evaluate_over(graph, node.inputs[1], epoch_ms, Some(&round)));
                if round.num_rows() == 0 {
                    break;
                }
            }
            concat_batches(schema, &all).unwrap()
        }
        Op::Mfp(mfp) => {
            let mut batch = inputs[0].clone();
            for predicate in &mfp.predicates {
                batch = filter_record_batch(&batch, values(predicate, &batch).as_boolean()).unwrap();
            }
            match &mfp.projection {
                None => batch,
                Some(exprs) => of(
                    schema,
                    exprs.iter().map(|e| values(e, &batch)).collect(),
                    batch.num_rows(),
                ),
            }
        }
        Op::Join(join) => evaluate_join(join, schema, &inputs[0], &inputs[1]),
        Op::Aggregate(aggregate) => evaluate_aggregate(aggregate, schema, &inputs[0]),
        Op::Distinct => {
            let mut seen = BTreeSet::new();
            let all = keys(inputs[0].columns(), inputs[0].num_rows());
            let positions: Vec<u32> = (0..all.len())
                .filter(|&n| seen.insert(all[n].clone()))
                .map(|n| n as u32)
                .collect();
            pick(&inputs[0], &positions)
        }
        Op::Counted(kind) => {
            let [left, right] = [0, 1].map(|n| keys(inputs[n].columns(), inputs[n].num_rows()));
            let mut right = right.into_iter().fold(BTreeMap::new(), |mut counts, row| {
                *counts.entry(row).or_insert(0) += 1;
                counts
            });
            let is_there = |row: &_| match right.get_mut(row) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    true
                }
                _ => false,
            };
            let in_other: Vec<bool> = left.iter().map(is_there).collect();
            let positions = (0..left.len()).filter(|n| in_other[*n] == (*kind == SetKind::Intersect));
            pick(&inputs[0], &positions.map(|n| n as u32).collect::<Vec<_>>())
        }
        Op::TopK(top) => evaluate_top(top, schema, &inputs[0]),
        Op::Window(window) => evaluate_window(window, schema, &inputs[0]),
        Op::Union => {
            let inputs: Vec<RecordBatch> = inputs
                .iter()
                .map(|b| of(schema, b.columns().to_vec(), b.num_rows()))
                .collect();
            concat_batches(schema, &inputs).unwrap()
        }
        Op::Unnest(unnest) => evaluate_unnest(unnest, schema, &inputs[0]),
        Op::Temporal(temporal) => evaluate_temporal(temporal, &inputs[0], epoch_ms as i64 * 1000),
    };
    of(schema, batch.columns().to_vec(), batch.num_rows())
}

/// A batch of these columns, whose types must be those of the schema.
fn of(schema: &SchemaRef, columns: Vec<ArrayRef>, count: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).unwrap()
}

fn values(expr: &Expr, batch: &RecordBatch) -> ArrayRef {
    expr.evaluate(batch).unwrap().into_array(batch.num_rows()).unwrap()
}

fn pick(batch: &RecordBatch, rows: &[u32]) -> RecordBatch {
    if batch.num_columns() == 0 {
        return of(batch.schema_ref(), vec![], rows.len());
    }
    take_record_batch(batch, &UInt32Array::from(rows.to_vec())).unwrap()
}

fn keys(columns: &[ArrayRef], count: usize) -> Vec<Option<OwnedRow>> {
    if columns.is_empty() {
        return vec![None; count];
    }
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let rows = RowConverter::new(fields).unwrap().convert_columns(columns).unwrap();
    rows.iter().map(|r| Some(r.owned())).collect()
}

fn evaluate_join(join: &Join, schema: &SchemaRef, left: &RecordBatch, right: &RecordBatch) -> RecordBatch {
    let side = |exprs: &[Expr], batch: &RecordBatch| {
        let columns: Vec<ArrayRef> = exprs.iter().map(|e| values(e, batch)).collect();
        let null: Vec<bool> = (0..batch.num_rows())
            .map(|n| columns.iter().any(|c| c.is_null(n)))
            .collect();
        (keys(&columns, batch.num_rows()), null)
    };
    let ((lk, ln), (rk, rn)) = (side(&join.left_keys, left), side(&join.right_keys, right));
    let (mut l, mut r) = (vec![], vec![]);
    for i in 0..left.num_rows() {
        for j in 0..right.num_rows() {
            if lk[i] == rk[j] && (join.null_equals_null || !(ln[i] || rn[j])) {
                l.push(i as u32);
                r.push(j as u32);
            }
        }
    }
    if let Some(residual) = &join.residual {
        let columns: Vec<ArrayRef> = pick(left, &l)
            .columns()
            .iter()
            .chain(pick(right, &r).columns())
            .cloned()
            .collect();
        let fields: Vec<_> = left
            .schema_ref()
            .fields()
            .iter()
            .chain(right.schema_ref().fields())
            .cloned()
            .collect();
        let fields: Vec<_> = fields.iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let both = of(&Arc::new(arrow::datatypes::Schema::new(fields)), columns, l.len());
        let verdicts = values(residual, &both);
        let verdicts = verdicts.as_boolean();
        let keep = |rows: Vec<u32>| -> Vec<u32> {
            rows.into_iter()
                .enumerate()
                .filter(|(n, _)| verdicts.is_valid(*n) && verdicts.value(*n))
                .map(|(_, row)| row)
                .collect()
        };
        (l, r) = (keep(l), keep(r));
    }
    let (ls, rs): (BTreeSet<u32>, BTreeSet<u32>) = (l.iter().copied().collect(), r.iter().copied().collect());
    let all = |batch: &RecordBatch| 0..batch.num_rows() as u32;
    match join.kind {
        JoinKind::LeftSemi => return pick(left, &all(left).filter(|n| ls.contains(n)).collect::<Vec<_>>()),
        JoinKind::LeftAnti => return pick(left, &all(left).filter(|n| !ls.contains(n)).collect::<Vec<_>>()),
        JoinKind::LeftMark => {
            let mark: BooleanArray = all(left).map(|n| Some(ls.contains(&n))).collect();
            let mut columns = left.columns().to_vec();
            columns.push(Arc::new(mark));
            return of(schema, columns, left.num_rows());
        }
        _ => {}
    }
    let mut l: Vec<Option<u32>> = l.into_iter().map(Some).collect();
    let mut r: Vec<Option<u32>> = r.into_iter().map(Some).collect();
    if matches!(join.kind, JoinKind::Left | JoinKind::Full) {
        for n in all(left).filter(|n| !ls.contains(n)) {
            l.push(Some(n));
            r.push(None);
        }
    }
    if matches!(join.kind, JoinKind::Right | JoinKind::Full) {
        for n in all(right).filter(|n| !rs.contains(n)) {
            l.push(None);
            r.push(Some(n));
        }
    }
    let count = l.len();
    let (l, r) = (UInt32Array::from(l), UInt32Array::from(r));
    let columns = left.columns().iter().map(|c| take(c, &l, None).unwrap());
    let columns = columns
        .chain(right.columns().iter().map(|c| take(c, &r, None).unwrap()))
        .collect();
    of(schema, columns, count)
}

fn groups(exprs: &[Expr], batch: &RecordBatch) -> BTreeMap<Option<OwnedRow>, Vec<u32>> {
    let columns: Vec<ArrayRef> = exprs.iter().map(|e| values(e, batch)).collect();
    let mut groups: BTreeMap<Option<OwnedRow>, Vec<u32>> = BTreeMap::new();
    for (n, key) in keys(&columns, batch.num_rows()).into_iter().enumerate() {
        groups.entry(key).or_default().push(n as u32);
    }
    groups
}

fn evaluate_aggregate(aggregate: &Aggregate, schema: &SchemaRef, input: &RecordBatch) -> RecordBatch {
    let mut grouped = groups(&aggregate.group, input);
    if aggregate.group.is_empty() && grouped.is_empty() {
        grouped.insert(None, vec![]);
    }
    let mut rows: Vec<RecordBatch> = Vec::new();
    for members in grouped.values() {
        let batch = pick(input, members);
        let mut columns: Vec<ArrayRef> = aggregate.group.iter().map(|e| values(e, &batch).slice(0, 1)).collect();
        for call in &aggregate.aggregates {
            let mut batch = batch.clone();
            if let Some(filter) = &call.filter {
                batch = filter_record_batch(&batch, values(filter, &batch).as_boolean()).unwrap();
            }
            let order: Vec<SortColumn> = call
                .function
                .order_bys()
                .iter()
                .map(|o| SortColumn {
                    values: values(&o.expr, &batch),
                    options: Some(o.options),
                })
                .collect();
            if !order.is_empty() {
                batch = take_record_batch(&batch, &lexsort_to_indices(&order, None).unwrap()).unwrap();
            }
            let mut arguments: Vec<ArrayRef> = call.function.expressions().iter().map(|e| values(e, &batch)).collect();
            assert_eq!(call.args.len(), arguments.len());
            arguments.extend(call.function.order_bys().iter().map(|o| values(&o.expr, &batch)));
            let mut accumulator = call.function.create_accumulator().unwrap();
            accumulator.update_batch(&arguments).unwrap();
            let value = accumulator.evaluate().unwrap().to_array().unwrap();
            columns.push(cast(&value, schema.field(columns.len()).data_type()).unwrap());
        }
        rows.push(of(schema, columns, 1));
    }
    concat_batches(schema, &rows).unwrap()
}

fn sorted(batch: &RecordBatch, members: &[u32], order: &[SortKey]) -> RecordBatch {
    let batch = pick(batch, members);
    let order: Vec<SortColumn> = order
        .iter()
        .map(|k| SortColumn {
            values: values(&k.expr, &batch),
            options: Some(SortOptions {
                descending: k.descending,
                nulls_first: k.nulls_first,
            }),
        })
        .collect();
    // Arrow's lexsort does not sort by lists, but its row format does.
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut fields = Vec::new();
    for column in order {
        fields.push(SortField::new_with_options(
            column.values.data_type().clone(),
            column.options.unwrap(),
        ));
        columns.push(column.values);
    }
    if columns.is_empty() {
        return batch;
    }
    let rows = RowConverter::new(fields).unwrap().convert_columns(&columns).unwrap();
    let mut indices: Vec<u32> = (0..batch.num_rows() as u32).collect();
    indices.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    pick(&batch, &indices)
}

fn evaluate_top(top: &TopK, schema: &SchemaRef, input: &RecordBatch) -> RecordBatch {
    let mut out: Vec<RecordBatch> = Vec::new();
    for members in groups(&top.partition, input).values() {
        let batch = sorted(input, members, &top.order);
        let written: Vec<ArrayRef> = top.order[..top.ranked]
            .iter()
            .map(|k| values(&k.expr, &batch))
            .collect();
        let ties = keys(&written, batch.num_rows());
        let mut ranks: Vec<u64> = Vec::new();
        for n in 0..batch.num_rows() {
            let tie = n > 0 && ties[n] == ties[n - 1];
            ranks.push(match top.rank {
                Rank::RowNumber => n as u64 + 1,
                Rank::Rank if tie => ranks[n - 1],
                Rank::Rank => n as u64 + 1,
                Rank::DenseRank if tie => ranks[n - 1],
                Rank::DenseRank => ranks.last().map_or(1, |r| r + 1),
            });
        }
        let last = top.limit.map_or(u64::MAX, |l| (top.offset + l) as u64);
        let positions: Vec<u32> = (0..ranks.len())
            .filter(|&n| ranks[n] > top.offset as u64 && ranks[n] <= last)
            .map(|n| n as u32)
            .collect();
        let mut columns = pick(&batch, &positions).columns().to_vec();
        if top.output_rank {
            let positions: Vec<u64> = positions.iter().map(|&n| ranks[n as usize]).collect();
            columns.push(Arc::new(UInt64Array::from(positions)));
        }
        out.push(of(schema, columns, positions.len()));
    }
    concat_batches(schema, &out).unwrap()
}

fn evaluate_window(window: &Window, schema: &SchemaRef, input: &RecordBatch) -> RecordBatch {
    let mut out: Vec<RecordBatch> = Vec::new();
    for members in groups(&window.partition, input).values() {
        let batch = sorted(input, members, &window.order);
        let mut columns = batch.columns().to_vec();
        for function in &window.functions {
            let column = function.evaluate(&batch).unwrap();
            columns.push(cast(&column, schema.field(columns.len()).data_type()).unwrap());
        }
        out.push(of(schema, columns, batch.num_rows()));
    }
    concat_batches(schema, &out).unwrap()
}

fn evaluate_unnest(unnest: &Unnest, schema: &SchemaRef, input: &RecordBatch) -> RecordBatch {
    let mut out: Vec<RecordBatch> = Vec::new();
    for row in 0..input.num_rows() {
        let list = |column: usize| -> Option<ArrayRef> {
            let list = input.column(column).as_list::<i32>();
            list.is_valid(row).then(|| list.value(row))
        };
        let taken = unnest.columns.iter().filter(|(_, taken)| *taken);
        let longest = taken.map(|(c, _)| list(*c).map_or(0, |l| l.len())).max().unwrap();
        let count = if longest == 0 && unnest.preserve_nulls {
            1
        } else {
            longest
        };
        let columns = unnest
            .columns
            .iter()
            .zip(schema.fields())
            .map(|((column, taken), field)| {
                if *taken {
                    let elements = list(*column).unwrap_or_else(|| arrow::array::new_empty_array(field.data_type()));
                    let missing = arrow::array::new_null_array(field.data_type(), count - elements.len());
                    concat(&[elements.as_ref(), missing.as_ref()]).unwrap()
                } else {
                    take(input.column(*column), &UInt32Array::from(vec![row as u32; count]), None).unwrap()
                }
            })
            .collect();
        out.push(of(schema, columns, count));
    }
    concat_batches(schema, &out).unwrap()
}

fn evaluate_temporal(temporal: &Temporal, input: &RecordBatch, now: i64) -> RecordBatch {
    let holds = |bound: &TemporalBound, row: usize, lower: bool| {
        let moments = values(&bound.expr, input);
        let moments = moments.as_primitive::<TimestampMicrosecondType>();
        if moments.is_null(row) {
            return false;
        }
        let moment = moments.value(row);
        match (lower, bound.inclusive) {
            (true, true) => now >= moment,
            (true, false) => now > moment,
            (false, true) => now <= moment,
            (false, false) => now < moment,
        }
    };
    let positions: Vec<u32> = (0..input.num_rows())
        .filter(|&row| {
            temporal.lower.iter().all(|b| holds(b, row, true)) && temporal.upper.iter().all(|b| holds(b, row, false))
        })
        .map(|row| row as u32)
        .collect();
    pick(input, &positions)
}
