//! The oracle: random input through every operator, at 1, 2 and 3 workers; at every snapshot each table equals
//! DataFusion's batch answer over the input so far, and the last snapshot is the same for all.
//!
//! A feeder appends random changes to the logs while the run goes on, so snapshots cut the input at
//! arbitrary places; then the run is stopped, and another one over the same lake takes the rest.
//! Seeds: `ALLUVIUM_ORACLE_SEEDS=100` for more than the default, `ALLUVIUM_ORACLE_SEED=7` for one;
//! `ALLUVIUM_ORACLE_TABLES=top,rank` for some of the tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::definition::Dataflow;
use alluvium::run::{self, Options};
use alluvium::serve::verify;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{Folder, assert_every_snapshot_is_exact, catch_up, chain};

const EVENTS: &str = r#"
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

const FACTS: &str = r#"
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

const DIMS: &str = r#"
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

/// A table for each operator and its corners; `{a}`, `{b}`, `{c}` are random small numbers.
const TABLES: &[(&str, &str)] = &[
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
        "SELECT k, MIN(v) AS lo, MAX(v) AS hi, MIN(s) AS first_s, MAX(ts) AS last_ts, MIN(x) AS lx, MAX(d) AS hd FROM facts_or_events GROUP BY k",
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

fn folder(rng: &mut StdRng) -> Folder {
    let folder = Folder::new(
        "oracle",
        &[
            ("inputs/events.toml", EVENTS),
            ("inputs/facts.toml", FACTS),
            ("inputs/dims.toml", DIMS),
        ],
    );
    folder.write("silver/facts_by_k.sql", "SELECT k, COUNT(*) AS n FROM facts GROUP BY k");
    let only = std::env::var("ALLUVIUM_ORACLE_TABLES").ok();
    let chosen = |name: &str| {
        only.as_ref()
            .is_none_or(|only| only.split(',').any(|wanted| wanted == name))
    };
    for (name, sql) in TABLES.iter().filter(|(name, _)| chosen(name)) {
        let sql = sql
            .replace("facts_or_events", "events")
            .replace("{a}", &rng.random_range(-5..20).to_string())
            .replace("{b}", &rng.random_range(0..30).to_string());
        folder.write(&format!("gold/{name}.sql"), &sql);
    }
    folder
}

/// Random changes, remembered so that updates and deletes meet rows that exist.
struct Feeder {
    rng: StdRng,
    next_id: i64,
    ver: i64,
    facts: BTreeMap<i64, (Option<i32>, Option<i64>)>,
}

impl Feeder {
    fn small(&mut self, nulls: f64, below: i64) -> Option<i64> {
        (!self.rng.random_bool(nulls)).then(|| self.rng.random_range(0..below))
    }

    fn event(&mut self) -> String {
        self.next_id += 1;
        if self.rng.random_bool(0.02) {
            return [
                "{\"value\": {\"id\": \"x",
                "{\"value\": {\"id\": null}}",
                "{\"value\": {\"id\": 99999999999999999999}}",
                "[1]",
            ][self.rng.random_range(0..4)]
            .to_string();
        }
        let id = if self.rng.random_bool(0.1) {
            self.rng.random_range(1..=self.next_id)
        } else {
            self.next_id
        };
        let x = match self.rng.random_range(0..12) {
            0 => "null".to_string(),
            // No greater spread of magnitudes: there a sum in batch depends on its order, ours is exact.
            1 => "12345.678".to_string(),
            _ => format!("{}", self.rng.random_range(-1000..1000) as f64 / 8.0),
        };
        let json = |v: Option<i64>| v.map_or("null".to_string(), |v| v.to_string());
        let (k, v) = (json(self.small(0.1, 6)), json(self.small(0.15, 30)));
        let d = json(self.small(0.1, 100_000));
        let s = ["null", "\"a\"", "\"ab\"", "\"b\"", "\"\"", "\"\u{e4}\u{2713}\""][self.rng.random_range(0..6)];
        let second = self.rng.random_range(0..600);
        let ts = if self.rng.random_bool(0.05) {
            "null".to_string()
        } else {
            format!("\"2024-05-01T00:{:02}:{:02}.250\"", second / 60, second % 60)
        };
        let flag = ["true", "false", "null"][self.rng.random_range(0..3)];
        let tags = ["null", "[]", "[\"p\"]", "[\"p\",\"q\",null]"][self.rng.random_range(0..4)];
        format!(
            "{{\"value\": {{\"id\": {id}, \"k\": {k}, \"v\": {v}, \"x\": {x}, \"d\": {d}, \"s\": {s}, \"ts\": {ts}, \"flag\": {flag}, \"tags\": {tags}}}}}"
        )
    }

    /// A change of `facts`, for one of its two feeds; older versions come too.
    fn fact(&mut self) -> String {
        self.ver += 1;
        let ver = if self.rng.random_bool(0.2) {
            self.rng.random_range(0..=self.ver)
        } else {
            self.ver
        };
        let json = |v: Option<i64>| v.map_or("null".to_string(), |v| v.to_string());
        let id = self.rng.random_range(0..40i64);
        if self.facts.contains_key(&id) && self.rng.random_bool(0.25) {
            self.facts.remove(&id);
            let before = format!("{{\"id\": {id}, \"k\": null, \"v\": null, \"s\": null, \"ver\": {ver}}}");
            return format!(
                "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"op\": \"d\", \"before\": {before}, \"after\": null, \"ts_ms\": 1}}}}"
            );
        }
        let (k, v) = (self.small(0.1, 8), self.small(0.1, 40));
        self.facts.insert(id, (k.map(|k| k as i32), v));
        let op = if self.rng.random_bool(0.5) { "c" } else { "u" };
        let s = ["\"a\"", "\"b\"", "null"][self.rng.random_range(0..3)];
        let after = format!(
            "{{\"id\": {id}, \"k\": {}, \"v\": {}, \"s\": {s}, \"ver\": {ver}}}",
            json(k),
            json(v)
        );
        format!(
            "{{\"key\": {{\"id\": {id}}}, \"value\": {{\"op\": \"{op}\", \"before\": null, \"after\": {after}, \"ts_ms\": 1}}}}"
        )
    }

    fn dim(&mut self) -> String {
        let k = self.rng.random_range(0..8);
        if self.rng.random_bool(0.2) {
            return format!(
                "{{\"key\": {{\"k\": {k}}}, \"value\": {{\"op\": \"d\", \"before\": {{\"k\": {k}}}, \"after\": null, \"ts_ms\": 1}}}}"
            );
        }
        let weight = self.rng.random_range(0..30);
        format!(
            "{{\"value\": {{\"op\": \"u\", \"before\": null, \"after\": {{\"k\": {k}, \"name\": \"n{weight}\", \"weight\": {weight}}}, \"ts_ms\": 1}}}}"
        )
    }

    fn feed(&mut self, folder: &Folder, changes: usize) {
        let mut files: BTreeMap<&str, String> = BTreeMap::new();
        for _ in 0..changes {
            let (path, line) = match self.rng.random_range(0..10) {
                0..5 => (
                    ["live/events/0.ndjson", "live/events/1.ndjson"][self.rng.random_range(0..2)],
                    self.event(),
                ),
                5..7 => ("live/facts_one/0.ndjson", self.fact()),
                7..9 => ("live/facts_two/0.ndjson", self.fact()),
                _ => ("live/dims/0.ndjson", self.dim()),
            };
            let file = files.entry(path).or_default();
            file.push_str(&line);
            file.push('\n');
        }
        for (path, lines) in files {
            folder.append(path, &lines);
        }
    }
}

/// Runs while `feed` appends, then stops.
fn run_while(dataflow: &Arc<Dataflow>, workers: usize, feed: impl FnOnce()) {
    let (stop, stopped) = crossbeam_channel::bounded(1);
    let runner = std::thread::spawn({
        let dataflow = dataflow.clone();
        let options = Options {
            workers,
            stop: Some(stopped),
            duration: Some(Duration::from_secs(120)),
            ..Options::default()
        };
        move || run::run(dataflow, &options)
    });
    feed();
    // The run may have failed already; its result tells.
    let _ = stop.send(());
    let result = runner.join().expect("the run does not panic");
    result.unwrap_or_else(|e| panic!("the run failed: {}", chain(&e)));
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    match number("ALLUVIUM_ORACLE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("ALLUVIUM_ORACLE_SEEDS").unwrap_or(3)).collect(),
    }
}

#[test]
fn every_table_equals_batch_at_every_snapshot_with_any_number_of_workers() {
    for seed in seeds() {
        let mut rng = StdRng::seed_from_u64(seed);
        let folder = folder(&mut rng);
        let mut feeder = Feeder {
            rng,
            next_id: 0,
            ver: 0,
            facts: BTreeMap::new(),
        };
        let mut finals: Vec<BTreeMap<String, u128>> = Vec::new();
        for workers in 1..=3 {
            let dataflow = folder.load(&format!("w{workers}"));
            if workers == 1 {
                feeder.feed(&folder, 50);
                run_while(&dataflow, workers, || {
                    for _ in 0..12 {
                        feeder.feed(&folder, 40);
                        std::thread::sleep(Duration::from_millis(60));
                    }
                });
                feeder.feed(&folder, 100);
            }
            let started = Instant::now();
            catch_up(&dataflow, workers);
            let ran = started.elapsed();
            let checked = assert_every_snapshot_is_exact(&dataflow, 3);
            eprintln!(
                "seed {seed}, {workers} workers: caught up in {ran:.1?}, {checked} snapshots equal batch after {:.1?}",
                started.elapsed()
            );
            assert!(checked > 0, "seed {seed}: nothing was committed");
            finals.push(verify::fingerprints(&dataflow).unwrap_or_else(|e| panic!("{}", chain(&e))));
        }
        assert_eq!(finals[0], finals[1], "seed {seed}: one and two workers differ");
        assert_eq!(finals[0], finals[2], "seed {seed}: one and three workers differ");
    }
}
