//! Feeds of kind `http`: clients post rows, which are stored until a snapshot holds them.
//!
//! ```text
//! client -> server: token, limits, JSON -> writer: one write and one sync for all that wait -> log on a disk
//!   ^                                        |                                                   |
//!   +-------- answered once it is synced ----+              reader: batch, decode -> worker <----+
//! ```
//!
//! 1. A request is answered when its rows are on the disk. From then on the next snapshots will hold them whatever
//!    happens, because the reader's position in the log is part of each snapshot, like that of any feed.
//! 2. A request is one frame of the log ([`frame`]): either all of its rows are read or none. The frame contains the
//!    idempotency key, so neither can be on the disk without the other.
//! 3. Rows that a snapshot and Bronze hold are removed from the log. Without Bronze the log is what an input is
//!    rebuilt from, so it stays. Keys are stored beside it and expire on their own.
//! 4. A run that ends accepts no more requests, answers those in progress, and reads the log to its end
//!    ([`HttpListener::close`], [`HttpListener::is_read_out`]). The next run reads what is left.
//!
//! **Why rows are on a disk**: the alternative to a log on a local disk was objects in the lake. Any process that
//! starts next, on any machine, could read objects; but each group of requests would cost a put of 20 to 100 ms and
//! its price, and as much again to delete. A disk answers within one sync, and makes torn writes recognisable. So
//! rows are on the disk of the lake if the lake is on a disk (`_alluvium/http`), otherwise in the folder that `[http]
//! folder` names. The price is that process 0 needs that folder wherever it starts again, as it needs the lake.
//!
//! **Why the log is not that of kind `log`**: there a line is a record, so a torn write loses one record. Here the
//! unit is the request, which may have ten thousand rows and a key.
//!
//! **In a cluster**, process 0 listens, writes and reads: positions and keys have one owner, and no other process
//! needs the folder. One process can decode as many rows as two cores can send; the rows are exchanged to their
//! workers afterwards. A lock on the folder keeps a zombie from answering.
//!
//! A run that ends once it has caught up does not listen; it reads what is in the log.

mod body;
mod connections;
mod connector;
mod frame;
mod keys;
mod listener;
mod reader;
mod segments;
mod server;
mod writer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Sender, bounded};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::SourceError;
use super::feed_handle::FeedHandle;
use super::starter::{FeedGroup, RunningFeeds, Starter};
use crate::definition::{Http, NEEDS_FOLDER};
use crate::repr::{FeedPositions, PartitionId, Position};
use crate::runtime::{FILES, io_runtime};
use keys::IdempotencyKeys;
use listener::ListenerLimits;
use reader::{HttpReader, HttpReaderSetup};
use segments::{LogExtent, Segments};
use server::{HttpInput, RequestContext};
use writer::{Committed, SegmentWriter};

/// The only partition of a feed.
const PARTITION: &str = "0";

/// The `http` feeds of a run, before it starts.
#[derive(Default)]
pub(crate) struct HttpFeeds(Vec<FeedHandle>);

/// The listener's view of one feed whose log is written.
struct FeedLog {
    input: String,
    feed: String,
    extent: Arc<LogExtent>,
    committed: Arc<AtomicU64>,
    notify: Sender<()>,
    written: Arc<AtomicBool>,
}

/// The running HTTP server, until it is dropped.
pub(crate) struct HttpListener {
    runtime: Option<Runtime>,
    context: std::sync::Weak<RequestContext>,
    closing: watch::Sender<bool>,
    log_views: Vec<FeedLog>,
}

impl HttpFeeds {
    pub fn observe_feed(&mut self, handle: FeedHandle) {
        self.0.push(handle);
    }

