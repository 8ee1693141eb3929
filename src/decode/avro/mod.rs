//! Avro, in files and behind a schema id.
//!
//! - `container`: object container files to records (`packed`, `codec` and `tape` are how their bytes come); `file`, `capture`:
//!   what these records come to; `loose`: what they hold, for whoever has no columns yet.
//! - `schema`, `read`, `plan`: single records, of files or each behind the id of its writer's schema. They go to cells, as
//!   text formats do, by a plan that is made once for each schema: which of its fields fills which column, by name, alias
//!   or path, and which default stands in for one that is not there. What no column takes is skipped, not decoded.
//!
//! Why records do not go through arrow-avro: it fails a batch as a whole where one record is broken, reads no recursive
//! schemas, does not look at the sync markers of files and goes on for ever in a block that claims more records than it has,
//! allocates what a hostile length asks for before it looks whether the bytes are there, and leaves Debezium's envelopes to be
//! taken apart a second time. A record here costs its own bytes, whatever its neighbours are.
//! The price: small orders of seven columns come to typed columns at 2.1 million rows a second, where arrow-avro alone makes
//! its own columns of them at 6.5 million, and JSON comes at 0.8 million (`avro_s_speed`, tests' profile, one busy core).

mod capture;
mod codec;
mod container;
mod file;
mod loose;
mod packed;
mod plan;
mod read;
mod schema;
mod tape;

pub(crate) use container::read_container;
pub(super) use file::{ContainerRecords, brought};
pub use loose::{ContainerColumn, ContainerJson, container_bodies, container_columns, container_rows};
pub(super) use plan::{Plan, Step, Walk};
pub(super) use read::{Cursor, not_avro, write_base64, write_decimal, write_duration, write_float, write_text};
pub(super) use schema::{Field, Form, Schema, Type};
