//! Changes of MySQL tables as Canal and Maxwell write them: flat JSON, rows in `data`, what was before in `old`.
//!
//! | | Canal (`canal-json`) | Maxwell (`maxwell-json`) |
//! |---|---|---|
//! | `data` | a list of rows, each value a string or null | one row |
//! | `old` | a list of what each row's changed columns held | what the changed columns held |
//! | `type` | INSERT, UPDATE, DELETE, TRUNCATE | insert, bootstrap-insert, update, delete |
//! | time | `es`, milliseconds | `ts`, seconds |
//!
//! Other types and DDL change no rows and are counted as `(canal message)` and `(maxwell message)`, records of tables that the
//! feed does not name as `(other table)`. A column may also take `envelope.<field>` (`envelope.xid`, `envelope.table`).

use arrow::array::Array;

use super::cell::{Cell, Kind};
use super::changes::{Changes, Outcome, Shape};
use super::coerce::{number, shown};
use super::json::{not_json, unmarked};
use super::names::{Names, Slots};
use super::{Batch, Op, scan, utf8};

/// Whose JSON it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Canal,
    Maxwell,
}

/// Decodes records.
#[derive(Debug)]
pub(super) struct Binlog {
    dialect: Dialect,
    rows: Names,
    /// The same names; what is ignored there was counted in `rows` already.
    old: Names,
    beside: Names,
    /// Those of the feed, `database.table`; empty: all.
    tables: Vec<String>,
}

/// A record's parts.
#[derive(Default)]
struct Parts<'a> {
    what: Option<Cell<'a>>,
    data: Option<Cell<'a>>,
    old: Option<Cell<'a>>,
    time: Option<Cell<'a>>,
    database: Option<Cell<'a>>,
    table: Option<Cell<'a>>,
    ddl: bool,
}

impl Binlog {
    /// For rows of this shape.
    pub fn new(shape: &Shape, dialect: Dialect, tables: &[String]) -> Self {
        let columns = || shape.targets.iter().enumerate();
        Binlog {
            dialect,
            rows: Names::new(columns(), ""),
            old: Names::new(columns(), ""),
            beside: Names::new(columns(), "envelope."),
            tables: tables.to_vec(),
        }
    }

    /// Whether a record is of one of the feed's tables.
    fn reads(&self, parts: &Parts<'_>) -> bool {
        let name = |cell: &Option<Cell<'_>>| cell.and_then(|cell| cell.resolved()).unwrap_or_default().into_owned();
        self.tables.is_empty()
            || self
                .tables
                .contains(&format!("{}.{}", name(&parts.database), name(&parts.table)))
    }

    /// What the records come to.
    pub fn decode(&mut self, shape: &Shape, batch: &Batch<'_>) -> Outcome {
        let values = batch.values;
        let mut source_ms = batch.times();
        let mut changes = Changes::new(shape.targets.len(), values.len());
        let slots = || Slots::new(shape.targets.len());
        let mut room = [slots(), slots(), slots()];
        for record in (0..values.len()).filter(|record| values.is_valid(*record)) {
            let rows = changes.ops.len();
            let read = utf8(values.value(record)).and_then(|text| {
                self.record(
                    shape,
                    record,
                    unmarked(text),
                    &mut source_ms[record],
                    &mut room,
                    &mut changes,
                )
            });
            if let Err(reason) = read {
                changes.truncate(rows);
                changes.reject(record, reason);
            }
        }
        Outcome::new(changes.typed(shape, ""), source_ms, self.rows.take_ignored())
    }

    fn record<'a>(
        &mut self,
        shape: &Shape,
        record: usize,
        text: &'a str,
        source_ms: &mut Option<i64>,
        room: &mut [Slots<'a>; 3],
        changes: &mut Changes<'a>,
    ) -> Result<(), String> {
        let mut parts = Parts::default();
        scan::object(text, |key, value| match key.text() {
            "type" => parts.what = Some(value),
            "data" => parts.data = Some(value),
            "old" => parts.old = Some(value),
            "es" if self.dialect == Dialect::Canal => parts.time = Some(value),
            "ts" if self.dialect == Dialect::Maxwell => parts.time = Some(value),
            "database" => parts.database = Some(value),
            "table" => parts.table = Some(value),
            "isDdl" => parts.ddl = value.kind == Kind::True,
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

    /// Adds the changes of one row; `texts` are the row, and what it held before where that differs.
    fn row<'a>(
        &mut self,
        shape: &Shape,
        record: usize,
        op: &str,
        [row, old]: [&'a str; 2],
        [after, before, beside]: &mut [Slots<'a>; 3],
        changes: &mut Changes<'a>,
    ) -> Result<(), String> {
        after.clear();
        let walked = self.rows.walk(row, after, &mut |_, cell| cell);
        walked.map_err(|broken| format!("in `data`: {}", not_json(row, broken)))?;
        after.merge(beside);
        match op {
            "c" => changes.push(record, Op::Upsert, &after.cells),
            "d" => changes.push(record, Op::Delete, &after.cells),
            _ => {
                // What `old` does not name is as it was.
                before.clear();
                let walked = self.old.walk(old, before, &mut |_, cell| cell);
                walked.map_err(|broken| format!("in `old`: {}", not_json(old, broken)))?;
                before.merge(beside);
                for (old, new) in before.cells.iter_mut().zip(&after.cells) {
                    if old.kind == Kind::Absent {
                        *old = *new;
                    }
                }
                let same = |c: &usize| before.cells[*c].same(&after.cells[*c], "");
                if !shape.keyed() || !shape.key.iter().all(same) {
                    changes.push(record, Op::Delete, &before.cells);
                }
                changes.push(record, Op::Upsert, &after.cells);
            }
        }
        Ok(())
    }
}

/// The rows of `data` or `old`: one, or a list of them.
fn rows<'a>(called: &str, part: &str, cell: Option<Cell<'a>>, out: &mut Vec<&'a str>) -> Result<(), String> {
    let Some(cell) = cell.filter(Cell::is_value) else {
        return Ok(());
    };
    let mut whole = cell.kind == Kind::Nested;
    if whole && cell.text().starts_with('[') {
        let listed = scan::array(cell.text(), |item| match item.kind {
            Kind::Nested if item.text().starts_with('{') => out.push(item.text()),
            Kind::Null => out.push("{}"),
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
