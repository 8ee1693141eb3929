//! The command `dead-letters`: shows what could not be used and why, and tries it again.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::ask::{RequestOptions, ask, report};
use super::backfill::{find_input, parse_rate};
use super::output::{self, counted};
use super::{FormatArg, SourceAndLake, find_table};
use crate::backfill::{Request, Work};
use crate::definition::Dataflow;
use crate::repr::Epoch;
use crate::serve::{LakeReader, PrintFormat, render};
use crate::shown::shown_bytes;

/// The columns of bytes: the key, without which a tombstone cannot be identified, and the unusable payload.
const BYTES: [&str; 2] = ["key", "payload"];
/// How many bytes of a key or payload a table for people shows.
const MOST_SHOWN: usize = 400;

/// Print the dead letters (input that could not be used), or try them again
///
/// Each dead letter is printed with its place and the reason, newest first. The format table shows only the beginning of
/// a long key or payload, and writes bytes that are not UTF-8 as escapes (M\xfcller). The formats csv and json have keys
/// and payloads in full: in the columns key and payload if they are UTF-8, else in base64 in the columns key_base64 and
/// payload_base64.
///
/// With --replay, records and files that are dead letters go through their input again; do this after the definition or
/// the file was repaired. Those that can be used now leave the dead letters, and the tables hold them as if they had been
/// used when they arrived. The others stay dead letters. A file is read from the place where reading stopped. If a run is
/// using the lake, it does this while it reads its feeds (if the definition has changed, start it again first); if there
/// is no such run, this command computes until all is committed. Rows that a table's SQL, key or expectation refuses need
/// no replay: their dead letters go when the row or the table is repaired.
///
/// The dead letter of a record goes only when the bytes of that record can be used: by --replay, by backfill with
/// --from-bronze, or when a run computes the input again from Bronze because its columns are read in another way. A
/// corrected row that arrives in another record or file makes the tables right, but the dead letter stays, and tells what
/// was refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  alluvium dead-letters dataflows/retail
  alluvium dead-letters dataflows/retail --limit 1000 --format json
  alluvium dead-letters dataflows/retail --replay
  alluvium dead-letters dataflows/retail --replay --input order_lines")]
