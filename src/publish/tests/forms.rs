//! Tests tables whose definition changes before a snapshot is published, and letters that are too large for a topic.

use arrow::datatypes::DataType;

use super::brokers::Cluster;
use super::flow::{ID, PublishFlow, RecordColumn, RecordValue, STATE, catch_up, row, spec};
use crate::publish::PublishError;
use crate::sink::TableSpec;

const N: RecordColumn = ("n", DataType::Int64, false);
const NOTE: RecordColumn = ("note", DataType::Utf8, true);

fn orders(columns: &[RecordColumn]) -> Vec<TableSpec> {
    vec![spec("silver.orders", columns), spec("silver.customers", &[ID, STATE])]
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

fn sorted(mut records: Vec<String>) -> Vec<String> {
    records.sort();
    records
}

/// Rows of the old definition could not be published in the new one, and no restart helped.
#[test]
fn rows_of_an_earlier_definition_wait_for_those_that_replace_them() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&orders(&[ID, STATE]));
    let mut channel = flow.channel(&run, &cluster);
    channel
        .catch_up(run.commit(1, &[(0, row![1, "new"], 1), (0, row![2, "new"], 1)]))
        .unwrap();
    // The run is killed before this snapshot is published.
    run.commit(2, &[(0, row![3, "new"], 1), (1, row![7, "ann"], 1)]);
    run.end();
    let mut run = flow.run(&orders(&[ID, STATE, N]));
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(2).unwrap();
    assert_eq!(cluster.records("silver.orders").len(), 2);
    assert_eq!(
        cluster.records("silver.customers"),
        texts(&[]),
        "none without the other"
    );
    let rows = [
        (0, row![1, "new", 10], 1),
        (0, row![3, "new", 30], 1),
        (1, row![8, "bob"], 1),
    ];
    channel.catch_up(run.commit(3, &rows)).unwrap();
    assert_eq!(
        sorted(cluster.records("silver.orders").split_off(2)),
        texts(&[
            "{\"id\":1} {\"id\":1,\"state\":\"new\",\"n\":10}",
            "{\"id\":2} -",
            "{\"id\":3} {\"id\":3,\"state\":\"new\",\"n\":30}",
        ])
    );
    assert_eq!(cluster.records("silver.customers").len(), 2);
    channel.catch_up(run.commit(4, &[(0, row![1, "new", 10], -1)])).unwrap();
    assert_eq!(cluster.records("silver.orders").last().unwrap(), "{\"id\":1} -");
    run.end();
}

/// The same, if the ledger does not reach back to the snapshot that the topic has.
#[test]
fn a_topic_behind_the_ledger_takes_a_new_column() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&orders(&[ID, STATE]));
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(run.commit(1, &[(0, row![1, "new"], 1)])).unwrap();
    run.commit(2, &[(0, row![2, "new"], 1)]);
    run.end();
    flow.forget(1);
    let mut run = flow.run(&orders(&[ID, STATE, N]));
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(2).unwrap();
    channel.catch_up(run.commit(3, &[(0, row![2, "new", 20], 1)])).unwrap();
    assert_eq!(
        sorted(cluster.records("silver.orders").split_off(1)),
        texts(&["{\"id\":1} -", "{\"id\":2} {\"id\":2,\"state\":\"new\",\"n\":20}"])
    );
    run.end();
}

#[test]
fn a_column_that_may_be_null_comes_with_the_rows_that_have_it() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&orders(&[ID, STATE]));
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(run.commit(1, &[(0, row![1, "new"], 1)])).unwrap();
    run.commit(2, &[(0, row![2, "new"], 1)]);
    run.end();
    let mut run = flow.run(&orders(&[ID, STATE, NOTE]));
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(2).unwrap();
    assert_eq!(
        cluster.records("silver.orders").last().unwrap(),
        "{\"id\":2} {\"id\":2,\"state\":\"new\",\"note\":null}"
    );
    let mut changed = row![1, "new"];
    changed.push(RecordValue::Null);
    channel
        .catch_up(run.commit(3, &[(0, changed, -1), (0, row![1, "new", "first"], 1)]))
        .unwrap();
    assert_eq!(cluster.records("silver.orders").len(), 3);
    run.end();
}

