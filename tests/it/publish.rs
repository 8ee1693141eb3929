//! Tests tables that are published to topics: a consumer of committed records sees each snapshot's changes once, in
//! spite of restarts. Needs a broker, like [`crate::kafka`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use reqwest::Method;

use crate::commands::{alluvium, exits, text};
use crate::kafka::{Broker, service};
use crate::lake::ask;
use crate::runs;
use crate::support::{Folder, Running, catch_up, catch_up_later, chain, run_all};

/// A topic's committed records: the key, and the value or none.
pub fn consume(broker: &Broker, topic: &str, partitions: i32) -> Vec<(String, Option<String>)> {
    let records = consume_all(broker, topic, partitions).into_iter();
    records.map(|(key, value, _)| (key.expect("a key"), value)).collect()
}

type Headers = BTreeMap<String, String>;

/// A topic's committed records, with headers.
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

/// The newest value of each key.
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
    // Further changes are published live, over several snapshots.
    let running = Running::start(dataflow.clone(), 2);
    for id in 3..40 {
        append(&order(id, "new"));
        std::thread::sleep(Duration::from_millis(7));
    }
    append(&(order(1, "paid") + "{\"key\": 2, \"value\": null}\n"));
    running.wait_until(|| consume(&broker, &orders, 2).len() >= 41);
    running.stop();
    // The next run has no changes; the run after that also publishes another table.
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

/// Sends a request to a registry, which must succeed.
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

/// One dataflow publishes a topic as Avro, and another reads it: both tables must be equal, whatever their columns
/// are.
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

    // The same table is published under a subject that already has another schema.
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

const ORDERS: &str = "key = [\"id\"]\n[columns]\nid = { type = \"BIGINT\", nullable = false }\nstate = \"VARCHAR\"\n\
    [[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n";

/// The settings `[kafka]` of a table.
fn to(address: &str, topic: &str) -> String {
    format!("[kafka]\nbrokers = \"{address}\"\ntopic = \"{topic}\"\n")
}

/// Waits until brokers have refused two further attempts of a run to publish. The second one begins after the call.
fn wait_for_refusals(running: &runs::Running) {
    let refused = |output: &str| output.matches("snapshots wait for their topics").count();
    let before = refused(&running.output());
    running.wait_until(|output| refused(output) >= before + 2);
}

fn until_caught_up() -> alluvium::run::Options {
    alluvium::run::Options {
        until_caught_up: true,
        ..Default::default()
    }
}

/// A table that did not change fell behind the snapshots of the others, until the snapshot in its topic could not be
/// read any more: then no run could start.
#[test]
fn a_quiet_table_does_not_fall_behind_what_the_lake_remembers() {
    let Some(broker) = Broker::connect("publish_quiet") else {
        return;
    };
    let (orders, quiet) = (broker.topic("orders", 1, &[]), broker.topic("quiet", 1, &[]));
    let name = broker.name("flow");
    let folder = Folder::new(
        &name,
        &[
            ("inputs/orders.toml", ORDERS),
            ("silver/orders.sql", "SELECT id, state FROM orders"),
            (
                "silver/orders.toml",
                &format!("key = [\"id\"]\n{}", to(&broker.address, &orders)),
            ),
            ("gold/firsts.sql", "SELECT id, state FROM silver.orders WHERE id < 2"),
            (
                "gold/firsts.toml",
                &format!("key = [\"id\"]\n{}", to(&broker.address, &quiet)),
            ),
        ],
    );
    folder.append("dataflow.toml", "history = \"5s\"\n");
    let append = |text: &str| folder.append("live/0.ndjson", text);
    append(&order(1, "new"));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let oldest = || {
        let entries = std::fs::read_dir(folder.lake("lake").join("_alluvium/ledger")).expect("a ledger");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let number = |name: std::ffi::OsString| name.to_string_lossy().trim_end_matches(".json").parse::<u64>().ok();
        entries.filter_map(|entry| number(name(entry))).min()
    };
    let running = Running::start(dataflow.clone(), 1);
    let mut last = 1;
    // This waits until the ledger has forgotten the snapshot in which the quiet table changed last.
    running.wait_until(|| {
        for _ in 0..10 {
            last += 1;
            append(&order(last, "new"));
            std::thread::sleep(Duration::from_millis(8));
        }
        oldest().is_some_and(|oldest| oldest > 20)
    });
    running.stop();
    append(&order(last + 1, "new"));
    // At that time, every snapshot but the newest is older than `history`.
    catch_up_later(&dataflow, 1, Duration::from_secs(6));
    assert_eq!(consume(&broker, &quiet, 1).len(), 1);
    let records = consume(&broker, &orders, 1);
    assert_eq!(records.len() as u32, last + 1, "each change once");
    let group = format!("alluvium-{name}-snapshots");
    let committed = |topic: &str| broker.committed(&group, topic, 0).expect("an epoch");
    assert_eq!(committed(&orders), committed(&quiet));
}

