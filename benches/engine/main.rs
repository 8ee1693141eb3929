//! Compares the engine with plain differential: the same GROUP BY, join and DISTINCT, once as SQL on the product's
//! rows and once as a program on typed tuples with `String` fields.
//!
//! ```sh
//! cargo bench --bench engine                                   # everything
//! cargo bench --bench engine -- --only join --keys 100000      # one case
//! ```
//!
//! The comparison is fair because:
//! 1. Both sides get the same changes in the same batches and epochs, already in their own types (building rows and
//!    strings is not timed), on one worker, with the product's allocator.
//! 2. The product runs what a user's SQL becomes: planned, lowered and built as in a run.
//! 3. Every measurement has its own process; the two sides take turns, and the best of several runs counts.
//! 4. A further run of each side hashes its result, and the two hashes must agree.

mod drive;
mod memory;
mod product;
mod report;
mod typed;
mod workload;

use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, ValueEnum};

use drive::{Measured, drive};
use workload::Case;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// The engine against plain differential on typed tuples.
#[derive(Parser, Clone, Debug)]
pub struct Options {
    /// Only the cases whose name begins so: aggregate, aggregate-minmax, join, distinct
    #[arg(long, default_value = "")]
    only: String,
    /// Numbers of distinct keys
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000")]
    keys: Vec<u64>,
    /// Events that are loaded
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Small epochs after the load
    #[arg(long, default_value_t = 400)]
    rounds: u64,
    /// Updates of a small epoch
    #[arg(long, default_value_t = 1_000)]
    epoch_updates: u64,
    /// Runs of each side
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Of a measuring process: which side it is
    #[arg(long, hide = true)]
    side: Option<Side>,
    /// Of a measuring process: whether it hashes its answer
    #[arg(long, hide = true)]
    check: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// In a measuring process: the number of distinct keys.
    fn keys(&self) -> u64 {
        *self
            .keys
            .first()
            .expect("a measuring process is given the number of keys")
    }
}

/// The engines that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    Product,
    Typed,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut cases = Case::ALL
        .into_iter()
        .filter(|case| case.name().starts_with(&options.only));
    if let Some(side) = options.side {
        let case = cases.find(|case| case.name() == options.only);
        let case = case.expect("a measuring process is given a case");
        let measured = match side {
            Side::Product => drive::<product::Product>(&options, case),
            Side::Typed => drive::<typed::Typed>(&options, case),
        };
        println!("{}", serde_json::to_string(&measured).expect("numbers can be written"));
        return ExitCode::SUCCESS;
    }
    report::head(&options);
    let mut agreed = true;
    for case in cases {
        for keys in &options.keys {
            match compare(&options, case, *keys) {
                Ok((product, typed)) => report::row(case, *keys, &product, &typed),
                Err(reason) => {
                    eprintln!("{} over {keys} keys: {reason}", case.name());
                    agreed = false;
                }
            }
        }
    }
    if agreed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare(options: &Options, case: Case, keys: u64) -> Result<(Measured, Measured), String> {
    let run = |side, check| measure(options, case, keys, side, check);
    let (product, typed) = (run(Side::Product, true)?, run(Side::Typed, true)?);
    if (product.rows, product.checksum) != (typed.rows, typed.checksum) {
        return Err(format!("the answers differ: {product:?} and {typed:?}"));
    }
    let (mut products, mut typeds) = (vec![], vec![]);
    for _ in 0..options.runs {
        products.push(run(Side::Product, false)?);
        typeds.push(run(Side::Typed, false)?);
    }
    Ok((best(&products), best(&typeds)))
}

/// Takes one measurement, in a process of its own.
fn measure(options: &Options, case: Case, keys: u64, side: Side, check: bool) -> Result<Measured, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    let side = if side == Side::Product { "product" } else { "typed" };
    command.args(["--side", side, "--only", case.name()]);
    for (flag, value) in [
        ("--keys", keys),
        ("--records", options.records),
        ("--rounds", options.rounds),
        ("--epoch-updates", options.epoch_updates),
    ] {
        command.args([flag, &value.to_string()]);
    }
    if check {
        command.arg("--check");
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("the {side} side ended with {}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the {side} side's figures: {error}"))
}

/// The best value of each figure: disturbances only make a run slower or larger.
fn best(runs: &[Measured]) -> Measured {
    let most = |figure: fn(&Measured) -> f64| runs.iter().map(figure).fold(f64::MIN, f64::max);
    let least = |figure: fn(&Measured) -> f64| runs.iter().map(figure).fold(f64::MAX, f64::min);
    Measured {
        load_per_second: most(|m| m.load_per_second),
        load_per_second_wall: most(|m| m.load_per_second_wall),
        bytes_per_record: least(|m| m.bytes_per_record),
        peak_rss: least(|m| m.peak_rss as f64) as u64,
        epoch_p50: least(|m| m.epoch_p50),
        epoch_p99: least(|m| m.epoch_p99),
        allocations_per_record: least(|m| m.allocations_per_record),
        rows: runs.first().map_or(0, |m| m.rows),
        checksum: 0,
    }
}
