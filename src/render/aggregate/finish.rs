//! Computes the rows of a GROUP BY from arrangements: whenever a group's accumulators or its separately arranged
//! values change, its old row is retracted and its new row is added.
//!
//! ```text
//! accumulators ----------------+
//! values of min and max -------+-> finish -> rows, and the keys of groups that have none
//! results of general calls ----+
//! ```
//! The only state is the arrangements: the old row of a group is computed from them again. All of them are arranged on
//! the same worker, but their frontiers may differ for a moment. Updates are processed up to the time that all of them
//! have reached, as soon as that time advances, so the output's frontier is the least of theirs.
//!
//! A result is either an aggregate over the accumulators, or the least or greatest value of an arrangement. The
//! accumulators alone decide whether a group exists.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema};
use arrow::row::Rows;
use differential_dataflow::trace::implementations::BatchContainer;
use differential_dataflow::trace::{BatchReader, TraceReader};
use differential_dataflow::{AsCollection, VecCollection};
use smallvec::SmallVec;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, InputCapability};

use super::arranged::ArrangedAccumulators;
use super::extremes::{Extreme, GroupBounds, GroupValues};
use super::front::KeyedRowUpdate;
use super::history::{Extremum, KeyCursor};
use super::layout::codec;
use super::measure::{Finished, Measures, exists};
use super::meet::{ArrangedInput, Queued};
use crate::render::arrange::ByKey;
use crate::render::error::Errors;
use crate::render::tagged;
use crate::repr::{
    AccumulatorSpine, AccumulatorSum, AccumulatorsRef, Diff, Epoch, Pairs, Row, RowCodec, RowRef, RowValSpine, Update,
};

/// How many states of groups are finished at once.
const BATCH: usize = 4096;

/// The source of an aggregate's column.
pub(super) enum ColumnSource {
    /// The next of the columns that are computed from accumulators.
    Accumulators,
    /// A value of an arrangement.
    Arranged(ArrangedValue),
}

/// Identifies a value of an arrangement.
#[derive(Clone)]
pub(super) struct ArrangedValue {
    /// The index of the arrangement.
    pub input: usize,
    pub end: Extremum,
    /// Whether values are tagged: either a result, or the reason why there is none.
    pub tagged: bool,
    /// The encoded column if the group has no values.
    pub missing: Row,
}

/// Computes the rows of groups.
pub(super) struct GroupFinisher {
    /// The calls over the accumulators, and, in `results`, the fields of their columns.
    pub measures: Measures,
    pub results: Vec<Field>,
    /// One source for each aggregate.
    pub sources: Vec<ColumnSource>,
    /// Decodes the groups' keys.
    pub keys: RowCodec,
    /// The epoch from which increments of the accumulators are output; `None` for never.
    pub growth_from: Option<Epoch>,
}

/// The outputs of [`GroupFinisher`].
pub(super) struct FinishedGroups<'s> {
    /// Rows, encoded as key ++ columns.
    pub rows: VecCollection<'s, Epoch, Row, Diff>,
    /// Error rows of groups without a result.
    pub failed: VecCollection<'s, Epoch, Row, Diff>,
    /// The increments of groups, as (key, accumulators), if they are asked for. They are never retracted.
    pub growth: Pairs<'s>,
}

