//! Avro, in files and behind a schema id.
//!
//! - `container`: object container files to Arrow columns, by arrow-avro.
//! - `schema`, `read`, `plan`: single records, each behind the id of its writer's schema. They go to cells, as
//!   text formats do, by a plan that is made once for each schema: which of its fields fills which column, by name, alias
//!   or path, and which default stands in for one that is not there. What no column takes is skipped, not decoded.
//!
//! Why single records do not go through arrow-avro, too: it fails a batch as a whole where one record is broken, reads no
//! recursive schemas, allocates what a hostile length asks for before it looks whether the bytes are there, and leaves
//! Debezium's envelopes to be taken apart a second time. A record here costs its own bytes, whatever its neighbours are.

mod container;
mod plan;
mod read;
mod schema;

pub use container::{BATCH, read_container};
pub(super) use container::{decode_capture, is_capture};
pub(super) use plan::{Plan, Step, Walk};
pub(super) use read::{Cursor, not_avro, write_base64, write_decimal, write_float, write_text};
pub(super) use schema::{Form, Schema};
