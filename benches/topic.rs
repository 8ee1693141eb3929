//! Measures reading a topic of small orders through a feed of kind `kafka`, compared with librdkafka reading the same
//! topic without processing it: with librdkafka's default queue, which pauses for a second whenever 100,000 records
//! wait, and with the queue that the feed configures.
//!
//! `cargo bench --bench topic` (`-- json` or `-- avro` only). Needs `scripts/services start kafka registry` and `eval
//! "$(scripts/services env)"`. The topic is filled once (with ALLUVIUM_ORDERS orders, by default ten million) and
//! kept. The dataflow only sums by country, and Bronze is off, so that mostly fetching and decoding are measured.

mod common;
#[path = "../tests/it/support.rs"]
#[allow(dead_code)]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::definition::{self, ClientOptions, Kafka, KafkaClient, KafkaStart, OnMissing};
use alluvium::run::{self, Options};
use alluvium::source::{TopicRecord, TopicWriter};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use common::Measured;

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
const COUNTRIES: [&str; 6] = ["United Kingdom", "Germany", "France", "EIRE", "Spain", "Netherlands"];
/// The Avro schema of an order.
const SCHEMA: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"country","type":"string"},{"name":"quantity","type":"int"},{"name":"price","type":"double"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

fn main() {
    let address = |name: &str| std::env::var(name).ok();
    let (Some(brokers), registry) = (address("ALLUVIUM_KAFKA"), address("ALLUVIUM_REGISTRY")) else {
        println!("SKIPPED: ALLUVIUM_KAFKA is not set; scripts/services start, then eval \"$(scripts/services env)\"");
        return;
    };
    if let Some(case) = common::case() {
        let [what, form, workers] = case.as_slice() else {
            panic!("a case is what, form, workers");
        };
        return common::tell(&match what.as_str() {
            "defaults" => ceiling(&consumer(&brokers), &topic(form)),
            "ceiling" => ceiling(&hasty(&brokers), &topic(form)),
            _ => feed(&brokers, registry.as_deref(), form, workers.parse().expect("a number")),
        });
    }
    println!(
        "a topic of {} orders, {PARTITIONS} partitions\n{}\n",
        orders(),
        common::machine()
    );
    let mut table = common::Table::new(&["case", "records", "time", "records/s", "CPU", "peak RSS"]);
    for form in ["json", "avro"] {
        if !common::wanted(form) {
            continue;
        }
        if form == "avro" && registry.is_none() {
            println!("SKIPPED avro: ALLUVIUM_REGISTRY is not set");
            continue;
        }
        fill(&brokers, registry.as_deref(), form);
        for (what, workers) in [("defaults", "1"), ("ceiling", "1"), ("feed", "1"), ("feed", "2")] {
            let told = common::child(&[what, form, workers]);
            let name = match what {
                "defaults" => format!("{form}: librdkafka alone, defaults"),
                "ceiling" => format!("{form}: librdkafka alone, our queue"),
                _ => format!("{form}: alluvium, {workers} workers"),
            };
            table.row(&[
                name,
                format!("{}", told["records"]),
                common::seconds(told["seconds"]),
                format!("{:.0}", told["records"] / told["seconds"]),
                common::seconds(told["cpu"]),
                common::bytes(told["peak_rss"]),
            ]);
        }
    }
    table.print();
}

fn orders() -> u64 {
    let told = std::env::var("ALLUVIUM_ORDERS").ok();
    told.map_or(10_000_000, |text| text.parse().expect("ALLUVIUM_ORDERS is a number"))
}

fn topic(form: &str) -> String {
    format!("bench-orders-{form}-{}", orders())
}

fn kafka(brokers: &str, topic: &str) -> Kafka {
    Kafka {
        client: KafkaClient {
            brokers: brokers.into(),
            options: ClientOptions::default(),
        },
        topics: vec![topic.into()],
        start: KafkaStart::Earliest,
        on_missing: OnMissing::Stop,
        group: None,
        transactions: None,
    }
}

fn end(brokers: &str, topic: &str) -> u64 {
    let consumer = consumer(brokers);
    let ends = (0..PARTITIONS).map(|partition| {
        let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap_or((0, 0));
        end as u64
    });
    ends.sum()
}

fn settings(brokers: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    settings
}

fn consumer(brokers: &str) -> BaseConsumer {
    settings(brokers).create().expect("a consumer")
}

/// A consumer with the queue settings of the feed's clients (`source::kafka`).
fn hasty(brokers: &str) -> BaseConsumer {
    let mut settings = settings(brokers);
    settings
        .set("queued.max.messages.kbytes", "8192")
        .set("fetch.queue.backoff.ms", "5");
    settings.create().expect("a consumer")
}

/// Fills the topic, unless it is full.
fn fill(brokers: &str, registry: Option<&str>, form: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let topic = topic(form);
    if end(brokers, &topic) == orders() {
        return;
    }
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("an admin client");
    let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
    let gone = futures::executor::block_on(admin.delete_topics(&[&topic], &AdminOptions::new()));
    gone.expect("the broker answers");
    std::thread::sleep(Duration::from_secs(2));
    let made = futures::executor::block_on(admin.create_topics([&new], &AdminOptions::new()));
    made.expect("the broker answers")[0]
        .as_ref()
        .expect("the topic is made");
    let id = (form == "avro").then(|| register(registry.expect("avro has a registry"), &topic));
    let writer = TopicWriter::open(&kafka(brokers, &topic).client, &topic).expect("a producer");
    let mut value = Vec::new();
    for order in 0..orders() {
        value.clear();
        let country = COUNTRIES[(order % 7 % 6) as usize];
        let (quantity, price) = (order % 13 + 1, (order % 997) as f64 / 8.0);
        let at = 1_767_225_600_000_000 + order as i64 * 1000;
        match id {
            None => {
                use std::io::Write;
                let at = chrono::DateTime::from_timestamp_micros(at)
                    .expect("a time")
                    .format("%Y-%m-%dT%H:%M:%S%.3f");
                write!(
                    value,
                    "{{\"id\":{order},\"country\":\"{country}\",\"quantity\":{quantity},\"price\":{price},\"at\":\"{at}\"}}"
                )
                .expect("memory takes all");
            }
            Some(id) => {
                value.push(0);
                value.extend_from_slice(&u32::to_be_bytes(id));
                long(&mut value, order as i64);
                long(&mut value, country.len() as i64);
                value.extend_from_slice(country.as_bytes());
                long(&mut value, quantity as i64);
                value.extend_from_slice(&price.to_le_bytes());
                long(&mut value, at);
            }
        }
        let record = TopicRecord {
            partition: Some((order % PARTITIONS as u64) as i32),
            value: Some(&value),
            ..TopicRecord::default()
        };
        writer.send(record).expect("a record");
    }
    writer.flush(PATIENCE * 5).expect("the broker takes records");
}

/// Encodes Avro's long: zigzag, then seven bits per byte.
fn long(bytes: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
}

/// Registers the schema; returns its id.
fn register(registry: &str, topic: &str) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let body = serde_json::json!({ "schema": SCHEMA });
        let url = format!("{registry}/subjects/{topic}-value/versions");
        let answer = reqwest::Client::new()
            .post(url)
            .json(&body)
            .send()
            .await
            .expect("the registry answers");
        let answer: serde_json::Value = answer.json().await.expect("JSON");
        answer["id"].as_u64().expect("an id") as u32
    })
}

