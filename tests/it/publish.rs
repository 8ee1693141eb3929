//! Tables that go to topics: a consumer of committed records sees each snapshot's changes once, over restarts. Needs a
//! broker, like [`crate::kafka`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use reqwest::Method;

use crate::kafka::{Broker, service};
use crate::lake::ask;
use crate::support::{Folder, Running, catch_up, chain, run_all};

/// A topic's committed records: key, and value or none.
fn consume(broker: &Broker, topic: &str, partitions: i32) -> Vec<(String, Option<String>)> {
    let records = consume_all(broker, topic, partitions).into_iter();
    records.map(|(key, value, _)| (key.expect("a key"), value)).collect()
}

type Headers = BTreeMap<String, String>;

/// The same with headers.
fn consume_all(broker: &Broker, topic: &str, partitions: i32) -> Vec<(Option<String>, Option<String>, Headers)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("group.id", "readers")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    let (mut records, mut ended) = (Vec::new(), 0);
    let started = Instant::now();
    while ended < partitions {
        assert!(started.elapsed() < Duration::from_secs(60), "the topic does not end");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(message)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                let headers =
                    headers.map(|header| (header.key.to_string(), header.value.map(text).unwrap_or_default()));
                records.push((message.key().map(text), message.payload().map(text), headers.collect()));
            }
        }
    }
    records
}

/// What a topic's records leave by key.
fn table(records: &[(String, Option<String>)]) -> BTreeMap<&str, &str> {
    let mut table = BTreeMap::new();
    for (key, value) in records {
        match value {
            Some(value) => table.insert(key.as_str(), value.as_str()),
            None => table.remove(key.as_str()),
        };
    }
    table
}

fn order(id: u32, state: &str) -> String {
    format!("{{\"key\": {id}, \"value\": {{\"id\": {id}, \"state\": \"{state}\"}}}}\n")
}

#[test]
fn a_topic_has_each_change_of_its_table_once_over_restarts_and_from_whenever_it_is_new() {
    let Some(broker) = Broker::connect("publish") else {
        return;
    };
    let (orders, states) = (broker.topic("orders", 2, &[]), broker.topic("states", 1, &[]));
    let to = |topic: &str| format!("[kafka]\nbrokers = \"{}\"\ntopic = \"{topic}\"\n", broker.address);
    let folder = Folder::new(
        &broker.name("flow"),
        &[
            (
                "inputs/orders.toml",
                "key = [\"id\"]\n[columns]\nid = { type = \"BIGINT\", nullable = false }\nstate = \"VARCHAR\"\n\
                 [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n",
            ),
            ("silver/orders.sql", "SELECT id, state FROM orders"),
            ("silver/orders.toml", &format!("key = [\"id\"]\n{}", to(&orders))),
            (
                "gold/states.sql",
                "SELECT state, COUNT(*) AS n FROM silver.orders GROUP BY state",
            ),
        ],
    );
    let append = |text: &str| folder.append("live/0.ndjson", text);
    append(&(order(1, "new") + &order(2, "new")));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    // Live, over several snapshots.
    let running = Running::start(dataflow.clone(), 2);
    for id in 3..40 {
        append(&order(id, "new"));
        std::thread::sleep(Duration::from_millis(7));
    }
    append(&(order(1, "paid") + "{\"key\": 2, \"value\": null}\n"));
    running.wait_until(|| consume(&broker, &orders, 2).len() >= 41);
    running.stop();
    // Again with nothing new, and with another table that goes to a topic from now on.
    catch_up(&dataflow, 1);
    folder.write("gold/states.toml", &format!("key = [\"state\"]\n{}", to(&states)));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    append(&order(3, "paid"));
    catch_up(&dataflow, 2);

    let records = consume(&broker, &orders, 2);
    assert_eq!(records.len(), 42, "each change once: {records:?}");
    let rows = ask(&dataflow, "SELECT id, state FROM silver.orders ORDER BY id");
    let expected: Vec<(String, String)> = rows
        .lines()
        .map(|row| {
            let (id, state) = row.split_once(',').expect("two columns");
            (
                format!("{{\"id\":{id}}}"),
                format!("{{\"id\":{id},\"state\":\"{state}\"}}"),
            )
        })
        .collect();
    let found: Vec<(String, String)> = {
        let mut rows: Vec<_> = table(&records)
            .into_iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        rows.sort_by_key(|(key, _)| key.len() * 100 + key[6..key.len() - 1].parse::<usize>().expect("a number"));
        rows
    };
    assert_eq!(found, expected);
    let records = consume(&broker, &states, 1);
    let found = table(&records);
    assert_eq!(
        found,
        BTreeMap::from([
            ("{\"state\":\"new\"}", "{\"state\":\"new\",\"n\":36}"),
            ("{\"state\":\"paid\"}", "{\"state\":\"paid\",\"n\":2}"),
        ])
    );
    assert_eq!(
        records.len(),
        4,
        "the table as it was when the topic was new, and what changed then: {records:?}"
    );
}

