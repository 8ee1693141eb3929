//! Converts cells to [`Decoded`], which every format does after it has parsed its records.
//!
//! 1. A record yields either all of its rows or none, and in the latter case exactly one reject.
//! 2. A delete from a keyed input is never refused because of a column that is neither in the key nor in `order_by`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;

use crate::decode::batch::{utf8, utf8_of_file};
use crate::decode::cell::{Cell, CellKind, Meaning};
use crate::decode::coerce;
use crate::decode::coerce::CellFault;
use crate::decode::decoded::{ChangeOp, Decoded, Raw, RecordTransaction, Reject};
use crate::decode::envelopes::debezium::Placeholder;
use crate::decode::target::Target;
use crate::definition::FileField;
use crate::repr::Charset;

/// The reason for refusing a truncation.
pub const TRUNCATES_OTHERS: &str = "TRUNCATE of one of several tables or feeds of an input cannot be applied: it would empty the input; delete its \
     rows instead, or give each table an input of its own";

/// The columns of an input, and what it requires of its rows.
#[derive(Debug)]
pub(super) struct InputShape {
    pub targets: Vec<Target>,
    /// The input's schema with every field nullable.
    pub schema: SchemaRef,
    /// Indices of the key columns.
    pub key: Vec<usize>,
    /// For each column, whether a fault in it refuses a delete from a keyed input (it is in the key or in
    /// `order_by`).
    pub identifies: Vec<bool>,
    /// Whether a truncation of the feed's table may empty the input, because the input contains no other table.
    pub truncates: bool,
    /// The placeholder for values that the source left out.
    pub placeholder: Placeholder,
    /// For records of files, the encoding of the files.
    pub charset: Option<Charset>,
    /// See [`crate::decode::envelopes::debezium::times`].
    pub times: Vec<(usize, usize, Meaning)>,
}

/// What to change in the definition if a column of a key, or a required column, may be null.
pub(super) fn remedy_of_null(is_key: bool) -> &'static str {
    match is_key {
        true => "take the column out of the key, whose columns are never null",
        false => "make the column nullable",
    }
}

impl InputShape {
    /// A record as text, or why it is no valid text.
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

    /// Why a required column has no value if its record does not have the field.
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

    /// Why a column must not be null, as an adjective.
    pub fn needed(&self, column: usize) -> &'static str {
        if self.key.contains(&column) {
            "a key"
        } else {
            "required"
        }
    }

    /// What to change in the definition if the column may be null.
    pub fn remedy(&self, column: usize) -> &'static str {
        remedy_of_null(self.key.contains(&column))
    }

    /// Whether a record without any of the fields would become a row of nulls: no column is required, and some column
    /// is not taken from the record's file.
    pub fn may_be_null(&self) -> bool {
        let is_required = (0..self.targets.len()).any(|column| self.requires(column, ChangeOp::Upsert));
        let is_of_file = |target: &Target| FileField::among(&target.from).is_some();
        !is_required && !self.targets.iter().all(is_of_file)
    }

    /// Whether a null in this column makes a row unusable for this operation.
    pub fn requires(&self, column: usize, op: ChangeOp) -> bool {
        match op {
            ChangeOp::Truncate => false,
            ChangeOp::Delete if self.keyed() => self.key.contains(&column),
            ChangeOp::Upsert | ChangeOp::Delete => !self.targets[column].nullable || self.key.contains(&column),
        }
    }
}

/// Rows under construction: cells by column, with the operation and the record of each row.
pub(super) struct ChangeBuilder<'a> {
    pub columns: Vec<Vec<Cell<'a>>>,
    pub ops: Vec<ChangeOp>,
    pub record: Vec<u32>,
    pub rejects: Vec<Reject>,
    /// Counts of other things than fields, under names in brackets.
    pub counted: Vec<(String, u64)>,
}

