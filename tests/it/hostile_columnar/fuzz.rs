//! Random damage from a seed: truncated samples, flipped and inserted bytes, and plain noise.
//!
//! Each test takes about a second, or `ALLUVIUM_FUZZ_SECONDS`; `ALLUVIUM_FUZZ_SEED` sets the first seed. A failure
//! names its seed. There are no separate fuzz targets: with an hour of seconds, these tests do the same.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use alluvium::decode::{Decoded, Decoder, FilePlace, Payloads, Raw};
use alluvium::definition::Dataflow;
use alluvium::registry::Registries;
use arrow::array::BinaryArray;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::samples::{avro_block, avro_header, parquet_file};
use crate::avro_bytes::{long, text};
use crate::commands::{exits, text as output_text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::registry::Mock;
use crate::support::Folder;

/// The most time for a batch of records, or for a run over damaged files.
const PATIENCE: Duration = Duration::from_secs(20);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Calls `round` with one seed after another until the time is over.
fn rounds(mut round: impl FnMut(u64)) {
    let started = Instant::now();
    let time = Duration::from_secs(number("ALLUVIUM_FUZZ_SECONDS").unwrap_or(1));
    for seed in number("ALLUVIUM_FUZZ_SEED").unwrap_or(1).. {
        round(seed);
        if started.elapsed() > time {
            println!("the last seed was {seed}");
            break;
        }
    }
}

/// Damages a sample in a random way.
fn damaged(sample: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    match random.random_range(0..10) {
        0 => {
            let length = random.random_range(0..200);
            bytes = (0..length).map(|_| random.random()).collect();
        }
        1 | 2 => bytes.truncate(random.random_range(0..sample.len())),
        3 => {
            let at = random.random_range(0..sample.len());
            let length = random.random_range(1..12);
            let noise: Vec<u8> = (0..length).map(|_| random.random()).collect();
            bytes.splice(at..at, noise);
        }
        4 => {
            let from = random.random_range(0..sample.len());
            let to = random.random_range(from..sample.len().min(from + 40));
            bytes.drain(from..to);
        }
        5 => {
            // 0xff bytes make the greatest numbers, where a length or a count may be.
            let at = random.random_range(0..sample.len());
            let end = (at + random.random_range(1..9)).min(sample.len());
            bytes[at..end].fill(0xff);
        }
        _ => {
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..sample.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
    }
    bytes
}

fn raw(records: &[Vec<u8>]) -> Raw {
    Raw {
        offsets: (0..records.len() as u64).collect(),
        payloads: Payloads::Records {
            values: BinaryArray::from_iter_values(records),
            keys: None,
            headers: None,
            ts_ms: Vec::new(),
        },
        header: None,
        cut: Vec::new(),
        place: FilePlace::default(),
    }
}

/// Decodes the records of one input and feed.
struct Decoding {
    dataflow: Dataflow,
    decoder: Decoder,
}

impl Decoding {
    fn new(folder: &Folder) -> Self {
        let dataflow = Dataflow::clone(&folder.load("lake"));
        let (input, registries) = (&dataflow.inputs[0], Registries::new(None));
        let decoder = Decoder::new(input, &input.feeds[0], &registries).expect("the feed is right");
        Decoding { dataflow, decoder }
    }

    fn decode(&mut self, records: &[Vec<u8>]) -> Decoded {
        self.decoder.decode(raw(records)).expect("schemas are known")
    }
}

fn of_records(format: &str, more: &str) -> Folder {
    let input = format!(
        "[columns]\nid = \"BIGINT\"\nname = \"VARCHAR\"\namount = \"DECIMAL(10,2)\"\nat = \"TIMESTAMP\"\ntags = \"VARCHAR[]\"\n\
         inner = {{ type = \"VARCHAR\", from = [\"inner.x\", \"inner\"] }}\n\
         [[feeds]]\nname = \"f\"\nkind = \"log\"\npath = \"log\"\nformat = {format:?}\n{more}\n"
    );
    Folder::new(
        "fuzz",
        &[("inputs/t.toml", &input), ("silver/t.sql", "SELECT * FROM t")],
    )
}

/// Decodes batches of damaged records between good ones, and good ones alone for comparison.
fn fuzz_records(folder: &Folder, samples: &[Vec<u8>]) {
    let mut decoding = Decoding::new(folder);
    let alone: Vec<Decoded> = samples
        .iter()
        .map(|sample| decoding.decode(std::slice::from_ref(sample)))
        .collect();
    for (decoded, sample) in alone.iter().zip(samples) {
        let rejects = &decoded.rejects;
        assert!(
            rejects.is_empty() && !decoded.ops.is_empty(),
            "{}: {rejects:?}",
            String::from_utf8_lossy(sample)
        );
    }
    let name = &decoding.dataflow.inputs[0].feeds[0].name.clone();
    rounds(|seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut records = Vec::new();
        for _ in 0..50 {
            let sample = &samples[random.random_range(0..samples.len())];
            records.push(damaged(sample, &mut random));
            records.push(samples[0].clone());
        }
        let started = Instant::now();
        let decoded = decoding.decode(&records);
        assert!(
            started.elapsed() < PATIENCE,
            "{name}: seed {seed} takes {:?}",
            started.elapsed()
        );
        for record in (1..records.len() as u32).step_by(2) {
            let rows: Vec<usize> = (0..decoded.record.len())
                .filter(|row| decoded.record[*row] == record)
                .collect();
            assert_eq!(
                rows.len(),
                alone[0].ops.len(),
                "{name}: seed {seed} takes record {record} with it"
            );
            assert_eq!(
                decoded.rows.slice(rows[0], rows.len()),
                alone[0].rows,
                "{name}: seed {seed}, record {record}"
            );
        }
        for reject in &decoded.rejects {
            let record = reject.record.expect("records are refused") as usize;
            let stopped = reject.reason.contains("stopped its decoder");
            assert!(
                !stopped,
                "{name}: seed {seed}: {}: {:?}",
                reject.reason, records[record]
            );
            let plain = !reject.reason.chars().any(char::is_control);
            assert!(plain, "{name}: seed {seed}: {:?}", reject.reason);
        }
    });
}

const ROW: &str = r#"{"id":1,"name":"a\u00e9","amount":"12.50","at":"2024-02-29T12:00:00.5Z","tags":["x",null],"inner":{"x":{"y":[1,2.5e3]}}}"#;

fn texts(records: &[String]) -> Vec<Vec<u8>> {
    records.iter().map(|record| record.clone().into_bytes()).collect()
}

#[test]
fn damaged_json_records_take_no_others_with_them() {
    let schema = r#"{"fields":[{"field":"at","name":"io.debezium.time.MicroTimestamp"}]}"#;
    let beside = format!(r#"{{"schema":{schema},"payload":{{"id":2,"at":1}}}}"#);
    fuzz_records(&of_records("json", ""), &texts(&[ROW.to_string(), beside]));
}

#[test]
fn damaged_debezium_records_take_no_others_with_them() {
    let source = r#"{"connector":"postgresql","db":"d","schema":"s","table":"t","lsn":7,"ts_ms":1}"#;
    let samples = [
        format!(
            r#"{{"before":null,"after":{ROW},"source":{source},"op":"c","ts_ms":2,"transaction":{{"id":"1","total_order":1,"data_collection_order":1}}}}"#
        ),
        format!(r#"{{"schema":null,"payload":{{"before":{ROW},"after":{ROW},"source":{source},"op":"u"}}}}"#),
        format!(r#"{{"before":{ROW},"after":null,"op":"d"}}"#),
    ];
    fuzz_records(&of_records("debezium-json", ""), &texts(&samples));
}

#[test]
fn damaged_binlog_records_take_no_others_with_them() {
    let row = r#"{"id":"1","name":"a","amount":"12.50","at":"2024-02-29 12:00:00","tags":"[\"x\"]"}"#;
    let canal = format!(
        r#"{{"data":[{row}],"old":null,"database":"d","table":"t","type":"INSERT","isDdl":false,"es":1,"ts":2,"pkNames":["id"],"mysqlType":{{"id":"bigint"}},"sqlType":{{"id":-5}}}}"#
    );
    fuzz_records(&of_records("canal-json", "tables = [\"d.t\"]"), &texts(&[canal]));
    let maxwell =
        format!(r#"{{"database":"d","table":"t","type":"insert","ts":1,"xid":7,"commit":true,"data":{row}}}"#);
    fuzz_records(&of_records("maxwell-json", "tables = [\"d.t\"]"), &texts(&[maxwell]));
}

const AVRO_ROW: &str = r#"{"type":"record","name":"Row","fields":[
    {"name":"id","type":"long"},
    {"name":"name","type":["null","string"]},
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},
    {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
    {"name":"tags","type":{"type":"array","items":["null","string"]}},
    {"name":"inner","type":{"type":"map","values":["null","double",{"type":"array","items":"int"}]}}]}"#;

fn avro_row(id: i64) -> Vec<u8> {
    [
        long(id),
        long(1),
        text("name"),
        long(2),
        vec![4, 226],
        long(1),
        long(1_709_208_000_500_000),
        long(2),
        long(1),
        text("x"),
        long(0),
        long(0),
        long(1),
        text("x"),
        long(2),
        long(2),
        long(1),
        long(2),
        long(0),
        long(0),
    ]
    .concat()
}

fn behind(schema: u32, bytes: &[u8]) -> Vec<u8> {
    [&[0], &schema.to_be_bytes()[..], bytes].concat()
}

#[test]
fn damaged_avro_records_take_no_others_with_them() {
    let mock = Mock::start();
    let registry = format!("registry = {{ url = {:?} }}", mock.url);
    let id = mock.register("t-value", "AVRO", AVRO_ROW, json!([]));
    fuzz_records(&of_records("avro", &registry), &[behind(id, &avro_row(1))]);
    let envelope = format!(
        r#"{{"type":"record","name":"Envelope","fields":[{{"name":"before","type":["null",{AVRO_ROW}]}},
        {{"name":"after","type":["null","Row"]}},
        {{"name":"source","type":{{"type":"record","name":"Source","fields":[{{"name":"connector","type":"string"}},{{"name":"ts_ms","type":"long"}}]}}}},
        {{"name":"op","type":"string"}},{{"name":"ts_ms","type":["null","long"]}}]}}"#
    );
    let id = mock.register("e-value", "AVRO", &envelope, json!([]));
    let source = [text("postgresql"), long(1)].concat();
    let insert = [
        long(0),
        long(1),
        avro_row(1),
        source.clone(),
        text("c"),
        long(1),
        long(5),
    ]
    .concat();
    let update = [long(1), avro_row(1), long(1), avro_row(2), source, text("u"), long(0)].concat();
    let samples = [behind(id, &insert), behind(id, &update)];
    fuzz_records(&of_records("debezium-avro", &registry), &samples);
}

