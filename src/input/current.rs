//! The operator that folds changes into an input's current rows.
//!
//! It holds one value per key (in a differential spine, compacted to the frontier: no history). When an epoch closes,
//! its changes are sorted by key and arrival once, and one pass over the stored state folds them.
//!
//! 1. A key's state is the fold of its changes in order of arrival; [`MergeRule`] says how.
//! 2. The stored trace holds all closed epochs and nothing else; its upper is the input frontier.
//! 3. For each key and epoch at most one row is retracted and one is added; if the row is the same, there is no
//!    update.
//! 4. A value that a change leaves out is taken from the row that it replaces; without such a row it is null.
//! 5. PostgreSQL checks a deferrable key only at the end of a statement or transaction, so an update may move a row to a
//!    key where another row still is (`FeedContract::moves_rows`). The arriving row covers (hides) the one there, and
//!    the next deletion at the key in that epoch, which holds the whole transaction, removes the hidden row: the moved
//!    one stays.
//! 6. Retention bounds the state: a row expires when its time has passed, and a tombstone when it is as old as the
//!    retention. A change that arrives at or after the epoch of expiry ignores the expired state, whether it is still
//!    stored or not. So the fold depends on arrivals alone, and expired state may be removed from the trace at any
//!    later time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use differential_dataflow::trace::{Builder, Cursor, Description, Trace, TraceReader};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::generic::{OperatorInfo, OutputBuilder};
use timely::progress::Antichain;
use timely::scheduling::Activator;

use super::change::{Arrival, Change, ChangeParts, Flag, encode};
use super::expiries::Expiries;
use super::ingest::RoutedChange;
use crate::repr::footprint::{self, Footprint};
use crate::repr::{Diff, Epoch, Pairs, Row, RowCodec, RowValBuilder, RowValSpine, Rows, Update, chunks};

/// How the changes of a key are folded into its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeRule {
    /// The greatest version wins. A deletion stays as a tombstone with its version; without any `order_by` value it
    /// takes the version of the current state, and so removes what arrived before it.
    Newest,
    /// The first row stays; deletions are ignored.
    First,
    /// The state is a row's multiplicity, which changes by one and is never negative (a deletion of an absent row is
    /// ignored).
    Counted,
}

/// An epoch that is not closed: the capabilities to send rows and states at it, and its changes by key.
type OpenEpochChanges = ([Capability<Epoch>; 2], Vec<(Row, Row)>);

/// An update of a key's state.
type KeyedUpdate = ((Row, Row), Epoch, Diff);

/// A key's state and its multiplicity. The state is the change that won; if counted, only the epoch at which its row
/// expires, if it does.
type KeyState = Option<(Row, Diff)>;

/// The operator's settings for one input.
pub struct StateSettings {
    /// How changes become state.
    pub fold: MergeRule,
    /// The retention time of rows and tombstones, in epoch milliseconds; none: for ever.
    pub keep: Option<u64>,
    /// The column by which retention expires rows.
    pub retained: Option<usize>,
    /// The codec of the input's rows.
    pub codec: RowCodec,
    /// By index into `Input::feeds`, whether (5) holds for the feed's changes.
    pub moving: Vec<bool>,
}

/// How many rows of a key are covered, by (5), at the epoch at which changes arrived.
#[derive(Clone, Copy, Default)]
struct CoveredRows {
    epoch: Epoch,
    rows: usize,
}

impl CoveredRows {
    /// The covered rows as of a change.
    fn at(self, change: &Change<'_>) -> CoveredRows {
        let epoch = change.arrival().epoch;
        match self.epoch == epoch {
            true => self,
            false => CoveredRows { epoch, rows: 0 },
        }
    }
}

/// The operator's outputs.
pub struct Current<'s> {
    /// The current rows.
    pub rows: Rows<'s>,
    /// The operator's state as (key, state) pairs, which a restart loads again; see [`StateSettings::change`].
    pub states: Pairs<'s>,
}

