//! The command `infer`: derives the TOML of an input from files.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::parse_duration;
use crate::infer::{SampleLimits, infer};

/// Look at files, and print the TOML of an input that reads them
///
/// The format is recognised by what the files contain, not by their names: CSV of any delimiter, encoding or header; JSON
/// by lines, as an array or over several lines; change envelopes; Parquet; Avro; each compressed or not. The newest and
/// the oldest files of a folder are looked at first, and the TOML says how much was looked at. The credentials of an
/// object store are taken from its environment variables (AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_NAME and the like).
/// Save the TOML as inputs/NAME.toml of a dataflow, correct what you know better, and run `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium infer drops/orders > shop/inputs/orders.toml
  alluvium infer 'archive/2024-*/*.csv.gz'
  alluvium infer s3://bucket/orders/")]
pub struct InferArgs {
    /// A file, a folder or a glob, on this machine or at the URL of an object store
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Stop looking at files after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "20s")]
    time: Duration,
}

/// How many files that do not fit are reported.
const MISFITS: usize = 20;

/// Runs the command.
///
/// # Errors
/// No file exists, or none can be read.
pub fn run(args: InferArgs) -> Result<ExitCode> {
    let limits = SampleLimits {
        time: args.time,
        ..SampleLimits::default()
    };
    let inferred = infer(&args.path, &limits)?;
    for misfit in inferred.misfits.iter().take(MISFITS) {
        eprintln!("warning: not read by what follows: {misfit}");
    }
    if let Some(more @ 1..) = inferred.misfits.len().checked_sub(MISFITS) {
        eprintln!("warning: not read by what follows: {more} more files");
    }
    io::stdout().lock().write_all(inferred.toml.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
