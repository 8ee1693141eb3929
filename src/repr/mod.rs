//! The vocabulary of the graph: rows, their encoding, their layout in batches, and the time and difference of updates.
//!
//! An update is `(Row, Epoch, Diff)`. A [`Row`] is the arrow-row encoding of a tuple, so rows compare as bytes, and
//! `encode(k) ++ encode(v) == encode(k ++ v)`: joins concatenate rows without decoding them. Only [`RowCodec`]
//! converts columns to rows and back; [`Splice`] takes columns out of rows by their bytes. On the way into an
//! arrangement, rows are in a [`Chunk`], and in its batches in a [`RowArena`]. [`footprint`] reports how much memory
//! the graph holds. Files are read in batches of [`rows_at_once`].
//!
//! Nothing here depends on feeds, SQL or Delta.

mod accumulators;
mod arena;
mod calendar;
mod charset;
mod chunk;
mod codec;
mod collections;
pub mod footprint;
mod number;
mod offsets;
mod parquet;
mod position;
mod row;
mod size;
pub mod sort;
mod spine;
mod splice;
mod text;
mod types;

pub use self::parquet::rows_at_once;
pub use accumulators::{
    AccumulatorBatcher, AccumulatorBuilder, AccumulatorChunker, AccumulatorSpine, AccumulatorSum, AccumulatorWriter,
    Accumulators, AccumulatorsRef,
};
pub use arena::{RowArena, RowRef};
pub use calendar::{FIRST_MOMENT, LAST_MOMENT, civil_from_days};
pub use charset::Charset;
pub use chunk::{Chunk, ChunkBuilder, Chunker, chunks};
pub use codec::{CodecError, RowCodec, canonical_floats, normalise_batch, normalise_schema, normalise_type};
pub use collections::{Pairs, Rows, key_hash};
pub use number::has_nonzero_digit;
pub use offsets::Offsets;
pub use position::{FeedPositions, FileContent, LogMark, PartitionId, Position, TextPlace};
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
pub use types::{MOST_NESTED, SqlType, TypeError};

/// The timestamp of the whole graph: the Unix time in milliseconds at which an epoch opened. Epochs increase strictly,
/// also across restarts, and are totally ordered.
pub type Epoch = u64;

/// How often an update adds (positive) or removes (negative) a row.
pub type Diff = i64;

/// A change of a collection.
pub type Update = (Row, Epoch, Diff);
