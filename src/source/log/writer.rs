//! Appends records to the embedded log.
//!
//! All records of a batch for one partition are one write of complete lines. So a reader sees an incomplete line only
//! if the system splits the write, and then waits for its end. Only one process may write to a partition at a time.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A record to append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// JSON text without line breaks.
    pub key: Option<&'a [u8]>,
    /// JSON text without line breaks; none is a tombstone. It is not validated: a broken value makes a broken line.
    pub value: Option<&'a [u8]>,
    /// A JSON object without line breaks.
    pub headers: Option<&'a [u8]>,
    /// Unix milliseconds.
    pub ts_ms: Option<i64>,
}

/// Writes a log's partitions.
pub struct LogWriter {
    folder: PathBuf,
    durable: bool,
    files: HashMap<String, File>,
    lines: Vec<u8>,
}

impl LogWriter {
    /// Opens the log in `folder`, which is created if it does not exist. With `durable`, an append returns once its
    /// bytes are on the disk.
    pub fn open(folder: impl Into<PathBuf>, durable: bool) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        Ok(LogWriter {
            folder,
            durable,
            files: HashMap::new(),
            lines: Vec::new(),
        })
    }

    /// The file of a partition.
    pub fn path(&self, partition: &str) -> PathBuf {
        self.folder.join(format!("{partition}.ndjson"))
    }

    /// Appends records to a partition in one write; returns the offset behind them.
    ///
    /// A line break within a value is written as a space: in JSON text a raw one can only be white space, and it
    /// would end the line.
    pub fn append<'a>(&mut self, partition: &str, records: impl IntoIterator<Item = LogRecord<'a>>) -> io::Result<u64> {
        self.lines.clear();
        for record in records {
            write_line(&mut self.lines, &record);
        }
        let path = self.path(partition);
        if !self.files.contains_key(partition) {
            let file = open_partition(&path)?;
            if self.durable {
                File::open(&self.folder)?.sync_all()?;
            }
            self.files.insert(partition.to_string(), file);
        }
        let file = self.files.get_mut(partition).expect("inserted just above");
        file.write_all(&self.lines)?;
        if self.durable {
            file.sync_data()?;
        }
        file.seek(SeekFrom::End(0))
    }
}

/// Opens a partition for appending. If an earlier writer left an incomplete line, a line end is added first, so that
/// only that line is lost and not the record behind it.
fn open_partition(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

/// Writes a record's line.
fn write_line(lines: &mut Vec<u8>, record: &LogRecord<'_>) {
    let start = lines.len();
    lines.push(b'{');
    if let Some(key) = record.key {
        lines.extend_from_slice(b"\"key\":");
        lines.extend_from_slice(key);
        lines.push(b',');
    }
    if let Some(ts_ms) = record.ts_ms {
        write!(lines, "\"ts_ms\":{ts_ms},").expect("writing to memory does not fail");
    }
    if let Some(headers) = record.headers {
        lines.extend_from_slice(b"\"headers\":");
        lines.extend_from_slice(headers);
        lines.push(b',');
    }
    lines.extend_from_slice(b"\"value\":");
    lines.extend_from_slice(record.value.unwrap_or(b"null"));
    lines.push(b'}');
    for byte in &mut lines[start..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::envelope;
    use super::*;

    #[test]
    fn a_written_line_is_read_back_and_offsets_are_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(folder.path().join("log"), true).unwrap();
        let record = LogRecord {
            key: Some(b"\"k\""),
            value: Some(b"{\"a\":\n1}"),
            headers: Some(b"{\"h\":1}"),
            ts_ms: Some(-3),
        };
        let first = log.append("p", [record, LogRecord::default()]).unwrap();
        let text = std::fs::read_to_string(log.path("p")).unwrap();
        assert_eq!(text.len() as u64, first);
        assert_eq!(
            text,
            "{\"key\":\"k\",\"ts_ms\":-3,\"headers\":{\"h\":1},\"value\":{\"a\": 1}}\n{\"value\":null}\n"
        );
        let parsed = envelope::parse(text.lines().next().unwrap().as_bytes()).unwrap();
        assert_eq!(
            (parsed.key, parsed.headers, parsed.ts_ms),
            (record.key, record.headers, record.ts_ms)
        );
        assert_eq!(log.append("p", [LogRecord::default()]).unwrap(), first + 15);
    }

    #[test]
    fn a_line_left_torn_by_an_earlier_writer_spoils_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("0.ndjson"), "{\"value\":{\"a").unwrap();
        let mut log = LogWriter::open(folder.path(), false).unwrap();
        log.append("0", [LogRecord::default()]).unwrap();
        assert_eq!(
            std::fs::read_to_string(log.path("0")).unwrap(),
            "{\"value\":{\"a\n{\"value\":null}\n"
        );
    }
}
