//! Measures decoders alone: how many records of small orders one thread turns into columns a second, by format; for
//! Avro beside arrow-avro, without the further work that this would need (isolation of records, column types, paths).
//!
//! `cargo bench --bench decode` (`-- avro` for some cases alone).

#[path = "../tests/it/avro_bytes.rs"]
#[allow(dead_code, reason = "a bench uses some of it")]
mod avro_bytes;
mod common;
#[path = "../src/registry/mock.rs"]
mod mock;
#[path = "../tests/it/support.rs"]
#[allow(dead_code, reason = "a bench uses some of it")]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::decode::{Decoder, FilePlace, Payloads, Raw};
use alluvium::definition::Input;
use alluvium::registry::Registries;
use arrow::array::BinaryArray;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use avro_bytes::{bytes, framed, long, text};
use mock::Mock;
use serde_json::json;
use support::Folder;

/// The records of a batch.
const BATCH: i64 = 8192;
/// How long each case decodes.
const LENGTH: Duration = Duration::from_secs(3);
/// The header of CSV.
const HEADER: &str = "order_id,customer_id,country,status,quantity,price,ordered_at";
/// The subject of the Avro schema in the registry.
const SUBJECT: &str = "orders-value";

fn main() {
    println!(
        "decoding batches of {BATCH} small orders on one thread\n{}\n",
        common::machine()
    );
    let registry = Mock::start();
    let schema = schema();
    let id = registry.register(SUBJECT, "AVRO", &schema, json!([]));
    let records_of_avro: Vec<Vec<u8>> = (0..BATCH).map(|n| avro(id, n)).collect();
    let texts = |record: fn(i64) -> String| (0..BATCH).map(|n| record(n).into_bytes()).collect::<Vec<_>>();
    let debezium = |n: i64| {
        let row = order(n);
        format!(
            "{{\"op\":\"c\",\"ts_ms\":{n},\"source\":{{\"connector\":\"postgresql\",\"lsn\":{n}}},\"before\":null,\"after\":{row}}}"
        )
    };
    let confluent = format!("registry = {{ url = {:?}, subject = {SUBJECT:?} }}\n", registry.url);

    let mut table = common::Table::new(&["case", "records/s", "MB/s"]);
    let cases = [
        ("csv", None, "csv", Some(HEADER), texts(csv)),
        ("json", None, "json", None, texts(order)),
        (
            "debezium-json",
            None,
            "debezium-json",
            None,
            (0..BATCH).map(|n| debezium(n).into_bytes()).collect(),
        ),
        ("avro", Some(&confluent), "avro", None, records_of_avro.clone()),
    ];
    for (name, settings, format, header, records) in cases {
        if !common::wanted(name) {
            continue;
        }
        let mut decoder = decoder(format, settings.map_or("", |settings| settings.as_str()));
        let batch = raw(header, &records);
        table.row(&rate(name, &records, || {
            decoder.decode(batch.clone()).expect("a registry").ops.len()
        }));
    }
    if common::wanted("arrow-avro") {
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        store
            .set(Fingerprint::Id(id), AvroSchema::new(schema))
            .expect("a schema");
        let mut decoder = arrow_avro::reader::ReaderBuilder::new()
            .with_batch_size(BATCH as usize)
            .with_writer_schema_store(store)
            .build_decoder()
            .expect("a decoder");
        let decode = || {
            for record in &records_of_avro {
                decoder.decode(record).expect("a record");
            }
            decoder.flush().expect("a batch").map_or(0, |batch| batch.num_rows())
        };
        table.row(&rate("arrow-avro", &records_of_avro, decode));
    }
    table.print();
}

/// Decodes the batch again and again; returns a row of the table. `decode` returns the number of rows.
fn rate(name: &str, records: &[Vec<u8>], mut decode: impl FnMut() -> usize) -> [String; 3] {
    assert_eq!(decode(), records.len(), "{name}: every record is a row");
    let (started, mut rounds) = (Instant::now(), 0);
    while started.elapsed() < LENGTH {
        decode();
        rounds += 1;
    }
    let seconds = started.elapsed().as_secs_f64() / f64::from(rounds);
    let bytes: usize = records.iter().map(Vec::len).sum();
    [
        name.to_string(),
        format!("{:.0}", records.len() as f64 / seconds),
        format!("{:.1}", bytes as f64 / seconds / 1e6),
    ]
}

/// The decoder of a feed of orders.
fn decoder(format: &str, settings: &str) -> Decoder {
    let folder = Folder::new("orders", &[]);
    let kind = match format {
        "csv" => "kind = \"files\"\npath = \"drops/*.csv\"\n",
        // Nothing is read from brokers: a decoder is asked alone.
        _ => "kind = \"kafka\"\nbrokers = \"localhost:9092\"\ntopics = [\"orders\"]\n",
    };
    let times = match format {
        "json" | "debezium-json" => "{ type = \"TIMESTAMP\", format = \"epoch_us\" }",
        _ => "\"TIMESTAMP\"",
    };
    folder.write(
        "inputs/orders.toml",
        &format!(
            "key = [\"order_id\"]\n[columns]\norder_id = \"BIGINT\"\ncustomer_id = \"BIGINT\"\ncountry = \"VARCHAR\"\n\
             status = \"VARCHAR\"\nquantity = \"INT\"\nprice = \"DECIMAL(12,2)\"\nordered_at = {times}\n\
             [[feeds]]\nname = \"feed\"\n{kind}format = {format:?}\n{settings}"
        ),
    );
    folder.write("silver/orders.sql", "SELECT * FROM orders");
    let dataflow = folder.load("lake");
    let input: &Input = &dataflow.inputs[0];
    let registries = Registries::new(None);
    Decoder::new(input, &input.feeds[0], &registries).expect("a decoder")
}

fn raw(header: Option<&str>, records: &[Vec<u8>]) -> Raw {
    Raw {
        payloads: Payloads::Records {
            values: BinaryArray::from_iter_values(records),
            keys: None,
            headers: None,
            ts_ms: vec![None; records.len()],
        },
        offsets: (0..records.len() as u64).collect(),
        header: header.map(Arc::from),
        cut: vec![],
        place: FilePlace::default(),
    }
}

fn order(n: i64) -> String {
    format!(
        "{{\"order_id\":{n},\"customer_id\":{},\"country\":\"Germany\",\"status\":\"paid\",\"quantity\":{},\
         \"price\":\"12.34\",\"ordered_at\":{}}}",
        n % 9973,
        n % 7,
        1_500_000_000_000_000i64 + n
    )
}

fn csv(n: i64) -> String {
    format!(
        "{n},{},Germany,paid,{},12.34,2017-07-14 02:40:00.{n:06}",
        n % 9973,
        n % 7
    )
}

fn schema() -> String {
    json!({"type": "record", "name": "O", "fields": [
        {"name": "order_id", "type": "long"}, {"name": "customer_id", "type": "long"},
        {"name": "country", "type": "string"}, {"name": "status", "type": ["null", "string"]},
        {"name": "quantity", "type": "int"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "ordered_at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]})
    .to_string()
}

/// An order of [`schema`].
fn avro(schema: u32, n: i64) -> Vec<u8> {
    let fields = [
        long(n),
        long(n % 9973),
        text("Germany"),
        long(1),
        text("paid"),
        long(n % 7),
        bytes(&1234i16.to_be_bytes()),
        long(1_500_000_000_000_000 + n),
    ];
    framed(schema, &fields)
}
