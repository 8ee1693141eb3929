//! Files are read once, completely and in order; unreadable ones become dead letters.

use super::*;

#[test]
fn existing_files_come_by_name_then_new_ones_as_they_appear_and_each_once() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("b.csv"), "a\n3\n");
    put(folder.path().join("a.csv.gz"), gz(b"\xef\xbb\xbfa\n1\n\n2"));
    put(
        folder.path().join("c.csv.zst"),
        zstd::encode_all(&b"a\n4"[..], 1).unwrap(),
    );
    let flow = files(folder.path(), "*.csv*", Format::Csv);
    let run = run(
        &flow,
        &FeedPositions::new(),
        1,
        100,
        ReaderOptions {
            file_readers: 1,
            ..options()
        },
    );
    let first: Vec<Delivery> = (0..3).map(|_| run.next()).collect();
    assert_eq!(
        first.iter().map(|d| &*d.partition).collect::<Vec<_>>(),
        ["a.csv.gz", "b.csv", "c.csv.zst"]
    );
    assert_eq!(values(&first[0].decoded.raw), [(0, "1".into()), (1, "2".into())]);
    assert_eq!(first[0].decoded.raw.header.as_deref(), Some("a"));
    assert!(first[0].position.done && first[0].position.next == 2);
    // New files: one that first has a temporary name, and one that grows.
    std::fs::write(folder.path().join("d.csv.tmp"), "a\n5\n").unwrap();
    std::fs::rename(folder.path().join("d.csv.tmp"), folder.path().join("d.csv")).unwrap();
    let delivery = run.next();
    assert_eq!(
        (&*delivery.partition, values(&delivery.decoded.raw)),
        ("d.csv", vec![(0, "5".into())])
    );
    std::thread::sleep(Duration::from_millis(80));
    assert!(run.deliveries[0].is_empty(), "each file once");
    let status = run.readers.statuses().remove(0);
    assert_eq!(
        (status.files_done, status.records, status.lag_files, status.exhausted),
        (4, 5, 0, true)
    );
    assert!(run.wakes.load(Ordering::Relaxed) >= 4);
    run.readers.stop().unwrap();
}

#[test]
fn a_file_that_is_being_written_is_not_read_half() {
    let folder = tempfile::tempdir().unwrap();
    let flow = files(folder.path(), "*.csv", Format::Csv);
    let settle = Duration::from_millis(800);
    let run = run(
        &flow,
        &FeedPositions::new(),
        1,
        100,
        ReaderOptions { settle, ..options() },
    );
    let mut file = std::fs::File::create(folder.path().join("a.csv")).unwrap();
    file.write_all(b"a\n").unwrap();
    for n in 0..8 {
        writeln!(file, "{n}").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(run.deliveries[0].is_empty() && !run.readers.exhausted() || n == 0);
    }
    drop(file);
    let came = run.drain();
    assert_eq!(records(&came["a.csv"]), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(came["a.csv"].rejects, Vec::<String>::new());
}

#[test]
fn an_unreadable_file_gives_its_good_rows_and_a_dead_letter_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..20_000)
        .map(|n| format!("{{\"a\":\"{}\"}}\n", n * 7919 % 10_007))
        .collect();
    let whole = gz(text.as_bytes());
    put(folder.path().join("a.ndjson.gz"), &whole[..whole.len() / 2]);
    put(folder.path().join("b.ndjson"), "{\"a\":1}\n");
    put(folder.path().join("c.ndjson.gz"), "\u{1}\u{0}no gzip");
    put(
        folder.path().join("d.ndjson.zst"),
        &zstd::encode_all(text.as_bytes(), 1).unwrap()[..1000],
    );
    put(folder.path().join("e.ndjson"), "");
    let flow = files(folder.path(), "*.ndjson*", Format::Ndjson);
    let run = run(
        &flow,
        &FeedPositions::new(),
        1,
        100_000,
        ReaderOptions {
            stop_at_end: true,
            ..options()
        },
    );
    let came = run.drain();
    let torn = &came["a.ndjson.gz"];
    let expected: Vec<&str> = text.lines().collect();
    assert!(torn.records.len() > 1000 && torn.records.len() < 20_000);
    assert_eq!(records(torn), expected[..torn.records.len()]);
    let position = torn.position.as_ref().unwrap();
    assert_eq!((position.done, position.next), (true, torn.records.len() as u64));
    assert_eq!(torn.rejects.len(), 1);
    assert!(
        torn.rejects[0].contains("a.ndjson.gz") && torn.rejects[0].contains("drop what is missing"),
        "{torn:?}"
    );
    assert_eq!(records(&came["b.ndjson"]), ["{\"a\":1}"]);
    for broken in ["c.ndjson.gz", "d.ndjson.zst"] {
        assert_eq!(
            (came[broken].rejects.len(), came[broken].position.as_ref().unwrap().done),
            (1, true),
            "{broken}"
        );
    }
    assert_eq!((came["e.ndjson"].records.len(), came["e.ndjson"].rejects.len()), (0, 0));
    assert!(came["e.ndjson"].position.as_ref().unwrap().done);
    run.readers.stop().unwrap();
}

