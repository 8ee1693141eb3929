//! Avro, in files and behind a schema id.
//!
//! - `container` splits object container files into records (`packed`, `codec` and `rescan` deliver their bytes);
//!   `file` and `capture` decode these records; `loose` inspects files without an input's columns.
//! - `schema`, `read` and `plan` handle single records, from files or behind the id of the writer's schema. Like in
//!   text formats, they are converted to cells, by a plan that is made once for each schema: which field fills which
//!   column, by name, alias or path, and which default replaces a missing field. Fields that no column takes are
//!   skipped and not decoded.
//!
//! Why arrow-avro is not used: it fails a whole batch if one record is broken, does not support recursive schemas,
//! does not check sync markers and loops forever in a block that claims more records than it has, allocates by a
//! hostile length before it checks that the bytes exist, and would leave Debezium's envelopes to be split in a second
//! pass. Here the cost of a record depends only on its own bytes. The price: small orders of seven columns are
//! decoded to typed columns at 2.1 million rows a second, where arrow-avro decodes them to its own columns at 6.5
//! million, and JSON takes 0.8 million (`avro_s_speed`, tests' profile, one busy core).

mod capture;
mod codec;
mod container;
mod file;
mod loose;
mod packed;
mod plan;
mod read;
mod rescan;
mod schema;

pub(crate) use container::{is_whole_container, read_container};
pub(in crate::decode) use file::{ContainerRecords, taken_fields};
pub use loose::{ContainerColumn, ContainerJson, container_bodies, container_columns, container_rows};
pub(in crate::decode) use plan::{AvroPlan, AvroStep, WalkOutput};
pub(in crate::decode) use read::{
    Cursor, not_avro, write_base64, write_decimal, write_duration, write_float, write_text,
};
pub(in crate::decode) use schema::{AvroField, AvroForm, AvroSchema, AvroType};