/// Measures librdkafka alone: every record is fetched and looked at, nothing else.
fn ceiling(consumer: &BaseConsumer, topic: &str) -> Measured {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    let started = Instant::now();
    let (mut records, mut bytes, mut ended) = (0u64, 0u64, 0);
    while ended < PARTITIONS {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload_len() as u64;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    assert!(bytes > 0 && records == orders(), "{records} records of {bytes} bytes");
    told(records, started.elapsed())
}

/// Measures a run that reads the topic into a table of sums by country.
fn feed(brokers: &str, registry: Option<&str>, form: &str, workers: usize) -> Measured {
    let registry = match form {
        "avro" => format!(
            "registry = {{ url = \"{}\" }}\n",
            registry.expect("avro has a registry")
        ),
        _ => String::new(),
    };
    let input = format!(
        "bronze = false\n[columns]\nid = \"BIGINT\"\ncountry = \"VARCHAR\"\nquantity = \"INT\"\nprice = \"DOUBLE\"\n\
         at = \"TIMESTAMP\"\n[[feeds]]\nname = \"live\"\nkind = \"kafka\"\nbrokers = \"{brokers}\"\n\
         topics = [\"{}\"]\nformat = \"{form}\"\n{registry}",
        topic(form)
    );
    let folder = support::Folder::new(
        "topic",
        &[
            ("inputs/orders.toml", &input),
            (
                "gold/by_country.sql",
                "SELECT country, COUNT(*) AS n, SUM(quantity) AS quantity FROM orders GROUP BY country",
            ),
        ],
    );
    folder.write("dataflow.toml", "name = \"topic\"\ncommit = \"1s\"\n");
    let dataflow = definition::load(folder.path(), &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let options = Options {
        workers,
        until_caught_up: true,
        ..Options::default()
    };
    let started = Instant::now();
    let outcome = run::run(Arc::new(dataflow), &options).unwrap_or_else(|e| panic!("{}", support::chain(&e)));
    assert_eq!((outcome.records, outcome.rejected), (orders(), 0));
    told(outcome.records, started.elapsed())
}

fn told(records: u64, took: Duration) -> Measured {
    Measured::from([
        ("records".into(), records as f64),
        ("seconds".into(), took.as_secs_f64()),
        ("cpu".into(), common::cpu_seconds("self")),
        ("peak_rss".into(), common::peak_rss() as f64),
    ])
}
