//! Poison: unusable input of many kinds, beside good input in the same folders. Each piece says what must become of
//! it: how many good rows it has, and how many dead letters it makes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use crate::support::Folder;

/// Kinds of poison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// A log line that is not JSON.
    NoJson,
    /// A log line with bytes that are not UTF-8.
    NoUtf8,
    /// A log line with a value of a wrong type.
    WrongType,
    /// Good lines of a CSV file around bad ones: a word for a number, bytes that are not UTF-8.
    BadRows,
    /// A truncated gzip.
    CutGzip,
    /// A file that is named as gzip but is not.
    NoGzip,
    /// A Parquet file without its middle part, and bytes that are not Parquet.
    DamagedParquet,
    /// A truncated Avro file, and one without a header.
    DamagedAvro,
    /// A folder below the glob that may not be read, and FIFOs and sockets instead of files.
    NoFiles,
    /// Links to themselves, in cycles, and to a parent folder.
    LinkLoops,
    /// A good file whose name is not UTF-8, and one whose name contains terminal escapes.
    OddNames,
    /// A CSV file without the required header.
    WrongHeader,
    /// Values that cannot be the name of a partition's folder.
    LongPartitions,
    /// Files in the folder of requests that are not requests, and requests for files that may not be read.
    BrokenRequests,
}

/// All of them.
pub const ALL: [Poison; 14] = [
    Poison::NoJson,
    Poison::NoUtf8,
    Poison::WrongType,
    Poison::BadRows,
    Poison::CutGzip,
    Poison::NoGzip,
    Poison::DamagedParquet,
    Poison::DamagedAvro,
    Poison::NoFiles,
    Poison::LinkLoops,
    Poison::OddNames,
    Poison::WrongHeader,
    Poison::LongPartitions,
    Poison::BrokenRequests,
];

/// The expected outcome of all input so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The number of good rows, each with an id of its own.
    pub rows: u64,
    /// The sum of their ids.
    pub ids: u64,
    /// The number of dead letters of records.
    pub records: u64,
    /// The number of dead letters of files.
    pub files: u64,
}

const INPUT: &str = r#"
[columns]
id = { type = "BIGINT", nullable = false }
kind = "VARCHAR"
[[feeds]]
name = "live"
kind = "log"
path = "live/events"
format = "json"
[[feeds]]
name = "texts"
kind = "files"
path = "texts/**/*.csv*"
format = "csv"
[[feeds]]
name = "parquet"
kind = "files"
path = "parquet/*.parquet"
format = "parquet"
[[feeds]]
name = "avro"
kind = "files"
path = "avro/*.avro"
format = "avro"
"#;

/// Writes the dataflow that reads all of this input.
pub fn dataflow(folder: &Folder) {
    folder.write("inputs/events.toml", INPUT);
    folder.write("silver/events.sql", "SELECT id, kind FROM events");
    folder.write(
        "silver/parted.sql",
        "SELECT id, CASE WHEN starts_with(kind, 'long') THEN kind ELSE 'short' END AS part FROM events",
    );
    folder.write("silver/parted.toml", "partition_by = [\"part\"]\n");
    folder.write(
        "gold/kinds.sql",
        "SELECT kind, COUNT(*) AS n, SUM(id) AS ids FROM silver.events GROUP BY kind",
    );
    for made in ["live/events", "texts", "parquet", "avro", "staging"] {
        std::fs::create_dir_all(folder.path().join(made)).expect("a folder");
    }
}

/// Puts good and bad input into the folders of a dataflow.
pub struct Hand<'f> {
    folder: &'f Folder,
    lake: PathBuf,
    next: u64,
    round: u64,
    pub expected: Expected,
}

