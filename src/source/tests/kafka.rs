//! Reads from librdkafka's own mock cluster: real sockets and the real protocol, without a server. What the mock
//! lacks (transactions, retention) is tested against Kafka itself in `tests/it`.

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::*;
use crate::definition::{ClientOptions, Kafka, KafkaClient, KafkaStart};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(topics: &[(&str, i32)]) -> Cluster {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).expect("a topic");
    }
    cluster
}

fn client(brokers: String) -> KafkaClient {
    KafkaClient {
        brokers,
        options: ClientOptions::default(),
    }
}

fn kafka(cluster: &Cluster, topics: &[&str]) -> Kafka {
    Kafka {
        client: client(cluster.bootstrap_servers()),
        topics: topics.iter().map(|topic| topic.to_string()).collect(),
        start: KafkaStart::Earliest,
        on_missing: OnMissing::Stop,
        group: None,
        transactions: None,
    }
}

fn flow(kafka: Kafka) -> Arc<Dataflow> {
    dataflow(vec![input("i", vec![("f", FeedKind::Kafka(kafka), Format::Json)])])
}

fn quick() -> ReaderOptions {
    ReaderOptions {
        topics_poll: Duration::from_millis(50),
        ..options()
    }
}

struct Writer(BaseProducer);

impl Writer {
    fn of(cluster: &Cluster) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "0")
            .create();
        Writer(producer.expect("a producer"))
    }

    fn send(&self, topic: &str, partition: i32, values: &[&str]) {
        for value in values {
            let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(partition).payload(value);
            self.0
                .send(record)
                .map_err(|(error, _)| error)
                .expect("room in the queue");
        }
        self.flush();
    }

    fn flush(&self) {
        self.0.flush(Duration::from_secs(20)).expect("the cluster answers");
    }
}

/// Takes deliveries until there are this many records.
fn until(run: &Run, records: usize) -> BTreeMap<String, PartitionArrivals> {
    let start = Instant::now();
    let mut came = BTreeMap::new();
    while came
        .values()
        .map(|c: &PartitionArrivals| c.records.len())
        .sum::<usize>()
        < records
    {
        for delivery in run.deliveries.iter().flat_map(|d| d.try_iter()) {
            take(&mut came, delivery);
        }
        if let Some(failure) = run.readers.failure() {
            panic!("{failure}");
        }
        let statuses = run.readers.statuses();
        assert!(start.elapsed() < Duration::from_secs(60), "{came:?} {statuses:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    came
}

/// Blank values were silently skipped.
#[test]
fn values_without_text_are_told_once_a_partition() {
    let cluster = cluster(&[("orders", 1)]);
    Writer::of(&cluster).send("orders", 0, &["{}", "", " ", "{}"]);
    let run = run(
        &flow(kafka(&cluster, &["orders"])),
        &FeedPositions::new(),
        1,
        100,
        quick(),
    );
    until(&run, 4);
    let message = run.within_a_while("it is told", |run| run.readers.statuses()[0].last_error.clone());
    assert!(
        message.contains("partition orders-0 has values that are empty"),
        "{message}"
    );
    assert!(message.contains("the first at offset 1"), "{message}");
    run.readers.stop().unwrap();
}

#[test]
fn records_come_with_keys_headers_and_times_and_tombstones_have_no_value() {
    let cluster = cluster(&[("orders", 1)]);
    let writer = Writer::of(&cluster);
    let headers = OwnedHeaders::new().insert(Header {
        key: "trace",
        value: Some("00-1"),
    });
    let record = BaseRecord::to("orders")
        .key("k")
        .payload("{\"a\":1}")
        .timestamp(77)
        .headers(headers);
    writer.0.send(record).map_err(|(error, _)| error).expect("room");
    let tombstone: BaseRecord<'_, str, str> = BaseRecord::to("orders").key("k").timestamp(78);
    writer.0.send(tombstone).map_err(|(error, _)| error).expect("room");
    writer.flush();
    let run = run(
        &flow(kafka(&cluster, &["orders"])),
        &FeedPositions::new(),
        1,
        100,
        quick(),
    );
    // The partition's start comes first, then its records, in one delivery or two.
    let first = run.next();
    assert_eq!(
        (&*first.partition, first.position.next, first.decoded.raw.len()),
        ("orders-0", 0, 0)
    );
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let delivery = run.next();
        let Payloads::Records {
            values,
            keys: Some(keys),
            headers,
            ts_ms,
        } = &delivery.decoded.raw.payloads
        else {
            panic!("{:?}", delivery.decoded.raw)
        };
        for (n, value) in values.iter().enumerate() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = headers.as_ref().and_then(|headers| headers.iter().nth(n).flatten());
            seen.push((
                delivery.decoded.raw.offsets[n],
                text(keys.value(n)),
                value.map(text),
                headers.map(str::to_string),
                ts_ms[n],
            ));
        }
    }
    let key = || "k".to_string();
    let whole = (
        0,
        key(),
        Some("{\"a\":1}".into()),
        Some("{\"trace\":\"00-1\"}".into()),
        Some(77),
    );
    assert_eq!(seen, [whole, (1, key(), None, None, Some(78))]);
    run.readers.stop().expect("nothing failed");
}

