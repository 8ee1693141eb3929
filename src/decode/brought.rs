//! Whether a columnar file brings what an input's columns take.

use arrow::array::RecordBatch;

use super::coerce::shown;
use super::csv::{HeaderNotes, shown_list, wanted};
use super::target::Target;
use super::{avro, columns};
use crate::definition::{Column, Feed, FileField, Format, Input};

/// What to do about a file without columns that are asked for.
pub(super) const REMEDY: &str = "list its names in the columns' `from`";

/// What a file has of the columns that are asked for.
pub(super) struct Brought {
    /// By column: whether the file has a field for it.
    pub columns: Vec<bool>,
    /// The names of its own fields.
    pub names: Vec<String>,
    /// Those that no column takes.
    pub ignored: Vec<String>,
}

/// Why a file with none of the columns is none of a feed's.
pub(super) fn stranger(names: &[String], targets: &[Target]) -> String {
    let of_records = targets.iter().filter(|target| FileField::among(&target.from).is_none());
    let wanted: Vec<String> = of_records.map(|target| wanted(&target.name, &target.from)).collect();
    format!(
        "none of its columns is one of the input: it has {}, and looked for are {}; {REMEDY}",
        shown(&names.join(",")),
        shown_list(&wanted)
    )
}

/// Whether a file with these columns is one of a feed's, and what is to be told of it.
///
/// # Errors
/// Why it is none, and what to do.
pub fn judge_columns(input: &Input, feed: &Feed, batch: &RecordBatch) -> Result<HeaderNotes, String> {
    let columns = input.columns.iter().zip(&feed.columns).map(|(ours, theirs)| Column {
        from: theirs.from.clone(),
        format: theirs.format.clone(),
        ..ours.clone()
    });
    // What is wrong with a format is told where the definition is read.
    let targets: Result<Vec<Target>, _> = columns.map(|column| Target::new(&column, "")).collect();
    let targets = targets.map_err(|error| error.to_string())?;
    let brought = match feed.format {
        Format::Parquet => columns::brought(&targets, batch),
        _ => match avro::brought(&targets, batch) {
            Some(brought) => brought?,
            None => return Ok(HeaderNotes::default()), // the fields of events are in their bodies
        },
    };
    let declared = input.columns.len() - input.evolved.len();
    let (mut absent, mut lost, mut asked) = (Vec::new(), Vec::new(), 0);
    let mut is_key_lost = false;
    for (target, is_brought) in targets.iter().zip(&brought.columns).take(declared) {
        if FileField::among(&target.from).is_some() {
            continue;
        }
        asked += 1;
        match is_brought {
            true => (),
            false if !target.nullable || input.key.contains(&target.name) => {
                is_key_lost |= input.key.contains(&target.name);
                lost.push(wanted(&target.name, &target.from));
            }
            false => absent.push(target.name.clone()),
        }
    }
    if asked > 0 && absent.len() + lost.len() == asked {
        return Err(stranger(&brought.names, &targets));
    }
    if !lost.is_empty() {
        return Err(format!(
            "it lacks columns that are required, {}: it has {}; {REMEDY}{}",
            shown_list(&lost),
            shown(&brought.names.join(",")),
            if is_key_lost { "" } else { ", or make them nullable" }
        ));
    }
    Ok(HeaderNotes {
        absent,
        ignored: brought.ignored,
        ..HeaderNotes::default()
    })
}