impl GroupFinisher {
    /// Builds the operator.
    pub fn render<'s>(
        self,
        accumulators: ArrangedAccumulators<'s>,
        kept: Vec<ByKey<'s>>,
        name: &str,
    ) -> FinishedGroups<'s> {
        type Builder = CapacityContainerBuilder<Vec<Update>>;
        let scope = accumulators.stream.scope();
        let mut builder = OperatorBuilder::new(format!("{name}: finish"), scope);
        let mut sums_handle = builder.new_input(accumulators.stream, Pipeline);
        let mut sums = ArrangedInput::<AccumulatorSpine>::new(accumulators.trace);
        let mut kept_handles = vec![];
        let mut inputs = vec![];
        for arranged in kept {
            kept_handles.push(builder.new_input(arranged.stream, Pipeline));
            inputs.push(ArrangedInput::<RowValSpine>::new(arranged.trace));
        }
        let (oks, oks_stream) = builder.new_output();
        let mut oks = OutputBuilder::<_, Builder>::from(oks);
        let (errs, errs_stream) = builder.new_output();
        let mut errs = OutputBuilder::<_, Builder>::from(errs);
        let (growth, growth_stream) = builder.new_output();
        let mut growth = OutputBuilder::<_, CapacityContainerBuilder<Vec<KeyedRowUpdate>>>::from(growth);
        let growth_from = self.growth_from;
        let columns = Columns::new(self.measures, self.results, &self.sources);
        let errors = Errors::default();
        let mut bounds: Vec<GroupBounds> = columns.slots.iter().map(|_| GroupBounds::default()).collect();
        builder.build(move |_capabilities| {
            let mut capabilities: Option<[Capability<Epoch>; 3]> = None;
            let mut from = Epoch::MIN;
            move |_frontiers| {
                let mut hold = |capability: &InputCapability<Epoch>| {
                    if capabilities
                        .as_ref()
                        .is_none_or(|[earliest, ..]| capability.time() < earliest.time())
                    {
                        capabilities = Some([0, 1, 2].map(|output| capability.retain(output)));
                    }
                };
                sums_handle.for_each(|capability, batches| {
                    hold(&capability);
                    batches.drain(..).for_each(|batch| sums.receive(batch));
                });
                for (handle, input) in kept_handles.iter_mut().zip(&mut inputs) {
                    handle.for_each(|capability, batches| {
                        hold(&capability);
                        batches.drain(..).for_each(|batch| input.receive(batch));
                    });
                }
                let until = inputs
                    .iter_mut()
                    .map(ArrangedInput::reached)
                    .fold(sums.reached(), Epoch::min);
                if let Some([for_oks, for_errs, for_growth]) = capabilities.as_ref().filter(|_| from < until) {
                    let (mut oks, mut errs, mut growth) = (oks.activate(), errs.activate(), growth.activate());
                    let (mut oks, mut errs) = (oks.session(for_oks), errs.session(for_errs));
                    let mut growth = growth.session(for_growth);
                    let tell = |key: RowRef<'_>, grew: AccumulatorsRef<'_>, time| {
                        if growth_from.is_some_and(|from| time >= from) {
                            growth.give(((key.to_row(), grew.to_row()), time, 1));
                        }
                    };
                    let give = |key: RowRef<'_>, outcome: Outcome<'_>, time, diff| match outcome {
                        Ok(parts) => oks.give((Row::concat_all(&parts), time, diff)),
                        Err(reason) => errs.give((errors.encoded(reason, &self.keys, key.bytes()), time, diff)),
                    };
                    answer(&columns, &mut sums, &mut inputs, &mut bounds, (from, until), give, tell);
                }
                sums.mark_processed(until);
                inputs.iter_mut().for_each(|input| input.mark_processed(until));
                from = until;
                // Batches behind that time remain.
                match sums.is_processed() && inputs.iter().all(ArrangedInput::is_processed) {
                    true => capabilities = None,
                    false => (capabilities.iter_mut().flatten())
                        .filter(|capability| *capability.time() < until)
                        .for_each(|capability| capability.downgrade(&until)),
                }
            }
        });
        FinishedGroups {
            rows: oks_stream.as_collection(),
            failed: errs_stream.as_collection(),
            growth: growth_stream.as_collection(),
        }
    }
}

/// Computes the changes of all groups at the times in `from..until`: calls `give` with the changes of their rows, and
/// `tell` with the increments of their accumulators.
fn answer(
    columns: &Columns,
    sums: &mut ArrangedInput<AccumulatorSpine>,
    inputs: &mut [ArrangedInput<RowValSpine>],
    bounds: &mut [GroupBounds],
    (from, until): (Epoch, Epoch),
    mut give: impl FnMut(RowRef<'_>, Outcome<'_>, Epoch, Diff),
    mut tell: impl FnMut(RowRef<'_>, AccumulatorsRef<'_>, Epoch),
) {
    let (sums, sums_queued) = sums.batches(from);
    let group_values: Vec<_> = inputs.iter_mut().map(|input| input.batches(from)).collect();
    let mut sums = Sums::new(&sums, sums_queued, (from, until));
    let mut wanted: Vec<Vec<Extreme<'_>>> = group_values.iter().map(|_| vec![]).collect();
    for (slot, bounds) in columns.slots.iter().zip(bounds) {
        wanted[slot.kept.input].push(Extreme::new(slot.kept.end, bounds));
    }
    let group_values = group_values.iter().zip(wanted);
    let mut group_values: Vec<GroupValues<'_>> = group_values
        .map(|((batches, queued), extremes)| GroupValues::new(batches, *queued, (from, until), extremes))
        .collect();
    let mut pending = Pending::new(columns);
    while let Some(key) = group_values.iter().filter_map(GroupValues::key).chain(sums.key()).min() {
        sums.begin(key);
        group_values.iter_mut().for_each(|values| values.begin(key));
        let mut before = pending.state(&sums.sum, &group_values);
        while let Some(time) = group_values
            .iter()
            .filter_map(GroupValues::time)
            .chain(sums.time())
            .min()
        {
            if sums.time() == Some(time) {
                sums.advance(time, |grew| tell(key, grew, time));
            }
            group_values.iter_mut().for_each(|values| values.advance(time));
            let after = pending.state(&sums.sum, &group_values);
            if before.is_some() || after.is_some() {
                pending.changes.push(Change {
                    key,
                    time,
                    before,
                    after,
                });
            }
            before = after;
        }
        group_values.iter_mut().for_each(|values| values.end(key));
        if pending.states.len() >= BATCH {
            pending.finish(&mut give);
        }
    }
    pending.finish(&mut give);
}

