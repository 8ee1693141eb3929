//! A table's log, watched for the next commit.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How often the log is looked at: the resolution of what is timed with it.
const LOOK: Duration = Duration::from_micros(500);

/// The versions of a table's log, up to the newest that was seen.
pub struct Versions {
    log: PathBuf,
    newest: u64,
}

impl Versions {
    /// Of a `_delta_log`, which holds a version already.
    pub fn of(log: PathBuf) -> Versions {
        let names = fs::read_dir(&log).expect("the table is there").flatten();
        let versions = names.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok());
        let newest = versions.max().expect("a table has a version");
        Versions { log, newest }
    }

    /// Moves on to the newest one; a compaction has versions of its own.
    pub fn skip(&mut self) {
        while self.has_next() {
            self.newest += 1;
        }
    }

    /// Returns when there is a version behind the newest that was seen. `check` is called between looks, and panics when
    /// waiting has become vain.
    pub fn wait(&self, check: impl Fn()) {
        while !self.has_next() {
            check();
            thread::sleep(LOOK);
        }
    }

    fn has_next(&self) -> bool {
        self.log.join(format!("{:020}.json", self.newest + 1)).exists()
    }
}
