//! Checks the columns of a table that has a change data feed.

use arrow::datatypes::SchemaRef;

use super::error::Refusal;

/// The columns that Delta's change data feed adds to a table's own (protocol, "Change Data Files").
const OF_FEED: [&str; 3] = ["_change_type", "_commit_version", "_commit_timestamp"];

/// Refusals of a table's columns that have the name of a column of the feed. Delta compares names without
/// regard to case.
pub(super) fn mistakes(schema: &SchemaRef) -> Vec<Refusal> {
    let names = schema.fields().iter().map(|field| field.name());
    let taken = names.filter(|name| OF_FEED.iter().any(|own| own.eq_ignore_ascii_case(name)));
    taken
        .map(|name| {
            let taken = Refusal::new(format!(
                "could not write a change data feed of a table with the column {name:?}"
            ));
            taken.help("a column of the feed has that name: give the table's another by AS, or remove change_data_feed")
        })
        .collect()
}
