//! Tests that memory is bounded by bytes, with large records and large values, many of them; and clients of `[http]`
//! that would use up all resources.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::definition::Dataflow;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, Running, catch_up, free_hosts, recompute};

/// The most time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(name: &str, more: &str) -> String {
    format!("name = \"{name}\"\nepoch = \"1ms\"\ncommit = \"20ms\"\ndurability = \"none\"\n{more}\n")
}

/// A dataflow of dropped files of notes, and a table of their lengths. `more`: further settings of the dataflow.
fn notes(name: &str, format: &str, more: &str) -> Folder {
    let input = format!(
        "[columns]\nid = \"BIGINT\"\ntext = \"VARCHAR\"\n[[feeds]]\nname = \"drops\"\nkind = \"files\"\n\
         path = \"drops/*\"\nformat = \"{format}\"\n"
    );
    let folder = Folder::new(
        name,
        &[
            ("inputs/notes.toml", &input),
            ("silver/notes.sql", "SELECT id, text FROM notes"),
            (
                "gold/lengths.sql",
                "SELECT id, SUM(octet_length(text)) AS bytes FROM silver.notes GROUP BY id",
            ),
        ],
    );
    folder.write("dataflow.toml", &settings(name, more));
    std::fs::create_dir_all(folder.path().join("drops")).expect("a folder");
    folder
}

fn lengths(dataflow: &Dataflow) -> String {
    ask(dataflow, "SELECT id, bytes FROM gold.lengths ORDER BY id")
}

const LETTERS: &str =
    "SELECT \"offset\", length(encode(payload, 'hex')) / 2, reason LIKE '%max_record%' FROM dead_letters ORDER BY 1";
const CUT: &str = "SELECT \"offset\", length(encode(payload, 'hex')) / 2, whole_length FROM bronze.notes WHERE whole_length IS NOT NULL \
                   ORDER BY 1";

/// Asserts that the long record is refused and its neighbours are not, and that this stays so after a recomputation,
/// even under a larger limit.
#[track_caller]
fn assert_cut_for_good(folder: &Folder, name: &str, letters: &str, cut: &str) {
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    assert_eq!(lengths(&dataflow), "1,3\n3,5");
    assert_eq!(ask(&dataflow, LETTERS), letters);
    assert_eq!(ask(&dataflow, CUT), cut);
    assert_newest_is_exact(&dataflow, "as it was read");
    folder.write("dataflow.toml", &settings(name, "max_record = \"64 MiB\""));
    let larger = folder.load("lake");
    recompute(&larger, 1);
    assert_eq!(lengths(&larger), "1,3\n3,5");
    assert_eq!(ask(&larger, LETTERS), letters);
    assert_newest_is_exact(&larger, "under another limit");
}

#[test]
fn a_record_of_text_above_max_record_is_a_dead_letter_for_good() {
    let long = "x".repeat(3 << 20);
    let length = long.len();
    let csv = format!("id,text\n1,one\n2,\"{long}\n{long}\"\n3,three\n");
    let folder = notes("cut-csv", "csv", "max_record = \"1 MiB\"");
    let packed = zstd::encode_all(csv.as_bytes(), 3).expect("memory");
    std::fs::write(folder.path().join("drops/a.csv.zst"), packed).expect("a file");
    let whole = 2 * length + "2,\"\n\"".len();
    assert_cut_for_good(&folder, "cut-csv", "1,65536,true", &format!("1,65536,{whole}"));

    let folder = notes("cut-ndjson", "ndjson", "max_record = \"1 MiB\"");
    let row = |id: u32, text: &str| format!("{{\"id\":{id},\"text\":\"{text}\"}}\n");
    let text = row(1, "one") + &row(2, &long) + &row(3, "three");
    folder.write("drops/a.ndjson", &text);
    let whole = row(2, &long).len() - 1;
    assert_cut_for_good(&folder, "cut-ndjson", "1,65536,true", &format!("1,65536,{whole}"));
}

