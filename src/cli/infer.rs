//! `infer`: files to the TOML of an input.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::parse_duration;
use crate::infer::{SampleLimits, infer};

/// Look at files, and write the TOML of an input that reads them
///
/// What files are is told by what is in them: CSV of any delimiter, encoding or header, JSON by lines, as an array or over
/// several lines, change envelopes, Parquet, Avro, packed or not. What a store takes beside its URL is in the environment
/// (AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_NAME and their like). The newest and the oldest of a folder are looked at first, and the text says how much was.
/// Save it as inputs/NAME.toml of a dataflow, correct what you know better, and let `check` look at it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium infer drops/orders > shop/inputs/orders.toml
  alluvium infer 'archive/2024-*/*.csv.gz'
  alluvium infer s3://bucket/orders/")]
pub struct Infer {
    /// A file, a folder or a glob, or a URL of one in an object store
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Stop looking after so long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "20s")]
    time: Duration,
}

/// Files that are told of as not fitting.
const MISFITS: usize = 20;

/// Runs the command.
///
/// # Errors
/// No file is there, or none can be read.
pub fn run(args: Infer) -> Result<ExitCode> {
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
