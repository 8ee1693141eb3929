//! Encodes a record's headers as one JSON object, so that Bronze and dead letters can store them.
//!
//! A value that is UTF-8 becomes a string, any other `{"base64": ...}`, and a missing one null. A name that occurs
//! repeatedly has a list of its values in their order. In the other direction, other JSON values are written as their
//! JSON text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::message::{BorrowedHeaders, Headers};
use serde_json::{Map, Value, json};

/// Headers in their order; a value may be missing.
pub type RecordHeaders = Vec<(String, Option<Vec<u8>>)>;

/// The headers in a JSON object of this form; none if `json` is not an object.
pub fn headers_of_json(json: &[u8]) -> RecordHeaders {
    let object: Map<String, Value> = serde_json::from_slice(json).unwrap_or_default();
    let mut headers = Vec::with_capacity(object.len());
    for (name, value) in object {
        match value {
            Value::Array(values) => headers.extend(values.into_iter().map(|value| (name.clone(), bytes(value)))),
            value => headers.push((name, bytes(value))),
        }
    }
    headers
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    let encoded = |value: &Value| {
        let object = value.as_object().filter(|object| object.len() == 1)?;
        STANDARD.decode(object.get("base64")?.as_str()?).ok()
    };
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.into_bytes()),
        other => Some(encoded(&other).unwrap_or_else(|| other.to_string().into_bytes())),
    }
}

/// The JSON object of the headers, or none if there are none.
pub fn to_json(headers: Option<&BorrowedHeaders>) -> Option<String> {
    let headers = headers.filter(|headers| headers.count() > 0)?;
    object(headers.iter().map(|header| (header.key, header.value)))
}

fn object<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Option<String> {
    let mut object: Map<String, Value> = Map::new();
    let mut repeated: Vec<String> = Vec::new();
    for (name, bytes) in headers {
        let value = match bytes.map(std::str::from_utf8) {
            None => Value::Null,
            Some(Ok(text)) => Value::from(text),
            Some(Err(_)) => json!({ "base64": STANDARD.encode(bytes.unwrap_or_default()) }),
        };
        match object.get_mut(name) {
            None => {
                object.insert(name.to_string(), value);
            }
            Some(Value::Array(values)) if repeated.iter().any(|other| other == name) => values.push(value),
            Some(first) => {
                *first = Value::Array(vec![first.take(), value]);
                repeated.push(name.to_string());
            }
        }
    }
    (!object.is_empty()).then(|| Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_is_lost_whatever_its_bytes() {
        let headers = [
            ("trace", Some(&b"00-1"[..])),
            ("raw", Some(&[0xff, 0][..])),
            ("trace", None),
            ("trace", Some(b"00-2")),
        ];
        let json = object(headers.into_iter()).expect("there are some");
        assert_eq!(json, r#"{"raw":{"base64":"/wA="},"trace":["00-1",null,"00-2"]}"#);
        let mut back = headers.map(|(name, value)| (name.to_string(), value.map(<[u8]>::to_vec)));
        back.sort_by(|(a, _), (b, _)| a.cmp(b));
        assert_eq!(headers_of_json(json.as_bytes()), back);
        assert_eq!(object(std::iter::empty()), None);
        let written = headers_of_json(br#"{"n": 1, "o": {"base64": 2}}"#);
        let text = |name: &str, value: &str| (name.to_string(), Some(value.as_bytes().to_vec()));
        assert_eq!(written, [text("n", "1"), text("o", "{\"base64\":2}")]);
        assert_eq!(headers_of_json(b"none"), []);
    }
}
