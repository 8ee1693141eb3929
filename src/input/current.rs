//! The operator that turns changes into an input's current rows.
//!
//! It holds one value per key (in a differential spine, compacted to the frontier: no history). When an epoch
//! closes, its changes are sorted by key and arrival once, and one pass over the stored state folds them.
//!
//! 1. A key's state is the fold of its changes in order of arrival; [`Fold`] says how.
//! 2. The stored trace holds all closed epochs and nothing else; its upper is the input frontier.
//! 3. For each key and epoch at most one row leaves and one enters: what is the same before and after is not told.

use std::collections::{BTreeMap, VecDeque};

use differential_dataflow::AsCollection;
use differential_dataflow::trace::{Builder, Cursor, Description, Trace, TraceReader};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::Antichain;

use super::change::{Arrival, Change, Flag, encode};
use super::ingest::Routed;
use crate::render::Rows;
use crate::repr::{Diff, Epoch, Row, RowValBuilder, RowValSpine, Update};

/// How changes of a key become its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// The greatest version wins; a deletion stays as a tombstone with its version. A deletion without any
    /// `order_by` value takes the version of what is there: it removes what arrived before it.
    Newest,
    /// The first row stays; deletions say nothing.
    First,
    /// A row's count: one more, one less, never below zero (a deletion of a row that is not there says nothing).
    Counted,
}

/// An epoch that is not closed: the right to speak at it, and its changes by key.
type Open = (Capability<Epoch>, Vec<(Row, Row)>);

/// A key's state: its change (empty when counted) and how often.
type State = Option<(Row, Diff)>;

/// The operator's settings.
pub struct Settings {
    /// How changes become state.
    pub fold: Fold,
    /// How long tombstones are remembered, in epoch milliseconds; none: for ever.
    pub forget_after: Option<u64>,
}

/// An input's current rows.
pub fn current<'s>(changes: Stream<'s, Epoch, Vec<Routed>>, settings: Settings, name: &str) -> Rows<'s> {
    let exchange = Exchange::new(|routed: &Routed| routed.0);
    let scope = changes.scope();
    // An input handle hands its pushers the last containers only when its epoch closes, and an exchange directly
    // behind it was seen to keep them back for ever; an operator in between pushes whenever it runs.
    changes
        .unary(Pipeline, name, |_, _| {
            |input, output| input.for_each(|capability, data| output.session(&capability).give_container(data))
        })
        .unary_frontier(exchange, name, move |_, info| {
            let activator = scope.activator_for(info.address.clone());
            let mut trace = RowValSpine::new(info, None, Some(activator));
            let mut pending: BTreeMap<Epoch, Open> = BTreeMap::new();
            let mut lower = Antichain::from_elem(Epoch::MIN);
            let mut tombstones = Tombstones::new(settings.forget_after);
            move |(input, frontier), output| {
                input.for_each_time(|capability, containers| {
                    let (_, changes) = pending
                        .entry(*capability.time())
                        .or_insert_with(|| (capability.retain(0), vec![]));
                    for container in containers {
                        changes.extend(container.drain(..).map(|(_, key, change)| (key, change)));
                    }
                });
                let upper = frontier.frontier().to_owned();
                if upper == lower {
                    trace.exert();
                    return;
                }
                let mut held = None;
                let mut ready: Vec<(Row, Epoch, Row)> = Vec::new();
                while let Some(entry) = pending.first_entry().filter(|e| !upper.less_equal(e.key())) {
                    let (time, (capability, changes)) = entry.remove_entry();
                    ready.extend(changes.into_iter().map(|(key, change)| (key, time, change)));
                    held.get_or_insert(capability);
                }
                if let (Some(from), Some(to)) = (lower.first(), upper.first()) {
                    tombstones.forget(*from, *to, &mut ready);
                }
                let mut step = Step::default();
                if !ready.is_empty() {
                    spread_truncations(&mut ready, &mut trace);
                    ready.sort_unstable_by(|a, b| {
                        let arrived = |change: &Row| Change::read(change.bytes()).arrival();
                        (&a.0, a.1)
                            .cmp(&(&b.0, b.1))
                            .then_with(|| arrived(&a.2).cmp(&arrived(&b.2)))
                    });
                    step.run(&ready, settings.fold, &mut trace, &mut tombstones);
                }
                let description = Description::new(lower.clone(), upper.clone(), Antichain::from_elem(Epoch::MIN));
                trace.insert(RowValBuilder::seal(&mut vec![step.stored], description)); // (2)
                trace.set_logical_compaction(upper.borrow());
                trace.set_physical_compaction(upper.borrow());
                trace.exert();
                if let Some(capability) = held {
                    output.session(&capability).give_iterator(step.told.into_iter());
                }
                lower = upper;
            }
        })
        .as_collection()
}

/// What one closing of epochs changes.
#[derive(Default)]
struct Step {
    /// Updates of the trace, sorted.
    stored: Vec<((Row, Row), Epoch, Diff)>,
    /// Updates of the current rows.
    told: Vec<Update>,
}

