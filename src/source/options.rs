//! Options of all readers of a run.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::share::Share;
use super::transactions::{OpenEpoch, OpenEpochDeliveries};
use crate::decode::{Decoded, Raw, WaitingRecords};
use crate::registry::Registries;

/// Decodes batches for one reader thread.
pub type Decode = Box<dyn FnMut(Raw) -> Result<Decoded, Undecoded> + Send>;

/// Why records were not decoded.
#[derive(Debug)]
pub enum Undecoded {
    /// The schema registry does not answer.
    Waiting(Box<WaitingRecords>),
    /// Their schema has fields that the input must take as columns first. The decoder has reported that to the run,
    /// which stops its readers and starts again with these records.
    Columns,
    /// Their file was replaced by another version, or the disk or the store cannot deliver it now.
    Unread(io::Error),
}

impl From<Box<WaitingRecords>> for Undecoded {
    fn from(waiting: Box<WaitingRecords>) -> Self {
        Undecoded::Waiting(waiting)
    }
}

/// Makes a decoder for a feed, given by index into `Dataflow::inputs` and `Input::feeds`. Each thread gets its own.
pub type Decoders = Arc<dyn Fn(usize, usize) -> Decode + Send + Sync>;

/// Returns the time. It is injected so that a test can control it.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Options that apply to all readers.
#[derive(Clone)]
pub struct ReaderOptions {
    /// The most records of a batch.
    pub batch_rows: usize,
    /// A batch is handed over once it has this number of bytes, however few its records are.
    pub batch_bytes: usize,
    /// The number of threads that read files, per feed. An input for which the order of arrival matters (a key
    /// without `order_by`, or a `dedup_key`) has one.
    pub file_readers: usize,
    /// How often a folder is listed. A store behind a URL is listed at most every two seconds.
    pub poll: Duration,
    /// How long a file must have kept its size and time before it is read.
    pub settle: Duration,
    /// How often a log is polled while records arrive.
    pub log_poll: Duration,
    /// The longest interval of polls of a log while none arrive.
    pub log_idle_poll: Duration,
    /// How often new topics and partitions are looked up.
    pub topics_poll: Duration,
    /// How often a failed read or listing is retried in a row before the fault counts as lasting: then a feed of
    /// files or of a log waits, and a feed of another kind fails.
    pub retries: u32,
    /// The first pause before a retry; it doubles each time, up to ten seconds.
    pub back_off: Duration,
    /// Whether feeds end once they have handed over all that exists.
    pub stop_at_end: bool,
    /// Whether source transactions are kept whole where feeds want that.
    pub keeps_transactions: bool,
    /// Whether records that a source no longer has are an error, whatever a feed's `on_missing` says.
    pub demands_all: bool,
    /// Whether to listen for HTTP requests; if not, only stored requests are read.
    pub takes_requests: bool,
    /// The wall clock.
    pub clock: WallClock,
    /// Which partitions belong to this process, if there are several.
    pub share: Share,
    /// The deliveries of source transactions that are on their way to workers, and which epoch is open.
    pub together: Arc<OpenEpochDeliveries>,
    pub open_epoch: OpenEpoch,
    /// The schema registries for transaction markers.
    pub registries: Arc<Registries>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        ReaderOptions {
            batch_rows: 8192,
            batch_bytes: 4 << 20,
            file_readers: 2,
            poll: Duration::from_millis(200),
            settle: Duration::from_secs(1),
            log_poll: Duration::from_millis(5),
            log_idle_poll: Duration::from_millis(50),
            topics_poll: Duration::from_secs(5),
            retries: 8,
            back_off: Duration::from_millis(100),
            stop_at_end: false,
            keeps_transactions: true,
            demands_all: false,
            takes_requests: false,
            clock: Arc::new(SystemTime::now),
            share: Share::default(),
            together: Arc::default(),
            open_epoch: Arc::new(|| None),
            registries: Arc::new(Registries::new(None)),
        }
    }
}
