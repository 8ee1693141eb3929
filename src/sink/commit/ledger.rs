//! The ledger lists which snapshots a dataflow has decided on, in order, and by which generation.
//!
//! Entries are `_alluvium/ledger/<seq>.json`, put-if-absent.
//! 1. Sequence numbers are dense from the oldest kept entry on.
//! 2. Generations never decrease. A starting committer takes the next generation with a fence entry; an older
//!    generation that puts an entry afterwards finds the name taken, and stops for good.
//! 3. An intent is the commit point of its epoch. It holds everything that is needed to apply it, so anyone may apply
//!    it again; the `txn` of each table makes that harmless.
//! 4. The next intent is put only after the last one is applied in full, so only the newest intent can be applied in
//!    part.
//! 5. One dataflow, which entries name, owns the ledger. Entries of older versions name none.
//! 6. Every entry from the newest entry with full progress to the newest entry is kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::action::Action;
use crate::lake::{Lake, Put};
use crate::repr::{Epoch, FeedPositions, PartitionId, Position};

const FOLDER: &str = "_alluvium/ledger";
/// Version of the entry format. An entry without `version` has this one; a future format will name its own.
const VERSION: u32 = 1;

/// The ledger cannot be read or written.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The store failed.
    #[error("could not {what} in the ledger; a restart resumes where it stopped")]
    Store {
        /// What was attempted.
        what: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// An entry does not parse.
    #[error("could not read ledger entry {seq}: {reason}; restore _alluvium/ledger/{seq:020}.json")]
    Damaged {
        /// Which.
        seq: u64,
        /// Why.
        reason: String,
    },
    /// An entry has a format version that this program does not know.
    #[error(
        "could not read ledger entry {seq}: a newer version of alluvium wrote it (version {version} of the ledger, and this program reads {VERSION}); use that version for this lake"
    )]
    Newer {
        /// Which.
        seq: u64,
        /// The version of the entry's format.
        version: u32,
    },
    /// An entry is missing, which breaks (1) or (6).
    #[error("ledger entry {seq} is missing; restore _alluvium/ledger/{seq:020}.json")]
    Missing {
        /// Which.
        seq: u64,
    },
    /// A table shows a snapshot that the ledger lacks: going on would read the snapshot's input from the feeds a
    /// second time.
    #[error(
        "the ledger ends with the snapshot of epoch {newest}, but table {table} holds one of epoch {epoch}: the newest entries of _alluvium/ledger are missing; restore them from a copy, or go on in a new lake"
    )]
    Behind {
        /// Which table.
        table: String,
        /// The epoch of its newest commit.
        epoch: Epoch,
        /// The epoch of the ledger's newest intent.
        newest: Epoch,
    },
    /// Another dataflow owns the lake: each would take the other's tables for ones that are no longer wanted.
    #[error(
        "this lake is that of dataflow {theirs:?}, and this one is {ours:?}: give each a lake of its own; if it is the \
         same one, renamed, set name = {theirs:?} again"
    )]
    OtherDataflow {
        /// The dataflow of the lake's newest entry.
        theirs: String,
        /// The dataflow that starts.
        ours: String,
    },
    /// Another generation has taken over, by (2).
    #[error(
        "could not write ledger entry {seq}: another run of this dataflow (generation {theirs}, ours is {ours}) has taken over this lake; nothing of ours was published after it started"
    )]
    Zombie {
        /// The sequence number that was taken.
        seq: u64,
        /// The generation of the entry that is there.
        theirs: u64,
        /// Our own generation.
        ours: u64,
    },
}

/// An entry of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LedgerEntry {
    /// A committer started.
    Fence(Fence),
    /// A snapshot was decided on.
    Intent(Intent),
}

/// A committer started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fence {
    /// Its sequence number.
    pub seq: u64,
    /// A UUID: two committers that start at one moment put different fences.
    pub owner: String,
    /// The generation that it begins.
    pub generation: u64,
    /// The name of its dataflow; empty in entries of older versions.
    #[serde(default)]
    pub dataflow: String,
    /// Unix milliseconds.
    pub at: i64,
}

