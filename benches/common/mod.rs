//! Code that the benches share. Each case runs in a process of its own (the bench starts itself again), so that peak
//! memory belongs to one case, and no case warms the allocator for the next.
//!
//! ```text
//! if let Some(case) = common::case() {
//!     return common::tell(&run(&case));      // in the child: figures by name
//! }
//! println!("{}", common::machine());
//! let figures = common::child(&["aggregate", "rows"]);
//! ```

// Each bench uses only a part of this.
#![allow(dead_code)]

#[path = "../../src/testing.rs"]
pub mod testing;
pub mod versions;

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
/// The prefix of the line with which a child reports its figures.
const FIGURES: &str = "figures:";

/// A case's figures by name: seconds, bytes, counts.
pub type Measured = BTreeMap<String, f64>;

/// Describes the machine in one line: processor, cores, memory, build.
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

/// The case that this process was started for, with its arguments; none in the bench's first process.
pub fn case() -> Option<Vec<String>> {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == CASE)?;
    Some(args[at + 1..].to_vec())
}

/// Whether the user's filter includes a case: no filter, or one that the case's name contains (`cargo bench --bench
/// upserts -- 10M`).
pub fn wanted(name: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

/// Runs a case in a process of its own and returns its figures; panics with the case's name if it fails.
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

/// Reports the figures to the parent. Names must not contain blanks.
pub fn tell(measured: &Measured) {
    let pairs: Vec<String> = measured.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("{FIGURES} {}", pairs.join(" "));
}

/// The most resident memory that this process has had, in bytes.
pub fn peak_rss() -> u64 {
    peak_rss_of("self")
}

/// The most resident memory that a process has had, in bytes; `process` is a process id or `self`.
pub fn peak_rss_of(process: &str) -> u64 {
    proc_kib(&format!("/proc/{process}/status"), "VmHWM:")
}

/// The present resident memory of this process, in bytes.
pub fn rss() -> u64 {
    proc_kib("/proc/self/status", "VmRSS:")
}

/// Resets the peak, so that [`peak_rss`] only covers what follows. Returns whether the kernel did so.
pub fn reset_peak_rss() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A process's user and system time, in seconds; `process` is a process id or `self`.
pub fn cpu_seconds(process: &str) -> f64 {
    /// Clock ticks a second: `USER_HZ`, the same on every Linux.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is the program's name in brackets, which may contain anything.
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

/// The bytes that this process has passed to write calls, and those that it has read.
pub fn written_and_read() -> (u64, u64) {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    (field("wchar:"), field("rchar:"))
}

/// The total size of all files below a folder.
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

/// The `quantile` (0 to 1) of the times, by nearest rank.
pub fn quantile(times: &[Duration], quantile: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

/// Bytes for people: `12.3 MiB`.
pub fn bytes(n: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let unit = (n.abs().max(1.0).log2() / 10.0).min(3.0) as usize;
    format!("{:.1} {}", n / f64::powi(1024.0, unit as i32), units[unit])
}

/// Seconds for people: `12.3 ms`.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// The ratio for people: `1.08x`.
pub fn ratio(a: f64, b: f64) -> String {
    format!("{:.2}x", a / b)
}

/// A table of texts that prints with aligned columns.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts a table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Table {
            rows: vec![headings.iter().map(|h| h.to_string()).collect()],
        }
    }

    /// Adds a row, with as many cells as there are headings.
    pub fn row(&mut self, cells: &[String]) {
        assert_eq!(cells.len(), self.rows[0].len(), "a cell for each heading");
        self.rows.push(cells.to_vec());
    }

    /// Prints the table.
    pub fn print(&self) {
        let columns = 0..self.rows[0].len();
        let width = |c: usize| self.rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = columns.map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            // The first column has names; the others have figures, which are aligned to the right.
            let cells = cells.map(|(c, (cell, w))| match c {
                0 => format!("{cell:w$}"),
                _ => format!("{cell:>w$}"),
            });
            println!("{}", cells.collect::<Vec<_>>().join("  "));
        }
    }
}
