//! Tests topics of a real broker: transactions, retention, compaction, TLS and SASL, consumer groups. Without a broker
//! (`scripts/services start kafka; eval "$(scripts/services env)"`) these tests report that they skip.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use alluvium::definition::Dataflow;
use alluvium::run::RunError;
use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::lake::{ask, assert_newest_is_exact};
use crate::publish::consume;
use crate::support::{Folder, Running, Size, catch_up, run_all, unread};
use crate::testing::{Prerequisite, skip};

/// The most time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The address of a service; none if it is not started.
pub fn service(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok();
    if address.is_none() {
        let why = format!("{variable} is not set; scripts/services start, then eval \"$(scripts/services env)\"");
        skip(Prerequisite::Services, &why);
    }
    address
}

/// A broker, with topics that only this test uses.
pub struct Broker {
    pub address: String,
    admin: AdminClient<DefaultClientContext>,
    /// The prefix of all names.
    prefix: String,
}

impl Broker {
    /// None if there is no broker.
    pub fn connect(test: &str) -> Option<Broker> {
        let address = service("ALLUVIUM_KAFKA")?;
        let admin = ClientConfig::new().set("bootstrap.servers", &address).create();
        Some(Broker {
            admin: admin.expect("an admin client"),
            prefix: format!("{test}-{:x}", rand::random::<u32>()),
            address,
        })
    }

    /// Creates a topic; returns its full name.
    pub fn topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> String {
        let topic = self.name(name);
        let mut new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in config {
            new = new.set(name, value);
        }
        let made = block_on(self.admin.create_topics([&new], &AdminOptions::new())).expect("the broker answers");
        made[0].as_ref().expect("the topic is made");
        topic
    }

    /// Sets an option of a topic.
    pub fn set(&self, topic: &str, name: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let set = block_on(self.admin.alter_configs([&change], &AdminOptions::new())).expect("the broker answers");
        assert!(set[0].is_ok(), "{set:?}");
    }

    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn producer(&self, options: &[(&str, &str)]) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("linger.ms", "0");
        for (name, value) in options {
            config.set(*name, *value);
        }
        config.create().expect("a producer")
    }

    /// Sends records (key, value) to a partition.
    pub fn send(&self, topic: &str, partition: i32, records: &[(&str, Option<&str>)]) {
        let producer = self.producer(&[]);
        put(&producer, topic, partition, records);
        producer.flush(PATIENCE).expect("the broker takes records");
    }

    /// Deletes a partition's records before an offset, as retention would.
    fn forget(&self, topic: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(topic, partition, Offset::Offset(before))
            .expect("an offset");
        let gone = block_on(self.admin.delete_records(&offsets, &AdminOptions::new())).expect("the broker answers");
        assert_eq!(gone.count(), 1);
    }

    /// The committed offset of a group.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("group.id", group)
            .create()
            .expect("a consumer");
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(topic, partition);
        let committed = consumer
            .committed_offsets(wanted, PATIENCE)
            .expect("the broker answers");
        match committed.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

fn put(producer: &BaseProducer, topic: &str, partition: i32, records: &[(&str, Option<&str>)]) {
    for (key, value) in records {
        let mut record = BaseRecord::to(topic).partition(partition).key(*key);
        record.payload = *value;
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("room in the queue");
    }
}

/// A dataflow with a table of the current rows from a topic's JSON records, and a table that counts them.
fn folder(name: &str, broker: &str, topic: &str, more: &str) -> Folder {
    Folder::new(
        name,
        &[
            (
                "inputs/orders.toml",
                &format!(
                    "key = [\"id\"]\n[columns]\nid = {{ type = \"BIGINT\", nullable = false }}\nstate = \"VARCHAR\"\n\
                     [[feeds]]\nname = \"live\"\nkind = \"kafka\"\nbrokers = \"{broker}\"\ntopics = [\"{topic}\"]\n\
                     format = \"json\"\n{more}\n"
                ),
            ),
            ("silver/orders.sql", "SELECT id, state FROM orders"),
            (
                "gold/states.sql",
                "SELECT state, COUNT(*) AS n FROM silver.orders GROUP BY state",
            ),
        ],
    )
}

/// The lines of a query's answer, one for each row.
fn rows(dataflow: &Dataflow, sql: &str) -> Vec<String> {
    ask(dataflow, sql).lines().map(str::to_string).collect()
}

