//! Generators are reproducible, have the requested shares, and write what decoders expect.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::*;
use crate::definition::Format;

fn settings(generator: &str, limit: u64) -> Generate {
    Generate {
        generator: generator.into(),
        rate: None,
        limit: Some(limit),
        seed: 7,
        partitions: 1,
        updates: 0.2,
        deletes: 0.1,
        duplicates: 0.05,
        late: 0.05,
        broken: 0.02,
    }
}

fn events(settings: &Generate) -> Vec<GeneratedEvent> {
    Generator::new(settings, Rendering::Json).unwrap().collect()
}

#[test]
fn one_seed_makes_the_same_events_and_another_makes_others() {
    for (name, _) in GENERATORS {
        let mut settings = settings(name, 2000);
        let first = events(&settings);
        assert_eq!(first.len(), 2000, "{name}");
        assert_eq!(first, events(&settings), "{name}");
        settings.seed = 8;
        assert_ne!(first, events(&settings), "{name}");
    }
}

#[test]
fn an_unknown_generator_is_refused_with_the_known_ones() {
    let error = Generator::new(&settings("retail.nothing", 1), Rendering::Json)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("retail.nothing") && error.contains("devices.telemetry"),
        "{error}"
    );
    assert!(matches!(
        Generator::new(&settings("retail.products", 1), Rendering::Csv),
        Err(SourceError::NoCsv { .. })
    ));
}

#[test]
fn the_definition_knows_every_generator_and_the_formats_it_has() {
    let names: HashSet<&str> = KNOWN.iter().map(|known| known.name).collect();
    assert_eq!(names, HashSet::from(GENERATORS.map(|(name, _)| name)));
    for (name, formats) in GENERATORS {
        let csv = Generator::new(&settings(name, 1), Rendering::Csv).is_ok();
        assert_eq!(csv, formats.contains(&Format::Csv), "{name}");
        let envelope = events(&settings(name, 1))[0].value.starts_with(b"{\"before\":");
        assert_eq!(envelope, formats.contains(&Format::DebeziumJson), "{name}");
    }
}

#[test]
fn kinds_come_in_the_shares_asked_for() {
    for (name, _) in GENERATORS {
        let made = events(&settings(name, 20_000));
        let mut counts: HashMap<EventKind, f64> = HashMap::new();
        made.iter()
            .for_each(|e| *counts.entry(e.kind).or_default() += 1.0 / 20_000.0);
        let changes = matches!(name, "retail.redemptions" | "devices.telemetry" | "logistics.tickets");
        let deletes = [
            "retail.order_lines",
            "retail.products",
            "retail.customers",
            "retail.stock_movements",
        ];
        let expected = [
            (EventKind::Update, if changes { 0.0 } else { 0.2 }),
            (EventKind::Delete, if deletes.contains(&name) { 0.1 } else { 0.0 }),
            (EventKind::Duplicate, 0.05),
            (EventKind::Late, 0.05),
            (EventKind::Broken, 0.02),
        ];
        for (kind, share) in expected {
            let got = counts.get(&kind).copied().unwrap_or(0.0);
            assert!((got - share).abs() < 0.01, "{name}: {kind:?} {got} instead of {share}");
        }
    }
}

#[test]
fn broken_events_are_no_objects_and_all_others_are() {
    for (name, _) in GENERATORS {
        for event in events(&settings(name, 3000)) {
            let object = serde_json::from_slice::<Value>(&event.value).is_ok_and(|v| v.is_object());
            assert_eq!(
                object,
                event.kind != EventKind::Broken,
                "{name}: {}",
                String::from_utf8_lossy(&event.value)
            );
            assert!(serde_json::from_slice::<Value>(&event.key).is_ok(), "{name}");
        }
    }
}

#[test]
fn events_of_two_seeds_share_no_identity() {
    // Sample files and a live feed of one input use two seeds: their events must differ in the input's dedup key.
    for (name, key) in [
        ("devices.telemetry", "event_id"),
        ("retail.redemptions", "redemption_id"),
        ("logistics.tickets", "ticket_id"),
    ] {
        let ids = |seed| {
            let settings = Generate {
                seed,
                duplicates: 0.0,
                broken: 0.0,
                ..settings(name, 500)
            };
            let id = |event: GeneratedEvent| {
                let value: Value = serde_json::from_slice(&event.value).unwrap();
                value[key].as_u64().unwrap()
            };
            events(&settings).into_iter().map(id).collect::<HashSet<_>>()
        };
        let (one, other) = (ids(11), ids(12));
        assert_eq!((one.len(), other.len()), (500, 500), "{name}");
        assert!(one.is_disjoint(&other), "{name}");
    }
}

#[test]
fn duplicates_repeat_an_event_byte_for_byte() {
    let mut seen = HashSet::new();
    for event in events(&settings("devices.telemetry", 3000)) {
        match event.kind {
            EventKind::Duplicate => assert!(seen.contains(&event.value)),
            EventKind::Broken => {}
            _ => assert!(seen.insert(event.value.clone()), "event ids are given once"),
        }
    }
}

