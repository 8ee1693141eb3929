//! Makes every call to the brokers fail once, before and after it takes effect: each snapshot is still published once.

use std::time::Duration;

use crossbeam_channel::unbounded;

use super::brokers::{Cluster, When};
use super::flow::{ID, PublishFlow, Run, STATE, catch_up, row, spec};
use crate::publish::PublishError;
use crate::publish::worker::PublishWorker;
use crate::sink::TableSpec;

fn two() -> Vec<TableSpec> {
    vec![
        spec("silver.orders", &[ID, STATE]),
        spec("silver.customers", &[ID, STATE]),
    ]
}

fn commit(run: &mut Run) {
    run.commit(1, &[(0, row![1, "new"], 1), (0, row![2, "new"], 1)]);
    run.commit(2, &[(1, row![7, "ann"], 1)]);
    run.commit(3, &[(0, row![1, "new"], -1), (1, row![8, "bob"], 1)]);
    run.commit(4, &[(0, row![2, "new"], -1), (0, row![2, "paid"], 1)]);
}

/// The records of each snapshot, without transactions that only stored an epoch again.
fn sent(cluster: &Cluster) -> Vec<(u64, Vec<String>)> {
    let transactions = cluster.state().transactions.clone();
    let with_records = transactions.into_iter().filter(|(_, _, records)| !records.is_empty());
    with_records
        .map(|(epoch, _, mut records)| {
            records.sort();
            (epoch, records)
        })
        .collect()
}

#[test]
fn each_snapshot_is_sent_once_whichever_call_fails_and_whether_it_had_its_effect() {
    let flow = PublishFlow::new();
    let mut run = flow.run(&two());
    commit(&mut run);
    // The first part publishes by intents, from the first snapshot on.
    let whole = Cluster::default();
    flow.channel(&run, &whole).catch_up(1).unwrap();
    let begun = sent(&whole);
    whole.fail(usize::MAX, When::Before);
    flow.channel(&run, &whole).catch_up(4).unwrap();
    let (wanted, calls) = (sent(&whole), whole.calls());
    assert_eq!((begun.len(), wanted.len()), (1, 4));
    assert!(calls > 10, "{calls}");
    for call in 0..calls {
        for when in [When::Before, When::Behind] {
            let cluster = Cluster::default();
            flow.channel(&run, &cluster).catch_up(1).unwrap();
            cluster.fail(call, when);
            let mut channel = flow.channel(&run, &cluster);
            catch_up(&mut channel, 4, 3).unwrap_or_else(|e| panic!("call {call} {when:?}: {e}"));
            assert_eq!(sent(&cluster), wanted, "call {call} {when:?}");
            assert!(cluster.state().epochs.values().all(|epoch| *epoch == 4));
        }
    }
    // The second part publishes all snapshots at once, as a difference.
    let whole = Cluster::default();
    whole.fail(usize::MAX, When::Before);
    flow.channel(&run, &whole).catch_up(4).unwrap();
    for call in 0..whole.calls() {
        for when in [When::Before, When::Behind] {
            let cluster = Cluster::default();
            cluster.fail(call, when);
            let mut channel = flow.channel(&run, &cluster);
            catch_up(&mut channel, 4, 3).unwrap_or_else(|e| panic!("call {call} {when:?}: {e}"));
            assert_eq!(sent(&cluster), sent(&whole), "call {call} {when:?}");
        }
    }
    run.end();
}

/// A snapshot committed while brokers were down was taken from the queue and dropped: it was published only with the
/// next change.
#[test]
fn a_snapshot_that_is_committed_while_brokers_are_down_follows_by_itself() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&two());
    let worker = PublishWorker::new(flow.channel(&run, &cluster), 0);
    let (committed, epochs) = unbounded();
    cluster.set_down(true);
    let thread = std::thread::spawn(move || worker.publish(&epochs));
    committed.send(run.commit(1, &[(0, row![1, "new"], 1)])).unwrap();
    std::thread::sleep(Duration::from_millis(250)); // it has failed, and pauses
    committed.send(run.commit(2, &[(0, row![2, "new"], 1)])).unwrap();
    std::thread::sleep(Duration::from_millis(250));
    committed.send(run.commit(3, &[(0, row![3, "new"], 1)])).unwrap();
    cluster.set_down(false);
    let started = std::time::Instant::now();
    while cluster.records("silver.orders").len() < 3 {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            cluster.records("silver.orders")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(committed);
    thread.join().unwrap().unwrap();
    assert_eq!(cluster.records("silver.orders").len(), 3);
    run.end();
}

#[test]
fn a_run_that_ends_before_its_topics_have_all_says_why() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&two());
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(run.commit(1, &[(0, row![1, "new"], 1)])).unwrap();
    let worker = PublishWorker::new(channel, 1).within(Duration::from_millis(500));
    let (committed, epochs) = unbounded();
    cluster.set_down(true);
    committed.send(run.commit(2, &[(0, row![2, "new"], 1)])).unwrap();
    drop(committed);
    let error = worker.publish(&epochs).expect_err("brokers are down");
    let PublishError::Behind {
        published: 1, source, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(source.to_string().contains("it fails"), "{source}");
    run.end();
}
