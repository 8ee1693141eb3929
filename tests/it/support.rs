//! What the rooms share: temporary dataflows, runs, and the real data beside the checkout.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alluvium::definition::{self, Dataflow};
use alluvium::run::{self, Options, Outcome, RunError};
use alluvium::serve::verify::{self, Report};
use alluvium::sink::Limits;
use crossbeam_channel::Sender;

/// A dataflow's folder that goes away with the test.
pub struct Folder {
    dir: tempfile::TempDir,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("kept {}", self.dir.path().display());
        }
    }
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
    catch_up_with(dataflow, workers, Options::default())
}

/// The same, with all of the past made again from Bronze and the feeds.
pub fn recompute(dataflow: &Arc<Dataflow>, workers: usize) -> Outcome {
    let options = Options {
        recompute: true,
        ..Options::default()
    };
    catch_up_with(dataflow, workers, options)
}

fn catch_up_with(dataflow: &Arc<Dataflow>, workers: usize, options: Options) -> Outcome {
    let options = Options {
        workers,
        until_caught_up: true,
        duration: Some(Duration::from_secs(300)),
        ..options
    };
    run::run(dataflow.clone(), &options).unwrap_or_else(|e| panic!("the run failed: {}", chain(&e)))
}

/// How many snapshots the lake has; none where nothing was committed yet.
pub fn snapshots(dataflow: &Dataflow) -> usize {
    verify::snapshots(dataflow).map_or(0, |epochs| epochs.len())
}

/// The longest that anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(240);

/// A run in a thread of its own.
pub struct Running {
    stop: Sender<()>,
    thread: JoinHandle<Result<Outcome, RunError>>,
}

impl Running {
    /// Starts it; it goes on until it is stopped.
    pub fn start(dataflow: Arc<Dataflow>, workers: usize) -> Running {
        Self::within(dataflow, workers, Limits::default())
    }

    /// Starts it with these limits.
    pub fn within(dataflow: Arc<Dataflow>, workers: usize, limits: Limits) -> Running {
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let options = Options {
            workers,
            stop: Some(stopped),
            duration: Some(PATIENCE),
            limits,
            ..Options::default()
        };
        Running {
            stop,
            thread: std::thread::spawn(move || run::run(dataflow, &options)),
        }
    }

    /// Waits while it runs.
    pub fn wait_until(&self, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < PATIENCE, "what was waited for did not come");
            if self.thread.is_finished() {
                return; // why is told when it is joined
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Drains and ends it.
    pub fn stop(self) -> Outcome {
        // The run may have failed already; its result tells.
        let _ = self.stop.send(());
        let ended = self.thread.join().expect("the run does not panic");
        ended.unwrap_or_else(|e| panic!("the run failed: {}", chain(&e)))
    }
}

/// No table differs.
pub fn assert_exact(report: &Report, what: &str) {
    let mut text = String::new();
    for difference in report.differences.iter().take(20) {
        let _ = writeln!(text, "{difference}");
    }
    let count = report.differences.len();
    assert_eq!(count, 0, "{what} differs from batch in {count} rows, of which:\n{text}");
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
