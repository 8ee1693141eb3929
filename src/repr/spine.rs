//! The two arrangements every stateful operator uses: rows by key (`RowVal*`), and rows alone
//! (`RowKey*`). Both are differential's Ord spines with [`RowArena`] for keys and values.

use std::rc::Rc;

use differential_dataflow::trace::implementations::merge_batcher::MergeBatcher;
use differential_dataflow::trace::implementations::ord_neu::{OrdKeyBatch, OrdKeyBuilder, OrdValBatch, OrdValBuilder};
use differential_dataflow::trace::implementations::spine_fueled::Spine;

use super::chunk::{Chunk, ChunkBuilder, ChunkMerger, Chunker};
use super::footprint::Watched;
use super::{Diff, Epoch, Offsets, Row, RowArena};

/// How batches are laid out whose differences are kept in `D`: with values `V`.
pub type RowLayout<V, D> = (RowArena, V, Vec<Epoch>, D, Offsets);
/// How batches are kept.
pub type RowSpine<B> = Watched<Spine<Rc<B>>>;
/// Merges the chunks of updates with differences `R`.
pub type RowBatcher<R> = MergeBatcher<ChunkMerger<R>>;

type ValLayout = RowLayout<RowArena, Vec<Diff>>;
type KeyLayout = RowLayout<Vec<()>, Vec<Diff>>;

/// Rows arranged by a key row.
pub type RowValSpine = RowSpine<OrdValBatch<ValLayout>>;
/// Sorts and consolidates updates on their way into a [`RowValSpine`].
pub type RowValChunker = Chunker<Row, Diff>;
/// Merges them.
pub type RowValBatcher = RowBatcher<Diff>;
/// Builds the batches of a [`RowValSpine`].
pub type RowValBuilder = ChunkBuilder<OrdValBuilder<ValLayout, Chunk<Diff>>>;

/// Rows arranged by themselves.
pub type RowKeySpine = RowSpine<OrdKeyBatch<KeyLayout>>;
/// Sorts and consolidates updates on their way into a [`RowKeySpine`].
pub type RowKeyChunker = Chunker<(), Diff>;
/// Merges them.
pub type RowKeyBatcher = RowBatcher<Diff>;
/// Builds the batches of a [`RowKeySpine`].
pub type RowKeyBuilder = ChunkBuilder<OrdKeyBuilder<KeyLayout, Chunk<Diff>>>;
