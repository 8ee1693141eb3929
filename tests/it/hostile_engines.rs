//! Tests how engines that we did not write read tables with values at the limits of their types, with partitions that
//! no path can express, and with damaged files in the log.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use alluvium::definition::Dataflow;
use serde_json::{Value, json};

use crate::lake::{ask, assert_newest_is_exact};
use crate::readers::python;
use crate::spark::{named, spark};
use crate::support::{Folder, catch_up, chain};
use crate::testing::checkout;

/// Pseudo-random numbers that are the same in each run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A value, with the order that the tests expect.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Double(f64),
    /// Integer units: a BIGINT, units of a DECIMAL's last digit, microseconds, or days.
    Units(i128),
    Text(String),
}

impl Cell {
    /// The order of Alluvium, Spark, DuckDB and Polars: NaN is the greatest, and both zeros are equal.
    fn order(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Double(a), Cell::Double(b)) => (a.partial_cmp(b)).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
            (Cell::Units(a), Cell::Units(b)) => a.cmp(b),
            (Cell::Text(a), Cell::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            _ => unreachable!("a column is of one type"),
        }
    }
}

/// A column: its values by row, and how they are written.
struct Column {
    name: &'static str,
    /// The name of the column's type in `hostile_engines.py`.
    kind: &'static str,
    /// A DataFusion literal, with `{}` for the value's text.
    literal: &'static str,
    cells: Vec<Option<Cell>>,
}

const DECIMALS: u32 = 10;

impl Column {
    fn text(&self, cell: &Cell) -> String {
        match cell {
            Cell::Double(x) if x.is_nan() => "NaN".into(),
            Cell::Double(x) if x.is_infinite() => if *x > 0.0 { "Infinity" } else { "-Infinity" }.into(),
            Cell::Double(x) => format!("{x:e}"),
            Cell::Text(text) => text.clone(),
            Cell::Units(units) => match self.kind {
                "decimal" => {
                    let one = 10_u128.pow(DECIMALS);
                    let (whole, part) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
                    let sign = if *units < 0 { "-" } else { "" };
                    format!("{sign}{whole}.{part:010}")
                }
                "timestamp" => {
                    let micros = i64::try_from(*units).expect("microseconds of these years fit");
                    let at = chrono::DateTime::from_timestamp_micros(micros).expect("a time");
                    at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
                }
                "date" => {
                    let days = i64::try_from(*units).expect("days of these years fit");
                    let at = chrono::DateTime::from_timestamp(days * 86_400, 0).expect("a day");
                    at.format("%Y-%m-%d").to_string()
                }
                _ => units.to_string(),
            },
        }
    }

    fn condition(&self, op: &str, text: &str) -> String {
        let literal = self.literal.replace("{}", &text.replace('\'', "''"));
        format!("{} {op} {literal}", self.name)
    }

    /// The numbers of the rows whose order relative to one of the wanted values satisfies `is`.
    fn matching(&self, wanted: &[Cell], is: impl Fn(Ordering) -> bool) -> Vec<usize> {
        let rows = self.cells.iter().enumerate();
        let rows = rows.filter(|(_, cell)| {
            cell.as_ref()
                .is_some_and(|cell| wanted.iter().any(|w| is(cell.order(w))))
        });
        rows.map(|(row, _)| row).collect()
    }
}