#[test]
fn damaged_protobuf_records_take_no_others_with_them() {
    let mock = Mock::start();
    let schema = "syntax = \"proto3\"; message Row { int64 id = 1; string name = 2; string amount = 3; string at = 4; \
                  repeated string tags = 5; Inner inner = 6; message Inner { Deep x = 1; } message Deep { repeated int32 y = 1; map<string, double> z = 2; } }";
    let id = mock.register("t-value", "PROTOBUF", schema, json!([]));
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let entry = [field(1, b"k"), vec![0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]].concat();
    let deep = [field(1, &[1, 2, 3]), field(2, &entry)].concat();
    let row = [
        vec![8, 1],
        field(2, b"name"),
        field(3, b"12.50"),
        field(4, b"2024-02-29T12:00:00Z"),
        field(5, b"x"),
        field(6, &field(1, &deep)),
    ]
    .concat();
    let registry = format!("registry = {{ url = {:?} }}", mock.url);
    // The zero selects the schema's first message.
    fuzz_records(
        &of_records("protobuf", &registry),
        &[behind(id, &[&[0], &row[..]].concat())],
    );
}

/// Files of one format, intact and damaged, for one drop folder.
struct FileFuzz {
    name: &'static str,
    format: &'static str,
    samples: Vec<(&'static str, Vec<u8>)>,
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).expect("memory is written");
    packed.finish().expect("memory is written")
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory is written")
}

