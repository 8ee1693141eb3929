//! Tests SQL expressions with extreme arguments, and the restrictions of `query`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::commands::{alluvium, exits, text};
use crate::lake::{ask, assert_newest_is_exact};
use crate::support::{Folder, catch_up};

const ROWS: &str = r#"
[columns]
k = "VARCHAR"
n = "BIGINT"
x = "DECIMAL(12,2)"
d = "DATE"
at = "TIMESTAMP"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*.csv"
format = "csv"
"#;

/// Rows with small numbers, and one with the largest possible `n`.
const CSV: &str = "k,n,x,d,at\n\
    a,3,1.50,2024-01-31,2024-01-31T12:00:00\n\
    b,0,2.25,0001-01-01,0001-01-01T00:00:00\n\
    c,-1,-3.00,9999-12-31,9999-12-31T23:59:59.999999\n\
    huge,9223372036854775807,99999999.99,2024-02-29,2024-02-29T00:00:00\n";

/// A dataflow with one input and these Silver tables.
fn folder(name: &str, tables: &[(&str, &str)]) -> Folder {
    let folder = Folder::new(name, &[("inputs/rows.toml", ROWS), ("drops/a.csv", CSV)]);
    for (table, sql) in tables {
        folder.write(&format!("silver/{table}.sql"), sql);
    }
    folder
}

/// Runs the dataflow and compares its tables with batch.
fn ran(folder: &Folder) -> std::sync::Arc<alluvium::definition::Dataflow> {
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 2);
    assert_newest_is_exact(&dataflow, "after the run");
    dataflow
}

fn letters(dataflow: &alluvium::definition::Dataflow, table: &str) -> String {
    let sql = format!("SELECT reason FROM dead_letters WHERE table_name = '{table}' ORDER BY reason");
    ask(dataflow, &sql)
}

#[test]
fn a_rounded_decimal_is_compared_with_another_scale_by_value() {
    // Each row was a dead letter, or a join matched unequal rows: after the optimizer had folded the cast around the
    // 0, round(x, 0) had another type than when the types of the comparison were determined.
    let folder = folder(
        "round",
        &[
            (
                "having",
                "SELECT k, round(sum(x), 0) AS r FROM rows GROUP BY k HAVING round(sum(x), 0) > 1",
            ),
            (
                "projected",
                "SELECT k, round(x, 0) = x AS whole, trunc(x, 1) = x AS tenths FROM rows",
            ),
            (
                "joined",
                "SELECT a.k, b.k AS other FROM rows a JOIN rows b ON round(a.x, 1) = b.x",
            ),
            (
                "grouped",
                "SELECT round(x, 0) AS r, count(*) AS n FROM rows GROUP BY round(x, 0)",
            ),
            (
                "chosen",
                "SELECT k, CASE WHEN round(x, 1) = 1.5 THEN round(x, 1) ELSE x END AS c FROM rows",
            ),
            ("listed", "SELECT k FROM rows WHERE round(x, 0) IN (2, 2.00, -3.0)"),
            (
                "between",
                "SELECT k FROM rows WHERE round(x, 1 - 1) BETWEEN 1.99 AND 2.01",
            ),
            (
                "floors",
                "SELECT k, floor(x) = x AS f, ceil(x) = x AS c, ceil(x) - floor(x) AS d FROM rows",
            ),
            (
                "inlined",
                "SELECT k, round(x, digits) AS r FROM (SELECT k, x, 1 AS digits FROM rows) WHERE round(x, digits) = x",
            ),
            (
                "united",
                "SELECT round(x, 0) AS r FROM rows UNION ALL SELECT x FROM rows",
            ),
            (
                "united_once",
                "SELECT round(x, 1) AS r FROM rows UNION SELECT x FROM rows",
            ),
            ("within", "SELECT k FROM rows WHERE round(x, 0) IN (SELECT x FROM rows)"),
            (
                "coalesced",
                "SELECT k, coalesce(nullif(round(x, 0), x), x) AS r FROM rows",
            ),
            ("greatest_of", "SELECT k, greatest(round(x, 0), x) AS g FROM rows"),
            (
                "nested",
                "SELECT k, round(round(x, 1), 0) < round(x, 1) AS below FROM rows",
            ),
            (
                "running",
                "SELECT k, sum(round(x, 0)) OVER (ORDER BY k) AS s, round(avg(x) OVER (ORDER BY k), 1) AS a FROM rows",
            ),
        ],
    );
    let dataflow = ran(&folder);
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
    for (sql, want) in [
        ("SELECT k FROM silver.having ORDER BY k", "a\nb\nhuge"),
        (
            "SELECT whole FROM silver.projected ORDER BY k",
            "false\nfalse\ntrue\nfalse",
        ),
        (
            "SELECT tenths FROM silver.projected ORDER BY k",
            "true\nfalse\ntrue\nfalse",
        ),
        ("SELECT k FROM silver.joined WHERE k = other ORDER BY k", "a\nc"),
        ("SELECT COUNT(*) FROM silver.joined", "2"),
        ("SELECT SUM(n) FROM silver.grouped WHERE r = 2", "2"),
        (
            "SELECT c FROM silver.chosen ORDER BY k",
            "1.50\n2.25\n-3.00\n99999999.99",
        ),
        ("SELECT k FROM silver.listed ORDER BY k", "a\nb\nc"),
        ("SELECT k FROM silver.between ORDER BY k", "a\nb"),
        ("SELECT f FROM silver.floors ORDER BY k", "false\nfalse\ntrue\nfalse"),
        ("SELECT CAST(d AS BIGINT) FROM silver.floors ORDER BY k", "1\n1\n0\n1"),
        ("SELECT k FROM silver.inlined ORDER BY k", "a\nc"),
        ("SELECT COUNT(*) FROM silver.united", "8"),
        ("SELECT k FROM silver.within ORDER BY k", "c"),
    ] {
        assert_eq!(ask(&dataflow, sql), want, "{sql}");
    }
    // The same is asked in a query's own session.
    for (sql, want) in [
        ("SELECT k FROM bronzeless WHERE round(x, 0) = x", "c"),
        (
            "SELECT a.k FROM bronzeless a JOIN bronzeless b ON round(a.x, 1) = b.x ORDER BY a.k",
            "a\nc",
        ),
    ] {
        let sql = sql.replace("bronzeless", "(SELECT k, c AS x FROM silver.chosen)");
        assert_eq!(ask(&dataflow, &sql), want, "{sql}");
    }
}