fn order(id: u32, state: &str) -> (String, Option<String>) {
    (
        id.to_string(),
        Some(format!("{{\"id\": {id}, \"state\": \"{state}\"}}")),
    )
}

fn orders(records: &[(u32, &str)]) -> Vec<(String, Option<String>)> {
    records.iter().map(|(id, state)| order(*id, state)).collect()
}

fn texts(records: &[(String, Option<String>)]) -> Vec<(&str, Option<&str>)> {
    records
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_deref()))
        .collect()
}

#[test]
fn only_committed_records_count_and_a_restart_finds_nothing_missing_where_marks_are_gone() {
    let Some(broker) = Broker::connect("transactions") else {
        return;
    };
    let topic = broker.topic("orders", 1, &[]);
    let producer = broker.producer(&[("transactional.id", &topic)]);
    producer.init_transactions(PATIENCE).expect("a transactional producer");
    let transaction = |records: &[(u32, &str)], commits: bool| {
        producer.begin_transaction().expect("a transaction begins");
        put(&producer, &topic, 0, &texts(&orders(records)));
        producer.flush(PATIENCE).expect("the broker takes records");
        match commits {
            true => producer.commit_transaction(PATIENCE).expect("it is committed"),
            false => producer.abort_transaction(PATIENCE).expect("it is aborted"),
        }
    };
    transaction(&[(1, "new"), (2, "new")], true);
    transaction(&[(1, "lost"), (3, "lost")], false);
    transaction(&[(2, "paid")], true);
    let folder = folder("transactions", &broker.address, &topic, "");
    let dataflow = folder.load("lake");
    assert_eq!(catch_up(&dataflow, 1).records, 3);
    let states = || rows(&dataflow, "SELECT id, state FROM silver.orders ORDER BY id");
    assert_eq!(states(), ["1,new", "2,paid"]);
    // Records and transaction markers that were read are removed: a position before a marker would look as if records
    // were missing.
    transaction(&[(9, "lost")], false);
    let running = Running::start(dataflow.clone(), 1);
    let told = || broker.committed("alluvium-transactions", &topic, 0);
    let end = broker_end(&broker, &topic);
    running.wait_until(|| told() == Some(end));
    running.stop();
    broker.forget(&topic, 0, end);
    transaction(&[(2, "sent")], true);
    assert_eq!(catch_up(&dataflow, 2).rejected, 0);
    assert_eq!(states(), ["1,new", "2,sent"]);
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

fn broker_end(broker: &Broker, topic: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .create()
        .expect("a consumer");
    consumer
        .fetch_watermarks(topic, 0, PATIENCE)
        .expect("the broker answers")
        .1
}

#[test]
fn records_that_retention_removed_are_named_or_counted() {
    let Some(broker) = Broker::connect("retention") else {
        return;
    };
    let topic = broker.topic("orders", 1, &[]);
    broker.send(&topic, 0, &texts(&orders(&[(1, "new"), (2, "new")])));
    let stops = folder("retention", &broker.address, &topic, "");
    let dataflow = stops.load("lake");
    catch_up(&dataflow, 1);
    broker.send(&topic, 0, &texts(&orders(&[(3, "lost"), (4, "lost"), (5, "new")])));
    broker.forget(&topic, 0, 4);
    let text = unread(&dataflow);
    assert!(
        text.contains("was read up to offset 2") && text.contains("begins at 4: 2 records are gone"),
        "{text}"
    );
    let goes_on = folder("retention", &broker.address, &topic, "on_missing = \"earliest\"");
    let mut dataflow = (*goes_on.load("lake")).clone();
    dataflow.lake = stops.lake("lake").display().to_string();
    let dataflow = dataflow.into();
    catch_up(&dataflow, 1);
    assert_eq!(
        rows(&dataflow, "SELECT id, state FROM silver.orders ORDER BY id"),
        ["1,new", "2,new", "5,new"]
    );
    let letters = rows(&dataflow, "SELECT kind, reason FROM dead_letters");
    assert!(
        letters.len() == 1 && letters[0].starts_with("file,records 2 to 3 of partition"),
        "{letters:?}"
    );
}

/// Users would have lost data: the audit took every row whose record retention had removed for a deleted one.
#[test]
fn without_bronze_a_topic_that_lost_records_is_not_taken_for_the_past() {
    let Some(broker) = Broker::connect("retention_no_bronze") else {
        return;
    };
    let topic = broker.topic("orders", 1, &[]);
    broker.send(&topic, 0, &texts(&orders(&[(1, "new"), (2, "new"), (3, "new")])));
    let mut dataflow = (*folder("retention_no_bronze", &broker.address, &topic, "").load("lake")).clone();
    dataflow.inputs[0].bronze = false;
    let dataflow = dataflow.into();
    catch_up(&dataflow, 1);
    let again = alluvium::run::Options {
        until_caught_up: true,
        recompute: true,
        ..Default::default()
    };
    assert!(
        run_all(&dataflow, Size::from(1), &again).remove(0).is_ok(),
        "all records are there"
    );
    broker.forget(&topic, 0, 2);
    let ended = run_all(&dataflow, Size::from(1), &again).remove(0);
    assert!(matches!(&ended, Err(RunError::NoBronze { next: 3, .. })), "{ended:?}");
    assert_eq!(
        rows(&dataflow, "SELECT id, state FROM silver.orders ORDER BY id"),
        ["1,new", "2,new", "3,new"]
    );
}

#[test]
fn a_compacted_topic_has_gaps_and_a_tombstone_deletes_its_row() {
    let Some(broker) = Broker::connect("compaction") else {
        return;
    };
    let config = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "100"),
        ("delete.retention.ms", "600000"),
    ];
    let topic = broker.topic("orders", 1, &config);
    let many: Vec<(u32, &str)> = (0..200)
        .map(|n| (n % 4, if n < 196 { "old" } else { "last" }))
        .collect();
    broker.send(&topic, 0, &texts(&orders(&many)));
    broker.send(
        &topic,
        0,
        &[("1", None), ("3", Some("{\"id\": 3, \"state\": \"paid\"}"))],
    );
    let folder = folder("compaction", &broker.address, &topic, "");
    // Whether compacted or not, the remaining records make the same table.
    for lake in ["at once", "later"] {
        if lake == "later" {
            // A segment is compacted once a later record, after `segment.ms`, has begun another one.
            std::thread::sleep(Duration::from_millis(300));
            broker.send(&topic, 0, &[("0", Some("{\"id\": 0, \"state\": \"last\"}"))]);
            let started = Instant::now();
            while consume(&broker, &topic, 1).len() > many.len() {
                assert!(started.elapsed() < PATIENCE, "the broker does not compact the topic");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let dataflow = folder.load(lake);
        catch_up(&dataflow, 2);
        assert_eq!(
            rows(&dataflow, "SELECT id, state FROM silver.orders ORDER BY id"),
            ["0,last", "2,last", "3,paid"]
        );
        assert_newest_is_exact(&dataflow, "the newest snapshot");
    }
}

#[test]
fn partitions_that_are_added_are_read_and_offsets_are_told_to_the_group() {
    let Some(broker) = Broker::connect("partitions") else {
        return;
    };
    let topic = broker.topic("orders", 1, &[]);
    broker.send(&topic, 0, &texts(&orders(&[(1, "new")])));
    let group = broker.name("readers");
    let folder = folder(
        "partitions",
        &broker.address,
        &topic,
        &format!("group = \"{group}\"\nstart = \"latest\""),
    );
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 2);
    running.wait_until(|| broker.committed(&group, &topic, 0) == Some(1));
    // Some of the new partitions go to a reader that had none before.
    const PARTITIONS: usize = 9;
    let more = NewPartitions::new(&topic, PARTITIONS);
    let made = block_on(broker.admin.create_partitions([&more], &AdminOptions::new())).expect("the broker answers");
    made[0].as_ref().expect("the partitions are made");
    for partition in 0..PARTITIONS {
        let id = 2 + partition as u32;
        broker.send(&topic, partition as i32, &texts(&orders(&[(id, "new")])));
    }
    let all = [PARTITIONS.to_string()];
    running.wait_until(|| rows(&dataflow, "SELECT COUNT(*) FROM silver.orders") == all);
    running.wait_until(|| broker.committed(&group, &topic, 2) == Some(1));
    running.wait_until(|| broker.committed(&group, &topic, 0) == Some(2));
    running.stop();
    let ids: Vec<String> = (2..2 + PARTITIONS).map(|id| id.to_string()).collect();
    assert_eq!(
        rows(&dataflow, "SELECT id FROM silver.orders ORDER BY id"),
        ids,
        "latest begins behind what was there, and new partitions at their first record"
    );
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

#[test]
fn a_feed_speaks_tls_with_sasl_and_a_wrong_password_is_told() {
    let Some(broker) = Broker::connect("sasl") else { return };
    let (Some(secure), Some(ca)) = (service("ALLUVIUM_KAFKA_SASL_SSL"), service("ALLUVIUM_KAFKA_CA")) else {
        return;
    };
    let user = service("ALLUVIUM_KAFKA_USER").expect("set with the others");
    let password = service("ALLUVIUM_KAFKA_PASSWORD").expect("set with the others");
    let topic = broker.topic("orders", 2, &[]);
    broker.send(&topic, 1, &texts(&orders(&[(1, "new")])));
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let options = |password: &str| {
            format!(
                "[feeds.options]\n\"security.protocol\" = \"SASL_SSL\"\n\"ssl.ca.location\" = \"{ca}\"\n\
                 \"sasl.mechanism\" = \"{mechanism}\"\n\"sasl.username\" = \"{user}\"\n\"sasl.password\" = \"{password}\"\n"
            )
        };
        let right = folder("sasl", &secure, &topic, &options(&password));
        let dataflow = right.load("lake");
        assert_eq!(catch_up(&dataflow, 1).records, 1, "{mechanism}");
        if mechanism == "PLAIN" {
            let wrong = folder("sasl", &secure, &topic, &options("wrong"));
            let started = Instant::now();
            let text = unread(&wrong.load("lake"));
            assert!(
                text.contains(&secure) && text.to_lowercase().contains("authentication"),
                "{text}"
            );
            assert!(!text.contains("\"wrong\""), "{text}");
            assert!(started.elapsed() < Duration::from_secs(120));
        }
    }
    // librdkafka creates this token itself; a token from an OIDC server would be requested by the same code.
    let token = format!(
        "[feeds.options]\n\"security.protocol\" = \"SASL_SSL\"\n\"ssl.ca.location\" = \"{ca}\"\n\
         \"sasl.mechanism\" = \"OAUTHBEARER\"\n\"enable.sasl.oauthbearer.unsecure.jwt\" = true\n\
         \"sasl.oauthbearer.config\" = \"principal=alluvium\"\n"
    );
    let dataflow = folder("sasl", &secure, &topic, &token).load("lake");
    assert_eq!(catch_up(&dataflow, 1).records, 1, "OAUTHBEARER");
}