/// Files that were written in parts, with pauses longer than `settle`, were given up for good.
#[test]
fn a_file_that_ends_where_more_must_come_waits_for_its_rest() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..5_000).map(|n| (n * 7919 % 10_007).to_string()).collect();
    let packed = gz(format!("a\n{}\n", rows.join("\n")).as_bytes());
    let parts: Vec<&[u8]> = packed.chunks(packed.len() / 3 + 1).collect();
    let mut flow = files(folder.path(), "*.csv*", Format::Csv);
    let input = &mut Arc::get_mut(&mut flow).unwrap().inputs[0];
    input.feeds[0].columns.clone_from(&input.columns);
    let slow = ReaderOptions {
        settle: Duration::from_millis(150),
        retries: 13,
        ..options()
    };
    let run = run(&flow, &FeedPositions::new(), 1, 100_000, slow);
    let add = |name: &str, bytes: &[u8]| {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.path().join(name));
        file.unwrap().write_all(bytes).unwrap();
    };
    add("header.csv", b"b");
    add("lost.csv", b"a\n6\n\"7");
    add("quote.csv", b"a\n1\n\"2");
    add("line.csv", b"a\n4\n4");
    for part in parts {
        add("torn.csv.gz", part);
        std::thread::sleep(Duration::from_millis(250));
    }
    add("quote.csv", b"\n3\"\n");
    add("line.csv", b"4\n5");
    add("header.csv", b",a\n4,5\n");
    let came = run.drain();
    assert_eq!(records(&came["torn.csv.gz"]), rows);
    assert_eq!(records(&came["quote.csv"]), ["1", "\"2\n3\""]);
    assert_eq!(records(&came["header.csv"]), ["4,5"]);
    assert_eq!(
        records(&came["line.csv"]),
        ["4", "44", "5"],
        "nobody ends the last line"
    );
    for name in ["torn.csv.gz", "quote.csv", "header.csv", "line.csv"] {
        assert_eq!(came[name].rejects, Vec::<String>::new(), "{name}");
    }
    // The rest of this file does not come for long.
    assert_eq!(records(&came["lost.csv"]), ["6"]);
    assert!(
        came["lost.csv"].rejects[0].contains("that begins on line 3 is never closed"),
        "{:?}",
        came["lost.csv"].rejects
    );
}