/// Computes an input's current rows. The states of epochs up to `loaded` are not output, because the lake already
/// holds them.
pub fn current<'s>(
    changes: Stream<'s, Epoch, Vec<RoutedChange>>,
    settings: Arc<StateSettings>,
    loaded: Option<Epoch>,
    name: &str,
) -> Current<'s> {
    type UpdateOutput<D> = OutputBuilder<Epoch, CapacityContainerBuilder<Vec<D>>>;
    let exchange = Exchange::new(|routed: &RoutedChange| routed.0);
    let scope = changes.scope();
    // An input handle hands its pushers the last containers only when its epoch closes, and an exchange directly
    // behind it was seen to keep them back for ever; an operator in between pushes whenever it runs.
    let changes = changes.unary(Pipeline, name, |_, _| {
        |input, output| input.for_each(|capability, data| output.session(&capability).give_container(data))
    });
    let mut builder = OperatorBuilder::new(name.to_string(), scope);
    let info = builder.operator_info();
    let activator = scope.activator_for(info.address.clone());
    let mut input = builder.new_input(changes, exchange);
    let (rows, rows_stream) = builder.new_output();
    let mut rows = UpdateOutput::<Update>::from(rows);
    let (states, states_stream) = builder.new_output();
    let mut states = UpdateOutput::<KeyedUpdate>::from(states);
    let called = name.to_string();
    builder.build(move |_capabilities| {
        footprint::name(info.global_id, &called);
        let mut key_states = KeyStates::new(info, Some(activator), settings);
        let mut pending: BTreeMap<Epoch, OpenEpochChanges> = BTreeMap::new();
        // Changes that only forget expired state wait here until an epoch with other changes is sent.
        let mut stored = vec![];
        move |frontiers| {
            input.for_each(|capability, container| {
                let (_, changes) = pending
                    .entry(*capability.time())
                    .or_insert_with(|| ([0, 1].map(|output| capability.retain(output)), vec![]));
                changes.extend(container.drain(..).map(|(_, key, change)| (key, change)));
            });
            let upper = frontiers[0].frontier().to_owned();
            if upper == key_states.lower {
                key_states.trace.exert();
                return;
            }
            let mut capabilities = None;
            let mut ready: Vec<(Row, Epoch, Row)> = Vec::new();
            while let Some(entry) = pending.first_entry().filter(|e| !upper.less_equal(e.key())) {
                let (time, (of_time, changes)) = entry.remove_entry();
                ready.extend(changes.into_iter().map(|(key, change)| (key, time, change)));
                capabilities.get_or_insert(of_time);
            }
            let row_updates = key_states.close(ready, upper, |updates| {
                let is_later = |(_, time, _): &&KeyedUpdate| loaded.is_none_or(|loaded| *time > loaded);
                stored.extend(updates.iter().filter(is_later).cloned());
            });
            if let Some([of_rows, of_states]) = capabilities {
                rows.activate().session(&of_rows).give_iterator(row_updates.into_iter());
                let at = *of_states.time();
                let stored = stored.drain(..).map(|(state, time, diff)| (state, time.max(at), diff));
                states.activate().session(&of_states).give_iterator(stored);
            }
        }
    });
    Current {
        rows: rows_stream.as_collection(),
        states: states_stream.as_collection(),
    }
}

/// The state of every key as of the closed epochs.
struct KeyStates {
    settings: Arc<StateSettings>,
    trace: RowValSpine,
    /// The lower bound of the epochs that are open.
    lower: Antichain<Epoch>,
    expiries: Rc<RefCell<Expiries>>,
}

impl KeyStates {
    fn new(info: OperatorInfo, activator: Option<Activator>, settings: Arc<StateSettings>) -> Self {
        let expiries = Rc::new(RefCell::new(Expiries::new(settings.keep)));
        let asked = Rc::downgrade(&expiries);
        footprint::note(info.global_id, move || {
            let expiries = asked.upgrade()?;
            let all = footprint::about(expiries.borrow().by_epoch.values(), |key| key);
            // These keys belong to rows that the trace counts already.
            Some(Footprint { records: 0, ..all })
        });
        KeyStates {
            expiries,
            settings,
            trace: RowValSpine::new(info, None, activator),
            lower: Antichain::from_elem(Epoch::MIN),
        }
    }