/// Columns with this many rows: every second value is at a limit of its type, one in twelve is null.
fn columns(rows: usize) -> Vec<Column> {
    let random = &mut Seeded(14);
    let day = 86_400_000_000_i128;
    let (first, last) = (-62_135_596_800_000_000_i128, 253_402_300_799_999_999_i128);
    let most = 10_i128.pow(38) - 1;
    let text = |text: &str| Cell::Text(text.into());
    let edges: [(&str, &str, &str, Vec<Cell>); 6] = [
        (
            "d",
            "double",
            "CAST('{}' AS DOUBLE)",
            [
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                0.0,
                5e-324,
                -5e-324,
                f64::MAX,
                f64::MIN,
                9_007_199_254_740_993.0,
                0.1,
                -0.1,
                1e22,
            ]
            .map(Cell::Double)
            .to_vec(),
        ),
        (
            "i",
            "long",
            "CAST('{}' AS BIGINT)",
            [
                i64::MIN,
                i64::MIN + 1,
                i64::MAX,
                i64::MAX - 1,
                0,
                -1,
                (1 << 53) + 1,
                -(1 << 53) - 1,
            ]
            .map(|i| Cell::Units(i.into()))
            .to_vec(),
        ),
        (
            "n",
            "decimal",
            "CAST('{}' AS DECIMAL(38,10))",
            [
                most,
                -most,
                most - 1,
                1,
                -1,
                0,
                (1 << 53) + 1,
                90_071_992_547_409_930_000_000_001,
                -1_234_567_890_123_456_789_012_345_678,
            ]
            .map(Cell::Units)
            .to_vec(),
        ),
        (
            "t",
            "text",
            "'{}'",
            vec![
                text(&"a".repeat(31)),
                text(&"a".repeat(32)),
                text(&"a".repeat(33)),
                text(&("a".repeat(32) + "b")),
                text(&"\u{10ffff}".repeat(33)),
                text(&("a".repeat(31) + &"\u{10ffff}".repeat(40))),
                text(&"\u{7f}".repeat(40)),
                text(&"é".repeat(70)),
                text(&"\u{ffff}".repeat(33)),
                text(&"😀".repeat(33)),
                text(&"z".repeat(300)),
                text(" leading and trailing "),
                text("quo'te \"and\" \\ and % and _"),
                text("line\nbreak\ttab"),
                text("null"),
                text("NaN"),
            ],
        ),
        (
            "at",
            "timestamp",
            "arrow_cast('{}', 'Timestamp(Microsecond, None)')",
            [
                first,
                first + 1,
                last,
                last - 999,
                -1,
                -1001,
                0,
                999,
                1001,
                -12_219_292_800_000_001,
            ]
            .map(Cell::Units)
            .to_vec(),
        ),
        (
            "day",
            "date",
            "CAST('{}' AS DATE)",
            [first / day, last / day, -1, 0, -141_428, -141_427]
                .map(Cell::Units)
                .to_vec(),
        ),
    ];
    let mut made = Vec::new();
    for (name, kind, literal, edges) in edges {
        let cells = (0..rows).map(|_| {
            if random.below(12) == 0 {
                return None;
            }
            if random.below(2) == 0 {
                return Some(edges[random.below(edges.len() as u64) as usize].clone());
            }
            let wide = i128::from(random.next()) << 64 | i128::from(random.next());
            Some(match kind {
                "double" => Cell::Double(match f64::from_bits(random.next()) {
                    x if x.is_nan() => f64::NAN,
                    x => x,
                }),
                "long" => Cell::Units(i128::from(random.next() as i64)),
                "decimal" => Cell::Units(wide % most),
                "timestamp" => Cell::Units(first + wide.rem_euclid(last - first)),
                "date" => Cell::Units((first + wide.rem_euclid(last - first)).div_euclid(day)),
                _ => {
                    let length = random.below(80);
                    let of = |n: u64| match n % 5 {
                        0 => 'a',
                        1 => '\u{7f}',
                        2 => 'é',
                        3 => '\u{10ffff}',
                        _ => char::from_u32((n >> 8) as u32 % 0xd000 + 32).unwrap_or('x'),
                    };
                    Cell::Text((0..length).map(|_| of(random.next())).collect())
                }
            })
        });
        made.push(Column {
            name,
            kind,
            literal,
            cells: cells.collect(),
        });
    }
    made
}

const VALUES: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
d = "DOUBLE"
i = "BIGINT"
n = "DECIMAL(38,10)"
t = "VARCHAR"
at = "TIMESTAMP"
day = "DATE"
[[feeds]]
name = "live"
kind = "log"
path = "live/values"
format = "json"
"#;

