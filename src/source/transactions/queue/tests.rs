use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_secs(30);

const UNBOUNDED: QueueLimits = QueueLimits {
    records: usize::MAX,
    bytes: usize::MAX,
    markers: usize::MAX,
    release: usize::MAX,
};

fn reads(feeds: usize) -> SourceTopics {
    let feed =
        |_| -> Box<dyn Fn(&str) -> bool + Send> { Box::new(|topic| ["shop.orders", "shop.lines"].contains(&topic)) };
    SourceTopics {
        prefix: "shop".into(),
        feeds: (0..feeds).map(feed).collect(),
    }
}

fn topic(feed: usize, name: &str) -> FeedTopic {
    FeedTopic {
        feed,
        name: name.into(),
    }
}

/// A queue in which orders are partition 0 and lines are partition 1.
fn bounded(limits: QueueLimits) -> TransactionQueue {
    let mut queue = TransactionQueue::new(reads(1), WAIT, limits);
    for (number, name) in ["shop.orders", "shop.lines"].into_iter().enumerate() {
        assert_eq!(queue.add_partition(topic(0, name)), number);
    }
    queue
}

/// A queue with this limit of records for each partition.
fn queue(records: usize) -> TransactionQueue {
    bounded(QueueLimits { records, ..UNBOUNDED })
}

fn segment(id: &str, orders: std::ops::RangeInclusive<u64>) -> Segment {
    Segment {
        id: (!id.is_empty()).then(|| id.into()),
        records: orders.clone().count(),
        bytes: 100 * orders.clone().count(),
        orders: (*orders.start(), *orders.end()),
        old: false,
    }
}

fn events(queue: &mut TransactionQueue, partition: usize, id: &str, orders: std::ops::RangeInclusive<u64>) {
    queue.observe_records(partition, [segment(id, orders)], Instant::now());
}

fn end(queue: &mut TransactionQueue, id: &str, orders: u64, lines: u64) {
    end_at(queue, id, orders, lines, Instant::now());
}

fn end_at(queue: &mut TransactionQueue, id: &str, orders: u64, lines: u64, now: Instant) {
    let tables = [
        ("orders".to_string(), orders),
        ("lines".to_string(), lines),
        ("unread".to_string(), 9),
    ];
    queue.observe_end(id, &tables, now);
}

fn look(asked: Instant, end: u64, read: bool) -> EndObservation {
    EndObservation { asked, end, read }
}

/// Reports that everything that exists at this time is read.
fn all_read(queue: &mut TransactionQueue, at: Instant) {
    (0..queue.backlogs.len()).for_each(|partition| queue.observe_look(partition, look(at, 100, true)));
    queue.observe_look_at_markers(look(at, 100, true));
}

/// The number of released records of each partition, and of markers.
fn released(queue: &mut TransactionQueue) -> Option<([usize; 2], usize)> {
    let release = queue.next_release(Instant::now())?;
    assert!(release.given_up.is_empty() && !release.continues, "{release:?}");
    let of = |partition| release.records.get(&partition).copied().unwrap_or(0);
    Some(([of(0), of(1)], release.markers))
}

#[test]
fn a_transaction_goes_on_once_its_last_event_is_here_and_so_does_what_is_of_none() {
    let mut queue = queue(100);
    events(&mut queue, 0, "", 0..=4); // a snapshot's rows
    events(&mut queue, 0, "T1", 1..=2);
    assert_eq!(released(&mut queue), Some(([5, 0], 0)));
    queue.observe_marker(); // BEGIN
    end(&mut queue, "T1", 2, 1);
    assert_eq!(released(&mut queue), Some(([0, 0], 1)), "the BEGIN");
    assert_eq!(released(&mut queue), None);
    events(&mut queue, 1, "T1", 3..=3);
    events(&mut queue, 1, "T2", 1..=1);
    assert_eq!(released(&mut queue), Some(([2, 1], 1)));
    assert!(!queue.is_empty(), "T2 has no END");
    end(&mut queue, "T2", 0, 1);
    assert_eq!(released(&mut queue), Some(([0, 1], 1)));
    assert!(queue.is_empty());
}

