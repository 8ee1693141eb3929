//! `dead-letters`: what could not be used, and why; and another try of it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::ask::{Asking, ask, report};
use super::backfill::{find_input, parse_rate};
use super::output::{self, counted};
use super::{OutputFormat, SourceAndLake, find_table};
use crate::backfill::{Request, Work};
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::serve::{OutputFormat as ServeFormat, Reader, render};
use crate::shown::shown_bytes;

/// The column of the bytes that could not be used.
const PAYLOAD: &str = "payload";
/// Bytes of a payload that a table for people shows.
const MOST_SHOWN: usize = 400;

/// Print the records and rows that could not be used, with place and reason; or try them again
///
/// A table shows the beginning of a long payload, and bytes that are not UTF-8 as escapes (M\xfcller). The formats csv and json
/// have payloads whole: as text in the column payload where they are UTF-8, in base64 in the column payload_base64 otherwise.
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
    if args.replay {
        return replay(args.source.load()?, &args);
    }
    let dataflow = args.source.load_to_ask()?;
    dead_letters(&dataflow, args.limit, args.snapshot, args.format)
}

/// Prints at most `limit` dead letters, newest first, and how many there are.
fn dead_letters(dataflow: &Dataflow, limit: usize, snapshot: Option<Epoch>, format: OutputFormat) -> Result<ExitCode> {
    let reader = Reader::open(dataflow, snapshot)?;
    let (schema, rows) = reader.query(&format!(
        "SELECT kind, COALESCE(table_name, input) AS source, feed, \"partition\", \"offset\", reason, \
         arrow_cast(payload, 'Binary') AS payload, epoch \
         FROM dead_letters ORDER BY epoch DESC NULLS LAST, source, \"partition\", \"offset\" LIMIT {limit}"
    ))?;
    let (schema, rows) = readable(&schema, &rows, format)?;
    output::print_rows(&render(&schema, &rows, format.into())?, format)?;
    let count = reader.print("SELECT COUNT(*) AS n FROM dead_letters", ServeFormat::Csv)?;
    let count = count.lines().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    eprintln!("{} in all", counted(count, "dead letter"));
    Ok(ExitCode::SUCCESS)
}

/// Payloads as text: for people as far as a line is read, with escapes for what is no text; for programs whole, and those that
/// are no UTF-8 in a column of their own, in base64.
fn readable(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    format: OutputFormat,
) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let at = schema.index_of(PAYLOAD)?;
    let is_table = format == OutputFormat::Table;
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[at] = Field::new(PAYLOAD, DataType::Utf8, true);
    if !is_table {
        fields.insert(at + 1, Field::new("payload_base64", DataType::Utf8, true));
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = |batch: &RecordBatch| {
        let mut columns = batch.columns().to_vec();
        let payloads = batch.column(at).as_binary::<i32>().clone();
        if is_table {
            let texts = payloads.iter().map(|payload| payload.map(beginning));
            columns[at] = Arc::new(StringArray::from_iter(texts));
        } else {
            let texts = payloads.iter().map(|payload| str::from_utf8(payload?).ok());
            columns[at] = Arc::new(StringArray::from_iter(texts));
            let others = payloads
                .iter()
                .map(|payload| payload.filter(|bytes| str::from_utf8(bytes).is_err()));
            let others = others.map(|payload| payload.map(|bytes| STANDARD.encode(bytes)));
            columns.insert(at + 1, Arc::new(StringArray::from_iter(others)));
        }
        RecordBatch::try_new(schema.clone(), columns)
    };
    let batches = batches.iter().map(batch).collect::<Result<_, _>>()?;
    Ok((schema, batches))
}

/// As much of a payload as fits into a table for people.
fn beginning(payload: &[u8]) -> String {
    if payload.len() <= MOST_SHOWN {
        return shown_bytes(payload).to_string();
    }
    // Not in the middle of a character.
    let end = (MOST_SHOWN - 3..=MOST_SHOWN)
        .rev()
        .find(|end| payload[*end] & 0xC0 != 0x80);
    let begins = &payload[..end.unwrap_or(MOST_SHOWN)];
    format!("{}... ({} bytes)", shown_bytes(begins), payload.len())
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
            "{}: {} tried again, {left} there now",
            request.input,
            counted(outcome.letters, "dead letter")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_payload_is_shown_by_its_beginning_and_ends_between_characters() {
        assert_eq!(beginning(b"M\xfcller\x1b"), "M\\xfcller\\u{1b}");
        let long = "\u{e4}".repeat(MOST_SHOWN);
        let text = beginning(long.as_bytes());
        assert!(
            text.starts_with('\u{e4}') && text.ends_with("\u{e4}... (800 bytes)"),
            "{text}"
        );
        assert!(!beginning(format!("x{long}").as_bytes()).contains("\\x"));
        assert!(beginning(&[0x80; 1000]).ends_with("\\x80... (1000 bytes)"));
    }
}
