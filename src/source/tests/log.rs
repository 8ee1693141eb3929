//! The embedded log is followed, resumed, and checked against what was read.

use super::*;

#[test]
fn a_log_is_followed_a_torn_line_waits_and_new_partitions_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let flow = log(&path);
    let run = run(&flow, &FeedPositions::new(), 1, 100, options());
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
    // A line without its end is torn, even if it looks complete.
    let mut file = std::fs::OpenOptions::new().append(true).open(writer.path("0")).unwrap();
    file.write_all(b"{\"value\":{\"a\":2}}").unwrap();
    std::thread::sleep(Duration::from_millis(60));
    assert!(run.deliveries[0].is_empty() && run.readers.exhausted());
    file.write_all(b"\n\nbroken\n").unwrap();
    let mut came = BTreeMap::new();
    while came.get("0").is_none_or(|c: &PartitionArrivals| c.records.len() < 2) {
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
    let first = run(&flow, &FeedPositions::new(), 1, 100, options());
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

/// A log that was truncated, replaced or removed ended the run and every restart, whatever other feeds had to
/// deliver.
#[test]
fn a_log_that_lost_what_was_read_waits_and_goes_on_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("0.ndjson"), folder.path().join("1.ndjson"));
    let aside = folder.path().join("aside");
    let all = b"{\"value\":1}\n{\"value\":2}\n";
    std::fs::write(&path, all).unwrap();
    std::fs::write(&other, "").unwrap();
    let flow = log(folder.path());
    let first = run(&flow, &FeedPositions::new(), 1, 100, options());
    let position = first.next().position;
    assert_eq!(position.next, all.len() as u64);
    let resume = progress("0", &position);
    let anew = b"{\"value\":8}\n{\"value\":9}\n";
    let longer = [anew, &b"{\"value\":10}\n"[..]].concat();
    let overwrite = |bytes: &[u8]| {
        // Modification times have the resolution of a clock tick.
        std::thread::sleep(Duration::from_millis(20));
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
    };
    let losses: [(&str, &dyn Fn(), &str); 7] = [
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
        (
            "written anew, as long",
            &|| overwrite(anew),
            "holds other bytes than were read",
        ),
        (
            "written anew, longer",
            &|| overwrite(&longer),
            "holds other bytes than were read",
        ),
        (
            "replaced by a longer one",
            &|| {
                std::fs::write(&aside, &longer).unwrap();
                std::fs::rename(&aside, &path).unwrap();
            },
            "holds other bytes than were read",
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
            let message = run.waits_for();
            assert!(
                message.contains(cause) && message.contains("restore it"),
                "{what}: {message}"
            );
            until_other(&run);
            std::fs::write(&path, all).unwrap();
            run.wait_until_resumed();
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

/// If a log was restored by renaming a copy into its place, that went unnoticed, and the removed file was read
/// further.
#[test]
fn a_log_that_is_replaced_by_a_longer_copy_of_itself_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.ndjson");
    std::fs::write(&path, "{\"value\":1}\n").unwrap();
    let run = run(&log(folder.path()), &FeedPositions::new(), 1, 100, options());
    run.next();
    let aside = folder.path().join("aside");
    std::fs::write(&aside, "{\"value\":1}\n{\"value\":2}\n").unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(values(&run.next().decoded.raw), [(12, "2".into())]);
    run.readers.stop().unwrap();
}

fn lines(values: std::ops::Range<u32>) -> String {
    values.map(|n| format!("{{\"value\":{n}}}\n")).collect()
}

/// Reads all that exists, in one run, and adds the positions reached to `resume`.
fn read_to_end(flow: &Arc<Dataflow>, resume: &mut FeedPositions) -> BTreeMap<String, PartitionArrivals> {
    let ends = ReaderOptions {
        stop_at_end: true,
        ..options()
    };
    let run = run(flow, resume, 1, 100, ends);
    let came = run.drain();
    for (partition, came) in &came {
        resume.extend(progress(partition, came.position.as_ref().unwrap()));
    }
    run.readers.stop().unwrap();
    came
}

/// A log that was rewritten and at least as long was read from the old offset on: its first records were silently
/// lost.
#[test]
fn a_log_that_was_written_anew_and_longer_is_read_from_its_beginning_where_its_feed_says_so() {
    for is_live in [false, true] {
        for is_renamed in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (path, aside) = (folder.path().join("0.ndjson"), folder.path().join("aside"));
            let flow = log_with(folder.path(), OnMissing::Earliest);
            std::fs::write(&path, lines(100..110)).unwrap();
            let mut resume = FeedPositions::new();
            let mut came = BTreeMap::new();
            let live = is_live.then(|| run(&flow, &resume, 1, 100, options()));
            match &live {
                Some(run) => {
                    while came.get("0").is_none_or(|c: &PartitionArrivals| c.records.len() < 10) {
                        take(&mut came, run.next());
                    }
                }
                None => came = read_to_end(&flow, &mut resume),
            }
            match is_renamed {
                true => {
                    std::fs::write(&aside, lines(200..250)).unwrap();
                    std::fs::rename(&aside, &path).unwrap();
                }
                false => std::fs::write(&path, lines(200..250)).unwrap(),
            }
            match live {
                Some(run) => {
                    while came["0"].records.len() < 60 {
                        take(&mut came, run.next());
                    }
                    run.readers.stop().unwrap();
                }
                None => {
                    let more = read_to_end(&flow, &mut resume).remove("0").unwrap();
                    let all = came.get_mut("0").unwrap();
                    all.records.extend(more.records);
                    all.rejects.extend(more.rejects);
                }
            }
            let expected: Vec<String> = (100..110).chain(200..250).map(|n: u32| n.to_string()).collect();
            assert_eq!(records(&came["0"]), expected, "{is_live} {is_renamed}");
            let [reason] = &came["0"].rejects[..] else {
                panic!("{:?}", came["0"].rejects)
            };
            assert!(
                reason.contains("what it holds now is read from its beginning"),
                "{reason}"
            );
        }
    }
}

