//! Reads what a request's headers say about its body, and splits the body into rows.
//!
//! This only checks that rows are valid JSON. Whether they fit the input's columns is decided later by the decoder. A
//! body with one row that is invalid JSON is refused as a whole.

use std::io::{self, Read};

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use flate2::read::MultiGzDecoder;
use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// How rows are laid out in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyShape {
    /// One object per line.
    Lines,
    /// An array of objects, or one object.
    Document,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    Zstd,
}

/// Why a body is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// A content type or coding that is not supported.
    Unsupported(String),
    /// The body is malformed; with the line, if known, and the reason.
    Malformed(Option<usize>, String),
    /// Larger than a body may be, once uncompressed.
    TooLarge,
    /// A row, by number from 1, is longer than `max_record`; the second number is its length in bytes.
    RowTooLong(u64, u64),
    /// The memory budget has no room for the body now.
    NoRoom,
}

const TYPES: &str = "send application/x-ndjson, one object a line, or application/json, an array of objects";

/// Reads the type and the coding of a body from the request's headers.
pub(super) fn kind(headers: &HeaderMap) -> Result<(BodyShape, Coding), BodyError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(content_type) = text(CONTENT_TYPE) else {
        return Err(BodyError::Unsupported(format!(
            "the request has no Content-Type; {TYPES}"
        )));
    };
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let shape = match essence.trim().to_ascii_lowercase().as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => BodyShape::Lines,
        "application/json" => BodyShape::Document,
        _ => {
            return Err(BodyError::Unsupported(format!(
                "Content-Type {content_type:?} is not understood; {TYPES}"
            )));
        }
    };
    let charset = parameters.to_ascii_lowercase().replace([' ', '"'], "");
    if charset.contains("charset=") && !charset.contains("charset=utf-8") {
        return Err(BodyError::Unsupported("JSON is sent in UTF-8".to_string()));
    }
    let coding = match text(CONTENT_ENCODING).map(str::to_ascii_lowercase).as_deref() {
        None | Some("identity" | "") => Coding::Plain,
        Some("gzip" | "x-gzip") => Coding::Gzip,
        Some("zstd") => Coding::Zstd,
        Some(other) => {
            return Err(BodyError::Unsupported(format!(
                "Content-Encoding {other:?} is not understood; send gzip, zstd or none"
            )));
        }
    };
    Ok((shape, coding))
}

/// The largest window of zstd, as a power of two: RFC 9659 allows 8 MiB for a Content-Encoding.
const WINDOW: u32 = 23;
/// How many bytes are decompressed at once.
const STEP: u64 = 256 << 10;

/// The decompressed body, of at most `most` bytes. `reserve` claims memory before it is used.
pub(super) fn uncompressed(
    body: Vec<u8>,
    coding: Coding,
    most: u64,
    mut reserve: impl FnMut(u64) -> bool,
) -> Result<Vec<u8>, BodyError> {
    let broken =
        |error: io::Error| BodyError::Malformed(None, format!("the body is not compressed as it says: {error}"));
    let mut reader: Box<dyn Read + '_> = match coding {
        Coding::Plain => return Ok(body),
        Coding::Gzip => Box::new(MultiGzDecoder::new(&body[..])),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(&body[..]).map_err(broken)?;
            decoder.window_log_max(WINDOW).map_err(broken)?;
            Box::new(decoder)
        }
    };
    let mut bytes = Vec::new();
    loop {
        let step = STEP.min(most + 1 - bytes.len() as u64);
        if !reserve(step) {
            return Err(BodyError::NoRoom);
        }
        bytes.reserve_exact(step as usize);
        let read = reader.by_ref().take(step).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 > most {
            return Err(BodyError::TooLarge);
        }
        if (read as u64) < step {
            return Ok(bytes);
        }
    }
}