/// Reads the accumulators, group by group.
struct Sums<'a> {
    /// Batches that are processed; in `queue`, those that are not, or not completely.
    past: Vec<(&'a SumBatch, KeyCursor<'a>)>,
    queue: Vec<(&'a SumBatch, KeyCursor<'a>)>,
    from: Epoch,
    until: Epoch,
    /// The updates of the current group, sorted by time; those before `next` are in the sum.
    updates: Vec<(Epoch, AccumulatorsRef<'a>)>,
    next: usize,
    sum: AccumulatorSum,
}

type SumBatch = <AccumulatorSpine as TraceReader>::Batch;

impl<'a> Sums<'a> {
    fn new(batches: &'a [SumBatch], queued: Queued, (from, until): (Epoch, Epoch)) -> Self {
        let (past, queue) = batches.split_at(queued.past);
        let ways = |batches: &'a [SumBatch]| {
            let filled = batches.iter().filter(|batch| !batch.is_empty());
            filled
                .map(|batch| (batch, KeyCursor::new(&batch.storage.keys)))
                .collect()
        };
        Sums {
            past: ways(past),
            queue: ways(queue),
            from,
            until,
            updates: vec![],
            next: 0,
            sum: AccumulatorSum::default(),
        }
    }

    /// The next key with updates.
    fn key(&self) -> Option<RowRef<'a>> {
        self.queue.iter().filter_map(|(_, keys)| keys.get()).min()
    }

    /// Moves to a group; keys must ascend.
    fn begin(&mut self, key: RowRef<'_>) {
        self.updates.clear();
        self.next = 0;
        self.sum.clear();
        for (batch, keys) in &mut self.past {
            let Some(position) = keys.seek(key) else { continue };
            let updates = &batch.storage.upds;
            let (start, end) = updates.bounds(position);
            (start..end).for_each(|update| self.sum.add(updates.diffs.index(update)));
        }
        for (batch, keys) in &mut self.queue {
            let Some(position) = keys.seek(key) else { continue };
            keys.step();
            let updates = &batch.storage.upds;
            let (start, end) = updates.bounds(position);
            for update in start..end {
                let (time, diff) = (updates.times[update], updates.diffs.index(update));
                if time < self.from {
                    self.sum.add(diff);
                } else if time < self.until {
                    self.updates.push((time, diff));
                }
            }
        }
        self.updates.sort_unstable_by_key(|(time, _)| *time);
    }

    /// The time of the group's next updates.
    fn time(&self) -> Option<Epoch> {
        self.updates[self.next..].first().map(|(time, _)| *time)
    }

    /// Adds the group's updates at a time to the sum, after calling `tell` with each.
    fn advance(&mut self, time: Epoch, mut tell: impl FnMut(AccumulatorsRef<'a>)) {
        let rest = self.updates[self.next..].iter();
        for (_, diff) in rest.take_while(|(other, _)| *other == time) {
            tell(*diff);
            self.sum.add(*diff);
            self.next += 1;
        }
    }
}

/// Changes of groups that are finished together.
struct Pending<'a> {
    columns: &'a Columns,
    /// The accumulators' entries of all states, and, in `states`, where each state's entries end.
    entries: Vec<(u32, i64)>,
    states: Vec<usize>,
    /// For each state, the value of each slot.
    values: Vec<Option<RowRef<'a>>>,
    changes: Vec<Change<'a>>,
}

