//! The `files` feed: reads files that are dropped into a folder, local or in an object store.
//!
//! ```text
//! lister --FileJob--> reader 0 --Delivery--> worker of the file
//!    ^  `-------------> reader 1 --Delivery--> worker of the file
//!    `----FinishedFile---'
//! ```
//! The lister lists the files, decides with [`queue::FileQueue`] which one is next, and gives it to an idle reader.
//!
//! 1. Each file is read exactly once, its records in order, by one reader. Its position is the number of the next
//!    record, and its tag: the size, and the entity tag or modification time.
//! 2. A file that cannot be read becomes a dead letter as a whole: what came before the break is delivered, the file
//!    is done, and the feed goes on. What is appended to it meanwhile or later is read if none of its records were
//!    delivered, or if its first bytes are still those that were read. A file that ends where more must follow waits
//!    first, for as long as it may still be being written.
//! 3. A transient failure is retried from the next record on, which repeats nothing. If it does not pass, or if the
//!    process may not read the file, the file waits; the whole feed waits with it if the order of arrival matters.

mod attempt;
mod attempt_text;
mod bounded_batches;
mod charset;
mod columnar;
mod connector;
mod content;
mod documents;
mod head;
mod headers;
mod line_number;
mod lister;
mod listing;
mod magic;
mod members;
mod named;
mod near;
mod notices;
mod open;
mod originals;
mod queue;
mod reader;
mod record_end;
mod single;
mod suspects;
#[cfg(test)]
mod tests;
mod text;
mod walk;

pub(crate) use charset::{Peeked, to_utf8};
pub(crate) use documents::LineDocuments;
pub(crate) use head::{declared_delimiter, read_head};
pub(crate) use listing::is_remote;
pub(crate) use magic::FileMark;
pub(crate) use named::{NamedFile, NamedFiles};
pub(crate) use near::what_is_in;
pub use originals::{Originals, archived_name};
pub(crate) use single::local_path;
pub use single::{ReadingStart, SingleFile, SingleFileReading, list_files, path_of, reads};
pub(crate) use text::{RECORD_SEPARATOR, SplitError, TextRecords};