    /// Closes the epochs before `upper`; `ready` are their changes (key, epoch, change). Returns the updates of the
    /// current rows. `stored` receives the updates of the states.
    fn close(
        &mut self,
        mut ready: Vec<(Row, Epoch, Row)>,
        upper: Antichain<Epoch>,
        stored: impl FnOnce(&[KeyedUpdate]),
    ) -> Vec<Update> {
        let expiries = &mut *self.expiries.borrow_mut();
        if let Some(lower) = self.lower.first() {
            expiries.forget(*lower, &mut ready);
        }
        let mut step = ClosedUpdates::default();
        if !ready.is_empty() {
            spread_truncations(&mut ready, &mut self.trace);
            ready.sort_unstable_by(|a, b| {
                let arrived = |change: &Row| Change::read(change.bytes()).arrival();
                (&a.0, a.1)
                    .cmp(&(&b.0, b.1))
                    .then_with(|| arrived(&a.2).cmp(&arrived(&b.2)))
            });
            step.run(&ready, &self.settings, &mut self.trace, expiries);
        }
        let description = Description::new(self.lower.clone(), upper.clone(), Antichain::from_elem(Epoch::MIN));
        let trace = &mut self.trace;
        stored(&step.stored);
        trace.insert(RowValBuilder::seal(&mut chunks(step.stored), description)); // (2)
        trace.set_logical_compaction(upper.borrow());
        trace.set_physical_compaction(upper.borrow());
        trace.exert();
        self.lower = upper;
        step.rows
    }
}

/// The updates of one closing of epochs.
#[derive(Default)]
struct ClosedUpdates {
    /// Updates of the trace, sorted.
    stored: Vec<KeyedUpdate>,
    /// Updates of the current rows.
    rows: Vec<Update>,
}

impl ClosedUpdates {
    /// Folds changes, sorted by key and arrival, into the stored states.
    fn run(
        &mut self,
        ready: &[(Row, Epoch, Row)],
        settings: &StateSettings,
        trace: &mut RowValSpine,
        expiries: &mut Expiries,
    ) {
        let (mut cursor, storage) = trace.cursor();
        let mut buffer = Vec::new();
        for changes in ready.chunk_by(|a, b| a.0 == b.0) {
            let key = &changes[0].0;
            let mut state: KeyState = None;
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
            let awaited = settings.expiry(&state) < Epoch::MAX;
            let mut covered = CoveredRows::default();
            for at_time in changes.chunk_by(|a, b| a.1 == b.1) {
                let time = at_time[0].1;
                let before = state.clone();
                for (_, _, change) in at_time {
                    state = settings.advance(state, change, &mut covered, &mut buffer);
                }
                if state != before {
                    self.update_rows(settings, key, time, &before, &state);
                    let store = |state: KeyState, sign: Diff| {
                        state.map(|(value, count)| ((key.clone(), value), time, sign * count))
                    };
                    self.stored.extend(store(before, -1));
                    self.stored.extend(store(state.clone(), 1));
                }
            }
            let over = settings.expiry(&state);
            if over < Epoch::MAX && (!awaited || changes.iter().any(|(_, _, change)| asks_to_forget(change))) {
                expiries.observe(key, over);
            }
            if self.stored.len() > first + 1 {
                let mut own = self.stored.split_off(first);
                differential_dataflow::consolidation::consolidate_updates(&mut own);
                self.stored.append(&mut own);
            }
        }
    }

