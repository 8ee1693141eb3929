//! Real files, as readers see them.

use super::*;
use crate::testing::real_data;

#[test]
fn every_record_of_a_year_of_invoices_comes_once() {
    let Some(days) = real_data("online_retail/by-day") else {
        return;
    };
    let flow = files(&days, "*.csv.gz", Format::Csv);
    let options = ReaderOptions {
        stop_at_end: true,
        ..ReaderOptions::default()
    };
    let start = Instant::now();
    let run = run(&flow, &FeedPositions::new(), 2, 16, options);
    let (mut files, mut records, mut bytes) = (0, 0, 0);
    loop {
        let exhausted = run.readers.exhausted();
        for delivery in run.deliveries.iter().flat_map(|d| d.try_iter()) {
            files += usize::from(delivery.position.done);
            records += delivery.decoded.raw.len();
            assert!(delivery.decoded.rejects.is_empty());
            assert!(
                delivery.decoded.raw.is_empty() || delivery.decoded.raw.header.as_deref().unwrap().starts_with("Inv")
            );
            let Payloads::Records { values, .. } = &delivery.decoded.raw.payloads else {
                panic!()
            };
            bytes += values.value_data().len();
        }
        if exhausted {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed().as_secs_f64();
    eprintln!(
        "retail: {files} files, {records} records, {bytes} bytes in {took:.2} s: {:.0}/s",
        records as f64 / took
    );
    assert_eq!((files, records), (305, 541_909));
    run.readers.stop().unwrap();
}

#[test]
fn event_hubs_captures_are_read_as_containers() {
    let Some(captured) = real_data("eventhubs_capture") else {
        return;
    };
    let flow = files(&captured, "*/*", Format::Avro);
    let run = run(
        &flow,
        &FeedPositions::new(),
        1,
        1000,
        ReaderOptions {
            stop_at_end: true,
            ..options()
        },
    );
    let mut came: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    while !run.readers.exhausted() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for delivery in run.deliveries[0].try_iter() {
        let (records, rejects) = came.entry(delivery.partition.to_string()).or_default();
        *records += delivery.decoded.raw.len();
        rejects.extend(delivery.decoded.rejects.into_iter().map(|r| r.reason));
    }
    for (name, records) in [("cosh/54.avro", 380), ("cosh/empty.avro", 0), ("bluefrog/05", 1)] {
        assert_eq!(came[name], (records, vec![]), "{name}");
    }
    assert_eq!(came["cosh/README.md"].1.len(), 1, "no container: {came:?}");
}
