//! Which columns the fields of schemas could become, and that values can be decoded as the types chosen.

use super::*;
use crate::decode::newcomers;
use crate::decode::tests::wire::{Wired, avro, framed};
use crate::registry::{self, Language};
use serde_json::{Value, json};

fn schema(language: Language, text: &str) -> registry::RegisteredSchema {
    registry::RegisteredSchema {
        id: 1,
        language,
        text: text.to_string(),
        references: vec![],
        versions: vec![],
    }
}

/// The fields and their types; for a field that is left out, the reason.
fn found(format: Format, language: Language, text: &str, columns: Vec<Col>) -> Vec<String> {
    let input = input(format, &[], columns);
    let found = newcomers(&input, &input.feeds[0], &schema(language, text)).unwrap();
    let shown = found.into_iter().map(|newcomer| match newcomer.column {
        Ok(sql_type) => format!("{} {sql_type}", newcomer.field),
        Err(reason) => format!("{}: {reason}", newcomer.field),
    });
    shown.collect()
}

fn nullable(of: Value) -> Value {
    json!(["null", of])
}

fn fields() -> Value {
    let fields = [
        ("id", json!("long")),
        ("flag", nullable(json!("boolean"))),
        ("small", nullable(json!("int"))),
        ("share", nullable(json!("float"))),
        ("day", nullable(json!({"type": "int", "logicalType": "date"}))),
        (
            "at",
            nullable(json!({"type": "long", "logicalType": "timestamp-micros"})),
        ),
        (
            "zoned",
            nullable(json!({"type": "string", "connect.name": "io.debezium.time.ZonedTimestamp"})),
        ),
        (
            "price",
            nullable(json!({"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2})),
        ),
        (
            "free",
            nullable(json!({"type": "bytes", "logicalType": "decimal", "scale": 3})),
        ),
        ("raw", nullable(json!("bytes"))),
        ("tags", nullable(json!({"type": "array", "items": "string"}))),
        ("counts", nullable(json!({"type": "map", "values": "int"}))),
        (
            "place",
            nullable(json!({"type": "record", "name": "P", "fields": [{"name": "x", "type": "int"}]})),
        ),
        ("kind", json!({"type": "enum", "name": "K", "symbols": ["A", "B"]})),
        ("mixed", json!(["null", "int", "string"])),
        ("must", json!("int")),
        ("__op", nullable(json!("string"))),
        ("Known", nullable(json!("string"))),
    ];
    let default = |name: &str| (name == "kind").then(|| json!("A"));
    let field = |(name, of): &(&str, Value)| match default(name) {
        Some(default) => json!({"name": name, "type": of, "default": default}),
        None => json!({"name": name, "type": of}),
    };
    json!({"type": "record", "name": "R", "fields": fields.iter().map(field).collect::<Vec<_>>()})
}

#[test]
fn fields_of_avro_are_columns_of_the_types_that_their_values_are_read_as() {
    let known = || vec![col("id", "BIGINT"), col("known", "VARCHAR").from(&["other"])];
    let expected = [
        "flag BOOLEAN",
        "small INT",
        "share DOUBLE",
        "day DATE",
        "at TIMESTAMP",
        "zoned TIMESTAMP",
        "price DECIMAL(10,2)",
        "free DECIMAL(38,3)",
        "raw BINARY",
        "tags VARCHAR[]",
        "counts VARCHAR",
        "place VARCHAR",
        "kind VARCHAR",
        "mixed: it is a union of several types; declare its column",
        "must: it may not be null and has no default, so it is in no older record",
        "Known: column \"known\" has its name, and takes another field",
    ];
    let text = fields().to_string();
    assert_eq!(found(Format::Avro, Language::Avro, &text, known()), expected);
    // The rows of an envelope are in `after`. A column that takes a value inside a field counts as taking the field.
    let envelope = json!({"type": "record", "name": "E", "fields": [
        {"name": "before", "type": ["null", fields()]}, {"name": "after", "type": ["null", "R"]}, {"name": "op", "type": "string"}]});
    let mut inside = known();
    inside.push(col("x", "INT").from(&["place.x"]));
    let rest: Vec<&str> = expected
        .into_iter()
        .filter(|field| !field.starts_with("place"))
        .collect();
    assert_eq!(
        found(Format::DebeziumAvro, Language::Avro, &envelope.to_string(), inside),
        rest
    );

    // A record of that schema fills columns of these types.
    let columns = expected.iter().filter_map(|field| field.split_once(' '));
    let columns = columns.filter(|(name, _)| !name.ends_with(':'));
    let wired = Wired::new(Format::Avro, &[], columns.map(|(name, of)| col(name, of)).collect());
    let id = wired.avro("r", &fields());
    let value = json!({"id": 1, "flag": true, "small": 2, "share": 0.5, "day": 1, "at": 1_000_000, "zoned": "2024-01-02T03:04:05Z",
        "price": "0102", "free": "03", "raw": "72", "tags": ["a", "b"], "counts": {"n": 1}, "place": {"x": 4}, "kind": "B",
        "mixed": null, "must": 5, "__op": "c", "Known": null});
    let decoded = wired.decode(&[framed(id, &avro(&fields(), &value))]);
    assert_eq!(decoded.rejects, vec![]);
    let row: Vec<String> = decoded
        .rows
        .columns()
        .iter()
        .map(|c| array_value_to_string(c, 0).unwrap())
        .collect();
    assert_eq!(
        row,
        [
            "true",
            "2",
            "0.5",
            "1970-01-02",
            "1970-01-01T00:00:01",
            "2024-01-02T03:04:05",
            "2.58",
            "0.003",
            "72",
            "[a, b]",
            "{\"n\":1}",
            "{\"x\":4}",
            "B"
        ]
    );
}

#[test]
fn fields_of_protobuf_and_json_schemas_are_columns() {
    let proto = r#"syntax = "proto3";
        import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto"; import "google/type/date.proto";
        message Order { int64 id = 1; optional string note = 2; uint64 big = 3; repeated int32 marks = 4; map<string, int32> by = 5;
          google.protobuf.Timestamp at = 6; google.protobuf.DoubleValue share = 7; google.type.Date day = 8; bytes raw = 9; Other other = 10; }
        message Other { int32 x = 1; }"#;
    assert_eq!(
        found(Format::Protobuf, Language::Protobuf, proto, vec![col("id", "BIGINT")]),
        [
            "note VARCHAR",
            "big DECIMAL(20,0)",
            "marks INT[]",
            "by VARCHAR",
            "at TIMESTAMP",
            "share DOUBLE",
            "day DATE",
            "raw BINARY",
            "other VARCHAR"
        ]
    );
    let text = json!({"type": "object", "required": ["id", "must"], "properties": {
        "id": {"type": "integer"}, "note": {"oneOf": [{"type": "null"}, {"type": "string"}]}, "n": {"type": ["integer", "null"]},
        "share": {"type": "number"}, "at": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string"}}, "place": {"$ref": "#/$defs/place"}, "kind": {"enum": ["a", "b"]},
        "must": {"type": "string"}, "mixed": {"type": ["integer", "string"]}, "any": {}, "a b": {"type": "string"}},
        "$defs": {"place": {"type": "object"}}});
    let mut found = found(
        Format::JsonSchema,
        Language::Json,
        &text.to_string(),
        vec![col("id", "BIGINT")],
    );
    found.sort();
    assert_eq!(
        found,
        [
            "a b: Delta tables cannot have a column of its name; name the field in a column's `from`",
            "any: its schema says no type",
            "at TIMESTAMP",
            "day DATE",
            "kind VARCHAR",
            "mixed: it has several types; declare its column",
            "must: it may not be null and has no default, so it is in no older record",
            "n BIGINT",
            "note VARCHAR",
            "place VARCHAR",
            "share DOUBLE",
            "tags VARCHAR[]",
        ]
    );
}

#[test]
fn formats_without_schemas_have_no_newcomers_and_what_cannot_be_read_says_why() {
    assert!(found(Format::Json, Language::Avro, "{}", vec![col("id", "BIGINT")]).is_empty());
    let input = input(Format::Avro, &[], vec![col("id", "BIGINT")]);
    let broken = newcomers(&input, &input.feeds[0], &schema(Language::Avro, "{"));
    assert!(broken.unwrap_err().starts_with("it is not JSON"));
}