#[test]
fn a_dead_letter_goes_to_its_topic_as_it_came_with_the_reason_once() {
    let Some(broker) = Broker::connect("letters") else {
        return;
    };
    let (orders, dead) = (broker.topic("orders", 1, &[]), broker.topic("dead", 1, &[]));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .create()
        .expect("a producer");
    let trace = OwnedHeaders::new().insert(Header {
        key: "trace",
        value: Some("00-1"),
    });
    for (key, value) in [("1", "{\"id\": 1}"), ("2", "{\"id\": \"two\"}")] {
        let record = BaseRecord::to(&orders).key(key).payload(value).headers(trace.clone());
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("room in the queue");
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("the broker takes records");
    let folder = Folder::new(
        &broker.name("flow"),
        &[
            (
                "inputs/orders.toml",
                &format!(
                    "key = [\"id\"]\n[columns]\nid = {{ type = \"BIGINT\", nullable = false }}\n[[feeds]]\nname = \"live\"\n\
                     kind = \"kafka\"\nbrokers = \"{}\"\ntopics = [\"{orders}\"]\nformat = \"json\"\n",
                    broker.address
                ),
            ),
            ("silver/orders.sql", "SELECT id FROM orders"),
        ],
    );
    folder.append(
        "dataflow.toml",
        &format!("[dead_letters]\nbrokers = \"{}\"\ntopic = \"{dead}\"\n", broker.address),
    );
    let dataflow = folder.load("lake");
    for _ in 0..2 {
        catch_up(&dataflow, 2);
    }
    let letters = consume_all(&broker, &dead, 1);
    let [(key, value, headers)] = &letters[..] else {
        panic!("{letters:?}")
    };
    assert_eq!(
        (key.as_deref(), value.as_deref()),
        (Some("2"), Some("{\"id\": \"two\"}"))
    );
    let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(
        (header("trace"), header("alluvium.feed"), header("alluvium.offset")),
        ("00-1", "live", "1")
    );
    assert!(header("alluvium.reason").contains("two"), "{headers:?}");
    let kept = ask(&dataflow, "SELECT key IS NOT NULL, headers FROM dead_letters");
    assert_eq!(kept, "true,\"{\"\"trace\"\":\"\"00-1\"\"}\"");
}

/// Has a registry take something.
fn tell(method: Method, url: &str, body: &str) {
    let request = reqwest::Client::new()
        .request(method, url)
        .header("content-type", "application/vnd.schemaregistry.v1+json")
        .body(body.to_string());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let answer = runtime.block_on(request.send());
    answer
        .and_then(reqwest::Response::error_for_status)
        .expect("the registry takes it");
}

/// One dataflow writes a topic as Avro, another reads it: both tables are the same, whatever the columns are.
#[test]
fn a_topic_of_avro_is_read_as_the_table_it_is_of_and_an_incompatible_one_is_told() {
    let Some(broker) = Broker::connect("publish_avro") else {
        return;
    };
    let Some(registry) = service("ALLUVIUM_REGISTRY") else {
        return;
    };
    const COLUMNS: &str = "[columns]\nid = { type = \"BIGINT\", nullable = false }\nshop = { type = \"VARCHAR\", nullable = false }\n\
        price = \"DECIMAL(12,3)\"\nweight = \"DOUBLE\"\nn = \"INT\"\nat = \"TIMESTAMP\"\nday = \"DATE\"\npaid = \"BOOLEAN\"\n\
        tags = \"VARCHAR[]\"\n\"1-name\" = \"VARCHAR\"\n";
    let topic = broker.topic("orders", 2, &[]);
    let to = |topic: &str| {
        format!(
            "[kafka]\nbrokers = \"{}\"\ntopic = \"{topic}\"\nformat = \"avro\"\nregistry = {{ url = \"{registry}\" }}\n",
            broker.address
        )
    };
    let writes = Folder::new(
        &broker.name("writes"),
        &[
            (
                "inputs/orders.toml",
                &format!(
                    "key = [\"id\", \"shop\"]\n{COLUMNS}[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n"
                ),
            ),
            ("silver/orders.sql", "SELECT * FROM orders"),
            (
                "silver/orders.toml",
                &format!("key = [\"id\", \"shop\"]\n{}", to(&topic)),
            ),
        ],
    );
    let renamed = COLUMNS.replace(
        "\"1-name\" = \"VARCHAR\"",
        "\"1-name\" = { type = \"VARCHAR\", from = \"_1_name\" }",
    );
    let reads = Folder::new(
        &broker.name("reads"),
        &[
            (
                "inputs/orders.toml",
                &format!(
                    "key = [\"id\", \"shop\"]\n{renamed}[[feeds]]\nname = \"topic\"\nkind = \"kafka\"\nbrokers = \"{}\"\n\
                     topics = [\"{topic}\"]\nformat = \"avro\"\nregistry = {{ url = \"{registry}\" }}\n",
                    broker.address
                ),
            ),
            ("silver/orders.sql", "SELECT * FROM orders"),
        ],
    );
    let record = |id: u32, rest: &str| {
        format!("{{\"key\": {{\"id\": {id}, \"shop\": \"x\"}}, \"value\": {{\"id\": {id}, \"shop\": \"x\"{rest}}}}}\n")
    };
    let full = ", \"price\": \"-12.345\", \"weight\": 0.1, \"n\": -7, \"at\": \"2026-11-22T10:11:12.345678\", \"day\": \"1969-12-31\", \
        \"paid\": true, \"tags\": [\"a\", null, \"\"], \"1-name\": \"\u{fc}\"";
    let append = |text: &str| writes.append("live/0.ndjson", text);
    append(&(record(1, full) + &record(2, "") + &record(3, full)));
    let (writing, reading) = (writes.load("lake"), reads.load("lake"));
    let agree = |ids: &str| {
        catch_up(&writing, 2);
        catch_up(&reading, 2);
        let columns = "id, shop, price, weight, n, at, day, paid, array_to_string(tags, '|', '?') AS tags, \"1-name\"";
        let of = |dataflow| ask(dataflow, &format!("SELECT {columns} FROM silver.orders ORDER BY id"));
        assert_eq!(of(&reading), of(&writing));
        assert_eq!(ask(&reading, "SELECT id FROM silver.orders ORDER BY id"), ids);
        assert_eq!(ask(&reading, "SELECT reason FROM dead_letters"), "");
    };
    agree("1\n2\n3");
    append("{\"key\": {\"id\": 3, \"shop\": \"x\"}, \"value\": null}\n");
    append(&record(2, full));
    agree("1\n2");

    // The same table under a subject that other readers have another schema of.
    let taken = broker.topic("taken", 1, &[]);
    tell(
        Method::POST,
        &format!("{registry}/subjects/{taken}-value/versions"),
        "{\"schema\": \"\\\"string\\\"\"}",
    );
    tell(
        Method::PUT,
        &format!("{registry}/config/{taken}-value"),
        "{\"compatibility\": \"BACKWARD\"}",
    );
    writes.write(
        "silver/orders.toml",
        &format!("key = [\"id\", \"shop\"]\n{}", to(&taken)),
    );
    let options = alluvium::run::Options {
        until_caught_up: true,
        ..Default::default()
    };
    let ended = run_all(&writes.load("lake"), 1.into(), &options).remove(0);
    let text = chain(&ended.expect_err("the schema is refused"));
    assert!(
        text.contains(&format!("{taken}-value")) && text.contains("silver.orders") && text.contains("compatib"),
        "{text}"
    );
}
