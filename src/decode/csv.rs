//! CSV records. The header says which field fills which column; each record is split alone, so an unbalanced
//! quote breaks its own record only. (arrow-csv would read on into the next record, and does not tell a quoted
//! empty field from an empty one.)
//!
//! An empty field is null, for VARCHAR too; a quoted empty field is the empty text. Fields are not trimmed
//! for VARCHAR. A record without any text is no record (counted as `(blank line)`).

use std::collections::BTreeMap;

use arrow::array::Array;
use smallvec::SmallVec;

use super::cell::{Cell, Kind};
use super::changes::{Changes, Outcome, Shape};
use super::{Batch, utf8};

/// Decodes CSV records.
#[derive(Debug, Default)]
pub(super) struct Csv {
    mapping: Option<Mapping>,
}

/// What a header line says.
#[derive(Debug)]
struct Mapping {
    header: String,
    names: Vec<String>,
    /// By field: the columns it fills.
    takes: Vec<SmallVec<[u32; 1]>>,
    /// Why the header itself cannot be used.
    broken: Option<&'static str>,
}

impl Mapping {
    fn new(shape: &Shape, header: &str) -> Self {
        let mut names = Vec::new();
        let line = trimmed(header.strip_prefix('\u{feff}').unwrap_or(header));
        let split = split(line, |_, cell| {
            names.push(cell.resolved().unwrap_or_default().into_owned())
        });
        let mut takes = vec![SmallVec::new(); names.len()];
        for (column, target) in shape.targets.iter().enumerate() {
            let field = target
                .from
                .iter()
                .find_map(|from| names.iter().position(|name| name == from));
            if let Some(field) = field {
                takes[field].push(column as u32);
            }
        }
        Mapping {
            header: header.to_string(),
            names,
            takes,
            broken: split.err(),
        }
    }
}

impl Csv {
    /// What the records come to.
    pub fn decode(&mut self, shape: &Shape, batch: &Batch<'_>, header: Option<&str>) -> Outcome {
        let values = batch.values;
        let mut changes = Changes::new(shape.targets.len(), values.len());
        let Some(header) = header else {
            for record in 0..values.len() {
                changes.reject(
                    record,
                    "the file has no header line; write the columns' names first".to_string(),
                );
            }
            return Outcome::new(changes.typed(shape, ""), batch.times(), Vec::new());
        };
        let known = self.mapping.take().filter(|mapping| mapping.header == header);
        let mapping = &*self
            .mapping
            .insert(known.unwrap_or_else(|| Mapping::new(shape, header)));
        let expected = mapping.names.len();
        let mut cells = vec![Cell::ABSENT; shape.targets.len()];
        for record in 0..values.len() {
            if values.is_null(record) {
                changes.reject(record, "the record is null; a CSV record is a line of text".to_string());
                continue;
            }
            let text = match utf8(values.value(record)) {
                Ok(text) => trimmed(text),
                Err(reason) => {
                    changes.reject(record, reason);
                    continue;
                }
            };
            if text.is_empty() && expected != 1 {
                changes.count("(blank line)");
                continue;
            }
            if let Some(what) = mapping.broken {
                changes.reject(
                    record,
                    format!("the header line cannot be read: {what}; repair the file"),
                );
                continue;
            }
            cells.fill(Cell::ABSENT);
            let split = split(text, |field, cell| {
                for column in mapping.takes.get(field).into_iter().flatten() {
                    cells[*column as usize] = cell;
                }
            });
            match split {
                Ok(fields) if fields == expected => changes.push(record, super::Op::Upsert, &cells),
                Ok(fields) => {
                    let reason = format!(
                        "the record has {fields} fields, the header {expected}; quote fields that hold commas or line ends"
                    );
                    changes.reject(record, reason);
                }
                Err(what) => changes.reject(record, format!("the record cannot be read: {what}; repair it")),
            }
        }
        // The same name twice counts once: results must not depend on how records are batched.
        let mut ignored = BTreeMap::new();
        if !changes.ops.is_empty() {
            for (name, takes) in mapping.names.iter().zip(&mapping.takes) {
                if takes.is_empty() {
                    ignored.insert(name.clone(), changes.ops.len() as u64);
                }
            }
        }
        let typed = changes.coerce(shape, |column| {
            let target = &shape.targets[column];
            Some(format!(
                "column {:?} is required, but the header has no {}: it has {}; list its name there in the column's `from`, or make it nullable",
                target.name,
                target.from.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(" or "),
                super::coerce::shown(&mapping.names.join(",")),
            ))
        });
        Outcome::new(typed, batch.times(), ignored.into_iter().collect())
    }
}

/// Without its line end.
fn trimmed(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Calls `put` with each field of a record; the number of fields.
fn split<'a>(record: &'a str, mut put: impl FnMut(usize, Cell<'a>)) -> Result<usize, &'static str> {
    let bytes = record.as_bytes();
    let mut field = 0;
    let mut start = 0;
    loop {
        let end = if bytes.get(start) == Some(&b'"') {
            let (close, kind) = closing(bytes, start + 1)?;
            put(field, Cell::new(kind, &record[start + 1..close]));
            close + 1
        } else {
            let end = memchr::memchr(b',', &bytes[start..]).map_or(bytes.len(), |n| start + n);
            let kind = if start == end { Kind::Null } else { Kind::Text };
            put(field, Cell::new(kind, &record[start..end]));
            end
        };
        field += 1;
        match bytes.get(end) {
            None => return Ok(field),
            Some(b',') => start = end + 1,
            Some(_) => return Err("a quoted field goes on behind its closing quote"),
        }
    }
}

/// Where a quoted field closes, and whether quotes are doubled in it.
fn closing(bytes: &[u8], from: usize) -> Result<(usize, Kind), &'static str> {
    let mut at = from;
    let mut kind = Kind::Text;
    loop {
        at += memchr::memchr(b'"', &bytes[at..]).ok_or("a quoted field does not end")?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Ok((at, kind));
        }
        kind = Kind::Doubled;
        at += 2;
    }
}
