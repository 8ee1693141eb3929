//! Feeds of kind `http`: rows that clients post, kept until a snapshot has them.
//!
//! ```text
//! client -> server: token, limits, JSON -> writer: one write and one sync for all that wait -> log on a disk
//!   ^                                        |                                                   |
//!   +-------- answered once it is synced ----+              reader: batch, decode -> worker <----+
//! ```
//!
//! 1. A request is answered when its rows are on the disk, and they are in the next snapshots whatever happens then: the
//!    reader's position in the log is part of each snapshot, as that of any feed.
//! 2. A request is one frame of the log ([`frame`]): all of its rows are taken, or none. Its idempotency key stands in the
//!    frame, so there is no moment at which one is on the disk without the other.
//! 3. What a snapshot holds, with Bronze, is removed from the log; without Bronze the log is what an input is made of
//!    again, and stays. Keys are kept beside it for their own time.
//! 4. A run that ends takes no more requests, answers those under way, and reads the log to its end ([`Listening::close`],
//!    [`Listening::is_read_out`]). What is left then is read by the next run.
//!
//! **Where rows are** was decided between a log on a local disk and objects in the lake. Objects would be there for whichever
//! process comes next, on any machine; but on a store each group of requests costs a put of 20 to 100 ms and its price, and
//! what is removed costs as much again. A disk answers in the time of one sync, and says what a torn write is. So rows are on
//! a disk: that of the lake where the lake is one (`_alluvium/http`), else in the folder that `[http] folder` names. The
//! price: process 0 needs that folder wherever it starts again, as it needs the lake.
//!
//! **The log is not that of kind `log`**: there a line is a record, and who tears one loses one. Here what counts is the
//! request, which may be of ten thousand rows and has a key.
//!
//! **In a cluster** process 0 listens, writes and reads: positions and keys have one home, and no other process must find the
//! folder. One process decodes as many rows as two cores can be sent; rows go to their workers behind that. A lock on the
//! folder keeps a process that was replaced, and does not know, from answering.
//!
//! A run that ends once it has caught up does not listen: it takes what is in the log.

mod body;
mod frame;
mod keys;
mod listener;
mod reader;
mod seats;
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

use super::outlet::Hand;
use super::readers::Starter;
use super::{PartitionId, Position, Progress, SourceError};
use crate::definition::{Http, NEEDS_FOLDER};
use keys::Keys;
use listener::ListenerLimits;
use reader::{Reader, Setup};
use segments::{Extent, Segments};
use server::{Door, Entry};
use writer::{Committed, Writer};

/// The one partition of a feed.
const PARTITION: &str = "0";

/// The feeds of a run that wait for requests, before it starts.
#[derive(Default)]
pub(crate) struct Doors(Vec<Hand>);

/// A feed whose log is written.
struct Way {
    input: String,
    feed: String,
    extent: Arc<Extent>,
    committed: Arc<AtomicU64>,
    tell: Sender<()>,
    written: Arc<AtomicBool>,
}

/// What listens, until it is dropped.
pub(crate) struct Listening {
    runtime: Option<Runtime>,
    door: std::sync::Weak<Door>,
    closing: watch::Sender<bool>,
    ways: Vec<Way>,
}

impl Doors {
    pub fn observe_hand(&mut self, hand: Hand) {
        self.0.push(hand);
    }

