//! Tests source transactions over several topics and partitions: every snapshot must hold each transaction completely
//! or not at all, however late a part of it comes. Needs a broker, like [`crate::kafka`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::definition::Dataflow;
use alluvium::serve::verify;
use alluvium::serve::{LakeReader, PrintFormat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::kafka::Broker;
use crate::lake::{ask, assert_newest_is_exact};
use crate::runs;
use crate::support::{Folder, Running, Size, catch_up, chain, unread};

/// A source of orders and their lines, with records as Debezium writes them.
struct Shop {
    producer: BaseProducer,
    orders: String,
    lines: String,
    markers: String,
    next: u64,
}

/// A change in a transaction: topic, partition, and the envelope without its transaction block.
struct Change {
    topic: String,
    partition: i32,
    envelope: String,
    /// Whether a tombstone follows, which is Debezium's default after a deletion.
    tombstone: bool,
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
        self.put_record(topic, partition, Some(value));
    }

    /// Sends a record; no value makes a tombstone.
    fn put_record(&self, topic: &str, partition: i32, value: Option<&str>) {
        loop {
            let mut record: BaseRecord<'_, str, str> = BaseRecord::to(topic).partition(partition).key("k");
            record.payload = value;
            match self.producer.send(record) {
                Ok(()) => break,
                Err(_) => {
                    self.producer.poll(Duration::from_millis(5)); // full
                }
            }
        }
    }

    fn flush(&self) {
        self.producer
            .flush(Duration::from_secs(60))
            .expect("the broker takes records");
    }

    /// An order with one line for each amount; its total is the sum of its lines.
    fn order(&self, id: u64, amounts: &[u64]) -> Vec<Change> {
        let total: u64 = amounts.iter().sum();
        let mut changes = vec![Change {
            topic: self.orders.clone(),
            partition: (id % 2) as i32,
            envelope: format!("\"op\":\"c\",\"after\":{{\"id\":{id},\"total\":{total}}}"),
            tombstone: false,
        }];
        changes.extend(amounts.iter().enumerate().map(|(n, amount)| Change {
            topic: self.lines.clone(),
            partition: ((id + n as u64) % 2) as i32,
            envelope: format!("\"op\":\"c\",\"after\":{{\"order_id\":{id},\"n\":{n},\"amount\":{amount}}}"),
            tombstone: false,
        }));
        changes
    }

    /// The deletion of such an order, with its lines.
    fn delete(&self, id: u64, amounts: &[u64]) -> Vec<Change> {
        let mut changes = self.order(id, amounts);
        for change in &mut changes {
            change.envelope = change
                .envelope
                .replace("\"op\":\"c\",\"after\"", "\"op\":\"d\",\"before\"");
            change.tombstone = true;
        }
        changes
    }

    /// An END marker that counts this many orders and lines.
    fn end_of(&self, id: u64, orders: usize, lines: usize) -> String {
        let events = orders + lines;
        format!(
            "{{\"status\":\"END\",\"id\":\"{id}:{}\",\"event_count\":{},\"ts_ms\":{},\"data_collections\":[\
             {{\"data_collection\":\"public.orders\",\"event_count\":{orders}}},\
             {{\"data_collection\":\"public.lines\",\"event_count\":{lines}}},\
             {{\"data_collection\":\"public.unread\",\"event_count\":3}}]}}",
            events + 2,
            events + 3,
            now()
        )
    }

    /// Sends the changes of a transaction in the given order, with its BEGIN and END.
    fn send(&mut self, changes: Vec<Change>, end: bool, mut pause: impl FnMut(&BaseProducer)) {
        let id = self.next;
        self.next += 1;
        let begin = format!("{{\"status\":\"BEGIN\",\"id\":\"{id}:1\",\"ts_ms\":{}}}", now());
        self.put(&self.markers, 0, &begin);
        let count = |topic: &str| changes.iter().filter(|change| change.topic == topic).count();
        let (orders, lines) = (count(&self.orders), count(&self.lines));
        let end = end.then(|| self.end_of(id, orders, lines));
        for (n, change) in changes.iter().enumerate() {
            let value = format!(
                "{{{},\"source\":{{\"connector\":\"postgresql\",\"schema\":\"public\",\"ts_ms\":{}}},\
                 \"transaction\":{{\"id\":\"{id}:{}\",\"total_order\":{},\"data_collection_order\":1}}}}",
                change.envelope,
                now(),
                n + 2, // The position in the source's log.
                n + 1
            );
            self.put(&change.topic, change.partition, &value);
            if change.tombstone {
                self.put_record(&change.topic, change.partition, None);
            }
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

/// The definition of an input with this key and these columns, and its feed.
fn input(broker: &Broker, key: &str, columns: &str, topic: &str, transactions: &str) -> String {
    format!(
        "key = [{key}]\n[columns]\n{columns}\n[[feeds]]\nname = \"live\"\nkind = \"kafka\"\nbrokers = \"{}\"\n\
         topics = [\"{topic}\"]\nformat = \"debezium-json\"\n{transactions}\n",
        broker.address
    )
}

/// The input and table of orders.
fn orders(broker: &Broker, topic: &str, transactions: &str) -> [(&'static str, String); 2] {
    let columns = "id = { type = \"BIGINT\", nullable = false }\ntotal = \"BIGINT\"";
    [
        (
            "inputs/orders.toml",
            input(broker, "\"id\"", columns, topic, transactions),
        ),
        ("silver/orders.sql", "SELECT id, total FROM orders".into()),
    ]
}

/// The input and tables of their lines.
fn lines(broker: &Broker, topic: &str, transactions: &str) -> [(&'static str, String); 3] {
    let columns = "order_id = { type = \"BIGINT\", nullable = false }\nn = { type = \"BIGINT\", nullable = false }\n\
                   amount = \"BIGINT\"";
    let totals = "SELECT order_id, SUM(amount) AS total FROM silver.lines GROUP BY order_id";
    [
        (
            "inputs/lines.toml",
            input(broker, "\"order_id\", \"n\"", columns, topic, transactions),
        ),
        ("silver/lines.sql", "SELECT order_id, n, amount FROM lines".into()),
        ("gold/totals.sql", totals.into()),
    ]
}

fn folder(broker: &Broker, shop: &Shop, transactions: &str) -> Folder {
    let folder = Folder::new("transactions", &[]);
    let files = orders(broker, &shop.orders, transactions).into_iter();
    for (path, text) in files.chain(lines(broker, &shop.lines, transactions)) {
        folder.write(path, &text);
    }
    folder
}

fn whole(shop: &Shop, wait: &str) -> String {
    format!("transactions = {{ topic = \"{}\", wait = \"{wait}\" }}", shop.markers)
}

fn ask_at(dataflow: &Dataflow, epoch: u64, sql: &str) -> Vec<String> {
    let rows = LakeReader::open(dataflow, Some(epoch)).and_then(|reader| reader.print(sql, PrintFormat::Csv));
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {}", chain(&e)));
    rows.lines().skip(1).map(str::to_string).collect()
}

/// The orders of which some snapshot holds only a part; and the number of snapshots.
fn halves(dataflow: &Dataflow) -> (Vec<String>, usize) {
    let epochs = verify::snapshots(dataflow).unwrap_or_else(|e| panic!("no snapshots: {}", chain(&e)));
    (halves_of(dataflow, &epochs), epochs.len())
}

fn halves_of(dataflow: &Dataflow, epochs: &[u64]) -> Vec<String> {
    let mut halves = Vec::new();
    for epoch in epochs {
        let sql = "SELECT COALESCE(o.id, t.order_id) AS id, o.total, t.total AS lines FROM silver.orders AS o \
                   FULL JOIN gold.totals AS t ON t.order_id = o.id WHERE o.total IS DISTINCT FROM t.total";
        let half = ask_at(dataflow, *epoch, sql);
        halves.extend(half.into_iter().map(|half| format!("{epoch}: {half}")));
    }
    halves
}

/// Sends orders for a while; parts of each come late, and the ENDs before or after them.
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
    let rows = LakeReader::open(dataflow, None)
        .and_then(|reader| reader.print(&format!("SELECT COUNT(*) FROM {table}"), PrintFormat::Csv));
    // There may be no snapshot yet.
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
        // Each size is a restart, some with another number of processes: records that waited are read again.
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

/// Waits until the workers of a run have taken a part of a transaction that is larger than what may wait, while the rest
/// of it is not there: its epoch is held open for it. All other transactions together have fewer lines.
fn wait_until_it_is_passed_on(running: &runs::Running) {
    running.wait_until(|_| running.taken("lines") > 1000);
}

/// If a transaction was larger than the bound on waiting records and the marker topic was quiet, a part of it was
/// given up while its source still sent it; so too for its deletion, whose tombstones belong to no transaction.
#[test]
fn a_transaction_larger_than_what_may_wait_is_whole_too() {
    let Some(broker) = Broker::connect("large") else { return };
    let mut shop = Shop::open(&broker);
    let folder = folder(&broker, &shop, &whole(&shop, "2s"));
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 2);
    load(&mut shop, 0..20, 7);
    let many: Vec<u64> = (0..150_000).map(|n| n % 7).collect();
    let changes = shop.order(20, &many);
    let mut sent = 0;
    shop.send(changes, true, |producer| {
        sent += 1;
        if sent > 149_980 {
            producer
                .flush(Duration::from_secs(60))
                .expect("the broker takes records");
            std::thread::sleep(Duration::from_millis(400));
        }
    });
    load(&mut shop, 21..40, 8);
    running.wait_until(|| count(&dataflow, "silver.orders") == 40);
    assert!(count(&dataflow, "silver.lines") > 150_000);
    let gone = shop.delete(20, &many);
    shop.send(gone, true, |_| {});
    load(&mut shop, 40..50, 9);
    running.wait_until(|| count(&dataflow, "silver.orders") == 49);
    running.stop();
    assert!(count(&dataflow, "silver.lines") < 1000);
    let (half, snapshots) = halves(&dataflow);
    assert!(
        half.is_empty() && snapshots > 2,
        "{snapshots} snapshots, of which:\n{}",
        half.join("\n")
    );
}

/// A run that was stopped while it passed on a large transaction as it came failed at once, although the rest was on
/// its way.
#[test]
fn a_run_that_is_stopped_amid_a_large_transaction_takes_it_to_its_end() {
    let Some(broker) = Broker::connect("stopped") else {
        return;
    };
    let mut shop = Shop::open(&broker);
    let folder = folder(&broker, &shop, &whole(&shop, "60s"));
    let dataflow = folder.load("lake");
    let running = runs::Running::alluvium(&folder, &["-w", "2", "--lake", "lakes/lake"]);
    load(&mut shop, 0..5, 17);
    running.wait_until(|_| count(&dataflow, "silver.orders") == 5);
    let many: Vec<u64> = (0..150_000).map(|n| n % 7).collect();
    let end = shop.end_of(shop.next, 1, many.len());
    shop.put(&shop.markers, 0, &end);
    let changes = shop.order(5, &many);
    let mut sent = 0;
    shop.send(changes, false, |producer| {
        sent += 1;
        if sent == 140_000 {
            producer
                .flush(Duration::from_secs(60))
                .expect("the broker takes records");
            wait_until_it_is_passed_on(&running);
            running.signal("-TERM");
            // The run knows of the signal before it makes the second of these reports.
            running.wait_for_reports(2);
            let output = running.output();
            assert!(!output.contains("no more input"), "it waits for the rest: {output}");
        }
    });
    shop.flush();
    running.wait_until(|_| count(&dataflow, "silver.orders") == 6);
    let (code, output) = running.end();
    assert_eq!(code, Some(0), "{output}");
    let (half, _) = halves(&dataflow);
    assert!(half.is_empty(), "{half:?}");
}

/// Lines are added to a lake that had only orders: their history has no ENDs after the last snapshot. Each transaction
/// waited for later lines, and went on without them. Also, the position of markers was looked up under the first feed
/// by name, which was another one by then; and a pattern that matched the marker topic read it too, past ENDs that
/// were needed.
#[test]
fn a_table_that_is_added_is_read_and_what_waited_is_whole_then() {
    let Some(broker) = Broker::connect("added") else { return };
    let mut shop = Shop::open(&broker);
    let transactions = whole(&shop, "3s");
    let folder = Folder::new("transactions", &[]);
    let pattern = format!("^{}\\\\.(public\\\\.orders|transaction)$", broker.name("shop"));
    for (path, text) in orders(&broker, &pattern, &transactions) {
        folder.write(path, &text);
    }
    load(&mut shop, 0..300, 11);
    let before = folder.load("lake");
    let mut running = Some(Running::start(before.clone(), 2));
    running
        .as_ref()
        .expect("it runs")
        .wait_until(|| count(&before, "silver.orders") == 300);
    // The run is stopped within a transaction, and lines are read from then on.
    let changes = shop.order(300, &[1, 2, 3]);
    let mut sent = 0;
    let (mut after, shop_lines) = (None, shop.lines.clone());
    shop.send(changes, true, |producer| {
        sent += 1;
        if sent == 2 {
            producer
                .flush(Duration::from_secs(60))
                .expect("the broker takes records");
            std::thread::sleep(Duration::from_millis(300));
            running.take().expect("it runs").stop();
            for (path, text) in lines(&broker, &shop_lines, &transactions) {
                folder.write(path, &text);
            }
            let added = folder.load("lake");
            running = Some(Running::start(added.clone(), 2));
            after = Some(added);
        }
    });
    let dataflow = after.expect("it was sent");
    let running = running.expect("it runs");
    shop.flush();
    running.wait_until(|| count(&dataflow, "silver.orders") == 301);
    load(&mut shop, 301..450, 12);
    running.wait_until(|| count(&dataflow, "silver.orders") == 450);
    running.stop();
    catch_up(&dataflow, 1);
    // This covers the snapshots from the first one in which all the first orders have their lines.
    let epochs = verify::snapshots(&dataflow).unwrap_or_else(|e| panic!("no snapshots: {}", chain(&e)));
    let filled = |epoch: &u64| {
        let sql = "SELECT COUNT(DISTINCT order_id) FROM silver.lines WHERE order_id < 300";
        let rows = LakeReader::open(&dataflow, Some(*epoch)).and_then(|reader| reader.print(sql, PrintFormat::Csv));
        rows.is_ok_and(|text| text.lines().nth(1) == Some("300"))
    };
    let first = epochs.iter().position(filled).expect("history is there");
    let half = halves_of(&dataflow, &epochs[first..]);
    assert!(half.is_empty(), "of {}:\n{}", epochs.len() - first, half.join("\n"));
    assert!(epochs.len() - first > 3, "{epochs:?}");
    assert_newest_is_exact(&dataflow, "the newest snapshot");
}

/// While a transaction was passed on as it came, its epoch took everything that other feeds brought: an epoch is one
/// step of the graph, and nothing of it is in files before it closes.
#[test]
fn an_epoch_that_is_held_open_takes_its_rows_of_other_feeds_and_no_more() {
    const EPOCH_ROWS: u64 = 64 * 1024;
    const BATCH: u64 = 8192;
    let Some(broker) = Broker::connect("beside") else {
        return;
    };
    let mut shop = Shop::open(&broker);
    let folder = folder(&broker, &shop, &whole(&shop, "60s"));
    folder.write(
        "inputs/visits.toml",
        "[columns]\nn = \"BIGINT\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"visits\"\nformat = \"json\"\n",
    );
    folder.write("gold/visits.sql", "SELECT COUNT(*) AS visits FROM visits");
    folder.write("visits/0.ndjson", "");
    let dataflow = folder.load("lake");
    let running = runs::Running::alluvium(&folder, &["-w", "1", "--lake", "lakes/lake"]);
    load(&mut shop, 0..5, 15);
    running.wait_until(|_| count(&dataflow, "silver.orders") == 5);
    let many: Vec<u64> = (0..140_000).map(|n| n % 7).collect();
    let end = shop.end_of(shop.next, 1, many.len());
    shop.put(&shop.markers, 0, &end);
    let changes = shop.order(5, &many);
    let mut sent = 0;
    shop.send(changes, false, |producer| {
        sent += 1;
        if sent == 139_000 {
            producer
                .flush(Duration::from_secs(60))
                .expect("the broker takes records");
            wait_until_it_is_passed_on(&running);
            let visits: String = (0..300_000).map(|n| format!("{{\"value\":{{\"n\":{n}}}}}\n")).collect();
            folder.append("visits/0.ndjson", &visits);
            // The worker takes no more visits once their feed stands still from report to report, because it would hand
            // over more if there were room.
            let (mut read, mut still) = (0, 0);
            while still < 5 {
                running.wait_for_reports(2);
                let before = std::mem::replace(&mut read, running.handed_over("visits.live"));
                still = if read > 0 && read == before { still + 1 } else { 0 };
            }
        }
    });
    load(&mut shop, 6..10, 16);
    let visits = || ask(&dataflow, "SELECT COUNT(*) FROM bronze.visits") == "300000";
    running.wait_until(|_| count(&dataflow, "silver.orders") == 10 && visits());
    running.stop();
    let (half, _) = halves(&dataflow);
    assert!(half.is_empty(), "{half:?}");
    let most = ask(
        &dataflow,
        "SELECT MAX(rows) FROM (SELECT COUNT(*) AS rows FROM bronze.visits GROUP BY epoch)",
    );
    let most: u64 = most.parse().expect("a number");
    assert!(most <= EPOCH_ROWS + BATCH, "{most} rows in one epoch");
}

#[test]
fn a_transaction_topic_of_several_partitions_is_refused() {
    let Some(broker) = Broker::connect("several") else {
        return;
    };
    let mut shop = Shop::open(&broker);
    shop.markers = broker.topic("shop.parted", 2, &[]);
    let folder = folder(&broker, &shop, &whole(&shop, "2s"));
    let text = unread(&folder.load("lake"));
    assert!(
        text.contains("shop.parted") && text.contains("has 2 partitions"),
        "{text}"
    );
}

/// The reader of markers ended as soon as it had reached the end, while the other readers went on: transactions that
/// the shop wrote meanwhile had no END for them, and were passed on in parts.
#[test]
fn a_run_that_ends_holds_no_half_while_its_source_goes_on() {
    let Some(broker) = Broker::connect("busy") else { return };
    let mut shop = Shop::open(&broker);
    let folder = folder(&broker, &shop, &whole(&shop, "1s"));
    let dataflow = folder.load("lake");
    load(&mut shop, 0..50, 13);
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let writes = std::thread::spawn(move || {
        let mut next = 50;
        while stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
            load(&mut shop, next..next + 10, next);
            next += 10;
        }
        next
    });
    // Together, these runs take longer than the wait.
    for run in 0..4 {
        let started = Instant::now();
        catch_up(&dataflow, 1 + run % 2);
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it took {:?}",
            started.elapsed()
        );
        assert!(count(&dataflow, "silver.orders") >= 50);
    }
    drop(stop);
    let orders = writes.join().expect("it writes");
    catch_up(&dataflow, 1);
    assert_eq!(count(&dataflow, "silver.orders"), orders);
    let (half, snapshots) = halves(&dataflow);
    assert!(
        half.is_empty() && snapshots > 3,
        "{snapshots} snapshots, of which:\n{}",
        half.join("\n")
    );
}

/// A run ended before the wait was over, claimed to have caught up, and left the transaction to the next run, which
/// did the same.
#[test]
fn a_run_that_ends_gives_up_what_lacks_events_and_names_a_transaction_topic_that_is_absent() {
    let Some(broker) = Broker::connect("filtered") else {
        return;
    };
    let mut shop = Shop::open(&broker);
    let dropped = broker.topic("dropped", 2, &[]);
    // A transform dropped one line, which the END still counts.
    let mut changes = shop.order(0, &[1, 2]);
    changes.last_mut().expect("a line").topic = dropped;
    let id = shop.next;
    shop.send(changes, false, |_| {});
    let end = shop.end_of(id, 1, 2);
    shop.put(&shop.markers, 0, &end);
    load(&mut shop, 1..5, 14);
    let misspelt = whole(&shop, "2s").replace("shop.transaction", "shop.transactions");
    let text = unread(&folder(&broker, &shop, &misspelt).load("lake"));
    assert!(text.contains("shop.transactions does not exist"), "{text}");
    let folder = folder(&broker, &shop, &whole(&shop, "2s"));
    let dataflow = folder.load("lake");
    let started = Instant::now();
    catch_up(&dataflow, 1);
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(count(&dataflow, "silver.orders"), 5);
    let (half, _) = halves(&dataflow);
    assert!(half.iter().all(|half| half.contains(": 0,")), "{half:?}");
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
    // One line never comes; then one transaction lacks its END.
    let mut lacking = shop.order(5, &[1, 2]);
    lacking.pop();
    shop.send(lacking, false, |_| {});
    shop.flush();
    let end = shop.end_of(shop.next - 1, 1, 2);
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
