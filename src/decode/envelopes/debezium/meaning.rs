//! Reads from the schema part of a Debezium record what the values mean.

use hashbrown::HashMap;
use serde_json::Value;

use crate::decode::cell::Meaning;

/// For each field of the row, the meaning and the scale of its values.
pub(in crate::decode) type Meanings = HashMap<Box<str>, (Meaning, i16)>;

/// How many schemas are cached; a topic usually has one, and a few while its table is altered.
const KEPT: usize = 8;

/// The content of a record with a schema part.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) enum Payload {
    /// An envelope with the old and the new row.
    Envelope,
    /// A single row.
    Row,
}

/// A cache of schemas by their text, which records repeat byte for byte.
#[derive(Debug)]
pub(in crate::decode) struct SchemaCache {
    payload: Payload,
    /// The most recently used last.
    seen: Vec<(String, Meanings)>,
}

impl SchemaCache {
    /// A cache for records with this content.
    pub fn new(payload: Payload) -> Self {
        SchemaCache {
            payload,
            seen: Vec::new(),
        }
    }

    /// The most recently used schema's text.
    pub fn newest(&self) -> Option<&str> {
        self.seen.last().map(|(text, _)| text.as_str())
    }

    /// The meanings of the row's fields by a schema part.
    pub fn meanings(&mut self, schema: &str) -> &Meanings {
        match self.seen.iter().position(|(text, _)| text == schema) {
            Some(at) if at + 1 == self.seen.len() => (),
            Some(at) => {
                let seen = self.seen.remove(at);
                self.seen.push(seen);
            }
            None => {
                if self.seen.len() == KEPT {
                    self.seen.remove(0);
                }
                self.seen.push((schema.to_string(), read(schema, self.payload)));
            }
        }
        &self.seen.last().expect("it was pushed if it was not there").1
    }
}

/// Reads the meanings from a schema part; anything unusual has a plain meaning.
fn read(schema: &str, payload: Payload) -> Meanings {
    let mut meanings = Meanings::new();
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return meanings;
    };
    let is_row = |part: &&Value| matches!(part["field"].as_str(), Some("before" | "after"));
    let rows: Vec<&Value> = match payload {
        Payload::Envelope => fields(&schema).filter(is_row).collect(),
        Payload::Row => vec![&schema],
    };
    for row in rows {
        for field in fields(row) {
            // For an array, the meaning of its items.
            let value = match field["type"].as_str() {
                Some("array") => &field["items"],
                _ => field,
            };
            let (Some(name), Some(semantic)) = (field["field"].as_str(), value["name"].as_str()) else {
                continue;
            };
            let meaning = of_name(semantic);
            let scale = match &value["parameters"]["scale"] {
                Value::String(text) => text.parse().ok(),
                other => other.as_i64().and_then(|n| i16::try_from(n).ok()),
            };
            if meaning != Meaning::Plain {
                meanings.insert(name.into(), (meaning, scale.unwrap_or(0)));
            }
        }
    }
    meanings
}

fn fields(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["fields"].as_array().into_iter().flatten()
}

/// The meaning of values whose Connect schema has this name.
pub(in crate::decode) fn of_name(semantic: &str) -> Meaning {
    match semantic {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Meaning::Days,
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Meaning::Millis,
        "io.debezium.time.MicroTimestamp" => Meaning::Micros,
        "io.debezium.time.NanoTimestamp" => Meaning::Nanos,
        "io.debezium.time.Time"
        | "io.debezium.time.MicroTime"
        | "io.debezium.time.NanoTime"
        | "io.debezium.time.ZonedTime"
        | "io.debezium.time.MicroDuration"
        | "io.debezium.time.NanoDuration"
        | "io.debezium.time.Interval"
        | "io.debezium.time.Year"
        | "org.apache.kafka.connect.data.Time" => Meaning::NoPoint,
        "org.apache.kafka.connect.data.Decimal" | "io.debezium.data.VariableScaleDecimal" => Meaning::Unscaled,
        _ => Meaning::Plain,
    }
}
