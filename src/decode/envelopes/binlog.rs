//! Changes of MySQL tables as Canal and Maxwell write them: flat JSON, with rows in `data` and earlier values in
//! `old`.
//!
//! | | Canal (`canal-json`) | Maxwell (`maxwell-json`) |
//! |---|---|---|
//! | `data` | a list of rows, each value a string or null | one row |
//! | `old` | a list of what each row's changed columns held | what the changed columns held |
//! | `type` | INSERT, UPDATE, DELETE, TRUNCATE | insert, bootstrap-insert, update, delete |
//! | time | `es`, milliseconds | `ts`, seconds |
//!
//! Other types and DDL change no rows and are counted as `(canal message)` and `(maxwell message)`; records of tables
//! that the feed does not read are counted as `(other table)`. A column may also take `envelope.<field>`
//! (`envelope.xid`, `envelope.table`).

use arrow::array::Array;

use crate::decode::batch::{Batch, utf8};
use crate::decode::cell::{Cell, CellKind};
use crate::decode::changes::{ChangeBuilder, DecodedBatch, InputShape};
use crate::decode::coerce::{number, shown};
use crate::decode::decoded::ChangeOp;
use crate::decode::formats::json_text::{not_json, unmarked};
use crate::decode::names::{FieldTree, RecordCells};
use crate::decode::scan;

/// The program that wrote the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Dialect {
    Canal,
    Maxwell,
}

/// Decodes records of Canal or Maxwell.
#[derive(Debug)]
pub(in crate::decode) struct Binlog {
    dialect: Dialect,
    rows: FieldTree,
    /// For the same names; ignored fields are already counted in `rows`.
    old: FieldTree,
    beside: FieldTree,
    /// The feed's tables as `database.table`; empty: all.
    tables: Vec<String>,
}

/// The parts of a record.
#[derive(Default)]
struct BinlogParts<'a> {
    what: Option<Cell<'a>>,
    data: Option<Cell<'a>>,
    old: Option<Cell<'a>>,
    time: Option<Cell<'a>>,
    database: Option<Cell<'a>>,
    table: Option<Cell<'a>>,
    ddl: bool,
}

impl Binlog {
    /// A decoder for rows of this shape.
    pub fn new(shape: &InputShape, dialect: Dialect, tables: &[String]) -> Self {
        let columns = || shape.targets.iter().enumerate();
        Binlog {
            dialect,
            rows: FieldTree::new(columns(), ""),
            old: FieldTree::new(columns(), ""),
            beside: FieldTree::new(columns(), "envelope."),
            tables: tables.to_vec(),
        }
    }

    /// Whether a record belongs to one of the feed's tables.
    fn reads(&self, parts: &BinlogParts<'_>) -> bool {
        let name = |cell: &Option<Cell<'_>>| cell.and_then(|cell| cell.resolved()).unwrap_or_default().into_owned();
        self.tables.is_empty()
            || self
                .tables
                .contains(&format!("{}.{}", name(&parts.database), name(&parts.table)))
    }

    /// Decodes a batch.
    pub fn decode(&mut self, shape: &InputShape, batch: &Batch<'_>) -> DecodedBatch {
        let values = batch.values;
        let mut source_ms = batch.times();
        let mut changes = ChangeBuilder::new(shape.targets.len(), values.len());
        let slots = || RecordCells::new(shape.targets.len());
        let mut room = [slots(), slots(), slots()];
        let valid = (0..values.len()).filter(|record| values.is_valid(*record));
        changes.each_record(valid, |record, changes| {
            let text = unmarked(utf8(values.value(record))?);
            self.record(shape, record, text, &mut source_ms[record], &mut room, changes)
        });
        DecodedBatch::new(changes.typed(shape, ""), source_ms, self.rows.take_ignored())
    }

