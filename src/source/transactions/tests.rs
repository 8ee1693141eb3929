//! A keeper of one feed, with a thread and channels, without a broker.

use std::thread::JoinHandle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::gate::{Gate, Reads};
use super::keeper::{Group, keep};
use super::line::{Line, line};
use super::marker::decoder;
use crate::decode::{Decoded, Decoder, Payloads, Transaction};
use crate::definition::{FeedKind, Format};
use crate::registry::Registries;
use crate::source::batch::{BatchBuilder, BatchLimits, Record, nothing};
use crate::source::outlet::{Ended, Hand};
use crate::source::tests::{dataflow, input};
use crate::source::{Delivery, Outlet, Position};

const WAIT: Duration = Duration::from_millis(500);

/// A keeper of one feed, whose worker takes when it is asked to.
struct Kept {
    hand: Hand,
    line: Line,
    markers: Decoder,
    taken: Receiver<Delivery>,
    stop: Option<Sender<std::convert::Infallible>>,
    keeper: JoinHandle<Result<(), Ended>>,
}

impl Kept {
    fn start() -> Self {
        let path = std::path::PathBuf::new();
        let dataflow = dataflow(vec![input("i", vec![("f", FeedKind::Log { path }, Format::Json)])]);
        let (sender, taken) = bounded(1);
        let outlet = Outlet {
            sender,
            wake: Arc::new(|| {}),
        };
        let (stop, stopped) = bounded(0);
        let hand = Hand {
            dataflow,
            input: 0,
            feed: 0,
            outlets: Arc::new([outlet]),
            stop: stopped,
            gauges: Arc::default(),
            line: None,
            limits: BatchLimits { rows: 100, bytes: 1000 },
            share: Default::default(),
        };
        let reads = Reads {
            prefix: "shop".into(),
            topic: Box::new(|topic| ["shop.orders", "shop.lines"].contains(&topic)),
        };
        let group = Group {
            gate: Gate::new(reads, WAIT, 1000),
            topic: "shop.transaction".into(),
            readers: 1,
            gauges: vec![(hand.gauges.clone(), 1)],
            together: Arc::default(),
            open: Arc::new(|| Some(7)),
        };
        let (line, end) = line();
        let keeper = hand.clone();
        let keeper = std::thread::spawn(move || keep(keeper, group, end));
        for partition in ["shop.orders-0", "shop.lines-0", "shop.transaction-0"] {
            line.announce(&hand, &partition.into()).expect("it listens");
        }
        line.found(&hand).expect("it listens");
        Kept {
            markers: decoder(hand.feed(), &Registries::new(None)).expect("JSON needs nothing"),
            hand,
            line,
            taken,
            stop: Some(stop),
            keeper,
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
        };
        self.line.keep(&self.hand, delivery).expect("it listens");
    }

    /// A partition's only record at this offset: the transaction's event of this number.
    fn event(&self, partition: &str, offset: u64, id: &str, total_order: u64) {
        let mut decoded = nothing(self.hand.input(), None);
        decoded.raw = raw(offset, "{}");
        decoded.transactions = vec![Transaction {
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
        for partition in ["shop.orders-0", "shop.lines-0", "shop.transaction-0"] {
            self.line.at_end(&self.hand, &partition.into()).expect("it listens");
        }
    }

    /// Partition and records of the next delivery.
    fn take(&self) -> (String, usize) {
        let delivery = self.taken.recv_timeout(Duration::from_secs(20)).expect("it comes");
        assert_eq!(delivery.epoch, Some(7));
        (delivery.partition.to_string(), delivery.decoded.raw.len())
    }

    fn stop(mut self) {
        drop(self.stop.take());
        let ended = self.keeper.join().expect("it does not panic");
        assert!(matches!(ended, Err(Ended::Stopped)), "{ended:?}");
    }
}

fn raw(offset: u64, value: &str) -> crate::decode::Raw {
    let mut batch = BatchBuilder::new(BatchLimits { rows: 100, bytes: 1000 });
    batch.push(Record {
        offset,
        value: Some(value.as_bytes()),
        ..Record::default()
    });
    let raw = batch.take(None);
    assert!(matches!(raw.payloads, Payloads::Records { .. }));
    raw
}

/// Workers took a release of 165,000 rows for longer than the wait. What the next transaction lacked was in readers' hands
/// all the while, and it was given up: its partitions had been read to their ends, when they were heard last.
#[test]
fn time_in_which_workers_take_a_release_is_no_part_of_a_wait() {
    let mut kept = Kept::start();
    for n in 0..4 {
        kept.event("shop.orders-0", n, "T1", n + 1);
    }
    kept.end(0, "T1", 4, 0);
    // The keeper hands T1 over, which nobody takes; this is heard with its END, or later.
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
    assert_eq!(kept.hand.gauges.last_error(), None, "nothing was given up");
    // What lacks events though everything is heard, is.
    kept.event("shop.orders-0", 5, "T3", 1);
    kept.end(2, "T3", 1, 1);
    kept.at_end();
    assert_eq!(kept.take(), ("shop.orders-0".into(), 1));
    assert_eq!(kept.take(), ("shop.transaction-0".into(), 0));
    assert!(kept.hand.gauges.last_error().is_some_and(|text| text.contains("T3")));
    kept.stop();
}