impl<'f> Hand<'f> {
    pub fn new(folder: &'f Folder, lake: PathBuf) -> Hand<'f> {
        Hand {
            folder,
            lake,
            next: 1,
            round: 0,
            expected: Expected::default(),
        }
    }

    /// Puts a round of good input into every feed, with these kinds of poison among it.
    pub fn put(&mut self, kinds: &[Poison]) {
        self.round += 1;
        let (lines, rows) = (self.lines(40), self.csv(40));
        self.folder.append("live/events/0.ndjson", &lines);
        self.file(&format!("texts/good-{}.csv", self.round), rows.as_bytes());
        let batch = self.batch(30);
        self.file(&format!("parquet/good-{}.parquet", self.round), &parquet(&batch));
        let batch = self.batch(30);
        self.file(&format!("avro/good-{}.avro", self.round), &avro(&batch));
        kinds.iter().for_each(|kind| self.poison(*kind));
    }

    fn poison(&mut self, kind: Poison) {
        let round = self.round;
        match kind {
            Poison::NoJson => self.bad_line(b"{\"value\": {\"id\": 1, \"ki\n"),
            Poison::NoUtf8 => self.bad_line(b"{\"value\": {\"id\": 1, \"kind\": \"M\xfcller\"}}\n"),
            Poison::WrongType => self.bad_line(b"{\"value\": {\"id\": \"none\", \"kind\": \"x\"}}\n"),
            Poison::BadRows => {
                let mut rows = self.csv(5).into_bytes();
                rows.extend_from_slice(b"none,x\n7,M\xfcller\n");
                rows.extend_from_slice(self.csv(5).trim_start_matches("id,kind\n").as_bytes());
                self.file(&format!("texts/rows-{round}.csv"), &rows);
                self.expected.records += 2;
            }
            Poison::CutGzip => {
                let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
                std::io::Write::write_all(&mut packed, b"id,kind\n").expect("packed");
                let packed = packed.finish().expect("packed");
                self.bad_file(&format!("texts/cut-{round}.csv.gz"), &packed[..packed.len() - 6]);
            }
            Poison::NoGzip => self.bad_file(&format!("texts/none-{round}.csv.gz"), b"\x1f\x8b\x08 is no gzip"),
            Poison::DamagedParquet => {
                let whole = parquet(&sample(50));
                let mut damaged = whole.clone();
                let middle = damaged.len() / 3;
                damaged.drain(4..middle);
                self.bad_file(&format!("parquet/damaged-{round}.parquet"), &damaged);
                self.bad_file(&format!("parquet/none-{round}.parquet"), b"PAR1 is no Parquet PAR1");
            }
            Poison::DamagedAvro => {
                let whole = avro(&sample(50));
                self.bad_file(&format!("avro/cut-{round}.avro"), &whole[..whole.len() / 2]);
                self.bad_file(&format!("avro/none-{round}.avro"), b"Obj\x02 is no Avro");
            }
            Poison::NoFiles => {
                for folder in ["texts", "parquet", "avro"] {
                    let ending = if folder == "texts" { "csv" } else { folder };
                    let fifo = self.at(&format!("{folder}/fifo-{round}.{ending}"));
                    let made = Command::new("mkfifo").arg(fifo).status();
                    assert!(made.is_ok_and(|status| status.success()), "mkfifo is there");
                    let socket = self.at(&format!("{folder}/socket-{round}.{ending}"));
                    drop(std::os::unix::net::UnixListener::bind(socket).expect("a socket"));
                }
            }
            Poison::LinkLoops => {
                let link = |target: &Path, name: &str| symlink(target, self.at(name)).expect("a link");
                link(Path::new("itself.csv"), &format!("texts/itself-{round}.csv"));
                link(
                    &self.at(&format!("texts/ring-b-{round}.csv")),
                    &format!("texts/ring-a-{round}.csv"),
                );
                link(
                    &self.at(&format!("texts/ring-a-{round}.csv")),
                    &format!("texts/ring-b-{round}.csv"),
                );
                link(&self.at("texts"), &format!("texts/up-{round}"));
            }
            Poison::OddNames => {
                for name in [&b"odd-\xff\xfe-"[..], b"odd-\x1b[2J\n-"] {
                    let rows = self.csv(3);
                    let name = [b"texts/", name, round.to_string().as_bytes(), b".csv"].concat();
                    self.file_at(&self.folder.path().join(OsStr::from_bytes(&name)), rows.as_bytes());
                }
            }
            Poison::WrongHeader => self.bad_file(&format!("texts/header-{round}.csv"), b"a;b\n1;x\n2;y\n"),
            Poison::LongPartitions => {
                let (latin, emoji) = ("long".repeat(80), "long\u{1f600}".repeat(60));
                let lines = [latin, emoji].map(|kind| self.line(&kind)).concat();
                self.folder.append("live/events/0.ndjson", &lines);
            }
            Poison::BrokenRequests => self.broken_requests(),
        }
    }

    fn broken_requests(&self) {
        let requests = self.lake.join("_alluvium/requests");
        std::fs::create_dir_all(&requests).expect("the folder of requests");
        let round = self.round;
        let write = |name: &str, text: &str| std::fs::write(requests.join(name), text).expect("a request");
        write(&format!("a..b-{round}.json"), "{}");
        write(&format!("1-none-{round}.json"), "no json");
        let passwd = r#""input":"events","work":{"kind":"files","feed":"texts","files":["/etc/passwd"],"again":true}"#;
        write(
            &format!("2-passwd-{round}.json"),
            &format!("{{\"id\":\"2-passwd-{round}\",{passwd}}}"),
        );
        std::fs::create_dir_all(requests.join(format!("3-folder-{round}.json"))).expect("a folder");
        let fifo = requests.join(format!("4-fifo-{round}.json"));
        assert!(
            Command::new("mkfifo")
                .arg(fifo)
                .status()
                .is_ok_and(|status| status.success())
        );
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The id of a new good row.
    fn row(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        self.expected.rows += 1;
        self.expected.ids += id;
        id
    }

    fn line(&mut self, kind: &str) -> String {
        let id = self.row();
        format!("{{\"value\": {{\"id\": {id}, \"kind\": \"{kind}\"}}}}\n")
    }

    fn lines(&mut self, count: u64) -> String {
        (0..count).map(|n| self.line(&format!("k{}", n % 7))).collect()
    }

    fn csv(&mut self, count: u64) -> String {
        let rows: String = (0..count).map(|n| format!("{},k{}\n", self.row(), n % 7)).collect();
        format!("id,kind\n{rows}")
    }

    fn batch(&mut self, count: usize) -> RecordBatch {
        let ids = (0..count).map(|_| self.row() as i64).collect();
        batch_of(ids)
    }

    fn bad_line(&mut self, line: &[u8]) {
        use std::io::Write;
        let log = std::fs::OpenOptions::new()
            .append(true)
            .open(self.at("live/events/0.ndjson"));
        log.and_then(|mut log| log.write_all(line)).expect("a line is appended");
        self.expected.records += 1;
    }

    fn bad_file(&mut self, path: &str, content: &[u8]) {
        self.file(path, content);
        self.expected.files += 1;
    }

    fn file(&self, path: &str, content: &[u8]) {
        self.file_at(&self.at(path), content);
    }

    /// Makes a file appear complete.
    fn file_at(&self, path: &Path, content: &[u8]) {
        let staged = self.at("staging/next");
        std::fs::write(&staged, content).expect("it is written");
        std::fs::rename(staged, path).expect("it is dropped");
    }
}

fn batch_of(ids: Vec<i64>) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("kind", DataType::Utf8, true),
    ]);
    let kinds = StringArray::from_iter_values(ids.iter().map(|id| format!("k{}", id % 7)));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(ids)), Arc::new(kinds)]).expect("two columns")
}

/// Rows that do not count, because they are in unusable files.
fn sample(count: i64) -> RecordBatch {
    batch_of((0..count).map(|id| -1 - id).collect())
}

pub fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(batch).expect("written");
    writer.into_inner().expect("a whole file")
}

pub fn avro(batch: &RecordBatch) -> Vec<u8> {
    let mut writer =
        arrow_avro::writer::AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).expect("a writer");
    writer.write(batch).expect("written");
    writer.finish().expect("a whole file");
    writer.into_inner()
}
