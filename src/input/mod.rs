//! Turns changes into an input's current rows.
//!
//! ```text
//! Delivery -> Ingest (encode, stamp) -> exchange by key -> current rows -> retention -> the graph
//!                                   \-> events (append-only, no state) -/
//! ```
//!
//! 1. An input's rows are a function of its changes and of where and when they arrived (epoch, feed, partition,
//!    offset). Bronze keeps all of that, so [`Resolver`] computes the same in batch.
//! 2. A keyed input holds one value per key, without history. An append-only input holds nothing. Retention also
//!    removes rows from what is held, and a record whose row has expired when it arrives is refused:
//!    [`Ingested::late`].
//! 3. Deletions and truncations of an input without a key are applied if one of its feeds carries changes
//!    ([`retracts`]); otherwise they are too rare to keep state for, and [`Ingested::unusable`] counts them.

mod change;
mod current;
mod expiries;
mod ingest;
mod reform;
mod resolve;
#[cfg(test)]
mod tests;

pub(crate) use change::Arrival;
pub use ingest::ArrivedRecords;
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
use crate::render::{self, Collections, Pause};
use crate::repr::{CodecError, Epoch, Pairs, Row, RowCodec, Update, key_hash};
use crate::source::Delivery;
use current::{MergeRule, StateSettings, current};
use differential_dataflow::AsCollection;
use ingest::{Ingest, RoutedChange};

/// Whether incoming changes may ever remove rows of this input (apart from retention).
pub fn retracts(input: &Input) -> bool {
    !input.key.is_empty() || input.feeds.iter().any(|feed| feed.format.carries_changes())
}

/// One worker's handles of all inputs.
pub struct Inputs {
    sessions: Vec<InputSession>,
    peers: usize,
}

struct InputSession {
    ingest: Ingest,
    handle: InputHandle,
    settings: Option<Arc<StateSettings>>,
}

enum InputHandle {
    Events(Handle<Epoch, CapacityContainerBuilder<Vec<Update>>>, Vec<Update>),
    Changes(
        Handle<Epoch, CapacityContainerBuilder<Vec<RoutedChange>>>,
        Vec<RoutedChange>,
    ),
}

/// The outcome of ingesting a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// The number of changes that went into the graph.
    pub changes: usize,
    /// The number of deletions and truncations that an append-only input could not use.
    pub unusable: usize,
    /// Records whose rows had expired before they arrived.
    pub late: Vec<Reject>,
}

/// The inputs of a dataflow in the graph, in the definition's order.
pub struct BuiltInputs<'s> {
    /// This worker's handles.
    pub inputs: Inputs,
    /// The inputs' rows.
    pub collections: Vec<Collections<'s>>,
    /// The states of inputs that have one, by key, in the form that [`Inputs::load`] takes.
    pub states: Vec<Option<Pairs<'s>>>,
}

/// How an input's changes are folded into its rows; none if each change is a row, and nothing is held.
fn fold(input: &Input) -> Option<MergeRule> {
    if !input.key.is_empty() {
        Some(MergeRule::Newest)
    } else if !input.dedup_key.is_empty() {
        Some(MergeRule::First)
    } else {
        retracts(input).then_some(MergeRule::Counted)
    }
}

/// Whether an input holds state by key.
pub fn has_state(input: &Input) -> bool {
    fold(input).is_some()
}

/// Builds the inputs of a dataflow. If `loaded` says that an input is loaded before the pause, its states up to then
/// are not output.
pub fn build<'s>(
    scope: Scope<'s, Epoch>,
    dataflow: &Dataflow,
    pause: Option<Pause>,
    loaded: impl Fn(usize) -> bool,
) -> Result<BuiltInputs<'s>, CodecError> {
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
                let (handle, stream) = scope.new_input::<Vec<RoutedChange>>();
                let of_input = StateSettings {
                    fold,
                    keep: input.retention.as_ref().map(|r| r.keep.as_millis() as u64),
                    retained: input
                        .retention
                        .as_ref()
                        .map(|r| input.positions(std::slice::from_ref(&r.column))[0]),
                    codec: RowCodec::new(input.schema())?,
                    moving: input
                        .feeds
                        .iter()
                        .map(|feed| feed.kind.contract().moves_rows())
                        .collect(),
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
        sessions.push(InputSession {
            ingest: Ingest::new(input)?,
            handle,
            settings,
        });
    }
    let peers = scope.peers();
    Ok(BuiltInputs {
        inputs: Inputs { sessions, peers },
        collections,
        states,
    })
}

impl Inputs {
    /// Puts a delivery into the graph at the open epoch `at`. `arrival` is when it arrived: the same epoch, or in a
    /// replay an earlier run's. Fails only if columns do not have the input's types.
    pub fn ingest(&mut self, at: Epoch, arrival: Epoch, delivery: &Delivery) -> Result<Ingested, CodecError> {
        let arrived = ArrivedRecords {
            epoch: arrival,
            feed: delivery.feed,
            partition: &delivery.partition,
            decoded: &delivery.decoded,
        };
        self.put(delivery.input, at, arrived)
    }

    /// Puts changes of an input into the graph.
    pub fn put(&mut self, input: usize, at: Epoch, arrived: ArrivedRecords<'_>) -> Result<Ingested, CodecError> {
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

    /// Puts states of an input (key, state), as [`BuiltInputs::states`] emitted them, into the graph at the epoch
    /// `at`. They may belong to any worker. A counted row must come as often as it occurs.
    pub fn load(&mut self, input: usize, at: Epoch, states: Vec<(Row, Row)>) {
        let session = &mut self.sessions[input];
        session.handle.advance_to(at);
        let (InputHandle::Changes(handle, buffer), Some(settings)) = (&mut session.handle, &session.settings) else {
            unreachable!("an input that holds nothing has no states")
        };
        buffer.extend(states.into_iter().map(|(key, state)| {
            let to = key_hash(key.bytes());
            (to, key, settings.change(state))
        }));
        handle.send_batch(buffer);
        buffer.clear();
    }

    /// Closes all epochs before `epoch` on this worker's handles.
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