#[test]
fn a_row_whose_value_would_be_huge_is_a_dead_letter_and_the_others_go_on() {
    // A worker panicked or the process was aborted, and so was each restart.
    let cases = [
        ("repeated", "repeat(k, n)"),
        ("padded", "lpad(k, n, 'x')"),
        ("padded_right", "rpad(k, n, '\u{e9}')"),
        ("padded_with_nothing", "lpad(k, n, '')"),
        ("listed", "array_length(array_repeat(k, n))"),
        ("resized", "cardinality(array_resize(make_array(1), abs(n), 7))"),
        ("series", "array_length(range(0, n))"),
        (
            "series_of_days",
            "array_length(generate_series(d, DATE '9999-12-31', INTERVAL '100 years'))",
        ),
        (
            "joined",
            "length(array_to_string(range(0, least(n, 100000)), repeat('y', 100000)))",
        ),
        (
            "replaced",
            "length(replace(repeat('a', least(abs(n), 60000)), 'a', repeat('b', 60000)))",
        ),
        (
            "replaced_by",
            "length(regexp_replace(repeat('a', least(abs(n), 60000)), 'a', repeat('b', 60000), 'g'))",
        ),
    ];
    let tables: Vec<(&str, String)> = cases
        .iter()
        .map(|(name, expr)| (*name, format!("SELECT k, {expr} AS v FROM rows")))
        .collect();
    let tables: Vec<(&str, &str)> = tables.iter().map(|(name, sql)| (*name, sql.as_str())).collect();
    let folder = folder("huge", &tables);
    let dataflow = ran(&folder);
    for (name, expr) in cases {
        let rows = ask(&dataflow, &format!("SELECT k FROM silver.{name} ORDER BY k"));
        let told = letters(&dataflow, &format!("silver.{name}"));
        if name == "series_of_days" {
            assert_eq!(rows, "a\nb\nc\nhuge", "{expr}");
            continue;
        }
        assert_eq!(rows, "a\nb\nc", "{expr}: {told}");
        assert!(told.contains("max_value is 64 MiB"), "{expr}: {told}");
    }
}

/// One record whose texts made a search compare 10^13 bytes held up its run and each run after it, and no signal was
/// heard.
#[test]
fn a_search_or_trim_that_would_not_end_is_a_dead_letter_of_its_row() {
    let folder = folder(
        "search",
        &[
            (
                "found",
                "SELECT k, strpos(repeat('a', 2000000 * (n + 1)), repeat('a', 1000000 * (n + 1)) || k) AS at \
                 FROM rows WHERE n < 100",
            ),
            (
                "trimmed",
                "SELECT k, length(btrim(repeat('b', 1000000 * (n + 1)), repeat('bcd', 300000 * (n + 1)) || k)) AS l \
                 FROM rows WHERE n < 100",
            ),
        ],
    );
    let dataflow = ran(&folder);
    assert_eq!(ask(&dataflow, "SELECT * FROM silver.found"), "c,0");
    assert_eq!(ask(&dataflow, "SELECT * FROM silver.trimmed"), "c,0");
    assert_eq!(
        letters(&dataflow, "silver.found").matches("cannot be searched").count(),
        2
    );
    assert_eq!(
        letters(&dataflow, "silver.trimmed")
            .matches("cannot be trimmed")
            .count(),
        2
    );
}

#[test]
fn the_limit_of_a_value_is_the_dataflows() {
    let folder = folder(
        "limit",
        &[(
            "repeated",
            "SELECT k, length(repeat(k, n * 1000000)) AS v FROM rows WHERE n < 10",
        )],
    );
    let settings = "name = \"limit\"\nepoch = \"1ms\"\ncommit = \"5ms\"\ndurability = \"none\"\n";
    folder.write("dataflow.toml", &format!("{settings}max_value = \"1 MiB\"\n"));
    let dataflow = ran(&folder);
    assert_eq!(ask(&dataflow, "SELECT k FROM silver.repeated ORDER BY k"), "b\nc");
    let told = letters(&dataflow, "silver.repeated");
    assert!(told.contains("may take 2.9 MiB, and max_value is 1 MiB"), "{told}");
    // The row comes back with a larger limit.
    folder.write("dataflow.toml", &format!("{settings}max_value = \"4 MiB\"\n"));
    let dataflow = ran(&folder);
    assert_eq!(ask(&dataflow, "SELECT k FROM silver.repeated ORDER BY k"), "a\nb\nc");
    assert_eq!(letters(&dataflow, "silver.repeated"), "");
}

const SMALL: &str =
    "name = \"small\"\nepoch = \"1ms\"\ncommit = \"5ms\"\ndurability = \"none\"\nmax_value = \"1 MiB\"\n";

