//! Tests Parquet, Avro, JSON and change records that are damaged, extreme or unusual: what happens to them, and that
//! their neighbours are still read. Each case is run and verified with one worker and with two.

mod fuzz;
pub mod samples;

use std::path::Path;

use alluvium::definition::Dataflow;

use crate::avro_bytes::{long, text as avro_text};
use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up, recompute};
use crate::testing::{Prerequisite, skip};
use samples::{
    avro_block, avro_header, bytes_as_text_file, int96_file, nested_file, parquet_file, repeated_file, uuid_file,
};

/// A dataflow with one input `t` of files, and a table of its unchanged rows.
fn of_files(name: &str, format: &str, columns: &str) -> Folder {
    let ending = if format == "json" { "ndjson" } else { format };
    let input = format!(
        "[columns]\n{columns}\n[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"data/*.{ending}\"\nformat = \"{format}\"\n"
    );
    let folder = Folder::new(name, &[("inputs/t.toml", &input), ("silver/t.sql", "SELECT * FROM t")]);
    std::fs::create_dir(folder.path().join("data")).expect("a folder for the files");
    folder
}

/// A dataflow with one keyed input `t` of Debezium records in a log.
fn of_changes(name: &str, columns: &str, records: &[&str]) -> Folder {
    let input = format!(
        "key = [\"id\"]\n[columns]\nid = \"BIGINT\"\n{columns}\n[[feeds]]\nname = \"f\"\nkind = \"log\"\npath = \"log\"\n\
         format = \"debezium-json\"\n"
    );
    let folder = Folder::new(name, &[("inputs/t.toml", &input), ("silver/t.sql", "SELECT * FROM t")]);
    let lines: String = records
        .iter()
        .map(|record| format!("{{\"value\":{record}}}\n"))
        .collect();
    folder.write("log/0.ndjson", &lines);
    folder
}

fn put(folder: &Folder, name: &str, bytes: &[u8]) {
    std::fs::write(folder.path().join("data").join(name), bytes).expect("the file is written");
}

/// Runs with one worker and with two, verifies both, and recomputes the second lake from Bronze. Returns the second
/// lake's dataflow.
#[track_caller]
fn settled(folder: &Folder, sql: &str, expected: &str) -> std::sync::Arc<Dataflow> {
    for workers in [1, 2] {
        let dataflow = folder.load(&format!("lake{workers}"));
        catch_up(&dataflow, workers);
        assert_eq!(
            ask(&dataflow, sql),
            expected,
            "{workers} workers: {}",
            letters(&dataflow)
        );
        assert_newest_is_exact(&dataflow, "after a run");
    }
    let dataflow = folder.load("lake2");
    recompute(&dataflow, 1);
    assert_eq!(ask(&dataflow, sql), expected, "made again from Bronze");
    dataflow
}

/// One record nested deeper than 128 levels made its whole block count as damaged.
#[test]
fn a_deep_avro_record_is_a_dead_letter_at_most_of_itself() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"tree","type":
        {"type":"record","name":"Tree","fields":[{"name":"next","type":["null","Tree"]},{"name":"of","type":
        {"type":"array","items":"Tree"}}]}}]}"#;
    // Each tree holds the next one, followed by an empty array.
    let tree = |depth: usize| [long(1).repeat(depth), long(0), long(0).repeat(depth + 1)].concat();
    let record = |id: i64| [long(id), tree(if id == 7 { 200 } else { 1 })].concat();
    let records: Vec<u8> = (0..1000).flat_map(record).collect();
    let file = [avro_header(schema, "null"), avro_block(1000, &records)].concat();
    for (columns, expected, refused) in [
        ("id = \"BIGINT\"", "1000,499500", 0),
        ("id = \"BIGINT\"\ntree = \"VARCHAR\"", "999,499493", 1),
    ] {
        let folder = of_files("deep", "avro", columns);
        put(&folder, "a.avro", &file);
        let dataflow = settled(&folder, "SELECT COUNT(*), SUM(id) FROM silver.t", expected);
        let letters = letters(&dataflow);
        assert_eq!(letters.lines().count(), refused, "{letters}");
        let reason = "a value that a column takes is nested deeper than 128 levels";
        assert_eq!(letters.matches(reason).count(), refused, "{letters}");
    }
}

fn letters(dataflow: &Dataflow) -> String {
    ask(
        dataflow,
        "SELECT kind, \"partition\", \"offset\", reason FROM dead_letters ORDER BY 2, 3",
    )
}

/// The Parquet reader validates texts only if they are annotated as UTF8: invalid bytes in other texts reached the
/// writer, which panicked.
#[test]
fn bytes_that_a_parquet_file_calls_text_are_a_dead_letter() {
    // ENUM is read as bytes, so that only the one value is refused; with the other annotations the file is unreadable.
    let folder = of_files("as_text", "parquet", "a = \"VARCHAR\"");
    for (name, annotation) in [
        ("utf8", Some("UTF8")),
        ("json", Some("JSON")),
        ("enum", Some("ENUM")),
        ("arrow", None),
    ] {
        put(
            &folder,
            &format!("good-{name}.parquet"),
            &bytes_as_text_file(annotation, b"good"),
        );
        put(
            &folder,
            &format!("bad-{name}.parquet"),
            &bytes_as_text_file(annotation, b"b\xffd"),
        );
    }
    let dataflow = settled(&folder, "SELECT a, COUNT(*) FROM silver.t GROUP BY a", "good,4");
    let letters = letters(&dataflow);
    let kinds: Vec<&str> = letters
        .lines()
        .filter_map(|line| line.split(".parquet").next())
        .collect();
    assert_eq!(
        kinds,
        ["file,bad-arrow", "record,bad-enum", "file,bad-json", "file,bad-utf8"],
        "{letters}"
    );
    assert_eq!(letters.matches("is damaged: Invalid UTF8").count(), 2, "{letters}");
}

/// One byte of a page made its reader take 255 bits at a time: the reader panicked, in this run and in every later
/// one.
#[test]
fn a_parquet_file_that_stops_its_reader_is_a_dead_letter() {
    let folder = of_files("stopped", "parquet", "id = \"BIGINT\"\nname = \"VARCHAR\"");
    let whole = parquet_file(0..40);
    put(&folder, "good.parquet", &whole);
    // The test tries many bytes, whichever of them stops the reader.
    for at in (0..whole.len()).step_by(5) {
        let mut damaged = whole.clone();
        damaged[at] = 0xff;
        put(&folder, &format!("damaged{at:05}.parquet"), &damaged);
        put(&folder, &format!("torn{at:05}.parquet"), &whole[..at]);
    }
    let at = folder.path();
    for workers in ["1", "2"] {
        let lake = format!("lakes/lake{workers}");
        let run = alluvium(&["run", ".", "--until-caught-up", "-w", workers, "--lake", &lake], at);
        exits(&run, 0);
        let told = text(&run);
        assert!(!told.contains("panicked") && !told.contains("RUST_BACKTRACE"), "{told}");
        exits(&alluvium(&["verify", ".", "--lake", &lake], at), 0);
    }
    let dataflow = folder.load("lake1");
    let good = "SELECT COUNT(*) FROM bronze.t WHERE \"partition\" = 'good.parquet'";
    assert_eq!(ask(&dataflow, good), "1");
    // A byte changed within a value makes another value, which nothing can detect.
    let rows = "SELECT COUNT(*) >= 40, COUNT(DISTINCT id) >= 40 FROM silver.t";
    assert_eq!(ask(&dataflow, rows), "true,true");
    let letters = letters(&dataflow);
    let torn = letters.lines().filter(|line| line.contains("torn")).count();
    assert_eq!(torn, (0..whole.len()).step_by(5).count(), "{letters}");
}

/// INT96 was read as 64-bit nanoseconds, which wrap in the year 2262: 9999 became 1816.
#[test]
fn int96_is_a_point_in_time_up_to_the_year_9999() {
    let folder = of_files("int96", "parquet", "a = \"TIMESTAMP\"");
    // Julian day, and nanoseconds of the day.
    let days = [
        Some((2_440_588, 0)),
        Some((5_373_484, 86_399_999_999_000)),
        Some((1_721_426, 0)),
        None,
        Some((2_460_311, 73_396_123_456_000)),
        Some((108_000_000, 0)),
    ];
    put(&folder, "a.parquet", &int96_file(&days));
    let dataflow = settled(
        &folder,
        "SELECT a FROM silver.t ORDER BY a NULLS LAST",
        "0001-01-01T00:00:00\n1970-01-01T00:00:00\n2024-01-01T20:23:16.123456\n9999-12-31T23:59:59.999999\n\"\"",
    );
    let letters = letters(&dataflow);
    assert!(letters.contains("record,a.parquet,5,"), "{letters}");
    assert!(letters.contains("which holds the years 1 to 9999"), "{letters}");
}

/// Digits finer than a microsecond were silently cut off: in INT96, in Debezium's nanoseconds, and in every text.
#[test]
fn what_is_finer_than_a_microsecond_is_refused_exact_in_a_text_or_cut_off_as_the_column_says() {
    let columns = "id = \"VARCHAR\"\na = \"TIMESTAMP\"\ntext = { type = \"VARCHAR\", from = \"a\" }";
    let cut = "\na = { type = \"TIMESTAMP\", format = \"cut_to_us\" }";
    for (name, format, all, kept) in [
        (
            "refused",
            "csv",
            columns.to_string(),
            "1970-01-01T00:00:00.123456,1970-01-01 00:00:00.123456000",
        ),
        (
            "cut",
            "csv",
            columns.replace("\na = \"TIMESTAMP\"", cut),
            "1970-01-01T00:00:00.123456,1970-01-01 00:00:00.123456000\n9999-12-31T23:59:59.999999,9999-12-31T23:59:59.9999999Z",
        ),
    ] {
        let folder = of_files(&format!("finer_{name}"), format, &all);
        put(
            &folder,
            "a.csv",
            b"id,a\n1,1970-01-01 00:00:00.123456000\n2,9999-12-31T23:59:59.9999999Z\n",
        );
        put(&folder, "b.csv", b"id,a\n3,0000-12-31\n");
        let dataflow = settled(&folder, "SELECT a, text FROM silver.t ORDER BY a", kept);
        let letters = letters(&dataflow);
        assert!(
            letters.contains("record,b.csv,0,") && letters.contains("the years 1 to 9999"),
            "{letters}"
        );
        let refused = letters.contains("is finer than a microsecond") && letters.contains("record,a.csv,1,");
        assert_eq!(refused, name == "refused", "{letters}");
    }

    let folder = of_files("finer_int96", "parquet", "a = \"VARCHAR\"");
    let days = [
        Some((2_440_588, 1)),
        Some((5_373_484, 86_399_999_999_999)),
        Some((1_721_426, 0)),
    ];
    put(&folder, "a.parquet", &int96_file(&days));
    settled(
        &folder,
        "SELECT a FROM silver.t ORDER BY a",
        "0001-01-01T00:00:00\n1970-01-01T00:00:00.000000001\n9999-12-31T23:59:59.999999999",
    );
    for (name, column, kept, count) in [
        ("refused", "a = \"TIMESTAMP\"", "0001-01-01T00:00:00", 2),
        (
            "cut",
            "a = { type = \"TIMESTAMP\", format = \"cut_to_us\" }",
            "0001-01-01T00:00:00\n1970-01-01T00:00:00\n9999-12-31T23:59:59.999999",
            0,
        ),
    ] {
        let folder = of_files(&format!("finer_int96_{name}"), "parquet", column);
        put(&folder, "a.parquet", &int96_file(&days));
        let dataflow = settled(&folder, "SELECT a FROM silver.t ORDER BY a", kept);
        let letters = letters(&dataflow);
        assert_eq!(
            letters.matches("is finer than a microsecond").count(),
            count,
            "{letters}"
        );
    }
}

/// Entries with null values were missing, NaN was null, and timestamps outside the calendar were `ERROR: ...`. The
/// sixteen bytes of a UUID that happened to be UTF-8 became a text of control characters.
#[test]
fn a_uuid_is_its_text_and_in_a_binary_its_bytes() {
    let folder = of_files(
        "uuid",
        "parquet",
        "a = \"VARCHAR\"\nb = { type = \"BINARY\", from = \"a\" }\nl = \"VARCHAR\"\nm = { type = \"VARCHAR[]\", from = \"l\" }\n\
         s = \"VARCHAR\"\nu = { type = \"VARCHAR\", from = \"s.u\" }",
    );
    let uuid = "11111111-2222-3333-4444-555555555555";
    let bytes = *b"\x11\x11\x11\x11\"\"33DDUUUUUU";
    put(&folder, "a.parquet", &uuid_file(bytes));
    let dataflow = settled(
        &folder,
        "SELECT a || '|' || encode(b, 'hex') || '|' || l || '|' || array_to_string(m, ',') || '|' || s || '|' || u FROM silver.t WHERE a IS NOT NULL",
        &format!(
            "\"{uuid}|{}|[\"\"{uuid}\"\"]|{uuid}|{{\"\"u\"\":\"\"{uuid}\"\"}}|{uuid}\"",
            uuid.replace('-', "")
        ),
    );
    assert_eq!(letters(&dataflow), "");
    assert_eq!(
        ask(
            &dataflow,
            "SELECT COUNT(*), COUNT(a), COUNT(l), COUNT(m), COUNT(s) FROM silver.t"
        ),
        "2,1,1,1,1"
    );
}

#[test]
fn nested_values_are_json_without_a_silent_loss() {
    let folder = of_files("nested", "parquet", "m = \"VARCHAR\"\ns = \"VARCHAR\"\nl = \"VARCHAR\"");
    put(&folder, "a.parquet", &nested_file());
    let dataflow = settled(
        &folder,
        "SELECT m, s, l FROM silver.t",
        concat!(
            r#""{""1"":""one"",""2"":null}","{""f"":""NaN"",""g"":""-Infinity"",""b"":""AP8="",""d"":null}","#,
            r#""[1.5,""Infinity"",null]""#
        ),
    );
    let letters = letters(&dataflow);
    assert!(
        letters.contains("record,a.parquet,1,") && !letters.contains("ERROR"),
        "{letters}"
    );
}

#[test]
fn a_repeated_column_is_a_list_without_an_annotation() {
    let folder = of_files("repeated", "parquet", "a = \"INT[]\"");
    put(&folder, "a.parquet", &repeated_file());
    settled(
        &folder,
        "SELECT CARDINALITY(a), ARRAY_TO_STRING(a, ' ') FROM silver.t ORDER BY 2",
        "0,\n2,1 2\n1,3",
    );
}

pub const NUMBERS: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"}]}"#;

fn numbers(from: i64, to: i64) -> Vec<u8> {
    avro_block(to - from, &(from..to).flat_map(long).collect::<Vec<_>>())
}

/// A changed marker went unnoticed, a block that claims more records than it has never ended, and everything after a
/// damaged block was lost.
#[test]
fn a_damaged_block_of_an_avro_file_is_a_dead_letter_and_those_behind_it_are_read() {
    let folder = of_files("avro", "avro", "id = \"BIGINT\"");
    let header = avro_header(NUMBERS, "null");
    put(
        &folder,
        "whole.avro",
        &[header.clone(), numbers(0, 10), numbers(10, 20)].concat(),
    );
    let mut marker = [header.clone(), numbers(20, 30), numbers(30, 40)].concat();
    *marker.last_mut().expect("bytes") ^= 1;
    put(&folder, "marker.avro", &marker);
    let torn = [header.clone(), numbers(40, 50), numbers(50, 60)].concat();
    put(&folder, "torn.avro", &torn[..torn.len() - 18]);
    let mut middle = [header.clone(), numbers(60, 70), numbers(70, 80), numbers(80, 90)].concat();
    let second = header.len() + numbers(60, 70).len();
    middle[second] = long(9)[0];
    put(&folder, "middle.avro", &middle);
    let nothing = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"null"}]}"#;
    put(
        &folder,
        "endless.avro",
        &[avro_header(nothing, "null"), avro_block(i64::MAX, &[0])].concat(),
    );
    put(
        &folder,
        "null.avro",
        &[avro_header("\"null\"", "null"), avro_block(i64::MAX, &[])].concat(),
    );
    let deep = (0..20).fold("\"null\"".to_string(), |items, _| {
        format!(r#"{{"type":"array","items":{items}}}"#)
    });
    let deep = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"id","type":{deep}}}]}}"#);
    let claims = long(i64::MAX).repeat(20);
    put(
        &folder,
        "deep.avro",
        &[avro_header(&deep, "null"), avro_block(1, &claims)].concat(),
    );
    let dataflow = settled(
        &folder,
        "SELECT COUNT(*), MIN(id), MAX(id), SUM(id) FROM silver.t",
        "60,0,89,2370",
    );
    let letters = letters(&dataflow);
    let second = format!("block 2 of the file, at its byte {second}, is damaged");
    for (place, told) in [
        ("record,marker.avro,10,", "the sync marker behind it is not the file's"),
        ("record,middle.avro,10,", second.as_str()),
        (
            "file,torn.avro,",
            "and no other comes behind it: the file ends inside of it",
        ),
        ("record,endless.avro,0,", "it claims more values than it has bytes"),
        ("file,null.avro,", "its values are no records"),
        ("record,deep.avro,0,", "it claims more values than it has bytes"),
    ] {
        let line = letters.lines().find(|line| line.contains(place));
        assert!(line.is_some_and(|line| line.contains(told)), "{place}: {letters}");
    }
    assert_eq!(letters.lines().count(), 6, "{letters}");
}

/// An Avro file with other columns became rows of nulls, and so did archived files once the definition had other
/// columns.
#[test]
fn files_without_the_columns_are_refused_and_so_are_their_rows_once_the_columns_are_others() {
    let avro = [avro_header(NUMBERS, "null"), numbers(0, 10)].concat();
    for (name, columns, told) in [
        (
            "none",
            "other = \"BIGINT\"",
            "none of its columns is one of the input: it has \\\"id\\\"",
        ),
        (
            "required",
            "id = \"BIGINT\"\nother = { type = \"BIGINT\", nullable = false }",
            "it lacks columns that are required",
        ),
    ] {
        let folder = of_files(&format!("strangers_{name}"), "avro", columns);
        put(&folder, "a.avro", &avro);
        let dataflow = settled(&folder, "SELECT COUNT(*) FROM silver.t", "0");
        let letters = letters(&dataflow).replace("\"\"", "\\\"");
        assert!(letters.contains("file,a.avro") && letters.contains(told), "{letters}");
    }
    for (format, bytes) in [("avro", avro.clone()), ("parquet", parquet_file(0..10))] {
        let folder = of_files(&format!("changed_{format}"), format, "id = \"BIGINT\"");
        put(&folder, &format!("a.{format}"), &bytes);
        settled(&folder, "SELECT COUNT(id) FROM silver.t", "10");
        let input = std::fs::read_to_string(folder.path().join("inputs/t.toml")).expect("the input");
        for (columns, told) in [
            ("other = \"BIGINT\"", "none of its columns is one of the input"),
            (
                "id = \"BIGINT\"\nother = { type = \"BIGINT\", nullable = false }",
                "column \"\"other\"\" is required",
            ),
        ] {
            folder.write("inputs/t.toml", &input.replace("id = \"BIGINT\"", columns));
            let dataflow = folder.load("lake2");
            recompute(&dataflow, 1);
            assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.t"), "0");
            let letters = letters(&dataflow);
            assert_eq!(letters.matches(told).count(), 10, "{format}: {letters}");
        }
    }
}

#[test]
fn avro_unions_maps_and_logical_types_fill_columns() {
    let folder = of_files(
        "avro_types",
        "avro",
        "id = \"BIGINT\"\nany = \"VARCHAR\"\nprop = { type = \"VARCHAR\", from = 'props.\"a.b\"' }\nat = \"TIMESTAMP\"\n\
         uid = \"VARCHAR\"\nnext = \"VARCHAR\"",
    );
    let schema = r#"{"type":"record","name":"R","fields":[
        {"name":"id","type":"long"},
        {"name":"any","type":["null","long","string",{"type":"array","items":"int"}]},
        {"name":"props","type":{"type":"map","values":["null","string","double"]}},
        {"name":"at","type":{"type":"long","logicalType":"local-timestamp-nanos"}},
        {"name":"uid","type":{"type":"string","logicalType":"uuid"}},
        {"name":"next","type":["null","R"]}]}"#;
    let record = |id: i64, any: &[Vec<u8>], nanos: i64| {
        let props = [
            long(2),
            avro_text("a.b"),
            long(1),
            avro_text("x"),
            avro_text("c"),
            long(2),
            1.5f64.to_le_bytes().to_vec(),
            long(0),
        ];
        [
            &[long(id)][..],
            any,
            &props[..],
            &[long(nanos), avro_text("u"), long(0)][..],
        ]
        .concat()
        .concat()
    };
    let records = [
        record(1, &[long(1), long(7)], 1_000),
        record(2, &[long(2), avro_text("text")], -1_000),
        record(3, &[long(3), long(2), long(1), long(2), long(0)], 0),
        record(4, &[long(0)], 1_500),
    ];
    put(
        &folder,
        "a.avro",
        &[avro_header(schema, "null"), avro_block(4, &records.concat())].concat(),
    );
    let dataflow = settled(
        &folder,
        "SELECT id, any, prop, at, uid, next FROM silver.t ORDER BY id",
        "1,7,x,1970-01-01T00:00:00.000001,u,\n2,text,x,1969-12-31T23:59:59.999999,u,\n3,\"[1,2]\",x,1970-01-01T00:00:00,u,",
    );
    assert!(
        letters(&dataflow).contains("record,a.avro,3,"),
        "{}",
        letters(&dataflow)
    );
}

/// A file of Event Hubs Capture has fields of the wrapper, properties, and the event.
#[test]
fn properties_of_captured_events_fill_columns() {
    let folder = of_files(
        "capture",
        "avro",
        "id = \"BIGINT\"\nsequence = { type = \"BIGINT\", from = \"SequenceNumber\" }\n\
         enqueued = { type = \"TIMESTAMP\", from = \"EnqueuedTimeUtc\" }\n\
         tenant = { type = \"VARCHAR\", from = \"Properties.tenant\" }\n\
         shard = { type = \"VARCHAR\", from = 'SystemProperties.\"x-opt-partition-key\"' }\n\
         attempts = { type = \"INT\", from = \"Properties.attempts\" }",
    );
    let values = r#"{"type":"map","values":["long","double","string","bytes"]}"#;
    let schema = format!(
        r#"{{"type":"record","name":"EventData","namespace":"Microsoft.ServiceBus.Messaging","fields":[
        {{"name":"SequenceNumber","type":"long"}},{{"name":"Offset","type":"string"}},
        {{"name":"EnqueuedTimeUtc","type":"string"}},{{"name":"SystemProperties","type":{values}}},
        {{"name":"Properties","type":{values}}},{{"name":"Body","type":["null","bytes"]}}]}}"#
    );
    let event = |sequence: i64, body: &str| {
        [
            long(sequence),
            avro_text("4294967296"),
            avro_text("10/16/2017 6:18:55 PM"),
            [
                long(1),
                avro_text("x-opt-partition-key"),
                long(2),
                avro_text("k"),
                long(0),
            ]
            .concat(),
            [
                long(2),
                avro_text("tenant"),
                long(2),
                avro_text("acme"),
                avro_text("attempts"),
                long(0),
                long(3),
                long(0),
            ]
            .concat(),
            long(1),
            avro_text(body),
        ]
        .concat()
    };
    let records = [event(5, "{\"id\": 1}"), event(6, "no json"), event(7, "{\"id\": 3}")].concat();
    put(
        &folder,
        "0.avro",
        &[avro_header(&schema, "null"), avro_block(3, &records)].concat(),
    );
    let dataflow = settled(
        &folder,
        "SELECT id, sequence, enqueued, tenant, shard, attempts FROM silver.t ORDER BY id",
        "1,5,2017-10-16T18:18:55,acme,k,3\n3,7,2017-10-16T18:18:55,acme,k,3",
    );
    assert!(
        letters(&dataflow).contains("record,0.avro,1,"),
        "{}",
        letters(&dataflow)
    );
}

#[test]
fn json_files_may_be_arrays_or_pretty() {
    let folder = of_files(
        "json",
        "json",
        "id = \"BIGINT\"\ncity = { type = \"VARCHAR\", from = '\"home.address\".city' }",
    );
    put(
        &folder,
        "array.ndjson",
        b"[{\"id\":1,\"home.address\":{\"city\":\"Bonn\"}},{\"id\":2}]",
    );
    put(
        &folder,
        "pretty.ndjson",
        b"{\n  \"id\": 3,\n  \"home.address\": {\n    \"city\": \"Kiel\"\n  }\n}\n{\n  \"id\": 4\n}\n",
    );
    put(&folder, "lines.ndjson", b"{\"id\":5}\n{\"id\":\n{\"id\":6}\n");
    let deep = format!("{{\"id\":{}}}\n{{\"id\":7}}\n", "[".repeat(10_000));
    put(&folder, "deep.ndjson", deep.as_bytes());
    put(
        &folder,
        "odd.ndjson",
        b"{\"id\":1e400}\n{\"id\":8,\"id\":9}\n{\"id\":10,\"home.address\":{\"city\":\"\\ud800\"}}\n{\"id\":11,\"home.address\":{\"city\":\"a\\u0000b\"}}\n",
    );
    let dataflow = settled(
        &folder,
        "SELECT id, CASE id WHEN 11 THEN encode(convert_to(city, 'UTF8'), 'hex') ELSE city END AS city FROM silver.t ORDER BY id",
        "1,Bonn\n2,\n3,Kiel\n4,\n5,\n6,\n7,\n9,\n11,610062",
    );
    let letters = letters(&dataflow);
    for place in ["lines.ndjson,1,", "deep.ndjson,0,", "odd.ndjson,0,", "odd.ndjson,2,"] {
        assert!(letters.contains(&format!("record,{place}")), "{place}: {letters}");
    }
    assert_eq!(letters.lines().count(), 4, "{letters}");
}

/// Objects without line breaks between them, as Kinesis Firehose writes them, became a single dead letter.
#[test]
fn json_objects_one_behind_the_other_are_records() {
    let folder = of_files(
        "behind",
        "json",
        "id = \"BIGINT\"\nline = { type = \"BIGINT\", from = \"file.line\" }",
    );
    put(&folder, "firehose.ndjson", b"{\"id\":1}{\"id\":2}{\"id\":3}");
    put(
        &folder,
        "lines.ndjson",
        b"{\"id\":4}\n{\"id\":5} {\"id\":6}\n{\"id\":}{\"id\":7}\n{\"id\":8},{\"id\":9}\n",
    );
    put(&folder, "pretty.ndjson", b"{\n \"id\": 10\n}{\n \"id\": 11\n}\n");
    let sql = "SELECT id, line FROM silver.t ORDER BY id";
    let expected = "1,1\n2,1\n3,1\n4,1\n5,2\n6,2\n7,3\n10,1\n11,3";
    let dataflow = settled(&folder, sql, expected);
    let found = letters(&dataflow);
    for place in ["lines.ndjson,3,", "lines.ndjson,5,"] {
        assert!(found.contains(&format!("record,{place}")), "{place}: {found}");
    }
    assert_eq!(found.lines().count(), 2, "{found}");
    // Objects that are appended later are read, once.
    folder.append("data/firehose.ndjson", "{\"id\":12}{\"id\":13}");
    catch_up(&dataflow, 1);
    catch_up(&dataflow, 2);
    assert_eq!(ask(&dataflow, sql), format!("{expected}\n12,1\n13,1"));
    assert_eq!(letters(&dataflow), found);
    recompute(&dataflow, 1);
    assert_eq!(ask(&dataflow, sql), format!("{expected}\n12,1\n13,1"));
}

/// A file that was read while it was being written was given up, and when it was complete its letter said that it had
/// changed.
#[test]
fn columnar_files_that_were_read_half_written_are_read_once_they_are_whole() {
    let avro = of_files("half", "avro", "id = \"BIGINT\"");
    let whole = [avro_header(NUMBERS, "null"), numbers(0, 10), numbers(10, 20)].concat();
    put(&avro, "a.avro", &whole[..whole.len() - 18]);
    let parquet = of_files("half", "parquet", "id = \"BIGINT\"");
    let ids: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int64Array::from_iter_values(0..20));
    let batch = arrow::array::RecordBatch::try_from_iter([("id", ids)]).expect("a batch");
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("it is written");
    let file = writer.into_inner().expect("it is whole");
    put(&parquet, "a.parquet", &file[..file.len() - 10]);
    let sql = "SELECT COUNT(*), COUNT(DISTINCT id) FROM silver.t";
    for (folder, name, bytes, before) in [
        (&avro, "a.avro", &whole, "10,10"),
        (&parquet, "a.parquet", &file, "0,0"),
    ] {
        let dataflow = folder.load("lake");
        catch_up(&dataflow, 1);
        assert_eq!(ask(&dataflow, sql), before, "{name}");
        assert_eq!(letters(&dataflow).lines().count(), 1, "{name}");
        put(folder, name, bytes);
        catch_up(&dataflow, 2);
        catch_up(&dataflow, 1);
        assert_eq!(ask(&dataflow, sql), "20,20", "{name}: {}", letters(&dataflow));
        recompute(&dataflow, 2);
        assert_newest_is_exact(&dataflow, name);
        assert_eq!(ask(&dataflow, sql), "20,20", "{name}, made again from Bronze");
        assert_eq!(letters(&dataflow).lines().count(), 1, "{name}");
        let replayed = alluvium(
            &["dead-letters", ".", "--replay", "--lake", "lakes/lake"],
            folder.path(),
        );
        exits(&replayed, 0);
        assert_eq!(letters(&dataflow), "", "{name}: it is whole");
        assert_eq!(ask(&dataflow, sql), "20,20", "{name}");
    }
}

/// In an array, Debezium's placeholder for an unchanged value, as numbers, was taken for the current value.
#[test]
fn values_that_debezium_left_out_stay_as_they_are() {
    let numbers = |ending: &str| {
        let numbers: Vec<String> = b"__debezium_unavailable_value"
            .iter()
            .map(|byte| format!("{byte}{ending}"))
            .collect();
        format!("[{}]", numbers.join(", "))
    };
    let (whole, real) = (numbers(""), numbers(".0"));
    let placeholder = "\"__debezium_unavailable_value\"";
    let insert = r#"{"op":"c","before":null,"after":{"id":1,"n":1,"i":[1],"d":[1.5],"days":[19000],"j":"{\"a\":1}","h":{"k":"v"}}}"#;
    let update = format!(
        r#"{{"op":"u","before":null,"after":{{"id":1,"n":2,"i":{whole},"d":{real},"days":{whole},"j":{placeholder},"h":{{{placeholder}: {placeholder}}}}}}}"#
    );
    let folder = of_changes(
        "left_out",
        "n = \"INT\"\ni = \"INT[]\"\nd = \"DOUBLE[]\"\ndays = \"DATE[]\"\nj = \"VARCHAR\"\nh = \"VARCHAR\"",
        &[insert, &update],
    );
    settled(
        &folder,
        "SELECT n, i[1], CARDINALITY(i), d[1], CARDINALITY(d), days[1], j, h FROM silver.t",
        "2,1,1,1.5,1,2022-01-08,\"{\"\"a\"\":1}\",\"{\"\"k\"\":\"\"v\"\"}\"",
    );
}

/// A timestamp outside the calendar became `ERROR: ...` in a VARCHAR column.
#[test]
fn change_records_keep_exact_numbers_and_refuse_times_beyond_the_calendar() {
    let folder = of_changes(
        "beyond",
        "amount = \"DECIMAL(10,2)\"\nat = { type = \"TIMESTAMP\", format = \"epoch_us\" }",
        &[
            r#"{"op":"c","before":null,"after":{"id":1,"amount":"1E+1","at":0}}"#,
            r#"{"op":"c","before":null,"after":{"id":2,"amount":"0.01","at":253402300799999999}}"#,
            r#"{"op":"c","before":null,"after":{"id":3,"amount":"1","at":253402300800000000}}"#,
            r#"{"op":"c","before":null,"after":{"id":4,"amount":"1","at":9223372036825200000}}"#,
        ],
    );
    folder.write("gold/t.sql", "SELECT id, CAST(at AS VARCHAR) AS at FROM silver.t");
    let dataflow = settled(
        &folder,
        "SELECT s.id, s.amount, g.at FROM silver.t s JOIN gold.t g ON s.id = g.id ORDER BY 1",
        "1,10.00,1970-01-01 00:00:00\n2,0.01,9999-12-31 23:59:59.999999",
    );
    let letters = letters(&dataflow);
    assert_eq!(
        letters.matches("which holds the years 1 to 9999").count(),
        2,
        "{letters}"
    );
}

/// The path of a test's own data, if it exists beside the checkout.
fn shared(name: &str) -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("ALLUVIUM_CASES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases/files"),
        std::path::PathBuf::from,
    );
    let path = folder.join(name);
    if !path.exists() {
        let why = format!("there is no {}; set ALLUVIUM_CASES", path.display());
        skip(Prerequisite::Data, &why);
        return None;
    }
    Some(path)
}

/// Public files that were read wrongly, or ended every run.
#[test]
fn public_files_that_ended_runs_do_so_no_more() {
    for (case, columns, sql, expected) in [
        ("panic", "a = \"VARCHAR\"", "SELECT COUNT(*) FROM silver.t", "0"),
        (
            "int96",
            "a = \"TIMESTAMP\"",
            "SELECT MAX(a), COUNT(*) FROM silver.t",
            "9999-12-31T03:00:00,5",
        ),
    ] {
        let Some(data) = shared(case) else { return };
        let folder = of_files(case, "parquet", columns);
        for file in std::fs::read_dir(data.join("data")).expect("files") {
            let file = file.expect("an entry").path();
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            put(&folder, &name, &std::fs::read(&file).expect("the file is read"));
        }
        let dataflow = settled(&folder, sql, expected);
        assert_eq!(letters(&dataflow).lines().count(), 1, "{}", letters(&dataflow));
    }
}
