//! CSV records. The header says which field fills which column; each record is split alone, so an unbalanced
//! quote breaks its own record only. (arrow-csv would read on into the next record, and does not tell a quoted
//! empty field from an empty one.)
//!
//! An empty field is null, for VARCHAR too; a quoted empty field is the empty text. Fields are not trimmed
//! for VARCHAR, unless the feed says `trim`. A record without any text is no record (counted as `(blank line)`),
//! nor is one that is the header again, where files were appended to each other.
//!
//! A file whose header has none of the columns, or lacks a required one, is refused where it is read ([`judge_header`]).
//! What is in Bronze under such a header, since the definition was another one then, is refused record by record, by the
//! same judgement.

mod guess;
mod header;
mod split;

use std::collections::BTreeMap;

use arrow::array::Array;

use super::cell::Cell;
use super::changes::{Changes, Outcome, Shape};
use super::{Batch, Op, coerce};
use crate::definition::TextDialect;
use header::{Heading, Wanted};
use split::{split, trimmed};

pub use header::{HeaderNotes, csv_names, judge_header};
pub use split::fields as csv_fields;

/// Decodes CSV records.
#[derive(Debug)]
pub(super) struct Csv {
    dialect: TextDialect,
    known: Option<Known>,
}

/// A header that was met.
#[derive(Debug)]
struct Known {
    header: Option<String>,
    heading: Heading,
    /// Why no record under it is taken.
    refusal: Option<String>,
}

impl Csv {
    /// For records of this dialect.
    pub fn new(dialect: TextDialect) -> Self {
        Csv { dialect, known: None }
    }

    fn known(&mut self, shape: &Shape, header: Option<&str>) -> &Known {
        let dialect = &self.dialect;
        let known = self.known.take().filter(|known| known.header.as_deref() == header);
        self.known.insert(known.unwrap_or_else(|| {
            let wanted = shape.targets.iter().map(|target| Wanted {
                name: &target.name,
                from: &target.from,
                // A record that lacks one is told its own reason.
                required: false,
            });
            let wanted: Vec<Wanted<'_>> = wanted.collect();
            let heading = Heading::new(&wanted, header, dialect);
            Known {
                refusal: heading.refusal(&wanted, header.unwrap_or_default()),
                header: header.map(str::to_string),
                heading,
            }
        }))
    }

    /// What the records come to.
    pub fn decode(&mut self, shape: &Shape, batch: &Batch<'_>, header: Option<&str>) -> Outcome {
        let values = batch.values;
        let mut changes = Changes::new(shape.targets.len(), values.len());
        if header.is_none() && self.dialect.header {
            for record in 0..values.len() {
                changes.reject(
                    record,
                    "the file has no header line; write the columns' names first".to_string(),
                );
            }
            return Outcome::new(changes.typed(shape, ""), batch.times(), Vec::new());
        }
        let Known { heading, refusal, .. } = self.known(shape, header);
        let dialect = &heading.dialect;
        let comment = dialect.comment.map(char::from);
        let mut derived = String::new();
        let mut cells = vec![Cell::ABSENT; shape.targets.len()];
        for record in 0..values.len() {
            if values.is_null(record) {
                changes.reject(record, "the record is null; a CSV record is a line of text".to_string());
                continue;
            }
            let text = match shape.text(values.value(record)) {
                Ok(text) => trimmed(text),
                Err(reason) => {
                    changes.reject(record, reason);
                    continue;
                }
            };
            if text.is_empty() && heading.width() != 1 {
                changes.count("(blank line)");
                continue;
            }
            if comment.is_some_and(|comment| text.starts_with(comment)) {
                changes.count("(comment)");
                continue;
            }
            if heading.line.as_deref() == Some(text) {
                changes.count("(header again)");
                continue;
            }
            if let Some(what) = heading.broken {
                changes.reject(
                    record,
                    format!("the header line cannot be read: {what}; repair the file"),
                );
                continue;
            }
            if let Some(reason) = refusal {
                changes.reject(record, reason.clone());
                continue;
            }
            cells.fill(Cell::ABSENT);
            let split = split(text, dialect, &mut derived, |field, cell| {
                for column in heading.takes.get(field).into_iter().flatten() {
                    cells[*column as usize] = cell;
                }
            });
            match split {
                Ok(fields) => match heading.misfit(fields) {
                    None => changes.push(record, Op::Upsert, &cells),
                    Some(reason) => changes.reject(record, reason),
                },
                Err(what) => changes.reject(record, format!("the record cannot be read: {what}; repair it")),
            }
        }
        // The same name twice counts once: results must not depend on how records are batched.
        let mut ignored = BTreeMap::new();
        if !changes.ops.is_empty() {
            for (name, takes) in heading.names.iter().zip(&heading.takes) {
                if takes.is_empty() {
                    ignored.insert(name.clone(), changes.ops.len() as u64);
                }
            }
        }
        let changes = changes.settle(&derived);
        let typed = changes.coerce(shape, |column| {
            let target = &shape.targets[column];
            Some(format!(
                "column {:?} is required, but the header has no {}: it has {}; list its name there in the column's `from`, or make it nullable",
                target.name,
                target.from.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(" or "),
                coerce::shown(&heading.names.join(",")),
            ))
        });
        Outcome::new(typed, batch.times(), ignored.into_iter().collect())
    }
}
