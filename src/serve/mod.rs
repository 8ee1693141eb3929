//! Serves snapshots to people: queries, dead letters, and the audit of `verify`.

pub mod against;
mod archive;
mod dead_letters;
mod epoch_ranges;
pub mod history;
mod printed;
mod progress;
mod query;
mod question;
mod reader;
pub mod verify;
mod zeros;

pub use dead_letters::{DeadLetterClass, DeadLetterCounts, DeadLetterRows, letter_classes, literal};
pub use printed::{PrintFormat, render};
pub use progress::progress;
pub use query::{LakeSnapshot, QueryError, epochs};
pub use question::{QuestionError, QuestionLimits};
pub use reader::LakeReader;
