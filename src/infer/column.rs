//! Decides a column's type from all values that were sampled.

use std::collections::{BTreeMap, HashSet};

use super::form::list;
use super::moment::MomentReadings;
use super::number::{DecimalMark, NumberProfile, WrittenNumbers};
use crate::decode::{FieldValue, is_spreadsheet_error, json_items, lacks_digits};
use crate::repr::SqlType;

/// Texts that may stand for null; the last ones are errors of spreadsheets.
const NULLS: [&str; 21] = [
    "NA", "N/A", "n/a", "#N/A", "NULL", "null", "Null", "(null)", "None", "nil", "\\N", "-", "--", "?", "missing",
    "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!",
];

/// Pairs of words for true and false that a BOOLEAN column reads without a format.
const WORDS: [(&str, &str); 5] = [("true", "false"), ("t", "f"), ("yes", "no"), ("y", "n"), ("on", "off")];

/// How many levels of arrays within arrays are examined.
const DEPTH: usize = 3;

/// The most values that are remembered in order to detect repetitions.
const DISTINCT: usize = 500_000;

/// Everything that was observed about a column's values.
#[derive(Clone, Debug)]
pub(super) struct ObservedValues {
    /// The number of records with a value.
    values: u64,
    /// The number of quoted empty texts, which in CSV are not null.
    empty: u64,
    /// The first number that a spreadsheet may have truncated.
    cut: Option<String>,
    nulls: BTreeMap<&'static str, u64>,
    /// The common length of all texts, if all are upper-case letters of one length. Outer none: no text has come yet;
    /// inner none: the texts differ.
    code_length: Option<Option<usize>>,
    /// The number of texts that are not plain numbers.
    others: u64,
    numbers: NumberProfile,
    written: WrittenNumbers,
    moments: MomentReadings,
    /// For each pair of [`WORDS`], how often the word for true and the word for false occurred.
    words: [(u64, u64); WORDS.len()],
    json_booleans: u64,
    /// The number of JSON texts that are numbers.
    json_texts: u64,
    objects: u64,
    arrays: u64,
    items: Option<Box<ObservedValues>>,
    /// Hashes of the values; none if a value was repeated, or if there were too many.
    distinct: Option<HashSet<u64>>,
}

/// For each decimal mark, the first column whose numbers show it. The files of an input are assumed to be written in
/// one language.
#[derive(Clone, Debug, Default)]
pub(super) struct DecimalMarks {
    points: Option<String>,
    commas: Option<String>,
}

impl DecimalMarks {
    /// Notes the decimal mark that a column shows.
    pub fn observe(&mut self, name: &str, seen: &ObservedValues) {
        let shown = match seen.shows() {
            Some(DecimalMark::Point) => &mut self.points,
            Some(DecimalMark::Comma) => &mut self.commas,
            None => return,
        };
        shown.get_or_insert_with(|| name.to_string());
    }

    /// The mark, and a column that shows it; none if no column shows one, or if columns disagree.
    fn known(&self) -> Option<(DecimalMark, &str)> {
        match (&self.points, &self.commas) {
            (Some(column), None) => Some((DecimalMark::Point, column)),
            (None, Some(column)) => Some((DecimalMark::Comma, column)),
            _ => None,
        }
    }
}

/// The decision on a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InferredColumn {
    pub sql_type: SqlType,
    pub format: Vec<String>,
    /// Texts that stand for null in this column.
    pub nulls: Vec<&'static str>,
    /// A text that would be null elsewhere, but here looks like all other codes: `NA` among countries.
    pub code: Option<&'static str>,
    /// A note for the user.
    pub note: Option<String>,
}

impl InferredColumn {
    fn plain(sql_type: SqlType) -> Self {
        InferredColumn {
            sql_type,
            format: Vec::new(),
            nulls: Vec::new(),
            code: None,
            note: None,
        }
    }
}

impl ObservedValues {
    pub fn new() -> Self {
        ObservedValues {
            values: 0,
            empty: 0,
            cut: None,
            nulls: BTreeMap::new(),
            code_length: None,
            others: 0,
            numbers: NumberProfile::default(),
            written: WrittenNumbers::default(),
            moments: MomentReadings::default(),
            words: Default::default(),
            json_booleans: 0,
            json_texts: 0,
            objects: 0,
            arrays: 0,
            items: None,
            distinct: Some(HashSet::new()),
        }
    }

    /// Observes a CSV field that is present.
    pub fn observe_csv(&mut self, text: &str) {
        if text.is_empty() {
            self.empty += 1;
            return;
        }
        if self.cut.is_none() && lacks_digits(text) {
            self.cut = Some(text.trim().to_string());
        }
        self.observe_text(text);
    }

