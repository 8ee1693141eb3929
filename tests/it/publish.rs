//! Tables that go to topics: a consumer of committed records sees each snapshot's changes once, over restarts. Needs a
//! broker, like [`crate::kafka`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::Broker;
use crate::lake::ask;
use crate::support::{Folder, Running, catch_up};

/// A topic's committed records: key, and value or none.
fn consume(broker: &Broker, topic: &str, partitions: i32) -> Vec<(String, Option<String>)> {
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
                records.push((text(message.key().expect("a key")), message.payload().map(text)));
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
