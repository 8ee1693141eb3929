//! Starts a feed of kind `log`, on one thread.

use std::collections::BTreeMap;

use super::{Follower, LogPlace, ReportedNotices};
use crate::definition::LogFeed;
use crate::repr::FeedPositions;
use crate::source::connector::Connector;
use crate::source::error::SourceError;
use crate::source::fault::FeedFault;
use crate::source::feed_handle::FeedHandle;
use crate::source::starter::Starter;

impl Connector for LogFeed {
    fn start(&self, starter: &mut Starter, handle: FeedHandle, resume: &FeedPositions) -> Result<(), SourceError> {
        let positions = handle
            .positions(resume)
            .filter(|(name, _)| handle.reads(name))
            .map(|(name, position)| (name.to_string(), LogPlace::from_position(position)))
            .collect();
        let (options, decoders) = (starter.options.clone(), starter.decoders.clone());
        let LogFeed { path: folder, rules } = self.clone();
        starter.spawn(&handle, move |handle| {
            let decode = decoders(handle.input, handle.feed);
            Follower {
                handle,
                options,
                folder,
                rules,
                decode,
                positions,
                partitions: BTreeMap::new(),
                buffer: Vec::new(),
                fault: FeedFault::default(),
                unseen: None,
                reported: ReportedNotices::default(),
                has_claimed: false,
            }
            .follow()
        })
    }
}
