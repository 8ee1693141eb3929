//! The `kafka` feed: topics read by offset, without a consumer group's rebalancing.
//!
//! ```text
//! librdkafka: fetches per partition -> its bounded queue -> reader thread: batch, decode -> worker
//! ```
//!
//! 1. A record's offset is Kafka's; `Position::next` is that of the next record to read. A partition has the name
//!    that Kafka uses on disk, such as `orders-0`. Only committed records are read (`read_committed`).
//! 2. Every partition is assigned manually, to the reader thread of its worker: a worker that lags makes its own
//!    partitions wait and no others. While a thread waits, librdkafka stops fetching when a partition's queue is full
//!    ([`client::QUEUE_KIB`]); pausing the partition would drop what was fetched and fetch it again.
//! 3. When a partition is discovered, [`start_offset`] decides where to start. Records that retention removed are
//!    never skipped silently. A partition without records also hands over its start, so that the next run continues
//!    there whatever `start` says.
//! 4. A position moves past transaction markers, which are no records, once everything before them was handed over;
//!    otherwise it would seem that retention had removed them unread.
//! 5. Readers wait for unreachable brokers as long as it takes. A partition without a leader waits alone; until it is
//!    read, the feed is not caught up. Brokers that were never reached, and a partition that lacks records still to
//!    be read, are faults of the feed ([`error::TopicFault`]): it reports the cause, other partitions and feeds are
//!    read, and a run that ends once all is caught up does not wait forever.
//! 6. A run until all is caught up reads what exists when a partition is discovered, however much is written
//!    meanwhile.
//!
//! A record's arrival time is when its partition's queue last changed from empty to non-empty. So latencies are never
//! understated: the time that records wait in librdkafka's queue counts.

mod client;
mod connector;
mod error;
mod group;
mod groups;
mod headers;
mod reader;
mod start_offset;
mod threads;
mod topics;
mod writer;

pub(crate) use client::{configure as configure_client, reason as describe_client_error};
pub use group::{OffsetPublisher, publish_offsets};
pub use headers::{RecordHeaders, headers_of_json};
pub(crate) use writer::put;
pub use writer::{ProducerQueue, TopicError, TopicRecord, TopicWriter};
