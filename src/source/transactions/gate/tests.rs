use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_secs(30);

const UNBOUNDED: Limits = Limits {
    records: usize::MAX,
    bytes: usize::MAX,
    markers: usize::MAX,
    release: usize::MAX,
};

fn reads(feeds: usize) -> Reads {
    let feed =
        |_| -> Box<dyn Fn(&str) -> bool + Send> { Box::new(|topic| ["shop.orders", "shop.lines"].contains(&topic)) };
    Reads {
        prefix: "shop".into(),
        feeds: (0..feeds).map(feed).collect(),
    }
}

fn topic(feed: usize, name: &str) -> Topic {
    Topic {
        feed,
        name: name.into(),
    }
}

/// Orders are partition 0, lines 1.
fn bounded(limits: Limits) -> Gate {
    let mut gate = Gate::new(reads(1), WAIT, limits);
    for (number, name) in ["shop.orders", "shop.lines"].into_iter().enumerate() {
        assert_eq!(gate.add_partition(topic(0, name)), number);
    }
    gate
}

/// Of so many records for each partition.
fn gate(records: usize) -> Gate {
    bounded(Limits { records, ..UNBOUNDED })
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

fn events(gate: &mut Gate, partition: usize, id: &str, orders: std::ops::RangeInclusive<u64>) {
    gate.observe_records(partition, [segment(id, orders)], Instant::now());
}

fn end(gate: &mut Gate, id: &str, orders: u64, lines: u64) {
    end_at(gate, id, orders, lines, Instant::now());
}

fn end_at(gate: &mut Gate, id: &str, orders: u64, lines: u64, now: Instant) {
    let tables = [
        ("orders".to_string(), orders),
        ("lines".to_string(), lines),
        ("unread".to_string(), 9),
    ];
    gate.observe_end(id, &tables, now);
}

fn look(asked: Instant, end: u64, read: bool) -> Look {
    Look { asked, end, read }
}

/// Everything that is there at this time is read.
fn all_read(gate: &mut Gate, at: Instant) {
    (0..gate.stashes.len()).for_each(|partition| gate.observe_look(partition, look(at, 100, true)));
    gate.observe_look_at_markers(look(at, 100, true));
}

/// Records by partition, markers.
fn released(gate: &mut Gate) -> Option<([usize; 2], usize)> {
    let release = gate.next_release(Instant::now())?;
    assert!(release.given_up.is_empty() && !release.continues, "{release:?}");
    let of = |partition| release.records.get(&partition).copied().unwrap_or(0);
    Some(([of(0), of(1)], release.markers))
}

#[test]
fn a_transaction_goes_on_once_its_last_event_is_here_and_so_does_what_is_of_none() {
    let mut gate = gate(100);
    events(&mut gate, 0, "", 0..=4); // a snapshot's rows
    events(&mut gate, 0, "T1", 1..=2);
    assert_eq!(released(&mut gate), Some(([5, 0], 0)));
    gate.observe_marker(); // BEGIN
    end(&mut gate, "T1", 2, 1);
    assert_eq!(released(&mut gate), Some(([0, 0], 1)), "the BEGIN");
    assert_eq!(released(&mut gate), None);
    events(&mut gate, 1, "T1", 3..=3);
    events(&mut gate, 1, "T2", 1..=1);
    assert_eq!(released(&mut gate), Some(([2, 1], 1)));
    assert!(!gate.is_empty(), "T2 has no END");
    end(&mut gate, "T2", 0, 1);
    assert_eq!(released(&mut gate), Some(([0, 1], 1)));
    assert!(gate.is_empty());
}

#[test]
fn nothing_passes_a_transaction_that_waits() {
    let mut gate = gate(100);
    end(&mut gate, "T1", 1, 0);
    end(&mut gate, "T2", 0, 1);
    events(&mut gate, 1, "T2", 1..=1);
    assert_eq!(released(&mut gate), None, "T2 is whole, and T1 was before it");
    events(&mut gate, 0, "T1", 1..=1);
    assert_eq!(released(&mut gate), Some(([1, 1], 2)));
}

#[test]
fn events_and_ends_that_come_again_wait_for_nothing() {
    let mut gate = gate(100);
    events(&mut gate, 0, "T1", 1..=3);
    end(&mut gate, "T1", 3, 0);
    assert_eq!(released(&mut gate), Some(([3, 0], 1)));
    events(&mut gate, 0, "T1", 1..=3);
    end(&mut gate, "T1", 3, 0);
    assert_eq!(
        released(&mut gate),
        Some(([3, 0], 1)),
        "what went on once waits for nothing"
    );
}

/// Debezium was killed amid T1 twice: of eleven thousand events its END counted four thousand, and the first run's were
/// as many already. A snapshot held what the last run took back.
#[test]
fn a_transaction_that_was_told_in_several_runs_is_not_judged_by_counts() {
    let mut gate = gate(100);
    gate.observe_begin("T1");
    events(&mut gate, 0, "T1", 1..=6);
    gate.observe_begin("T1");
    end(&mut gate, "T1", 3, 0);
    assert_eq!(released(&mut gate), Some(([0, 0], 2)), "the BEGINs alone");
    events(&mut gate, 0, "T1", 1..=3);
    all_read(&mut gate, Instant::now());
    assert_eq!(released(&mut gate), None, "more may be on its way");
    let later = Instant::now() + SETTLING;
    assert_eq!(gate.next_release(later), None);
    assert!(gate.asks(), "what was read a while ago says nothing");
    all_read(&mut gate, later);
    let release = gate.next_release(later).expect("nothing more was on its way");
    assert_eq!((release.records, release.markers), (BTreeMap::from([(0, 9)]), 1));
    assert!(release.given_up.is_empty());
    // Told by an order that falls, and by what is behind it.
    events(&mut gate, 0, "T2", 1..=6);
    events(&mut gate, 0, "T2", 1..=2);
    end(&mut gate, "T2", 2, 0);
    assert_eq!(released(&mut gate), None);
    events(&mut gate, 0, "", 0..=0);
    events(&mut gate, 0, "T1", 1..=1);
    gate.observe_look(1, look(Instant::now() + SETTLING, 0, true));
    assert_eq!(
        gate.next_release(Instant::now() + SETTLING),
        None,
        "neither a tombstone nor what was told before is behind it"
    );
    events(&mut gate, 0, "T3", 1..=1);
    let release = gate
        .next_release(Instant::now() + SETTLING)
        .expect("something is behind it");
    assert_eq!(
        release.records,
        BTreeMap::from([(0, 10)]),
        "with what was between them and T3"
    );
}

/// A first run told an order and was killed; the second run's END counts the lines alone. The first run's order was on its
/// way still.
#[test]
fn a_transaction_of_several_runs_waits_for_tables_that_the_last_of_them_does_not_count() {
    let mut gate = gate(100);
    gate.observe_begin("T1");
    gate.observe_begin("T1");
    end(&mut gate, "T1", 0, 1);
    events(&mut gate, 1, "T1", 1..=1);
    events(&mut gate, 1, "T2", 1..=1);
    let later = Instant::now() + WAIT * 2;
    let release = gate.next_release(later).expect("the BEGINs");
    assert_eq!((release.records.len(), release.markers), (0, 2));
    assert_eq!(gate.next_release(later), None, "orders are behind");
    assert!(gate.asks());
    events(&mut gate, 0, "T1", 1..=1);
    gate.observe_look(0, look(later, 1, true));
    let release = gate.next_release(later).expect("orders are read");
    assert_eq!(release.records, BTreeMap::from([(0, 1), (1, 1)]));
    assert!(release.given_up.is_empty());
}

#[test]
fn a_transaction_that_does_not_become_whole_is_given_up_only_where_nothing_can_bring_the_rest() {
    let mut gate = gate(100);
    events(&mut gate, 0, "T1", 1..=1);
    end(&mut gate, "T1", 2, 1);
    let later = Instant::now() + WAIT * 2;
    all_read(&mut gate, Instant::now());
    assert_eq!(gate.next_release(later), None, "they were at their ends long ago");
    assert!(gate.asks());
    assert_eq!(gate.overdue().expect("it is named").id, "T1".into());
    gate.observe_look(0, look(later, 1, true));
    gate.observe_look(1, look(later, 1, false));
    assert_eq!(gate.next_release(later), None, "the lines may be on their way");
    gate.observe_look(1, look(later, 1, true));
    assert_eq!(gate.next_release(Instant::now()), None, "not yet");
    assert!(!gate.asks());
    let release = gate.next_release(later).expect("it is given up");
    assert_eq!(gate.overdue(), None);
    let topics = vec![
        ("shop.lines".to_string(), 0, Some(1)),
        ("shop.orders".to_string(), 1, Some(2)),
    ];
    let given_up = GivenUp {
        id: "T1".into(),
        topics,
    };
    assert_eq!((release.given_up, release.markers), (vec![given_up], 1));
    // One without END, once the markers are read.
    events(&mut gate, 0, "T2", 1..=1);
    assert_eq!(gate.next_release(later), None);
    assert_eq!(gate.open()[0].id, "T2".into());
    all_read(&mut gate, later);
    let given_up = gate.next_release(later).expect("it is given up").given_up;
    assert_eq!(given_up[0].topics[0].2, None);
    assert!(gate.is_empty());
}

/// Debezium was telling 70,000 events of one transaction, the stash was full, and the transaction's topic was quiet: after
/// the wait what was there of it went on, and what followed was taken for what comes again.
#[test]
fn a_transaction_that_fills_a_partition_waits_for_its_end() {
    let full = || {
        let mut gate = gate(10);
        gate.observe_begin("T1");
        assert_eq!(released(&mut gate), Some(([0, 0], 1)));
        events(&mut gate, 0, "T1", 1..=10);
        assert!(gate.is_full(0));
        gate
    };
    let later = Instant::now() + WAIT * 2;
    let written = |gate: &mut Gate, at: Instant, end: u64| {
        gate.observe_look_at_markers(look(at, 1, true));
        gate.observe_look(1, look(at, 0, true));
        gate.observe_look(0, look(at, end, false));
    };
    let mut gate = full();
    written(&mut gate, later, 15);
    assert_eq!(gate.next_release(later), None, "it is being told");
    assert!(gate.asks() && gate.overdue().is_some());
    written(&mut gate, later + WAIT, 20);
    assert_eq!(gate.next_release(later + WAIT), None);
    events(&mut gate, 0, "T1", 11..=12);
    end(&mut gate, "T1", 12, 0);
    assert_eq!(released(&mut gate), Some(([12, 0], 1)));
    // Its source is gone: nothing is written for the wait.
    let mut gone = full();
    written(&mut gone, later, 15);
    gone.observe_look(0, look(later, 10, false)); // an older answer takes nothing back
    assert_eq!(gone.next_release(later), None);
    written(&mut gone, later + WAIT, 15);
    assert_eq!(
        gone.next_release(later + WAIT).expect("it is given up").given_up.len(),
        1
    );
    // Its source tells another one, long after.
    let mut lost = full();
    written(&mut lost, later, 15);
    lost.observe_begin("T2");
    assert_eq!(lost.next_release(later).expect("it is given up").given_up.len(), 1);
}

/// A DELETE is followed by a tombstone, which is of no transaction. It was taken for something behind the transaction.
#[test]
fn a_tombstone_amid_a_transaction_is_not_behind_it() {
    // It straddles two batches, and its END is old: markers are read far ahead.
    let mut straddles = gate(100);
    end(&mut straddles, "T1", 2, 0);
    events(&mut straddles, 0, "T1", 1..=1);
    events(&mut straddles, 0, "", 0..=0);
    let later = Instant::now() + WAIT * 2;
    assert_eq!(straddles.next_release(later), None);
    events(&mut straddles, 0, "T1", 2..=2);
    events(&mut straddles, 0, "", 0..=0);
    let release = straddles.next_release(later).expect("it is whole");
    assert_eq!((release.records, release.given_up.len()), (BTreeMap::from([(0, 4)]), 0));
    // It is larger than what may wait: its partition never fills up with the rest.
    let mut large = gate(10);
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
        assert!(large.stashes[0].records <= 10);
    }
    assert!(large.next_release(later).is_none_or(|last| last.rows() == 1));
    assert!(large.is_empty());
}