    fn record<'a>(
        &mut self,
        shape: &InputShape,
        record: usize,
        text: &'a str,
        source_ms: &mut Option<i64>,
        room: &mut [RecordCells<'a>; 3],
        changes: &mut ChangeBuilder<'a>,
    ) -> Result<(), String> {
        let mut parts = BinlogParts::default();
        scan::object(text, |key, value| match key.text() {
            "type" => parts.what = Some(value),
            "data" => parts.data = Some(value),
            "old" => parts.old = Some(value),
            "es" if self.dialect == Dialect::Canal => parts.time = Some(value),
            "ts" if self.dialect == Dialect::Maxwell => parts.time = Some(value),
            "database" => parts.database = Some(value),
            "table" => parts.table = Some(value),
            "isDdl" => parts.ddl = value.kind == CellKind::True,
            _ => (),
        })
        .map_err(|broken| not_json(text, broken))?;
        let unit = if self.dialect == Dialect::Canal { 1 } else { 1000 };
        let time = parts.time.and_then(|time| number::integer(time.text()).ok());
        *source_ms = time.filter(|n| *n > 0).and_then(|n| n.checked_mul(unit)).or(*source_ms);
        let (called, other) = match self.dialect {
            Dialect::Canal => ("Canal", "(canal message)"),
            Dialect::Maxwell => ("Maxwell", "(maxwell message)"),
        };
        let Some(what) = parts.what else {
            return Err(format!(
                "the record is none of {called}: it has no field \"type\": {}",
                shown(text)
            ));
        };
        if !self.reads(&parts) {
            changes.count("(other table)");
            return Ok(());
        }
        let op = match what.text() {
            "INSERT" | "insert" | "bootstrap-insert" => "c",
            "UPDATE" | "update" => "u",
            "DELETE" | "delete" => "d",
            "TRUNCATE" => return changes.truncation(shape, record),
            _ => {
                changes.count(other);
                return Ok(());
            }
        };
        if parts.ddl {
            changes.count(other);
            return Ok(());
        }
        let [_, _, beside] = room;
        beside.clear();
        if !self.beside.is_empty() {
            let walked = self.beside.walk(text, beside, &mut |_, cell| cell);
            walked.map_err(|broken| not_json(text, broken))?;
        }
        let (mut data, mut old) = (Vec::new(), Vec::new());
        rows(called, "data", parts.data, &mut data)?;
        rows(called, "old", parts.old, &mut old)?;
        if data.is_empty() {
            return Err(format!("the record of {called} has no rows in `data`"));
        }
        for (n, row) in data.iter().enumerate() {
            let before = old.get(n).filter(|_| op == "u");
            self.row(
                shape,
                record,
                op,
                [*row, before.copied().unwrap_or("{}")],
                room,
                changes,
            )?;
        }
        Ok(())
    }

    /// Adds the changes of one row. The texts are the row, and the earlier values of its changed columns.
    fn row<'a>(
        &mut self,
        shape: &InputShape,
        record: usize,
        op: &str,
        [row, old]: [&'a str; 2],
        [after, before, beside]: &mut [RecordCells<'a>; 3],
        changes: &mut ChangeBuilder<'a>,
    ) -> Result<(), String> {
        after.clear();
        let walked = self.rows.walk(row, after, &mut |_, cell| cell);
        walked.map_err(|broken| format!("in `data`: {}", not_json(row, broken)))?;
        after.merge(beside);
        match op {
            "c" => changes.push(record, ChangeOp::Upsert, &after.cells),
            "d" => changes.push(record, ChangeOp::Delete, &after.cells),
            _ => {
                // Columns that `old` does not contain are unchanged.
                before.clear();
                let walked = self.old.walk(old, before, &mut |_, cell| cell);
                walked.map_err(|broken| format!("in `old`: {}", not_json(old, broken)))?;
                before.merge(beside);
                for (old, new) in before.cells.iter_mut().zip(&after.cells) {
                    if old.kind == CellKind::Absent {
                        *old = *new;
                    }
                }
                let same = |c: &usize| before.cells[*c].same(&after.cells[*c], "");
                if !shape.keyed() || !shape.key.iter().all(same) {
                    changes.push(record, ChangeOp::Delete, &before.cells);
                }
                changes.push(record, ChangeOp::Upsert, &after.cells);
            }
        }
        Ok(())
    }
}

/// The rows in `data` or `old`: one object, or a list of them.
fn rows<'a>(called: &str, part: &str, cell: Option<Cell<'a>>, out: &mut Vec<&'a str>) -> Result<(), String> {
    let Some(cell) = cell.filter(Cell::is_value) else {
        return Ok(());
    };
    let mut whole = cell.kind == CellKind::Nested;
    if whole && cell.text().starts_with('[') {
        let listed = scan::array(cell.text(), |item| match item.kind {
            CellKind::Nested if item.text().starts_with('{') => out.push(item.text()),
            CellKind::Null => out.push("{}"),
            _ => whole = false,
        });
        whole &= listed.is_ok();
    } else {
        out.push(cell.text());
    }
    match whole {
        true => Ok(()),
        false => Err(format!(
            "`{part}` of {called} is {}; it must hold rows",
            shown(cell.text())
        )),
    }
}
