//! The kinds of feeds: the properties of each in definitions, and the questions that other modules may ask about a
//! feed.
//!
//! A kind of feed is a contract of two halves. This folder has the first: settings and their validation, and
//! [`FeedContract`], the questions that planning, decoding, backfill, restarts and commands ask about a feed without
//! knowing its kind. The second half is reading, in `crate::source`: its contract is `source::connector::Connector`.
//!
//! 1. A kind is one file here (its settings, their validation, its answers) and one folder in `crate::source` (its
//!    reader). They are separate because `plan` and `decode` lie between these modules: they ask about feeds, and
//!    readers call the decoder, so one folder for both halves would need imports against the order of modules.
//! 2. This file has the tables of the first half: each kind has an entry in [`KINDS`], with its name and the function
//!    that reads its settings, a variant of [`FeedKind`], and an arm of the match that leads to its contract.
//!    `crate::source` begins with the table of the second half, the only other match. When a kind is added here, the
//!    compiler reports that match.
//! 3. Code outside of the kind's own folder asks the contract. A kind's own reader gets its settings by type
//!    ([`FeedKind::settings_of`]).
//!
//! **An enum and not a trait object** in [`super::Feed`]: the list of kinds is closed, so a missing entry is a
//! compile error and not a run-time error, and a definition stays a value that can be cloned and printed. The
//! alternative, a `Box<dyn FeedContract>` and a table of readers by name, would avoid the two matches, but a name
//! without a reader would be found only at run time.

mod contract;
mod feed;
mod files;
mod generate;
mod http;
mod kafka;
mod kind;
mod log;
mod postgres;
mod shared;

pub use contract::{Division, DropFolder, FeedContract, FeedSurroundings, Unwritable, WriteTarget};
pub(super) use feed::{FeedDefaults, read_feed};
pub use files::{Changed, Duplicates, FileFeed, FileRules};
pub use generate::{GENERATORS, Generate};
pub use http::HttpFeed;
pub use kafka::{Kafka, KafkaStart, TransactionSettings, split_partition};
pub use log::{LogFeed, LogRules};
pub use postgres::{FirstRows, Postgres, PostgresUrl, SslMode};
pub use shared::OnMissing;

use std::any::Any;
use std::path::Path;

use crate::definition::settings::Settings;

/// Where the bytes of a feed come from, with the settings of its kind.
#[derive(Clone, Debug)]
pub enum FeedKind {
    /// Files that match a glob, in a folder or an object store.
    Files(FileFeed),
    /// The embedded log: a folder with one append-only NDJSON file per partition.
    Log(LogFeed),
    /// Topics of a Kafka cluster, or of another system with its protocol.
    Kafka(Kafka),
    /// Requests to the address in `Dataflow::http`.
    Http(HttpFeed),
    /// Tables of a PostgreSQL database, by logical replication.
    Postgres(Postgres),
    /// A built-in generator.
    Generate(Generate),
}

/// A kind, and the function that reads its settings (none if mistakes were reported) from a file in the dataflow's
/// folder.
struct RegisteredKind {
    kind: kind::KindOfFeed,
    read: fn(&mut Settings<'_>, &Path) -> Option<FeedKind>,
}

/// All kinds, in the order in which messages list them.
static KINDS: &[RegisteredKind] = &[
    RegisteredKind {
        kind: files::KIND,
        read: |settings, base| files::read(settings, base).map(FeedKind::Files),
    },
    RegisteredKind {
        kind: log::KIND,
        read: |settings, base| log::read(settings, base).map(FeedKind::Log),
    },
    RegisteredKind {
        kind: kafka::KIND,
        read: |settings, _| kafka::read(settings).map(FeedKind::Kafka),
    },
    RegisteredKind {
        kind: http::KIND,
        read: |settings, _| Some(FeedKind::Http(http::read(settings))),
    },
    RegisteredKind {
        kind: postgres::KIND,
        read: |settings, base| postgres::read(settings, base).map(FeedKind::Postgres),
    },
    RegisteredKind {
        kind: generate::KIND,
        read: |settings, _| generate::read(settings).map(FeedKind::Generate),
    },
];

impl FeedKind {
    /// The first half of the kind's contract.
    pub fn contract(&self) -> &dyn FeedContract {
        match self {
            FeedKind::Files(settings) => settings,
            FeedKind::Log(settings) => settings,
            FeedKind::Kafka(settings) => settings,
            FeedKind::Http(settings) => settings,
            FeedKind::Postgres(settings) => settings,
            FeedKind::Generate(settings) => settings,
        }
    }

    /// The settings as those of a given kind, for its own reader; none if the feed is of another kind.
    pub fn settings_of<T: FeedContract>(&self) -> Option<&T> {
        let settings: &dyn Any = self.contract();
        settings.downcast_ref()
    }
}
