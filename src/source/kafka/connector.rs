//! Starts a feed of kind `kafka` on a few threads; feeds whose transactions are kept whole join their coordinator's
//! group.

use super::groups::TransactionGroups;
use super::threads::{readers, start_topics};
use crate::definition::{Kafka, OnMissing};
use crate::repr::FeedPositions;
use crate::source::connector::Connector;
use crate::source::error::SourceError;
use crate::source::feed_handle::FeedHandle;
use crate::source::starter::Starter;

impl Connector for Kafka {
    fn readers(&self, workers: usize) -> usize {
        readers(workers)
    }

    fn start(&self, starter: &mut Starter, mut handle: FeedHandle, resume: &FeedPositions) -> Result<(), SourceError> {
        if starter.options.keeps_transactions {
            let groups = starter.group(|| TransactionGroups::from_dataflow(&handle.dataflow));
            handle.coordinator = groups.coordinator(handle.input, handle.feed);
            groups.observe_feed(&handle);
        }
        let mut settings = self.clone();
        if starter.options.demands_all {
            settings.on_missing = OnMissing::Stop;
        }
        start_topics(starter, handle, &settings, resume)
    }
}
