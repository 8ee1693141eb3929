use super::*;
use crate::decode::tests::wire::{Wired, framed};
use proptest::prelude::*;
use serde_json::json;

const COMMON: &str = "syntax = \"proto3\"; package shop; enum Kind { UNKNOWN = 0; NEW = 1; }";

const ORDER: &str = r#"
syntax = "proto3";
package shop;
import "common.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "confluent/type/decimal.proto";
message Other { string x = 1; }
message Outer {
  message Order {
    int64 id = 1;
    string name = 2;
    optional string note = 3;
    Kind kind = 4;
    google.protobuf.Timestamp at = 5;
    repeated int32 sizes = 6;
    map<string, double> scores = 7;
    oneof payment { string card = 8; bool cash = 9; }
    google.protobuf.Int64Value maybe = 10;
    confluent.type.Decimal price = 11;
    bytes blob = 12;
    uint64 big = 13;
    Outer.Place place = 14;
  }
  message Place { string city = 1; float lat = 2; }
}
"#;

fn columns() -> Vec<Col> {
    vec![
        col("id", "BIGINT").required(),
        col("name", "VARCHAR"),
        col("note", "VARCHAR"),
        col("kind", "VARCHAR"),
        col("at", "TIMESTAMP"),
        col("sizes", "INT[]"),
        col("scores", "VARCHAR"),
        col("card", "VARCHAR"),
        col("cash", "BOOLEAN"),
        col("maybe", "BIGINT"),
        col("price", "DECIMAL(10,2)"),
        col("blob", "BINARY"),
        col("big", "DECIMAL(20,0)"),
        col("city", "VARCHAR").from(&["place.city"]),
        col("place", "VARCHAR"),
    ]
}

fn wired() -> (Wired, u32) {
    let wired = Wired::new(Format::Protobuf, &["id"], columns());
    wired.mock.register("common", "PROTOBUF", COMMON, json!([]));
    let refers = json!([{"name": "common.proto", "subject": "common", "version": 1}]);
    let id = wired.mock.register("orders-value", "PROTOBUF", ORDER, refers);
    (wired, id)
}

/// The position of the message `Outer.Order`: in the second message of the file, the first one inside.
const PLACE: [u8; 3] = [4, 2, 0];

fn full() -> Vec<u8> {
    let mut out = Vec::new();
    // The wire format, written by hand: tag and value.
    out.extend([0x08, 7]); // id
    out.extend([0x12, 1, b'a']); // name
    out.extend([0x20, 1]); // kind
    out.extend([0x2a, 4, 0x08, 0x80, 0x94, 0x3b]); // at.seconds = 969216
    out.extend([0x32, 2, 1, 2]); // sizes, packed
    out.extend([0x30, 3]); // sizes, one more
    out.extend([0x3a, 12, 0x0a, 1, b'x', 0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]); // scores x = 1.5
    out.extend([0x48, 1]); // cash
    out.extend([0x52, 2, 0x08, 5]); // maybe
    out.extend([0x5a, 8, 0x0a, 2, 0x04, 0xd2, 0x10, 4, 0x18, 2]); // price 12.34
    out.extend([0x62, 2, 0xff, 0]); // blob
    out.extend([0x68, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]); // big
    out.extend([0x72, 6, 0x0a, 4]); // place.city
    out.extend(b"Bonn");
    out
}

#[test]
fn every_type_fills_columns_and_unset_fields_are_null_or_default() {
    let (wired, id) = wired();
    let bare = framed(id, &PLACE);
    let decoded = wired.decode(&[framed(id, &[&PLACE[..], &full()].concat()), bare]);
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(
        rows(&decoded),
        [
            "0+ 7|a|-|NEW|1970-01-12T05:13:36|[1, 2, 3]|{\"x\":1.5}|-|true|5|12.34|ff00|18446744073709551615|Bonn|\
             {\"city\":\"Bonn\",\"lat\":0}",
            "1+ 0||-|UNKNOWN|-|[]|{}|-|-|-|-||0|-|-",
        ]
    );
}

