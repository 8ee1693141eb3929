//! The columns inferred so far, each with the names of its field.

use std::borrow::Cow;
use std::collections::HashMap;

use super::column::{DecimalMarks, InferredColumn, ObservedValues};
use super::keys::{KeyRank, KeyRows};
use crate::decode::{FieldValue, json_fields};
use crate::repr::SqlType;

/// The most columns that are created: the keys of objects may be data.
const COLUMNS: usize = 500;

/// How many levels of objects are split into columns.
const DEPTH: usize = 3;

/// Words that cannot be column names in SQL without quotes.
const RESERVED: [&str; 31] = [
    "all", "and", "as", "asc", "between", "by", "case", "cast", "cross", "desc", "distinct", "else", "end", "except",
    "false", "from", "group", "having", "in", "join", "limit", "not", "null", "on", "or", "order", "select", "table",
    "then", "true", "where",
];

/// Last words in the names of columns that identify something.
const IDENTIFYING: [&str; 12] = [
    "id", "no", "nr", "key", "code", "number", "num", "line", "seq", "sequence", "uuid", "guid",
];

/// The source of what is known about a column.
#[derive(Debug)]
pub(super) enum ColumnKnowledge {
    /// Its observed values.
    Seen(Box<ObservedValues>),
    /// A schema's decision, and whether the column may be null.
    Described(InferredColumn, bool),
}

/// A column of the input.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Its name in SQL.
    pub name: String,
    /// The names that its field has in the files.
    pub from: Vec<String>,
    pub known: ColumnKnowledge,
}

/// Columns in the order in which their fields were first seen.
#[derive(Debug, Default)]
pub(super) struct CandidateColumns {
    pub all: Vec<Candidate>,
    by_field: HashMap<String, usize>,
    /// Whether fields were left out, because there were too many.
    pub cut: bool,
    /// The values of the first rows, to find keys.
    pub rows: KeyRows,
}

impl CandidateColumns {
    /// The column of a field; none if there are too many columns. `taken` are the columns of the other fields in the
    /// same header: a field with another spelling of a known column's name gets that column unless it is among these.
    pub fn of_field(&mut self, field: &str, taken: Option<&[Option<usize>]>) -> Option<usize> {
        if let Some(column) = self.by_field.get(field) {
            return Some(*column);
        }
        let name = sql_name(field);
        // A later file may write the name with other blanks or letter case.
        let alike = taken.and_then(|taken| {
            let alike = self.all.iter().position(|column| column.name == name);
            alike.filter(|column| !taken.contains(&Some(*column)))
        });
        let column = match alike {
            Some(column) => {
                self.all[column].from.push(field.to_string());
                column
            }
            None => self.add(name, field, ColumnKnowledge::Seen(Box::new(ObservedValues::new())))?,
        };
        self.by_field.insert(field.to_string(), column);
        Some(column)
    }

    /// Adds a column that a schema describes; if its field has one already, only updates whether that may be null.
    pub fn add_described(&mut self, field: &str, decided: InferredColumn, nullable: bool) {
        match self.by_field.get(field) {
            Some(column) => {
                if let ColumnKnowledge::Described(_, known) = &mut self.all[*column].known {
                    *known |= nullable;
                }
            }
            None => {
                if let Some(column) = self.add(sql_name(field), field, ColumnKnowledge::Described(decided, nullable)) {
                    self.by_field.insert(field.to_string(), column);
                }
            }
        }
    }

    fn add(&mut self, name: String, field: &str, known: ColumnKnowledge) -> Option<usize> {
        if self.all.len() >= COLUMNS {
            self.cut = true;
            return None;
        }
        let is_taken = |name: &String| self.all.iter().any(|column| column.name == *name);
        let name = match is_taken(&name) {
            true => (2..).map(|n| format!("{name}_{n}")).find(|name| !is_taken(name))?,
            false => name,
        };
        self.all.push(Candidate {
            name,
            from: vec![field.to_string()],
            known,
        });
        Some(self.all.len() - 1)
    }

    /// The column of a field, if it has one.
    pub fn known(&self, field: &str) -> Option<usize> {
        self.by_field.get(field).copied()
    }

    fn seen(&mut self, column: usize) -> Option<&mut ObservedValues> {
        match &mut self.all[column].known {
            ColumnKnowledge::Seen(observed) => Some(observed),
            ColumnKnowledge::Described(..) => None,
        }
    }

