//! Puts a command's requests into the lake. The run on the lake serves them, or else a run that the command itself
//! starts.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::FAILED;
use super::output::{self, counted, new_letters};
use crate::backfill::{BackfillOutcome, BackfillStatus, FileCounts, FileState, Request, RequestBoard};
use crate::definition::Dataflow;
use crate::lake::Lake;
use crate::run::{self, Options};
use crate::serve::DeadLetterCounts;
use crate::shown::shown;

/// How often to check whether a request is done.
const LOOK: Duration = Duration::from_millis(100);
/// If the lake has no locks, a run on it takes up a request within this time: twice its interval between two looks.
const ANSWER: Duration = Duration::from_secs(6);
/// The interval between lines of progress.
const TELL: Duration = Duration::from_secs(10);

/// Options for putting requests.
pub struct RequestOptions {
    /// Whether to return as soon as the requests are put.
    pub detach: bool,
    /// The number of workers, if the command starts a run.
    pub workers: usize,
}

/// Puts requests and waits until they are done. If no run is on the lake, runs the graph itself until then.
pub fn ask(dataflow: Dataflow, requests: &[Request], asking: &RequestOptions) -> Result<Vec<BackfillOutcome>> {
    let runtime = run::runtime()?;
    let lake = Lake::make(&dataflow.lake, &dataflow.store_options)?.with_durability(dataflow.durable);
    let board = RequestBoard::new(lake.clone());
    for request in requests {
        let put = runtime.block_on(board.put(request));
        put.with_context(|| format!("could not put a request into {}", dataflow.lake))?;
    }
    let running = match run::is_running(&lake) {
        Some(running) => running,
        None => answered(&runtime, &board, requests)?,
    };
    if asking.detach {
        eprintln!(
            "{}",
            if running {
                "the run on the lake serves it"
            } else {
                "the next run on the lake serves it"
            }
        );
        return Ok(vec![]);
    }
    if running {
        return wait(&runtime, &board, &lake, requests);
    }
    eprintln!("no run is on the lake: running the graph until this is done; feeds are not read");
    let options = Options {
        workers: asking.workers,
        until_caught_up: true,
        without_feeds: true,
        signals: true,
        live: true,
        ..Options::default()
    };
    run::run(Arc::new(dataflow), &options)?;
    let outcomes = requests.iter().map(|request| {
        let outcome = runtime.block_on(board.outcome(&request.id))?;
        outcome.context("the run was stopped before this was done; the next one goes on with it")
    });
    outcomes.collect()
}

/// Whether a run takes up the first request, on a lake without locks.
fn answered(runtime: &Runtime, board: &RequestBoard, requests: &[Request]) -> Result<bool> {
    let Some(first) = requests.first() else {
        return Ok(false);
    };
    let asked = Instant::now();
    while asked.elapsed() < ANSWER {
        let answer = runtime.block_on(async {
            Ok::<bool, object_store::Error>(
                board.status(&first.id).await?.is_some() || board.outcome(&first.id).await?.is_some(),
            )
        });
        if answer? {
            return Ok(true);
        }
        std::thread::sleep(4 * LOOK);
    }
    Ok(false)
}

/// Waits for the run on the lake to serve the requests.
fn wait(runtime: &Runtime, board: &RequestBoard, lake: &Lake, requests: &[Request]) -> Result<Vec<BackfillOutcome>> {
    let mut last_said = Instant::now();
    let mut outcomes = Vec::new();
    for request in requests {
        loop {
            // The order matters: a run that ends between these two checks has already written its outcome.
            let has_ended = run::is_running(lake) == Some(false);
            if let Some(outcome) = runtime.block_on(board.outcome(&request.id))? {
                outcomes.push(outcome);
                break;
            }
            if has_ended {
                let help = "the next one goes on with it; ask again to run the graph here until it is done";
                return Err(anyhow::anyhow!(
                    "the run on the lake ended before this was done\n  help: {help}"
                ));
            }
            if last_said.elapsed() >= TELL {
                last_said = Instant::now();
                // Here, too, the order matters: a request is deleted only once its outcome exists.
                let is_posted = runtime.block_on(board.is_posted(&request.id))?;
                if !is_posted && runtime.block_on(board.outcome(&request.id))?.is_none() {
                    return Err(anyhow::anyhow!(
                        "the request {} is gone from the lake, and has no outcome\n  help: see what the run says of it, and ask again",
                        request.id
                    ));
                }
                let status = runtime.block_on(board.status(&request.id)).unwrap_or_default(); // the outcome counts
                eprintln!("{}", progress(status.as_ref()));
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(outcomes)
}

fn progress(status: Option<&BackfillStatus>) -> String {
    match status {
        None => "waiting for its turn".to_string(),
        Some(status) => {
            let (done, files) = status.files;
            let of_files = if files > 0 {
                format!(", {done} of {files} files done")
            } else {
                String::new()
            };
            let ending = if status.committing { "; committing" } else { "" };
            format!("{} records fed{of_files}{ending}", status.records)
        }
    }
}

/// Prints the outcomes of requests; the exit code is 1 if something failed.
pub fn report(outcomes: &[BackfillOutcome]) -> Result<ExitCode> {
    let mut out = output::out();
    let mut failed = false;
    for outcome in outcomes {
        for file in &outcome.files {
            let path = shown(&file.path);
            match &file.state {
                FileState::Read => writeln!(out, "{path}: {}", counted(file.records, "record"))?,
                FileState::Known => writeln!(out, "{path}: known, nothing was read")?,
                FileState::Feeds(feed) => writeln!(out, "{path}: left to feed {feed}, which reads it by itself")?,
                FileState::Failed(reason) => writeln!(out, "{path}: failed: {}", shown(reason))?,
            }
            if !file.null_columns.is_empty() {
                let columns = shown(&file.null_columns.join(", ")).to_string();
                writeln!(
                    out,
                    "{path}: warning: in all of its records these columns are null: {columns}; look whether it is read by the right \
                     format and names"
                )?;
            }
            failed |= matches!(file.state, FileState::Failed(_));
        }
        let FileCounts {
            read,
            known,
            feeds,
            failed: refused,
        } = outcome.unlisted;
        if read + known + feeds + refused > 0 {
            writeln!(
                out,
                "more files that are not listed: {read} read, {known} known, {feeds} left to feeds, {refused} failed"
            )?;
        }
        failed |= refused > 0;
        writeln!(
            out,
            "fed {}; {}; {}",
            counted(outcome.records, "record"),
            new_letters(DeadLetterCounts {
                records: outcome.rejected,
                files: outcome.rejected_files,
                rows: 0,
            }),
            match outcome.snapshot {
                0 => "nothing changed".to_string(),
                epoch => format!("committed by snapshot {epoch}"),
            }
        )?;
        if let Some(error) = &outcome.error {
            writeln!(out, "failed: {}", shown(error))?;
            failed = true;
        }
    }
    Ok(if failed {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}
