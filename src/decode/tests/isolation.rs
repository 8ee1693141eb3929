//! Records do not affect each other: a batch decodes to what its records decode to alone, however their bytes were
//! damaged.

use super::*;
use proptest::prelude::*;

/// Compares the decoding of a batch with that of its records alone.
fn compare(
    format: Format,
    key: &[&str],
    columns: &[Col],
    header: Option<&str>,
    records: &[Vec<u8>],
) -> Result<(), TestCaseError> {
    compare_by(&|| decoder(format, key, columns.to_vec()), header, records)
}

/// The same, with decoders that `decoder` makes.
fn compare_by(decoder: &dyn Fn() -> Ready, header: Option<&str>, records: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let batch = decoder().decode(raw(header, records));
    let (mut lines, mut reasons, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let mut ignored = std::collections::BTreeMap::new();
    for (n, record) in records.iter().enumerate() {
        // Each record gets a fresh decoder, because nothing learnt from one record may change another.
        let alone = decoder().decode(raw(header, &[record]));
        lines.extend(rows(&alone).into_iter().map(|line| format!("{n}{}", &line[1..])));
        reasons.extend(rejects(&alone).into_iter().map(|line| format!("{n}{}", &line[1..])));
        times.extend(alone.source_ms);
        for (name, count) in alone.ignored_fields {
            *ignored.entry(name).or_insert(0) += count;
        }
    }
    prop_assert_eq!(rows(&batch), lines);
    prop_assert_eq!(rejects(&batch), reasons);
    prop_assert_eq!(batch.source_ms, times);
    let counted: std::collections::BTreeMap<_, _> = batch.ignored_fields.into_iter().collect();
    prop_assert_eq!(counted, ignored);
    Ok(())
}

const ENVELOPES: [&str; 8] = [
    r#"{"before":null,"after":{"id":3107,"name":"Brenda","price":392.25,"at":1734539354748899,"tags":["a"]},"source":{"ts_ms":1734568154752,"lsn":66756335160},"op":"c","ts_ms":1734568155168}"#,
    r#"{"before":{"id":1,"name":"a"},"after":{"id":2,"name":"b","price":"AYHN"},"source":{"lsn":7},"op":"u"}"#,
    r#"{"schema":{"fields":[{"field":"after","fields":[{"field":"at","name":"io.debezium.time.Timestamp"}]}]},"payload":{"op":"c","after":{"id":1,"at":1500000000123}}}"#,
    r#"{"before":{"id":1,"price":"x"},"after":null,"op":"d"}"#,
    r#"{"op":"t","ts_ms":1559033904961}"#,
    r#"{"status":"END","id":"571","ts_ms":1486500577125}"#,
    r#"{"schema":null,"payload":null}"#,
    r#"{"op":"u","before":null,"after":{"id":5,"name":"__debezium_unavailable_value","x":{"y":[1,{"z":null}]}}}"#,
];

const OBJECTS: [&str; 4] = [
    r#"{"id":1,"name":"a\u00e9\n","price":1.5,"at":"2011-12-09T12:50:00Z","tags":["x",null]}"#,
    r#"{"id":"2","x":{"y":[1,{"z":null}]},"name":{"n":1}}"#,
    r#"{"id":9223372036854775808}"#,
    r#" {"id":3,"tags":"[1]","price":"-0.10"} "#,
];

const LINES: [&str; 5] = [
    "536365,85123A,6,2010-12-01 08:26:00,x",
    "1,\"a \"\"b\"\", c\",2.55,,\"y\"",
    ",,,,",
    "3,é,NA,2010-12-01 08:26,x\r\n",
    "\"4\",\"two\nlines\",1,,",
];

fn columns() -> Vec<Col> {
    vec![
        col("id", "BIGINT").required(),
        col("name", "VARCHAR"),
        col("price", "DECIMAL(12,3)").null(&["NA"]),
        col("at", "TIMESTAMP"),
        col("tags", "VARCHAR[]"),
        col("lsn", "BIGINT").from(&["source.lsn"]),
    ]
}

/// Records of a kind, most of them damaged: a stretch is replaced by other bytes, or doubled.
fn spoiled(samples: &'static [&'static str]) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let junk = prop::sample::select(vec![
        &b""[..],
        b"\"",
        b",",
        b"{",
        b"}",
        b"]",
        b":",
        b"null",
        b"0",
        b"-",
        b"\\",
        b"\n",
        b"\xff",
        b"\xe9",
        b"1e400",
        b"u",
        b"true",
    ]);
    let change = (any::<prop::sample::Index>(), 0usize..6, junk);
    let record = (prop::sample::select(samples), prop::collection::vec(change, 0..3)).prop_map(|(sample, changes)| {
        let mut bytes = sample.as_bytes().to_vec();
        for (at, length, junk) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, junk.iter().copied());
        }
        bytes
    });
    prop::collection::vec(record, 1..9)
}

