//! Payloads from other programs, in `shared/data`; a test whose data is missing says so.

use super::*;
use crate::testing::real_data;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow::array::AsArray;
use arrow::compute::{max, min, sum};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use flate2::read::GzDecoder;

/// The files of a folder with this suffix, by name.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|p| p.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

/// A gzipped CSV file as batches of its lines (none of these files has a line end inside a field).
fn batches(file: &Path) -> Vec<Raw> {
    let mut lines = BufReader::new(GzDecoder::new(File::open(file).unwrap()))
        .split(b'\n')
        .map(|l| l.unwrap());
    let header = String::from_utf8(lines.next().unwrap()).unwrap();
    let lines: Vec<Vec<u8>> = lines.collect();
    lines.chunks(8192).map(|chunk| raw(Some(&header), chunk)).collect()
}

fn retail() -> Vec<Col> {
    vec![
        col("invoice_no", "VARCHAR").from(&["InvoiceNo"]).required(),
        col("stock_code", "VARCHAR").from(&["StockCode"]),
        col("description", "VARCHAR").from(&["Description"]),
        col("quantity", "BIGINT").from(&["Quantity"]).required(),
        col("invoiced_at", "TIMESTAMP")
            .from(&["InvoiceDate"])
            .format(&["%Y-%m-%d %H:%M:%S"])
            .required(),
        col("unit_price", "DECIMAL(18,3)").from(&["UnitPrice"]).required(),
        col("customer_id", "BIGINT").from(&["CustomerID"]),
        col("country", "VARCHAR").from(&["Country"]),
    ]
}

#[test]
fn online_retail_decodes_to_its_known_sums() {
    let Some(folder) = real_data("online_retail/by-day") else {
        return;
    };
    let mut decoder = decoder(Format::Csv, &[], retail());
    let (mut rows, mut quantity, mut thousandths, mut customers, mut descriptions) = (0, 0, 0i128, 0, 0);
    let mut spent = std::time::Duration::ZERO;
    for file in files(&folder, ".csv.gz") {
        for raw in batches(&file) {
            let start = std::time::Instant::now();
            let decoded = decoder.decode(raw);
            spent += start.elapsed();
            assert_eq!(rejects(&decoded), Vec::<String>::new(), "{}", file.display());
            rows += decoded.rows.num_rows();
            let quantities = decoded.rows.column(3).as_primitive::<Int64Type>();
            let prices = decoded.rows.column(5).as_primitive::<Decimal128Type>();
            quantity += sum(quantities).unwrap_or(0);
            let revenue = |(q, p): (Option<i64>, Option<i128>)| i128::from(q.unwrap()) * p.unwrap();
            thousandths += quantities.iter().zip(prices.iter()).map(revenue).sum::<i128>();
            customers += decoded.rows.column(6).null_count();
            descriptions += decoded.rows.column(2).null_count();
        }
    }
    eprintln!(
        "online retail: {:.0} rows/s decoded in this build",
        rows as f64 / spent.as_secs_f64()
    );
    assert_eq!((rows, quantity, thousandths), (541_909, 5_176_450, 9_747_747_934));
    assert_eq!((customers, descriptions), (135_080, 1_454));
}

#[test]
fn beijing_air_has_its_known_gaps() {
    let Some(folder) = real_data("beijing_air") else { return };
    let columns = vec![
        col("co", "DOUBLE").from(&["CO"]).null(&["NA"]),
        col("pm25", "DOUBLE").from(&["PM2.5"]).null(&["NA"]),
        col("wd", "VARCHAR").null(&["NA"]),
        col("station", "VARCHAR").required(),
        col("hour", "INT").required(),
    ];
    let mut decoder = decoder(Format::Csv, &[], columns);
    let mut counts = [0; 4];
    for file in files(&folder, ".csv.gz") {
        for raw in batches(&file) {
            let decoded = decoder.decode(raw);
            assert_eq!(rejects(&decoded), Vec::<String>::new());
            counts[0] += decoded.rows.num_rows();
            for column in 0..3 {
                counts[column + 1] += decoded.rows.column(column).null_count();
            }
        }
    }
    assert_eq!(counts, [420_768, 20_701, 8_739, 1_822]);
}

