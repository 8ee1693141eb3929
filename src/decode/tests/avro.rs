use super::*;
use crate::decode::tests::wire::{Wired, avro, framed};
use crate::definition::KeyFormat;
use serde_json::{Value, json};

fn order() -> Value {
    json!({"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": ["null", {"type": "record", "name": "Customer", "fields": [
            {"name": "name", "type": "string"},
            {"name": "address", "type": ["null", {"type": "record", "name": "Address", "fields": [
                {"name": "city", "type": "string"}, {"name": "zip", "type": ["null", "string"]}]}]}]}]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "weight", "type": ["float", "null"]},
        {"name": "ratio", "type": "double"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["NEW", "OLD"]}},
        {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "attributes", "type": {"type": "map", "values": "int"}},
        {"name": "uid", "type": {"type": "fixed", "name": "Uid", "size": 16, "logicalType": "uuid"}},
        {"name": "blob", "type": "bytes"},
        {"name": "any", "type": ["null", "string", "long", "Address"]},
        {"name": "paid", "type": "boolean"}
    ]})
}

fn columns() -> Vec<Col> {
    vec![
        col("id", "BIGINT").required(),
        col("city", "VARCHAR").from(&["customer.address.city"]),
        col("customer", "VARCHAR"),
        col("price", "DECIMAL(12,3)"),
        col("price_text", "VARCHAR").from(&["price"]),
        col("day", "DATE"),
        col("at", "TIMESTAMP"),
        col("weight", "DOUBLE"),
        col("ratio", "DECIMAL(6,3)"),
        col("kind", "VARCHAR"),
        col("tags", "VARCHAR[]"),
        col("attributes", "VARCHAR"),
        col("uid", "VARCHAR"),
        col("uid_bytes", "BINARY").from(&["uid"]),
        col("blob", "BINARY"),
        col("any", "VARCHAR"),
        col("paid", "BOOLEAN"),
        col("nowhere", "INT"),
    ]
}

fn sample() -> Value {
    json!({"id": 7, "customer": {"name": "Ann \"A\"", "address": {"city": "Bonn", "zip": null}},
        "price": "04d2", "day": 15317, "at": 1_500_000_000_123i64, "weight": 1.5, "ratio": 0.125, "kind": "OLD",
        "tags": ["a", null, "c"], "attributes": {"x": 1, "y": -2}, "uid": "00112233445566778899aabbccddeeff",
        "blob": "ff00", "any": {"branch": 3, "value": {"city": "Ulm", "zip": "89"}}, "paid": true})
}

const ROW: &str = "7|Bonn|{\"name\":\"Ann \\\"A\\\"\",\"address\":{\"city\":\"Bonn\",\"zip\":null}}|12.340|12.34|2011-12-09|\
                   2017-07-14T02:40:00.123|1.5|0.125|OLD|[a, , c]|{\"x\":1,\"y\":-2}|\
                   00112233-4455-6677-8899-aabbccddeeff|00112233445566778899aabbccddeeff|ff00|{\"city\":\"Ulm\",\"zip\":\"89\"}|true|-";

#[test]
fn every_type_fills_columns_by_name_and_path() {
    let wired = Wired::new(Format::Avro, &[], columns());
    let id = wired.avro("orders-value", &order());
    let mut bare = sample();
    bare["customer"] = Value::Null;
    bare["weight"] = Value::Null;
    bare["tags"] = json!([]);
    bare["any"] = json!(5);
    let records = [sample(), bare].map(|value| framed(id, &avro(&order(), &value)));
    let decoded = wired.decode(&records);
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    let lines = rows(&decoded);
    assert_eq!(lines[0], format!("0+ {ROW}"));
    assert!(
        lines[1].starts_with("1+ 7|-|-|12.340|12.34|2011-12-09|2017-07-14T02:40:00.123|-|0.125|OLD|[]|"),
        "{lines:?}"
    );
    assert!(lines[1].ends_with("|ff00|5|true|-"), "{lines:?}");
}

