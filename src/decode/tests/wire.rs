//! Records behind schema ids, encoded by a straightforward implementation of the specification.

use super::*;
use crate::definition::KeyFormat;
use crate::registry::mock::Mock;
use crate::registry::tests::settings;
use serde_json::Value;

/// A mock registry and a decoder that uses it.
pub(super) struct Wired {
    pub mock: Mock,
    pub input: Input,
    /// What one decoder learnt from the registry is available to the next one.
    registries: Registries,
}

impl Wired {
    pub fn new(format: Format, key: &[&str], columns: Vec<Col>) -> Self {
        let mock = Mock::start();
        let mut input = input(format, key, columns);
        input.feeds[0].kind = FeedKind::Log(LogFeed {
            path: PathBuf::new(),
            rules: Default::default(),
        });
        input.feeds[0].wire.registry = Some(settings(&[&mock.url]));
        Wired {
            mock,
            input,
            registries: Registries::new(None),
        }
    }

    pub fn key_format(mut self, format: KeyFormat) -> Self {
        self.input.feeds[0].wire.key_format = Some(format);
        self
    }

    pub fn avro(&self, subject: &str, schema: &Value) -> u32 {
        self.mock
            .register(subject, "AVRO", &schema.to_string(), Value::Array(vec![]))
    }

    pub fn decoder(&self) -> Ready {
        Ready(Decoder::new(&self.input, &self.input.feeds[0], &self.registries).unwrap())
    }

    pub fn decode(&self, records: &[Vec<u8>]) -> Decoded {
        self.decoder().decode(raw(None, records))
    }
}

/// Puts the header of a schema id before bytes.
pub(super) fn framed(id: u32, bytes: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], bytes].concat()
}

/// Encodes a value in Avro; in a union, by the first branch that fits, or by `{"branch": n, "value": ...}`.
pub(super) fn avro(schema: &Value, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let mut named = Named::new();
    name(schema, &mut named);
    encode(schema, value, &named, &mut out);
    out
}

/// Collects named types.
fn name(schema: &Value, named: &mut Named) {
    if let (Some(name), Some("record" | "enum" | "fixed")) = (schema["name"].as_str(), schema["type"].as_str()) {
        named.insert(name.to_string(), schema.clone());
    }
    match schema {
        Value::Array(inner) => inner.iter().for_each(|inner| name(inner, named)),
        Value::Object(inner) => inner.values().for_each(|inner| name(inner, named)),
        _ => (),
    }
}

pub(super) fn long(n: i64, out: &mut Vec<u8>) {
    let mut n = ((n << 1) ^ (n >> 63)) as u64;
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    long(bytes.len() as i64, out);
    out.extend(bytes);
}

type Named = std::collections::HashMap<String, Value>;

fn encode(schema: &Value, value: &Value, named: &Named, out: &mut Vec<u8>) {
    if let Value::Array(branches) = schema {
        let fits = |branch: &Value| {
            let kind = branch["type"].as_str().or(branch.as_str()).unwrap();
            match value {
                Value::Null => kind == "null",
                Value::Bool(_) => kind == "boolean",
                Value::Number(_) => matches!(kind, "int" | "long" | "float" | "double"),
                Value::String(_) => matches!(kind, "string" | "bytes" | "enum" | "fixed"),
                Value::Array(_) => kind == "array",
                Value::Object(_) => !matches!(kind, "null" | "int" | "long" | "string" | "bytes"),
            }
        };
        let (branch, value) = match value.get("branch") {
            Some(branch) => (branch.as_u64().unwrap() as usize, &value["value"]),
            None => (branches.iter().position(fits).unwrap(), value),
        };
        long(branch as i64, out);
        return encode(&branches[branch], value, named, out);
    }
    let kind = schema["type"].as_str().or(schema.as_str()).unwrap_or_default();
    match kind {
        "null" => (),
        "boolean" => out.push(u8::from(value.as_bool().unwrap())),
        "int" | "long" => long(value.as_i64().unwrap(), out),
        "float" => out.extend((value.as_f64().unwrap() as f32).to_le_bytes()),
        "double" => out.extend(value.as_f64().unwrap().to_le_bytes()),
        // In these tests, bytes are written as hexadecimal.
        "bytes" => sized(&hex(value.as_str().unwrap()), out),
        "fixed" => out.extend(hex(value.as_str().unwrap())),
        "string" => sized(value.as_str().unwrap().as_bytes(), out),
        "enum" => {
            let symbols = schema["symbols"].as_array().unwrap();
            long(symbols.iter().position(|symbol| symbol == value).unwrap() as i64, out);
        }
        "array" => {
            let items = value.as_array().unwrap();
            // Encodes two blocks, one of them with its length.
            let (one, two) = items.split_at(items.len() / 2);
            if !one.is_empty() {
                let mut block = Vec::new();
                one.iter()
                    .for_each(|item| encode(&schema["items"], item, named, &mut block));
                long(-(one.len() as i64), out);
                long(block.len() as i64, out);
                out.extend(block);
            }
            if !two.is_empty() {
                long(two.len() as i64, out);
                two.iter().for_each(|item| encode(&schema["items"], item, named, out));
            }
            long(0, out);
        }
        "map" => {
            let entries = value.as_object().unwrap();
            if !entries.is_empty() {
                long(entries.len() as i64, out);
                for (key, value) in entries {
                    sized(key.as_bytes(), out);
                    encode(&schema["values"], value, named, out);
                }
            }
            long(0, out);
        }
        "record" => {
            for field in schema["fields"].as_array().unwrap() {
                encode(&field["type"], &value[field["name"].as_str().unwrap()], named, out);
            }
        }
        "" => encode(&schema["type"], value, named, out),
        name => {
            encode(&named[name], value, named, out);
        }
    }
}

pub(super) fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
