//! Why a server's answer is not to be had.

use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorResponseBody;
use thiserror::Error;

use crate::source::outlet::Ended;

/// Why a server's answer is not to be had.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The connection broke, or none could be made.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server refuses.
    #[error("{0}")]
    Server(Box<Refusal>),
    /// It speaks otherwise than it should, or the connection cannot be made as it is defined.
    #[error("{0}")]
    Wrong(String),
    /// The wait was ended.
    #[error("stopped")]
    Ended(Ended),
}

impl From<Ended> for Trouble {
    fn from(ended: Ended) -> Self {
        Trouble::Ended(ended)
    }
}

/// An error that the server reports.
#[derive(Debug, Default, Error)]
#[error("{message}{} (SQLSTATE {code})", detail.as_ref().map(|detail| format!("; {detail}")).unwrap_or_default())]
pub struct Refusal {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
}

impl From<&ErrorResponseBody> for Trouble {
    fn from(body: &ErrorResponseBody) -> Self {
        let mut refusal = Refusal::default();
        let mut fields = body.fields();
        // What cannot be read of it is left out.
        while let Ok(Some(field)) = fields.next() {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => refusal.code = text,
                b'M' => refusal.message = text,
                b'D' => refusal.detail = Some(text),
                _ => {}
            }
        }
        Trouble::Server(Box::new(refusal))
    }
}

impl Trouble {
    /// Of a message that is none: another attempt brings the same.
    pub fn unread(error: io::Error) -> Trouble {
        Trouble::Wrong(format!("the server's message cannot be read: {error}"))
    }

    /// Whether it may be over later without anybody's help: the server is away, starts, or is at its limits, or the slot is
    /// still held by a connection that has ended.
    pub fn passes(&self) -> bool {
        match self {
            Trouble::Io(_) => true,
            Trouble::Server(refusal) => {
                let class = refusal.code.get(..2).unwrap_or_default();
                matches!(class, "08" | "53" | "57" | "58") || refusal.code == "55006"
            }
            Trouble::Wrong(_) | Trouble::Ended(_) => false,
        }
    }

    /// Whether the server refuses for this reason.
    pub fn is(&self, code: &str) -> bool {
        matches!(self, Trouble::Server(refusal) if refusal.code == code)
    }
}