impl Step {
    /// Folds sorted changes into the stored states.
    fn run(&mut self, ready: &[(Row, Epoch, Row)], fold: Fold, trace: &mut RowValSpine, tombstones: &mut Tombstones) {
        let (mut cursor, storage) = trace.cursor();
        let mut buffer = Vec::new();
        for changes in ready.chunk_by(|a, b| a.0 == b.0) {
            let key = &changes[0].0;
            let mut state: State = None;
            let seek = crate::repr::RowRef::new(key.bytes());
            cursor.seek_key(&storage, seek);
            if cursor.get_key(&storage) == Some(seek) {
                while let Some(value) = cursor.get_val(&storage) {
                    let mut count = 0;
                    cursor.map_times(&storage, |_, diff| count += *diff);
                    if count != 0 {
                        state = Some((value.to_row(), count));
                    }
                    cursor.step_val(&storage);
                }
            }
            let first = self.stored.len();
            for at_time in changes.chunk_by(|a, b| a.1 == b.1) {
                let time = at_time[0].1;
                let before = state.clone();
                for (_, _, change) in at_time {
                    state = advance(fold, state, change, &mut buffer);
                }
                if state != before {
                    self.tell(fold, key, time, &before, &state);
                    let store = |state: State, sign: Diff| {
                        state.map(|(value, count)| ((key.clone(), value), time, sign * count))
                    };
                    tombstones.observe(key, time, &state);
                    self.stored.extend(store(before, -1));
                    self.stored.extend(store(state.clone(), 1));
                }
            }
            if self.stored.len() > first + 1 {
                let mut own = self.stored.split_off(first);
                differential_dataflow::consolidation::consolidate_updates(&mut own);
                self.stored.append(&mut own);
            }
        }
    }

    fn tell(&mut self, fold: Fold, key: &Row, time: Epoch, before: &State, after: &State) {
        if fold == Fold::Counted {
            let count = |state: &State| state.as_ref().map_or(0, |(_, count)| *count);
            self.told.push((key.clone(), time, count(after) - count(before)));
            return;
        }
        let (old, new) = (live(before), live(after));
        if old != new {
            self.told.extend(old.map(|row| (Row::new(row), time, -1)));
            self.told.extend(new.map(|row| (Row::new(row), time, 1)));
        }
    }
}

/// The row of a state that has one.
fn live(state: &State) -> Option<&[u8]> {
    let change = Change::read(state.as_ref()?.0.bytes());
    (change.flag() == Flag::Live).then(|| change.row())
}

/// One step of the fold. See (1).
fn advance(fold: Fold, state: State, next: &Row, buffer: &mut Vec<u8>) -> State {
    let change = Change::read(next.bytes());
    match (fold, change.flag()) {
        (_, Flag::Truncate) => None,
        (_, Flag::Forget) => state.filter(|(value, _)| {
            let held = Change::read(value.bytes());
            held.flag() == Flag::Live || held.arrival().epoch > change.arrival().epoch
        }),
        (Fold::Counted, flag) => {
            let count = state.map_or(0, |(_, count)| count) + if flag == Flag::Live { 1 } else { -1 };
            (count > 0).then(|| (Row::default(), count))
        }
        (Fold::First, Flag::Live) => state.or_else(|| Some((next.clone(), 1))),
        (Fold::First, _) => state,
        (Fold::Newest, Flag::GoneUnordered) => {
            // Where nothing is, there is no version to take: it says nothing.
            let (held, _) = state?;
            let order = Change::read(held.bytes()).order();
            Some((encode(buffer, order, &change.arrival(), Flag::Gone, &[]), 1))
        }
        (Fold::Newest, _) => match state {
            Some((held, count)) if Change::read(held.bytes()).version() > change.version() => Some((held, count)),
            _ => Some((next.clone(), 1)),
        },
    }
}

/// Makes a truncation a change of every key there is.
fn spread_truncations(ready: &mut Vec<(Row, Epoch, Row)>, trace: &mut RowValSpine) {
    let is_truncation = |entry: &(Row, Epoch, Row)| Change::read(entry.2.bytes()).flag() == Flag::Truncate;
    if !ready.iter().any(is_truncation) {
        return;
    }
    let (truncations, changes): (Vec<_>, Vec<_>) = ready.drain(..).partition(is_truncation);
    let mut keys: Vec<Row> = changes.iter().map(|(key, _, _)| key.clone()).collect();
    let (mut cursor, storage) = trace.cursor();
    while let Some(key) = cursor.get_key(&storage) {
        keys.push(key.to_row());
        cursor.step_key(&storage);
    }
    keys.sort_unstable();
    keys.dedup();
    *ready = changes;
    for key in keys {
        ready.extend(
            truncations
                .iter()
                .map(|(_, time, change)| (key.clone(), *time, change.clone())),
        );
    }
}

/// Tombstones by age, where their memory is bounded.
struct Tombstones {
    forget_after: Option<u64>,
    by_age: VecDeque<(Epoch, Row)>,
}

impl Tombstones {
    fn new(forget_after: Option<u64>) -> Self {
        Tombstones {
            forget_after,
            by_age: VecDeque::new(),
        }
    }

    fn observe(&mut self, key: &Row, time: Epoch, state: &State) {
        let Some((value, _)) = state.as_ref().filter(|_| self.forget_after.is_some()) else {
            return;
        };
        if !value.bytes().is_empty() && Change::read(value.bytes()).flag() == Flag::Gone {
            self.by_age.push_back((time, key.clone()));
        }
    }

    /// Asks to forget what is too old at `now`, at time `lower`: nothing is told of it.
    fn forget(&mut self, lower: Epoch, now: Epoch, ready: &mut Vec<(Row, Epoch, Row)>) {
        let Some(keep) = self.forget_after else { return };
        while let Some((age, key)) = self.by_age.pop_front_if(|(age, _)| age.saturating_add(keep) < now) {
            let arrival = Arrival {
                epoch: age,
                feed: 0,
                partition: 0,
                offset: 0,
                sub: 0,
            };
            let change = encode(&mut Vec::new(), &[], &arrival, Flag::Forget, &[]);
            ready.push((key, lower, change));
        }
    }
}