    fn update_rows(&mut self, settings: &StateSettings, key: &Row, time: Epoch, before: &KeyState, after: &KeyState) {
        // The retention operator has already retracted expired rows.
        let is_unexpired = |state: &KeyState| settings.expiry(state) > time;
        let before = before.as_ref().filter(|_| is_unexpired(before));
        let after = after.as_ref().filter(|_| is_unexpired(after));
        if settings.fold == MergeRule::Counted {
            let count = |state: Option<&(Row, Diff)>| state.map_or(0, |(_, count)| *count);
            self.rows.push((key.clone(), time, count(after) - count(before)));
            return;
        }
        let (old, new) = (before.and_then(live), after.and_then(live));
        if old != new {
            self.rows.extend(old.map(|row| (Row::new(row), time, -1)));
            self.rows.extend(new.map(|row| (Row::new(row), time, 1)));
        }
    }
}

/// The row of a state, if it has one.
fn live((value, _): &(Row, Diff)) -> Option<&[u8]> {
    let change = Change::read(value.bytes());
    (change.flag() == Flag::Live).then(|| change.row())
}

fn asks_to_forget(change: &Row) -> bool {
    Change::read(change.bytes()).flag() == Flag::Forget
}

impl StateSettings {
    /// The first epoch at which a state has expired, by (6).
    fn expiry(&self, state: &KeyState) -> Epoch {
        let (Some((value, _)), Some(keep)) = (state, self.keep) else {
            return Epoch::MAX;
        };
        if self.fold == MergeRule::Counted {
            return value
                .bytes()
                .first_chunk()
                .map_or(Epoch::MAX, |b| Epoch::from_be_bytes(*b));
        }
        let change = Change::read(value.bytes());
        match change.flag() {
            Flag::Live => change.until(),
            _ => change.arrival().epoch.saturating_add(keep).saturating_add(1),
        }
    }

    /// A change with the values that it leaves out filled in, by (4).
    fn filled(&self, existing: Option<&(Row, Diff)>, change: &Change<'_>, buffer: &mut Vec<u8>) -> Row {
        let existing = existing.map(|(value, _)| Change::read(value.bytes()));
        let existing = existing.filter(|existing| existing.flag() == Flag::Live);
        let left_out: Vec<usize> = change.unchanged().collect();
        let row = existing.map(|existing| {
            let rows = self.codec.decode([existing.row(), change.row()]);
            let rows = rows.expect("an input's rows were encoded by its codec");
            let value = |column| rows.column(column).slice(usize::from(!left_out.contains(&column)), 1);
            let columns: Vec<_> = (0..rows.num_columns()).map(value).collect();
            let mut filled = self
                .codec
                .encode_rows(&columns, 1)
                .expect("they are of the codec's types");
            filled.pop().expect("one row was encoded")
        });
        let until = match self.retained.filter(|column| left_out.contains(column)) {
            Some(_) => existing.map_or(Epoch::MAX, |existing| existing.until()),
            None => change.until(),
        };
        let parts = ChangeParts {
            order: change.order(),
            arrival: change.arrival(),
            flag: Flag::Live,
            until,
            unchanged: &[],
            row: row.as_ref().map_or(change.row(), Row::bytes),
        };
        encode(buffer, &parts)
    }

    /// The change that restores a stored state from nothing; for a counted row, the change adds one to its count.
    pub fn change(&self, state: Row) -> Row {
        if self.fold != MergeRule::Counted {
            return state; // it is the change that won
        }
        let until = state
            .bytes()
            .first_chunk()
            .map_or(Epoch::MAX, |b| Epoch::from_be_bytes(*b));
        let parts = ChangeParts {
            order: &[],
            arrival: Arrival::default(),
            flag: Flag::Live,
            until,
            unchanged: &[],
            row: &[],
        };
        encode(&mut Vec::new(), &parts)
    }

    /// Whether (5) holds for a change.
    fn moves(&self, change: &Change<'_>) -> bool {
        self.moving[usize::from(change.arrival().feed)]
    }