/// A lake with these columns in two tables: `files` has one or two rows per file, so that bounds are tight; `whole`
/// has one file.
fn valued(columns: &[Column]) -> Folder {
    let folder = Folder::new("statistics", &[("inputs/vals.toml", VALUES)]);
    folder.write(
        "silver/files.sql",
        "SELECT id * 2 / 3 AS part, id, d, i, n, t, at, day FROM vals",
    );
    folder.write("silver/files.toml", "partition_by = [\"part\"]\n");
    folder.write("silver/whole.sql", "SELECT id, d, i, n, t, at, day FROM vals");
    let rows = columns[0].cells.len();
    let mut lines = String::new();
    for row in 0..rows {
        let mut fields = serde_json::Map::from_iter([("id".to_string(), Value::from(row))]);
        for column in columns {
            if let Some(cell) = &column.cells[row] {
                let text = column.text(cell);
                let is_number = column.kind == "long";
                let value = if is_number {
                    text.parse::<i64>().expect("a BIGINT").into()
                } else {
                    Value::from(text)
                };
                fields.insert(column.name.into(), value);
            }
        }
        let _ = writeln!(lines, "{}", json!({ "key": { "id": row }, "value": fields }));
    }
    folder.append("live/values/0.ndjson", &lines);
    folder
}

/// The queries to ask: each value by equality, some of them by order.
fn cases(columns: &[Column], tables: &[(&str, PathBuf)]) -> Vec<(String, Value)> {
    let mut cases = Vec::new();
    for column in columns {
        let mut known: Vec<Cell> = column.cells.iter().flatten().cloned().collect();
        known.sort_by(Cell::order);
        known.dedup_by(|a, b| a.order(b) == Ordering::Equal);
        let mut asked: Vec<(&str, Vec<Cell>)> = known.chunks(16).map(|chunk| ("=", chunk.to_vec())).collect();
        let pivots = known
            .iter()
            .step_by(known.len() / 6)
            .chain(known.last())
            .chain(known.first());
        asked.extend(pivots.flat_map(|pivot| [(">", vec![pivot.clone()]), ("<", vec![pivot.clone()])]));
        if column.kind == "double" {
            asked.push((">", vec![Cell::Double(5.0)]));
        }
        for (op, wanted) in asked {
            let is = |order: Ordering| match op {
                "=" => order.is_eq(),
                ">" => order.is_gt(),
                _ => order.is_lt(),
            };
            let texts: Vec<String> = wanted.iter().map(|cell| column.text(cell)).collect();
            let conditions: Vec<String> = texts.iter().map(|text| column.condition(op, text)).collect();
            for (table, folder) in tables {
                let case = json!({
                    "table": folder, "column": column.name, "kind": column.kind, "op": op, "values": texts,
                    "sql": conditions.join(" OR "), "ids": column.matching(&wanted, is),
                });
                cases.push((table.to_string(), case));
            }
        }
    }
    cases
}

/// Bounds ignored NaN, so a filter for values above them missed it; other bounds were slightly wrong.
#[test]
fn every_value_is_found_by_equality_and_by_order_through_each_reader() {
    let columns = columns(96);
    let folder = valued(&columns);
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let tables = ["files", "whole"].map(|table| {
        let name = format!("silver.{table}");
        (name, folder.lake("lake").join("silver").join(table))
    });
    let tables: Vec<(&str, PathBuf)> = tables
        .iter()
        .map(|(name, path)| (name.as_str(), path.clone()))
        .collect();
    let cases = cases(&columns, &tables);
    assert!(cases.len() > 150, "{}", cases.len());
    for (table, case) in &cases {
        assert_found(&dataflow, table, case);
    }
    let all: Vec<Value> = cases.iter().map(|(_, case)| case.clone()).collect();
    if let Some(found) = otherwise(&folder, "deltalake,duckdb,polars", &all) {
        assert_eq!(found, "");
    }
    let Some(mut spark) = spark() else { return };
    for (table, case) in cases
        .iter()
        .filter(|(table, case)| table == "silver.files" && case["op"] == "=")
    {
        let (column, op) = (
            case["column"].as_str().expect("a name"),
            case["op"].as_str().expect("an operator"),
        );
        let kind = match case["kind"].as_str().expect("a type") {
            "double" => "DOUBLE",
            "long" => "BIGINT",
            "decimal" => "DECIMAL(38,10)",
            "timestamp" => "TIMESTAMP_NTZ",
            "date" => "DATE",
            _ => "STRING",
        };
        let compared = case["values"].as_array().expect("a list").iter().map(|value| {
            let value = value
                .as_str()
                .expect("a text")
                .replace('\\', "\\\\")
                .replace('\'', "\\'");
            format!("{column} {op} CAST('{value}' AS {kind})")
        });
        let compared = compared.collect::<Vec<_>>().join(" OR ");
        let found = spark.ask(&format!(
            "SELECT id FROM {} WHERE {compared} ORDER BY id",
            named(&dataflow, table)
        ));
        let ids: Vec<String> = case["ids"]
            .as_array()
            .expect("a list")
            .iter()
            .map(Value::to_string)
            .collect();
        assert_eq!(found, ids.join("\n"), "Spark, {compared}");
    }
}

