//! Interprets a header: which field fills which column, and whether a file with this header belongs to the feed.

use std::cell::OnceCell;

use hashbrown::HashSet;
use smallvec::SmallVec;

use crate::decode::coerce::shown;
use crate::decode::formats::csv::again::{HeaderRepeat, RepeatedHeader, without_mark};
use crate::decode::formats::csv::by_name::FieldsByName;
use crate::decode::formats::csv::guess::{guess, without_header};
use crate::decode::formats::csv::split::{fields, trimmed};
use crate::decode::names::shortened;
use crate::definition::{Column, Feed, FileField, Input, TextDialect};

/// A column to be found in a header.
#[derive(Clone, Copy)]
pub(super) struct HeaderColumn<'a> {
    pub name: &'a str,
    /// The names that its field may have, in the order of precedence.
    pub from: &'a [String],
    /// Whether every record must have it.
    pub required: bool,
    /// Whether it is in the key, which is never null.
    pub is_key: bool,
}

impl HeaderColumn<'_> {
    /// Whether it takes a property of the file instead of a field.
    pub fn is_of_file(&self) -> bool {
        FileField::among(self.from).is_some()
    }
}

/// The index of a field that is given by number (`#1` has index 0).
pub(super) fn place(from: &str) -> Option<usize> {
    from.strip_prefix('#')?.parse::<usize>().ok()?.checked_sub(1)
}

/// The delimiter that a file's first line declares in Excel's form, and the text behind that line.
pub(super) fn declared_delimiter(header: &str) -> Option<(u8, &str)> {
    let rest = header.strip_prefix("sep=")?;
    let delimiter = *rest.as_bytes().first().filter(|byte| byte.is_ascii())?;
    Some((delimiter, rest[1..].strip_prefix('\n').unwrap_or(&rest[1..])))
}

/// The interpretation of a header.
#[derive(Debug)]
pub(super) struct Heading {
    /// The dialect by which the file's records are parsed.
    pub dialect: TextDialect,
    /// The names of the fields; empty for a file without a header line.
    pub names: Vec<String>,
    /// For each field, the columns that it fills.
    pub takes: Vec<SmallVec<[u32; 1]>>,
    /// For a file without a header line, how many fields its records have, and whether they may have more.
    pub unnamed: Option<(usize, bool)>,
    /// Why the header itself is unusable.
    pub broken: Option<&'static str>,
    /// Recognises records that are headers, if the header has several names.
    pub repeated: Option<RepeatedHeader>,
    /// For each column, whether no field fills it.
    absent: Vec<bool>,
}

