//! Starts all feeds of kind `http` together, behind one listener.

use super::HttpFeeds;
use crate::definition::HttpFeed;
use crate::repr::FeedPositions;
use crate::source::connector::Connector;
use crate::source::error::SourceError;
use crate::source::feed_handle::FeedHandle;
use crate::source::starter::Starter;

impl Connector for HttpFeed {
    fn start(&self, starter: &mut Starter, handle: FeedHandle, _: &FeedPositions) -> Result<(), SourceError> {
        starter.group(HttpFeeds::default).observe_feed(handle);
        Ok(())
    }
}
