//! The columns of an input in the making, each with the fields that it is taken from.

use std::borrow::Cow;
use std::collections::HashMap;

use super::column::{Decided, DecimalMarks, Observed};
use super::keys::{KeyRows, Rank};
use crate::decode::{FieldValue, json_fields};
use crate::repr::SqlType;

/// Columns that are made at most: objects may have keys that are data.
const COLUMNS: usize = 500;

/// How deep objects are taken apart.
const DEPTH: usize = 3;

/// Words that a column's name cannot be in SQL without quotes.
const RESERVED: [&str; 31] = [
    "all", "and", "as", "asc", "between", "by", "case", "cast", "cross", "desc", "distinct", "else", "end", "except",
    "false", "from", "group", "having", "in", "join", "limit", "not", "null", "on", "or", "order", "select", "table",
    "then", "true", "where",
];

/// Words that the names of columns end with that identify something.
const IDENTIFYING: [&str; 12] = [
    "id", "no", "nr", "key", "code", "number", "num", "line", "seq", "sequence", "uuid", "guid",
];

/// What is known of a column.
#[derive(Debug)]
pub(super) enum Known {
    /// By its values.
    Seen(Box<Observed>),
    /// By a schema; whether it may be null.
    Told(Decided, bool),
}

/// A column.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Its name in SQL.
    pub name: String,
    /// Names of its field.
    pub from: Vec<String>,
    pub known: Known,
}

/// Columns by the order in which their fields were met.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub all: Vec<Candidate>,
    by_field: HashMap<String, usize>,
    /// Fields were left out, for there were too many.
    pub cut: bool,
    /// What the first rows hold.
    pub rows: KeyRows,
}

impl Columns {
    /// The column of a field; none: there are too many. `taken`: those that other fields of the same header have, so that
    /// another column is known under another spelling.
    pub fn of_field(&mut self, field: &str, taken: Option<&[Option<usize>]>) -> Option<usize> {
        if let Some(column) = self.by_field.get(field) {
            return Some(*column);
        }
        let name = sql_name(field);
        // A later file may write a name with other blanks or letters.
        let alike = taken.and_then(|taken| {
            let alike = self.all.iter().position(|column| column.name == name);
            alike.filter(|column| !taken.contains(&Some(*column)))
        });
        let column = match alike {
            Some(column) => {
                self.all[column].from.push(field.to_string());
                column
            }
            None => self.add(name, field, Known::Seen(Box::new(Observed::new())))?,
        };
        self.by_field.insert(field.to_string(), column);
        Some(column)
    }

    /// A column that a schema tells of, unless its field has one.
    pub fn tell(&mut self, field: &str, decided: Decided, nullable: bool) {
        match self.by_field.get(field) {
            Some(column) => {
                if let Known::Told(_, known) = &mut self.all[*column].known {
                    *known |= nullable;
                }
            }
            None => {
                if let Some(column) = self.add(sql_name(field), field, Known::Told(decided, nullable)) {
                    self.by_field.insert(field.to_string(), column);
                }
            }
        }
    }

    fn add(&mut self, name: String, field: &str, known: Known) -> Option<usize> {
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

    /// The column of a field that has one.
    pub fn known(&self, field: &str) -> Option<usize> {
        self.by_field.get(field).copied()
    }

    fn seen(&mut self, column: usize) -> Option<&mut Observed> {
        match &mut self.all[column].known {
            Known::Seen(observed) => Some(observed),
            Known::Told(..) => None,
        }
    }

    /// Takes a field of a CSV record that is there.
    pub fn observe_csv(&mut self, column: usize, text: &str) {
        if let Some(seen) = self.seen(column) {
            seen.observe_csv(text);
        }
        if !text.is_empty() {
            self.rows.put(column, text.as_bytes());
        }
    }

    /// Takes the fields of a JSON object; says whether it is one. Objects inside are taken apart where `nested`.
    pub fn observe_object(&mut self, text: &str, nested: bool) -> bool {
        let is_object = self.observe_within(text, "", if nested { DEPTH } else { 0 });
        self.rows.end_row(is_object);
        is_object
    }

    /// How likely each column is part of a key, by its type and its name; none: it is in none.
    pub fn ranks(&self) -> Vec<Option<Rank>> {
        let rank = |candidate: &Candidate| {
            let sql_type = match &candidate.known {
                Known::Seen(seen) => seen.decided(&DecimalMarks::default()).sql_type,
                Known::Told(decided, _) => decided.sql_type.clone(),
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

/// A field's name as SQL takes it without quotes: `InvoiceNo` is `invoice_no`.
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