impl Heading {
    /// For a file with this header; none for a file without a header line.
    pub fn new(wanted: &[HeaderColumn<'_>], header: Option<&str>, dialect: &TextDialect) -> Self {
        let mut dialect = *dialect;
        let declared = header.and_then(declared_delimiter);
        let is_declaration = |rest: &str| !dialect.header || !rest.is_empty();
        let header = match declared.filter(|(_, rest)| is_declaration(rest)) {
            Some((delimiter, rest)) => {
                dialect.delimiter = delimiter;
                Some(rest)
            }
            None => header,
        };
        match header.filter(|_| dialect.header) {
            Some(header) => Heading::named(wanted, header, dialect),
            None => Heading::unnamed(wanted, dialect),
        }
    }

    fn named(wanted: &[HeaderColumn<'_>], header: &str, dialect: TextDialect) -> Self {
        let line = trimmed(without_mark(header));
        let (names, broken) = match fields(line, &dialect) {
            Ok(names) => (names, None),
            Err(what) => (Vec::new(), Some(what)),
        };
        let field_numbers: Vec<Option<usize>> = {
            let by_name = FieldsByName::new(&names, dialect.ignore_case);
            wanted.iter().map(|column| by_name.field(column.from)).collect()
        };
        Heading {
            takes: takes(names.len(), &field_numbers),
            absent: field_numbers.iter().map(Option::is_none).collect(),
            dialect,
            unnamed: None,
            broken,
            repeated: RepeatedHeader::new(&names, &dialect, wanted),
            names,
        }
    }

    /// Fields by the numbers that columns name; if no column names one, the fields are the columns in their order.
    fn unnamed(wanted: &[HeaderColumn<'_>], dialect: TextDialect) -> Self {
        let mut fields: Vec<Option<usize>> = wanted
            .iter()
            .map(|column| column.from.iter().find_map(|from| place(from)))
            .collect();
        let by_place = fields.iter().any(Option::is_some);
        if !by_place {
            let mut next = 0..;
            fields = wanted
                .iter()
                .map(|column| if column.is_of_file() { None } else { next.next() })
                .collect();
        }
        let width = fields.iter().flatten().max().map_or(0, |last| last + 1);
        Heading {
            takes: takes(width, &fields),
            absent: fields.iter().map(Option::is_none).collect(),
            dialect,
            names: Vec::new(),
            unnamed: Some((width, by_place)),
            broken: None,
            repeated: None,
        }
    }

    /// Under which name a record counts that is passed over by its text alone.
    pub fn passed_over(&self, record: &str) -> Option<&'static str> {
        let is_comment = |comment: u8| record.starts_with(char::from(comment));
        if record.is_empty() && self.width() != 1 {
            return Some("(blank line)");
        }
        self.dialect.comment.is_some_and(is_comment).then_some("(comment)")
    }

    /// Whether a record repeats the header, or the declaration of a delimiter before a header.
    ///
    /// # Errors
    /// It is a header under which the records behind it would have their values in wrong columns.
    pub fn is_repeated_by(&self, record: &str) -> Result<bool, String> {
        let Some(repeated) = &self.repeated else {
            return Ok(false);
        };
        let repeat = repeated.find(record);
        if let Some(fault) = repeat.fault(record) {
            return Err(fault);
        }
        let is_short = record.len() < 8 && record.starts_with("sep=");
        let is_declaration = is_short && declared_delimiter(record).is_some_and(|(_, rest)| rest.is_empty());
        Ok(repeat == HeaderRepeat::Same || is_declaration)
    }

    /// The least number of fields of a record.
    pub fn width(&self) -> usize {
        self.unnamed.map_or(self.names.len(), |(width, _)| width)
    }

    /// Why a record with this number of fields does not fit the header.
    pub fn misfit(&self, record: &str, fields: usize) -> Option<String> {
        let expected = self.width();
        match self.unnamed {
            None if fields == expected + 1 && record.ends_with(char::from(self.dialect.delimiter)) => Some(format!(
                "the record has {fields} fields, the header {expected}, for the record ends with a delimiter; add a name to the \
                 header, or pass it over by `header = false` and `skip_lines = {}`",
                self.dialect.skip_lines + 1
            )),
            None if fields != expected => Some(format!(
                "the record has {fields} fields, the header {expected}; quote fields that hold delimiters or line ends"
            )),
            Some((_, true)) if fields < expected => Some(format!(
                "the record has {fields} fields, and a column is field {expected}; correct the record, or the column's `from`"
            )),
            Some((_, false)) if fields != expected => Some(format!(
                "the record has {fields} fields, the columns are {expected}; name fields by their places, `from = 1`, where \
                 some are not taken"
            )),
            _ => None,
        }
    }

    /// Why a file with this header, or a record of it, does not belong to the feed, as far as the names show.
    /// `sample` is the file's beginning.
    pub fn refusal(&self, wanted: &[HeaderColumn<'_>], sample: &str) -> Option<String> {
        let asked = || {
            wanted
                .iter()
                .zip(&self.absent)
                .filter(|(column, _)| !column.is_of_file())
        };
        if let Some(what) = self.broken {
            return Some(format!("its header line cannot be read: {what}; repair the file"));
        }
        if self.unnamed.is_some() || !asked().any(|(_, absent)| *absent) {
            return None;
        }
        let quoted = |columns: &mut dyn Iterator<Item = &HeaderColumn<'_>>| {
            let names: Vec<String> = columns.map(|column| self::wanted(column.name, column.from)).collect();
            shown_list(&names)
        };
        let has = shown(&self.names.join(&char::from(self.dialect.delimiter).to_string()));
        let remedy = || guess(wanted, sample, &self.dialect);
        if asked().all(|(_, absent)| *absent) {
            let columns = quoted(&mut asked().map(|(column, _)| column));
            let remedy = remedy().unwrap_or_else(|| {
                "list its names in the columns' `from`; if that is no header but data, set `header = false`".to_string()
            });
            return Some(format!(
                "its header has none of the columns {columns}: it has {has}; {remedy}"
            ));
        }
        let mut lost = asked()
            .filter(|(column, absent)| **absent && column.required)
            .map(|(column, _)| column);
        let first = lost.next()?;
        let lost: Vec<&HeaderColumn<'_>> = std::iter::once(first).chain(lost).collect();
        let columns = quoted(&mut lost.iter().copied());
        let remedy = remedy().unwrap_or_else(|| match lost.iter().any(|column| column.is_key) {
            true => "list the field's name in the column's `from`; a column of the key is never null".to_string(),
            false => "list the field's name in the column's `from`, or make the column nullable".to_string(),
        });
        Some(format!(
            "its header lacks what is required, {columns}: it has {has}; {remedy}"
        ))
    }
}

fn takes(width: usize, fields: &[Option<usize>]) -> Vec<SmallVec<[u32; 1]>> {
    let mut takes = vec![SmallVec::new(); width];
    for (column, field) in fields.iter().enumerate() {
        if let Some(field) = field {
            takes[*field].push(column as u32);
        }
    }
    takes
}

/// A column for a message, with the names of its field if these differ from its own.
pub(in crate::decode) fn wanted(name: &str, from: &[String]) -> String {
    if from == [name] {
        return format!("{name:?}");
    }
    let from: Vec<String> = from.iter().map(|from| format!("{from:?}")).collect();
    format!("{name:?} (from {})", from.join(" or "))
}

/// A list for a message, cut to ten names.
pub(in crate::decode) fn shown_list(names: &[String]) -> String {
    match names.get(..10).filter(|_| names.len() > 11) {
        Some(first) => format!("{} and {} more", first.join(", "), names.len() - 10),
        None => names.join(", "),
    }
}

/// Differences between a header and the columns that do not prevent the file from being read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderNotes {
    /// Columns that are null because they have no field, each with a name that differs only in case, if there is one.
    pub absent: Vec<String>,
    /// Fields that no column takes.
    pub ignored: Vec<String>,
    /// Names of several fields, of which columns take the first.
    pub twice: Vec<String>,
    /// The names, if columns are found only by number and the names look like data.
    pub data: Option<String>,
}

impl HeaderNotes {
    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        *self == HeaderNotes::default()
    }
}