#[test]
fn nothing_passes_a_transaction_that_waits() {
    let mut queue = queue(100);
    end(&mut queue, "T1", 1, 0);
    end(&mut queue, "T2", 0, 1);
    events(&mut queue, 1, "T2", 1..=1);
    assert_eq!(released(&mut queue), None, "T2 is whole, and T1 was before it");
    events(&mut queue, 0, "T1", 1..=1);
    assert_eq!(released(&mut queue), Some(([1, 1], 2)));
}

#[test]
fn events_and_ends_that_come_again_wait_for_nothing() {
    let mut queue = queue(100);
    events(&mut queue, 0, "T1", 1..=3);
    end(&mut queue, "T1", 3, 0);
    assert_eq!(released(&mut queue), Some(([3, 0], 1)));
    events(&mut queue, 0, "T1", 1..=3);
    end(&mut queue, "T1", 3, 0);
    assert_eq!(
        released(&mut queue),
        Some(([3, 0], 1)),
        "what went on once waits for nothing"
    );
}

/// Debezium was killed twice in the middle of T1: its END counted four thousand of eleven thousand events, and the
/// first run had sent as many already. A snapshot held what the last run retracted.
#[test]
fn a_transaction_that_was_told_in_several_runs_is_not_judged_by_counts() {
    let mut queue = queue(100);
    queue.observe_begin("T1");
    events(&mut queue, 0, "T1", 1..=6);
    queue.observe_begin("T1");
    end(&mut queue, "T1", 3, 0);
    assert_eq!(released(&mut queue), Some(([0, 0], 2)), "the BEGINs alone");
    events(&mut queue, 0, "T1", 1..=3);
    all_read(&mut queue, Instant::now());
    assert_eq!(released(&mut queue), None, "more may be on its way");
    let later = Instant::now() + SETTLING;
    assert_eq!(queue.next_release(later), None);
    assert!(queue.asks(), "what was read a while ago says nothing");
    all_read(&mut queue, later);
    let release = queue.next_release(later).expect("nothing more was on its way");
    assert_eq!((release.records, release.markers), (BTreeMap::from([(0, 9)]), 1));
    assert!(release.given_up.is_empty());
    // The repetition is recognised by a number that decreases, and by what follows in the partition.
    events(&mut queue, 0, "T2", 1..=6);
    events(&mut queue, 0, "T2", 1..=2);
    end(&mut queue, "T2", 2, 0);
    assert_eq!(released(&mut queue), None);
    events(&mut queue, 0, "", 0..=0);
    events(&mut queue, 0, "T1", 1..=1);
    queue.observe_look(1, look(Instant::now() + SETTLING, 0, true));
    assert_eq!(
        queue.next_release(Instant::now() + SETTLING),
        None,
        "neither a tombstone nor what was told before is behind it"
    );
    events(&mut queue, 0, "T3", 1..=1);
    let release = queue
        .next_release(Instant::now() + SETTLING)
        .expect("something is behind it");
    assert_eq!(
        release.records,
        BTreeMap::from([(0, 10)]),
        "with what was between them and T3"
    );
}

/// A first run sent an order and was killed; the second run's END counts only the lines, while the first run's order
/// was still on its way.
#[test]
fn a_transaction_of_several_runs_waits_for_tables_that_the_last_of_them_does_not_count() {
    let mut queue = queue(100);
    queue.observe_begin("T1");
    queue.observe_begin("T1");
    end(&mut queue, "T1", 0, 1);
    events(&mut queue, 1, "T1", 1..=1);
    events(&mut queue, 1, "T2", 1..=1);
    let later = Instant::now() + WAIT * 2;
    let release = queue.next_release(later).expect("the BEGINs");
    assert_eq!((release.records.len(), release.markers), (0, 2));
    assert_eq!(queue.next_release(later), None, "orders are behind");
    assert!(queue.asks());
    events(&mut queue, 0, "T1", 1..=1);
    queue.observe_look(0, look(later, 1, true));
    let release = queue.next_release(later).expect("orders are read");
    assert_eq!(release.records, BTreeMap::from([(0, 1), (1, 1)]));
    assert!(release.given_up.is_empty());
}

