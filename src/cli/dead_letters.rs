//! `dead-letters`: what could not be used, and why; and another try of it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use super::ask::{Asking, ask, report};
use super::backfill::{find_input, parse_rate};
use super::{OutputFormat, SourceAndLake, find_table};
use crate::backfill::{Request, Work};
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::serve::{OutputFormat as ServeFormat, Reader};

/// Print the records and rows that could not be used, with place and reason; or try them again
///
/// With --replay, records and files that are dead letters go through their input once more, after the definition or the
/// file was repaired. Those that pass leave the dead letters, and are in the tables as if they had passed when they
/// arrived; the others stay, once. A file is read again from behind what was taken of it. A run that is on the lake serves
/// the request beside its feeds (start it again first, if the definition has changed); without one, the graph is run here
/// until that is committed. Rows that a table's SQL, key or expectation refuses need no replay: their letters go when the row
/// or the table is repaired.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium dead-letters dataflows/retail
  alluvium dead-letters dataflows/retail --limit 1000 --format json
  alluvium dead-letters dataflows/retail --replay
  alluvium dead-letters dataflows/retail --replay --input order_lines")]
pub struct DeadLetters {
    #[command(flatten)]
    source: SourceAndLake,
    /// Print at most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Read the snapshot of this epoch, in Unix milliseconds; without it the newest
    #[arg(long, value_name = "EPOCH")]
    snapshot: Option<Epoch>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
    /// Try records and files again
    #[arg(long, conflicts_with = "snapshot")]
    replay: bool,
    /// Try only those of this input
    #[arg(long, value_name = "INPUT", requires = "replay")]
    input: Option<String>,
    /// Try only those of the inputs that this table is made of
    #[arg(long, value_name = "TABLE", requires = "replay", conflicts_with = "input")]
    table: Option<String>,
    /// Records a second, at most, as of a backfill
    #[arg(long, value_name = "ROWS", requires = "replay", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Do not wait: the run on the lake, or the next one, does it
    #[arg(long, requires = "replay")]
    detach: bool,
    /// How many worker threads compute, where no run is on the lake
    #[arg(short, long, value_name = "N", requires = "replay", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; a lake that cannot be read.
pub fn run(args: DeadLetters) -> Result<ExitCode> {
    let dataflow = args.source.load()?;
    if args.replay {
        return replay(dataflow, &args);
    }
    dead_letters(&dataflow, args.limit, args.snapshot, args.format)
}

/// Prints at most `limit` dead letters, newest first, and how many there are. Bytes that are no text are told in hexadecimal.
fn dead_letters(dataflow: &Dataflow, limit: usize, snapshot: Option<Epoch>, format: OutputFormat) -> Result<ExitCode> {
    let reader = Reader::open(dataflow, snapshot)?;
    let rows = reader.print(
        &format!(
            "SELECT kind, COALESCE(table_name, input) AS source, feed, \"partition\", \"offset\", reason, \
             COALESCE(TRY_CAST(payload AS VARCHAR), '\\x' || encode(payload, 'hex')) AS payload, epoch \
             FROM dead_letters ORDER BY epoch DESC NULLS LAST, source, \"partition\", \"offset\" LIMIT {limit}"
        ),
        format.into(),
    )?;
    io::stdout().lock().write_all(rows.as_bytes())?;
    let count = reader.print("SELECT COUNT(*) AS n FROM dead_letters", ServeFormat::Csv)?;
    eprintln!("{} dead letters in all", count.lines().nth(1).unwrap_or("0"));
    Ok(ExitCode::SUCCESS)
}

/// Asks for another try of the letters of inputs that have some.
fn replay(dataflow: Dataflow, args: &DeadLetters) -> Result<ExitCode> {
    let chosen: Option<BTreeSet<String>> = match (&args.input, &args.table) {
        (Some(input), _) => Some([find_input(&dataflow, input)?.name.clone()].into()),
        (None, Some(table)) => {
            find_table(&dataflow, table)?;
            Some(inputs_of(&dataflow, table)?)
        }
        (None, None) => None,
    };
    let mut requests = Vec::new();
    for (input, _) in letters(&dataflow)?
        .iter()
        .filter(|(input, _)| chosen.as_ref().is_none_or(|chosen| chosen.contains(input)))
    {
        match dataflow.inputs.iter().find(|known| known.name == *input) {
            Some(input) if input.bronze => requests.push(Request::new(&input.name, Work::Letters, args.rate)),
            Some(_) => eprintln!("{input}: keeps no Bronze, which its records could be taken from; drop them anew"),
            None => eprintln!("{input}: not in the definition any more"),
        }
    }
    if requests.is_empty() {
        println!("no record or file to try again");
        return Ok(ExitCode::SUCCESS);
    }
    let asking = Asking {
        detach: args.detach,
        workers: usize::from(args.workers),
    };
    let outcomes = ask(dataflow.clone(), &requests, &asking)?;
    if asking.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let code = report(&outcomes)?;
    let after = letters(&dataflow)?;
    for (request, outcome) in requests.iter().zip(&outcomes) {
        let left = after
            .iter()
            .find(|(input, _)| *input == request.input)
            .map_or(0, |(_, left)| *left);
        println!(
            "{}: {} dead letters tried again, {left} there now",
            request.input, outcome.letters
        );
    }
    Ok(code)
}

/// By input, how many of its records and files are dead letters.
fn letters(dataflow: &Dataflow) -> Result<Vec<(String, u64)>> {
    let sql = "SELECT input, COUNT(*) FROM dead_letters WHERE kind IN ('record', 'file') GROUP BY input ORDER BY input";
    let counted = Reader::open(dataflow, None)?.print(sql, ServeFormat::Csv)?;
    let line = |line: &str| {
        let (input, count) = line.rsplit_once(',')?;
        Some((input.to_string(), count.parse().ok()?))
    };
    Ok(counted.lines().skip(1).filter_map(line).collect())
}

/// The inputs that a table is made of, through other tables too.
fn inputs_of(dataflow: &Dataflow, table: &str) -> Result<BTreeSet<String>> {
    let graph = crate::plan::compile(dataflow)?;
    let table = find_table(dataflow, table)?;
    let planned = graph.tables.iter().find(|planned| planned.table == table);
    let planned = planned.expect("every table of a graph that compiles is planned");
    let inputs = graph.inputs_of(planned.node).into_iter();
    Ok(inputs.map(|input| dataflow.inputs[input].name.clone()).collect())
}
