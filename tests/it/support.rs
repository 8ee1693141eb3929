//! What the rooms share: temporary dataflows, runs, and the real data beside the checkout.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium::definition::{self, Dataflow};
use alluvium::run::{self, Options, Outcome};
use alluvium::serve::verify::{self, Report};

/// A dataflow's folder that goes away with the test.
pub struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    /// With a dataflow.toml of short intervals, and these files (path, content).
    pub fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = Folder {
            dir: tempfile::tempdir().expect("a temporary folder"),
        };
        folder.write(
            "dataflow.toml",
            &format!("name = \"{name}\"\nepoch = \"1ms\"\ncommit = \"5ms\"\ndurability = \"none\"\n"),
        );
        for (path, content) in files {
            folder.write(path, content);
        }
        folder
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, making its folder.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder is made");
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Appends to a file, making it.
    pub fn append(&self, path: &str, content: &str) {
        use std::io::Write;
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder is made");
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .expect("an appendable file");
        file.write_all(content.as_bytes()).expect("the record is appended");
    }

    /// The dataflow, with its lake at `lakes/<lake>`.
    pub fn load(&self, lake: &str) -> Arc<Dataflow> {
        let mut dataflow = definition::load(self.path(), &|_| None).unwrap_or_else(|e| panic!("{e}"));
        dataflow.lake = self.lake(lake).display().to_string();
        Arc::new(dataflow)
    }

    /// Where that lake is.
    pub fn lake(&self, lake: &str) -> PathBuf {
        self.path().join("lakes").join(lake)
    }
}

/// Runs until every feed is exhausted and committed.
pub fn catch_up(dataflow: &Arc<Dataflow>, workers: usize) -> Outcome {
    let options = Options {
        workers,
        until_caught_up: true,
        duration: Some(Duration::from_secs(300)),
        ..Options::default()
    };
    run::run(dataflow.clone(), &options).unwrap_or_else(|e| panic!("the run failed: {}", chain(&e)))
}

/// Every table at every snapshot (or each `step`-th, and the last) equals its SQL in batch over Bronze at it.
pub fn assert_every_snapshot_is_exact(dataflow: &Arc<Dataflow>, step: usize) -> usize {
    let epochs = verify::snapshots(dataflow).unwrap_or_else(|e| panic!("no snapshots: {}", chain(&e)));
    let mut checked = 0;
    for (n, epoch) in epochs.iter().enumerate() {
        if n % step == 0 || n + 1 == epochs.len() {
            let report = verify::verify(dataflow, Some(*epoch)).unwrap_or_else(|e| panic!("verify: {}", chain(&e)));
            assert_exact(&report, &format!("snapshot {} of {} ({epoch})", n + 1, epochs.len()));
            checked += 1;
        }
    }
    checked
}

/// No table differs.
pub fn assert_exact(report: &Report, what: &str) {
    let mut text = String::new();
    for difference in &report.differences {
        let _ = writeln!(text, "{difference}");
    }
    assert!(report.differences.is_empty(), "{what} differs from batch:\n{text}");
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// The real data's folder, if it is here: `ALLUVIUM_DATA`, or `shared/data` beside the checkout.
pub fn real_data(set: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ALLUVIUM_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .skip(1)
        .map(|a| a.join("shared/data"));
    let found = named
        .into_iter()
        .chain(beside)
        .map(|folder| folder.join(set))
        .find(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: no real data {set:?}: set ALLUVIUM_DATA, or put shared/data beside the checkout");
    }
    found
}
