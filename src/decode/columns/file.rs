//! Columns that take properties of a record's file: its name, its path, its modification time, the record's line, and
//! values that folders in its path name (`/country=DE/`). The mechanism is the same for all formats: after a decoder
//! has made rows, these columns are filled where the record itself left them null.
//!
//! 1. A column's value must be the same when Bronze is decoded again. Bronze has the partition and the record's
//!    number; line and modification time are stored beside the record, in its headers, if a column needs them.
//! 2. The reject of a text record states its line. So the line is stored beside a refused record, too.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{Array, BooleanArray, StringArray, StringBuilder};
use arrow::compute::kernels::zip::zip;
use chrono::{DateTime, TimeDelta, Utc};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::decode::cell::{Cell, CellKind, Datum};
use crate::decode::changes::{TypedRows, remedy_of_null};
use crate::decode::coerce;
use crate::decode::coerce::CellFault;
use crate::decode::decoded::{ChangeOp, Decoded, FilePlace, Payloads, Raw};
use crate::decode::target::Target;
use crate::definition::FileField;

/// The value of a Hive partition that means null.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// What Bronze stores beside a record of a file.
#[derive(Debug, Default, Deserialize)]
struct FileNote<'a> {
    #[serde(rename = "file.line")]
    line: Option<u64>,
    #[serde(rename = "file.modified", borrow)]
    modified: Option<&'a str>,
    /// Only for columnar files, because Bronze has the single records of other files.
    #[serde(rename = "file.base", default)]
    base: u64,
}

impl FileNote<'_> {
    fn read(text: &str) -> FileNote<'_> {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn write(&self, texts: &mut StringBuilder) {
        let mut before = '{';
        if let Some(line) = self.line {
            write!(texts, "{before}\"file.line\":{line}").expect("writing to memory does not fail");
            before = ',';
        }
        if let Some(modified) = self.modified {
            write!(texts, "{before}\"file.modified\":\"{modified}\"").expect("writing to memory does not fail");
        }
        texts.append_value("}");
    }
}

/// What Bronze stores beside the rows of a columnar file: its modification time, and the number of its first row
/// unless that is 0.
pub fn columnar_note(place: &FilePlace) -> Option<String> {
    let modified = place.modified.as_deref()?;
    Some(match place.base {
        0 => format!("{{\"file.modified\":\"{modified}\"}}"),
        base => format!("{{\"file.modified\":\"{modified}\",\"file.base\":{base}}}"),
    })
}

/// The inverse of [`columnar_note`], for a file of this partition.
pub fn columnar_place(partition: &str, note: Option<&str>) -> FilePlace {
    let note = note.map_or(FileNote::default(), FileNote::read);
    FilePlace {
        partition: Some(partition.into()),
        modified: note.modified.map(Arc::from),
        base: note.base,
        ..FilePlace::default()
    }
}

/// A time in the format of [`FilePlace::modified`]. File systems allow times beyond the calendar; these are clamped
/// to its ends.
pub fn moment(time: SystemTime) -> Arc<str> {
    let moment = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => {
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            DateTime::from_timestamp(seconds, since.subsec_nanos()).unwrap_or(DateTime::<Utc>::MAX_UTC)
        }
        Err(before) => {
            let before = TimeDelta::from_std(before.duration()).ok();
            let moment = before.and_then(|before| DateTime::UNIX_EPOCH.checked_sub_signed(before));
            moment.unwrap_or(DateTime::<Utc>::MIN_UTC)
        }
    };
    moment.format("%Y-%m-%dT%H:%M:%S%.6f").to_string().into()
}

/// The columns of a feed that take properties of the file.
#[derive(Debug, Default)]
pub(in crate::decode) struct FileColumns {
    columns: Vec<FileColumn>,
    /// Whether the feed's records come from files.
    of_files: bool,
}

#[derive(Debug)]
struct FileColumn {
    column: usize,
    field: FileField,
    target: Target,
    /// Whether a row must have a value in it.
    required: bool,
    is_key: bool,
}

