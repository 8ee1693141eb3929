//! JSON texts in records: a byte order mark before them, Connect's wrapper around a value, and the message about a
//! text that is no JSON.

use crate::decode::cell::Cell;
use crate::decode::coerce;
use crate::decode::scan;
use crate::decode::scan::JsonError;

/// The `payload` and `schema` of an object that has no other fields: the form in which Connect's JSON converter
/// writes values.
pub(in crate::decode) fn beside_schema(text: &str) -> Result<Option<(Option<Cell<'_>>, Cell<'_>)>, JsonError> {
    let (mut schema, mut payload, mut other) = (None, None, false);
    scan::object(text, |key, value| match key.text() {
        "schema" => schema = Some(value),
        "payload" => payload = Some(value),
        _ => other = true,
    })?;
    Ok(payload.filter(|_| !other).map(|payload| (schema, payload)))
}

/// A text without its byte order mark.
pub(in crate::decode) fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Why a text is not a JSON object.
pub(in crate::decode) fn not_json(text: &str, broken: JsonError) -> String {
    let shown = coerce::shown(text);
    let JsonError { at, what } = broken;
    format!("the record is not a JSON object: {what} at byte {at} of {shown}; write one object a record")
}
