//! Looks at a sample of the files.

use std::collections::HashSet;
use std::io::Read;

use super::clock::{Clock, Timed};
use super::columns::Columns;
use super::files::Listed;
use super::form::{FileForm, Form, JsonForm, form_of, row_of};
use super::{InferError, SampleLimits, columnar};
use crate::decode::{HeaderRepeat, csv_names, csv_values, is_blank_csv_row, repeated_header};
use crate::definition::TextDialect;
use crate::source::{LineDocuments, NamedFile, TextRecords, read_head, to_utf8};

/// A record longer than this is passed over, with the rest of its file.
const RECORD: usize = 16 << 20;

/// Records of each file that are looked at before more of any.
const FIRST: u64 = 1_000;

/// What was seen.
pub(super) struct Looked {
    pub form: Form,
    pub columns: Columns,
    /// Those that were looked at, and whether as a whole.
    pub files: Vec<(NamedFile, bool)>,
    pub records: u64,
    /// Rows of CSV that hold nothing but delimiters, beside the records.
    pub blank_rows: u64,
    /// See [`FileForm::odd_header`].
    pub odd_header: Option<(u64, usize, usize)>,
    /// Files that were passed over, and why.
    pub passed: Vec<(NamedFile, String)>,
}

/// Looks at files until the limits are reached.
pub(super) fn look(listed: &Listed, limits: &SampleLimits, clock: Clock) -> Result<Looked, InferError> {
    let is_over = |records: u64| clock.is_over() || records >= limits.records;
    let mut looked: Option<Looked> = None;
    let mut passed = Vec::new();
    let (mut forms, form) = survey(listed, limits, clock);
    for file in listed.files.iter().take(limits.files) {
        let found = match forms.next().unwrap_or_else(|| form_of(file, clock)) {
            Ok(form) => form,
            Err(reason) => {
                passed.push((file.clone(), reason));
                if clock.is_over() {
                    break;
                }
                continue;
            }
        };
        let looked = looked.get_or_insert_with(|| Looked {
            form: form.unwrap_or(found.form),
            columns: Columns::default(),
            files: Vec::new(),
            records: 0,
            blank_rows: 0,
            odd_header: None,
            passed: Vec::new(),
        });
        if let Some(reason) = found.misfit(&looked.form) {
            passed.push((file.clone(), reason));
            continue;
        }
        looked.odd_header = looked.odd_header.or(found.odd_header);
        let part = Part {
            skip: 0,
            limit: FIRST,
            clock,
            is_over: &is_over,
        };
        match observe(file, looked, &part) {
            Ok(is_whole) => looked.files.push((file.clone(), is_whole)),
            Err(reason) => passed.push((file.clone(), reason)),
        }
        if is_over(looked.records) {
            break;
        }
    }
    // Now what is behind the first records of each.
    let files = looked.iter().flat_map(|looked| looked.files.clone()).enumerate();
    for (n, (file, _)) in files.filter(|(_, (_, is_whole))| !is_whole).collect::<Vec<_>>() {
        let Some(looked) = looked.as_mut().filter(|looked| !is_over(looked.records)) else {
            break;
        };
        let part = Part {
            skip: FIRST,
            limit: u64::MAX,
            clock,
            is_over: &is_over,
        };
        // What cannot be read any more was looked at in part.
        looked.files[n].1 = observe(&file, looked, &part).unwrap_or(false);
    }
    let usable = looked.filter(|looked| !looked.files.is_empty() && !looked.columns.all.is_empty());
    match (usable, passed.first()) {
        (Some(looked), _) => Ok(Looked { passed, ..looked }),
        (None, Some((file, reason))) => Err(InferError::Unreadable {
            path: file.shown(),
            reason: reason.clone(),
        }),
        (None, None) => Err(InferError::Unreadable {
            path: listed.pattern.clone(),
            reason: "no record of it has a field; name files of CSV, JSON objects, Parquet or Avro".to_string(),
        }),
    }
}

/// What files are: the first of them, as many as a part of the time allows, and the form that the most of these are read rightly as.
fn survey(
    listed: &Listed,
    limits: &SampleLimits,
    clock: Clock,
) -> (impl Iterator<Item = Result<FileForm, String>> + use<>, Option<Form>) {
    /// Forms that are tried; of a folder with more, the rest is strange anyway.
    const TRIED: usize = 20;
    let part = Clock::new(limits.time / 3);
    let files = listed.files.iter().take(limits.files);
    let forms: Vec<Result<FileForm, String>> = files
        .enumerate()
        .map_while(|(n, file)| (n == 0 || !part.is_over()).then(|| form_of(file, clock)))
        .collect();
    let mut tried: Vec<Form> = Vec::new();
    for found in forms.iter().flatten() {
        if tried.len() < TRIED && !tried.contains(&found.form) {
            tried.push(found.form);
        }
    }
    let fitting = |form: &Form| {
        forms
            .iter()
            .flatten()
            .filter(|found| found.misfit(form).is_none())
            .count()
    };
    // Of several that read as many, the first: the newest file's.
    let best = tried.iter().rev().max_by_key(|form| fitting(form)).copied();
    (forms.into_iter(), best)
}

