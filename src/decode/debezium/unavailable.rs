//! What Debezium writes where the source left a value out (an unchanged TOASTed column): its placeholder, in the form that
//! the column's type has. The forms are those of Debezium's `UnchangedToastedPlaceholder`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Days};
use md5::{Digest, Md5};
use uuid::Builder;

use super::super::cell::{Cell, Datum, Kind};

/// Debezium's default `unavailable.value.placeholder`.
const DEFAULT: &str = "__debezium_unavailable_value";

/// The placeholder of a feed's connector.
#[derive(Debug)]
pub(in crate::decode) struct Placeholder {
    bytes: Vec<u8>,
    /// As JSON or its text, whatever the column's type.
    forms: Vec<String>,
}

impl Default for Placeholder {
    fn default() -> Self {
        Placeholder::new(DEFAULT)
    }
}

impl Placeholder {
    /// Of a connector whose `unavailable.value.placeholder` is this.
    pub fn new(placeholder: &str) -> Self {
        let bytes = placeholder.as_bytes();
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let list = |items: &mut dyn Iterator<Item = String>| format!("[{}]", items.collect::<Vec<_>>().join(","));
        let base64 = STANDARD.encode(bytes);
        // Java's UUID.nameUUIDFromBytes.
        let uuid = Builder::from_md5_bytes(Md5::digest(bytes).into()).into_uuid();
        let day = |byte: &u8| DateTime::UNIX_EPOCH.date_naive() + Days::new(u64::from(*byte));
        let map = format!("{{{0}:{0}}}", quoted(placeholder));
        let forms = vec![
            list(&mut [quoted(placeholder)].into_iter()),
            list(&mut [quoted(&base64)].into_iter()),
            list(&mut [quoted(&uuid.to_string())].into_iter()),
            list(&mut bytes.iter().map(u8::to_string)),
            // Arrays of dates in Avro, as they are rendered here.
            list(&mut bytes.iter().map(|byte| quoted(&day(byte).to_string()))),
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            // hstore, also as the inside of a JSON string.
            quoted(&map)[1..quoted(&map).len() - 1].to_string(),
            map,
            base64,
            quoted(placeholder)[1..quoted(placeholder).len() - 1].to_string(),
            placeholder.to_string(),
        ];
        Placeholder {
            bytes: bytes.to_vec(),
            forms,
        }
    }

    /// Makes cells that hold it cells without a value. `derived`: what was derived while they were read.
    pub fn mark(&self, cells: &mut [Cell<'_>], derived: &str) {
        for cell in cells.iter_mut().filter(|cell| self.is(cell, derived)) {
            *cell = Cell::new(Kind::Unavailable, "");
        }
    }

    fn is(&self, cell: &Cell<'_>, derived: &str) -> bool {
        match (cell.datum, cell.kind) {
            (Datum::Bytes(bytes), _) => bytes == self.bytes,
            (Datum::Text(_) | Datum::Derived(..), Kind::Text | Kind::Escaped | Kind::Nested) => {
                let text = cell.settle(derived).text();
                text.len() >= self.bytes.len() && self.forms.iter().any(|form| form == text)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    /// What Debezium 3.5 has of it in Java: `UUID.nameUUIDFromBytes("__debezium_unavailable_value".getBytes())`.
    #[test]
    fn the_default_has_java_s_name_based_uuid() {
        let placeholder = Placeholder::default();
        let uuid = r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#;
        assert!(placeholder.is(&Cell::new(Kind::Nested, uuid), ""));
    }
}
