//! The two kinds of arrangements that stateful operators use: rows by key (`RowVal*`), and rows alone (`RowKey*`).
//! Both are differential's Ord spines, with [`RowArena`] for keys and values. The scope of a recursive query has one
//! kind, rows by key (`RoundVal*`), whose times include a round.

use std::rc::Rc;

use differential_dataflow::trace::implementations::chunker::ContainerChunker;
use differential_dataflow::trace::implementations::merge_batcher::MergeBatcher;
use differential_dataflow::trace::implementations::merge_batcher::vec::VecMerger;
use differential_dataflow::trace::implementations::ord_neu::{OrdKeyBatch, OrdKeyBuilder, OrdValBatch, OrdValBuilder};
use differential_dataflow::trace::implementations::spine_fueled::Spine;

use differential_dataflow::trace::rc_blanket_impls::RcBuilder;
use timely::order::Product;

use super::chunk::{Chunk, ChunkBuilder, ChunkMerger, Chunker};
use super::footprint::WatchedTrace;
use super::{Diff, Epoch, Offsets, Row, RowArena};

/// The layout of batches with values in `V` and differences in `D`.
pub type RowLayout<V, D> = (RowArena, V, Vec<Epoch>, D, Offsets);
/// A spine of batches `B`, whose footprint can be taken.
pub type RowSpine<B> = WatchedTrace<Spine<Rc<B>>>;
/// Merges the chunks of updates with differences `R`.
pub type RowBatcher<R> = MergeBatcher<ChunkMerger<R>>;

type ValLayout = RowLayout<RowArena, Vec<Diff>>;
type KeyLayout = RowLayout<Vec<()>, Vec<Diff>>;

/// Rows arranged by a key row.
pub type RowValSpine = RowSpine<OrdValBatch<ValLayout>>;
/// Sorts and consolidates updates on their way into a [`RowValSpine`].
pub type RowValChunker = Chunker<Row, Diff>;
/// Merges the chunks of a [`RowValChunker`].
pub type RowValBatcher = RowBatcher<Diff>;
/// Builds the batches of a [`RowValSpine`].
pub type RowValBuilder = ChunkBuilder<OrdValBuilder<ValLayout, Chunk<Diff>>>;

/// Rows arranged by themselves.
pub type RowKeySpine = RowSpine<OrdKeyBatch<KeyLayout>>;
/// Sorts and consolidates updates on their way into a [`RowKeySpine`].
pub type RowKeyChunker = Chunker<(), Diff>;
/// Merges the chunks of a [`RowKeyChunker`].
pub type RowKeyBatcher = RowBatcher<Diff>;
/// Builds the batches of a [`RowKeySpine`].
pub type RowKeyBuilder = ChunkBuilder<OrdKeyBuilder<KeyLayout, Chunk<Diff>>>;

/// A time in the scope of a recursive query: an epoch, and the number of the round.
pub type Round = Product<Epoch, u64>;

type RoundUpdates = Vec<((Row, Row), Round, Diff)>;
type RoundLayout = (RowArena, RowArena, Vec<Round>, Vec<Diff>, Offsets);

/// Rows arranged by a key row, with rounds.
pub type RoundValSpine = RowSpine<OrdValBatch<RoundLayout>>;
/// Sorts and consolidates updates on their way into a [`RoundValSpine`].
pub type RoundValChunker = ContainerChunker<RoundUpdates>;
/// Merges the chunks of a [`RoundValChunker`].
pub type RoundValBatcher = MergeBatcher<VecMerger<(Row, Row), Round, Diff>>;
/// Builds the batches of a [`RoundValSpine`].
pub type RoundValBuilder = RcBuilder<OrdValBuilder<RoundLayout, RoundUpdates>>;
