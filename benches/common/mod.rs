//! What the benches share. Each case runs in a process of its own (the bench starts itself again), so that
//! peak memory is the case's alone and no case warms the allocator of the next.
//!
//! ```text
//! if let Some(case) = common::case() {
//!     return common::tell(&run(&case));      // in the child: figures by name
//! }
//! println!("{}", common::machine());
//! let figures = common::child(&["aggregate", "rows"]);
//! ```

// A bench uses some of this, never all.
#![allow(dead_code)]

#[path = "../../src/testing.rs"]
pub mod testing;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mimalloc::MiMalloc;

/// The allocator of the `alluvium` binary.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The argument before a case's name.
const CASE: &str = "--case";
/// What begins the line with which a child tells its figures.
const FIGURES: &str = "figures:";

/// Figures of a case by name: seconds, bytes, counts.
pub type Measured = BTreeMap<String, f64>;

/// The machine in a line: processor, cores, memory, build.
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = proc_kib("/proc/meminfo", "MemTotal:");
    let build = if cfg!(debug_assertions) {
        "a debug build"
    } else {
        "release"
    };
    format!("{model}, {cores} cores, {} GiB, {build}", memory >> 30)
}

/// The case this process was started for, and its arguments; none in the bench's first process.
pub fn case() -> Option<Vec<String>> {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == CASE)?;
    Some(args[at + 1..].to_vec())
}

/// The word a user gave to run only cases whose name holds it (`cargo bench --bench upserts -- 10M`).
pub fn wanted(name: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

/// Runs a case in a process of its own and answers its figures; panics with what it was if it fails.
pub fn child(case: &[&str]) -> Measured {
    let this = std::env::current_exe().expect("a running program has a path");
    let output = Command::new(this)
        .arg(CASE)
        .args(case)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|e| panic!("case {case:?} did not start: {e}"));
    assert!(output.status.success(), "case {case:?} failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(FIGURES));
    let line = line.unwrap_or_else(|| panic!("case {case:?} told no figures:\n{text}"));
    let figure = |pair: &str| {
        let (name, value) = pair.split_once('=').expect("figures are name=value");
        (name.to_string(), value.parse().expect("a figure is a number"))
    };
    line.split_whitespace().map(figure).collect()
}

/// Tells the parent what was measured. Names hold no blanks.
pub fn tell(measured: &Measured) {
    let pairs: Vec<String> = measured.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("{FIGURES} {}", pairs.join(" "));
}

/// The most memory this process ever held, in bytes.
pub fn peak_rss() -> u64 {
    peak_rss_of("self")
}

/// The most memory a process ever held, in bytes; `process` is a process's number.
pub fn peak_rss_of(process: &str) -> u64 {
    proc_kib(&format!("/proc/{process}/status"), "VmHWM:")
}

/// What it holds now, in bytes.
pub fn rss() -> u64 {
    proc_kib("/proc/self/status", "VmRSS:")
}

/// Forgets the peak so far: from now on [`peak_rss`] tells of what follows. Says whether the kernel did.
pub fn reset_peak_rss() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Processor time of a process, user and system, in seconds. `self` is a process too.
pub fn cpu_seconds(process: &str) -> f64 {
    /// Clock ticks a second: `USER_HZ`, the same on every Linux.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in brackets that may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n: usize| {
        fields
            .split_whitespace()
            .nth(n)
            .and_then(|f| f.parse().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS
}

/// Bytes this process handed to write calls so far; of what it read, likewise.
pub fn written_and_read() -> (u64, u64) {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    (field("wchar:"), field("rchar:"))
}

/// The sizes of all files below a folder.
pub fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

fn proc_kib(file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib << 10
}

/// The value that `quantile` (0 to 1) of the times do not exceed.
pub fn quantile(times: &[Duration], quantile: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

/// `12.3 MiB`.
pub fn bytes(n: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let unit = (n.abs().max(1.0).log2() / 10.0).min(3.0) as usize;
    format!("{:.1} {}", n / f64::powi(1024.0, unit as i32), units[unit])
}

/// `12.3 ms`, of seconds.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// `1.08x`.
pub fn ratio(a: f64, b: f64) -> String {
    format!("{:.2}x", a / b)
}

/// A table that grows by rows and prints itself with aligned columns.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub fn new(headings: &[&str]) -> Self {
        Table {
            rows: vec![headings.iter().map(|h| h.to_string()).collect()],
        }
    }

    /// Adds a row, as many cells as there are headings.
    pub fn row(&mut self, cells: &[String]) {
        assert_eq!(cells.len(), self.rows[0].len(), "a cell for each heading");
        self.rows.push(cells.to_vec());
    }

    /// Prints it.
    pub fn print(&self) {
        let columns = 0..self.rows[0].len();
        let width = |c: usize| self.rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = columns.map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            // The first column says what; the others are figures.
            let cells = cells.map(|(c, (cell, w))| match c {
                0 => format!("{cell:w$}"),
                _ => format!("{cell:>w$}"),
            });
            println!("{}", cells.collect::<Vec<_>>().join("  "));
        }
    }
}