    /// Folds one change into a state, by (1).
    fn advance(&self, state: KeyState, next: &Row, covered: &mut CoveredRows, buffer: &mut Vec<u8>) -> KeyState {
        let change = Change::read(next.bytes());
        *covered = covered.at(&change);
        let state = match self.expiry(&state) <= change.arrival().epoch {
            true => None,
            false => state,
        };
        match (self.fold, change.flag()) {
            (_, Flag::Truncate) => None,
            (_, Flag::Forget) => state,
            (MergeRule::Counted, flag) => {
                let count = state.as_ref().map_or(0, |(_, count)| *count) + if flag == Flag::Live { 1 } else { -1 };
                let value = match (state, change.until()) {
                    (Some((value, _)), _) => value,
                    (None, Epoch::MAX) => Row::default(),
                    (None, until) => Row::new(&until.to_be_bytes()),
                };
                (count > 0).then_some((value, count))
            }
            // A replay of history may bring changes that arrived before the row that is held.
            (MergeRule::First, Flag::Live) => state
                .filter(|(existing, _)| Change::read(existing.bytes()).arrival() <= change.arrival())
                .or_else(|| Some((next.clone(), 1))),
            (MergeRule::First, _) => state,
            (MergeRule::Newest, Flag::Gone | Flag::GoneUnordered) if covered.rows > 0 && self.moves(&change) => {
                covered.rows -= 1;
                state
            }
            (MergeRule::Newest, Flag::GoneUnordered) => {
                // Without a state there is no version to take, so the deletion is ignored.
                let (existing, count) = state?;
                // The deletion removes only what arrived before it; in a replay, it may find what arrived later.
                if Change::read(existing.bytes()).arrival() > change.arrival() {
                    return Some((existing, count));
                }
                let tombstone = ChangeParts {
                    order: Change::read(existing.bytes()).order(),
                    arrival: change.arrival(),
                    flag: Flag::Gone,
                    until: Epoch::MAX,
                    unchanged: &[],
                    row: &[],
                };
                Some((encode(buffer, &tombstone), 1))
            }
            (MergeRule::Newest, _) => match state {
                Some((existing, count)) if Change::read(existing.bytes()).version() > change.version() => {
                    Some((existing, count))
                }
                Some(existing) if change.flag() == Flag::Live && change.arrival().sub > 0 && self.moves(&change) => {
                    covered.rows += usize::from(live(&existing).is_some());
                    Some((next.clone(), 1))
                }
                existing if change.unchanged().len() > 0 => Some((self.filled(existing.as_ref(), &change, buffer), 1)),
                _ => Some((next.clone(), 1)),
            },
        }
    }
}

