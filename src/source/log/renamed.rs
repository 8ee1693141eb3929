//! Logs that were renamed within their folder, as rotation does (`0.ndjson` to `0-20261129.ndjson`).
//!
//! A file without a known position that begins with what was read of a partition, while that partition's own file no
//! longer does, is that partition's file under another name. It is not read again: with `on_missing = "earliest"` it
//! is read behind what was read, otherwise it waits as the partition does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::mark::begins_with;
use super::{Follower, LogPlace, LogUnread, RESTORE, partition_file, waits};
use crate::definition::OnMissing;
use crate::repr::LogMark;
use crate::shown::shown_path;
use crate::source::guard::open_regular;

/// A partition whose file no longer holds what was read of it.
pub(super) struct LostLog {
    path: PathBuf,
    /// How many bytes of the file were read.
    read: u64,
    mark: LogMark,
}

impl Follower {
    /// The partitions that have lost what was read of them, as of now.
    pub(super) fn lost(&self) -> Result<Vec<LostLog>, LogUnread> {
        let within = self.within()?;
        let open = self.partitions.values().map(|partition| {
            let read = partition.next - partition.base;
            (partition.path.clone(), read, partition.held.mark())
        });
        let unopened = self.positions.iter().map(|(name, place)| {
            let path = self.folder.join(format!("{name}.ndjson"));
            (path, place.next - place.base, place.mark.clone())
        });
        let lost = open.chain(unopened).filter_map(|(path, read, mark)| {
            let mark = mark.filter(|_| read > 0)?;
            let file = open_regular(&path, within.as_deref());
            let is_there = file.is_ok_and(|file| begins_with(&file, read, &mark));
            (!is_there).then_some(LostLog { path, read, mark })
        });
        Ok(lost.collect())
    }

    /// If a file of which nothing was read is one of the `lost` logs under another name: why it is not read now.
    pub(super) fn renamed(&self, path: &Path, lost: &[LostLog]) -> Result<Option<String>, LogUnread> {
        let Some(within) = (!lost.is_empty()).then(|| self.within()).transpose()? else {
            return Ok(None);
        };
        let Ok(file) = open_regular(path, within.as_deref()) else {
            return Ok(None);
        };
        let earlier = lost.iter().find(|lost| begins_with(&file, lost.read, &lost.mark));
        Ok(earlier.map(|lost| {
            format!(
                "{} begins with what was read of {}, so it is that log, renamed: {RESTORE}",
                shown_path(path),
                shown_path(&lost.path)
            )
        }))
    }

    /// Called when a partition lost what was read and begins anew: if its file now has another name, reading
    /// continues there.
    pub(super) fn claim_renamed(&mut self, name: &str, read: u64, mark: &LogMark) -> Result<(), LogUnread> {
        let within = self.within()?;
        let entries = std::fs::read_dir(&self.folder).map_err(|e| waits(&self.folder, e))?;
        for entry in entries {
            let path = entry.map_err(|e| waits(&self.folder, e))?.path();
            let Some(renamed) = partition_file(&path).filter(|renamed| &**renamed != name) else {
                continue;
            };
            let is_known = self.partitions.contains_key(&renamed) || self.positions.contains_key(&*renamed);
            if is_known || !self.handle.reads(&renamed) {
                continue;
            }
            let file = open_regular(&path, within.as_deref());
            if !file.is_ok_and(|file| begins_with(&file, read, mark)) {
                continue;
            }
            tracing::warn!(
                feed = self.handle.name(),
                "{} begins with what was read of partition {name}, so it is that log, renamed: it is read on from byte {read}",
                shown_path(&path)
            );
            let place = LogPlace {
                next: read,
                base: 0,
                mark: Some(mark.clone()),
            };
            self.handle.conclude(&renamed, place.position(), None, Instant::now())?;
            self.positions.insert(renamed.to_string(), place);
            self.has_claimed = true;
            return Ok(());
        }
        Ok(())
    }

    /// The same for partitions whose files are gone.
    pub(super) fn claim_gone(&mut self) -> Result<(), LogUnread> {
        if self.rules.on_missing != OnMissing::Earliest {
            return Ok(());
        }
        let folder = self.folder.clone();
        let is_lost = |name: &str| !folder.join(format!("{name}.ndjson")).exists();
        let positions = self.positions.iter();
        let lost_logs: Vec<(String, LogPlace)> = positions
            .filter(|(name, place)| place.next > place.base && is_lost(name))
            .map(|(name, place)| (name.clone(), place.clone()))
            .collect();
        for (name, place) in lost_logs {
            if let Some(mark) = &place.mark {
                self.claim_renamed(&name, place.next - place.base, mark)?;
            }
        }
        Ok(())
    }

    /// Sorts files with a known position before new ones. Once those are opened, it is known which logs are gone, and
    /// so which of the new files may be one of them under another name.
    pub(super) fn order(&self, files: &mut [(Arc<str>, PathBuf)]) {
        files.sort_by_key(|(name, _)| !self.positions.contains_key(&**name));
    }
}