fn file_formats() -> Vec<FileFuzz> {
    let lines: String = (0..20)
        .map(|id| format!("{{\"id\":{id},\"name\":\"n{id}\"}}\n"))
        .collect();
    let csv: String = (0..20).map(|id| format!("{id},\"n,{id}\"\n")).collect();
    let csv = format!("id,name\n{csv}");
    let array = format!("[{}]", lines.trim_end().replace('\n', ","));
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"name","type":["null","string"]}]}"#;
    let records = |ids: std::ops::Range<i64>| -> Vec<u8> {
        ids.flat_map(|id| [long(id), long(1), text(&format!("n{id}"))].concat())
            .collect()
    };
    let blocks = [avro_block(10, &records(0..10)), avro_block(10, &records(10..20))].concat();
    let avro = [avro_header(schema, "null"), blocks].concat();
    let packed = [avro_header(schema, "zstandard"), avro_block(20, &zst(&records(0..20)))].concat();
    let of = |name, format, samples| FileFuzz { name, format, samples };
    vec![
        of(
            "csv",
            "csv",
            vec![
                ("csv", csv.clone().into_bytes()),
                ("csv.gz", gz(csv.as_bytes())),
                ("csv.zst", zst(csv.as_bytes())),
            ],
        ),
        of(
            "ndjson",
            "ndjson",
            vec![
                ("ndjson", lines.clone().into_bytes()),
                ("json", array.into_bytes()),
                ("ndjson.gz", gz(lines.as_bytes())),
                ("ndjson.zst", zst(lines.as_bytes())),
            ],
        ),
        of(
            "parquet",
            "parquet",
            vec![("parquet", parquet_file(0..20)), ("parquet", parquet_file(0..60))],
        ),
        of(
            "avro",
            "avro",
            vec![
                ("avro", avro.clone()),
                ("avro", packed),
                ("avro.gz", gz(&avro)),
                ("avro.zst", zst(&avro)),
            ],
        ),
    ]
}

