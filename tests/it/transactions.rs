//! Source transactions over several topics and partitions: every snapshot holds each of them wholly or not at all, however
//! late a part of one comes. Needs a broker, like [`crate::kafka`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::definition::Dataflow;
use alluvium::serve::verify;
use alluvium::serve::{OutputFormat, Reader};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::kafka::Broker;
use crate::lake::assert_newest_is_exact;
use crate::support::{Folder, Running, Size, catch_up, chain};

/// A source of orders and their lines, written as Debezium writes them.
struct Shop {
    producer: BaseProducer,
    orders: String,
    lines: String,
    markers: String,
    next: u64,
}

/// A change in a transaction: the topic, the partition, the envelope without its transaction.
struct Change {
    topic: String,
    partition: i32,
    envelope: String,
}

impl Shop {
    fn open(broker: &Broker) -> Shop {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &broker.address)
            .set("linger.ms", "0")
            .create();
        Shop {
            producer: producer.expect("a producer"),
            orders: broker.topic("shop.public.orders", 2, &[]),
            lines: broker.topic("shop.public.lines", 2, &[]),
            markers: broker.topic("shop.transaction", 1, &[]),
            next: 1,
        }
    }

    fn put(&self, topic: &str, partition: i32, value: &str) {
        loop {
            let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(partition).payload(value);
            match self.producer.send(record) {
                Ok(()) => break,
                Err(_) => drop(self.producer.poll(Duration::from_millis(5))), // full
            }
        }
    }

    fn flush(&self) {
        self.producer
            .flush(Duration::from_secs(60))
            .expect("the broker takes records");
    }

    /// An order of so many lines, whose total is that of its lines.
    fn order(&self, id: u64, amounts: &[u64]) -> Vec<Change> {
        let total: u64 = amounts.iter().sum();
        let mut changes = vec![Change {
            topic: self.orders.clone(),
            partition: (id % 2) as i32,
            envelope: format!("\"op\":\"c\",\"after\":{{\"id\":{id},\"total\":{total}}}"),
        }];
        changes.extend(amounts.iter().enumerate().map(|(n, amount)| Change {
            topic: self.lines.clone(),
            partition: ((id + n as u64) % 2) as i32,
            envelope: format!("\"op\":\"c\",\"after\":{{\"order_id\":{id},\"n\":{n},\"amount\":{amount}}}"),
        }));
        changes
    }

    /// Sends the changes of a transaction in an order of the test's choice, and its BEGIN and END.
    fn send(&mut self, changes: Vec<Change>, end: bool, mut pause: impl FnMut(&BaseProducer)) {
        let id = self.next;
        self.next += 1;
        let begin = format!("{{\"status\":\"BEGIN\",\"id\":\"{id}:1\",\"ts_ms\":{}}}", now());
        self.put(&self.markers, 0, &begin);
        let count = |topic: &str| changes.iter().filter(|change| change.topic == topic).count();
        let (orders, lines) = (count(&self.orders), count(&self.lines));
        let end = end.then(|| {
            format!(
                "{{\"status\":\"END\",\"id\":\"{id}:{}\",\"event_count\":{},\"ts_ms\":{},\"data_collections\":[\
                 {{\"data_collection\":\"public.orders\",\"event_count\":{orders}}},\
                 {{\"data_collection\":\"public.lines\",\"event_count\":{lines}}},\
                 {{\"data_collection\":\"public.unread\",\"event_count\":3}}]}}",
                changes.len() + 2,
                orders + lines + 3,
                now()
            )
        });
        for (n, change) in changes.iter().enumerate() {
            let value = format!(
                "{{{},\"source\":{{\"connector\":\"postgresql\",\"schema\":\"public\",\"ts_ms\":{}}},\
                 \"transaction\":{{\"id\":\"{id}:{}\",\"total_order\":{},\"data_collection_order\":1}}}}",
                change.envelope,
                now(),
                n + 2, // where it is in the source's log
                n + 1
            );
            self.put(&change.topic, change.partition, &value);
            pause(&self.producer);
        }
        if let Some(end) = end {
            self.put(&self.markers, 0, &end);
        }
    }
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as u64
}

