//! The accumulators of the additive aggregates of a GROUP BY, and the results that are computed from them.
//!
//! A [`Measure`] describes what is accumulated for one argument under one filter: the count of its values, their sum,
//! and the sum of their squares. Calls over the same argument share one (avg, sum and stddev of a column need one
//! measure). [`Measures`] assigns each measure a range of positions in the [`Accumulators`] of a group, and
//! [`Measures::finish`] computes columns of results from accumulators, for a whole batch of groups at a time.
//!
//! | position | holds |
//! |---|---|
//! | [`ROWS`] | rows of the group |
//! | [`PINNED`] | 1 for the global group, which exists without rows |
//! | base of a measure | values that are not null |
//! | base + 1.. + 3 | NaN, infinity, -infinity; of booleans: true |
//! | base + 4.. | limbs of the sum |
//! | base + 100.. | limbs of the sum of squares |
//! | [`FAILED`] | rows of the group for which an argument or a filter fails; no other position counts them |

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, UInt64Builder,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type, i256};
use num_bigint::BigInt;

use super::number::{
    FLOAT_EXPONENT, FLOAT_POSITIONS, INTEGER_POSITIONS, Limbs, SQUARE_POSITIONS, round_ratio, to_big, to_f64, to_i128,
};
use crate::plan::{self, AggregateKind};
use crate::repr::{AccumulatorWriter, Accumulators, Diff};

/// The position of the number of rows.
pub(super) const ROWS: u32 = 0;
/// The position of the mark of the global group, which exists without rows.
const PINNED: u32 = 1;
/// The position of the number of failed rows. It is the last one, so that it does not move the others.
const FAILED: u32 = u32::MAX;
const SUMS: u32 = 4;
const SQUARES: u32 = 100;

const _: () = assert!(SUMS + FLOAT_POSITIONS <= SQUARES);

/// The kind of numbers that a measure sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NumberKind {
    /// Values are only counted.
    None,
    /// Booleans: values that are true are counted, too.
    Boolean,
    /// Signed 64-bit integers.
    Int64,
    /// Unsigned 64-bit integers.
    UInt64,
    /// Decimal128, by its unscaled value.
    Decimal,
    /// Float64.
    Float,
}

/// What is accumulated for one argument under one filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measure {
    /// The positions of the arguments among the columns. A row counts if none of them is null; the first one is
    /// summed.
    pub args: Vec<usize>,
    /// The position of the filter among the columns.
    pub filter: Option<usize>,
    /// What is summed.
    pub numbers: NumberKind,
    /// Whether squares are summed as well.
    pub squares: bool,
    /// The operator that accumulates the measure: 0 over rows, others over distinct sets, whose columns are the
    /// arguments.
    stage: usize,
    /// The first position of its accumulators.
    base: u32,
}

/// A call and the measure that it reads; `None` for the number of the group's rows.
#[derive(Clone, Debug)]
pub(super) struct MeasureCall {
    pub kind: AggregateKind,
    pub measure: Option<usize>,
    /// The type of the argument; the scale of a decimal matters.
    pub arg_type: DataType,
    /// The type that the function returns.
    pub result_type: DataType,
    /// The column's type in the node's schema.
    pub output_type: DataType,
    /// The call for messages, for example `sum(x)`.
    pub name: String,
}

/// The measures of a GROUP BY and the calls that read them.
#[derive(Clone, Default, Debug)]
pub(super) struct Measures {
    pub measures: Vec<Measure>,
    pub calls: Vec<MeasureCall>,
    next: u32,
}

/// The results of groups.
pub(super) struct Finished {
    /// One column for each call.
    pub columns: Vec<ArrayRef>,
    /// For each group, the reason if it has no result.
    pub errors: Vec<Option<String>>,
}

/// The reason of a group with failed rows.
const LACKING: &str = "a row of this group is a dead letter, and no aggregate is right without it";

/// The accumulators of the global group, beside those of its rows.
pub(super) fn global_group() -> Accumulators {
    Accumulators::from_entries([(PINNED, 1)])
}

/// The accumulators of so many rows of a group for which an expression fails.
pub(super) fn failed_rows(rows: Diff) -> Accumulators {
    Accumulators::from_entries([(FAILED, rows)])
}

