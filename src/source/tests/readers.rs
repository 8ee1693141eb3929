//! Threads of readers: back-pressure, stopping, distribution over workers, failures.

use super::*;

#[test]
fn a_full_queue_stops_the_readers() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..40_000).map(|n| format!("{{\"a\":{n}}}\n")).collect();
    put(folder.path().join("a.ndjson"), &text);
    let flow = files(folder.path(), "*.ndjson", Format::Ndjson);
    let run = run(&flow, &FeedPositions::new(), 1, 2, options());
    run.next();
    std::thread::sleep(Duration::from_millis(200));
    // One delivery was taken, two are in the queue, and the reader holds one; each has four records.
    assert_eq!(run.decoded.load(Ordering::Relaxed), 16);
    assert!(!run.readers.exhausted());
    assert_eq!(run.readers.statuses()[0].lag_files, 1);
    let came = run.drain();
    assert_eq!(came["a.ndjson"].records.len(), 40_000 - 4);
    run.readers.stop().unwrap();
}

#[test]
fn stopping_does_not_wait_for_a_worker_that_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("a.ndjson"), "1\n".repeat(1000));
    let run = run(
        &files(folder.path(), "*", Format::Ndjson),
        &FeedPositions::new(),
        1,
        1,
        options(),
    );
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    run.readers.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(run.deliveries[0].len() <= 1);
}

#[test]
fn partitions_are_spread_over_workers_and_each_has_one() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..40 {
        put(folder.path().join(format!("{n}.ndjson")), "1\n2\n3\n4\n5\n6\n7\n");
    }
    let flow = files(folder.path(), "*.ndjson", Format::Ndjson);
    let run = run(
        &flow,
        &FeedPositions::new(),
        2,
        1000,
        ReaderOptions {
            stop_at_end: true,
            ..options()
        },
    );
    while !run.readers.exhausted() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut by_worker = Vec::new();
    for worker in &run.deliveries {
        let mut came = BTreeMap::new();
        worker.try_iter().for_each(|delivery| take(&mut came, delivery));
        assert!(came.len() > 8, "{} of 40 files at one worker", came.len());
        assert!(came.values().all(|c| records(c) == ["1", "2", "3", "4", "5", "6", "7"]));
        by_worker.push(came);
    }
    assert_eq!(by_worker[0].len() + by_worker[1].len(), 40);
    assert!(by_worker[0].keys().all(|name| !by_worker[1].contains_key(name)));
}

#[test]
fn a_reader_that_panics_or_loses_its_worker_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("a.ndjson"), "1\n");
    let flow = files(folder.path(), "*.ndjson", Format::Ndjson);
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let channel = || WorkerChannel {
        sender: sender.clone(),
        together: sender.clone(),
        wake: Arc::new(|| {}),
    };
    let wait = |readers: Readers| {
        let start = Instant::now();
        while readers.failure().is_none() {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        readers.stop().unwrap_err()
    };
    let panicking: Decoders = Arc::new(|_, _| Box::new(|_| panic!("on purpose")));
    let readers = start(
        flow.clone(),
        &FeedPositions::new(),
        panicking.clone(),
        vec![channel()],
        options(),
    )
    .unwrap();
    assert!(wait(readers).to_string().contains("panicked: on purpose"));
    put(folder.path().join("a.ndjson"), "");
    drop(receiver);
    let readers = start(flow, &FeedPositions::new(), panicking, vec![channel()], options()).unwrap();
    assert!(matches!(wait(readers), SourceError::Disconnected { worker: 0, .. }));
}
