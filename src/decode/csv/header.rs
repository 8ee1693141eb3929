//! What a header says: which field fills which column, and whether a file with it is one of the feed's at all.

use std::cell::OnceCell;

use hashbrown::HashSet;
use smallvec::SmallVec;

use super::again::{RepeatedHeader, without_mark};
use super::by_name::FieldsByName;
use super::guess::{guess, without_header};
use super::split::{fields, trimmed};
use crate::decode::coerce::shown;
use crate::decode::names::shortened;
use crate::definition::{Feed, FileField, Input, TextDialect};

/// A column as a header is asked for it.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub name: &'a str,
    /// The names of its field, most wanted first.
    pub from: &'a [String],
    /// Whether no record can do without it.
    pub required: bool,
    /// Whether it is one of the key, which is never null.
    pub is_key: bool,
}

impl Wanted<'_> {
    /// Whether it is not a record's, but tells of the file.
    fn is_of_file(&self) -> bool {
        FileField::among(self.from).is_some()
    }
}

/// The place of a field that is named by its number, from 0.
pub(super) fn place(from: &str) -> Option<usize> {
    from.strip_prefix('#')?.parse::<usize>().ok()?.checked_sub(1)
}

/// The first line of a file where it tells its delimiter, as Excel reads it, and what is behind it.
pub(super) fn told_delimiter(header: &str) -> Option<(u8, &str)> {
    let rest = header.strip_prefix("sep=")?;
    let delimiter = *rest.as_bytes().first().filter(|byte| byte.is_ascii())?;
    Some((delimiter, rest[1..].strip_prefix('\n').unwrap_or(&rest[1..])))
}

/// What a header says of the fields of its file's records.
#[derive(Debug)]
pub(super) struct Heading {
    /// By it the file's records are read.
    pub dialect: TextDialect,
    /// The names of the fields; of a file without a header line, none.
    pub names: Vec<String>,
    /// By field: the columns it fills.
    pub takes: Vec<SmallVec<[u32; 1]>>,
    /// Of a file without a header line: how many fields its records have, and whether they may have more.
    pub unnamed: Option<(usize, bool)>,
    /// Why the header itself cannot be used.
    pub broken: Option<&'static str>,
    /// Where it has several names: what tells that a record is the header of a file that was appended.
    pub repeated: Option<RepeatedHeader>,
    /// By column: whether no field fills it.
    absent: Vec<bool>,
}

