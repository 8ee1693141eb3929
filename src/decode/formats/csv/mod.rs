//! CSV records. The header determines which field fills which column. Each record is split alone, so that an
//! unbalanced quote breaks only its own record. (arrow-csv would read on into the next record, and does not
//! distinguish a quoted empty field from an empty one.)
//!
//! An empty field is null, even for VARCHAR; a quoted empty field is the empty text. Fields are not trimmed for
//! VARCHAR, unless the feed has `trim`. A record without any text is skipped (counted as `(blank line)`), and so is
//! one that repeats the header, where files were concatenated, if by other names of the same columns (`again`). A byte
//! order mark before a record is removed.
//!
//! A record with only delimiters, blank or quoted fields is a row of nulls, as in PostgreSQL and DuckDB, if all
//! columns may be null; such records are counted, and `blank_rows = "skip"` skips them.
//!
//! A file whose header has none of the columns, or lacks a required one, is refused when it is read
//! ([`judge_header`]). If Bronze has records under such a header, because the definition was different then, they are
//! refused one by one, by the same rules.

mod again;
mod by_name;
mod guess;
mod header;
mod split;

use std::collections::{BTreeSet, HashSet};

use arrow::array::Array;

use crate::decode::batch::Batch;
use crate::decode::cell::Cell;
use crate::decode::changes::{ChangeBuilder, DecodedBatch, InputShape};
use crate::decode::coerce;
use crate::decode::decoded::{ChangeOp, TWICE};
use crate::decode::names::shortened;
use crate::definition::{BlankRows, TextDialect};
use again::without_mark;
use header::{HeaderColumn, Heading};
use split::{is_blank_row, split, trimmed};

pub use again::{HeaderRepeat, RepeatedHeader};
pub use header::{HeaderNotes, csv_names, judge_header, repeated_header};
pub(in crate::decode) use header::{shown_list, wanted};
pub use split::{fields as csv_fields, is_blank_row as is_blank_csv_row, values as csv_values};

/// The names under which blank rows are counted: those that became rows of nulls, and those that were skipped.
const BLANK_KEPT: &str = "(blank row, all null)";
const BLANK_SKIPPED: &str = "(blank row)";

/// Why a record of a file without a header line is refused, if the feed's files have one.
const NO_HEADER: &str = "the file has no header line; write the columns' names first";

/// How many ignored fields are counted by name; the rest of a header's are counted together.
const NAMED: usize = 1000;

/// How many of the records that a decoder counted were blank rows.
pub fn blank_rows(counted: &[(String, u64)]) -> u64 {
    let blank = counted
        .iter()
        .filter(|(name, _)| [BLANK_KEPT, BLANK_SKIPPED].contains(&name.as_str()));
    blank.map(|(_, count)| count).sum()
}

/// Decodes CSV records.
#[derive(Debug)]
pub(in crate::decode) struct Csv {
    dialect: TextDialect,
    blank_rows: BlankRows,
    known: Option<KnownHeader>,
}

/// The newest header, with its interpretation.
#[derive(Debug)]
struct KnownHeader {
    header: Option<String>,
    heading: Heading,
    /// Why all records under it are refused.
    refusal: Option<String>,
    /// The names of fields that no column takes, sorted, at most [`NAMED`], and the number of further ones.
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

    fn known(&mut self, shape: &InputShape, header: Option<&str>) -> &KnownHeader {
        let dialect = &self.dialect;
        let known = self.known.take().filter(|known| known.header.as_deref() == header);
        self.known.insert(known.unwrap_or_else(|| {
            let wanted = shape.targets.iter().map(|target| HeaderColumn {
                name: &target.name,
                from: &target.from,
                // If a record lacks a required column, the record gets a reason of its own.
                required: false,
                is_key: false,
            });
            let wanted: Vec<HeaderColumn<'_>> = wanted.collect();
            let heading = Heading::new(&wanted, header, dialect);
            let broken = heading
                .broken
                .map(|what| format!("the header line cannot be read: {what}; repair the file"));
            KnownHeader {
                refusal: broken.or_else(|| heading.refusal(&wanted, header.unwrap_or_default())),
                header: header.map(str::to_string),
                ignored: ignored(&heading),
                heading,
            }
        }))
    }

    /// Decodes a batch.
    pub fn decode(&mut self, shape: &InputShape, batch: &Batch<'_>, header: Option<&str>) -> DecodedBatch {
        let values = batch.values;
        let mut changes = ChangeBuilder::new(shape.targets.len(), values.len());
        if header.is_none() && self.dialect.header {
            changes.each_record(0..values.len(), |_, _| Err(NO_HEADER.to_string()));
            return DecodedBatch::new(changes.typed(shape, ""), batch.times(), Vec::new());
        }
        let skips_blank = self.blank_rows == BlankRows::Skip;
        let KnownHeader {
            heading,
            refusal,
            ignored,
            ..
        } = self.known(shape, header);
        let dialect = &heading.dialect;
        let mut derived = String::new();
        // Blank records that may be rows, ascending.
        let mut blank: Vec<u32> = Vec::new();
        let mut cells = vec![Cell::ABSENT; shape.targets.len()];
        changes.each_record(0..values.len(), |record, changes| {
            if values.is_null(record) {
                return Err("the record is null; a CSV record is a line of text".to_string());
            }
            let text = trimmed(without_mark(shape.text(values.value(record))?));
            if let Some(what) = heading.passed_over(text) {
                changes.count(what);
                return Ok(());
            }
            // If there is only one field, it cannot be known that a blank or quoted one was not intended.
            let is_blank = (skips_blank || heading.width() > 1) && is_blank_row(text, dialect);
            if is_blank && skips_blank {
                changes.count(BLANK_SKIPPED);
                return Ok(());
            }
            if heading.is_repeated_by(text)? {
                changes.count("(header again)");
                return Ok(());
            }
            if let Some(reason) = refusal {
                return Err(reason.clone());
            }
            cells.fill(Cell::ABSENT);
            let split = split(text, dialect, &mut derived, |field, cell| {
                for column in heading.takes.get(field).into_iter().flatten() {
                    cells[*column as usize] = cell;
                }
            });
            let fields = split.map_err(|what| format!("the record cannot be read: {what}; repair it"))?;
            if let Some(reason) = heading.misfit(text, fields) {
                return Err(reason);
            }
            if is_blank {
                blank.push(record as u32);
            }
            changes.push(record, ChangeOp::Upsert, &cells);
            Ok(())
        });
        let mut counted = Vec::new();
        if !changes.ops.is_empty() {
            let records = changes.ops.len() as u64;
            counted.extend(ignored.0.iter().map(|name| (name.clone(), records)));
            if ignored.1 > 0 {
                counted.push(("(other fields)".to_string(), ignored.1 * records));
            }
        }
        let changes = changes.resolve_derived(&derived);
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
        let blank_rows = blank.iter().filter(|record| !is_refused(record)).count() as u64;
        if blank_rows > 0 {
            typed.counted.push((BLANK_KEPT.to_string(), blank_rows));
        }
        DecodedBatch::new(typed, batch.times(), counted)
    }
}

/// Fields that no column takes. A name that occurs twice counts once, because results must not depend on how records
/// are batched.
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