/// A snapshot, decided on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Its sequence number.
    pub seq: u64,
    /// The generation that put it.
    pub generation: u64,
    /// The name of its dataflow; empty in entries of older versions.
    #[serde(default)]
    pub dataflow: String,
    /// The snapshot's epoch.
    pub epoch: Epoch,
    /// Unix milliseconds.
    pub at: i64,
    /// The plan that computed the snapshot: `_alluvium/plans/<plan>.json`. Empty if it was not kept.
    #[serde(default)]
    pub plan: String,
    /// The version of every table before the snapshot, by name. A table that does not change stays there.
    pub versions: BTreeMap<String, i64>,
    /// Whether `progress` names every partition, or only those that moved.
    pub full: bool,
    /// How far partitions have been read as of the epoch.
    pub progress: Vec<(PartitionId, Position)>,
    /// The tables that change, in the order in which they are applied.
    pub tables: Vec<TableIntent>,
}

/// The part of an intent that concerns one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableIntent {
    /// Its name.
    pub table: String,
    /// Its folder below the lake.
    pub path: String,
    /// Log entries to put behind `versions[table]`, in this order.
    pub commits: Vec<TableCommit>,
}

/// One log entry of an intent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableCommit {
    /// The application id of its `txn`.
    pub app_id: String,
    /// The entry's actions, one per line.
    pub actions: Vec<Action>,
}

impl LedgerEntry {
    /// The generation that put the entry.
    pub fn generation(&self) -> u64 {
        match self {
            LedgerEntry::Fence(fence) => fence.generation,
            LedgerEntry::Intent(intent) => intent.generation,
        }
    }

    fn dataflow(&self) -> &str {
        match self {
            LedgerEntry::Fence(fence) => &fence.dataflow,
            LedgerEntry::Intent(intent) => &intent.dataflow,
        }
    }
}

/// The ledger as the committer of one generation writes it.
pub struct Ledger {
    lake: Lake,
    dataflow: String,
    /// Whether fences are respected: off only in simulations, which show that it matters.
    fences: bool,
    generation: u64,
    next: u64,
    oldest: u64,
    last_full: Option<u64>,
}

/// The content of the ledger at the moment of the fence.
#[derive(Debug)]
pub struct LedgerState {
    /// The newest intent, which may have been applied in part only.
    pub newest: Option<Intent>,
    /// How far partitions have been read as of that intent.
    pub progress: FeedPositions,
}

impl Ledger {
    /// Takes the next generation for a dataflow, and reads where the last one stopped. Without `fences` (simulations
    /// only), earlier runs are not stopped. Another dataflow's lake is refused, and its run is not stopped.
    pub async fn fence(
        lake: &Lake,
        dataflow: &str,
        now: i64,
        fences: bool,
    ) -> Result<(Ledger, LedgerState), LedgerError> {
        loop {
            let seqs = list(lake).await?;
            let generation = match seqs.last() {
                Some(seq) => {
                    let newest = read_present(lake, *seq).await?;
                    let theirs = newest.dataflow();
                    if !theirs.is_empty() && theirs != dataflow {
                        return Err(LedgerError::OtherDataflow {
                            theirs: theirs.to_string(),
                            ours: dataflow.to_string(),
                        });
                    }
                    newest.generation() + 1
                }
                None => 1,
            };
            let seq = seqs.last().map_or(0, |last| last + 1);
            let owner = Uuid::new_v4().to_string();
            let mut ledger = Ledger {
                lake: lake.clone(),
                dataflow: dataflow.to_string(),
                fences,
                generation,
                next: seq,
                oldest: seqs.first().copied().unwrap_or(seq),
                last_full: None,
            };
            if !fences {
                let found = ledger.read_back(seq).await?;
                return Ok((ledger, found));
            }
            match ledger
                .append(&LedgerEntry::Fence(Fence {
                    seq,
                    owner,
                    generation,
                    dataflow: dataflow.to_string(),
                    at: now,
                }))
                .await
            {
                // Another committer starts at the same moment: by (2), the later fence wins.
                Err(LedgerError::Zombie { .. }) => continue,
                outcome => outcome?,
            }
            let found = ledger.read_back(seq).await?;
            return Ok((ledger, found));
        }
    }

    /// The generation of the entries that this ledger appends.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The dataflow that the ledger belongs to.
    pub fn dataflow(&self) -> &str {
        &self.dataflow
    }

    /// The sequence number of the next entry.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Whether another committer has put an entry after ours.
    pub async fn is_overtaken(&self) -> Result<bool, LedgerError> {
        Ok(list(&self.lake).await?.last().is_some_and(|last| *last >= self.next))
    }