/// A transaction that brokers refuse is begun anew. A record that is too large delays the records after it only until
/// its topic accepts it.
#[test]
fn records_that_are_too_large_are_told_and_letters_go_without_their_values() {
    let Some(broker) = Broker::connect("publish_large") else {
        return;
    };
    let (orders, dead) = (broker.topic("orders", 1, &[]), broker.topic("dead", 1, &[]));
    let folder = Folder::new(
        &broker.name("flow"),
        &[
            ("inputs/orders.toml", ORDERS),
            ("silver/orders.sql", "SELECT id, state FROM orders"),
            (
                "silver/orders.toml",
                &format!("key = [\"id\"]\n{}", to(&broker.address, &orders)),
            ),
        ],
    );
    folder.append(
        "dataflow.toml",
        &format!("[dead_letters]\nbrokers = \"{}\"\ntopic = \"{dead}\"\n", broker.address),
    );
    let append = |text: &str| folder.append("live/0.ndjson", text);
    let large = "x".repeat(2_000_000);
    append(&order(1, "new"));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let running = runs::Running::alluvium(&folder, &["-w", "1", "--lake", "lakes/lake"]);
    append(&format!("{{\"key\": 2, \"value\": {{\"id\": \"{large}\"}}}}\n"));
    append("{\"key\": 2, \"value\": {\"id\": \"two\"}}\n");
    running.wait_until(|_| consume_all(&broker, &dead, 1).len() == 2);
    append(&order(3, "new"));
    running.wait_until(|_| consume(&broker, &orders, 1).len() == 2);
    let letters = consume_all(&broker, &dead, 1);
    let cut: Vec<_> = letters.iter().filter(|(_, value, _)| value.is_none()).collect();
    let [(_, _, headers)] = &cut[..] else {
        panic!("one is cut")
    };
    let size = |name: &str| headers.get(name).and_then(|size| size.parse::<usize>().ok());
    assert!(
        size("alluvium.truncated").is_some_and(|size| size > 2_000_000),
        "{headers:?}"
    );
    assert_eq!(headers.get("alluvium.feed").map(String::as_str), Some("live"));
    // A row cannot be shortened, so its topic must accept it.
    let in_lake = |rows: &str| ask(&dataflow, "SELECT COUNT(*) FROM silver.orders") == rows;
    append(&(order(4, &large) + &order(5, "new")));
    running.wait_until(|_| in_lake("4"));
    append(&order(6, "new"));
    running.wait_until(|_| in_lake("5"));
    wait_for_refusals(&running);
    assert_eq!(consume(&broker, &orders, 1).len(), 2, "nothing without it");
    broker.set(&orders, "max.message.bytes", "5000000");
    running.wait_until(|_| consume(&broker, &orders, 1).len() >= 5);
    running.stop();
    catch_up(&dataflow, 1);
    let keys: Vec<String> = consume(&broker, &orders, 1).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    assert_eq!(keys.len(), 5, "each once: {keys:?}");
}

