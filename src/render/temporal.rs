//! Rows that exist for a limited time: predicates on `now()`, and retention.
//!
//! A row's update at time t becomes the update at `max(t, lower)`, and its negation at `upper` if that is later. This
//! needs no state: a retraction yields exactly the negations of the updates that its row still has ahead.
//!
//! Updates in the future wait in one queue per operator, ordered by time, so that arrangements downstream need not
//! look at them again and again. The queue holds a capability at its first time. When the inputs are closed for good,
//! time stops, and the updates that still wait are dropped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::array::{Array, AsArray, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use std::time::Duration;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use super::Collections;
use super::error::Errors;
use super::expr::{KernelError, RowKernel, apply, evaluated, relaxed};
use crate::definition::Retention;
use crate::plan::{Temporal, TemporalBound};
use crate::repr::footprint::{self, Footprint};
use crate::repr::{Diff, Epoch, Row, Rows};

/// The time between the past and the first live epoch, during which no run was there. No snapshot is as of an epoch
/// within it, so updates within it may be moved to its end.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// The last epoch of the past.
    pub since: Epoch,
    /// The first live epoch.
    pub until: Epoch,
}

impl Pause {
    /// The epoch at which an update at `time` becomes visible.
    fn visible_at(self, time: Epoch) -> Epoch {
        match self.since < time && time < self.until {
            true => self.until,
            false => time,
        }
    }
}

/// Lets rows appear and disappear by the epoch's time.
pub fn temporal<'s>(
    input: Collections<'s>,
    schema: &SchemaRef,
    plan: &Temporal,
    pause: Option<Pause>,
    name: &str,
) -> Collections<'s> {
    let applied = apply(input.oks, schema, name, temporal_kernel(plan));
    Collections {
        oks: release(applied.main, pause, name),
        errs: input.errs.concat(applied.errs),
    }
}

/// How long rows stay, counted from the time in one of their columns.
pub struct RowRetention {
    /// The position of that column, which is a DATE or TIMESTAMP.
    pub column: usize,
    /// The name of that column, for the reason of a dead letter.
    pub name: String,
    /// How long rows stay.
    pub keep: Duration,
}

/// Retention: removes rows once the epoch's time reaches `column + keep`. Rows with a null in the column stay forever.
///
/// A row that arrives later than that becomes an error row for good. Since a removed row is not remembered, a later
/// retraction of it has no effect. Rows from before the `pause` are replayed: whether they came too late was decided
/// when they first arrived. So they yield no error here; the caller carries over the dead letters of that time
/// ([`still_late`]).
pub fn retain<'s>(
    input: Collections<'s>,
    schema: &SchemaRef,
    keep: RowRetention,
    pause: Option<Pause>,
    name: &str,
) -> Collections<'s> {
    let past = pause.map(|pause| pause.since);
    let applied = apply(input.oks, schema, name, retention_kernel(keep, past, schema));
    Collections {
        oks: release(applied.main, pause, name),
        errs: input.errs.concat(applied.errs),
    }
}

/// Retention of rows that were in time when they arrived. Like [`retain`], except that a row whose time has passed
/// yields no error, because it is a replayed row that has been removed before.
pub fn expire<'s>(
    rows: Rows<'s>,
    schema: &SchemaRef,
    keep: RowRetention,
    pause: Option<Pause>,
    name: &str,
) -> Rows<'s> {
    let applied = apply(rows, schema, name, expiry_kernel(keep));
    release(applied.main, pause, name)
}

/// The first epoch at which each row is past its retention; `Epoch::MAX` where the column is null.
pub fn leaving(column: &dyn Array, keep: Duration) -> Result<Vec<Epoch>, KernelError> {
    let keep = keep_micros(keep);
    let leave = |us: Option<i64>| us.map_or(Epoch::MAX, |us| first_at(us.saturating_add(keep), true));
    Ok(moments(column)?.into_iter().map(leave).collect())
}

fn expiry_kernel(keep: RowRetention) -> RowKernel<Row> {
    Box::new(move |batch, updates, outputs| {
        let leaving = leaving(batch.column(keep.column), keep.keep)?;
        for ((row, time, diff), leave) in updates.iter_mut().zip(leaving) {
            push_stay(std::mem::take(row), *time, leave, *diff, &mut outputs.main);
        }
        Ok(())
    })
}

