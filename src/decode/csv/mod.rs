//! CSV records. The header says which field fills which column; each record is split alone, so an unbalanced
//! quote breaks its own record only. (arrow-csv would read on into the next record, and does not tell a quoted
//! empty field from an empty one.)
//!
//! An empty field is null, for VARCHAR too; a quoted empty field is the empty text. Fields are not trimmed
//! for VARCHAR, unless the feed says `trim`. A record without any text is no record (counted as `(blank line)`),
//! nor is one that is the header again, where files were appended to each other (`again`). A byte order mark in front of a record is
//! none of its characters.
//!
//! A record that holds nothing but delimiters, blank or quoted fields is a row of nulls, as PostgreSQL and DuckDB take it, where
//! every column may be null; both are counted, and `blank_rows = "skip"` makes it no row.
//!
//! A file whose header has none of the columns, or lacks a required one, is refused where it is read ([`judge_header`]).
//! What is in Bronze under such a header, since the definition was another one then, is refused record by record, by the
//! same judgement.

mod again;
mod by_name;
mod guess;
mod header;
mod split;

use std::collections::{BTreeSet, HashSet};

use arrow::array::Array;

use super::cell::Cell;
use super::changes::{Changes, Outcome, Shape};
use super::names::shortened;
use super::{Batch, Op, TWICE, coerce};
use crate::definition::{BlankRows, TextDialect};
use again::without_mark;
use header::{Heading, Wanted, told_delimiter};
use split::{is_blank_row, split, trimmed};

pub use again::{HeaderRepeat, RepeatedHeader};
pub use header::{HeaderNotes, csv_names, judge_header, repeated_header};
pub(super) use header::{shown_list, wanted};
pub use split::{fields as csv_fields, is_blank_row as is_blank_csv_row, values as csv_values};

/// What rows that hold nothing are counted by: those that are rows of nulls, and those that are left out.
const BLANK_KEPT: &str = "(blank row, all null)";
const BLANK_SKIPPED: &str = "(blank row)";

/// How many fields that no column takes are counted by name; the others of a header are counted together.
const NAMED: usize = 1000;

/// How many of the records that a decoder counted held nothing.
pub fn blank_rows(counted: &[(String, u64)]) -> u64 {
    let blank = counted
        .iter()
        .filter(|(name, _)| [BLANK_KEPT, BLANK_SKIPPED].contains(&name.as_str()));
    blank.map(|(_, count)| count).sum()
}

/// Decodes CSV records.
#[derive(Debug)]
pub(super) struct Csv {
    dialect: TextDialect,
    blank_rows: BlankRows,
    known: Option<Known>,
}

/// A header that was met.
#[derive(Debug)]
struct Known {
    header: Option<String>,
    heading: Heading,
    /// Why no record under it is taken.
    refusal: Option<String>,
    /// The names of fields that no column takes, sorted, at most [`NAMED`], and how many there are beyond.
    ignored: (Vec<String>, u64),
}

impl Csv {
    /// For records of this dialect.
    pub fn new(dialect: TextDialect, blank_rows: BlankRows) -> Self {
        Csv {
            dialect,
            blank_rows,
            known: None,
        }
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
                is_key: false,
            });
            let wanted: Vec<Wanted<'_>> = wanted.collect();
            let heading = Heading::new(&wanted, header, dialect);
            Known {
                refusal: heading.refusal(&wanted, header.unwrap_or_default()),
                header: header.map(str::to_string),
                ignored: ignored(&heading),
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
        let skips_blank = self.blank_rows == BlankRows::Skip;
        let Known {
            heading,
            refusal,
            ignored,
            ..
        } = self.known(shape, header);
        let dialect = &heading.dialect;
        let comment = dialect.comment.map(char::from);
        let mut derived = String::new();
        // Records that hold nothing and may be rows, ascending.
        let mut blank: Vec<u32> = Vec::new();
        let mut cells = vec![Cell::ABSENT; shape.targets.len()];
        for record in 0..values.len() {
            if values.is_null(record) {
                changes.reject(record, "the record is null; a CSV record is a line of text".to_string());
                continue;
            }
            let text = match shape.text(values.value(record)) {
                Ok(text) => trimmed(without_mark(text)),
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
            // Of a single field, blank or in quotes, nobody can say that it was not meant.
            let is_blank = (skips_blank || heading.width() > 1) && is_blank_row(text, dialect);
            if is_blank && skips_blank {
                changes.count(BLANK_SKIPPED);
                continue;
            }
            if let Some(repeated) = &heading.repeated {
                let is_told = || {
                    text.len() < 8
                        && text.starts_with("sep=")
                        && told_delimiter(text).is_some_and(|(_, rest)| rest.is_empty())
                };
                match repeated.find(text) {
                    HeaderRepeat::None if is_told() => {
                        changes.count("(header again)");
                        continue;
                    }
                    HeaderRepeat::None => (),
                    HeaderRepeat::Same => {
                        changes.count("(header again)");
                        continue;
                    }
                    HeaderRepeat::Reordered => {
                        changes.reject(record, repeated.reordered(text));
                        continue;
                    }
                }
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
                Ok(fields) => match heading.misfit(text, fields) {
                    None => {
                        if is_blank {
                            blank.push(record as u32);
                        }
                        changes.push(record, Op::Upsert, &cells);
                    }
                    Some(reason) => changes.reject(record, reason),
                },
                Err(what) => changes.reject(record, format!("the record cannot be read: {what}; repair it")),
            }
        }
        let mut counted = Vec::new();
        if !changes.ops.is_empty() {
            let records = changes.ops.len() as u64;
            counted.extend(ignored.0.iter().map(|name| (name.clone(), records)));
            if ignored.1 > 0 {
                counted.push(("(other fields)".to_string(), ignored.1 * records));
            }
        }
        let changes = changes.settle(&derived);
        let mut typed = changes.coerce(shape, |column| {
            let target = &shape.targets[column];
            Some(format!(
                "column {:?} is {}, but the header has no {}: it has {}; list its name there in the column's `from`, or {}",
                target.name,
                shape.needed(column),
                target.from.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(" or "),
                coerce::shown(&heading.names.join(",")),
                shape.remedy(column),
            ))
        });
        let is_refused = |record: &u32| {
            typed
                .rejects
                .binary_search_by_key(&Some(*record), |reject| reject.record)
                .is_ok()
        };
        let kept = blank.iter().filter(|record| !is_refused(record)).count() as u64;
        if kept > 0 {
            typed.counted.push((BLANK_KEPT.to_string(), kept));
        }
        Outcome::new(typed, batch.times(), counted)
    }
}

/// Fields that no column takes. The same name twice counts once: results must not depend on how records are batched.
fn ignored(heading: &Heading) -> (Vec<String>, u64) {
    let fields = || heading.names.iter().zip(&heading.takes);
    let taken: HashSet<&String> = fields()
        .filter(|(_, takes)| !takes.is_empty())
        .map(|(name, _)| name)
        .collect();
    let names: BTreeSet<(bool, &String)> = fields()
        .filter(|(_, takes)| takes.is_empty())
        .map(|(name, _)| (!taken.contains(name), name))
        .collect();
    let others = names.len().saturating_sub(NAMED) as u64;
    let shown = |(is_other, name): (bool, &String)| match is_other {
        true => shortened(name).into_owned(),
        false => format!("{TWICE}{}", shortened(name)),
    };
    (names.into_iter().take(NAMED).map(shown).collect(), others)
}