/// Runs the cases in other engines; returns how their answers differ, or none if Python is not available.
fn otherwise(folder: &Folder, engines: &str, cases: &[Value]) -> Option<String> {
    let python = python()?;
    let file = folder.path().join("cases.json");
    std::fs::write(&file, serde_json::to_vec(cases).expect("plain data")).expect("it is written");
    let output = Command::new(python)
        .arg(checkout().join("tests/it/hostile_engines.py"))
        .args([engines, &file.display().to_string()])
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).trim().to_string();
    let (found, asked) = said.rsplit_once("asked ").expect("it ends with how many were asked");
    assert_eq!(asked, (engines.split(',').count() * cases.len()).to_string());
    Some(found.trim().to_string())
}

const PLACES: &str = r#"
key = ["id"]
[columns]
id = { type = "BIGINT", nullable = false }
p = "VARCHAR"
v = "BIGINT"
[[feeds]]
name = "live"
kind = "log"
path = "live/places"
format = "json"
"#;

/// Texts that file systems and URLs interpret or cannot hold.
fn places() -> Vec<String> {
    let mut places: Vec<String> = [
        ".",
        "..",
        "../../escaped",
        "/absolute",
        "a/b",
        "a\\b",
        "%41",
        "a%2Fb",
        "%",
        "a b",
        "trailing. ",
        " ",
        "\u{1}\u{7}\u{1b}[31m",
        "line\nbreak",
        "__HIVE_DEFAULT_PARTITION__",
        "p=x",
        "null",
        "ключ",
        "a:b*c?d\"e<f>g|h",
        "#fragment?query",
        "\u{fffd}",
    ]
    .map(String::from)
    .to_vec();
    places.extend([
        "x".repeat(300),
        "ы".repeat(50),
        "😀".repeat(25),
        "😀".repeat(100),
        "%".repeat(84),
        "y".repeat(253),
    ]);
    places
}

fn place(folder: &Folder, id: usize, p: &str, v: i64) {
    let record = json!({ "key": { "id": id }, "value": { "id": id, "p": p, "v": v } });
    folder.append("live/places/0.ndjson", &format!("{record}\n"));
}