#[test]
fn a_wrapped_text_is_the_text_and_google_s_types_need_no_reference() {
    const SCHEMA: &str = r#"syntax = "proto3";
        import "google/protobuf/wrappers.proto";
        import "google/type/timeofday.proto"; import "google/type/money.proto"; import "google/type/dayofweek.proto";
        message Row { google.protobuf.StringValue note = 1; google.type.TimeOfDay at = 2; google.type.Money price = 3;
                      google.type.DayOfWeek day = 4; google.protobuf.StringValue other = 5; }"#;
    let columns = ["note", "at", "price", "day", "other"].map(|name| col(name, "VARCHAR"));
    let wired = Wired::new(Format::Protobuf, &[], columns.to_vec());
    let id = wired.mock.register("rows-value", "PROTOBUF", SCHEMA, json!([]));
    let mut record = vec![0, 0x0a, 6, 0x0a, 4, b'a', b'"', b'b', b'\n'];
    record.extend([0x12, 4, 8, 13, 16, 5]); // 13:05
    record.extend([0x1a, 7, 0x0a, 3, b'E', b'U', b'R', 16, 9]);
    record.extend([0x20, 2]);
    record.extend([0x2a, 30, 0x0a, 28]);
    record.extend(b"__debezium_unavailable_value");
    let decoded = wired.decode(&[framed(id, &record)]);
    assert_eq!(rejects(&decoded), Vec::<String>::new());
    assert_eq!(
        rows(&decoded),
        [
            "0+ a\"b\n|{\"hours\":13,\"minutes\":5,\"seconds\":0,\"nanos\":0}|{\"currency_code\":\"EUR\",\"units\":9,\"nanos\":0}|TUESDAY|-"
        ]
    );
    assert_eq!(decoded.ignored_fields, [("(unavailable value)".to_string(), 1)]);
}

#[test]
fn messages_are_found_by_their_place_and_broken_ones_are_refused_alone() {
    let (wired, id) = wired();
    let order = [&PLACE[..], &full()].concat();
    let records = vec![
        framed(id, &order),
        framed(id, &order[..order.len() - 2]),
        framed(id, &[4, 2, 9, 8, 1]),
        framed(id, &[]),
        framed(id, &[&PLACE[..], &[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]].concat()),
        framed(id, &[0, 0x0a, 1, b'x']),
        framed(id, &order),
    ];
    let decoded = wired.decode(&records);
    let lines = rows(&decoded);
    assert!(
        lines.len() == 2 && lines[0].starts_with("0+ 7|") && lines[1].starts_with("6+ 7|"),
        "{lines:#?}"
    );
    let reasons = rejects(&decoded);
    assert_eq!(reasons.len(), 5, "{reasons:#?}");
    // The first message of the file has no field `id`.
    assert!(reasons[4].contains("no field \"id\""), "{reasons:?}");
    assert!(
        reasons
            .iter()
            .all(|reason| reason.contains("schema 2 (orders-value version 1)")),
        "{reasons:#?}"
    );
}

#[test]
fn schemas_that_do_not_compile_refuse_their_records_and_say_why() {
    let wired = Wired::new(Format::Protobuf, &[], columns());
    let id = wired.mock.register(
        "x-value",
        "PROTOBUF",
        "syntax = \"proto3\"; import \"gone.proto\";",
        json!([]),
    );
    let avro = wired.avro("y-value", &json!("long"));
    let decoded = wired.decode(&[framed(id, &[0]), framed(avro, &[0])]);
    let reasons = rejects(&decoded);
    assert!(
        reasons[0].contains("x-value version 1") && reasons[0].contains("gone.proto"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("written in Avro"), "{reasons:?}");
}

#[test]
fn keys_are_messages_too() {
    let (wired, id) = wired();
    let key = wired.mock.register(
        "orders-key",
        "PROTOBUF",
        "syntax = \"proto3\"; message Key { int64 id = 1; }",
        json!([]),
    );
    let _ = id;
    let key = framed(key, &[0, 0x08, 9]);
    let decoded = wired.decoder().decode(keyed(None, &[(Some(&key), None)]));
    assert!(rows(&decoded)[0].starts_with("0- 9|"), "{:?}", rows(&decoded));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_order_reads_back(id in any::<i64>(), name in "\\PC{0,12}", sizes in prop::collection::vec(any::<i32>(), 0..5)) {
        let (wired, schema) = wired();
        let mut order = PLACE.to_vec();
        order.push(0x08);
        varint(id as u64, &mut order);
        order.push(0x12);
        varint(name.len() as u64, &mut order);
        order.extend(name.as_bytes());
        for size in &sizes {
            order.push(0x30);
            varint(i64::from(*size) as u64, &mut order);
        }
        let decoded = wired.decode(&[framed(schema, &order)]);
        prop_assert_eq!(rejects(&decoded), Vec::<String>::new());
        let sizes: Vec<String> = sizes.iter().map(i32::to_string).collect();
        let expected = format!("0+ {id}|{name}|-|UNKNOWN|-|[{}]|", sizes.join(", "));
        prop_assert!(rows(&decoded)[0].starts_with(&expected), "{:?} {}", rows(&decoded), expected);
    }
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Records for tests that damage them.
pub(super) fn samples() -> (Wired, Vec<Vec<u8>>) {
    let (wired, id) = wired();
    let samples = vec![framed(id, &[&PLACE[..], &full()].concat()), framed(id, &PLACE)];
    (wired, samples)
}
