//! Recognises what Debezium writes for a value that the source left out (an unchanged TOASTed column): its
//! placeholder, in a form that fits the column's type. The forms are those of Debezium's
//! `UnchangedToastedPlaceholder`:
//!
//! - Text, and JSON in text: the placeholder. Bytes: its bytes. An hstore: a map from the placeholder to itself.
//! - An array of texts, bytes or UUIDs: one item. An array of numbers, dates or points in time: one item for each
//!   byte of the placeholder, with that byte as its value. In an array of decimals, a byte is the unscaled number.
//! - A geometry: a point that never occurs in practice.
//!
//! An array of booleans would consist of `true` only, which cannot be distinguished from a value.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use uuid::Builder;

use crate::decode::cell::{Cell, CellKind, Datum};
use crate::decode::coerce::temporal::{DAY, iso};
use crate::decode::scan;

/// Debezium's default `unavailable.value.placeholder`.
const DEFAULT: &str = "__debezium_unavailable_value";

/// The placeholders for geometry and geography, as well-known binary in base64.
const NOWHERE: [&str; 2] = [
    "AQEAACDmEAAAAAAA/IPXl8EAAAD8g9eXwQ==",
    "AQEAACDmEAAADCHn/f9/ZkAYQs77/39WQA==",
];

/// The placeholder of a feed's connector, in its various forms.
#[derive(Debug)]
pub(in crate::decode) struct Placeholder {
    bytes: Vec<u8>,
    /// Its forms as a text, other than a list or an object, and as the only item of a list.
    texts: Vec<String>,
    /// A map from it to itself.
    map: String,
}

impl Default for Placeholder {
    fn default() -> Self {
        Placeholder::new(DEFAULT)
    }
}

impl Placeholder {
    /// For a connector whose `unavailable.value.placeholder` is this.
    pub fn new(placeholder: &str) -> Self {
        let bytes = placeholder.as_bytes();
        let quoted = serde_json::Value::from(placeholder).to_string();
        // Java's UUID.nameUUIDFromBytes.
        let uuid = Builder::from_md5_bytes(Md5::digest(bytes).into()).into_uuid();
        Placeholder {
            bytes: bytes.to_vec(),
            texts: vec![
                placeholder.to_string(),
                quoted.clone(), // as JSON in a text
                STANDARD.encode(bytes),
                uuid.to_string(),
                bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            ],
            map: format!("{{{quoted}:{quoted}}}"),
        }
    }