#[test]
fn what_no_column_takes_is_skipped_and_counted() {
    let wired = Wired::new(
        Format::Avro,
        &[],
        vec![
            col("id", "BIGINT"),
            col("zip", "VARCHAR").from(&["customer.address.zip"]),
        ],
    );
    let id = wired.avro("orders-value", &order());
    let decoded = wired.decode(&[framed(id, &avro(&order(), &sample()))]);
    assert_eq!(rows(&decoded), ["0+ 7|-"]);
    let names: Vec<&str> = decoded.ignored_fields.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        names.contains(&"customer.name") && names.contains(&"customer.address.city") && names.contains(&"blob"),
        "{names:?}"
    );
}

#[test]
fn a_broken_record_is_refused_alone_and_names_its_schema() {
    let wired = Wired::new(Format::Avro, &[], columns());
    let id = wired.avro("orders-value", &order());
    let good = framed(id, &avro(&order(), &sample()));
    let mut long_string = good.clone();
    long_string.truncate(5);
    // id 7, a customer whose name claims 2^40 bytes.
    long_string.extend([14, 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40]);
    let mut more = good.clone();
    more.push(0);
    let records = vec![
        good.clone(),
        good[..good.len() - 3].to_vec(),
        long_string,
        more,
        framed(99, &good[5..]),
        b"{\"id\":7}".to_vec(),
        vec![],
        good.clone(),
    ];
    let decoded = wired.decode(&records);
    assert_eq!(rows(&decoded), [format!("0+ {ROW}"), format!("7+ {ROW}")]);
    let parts = [
        "it ends too early",
        "it ends too early",
        "bytes are left over",
        "the registry has no schema 99",
        "it has no schema id: it begins with the bytes [7b 22 69 64 22]",
        "it has no schema id",
    ];
    let reasons = rejects(&decoded);
    assert_eq!(reasons.len(), parts.len(), "{reasons:#?}");
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
    for reason in &reasons[..3] {
        assert!(
            reason.contains("written by schema 1 (orders-value version 1)"),
            "{reason}"
        );
    }
}

#[test]
fn values_that_no_longer_fit_name_the_version_that_wrote_them() {
    let wired = Wired::new(Format::Avro, &[], vec![col("n", "BIGINT").required()]);
    let version = |kind: &str| json!({"type": "record", "name": "R", "fields": [{"name": "n", "type": kind}]});
    let (one, two) = (version("long"), version("string"));
    let (first, second) = (wired.avro("s-value", &one), wired.avro("s-value", &two));
    let decoded = wired.decode(&[
        framed(first, &avro(&one, &json!({"n": 1}))),
        framed(second, &avro(&two, &json!({"n": "many"}))),
        framed(second, &avro(&two, &json!({"n": "2"}))),
    ]);
    assert_eq!(rows(&decoded), ["0+ 1", "2+ 2"]);
    let reasons = rejects(&decoded);
    assert!(reasons[0].contains("\"many\" is not a BIGINT"), "{reasons:?}");
    assert!(
        reasons[0].contains("written by schema 2 (s-value version 2)"),
        "{reasons:?}"
    );
}

#[test]
fn aliases_and_defaults_of_the_newest_schema_hold_for_older_records() {
    let columns = vec![
        col("id", "BIGINT").required(),
        col("full_name", "VARCHAR"),
        col("alias", "VARCHAR").from(&["second_name"]),
        col("country", "VARCHAR").required(),
        col("city", "VARCHAR").from(&["place.city"]),
        col("late", "VARCHAR").from(&["fresh", "stale"]),
        col("raw", "BINARY"),
    ];
    let wired = Wired::new(Format::Avro, &[], columns);
    let old = json!({"type": "record", "name": "P", "fields": [
        {"name": "id", "type": "int"}, {"name": "name", "type": "string"},
        {"name": "second", "type": "string", "aliases": ["second_name"]}, {"name": "stale", "type": "string"}]});
    let new = json!({"type": "record", "name": "P", "fields": [
        {"name": "id", "type": "long"}, {"name": "full_name", "type": "string", "aliases": ["name"]},
        {"name": "country", "type": "string", "default": "DE"},
        {"name": "place", "type": {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]},
            "default": {"city": "Bonn"}},
        {"name": "fresh", "type": "string", "default": "as ever"},
        {"name": "raw", "type": "bytes", "default": "\u{00ff}\u{0000}"}]});
    let (first, second) = (wired.avro("p-value", &old), wired.avro("p-value", &new));
    let decoded = wired.decode(&[
        framed(
            first,
            &avro(
                &old,
                &json!({"id": 1, "name": "Ann", "second": "Bea", "stale": "there"}),
            ),
        ),
        framed(
            second,
            &avro(
                &new,
                &json!({"id": 2, "full_name": "Cid", "country": "FR", "place": {"city": "Lyon"},
            "fresh": "new", "raw": "01"}),
            ),
        ),
    ]);
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(
        rows(&decoded),
        ["0+ 1|Ann|Bea|DE|Bonn|there|ff00", "1+ 2|Cid|-|FR|Lyon|new|01"]
    );
}

