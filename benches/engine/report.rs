//! Prints the table of results, with the machine and the commit.

use std::process::Command;

use crate::Options;
use crate::drive::Measured;
use crate::workload::Case;

/// Prints the machine, the time, and the table's head.
pub fn head(options: &Options) {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or("unknown".to_string(), |(_, value)| value.trim().to_string())
    };
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    println!(
        "machine: {}, {cores} cores, memory {}",
        field(&file("/proc/cpuinfo"), "model name"),
        field(&file("/proc/meminfo"), "MemTotal"),
    );
    let date = chrono::Utc::now().format("%Y-%m-%d %H:%M UTC");
    println!("date: {date}; commit: {}", commit());
    println!(
        "{} events, then {} epochs of {} updates; one worker; best of {} runs, sides taking turns\n",
        options.records, options.rounds, options.epoch_updates, options.runs
    );
    println!("Of each pair the first is the product (SQL on rows), the second plain differential on typed tuples.");
    println!("Ratios are product to typed: of rates more is better, of the rest less.\n");
    println!(
        "| case | keys | load, updates/s of processor time | ratio | by the wall | live bytes/record | ratio \
         | peak RSS, MiB | ratio | epoch p50, us | ratio | epoch p99, us | ratio | allocations/record |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
}

/// Prints one line: both sides' figures, and the product's as a ratio to the typed side's.
pub fn row(case: Case, keys: u64, product: &Measured, typed: &Measured) {
    let pair = |figure: fn(&Measured) -> f64, digits: usize| {
        let (ours, theirs) = (figure(product), figure(typed));
        format!("{ours:.digits$} / {theirs:.digits$} | {:.2}", ours / theirs)
    };
    println!(
        "| {} | {keys} | {} | {:.2} | {} | {} | {} | {} | {:.2} / {:.2} |",
        case.name(),
        pair(|m| m.load_per_second, 0),
        product.load_per_second_wall / typed.load_per_second_wall,
        pair(|m| m.bytes_per_record, 1),
        pair(|m| m.peak_rss as f64 / f64::from(1 << 20), 0),
        pair(|m| m.epoch_p50, 0),
        pair(|m| m.epoch_p99, 0),
        product.allocations_per_record,
        typed.allocations_per_record,
    );
}

/// The checkout's commit, with a mark if files differ from it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .output()
            .ok()
            .filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let changed = git(&["status", "--porcelain"]).is_some_and(|text| !text.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or("unknown".to_string());
    format!("{commit}{}", if changed { " and changes" } else { "" })
}
