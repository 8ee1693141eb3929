//! The vocabulary of the graph: rows, how they are encoded, how they are laid out in batches,
//! and the time and difference every update carries.
//!
//! An update is `(Row, Epoch, Diff)`. A [`Row`] is the arrow-row encoding of a tuple, so that rows
//! compare as bytes and `encode(k) ++ encode(v) == encode(k ++ v)`: joins concatenate rows without
//! decoding them. [`RowCodec`] is the only place that turns columns into rows and back.
//! Everything here knows nothing of feeds, SQL or Delta.

mod arena;
mod codec;
mod row;
mod spine;
mod types;

pub use arena::{RowArena, RowRef};
pub use codec::{CodecError, RowCodec, normalise_batch, normalise_schema, normalise_type};
pub use row::Row;
pub use spine::{RowKeyBatcher, RowKeyBuilder, RowKeySpine, RowValBatcher, RowValBuilder, RowValSpine};
pub use types::{SqlType, TypeError};

/// Milliseconds of wall clock (Unix) at which an epoch opened: the timestamp of the whole graph.
/// Strictly increasing, also across restarts. Totally ordered.
pub type Epoch = u64;

/// How often a row is added (positive) or removed (negative) by an update.
pub type Diff = i64;

/// One change of a collection.
pub type Update = (Row, Epoch, Diff);
