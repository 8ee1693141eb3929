//! The parts of the oracle's dataflows: three inputs, a table for each operator, and random settings.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::sql::{Kind, Relation};
use crate::support::Folder;

pub const EVENTS: &str = r#"
[columns]
id = { type = "BIGINT", nullable = false }
k = "INT"
v = "BIGINT"
x = "DOUBLE"
d = "DECIMAL(12,2)"
s = "VARCHAR"
ts = "TIMESTAMP"
flag = "BOOLEAN"
tags = "VARCHAR[]"
[[feeds]]
name = "live"
kind = "log"
path = "live/events"
format = "json"
"#;

pub const FACTS: &str = r#"
key = ["id"]
order_by = ["ver"]
[columns]
id = { type = "BIGINT", nullable = false }
k = "INT"
v = "BIGINT"
s = "VARCHAR"
ver = { type = "BIGINT", nullable = false }
[[feeds]]
name = "one"
kind = "log"
path = "live/facts_one"
format = "debezium-json"
[[feeds]]
name = "two"
kind = "log"
path = "live/facts_two"
format = "debezium-json"
"#;

pub const DIMS: &str = r#"
key = ["k"]
[columns]
k = { type = "INT", nullable = false }
name = "VARCHAR"
weight = "BIGINT"
[[feeds]]
name = "live"
kind = "log"
path = "live/dims"
format = "debezium-json"
"#;