/// Two feeds read the same topic, and each had brought one of two events.
#[test]
fn feeds_of_one_topic_do_not_count_for_each_other() {
    let mut gate = Gate::new(reads(2), WAIT, UNBOUNDED);
    for feed in 0..2 {
        assert_eq!(gate.add_partition(topic(feed, "shop.orders")), feed);
        events(&mut gate, feed, "T1", 1..=1);
    }
    end(&mut gate, "T1", 2, 0);
    assert_eq!(released(&mut gate), None);
    events(&mut gate, 0, "T1", 2..=2);
    assert_eq!(released(&mut gate), None);
    events(&mut gate, 1, "T1", 2..=2);
    assert_eq!(released(&mut gate), Some(([2, 2], 1)));
}

/// Lines are read for the first time, by a run that reads markers from the last snapshot on. Every transaction in their
/// history has its END before that: all waited for them, and were given up one after another, each without its lines.
#[test]
fn history_without_ends_goes_on_before_what_needs_what_is_behind_it() {
    let mut gate = gate(3);
    gate.observe_first_marker(false);
    let now = Instant::now();
    let old = |gate: &mut Gate, id: &str| {
        let segment = Segment {
            old: true,
            ..segment(id, 1..=1)
        };
        gate.observe_records(1, [segment], now);
    };
    events(&mut gate, 0, "T5", 1..=1);
    end_at(&mut gate, "T5", 1, 1, now);
    ["T1", "T2", "T3"].into_iter().for_each(|id| old(&mut gate, id));
    let later = now + WAIT * 2;
    assert_eq!(gate.next_release(later), None, "their ENDs may be on their way");
    assert!(gate.asks());
    gate.observe_look(0, look(later, 1, true));
    gate.observe_look_at_markers(look(later, 1, true));
    let history = gate
        .next_release(later)
        .expect("their ENDs are before all that are read");
    // The newest of them may have more behind it.
    assert_eq!((history.records, history.given_up.len()), (BTreeMap::from([(1, 2)]), 0));
    old(&mut gate, "T4");
    // Of one that has its END, what was there when its partition was found waits like all of it.
    old(&mut gate, "T5");
    let release = gate.next_release(later + WAIT).expect("T5 is whole");
    assert_eq!(
        (release.records, release.markers),
        (BTreeMap::from([(0, 1), (1, 3)]), 1)
    );
    assert_eq!(release.given_up, []);
    assert!(gate.is_empty());
}

