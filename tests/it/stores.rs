//! Tests feeds on an object store: a small S3 server in this process, with the real client.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::lake::{ask, assert_newest_is_exact};
use crate::restart::parquet_of;
use crate::support::{Folder, catch_up};

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A bucket that lists objects, and serves objects and ranges of them.
struct Bucket {
    objects: Objects,
    address: SocketAddr,
}

impl Bucket {
    fn open() -> Bucket {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let objects = Objects::default();
        let shared = objects.clone();
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = shared.clone();
                std::thread::spawn(move || serve(stream, &objects));
            }
        });
        Bucket { objects, address }
    }

    fn put(&self, key: &str, bytes: Vec<u8>) {
        self.objects.lock().expect("nobody panicked").insert(key.into(), bytes);
    }

    fn clear(&self) {
        self.objects.lock().expect("nobody panicked").clear();
    }

    /// The settings of a dataflow that reads from this bucket.
    fn settings(&self) -> String {
        format!(
            "[store]\nendpoint = \"http://{}\"\nallow_http = \"true\"\nskip_signature = \"true\"\nregion = \"here\"\n",
            self.address
        )
    }
}

/// Answers the requests of one connection.
fn serve(mut stream: TcpStream, objects: &Objects) {
    let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let mut request = head.lines().next().unwrap_or_default().split(' ');
        let (method, target) = (request.next().unwrap_or_default(), request.next().unwrap_or_default());
        let range = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("range")
                .then(|| value.trim_start_matches("bytes=").to_string())
        });
        let reply = answer(target, range.as_deref(), &objects.lock().expect("nobody panicked"));
        let body = if method == "HEAD" { &[] } else { reply.body.as_slice() };
        let sent = stream
            .write_all(reply.head.as_bytes())
            .and_then(|()| stream.write_all(body));
        if sent.is_err() {
            return;
        }
    }
}

struct Reply {
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: &str, headers: &str, body: Vec<u8>) -> Reply {
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        Reply { head, body }
    }
}

fn answer(target: &str, range: Option<&str>, objects: &BTreeMap<String, Vec<u8>>) -> Reply {
    let url = url::Url::parse(&format!("http://s3{target}")).expect("a request's target");
    let tag = |bytes: &[u8]| format!("\"{:x}\"", twox_hash::XxHash64::oneshot(0, bytes));
    if let Some((_, prefix)) = url.query_pairs().find(|(name, _)| name == "prefix") {
        let contents: String = objects
            .iter()
            .filter(|(key, _)| key.starts_with(&*prefix))
            .map(|(key, bytes)| {
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                    tag(bytes).replace('"', "&quot;"),
                    bytes.len()
                )
            })
            .collect();
        let xml = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>");
        return Reply::new("200 OK", "Content-Type: application/xml\r\n", xml.into_bytes());
    }
    let segments = url.path_segments().into_iter().flatten().skip(1);
    let key = segments.collect::<Vec<_>>().join("/").replace("%20", " ");
    let Some(bytes) = objects.get(&key) else {
        return Reply::new("404 Not Found", "", b"<Error><Code>NoSuchKey</Code></Error>".to_vec());
    };
    let headers = format!(
        "ETag: {}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
        tag(bytes)
    );
    let bounds = range.and_then(|range| {
        let (from, to) = range.split_once('-')?;
        Some((
            from.parse::<usize>().ok()?,
            to.parse().map_or(bytes.len(), |to: usize| (to + 1).min(bytes.len())),
        ))
    });
    match bounds {
        Some((from, to)) => {
            let headers = format!("{headers}Content-Range: bytes {from}-{}/{}\r\n", to - 1, bytes.len());
            Reply::new("206 Partial Content", &headers, bytes[from..to].to_vec())
        }
        None => Reply::new("200 OK", &headers, bytes.clone()),
    }
}

fn gz(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).expect("memory takes it");
    out.finish().expect("memory takes it")
}

#[test]
fn drops_in_an_object_store_are_read_once_archived_and_replayed() {
    let bucket = Bucket::open();
    let folder = Folder::new("bucket", &[]);
    let root = "name = \"bucket\"\nepoch = \"1ms\"\ncommit = \"5ms\"\ndurability = \"none\"\n";
    folder.write("dataflow.toml", &format!("{root}{}", bucket.settings()));
    folder.write(
        "inputs/rows.toml",
        r#"
[columns]
id = { type = "BIGINT", nullable = false }
x = "BIGINT"
[[feeds]]
name = "columns"
kind = "files"
path = "s3://drops/in/**/*.parquet"
format = "parquet"
[[feeds]]
name = "text"
kind = "files"
path = "s3://drops/text/*.csv.gz"
format = "csv"
"#,
    );
    folder.write("gold/sums.sql", "SELECT COUNT(*) AS n, SUM(x) AS x FROM rows");
    bucket.put("in/a.parquet", parquet_of(0, 20_000));
    bucket.put("in/deeper/b 2.parquet", parquet_of(20_000, 100));
    bucket.put("in/_unfinished.parquet", b"not yet".to_vec());
    bucket.put("text/c.csv.gz", gz("id,x\n1,7\n2,8\n"));
    bucket.put("text/d.csv.gz", b"no gzip".to_vec());
    let dataflow = folder.load("lake");
    let outcome = catch_up(&dataflow, 2);
    assert_eq!(
        (outcome.records, outcome.rejected, outcome.rejected_files),
        (20_102, 0, 1)
    );
    assert_eq!(ask(&dataflow, "SELECT n FROM gold.sums"), "20102");
    assert_eq!(ask(&dataflow, "SELECT \"partition\" FROM dead_letters"), "d.csv.gz");

    // The store is emptied: the lake's archive suffices.
    bucket.clear();
    assert_eq!(catch_up(&dataflow, 3).corrections, Some(vec![]));
    assert_newest_is_exact(&dataflow, "the replayed drops");

    bucket.put("in/e.parquet", parquet_of(0, 10));
    assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]));
    assert_eq!(ask(&dataflow, "SELECT n FROM gold.sums"), "20112");
}