    /// Opens the logs, starts their threads, and begins to listen.
    fn open(self, starter: &mut Starter, resume: &FeedPositions) -> Result<Option<HttpListener>, SourceError> {
        let (here, elsewhere): (Vec<FeedHandle>, Vec<FeedHandle>) =
            self.0.into_iter().partition(|handle| handle.reads(PARTITION));
        elsewhere.iter().for_each(|handle| handle.gauges.set_exhausted(true));
        let Some(handle) = here.first() else { return Ok(None) };
        let dataflow = handle.dataflow.clone();
        let homeless = || SourceError::Requests {
            what: "know where to keep the rows",
            reason: NEEDS_FOLDER.to_string(),
        };
        let http = dataflow.http.as_ref().ok_or_else(homeless)?;
        let folder = http.folder(&dataflow.lake).ok_or_else(homeless)?;
        let listens = starter.options.takes_requests;
        let (mut entries, mut log_views) = (BTreeMap::new(), Vec::new());
        for handle in here {
            let next = handle
                .positions(resume)
                .map(|(_, position)| position.next)
                .max()
                .unwrap_or(0);
            let folder = folder.join(format!("{}.{}", handle.input().name, handle.feed().name));
            let unopened = |error| SourceError::RequestLog {
                feed: handle.name(),
                source: Arc::new(error),
            };
            let (wake, woken) = bounded(1);
            let extent = if listens {
                let mut keys = IdempotencyKeys::new(http.remember, http.remember_most);
                let removes = handle.input().bronze;
                let log = Segments::open(&folder, next, dataflow.durable, removes, &mut keys).map_err(unopened)?;
                let extent = log.extent();
                let (submissions, submitted) = bounded(server::WAITING);
                let entry = HttpInput {
                    submissions,
                    extent: extent.clone(),
                    gauges: handle.gauges.clone(),
                    description: server::describe(&dataflow, handle.input),
                    max_record: handle.feed().max_record,
                };
                entries.insert(handle.input().name.clone(), entry);
                let (notify, notified) = bounded(1);
                let log_view = FeedLog {
                    input: handle.input().name.clone(),
                    feed: handle.feed().name.clone(),
                    extent: extent.clone(),
                    committed: Arc::default(),
                    notify,
                    written: Arc::default(),
                };
                let committed = Committed {
                    next: log_view.committed.clone(),
                    notified,
                };
                let (ended, clock) = (log_view.written.clone(), starter.options.clock.clone());
                log_views.push(log_view);
                starter.spawn(&handle, move |handle| {
                    SegmentWriter {
                        handle,
                        log,
                        keys,
                        submissions: submitted,
                        committed,
                        wake,
                        ended,
                        clock,
                    }
                    .write()
                })?;
                extent
            } else {
                Arc::new(segments::look(&folder).map_err(unopened)?)
            };
            extent.taken.store(next, Ordering::Release);
            let setup = HttpReaderSetup {
                folder,
                extent,
                next,
                wake: woken,
                whole: !listens && !starter.options.stop_at_end,
                options: starter.options.clone(),
            };
            let decoders = starter.decoders.clone();
            starter.spawn(&handle, move |handle| {
                let decode = decoders(handle.input, handle.feed);
                HttpReader::new(handle, decode, PARTITION.into(), setup).read()
            })?;
        }
        match listens {
            true => listen(http, entries, log_views).map(Some),
            false => Ok(None),
        }
    }
}

impl FeedGroup for HttpFeeds {
    fn start(
        self: Box<Self>,
        starter: &mut Starter,
        resume: &FeedPositions,
    ) -> Result<Option<Box<dyn RunningFeeds>>, SourceError> {
        let listener = self.open(starter, resume)?;
        Ok(listener.map(|listener| Box::new(listener) as Box<dyn RunningFeeds>))
    }

    /// Clients wait for answers, so the accepted rows must be handed over before the run ends.
    fn answers_others(&self) -> bool {
        true
    }
}

fn listen(
    http: &Http,
    entries: BTreeMap<String, HttpInput>,
    log_views: Vec<FeedLog>,
) -> Result<HttpListener, SourceError> {
    let tls = http.tls.as_ref().map(listener::acceptor).transpose();
    let tls = tls.map_err(|reason| SourceError::Requests {
        what: "use the certificate or key of [http] tls",
        reason,
    })?;
    let spawn = |error| SourceError::Spawn {
        feed: "requests".into(),
        source: Arc::new(error),
    };
    let runtime = io_runtime("requests", 2, FILES).map_err(spawn)?;
    let bound = runtime.block_on(listener::bind(http.listen));
    let bound = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener): (SocketAddr, _) = bound.map_err(|error| SourceError::Requests {
        what: "listen for requests",
        reason: format!(
            "{}: {error}; change [http] listen, or end who listens there",
            http.listen
        ),
    })?;
    let (closing, closed) = watch::channel(false);
    let context = Arc::new(RequestContext::new(http, entries));
    let weak = Arc::downgrade(&context);
    let limits = ListenerLimits::default();
    runtime.spawn(listener::serve(listener, tls, server::router(context), limits, closed));
    let tls = http.tls.is_some();
    tracing::info!(%address, tls, "listening for requests");
    Ok(HttpListener {
        runtime: Some(runtime),
        context: weak,
        closing,
        log_views,
    })
}

impl RunningFeeds for HttpListener {
    /// Accepts no more requests; those in progress are still answered.
    fn close(&self) {
        if let Some(context) = self.context.upgrade() {
            context.close();
        }
        self.closing.send_replace(true);
    }

    /// After `close`: whether all requests are answered.
    fn is_answered(&self) -> bool {
        self.log_views
            .iter()
            .all(|log_view| log_view.written.load(Ordering::Acquire))
    }

    /// Whether everything in the logs is handed over, except what cannot be read.
    fn is_read_out(&self) -> bool {
        self.log_views.iter().all(|log_view| log_view.extent.is_read_out())
    }

    /// Records the progress that a snapshot holds.
    fn observe_committed(&self, progress: &[(PartitionId, Position)]) {
        for (id, position) in progress {
            let mut log_views = self.log_views.iter();
            if let Some(log_view) = log_views.find(|log_view| log_view.input == id.input && log_view.feed == id.feed) {
                log_view.committed.fetch_max(position.next, Ordering::AcqRel);
                let _ = log_view.notify.try_send(()); // full: the writer will look anyway
            }
        }
    }
}

/// New connections are refused by the system from then on, and the logs' writers end.
impl Drop for HttpListener {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            crate::runtime::end(runtime);
        }
    }
}
