//! Looks at a sample of the files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::columns::Columns;
use super::files::Listed;
use super::{InferError, SampleLimits, columnar, dialect};
use crate::decode::{FieldValue, csv_fields, csv_names, json_fields};
use crate::definition::{Charset, TextDialect};
use crate::source::{FileMark, Peeked, TextRecords, file_mark, open_text, read_head, to_utf8};

/// Bytes of a file's beginning that its dialect is told by.
const SAMPLE: usize = 256 << 10;

/// A record longer than this is passed over, with the rest of its file.
const RECORD: usize = 16 << 20;

/// Records of each file that are looked at before more of any.
const FIRST: u64 = 1_000;

/// What the files are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    Csv(TextDialect),
    /// Lines of JSON; whether they are change envelopes.
    Json {
        charset: Charset,
        envelopes: bool,
    },
    Parquet,
    Avro,
}

impl Form {
    fn kind(&self) -> &'static str {
        match self {
            Form::Csv(_) => "CSV",
            Form::Json { envelopes: false, .. } => "lines of JSON",
            Form::Json { envelopes: true, .. } => "change envelopes",
            Form::Parquet => "Parquet",
            Form::Avro => "Avro",
        }
    }
}

/// What was seen.
pub(super) struct Looked {
    pub form: Form,
    pub columns: Columns,
    /// Those that were looked at, and whether as a whole.
    pub files: Vec<(PathBuf, bool)>,
    pub records: u64,
    /// Files that were passed over, and why.
    pub passed: Vec<(PathBuf, String)>,
}

/// Looks at files until the limits are reached.
pub(super) fn look(listed: &Listed, limits: &SampleLimits) -> Result<Looked, InferError> {
    let started = Instant::now();
    let is_over = |records: u64| started.elapsed() >= limits.time || records >= limits.records;
    let mut looked: Option<Looked> = None;
    let mut passed = Vec::new();
    for path in listed.files.iter().take(limits.files) {
        let found = match form_of(path) {
            Ok(form) => form,
            Err(reason) => {
                passed.push((path.clone(), reason));
                continue;
            }
        };
        let looked = looked.get_or_insert_with(|| Looked {
            form: found,
            columns: Columns::default(),
            files: Vec::new(),
            records: 0,
            passed: Vec::new(),
        });
        if found.kind() != looked.form.kind() {
            passed.push((path.clone(), format!("it is {}", found.kind())));
            continue;
        }
        if let (Form::Csv(mine), Form::Csv(others)) = (&found, &looked.form)
            && (mine.delimiter, mine.header) != (others.delimiter, others.header)
        {
            passed.push((path.clone(), "it is CSV of another dialect".to_string()));
            continue;
        }
        let part = Part {
            skip: 0,
            limit: FIRST,
            is_over: &is_over,
        };
        match take(path, looked, &part) {
            Ok(is_whole) => looked.files.push((path.clone(), is_whole)),
            Err(reason) => passed.push((path.clone(), reason)),
        }
        if is_over(looked.records) {
            break;
        }
    }
    // Now what is behind the first records of each.
    let files = looked.iter().flat_map(|looked| looked.files.clone()).enumerate();
    for (n, (path, _)) in files.filter(|(_, (_, is_whole))| !is_whole).collect::<Vec<_>>() {
        let Some(looked) = looked.as_mut().filter(|looked| !is_over(looked.records)) else {
            break;
        };
        let part = Part {
            skip: FIRST,
            limit: u64::MAX,
            is_over: &is_over,
        };
        // What cannot be read any more was looked at in part.
        looked.files[n].1 = take(&path, looked, &part).unwrap_or(false);
    }
    let usable = looked.filter(|looked| !looked.files.is_empty() && !looked.columns.all.is_empty());
    match (usable, passed.first()) {
        (Some(looked), _) => Ok(Looked { passed, ..looked }),
        (None, Some((path, reason))) => Err(InferError::Unreadable {
            path: path.display().to_string(),
            reason: reason.clone(),
        }),
        (None, None) => Err(InferError::Unreadable {
            path: listed.pattern.clone(),
            reason: "no record of it has a field; name files of CSV, lines of JSON objects, Parquet or Avro"
                .to_string(),
        }),
    }
}

/// What a file is.
fn form_of(path: &Path) -> Result<Form, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    match file_mark(file) {
        Some(FileMark::Parquet) => return Ok(Form::Parquet),
        Some(FileMark::Avro) => return Ok(Form::Avro),
        _ => (),
    }
    let head = Peeked::new(open_text(path)?, SAMPLE).head;
    let charset = dialect::charset(&head);
    let mut sample = String::new();
    let mut text = Vec::new();
    // What is cut in the middle of a character is told as text all the same.
    let _ = to_utf8(Box::new(std::io::Cursor::new(head)), charset).read_to_end(&mut text);
    sample.push_str(&String::from_utf8_lossy(&text));
    match sample.trim_start().as_bytes().first() {
        None => Err("there is nothing in it".to_string()),
        Some(b'{') => {
            let line = sample.trim_start().lines().next().unwrap_or_default();
            if !json_fields(line, |_, _| ()) && sample.trim_start().lines().count() > 1 {
                return Err("its first line is no whole JSON object; write one object a line".to_string());
            }
            Ok(Form::Json {
                charset,
                envelopes: row_of(line).is_some(),
            })
        }
        Some(b'[') if sample.trim_start().starts_with("[{") || sample.trim_start().starts_with("[\n") => {
            Err("it is a JSON array; write one object a line".to_string())
        }
        Some(b'<') => Err("it looks like HTML or XML".to_string()),
        Some(_) => Ok(Form::Csv(dialect::csv(&sample, charset))),
    }
}