/// A row was accepted although no file name can hold its partition: the run ended, and so did each restart.
#[test]
fn partitions_that_no_path_can_hold_are_written_read_and_changed() {
    let folder = Folder::new("places", &[("inputs/places.toml", PLACES)]);
    folder.write("silver/places.sql", "SELECT id, p, v FROM places");
    folder.write(
        "silver/places.toml",
        "partition_by = [\"p\"]\ndeletes = \"vectors\"\nchange_data_feed = true\n",
    );
    // With so many levels, the whole path is longer than systems allow.
    let levels: Vec<String> = (0..30).map(|n| format!("p || '{n}' AS p{n}")).collect();
    folder.write(
        "gold/deep.sql",
        &format!("SELECT id, v, {} FROM silver.places", levels.join(", ")),
    );
    let names: Vec<String> = (0..30).map(|n| format!("\"p{n}\"")).collect();
    folder.write("gold/deep.toml", &format!("partition_by = [{}]\n", names.join(", ")));
    let dataflow = folder.load("lake");
    let places = places();
    for (id, p) in places.iter().enumerate() {
        place(&folder, id, p, 0);
        place(&folder, id + 1000, p, 0);
    }
    catch_up(&dataflow, 2);
    let (rows, letters) = (
        "SELECT COUNT(*), COUNT(DISTINCT p) FROM silver.places",
        "SELECT COUNT(*) FROM dead_letters",
    );
    assert_eq!(ask(&dataflow, rows), format!("{},{}", 2 * places.len(), places.len()));
    assert_eq!(ask(&dataflow, letters), "0");
    assert!(!folder.path().join("escaped").exists() && !folder.lake("escaped").exists());

    // Rows of each partition change, after a restart that finds nothing to correct.
    assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]));
    for (id, p) in places.iter().enumerate() {
        place(&folder, id, p, 1);
    }
    assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]));
    assert_newest_is_exact(&dataflow, "with hostile partitions");

    let path = folder.lake("lake").join("silver/places");
    let cases = places.iter().enumerate().map(|(id, p)| {
        let sql = format!("p = '{}'", p.replace('\'', "''"));
        json!({
            "table": path, "column": "p", "kind": "text", "op": "=", "values": [p], "sql": sql, "ids": [id, id + 1000],
        })
    });
    let cases: Vec<Value> = cases.collect();
    for (case, p) in cases.iter().zip(&places) {
        let found = ask(
            &dataflow,
            &format!(
                "SELECT id FROM silver.places WHERE {} ORDER BY id",
                case["sql"].as_str().expect("a text")
            ),
        );
        assert_eq!(found, format!("{}\n{}", case["ids"][0], case["ids"][1]), "{p:?}");
    }
    if let Some(found) = otherwise(&folder, "deltalake,duckdb", &cases) {
        assert_eq!(found, "");
    }
    let Some(mut spark) = spark() else { return };
    let distinct = "SELECT COUNT(*), COUNT(DISTINCT p), SUM(v), SUM(LENGTH(p)) FROM";
    let ours = ask(&dataflow, &format!("{distinct} silver.places"));
    assert_eq!(
        spark.ask(&format!("{distinct} {}", named(&dataflow, "silver.places"))),
        ours
    );
    let deep = "SELECT COUNT(*), SUM(v), SUM(LENGTH(p29)) FROM";
    let ours = ask(&dataflow, &format!("{deep} gold.deep"));
    assert_eq!(spark.ask(&format!("{deep} {}", named(&dataflow, "gold.deep"))), ours);
}

/// Values of other types at their limits, used as partition values: those whose text all engines read back equal are
/// written, the others become dead letters. A timestamp of the year 10000 ended each restart.
#[test]
fn partitions_of_each_type_read_back_equal_or_are_dead_letters() {
    let columns = columns(60);
    let folder = valued(&columns);
    let mut tables = Vec::new();
    for column in columns.iter().filter(|column| column.kind != "text") {
        let table = format!("by_{}", column.name);
        folder.write(
            &format!("gold/{table}.sql"),
            &format!("SELECT id, {}, t FROM vals", column.name),
        );
        folder.write(
            &format!("gold/{table}.toml"),
            &format!("partition_by = [\"{}\"]\n", column.name),
        );
        tables.push((
            column.name,
            format!("gold.{table}"),
            folder.lake("lake").join("gold").join(&table),
        ));
    }
    folder.write("gold/by_flag.sql", "SELECT id, i > 0 AS flag FROM vals");
    folder.write("gold/by_flag.toml", "partition_by = [\"flag\"]\n");
    let far = "arrow_cast(i, 'Timestamp(Microsecond, None)')";
    folder.write("gold/by_far.sql", &format!("SELECT id, {far} AS far FROM vals"));
    folder.write("gold/by_far.toml", "partition_by = [\"far\"]\n");
    folder.write(
        "gold/by_far_day.sql",
        "SELECT id, CAST(far AS DATE) AS day, far FROM gold.by_far",
    );
    folder.write("gold/by_far_day.toml", "partition_by = [\"day\"]\n");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    assert_eq!(catch_up(&dataflow, 2).corrections, Some(vec![]));
    assert_newest_is_exact(&dataflow, "with partitions at the edges of their types");

    let (first, last) = (-62_135_596_800_000_000_i128, 253_402_300_799_999_999_i128);
    let moments = columns.iter().find(|column| column.name == "i").expect("there is one");
    let within = moments.cells.iter().filter(|cell| match cell {
        Some(Cell::Units(micros)) => (first..=last).contains(micros),
        _ => true,
    });
    let within = within.count();
    assert!(within < moments.cells.len(), "some are of other years");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM gold.by_far"), within.to_string());
    let letters = ask(
        &dataflow,
        "SELECT COUNT(*) FROM dead_letters WHERE reason LIKE '%of the years 1 to 9999%'",
    );
    assert_eq!(letters, (moments.cells.len() - within).to_string());

    let mut asked = Vec::new();
    for (name, table, path) in &tables {
        let column = columns
            .iter()
            .find(|column| column.name == *name)
            .expect("it is one of them");
        let cases = cases(std::slice::from_ref(column), &[(table.as_str(), path.clone())]);
        for (table, case) in &cases {
            assert_found(&dataflow, table, case);
        }
        asked.extend(cases.into_iter().map(|(_, case)| case));
    }
    if let Some(found) = otherwise(&folder, "deltalake,duckdb,polars", &asked) {
        assert_eq!(found, "");
    }
    let Some(mut spark) = spark() else { return };
    for sql in [
        "SELECT COUNT(d), ROUND(SUM(CASE WHEN d = d AND ABS(d) < 2 THEN d END), 6), COUNT(*) FROM gold.by_d",
        "SELECT COUNT(i), MIN(i), MAX(i), COUNT(DISTINCT i), COUNT(*) FROM gold.by_i",
        "SELECT COUNT(n), MIN(n), MAX(n), COUNT(DISTINCT n), COUNT(*) FROM gold.by_n",
        "SELECT COUNT(day), MIN(day), MAX(day), COUNT(DISTINCT day), COUNT(*) FROM gold.by_day",
        "SELECT COUNT(at), COUNT(DISTINCT at), COUNT(*) FROM gold.by_at",
        "SELECT flag, COUNT(*) FROM gold.by_flag GROUP BY flag ORDER BY flag NULLS LAST",
        "SELECT COUNT(far), COUNT(DISTINCT far), COUNT(*) FROM gold.by_far",
    ] {
        let (_, table) = sql.split_once("FROM ").expect("it reads a table");
        let table = table.split(' ').next().expect("a name");
        assert_eq!(
            spark.ask(&sql.replace(table, &named(&dataflow, table))),
            ask(&dataflow, sql),
            "{sql}"
        );
    }
}