/// If a file's modification time lay in the future, its last record was delayed until then.
#[test]
fn a_file_of_the_future_is_read_to_its_end_once_it_was_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    put(path.clone(), "a\n4\n5");
    let next_year = SystemTime::now() + Duration::from_secs(365 * 86_400);
    std::fs::File::open(path).unwrap().set_modified(next_year).unwrap();
    let slow = ReaderOptions {
        settle: Duration::from_millis(50),
        retries: 13,
        ..options()
    };
    let run = run(
        &files(folder.path(), "*.csv", Format::Csv),
        &FeedPositions::new(),
        1,
        100,
        slow,
    );
    let came = run.drain();
    assert_eq!(records(&came["a.csv"]), ["4", "5"]);
    assert_eq!(came["a.csv"].rejects, Vec::<String>::new());
}

#[test]
fn reading_goes_on_in_the_middle_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..10).map(|n| format!("{n},\"x\ny\"")).collect();
    put(folder.path().join("a.csv"), format!("a,b\n{}\n", rows.join("\n")));
    let flow = files(folder.path(), "*.csv", Format::Csv);
    let first = run(&flow, &FeedPositions::new(), 1, 100, options());
    let position = first.next().position;
    assert_eq!((position.next, position.done), (4, false));
    first.readers.stop().unwrap();
    let second = run(&flow, &progress("a.csv", &position), 1, 100, options());
    let came = second.drain().remove("a.csv").unwrap();
    assert_eq!(records(&came), rows[4..]);
    assert_eq!(came.records[0].0, 4);
    let done = came.position.unwrap();
    assert!(done.done && done.next == 10);
    second.readers.stop().unwrap();
    // A file that is done is not read again; a change is reported once.
    let third = run(&flow, &progress("a.csv", &done), 1, 100, options());
    assert!(third.drain().is_empty());
    put(folder.path().join("a.csv"), "a,b\nother");
    let report = third.next();
    assert!(
        report.decoded.rejects[0]
            .reason
            .contains("was already read; drop corrected rows as a new file")
    );
    assert_eq!(
        (report.decoded.raw.len(), report.position.done, report.position.next),
        (0, true, 10)
    );
    std::thread::sleep(Duration::from_millis(100));
    assert!(third.deliveries[0].is_empty());
    third.readers.stop().unwrap();
    let fourth = run(&flow, &progress("a.csv", &report.position), 1, 100, options());
    assert!(fourth.drain().is_empty(), "told once over restarts too");
}

#[test]
fn parquet_and_avro_come_as_columns_and_go_on_in_the_middle() {
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    let folder = tempfile::tempdir().unwrap();
    let numbers = Arc::new(Int64Array::from_iter_values(0..10));
    let batch = RecordBatch::try_from_iter([("a", numbers as arrow::array::ArrayRef)]).unwrap();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    let parquet = parquet.into_inner().unwrap();
    put(folder.path().join("a.parquet"), &parquet);
    put(folder.path().join("b.parquet"), &parquet[..parquet.len() - 10]);
    let mut avro = arrow_avro::writer::AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    avro.write(&batch).unwrap();
    avro.write(&batch).unwrap();
    avro.finish().unwrap();
    let avro = avro.into_inner();
    put(folder.path().join("a.avro"), &avro);
    put(folder.path().join("b.avro"), &avro[..avro.len() - 20]);
    for (ending, format, rows) in [("parquet", Format::Parquet, 10), ("avro", Format::Avro, 20)] {
        let flow = files(folder.path(), &format!("*.{ending}"), format);
        let name = format!("a.{ending}");
        let mut tag = None;
        for from in [0, 3, rows] {
            let position = Position {
                next: from,
                done: false,
                tag: tag.clone(),
                ..Position::default()
            };
            let resume = if from == 0 {
                FeedPositions::new()
            } else {
                progress(&name, &position)
            };
            let run = run(
                &flow,
                &resume,
                1,
                100,
                ReaderOptions {
                    stop_at_end: true,
                    ..options()
                },
            );
            let (mut offsets, mut taken, mut rejects) = (vec![], vec![], vec![]);
            while let Ok(delivery) = run.deliveries[0].recv_timeout(Duration::from_secs(10)) {
                if *delivery.partition != *name {
                    rejects.extend(delivery.decoded.rejects.into_iter().map(|r| r.reason));
                    continue;
                }
                tag.clone_from(&delivery.position.tag);
                offsets.extend(delivery.decoded.raw.offsets);
                if let Payloads::Columns { batch, path, .. } = delivery.decoded.raw.payloads {
                    assert!(path.ends_with(&name) && path.starts_with('/'));
                    match batch.column(0).as_any().downcast_ref::<Int64Array>() {
                        Some(column) => taken.extend(column.values().iter().map(|v| *v as u64)),
                        // Avro encodes a small number n as the byte 2n.
                        None => taken.extend(
                            batch
                                .column(0)
                                .as_binary::<i32>()
                                .iter()
                                .map(|r| u64::from(r.unwrap()[0] / 2)),
                        ),
                    }
                }
                if delivery.position.done && !rejects.is_empty() {
                    break;
                }
                if run.readers.exhausted() && run.deliveries[0].is_empty() {
                    break;
                }
            }
            assert_eq!(offsets, (from..rows).collect::<Vec<_>>(), "{name} from {from}");
            assert_eq!(taken, (from..rows).map(|n| n % 10).collect::<Vec<_>>());
            for delivery in run.deliveries[0].iter() {
                rejects.extend(delivery.decoded.rejects.into_iter().map(|r| r.reason));
            }
            assert_eq!(rejects.len(), 1, "the torn file is a dead letter: {rejects:?}");
            run.readers.stop().unwrap();
        }
    }
}

