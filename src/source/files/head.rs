//! What stands before the records of a CSV file: lines to pass over, Excel's `sep=;`, the header.

use std::io::Read;
use std::sync::Arc;

use super::text::{Line, Records, SplitError};

/// Bytes of a file's beginning that are kept to guess by what it is, if it is none of the feed's.
pub(super) const SAMPLE: usize = 8 << 10;

/// What stands before the records.
pub(crate) struct Head {
    /// What records are decoded by, as Bronze keeps it: the header; before it, Excel's `sep=;` on a line of its own.
    pub header: Option<Arc<str>>,
    /// The file's beginning.
    pub sample: String,
}

/// Why there is no head.
pub(crate) enum HeadError {
    Split(SplitError),
    /// The file cannot be used: why, and what to do.
    Refused(String),
}

impl From<SplitError> for HeadError {
    fn from(error: SplitError) -> Self {
        HeadError::Split(error)
    }
}

/// Reads it, so that the first record is next, split as the file says.
pub(crate) fn read_head<R: Read>(records: &mut Records<R>) -> Result<Head, HeadError> {
    let sample = records.peek(SAMPLE)?.to_vec();
    let Some(dialect) = records.dialect().copied() else {
        return Ok(Head {
            header: None,
            sample: String::from_utf8_lossy(&sample).into_owned(),
        });
    };
    let mut skip = dialect.skip_lines;
    let told = told_delimiter(&sample);
    if let Some(delimiter) = told {
        records.skip_line()?;
        records.split_by(delimiter);
        skip = skip.saturating_sub(1);
    }
    for _ in 0..skip {
        if records.peek(1)?.is_empty() {
            break;
        }
        records.skip_line()?;
    }
    let told = told.map(|delimiter| format!("sep={}", char::from(delimiter)));
    let mut header = told.clone().filter(|_| !dialect.header);
    if dialect.header
        && let Some(Line {
            bytes: line, cut_from, ..
        }) = records.next()?
    {
        if let Some(length) = cut_from {
            return Err(HeadError::Refused(format!(
                "its header line has {length} bytes, more than max_record allows; perhaps a quote is never closed"
            )));
        }
        let line = std::str::from_utf8(line).map_err(|_| HeadError::Refused(not_utf8(line, &sample)))?;
        header = Some(match told {
            Some(told) => format!("{told}\n{line}"),
            None => line.to_string(),
        });
    }
    Ok(Head {
        header: header.map(Arc::from),
        sample: String::from_utf8_lossy(&sample).into_owned(),
    })
}

/// The delimiter that the first line of a file tells, as Excel reads and writes it.
pub(crate) fn told_delimiter(sample: &[u8]) -> Option<u8> {
    match sample.strip_prefix(b"sep=")? {
        [delimiter] | [delimiter, b'\r' | b'\n', ..] if delimiter.is_ascii_graphic() || *delimiter == b'\t' => {
            Some(*delimiter)
        }
        _ => None,
    }
}

fn not_utf8(line: &[u8], sample: &[u8]) -> String {
    let encoding = match sample.contains(&0) {
        true => "utf-16",
        false => "windows-1252",
    };
    let shown: String = String::from_utf8_lossy(line).chars().take(80).collect();
    format!("its header is not UTF-8: {shown:?}; set the feed's `encoding`, perhaps to {encoding:?}")
}
