//! Families on joins and set operations.

use super::{Family, Generator, Of};

pub const FAMILIES: &[Family] = &[
    ("join_inner", |g| g.join("JOIN", Residual::None)),
    ("join_outer", |g| {
        let kind = g.pick(&["LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        g.join(kind, Residual::None)
    }),
    ("join_residual", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
        g.join(kind, Residual::Any)
    }),
    ("join_full_residual", |g| g.join("FULL JOIN", Residual::Any)),
    ("join_constant", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        g.join(kind, Residual::Constant)
    }),
    ("join_without_equality", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
        format!(
            "SELECT a.k AS c, b.k AS e, b.s AS f FROM {} {kind} {} ON a.k {} b.v",
            g.from("a"),
            g.from("b"),
            g.pick(&["<", ">", "<>"])
        )
    }),
    ("join_using", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN"]);
        g.using(kind)
    }),
    ("join_using_full", |g| {
        let kind = g.pick(&["RIGHT JOIN", "FULL JOIN"]);
        g.using(kind)
    }),
    ("join_using_three", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN", "FULL JOIN"]);
        let three = [g.part("v1"), g.part("v2"), g.part("v3")];
        format!(
            "SELECT k, v1, v2, v3 FROM {} a {kind} {} b USING (k) {kind} {} c USING (k)",
            three[0], three[1], three[2]
        )
    }),
    ("join_natural", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN"]);
        format!("SELECT * FROM {} a NATURAL {kind} {} b", g.part("v1"), g.part("v2"))
    }),
    ("join_natural_full", |g| {
        let kind = g.pick(&["RIGHT JOIN", "FULL JOIN"]);
        format!("SELECT * FROM {} a NATURAL {kind} {} b", g.part("v1"), g.part("v2"))
    }),
    ("join_three", |g| {
        let kinds = [
            g.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]),
            g.pick(&["JOIN", "LEFT JOIN", "FULL JOIN"]),
        ];
        format!(
            "SELECT a.k AS c, b.v AS e, c.s AS f FROM {} {} {} ON a.k = b.k {} {} ON {} = c.{}{}",
            g.from("a"),
            kinds[0],
            g.from("b"),
            kinds[1],
            g.from("c"),
            g.pick(&["a.k", "b.k", "b.v"]),
            g.pick(&["k", "v"]),
            g.filter(&["a", "b", "c"]),
        )
    }),
    ("join_null_safe", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN"]);
        let of = g.pick(&[Of::Int, Of::Text]);
        let on = format!("{} IS NOT DISTINCT FROM {}", g.column("a", of), g.column("b", of));
        format!(
            "SELECT a.k AS c, b.k AS e FROM {} {kind} {} ON {on}",
            g.from("a"),
            g.from("b")
        )
    }),
    ("join_null_safe_beside_equality", |g| {
        let kind = g.pick(&["JOIN", "LEFT JOIN"]);
        format!(
            "SELECT a.k AS c, b.k AS e, c.k AS f FROM {} JOIN {} ON a.k = b.k {kind} {} ON (b.v IS NOT DISTINCT FROM c.v)",
            g.from("a"),
            g.from("b"),
            g.from("c")
        )
    }),
    ("join_cross", |g| {
        format!(
            "SELECT a.k AS c, b.v AS e FROM {} CROSS JOIN {}{}",
            g.from("a"),
            g.from("b"),
            g.filter(&["a", "b"])
        )
    }),
    ("join_derived_constant", |g| {
        let kind = g.pick(&["LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let (a, b) = (g.from("a"), g.from("b"));
        format!(
            "SELECT a.k AS c, q.one, q.n FROM {a} {kind} (SELECT b.k, 1 AS one, count(*) AS n FROM {b} GROUP BY b.k) AS q ON a.k = q.k"
        )
    }),
    ("join_decimals", |g| {
        let (one, other) = (g.column("a", Of::Decimal), g.column("b", Of::Decimal));
        format!(
            "SELECT a.k AS c, b.k AS e FROM {} JOIN {} ON {one} = {other}",
            g.from("a"),
            g.from("b")
        )
    }),
    ("union_all", |g| g.set("UNION ALL")),
    ("union", |g| g.set("UNION")),
    ("intersect", |g| g.set("INTERSECT")),
    ("except", |g| g.set("EXCEPT")),
    ("intersect_all", |g| g.set("INTERSECT ALL")),
    ("except_all", |g| g.set("EXCEPT ALL")),
    ("set_nested", |g| {
        let (one, other) = (
            g.pick(&["UNION", "EXCEPT", "UNION ALL"]),
            g.pick(&["INTERSECT", "UNION"]),
        );
        let three = [g.side("k, s"), g.side("k, s"), g.side("k, s")];
        format!("{} {one} ({} {other} {})", three[0], three[1], three[2])
    }),
    ("union_of_types", |g| {
        let (one, other) = g.pick(&[("d", "e"), ("d", "v"), ("k", "d"), ("x", "v"), ("d", "x"), ("k", "big")]);
        let op = g.pick(&["UNION", "UNION ALL"]);
        format!(
            "SELECT a.{one} AS c FROM {} {op} SELECT b.{other} AS c FROM {}",
            g.from("a"),
            g.from("b")
        )
    }),
];

/// The condition in ON besides an equality.
#[derive(PartialEq)]
enum Residual {
    None,
    Any,
    Constant,
}

impl Generator {
    fn join(&mut self, kind: &str, residual: Residual) -> String {
        let of = self.pick(&[Of::Int, Of::Int, Of::Text]);
        let (one, other) = (self.column("a", of), self.column("b", of));
        let more = match residual {
            Residual::None => String::new(),
            Residual::Any => format!(" AND {}", self.condition(&["a", "b"], 1)),
            Residual::Constant => {
                let side = self.pick(&["a", "b"]);
                format!(
                    " AND {} = {}",
                    self.number(-1, 3),
                    self.pick(&[format!("{side}.k"), format!("{side}.v"), "0".to_string()])
                )
            }
        };
        let filter = if residual == Residual::None {
            self.filter(&["a", "b"])
        } else {
            String::new()
        };
        format!(
            "SELECT a.k AS c, a.s AS e, b.v AS f, b.s AS h FROM {} {kind} {} ON {one} = {other}{more}{filter}",
            self.from("a"),
            self.from("b")
        )
    }

    /// A part of a table whose second column gets this name.
    fn part(&mut self, second: &str) -> String {
        format!("(SELECT p.k, p.v AS {second} FROM {})", self.from("p"))
    }

    fn using(&mut self, kind: &str) -> String {
        let columns = self.pick(&["k", "k, s"]);
        let shown = self.pick(&["k, s", "*"]);
        let (one, other) = (self.from("p"), self.from("p"));
        match (columns, shown) {
            ("k", "*") => format!(
                "SELECT * FROM {} a {kind} {} b USING (k)",
                self.part("v1"),
                self.part("v2")
            ),
            ("k", _) => format!(
                "SELECT k, v1, v2 FROM {} a {kind} {} b USING (k)",
                self.part("v1"),
                self.part("v2")
            ),
            _ => format!(
                "SELECT {shown} FROM (SELECT p.k, p.s, p.v AS v1 FROM {one}) a {kind} (SELECT p.k, p.s, p.v AS v2 FROM {other}) b USING (k, s)"
            ),
        }
    }

    fn side(&mut self, columns: &str) -> String {
        format!("SELECT {columns} FROM {}{}", self.from("a"), self.filter(&["a"]))
    }

    fn set(&mut self, op: &str) -> String {
        let columns = self.pick(&["k", "s", "k, s", "b, v"]);
        format!("{} {op} {}", self.side(columns), self.side(columns))
    }
}
