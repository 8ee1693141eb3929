//! What the schema part of a Debezium record says its values mean.

use hashbrown::HashMap;
use serde_json::Value;

use super::super::cell::Meaning;

/// By field of the row: what its values mean, and their scale.
pub(super) type Meanings = HashMap<Box<str>, (Meaning, i16)>;

/// How many schemas are kept; a topic usually has one, and a few while a table is altered.
const KEPT: usize = 8;

/// The schemas seen last, by their text: records repeat it byte for byte.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    /// The newest last.
    seen: Vec<(String, Meanings)>,
}

impl Schemas {
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
                self.seen.push((schema.to_string(), read(schema)));
            }
        }
        &self.seen.last().expect("it was pushed if it was not there").1
    }
}

/// The meanings that a schema part tells; what it does not say in the usual way is plain.
fn read(schema: &str) -> Meanings {
    let mut meanings = Meanings::new();
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return meanings;
    };
    for row in fields(&schema).filter(|part| matches!(part["field"].as_str(), Some("before" | "after"))) {
        for field in fields(row) {
            let (Some(name), Some(semantic)) = (field["field"].as_str(), field["name"].as_str()) else {
                continue;
            };
            let meaning = of_name(semantic);
            let scale = match &field["parameters"]["scale"] {
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
        "org.apache.kafka.connect.data.Decimal" => Meaning::Unscaled,
        _ => Meaning::Plain,
    }
}
