//! Families on subqueries that use columns of outer queries, in every clause and around every construct.

use super::{Family, Generator};

pub const FAMILIES: &[Family] = &[
    ("correlated_limit", |g| {
        let (a, b, on, limit) = (g.from("a"), g.from("b"), g.correlation("b", "a"), g.limit());
        let order = g.pick(&["", " DESC", " NULLS FIRST"]);
        let rows = format!("SELECT b.v FROM {b} WHERE {on} ORDER BY b.v{order}");
        match g.number(0, 3) {
            0 => format!(
                "SELECT a.k, a.v, ({rows} LIMIT 1 OFFSET {}) AS c FROM {a}",
                g.number(0, 2)
            ),
            1 => format!("SELECT a.k, a.v FROM {a} WHERE {}EXISTS ({rows}{limit})", g.not()),
            2 => format!("SELECT a.k, a.v FROM {a} WHERE a.k {}IN ({rows}{limit})", g.not()),
            _ => format!("SELECT a.k, q.v FROM {a} CROSS JOIN LATERAL ({rows}{limit}) AS q"),
        }
    }),
    ("subquery_in_union", |g| {
        let (a, b, c, on) = (g.from("a"), g.from("b"), g.from("c"), g.correlation("b", "a"));
        let is = g.pick(&["IS NULL", "IS NOT NULL", "> 1"]);
        format!(
            "SELECT q.k, q.v FROM (SELECT a.k, (SELECT b.k FROM {b} WHERE {on} ORDER BY b.k LIMIT 1) AS v FROM {a} UNION ALL SELECT c.k, c.k FROM {c}) AS q WHERE q.v {is}"
        )
    }),
    ("correlated_having", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let (having, not) = (g.having("b"), g.not());
        match g.number(0, 3) {
            0 => format!("SELECT a.k, (SELECT max(b.v) FROM {b} WHERE {on} HAVING {having}) AS c FROM {a}"),
            1 => format!(
                "SELECT a.k, a.v FROM {a} WHERE {not}EXISTS (SELECT b.s FROM {b} WHERE {on} GROUP BY b.s HAVING {having})"
            ),
            2 => format!(
                "SELECT a.k, a.v FROM {a} WHERE a.v {not}IN (SELECT max(b.v) FROM {b} WHERE {on} GROUP BY b.s HAVING {having})"
            ),
            _ => format!(
                "SELECT a.k, a.v FROM {a} WHERE a.v {not}IN (SELECT max(b.v) FROM {b} WHERE {on} HAVING {having}) OR a.k = 1"
            ),
        }
    }),
    ("correlated_grouping_sets", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let sets = g.pick(&[
            "ROLLUP (b.s)",
            "CUBE (b.s, b.b)",
            "GROUPING SETS ((b.s), ())",
            "GROUPING SETS ((b.s), (b.b))",
        ]);
        let (having, not) = (g.having("b"), g.not());
        match g.number(0, 2) {
            0 => format!(
                "SELECT a.k, a.v FROM {a} WHERE {not}EXISTS (SELECT 1 FROM {b} WHERE {on} GROUP BY {sets} HAVING {having})"
            ),
            1 => format!(
                "SELECT a.k, a.v FROM {a} WHERE a.v {not}IN (SELECT max(b.v) FROM {b} WHERE {on} GROUP BY {sets})"
            ),
            _ => format!(
                "SELECT a.k, q.s, q.g, q.n FROM {a} CROSS JOIN LATERAL (SELECT b.s, grouping(b.s) AS g, count(*) AS n FROM {b} WHERE {on} GROUP BY ROLLUP (b.s)) AS q"
            ),
        }
    }),
    ("correlated_aggregate", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let value = g.pick(&[
            "count(*)",
            "sum(b.v)",
            "count(b.v) + a.k",
            "max(b.v + a.k)",
            "count(DISTINCT b.s)",
            "COALESCE(max(b.v), a.v)",
            "count(*) FILTER (WHERE b.v > a.v)",
        ]);
        match g.number(0, 2) {
            0 => format!("SELECT a.k, a.v, (SELECT {value} FROM {b} WHERE {on}) AS c FROM {a}"),
            1 => format!(
                "SELECT a.k, a.v FROM {a} WHERE a.v {} (SELECT {value} FROM {b} WHERE {on})",
                g.comparison()
            ),
            _ => format!("SELECT a.k, a.v FROM {a} WHERE (SELECT {value} FROM {b} WHERE {on}) IS NULL OR a.k = 2"),
        }
    }),
    ("correlated_set_operation", |g| {
        let (a, b, c) = (g.from("a"), g.from("b"), g.from("c"));
        let (first, second) = (g.correlation("b", "a"), g.correlation("c", "a"));
        let operation = g.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]);
        let rows = format!("SELECT b.v FROM {b} WHERE {first} {operation} SELECT c.v FROM {c} WHERE {second}");
        let not = g.not();
        match g.number(0, 3) {
            0 => format!("SELECT a.k, a.v FROM {a} WHERE a.v {not}IN ({rows})"),
            1 => format!("SELECT a.k, a.v FROM {a} WHERE {not}EXISTS ({rows})"),
            2 => format!("SELECT a.k, (SELECT count(q.v) FROM ({rows}) AS q) AS c FROM {a}"),
            _ => format!("SELECT a.k, q.v FROM {a} CROSS JOIN LATERAL ({rows}) AS q"),
        }
    }),
    ("correlated_distinct", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        match g.number(0, 2) {
            0 => format!(
                "SELECT a.k, a.v, (SELECT count(*) FROM (SELECT DISTINCT b.s, b.b FROM {b} WHERE {on}) AS q) AS c FROM {a}"
            ),
            1 => format!("SELECT a.k, q.s FROM {a} CROSS JOIN LATERAL (SELECT DISTINCT b.s FROM {b} WHERE {on}) AS q"),
            _ => format!(
                "SELECT a.k, (SELECT sum(q.v) FROM (SELECT DISTINCT ON (b.s) b.s, b.v FROM {b} WHERE {on} ORDER BY b.s, b.v) AS q) AS c FROM {a}"
            ),
        }
    }),
    ("correlated_window", |g| {
        let (a, b, on, not) = (g.from("a"), g.from("b"), g.correlation("b", "a"), g.not());
        let window = g.pick(&[
            "rank() OVER (ORDER BY b.v)",
            "count(*) OVER (PARTITION BY b.s)",
            "sum(b.v) OVER (ORDER BY b.k)",
        ]);
        match g.chance(0.5) {
            true => format!("SELECT a.k, a.v FROM {a} WHERE a.v {not}IN (SELECT {window} FROM {b} WHERE {on})"),
            false => format!(
                "SELECT a.k, (SELECT max(q.w) FROM (SELECT {window} AS w FROM {b} WHERE {on}) AS q) AS c FROM {a}"
            ),
        }
    }),
    ("correlated_outer_join", |g| {
        let (a, b, c) = (g.from("a"), g.from("b"), g.from("c"));
        let kind = g.pick(&["LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let derived = g.correlation("c", "a");
        let (not, test) = (
            g.not(),
            g.pick(&[
                "q.v IS NULL",
                "b.v IS NULL",
                "q.v > 1",
                "b.v = a.v",
                "q.v IS NULL OR b.v < a.k",
            ]),
        );
        let rows = format!("FROM {b} {kind} (SELECT c.k, c.v FROM {c} WHERE {derived}) AS q ON b.k = q.k WHERE {test}");
        match g.number(0, 2) {
            0 => format!("SELECT a.k, a.v FROM {a} WHERE {not}EXISTS (SELECT 1 {rows})"),
            1 => format!("SELECT a.k, (SELECT count(*) {rows}) AS c FROM {a}"),
            _ => format!("SELECT a.k, a.v FROM {a} WHERE a.v {not}IN (SELECT q.v {rows})"),
        }
    }),
    ("correlated_two_levels", |g| {
        let (a, b, c) = (g.from("a"), g.from("m"), g.from("c"));
        let (first, second, third) = (
            g.correlation("m", "a"),
            g.correlation("c", "m"),
            g.correlation("c", "a"),
        );
        let (not, inner) = (g.not(), g.not());
        match g.number(0, 3) {
            0 => format!(
                "SELECT a.k, a.v FROM {a} WHERE {not}EXISTS (SELECT 1 FROM {b} WHERE {first} AND {inner}EXISTS (SELECT 1 FROM {c} WHERE {second} AND {third}))"
            ),
            1 => format!(
                "SELECT a.k, (SELECT sum(m.v) FROM {b} WHERE {first} AND m.v {inner}IN (SELECT c.v FROM {c} WHERE {third})) AS c FROM {a}"
            ),
            2 => format!(
                "SELECT a.k, (SELECT max((SELECT count(*) FROM {c} WHERE {second} AND {third})) FROM {b} WHERE {first}) AS c FROM {a}"
            ),
            _ => format!(
                "SELECT a.k, a.v FROM {a} WHERE a.v {not}IN (SELECT m.v FROM {b} WHERE (SELECT count(*) FROM {c} WHERE {second} AND {third}) > 0)"
            ),
        }
    }),
    ("lateral_rows", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let rows = format!("SELECT b.s, b.v + a.v AS z, b.v FROM {b} WHERE {on}");
        match g.number(0, 2) {
            0 => format!("SELECT a.k, q.s, q.z FROM {a} CROSS JOIN LATERAL ({rows}) AS q"),
            1 => format!(
                "SELECT a.k, q.s, q.z FROM {a} JOIN LATERAL ({rows}) AS q ON q.v {} a.k",
                g.comparison()
            ),
            _ => format!(
                "SELECT a.k, q.s, q.z FROM {a} LEFT JOIN LATERAL ({rows}) AS q ON {}",
                g.pick(&["TRUE", "q.v = a.k", "q.v < a.k", "a.k > 1", "q.s = a.s AND q.z > 3"])
            ),
        }
    }),
    ("lateral_aggregate", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let having = match g.chance(0.5) {
            true => format!(" HAVING {}", g.having("b")),
            false => String::new(),
        };
        let group = g.pick(&["", " GROUP BY b.s", " GROUP BY b.k"]);
        let rows = format!("SELECT count(*) AS n, sum(b.v) AS c FROM {b} WHERE {on}{group}{having}");
        match g.chance(0.5) {
            true => format!("SELECT a.k, q.n, q.c FROM {a} CROSS JOIN LATERAL ({rows}) AS q"),
            false => format!(
                "SELECT a.k, q.n, q.c FROM {a} LEFT JOIN LATERAL ({rows}) AS q ON {}",
                g.pick(&["TRUE", "q.c = a.v", "q.n > a.k", "a.k > 1"])
            ),
        }
    }),
    ("lateral_limit", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let (limit, kind) = (g.limit(), g.pick(&["CROSS JOIN LATERAL", "LEFT JOIN LATERAL"]));
        let condition = if kind.starts_with("LEFT") { " ON TRUE" } else { "" };
        format!(
            "SELECT a.k, q.v, q.s FROM {a} {kind} (SELECT b.v, b.s FROM {b} WHERE {on} ORDER BY b.v, b.s{limit}) AS q{condition}"
        )
    }),
    ("lateral_values", |g| {
        let (a, kind) = (g.from("a"), g.pick(&["CROSS JOIN LATERAL", "LEFT JOIN LATERAL"]));
        let condition = match kind.starts_with("LEFT") {
            true => g.pick(&[" ON TRUE", " ON q.n > 1"]),
            false => "",
        };
        let rows = g.pick(&[
            "(VALUES (a.k), (a.v)) AS q(n)",
            "(SELECT a.k + a.v AS n) AS q",
            "(SELECT a.k AS n UNION ALL SELECT a.v WHERE a.v > 1) AS q",
        ]);
        format!("SELECT a.k, a.v, q.n FROM {a} {kind} {rows}{condition}")
    }),
    ("subquery_in_case", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let condition = g.asked(&format!("{b} WHERE {on}"));
        format!(
            "SELECT a.k, a.v, CASE WHEN {condition} THEN 'yes' WHEN NOT ({condition}) THEN 'no' ELSE 'unknown' END AS c FROM {a}"
        )
    }),
    ("subquery_in_aggregate", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let condition = g.asked(&format!("{b} WHERE {on}"));
        match g.number(0, 2) {
            0 => format!("SELECT a.s, count(*) FILTER (WHERE {condition}) AS c FROM {a} GROUP BY a.s"),
            1 => format!("SELECT a.s, sum((SELECT max(b.v) FROM {b} WHERE {on})) AS c FROM {a} GROUP BY a.s"),
            _ => format!("SELECT a.s, bool_or({condition}) AS c FROM {a} GROUP BY a.s"),
        }
    }),
    ("subquery_in_group_by", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let value = format!("(SELECT max(b.v) FROM {b} WHERE {on})");
        let condition = g.asked(&format!("{b} WHERE {on}"));
        match g.chance(0.5) {
            true => format!("SELECT q.c, count(*) AS n FROM (SELECT {value} AS c FROM {a}) AS q GROUP BY q.c"),
            false => format!("SELECT {condition} AS c, count(*) AS n FROM {a} GROUP BY 1"),
        }
    }),
    ("subquery_in_having", |g| {
        let (a, b, op) = (g.from("a"), g.from("b"), g.comparison());
        let (on, not) = (g.pick(&["b.k = a.k", "b.k < a.k"]), g.not());
        match g.number(0, 2) {
            0 => format!(
                "SELECT a.k, count(*) AS n FROM {a} GROUP BY a.k HAVING count(*) {op} (SELECT count(*) FROM {b} WHERE {on})"
            ),
            1 => format!(
                "SELECT a.k, count(*) AS n FROM {a} GROUP BY a.k HAVING sum(a.v) {not}IN (SELECT b.v FROM {b} WHERE {on})"
            ),
            _ => format!(
                "SELECT a.k, max(a.v) AS n FROM {a} GROUP BY a.k HAVING {not}EXISTS (SELECT 1 FROM {b} WHERE {on} AND b.v > 1) OR a.k = 1"
            ),
        }
    }),
    ("subquery_in_window", |g| {
        let (a, b, on) = (g.from("a"), g.from("b"), g.correlation("b", "a"));
        let value = format!("(SELECT max(b.v) FROM {b} WHERE {on})");
        let window = g.pick(&[
            "rank() OVER (ORDER BY $)",
            "count(*) OVER (PARTITION BY $)",
            "sum($) OVER (PARTITION BY a.s)",
        ]);
        format!("SELECT a.k, a.v, {} AS c FROM {a}", window.replace('$', &value))
    }),
    ("subquery_in_on", |g| {
        let (a, b, c) = (g.from("a"), g.from("m"), g.from("c"));
        let kind = g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
        let beside = g.pick(&["a", "m"]);
        let on = g.correlation("c", beside);
        let not = g.not();
        let condition = match g.number(0, 3) {
            0 => format!("{not}EXISTS (SELECT 1 FROM {c} WHERE {on})"),
            1 => format!("{beside}.v {not}IN (SELECT c.v FROM {c} WHERE c.k > 0)"),
            2 => format!("a.v {not}IN (SELECT c.v FROM {c} WHERE {on})"),
            _ => format!("m.v = (SELECT max(c.v) FROM {c} WHERE {on})"),
        };
        format!("SELECT a.k, a.v, m.v AS w, m.s FROM {a} {kind} {b} ON a.k = m.k AND {condition}")
    }),
    ("subquery_in_full_on", |g| {
        let (a, b, c, not) = (g.from("a"), g.from("m"), g.from("c"), g.not());
        let beside = g.pick(&["a", "m"]);
        let on = g.correlation("c", beside);
        format!(
            "SELECT a.k, a.v, m.v AS w, m.s FROM {a} FULL JOIN {b} ON a.k = m.k AND {not}EXISTS (SELECT 1 FROM {c} WHERE {on})"
        )
    }),
    ("any_all_correlated", |g| {
        let (a, b, on, op) = (g.from("a"), g.from("b"), g.correlation("b", "a"), g.comparison());
        let quantifier = g.pick(&["ANY", "ALL"]);
        let condition = format!("a.v {op} {quantifier} (SELECT b.v FROM {b} WHERE {on})");
        match g.number(0, 3) {
            0 => format!("SELECT a.k, a.v FROM {a} WHERE {condition}"),
            1 => format!("SELECT a.k, a.v FROM {a} WHERE NOT ({condition}) OR a.k = 1"),
            2 => format!("SELECT a.k, a.v, {condition} AS c FROM {a}"),
            _ => format!("SELECT a.k, a.v FROM {a} WHERE ({condition}) IS NULL"),
        }
    }),
    ("any_all_value", |g| {
        let (a, b, op) = (g.from("a"), g.from("b"), g.comparison());
        let quantifier = g.pick(&["ANY", "ALL"]);
        format!(
            "SELECT a.k, a.v, a.v {op} {quantifier} (SELECT b.v FROM {b}{}) AS c FROM {a}",
            g.filter(&["b"])
        )
    }),
    ("exists_combined", |g| {
        let (a, b, c) = (g.from("a"), g.from("b"), g.from("c"));
        let (first, second) = (g.correlation("b", "a"), g.correlation("c", "a"));
        let (one, other) = (
            g.asked(&format!("{b} WHERE {first}")),
            g.asked_of("c", &format!("{c} WHERE {second}")),
        );
        let (not, op) = (g.not(), g.pick(&["AND", "OR"]));
        format!("SELECT a.k, a.v FROM {a} WHERE {not}({one} {op} {}({other}))", g.not())
    }),
    ("share_of_total", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        let on = match g.chance(0.5) {
            true => format!(" WHERE {}", g.correlation("b", "a")),
            false => String::new(),
        };
        format!("SELECT a.k, a.x / NULLIF((SELECT sum(b.x) FROM {b}{on}), 0) AS c FROM {a}")
    }),
];

