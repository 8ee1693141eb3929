//! Families on subqueries.

use super::{Family, Generator, Of};

pub const FAMILIES: &[Family] = &[
    ("in_subquery", |g| {
        let one = g.in_subquery("");
        format!("SELECT a.k, a.v FROM {} WHERE {one}", g.from("a"))
    }),
    ("not_in_subquery", |g| {
        let one = g.in_subquery("NOT ");
        format!("SELECT a.k, a.v FROM {} WHERE {one}", g.from("a"))
    }),
    ("in_subquery_and", |g| {
        let not = g.pick(&["", "NOT "]);
        let one = g.in_subquery(not);
        format!(
            "SELECT a.k, a.v FROM {} WHERE {one} AND {}",
            g.from("a"),
            g.condition(&["a"], 1)
        )
    }),
    ("in_subquery_or", |g| {
        let not = g.pick(&["", "NOT "]);
        let one = g.in_subquery(not);
        format!(
            "SELECT a.k, a.v FROM {} WHERE {one} OR {}",
            g.from("a"),
            g.condition(&["a"], 0)
        )
    }),
    ("in_subquery_is", |g| {
        let is = g.pick(&["IS NULL", "IS TRUE", "IS FALSE", "IS NOT NULL", "IS NOT TRUE"]);
        let one = g.in_subquery("");
        format!("SELECT a.k, a.v FROM {} WHERE ({one}) {is}", g.from("a"))
    }),
    ("in_subquery_expression", |g| {
        let value = g.pick(&[
            "NULLIF(a.k, a.v)",
            "CASE WHEN a.k < 2 THEN a.k END",
            "a.k + NULLIF(a.v, 1)",
            "3",
            "CAST(NULL AS BIGINT)",
        ]);
        let not = g.pick(&["", "NOT "]);
        let (a, b) = (g.from("a"), g.from("b"));
        format!(
            "SELECT a.k, a.v FROM {a} WHERE {value} {not}IN (SELECT b.v FROM {b}{})",
            g.filter(&["b"])
        )
    }),
    ("in_subquery_correlated", |g| {
        let (not, a, b) = (g.pick(&["", "NOT "]), g.from("a"), g.from("b"));
        let on = g.pick(&["b.v = a.v", "b.v < a.v", "b.s = a.s"]);
        format!("SELECT a.k, a.v FROM {a} WHERE a.k {not}IN (SELECT b.k FROM {b} WHERE {on})")
    }),
    ("in_subquery_value", |g| {
        let one = g.in_subquery("");
        format!("SELECT a.k, a.v, ({one}) AS c FROM {}", g.from("a"))
    }),
    ("in_subquery_aggregate", |g| {
        let (not, a, b) = (g.pick(&["", "NOT "]), g.from("a"), g.from("b"));
        format!("SELECT a.k, a.v FROM {a} WHERE a.v {not}IN (SELECT max(b.v) FROM {b} GROUP BY b.k)")
    }),
    ("exists", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        let on = g.pick(&["b.k = a.k", "b.s = a.s AND b.k = a.k", "b.k = a.k AND b.v < a.v"]);
        format!(
            "SELECT a.k, a.v FROM {a} WHERE {}EXISTS (SELECT 1 FROM {b} WHERE {on})",
            g.pick(&["", "NOT "])
        )
    }),
    ("exists_or", |g| {
        let (a, b, more) = (g.from("a"), g.from("b"), g.condition(&["a"], 0));
        format!(
            "SELECT a.k, a.v FROM {a} WHERE {}EXISTS (SELECT 1 FROM {b} WHERE b.k = a.k) OR {more}",
            g.pick(&["", "NOT "])
        )
    }),
    ("exists_uncorrelated", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        format!(
            "SELECT a.k, a.v FROM {a} WHERE {}EXISTS (SELECT 1 FROM {b}{})",
            g.pick(&["", "NOT "]),
            g.filter(&["b"])
        )
    }),
    ("exists_aggregate", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        let having = g.pick(&["", " HAVING count(*) = 0", " HAVING count(*) > 1"]);
        let call = g.pick(&["max(b.k)", "count(*)", "sum(b.v)"]);
        format!(
            "SELECT a.k FROM {a} WHERE {}EXISTS (SELECT {call} FROM {b} WHERE b.k = a.k{having})",
            g.pick(&["", "NOT "])
        )
    }),
    ("exists_outer_join", |g| {
        let (a, b, c) = (g.from("a"), g.from("b"), g.from("c"));
        format!(
            "SELECT a.k FROM {a} WHERE EXISTS (SELECT 1 FROM {b} LEFT JOIN {c} ON b.k = c.k AND c.v = a.k WHERE c.v IS NULL)"
        )
    }),
    ("scalar_compared", |g| {
        let (a, b, op) = (g.from("a"), g.from("b"), g.comparison());
        let call = g.pick(&["max(b.v)", "min(b.k)", "count(*)", "sum(b.v)"]);
        format!(
            "SELECT a.k, a.v FROM {a} WHERE a.v {op} (SELECT {call} FROM {b}{})",
            g.filter(&["b"])
        )
    }),
    ("scalar_correlated", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        let call = g.pick(&["max(b.v)", "sum(b.v)", "min(b.s)"]);
        format!("SELECT a.k, (SELECT {call} FROM {b} WHERE b.k = a.k) AS c FROM {a}")
    }),
    ("scalar_correlated_count", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        let value = g.pick(&["count(*)", "count(b.v)", "count(*) + 1", "COALESCE(sum(b.v), 0)"]);
        match g.chance(0.5) {
            true => format!("SELECT a.k, (SELECT {value} FROM {b} WHERE b.k = a.k) AS c FROM {a}"),
            false => format!(
                "SELECT a.k, a.v FROM {a} WHERE (SELECT {value} FROM {b} WHERE b.k = a.k) {} 1",
                g.comparison()
            ),
        }
    }),
    ("scalar_is_null", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        let is = g.pick(&["IS NULL", "IS NOT NULL"]);
        let scalar = format!(
            "(SELECT b.k FROM {b} WHERE b.k > {} ORDER BY b.k LIMIT 1)",
            g.number(0, 5)
        );
        match g.number(0, 2) {
            0 => format!("SELECT a.k FROM {a} WHERE {scalar} {is}"),
            1 => format!("SELECT a.k, COALESCE({scalar}, -7) AS c FROM {a}"),
            _ => format!("SELECT a.k, CASE WHEN {scalar} {is} THEN 1 ELSE 2 END AS c FROM {a}"),
        }
    }),
    ("scalar_in_arithmetic", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        format!("SELECT a.k, a.v - (SELECT max(b.v) FROM {b}) AS c FROM {a}")
    }),
    ("any_all", |g| {
        let (a, b, op) = (g.from("a"), g.from("b"), g.comparison());
        let quantifier = g.pick(&["ANY", "ALL"]);
        format!(
            "SELECT a.k, a.v FROM {a} WHERE a.v {op} {quantifier} (SELECT b.v FROM {b}{})",
            g.filter(&["b"])
        )
    }),
    ("any_all_same_table", |g| {
        let (table, op) = (g.pick(&["t", "u", "w"]), g.comparison());
        let quantifier = g.pick(&["ANY", "ALL"]);
        format!(
            "SELECT k, v FROM {table} WHERE v {op} {quantifier} (SELECT v FROM {table} WHERE k <= {})",
            g.number(0, 2)
        )
    }),
    ("lateral", |g| {
        let (a, b) = (g.from("a"), g.from("b"));
        let having = g.pick(&["", " HAVING count(*) > 0"]);
        format!(
            "SELECT a.k, q.c FROM {a} CROSS JOIN LATERAL (SELECT sum(b.v) AS c FROM {b} WHERE b.k = a.k{having}) AS q"
        )
    }),
    ("derived", |g| {
        let (a, inner) = (g.from("a"), g.filter(&["a"]));
        format!(
            "SELECT q.k, q.c FROM (SELECT a.k, a.v + 1 AS c, a.s FROM {a}{inner}) AS q WHERE q.c > {} OR q.s IS NULL",
            g.number(0, 4)
        )
    }),
    ("cte", |g| {
        let (a, inner) = (g.from("a"), g.filter(&["a"]));
        let kind = g.pick(&["JOIN", "LEFT JOIN"]);
        format!(
            "WITH q AS (SELECT a.k, a.v, a.s FROM {a}{inner}) SELECT x.k, x.s, y.v FROM q AS x {kind} q AS y ON x.k = y.v"
        )
    }),
    ("values", |g| {
        let (a, kind) = (g.from("a"), g.pick(&["JOIN", "LEFT JOIN"]));
        format!(
            "SELECT a.k, a.s, q.n FROM {a} {kind} (VALUES (0, 'zero'), (1, 'one'), (NULL, 'none')) AS q(i, n) ON a.k = q.i"
        )
    }),
];

impl Generator {
    /// A condition that a column of `a` is IN the rows of another table.
    fn in_subquery(&mut self, not: &str) -> String {
        let of = self.pick(&[Of::Int, Of::Int, Of::Text]);
        let (one, other) = (self.column("a", of), self.column("b", of));
        format!(
            "{one} {not}IN (SELECT {other} FROM {}{})",
            self.from("b"),
            self.filter(&["b"])
        )
    }
}