/// Whether a group with these accumulators exists: it has rows, possibly failed ones, or is the global group.
pub(super) fn exists(entries: &[(u32, i64)]) -> bool {
    let first = entries.iter().take_while(|(position, _)| *position <= PINNED);
    let counted = first.copied().any(|(position, value)| match position {
        ROWS => value > 0,
        _ => value != 0,
    });
    counted || has_failed(entries)
}

/// Whether a group has failed rows.
fn has_failed(entries: &[(u32, i64)]) -> bool {
    matches!(entries.last(), Some((FAILED, rows)) if *rows > 0)
}

impl Measures {
    /// The index of the measure for these arguments; adds it if there is none yet.
    pub fn measure(
        &mut self,
        stage: usize,
        args: Vec<usize>,
        filter: Option<usize>,
        numbers: NumberKind,
        squares: bool,
    ) -> usize {
        let same = |m: &Measure| {
            m.stage == stage
                && m.args == args
                && m.filter == filter
                && (m.numbers == numbers || numbers == NumberKind::None)
                && (m.squares || !squares)
        };
        if let Some(index) = self.measures.iter().position(same) {
            return index;
        }
        let base = self.next.max(PINNED + 1);
        self.next = base
            + match numbers {
                NumberKind::None => 1,
                NumberKind::Boolean => 2,
                _ if squares => SQUARES + SQUARE_POSITIONS,
                NumberKind::Float => SUMS + FLOAT_POSITIONS,
                _ => SUMS + INTEGER_POSITIONS,
            };
        self.measures.push(Measure {
            args,
            filter,
            numbers,
            squares,
            stage,
            base,
        });
        self.measures.len() - 1
    }

    /// The measures that one operator accumulates.
    pub fn of_stage(&self, stage: usize) -> Measures {
        Measures {
            measures: self
                .measures
                .iter()
                .filter(|measure| measure.stage == stage)
                .cloned()
                .collect(),
            calls: vec![],
            next: self.next,
        }
    }

    /// The results of groups with these entries.
    pub fn finish(&self, groups: &[&[(u32, i64)]]) -> Finished {
        let mut errors: Vec<Option<String>> = (groups.iter())
            .map(|entries| has_failed(entries).then(|| LACKING.to_string()))
            .collect();
        let columns = self
            .calls
            .iter()
            .map(|call| {
                let column = self.finish_call(call, groups, &mut errors);
                match column.data_type() == &call.output_type {
                    true => column,
                    false => cast(&column, &call.output_type).expect("a node's type holds its aggregate's result"),
                }
            })
            .collect();
        Finished { columns, errors }
    }

    fn finish_call(&self, call: &MeasureCall, groups: &[&[(u32, i64)]], errors: &mut [Option<String>]) -> ArrayRef {
        let view = |entries| self.view(call, entries);
        let mut fail = |group: usize| {
            errors[group].get_or_insert_with(|| {
                let of = plan::name_of(&call.result_type);
                format!("could not compute {}: the result does not fit {of}", call.name)
            });
        };
        match (call.kind, &call.result_type) {
            (AggregateKind::Count, _) => {
                let mut column = Int64Builder::with_capacity(groups.len());
                groups
                    .iter()
                    .for_each(|entries| column.append_value(view(entries).count));
                Arc::new(column.finish())
            }
            (AggregateKind::BoolAnd | AggregateKind::BoolOr, _) => {
                let mut column = BooleanBuilder::with_capacity(groups.len());
                for entries in groups {
                    let view = view(entries);
                    let trues = view.special(1);
                    column.append_option((view.count > 0).then_some(match call.kind {
                        AggregateKind::BoolAnd => trues == view.count,
                        _ => trues > 0,
                    }));
                }
                Arc::new(column.finish())
            }
            (AggregateKind::Sum, DataType::Int64) => {
                let mut column = Int64Builder::with_capacity(groups.len());
                for (group, entries) in groups.iter().enumerate() {
                    let view = view(entries);
                    let sum = view.integer().and_then(|sum| i64::try_from(sum).ok());
                    column.append_option(sum.filter(|_| view.count > 0));
                    if sum.is_none() {
                        fail(group);
                    }
                }
                Arc::new(column.finish())
            }
            (AggregateKind::Sum, DataType::UInt64) => {
                let mut column = UInt64Builder::with_capacity(groups.len());
                for (group, entries) in groups.iter().enumerate() {
                    let view = view(entries);
                    let sum = view.integer().and_then(|sum| u64::try_from(sum).ok());
                    column.append_option(sum.filter(|_| view.count > 0));
                    if sum.is_none() {
                        fail(group);
                    }
                }
                Arc::new(column.finish())
            }
            (AggregateKind::Sum | AggregateKind::Avg, DataType::Decimal128(precision, scale)) => {
                let mut column =
                    Decimal128Builder::with_capacity(groups.len()).with_data_type(call.result_type.clone());
                let factor = match &call.arg_type {
                    DataType::Decimal128(_, from) => i256::from_i128(10i128.pow((scale - from).max(0) as u32)),
                    _ => i256::ONE,
                };
                let bound = 10i128.pow(*precision as u32);
                for (group, entries) in groups.iter().enumerate() {
                    let view = view(entries);
                    if view.count <= 0 {
                        column.append_null();
                        continue;
                    }
                    let value = match call.kind {
                        AggregateKind::Sum => view.integer(),
                        // The quotient is truncated towards zero, as in DataFusion.
                        _ => (view.wide().checked_mul(factor))
                            .and_then(|sum| sum.checked_div(i256::from_i128(view.count as i128)))
                            .and_then(|mean| mean.to_i128()),
                    };
                    let value = value.filter(|value| (-bound < *value) && (*value < bound));
                    column.append_option(value);
                    if value.is_none() {
                        fail(group);
                    }
                }
                Arc::new(column.finish())
            }
            _ => {
                let mut column = Float64Builder::with_capacity(groups.len());
                groups
                    .iter()
                    .for_each(|entries| column.append_option(view(entries).float(call.kind)));
                Arc::new(column.finish())
            }
        }
    }

