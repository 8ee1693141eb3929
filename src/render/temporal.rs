//! Rows that exist only for a while: a predicate on `now()`, and retention.
//!
//! A row's update at time t becomes the update at `max(t, lower)` and its negation at `upper`, if that is later.
//! Without any state, a retraction makes exactly the negations of what its row still has to do.
//!
//! Updates of the future wait in one queue per operator, by time, so that no arrangement downstream looks at them
//! again and again; the queue holds a capability at its first time. When inputs are closed for good, time
//! stops, and what still waits is dropped.

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
use super::arrange::Rows;
use super::error::Errors;
use super::expr::{Kernel, KernelError, apply, evaluated, relaxed};
use crate::definition::Retention;
use crate::plan::{Bound, Temporal};
use crate::repr::footprint::{self, Footprint};
use crate::repr::{Diff, Epoch, Row};

/// The time in which nothing ran, between the past that a run begins with and the first epoch that it opens. No snapshot
/// is of an epoch in it, so what happens in it may happen at its end.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// The last epoch of the past.
    pub since: Epoch,
    /// The first that is opened.
    pub until: Epoch,
}

impl Pause {
    /// When what happens at `time` is seen first.
    fn over(self, time: Epoch) -> Epoch {
        match self.since < time && time < self.until {
            true => self.until,
            false => time,
        }
    }
}

/// Lets rows enter and leave by the epoch's time.
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

/// A column that bounds how long rows stay.
pub struct Keep {
    /// Position of a DATE or TIMESTAMP column.
    pub column: usize,
    /// Its name, for the reason of a dead letter.
    pub name: String,
    /// How long.
    pub keep: Duration,
}

/// Retention: rows leave once the epoch's time reaches `column + keep`; nulls stay for ever.
///
/// A row that arrives later than that becomes an error row for good: once it is cut off, nobody remembers
/// it, so a retraction of it says nothing. Rows of before the `pause` are replayed: whether they came too late was
/// judged when they arrived, so they say nothing either; who replays them brings the letters of that time
/// ([`still_late`]).
pub fn retain<'s>(
    input: Collections<'s>,
    schema: &SchemaRef,
    keep: Keep,
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

/// Retention of rows that were in time when they arrived: as [`retain`], but a row whose time has passed says nothing. It
/// is one of the past, replayed: it was there and has left.
pub fn expire<'s>(rows: Rows<'s>, schema: &SchemaRef, keep: Keep, pause: Option<Pause>, name: &str) -> Rows<'s> {
    let applied = apply(rows, schema, name, expiry_kernel(keep));
    release(applied.main, pause, name)
}

/// When rows leave by a retention: the first epoch at which each has passed its time; never, where it is null.
pub fn leaving(column: &dyn Array, keep: Duration) -> Result<Vec<Epoch>, KernelError> {
    let keep = keep_micros(keep);
    let leave = |us: Option<i64>| us.map_or(Epoch::MAX, |us| first_at(us.saturating_add(keep), true));
    Ok(moments(column)?.into_iter().map(leave).collect())
}

fn expiry_kernel(keep: Keep) -> Kernel<Row> {
    Box::new(move |batch, updates, outputs| {
        let leaving = leaving(batch.column(keep.column), keep.keep)?;
        for ((row, time, diff), leave) in updates.iter_mut().zip(leaving) {
            stay(std::mem::take(row), *time, leave, *diff, &mut outputs.main);
        }
        Ok(())
    })
}

fn temporal_kernel(plan: &Temporal) -> Kernel<Row> {
    let own = |bounds: &[Bound]| -> Vec<_> { bounds.iter().map(|b| (b.expr.clone(), b.inclusive)).collect() };
    let (lower, upper) = (own(&plan.lower), own(&plan.upper));
    Box::new(move |batch, updates, outputs| {
        let count = batch.num_rows();
        // None: a bound is null, the row stays out.
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
                // It leaves at the first moment at which it does not exist any more.
                *at = at
                    .zip(moment.map(|us| first_at(us, !*inclusive)))
                    .map(|(a, b)| a.min(b));
            }
        }
        for ((row, time, diff), (enter, leave)) in updates.iter_mut().zip(entering.into_iter().zip(leaving)) {
            if let (Some(enter), Some(leave)) = (enter, leave) {
                stay(std::mem::take(row), (*time).max(enter), leave, *diff, &mut outputs.main);
            }
        }
        Ok(())
    })
}

/// How the reason of a row that came too late begins.
pub const LATE: &str = "late: retention keeps ";

