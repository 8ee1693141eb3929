//! Helpers for all tests: temporary dataflows, runs, and the real data beside the checkout.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use alluvium::cluster::{Member, Secret};
use alluvium::definition::{self, Dataflow};
use alluvium::run::{self, Options, RunClock, RunError, RunOutcome};
use alluvium::serve::verify::{self, VerifyReport};
use alluvium::sink::WriterLimits;
use crossbeam_channel::Sender;

/// A dataflow's folder that is deleted after the test.
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
    /// A folder with a dataflow.toml of short intervals, and these files (path, content).
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

    /// Writes a file, and creates its folder.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder is made");
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Appends to a file, and creates it if necessary.
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

    /// Loads the dataflow, with its lake at `lakes/<lake>`.
    pub fn load(&self, lake: &str) -> Arc<Dataflow> {
        let mut dataflow = definition::load(self.path(), &|_| None).unwrap_or_else(|e| panic!("{e}"));
        dataflow.lake = self.lake(lake).display().to_string();
        Arc::new(dataflow)
    }

    /// The path of this lake.
    pub fn lake(&self, lake: &str) -> PathBuf {
        self.path().join("lakes").join(lake)
    }
}

/// The number of processes, and of workers in each. A process is a thread here, but its sockets are real.
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

/// Addresses on which nothing listens now.
pub fn free_hosts(n: usize) -> Vec<String> {
    let held: Vec<TcpListener> = (0..n)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("an address").to_string();
    held.iter().map(address).collect()
}

/// The input `events` of [`posted_events`].
pub const POSTED_EVENTS: &str = r#"
[columns]
id = { type = "BIGINT", nullable = false }
kind = "VARCHAR"
[[feeds]]
name = "posted"
kind = "http"
format = "json"
"#;

/// A dataflow of posted events, and the address at which its runs listen. `http`: further settings of `[http]`.
pub fn posted_events(name: &str, http: &str) -> (Folder, String) {
    let folder = Folder::new(
        name,
        &[
            ("inputs/events.toml", POSTED_EVENTS),
            ("silver/events.sql", "SELECT id, kind FROM events"),
            (
                "gold/kinds.sql",
                "SELECT kind, COUNT(*) AS n, SUM(id) AS ids FROM silver.events GROUP BY kind",
            ),
        ],
    );
    let listen = free_hosts(1).remove(0);
    folder.write(
        "dataflow.toml",
        &format!("name = \"{name}\"\nepoch = \"1ms\"\ncommit = \"20ms\"\n[http]\nlisten = \"{listen}\"\n{http}\n"),
    );
    (folder, listen)
}

/// Runs all processes, and returns their outcomes. Only process 0 gets the conditions for its end.
pub fn run_all(dataflow: &Arc<Dataflow>, size: Size, options: &Options) -> Vec<Result<RunOutcome, RunError>> {
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

/// The outcome of process 0; panics if any process failed.
fn outcome(ended: Vec<Result<RunOutcome, RunError>>) -> RunOutcome {
    let ended = ended.into_iter().enumerate();
    let outcomes: Vec<RunOutcome> = ended
        .map(|(process, ended)| ended.unwrap_or_else(|e| panic!("process {process} failed: {}", chain(&e))))
        .collect();
    outcomes.into_iter().next().expect("there is a process 0")
}

/// Runs until every feed is exhausted and committed.
pub fn catch_up(dataflow: &Arc<Dataflow>, size: impl Into<Size>) -> RunOutcome {
    catch_up_with(dataflow, size.into(), Options::default())
}

/// Like [`catch_up`], at a time that is so much later than the machine's.
pub fn catch_up_later(dataflow: &Arc<Dataflow>, size: impl Into<Size>, later: Duration) -> RunOutcome {
    let options = Options {
        clock: RunClock::new(move || SystemTime::now() + later),
        ..Options::default()
    };
    catch_up_with(dataflow, size.into(), options)
}

/// Like [`catch_up`], but recomputes all of the past from Bronze and the feeds.
pub fn recompute(dataflow: &Arc<Dataflow>, workers: usize) -> RunOutcome {
    let options = Options {
        recompute: true,
        ..Options::default()
    };
    catch_up_with(dataflow, workers.into(), options)
}

fn catch_up_with(dataflow: &Arc<Dataflow>, size: Size, options: Options) -> RunOutcome {
    let options = Options {
        until_caught_up: true,
        duration: Some(Duration::from_secs(300)),
        ..options
    };
    let outcome = outcome(run_all(dataflow, size, &options));
    assert!(outcome.unread.is_empty(), "not caught up: {:?}", outcome.unread);
    outcome
}

/// What feeds wait for, at the end of a run that was to catch up and could not.
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

/// The number of snapshots in the lake; 0 if nothing has been committed.
pub fn snapshots(dataflow: &Dataflow) -> usize {
    verify::snapshots(dataflow).map_or(0, |epochs| epochs.len())
}

/// The most time that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A run in a separate thread.
pub struct Running {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Result<RunOutcome, RunError>>>,
}

impl Running {
    /// Starts a run that goes on until it is stopped.
    pub fn start(dataflow: Arc<Dataflow>, size: impl Into<Size>) -> Running {
        Self::within(dataflow, size, WriterLimits::default())
    }

    /// Starts a run with these limits.
    pub fn within(dataflow: Arc<Dataflow>, size: impl Into<Size>, limits: WriterLimits) -> Running {
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

    /// Waits until `done` returns true, while the run goes on.
    pub fn wait_until(&self, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < PATIENCE, "what was waited for did not come");
            if self.thread.is_finished() {
                return; // The reason is reported when the thread is joined.
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lets the run finish what it has taken, and ends it.
    pub fn stop(self) -> RunOutcome {
        // The run may have failed already; then its result says so.
        let _ = self.stop.send(());
        outcome(self.thread.join().expect("the run does not panic"))
    }
}

/// Asserts that no table differs.
pub fn assert_exact(report: &VerifyReport, what: &str) {
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

/// `alluvium run` for a folder, into its lake `lakes/lake`, as a separate process. Dropping it kills the process.
pub struct Process(pub Child);

impl Process {
    /// Starts a run with this many workers.
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