#[test]
fn citi_bike_survives_its_drift_of_headers_and_dates() {
    let Some(folder) = real_data("citibike_jc") else { return };
    let formats = ["%Y-%m-%d %H:%M:%S", "%m/%d/%y %H:%M"];
    let columns = vec![
        col("started", "TIMESTAMP")
            .from(&["starttime"])
            .format(&formats)
            .required(),
        col("stopped", "TIMESTAMP")
            .from(&["stoptime"])
            .format(&formats)
            .required(),
        col("seconds", "BIGINT").from(&["tripduration"]).required(),
        col("born", "INT").from(&["birth year"]).null(&["NULL"]),
        col("latitude", "DOUBLE").from(&["start station latitude"]),
        col("plan", "VARCHAR").from(&["name_localizedValue0"]),
    ];
    let mut decoder = decoder(Format::Csv, &[], columns);
    let (mut rows, mut plans) = (0, 0);
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for file in files(&folder, ".csv.gz") {
        for raw in batches(&file) {
            let decoded = decoder.decode(raw);
            assert_eq!(rejects(&decoded), Vec::<String>::new(), "{}", file.display());
            rows += decoded.rows.num_rows();
            plans += decoded.rows.num_rows() - decoded.rows.column(5).null_count();
            let started = decoded.rows.column(0).as_primitive::<TimestampMicrosecondType>();
            first = first.min(min(started).unwrap());
            last = last.max(max(started).unwrap());
        }
    }
    assert_eq!(rows, 144_709);
    assert!(plans > 0 && plans < rows, "{plans}");
    let day = |micros: i64| {
        chrono::DateTime::from_timestamp_micros(micros)
            .unwrap()
            .date_naive()
            .to_string()
    };
    assert_eq!(
        (day(first), day(last)),
        ("2017-01-01".to_string(), "2018-03-31".to_string())
    );
}

/// The batches of a Capture file, as a reader would deliver them.
fn capture(file: &Path) -> Vec<Raw> {
    let batches = crate::decode::formats::avro::read_container(File::open(file).unwrap(), 0, 100).unwrap();
    let raw = |batch: arrow::array::RecordBatch| Raw {
        offsets: (0..batch.num_rows() as u64).collect(),
        payloads: Payloads::Columns {
            batch,
            path: Arc::from("54.avro"),
            tag: Arc::from(""),
        },
        header: None,
        cut: Vec::new(),
        place: Default::default(),
    };
    batches.map(|batch| raw(batch.unwrap())).collect()
}

#[test]
fn event_hubs_capture_gives_its_380_events() {
    let Some(folder) = real_data("eventhubs_capture") else {
        return;
    };
    let columns = || {
        vec![
            col("id", "BIGINT").from(&["ID"]).required(),
            col("at", "TIMESTAMP")
                .from(&["TIMESTAMP"])
                .format(&["epoch_ms"])
                .required(),
            col("value", "DECIMAL(20,5)").from(&["VALUE"]).required(),
            col("sequence", "BIGINT").from(&["SequenceNumber"]).required(),
            col("enqueued", "TIMESTAMP").from(&["EnqueuedTimeUtc"]).required(),
        ]
    };
    let mut events = decoder(Format::Avro, &[], columns());
    let mut lines = Vec::new();
    for raw in capture(&folder.join("cosh/54.avro")) {
        let decoded = events.decode(raw);
        assert_eq!(rejects(&decoded), Vec::<String>::new());
        assert!(decoded.source_ms.iter().all(|ms| ms.is_some()));
        assert!(decoded.ignored_fields.iter().any(|(name, _)| name == "DPID"));
        lines.extend(rows(&decoded));
    }
    assert_eq!(lines.len(), 380);
    assert!(
        lines[0].starts_with("0+ 122921|2017-11-08T16:40:00|805.74489|"),
        "{}",
        lines[0]
    );
    assert!(lines[0].ends_with("|2017-10-16T18:18:55"), "{}", lines[0]);
    assert_eq!(
        capture(&folder.join("cosh/empty.avro"))
            .iter()
            .map(Raw::len)
            .sum::<usize>(),
        0
    );

    let fields = vec![col("field1", "VARCHAR").required(), col("field2", "VARCHAR").required()];
    let mut decoder = decoder(Format::Avro, &[], fields);
    let lines: Vec<String> = capture(&folder.join("bluefrog/05"))
        .into_iter()
        .flat_map(|raw| rows(&decoder.decode(raw)))
        .collect();
    assert_eq!(lines, ["0+ value1|value2"]);
}

