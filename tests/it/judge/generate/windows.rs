//! Families on window functions and top-k. They order by all shown columns, so that rows that tie are equal.

use super::{Family, Generator};

pub const FAMILIES: &[Family] = &[
    ("ranks", |g| {
        let call = g.pick(&[
            "row_number()",
            "rank()",
            "dense_rank()",
            "percent_rank()",
            "cume_dist()",
            "ntile(3)",
        ]);
        let order = match call {
            "row_number()" | "ntile(3)" => g.order(&["k", "v", "s", "b"]),
            _ => g.order(&["v"]),
        };
        g.window(call, &order)
    }),
    ("lag_lead", |g| {
        let (call, order) = (
            g.pick(&["lag(a.v)", "lead(a.v, 2)", "lag(a.s)", "lag(a.v, 1, 0)"]),
            g.order(&["k", "v", "s", "b"]),
        );
        g.window(call, &order)
    }),
    ("first_last", |g| {
        let (call, order) = (
            g.pick(&["first_value(a.v)", "last_value(a.s)", "nth_value(a.v, 2)"]),
            g.order(&["k", "v", "s", "b"]),
        );
        g.window(call, &order)
    }),
    ("running", |g| {
        let (call, order) = (
            g.pick(&["sum(a.v)", "count(a.v)", "min(a.v)", "max(a.s)", "count(*)"]),
            g.order(&["v", "s"]),
        );
        g.window(call, &order)
    }),
    ("partition_only", |g| {
        let call = g.pick(&["sum(a.v)", "count(*)", "max(a.s)", "min(a.k)"]);
        g.window(call, "")
    }),
    ("window_average", |g| {
        let order = g.order(&["v", "s"]);
        g.window("avg(a.v)", &order)
    }),
    ("frame_rows", |g| {
        let frame = g.rows_frame();
        let call = g.pick(&["sum(a.v)", "count(a.v)", "min(a.v)", "max(a.v)"]);
        let order = format!("{} {frame}", g.order(&["k", "v", "s", "b"]));
        g.window(call, &order)
    }),
    ("frame_range", |g| {
        let frame = g.pick(&[
            "RANGE BETWEEN 1 PRECEDING AND CURRENT ROW",
            "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            "RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING",
        ]);
        let call = g.pick(&["sum(a.v)", "count(*)", "min(a.s)"]);
        let order = format!("ORDER BY a.v{} {frame}", g.pick(&["", " DESC"]));
        g.window(call, &order)
    }),
    ("frame_double", |g| {
        let frame = g.rows_frame();
        let call = g.pick(&["sum(a.y)", "avg(a.y)", "max(a.y)"]);
        let order = g.order(&["y", "k", "v", "s", "b"]);
        format!(
            "SELECT a.k, a.y, {call} OVER ({order} {frame}) AS c FROM (SELECT a.k, a.v, a.s, a.b, a.y FROM {} WHERE a.y <> 1e300) AS a",
            g.from("a")
        )
    }),
    ("frame_decimal", |g| {
        let frame = g.rows_frame();
        let order = g.order(&["d", "k", "v", "s", "b"]);
        format!(
            "SELECT a.k, a.d, sum(a.d) OVER ({order} {frame}) AS c FROM {}",
            g.from("a")
        )
    }),
    ("named_window", |g| {
        let frame = g.rows_frame();
        let (a, order) = (g.from("a"), g.order(&["k", "v", "s", "b"]));
        match g.number(0, 2) {
            0 => format!("SELECT a.k, a.v, a.s, a.b, sum(a.v) OVER w AS c FROM {a} WINDOW w AS ({order} {frame})"),
            1 => format!("SELECT a.k, a.v, a.s, a.b, sum(a.v) OVER (q {frame}) AS c FROM {a} WINDOW q AS ({order})"),
            _ => format!(
                "SELECT a.k, a.v, a.s, a.b, sum(a.v) OVER q2 AS c FROM {a} WINDOW q AS (PARTITION BY a.b), q2 AS (q {order})"
            ),
        }
    }),
    ("window_over_group", |g| {
        format!(
            "SELECT a.k, sum(a.v) AS s, rank() OVER (ORDER BY sum(a.v) DESC) AS r FROM {} GROUP BY a.k",
            g.from("a")
        )
    }),
    ("rank_bound", |g| {
        let call = g.pick(&["row_number()", "rank()", "dense_rank()"]);
        let order = if call == "row_number()" {
            g.order(&["k", "v", "s"])
        } else {
            g.order(&["v"])
        };
        let bound = g.pick(&["r <= 2", "r = 1", "r < 3", "r BETWEEN 1 AND 2"]);
        let a = g.from("a");
        format!(
            "SELECT q.k, q.v, q.s, q.r FROM (SELECT a.k, a.v, a.s, {call} OVER (PARTITION BY a.b {order}) AS r FROM {a}) AS q WHERE q.{bound}"
        )
    }),
    ("rank_bound_fraction", |g| {
        let bound = g.pick(&[
            "q.r < 2.5",
            "q.r = 2.5",
            "q.r <= 1.5",
            "q.r > 0.5",
            "CAST(q.r AS VARCHAR) = '2'",
            "q.r + 0.5 < 3",
            "CAST(q.r AS DOUBLE) <= 1.5",
            "CAST(q.r AS DECIMAL(5,1)) < 2.5",
            "2.5 > q.r",
            "q.r IN (1, 2.5)",
        ]);
        let (a, order) = (g.from("a"), g.order(&["k", "v", "s"]));
        format!(
            "SELECT q.k, q.v, q.s FROM (SELECT a.k, a.v, a.s, row_number() OVER ({order}) AS r FROM {a}) AS q WHERE {bound}"
        )
    }),
    ("zero_ties", |g| {
        // -0.0 and 0.0 must count as one value.
        let a = g.from("a");
        match g.number(0, 4) {
            0 => {
                format!("SELECT a.k, rank() OVER (ORDER BY -a.x) AS r, dense_rank() OVER (ORDER BY a.y) AS d FROM {a}")
            }
            1 => {
                format!("SELECT a.k, count(*) OVER (PARTITION BY a.y) AS n, sum(a.k) OVER (ORDER BY a.y) AS s FROM {a}")
            }
            2 => format!("SELECT count(*) AS n FROM (SELECT DISTINCT a.y FROM {a}) AS q"),
            3 => format!("SELECT a.y, a.k FROM {a} ORDER BY a.y, a.k LIMIT {}", g.number(1, 5)),
            _ => format!("SELECT a.k, b.k AS l FROM {a} JOIN {} ON a.y = b.y", g.from("b")),
        }
    }),
    ("top", |g| {
        let (a, filter, order) = (g.from("a"), g.filter(&["a"]), g.order(&["k", "v", "s"]));
        format!("SELECT a.k, a.v, a.s FROM {a}{filter} {order} LIMIT {}", g.number(1, 5))
    }),
    ("top_offset", |g| {
        let (a, order) = (g.from("a"), g.order(&["v", "k"]));
        format!(
            "SELECT a.k, a.v FROM {a} {order} LIMIT {} OFFSET {}",
            g.number(1, 5),
            g.number(1, 4)
        )
    }),
    ("top_times", |g| {
        let column = g.pick(&["ts", "dt", "tf", "df", "d", "y"]);
        let (a, order) = (g.from("a"), g.order(&[column, "k"]));
        format!("SELECT a.{column}, a.k FROM {a} {order} LIMIT {}", g.number(1, 4))
    }),
];

impl Generator {
    /// An ORDER BY of all these columns, in random sequence and directions.
    fn order(&mut self, columns: &[&str]) -> String {
        let mut columns = columns.to_vec();
        let mut order = vec![];
        while !columns.is_empty() {
            let at = self.number(0, columns.len() as i64 - 1) as usize;
            let direction = self.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            order.push(format!("a.{}{direction}", columns.swap_remove(at)));
        }
        format!("ORDER BY {}", order.join(", "))
    }

    fn rows_frame(&mut self) -> &'static str {
        self.pick(&[
            "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
            "ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING",
            "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
            "ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING",
        ])
    }

    fn window(&mut self, call: &str, order: &str) -> String {
        let partition = self.pick(&["", "PARTITION BY a.k ", "PARTITION BY a.b "]);
        format!(
            "SELECT a.k, a.v, a.s, a.b, {call} OVER ({partition}{order}) AS c FROM {}",
            self.from("a")
        )
    }
}
