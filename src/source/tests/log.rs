//! The embedded log: followed, resumed, and held to what was read.

use super::*;

#[test]
fn a_log_is_followed_a_torn_line_waits_and_new_partitions_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let flow = log(&path);
    let run = run(&flow, &Progress::new(), 1, 100, options());
    assert!(run.drain().is_empty(), "a folder that is not there is an empty log");
    let mut writer = LogWriter::open(&path, false).unwrap();
    let record = |value| LogRecord {
        key: Some(b"\"k\""),
        value,
        ts_ms: Some(5),
        ..LogRecord::default()
    };
    let end = writer.append("0", [record(Some(b"{\"a\":1}")), record(None)]).unwrap();
    let delivery = run.next();
    let Payloads::Records {
        values: _,
        keys: Some(keys),
        headers: None,
        ts_ms,
    } = &delivery.decoded.raw.payloads
    else {
        panic!()
    };
    assert_eq!(
        (keys.value(0), ts_ms.as_slice()),
        (&b"\"k\""[..], &[Some(5), Some(5)][..])
    );
    assert_eq!(
        values(&delivery.decoded.raw),
        [(0, "{\"a\":1}".into()), (38, "(null)".into())]
    );
    assert_eq!((delivery.position.next, &*delivery.partition), (end, "0"));
    // Torn, whatever it looks like.
    let mut file = std::fs::OpenOptions::new().append(true).open(writer.path("0")).unwrap();
    file.write_all(b"{\"value\":{\"a\":2}}").unwrap();
    std::thread::sleep(Duration::from_millis(60));
    assert!(run.deliveries[0].is_empty() && run.readers.exhausted());
    file.write_all(b"\n\nbroken\n").unwrap();
    let mut came = BTreeMap::new();
    while came.get("0").is_none_or(|c: &Came| c.records.len() < 2) {
        take(&mut came, run.next());
    }
    assert_eq!(
        came["0"].records,
        [(end, "{\"a\":2}".into()), (end + 19, "broken".into())]
    );
    assert_eq!(came["0"].position.as_ref().unwrap().next, end + 26);
    writer.append("7", [record(Some(b"3"))]).unwrap();
    assert_eq!(&*run.next().partition, "7");
    run.readers.stop().unwrap();
}

#[test]
fn a_log_goes_on_in_the_middle_and_must_not_shrink() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(folder.path(), false).unwrap();
    let values: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    for value in &values {
        writer
            .append(
                "0",
                [LogRecord {
                    value: Some(value.as_bytes()),
                    ..LogRecord::default()
                }],
            )
            .unwrap();
    }
    let flow = log(folder.path());
    let first = run(&flow, &Progress::new(), 1, 100, options());
    let position = first.next().position;
    first.readers.stop().unwrap();
    let second = run(
        &flow,
        &progress("0", &position),
        1,
        100,
        ReaderOptions {
            stop_at_end: true,
            ..options()
        },
    );
    let came = second.drain().remove("0").unwrap();
    assert_eq!(records(&came), values[4..]);
    second.readers.stop().unwrap();
    let all = std::fs::read(writer.path("0")).unwrap();
    let resume = progress("0", &came.position.unwrap());
    // Shorter at the start, shorter while running, gone, other bytes.
    std::fs::write(writer.path("0"), &all[..all.len() - 1]).unwrap();
    let third = run(&flow, &resume, 1, 100, options());
    assert!(matches!(third.failure(), SourceError::LogShrank { .. }));
    assert!(matches!(third.readers.stop(), Err(SourceError::LogShrank { .. })));
    std::fs::write(writer.path("0"), &all).unwrap();
    let fourth = run(&flow, &resume, 1, 100, options());
    fourth.drain();
    std::fs::OpenOptions::new()
        .write(true)
        .open(writer.path("0"))
        .unwrap()
        .set_len(20)
        .unwrap();
    let message = fourth.failure().to_string();
    assert!(
        message.contains("0.ndjson") && message.contains("is 20 bytes long"),
        "{message}"
    );
    std::fs::write(writer.path("0"), [&all[..all.len() - 1], b"x\n"].concat()).unwrap();
    assert!(matches!(
        run(&flow, &resume, 1, 100, options()).failure(),
        SourceError::LogRewritten { .. }
    ));
    std::fs::remove_file(writer.path("0")).unwrap();
    assert!(matches!(
        run(&flow, &resume, 1, 100, options()).failure(),
        SourceError::LogShrank { size: 0, .. }
    ));
}