/// A run over damaged files must end in time, with bounded memory and without a panic, and read the intact files among
/// them.
#[test]
fn damaged_files_of_every_format_take_no_others_with_them() {
    rounds(|seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = Folder::new("fuzz_files", &[]);
        for of in file_formats() {
            let FileFuzz { name, format, samples } = of;
            folder.write(
                &format!("inputs/{name}.toml"),
                &format!(
                    "[columns]\nid = \"BIGINT\"\nname = \"VARCHAR\"\n[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"{name}/*\"\n\
                     format = \"{format}\"\n"
                ),
            );
            folder.write(&format!("silver/{name}.sql"), &format!("SELECT * FROM {name}"));
            let at = folder.path().join(name);
            std::fs::create_dir(&at).expect("a folder for the files");
            let put = |file: String, bytes: &[u8]| std::fs::write(at.join(file), bytes).expect("the file is written");
            for (n, (ending, bytes)) in samples.iter().enumerate() {
                put(format!("whole{n}.{ending}"), bytes);
            }
            for n in 0..40 {
                let (ending, bytes) = &samples[random.random_range(0..samples.len())];
                put(format!("damaged{n}.{ending}"), &damaged(bytes, &mut random));
            }
        }
        let started = Instant::now();
        // The address space is limited to 8 GiB, so that memory is not requested according to a damaged length.
        let command = format!(
            "ulimit -v 8388608; exec timeout {} {} run . --until-caught-up -w 2 --lake lakes/lake",
            PATIENCE.as_secs() * 6,
            env!("CARGO_BIN_EXE_alluvium")
        );
        let run = Command::new("bash")
            .arg("-c")
            .arg(command)
            .current_dir(folder.path())
            .output();
        let run = run.expect("the binary runs");
        exits(&run, 0);
        let told = output_text(&run);
        assert!(!told.contains("panicked"), "seed {seed}: {told}");
        assert!(
            !told.chars().any(|c| c.is_control() && c != '\n'),
            "seed {seed}: {told:?}"
        );
        assert!(
            started.elapsed() < PATIENCE * 6,
            "seed {seed} takes {:?}",
            started.elapsed()
        );
        let dataflow = folder.load("lake");
        for (name, count) in [("csv", 60), ("ndjson", 80), ("parquet", 80), ("avro", 80)] {
            let known = format!("SELECT COUNT(*) FROM silver.{name} WHERE id BETWEEN 0 AND 59");
            let rows: u64 = ask(&dataflow, &known).parse().expect("a number");
            assert!(rows >= count, "seed {seed}: {name} has {rows} of at least {count} rows");
            let whole =
                format!("SELECT COUNT(DISTINCT \"partition\") FROM bronze.{name} WHERE \"partition\" LIKE 'whole%'");
            let expected = file_formats()
                .iter()
                .find(|of| of.name == name)
                .map_or(0, |of| of.samples.len());
            assert_eq!(ask(&dataflow, &whole), expected.to_string(), "seed {seed}: {name}");
        }
        assert_newest_is_exact(&dataflow, &format!("seed {seed}"));
    });
}
