use super::*;
use crate::definition::{FirstRows, Postgres, PostgresUrl};

fn people() -> Vec<Col> {
    vec![
        col("id", "BIGINT").required(),
        col("name", "VARCHAR").required(),
        col("note", "VARCHAR"),
        col("lsn", "BIGINT").from(&["source.lsn"]),
    ]
}

fn changes(key: &[&str], records: &[&str]) -> Decoded {
    decoder(Format::DebeziumJson, key, people()).decode(raw(None, records))
}

#[test]
fn a_keyed_input_takes_every_operation() {
    let decoded = changes(
        &["id"],
        &[
            r#"{"op":"r","after":{"id":1,"name":"a"},"source":{"ts_ms":5,"lsn":9},"ts_ms":7}"#,
            r#"{"schema":null,"payload":{"op":"c","before":null,"after":{"id":2,"name":"b","more":1},"source":{"ts_ms":0},"ts_ms":7}}"#,
            r#"{"op":"u","before":{"id":2},"after":{"id":2,"name":"c"}}"#,
            r#"{"op":"u","before":{"id":2,"name":"c"},"after":{"id":3,"name":"c"},"source":{"lsn":11}}"#,
            r#"{"op":"u","before":null,"after":{"id":3,"name":"d"}}"#,
            r#"{"op":"d","before":{"id":3,"name":null},"after":null}"#,
            r#"{"op":"d","before":{"id":4,"note":{"x":1}},"after":null}"#,
            r#"{"op":"t","source":{"ts_ms":8},"ts_ms":9}"#,
        ],
    );
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(
        rows(&decoded),
        [
            "0+ 1|a|-|9",
            "1+ 2|b|-|-",
            "2+ 2|c|-|-",
            "3- 2|c|-|11",
            "3+ 3|c|-|11",
            "4+ 3|d|-|-",
            "5- 3|-|-|-",
            "6- 4|-|{\"x\":1}|-",
            "70 -|-|-|-",
        ]
    );
    let times: Vec<_> = decoded.source_ms.iter().map(|ms| ms.unwrap_or(0)).collect();
    assert_eq!(times, [5, 7, 0, 0, 0, 0, 0, 8]);
    assert_eq!(decoded.ignored_fields, [("more".to_string(), 1)]);
}

#[test]
fn an_input_without_key_takes_rows_back_whole_or_refuses() {
    let decoded = changes(
        &[],
        &[
            r#"{"op":"u","before":{"id":1,"name":"a"},"after":{"id":1,"name":"b"}}"#,
            r#"{"op":"u","before":null,"after":{"id":1,"name":"b"}}"#,
            r#"{"op":"u","before":{"id":1},"after":{"id":1,"name":"b"}}"#,
            r#"{"op":"d","before":{"id":1,"name":"b"}}"#,
            r#"{"op":"d","before":null}"#,
            r#"{"op":"d","before":{"id":1,"name":"b","note":"__debezium_unavailable_value"}}"#,
            r#"{"op":"u","before":{"id":1,"name":"a"},"after":{"id":"x","name":"b"}}"#,
        ],
    );
    assert_eq!(rows(&decoded), ["0- 1|a|-|-", "0+ 1|b|-|-", "3- 1|b|-|-"]);
    let reasons = rejects(&decoded);
    assert_eq!(reasons.len(), 5, "{reasons:#?}");
    for reason in &reasons[..4] {
        assert!(reason.contains("REPLICA IDENTITY FULL"), "{reason}");
    }
}