fn folder(broker: &Broker, shop: &Shop, transactions: &str) -> Folder {
    let input = |key: &str, columns: &str, topic: &str| {
        format!(
            "key = [{key}]\n[columns]\n{columns}\n[[feeds]]\nname = \"live\"\nkind = \"kafka\"\nbrokers = \"{}\"\n\
             topics = [\"{topic}\"]\nformat = \"debezium-json\"\n{transactions}\n",
            broker.address
        )
    };
    Folder::new(
        "transactions",
        &[
            (
                "inputs/orders.toml",
                &input(
                    "\"id\"",
                    "id = { type = \"BIGINT\", nullable = false }\ntotal = \"BIGINT\"",
                    &shop.orders,
                ),
            ),
            (
                "inputs/lines.toml",
                &input(
                    "\"order_id\", \"n\"",
                    "order_id = { type = \"BIGINT\", nullable = false }\nn = { type = \"BIGINT\", nullable = false }\n\
                     amount = \"BIGINT\"",
                    &shop.lines,
                ),
            ),
            ("silver/orders.sql", "SELECT id, total FROM orders"),
            ("silver/lines.sql", "SELECT order_id, n, amount FROM lines"),
            (
                "gold/totals.sql",
                "SELECT order_id, SUM(amount) AS total FROM silver.lines GROUP BY order_id",
            ),
        ],
    )
}

fn whole(shop: &Shop, wait: &str) -> String {
    format!("transactions = {{ topic = \"{}\", wait = \"{wait}\" }}", shop.markers)
}

fn ask_at(dataflow: &Dataflow, epoch: u64, sql: &str) -> Vec<String> {
    let rows = Reader::open(dataflow, Some(epoch)).and_then(|reader| reader.print(sql, OutputFormat::Csv));
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {}", chain(&e)));
    rows.lines().skip(1).map(str::to_string).collect()
}

/// Orders of which a snapshot holds a part, over all snapshots; and how many snapshots there are.
fn halves(dataflow: &Dataflow) -> (Vec<String>, usize) {
    let epochs = verify::snapshots(dataflow).unwrap_or_else(|e| panic!("no snapshots: {}", chain(&e)));
    let mut halves = Vec::new();
    for epoch in &epochs {
        let sql = "SELECT COALESCE(o.id, t.order_id) AS id, o.total, t.total AS lines FROM silver.orders AS o \
                   FULL JOIN gold.totals AS t ON t.order_id = o.id WHERE o.total IS DISTINCT FROM t.total";
        let half = ask_at(dataflow, *epoch, sql);
        halves.extend(half.into_iter().map(|half| format!("{epoch}: {half}")));
    }
    (halves, epochs.len())
}

/// Sends orders for a while; parts of each come late, and the transactions' ends before or after them.
fn load(shop: &mut Shop, orders: std::ops::Range<u64>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for id in orders {
        let amounts: Vec<u64> = (0..random.random_range(1..5))
            .map(|_| random.random_range(1..100))
            .collect();
        let changes = shop.order(id, &amounts);
        let mut pauses = StdRng::seed_from_u64(seed ^ id << 8);
        shop.send(changes, true, |producer| {
            if pauses.random_bool(0.2) {
                producer.poll(Duration::ZERO);
                std::thread::sleep(Duration::from_millis(pauses.random_range(1..12)));
            }
        });
    }
    shop.flush();
}

