//! Tests which snapshots are published, depending on the entries that the ledger still has.

use super::brokers::Cluster;
use super::flow::{ID, PublishFlow, STATE, row, spec};
use crate::publish::PublishError;
use crate::sink::TableSpec;

fn two() -> Vec<TableSpec> {
    vec![
        spec("silver.orders", &[ID, STATE]),
        spec("silver.customers", &[ID, STATE]),
    ]
}

/// For a table that did not change, every snapshot since was kept in memory, and its topic fell behind until nothing
/// could be read.
#[test]
fn a_table_that_does_not_change_moves_with_those_that_do() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&two());
    let mut channel = flow.channel(&run, &cluster);
    channel
        .catch_up(run.commit(10, &[(0, row![1, "new"], 1), (1, row![7, "ann"], 1)]))
        .unwrap();
    for epoch in 11..60 {
        channel
            .catch_up(run.commit(epoch, &[(0, row![epoch as i64, "new"], 1)]))
            .unwrap();
    }
    let all = |epoch| cluster.state().epochs.values().all(|stored| *stored == epoch);
    assert!(all(59), "{:?}", cluster.state().epochs);
    assert_eq!(
        cluster.records("silver.customers"),
        ["{\"id\":7} {\"id\":7,\"state\":\"ann\"}"]
    );
    run.end();
    // The next run must not need the old snapshots, which are deleted.
    flow.forget(3);
    flow.remove_files("_alluvium/snapshots");
    let mut run = flow.run(&two());
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(59).unwrap();
    channel.catch_up(run.commit(60, &[(1, row![8, "bob"], 1)])).unwrap();
    assert_eq!(cluster.records("silver.customers").len(), 2);
    assert_eq!(cluster.records("silver.orders").len(), 50);
    run.end();
}

/// If nothing of a channel changes for long, brokers and the lake would forget its epoch.
#[test]
fn topics_without_changes_are_told_again_how_far_they_are() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&two());
    let published = [run.specs[0].clone()];
    let mut channel = flow.channel_of(&published, run.generation, &cluster);
    channel.catch_up(run.commit(10, &[(0, row![1, "new"], 1)])).unwrap();
    let soon = channel.due().expect("it is known when");
    for epoch in 11..40 {
        channel
            .catch_up(run.commit(epoch, &[(1, row![epoch as i64, "x"], 1)]))
            .unwrap();
    }
    assert_eq!(cluster.state().transactions.len(), 1, "nothing to be told at once");
    assert_eq!(channel.published(), 39);
    let hours =
        |due: std::time::Instant| due.saturating_duration_since(std::time::Instant::now()).as_secs_f64() / 3600.0;
    assert!((0.9..=1.0).contains(&hours(soon)) && (0.9..=1.0).contains(&hours(channel.due().unwrap())));
    channel.refresh().unwrap();
    assert_eq!(
        cluster.state().transactions[1],
        (39, vec!["silver.orders".into()], vec![])
    );
    run.end();
    // A run without changes stores the epoch once, so that a series of short runs works as well as a long run.
    let run = flow.run(&two());
    let mut channel = flow.channel_of(&published, run.generation, &cluster);
    for _ in 0..2 {
        channel.catch_up(39).unwrap();
    }
    assert_eq!(cluster.state().transactions.len(), 3);
    assert_eq!(cluster.records("silver.orders").len(), 1);
    run.end();
}

/// A channel that was behind for longer than the ledger reaches counted as up to date, for ever.
#[test]
fn entries_that_are_gone_are_made_up_for_by_the_difference() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&two());
    let mut channel = flow.channel(&run, &cluster);
    channel
        .catch_up(run.commit(1, &[(0, row![1, "new"], 1), (0, row![2, "new"], 1)]))
        .unwrap();
    run.commit(2, &[(0, row![3, "new"], 1), (0, row![1, "new"], -1)]);
    run.commit(3, &[(0, row![4, "new"], 1), (1, row![7, "ann"], 1)]);
    run.commit(4, &[(0, row![4, "new"], -1)]);
    run.commit(5, &[(0, row![2, "new"], -1), (0, row![2, "paid"], 1)]);
    run.end();
    flow.forget(1);
    channel.catch_up(5).unwrap();
    assert_eq!(
        cluster.records("silver.orders")[2..]
            .iter()
            .collect::<std::collections::BTreeSet<_>>(),
        [
            "{\"id\":3} {\"id\":3,\"state\":\"new\"}",
            "{\"id\":2} {\"id\":2,\"state\":\"paid\"}",
            "{\"id\":1} -"
        ]
        .map(String::from)
        .iter()
        .collect()
    );
    assert_eq!(cluster.records("silver.customers").len(), 1);
    assert_eq!(cluster.state().transactions.len(), 2, "both tables in one");
    // After that, the channel continues by intents.
    let mut run = flow.run(&two());
    channel.catch_up(run.commit(6, &[(0, row![5, "new"], 1)])).unwrap();
    assert_eq!(cluster.state().transactions[2].2.len(), 1);
    run.end();
}