/// Asserts that `query` finds exactly the rows of a case.
fn assert_found(dataflow: &Dataflow, table: &str, case: &Value) {
    let found = ask(
        dataflow,
        &format!(
            "SELECT id FROM {table} WHERE {} ORDER BY id",
            case["sql"].as_str().expect("a text")
        ),
    );
    let ids: Vec<String> = case["ids"]
        .as_array()
        .expect("a list")
        .iter()
        .map(Value::to_string)
        .collect();
    assert_eq!(found, ids.join("\n"), "{table} {}", case["sql"]);
}

/// The protocols in a table's log, with their versions.
fn protocols(lake: &Path, table: &str) -> Vec<(String, Value)> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(lake.join(table).join("_delta_log"))
        .expect("the table has a log")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    entries.sort();
    let of = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("an entry reads");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("an action"));
        let protocol = lines
            .filter_map(|mut action| Some(action.get_mut("protocol")?.take()))
            .next()?;
        Some((path.file_name()?.to_string_lossy().into_owned(), protocol))
    };
    entries.iter().filter_map(of).collect()
}

/// Lakes of earlier versions have tables that Spark refuses: the next start completes their list of features, once.
#[test]
fn tables_of_an_earlier_version_are_brought_to_a_whole_protocol_once() {
    let folder = Folder::new("earlier", &[("inputs/places.toml", PLACES)]);
    folder.write("silver/places.sql", "SELECT id, p, v FROM places");
    folder.write(
        "gold/sums.sql",
        "SELECT p, COUNT(*) AS n, SUM(v) AS v FROM silver.places GROUP BY p",
    );
    folder.write("gold/sums.toml", "change_data_feed = true\n");
    let dataflow = folder.load("lake");
    for id in 0..50 {
        place(&folder, id, &format!("p{}", id % 5), 1);
    }
    catch_up(&dataflow, 1);
    let lake = folder.lake("lake");
    let tables = [
        "silver/places",
        "gold/sums",
        "bronze/places",
        "dead_letters",
        "_alluvium/snapshots",
    ];
    for table in tables {
        let entry = lake.join(table).join("_delta_log/00000000000000000000.json");
        let text = std::fs::read_to_string(&entry).expect("the first entry");
        assert!(text.contains(",\"invariants\""), "{table}: {text}");
        std::fs::write(&entry, text.replace(",\"invariants\"", "")).expect("it is written");
    }
    for round in 1..4 {
        assert_eq!(
            catch_up(&dataflow, 1 + round % 2).corrections,
            Some(vec![]),
            "round {round}"
        );
        place(&folder, round, "moved", 7);
        catch_up(&dataflow, 1);
        assert_newest_is_exact(&dataflow, "behind the new protocol");
    }
    for table in tables {
        let protocols = protocols(&lake, table);
        assert_eq!(
            protocols.len(),
            2,
            "{table}: the first, and one that was put once: {protocols:?}"
        );
        let features = protocols[1].1["writerFeatures"].to_string();
        assert!(features.contains("\"invariants\""), "{table}: {features}");
    }
    let Some(mut spark) = spark() else { return };
    let sql = "SELECT COUNT(*), SUM(n), SUM(v) FROM gold.sums";
    assert_eq!(
        spark.ask(&sql.replace("gold.sums", &named(&dataflow, "gold.sums"))),
        ask(&dataflow, sql)
    );
}