#[test]
fn deletes_without_before_use_the_record_key() {
    let mut decoder = decoder(Format::DebeziumJson, &["id"], people());
    let decoded = decoder.decode(keyed(
        None,
        &[
            (
                Some(br#"{"id":1}"#),
                Some(br#"{"op":"d","before":null,"source":{"lsn":3}}"#),
            ),
            (
                Some(br#"{"schema":{"type":"struct"},"payload":{"id":2}}"#),
                Some(br#"{"payload":{"op":"d","before":{}}}"#),
            ),
            (Some(br#"{"id":2}"#), None),
            (None, Some(br#"{"op":"d","before":null}"#)),
            (None, Some(br#"{"schema":null,"payload":null}"#)),
        ],
    ));
    assert_eq!(rows(&decoded), ["0- 1|-|-|3", "1- 2|-|-|-"]);
    assert!(rejects(&decoded)[0].starts_with("3: the delete has neither `before` nor a record key"));
    assert_eq!(decoded.rejects.len(), 1);
}

/// Text dumps of topics have tombstones as lines `null`, each of which was a dead letter.
#[test]
fn a_null_in_text_is_a_tombstone() {
    let decoded = changes(
        &["id"],
        &[
            "null",
            " \tnull\r\n",
            "\u{feff}null",
            r#"{"op":"c","after":{"id":1,"name":"a"}}"#,
            "\"null\"",
            "nullnull",
            "NULL",
        ],
    );
    assert_eq!(rows(&decoded), ["3+ 1|a|-|-"]);
    assert_eq!(decoded.ignored_fields, []);
    let refused: Vec<_> = decoded.rejects.iter().map(|reject| reject.record).collect();
    assert_eq!(refused, [Some(4), Some(5), Some(6)]);
}

#[test]
fn messages_are_counted_and_strangers_are_refused() {
    let decoded = changes(
        &["id"],
        &[
            r#"{"op":"m","ts_ms":5,"message":{"prefix":"foo","content":"Ymfy"}}"#,
            r#"{"status":"BEGIN","id":"571","ts_ms":1486500577125,"event_count":null}"#,
            r#"{"schema":{},"payload":{"status":"END","id":"571","event_count":2}}"#,
            r#"{"ts_ms":1565787098802}"#,
            r#"{"source":{},"ts_ms":1,"databaseName":"x","ddl":"CREATE TABLE","tableChanges":[]}"#,
            r#"{"id":1,"name":"flat"}"#,
            r#"{"op":"x","after":{}}"#,
            r#"{"op":"c","after":null}"#,
            r#"{"op":"c","after":[1]}"#,
            r#"{"op":"c","after":{"id":1}"#,
        ],
    );
    assert_eq!(decoded.ignored_fields, [("(debezium message)".to_string(), 5)]);
    let parts = [
        "for flattened rows set the feed's format to \"json\"",
        "operation \"x\" is unknown",
        "has no `after`",
        "`after` is \"[1]\"",
        "not a JSON object",
    ];
    let reasons = rejects(&decoded);
    assert_eq!(reasons.len(), parts.len(), "{reasons:#?}");
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
}

#[test]
fn unavailable_values_come_from_before_or_are_left_to_the_current_row() {
    let decoded = changes(
        &["id"],
        &[
            r#"{"op":"u","before":{"id":1,"name":"a","note":"old"},"after":{"id":1,"name":"a","note":"__debezium_unavailable_value"}}"#,
            r#"{"op":"u","before":null,"after":{"id":1,"name":"a","note":"__debezium_unavailable_value"}}"#,
            r#"{"op":"u","before":null,"after":{"id":1,"name":"__debezium_unavailable_value"}}"#,
        ],
    );
    assert_eq!(rows(&decoded), ["0+ 1|a|old|-", "1+ 1|a|-|-"]);
    assert!(rejects(&decoded)[0].contains("column \"name\": the source left out the unchanged value"));
    assert_eq!(decoded.unchanged, [(1, 2)], "the refused record's are gone with it");
    assert_eq!(decoded.ignored_fields, []);
    // Without a key there is no current row.
    let decoded = changes(
        &[],
        &[
            r#"{"op":"u","before":{"id":1,"name":"a","note":"old"},"after":{"id":1,"name":"b","note":"__debezium_unavailable_value"}}"#,
            r#"{"op":"c","after":{"id":1,"name":"a","note":"__debezium_unavailable_value"}}"#,
        ],
    );
    assert_eq!(rows(&decoded), ["0- 1|a|old|-", "0+ 1|b|old|-", "1+ 1|a|-|-"]);
    assert_eq!(decoded.ignored_fields, [("(unavailable value)".to_string(), 1)]);
    assert!(decoded.unchanged.is_empty());
}

#[test]
fn a_value_that_was_left_out_is_known_in_every_form_that_debezium_gives_it() {
    let columns = || vec![col("id", "BIGINT").required(), col("v", "VARCHAR")];
    let of = |mut input: Input, placeholder: Option<&str>| {
        input.feeds[0].wire.unavailable = placeholder.map(str::to_string);
        Ready(Decoder::new(&input, &input.feeds[0], &Registries::new(None)).unwrap())
    };
    let numbers: Vec<String> = b"__debezium_unavailable_value".iter().map(u8::to_string).collect();
    let forms = [
        r#""__debezium_unavailable_value""#.to_string(),
        r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#.to_string(),
        r#""5f5f646562657a69756d5f756e617661696c61626c655f76616c7565""#.to_string(),
        r#"["__debezium_unavailable_value"]"#.to_string(),
        r#"["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]"#.to_string(),
        r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#.to_string(),
        format!("[{}]", numbers.join(",")),
        r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#.to_string(),
        r#""{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}""#.to_string(),
    ];
    let update = |value: &str| format!(r#"{{"op":"u","before":null,"after":{{"id":1,"v":{value}}}}}"#);
    let records: Vec<String> = forms.iter().map(|form| update(form)).collect();
    let decoded = of(input(Format::DebeziumJson, &["id"], columns()), None).decode(raw(None, &records));
    let left_out: Vec<u32> = decoded.unchanged.iter().map(|(row, _)| *row).collect();
    assert_eq!(left_out, (0..forms.len() as u32).collect::<Vec<_>>());
    // A connector may have another placeholder; then the default one is ordinary text.
    let records = [
        r#""(gone)""#,
        r#"["(gone)"]"#,
        r#""KGdvbmUp""#,
        r#""__debezium_unavailable_value""#,
    ]
    .map(update);
    let decoded = of(input(Format::DebeziumJson, &["id"], columns()), Some("(gone)")).decode(raw(None, &records));
    assert_eq!(decoded.unchanged, [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(rows(&decoded)[3], "3+ 1|__debezium_unavailable_value");
}

/// A row that was moved lost its long values, because Debezium writes a changed key as a delete and a create.
#[test]
fn a_row_that_is_new_under_its_key_must_tell_all_its_values() {
    let decoded = changes(
        &["id"],
        &[
            r#"{"op":"d","before":{"id":1,"name":"","note":null},"after":null}"#,
            r#"{"op":"c","before":null,"after":{"id":2,"name":"a","note":"__debezium_unavailable_value"}}"#,
            r#"{"op":"u","before":{"id":2},"after":{"id":3,"name":"a","note":"__debezium_unavailable_value"}}"#,
            r#"{"op":"u","before":{"id":2,"note":"old"},"after":{"id":3,"name":"a","note":"__debezium_unavailable_value"}}"#,
        ],
    );
    assert_eq!(rows(&decoded), ["0- 1||-|-", "3- 2|-|old|-", "3+ 3|a|old|-"]);
    let reasons = rejects(&decoded);
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    for reason in reasons {
        assert!(
            reason.contains("a key changed, and the source does not tell the value of column \"note\""),
            "{reason}"
        );
    }
}

#[test]
fn a_truncation_takes_no_row_of_another_table() {
    let truncated = |feeds: &[(&[&str], Format)]| {
        let mut input = input(Format::DebeziumJson, &["id"], people());
        let feed = input.feeds.remove(0);
        input.feeds.extend(feeds.iter().map(|(topics, format)| Feed {
            format: *format,
            kind: kafka(topics),
            ..feed.clone()
        }));
        let mut decoder = Ready(Decoder::new(&input, &input.feeds[0], &Registries::new(None)).unwrap());
        let decoded = decoder.decode(raw(None, &[r#"{"op":"t","source":{"table":"orders"}}"#]));
        assert_eq!(decoded.ops.len() + decoded.rejects.len(), 1);
        decoded.ops == [ChangeOp::Truncate]
    };
    let live = Format::DebeziumJson;
    assert!(truncated(&[(&["eu.orders"], live)]));
    assert!(
        truncated(&[(&["eu.orders"], live), (&["drops"], Format::Json)]),
        "files of the same table's past"
    );
    assert!(!truncated(&[(&["eu.orders", "us.orders"], live)]));
    assert!(!truncated(&[(&["^.*orders"], live)]));
    assert!(!truncated(&[(&["eu.orders"], live), (&["us.orders"], live)]));
}

#[test]
fn what_columns_take_from_beside_the_row_has_its_unit() {
    let columns = vec![
        col("ms", "TIMESTAMP").from(&["source.ts_ms"]),
        col("us", "TIMESTAMP").from(&["source.ts_us"]),
        col("ns", "TIMESTAMP").from(&["source.ts_ns"]),
        col("at", "TIMESTAMP").from(&["envelope.ts_ms"]),
        col("n", "BIGINT").from(&["source.ts_ms"]),
    ];
    let record = r#"{"op":"c","after":{"id":1},"source":{"ts_ms":1500000000123,"ts_us":1500000000123456,"ts_ns":1500000000123456000},"ts_ms":1500000000124}"#;
    let decoded = decoder(Format::DebeziumJson, &[], columns).decode(raw(None, &[record]));
    assert_eq!(
        rows(&decoded),
        [
            "0+ 2017-07-14T02:40:00.123|2017-07-14T02:40:00.123456|2017-07-14T02:40:00.123456|2017-07-14T02:40:00.124|1500000000123"
        ]
    );
}

/// A MySQL DATETIME used to land in the year 1970, and `Infinity` or "1234" in a money column became another number.
#[test]
fn without_the_schema_part_nothing_is_guessed_that_may_be_something_else() {
    let columns = || {
        vec![
            col("at", "TIMESTAMP"),
            col("day", "DATE"),
            col("price", "DECIMAL(10,2)"),
        ]
    };
    let record =
        |connector: &str, row: &str| format!(r#"{{"op":"c","after":{row},"source":{{"connector":"{connector}"}}}}"#);
    let records = [
        record("mysql", r#"{"at":1709212455000}"#),
        record("mysql", r#"{"day":15317}"#),
        record("postgresql", r#"{"at":1500000000123456}"#),
        record("postgresql", r#"{"price":"1234"}"#),
        record("postgresql", r#"{"price":"1234.00"}"#),
        record("postgresql", r#"{"price":1234}"#),
    ];
    let decoded = decoder(Format::DebeziumJson, &[], columns()).decode(raw(None, &records));
    assert_eq!(
        rows(&decoded),
        [
            "1+ -|2011-12-09|-",
            "2+ 2017-07-14T02:40:00.123456|-|-",
            "4+ -|-|1234.00",
            "5+ -|-|1234.00"
        ]
    );
    let reasons = rejects(&decoded);
    assert!(
        reasons[0].contains("say what it counts by `format = \"epoch_ms\"`"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("may be digits or base64"), "{reasons:?}");
    let digits = vec![col("price", "DECIMAL(10,2)").format(&["digits"])];
    let decoded = decoder(Format::DebeziumJson, &[], digits).decode(raw(None, &records[3..4]));
    assert_eq!(rows(&decoded), ["0+ 1234.00"]);
    // With the schema part nothing is guessed.
    let schema = r#"{"fields":[{"field":"after","fields":[{"field":"at","type":"int64"},{"field":"price","type":"string"},
        {"field":"days","type":"array","items":{"type":"int32","name":"io.debezium.time.Date"}}]}]}"#;
    let record = |row: &str| format!(r#"{{"schema":{schema},"payload":{{"op":"c","after":{row}}}}}"#);
    let records = [
        r#"{"at":1500000000123456}"#,
        r#"{"price":"free"}"#,
        r#"{"price":"1234"}"#,
        r#"{"days":[15317,null]}"#,
    ];
    let columns = [columns(), vec![col("days", "DATE[]")]].concat();
    let decoded = decoder(Format::DebeziumJson, &[], columns).decode(raw(None, &records.map(record)));
    assert_eq!(rows(&decoded), ["2+ -|-|1234.00|-", "3+ -|-|-|[2011-12-09, ]"]);
    assert_eq!(decoded.rejects.len(), 2, "{:?}", decoded.rejects);
}

/// A column's number pattern was accepted and not used, so that "12,50" remained a dead letter.
#[test]
fn number_patterns_hold_for_texts_that_no_schema_calls_encoded() {
    let columns = || {
        let pattern = ["#.##0,00"];
        vec![
            col("price", "DECIMAL(10,2)").format(&pattern),
            col("share", "DOUBLE").format(&pattern),
            col("n", "BIGINT").format(&pattern),
        ]
    };
    let record =
        |connector: &str, row: &str| format!(r#"{{"op":"c","after":{row},"source":{{"connector":"{connector}"}}}}"#);
    let records = [
        record("postgresql", r#"{"price":"12,50","share":"0,25","n":"1.234"}"#),
        record("mysql", r#"{"price":"1.234,50","share":"-1,5","n":"7"}"#),
        // Without a pattern, this might be base64.
        record("postgresql", r#"{"price":"1234"}"#),
        // A number is no text.
        record("postgresql", r#"{"price":12.5,"share":0.25,"n":7}"#),
        record("postgresql", r#"{"price":"+y4="}"#),
        record("mysql", r#"{"price":"12.5"}"#),
    ];
    let decoded = decoder(Format::DebeziumJson, &[], columns()).decode(raw(None, &records));
    assert_eq!(
        rows(&decoded),
        [
            "0+ 12.50|0.25|1234",
            "1+ 1234.50|-1.5|7",
            "2+ 1234.00|-|-",
            "3+ 12.50|0.25|7"
        ]
    );
    let reasons = rejects(&decoded);
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    for reason in reasons {
        assert!(reason.contains("add its pattern to the column's `format`"), "{reason}");
    }
    // 123.4500 at scale 4 is 1234500 = 0x12d644.
    let schema = r#"{"fields":[{"field":"after","fields":[{"field":"share","type":"string"},
        {"field":"price","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"4"}}]}]}"#;
    let encoded = format!(r#"{{"schema":{schema},"payload":{{"op":"c","after":{{"price":"EtZE","share":"12,50"}}}}}}"#);
    let decoded = decoder(Format::DebeziumJson, &[], columns()).decode(raw(None, &[encoded]));
    assert_eq!(rows(&decoded), ["0+ 123.45|12.5|-"]);
    // A column whose texts are base64 has them as such.
    let base64 = vec![col("price", "DECIMAL(10,2)").format(&["base64", "#.##0,00"])];
    let decoded = decoder(Format::DebeziumJson, &[], base64).decode(raw(None, &records[4..5]));
    assert_eq!(rows(&decoded), ["0+ -12.34"]);
}

/// Our own PostgreSQL reader writes unambiguous values, but `Infinity` was read as base64 of 378982984692.34.
#[test]
fn of_postgresql_itself_nothing_is_left_to_guess() {
    let mut input = input(
        Format::DebeziumJson,
        &[],
        vec![col("at", "TIMESTAMP"), col("price", "DECIMAL(18,2)")],
    );
    input.feeds[0].kind = FeedKind::Postgres(Postgres {
        url: PostgresUrl::parse("postgres://u@h/d", std::path::Path::new("")).unwrap(),
        tables: vec!["public.things".into()],
        publication: None,
        slot: None,
        start: FirstRows::Snapshot,
    });
    let mut decoder = Ready(Decoder::new(&input, &input.feeds[0], &Registries::new(None)).unwrap());
    let records = [
        r#"{"price":"Infinity"}"#,
        r#"{"price":"1234"}"#,
        r#"{"at":1500000000123456}"#,
    ]
    .map(|row| format!(r#"{{"op":"c","after":{row},"source":{{"connector":"postgresql"}}}}"#));
    let decoded = decoder.decode(raw(None, &records));
    assert_eq!(rows(&decoded), ["1+ -|1234.00"]);
}

fn typed() -> Vec<Col> {
    vec![
        col("d", "DATE"),
        col("ms", "TIMESTAMP"),
        col("us", "TIMESTAMP"),
        col("ns", "TIMESTAMP"),
        col("z", "TIMESTAMP"),
        col("dec", "DECIMAL(10,2)"),
        col("var", "DECIMAL(10,3)"),
        col("dbl", "DECIMAL(10,2)"),
        col("b", "BINARY"),
        col("j", "VARCHAR"),
        col("big", "BIGINT"),
    ]
}

#[test]
fn the_schema_part_says_what_values_mean() {
    let field = |name: &str, semantic: &str| {
        format!(r#"{{"type":"x","optional":true,"name":"{semantic}","field":"{name}","parameters":{{"scale":"4"}}}}"#)
    };
    let fields = [
        field("d", "org.apache.kafka.connect.data.Date"),
        field("ms", "io.debezium.time.Timestamp"),
        field("us", "io.debezium.time.MicroTimestamp"),
        field("ns", "io.debezium.time.NanoTimestamp"),
        field("z", "io.debezium.time.ZonedTimestamp"),
        field("dec", "org.apache.kafka.connect.data.Decimal"),
        field("var", "io.debezium.data.VariableScaleDecimal"),
        field("j", "io.debezium.data.Json"),
        field("big", "org.apache.kafka.connect.data.Decimal"),
    ];
    let schema = format!(
        r#"{{"type":"struct","fields":[{{"type":"struct","field":"after","fields":[{}]}}]}}"#,
        fields.join(",")
    );
    // 123.4500 at scale 4 is 1234500 = 0x12d644; 1230000 = 0x12c4b0; 98.765 at scale 3 is 98765 = 0x0181cd.
    let record = format!(
        r#"{{"schema":{schema},"payload":{{"op":"c","after":{{"d":15317,"ms":1500000000123,"us":1500000000123456,
        "ns":1500000000123456000,"z":"2017-07-14T02:40:00.5+01:00","dec":"EtZE","var":{{"scale":3,"value":"AYHN"}},
        "dbl":12.5,"b":"AQI=","j":"{{\"k\":1}}","big":"EsSw"}}}}}}"#
    );
    let decoded = decoder(Format::DebeziumJson, &[], typed()).decode(raw(None, &[&record, &record]));
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    let row = "2011-12-09|2017-07-14T02:40:00.123|2017-07-14T02:40:00.123456|2017-07-14T02:40:00.123456|\
               2017-07-14T01:40:00.500|123.45|98.765|12.50|0102|{\"k\":1}|123";
    assert_eq!(rows(&decoded), [format!("0+ {row}"), format!("1+ {row}")]);
}

/// A schema part that was seen before is not parsed again, whatever stands around it.
#[test]
fn a_schema_part_that_repeats_changes_no_record() {
    let schema = r#"{"fields":[{"field":"after","fields":[{"field":"lsn","type":"int64"}]}]}"#;
    let row = r#"{"op":"c","after":{"id":1,"name":"a"},"source":{"ts_ms":5,"lsn":9},"ts_ms":7}"#;
    let first = format!(r#"{{"schema":{schema},"payload":{row}}}"#);
    let other = schema.replace("lsn", "nsl");
    let records = [
        first.clone(),
        format!(r#"{{"schema":{schema},"payload":{row}}} "#),
        format!(r#"{{"schema":{schema},"payload": {row}}}"#),
        format!(r#"{{"schema":{schema},"payload":null}}"#),
        format!(r#"{{"schema":{schema},"payload":{row},"op":"d"}}"#),
        format!(r#"{{"schema":{schema},"payload":{row}}}}}"#),
        format!(r#"{{"schema":{schema},"payload":{row}"#),
        format!(r#"{{"schema":{schema},"payload":{{"status":"END","id":"571","event_count":2}}}}"#),
        format!(r#"{{"schema":{schema},"payload":{{}}}}"#),
        format!(r#"{{"schema":{other},"payload":{row}}}"#),
        row.to_string(),
    ];
    let mut experienced = decoder(Format::DebeziumJson, &["id"], people());
    experienced.decode(raw(None, &[first]));
    let repeated = experienced.decode(raw(None, &records));
    let alone = changes(&["id"], &records.each_ref().map(String::as_str));
    assert_eq!(rows(&repeated), rows(&alone));
    assert_eq!(rejects(&repeated), rejects(&alone));
    assert_eq!(repeated.source_ms, alone.source_ms);
    assert_eq!(repeated.ignored_fields, alone.ignored_fields);
    assert!(
        rows(&alone).len() > 4 && rejects(&alone).len() > 2,
        "{:?}",
        rejects(&alone)
    );
}

#[test]
fn without_the_schema_part_integers_are_micros_and_days_and_decimals_have_the_column_s_scale() {
    // -12.34 at scale 2 is -1234 = 0xfb2e.
    let record = r#"{"op":"c","after":{"d":15317,"us":1500000000123456,"z":"2017-07-14 02:40:00","dec":"+y4=","var":"-1.5","dbl":392.25}}"#;
    let decoded = decoder(Format::DebeziumJson, &[], typed()).decode(raw(None, &[record]));
    assert_eq!(
        rows(&decoded),
        ["0+ 2011-12-09|-|2017-07-14T02:40:00.123456|-|2017-07-14T02:40:00|-12.34|-1.500|392.25|-|-|-"]
    );
    let columns = vec![
        col("ms", "TIMESTAMP").format(&["epoch_ms"]),
        col("dec", "DECIMAL(10,2)").format(&["base64"]),
    ];
    // "1234" is valid as digits and as base64 of d7 6d f8; the format decides.
    let record = r#"{"op":"c","after":{"ms":1500000000123,"dec":"1234"}}"#;
    let decoded = decoder(Format::DebeziumJson, &[], columns).decode(raw(None, &[record]));
    assert_eq!(rows(&decoded), ["0+ 2017-07-14T02:40:00.123|-26588.24"]);
}

#[test]
fn times_of_day_are_not_points_in_time() {
    let schema = r#"{"fields":[{"field":"after","fields":[{"field":"us","name":"io.debezium.time.MicroTime"}]}]}"#;
    let record = format!(r#"{{"schema":{schema},"payload":{{"op":"c","after":{{"us":40271000010}}}}}}"#);
    let decoded = decoder(Format::DebeziumJson, &[], typed()).decode(raw(None, &[record]));
    assert!(rejects(&decoded)[0].contains("time of day"), "{:?}", decoded.rejects);
}

#[test]
fn documents_in_strings_are_rows_too() {
    let columns = vec![
        col("id", "BIGINT").from(&["_id.$numberLong", "_id"]).required(),
        col("first_name", "VARCHAR"),
    ];
    let record =
        r#"{"before":null,"after":"{\"_id\": {\"$numberLong\": \"1004\"},\"first_name\": \"A\\u00e9\"}","op":"r"}"#;
    let decoded = decoder(Format::DebeziumJson, &["id"], columns).decode(raw(None, &[record]));
    assert_eq!(
        rows(&decoded),
        ["0+ {\"$numberLong\": \"1004\"}|A"].map(|_| "0+ 1004|Aé".to_string())
    );
}