#[test]
fn what_waits_is_bounded_by_records_bytes_and_markers_and_a_release_by_rows() {
    let mut gate = bounded(Limits {
        records: 10,
        bytes: 1000,
        markers: 3,
        release: 4,
    });
    events(&mut gate, 0, "T9", 1..=4);
    assert!(!gate.is_full(0));
    events(&mut gate, 0, "T9", 5..=5);
    assert!(gate.is_full(0) && !gate.is_full(1), "500 bytes are its part");
    assert!(!gate.are_markers_full());
    for id in ["T1", "T2", "T3"] {
        end(&mut gate, id, 0, 3);
    }
    assert!(gate.are_markers_full());
    for id in ["T1", "T2", "T3"] {
        events(&mut gate, 1, id, 1..=3);
    }
    assert_eq!(
        released(&mut gate),
        Some(([0, 6], 2)),
        "no more than whole transactions need"
    );
    assert_eq!(released(&mut gate), Some(([0, 3], 1)));
    events(&mut gate, 1, "", 1..=10);
    let sizes: Vec<[usize; 2]> = std::iter::from_fn(|| Some(released(&mut gate)?.0)).collect();
    assert_eq!(sizes, [[0, 4], [0, 4], [0, 2]], "what is of none may be cut anywhere");
}