#[test]
fn an_envelope_tells_a_tables_true_history() {
    for name in ["retail.products", "retail.customers", "retail.stock_movements"] {
        let mut table: BTreeMap<String, Value> = BTreeMap::new();
        let mut lsn_of: HashMap<String, i64> = HashMap::new();
        let mut late = 0;
        for event in events(&settings(name, 5000)) {
            if matches!(event.kind, EventKind::Broken | EventKind::Duplicate) {
                continue;
            }
            let key = String::from_utf8(event.key).unwrap();
            let envelope: Value = serde_json::from_slice(&event.value).unwrap();
            let (before, after) = (envelope["before"].clone(), envelope["after"].clone());
            let lsn = envelope["source"]["lsn"].as_i64().unwrap();
            assert_eq!(envelope["ts_ms"].as_i64(), Some(event.ts_ms));
            let newest = lsn_of.get(&key).copied().unwrap_or(-1);
            if event.kind == EventKind::Late {
                late += 1;
                assert!(lsn < newest, "{name}: a late version is older than the newest");
                assert!(after["updated_at"].as_str() < table[&key]["updated_at"].as_str());
                continue;
            }
            assert!(lsn > newest, "{name}: versions grow");
            lsn_of.insert(key.clone(), lsn);
            let had = table.remove(&key).unwrap_or(Value::Null);
            assert_eq!(before, had, "{name}: the image before is the row that was there");
            let kind = match envelope["op"].as_str().unwrap() {
                "c" | "r" => EventKind::Insert,
                "u" => EventKind::Update,
                "d" => EventKind::Delete,
                other => panic!("{other}"),
            };
            assert_eq!(kind, event.kind);
            assert_eq!(after.is_null(), kind == EventKind::Delete);
            if !after.is_null() {
                let names: Value = serde_json::from_str(&key).unwrap();
                names
                    .as_object()
                    .unwrap()
                    .iter()
                    .for_each(|(k, v)| assert_eq!(&after[k], v));
                table.insert(key, after);
            }
        }
        assert!(late > 100 && table.len() > 1000, "{name}: {late} {}", table.len());
    }
}

#[test]
fn order_lines_have_a_uci_form_that_reads_back() {
    let settings = Generate {
        broken: 0.0,
        ..settings("retail.order_lines", 3000)
    };
    let csv = Generator::new(&settings, Rendering::Csv).unwrap();
    assert_eq!(
        csv.csv_header(),
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    );
    let header = csv.csv_header();
    let text: Vec<u8> = csv.flat_map(|e| [e.value, b"\n".to_vec()].concat()).collect();
    let schema = header
        .split(',')
        .map(|n| arrow::datatypes::Field::new(n, arrow::datatypes::DataType::Utf8, true));
    let schema = arrow::datatypes::Schema::new(schema.collect::<Vec<_>>());
    let reader = arrow::csv::ReaderBuilder::new(schema.into()).build(&text[..]).unwrap();
    let mut rows = 0;
    let mut json = Generator::new(&settings, Rendering::Json).unwrap();
    let (mut cancelled, mut unknown) = (0, 0);
    for batch in reader {
        let batch = batch.unwrap();
        let column = |n: usize| {
            batch
                .column(n)
                .as_any()
                .downcast_ref::<arrow::array::StringArray>()
                .unwrap()
        };
        for row in 0..batch.num_rows() {
            let event = json.next().unwrap();
            let value: Value = serde_json::from_slice(&event.value).unwrap();
            assert_eq!(value["invoice_no"], column(0).value(row));
            assert_eq!(value["description"], column(2).value(row));
            assert_eq!(value["quantity"].to_string(), column(3).value(row));
            assert_eq!(value["invoiced_at"], column(4).value(row));
            let negative = value["quantity"].as_i64().unwrap() < 0;
            assert_eq!(column(0).value(row).starts_with('C'), negative);
            assert_eq!(
                negative,
                event.kind == EventKind::Delete || negative && event.kind == EventKind::Duplicate
            );
            cancelled += usize::from(negative);
            unknown += usize::from(value["customer_id"].is_null());
            rows += 1;
        }
    }
    assert_eq!(rows, 3000);
    assert!(cancelled > 200 && unknown > 400, "{cancelled} {unknown}");
}

#[test]
fn flat_generators_name_their_columns_alike_in_both_renderings() {
    for name in [
        "retail.redemptions",
        "devices.telemetry",
        "logistics.tickets",
        "logistics.permits",
        "logistics.trips",
    ] {
        let settings = Generate {
            broken: 0.0,
            ..settings(name, 1)
        };
        let header = Generator::new(&settings, Rendering::Csv).unwrap().csv_header();
        let line = Generator::new(&settings, Rendering::Csv).unwrap().next().unwrap().value;
        let row: Value = serde_json::from_slice(&events(&settings)[0].value).unwrap();
        let mut names: Vec<&str> = header.split(',').collect();
        assert_eq!(line.iter().filter(|b| **b == b',').count() + 1, names.len(), "{name}");
        names.sort();
        assert_eq!(row.as_object().unwrap().keys().collect::<Vec<_>>(), names, "{name}");
    }
}

#[test]
fn temperatures_alert_now_and_then() {
    let settings = Generate {
        broken: 0.0,
        ..settings("devices.telemetry", 20_000)
    };
    let (mut high, mut low) = (0, 0);
    for event in events(&settings) {
        let temperature = serde_json::from_slice::<Value>(&event.value).unwrap()["temperature"]
            .as_f64()
            .unwrap();
        high += usize::from(temperature > 85.0);
        low += usize::from(temperature < 32.0);
    }
    assert!((100..2000).contains(&high) && (20..2000).contains(&low), "{high} {low}");
}