#[test]
fn a_row_whose_values_together_are_too_long_is_a_dead_letter() {
    // a gets 900,000 bytes, b none, and c 300,000.
    let text = "repeat(k, least(abs(n), 3) * 300000)";
    let list = "range(0, least(abs(n), 3) * 30000)";
    let cases = [
        ("operator", format!("length({text} || {text})")),
        ("chain", format!("length('<' || {text} || '-' || {text} || '>')")),
        (
            "bytes",
            format!("CAST({text} AS BYTEA) || CAST({text} AS BYTEA) > CAST('a' AS BYTEA)"),
        ),
        ("concat", format!("length(concat({text}, '-', {text}))")),
        ("concat_ws", format!("length(concat_ws('-', {text}, {text}))")),
        ("lists", format!("array_length(array_concat({list}, {list}))")),
        ("lists_operator", format!("array_length({list} || {list})")),
        ("list", format!("array_length(make_array({text}, {text}))")),
    ];
    let mut tables: Vec<(String, String)> = cases
        .iter()
        .map(|(name, expr)| {
            (
                name.to_string(),
                format!("SELECT k, {expr} AS v FROM rows WHERE n < 10"),
            )
        })
        .collect();
    // A null has no length, whatever its neighbours are.
    let nulls = format!("SELECT k, {text} || nullif(k, 'a') || {text} IS NULL AS v FROM rows WHERE n < 10");
    tables.push(("nulls".to_string(), nulls));
    let tables: Vec<(&str, &str)> = tables.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).collect();
    let folder = folder("together", &tables);
    folder.write("dataflow.toml", SMALL);
    let dataflow = ran(&folder);
    for (name, expr) in &cases {
        let rows = ask(&dataflow, &format!("SELECT k FROM silver.{name} ORDER BY k"));
        let told = letters(&dataflow, &format!("silver.{name}"));
        assert_eq!(rows, "b\nc", "{expr}: {told}");
        assert!(told.contains("max_value is 1 MiB"), "{expr}: {told}");
    }
    let told = letters(&dataflow, "silver.operator");
    assert!(
        told.starts_with("\"could not compute ||: the value may take 1.7 MiB"),
        "{told}"
    );
    let nulls = ask(&dataflow, "SELECT k, v FROM silver.nulls ORDER BY k");
    assert_eq!(nulls, "a,true\nb,false\nc,false");
}

#[test]
fn a_value_that_doubles_from_table_to_table_is_a_dead_letter_where_it_is_too_long() {
    // Thirty tables of `x || x` turned three bytes into gigabytes, and the process was killed.
    let mut tables = vec![("t00".to_string(), "SELECT k, k AS x FROM rows".to_string())];
    for n in 1..=30 {
        let sql = format!("SELECT k, x || x AS x FROM silver.t{:02}", n - 1);
        tables.push((format!("t{n:02}"), sql));
    }
    let tables: Vec<(&str, &str)> = tables.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).collect();
    let folder = folder("doubled", &tables);
    folder.write("dataflow.toml", SMALL);
    let dataflow = ran(&folder);
    let rows = |table: &str| {
        ask(
            &dataflow,
            &format!("SELECT k, length(x) FROM silver.{table} ORDER BY k"),
        )
    };
    assert_eq!(rows("t17"), "a,131072\nb,131072\nc,131072\nhuge,524288");
    assert_eq!(rows("t18"), "a,262144\nb,262144\nc,262144");
    assert_eq!(rows("t19"), "a,524288\nb,524288\nc,524288");
    assert_eq!(rows("t20"), "");
    assert_eq!(rows("t30"), "");
    assert_eq!(letters(&dataflow, "silver.t18").lines().count(), 1);
    assert_eq!(letters(&dataflow, "silver.t20").lines().count(), 3);
    assert_eq!(letters(&dataflow, "silver.t30"), "");
}

#[test]
fn a_group_whose_gathered_value_is_too_long_is_a_dead_letter_until_it_shrinks() {
    let gathered = [
        ("texts", "length(string_agg(text, ','))"),
        ("ordered", "length(string_agg(text, ',' ORDER BY id DESC))"),
        ("listed", "array_length(array_agg(text))"),
        ("distinct_texts", "array_length(array_agg(DISTINCT text || id))"),
        ("some", "length(string_agg(text, ',') FILTER (WHERE id < 10))"),
    ];
    let mut tables: Vec<(String, String)> = gathered
        .iter()
        .map(|(name, expr)| {
            let sql = format!("SELECT g, {expr} AS v, count(*) AS n, max(id) AS last FROM notes GROUP BY g");
            (name.to_string(), sql)
        })
        .collect();
    tables.push((
        "so_far".to_string(),
        "SELECT id, length(string_agg(text, ',') OVER (PARTITION BY g ORDER BY id ROWS UNBOUNDED PRECEDING)) AS v FROM notes"
            .to_string(),
    ));
    tables.push((
        "beside".to_string(),
        "SELECT id, array_length(array_agg(text) OVER (PARTITION BY g ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND \
         UNBOUNDED FOLLOWING)) AS v FROM notes"
            .to_string(),
    ));
    let tables: Vec<(&str, &str)> = tables.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).collect();
    let folder = folder("gathered", &tables);
    folder.write("dataflow.toml", SMALL);
    folder.write(
        "inputs/notes.toml",
        "key = [\"id\"]\norder_by = [\"version\"]\n[columns]\nid = \"BIGINT\"\nversion = \"BIGINT\"\ng = \"BIGINT\"\n\
         text = \"VARCHAR\"\n[[feeds]]\nname = \"drops\"\nkind = \"files\"\npath = \"notes/*.csv\"\nformat = \"csv\"\n",
    );
    let long = "x".repeat(400_000);
    let note = |id: u32, version: u32, g: u32, text: &str| format!("{id},{version},{g},{text}\n");
    let drop = |name: &str, notes: &[String]| {
        folder.write(
            &format!("notes/{name}.csv"),
            &format!("id,version,g,text\n{}", notes.concat()),
        );
    };
    let values = |dataflow: &_, table: &str| ask(dataflow, &format!("SELECT g, v FROM silver.{table} ORDER BY g"));
    let windows = |dataflow: &_, table: &str| ask(dataflow, &format!("SELECT id, v FROM silver.{table} ORDER BY id"));

    let first = [
        note(1, 1, 1, &long),
        note(2, 1, 1, &long),
        note(3, 1, 1, &long),
        note(4, 1, 2, &long),
    ];
    drop("a", &first);
    let dataflow = ran(&folder);
    for (table, _) in gathered {
        let expected = if table == "listed" || table == "distinct_texts" {
            "2,1"
        } else {
            "2,400000"
        };
        assert_eq!(values(&dataflow, table), expected, "{table}");
        let told = letters(&dataflow, &format!("silver.{table}"));
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(
            told.contains("_agg(): the value may take 1.1 MiB, and max_value is 1 MiB"),
            "{told}"
        );
    }
    assert_eq!(windows(&dataflow, "so_far"), "1,400000\n2,800001\n4,400000");
    assert_eq!(windows(&dataflow, "beside"), "4,1");
    assert_eq!(letters(&dataflow, "silver.beside").lines().count(), 3);

    drop("b", &[note(3, 2, 1, "short"), note(5, 1, 2, "brief")]);
    let dataflow = ran(&folder);
    assert_eq!(values(&dataflow, "texts"), "1,800007\n2,400006");
    assert_eq!(values(&dataflow, "ordered"), "1,800007\n2,400006");
    assert_eq!(values(&dataflow, "listed"), "1,3\n2,2");
    assert_eq!(values(&dataflow, "distinct_texts"), "1,3\n2,2");
    assert_eq!(
        windows(&dataflow, "so_far"),
        "1,400000\n2,800001\n3,800007\n4,400000\n5,400006"
    );
    assert_eq!(windows(&dataflow, "beside"), "1,3\n2,3\n3,3\n4,2\n5,2");
    assert_eq!(ask(&dataflow, "SELECT count(*) FROM dead_letters"), "0");

    drop("c", &[note(5, 2, 2, &long), note(6, 1, 2, &long)]);
    let dataflow = ran(&folder);
    assert_eq!(values(&dataflow, "texts"), "1,800007");
    assert_eq!(letters(&dataflow, "silver.texts").lines().count(), 1);
}

