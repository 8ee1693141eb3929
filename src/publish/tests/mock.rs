//! Tests with librdkafka's own mock cluster, whose brokers can go away. It stores no epochs of transactions and rolls
//! none back, so these tests do not cover exactly-once publishing; [`super::failing`] and `tests/it` do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use rdkafka::bindings::rd_kafka_resp_err_t as Answer;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::flow::{ID, PublishFlow, STATE, row, spec, tables};
use crate::publish::channel::Channel;
use crate::publish::producer::KafkaProducer;
use crate::publish::worker::PublishWorker;

/// The newest value of each key in a topic, read until there are `rows` keys or `patience` is over.
fn table(brokers: &str, topic: &str, rows: usize, patience: Duration) -> BTreeMap<String, String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "readers")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut table, started) = (BTreeMap::new(), Instant::now());
    while table.len() < rows && started.elapsed() < patience {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let (key, value) = (text(message.key()).unwrap(), text(message.payload()));
            match value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
    }
    table
}

/// A transaction that failed half-way could be neither ended nor begun anew: nothing was published until the process
/// restarted, not even later commits.
#[test]
fn brokers_that_go_away_in_a_transaction_get_it_once_they_are_back() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("silver.orders", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let flow = PublishFlow::new();
    let mut run = flow.run(&[spec("silver.orders", &[ID, STATE])]);
    let tables = tables(&run.specs, &brokers);
    let kafka = KafkaProducer::new("flow", &tables[0].output.client, None).unwrap();
    let kafka = kafka.within(Duration::from_secs(2));
    let channel = Channel::new(kafka, tables, flow.origin(run.generation));
    let (committed, epochs) = unbounded();
    let worker = PublishWorker::new(channel, 0);
    let thread = std::thread::spawn(move || worker.publish(&epochs));
    committed.send(run.commit(1, &[(0, row![1, "new"], 1)])).unwrap();
    let rows = |wanted, patience| table(&brokers, "silver.orders", wanted, Duration::from_secs(patience)).len();
    assert_eq!(rows(1, 30), 1);
    cluster.broker_down(-1).unwrap();
    // Brokers fail during the first transaction; the second snapshot is committed while the first is retried.
    committed.send(run.commit(2, &[(0, row![2, "new"], 1)])).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    committed.send(run.commit(3, &[(0, row![3, "new"], 1)])).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    cluster.broker_up(-1).unwrap();
    assert_eq!(rows(3, 60), 3);
    // An error of EndTxn leaves the outcome of the commit unknown; an error of TxnOffsetCommit refuses its epoch.
    let failures = [Answer::RD_KAFKA_RESP_ERR__TRANSPORT; 3];
    cluster.request_errors(rdkafka::types::RDKafkaApiKey::EndTxn, &failures);
    committed.send(run.commit(4, &[(0, row![4, "new"], 1)])).unwrap();
    let refused = [Answer::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART; 40];
    assert_eq!(rows(4, 60), 4);
    cluster.request_errors(rdkafka::types::RDKafkaApiKey::TxnOffsetCommit, &refused);
    committed.send(run.commit(5, &[(0, row![5, "new"], 1)])).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    cluster.clear_request_errors(rdkafka::types::RDKafkaApiKey::TxnOffsetCommit);
    committed.send(run.commit(6, &[(0, row![6, "new"], 1)])).unwrap();
    assert_eq!(rows(6, 60), 6);
    drop(committed);
    thread.join().unwrap().unwrap();
    run.end();
}
