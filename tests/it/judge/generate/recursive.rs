//! Families on recursive queries: `k` and `v` of a table are the ends of an edge, with so few different values that
//! paths meet and form cycles.

use super::{Family, Generator, Of};

pub const FAMILIES: &[Family] = &[
    ("recursive_reached", |g| {
        let (base, step) = (g.edges("a"), g.edges("b"));
        let filter = g.more(&["r", "b"], "r.e < 5");
        let query = format!("SELECT r.c, b.v FROM r JOIN {step} ON b.k = r.e{filter}");
        let rows = g.rows_of("r", "c", "e");
        format!("WITH RECURSIVE r (c, e) AS (SELECT a.k, a.v FROM {base} UNION {query}) {rows}")
    }),
    ("recursive_from_one", |g| {
        let (from, step) = (g.number(-1, 3), g.edges("b"));
        let distinct = g.pick(&["", "DISTINCT "]);
        let query = format!("SELECT {distinct}b.v FROM {step}, r WHERE b.k = r.n");
        let rows = g.pick(&[
            "SELECT n FROM r",
            "SELECT count(*) AS n, sum(n) AS s FROM r",
            "SELECT x.n, y.n AS m FROM r AS x LEFT JOIN r AS y ON y.n = x.n + 1",
        ]);
        format!("WITH RECURSIVE r AS (SELECT CAST({from} AS BIGINT) AS n UNION {query}) {rows}")
    }),
    ("recursive_paths", |g| {
        let (base, step, most) = (g.edges("a"), g.edges("b"), g.number(1, 3));
        let filter = g.more(&["b"], "b.v <> 0");
        format!(
            "WITH RECURSIVE r (c, e, q, p, d) AS ( \
             SELECT a.k, a.v, a.v * 2, CAST(a.k AS TEXT), 1 FROM {base} \
             UNION ALL SELECT r.c, b.v, r.q * b.v, r.p || '/' || COALESCE(CAST(b.v AS TEXT), '-'), r.d + 1 \
             FROM r JOIN {step} ON b.k = r.e WHERE r.d < {most}{}) SELECT c, e, q, p, d FROM r",
            filter.replacen(" WHERE ", " AND ", 1)
        )
    }),
    ("recursive_quantities", |g| {
        let (base, step) = (g.edges("a"), g.edges("b"));
        format!(
            "WITH RECURSIVE r (c, e, q) AS (SELECT a.k, a.v, CAST(2 AS BIGINT) FROM {base} \
             UNION ALL SELECT r.c, b.v, r.q * 3 FROM r JOIN {step} ON b.k = r.e AND b.v > r.e) \
             SELECT c, e, sum(q) AS q, count(*) AS n FROM r GROUP BY c, e"
        )
    }),
    ("recursive_hops", |g| {
        let (base, step, most) = (g.edges("a"), g.edges("b"), g.number(2, 5));
        format!(
            "WITH RECURSIVE r (c, e, d) AS (SELECT a.k, a.v, 1 FROM {base} \
             UNION SELECT r.c, b.v, r.d + 1 FROM {step} JOIN r ON b.k = r.e WHERE r.d < {most}) \
             SELECT c, e, min(d) AS d FROM r GROUP BY c, e"
        )
    }),
    ("recursive_joins", |g| {
        let (base, all, most) = (g.edges("a"), g.pick(&["UNION ALL", "UNION"]), g.number(1, 2));
        let (step, other) = (g.edges("b"), g.edges("f"));
        let query = match g.number(0, 7) {
            0 => format!("SELECT r.e, b.v, r.d + 1 FROM r LEFT JOIN {step} ON b.k = r.e"),
            1 => format!("SELECT r.e, b.v, r.d + 1 FROM {step} RIGHT JOIN r ON b.k = r.e AND b.v > r.d"),
            2 => format!("SELECT r.e, r.c, r.d + 1 FROM r WHERE EXISTS (SELECT 1 FROM {step} WHERE b.k = r.e)"),
            3 => format!(
                "SELECT r.e, r.c, r.d + 1 FROM r WHERE NOT EXISTS (SELECT 1 FROM {step} WHERE b.k = r.e AND b.v < r.c)"
            ),
            4 => format!("SELECT r.e, r.c, r.d + 1 FROM r WHERE r.e IN (SELECT b.v FROM {step}) OR r.c IS NULL"),
            5 => format!("SELECT r.e, (SELECT max(b.v) FROM {step} WHERE b.k = r.e) AS m, r.d + 1 FROM r"),
            6 => format!("SELECT x.e, b.v, x.d + 1 FROM (SELECT r.e, r.d FROM r WHERE r.c > 1) AS x CROSS JOIN {step}"),
            _ => format!("SELECT r.e, f.v, r.d + 1 FROM r JOIN {step} ON b.k = r.e LEFT JOIN {other} ON f.k = b.v"),
        };
        let joined = query.contains(" WHERE ") && !query.contains("AS x CROSS");
        let bound = if query.contains("AS x ") { "x.d" } else { "r.d" };
        let and = match (joined, query.contains(" OR ")) {
            (true, true) => query.replacen(" WHERE ", &format!(" WHERE {bound} <= {most} AND ("), 1) + ")",
            (true, false) => query.replacen(" FROM r WHERE ", &format!(" FROM r WHERE {bound} <= {most} AND "), 1),
            (false, _) => format!("{query} WHERE {bound} <= {most}"),
        };
        format!("WITH RECURSIVE r (c, e, d) AS (SELECT a.k, a.v, 1 FROM {base} {all} {and}) SELECT c, e, d FROM r")
    }),
    ("recursive_series", |g| {
        let (from, to) = (g.number(-3, 2), g.number(-1, 12));
        match g.number(0, 3) {
            0 => format!(
                "WITH RECURSIVE r (n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM r WHERE n < {to}) SELECT n FROM r"
            ),
            1 => format!(
                "WITH RECURSIVE r AS (SELECT DATE '2024-02-27' AS n UNION ALL SELECT n + 1 FROM r WHERE n < DATE '2024-03-02') \
                 SELECT r.n, count(a.dt) AS c FROM r LEFT JOIN {} ON a.dt >= r.n GROUP BY r.n",
                g.from("a")
            ),
            2 => format!(
                "WITH RECURSIVE r (n, m) AS (SELECT 0, 1 UNION ALL SELECT m, n + m FROM r WHERE m < {}) SELECT n, m FROM r",
                to * 10
            ),
            _ => format!(
                "WITH RECURSIVE r (n, s) AS (VALUES (1, CAST('x' AS TEXT)) UNION ALL \
                 SELECT n + 1, CASE WHEN n % 2 = 0 THEN s || 'a' ELSE 'b' || s END FROM r WHERE n < {to}) SELECT n, s FROM r"
            ),
        }
    }),
    ("recursive_beside", |g| {
        let (base, step) = (g.edges("a"), g.edges("b"));
        let last = g.pick(&[
            "SELECT x.c, x.e, z.k FROM r AS x JOIN z ON z.k = x.e",
            "SELECT DISTINCT c FROM r WHERE e IN (SELECT k FROM z)",
            "SELECT c, e FROM r EXCEPT SELECT k, k FROM z",
            "SELECT k, (SELECT count(*) FROM r WHERE r.c = z.k) AS n FROM z",
        ]);
        let (first, second) = (
            format!("r (c, e) AS (SELECT a.k, a.v FROM {base} UNION SELECT r.c, y.v FROM r JOIN y ON y.k = r.e)"),
            format!("y AS (SELECT b.k, b.v FROM {step} WHERE b.v IS NOT NULL), z AS (SELECT k FROM y GROUP BY k)"),
        );
        // Queries of a WITH RECURSIVE may use later ones.
        match g.chance(0.5) {
            true => format!("WITH RECURSIVE {first}, {second} {last}"),
            false => format!("WITH RECURSIVE {second}, {first} {last}"),
        }
    }),
    ("recursive_inside", |g| {
        let (base, step, outer) = (g.edges("a"), g.edges("b"), g.from("o"));
        let query = format!(
            "WITH RECURSIVE r (c, e) AS (SELECT a.k, a.v FROM {base} UNION SELECT r.c, b.v FROM r JOIN {step} ON b.k = r.e)"
        );
        match g.number(0, 2) {
            0 => format!("SELECT o.k, x.e FROM {outer} JOIN ({query} SELECT c, e FROM r) AS x ON x.c = o.k"),
            1 => format!("SELECT o.k, o.v FROM {outer} WHERE o.k IN ({query} SELECT e FROM r)"),
            _ => format!(
                "WITH RECURSIVE s (n) AS (SELECT c FROM ({query} SELECT c FROM r) AS i UNION SELECT s.n + 1 FROM s WHERE s.n < 4) SELECT n FROM s"
            ),
        }
    }),
];