#[test]
fn arroyo_s_830_envelopes_leave_the_rows_that_postgres_had() {
    let Some(file) = real_data("debezium/arroyo/aggregate_updates.jsonl") else {
        return;
    };
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 830);
    let columns = || {
        vec![
            col("id", "BIGINT").required(),
            col("customer_name", "VARCHAR"),
            col("quantity", "INT"),
            col("price", "DECIMAL(12,2)"),
            col("order_date", "TIMESTAMP"),
            col("status", "VARCHAR"),
            col("lsn", "BIGINT").from(&["source.lsn"]).required(),
        ]
    };
    let keyed = decoder(Format::DebeziumJson, &["id"], columns()).decode(raw(None, &lines));
    assert_eq!(rejects(&keyed), Vec::<String>::new());
    let count = |decoded: &Decoded, op| decoded.ops.iter().filter(|o| **o == op).count();
    assert_eq!(
        (count(&keyed, ChangeOp::Upsert), count(&keyed, ChangeOp::Delete)),
        (582 + 225, 23)
    );
    assert!(
        keyed
            .source_ms
            .iter()
            .all(|ms| ms.is_some_and(|ms| ms > 1_734_000_000_000))
    );
    assert_eq!(rows(&keyed)[0].split('|').nth(4), Some("2024-12-18T16:29:14.748899"));
    let unkeyed = decoder(Format::DebeziumJson, &[], columns()).decode(raw(None, &lines));
    assert_eq!(rejects(&unkeyed), Vec::<String>::new());
    assert_eq!(
        (count(&unkeyed, ChangeOp::Upsert), count(&unkeyed, ChangeOp::Delete)),
        (582 + 225, 225 + 23)
    );
}

#[test]
fn documented_payloads_are_what_their_manifest_says() {
    let Some(folder) = real_data("debezium/extracted") else {
        return;
    };
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    let mut seen = 0;
    for line in manifest.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let (name, kind, op) = (fields[0], fields[2], fields[3]);
        let Ok(bytes) = std::fs::read(folder.join(name)) else {
            continue;
        };
        seen += 1;
        // The only column is nullable for every row, because the test is about the records' operations.
        let mut decoder = decoder(
            Format::DebeziumJson,
            &[],
            vec![col("any", "VARCHAR").from(&["id", "ID"])],
        );
        let decoded = decoder.decode(raw(None, &[bytes]));
        let did = (
            decoded.ops.as_slice(),
            decoded.rejects.len(),
            decoded.ignored_fields.iter().any(|(n, _)| n == "(debezium message)"),
        );
        use ChangeOp::{Delete, Truncate, Upsert};
        match (kind, op) {
            ("envelope", "c" | "r") => assert_eq!(did, (&[Upsert][..], 0, false), "{name}"),
            ("envelope", "t") => assert_eq!(did, (&[Truncate][..], 0, false), "{name}"),
            ("envelope", "m") | ("tx-metadata" | "schema-change", _) => assert_eq!(did, (&[][..], 0, true), "{name}"),
            // Feldera's own envelopes have rows as arrays, which do not name columns.
            ("envelope", _)
                if rejects(&decoded)
                    .first()
                    .is_some_and(|r| r.contains("it must be an object")) => {}
            // Some envelopes lack a complete old row, and this input has no key.
            ("envelope", "u") if did.1 == 0 => assert_eq!(did, (&[Delete, Upsert][..], 0, false), "{name}"),
            ("envelope", "d") if did.1 == 0 => assert_eq!(did, (&[Delete][..], 0, false), "{name}"),
            ("envelope", _) => assert!(
                rejects(&decoded)[0].contains("REPLICA IDENTITY FULL"),
                "{name}: {:?}",
                decoded.rejects
            ),
            ("tombstone/null payload", _) => assert_eq!(did, (&[][..], 0, false), "{name}"),
            ("unparsed", _) => assert!(rejects(&decoded)[0].contains("not a JSON object"), "{name}"),
            ("key-or-flat", _) => assert!(rejects(&decoded)[0].contains("no Debezium envelope"), "{name}"),
            other => panic!("{name}: {other:?} is new in the manifest"),
        }
    }
    assert!(seen > 90, "{seen}");
}

