//! Rows without Debezium's envelope: flattened ones, and those of Canal and Maxwell.

use super::*;

fn columns() -> Vec<Col> {
    vec![col("id", "BIGINT").required(), col("name", "VARCHAR")]
}

#[test]
fn unwrapped_records_delete_by_their_flag() {
    let records = [
        r#"{"id":1,"name":"a","__deleted":"false","__op":"c","__source_ts_ms":5}"#,
        r#"{"id":1,"name":"a","__deleted":"true","__op":"d","__ts_ms":6}"#,
        r#"{"id":2,"__deleted":true}"#,
        r#"{"id":3,"__op":"d"}"#,
        r#"{"id":4,"__op":"u","__source_ts_ms":0}"#,
    ];
    let decoded = decoder(Format::Json, &["id"], columns()).decode(raw(None, &records));
    assert_eq!(rows(&decoded), ["0+ 1|a", "1- 1|a", "2- 2|-", "3- 3|-", "4+ 4|-"]);
    assert_eq!(decoded.source_ms, [Some(5), Some(6), None, None, None]);
    assert_eq!(decoded.ignored_fields, []);
    let decoded = decoder(Format::Json, &[], columns()).decode(raw(None, &records));
    assert_eq!(rows(&decoded), ["0+ 1|a", "4+ 4|-"]);
    assert!(
        rejects(&decoded)[0].contains("its row is deleted, but the input has no key"),
        "{:?}",
        decoded.rejects
    );
    // If a column takes the flag, the row is wanted.
    let columns = [
        columns(),
        vec![col("gone", "BOOLEAN").from(&["__deleted"]), col("__op", "VARCHAR")],
    ]
    .concat();
    let decoded = decoder(Format::Json, &["id"], columns).decode(raw(None, &records[..2]));
    assert_eq!(rows(&decoded), ["0+ 1|a|false|c", "1+ 1|a|true|d"]);
}

/// A decoder of Canal's or Maxwell's records, for these tables.
fn of_tables(format: Format, columns: Vec<Col>, tables: &[&str]) -> Ready {
    let mut input = input(format, &["id"], columns);
    input.feeds[0].wire.tables = tables.iter().map(|table| table.to_string()).collect();
    Ready(Decoder::new(&input, &input.feeds[0], &Registries::new(None)).unwrap())
}