pub struct DeadLettersArgs {
    #[command(flatten)]
    source: SourceAndLake,
    /// Print at most this many dead letters
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Read the snapshot of this epoch (Unix time in milliseconds); without it the newest snapshot
    #[arg(long, value_name = "EPOCH")]
    snapshot: Option<Epoch>,
    /// Print the rows in this format
    #[arg(long, value_enum, default_value_t)]
    format: FormatArg,
    /// Try the records and files again that are dead letters
    #[arg(long, conflicts_with = "snapshot")]
    replay: bool,
    /// Try only the dead letters of this input
    #[arg(long, value_name = "INPUT", requires = "replay")]
    input: Option<String>,
    /// Try only the dead letters of the inputs that this table is computed from
    #[arg(long, value_name = "TABLE", requires = "replay", conflicts_with = "input")]
    table: Option<String>,
    /// The most records per second; without it as fast as possible, but at most backfill_rate of dataflow.toml (10000)
    /// while records of feeds arrive
    #[arg(long, value_name = "ROWS", requires = "replay", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Return at once, and leave the replay to the run that is using the lake, or to the next run
    #[arg(long, requires = "replay")]
    detach: bool,
    /// How many workers compute, each a thread, if no run is using the lake
    #[arg(short, long, value_name = "N", requires = "replay", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

/// Runs the command.
///
/// # Errors
/// A definition that does not load; a lake that cannot be read.
pub fn run(args: DeadLettersArgs) -> Result<ExitCode> {
    if args.replay {
        return replay(args.source.load()?, &args);
    }
    let dataflow = args.source.load_to_ask()?;
    dead_letters(&dataflow, args.limit, args.snapshot, args.format)
}

/// Prints at most `limit` dead letters, newest first, and how many there are.
fn dead_letters(dataflow: &Dataflow, limit: usize, snapshot: Option<Epoch>, format: FormatArg) -> Result<ExitCode> {
    let reader = LakeReader::open(dataflow, snapshot)?;
    let (columns, _) = reader.query("SELECT * FROM dead_letters LIMIT 0")?;
    // Tables that earlier versions wrote lack this column.
    let key = match columns.column_with_name("key") {
        Some(_) => "\"key\"",
        None => "NULL",
    };
    let (schema, rows) = reader.query(&format!(
        "SELECT kind, COALESCE(table_name, input) AS source, feed, \"partition\", \"offset\", reason, \
         arrow_cast({key}, 'Binary') AS key, arrow_cast(payload, 'Binary') AS payload, epoch \
         FROM dead_letters ORDER BY epoch DESC NULLS LAST, source, \"partition\", \"offset\" LIMIT {limit}"
    ))?;
    let (schema, rows) = readable(&schema, &rows, format)?;
    output::print_rows(&render(&schema, &rows, format.into())?, format)?;
    let count = reader.print("SELECT COUNT(*) AS n FROM dead_letters", PrintFormat::Csv)?;
    let count = count.lines().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    eprintln!("{} in all", counted(count, "dead letter"));
    Ok(ExitCode::SUCCESS)
}

/// Converts keys and payloads to text. For people, they are cut and have escapes for bytes that are not UTF-8, and
/// there is no column of keys if no letter has one. For programs they are complete, and those that are not UTF-8 are
/// in a separate column in base64.
fn readable(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    format: FormatArg,
) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let is_table = format == FormatArg::Table;
    let is_text = |field: &Field| BYTES.contains(&field.name().as_str());
    let has_some = |column: usize| {
        batches
            .iter()
            .any(|batch| batch.column(column).null_count() < batch.num_rows())
    };
    let shown_columns: Vec<usize> = (0..schema.fields().len())
        .filter(|column| !is_table || schema.field(*column).name() != "key" || has_some(*column))
        .collect();
    let mut fields = Vec::new();
    for field in shown_columns.iter().map(|column| schema.field(*column)) {
        match is_text(field) {
            false => fields.push(field.clone()),
            true => fields.push(Field::new(field.name(), DataType::Utf8, true)),
        }
        if is_text(field) && !is_table {
            fields.push(Field::new(format!("{}_base64", field.name()), DataType::Utf8, true));
        }
    }
    let readable = Arc::new(Schema::new(fields));
    let batch = |batch: &RecordBatch| {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for column in &shown_columns {
            if !is_text(schema.field(*column)) {
                columns.push(batch.column(*column).clone());
                continue;
            }
            let bytes = batch.column(*column).as_binary::<i32>();
            if is_table {
                let texts = bytes.iter().map(|bytes| bytes.map(beginning));
                columns.push(Arc::new(StringArray::from_iter(texts)));
            } else {
                let texts = bytes.iter().map(|bytes| str::from_utf8(bytes?).ok());
                columns.push(Arc::new(StringArray::from_iter(texts)));
                let others = bytes
                    .iter()
                    .map(|bytes| bytes.filter(|bytes| str::from_utf8(bytes).is_err()));
                let others = others.map(|bytes| bytes.map(|bytes| STANDARD.encode(bytes)));
                columns.push(Arc::new(StringArray::from_iter(others)));
            }
        }
        RecordBatch::try_new(readable.clone(), columns)
    };
    let batches = batches.iter().map(batch).collect::<Result<_, _>>()?;
    Ok((readable, batches))
}

/// The beginning of a key or payload, for a table for people.
fn beginning(bytes: &[u8]) -> String {
    if bytes.len() <= MOST_SHOWN {
        return shown_bytes(bytes).to_string();
    }
    // The cut must not be inside a character.
    let end = (MOST_SHOWN - 3..=MOST_SHOWN)
        .rev()
        .find(|end| bytes[*end] & 0xC0 != 0x80);
    let begins = &bytes[..end.unwrap_or(MOST_SHOWN)];
    format!("{}... ({} bytes)", shown_bytes(begins), bytes.len())
}

/// Requests another try of the dead letters of inputs that have some.
fn replay(dataflow: Dataflow, args: &DeadLettersArgs) -> Result<ExitCode> {
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
    let asking = RequestOptions {
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

/// For each input, how many of its records and files are dead letters.
fn letters(dataflow: &Dataflow) -> Result<Vec<(String, u64)>> {
    let sql = "SELECT input, COUNT(*) FROM dead_letters WHERE kind IN ('record', 'file') GROUP BY input ORDER BY input";
    let counted = LakeReader::open(dataflow, None)?.print(sql, PrintFormat::Csv)?;
    let line = |line: &str| {
        let (input, count) = line.rsplit_once(',')?;
        Some((input.to_string(), count.parse().ok()?))
    };
    Ok(counted.lines().skip(1).filter_map(line).collect())
}

/// The inputs from which a table is computed, directly or through other tables.
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
