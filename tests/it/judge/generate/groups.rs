//! Families on GROUP BY and aggregates.

use super::{Family, Generator, Of};

pub const FAMILIES: &[Family] = &[
    ("group", |g| {
        let calls = "count(*) AS n, count(a.v) AS nv, sum(a.v) AS sv, min(a.s) AS lo, max(a.k) AS hi";
        g.grouped(calls, "")
    }),
    ("group_global", |g| {
        let filter = g.filter(&["a"]);
        format!(
            "SELECT count(*) AS n, sum(a.v) AS sv, max(a.s) AS hi, count(DISTINCT a.k) AS nk FROM {}{filter}",
            g.from("a")
        )
    }),
    ("group_expression", |g| {
        let key = g.pick(&[
            "a.k + 1",
            "a.v % 2",
            "COALESCE(a.s, 'none')",
            "a.k IS NULL",
            "CASE WHEN a.b THEN a.k END",
        ]);
        format!(
            "SELECT {key} AS c, count(*) AS n, sum(a.v) AS s FROM {} GROUP BY {key}",
            g.from("a")
        )
    }),
    ("having", |g| {
        let having = g.pick(&[
            "count(*) > 1",
            "sum(a.v) > 2",
            "NOT (max(a.v) > 3)",
            "min(a.s) IS NULL",
            "max(a.v) NOT IN (1, 2)",
        ]);
        g.grouped("count(*) AS n, max(a.v) AS m", &format!(" HAVING {having}"))
    }),
    ("having_in_combined", |g| {
        let (one, other) = (g.number(0, 3), g.number(4, 7));
        g.grouped(
            "max(a.v) AS m",
            &format!(" HAVING max(a.v) NOT IN ({one}) OR max(a.v) NOT IN ({other})"),
        )
    }),
    ("filter_clause", |g| {
        let condition = g.condition(&["a"], 1);
        let calls = format!("count(*) FILTER (WHERE {condition}) AS n, sum(a.v) FILTER (WHERE {condition}) AS s");
        g.grouped(&calls, "")
    }),
    ("distinct", |g| {
        let columns = g.pick(&["a.k", "a.s", "a.k, a.s", "a.b", "a.d", "a.ts"]);
        format!("SELECT DISTINCT {columns} FROM {}{}", g.from("a"), g.filter(&["a"]))
    }),
    ("distinct_aggregates", |g| {
        g.grouped(
            "count(DISTINCT a.v) AS n, sum(DISTINCT a.v) AS s, count(DISTINCT a.s) AS t",
            "",
        )
    }),
    ("grouping_sets", |g| {
        let by = g.pick(&[
            "ROLLUP (a.k, a.b)",
            "CUBE (a.k, a.b)",
            "GROUPING SETS ((a.k, a.b), (a.k), ())",
        ]);
        format!(
            "SELECT a.k, a.b, count(*) AS n, sum(a.v) AS s FROM {} GROUP BY {by}",
            g.from("a")
        )
    }),
    ("grouping_function", |g| {
        format!(
            "SELECT a.k, grouping(a.k) AS g, grouping(a.b) AS h, count(*) AS n FROM {} GROUP BY ROLLUP (a.k, a.b)",
            g.from("a")
        )
    }),
    ("grouping_sets_composite", |g| {
        let by = g.pick(&[
            "ROLLUP ((a.k, a.b), a.s)",
            "ROLLUP (a.k, (a.b, a.s))",
            "CUBE ((a.k, a.b), a.s)",
        ]);
        format!("SELECT a.k, a.b, a.s, count(*) AS n FROM {} GROUP BY {by}", g.from("a"))
    }),
    ("every", |g| g.grouped("every(a.b) AS e, every(a.v > 1) AS f", "")),
    ("mode", |g| {
        let column = g.pick(&["a.v", "a.s", "a.d", "a.b", "a.ts", "a.x"]);
        let order = g.pick(&["", " DESC"]);
        g.grouped(&format!("mode() WITHIN GROUP (ORDER BY {column}{order}) AS m"), "")
    }),
    ("percentile_disc", |g| {
        let column = g.pick(&["a.v", "a.s", "a.d", "a.dt", "a.ts", "a.x"]);
        let (share, order) = (g.pick(&["0", "0.25", "0.5", "0.9", "1"]), g.pick(&["", " DESC"]));
        let filter = g.pick(&["", " FILTER (WHERE a.b)"]);
        let call = format!("percentile_disc({share}) WITHIN GROUP (ORDER BY {column}{order}){filter} AS m");
        g.grouped(&call, "")
    }),
    ("json_aggregates", |g| {
        let of = g.pick(&["a.v", "a.s", "a.d", "a.b", "a.ts", "a.dt", "a.x"]);
        let calls = format!(
            "json_agg({of} ORDER BY a.k, a.v, {of}) AS j, json_agg(json_build_array(a.k, {of}) ORDER BY a.v, a.k, {of}) \
             FILTER (WHERE a.b) AS n, json_object_agg(coalesce(a.s, 'none'), {of} ORDER BY a.s, a.v, {of}) AS o"
        );
        g.grouped(&calls, "")
    }),
    ("json_building", |g| {
        let (one, other) = (
            g.pick(&["a.v", "a.s", "a.d", "a.b", "a.x"]),
            g.pick(&["a.ts", "a.dt", "a.e", "NULL"]),
        );
        format!(
            "SELECT json_build_object('one', {one}, 'in', json_build_array({one}, {other}, 'x'), a.k + 1, {other}) AS j, \
             to_json({one}) AS o FROM {} WHERE a.k IS NOT NULL",
            g.from("a")
        )
    }),
    ("average_whole", |g| {
        let column = g.pick(&["a.v", "a.k"]);
        g.grouped(&format!("avg({column}) AS m"), "")
    }),
    ("average_big", |g| g.grouped("avg(a.big) AS m", "")),
    ("average_decimal", |g| {
        let column = g.column("a", Of::Decimal);
        g.grouped(&format!("avg({column}) AS m"), "")
    }),
    ("sum_decimal", |g| {
        let column = g.column("a", Of::Decimal);
        g.grouped(
            &format!("sum({column}) AS m, min({column}) AS lo, max({column}) AS hi"),
            "",
        )
    }),
    ("sum_big", |g| g.grouped("sum(a.big) AS m", "")),
    ("variance", |g| {
        let function = g.pick(&["stddev", "stddev_pop", "var_samp", "var_pop"]);
        let column = g.pick(&["a.v", "a.x"]);
        g.grouped(&format!("{function}({column}) AS m"), "")
    }),
    ("bool_aggregates", |g| {
        let condition = g.condition(&["a"], 1);
        g.grouped(&format!("bool_and({condition}) AS n, bool_or(a.b) AS m"), "")
    }),
    ("string_agg", |g| {
        g.grouped("string_agg(a.s, ',' ORDER BY a.s) AS m", "")
    }),
    ("array_agg", |g| g.grouped("array_agg(a.v ORDER BY a.v) AS m", "")),
    ("percentile", |g| {
        let share = g.pick(&["0.5", "0.25", "0.9"]);
        g.grouped(
            &format!("percentile_cont({share}) WITHIN GROUP (ORDER BY a.x) AS m"),
            "",
        )
    }),
    ("extremes", |g| {
        g.grouped(
            "min(a.ts) AS lo, max(a.dt) AS hi, max(a.tf) AS far, min(a.df) AS near, max(a.big) AS b, min(a.d) AS d",
            "",
        )
    }),
    ("aggregate_of_aggregate", |g| {
        let (inner, having) = (g.from("a"), g.pick(&["", " HAVING count(*) > 1"]));
        format!(
            "SELECT q.n, count(*) AS m, max(q.s) AS s FROM (SELECT a.k, count(*) AS n, sum(a.v) AS s FROM {inner} GROUP BY a.k{having}) AS q GROUP BY q.n"
        )
    }),
];

impl Generator {
    /// Aggregate calls, grouped by one or two keys.
    fn grouped(&mut self, calls: &str, more: &str) -> String {
        let keys = self.pick(&["a.k", "a.s", "a.b", "a.k, a.b"]);
        format!(
            "SELECT {keys}, {calls} FROM {}{} GROUP BY {keys}{more}",
            self.from("a"),
            self.filter(&["a"])
        )
    }
}
