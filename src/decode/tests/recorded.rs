//! Decodes what Debezium really wrote (`tests/it/payloads`, see scripts/servers/record.py), and compares it with the
//! databases' final contents.

use super::*;
use crate::decode::tests::wire::Wired;
use crate::testing::checkout;

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;

fn unpacked(file: &str) -> String {
    let path = checkout().join("tests/it/payloads").join(file);
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// A record's key and value.
type Recorded = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The keys and values of a topic's records, in order.
fn records(recording: &str, topic: &str) -> Vec<Recorded> {
    let text = unpacked(&format!("{recording}.ndjson.gz"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let bytes = |value: &Value| value.as_str().map(|text| STANDARD.decode(text).unwrap());
    let found: Vec<_> = lines
        .filter(|line| line["topic"] == topic)
        .map(|line| (bytes(&line["key"]), bytes(&line["value"])))
        .collect();
    assert!(!found.is_empty(), "{recording} has no records of {topic}");
    found
}

fn raw_of(records: &[Recorded]) -> Raw {
    let borrowed: Vec<KeyAndValue<'_>> = records.iter().map(|(k, v)| (k.as_deref(), v.as_deref())).collect();
    keyed(None, &borrowed)
}

/// The columns and final rows of a table, as the database printed them.
fn table(database: &str, name: &str) -> (Vec<String>, Vec<Vec<Option<String>>>) {
    let path = checkout().join("tests/it/payloads/tables.json");
    let tables: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let table = &tables[database][name];
    (
        serde_json::from_value(table["columns"].clone()).unwrap(),
        serde_json::from_value(table["rows"].clone()).unwrap(),
    )
}

/// A decoder of Avro whose registry has every recorded schema.
fn avro(format: Format, key: &[&str], columns: Vec<Col>) -> Wired {
    let wired = Wired::new(format, key, columns);
    let schemas: BTreeMap<u32, Value> = serde_json::from_str(&unpacked("schemas.json.gz")).unwrap();
    for (id, schema) in schemas {
        let subject = format!("{}.{}", schema["namespace"], schema["name"]).replace('"', "");
        wired
            .mock
            .register_as(id, &subject, "AVRO", &schema.to_string(), Value::Array(vec![]));
    }
    wired
}

/// The current rows after decoded changes, by key; a value that a change left out stays as it was.
fn folded(decoded: &Decoded, key: &[usize]) -> Vec<Vec<Option<String>>> {
    let mut current: BTreeMap<Vec<Option<String>>, Vec<Option<String>>> = BTreeMap::new();
    for (n, op) in decoded.ops.iter().enumerate() {
        let columns = decoded.rows.columns().iter();
        let mut row: Vec<Option<String>> = columns
            .map(|column| column.is_valid(n).then(|| array_value_to_string(column, n).unwrap()))
            .collect();
        let of_key: Vec<Option<String>> = key.iter().map(|column| row[*column].clone()).collect();
        match op {
            ChangeOp::Truncate => current.clear(),
            ChangeOp::Delete => drop(current.remove(&of_key)),
            ChangeOp::Upsert => {
                for (_, column) in decoded.unchanged.iter().filter(|(row, _)| *row as usize == n) {
                    row[*column as usize] = current.get(&of_key).and_then(|row| row[*column as usize].clone());
                }
                current.insert(of_key, row);
            }
        }
    }
    current.into_values().collect()
}

/// Formats times as Arrow prints them.
fn printed(rows: Vec<Vec<Option<String>>>, times: &[usize]) -> Vec<Vec<Option<String>>> {
    let mut rows: Vec<Vec<Option<String>>> = rows
        .into_iter()
        .map(|mut row| {
            for column in times {
                row[*column] = row[*column].take().map(|text| {
                    let text = text.replace(' ', "T").trim_end_matches("+00").to_string();
                    match text.split_once('.') {
                        // Arrow prints as many decimals as necessary, in groups of three.
                        Some((whole, fraction)) => match fraction.trim_end_matches('0').len() {
                            0 => whole.to_string(),
                            1..=3 => format!("{whole}.{:0<3}", fraction.trim_end_matches('0')),
                            _ => format!("{whole}.{:0<6}", fraction.trim_end_matches('0')),
                        },
                        None => text,
                    }
                });
            }
            row
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn tables_come_to_what_the_databases_hold() {
    let orders = |database: &str| {
        let placed = match database {
            // MariaDB's DATETIME counts milliseconds, which JSON without its schema part does not show.
            "mariadb" => col("placed", "TIMESTAMP").format(&["epoch_ms", "%Y-%m-%dT%H:%M:%SZ"]),
            _ => col("placed", "TIMESTAMP"),
        };
        vec![
            col("id", "INT"),
            col("customer", "VARCHAR"),
            col("amount", "DECIMAL(10,2)"),
            placed,
        ]
    };
    let pairs = vec![col("a", "INT"), col("b", "VARCHAR"), col("c", "INT")];
    let gone = vec![col("id", "INT"), col("t", "VARCHAR")];
    let documents = vec![col("id", "INT"), col("version", "INT"), col("body", "VARCHAR")];
    for (database, schema) in [("postgres", "public"), ("mariadb", "alluvium")] {
        let mut tables = vec![
            ("orders", vec!["id"], orders(database), &[3][..]),
            ("pairs_of", vec!["a", "b"], pairs.clone(), &[]),
            ("gone", vec!["id"], gone.clone(), &[]),
        ];
        if database == "postgres" {
            tables.push(("documents", vec!["id"], documents.clone(), &[]));
        }
        for (name, key, columns, times) in tables {
            let (_, mut expected) = table(database, name);
            // If a column has a default, Connect writes that for null, so the original value of `note` is unknown.
            expected.iter_mut().for_each(|row| row.truncate(columns.len()));
            let expected = printed(expected, times);
            for suffix in ["", "_unwrapped"] {
                if suffix == "_unwrapped" && !["orders", "documents"].contains(&name) {
                    continue;
                }
                let wrapped = suffix.is_empty();
                let (avro_format, json_format) = match wrapped {
                    true => (Format::DebeziumAvro, Format::DebeziumJson),
                    false => (Format::Avro, Format::Json),
                };
                let topic = |form: &str| format!("{database}_{form}{suffix}.{schema}.{name}");
                let of_key: Vec<usize> = key
                    .iter()
                    .map(|k| columns.iter().position(|c| c.0.name == *k).unwrap())
                    .collect();
                let wired = avro(avro_format, &key, columns.clone());
                let decoded = wired
                    .decoder()
                    .decode(raw_of(&records(&format!("{database}_avro"), &topic("avro"))));
                assert_eq!(rejects(&decoded), Vec::<String>::new(), "{database} {name}{suffix}");
                assert_eq!(
                    printed(folded(&decoded, &of_key), &[]),
                    expected,
                    "{database} {name}{suffix}, Avro"
                );
                let mut json_columns = columns.clone();
                if !wrapped && name == "orders" && database == "postgres" {
                    json_columns[3] = col("placed", "TIMESTAMP").format(&["epoch_us"]);
                    json_columns[2] = col("amount", "DECIMAL(10,2)").format(&["base64"]);
                } else if !wrapped && name == "orders" {
                    json_columns[2] = col("amount", "DECIMAL(10,2)").format(&["base64"]);
                }
                let mut json = decoder(json_format, &key, json_columns);
                let decoded = json.decode(raw_of(&records(&format!("{database}_json"), &topic("json"))));
                assert_eq!(rejects(&decoded), Vec::<String>::new(), "{database} {name}{suffix}");
                assert_eq!(
                    printed(folded(&decoded, &of_key), &[]),
                    expected,
                    "{database} {name}{suffix}, JSON"
                );
            }
        }
    }
}

fn kinds() -> Vec<Col> {
    vec![
        col("id", "INT"),
        col("truth", "BOOLEAN"),
        col("i8", "BIGINT"),
        col("scaled", "DECIMAL(12,4)"),
        col("whole", "DECIMAL(20,0)"),
        col("unscaled", "VARCHAR"),
        col("f4", "DOUBLE"),
        col("f8", "DOUBLE"),
        col("words", "VARCHAR"),
        col("bytes", "BINARY"),
        col("day", "DATE"),
        col("clock", "VARCHAR"),
        col("local", "TIMESTAMP"),
        col("local_ms", "TIMESTAMP"),
        col("instant", "TIMESTAMP"),
        col("uid", "VARCHAR"),
        col("doc", "VARCHAR"),
        col("ints", "INT[]"),
        col("texts", "VARCHAR[]"),
        col("feeling", "VARCHAR"),
        col("flag", "BOOLEAN"),
        col("mask", "BINARY"),
        col("price", "DECIMAL(20,2)"),
        col("range", "VARCHAR"),
    ]
}

#[test]
fn every_type_of_postgres_is_as_the_database_has_it() {
    let wired = avro(Format::DebeziumAvro, &["id"], kinds());
    let topic = "postgres_avro.public.kinds";
    let decoded = wired.decoder().decode(raw_of(&records("postgres_avro", topic)));
    // Debezium's timestamp(3) of 0001-01-01: its milliseconds were computed in Java's Julian calendar, in which that
    // day is two days earlier, before the year 1.
    let refused = rejects(&decoded);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].contains("column \"local_ms\"") && refused[0].contains("the years 1 to 9999"),
        "{refused:?}"
    );
    let lines = rows(&decoded);
    assert_eq!(
        lines[0],
        "0+ 1|true|8901234567|1234.5000|42|1.5|1.5|2.25|grün and \"quoted\"|00ff10|2024-02-29|47655123456|\
         2024-02-29T13:14:15.123456|2024-02-29T13:14:15.123|2024-02-29T11:14:15.123456|123e4567-e89b-12d3-a456-426614174000|\
         {\"a\": [1, 2.50, null]}|[1, , 3]|[x, y, z, ]|happy|true|05|12.34|[1,10)"
    );
    assert_eq!(lines[1], format!("1+ 2{}", "|-".repeat(23)));
    let mut columns = kinds();
    columns[13] = col("local_ms", "BIGINT");
    let counted = avro(Format::DebeziumAvro, &["id"], columns)
        .decoder()
        .decode(raw_of(&records("postgres_avro", topic)));
    assert_eq!(
        rows(&counted)[2],
        "2+ 3|false|-9223372036854775808|-99999999.9999|99999999999999999999|-123456789012345678901234567890.123456789|NaN|inf|||\
         0001-01-01|0|1969-12-31T23:59:59.999999|-62135769600000|9999-12-31T23:59:59.999999|\
         00000000-0000-0000-0000-000000000000|null|[]|[]|sad|false||-0.01|empty"
    );
    // JSON with its schema part yields the same for the recorded columns.
    let columns: Vec<Col> = ["id", "scaled", "unscaled", "day", "instant"]
        .iter()
        .map(|name| kinds().into_iter().find(|column| column.0.name == *name).unwrap())
        .collect();
    let wired = avro(Format::DebeziumAvro, &["id"], columns.clone());
    let in_avro = wired.decoder().decode(raw_of(&records("postgres_avro", topic)));
    let mut json = decoder(Format::DebeziumJson, &["id"], columns);
    let in_json = json.decode(raw_of(&records("postgres_json", "postgres_json_schemas.public.kinds")));
    let without_record = |line: &String| line.split_once(' ').unwrap().1.to_string();
    let in_avro: Vec<String> = rows(&in_avro).iter().map(without_record).collect();
    let in_json: Vec<String> = rows(&in_json).iter().map(without_record).collect();
    assert_eq!(
        [&in_avro[0], &in_avro[2], &in_avro[3]],
        [&in_json[0], &in_json[1], &in_json[2]]
    );
}

#[test]
fn a_column_that_came_later_has_its_default_in_older_records() {
    let columns = vec![col("id", "INT"), col("note", "VARCHAR")];
    let wired = avro(Format::DebeziumAvro, &["id"], columns);
    let topic = "postgres_avro.public.orders";
    let decoded = wired.decoder().decode(raw_of(&records("postgres_avro", topic)));
    let notes = folded(&decoded, &[0]);
    let of = |id: &str| {
        notes
            .iter()
            .find(|row| row[0].as_deref() == Some(id))
            .and_then(|row| row[1].as_deref())
    };
    // Row 20 was last written before the column was added.
    assert_eq!((of("20"), of("5")), (Some("none"), Some("noted")));
}

#[test]
fn every_mode_of_times_and_decimals_gives_the_database_s_values() {
    let columns = vec![
        col("id", "INT"),
        col("scaled", "DECIMAL(12,4)"),
        col("whole", "DECIMAL(20,0)"),
        col("day", "DATE"),
        col("local", "TIMESTAMP"),
        col("local_ms", "TIMESTAMP"),
        col("instant", "TIMESTAMP"),
    ];
    let recording = unpacked("postgres_avro.ndjson.gz");
    let mut topics: Vec<String> = recording
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["topic"]
                .as_str()
                .unwrap()
                .to_string()
        })
        .filter(|topic| topic.ends_with(".public.kinds"))
        .collect();
    topics.dedup();
    assert!(topics.len() >= 8, "{topics:?}");
    for topic in topics {
        let wired = avro(Format::DebeziumAvro, &["id"], columns.clone());
        let decoded = wired.decoder().decode(raw_of(&records("postgres_avro", &topic)));
        // A recording of one kind of modes only has columns of that kind.
        let line = rows(&decoded)[0].clone();
        let micros = if topic.contains("time_connect") {
            "123"
        } else {
            "123456"
        };
        let decimals = ["1234.5000|42", "-|-"];
        let times = [
            format!("2024-02-29|2024-02-29T13:14:15.{micros}|2024-02-29T13:14:15.123|2024-02-29T11:14:15.123456"),
            "-|-|-|-".to_string(),
        ];
        let fits = |text: &str, choices: &[String]| choices.iter().any(|choice| text.contains(choice.as_str()));
        let ends = line.trim_start_matches("0+ 1|");
        assert!(
            decimals.iter().any(|choice| ends.starts_with(choice)),
            "{topic}: {line}"
        );
        assert!(fits(&line, &times), "{topic}: {line}");
        assert!(topic.contains("others") || ends != "-|-|-|-|-|-", "{topic}: {line}");
    }
}

#[test]
fn what_is_beside_the_rows_is_counted_and_transactions_are_told() {
    for (database, schema, topics) in [
        (
            "postgres",
            "public",
            vec![
                "postgres_FORM.transaction",
                "__debezium-heartbeat.postgres_FORM",
                "postgres_FORM.message",
            ],
        ),
        (
            "mariadb",
            "alluvium",
            vec![
                "mariadb_FORM.transaction",
                "__debezium-heartbeat.mariadb_FORM",
                "mariadb_FORM",
            ],
        ),
    ] {
        for form in ["avro", "json"] {
            let decode = |topic: &str| {
                let records = raw_of(&records(&format!("{database}_{form}"), topic));
                let columns = vec![col("id", "INT"), col("customer", "VARCHAR")];
                match form {
                    "avro" => avro(Format::DebeziumAvro, &["id"], columns).decoder().decode(records),
                    _ => decoder(Format::DebeziumJson, &["id"], columns).decode(records),
                }
            };
            for topic in &topics {
                let topic = topic.replace("FORM", form);
                let decoded = decode(&topic);
                assert_eq!(rejects(&decoded), Vec::<String>::new(), "{topic}");
                assert_eq!(rows(&decoded), Vec::<String>::new(), "{topic}");
                let counted = &decoded.ignored_fields;
                assert!(
                    counted.len() == 1 && counted[0].0 == "(debezium message)",
                    "{topic}: {counted:?}"
                );
            }
            let decoded = decode(&format!("{database}_{form}.{schema}.orders"));
            let places = &decoded.transactions;
            assert!(places.len() > 3, "{database} {form}: {places:?}");
            let expected = match database {
                "postgres" => "public.orders",
                _ => "alluvium.orders",
            };
            for place in places {
                assert_eq!(&*place.collection, expected);
                assert!(
                    place.total_order > 0 && place.collection_order > 0 && !place.id.is_empty(),
                    "{place:?}"
                );
            }
        }
    }
}

/// In MariaDB, each TRUNCATE held up every table for the whole `wait`.
#[test]
fn every_transaction_that_a_record_is_in_has_an_end() {
    // For PostgreSQL only the transaction's number counts; the LSN behind it differs between records.
    let number = |id: &str| id.split(':').next().unwrap().to_string();
    for (database, schema, truncated) in [("postgres", "public", "gone"), ("mariadb", "alluvium", "gone")] {
        let recording = format!("{database}_json");
        let markers = records(&recording, &format!("{recording}.transaction"));
        let markers = markers.iter().filter_map(|(_, value)| value.as_ref());
        let ends: Vec<String> = markers
            .map(|value| serde_json::from_slice::<Value>(value).unwrap())
            .filter(|marker| marker["status"] == "END")
            .map(|marker| number(marker["id"].as_str().unwrap()))
            .collect();
        for table in ["orders", "keyless", "pairs_of", truncated] {
            let raw = raw_of(&records(&recording, &format!("{recording}.{schema}.{table}")));
            let decoded = decoder(Format::DebeziumJson, &[], vec![col("id", "INT")]).decode(raw);
            for place in &decoded.transactions {
                assert!(ends.contains(&number(&place.id)), "{table}: {place:?}");
            }
            if table == truncated {
                assert!(decoded.ops.contains(&ChangeOp::Truncate), "{:?}", rejects(&decoded));
            }
        }
    }
}
