//! Compares Debezium's Avro with its JSON: the same changes must yield the same rows.

use super::*;
use crate::decode::decoded::RecordTransaction;
use crate::decode::tests::wire::{Wired, avro, framed};
use serde_json::{Value, json};

/// The schema of a table's row as Connect's AvroConverter writes it, with every temporal and decimal mode.
fn row() -> Value {
    let named = |kind: &str, name: &str| json!({"type": kind, "connect.version": 1, "connect.name": name});
    let field = |name: &str, schema: Value| json!({"name": name, "type": ["null", schema], "default": null});
    json!({"type": "record", "name": "Value", "fields": [
        {"name": "id", "type": "int"},
        field("d", named("int", "io.debezium.time.Date")),
        field("cd", json!({"type": "int", "connect.name": "org.apache.kafka.connect.data.Date", "logicalType": "date"})),
        field("ms", named("long", "io.debezium.time.Timestamp")),
        field("us", named("long", "io.debezium.time.MicroTimestamp")),
        field("ns", named("long", "io.debezium.time.NanoTimestamp")),
        field("cms", json!({"type": "long", "connect.name": "org.apache.kafka.connect.data.Timestamp", "logicalType": "timestamp-millis"})),
        field("z", named("string", "io.debezium.time.ZonedTimestamp")),
        field("iso", named("string", "io.debezium.time.IsoDate")),
        field("t", named("long", "io.debezium.time.MicroTime")),
        field("dec", json!({"type": "bytes", "scale": 4, "precision": 12, "connect.version": 1, "connect.parameters": {"scale": "4"},
            "connect.name": "org.apache.kafka.connect.data.Decimal", "logicalType": "decimal"})),
        field("var", json!({"type": "record", "namespace": "io.debezium.data", "name": "VariableScaleDecimal", "fields": [
            {"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
            "connect.name": "io.debezium.data.VariableScaleDecimal"})),
        field("dbl", json!("double")),
        field("str", json!("string")),
        field("e", named("string", "io.debezium.data.Enum")),
        field("j", named("string", "io.debezium.data.Json")),
        field("u", named("string", "io.debezium.data.Uuid")),
        field("b", json!("bytes")),
        field("a", json!({"type": "array", "items": ["null", "string"]})),
        field("ok", json!("boolean"))
    ], "connect.name": "shop.public.orders.Value"})
}

/// The same as the schema part of the JSON converter.
fn json_schema() -> Value {
    let field = |name: &str, semantic: &str| json!({"field": name, "name": semantic, "parameters": {"scale": "4"}});
    let fields = [
        field("d", "io.debezium.time.Date"),
        field("cd", "org.apache.kafka.connect.data.Date"),
        field("ms", "io.debezium.time.Timestamp"),
        field("us", "io.debezium.time.MicroTimestamp"),
        field("ns", "io.debezium.time.NanoTimestamp"),
        field("cms", "org.apache.kafka.connect.data.Timestamp"),
        field("z", "io.debezium.time.ZonedTimestamp"),
        field("iso", "io.debezium.time.IsoDate"),
        field("t", "io.debezium.time.MicroTime"),
        field("dec", "org.apache.kafka.connect.data.Decimal"),
        field("var", "io.debezium.data.VariableScaleDecimal"),
    ];
    json!({"fields": [{"field": "before", "fields": fields}, {"field": "after", "fields": fields}]})
}

fn envelope() -> Value {
    json!({"type": "record", "name": "Envelope", "namespace": "shop.public.orders", "fields": [
        {"name": "before", "type": ["null", row()], "default": null},
        {"name": "after", "type": ["null", "Value"], "default": null},
        {"name": "source", "type": {"type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql", "fields": [
            {"name": "connector", "type": "string"}, {"name": "ts_ms", "type": "long"},
            {"name": "snapshot", "type": [{"type": "string", "connect.default": "false"}, "null"], "default": "false"},
            {"name": "db", "type": "string"}, {"name": "schema", "type": "string"}, {"name": "table", "type": "string"},
            {"name": "lsn", "type": ["null", "long"], "default": null}]}},
        {"name": "transaction", "type": ["null", {"type": "record", "name": "block", "namespace": "event", "fields": [
            {"name": "id", "type": "string"}, {"name": "total_order", "type": "long"},
            {"name": "data_collection_order", "type": "long"}]}], "default": null},
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": ["null", "long"], "default": null}
    ], "connect.name": "shop.public.orders.Envelope"})
}

fn columns() -> Vec<Col> {
    vec![
        col("id", "BIGINT").required(),
        col("d", "DATE"),
        col("cd", "DATE"),
        col("ms", "TIMESTAMP"),
        col("us", "TIMESTAMP"),
        col("ns", "TIMESTAMP"),
        col("cms", "TIMESTAMP"),
        col("z", "TIMESTAMP"),
        col("iso", "DATE"),
        col("t", "BIGINT"),
        col("dec", "DECIMAL(12,4)"),
        col("dec_text", "VARCHAR").from(&["dec"]),
        col("dec_dbl", "DOUBLE").from(&["dec"]),
        col("var", "DECIMAL(12,3)"),
        col("dbl", "DECIMAL(10,2)"),
        col("str", "DECIMAL(10,2)"),
        col("e", "VARCHAR"),
        col("j", "VARCHAR"),
        col("u", "VARCHAR"),
        col("b", "BINARY"),
        col("a", "VARCHAR[]"),
        col("ok", "BOOLEAN"),
        col("lsn", "BIGINT").from(&["source.lsn"]),
        col("op", "VARCHAR").from(&["envelope.op"]),
        col("tx", "VARCHAR").from(&["transaction.id"]),
        col("at", "TIMESTAMP").from(&["source.ts_ms"]),
        col("ts_ms", "BIGINT").from(&["source.ts_ms"]),
    ]
}

/// A row image; the two forms of decimals and bytes are hexadecimal (for Avro) and base64.
fn image(id: i64, name: &str, binary: bool) -> Value {
    let bytes = |hex: &str, base64: &str| json!(if binary { hex } else { base64 });
    json!({"id": id, "d": 15317, "cd": 15318, "ms": 1_500_000_000_123i64, "us": 1_500_000_000_123_456i64,
        "ns": 1_500_000_000_123_456_000i64, "cms": 1_500_000_000_124i64, "z": "2017-07-14T02:40:00.5+01:00",
        "iso": "2011-12-09Z", "t": 40_271_000_010i64, "dec": bytes("12d644", "EtZE"),
        "var": {"scale": 3, "value": bytes("0181cd", "AYHN")}, "dbl": 12.5, "str": "-1.50", "e": name, "j": "{\"k\": 1}",
        "u": "00112233-4455-6677-8899-aabbccddeeff", "b": bytes("0102", "AQI="), "a": ["x", null], "ok": true})
}

/// The same changes, as values for Avro or JSON.
fn changes(binary: bool) -> Vec<Value> {
    let source = |lsn: i64| {
        json!({"connector": "postgresql", "ts_ms": 5 + lsn, "snapshot": "last", "db": "shop",
        "schema": "public", "table": "orders", "lsn": lsn})
    };
    let transaction = |n: i64| json!({"id": "571:53195829", "total_order": n, "data_collection_order": n});
    let envelope = |op: &str, before: Value, after: Value, lsn: i64, transaction: Value| json!({"op": op, "before": before, "after": after, "source": source(lsn), "transaction": transaction, "ts_ms": 9});
    let row = |id, name| image(id, name, binary);
    let mut left_out = row(1, "d");
    left_out["j"] = json!("__debezium_unavailable_value");
    left_out["b"] = json!(if binary {
        "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565"
    } else {
        "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="
    });
    left_out["a"] = json!(["__debezium_unavailable_value"]);
    vec![
        envelope("r", Value::Null, row(1, "a"), 1, Value::Null),
        envelope("c", Value::Null, row(2, "b"), 2, transaction(1)),
        envelope("u", row(2, "b"), row(3, "c"), 3, transaction(2)),
        envelope("u", Value::Null, left_out, 4, Value::Null),
        envelope("d", row(3, "c"), Value::Null, 5, Value::Null),
        envelope("t", Value::Null, Value::Null, 6, Value::Null),
        envelope("m", Value::Null, Value::Null, 7, Value::Null),
    ]
}

fn compared(key: &[&str]) -> (Decoded, Decoded) {
    let wired = Wired::new(Format::DebeziumAvro, key, columns());
    let id = wired.avro("shop.public.orders-value", &envelope());
    let records: Vec<Vec<u8>> = changes(true)
        .iter()
        .map(|change| framed(id, &avro(&envelope(), change)))
        .collect();
    let in_json = changes(false)
        .into_iter()
        .map(|change| json!({"schema": json_schema(), "payload": change}).to_string());
    let in_json: Vec<String> = in_json.collect();
    let json = decoder(Format::DebeziumJson, key, columns()).decode(raw(None, &in_json));
    (wired.decode(&records), json)
}

#[test]
fn avro_comes_to_what_json_comes_to() {
    for key in [&["id"][..], &[]] {
        let (avro, json) = compared(key);
        let reasons = |decoded: &Decoded| -> Vec<String> {
            let cut = |reason: String| reason.split("; written by").next().unwrap().to_string();
            rejects(decoded).into_iter().map(cut).collect()
        };
        assert_eq!(reasons(&avro), reasons(&json), "{key:?}");
        assert_eq!(rows(&avro), rows(&json), "{key:?}");
        assert_eq!(avro.source_ms, json.source_ms);
        assert_eq!(avro.unchanged, json.unchanged);
        assert_eq!(avro.transactions, json.transactions);
        assert_eq!(avro.ignored_fields, json.ignored_fields);
    }
    let (avro, _) = compared(&["id"]);
    assert_eq!(
        rows(&avro)[1],
        "1+ 2|2011-12-09|2011-12-10|2017-07-14T02:40:00.123|2017-07-14T02:40:00.123456|2017-07-14T02:40:00.123456|\
         2017-07-14T02:40:00.124|2017-07-14T01:40:00.500|2011-12-09|40271000010|123.4500|123.4500|123.45|98.765|12.50|-1.50|b|\
         {\"k\": 1}|00112233-4455-6677-8899-aabbccddeeff|0102|[x, ]|true|2|c|571:53195829|1970-01-01T00:00:00.007|7"
    );
    assert_eq!(avro.ops.len(), 7, "the key change is a delete and an upsert");
    assert_eq!(avro.unchanged.len(), 3, "{:?}", avro.unchanged);
    assert_eq!(avro.ignored_fields, [("(debezium message)".to_string(), 1)]);
}

#[test]
fn transactions_are_told_by_id_order_and_table() {
    let (decoded, _) = compared(&["id"]);
    let place = |record: u32, order: u64| RecordTransaction {
        record,
        id: "571:53195829".into(),
        total_order: order,
        collection_order: order,
        collection: "public.orders".into(),
    };
    assert_eq!(decoded.transactions, [place(1, 1), place(2, 2)]);
    assert!(
        Arc::ptr_eq(&decoded.transactions[0].id, &decoded.transactions[1].id),
        "what repeats is kept once"
    );
    for (source, expected) in [
        (r#"{"connector":"mysql","db":"shop","table":"orders"}"#, "shop.orders"),
        (
            r#"{"connector":"sqlserver","db":"shop","schema":"dbo","table":"orders"}"#,
            "shop.dbo.orders",
        ),
        (
            r#"{"connector":"mongodb","db":"shop","collection":"orders"}"#,
            "shop.orders",
        ),
        (
            r#"{"connector":"vitess","db":"","schema":"s","table":"orders"}"#,
            "s.orders",
        ),
    ] {
        let record = format!(
            r#"{{"op":"c","after":{{"id":1}},"source":{source},"transaction":{{"id":"x","total_order":"3"}}}}"#
        );
        let decoded = decoder(Format::DebeziumJson, &["id"], vec![col("id", "INT")]).decode(raw(None, &[record]));
        let [only] = &decoded.transactions[..] else {
            panic!("{:?}", decoded.transactions)
        };
        assert_eq!(
            (&*only.collection, only.total_order, only.collection_order),
            (expected, 3, 0)
        );
    }
}

#[test]
fn heartbeats_transactions_and_schema_changes_are_counted_and_rows_alone_are_refused() {
    let wired = Wired::new(Format::DebeziumAvro, &["id"], columns());
    let record = |name: &str, fields: Value| json!({"type": "record", "name": name, "fields": fields});
    let heartbeat = record("Heartbeat", json!([{"name": "ts_ms", "type": "long"}]));
    let transaction = record(
        "TransactionMetadataValue",
        json!([{"name": "status", "type": "string"}, {"name": "id", "type": "string"},
            {"name": "event_count", "type": ["null", "long"]}, {"name": "ts_ms", "type": "long"}]),
    );
    let change = record(
        "SchemaChangeValue",
        json!([{"name": "source", "type": "string"}, {"name": "ddl", "type": ["null", "string"]}]),
    );
    let flat = record("Value", json!([{"name": "id", "type": "int"}]));
    let mut records = Vec::new();
    for (schema, value) in [
        (&heartbeat, json!({"ts_ms": 77})),
        (
            &transaction,
            json!({"status": "BEGIN", "id": "5", "event_count": null, "ts_ms": 78}),
        ),
        (&change, json!({"source": "x", "ddl": "DROP TABLE x"})),
        (&flat, json!({"id": 1})),
    ] {
        let id = wired.avro("x-value", schema);
        records.push(framed(id, &avro(schema, &value)));
    }
    let decoded = wired.decode(&records);
    assert_eq!(decoded.ignored_fields, [("(debezium message)".to_string(), 3)]);
    assert_eq!(decoded.source_ms, [Some(77), Some(78), None, None]);
    let reasons = rejects(&decoded);
    assert!(
        reasons.len() == 1 && reasons[0].contains("set the feed's format to \"avro\""),
        "{reasons:?}"
    );
}

#[test]
fn deletes_without_before_use_the_record_key() {
    let wired = Wired::new(Format::DebeziumAvro, &["id"], columns());
    let id = wired.avro("orders-value", &envelope());
    let key = json!({"type": "record", "name": "Key", "fields": [{"name": "id", "type": "int"}]});
    let of_key = wired.avro("orders-key", &key);
    let mut delete = changes(true).swap_remove(4);
    delete["before"] = Value::Null;
    let (value, key) = (
        framed(id, &avro(&envelope(), &delete)),
        framed(of_key, &avro(&key, &json!({"id": 12}))),
    );
    let decoded = wired
        .decoder()
        .decode(keyed(None, &[(Some(&key), Some(&value)), (Some(&key), None)]));
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    let lines = rows(&decoded);
    assert!(
        lines.len() == 1 && lines[0].starts_with("0- 12|-|") && lines[0].ends_with("|5|d|-|1970-01-01T00:00:00.010|10"),
        "{lines:?}"
    );
}

/// Records for tests that damage them.
pub(super) fn samples(key: &[&str]) -> (Wired, Vec<Vec<u8>>) {
    let wired = Wired::new(Format::DebeziumAvro, key, columns());
    let id = wired.avro("orders-value", &envelope());
    let samples = changes(true)
        .iter()
        .map(|change| framed(id, &avro(&envelope(), change)))
        .collect();
    (wired, samples)
}