/// Binary records, most of them damaged: bytes are replaced, doubled or cut off, or lengths claim missing bytes.
fn spoiled_bytes(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let junk = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(vec![
            vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
            vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            vec![0x01],
            vec![0, 0, 0, 0, 9],
        ]),
    ];
    let change = (any::<prop::sample::Index>(), 0usize..6, junk);
    let record =
        (prop::sample::select(samples), prop::collection::vec(change, 0..3)).prop_map(|(mut bytes, changes)| {
            for (at, length, junk) in changes {
                // The header is rarely damaged, because otherwise few records would get past it.
                let at = at
                    .index(bytes.len() + 1)
                    .max(if length == 5 { 0 } else { 5 })
                    .min(bytes.len());
                let end = (at + length).min(bytes.len());
                bytes.splice(at..end, junk);
            }
            bytes
        });
    prop::collection::vec(record, 1..9)
}

/// Decodes damaged records of a format, together and alone.
fn compare_spoiled(wired: &super::wire::Wired, samples: Vec<Vec<u8>>) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let outcome = runner.run(&spoiled_bytes(samples), |records| {
        compare_by(&|| wired.decoder(), None, &records)
    });
    outcome.unwrap();
}

#[test]
fn avro_records_decode_alone_as_together() {
    let (wired, samples) = super::avro::samples();
    compare_spoiled(&wired, samples);
}

#[test]
fn avro_envelopes_decode_alone_as_together() {
    for key in [&["id"][..], &[]] {
        let (wired, samples) = super::debezium_avro::samples(key);
        compare_spoiled(&wired, samples);
    }
}

#[test]
fn protobuf_records_decode_alone_as_together() {
    let (wired, samples) = super::protobuf::samples();
    compare_spoiled(&wired, samples);
}

const CANAL: [&str; 3] = [
    r#"{"data":[{"id":"1","name":"a"},{"id":"2","price":"1.5"}],"es":5000,"isDdl":false,"old":null,"type":"INSERT"}"#,
    r#"{"data":[{"id":"1","name":"b"}],"es":6000,"old":[{"id":"2"}],"type":"UPDATE"}"#,
    r#"{"data":null,"type":"TRUNCATE"}"#,
];

const MAXWELL: [&str; 3] = [
    r#"{"type":"insert","ts":5,"xid":9,"data":{"id":1,"name":"a","tags":["x"]}}"#,
    r#"{"type":"update","ts":6,"data":{"id":2,"name":"a"},"old":{"id":1}}"#,
    r#"{"type":"delete","ts":7,"data":{"id":2,"price":1.5}}"#,
];

const FLAT: [&str; 2] = [
    r#"{"id":1,"name":"a","__deleted":"true","__source_ts_ms":5}"#,
    r#"{"id":2,"name":"b","__op":"u","__ts_ms":"6","__deleted":false}"#,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn canal_s_maxwell_s_and_flat_records_decode_alone_as_together(
        canal in spoiled(&CANAL), maxwell in spoiled(&MAXWELL), flat in spoiled(&FLAT)
    ) {
        compare(Format::CanalJson, &["id"], &columns(), None, &canal)?;
        compare(Format::MaxwellJson, &[], &columns(), None, &maxwell)?;
        compare(Format::Json, &["id"], &columns(), None, &flat)?;
        compare(Format::Raw, &[], &[col("value", "VARCHAR")], None, &flat)?;
    }

    #[test]
    fn envelopes_decode_alone_as_together(records in spoiled(&ENVELOPES)) {
        compare(Format::DebeziumJson, &["id"], &columns(), None, &records)?;
        compare(Format::DebeziumJson, &[], &columns(), None, &records)?;
    }

    #[test]
    fn objects_decode_alone_as_together(records in spoiled(&OBJECTS)) {
        compare(Format::Json, &["id"], &columns(), None, &records)?;
    }

    #[test]
    fn lines_decode_alone_as_together(records in spoiled(&LINES)) {
        compare(Format::Csv, &[], &columns(), Some("id,name,price,at,other"), &records)?;
    }

    #[test]
    fn any_bytes_at_all_are_decoded_or_refused(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5)) {
        for format in [Format::Csv, Format::Json, Format::DebeziumJson] {
            compare(format, &["id"], &columns(), Some("id,name,price,at,other"), &records)?;
        }
    }

    #[test]
    fn any_header_is_used_or_refused(header in "[a-z,\"\u{feff} ]{0,20}", records in spoiled(&LINES)) {
        compare(Format::Csv, &[], &columns(), Some(&header), &records)?;
    }
}