impl FileColumns {
    /// Finds them among the targets, and makes the targets nullable, because decoders leave these columns empty.
    pub fn from_targets(targets: &mut [Target], key: &mut Vec<usize>) -> FileColumns {
        let mut columns = Vec::new();
        for (column, target) in targets.iter_mut().enumerate() {
            let Some(field) = FileField::among(&target.from) else {
                continue;
            };
            let mut own = target.clone();
            if !matches!(field, FileField::Folder(_)) {
                // The column's formats and null texts only apply to values of records.
                own.patterns.clear();
                own.nulls.clear();
            }
            columns.push(FileColumn {
                column,
                field,
                required: !target.nullable || key.contains(&column),
                is_key: key.contains(&column),
                target: own,
            });
            target.nullable = true;
        }
        key.retain(|column| !columns.iter().any(|file| file.column == *column));
        FileColumns {
            columns,
            of_files: true,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Fills them in rows that were decoded from these records.
    pub fn fill(&self, typed: &mut TypedRows, raw: &Raw) {
        let mut faults = Vec::new();
        let notes = RecordNotes::of_raw(raw);
        for file in &self.columns {
            let array = typed.arrays[file.column].clone();
            if array.null_count() == 0 {
                continue;
            }
            let path = raw.place.partition.as_deref().map(path_of);
            let constant = path.and_then(|path| file.constant(path));
            let cells: Vec<Cell<'_>> = typed
                .record
                .iter()
                .enumerate()
                .map(|(row, record)| {
                    let record = *record as usize;
                    if array.is_valid(row) || typed.ops[row] == ChangeOp::Truncate {
                        return Cell::NULL;
                    }
                    match &file.field {
                        FileField::Line => match notes.line(record) {
                            Some(line) => Cell::with_datum(CellKind::Number, Datum::Int(line as i64)),
                            None => Cell::NULL,
                        },
                        FileField::Modified => notes.modified(record).map_or(Cell::NULL, text),
                        _ => constant.as_deref().map_or(Cell::NULL, text),
                    }
                })
                .collect();
            let filled = coerce::column(&file.target, &cells, &mut faults);
            let was_null: BooleanArray = (0..array.len()).map(|row| Some(array.is_null(row))).collect();
            let array = zip(&was_null, &filled, &array).expect("both are of the column's type and length");
            if file.required {
                let lacks = |row: &usize| array.is_null(*row) && typed.ops[*row] != ChangeOp::Truncate;
                faults.extend((0..array.len()).filter(lacks).map(|row| CellFault {
                    row: row as u32,
                    reason: format!(
                        "column {:?} is {}, but {} is not known of the record's file; {}",
                        file.target.name,
                        if file.is_key { "a key" } else { "required" },
                        file.field,
                        remedy_of_null(file.is_key)
                    ),
                }));
            }
            typed.arrays[file.column] = array;
        }
        typed.refuse(faults);
    }

    /// Adds lines to the reasons of refused records, and stores beside records just read what Bronze must have of
    /// their places: by (1) for all records if a column needs it, and by (2) for refused ones.
    pub fn keep(&self, decoded: &mut Decoded) {
        if !self.of_files || matches!(decoded.raw.payloads, Payloads::Columns { .. }) {
            return;
        }
        let mut is_refused = vec![false; decoded.raw.len()];
        let notes = RecordNotes::of_raw(&decoded.raw);
        for reject in &mut decoded.rejects {
            let Some(record) = reject.record else { continue };
            is_refused[record as usize] = true;
            if let Some(line) = notes.line(record as usize) {
                reject.reason = format!("{}; the record begins on line {line} of its file", reject.reason);
            }
        }
        let asks_for = |field: FileField| self.columns.iter().any(|file| file.field == field);
        let (asks_line, asks_time) = (asks_for(FileField::Line), asks_for(FileField::Modified));
        let asks = asks_line || asks_time;
        let place = &decoded.raw.place;
        if place.lines.is_empty() || !(asks || is_refused.contains(&true)) {
            return; // Bronze has all that is known, or nothing else is needed
        }
        let mut texts = StringBuilder::with_capacity(place.lines.len(), if asks { place.lines.len() * 24 } else { 0 });
        for (line, is_refused) in place.lines.iter().zip(is_refused) {
            let note = FileNote {
                line: (asks_line || is_refused).then_some(*line),
                modified: place.modified.as_deref().filter(|_| asks_time),
                ..FileNote::default()
            };
            match note.line.is_some() || note.modified.is_some() {
                true => note.write(&mut texts),
                false => texts.append_null(),
            }
        }
        if let Payloads::Records { headers, .. } = &mut decoded.raw.payloads {
            *headers = Some(texts.finish());
        }
    }
}

impl FileColumn {
    /// The value that it takes from the file's path, which is the same for all records of the file.
    fn constant<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        match &self.field {
            FileField::Name => path.rsplit('/').next().map(Cow::Borrowed),
            FileField::Path => Some(Cow::Borrowed(path)),
            FileField::Folder(name) => {
                let (folders, _) = path.rsplit_once('/')?;
                let value = folders.split('/').find_map(|folder| {
                    let (key, value) = folder.split_once('=')?;
                    (decoded(key) == name.as_str()).then_some(value)
                })?;
                let value = decoded(value);
                (value != HIVE_NULL).then_some(value)
            }
            FileField::Line | FileField::Modified => None,
        }
    }
}

/// Decodes percent-encoding in a part of a path. If the result is not UTF-8, the part is kept, so that different
/// values stay different.
fn decoded(part: &str) -> Cow<'_, str> {
    percent_decode_str(part).decode_utf8().unwrap_or(Cow::Borrowed(part))
}

fn text(text: &str) -> Cell<'_> {
    Cell::new(CellKind::Text, text)
}

/// The path of a partition's file; for a file that a request named, its name.
fn path_of(partition: &str) -> &str {
    match partition.strip_prefix("backfill:") {
        Some(identity) => identity.split_once('/').map_or(identity, |(_, name)| name),
        None => partition,
    }
}

