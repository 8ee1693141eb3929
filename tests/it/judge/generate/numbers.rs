//! Families on numbers: decimals with literals and with each other, whole numbers up to their limits, doubles, casts.

use super::{Family, Of};

pub const FAMILIES: &[Family] = &[
    ("decimal_literal_compare", |g| {
        let (column, op, value) = (g.column("a", Of::Decimal), g.comparison(), g.literal(Of::Decimal));
        let one = format!("{column} {op} {value}");
        g.shown_or_kept(&one)
    }),
    ("decimal_literal_in", |g| {
        let one = match g.chance(0.5) {
            true => g.in_list("a", Of::Decimal, false),
            false => format!("a.d BETWEEN {} AND {}", g.literal(Of::Decimal), g.literal(Of::Decimal)),
        };
        g.shown_or_kept(&one)
    }),
    ("decimal_literal_filter", |g| {
        let column = g.column("a", Of::Decimal);
        let condition = format!("{column} {} {}", g.comparison(), g.literal(Of::Decimal));
        match g.chance(0.5) {
            true => format!(
                "SELECT a.k, count(*) FILTER (WHERE {condition}) AS n FROM {} GROUP BY a.k",
                g.from("a")
            ),
            false => {
                let (op, value) = (g.comparison(), g.literal(Of::Decimal));
                format!(
                    "SELECT a.k, max({column}) AS m FROM {} GROUP BY a.k HAVING max({column}) {op} {value}",
                    g.from("a")
                )
            }
        }
    }),
    ("decimal_literal_arithmetic", |g| {
        let (column, op, value) = (
            g.column("a", Of::Decimal),
            g.pick(&["+", "-", "*"]),
            g.literal(Of::Decimal),
        );
        format!("SELECT a.k, {column} {op} {value} AS c FROM {}", g.from("a"))
    }),
    ("decimal_compare", |g| {
        let one = format!("a.d {} a.e", g.comparison());
        g.shown_or_kept(&one)
    }),
    ("decimal_arithmetic", |g| {
        let op = g.pick(&["+", "-", "*"]);
        let (one, other) = (g.column("a", Of::Decimal), g.column("a", Of::Decimal));
        format!("SELECT a.k, {one} {op} {other} AS c FROM {}", g.from("a"))
    }),
    ("decimal_divide", |g| {
        let op = g.pick(&["/", "%"]);
        let by = g.pick(&["a.v", "a.e", "a.d", "3"]);
        format!("SELECT a.k, a.d {op} NULLIF({by}, 0) AS c FROM {}", g.from("a"))
    }),
    ("decimal_and_whole", |g| {
        let (column, op) = (g.column("a", Of::Decimal), g.comparison());
        let one = format!("{column} {op} {}", g.pick(&["a.v", "a.k", "1", "100", "a.big"]));
        g.shown_or_kept(&one)
    }),
    ("decimal_and_double", |g| {
        let (column, op) = (g.column("a", Of::Decimal), g.comparison());
        let one = format!("{column} {op} {}", g.pick(&["a.x", "a.y"]));
        g.shown_or_kept(&one)
    }),
    ("whole_arithmetic", |g| {
        let (one, other) = (g.column("a", Of::Int), g.column("a", Of::Int));
        let op = g.pick(&["+", "-", "*"]);
        let by = g.number(2, 5);
        let divide = g.pick(&["/", "%"]);
        format!(
            "SELECT {one} {op} {other} AS c, -{one} AS e, {one} {divide} {by} AS f FROM {}",
            g.from("a")
        )
    }),
    ("whole_overflow", |g| {
        let value = match g.number(0, 4) {
            0 => "-a.big".to_string(),
            1 => "abs(a.big)".to_string(),
            n => format!(
                "a.big {} {}",
                ["+", "-", "*"][n as usize - 2],
                g.pick(&["1", "2", "a.v", "a.big"])
            ),
        };
        format!(
            "SELECT a.k, {value} AS c FROM {} WHERE a.k = {}",
            g.from("a"),
            g.number(-1, 3)
        )
    }),
    ("whole_and_double", |g| {
        let one = format!(
            "a.big {} {}",
            g.comparison(),
            g.pick(&["a.y", "CAST(9007199254740992 AS DOUBLE)"])
        );
        g.shown_or_kept(&one)
    }),
    ("double_compare", |g| {
        let one = g.simple(&["a"], &[Of::Double]);
        g.shown_or_kept(&one)
    }),
    ("double_group", |g| match g.number(0, 3) {
        0 => format!("SELECT DISTINCT a.y FROM {}", g.from("a")),
        1 => format!("SELECT -a.y AS c, count(*) AS n FROM {} GROUP BY -a.y", g.from("a")),
        2 => format!("SELECT a.y, b.k FROM {} JOIN {} ON a.y = b.y", g.from("a"), g.from("b")),
        _ => format!("SELECT a.y, count(*) AS n FROM {} GROUP BY a.y", g.from("a")),
    }),
    ("double_extremes", |g| {
        format!(
            "SELECT a.k, min(a.y) AS lo, max(a.y) AS hi, count(DISTINCT a.y) AS n FROM {} GROUP BY a.k",
            g.from("a")
        )
    }),
    ("double_sums", |g| {
        let column = g.pick(&["x", "y"]);
        format!(
            "SELECT a.k, sum(a.{column}) AS s, avg(a.{column}) AS m FROM {} WHERE a.y <> 1e300 GROUP BY a.k",
            g.from("a")
        )
    }),
    ("negative_zero", |g| {
        let value = g.pick(&[
            "NULLIF(-a.x, 0)",
            "CASE -a.x WHEN 0 THEN 1 ELSE 2 END",
            "NULLIF(a.y, 0)",
            "a.y * 0 = 0",
        ]);
        format!("SELECT a.k, {value} AS c FROM {} WHERE a.y < 1e299", g.from("a"))
    }),
    ("cast_to_whole", |g| {
        let value = g.pick(&["a.x", "a.d", "a.e", "a.x * 4"]);
        format!(
            "SELECT a.k, CAST({value} AS {}) AS c FROM {}",
            g.pick(&["INT", "BIGINT"]),
            g.from("a")
        )
    }),
    ("cast_to_decimal", |g| {
        let value = g.pick(&["a.x", "a.d", "a.e", "a.v", "a.big"]);
        let wanted = g.pick(&["DECIMAL(20,1)", "DECIMAL(30,0)", "DECIMAL(24,3)"]);
        format!("SELECT a.k, CAST({value} AS {wanted}) AS c FROM {}", g.from("a"))
    }),
    ("cast_decimal_to_text", |g| {
        format!(
            "SELECT CAST({} AS VARCHAR) AS c FROM {}",
            g.column("a", Of::Decimal),
            g.from("a")
        )
    }),
    ("cast_double_to_text", |g| {
        // A zero is written without a sign here: -0.0 becomes 0.
        format!(
            "SELECT CAST({} AS VARCHAR) AS c FROM {}",
            g.pick(&["a.x", "a.y + 0", "a.x * 1000000", "a.x / 100000"]),
            g.from("a")
        )
    }),
    ("cast_whole_to_text", |g| {
        format!(
            "SELECT CAST({} AS VARCHAR) AS c, CAST(a.b AS VARCHAR) AS e FROM {}",
            g.pick(&["a.k", "a.big"]),
            g.from("a")
        )
    }),
    ("cast_text", |g| {
        let wanted = g.pick(&["BIGINT", "DOUBLE", "DECIMAL(10,2)", "BOOLEAN"]);
        let texts = g.pick(&["'10'", "' 10 '", "'-0'", "'+7'", "'1'", "'0'"]);
        format!(
            "SELECT a.k, CAST(CASE WHEN a.k >= 0 THEN {texts} END AS {wanted}) AS c FROM {}",
            g.from("a")
        )
    }),
    ("round_decimal", |g| {
        let column = g.column("a", Of::Decimal);
        let call = match g.number(0, 4) {
            0 => format!("round({column})"),
            1 => format!("round({column}, 1)"),
            2 => format!("floor({column})"),
            3 => format!("ceil({column})"),
            _ => format!("trunc({column})"),
        };
        format!("SELECT a.k, {call} AS c FROM {}", g.from("a"))
    }),
    ("round_double", |g| {
        let function = g.pick(&["round", "floor", "ceil", "trunc", "abs"]);
        format!("SELECT a.k, {function}(a.x) AS c FROM {}", g.from("a"))
    }),
    ("power_operator", |g| {
        format!("SELECT a.k, a.v ^ 2 AS c FROM {}", g.from("a"))
    }),
    ("sign", |g| {
        format!("SELECT a.k, sign(a.v) AS c, sign(a.x) AS e FROM {}", g.from("a"))
    }),
    ("math", |g| {
        let call = g.pick(&["abs(a.v)", "sqrt(abs(a.x))", "power(a.k, 2)", "mod(a.v, 3)", "abs(a.d)"]);
        format!("SELECT a.k, a.v, {call} AS c FROM {}", g.from("a"))
    }),
];
