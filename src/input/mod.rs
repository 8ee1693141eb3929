//! Changes to an input's current rows.
//!
//! ```text
//! Delivery -> Ingest (encode, stamp) -> exchange by key -> current rows -> retention -> the graph
//!                                   \-> events (append-only, no state) -/
//! ```
//!
//! 1. What an input holds is a function of the changes and where and when they arrived (epoch, feed, partition,
//!    offset), all of which Bronze keeps: [`Resolver`] computes the same in batch.
//! 2. A keyed input holds one value per key, no history. An append-only input holds nothing. Retention takes rows out of
//!    what is held too, and a record whose row is over when it arrives is refused: [`Ingested::late`].
//! 3. Deletions and truncations of an input without a key are honoured if one of its feeds carries changes
//!    ([`retracts`]); otherwise there can be none worth the state, and [`Ingested::unusable`] counts them.

mod change;
mod current;
mod ingest;
mod reform;
mod resolve;
#[cfg(test)]
mod tests;

pub(crate) use change::Arrival;
pub use ingest::Arrived;
pub(crate) use ingest::arrivals;
pub use reform::Reform;
pub use resolve::Resolver;

use std::sync::Arc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::Input as _;
use timely::dataflow::operators::core::input::Handle;

use crate::decode::Reject;
use crate::definition::{Dataflow, Input};
use crate::render::arrange::{Pairs, hash};
use crate::render::{self, Collections, Pause};
use crate::repr::{CodecError, Epoch, Row, RowCodec, Update};
use crate::source::Delivery;
use current::{Fold, Settings, current};
use differential_dataflow::AsCollection;
use ingest::{Ingest, Routed};

/// Whether rows of this input may ever be removed by what arrives (retention aside).
pub fn retracts(input: &Input) -> bool {
    !input.key.is_empty() || input.feeds.iter().any(|feed| feed.format.carries_changes())
}

/// One worker's ends of all inputs.
pub struct Inputs {
    sessions: Vec<Session>,
    peers: usize,
}

struct Session {
    ingest: Ingest,
    handle: InputHandle,
    settings: Option<Arc<Settings>>,
}

enum InputHandle {
    Events(Handle<Epoch, CapacityContainerBuilder<Vec<Update>>>, Vec<Update>),
    Changes(Handle<Epoch, CapacityContainerBuilder<Vec<Routed>>>, Vec<Routed>),
}

/// What became of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Changes that went into the graph.
    pub changes: usize,
    /// Deletions and truncations of an append-only input.
    pub unusable: usize,
    /// Records that retention had cut off before they arrived.
    pub late: Vec<Reject>,
}

/// The inputs of a dataflow, in its order.
pub struct Built<'s> {
    /// This worker's ends.
    pub inputs: Inputs,
    /// Their rows.
    pub collections: Vec<Collections<'s>>,
    /// What those with a state hold, by key: what [`Inputs::load`] takes.
    pub states: Vec<Option<Pairs<'s>>>,
}

/// How an input's changes become its rows; none: each is a row, and nothing is held.
fn fold(input: &Input) -> Option<Fold> {
    if !input.key.is_empty() {
        Some(Fold::Newest)
    } else if !input.dedup_key.is_empty() {
        Some(Fold::First)
    } else {
        retracts(input).then_some(Fold::Counted)
    }
}

/// Whether an input holds anything by key.
pub fn has_state(input: &Input) -> bool {
    fold(input).is_some()
}