/// A table for each operator and its special cases; `{a}` and `{b}` become small random numbers.
const OPERATORS: &[(&str, &str)] = &[
    (
        "filter",
        "SELECT id, k, v + {a} AS v, UPPER(s) AS s FROM events WHERE v > {b} OR s LIKE 'a%'",
    ),
    (
        "case_cast",
        "SELECT id, CASE WHEN v > {a} THEN 'high' WHEN v IS NULL THEN 'none' ELSE 'low' END AS level, CAST(d AS BIGINT) AS whole, CAST(v AS VARCHAR) AS text FROM events",
    ),
    ("can_fail", "SELECT id, {a} / v AS ratio FROM events"),
    (
        "inner_join",
        "SELECT f.id, f.v, m.name FROM facts f JOIN dims m ON f.k = m.k",
    ),
    (
        "residual_join",
        "SELECT f.id, f.v, m.weight FROM facts f JOIN dims m ON f.k = m.k AND f.v > m.weight",
    ),
    (
        "left_join",
        "SELECT f.id, m.name FROM facts f LEFT JOIN dims m ON f.k = m.k",
    ),
    (
        "left_join_residual",
        "SELECT f.id, f.v, m.weight FROM facts f LEFT JOIN dims m ON f.k = m.k AND f.v > m.weight",
    ),
    (
        "right_join",
        "SELECT f.id, m.k, m.name FROM facts f RIGHT JOIN dims m ON f.k = m.k",
    ),
    (
        "full_join",
        "SELECT f.id, f.k AS fk, m.k AS mk FROM facts f FULL JOIN dims m ON f.k = m.k",
    ),
    (
        "full_join_residual",
        "SELECT f.id, f.v, m.weight FROM facts f FULL JOIN dims m ON f.k = m.k AND f.v > m.weight",
    ),
    (
        "self_join",
        "SELECT a.id AS one, b.id AS two FROM facts a JOIN facts b ON a.k = b.k AND a.id < b.id",
    ),
    (
        "three_joins",
        "SELECT e.id, f.v, m.name FROM events e JOIN facts f ON e.id = f.id JOIN dims m ON m.k = f.k WHERE e.v IS NOT NULL",
    ),
    (
        "cross_join",
        "SELECT a.k AS one, b.k AS two FROM dims a CROSS JOIN dims b WHERE a.weight > b.weight",
    ),
    (
        "semi",
        "SELECT id, k FROM facts WHERE k IN (SELECT k FROM dims WHERE weight > {a})",
    ),
    (
        "anti",
        "SELECT id, k FROM facts f WHERE NOT EXISTS (SELECT 1 FROM dims m WHERE m.k = f.k)",
    ),
    (
        "not_in",
        "SELECT id FROM facts WHERE k NOT IN (SELECT k FROM dims WHERE weight > {a})",
    ),
    (
        "scalar_subquery",
        "SELECT id, v FROM facts WHERE v > (SELECT AVG(weight) FROM dims)",
    ),
    (
        "correlated",
        "SELECT m.k, (SELECT SUM(f.v) FROM facts f WHERE f.k = m.k) AS total FROM dims m",
    ),
    (
        "sums",
        "SELECT k, COUNT(*) AS n, COUNT(v) AS nv, SUM(v) AS sv, SUM(d) AS sd, SUM(x) AS sx, AVG(v) AS av, AVG(d) AS ad, AVG(x) AS ax FROM events GROUP BY k",
    ),
    (
        "spreads",
        "SELECT k, VAR_SAMP(x) AS vs, VAR_POP(v) AS vp, STDDEV(x) AS ss, STDDEV_POP(v) AS sp FROM events GROUP BY k",
    ),
    (
        "bools",
        "SELECT k, BOOL_AND(flag) AS every, BOOL_OR(flag) AS any_one FROM events GROUP BY k",
    ),
    (
        "extremes",
        "SELECT k, MIN(v) AS lo, MAX(v) AS hi, MIN(s) AS first_s, MAX(ts) AS last_ts, MIN(x) AS lx, MAX(d) AS hd FROM events GROUP BY k",
    ),
    (
        "filtered",
        "SELECT k, COUNT(*) FILTER (WHERE v > {a}) AS above, SUM(v) FILTER (WHERE flag) AS flagged, MAX(v) FILTER (WHERE v < {b}) AS below FROM events GROUP BY k",
    ),
    (
        "distincts",
        "SELECT k, COUNT(DISTINCT v) AS dv, SUM(DISTINCT v) AS sdv, COUNT(DISTINCT s) AS ds FROM events GROUP BY k",
    ),
    (
        "orders",
        "SELECT k, MEDIAN(v) AS med, percentile_cont(0.9) WITHIN GROUP (ORDER BY x) AS p90, ARRAY_AGG(v ORDER BY v) AS vs FROM events WHERE x IS NOT NULL AND v IS NOT NULL GROUP BY k",
    ),
    (
        "having",
        "SELECT k, SUM(v) AS sv FROM facts GROUP BY k HAVING COUNT(*) > 1 AND SUM(v) > {a}",
    ),
    (
        "global",
        "SELECT COUNT(*) AS n, SUM(v) AS sv, MIN(v) AS lo, COUNT(DISTINCT k) AS ks FROM facts",
    ),
    (
        "grouping_sets",
        "SELECT k, s, COUNT(*) AS n FROM events GROUP BY GROUPING SETS ((k, s), (k), ())",
    ),
    (
        "rollup",
        "SELECT k, flag, SUM(v) AS sv FROM events GROUP BY ROLLUP (k, flag)",
    ),
    ("distinct", "SELECT DISTINCT k, s FROM facts"),
    (
        "union_all",
        "SELECT k, v FROM facts UNION ALL SELECT k, weight FROM dims",
    ),
    ("union_distinct", "SELECT k FROM facts UNION SELECT k FROM dims"),
    ("intersect", "SELECT k FROM facts INTERSECT SELECT k FROM dims"),
    ("except", "SELECT k FROM facts EXCEPT SELECT k FROM dims"),
    (
        "cte",
        "WITH big AS (SELECT * FROM facts WHERE v > {a}) SELECT b.k, COUNT(*) AS n FROM big b JOIN dims m ON b.k = m.k GROUP BY b.k",
    ),
    (
        "top",
        "SELECT id, v FROM facts WHERE v IS NOT NULL ORDER BY v DESC, id LIMIT 5",
    ),
    (
        "top_offset",
        "SELECT id, v FROM facts ORDER BY v DESC NULLS LAST, id LIMIT 4 OFFSET 2",
    ),
    (
        "row_number",
        "SELECT k, id, v FROM (SELECT k, id, v, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC, id) AS rn FROM facts) WHERE rn <= 2",
    ),
    (
        "rank",
        "SELECT k, id, r FROM (SELECT k, id, RANK() OVER (PARTITION BY k ORDER BY v) AS r FROM facts) WHERE r <= 2",
    ),
    (
        "dense_rank",
        "SELECT k, id, r FROM (SELECT k, id, DENSE_RANK() OVER (PARTITION BY k ORDER BY v) AS r FROM facts) WHERE r <= 2",
    ),
    (
        "running",
        "SELECT id, k, SUM(v) OVER (PARTITION BY k ORDER BY id) AS so_far, LAG(v) OVER (PARTITION BY k ORDER BY id) AS previous FROM facts",
    ),
    ("unnested", "SELECT id, UNNEST(tags) AS tag FROM events"),
    (
        "tumble",
        "SELECT k, window_start, window_end, COUNT(*) AS n, SUM(v) AS sv FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY k, window_start, window_end",
    ),
    (
        "hop",
        "SELECT window_start, COUNT(*) AS n FROM TABLE(HOP(TABLE events, DESCRIPTOR(ts), INTERVAL '30' SECOND, INTERVAL '2' MINUTE)) GROUP BY window_start",
    ),
    (
        "session",
        "SELECT k, window_start, window_end, COUNT(*) AS n FROM TABLE(SESSION(TABLE events PARTITION BY k, DESCRIPTOR(ts), INTERVAL '20' SECOND)) GROUP BY k, window_start, window_end",
    ),
    (
        "over_tables",
        "SELECT t.k, t.n, m.name FROM silver.facts_by_k t LEFT JOIN dims m ON m.k = t.k",
    ),
    (
        "json",
        "SELECT id, json_get_int('{\"a\": ' || CAST(v AS VARCHAR) || '}', 'a') AS a FROM events WHERE v IS NOT NULL",
    ),
];