/// What of a file is looked at.
pub(super) struct Part<'a> {
    /// Records that were looked at before.
    pub skip: u64,
    /// Records behind them, at most.
    pub limit: u64,
    pub clock: Clock,
    /// Whether to stop after so many records of all files.
    pub is_over: &'a dyn Fn(u64) -> bool,
}

impl Part<'_> {
    /// Whether the record of this number is the first that is not looked at, where so many of all files were.
    pub fn ends_at(&self, n: u64, records: u64) -> bool {
        n.saturating_sub(self.skip) >= self.limit || n % 256 == 255 && (self.is_over)(records)
    }
}

/// Takes in the records of a part of a file; says whether they were the last of it.
fn observe(file: &NamedFile, looked: &mut Looked, part: &Part<'_>) -> Result<bool, String> {
    match looked.form {
        Form::Parquet => columnar::parquet(file, looked, part),
        Form::Avro => columnar::avro(file, looked, part),
        Form::Csv(dialect) => observe_csv(file, looked, &dialect, part),
        Form::Json(form) => observe_json(file, looked, form, part),
    }
}

fn observe_json(file: &NamedFile, looked: &mut Looked, form: JsonForm, part: &Part<'_>) -> Result<bool, String> {
    let plain = LineDocuments::new(to_utf8(text_of(file, part.clock)?, form.charset));
    let mut records = TextRecords::new(plain, None, RECORD);
    let columns = &mut looked.columns;
    Ok(each_record(&mut records, part, &mut looked.records, |text| {
        let row = match form.envelopes {
            true => row_of(text).unwrap_or_default(),
            false => text,
        };
        columns.observe_object(row, !form.envelopes)
    }))
}

fn observe_csv(file: &NamedFile, looked: &mut Looked, dialect: &TextDialect, part: &Part<'_>) -> Result<bool, String> {
    let plain = to_utf8(text_of(file, part.clock)?, dialect.charset);
    let mut records = TextRecords::new(plain, Some(*dialect), RECORD);
    let head = read_head(&mut records).map_err(|_| "its header cannot be read".to_string())?;
    let dialect = *records.dialect().unwrap_or(dialect);
    let header = head.header.filter(|_| dialect.header);
    let repeated = header.as_deref().and_then(|header| repeated_header(header, &dialect));
    let names = header.map(|header| csv_names(&header, &dialect));
    let (all, blank_rows) = (&mut looked.columns, &mut looked.blank_rows);
    let mut columns: Vec<Option<usize>> = Vec::new();
    let mut before = HashSet::new();
    for (n, name) in names.iter().flatten().enumerate() {
        // A name that comes again names the first field: the other is known by its place.
        let column = match name.is_empty() || !before.insert(name) {
            true => all.of_field(&format!("#{}", n + 1), None),
            false => all.of_field(name, Some(&columns)),
        };
        columns.push(column);
    }
    Ok(each_record(&mut records, part, &mut looked.records, |text| {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if repeated
            .as_ref()
            .is_some_and(|repeated| repeated.find(text) != HeaderRepeat::None)
        {
            return false;
        }
        if names.as_ref().is_some_and(|names| names.len() > 1) && is_blank_csv_row(text, &dialect) {
            *blank_rows += 1;
            return false;
        }
        let Ok(fields) = csv_values(text, &dialect) else {
            return false;
        };
        if names.is_none() && columns.is_empty() {
            columns = (1..=fields.len())
                .map(|place| all.of_field(&format!("#{place}"), None))
                .collect();
        }
        if fields.len() != columns.len() {
            return false;
        }
        for (column, field) in columns.iter().zip(&fields) {
            if let (Some(column), Some(field)) = (column, field) {
                all.observe_csv(*column, field);
            }
        }
        all.rows.end_row(true);
        true
    }))
}

/// A file's bytes without their compression, as long as there is time.
fn text_of(file: &NamedFile, clock: Clock) -> Result<Box<dyn Read>, String> {
    Ok(Box::new(Timed {
        source: file.text()?,
        clock,
    }))
}

/// Gives the records of a part of a file to `each`, which says whether it counts. Says whether they were the last of the file.
fn each_record<R: Read>(
    records: &mut TextRecords<R>,
    part: &Part<'_>,
    count: &mut u64,
    mut each: impl FnMut(&str) -> bool,
) -> bool {
    for n in 0.. {
        if part.ends_at(n, *count) {
            return false;
        }
        match records.next() {
            Ok(Some(record)) if n >= part.skip => {
                *count += u64::from(each(&String::from_utf8_lossy(record.bytes)));
            }
            Ok(Some(_)) => (),
            Ok(None) => return true,
            // What cannot be read is behind all that can be.
            Err(_) => return !part.clock.is_over(),
        }
    }
    true
}