    #[inline]
    fn view<'a>(&self, call: &MeasureCall, entries: &'a [(u32, i64)]) -> MeasureView<'a> {
        let Some(measure) = call.measure.map(|index| &self.measures[index]) else {
            return MeasureView {
                base: ROWS,
                count: entry_at(entries, ROWS),
                head: &[],
                sum: &[],
                squares: &[],
            };
        };
        let base = measure.base;
        let cut = |from: u32, to: u32| {
            let start = entries.partition_point(|(position, _)| *position < base + from);
            let end = entries.partition_point(|(position, _)| *position < base + to);
            &entries[start..end.max(start)]
        };
        let adds = !matches!(measure.numbers, NumberKind::None | NumberKind::Boolean);
        let sums_end = match measure.numbers {
            NumberKind::Float => SUMS + FLOAT_POSITIONS,
            _ => SUMS + INTEGER_POSITIONS,
        };
        let head_end = match measure.numbers {
            NumberKind::None => 1,
            NumberKind::Boolean => 2,
            _ => SUMS,
        };
        let head = cut(0, head_end);
        MeasureView {
            base,
            count: entry_at(head, base),
            head,
            sum: if adds { cut(SUMS, sums_end) } else { &[] },
            squares: if measure.squares {
                cut(SQUARES, SQUARES + SQUARE_POSITIONS)
            } else {
                &[]
            },
        }
    }
}

fn entry_at(entries: &[(u32, i64)], position: u32) -> i64 {
    let index = entries.partition_point(|(p, _)| *p < position);
    entries
        .get(index)
        .filter(|(p, _)| *p == position)
        .map_or(0, |(_, value)| *value)
}

/// The accumulators of one group for one measure.
struct MeasureView<'a> {
    base: u32,
    count: i64,
    head: &'a [(u32, i64)],
    sum: &'a [(u32, i64)],
    squares: &'a [(u32, i64)],
}