#[test]
fn postgres_and_mysql_types_are_read_as_risingwave_reads_them() {
    let Some(folder) = real_data("debezium/extracted") else {
        return;
    };
    let decode = |name: &str, columns: Vec<Col>| {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let decoded = decoder(Format::DebeziumJson, &[], columns).decode(raw(None, &[bytes]));
        assert_eq!(rejects(&decoded), Vec::<String>::new(), "{name}");
        rows(&decoded)
    };
    let mysql = vec![
        col("O_BOOL", "BOOLEAN"),
        col("O_TINY", "INT"),
        col("O_DOUBLE", "DOUBLE"),
        col("O_DECIMAL", "DECIMAL(10,2)"),
        col("O_DATE", "DATE"),
        col("O_DATETIME", "TIMESTAMP").format(&["epoch_ms"]),
        col("O_TIMESTAMP", "TIMESTAMP"),
        col("O_JSON", "VARCHAR"),
    ];
    assert_eq!(
        decode("simd_json_parser_rs__008.json", mysql),
        [
            "0+ true|-1|-111.11111|-111.11|1000-01-01|1970-01-01T00:00:00|1970-01-01T00:00:01|{\"k1\": \"v1\", \"k2\": 11}"
        ]
    );
    let postgres = vec![
        col("o_timestamp_0", "TIMESTAMP").format(&["epoch_ms"]),
        col("o_timestamp_6", "TIMESTAMP"),
        col("o_timestampz_6", "TIMESTAMP"),
        col("o_date", "DATE"),
        col("o_interval", "VARCHAR"),
    ];
    assert_eq!(
        decode("simd_json_parser_rs__012.json", postgres),
        ["0+ 2011-11-11T11:11:11|2011-11-11T11:11:11.123456|2011-11-11T03:11:11.123456|1999-09-09|P1Y2M3DT4H5M6.78S"]
    );
    let more = vec![
        col("o_bit", "BOOLEAN"),
        col("o_bytea", "BINARY"),
        col("o_json", "VARCHAR"),
        col("x", "DOUBLE").from(&["o_point.x"]),
        col("o_enum", "VARCHAR"),
    ];
    assert_eq!(
        decode("simd_json_parser_rs__014.json", more),
        ["0+ true|0123456789abcdef|{\"k1\": \"v1\", \"k2\": 11}|1.0|polar"]
    );
}

#[test]
fn other_projects_payloads_never_panic_and_mostly_decode() {
    let Some(folder) = real_data("debezium") else { return };
    let mut records: Vec<Vec<u8>> = Vec::new();
    for file in files(&folder.join("risingwave"), ".1") {
        records.extend(std::fs::read(file).unwrap().split(|b| *b == b'\n').map(<[u8]>::to_vec));
    }
    for file in files(
        &folder.join("memiiso/debezium-server-iceberg-sink/src/test/resources/json"),
        ".json",
    ) {
        records.push(std::fs::read(file).unwrap());
    }
    let columns = || vec![col("id", "BIGINT").from(&["id", "ID"]), col("first_name", "VARCHAR")];
    for (format, key) in [(Format::DebeziumJson, &["id"][..]), (Format::Json, &[])] {
        let decoded = decoder(format, key, columns()).decode(raw(None, &records));
        assert_eq!(decoded.raw.len(), records.len());
        // As plain JSON, an envelope is no row, because it has none of the columns at its top level.
        assert_eq!(decoded.ops.is_empty(), format == Format::Json);
    }
    let log = std::fs::read_to_string(folder.join("risingwave/debezium_log.1")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let decoded = decoder(Format::DebeziumJson, &["id"], columns()).decode(raw(None, &lines));
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(super::rows(&decoded).last().unwrap(), "9- 1006|add1");
    let log = std::fs::read_to_string(folder.join("risingwave/debezium_log_no_schema_field.1")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let columns = vec![
        col("id", "BIGINT").required(),
        col("first_name", "VARCHAR"),
        col("email", "VARCHAR"),
    ];
    let decoded = decoder(Format::DebeziumJson, &["id"], columns).decode(raw(None, &lines));
    assert_eq!(decoded.rejects.len(), 0);
    assert_eq!(super::rows(&decoded)[0], "0+ 1001|Sally|sally.thomas@acme.com");
}
