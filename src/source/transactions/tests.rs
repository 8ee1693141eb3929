//! A coordinator of one feed, with a real thread and channels but without a broker.

use std::thread::JoinHandle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::coordinator::{SourceFeeds, run};
use super::handle::{CoordinatorHandle, coordinator_channel};
use super::marker::decoder;
use super::queue::{EndObservation, QueueLimits, SourceTopics, TransactionQueue};
use super::together::{EPOCH_ROWS, OpenEpoch, OpenEpochDeliveries};
use crate::decode::{Decoded, Decoder, Payloads, RecordTransaction};
use crate::definition::{FeedKind, Format, LogFeed};
use crate::registry::Registries;
use crate::repr::Position;
use crate::source::batch::{BatchBuilder, BatchLimits, SourceRecord, nothing};
use crate::source::error::ReaderExit;
use crate::source::feed_handle::{FeedHandle, Waiter};
use crate::source::tests::{dataflow, input};
use crate::source::{Delivery, SourceError, WorkerChannel};

const WAIT: Duration = Duration::from_millis(500);
const PARTITIONS: [&str; 3] = ["shop.orders-0", "shop.lines-0", "shop.transaction-0"];

/// A coordinator of one feed, whose worker takes deliveries when the test asks it to.
struct CoordinatorTest {
    handle: FeedHandle,
    to_coordinator: CoordinatorHandle,
    markers: Decoder,
    taken: Receiver<Delivery>,
    together: Arc<OpenEpochDeliveries>,
    stop: Option<Sender<std::convert::Infallible>>,
    coordinator: JoinHandle<Result<(), ReaderExit>>,
}

impl CoordinatorTest {
    fn start() -> Self {
        let limits = QueueLimits {
            records: 1000,
            bytes: 1 << 20,
            markers: 1000,
            release: 1000,
        };
        CoordinatorTest::with_limits(limits, false, Arc::new(|| Some(7)))
    }

    fn with_limits(limits: QueueLimits, stop_at_end: bool, open: OpenEpoch) -> Self {
        let path = std::path::PathBuf::new();
        let dataflow = dataflow(vec![input(
            "i",
            vec![(
                "f",
                FeedKind::Log(LogFeed {
                    path,
                    rules: Default::default(),
                }),
                Format::Json,
            )],
        )]);
        let (together, taken) = bounded(1);
        let channel = WorkerChannel {
            sender: bounded(0).0,
            together,
            wake: Arc::new(|| {}),
        };
        let (stop, stopped) = bounded(0);
        let mut handle = FeedHandle {
            dataflow,
            input: 0,
            feed: 0,
            channels: Arc::new([channel]),
            stop: stopped,
            gauges: Arc::default(),
            coordinator: None,
            limits: BatchLimits {
                rows: 100,
                bytes: 1000,
                record: 1000,
            },
            patience: Duration::ZERO,
            room: crate::source::in_flight::InFlightBudget::of_limit(None),
            share: Default::default(),
        };
        let reads = SourceTopics {
            prefix: "shop".into(),
            feeds: vec![Box::new(|topic| ["shop.orders", "shop.lines"].contains(&topic))],
        };
        let together: Arc<OpenEpochDeliveries> = Arc::default();
        let group = SourceFeeds {
            queue: TransactionQueue::new(reads, WAIT, limits),
            topic: "shop.transaction".into(),
            feeds: vec![(0, 0)],
            readers: 1,
            gauges: vec![(handle.gauges.clone(), 1)],
            stop_at_end,
            together: together.clone(),
            open,
        };
        let (to_coordinator, end) = coordinator_channel();
        let coordinator = handle.clone();
        let coordinator = std::thread::spawn(move || run(coordinator, group, end));
        for partition in PARTITIONS {
            to_coordinator.announce(&handle, &partition.into()).expect("it listens");
        }
        to_coordinator.partitions_found(&handle).expect("it listens");
        handle.coordinator = Some(to_coordinator.clone());
        CoordinatorTest {
            markers: decoder(handle.feed(), &Registries::new(None)).expect("JSON needs nothing"),
            handle,
            to_coordinator,
            taken,
            together,
            stop: Some(stop),
            coordinator,
        }
    }

    fn keep(&self, partition: &str, decoded: Decoded) {
        let delivery = Delivery {
            input: 0,
            feed: 0,
            partition: partition.into(),
            position: Position::at(decoded.raw.offsets.last().map_or(0, |last| last + 1)),
            decoded,
            arrived: Instant::now(),
            epoch: None,
            room: None,
        };
        self.to_coordinator.keep(&self.handle, delivery).expect("it listens");
    }

