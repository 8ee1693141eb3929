//! Tests that new fields of registered schemas become columns while a run goes on: no value is lost, older rows have
//! null, rows of other tables are not rewritten, and everything can be recomputed from Bronze without the registry.

use std::path::Path;

use alluvium::definition::Dataflow;
use alluvium::run::{self, Options};
use alluvium::serve::{LakeReader, PrintFormat, verify};
use serde_json::{Value, json};

use crate::avro_bytes::{line, long, text};
use crate::cluster::{PATIENCE, Processes};
use crate::kafka::{Broker, service};
use crate::lake::{ask, assert_newest_is_exact};
use crate::readers::{assert_agreed, python};
use crate::rebuild::assert_alike;
use crate::registry::Mock;
use crate::support::{Folder, Running, Size, catch_up, chain, recompute};

const SUBJECT: &str = "accounts-value";

/// The Avro schema of a record `Account` with an id, a name, and more fields.
fn account(more: &str) -> String {
    format!(
        r#"{{"type":"record","name":"Account","fields":[{{"name":"id","type":"long"}},{{"name":"name","type":"string"}}{more}]}}"#
    )
}

const CITY: &str = r#",{"name":"city","type":["null","string"],"default":null}"#;
const CREDIT: &str = r#",{"name":"credit","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}],"default":null}"#;

fn register(mock: &Mock, more: &str) -> u32 {
    mock.register(SUBJECT, "AVRO", &account(more), json!([]))
}

fn input(url: &str, columns: &str, feed: &str) -> String {
    format!(
        "key = [\"id\"]\n[columns]\nid = \"BIGINT\"\n{columns}[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"live\"\n\
         format = \"avro\"\n{feed}registry = {{ url = {url:?}, subject = {SUBJECT:?} }}\n"
    )
}

/// A dataflow of accounts, with one table that takes all columns and one that takes some.
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

/// A record of the first version.
fn plain(schema: u32, id: i64, name: &str) -> String {
    line(schema, &[long(id), text(name)])
}

/// A nullable text with a value, in Avro.
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
fn columns_of(dataflow: &Dataflow, table: &str) -> String {
    let header = LakeReader::open(dataflow, None)
        .and_then(|reader| reader.print(&format!("SELECT * FROM {table} LIMIT 1"), PrintFormat::Csv))
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
            // Records of the first version still come beside them.
            folder.append(&format!("live/{}.ndjson", id % 2), &plain(first, id + 20, "beside"));
        }
        running.wait_until(|| {
            columns_of(&dataflow, "silver.accounts").contains("city")
                && ask(&dataflow, "SELECT COUNT(*), COUNT(city) FROM silver.accounts") == "25,5"
        });
        // The schema evolves once more, in a run that is itself the second one.
        let third = register(&mock, &format!("{CITY}{CREDIT}"));
        let credit = [long(1), long(2), 1234i16.to_be_bytes().to_vec()].concat();
        let parts = [long(3), text("limited"), long(0), credit];
        folder.append("live/1.ndjson", &line(third, &parts));
        running.wait_until(|| ask(&dataflow, "SELECT COUNT(*) FROM silver.accounts WHERE name = 'limited'") == "1");
        let outcome = running.stop();
        assert_eq!(outcome.rejected, 0, "{size:?}");
        let taken: Vec<String> = outcome.evolved.iter().map(|(_, evolved)| evolved.to_string()).collect();
        assert_eq!(
            taken,
            [
                "city VARCHAR, from schema 2 (accounts-value version 2) of feed live",
                "credit DECIMAL(9,2), from schema 3 (accounts-value version 3) of feed live",
            ]
        );
        assert_eq!(
            ask(
                &dataflow,
                "SELECT id, name, city, credit, twice FROM silver.accounts WHERE id IN (3, 4, 12, 32) ORDER BY id"
            ),
            "3,limited,,12.34,6\n4,old,,,8\n12,new,city 12,,24\n32,beside,,,64"
        );
        // No row of the new version ever lacked its value: no commit has one that a later commit corrects.
        let commits = log(&folder.lake("lake").join("silver/accounts"));
        let evolves = |commit: &&Vec<Value>| commit.iter().any(|action| action.get("metaData").is_some());
        assert_eq!(
            commits.iter().skip(1).filter(evolves).count(),
            2,
            "{size:?}: {commits:#?}"
        );
        // A table that names its columns is unchanged.
        assert_eq!(columns_of(&dataflow, "silver.names"), "id,name");
        let commits = log(&folder.lake("lake").join("silver/names"));
        assert_eq!(
            commits.iter().skip(1).filter(evolves).count(),
            0,
            "{size:?}: {commits:#?}"
        );
        assert_newest_is_exact(&dataflow, "an evolved input");

        if let Some(python) = python().filter(|_| size == (1, 2)) {
            let sql = "SELECT COUNT(*) AS n, COUNT(city) AS cities, SUM(credit) AS credit, SUM(twice) AS twice FROM t";
            assert_agreed(
                &python,
                &dataflow,
                &[
                    ("silver.accounts", sql),
                    ("silver.names", "SELECT COUNT(*) AS n FROM t"),
                ],
            );
        }

        // An ordinary restart has the new columns, and recomputes nothing.
        let outcome = catch_up(&dataflow, Size::from(size));
        assert_eq!((outcome.replayed, outcome.corrections), (0, Some(vec![])), "{size:?}");
        assert_eq!(outcome.evolved.len(), 2);
        // Bronze and the lake suffice for a recomputation.
        drop(mock);
        assert_eq!(
            recompute(&dataflow, 1).corrections,
            Some(vec![]),
            "made again without the registry"
        );
        assert_newest_is_exact(&dataflow, "made again without the registry");
    }
}