/// One limit applied to all feeds of a dataflow: to allow larger records in one feed, users had to allow them in all.
#[test]
fn max_record_of_a_feed_is_its_own() {
    let folder = notes("cut-feeds", "csv", "max_record = \"1 MiB\"");
    let feed = |name: &str, more: &str| {
        format!("[[feeds]]\nname = \"{name}\"\nkind = \"log\"\npath = \"{name}\"\nformat = \"json\"\n{more}")
    };
    let feeds = [
        feed("usual", ""),
        feed("large", "max_record = \"4 MiB\"\n"),
        feed("small", "max_record = \"0.001 MiB\"\n"),
    ];
    folder.write(
        "inputs/notes.toml",
        &format!("[columns]\nid = \"BIGINT\"\ntext = \"VARCHAR\"\n{}", feeds.concat()),
    );
    let row = |id: u32, length: usize| {
        let text = "x".repeat(length);
        format!("{{\"value\": {{\"id\": {id}, \"text\": \"{text}\"}}}}\n")
    };
    for (feed, first) in [("usual", 1), ("large", 11), ("small", 21)] {
        let rows = row(first, 2 << 20) + &row(first + 1, 10_000) + &row(first + 2, 3);
        folder.write(&format!("{feed}/0.ndjson"), &rows);
    }
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    let kept = "2,10000\n3,3\n11,2097152\n12,10000\n13,3\n23,3";
    assert_eq!(lengths(&dataflow), kept);
    assert_newest_is_exact(&dataflow, "with limits of feeds");
    recompute(&dataflow, 1);
    assert_eq!(lengths(&dataflow), kept);
}

fn write_parquet(path: &Path, rows: &[(i64, &str)]) {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, text)| *text)));
    let batch = RecordBatch::try_from_iter([("id", ids), ("text", texts)]).expect("two columns");
    let file = File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("a batch is written");
    writer.close().expect("a file is written");
}

#[test]
fn a_row_of_parquet_above_max_record_is_a_dead_letter_for_good() {
    let folder = notes("cut-parquet", "parquet", "max_record = \"1 MiB\"");
    let long = "x".repeat(3 << 20);
    let rows = [(1, "one"), (2, long.as_str()), (3, "three")];
    write_parquet(&folder.path().join("drops/a.parquet"), &rows);
    let whole = long.len() + 8;
    assert_cut_for_good(&folder, "cut-parquet", "1,,true", &format!("1,,{whole}"));
}

#[test]
fn a_lake_of_an_earlier_version_takes_records_that_are_cut() {
    let folder = notes("cut-earlier", "csv", "max_record = \"1 MiB\"");
    folder.write("drops/a.csv", "id,text\n1,one\n");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    // The log is rewritten as it was before the column existed.
    let log = folder.lake("lake").join("bronze/notes/_delta_log");
    for entry in std::fs::read_dir(&log).expect("a log") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let text = std::fs::read_to_string(&path).expect("an entry of the log");
            let column = r#",{\"name\":\"whole_length\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}"#;
            std::fs::write(&path, text.replace(column, "")).expect("an entry of the log");
        }
    }
    assert!(
        !std::fs::read_to_string(log.join("00000000000000000000.json"))
            .expect("the first entry")
            .contains("whole_length")
    );
    folder.write("drops/b.csv", &format!("id,text\n2,{}\n3,three\n", "x".repeat(2 << 20)));
    catch_up(&dataflow, 1);
    assert_eq!(lengths(&dataflow), "1,3\n3,5");
    assert_eq!(ask(&dataflow, CUT), format!("0,65536,{}", (2 << 20) + 2));
    assert_newest_is_exact(&dataflow, "a lake of an earlier version");
}

/// Runs the dataflow until it has caught up; returns the most memory that was resident, in MiB.
fn most_resident(folder: &Folder, patience: Duration) -> u64 {
    let run = ["run", ".", "--until-caught-up", "-w", "2", "--lake", "lakes/lake"];
    most_resident_of(folder, &run, patience)
}