/// A change of a group from one state to another; `None` where the group does not exist.
struct Change<'a> {
    key: RowRef<'a>,
    time: Epoch,
    before: Option<usize>,
    after: Option<usize>,
}

/// The parts of a group's row, beginning with the key, or the reason why it has none.
type Outcome<'a> = Result<SmallVec<[&'a [u8]; 8]>, &'a str>;

impl<'a> Pending<'a> {
    fn new(columns: &'a Columns) -> Self {
        Pending {
            columns,
            entries: vec![],
            states: vec![],
            values: vec![],
            changes: vec![],
        }
    }

    /// Adds the group's state, and returns its index; `None` if the group does not exist.
    fn state(&mut self, sum: &AccumulatorSum, kept: &[GroupValues<'a>]) -> Option<usize> {
        exists(sum.entries()).then(|| {
            let slots = self.columns.slots.iter();
            (self.values).extend(slots.map(|slot| kept[slot.kept.input].extremes[slot.position].value));
            self.entries.extend_from_slice(sum.entries());
            self.states.push(self.entries.len());
            self.states.len() - 1
        })
    }

    /// Finishes all states, and calls `give` with (key, outcome, time, difference).
    fn finish(&mut self, mut give: impl FnMut(RowRef<'_>, Outcome<'_>, Epoch, Diff)) {
        let starts = std::iter::once(0).chain(self.states.iter().copied());
        let states = starts.zip(&self.states);
        let states: Vec<_> = states.map(|(start, end)| &self.entries[start..*end]).collect();
        let encoded = self.columns.encode(&states);
        let slots = self.columns.slots.len();
        for Change {
            key,
            time,
            before,
            after,
        } in self.changes.drain(..)
        {
            let outcome = |state: usize| {
                let values = &self.values[state * slots..(state + 1) * slots];
                self.columns.outcome(key.bytes(), &encoded, state, values)
            };
            let (before, after) = (before.map(outcome), after.map(outcome));
            if before != after {
                before.into_iter().for_each(|outcome| give(key, outcome, time, -1));
                after.into_iter().for_each(|outcome| give(key, outcome, time, 1));
            }
        }
        self.entries.clear();
        self.states.clear();
        self.values.clear();
    }
}

/// Encodes the columns behind the key.
struct Columns {
    measures: Measures,
    segments: Vec<Segment>,
    slots: Vec<Slot>,
}

/// Consecutive columns that are encoded together.
enum Segment {
    /// A range of the columns that are computed from accumulators.
    Accumulators(Range<usize>, RowCodec),
    /// The value of the slot with this index.
    Slot(usize),
}

/// A column that is a value of an arrangement.
struct Slot {
    kept: ArrangedValue,
    /// Its index among the extremes of the arrangement.
    position: usize,
}

/// The results of several states: the encoded rows of each segment, and for each state the reason if it has no result.
struct Encoded {
    segments: Vec<Option<Rows>>,
    errors: Vec<Option<String>>,
}

impl Columns {
    fn new(measures: Measures, results: Vec<Field>, sources: &[ColumnSource]) -> Self {
        let (mut segments, mut slots) = (vec![], Vec::<Slot>::new());
        let mut column = 0;
        let together = |one: &ColumnSource, other: &ColumnSource| {
            matches!((one, other), (ColumnSource::Accumulators, ColumnSource::Accumulators))
        };
        for sources in sources.chunk_by(together) {
            segments.push(match &sources[0] {
                ColumnSource::Accumulators => {
                    let range = column..column + sources.len();
                    column = range.end;
                    let fields = results[range.clone()].to_vec();
                    Segment::Accumulators(range, codec(Schema::new(fields).into()))
                }
                ColumnSource::Arranged(kept) => {
                    let same = slots.iter().filter(|slot| slot.kept.input == kept.input);
                    let position = same.count();
                    let kept = kept.clone();
                    slots.push(Slot { kept, position });
                    Segment::Slot(slots.len() - 1)
                }
            });
        }
        Columns {
            measures,
            segments,
            slots,
        }
    }

