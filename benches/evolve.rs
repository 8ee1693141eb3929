//! Measures what a new column costs while a run goes on: the time from a record with a new field, of a schema that the
//! registry has just got, to the commit of its row. Two inputs of ALLUVIUM_ROWS rows (by default a million) each: one with
//! a key, one without.
//!
//! `cargo bench --bench evolve`.

#[path = "../tests/it/avro_bytes.rs"]
#[allow(dead_code, reason = "a bench uses some of it")]
mod avro_bytes;
mod common;
#[path = "../src/registry/mock.rs"]
mod mock;
#[path = "../tests/it/support.rs"]
#[allow(dead_code, reason = "a bench uses some of it")]
mod support;

use std::time::Instant;

use alluvium::serve::{LakeReader, PrintFormat};
use avro_bytes::{line, long, text};
use mock::Mock;
use serde_json::json;
use support::{Folder, Running, catch_up};

const SUBJECT: &str = "accounts-value";
/// The fields that schemas get, one after another; each is a nullable text.
const NEW: [&str; 2] = ["city", "state"];
const WORKERS: usize = 2;

fn main() {
    let rows: i64 = match std::env::var("ALLUVIUM_ROWS") {
        Ok(rows) => rows.parse().expect("ALLUVIUM_ROWS is a number"),
        Err(_) => 1_000_000,
    };
    println!(
        "a new column, beside {rows} rows in each of two inputs\n{}\n",
        common::machine()
    );
    let registry = Mock::start();
    let folder = Folder::new("costs", &[]);
    let first = register(&registry, 0);
    let lines: String = (0..rows).map(|id| account(first, id, 0)).collect();
    for (name, key) in [("keyed", "key = [\"id\"]\n"), ("plain", "")] {
        folder.write(
            &format!("inputs/{name}.toml"),
            &format!(
                "{key}[columns]\nid = \"BIGINT\"\nname = \"VARCHAR\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\n\
                 path = \"{name}\"\nformat = \"avro\"\nschema = \"evolve\"\n\
                 registry = {{ url = {:?}, subject = {SUBJECT:?} }}\n",
                registry.url
            ),
        );
        folder.write(&format!("silver/{name}.sql"), &format!("SELECT * FROM {name}"));
        folder.append(&format!("{name}/0.ndjson"), &lines);
    }
    let dataflow = folder.load("lake");
    let mut table = common::Table::new(&["step", "time"]);
    let filled = catch_up(&dataflow, WORKERS);
    table.row(&["first load".into(), common::seconds(filled.elapsed.as_secs_f64())]);
    let restarted = catch_up(&dataflow, WORKERS);
    table.row(&[
        "restart without a change".into(),
        common::seconds(restarted.elapsed.as_secs_f64()),
    ]);

    let running = Running::start(dataflow.clone(), WORKERS);
    let ask = |sql: &str| {
        let reader = LakeReader::open(&dataflow, None).expect("a snapshot");
        reader.print(sql, PrintFormat::Csv).expect("an answer")
    };
    // A record of the old schema shows that the run is live.
    folder.append("plain/0.ndjson", &account(first, -1, 0));
    running.wait_until(|| ask("SELECT COUNT(*) FROM silver.plain WHERE id = -1").contains("\n1"));
    for (n, name) in ["keyed", "plain"].into_iter().enumerate() {
        let schema = register(&registry, n + 1);
        let began = Instant::now();
        folder.append(&format!("{name}/0.ndjson"), &account(schema, -2, n + 1));
        let column = NEW[n];
        running.wait_until(|| {
            let columns = ask(&format!("SELECT * FROM silver.{name} LIMIT 1"));
            columns.lines().next().is_some_and(|header| header.contains(column))
                && ask(&format!("SELECT COUNT({column}) FROM silver.{name} WHERE id = -2")).contains("\n1")
        });
        table.row(&[
            format!("a new column of {name}"),
            common::seconds(began.elapsed().as_secs_f64()),
        ]);
    }
    running.stop();
    table.print();
}

/// Registers the schema of accounts with so many new fields; returns its id.
fn register(registry: &Mock, new: usize) -> u32 {
    let mut fields = vec![
        json!({"name": "id", "type": "long"}),
        json!({"name": "name", "type": "string"}),
    ];
    let added = NEW[..new].iter();
    fields.extend(added.map(|name| json!({"name": name, "type": ["null", "string"], "default": null})));
    let schema = json!({"type": "record", "name": "Account", "fields": fields});
    registry.register(SUBJECT, "AVRO", &schema.to_string(), json!([]))
}

/// An account of a schema with so many new fields, all of which have a value.
fn account(schema: u32, id: i64, new: usize) -> String {
    let added = (0..new).map(|_| [long(1), text("Bonn")].concat());
    let fields: Vec<Vec<u8>> = [long(id), text("somebody")].into_iter().chain(added).collect();
    line(schema, &fields)
}
