//! Reads what precedes the records of a CSV file: lines to skip, Excel's `sep=;`, and the header.

use std::io::Read;
use std::sync::Arc;

use super::text::{SplitError, TextRecord, TextRecords};

/// How many bytes of a file's beginning are kept, to guess what the file is if it does not fit the feed.
pub(super) const SAMPLE: usize = 8 << 10;

/// What precedes the records of a file.
pub(crate) struct FileHeading {
    /// The text by which records are decoded, as Bronze stores it: the header, with Excel's `sep=;` on a line before
    /// it, if any.
    pub header: Option<Arc<str>>,
    /// The file's beginning.
    pub sample: String,
}

/// Why the heading could not be read.
pub(crate) enum HeadError {
    Split(SplitError),
    /// The file cannot be used; with the reason and what to do.
    Refused(String),
}

impl From<SplitError> for HeadError {
    fn from(error: SplitError) -> Self {
        HeadError::Split(error)
    }
}

/// Reads the heading, and sets the delimiter that the file declares. Afterwards the first record is next.
pub(crate) fn read_head<R: Read>(records: &mut TextRecords<R>) -> Result<FileHeading, HeadError> {
    let sample = records.peek(SAMPLE)?.to_vec();
    let Some(dialect) = records.dialect().copied() else {
        return Ok(FileHeading {
            header: None,
            sample: String::from_utf8_lossy(&sample).into_owned(),
        });
    };
    let mut skip = dialect.skip_lines;
    let declared = declared_delimiter(&sample);
    if let Some(delimiter) = declared {
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
    let declared = declared.map(|delimiter| format!("sep={}", char::from(delimiter)));
    let mut header = declared.clone().filter(|_| !dialect.header);
    if dialect.header
        && let Some(TextRecord {
            bytes: line, cut_from, ..
        }) = records.next()?
    {
        if let Some(length) = cut_from {
            return Err(HeadError::Refused(format!(
                "its header line has {length} bytes, more than max_record allows; perhaps a quote is never closed"
            )));
        }
        let line = std::str::from_utf8(line).map_err(|_| HeadError::Refused(not_utf8(line, &sample)))?;
        header = Some(match declared {
            Some(declared) => format!("{declared}\n{line}"),
            None => line.to_string(),
        });
    }
    Ok(FileHeading {
        header: header.map(Arc::from),
        sample: String::from_utf8_lossy(&sample).into_owned(),
    })
}

/// The delimiter that the first line of a file declares, in the form that Excel reads and writes.
pub(crate) fn declared_delimiter(sample: &[u8]) -> Option<u8> {
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
