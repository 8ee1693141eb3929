//! Reads a sample of the files.

use std::collections::HashSet;
use std::io::Read;

use super::columns::CandidateColumns;
use super::deadline::{Deadline, Timed};
use super::files::SampleFiles;
use super::form::{InferredFile, InferredFormat, JsonForm, form_of, row_of};
use super::{InferError, SampleLimits, columnar};
use crate::decode::{HeaderRepeat, csv_names, csv_values, is_blank_csv_row, repeated_header};
use crate::definition::TextDialect;
use crate::source::{LineDocuments, NamedFile, TextRecords, read_head, to_utf8};

/// The most bytes of a record; a longer one is skipped, with the rest of its file.
const RECORD: usize = 16 << 20;

/// The number of records that are read from each file before more are read from any.
const FIRST: u64 = 1_000;

/// The observations on a sample.
pub(super) struct InferSample {
    pub form: InferredFormat,
    pub columns: CandidateColumns,
    /// The files that were sampled, and whether each was read completely.
    pub files: Vec<(NamedFile, bool)>,
    pub records: u64,
    /// CSV rows that contain only delimiters; they are not counted as records.
    pub blank_rows: u64,
    /// See [`InferredFile::odd_header`].
    pub odd_header: Option<(u64, usize, usize)>,
    /// Files that were skipped, and why.
    pub passed: Vec<(NamedFile, String)>,
}

