//! Rows without Debezium's envelope: unwrapped ones, Canal's and Maxwell's.

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
    // Who takes the flag as a column wants to see the row.
    let columns = [
        columns(),
        vec![col("gone", "BOOLEAN").from(&["__deleted"]), col("__op", "VARCHAR")],
    ]
    .concat();
    let decoded = decoder(Format::Json, &["id"], columns).decode(raw(None, &records[..2]));
    assert_eq!(rows(&decoded), ["0+ 1|a|false|c", "1+ 1|a|true|d"]);
}

#[test]
fn canal_s_lists_of_rows_become_changes() {
    let records = [
        r#"{"data":[{"id":"1","name":"a"},{"id":"2","name":null}],"database":"d","es":5000,"isDdl":false,"old":null,"type":"INSERT"}"#,
        r#"{"data":[{"id":"1","name":"b"},{"id":"3","name":"c"}],"es":6000,"old":[{"name":"a"},{"id":"2"}],"type":"UPDATE"}"#,
        r#"{"data":[{"id":"1","name":"b"}],"type":"DELETE"}"#,
        r#"{"data":null,"type":"TRUNCATE","isDdl":true}"#,
        r#"{"data":null,"type":"ALTER","isDdl":true,"sql":"ALTER TABLE x"}"#,
        r#"{"data":[{"id":"7"},{"id":"x"}],"type":"INSERT"}"#,
        r#"{"data":[{"id":"7"},5],"type":"INSERT"}"#,
        r#"{"id":7}"#,
    ];
    let decoded = decoder(Format::CanalJson, &["id"], columns()).decode(raw(None, &records));
    assert_eq!(
        rows(&decoded),
        ["0+ 1|a", "0+ 2|-", "1+ 1|b", "1- 2|c", "1+ 3|c", "2- 1|b", "30 -|-"]
    );
    assert_eq!(decoded.source_ms[..3], [Some(5000), Some(6000), None]);
    assert_eq!(decoded.ignored_fields, [("(canal message)".to_string(), 1)]);
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