/// The inputs as relations for random SQL.
pub fn relations() -> Vec<Relation> {
    let relation = |name: &str, rows: usize, columns: &[(&str, Kind)]| Relation {
        name: name.to_string(),
        columns: columns.iter().map(|(name, kind)| (name.to_string(), *kind)).collect(),
        rows,
    };
    vec![
        relation(
            "$events",
            400,
            &[
                ("id", Kind::Int),
                ("k", Kind::Int),
                ("v", Kind::Int),
                ("x", Kind::Eighths),
                ("d", Kind::Decimal),
                ("s", Kind::Text),
                ("ts", Kind::Time),
                ("flag", Kind::Bool),
                ("tags", Kind::Words),
            ],
        ),
        relation(
            "$facts",
            40,
            &[("id", Kind::Int), ("k", Kind::Int), ("v", Kind::Int), ("s", Kind::Text)],
        ),
        relation(
            "$dims",
            8,
            &[("k", Kind::Int), ("name", Kind::Text), ("weight", Kind::Int)],
        ),
    ]
}

/// A dataflow over the three inputs, without tables.
pub fn inputs(name: &str) -> Folder {
    Folder::new(
        name,
        &[
            ("inputs/events.toml", EVENTS),
            ("inputs/facts.toml", FACTS),
            ("inputs/dims.toml", DIMS),
        ],
    )
}

/// A dataflow with a table for each operator.
pub fn operators(seed: u64) -> Folder {
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = inputs("operators");
    folder.write("silver/facts_by_k.sql", "SELECT k, COUNT(*) AS n FROM facts GROUP BY k");
    let only = std::env::var("ALLUVIUM_ORACLE_TABLES").ok();
    let chosen = |name: &str| {
        only.as_ref()
            .is_none_or(|only| only.split(',').any(|wanted| wanted == name))
    };
    for (name, sql) in OPERATORS.iter().filter(|(name, _)| chosen(name)) {
        let sql = sql
            .replace("{a}", &rng.random_range(-5..20).to_string())
            .replace("{b}", &rng.random_range(0..30).to_string());
        folder.write(&format!("gold/{name}.sql"), &sql);
        let partitioned = sql.contains("SELECT k,").then_some("k");
        folder.write(&format!("gold/{name}.toml"), &settings(&mut rng, partitioned));
    }
    folder
}

/// Random settings of a table: how it deletes, whether it has a change data feed, and whether it is partitioned by
/// this column.
pub fn settings(rng: &mut StdRng, partition: Option<&str>) -> String {
    let deletes = ["auto", "vectors", "rewrite"][rng.random_range(0..3)];
    let mut settings = format!("deletes = {deletes:?}\nchange_data_feed = {}\n", rng.random_bool(0.4));
    if let Some(column) = partition.filter(|_| rng.random_bool(0.5)) {
        settings.push_str(&format!("partition_by = [{column:?}]\n"));
    }
    settings
}