#[test]
fn a_topic_that_is_not_there_yet_is_waited_for() {
    let reads = Reads {
        prefix: "shop".into(),
        feeds: vec![Box::new(|topic| topic.starts_with("shop."))],
    };
    let mut gate = Gate::new(reads, WAIT, UNBOUNDED);
    gate.add_partition(topic(0, "shop.orders"));
    events(&mut gate, 0, "T1", 1..=1);
    gate.observe_end("T1", &[("orders".into(), 1), ("new$table".into(), 1)], Instant::now());
    assert_eq!(released(&mut gate), None);
    let new = gate.add_partition(topic(0, "shop.new_table"));
    events(&mut gate, new, "T1", 2..=2);
    assert_eq!(released(&mut gate), Some(([1, 1], 1)));
}

#[test]
fn one_larger_than_a_stash_goes_on_as_it_comes_and_nothing_else_meanwhile() {
    let mut gate = gate(10);
    events(&mut gate, 0, "T1", 1..=1);
    end(&mut gate, "T1", 1, 0);
    events(&mut gate, 0, "T2", 1..=12);
    assert!(gate.is_full(0));
    assert_eq!(released(&mut gate), Some(([1, 0], 1)), "T1 is whole by itself");
    assert_eq!(released(&mut gate), None, "another may have to go before T2");
    end(&mut gate, "T2", 19, 1);
    let part = gate.next_release(Instant::now()).expect("T2 streams");
    assert_eq!((part.records, part.continues), (BTreeMap::from([(0, 12)]), true));
    assert_eq!(gate.next_release(Instant::now()), None);
    events(&mut gate, 1, "T2", 13..=13);
    events(&mut gate, 1, "", 0..=0);
    events(&mut gate, 1, "T3", 1..=1);
    let part = gate.next_release(Instant::now()).expect("more of T2");
    assert_eq!((part.records, part.continues), (BTreeMap::from([(1, 2)]), true));
    events(&mut gate, 0, "T2", 14..=20);
    events(&mut gate, 0, "", 0..=0);
    assert_eq!(released(&mut gate), Some(([7, 0], 1)));
    assert_eq!(released(&mut gate), Some(([1, 0], 0)), "what waited behind it");
}