fn count(dataflow: &Dataflow, table: &str) -> u64 {
    let rows = Reader::open(dataflow, None)
        .and_then(|reader| reader.print(&format!("SELECT COUNT(*) FROM {table}"), OutputFormat::Csv));
    // No snapshot yet.
    rows.ok()
        .and_then(|text| text.lines().nth(1)?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn no_snapshot_holds_half_of_a_transaction_and_without_the_setting_some_do() {
    let Some(broker) = Broker::connect("whole") else { return };
    let mut shop = Shop::open(&broker);
    let kept = folder(&broker, &shop, &whole(&shop, "60s"));
    let free = folder(&broker, &shop, "");
    let (whole, parted) = (kept.load("lake"), free.load("lake"));
    let sizes = [Size::from(2), Size::from((2, 1)), Size::from(1)];
    for (n, size) in sizes.into_iter().enumerate() {
        // A restart each, also with another number of processes: what waited is read again.
        let running = Running::start(whole.clone(), size);
        let beside = Running::start(parted.clone(), 1);
        let (from, to) = (n as u64 * 150, (n as u64 + 1) * 150);
        load(&mut shop, from..to, n as u64);
        if n == 1 {
            running.wait_until(|| count(&whole, "silver.orders") == to);
        }
        running.stop();
        beside.stop();
    }
    for dataflow in [&whole, &parted] {
        catch_up(dataflow, 2);
        assert_eq!(count(dataflow, "silver.orders"), 450);
        assert_newest_is_exact(dataflow, "the newest snapshot");
    }
    let (half, snapshots) = halves(&whole);
    assert!(
        half.is_empty() && snapshots > 20,
        "{snapshots} snapshots, of which:\n{}",
        half.join("\n")
    );
    let (half, snapshots) = halves(&parted);
    assert!(
        !half.is_empty(),
        "nothing was parted in {snapshots} snapshots: the load does not show anything"
    );
}

#[test]
fn a_transaction_larger_than_what_may_wait_is_whole_too() {
    let Some(broker) = Broker::connect("large") else { return };
    let mut shop = Shop::open(&broker);
    let folder = folder(&broker, &shop, &whole(&shop, "60s"));
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 2);
    load(&mut shop, 0..20, 7);
    let many: Vec<u64> = (0..150_000).map(|n| n % 7).collect();
    let changes = shop.order(20, &many);
    shop.send(changes, true, |_| {});
    load(&mut shop, 21..40, 8);
    running.wait_until(|| count(&dataflow, "silver.orders") == 40);
    running.stop();
    assert_eq!(count(&dataflow, "silver.lines") > 150_000, true);
    let (half, snapshots) = halves(&dataflow);
    assert!(
        half.is_empty() && snapshots > 2,
        "{snapshots} snapshots, of which:\n{}",
        half.join("\n")
    );
}

#[test]
fn a_transaction_that_lacks_events_is_given_up_after_the_wait() {
    let Some(broker) = Broker::connect("lacking") else {
        return;
    };
    let mut shop = Shop::open(&broker);
    let folder = folder(&broker, &shop, &whole(&shop, "2s"));
    let dataflow: Arc<Dataflow> = folder.load("lake");
    let running = Running::start(dataflow.clone(), 2);
    load(&mut shop, 0..5, 9);
    running.wait_until(|| count(&dataflow, "silver.orders") == 5);
    // One line never comes; then one whose END never does.
    let mut lacking = shop.order(5, &[1, 2]);
    lacking.pop();
    shop.send(lacking, false, |_| {});
    shop.flush();
    let end = format!(
        "{{\"status\":\"END\",\"id\":\"{}:1\",\"event_count\":3,\"ts_ms\":{},\"data_collections\":[\
         {{\"data_collection\":\"public.orders\",\"event_count\":1}},{{\"data_collection\":\"public.lines\",\"event_count\":2}}]}}",
        shop.next - 1,
        now()
    );
    let sent = Instant::now();
    shop.put(&shop.markers, 0, &end);
    let after = shop.order(6, &[4]);
    shop.send(after, true, |_| {});
    shop.flush();
    running.wait_until(|| count(&dataflow, "silver.orders") == 7);
    let waited = sent.elapsed();
    assert!(waited >= Duration::from_secs(2), "it was given up after {waited:?}");
    let open = shop.order(7, &[5]);
    shop.send(open, false, |_| {});
    shop.flush();
    running.wait_until(|| count(&dataflow, "silver.orders") == 8);
    running.stop();
    let (half, _) = halves(&dataflow);
    assert!(half.iter().all(|half| half.contains(": 5,")), "{half:?}");
}