    /// Delivers a partition's only record at this offset: the transaction's event with this number.
    fn event(&self, partition: &str, offset: u64, id: &str, total_order: u64) {
        let mut decoded = nothing(self.handle.input(), None);
        decoded.raw = raw(offset, "{}");
        decoded.transactions = vec![RecordTransaction {
            record: 0,
            id: id.into(),
            total_order,
            collection: "".into(),
            collection_order: 0,
        }];
        self.keep(partition, decoded);
    }

    fn end(&mut self, offset: u64, id: &str, orders: u64, lines: u64) {
        let of = |table, events| format!(r#"{{"data_collection": "{table}", "event_count": {events}}}"#);
        let tables = format!("{}, {}", of("orders", orders), of("lines", lines));
        let text = format!(r#"{{"status": "END", "id": "{id}", "data_collections": [{tables}]}}"#);
        let decoded = self.markers.decode(raw(offset, &text)).expect("it is JSON");
        self.keep("shop.transaction-0", decoded);
    }

    fn at_end(&self) {
        for partition in PARTITIONS {
            self.to_coordinator
                .at_end(&self.handle, &partition.into())
                .expect("it listens");
        }
    }

    /// Waits until the coordinator asks for ends, and answers for some partitions that they have nothing more.
    fn answer(&self, partitions: &[&str], before: Option<Instant>) -> Instant {
        let start = Instant::now();
        let asked = loop {
            match self.to_coordinator.asked().filter(|asked| Some(*asked) > before) {
                Some(asked) => break asked,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
            assert!(start.elapsed() < Duration::from_secs(20), "it does not ask");
        };
        for partition in partitions {
            let (end, read) = (100, true);
            let look = EndObservation { asked, end, read };
            self.to_coordinator
                .observe_end(&self.handle, &(*partition).into(), look)
                .expect("it listens");
        }
        asked
    }

    /// The partition of the next delivery, and its number of records.
    fn take(&self) -> (String, usize) {
        let delivery = self.taken.recv_timeout(Duration::from_secs(20)).expect("it comes");
        assert_eq!(delivery.epoch, Some(7));
        (delivery.partition.to_string(), delivery.decoded.raw.len())
    }

    fn stop(mut self) {
        drop(self.stop.take());
        let ended = self.coordinator.join().expect("it does not panic");
        assert!(matches!(ended, Err(ReaderExit::Stopped)), "{ended:?}");
    }
}

fn raw(offset: u64, value: &str) -> crate::decode::Raw {
    let mut batch = BatchBuilder::new(BatchLimits {
        rows: 100,
        bytes: 1000,
        record: 1000,
    });
    batch.push(SourceRecord {
        offset,
        value: Some(value.as_bytes()),
        ..SourceRecord::default()
    });
    let raw = batch.finish(None);
    assert!(matches!(raw.payloads, Payloads::Records { .. }));
    raw
}

/// Workers took longer than the wait for a release of 165,000 rows. Meanwhile readers held what the next transaction
/// lacked, but it was given up, because its partitions had been read to their ends as of the readers' last messages.
#[test]
fn time_in_which_workers_take_a_release_is_no_part_of_a_wait() {
    let mut kept = CoordinatorTest::start();
    for n in 0..4 {
        kept.event("shop.orders-0", n, "T1", n + 1);
    }
    kept.end(0, "T1", 4, 0);
    // The coordinator hands T1 over, which nobody takes; it receives the following with T1's END, or later.
    kept.event("shop.orders-0", 4, "T2", 1);
    kept.end(1, "T2", 1, 1);
    kept.at_end();
    std::thread::sleep(WAIT * 3);
    for _ in 0..4 {
        assert_eq!(kept.take(), ("shop.orders-0".into(), 1));
    }
    assert_eq!(kept.take(), ("shop.transaction-0".into(), 0));
    std::thread::sleep(WAIT / 5);
    assert!(kept.taken.is_empty(), "T2 lacks a line, and waits");
    kept.event("shop.lines-0", 0, "T2", 2);
    let whole: Vec<(String, usize)> = (0..3).map(|_| kept.take()).collect();
    assert_eq!(
        whole,
        [("shop.orders-0", 1), ("shop.lines-0", 1), ("shop.transaction-0", 0)].map(|(p, n)| (p.to_string(), n))
    );
    assert_eq!(kept.handle.gauges.last_error(), None, "nothing was given up");
    // A transaction that lacks events although all messages were received is given up.
    kept.event("shop.orders-0", 5, "T3", 1);
    kept.end(2, "T3", 1, 1);
    kept.at_end();
    kept.answer(&PARTITIONS, None);
    assert_eq!(kept.take(), ("shop.orders-0".into(), 1));
    assert_eq!(kept.take(), ("shop.transaction-0".into(), 0));
    assert!(kept.handle.gauges.last_error().is_some_and(|text| text.contains("T3")));
    kept.stop();
}

/// Lines were read to their end once, then a record came whose schema was unavailable: its reader held it for longer
/// than the wait. Its transaction was given up, and released without it.
#[test]
fn what_a_reader_cannot_say_is_waited_for() {
    let mut kept = CoordinatorTest::start();
    kept.at_end();
    kept.event("shop.orders-0", 0, "T1", 1);
    kept.end(0, "T1", 1, 1);
    let asked = kept.answer(&["shop.orders-0", "shop.transaction-0"], None);
    let again = kept.answer(&["shop.orders-0", "shop.transaction-0"], Some(asked));
    assert!(
        again - asked >= Duration::from_millis(400),
        "it does not ask all the time"
    );
    std::thread::sleep(WAIT);
    assert!(kept.taken.is_empty());
    kept.event("shop.lines-0", 0, "T1", 2);
    let whole: Vec<(String, usize)> = (0..3).map(|_| kept.take()).collect();
    assert_eq!(whole[..2], [("shop.orders-0".into(), 1), ("shop.lines-0".into(), 1)]);
    assert_eq!(kept.handle.gauges.last_error(), None, "nothing was given up");
    kept.stop();
}

/// A catch-up read the whole transaction topic into memory, because markers had no limit, and nothing had one before
/// every reader had found its partitions.
#[test]
fn markers_beyond_what_may_wait_are_not_read_on() {
    let mut kept = CoordinatorTest::start();
    let place = |partition: &str| -> Arc<str> { partition.into() };
    let mut ends = 0;
    while !kept.to_coordinator.is_full(&kept.handle, &place("shop.transaction-0")) {
        kept.end(ends, &format!("T{ends}"), 1, 1);
        ends += 1;
        assert!(ends < 1200, "it is never full");
    }
    assert!(ends >= 1000);
    // Lines arrive slowly, orders not at all.
    kept.event("shop.lines-0", 0, "T0", 2);
    assert!(kept.taken.is_empty());
    kept.event("shop.orders-0", 0, "T0", 1);
    for _ in 0..3 {
        kept.take();
    }
    kept.stop();
}

/// While one transaction is streamed, the backlogs of other partitions are bounded, too.
#[test]
fn a_partition_fills_up_while_a_transaction_of_another_goes_on_as_it_comes() {
    let limits = QueueLimits {
        records: 10,
        bytes: 1 << 20,
        markers: 1000,
        release: 1000,
    };
    let mut kept = CoordinatorTest::with_limits(limits, false, Arc::new(|| Some(7)));
    kept.end(0, "T1", 1000, 0);
    for n in 0..12 {
        kept.event("shop.orders-0", n, "T1", n + 1);
    }
    for _ in 0..12 {
        assert_eq!(kept.take(), ("shop.orders-0".into(), 1));
    }
    let lines: Arc<str> = "shop.lines-0".into();
    for n in 0..10 {
        assert!(!kept.to_coordinator.is_full(&kept.handle, &lines), "{n}");
        kept.event("shop.lines-0", n, "T2", n + 1);
    }
    let start = Instant::now();
    while !kept.to_coordinator.is_full(&kept.handle, &lines) {
        assert!(start.elapsed() < Duration::from_secs(20), "it is never full");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!kept.to_coordinator.is_full(&kept.handle, &"shop.orders-0".into()));
    drop(kept.stop.take());
    let ended = kept.coordinator.join().expect("it does not panic");
    assert!(
        matches!(ended, Err(ReaderExit::Failed(SourceError::TransactionCut { .. }))),
        "{ended:?}"
    );
}

/// Workers were slower than readers: one delivery was always on its way, and no epoch could close for as long as a
/// catch-up took.
#[test]
fn an_epoch_is_given_its_rows_and_then_the_next_is_waited_for() {
    let epoch = Arc::new(AtomicU64::new(7));
    let open: OpenEpoch = {
        let epoch = epoch.clone();
        Arc::new(move || Some(epoch.load(Ordering::Acquire)))
    };
    let limits = QueueLimits {
        records: 1 << 20,
        bytes: 1 << 30,
        markers: 1000,
        release: 1000,
    };
    let kept = CoordinatorTest::with_limits(limits, false, open);
    const BATCH: usize = 4096;
    let batches = 3 * EPOCH_ROWS as usize / BATCH;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..batches {
                let mut batch = BatchBuilder::new(BatchLimits {
                    rows: BATCH,
                    bytes: 1 << 20,
                    record: 1 << 20,
                });
                for record in 0..BATCH {
                    batch.push(SourceRecord {
                        offset: (n * BATCH + record) as u64,
                        value: Some(b"{}"),
                        ..SourceRecord::default()
                    });
                }
                let mut decoded = nothing(kept.handle.input(), None);
                decoded.raw = batch.finish(None);
                decoded.source_ms = vec![None; BATCH];
                kept.keep("shop.orders-0", decoded);
            }
        });
        let mut given = BTreeMap::new();
        let mut left = batches * BATCH;
        while left > 0 {
            // The worker is so slow that something is waiting here whenever possible.
            let start = Instant::now();
            while kept.taken.is_empty() {
                // Epochs are opened as the conductor does it.
                kept.together.unless_waiting(|| epoch.fetch_add(1, Ordering::AcqRel));
                assert!(start.elapsed() < Duration::from_secs(20), "no epoch opens: {given:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(3));
            let delivery = kept.taken.recv().expect("it is there");
            left -= delivery.decoded.raw.len();
            *given.entry(delivery.epoch).or_default() += delivery.decoded.raw.len();
            kept.together.end_one();
        }
        assert!(given.len() >= 3, "{given:?}");
        // A release that was begun is handed over completely, and is at most one batch more.
        let most = EPOCH_ROWS as usize + BATCH;
        assert!(given.values().all(|records: &usize| *records <= most), "{given:?}");
    });
    kept.stop();
}

/// A run until all is caught up ended before the wait, without the transaction, and so did every later one.
#[test]
fn a_run_that_ends_waits_for_what_has_an_end_and_names_what_has_none() {
    let limits = QueueLimits {
        records: 1000,
        bytes: 1 << 20,
        markers: 1000,
        release: 1000,
    };
    let mut kept = CoordinatorTest::with_limits(limits, true, Arc::new(|| Some(7)));
    kept.event("shop.orders-0", 0, "T1", 1);
    kept.end(0, "T1", 1, 1);
    kept.at_end();
    std::thread::sleep(WAIT * 3 / 4);
    // This transaction is too young to be given up with the other.
    kept.event("shop.orders-0", 1, "T2", 1);
    kept.at_end();
    assert!(!kept.handle.gauges.exhausted() && !kept.coordinator.is_finished());
    kept.answer(&PARTITIONS, None);
    assert_eq!(kept.take(), ("shop.orders-0".into(), 1));
    assert_eq!(kept.take(), ("shop.transaction-0".into(), 0));
    let ended = kept.coordinator.join().expect("it does not panic");
    assert!(matches!(ended, Ok(())), "{ended:?}");
    assert!(kept.handle.gauges.exhausted() && kept.taken.is_empty());
    let error = kept.handle.gauges.last_error().expect("it is named");
    assert!(error.contains("T2 (shop.orders 1, without an END)"), "{error}");
}

/// The partitions of a source that never pauses are never at their ends all at once.
#[test]
fn a_run_that_ends_owes_what_was_there_when_it_began() {
    let limits = QueueLimits {
        records: 1000,
        bytes: 1 << 20,
        markers: 1000,
        release: 1000,
    };
    let mut kept = CoordinatorTest::with_limits(limits, true, Arc::new(|| Some(7)));
    let caught = |kept: &CoordinatorTest, partition: &str| {
        kept.to_coordinator
            .caught(&kept.handle, &partition.into())
            .expect("it listens");
    };
    kept.end(0, "T1", 1, 1);
    caught(&kept, "shop.transaction-0");
    kept.end(1, "T2", 1, 1);
    kept.event("shop.lines-0", 0, "T1", 2);
    caught(&kept, "shop.lines-0");
    caught(&kept, "shop.orders-0");
    std::thread::sleep(WAIT / 5);
    assert!(!kept.handle.gauges.exhausted(), "T1 was there, and is not whole");
    kept.event("shop.orders-0", 0, "T1", 1);
    (0..3).for_each(|_| drop(kept.take()));
    let ended = kept.coordinator.join().expect("it does not panic");
    assert!(matches!(ended, Ok(())) && kept.handle.gauges.exhausted(), "{ended:?}");
}

/// A partition that lacked records ended the run; now that it waits instead, its transactions never become complete.
#[test]
fn a_run_that_ends_leaves_what_waits_for_a_feed_that_cannot_be_read() {
    let limits = QueueLimits {
        records: 1000,
        bytes: 1 << 20,
        markers: 1000,
        release: 1000,
    };
    let kept = CoordinatorTest::with_limits(limits, true, Arc::new(|| Some(7)));
    kept.event("shop.orders-0", 0, "T1", 1);
    let cause = "partition shop.lines-0 was read up to offset 5, but its topic begins at 9".to_string();
    kept.handle
        .gauges
        .set_waits_for(Waiter::Reader(0), Some((cause, Instant::now())));
    let ended = kept.coordinator.join().expect("it does not panic");
    assert!(matches!(ended, Ok(())), "{ended:?}");
    assert!(kept.handle.gauges.exhausted() && kept.taken.is_empty());
}
