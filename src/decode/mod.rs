//! Decodes bytes to changes of an input.
//!
//! A [`Raw`] batch of records of one feed becomes a [`Decoded`]: Arrow columns with the input's schema, one operation
//! per row, and a [`Reject`] for each record that cannot be decoded. Decoding is vectorised; a record that fails
//! never affects its neighbours, even if it makes a decoder panic (`apart`). `verify` decodes Bronze with the same
//! code.
//!
//! The steps: a format (`formats`, or `envelopes` for records that are changes) parses records into columns of cells
//! that borrow the records' bytes; `coerce` converts each column to its type; `changes` removes the rows of refused
//! records. Columnar files (`columns`) skip the first step. `decoder` dispatches; `decoded` has the types of the
//! input and output. No code combines two records, so decoding a batch equals decoding each record alone.
//!
//! Records behind a schema id need their schemas first: [`Decoder::prepare`] requests them, and fails if the registry
//! does not answer. In that case no record is decoded or refused.

mod apart;
mod batch;
mod cell;
mod changes;
mod coerce;
mod columns;
mod cut;
mod damage;
mod decoded;
mod decoder;
mod envelopes;
mod error;
mod formats;
mod keep;
mod names;
mod part;
mod path;
mod scan;
mod schemas;
pub mod skip;
mod split;
mod target;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;

pub use changes::TRUNCATES_OTHERS;
pub use coerce::{is_error as is_spreadsheet_error, lacks_digits};
pub(crate) use columns::file::{columnar_note, columnar_place, moment};
pub use columns::file_fields::judge_columns;
pub(crate) use cut::FIRST_BYTES;
pub use damage::Damage;
pub use decoded::{
    ChangeOp, CutRecord, Decoded, FilePlace, Payloads, Raw, RecordTransaction, Reject, TWICE, WaitingRecords,
};
pub use decoder::Decoder;
pub use error::DecodeError;
pub(crate) use formats::avro::{
    ContainerColumn, ContainerJson, container_bodies, container_columns, container_rows, is_whole_container,
    read_container,
};
pub use formats::csv::{
    HeaderNotes, HeaderRepeat, RepeatedHeader, blank_rows, csv_fields, csv_names, csv_values, is_blank_csv_row,
    judge_header, repeated_header,
};
pub use formats::loose::{FieldValue, iso_point, json_fields, json_items};
pub(crate) use formats::parquet;
pub use schemas::against::{Misfit, against};
pub use schemas::fields::{Newcomer, newcomers};
pub use schemas::watch::SchemaWatch;
