//! The errors that prevent a feed from being decoded.

use thiserror::Error;

use crate::registry::RegistryError;

/// A feed that cannot be decoded at all, because its definition is inconsistent.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The feed's columns differ from the input's.
    #[error("could not set up {context}: it has {feed} columns, its input {input}; give each feed the input's columns")]
    Columns {
        /// The feed and its input.
        context: String,
        /// The feed's number of columns.
        feed: usize,
        /// The input's number of columns.
        input: usize,
    },
    /// A `format` that the column's type does not support.
    #[error("could not set up {context}: column {column:?} cannot take the format {format:?}; write {expected}")]
    Format {
        /// The feed and its input.
        context: String,
        /// The column.
        column: String,
        /// The format as written.
        format: String,
        /// The supported formats.
        expected: &'static str,
    },
    /// A schema registry that cannot be used with these settings.
    #[error("could not set up {context}")]
    Registry {
        /// The feed and its input.
        context: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// A format that needs a schema registry, in a feed without one.
    #[error("could not set up {context}: its format needs a schema registry; add registry = {{ url = \"...\" }} to it")]
    NoRegistry {
        /// The feed and its input.
        context: String,
    },
    /// A column of the key or the order that does not exist.
    #[error("could not set up {context}: there is no column {column:?}; name one of the input's columns")]
    NoColumn {
        /// The feed and its input.
        context: String,
        /// The missing column.
        column: String,
    },
}
