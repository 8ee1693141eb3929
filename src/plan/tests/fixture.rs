//! A dataflow that is built by hand, and rows for its inputs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;

use crate::definition::{Column, Dataflow, Deletes, Input, Layer, Table};
use crate::plan::{Graph, compile};
use crate::repr::SqlType;
use crate::testing::checkout;

/// 2025-01-01 00:00 in microseconds.
pub const NEW_YEAR: i64 = 1_735_689_600_000_000;
pub const MINUTE: i64 = 60_000_000;

pub fn input(name: &str, columns: &[(&str, &str)]) -> Input {
    Input {
        name: name.to_string(),
        description: None,
        columns: columns
            .iter()
            .map(|(name, sql_type)| Column {
                name: name.to_string(),
                sql_type: sql_type.trim_end_matches('!').parse::<SqlType>().unwrap(),
                nullable: !sql_type.ends_with('!'),
                from: vec![name.to_string()],
                format: vec![],
                null: vec![],
            })
            .collect(),
        key: vec![],
        order_by: vec![],
        dedup_key: vec![],
        bronze: true,
        retention: None,
        evolved: vec![],
        feeds: vec![],
        file: PathBuf::from(format!("inputs/{name}.toml")),
    }
}

pub fn table(layer: Layer, name: &str, sql: &str) -> Table {
    Table {
        layer,
        name: name.to_string(),
        sql: sql.to_string(),
        file: PathBuf::from(format!("{}/{name}.sql", layer.name())),
        settings_file: None,
        description: None,
        key: vec![],
        partition_by: vec![],
        expectations: vec![],
        deletes: Deletes::Auto,
        change_data_feed: false,
        retention: None,
        output: None,
    }
}

pub fn dataflow(tables: Vec<Table>) -> Dataflow {
    Dataflow {
        name: "test".to_string(),
        folder: PathBuf::from("nowhere"),
        lake: "lake".to_string(),
        epoch: Duration::from_millis(10),
        commit: Duration::from_secs(1),
        store_options: Default::default(),
        durable: true,
        guard: false,
        history: std::time::Duration::from_secs(86_400),
        dead_letters: None,
        http: None,
        bounds: Default::default(),
        inputs: vec![
            input(
                "orders",
                &[
                    ("id", "BIGINT!"),
                    ("customer", "VARCHAR"),
                    ("amount", "DOUBLE"),
                    ("price", "DECIMAL(10,2)"),
                    ("at", "TIMESTAMP"),
                    ("day", "DATE"),
                    ("tags", "VARCHAR[]"),
                    ("payload", "VARCHAR"),
                    ("quantity", "BIGINT"),
                ],
            ),
            input(
                "customers",
                &[("name", "VARCHAR"), ("country", "VARCHAR"), ("credit", "DOUBLE")],
            ),
        ],
        tables,
    }
}

/// The graph of one Gold table `t` with this SQL.
pub fn planned(sql: &str) -> Graph {
    let flow = dataflow(vec![table(Layer::Gold, "t", sql)]);
    compile(&flow).unwrap_or_else(|diagnostics| panic!("{sql}\n{diagnostics}"))
}

/// The rows of an input, with nulls, duplicates and ties among them.
pub fn rows(name: &str) -> RecordBatch {
    let flow = dataflow(vec![]);
    let input = flow.inputs.iter().find(|i| i.name == name).unwrap();
    let columns: Vec<ArrayRef> = if name == "orders" {
        let n = 24i64;
        let some = |i: i64, m: i64| i % m != 0;
        let mut tags = ListBuilder::new(StringBuilder::new());
        for i in 0..n {
            for t in 0..i % 4 {
                tags.values().append_value(format!("tag{}", (i + t) % 5));
            }
            tags.append(i % 7 != 3);
        }
        let names = ["ann", "bob", "cid", "dot"];
        vec![
            Arc::new(Int64Array::from_iter_values((0..n).map(|i| i / 2))),
            Arc::new(StringArray::from_iter(
                (0..n).map(|i| some(i, 6).then(|| names[(i * 7 % 4) as usize])),
            )),
            Arc::new(Float64Array::from_iter(
                (0..n).map(|i| some(i, 5).then_some((i * 37 % 11) as f64 / 4.0)),
            )),
            Arc::new(
                Decimal128Array::from_iter((0..n).map(|i| some(i, 9).then_some(i as i128 * 125)))
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            Arc::new(TimestampMicrosecondArray::from_iter(
                (0..n).map(|i| some(i, 8).then_some(NEW_YEAR + (i * 13 % 17) * 7 * MINUTE)),
            )),
            Arc::new(Date32Array::from_iter(
                (0..n).map(|i| some(i, 10).then_some(20_089 + (i % 5) as i32)),
            )),
            Arc::new(tags.finish()),
            Arc::new(StringArray::from_iter((0..n).map(|i| {
                some(i, 11).then(|| format!("{{\"kind\": \"k{}\", \"n\": {i}}}", i % 3))
            }))),
            Arc::new(Int64Array::from_iter((0..n).map(|i| some(i, 7).then_some(i % 6)))),
        ]
    } else {
        vec![
            Arc::new(StringArray::from(vec![
                Some("ann"),
                Some("bob"),
                Some("bob"),
                Some("eve"),
                None,
            ])),
            Arc::new(StringArray::from(vec![
                Some("NL"),
                Some("UK"),
                Some("NL"),
                None,
                Some("UK"),
            ])),
            Arc::new(Float64Array::from(vec![
                Some(1.0),
                Some(0.5),
                None,
                Some(2.5),
                Some(2.0),
            ])),
        ]
    };
    let schema = crate::repr::normalise_schema(&input.schema());
    RecordBatch::try_new(schema, columns).unwrap()
}

pub fn provider(name: &str) -> Option<Arc<dyn TableProvider>> {
    let batch = rows(name);
    Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()))
}

/// Compares with a golden file of this folder, or writes it if ALLUVIUM_GOLDEN is set.
pub fn golden(name: &str, actual: &str) {
    let file = checkout().join("src/plan/tests").join(name);
    if std::env::var_os("ALLUVIUM_GOLDEN").is_some() {
        std::fs::write(&file, actual.trim_end().to_string() + "\n").unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    assert_eq!(actual.trim_end(), expected.trim_end(), "{name}");
}
