//! The two arrangements every stateful operator uses: rows by key (`RowVal*`), and rows alone
//! (`RowKey*`). Both are differential's Ord spines with [`RowArena`] for keys and values.

use std::rc::Rc;

use differential_dataflow::trace::implementations::OffsetList;
use differential_dataflow::trace::implementations::merge_batcher::MergeBatcher;
use differential_dataflow::trace::implementations::merge_batcher::vec::VecMerger;
use differential_dataflow::trace::implementations::ord_neu::{OrdKeyBatch, OrdKeyBuilder, OrdValBatch, OrdValBuilder};
use differential_dataflow::trace::implementations::spine_fueled::Spine;
use differential_dataflow::trace::rc_blanket_impls::RcBuilder;

use super::{Diff, Epoch, Row, RowArena};

type ValLayout = (RowArena, RowArena, Vec<Epoch>, Vec<Diff>, OffsetList);
type KeyLayout = (RowArena, Vec<()>, Vec<Epoch>, Vec<Diff>, OffsetList);

/// Rows arranged by a key row.
pub type RowValSpine = Spine<Rc<OrdValBatch<ValLayout>>>;
/// Sorts and consolidates updates on their way into a [`RowValSpine`].
pub type RowValBatcher = MergeBatcher<VecMerger<(Row, Row), Epoch, Diff>>;
/// Builds the batches of a [`RowValSpine`].
pub type RowValBuilder = RcBuilder<OrdValBuilder<ValLayout, Vec<((Row, Row), Epoch, Diff)>>>;

/// Rows arranged by themselves.
pub type RowKeySpine = Spine<Rc<OrdKeyBatch<KeyLayout>>>;
/// Sorts and consolidates updates on their way into a [`RowKeySpine`].
pub type RowKeyBatcher = MergeBatcher<VecMerger<(Row, ()), Epoch, Diff>>;
/// Builds the batches of a [`RowKeySpine`].
pub type RowKeyBuilder = RcBuilder<OrdKeyBuilder<KeyLayout, Vec<((Row, ()), Epoch, Diff)>>>;
