//! What the rooms share: temporary dataflows, runs, and the real data beside the checkout.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alluvium::cluster::{Member, Secret};
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

/// How many processes, and workers in each. A process is a thread here: its sockets are real.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub processes: usize,
    pub workers: usize,
}

impl From<usize> for Size {
    fn from(workers: usize) -> Self {
        Size { processes: 1, workers }
    }
}

impl From<(usize, usize)> for Size {
    fn from((processes, workers): (usize, usize)) -> Self {
        Size { processes, workers }
    }
}

/// Addresses at which nobody listens now.
pub fn free_hosts(n: usize) -> Vec<String> {
    let held: Vec<TcpListener> = (0..n)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("an address").to_string();
    held.iter().map(address).collect()
}

/// Runs all processes, and answers with their outcomes. Only process 0 is told when to stop.
pub fn run_all(dataflow: &Arc<Dataflow>, size: Size, options: &Options) -> Vec<Result<Outcome, RunError>> {
    let hosts = free_hosts(if size.processes > 1 { size.processes } else { 0 });
    let of = |process: usize| {
        let member = || Member {
            process,
            hosts: hosts.clone(),
            listen: None,
            secret: Secret::new(b"the secret of all tests").expect("a long secret"),
        };
        Options {
            workers: size.workers,
            cluster: (size.processes > 1).then(|| Arc::new(member())),
            stop: options.stop.clone().filter(|_| process == 0),
            ..options.clone()
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..size.processes)
            .map(|process| {
                let options = of(process);
                scope.spawn(move || run::run(dataflow.clone(), &options))
            })
            .collect();
        let join = |run: std::thread::ScopedJoinHandle<'_, _>| run.join().expect("a run does not panic");
        running.into_iter().map(join).collect()
    })
}

/// The outcome of process 0, where no process failed.
fn outcome(ended: Vec<Result<Outcome, RunError>>) -> Outcome {
    let ended = ended.into_iter().enumerate();
    let outcomes: Vec<Outcome> = ended
        .map(|(process, ended)| ended.unwrap_or_else(|e| panic!("process {process} failed: {}", chain(&e))))
        .collect();
    outcomes.into_iter().next().expect("there is a process 0")
}

/// Runs until every feed is exhausted and committed.
pub fn catch_up(dataflow: &Arc<Dataflow>, size: impl Into<Size>) -> Outcome {
    catch_up_with(dataflow, size.into(), Options::default())
}

/// The same, with all of the past made again from Bronze and the feeds.
pub fn recompute(dataflow: &Arc<Dataflow>, workers: usize) -> Outcome {
    let options = Options {
        recompute: true,
        ..Options::default()
    };
    catch_up_with(dataflow, workers.into(), options)
}

fn catch_up_with(dataflow: &Arc<Dataflow>, size: Size, options: Options) -> Outcome {
    let options = Options {
        until_caught_up: true,
        duration: Some(Duration::from_secs(300)),
        ..options
    };
    let outcome = outcome(run_all(dataflow, size, &options));
    assert!(outcome.unread.is_empty(), "not caught up: {:?}", outcome.unread);
    outcome
}

/// What feeds wait for as a run ends that was to catch up and could not.
#[track_caller]
pub fn unread(dataflow: &Arc<Dataflow>) -> String {
    let options = Options {
        until_caught_up: true,
        duration: Some(Duration::from_secs(120)),
        ..Options::default()
    };
    let outcome = outcome(run_all(dataflow, Size::from(1), &options));
    assert!(!outcome.unread.is_empty(), "everything was read");
    outcome.unread.join("\n")
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
    thread: JoinHandle<Vec<Result<Outcome, RunError>>>,
}

impl Running {
    /// Starts it; it goes on until it is stopped.
    pub fn start(dataflow: Arc<Dataflow>, size: impl Into<Size>) -> Running {
        Self::within(dataflow, size, Limits::default())
    }

    /// Starts it with these limits.
    pub fn within(dataflow: Arc<Dataflow>, size: impl Into<Size>, limits: Limits) -> Running {
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let size = size.into();
        let options = Options {
            stop: Some(stopped),
            duration: Some(PATIENCE),
            limits,
            ..Options::default()
        };
        Running {
            stop,
            thread: std::thread::spawn(move || run_all(&dataflow, size, &options)),
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
        outcome(self.thread.join().expect("the run does not panic"))
    }
}

/// No table differs.
pub fn assert_exact(report: &Report, what: &str) {
    let mut text = String::new();
    for difference in report.differences.iter().take(20) {
        let _ = writeln!(text, "{difference}");
    }
    assert!(report.failed.is_empty(), "{what}: {:?}", report.failed);
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

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// `alluvium run` of a folder into its lake `lakes/lake`, as a process of its own. Dropping it kills it.
pub struct Process(pub Child);

impl Process {
    /// With so many workers.
    pub fn start(folder: &Folder, workers: u32) -> Process {
        let child = Command::new(env!("CARGO_BIN_EXE_alluvium"))
            .args(["run", ".", "-w", &workers.to_string(), "--lake", "lakes/lake"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Process(child.expect("the binary starts"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended by itself.
        self.0.wait().expect("a child can be waited for");
    }
}
