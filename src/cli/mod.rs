//! The `alluvium` command: interprets arguments, and maps errors to exit codes.
//!
//! Each command has a file with its arguments and its implementation. This file has what they share: loading a
//! definition, printing an error (the chain of causes, nothing else), and the exit codes: 0 success, 1 the run failed
//! or a difference was found, 2 the command or the definition is invalid.

mod ask;
mod backfill;
mod check;
mod cluster;
mod dead_letters;
mod explain;
mod generate;
mod infer;
mod init;
mod logging;
mod output;
mod plan;
mod produce;
mod query;
mod rebuild;
mod run;
mod test;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use thiserror::Error;

use crate::causes;
use crate::deep::deep;
use crate::definition::{
    DATAFLOW_FILE, Dataflow, Diagnostics, feeds_on_lake, lake_location, lake_of_dataflow, load, nearest, parse_bytes,
    survey,
};
use crate::run::RunError;
use crate::shown::shown_lines;

/// The run failed, or `verify` or `test` found a difference.
const FAILED: u8 = 1;
/// The command or the definition is invalid.
const WRONG: u8 = 2;

/// Keeps Silver and Gold Delta tables up to date from change streams and files.
///
/// A dataflow is a folder of TOML and SQL files. Every command takes this folder as its first argument, except `infer`,
/// which takes the files to look at.
#[derive(Debug, Parser)]
#[command(
    name = "alluvium",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  alluvium init shop                                  make a small dataflow to start from
  alluvium check shop                                 find every mistake in it
  alluvium plan shop                                  show what a run would do at its start
  alluvium run shop --until-caught-up                 bring its tables up to date
  alluvium query shop \"SELECT * FROM gold.sales_by_day\"

Exit codes: 0 success, 1 the run failed or a difference was found, 2 the command or the definition is invalid.
The environment variable ALLUVIUM_LOG sets what is logged to stderr: a level (error, warn, info, debug, trace),
or a level for one module, as in alluvium::sink=debug; without it the default is error,alluvium=info."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Plan(plan::PlanArgs),
    Run(run::RunArgs),
    Query(query::QueryArgs),
    Verify(verify::VerifyArgs),
    Rebuild(rebuild::RebuildArgs),
    Backfill(backfill::BackfillArgs),
    Test(test::TestArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Generate(generate::GenerateArgs),
    Produce(produce::ProduceArgs),
    Init(init::InitArgs),
    Infer(infer::InferArgs),
}

/// The dataflow a command works on.
#[derive(Debug, Args)]
struct Source {
    /// The dataflow's folder, which holds its dataflow.toml
    #[arg(value_name = "DATAFLOW")]
    folder: PathBuf,
}

/// The dataflow a command works on, and where its tables are.
#[derive(Debug, Args)]
struct SourceAndLake {
    /// The dataflow's folder, which holds its dataflow.toml
    #[arg(value_name = "DATAFLOW")]
    folder: PathBuf,
    /// Use the lake in this folder or at this URL (s3://, abfss://, gs://); without it the `lake` of dataflow.toml
    #[arg(long, value_name = "URL")]
    lake: Option<String>,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Aligned columns
    #[default]
    Table,
    /// Comma-separated text with a header line
    Csv,
    /// An array of JSON objects, one for each row
    Json,
}

impl From<FormatArg> for crate::serve::PrintFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Table => crate::serve::PrintFormat::Table,
            FormatArg::Csv => crate::serve::PrintFormat::Csv,
            FormatArg::Json => crate::serve::PrintFormat::Json,
        }
    }
}

/// The command is invalid in a way that clap cannot detect.
#[derive(Debug, Error)]
#[error("{message}\n  help: {help}")]
pub struct UsageError {
    /// What is wrong, in lower case.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl UsageError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        UsageError {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // If the pipe is closed, there is nobody to read the message.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(WRONG));
        }
    };
    let done = logging::start(environment("ALLUVIUM_LOG")).and_then(|()| {
        raise_descriptor_limit();
        deep(|| cli.command.run())
    });
    match done {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", shown_lines(&describe(&error)));
            ExitCode::from(code_of(&error))
        }
    }
}

/// Lets the process open as many files as its hard limit allows. The soft limit is 1,024 on most systems, for the
/// sake of programs that call `select`; feeds, tables and clients can need more.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
}

impl Command {
    fn run(self) -> Result<ExitCode> {
        match self {
            Command::Check(args) => check::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Plan(args) => plan::run(args),
            Command::Run(args) => run::run(args),
            Command::Query(args) => query::run(args),
            Command::Verify(args) => verify::run(args),
            Command::Rebuild(args) => rebuild::run(args),
            Command::Backfill(args) => backfill::run(args),
            Command::Test(args) => test::run(args),
            Command::DeadLetters(args) => dead_letters::run(args),
            Command::Generate(args) => generate::run(args),
            Command::Produce(args) => produce::run(args),
            Command::Init(args) => init::run(args),
            Command::Infer(args) => infer::run(args),
        }
    }
}