#[test]
fn a_constant_that_would_be_huge_does_not_stop_the_check_and_costs_nothing() {
    for sql in [
        "SELECT k, repeat('x', 10000000000) AS v FROM rows",
        "SELECT repeat('x', 10000000000) AS v",
        "SELECT k, lpad('x', 9223372036854775807) AS v FROM rows",
        "SELECT k FROM rows WHERE array_length(range(0, 9223372036854775807)) > 1",
        "SELECT k, array_length(array_repeat(1, 9223372036854775807)) AS v FROM rows",
        "SELECT k, DATE '9999-12-31' + INTERVAL '2000000000 months' AS v FROM rows",
        "SELECT k, round(1.5, 9223372036854775807) AS v FROM rows",
        "SELECT k, factorial(1000) AS v FROM rows",
        "SELECT k, gcd(-9223372036854775808, -9223372036854775808) AS v FROM rows",
    ] {
        let folder = folder("constant", &[("t", sql)]);
        let started = Instant::now();
        let checked = alluvium(&["check", "."], folder.path());
        // The statement may be refused as a mistake, and each row may be a dead letter, but the process must never
        // abort.
        assert!(
            matches!(checked.status.code(), Some(0 | 2)),
            "{sql}: {}",
            text(&checked)
        );
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{sql}: {:?}",
            started.elapsed()
        );
        assert!(!text(&checked).contains("panicked"), "{sql}: {}", text(&checked));
    }
}

/// Long SQL, as programs generate it.
fn generated() -> Vec<(&'static str, String)> {
    let joined = |count: usize, between: &str, one: &dyn Fn(usize) -> String| {
        (0..count).map(one).collect::<Vec<_>>().join(between)
    };
    let conditions = |between: &str| joined(10_000, between, &|n| format!("(k <> 'v{n}' AND n <> {})", n + 100));
    vec![
        (
            "conditions",
            format!("SELECT k FROM rows WHERE {}", conditions(" AND ")),
        ),
        (
            "alternatives",
            format!(
                "SELECT k FROM rows WHERE {}",
                joined(10_000, " OR ", &|n| format!("k = 'v{n}' OR n = {n}"))
            ),
        ),
        ("nested", {
            let inner = joined(400, "", &|n| format!(" OR n = {n})"));
            format!("SELECT k FROM rows WHERE {}n = -7{inner}", "(".repeat(400))
        }),
        (
            "sum",
            format!(
                "SELECT k, {} AS s FROM rows",
                joined(20_000, " + ", &|_| "1".to_string())
            ),
        ),
        (
            "columns",
            format!(
                "SELECT k, {} AS s FROM rows",
                joined(2000, " + ", &|n| format!("n % {}", n + 2))
            ),
        ),
        (
            "texts",
            format!(
                "SELECT k, {} AS s FROM rows",
                joined(2000, " || ", &|_| "k".to_string())
            ),
        ),
        (
            "unions",
            joined(3000, " UNION ALL ", &|n| format!("SELECT k, {n} AS v FROM rows")),
        ),
        (
            "listed",
            format!(
                "SELECT k FROM rows WHERE n IN ({})",
                joined(10_000, ", ", &|n| n.to_string())
            ),
        ),
        (
            "cases",
            format!(
                "SELECT k, CASE {} ELSE 0 END AS c FROM rows",
                joined(2000, " ", &|n| format!("WHEN n = {n} THEN {n}"))
            ),
        ),
    ]
}

#[test]
fn generated_sql_is_checked_in_seconds_and_runs() {
    // The stack overflowed: 10,000 conditions, 20,000 summands or 3,000 UNION ALLs make a tree of that depth.
    let mut slow = String::new();
    for (name, sql) in generated() {
        let folder = folder("generated", &[(name, &sql)]);
        let started = Instant::now();
        let checked = alluvium(&["check", "."], folder.path());
        exits(&checked, 0);
        if started.elapsed() > Duration::from_secs(30) {
            let _ = writeln!(slow, "{name}: {:?}", started.elapsed());
        }
    }
    assert_eq!(slow, "", "these are not checked in seconds");
}

#[test]
fn generated_sql_is_kept_up_to_date_explained_queried_and_verified() {
    let long: Vec<(&str, String)> = generated()
        .into_iter()
        .filter(|(name, _)| ["conditions", "sum", "nested", "texts"].contains(name))
        .collect();
    let tables: Vec<(&str, &str)> = long.iter().map(|(name, sql)| (*name, sql.as_str())).collect();
    let folder = folder("long", &tables);
    let dataflow = ran(&folder);
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.conditions"), "4");
    assert_eq!(ask(&dataflow, "SELECT DISTINCT s FROM silver.sum"), "20000");
    assert_eq!(ask(&dataflow, "SELECT k FROM silver.nested"), "a\nb");
    let asked = format!(
        "SELECT COUNT(*) AS n FROM silver.sum WHERE {}",
        vec!["s > 1"; 10_000].join(" AND ")
    );
    assert_eq!(ask(&dataflow, &asked), "4");
    let lake = folder.lake("lake").display().to_string();
    exits(&alluvium(&["explain", "."], folder.path()), 0);
    exits(&alluvium(&["verify", ".", "--lake", &lake], folder.path()), 0);
}