#[test]
fn several_topics_and_processes_make_what_one_does() {
    let Some(broker) = Broker::connect("several") else {
        return;
    };
    let mut expected = BTreeMap::new();
    for (topic, partitions) in [("a.orders", 3), ("b.orders", 2)] {
        let topic = broker.topic(topic, partitions, &[]);
        for partition in 0..partitions {
            let base = if topic.contains("a.orders") { 0 } else { 1000 };
            let records: Vec<(u32, &str)> = (0..50)
                .map(|n| {
                    (
                        base + partition as u32 * 100 + n % 20,
                        ["new", "paid", "sent"][n as usize % 3],
                    )
                })
                .collect();
            broker.send(&topic, partition, &texts(&orders(&records)));
            expected.extend(records.iter().map(|(id, state)| (*id, state.to_string())));
        }
    }
    let pattern = format!("^{}-[ab]\\\\.orders$", broker.prefix);
    let folder = folder("several", &broker.address, &pattern, "");
    let expected: Vec<String> = expected.iter().map(|(id, state)| format!("{id},{state}")).collect();
    for (lake, size) in [
        ("one", Size::from(1)),
        ("three", Size::from(3)),
        ("two by two", Size::from((2, 2))),
    ] {
        let dataflow = folder.load(lake);
        catch_up(&dataflow, size);
        assert_eq!(
            rows(&dataflow, "SELECT id, state FROM silver.orders ORDER BY id"),
            expected,
            "{lake}"
        );
        assert_newest_is_exact(&dataflow, "the newest snapshot");
    }
}