/// The names of a table's checkpoints.
fn checkpoints(log: &Path) -> Vec<String> {
    let names = std::fs::read_dir(log).expect("the table has a log");
    let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".checkpoint.parquet")).collect();
    names.sort();
    names
}

/// Writes a table's checkpoint as another engine would; returns its path.
fn checkpoint(dataflow: &Dataflow, table: &str) -> PathBuf {
    let lake = alluvium::lake::Lake::open(&dataflow.lake, &dataflow.store_options).expect("the lake is there");
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    runtime.block_on(async {
        let mut handle = lake.delta_table(table);
        handle.load().await.expect("deltalake opens it");
        deltalake::checkpoints::create_checkpoint(&handle, None)
            .await
            .expect("it is written");
    });
    let log = PathBuf::from(&dataflow.lake).join(table).join("_delta_log");
    let newest = checkpoints(&log).pop().expect("there is one now");
    log.join(newest)
}

/// A way to damage a file, and its name.
type Damage = (&'static str, fn(&Path));

fn damages() -> Vec<Damage> {
    fn bytes(path: &Path) -> Vec<u8> {
        std::fs::read(path).expect("it is there")
    }
    vec![
        ("cut off", |path| {
            std::fs::write(path, &bytes(path)[..bytes(path).len() / 2]).expect("written")
        }),
        ("empty", |path| std::fs::write(path, "").expect("written")),
        ("of zeros", |path| {
            std::fs::write(path, vec![0; bytes(path).len()]).expect("written")
        }),
        ("flipped in its middle", |path| {
            let mut bytes = bytes(path);
            let middle = bytes.len() / 4;
            bytes[middle..middle + 64].iter_mut().for_each(|byte| *byte = !*byte);
            std::fs::write(path, bytes).expect("written");
        }),
        ("flipped in its footer", |path| {
            let mut bytes = bytes(path);
            let footer = bytes.len() - 200;
            bytes[footer..footer + 32].iter_mut().for_each(|byte| *byte = !*byte);
            std::fs::write(path, bytes).expect("written");
        }),
        ("gone, and still pointed at", |path| {
            std::fs::remove_file(path).expect("removed")
        }),
        ("pointed at by rubbish", |path| {
            std::fs::write(path.with_file_name("_last_checkpoint"), "{\"vers").expect("written");
        }),
        ("pointed at by nothing", |path| {
            std::fs::write(path.with_file_name("_last_checkpoint"), "").expect("written")
        }),
        ("pointed at as another", |path| {
            std::fs::write(path.with_file_name("_last_checkpoint"), "{\"version\":7777,\"size\":9}").expect("written");
        }),
    ]
}

/// One flipped byte in a checkpoint kept a dataflow from starting, although the whole log was there.
#[test]
fn a_damaged_checkpoint_is_passed_over_and_made_again() {
    let folder = Folder::new("checkpoints", &[("inputs/places.toml", PLACES)]);
    folder.write("silver/places.sql", "SELECT id, p, v FROM places");
    let dataflow = folder.load("lake");
    for id in 0..20 {
        place(&folder, id, "p", 1);
    }
    catch_up(&dataflow, 1);
    for (round, (how, damage)) in damages().into_iter().enumerate() {
        for table in ["silver/places", "bronze/places"] {
            damage(&checkpoint(&dataflow, table));
        }
        assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]), "{how}");
        // Readers without a fallback can read again: a query reads what deltalake opens.
        assert_newest_is_exact(&dataflow, how);
        place(&folder, round, "q", 2);
        assert_eq!(catch_up(&dataflow, 1).corrections, Some(vec![]), "{how}");
        let sums = ask(&dataflow, "SELECT COUNT(*), SUM(v) FROM silver.places");
        assert_eq!(sums, format!("20,{}", 20 + round + 1), "{how}");
    }
    let log = folder.lake("lake").join("silver/places/_delta_log");
    assert!(checkpoints(&log).len() > 2, "{:?}", checkpoints(&log));
}