fn temporal_kernel(plan: &Temporal) -> RowKernel<Row> {
    let own = |bounds: &[TemporalBound]| -> Vec<_> { bounds.iter().map(|b| (b.expr.clone(), b.inclusive)).collect() };
    let (lower, upper) = (own(&plan.lower), own(&plan.upper));
    Box::new(move |batch, updates, outputs| {
        let count = batch.num_rows();
        // `None` means that a bound is null, so that the row never appears.
        let mut entering: Vec<Option<Epoch>> = vec![Some(Epoch::MIN); count];
        let mut leaving: Vec<Option<Epoch>> = vec![Some(Epoch::MAX); count];
        for (expr, inclusive) in &lower {
            let moments = moments(&evaluated(expr, batch)?)?;
            for (at, moment) in entering.iter_mut().zip(moments) {
                *at = at.zip(moment.map(|us| first_at(us, *inclusive))).map(|(a, b)| a.max(b));
            }
        }
        for (expr, inclusive) in &upper {
            let moments = moments(&evaluated(expr, batch)?)?;
            for (at, moment) in leaving.iter_mut().zip(moments) {
                // The row disappears at the first moment at which the predicate is false.
                *at = at
                    .zip(moment.map(|us| first_at(us, !*inclusive)))
                    .map(|(a, b)| a.min(b));
            }
        }
        for ((row, time, diff), (enter, leave)) in updates.iter_mut().zip(entering.into_iter().zip(leaving)) {
            if let (Some(enter), Some(leave)) = (enter, leave) {
                push_stay(std::mem::take(row), (*time).max(enter), leave, *diff, &mut outputs.main);
            }
        }
        Ok(())
    })
}

/// The beginning of the reason of a row that came too late.
pub const LATE: &str = "late: retention keeps ";

/// For rows that came too late, given by the payloads of their error rows: whether they are past their retention at
/// `epoch`. The retention may have changed since. A payload without a readable time counts as late.
pub fn still_late(payloads: &BinaryArray, retention: &Retention, epoch: Epoch) -> Vec<bool> {
    let texts = payloads.iter().map(|payload| {
        let row: serde_json::Value = serde_json::from_slice(payload?).ok()?;
        row.get(&retention.column)?.as_str().map(str::to_string)
    });
    let texts = moments(&StringArray::from_iter(texts)).expect("text can be read as moments, or as none");
    let keep = keep_micros(retention.keep);
    let over = |us: Option<i64>| us.is_none_or(|us| first_at(us.saturating_add(keep), true) <= epoch);
    texts.into_iter().map(over).collect()
}

fn keep_micros(keep: Duration) -> i64 {
    i64::try_from(keep.as_micros()).unwrap_or(i64::MAX)
}

fn retention_kernel(keep: RowRetention, past: Option<Epoch>, schema: &SchemaRef) -> RowKernel<Row> {
    let errors = Errors::default();
    let schema = relaxed(schema);
    Box::new(move |batch, updates, outputs| {
        let leaving = leaving(batch.column(keep.column), keep.keep)?;
        debug_assert_eq!(schema.fields().len(), batch.num_columns());
        for (index, (row, time, diff)) in updates.iter_mut().enumerate() {
            let leave = leaving[index];
            if leave > *time {
                push_stay(std::mem::take(row), *time, leave, *diff, &mut outputs.main);
            } else if *diff > 0 && past.is_none_or(|past| *time > past) {
                let reason = format!(
                    "{LATE}{:?} for {:?}, this row's time had passed when it arrived",
                    keep.name, keep.keep
                );
                outputs.errs.push((errors.row(&reason, batch, index), *time, *diff));
            }
        }
        Ok(())
    })
}

fn push_stay(row: Row, enter: Epoch, leave: Epoch, diff: Diff, output: &mut Vec<(Row, Epoch, Diff)>) {
    if leave <= enter || enter == Epoch::MAX {
        return;
    }
    if leave < Epoch::MAX {
        output.push((row.clone(), leave, -diff));
    }
    output.push((row, enter, diff));
}