/// Makes the inputs of a dataflow. Of an input that is `loaded` before the pause no states are told up to that.
pub fn build<'s>(
    scope: Scope<'s, Epoch>,
    dataflow: &Dataflow,
    pause: Option<Pause>,
    loaded: impl Fn(usize) -> bool,
) -> Result<Built<'s>, CodecError> {
    let mut sessions = Vec::new();
    let mut collections = Vec::new();
    let mut states = Vec::new();
    let since = |index: usize| pause.filter(|_| loaded(index)).map(|pause| pause.since);
    for (index, input) in dataflow.inputs.iter().enumerate() {
        let mut settings = None;
        let (handle, oks) = match fold(input) {
            None => {
                let (handle, stream) = scope.new_input::<Vec<Update>>();
                states.push(None);
                (InputHandle::Events(handle, vec![]), stream.as_collection())
            }
            Some(fold) => {
                let (handle, stream) = scope.new_input::<Vec<Routed>>();
                let of_input = Settings {
                    fold,
                    keep: input.retention.as_ref().map(|r| r.keep.as_millis() as u64),
                    retained: input
                        .retention
                        .as_ref()
                        .map(|r| input.positions(std::slice::from_ref(&r.column))[0]),
                    codec: RowCodec::new(input.schema())?,
                };
                let of_input = settings.insert(Arc::new(of_input)).clone();
                let current = current(stream, of_input, since(index), &format!("input {}", input.name));
                states.push(Some(current.states));
                (InputHandle::Changes(handle, vec![]), current.rows)
            }
        };
        let mut collection = Collections {
            oks,
            errs: render::empty(scope),
        };
        if let Some(retention) = &input.retention {
            let schema = input.schema();
            let keep = render::keep(retention, &schema);
            collection.oks = render::expire(
                collection.oks,
                &schema,
                keep,
                pause,
                &format!("{}: retention", input.name),
            );
        }
        collections.push(collection);
        sessions.push(Session {
            ingest: Ingest::new(input)?,
            handle,
            settings,
        });
    }
    let peers = scope.peers();
    Ok(Built {
        inputs: Inputs { sessions, peers },
        collections,
        states,
    })
}

impl Inputs {
    /// Puts a delivery into the graph at the epoch `at`, which is not closed yet; `arrival` is when it arrived, in
    /// this run (then both are the same) or in an earlier one. Fails only for columns that are not of the
    /// input's types.
    pub fn ingest(&mut self, at: Epoch, arrival: Epoch, delivery: &Delivery) -> Result<Ingested, CodecError> {
        let arrived = Arrived {
            epoch: arrival,
            feed: delivery.feed,
            partition: &delivery.partition,
            decoded: &delivery.decoded,
        };
        self.put(delivery.input, at, arrived)
    }

    /// Puts changes of an input into the graph.
    pub fn put(&mut self, input: usize, at: Epoch, arrived: Arrived<'_>) -> Result<Ingested, CodecError> {
        let session = &mut self.sessions[input];
        session.handle.advance_to(at);
        let changes = arrived.decoded.ops.len();
        let (unusable, late) = match &mut session.handle {
            InputHandle::Events(handle, buffer) => {
                let refused = session.ingest.events(at, arrived, buffer)?;
                handle.send_batch(buffer);
                buffer.clear();
                refused
            }
            InputHandle::Changes(handle, buffer) => {
                let late = session.ingest.changes(arrived, self.peers, buffer)?;
                handle.send_batch(buffer);
                buffer.clear();
                (0, late)
            }
        };
        Ok(Ingested {
            changes: changes - unusable - late.len(),
            unusable,
            late,
        })
    }

    /// Puts states (key, state) of an input, as [`Built::states`] told them, into the graph at the epoch `at`. They may be
    /// any worker's. A row that is counted comes as often as it is there.
    pub fn load(&mut self, input: usize, at: Epoch, states: Vec<(Row, Row)>) {
        let session = &mut self.sessions[input];
        session.handle.advance_to(at);
        let (InputHandle::Changes(handle, buffer), Some(settings)) = (&mut session.handle, &session.settings) else {
            unreachable!("an input that holds nothing has no states")
        };
        buffer.extend(states.into_iter().map(|(key, state)| {
            let to = hash(key.bytes());
            (to, key, settings.change(state))
        }));
        handle.send_batch(buffer);
        buffer.clear();
    }

    /// Closes all epochs before `epoch`, on this worker's part.
    pub fn advance_to(&mut self, epoch: Epoch) {
        for session in &mut self.sessions {
            session.handle.advance_to(epoch);
        }
    }
}

impl InputHandle {
    fn advance_to(&mut self, epoch: Epoch) {
        match self {
            InputHandle::Events(handle, _) if *handle.time() < epoch => handle.advance_to(epoch),
            InputHandle::Changes(handle, _) if *handle.time() < epoch => handle.advance_to(epoch),
            _ => {}
        }
    }
}
