//! Records and texts without columns to fill, for whoever looks at them to find out which columns there are.

use std::borrow::Cow;

use super::cell::{Cell, Kind};
use super::coerce::temporal;
use super::scan;

/// What a field of a JSON record holds.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number, as written.
    Number(&'a str),
    /// A text.
    Text(Cow<'a, str>),
    /// An object, as written.
    Object(&'a str),
    /// An array, as written.
    Array(&'a str),
}

impl<'a> FieldValue<'a> {
    fn of(cell: Cell<'a>) -> Self {
        match cell.kind {
            Kind::Number => FieldValue::Number(cell.text()),
            Kind::True | Kind::False => FieldValue::Boolean,
            Kind::Nested if cell.is_array() => FieldValue::Array(cell.text()),
            Kind::Nested => FieldValue::Object(cell.text()),
            Kind::Text | Kind::Escaped => FieldValue::Text(cell.resolved().unwrap_or(Cow::Borrowed(cell.text()))),
            _ => FieldValue::Null,
        }
    }
}

/// Calls `each` with the fields of the JSON object that `text` is; says whether it is one.
pub fn json_fields<'a>(text: &'a str, mut each: impl FnMut(Cow<'a, str>, FieldValue<'a>)) -> bool {
    let field = |key: Cell<'a>, value: Cell<'a>| {
        each(
            key.resolved().unwrap_or(Cow::Borrowed(key.text())),
            FieldValue::of(value),
        );
    };
    scan::object(text, field).is_ok()
}

/// Calls `each` with the values of the JSON array that `text` is; says whether it is one.
pub fn json_items<'a>(text: &'a str, mut each: impl FnMut(FieldValue<'a>)) -> bool {
    scan::array(text, |item| each(FieldValue::of(item))).is_ok()
}

/// A point in time in ISO 8601, as DATE and TIMESTAMP read it without a format: microseconds since 1970-01-01, and whether it
/// is finer than that.
pub fn iso_point(text: &str) -> Option<(i64, bool)> {
    temporal::iso(text.trim_ascii().as_bytes()).map(|point| (point.micros, point.is_finer))
}