/// Turns a truncation into a change of every existing key.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;

    const KEEP: u64 = 100;

    fn change(epoch: Epoch, flag: Flag, until: Epoch) -> Row {
        let arrival = Arrival {
            epoch,
            feed: 0,
            partition: 0,
            offset: epoch,
            sub: 0,
        };
        let parts = ChangeParts {
            order: &[],
            arrival,
            flag,
            until,
            unchanged: &[],
            row: b"row",
        };
        encode(&mut Vec::new(), &parts)
    }

    fn stored(states: &mut KeyStates) -> usize {
        let (mut cursor, storage) = states.trace.cursor();
        let mut keys = 0;
        while let Some(_key) = cursor.get_key(&storage) {
            let mut count = 0;
            while cursor.get_val(&storage).is_some() {
                cursor.map_times(&storage, |_, diff| count += *diff);
                cursor.step_val(&storage);
            }
            keys += usize::from(count != 0);
            cursor.step_key(&storage);
        }
        keys
    }

    #[test]
    fn retention_takes_rows_and_tombstones_out_of_the_state_once_nothing_could_find_them() {
        for fold in [MergeRule::Newest, MergeRule::First, MergeRule::Counted] {
            let keep = Some(KEEP);
            let settings = StateSettings {
                fold,
                keep,
                retained: None,
                codec: RowCodec::new(Arc::new(Schema::empty())).unwrap(),
                moving: vec![false],
            };
            let mut states = KeyStates::new(OperatorInfo::new(0, 0, [].into()), None, Arc::new(settings));
            let mut most = 0;
            for epoch in 0..1000u64 {
                let key = Row::new(&epoch.to_be_bytes());
                // One in four keys is updated within its epoch, and one in four is deleted.
                let mut ready = vec![(key.clone(), epoch, change(epoch, Flag::Live, epoch + KEEP))];
                if epoch % 4 == 0 && fold != MergeRule::Counted {
                    ready.push((key.clone(), epoch, change(epoch, Flag::Live, epoch + 2 * KEEP)));
                }
                if epoch % 4 == 1 {
                    ready.push((key.clone(), epoch, change(epoch, Flag::Gone, Epoch::MAX)));
                }
                let updates = states.close(ready, Antichain::from_elem(epoch + 1), |_| {});
                assert!(
                    updates.iter().all(|(_, time, _)| *time == epoch),
                    "nothing is told of what is forgotten"
                );
                most = most.max(stored(&mut states));
            }
            assert!(
                (75..=205).contains(&most),
                "{most} keys of the last 100 or 200 epochs with {fold:?}"
            );
            states.close(vec![], Antichain::from_elem(2000), |_| {});
            states.close(vec![], Antichain::from_elem(2001), |_| {});
            assert_eq!(stored(&mut states), 0, "{fold:?}");
            assert!(states.expiries.borrow().by_epoch.is_empty());
        }
    }

    /// In a replay of history, a change keeps its first arrival: what had arrived later was taken for it, or was
    /// removed by it.
    #[test]
    fn what_arrived_earlier_counts_as_earlier_whenever_it_is_fed() {
        let settings = |fold| StateSettings {
            fold,
            keep: None,
            retained: None,
            codec: RowCodec::new(Arc::new(Schema::empty())).unwrap(),
            moving: vec![false],
        };
        let key = Row::new(b"key");
        let change = |arrived: Epoch, flag, row: &[u8]| {
            let arrival = Arrival {
                epoch: arrived,
                feed: 0,
                partition: 0,
                offset: 0,
                sub: 0,
            };
            let parts = ChangeParts {
                order: &[],
                arrival,
                flag,
                until: Epoch::MAX,
                unchanged: &[],
                row,
            };
            encode(&mut Vec::new(), &parts)
        };
        let close = |states: &mut KeyStates, at: Epoch, change: Row| -> Vec<(Vec<u8>, Diff)> {
            let updates = states.close(vec![(key.clone(), at, change)], Antichain::from_elem(at + 1), |_| {});
            updates
                .into_iter()
                .map(|(row, _, diff)| (row.bytes().to_vec(), diff))
                .collect()
        };
        let states = |fold| KeyStates::new(OperatorInfo::new(0, 0, [].into()), None, Arc::new(settings(fold)));

        let mut first = states(MergeRule::First);
        close(&mut first, 5, change(5, Flag::Live, b"later"));
        let mut corrected = close(&mut first, 6, change(3, Flag::Live, b"earlier"));
        corrected.sort();
        assert_eq!(corrected, [(b"earlier".to_vec(), 1), (b"later".to_vec(), -1)]);
        assert_eq!(close(&mut first, 7, change(3, Flag::Live, b"earlier")), []);
        assert_eq!(close(&mut first, 8, change(5, Flag::Live, b"later")), []);

        let mut newest = states(MergeRule::Newest);
        close(&mut newest, 5, change(5, Flag::Live, b"later"));
        assert_eq!(close(&mut newest, 6, change(3, Flag::Live, b"earlier")), []);
        assert_eq!(close(&mut newest, 7, change(4, Flag::GoneUnordered, b"")), []);
        assert_eq!(
            close(&mut newest, 8, change(8, Flag::GoneUnordered, b"")),
            [(b"later".to_vec(), -1)]
        );
    }
}