/// Like [`most_resident`], for any command.
fn most_resident_of(folder: &Folder, args: &[&str], patience: Duration) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(args)
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(File::create(folder.path().join("said")).expect("a file"))
        .spawn()
        .expect("the command starts");
    let started = Instant::now();
    let mut most = 0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) >> 10);
        if let Some(status) = child.try_wait().expect("the command is ours") {
            break status;
        }
        if started.elapsed() > patience {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it did not end within {patience:?}, with {most} MiB");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap_or_default();
    assert!(status.success(), "{said}");
    eprintln!(
        "{}: {most} MiB resident at most, {:?}",
        folder.path().display(),
        started.elapsed()
    );
    most
}

/// Writes CSV lines, or other data, into a zstd file, without holding all of it in memory.
fn write_zstd(path: &Path, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) {
    let mut file = zstd::Encoder::new(File::create(path).expect("a file"), 1).expect("an encoder");
    write(&mut file)
        .and_then(|()| file.finish().map(drop))
        .expect("a file is written");
}

/// 40 values of 60 MiB in a file of 80 KB took 12.5 GiB.
#[test]
fn a_small_file_of_huge_values_takes_bounded_memory() {
    let folder = notes("huge-values", "csv", "memory_limit = \"1 GiB\"");
    write_zstd(&folder.path().join("drops/a.csv.zst"), |file| {
        file.write_all(b"id,text\n")?;
        let piece = vec![b'x'; 1 << 20];
        for id in 0..40 {
            write!(file, "{id},")?;
            (0..60).try_for_each(|_| file.write_all(&piece))?;
            file.write_all(b"\n")?;
        }
        file.write_all(b"40,forty\n")
    });
    let most = most_resident(&folder, Duration::from_secs(120));
    let dataflow = folder.load("lake");
    assert_eq!(lengths(&dataflow), "40,5");
    assert_eq!(
        ask(
            &dataflow,
            "SELECT COUNT(*), SUM(whole_length) FROM bronze.notes WHERE whole_length > 0"
        ),
        format!("40,{}", 40_u64 * (60 << 20) + 110)
    );
    assert!(most < 400, "{most} MiB");
}

/// Batches of 8192 rows were read, decoded and kept, whatever their size in bytes.
#[test]
fn large_values_below_max_record_take_bounded_memory() {
    let folder = notes("large-values", "csv", "memory_limit = \"1 GiB\"\n");
    folder.write(
        "dataflow.toml",
        &settings("large-values", "memory_limit = \"1 GiB\"").replace("20ms", "1 minute"),
    );
    write_zstd(&folder.path().join("drops/a.csv.zst"), |file| {
        file.write_all(b"id,text\n")?;
        let piece = vec![b'x'; 15 << 20];
        for id in 0..40 {
            write!(file, "{id},")?;
            file.write_all(&piece)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    });
    let most = most_resident(&folder, Duration::from_secs(300));
    let dataflow = folder.load("lake");
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*), SUM(bytes) FROM gold.lengths"),
        format!("40,{}", 40 * (15 << 20))
    );
    assert!(most < 1400, "{most} MiB");
}

