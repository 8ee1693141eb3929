//! The vocabulary of the graph: rows, how they are encoded, how they are laid out in batches,
//! and the time and difference every update carries.
//!
//! An update is `(Row, Epoch, Diff)`. A [`Row`] is the arrow-row encoding of a tuple, so that rows
//! compare as bytes and `encode(k) ++ encode(v) == encode(k ++ v)`: joins concatenate rows without
//! decoding them. [`RowCodec`] is the only place that turns columns into rows and back; [`Splice`] takes columns out of
//! rows by their bytes. On the way into an arrangement rows travel in a [`Chunk`], at rest in a [`RowArena`]; [`footprint`]
//! says how much the graph holds. Files are read in batches of [`rows_at_once`].
//! Everything here knows nothing of feeds, SQL or Delta.

mod arena;
mod calendar;
mod chunk;
mod codec;
pub mod footprint;
mod offsets;
mod parquet;
mod row;
mod size;
pub mod sort;
mod spine;
mod splice;
mod text;
mod types;

pub use self::parquet::rows_at_once;
pub use arena::{RowArena, RowRef};
pub use calendar::{FIRST_MOMENT, LAST_MOMENT, civil_from_days};
pub use chunk::{Chunk, ChunkBuilder, Chunker, chunks};
pub use codec::{CodecError, RowCodec, canonical_floats, normalise_batch, normalise_schema, normalise_type};
pub use offsets::Offsets;
pub use row::Row;
pub use size::{batch_bytes, batch_slices, rows_bytes};
pub use spine::{
    Round, RoundValBatcher, RoundValBuilder, RoundValChunker, RoundValSpine, RowBatcher, RowKeyBatcher, RowKeyBuilder,
    RowKeyChunker, RowKeySpine, RowLayout, RowSpine, RowValBatcher, RowValBuilder, RowValChunker, RowValSpine,
};
pub use splice::{Nulls, Splice};
#[cfg(test)]
pub(crate) use text::extremes;
pub use text::{ShowableJson, TextEncoder, ValueTexts, row_json, unshown_texts};
pub use types::{SqlType, TypeError};

/// Milliseconds of wall clock (Unix) at which an epoch opened: the timestamp of the whole graph.
/// Strictly increasing, also across restarts. Totally ordered.
pub type Epoch = u64;

/// How often a row is added (positive) or removed (negative) by an update.
pub type Diff = i64;

/// One change of a collection.
pub type Update = (Row, Epoch, Diff);