#[test]
fn a_start_takes_what_the_newest_schema_has_and_the_file_wins_over_it() {
    let mock = Mock::start();
    let folder = folder("starts", &mock.url);
    let first = register(&mock, "");
    folder.append("live/0.ndjson", &plain(first, 1, "Ann"));
    catch_up(&folder.load("lake"), 1);
    // A start takes the columns without any record that has them, and writes nothing for them.
    let both = register(&mock, &format!("{CREDIT}{CITY}"));
    let commits = || log(&folder.lake("lake").join("silver/accounts")).len();
    let before = commits();
    let dataflow = folder.load("lake");
    let outcome = catch_up(&dataflow, 2);
    assert_eq!(outcome.evolved.len(), 2);
    assert_eq!(
        (commits(), outcome.corrections),
        (before, Some(vec![])),
        "no row is written again"
    );
    assert_newest_is_exact(&dataflow, "columns that no row has");
    let credit = [long(1), long(1), vec![7]].concat();
    let parts = |id| [long(id), text("Bob"), credit.clone(), some("Bonn")];
    folder.append("live/0.ndjson", &line(both, &parts(2)));
    let outcome = catch_up(&dataflow, 1);
    assert_eq!((outcome.records, outcome.rejected), (1, 0));
    let rows = "SELECT id, name, credit, city, twice FROM silver.accounts ORDER BY id";
    assert_eq!(ask(&dataflow, rows), "1,Ann,,,2\n2,Bob,0.07,Bonn,4");
    let commits = log(&folder.lake("lake").join("silver/accounts"));
    let newest = commits.last().expect("a commit");
    let has = |kind: &str| newest.iter().any(|action| action.get(kind).is_some());
    assert!(has("metaData") && has("add"), "one commit with its rows: {newest:#?}");

    // The definition takes one column over under its own name and type, and declares another as it is. The order of
    // the others stays.
    let columns = "name = \"VARCHAR\"\ntown = { type = \"VARCHAR\", from = \"city\" }\n";
    folder.write(
        "inputs/accounts.toml",
        &input(&mock.url, columns, "schema = \"evolve\"\n"),
    );
    let dataflow = folder.load("lake");
    let outcome = catch_up(&dataflow, 2);
    assert_eq!(outcome.evolved.len(), 1, "{:?}", outcome.evolved);
    let rows = "SELECT id, name, town, credit FROM silver.accounts ORDER BY id";
    assert_eq!(ask(&dataflow, rows), "1,Ann,,\n2,Bob,Bonn,0.07");
    assert_newest_is_exact(&dataflow, "a column that the file takes over");

    // A version that does not fit any more is refused by name, and does not affect other records.
    let renamed = account(CITY).replace(r#""name":"id","type":"long""#, r#""name":"id","type":"string""#);
    let third = mock.register(SUBJECT, "AVRO", &renamed, json!([]));
    folder.append("live/0.ndjson", &line(third, &[text("x"), text("Eve"), long(0)]));
    folder.append("live/0.ndjson", &line(both, &parts(3)));
    let outcome = catch_up(&dataflow, 1);
    assert_eq!((outcome.records, outcome.rejected), (2, 1));
    let letters = ask(&dataflow, "SELECT reason FROM dead_letters");
    assert!(
        letters.contains("written by schema 3 (accounts-value version 3)"),
        "{letters}"
    );
    assert_eq!(ask(&dataflow, "SELECT town FROM silver.accounts WHERE id = 3"), "Bonn");

    // After `fixed` again, only the definition's columns remain.
    folder.write("inputs/accounts.toml", &input(&mock.url, columns, ""));
    let dataflow = folder.load("lake");
    assert!(catch_up(&dataflow, 1).evolved.is_empty());
    assert_eq!(columns_of(&dataflow, "silver.accounts"), "id,name,town,twice");
    assert_newest_is_exact(&dataflow, "an input that is fixed again");
}

/// A format, its schema language, two versions of a schema, and the records of each (those of the second have a city).
type Encoded = (&'static str, &'static str, [String; 2], [Vec<Vec<u8>>; 2]);

fn formats() -> [Encoded; 3] {
    let envelope = |more: &str| {
        let row = account(more);
        format!(
            r#"{{"type":"record","name":"E","fields":[{{"name":"before","type":["null",{row}],"default":null}},
                {{"name":"after","type":["null","Account"],"default":null}},{{"name":"op","type":"string"}}]}}"#
        )
    };
    let change = |row: Vec<Vec<u8>>| vec![long(0), long(1), row.concat(), text("c")];
    let object = |more: &str| {
        format!(
            r#"{{"type":"object","required":["id"],"properties":{{"id":{{"type":"integer"}},"name":{{"type":"string"}}{more}}}}}"#
        )
    };
    let message =
        |more: &str| format!("syntax = \"proto3\"; message Account {{ int64 id = 1; string name = 2; {more} }}");
    // A protobuf field: number and wire type, then the value.
    let proto = |city: Option<&str>| {
        let field = |number: u8, value: &str| [&[number << 3 | 2, value.len() as u8], value.as_bytes()].concat();
        let city = city.map_or(vec![], |city| field(3, city));
        vec![
            vec![0],
            vec![1 << 3, if city.is_empty() { 1 } else { 2 }],
            field(2, "Ann"),
            city,
        ]
    };
    [
        (
            "debezium-avro",
            "AVRO",
            [envelope(""), envelope(CITY)],
            [
                change(vec![long(1), text("Ann")]),
                change(vec![long(2), text("Ann"), some("Bonn")]),
            ],
        ),
        (
            "json-schema",
            "JSON",
            [
                object(""),
                object(r#","city":{"oneOf":[{"type":"null"},{"type":"string"}]}"#),
            ],
            [
                vec![br#"{"id":1,"name":"Ann"}"#.to_vec()],
                vec![br#"{"id":2,"name":"Ann","city":"Bonn"}"#.to_vec()],
            ],
        ),
        (
            "protobuf",
            "PROTOBUF",
            [message(""), message("optional string city = 3;")],
            [proto(None), proto(Some("Bonn"))],
        ),
    ]
}

#[test]
fn schemas_of_every_format_evolve() {
    for (format, language, [old, new], [one, two]) in formats() {
        let mock = Mock::start();
        let folder = folder(format, &mock.url);
        let input = input(&mock.url, "name = \"VARCHAR\"\n", "schema = \"evolve\"\n");
        folder.write(
            "inputs/accounts.toml",
            &input.replace("\"avro\"", &format!("{format:?}")),
        );
        let first = mock.register(SUBJECT, language, &old, json!([]));
        folder.append("live/0.ndjson", &line(first, &one));
        let dataflow = folder.load("lake");
        let running = Running::start(dataflow.clone(), 2);
        running.wait_until(|| verify::snapshots(&dataflow).is_ok_and(|epochs| !epochs.is_empty()));
        let second = mock.register(SUBJECT, language, &new, json!([]));
        folder.append("live/0.ndjson", &line(second, &two));
        running.wait_until(|| ask(&dataflow, "SELECT COUNT(*) FROM silver.accounts") == "2");
        let outcome = running.stop();
        assert_eq!((outcome.evolved.len(), outcome.rejected), (1, 0), "{format}");
        let rows = "SELECT id, name, city FROM silver.accounts ORDER BY id";
        assert_eq!(ask(&dataflow, rows), "1,Ann,\n2,Ann,Bonn", "{format}");
        assert_newest_is_exact(&dataflow, format);
    }
}

/// After a join, the field's name is ambiguous with another column's: a run that took it could not be planned, and a
/// run that held its records back would restart for ever.
#[test]
fn a_field_that_makes_sql_ambiguous_is_left_out_and_its_records_flow() {
    let mock = Mock::start();
    let folder = folder("declines", &mock.url);
    folder.write(
        "inputs/towns.toml",
        "[columns]\ntown = \"VARCHAR\"\ncity = \"VARCHAR\"\n[[feeds]]\nname = \"live\"\nkind = \"log\"\npath = \"towns\"\nformat = \"json\"\n",
    );
    folder.append(
        "towns/0.ndjson",
        "{\"value\": {\"town\": \"Ann\", \"city\": \"Bonn\"}}\n",
    );
    folder.write(
        "gold/places.sql",
        "SELECT id, city FROM accounts JOIN towns ON name = town",
    );
    let first = register(&mock, "");
    folder.append("live/0.ndjson", &plain(first, 1, "Ann"));
    let dataflow = folder.load("lake");
    let running = Running::start(dataflow.clone(), 2);
    running.wait_until(|| verify::snapshots(&dataflow).is_ok_and(|epochs| !epochs.is_empty()));
    let both = register(&mock, &format!("{CITY}{CREDIT}"));
    let credit = [long(1), long(1), vec![9]].concat();
    folder.append(
        "live/0.ndjson",
        &line(both, &[long(2), text("Ann"), some("Ulm"), credit]),
    );
    running.wait_until(|| ask(&dataflow, "SELECT COUNT(*) FROM gold.places") == "2");
    let outcome = running.stop();
    let taken: Vec<&str> = outcome.evolved.iter().map(|(_, evolved)| &*evolved.column).collect();
    assert_eq!(taken, ["credit"]);
    assert_eq!(
        outcome.ignored.values().sum::<u64>(),
        1,
        "the field is counted: {:?}",
        outcome.ignored
    );
    assert_eq!(
        ask(&dataflow, "SELECT id, city FROM gold.places ORDER BY id"),
        "1,Bonn\n2,Bonn"
    );
    assert_eq!(
        ask(&dataflow, "SELECT credit FROM silver.accounts WHERE id = 2"),
        "0.09"
    );
    assert_newest_is_exact(&dataflow, "a declined field");
}

#[test]
fn a_rebuilt_lake_has_the_columns_without_the_registry() {
    let mock = Mock::start();
    let folder = folder("rebuilt", &mock.url);
    let first = register(&mock, "");
    folder.append("live/0.ndjson", &plain(first, 1, "Ann"));
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let second = register(&mock, CITY);
    folder.append("live/0.ndjson", &line(second, &[long(2), text("Bob"), some("Bonn")]));
    catch_up(&dataflow, 1);
    // No row has the new column yet: a new table has it at once, an existing table gets it with its next rows.
    register(&mock, &format!("{CITY}{CREDIT}"));
    catch_up(&dataflow, 1);
    drop(mock);
    let new = folder.lake("new").display().to_string();
    let rebuilt = run::rebuild(&dataflow, &new, Options::default(), |_| {});
    let rebuilt = rebuilt.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(rebuilt.outcome.evolved.len(), 2);
    let there = folder.load("new");
    assert_newest_is_exact(&there, "a rebuilt lake");
    assert_alike(&dataflow, &there);
    let fingerprints = |dataflow| verify::fingerprints(dataflow).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(fingerprints(&there), fingerprints(&dataflow));
    assert_eq!(ask(&there, "SELECT city FROM silver.accounts WHERE id = 2"), "Bonn");
}

/// One dataflow publishes a table to a topic as Avro, and the table gains a column; another dataflow, with two
/// processes, reads the topic meanwhile. Needs a real broker and registry (`scripts/services start kafka registry;
/// eval "$(scripts/services env)"`).
#[test]
fn a_table_that_gains_a_column_is_followed_through_a_topic_and_its_registry() {
    let Some(broker) = Broker::connect("evolve") else {
        return;
    };
    let Some(registry) = service("ALLUVIUM_REGISTRY") else {
        return;
    };
    let topic = broker.topic("orders", 4, &[]);
    let address = &broker.address;
    let of_writer = |more: &str| {
        format!(
            "key = [\"id\"]\n[columns]\nid = {{ type = \"BIGINT\", nullable = false }}\nshop = \"VARCHAR\"\n{more}[[feeds]]\n\
             name = \"live\"\nkind = \"log\"\npath = \"live\"\nformat = \"json\"\n"
        )
    };
    let writes = Folder::new(
        &broker.name("writes"),
        &[
            ("inputs/orders.toml", &of_writer("")),
            ("silver/orders.sql", "SELECT * FROM orders"),
            (
                "silver/orders.toml",
                &format!(
                    "key = [\"id\"]\n[kafka]\nbrokers = {address:?}\ntopic = {topic:?}\nformat = \"avro\"\nregistry = {{ url = {registry:?} }}\n"
                ),
            ),
        ],
    );
    let reads = Folder::new(
        &broker.name("reads"),
        &[
            (
                "inputs/orders.toml",
                &format!(
                    "key = [\"id\"]\n[columns]\nid = \"BIGINT\"\nshop = \"VARCHAR\"\n[[feeds]]\nname = \"topic\"\nkind = \"kafka\"\n\
                     brokers = {address:?}\ntopics = [{topic:?}]\nformat = \"avro\"\nschema = \"evolve\"\nregistry = {{ url = {registry:?} }}\n"
                ),
            ),
            ("silver/orders.sql", "SELECT * FROM orders"),
        ],
    );
    let record = |id: u32, more: &str| format!("{{\"value\": {{\"id\": {id}, \"shop\": \"s{id}\"{more}}}}}\n");
    (0..40).for_each(|id| writes.append("live/0.ndjson", &record(id, "")));
    catch_up(&writes.load("lake"), 2);
    let reading = reads.load("lake");
    let running = Running::start(reading.clone(), (2, 1));
    running.wait_until(|| {
        verify::snapshots(&reading).is_ok_and(|epochs| !epochs.is_empty())
            && ask(&reading, "SELECT COUNT(*) FROM silver.orders") == "40"
    });
    for (column, of, value) in [
        ("discount", "DECIMAL(9,2)", "\"1.25\""),
        ("at", "TIMESTAMP", "\"2026-11-22T10:11:12.5\""),
    ] {
        // The columns of earlier rounds stay.
        let mut more = "discount = \"DECIMAL(9,2)\"\n".to_string();
        if column != "discount" {
            more += &format!("{column} = {of:?}\n");
        }
        writes.write("inputs/orders.toml", &of_writer(&more));
        (30..50).for_each(|id| writes.append("live/0.ndjson", &record(id, &format!(", \"{column}\": {value}"))));
        catch_up(&writes.load("lake"), 1);
        running.wait_until(|| {
            columns_of(&reading, "silver.orders").contains(column)
                && ask(
                    &reading,
                    &format!("SELECT COUNT(*), COUNT({column}) FROM silver.orders"),
                ) == "50,20"
        });
    }
    let outcome = running.stop();
    let taken: Vec<&str> = outcome.evolved.iter().map(|(_, evolved)| &*evolved.column).collect();
    assert_eq!((taken, outcome.rejected), (vec!["discount", "at"], 0));
    let writing = writes.load("lake");
    let rows = |dataflow| ask(dataflow, "SELECT id, shop, discount, at FROM silver.orders ORDER BY id");
    assert_eq!(rows(&reading), rows(&writing));
    assert_newest_is_exact(&reading, "a topic that was followed");
    assert_eq!(recompute(&reading, 2).corrections, Some(vec![]));
}

#[test]
fn processes_begin_anew_together_and_end_by_a_signal_then_as_before() {
    let mock = Mock::start();
    let folder = folder("processes", &mock.url);
    let dataflow = folder.load("lake");
    let first = register(&mock, "");
    (0..10).for_each(|id| folder.append(&format!("live/{}.ndjson", id % 4), &plain(first, id, "old")));
    for (victim, name, more) in [(1, "city", CITY.to_string()), (0, "credit", format!("{CITY}{CREDIT}"))] {
        let mut processes = Processes::new(&folder, 2, 1);
        processes.start_all(&["--lake", &dataflow.lake]);
        processes.wait_until("the start", |p| {
            (0..2).all(|process| p.said(process).contains("started"))
        });
        processes.wait_until("a snapshot", |_| {
            verify::snapshots(&dataflow).is_ok_and(|epochs| !epochs.is_empty())
        });
        // One record goes to each partition, so that every process encounters the schema.
        let schema = register(&mock, &more);
        for id in 0..4 {
            let credit = if name == "credit" {
                [long(1), long(1), vec![5]].concat()
            } else {
                vec![]
            };
            let parts = [long(id), text("new"), some("Bonn"), credit];
            folder.append(&format!("live/{id}.ndjson"), &line(schema, &parts));
        }
        let sql = format!("SELECT COUNT(*), COUNT({name}) FROM silver.accounts");
        processes.wait_until("the column", |_| {
            columns_of(&dataflow, "silver.accounts").contains(name) && ask(&dataflow, &sql) == "10,4"
        });
        processes.signal(victim, "-TERM");
        for process in [0, 1] {
            let told = format!("accounts: column {name} ");
            processes.assert_ends(process, PATIENCE, 0, &["newest snapshot", &told]);
        }
        assert_newest_is_exact(&dataflow, "what processes evolved");
    }
}

/// A column may be listed in the lake before any table has it; its records come again after the restart.
#[test]
fn a_kill_while_a_run_begins_anew_loses_no_value() {
    let mock = Mock::start();
    let folder = folder("killed", &mock.url);
    let dataflow = folder.load("lake");
    let first = register(&mock, "");
    folder.append("live/0.ndjson", &plain(first, 0, "old"));
    catch_up(&dataflow, 1);
    let mut expected = vec!["0,old,,".to_string()];
    // The log message at which the process is killed, and its number of occurrences by then: a start itself takes a
    // column.
    let moments = [
        ("has new fields", 1),
        ("the input takes a column", 2),
        ("restarted:", 2),
    ];
    for (round, (said, times)) in moments.into_iter().enumerate() {
        let fields: String = (0..=round)
            .map(|n| format!(r#",{{"name":"f{n}","type":["null","string"],"default":null}}"#))
            .collect();
        let schema = register(&mock, &fields);
        let mut processes = Processes::new(&folder, 1, 2);
        // A start asks for the newest version, so the later one is registered only while it runs.
        processes.start_all(&["--lake", &dataflow.lake]);
        processes.wait_until("the start", |p| p.said(0).contains("started"));
        let later = register(
            &mock,
            &format!(r#"{fields},{{"name":"g{round}","type":["null","string"],"default":null}}"#),
        );
        assert!(later > schema);
        let mut parts = vec![long(round as i64 + 1), text("new")];
        parts.extend((0..=round).map(|_| some("f")));
        parts.push(some("g"));
        folder.append("live/0.ndjson", &line(later, &parts));
        processes.wait_until("its moment", |p| p.said(0).matches(said).count() >= times);
        processes.signal(0, "-KILL");
        processes.end(0, PATIENCE);
        expected.push(format!("{},new,f,g", round + 1));
        let outcome = catch_up(&dataflow, 1);
        assert_eq!(outcome.rejected, 0);
        assert_newest_is_exact(&dataflow, said);
        let sql = format!(
            "SELECT id, name, f{round}, g{round} FROM silver.accounts WHERE id = {}",
            round + 1
        );
        assert_eq!(ask(&dataflow, &sql), expected[round + 1]);
    }
}