#[test]
fn a_transaction_that_does_not_become_whole_is_given_up_only_where_nothing_can_bring_the_rest() {
    let mut queue = queue(100);
    events(&mut queue, 0, "T1", 1..=1);
    end(&mut queue, "T1", 2, 1);
    let later = Instant::now() + WAIT * 2;
    all_read(&mut queue, Instant::now());
    assert_eq!(queue.next_release(later), None, "they were at their ends long ago");
    assert!(queue.asks());
    assert_eq!(queue.overdue().expect("it is named").id, "T1".into());
    queue.observe_look(0, look(later, 1, true));
    queue.observe_look(1, look(later, 1, false));
    assert_eq!(queue.next_release(later), None, "the lines may be on their way");
    queue.observe_look(1, look(later, 1, true));
    assert_eq!(queue.next_release(Instant::now()), None, "not yet");
    assert!(!queue.asks());
    let release = queue.next_release(later).expect("it is given up");
    assert_eq!(queue.overdue(), None);
    let topics = vec![
        ("shop.lines".to_string(), 0, Some(1)),
        ("shop.orders".to_string(), 1, Some(2)),
    ];
    let given_up = AbandonedTransaction {
        id: "T1".into(),
        topics,
    };
    assert_eq!((release.given_up, release.markers), (vec![given_up], 1));
    // A transaction without an END, once the markers are read.
    events(&mut queue, 0, "T2", 1..=1);
    assert_eq!(queue.next_release(later), None);
    assert_eq!(queue.open()[0].id, "T2".into());
    all_read(&mut queue, later);
    let given_up = queue.next_release(later).expect("it is given up").given_up;
    assert_eq!(given_up[0].topics[0].2, None);
    assert!(queue.is_empty());
}

/// Debezium was sending 70,000 events of one transaction, the backlog was full, and the transaction topic was quiet:
/// after the wait, the part that had arrived was released, and what followed was taken for a repetition.
#[test]
fn a_transaction_that_fills_a_partition_waits_for_its_end() {
    let full = || {
        let mut queue = queue(10);
        queue.observe_begin("T1");
        assert_eq!(released(&mut queue), Some(([0, 0], 1)));
        events(&mut queue, 0, "T1", 1..=10);
        assert!(queue.is_full(0));
        queue
    };
    let later = Instant::now() + WAIT * 2;
    let written = |queue: &mut TransactionQueue, at: Instant, end: u64| {
        queue.observe_look_at_markers(look(at, 1, true));
        queue.observe_look(1, look(at, 0, true));
        queue.observe_look(0, look(at, end, false));
    };
    let mut queue = full();
    written(&mut queue, later, 15);
    assert_eq!(queue.next_release(later), None, "it is being told");
    assert!(queue.asks() && queue.overdue().is_some());
    written(&mut queue, later + WAIT, 20);
    assert_eq!(queue.next_release(later + WAIT), None);
    events(&mut queue, 0, "T1", 11..=12);
    end(&mut queue, "T1", 12, 0);
    assert_eq!(released(&mut queue), Some(([12, 0], 1)));
    // Its source has stopped: nothing is written for the wait.
    let mut stopped = full();
    written(&mut stopped, later, 15);
    stopped.observe_look(0, look(later, 10, false)); // an older answer takes nothing back
    assert_eq!(stopped.next_release(later), None);
    written(&mut stopped, later + WAIT, 15);
    assert_eq!(
        stopped
            .next_release(later + WAIT)
            .expect("it is given up")
            .given_up
            .len(),
        1
    );
    // Its source sends another transaction, long after.
    let mut lost = full();
    written(&mut lost, later, 15);
    lost.observe_begin("T2");
    assert_eq!(lost.next_release(later).expect("it is given up").given_up.len(), 1);
}

