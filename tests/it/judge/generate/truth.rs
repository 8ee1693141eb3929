//! Families on nested three-valued logic: conditions of every form within each other, in every place that allows one.

use super::{Family, Generator, Of};

pub const FAMILIES: &[Family] = &[
    ("truth_shown", |g| {
        let (one, other) = (g.truth(&["a"], 3), g.number_of(&["a"], 2));
        format!("SELECT a.k, a.v, a.b, {one} AS c, {other} AS e FROM {}", g.from("a"))
    }),
    ("truth_where", |g| {
        let kept = g.truth(&["a"], 3);
        format!("SELECT a.k, a.v, a.s FROM {} WHERE {kept}", g.from("a"))
    }),
    ("truth_below", |g| {
        let (made, kept) = (g.truth(&["a"], 2), g.number_of(&["a"], 1));
        let above = g.pick(&[
            "q.c",
            "NOT q.c",
            "q.c IS NULL",
            "q.c IS NOT TRUE",
            "q.n IN (1, 2, NULL)",
            "q.n = 1 OR q.c",
        ]);
        let distinct = g.pick(&["", "DISTINCT "]);
        format!(
            "SELECT q.k, q.c, q.n FROM (SELECT {distinct}a.k, {made} AS c, {kept} AS n FROM {}) AS q WHERE {above}",
            g.from("a")
        )
    }),
    ("truth_on", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
        g.truth_join(kind, "")
    }),
    ("truth_on_key", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        g.truth_join(kind, "a.k = b.k AND ")
    }),
    ("truth_above_join", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let sides = g.pick(&[&["a"][..], &["b"][..], &["a", "b"][..]]);
        let (on, kept) = (g.truth(&["a", "b"], 1), g.truth(sides, 2));
        format!(
            "SELECT a.k AS c, a.v AS e, b.k AS f, b.s AS h FROM {} {kind} {} ON a.k = b.k AND {on} WHERE {kept}",
            g.from("a"),
            g.from("b")
        )
    }),
    ("truth_comma", |g| {
        let kept = g.truth(&["a", "b", "c"], 2);
        let keys = g.pick(&[
            "a.k = c.k AND b.v = c.v",
            "a.k = b.k AND b.s = c.s",
            "a.k = b.k AND b.v IS NOT DISTINCT FROM c.v",
            "a.v IS NOT DISTINCT FROM c.v AND c.k = b.k",
        ]);
        format!(
            "SELECT a.k AS c, b.v AS e, c.s AS f FROM {}, {}, {} WHERE {keys} AND {kept}",
            g.from("a"),
            g.from("b"),
            g.from("c")
        )
    }),
    ("truth_having", |g| {
        let (of, test) = (
            g.truth(&["a"], 1),
            g.pick(&["IN (1, 2)", "NOT IN (1, 3)", "BETWEEN 1 AND 3"]),
        );
        let more = g.pick(&["bool_or(a.b)", "max(a.v) IS NULL", "count(*) > 1", "min(a.s) <> 'a'"]);
        let op = g.pick(&["AND", "OR"]);
        format!(
            "SELECT a.k, count(*) AS n, bool_and({of}) AS c FROM {} GROUP BY a.k HAVING max(a.v) {test} {op} {more}",
            g.from("a")
        )
    }),
    ("truth_having_alone", |g| {
        let having = g.pick(&[
            "false",
            "NULL IS NULL",
            "1 = 2 OR count(*) > 1",
            "max(a.v) IN (1, 2, NULL)",
            "NULL = 1 OR count(*) = 0",
        ]);
        let kept = g.truth(&["a"], 1);
        format!(
            "SELECT count(*) AS n, max(a.v) AS c FROM {} WHERE {kept} HAVING {having}",
            g.from("a")
        )
    }),
    ("truth_filter", |g| {
        let (one, other) = (g.truth(&["a"], 2), g.truth(&["a"], 2));
        format!(
            "SELECT a.b, count(*) FILTER (WHERE {one}) AS n, sum(CASE WHEN {other} THEN a.k END) AS c FROM {} GROUP BY a.b",
            g.from("a")
        )
    }),
    ("truth_grouped", |g| {
        let by = g.truth(&["a"], 2);
        format!("SELECT {by} AS c, count(*) AS n FROM {} GROUP BY 1", g.from("a"))
    }),
    ("truth_window", |g| {
        let (of, kept) = (g.truth(&["a"], 1), g.truth(&["a"], 1));
        format!(
            "SELECT q.k, q.v, q.n FROM (SELECT a.k, a.v, a.b, count(*) FILTER (WHERE {of}) OVER (PARTITION BY a.k) AS n FROM {}) AS q WHERE {}",
            g.from("a"),
            kept.replace("a.", "q.").replace("q.s", "'a'")
        )
    }),
    ("row_in", |g| {
        let rows: Vec<String> = (0..g.number(1, 3))
            .map(|_| {
                let (one, other) = (g.number(-1, 3).to_string(), g.number(-1, 7).to_string());
                format!(
                    "({}, {})",
                    g.pick(&[one, "NULL".to_string()]),
                    g.pick(&[other, "a.k".to_string()])
                )
            })
            .collect();
        let one = format!("(a.k, a.v) {}IN ({})", g.pick(&["", "NOT "]), rows.join(", "));
        g.shown_or_kept(&one)
    }),
    ("row_compare_three", |g| {
        let op = g.comparison();
        let (k, v) = (g.number(-1, 3), g.number(-1, 7));
        let one = g.pick(&[
            format!("(a.k, a.v, a.s) {op} ({k}, {v}, 'a')"),
            format!("ROW(a.k, a.v) {op} ROW({k}, {v})"),
            format!("(a.k, a.v) {op} (a.v, a.k)"),
            format!("(a.s, a.k) {op} ('a', {k})"),
            format!("(a.k, a.v) BETWEEN ({k}, 0) AND ({k} + 1, {v})"),
            format!("(a.k, a.v) IS DISTINCT FROM ({k}, {v})"),
            format!("(a.k, NULL) {op} ({k}, {v})"),
        ]);
        g.shown_or_kept(&one)
    }),
    ("precedence", |g| {
        let is = g.pick(&["IS DISTINCT FROM", "IS NOT DISTINCT FROM"]);
        let (n, op) = (g.number(-1, 4), g.comparison());
        let one = g.pick(&[
            format!("NOT a.k {is} {n} AND a.b"),
            format!("a.k {op} {n} {is} a.b"),
            format!("a.k + 1 {is} a.v - {n} OR a.b IS NULL"),
            format!("a.s || 'x' LIKE 'a' || '%' AND a.k {op} {n}"),
            format!("NOT a.k BETWEEN {n} AND a.v AND a.b"),
            format!("a.k BETWEEN {n} AND a.v = a.b"),
            format!("a.k {op} {n} IS NOT TRUE OR NOT a.b"),
            format!("NOT a.k {op} {n} IS NULL"),
            format!("a.k IN ({n}, 1) = a.b"),
            format!("a.b OR a.k {op} {n} AND NOT a.b"),
            format!("a.k & 3 {op} {n} | 1"),
            format!("a.k # 3 {op} {n} + 1"),
            format!("- a.k::BIGINT {op} {n}"),
            "a.s ~ 'a' = a.b".to_string(),
            "a.s || 'a' ~ 'aa'".to_string(),
            format!("a.b = (a.k {op} {n}) IS NOT NULL"),
        ]);
        g.shown_or_kept(&one)
    }),
    ("power_beside", |g| {
        let n = g.number(1, 3);
        let one = g.pick(&[
            format!("- a.k ^ {n}"),
            format!("2 * a.k ^ {n} + a.v"),
            format!("a.x ^ {n} ^ 2"),
            "(a.k + 1) ^ 2 - (a.v # 1)".to_string(),
            format!("2 ^ {n}"),
        ]);
        format!("SELECT a.k, a.v, {one} AS c FROM {}", g.from("a"))
    }),
];

