//! From cells to [`Decoded`]: what every format does once its records are taken apart.
//!
//! 1. A record either makes all its rows or none, and in the latter case exactly one reject.
//! 2. A delete of a keyed input is never refused for a column that is neither key nor required of it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;

use super::cell::{Cell, Kind, Meaning};
use super::coerce::{self, Fault};
use super::debezium::Placeholder;
use super::target::Target;
use super::{Decoded, Op, Raw, Reject, Transaction, utf8, utf8_of_file};
use crate::definition::{Charset, FileField};

/// Why a truncation is refused.
pub const TRUNCATES_OTHERS: &str = "TRUNCATE of one of several tables or feeds of an input cannot be applied: it would empty the input; delete its \
     rows instead, or give each table an input of its own";

/// What an input demands of its rows.
#[derive(Debug)]
pub(super) struct Shape {
    pub targets: Vec<Target>,
    /// The input's schema with every field nullable.
    pub schema: SchemaRef,
    /// Positions of the key columns.
    pub key: Vec<usize>,
    /// By column: whether a delete of a keyed input is read strictly there (key and `order_by`).
    pub identifies: Vec<bool>,
    /// Whether a truncation of the feed's table empties the input: no other table is in it.
    pub truncates: bool,
    /// What stands for values that the source left out.
    pub placeholder: Placeholder,
    /// Of records of files: what those are written in.
    pub charset: Option<Charset>,
    /// See [`super::debezium::times`].
    pub times: Vec<(usize, usize, Meaning)>,
}

/// What of the definition to change where a column may be null.
pub(super) fn remedy_of_null(is_key: bool) -> &'static str {
    match is_key {
        true => "take the column out of the key, whose columns are never null",
        false => "make the column nullable",
    }
}

impl Shape {
    /// The text of a record, or why it has none.
    pub fn text<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, String> {
        match self.charset {
            Some(charset) => utf8_of_file(bytes, charset),
            None => utf8(bytes),
        }
    }

    /// Whether its rows have a key.
    pub fn keyed(&self) -> bool {
        !self.key.is_empty()
    }

    /// Why a required column has no value where its record has no field for it.
    fn missing(&self, column: usize) -> String {
        let target = &self.targets[column];
        let from: Vec<String> = target.from.iter().map(|f| format!("{f:?}")).collect();
        format!(
            "column {:?} is {}, but the record has no field {}; list the field's name in the column's `from`, or {}",
            target.name,
            self.needed(column),
            from.join(" or "),
            self.remedy(column)
        )
    }

    /// Why a column may not be null.
    pub fn needed(&self, column: usize) -> &'static str {
        if self.key.contains(&column) {
            "a key"
        } else {
            "required"
        }
    }

    /// What of the definition to change where a column may be null: a key's column never is.
    pub fn remedy(&self, column: usize) -> &'static str {
        remedy_of_null(self.key.contains(&column))
    }

    /// Whether a record without a field of any column would be a row of nulls: no column is required, and not all tell of the
    /// record's file.
    pub fn may_be_null(&self) -> bool {
        let is_required = (0..self.targets.len()).any(|column| self.requires(column, Op::Upsert));
        let is_of_file = |target: &Target| FileField::among(&target.from).is_some();
        !is_required && !self.targets.iter().all(is_of_file)
    }

    /// Whether a null here makes a row of this kind unusable.
    pub fn requires(&self, column: usize, op: Op) -> bool {
        match op {
            Op::Truncate => false,
            Op::Delete if self.keyed() => self.key.contains(&column),
            Op::Upsert | Op::Delete => !self.targets[column].nullable || self.key.contains(&column),
        }
    }
}

/// Rows in the making: cells by column, an operation and a record for each.
pub(super) struct Changes<'a> {
    pub columns: Vec<Vec<Cell<'a>>>,
    pub ops: Vec<Op>,
    pub record: Vec<u32>,
    pub rejects: Vec<Reject>,
    /// Beside the fields: what was counted under a name in brackets.
    pub counted: Vec<(String, u64)>,
}

