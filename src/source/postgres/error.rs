//! Why a request to a server failed.

use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorResponseBody;
use thiserror::Error;

use crate::source::error::ReaderExit;

/// Why a request to a server failed.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// The connection broke, or could not be made.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server reported an error.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// The server violates the protocol, or the connection cannot be made with these settings.
    #[error("{0}")]
    Wrong(String),
    /// The wait was ended, because readers are to stop or cannot go on.
    #[error("stopped")]
    Ended(ReaderExit),
}

impl From<ReaderExit> for PostgresError {
    fn from(ended: ReaderExit) -> Self {
        PostgresError::Ended(ended)
    }
}

/// An error that the server reports.
#[derive(Debug, Default, Error)]
#[error("{message}{} (SQLSTATE {code})", detail.as_ref().map(|detail| format!("; {detail}")).unwrap_or_default())]
pub struct ServerError {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
}

impl From<&ErrorResponseBody> for PostgresError {
    fn from(body: &ErrorResponseBody) -> Self {
        let mut refusal = ServerError::default();
        let mut fields = body.fields();
        // Fields that cannot be parsed are left out.
        while let Ok(Some(field)) = fields.next() {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => refusal.code = text,
                b'M' => refusal.message = text,
                b'D' => refusal.detail = Some(text),
                _ => {}
            }
        }
        PostgresError::Server(Box::new(refusal))
    }
}

impl PostgresError {
    /// The error for bytes that are no valid message; a retry would get the same.
    pub fn unread(error: io::Error) -> PostgresError {
        PostgresError::Wrong(format!("the server's message cannot be read: {error}"))
    }

    /// Whether it may pass without anybody's help: the server is unreachable, starting, or at its limits, or the slot
    /// is still held by a connection that has ended.
    pub fn passes(&self) -> bool {
        match self {
            PostgresError::Io(_) => true,
            PostgresError::Server(refusal) => {
                let class = refusal.code.get(..2).unwrap_or_default();
                matches!(class, "08" | "53" | "57" | "58") || refusal.code == "55006"
            }
            PostgresError::Wrong(_) | PostgresError::Ended(_) => false,
        }
    }

    /// Whether the server reported this SQLSTATE.
    pub fn is(&self, code: &str) -> bool {
        matches!(self, PostgresError::Server(refusal) if refusal.code == code)
    }
}
