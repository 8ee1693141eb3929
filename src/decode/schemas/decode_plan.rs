//! How records of one schema fill columns, for schemas in any language.

use crate::decode::names::{FieldTree, RecordCells};
use crate::registry;

/// How records of one schema fill columns.
pub(in crate::decode) trait DecodePlan: Sized {
    /// A plan for a registered schema, with the aliases and defaults of a newer one, if given.
    ///
    /// # Errors
    /// Why records of the schema cannot be decoded.
    fn new(
        schema: &registry::RegisteredSchema,
        names: &FieldTree,
        newer: Option<&registry::RegisteredSchema>,
    ) -> Result<Self, String>;

    /// Fills cells from the bytes behind the schema id; text that the record does not contain is appended to
    /// `derived`.
    ///
    /// # Errors
    /// The bytes do not match the schema.
    fn fill<'a>(
        &self,
        bytes: &'a [u8],
        names: &mut FieldTree,
        slots: &mut RecordCells<'a>,
        derived: &mut String,
    ) -> Result<(), String>;

    /// Calls `each` for every field of the schema that no column takes, if that is known without a record.
    fn ignored(&self, _each: &mut dyn FnMut(&str)) {}
}