/// A DELETE is followed by a tombstone without a transaction. This was taken for something behind the transaction.
#[test]
fn a_tombstone_amid_a_transaction_is_not_behind_it() {
    // The transaction spans two batches, and its END is old because markers are read far ahead.
    let mut straddles = queue(100);
    end(&mut straddles, "T1", 2, 0);
    events(&mut straddles, 0, "T1", 1..=1);
    events(&mut straddles, 0, "", 0..=0);
    let later = Instant::now() + WAIT * 2;
    assert_eq!(straddles.next_release(later), None);
    events(&mut straddles, 0, "T1", 2..=2);
    events(&mut straddles, 0, "", 0..=0);
    let release = straddles.next_release(later).expect("it is whole");
    assert_eq!((release.records, release.given_up.len()), (BTreeMap::from([(0, 4)]), 0));
    // The transaction is larger than a backlog: its partition must not fill up with the rest.
    let mut large = queue(10);
    end(&mut large, "T1", 100, 0);
    let mut out = 0;
    for order in 1..=100 {
        events(&mut large, 0, "T1", order..=order);
        events(&mut large, 0, "", 0..=0);
        while let Some(release) = large.next_release(later) {
            assert_eq!(release.given_up, [], "{out}");
            assert_eq!(release.continues, order < 100);
            out += release.rows();
            if !release.continues {
                break;
            }
        }
        assert!(large.backlogs[0].records <= 10);
    }
    assert!(large.next_release(later).is_none_or(|last| last.rows() == 1));
    assert!(large.is_empty());
}

/// Two feeds read the same topic, and each had delivered one of two events.
#[test]
fn feeds_of_one_topic_do_not_count_for_each_other() {
    let mut queue = TransactionQueue::new(reads(2), WAIT, UNBOUNDED);
    for feed in 0..2 {
        assert_eq!(queue.add_partition(topic(feed, "shop.orders")), feed);
        events(&mut queue, feed, "T1", 1..=1);
    }
    end(&mut queue, "T1", 2, 0);
    assert_eq!(released(&mut queue), None);
    events(&mut queue, 0, "T1", 2..=2);
    assert_eq!(released(&mut queue), None);
    events(&mut queue, 1, "T1", 2..=2);
    assert_eq!(released(&mut queue), Some(([2, 2], 1)));
}

/// Lines are read for the first time, by a run that reads markers from the last snapshot on. Every transaction in
/// their history has its END before that: all of them waited, and were given up one after another, each without its
/// lines.
#[test]
fn history_without_ends_goes_on_before_what_needs_what_is_behind_it() {
    let mut queue = queue(3);
    queue.observe_first_marker(false);
    let now = Instant::now();
    let old = |queue: &mut TransactionQueue, id: &str| {
        let segment = Segment {
            old: true,
            ..segment(id, 1..=1)
        };
        queue.observe_records(1, [segment], now);
    };
    events(&mut queue, 0, "T5", 1..=1);
    end_at(&mut queue, "T5", 1, 1, now);
    ["T1", "T2", "T3"].into_iter().for_each(|id| old(&mut queue, id));
    let later = now + WAIT * 2;
    assert_eq!(queue.next_release(later), None, "their ENDs may be on their way");
    assert!(queue.asks());
    queue.observe_look(0, look(later, 1, true));
    queue.observe_look_at_markers(look(later, 1, true));
    let history = queue
        .next_release(later)
        .expect("their ENDs are before all that are read");
    // The newest of them may have more records behind it.
    assert_eq!((history.records, history.given_up.len()), (BTreeMap::from([(1, 2)]), 0));
    old(&mut queue, "T4");
    // If a transaction has its END, its records that existed when the partition was found wait like all others.
    old(&mut queue, "T5");
    let release = queue.next_release(later + WAIT).expect("T5 is whole");
    assert_eq!(
        (release.records, release.markers),
        (BTreeMap::from([(0, 1), (1, 3)]), 1)
    );
    assert_eq!(release.given_up, []);
    assert!(queue.is_empty());
}

