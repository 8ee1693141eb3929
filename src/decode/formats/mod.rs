//! The formats of records: each parses records into columns of cells.
//!
//! - Text: `csv`, `json`. Undecoded: `raw`.
//! - Behind a schema id: `avro` and `protobuf`, whose records a common decoder (`records`) reads by plans of their
//!   schemas ([`super::schemas`]).
//! - `keys`: the keys of records, in any of these formats.
//! - Files: `avro` reads object containers; `parquet` does the checks that arrow's reader lacks.
//! - `loose`: inspects JSON without an input's columns.

pub(crate) mod avro;
pub(in crate::decode) mod built_in;
pub(in crate::decode) mod csv;
pub(in crate::decode) mod json;
pub(in crate::decode) mod json_text;
pub(in crate::decode) mod keys;
pub(in crate::decode) mod loose;
pub(crate) mod parquet;
pub(in crate::decode) mod protobuf;
pub(in crate::decode) mod raw;
pub(in crate::decode) mod records;
