//! Families on three-valued logic.

use super::{Family, Generator, Of};

pub const FAMILIES: &[Family] = &[
    ("logic", |g| {
        let (shown, kept) = (g.condition(&["a"], 2), g.condition(&["a"], 2));
        format!("SELECT a.k, a.s, {shown} AS c FROM {} WHERE {kept}", g.from("a"))
    }),
    ("is_true", |g| {
        let is = g.pick(&[
            "IS TRUE",
            "IS NOT TRUE",
            "IS FALSE",
            "IS NOT FALSE",
            "IS UNKNOWN",
            "IS NOT UNKNOWN",
        ]);
        let (of, from) = (g.condition(&["a"], 1), g.from("a"));
        match g.chance(0.5) {
            true => format!("SELECT a.k, ({of}) {is} AS c FROM {from}"),
            false => format!("SELECT a.k, a.v FROM {from} WHERE ({of}) {is}"),
        }
    }),
    ("in_list", |g| {
        let of = g.pick(&[Of::Int, Of::Text]);
        let one = g.in_list("a", of, false);
        g.shown_or_kept(&one)
    }),
    ("in_list_null", |g| {
        let of = g.pick(&[Of::Int, Of::Text]);
        let one = g.in_list("a", of, true);
        g.shown_or_kept(&one)
    }),
    ("in_list_combined", |g| {
        let of = g.pick(&[Of::Int, Of::Text]);
        let (one, other) = (g.in_list("a", of, false), g.in_list("a", of, false));
        let both = format!("{one} {} {other}", g.pick(&["AND", "OR"]));
        g.shown_or_kept(&both)
    }),
    ("in_list_expressions", |g| {
        let case = format!("CASE WHEN {} THEN 1 ELSE a.k END", g.condition(&["a"], 0));
        let not = g.pick(&["", "NOT "]);
        let one = format!("a.v {not}IN (1, {}, {case})", g.number(-1, 7));
        g.shown_or_kept(&one)
    }),
    ("case", |g| {
        let (one, other) = (g.condition(&["a"], 1), g.condition(&["a"], 1));
        let searched = format!(
            "CASE WHEN {one} THEN a.v WHEN {other} THEN a.k ELSE {} END",
            g.number(10, 12)
        );
        let simple = format!("CASE a.k WHEN {} THEN 'x' WHEN a.v THEN a.s END", g.number(-1, 3));
        format!("SELECT a.k, a.v, {searched} AS c, {simple} AS e FROM {}", g.from("a"))
    }),
    ("coalesce", |g| {
        let of = g.pick(&[Of::Int, Of::Text, Of::Eighths, Of::Decimal]);
        let (one, other) = (g.column("a", of), g.column("a", of));
        let function = g.pick(&["COALESCE", "NULLIF", "GREATEST", "LEAST"]);
        format!("SELECT a.k, {function}({one}, {other}) AS c FROM {}", g.from("a"))
    }),
    ("is_distinct", |g| {
        let of = g.pick(&[Of::Int, Of::Text]);
        let (one, other) = (g.column("a", of), g.column("a", of));
        let not = g.pick(&["", "NOT "]);
        let one = format!("({one} IS {not}DISTINCT FROM {other})");
        g.shown_or_kept(&one)
    }),
    ("is_distinct_beside_and", |g| {
        let not = g.pick(&["", "NOT "]);
        let more = g.simple(&["a"], &[Of::Int]);
        let one = format!("a.b IS {not}DISTINCT FROM true {} {more}", g.pick(&["AND", "OR"]));
        g.shown_or_kept(&one)
    }),
    ("between", |g| {
        let of = g.pick(&[Of::Int, Of::Text]);
        let (column, low) = (g.column("a", of), g.literal(of));
        let high = if g.chance(0.5) {
            g.column("a", of)
        } else {
            g.literal(of)
        };
        let one = format!("{column} {}BETWEEN {low} AND {high}", g.pick(&["", "NOT "]));
        g.shown_or_kept(&one)
    }),
    ("like", |g| {
        let pattern = g.pick(&["'a%'", "'%b'", "'_'", "'%'", "''", "'a\\%b'", "a.s", "'A%'"]);
        let like = g.pick(&["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"]);
        let one = format!("a.s {like} {pattern}");
        g.shown_or_kept(&one)
    }),
    ("regex", |g| {
        let pattern = g.pick(&["'^a'", "'.*'", "'b$'", "'[a-z]+'", "''", "'^$'", "'a|10'"]);
        let one = format!("a.s {} {pattern}", g.pick(&["~", "!~", "~*", "!~*"]));
        g.shown_or_kept(&one)
    }),
    ("similar_to", |g| {
        let pattern = g.pick(&["'a%'", "'(a|b)'", "'a'", "'_b'", "'[a-z]'"]);
        let one = format!("a.s {}SIMILAR TO {pattern}", g.pick(&["", "NOT "]));
        g.shown_or_kept(&one)
    }),
    ("row_compare", |g| {
        let (one, other) = (g.number(-1, 3), g.number(-1, 7));
        let one = format!("(a.k, a.v) {} ({one}, {other})", g.comparison());
        g.shown_or_kept(&one)
    }),
];

impl Generator {
    /// Membership in a list of constants.
    pub(super) fn in_list(&mut self, alias: &str, of: Of, null: bool) -> String {
        let count = self.number(1, 4);
        let mut list: Vec<String> = (0..count).map(|_| self.literal(of)).collect();
        if null {
            list.push("NULL".to_string());
        }
        let column = self.column(alias, of);
        format!("{column} {}IN ({})", self.pick(&["", "NOT "]), list.join(", "))
    }

    /// A statement that shows a condition on `a` as a value, or filters by it or by its negation.
    pub(super) fn shown_or_kept(&mut self, condition: &str) -> String {
        let from = self.from("a");
        match self.number(0, 3) {
            0 | 1 => format!("SELECT a.k, a.v, a.s, {condition} AS c FROM {from}"),
            2 => format!("SELECT a.k, a.v, a.s FROM {from} WHERE {condition}"),
            _ => format!("SELECT a.k, a.v, a.s FROM {from} WHERE NOT ({condition})"),
        }
    }
}