impl<'a> Changes<'a> {
    /// Room for so many rows.
    pub fn new(columns: usize, rows: usize) -> Self {
        Changes {
            columns: (0..columns).map(|_| Vec::with_capacity(rows)).collect(),
            ops: Vec::with_capacity(rows),
            record: Vec::with_capacity(rows),
            rejects: Vec::new(),
            counted: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, record: usize, op: Op, cells: &[Cell<'a>]) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(*cell);
        }
        self.ops.push(op);
        self.record.push(record as u32);
    }

    /// Adds a truncation.
    ///
    /// # Errors
    /// It would take what other tables brought.
    pub fn truncation(&mut self, shape: &Shape, record: usize) -> Result<(), String> {
        if !shape.truncates {
            return Err(TRUNCATES_OTHERS.to_string());
        }
        self.push(record, Op::Truncate, &vec![Cell::NULL; shape.targets.len()]);
        Ok(())
    }

    /// Takes the rows back that were added behind the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.ops.truncate(rows);
        self.record.truncate(rows);
    }

    /// Refuses a record.
    pub fn reject(&mut self, record: usize, reason: String) {
        self.rejects.push(Reject {
            record: Some(record as u32),
            reason,
        });
    }

    /// Counts something that makes no row.
    pub fn count(&mut self, name: &str) {
        match self.counted.iter_mut().find(|(counted, _)| counted == name) {
            Some((_, n)) => *n += 1,
            None => self.counted.push((name.to_string(), 1)),
        }
    }

    /// Gives the cells their types, with the texts that were derived while the records were read.
    pub fn typed(self, shape: &Shape, derived: &str) -> Typed {
        self.settle(derived).coerce(shape, |column| Some(shape.missing(column)))
    }

    /// The same with the texts that were derived while the records were read.
    pub fn settle<'b>(self, derived: &'b str) -> Changes<'b>
    where
        'a: 'b,
    {
        if derived.is_empty() {
            return self;
        }
        let settled = |column: Vec<Cell<'a>>| column.into_iter().map(|cell| cell.settle(derived)).collect();
        Changes {
            columns: self.columns.into_iter().map(settled).collect(),
            ops: self.ops,
            record: self.record,
            rejects: self.rejects,
            counted: self.counted,
        }
    }

    /// Gives the cells their types. `missing` says why a required column has no value, if it knows more.
    pub fn coerce(mut self, shape: &Shape, missing: impl Fn(usize) -> Option<String>) -> Typed {
        let mut arrays = Vec::with_capacity(shape.targets.len());
        let mut faults = Vec::new();
        let mut unavailable = 0;
        let mut unchanged = Vec::new();
        for (column, target) in shape.targets.iter().enumerate() {
            let cells = &self.columns[column];
            let before = faults.len();
            let array = coerce::column(target, cells, &mut faults);
            if shape.keyed() && !shape.identifies[column] {
                // By (2): what is null now stays null.
                let kept = faults.split_off(before);
                faults.extend(kept.into_iter().filter(|f| self.ops[f.row as usize] != Op::Delete));
            }
            for (row, cell) in cells.iter().enumerate() {
                if cell.kind != Kind::Unavailable {
                    continue;
                }
                match shape.keyed() {
                    true if self.ops[row] == Op::Upsert => unchanged.push((row as u32, column as u32)),
                    true => {} // a delete needs no more than its key
                    false => unavailable += 1,
                }
                // Without a key a row can only be taken back whole.
                let op = self.ops[row];
                let needed = shape.requires(column, op) || (op == Op::Delete && !shape.keyed());
                if needed {
                    faults.push(Fault {
                        row: row as u32,
                        reason: format!(
                            "column {:?}: the source left out the unchanged value; set REPLICA IDENTITY FULL, or {}",
                            target.name,
                            shape.remedy(column)
                        ),
                    });
                }
            }
            arrays.push(array);
        }
        if unavailable > 0 {
            self.counted.push(("(unavailable value)".to_string(), unavailable));
        }
        let mut typed = Typed {
            arrays,
            ops: self.ops,
            record: self.record,
            rejects: self.rejects,
            counted: self.counted,
            unchanged,
        };
        typed.require(shape, &mut faults, |row, column| {
            missing(column).filter(|_| self.columns[column][row].kind == Kind::Absent)
        });
        typed.refuse(faults);
        typed
    }
}

/// What a batch of records comes to.
pub(super) struct Outcome {
    pub typed: Typed,
    /// Each record's time at its source.
    pub source_ms: Vec<Option<i64>>,
    /// Fields that nobody takes, and how many records had them.
    pub ignored: Vec<(String, u64)>,
    /// See [`Decoded::transactions`].
    pub transactions: Vec<Transaction>,
}

