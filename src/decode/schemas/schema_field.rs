//! A field of rows in a schema.

use crate::repr::SqlType;

/// A field of rows in a schema.
pub(in crate::decode) struct SchemaField {
    pub name: String,
    /// The type of its column; or why it can have none.
    pub sql_type: Result<SqlType, String>,
    /// Whether a record may lack it.
    pub optional: bool,
}