/// If all rows are replaced, the change data feed does not say which keys went: keys that the same edit filtered out
/// stayed in the topic.
#[test]
fn keys_that_go_while_a_column_changes_its_type_are_told() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&orders(&[ID, STATE]));
    let mut channel = flow.channel(&run, &cluster);
    let rows = [(0, row![1, "10"], 1), (0, row![2, "20"], 1), (0, row![3, "30"], 1)];
    channel.catch_up(run.commit(1, &rows)).unwrap();
    run.end();
    let number: RecordColumn = ("state", DataType::Int64, true);
    let mut run = flow.run(&orders(&[ID, number]));
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(1).unwrap();
    channel
        .catch_up(run.commit(2, &[(0, row![1, 10], 1), (0, row![3, 30], 1)]))
        .unwrap();
    channel.catch_up(run.commit(3, &[(0, row![4, 40], 1)])).unwrap();
    assert_eq!(
        sorted(cluster.records("silver.orders").split_off(3)),
        texts(&[
            "{\"id\":1} {\"id\":1,\"state\":10}",
            "{\"id\":2} -",
            "{\"id\":3} {\"id\":3,\"state\":30}",
            "{\"id\":4} {\"id\":4,\"state\":40}",
        ])
    );
    run.end();
}

/// If the key has a new type, nobody can tell which of the old keys are gone.
#[test]
fn a_key_of_another_type_is_told() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&orders(&[ID, STATE]));
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(run.commit(1, &[(0, row![1, "new"], 1)])).unwrap();
    run.end();
    let text: RecordColumn = ("id", DataType::Utf8, false);
    let mut run = flow.run(&orders(&[text, STATE]));
    let mut channel = flow.channel(&run, &cluster);
    let error = channel.catch_up(run.commit(2, &[(0, row!["1", "new"], 1)]));
    let error = error.expect_err("its key has another type");
    assert!(
        !error.may_pass() && error.to_string().contains("name another topic"),
        "{error}"
    );
    run.end();
}

/// A letter is larger than the original record, which its topic just accepted.
#[test]
fn a_letter_that_is_too_large_goes_without_its_value() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&[crate::sink::dead_letters::spec()]);
    let mut channel = flow.channel(&run, &cluster);
    cluster.state().largest = Some(300);
    let letter = |payload: &'static str| {
        let mut cells = row!["record", "orders"];
        cells.push(RecordValue::Null);
        cells.extend(row![
            "live",
            "0",
            5,
            "not a number",
            payload,
            1,
            "k",
            "{\"trace\":\"00-1\"}"
        ]);
        cells
    };
    let large: &'static str = Box::leak("x".repeat(1000).into_boxed_str());
    let epoch = run.commit(1, &[(0, letter("small"), 1), (0, letter(large), 1)]);
    let error = channel.catch_up(epoch).expect_err("it is too large");
    assert!(error.may_pass(), "{error}");
    catch_up(&mut channel, epoch, 1).unwrap();
    let records = cluster.state().records.clone();
    let of = |name: &str, record: usize| {
        let headers = records[record].headers.iter();
        let value = headers
            .rev()
            .find(|(header, _)| header == name)
            .and_then(|(_, value)| value.clone());
        value.map(|value| String::from_utf8(value).unwrap())
    };
    assert_eq!(records.len(), 2);
    let (small, cut) = match records[0].value {
        Some(_) => (0, 1),
        None => (1, 0),
    };
    assert_eq!(records[small].value.as_deref(), Some(&b"small"[..]));
    assert_eq!(
        (of("alluvium.truncated", small), of("alluvium.truncated", cut)),
        (None, Some("1000".into()))
    );
    assert_eq!(
        (records[cut].value.clone(), records[cut].key.as_deref()),
        (None, Some(&b"k"[..]))
    );
    assert_eq!(
        (of("alluvium.offset", cut), of("trace", cut)),
        (Some("5".into()), Some("00-1".into()))
    );
    run.end();
}

/// A row that is too large is reported with its table and key, and waits: the topic's limit can be raised while the
/// run goes on.
#[test]
fn a_row_that_is_too_large_waits_until_its_topic_takes_it() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&orders(&[ID, STATE]));
    let mut channel = flow.channel(&run, &cluster);
    cluster.state().largest = Some(30);
    let epoch = run.commit(1, &[(0, row![1, "a state of more than thirty bytes"], 1)]);
    let error = channel.catch_up(epoch).expect_err("it is too large");
    assert!(matches!(error, PublishError::Produce(_)) && error.may_pass(), "{error}");
    assert!(
        error.to_string().contains("silver.orders") && error.to_string().contains("max.message.bytes"),
        "{error}"
    );
    cluster.state().largest = None;
    channel.catch_up(epoch).unwrap();
    assert_eq!(cluster.records("silver.orders").len(), 1);
    run.end();
}
