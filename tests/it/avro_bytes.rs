//! Avro's binary encoding of what tests and benches send.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A number.
pub fn long(n: i64) -> Vec<u8> {
    let (mut n, mut out) = (((n << 1) ^ (n >> 63)) as u64, Vec::new());
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// Bytes.
pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    [long(bytes.len() as i64), bytes.to_vec()].concat()
}

/// A text.
pub fn text(text: &str) -> Vec<u8> {
    bytes(text.as_bytes())
}

/// A record behind a schema id.
pub fn framed(schema: u32, fields: &[Vec<u8>]) -> Vec<u8> {
    [&[0], &schema.to_be_bytes()[..], &fields.concat()].concat()
}

/// A line of the log: a record behind a schema id.
pub fn line(schema: u32, fields: &[Vec<u8>]) -> String {
    format!("{{\"value\": \"{}\"}}\n", STANDARD.encode(framed(schema, fields)))
}