    /// Observes a text that is not empty.
    fn observe_text(&mut self, text: &str) {
        if let Some(null) = NULLS.iter().find(|null| **null == text) {
            *self.nulls.entry(null).or_default() += 1;
            return;
        }
        self.values += 1;
        self.remember(text);
        let text = text.trim();
        let length = code_length(text);
        self.code_length = Some(length.filter(|_| self.code_length.is_none_or(|known| known == length)));
        if self.numbers.observe(text) {
            self.written.observe_plain(text);
            return;
        }
        self.others += 1;
        self.written.observe(text);
        self.moments.observe(text);
        for ((yes, no), counts) in WORDS.iter().zip(&mut self.words) {
            counts.0 += u64::from(text.eq_ignore_ascii_case(yes));
            counts.1 += u64::from(text.eq_ignore_ascii_case(no));
        }
    }

    /// Observes a JSON field that is present.
    pub fn observe_json(&mut self, value: &FieldValue<'_>) {
        self.observe_within(value, DEPTH);
    }

    fn observe_within(&mut self, value: &FieldValue<'_>, depth: usize) {
        match value {
            FieldValue::Null => (),
            FieldValue::Boolean => {
                self.values += 1;
                self.json_booleans += 1;
                self.distinct = None;
            }
            FieldValue::Number(text) => {
                self.values += 1;
                self.remember(text);
                self.numbers.observe(text);
                self.written.observe_told(text);
            }
            FieldValue::Text(text) => {
                let before = self.numbers.count();
                if !text.is_empty() {
                    self.observe_text(text);
                }
                self.json_texts += self.numbers.count() - before;
            }
            FieldValue::Object(_) => self.observe_nested(),
            // An array that is nested too deeply is treated like an object.
            FieldValue::Array(_) if depth == 0 => self.observe_nested(),
            FieldValue::Array(text) => {
                self.values += 1;
                self.arrays += 1;
                self.distinct = None;
                let items = self.items.get_or_insert_with(|| Box::new(ObservedValues::new()));
                json_items(text, |item| items.observe_within(&item, depth - 1));
            }
        }
    }

    fn observe_nested(&mut self) {
        self.values += 1;
        self.objects += 1;
        self.distinct = None;
    }

    fn remember(&mut self, text: &str) {
        let Some(distinct) = &mut self.distinct else { return };
        let is_new = distinct.insert(twox_hash::XxHash3_64::oneshot(text.as_bytes()));
        if !is_new || distinct.len() > DISTINCT {
            self.distinct = None;
        }
    }

    /// The number of records with a value.
    pub fn values(&self) -> u64 {
        self.values
    }

    /// Whether each of `records` records has a value, and all values differ.
    pub fn is_unique(&self, records: u64) -> bool {
        let decided = self.decided(&DecimalMarks::default());
        let may_identify = !matches!(decided.sql_type, SqlType::Double | SqlType::Boolean);
        self.distinct.is_some() && self.values == records && may_identify
    }

    /// The decimal mark that the column's numbers show.
    fn shows(&self) -> Option<DecimalMark> {
        match (self.numbers.count(), self.others) {
            (0, 0) => None,
            (numbers, 0) => self.written.plain_shows().filter(|_| numbers == self.values),
            (numbers, others) => self.written.shows().filter(|_| numbers + others == self.values),
        }
    }

    /// Decides on the column, given the decimal marks of the other columns.
    pub fn decided(&self, marks: &DecimalMarks) -> InferredColumn {
        let mut decided = self.judged(marks);
        if let (SqlType::Varchar, Some(Some(length))) = (&decided.sql_type, self.code_length) {
            decided.code = self
                .nulls
                .keys()
                .copied()
                .find(|null| code_length(null) == Some(length));
        }
        if decided.sql_type != SqlType::Varchar {
            decided.nulls = self.nulls.keys().copied().collect();
            if self.empty > 0 {
                decided.nulls.insert(0, "");
            }
            if let Some(error) = self.nulls.keys().find(|null| is_spreadsheet_error(null)) {
                let note = format!("{error} is taken as null: leave it out of `null` to have such records refused");
                decided.note.get_or_insert(note);
            }
        }
        decided
    }

