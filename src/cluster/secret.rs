//! The secret that all processes of a cluster share.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key};
use thiserror::Error;

/// The minimal length in bytes, so that the secret cannot be guessed.
const SHORTEST: usize = 16;
/// The maximal length in bytes, so that a wrong file is not read as a whole.
const LONGEST: usize = 4096;

/// A key for proofs. `Debug` does not print it.
#[derive(Clone)]
pub struct Secret(Arc<Key>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Why a secret cannot be used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Too short or too long.
    #[error("a secret of {0} bytes; it must have {SHORTEST} to {LONGEST}: `openssl rand -hex 32` makes one")]
    Length(usize),
    /// The file cannot be read.
    #[error("could not read the secret from {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Secret {
    /// Makes a secret of text; white space around it is ignored.
    pub fn new(text: &[u8]) -> Result<Secret, SecretError> {
        let text = text.trim_ascii();
        if !(SHORTEST..=LONGEST).contains(&text.len()) {
            return Err(SecretError::Length(text.len()));
        }
        Ok(Secret(Arc::new(Key::new(HMAC_SHA256, text))))
    }

    /// Reads a secret from a file; white space around it is ignored.
    pub fn read(path: &Path) -> Result<Secret, SecretError> {
        let mut text = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LONGEST as u64 + 2).read_to_end(&mut text))
            .map_err(|source| SecretError::Read {
                path: path.to_path_buf(),
                source,
            })?;
        Secret::new(&text)
    }

    pub(super) fn key(&self) -> &Key {
        &self.0
    }
}