/// Corrections of columnar files were refused. A reader that starts in the middle must count from the file's own
/// first row.
#[test]
fn a_correction_of_columns_goes_on_where_a_run_ended() {
    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    let folder = tempfile::tempdir().unwrap();
    let write = |numbers: std::ops::Range<i64>| {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        put(folder.path().join("a.parquet"), writer.into_inner().unwrap());
    };
    let mut flow = (*files(folder.path(), "*.parquet", Format::Parquet)).clone();
    if let FeedKind::Files(FileFeed { rules, .. }) = &mut flow.inputs[0].feeds[0].kind {
        rules.changed = Changed::Correct;
    }
    let flow = Arc::new(flow);
    let read = |resume: &FeedPositions| {
        let run = run(&flow, resume, 1, 100, options());
        let (mut records, mut offsets) = (Vec::new(), Vec::new());
        let position = loop {
            let delivery = run.next();
            assert!(delivery.decoded.rejects.is_empty(), "{:?}", delivery.decoded.rejects);
            offsets.extend(delivery.decoded.raw.offsets.iter().copied());
            if let Payloads::Columns { batch, .. } = &delivery.decoded.raw.payloads {
                records.extend(batch.column(0).as_primitive::<Int64Type>().values().to_vec());
                assert_eq!(delivery.decoded.raw.place.base, delivery.position.base);
            }
            if delivery.position.done {
                break delivery.position;
            }
        };
        run.readers.stop().unwrap();
        (offsets, records, position)
    };
    write(10..13);
    let (offsets, records, first) = read(&FeedPositions::new());
    assert_eq!((offsets, records), (vec![0, 1, 2], vec![10, 11, 12]));
    write(20..25);
    let (offsets, records, second) = read(&progress("a.parquet", &first));
    assert_eq!((offsets, records), ((3..8).collect(), (20..25).collect()));
    assert_eq!((second.base, second.next), (3, 8));
    let amid = Position {
        next: 5,
        done: false,
        ..second.clone()
    };
    let (offsets, records, again) = read(&progress("a.parquet", &amid));
    assert_eq!((offsets, records), ((5..8).collect(), (22..25).collect()));
    assert_eq!(again, second);
    // The same bytes, rewritten at another time, are no change.
    write(20..25);
    let (offsets, _, third) = read(&progress("a.parquet", &second));
    assert_eq!((offsets, third.next), (vec![], 8));
}