#[test]
fn a_position_from_before_there_were_marks_is_read_on_and_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0.ndjson"), lines(0..3)).unwrap();
    let mut resume = progress("0", &Position::at(24));
    let came = read_to_end(&log(folder.path()), &mut resume).remove("0").unwrap();
    assert_eq!(came.records, [(24, "2".into())]);
    std::fs::write(folder.path().join("0.ndjson"), lines(0..3)).unwrap();
    let mut resume = progress("0", &Position::at(36));
    let came = read_to_end(&log(folder.path()), &mut resume).remove("0").unwrap();
    assert!(came.records.is_empty());
    assert!(came.position.unwrap().log.is_some());
}

/// Rotation within the folder delivered every row twice: the file with its new name counted as a new partition.
#[test]
fn a_log_that_is_renamed_within_its_folder_is_not_read_twice() {
    for is_live in [false, true] {
        for is_followed in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (path, rotated) = (folder.path().join("0.ndjson"), folder.path().join("0-old.ndjson"));
            let flow = log_with(folder.path(), OnMissing::Earliest);
            std::fs::write(&path, lines(0..5)).unwrap();
            let mut resume = FeedPositions::new();
            let mut came = BTreeMap::new();
            let live = is_live.then(|| run(&flow, &resume, 1, 100, options()));
            match &live {
                Some(run) => {
                    while came.get("0").is_none_or(|c: &PartitionArrivals| c.records.len() < 5) {
                        take(&mut came, run.next());
                    }
                }
                None => came = read_to_end(&flow, &mut resume),
            }
            std::fs::rename(&path, &rotated).unwrap();
            let mut file = std::fs::OpenOptions::new().append(true).open(&rotated).unwrap();
            file.write_all(lines(5..6).as_bytes()).unwrap();
            if is_followed {
                std::fs::write(&path, lines(6..8)).unwrap();
            }
            let wanted = if is_followed { 8 } else { 6 };
            let records_of = |came: &BTreeMap<String, PartitionArrivals>| {
                let mut all: Vec<u32> = came
                    .values()
                    .flat_map(|c| &c.records)
                    .map(|r| r.1.parse().unwrap())
                    .collect();
                all.sort_unstable();
                all
            };
            match live {
                Some(run) => {
                    while records_of(&came).len() < wanted {
                        take(&mut came, run.next());
                    }
                    std::thread::sleep(Duration::from_millis(50));
                    run.deliveries[0]
                        .try_iter()
                        .for_each(|delivery| take(&mut came, delivery));
                    run.readers.stop().unwrap();
                }
                None => {
                    for (name, more) in read_to_end(&flow, &mut resume) {
                        came.entry(name).or_default().records.extend(more.records);
                    }
                    let again = read_to_end(&flow, &mut resume);
                    assert_eq!(records_of(&again), Vec::<u32>::new());
                }
            }
            let expected: Vec<u32> = (0..wanted as u32).collect();
            assert_eq!(records_of(&came), expected, "{is_live} {is_followed}");
        }
    }
}

#[test]
fn a_log_that_is_renamed_is_not_read_where_its_feed_waits_and_others_are() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("0.ndjson"), folder.path().join("0-old.ndjson"));
    std::fs::write(&path, lines(0..5)).unwrap();
    let flow = log(folder.path());
    let mut resume = FeedPositions::new();
    read_to_end(&flow, &mut resume);
    std::fs::rename(&path, &rotated).unwrap();
    let run = run(&flow, &resume, 1, 100, options());
    let message = run.waits_for();
    assert!(message.contains("so it is that log, renamed"), "{message}");
    assert!(run.deliveries[0].is_empty());
    std::fs::rename(&rotated, &path).unwrap();
    run.wait_until_resumed();
    // A file that begins like another log is a log of its own while that other log exists.
    std::fs::write(folder.path().join("1.ndjson"), lines(0..6)).unwrap();
    let mut came = BTreeMap::new();
    while came.get("1").is_none_or(|c: &PartitionArrivals| c.records.len() < 6) {
        take(&mut came, run.next());
    }
    run.readers.stop().unwrap();
}

/// Of `{"sensor": 1, "value": {...}}` only the inner object was read.
#[test]
fn a_line_with_fields_that_no_record_has_is_a_value_itself() {
    let folder = tempfile::tempdir().unwrap();
    let all = "{\"sensor\":1,\"value\":{\"a\":7}}\n{\"sensor\":2,\"value\":null}\n{\"value\":{\"a\":1}}\n";
    std::fs::write(folder.path().join("0.ndjson"), all).unwrap();
    let came = read_to_end(&log(folder.path()), &mut FeedPositions::new())
        .remove("0")
        .unwrap();
    let expected = [
        "{\"sensor\":1,\"value\":{\"a\":7}}",
        "{\"sensor\":2,\"value\":null}",
        "{\"a\":1}",
    ];
    assert_eq!(records(&came), expected);
}