/// What is known of each record's place: as read from the file, or as stored in Bronze.
struct RecordNotes<'a> {
    raw: &'a Raw,
    headers: Option<&'a StringArray>,
}

impl<'a> RecordNotes<'a> {
    fn of_raw(raw: &'a Raw) -> RecordNotes<'a> {
        let headers = match &raw.payloads {
            Payloads::Records { headers, .. } => headers.as_ref(),
            Payloads::Columns { .. } => None,
        };
        RecordNotes { raw, headers }
    }

    fn note(&self, record: usize) -> FileNote<'a> {
        let headers = self.headers.filter(|headers| headers.is_valid(record));
        headers.map_or(FileNote::default(), |headers| FileNote::read(headers.value(record)))
    }

    /// The record's line; in a columnar file its row, from 1.
    fn line(&self, record: usize) -> Option<u64> {
        match &self.raw.payloads {
            Payloads::Columns { .. } => Some(self.raw.offsets[record] - self.raw.place.base + 1),
            Payloads::Records { .. } => {
                let line = self.raw.place.lines.get(record).copied();
                line.or_else(|| self.note(record).line)
            }
        }
    }

    /// When the file was last written.
    fn modified(&self, record: usize) -> Option<&'a str> {
        let modified = self.raw.place.modified.as_deref();
        modified.or_else(|| self.note(record).modified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn constant(field: &str, path: &str) -> Option<String> {
        let target = Target::new(
            &crate::definition::Column {
                name: "c".into(),
                sql_type: crate::repr::SqlType::Varchar,
                nullable: true,
                from: vec![field.into()],
                format: vec![],
                null: vec![],
            },
            "a test",
        );
        let mut targets = vec![target.expect("a target")];
        let columns = FileColumns::from_targets(&mut targets, &mut vec![]);
        columns.columns[0].constant(path).map(Cow::into_owned)
    }

    #[test]
    fn folders_of_a_path_name_values_as_hive_writes_them() {
        let path = "country=DE/day=2026-01-31/city=K%C3%B6ln%2FS%C3%BCd/x=__HIVE_DEFAULT_PARTITION__/a=b.csv";
        for (field, expected) in [
            ("path.country", Some("DE")),
            ("path.day", Some("2026-01-31")),
            ("path.city", Some("Köln/Süd")),
            ("path.x", None),
            ("path.a", None),
            ("path.none", None),
            ("file.name", Some("a=b.csv")),
            ("file.path", Some(path)),
        ] {
            assert_eq!(constant(field, path).as_deref(), expected, "{field}");
        }
        assert_eq!(path_of("backfill:0a1b-17+3/a.csv"), "a.csv");
    }

    /// `p=%FF` and `p=%FE` both became the replacement character.
    #[test]
    fn values_of_folders_that_are_no_utf_8_stay_apart_as_they_are_written() {
        for value in ["%FF", "%FE", "a%C3", "%C3%28%20"] {
            let path = format!("p={value}/a.csv");
            assert_eq!(constant("path.p", &path).as_deref(), Some(value));
        }
        assert_eq!(constant("path.p", "p=%C3%BC%25/a.csv").as_deref(), Some("ü%"));
    }

    /// A file whose modification time lies beyond the end of the calendar made its reader panic, which ended the run.
    #[test]
    fn times_of_files_beyond_the_calendar_are_its_ends() {
        let far = Duration::from_secs(99_999_999_999_999);
        let [after, before] = [SystemTime::UNIX_EPOCH + far, SystemTime::UNIX_EPOCH - far].map(moment);
        assert!(after.starts_with("+262142-12-31T23:59:59"), "{after}");
        assert!(before.starts_with("-262143-01-01T00:00:00"), "{before}");
        let early = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(&*moment(early), "1969-12-31T23:59:58.500000");
    }

    #[test]
    fn what_bronze_keeps_reads_back() {
        for base in [0, 7] {
            let place = FilePlace {
                modified: Some(moment(SystemTime::UNIX_EPOCH)),
                base,
                ..FilePlace::default()
            };
            let back = columnar_place("p", columnar_note(&place).as_deref());
            assert_eq!((back.base, back.modified), (base, place.modified));
        }
        assert_eq!(columnar_place("p", None).base, 0);
        let mut texts = StringBuilder::new();
        let modified = moment(SystemTime::UNIX_EPOCH);
        for (line, modified) in [(Some(7), None), (None, Some(&modified)), (Some(8), Some(&modified))] {
            let modified = modified.map(|modified| &**modified);
            FileNote {
                line,
                modified,
                base: 0,
            }
            .write(&mut texts);
        }
        let texts = texts.finish();
        let read: Vec<_> = texts.iter().flatten().map(FileNote::read).collect();
        assert_eq!(
            read.iter().map(|note| note.line).collect::<Vec<_>>(),
            [Some(7), None, Some(8)]
        );
        assert_eq!(read[2].modified, Some("1970-01-01T00:00:00.000000"));
    }
}