impl Heading {
    /// Of a file with this header; none: a file without a header line.
    pub fn new(wanted: &[Wanted<'_>], header: Option<&str>, dialect: &TextDialect) -> Self {
        let mut dialect = *dialect;
        let told = header.and_then(told_delimiter);
        let is_told = |rest: &str| !dialect.header || !rest.is_empty();
        let header = match told.filter(|(_, rest)| is_told(rest)) {
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

    fn named(wanted: &[Wanted<'_>], header: &str, dialect: TextDialect) -> Self {
        let line = trimmed(without_mark(header));
        let (names, broken) = match fields(line, &dialect) {
            Ok(names) => (names, None),
            Err(what) => (Vec::new(), Some(what)),
        };
        let found: Vec<Option<usize>> = {
            let by_name = FieldsByName::new(&names, dialect.ignore_case);
            wanted.iter().map(|column| by_name.field(column.from)).collect()
        };
        Heading {
            takes: takes(names.len(), &found),
            absent: found.iter().map(Option::is_none).collect(),
            dialect,
            unnamed: None,
            broken,
            repeated: RepeatedHeader::new(&names, &dialect),
            names,
        }
    }

    /// By the places that columns name; where none does, the fields are the columns in their order.
    fn unnamed(wanted: &[Wanted<'_>], dialect: TextDialect) -> Self {
        let mut found: Vec<Option<usize>> = wanted
            .iter()
            .map(|column| column.from.iter().find_map(|from| place(from)))
            .collect();
        let by_place = found.iter().any(Option::is_some);
        if !by_place {
            let mut next = 0..;
            found = wanted
                .iter()
                .map(|column| if column.is_of_file() { None } else { next.next() })
                .collect();
        }
        let width = found.iter().flatten().max().map_or(0, |last| last + 1);
        Heading {
            takes: takes(width, &found),
            absent: found.iter().map(Option::is_none).collect(),
            dialect,
            names: Vec::new(),
            unnamed: Some((width, by_place)),
            broken: None,
            repeated: None,
        }
    }

    /// How many fields a record has at least.
    pub fn width(&self) -> usize {
        self.unnamed.map_or(self.names.len(), |(width, _)| width)
    }

    /// Why a record of so many fields is none of the file's.
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

    /// Why a file with this header, or a record of it, is none of the feed's, as far as its names say. `sample`: the file's
    /// beginning.
    pub fn refusal(&self, wanted: &[Wanted<'_>], sample: &str) -> Option<String> {
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
        let quoted = |columns: &mut dyn Iterator<Item = &Wanted<'_>>| {
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
        let lost: Vec<&Wanted<'_>> = std::iter::once(first).chain(lost).collect();
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

fn takes(width: usize, found: &[Option<usize>]) -> Vec<SmallVec<[u32; 1]>> {
    let mut takes = vec![SmallVec::new(); width];
    for (column, field) in found.iter().enumerate() {
        if let Some(field) = field {
            takes[*field].push(column as u32);
        }
    }
    takes
}

/// A column, with the names of its field where they are others.
pub(in crate::decode) fn wanted(name: &str, from: &[String]) -> String {
    if from == [name] {
        return format!("{name:?}");
    }
    let from: Vec<String> = from.iter().map(|from| format!("{from:?}")).collect();
    format!("{name:?} (from {})", from.join(" or "))
}

/// At most ten of these.
pub(in crate::decode) fn shown_list(names: &[String]) -> String {
    match names.get(..10).filter(|_| names.len() > 11) {
        Some(first) => format!("{} and {} more", first.join(", "), names.len() - 10),
        None => names.join(", "),
    }
}

/// What of a header is not as the columns have it, though the file can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderNotes {
    /// Columns that are null for want of a field; with the name that differs in case alone, where there is one.
    pub absent: Vec<String>,
    /// Fields that no column takes.
    pub ignored: Vec<String>,
    /// Names that several fields have, of which a column takes the first.
    pub twice: Vec<String>,
    /// The names, where columns are found by their places alone and these look like data.
    pub data: Option<String>,
}

impl HeaderNotes {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == HeaderNotes::default()
    }
}

/// What tells that a record is this header again, which is as records come with it; none: nothing can.
pub fn repeated_header(header: &str, dialect: &TextDialect) -> Option<RepeatedHeader> {
    Heading::new(&[], Some(header), dialect).repeated
}

/// The names in a header, as records come with it.
pub fn csv_names(header: &str, dialect: &TextDialect) -> Vec<String> {
    Heading::new(&[], Some(header), dialect).names
}

/// Whether a file with this header is one of a feed's, and what is to be told of it. `header` is as records come with it;
/// `sample` the file's beginning.
///
/// # Errors
/// Why it is none, and what to do.
pub fn judge_header(input: &Input, feed: &Feed, header: Option<&str>, sample: &str) -> Result<HeaderNotes, String> {
    let columns = input.columns.iter().zip(&feed.columns);
    let wanted: Vec<Wanted<'_>> = columns
        .map(|(ours, theirs)| Wanted {
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
    let loose = OnceCell::new();
    for (column, absent) in wanted.iter().zip(&heading.absent).take(declared) {
        if !absent || column.is_of_file() {
            continue;
        }
        let loose = loose.get_or_init(|| FieldsByName::new(names, true));
        notes.absent.push(match loose.field(column.from) {
            Some(field) => format!(
                "{} (the header has {:?}: set `ignore_case = true`)",
                column.name, names[field]
            ),
            None => column.name.to_string(),
        });
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
    let is_named = |column: &Wanted<'_>| column.from.iter().any(|from| place(from).is_none());
    if !wanted.iter().any(|column| !column.is_of_file() && is_named(column)) {
        let names = names.join(&char::from(heading.dialect.delimiter).to_string());
        notes.data = without_header(&wanted, &names, &heading.dialect).map(|_| shown(&names));
    }
    Ok(notes)
}