impl MeasureView<'_> {
    fn special(&self, offset: u32) -> i64 {
        entry_at(self.head, self.base + offset)
    }

    fn sum(&self) -> impl DoubleEndedIterator<Item = (u32, i64)> + Clone + '_ {
        let start = self.base + SUMS;
        self.sum.iter().map(move |(position, limb)| (position - start, *limb))
    }

    /// The sum, if it fits into 128 bits.
    fn integer(&self) -> Option<i128> {
        to_i128(self.sum()).or_else(|| i128::try_from(to_big(self.sum())).ok())
    }

    /// The sum of integers in 256 bits: an addend has up to 128 bits, and a sum of up to 2^39 of them up to 39 more.
    fn wide(&self) -> i256 {
        let mut value = i256::ZERO;
        let mut at = 0;
        for (position, limb) in self.sum().rev() {
            value = value.wrapping_mul(i256::from_i128(1i128 << (24 * (at.max(position) - position)).min(126)));
            value = value.wrapping_add(i256::from_i128(limb as i128));
            at = position;
        }
        let rest = i256::from_i128(1i128 << (24 * at).min(120));
        value.wrapping_mul(rest)
    }

    fn float(&self, kind: AggregateKind) -> Option<f64> {
        let (nans, infinities, negatives) = (self.special(1), self.special(2), self.special(3));
        let divisor = match kind {
            AggregateKind::VarSamp | AggregateKind::StddevSamp => self.count - 1,
            _ => self.count,
        };
        if divisor <= 0 {
            return None;
        }
        if matches!(kind, AggregateKind::Sum | AggregateKind::Avg) {
            if nans > 0 || (infinities > 0 && negatives > 0) {
                return Some(f64::NAN);
            }
            if infinities > 0 {
                return Some(f64::INFINITY);
            }
            if negatives > 0 {
                return Some(f64::NEG_INFINITY);
            }
            let sum = to_f64(self.sum());
            return Some(match kind {
                AggregateKind::Sum => sum,
                // The mean is infinite where the sum is.
                _ => sum / self.count as f64,
            });
        }
        if nans > 0 || infinities > 0 || negatives > 0 {
            return Some(f64::NAN);
        }
        let variance = self.variance(divisor);
        Some(match kind {
            AggregateKind::StddevPop | AggregateKind::StddevSamp => variance.sqrt(),
            _ => variance,
        })
    }

    /// (n * sum of squares - square of the sum) / (n * divisor), computed exactly and rounded once.
    fn variance(&self, divisor: i64) -> f64 {
        let start = self.base + SQUARES;
        // Both sums are taken relative to their lowest position, so that the integers stay short.
        let low = self.sum().next().map_or(u32::MAX, |(position, _)| position);
        let low_square = self.squares.first().map_or(u32::MAX, |(position, _)| position - start);
        let origin = (low.saturating_mul(2)).min(low_square);
        if origin == u32::MAX {
            return 0.0;
        }
        let low = (origin / 2).min(low);
        let sum = to_big(self.sum().map(|(position, limb)| (position - low, limb)));
        let squares = to_big(
            self.squares
                .iter()
                .map(|(position, limb)| (position - start - 2 * low, *limb)),
        );
        let numerator = squares * self.count - &sum * &sum;
        let denominator = BigInt::from(self.count) * divisor;
        round_ratio(&numerator, &denominator, 2 * FLOAT_EXPONENT + (48 * low) as i32)
    }
}

/// Dense accumulators of the groups of a local table; every vector is indexed by group.
pub(super) struct MeasureColumns {
    rows: Vec<i64>,
    states: Vec<State>,
}

#[derive(Default)]
struct State {
    counts: Vec<i64>,
    specials: Vec<[i64; 3]>,
    sums: Vec<Limbs>,
    squares: Vec<Limbs>,
}

impl MeasureColumns {
    /// Without groups.
    pub fn new(measures: &Measures) -> Self {
        MeasureColumns {
            rows: vec![],
            states: measures.measures.iter().map(|_| State::default()).collect(),
        }
    }

    /// Adds rows: row `i` belongs to group `groups[i]` of `total`, with the difference `diffs[i]`. `count_rows` says
    /// whether they count as rows of the group (those of a distinct set do not).
    pub fn add(
        &mut self,
        measures: &Measures,
        groups: &[u32],
        total: usize,
        diffs: &[Diff],
        columns: &[ArrayRef],
        count_rows: bool,
    ) {
        self.rows.resize(total, 0);
        if count_rows {
            for (group, diff) in groups.iter().zip(diffs) {
                self.rows[*group as usize] += diff;
            }
        }
        for (measure, state) in measures.measures.iter().zip(&mut self.states) {
            state.add(measure, groups, total, diffs, columns);
        }
    }