    fn judged(&self, marks: &DecimalMarks) -> InferredColumn {
        let all = |count: u64| count == self.values;
        let text = |note: Option<String>| InferredColumn {
            note,
            ..InferredColumn::plain(SqlType::Varchar)
        };
        if self.values == 0 {
            return text(Some("no value was seen".to_string()));
        }
        if all(self.json_booleans) {
            return InferredColumn::plain(SqlType::Boolean);
        }
        if all(self.arrays)
            && let Some(items) = &self.items
        {
            let inner = items.decided(&DecimalMarks::default());
            let is_plain = inner.format.is_empty() && items.objects + items.arrays == 0;
            return match is_plain {
                true => InferredColumn::plain(SqlType::List(Box::new(inner.sql_type))),
                false => text(Some("JSON".to_string())),
            };
        }
        if self.objects + self.arrays > 0 {
            return text(Some("JSON".to_string()));
        }
        if self.json_booleans > 0 {
            return text(None);
        }
        if all(self.numbers.count()) {
            if let Some(cut) = self.cut.as_ref().filter(|_| self.numbers.are_whole()) {
                return text(Some(format!(
                    "digits of {cut} are lost: a spreadsheet writes numbers of more than 11 digits so; have the column exported as \
                     text, or declare it DOUBLE if they do not matter"
                )));
            }
            if let Some(decided) = self.grouped(marks) {
                return decided;
            }
            // Whole numbers that JSON writes as texts are meant as identifiers.
            let is_name = self.json_texts > 0 && !matches!(self.numbers.sql_type(), Some(SqlType::Decimal(_, 1..)));
            return match self.numbers.sql_type().filter(|_| !is_name) {
                Some(sql_type) => InferredColumn::plain(sql_type),
                None => text(Some("digits that are no number".to_string())),
            };
        }
        let is_word = |(yes, no): &(u64, u64), n: usize| all(yes + no) && (n == 0 || *yes > 0 && *no > 0);
        if self.words.iter().enumerate().any(|(n, counts)| is_word(counts, n)) {
            return InferredColumn::plain(SqlType::Boolean);
        }
        if all(self.others) {
            if let Some((sql_type, format)) = self.moments.decided() {
                return InferredColumn {
                    format,
                    ..InferredColumn::plain(sql_type)
                };
            }
            if let Some(formats) = self.moments.too_fine() {
                let formats: Vec<&str> = formats.iter().map(String::as_str).collect();
                return text(Some(format!(
                    "a TIMESTAMP, were it not finer than a microsecond: format = {} cuts the rest off",
                    list(&formats)
                )));
            }
            if let Some(lists) = self.moments.ambiguous() {
                let lists: Vec<String> = lists
                    .iter()
                    .map(|formats| list(&formats.iter().map(String::as_str).collect::<Vec<_>>()))
                    .collect();
                return text(Some(match &lists[..] {
                    [both] => format!(
                        "a date by {both}, of which two read some values as different days: have one of them, or such values are refused"
                    ),
                    lists => format!("a date by {}: say which by `format`", lists.join(" or ")),
                }));
            }
        }
        let known = marks.known();
        let mark = known.map(|(mark, _)| mark);
        if let Some((format, sql_type)) = self.written.decided(mark) {
            let is_plain = self.written.decided(None).is_some();
            let decider = known.zip(self.written.first()).filter(|_| !is_plain);
            return InferredColumn {
                format: vec![format],
                note: decider.map(|((mark, column), text)| {
                    format!(
                        "how {text} is read follows from column {column}, which has decimal {}",
                        mark.word()
                    )
                }),
                ..InferredColumn::plain(sql_type)
            };
        }
        let ambiguous = self.written.ambiguous(mark);
        let ambiguous = ambiguous.map(|formats| format!("a number by {formats}: say which by `format`"));
        text(ambiguous.or_else(|| self.strangers()))
    }

    /// A note for a column whose texts are numbers except for a few, such as a line of totals or an error.
    fn strangers(&self) -> Option<String> {
        let few = self.others <= 3 && self.numbers.count() >= 2 * self.others;
        let first: String = self.written.first().filter(|_| few)?.chars().take(40).collect();
        Some(format!("numbers, but for {} such as {first:?}", counted(self.others)))
    }

    /// Decides on a column whose points may all be group separators: only the other columns can tell.
    fn grouped(&self, marks: &DecimalMarks) -> Option<InferredColumn> {
        let (text, format, sql_type) = self.written.grouped()?;
        match marks.known() {
            Some((DecimalMark::Point, _)) => None,
            Some((DecimalMark::Comma, column)) => Some(InferredColumn {
                format: vec![format.to_string()],
                note: Some(format!(
                    "{text} is {}, as column {column} has decimal commas",
                    text.replace('.', "")
                )),
                ..InferredColumn::plain(sql_type)
            }),
            None => Some(InferredColumn {
                note: Some(format!(
                    "nothing in the files tells whether {text} is {}: if it is, declare {sql_type} with format = {format:?}",
                    text.replace('.', "")
                )),
                ..InferredColumn::plain(self.numbers.sql_type()?)
            }),
        }
    }
}

fn counted(texts: u64) -> String {
    match texts {
        1 => "1 text".to_string(),
        _ => format!("{texts} texts"),
    }
}