impl Generator {
    /// A condition on columns and constants that may be null, nested to this depth.
    pub(super) fn truth(&mut self, aliases: &[&str], depth: usize) -> String {
        if depth == 0 {
            return match self.number(0, 5) {
                0 => self.pick(&["TRUE", "FALSE", "CAST(NULL AS BOOLEAN)"]).to_string(),
                1 => {
                    let alias = self.pick(aliases);
                    self.column(alias, Of::Bool)
                }
                _ => self.simple(aliases, &[Of::Int, Of::Int, Of::Text]),
            };
        }
        let inner = depth - 1;
        match self.number(0, 11) {
            0 => format!("NOT ({})", self.truth(aliases, inner)),
            1 | 2 => format!("({} AND {})", self.truth(aliases, inner), self.truth(aliases, inner)),
            3 | 4 => format!("({} OR {})", self.truth(aliases, inner), self.truth(aliases, inner)),
            5 => {
                let is = self.pick(&["TRUE", "FALSE", "UNKNOWN", "NULL"]);
                let not = self.pick(&["", "NOT "]);
                format!("(({}) IS {not}{is})", self.truth(aliases, inner))
            }
            6 | 7 => {
                let count = self.number(1, 3);
                let list: Vec<String> = (0..count).map(|_| self.number_of(aliases, inner.min(1))).collect();
                let not = self.pick(&["", "NOT "]);
                format!("({} {not}IN ({}))", self.number_of(aliases, inner), list.join(", "))
            }
            8 => {
                let not = self.pick(&["", "NOT "]);
                let [of, low, high] = [0; 3].map(|_| self.number_of(aliases, inner.min(1)));
                format!("({of} {not}BETWEEN {low} AND {high})")
            }
            9 => {
                let not = self.pick(&["", "NOT "]);
                let [one, other] = [0; 2].map(|_| self.number_of(aliases, inner));
                format!("({one} IS {not}DISTINCT FROM {other})")
            }
            10 => format!(
                "COALESCE({}, {})",
                self.truth(aliases, inner),
                self.truth(aliases, inner)
            ),
            _ => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.truth(aliases, inner),
                self.truth(aliases, inner),
                self.truth(aliases, inner)
            ),
        }
    }

    /// A small number, which may be null.
    pub(super) fn number_of(&mut self, aliases: &[&str], depth: usize) -> String {
        let alias = self.pick(aliases);
        match self.number(0, if depth == 0 { 3 } else { 7 }) {
            0 => self.number(-1, 4).to_string(),
            1 => "CAST(NULL AS BIGINT)".to_string(),
            2 | 3 => self.column(alias, Of::Int),
            4 => format!(
                "COALESCE({}, {})",
                self.number_of(aliases, 0),
                self.number_of(aliases, 0)
            ),
            5 => format!("NULLIF({}, {})", self.number_of(aliases, 0), self.number_of(aliases, 0)),
            6 => format!(
                "CASE {} WHEN {} THEN {} END",
                self.number_of(aliases, 0),
                self.number_of(aliases, 0),
                self.number_of(aliases, 0)
            ),
            _ => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.truth(aliases, depth - 1),
                self.number_of(aliases, 0),
                self.number_of(aliases, 0)
            ),
        }
    }

    fn truth_join(&mut self, kind: &str, key: &str) -> String {
        let on = self.truth(&["a", "b"], 2);
        format!(
            "SELECT a.k AS c, a.s AS e, b.v AS f, b.s AS h FROM {} {kind} {} ON {key}{on}",
            self.from("a"),
            self.from("b")
        )
    }
}