    /// The accumulators of a group.
    pub fn accumulators(&self, measures: &Measures, group: usize, writer: &mut AccumulatorWriter) -> Accumulators {
        writer.push(ROWS, self.rows[group]);
        for (measure, state) in measures.measures.iter().zip(&self.states) {
            writer.push(measure.base, state.counts[group]);
            if let Some(specials) = state.specials.get(group) {
                (1..)
                    .zip(specials)
                    .for_each(|(offset, value)| writer.push(measure.base + offset, *value));
            }
            for (limbs, start) in [(&state.sums, SUMS), (&state.squares, SQUARES)] {
                if let Some(limbs) = limbs.get(group) {
                    (limbs.entries()).for_each(|(position, limb)| writer.push(measure.base + start + position, limb));
                }
            }
        }
        writer.finish()
    }

    /// Removes all groups.
    pub fn clear(&mut self) {
        self.rows.clear();
        for state in &mut self.states {
            state.counts.clear();
            state.specials.clear();
            state.sums.clear();
            state.squares.clear();
        }
    }

    /// Frees the memory for more than this number of groups. There must be no groups.
    pub fn shrink(&mut self, groups: usize) {
        self.rows.shrink_to(groups);
        for state in &mut self.states {
            state.counts.shrink_to(groups);
            state.specials.shrink_to(groups);
            state.sums.shrink_to(groups);
            state.squares.shrink_to(groups);
        }
    }
}

impl State {
    fn add(&mut self, measure: &Measure, groups: &[u32], total: usize, diffs: &[Diff], columns: &[ArrayRef]) {
        self.counts.resize(total, 0);
        let valid = validity(measure, columns);
        let selected = (0..groups.len())
            .filter(|row| valid.as_ref().is_none_or(|valid| valid.is_valid(*row)))
            .map(|row| (row, groups[row] as usize, diffs[row]));
        let column = measure.args.first().map(|arg| &columns[*arg]);
        let value = || column.expect("a measure that adds up has an argument");
        match measure.numbers {
            NumberKind::None => selected.for_each(|(_, group, diff)| self.counts[group] += diff),
            NumberKind::Boolean => {
                self.specials.resize(total, [0; 3]);
                let values = value().as_boolean();
                for (row, group, diff) in selected {
                    self.counts[group] += diff;
                    self.specials[group][0] += if values.value(row) { diff } else { 0 };
                }
            }
            NumberKind::Int64 => {
                self.sums.resize_with(total, Limbs::default);
                let values = value().as_primitive::<Int64Type>().values();
                for (row, group, diff) in selected {
                    self.counts[group] += diff;
                    self.sums[group].add_i64(values[row], diff);
                }
            }
            NumberKind::UInt64 => {
                self.sums.resize_with(total, Limbs::default);
                let values = value().as_primitive::<UInt64Type>().values();
                for (row, group, diff) in selected {
                    self.counts[group] += diff;
                    self.sums[group].add_u64(values[row], diff);
                }
            }
            NumberKind::Decimal => {
                self.sums.resize_with(total, Limbs::default);
                let values = value().as_primitive::<Decimal128Type>().values();
                for (row, group, diff) in selected {
                    self.counts[group] += diff;
                    self.sums[group].add_i128(values[row], diff);
                }
            }
            NumberKind::Float => {
                self.sums.resize_with(total, Limbs::default);
                self.specials.resize(total, [0; 3]);
                if measure.squares {
                    self.squares.resize_with(total, Limbs::default);
                }
                let values = value().as_primitive::<Float64Type>().values();
                for (row, group, diff) in selected {
                    self.counts[group] += diff;
                    let value = values[row];
                    if value.is_finite() {
                        self.sums[group].add_f64(value, diff);
                        if measure.squares {
                            self.squares[group].add_square(value, diff);
                        }
                    } else {
                        let which = if value.is_nan() { 0 } else { 1 + (value < 0.0) as usize };
                        self.specials[group][which] += diff;
                    }
                }
            }
        }
    }
}

/// The rows that count, because no argument is null and the filter is true; `None` for all rows.
fn validity(measure: &Measure, columns: &[ArrayRef]) -> Option<NullBuffer> {
    let mut valid = measure.filter.map(|filter| passes(&columns[filter]));
    for arg in &measure.args {
        valid = NullBuffer::union(valid.as_ref(), columns[*arg].logical_nulls().as_ref());
    }
    valid
}

/// The rows for which a boolean column is true.
pub(super) fn passes(filter: &ArrayRef) -> NullBuffer {
    let filter = filter.as_boolean();
    NullBuffer::new(match filter.nulls() {
        None => filter.values().clone(),
        Some(nulls) => filter.values() & nulls.inner(),
    })
}