/// The length of a code of upper-case letters; none if the text is not such a code.
fn code_length(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_uppercase()).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> String {
        let mut observed = ObservedValues::new();
        texts.iter().for_each(|text| observed.observe_csv(text));
        let InferredColumn {
            sql_type,
            format,
            nulls,
            note,
            ..
        } = observed.decided(&DecimalMarks::default());
        format!(
            "{sql_type} {} {} {}",
            format.join(" "),
            nulls.join(" "),
            note.unwrap_or_default()
        )
        .trim()
        .to_string()
    }

    #[test]
    fn types_hold_what_was_seen_exactly() {
        for (texts, expected) in [
            (&["1", "-20"][..], "INT"),
            (&["4111111111111111", "1"], "BIGINT"),
            (&["99999999999999999999"], "DECIMAL(38,0)"),
            (&["17850.0", "1.0"], "INT"),
            (&["2.55", "10"], "DECIMAL(18,2)"),
            (&["10.00", "2.00"], "DECIMAL(18,2)"),
            (&["40.71458404", "1"], "DOUBLE"),
            (&["1e3", "2"], "DOUBLE"),
            (&["01234", "99999"], "VARCHAR   digits that are no number"),
            (&["+49 30 1234"], "VARCHAR"),
            (&["true", "TRUE"], "BOOLEAN"),
            (&["y", "n"], "BOOLEAN"),
            (&["y", "y"], "VARCHAR"),
            (&["1", "NA"], "INT  NA"),
            (&["a", "NA"], "VARCHAR"),
            (&["1,234.50", "5"], "DECIMAL(18,2) #,##0.00"),
            (&["1.234,50", "1.234"], "DECIMAL(18,2) #.##0,00"),
            (&["$1,234.50", "$5.00"], "DECIMAL(18,2) $#,##0.00"),
            (&["1.234,50 €"], "DECIMAL(18,2) #.##0,00 €"),
            (&["1 234,50 kr"], "DECIMAL(18,2) # ##0,00 kr"),
            (&["7", "x7"], "VARCHAR"),
            (&["7", "\u{2212}5"], "INT #,##0.00"),
            (&["S1", "S20"], "VARCHAR"),
            (&["+4930123", "+4930124"], "VARCHAR"),
            (
                &["1,234", "2,345"],
                "VARCHAR   a number by \"#,##0.00\" or \"#.##0,00\": say which by `format`",
            ),
            (&["1/31/17 0:21"], "TIMESTAMP %m/%d/%y %H:%M"),
            (
                &["1/2/17 0:21", "2018-01-01 00:00:01"],
                "VARCHAR   a date by [\"%m/%d/%y %H:%M\", \"%Y-%m-%d %H:%M:%S\"] or [\"%d/%m/%y %H:%M\", \"%Y-%m-%d %H:%M:%S\"]: say \
                 which by `format`",
            ),
            (&["2017-01-31"], "DATE"),
            (
                &["2017-01-31T10:00:00.1234567Z"],
                "VARCHAR   a TIMESTAMP, were it not finer than a microsecond: format = \"cut_to_us\" cuts the rest off",
            ),
            (&["a", "1"], "VARCHAR"),
            (
                &["1", "2", "Total\n"],
                "VARCHAR   numbers, but for 1 text such as \"Total\"",
            ),
            (
                &["1", "2", "3", "4", "x", "y"],
                "VARCHAR   numbers, but for 2 texts such as \"x\"",
            ),
            (
                &["1.152", "2.300"],
                "DECIMAL(18,3)   nothing in the files tells whether 1.152 is 1152: if it is, declare INT with format = \"#.##0,00\"",
            ),
            (&["1.152", "2.30"], "DECIMAL(18,3)"),
            (&["0.152", "2.300"], "DECIMAL(18,3)"),
            (&["1.152", "3,5"], "DECIMAL(18,2) #.##0,00"),
            (
                &["12.5", "1.152", "3,5"],
                "VARCHAR   numbers, but for 1 text such as \"3,5\"",
            ),
            (
                &["468769123456789012", "4.68769E+17"],
                "VARCHAR   digits of 4.68769E+17 are lost: a spreadsheet writes numbers of more than 11 digits so; have the column \
                 exported as text, or declare it DOUBLE if they do not matter",
            ),
            (&["0.5", "4.68769E+17"], "DOUBLE"),
            (&["1.0E7", "1e+05"], "DOUBLE"),
            (
                &["1", "#REF!"],
                "INT  #REF! #REF! is taken as null: leave it out of `null` to have such records refused",
            ),
            (&[], "VARCHAR   no value was seen"),
        ] {
            assert_eq!(of(texts), expected, "{texts:?}");
        }
    }
}
