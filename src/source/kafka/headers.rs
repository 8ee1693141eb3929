//! A record's headers as one JSON object, so that Bronze and dead letters keep them.
//!
//! A value that is UTF-8 is a string, any other `{"base64": ...}`, one that is missing null. A name that comes again
//! has a list of its values, in their order.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::message::{BorrowedHeaders, Headers};
use serde_json::{Map, Value, json};

/// The JSON of the headers; none where there is none.
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
        assert_eq!(
            object(headers.into_iter()).as_deref(),
            Some(r#"{"raw":{"base64":"/wA="},"trace":["00-1",null,"00-2"]}"#)
        );
        assert_eq!(object(std::iter::empty()), None);
    }
}