/// Recognises records that are headers within a file with this header, which has the form in which records refer to
/// it, of a feed with these columns; none if that is impossible.
pub fn repeated_header(header: &str, dialect: &TextDialect, columns: &[Column]) -> Option<RepeatedHeader> {
    let wanted = columns.iter().map(|column| HeaderColumn {
        name: &column.name,
        from: &column.from,
        required: false,
        is_key: false,
    });
    let wanted: Vec<HeaderColumn<'_>> = wanted.collect();
    Heading::new(&wanted, Some(header), dialect).repeated
}

/// The names in a header, which has the form in which records refer to it.
pub fn csv_names(header: &str, dialect: &TextDialect) -> Vec<String> {
    Heading::new(&[], Some(header), dialect).names
}

/// Checks whether a file with this header belongs to a feed, and returns what should be reported of it. `header` has
/// the form in which records refer to it; `sample` is the file's beginning.
///
/// # Errors
/// It does not belong to the feed; with the reason and what to do.
pub fn judge_header(input: &Input, feed: &Feed, header: Option<&str>, sample: &str) -> Result<HeaderNotes, String> {
    let columns = input.columns.iter().zip(&feed.columns);
    let wanted: Vec<HeaderColumn<'_>> = columns
        .map(|(ours, theirs)| HeaderColumn {
            name: &ours.name,
            from: &theirs.from,
            required: !ours.nullable || input.key.contains(&ours.name),
            is_key: input.key.contains(&ours.name),
        })
        .collect();
    let heading = Heading::new(&wanted, header, &feed.wire.text);
    if let Some(reason) = heading.refusal(&wanted, sample) {
        return Err(reason);
    }
    let mut notes = HeaderNotes::default();
    if heading.unnamed.is_some() {
        return Ok(notes);
    }
    let names = &heading.names;
    let declared = wanted.len() - input.evolved.len().min(wanted.len());
    let trimmed: OnceCell<Vec<String>> = OnceCell::new();
    let loose = OnceCell::new();
    for (column, absent) in wanted.iter().zip(&heading.absent).take(declared) {
        if !absent || column.is_of_file() {
            continue;
        }
        let trimmed = trimmed.get_or_init(|| names.iter().map(|name| name.trim().to_string()).collect());
        let loose = loose.get_or_init(|| FieldsByName::new(trimmed, true));
        let near = loose.field(column.from).map(|field| {
            let mut settings = Vec::new();
            if trimmed[field] != names[field] {
                settings.push("`trim = true`");
            }
            if !column.from.contains(&trimmed[field]) {
                settings.push("`ignore_case = true`");
            }
            let settings = settings.join(" and ");
            format!("{} (the header has {:?}: set {settings})", column.name, names[field])
        });
        notes.absent.push(near.unwrap_or_else(|| column.name.to_string()));
    }
    let by_name = FieldsByName::new(names, false);
    let mut twice = HashSet::new();
    for (field, name) in names.iter().enumerate() {
        let before = by_name.is_repeated(field);
        match heading.takes[field].is_empty() {
            true if name.is_empty() => notes.ignored.push(format!("#{}", field + 1)),
            true if before && twice.insert(name) => notes.twice.push(shortened(name).into_owned()),
            true if before => (),
            true => notes.ignored.push(shortened(name).into_owned()),
            false => (),
        }
    }
    let is_named = |column: &HeaderColumn<'_>| column.from.iter().any(|from| place(from).is_none());
    if !wanted.iter().any(|column| !column.is_of_file() && is_named(column)) {
        let names = names.join(&char::from(heading.dialect.delimiter).to_string());
        notes.data = without_header(&wanted, &names, &heading.dialect).map(|_| shown(&names));
    }
    Ok(notes)
}
