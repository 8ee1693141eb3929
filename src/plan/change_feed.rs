//! What a change data feed asks of a table's columns.

use arrow::datatypes::SchemaRef;

use super::error::Refusal;

/// The columns that Delta's change data feed adds to a table's own (protocol, "Change Data Files").
const OF_FEED: [&str; 3] = ["_change_type", "_commit_version", "_commit_timestamp"];

/// What is wrong with the columns of a table with a change data feed: Delta's names are the same in any case of letters.
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