/// Brokers end a transaction that takes longer than announced, as if another run had begun one: that ended this run,
/// at each start. The message must give the remedy.
#[test]
fn a_table_that_takes_longer_than_a_transaction_is_told_the_remedy() {
    let Some(broker) = Broker::connect("publish_slow") else {
        return;
    };
    let orders = broker.topic("orders", 1, &[]);
    let folder = Folder::new(
        &broker.name("flow"),
        &[
            ("inputs/orders.toml", ORDERS),
            ("silver/orders.sql", "SELECT id, state FROM orders"),
        ],
    );
    let rows: String = (0..150_000).map(|id| order(id, "new")).collect();
    folder.append("live/0.ndjson", &rows);
    // There is one record per request; brokers check only every ten seconds which transactions take too long.
    let slow = "options = { \"transaction.timeout.ms\" = \"2000\", \"batch.num.messages\" = \"1\", \
        \"max.in.flight.requests.per.connection\" = \"1\", \"linger.ms\" = \"0\" }\n";
    let output = to(&broker.address, &orders);
    folder.write("silver/orders.toml", &format!("key = [\"id\"]\n{output}{slow}"));
    let run = || alluvium(&["run", ".", "--until-caught-up"], folder.path());
    let ended = run();
    // The lake has the snapshot, and a later run publishes it.
    exits(&ended, 0);
    let last = text(&ended);
    let last = last.lines().rfind(|line| line.contains("not published yet"));
    assert!(
        last.is_some_and(|last| last.contains("transaction.timeout.ms")),
        "{}",
        text(&ended)
    );
    assert_eq!(consume(&broker, &orders, 1).len(), 0);
    folder.write("silver/orders.toml", &format!("key = [\"id\"]\n{output}"));
    let ended = run();
    exits(&ended, 0);
    assert!(!text(&ended).contains("not published yet"), "{}", text(&ended));
    assert_eq!(consume(&broker, &orders, 1).len(), 150_000);
}

/// Two names of one cluster would be two producers with one id, of which each ends the other.
#[test]
fn brokers_that_turn_out_to_be_one_cluster_are_told() {
    let Some(broker) = Broker::connect("publish_spelled") else {
        return;
    };
    let (orders, states) = (broker.topic("orders", 1, &[]), broker.topic("states", 1, &[]));
    let spelled = match broker.address.contains("127.0.0.1") {
        true => broker.address.replace("127.0.0.1", "localhost"),
        false => broker.address.replace("localhost", "127.0.0.1"),
    };
    assert_ne!(spelled, broker.address);
    let states_to = |address: &str| format!("key = [\"state\"]\n{}", to(address, &states));
    let folder = Folder::new(
        &broker.name("flow"),
        &[
            ("inputs/orders.toml", ORDERS),
            ("silver/orders.sql", "SELECT id, state FROM orders"),
            (
                "silver/orders.toml",
                &format!("key = [\"id\"]\n{}", to(&broker.address, &orders)),
            ),
            (
                "gold/states.sql",
                "SELECT state, COUNT(*) AS n FROM silver.orders GROUP BY state",
            ),
            ("gold/states.toml", &states_to(&spelled)),
        ],
    );
    folder.append("live/0.ndjson", &order(1, "new"));
    let ended = run_all(&folder.load("lake"), 1.into(), &until_caught_up()).remove(0);
    let text = chain(&ended.expect_err("they are one cluster"));
    assert!(
        text.contains(&spelled) && text.contains(&broker.address) && text.contains("one cluster"),
        "{text}"
    );
    folder.write("gold/states.toml", &states_to(&broker.address));
    catch_up(&folder.load("lake"), 1);
    assert_eq!(consume(&broker, &orders, 1).len(), 1);
    assert_eq!(consume(&broker, &states, 1).len(), 1);
}

