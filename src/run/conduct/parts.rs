//! The parts of a run that the conductor drives, besides the workers.

use super::audit::Audit;
use super::memory::MemoryWatch;
use crate::backfill::Server;
use crate::source;

/// Brings records to the workers of this process, and reports commits back to their sources.
#[derive(Default)]
pub struct Intake {
    pub readers: Option<source::Readers>,
    /// Publishes committed offsets to consumer groups, where topics are read.
    pub offsets: Option<source::OffsetPublisher>,
    /// Serves requests; `None` once no more input is read.
    pub server: Option<Server>,
}

/// Observers of a run.
pub struct Watches {
    /// The audit, over a lake with a past, until it is finished.
    pub audit: Option<Audit>,
    /// Watches memory; above the limit, feeds are not read.
    pub memory: MemoryWatch,
}