    /// Observes a CSV field that is present.
    pub fn observe_csv(&mut self, column: usize, text: &str) {
        if let Some(seen) = self.seen(column) {
            seen.observe_csv(text);
        }
        if !text.is_empty() {
            self.rows.put(column, text.as_bytes());
        }
    }

    /// Observes the fields of a JSON object; returns whether the text is one. If `nested`, objects inside it are split
    /// too.
    pub fn observe_object(&mut self, text: &str, nested: bool) -> bool {
        let is_object = self.observe_within(text, "", if nested { DEPTH } else { 0 });
        self.rows.end_row(is_object);
        is_object
    }

    /// For each column, how likely it is part of a key, by its type and name; none if it cannot be.
    pub fn ranks(&self) -> Vec<Option<KeyRank>> {
        let rank = |candidate: &Candidate| {
            let sql_type = match &candidate.known {
                ColumnKnowledge::Seen(seen) => seen.decided(&DecimalMarks::default()).sql_type,
                ColumnKnowledge::Described(decided, _) => decided.sql_type.clone(),
            };
            let last = candidate.name.rsplit('_').next().unwrap_or_default();
            let is_named = IDENTIFYING.contains(&last) || candidate.name.ends_with("id");
            match sql_type {
                SqlType::Int | SqlType::BigInt | SqlType::Varchar | SqlType::Decimal(_, 0) if is_named => Some(0),
                SqlType::Int | SqlType::BigInt | SqlType::Varchar | SqlType::Decimal(_, 0) => Some(1),
                SqlType::Date | SqlType::Timestamp | SqlType::Binary => Some(2),
                SqlType::Double | SqlType::Boolean | SqlType::Decimal(..) | SqlType::List(_) => None,
            }
        };
        self.all.iter().map(rank).collect()
    }

    fn observe_within(&mut self, text: &str, path: &str, depth: usize) -> bool {
        let mut inner: Vec<(String, &str)> = Vec::new();
        let is_object = json_fields(text, |key, value| {
            let field = match path.is_empty() {
                true => key,
                false => Cow::Owned(format!("{path}.{key}")),
            };
            match value {
                FieldValue::Object(text) if depth > 0 && text.len() > 2 => inner.push((field.into_owned(), text)),
                value => {
                    if let Some(column) = self.of_field(&field, None) {
                        if let Some(seen) = self.seen(column) {
                            seen.observe_json(&value);
                        }
                        match &value {
                            FieldValue::Number(text) => self.rows.put(column, text.as_bytes()),
                            FieldValue::Text(text) => self.rows.put(column, text.as_bytes()),
                            _ => (),
                        }
                    }
                }
            }
        });
        for (path, text) in inner {
            self.observe_within(text, &path, depth - 1);
        }
        is_object
    }
}

/// A field's name as SQL accepts it without quotes: `InvoiceNo` becomes `invoice_no`.
pub(super) fn sql_name(field: &str) -> String {
    if let Some(place) = field.strip_prefix('#').filter(|place| place.parse::<u32>().is_ok()) {
        return format!("column_{place}");
    }
    let mut name = String::new();
    let mut before: Option<char> = None;
    let mut characters = field.chars().peekable();
    while let Some(c) = characters.next() {
        if !c.is_alphanumeric() {
            if !name.is_empty() && !name.ends_with('_') {
                name.push('_');
            }
        } else {
            let starts_word = c.is_uppercase()
                && before.is_some_and(|before| {
                    before.is_lowercase()
                        || before.is_uppercase() && characters.peek().is_some_and(|next| next.is_lowercase())
                });
            if starts_word && !name.ends_with('_') {
                name.push('_');
            }
            name.extend(c.to_lowercase());
        }
        before = Some(c);
    }
    let name = name.trim_end_matches('_');
    if name.is_empty() {
        return "field".to_string();
    }
    let starts_with_letter = name.starts_with(|c: char| c.is_alphabetic());
    match (starts_with_letter, RESERVED.contains(&name)) {
        (false, _) => format!("f_{name}"),
        (true, true) => format!("{name}_"),
        (true, false) => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_get_names_that_sql_takes_without_quotes() {
        for (field, name) in [
            ("InvoiceNo", "invoice_no"),
            ("CustomerID", "customer_id"),
            ("PM2.5", "pm2_5"),
            ("start station id", "start_station_id"),
            ("a.b", "a_b"),
            ("HTTPStatus", "http_status"),
            ("order", "order_"),
            ("2010", "f_2010"),
            ("#3", "column_3"),
            ("Größe (cm)", "größe_cm"),
            ("%", "field"),
        ] {
            assert_eq!(sql_name(field), name, "{field}");
        }
    }
}