/// A topic that is new, or has another snapshot than its siblings, is brought to theirs in one transaction.
#[test]
fn topics_that_are_apart_come_together_in_one_transaction() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&two());
    let mut channel = flow.channel_of(&run.specs[..1], run.generation, &cluster);
    channel
        .catch_up(run.commit(1, &[(0, row![1, "new"], 1), (1, row![7, "ann"], 1)]))
        .unwrap();
    run.commit(2, &[(0, row![2, "new"], 1), (1, row![8, "bob"], 1)]);
    run.commit(3, &[(0, row![1, "new"], -1)]);
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(3).unwrap();
    let transactions = cluster.state().transactions.clone();
    let [_, (epoch, topics, records)] = &transactions[..] else {
        panic!("{transactions:?}")
    };
    let mut records = records.clone();
    records.sort();
    assert_eq!((*epoch, topics.len()), (3, 2));
    assert_eq!(
        records,
        [
            "silver.customers {\"id\":7} {\"id\":7,\"state\":\"ann\"}",
            "silver.customers {\"id\":8} {\"id\":8,\"state\":\"bob\"}",
            "silver.orders {\"id\":1} -",
            "silver.orders {\"id\":2} {\"id\":2,\"state\":\"new\"}",
        ]
    );
    run.end();
}

/// A topic that is recreated while the run goes on is empty, whatever was sent to it before.
#[test]
fn a_topic_that_brokers_know_nothing_of_gets_all_rows() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&two());
    let mut channel = flow.channel(&run, &cluster);
    channel
        .catch_up(run.commit(1, &[(0, row![1, "new"], 1), (1, row![7, "ann"], 1)]))
        .unwrap();
    cluster.state().epochs.remove("silver.orders");
    run.commit(2, &[(0, row![2, "new"], 1)]);
    cluster.fail(0, super::brokers::When::Before);
    super::flow::catch_up(&mut channel, 2, 2).unwrap();
    assert_eq!(cluster.state().transactions.last().unwrap().2.len(), 2);
    assert_eq!(cluster.records("silver.customers").len(), 1);
    run.end();
}

#[test]
fn a_snapshot_that_topics_have_and_the_lake_has_not_is_told() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut run = flow.run(&two());
    let mut channel = flow.channel(&run, &cluster);
    channel.catch_up(run.commit(1, &[(0, row![1, "new"], 1)])).unwrap();
    run.commit(2, &[(0, row![2, "new"], 1)]);
    run.commit(3, &[(0, row![3, "new"], 1)]);
    run.end();
    flow.forget(1);
    flow.remove_files("_alluvium/snapshots");
    let error = channel.catch_up(3).expect_err("nobody knows what changed");
    assert!(
        matches!(error, PublishError::Lost { epoch: 1, .. }) && !error.may_pass(),
        "{error}"
    );
}

/// A run that was overtaken would fence its successor's producer by opening its own anew.
#[test]
fn a_run_that_another_took_over_from_opens_no_producer() {
    let (flow, cluster) = (PublishFlow::new(), Cluster::default());
    let mut old = flow.run(&two());
    let mut stale = flow.channel(&old, &cluster);
    stale.catch_up(old.commit(1, &[(0, row![1, "new"], 1)])).unwrap();
    let new = flow.run(&two());
    let mut channel = flow.channel(&new, &cluster);
    channel.catch_up(1).unwrap();
    let opened = cluster.state().opened;
    let calls = cluster.calls();
    cluster.fail(0, super::brokers::When::Before);
    assert!(stale.refresh().is_err_and(|error| error.may_pass()), "{calls}");
    let error = stale.catch_up(1).expect_err("it is superseded");
    assert!(
        matches!(error, PublishError::Superseded { ours: 1, theirs: 2 }),
        "{error}"
    );
    assert_eq!(cluster.state().opened, opened);
    new.end();
}