impl Generator {
    /// A condition between the rows of a subquery and those of the outer query.
    fn correlation(&mut self, inner: &str, outer: &str) -> String {
        let on = self.pick(&[
            "i.k = o.k",
            "i.k = o.k",
            "i.s = o.s",
            "i.k = o.v",
            "i.k = o.k AND i.v < o.v",
            "i.k = o.k AND i.v > 1",
            "i.k < o.k",
            "i.v <> o.v",
            "(i.k = o.k OR i.s = o.s)",
            "i.k = o.k AND o.v > 1",
            "(i.s IS NOT DISTINCT FROM o.s)",
            "i.k + o.k > 3",
        ]);
        on.replace("i.", &format!("{inner}."))
            .replace("o.", &format!("{outer}."))
    }

    fn not(&mut self) -> &'static str {
        self.pick(&["", "NOT "])
    }

    /// A ` LIMIT ...` or ` OFFSET ...` clause.
    fn limit(&mut self) -> String {
        match self.number(0, 2) {
            0 => format!(" LIMIT {}", self.number(0, 2)),
            1 => format!(" LIMIT {} OFFSET {}", self.number(1, 2), self.number(1, 2)),
            _ => format!(" OFFSET {}", self.number(1, 3)),
        }
    }

    /// A condition on a group.
    fn having(&mut self, of: &str) -> String {
        let having = self.pick(&[
            "count(*) = 0",
            "count(*) > 1",
            "max($.v) > a.v",
            "sum($.v) IS NULL",
            "count(*) < a.k",
            "min($.v) < 3",
        ]);
        having.replace('$', of)
    }

    /// A condition on rows of `b`: EXISTS, IN, ANY or a comparison.
    fn asked(&mut self, rows: &str) -> String {
        self.asked_of("b", rows)
    }

    fn asked_of(&mut self, of: &str, rows: &str) -> String {
        let (not, op) = (self.not(), self.comparison());
        match self.number(0, 4) {
            0 => format!("{not}EXISTS (SELECT 1 FROM {rows})"),
            1 | 2 => format!("a.v {not}IN (SELECT {of}.v FROM {rows})"),
            3 => format!("a.v {op} {} (SELECT {of}.v FROM {rows})", self.pick(&["ANY", "ALL"])),
            _ => format!("a.v {op} (SELECT max({of}.v) FROM {rows})"),
        }
    }
}