/// The rows of a body, each as it was written and ended by a line break, and their number. A row may have at most
/// `longest` bytes.
pub(super) fn rows(body: &[u8], shape: BodyShape, longest: u64) -> Result<(Vec<u8>, u64), BodyError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let line = 1 + memchr::memchr_iter(b'\n', &body[..error.valid_up_to()]).count();
        BodyError::Malformed(Some(line), "the text is not UTF-8".to_string())
    })?;
    // A row with its line break is never longer than its share of the body: at least one separator goes with it,
    // except the last.
    let mut rows = Rows {
        lines: Vec::with_capacity(body.len() + 1),
        count: 0,
        longest,
        too_long: None,
    };
    match shape {
        BodyShape::Lines => {
            for (n, line) in text.split('\n').enumerate() {
                let line = line.trim_ascii();
                if !line.is_empty() {
                    serde_json::from_str::<IgnoredAny>(line).map_err(|error| {
                        let reason = match error.is_eof() {
                            true => "the row does not end in its line".to_string(),
                            false => said(&error),
                        };
                        BodyError::Malformed(Some(n + 1), reason)
                    })?;
                    rows.push(line);
                }
            }
        }
        BodyShape::Document => {
            serde_json::from_str::<IgnoredAny>(text)
                .map_err(|error| BodyError::Malformed(Some(error.line().max(1)), said(&error)))?;
            let whole = text.trim_ascii();
            match whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                None => rows.push(whole),
                Some(elements) => rows.push_all(elements),
            }
        }
    }
    match rows.too_long {
        Some((row, bytes)) => Err(BodyError::RowTooLong(row, bytes)),
        None => Ok((rows.lines, rows.count)),
    }
}

/// The parser's message without the line, which the caller reports separately.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    format!("{reason} at column {}", error.column())
}

struct Rows {
    lines: Vec<u8>,
    count: u64,
    longest: u64,
    /// The number and length in bytes of the first row that is too long.
    too_long: Option<(u64, u64)>,
}