impl<'a> ChangeBuilder<'a> {
    /// A builder with room for this number of rows.
    pub fn new(columns: usize, rows: usize) -> Self {
        ChangeBuilder {
            columns: (0..columns).map(|_| Vec::with_capacity(rows)).collect(),
            ops: Vec::with_capacity(rows),
            record: Vec::with_capacity(rows),
            rejects: Vec::new(),
            counted: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, record: usize, op: ChangeOp, cells: &[Cell<'a>]) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(*cell);
        }
        self.ops.push(op);
        self.record.push(record as u32);
    }

    /// Decodes records one by one; all decoders of records run in this loop. `read` adds a record's rows, or counts
    /// it. If it fails, the rows that it has added for that record are removed, and the record is refused (1).
    pub fn each_record(
        &mut self,
        records: impl Iterator<Item = usize>,
        mut read: impl FnMut(usize, &mut Self) -> Result<(), String>,
    ) {
        for record in records {
            let rows = self.ops.len();
            if let Err(reason) = read(record, self) {
                self.truncate(rows);
                self.reject(record, reason);
            }
        }
    }

    /// Adds a truncation.
    ///
    /// # Errors
    /// It would also delete rows of other tables.
    pub fn truncation(&mut self, shape: &InputShape, record: usize) -> Result<(), String> {
        if !shape.truncates {
            return Err(TRUNCATES_OTHERS.to_string());
        }
        self.push(record, ChangeOp::Truncate, &vec![Cell::NULL; shape.targets.len()]);
        Ok(())
    }

    /// Removes all but the first `rows` rows.
    fn truncate(&mut self, rows: usize) {
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

    /// Counts something that yields no row.
    pub fn count(&mut self, name: &str) {
        match self.counted.iter_mut().find(|(counted, _)| counted == name) {
            Some((_, n)) => *n += 1,
            None => self.counted.push((name.to_string(), 1)),
        }
    }

    /// Converts the cells to their columns' types; `derived` is the derived text of the records.
    pub fn typed(self, shape: &InputShape, derived: &str) -> TypedRows {
        self.resolve_derived(derived)
            .coerce(shape, |column| Some(shape.missing(column)))
    }

    /// Replaces ranges of the derived text by that text.
    pub fn resolve_derived<'b>(self, derived: &'b str) -> ChangeBuilder<'b>
    where
        'a: 'b,
    {
        if derived.is_empty() {
            return self;
        }
        let settled = |column: Vec<Cell<'a>>| column.into_iter().map(|cell| cell.resolve_derived(derived)).collect();
        ChangeBuilder {
            columns: self.columns.into_iter().map(settled).collect(),
            ops: self.ops,
            record: self.record,
            rejects: self.rejects,
            counted: self.counted,
        }
    }

    /// Converts the cells to their columns' types. `missing` may give a better reason why a required column has no
    /// value.
    pub fn coerce(mut self, shape: &InputShape, missing: impl Fn(usize) -> Option<String>) -> TypedRows {
        let mut arrays = Vec::with_capacity(shape.targets.len());
        let mut faults = Vec::new();
        let mut unavailable = 0;
        let mut unchanged = Vec::new();
        for (column, target) in shape.targets.iter().enumerate() {
            let cells = &self.columns[column];
            let before = faults.len();
            let array = coerce::column(target, cells, &mut faults);
            if shape.keyed() && !shape.identifies[column] {
                // By (2): in a delete, a value that does not fit becomes null without a fault.
                let later = faults.split_off(before);
                faults.extend(
                    later
                        .into_iter()
                        .filter(|f| self.ops[f.row as usize] != ChangeOp::Delete),
                );
            }
            for (row, cell) in cells.iter().enumerate() {
                if cell.kind != CellKind::Unavailable {
                    continue;
                }
                match shape.keyed() {
                    true if self.ops[row] == ChangeOp::Upsert => unchanged.push((row as u32, column as u32)),
                    true => {} // a delete needs no more than its key
                    false => unavailable += 1,
                }
                // Without a key, a row can only be retracted if all of its values are known.
                let op = self.ops[row];
                let needed = shape.requires(column, op) || (op == ChangeOp::Delete && !shape.keyed());
                if needed {
                    faults.push(CellFault {
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
        let mut typed = TypedRows {
            arrays,
            ops: self.ops,
            record: self.record,
            rejects: self.rejects,
            counted: self.counted,
            unchanged,
        };
        typed.require(shape, &mut faults, |row, column| {
            missing(column).filter(|_| self.columns[column][row].kind == CellKind::Absent)
        });
        typed.refuse(faults);
        typed
    }
}

/// The result of decoding a batch, before it is made a [`Decoded`].
pub(super) struct DecodedBatch {
    pub typed: TypedRows,
    /// The time of each record at its source.
    pub source_ms: Vec<Option<i64>>,
    /// Fields that no column takes, with the number of records that have them.
    pub ignored: Vec<(String, u64)>,
    /// See [`Decoded::transactions`].
    pub transactions: Vec<RecordTransaction>,
}

impl DecodedBatch {
    /// The result for records without transactions.
    pub fn new(typed: TypedRows, source_ms: Vec<Option<i64>>, ignored: Vec<(String, u64)>) -> Self {
        DecodedBatch {
            typed,
            source_ms,
            ignored,
            transactions: Vec::new(),
        }
    }

    /// Makes the result for this number of records, without rows of refused records (1); the caller must fill `raw`.
    pub fn finish(self, shape: &InputShape, records: usize) -> Decoded {
        let decoded = self.typed.finish(shape, records, self.source_ms, self.ignored);
        Decoded {
            transactions: self.transactions,
            ..decoded
        }
    }
}

/// Typed rows, before the rows of refused records are removed.
pub(super) struct TypedRows {
    pub arrays: Vec<ArrayRef>,
    pub ops: Vec<ChangeOp>,
    pub record: Vec<u32>,
    pub rejects: Vec<Reject>,
    pub counted: Vec<(String, u64)>,
    /// See [`Decoded::unchanged`]; in any order.
    pub unchanged: Vec<(u32, u32)>,
}

impl TypedRows {
    /// No rows.
    pub fn empty(shape: &InputShape) -> Self {
        TypedRows {
            arrays: shape.targets.iter().map(|t| new_empty_array(&t.arrow)).collect(),
            ops: Vec::new(),
            record: Vec::new(),
            rejects: Vec::new(),
            counted: Vec::new(),
            unchanged: Vec::new(),
        }
    }

    /// Adds a fault for each null that is not allowed.
    pub fn require(
        &self,
        shape: &InputShape,
        faults: &mut Vec<CellFault>,
        missing: impl Fn(usize, usize) -> Option<String>,
    ) {
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
                    faults.push(CellFault {
                        row: row as u32,
                        reason,
                    });
                }
            }
        }
    }

    /// Adds to each reject the name of the schema by which its record was written.
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

    /// Turns faults into rejects, of which only the first for each record is kept.
    pub fn refuse(&mut self, faults: Vec<CellFault>) {
        let record = &self.record;
        self.rejects.extend(faults.into_iter().map(|fault| Reject {
            record: Some(record[fault.row as usize]),
            reason: fault.reason,
        }));
        // The sort is stable, so the fault of a record's first column is kept.
        self.rejects.sort_by_key(|reject| reject.record);
        self.rejects.dedup_by_key(|reject| reject.record);
    }

    fn finish(
        self,
        shape: &InputShape,
        records: usize,
        source_ms: Vec<Option<i64>>,
        mut ignored_fields: Vec<(String, u64)>,
    ) -> Decoded {
        ignored_fields.extend(self.counted);
        let TypedRows {
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
                let mut verdicts = keep.iter();
                ops.retain(|_| *verdicts.next().expect("one for each row"));
                unchanged.retain(|(row, _)| keep[*row as usize]);
                for (row, _) in &mut unchanged {
                    let before = keep[..*row as usize].iter().filter(|kept| !**kept).count();
                    *row -= before as u32;
                }
                let mut verdicts = keep.iter();
                record.retain(|_| *verdicts.next().expect("one for each row"));
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