impl Generator {
    /// Edges whose two ends have the same type.
    fn edges(&mut self, alias: &str) -> String {
        let table = self.pick(&["t", "u", "w"]);
        format!("(SELECT CAST(k AS BIGINT) AS k, v FROM {table}) AS {alias}")
    }

    /// A ` WHERE ...` clause with a condition over one of these, or sometimes with `plain`, or nothing.
    fn more(&mut self, aliases: &[&str], plain: &str) -> String {
        match self.number(0, 2) {
            0 => format!(" WHERE {plain}"),
            1 if aliases.contains(&"r") => " WHERE COALESCE(r.e, 0) <= COALESCE(b.v, 7)".to_string(),
            1 => format!(" WHERE b.v {} {}", self.comparison(), self.literal(Of::Int)),
            _ => String::new(),
        }
    }

    /// A query over the rows of a recursive query.
    fn rows_of(&mut self, name: &str, one: &str, other: &str) -> String {
        match self.number(0, 3) {
            0 => format!("SELECT {one}, count(*) AS n, max({other}) AS m FROM {name} GROUP BY {one}"),
            1 => format!("SELECT x.{one}, y.{other} FROM {name} AS x JOIN {name} AS y ON x.{other} = y.{one}"),
            _ => format!("SELECT {one}, {other} FROM {name}"),
        }
    }
}