/// Converts times to microseconds.
fn moments(array: &dyn Array) -> Result<Vec<Option<i64>>, KernelError> {
    let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    Ok(micros.as_primitive::<TimestampMicrosecondType>().iter().collect())
}

/// The first epoch at or after a moment; if not `inclusive`, strictly after it.
fn first_at(micros: i64, inclusive: bool) -> Epoch {
    let floor = micros.div_euclid(1000);
    let exact = micros.rem_euclid(1000) == 0;
    let epoch = if exact && inclusive { floor } else { floor + 1 };
    Epoch::try_from(epoch).unwrap_or(Epoch::MIN)
}

/// Updates whose time has not come, and, for each time, how many updates the last consolidation left.
#[derive(Default)]
struct Waiting {
    by_time: BTreeMap<Epoch, (Vec<(Row, Diff)>, usize)>,
}

impl Waiting {
    fn push(&mut self, row: Row, time: Epoch, diff: Diff) {
        let (updates, settled) = self.by_time.entry(time).or_default();
        updates.push((row, diff));
        // Rows that are added and removed before their time cancel. Consolidating whenever the number has doubled
        // keeps at most twice as many updates as needed.
        if updates.len() > 2 * *settled + 2 {
            consolidate(updates);
            *settled = updates.len();
            if updates.is_empty() {
                self.by_time.remove(&time);
            }
        }
    }

    fn footprint(&self) -> Footprint {
        footprint::about(self.by_time.values().map(|(updates, _)| updates), |(row, _)| row)
    }

    fn first(&self) -> Option<Epoch> {
        self.by_time.keys().next().copied()
    }

    /// Takes the updates of the first time, if it is before `frontier`.
    fn next_before(&mut self, frontier: Epoch) -> Option<(Epoch, Vec<(Row, Diff)>)> {
        let first = self.first().filter(|time| *time < frontier)?;
        let (mut updates, _) = self.by_time.remove(&first)?;
        consolidate(&mut updates);
        Some((first, updates))
    }
}

/// Holds updates back until their time has come.
fn release<'s>(input: Rows<'s>, pause: Option<Pause>, name: &str) -> Rows<'s> {
    let called = format!("{name}: wait");
    input
        .inner
        .unary_frontier(Pipeline, &called, |_, info| {
            let shared: Rc<RefCell<Waiting>> = Rc::default();
            footprint::name(info.global_id, &called);
            let asked = Rc::downgrade(&shared);
            footprint::note(info.global_id, move || Some(asked.upgrade()?.borrow().footprint()));
            let mut held_capability: Option<Capability<Epoch>> = None;
            move |(input, frontier), output| {
                let waiting = &mut *shared.borrow_mut();
                input.for_each_time(|capability, containers| {
                    let now = *capability.time();
                    let mut session = output.session(&capability);
                    for (row, time, diff) in containers.flat_map(|c| c.drain(..)) {
                        let time = pause.map_or(time, |pause| pause.visible_at(time));
                        if time <= now {
                            session.give((row, time, diff));
                        } else {
                            waiting.push(row, time, diff);
                        }
                    }
                    drop(session);
                    if let Some(first) = waiting.first()
                        && held_capability.as_ref().is_none_or(|c| *c.time() > first)
                    {
                        held_capability = Some(capability.delayed(&first, 0));
                    }
                });
                let Some(frontier) = frontier.frontier().first().copied() else {
                    *waiting = Waiting::default();
                    held_capability = None;
                    return;
                };
                while let Some((time, mut updates)) = waiting.next_before(frontier) {
                    let held_capability = held_capability
                        .as_mut()
                        .expect("a capability is held while updates wait");
                    held_capability.downgrade(&time);
                    let mut session = output.session(held_capability);
                    session.give_iterator(updates.drain(..).map(|(row, diff)| (row, time, diff)));
                }
                match (waiting.first(), held_capability.as_mut()) {
                    (Some(first), Some(held_capability)) => held_capability.downgrade(&first),
                    _ => held_capability = None,
                }
            }
        })
        .as_collection()
}
