//! Damage in a file's bytes, as opposed to a failure of the disk or the store.

use arrow::error::ArrowError;
use thiserror::Error;

/// Why a file, or the rest of it, cannot be read. A retry would not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Damage(pub String);

impl Damage {
    /// The damage of a file that is encrypted.
    pub(super) fn encrypted() -> Self {
        Damage("it is encrypted, and alluvium has no keys; drop it decrypted".to_string())
    }

    /// The damage of a file that makes its reader panic.
    pub(crate) fn of_panic(message: String) -> Self {
        Damage(format!("its reader met something that it did not expect ({message})"))
    }
}

impl From<Damage> for ArrowError {
    fn from(damage: Damage) -> Self {
        ArrowError::ExternalError(Box::new(damage))
    }
}