impl Source {
    fn load(&self) -> Result<Dataflow> {
        Ok(load(&self.folder, &environment)?)
    }
}

impl SourceAndLake {
    /// Loads the dataflow, with its lake replaced if the command says so (relative to the current folder).
    fn load(&self) -> Result<Dataflow> {
        let mut dataflow = load(&self.folder, &environment)?;
        if self.move_lake(&mut dataflow)? {
            let mistakes = feeds_on_lake(&dataflow);
            if !mistakes.is_empty() {
                return Err(Diagnostics(mistakes).into());
            }
        }
        Ok(dataflow)
    }

    /// Loads the dataflow for a command that only reads the lake, whose location is in `dataflow.toml`. Mistakes in
    /// other files are ignored, and so are environment variables that these need and that are not set here, such as
    /// passwords of feeds.
    fn load_to_ask(&self) -> Result<Dataflow> {
        let mut survey = survey(&self.folder, &environment);
        survey
            .found
            .0
            .retain(|mistake| mistake.file == Path::new(DATAFLOW_FILE));
        match survey.dataflow {
            Some(mut dataflow) if survey.found.0.is_empty() => {
                self.move_lake(&mut dataflow)?;
                Ok(dataflow)
            }
            // If there is no dataflow, all mistakes are reported as the reason.
            None if survey.found.0.is_empty() => self.load(),
            _ => Err(survey.found.into()),
        }
    }

    /// Replaces the lake if the command says so.
    fn move_lake(&self, dataflow: &mut Dataflow) -> Result<bool> {
        let Some(lake) = &self.lake else { return Ok(false) };
        dataflow.lake = lake_of_dataflow(lake, &std::env::current_dir()?, &dataflow.folder)
            .map_err(|error| UsageError::new(format!("bad --lake: {error}"), error.help()))?;
        Ok(true)
    }
}

/// The location of a lake that must exist, from an option of the command, relative to the current folder.
fn existing_lake(option: &str, text: &str) -> Result<String> {
    let lake = lake_location(text, &std::env::current_dir()?)
        .map_err(|error| UsageError::new(format!("bad {option}: {error}"), error.help()))?;
    if !lake.contains("://") && !Path::new(&lake).is_dir() {
        let help = "name a folder that a run has written, or a URL";
        return Err(UsageError::new(format!("bad {option}: there is no folder {lake}"), help).into());
    }
    Ok(lake)
}

/// The index in `Dataflow::tables` of a table that is named as in SQL.
fn find_table(dataflow: &Dataflow, name: &str) -> Result<usize> {
    let names: Vec<String> = dataflow.tables.iter().map(|table| table.qualified_name()).collect();
    if let Some(found) = names.iter().position(|known| known == name) {
        return Ok(found);
    }
    let known = names.join(", ");
    Err(UsageError::new(
        format!("unknown table {name}"),
        match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}? tables are {known}"),
            None => format!("tables are {known}"),
        },
    )
    .into())
}

/// Parses a duration, such as `60s`, `10ms` or `2h 30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > Duration::ZERO => Ok(duration),
        Ok(_) => Err("a duration must be longer than nothing".to_string()),
        Err(error) => Err(format!("{error}; write a number and a unit, as in 60s")),
    }
}

/// Parses a number of bytes, such as `512 MiB` or `4 GiB`.
fn parse_memory(text: &str) -> Result<u64, String> {
    parse_bytes(text.trim()).ok_or_else(|| "write a number and a unit (MB, GB, MiB, GiB), as in \"4 GiB\"".to_string())
}

/// The only place where environment variables of a definition are read.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The chain of causes of an error. Diagnostics are printed as they are, followed by their number.
fn describe(error: &anyhow::Error) -> String {
    if let Some(diagnostics) = error.downcast_ref::<Diagnostics>() {
        let count = diagnostics.0.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        return format!("{diagnostics}\n{count} {noun}");
    }
    format!("error: {}", causes::list(&**error).join("\n  caused by: "))
}

fn code_of(error: &anyhow::Error) -> u8 {
    let of_run = matches!(error.downcast_ref::<RunError>(), Some(RunError::Definition(_)));
    let wrong = of_run || error.is::<Diagnostics>() || error.is::<UsageError>();
    if wrong { WRONG } else { FAILED }
}

/// Whether the reader of the output has closed the pipe, as in `alluvium query ... | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether a folder exists and is not empty.
fn holds_anything(folder: &Path) -> io::Result<bool> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
