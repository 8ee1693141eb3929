//! What the schema part of a Debezium record says its values mean.

use hashbrown::HashMap;
use serde_json::Value;

use super::super::cell::Meaning;

/// By field of the row: what its values mean, and their scale.
pub(in crate::decode) type Meanings = HashMap<Box<str>, (Meaning, i16)>;

/// How many schemas are kept; a topic usually has one, and a few while a table is altered.
const KEPT: usize = 8;

/// What a record with a schema part holds.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) enum Payload {
    /// The rows before and after.
    Envelope,
    /// A row.
    Row,
}

/// The schemas seen last, by their text: records repeat it byte for byte.
#[derive(Debug)]
pub(in crate::decode) struct Schemas {
    payload: Payload,
    /// The newest last.
    seen: Vec<(String, Meanings)>,
}

impl Schemas {
    /// Of records that hold this.
    pub fn new(payload: Payload) -> Self {
        Schemas {
            payload,
            seen: Vec::new(),
        }
    }

    /// What a schema part says of the row's fields.
    pub fn of(&mut self, schema: &str) -> &Meanings {
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

/// The meanings that a schema part tells; what it does not say in the usual way is plain.
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
            // Of an array, what its values mean.
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

/// What a value means by Connect's name of its schema.
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
