//! Starts feeds of kind `postgres`; those of one slot share a thread.

use std::time::Duration;

use super::{FeedsBySlot, check};
use crate::definition::{Dataflow, Postgres};
use crate::repr::FeedPositions;
use crate::source::connector::{Connector, FeedMisfit};
use crate::source::error::SourceError;
use crate::source::feed_handle::FeedHandle;
use crate::source::starter::Starter;

impl Connector for Postgres {
    fn start(&self, starter: &mut Starter, handle: FeedHandle, _: &FeedPositions) -> Result<(), SourceError> {
        starter.group(FeedsBySlot::default).add(handle, self);
        Ok(())
    }

    fn check(&self, dataflow: &Dataflow, feed: (usize, usize), patience: Duration) -> Vec<FeedMisfit> {
        check::check(dataflow, feed, self, patience)
    }
}
