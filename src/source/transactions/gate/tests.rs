use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_secs(30);

fn gate(limit: usize) -> Gate {
    let reads = Reads {
        prefix: "shop".into(),
        topic: Box::new(|topic| ["shop.orders", "shop.lines"].contains(&topic)),
    };
    let mut gate = Gate::new(reads, WAIT, limit);
    assert_eq!(
        (gate.add_partition("shop.orders"), gate.add_partition("shop.lines")),
        (0, 1)
    );
    gate
}

fn events(gate: &mut Gate, partition: usize, id: &str, orders: std::ops::RangeInclusive<u64>) {
    let segment = Segment {
        id: (!id.is_empty()).then(|| id.into()),
        records: orders.clone().count(),
        orders: (*orders.start(), *orders.end()),
    };
    gate.observe_records(partition, [segment], Instant::now());
}

fn end(gate: &mut Gate, id: &str, orders: u64, lines: u64) {
    let tables = [
        ("orders".to_string(), orders),
        ("lines".to_string(), lines),
        ("unread".to_string(), 9),
    ];
    gate.observe_end(id, &tables, Instant::now());
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
    gate.observe_at_end(0);
    gate.observe_at_end(1);
    assert_eq!(released(&mut gate), None, "more may be on its way");
    let release = gate
        .next_release(Instant::now() + SETTLING)
        .expect("its partitions are at their ends");
    assert_eq!((release.records, release.markers), (BTreeMap::from([(0, 9)]), 1));
    assert!(release.given_up.is_empty());
    // Told by an order that falls, and by what is behind it.
    events(&mut gate, 0, "T2", 1..=6);
    events(&mut gate, 0, "T2", 1..=2);
    end(&mut gate, "T2", 2, 0);
    assert_eq!(released(&mut gate), None);
    events(&mut gate, 0, "", 0..=0);
    gate.observe_at_end(1);
    let release = gate
        .next_release(Instant::now() + SETTLING)
        .expect("something is behind it");
    assert_eq!(release.records, BTreeMap::from([(0, 9)]));
}

#[test]
fn a_transaction_that_does_not_become_whole_is_given_up_only_where_nothing_can_bring_the_rest() {
    let mut gate = gate(100);
    events(&mut gate, 0, "T1", 1..=1);
    end(&mut gate, "T1", 2, 1);
    let later = Instant::now() + WAIT * 2;
    gate.observe_at_end(0);
    assert_eq!(gate.next_release(later), None, "the lines may be on their way");
    gate.observe_at_end(1);
    assert_eq!(gate.next_release(Instant::now()), None, "not yet");
    let release = gate.next_release(later).expect("it is given up");
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
    gate.observe_markers_at_end();
    let much_later = later + WAIT;
    assert_eq!(
        gate.next_release(much_later).expect("it is given up").given_up[0].topics[0].2,
        None
    );
    assert!(gate.is_empty());
}

#[test]
fn a_topic_that_is_not_there_yet_is_waited_for() {
    let reads = Reads {
        prefix: "shop".into(),
        topic: Box::new(|topic| topic.starts_with("shop.")),
    };
    let mut gate = Gate::new(reads, WAIT, 100);
    gate.add_partition("shop.orders");
    events(&mut gate, 0, "T1", 1..=1);
    gate.observe_end("T1", &[("orders".into(), 1), ("new$table".into(), 1)], Instant::now());
    assert_eq!(released(&mut gate), None);
    let new = gate.add_partition("shop.new_table");
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
    let part = gate.next_release(Instant::now()).expect("more of T2");
    assert_eq!((part.records, part.continues), (BTreeMap::from([(1, 1)]), true));
    events(&mut gate, 0, "T2", 14..=20);
    assert_eq!(released(&mut gate), Some(([7, 0], 1)));
    assert_eq!(released(&mut gate), Some(([0, 1], 0)), "what waited behind it");
}

proptest! {
    /// Whatever comes when: each release ends at one boundary of the source, and in the end all is released.
    #[test]
    fn every_release_is_a_moment_of_the_source(
        transactions in prop::collection::vec((0u64..4, 0u64..4), 1..30),
        steps in prop::collection::vec(0u8..3, 300),
        limit in prop_oneof![Just(3usize), Just(1000)],
    ) {
        let mut gate = gate(limit);
        // What each channel brings, in its order: orders, lines, ENDs.
        let mut channels: [VecDeque<(usize, u64, u64)>; 3] = Default::default();
        let mut bounds = vec![[0usize; 2]];
        for (n, (orders, lines)) in transactions.iter().enumerate() {
            (1..=*orders).for_each(|order| channels[0].push_back((n, order, 0)));
            (1..=*lines).for_each(|order| channels[1].push_back((n, orders + order, 0)));
            channels[2].push_back((n, *orders, *lines));
            let last = bounds[bounds.len() - 1];
            bounds.push([last[0] + *orders as usize, last[1] + *lines as usize]);
        }
        let mut out = [0usize; 2];
        let mut markers = 0;
        let mut steps = steps.into_iter().chain([0, 1, 2].into_iter().cycle());
        let mut rounds = 0;
        while markers < transactions.len() {
            rounds += 1;
            prop_assert!(rounds < 2000, "something waits for ever: {gate:?}");
            let channel = steps.next().expect("they go on") as usize;
            match channels[channel].pop_front() {
                Some((n, orders, lines)) if channel == 2 => end(&mut gate, &format!("T{n}"), orders, lines),
                Some((n, order, _)) => events(&mut gate, channel, &format!("T{n}"), order..=order),
                None => continue,
            }
            let mut within = false;
            while let Some(release) = gate.next_release(Instant::now()) {
                prop_assert!(release.given_up.is_empty());
                release.records.iter().for_each(|(partition, records)| out[*partition] += records);
                markers += release.markers;
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