#[test]
fn what_waits_is_bounded_by_records_bytes_and_markers_and_a_release_by_rows() {
    let mut queue = bounded(QueueLimits {
        records: 10,
        bytes: 1000,
        markers: 3,
        release: 4,
    });
    events(&mut queue, 0, "T9", 1..=4);
    assert!(!queue.is_full(0));
    events(&mut queue, 0, "T9", 5..=5);
    assert!(queue.is_full(0) && !queue.is_full(1), "500 bytes are its part");
    assert!(!queue.are_markers_full());
    for id in ["T1", "T2", "T3"] {
        end(&mut queue, id, 0, 3);
    }
    assert!(queue.are_markers_full());
    for id in ["T1", "T2", "T3"] {
        events(&mut queue, 1, id, 1..=3);
    }
    assert_eq!(
        released(&mut queue),
        Some(([0, 6], 2)),
        "no more than whole transactions need"
    );
    assert_eq!(released(&mut queue), Some(([0, 3], 1)));
    events(&mut queue, 1, "", 1..=10);
    let sizes: Vec<[usize; 2]> = std::iter::from_fn(|| Some(released(&mut queue)?.0)).collect();
    assert_eq!(sizes, [[0, 4], [0, 4], [0, 2]], "what is of none may be cut anywhere");
}

#[test]
fn a_topic_that_is_not_there_yet_is_waited_for() {
    let reads = SourceTopics {
        prefix: "shop".into(),
        feeds: vec![Box::new(|topic| topic.starts_with("shop."))],
    };
    let mut queue = TransactionQueue::new(reads, WAIT, UNBOUNDED);
    queue.add_partition(topic(0, "shop.orders"));
    events(&mut queue, 0, "T1", 1..=1);
    queue.observe_end("T1", &[("orders".into(), 1), ("new$table".into(), 1)], Instant::now());
    assert_eq!(released(&mut queue), None);
    let new = queue.add_partition(topic(0, "shop.new_table"));
    events(&mut queue, new, "T1", 2..=2);
    assert_eq!(released(&mut queue), Some(([1, 1], 1)));
}

#[test]
fn one_larger_than_a_stash_goes_on_as_it_comes_and_nothing_else_meanwhile() {
    let mut queue = queue(10);
    events(&mut queue, 0, "T1", 1..=1);
    end(&mut queue, "T1", 1, 0);
    events(&mut queue, 0, "T2", 1..=12);
    assert!(queue.is_full(0));
    assert_eq!(released(&mut queue), Some(([1, 0], 1)), "T1 is whole by itself");
    assert_eq!(released(&mut queue), None, "another may have to go before T2");
    end(&mut queue, "T2", 19, 1);
    let part = queue.next_release(Instant::now()).expect("T2 streams");
    assert_eq!((part.records, part.continues), (BTreeMap::from([(0, 12)]), true));
    assert_eq!(queue.next_release(Instant::now()), None);
    events(&mut queue, 1, "T2", 13..=13);
    events(&mut queue, 1, "", 0..=0);
    events(&mut queue, 1, "T3", 1..=1);
    let part = queue.next_release(Instant::now()).expect("more of T2");
    assert_eq!((part.records, part.continues), (BTreeMap::from([(1, 2)]), true));
    events(&mut queue, 0, "T2", 14..=20);
    events(&mut queue, 0, "", 0..=0);
    assert_eq!(released(&mut queue), Some(([7, 0], 1)));
    assert_eq!(released(&mut queue), Some(([1, 0], 0)), "what waited behind it");
}

