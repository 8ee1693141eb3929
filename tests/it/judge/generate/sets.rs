//! Families on set operations that count rows, in chains and nested; and on joins by column names.

use super::{Family, Generator};

const OPERATIONS: [&str; 6] = [
    "UNION ALL",
    "UNION",
    "EXCEPT ALL",
    "EXCEPT",
    "INTERSECT ALL",
    "INTERSECT",
];

const KINDS: [&str; 4] = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];

pub const FAMILIES: &[Family] = &[
    ("set_chain", |g| {
        let [one, other] = [0; 2].map(|_| g.pick(&OPERATIONS));
        let sides = [0; 3].map(|_| g.few());
        format!("{} {one} {} {other} {}", sides[0], sides[1], sides[2])
    }),
    ("set_within", |g| {
        let [one, other] = [0; 2].map(|_| g.pick(&OPERATIONS));
        let sides = [0; 3].map(|_| g.few());
        match g.chance(0.5) {
            true => format!("{} {one} ({} {other} {})", sides[0], sides[1], sides[2]),
            false => format!("({} {one} {}) {other} {}", sides[0], sides[1], sides[2]),
        }
    }),
    ("set_below", |g| {
        let op = g.pick(&["EXCEPT ALL", "INTERSECT ALL"]);
        let (one, other) = (g.few(), g.few());
        match g.number(0, 3) {
            0 => format!("SELECT q.c, count(*) AS n FROM ({one} {op} {other}) AS q GROUP BY q.c"),
            1 => format!("SELECT q.c FROM ({one} {op} {other}) AS q WHERE q.c > 0 OR q.c IS NULL"),
            2 => format!(
                "SELECT q.c, r.v FROM ({one} {op} {other}) AS q LEFT JOIN {} ON q.c = r.k",
                g.from("r")
            ),
            _ => format!("SELECT DISTINCT q.c FROM ({one} {op} {other}) AS q"),
        }
    }),
    ("set_of_types", |g| {
        let op = g.pick(&["EXCEPT ALL", "INTERSECT ALL", "EXCEPT", "INTERSECT"]);
        let (one, other) = g.pick(&[
            ("k", "v"),
            ("d", "v"),
            ("k", "d"),
            ("d", "e"),
            ("x", "v"),
            ("v", "x"),
            ("e", "d"),
        ]);
        format!(
            "SELECT a.{one} AS c FROM {} {op} SELECT b.{other} FROM {}",
            g.from("a"),
            g.from("b")
        )
    }),
    ("set_of_constants", |g| {
        let op = g.pick(&["EXCEPT ALL", "INTERSECT ALL", "EXCEPT", "INTERSECT"]);
        let constants = g.pick(&[
            "SELECT 1, NULL",
            "SELECT NULL, 2",
            "VALUES (1, 2), (1, 2), (NULL, 2), (3, NULL)",
        ]);
        let from = g.from("a");
        match g.chance(0.5) {
            true => format!("SELECT a.k AS c, a.v AS e FROM {from} {op} {constants}"),
            false => format!("SELECT 1 AS c, 2 AS e UNION ALL SELECT NULL, 2 {op} SELECT a.k, a.v FROM {from}"),
        }
    }),
    ("using_shown", |g| {
        let kind = g.pick(&KINDS);
        let shown = g.pick(&[
            "*",
            "k, a.k AS e, b.k AS f",
            "a.*, b.v2",
            "b.*, a.v1",
            "k + 1 AS e, v1",
            "v2, k",
            "k AS kk, COALESCE(k, 0) AS e, v1, v2",
        ]);
        let filter = g.pick(&[
            "",
            "",
            " WHERE k > 0",
            " WHERE k IS NULL",
            " WHERE a.k IS NULL OR k = 1",
        ]);
        format!(
            "SELECT {shown} FROM {} {kind} {} USING (k){filter}",
            g.half("a", 1),
            g.half("b", 2)
        )
    }),
    ("using_columns", |g| {
        let kind = g.pick(&KINDS);
        let shown = g.pick(&["*", "s, k, a.s AS e, b.k AS f", "k, v1, v2, s"]);
        let by = g.pick(&["USING (k, s)", "USING (s, k)", "USING (s)"]);
        let shown = if by == "USING (s)" {
            "s, a.k AS e, b.k AS f, v1, v2"
        } else {
            shown
        };
        let half = |g: &mut Generator, n: usize| format!("(SELECT p.v AS v{n}, p.s, p.k FROM {})", g.from("p"));
        let (one, other) = (half(g, 1), half(g, 2));
        format!("SELECT {shown} FROM {one} AS a {kind} {other} AS b {by}")
    }),
    ("using_grouped", |g| {
        let kind = g.pick(&KINDS);
        let sides = (g.half("a", 1), g.half("b", 2));
        let shown = g.pick(&[
            ("k, count(*) AS n, sum(v2) AS e", " GROUP BY k"),
            ("k, count(*) AS n", " GROUP BY k HAVING k > 0 OR count(*) > 1"),
            ("k % 2 AS e, max(v1) AS f", " GROUP BY k % 2"),
            ("DISTINCT k", ""),
            ("count(k) AS n, count(DISTINCT k) AS e", ""),
            ("k, v1, v2, count(*) OVER (PARTITION BY k) AS n", ""),
        ]);
        format!(
            "SELECT {} FROM {} {kind} {} USING (k){}",
            shown.0, sides.0, sides.1, shown.1
        )
    }),
    ("using_ordered", |g| {
        let kind = g.pick(&KINDS);
        let order = g.pick(&["k", "k DESC", "k NULLS FIRST", "-k, 1"]);
        let sides = (g.half("a", 1), g.half("b", 2));
        format!(
            "SELECT k FROM {} {kind} {} USING (k) ORDER BY {order} LIMIT {}",
            sides.0,
            sides.1,
            g.number(1, 4)
        )
    }),
    ("using_chain", |g| {
        let [one, other] = [0; 2].map(|_| g.pick(&KINDS));
        let shown = g.pick(&["*", "k, v1, v2, v3", "k, a.k AS e, b.k AS f, c.k AS h"]);
        let three = (g.half("a", 1), g.half("b", 2), g.half("c", 3));
        match g.number(0, 2) {
            0 => format!(
                "SELECT {shown} FROM {} {one} {} USING (k) {other} {} USING (k)",
                three.0, three.1, three.2
            ),
            1 => format!(
                "SELECT {shown} FROM {} {one} ({} {other} {} USING (k)) USING (k)",
                three.0, three.1, three.2
            ),
            _ => format!(
                "SELECT k, v1, v2, v3 FROM {} {one} {} USING (k) {} (SELECT p.v AS v3 FROM {}) AS c ON k = v3",
                three.0,
                three.1,
                g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]),
                g.from("p")
            ),
        }
    }),
    ("using_below", |g| {
        let kind = g.pick(&KINDS);
        let sides = (g.half("a", 1), g.half("b", 2));
        match g.number(0, 2) {
            0 => format!(
                "SELECT * FROM (SELECT * FROM {} {kind} {} USING (k)) AS q WHERE q.k > 0",
                sides.0, sides.1
            ),
            1 => format!(
                "WITH q AS (SELECT * FROM {} {kind} {} USING (k)) SELECT * FROM q NATURAL {} {}",
                sides.0,
                sides.1,
                g.pick(&KINDS),
                g.half("c", 3)
            ),
            _ => format!(
                "SELECT k, v1 FROM {} {kind} {} USING (k) WHERE EXISTS (SELECT 1 FROM (SELECT p.v AS w FROM {}) AS r WHERE r.w = k)",
                sides.0,
                sides.1,
                g.from("p")
            ),
        }
    }),
    ("natural", |g| {
        let kind = g.pick(&KINDS);
        let half = |g: &mut Generator, columns: &str| format!("(SELECT {columns} FROM {})", g.from("p"));
        let (one, other) = (half(g, "p.v AS v1, p.k, p.s"), half(g, "p.s, p.v AS v2, p.k"));
        let shown = g.pick(&["*", "s, v1, v2, k", "a.*", "k, b.s AS e"]);
        format!("SELECT {shown} FROM {one} AS a NATURAL {kind} {other} AS b")
    }),
];

impl Generator {
    /// A query of one column with few values, so that many rows are equal.
    fn few(&mut self) -> String {
        let column = self.pick(&["k", "k", "v"]);
        format!("SELECT a.{column} AS c FROM {}{}", self.from("a"), self.filter(&["a"]))
    }

    /// A side of a join by name: `k`, and `v` under a numbered name.
    fn half(&mut self, alias: &str, number: usize) -> String {
        let columns = self.pick(&["p.k, p.v AS v", "p.v AS v"]);
        let rest = if columns.starts_with("p.k") { "" } else { ", p.k" };
        format!("(SELECT {columns}{number}{rest} FROM {}) AS {alias}", self.from("p"))
    }
}