#[test]
fn changes_of_other_tables_of_a_topic_are_counted_and_no_truncation_takes_their_rows() {
    let canal = |table: &str, what: &str, data: &str| {
        format!(
            r#"{{"data":{data},"database":"shop","table":"{table}","es":1,"isDdl":{},"type":"{what}"}}"#,
            what == "TRUNCATE"
        )
    };
    let records = [
        canal("orders", "INSERT", r#"[{"id":"1","name":"a"}]"#),
        canal("customers", "INSERT", r#"[{"id":"1","name":"Ann"}]"#),
        canal("scratch", "TRUNCATE", "null"),
        canal("orders", "TRUNCATE", "null"),
    ];
    let decoded = of_tables(Format::CanalJson, columns(), &["shop.orders"]).decode(raw(None, &records));
    assert_eq!(rows(&decoded), ["0+ 1|a", "30 -|-"]);
    assert_eq!(decoded.ignored_fields, [("(other table)".to_string(), 2)]);
    // If the feed reads all tables, or several, it is unknown whose rows a truncation concerns.
    for tables in [&[][..], &["shop.orders", "shop.customers", "shop.scratch"]] {
        let decoded = of_tables(Format::CanalJson, columns(), tables).decode(raw(None, &records));
        assert_eq!(rows(&decoded), ["0+ 1|a", "1+ 1|Ann"]);
        let reasons = rejects(&decoded);
        assert!(
            reasons.len() == 2 && reasons[0].contains("TRUNCATE of one of several tables"),
            "{reasons:?}"
        );
    }
    let records = [
        r#"{"database":"shop","table":"orders","type":"insert","ts":5,"data":{"id":1,"name":"a"}}"#,
        r#"{"database":"other","table":"orders","type":"delete","ts":5,"data":{"id":1,"name":"a"}}"#,
    ];
    let decoded = of_tables(Format::MaxwellJson, columns(), &["shop.orders"]).decode(raw(None, &records));
    assert_eq!(rows(&decoded), ["0+ 1|a"]);
}

#[test]
fn a_row_beside_its_schema_is_read_by_it() {
    let schema = r#"{"type":"struct","fields":[{"field":"id","type":"int64"},{"field":"at","type":"int64","name":"io.debezium.time.Timestamp"},
        {"field":"price","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}]}"#;
    let record = |payload: &str| format!(r#"{{"schema":{schema},"payload":{payload}}}"#).into_bytes();
    let columns = || {
        vec![
            col("id", "BIGINT").required(),
            col("at", "TIMESTAMP"),
            col("price", "DECIMAL(10,2)"),
        ]
    };
    let records = [
        record(r#"{"id":1,"at":1500000000123,"price":"+y4="}"#),
        record(r#"{"id":2,"at":null,"price":null,"__deleted":"true"}"#),
        record("null"),
        br#"{"id":3,"at":"2017-07-14","price":1.5}"#.to_vec(),
    ];
    let keys: [Option<&[u8]>; 4] = [None, None, Some(br#"{"schema":null,"payload":{"id":4}}"#), None];
    let records: Vec<KeyAndValue<'_>> = keys
        .iter()
        .zip(&records)
        .map(|(key, value)| (*key, Some(&value[..])))
        .collect();
    let decoded = decoder(Format::Json, &["id"], columns()).decode(keyed(None, &records));
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(
        rows(&decoded),
        [
            "0+ 1|2017-07-14T02:40:00.123|-12.34",
            "1- 2|-|-",
            "2- 4|-|-",
            "3+ 3|2017-07-14T00:00:00|1.50"
        ]
    );
    // If columns take the payload, it is not unwrapped.
    let whole = vec![col("id", "BIGINT").from(&["payload.id"]), col("payload", "VARCHAR")];
    let decoded = decoder(Format::Json, &[], whole).decode(raw(None, &[r#"{"schema":{},"payload":{"id":1}}"#]));
    assert_eq!(rows(&decoded), [r#"0+ 1|{"id":1}"#]);
}

#[test]
fn canal_s_lists_of_rows_become_changes() {
    let records = [
        r#"{"data":[{"id":"1","name":"a"},{"id":"2","name":null}],"database":"d","es":5000,"isDdl":false,"old":null,"type":"INSERT"}"#,
        r#"{"data":[{"id":"1","name":"b"},{"id":"3","name":"c"}],"es":6000,"old":[{"name":"a"},{"id":"2"}],"type":"UPDATE"}"#,
        r#"{"data":[{"id":"1","name":"b"}],"type":"DELETE"}"#,
        r#"{"data":null,"type":"ERASE","isDdl":true}"#,
        r#"{"data":null,"type":"ALTER","isDdl":true,"sql":"ALTER TABLE x"}"#,
        r#"{"data":[{"id":"7"},{"id":"x"}],"type":"INSERT"}"#,
        r#"{"data":[{"id":"7"},5],"type":"INSERT"}"#,
        r#"{"id":7}"#,
    ];
    let decoded = decoder(Format::CanalJson, &["id"], columns()).decode(raw(None, &records));
    assert_eq!(
        rows(&decoded),
        ["0+ 1|a", "0+ 2|-", "1+ 1|b", "1- 2|c", "1+ 3|c", "2- 1|b"]
    );
    assert_eq!(decoded.source_ms[..3], [Some(5000), Some(6000), None]);
    assert_eq!(decoded.ignored_fields, [("(canal message)".to_string(), 2)]);
    let parts = ["\"x\" is not a BIGINT", "must hold rows", "no field \"type\""];
    let reasons = rejects(&decoded);
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(
        reasons.iter().zip(parts).all(|(reason, part)| reason.contains(part)),
        "{reasons:?}"
    );
    let unkeyed = decoder(Format::CanalJson, &[], columns()).decode(raw(None, &records[1..2]));
    assert_eq!(rows(&unkeyed), ["0- 1|a", "0+ 1|b", "0- 2|c", "0+ 3|c"]);
}

#[test]
fn maxwell_s_rows_become_changes() {
    let columns = [columns(), vec![col("xid", "BIGINT").from(&["envelope.xid"])]].concat();
    let records = [
        r#"{"database":"d","table":"t","type":"insert","ts":5,"xid":9,"commit":true,"data":{"id":1,"name":"a"}}"#,
        r#"{"type":"update","ts":6,"data":{"id":2,"name":"a"},"old":{"id":1}}"#,
        r#"{"type":"delete","ts":7,"data":{"id":2,"name":"a"}}"#,
        r#"{"type":"bootstrap-start","ts":8,"data":{}}"#,
        r#"{"type":"bootstrap-insert","ts":8,"data":{"id":3,"name":"b"}}"#,
        r#"{"type":"insert","data":[]}"#,
    ];
    let decoded = decoder(Format::MaxwellJson, &["id"], columns).decode(raw(None, &records));
    assert_eq!(
        rows(&decoded),
        ["0+ 1|a|9", "1- 1|a|-", "1+ 2|a|-", "2- 2|a|-", "4+ 3|b|-"]
    );
    assert_eq!(decoded.source_ms[0], Some(5000));
    assert_eq!(decoded.ignored_fields, [("(maxwell message)".to_string(), 1)]);
    assert!(
        rejects(&decoded)[0].contains("no rows in `data`"),
        "{:?}",
        decoded.rejects
    );
}

#[test]
fn raw_records_are_their_bytes() {
    let columns = vec![
        col("value", "BINARY"),
        col("text", "VARCHAR").from(&["value"]),
        col("key", "VARCHAR"),
        col("at", "TIMESTAMP").from(&["timestamp"]),
        col("offset", "BIGINT"),
        col("headers", "VARCHAR"),
        col("trace", "VARCHAR").from(&["headers.trace"]),
    ];
    let mut decoder = decoder(Format::Raw, &[], columns);
    let mut records = keyed(None, &[(Some(b"k"), Some(b"{}")), (None, None), (None, Some(b"\xff"))]);
    let Payloads::Records { ts_ms, headers, .. } = &mut records.payloads else {
        unreachable!()
    };
    ts_ms[0] = Some(1500);
    *headers = Some(vec![Some(r#"{"trace":"00-1"}"#), None, None].into());
    let decoded = decoder.decode(records);
    assert_eq!(
        rows(&decoded),
        [
            "0+ 7b7d|{}|k|1970-01-01T00:00:01.500|0|{\"trace\":\"00-1\"}|00-1",
            "1+ -|-|-|-|1|-|-"
        ]
    );
    assert!(
        rejects(&decoded)[0].contains("bytes that are not UTF-8; declare the column BINARY"),
        "{:?}",
        decoded.rejects
    );
}
