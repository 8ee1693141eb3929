//! A batch of records as decoders read it: bytes and text.

use arrow::array::{Array, BinaryArray, StringArray};
use encoding_rs::WINDOWS_1252;

use crate::decode::coerce;
use crate::repr::Charset;

/// The records to decode.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub values: &'a BinaryArray,
    pub keys: Option<&'a BinaryArray>,
    pub headers: Option<&'a StringArray>,
    pub ts_ms: &'a [Option<i64>],
}

impl Batch<'_> {
    /// The timestamp of each record, if known.
    pub fn times(&self) -> Vec<Option<i64>> {
        let mut times = self.ts_ms.to_vec();
        times.resize(self.values.len(), None);
        times
    }
}

/// A record as text, or why it is no valid text.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    utf8_or(bytes, "write it in UTF-8")
}

/// The same for a record of a file.
pub(super) fn utf8_of_file(bytes: &[u8], charset: Charset) -> Result<&str, String> {
    utf8_or(
        bytes,
        match charset {
            Charset::Utf8 => "set the feed's `encoding`, perhaps to \"windows-1252\", or write the file in UTF-8",
            _ => "the file holds bytes there that are no character in the feed's `encoding`; repair it",
        },
    )
}

fn utf8_or<'a>(bytes: &'a [u8], remedy: &str) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|e| {
        format!(
            "the record is not UTF-8 from byte {}: {}; {remedy}",
            e.valid_up_to(),
            coerce::shown(&String::from_utf8_lossy(bytes))
        )
    })
}

/// Converts records that were stored in Bronze before their feed's `encoding` was set. A record that is valid UTF-8
/// is kept, because since then all are stored as UTF-8. None if nothing has to be converted.
pub(super) fn in_utf8(values: &BinaryArray, charset: Charset) -> Option<BinaryArray> {
    if !charset.is_single_byte() || values.iter().flatten().all(|value| std::str::from_utf8(value).is_ok()) {
        return None;
    }
    let text = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(_) => value.to_vec(),
        Err(_) if charset == Charset::Latin1 => value.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
        Err(_) => WINDOWS_1252
            .decode_without_bom_handling(value)
            .0
            .into_owned()
            .into_bytes(),
    };
    Some(values.iter().map(|value| value.map(text)).collect())
}