/// The row of a change envelope, `after` or else `before`; none: it is no envelope. Empty: it has no row.
fn row_of(text: &str) -> Option<&str> {
    let (mut op, mut after, mut before, mut payload) = (false, None, None, None);
    json_fields(text, |key, value| match (key.as_ref(), value) {
        ("op", FieldValue::Text(_)) => op = true,
        ("after", FieldValue::Object(text)) => after = Some(text),
        ("before", FieldValue::Object(text)) => before = Some(text),
        ("payload", FieldValue::Object(text)) => payload = Some(text),
        _ => (),
    });
    match payload.filter(|_| !op) {
        Some(payload) => row_of(payload),
        None => op.then(|| after.or(before).unwrap_or_default()),
    }
}

/// What of a file is looked at.
struct Part<'a> {
    /// Records that were looked at before.
    skip: u64,
    /// Records behind them, at most.
    limit: u64,
    /// Whether to stop after so many records of all files.
    is_over: &'a dyn Fn(u64) -> bool,
}

impl Part<'_> {
    /// Whether the record of this number is the first that is not looked at.
    fn ends_at(&self, n: u64, records: u64) -> bool {
        n.saturating_sub(self.skip) >= self.limit || n % 256 == 255 && (self.is_over)(records)
    }
}

/// Takes records of a file; says whether that were the last of it.
fn take(path: &Path, looked: &mut Looked, part: &Part<'_>) -> Result<bool, String> {
    match looked.form {
        Form::Parquet => looked.records += columnar::parquet(path, &mut looked.columns)?,
        Form::Avro => looked.records += columnar::avro(path, &mut looked.columns, u64::MAX)?,
        Form::Csv(dialect) => return take_csv(path, looked, &dialect, part),
        Form::Json { charset, envelopes } => {
            let mut records = TextRecords::new(to_utf8(open_text(path)?, charset), None, RECORD);
            for n in 0.. {
                if part.ends_at(n, looked.records) {
                    return Ok(false);
                }
                let Ok(Some(record)) = records.next() else { break };
                if n < part.skip {
                    continue;
                }
                let text = String::from_utf8_lossy(record.bytes);
                let row = if envelopes {
                    row_of(&text).unwrap_or_default()
                } else {
                    &text
                };
                if looked.columns.observe_object(row, !envelopes) {
                    looked.records += 1;
                }
            }
        }
    }
    Ok(true)
}

fn take_csv(path: &Path, looked: &mut Looked, dialect: &TextDialect, part: &Part<'_>) -> Result<bool, String> {
    let mut records = TextRecords::new(to_utf8(open_text(path)?, dialect.charset), Some(*dialect), RECORD);
    let head = read_head(&mut records).map_err(|_| "its header cannot be read".to_string())?;
    let dialect = *records.dialect().unwrap_or(dialect);
    let header = head.header.filter(|_| dialect.header);
    let names = header.map(|header| csv_names(&header, &dialect));
    let mut columns: Vec<Option<usize>> = Vec::new();
    for (n, name) in names.iter().flatten().enumerate() {
        let is_again = names.iter().flatten().take(n).any(|before| before == name);
        let column = match (name.is_empty(), is_again) {
            (true, _) => looked.columns.of_field(&format!("#{}", n + 1), None),
            (false, true) => None,
            (false, false) => looked.columns.of_field(name, Some(&columns)),
        };
        columns.push(column);
    }
    for n in 0.. {
        if part.ends_at(n, looked.records) {
            return Ok(false);
        }
        let Ok(Some(record)) = records.next() else { break };
        if n < part.skip {
            continue;
        }
        let text = String::from_utf8_lossy(record.bytes);
        let Ok(fields) = csv_fields(&text, &dialect) else {
            continue;
        };
        if names.is_none() && columns.is_empty() {
            columns = (1..=fields.len())
                .map(|place| looked.columns.of_field(&format!("#{place}"), None))
                .collect();
        }
        if fields.len() != columns.len() {
            continue;
        }
        looked.records += 1;
        for (column, field) in columns.iter().zip(&fields) {
            if let Some(seen) = column.and_then(|column| looked.columns.seen(column))
                && !field.is_empty()
            {
                seen.observe_text(field);
            }
        }
    }
    Ok(true)
}
