//! Starts the threads of feeds, either alone or in groups of one kind.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::error::{ReaderExit, SourceError};
use super::feed_handle::FeedHandle;
use super::options::{Decoders, ReaderOptions};
use crate::contain;
use crate::repr::{FeedPositions, PartitionId, Position};

/// Starts threads; all kinds of feeds use it.
pub(crate) struct Starter {
    pub options: ReaderOptions,
    pub decoders: Decoders,
    pub runtime: Option<tokio::runtime::Handle>,
    threads: Vec<JoinHandle<()>>,
    failure: Arc<Mutex<Option<SourceError>>>,
    groups: Vec<Box<dyn FeedGroup>>,
}

/// Feeds that start together, because they share what they read from: a listener, a connection, a coordinator.
pub(crate) trait FeedGroup: Any {
    /// Starts them once all feeds of the run are known. Returns the receiver of the run's progress, if they need one.
    fn start(
        self: Box<Self>,
        starter: &mut Starter,
        resume: &FeedPositions,
    ) -> Result<Option<Box<dyn RunningFeeds>>, SourceError>;

    /// Whether clients get answers as soon as it has started, so that everything else must start before.
    fn answers_others(&self) -> bool {
        false
    }
}

/// Feeds that react to the progress of a run.
pub(crate) trait RunningFeeds: Send + Sync {
    /// Records the progress that a snapshot holds, so that what was retained until then may be removed.
    fn observe_committed(&self, progress: &[(PartitionId, Position)]);

    /// Accepts nothing new from clients; requests in progress are still answered.
    fn close(&self) {}

    /// After `close`: whether no request is in progress.
    fn is_answered(&self) -> bool {
        true
    }

    /// Whether everything that clients sent is handed over.
    fn is_read_out(&self) -> bool {
        true
    }
}

/// The threads that were started, whether or not all starts succeeded.
pub(crate) struct StartedThreads {
    pub threads: Vec<JoinHandle<()>>,
    pub failure: Arc<Mutex<Option<SourceError>>>,
}

impl Starter {
    /// A starter without threads. `runtime` is for object stores, if some feed reads one.
    pub fn new(options: ReaderOptions, decoders: Decoders, runtime: Option<tokio::runtime::Handle>) -> Starter {
        Starter {
            options,
            decoders,
            runtime,
            threads: Vec::new(),
            failure: Arc::default(),
            groups: Vec::new(),
        }
    }

    /// The group of this type; `make` creates it for the first feed.
    pub fn group<G: FeedGroup>(&mut self, make: impl FnOnce() -> G) -> &mut G {
        let known = self.groups.iter().position(|group| {
            let group: &dyn Any = &**group;
            group.is::<G>()
        });
        let place = known.unwrap_or_else(|| {
            self.groups.push(Box::new(make()));
            self.groups.len() - 1
        });
        let group: &mut dyn Any = &mut *self.groups[place];
        group.downcast_mut().expect("the group at its place is of its type")
    }

    /// Starts all groups, and returns the receivers of the run's progress.
    pub fn start_groups(&mut self, resume: &FeedPositions) -> Result<Vec<Box<dyn RunningFeeds>>, SourceError> {
        let mut groups = std::mem::take(&mut self.groups);
        groups.sort_by_key(|group| group.answers_others());
        let mut running = Vec::new();
        for group in groups {
            running.extend(group.start(self, resume)?);
        }
        Ok(running)
    }

    /// The threads that were started.
    pub fn finish(self) -> StartedThreads {
        StartedThreads {
            threads: self.threads,
            failure: self.failure,
        }
    }

    /// Starts a thread of a feed.
    pub fn spawn(
        &mut self,
        handle: &FeedHandle,
        work: impl FnOnce(FeedHandle) -> Result<(), ReaderExit> + Send + 'static,
    ) -> Result<(), SourceError> {
        let name = handle.name();
        let (failure, handle) = (self.failure.clone(), handle.clone());
        let feed = name.clone();
        let body = move || {
            let channels = handle.channels.clone();
            let error = match std::panic::catch_unwind(AssertUnwindSafe(|| work(handle))) {
                Ok(Ok(())) | Ok(Err(ReaderExit::Stopped | ReaderExit::Unread(_))) => None,
                Ok(Err(ReaderExit::Failed(error))) => Some(error),
                Err(panic) => Some(SourceError::Panicked {
                    feed: feed.clone(),
                    message: contain::message(&*panic),
                }),
            };
            if let Some(error) = error {
                tracing::error!(feed, error = &error as &dyn std::error::Error, "reader failed");
                failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
            }
            // Workers are also woken after a successful end, because one may wait for the feed to be exhausted.
            channels.iter().for_each(|channel| (channel.wake)());
        };
        let thread = std::thread::Builder::new()
            .name(format!("feed {name}"))
            .spawn(body)
            .map_err(|e| SourceError::Spawn {
                feed: name,
                source: Arc::new(e),
            })?;
        self.threads.push(thread);
        Ok(())
    }
}
