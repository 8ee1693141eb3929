//! Decodes the transaction topic: BEGIN and END markers, which state how many events each table has.
//!
//! Markers are read like records of any input, so they may be in the same formats: JSON with or without its schema,
//! or Avro.

use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use serde::Deserialize;

use crate::decode::{DecodeError, Decoded, Decoder};
use crate::definition::{Column, Feed, Input, RegistrySettings, Wire};
use crate::registry::Registries;
use crate::repr::SqlType;

const STATUS: usize = 0;
const ID: usize = 1;
const TABLES: usize = 2;

/// A decoded marker.
#[derive(Debug, PartialEq, Eq)]
pub enum Marker {
    /// A transaction begins, or continues after its connector was restarted.
    Begin(String),
    /// A transaction is complete, with this number of events by table.
    End { id: String, tables: Vec<(String, u64)> },
    /// Any other message.
    Other,
}

#[derive(Deserialize)]
struct Table {
    data_collection: String,
    event_count: u64,
}

/// A decoder for markers that have the same format as a feed's records.
pub(crate) fn decoder(feed: &Feed, registries: &Registries) -> Result<Decoder, DecodeError> {
    let column = |name: &str, sql_type| Column {
        name: name.into(),
        sql_type,
        nullable: name != "status",
        from: vec![name.into(), format!("payload.{name}")],
        format: vec![],
        null: vec![],
    };
    let columns = vec![
        column("status", SqlType::Varchar),
        column("id", SqlType::Varchar),
        column("data_collections", SqlType::Varchar),
    ];
    let feed = Feed {
        name: feed.name.clone(),
        kind: feed.kind.clone(),
        format: feed.format.of_markers(),
        columns: columns.clone(),
        wire: Wire {
            // Each marker names its own schema, so the feed's subject and version do not apply.
            registry: feed.wire.registry.clone().map(|registry| RegistrySettings {
                subject: None,
                version: None,
                ..registry
            }),
            ..Wire::default()
        },
        max_record: feed.max_record,
    };
    let input = Input {
        name: "transactions".into(),
        description: None,
        columns,
        key: vec![],
        order_by: vec![],
        dedup_key: vec![],
        bronze: false,
        retention: None,
        evolved: vec![],
        feeds: vec![feed.clone()],
        file: PathBuf::new(),
    };
    Decoder::new(&input, &feed, registries)
}

/// The markers that could be decoded, each with its record's index.
pub fn markers(decoded: &Decoded) -> Vec<(usize, Marker)> {
    if decoded.record.is_empty() {
        return vec![]; // progress without records has no columns of markers
    }
    let text = |column: usize, row: usize| {
        let column = decoded.rows.column(column).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row))
    };
    let of_row = |row: usize| {
        let id = transaction_of(text(ID, row)?).to_string();
        Some(match text(STATUS, row)? {
            "BEGIN" => Marker::Begin(id),
            "END" => {
                let tables: Vec<Table> = serde_json::from_str(text(TABLES, row).unwrap_or("[]")).ok()?;
                let tables = tables.into_iter().map(|t| (t.data_collection, t.event_count)).collect();
                Marker::End { id, tables }
            }
            _ => return None,
        })
    };
    let rows = decoded.record.iter().enumerate();
    rows.map(|(row, record)| (*record as usize, of_row(row).unwrap_or(Marker::Other)))
        .collect()
}

/// The transaction's name in the id of an event, a BEGIN or an END. PostgreSQL's connector writes `<transaction>:<LSN
/// of this event>`, which differs between events; other connectors' ids do not have this form (`<uuid>:<number>`,
/// `<domain>-<server>-<sequence>`, `<hex>:<hex>:<hex>`).
pub fn transaction_of(id: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match id.split_once(':') {
        Some((transaction, lsn)) if is_number(transaction) && is_number(lsn) => transaction,
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_of_postgresql_is_named_by_its_number_alone() {
        assert_eq!(transaction_of("3854:181500736"), "3854");
        for id in ["7f1b9f0e-1:23", "0-1-57", "00000025:00000d98:00a2", "9", "9:", ":9", ""] {
            assert_eq!(transaction_of(id), id);
        }
    }
}
