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
fn a_log_goes_on_in_the_middle() {
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
}

/// A log that was cut off, replaced or removed ended the run, and every restart, whatever other feeds had to bring.
#[test]
fn a_log_that_lost_what_was_read_waits_and_goes_on_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("0.ndjson"), folder.path().join("1.ndjson"));
    let aside = folder.path().join("aside");
    let all = b"{\"value\":1}\n{\"value\":2}\n";
    std::fs::write(&path, all).unwrap();
    std::fs::write(&other, "").unwrap();
    let flow = log(folder.path());
    let first = run(&flow, &Progress::new(), 1, 100, options());
    let position = first.next().position;
    assert_eq!(position.next, all.len() as u64);
    let resume = progress("0", &position);
    let losses: [(&str, &dyn Fn(), &str); 4] = [
        (
            "cut off",
            &|| {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(20).unwrap();
            },
            "is 20 bytes long",
        ),
        (
            "removed",
            &|| std::fs::remove_file(&path).unwrap(),
            "was read up to byte",
        ),
        (
            "replaced by another",
            &|| {
                std::fs::write(&aside, [&all[..all.len() - 1], b"x\n"].concat()).unwrap();
                std::fs::rename(&aside, &path).unwrap();
            },
            "no line's end before byte",
        ),
        (
            "replaced by a shorter one",
            &|| {
                std::fs::write(&aside, "").unwrap();
                std::fs::rename(&aside, &path).unwrap();
            },
            "is 0 bytes long",
        ),
    ];
    first.readers.stop().unwrap();
    let append = |path: &Path, line: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    };
    let until_other = |run: &Run| {
        append(&other, "{\"value\":9}\n");
        let end = std::fs::metadata(&other).unwrap().len();
        while run.next().position.next != end {}
    };
    for (what, lose, cause) in losses {
        for at_start in [false, true] {
            std::fs::write(&path, all).unwrap();
            if at_start {
                lose();
            }
            let run = run(&flow, &resume, 1, 100, options());
            until_other(&run); // so the log was opened, if it could be
            if !at_start {
                lose();
            }
            let told = run.waits_for();
            assert!(told.contains(cause) && told.contains("restore it"), "{what}: {told}");
            until_other(&run);
            std::fs::write(&path, all).unwrap();
            run.goes_on();
            append(&path, "{\"value\":3}\n");
            let delivery = run.within_a_while("a record", |run| {
                run.deliveries[0]
                    .try_iter()
                    .find(|delivery| &*delivery.partition == "0")
            });
            let came = values(&delivery.decoded.raw);
            assert_eq!(came, [(all.len() as u64, "3".into())], "{what} {at_start}");
            run.readers.stop().unwrap();
        }
    }
}

/// Whoever restored a log by renaming a copy into its place was not heard: the removed file was read on.
#[test]
fn a_log_that_is_replaced_by_a_longer_copy_of_itself_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.ndjson");
    std::fs::write(&path, "{\"value\":1}\n").unwrap();
    let run = run(&log(folder.path()), &Progress::new(), 1, 100, options());
    run.next();
    let aside = folder.path().join("aside");
    std::fs::write(&aside, "{\"value\":1}\n{\"value\":2}\n").unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(values(&run.next().decoded.raw), [(12, "2".into())]);
    run.readers.stop().unwrap();
}