#[test]
fn partitions_and_topics_are_found_while_running_and_read_from_their_first_record() {
    let cluster = cluster(&[("shop.orders", 2), ("other", 1)]);
    let writer = Writer::of(&cluster);
    writer.send("shop.orders", 1, &["old"]);
    writer.send("other", 0, &["not ours"]);
    let latest = Kafka {
        start: KafkaStart::Latest,
        ..kafka(&cluster, &["^shop\\."])
    };
    let run = run(&flow(latest), &FeedPositions::new(), 2, 100, quick());
    assert!(run.drain().values().all(|came| came.records.is_empty()));
    cluster.create_topic("shop.lines", 1, 1).expect("a topic");
    writer.send("shop.lines", 0, &["first of a new topic"]);
    writer.send("shop.orders", 1, &["new"]);
    let came = until(&run, 2);
    assert_eq!(records(&came["shop.lines-0"]), ["first of a new topic"]);
    assert_eq!(came["shop.orders-1"].records, [(1, "new".to_string())]);
    run.readers.stop().expect("nothing failed");
}

#[test]
fn a_restart_goes_on_at_its_offsets_whatever_start_says() {
    let cluster = cluster(&[("orders", 2)]);
    let writer = Writer::of(&cluster);
    writer.send("orders", 0, &["0", "1", "2"]);
    writer.send("orders", 1, &["a"]);
    let latest = flow(Kafka {
        start: KafkaStart::Latest,
        ..kafka(&cluster, &["orders"])
    });
    let position = Position {
        next: 1,
        ..Position::default()
    };
    let resume = progress("orders-0", &position);
    let run = run(&latest, &resume, 1, 100, quick());
    // A partition that the snapshot does not know is new: it is read from its first record.
    let came = until(&run, 3);
    assert_eq!(records(&came["orders-0"]), ["1", "2"]);
    assert_eq!(records(&came["orders-1"]), ["a"]);
    assert_eq!(came["orders-0"].position.as_ref().map(|p| p.next), Some(3));
    run.readers.stop().expect("nothing failed");
}

#[test]
fn a_feed_starts_at_a_time_or_at_offsets() {
    let cluster = cluster(&[("orders", 2)]);
    let writer = Writer::of(&cluster);
    for (value, at) in [("0", 1_000), ("1", 2_000), ("2", 3_000)] {
        let record: BaseRecord<'_, (), str> = BaseRecord::to("orders").partition(0).payload(value).timestamp(at);
        writer.0.send(record).map_err(|(error, _)| error).expect("room");
        writer.flush();
    }
    writer.send("orders", 1, &["a"]);
    let offsets = BTreeMap::from([("orders-0".to_string(), 1)]);
    let started = Kafka {
        start: KafkaStart::Offsets(offsets),
        ..kafka(&cluster, &["orders"])
    };
    let run = run(&flow(started), &FeedPositions::new(), 1, 100, quick());
    let came = until(&run, 3);
    assert_eq!(records(&came["orders-0"]), ["1", "2"]);
    assert_eq!(records(&came["orders-1"]), ["a"]);
    run.readers.stop().expect("nothing failed");
}

#[test]
fn a_topic_that_ends_before_what_was_read_is_another_topic() {
    let cluster = cluster(&[("orders", 1)]);
    Writer::of(&cluster).send("orders", 0, &["0"]);
    let position = Position {
        next: 5,
        ..Position::default()
    };
    let resume = progress("orders-0", &position);
    let run = run(&flow(kafka(&cluster, &["orders"])), &resume, 1, 100, quick());
    let cause = run.waits_for();
    let said = "partition orders-0 was read up to offset 5, but its topic ends at 1";
    assert!(cause.contains(said) && cause.contains("restore it"), "{cause}");
    run.readers.stop().expect("nothing failed");
}

/// If one partition of a topic lacked records, the run ended, and so did every later one.
#[test]
fn a_partition_that_lacks_records_waits_while_the_others_are_read() {
    let cluster = cluster(&[("orders", 2)]);
    let writer = Writer::of(&cluster);
    writer.send("orders", 0, &["0"]);
    writer.send("orders", 1, &["1"]);
    let position = Position {
        next: 5,
        ..Position::default()
    };
    let options = ReaderOptions {
        stop_at_end: true,
        ..quick()
    };
    let resume = progress("orders-1", &position);
    let run = run(&flow(kafka(&cluster, &["orders"])), &resume, 1, 100, options);
    let came = run.drain();
    assert_eq!(records(&came["orders-0"]), ["0"]);
    assert!(!came.contains_key("orders-1"), "{came:?}");
    assert!(run.waits_for().contains("orders-1"));
    run.readers.stop().expect("nothing failed");
}