/// If the log does not reach back before the checkpoint, the message names the file and the remedy.
#[test]
fn a_damaged_checkpoint_that_the_log_does_not_repeat_is_named() {
    let folder = Folder::new("checkpoints", &[("inputs/places.toml", PLACES)]);
    folder.write("silver/places.sql", "SELECT id, p, v FROM places");
    let dataflow = folder.load("lake");
    for id in 0..20 {
        place(&folder, id, "p", 1);
    }
    catch_up(&dataflow, 1);
    let path = checkpoint(&dataflow, "silver/places");
    std::fs::write(&path, "").expect("it is written");
    std::fs::remove_file(path.with_file_name("00000000000000000000.json")).expect("the first entry goes");
    let options = alluvium::run::Options {
        until_caught_up: true,
        ..Default::default()
    };
    let failed = crate::support::run_all(&dataflow, 1.into(), &options).remove(0);
    let said = chain(&failed.expect_err("the table does not read"));
    let file = path.file_name().expect("a file").to_string_lossy();
    for words in [&*file, "silver/places", "lacks version 0", "restore the file"] {
        assert!(said.contains(words), "{words} is missing in: {said}");
    }
}

/// Writes a Parquet file with one column of these numbers.
fn drop_numbers(path: &Path, numbers: std::ops::Range<i64>) {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    let columns: [(&str, ArrayRef); 1] = [("n", std::sync::Arc::new(Int64Array::from_iter_values(numbers)))];
    let batch = RecordBatch::try_from_iter(columns).expect("one column");
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
    let file = std::fs::File::create(path).expect("it is made");
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).expect("a Parquet form");
    writer.write(&batch).expect("it is written");
    writer.close().expect("it is written");
}

const NUMBERS: &str = r#"
[columns]
n = "BIGINT"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.parquet"
format = "parquet"
"#;

/// A run was killed after copying a drop to the archive and before its first commit, and the drop was replaced before
/// the restart: then Bronze referred to the copy of the old file, Silver had the rows of the new one, and they stayed
/// different.
#[test]
fn a_drop_that_is_replaced_before_a_restart_is_archived_as_it_was_decoded() {
    let folder = Folder::new("replaced", &[("inputs/numbers.toml", NUMBERS)]);
    folder.write("silver/numbers.sql", "SELECT n FROM numbers");
    let name = format!("{}.parquet", "long".repeat(60));
    let drop = folder.path().join("drops").join(name);
    drop_numbers(&drop, 0..5);
    let killed = folder.load("killed");
    catch_up(&killed, 1);
    // The killed run leaves the archive without a snapshot.
    let (from, to) = (
        folder.lake("killed").join("_alluvium/archive/numbers"),
        folder.lake("lake"),
    );
    let to = to.join("_alluvium/archive/numbers");
    std::fs::create_dir_all(&to).expect("it is made");
    for copy in std::fs::read_dir(&from).expect("the drop was archived") {
        let copy = copy.expect("an entry");
        std::fs::copy(copy.path(), to.join(copy.file_name())).expect("it is copied");
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    drop_numbers(&drop, 100..103);
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*), MIN(n), MAX(n) FROM silver.numbers"),
        "3,100,102"
    );
    assert_newest_is_exact(&dataflow, "of a drop that was replaced");
    assert_eq!(crate::support::recompute(&dataflow, 1).corrections, Some(vec![]));
}