impl Rows {
    /// Appends a row. A line break inside it becomes a blank, because between JSON tokens it is white space.
    fn push(&mut self, row: &str) {
        let start = self.lines.len();
        self.lines.extend_from_slice(row.as_bytes());
        if memchr::memchr2(b'\n', b'\r', &self.lines[start..]).is_some() {
            for byte in &mut self.lines[start..] {
                if matches!(*byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
        }
        self.lines.push(b'\n');
        self.count += 1;
        if row.len() as u64 > self.longest {
            self.too_long.get_or_insert((self.count, row.len() as u64));
        }
    }

    /// Appends the elements of an array that is known to be well formed.
    fn push_all(&mut self, elements: &str) {
        let mut rest = elements;
        loop {
            rest = rest.trim_ascii_start();
            let mut values = Deserializer::from_str(rest).into_iter::<IgnoredAny>();
            if values.next().is_none() {
                return;
            }
            let end = values.byte_offset();
            self.push(rest[..end].trim_ascii());
            rest = rest[end..].trim_ascii_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::io::Write;

    fn lines(body: &str, shape: BodyShape) -> Result<Vec<String>, BodyError> {
        let (lines, count) = rows(body.as_bytes(), shape, 1 << 20)?;
        let text = String::from_utf8(lines).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let lines: Vec<String> = text.lines().map(String::from).collect();
        assert_eq!(lines.len() as u64, count);
        Ok(lines)
    }

    #[test]
    fn rows_of_lines_of_arrays_and_of_one_object_are_as_they_were_written() {
        let taken = |body, shape| lines(body, shape).unwrap();
        assert_eq!(
            taken("{\"a\": 1}\r\n\n  {\"b\":\"\\n]\"}", BodyShape::Lines),
            ["{\"a\": 1}", "{\"b\":\"\\n]\"}"]
        );
        assert_eq!(
            taken(
                " [ {\"a\":\n [1,\r\n2]} ,{\"b\":\"],[\\\"\"},3 , \"x\",null,true,1.5e300]\n",
                BodyShape::Document
            ),
            [
                "{\"a\":  [1,  2]}",
                "{\"b\":\"],[\\\"\"}",
                "3",
                "\"x\"",
                "null",
                "true",
                "1.5e300"
            ]
        );
        assert_eq!(taken("{\"a\":\n1}", BodyShape::Document), ["{\"a\": 1}"]);
        assert_eq!(taken("[]", BodyShape::Document), [""; 0]);
        assert_eq!(taken(" [ ] ", BodyShape::Document), [""; 0]);
        assert_eq!(taken("\n\n", BodyShape::Lines), [""; 0]);
        assert_eq!(taken("[[1],[2]]", BodyShape::Document), ["[1]", "[2]"]);
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_line() {
        let refused = |body: &[u8], shape| match rows(body, shape, 1 << 20) {
            Err(BodyError::Malformed(line, reason)) => (line.unwrap_or(0), reason),
            other => panic!("{other:?}"),
        };
        let (line, reason) = refused(b"{\"a\":1}\n\n{\"a\":}\n{\"a\":2}", BodyShape::Lines);
        assert_eq!((line, reason.as_str()), (3, "expected value at column 6"));
        let (line, reason) = refused(b"{\"a\":1}\n{\"a\":", BodyShape::Lines);
        assert_eq!((line, reason.as_str()), (2, "the row does not end in its line"));
        assert_eq!(refused(b"{\"a\":1} {\"a\":2}\n", BodyShape::Lines).0, 1);
        let (line, reason) = refused(b"[{\"a\":1},\n {\"a\" 2}]", BodyShape::Document);
        assert_eq!((line, reason.as_str()), (2, "expected `:` at column 7"));
        assert_eq!(refused(b"[1,]", BodyShape::Document).0, 1);
        assert_eq!(refused(b"[1] [2]", BodyShape::Document).0, 1);
        assert_eq!(refused(b"", BodyShape::Document).0, 1);
        assert_eq!(
            refused(b"{}\n{\"a\":\"\xff\"}", BodyShape::Lines),
            (2, "the text is not UTF-8".into())
        );
    }

    #[test]
    fn a_row_above_the_limit_is_refused_by_its_number() {
        let body = b"{\"a\":1}\n{\"a\":12}\n";
        assert!(rows(body, BodyShape::Lines, 8).is_ok());
        assert_eq!(rows(body, BodyShape::Lines, 7), Err(BodyError::RowTooLong(2, 8)));
        assert_eq!(
            rows(b"[1, [1,2,3,4]]", BodyShape::Document, 8),
            Err(BodyError::RowTooLong(2, 9))
        );
    }

    #[test]
    fn types_and_codings_are_told_and_others_refused() {
        let of = |content_type: Option<&'static str>, coding: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            content_type.map(|value| headers.insert(CONTENT_TYPE, HeaderValue::from_static(value)));
            coding.map(|value| headers.insert(CONTENT_ENCODING, HeaderValue::from_static(value)));
            kind(&headers)
        };
        assert_eq!(
            of(Some("application/x-ndjson"), None),
            Ok((BodyShape::Lines, Coding::Plain))
        );
        assert_eq!(
            of(Some("Application/JSON; charset=UTF-8"), Some("gzip")),
            Ok((BodyShape::Document, Coding::Gzip))
        );
        for (content_type, coding) in [
            (None, None),
            (Some("text/csv"), None),
            (Some("application/json; charset=latin1"), None),
            (Some("application/json"), Some("br")),
        ] {
            assert!(matches!(of(content_type, coding), Err(BodyError::Unsupported(_))));
        }
    }

    #[test]
    fn a_body_takes_no_more_memory_than_it_may() {
        let plain = vec![b' '; 3 * STEP as usize];
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        let mut reserved = 0;
        let read = uncompressed(zstd.clone(), Coding::Zstd, 1 << 30, |bytes| {
            reserved += bytes;
            true
        });
        assert!(read.is_ok() && reserved >= plain.len() as u64, "{reserved}");
        let mut left = 2 * STEP;
        let read = uncompressed(zstd, Coding::Zstd, 1 << 30, |bytes| {
            let some = bytes <= left;
            left = left.saturating_sub(bytes);
            some
        });
        assert_eq!(read, Err(BodyError::NoRoom));
        // A decoder would have to allocate this window however small the body is.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(WINDOW + 1).unwrap();
        encoder.write_all(&plain).unwrap();
        let wide = encoder.finish().unwrap();
        let refused = uncompressed(wide, Coding::Zstd, 1 << 30, |_| true);
        assert!(matches!(refused, Err(BodyError::Malformed(None, _))), "{refused:?}");
    }

    #[test]
    fn a_small_body_that_becomes_large_is_refused() {
        let plain = vec![b' '; 10_000];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&plain).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        for (body, coding) in [(gzip, Coding::Gzip), (zstd, Coding::Zstd)] {
            assert_eq!(
                uncompressed(body.clone(), coding, 10_000, |_| true).as_deref(),
                Ok(&plain[..])
            );
            assert_eq!(
                uncompressed(body.clone(), coding, 9_999, |_| true),
                Err(BodyError::TooLarge)
            );
            let torn = uncompressed(body[..body.len() / 2].to_vec(), coding, 10_000, |_| true);
            assert!(matches!(torn, Err(BodyError::Malformed(None, _))), "{torn:?}");
        }
    }
}