#[test]
fn brokers_that_go_away_are_waited_for() {
    let cluster = cluster(&[("orders", 1)]);
    let writer = Writer::of(&cluster);
    writer.send("orders", 0, &["before"]);
    let run = run(
        &flow(kafka(&cluster, &["orders"])),
        &FeedPositions::new(),
        1,
        100,
        quick(),
    );
    assert_eq!(records(&until(&run, 1)["orders-0"]), ["before"]);
    cluster.broker_down(-1).expect("the mock's brokers go down");
    let start = Instant::now();
    while run.readers.statuses()[0].last_error.is_none() {
        assert!(start.elapsed() < Duration::from_secs(30), "nobody noticed");
        std::thread::sleep(Duration::from_millis(10));
    }
    cluster.broker_up(-1).expect("the mock's brokers come up");
    writer.send("orders", 0, &["after"]);
    assert_eq!(records(&until(&run, 1)["orders-0"]), ["after"]);
    run.readers.stop().expect("nothing failed");
}

/// If a dataflow's broker was unreachable at the start, its other feeds were not read either.
#[test]
fn brokers_that_never_answer_are_named_and_the_feed_waits() {
    let nobody = Kafka {
        client: client("127.0.0.1:1".into()),
        topics: vec!["orders".into()],
        start: KafkaStart::Earliest,
        on_missing: OnMissing::Stop,
        group: None,
        transactions: None,
    };
    let options = ReaderOptions { retries: 0, ..quick() };
    let run = run(&flow(nobody), &FeedPositions::new(), 1, 100, options);
    let cause = run.waits_for();
    assert!(cause.contains("127.0.0.1:1"), "{cause}");
    run.drain();
    run.readers.stop().expect("nothing failed");
}

#[test]
fn an_option_that_librdkafka_does_not_know_is_told_before_anything_runs() {
    let cluster = cluster(&[("orders", 1)]);
    let mut wrong = kafka(&cluster, &["orders"]);
    wrong.client.options.0.insert("sasl.mechanisn".into(), "PLAIN".into());
    let Err(error) = try_run(&flow(wrong), &FeedPositions::new(), 1, 100, quick()) else {
        panic!("it started")
    };
    assert!(error.to_string().contains("sasl.mechanisn"), "{error}");
}

#[test]
fn a_full_queue_stops_reading_and_nothing_is_lost() {
    let cluster = cluster(&[("orders", 1)]);
    let writer = Writer::of(&cluster);
    let values: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
    writer.send("orders", 0, &texts);
    let run = run(
        &flow(kafka(&cluster, &["orders"])),
        &FeedPositions::new(),
        1,
        1,
        quick(),
    );
    std::thread::sleep(Duration::from_millis(500));
    // One delivery is in the queue and one waits to be sent, of four records each.
    assert!(
        run.decoded.load(Ordering::Relaxed) <= 8,
        "{}",
        run.decoded.load(Ordering::Relaxed)
    );
    assert!(!run.readers.exhausted());
    assert_eq!(records(&until(&run, 400)["orders-0"]), texts);
    let start = Instant::now();
    while !run.readers.exhausted() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            run.readers.statuses()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    run.readers.stop().expect("nothing failed");
}

/// If one partition had no leader for a while, the whole feed failed although the others answered.
#[test]
fn a_partition_without_a_leader_is_waited_for_while_the_others_are_read() {
    let cluster = cluster(&[("orders", 2)]);
    let writer = Writer::of(&cluster);
    writer.send("orders", 0, &["0"]);
    writer.send("orders", 1, &["1"]);
    cluster.partition_leader("orders", 1, None).expect("it has no leader");
    let options = ReaderOptions {
        retries: 0,
        stop_at_end: true,
        ..quick()
    };
    let run = run(
        &flow(kafka(&cluster, &["orders"])),
        &FeedPositions::new(),
        1,
        100,
        options,
    );
    assert_eq!(records(&until(&run, 1)["orders-0"]), ["0"]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!run.readers.exhausted(), "it is not caught up without it");
    cluster.partition_leader("orders", 1, Some(1)).expect("it has one");
    assert_eq!(records(&run.drain()["orders-1"]), ["1"]);
    run.readers.stop().expect("nothing failed");
}

/// If the only partition was written to all the time, its end was never reached, and a scheduled run did not end.
#[test]
fn a_run_that_ends_does_so_on_a_topic_that_is_written_to() {
    let cluster = cluster(&[("orders", 2)]);
    let writer = Writer::of(&cluster);
    writer.send("orders", 0, &["first"]);
    let options = ReaderOptions {
        stop_at_end: true,
        ..quick()
    };
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    std::thread::scope(|scope| {
        let busy = scope.spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                writer.send("orders", 0, &["more"]);
                writer.send("orders", 1, &["more"]);
            }
        });
        let run = run(
            &flow(kafka(&cluster, &["orders"])),
            &FeedPositions::new(),
            1,
            100,
            options,
        );
        let came = run.drain();
        assert_eq!(records(&came["orders-0"])[0], "first");
        // The run does not read on afterwards.
        drop(came);
        std::thread::sleep(Duration::from_millis(100));
        assert!(run.readers.exhausted() && run.drain().is_empty());
        run.readers.stop().expect("nothing failed");
        drop(stop);
        busy.join().expect("it writes");
    });
}