/// Of rows that came too late once, by the payloads of their error rows: whether at `epoch` their time is over, by a
/// retention that may have changed since. A payload that tells no time stays late.
pub fn still_late(payloads: &BinaryArray, retention: &Retention, epoch: Epoch) -> Vec<bool> {
    let told = payloads.iter().map(|payload| {
        let row: serde_json::Value = serde_json::from_slice(payload?).ok()?;
        row.get(&retention.column)?.as_str().map(str::to_string)
    });
    let told = moments(&StringArray::from_iter(told)).expect("text can be read as moments, or as none");
    let keep = keep_micros(retention.keep);
    let over = |us: Option<i64>| us.is_none_or(|us| first_at(us.saturating_add(keep), true) <= epoch);
    told.into_iter().map(over).collect()
}

fn keep_micros(keep: Duration) -> i64 {
    i64::try_from(keep.as_micros()).unwrap_or(i64::MAX)
}

fn retention_kernel(keep: Keep, past: Option<Epoch>, schema: &SchemaRef) -> Kernel<Row> {
    let errors = Errors::default();
    let schema = relaxed(schema);
    Box::new(move |batch, updates, outputs| {
        let leaving = leaving(batch.column(keep.column), keep.keep)?;
        debug_assert_eq!(schema.fields().len(), batch.num_columns());
        for (index, (row, time, diff)) in updates.iter_mut().enumerate() {
            let leave = leaving[index];
            if leave > *time {
                stay(std::mem::take(row), *time, leave, *diff, &mut outputs.main);
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

fn stay(row: Row, enter: Epoch, leave: Epoch, diff: Diff, output: &mut Vec<(Row, Epoch, Diff)>) {
    if leave <= enter || enter == Epoch::MAX {
        return;
    }
    if leave < Epoch::MAX {
        output.push((row.clone(), leave, -diff));
    }
    output.push((row, enter, diff));
}

/// Microseconds.
fn moments(array: &dyn Array) -> Result<Vec<Option<i64>>, KernelError> {
    let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    Ok(micros.as_primitive::<TimestampMicrosecondType>().iter().collect())
}

/// The first epoch at or after a moment, or (not `inclusive`) strictly after it.
fn first_at(micros: i64, inclusive: bool) -> Epoch {
    let floor = micros.div_euclid(1000);
    let exact = micros.rem_euclid(1000) == 0;
    let epoch = if exact && inclusive { floor } else { floor + 1 };
    Epoch::try_from(epoch).unwrap_or(Epoch::MIN)
}

/// Updates that wait for their time.
#[derive(Default)]
struct Waiting {
    by_time: BTreeMap<Epoch, (Vec<(Row, Diff)>, usize)>,
}

impl Waiting {
    fn push(&mut self, row: Row, time: Epoch, diff: Diff) {
        let (updates, settled) = self.by_time.entry(time).or_default();
        updates.push((row, diff));
        // Rows that came and went before their time cancel: at most twice what is needed is held.
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

    /// The updates of the first time, if it is before `frontier`.
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
            let mut held: Option<Capability<Epoch>> = None;
            move |(input, frontier), output| {
                let waiting = &mut *shared.borrow_mut();
                input.for_each_time(|capability, containers| {
                    let now = *capability.time();
                    let mut session = output.session(&capability);
                    for (row, time, diff) in containers.flat_map(|c| c.drain(..)) {
                        let time = pause.map_or(time, |pause| pause.over(time));
                        if time <= now {
                            session.give((row, time, diff));
                        } else {
                            waiting.push(row, time, diff);
                        }
                    }
                    drop(session);
                    if let Some(first) = waiting.first()
                        && held.as_ref().is_none_or(|c| *c.time() > first)
                    {
                        held = Some(capability.delayed(&first, 0));
                    }
                });
                let Some(frontier) = frontier.frontier().first().copied() else {
                    *waiting = Waiting::default();
                    held = None;
                    return;
                };
                while let Some((time, mut updates)) = waiting.next_before(frontier) {
                    let held = held.as_mut().expect("a capability is held while updates wait");
                    held.downgrade(&time);
                    let mut session = output.session(held);
                    session.give_iterator(updates.drain(..).map(|(row, diff)| (row, time, diff)));
                }
                match (waiting.first(), held.as_mut()) {
                    (Some(first), Some(held)) => held.downgrade(&first),
                    _ => held = None,
                }
            }
        })
        .as_collection()
}