    /// Puts the next entry.
    pub async fn append(&mut self, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let seq = self.next;
        let bytes = Bytes::from(serde_json::to_vec(entry).expect("an entry is plain data"));
        let put = self.lake.put_new(&entry_path(seq), bytes).await;
        let put = put.map_err(|source| LedgerError::Store {
            what: format!("put entry {seq}"),
            source,
        })?;
        if put == Put::Taken {
            let existing = read_present(&self.lake, seq).await?;
            // It is our own entry if the store lost the answer to an earlier attempt.
            if &existing != entry && !self.fences {
                self.next += 1;
                return Box::pin(self.append(entry)).await;
            }
            if &existing != entry {
                let theirs = existing.generation();
                return Err(LedgerError::Zombie {
                    seq,
                    theirs,
                    ours: self.generation,
                });
            }
        }
        if let LedgerEntry::Intent(Intent { full: true, .. }) = entry {
            self.last_full = Some(seq);
        }
        self.next += 1;
        Ok(())
    }

    /// Entries that may be deleted: all but the newest `keep` and those that (6) keeps.
    pub fn expired(&mut self, keep: u64) -> Vec<Path> {
        let end = self
            .next
            .saturating_sub(keep)
            .min(self.last_full.unwrap_or(0))
            .max(self.oldest);
        let expired = (self.oldest..end).map(entry_path).collect();
        self.oldest = end;
        expired
    }

    /// Returns the newest intent before `fence`, and the progress as of it.
    async fn read_back(&mut self, fence: u64) -> Result<LedgerState, LedgerError> {
        let mut intents: Vec<Intent> = Vec::new();
        for seq in (self.oldest..fence).rev() {
            if let LedgerEntry::Intent(intent) = read_present(&self.lake, seq).await? {
                let full = intent.full;
                intents.push(intent);
                if full {
                    self.last_full = Some(seq);
                    break;
                }
            }
        }
        if let (None, Some(oldest)) = (self.last_full, intents.last()) {
            return Err(LedgerError::Missing { seq: oldest.seq - 1 });
        }
        let mut progress = FeedPositions::new();
        for intent in intents.iter().rev() {
            progress.extend(intent.progress.iter().cloned());
        }
        Ok(LedgerState {
            newest: intents.into_iter().next(),
            progress,
        })
    }
}

/// All sequence numbers in the ledger, ascending.
pub async fn list(lake: &Lake) -> Result<Vec<u64>, LedgerError> {
    let objects: Vec<_> = lake
        .store
        .list(Some(&Path::from(FOLDER)))
        .try_collect()
        .await
        .map_err(|source| LedgerError::Store {
            what: "list entries".into(),
            source,
        })?;
    let mut seqs: Vec<u64> = objects
        .iter()
        .filter_map(|object| object.location.filename()?.strip_suffix(".json")?.parse().ok())
        .collect();
    seqs.sort_unstable();
    Ok(seqs)
}

/// Reads an entry; none if the number does not exist.
pub async fn read(lake: &Lake, seq: u64) -> Result<Option<LedgerEntry>, LedgerError> {
    let bytes = lake.get(&entry_path(seq)).await.map_err(|source| LedgerError::Store {
        what: format!("read entry {seq}"),
        source,
    })?;
    bytes.map(|bytes| parse(seq, &bytes)).transpose()
}