proptest! {
    /// In whatever order things are read: each release ends at a boundary of the source, none is given up, and in the
    /// end all is released. Everything is written long before it is read, so all waits are over; full partitions are
    /// not read; ends are reported truthfully.
    #[test]
    fn every_release_is_a_moment_of_the_source(
        transactions in prop::collection::vec((0u64..4, 0u64..4), 1..30),
        tombstones in prop::collection::vec(any::<bool>(), 240),
        old in any::<bool>(),
        steps in prop::collection::vec(0u8..4, 300),
        records in prop_oneof![Just(3usize), Just(1000)],
        markers in prop_oneof![Just(2usize), Just(1000)],
        release in prop_oneof![Just(2usize), Just(1000)],
    ) {
        let mut queue = bounded(QueueLimits { records, markers, release, ..UNBOUNDED });
        queue.observe_first_marker(!old);
        let start = Instant::now();
        // What each channel delivers, in order: orders, lines, ENDs.
        let mut channels: [VecDeque<Option<(usize, u64, u64)>>; 3] = Default::default();
        let mut bounds = vec![[0usize; 2]];
        let mut tombstones = tombstones.into_iter();
        for (n, (orders, lines)) in transactions.iter().enumerate() {
            for order in 1..=orders + lines {
                let channel = &mut channels[usize::from(order > *orders)];
                channel.push_back(Some((n, order, 0)));
                if tombstones.next().expect("enough") {
                    channel.push_back(None);
                }
            }
            channels[2].push_back(Some((n, *orders, *lines)));
            let last = bounds[bounds.len() - 1];
            bounds.push([last[0] + *orders as usize, last[1] + *lines as usize]);
        }
        // The waiting records of each partition: whether each is an event.
        let mut waiting: [VecDeque<bool>; 2] = Default::default();
        let mut out = [0usize; 2];
        let mut done = 0;
        let mut steps = steps.into_iter().chain([0, 1, 2, 3].into_iter().cycle());
        let mut rounds = 0u32;
        while done < transactions.len() || channels.iter().any(|channel| !channel.is_empty()) {
            rounds += 1;
            prop_assert!(rounds < 4000, "something waits for ever: {queue:?}");
            let now = start + WAIT * rounds;
            let channel = steps.next().expect("they go on") as usize;
            let full = match channel {
                3 => {
                    (0..2).for_each(|p| queue.observe_look(p, look(now, 100, channels[p].is_empty())));
                    queue.observe_look_at_markers(look(now, 100, channels[2].is_empty()));
                    true
                }
                2 => queue.are_markers_full(),
                partition => queue.is_full(partition),
            };
            match (!full).then(|| channels[channel].pop_front()).flatten() {
                Some(Some((n, orders, lines))) if channel == 2 => end_at(&mut queue, &format!("T{n}"), orders, lines, now),
                Some(event) => {
                    waiting[channel].push_back(event.is_some());
                    let id = event.map_or(String::new(), |(n, ..)| format!("T{n}"));
                    let order = event.map_or(0, |(_, order, _)| order);
                    let segment = Segment { old, ..segment(&id, order..=order) };
                    queue.observe_records(channel, [segment], now);
                }
                None => {}
            }
            let mut within = false;
            while let Some(release) = queue.next_release(now) {
                prop_assert!(release.given_up.is_empty(), "{release:?} {queue:?}");
                for (partition, records) in &release.records {
                    let events = waiting[*partition].drain(..*records).filter(|is_event| *is_event).count();
                    out[*partition] += events;
                }
                done += release.markers;
                within = release.continues;
                if !within {
                    prop_assert!(bounds.contains(&out), "{out:?} is no moment of {bounds:?}");
                }
            }
            prop_assert!(!within || queue.streaming.is_some());
        }
        prop_assert_eq!(out, bounds[bounds.len() - 1]);
        prop_assert!(queue.is_empty());
    }
}
