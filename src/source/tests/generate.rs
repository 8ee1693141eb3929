//! Generators as feeds deliver each event once, at the configured rate.

use super::*;

fn generate(rate: Option<f64>, limit: Option<u64>, partitions: u32) -> Arc<Dataflow> {
    let settings = Generate {
        generator: "retail.products".into(),
        rate,
        limit,
        seed: 3,
        partitions,
        updates: 0.4,
        deletes: 0.1,
        duplicates: 0.0,
        late: 0.1,
        broken: 0.0,
    };
    dataflow(vec![input(
        "i",
        vec![("f", FeedKind::Generate(settings), Format::DebeziumJson)],
    )])
}

#[test]
fn a_generator_hands_over_each_event_once_over_a_restart() {
    let flow = generate(None, Some(1000), 3);
    let whole = run(&flow, &FeedPositions::new(), 1, 10_000, options()).drain();
    assert_eq!(whole.values().map(|c| c.records.len()).sum::<usize>(), 1000);
    assert_eq!(whole.len(), 3);
    // The snapshot in between holds one partition further than the others.
    let resume: FeedPositions = [("0", 300), ("1", 304)]
        .into_iter()
        .flat_map(|(name, next)| {
            progress(
                name,
                &Position {
                    next,
                    done: false,
                    tag: None,
                    ..Position::default()
                },
            )
        })
        .collect();
    let rest = run(&flow, &resume, 1, 10_000, options()).drain();
    for (name, from) in [("0", 300), ("1", 304), ("2", 0)] {
        let expected: Vec<_> = whole[name]
            .records
            .iter()
            .filter(|(n, _)| *n >= from)
            .cloned()
            .collect();
        assert_eq!(rest[name].records, expected);
    }
}

#[test]
fn a_paced_generator_keeps_its_rate_and_a_slow_worker_shows_as_lateness() {
    let flow = generate(Some(2000.0), Some(1000), 1);
    let start = Instant::now();
    let run = run(
        &flow,
        &FeedPositions::new(),
        1,
        1,
        ReaderOptions {
            batch_rows: 100,
            ..options()
        },
    );
    let first = run.next();
    std::thread::sleep(Duration::from_millis(200)); // held up
    let mut last = first.arrived;
    let (mut records, mut lateness) = (first.decoded.raw.len(), Duration::ZERO);
    while records < 1000 {
        let delivery = run.next();
        let now = Instant::now();
        assert!(delivery.arrived >= last, "due times do not go back");
        lateness = lateness.max(now - delivery.arrived);
        last = delivery.arrived;
        records += delivery.decoded.raw.len();
        // The due time depends only on the number, however late the event was delivered.
        let due = Duration::from_secs_f64(delivery.decoded.raw.offsets[0] as f64 / 2000.0);
        let off = (delivery.arrived - first.arrived).abs_diff(due);
        assert!(off < Duration::from_millis(2), "{off:?}");
    }
    assert_eq!(records, 1000);
    assert!(lateness > Duration::from_millis(150), "{lateness:?}");
    assert!(
        start.elapsed() > Duration::from_millis(495),
        "not ahead of the rate: {:?}",
        start.elapsed()
    );
    while !run.readers.exhausted() {
        std::thread::sleep(Duration::from_millis(1));
    }
    run.readers.stop().unwrap();
}