fn parse(seq: u64, bytes: &[u8]) -> Result<LedgerEntry, LedgerError> {
    /// The part that entries of every format version share.
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default = "current")]
        version: u32,
    }
    fn current() -> u32 {
        VERSION
    }
    let damaged = |error: serde_json::Error| LedgerError::Damaged {
        seq,
        reason: error.to_string(),
    };
    let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version != VERSION {
        return Err(LedgerError::Newer { seq, version });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Deletes entries. An entry that is already gone is no error.
pub async fn delete(lake: &Lake, expired: Vec<Path>) -> Result<(), LedgerError> {
    let deleted = stream::iter(expired)
        .map(|path| async move {
            match lake.store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await;
    deleted.map_err(|source| LedgerError::Store {
        what: "delete old entries".into(),
        source,
    })
}

async fn read_present(lake: &Lake, seq: u64) -> Result<LedgerEntry, LedgerError> {
    read(lake, seq).await?.ok_or(LedgerError::Missing { seq })
}

fn entry_path(seq: u64) -> Path {
    Path::from(format!("{FOLDER}/{seq:020}.json"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use url::Url;

    use super::*;

    fn lake() -> Lake {
        Lake::over(
            Arc::new(InMemory::new()),
            Path::default(),
            Url::parse("memory:///").unwrap(),
        )
    }

    fn intent(ledger: &Ledger, epoch: Epoch, full: bool, progress: &[(&str, u64)]) -> LedgerEntry {
        let position = |next| Position {
            next,
            done: false,
            tag: None,
            ..Position::default()
        };
        let id = |partition: &str| PartitionId {
            input: "i".into(),
            feed: "f".into(),
            partition: partition.into(),
        };
        LedgerEntry::Intent(Intent {
            seq: ledger.next_seq(),
            generation: ledger.generation(),
            dataflow: ledger.dataflow().to_string(),
            epoch,
            at: 0,
            plan: String::new(),
            versions: BTreeMap::new(),
            full,
            progress: progress.iter().map(|(p, next)| (id(p), position(*next))).collect(),
            tables: vec![],
        })
    }

    #[tokio::test]
    async fn a_new_generation_fences_off_the_old_one() {
        let lake = lake();
        let (mut old, found) = Ledger::fence(&lake, "d", 0, true).await.unwrap();
        assert!(found.newest.is_none());
        let first = intent(&old, 5, true, &[("0", 7)]);
        old.append(&first).await.unwrap();
        let (new, found) = Ledger::fence(&lake, "d", 0, true).await.unwrap();
        assert_eq!((new.generation(), found.newest.map(|i| i.epoch)), (2, Some(5)));
        let late = intent(&old, 6, false, &[]);
        let error = old.append(&late).await.unwrap_err();
        assert!(
            matches!(error, LedgerError::Zombie { theirs: 2, ours: 1, .. }),
            "{error}"
        );
    }

    /// Two dataflows that were given one lake by mistake emptied each other's tables, start by start.
    #[tokio::test]
    async fn another_dataflow_is_refused_and_stops_nobody() {
        let lake = lake();
        let (mut ledger, _) = Ledger::fence(&lake, "orders", 0, true).await.unwrap();
        for epoch in [5, 6] {
            let error = Ledger::fence(&lake, "payments", 0, true).await.err().unwrap();
            assert!(matches!(error, LedgerError::OtherDataflow { .. }), "{error}");
            let entry = intent(&ledger, epoch, true, &[]);
            ledger.append(&entry).await.unwrap();
        }
        let (new, _) = Ledger::fence(&lake, "orders", 0, true).await.unwrap();
        assert_eq!(new.generation(), 2);
    }

    #[tokio::test]
    async fn an_entry_put_twice_by_us_counts_once() {
        let lake = lake();
        let (mut ledger, _) = Ledger::fence(&lake, "d", 0, true).await.unwrap();
        let entry = intent(&ledger, 5, true, &[]);
        ledger.append(&entry).await.unwrap();
        ledger.next -= 1; // The answer to the first try was lost.
        ledger.append(&entry).await.unwrap();
        assert_eq!(list(&lake).await.unwrap(), [0, 1]);
    }

    #[tokio::test]
    async fn progress_is_the_last_full_one_and_what_moved_since_also_after_clean_up() {
        let lake = lake();
        let (mut ledger, _) = Ledger::fence(&lake, "d", 0, true).await.unwrap();
        for (epoch, full, progress) in [
            (1, true, vec![("0", 1)]),
            (2, false, vec![("1", 1)]),
            (3, true, vec![("0", 2), ("1", 1)]),
            (4, false, vec![("1", 9)]),
            (5, false, vec![]),
        ] {
            let entry = intent(&ledger, epoch, full, &progress);
            ledger.append(&entry).await.unwrap();
        }
        delete(&lake, ledger.expired(1)).await.unwrap();
        assert_eq!(list(&lake).await.unwrap(), [3, 4, 5]);
        let (_, found) = Ledger::fence(&lake, "d", 0, true).await.unwrap();
        let next: Vec<u64> = found.progress.values().map(|p| p.next).collect();
        assert_eq!((next, found.newest.unwrap().epoch), (vec![2, 9], 5));
    }
}