#[test]
fn sql_that_is_too_deep_is_refused_by_its_limit() {
    let deep = |operation: &str| format!("SELECT k, n{} AS v FROM rows", operation.repeat(5000));
    for (sql, told) in [
        (deep(" / 2"), "nested or chained more than 1000 deep"),
        (deep(" % 7"), "nested or chained more than 1000 deep"),
        (deep("::BIGINT"), "nested or chained more than 1000 deep"),
        (
            format!("SELECT k, {}n{} AS v FROM rows", "(".repeat(9000), ")".repeat(9000)),
            "nested so deep",
        ),
        (
            vec!["SELECT k FROM rows"; 3000].join(" EXCEPT "),
            "more than 1000 EXCEPTs",
        ),
        (
            format!("SELECT k, {} AS v FROM rows", vec!["n"; 600_000].join(" + ")),
            "more than 1000000 words and signs",
        ),
        (
            format!(
                "WITH e0 AS (SELECT k FROM rows), {} SELECT k FROM e30",
                (1..=30)
                    .map(|n| format!("e{n} AS (SELECT k FROM e{0} UNION SELECT k FROM e{0})", n - 1))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "once its WITH queries stand where they are named",
        ),
    ] {
        let folder = folder("deep", &[("t", &sql)]);
        let checked = alluvium(&["check", "."], folder.path());
        exits(&checked, 2);
        assert!(
            text(&checked).contains(told),
            "{}",
            text(&checked).chars().take(600).collect::<String>()
        );
        assert!(text(&checked).contains("help: "), "{told}");
    }
}

/// A dataflow that has run, with its lake at `lake` in its folder.
fn asked() -> Folder {
    let folder = folder("asked", &[("t", "SELECT k, n, x, d, at FROM rows")]);
    exits(&alluvium(&["run", ".", "--until-caught-up"], folder.path()), 0);
    folder
}

fn query(folder: &Path, sql: &str, more: &[&str]) -> std::process::Output {
    let mut arguments = vec!["query", ".", sql];
    arguments.extend(more);
    alluvium(&arguments, folder)
}

#[test]
fn query_only_reads() {
    // INSERT and INSERT OVERWRITE changed tables, COPY wrote a file, and CREATE EXTERNAL TABLE read one.
    let folder = asked();
    let count = || {
        text(&query(
            folder.path(),
            "SELECT COUNT(*) AS n FROM silver.t",
            &["--format", "csv"],
        ))
    };
    assert_eq!(count(), "n\n4\n");
    let out = folder.path().join("out.csv");
    for (sql, verb) in [
        ("INSERT INTO silver.t SELECT * FROM silver.t", "INSERT"),
        ("INSERT OVERWRITE silver.t SELECT * FROM silver.t LIMIT 1", "INSERT"),
        (
            "WITH a AS (SELECT * FROM silver.t) INSERT INTO silver.t SELECT * FROM a",
            "INSERT",
        ),
        ("EXPLAIN ANALYZE INSERT INTO silver.t SELECT * FROM silver.t", "INSERT"),
        ("UPDATE silver.t SET n = 1", "UPDATE"),
        ("DELETE FROM silver.t", "DELETE"),
        ("COPY silver.t TO 'out.csv'", "COPY"),
        ("COPY (SELECT 1) TO 'out.csv' STORED AS CSV", "COPY"),
        (
            "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION 'drops/a.csv'",
            "CREATE EXTERNAL TABLE",
        ),
        ("CREATE TABLE p AS SELECT 1", "CREATE"),
        ("CREATE VIEW p AS SELECT 1", "CREATE"),
        ("DROP TABLE silver.t", "DROP"),
        ("SET datafusion.execution.batch_size = 1", "SET"),
        ("SELECT 1 AS x INTO p", "SELECT INTO"),
    ] {
        let refused = query(folder.path(), sql, &[]);
        exits(&refused, 2);
        let told = text(&refused);
        assert!(
            told.contains(&format!("could not run {verb}: a query only reads")),
            "{sql}: {told}"
        );
        assert!(told.contains("help: write one SELECT"), "{sql}: {told}");
    }
    exits(&query(folder.path(), "SELECT 1; SELECT 2", &[]), 2);
    exits(&query(folder.path(), "-- nothing", &[]), 2);
    for path in [
        "'drops/a.csv'",
        "'/etc/passwd'",
        "\"drops/a.csv\"",
        "'file:///etc/passwd'",
        "read_csv('drops/a.csv')",
    ] {
        let refused = query(folder.path(), &format!("SELECT * FROM {path}"), &[]);
        exits(&refused, 1);
    }
    assert_eq!(count(), "n\n4\n");
    assert!(!out.exists());
    for sql in [
        "EXPLAIN SELECT * FROM silver.t",
        "SHOW TABLES",
        "DESCRIBE silver.t",
        "VALUES (1), (2)",
    ] {
        exits(&query(folder.path(), sql, &[]), 0);
    }
}

#[test]
fn a_query_ends_when_its_time_or_memory_is_over() {
    let folder = asked();
    let started = Instant::now();
    let endless = "SELECT COUNT(*) FROM range(100000000000) WHERE value % 7 = 9";
    let ended = query(folder.path(), endless, &["--timeout", "2s"]);
    exits(&ended, 1);
    assert!(text(&ended).contains("within 2s"), "{}", text(&ended));
    assert!(text(&ended).contains("--timeout"), "{}", text(&ended));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    // The answer itself is bounded, and so is the memory of its computation.
    for sql in [
        "SELECT * FROM range(100000000000)",
        "SELECT value FROM range(100000000000) ORDER BY value % 1000003, value",
        "SELECT value, COUNT(*) FROM range(100000000000) GROUP BY value",
    ] {
        let ended = query(folder.path(), sql, &["--memory", "64 MiB", "--timeout", "60s"]);
        exits(&ended, 1);
        assert!(text(&ended).contains("--memory"), "{sql}: {}", text(&ended));
    }
    let huge = query(folder.path(), "SELECT repeat('x', 10000000000) AS v", &[]);
    exits(&huge, 1);
    assert!(text(&huge).contains("max_value is 64 MiB"), "{}", text(&huge));
}

#[test]
fn years_1_to_9999_can_be_asked_for() {
    // A TIMESTAMP in a query's conditions had nanoseconds, whose range ends in the year 2262.
    let folder = asked();
    for (condition, want) in [
        ("at = TIMESTAMP '9999-12-31 23:59:59.999999'", "c"),
        ("at < TIMESTAMP '0002-01-01 00:00:00'", "b"),
        ("at > TIMESTAMP '9998-12-31 00:00:00'", "c"),
        (
            "at IN (TIMESTAMP '9999-12-31 23:59:59.999999', TIMESTAMP '0001-01-01 00:00:00')",
            "b\nc",
        ),
        (
            "at BETWEEN TIMESTAMP '0001-01-01 00:00:00' AND TIMESTAMP '1500-01-01 00:00:00'",
            "b",
        ),
        ("at = CAST('9999-12-31T23:59:59.999999' AS TIMESTAMP)", "c"),
        ("at >= '9999-12-31'", "c"),
        ("CAST(d AS TIMESTAMP) = TIMESTAMP '9999-12-31 00:00:00'", "c"),
        ("CAST(d AS TIMESTAMP) + INTERVAL '1 hour' < at", "a\nc"),
        ("d = DATE '9999-12-31'", "c"),
        ("d + INTERVAL '1 day' > DATE '9999-12-31'", "c"),
        ("d - INTERVAL '1 day' < DATE '0001-01-01'", "b"),
        ("at < now() AND at > TIMESTAMP '0001-01-01 00:00:00'", "a\nhuge"),
        ("extract(year FROM at) = 9999", "c"),
        ("now() >= current_date AND current_time IS NOT NULL AND k = 'a'", "a"),
    ] {
        let sql = format!("SELECT k FROM silver.t WHERE {condition} ORDER BY k");
        let answer = query(folder.path(), &sql, &["--format", "csv"]);
        assert_eq!(text(&answer), format!("k\n{want}\n"), "{condition}");
    }
    // A condition that turned out to be NULL was pushed into the scan, which kept every row.
    let sql = "WITH q AS (SELECT 'x' AS c FROM silver.t WHERE FALSE) \
               SELECT count(*) AS n FROM q RIGHT JOIN silver.t AS d ON q.c = d.k WHERE d.k < q.c";
    let answer = query(folder.path(), sql, &["--format", "csv"]);
    assert_eq!(text(&answer), "n\n0\n");
}

/// Timestamps outside the years 1677 to 2262 made errors of their rows, wherever a function or a coercion used
/// nanoseconds.
#[test]
fn functions_of_time_are_right_in_every_year_of_the_calendar() {
    let moments = [
        "0001-01-01T00:00:00",
        "1600-02-29T13:14:15.123456",
        "2263-01-01T00:00:00.000001",
        "9999-12-31T23:59:59.999999",
    ];
    // Each expression, with its value for each of the timestamps.
    let functions: [(&str, [&str; 4]); 26] = [
        (
            "DATE_TRUNC('millennium', t)",
            [
                "0001-01-01T00:00:00",
                "1001-01-01T00:00:00",
                "2001-01-01T00:00:00",
                "9001-01-01T00:00:00",
            ],
        ),
        (
            "DATE_TRUNC('quarter', t)",
            [
                "0001-01-01T00:00:00",
                "1600-01-01T00:00:00",
                "2263-01-01T00:00:00",
                "9999-10-01T00:00:00",
            ],
        ),
        (
            "DATE_TRUNC('week', t)",
            [
                "0001-01-01T00:00:00",
                "1600-02-28T00:00:00",
                "2262-12-29T00:00:00",
                "9999-12-27T00:00:00",
            ],
        ),
        (
            "DATE_TRUNC('hour', t)",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:00:00",
                "2263-01-01T00:00:00",
                "9999-12-31T23:00:00",
            ],
        ),
        (
            "DATE_TRUNC('month', d)",
            [
                "0001-01-01T00:00:00",
                "1600-02-01T00:00:00",
                "2263-01-01T00:00:00",
                "9999-12-01T00:00:00",
            ],
        ),
        (
            "DATE_BIN(INTERVAL '15 minutes', t)",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:00:00",
                "2263-01-01T00:00:00",
                "9999-12-31T23:45:00",
            ],
        ),
        (
            "DATE_BIN(INTERVAL '1 year', t, TIMESTAMP '0001-01-01 00:00:00')",
            [
                "0001-01-01T00:00:00",
                "1600-01-01T00:00:00",
                "2263-01-01T00:00:00",
                "9999-01-01T00:00:00",
            ],
        ),
        ("EXTRACT(YEAR FROM t)", ["1", "1600", "2263", "9999"]),
        ("EXTRACT(DOY FROM d)", ["1", "60", "1", "365"]),
        ("EXTRACT(WEEK FROM t)", ["1", "9", "1", "52"]),
        (
            "CAST(EXTRACT(EPOCH FROM DATE_TRUNC('second', t)) AS BIGINT)",
            ["-62135596800", "-11670950745", "9246182400", "253402300799"],
        ),
        (
            "TO_TIMESTAMP(CAST(EXTRACT(EPOCH FROM DATE_TRUNC('second', t)) AS BIGINT))",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:14:15",
                "2263-01-01T00:00:00",
                "9999-12-31T23:59:59",
            ],
        ),
        (
            "TO_TIMESTAMP(CAST(t AS VARCHAR))",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:14:15.123456",
                "2263-01-01T00:00:00.000001",
                "9999-12-31T23:59:59.999999",
            ],
        ),
        (
            "TO_TIMESTAMP_MILLIS(CAST(t AS VARCHAR))",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:14:15.123",
                "2263-01-01T00:00:00",
                "9999-12-31T23:59:59.999",
            ],
        ),
        (
            "TO_TIMESTAMP(CAST(d AS VARCHAR), '%Y-%m-%d')",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T00:00:00",
                "2263-01-01T00:00:00",
                "9999-12-31T00:00:00",
            ],
        ),
        (
            "TO_CHAR(t, '%d.%m.%Y %H:%M')",
            [
                "01.01.0001 00:00",
                "29.02.1600 13:14",
                "01.01.2263 00:00",
                "31.12.9999 23:59",
            ],
        ),
        (
            "TO_UNIXTIME(DATE_TRUNC('second', t))",
            ["-62135596800", "-11670950745", "9246182400", "253402300799"],
        ),
        (
            "COALESCE(t, d)",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:14:15.123456",
                "2263-01-01T00:00:00.000001",
                "9999-12-31T23:59:59.999999",
            ],
        ),
        (
            "GREATEST(t, DATE '0001-01-01')",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:14:15.123456",
                "2263-01-01T00:00:00.000001",
                "9999-12-31T23:59:59.999999",
            ],
        ),
        (
            "CASE WHEN t > d THEN t ELSE d END",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:14:15.123456",
                "2263-01-01T00:00:00.000001",
                "9999-12-31T23:59:59.999999",
            ],
        ),
        (
            "NULLIF(t, DATE '2000-01-01')",
            [
                "0001-01-01T00:00:00",
                "1600-02-29T13:14:15.123456",
                "2263-01-01T00:00:00.000001",
                "9999-12-31T23:59:59.999999",
            ],
        ),
        (
            "CAST(t - TIMESTAMP '2000-01-01 00:00:00' < INTERVAL '0 days' AS INT)",
            ["1", "1", "0", "0"],
        ),
        // 30 hours counted as less than a day, in any year.
        (
            "CAST(t + INTERVAL '30 hours' - t > INTERVAL '1 day' AS INT)",
            ["1", "1", "1", "1"],
        ),
        (
            "CAST(t - d BETWEEN INTERVAL '1 hour' AND INTERVAL '1 day' AS INT)",
            ["0", "1", "0", "1"],
        ),
        ("EXTRACT(YEAR FROM t AT TIME ZONE 'UTC')", ["1", "1600", "2263", "9999"]),
        (
            "DATE_TRUNC('month', t AT TIME ZONE 'UTC') = DATE_TRUNC('month', t)",
            ["true", "true", "true", "true"],
        ),
    ];
    let input = "[columns]\nid = \"INT\"\nt = \"TIMESTAMP\"\nd = \"DATE\"\n[[feeds]]\nname = \"f\"\nkind = \"files\"\npath = \"data/*.csv\"\nformat = \"csv\"\n";
    let folder = Folder::new("calendar", &[("inputs/m.toml", input)]);
    let rows = moments
        .iter()
        .enumerate()
        .map(|(n, t)| format!("{n},{t},{}\n", &t[..10]));
    folder.write("data/a.csv", &format!("id,t,d\n{}", rows.collect::<String>()));
    for (n, (function, _)) in functions.iter().enumerate() {
        folder.write(
            &format!("silver/f{n}.sql"),
            &format!("SELECT id, {function} AS v FROM m"),
        );
    }
    folder.write("silver/m.sql", "SELECT * FROM m");
    folder.write("silver/all_days.sql", "SELECT t AS v FROM m UNION SELECT d FROM m");
    folder.write("silver/joined.sql", "SELECT a.id FROM m a JOIN m b ON a.t = b.d");
    let dataflow = folder.load("../lake");
    catch_up(&dataflow, 2);
    assert_newest_is_exact(&dataflow, "after the run");
    let mut wrong = Vec::new();
    for (n, (function, expected)) in functions.iter().enumerate() {
        for (place, from) in [
            ("in a table", format!("SELECT v FROM silver.f{n} ORDER BY id")),
            ("asked", format!("SELECT {function} AS v FROM silver.m ORDER BY id")),
        ] {
            let answer = query(folder.path(), &from, &["--format", "csv"]);
            let answer = text(&answer);
            let found: Vec<&str> = answer.lines().skip(1).collect();
            if found != expected.as_slice() {
                wrong.push(format!("{function} {place}: {answer}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n{}",
        wrong.join("\n"),
        ask(&dataflow, "SELECT reason FROM dead_letters")
    );
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.all_days"), "7");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.joined"), "1");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM dead_letters"), "0");
}

/// Casts and literals accepted the year 0, which PostgreSQL does not have.
#[test]
fn the_year_0_is_no_date_in_a_cast_or_a_literal() {
    let year = "CASE k WHEN 'a' THEN '0000-12-31' ELSE '0001-01-01' END";
    let sqls = [
        "CAST(# AS DATE)",
        "CAST(# AS TIMESTAMP)",
        "TO_DATE(#)",
        "TO_TIMESTAMP(#)",
    ];
    let sqls = sqls.map(|sql| format!("SELECT k, {} AS v FROM rows", sql.replace('#', year)));
    let tables: Vec<(&str, &str)> = ["day", "point", "read_day", "read_point"]
        .into_iter()
        .zip(sqls.iter().map(String::as_str))
        .collect();
    let folder = folder("year_0", &tables);
    let dataflow = ran(&folder);
    for (table, _) in &tables {
        assert_eq!(
            ask(&dataflow, &format!("SELECT COUNT(*) FROM silver.{table}")),
            "3",
            "{table}"
        );
        let letters = letters(&dataflow, &format!("silver.{table}"));
        assert_eq!(
            letters.matches("of the years 1 to 9999").count(),
            1,
            "{table}: {letters}"
        );
    }
    folder.write(
        "silver/literal.sql",
        "SELECT k FROM rows WHERE d > DATE '0000-06-01' OR at > CAST('0000-06-01' AS TIMESTAMP)",
    );
    let check = alluvium(&["check", "."], folder.path());
    exits(&check, 2);
    let told = text(&check);
    assert_eq!(told.matches("there is no year 0").count(), 2, "{told}");
}

/// The series was a list of nulls, or null.
#[test]
fn a_series_of_moments_that_cannot_be_counted_is_a_dead_letter() {
    let series = "SELECT k, CARDINALITY(RANGE(at, at + INTERVAL '3 days', INTERVAL '1 day')) AS n FROM rows";
    let folder = folder("series", &[("t", series)]);
    let dataflow = ran(&folder);
    assert_eq!(ask(&dataflow, "SELECT k, n FROM silver.t ORDER BY k"), "a,3\nhuge,3");
    let letters = letters(&dataflow, "silver.t");
    assert_eq!(letters.matches("of the years 1678 to 2261").count(), 2, "{letters}");
}

/// A day after the end of the calendar, and the end of its last window, became rows that Python cannot read.
#[test]
fn moments_that_leave_the_calendar_are_dead_letters() {
    let folder = Folder::new(
        "calendar",
        &[
            (
                "inputs/rows.toml",
                "[columns]\nn = \"BIGINT\"\nat = \"TIMESTAMP\"\n[[feeds]]\nname = \"f\"\nkind = \"files\"\nformat = \"csv\"\npath = \"rows.csv\"\n",
            ),
            (
                "rows.csv",
                "n,at\n1,0001-01-01T00:30:00\n2,1500-01-01T00:30:00\n3,2999-12-31T10:00:00\n4,9999-12-31T22:10:00\n5,9999-12-31T23:59:59\n",
            ),
            (
                "silver/w.sql",
                "SELECT window_start, window_end, COUNT(*) AS n FROM TUMBLE(TABLE rows, DESCRIPTOR(at), INTERVAL '1 hour') GROUP BY window_start, window_end",
            ),
            (
                "silver/bins.sql",
                "SELECT n, date_bin(INTERVAL '1 day', at) AS day FROM rows",
            ),
            (
                "silver/next.sql",
                "SELECT n, CAST(at AS DATE) + INTERVAL '1 day' AS day FROM rows",
            ),
        ],
    );
    let dataflow = ran(&folder);
    let start = |table: &str, column: &str| format!("SELECT CAST({column} AS VARCHAR) FROM silver.{table} ORDER BY 1");
    let starts = ask(&dataflow, &start("w", "window_start"));
    assert_eq!(
        starts.replace('T', " "),
        "0001-01-01 00:00:00\n1500-01-01 00:00:00\n2999-12-31 10:00:00\n9999-12-31 22:00:00"
    );
    assert_eq!(
        ask(&dataflow, "SELECT COUNT(*), COUNT(DISTINCT day) FROM silver.bins"),
        "5,4"
    );
    assert_eq!(ask(&dataflow, "SELECT n FROM silver.next ORDER BY n"), "1\n2\n3");
    assert_newest_is_exact(&dataflow, "far moments");
    let letters = ask(
        &dataflow,
        "SELECT table_name, COUNT(*) FROM dead_letters WHERE reason LIKE '%years 1 to 9999%' GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(letters, "silver.next,2\nsilver.w,1");
}

#[test]
fn a_table_can_be_made_of_years_1_to_9999() {
    let folder = folder(
        "years",
        &[
            (
                "until",
                "SELECT k FROM rows WHERE at <= TIMESTAMP '9999-12-31 23:59:59.999999'",
            ),
            (
                "days",
                "SELECT k, CAST(d AS TIMESTAMP) AS t, d + INTERVAL '1 day' AS next FROM rows",
            ),
            (
                "ever",
                "SELECT k, COALESCE(at, TIMESTAMP '9999-12-31 00:00:00') AS t FROM rows WHERE d < DATE '9999-12-31'",
            ),
        ],
    );
    let dataflow = ran(&folder);
    // The day after the last one is outside the calendar.
    let letters = ask(&dataflow, "SELECT table_name, reason FROM dead_letters");
    assert!(
        letters.starts_with("silver.days,") && letters.contains("next is of the years 1 to 9999"),
        "{letters}"
    );
    assert_eq!(letters.lines().count(), 1, "{letters}");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.until"), "4");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.days"), "3");
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.ever"), "3");
}