/// Samples files until a limit is reached.
pub(super) fn sample_files(
    listed: &SampleFiles,
    limits: &SampleLimits,
    clock: Deadline,
) -> Result<InferSample, InferError> {
    let is_over = |records: u64| clock.is_over() || records >= limits.records;
    let mut looked: Option<InferSample> = None;
    let mut passed = Vec::new();
    let (mut forms, form) = survey(listed, limits, clock);
    for file in listed.files.iter().take(limits.files) {
        let surveyed = match forms.next().unwrap_or_else(|| form_of(file, clock)) {
            Ok(form) => form,
            Err(reason) => {
                passed.push((file.clone(), reason));
                if clock.is_over() {
                    break;
                }
                continue;
            }
        };
        let looked = looked.get_or_insert_with(|| InferSample {
            form: form.unwrap_or(surveyed.form),
            columns: CandidateColumns::default(),
            files: Vec::new(),
            records: 0,
            blank_rows: 0,
            odd_header: None,
            passed: Vec::new(),
        });
        if let Some(reason) = surveyed.misfit(&looked.form) {
            passed.push((file.clone(), reason));
            continue;
        }
        looked.odd_header = looked.odd_header.or(surveyed.odd_header);
        let part = SampleRange {
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
    // The second pass reads the files beyond their first records.
    let files = looked.iter().flat_map(|looked| looked.files.clone()).enumerate();
    for (n, (file, _)) in files.filter(|(_, (_, is_whole))| !is_whole).collect::<Vec<_>>() {
        let Some(looked) = looked.as_mut().filter(|looked| !is_over(looked.records)) else {
            break;
        };
        let part = SampleRange {
            skip: FIRST,
            limit: u64::MAX,
            clock,
            is_over: &is_over,
        };
        // A file that has become unreadable counts as sampled in part.
        looked.files[n].1 = observe(&file, looked, &part).unwrap_or(false);
    }
    let usable = looked.filter(|looked| !looked.files.is_empty() && !looked.columns.all.is_empty());
    match (usable, passed.first()) {
        (Some(looked), _) => Ok(InferSample { passed, ..looked }),
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

/// Infers the formats of the first files, as many as a share of the time allows, and the format that reads the most of
/// these correctly.
fn survey(
    listed: &SampleFiles,
    limits: &SampleLimits,
    clock: Deadline,
) -> (
    impl Iterator<Item = Result<InferredFile, String>> + use<>,
    Option<InferredFormat>,
) {
    /// The most formats that are compared; a folder with more is a mixture anyway.
    const TRIED: usize = 20;
    let part = Deadline::new(limits.time / 3);
    let files = listed.files.iter().take(limits.files);
    let forms: Vec<Result<InferredFile, String>> = files
        .enumerate()
        .map_while(|(n, file)| (n == 0 || !part.is_over()).then(|| form_of(file, clock)))
        .collect();
    let mut tried: Vec<InferredFormat> = Vec::new();
    for found in forms.iter().flatten() {
        if tried.len() < TRIED && !tried.contains(&found.form) {
            tried.push(found.form);
        }
    }
    let fitting = |form: &InferredFormat| {
        forms
            .iter()
            .flatten()
            .filter(|found| found.misfit(form).is_none())
            .count()
    };
    // If several formats read equally many files, the first wins, which is the newest file's.
    let best = tried.iter().rev().max_by_key(|form| fitting(form)).copied();
    (forms.into_iter(), best)
}

/// A range of a file's records.
pub(super) struct SampleRange<'a> {
    /// The number of records that were read before.
    pub skip: u64,
    /// The most records to read after those.
    pub limit: u64,
    pub clock: Deadline,
    /// Whether to stop after this many records of all files.
    pub is_over: &'a dyn Fn(u64) -> bool,
}

impl SampleRange<'_> {
    /// Whether the record with number `n` is beyond the range, given the number of records read so far in all files.
    pub fn ends_at(&self, n: u64, records: u64) -> bool {
        n.saturating_sub(self.skip) >= self.limit || n % 256 == 255 && (self.is_over)(records)
    }
}

/// Observes the records in a range of a file; returns whether the file ended.
fn observe(file: &NamedFile, looked: &mut InferSample, part: &SampleRange<'_>) -> Result<bool, String> {
    match looked.form {
        InferredFormat::Parquet => columnar::parquet(file, looked, part),
        InferredFormat::Avro => columnar::avro(file, looked, part),
        InferredFormat::Csv(dialect) => observe_csv(file, looked, &dialect, part),
        InferredFormat::Json(form) => observe_json(file, looked, form, part),
    }
}

fn observe_json(
    file: &NamedFile,
    looked: &mut InferSample,
    form: JsonForm,
    part: &SampleRange<'_>,
) -> Result<bool, String> {
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

fn observe_csv(
    file: &NamedFile,
    looked: &mut InferSample,
    dialect: &TextDialect,
    part: &SampleRange<'_>,
) -> Result<bool, String> {
    let plain = to_utf8(text_of(file, part.clock)?, dialect.charset);
    let mut records = TextRecords::new(plain, Some(*dialect), RECORD);
    let head = read_head(&mut records).map_err(|_| "its header cannot be read".to_string())?;
    let dialect = *records.dialect().unwrap_or(dialect);
    let header = head.header.filter(|_| dialect.header);
    let repeated = header
        .as_deref()
        .and_then(|header| repeated_header(header, &dialect, &[]));
    let names = header.map(|header| csv_names(&header, &dialect));
    let (all, blank_rows) = (&mut looked.columns, &mut looked.blank_rows);
    let mut columns: Vec<Option<usize>> = Vec::new();
    let mut before = HashSet::new();
    for (n, name) in names.iter().flatten().enumerate() {
        // A repeated name means the first field of that name; the other one is identified by its position.
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

/// A file's uncompressed bytes, until the time is over.
fn text_of(file: &NamedFile, clock: Deadline) -> Result<Box<dyn Read>, String> {
    Ok(Box::new(Timed {
        source: file.text()?,
        clock,
    }))
}

/// Passes the records in a range of a file to `each`, which returns whether a record counts. Returns whether the file
/// ended.
fn each_record<R: Read>(
    records: &mut TextRecords<R>,
    part: &SampleRange<'_>,
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
            // A file ends where it cannot be read any further.
            Err(_) => return !part.clock.is_over(),
        }
    }
    true
}