    /// Turns cells that hold it into cells without a value. `derived` is the derived text of the record.
    pub fn mark(&self, cells: &mut [Cell<'_>], derived: &str) {
        for cell in cells.iter_mut().filter(|cell| self.is(cell, derived)) {
            *cell = Cell::new(CellKind::Unavailable, "");
        }
    }

    fn is(&self, cell: &Cell<'_>, derived: &str) -> bool {
        match (cell.datum, cell.kind) {
            (Datum::Bytes(bytes), _) => bytes == self.bytes,
            (Datum::Text(_) | Datum::Derived(..), CellKind::Text | CellKind::Escaped | CellKind::Nested) => {
                let cell = cell.resolve_derived(derived);
                let text = cell.text();
                match text.as_bytes().first() {
                    // A longer list or object cannot be the placeholder.
                    Some(b'[' | b'{') if text.len() > 64 * self.bytes.len() + 200 => false,
                    Some(b'[') if cell.kind == CellKind::Nested => self.is_list(text),
                    Some(b'{') => self.is_object(&cell),
                    _ => self.is_text(&cell),
                }
            }
            _ => false,
        }
    }

    fn is_text(&self, cell: &Cell<'_>) -> bool {
        match cell.kind {
            CellKind::Text => self.texts.iter().any(|form| form == cell.text()),
            // Longer texts cannot be the placeholder and need not be unescaped.
            CellKind::Escaped if cell.text().len() <= 8 * self.bytes.len() => {
                let text = cell.resolved();
                text.is_some_and(|text| self.texts.iter().any(|form| **form == *text))
            }
            _ => false,
        }
    }

    /// Whether a cell is the placeholder of an hstore or a geometry; an hstore may be JSON in a text.
    fn is_object(&self, cell: &Cell<'_>) -> bool {
        let Some(text) = cell.resolved() else {
            return false;
        };
        if *text == *self.map {
            return true;
        }
        let (mut entries, mut own, mut nowhere) = (0, false, false);
        let scanned = scan::object(&text, |key, value| {
            entries += 1;
            own = self.is_text(&key) && self.is_text(&value);
            nowhere |= key.text() == "wkb" && NOWHERE.contains(&value.text());
        });
        scanned.is_ok() && ((entries == 1 && own) || nowhere)
    }

    fn is_list(&self, text: &str) -> bool {
        // Most lists are ruled out by their first item.
        let first = text[1..].trim_ascii_start();
        let number = first.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        if number {
            let end = first.find([',', ']', ' ']).unwrap_or(first.len());
            if !self
                .bytes
                .first()
                .is_some_and(|byte| stands_for(*byte, &Cell::new(CellKind::Number, &first[..end])))
            {
                return false;
            }
        }
        let (mut values, mut bytes, mut own) = (0, true, false);
        let scanned = scan::array(text, |value| {
            own = values == 0 && self.is_text(&value);
            bytes = bytes && self.bytes.get(values).is_some_and(|byte| stands_for(*byte, &value));
            values += 1;
        });
        scanned.is_ok() && ((values == 1 && own) || (bytes && values == self.bytes.len()))
    }
}

/// Whether a list's item stands for a byte of the placeholder, in whatever type; Java's bytes are signed.
fn stands_for(byte: u8, value: &Cell<'_>) -> bool {
    let number = i64::from(byte as i8);
    let is_unscaled = |text: &str| STANDARD.decode(text).is_ok_and(|bytes| bytes == [byte]);
    match value.kind {
        CellKind::Number => {
            let text = value.text();
            // For Avro's decimals the number already has its point.
            text.parse() == Ok(number as f64) || text.replacen('.', "", 1).parse() == Ok(number)
        }
        CellKind::Text => {
            let text = value.text();
            let at = iso(text.as_bytes());
            let times = [number * DAY, number * 1000, number, number.div_euclid(1000)];
            is_unscaled(text) || at.is_some_and(|at| times.contains(&at.micros))
        }
        // A decimal of variable scale.
        CellKind::Nested => {
            let mut own = false;
            let scanned = scan::object(value.text(), |key, value| {
                own |= key.text() == "value" && is_unscaled(value.text())
            });
            scanned.is_ok() && own
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    /// What Debezium 3.5 makes of the default placeholder in Java: one value for each of its bytes.
    fn bytes_as(each: impl Fn(i64) -> String) -> String {
        let values: Vec<String> = DEFAULT.bytes().map(|byte| each(i64::from(byte))).collect();
        format!("[{}]", values.join(", "))
    }

    /// A user would have seen these placeholders instead of the current values.
    #[test]
    fn placeholders_of_arrays_maps_and_geometries_are_told_from_values() {
        let placeholder = Placeholder::default();
        let nested = |text: &str| placeholder.is(&Cell::new(CellKind::Nested, text), "");
        let encoded = |n: i64| STANDARD.encode([n as u8]);
        for text in [
            bytes_as(|n| n.to_string()),
            bytes_as(|n| format!("{n}.0")),
            bytes_as(|n| format!("\"{}\"", encoded(n))),
            bytes_as(|n| format!("{{\"scale\":0,\"value\":\"{}\"}}", encoded(n))),
            bytes_as(|n| format!("{}.{:02}", n / 100, n % 100)),
            bytes_as(|n| format!("\"1970-01-01T00:00:00.{n:06}\"")),
            format!("[\"{DEFAULT}\"]"),
            format!("[ \"{}\" ]", STANDARD.encode(DEFAULT)),
            format!("{{ \"{DEFAULT}\" : \"{DEFAULT}\" }}"),
            format!("{{\"wkb\":\"{}\",\"srid\":4326}}", NOWHERE[0]),
        ] {
            assert!(nested(&text), "{text}");
            // One item less, or a different last item.
            let other = text
                .replacen("95", "96", 1)
                .replacen("__", "_", 1)
                .replacen("AQE", "AQA", 1);
            let other = other.replacen("Xw==", "YA==", 1).replacen("0.96", "0.97", 1);
            assert!(other == text || !nested(&other), "{other}");
        }
        for text in ["[]", "[95]", "{}", "[true,true]", "[\"a\"]", "[95, 95, 100]"] {
            assert!(!nested(text), "{text}");
        }
        let escaped = format!("\\\"{DEFAULT}\\\"");
        assert!(placeholder.is(&Cell::new(CellKind::Escaped, &escaped), ""));
        let map = format!("{{\\\"{DEFAULT}\\\":\\\"{DEFAULT}\\\"}}");
        assert!(placeholder.is(&Cell::new(CellKind::Escaped, &map), ""));
    }

    #[test]
    fn the_default_has_java_s_name_based_uuid() {
        let placeholder = Placeholder::default();
        let uuid = r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#;
        assert!(placeholder.is(&Cell::new(CellKind::Nested, uuid), ""));
    }
}
