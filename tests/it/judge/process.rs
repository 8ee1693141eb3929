//! Runs dataflows in separate processes with a time limit, because a statement may hang a run or end its process.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Folder;

/// Runs a folder's dataflow into its lake `lakes/lake` until every feed is exhausted and committed.
pub fn catch_up(folder: &Folder, patience: Duration) -> Result<(), String> {
    start(folder, &["--until-caught-up"], patience).ended()
}

/// A run that goes on until it is stopped.
pub struct Live(Run);

impl Live {
    pub fn start(folder: &Folder, patience: Duration) -> Live {
        Live(start(folder, &[], patience))
    }

    /// Waits until `done` returns true.
    pub fn wait_until(&mut self, done: impl Fn() -> bool) -> Result<(), String> {
        let started = Instant::now();
        while !done() {
            if started.elapsed() > self.0.patience {
                return Err(format!("a change was not committed in {:?}", self.0.patience));
            }
            if self.0.is_over() {
                return self.0.said().and(Err("it ended by itself".to_string()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Asks the run to stop after it has taken what there is, and waits for its end.
    pub fn stop(mut self) -> Result<(), String> {
        let id = self.0.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status();
        assert!(told.expect("kill starts").success(), "the run is told to stop");
        self.0.ended()
    }
}

/// A process that is killed when it is dropped.
struct Run {
    child: Child,
    /// The file to which the process writes its errors.
    log: tempfile::NamedTempFile,
    /// The most time that is waited for anything.
    patience: Duration,
}

fn start(folder: &Folder, more: &[&str], patience: Duration) -> Run {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let child = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(["run", ".", "-w", "1", "--lake", "lakes/lake"])
        .args(more)
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(log.reopen().expect("a file that was just made"))
        .spawn();
    Run {
        child: child.expect("the binary starts"),
        log,
        patience,
    }
}

impl Run {
    fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Waits for the end of the process.
    fn ended(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while !self.is_over() {
            if started.elapsed() > self.patience {
                return Err(format!("it did not end in {:?}", self.patience));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.said()
    }

    /// How the process ended, with the last lines that it wrote.
    fn said(&mut self) -> Result<(), String> {
        let status = self.child.wait().expect("a child can be waited for");
        if status.success() {
            return Ok(());
        }
        let mut text = String::new();
        let mut log = self.log.reopen().expect("its log is there");
        log.read_to_string(&mut text).expect("it writes UTF-8");
        let lines: Vec<&str> = text.lines().rev().take(6).collect();
        Err(format!(
            "{status}: {}",
            lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
        ))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        self.child.wait().expect("a child can be waited for");
    }
}