    fn encode(&self, states: &[&[(u32, i64)]]) -> Encoded {
        let Finished { columns, errors } = self.measures.finish(states);
        let rows = |columns: &[ArrayRef], codec: &RowCodec| {
            let rows = codec.encode(columns);
            rows.expect("results are of the codec's types")
        };
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Accumulators(range, codec) => Some(rows(&columns[range.clone()], codec)),
            Segment::Slot(_) => None,
        });
        Encoded {
            segments: segments.collect(),
            errors,
        }
    }

    fn outcome<'a>(
        &'a self,
        key: &'a [u8],
        encoded: &'a Encoded,
        state: usize,
        values: &[Option<RowRef<'a>>],
    ) -> Outcome<'a> {
        if let Some(reason) = &encoded.errors[state] {
            return Err(reason);
        }
        let reason = |bytes| std::str::from_utf8(bytes).expect("a reason is text");
        let mut parts = SmallVec::from_slice(&[key]);
        for (segment, rows) in self.segments.iter().zip(&encoded.segments) {
            parts.push(match segment {
                Segment::Accumulators(..) => rows.as_ref().map_or(&[][..], |rows| rows.row(state).data()),
                Segment::Slot(slot) => {
                    let kept = &self.slots[*slot].kept;
                    match values[*slot] {
                        None => kept.missing.bytes(),
                        Some(value) if kept.tagged => tagged::part(value.bytes()).map_err(reason)?,
                        Some(value) => value.bytes(),
                    }
                }
            });
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use arrow::datatypes::DataType;
    use proptest::prelude::*;
    use timely::container::CapacityContainerBuilder;
    use timely::dataflow::operators::{Input as _, Probe};
    use timely::dataflow::{InputHandle, ProbeHandle};

    use super::super::front::{Accumulated, KeyedRowUpdate};
    use super::super::measure::{MeasureCall, ROWS};
    use super::*;
    use crate::plan::AggregateKind;
    use crate::render::arrange::arrange_by_key;
    use crate::repr::Accumulators;

    /// An event at one of the two inputs.
    #[derive(Clone, Debug)]
    enum Event {
        /// A row of a group, or a value, is added or removed.
        Change { group: u8, value: u8, diff: Diff },
        /// The input's time advances.
        Advance(Epoch),
    }

    fn events() -> impl Strategy<Value = Vec<(bool, Event)>> {
        let change = (0..4u8, 0..12u8, prop_oneof![2 => Just(1), 1 => Just(-1)]);
        let event = prop_oneof![
            4 => change.prop_map(|(group, value, diff)| Event::Change { group, value, diff }),
            2 => (1..4u64).prop_map(Event::Advance),
        ];
        prop::collection::vec((any::<bool>(), event), 1..120)
    }

    type State = BTreeMap<u8, (Diff, BTreeMap<u8, Diff>)>;
    type Answer = BTreeMap<Vec<u8>, Diff>;

    /// The key, least and greatest value of each group with rows; 255 in place of both if the group has no values.
    fn expected(state: &State) -> Answer {
        let groups = state.iter().filter(|(_, (rows, _))| *rows > 0);
        let rows = groups.map(|(group, (_, values))| {
            let present = || values.iter().filter(|(_, count)| **count > 0).map(|(value, _)| *value);
            vec![*group, present().min().unwrap_or(255), present().max().unwrap_or(255)]
        });
        rows.map(|row| (row, 1)).collect()
    }

    /// Runs the events. After each event that advances a time, returns the complete time, and output and state as of
    /// it.
    fn run(events: Vec<(bool, Event)>) -> Vec<(Epoch, Answer, State)> {
        type Handle<D> = InputHandle<Epoch, CapacityContainerBuilder<Vec<D>>>;
        timely::execute_directly(move |worker| {
            let out = Rc::new(RefCell::new(Vec::<Update>::new()));
            let probe = ProbeHandle::new();
            let (mut rows, mut values): (Handle<Accumulated>, Handle<KeyedRowUpdate>) = worker.dataflow(|scope| {
                let (rows, row_stream) = scope.new_input();
                let (values, value_stream) = scope.new_input();
                let rows_arranged = super::super::arranged::arrange_accumulators(row_stream, "rows");
                let values_arranged = arrange_by_key(value_stream.as_collection(), "values");
                let kept = |end| {
                    ColumnSource::Arranged(ArrangedValue {
                        input: 0,
                        end,
                        tagged: false,
                        missing: Row::new(&[255]),
                    })
                };
                let finish = GroupFinisher {
                    measures: Measures::default(),
                    results: vec![],
                    sources: vec![kept(Extremum::Least), kept(Extremum::Greatest)],
                    keys: codec(Schema::empty().into()),
                    growth_from: None,
                };
                let oks = finish.render(rows_arranged, vec![values_arranged], "test").rows;
                let to_out = out.clone();
                oks.inspect(move |update| to_out.borrow_mut().push(update.clone()))
                    .inner
                    .probe_with(&probe);
                (rows, values)
            });
            let mut history: Vec<(Epoch, bool, u8, u8, Diff)> = vec![];
            let mut states = State::new();
            let mut answers = vec![];
            let mut done = 0;
            for (of_rows, event) in events {
                match event {
                    Event::Change { group, value, diff } => {
                        let (key, now) = (Row::new(&[group]), if of_rows { *rows.time() } else { *values.time() });
                        let entry = states.entry(group).or_default();
                        // No count may become negative at any time; each input changes in the order of its own times.
                        let count = if of_rows {
                            &mut entry.0
                        } else {
                            entry.1.entry(value).or_default()
                        };
                        let diff = if *count == 0 { 1 } else { diff };
                        *count += diff;
                        history.push((now, of_rows, group, value, diff));
                        match of_rows {
                            true => rows.send(((key, ()), now, Accumulators::from_entries([(ROWS, diff)]))),
                            false => values.send(((key, Row::new(&[value])), now, diff)),
                        }
                    }
                    Event::Advance(by) => {
                        match of_rows {
                            true => rows.advance_to(rows.time() + by),
                            false => values.advance_to(values.time() + by),
                        }
                        for _ in 0..10 {
                            worker.step();
                        }
                        let complete = (*rows.time()).min(*values.time());
                        assert!(!probe.less_than(&complete), "nothing is held back");
                        for time in done..complete {
                            let mut state = State::new();
                            for (_, of_rows, group, value, diff) in history.iter().filter(|change| change.0 <= time) {
                                let entry = state.entry(*group).or_default();
                                *(if *of_rows {
                                    &mut entry.0
                                } else {
                                    entry.1.entry(*value).or_default()
                                }) += diff;
                            }
                            let mut answer = Answer::new();
                            for (row, _, diff) in out.borrow().iter().filter(|(_, at, _)| *at <= time) {
                                *answer.entry(row.bytes().to_vec()).or_default() += diff;
                            }
                            answer.retain(|_, count| *count != 0);
                            answers.push((time, answer, state));
                        }
                        done = complete;
                    }
                }
            }
            answers
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// The inputs diverge by whole batches, so that a batch of one input ends behind the time that the other has
        /// reached.
        #[test]
        fn every_time_is_right_however_far_the_inputs_are_apart(events in events()) {
            for (time, answer, state) in run(events) {
                prop_assert_eq!(answer, expected(&state), "at {}", time);
            }
        }
    }

    fn integer_codec() -> RowCodec {
        codec(Schema::new(vec![Field::new("n", DataType::Int64, true)]).into())
    }

    #[test]
    fn columns_of_accumulators_are_encoded_together_and_keep_their_places() {
        let count = MeasureCall {
            kind: AggregateKind::Count,
            measure: None,
            arg_type: DataType::Null,
            result_type: DataType::Int64,
            output_type: DataType::Int64,
            name: "count(*)".to_string(),
        };
        let mut measures = Measures::default();
        measures.calls = vec![count; 3];
        let kept = |missing: &[u8]| {
            ColumnSource::Arranged(ArrangedValue {
                input: 0,
                end: Extremum::Least,
                tagged: true,
                missing: Row::new(missing),
            })
        };
        let sources = [
            kept(b"x"),
            ColumnSource::Accumulators,
            ColumnSource::Accumulators,
            kept(b"y"),
            ColumnSource::Accumulators,
        ];
        let field = Field::new("n", DataType::Int64, true);
        let columns = Columns::new(measures, vec![field; 3], &sources);
        let encoded = columns.encode(&[&[(ROWS, 7)], &[(ROWS, 8)]]);
        let (value, reason) = (tagged::ok(&[b"z"]), tagged::err(b"no"));
        let values = [Some(RowRef::new(value.bytes())), None];
        let outcome = columns.outcome(b"key", &encoded, 1, &values);
        let eight = integer_codec()
            .encode_rows(&[std::sync::Arc::new(arrow::array::Int64Array::from(vec![8]))], 1)
            .unwrap();
        let eight = eight[0].bytes();
        assert_eq!(outcome.unwrap().concat(), [b"keyz", eight, eight, b"y", eight].concat());
        let failed = columns.outcome(b"key", &encoded, 0, &[None, Some(RowRef::new(reason.bytes()))]);
        assert_eq!(failed.unwrap_err(), "no");
    }
}
