//! Checks whether a columnar file has the fields that an input's columns take.

use arrow::array::RecordBatch;

use crate::decode::coerce::shown;
use crate::decode::columns;
use crate::decode::formats::avro;
use crate::decode::formats::csv::{HeaderNotes, shown_list, wanted};
use crate::decode::target::Target;
use crate::definition::{Column, Feed, FileField, Format, Input};

/// What to do about a file that lacks fields.
pub(in crate::decode) const REMEDY: &str = "list its names in the columns' `from`";

/// The fields that a file has of those that columns take.
pub(in crate::decode) struct FileFields {
    /// For each column, whether the file has a field for it.
    pub columns: Vec<bool>,
    /// The names of the file's fields.
    pub names: Vec<String>,
    /// The names of fields that no column takes.
    pub ignored: Vec<String>,
}

/// Why a file with none of the fields does not belong to the feed.
pub(in crate::decode) fn stranger(names: &[String], targets: &[Target]) -> String {
    let of_records = targets.iter().filter(|target| FileField::among(&target.from).is_none());
    let wanted: Vec<String> = of_records.map(|target| wanted(&target.name, &target.from)).collect();
    format!(
        "none of its columns is one of the input: it has {}, and looked for are {}; {REMEDY}",
        shown(&names.join(",")),
        shown_list(&wanted)
    )
}

/// Checks whether a file with these columns belongs to a feed, and returns what should be reported of it.
///
/// # Errors
/// It does not belong to the feed; with the reason and what to do.
pub fn judge_columns(input: &Input, feed: &Feed, batch: &RecordBatch) -> Result<HeaderNotes, String> {
    let columns = input.columns.iter().zip(&feed.columns).map(|(ours, theirs)| Column {
        from: theirs.from.clone(),
        format: theirs.format.clone(),
        ..ours.clone()
    });
    // Invalid formats are reported when the definition is read.
    let targets: Result<Vec<Target>, _> = columns.map(|column| Target::new(&column, "")).collect();
    let targets = targets.map_err(|error| error.to_string())?;
    let present = match feed.format {
        Format::Parquet => columns::taken_fields(&targets, batch),
        _ => match avro::taken_fields(&targets, batch) {
            Some(present) => present?,
            None => return Ok(HeaderNotes::default()), // the fields of events are in their bodies
        },
    };
    let declared = input.columns.len() - input.evolved.len();
    let (mut absent, mut lost, mut asked) = (Vec::new(), Vec::new(), 0);
    let mut is_key_lost = false;
    for (target, is_present) in targets.iter().zip(&present.columns).take(declared) {
        if FileField::among(&target.from).is_some() {
            continue;
        }
        asked += 1;
        match is_present {
            true => (),
            false if !target.nullable || input.key.contains(&target.name) => {
                is_key_lost |= input.key.contains(&target.name);
                lost.push(wanted(&target.name, &target.from));
            }
            false => absent.push(target.name.clone()),
        }
    }
    if asked > 0 && absent.len() + lost.len() == asked {
        return Err(stranger(&present.names, &targets));
    }
    if !lost.is_empty() {
        return Err(format!(
            "it lacks columns that are required, {}: it has {}; {REMEDY}{}",
            shown_list(&lost),
            shown(&present.names.join(",")),
            if is_key_lost { "" } else { ", or make them nullable" }
        ));
    }
    Ok(HeaderNotes {
        absent,
        ignored: present.ignored,
        ..HeaderNotes::default()
    })
}