/// Keys that an edit filtered out stayed in the topic if the same edit changed the type of a column; a new column that
/// must not be null stopped every start.
#[test]
fn a_table_that_is_rebuilt_says_which_of_its_keys_are_gone() {
    let Some(broker) = Broker::connect("publish_rebuilt") else {
        return;
    };
    let (orders, states) = (broker.topic("orders", 1, &[]), broker.topic("states", 1, &[]));
    let folder = Folder::new(
        &broker.name("flow"),
        &[
            ("inputs/orders.toml", ORDERS),
            ("silver/orders.sql", "SELECT id, state FROM orders"),
            (
                "silver/orders.toml",
                &format!("key = [\"id\"]\n{}", to(&broker.address, &orders)),
            ),
            (
                "gold/states.sql",
                "SELECT state, MIN(id) AS first FROM silver.orders GROUP BY state",
            ),
            (
                "gold/states.toml",
                &format!("key = [\"state\"]\n{}", to(&broker.address, &states)),
            ),
        ],
    );
    folder.append("live/0.ndjson", &(order(1, "10") + &order(2, "20") + &order(3, "10")));
    catch_up(&folder.load("lake"), 2);
    folder.write(
        "silver/orders.sql",
        "SELECT id, CAST(state AS DECIMAL(12,2)) AS state FROM orders WHERE id <> 2",
    );
    folder.write(
        "gold/states.sql",
        "SELECT CAST(state AS VARCHAR) AS state, MIN(id) AS first, COUNT(*) AS n FROM silver.orders GROUP BY state",
    );
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    folder.append("live/0.ndjson", &order(4, "40"));
    catch_up(&dataflow, 2);
    let records = consume(&broker, &orders, 1);
    let found: Vec<&str> = table(&records).into_keys().collect();
    assert_eq!(found, ["{\"id\":1}", "{\"id\":3}", "{\"id\":4}"], "{records:?}");
    assert!(records.contains(&("{\"id\":2}".to_string(), None)), "{records:?}");
    let rows = ask(&dataflow, "SELECT state, n FROM gold.states ORDER BY state");
    let expected: BTreeMap<String, String> = rows
        .lines()
        .map(|row| row.split_once(',').expect("two columns"))
        .map(|(state, n)| (state.to_string(), n.to_string()))
        .collect();
    let records = consume(&broker, &states, 1);
    let found: BTreeMap<String, String> = table(&records)
        .into_iter()
        .map(|(key, value)| {
            let value: serde_json::Value = serde_json::from_str(value).expect("a row");
            let key: serde_json::Value = serde_json::from_str(key).expect("a key");
            (
                key["state"].as_str().expect("a text").to_string(),
                value["n"].to_string(),
            )
        })
        .collect();
    assert_eq!(found, expected, "{records:?}");
}

/// A compacted topic refuses a letter without a key: it waits until the topic has another policy.
#[test]
fn a_letter_without_a_key_waits_for_a_topic_that_takes_it() {
    let Some(broker) = Broker::connect("publish_keyless") else {
        return;
    };
    let dead = broker.topic("dead", 1, &[("cleanup.policy", "compact")]);
    let folder = Folder::new(
        &broker.name("flow"),
        &[
            ("inputs/orders.toml", ORDERS),
            ("silver/orders.sql", "SELECT id, state FROM orders"),
        ],
    );
    folder.append(
        "dataflow.toml",
        &format!("[dead_letters]\nbrokers = \"{}\"\ntopic = \"{dead}\"\n", broker.address),
    );
    folder.append("live/0.ndjson", "{\"value\": {\"id\": \"two\"}}\n");
    let dataflow = folder.load("lake");
    let running = runs::Running::alluvium(&folder, &["-w", "1", "--lake", "lakes/lake"]);
    wait_for_refusals(&running);
    assert_eq!(consume_all(&broker, &dead, 1).len(), 0);
    broker.set(&dead, "cleanup.policy", "delete");
    running.wait_until(|_| !consume_all(&broker, &dead, 1).is_empty());
    running.stop();
    catch_up(&dataflow, 1);
    let letters = consume_all(&broker, &dead, 1);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0].0, letters[0].1.as_deref()),
        (&None, Some("{\"id\": \"two\"}"))
    );
}