/// All of Bronze was sorted in memory, and every version of every row was held: 640 MiB for these 190 MB, and as much
/// again for each further year.
#[test]
fn verify_holds_current_rows_and_a_portion_of_bronze() {
    let folder = notes("versions", "csv", "memory_limit = \"1 GiB\"");
    folder.write(
        "inputs/notes.toml",
        "key = [\"id\"]\norder_by = [\"version\"]\n[columns]\nid = \"BIGINT\"\nversion = \"BIGINT\"\ntext = \"VARCHAR\"\n\
         [[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"drops/*\"\nformat = \"csv\"\n",
    );
    let mut state = 7u64;
    let mut letter = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 33) as u8 % 26)
    };
    for file in 0..8 {
        let mut rows = String::from("id,version,text\n");
        for version in file * 12_000..(file + 1) * 12_000 {
            let text: String = (0..2000).map(|_| letter()).collect();
            rows += &format!("{},{version},{text}\n", version % 100);
        }
        folder.write(&format!("drops/{file}.csv"), &rows);
    }
    most_resident(&folder, Duration::from_secs(300));
    let verify = ["verify", ".", "--lake", "lakes/lake"];
    let most = most_resident_of(&folder, &verify, Duration::from_secs(120));
    assert!(most < 450, "{most} MiB");
    assert_eq!(lengths(&folder.load("lake")).lines().count(), 100);
}

#[test]
fn parquet_of_large_values_takes_bounded_memory() {
    let folder = notes("large-parquet", "parquet", "memory_limit = \"1 GiB\"");
    let long = "x".repeat(1 << 20);
    let rows: Vec<(i64, &str)> = (0..400).map(|id| (id, long.as_str())).collect();
    write_parquet(&folder.path().join("drops/a.parquet"), &rows);
    let most = most_resident(&folder, Duration::from_secs(300));
    let dataflow = folder.load("lake");
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*), SUM(bytes) FROM gold.lengths"),
        format!("400,{}", 400 << 20)
    );
    assert!(most < 1400, "{most} MiB");
}

#[test]
fn one_line_that_uncompresses_to_gigabytes_is_one_dead_letter() {
    let folder = notes("bomb", "ndjson", "");
    let file = File::create(folder.path().join("drops/a.ndjson.gz")).expect("a file");
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let piece = vec![b' '; 1 << 20];
    gzip.write_all(b"{\"id\":1,\"text\":\"one\"}\n[")
        .expect("a file is written");
    (0..2048)
        .try_for_each(|_| gzip.write_all(&piece))
        .expect("a file is written");
    gzip.write_all(b"\n{\"id\":3,\"text\":\"three\"}\n")
        .and_then(|()| gzip.finish().map(drop))
        .expect("a file is written");
    let most = most_resident(&folder, Duration::from_secs(120));
    let dataflow = folder.load("lake");
    assert_eq!(lengths(&dataflow), "1,3\n3,5");
    assert_eq!(ask(&dataflow, CUT), format!("1,65536,{}", (2048u64 << 20) + 1));
    assert!(most < 300, "{most} MiB");
}

/// A dataflow of posted events, and the address to post to. `more`: further settings of the dataflow.
fn events(name: &str, more: &str) -> (Folder, String) {
    let input = "[columns]\nid = \"BIGINT\"\n[[feeds]]\nname = \"posted\"\nkind = \"http\"\nformat = \"json\"\n";
    let folder = Folder::new(
        name,
        &[
            ("inputs/events.toml", input),
            ("silver/events.sql", "SELECT id FROM events"),
            (
                "gold/counts.sql",
                "SELECT COUNT(*) AS n, SUM(id) AS ids FROM silver.events",
            ),
        ],
    );
    let listen = free_hosts(1).remove(0);
    folder.write(
        "dataflow.toml",
        &(settings(name, more) + &format!("[http]\nlisten = \"{listen}\"\n")),
    );
    (folder, listen)
}

/// A connection to the server.
struct Talk(BufReader<TcpStream>);

impl Talk {
    fn open(listen: &str) -> Talk {
        let started = Instant::now();
        loop {
            match TcpStream::connect(listen) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
                    return Talk(BufReader::new(stream));
                }
                Err(error) => assert!(started.elapsed() < PATIENCE, "nobody listens at {listen}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// The next response's status and body; none if the connection has ended.
    fn answer(&mut self) -> Option<(u16, String)> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().expect("a status");
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).ok()?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; if status == 100 { 0 } else { length }];
        self.0.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8(body).expect("text")))
    }

    /// Whether the server closes the connection within this time.
    fn ends(&mut self, patience: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(patience)).expect("a timeout");
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }
}

fn post(body: &[u8], headers: &str) -> Vec<u8> {
    let head = format!(
        "POST /v1/inputs/events HTTP/1.1\r\nHost: here\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[track_caller]
fn posts(listen: &str, body: &[u8], headers: &str) -> (u16, String) {
    let mut talk = Talk::open(listen);
    talk.send(&post(body, headers)).expect("a request is sent");
    talk.answer().expect("an answer")
}

fn counts(dataflow: &Dataflow) -> String {
    ask(dataflow, "SELECT n, ids FROM gold.counts")
}

/// One flipped byte in the log of posted rows silently dropped every acknowledged request after it.
#[test]
fn a_damaged_byte_in_the_log_of_posted_rows_takes_one_request_which_is_a_dead_letter() {
    // Each case flips one byte of the third request, found by the text before it.
    for (mark, what) in [
        ("{\"id\":", "rows"),
        ("\"body\":\"", "the head"),
        ("\"bytes\":", "the length"),
    ] {
        let (folder, listen) = events("damaged-log", "");
        let running = Running::start(folder.load("lake"), 1);
        for id in 0..5 {
            let row = format!("{{\"id\":{id}}}                              \n{{\"id\":1{id}}}\n");
            let (status, said) = posts(&listen, row.as_bytes(), &format!("Idempotency-Key: key-{id}\r\n"));
            assert_eq!(status, 200, "{said}");
        }
        running.stop();
        // This lake has read nothing of the log yet.
        let log = folder.lake("behind").join("_alluvium/http/events.posted");
        std::fs::create_dir_all(&log).expect("a folder");
        let written = std::fs::read_dir(folder.lake("lake").join("_alluvium/http/events.posted"));
        for entry in written.expect("the log's folder").map(|entry| entry.expect("an entry")) {
            std::fs::copy(entry.path(), log.join(entry.file_name())).expect("a copy");
        }
        let segment = std::fs::read_dir(&log)
            .expect("the log's folder")
            .map(|entry| entry.expect("an entry").path())
            .find(|path| path.extension().is_some_and(|ending| ending == "log"));
        let segment: PathBuf = segment.expect("a segment");
        let mut bytes = std::fs::read(&segment).expect("the segment");
        let text = String::from_utf8(bytes.clone()).expect("text");
        let row = text.find("{\"id\":2}").expect("the third request");
        let at = text[..row + 12].rfind(mark).expect("a mark") + mark.len();
        bytes[at] ^= 1;
        std::fs::write(&segment, bytes).expect("the segment");
        let dataflow = folder.load("behind");
        catch_up(&dataflow, 1);
        assert_eq!(counts(&dataflow), "8,56", "{what}");
        let letters = "SELECT COUNT(*), MAX(length(encode(payload, 'hex')) / 2) > 100 FROM dead_letters";
        assert_eq!(ask(&dataflow, letters), "1,true", "{what}");
        let aside = std::fs::read_dir(&log).expect("the log's folder");
        let aside = aside.filter(|entry| {
            entry
                .as_ref()
                .is_ok_and(|e| e.path().extension().is_some_and(|e| e == "damaged"))
        });
        assert_eq!(aside.count(), 1, "{what}");
        assert_newest_is_exact(&dataflow, what);
        // A client that posts the lost request again succeeds, and the other requests are still known.
        let running = Running::start(dataflow.clone(), 1);
        let (status, said) = posts(
            &listen,
            b"{\"id\":3}                              \n{\"id\":13}\n",
            "Idempotency-Key: key-3\r\n",
        );
        assert_eq!((status, said.trim()), (200, "{\"accepted\":2}"));
        running.stop();
        assert_eq!(counts(&dataflow), "8,56", "{what}");
        assert_eq!(ask(&dataflow, letters), "1,true", "{what}");
    }
}

/// 1,100 clients that sent requests and read no responses kept all other clients out, for as long as they stayed.
#[test]
fn clients_that_send_and_never_read_keep_nobody_out() {
    let (folder, listen) = events("unread", "");
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 1);
    drop(Talk::open(&listen));
    let request = "GET /v1/inputs HTTP/1.1\r\nHost: here\r\n\r\n".repeat(200);
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..1100 {
        let mut stream = TcpStream::connect(&listen).expect("a connection");
        stream.set_nonblocking(true).expect("a socket");
        // The socket takes as much as fits.
        let _ = stream.write(request.as_bytes());
        silent.push(stream);
    }
    let started = Instant::now();
    for id in 0..20 {
        let (status, said) = posts(&listen, format!("{{\"id\":{id}}}\n").as_bytes(), "");
        assert_eq!(status, 200, "{said}");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    drop(silent);
    running.stop();
    assert_eq!(counts(&dataflow), "20,190");
}

#[test]
fn clients_that_say_nothing_or_little_lose_their_connections() {
    let (folder, listen) = events("slow", "");
    folder.write(
        "dataflow.toml",
        &(settings("slow", "") + &format!("[http]\nlisten = \"{listen}\"\ntimeout = \"1s\"\n")),
    );
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 1);
    // The clients send nothing, half a head, and a head byte by byte.
    let (mut mute, mut half, mut slow) = (Talk::open(&listen), Talk::open(&listen), Talk::open(&listen));
    half.send(b"POST /v1/inputs/events HTTP/1.1\r\nHost: here\r\n")
        .expect("half a head");
    // One body has endless chunks, one stops half-way, and one is never sent.
    let chunked = "POST /v1/inputs/events HTTP/1.1\r\nHost: here\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut endless = Talk::open(&listen);
    endless.send(chunked.as_bytes()).expect("a head");
    let mut stopped = Talk::open(&listen);
    stopped
        .send(&post(&[b' '; 1000], "")[..300])
        .expect("a part of a request");
    let mut waiting = Talk::open(&listen);
    let head = post(b"{\"id\":1}\n", "Expect: 100-continue\r\n");
    waiting.send(&head[..head.len() - 9]).expect("a head");
    assert_eq!(waiting.answer().map(|(status, _)| status), Some(100));
    waiting.send(b"{\"id\":1}\n").expect("a body");
    assert_eq!(waiting.answer().map(|(status, _)| status), Some(200));
    let started = Instant::now();
    let mut sent = true;
    while sent && started.elapsed() < Duration::from_millis(1500) {
        sent = endless.send(b"1\r\n \r\n").is_ok();
        let _ = slow.send(b"G");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(endless.answer().map(|(status, _)| status), Some(408));
    assert_eq!(stopped.answer().map(|(status, _)| status), Some(408));
    for (talk, what) in [(&mut mute, "mute"), (&mut half, "half"), (&mut slow, "slow")] {
        assert!(talk.ends(Duration::from_secs(15)), "{what}");
    }
    running.stop();
    assert_eq!(counts(&dataflow), "1,1");
}

#[test]
fn requests_that_are_made_to_mislead_are_refused_or_taken_once() {
    let (folder, listen) = events("mislead", "max_record = \"1 MiB\"");
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 1);
    // With two lengths, the text that the second one would hide must not count as a request of its own.
    let hidden = "POST /v1/inputs/events HTTP/1.1\r\nHost: here\r\nContent-Type: application/x-ndjson\r\nContent-Length: 11\r\n\r\n{\"id\":666}\n";
    let mut talk = Talk::open(&listen);
    let both = format!(
        "POST /v1/inputs/events HTTP/1.1\r\nHost: here\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
        5 + hidden.len()
    );
    talk.send(both.as_bytes()).expect("a request");
    let (status, _) = talk.answer().expect("an answer");
    assert!(
        status == 400 || (status == 200 && talk.ends(Duration::from_secs(5))),
        "{status}"
    );
    // One head has a megabyte, and one has ten thousand fields.
    for head in [
        format!("X-Long: {}\r\n", "x".repeat(1 << 20)),
        "X-Many: 1\r\n".repeat(10_000),
    ] {
        let mut talk = Talk::open(&listen);
        let _ = talk.send(&post(b"{\"id\":667}\n", &head));
        assert!(
            talk.answer().is_none_or(|(status, _)| status == 431),
            "a head of {} bytes",
            head.len()
        );
    }
    // An HTTP/1.0 connection ends after the response.
    let mut old = Talk::open(&listen);
    let request = String::from_utf8(post(b"{\"id\":1}\n", ""))
        .expect("text")
        .replace("HTTP/1.1", "HTTP/1.0");
    old.send(request.as_bytes()).expect("a request");
    assert_eq!(old.answer().map(|(status, _)| status), Some(200));
    assert!(old.ends(Duration::from_secs(5)));
    // Small compressed bodies that become large are refused.
    let plain = vec![b' '; 64 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("memory");
    let gzip = gzip.finish().expect("memory");
    assert_eq!(posts(&listen, &gzip, "Content-Encoding: gzip\r\n").0, 413);
    let zstd = zstd::encode_all(&plain[..], 1).expect("memory");
    assert_eq!(posts(&listen, &zstd, "Content-Encoding: zstd\r\n").0, 413);
    // One row is longer than max_record.
    let (status, said) = posts(
        &listen,
        format!("{{\"id\":2}}\n{{\"text\":\"{}\"}}\n", "x".repeat(1 << 20)).as_bytes(),
        "",
    );
    assert_eq!(status, 413, "{said}");
    assert!(said.contains("row 2 has 1048587 bytes, more than max_record"), "{said}");
    // One body is deeply nested, and one has very many rows.
    let deep = format!("{}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let (status, said) = posts(&listen, deep.as_bytes(), "");
    assert!(matches!(status, 200 | 400), "{status} {said}");
    let deep_letters = u64::from(status == 200);
    assert_eq!(
        posts(&listen, "{\"id\":null}\n".repeat(1_000_000).as_bytes(), ""),
        (200, "{\"accepted\":1000000}\n".to_string())
    );
    assert_eq!(posts(&listen, b"{\"id\":3}\n", "").0, 200);
    running.stop();
    assert_eq!(counts(&dataflow), "1000002,4");
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"),
        deep_letters.to_string()
    );
}

/// Each partition of a log keeps its file open: with more partitions than the process may open files, the run ended,
/// and so did every later one.
#[test]
fn a_log_of_more_partitions_than_files_may_be_open_waits_and_takes_nothing_from_others() {
    let input = |kind: &str, format: &str| {
        format!("[columns]\nid = \"BIGINT\"\n[[feeds]]\nname = \"f\"\nkind = \"{kind}\"\nformat = \"{format}\"\n")
    };
    let log = input("log", "json") + "path = \"log\"\n";
    let drops = input("files", "csv") + "path = \"drops/*.csv\"\n";
    let folder = Folder::new(
        "many-partitions",
        &[
            ("inputs/logged.toml", &log),
            ("inputs/dropped.toml", &drops),
            ("gold/n.sql", "SELECT COUNT(*) AS n FROM dropped"),
            ("gold/l.sql", "SELECT COUNT(*) AS n FROM logged"),
        ],
    );
    for partition in 0..300 {
        folder.write(
            &format!("log/{partition:03}.ndjson"),
            &format!("{{\"value\":{{\"id\":{partition}}}}}\n"),
        );
    }
    folder.write("drops/a.csv", "id\n1\n2\n");
    let run = |files: u64| {
        let command = format!(
            "ulimit -n {files} && exec {} run . --until-caught-up -w 1 --lake lakes/lake",
            env!("CARGO_BIN_EXE_alluvium")
        );
        let bash = Command::new("bash")
            .args(["-c", &command])
            .current_dir(folder.path())
            .output();
        let output = bash.expect("a shell");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (_, told) = run(256);
    assert!(
        told.contains("feeds keep 128 files open already") && told.contains("ulimit -n"),
        "{told}"
    );
    let dataflow = folder.load("lake");
    assert_eq!(ask(&dataflow, "SELECT l.n, n.n FROM gold.l, gold.n"), "128,2", "{told}");
    let (caught_up, told) = run(4096);
    assert!(caught_up, "{told}");
    assert_eq!(ask(&dataflow, "SELECT n FROM gold.l"), "300");
}