/// All records of one region used to get the other region's default.
#[test]
fn of_a_schema_under_several_subjects_the_topic_s_own_counts() {
    let old = json!({"type": "record", "name": "P", "fields": [{"name": "id", "type": "int"}]});
    let new = json!({"type": "record", "name": "P", "fields": [
        {"name": "id", "type": "int"}, {"name": "region", "type": "string", "default": "EU"}]});
    let columns = vec![col("id", "BIGINT"), col("region", "VARCHAR")];
    let mut wired = Wired::new(Format::Avro, &[], columns);
    let id = wired.avro("eu-value", &old);
    let text = old.to_string();
    wired.mock.register_as(id, "us-value", "AVRO", &text, json!([]));
    wired.avro("eu-value", &new);
    let mut region = |topics: &[&str]| {
        wired.input.feeds[0].kind = kafka(topics);
        let decoded = wired.decode(&[framed(id, &avro(&old, &json!({"id": 1})))]);
        rows(&decoded).remove(0)
    };
    assert_eq!(region(&["us"]), "0+ 1|-");
    assert_eq!(region(&["eu"]), "0+ 1|EU");
    assert_eq!(region(&["another"]), "0+ 1|-", "it is not known whose it is");
}

#[test]
fn a_type_that_holds_itself_is_read_as_deep_as_anybody_means() {
    let tree = json!({"type": "record", "name": "Tree", "fields": [
        {"name": "value", "type": "int"}, {"name": "next", "type": ["null", "Tree"]}]});
    let wired = Wired::new(
        Format::Avro,
        &[],
        vec![col("second", "INT").from(&["next.value"]), col("next", "VARCHAR")],
    );
    let id = wired.avro("t-value", &tree);
    let three = json!({"value": 1, "next": {"value": 2, "next": {"value": 3, "next": null}}});
    let mut deep = Vec::new();
    for _ in 0..100_000 {
        deep.extend([2, 2]);
    }
    let decoded = wired.decode(&[framed(id, &avro(&tree, &three)), framed(id, &deep)]);
    assert_eq!(
        rows(&decoded),
        ["0+ 2|{\"value\":2,\"next\":{\"value\":3,\"next\":null}}"]
    );
    assert!(
        decoded.rejects[0].reason.contains("nested deeper than 128"),
        "{:?}",
        decoded.rejects
    );
}