impl Outcome {
    /// Of records without transactions.
    pub fn new(typed: Typed, source_ms: Vec<Option<i64>>, ignored: Vec<(String, u64)>) -> Self {
        Outcome {
            typed,
            source_ms,
            ignored,
            transactions: Vec::new(),
        }
    }

    /// The result of so many records, without the rows of refused ones (1); its `raw` is for the caller to fill.
    pub fn finish(self, shape: &Shape, records: usize) -> Decoded {
        let decoded = self.typed.finish(shape, records, self.source_ms, self.ignored);
        Decoded {
            transactions: self.transactions,
            ..decoded
        }
    }
}

/// Rows with their types, before the rows of refused records are taken out.
pub(super) struct Typed {
    pub arrays: Vec<ArrayRef>,
    pub ops: Vec<Op>,
    pub record: Vec<u32>,
    pub rejects: Vec<Reject>,
    pub counted: Vec<(String, u64)>,
    /// See [`Decoded::unchanged`]; in any order.
    pub unchanged: Vec<(u32, u32)>,
}

impl Typed {
    /// Adds a fault for each null where none may be.
    pub fn require(&self, shape: &Shape, faults: &mut Vec<Fault>, missing: impl Fn(usize, usize) -> Option<String>) {
        for (column, array) in self.arrays.iter().enumerate() {
            if array.null_count() == 0 {
                continue;
            }
            for row in (0..array.len()).filter(|row| array.is_null(*row)) {
                if shape.requires(column, self.ops[row]) {
                    let name = &shape.targets[column].name;
                    let reason = missing(row, column).unwrap_or_else(|| {
                        format!(
                            "column {name:?} is {} but the record has no value for it; correct the record, or {}",
                            shape.needed(column),
                            shape.remedy(column)
                        )
                    });
                    faults.push(Fault {
                        row: row as u32,
                        reason,
                    });
                }
            }
        }
    }

    /// The same, each reject saying by which schema its record was written.
    pub fn naming(mut self, schema: impl Fn(usize) -> Option<String>) -> Self {
        for reject in &mut self.rejects {
            if let Some(name) = reject.record.and_then(|record| schema(record as usize))
                && !reject.reason.contains(&name)
            {
                reject.reason = format!("{}; written by {name}", reject.reason);
            }
        }
        self
    }

    /// Turns faults into rejects, the first of each record.
    pub fn refuse(&mut self, faults: Vec<Fault>) {
        let record = &self.record;
        self.rejects.extend(faults.into_iter().map(|fault| Reject {
            record: Some(record[fault.row as usize]),
            reason: fault.reason,
        }));
        // Stable: of one record the first column's fault stays.
        self.rejects.sort_by_key(|reject| reject.record);
        self.rejects.dedup_by_key(|reject| reject.record);
    }

    fn finish(
        self,
        shape: &Shape,
        records: usize,
        source_ms: Vec<Option<i64>>,
        mut ignored_fields: Vec<(String, u64)>,
    ) -> Decoded {
        ignored_fields.extend(self.counted);
        let Typed {
            arrays,
            mut ops,
            mut record,
            rejects,
            mut unchanged,
            ..
        } = self;
        unchanged.sort_unstable();
        let options = RecordBatchOptions::new().with_row_count(Some(ops.len()));
        let mut rows = RecordBatch::try_new_with_options(Arc::clone(&shape.schema), arrays, &options)
            .expect("each column was coerced to its type, with a value for each row");
        if !rejects.is_empty() {
            let mut refused = vec![false; records];
            for reject in &rejects {
                if let Some(record) = reject.record {
                    refused[record as usize] = true;
                }
            }
            let keep: Vec<bool> = record.iter().map(|r| !refused[*r as usize]).collect();
            if keep.contains(&false) {
                let mut kept = keep.iter();
                ops.retain(|_| *kept.next().expect("one for each row"));
                unchanged.retain(|(row, _)| keep[*row as usize]);
                for (row, _) in &mut unchanged {
                    let before = keep[..*row as usize].iter().filter(|kept| !**kept).count();
                    *row -= before as u32;
                }
                let mut kept = keep.iter();
                record.retain(|_| *kept.next().expect("one for each row"));
                rows = filter_record_batch(&rows, &BooleanArray::from(keep)).expect("one value for each row");
            }
        }
        Decoded {
            raw: Raw::none(),
            rows,
            ops,
            record,
            source_ms,
            rejects,
            ignored_fields,
            unchanged,
            transactions: Vec::new(),
        }
    }
}
