//! Snapshots to people: queries over one, and the audit of one.

pub mod against;
pub mod cases;
pub mod history;
mod letters;
mod portions;
mod printed;
mod progress;
mod query;
mod question;
mod reader;
pub mod verify;
mod zeros;

pub use letters::{LetterClass, LetterCounts, Letters, letter_classes, literal};
pub use printed::{OutputFormat, render};
pub use progress::progress;
pub use query::{QueryError, Snapshot, epochs};
pub use question::{QuestionError, QuestionLimits};
pub use reader::Reader;