#[test]
fn lengths_and_counts_that_nothing_stands_behind_cost_nothing() {
    let kinds = [
        json!({"type": "array", "items": "null"}),
        json!({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}),
        json!({"type": "array", "items": {"type": "array", "items": "null"}}),
        json!({"type": "map", "values": "null"}),
        json!("bytes"),
        json!({"type": "fixed", "name": "F", "size": 1u64 << 60}),
    ];
    for kind in kinds {
        for column in ["v", "other"] {
            let wired = Wired::new(Format::Avro, &[], vec![col(column, "VARCHAR")]);
            let schema = json!({"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]});
            let id = wired.avro("h-value", &schema);
            let mut hostile = Vec::new();
            super::wire::long(i64::MAX, &mut hostile);
            let mut negative = Vec::new();
            super::wire::long(i64::MIN, &mut negative);
            negative.push(0);
            let decoded = wired.decode(&[framed(id, &hostile), framed(id, &negative)]);
            assert_eq!(decoded.rejects.len(), 2, "{schema}: {:?}", decoded.rejects);
        }
    }
}

#[test]
fn null_values_delete_by_keys_of_any_format() {
    let keyed_columns = || vec![col("id", "BIGINT").required(), col("name", "VARCHAR")];
    let record = json!({"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": "string"}]});
    let key = json!({"type": "record", "name": "K", "fields": [{"name": "id", "type": "long"}]});
    let wired = Wired::new(Format::Avro, &["id"], keyed_columns());
    let id = wired.avro("t-value", &record);
    let (of_key, of_long) = (wired.avro("t-key", &key), wired.avro("u-key", &json!("long")));
    let value = framed(id, &avro(&record, &json!({"id": 1, "name": "a"})));
    let in_record = framed(of_key, &avro(&key, &json!({"id": 2})));
    let alone = framed(of_long, &[6]);
    let records: Vec<KeyAndValue<'_>> = vec![
        (Some(&in_record), Some(&value)),
        (Some(&in_record), None),
        (Some(&alone), None),
        (Some(b"{\"id\":4}"), None),
        (Some(b"5"), None),
        (Some(&alone[..5]), None),
    ];
    let decoded = wired.decoder().decode(keyed(None, &records));
    assert_eq!(rows(&decoded), ["0+ 1|a", "1- 2|-", "2- 3|-", "3- 4|-", "4- 5|-"]);
    assert!(
        rejects(&decoded)[0].starts_with("5: in the record's key: "),
        "{:?}",
        decoded.rejects
    );

    let text = Wired::new(Format::Avro, &["name"], keyed_columns()).key_format(KeyFormat::Text);
    let decoded = text.decoder().decode(keyed(None, &[(Some(b"{\"id\":4}"), None)]));
    assert_eq!(
        rows(&decoded),
        ["0- -|{\"id\":4}"],
        "what looks like JSON is text all the same"
    );
    let json_values = Wired::new(Format::Json, &["id"], keyed_columns()).key_format(KeyFormat::Avro);
    let of_key = json_values.avro("t-key", &key);
    let in_record = framed(of_key, &avro(&key, &json!({"id": 2})));
    let decoded = json_values
        .decoder()
        .decode(keyed(None, &[(Some(&in_record), None), (Some(b"2"), None)]));
    assert_eq!(rows(&decoded), ["0- 2|-"]);
    assert!(rejects(&decoded)[0].contains("no schema id"), "{:?}", decoded.rejects);
}

#[test]
fn a_registry_that_is_away_gives_the_records_back() {
    let wired = Wired::new(Format::Avro, &[], columns());
    let id = wired.avro("orders-value", &order());
    let record = framed(id, &avro(&order(), &sample()));
    let Wired { mock, input, .. } = wired;
    drop(mock);
    let patience = crate::registry::RegistryTimeouts {
        budget: std::time::Duration::ZERO,
        ..Default::default()
    };
    let registries = Registries::patient(None, patience);
    let mut decoder = Decoder::new(&input, &input.feeds[0], &registries).unwrap();
    let waiting = decoder.decode(raw(None, &[record])).unwrap_err();
    assert_eq!(waiting.raw.len(), 1);
    assert!(
        waiting.to_string().contains("could not ask the schema registry"),
        "{waiting}"
    );
}

#[test]
fn json_behind_a_schema_id_is_json() {
    let mut input = input(
        Format::JsonSchema,
        &["id"],
        vec![col("id", "BIGINT"), col("name", "VARCHAR")],
    );
    input.feeds[0].wire.registry = None;
    let mut decoder = Ready(Decoder::new(&input, &input.feeds[0], &Registries::new(None)).unwrap());
    let value = framed(3, br#"{"id":1,"name":"a"}"#);
    let key = framed(4, br#"{"id":1}"#);
    let decoded = decoder.decode(keyed(None, &[(Some(&key), Some(&value)), (Some(&key), None)]));
    assert_eq!(rows(&decoded), ["0+ 1|a", "1- 1|-"]);
}

/// Records for tests that damage them.
pub(super) fn samples() -> (Wired, Vec<Vec<u8>>) {
    let wired = Wired::new(Format::Avro, &["id"], columns());
    let id = wired.avro("orders-value", &order());
    let mut bare = sample();
    bare["customer"] = Value::Null;
    bare["tags"] = json!([]);
    let samples = [sample(), bare].map(|value| framed(id, &avro(&order(), &value)));
    (wired, samples.to_vec())
}
