//! Families on scalar functions that PostgreSQL has too, with ordinary and extreme arguments.
//! `src/render/tests/functions.txt` tests more functions over fixed rows.

use super::{Family, Generator, Of};

pub const FAMILIES: &[Family] = &[
    ("function_parts", |g| {
        let (n, m) = (g.whole(), g.whole());
        let call = match g.number(0, 8) {
            0 => format!("substr(a.s, {n})"),
            1 => format!("substr(a.s, {n}, abs({m}))"),
            2 => format!("left(a.s, {n})"),
            3 => format!("right(a.s, {n})"),
            4 => format!(
                "split_part(a.s, {}, {})",
                g.text(),
                g.pick(&["1", "2", "-1", "-2", "100"])
            ),
            5 => format!(
                "overlay(a.s placing {} from {} for {})",
                g.text(),
                g.number(1, 4),
                g.number(0, 3)
            ),
            6 => format!("strpos(a.s, {})", g.text()),
            7 => format!("starts_with(a.s, {})", g.text()),
            _ => "reverse(a.s)".to_string(),
        };
        g.shown(&call)
    }),
    ("function_padding", |g| {
        let length = g.pick(&["0", "-1", "1", "3", "7", "CAST(a.k AS INT)"]);
        let call = match g.number(0, 3) {
            0 => format!("lpad(a.s, {length}, {})", g.text()),
            1 => format!("rpad(a.s, {length}, {})", g.text()),
            2 => format!("lpad(a.s, {length})"),
            _ => format!("repeat(a.s, {length})"),
        };
        g.shown(&call)
    }),
    ("function_replacing", |g| {
        let (one, other) = (g.text(), g.text());
        let function = g.pick(&["replace", "translate"]);
        g.shown(&format!("{function}(a.s, {one}, {other})"))
    }),
    ("function_trimming", |g| {
        let (function, chars) = (g.pick(&["btrim", "ltrim", "rtrim"]), g.text());
        g.shown(&format!("{function}(a.s, {chars})"))
    }),
    ("function_codes", |g| {
        let call = g.pick(&[
            "ascii(a.s)",
            "octet_length(a.s)",
            "bit_length(a.s)",
            "length(a.s)",
            "md5(a.s)",
            "chr(65 + CAST(a.k AS INT))",
            "initcap(a.s)",
            "encode(CAST('ab' AS BYTEA), 'hex')",
            "encode(CAST('ab' AS BYTEA), 'base64')",
            "to_hex(a.big)",
            "to_hex(CAST(a.v AS INT))",
        ]);
        g.shown(call)
    }),
    ("function_joining", |g| {
        let (one, other) = (g.text(), g.pick(&["a.k", "a.b", "a.s", "a.d", "a.x", "NULL"]));
        let call = match g.number(0, 2) {
            0 => format!("concat_ws({one}, a.s, {other}, 'z')"),
            1 => format!("concat(a.s, {other}, {one})"),
            _ => format!("a.s || {one} || a.x"),
        };
        g.shown(&call)
    }),
    ("regexp_functions", |g| {
        let (pattern, flags) = (g.pattern(), g.pick(&["", "i", "n", "x", "c", "p", "s"]));
        let call = match g.number(0, 7) {
            0 => format!("regexp_like(a.s, {pattern}, '{flags}')"),
            1 => format!("regexp_count(a.s, {pattern}, 1, '{flags}')"),
            2 => format!("regexp_replace(a.s, {pattern}, '<\\&>', 'g{flags}')"),
            3 => format!("regexp_replace(a.s, {pattern}, '\\1-\\2')"),
            4 => format!("regexp_instr(a.s, {pattern}, 1, {})", g.number(1, 3)),
            5 => format!("regexp_substr(a.s, {pattern}, {})", g.number(1, 3)),
            6 => format!("array_to_string(regexp_match(a.s, {pattern}), '|', '*')"),
            _ => format!("array_to_string(regexp_split_to_array(a.s, {pattern}), '|')"),
        };
        g.shown(&call)
    }),
    ("regexp_choices", |g| {
        // The family tests which of several matches at one position is found.
        let part = |g: &mut Generator| {
            g.pick(&[
                "a",
                "ab",
                "(a|ab)",
                "(a*)",
                "(b?)",
                "[ab]",
                "(ab)?",
                ".",
                ".*",
                ".*?",
                "(a|b)*",
                "(a+?)",
                "b*?",
                "(ab|a|b)+",
            ])
            .to_string()
        };
        let pattern: String = (0..g.number(1, 4)).map(|_| part(g)).collect();
        let text = g.pick(&["a.s", "a.s || 'abab'", "'aab' || a.s", "'abba'"]);
        let call = match g.chance(0.5) {
            true => format!("array_to_string(regexp_match({text}, '{pattern}'), '|', '*')"),
            false => format!("regexp_replace({text}, '{pattern}', '<\\&,\\1>', 'g')"),
        };
        g.shown(&call)
    }),
    ("similar_to_patterns", |g| {
        let pattern = g.pick(&[
            "'(a|b)%'",
            "'_%b'",
            "'a+'",
            "'[^a]%'",
            "'a{1,2}%'",
            "'%\\%%'",
            "'a.b'",
            "'10|a'",
            "'^a'",
            "''",
            "'%'",
            "a.s",
        ]);
        let one = format!("a.s {}SIMILAR TO {pattern}", g.pick(&["", "NOT "]));
        g.shown_or_kept(&one)
    }),
    ("like_escape", |g| {
        let pattern = g.pick(&[
            "'a!%b' ESCAPE '!'",
            "'%#_%' ESCAPE '#'",
            "'a\\%b'",
            "'\\_%'",
            "'%!!%' ESCAPE '!'",
        ]);
        let one = format!("a.s {} {pattern}", g.pick(&["LIKE", "NOT LIKE", "ILIKE"]));
        g.shown_or_kept(&one)
    }),
    ("number_functions", |g| {
        let of = g.pick(&["a.x", "a.d", "a.v", "a.e"]);
        let call = match g.number(0, 11) {
            0 => format!("abs({of})"),
            1 => format!("ceil({of})"),
            2 => format!("floor({of})"),
            3 => format!("sign({of})"),
            4 => format!("round({}, {})", g.pick(&["a.d", "a.e"]), g.number(-2, 5)),
            5 => format!("trunc({}, {})", g.pick(&["a.d", "a.e"]), g.number(-2, 3)),
            6 => format!("mod(a.v, {})", g.pick(&["2", "-3", "7"])),
            7 => format!("gcd(a.v, {})", g.pick(&["4", "0", "a.k"])),
            8 => format!("lcm(a.v, {})", g.pick(&["4", "0", "a.k"])),
            9 => format!(
                "width_bucket(a.x, {}, {}, {})",
                g.number(-2, 0),
                g.number(1, 3),
                g.number(1, 5)
            ),
            10 => format!("greatest({of}, 1)"),
            _ => format!("least({of}, 1)"),
        };
        g.shown(&call)
    }),
    ("double_functions", |g| {
        let function = g.pick(&[
            "sqrt", "cbrt", "exp", "ln", "log10", "sin", "cos", "atan", "degrees", "radians",
        ]);
        let of = g.pick(&["a.x", "a.y", "abs(a.x)", "abs(a.y) + 1"]);
        // A row without a result fails the statement in PostgreSQL, and becomes a dead letter here.
        g.shown(&format!("CASE WHEN {of} > 0 AND {of} < 700 THEN {function}({of}) END"))
    }),
    ("text_to_number", |g| {
        let text = g.pick(&[
            "' 7'", "'-3 '", "'+1'", "'007'", "'1e2'", "'1.50'", "'.5'", "'nan'", "'-inf'", "'12'",
        ]);
        let to = g.pick(&["INT", "BIGINT", "DOUBLE", "DECIMAL(10,2)", "SMALLINT"]);
        g.shown(&format!("CAST(CASE WHEN a.k >= 0 THEN {text} END AS {to})"))
    }),
    ("text_to_truth", |g| {
        let text = g.pick(&[
            "'yes'", "'Y'", "' t '", "'on'", "'of'", "'OFF'", "'no'", "'0'", "'1'", "'tru'", "'o'", "'2'",
        ]);
        g.shown(&format!("CAST(CASE WHEN a.k >= 0 THEN {text} END AS BOOLEAN)"))
    }),
    ("list_items", |g| {
        let (n, m) = (g.number(-2, 5), g.number(-2, 5));
        let list = g.pick(&["MAKE_ARRAY(a.k, 1, a.v)", "MAKE_ARRAY(a.v, a.k)"]);
        let call = match g.number(0, 9) {
            0 => format!("({list})[{n}]"),
            1 => format!("({list})[a.k]"),
            2 => format!("array_to_string(({list})[{n}:{m}], ',', '*')"),
            3 => format!("array_to_string(array_remove({list}, {n}), ',', '*')"),
            4 => format!("array_to_string(array_replace({list}, a.k, {n}), ',', '*')"),
            5 => format!("array_position({list}, a.k)"),
            6 => format!("cardinality({list})"),
            7 => format!("array_length({list}, 1)"),
            8 => format!("array_to_string(array_append({list}, {n}), ',')"),
            _ => format!("a.v = ANY({list})"),
        };
        g.shown(&call)
    }),
    ("lists_of_texts", |g| {
        let by = g.pick(&["'a'", "''", "','", "'%'", "NULL"]);
        let call = match g.number(0, 2) {
            0 => format!("array_to_string(string_to_array(a.s, {by}), '|', '*')"),
            1 => format!("array_to_string(string_to_array(a.s, {by}, 'b'), '|', '*')"),
            _ => format!("cardinality(string_to_array(a.s, {by}))"),
        };
        g.shown(&call)
    }),
    ("guarded", |g| {
        // Rows that a condition excludes must not be computed.
        let a = g.from("a");
        match g.number(0, 5) {
            0 => format!(
                "SELECT q.n FROM (SELECT CAST(a.s AS BIGINT) AS n FROM {a} WHERE a.s ~ '^[0-9]+$') AS q WHERE q.n > 5"
            ),
            1 => format!("SELECT a.k, sum(100 / a.v) FILTER (WHERE a.v <> 0) AS c FROM {a} GROUP BY a.k"),
            2 => format!(
                "SELECT a.k, CASE WHEN a.v <> 0 THEN 100 / a.v END AS c, CASE WHEN a.v = 0 THEN 0 ELSE 100 / a.v END AS e FROM {a}"
            ),
            3 => format!("SELECT a.k, a.v FROM {a} WHERE a.v <> 0 AND 100 / a.v > 20"),
            4 => format!("SELECT a.k, a.v FROM {a} WHERE a.v = 0 OR 100 / a.v > 20"),
            _ => {
                format!("SELECT a.k, coalesce(nullif(a.v, 0), 1) AS c, 100 / coalesce(nullif(a.v, 0), 1) AS e FROM {a}")
            }
        }
    }),
];

impl Generator {
    /// A whole number as an INT.
    fn whole(&mut self) -> &'static str {
        self.pick(&[
            "0",
            "1",
            "2",
            "-1",
            "-2",
            "3",
            "2147483647",
            "-2147483648",
            "CAST(a.k AS INT)",
        ])
    }

    fn text(&mut self) -> String {
        match self.chance(0.2) {
            true => "a.s".to_string(),
            false => self.literal(Of::Text),
        }
    }

    fn pattern(&mut self) -> &'static str {
        self.pick(&[
            "'a'",
            "'A'",
            "'(a)(b)?'",
            "'[ab]+'",
            "'^a'",
            "'b$'",
            "'.'",
            "'\\s'",
            "'\\d+'",
            "'\\w'",
            "'a|b'",
            "'(a|ab)'",
            "''",
            "'b*'",
            "'[^a]'",
            "'[[:alpha:]]'",
            "'\\mA'",
            "'a # b'",
            "'(.)(.)'",
            "'.*?'",
        ])
    }
}