proptest! {
    /// Whatever is read when: each release ends at one boundary of the source, none is given up, and in the end all is
    /// released. Everything is written long before it is read, so all waits are over; partitions that are full are not
    /// read; ends are told as they are.
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
        let mut gate = bounded(Limits { records, markers, release, ..UNBOUNDED });
        gate.observe_first_marker(!old);
        let start = Instant::now();
        // What each channel brings, in its order: orders, lines, ENDs.
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
        // What waits of each partition: whether it is an event.
        let mut waiting: [VecDeque<bool>; 2] = Default::default();
        let mut out = [0usize; 2];
        let mut done = 0;
        let mut steps = steps.into_iter().chain([0, 1, 2, 3].into_iter().cycle());
        let mut rounds = 0u32;
        while done < transactions.len() || channels.iter().any(|channel| !channel.is_empty()) {
            rounds += 1;
            prop_assert!(rounds < 4000, "something waits for ever: {gate:?}");
            let now = start + WAIT * rounds;
            let channel = steps.next().expect("they go on") as usize;
            let full = match channel {
                3 => {
                    (0..2).for_each(|p| gate.observe_look(p, look(now, 100, channels[p].is_empty())));
                    gate.observe_look_at_markers(look(now, 100, channels[2].is_empty()));
                    true
                }
                2 => gate.are_markers_full(),
                partition => gate.is_full(partition),
            };
            match (!full).then(|| channels[channel].pop_front()).flatten() {
                Some(Some((n, orders, lines))) if channel == 2 => end_at(&mut gate, &format!("T{n}"), orders, lines, now),
                Some(event) => {
                    waiting[channel].push_back(event.is_some());
                    let id = event.map_or(String::new(), |(n, ..)| format!("T{n}"));
                    let order = event.map_or(0, |(_, order, _)| order);
                    let segment = Segment { old, ..segment(&id, order..=order) };
                    gate.observe_records(channel, [segment], now);
                }
                None => {}
            }
            let mut within = false;
            while let Some(release) = gate.next_release(now) {
                prop_assert!(release.given_up.is_empty(), "{release:?} {gate:?}");
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
            prop_assert!(!within || gate.streaming.is_some());
        }
        prop_assert_eq!(out, bounds[bounds.len() - 1]);
        prop_assert!(gate.is_empty());
    }
}
