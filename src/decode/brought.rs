//! Whether a columnar file brings what an input's columns take.

use arrow::array::RecordBatch;

use super::coerce::shown;
use super::csv::HeaderNotes;
use crate::definition::{Feed, Format, Input};

/// Whether a column's field is none of a record's, but tells of the file that the record is in.
pub(super) fn is_of_file(from: &str) -> bool {
    from.starts_with("file.") || from.starts_with("path.")
}

/// Whether a file with these columns is one of a feed's, and what is to be told of it.
///
/// # Errors
/// Why it is none, and what to do.
pub fn judge_columns(input: &Input, feed: &Feed, batch: &RecordBatch) -> Result<HeaderNotes, String> {
    if feed.format != Format::Parquet {
        return Ok(HeaderNotes::default()); // the fields of Avro's records may be anywhere in them
    }
    let schema = batch.schema_ref();
    let root = |name: &str| schema.column_with_name(name).map(|(index, _)| index);
    // A path is looked into when it is read; that its first step is there is enough here.
    let field = |name: &String| root(name).or_else(|| root(name.split_once('.')?.0));
    let declared = input.columns.len() - input.evolved.len();
    let columns = input.columns.iter().zip(&feed.columns).take(declared);
    let columns = columns.filter(|(_, theirs)| !theirs.from.iter().any(|from| is_of_file(from)));
    let (mut brought, mut absent, mut lost) = (vec![false; batch.num_columns()], Vec::new(), Vec::new());
    let mut asked = 0;
    for (ours, theirs) in columns {
        asked += 1;
        match theirs.from.iter().find_map(field) {
            Some(index) => brought[index] = true,
            None if !ours.nullable || input.key.contains(&ours.name) => lost.push(format!("{:?}", ours.name)),
            None => absent.push(ours.name.clone()),
        }
    }
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let has = shown(&names.join(","));
    let remedy = "list its names in the columns' `from`";
    if asked > 0 && absent.len() + lost.len() == asked {
        return Err(format!(
            "none of its columns is one of the input: it has {has}; {remedy}"
        ));
    }
    if !lost.is_empty() {
        return Err(format!(
            "it lacks columns that are required, {}: it has {has}; {remedy}, or make them nullable",
            lost.join(", ")
        ));
    }
    let ignored = names.iter().zip(brought).filter(|(_, brought)| !brought);
    Ok(HeaderNotes {
        absent,
        ignored: ignored.map(|(name, _)| name.to_string()).collect(),
        ..HeaderNotes::default()
    })
}
