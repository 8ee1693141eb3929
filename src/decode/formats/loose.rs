//! Reads records without an input's columns, to find out which columns they could have.

use std::borrow::Cow;

use crate::decode::cell::{Cell, CellKind};
use crate::decode::coerce::temporal;
use crate::decode::scan;

/// The value of a field in a JSON record.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// JSON's `null`.
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
    fn of_cell(cell: Cell<'a>) -> Self {
        match cell.kind {
            CellKind::Number => FieldValue::Number(cell.text()),
            CellKind::True | CellKind::False => FieldValue::Boolean,
            CellKind::Nested if cell.is_array() => FieldValue::Array(cell.text()),
            CellKind::Nested => FieldValue::Object(cell.text()),
            CellKind::Text | CellKind::Escaped => {
                FieldValue::Text(cell.resolved().unwrap_or(Cow::Borrowed(cell.text())))
            }
            _ => FieldValue::Null,
        }
    }
}

/// Calls `each` with the fields of the JSON object in `text`; returns whether `text` is one.
pub fn json_fields<'a>(text: &'a str, mut each: impl FnMut(Cow<'a, str>, FieldValue<'a>)) -> bool {
    let field = |key: Cell<'a>, value: Cell<'a>| {
        each(
            key.resolved().unwrap_or(Cow::Borrowed(key.text())),
            FieldValue::of_cell(value),
        );
    };
    scan::object(text, field).is_ok()
}

/// Calls `each` with the values of the JSON array in `text`; returns whether `text` is one.
pub fn json_items<'a>(text: &'a str, mut each: impl FnMut(FieldValue<'a>)) -> bool {
    scan::array(text, |item| each(FieldValue::of_cell(item))).is_ok()
}

/// Parses a point in time in ISO 8601, as DATE and TIMESTAMP do without a format: microseconds since 1970-01-01, and
/// whether the point is finer than that.
pub fn iso_point(text: &str) -> Option<(i64, bool)> {
    temporal::iso(text.trim_ascii().as_bytes()).map(|point| (point.micros, point.is_finer))
}
