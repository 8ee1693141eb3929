//! The `alluvium` command: arguments to meaning, and errors to exit codes.
//!
//! Each command has a file of its own: its arguments, and what it does with them. Here is what they share:
//! how a definition is loaded, how an error is printed (the chain of causes, nothing else), and the exit
//! codes: 0 done, 1 the run failed or differs, 2 the command or the definition is wrong.

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

use crate::deep::deep;
use crate::definition::{
    DATAFLOW_FILE, Dataflow, Diagnostics, feeds_on_lake, lake_location, load, nearest, parse_bytes, survey,
};
use crate::run::RunError;
use crate::shown::shown_lines;

/// The run failed, or `verify` or `test` found a difference.
const FAILED: u8 = 1;
/// The command or the definition is wrong.
const WRONG: u8 = 2;

/// Keeps Silver and Gold Delta tables up to date from change streams and file drops.
///
/// A dataflow is a folder of TOML and SQL files; every command takes it as its first argument.
#[derive(Debug, Parser)]
#[command(
    name = "alluvium",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  alluvium init shop                                  a small dataflow to start from
  alluvium check shop                                 every mistake in it
  alluvium plan shop                                  what a run would do first
  alluvium run shop --until-caught-up                 bring its tables up to date
  alluvium query shop \"SELECT * FROM gold.sales_by_day\"

Exit codes: 0 done, 1 the run failed or differs, 2 the command or the definition is wrong.
ALLUVIUM_LOG sets what is logged to stderr (error, warn, info, debug, trace, or as in alluvium::sink=debug)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Explain(explain::Explain),
    Plan(plan::Plan),
    Run(run::Run),
    Query(query::Query),
    Verify(verify::Verify),
    Rebuild(rebuild::Rebuild),
    Backfill(backfill::Backfill),
    Test(test::Test),
    DeadLetters(dead_letters::DeadLetters),
    Generate(generate::Generate),
    Produce(produce::Produce),
    Init(init::Init),
    Infer(infer::Infer),
}

/// The dataflow a command works on.
#[derive(Debug, Args)]
struct Source {
    /// The dataflow's folder: where its dataflow.toml is
    #[arg(value_name = "DATAFLOW")]
    folder: PathBuf,
}

/// The dataflow a command works on, and where its tables are.
#[derive(Debug, Args)]
struct SourceAndLake {
    /// The dataflow's folder: where its dataflow.toml is
    #[arg(value_name = "DATAFLOW")]
    folder: PathBuf,
    /// Keep the tables here instead of the `lake` of dataflow.toml: a folder, or s3://, abfss://, gs://
    #[arg(long, value_name = "URL")]
    lake: Option<String>,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns
    #[default]
    Table,
    /// Comma-separated text with a header line
    Csv,
    /// An array of JSON objects
    Json,
}

impl From<OutputFormat> for crate::serve::OutputFormat {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Table => crate::serve::OutputFormat::Table,
            OutputFormat::Csv => crate::serve::OutputFormat::Csv,
            OutputFormat::Json => crate::serve::OutputFormat::Json,
        }
    }
}

/// The command is wrong in a way that clap cannot see.
#[derive(Debug, Error)]
#[error("{message}\n  help: {help}")]
pub struct UsageError {
    /// What is wrong, lower case.
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
            // A closed pipe leaves nobody to tell.
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

/// Lets the process open as many files as its hard limit allows. The soft limit is 1,024 on most systems, for the sake of
/// programs that call `select`; feeds, tables and clients can need more.
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
    /// The dataflow, with its lake replaced where the command says so (relative to the current folder).
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

    /// The same for a command that only asks the lake: where that is, `dataflow.toml` says. Mistakes in other files do not
    /// matter, nor do variables of theirs that are not set here: who asks need not know the passwords of feeds.
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
            // Without a dataflow, whatever is wrong is the reason.
            None if survey.found.0.is_empty() => self.load(),
            _ => Err(survey.found.into()),
        }
    }

    /// Puts the lake where the command says, if it does.
    fn move_lake(&self, dataflow: &mut Dataflow) -> Result<bool> {
        let Some(lake) = &self.lake else { return Ok(false) };
        dataflow.lake = lake_location(lake, &std::env::current_dir()?)
            .map_err(|error| UsageError::new(format!("bad --lake: {error}"), error.help()))?;
        Ok(true)
    }
}

/// Where a lake lies that must be there: relative to the current folder, as an option of the command names it.
fn existing_lake(option: &str, text: &str) -> Result<String> {
    let lake = lake_location(text, &std::env::current_dir()?)
        .map_err(|error| UsageError::new(format!("bad {option}: {error}"), error.help()))?;
    if !lake.contains("://") && !Path::new(&lake).is_dir() {
        let help = "name a folder that a run has written, or a URL";
        return Err(UsageError::new(format!("bad {option}: there is no folder {lake}"), help).into());
    }
    Ok(lake)
}

/// Position in `Dataflow::tables` of a table named as in SQL.
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

/// `60s`, `10ms`, `2h 30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > Duration::ZERO => Ok(duration),
        Ok(_) => Err("a duration must be longer than nothing".to_string()),
        Err(error) => Err(format!("{error}; write a number and a unit, as in 60s")),
    }
}

/// `512 MiB`, `4 GiB`.
fn parse_memory(text: &str) -> Result<u64, String> {
    parse_bytes(text.trim()).ok_or_else(|| "write a number and a unit (MB, GB, MiB, GiB), as in \"4 GiB\"".to_string())
}

/// The only place where environment variables of a definition are read.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The chain of causes. Diagnostics stand for themselves, a count follows them.
fn describe(error: &anyhow::Error) -> String {
    if let Some(diagnostics) = error.downcast_ref::<Diagnostics>() {
        let count = diagnostics.0.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        return format!("{diagnostics}\n{count} {noun}");
    }
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    format!("error: {}", causes.join("\n  caused by: "))
}

fn code_of(error: &anyhow::Error) -> u8 {
    let of_run = matches!(error.downcast_ref::<RunError>(), Some(RunError::Definition(_)));
    let wrong = of_run || error.is::<Diagnostics>() || error.is::<UsageError>();
    if wrong { WRONG } else { FAILED }
}

/// `alluvium query ... | head`: whoever reads has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether a folder is there and holds anything.
fn holds_anything(folder: &Path) -> io::Result<bool> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