    /// Opens the logs, starts their threads, and listens.
    pub fn start(self, starter: &mut Starter, resume: &Progress) -> Result<Option<Listening>, SourceError> {
        let (here, elsewhere): (Vec<Hand>, Vec<Hand>) = self.0.into_iter().partition(|hand| hand.reads(PARTITION));
        elsewhere.iter().for_each(|hand| hand.gauges.set_exhausted(true));
        let Some(hand) = here.first() else { return Ok(None) };
        let dataflow = hand.dataflow.clone();
        let homeless = || SourceError::Requests {
            what: "know where to keep the rows",
            reason: NEEDS_FOLDER.to_string(),
        };
        let http = dataflow.http.as_ref().ok_or_else(homeless)?;
        let folder = http.folder(&dataflow.lake).ok_or_else(homeless)?;
        let listens = starter.options.takes_requests;
        let (mut entries, mut ways) = (BTreeMap::new(), Vec::new());
        for hand in here {
            let next = hand
                .positions(resume)
                .map(|(_, position)| position.next)
                .max()
                .unwrap_or(0);
            let folder = folder.join(format!("{}.{}", hand.input().name, hand.feed().name));
            let unopened = |error| SourceError::RequestLog {
                feed: hand.name(),
                source: Arc::new(error),
            };
            let (wake, woken) = bounded(1);
            let extent = if listens {
                let mut keys = Keys::new(http.remember, http.remember_most);
                let removes = hand.input().bronze;
                let log = Segments::open(&folder, next, dataflow.durable, removes, &mut keys).map_err(unopened)?;
                let extent = log.extent();
                let (submissions, submitted) = bounded(server::WAITING);
                let entry = Entry {
                    submissions,
                    extent: extent.clone(),
                    gauges: hand.gauges.clone(),
                    told: server::describe(&dataflow, hand.input),
                    max_record: hand.feed().max_record,
                };
                entries.insert(hand.input().name.clone(), entry);
                let (tell, told) = bounded(1);
                let way = Way {
                    input: hand.input().name.clone(),
                    feed: hand.feed().name.clone(),
                    extent: extent.clone(),
                    committed: Arc::default(),
                    tell,
                    written: Arc::default(),
                };
                let committed = Committed {
                    next: way.committed.clone(),
                    told,
                };
                let (ended, clock) = (way.written.clone(), starter.options.clock.clone());
                ways.push(way);
                starter.spawn(&hand, move |hand| {
                    Writer {
                        hand,
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
            let setup = Setup {
                folder,
                extent,
                next,
                wake: woken,
                whole: !listens && !starter.options.stop_at_end,
                options: starter.options.clone(),
            };
            let decoders = starter.decoders.clone();
            starter.spawn(&hand, move |hand| {
                let decode = decoders(hand.input, hand.feed);
                Reader::new(hand, decode, PARTITION.into(), setup).read()
            })?;
        }
        match listens {
            true => listen(http, entries, ways).map(Some),
            false => Ok(None),
        }
    }
}

fn listen(http: &Http, entries: BTreeMap<String, Entry>, ways: Vec<Way>) -> Result<Listening, SourceError> {
    let tls = http.tls.as_ref().map(listener::acceptor).transpose();
    let tls = tls.map_err(|reason| SourceError::Requests {
        what: "use the certificate or key of [http] tls",
        reason,
    })?;
    let spawn = |error| SourceError::Spawn {
        feed: "requests".into(),
        source: Arc::new(error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("requests")
        .enable_all()
        .build()
        .map_err(spawn)?;
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
    let door = Arc::new(Door::new(http, entries));
    let weak = Arc::downgrade(&door);
    let limits = ListenerLimits::default();
    runtime.spawn(listener::serve(listener, tls, server::router(door), limits, closed));
    let tls = http.tls.is_some();
    tracing::info!(%address, tls, "listening for requests");
    Ok(Listening {
        runtime: Some(runtime),
        door: weak,
        closing,
        ways,
    })
}

impl Listening {
    /// No more requests are taken; those under way are answered.
    pub fn close(&self) {
        if let Some(door) = self.door.upgrade() {
            door.close();
        }
        self.closing.send_replace(true);
    }

    /// Once it is closed: whether all requests are answered.
    pub fn is_written(&self) -> bool {
        self.ways.iter().all(|way| way.written.load(Ordering::Acquire))
    }

    /// Whether all that is in the logs is handed over, but for what cannot be read.
    pub fn is_read_out(&self) -> bool {
        self.ways.iter().all(|way| way.extent.is_read_out())
    }

    /// A snapshot holds this progress.
    pub fn observe_committed(&self, progress: &[(PartitionId, Position)]) {
        for (id, position) in progress {
            let mut ways = self.ways.iter();
            if let Some(way) = ways.find(|way| way.input == id.input && way.feed == id.feed) {
                way.committed.fetch_max(position.next, Ordering::AcqRel);
                let _ = way.tell.try_send(()); // full: it is about to look
            }
        }
    }
}

/// Who asks from now on is refused by the system; the logs' writers end.
impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
