//! New fields of registered schemas become columns while a run goes on: no value is lost, older rows are null, nobody else's
//! rows are written again, and all of it is made again from Bronze without the registry.

use std::path::Path;

use alluvium::definition::Dataflow;
use alluvium::serve::{OutputFormat, Reader, verify};
use serde_json::{Value, json};

use crate::formats::{line, long, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::registry::Mock;
use crate::support::{Folder, Running, Size, catch_up, chain, recompute};

const SUBJECT: &str = "accounts-value";

/// A record `Account` of an id, a name and more.
fn account(more: &str) -> String {
    format!(
        r#"{{"type":"record","name":"Account","fields":[{{"name":"id","type":"long"}},{{"name":"name","type":"string"}}{more}]}}"#
    )
}

const CITY: &str = r#",{"name":"city","type":["null","string"],"default":null}"#;
const LIMIT: &str = r#",{"name":"limit","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}],"default":null}"#;

fn register(mock: &Mock, more: &str) -> u32 {
    mock.register(SUBJECT, "AVRO", &account(more), json!([]))
}

fn input(url: &str, columns: &str, feed: &str) -> String {
    format!(
        "key = [\"id\"]\n[columns]\nid = \"BIGINT\"\n{columns}[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\n\
         format = \"avro\"\n{feed}registry = {{ url = {url:?}, subject = {SUBJECT:?} }}\n"
    )
}

/// Accounts, of which one table takes all columns and one takes some.
fn folder(name: &str, url: &str) -> Folder {
    let folder = Folder::new(name, &[]);
    let input = input(url, "name = \"VARCHAR\"\n", "schema = \"evolve\"\n");
    folder.write("inputs/accounts.toml", &input);
    folder.write("silver/accounts.sql", "SELECT *, id * 2 AS twice FROM accounts");
    folder.write("silver/names.sql", "SELECT id, name FROM accounts");
    folder.write(
        "gold/names.sql",
        "SELECT name, COUNT(*) AS n FROM silver.names GROUP BY name",
    );
    folder
}

/// A row of the first version.
fn plain(schema: u32, id: i64, name: &str) -> String {
    line(schema, &[long(id), text(name)])
}

/// A nullable text.
fn some(value: &str) -> Vec<u8> {
    [long(1), text(value)].concat()
}

/// The entries of a table's log, by version.
fn log(table: &Path) -> Vec<Vec<Value>> {
    let version = |version: usize| std::fs::read_to_string(table.join(format!("_delta_log/{version:020}.json"))).ok();
    let actions = |text: String| {
        let actions = text.lines().map(|line| serde_json::from_str(line).expect("an action"));
        actions.collect()
    };
    (0..).map_while(version).map(actions).collect()
}

/// The columns of a table in the newest snapshot.
fn columns(dataflow: &Dataflow, table: &str) -> String {
    let header = Reader::open(dataflow, None)
        .and_then(|reader| reader.print(&format!("SELECT * FROM {table} LIMIT 1"), OutputFormat::Csv))
        .unwrap_or_else(|e| panic!("{table}: {}", chain(&e)));
    header.lines().next().unwrap_or_default().to_string()
}

#[test]
fn a_new_field_is_a_column_of_the_same_snapshot_while_a_run_goes_on() {
    for size in [(1, 1), (1, 2), (2, 1)] {
        let mock = Mock::start();
        let folder = folder("evolves", &mock.url);
        let dataflow = folder.load("lake");
        let first = register(&mock, "");
        for id in 0..20 {
            folder.append(&format!("live/{}.ndjson", id % 2), &plain(first, id, "old"));
        }
        let running = Running::start(dataflow.clone(), size);
        running.wait_until(|| verify::snapshots(&dataflow).is_ok_and(|epochs| !epochs.is_empty()));
        running.wait_until(|| ask(&dataflow, "SELECT COUNT(*) FROM silver.accounts") == "20");
        let second = register(&mock, CITY);
        for id in 10..15 {
            let parts = [long(id), text("new"), some(&format!("city {id}"))];
            folder.append(&format!("live/{}.ndjson", id % 2), &line(second, &parts));
            // Records of the first version go on beside them.
            folder.append(&format!("live/{}.ndjson", id % 2), &plain(first, id + 20, "beside"));
        }
        running.wait_until(|| {
            columns(&dataflow, "silver.accounts").contains("city")
                && ask(&dataflow, "SELECT COUNT(*), COUNT(city) FROM silver.accounts") == "25,5"
        });
        // And once more, from a run that is itself the second.
        let third = register(&mock, &format!("{CITY}{LIMIT}"));
        let limit = [long(1), long(2), 1234i16.to_be_bytes().to_vec()].concat();
        let parts = [long(3), text("limited"), long(0), limit];
        folder.append("live/1.ndjson", &line(third, &parts));
        running.wait_until(|| ask(&dataflow, "SELECT COUNT(*) FROM silver.accounts WHERE name = 'limited'") == "1");
        let outcome = running.stop();
        assert_eq!(outcome.rejected, 0, "{size:?}");
        let taken: Vec<String> = outcome.evolved.iter().map(|(_, evolved)| evolved.to_string()).collect();
        assert_eq!(
            taken,
            [
                "city VARCHAR, from schema 2 (accounts-value version 2) of feed live",
                "limit DECIMAL(9,2), from schema 3 (accounts-value version 3) of feed live",
            ]
        );
        assert_eq!(
            ask(
                &dataflow,
                "SELECT id, name, city, \"limit\", twice FROM silver.accounts WHERE id IN (3, 4, 12, 32) ORDER BY id"
            ),
            "3,limited,,12.34,6\n4,old,,,8\n12,new,city 12,,24\n32,beside,,,64"
        );
        // No row of the new version was ever there without its value: no commit has one that another one mends.
        let commits = log(&folder.lake("lake").join("silver/accounts"));
        let evolves = |commit: &&Vec<Value>| commit.iter().any(|action| action.get("metaData").is_some());
        assert_eq!(
            commits.iter().skip(1).filter(evolves).count(),
            2,
            "{size:?}: {commits:#?}"
        );
        // A table that names its columns stays as it is.
        assert_eq!(columns(&dataflow, "silver.names"), "id,name");
        let commits = log(&folder.lake("lake").join("silver/names"));
        assert_eq!(
            commits.iter().skip(1).filter(evolves).count(),
            0,
            "{size:?}: {commits:#?}"
        );
        assert_newest_is_exact(&dataflow, "an evolved input");

        // An ordinary restart: what was taken is there, and nothing is made again.
        let outcome = catch_up(&dataflow, Size::from(size));
        assert_eq!((outcome.replayed, outcome.corrections), (0, Some(vec![])), "{size:?}");
        assert_eq!(outcome.evolved.len(), 2);
        // Bronze and the lake are enough.
        drop(mock);
        assert_eq!(
            recompute(&dataflow, 1).corrections,
            Some(vec![]),
            "made again without the registry"
        );
        assert_newest_is_exact(&dataflow, "made again without the registry");
    }
}