/// A row that failed below a chain of n UNIONs of a table with itself became 2^n dead letters.
#[test]
fn a_bad_row_below_a_chain_of_unions_is_one_letter() {
    let chain = (1..6).fold("SELECT k, 10 / n AS share FROM rows".to_string(), |below, n| {
        format!("WITH e{n} AS ({below}) SELECT * FROM e{n} UNION SELECT * FROM e{n}")
    });
    let folder = folder("unions", &[("chain", &chain)]);
    let dataflow = ran(&folder);
    assert_eq!(letters(&dataflow, "silver.chain").lines().count(), 1);
    assert_eq!(ask(&dataflow, "SELECT COUNT(*) FROM silver.chain"), "3");
    // Another row that fails in the same way has a letter of its own.
    folder.write("drops/b.csv", "k,n,x,d,at\nb2,0,1.00,2024-01-01,2024-01-01T00:00:00\n");
    catch_up(&dataflow, 2);
    assert_eq!(letters(&dataflow, "silver.chain").lines().count(), 2);
    assert_newest_is_exact(&dataflow, "after another bad row");
}

/// `verify` failed for every table of the dataflow with DataFusion's error, which did not name a table.
#[test]
fn a_table_whose_sql_fails_in_batch_is_named_and_the_others_are_verified() {
    let folder = folder(
        "failing",
        &[
            (
                "joined",
                "SELECT a.k, b.n FROM rows a JOIN rows b ON CAST(a.k AS BIGINT) = b.n",
            ),
            ("plain", "SELECT k, n FROM rows"),
        ],
    );
    folder.write("gold/read.sql", "SELECT COUNT(*) AS n FROM silver.joined");
    folder.write("drops/b.csv", "k,n,x,d,at\n3,3,1.00,2024-01-01,2024-01-01T00:00:00\n");
    let dataflow = folder.load("lake");
    catch_up(&dataflow, 1);
    let verify = |more: &[&str]| {
        alluvium(
            &[&["verify", ".", "--lake", "lakes/lake"], more].concat(),
            folder.path(),
        )
    };
    let whole = verify(&[]);
    exits(&whole, 1);
    let said = text(&whole);
    for line in [
        "silver.joined: not verified: its SQL failed in batch: ",
        "silver.plain: 5 rows, equal",
        "gold.read: 1 rows, equal",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    exits(&verify(&["--table", "silver.plain"]), 0);
}
